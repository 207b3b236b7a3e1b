//! Readers, the applying of versions and flushes on threads of their own, as fast as they can.
//!
//! ```text
//!   version   k0     k1     k2     k3          what a key has at a version follows from both numbers alone,
//!     30      30     .      clear  .           so every answer can be judged by itself
//!     40      40     40     .      clear
//! ```
//!
//! The simulation has one thread; what threads do to each other between two locks of the read path shows here.
//! Flushes follow closely behind what is applied, so most reads meet one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ferrisdb_core::service::storage::Row;

use super::*;
use crate::storage::engine::{Cursor, Engine, EngineBatch, EngineChange};

/// Keys, of which every version changes some.
const KEYS: u64 = 12;
/// How far versions are apart.
const STEP: u64 = 10;
/// How many versions are put in.
const VERSIONS: u64 = 3_000;
/// How many readers there are, each asking again at once.
const READERS: u64 = 3;

fn key(number: u64) -> String {
    format!("k/{number:02}")
}

/// What a version does to a key: nothing, a clear, or the version as its value.
fn change(number: u64, version: u64) -> Option<Option<String>> {
    let turn = version / STEP;
    match (turn * 7 + number * 5) % 11 {
        0 => Some(None),
        1..=4 => Some(Some(version.to_string())),
        _ => None,
    }
}

/// What a key has at a version, and since when.
fn expected(number: u64, version: u64) -> Option<(String, u64)> {
    let versions = (1..=version / STEP).rev().map(|turn| turn * STEP);
    let (at, changed) =
        versions.filter_map(|at| change(number, at).map(|changed| (at, changed))).next()?;
    changed.map(|value| (value, at))
}

fn mutations(version: u64) -> Vec<Mutation> {
    let of_key = |number| {
        let key = key(number);
        change(number, version).map(|changed| match changed {
            Some(value) => set(&key, &value),
            // Both ways to clear a key.
            None if version.is_multiple_of(3) => Mutation::Clear { key: key.as_str().into() },
            None => Mutation::ClearRange { range: KeyRange::single(&key.as_str().into()) },
        })
    };
    (0..KEYS).filter_map(of_key).collect()
}

/// Asks for keys and ranges at versions that a flush is about to pass, until told to stop. Returns the first wrong answer.
fn read_until(
    client: &Client<StorageService>,
    applied: &AtomicU64,
    stopped: &AtomicBool,
    runtime: &tokio::runtime::Handle,
) -> Result<u64, String> {
    let mut answered = 0;
    while !stopped.load(Ordering::Acquire) {
        let newest = applied.load(Ordering::Acquire) / STEP;
        let back = runtime::random_u64() % 14;
        let version = STEP * newest.saturating_sub(back).max(1);
        if runtime::random_u64().is_multiple_of(4) {
            let request = RangeRead {
                range: KeyRange::new("k/", "k0"),
                read_version: Version(version),
                rows_max: 100,
                bytes_max: 100_000,
                reverse: runtime::random_u64().is_multiple_of(2),
            };
            let reverse = request.reverse;
            let reply = runtime.block_on(client.get_range(context::current(), request)).unwrap();
            let Ok(reply) = reply.map_err(too_old) else { continue };
            let mut found: Vec<(String, String, u64)> = reply.rows.iter().map(text).collect();
            if reverse {
                found.reverse();
            }
            let right: Vec<_> = (0..KEYS)
                .filter_map(|n| expected(n, version).map(|(value, at)| (key(n), value, at)))
                .collect();
            if found != right {
                return Err(format!("all keys at {version}: {found:?}, expected {right:?}"));
            }
        } else {
            let number = runtime::random_u64() % KEYS;
            let read = PointRead { key: key(number).into(), read_version: Version(version) };
            let mut answers = runtime.block_on(client.get(context::current(), vec![read])).unwrap();
            let Ok(found) = answers.remove(0).map_err(too_old) else { continue };
            let found = found.map(|found| {
                (String::from_utf8_lossy(&found.value).into_owned(), found.commit_version.0)
            });
            let right = expected(number, version);
            if found != right {
                return Err(format!("{} at {version}: {found:?}, expected {right:?}", key(number)));
            }
        }
        answered += 1;
    }
    Ok(answered)
}

fn text(row: &Row) -> (String, String, u64) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&row.key), text(&row.value), row.commit_version.0)
}

/// A flush was faster than the read: that is allowed, and nothing else.
fn too_old(error: Error) {
    assert_eq!(error.code(), ErrorCode::TransactionTooOld, "{error}");
}

/// Runs readers beside the applying and flushing of all versions. Returns how many answers there were, all of them right.
fn stress(engine: impl FnOnce(&World) -> Arc<dyn Engine>) -> Result<u64, String> {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build();
    let threads = threads.unwrap();
    let handle = threads.handle().clone();
    let (world, server, log) = threads.block_on(async {
        let mut world = World::new();
        world.settings.flush_interval = Duration::ZERO;
        let [log, _] = world.add_generation(1, 0);
        let engine = engine(&world);
        let server = world.open_with(engine).await;
        (world, server, log)
    });
    let client = world.client.as_ref().unwrap();
    let (applied, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    let answered = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| read_until(client, &applied, &stopped, &handle)))
            .collect();
        for version in (1..=VERSIONS).map(|turn| turn * STEP) {
            log.put(version, &mutations(version));
            log.commit(version);
            // Not more than a few versions ahead of the server, so that readers ask for what it has.
            while server.progress().version.0 + 3 * STEP < version
                && !stopped.load(Ordering::Acquire)
            {
                std::thread::yield_now();
                if readers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                    stopped.store(true, Ordering::Release);
                }
            }
            applied.store(version, Ordering::Release);
        }
        stopped.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    threads.block_on(server.shut_down());
    answered
}

#[test]
fn readers_on_other_threads_see_their_version_whatever_is_flushed() {
    let answered = stress(|world| Arc::new(world.storage.open())).unwrap();
    assert!(answered > VERSIONS, "only {answered} reads were answered");
}

/// The same engine, but what it reads is one write old.
struct Stale {
    engine: Arc<dyn Engine>,
    last: Mutex<BTreeMap<ferrisdb_core::Key, Option<VersionedValue>>>,
}

impl Engine for Stale {
    fn version(&self) -> Version {
        self.engine.version()
    }

    fn get(&self, key: &[u8]) -> Result<Option<VersionedValue>> {
        let last = self.last.lock().get(key).cloned();
        last.map_or_else(|| self.engine.get(key), Ok)
    }

    fn cursor<'a>(&'a self, range: &KeyRange, reverse: bool) -> Box<dyn Cursor + 'a> {
        self.engine.cursor(range, reverse)
    }

    fn sample(&self, range: &KeyRange, keys_max: usize) -> Vec<(ferrisdb_core::Key, u64)> {
        self.engine.sample(range, keys_max)
    }

    fn write(&self, batch: &EngineBatch) -> Result<()> {
        let mut last = BTreeMap::new();
        for change in &batch.changes {
            if let EngineChange::Set(row) = change {
                last.insert(row.key.clone(), self.engine.get(&row.key)?);
            }
        }
        *self.last.lock() = last;
        self.engine.write(batch)
    }

    fn ingest(&self, changes: &[EngineChange]) -> Result<()> {
        self.engine.ingest(changes)
    }

    fn attachment(&self) -> Result<Option<Bytes>> {
        self.engine.attachment()
    }

    fn reset(&self, version: Version, attachment: Option<&Bytes>) -> Result<()> {
        self.engine.reset(version, attachment)
    }
}

/// The readers would notice: an engine that is one write behind what the window has forgotten is found out.
#[test]
fn readers_find_an_engine_that_is_behind() {
    let stale = |world: &World| -> Arc<dyn Engine> {
        Arc::new(Stale { engine: Arc::new(world.storage.open()), last: Mutex::default() })
    };
    let wrong = stress(stale).unwrap_err();
    assert!(wrong.contains("expected"), "{wrong}");
}
