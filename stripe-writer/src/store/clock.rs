use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time on `CLOCK_BOOTTIME`: monotonic, and it also counts while the machine sleeps, so that an owner
/// which was paused with its machine knows for how long (C-7).
#[must_use]
pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}
