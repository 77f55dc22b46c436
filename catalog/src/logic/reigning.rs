//! Which sequencer of a membership reigns, as far as one can tell who asks them.
//!
//! One is asked at a time: the one that answered last. In doubt - it is silent, or says that it does not reign -
//! all are asked at a short interval that never grows, until one answers for a reign that is not older than the
//! newest that was heard of. Times are those of one monotonic clock.

use std::net::SocketAddr;
use std::time::Duration;

use wire::Epoch;
use wire::datagram::Status;

/// Time between two questions to all sequencers while it is not known which one reigns.
pub const ASK_ALL_EVERY: Duration = Duration::from_millis(25);

/// Sequencers of one list, at most: in doubt all of them are asked.
pub const SEQUENCERS: usize = 8;

/// What an answer of a sequencer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It reigns. Where another reign was known before, or another address, it is new: whatever waits for an
    /// answer is asked for anew.
    Reigns {
        /// Whether it is another reign, or another address, than before.
        new: bool,
    },
    /// It does not reign.
    Not,
    /// It believes that it reigns and has been replaced: its tokens are worth nothing (H-3).
    Former,
}

/// The sequencers of a membership, by their places in it.
#[derive(Debug)]
pub struct Reigning {
    count: usize,
    current: usize,
    /// The newest reign that was heard of.
    epoch: Epoch,
    /// When all are asked next.
    next: Option<Duration>,
}

impl Reigning {
    /// Of so many sequencers the first is asked first; `epoch` is the newest reign that is known.
    #[must_use]
    pub fn new(count: usize, epoch: Epoch) -> Self {
        Self {
            count,
            current: 0,
            epoch,
            next: None,
        }
    }

    /// The place of the sequencer to ask.
    #[must_use]
    pub fn current(&self) -> usize {
        self.current
    }

    /// The newest reign that was heard of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The sequencers are others now: so many, of which the one that was asked stands at `current`, if it is still
    /// among them.
    pub fn relist(&mut self, count: usize, current: Option<usize>, now: Duration) {
        self.count = count;
        self.next = self.next.filter(|_| count > 1);
        self.current = current.unwrap_or(0);
        if current.is_none() {
            self.doubt(now);
        }
    }

    /// The one that is asked may not reign. A single one is asked on, in the pauses of whoever asks.
    pub fn doubt(&mut self, now: Duration) {
        if self.count > 1 {
            self.next.get_or_insert(now);
        }
    }

    /// A reign is known to be over: its successor is asked for.
    pub fn is_over(&mut self, epoch: Epoch, now: Duration) {
        if self.count > 1 && self.epoch <= epoch {
            self.epoch = Epoch(epoch.0.saturating_add(1));
            self.doubt(now);
        }
    }

    /// The log knows no reign above `epoch`, whatever was heard.
    pub fn is_newest(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.min(epoch);
    }

    /// Whether all are to be asked now. To be asked again when [`Self::next_due`] says.
    pub fn take_due(&mut self, now: Duration) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = Some(now + ASK_ALL_EVERY);
        }
        due
    }

    /// When all are asked next, while there is doubt.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.next
    }

    /// Takes an answer of the sequencer at a place, given for the reign of `epoch`.
    pub fn heard(&mut self, from: usize, epoch: Epoch, status: Status, now: Duration) -> Heard {
        match status {
            Status::Ok | Status::Busy | Status::TailMoved | Status::Invalid => {}
            Status::NotReigning | Status::Sealing => {
                if status == Status::Sealing && epoch > self.epoch {
                    // It is in the control chain, which makes every reign before it a former one.
                    self.epoch = epoch;
                    self.doubt(now);
                }
                if from == self.current {
                    self.doubt(now);
                }
                return Heard::Not;
            }
        }
        // A single one is taken as it is: who uses a token holds it against the control chain.
        if self.count > 1 && epoch < self.epoch {
            if from == self.current {
                self.doubt(now);
            }
            return Heard::Former;
        }
        let new = from != self.current || epoch > self.epoch;
        self.current = from;
        self.epoch = self.epoch.max(epoch);
        self.next = None;
        Heard::Reigns { new }
    }
}

/// The sequencers to ask when the membership has these: the one that is asked stays among them, since an answer is
/// worth more than a list. Gives its place, too.
#[must_use]
pub fn with_asked(
    listed: &[SocketAddr],
    asked: Option<SocketAddr>,
) -> (Vec<SocketAddr>, Option<usize>) {
    let mut all: Vec<_> = listed.iter().copied().take(SEQUENCERS).collect();
    all.extend(asked.filter(|asked| !all.contains(asked)));
    let place = all.iter().position(|address| Some(*address) == asked);
    (all, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const REIGNS: Heard = Heard::Reigns { new: false };
    const ANEW: Heard = Heard::Reigns { new: true };

    #[test]
    fn in_doubt_all_are_asked_at_an_interval_that_does_not_grow() {
        let mut reigning = Reigning::new(3, Epoch(1));
        assert!(!reigning.take_due(MS));
        reigning.doubt(MS);
        let mut asked = Vec::new();
        for now in 1..=101 {
            reigning.doubt(now * MS);
            if reigning.take_due(now * MS) {
                asked.push(now);
            }
        }
        assert_eq!(asked, [1, 26, 51, 76, 101]);
        assert_eq!(reigning.heard(2, Epoch(2), Status::Ok, 102 * MS), ANEW);
        assert_eq!((reigning.current(), reigning.next_due()), (2, None));
        assert_eq!(reigning.heard(2, Epoch(2), Status::Busy, 103 * MS), REIGNS);
    }

    #[test]
    fn the_one_that_is_asked_stays_when_the_list_changes() {
        let [a, b, c] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(with_asked(&[a, b], Some(b)), (vec![a, b], Some(1)));
        assert_eq!(with_asked(&[a, c], Some(b)), (vec![a, c, b], Some(2)));
        assert_eq!(with_asked(&[a, c], None), (vec![a, c], None));
        let mut reigning = Reigning::new(2, Epoch(1));
        assert_eq!(reigning.heard(1, Epoch(3), Status::Ok, MS), ANEW);
        reigning.relist(3, Some(2), MS);
        assert_eq!((reigning.current(), reigning.next_due()), (2, None));
        assert_eq!(reigning.heard(0, Epoch(2), Status::Ok, MS), Heard::Former);
        reigning.relist(2, None, MS);
        assert_eq!((reigning.current(), reigning.next_due()), (0, Some(MS)));
        reigning.relist(1, Some(0), MS);
        assert_eq!(reigning.next_due(), None, "nobody else to ask");
    }

    #[test]
    fn a_single_one_is_never_doubted() {
        let mut reigning = Reigning::new(1, Epoch(1));
        reigning.doubt(MS);
        reigning.is_over(Epoch(1), MS);
        assert_eq!(reigning.heard(0, Epoch(2), Status::Sealing, MS), Heard::Not);
        assert_eq!(reigning.next_due(), None);
        assert_eq!(reigning.heard(0, Epoch(2), Status::Ok, MS), REIGNS);
    }

    /// A to B to A: whoever answers for an older reign than is known is not believed, wherever it is.
    #[test]
    fn s4_an_answer_for_a_former_reign_is_worth_nothing() {
        let mut reigning = Reigning::new(2, Epoch(1));
        assert_eq!(reigning.heard(0, Epoch(1), Status::Ok, MS), REIGNS);
        assert_eq!(reigning.heard(1, Epoch(2), Status::Ok, MS), ANEW);
        assert_eq!(reigning.heard(0, Epoch(1), Status::Ok, MS), Heard::Former);
        assert_eq!((reigning.current(), reigning.next_due()), (1, None));
        assert_eq!(reigning.heard(0, Epoch(3), Status::Ok, MS), ANEW);
        assert_eq!(reigning.heard(0, Epoch(2), Status::Ok, MS), Heard::Former);
        assert_eq!(reigning.next_due(), Some(MS), "the one that is asked");
    }

    #[test]
    fn h3_a_reign_whose_token_was_refused_as_sealed_is_over() {
        let mut reigning = Reigning::new(2, Epoch(4));
        reigning.is_over(Epoch(3), MS);
        assert_eq!((reigning.epoch(), reigning.next_due()), (Epoch(4), None));
        reigning.is_over(Epoch(4), MS);
        assert_eq!(reigning.heard(0, Epoch(4), Status::Ok, MS), Heard::Former);
        assert_eq!(reigning.heard(1, Epoch(5), Status::Sealing, MS), Heard::Not);
        assert_eq!(reigning.next_due(), Some(MS));
        assert_eq!(reigning.heard(1, Epoch(5), Status::Ok, MS), ANEW);
    }

    /// A standby knows that another sequencer begins before that one grants.
    #[test]
    fn a_reign_that_seals_ends_the_one_before_it() {
        let mut reigning = Reigning::new(2, Epoch(1));
        assert_eq!(
            reigning.heard(1, Epoch(0), Status::NotReigning, MS),
            Heard::Not
        );
        assert_eq!(
            reigning.next_due(),
            None,
            "it was not the one that is asked"
        );
        assert_eq!(reigning.heard(1, Epoch(2), Status::Sealing, MS), Heard::Not);
        assert_eq!(reigning.heard(0, Epoch(1), Status::Ok, MS), Heard::Former);
    }

    #[test]
    fn an_epoch_that_the_log_does_not_know_is_forgotten() {
        let mut reigning = Reigning::new(2, Epoch(1));
        assert_eq!(reigning.heard(0, Epoch(99), Status::Ok, MS), ANEW);
        reigning.is_newest(Epoch(1));
        assert_eq!(reigning.heard(1, Epoch(2), Status::Ok, MS), ANEW);
    }
}
