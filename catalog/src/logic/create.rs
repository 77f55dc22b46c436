//! What a create has come to, attempt by attempt (C-5, C-8).

/// How often a create is tried before its outcome is left unknown.
pub const CREATE_ATTEMPTS: u32 = 5;

/// What an attempt brought: the answer of the store, or, where that was "exists", what has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It created the object.
    Created,
    /// The name has this very object.
    Same,
    /// The name has another object.
    Another,
    /// The store said that the name is taken, and then that nothing has it.
    Nothing,
    /// The store failed.
    Failed {
        /// The create itself was certainly not applied.
        definite: bool,
        /// Trying again may help.
        retry: bool,
    },
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The object is stored.
    Mine,
    /// Another object has the name.
    Other,
    /// One more attempt.
    Again,
    /// Nothing certain, and no more attempts.
    Unknown,
    /// Certainly not stored.
    Refused,
}

/// What follows from what the attempt with this number, from 1, brought.
#[must_use]
pub fn resolve(seen: Seen, attempt: u32) -> Step {
    match seen {
        Seen::Created | Seen::Same => Step::Mine,
        Seen::Another => Step::Other,
        // [C-5] S3 answers a lost race with 409 while the winner may still fail.
        Seen::Nothing if attempt < CREATE_ATTEMPTS => Step::Again,
        Seen::Nothing => Step::Unknown,
        // [C-8] Only a first attempt can be certain of having done nothing.
        Seen::Failed { definite: true, .. } if attempt == 1 => Step::Refused,
        Seen::Failed { retry: true, .. } if attempt < CREATE_ATTEMPTS => Step::Again,
        Seen::Failed { .. } => Step::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c5_a_name_that_is_taken_by_nothing_is_tried_again_and_never_mine() {
        assert_eq!(resolve(Seen::Nothing, 1), Step::Again);
        assert_eq!(resolve(Seen::Nothing, CREATE_ATTEMPTS), Step::Unknown);
        assert_eq!(resolve(Seen::Same, 1), Step::Mine);
        assert_eq!(resolve(Seen::Another, 1), Step::Other);
    }

    #[test]
    fn c8_a_later_failure_is_never_certain() {
        let refused = |retry| Seen::Failed {
            definite: true,
            retry,
        };
        assert_eq!(resolve(refused(false), 1), Step::Refused);
        assert_eq!(resolve(refused(false), 2), Step::Unknown);
        assert_eq!(resolve(refused(true), 2), Step::Again);
    }
}
