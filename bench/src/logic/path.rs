//! A path that loses, doubles and reorders datagrams, by seed.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Most datagrams that overtake one which is held back.
const OVERTAKE: u64 = 32;

/// Most datagrams before the second copy of one that is doubled.
const LATER: u64 = 512;

/// What was done to datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// Datagrams that came.
    pub(crate) came: u64,
    /// Of these, never delivered.
    pub(crate) lost: u64,
    /// Delivered twice.
    pub(crate) doubled: u64,
    /// Delivered behind later ones.
    pub(crate) reordered: u64,
}

/// One direction of a path.
#[derive(Debug)]
pub(crate) struct Path {
    random: StdRng,
    rate: f64,
    held: VecDeque<(u64, Vec<u8>)>,
    done: Done,
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on now.
    Passes,
    /// It never arrives.
    Lost,
    /// It goes on later, behind others.
    Held,
}

impl Path {
    /// A direction in which each of the three happens to this share of the datagrams.
    #[must_use]
    pub(crate) fn new(rate: f64, seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            rate,
            held: VecDeque::new(),
            done: Done::default(),
        }
    }

    /// Decides about a datagram.
    pub(crate) fn pass(&mut self, datagram: &[u8]) -> Fate {
        self.done.came += 1;
        let mut hits = || self.random.random_bool(self.rate);
        let (lost, doubled, held) = (hits(), hits(), hits());
        if lost {
            self.done.lost += 1;
            return Fate::Lost;
        }
        if doubled {
            self.done.doubled += 1;
            self.hold(datagram, LATER);
        }
        if held {
            self.done.reordered += 1;
            self.hold(datagram, OVERTAKE);
            return Fate::Held;
        }
        Fate::Passes
    }

    /// The next datagram that was held back for long enough; any one if nothing else comes.
    pub(crate) fn release(&mut self, nothing_comes: bool) -> Option<Vec<u8>> {
        let now = self.done.came;
        let due = self
            .held
            .iter()
            .position(|(at, _)| *at <= now || nothing_comes)?;
        self.held.remove(due).map(|(_, datagram)| datagram)
    }

    /// What was done so far.
    #[must_use]
    pub(crate) fn done(&self) -> Done {
        self.done
    }

    fn hold(&mut self, datagram: &[u8], most: u64) {
        let at = self.done.came + self.random.random_range(1..=most);
        self.held.push_back((at, datagram.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_happens_as_often_as_told_and_nothing_else_is_lost() {
        let seed = 7;
        let mut path = Path::new(0.01, seed);
        let mut seen = vec![0_u32; 100_000];
        let mut order = Vec::new();
        for number in 0..100_000_u32 {
            if path.pass(&number.to_le_bytes()) == Fate::Passes {
                order.push(number);
            }
            while let Some(datagram) = path.release(number == 99_999) {
                order.push(u32::from_le_bytes(datagram.try_into().expect("whole")));
            }
        }
        order.iter().for_each(|number| seen[*number as usize] += 1);
        let done = path.done();
        let count = |times: fn(u32) -> bool| seen.iter().filter(|t| times(**t)).count() as u64;
        assert_eq!(
            (count(|t| t == 0), count(|t| t == 2)),
            (done.lost, done.doubled)
        );
        assert_eq!(count(|t| t > 2), 0);
        for share in [done.lost, done.doubled, done.reordered] {
            assert!((800..1200).contains(&share), "seed {seed}: {done:?}");
        }
        assert!(order.windows(2).any(|pair| pair[0] > pair[1]));
    }
}
