//! The window and the reads over it, against a map for each version.
//!
//! The model keeps the whole state at every version. The real thing is a [`Window`] over a [`TestEngine`];
//! flushes are cut into their three steps, with reads after each of them, failed writes and repeated
//! batches included.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Mutation, Result, Stage, Value, Version,
    atomic::AtomicOp,
    service::storage::{RangeRead, Row, VersionedValue},
};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::{Batch, Lookup, Window};
use crate::storage::{
    budget::Budget,
    engine::{self, Cursor, Engine, EngineBatch, EngineChange},
    read::{self, Scan},
};

type Rows = BTreeMap<Key, (Value, Version)>;

/// The simplest engine: a map behind a lock. Counts how its cursors are used.
#[derive(Default)]
pub(crate) struct TestEngine {
    state: Mutex<(Version, Rows)>,
    pub(crate) use_of_cursors: Mutex<CursorUse>,
}

/// How often cursors were asked for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CursorUse {
    pub(crate) created: usize,
    pub(crate) rows: usize,
    pub(crate) skips: usize,
}

impl TestEngine {
    pub(crate) fn with_rows<'a>(
        version: u64,
        rows: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> TestEngine {
        let version = Version(version);
        let rows = rows.into_iter().map(|(key, value)| (Key::from(key), (value.into(), version)));
        TestEngine { state: Mutex::new((version, rows.collect())), ..TestEngine::default() }
    }
}

impl Engine for TestEngine {
    fn version(&self) -> Version {
        self.state.lock().0
    }

    fn get(&self, key: &[u8]) -> Result<Option<VersionedValue>> {
        let found = self.state.lock().1.get(key).cloned();
        Ok(found.map(|(value, commit_version)| VersionedValue { value, commit_version }))
    }

    fn cursor<'a>(&'a self, range: &KeyRange, reverse: bool) -> Box<dyn Cursor + 'a> {
        assert!(!range.is_empty(), "a cursor over nothing: {range:?}");
        self.use_of_cursors.lock().created += 1;
        let rows = self.state.lock().1.clone();
        let rows = rows.into_iter().filter(|(key, _)| range.contains(key)).collect();
        let near = if reverse { range.end.clone() } else { range.begin.clone() };
        Box::new(TestCursor { rows, near, reverse, use_of_cursors: &self.use_of_cursors })
    }

    fn sample(&self, range: &KeyRange, _: usize) -> Vec<(Key, u64)> {
        panic!("a window takes no sample of {range}")
    }

    fn write(&self, batch: &EngineBatch) -> Result<()> {
        let (version, rows) = &mut *self.state.lock();
        assert!(*version <= batch.version, "from {version} to {}", batch.version);
        *version = batch.version;
        for change in &batch.changes {
            match change {
                EngineChange::ClearRange(range) => rows.retain(|key, _| !range.contains(key)),
                EngineChange::Clear(key) => drop(rows.remove(key)),
                EngineChange::Set(Row { key, value, commit_version }) => {
                    rows.insert(key.clone(), (value.clone(), *commit_version));
                }
            }
        }
        Ok(())
    }

    fn ingest(&self, changes: &[EngineChange]) -> Result<()> {
        panic!("a window ingests nothing: {changes:?}")
    }

    fn attachment(&self) -> Result<Option<Bytes>> {
        Ok(None)
    }

    fn reset(&self, version: Version, _attachment: Option<&Bytes>) -> Result<()> {
        panic!("a window resets nothing, least of all to {version}")
    }
}

/// The rows that are left.
struct TestCursor<'a> {
    rows: Rows,
    near: Key,
    reverse: bool,
    use_of_cursors: &'a Mutex<CursorUse>,
}

impl Cursor for TestCursor<'_> {
    fn next(&mut self) -> Result<engine::Step> {
        let reverse = self.reverse;
        let next = if reverse { self.rows.last_key_value() } else { self.rows.first_key_value() };
        let Some((key, (value, commit_version))) = next else { return Ok(engine::Step::End) };
        let (key, value, commit_version) = (key.clone(), value.clone(), *commit_version);
        // As if there were deleted keys before each row.
        let to = if reverse { key.successor() } else { key.clone() };
        if to != self.near {
            self.near = to.clone();
            return Ok(engine::Step::Passed { to, looked_at: 1 });
        }
        self.rows.remove(&key);
        self.near = if reverse { key.clone() } else { key.successor() };
        self.use_of_cursors.lock().rows += 1;
        let row = Row { key, value, commit_version };
        Ok(engine::Step::Row { row, looked_at: 1 })
    }

    fn skip_to(&mut self, to: &Key) {
        self.use_of_cursors.lock().skips += 1;
        let reverse = self.reverse;
        self.rows.retain(|key, _| if reverse { key < to } else { key >= to });
        self.near = to.clone();
    }
}

/// What the data is, by the shortest definition.
#[derive(Debug)]
struct Model {
    /// The state at every version, with none left out.
    states: BTreeMap<Version, Rows>,
}

impl Model {
    fn newest(&self) -> (Version, &Rows) {
        let (version, rows) = self.states.last_key_value().unwrap();
        (*version, rows)
    }

    fn advance(&mut self, version: Version) -> &mut Rows {
        let (mut last, rows) = self.newest();
        let rows = rows.clone();
        while last < version {
            last = last.next();
            self.states.insert(last, rows.clone());
        }
        self.states.get_mut(&version).unwrap()
    }

    fn apply(&mut self, version: Version, mutations: &[Mutation]) {
        let rows = self.advance(version);
        for mutation in mutations.iter().cloned() {
            match mutation {
                Mutation::Set { key, value } => drop(rows.insert(key, (value, version))),
                Mutation::Clear { key } => drop(rows.remove(&key)),
                Mutation::ClearRange { range } => rows.retain(|key, _| !range.contains(key)),
                Mutation::Atomic { key, op, operand } => {
                    match op.apply(rows.get(&key).map(|(value, _)| value), &operand) {
                        Some(value) => drop(rows.insert(key, (value, version))),
                        None => drop(rows.remove(&key)),
                    }
                }
                other => unreachable!("{other:?} is not drawn"),
            }
        }
    }

    fn range(&self, range: &KeyRange, version: Version, reverse: bool) -> Vec<Row> {
        let inside = self.states[&version].iter().filter(|(key, _)| range.contains(key));
        let mut rows: Vec<Row> = inside
            .map(|(key, (value, commit_version))| Row {
                key: key.clone(),
                value: value.clone(),
                commit_version: *commit_version,
            })
            .collect();
        if reverse {
            rows.reverse();
        }
        rows
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply {
        gap: u64,
        mutations: Vec<Mutation>,
    },
    /// A version whose last mutation fails: nothing of it is left behind.
    ApplyAndFail {
        mutations: Vec<Mutation>,
    },
    Advance {
        gap: u64,
    },
    /// To somewhere between the oldest and the applied version, in percent of the way.
    BeginFlush {
        percent: u64,
    },
    WriteEngine,
    /// To somewhere up to the engine's version.
    FinishFlush {
        percent: u64,
    },
    /// To somewhere between the oldest and the applied version.
    Rollback {
        percent: u64,
    },
}

/// A range read, followed to its end.
#[derive(Clone, Debug)]
struct Probe {
    range: KeyRange,
    reverse: bool,
    rows_max: u32,
    bytes_max: u32,
    /// Rows that each request looks at.
    budget: usize,
}

const KEYS: &[&[u8]] =
    &[b"", b"a", b"a\0", b"a\0\0", b"b", b"c", b"d", b"e", b"ef", b"g", b"\xff", b"\xff\xff"];

fn some_key() -> impl Strategy<Value = Key> {
    prop::sample::select(KEYS).prop_map(Key::copy_from)
}

fn some_range() -> impl Strategy<Value = KeyRange> {
    // Inverted and empty ones included.
    (some_key(), some_key()).prop_map(|(begin, end)| KeyRange { begin, end })
}

fn some_mutation() -> impl Strategy<Value = Mutation> {
    let value = || prop::collection::vec(0u8..3, 0..3).prop_map(Value::from);
    let op = prop::sample::select(AtomicOp::ALL);
    prop_oneof![
        4 => (some_key(), value()).prop_map(|(key, value)| Mutation::Set { key, value }),
        2 => some_key().prop_map(|key| Mutation::Clear { key }),
        3 => some_range().prop_map(|range| Mutation::ClearRange { range }),
        1 => some_key().prop_map(|key| Mutation::ClearRange { range: KeyRange::single(&key) }),
        3 => (some_key(), op, value())
            .prop_map(|(key, op, operand)| Mutation::Atomic { key, op, operand }),
    ]
}

fn some_step() -> impl Strategy<Value = Step> {
    let mutations = || prop::collection::vec(some_mutation(), 0..6);
    prop_oneof![
        6 => (1u64..3, mutations()).prop_map(|(gap, mutations)| Step::Apply { gap, mutations }),
        1 => mutations().prop_map(|mutations| Step::ApplyAndFail { mutations }),
        1 => (1u64..3).prop_map(|gap| Step::Advance { gap }),
        2 => (0u64..=100).prop_map(|percent| Step::BeginFlush { percent }),
        2 => Just(Step::WriteEngine),
        // Mostly to the engine's version, as the server does.
        2 => prop_oneof![Just(100u64), 0u64..=100]
            .prop_map(|percent| Step::FinishFlush { percent }),
        1 => (0u64..=100).prop_map(|percent| Step::Rollback { percent }),
    ]
}

fn some_probe() -> impl Strategy<Value = Probe> {
    (some_range(), any::<bool>(), 0u32..5, 0u32..12, 1usize..12).prop_map(
        |(range, reverse, rows_max, bytes_max, budget)| Probe {
            range,
            reverse,
            rows_max,
            bytes_max,
            budget,
        },
    )
}

/// The window over an engine, and the model beside them.
struct Pair {
    window: Window,
    engine: TestEngine,
    model: Model,
    batch: Option<EngineBatch>,
}

impl Pair {
    fn new() -> Pair {
        let engine = TestEngine::with_rows(10, [("a", "1"), ("b", "2"), ("ef", "3")]);
        let states = BTreeMap::from([(Version(10), engine.state.lock().1.clone())]);
        Pair { window: Window::new(Version(10)), engine, model: Model { states }, batch: None }
    }

    fn take(&mut self, step: Step) {
        let (oldest, applied) = (self.window.oldest_version(), self.window.applied_version());
        let between = |from: Version, to: Version, percent: u64| {
            Version(from.0 + (to.0.saturating_sub(from.0)) * percent / 100)
        };
        match step {
            Step::Apply { gap, mutations } => {
                let version = applied.saturating_add(gap);
                self.model.apply(version, &mutations);
                let engine = &self.engine;
                let mut base = |key: &Key| Ok(engine.get(key)?.map(|found| found.value));
                self.window.apply(version, mutations, &mut base).unwrap();
            }
            Step::ApplyAndFail { mut mutations } => {
                // Beyond the end of all ranges, so that the window never knows it.
                let unknown = Key::from_static(b"\xff\xff\xff");
                mutations.push(Mutation::Atomic {
                    key: unknown.clone(),
                    op: AtomicOp::Add,
                    operand: Value::from("1"),
                });
                let bytes = self.window.memory_bytes();
                let mut base = |key: &Key| match *key == unknown {
                    true => Err(Error::new(ErrorCode::Disk, Stage::Apply, "broken")),
                    false => Ok(None),
                };
                let result = self.window.apply(applied.next(), mutations, &mut base);
                assert_eq!(result.unwrap_err().code(), ErrorCode::Disk);
                assert_eq!(self.window.memory_bytes(), bytes);
            }
            Step::Advance { gap } => {
                self.model.advance(applied.saturating_add(gap));
                self.window.advance(applied.saturating_add(gap));
            }
            Step::BeginFlush { percent } => {
                let batch = self.window.begin_flush(between(oldest, applied, percent));
                self.batch = Some(batch);
            }
            Step::WriteEngine => {
                // The batch stays: a later step may write it again, as after a failure.
                let Some(batch) = &self.batch else { return };
                self.engine.write(batch).unwrap();
                let (version, rows) = &*self.engine.state.lock();
                assert_eq!(*rows, self.model.states[version], "the engine at {version} (I-9)");
            }
            Step::FinishFlush { percent } => {
                let engine_version = self.engine.version();
                self.window.finish_flush(between(Version(10), engine_version, percent));
                if engine_version == applied && percent == 100 {
                    assert!(self.window.is_empty());
                    assert!(self.window.writes.is_empty());
                }
            }
            Step::Rollback { percent } => {
                let version = between(oldest, applied, percent);
                self.window.rollback_after(version);
                self.model.states.retain(|&kept, _| kept <= version);
            }
        }
    }

    /// Compares everything that can be read.
    fn check(&self, probes: &[Probe]) {
        let Pair { window, engine, model, .. } = self;
        let (oldest, applied) = (window.oldest_version(), window.applied_version());
        assert_eq!(applied, model.newest().0);
        assert_eq!(window.is_empty(), window.memory_bytes() == 0);
        if window.is_empty() {
            assert!(window.writes.is_empty(), "writes outside of the journal");
        }
        for (&version, rows) in model.states.range(oldest..=applied) {
            for key in KEYS {
                let found = read::get(window, engine, key, version).unwrap();
                let found = found.map(|found| (found.value, found.commit_version));
                assert_eq!(found.as_ref(), rows.get(*key), "{key:?} at {version} (I-2)");
            }
            for probe in probes {
                self.check_range(probe, version);
            }
        }
    }

    fn check_range(&self, probe: &Probe, version: Version) {
        let Probe { range, reverse, rows_max, bytes_max, budget } = probe.clone();
        let expected = self.model.range(&range, version, reverse);
        let mut rest = range.clone();
        let mut found = Vec::new();
        loop {
            let request = RangeRead {
                range: rest.clone(),
                read_version: version,
                rows_max,
                bytes_max,
                reverse,
            };
            let budget = Budget::of_rows(budget);
            let reply = read::get_range(&self.window, &self.engine, &request, budget).unwrap();
            let bytes: usize = reply.rows.iter().map(|row| row.key.len() + row.value.len()).sum();
            assert!(reply.rows.len() <= 1 || reply.rows.len() <= rows_max as usize);
            assert!(reply.rows.len() <= 1 || bytes <= bytes_max as usize);
            if !rest.is_empty() {
                assert!(reply.covered(&rest, reverse).is_some(), "{reply:?} to {request:?}");
            }
            found.extend(reply.rows);
            let Some(continue_at) = reply.continue_at else { break };
            if reverse {
                rest.end = continue_at;
            } else {
                rest.begin = continue_at;
            }
            assert!(!rest.is_empty(), "to be continued, although the range is at its end");
        }
        assert_eq!(found, expected, "{probe:?} at {version} (I-2)");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reads_are_those_of_a_map_per_version(
        steps in prop::collection::vec(some_step(), 1..50),
        probes in prop::collection::vec(some_probe(), 3),
    ) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step);
            pair.check(&probes);
        }
        // To the end: everything to the engine, nothing left in memory.
        pair.take(Step::BeginFlush { percent: 100 });
        pair.take(Step::WriteEngine);
        pair.check(&probes);
        pair.take(Step::FinishFlush { percent: 100 });
        pair.check(&probes);
        prop_assert!(pair.window.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// A scan lets go of the window while it reads the engine.
    #[test]
    fn scans_are_right_whatever_happens_between_their_steps(
        before in prop::collection::vec(some_step(), 0..20),
        percent in 0u64..=100,
        probe in some_probe(),
        meanwhile in prop::collection::vec(prop::collection::vec(some_step(), 0..4), 12),
    ) {
        let mut pair = Pair::new();
        before.into_iter().for_each(|step| pair.take(step));
        let (oldest, applied) = (pair.window.oldest_version(), pair.window.applied_version());
        let version = Version(oldest.0 + (applied.0 - oldest.0) * percent / 100);
        let Probe { range, reverse, rows_max, bytes_max, budget } = probe;
        let expected = pair.model.range(&range, version, reverse);
        let request =
            RangeRead { range: range.clone(), read_version: version, rows_max, bytes_max, reverse };
        let mut scan = Scan::of_rows(&request);
        for steps in meanwhile {
            if scan.is_done() {
                break;
            }
            let mut budget = Budget::of_rows(budget);
            let excerpt = scan.excerpt(&pair.window, &budget);
            for step in steps {
                // No version that can be read is ever rolled back.
                if !matches!(step, Step::Rollback { .. }) {
                    pair.take(step);
                }
            }
            scan.read(excerpt, &pair.engine, &mut budget).unwrap();
            if pair.window.check_version(version).is_err() {
                return Ok(());
            }
        }
        let reply = scan.into_reply();
        let is_before = |row: &&Row| match &reply.continue_at {
            None => true,
            Some(key) if reverse => row.key >= *key,
            Some(key) => row.key < *key,
        };
        let expected: Vec<Row> = expected.iter().filter(is_before).cloned().collect();
        prop_assert_eq!(reply.rows, expected);
    }
}

fn set(key: &str, value: &str) -> Mutation {
    Mutation::Set { key: key.into(), value: value.into() }
}

fn clear_range(begin: &str, end: &str) -> Mutation {
    Mutation::ClearRange { range: KeyRange::new(begin, end) }
}

fn atomic(key: &str, op: AtomicOp, operand: &str) -> Mutation {
    Mutation::Atomic { key: key.into(), op, operand: operand.into() }
}

fn value(value: &str, version: u64) -> Lookup {
    Lookup::Value(VersionedValue { value: value.into(), commit_version: Version(version) })
}

fn apply(window: &mut Window, version: u64, mutations: impl IntoIterator<Item = Mutation>) {
    window.apply(Version(version), mutations, &mut |_| Ok(None)).unwrap();
}

#[test]
fn the_picture_of_the_essay() {
    let mut window = Window::new(Version(20));
    apply(&mut window, 30, [set("a", "a30"), Mutation::Clear { key: "m".into() }]);
    window.advance(Version(40));
    apply(&mut window, 50, [clear_range("b", "f"), set("m", "m50")]);

    for version in [30, 40] {
        assert_eq!(window.get(b"a", Version(version)), value("a30", 30));
        assert_eq!(window.get(b"b", Version(version)), Lookup::Unknown);
        assert_eq!(window.get(b"m", Version(version)), Lookup::Cleared);
    }
    assert_eq!(window.get(b"a", Version(20)), Lookup::Unknown);
    assert_eq!(window.get(b"b", Version(50)), Lookup::Cleared);
    assert_eq!(window.get(b"f", Version(50)), Lookup::Unknown);
    assert_eq!(window.get(b"m", Version(50)), value("m50", 50));
}

#[test]
fn mutations_of_one_version_apply_in_order() {
    let mut window = Window::new(Version(20));
    apply(
        &mut window,
        30,
        [set("a", "1"), set("b", "2"), clear_range("a", "c"), set("a", "3"), set("a", "4")],
    );
    assert_eq!(window.get(b"a", Version(30)), value("4", 30));
    assert_eq!(window.get(b"b", Version(30)), Lookup::Cleared);

    let batch = window.begin_flush(Version(30));
    let row = Row { key: "a".into(), value: "4".into(), commit_version: Version(30) };
    let changes = [EngineChange::ClearRange(KeyRange::new("a", "c")), EngineChange::Set(row)];
    assert_eq!(batch.changes, changes);
}

#[test]
fn atomic_operations_see_the_window_first_and_then_the_engine() {
    let mut window = Window::new(Version(20));
    let mut asked = Vec::new();
    let mut base = |key: &Key| {
        asked.push(key.clone());
        Ok(Some(Value::from("E")))
    };
    let append = |key| atomic(key, AtomicOp::AppendIfFits, "x");
    window
        .apply(
            Version(30),
            [append("a"), append("a"), clear_range("c", "e"), append("d")],
            &mut base,
        )
        .unwrap();
    let compare = atomic("b", AtomicOp::CompareAndClear, "E");
    let keep = atomic("a", AtomicOp::CompareAndClear, "E");
    window.apply(Version(40), [compare, keep], &mut base).unwrap();

    assert_eq!(asked, [Key::from("a"), Key::from("b")]);
    assert_eq!(window.get(b"a", Version(30)), value("Exx", 30));
    assert_eq!(window.get(b"d", Version(30)), value("x", 30));
    assert_eq!(window.get(b"b", Version(40)), Lookup::Cleared);
    // Unchanged, and written all the same.
    assert_eq!(window.get(b"a", Version(40)), value("Exx", 40));
}

#[test]
fn a_rollback_forgets_and_other_versions_take_the_place() {
    let mut window = Window::new(Version(20));
    apply(&mut window, 30, [set("a", "30")]);
    let bytes = window.memory_bytes();
    apply(&mut window, 40, [set("a", "40"), set("b", "40"), clear_range("c", "d")]);
    window.rollback_after(Version(35));

    assert_eq!(window.applied_version(), Version(35));
    assert_eq!(window.memory_bytes(), bytes);
    apply(&mut window, 1000, [set("b", "1000")]);
    assert_eq!(window.get(b"a", Version(1000)), value("30", 30));
    assert_eq!(window.get(b"b", Version(999)), Lookup::Unknown);
    assert_eq!(window.get(b"c", Version(1000)), Lookup::Unknown);
}

#[test]
fn versions_out_of_reach_are_refused() {
    let mut window = Window::new(Version(20));
    apply(&mut window, 30, [set("a", "30")]);
    window.begin_flush(Version(25));
    let code = |version| window.check_version(Version(version)).map_err(|error| error.code());
    assert_eq!(code(24), Err(ErrorCode::TransactionTooOld));
    assert_eq!(code(25), Ok(()));
    assert_eq!(code(30), Ok(()));
    assert_eq!(code(31), Err(ErrorCode::FutureVersion));
}

#[test]
fn a_point_read_notices_that_the_engine_has_moved_past_it() {
    let engine = TestEngine::with_rows(20, [("a", "20")]);
    let mut window = Window::new(Version(20));
    apply(&mut window, 30, [set("a", "30")]);

    // The window part, then without the lock a flush, then the engine part.
    assert_eq!(read::get_in_window(&window, b"a", Version(25)).unwrap(), Lookup::Unknown);
    let batch = window.begin_flush(Version(30));
    engine.write(&batch).unwrap();
    let found = engine.get(b"a").unwrap().unwrap();
    assert_eq!(found.value, Value::from("30"), "wrong at 25");
    let refused = window.check_version(Version(25)).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TransactionTooOld);
}

#[test]
fn a_long_life_of_the_same_changes_leaves_nothing_behind() {
    let engine = TestEngine::default();
    let mut window = Window::new(Version(0));
    let mut most = 0;
    for version in 1..=2_000 {
        apply(
            &mut window,
            version,
            [set("hot", "x"), clear_range("a", "c"), clear_range("b", "d")],
        );
        if version % 10 == 0 {
            let flushed = Version(version - 5);
            engine.write(&window.begin_flush(flushed)).unwrap();
            window.finish_flush(flushed);
            most = most.max(window.clears_at(Version(version)).map_or(0, |clears| {
                let mut count = 0;
                clears.for_each_after(Version::ZERO, &mut |_| count += 1);
                count
            }));
        }
    }
    assert!(most <= 4, "{most} pieces of clears");
    assert!(window.memory_bytes() < 100_000, "{} bytes", window.memory_bytes());
}

#[test]
fn a_range_read_skips_what_is_cleared() {
    let numbers: Vec<String> = (0..1_000).map(|number| format!("{number:03}")).collect();
    let engine = TestEngine::with_rows(20, numbers.iter().map(|key| (key.as_str(), "E")));
    let mut window = Window::new(Version(20));
    // A queue that was cleared from its front in many steps, and a hole further on.
    for (version, number) in (21..).zip(0..400) {
        apply(&mut window, version, [clear_range(&numbers[number], &numbers[number + 1])]);
    }
    apply(&mut window, 500, [clear_range("401", "900"), set("500", "W")]);

    let read = |reverse, range| {
        let request =
            RangeRead { range, read_version: Version(500), rows_max: 3, bytes_max: 1_000, reverse };
        *engine.use_of_cursors.lock() = CursorUse::default();
        let budget = Budget::of_rows(10_000);
        let reply = read::get_range(&window, &engine, &request, budget).unwrap();
        let keys: Vec<String> = reply.rows.iter().map(|row| row.key.to_string()).collect();
        (keys.join(" "), reply.continue_at.is_some(), *engine.use_of_cursors.lock())
    };
    let used = |created, rows, skips| CursorUse { created, rows, skips };

    // Upwards: begins behind the front, steps into the hole once, and skips it.
    let found = read(false, KeyRange::new("000", "999"));
    assert_eq!(found, ("400 500 900".to_string(), true, used(1, 3, 1)));
    // Downwards from inside the hole: begins below it.
    let found = read(true, KeyRange::new("", "899"));
    assert_eq!(found, ("500 400".to_string(), false, used(1, 2, 1)));
    // Nothing but cleared keys: the engine is not asked at all.
    let found = read(false, KeyRange::new("100", "300"));
    assert_eq!(found, (String::new(), false, used(0, 0, 0)));
}

#[test]
fn clears_and_deleted_keys_are_passed_a_few_at_a_time() {
    let numbers: Vec<String> = (0..1_000).map(|number| format!("{number:04}")).collect();
    let engine = TestEngine::with_rows(20, [("0500", "E")]);
    let mut window = Window::new(Version(20));
    for (version, number) in (21..).zip(0..400) {
        apply(&mut window, version, [clear_range(&numbers[number], &numbers[number + 1])]);
    }
    let single = numbers[500..900].iter().map(|key| Mutation::Clear { key: key.as_str().into() });
    apply(&mut window, 500, single);
    for reverse in [false, true] {
        let mut range = KeyRange::new("0000", "0999");
        let mut requests = 0;
        while !range.is_empty() {
            requests += 1;
            let request = RangeRead {
                range: range.clone(),
                read_version: Version(500),
                rows_max: 3,
                bytes_max: 1_000,
                reverse,
            };
            let reply = read::get_range(&window, &engine, &request, Budget::of_rows(50)).unwrap();
            assert_eq!(reply.rows, []);
            let covered = reply.covered(&range, reverse).unwrap();
            if reverse {
                range.end = covered.begin;
            } else {
                range.begin = covered.end;
            }
        }
        assert!((8..=20).contains(&requests), "{requests} requests for 800 keys");
    }
}

#[test]
fn a_key_does_not_keep_the_message_alive_that_brought_it_first() {
    let message = bytes::Bytes::from(vec![b'k'; 1_000]);
    let mut window = Window::new(Version(0));
    let mutation = Mutation::Set { key: Key(message.slice(0..4)), value: Value::from("1") };
    apply(&mut window, 1, [mutation]);
    apply(&mut window, 2, [set("kkkk", "2")]);
    window.begin_flush(Version(1));
    window.finish_flush(Version(1));
    assert!(message.is_unique());
    let everything = KeyRange { begin: Key::MIN, end: Key::SYSTEM_END };
    assert_eq!(window.writes.range(&everything).count(), 1);
}

#[test]
fn what_is_flushed_at_once_is_bounded_by_bytes_but_never_nothing() {
    let mut window = Window::new(Version(0));
    assert_eq!(window.flushed_at_once(Version(50), 1), Version(50), "nothing has changed");
    for version in [10, 20, 30, 40] {
        apply(&mut window, version, [set("key", "value")]);
    }
    let bytes_of_one = window.memory_bytes() / 4;
    assert_eq!(window.flushed_at_once(Version(50), 0), Version(10));
    assert_eq!(window.flushed_at_once(Version(50), 2 * bytes_of_one), Version(20));
    assert_eq!(window.flushed_at_once(Version(25), usize::MAX), Version(25));
    assert_eq!(window.flushed_at_once(Version(50), usize::MAX), Version(50));
}

#[test]
fn a_batch_that_is_made_in_parts_is_the_same_whatever_happens_in_between() {
    let mut window = Window::new(Version(0));
    for version in 1..=20 {
        let key = format!("k{:02}", version * 7 % 11);
        apply(&mut window, version, [set(&key, "old"), clear_range("k03", "k05"), set("hot", "x")]);
    }
    window.raise_oldest_version(Version(15));
    let at_once = window.flush_batch(Version(15));

    let mut version = 20;
    let mut batch = Batch::new(Version(15));
    let mut in_between = |window: &mut Window| {
        version += 1;
        apply(window, version, [set("k01", "new"), set("hot", "y"), clear_range("k", "l")]);
        if version % 3 == 0 {
            window.rollback_after(Version(15 + version % 2));
        }
    };
    while batch.collect(&window, 1) {
        in_between(&mut window);
    }
    batch.sort();
    while batch.resolve(&window, 1) {
        in_between(&mut window);
    }
    assert_eq!(batch.finish(None), at_once);

    // Forgetting in parts: whatever is left can be read all the way.
    let mut parts = 0;
    while window.forget_flushed(Version(15), 1) {
        parts += 1;
        assert_eq!(window.get(b"hot", Version(15)), value("x", 15));
    }
    assert!(parts > 10, "{parts}");
    while window.prune_clears(Version(15), 1) {
        assert_eq!(window.get(b"k03", Version(15)), Lookup::Unknown);
    }
    window.finish_flush(Version(15));
    assert_eq!(window.get(b"k03", Version(15)), Lookup::Unknown);
}
