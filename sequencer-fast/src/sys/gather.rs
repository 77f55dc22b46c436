//! Which received buffers are sent back in one call.

use crate::limits::{SEND_BYTES, SEND_SEGMENTS};

/// A run of buffers to one peer whose datagrams are equal in size, so that the kernel may cut all of them
/// in one go.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Gather {
    segment: usize,
    bytes: usize,
}

impl Gather {
    /// A run that begins with `len` bytes in datagrams of `segment` bytes.
    pub(super) fn begin(len: usize, segment: usize) -> Self {
        let segment = segment.min(len).max(1);
        Self {
            segment,
            bytes: len,
        }
    }

    /// Adds a buffer to the same peer; false if it does not fit to what is there.
    pub(super) fn take(&mut self, len: usize, segment: usize) -> bool {
        let bytes = self.bytes + len;
        let fits = self.bytes.is_multiple_of(self.segment)
            && segment.min(len) == self.segment
            && bytes <= SEND_BYTES
            && bytes.div_ceil(self.segment) <= SEND_SEGMENTS;
        if fits {
            self.bytes = bytes;
        }
        fits
    }

    /// Size into which the kernel has to cut the bytes, if they are several datagrams.
    pub(super) fn cut(&self) -> Option<u16> {
        let segment = u16::try_from(self.segment).ok();
        segment.filter(|_| self.bytes > self.segment)
    }

    /// Number of datagrams.
    pub(super) fn datagrams(&self) -> usize {
        self.bytes.div_ceil(self.segment.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_datagrams_are_gathered_up_to_the_bounds() {
        for (size, expected) in [(112, SEND_SEGMENTS), (1456, SEND_BYTES / 1456)] {
            let mut run = Gather::begin(size, size);
            assert_eq!(run.cut(), None, "one datagram needs no cut");
            let more = (1..1000).take_while(|_| run.take(size, size)).count();
            assert_eq!((more + 1, run.datagrams()), (expected, expected));
            assert_eq!(run.cut().map(usize::from), Some(size));
        }
    }

    #[test]
    fn only_the_last_datagram_may_be_shorter() {
        let mut run = Gather::begin(224, 112);
        assert!(!run.take(64, 64), "another size");
        assert!(run.take(300, 112));
        assert!(!run.take(112, 112), "behind a shorter one");
        assert_eq!((run.datagrams(), run.cut()), (5, Some(112)));
    }

    #[test]
    fn what_was_received_in_one_buffer_is_sent_whole() {
        let run = Gather::begin(128 * 112, 112);
        assert_eq!((run.datagrams(), run.cut()), (128, Some(112)));
        assert_eq!(Gather::begin(0, 0).datagrams(), 0);
    }
}
