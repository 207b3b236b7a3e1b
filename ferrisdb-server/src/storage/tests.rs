//! A storage server against logs and a controller that do as they are told, all in this process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Generation, KeyRange, Mutation, ProcessId, Result,
    Stage, Tag, Value, Version,
    atomic::AtomicOp,
    cluster_view::ClusterView,
    handler,
    id::Address,
    mutation::Encoder,
    runtime,
    service::{
        controller::{
            ClusterState, Controller, ControllerService, Heartbeat, HeartbeatReply, LogMember,
            LogSet, Phase, Shard, Status, StorageServer as Listed,
        },
        log::{LockReply, Log, LogService, PeekReply, PeekRequest, PushReply, PushRequest},
        storage::{
            PointRead, RangeRead, RangeReply, StorageClient, StorageService, VersionedValue,
        },
    },
    transport::{Network, Router},
};
use parking_lot::Mutex;
use tarpc::context::{self, Context};
use tokio::sync::Notify;

use super::{
    StorageServer, StorageSettings,
    engine::memory::{CrashPoint, MemoryStorage},
};

const PROCESS: ProcessId = ProcessId(1);
const TAG: Tag = Tag(0);

/// A log that holds what the test puts there.
#[derive(Clone, Default)]
struct FakeLog(Arc<(Mutex<LogContent>, Notify)>);

#[derive(Default)]
struct LogContent {
    messages: BTreeMap<Version, Bytes>,
    through: Version,
    committed: Version,
    popped: Version,
    locked: bool,
    broken: bool,
}

impl FakeLog {
    fn change(&self, change: impl FnOnce(&mut LogContent)) {
        change(&mut self.0.0.lock());
        self.0.1.notify_waiters();
    }

    fn put(&self, version: u64, mutations: &[Mutation]) {
        let mut encoder = Encoder::default();
        mutations.iter().for_each(|mutation| encoder.push(mutation));
        self.change(|log| {
            log.messages.insert(Version(version), encoder.finish());
            log.through = Version(version);
        });
    }

    fn commit(&self, version: u64) {
        self.change(|log| {
            log.committed = Version(version);
            log.through = log.through.max(log.committed);
        });
    }

    fn popped(&self) -> Version {
        self.0.0.lock().popped
    }
}

impl Log for FakeLog {
    async fn push(self, _: Context, _: PushRequest) -> Result<PushReply> {
        panic!("a storage server pushes nothing")
    }

    async fn peek(self, _: Context, request: PeekRequest) -> Result<PeekReply> {
        let (content, changed) = &*self.0;
        let changed = changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let answer = |last: bool| {
            let log = content.lock();
            if log.broken {
                return Some(Err(Error::new(ErrorCode::Disk, Stage::Log, "broken")));
            }
            let is_news = log.through > request.after_version || log.locked || last;
            is_news.then(|| {
                let messages = log.messages.range(request.after_version.next()..);
                Ok(PeekReply {
                    messages: messages.map(|(version, bytes)| (*version, bytes.clone())).collect(),
                    through_version: log.through,
                    known_committed_version: log.committed,
                    popped_version: log.popped,
                    locked: log.locked,
                })
            })
        };
        if let Some(answer) = answer(false) {
            return answer;
        }
        let wait = Duration::from_millis(request.wait_ms.into());
        let _ = runtime::timeout(wait, Stage::Log, changed).await;
        answer(true).expect("the last look always answers")
    }

    async fn pop(self, _: Context, tag: Tag, through_version: Version) -> Result<()> {
        assert_eq!(tag, TAG);
        self.change(|log| log.popped = log.popped.max(through_version));
        Ok(())
    }

    async fn lock(self, _: Context, _: Generation) -> Result<LockReply> {
        panic!("a storage server locks nothing")
    }

    async fn confirm(self, _: Context, _: Generation) -> Result<()> {
        panic!("a storage server confirms nothing")
    }
}

/// A controller whose state the test sets.
#[derive(Clone)]
struct FakeController(Arc<(Mutex<ClusterState>, Notify)>);

impl Controller for FakeController {
    async fn heartbeat(self, _: Context, _: Heartbeat) -> Result<HeartbeatReply> {
        panic!("a storage server sends no heartbeats")
    }

    async fn cluster_state(self, _: Context, known_revision: u64) -> Result<ClusterState> {
        loop {
            let changed = self.0.1.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let state = self.0.0.lock().clone();
            if state.revision > known_revision {
                return Ok(state);
            }
            changed.await;
        }
    }

    async fn status(self, _: Context) -> Result<Status> {
        panic!("a storage server asks for no status")
    }
}

/// A cluster of one storage server that owns `''..'m'`, with two logs for each generation.
struct World {
    network: Network,
    router: Router,
    controller: FakeController,
    view: Arc<ClusterView>,
    storage: MemoryStorage,
    settings: StorageSettings,
    client: Option<StorageClient>,
}

impl World {
    fn new() -> World {
        let (network, router) = (Network::new(), Router::new());
        let address = Address::new("here");
        network.add_local(address.clone(), router.clone());
        let here = Endpoint::of_process(address.clone());
        let shard = |begin: &str, end: &str, tag| Shard {
            range: KeyRange::new(begin, end),
            team: vec![Tag(tag)],
        };
        let state = ClusterState {
            cluster_id: ClusterId(1),
            revision: 1,
            generation: Generation(1),
            phase: Phase::Active,
            coordinator: None,
            log_sets: vec![],
            storage_servers: vec![Listed { tag: TAG, process: PROCESS, endpoint: here }],
            shards: vec![shard("", "g", 0), shard("g", "m", 0), shard("m", "z", 1)],
        };
        let controller = FakeController(Arc::new((Mutex::new(state), Notify::new())));
        router.add::<ControllerService>(0, handler!(Controller, controller.clone()));
        let view = Arc::new(ClusterView::follow(network.clone(), vec![address]));
        let settings = StorageSettings {
            window_versions: 100,
            flush_interval: Duration::from_millis(1),
            future_version_wait: Duration::from_secs(10),
            peek_wait: Duration::from_millis(20),
            ..StorageSettings::default()
        };
        let storage = MemoryStorage::new();
        World { network, router, controller, view, storage, settings, client: None }
    }

    /// Adds the logs of a generation that begins at a version, and ends the one before it there.
    fn add_generation(&self, generation: u64, begin: u64) -> [FakeLog; 2] {
        let logs = [FakeLog::default(), FakeLog::default()];
        let members = (0..).zip(&logs).map(|(index, log)| {
            log.change(|log| log.through = Version(begin));
            let instance = 10 * generation + index;
            self.router.add::<LogService>(instance, handler!(Log, log.clone()));
            let endpoint = Endpoint { address: Address::new("here"), instance };
            LogMember { process: ProcessId(u128::from(instance)), endpoint }
        });
        let set = LogSet {
            generation: Generation(generation),
            logs: members.collect(),
            replication: 2,
            begin_version: Version(begin),
            end_version: None,
        };
        self.change(|state| {
            if let Some(last) = state.log_sets.last_mut() {
                last.end_version = Some(Version(begin));
            }
            state.log_sets.push(set);
        });
        logs
    }

    fn change(&self, change: impl FnOnce(&mut ClusterState)) {
        {
            let mut state = self.controller.0.0.lock();
            change(&mut state);
            state.revision += 1;
        }
        self.controller.0.1.notify_waiters();
    }

    async fn open(&mut self) -> StorageServer {
        let server = StorageServer::open(
            self.network.clone(),
            Arc::clone(&self.view),
            self.router.clone(),
            0,
            PROCESS,
            Arc::new(self.storage.open()),
            self.settings,
        );
        let endpoint = Endpoint::of_process(Address::new("here"));
        self.client = Some(self.network.connect::<StorageService>(&endpoint).await.unwrap());
        // A read that is in no shard of this server is refused, once the server knows its shards.
        until("the server knows the cluster", async || {
            self.get("z", 0).await == Err(ErrorCode::WrongShard)
        })
        .await;
        server
    }

    /// What one read finds: the value and its commit version.
    async fn get(&self, key: &str, version: u64) -> Result<Option<(String, u64)>, ErrorCode> {
        let read = PointRead { key: key.into(), read_version: Version(version) };
        let client = self.client.as_ref().expect("the server was opened");
        let mut answers = client.get(context::current(), vec![read]).await.unwrap();
        assert_eq!(answers.len(), 1);
        let text = |found: VersionedValue| {
            (String::from_utf8_lossy(&found.value).into_owned(), found.commit_version.0)
        };
        answers.remove(0).map(|found| found.map(text)).map_err(|error| error.code())
    }

    async fn get_range(
        &self,
        begin: &str,
        end: &str,
        version: u64,
    ) -> Result<RangeReply, ErrorCode> {
        let request = RangeRead {
            range: KeyRange::new(begin, end),
            read_version: Version(version),
            rows_max: 10,
            bytes_max: 1_000,
            reverse: false,
        };
        let client = self.client.as_ref().expect("the server was opened");
        let answer = client.get_range(context::current(), request).await.unwrap();
        answer.map_err(|error| error.code())
    }
}

/// Waits for what other tasks are about to do.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..10_000 {
        if condition().await {
            return;
        }
        runtime::sleep(Duration::from_millis(1)).await;
    }
    panic!("it did not happen that {what}");
}

fn set(key: &str, value: &str) -> Mutation {
    Mutation::Set { key: key.into(), value: value.into() }
}

fn found(value: &str, version: u64) -> Result<Option<(String, u64)>, ErrorCode> {
    Ok(Some((value.into(), version)))
}

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
    world.add_generation(1, 0);
    let _server = world.open().await;
    assert_eq!(world.get("m", 0).await, Err(ErrorCode::WrongShard));
    assert_eq!(world.get("l", 0).await, Ok(None));
    assert_eq!(world.get_range("a", "h", 0).await, Err(ErrorCode::WrongShard), "two shards");
    assert_eq!(world.get_range("l", "n", 0).await, Err(ErrorCode::WrongShard));
    // The shard moves away.
    world.change(|state| state.shards[0].team = vec![Tag(1)]);
    until("the server knows", async || world.get("a", 0).await == Err(ErrorCode::WrongShard)).await;
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
