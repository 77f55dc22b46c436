//! The floor: a server that sends every datagram back, with the mechanism of the sequencer and none of its
//! logic. A process of its own, as the sequencer is.

use std::net::SocketAddr;

use anyhow::Result;
use sequencer_fast::{Backend, Echo, Io, Wait};

use super::bed::SERVER_DEVICE;
use super::hook::{Job, Program};

/// How the echo is served.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// UDP address to bind
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How datagrams are received and sent: io_uring, poll, or xdp, which turns them round in the driver hook
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
    if args.backend == "xdp" {
        let port = args.listen.port();
        let _attached = Program::attach_here(Job::Reflect, port, SERVER_DEVICE)?;
        println_ready();
        loop {
            std::thread::park();
        }
    }
    let echo = Echo::start(Io {
        listen: args.listen,
        backend: match args.backend.as_str() {
            "poll" => Backend::Poll,
            "io_uring" => Backend::IoUring,
            _ => Backend::Auto,
        },
        wait: match args.wait.as_str() {
            "busy_poll" => Wait::BusyPoll,
            "sqpoll" => Wait::SqPoll { core: None },
            _ => Wait::Block,
        },
        merge: args.merge,
        core: args.core,
    })?;
    println_ready();
    Ok(echo.join()?)
}

/// Tells the one who started it that it listens.
fn println_ready() {
    eprintln!("granting");
}
