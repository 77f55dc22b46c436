//! Stripes whose frames a server has put off.
//!
//! A stripe pauses as a whole: a frame that went before one that was put off would find room that the other
//! needs first, since a chain has no gaps. Pauses double as long as nothing of the stripe is answered for good.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::StripeId;

use crate::limits::PUT_OFF;
use crate::logic::backoff::Backoff;

/// The pauses of one connection. Its size is bounded by the number of stripes.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    of: BTreeMap<StripeId, Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Option<Duration>,
    backoff: Backoff,
}

impl Pauses {
    /// The stripe pauses from now on, unless it does already. Returns the end of the pause.
    pub(crate) fn begin(&mut self, stripe: StripeId, now: Duration, chance: f64) -> Duration {
        let pause = self.of.entry(stripe).or_insert_with(|| Pause {
            until: None,
            backoff: Backoff::new(PUT_OFF),
        });
        let backoff = &mut pause.backoff;
        // One that is over may not have been ended yet.
        pause.until = pause.until.filter(|until| *until > now);
        *pause
            .until
            .get_or_insert_with(|| now + backoff.pause(chance))
    }

    /// The end of the stripe's pause.
    pub(crate) fn until(&self, stripe: StripeId) -> Option<Duration> {
        self.of.get(&stripe)?.until
    }

    /// Ends the pauses that are over.
    pub(crate) fn wake(&mut self, now: Duration) {
        for pause in self.of.values_mut() {
            pause.until = pause.until.filter(|until| *until > now);
        }
    }

    /// A frame of the stripe was answered for good: its next pause is a short one.
    pub(crate) fn gets_on(&mut self, stripe: StripeId) {
        if let Some(pause) = self.of.get_mut(&stripe) {
            pause.backoff.reset();
        }
    }

    /// Forgets them, for a new connection.
    pub(crate) fn clear(&mut self) {
        self.of.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripe_pauses_longer_until_it_gets_on() {
        let (one, other) = (StripeId(1), StripeId(2));
        let mut pauses = Pauses::default();
        let (mut now, mut lasted) = (Duration::ZERO, Vec::new());
        for _ in 0..8 {
            let until = pauses.begin(one, now, 1.0);
            assert_eq!(
                pauses.begin(one, now + PUT_OFF.0 / 2, 1.0),
                until,
                "the same pause"
            );
            assert_eq!(
                (pauses.until(one), pauses.until(other)),
                (Some(until), None)
            );
            lasted.push(until - now);
            now = until;
            if lasted.len() % 2 == 0 {
                pauses.wake(now);
                assert_eq!(pauses.until(one), None);
            }
        }
        assert!(
            lasted.is_sorted() && lasted.first() == Some(&PUT_OFF.0),
            "{lasted:?}"
        );
        assert_eq!(lasted.last(), Some(&PUT_OFF.1));
        pauses.gets_on(one);
        assert_eq!(pauses.begin(one, now, 1.0) - now, PUT_OFF.0);
    }
}
