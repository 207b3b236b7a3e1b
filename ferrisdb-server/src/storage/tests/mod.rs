//! A storage server against logs, a controller and other storage servers that do as they are told, all in this
//! process.

mod copying;
mod full;
mod serving;
mod threads;
mod watching;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Generation, KeyRange, Mutation, ProcessId, Result,
    Stage, Tag, Value, Version,
    cluster_view::ClusterView,
    controllers::Controllers,
    handler,
    id::Address,
    mutation::Encoder,
    runtime,
    service::{
        Client, Health,
        controller::{
            ClusterState, Command, Controller, ControllerMember, ControllerService, Heartbeat,
            HeartbeatReply, Leader, LogMember, LogSet, Phase, StateNews, Status,
            StorageServer as Listed,
        },
        log::{
            CopyReply, CopyRequest, LockReply, LockRequest, Log, LogService, PeekReply,
            PeekRequest, PushReply, PushRequest,
        },
        storage::{PointRead, RangeRead, RangeReply, StorageService, VersionedValue},
    },
    shard::{Shard, ShardChange, ShardMap, ShardRole, Teams},
    transport::{Network, Router},
};
use parking_lot::Mutex;
use tarpc::context::{self, Context};
use tokio::sync::Notify;

use super::{
    StorageServer, StorageSettings,
    engine::{Engine, memory::MemoryStorage},
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
    popped: BTreeMap<Tag, Version>,
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
        self.put_encoded(version, encoder);
    }

    /// Makes the server something to a range.
    fn put_change(&self, version: u64, begin: &str, end: &str, role: ShardRole) {
        let mut encoder = Encoder::default();
        encoder.push_shard_change(&ShardChange { range: KeyRange::new(begin, end), role });
        self.put_encoded(version, encoder);
    }

    fn put_encoded(&self, version: u64, encoder: Encoder) {
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
        self.0.0.lock().popped.get(&TAG).copied().unwrap_or_default()
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
                    popped_version: log.popped.get(&request.tag).copied().unwrap_or_default(),
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
        self.change(|log| {
            let popped = log.popped.entry(tag).or_default();
            *popped = through_version.max(*popped);
        });
        Ok(())
    }

    async fn lock(self, _: Context, _: LockRequest) -> Result<LockReply> {
        panic!("a storage server locks nothing")
    }

    async fn copy(self, _: Context, _: CopyRequest) -> Result<CopyReply> {
        panic!("a storage server copies no batches")
    }

    async fn confirm(self, _: Context, _: Generation) -> Result<()> {
        panic!("a storage server confirms nothing")
    }

    async fn health(self, _: Context, _: Generation) -> Result<Health> {
        panic!("a storage server does not ask how a log is")
    }
}

/// A controller whose state the test sets.
#[derive(Clone)]
struct FakeController(Arc<(Mutex<ClusterState>, Notify)>);

impl Controller for FakeController {
    async fn leader(self, _: Context) -> Result<Leader> {
        let controllers = self.0.0.lock().controllers.clone();
        Ok(Leader { address: Some(Address::new("here")), controllers })
    }

    async fn administer(self, _: Context, _: Command) -> Result<()> {
        panic!("a storage server wishes for nothing")
    }

    async fn heartbeat(self, _: Context, _: Heartbeat) -> Result<HeartbeatReply> {
        panic!("a storage server sends no heartbeats")
    }

    async fn cluster_state(self, _: Context, known_revision: u64) -> Result<StateNews> {
        loop {
            let changed = self.0.1.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let state = self.0.0.lock().clone();
            if state.revision > known_revision {
                return Ok(StateNews { state: Some(state), is_led: true });
            }
            changed.await;
        }
    }

    async fn status(self, _: Context) -> Result<Status> {
        panic!("a storage server asks for no status")
    }
}

/// A cluster of a storage server that is a member of `''..'m'` from version 1 on, with two logs for each generation.
struct World {
    network: Network,
    router: Router,
    controller: FakeController,
    view: Arc<ClusterView>,
    storage: MemoryStorage,
    settings: StorageSettings,
    client: Option<Client<StorageService>>,
}

impl World {
    fn new() -> World {
        let (network, router) = (Network::new(), Router::new());
        let address = Address::new("here");
        network.add_local(address.clone(), router.clone());
        let here = Endpoint::of_process(address.clone());
        let shard = |begin: &str, end: &str, tag| Shard {
            range: KeyRange::new(begin, end),
            teams: Teams::of([Tag(tag)]),
        };
        let state = ClusterState {
            cluster_id: ClusterId(1),
            revision: 1,
            generation: Generation(1),
            phase: Phase::Active,
            coordinator: None,
            log_sets: vec![],
            storage_servers: vec![listed(TAG, PROCESS, here)],
            next_tag: Tag(1),
            shards: ShardMap::new(vec![shard("", "m", 0), shard("m", "z", 1)]),
            controllers: vec![ControllerMember { node: 1, address: address.clone() }],
            configuration: None,
            excluded: vec![],
        };
        let controller = FakeController(Arc::new((Mutex::new(state), Notify::new())));
        router.add::<ControllerService>(0, handler!(Controller, controller.clone()));
        let view = Arc::new(ClusterView::follow(Controllers::new(network.clone(), vec![address])));
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
            if generation == 1 {
                log.put_change(1, "", "m", ShardRole::Member);
            }
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
            recovery_version: Version(begin),
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
        let engine = Arc::new(self.storage.open());
        self.open_with(engine).await
    }

    async fn open_with(&mut self, engine: Arc<dyn Engine>) -> StorageServer {
        let server = StorageServer::open(
            self.network.clone(),
            Arc::clone(&self.view),
            self.router.clone(),
            0,
            PROCESS,
            engine,
            self.settings,
        );
        let endpoint = Endpoint::of_process(Address::new("here"));
        self.client = Some(self.network.connect::<StorageService>(&endpoint).await.unwrap());
        until("the server has its tag", async || server.report().tag == Some(TAG)).await;
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

fn listed(tag: Tag, process: ProcessId, endpoint: Endpoint) -> Listed {
    Listed { tag, process, endpoint, zone: "zone".into(), begin_version: Version::ZERO }
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
