//! Which stripe-writer is to own a stripe, where several may: rendezvous hashing.
//!
//! Every process ranks the writers of a stripe alike, without a word to the others, as long as it knows the same ones.
//! That a writer comes or goes moves only the stripes that it gains or leaves behind. Nothing here is needed for
//! safety: who owns a stripe is decided by its chain (C-6).

use std::net::SocketAddr;

use wire::StripeId;

use super::membership::Writer;

/// Where a writer stands among those that may own a stripe: the least rank is to own it, the next one is to take it
/// over. Writers whose range has the stripe come before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    stranger: bool,
    weight: u64,
    address: SocketAddr,
}

impl Rank {
    /// The rank of a writer for a stripe, the same in every process.
    #[must_use]
    pub fn new(writer: &Writer, stripe: StripeId) -> Self {
        Self {
            stranger: !writer.stripes.contains(&stripe.0),
            weight: weight(writer.address, stripe),
            address: writer.address,
        }
    }

    /// Whether the writer's range has the stripe.
    #[must_use]
    pub fn is_home(&self) -> bool {
        !self.stranger
    }
}

/// The place of the writer that is to own a stripe; `None` only without writers.
#[must_use]
pub fn assigned(writers: &[Writer], stripe: StripeId) -> Option<usize> {
    let ranks = writers.iter().map(|writer| Rank::new(writer, stripe));
    let least = ranks.enumerate().min_by_key(|(_, rank)| *rank);
    least.map(|(place, _)| place)
}

fn weight(address: SocketAddr, stripe: StripeId) -> u64 {
    let text = format!("{address} {}", stripe.0);
    // FNV-1a, and the mixing at the end of splitmix64.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIPES: u16 = 1024;

    fn writer(number: u16) -> Writer {
        Writer {
            address: ([10, 0, 0, 1], 7000 + number).into(),
            stripes: 0..=STRIPES - 1,
        }
    }

    fn owners(writers: &[Writer]) -> Vec<SocketAddr> {
        let owner = |stripe| assigned(writers, StripeId(stripe)).and_then(|at| writers.get(at));
        let owners = (0..STRIPES).map(|stripe| owner(stripe).map(|writer| writer.address));
        owners.collect::<Option<_>>().expect("every stripe has one")
    }

    #[test]
    fn every_stripe_has_an_owner_and_all_agree_on_it() {
        let mut writers: Vec<_> = (0..5).map(writer).collect();
        let known = owners(&writers);
        for _ in 0..writers.len() {
            writers.rotate_left(1);
            assert_eq!(owners(&writers), known, "in whatever order they are known");
        }
        for one in &writers {
            let count = known.iter().filter(|owner| **owner == one.address).count();
            assert!((150..=260).contains(&count), "one in five: {count}");
        }
        assert_eq!(assigned(&[], StripeId(0)), None);
    }

    #[test]
    fn only_the_stripes_of_who_comes_or_goes_move() {
        let four: Vec<_> = (0..4).map(writer).collect();
        let five: Vec<_> = (0..5).map(writer).collect();
        let fifth = writer(4).address;
        let moves: Vec<_> = owners(&four).into_iter().zip(owners(&five)).collect();
        let moved = moves.iter().filter(|(before, after)| before != after);
        assert!(moved.clone().all(|(_, after)| *after == fifth));
        let moved = moved.count();
        assert!((150..=260).contains(&moved), "one in five: {moved}");
    }

    #[test]
    fn who_has_the_stripe_in_its_range_comes_first() {
        let mut writers: Vec<_> = (0..4).map(writer).collect();
        for (at, writer) in (0_u16..).zip(&mut writers) {
            writer.stripes = at * 8..=at * 8 + 7;
        }
        for stripe in 0..32 {
            assert_eq!(
                assigned(&writers, StripeId(stripe)),
                Some(usize::from(stripe / 8))
            );
        }
        let beyond = assigned(&writers, StripeId(99)).and_then(|at| writers.get(at));
        let rank = beyond.map(|writer| Rank::new(writer, StripeId(99)));
        assert!(
            rank.is_some_and(|rank| !rank.is_home()),
            "of no range, and owned"
        );
    }

    /// Processes of several versions have to agree.
    #[test]
    fn the_weights_never_change() {
        let weights = [0, 1, 1023].map(|stripe| weight(writer(0).address, StripeId(stripe)));
        let known = [
            11_555_272_624_443_404_448,
            15_854_463_888_446_976_173,
            13_869_785_343_695_611_380,
        ];
        assert_eq!(weights, known);
    }
}
