//! What every mechanism serves: a socket with a handler behind it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::clock;
use crate::config::Wait;
use crate::demand::Demand;
use crate::logic::{Outbox, Packets, Peer, Shard, ShardCounters, TRUNCATED, UNANSWERABLE};
use crate::sys::receive::Received;

use super::sleeper::Sleeper;

/// What is done with datagrams between receiving and sending back.
pub(crate) trait Handler {
    /// Answers a batch in place. There may be nothing in it.
    fn serve(&mut self, packets: &mut impl Packets<SocketAddr>, out: &mut impl Outbox<SocketAddr>);

    /// To be called before the thread sleeps: sends what could be sent since, and makes sure that whoever
    /// has something to send wakes it.
    fn before_sleep(&mut self, out: &mut impl Outbox<SocketAddr>);
}

/// A handler with its socket, owned by its thread.
#[derive(Debug)]
pub(crate) struct Worker<H> {
    pub(crate) socket: UdpSocket,
    pub(crate) handler: H,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) sleeper: Arc<Sleeper>,
    pub(crate) wait: Wait,
    /// Whether the socket merges what it receives.
    pub(crate) merges: bool,
}

/// Grants positions.
#[derive(Debug)]
pub(crate) struct Granter {
    pub(crate) shard: Shard<SocketAddr>,
    pub(crate) sleeper: Arc<Sleeper>,
    pub(crate) demand: Arc<Demand>,
}

impl Handler for Granter {
    fn serve(&mut self, packets: &mut impl Packets<SocketAddr>, out: &mut impl Outbox<SocketAddr>) {
        self.shard.serve_with(packets, clock::now_ns, out);
        if self.shard.reign().claim_low_water() {
            self.demand.raise(clock::now_ns());
        }
    }

    fn before_sleep(&mut self, out: &mut impl Outbox<SocketAddr>) {
        self.sleeper.set_waits(self.shard.holds());
        self.shard.release(out);
    }
}

impl Peer for SocketAddr {
    fn address(&self) -> u128 {
        // A socket for both families shows IPv4 addresses within IPv6 ones.
        match self.ip().to_canonical() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            // The network part: a host may choose the rest as it likes.
            IpAddr::V6(ip) => ip.to_bits() >> 64,
        }
    }
}

/// Whether what was received can be answered.
pub(crate) fn is_usable(received: &Received<'_>) -> bool {
    received.peer.is_some() && !received.truncated
}

/// Whether what was received can be answered. What cannot is counted: nobody else sees it.
pub(crate) fn admit(received: &Received<'_>, counters: &ShardCounters) -> bool {
    let usable = is_usable(received);
    if !usable {
        let reason = if received.truncated {
            TRUNCATED
        } else {
            UNANSWERABLE
        };
        counters.received.add(1);
        counters.dropped.count(reason);
    }
    usable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_for_a_host_or_a_network() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("valid").address();
        assert_eq!(address("10.0.0.1:1"), address("10.0.0.1:2"));
        assert_eq!(address("10.0.0.1:1"), address("[::ffff:10.0.0.1]:1"));
        assert_ne!(
            address("[::ffff:10.0.0.1]:1"),
            address("[::ffff:10.0.0.2]:1")
        );
        assert_eq!(address("[2001:db8::1]:1"), address("[2001:db8::2]:1"));
        assert_ne!(address("[2001:db8::1]:1"), address("[2001:db8:0:1::1]:1"));
    }
}
