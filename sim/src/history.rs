//! What clients asked for and were told: one history of appends, reads and tails, and whether it could have
//! been that of one log (linearizability).

use wire::Position;

/// One operation of a client on one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A record is at a position.
    Append(Position),
    /// A position was read, and is decided.
    Read(Position),
    /// The linearizable tail is this.
    Tail(Position),
}

/// An operation, from its call to its return, by the count of all calls and returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// When it was called.
    pub called: u64,
    /// When it returned, if it did.
    pub returned: Option<u64>,
    /// What it was, and what came out.
    pub what: What,
}

/// All operations.
#[derive(Debug, Default)]
pub struct History {
    /// Those whose outcome is known.
    pub operations: Vec<Operation>,
    /// Positions that are acknowledged, with their records.
    pub acknowledged: Vec<(Position, u64)>,
    /// The largest durable tail there was.
    pub durable: Position,
    /// Appends that returned with an error.
    pub failed: u64,
    clock: u64,
}

impl History {
    /// The time of a call or a return.
    pub fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Adds an operation that returns now.
    pub fn returns(&mut self, called: u64, what: What) {
        let returned = Some(self.tick());
        self.operations.push(Operation {
            called,
            returned,
            what,
        });
    }

    /// Adds an append of which nobody was told, and that took place.
    pub fn unknown(&mut self, called: u64, position: Position) {
        self.operations.push(Operation {
            called,
            returned: None,
            what: What::Append(position),
        });
    }

    /// Whether one log could have answered all of it.
    ///
    /// # Errors
    /// Two operations that no order satisfies.
    pub fn check(&self) -> Result<(), String> {
        linearizable(&self.operations)
    }
}

/// Positions give the order of all appends: append p comes before append p + 1, and a tail t between append
/// t - 1 and append t; a read of p comes behind append p, as late as it likes. An order that respects this and
/// real time exists if and only if no operation was called after one returned that has to come behind it.
///
/// # Errors
/// The two that break it.
pub fn linearizable(operations: &[Operation]) -> Result<(), String> {
    let mut calls: Vec<_> = operations.iter().collect();
    calls.sort_unstable_by_key(|operation| operation.called);
    let mut returns: Vec<_> = operations.iter().filter(|o| o.returned.is_some()).collect();
    returns.sort_unstable_by_key(|operation| operation.returned);
    let mut returns = returns.into_iter().peekable();
    // What the furthest operation that has returned requires of all that are called after it.
    let mut furthest: Option<&Operation> = None;
    for operation in calls {
        while let Some(before) = returns.next_if(|r| r.returned < Some(operation.called)) {
            if furthest.is_none_or(|f| place(f.what) < place(before.what)) {
                furthest = Some(before);
            }
        }
        let free = matches!(operation.what, What::Read(_));
        if let Some(before) = furthest.filter(|_| !free)
            && place(before.what) > place(operation.what)
        {
            return Err(format!("order: {before:?} returned before {operation:?}"));
        }
    }
    Ok(())
}

/// Where an operation stands among all others.
fn place(what: What) -> u64 {
    match what {
        What::Tail(position) => 2 * position.0,
        What::Append(position) | What::Read(position) => 2 * position.0 + 1,
    }
}
