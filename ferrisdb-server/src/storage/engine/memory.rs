//! The engine of simulations and tests: a map in memory that survives its process, with a crash model.
//!
//! ```text
//!   MemoryStorage   what stays when the process dies: rows, and the version they are the state of
//!        ^
//!   MemoryEngine    one opening of it. A later opening, or a crash, cuts it off: it fails from then on
//! ```
//!
//! A write is durable when it returns, like a synced batch of RocksDB, and is there entirely or not at all.
//! What a crash can do to it is therefore just this: it happens before the write, or after the write but
//! before anybody hears of it ([`CrashPoint`]).
//!
//! No clock, no randomness, no files: the same calls give the same state.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Version,
    service::storage::{Row, VersionedValue},
};
use parking_lot::RwLock;

use super::{Cursor, Engine, EngineBatch, EngineChange};

/// Rows are behind a pointer so that a cursor keeps the ones it began with, at no cost to it.
type Rows = Arc<BTreeMap<Key, VersionedValue>>;

/// When a process dies, relative to the write that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
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
    version: Version,
    /// Which opening may use the disk.
    opening: u64,
    crash_at_next_write: Option<CrashPoint>,
}

impl MemoryStorage {
    /// An empty disk.
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
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

    /// The process dies in its next write.
    pub fn crash_at_next_write(&self, point: CrashPoint) {
        self.0.write().crash_at_next_write = Some(point);
    }

    /// The version that is on disk, whoever has it open.
    pub fn version(&self) -> Version {
        self.0.read().version
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
        Box::new(MemoryCursor { rows: self.rows(), rest: range.clone(), reverse })
    }

    fn write(&self, batch: &EngineBatch) -> Result<()> {
        let mut stored = self.storage.0.write();
        self.check_open(&stored)?;
        let crash = stored.crash_at_next_write.take();
        if crash != Some(CrashPoint::BeforeWrite) {
            assert!(
                batch.version >= stored.version,
                "an engine at {} was to go back to {} (I-9, I-11)",
                stored.version,
                batch.version
            );
            apply(Arc::make_mut(&mut stored.rows), &batch.changes);
            stored.version = batch.version;
        }
        if crash.is_some() {
            stored.opening += 1;
        }
        self.check_open(&stored)
    }
}

fn apply(rows: &mut BTreeMap<Key, VersionedValue>, changes: &[EngineChange]) {
    for change in changes {
        match change {
            EngineChange::ClearRange(range) => {
                if !range.is_empty() {
                    let cleared: Vec<Key> = rows
                        .range(range.begin.clone()..range.end.clone())
                        .map(|(key, _)| key.clone())
                        .collect();
                    for key in cleared {
                        rows.remove(&key);
                    }
                }
            }
            EngineChange::Clear(key) => {
                rows.remove(key);
            }
            EngineChange::Set(row) => {
                let value = row.value.clone();
                let versioned = VersionedValue { value, commit_version: row.commit_version };
                rows.insert(row.key.clone(), versioned);
            }
        }
    }
}

struct MemoryCursor {
    rows: Result<Rows>,
    /// What is left to be returned.
    rest: KeyRange,
    reverse: bool,
}

impl Cursor for MemoryCursor {
    fn next(&mut self) -> Result<Option<Row>> {
        let rows = self.rows.as_ref().map_err(Clone::clone)?;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let bounds = (Bound::Included(&self.rest.begin), Bound::Excluded(&self.rest.end));
        let mut rest = rows.range::<Key, _>(bounds);
        let next = if self.reverse { rest.next_back() } else { rest.next() };
        let Some((key, VersionedValue { value, commit_version })) = next else {
            return Ok(None);
        };
        let row = Row { key: key.clone(), value: value.clone(), commit_version: *commit_version };
        if self.reverse {
            self.rest.end = row.key.clone();
        } else {
            self.rest.begin = row.key.successor();
        }
        Ok(Some(row))
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
        for (point, survives) in [(CrashPoint::BeforeWrite, false), (CrashPoint::AfterWrite, true)]
        {
            let storage = MemoryStorage::new();
            let engine = storage.open();
            storage.crash_at_next_write(point);
            let changes = vec![EngineChange::Set(suite::row("k", "v", 7))];
            let batch = EngineBatch { version: Version(8), changes };
            assert_eq!(engine.write(&batch).unwrap_err().code(), ErrorCode::Disk);
            assert_eq!(
                engine.get(b"k").unwrap_err().code(),
                ErrorCode::Disk,
                "the process is dead"
            );

            let reopened = storage.open();
            assert_eq!(reopened.version(), Version(if survives { 8 } else { 0 }));
            assert_eq!(reopened.get(b"k").unwrap().is_some(), survives);
            reopened.write(&batch).unwrap();
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
