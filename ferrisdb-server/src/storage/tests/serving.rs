//! Reads, restarts, recoveries.

use ferrisdb_core::atomic::AtomicOp;

use super::*;
use crate::storage::engine::{Engine as _, memory::CrashPoint};

#[tokio::test]
async fn reads_find_their_version_in_window_and_engine() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let server = world.open().await;
    log.put(10, &[set("a", "1"), set("b", "1")]);
    log.put(150, &[set("a", "2"), Mutation::Clear { key: "b".into() }]);
    // A read of a version that comes later waits for it.
    assert_eq!(world.get("a", 150).await, found("2", 150));
    assert_eq!(world.get("a", 149).await, found("1", 10));
    assert_eq!(world.get("b", 150).await, Ok(None));
    assert_eq!(server.progress().durable_version, Version(0), "nothing is known to be committed");

    log.commit(150);
    let engine = || world.storage.version();
    until("the engine follows", async || engine() == Version(50)).await;
    until("the log is told", async || log.popped() == Version(50)).await;
    assert_eq!(world.get("a", 49).await, Err(ErrorCode::TransactionTooOld));
    assert_eq!(world.get("a", 60).await, found("1", 10), "out of the engine");
    assert_eq!(world.get("b", 60).await, found("1", 10));
    let rows = world.get_range("", "g", 100).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.commit_version.0).collect::<Vec<_>>(), [10, 10]);
    assert_eq!(world.get_range("", "g", 150).await.unwrap().rows.len(), 1);
    assert_eq!(world.get_range("", "g", 40).await, Err(ErrorCode::TransactionTooOld));
}

#[tokio::test]
async fn atomic_operations_find_what_the_engine_has() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let _server = world.open().await;
    let add = |n: u8| Mutation::Atomic {
        key: "count".into(),
        op: AtomicOp::Add,
        operand: Value::from(&[n]),
    };
    log.put(10, &[add(b'A')]);
    log.put(200, &[]);
    log.commit(200);
    until("the engine has it", async || world.storage.version() == Version(100)).await;
    assert_eq!(world.get("count", 200).await, found("A", 10));
    log.put(210, &[add(1), add(1)]);
    assert_eq!(world.get("count", 210).await, found("C", 210));
    assert_eq!(world.get("count", 209).await, found("A", 10));
}

#[tokio::test]
async fn keys_of_other_servers_are_refused() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let _server = world.open().await;
    assert_eq!(world.get("m", 1).await, Err(ErrorCode::WrongShard));
    assert_eq!(world.get("l", 1).await, Ok(None));
    assert_eq!(world.get_range("l", "n", 1).await, Err(ErrorCode::WrongShard));
    assert_eq!(world.get_range("l", "b", 1).await, Err(ErrorCode::InvertedRange));
    assert_eq!(world.get("l", 0).await, Err(ErrorCode::TransactionTooOld), "not at 0 yet");

    // A part moves away at 20.
    log.put(10, &[set("a", "1"), set("l", "1")]);
    log.put_change(20, "", "g", ShardRole::Absent);
    assert_eq!(world.get("a", 20).await, Err(ErrorCode::WrongShard));
    assert_eq!(world.get_range("a", "h", 20).await, Err(ErrorCode::WrongShard), "half of it");
    assert_eq!(world.get("l", 20).await, found("1", 10));
    assert_eq!(world.get("a", 19).await, found("1", 10), "it was here then");
    assert_eq!(world.get_range("a", "z", 19).await, Err(ErrorCode::WrongShard));
    assert_eq!(world.get_range("a", "m", 19).await.unwrap().rows.len(), 2);
    // What is left is forgotten on disk as well.
    log.put(200, &[]);
    log.commit(200);
    until("the engine is past that", async || world.storage.version() == Version(100)).await;
    assert_eq!(world.storage.open().get(b"a").unwrap(), None);
}

#[tokio::test]
async fn a_version_that_does_not_come_is_in_the_future() {
    let mut world = World::new();
    world.settings.future_version_wait = Duration::from_millis(5);
    let [log, _] = world.add_generation(1, 0);
    let _server = world.open().await;
    log.put(10, &[set("a", "1")]);
    assert_eq!(world.get("a", 11).await, Err(ErrorCode::FutureVersion));
    assert_eq!(world.get_range("a", "b", 11).await, Err(ErrorCode::FutureVersion));
    until("it is applied", async || world.get("a", 10).await == found("1", 10)).await;
}

#[tokio::test]
async fn another_log_answers_when_one_is_broken() {
    let mut world = World::new();
    let [first, second] = world.add_generation(1, 0);
    first.change(|log| log.broken = true);
    second.put(10, &[set("a", "1")]);
    let _server = world.open().await;
    assert_eq!(world.get("a", 10).await, found("1", 10));
    first.put(20, &[set("a", "2")]);
    first.change(|log| log.broken = false);
    second.change(|log| log.broken = true);
    assert_eq!(world.get("a", 20).await, found("2", 20));
}

#[tokio::test]
async fn a_recovery_takes_back_what_was_never_acknowledged() {
    let mut world = World::new();
    let old = world.add_generation(1, 0);
    let server = world.open().await;
    for log in &old {
        log.put(10, &[set("a", "kept")]);
        log.commit(10);
        log.put(17, &[set("a", "lost"), set("b", "lost")]);
    }
    assert_eq!(world.get("b", 17).await, found("lost", 17));
    old.iter().for_each(|log| log.change(|log| log.locked = true));
    let new = world.add_generation(2, 12);
    until("it is rolled back", async || server.progress().version == Version(12)).await;
    assert_eq!(world.get("a", 12).await, found("kept", 10));
    assert_eq!(world.get("b", 12).await, Ok(None));
    for log in &new {
        log.put(1_012, &[set("c", "new")]);
        log.commit(1_012);
    }
    assert_eq!(world.get("c", 1_012).await, found("new", 1_012));
    assert_eq!(world.get("a", 1_012).await, found("kept", 10));
    until("the old logs are drained", async || old.iter().all(|log| log.popped() >= Version(12)))
        .await;
}

#[tokio::test]
async fn a_restart_goes_on_where_the_engine_is() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let server = world.open().await;
    log.put(10, &[set("a", "1")]);
    log.put(150, &[set("a", "2"), set("b", "2")]);
    log.commit(150);
    until("the log is told", async || log.popped() == Version(50)).await;
    // What the engine has is not needed from the log any more.
    log.change(|log| drop(log.messages.remove(&Version(10))));
    server.shut_down().await;
    drop(server);
    let _server = world.open().await;
    assert_eq!(world.get("a", 150).await, found("2", 150));
    assert_eq!(world.get("a", 100).await, found("1", 10));
}

#[tokio::test]
async fn a_crash_in_a_write_loses_nothing() {
    for point in [CrashPoint::BeforeWrite, CrashPoint::AfterWrite] {
        let mut world = World::new();
        let [log, _] = world.add_generation(1, 0);
        let server = world.open().await;
        world.storage.crash_at_next_write(point);
        log.put(10, &[set("a", "1")]);
        log.put(150, &[set("b", "2")]);
        log.commit(150);
        // An engine that fails is not served from: not a key, although the window has some.
        until("the server stops", async || server.failure().is_some()).await;
        assert_eq!(world.get("b", 150).await, Err(ErrorCode::Disk));
        assert_eq!(world.get_range("a", "c", 150).await, Err(ErrorCode::Disk));
        assert_eq!(log.popped(), Version(0));
        drop(server);
        let _server = world.open().await;
        assert_eq!(world.get("a", 150).await, found("1", 10));
        assert_eq!(world.get("b", 150).await, found("2", 150));
    }
}

#[tokio::test]
async fn messages_that_make_no_sense_stop_the_server() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let server = world.open().await;
    log.change(|log| {
        log.messages.insert(Version(10), Bytes::from_static(b"\x63"));
        log.through = Version(10);
    });
    assert_eq!(world.get("a", 10).await, Err(ErrorCode::Corrupt));
    assert!(server.trouble().unwrap().contains("the messages of version 10"));
    assert_eq!(server.failure().map(|error| error.code()), Some(ErrorCode::Corrupt));
}

#[tokio::test]
async fn a_full_window_shrinks_and_then_waits() {
    let mut world = World::new();
    world.settings.window_bytes_max = 1;
    let [log, _] = world.add_generation(1, 0);
    let server = world.open().await;
    log.put(10, &[set("a", "1")]);
    until("it is applied", async || server.progress().version == Version(10)).await;
    log.put(20, &[set("a", "2")]);
    assert_eq!(world.storage.version(), Version(0), "10 is not committed");
    drop(server);

    let server = world.open().await;
    log.commit(20);
    assert_eq!(world.get("a", 20).await, found("2", 20));
    until("all is written", async || world.storage.version() == Version(20)).await;
    until("the window is empty", async || server.progress().bytes < 1).await;
}

#[tokio::test]
async fn a_full_window_waits_for_no_timer() {
    let mut world = World::new();
    world.settings.flush_interval = Duration::from_secs(3_600);
    world.settings.window_bytes_max = 10_000;
    world.settings.flush_bytes = 1_000;
    let [log, _] = world.add_generation(1, 0);
    let server = world.open().await;
    // Long idle, and then much at once: half of the versions is nothing.
    log.commit(1_000_000_000);
    let value = "v".repeat(1_000);
    for version in (1_000_000_001..).take(50) {
        log.put(version, &[set("a", &value)]);
        log.commit(version);
        let is_applied = async || server.progress().version == Version(version);
        until("the burst is applied", is_applied).await;
    }
    assert!(world.storage.version() > Version(1_000_000_001));
    assert!(server.progress().bytes <= 12_000, "{:?}", server.progress());
    assert_eq!(world.get("a", 1_000_000_050).await, found(&value, 1_000_000_050));
}

#[tokio::test]
async fn a_batch_is_answered_read_by_read() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let _server = world.open().await;
    log.put(10, &[set("a", "1")]);
    let read = |key: &str, version| PointRead { key: key.into(), read_version: Version(version) };
    let reads = vec![read("a", 10), read("x", 10), read("b", 5)];
    let client = world.client.as_ref().unwrap();
    let answers = client.get(context::current(), reads).await.unwrap();
    let codes: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().err().map(Error::code)).collect();
    assert_eq!(codes, [None, Some(ErrorCode::WrongShard), None]);
    let value = answers[0].as_ref().unwrap().as_ref().map(|found| found.value.clone());
    assert_eq!(value, Some("1".into()));
}
