//! Setting a ring up, and finding out whether the kernel has what it needs.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use super::ring::Waiting;
use crate::limits::{COMPLETIONS, ENTRIES};

/// How long the kernel's thread looks for submissions before it sleeps, in milliseconds.
const SQPOLL_IDLE_MS: u32 = 100;

/// A ring that waits like this.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn build(waiting: Waiting) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_cqsize(COMPLETIONS)
        .dontfork();
    match waiting {
        Waiting::Blocked => builder.setup_defer_taskrun(),
        // The flag tells without a system call that there is something to do.
        Waiting::Polling => builder.setup_defer_taskrun().setup_taskrun_flag(),
        Waiting::Submitted { core } => {
            builder.setup_sqpoll(SQPOLL_IDLE_MS);
            match core {
                Some(core) => builder.setup_sqpoll_cpu(core),
                None => &mut builder,
            }
        }
    };
    builder.build(ENTRIES)
}

/// Checks that the kernel has what is used.
pub(super) fn check(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    for (name, code) in [
        ("recvmsg", opcode::RecvMsgMulti::CODE),
        ("sendmsg", opcode::SendMsg::CODE),
        ("poll", opcode::PollAdd::CODE),
    ] {
        if !probe.is_supported(code) {
            let text = format!("the kernel has no {name} for io_uring");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    }
    if !ring.params().is_feature_nodrop() {
        let text = "the kernel may lose completions";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(())
}
