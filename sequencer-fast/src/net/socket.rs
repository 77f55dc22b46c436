//! One UDP socket a shard, all on one address.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::SOCKET_BUFFER_BYTES;
use crate::sys::offload;

/// How often an address in use is tried again, and how long apart. The kernel closes the rings of a killed
/// process, and with them their sockets, some time after the process is gone.
const BIND_TRIES: u32 = 40;
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Opens the sockets of a process that may follow on one that was killed a moment ago.
///
/// # Errors
/// What [`open_once`] says, where the address stays in use.
pub(crate) fn open(address: SocketAddr, count: usize, merge: bool) -> io::Result<Vec<UdpSocket>> {
    for _ in 1..BIND_TRIES {
        match open_once(address, count, merge) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => pause(),
            opened => return opened,
        }
    }
    open_once(address, count, merge)
}

#[allow(
    clippy::disallowed_methods,
    reason = "nothing runs yet that could be blocked"
)]
fn pause() {
    std::thread::sleep(BIND_PAUSE);
}

/// Opens `count` sockets on one address. The kernel spreads the clients over them, each client always to
/// the same socket.
///
/// # Errors
/// Where the address is in use, also by another sequencer: the first socket is bound without
/// SO_REUSEPORT, which makes it exclusive, and joined by the others afterwards.
fn open_once(address: SocketAddr, count: usize, merge: bool) -> io::Result<Vec<UdpSocket>> {
    let first = new(address, merge)?;
    first.bind(&address.into())?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    if count > 1 {
        first.set_reuse_port(true)?;
    }
    let mut sockets = vec![first.into()];
    for _ in 1..count {
        let socket = new(bound, merge)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound.into())?;
        sockets.push(socket.into());
    }
    Ok(sockets)
}

fn new(address: SocketAddr, merge: bool) -> io::Result<Socket> {
    let kind = Type::DGRAM.cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    for result in [
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES),
        if merge {
            offload::merge_received(socket.as_fd())
        } else {
            Ok(())
        },
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, "socket option refused");
        }
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_set_of_sockets_is_refused() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for count in [1, 3] {
            let sockets = open_once(any, count, true).expect("free port");
            assert_eq!(sockets.len(), count);
            let address = sockets[0].local_addr().expect("bound");
            for again in [1, 2] {
                let error = open_once(address, again, true).expect_err("in use");
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
        }
    }
}
