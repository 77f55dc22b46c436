//! Pauses that double, with jitter, up to a bound.

use std::time::Duration;

/// The pauses between attempts of one thing.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new((first, most): (Duration, Duration)) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// The next pause: between half of the nominal one and all of it, as `chance` in `[0, 1)` says, so
    /// that many clients of a server that comes back do not come back together.
    pub fn pause(&mut self, chance: f64) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.most);
        nominal.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Starts again after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_bound_and_starts_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new((ms(10), ms(35)));
        let pauses: Vec<_> = (0..4).map(|_| backoff.pause(1.0)).collect();
        assert_eq!(pauses, [ms(10), ms(20), ms(35), ms(35)]);
        backoff.reset();
        assert_eq!(backoff.pause(0.0), ms(5));
    }
}
