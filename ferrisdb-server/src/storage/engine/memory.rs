//! The engine of simulations and tests: a map in memory that survives its process, with a crash model.
//!
//! ```text
//!   MemoryStorage   what stays when the process dies: rows, and the version they are the state of
//!        ^
//!   MemoryEngine    one opening of it. A later opening, or a crash, cuts it off: it fails from then on
//! ```
//!
//! A write is durable when it returns, like a synced batch of RocksDB, and is there entirely or not at all; a reset
//! likewise. Rows that were ingested since the last write may be lost with the process.
//! What a crash can do is therefore just this: it happens before the write, with or without what was
//! ingested, or after the write but before anybody hears of it ([`CrashPoint`]).
//!
//! Deleted keys stay in a cursor's way for a while, as they do in RocksDB until a compaction: here for so many writes.
//!
//! No clock, no randomness, no files: the same calls give the same state.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Version,
    service::storage::{Row, VersionedValue},
};
use parking_lot::RwLock;

use super::{Cursor, Engine, EngineBatch, EngineChange, Reserve, Step};

/// How many deleted keys a cursor passes in one step.
pub const DELETED_AT_ONCE: usize = 16;
/// After so many writes deleted keys are in nobody's way any more.
const WRITES_PER_COMPACTION: u32 = 128;

/// Rows are behind a pointer so that a cursor keeps the ones it began with, at no cost to it.
type Rows = Arc<BTreeMap<Key, VersionedValue>>;

/// When a process dies, relative to the write or reset that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// The write is lost, and with it what was ingested since the one before.
    BeforeIngests,
    /// The write is lost.
    BeforeWrite,
    /// The write is durable, but the process does not live to learn it.
    AfterWrite,
}

/// The disk under memory engines. Clones are the same disk; a harness keeps one while processes come and go.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage(Arc<RwLock<Stored>>);

#[derive(Debug, Default)]
struct Stored {
    rows: Rows,
    /// Keys that had rows; some may have rows again.
    deleted: Arc<BTreeSet<Key>>,
    writes_since_compaction: u32,
    version: Version,
    attachment: Option<Bytes>,
    /// For each ingest since the last write: what its keys had before, in the order of its changes.
    before_ingests: Vec<Vec<(Key, Option<VersionedValue>)>>,
    /// Which opening may use the disk.
    opening: u64,
    crash_at_next_write: Option<CrashPoint>,
    is_full: bool,
}

impl MemoryStorage {
    /// An empty disk.
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    /// From now on only changes that free space find some; `false` ends that.
    pub fn set_full(&self, is_full: bool) {
        self.0.write().is_full = is_full;
    }

    /// Opens the disk. Engines opened before are cut off: their process is gone.
    pub fn open(&self) -> MemoryEngine {
        let mut stored = self.0.write();
        stored.opening += 1;
        stored.crash_at_next_write = None;
        MemoryEngine { storage: self.clone(), opening: stored.opening }
    }

    /// The process dies now: the engine that is open fails from here on. What was written stays.
    pub fn crash(&self) {
        self.0.write().opening += 1;
    }

    /// The process dies now, and what was ingested since its last write is lost.
    pub fn crash_losing_ingests(&self) {
        self.crash_keeping_ingests(0);
    }

    /// The process dies now, and of the ingests since its last write only the first so many are left.
    pub fn crash_keeping_ingests(&self, count: usize) {
        let mut stored = self.0.write();
        stored.opening += 1;
        stored.keep_ingests(count);
    }

    /// How many ingests a crash may lose.
    pub fn unsynced_ingests(&self) -> usize {
        self.0.read().before_ingests.len()
    }

    /// Another disk, with the same on it.
    pub fn copy(&self) -> MemoryStorage {
        let stored = self.0.read();
        MemoryStorage(Arc::new(RwLock::new(Stored {
            rows: Arc::clone(&stored.rows),
            deleted: Arc::clone(&stored.deleted),
            writes_since_compaction: 0,
            version: stored.version,
            attachment: stored.attachment.clone(),
            before_ingests: stored.before_ingests.clone(),
            opening: 0,
            crash_at_next_write: None,
            is_full: stored.is_full,
        })))
    }

    /// The bytes of all keys and values together.
    pub fn used_bytes(&self) -> u64 {
        let rows = Arc::clone(&self.0.read().rows);
        rows.iter().map(|(key, row)| (key.len() + row.value.len()) as u64).sum()
    }

    /// The keys of all rows, in order.
    pub fn keys(&self) -> Vec<Key> {
        self.0.read().rows.keys().cloned().collect()
    }

    /// The process dies in its next write or reset.
    pub fn crash_at_next_write(&self, point: CrashPoint) {
        self.0.write().crash_at_next_write = Some(point);
    }

    /// The version that is on disk, whoever has it open.
    pub fn version(&self) -> Version {
        self.0.read().version
    }
}

impl Stored {
    /// Applies changes, and tells what the keys had before.
    fn apply(&mut self, changes: &[EngineChange]) -> Vec<(Key, Option<VersionedValue>)> {
        let mut replaced = Vec::new();
        apply(Arc::make_mut(&mut self.rows), changes, &mut |key, before| {
            replaced.push((key.clone(), before));
        });
        let is_gone = |(key, before): &&(Key, Option<VersionedValue>)| {
            before.is_some() && !self.rows.contains_key(key)
        };
        let mut gone = replaced.iter().filter(is_gone).map(|(key, _)| key.clone()).peekable();
        if gone.peek().is_some() {
            Arc::make_mut(&mut self.deleted).extend(gone);
        }
        replaced
    }

    /// Loses all ingests since the last write but the first so many.
    fn keep_ingests(&mut self, count: usize) {
        let count = count.min(self.before_ingests.len());
        let before = self.before_ingests.split_off(count);
        let rows = Arc::make_mut(&mut self.rows);
        for (key, value) in before.into_iter().rev().flat_map(|ingest| ingest.into_iter().rev()) {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }

    /// Does a write or reset, unless the process is to die before it.
    fn change(&mut self, change: impl FnOnce(&mut Stored)) {
        let crash = self.crash_at_next_write.take();
        match crash {
            Some(CrashPoint::BeforeIngests) => self.keep_ingests(0),
            Some(CrashPoint::BeforeWrite) => {}
            Some(CrashPoint::AfterWrite) | None => {
                change(self);
                self.before_ingests.clear();
            }
        }
        if crash.is_some() {
            self.opening += 1;
        }
    }
}

/// An engine over a [`MemoryStorage`].
#[derive(Debug)]
pub struct MemoryEngine {
    storage: MemoryStorage,
    opening: u64,
}

impl MemoryEngine {
    /// The rows at this moment.
    fn rows(&self) -> Result<Rows> {
        let stored = self.storage.0.read();
        self.check_open(&stored)?;
        Ok(Arc::clone(&stored.rows))
    }

    fn check_open(&self, stored: &Stored) -> Result<()> {
        if stored.opening == self.opening {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Disk, Stage::Apply, "the process of this engine has died"))
    }
}

impl Engine for MemoryEngine {
    fn version(&self) -> Version {
        self.storage.version()
    }

    fn get(&self, key: &[u8]) -> Result<Option<VersionedValue>> {
        Ok(self.rows()?.get(key).cloned())
    }

    fn cursor<'a>(&'a self, range: &KeyRange, reverse: bool) -> Box<dyn Cursor + 'a> {
        let deleted = Arc::clone(&self.storage.0.read().deleted);
        Box::new(MemoryCursor { rows: self.rows(), deleted, rest: range.clone(), reverse })
    }

    /// All of them: a sample that is never wrong.
    fn sample(&self, range: &KeyRange, keys_max: usize) -> Vec<(Key, u64)> {
        let Ok(rows) = self.rows() else { return Vec::new() };
        if range.is_empty() {
            return Vec::new();
        }
        let inside = rows.range(range.begin.clone()..range.end.clone()).take(keys_max);
        inside.map(|(key, found)| (key.clone(), (key.len() + found.value.len()) as u64)).collect()
    }

    fn check_space(&self, left: Reserve) -> Result<()> {
        match left == Reserve::All && self.storage.0.read().is_full {
            true => Err(Error::new(ErrorCode::DiskFull, Stage::Apply, "no space is left")),
            false => Ok(()),
        }
    }

    fn write(&self, batch: &EngineBatch) -> Result<()> {
        let mut stored = self.storage.0.write();
        self.check_open(&stored)?;
        stored.change(|stored| {
            assert!(
                batch.version >= stored.version,
                "an engine at {} was to go back to {} (I-9, I-11)",
                stored.version,
                batch.version
            );
            stored.writes_since_compaction += 1;
            if stored.writes_since_compaction >= WRITES_PER_COMPACTION {
                stored.writes_since_compaction = 0;
                stored.deleted = Arc::default();
            }
            stored.apply(&batch.changes);
            stored.version = batch.version;
            stored.attachment = batch.attachment.clone().or(stored.attachment.take());
        });
        self.check_open(&stored)
    }

    fn ingest(&self, changes: &[EngineChange]) -> Result<()> {
        let mut stored = self.storage.0.write();
        self.check_open(&stored)?;
        let replaced = stored.apply(changes);
        stored.before_ingests.push(replaced);
        Ok(())
    }

    fn attachment(&self) -> Result<Option<Bytes>> {
        let stored = self.storage.0.read();
        self.check_open(&stored)?;
        Ok(stored.attachment.clone())
    }

    fn reset(&self, version: Version, attachment: Option<&Bytes>) -> Result<()> {
        let mut stored = self.storage.0.write();
        self.check_open(&stored)?;
        stored.change(|stored| {
            stored.rows = Rows::default();
            stored.deleted = Arc::default();
            stored.version = version;
            stored.attachment = attachment.cloned();
        });
        self.check_open(&stored)
    }
}

/// Applies changes, and tells what the keys had before.
fn apply(
    rows: &mut BTreeMap<Key, VersionedValue>,
    changes: &[EngineChange],
    replaced: &mut dyn FnMut(&Key, Option<VersionedValue>),
) {
    for change in changes {
        match change {
            EngineChange::ClearRange(range) if range.is_empty() => {}
            EngineChange::ClearRange(range) => {
                let cleared: Vec<Key> = rows
                    .range(range.begin.clone()..range.end.clone())
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in cleared {
                    replaced(&key, rows.remove(&key));
                }
            }
            EngineChange::Clear(key) => replaced(key, rows.remove(key)),
            EngineChange::Set(row) => {
                let value = row.value.clone();
                let versioned = VersionedValue { value, commit_version: row.commit_version };
                replaced(&row.key, rows.insert(row.key.clone(), versioned));
            }
        }
    }
}

struct MemoryCursor {
    rows: Result<Rows>,
    deleted: Arc<BTreeSet<Key>>,
    /// What is left to be returned.
    rest: KeyRange,
    reverse: bool,
}

impl Cursor for MemoryCursor {
    fn next(&mut self) -> Result<Step> {
        let rows = self.rows.as_ref().map_err(Clone::clone)?;
        if self.rest.is_empty() {
            return Ok(Step::End);
        }
        let bounds = (Bound::Included(&self.rest.begin), Bound::Excluded(&self.rest.end));
        let mut rest = rows.range::<Key, _>(bounds);
        let next = if self.reverse { rest.next_back() } else { rest.next() };

        let on_the_way = |key: &Key| {
            next.is_none_or(|(row, _)| if self.reverse { key > row } else { key < row })
        };
        let mut deleted = self.deleted.range::<Key, _>(bounds);
        let mut passed = 0;
        while let Some(key) = if self.reverse { deleted.next_back() } else { deleted.next() }
            && on_the_way(key)
        {
            if passed == DELETED_AT_ONCE {
                let to = if self.reverse { key.successor() } else { key.clone() };
                let side = if self.reverse { &mut self.rest.end } else { &mut self.rest.begin };
                side.clone_from(&to);
                return Ok(Step::Passed { to, looked_at: passed });
            }
            passed += 1;
        }

        let Some((key, VersionedValue { value, commit_version })) = next else {
            self.rest.begin = self.rest.end.clone();
            return Ok(Step::End);
        };
        if passed > 0 {
            // The row comes with the next step.
            let to = if self.reverse { key.successor() } else { key.clone() };
            let side = if self.reverse { &mut self.rest.end } else { &mut self.rest.begin };
            side.clone_from(&to);
            return Ok(Step::Passed { to, looked_at: passed });
        }
        let row = Row { key: key.clone(), value: value.clone(), commit_version: *commit_version };
        if self.reverse {
            self.rest.end = row.key.clone();
        } else {
            self.rest.begin = row.key.successor();
        }
        Ok(Step::Row { row, looked_at: 1 })
    }

    fn skip_to(&mut self, key: &Key) {
        if self.reverse && *key < self.rest.end {
            self.rest.end = key.clone();
        } else if !self.reverse && *key > self.rest.begin {
            self.rest.begin = key.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    #[test]
    fn keeps_the_contract_of_engines() {
        let storage = MemoryStorage::new();
        suite::check_engine(|| Box::new(storage.open()));
    }

    #[test]
    fn a_crash_leaves_a_write_whole_or_absent() {
        for (point, ingests_survive, survives) in [
            (CrashPoint::BeforeIngests, false, false),
            (CrashPoint::BeforeWrite, true, false),
            (CrashPoint::AfterWrite, true, true),
        ] {
            let storage = MemoryStorage::new();
            let engine = storage.open();
            storage.crash_at_next_write(point);
            let changes = vec![EngineChange::Set(suite::row("k", "v", 7))];
            let attachment = Some(Bytes::from_static(b"8"));
            let batch = EngineBatch { version: Version(8), changes, attachment };
            engine.ingest(&[EngineChange::Set(suite::row("i", "v", 7))]).unwrap();
            assert_eq!(engine.write(&batch).unwrap_err().code(), ErrorCode::Disk);
            assert_eq!(
                engine.get(b"k").unwrap_err().code(),
                ErrorCode::Disk,
                "the process is dead"
            );

            let reopened = storage.open();
            assert_eq!(reopened.version(), Version(if survives { 8 } else { 0 }));
            assert_eq!(reopened.get(b"k").unwrap().is_some(), survives);
            assert_eq!(reopened.get(b"i").unwrap().is_some(), ingests_survive);
            assert_eq!(reopened.attachment().unwrap().is_some(), survives);
            reopened.write(&batch).unwrap();
        }
    }

    #[test]
    fn ingests_are_lost_or_kept_until_a_write() {
        let storage = MemoryStorage::new();
        let engine = storage.open();
        let set = |value| EngineChange::Set(suite::row("k", value, 7));
        engine.ingest(&[set("1"), set("2")]).unwrap();
        engine.write(&EngineBatch::default()).unwrap();
        engine.ingest(&[EngineChange::Clear("k".into()), set("3"), set("4")]).unwrap();
        storage.crash_losing_ingests();
        let engine = storage.open();
        assert_eq!(engine.get(b"k").unwrap().map(|found| found.value), Some("2".into()));
        engine.ingest(&[EngineChange::ClearRange(KeyRange::new("a", "z"))]).unwrap();
        storage.crash();
        assert_eq!(storage.open().get(b"k").unwrap(), None);
    }

    #[test]
    fn a_reset_is_whole_or_absent() {
        for (point, done) in [(CrashPoint::BeforeWrite, false), (CrashPoint::AfterWrite, true)] {
            let storage = MemoryStorage::new();
            let engine = storage.open();
            let changes = vec![EngineChange::Set(suite::row("k", "v", 7))];
            engine.write(&EngineBatch { version: Version(8), changes, attachment: None }).unwrap();
            storage.crash_at_next_write(point);
            engine.reset(Version(3), None).unwrap_err();
            let engine = storage.open();
            assert_eq!(engine.version(), Version(if done { 3 } else { 8 }));
            assert_eq!(engine.get(b"k").unwrap().is_none(), done);
        }
    }

    #[test]
    fn a_dead_process_writes_nothing() {
        let storage = MemoryStorage::new();
        let dead = storage.open();
        let alive = storage.open();
        assert_eq!(dead.write(&EngineBatch::default()).unwrap_err().code(), ErrorCode::Disk);
        storage.crash();
        assert_eq!(alive.write(&EngineBatch::default()).unwrap_err().code(), ErrorCode::Disk);
    }
}
