//! Seeded chance.

/// SplitMix64: every run with the same seed is the same run.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that depends on the seed alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    /// From `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// One of these, if there is one.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(of.len() as u64)).ok()?;
        of.get(at).copied()
    }

    /// In `[0, 1)`.
    pub fn chance(&mut self) -> f64 {
        let parts = u32::try_from(self.below(1 << 20)).unwrap_or(0);
        f64::from(parts) / f64::from(1 << 20)
    }
}
