//! The append frames of a token: records of several calls, cut at the bounds of a frame.

use bytes::Bytes;
use wire::{Epoch, Identity, RunParts, WireError};

use super::flight::{AppendFrame, Share};
use super::split::{Part, cut};

/// One record of a batch: which of its pieces it is from, and its index in that call.
#[derive(Debug, Clone)]
pub struct Record {
    pub piece: usize,
    pub index: usize,
    pub bytes: Bytes,
}

/// The frames of a part of a token. `calls` has the call of each piece.
///
/// # Errors
/// If a record is larger than a frame may be.
pub fn make_frames<T: Clone>(
    part: &Part,
    (epoch, identity): (Epoch, Identity),
    calls: &[T],
    records: &[Record],
    frame_bytes: usize,
) -> Result<Vec<AppendFrame<T>>, WireError> {
    let indexes = part.records.iter().cloned().flatten();
    let mine: Vec<&Record> = indexes.filter_map(|index| records.get(index)).collect();
    let sizes = mine.iter().map(|record| record.bytes.len());
    let (mut rest, mut first) = (mine.as_slice(), part.first);
    let mut frames = Vec::new();
    for count in cut(sizes, frame_bytes) {
        let (of_frame, behind) = rest.split_at(count.min(rest.len()));
        let bytes = of_frame.iter().map(|record| record.bytes.clone());
        frames.push(AppendFrame {
            segment: part.segment,
            stripe: part.stripe,
            first,
            epoch,
            identity,
            body: RunParts::new(bytes.collect())?,
            shares: shares(calls, of_frame),
        });
        (rest, first) = (behind, first.plus(count as u64));
    }
    Ok(frames)
}

/// Joins neighbours of one call to one share.
fn shares<T: Clone>(calls: &[T], records: &[&Record]) -> Vec<Share<T>> {
    let mut shares: Vec<(usize, Share<T>)> = Vec::new();
    for record in records {
        match shares.last_mut() {
            Some((piece, share))
                if *piece == record.piece && share.first + share.count as usize == record.index =>
            {
                share.count += 1;
            }
            _ => {
                if let Some(call) = calls.get(record.piece) {
                    let share = Share {
                        owner: call.clone(),
                        first: record.index,
                        count: 1,
                    };
                    shares.push((record.piece, share));
                }
            }
        }
    }
    shares.into_iter().map(|(_, share)| share).collect()
}
