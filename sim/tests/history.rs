//! The check of histories against a search: whether there is an order, for small histories, true and false.

use simulation::history::{Operation, What, linearizable};
use simulation::rng::Rng;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use wire::Position;

/// One log, one operation after the other: its tail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Log(u64);

impl SequentialSpec for Log {
    type Op = ();
    type Ret = What;

    fn invoke(&mut self, (): &()) -> What {
        What::Tail(Position(self.0))
    }

    fn is_valid_step(&mut self, (): &(), ret: &What) -> bool {
        match ret {
            // What lies between is junk.
            What::Append(position) if position.0 >= self.0 => self.0 = position.0 + 1,
            What::Tail(position) if position.0 >= self.0 => self.0 = position.0,
            What::Read(position) => return position.0 < self.0,
            _ => return false,
        }
        true
    }
}

/// Operations with random intervals, most of them so that an order exists.
fn history(rng: &mut Rng) -> Vec<Operation> {
    let count = rng.between(2, 7);
    let mut operations: Vec<Operation> = Vec::new();
    for number in 0..count {
        let middle = 12 * number + rng.below(50);
        let (early, late) = (rng.below(20), rng.below(20));
        let what = match rng.below(4) {
            0 => What::Tail(Position(number + rng.below(2))),
            1 => {
                let appends = operations
                    .iter()
                    .filter_map(|operation| match operation.what {
                        What::Append(position) => Some((position, operation.called)),
                        _ => None,
                    });
                let begun = appends.filter(|(_, called)| *called < 2 * (middle + late));
                let all: Vec<_> = begun.map(|(position, _)| position).collect();
                What::Read(rng.pick(&all).unwrap_or(Position(0)))
            }
            _ => What::Append(Position(number)),
        };
        operations.push(Operation {
            // Calls are even and returns odd, so that no two are at the same time.
            called: 2 * (middle + 40 - early),
            returned: Some(2 * (middle + 40 + late) + 1),
            what,
        });
    }
    // A read of what nobody appended is none of this check's business.
    let appended = |operation: &Operation| match operation.what {
        What::Read(read) => operations
            .iter()
            .any(|o| o.what == What::Append(read) && Some(o.called) < operation.returned),
        _ => true,
    };
    let kept: Vec<_> = operations.iter().map(appended).collect();
    let mut kept = kept.into_iter();
    operations.retain(|_| kept.next() == Some(true));
    operations
}

/// Searches for an order.
fn has_order(operations: &[Operation]) -> bool {
    let mut events: Vec<(u64, usize, bool)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        events.push((operation.called, number, false));
        events.extend(operation.returned.map(|returned| (returned, number, true)));
    }
    events.sort_unstable();
    let mut tester = LinearizabilityTester::new(Log::default());
    for (_, number, returns) in events {
        if returns {
            tester
                .on_return(number, operations[number].what)
                .expect("valid");
        } else {
            tester.on_invoke(number, ()).expect("valid");
        }
    }
    tester.is_consistent()
}

#[test]
fn r5_the_check_of_histories_agrees_with_a_search() {
    let (mut rng, mut orders) = (Rng::new(11), 0);
    let lives = 20_000;
    for number in 0..lives {
        let operations = history(&mut rng);
        let order = has_order(&operations);
        let checked = linearizable(&operations);
        assert_eq!(
            checked.is_ok(),
            order,
            "{number}: {checked:?} {operations:#?}"
        );
        orders += u64::from(order);
    }
    assert!(
        orders > lives / 10 && orders < lives * 9 / 10,
        "orders={orders}"
    );
}
