//! A server whose disk is full.

use ferrisdb_core::Key;

use super::*;
use crate::storage::engine::{Cursor, EngineBatch, EngineChange, Reserve};

/// An engine that has nothing left but a part of its reserve, while it is told so.
struct Full {
    engine: Arc<dyn Engine>,
    is_full: Arc<Mutex<bool>>,
}

impl Engine for Full {
    fn version(&self) -> Version {
        self.engine.version()
    }

    fn get(&self, key: &[u8]) -> Result<Option<VersionedValue>> {
        self.engine.get(key)
    }

    fn cursor<'a>(&'a self, range: &KeyRange, reverse: bool) -> Box<dyn Cursor + 'a> {
        self.engine.cursor(range, reverse)
    }

    fn sample(&self, range: &KeyRange, keys_max: usize) -> Vec<(Key, u64)> {
        self.engine.sample(range, keys_max)
    }

    fn check_space(&self, left: Reserve) -> Result<()> {
        if left == Reserve::All && *self.is_full.lock() {
            return Err(Error::new(ErrorCode::DiskFull, Stage::Process, "no space"));
        }
        Ok(())
    }

    fn write(&self, batch: &EngineBatch) -> Result<()> {
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

/// A server without a window whose engine has `written`, as version 10, and is full since: `waiting`, version 20, has no space.
async fn fill(
    written: &[Mutation],
    waiting: &[Mutation],
) -> (World, FakeLog, StorageServer, Arc<Mutex<bool>>) {
    let mut world = World::new();
    world.settings.window_versions = 0;
    let [log, _] = world.add_generation(1, 0);
    let is_full = Arc::<Mutex<bool>>::default();
    let engine = Full { engine: Arc::new(world.storage.open()), is_full: Arc::clone(&is_full) };
    let server = world.open_with(Arc::new(engine)).await;
    log.put(10, written);
    log.commit(10);
    until("it is written", async || world.storage.version() == Version(10)).await;
    *is_full.lock() = true;
    log.put(20, waiting);
    log.commit(20);
    until("it says that it is full", async || server.trouble().is_some()).await;
    (world, log, server, is_full)
}

#[tokio::test]
async fn a_full_engine_still_takes_what_frees_space() {
    let (world, log, server, is_full) =
        fill(&[set("a", "1"), set("b", "1")], &[set("c", "2")]).await;
    assert_eq!(world.storage.version(), Version(10), "a set has to wait");
    log.put(30, &[Mutation::ClearRange { range: KeyRange::new("a", "c") }]);
    log.commit(30);
    until("the clear is written", async || world.storage.version() == Version(30)).await;
    assert_eq!(world.storage.keys(), [Key::from("c")]);
    assert!(server.trouble().is_some(), "it has no space for more");
    *is_full.lock() = false;
    log.put(40, &[set("d", "4")]);
    log.commit(40);
    until("it is written", async || world.storage.version() == Version(40)).await;
    assert_eq!(server.trouble(), None);
}

#[tokio::test]
async fn a_full_engine_can_begin_anew() {
    let (world, _log, server, is_full) = fill(&[set("a", "1")], &[set("a", "2")]).await;
    world.change(|state| state.storage_servers.clear());
    until("it has no tag", async || server.report().tag.is_none()).await;
    until("it is empty", async || world.storage.keys().is_empty()).await;
    assert!(server.trouble().is_some(), "it has no space for more");
    *is_full.lock() = false;
    until("it has space again", async || server.trouble().is_none()).await;
}
