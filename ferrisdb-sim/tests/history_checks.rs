//! The checker of histories passes what a serial database has done, and notices each kind of fault.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeMap, time::Duration};

use ferrisdb_client::{Database, KeyRange, KeyValue, RangePage, RangeQuery, VersionedValue};
use ferrisdb_core::{Key, Mutation, Value, Version, Versionstamp, atomic::AtomicOp};
use ferrisdb_sim::{
    checker::serializability::{Violation, check},
    history::{History, Operation, Outcome, Read, ReadKind, Recorded},
};
use proptest::prelude::*;

fn at(version: u64) -> Versionstamp {
    Versionstamp { commit_version: Version(version), batch_index: 0 }
}

/// An attempt, made from `begin` to `end`.
fn attempt(number: u64, begin: u64, end: u64, read_version: u64, outcome: Outcome) -> Operation {
    Operation {
        client: format!("c{}", number % 2).into(),
        number,
        invoked: Duration::from_millis(begin),
        responded: Duration::from_millis(end),
        read_version: Some(Version(read_version)),
        reads: Vec::new(),
        mutations: Vec::new(),
        read_conflicts: Vec::new(),
        write_conflicts: Vec::new(),
        outcome,
    }
}

fn row(key: &str, value: &str, version: u64) -> KeyValue {
    KeyValue { key: key.into(), value: value.into(), commit_version: Some(Version(version)) }
}

fn point(key: &str, found: Option<(&str, u64)>) -> Read {
    let found = found.map(|(value, version)| VersionedValue {
        value: value.into(),
        commit_version: Some(Version(version)),
    });
    let kind = ReadKind::Point { key: key.into(), found };
    Read { after_mutations: 0, is_snapshot: false, kind }
}

fn range(rows: Vec<KeyValue>) -> Read {
    let found = RangePage { rows, more: false };
    let kind = ReadKind::Range { query: RangeQuery::from("a".."zz"), found };
    Read { after_mutations: 0, is_snapshot: false, kind }
}

fn set(key: &str, value: &str) -> Mutation {
    Mutation::Set { key: key.into(), value: value.into() }
}

impl Edit for Operation {}

/// To write attempts down in a line.
trait Edit: Into<Operation> {
    fn reads(self, reads: Vec<Read>) -> Operation {
        Operation { reads, ..self.into() }
    }

    fn writes(self, mutations: Vec<Mutation>) -> Operation {
        Operation { mutations, ..self.into() }
    }
}

/// A small history in which everything is right. Attempt n stands at index n - 1.
fn honest() -> Recorded {
    use Outcome::{Committed, ReadOnly, Refused, Unknown};
    let operations = vec![
        attempt(1, 0, 1, 5, Committed(at(10))).writes(vec![set("x", "1"), set("y", "1")]),
        attempt(2, 2, 3, 10, Committed(at(20)))
            .reads(vec![point("x", Some(("1", 10))), point("w", None)])
            .writes(vec![set("x", "2")]),
        attempt(3, 4, 5, 20, ReadOnly)
            .reads(vec![range(vec![row("x", "2", 20), row("y", "1", 10)])]),
        attempt(4, 6, 7, 20, Refused)
            .reads(vec![point("x", Some(("2", 20)))])
            .writes(vec![set("y", "9")]),
        attempt(5, 6, 8, 20, Unknown)
            .reads(vec![point("x", Some(("2", 20)))])
            .writes(vec![set("z", "3")]),
        attempt(6, 6, 9, 25, Unknown).writes(vec![set("z", "4")]),
        attempt(7, 20, 21, 40, ReadOnly).reads(vec![range(vec![
            row("x", "2", 20),
            row("y", "1", 10),
            row("z", "3", 30),
        ])]),
    ];
    let markers = [(1, vec![at(10)]), (2, vec![at(20)]), (5, vec![at(30)])];
    Recorded { initial: Vec::new(), operations, markers: BTreeMap::from(markers) }
}

/// Adds an attempt, and its marker if it was acknowledged.
fn add(recorded: &mut Recorded, operation: Operation) {
    if let Outcome::Committed(versionstamp) = operation.outcome {
        recorded.markers.insert(operation.number, vec![versionstamp]);
    }
    recorded.operations.push(operation);
}

/// Replaces the rows of the range read of an attempt.
fn show(recorded: &mut Recorded, number: usize, rows: Vec<KeyValue>) {
    recorded.operations[number - 1].reads = vec![range(rows)];
}

fn violation(recorded: &Recorded) -> Violation {
    let violation = *check(recorded).unwrap_err();
    println!("{violation}");
    violation
}

fn assert_about(violation: &Violation, invariant: &str, key: Option<&str>, operations: &[&str]) {
    assert_eq!(violation.invariant, invariant, "{violation}");
    assert_eq!(violation.key, key.map(Key::from), "{violation}");
    for name in operations {
        let is_named = violation.operations.iter().any(|operation| operation.starts_with(name));
        assert!(is_named, "{name} is not in: {violation}");
    }
}

#[test]
fn an_honest_history_passes() {
    let verdict = check(&honest()).unwrap();
    assert_eq!((verdict.committed, verdict.read_only, verdict.refused), (2, 2, 1));
    assert_eq!((verdict.unknown, verdict.unknown_effective, verdict.reads), (2, 1, 6));
}

#[test]
fn a_stale_read_is_noticed() {
    let mut recorded = honest();
    show(&mut recorded, 3, vec![row("x", "1", 10), row("y", "1", 10)]);
    let violation = violation(&recorded);
    assert_about(&violation, "I-2", Some("x"), &["c1#3", "c0#2 wrote last", "c1#1 wrote what"]);
    assert!(violation.expected.contains("'2'") && violation.found.contains("'1'"), "{violation}");
}

#[test]
fn a_read_from_the_future_is_noticed() {
    let mut recorded = honest();
    show(&mut recorded, 3, vec![row("x", "2", 20), row("y", "1", 10), row("z", "3", 30)]);
    assert_about(&violation(&recorded), "I-2", Some("z"), &["c1#3", "c1#5 (unknown) wrote what"]);
}

#[test]
fn a_lost_write_is_noticed() {
    let mut recorded = honest();
    show(&mut recorded, 7, vec![row("x", "1", 10), row("y", "1", 10), row("z", "3", 30)]);
    assert_about(&violation(&recorded), "I-2", Some("x"), &["c1#7", "c0#2 wrote last"]);
}

#[test]
fn a_dirty_read_is_noticed() {
    let mut recorded = honest();
    show(&mut recorded, 3, vec![row("x", "2", 20), row("y", "9", 20)]);
    let operations = ["c1#3", "c0#4 (refused) wrote what was found"];
    assert_about(&violation(&recorded), "I-2", Some("y"), &operations);
}

#[test]
fn half_a_transaction_is_noticed() {
    let mut recorded = honest();
    let operation = attempt(8, 1, 2, 10, Outcome::ReadOnly);
    add(&mut recorded, operation.reads(vec![point("x", Some(("1", 10))), point("y", None)]));
    assert_about(&violation(&recorded), "I-2", Some("y"), &["c0#8"]);
}

#[test]
fn write_skew_is_noticed() {
    let mut recorded = honest();
    // Both read what was there at 40; each writes what the other has read.
    let one = attempt(8, 30, 31, 40, Outcome::Committed(at(50)));
    let other = attempt(9, 30, 32, 40, Outcome::Committed(at(51)));
    add(&mut recorded, one.reads(vec![point("x", Some(("2", 20)))]).writes(vec![set("y", "8")]));
    add(&mut recorded, other.reads(vec![point("y", Some(("1", 10)))]).writes(vec![set("x", "8")]));
    let violation = violation(&recorded);
    assert_about(&violation, "I-4", Some("y"), &["c1#9", "c0#8 wrote last"]);
}

#[test]
fn snapshot_reads_may_be_overtaken() {
    let mut recorded = honest();
    let mut read = point("y", Some(("1", 10)));
    read.is_snapshot = true;
    let one = attempt(8, 30, 31, 40, Outcome::Committed(at(50)));
    let other = attempt(9, 30, 32, 40, Outcome::Committed(at(51)));
    add(&mut recorded, one.writes(vec![set("y", "8")]));
    add(&mut recorded, other.reads(vec![read]).writes(vec![set("x", "8")]));
    check(&recorded).unwrap();
}

#[test]
fn a_phantom_in_a_range_read_is_noticed() {
    let mut recorded = honest();
    let rows = vec![row("x", "2", 20), row("y", "1", 10), row("z", "3", 30)];
    let inserts = attempt(8, 30, 31, 40, Outcome::Committed(at(50)));
    let counts = attempt(9, 30, 32, 40, Outcome::Committed(at(51)));
    add(&mut recorded, inserts.writes(vec![set("xx", "new")]));
    add(&mut recorded, counts.reads(vec![range(rows)]).writes(vec![set("count", "3")]));
    assert_about(&violation(&recorded), "I-4", Some("xx"), &["c1#9", "c0#8 wrote last"]);
}

/// An attempt that protects `m..n` without reading it, and one before it in the order.
fn protects(recorded: &mut Recorded, read_version: u64, other: Operation) {
    add(recorded, other);
    let mut one = attempt(9, 30, 32, read_version, Outcome::Committed(at(51)));
    one.read_conflicts = vec![KeyRange::new("m", "n")];
    add(recorded, one.writes(vec![set("x", "8")]));
}

#[test]
fn writes_to_what_was_protected_are_noticed() {
    type Write = fn(&mut Operation);
    let writes: [(&str, Write); 3] = [
        ("mm", |operation| operation.mutations = vec![set("mm", "8")]),
        ("a", |operation| {
            let range = KeyRange::new("a", "mm");
            operation.mutations = vec![Mutation::ClearRange { range }];
        }),
        ("mm", |operation| {
            operation.mutations = vec![set("w", "8")];
            operation.write_conflicts = vec![KeyRange::new("mm", "mn")];
        }),
    ];
    for (key, write) in writes {
        let mut other = attempt(8, 30, 31, 40, Outcome::Committed(at(50)));
        write(&mut other);
        let mut recorded = honest();
        protects(&mut recorded, 40, other.clone());
        assert_about(&violation(&recorded), "I-4", Some(key), &["c1#9", "c0#8 wrote"]);
        // Before the read version it is no conflict.
        let mut recorded = honest();
        protects(&mut recorded, 50, other);
        check(&recorded).unwrap();
    }
    // Nor is what is written beside.
    let beside = attempt(8, 30, 31, 40, Outcome::Committed(at(50)));
    let mut recorded = honest();
    protects(&mut recorded, 40, beside.writes(vec![set("n", "8"), set("l", "8")]));
    check(&recorded).unwrap();
}

#[test]
fn keys_with_versionstamps_are_where_the_order_says() {
    let stamped = Mutation::SetVersionstampedKey {
        key: [&b"s/"[..], &[0; Versionstamp::LEN]].concat().into(),
        offset: 2,
        value: "8".into(),
    };
    let key = |stamp: Versionstamp| Key::from([&b"s/"[..], &stamp.to_bytes()].concat());
    let with = |found: Versionstamp| {
        let mut recorded = honest();
        let one = attempt(8, 30, 31, 40, Outcome::Committed(at(50)));
        add(&mut recorded, one.writes(vec![stamped.clone()]));
        let row =
            KeyValue { key: key(found), value: "8".into(), commit_version: Some(Version(50)) };
        let query = RangeQuery::from(KeyRange::prefix(b"s/"));
        let found = RangePage { rows: vec![row], more: false };
        let kind = ReadKind::Range { query, found };
        let read = Read { after_mutations: 0, is_snapshot: false, kind };
        add(&mut recorded, attempt(9, 40, 41, 60, Outcome::ReadOnly).reads(vec![read]));
        recorded
    };
    check(&with(at(50))).unwrap();
    let wrong = Versionstamp { commit_version: Version(50), batch_index: 1 };
    assert_eq!(violation(&with(wrong)).invariant, "I-2");
}

#[test]
fn a_real_time_inversion_is_noticed() {
    let mut recorded = honest();
    // Right for its read version, which is older than what was acknowledged before it began.
    let operation = attempt(8, 4, 5, 15, Outcome::ReadOnly);
    add(&mut recorded, operation.reads(vec![point("x", Some(("1", 10)))]));
    assert_about(&violation(&recorded), "I-1", None, &["c0#8", "c0#2 answered"]);
}

#[test]
fn a_commit_that_somebody_has_seen_must_be_seen_by_later_ones() {
    let mut recorded = honest();
    // Nobody acknowledged 30. But a reader has shown it before the other one began.
    let sees = attempt(8, 10, 11, 35, Outcome::ReadOnly);
    add(&mut recorded, sees.reads(vec![point("z", Some(("3", 30)))]));
    let misses = attempt(9, 12, 13, 29, Outcome::ReadOnly);
    add(&mut recorded, misses.reads(vec![point("z", None)]));
    assert_about(&violation(&recorded), "I-1", None, &["c1#9", "c0#8 answered"]);
}

#[test]
fn a_duplicate_effect_is_noticed() {
    let mut recorded = honest();
    recorded.markers.insert(5, vec![at(30), at(31)]);
    assert_about(&violation(&recorded), "I-6", None, &["c1#5"]);
    // The same of one that was acknowledged.
    let mut recorded = honest();
    recorded.markers.insert(2, vec![at(20), at(22)]);
    assert_about(&violation(&recorded), "I-6", None, &["c0#2"]);
}

#[test]
fn an_addition_that_took_effect_twice_is_noticed_by_its_value() {
    let mut recorded = honest();
    let key = Key::from("n");
    let add_one = Mutation::Atomic { key, op: AtomicOp::Add, operand: Value::from(&[1]) };
    let operation = attempt(8, 30, 31, 40, Outcome::Committed(at(50))).writes(vec![add_one]);
    add(&mut recorded, operation);
    let reader = attempt(9, 40, 41, 60, Outcome::ReadOnly);
    add(&mut recorded, reader.reads(vec![point("n", Some(("\x02", 50)))]));
    assert_about(&violation(&recorded), "I-2", Some("n"), &["c1#9", "c0#8 wrote last"]);
}

#[test]
fn a_refused_transaction_that_took_effect_is_noticed() {
    let mut recorded = honest();
    recorded.markers.insert(4, vec![at(29)]);
    assert_about(&violation(&recorded), "I-6", None, &["c0#4"]);
}

#[test]
fn a_refused_transaction_that_took_effect_without_its_marker_is_noticed() {
    let mut recorded = honest();
    show(&mut recorded, 7, vec![row("x", "2", 20), row("y", "9", 29), row("z", "3", 30)]);
    assert_about(&violation(&recorded), "I-2", Some("y"), &["c1#7", "c0#4 (refused)"]);
}

#[test]
fn an_acknowledged_transaction_that_is_missing_is_noticed() {
    let mut recorded = honest();
    recorded.markers.remove(&2);
    assert_about(&violation(&recorded), "I-5", None, &["c0#2"]);
}

#[test]
fn a_transaction_elsewhere_than_it_was_acknowledged_is_noticed() {
    let mut recorded = honest();
    recorded.markers.insert(2, vec![at(21)]);
    assert_about(&violation(&recorded), "I-4", None, &["c0#2"]);
}

#[test]
fn two_transactions_at_one_place_are_noticed() {
    let mut recorded = honest();
    add(
        &mut recorded,
        attempt(8, 2, 3, 10, Outcome::Committed(at(20))).writes(vec![set("v", "1")]),
    );
    assert_about(&violation(&recorded), "I-4", None, &["c0#2", "c0#8"]);
}

#[test]
fn a_commit_before_its_own_read_version_is_noticed() {
    let mut recorded = honest();
    add(
        &mut recorded,
        attempt(8, 12, 13, 40, Outcome::Committed(at(40))).writes(vec![set("v", "1")]),
    );
    assert_about(&violation(&recorded), "I-4", None, &["c0#8"]);
}

#[test]
fn a_range_read_that_stops_early_is_noticed() {
    let mut recorded = honest();
    show(&mut recorded, 7, vec![row("x", "2", 20), row("y", "1", 10)]);
    assert_about(&violation(&recorded), "I-2", Some("z"), &["c1#7"]);
    // Nor may it say that a limit ended it.
    let ReadKind::Range { found, .. } = &mut recorded.operations[6].reads[0].kind else { panic!() };
    found.more = true;
    assert_about(&violation(&recorded), "I-2", Some("y"), &["c1#7"]);
}

#[test]
fn a_write_of_somebody_who_is_not_recorded_is_noticed() {
    let mut recorded = honest();
    recorded.operations.remove(1);
    assert_about(&violation(&recorded), "I-6", None, &["#2"]);
}

/// A database that does one thing after the other, and so is right by construction.
#[derive(Default)]
struct Serial {
    /// All states by the version from which on they hold; the first is empty.
    states: BTreeMap<u64, BTreeMap<Key, (Value, Version)>>,
    recorded: Recorded,
    open: BTreeMap<u8, Operation>,
    numbers: u64,
    clock: u64,
    /// What every further read version has to cover.
    answered: u64,
}

/// What a client does next. The client is the first field.
#[derive(Clone, Debug)]
enum Step {
    Get { client: u8, key: u8, is_snapshot: bool },
    Range { client: u8, keys: (u8, u8), rows_max: Option<usize>, reverse: bool },
    Write { client: u8, mutation: Mutation },
    Commit { client: u8, told: bool, lost: bool },
    GiveUp { client: u8 },
}

fn key(number: u8) -> Key {
    Key::from(vec![b'a' + number])
}

fn mutations() -> impl Strategy<Value = Mutation> {
    let any_key = || (0u8..5).prop_map(key);
    let values = (0u8..4).prop_map(|value| Value::from(&[value]));
    let operand = (0u8..4).prop_map(|value| Value::from(&[value]));
    prop_oneof![
        3 => (any_key(), values).prop_map(|(key, value)| Mutation::Set { key, value }),
        1 => any_key().prop_map(|key| Mutation::Clear { key }),
        1 => (0u8..5, 0u8..3).prop_map(|(begin, count)| Mutation::ClearRange {
            range: KeyRange::new(key(begin), key(begin + count)),
        }),
        2 => (any_key(), prop::sample::select(AtomicOp::ALL), operand)
            .prop_map(|(key, op, operand)| Mutation::Atomic { key, op, operand }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0u8..3;
    let step = prop_oneof![
        4 => (client.clone(), 0u8..5, any::<bool>())
            .prop_map(|(client, key, is_snapshot)| Step::Get { client, key, is_snapshot }),
        3 => (client.clone(), (0u8..5, 0u8..6), prop::option::of(1usize..4), any::<bool>())
            .prop_map(|(client, keys, rows_max, reverse)| Step::Range { client, keys, rows_max, reverse }),
        5 => (client.clone(), mutations())
            .prop_map(|(client, mutation)| Step::Write { client, mutation }),
        4 => (client.clone(), prop::bool::weighted(0.7), prop::bool::weighted(0.2))
            .prop_map(|(client, told, lost)| Step::Commit { client, told, lost }),
        1 => client.prop_map(|client| Step::GiveUp { client }),
    ];
    prop::collection::vec(step, 1..120)
}

impl Serial {
    fn newest(&self) -> u64 {
        self.states.last_key_value().map_or(0, |(version, _)| *version)
    }

    fn tick(&mut self) -> Duration {
        self.clock += 1;
        Duration::from_millis(self.clock)
    }

    fn take(&mut self, client: u8) -> Operation {
        if let Some(operation) = self.open.remove(&client) {
            return operation;
        }
        self.numbers += 1;
        let now = self.clock + 1;
        self.clock = now;
        // As old as it may be: whatever was not answered yet need not be covered.
        let read_version =
            if self.numbers.is_multiple_of(2) { self.newest() } else { self.answered };
        let mut operation = attempt(self.numbers, now, now, read_version, Outcome::Refused);
        operation.client = format!("c{client}").into();
        operation
    }

    /// All rows at a version, with own writes over them.
    fn rows(&self, version: u64, own: &[Mutation]) -> BTreeMap<Key, (Value, Option<Version>)> {
        let state = self.states.range(..=version).next_back().map(|(_, state)| state);
        let rows = state.into_iter().flatten();
        let mut rows: BTreeMap<_, _> = rows
            .map(|(key, (value, version))| (key.clone(), (value.clone(), Some(*version))))
            .collect();
        for mutation in own {
            apply(&mut rows, mutation, None);
        }
        rows
    }

    fn answer(&self, kind: &ReadKind, version: u64, own: &[Mutation]) -> ReadKind {
        let rows = self.rows(version, own);
        match kind {
            ReadKind::Point { key, .. } => {
                let found = rows.get(key).cloned();
                let found =
                    found.map(|(value, commit_version)| VersionedValue { value, commit_version });
                ReadKind::Point { key: key.clone(), found }
            }
            ReadKind::Range { query, .. } => {
                let range = query.plain_range().unwrap();
                let inside = rows.into_iter().filter(|(key, _)| range.contains(key));
                let mut rows: Vec<KeyValue> = inside
                    .map(|(key, (value, commit_version))| KeyValue { key, value, commit_version })
                    .collect();
                if query.reverse {
                    rows.reverse();
                }
                let more = query.rows_max.is_some_and(|max| rows.len() >= max);
                rows.truncate(query.rows_max.unwrap_or(usize::MAX));
                ReadKind::Range { query: query.clone(), found: RangePage { rows, more } }
            }
        }
    }

    fn read(&self, operation: &mut Operation, kind: &ReadKind, is_snapshot: bool) {
        let version = operation.read_version.unwrap().0;
        let kind = self.answer(kind, version, &operation.mutations);
        operation.reads.push(Read {
            after_mutations: operation.mutations.len(),
            is_snapshot,
            kind,
        });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Get { client, key: number, is_snapshot } => {
                let mut operation = self.take(client);
                let kind = ReadKind::Point { key: key(number), found: None };
                self.read(&mut operation, &kind, is_snapshot);
                self.open.insert(client, operation);
            }
            Step::Range { client, keys: (begin, count), rows_max, reverse } => {
                let mut operation = self.take(client);
                let range = KeyRange::new(key(begin), key(begin + count));
                let query = RangeQuery { rows_max, reverse, ..RangeQuery::new(range) };
                let found = RangePage { rows: Vec::new(), more: false };
                self.read(&mut operation, &ReadKind::Range { query, found }, false);
                self.open.insert(client, operation);
            }
            Step::Write { client, mutation } => {
                let mut operation = self.take(client);
                operation.mutations.push(mutation);
                self.open.insert(client, operation);
            }
            Step::Commit { client, told, lost } => {
                let operation = self.take(client);
                self.commit(operation, told, lost);
            }
            Step::GiveUp { client } => {
                let mut operation = self.take(client);
                operation.responded = self.tick();
                self.recorded.operations.push(operation);
            }
        }
    }

    fn commit(&mut self, mut operation: Operation, told: bool, lost: bool) {
        let newest = self.newest();
        let is_current = operation.reads.iter().filter(|read| !read.is_snapshot).all(|read| {
            let own = &operation.mutations[..read.after_mutations];
            format!("{:?}", self.answer(&read.kind, newest, own)) == format!("{:?}", read.kind)
        });
        let stamp = Versionstamp { commit_version: Version(newest + 10), batch_index: 1 };
        if operation.mutations.is_empty() {
            operation.outcome = Outcome::ReadOnly;
            // Whoever begins later must see at least what this one was shown.
            self.answered = self.answered.max(operation.read_version.unwrap().0);
        } else if !told && (lost || !is_current) {
            operation.outcome = Outcome::Unknown;
        } else if !is_current {
            operation.outcome = Outcome::Refused;
        } else {
            let mut rows = self.rows(newest, &[]);
            for mutation in &operation.mutations {
                apply(&mut rows, mutation, Some(stamp.commit_version));
            }
            let rows = rows.into_iter();
            let state =
                rows.map(|(key, (value, version))| (key, (value, version.unwrap()))).collect();
            self.states.insert(stamp.commit_version.0, state);
            self.recorded.markers.insert(operation.number, vec![stamp]);
            operation.outcome = if told { Outcome::Committed(stamp) } else { Outcome::Unknown };
            if told {
                self.answered = stamp.commit_version.0;
            }
        }
        operation.responded = self.tick();
        self.recorded.operations.push(operation);
    }

    fn run(steps: Vec<Step>) -> Recorded {
        let mut serial = Serial::default();
        steps.into_iter().for_each(|step| serial.step(step));
        for client in 0..3 {
            serial.step(Step::GiveUp { client });
        }
        serial.answered = serial.newest();
        let range = Step::Range { client: 9, keys: (0, 25), rows_max: None, reverse: false };
        serial.step(range);
        serial.step(Step::Commit { client: 9, told: true, lost: false });
        serial.recorded
    }
}

fn apply(
    rows: &mut BTreeMap<Key, (Value, Option<Version>)>,
    mutation: &Mutation,
    version: Option<Version>,
) {
    match mutation.clone() {
        Mutation::Set { key, value } => drop(rows.insert(key, (value, version))),
        Mutation::Clear { key } => drop(rows.remove(&key)),
        Mutation::ClearRange { range } => rows.retain(|key, _| !range.contains(key)),
        Mutation::Atomic { key, op, operand } => {
            let present = rows.remove(&key).map(|(value, _)| value);
            if let Some(value) = op.apply(present.as_ref(), &operand) {
                rows.insert(key, (value, version));
            }
        }
        other => panic!("{other:?} is not drawn"),
    }
}

/// Changes one answer in a history; `None` if there is none.
fn tamper(recorded: &mut Recorded, choice: usize) -> Option<()> {
    let reads = recorded.operations.iter_mut().flat_map(|operation| &mut operation.reads);
    let mut reads: Vec<&mut Read> = reads.collect();
    let index = choice.checked_rem(reads.len())?;
    match &mut reads[index].kind {
        ReadKind::Point { found: Some(found), .. } => found.value = Value::from("forged"),
        ReadKind::Point { found, .. } => {
            *found = Some(VersionedValue { value: "forged".into(), commit_version: None });
        }
        ReadKind::Range { found, .. } => found.rows.last_mut()?.value = Value::from("forged"),
    }
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_a_serial_database_does_passes(steps in steps()) {
        let recorded = Serial::run(steps);
        if let Err(violation) = check(&recorded) {
            panic!("{violation}\n{recorded:#?}");
        }
    }

    #[test]
    fn no_single_answer_can_be_changed(steps in steps(), choice in any::<usize>()) {
        let mut recorded = Serial::run(steps);
        if tamper(&mut recorded, choice).is_some() {
            prop_assert!(check(&recorded).is_err());
        }
    }

    #[test]
    fn no_marker_can_be_lost(steps in steps(), choice in any::<usize>()) {
        let mut recorded = Serial::run(steps);
        let told = recorded.operations.iter().filter(|operation| {
            matches!(operation.outcome, Outcome::Committed(_))
        });
        let told: Vec<u64> = told.map(|operation| operation.number).collect();
        if let Some(index) = choice.checked_rem(told.len()) {
            recorded.markers.remove(&told[index]);
            prop_assert_eq!(check(&recorded).unwrap_err().invariant, "I-5");
        }
    }
}

#[tokio::test]
async fn recorders_write_down_what_a_real_database_does() {
    let database = Database::memory().await.unwrap();
    let transaction = database.transaction();
    transaction.set("t/a", "before").unwrap();
    transaction.commit().await.unwrap();
    let history = History::new("test", [KeyRange::prefix(b"t/")]);
    history.begin_with(&database).await.unwrap();

    let one = history.begin(&database, "c1").unwrap();
    let other = history.begin(&database, "c2").unwrap();
    assert_eq!(other.get("t/a").await.unwrap().unwrap(), Value::from("before"));
    assert_eq!(one.get("t/a").await.unwrap().unwrap(), Value::from("before"));
    one.set("t/a", "after").unwrap();
    one.atomic(AtomicOp::Add, "t/n", &[1]).unwrap();
    assert_eq!(one.get_range(KeyRange::prefix(b"t/")).await.unwrap().len(), 2);
    assert!(one.set("elsewhere", "").is_err(), "what is not tracked cannot be written");
    one.commit().await.unwrap();
    other.clear_range(KeyRange::new("t/n", "t/o")).unwrap();
    other.commit().await.unwrap_err();

    let stamping = history.begin(&database, "c1").unwrap();
    let stamped_key = [&b"t/s/"[..], &[0; Versionstamp::LEN]].concat();
    stamping.set_versionstamped_key(stamped_key, 4, "first").unwrap();
    assert!(stamping.is_stamped());
    let elsewhere = [0; Versionstamp::LEN];
    assert!(stamping.set_versionstamped_key(&elsewhere, 0, "").is_err(), "it may be anywhere");
    stamping.add_read_conflict_range(KeyRange::new("t/x", "t/y")).await.unwrap();
    stamping.add_write_conflict_range(KeyRange::new("t/y", "t/z")).unwrap();
    stamping.commit().await.unwrap();
    let overtaken = history.begin(&database, "c1").unwrap();
    overtaken.add_read_conflict_range(KeyRange::new("t/y", "t/z")).await.unwrap();
    overtaken.set("t/n", "overtaken").unwrap();
    let overtaking = history.begin(&database, "c2").unwrap();
    overtaking.add_write_conflict_range(KeyRange::new("t/yy", "t/yz")).unwrap();
    overtaking.commit().await.unwrap();
    overtaken.commit().await.unwrap_err();

    let reader = history.begin(&database, "c2").unwrap();
    assert_eq!(reader.get_range(KeyRange::prefix(b"t/s/")).await.unwrap().len(), 1);
    assert_eq!(reader.get_snapshot("t/a").await.unwrap().unwrap(), Value::from("after"));
    let newest = RangeQuery::from(KeyRange::new("t/", "t/o")).reverse().rows(1);
    assert_eq!(reader.get_range(newest).await.unwrap()[0].key, Key::from("t/n"));
    reader.commit().await.unwrap();
    drop(history.begin(&database, "c3").unwrap());

    let recorded = history.conclude(&database).await.unwrap();
    let verdict = check(&recorded).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!((verdict.committed, verdict.read_only, verdict.refused), (3, 2, 3));
    let markers: Vec<usize> = recorded.markers.values().map(Vec::len).collect();
    assert_eq!(markers, [1, 1, 1], "three attempts took effect, each once");
}
