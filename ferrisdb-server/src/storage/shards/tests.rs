//! Shards, window and engine together, against a map of all data and a set of owned keys for each version.
//!
//! A cluster commits versions into a log; the server pulls some of them, copies pages from the map, flushes in steps,
//! is rolled back, and crashes. Whatever it answers then has to be in the maps; what it must not answer, it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrisdb_core::{
    ErrorCode, Key, KeyRange, Mutation, Result, Tag, Value, Version,
    atomic::AtomicOp,
    mutation::Item,
    service::storage::{RangeRead, Row, VersionedValue},
    shard::{ShardChange, ShardRole},
};
use proptest::prelude::*;

use super::{Holdings, Shards};
use crate::storage::{
    budget::Budget,
    engine::{
        Engine, EngineBatch, EngineChange,
        memory::{MemoryEngine, MemoryStorage},
    },
    read,
    window::Window,
};

/// Keys are single bytes below this.
const KEYS: u8 = 12;
const TAG: Tag = Tag(7);

type Rows = BTreeMap<u8, (Value, Version)>;

/// A part of what one version does.
#[derive(Clone, Debug)]
enum Step {
    Set(u8),
    Clear(u8),
    ClearRange(u8, u8),
    Add(u8),
    Leave(u8, u8),
    Join(u8, u8),
    /// Becomes a member of the n-th range that is copied.
    BecomeMember(usize),
}

#[derive(Clone, Debug)]
enum Action {
    Commit(Vec<Step>),
    Pull(usize),
    /// Copies so many rows, and maybe dies before it knows.
    Copy {
        rows: usize,
        choice: usize,
        recorded: bool,
    },
    /// Copies all there is to copy.
    CopyAll,
    BeginFlush(u64),
    /// Writes the engine, and lets the window forget.
    FinishFlush,
    Rollback(u64),
    Crash {
        loses_ingests: bool,
    },
}

/// Few of them, so that they meet again.
fn shard() -> impl Strategy<Value = (u8, u8)> {
    prop::sample::select(vec![(0, 3), (3, 6), (0, 6), (2, 8), (6, 9), (9, 12), (7, 8)])
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    prop_oneof![
        3 => key().prop_map(Step::Set),
        1 => key().prop_map(Step::Clear),
        1 => (key(), key()).prop_map(|(a, b)| Step::ClearRange(a, b)),
        3 => key().prop_map(Step::Add),
        1 => shard().prop_map(|(begin, end)| Step::Leave(begin, end)),
        1 => shard().prop_map(|(begin, end)| Step::Join(begin, end)),
        2 => (0..4usize).prop_map(Step::BecomeMember),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => prop::collection::vec(step(), 0..4).prop_map(Action::Commit),
        5 => (1..4usize).prop_map(Action::Pull),
        6 => (1..6usize, 0..3usize, prop::bool::weighted(0.9))
            .prop_map(|(rows, choice, recorded)| Action::Copy { rows, choice, recorded }),
        2 => Just(Action::CopyAll),
        2 => (0..4u64).prop_map(Action::BeginFlush),
        2 => Just(Action::BeginFlush(0)),
        5 => Just(Action::FinishFlush),
        2 => (0..3usize).prop_map(|choice| Action::Commit(vec![Step::BecomeMember(choice)])),
        1 => (0..4u64).prop_map(Action::Rollback),
        1 => any::<bool>().prop_map(|loses_ingests| Action::Crash { loses_ingests }),
    ]
}

fn range(begin: u8, end: u8) -> KeyRange {
    KeyRange::new(vec![begin], vec![end])
}

fn bytes_of(range: &KeyRange) -> std::ops::Range<u8> {
    range.begin[0]..range.end[0]
}

/// What is true.
struct Model {
    states: BTreeMap<u64, Rows>,
    owned: BTreeMap<u64, BTreeSet<u8>>,
    log: BTreeMap<u64, Vec<Item>>,
}

impl Model {
    fn head(&self) -> u64 {
        *self.states.last_key_value().unwrap().0
    }

    fn commit(&mut self, items: Vec<Item>) {
        let version = self.head() + 1;
        let mut rows = self.states[&self.head()].clone();
        let mut owned = self.owned[&self.head()].clone();
        for item in &items {
            let mut put = |key: &Key, value: Option<Value>| match value {
                Some(value) => drop(rows.insert(key[0], (value, Version(version)))),
                None => drop(rows.remove(&key[0])),
            };
            match item {
                Item::Mutation(Mutation::Set { key, value }) => put(key, Some(value.clone())),
                Item::Mutation(Mutation::Clear { key }) => put(key, None),
                Item::Mutation(Mutation::Atomic { key, op, operand }) => {
                    let value = rows.get(&key[0]).map(|(value, _)| value.clone());
                    let value = op.apply(value.as_ref(), operand);
                    rows.insert(key[0], (value.unwrap(), Version(version)));
                }
                Item::Mutation(Mutation::ClearRange { range }) => {
                    rows.retain(|key, _| !range.contains(&[*key]));
                }
                Item::ShardChange(ShardChange { range, role }) => match role {
                    ShardRole::Member => owned.extend(bytes_of(range)),
                    _ => owned.retain(|key| !range.contains(&[*key])),
                },
                Item::Mutation(other) => panic!("{other:?} is in no stream"),
            }
        }
        self.states.insert(version, rows);
        self.owned.insert(version, owned);
        self.log.insert(version, items);
    }
}

/// What is tested.
struct Server {
    storage: MemoryStorage,
    engine: MemoryEngine,
    window: Window,
    shards: Shards,
    flushing: Option<(EngineBatch, Arc<Holdings>)>,
}

impl Server {
    fn applied(&self) -> u64 {
        self.window.applied_version().0
    }

    fn open(storage: MemoryStorage) -> Server {
        let engine = storage.open();
        let version = engine.version();
        let shards = Shards::restore(engine.attachment().unwrap(), version).unwrap();
        let gaps = shards.gaps_after_restart().into_iter().map(EngineChange::ClearRange);
        engine.ingest(&gaps.collect::<Vec<_>>()).unwrap();
        Server { storage, engine, window: Window::new(version), shards, flushing: None }
    }

    fn pull(&mut self, version: u64, items: Vec<Item>) {
        let mutations = self.shards.apply(Version(version), items).unwrap();
        let mut base = |key: &Key| Ok(self.engine.get(key)?.map(|found| found.value));
        self.window.apply(Version(version), mutations, &mut base).unwrap();
    }

    fn get(&self, key: u8, version: u64) -> Result<Option<VersionedValue>> {
        self.window.check_version(Version(version))?;
        self.shards.check_key(&[key], Version(version))?;
        read::get(&self.window, &self.engine, &[key], Version(version))
    }
}

struct World {
    model: Model,
    server: Server,
    /// What a rollback did not let become known stays in the engine until a restart, or until it is copied again.
    may_have_leftovers: bool,
}

impl World {
    fn new() -> World {
        let storage = MemoryStorage::new();
        let attachment = Shards::new(TAG, Version::ZERO).first_attachment();
        storage.open().reset(Version::ZERO, attachment.as_ref()).unwrap();
        let model = Model {
            states: BTreeMap::from([(0, Rows::new())]),
            owned: BTreeMap::from([(0, BTreeSet::new())]),
            log: BTreeMap::new(),
        };
        let mut world = World { model, server: Server::open(storage), may_have_leftovers: false };
        let change = ShardChange { range: range(0, KEYS / 2), role: ShardRole::Member };
        world.model.commit(vec![Item::ShardChange(change)]);
        world.pull(1);
        world
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Commit(steps) => {
                let mut changed = BTreeSet::new();
                let items = steps.into_iter().filter_map(|step| self.item(step, &mut changed));
                let items = items.collect();
                self.model.commit(items);
            }
            Action::Pull(count) => self.pull(count),
            Action::Copy { rows, choice, recorded } => self.copy(rows, choice, recorded),
            Action::CopyAll => {
                self.pull(usize::MAX);
                while !self.server.shards.parts_to_copy().is_empty() {
                    self.copy(3, 0, true);
                }
            }
            Action::BeginFlush(back) => self.begin_flush(back),
            Action::FinishFlush => self.finish_flush(),
            Action::Rollback(back) => self.rollback(back),
            Action::Crash { loses_ingests } => {
                let storage = self.server.storage.clone();
                if loses_ingests {
                    storage.crash_losing_ingests();
                } else {
                    storage.crash();
                }
                self.server = Server::open(storage);
                self.may_have_leftovers = false;
            }
        }
    }

    /// A step as the cluster would make it: nobody becomes a member without its report.
    fn item(&self, step: Step, changed: &mut BTreeSet<u8>) -> Option<Item> {
        let value = || Value::from(vec![self.model.head() as u8, 0]);
        let change = |range, role| Some(Item::ShardChange(ShardChange { range, role }));
        let item = match step {
            Step::Set(key) => Mutation::Set { key: vec![key].into(), value: value() },
            Step::Clear(key) => Mutation::Clear { key: vec![key].into() },
            Step::ClearRange(begin, end) => Mutation::ClearRange { range: range(begin, end) },
            Step::Add(key) => Mutation::Atomic {
                key: vec![key].into(),
                op: AtomicOp::Add,
                operand: Value::from(&[1, 0]),
            },
            Step::Leave(begin, end) | Step::Join(begin, end) => {
                changed.extend(begin..end);
                let range = range(begin, end);
                let sources = vec![Tag(1)];
                return change(
                    range,
                    match step {
                        Step::Leave(..) => ShardRole::Absent,
                        _ => ShardRole::Joining { sources },
                    },
                );
            }
            Step::BecomeMember(choice) => {
                // What was reported must not have been changed since.
                let copied = self.server.shards.copied();
                let is_pending = self.server.applied() < self.model.head();
                let range = copied.get(choice).filter(|range| {
                    !is_pending && bytes_of(range).all(|key| !changed.contains(&key))
                })?;
                return change(range.clone(), ShardRole::Member);
            }
        };
        Some(Item::Mutation(item))
    }

    fn pull(&mut self, count: usize) {
        let applied = self.server.applied();
        for (version, items) in self.model.log.range(applied + 1..).take(count) {
            self.server.pull(*version, items.clone());
        }
    }

    fn copy(&mut self, rows_max: usize, choice: usize, recorded: bool) {
        let server = &mut self.server;
        let parts = server.shards.parts_to_copy();
        let Some(part) = parts.get(choice % parts.len().max(1)) else { return };
        let applied = server.applied();
        let source = self.model.states[&applied].range(bytes_of(&part.range)).take(rows_max);
        let rows = source.map(|(key, (value, version))| Row {
            key: vec![*key].into(),
            value: value.clone(),
            commit_version: *version,
        });
        let rows: Vec<_> = rows.collect();
        let end = match rows.last() {
            Some(row) if rows.len() == rows_max => Key::from(vec![row.key[0] + 1]),
            _ => part.range.end.clone(),
        };
        let clear = EngineChange::ClearRange(KeyRange::new(&part.range.begin, &end));
        let changes: Vec<_> =
            std::iter::once(clear).chain(rows.into_iter().map(EngineChange::Set)).collect();
        server.engine.ingest(&changes).unwrap();
        if recorded {
            assert!(server.shards.record_page(Version(applied), part, &end));
        } else {
            self.run(Action::Crash { loses_ingests: false });
        }
    }

    fn begin_flush(&mut self, back: u64) {
        let server = &mut self.server;
        let version = Version(server.applied()).saturating_sub(back);
        if server.flushing.is_none() && version > server.engine.version() {
            let holdings = server.shards.flush(version);
            let attachment = server.shards.attachment_of(&holdings);
            let batch = EngineBatch { attachment, ..server.window.begin_flush(version) };
            server.flushing = Some((batch, holdings));
        }
    }

    fn finish_flush(&mut self) {
        let server = &mut self.server;
        if let Some((batch, holdings)) = server.flushing.take() {
            server.engine.write(&batch).unwrap();
            self.check();
            let server = &mut self.server;
            server.window.finish_flush(batch.version);
            server.shards.on_flushed(batch.version, holdings);
        }
    }

    /// The cluster takes back its newest versions, none of which a flush was begun to.
    fn rollback(&mut self, back: u64) {
        let server = &mut self.server;
        let to = self.model.head().saturating_sub(back).max(server.window.oldest_version().0);
        self.may_have_leftovers = true;
        self.model.states.split_off(&(to + 1));
        self.model.owned.split_off(&(to + 1));
        self.model.log.split_off(&(to + 1));
        if server.applied() > to {
            server.window.rollback_after(Version(to));
            server.shards.rollback_after(Version(to));
        }
    }

    fn check(&self) {
        let server = &self.server;
        let (oldest, applied) = (server.window.oldest_version().0, server.applied());
        for version in oldest..=applied {
            let (rows, owned) = (&self.model.states[&version], &self.model.owned[&version]);
            for key in 0..KEYS {
                let expected = if owned.contains(&key) {
                    Ok(rows.get(&key).cloned())
                } else if self.model.owned[&applied].contains(&key) {
                    Err(ErrorCode::TransactionTooOld)
                } else {
                    Err(ErrorCode::WrongShard)
                };
                let found = server.get(key, version).map(|found| {
                    found.map(|VersionedValue { value, commit_version }| (value, commit_version))
                });
                let found = found.map_err(|error| error.code());
                assert_eq!(found, expected, "key {key} at {version} of {oldest}..={applied}");
            }
            for (begin, end) in [(0, KEYS / 2), (2, KEYS), (5, 8)] {
                self.check_range(begin, end, version);
            }
        }
        let copying = server.shards.copying();
        let is_copying = server.shards.is_copying() || !server.shards.is_durable();
        assert!(copying.is_empty() || is_copying, "{copying:?} does not become copied");
        if oldest == applied && server.flushing.is_none() && !self.may_have_leftovers {
            for gap in server.shards.flush(Version(applied)).gaps() {
                let row = server.engine.cursor(&gap, false).next_row().unwrap();
                assert_eq!(row, None, "what is not held is not kept");
            }
        }
    }

    fn check_range(&self, begin: u8, end: u8, version: u64) {
        let server = &self.server;
        let request = RangeRead {
            range: range(begin, end),
            read_version: Version(version),
            rows_max: 100,
            bytes_max: 10_000,
            reverse: version.is_multiple_of(2),
        };
        let is_owned = (begin..end).all(|key| self.model.owned[&version].contains(&key));
        let checked = server.shards.check_range(&request.range, Version(version));
        assert_eq!(checked.is_ok(), is_owned, "{begin}..{end} at {version}");
        if is_owned {
            let reply =
                read::get_range(&server.window, &server.engine, &request, Budget::of_rows(1_000))
                    .unwrap();
            let mut found: Vec<_> = reply.rows.into_iter().map(|row| (row.key[0], row)).collect();
            found.sort_by_key(|(key, _)| *key);
            let found = found.into_iter().map(|(key, row)| (key, (row.value, row.commit_version)));
            let expected = self.model.states[&version].range(begin..end);
            let expected: Rows = expected.map(|(key, row)| (*key, row.clone())).collect();
            assert_eq!(found.collect::<Rows>(), expected, "{begin}..{end} at {version}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a_server_answers_what_the_cluster_has(actions in prop::collection::vec(action(), 0..80)) {
        let mut world = World::new();
        for action in actions {
            world.run(action);
            world.check();
        }
    }
}

#[test]
fn a_copy_comes_to_its_end() {
    let mut world = World::new();
    world.run(Action::Commit(vec![Step::Set(1), Step::Set(7), Step::Set(8), Step::Set(10)]));
    world.run(Action::Commit(vec![Step::Join(4, KEYS)]));
    world.run(Action::Pull(2));
    assert_eq!(world.server.shards.copying(), [range(4, KEYS)], "it was a member of a part before");
    assert_eq!(world.server.shards.parts_to_copy(), [], "the window has the clear of that part");
    let flush = |world: &mut World| {
        world.run(Action::BeginFlush(0));
        world.run(Action::FinishFlush);
    };
    flush(&mut world);
    for _ in 0..3 {
        world.run(Action::Copy { rows: 1, choice: 0, recorded: true });
        world.run(Action::Commit(vec![Step::Add(7), Step::Add(9), Step::ClearRange(10, KEYS)]));
        world.run(Action::Pull(1));
        world.check();
    }
    world.run(Action::Copy { rows: 9, choice: 0, recorded: true });
    assert_eq!(world.server.shards.copied(), [], "not on disk yet");
    flush(&mut world);
    assert_eq!(world.server.shards.copied(), [range(4, KEYS)]);
    world.run(Action::Commit(vec![Step::Add(8), Step::BecomeMember(0), Step::Add(8)]));
    world.run(Action::Pull(1));
    world.check();
    assert_eq!(world.server.shards.copied(), []);
    world.run(Action::Crash { loses_ingests: true });
    world.run(Action::Pull(9));
    world.check();
    assert!(world.server.get(9, world.model.head()).unwrap().is_some());
}

#[test]
fn a_member_without_a_copy_is_an_error() {
    let mut shards = Shards::new(TAG, Version(1));
    let change = |role| Item::ShardChange(ShardChange { range: KeyRange::new("a", "m"), role });
    let sources = vec![Tag(1)];
    shards.apply(Version(2), vec![change(ShardRole::Joining { sources })]).unwrap();
    let error = shards.apply(Version(3), vec![change(ShardRole::Member)]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Protocol);
}

#[test]
fn parts_of_a_joining_range_go_their_own_ways_and_meet_again() {
    let mut shards = Shards::new(TAG, Version(1));
    let mut apply = |version, begin: &str, end: &str, role| {
        let change = ShardChange { range: KeyRange::new(begin, end), role };
        shards.apply(Version(version), vec![Item::ShardChange(change)]).unwrap();
        if version == 2 {
            let part = shards.parts_to_copy().remove(0);
            assert!(shards.record_page(Version(3), &part, &"g".into()));
            assert!(!shards.record_page(Version(3), &part, &"g".into()), "the same page again");
        }
        let parts = shards.parts_to_copy().into_iter().map(|part| part.range.to_string());
        parts.collect::<Vec<_>>()
    };
    let joining = || ShardRole::Joining { sources: vec![Tag(1)] };
    assert_eq!(apply(2, "a", "z", joining()), ["g..z"]);
    assert_eq!(apply(4, "c", "d", ShardRole::Absent), ["g..z"]);
    assert_eq!(apply(5, "p", "r", ShardRole::Absent), ["g..p", "r..z"]);
    assert_eq!(apply(6, "p", "r", joining()), ["g..p", "r..z"], "not before 6 is flushed");
    assert_eq!(apply(7, "a", "c", ShardRole::Member), ["g..p", "r..z"]);
    let holdings = shards.flush(Version(7));
    shards.on_flushed(Version(7), holdings);
    let parts = shards.parts_to_copy().into_iter().map(|part| part.range.to_string());
    assert_eq!(parts.collect::<Vec<_>>(), ["g..p", "p..r", "r..z"]);
}
