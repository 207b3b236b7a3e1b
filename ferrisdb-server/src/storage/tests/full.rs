//! A server whose disk is full.

use ferrisdb_core::Key;

use super::*;

/// A server without a window whose engine has `written`, as version 10, and is full since: `waiting`, version 20, has no space.
async fn fill(written: &[Mutation], waiting: &[Mutation]) -> (World, FakeLog, StorageServer) {
    let mut world = World::new();
    world.settings.window_versions = 0;
    let [log, _] = world.add_generation(1, 0);
    let server = world.open().await;
    log.put(10, written);
    log.commit(10);
    until("it is written", async || world.storage.version() == Version(10)).await;
    world.storage.set_full(true);
    log.put(20, waiting);
    log.commit(20);
    until("it says that it is full", async || server.trouble().is_some()).await;
    (world, log, server)
}

#[tokio::test]
async fn a_full_engine_still_takes_what_frees_space() {
    let (world, log, server) = fill(&[set("a", "1"), set("b", "1")], &[set("c", "2")]).await;
    assert_eq!(world.storage.version(), Version(10), "a set has to wait");
    log.put(30, &[Mutation::ClearRange { range: KeyRange::new("a", "c") }]);
    log.commit(30);
    until("the clear is written", async || world.storage.version() == Version(30)).await;
    assert_eq!(world.storage.keys(), [Key::from("c")]);
    assert!(server.trouble().is_some(), "it has no space for more");
    world.storage.set_full(false);
    log.put(40, &[set("d", "4")]);
    log.commit(40);
    until("it is written", async || world.storage.version() == Version(40)).await;
    until("it has space again", async || server.trouble().is_none()).await;
}

#[tokio::test]
async fn a_full_engine_says_so_while_everything_that_comes_clears_something() {
    let mut world = World::new();
    world.settings.window_versions = 0;
    let [log, _] = world.add_generation(1, 0);
    let server = world.open().await;
    world.storage.set_full(true);
    let range = KeyRange::new("a", "b");
    log.put(10, &[Mutation::ClearRange { range }, set("b", "1")]);
    log.commit(10);
    until("it is written", async || world.storage.version() == Version(10)).await;
    until("it says that it is full", async || server.trouble().is_some()).await;
    world.storage.set_full(false);
    until("it has space again", async || server.trouble().is_none()).await;
}

#[tokio::test]
async fn a_full_engine_can_begin_anew() {
    let (world, _log, server) = fill(&[set("a", "1")], &[set("a", "2")]).await;
    world.change(|state| state.storage_servers.clear());
    until("it has no tag", async || server.report().tag.is_none()).await;
    until("it is empty", async || world.storage.keys().is_empty()).await;
    assert!(server.trouble().is_some(), "it has no space for more");
    world.storage.set_full(false);
    until("it has space again", async || server.trouble().is_none()).await;
}
