//! Who serves what, as settings tell it.

use std::ops::RangeInclusive;

use catalog::Writer;
use wire::limits::MAX_STRIPES;

use super::kind::address;

/// Reads `ADDRESS=FIRST-LAST,...`. Whether every stripe has an owner depends on the log's layout and is
/// checked when a log is opened; that no stripe has two is checked here.
pub(super) fn writers(text: &str) -> Option<Vec<Writer>> {
    let writers: Vec<Writer> = text.split(',').map(writer).collect::<Option<_>>()?;
    for (at, one) in writers.iter().enumerate() {
        let clash = |other: &Writer| {
            let apart = one.stripes.end() < other.stripes.start()
                || other.stripes.end() < one.stripes.start();
            one.address == other.address || !apart
        };
        if writers.iter().take(at).any(clash) {
            return None;
        }
    }
    Some(writers)
}

fn writer(text: &str) -> Option<Writer> {
    let last = u16::try_from(MAX_STRIPES - 1).ok()?;
    let Some((at, range)) = text.split_once('=') else {
        let address = address(text)?;
        return Some(Writer {
            address,
            stripes: 0..=last,
        });
    };
    let stripes = stripes(range)?;
    let address = address(at)?;
    Some(Writer { address, stripes })
}

/// Reads `FIRST-LAST`, or one number.
pub(crate) fn stripes(range: &str) -> Option<RangeInclusive<u16>> {
    let last = u16::try_from(MAX_STRIPES - 1).ok()?;
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let stripe = |text: &str| text.trim().parse().ok().filter(|n: &u16| *n <= last);
    let stripes = stripe(from)?..=stripe(to)?;
    (!stripes.is_empty()).then_some(stripes)
}
