//! Chance from a seed, so that a run can be repeated.

use ulid::Ulid;

/// The seed of a run, from the environment or by chance; it is printed.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("STRIPELOG_XDP_SEED").ok();
    let given = given.and_then(|seed| seed.parse().ok());
    let random = u64::try_from(Ulid::generate().random() & u128::from(u64::MAX));
    let seed = given.unwrap_or(random.expect("masked"));
    eprintln!("STRIPELOG_XDP_SEED={seed}");
    seed
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn below32(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).expect("small")
    }

    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("small")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("a byte")
    }

    /// Whether a thing happens that does once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.index(things.len())]
    }
}
