//! The whole life of a stripe in a hostile world: owners that pause, crash and come back, puts that are
//! late, lost and repeated, clients that repeat themselves, reigns, and a collector.
//!
//! `STRIPE_MODEL_CASES` says how many lives, `STRIPE_MODEL_SEED` shows one of them.

mod client;
mod life;
mod owner;
mod rng;
mod says;
mod store;
mod world;

use wire::{Identity, Slot};

/// The bytes of a record tell whose it is and where it belongs.
fn record(identity: Identity, slot: Slot) -> Vec<u8> {
    let numbers = [identity.request.0, slot.0];
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// Tells the seed of the life that failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: STRIPE_MODEL_SEED={}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn model_every_answer_is_true_for_ever() {
    if let Some(seed) = number("STRIPE_MODEL_SEED") {
        let _seed = Seed(seed);
        life::live(seed, true);
        return;
    }
    let few = if cfg!(debug_assertions) { 1000 } else { 20_000 };
    let cases = number("STRIPE_MODEL_CASES").unwrap_or(few);
    let mut seen = std::collections::BTreeMap::<_, u64>::new();
    for seed in 0..cases {
        let _seed = Seed(seed);
        for (what, count) in life::live(seed, false) {
            *seen.entry(what).or_default() += count;
        }
    }
    eprintln!("{seen:?}");
    // A model that meets nothing proves nothing.
    for what in life::MUST_HAPPEN {
        assert!(seen.contains_key(what), "never happened: {what}");
    }
}
