//! Watches, as clients see them: what is told, when, and what survives a rollback.

use ferrisdb_core::{
    digest::ValueDigest,
    service::{
        Client,
        storage::{StorageService, WatchChanges, WatchEnd, WatchNews, WatchSessionId, Watched},
    },
};

use super::*;

const SESSION: WatchSessionId = WatchSessionId(7);

impl World {
    fn storage(&self) -> &Client<StorageService> {
        self.client.as_ref().expect("the server was opened")
    }

    async fn watch(&self, watches: &[(u64, &str, Option<&str>, u64)]) -> Result<(), ErrorCode> {
        let watched = |&(number, key, known, version): &(u64, &str, Option<&str>, u64)| Watched {
            number,
            key: key.into(),
            known: known.map(|value| ValueDigest::of(value.as_bytes())),
            known_version: Version(version),
        };
        let begin = watches.iter().map(watched).collect();
        let changes = WatchChanges { session: SESSION, begins_session: true, begin, end: vec![] };
        let answer = self.storage().change_watches(context::current(), changes).await.unwrap();
        answer.map_err(|error| error.code())
    }

    async fn news(&self, wait_ms: u32) -> Result<WatchNews, ErrorCode> {
        let answer = self.storage().watch_news(context::current(), SESSION, wait_ms).await;
        answer.unwrap().map_err(|error| error.code())
    }

    async fn ended(&self) -> Vec<(u64, WatchEnd)> {
        self.news(5_000).await.unwrap().ended
    }
}

fn changed(version: u64) -> WatchEnd {
    WatchEnd::Changed(Version(version))
}

#[tokio::test]
async fn a_change_is_told_when_it_is_applied() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let _server = world.open().await;
    assert_eq!(world.news(0).await, Err(ErrorCode::NoSuchEndpoint), "nobody has begun");
    log.put(10, &[set("a", "1"), set("b", "1"), set("c", "1")]);
    assert_eq!(world.get("a", 10).await, found("1", 10));
    world
        .watch(&[(1, "a", Some("1"), 10), (2, "b", None, 10), (3, "c", Some("2"), 30)])
        .await
        .unwrap();
    assert_eq!(world.ended().await, [(2, changed(10))], "that was known when it began");
    let news = world.news(20).await.unwrap();
    assert_eq!((news.ended, news.applied_version), (vec![], Version(10)));

    log.put(20, &[set("a", "1"), set("c", "0")]);
    log.put(30, &[set("c", "2")]);
    assert_eq!(world.get("a", 30).await, found("1", 20));
    assert_eq!(
        world.news(20).await.unwrap().ended,
        [],
        "the same value, and one that was not known yet"
    );
    log.put(40, &[Mutation::ClearRange { range: KeyRange::new("a", "d") }]);
    assert_eq!(world.ended().await, [(1, changed(40)), (3, changed(40))]);
    // What the engine has is compared as well.
    log.put(200, &[]);
    log.commit(200);
    until("the window is empty", async || world.storage.version() == Version(100)).await;
    world.watch(&[(4, "a", None, 40), (5, "b", Some("1"), 40)]).await.unwrap();
    assert_eq!(world.ended().await, [(5, changed(200))]);
}

#[tokio::test]
async fn whoever_holds_the_key_no_more_says_so() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let server = world.open().await;
    until("it is a member", async || world.get("a", 1).await == Ok(None)).await;
    world.watch(&[(1, "a", None, 1), (2, "m", None, 1), (3, "l", None, 1)]).await.unwrap();
    assert_eq!(world.ended().await, [(2, WatchEnd::WrongShard)]);
    log.put_change(20, "", "g", ShardRole::Absent);
    assert_eq!(world.ended().await, [(1, WatchEnd::WrongShard)]);
    // Who waits hears that the server ends.
    let news = world.storage().watch_news(context::current(), SESSION, 30_000);
    let (waiting, ()) = futures::future::join(news, async {
        runtime::sleep(Duration::from_millis(20)).await;
        server.shut_down().await;
    })
    .await;
    assert!(!matches!(waiting, Ok(Ok(_))), "by an error, or by the end of the connection");
}

#[tokio::test]
async fn a_rollback_is_looked_through() {
    let mut world = World::new();
    let [log, _] = world.add_generation(1, 0);
    let _server = world.open().await;
    log.put(10, &[set("a", "1"), set("b", "1")]);
    log.put(50, &[set("a", "2")]);
    // Never acknowledged: its generation ends at 50.
    log.put(57, &[set("a", "1"), set("b", "2")]);
    assert_eq!(world.get("a", 57).await, found("1", 57));
    world.watch(&[(1, "a", Some("1"), 10), (2, "b", Some("1"), 10)]).await.unwrap();
    assert_eq!(world.ended().await, [(2, changed(57))], "its client will find that it is not so");
    world.add_generation(2, 50);
    assert_eq!(world.ended().await, [(1, changed(50))], "it has changed, and stays so");
}

#[tokio::test]
async fn requests_are_bounded() {
    let mut world = World::new();
    world.add_generation(1, 0);
    let _server = world.open().await;
    let many = vec![(1, "a", None, 1); ferrisdb_core::limits::WATCHES_PER_REQUEST_MAX + 1];
    assert_eq!(world.watch(&many).await, Err(ErrorCode::Protocol));
    let long = "k".repeat(ferrisdb_core::limits::KEY_BYTES_MAX + 1);
    assert_eq!(world.watch(&[(1, &long, None, 1)]).await, Err(ErrorCode::KeyTooLarge));
}
