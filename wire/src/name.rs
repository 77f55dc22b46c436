//! Names of the objects of a log, below the root that its URL gives.
//!
//! ```text
//! log.head                                         whose log this is
//! <log id>/control/<number>                        control chain, 20 decimal digits
//! <log id>/stripes/<segment>/<stripe>/<position>   stripe chains, 8, 4 and 16 hexadecimal digits
//! <log id>/snapshots/<segment>/<stripe>/<place>    snapshots of stripe chains, 8, 4 and 16 hexadecimal digits
//! <log id>/requests/<segment>/<number>             requests for another layout, 8 and 8 hexadecimal digits
//! check/<ulid>/...                                 scratch names of the store check
//! ```
//!
//! Digits are padded, so that the order of names is the order of numbers. The log's identity is part of
//! every name: a late create of a deleted log cannot touch the log that was made in its place.

use crate::{LogId, Position, SegmentId, StripeId, WireError};

/// Name of the head of a log.
pub const HEAD: &str = "log.head";

/// Prefix of the scratch names of the store check.
pub const CHECK_PREFIX: &str = "check";

/// Prefix of a log's control chain.
#[must_use]
pub fn control_prefix(log: LogId) -> String {
    format!("{log}/control")
}

/// Name of a control-chain entry.
#[must_use]
pub fn control(log: LogId, number: u64) -> String {
    format!("{}/{number:020}", control_prefix(log))
}

/// Prefix of a stripe's chain in a segment.
#[must_use]
pub fn chain_prefix(log: LogId, segment: SegmentId, stripe: StripeId) -> String {
    format!("{log}/stripes/{:08x}/{:04x}", segment.0, stripe.0)
}

/// Name of the object of a stripe that starts at a position (C-2).
#[must_use]
pub fn object(log: LogId, segment: SegmentId, stripe: StripeId, start: Position) -> String {
    format!("{}/{:016x}", chain_prefix(log, segment, stripe), start.0)
}

/// Prefix of the snapshots of a stripe's chain in a segment.
#[must_use]
pub fn snapshots_prefix(log: LogId, segment: SegmentId, stripe: StripeId) -> String {
    format!("{log}/snapshots/{:08x}/{:04x}", segment.0, stripe.0)
}

/// Name of the snapshot that starts at a position. Names *fall* with positions: stores list in rising order
/// only, and so the first name of a listing is that of the newest snapshot, or of the last one that starts
/// at or before a position.
#[must_use]
pub fn snapshot(log: LogId, segment: SegmentId, stripe: StripeId, start: Position) -> String {
    let place = u64::MAX - start.0;
    format!("{}/{place:016x}", snapshots_prefix(log, segment, stripe))
}

/// Name of a note on requests for another layout behind a segment.
#[must_use]
pub fn request(log: LogId, segment: SegmentId, number: u32) -> String {
    format!("{log}/requests/{:08x}/{number:08x}", segment.0)
}

/// Number of the control entry with this name.
///
/// # Errors
/// [`WireError::Malformed`] for a name that [`control`] does not make.
pub fn parse_control(name: &str) -> Result<u64, WireError> {
    let what = "name of a control entry";
    last_part(name, 20)
        .and_then(|digits| digits.parse().ok())
        .filter(|number| name.ends_with(&format!("/control/{number:020}")))
        .ok_or(WireError::Malformed { what })
}

/// First position of the object with this name.
///
/// # Errors
/// [`WireError::Malformed`] for a name that [`object`] does not make.
pub fn parse_object(name: &str) -> Result<Position, WireError> {
    let what = "name of a stripe object";
    last_part(name, 16)
        .filter(|digits| {
            digits
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .map(Position)
        .ok_or(WireError::Malformed { what })
}

fn last_part(name: &str, digits: usize) -> Option<&str> {
    let part = name.rsplit('/').next()?;
    (part.len() == digits).then_some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn c2_names_hold_segment_stripe_and_first_position() {
        let log = LogId([0; 16]);
        assert_eq!(
            object(log, SegmentId(2), StripeId(31), Position(0xabc)),
            "00000000000000000000000000/stripes/00000002/001f/0000000000000abc"
        );
        assert_eq!(
            control(log, 12),
            "00000000000000000000000000/control/00000000000000000012"
        );
    }

    #[test]
    fn the_first_snapshot_listed_is_the_newest() {
        let name = |position| snapshot(LogId([0; 16]), SegmentId(2), StripeId(31), position);
        assert_eq!(
            name(Position(0xabc)),
            "00000000000000000000000000/snapshots/00000002/001f/fffffffffffff543"
        );
        assert!(name(Position(8)) < name(Position(7)));
    }

    #[test]
    fn refuses_names_that_are_not_ours() {
        for name in [
            "",
            "x/control/12",
            "x/other/00000000000000000012",
            "x/control/0000000000000000001x",
        ] {
            assert!(parse_control(name).is_err(), "{name}");
        }
        for name in ["", "s/0000000000000ABC", "s/abc", "s/+000000000000abc"] {
            assert!(parse_object(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn order_of_names_is_order_of_numbers(a in any::<u64>(), b in any::<u64>()) {
            let log = LogId([7; 16]);
            let name = |p| object(log, SegmentId(1), StripeId(2), Position(p));
            prop_assert_eq!(a.cmp(&b), name(a).cmp(&name(b)));
            prop_assert_eq!(parse_object(&name(a)), Ok(Position(a)));
            prop_assert_eq!(a.cmp(&b), control(log, a).cmp(&control(log, b)));
            prop_assert_eq!(parse_control(&control(log, a)), Ok(a));
        }
    }
}
