//! The engines of a node: in memory, on the node's disk, and as bad as that is.
//!
//! A write is durable when it returns. Of what was ingested since the last write, a power failure leaves the first so
//! many: the engine's log of changes is cut somewhere, and never has a hole. A write that fails was done or not; after
//! it the engine takes no more until it is opened again, as RocksDB does. Each row that is looked at takes time, of everybody's
//! if others have to wait for who looks: see `runtime::work`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Version, runtime,
    service::storage::VersionedValue,
};
use ferrisdb_server::{
    host::EngineFactory,
    storage::engine::{
        Cursor, Engine, EngineBatch, EngineChange, Reserve, Step,
        memory::{MemoryEngine, MemoryStorage},
    },
};
use madsim::task::NodeId;
use parking_lot::Mutex;

use super::{
    chance,
    condition::{Condition, Kind, input_output_error},
};

/// How long it takes to look at a row, whether it is deleted or not.
const ROW_TIME: Duration = Duration::from_micros(2);

thread_local! {
    /// The disks under the engines of all nodes, so that tasks that block know how long.
    static CONDITIONS: RefCell<BTreeMap<NodeId, Condition>> =
        const { RefCell::new(BTreeMap::new()) };
}

/// What an engine has on disk.
#[derive(Clone, Default)]
struct Store {
    storage: MemoryStorage,
    /// Rows whose blocks have lost a bit.
    damaged: Arc<Mutex<BTreeSet<Key>>>,
}

impl Store {
    /// Another disk, with the same on it.
    fn copy(&self) -> Store {
        let damaged = Arc::new(Mutex::new(self.damaged.lock().clone()));
        Store { storage: self.storage.copy(), damaged }
    }
}

/// What all engines of a node have on disk, by directory.
#[derive(Default)]
pub(super) struct EngineImage(BTreeMap<PathBuf, Store>);

impl EngineImage {
    fn copy(&self) -> EngineImage {
        let stores = self.0.iter();
        EngineImage(stores.map(|(path, store)| (path.clone(), store.copy())).collect())
    }
}

/// The engines on a disk. Clones are the same ones.
#[derive(Clone)]
pub struct SimulatedEngines {
    image: Arc<Mutex<EngineImage>>,
    condition: Condition,
}

impl SimulatedEngines {
    pub(super) fn new(condition: Condition) -> SimulatedEngines {
        SimulatedEngines { image: Arc::default(), condition }
    }

    /// The process dies, and what it had written stays.
    pub(super) fn crash_process(&self) {
        self.image.lock().0.values().for_each(|store| store.storage.crash());
    }

    /// The power fails: of what was not synced, the beginning may stay.
    pub(super) fn power_failure(&self) {
        for Store { storage, .. } in self.image.lock().0.values() {
            storage.crash_keeping_ingests(chance::below(storage.unsynced_ingests() + 1));
        }
    }

    pub(super) fn image(&self) -> EngineImage {
        self.image.lock().copy()
    }

    /// Other engines in the place of these, which are cut off.
    pub(super) fn replace(&self, image: &EngineImage) {
        let before = std::mem::replace(&mut *self.image.lock(), image.copy());
        before.0.values().for_each(|store| store.storage.crash());
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.image.lock().0.values().map(|store| store.storage.used_bytes()).sum()
    }

    /// Damages a row, and says which.
    pub(super) fn damage_row(&self) -> Option<String> {
        let image = self.image.lock();
        let (path, store) = image.0.iter().nth(chance::below(image.0.len()))?;
        let keys = store.storage.keys();
        let key = keys.get(chance::below(keys.len()))?;
        store.damaged.lock().insert(key.clone());
        Some(format!("the row {key} in {}", path.display()))
    }
}

impl EngineFactory for SimulatedEngines {
    fn open(&self, directory: &Path) -> Result<Arc<dyn Engine>> {
        CONDITIONS.with_borrow_mut(|conditions| {
            conditions.insert(madsim::plugin::node(), self.condition.clone());
        });
        runtime::wait_in_blocking(|| {
            let node = madsim::plugin::node();
            let condition = CONDITIONS.with_borrow(|known| known.get(&node).cloned())?;
            let half = condition.latency(Kind::Sync).mul_f64(0.5);
            let wait = |condition: Condition| -> futures::future::BoxFuture<'static, ()> {
                Box::pin(async move { condition.pass(half).await })
            };
            Some([wait(condition.clone()), wait(condition)])
        });
        if self.condition.fails(Kind::Read) {
            return Err(input_output_error(&format!("open {}", directory.display())));
        }
        let store = self.image.lock().0.entry(directory.to_owned()).or_default().clone();
        Ok(Arc::new(FaultyEngine {
            inner: store.storage.open(),
            store,
            engines: self.clone(),
            failure: Mutex::default(),
            is_stuck: AtomicBool::new(false),
        }))
    }
}

/// An engine in memory, on a disk that can fail.
pub struct FaultyEngine {
    inner: MemoryEngine,
    store: Store,
    engines: SimulatedEngines,
    /// Why it takes no more writes.
    failure: Mutex<Option<Error>>,
    /// A write has met a full disk: as RocksDB does, it takes no more of them, until it is opened anew.
    is_stuck: AtomicBool,
}

impl FaultyEngine {
    /// Does a change, or fails: having done it or not. One that frees space finds a little of it.
    fn change(&self, what: &str, left: Reserve, change: impl FnOnce() -> Result<()>) -> Result<()> {
        if let Some(error) = self.failure.lock().clone() {
            return Err(error);
        }
        let condition = &self.engines.condition;
        let space = self.check_space_for(what, left);
        let was_stuck = self.is_stuck.fetch_or(space.is_err(), Ordering::Relaxed);
        space?;
        if was_stuck {
            let detail = format!("{what}: the engine takes no more since its disk was full");
            return Err(Error::new(ErrorCode::DiskFull, Stage::Apply, detail));
        }
        let failed = match () {
            () if condition.fails(Kind::Write) => Some(input_output_error(what)),
            () if condition.fails(Kind::Sync) => {
                if chance::below(2) == 0 {
                    change()?;
                }
                Some(input_output_error(what))
            }
            () => return change(),
        };
        failed.map_or(Ok(()), |error| {
            *self.failure.lock() = Some(error.clone());
            Err(error)
        })
    }

    fn check_space_for(&self, what: &str, left: Reserve) -> Result<()> {
        let more_bytes = match left {
            Reserve::All => 1,
            Reserve::Half | Reserve::Quarter => 0,
        };
        self.engines.condition.check_space(what, self.engines.used_bytes(), more_bytes)
    }

    fn check_read(&self, what: &str) -> Result<()> {
        if self.engines.condition.fails(Kind::Read) {
            return Err(input_output_error(what));
        }
        Ok(())
    }
}

fn damaged(key: &[u8]) -> Error {
    let detail = format!("the block of {} has a wrong checksum", Key::from(key));
    Error::new(ErrorCode::Corrupt, Stage::Apply, detail)
}

impl Engine for FaultyEngine {
    fn version(&self) -> Version {
        self.inner.version()
    }

    fn get(&self, key: &[u8]) -> Result<Option<VersionedValue>> {
        self.check_read("get from the engine")?;
        if self.store.damaged.lock().contains(key) {
            return Err(damaged(key));
        }
        runtime::work(ROW_TIME);
        self.inner.get(key)
    }

    fn cursor<'a>(&'a self, range: &KeyRange, reverse: bool) -> Box<dyn Cursor + 'a> {
        let failure = self.check_read("iterate over the engine").err();
        let inner = self.inner.cursor(range, reverse);
        Box::new(FaultyCursor { inner, failure, damaged: self.store.damaged.lock().clone() })
    }

    fn sample(&self, range: &KeyRange, keys_max: usize) -> Vec<(Key, u64)> {
        self.inner.sample(range, keys_max)
    }

    fn check_space(&self, left: Reserve) -> Result<()> {
        // Somebody else may take what has just been there.
        let checked = self.check_space_for("look for space", left);
        if checked.is_err() && chance::below(4) == 0 { Ok(()) } else { checked }
    }

    fn needs_reopening(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    fn write(&self, batch: &EngineBatch) -> Result<()> {
        self.change("write to the engine", Reserve::left_by(&batch.changes), || {
            self.inner.write(batch)
        })
    }

    fn ingest(&self, changes: &[EngineChange]) -> Result<()> {
        self.change("ingest into the engine", Reserve::left_by(changes), || {
            self.inner.ingest(changes)
        })
    }

    fn attachment(&self) -> Result<Option<Bytes>> {
        self.check_read("read the engine's attachment")?;
        self.inner.attachment()
    }

    fn reset(&self, version: Version, attachment: Option<&Bytes>) -> Result<()> {
        self.change("reset the engine", Reserve::Quarter, || {
            self.inner.reset(version, attachment)?;
            // All blocks are new ones.
            self.store.damaged.lock().clear();
            Ok(())
        })
    }
}

struct FaultyCursor<'a> {
    inner: Box<dyn Cursor + 'a>,
    failure: Option<Error>,
    damaged: BTreeSet<Key>,
}

impl Cursor for FaultyCursor<'_> {
    fn next(&mut self) -> Result<Step> {
        if let Some(error) = self.failure.clone() {
            return Err(error);
        }
        let next = self.inner.next()?;
        let looked_at = match &next {
            Step::Row { looked_at, .. } | Step::Passed { looked_at, .. } => *looked_at as u32,
            Step::End => 1,
        };
        runtime::work(ROW_TIME * looked_at);
        match next {
            Step::Row { row, .. } if self.damaged.contains(&row.key) => Err(damaged(&row.key)),
            next => Ok(next),
        }
    }

    fn skip_to(&mut self, key: &Key) {
        self.inner.skip_to(key);
    }
}
