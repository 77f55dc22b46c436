//! The issued tail of a daemon: its own, or one that a program in the kernel takes from as well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counter::{CLOSED, Counter};

/// Memory that a program in the kernel has as well.
pub trait Words: fmt::Debug + Send + Sync {
    /// All of it.
    fn words(&self) -> &[AtomicU64];
}

impl Words for Vec<AtomicU64> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

/// Number of the word in which the tail is: `struct state` of `bpf/grant.h`.
const TAIL: usize = 0;

/// Of the word that tells how far the program may grant.
const LIMIT: usize = 16;

/// Of the word that tells until when.
const DEADLINE: usize = 17;

/// Of the word that tells at which tail the program hands a request over, so that somebody notices.
const LOW_WATER: usize = 18;

/// Words of a shared state.
pub const STATE_WORDS: usize = 32;

/// What is found where there is no such word: never, as memory that is too short is refused.
static NOTHING: AtomicU64 = AtomicU64::new(CLOSED);

/// The issued tail.
#[derive(Debug)]
pub enum Tail {
    /// Nobody else takes from it.
    Own(AtomicU64),
    /// A program takes from it, too.
    Shared(Shared),
}

/// State that is shared with a program: the tail, and how far and how long the program may grant.
#[derive(Debug)]
pub struct Shared(Arc<dyn Words>);

impl Tail {
    /// A tail of its own.
    #[must_use]
    pub fn own(start: u64) -> Self {
        Self::Own(AtomicU64::new(start))
    }

    /// A tail in memory of [`STATE_WORDS`] words that a program shares; nothing if there are fewer. The program grants
    /// nothing yet.
    #[must_use]
    pub fn shared(memory: Arc<dyn Words>, start: u64) -> Option<Self> {
        if memory.words().len() < STATE_WORDS {
            return None;
        }
        let shared = Shared(memory);
        shared.word(LOW_WATER).store(u64::MAX, Ordering::SeqCst);
        shared.word(TAIL).store(start, Ordering::SeqCst);
        Some(Self::Shared(shared))
    }

    fn word(&self) -> &AtomicU64 {
        match self {
            Self::Own(word) => word,
            Self::Shared(shared) => shared.word(TAIL),
        }
    }
}

impl Shared {
    fn word(&self, number: usize) -> &AtomicU64 {
        self.0.words().get(number).unwrap_or(&NOTHING)
    }
}

impl Counter for Tail {
    fn tail(&self) -> u64 {
        self.word().tail()
    }

    fn take(&self, count: u64) -> u64 {
        self.word().take(count)
    }

    fn take_at(&self, expected: u64, count: u64) -> Result<(), u64> {
        self.word().take_at(expected, count)
    }

    fn close(&self) -> Option<u64> {
        self.word().close()
    }

    fn allow(&self, limit: u64, deadline_ns: u64) {
        if let Self::Shared(shared) = self {
            // The deadline first: whoever sees this limit sees a deadline that is as new.
            let deadline = shared.word(DEADLINE);
            deadline.fetch_max(deadline_ns, Ordering::SeqCst);
            shared.word(LIMIT).fetch_max(limit, Ordering::SeqCst);
        }
    }

    fn hand_over_at(&self, tail: u64) {
        if let Self::Shared(shared) = self {
            shared.word(LOW_WATER).store(tail, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<Vec<AtomicU64>> {
        Arc::new((0..STATE_WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    fn a_program_sees_what_it_may_do_and_that_it_is_over() {
        let memory = memory();
        let word = |number: usize| memory[number].load(Ordering::SeqCst);
        let tail = Tail::shared(Arc::<Vec<AtomicU64>>::clone(&memory), 70);
        let tail = tail.expect("long enough");
        assert_eq!((word(TAIL), word(LIMIT)), (70, 0), "grants nothing");
        tail.allow(100, 5);
        tail.hand_over_at(90);
        assert_eq!((word(LIMIT), word(DEADLINE)), (100, 5));
        assert_eq!(word(LOW_WATER), 90);
        tail.allow(80, 4);
        assert_eq!((word(LIMIT), word(DEADLINE)), (100, 5), "only grows");
        // The program takes ten.
        memory[TAIL].fetch_add(10, Ordering::SeqCst);
        assert_eq!(tail.take(5), 80);
        assert_eq!(tail.take_at(80, 1), Err(85));
        assert_eq!(tail.close(), Some(85));
        assert!(word(TAIL) > word(LIMIT), "above every limit");
        assert_eq!(tail.close(), None);
    }

    #[test]
    fn memory_that_is_too_short_is_refused() {
        assert!(Tail::shared(Arc::new(Vec::new()), 0).is_none());
    }
}
