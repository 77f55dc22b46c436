use std::net::SocketAddr;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);
const STRIPES: u16 = 30;

/// Members with ten stripes each, and what is true of them.
struct Group {
    writers: Vec<Writer>,
    processes: Vec<Option<Members>>,
    owners: Vec<BTreeMap<Key, OwnerNumber>>,
    /// Who does not hear whom.
    deaf: Vec<(usize, usize)>,
    number: u64,
    now: Duration,
}

fn key(stripe: u16) -> Key {
    (SegmentId(1), StripeId(stripe))
}

fn all() -> Vec<Key> {
    (0..STRIPES).map(key).collect()
}

impl Group {
    /// Three members that have started together and own what the settings say.
    fn started() -> Self {
        let mut group = Self::stopped();
        for member in 0..3 {
            group.start(member);
        }
        group.run(TIMEOUT);
        for member in 0..3 {
            assert_eq!(group.stripes(member), home(member));
        }
        group
    }

    fn stopped() -> Self {
        let writer = |n: u16| Writer {
            address: SocketAddr::from(([10, 0, 0, 1], 7500 + n)),
            stripes: n * 10..=n * 10 + 9,
        };
        Self {
            writers: (0..3).map(writer).collect(),
            processes: vec![None, None, None],
            owners: vec![BTreeMap::new(); 3],
            deaf: Vec::new(),
            number: 1,
            now: Duration::from_secs(1000),
        }
    }

    fn start(&mut self, member: usize) {
        self.processes[member] = Some(Members::new(&self.writers, member, TIMEOUT));
    }

    fn kill(&mut self, member: usize) {
        self.processes[member] = None;
        self.owners[member].clear();
    }

    fn stripes(&self, member: usize) -> Vec<u16> {
        self.owners[member]
            .keys()
            .map(|(_, stripe)| stripe.0)
            .collect()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            self.step();
        }
    }

    /// All hear one another and do what is decided, one member after the other. Takes succeed at once.
    fn step(&mut self) {
        for member in 0..3 {
            let Some(mut members) = self.processes[member].take() else {
                continue;
            };
            for peer in (0..3).filter(|peer| *peer != member) {
                let dead = self.processes[peer].is_none();
                match dead || self.deaf.contains(&(member, peer)) {
                    true => members.unreachable(peer),
                    false => members.heard(peer, self.owners[peer].clone(), false),
                };
            }
            let decisions = members.decide(self.now, &all(), &self.owners[member].clone());
            for key in decisions.take {
                self.number += 1;
                self.owners[member].insert(key, OwnerNumber(self.number));
                // The store tells whoever had it, at the next put.
                for other in (0..3).filter(|other| *other != member) {
                    if self.owners[other].remove(&key).is_some()
                        && let Some(former) = &mut self.processes[other]
                    {
                        former.fenced(key);
                    }
                }
            }
            for key in decisions.lost.iter().chain(&decisions.give_back) {
                self.owners[member].remove(key);
            }
            self.processes[member] = Some(members);
        }
    }
}

fn home(member: usize) -> Vec<u16> {
    let member = u16::try_from(member).expect("small");
    (member * 10..member * 10 + 10).collect()
}

impl Group {
    fn is_whole(&self) -> bool {
        let mut owned: Vec<_> = (0..3).flat_map(|member| self.stripes(member)).collect();
        owned.sort_unstable();
        owned == (0..STRIPES).collect::<Vec<_>>()
    }
}

#[test]
fn c6_members_that_start_one_after_the_other_take_what_is_theirs() {
    let mut group = Group::stopped();
    for member in 0..3 {
        group.start(member);
        group.run(TIMEOUT);
        assert_eq!(group.stripes(member), home(member));
    }
    group.run(TIMEOUT * 20);
    assert_eq!(group.stripes(0), home(0));
}

#[test]
fn c6_the_stripes_of_a_dead_member_spread_over_the_others() {
    let mut group = Group::started();
    group.kill(1);
    group.run(TIMEOUT - TICK);
    assert!(!group.is_whole(), "it may be back in a moment");
    group.run(TICK * 2);
    assert!(group.is_whole());
    let (first, third) = (group.stripes(0), group.stripes(2));
    assert!(first.len() > 11 && third.len() > 11, "{first:?} {third:?}");
    assert!(
        home(0).iter().all(|stripe| first.contains(stripe)),
        "no other moves"
    );
    assert!(
        home(2).iter().all(|stripe| third.contains(stripe)),
        "no other moves"
    );
}

#[test]
fn c6_a_member_that_was_never_there_is_waited_for_longer() {
    let mut group = Group::stopped();
    group.start(0);
    group.start(2);
    group.run(TIMEOUT * (GRACE - 1));
    assert_eq!((group.stripes(0), group.stripes(2)), (home(0), home(2)));
    group.run(TIMEOUT * 2);
    assert!(group.is_whole());
}

#[test]
fn c6_a_member_that_returns_takes_nothing_from_a_living_owner_and_gets_its_stripes_back_one_by_one()
{
    let mut group = Group::started();
    group.kill(1);
    group.run(TIMEOUT * 2);
    assert!(group.is_whole());
    let number = group.number;
    group.start(1);
    group.run(TIMEOUT * (STEADY - 1));
    assert_eq!((group.stripes(1), group.number), (Vec::new(), number));
    let mut most = 0;
    for _ in 0..40 {
        let before = group.stripes(1).len();
        group.run(TICK);
        most = most.max(group.stripes(1).len() - before);
    }
    assert_eq!(group.stripes(1), home(1));
    assert!(
        most <= 2,
        "each of the two gives back one at a time: {most}"
    );
    assert_eq!((group.stripes(0), group.stripes(2)), (home(0), home(2)));
}

#[test]
fn c6_a_process_that_stood_still_takes_nothing_because_of_it() {
    let mut group = Group::started();
    group.now += TIMEOUT * 100;
    group.run(TICK);
    for member in 0..3 {
        assert_eq!(group.stripes(member), home(member));
    }
    // Alone for one tick that lasted long: nothing is heard in it.
    let mut members = group.processes[0].take().expect("runs");
    let decisions = members.decide(group.now + TIMEOUT * 100, &all(), &group.owners[0].clone());
    assert_eq!(decisions, Decisions::default());
}

#[test]
fn c6_a_stripe_that_a_peer_owns_under_a_higher_number_is_dropped() {
    let mut group = Group::started();
    let mut members = group.processes[0].take().expect("runs");
    let mut claims = group.owners[1].clone();
    let own = group.owners[0][&key(3)];
    claims.insert(key(3), own);
    members.heard(1, claims.clone(), false);
    let decide = |members: &mut Members, group: &Group| {
        members.decide(group.now, &all(), &group.owners[0].clone())
    };
    assert_eq!(decide(&mut members, &group).lost, []);
    claims.insert(key(3), OwnerNumber(own.0 + 1));
    members.heard(1, claims, false);
    assert_eq!(decide(&mut members, &group).lost, [key(3)]);
}

/// Two that do not hear each other take stripes from each other more and more seldom, and the third keeps its own.
#[test]
fn c6_members_that_do_not_hear_each_other_come_to_rest() {
    let mut group = Group::started();
    group.deaf = vec![(0, 1), (1, 0)];
    group.run(TIMEOUT * 10);
    let early = group.number;
    group.run(TIMEOUT * 200);
    let mut before = group.number;
    assert!(before > early);
    group.run(TIMEOUT * 200);
    let per_stripe = (group.number - before) / u64::from(STRIPES);
    assert!(
        per_stripe <= 8,
        "{per_stripe} moves of each stripe in 200 time-outs"
    );
    before = group.number;
    group.deaf.clear();
    group.run(TIMEOUT * 500);
    assert!(group.is_whole());
    let moves = group.number - before;
    assert!(moves <= 3 * u64::from(STRIPES), "{moves}");
    assert_eq!(group.stripes(2), home(2));
}

/// The first in the order is alive and cannot take the stripe: the next one does not wait for ever.
#[test]
fn c6_a_stripe_that_its_first_does_not_take_comes_to_the_next() {
    let mut group = Group::started();
    let mut members = group.processes[0].take().expect("runs");
    let mut now = group.now;
    let mut taken = Vec::new();
    for _ in 0..TICKS * PATIENCE * 2 {
        now += TICK;
        // The second member answers and owns nothing.
        members.heard(1, BTreeMap::new(), false);
        members.heard(2, group.owners[2].clone(), false);
        taken = members.decide(now, &all(), &group.owners[0].clone()).take;
        if !taken.is_empty() {
            break;
        }
    }
    let waited = now - group.now;
    assert!(waited >= TIMEOUT * PATIENCE, "{waited:?}");
    assert!(!taken.is_empty());
    members.failed(taken[0]);
    let again = members.decide(now + TICK, &all(), &group.owners[0].clone());
    assert!(!again.take.contains(&taken[0]), "not at once");
}

/// A member that the store does not answer tries again and again, and claims the stripe each time for as long as it
/// tries: the next one has its turn in between.
#[test]
fn c6_a_stripe_that_one_member_cannot_take_comes_to_the_next() {
    let mut group = Group::started();
    group.kill(1);
    let (mut trying, mut failed) = (BTreeMap::<Key, u32>::new(), 0);
    for _ in 0..TICKS * PATIENCE * 8 {
        group.now += TICK;
        for (member, peer) in [(0, 2), (2, 0)] {
            let mut members = group.processes[member].take().expect("runs");
            members.heard(peer, group.owners[peer].clone(), false);
            let takes = members.decide(group.now, &all(), &group.owners[member].clone());
            for key in takes.take {
                let number = match member {
                    0 => OwnerNumber(0),
                    _ => OwnerNumber(1000),
                };
                group.owners[member].insert(key, number);
                if member == 0 {
                    trying.insert(key, TICKS * 2);
                }
            }
            for key in takes.lost {
                group.owners[member].remove(&key);
            }
            if member == 0 {
                for (key, left) in &mut trying {
                    *left -= 1;
                    if *left == 0 {
                        failed += 1;
                        group.owners[0].remove(key);
                        members.failed(*key);
                    }
                }
                trying.retain(|_, left| *left > 0);
            }
            group.processes[member] = Some(members);
        }
    }
    assert!(failed > 0);
    let first = group.stripes(0);
    assert_eq!(first, home(0), "what it has, and no more");
    assert!(group.is_whole());
}

#[test]
fn c6_of_two_that_own_a_stripe_under_the_same_number_the_later_in_its_order_leaves_it() {
    let mut group = Group::started();
    group.kill(1);
    let mut left = Vec::new();
    for (member, peer) in [(0, 2), (2, 0)] {
        let both = |stripe| (key(stripe), OwnerNumber(50));
        for stripe in 10..20 {
            group.owners[member].extend([both(stripe)]);
            group.owners[peer].extend([both(stripe)]);
        }
        let mut members = group.processes[member].take().expect("runs");
        members.heard(peer, group.owners[peer].clone(), false);
        let now = group.now + TICK;
        let decisions = members.decide(now, &all(), &group.owners[member].clone());
        assert_eq!(decisions.take, []);
        left.extend(decisions.lost);
    }
    left.sort_unstable();
    let shared: Vec<_> = (10..20).map(key).collect();
    assert_eq!(left, shared, "each by one of the two");
}

#[test]
fn c6_a_stripe_that_takes_long_to_give_back_is_given_back_once() {
    let mut group = Group::started();
    group.kill(1);
    group.run(TIMEOUT * 2);
    group.start(1);
    let mut members = group.processes[0].take().expect("runs");
    let mine = group.owners[0].clone();
    let (mut now, mut times) = (group.now, BTreeMap::<Key, u32>::new());
    for _ in 0..TICKS * STEADY * 2 {
        now += TICK;
        members.heard(1, BTreeMap::new(), false);
        members.heard(2, group.owners[2].clone(), false);
        // What is given back stays here: its last object is on its way.
        if let Some(key) = members.decide(now, &all(), &mine).give_back {
            *times.entry(key).or_default() += 1;
        }
    }
    assert!(!times.is_empty());
    assert!(times.values().all(|times| *times == 1), "{times:?}");
}

/// Writers without ranges of their own, as a membership may list them.
fn listed(ports: std::ops::RangeInclusive<u16>) -> Vec<Writer> {
    let writer = |port| Writer {
        address: SocketAddr::from(([10, 0, 0, 1], port)),
        stripes: 0..=1023,
    };
    ports.map(writer).collect()
}

#[test]
fn c6_a_member_that_leaves_the_list_counts_as_long_as_it_answers() {
    let writers = listed(1..=3);
    let mut members = Members::new(&writers, 0, TIMEOUT);
    let claims = |stripes: std::ops::Range<u16>| -> BTreeMap<_, _> {
        stripes
            .map(|stripe| (key(stripe), OwnerNumber(1)))
            .collect()
    };
    let (second, third) = (claims(0..15), claims(15..30));
    let mut now = Duration::from_secs(1000);
    let mut tick = |members: &mut Members, ticks: u32, alive: &[usize]| {
        let mut take = Vec::new();
        for _ in 0..ticks {
            now += TICK;
            for member in alive {
                let claims = [&second, &third][*member - 1];
                members.heard(*member, claims.clone(), false);
            }
            take = members.decide(now, &all(), &BTreeMap::new()).take;
        }
        take
    };
    assert_eq!(tick(&mut members, TICKS * GRACE, &[1, 2]), []);
    // The list is wrong: two of three answer.
    assert_eq!(members.relist(&listed(1..=1)), []);
    assert_eq!(tick(&mut members, TICKS * 4, &[1, 2]), []);
    // One of them is dead, too, and another has come.
    let left = tick(&mut members, TICKS * 2, &[2]);
    assert!((3..=12).contains(&left.len()), "half, about: {left:?}");
    assert!(left.iter().all(|key| claims(0..15).contains_key(key)));
    let changes = members.relist(&[&writers[..1], &listed(9..=9)].concat());
    assert_eq!(changes, [(1, None), (1, Some(listed(9..=9)[0].address))]);
    // It is in the list again, where there is no place for it any more.
    let changes = members.relist(&[&writers[..2], &listed(9..=9)].concat());
    assert_eq!(changes, [(3, Some(writers[1].address))]);
    assert_eq!(
        members.relist(&[&writers[..2], &listed(9..=9)].concat()),
        []
    );
}

#[test]
fn a_member_that_comes_gets_its_part_of_the_stripes_and_nothing_else_moves() {
    let members = |ports| Members::new(&listed(ports), 0, TIMEOUT);
    let homes = |members: &Members| -> Vec<_> {
        let homes = (0..STRIPES).map(|stripe| members.home(StripeId(stripe)));
        homes.map(|home| home.expect("one")).collect()
    };
    let (two, mut three) = (members(1..=2), members(1..=2));
    assert_eq!(three.relist(&listed(1..=3)).len(), 1);
    let moved: Vec<_> = homes(&two)
        .into_iter()
        .zip(homes(&three))
        .filter(|(before, after)| before != after)
        .collect();
    assert!(moved.iter().all(|(_, after)| *after == 2));
    assert!(
        (4..=16).contains(&moved.len()),
        "a third, about: {}",
        moved.len()
    );
}

#[test]
fn members_beyond_the_bound_are_not_watched() {
    let mut members = Members::new(&listed(1..=1), 0, TIMEOUT);
    assert_eq!(members.relist(&listed(1..=1000)).len(), MEMBERS - 1);
    assert_eq!(members.relist(&listed(1..=1000)), []);
}

/// What a member that ends has left is taken at once, and the rest when it is gone, however long the time-out.
#[test]
fn c6_what_a_member_that_ends_has_left_is_taken_at_once() {
    let mut group = Group::started();
    let (left, kept): (Vec<_>, Vec<_>) = home(1).into_iter().partition(|stripe| stripe % 2 == 0);
    let claims: BTreeMap<_, _> = group.owners[1].clone();
    let claims: BTreeMap<_, _> = claims
        .into_iter()
        .filter(|((_, stripe), _)| kept.contains(&stripe.0))
        .collect();
    let now = group.now + TICK;
    let mut taken = Vec::new();
    for (member, peer) in [(0, 2), (2, 0)] {
        let mine = group.owners[member].clone();
        let mut members = group.processes[member].take().expect("runs");
        members.heard(peer, group.owners[peer].clone(), false);
        assert!(members.heard(1, claims.clone(), true), "is news");
        assert!(!members.heard(1, claims.clone(), true), "once");
        taken.extend(members.decide(now, &all(), &mine).take);
        group.processes[member] = Some(members);
    }
    taken.sort_unstable();
    let keys = |stripes: &[u16]| {
        stripes
            .iter()
            .map(|stripe| key(*stripe))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        taken,
        keys(&left),
        "each by one, and none that it still owns"
    );
    let mut rest = Vec::new();
    for (member, peer) in [(0, 2), (2, 0)] {
        let mut mine = group.owners[member].clone();
        mine.extend(taken.iter().map(|key| (*key, OwnerNumber(0))));
        let members = group.processes[member].as_mut().expect("runs");
        members.heard(peer, group.owners[peer].clone(), false);
        assert!(members.unreachable(1) && !members.unreachable(1));
        rest.extend(members.decide(now, &all(), &mine).take);
    }
    rest.sort_unstable();
    assert_eq!(rest, keys(&kept));
}
