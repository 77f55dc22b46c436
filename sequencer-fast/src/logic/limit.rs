//! How many requests a sender may make: a token bucket for each address.
//!
//! Kept as the time at which the bucket will be full again (the generic cell rate algorithm of ITU-T I.371,
//! which is a token bucket by another name): one number a sender, and nothing to refill.

use crate::limits::{LIMIT_SETS, LIMIT_WAYS};

const NS_PER_S: u64 = 1_000_000_000;

/// Most requests a second and address, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second.
    pub per_second: u64,
    /// Requests that may come at once after a pause.
    pub burst: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    address: u128,
    full_ns: u64,
}

/// A bounded table of buckets. Where it is too small, the sender whose bucket is fullest is forgotten: who
/// asks too much is remembered longest.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: Rate,
    seed: u64,
    sets: Box<[[Bucket; LIMIT_WAYS]]>,
}

impl Limiter {
    /// A limiter in which every bucket is full.
    pub(crate) fn new(rate: Rate, seed: u64) -> Self {
        let rate = Rate {
            per_second: rate.per_second.max(1),
            burst: rate.burst.max(1),
        };
        Self {
            rate,
            seed,
            sets: vec![[Bucket::default(); LIMIT_WAYS]; LIMIT_SETS].into(),
        }
    }

    /// Takes `requests` out of the bucket of an address, or nothing if they are not all in there. More than
    /// a bucket holds take all of a full one: nobody is locked out for asking much at once.
    pub(crate) fn admit(&mut self, address: u128, requests: u64, now_ns: u64) -> bool {
        let requests = requests.min(self.rate.burst);
        let cost_ns = self.time_ns(requests).max(1);
        let burst_ns = self.time_ns(self.rate.burst).max(1);
        let Some(bucket) = self.bucket(address) else {
            return false;
        };
        let full_ns = bucket.full_ns.max(now_ns).saturating_add(cost_ns);
        if full_ns - now_ns > burst_ns {
            return false;
        }
        bucket.full_ns = full_ns;
        true
    }

    /// Time in which so many requests flow into a bucket.
    fn time_ns(&self, requests: u64) -> u64 {
        requests
            .saturating_mul(NS_PER_S)
            .div_ceil(self.rate.per_second)
    }

    fn bucket(&mut self, address: u128) -> Option<&mut Bucket> {
        let set = self.sets.get_mut(index(address, self.seed))?;
        let known = set.iter().position(|bucket| bucket.address == address);
        let fullest = set
            .iter()
            .enumerate()
            .min_by_key(|(_, bucket)| bucket.full_ns);
        let fullest = fullest.map(|(way, _)| way);
        let bucket = set.get_mut(known.or(fullest)?)?;
        if known.is_none() {
            *bucket = Bucket {
                address,
                full_ns: 0,
            };
        }
        Some(bucket)
    }
}

fn index(address: u128, seed: u64) -> usize {
    /// The multiplier of the 64-bit finaliser of MurmurHash3 (Appleby, public domain).
    const MIX: u64 = 0xff51_afd7_ed55_8ccd;
    let halves = [address & u128::from(u64::MAX), address >> 64];
    let folded = halves.into_iter().fold(seed, |hash, half| {
        let half = u64::try_from(half).unwrap_or_default();
        let mixed = (hash ^ half).wrapping_mul(MIX);
        mixed ^ mixed >> 33
    });
    usize::try_from(folded % LIMIT_SETS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn limiter(per_second: u64, burst: u64) -> Limiter {
        Limiter::new(Rate { per_second, burst }, 3)
    }

    #[test]
    fn a_sender_gets_its_burst_and_then_its_rate() {
        let mut limiter = limiter(1000, 10);
        let mut admitted = |now_ns| (0..100).filter(|_| limiter.admit(1, 1, now_ns)).count();
        assert_eq!(admitted(5), 10);
        assert_eq!(admitted(5 + 3 * MS), 3);
        assert_eq!(admitted(5 + 3 * MS), 0);
        assert_eq!(
            admitted(1000 * MS),
            10,
            "a pause fills no more than the burst"
        );
    }

    #[test]
    fn many_requests_at_once_are_taken_or_left_as_a_whole() {
        let mut limiter = limiter(1000, 29);
        assert!(limiter.admit(1, 20, 0));
        assert!(!limiter.admit(1, 10, 0));
        assert!(limiter.admit(1, 9, 0));
        assert!(!limiter.admit(1, 29, 20 * MS), "not full again");
        assert!(
            limiter.admit(1, 30_000, 1000 * MS),
            "takes all of a full one"
        );
        assert!(!limiter.admit(1, 1, 1000 * MS));
    }

    #[test]
    fn senders_do_not_share() {
        let mut limiter = limiter(1000, 1);
        for address in 0..200 {
            assert!(limiter.admit(address, 1, 0), "address={address}");
        }
    }

    /// Whoever floods from few addresses stays remembered while many others come by.
    #[test]
    fn who_asks_too_much_is_remembered_longest() {
        let mut limiter = limiter(1, 1000);
        while limiter.admit(7, 1, 0) {}
        for address in 1000..100_000 {
            limiter.admit(address, 1, 0);
        }
        assert!(!limiter.admit(7, 1, 0));
    }

    #[test]
    fn rates_above_one_a_nanosecond_are_still_limited() {
        let mut limiter = limiter(u64::MAX, 5);
        let admitted = (0..1000).filter(|_| limiter.admit(1, 1, 0)).count();
        assert!(admitted <= 5, "admitted={admitted}");
    }
}
