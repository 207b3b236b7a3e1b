//! Shards that are joined, copied, left, and a server that is replaced.

use ferrisdb_core::{
    Key,
    atomic::AtomicOp,
    service::storage::{Measure, Measured, Row, WatchChanges, WatchNews, WatchSessionId},
};

use super::*;
use crate::storage::engine::Engine as _;

/// What a cluster has in `'m'..'z'`, and a storage server of its team that answers from that.
#[derive(Clone, Default)]
struct Source(Arc<Mutex<SourceState>>);

#[derive(Default)]
struct SourceState {
    states: BTreeMap<Version, BTreeMap<Key, (Value, Version)>>,
    /// What it answers instead.
    refuses: Option<ErrorCode>,
    /// It has nothing from here on.
    end: Option<Key>,
    /// It says no more after so many pages.
    pages_max: Option<usize>,
    pages: usize,
}

impl Source {
    fn rows(&self, version: u64) -> Vec<(Key, Value, Version)> {
        let state = self.0.lock();
        let (_, rows) = state.states.range(..=Version(version)).next_back().unwrap();
        rows.iter().map(|(key, (value, version))| (key.clone(), value.clone(), *version)).collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut SourceState) -> T) -> T {
        change(&mut self.0.lock())
    }

    fn commit(&self, version: u64, mutations: &[Mutation]) {
        let version = Version(version);
        let mut state = self.0.lock();
        let mut rows = state.states.values().next_back().cloned().unwrap_or_default();
        for mutation in mutations {
            match mutation.clone() {
                Mutation::Set { key, value } => drop(rows.insert(key, (value, version))),
                Mutation::Clear { key } => drop(rows.remove(&key)),
                Mutation::ClearRange { range } => rows.retain(|key, _| !range.contains(key)),
                Mutation::Atomic { key, op, operand } => {
                    let before = rows.get(&key).map(|(value, _)| value.clone());
                    let value = op.apply(before.as_ref(), &operand).unwrap();
                    rows.insert(key, (value, version));
                }
                other => panic!("{other:?}"),
            }
        }
        state.states.insert(version, rows);
    }
}

impl ferrisdb_core::service::storage::Storage for Source {
    async fn get(self, _: Context, _: Vec<PointRead>) -> Vec<Result<Option<VersionedValue>>> {
        panic!("a storage server asks for no single keys")
    }

    async fn get_range(self, _: Context, request: RangeRead) -> Result<RangeReply> {
        let mut state = self.0.lock();
        let refuse = |code| Err(Error::new(code, Stage::Read, "as it was told"));
        if let Some(code) = state.refuses {
            return refuse(code);
        }
        if state.end.as_ref().is_some_and(|end| request.range.end > *end) {
            return refuse(ErrorCode::WrongShard);
        }
        if state.pages_max.is_some_and(|max| state.pages >= max) {
            return refuse(ErrorCode::TransactionTooOld);
        }
        state.pages += 1;
        let (_, rows) = state.states.range(..=request.read_version).next_back().unwrap();
        let mut reply = RangeReply { rows: vec![], continue_at: None };
        let mut bytes = 0;
        for (key, (value, version)) in rows.range(request.range.begin..request.range.end) {
            bytes += key.len() + value.len();
            if bytes > request.bytes_max as usize && !reply.rows.is_empty() {
                reply.continue_at = Some(key.clone());
                break;
            }
            reply.rows.push(Row {
                key: key.clone(),
                value: value.clone(),
                commit_version: *version,
            });
        }
        Ok(reply)
    }

    async fn measure(self, _: Context, _: Measure) -> Result<Measured> {
        panic!("a storage server measures nothing")
    }

    async fn progress(self, _: Context) -> Result<ferrisdb_core::service::controller::Progress> {
        panic!("a storage server asks for no progress")
    }

    async fn change_watches(self, _: Context, _: WatchChanges) -> Result<()> {
        panic!("a storage server watches nothing")
    }

    async fn watch_news(self, _: Context, _: WatchSessionId, _: u32) -> Result<WatchNews> {
        panic!("a storage server watches nothing")
    }
}

/// A world in which the server joins `'m'..'z'` from others.
struct Joining {
    world: World,
    log: FakeLog,
    source: Source,
    version: u64,
}

fn key(number: u64) -> Key {
    format!("n{number:03}").into()
}

impl Joining {
    /// The data is there since version 5, in pages of three rows.
    fn new() -> Joining {
        let mut world = World::new();
        world.settings.page_bytes = 20;
        let [log, _] = world.add_generation(1, 0);
        let source = Source::default();
        source.commit(0, &[]);
        // Ten that are never written again, and forty that are.
        let keys = (0..10).map(|n| format!("m{n:03}").into()).chain((0..40).map(|n| key(2 * n)));
        let rows: Vec<_> =
            keys.map(|key| Mutation::Set { key, value: Value::from(&[1, 0]) }).collect();
        source.commit(5, &rows);
        let joining = Joining { world, log, source: source.clone(), version: 5 };
        joining.add_source(Tag(1), &source);
        joining
    }

    fn add_source(&self, tag: Tag, source: &Source) {
        let instance = 1_000 + u64::from(tag.0);
        let handler = handler!(ferrisdb_core::service::storage::Storage, source.clone());
        self.world.router.add::<StorageService>(instance, handler);
        let endpoint = Endpoint { address: Address::new("here"), instance };
        self.world.change(|state| {
            let process = ProcessId(u128::from(instance));
            state.storage_servers.push(listed(tag, process, endpoint));
            state.next_tag = state.next_tag.max(Tag(tag.0 + 1));
        });
    }

    fn join(&mut self, sources: impl IntoIterator<Item = u32>) {
        let sources = sources.into_iter().map(Tag).collect();
        self.change(ShardRole::Joining { sources });
    }

    fn change(&mut self, role: ShardRole) {
        self.version += 1;
        self.log.put_change(self.version, "m", "z", role);
        self.log.commit(self.version);
    }

    /// A version with some changes here and there.
    fn write(&mut self) {
        self.version += 7;
        let n = self.version;
        let mutations = [
            Mutation::Set { key: key(n * 5 % 90), value: Value::from(&[n as u8, 7]) },
            Mutation::Atomic {
                key: key(n * 3 % 80),
                op: AtomicOp::Add,
                operand: Value::from(&[1, 0]),
            },
            Mutation::ClearRange { range: KeyRange::new(key(n % 80), key(n % 80 + 4)) },
            Mutation::Atomic {
                key: key(n % 80 + 1),
                op: AtomicOp::Add,
                operand: Value::from(&[1, 0]),
            },
        ];
        self.source.commit(n, &mutations);
        self.log.put(n, &mutations);
        self.log.commit(n);
    }

    /// Writes until something has happened.
    async fn write_until(&mut self, what: &str, mut happened: impl FnMut() -> bool) {
        for _ in 0..5_000 {
            if happened() {
                return;
            }
            self.write();
            runtime::sleep(Duration::from_millis(1)).await;
        }
        panic!("it did not happen that {what}");
    }

    async fn become_member(&mut self, server: &StorageServer) {
        self.write_until("it is copied", || server.report().copied == [KeyRange::new("m", "z")])
            .await;
        assert_eq!(server.report().copying, []);
        self.change(ShardRole::Member);
        self.check().await;
    }

    /// The server has what the cluster has.
    async fn check(&self) {
        let request = RangeRead {
            range: KeyRange::new("m", "z"),
            read_version: Version(self.version),
            rows_max: 1_000,
            bytes_max: 100_000,
            reverse: false,
        };
        let client = self.world.client.as_ref().unwrap();
        let reply = client.get_range(context::current(), request).await.unwrap().unwrap();
        let rows = reply.rows.into_iter().map(|row| (row.key, row.value, row.commit_version));
        assert_eq!(rows.collect::<Vec<_>>(), self.source.rows(self.version));
    }
}

#[tokio::test]
async fn a_shard_is_copied_while_it_changes() {
    let mut joining = Joining::new();
    let server = joining.world.open().await;
    joining.join([1]);
    let version = joining.version;
    until("the copy has begun", async || !server.report().copying.is_empty()).await;
    assert_eq!(joining.world.get("n002", version).await, Err(ErrorCode::WrongShard));
    joining.become_member(&server).await;
    assert!(joining.source.change(|state| state.pages) > 10, "a few rows at a time");
    assert!(server.report().copied_bytes > 200);
    let before = joining.version - 1;
    assert_eq!(joining.world.get("n002", before).await, Err(ErrorCode::TransactionTooOld));
    // It is a member like any other.
    for _ in 0..50 {
        joining.write();
    }
    joining.check().await;
    server.shut_down().await;
    drop(server);
    let _server = joining.world.open().await;
    joining.check().await;
}

#[tokio::test]
async fn a_quiet_shard_is_copied_too() {
    let mut joining = Joining::new();
    joining.world.settings.window_versions = 0;
    joining.world.settings.peek_wait = Duration::from_secs(10);
    let server = joining.world.open().await;
    joining.join([1]);
    until("all pages have come", async || server.report().copied_bytes >= 300).await;
    // The next version takes it to the disk.
    joining.log.commit(joining.version + 10);
    until("it is copied", async || !server.report().copied.is_empty()).await;
}

#[tokio::test]
async fn what_frees_space_goes_on_while_there_is_none_for_a_copy() {
    let mut joining = Joining::new();
    joining.world.settings.window_versions = 0;
    joining.log.put(2, &[Mutation::Set { key: "a".into(), value: "1".into() }]);
    joining.log.commit(2);
    let server = joining.world.open().await;
    let storage = joining.world.storage.clone();
    until("it has a row of its own", async || storage.keys() == [Key::from("a")]).await;
    storage.set_full(true);
    joining.join([1]);
    let source = joining.source.clone();
    until("a page has come", async || source.change(|state| state.pages) > 0).await;
    until("it says that it is full", async || server.trouble().is_some()).await;
    joining.version += 1;
    let range = KeyRange::new("a", "b");
    joining.log.put(joining.version, &[Mutation::ClearRange { range }]);
    joining.log.commit(joining.version);
    until("the clear is written", async || storage.version() == Version(joining.version)).await;
    assert!(storage.keys().is_empty());
    assert_eq!(server.report().copied_bytes, 0, "what is not written does not count");
    storage.set_full(false);
    joining.write_until("it is copied", || !server.report().copied.is_empty()).await;
    assert_eq!(server.trouble(), None);
    joining.become_member(&server).await;
}

#[tokio::test]
async fn a_copy_survives_restarts() {
    for loses_ingests in [false, true] {
        let mut joining = Joining::new();
        let server = joining.world.open().await;
        joining.source.change(|state| state.pages_max = Some(7));
        joining.join([1]);
        let source = joining.source.clone();
        joining
            .write_until("some pages have come", || source.change(|state| state.pages) == 7)
            .await;
        joining.write();
        // The engine has rows of versions that it is not at.
        if loses_ingests {
            joining.world.storage.crash_losing_ingests();
        } else {
            joining.world.storage.crash();
        }
        drop(server);
        // Some of those rows are gone when they are copied again.
        joining.version += 1;
        let clear = [Mutation::ClearRange { range: KeyRange::new("m", "m010") }];
        joining.source.commit(joining.version, &clear);
        joining.log.put(joining.version, &clear);
        let server = joining.world.open().await;
        assert_eq!(server.report().copied, []);
        until("it has caught up", async || server.progress().version >= Version(joining.version))
            .await;
        joining.source.change(|state| state.pages_max = None);
        joining.write_until("it is copied", || !server.report().copied.is_empty()).await;

        // What is copied stays so.
        let pages = joining.source.change(|state| state.pages);
        joining.world.storage.crash_losing_ingests();
        drop(server);
        let server = joining.world.open().await;
        assert_eq!(server.report().copied, [KeyRange::new("m", "z")]);
        joining.become_member(&server).await;
        assert_eq!(joining.source.change(|state| state.pages), pages, "nothing is copied again");
    }
}

#[tokio::test]
async fn a_shard_is_left_and_joined_again() {
    let mut joining = Joining::new();
    let server = joining.world.open().await;
    joining.join([1]);
    joining.become_member(&server).await;
    joining.change(ShardRole::Absent);
    let left = joining.version;
    joining.join([1]);
    // What was here is readable as of before, while it comes anew.
    assert_eq!(joining.world.get("m", left - 1).await, Ok(None));
    assert_eq!(joining.world.get("m", left).await, Err(ErrorCode::WrongShard));
    assert_eq!(server.report().copied, []);
    joining.become_member(&server).await;

    // Left in the middle of a copy.
    joining.change(ShardRole::Absent);
    joining.join([1]);
    let pages = joining.source.change(|state| state.pages);
    let source = joining.source.clone();
    joining
        .write_until("some pages have come", || source.change(|state| state.pages) > pages + 2)
        .await;
    joining.change(ShardRole::Absent);
    joining.join([1]);
    joining.become_member(&server).await;
}

#[tokio::test]
async fn who_refuses_is_not_asked_for_ever() {
    let mut joining = Joining::new();
    let (broken, later) = (Source::default(), Source::default());
    broken.change(|state| state.refuses = Some(ErrorCode::Disk));
    joining.add_source(Tag(2), &broken);
    joining.add_source(Tag(3), &later);
    // The first source keeps only a part; the cluster's map says who has the rest.
    joining.source.change(|state| state.end = Some("n030".into()));
    *later.0.lock() =
        SourceState { states: joining.source.0.lock().states.clone(), ..Default::default() };
    let shard = |begin: &str, end: &str, team: &[u32]| Shard {
        range: KeyRange::new(begin, end),
        teams: Teams::of(team.iter().copied().map(Tag)),
    };
    joining.world.change(|state| {
        state.shards = ShardMap::new(vec![
            shard("", "m", &[0]),
            shard("m", "n030", &[1]),
            shard("n030", "z", &[9, 2, 3]),
        ]);
    });
    let server = joining.world.open().await;
    joining.join([2, 1]);
    until("all pages have come", async || server.report().copied_bytes >= 300).await;
    let pages_of = |source: &Source| source.change(|state| state.pages);
    assert!(pages_of(&joining.source) > 3 && pages_of(&later) > 3);
    joining.log.commit(joining.version + 200);
    until("it is copied", async || !server.report().copied.is_empty()).await;
}

#[tokio::test]
async fn a_replaced_server_begins_anew() {
    let mut joining = Joining::new();
    let server = joining.world.open().await;
    joining.log.put(10, &[set("a", "1")]);
    joining.version = 10;
    joining.join([1]);
    joining.become_member(&server).await;
    let begin = joining.version;

    // It was away for too long: others have its data.
    joining.world.change(|state| {
        state.storage_servers.remove(0);
    });
    until("it has no tag", async || server.report().tag.is_none()).await;
    assert_eq!(joining.world.get("a", begin).await, Err(ErrorCode::Unavailable));
    assert_eq!(joining.world.get_range("a", "b", begin).await, Err(ErrorCode::Unavailable));
    until("its engine is empty", async || joining.world.storage.version() == Version::ZERO).await;

    // It is taken in again.
    joining.world.change(|state| {
        let mut entry = listed(Tag(2), PROCESS, Endpoint::of_process(Address::new("here")));
        entry.begin_version = Version(begin);
        state.storage_servers.push(entry);
        state.next_tag = Tag(3);
    });
    until("it has a tag", async || server.report().tag == Some(Tag(2))).await;
    assert_eq!(server.failure(), None);
    joining.write();
    let version = joining.version;
    assert_eq!(joining.world.get("a", version).await, Err(ErrorCode::WrongShard));
    joining.join([1]);
    joining.become_member(&server).await;
    until("the logs are told", async || {
        joining.log.0.0.lock().popped.get(&Tag(2)).is_some_and(|popped| *popped >= Version(begin))
    })
    .await;

    // A restart finds the new tag, also if the cluster has another one for it by then.
    joining.world.storage.crash();
    drop(server);
    joining.world.change(|state| {
        let entry = state.storage_servers.last_mut().unwrap();
        (entry.tag, entry.begin_version) = (Tag(3), Version(version));
        state.next_tag = Tag(4);
    });
    let server = StorageServer::open(
        joining.world.network.clone(),
        Arc::clone(&joining.world.view),
        joining.world.router.clone(),
        0,
        PROCESS,
        Arc::new(joining.world.storage.open()),
        joining.world.settings,
    );
    until("it has another tag", async || server.report().tag == Some(Tag(3))).await;
    until("the stream is followed", async || server.progress().version >= Version(version)).await;
    drop(server);
    let engine = joining.world.storage.open();
    let all = KeyRange::prefix(b"");
    assert_eq!(engine.cursor(&all, false).next_row().unwrap(), None, "nothing is left");
}

#[tokio::test]
async fn a_server_copies_from_its_like() {
    let mut world = World::new();
    world.settings.page_bytes = 30;
    let logs = world.add_generation(1, 0);
    let endpoint = Endpoint { address: Address::new("here"), instance: 1_001 };
    world.change(|state| {
        // So that each of them has a log, and thereby a stream, of its own.
        state.log_sets[0].replication = 1;
        state.storage_servers.push(listed(Tag(1), ProcessId(2), endpoint.clone()));
        state.next_tag = Tag(2);
    });
    logs[1].change(|log| log.messages.clear());
    let _old = world.open().await;
    let new = StorageServer::open(
        world.network.clone(),
        Arc::clone(&world.view),
        world.router.clone(),
        endpoint.instance,
        ProcessId(2),
        Arc::new(MemoryStorage::new().open()),
        world.settings,
    );
    let write = |version: u64| {
        let add = |n: u64| Mutation::Atomic {
            key: format!("{:03}", n % 60).into(),
            op: AtomicOp::Add,
            operand: Value::from(&[1, 0]),
        };
        let key = |n: u64| Key::from(format!("{:03}", n % 60));
        let clear = Mutation::ClearRange { range: KeyRange::new(key(version), key(version + 3)) };
        for log in &logs {
            log.put(version, &[add(version), clear.clone(), add(version * 7), add(version * 11)]);
            log.commit(version);
        }
    };
    (2..60).for_each(write);
    let role = ShardRole::Joining { sources: vec![TAG] };
    logs[1].put_change(60, "", "m", role);
    let mut version = 60;
    while new.report().copied.is_empty() {
        version += 1;
        assert!(version < 20_000, "it does not become copied");
        write(version);
        runtime::sleep(Duration::from_millis(1)).await;
    }
    logs[0].put(version + 1, &[]);
    logs[1].put_change(version + 1, "", "m", ShardRole::Member);
    write(version + 2);
    let request = RangeRead {
        range: KeyRange::new("", "m"),
        read_version: Version(version + 2),
        rows_max: 1_000,
        bytes_max: 100_000,
        reverse: false,
    };
    let copy = world.network.connect::<StorageService>(&endpoint).await.unwrap();
    let rows = copy.get_range(context::current(), request.clone()).await.unwrap().unwrap();
    let original = world.client.as_ref().unwrap();
    let expected = original.get_range(context::current(), request).await.unwrap().unwrap();
    assert_eq!(rows, expected);
    assert!(expected.rows.len() > 10);
}
