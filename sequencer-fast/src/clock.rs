//! The monotonic clock of this machine.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine started, including the time for which it was suspended: a reign runs out
/// while its machine sleeps (S-5).
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let rest = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
