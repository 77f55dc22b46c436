//! Socket options of UDP segmentation offload.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets the kernel hand out several datagrams of one sender, equal in size, as one buffer.
///
/// # Errors
/// What the system says.
pub fn merge_received(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` outlives the call, and the length is that of an int, which UDP_GRO takes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw const on).cast(),
            INT_BYTES,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const INT_BYTES: libc::socklen_t = 4;
const _: () = assert!(size_of::<libc::c_int>() == 4);
