//! The floor: a server that sends every datagram back, with the mechanism of the sequencer and none of its
//! logic. A process of its own, as the sequencer is.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags};
use sequencer_fast::udp::{self, Outgoing, Receiver, Sender};
use socket2::{Domain, Protocol, Socket, Type};

use super::flow::passing;

/// How the echo is served.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// UDP address to bind
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How datagrams are received and sent: io_uring or poll
    #[arg(long, default_value = "io_uring")]
    backend: String,
    /// How it waits: block, busy_poll or sqpoll
    #[arg(long, default_value = "block")]
    wait: String,
    /// Whether the kernel merges what it receives
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    merge: bool,
    /// Core to pin the thread to
    #[arg(long)]
    core: Option<usize>,
}

/// Serves until it is killed.
///
/// # Errors
/// What the system says.
pub(crate) fn serve(args: &Args) -> Result<()> {
    let domain = Domain::for_address(args.listen);
    let socket = Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(8 << 20)?;
    socket.set_send_buffer_size(8 << 20)?;
    if args.merge {
        udp::merge_received(socket.as_fd())?;
    }
    socket.bind(&args.listen.into())?;
    let socket: std::net::UdpSocket = socket.into();
    let mut receiver = Receiver::new(32, 1 << 16);
    let mut sender = Sender::new(32);
    println_ready();
    loop {
        let count = passing(receiver.receive(socket.as_fd()))?;
        let mut first = 0;
        while first < count {
            let replies = (first..count).filter_map(|index| {
                let received = receiver.get(index)?;
                Some(Outgoing {
                    peer: received.peer?,
                    bytes: received.bytes,
                    segment: received.segment.and_then(|s| u16::try_from(s).ok()),
                })
            });
            first += passing(sender.send(socket.as_fd(), replies))?.max(1);
        }
        if count < 32 && args.wait == "block" {
            let mut watched = [PollFd::new(&socket, PollFlags::IN)];
            let _ = rustix::event::poll(&mut watched, None);
        }
    }
}

/// Tells the one who started it that it listens.
fn println_ready() {
    eprintln!("granting");
}
