//! A cluster of one process that is as simple as can be: a copy of all data for every version.
//!
//! It commits correctly, and it can be told to lose answers and requests, which no honest cluster does often
//! enough for a test.

#![expect(clippy::unwrap_used, reason = "a test")]
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use ferrisdb_client::{
    Address, Database, Error, ErrorCode, Generation, Key, KeyRange, Network, Result, Settings,
    Stage, Value, Version, Versionstamp,
};
use ferrisdb_core::{
    ClusterId, Endpoint, Mutation, ProcessId, Shard, ShardMap, Tag, Teams, handler, idempotency,
    runtime,
    service::{
        ServiceKind,
        controller::{
            ClusterState, Command, Controller, ControllerMember, ControllerService,
            CoordinatorMembers, Heartbeat, HeartbeatReply, Leader, Phase, Progress, StateNews,
            Status, StorageServer,
        },
        proxy::{Proxy, ProxyService},
        storage::{
            Measure, Measured, PointRead, RangeRead, RangeReply, Row, Storage, StorageService,
            VersionedValue, WatchChanges, WatchEnd, WatchNews, WatchSessionId,
        },
    },
    transaction::{CommitOutcome, CommitRequest, Committed, Conflict, ConflictingRead},
    transport::{Listener, Router},
};
use parking_lot::Mutex;
use tarpc::context::Context;
use tokio::sync::Notify;

/// What happens to a commit instead of the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is done, and the connection breaks before the answer.
    LoseAnswer,
    /// The connection breaks before it is done.
    LoseRequest,
    /// As [`Fault::LoseAnswer`], and before the client comes again all records are swept.
    LoseAnswerThenSweep,
    /// As [`Fault::LoseRequest`], and before the client comes again all records are swept.
    LoseRequestThenSweep,
    /// The connection breaks, and the request is kept, to be done later.
    Hold,
    /// The requests that are held are done first.
    DeliverHeldFirst,
    /// It is done, and its answer waits for [`Cluster::go_on`].
    Wait,
}

type Data = BTreeMap<Key, (Value, Version)>;

/// How often was asked for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) read_versions: usize,
    pub(crate) commits: usize,
    pub(crate) point_requests: usize,
    pub(crate) point_reads: usize,
    pub(crate) range_requests: usize,
}

struct World {
    /// Refused watches, of which nobody was told yet.
    watches: Vec<(u64, WatchEnd)>,
    /// The data at each version.
    data: BTreeMap<Version, Data>,
    /// What each commit wrote, by version.
    written: Vec<(Version, Vec<KeyRange>)>,
    faults: VecDeque<Fault>,
    held: Vec<CommitRequest>,
    counts: Counts,
    state: ClusterState,
    /// Its processes belong to another cluster now.
    is_another: bool,
}

/// The cluster. Clones are the same.
#[derive(Clone)]
pub(crate) struct Cluster {
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
    may_go_on: Arc<Notify>,
    router: Router,
    network: Network,
}

const ADDRESS: &str = "fake";

impl Cluster {
    /// A cluster with three shards on two storage servers, each of which holds them all.
    pub(crate) fn new() -> Cluster {
        let address = Address::new(ADDRESS);
        let endpoint = |instance| Endpoint { address: address.clone(), instance };
        let server = |tag: u32| StorageServer {
            tag: Tag(tag),
            process: ProcessId(u128::from(tag)),
            endpoint: endpoint(u64::from(tag)),
            zone: "here".into(),
            begin_version: Version(0),
        };
        let shard = |begin: &str, end: Key| Shard {
            range: KeyRange { begin: begin.into(), end },
            teams: Teams::of([Tag(0), Tag(1)]),
        };
        let state = ClusterState {
            cluster_id: ClusterId(7),
            revision: 1,
            generation: Generation(1),
            phase: Phase::Active,
            coordinator: Some(CoordinatorMembers {
                sequencer: endpoint(100),
                proxies: vec![endpoint(100)],
                resolvers: Vec::new(),
            }),
            log_sets: Vec::new(),
            storage_servers: vec![server(0), server(1)],
            next_tag: Tag(2),
            shards: ShardMap::new(vec![
                shard("", "h".into()),
                shard("h", "q".into()),
                shard("q", Key::SYSTEM_END),
            ]),
            controllers: Vec::new(),
            configuration: None,
            excluded: Vec::new(),
        };
        let world = World {
            watches: Vec::new(),
            data: BTreeMap::from([(Version(1000), Data::new())]),
            written: Vec::new(),
            faults: VecDeque::new(),
            held: Vec::new(),
            counts: Counts::default(),
            state,
            is_another: false,
        };
        let cluster = Cluster {
            world: Arc::new(Mutex::new(world)),
            changed: Arc::default(),
            may_go_on: Arc::default(),
            router: Router::new(),
            network: Network::new(),
        };
        cluster.router.add::<ControllerService>(0, handler!(Controller, cluster.clone()));
        cluster.start_storage(0);
        cluster.start_storage(1);
        cluster.start_proxy(100);
        cluster.network.add_local(address, cluster.router.clone());
        cluster
    }

    pub(crate) async fn connect(&self) -> Database {
        self.connect_with(Settings::default()).await
    }

    pub(crate) async fn connect_with(&self, settings: Settings) -> Database {
        let controllers = vec![Address::new(ADDRESS)];
        Database::connect_with_settings(self.network.clone(), controllers, settings).await.unwrap()
    }

    /// The next commits meet these faults, one each.
    pub(crate) fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.world.lock().faults.extend(faults);
    }

    /// Does what was held. Returns how the commits ended.
    pub(crate) fn deliver_held(&self) -> Vec<CommitOutcome> {
        let mut world = self.world.lock();
        let held = std::mem::take(&mut world.held);
        held.into_iter().map(|request| world.commit(request)).collect()
    }

    /// Lets an answer go that waits, or the next one that will.
    pub(crate) fn go_on(&self) {
        self.may_go_on.notify_one();
    }

    pub(crate) fn newest_version(&self) -> Version {
        self.world.lock().newest().0
    }

    /// Clears all records of idempotency ids, as if the time had come for all that is there.
    pub(crate) fn sweep(&self) {
        let mut world = self.world.lock();
        let (newest, _) = world.newest();
        let clear = Mutation::ClearRange { range: idempotency::records() };
        let mutations = vec![clear, idempotency::mark_swept(newest)];
        world.commit(CommitRequest { mutations, ..CommitRequest::default() });
    }

    pub(crate) fn counts(&self) -> Counts {
        self.world.lock().counts
    }

    /// The newest data of a range.
    pub(crate) fn data(&self, range: KeyRange) -> Vec<(Key, Value)> {
        let world = self.world.lock();
        let (_, data) = world.newest();
        let inside = data.iter().filter(|(key, _)| range.contains(key));
        inside.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }

    pub(crate) fn start_storage(&self, tag: u64) {
        self.router.add::<StorageService>(tag, handler!(Storage, self.clone()));
    }

    pub(crate) fn stop_storage(&self, tag: u64) {
        self.router.remove(ServiceKind::Storage, tag);
    }

    pub(crate) fn start_proxy(&self, instance: u64) {
        self.router.add::<ProxyService>(instance, handler!(Proxy, self.clone()));
    }

    pub(crate) fn stop_proxy(&self, instance: u64) {
        self.router.remove(ServiceKind::Proxy, instance);
    }

    /// Lets it be reached over TCP, and says where. It is there until the listener is dropped and the cluster stopped.
    pub(crate) async fn listen(&self) -> (Listener, Address) {
        let free = Address::new("127.0.0.1:0");
        let listener = Listener::bind(&free, self.router.clone(), self.network.clone()).await;
        let listener = listener.unwrap();
        let address = listener.address().clone();
        self.change_state(|state| {
            let coordinator = state.coordinator.as_mut().unwrap();
            coordinator.proxies.iter_mut().for_each(|proxy| proxy.address = address.clone());
            for server in &mut state.storage_servers {
                server.endpoint.address = address.clone();
            }
            state.controllers = vec![ControllerMember { node: 1, address: address.clone() }];
        });
        (listener, address)
    }

    /// Ends all its connections, and offers nothing any more.
    pub(crate) fn stop(&self) {
        self.router.clear();
    }

    /// Changes the state that clients follow.
    pub(crate) fn change_state(&self, change: impl FnOnce(&mut ClusterState)) {
        let mut world = self.world.lock();
        change(&mut world.state);
        world.state.revision += 1;
        drop(world);
        self.changed.notify_waiters();
    }

    /// From now on the processes at its addresses are those of another cluster.
    pub(crate) fn become_another(&self) {
        self.world.lock().is_another = true;
        self.changed.notify_waiters();
    }

    /// Lets somebody of another cluster listen at an address.
    pub(crate) fn add_stranger(&self, address: &str) {
        let stranger = Cluster::new();
        stranger.become_another();
        self.network.add_local(Address::new(address), stranger.router);
    }

    fn check_cluster(&self) -> Result<()> {
        match self.world.lock().is_another {
            true => Err(Error::new(ErrorCode::WrongCluster, Stage::Connect, "made anew")),
            false => Ok(()),
        }
    }

    /// Breaks the proxy's connections, this request's included.
    async fn break_connection<T>(&self) -> T {
        self.stop_proxy(100);
        self.start_proxy(100);
        std::future::pending().await
    }
}

impl World {
    fn newest(&self) -> (Version, &Data) {
        let (&version, data) = self.data.last_key_value().unwrap();
        (version, data)
    }

    fn at(&self, version: Version) -> Result<&Data> {
        if version > self.newest().0 {
            return Err(Error::new(ErrorCode::FutureVersion, Stage::Read, ""));
        }
        let found = self.data.range(..=version).next_back();
        let too_old = || Error::new(ErrorCode::TransactionTooOld, Stage::Read, "");
        found.map(|(_, data)| data).ok_or_else(too_old)
    }

    fn commit(&mut self, request: CommitRequest) -> CommitOutcome {
        let last_write = |range: &KeyRange| {
            let later = self.written.iter().filter(|(at, _)| *at > request.read_version);
            let meets =
                |ranges: &[KeyRange]| ranges.iter().any(|written| written.intersects(range));
            later.filter(|(_, ranges)| meets(ranges)).map(|(at, _)| *at).max()
        };
        let reads: Vec<ConflictingRead> = (0..)
            .zip(&request.read_conflicts)
            .filter_map(|(index, range)| {
                Some(ConflictingRead { index, written_at: last_write(range)? })
            })
            .collect();
        if !reads.is_empty() {
            return CommitOutcome::Conflict(Conflict { reads });
        }
        let (newest, data) = self.newest();
        let (version, mut data) = (Version(newest.0 + 10), data.clone());
        let versionstamp = Versionstamp { commit_version: version, batch_index: 0 };
        let stamped = request.mutations.iter().filter_map(|each| each.stamped_key(versionstamp));
        let stamped = stamped.map(|key| KeyRange::single(&key));
        let written: Vec<KeyRange> = request.write_conflicts.into_iter().chain(stamped).collect();
        for mutation in request.mutations {
            match mutation.substitute(versionstamp) {
                Mutation::Set { key, value } => {
                    data.insert(key, (value, version));
                }
                Mutation::Clear { key } => {
                    data.remove(&key);
                }
                Mutation::ClearRange { range } => data.retain(|key, _| !range.contains(key)),
                Mutation::Atomic { key, op, operand } => {
                    match op.apply(data.get(&key).map(|(value, _)| value), &operand) {
                        Some(value) => data.insert(key, (value, version)),
                        None => data.remove(&key),
                    };
                }
                stamped => panic!("{stamped:?} after substitution"),
            }
        }
        self.data.insert(version, data);
        self.written.push((version, written));
        CommitOutcome::Committed(Committed { versionstamp })
    }
}

impl Proxy for Cluster {
    async fn read_version(self, _: Context, _is_background: bool) -> Result<Version> {
        runtime::yield_now().await;
        let mut world = self.world.lock();
        world.counts.read_versions += 1;
        Ok(world.newest().0)
    }

    async fn commit_all(
        self,
        context: Context,
        requests: Vec<CommitRequest>,
    ) -> Vec<Result<CommitOutcome>> {
        let mut outcomes = Vec::new();
        for request in requests {
            outcomes.push(self.clone().commit(context, request).await);
        }
        outcomes
    }

    async fn commit(self, _: Context, request: CommitRequest) -> Result<CommitOutcome> {
        request.check(Stage::Commit)?;
        let fault = {
            let mut world = self.world.lock();
            world.counts.commits += 1;
            world.faults.pop_front().unwrap_or(Fault::None)
        };
        match fault {
            Fault::None => Ok(self.world.lock().commit(request)),
            Fault::LoseAnswer => {
                self.world.lock().commit(request);
                self.break_connection().await
            }
            Fault::LoseRequest => self.break_connection().await,
            Fault::LoseAnswerThenSweep => {
                self.world.lock().commit(request);
                self.sweep();
                self.break_connection().await
            }
            Fault::LoseRequestThenSweep => {
                // Somebody else's commit, which the sweeper has come to meanwhile.
                self.world.lock().commit(CommitRequest::default());
                self.sweep();
                self.break_connection().await
            }
            Fault::Hold => {
                self.world.lock().held.push(request);
                self.break_connection().await
            }
            Fault::DeliverHeldFirst => {
                self.deliver_held();
                Ok(self.world.lock().commit(request))
            }
            Fault::Wait => {
                let outcome = self.world.lock().commit(request);
                self.may_go_on.notified().await;
                Ok(outcome)
            }
        }
    }
}

impl Storage for Cluster {
    async fn get(self, _: Context, reads: Vec<PointRead>) -> Vec<Result<Option<VersionedValue>>> {
        // As over a network: whoever asks has to wait.
        runtime::yield_now().await;
        let mut world = self.world.lock();
        world.counts.point_requests += 1;
        world.counts.point_reads += reads.len();
        let answer = |read: &PointRead| {
            let found = world.at(read.read_version)?.get(&read.key).cloned();
            Ok(found.map(|(value, commit_version)| VersionedValue { value, commit_version }))
        };
        reads.iter().map(answer).collect()
    }

    async fn get_range(self, _: Context, request: RangeRead) -> Result<RangeReply> {
        let mut world = self.world.lock();
        world.counts.range_requests += 1;
        let data = world.at(request.read_version)?;
        let row = |(key, (value, commit_version)): (&Key, &(Value, Version))| Row {
            key: key.clone(),
            value: value.clone(),
            commit_version: *commit_version,
        };
        let mut rows: Vec<Row> =
            data.iter().filter(|(key, _)| request.range.contains(key)).map(row).collect();
        if request.reverse {
            rows.reverse();
        }
        let mut bytes = 0;
        let within_bytes = rows.iter().take_while(|row| {
            let fits = bytes < request.bytes_max as usize;
            bytes += row.key.len() + row.value.len();
            fits
        });
        let kept = within_bytes.count().max(1).min(request.rows_max as usize);
        let place = |row: &Row| if request.reverse { row.key.successor() } else { row.key.clone() };
        let continue_at = rows.get(kept).map(place);
        rows.truncate(kept);
        Ok(RangeReply { rows, continue_at })
    }

    async fn measure(self, _: Context, request: Measure) -> Result<Measured> {
        let world = self.world.lock();
        let data = world.at(request.read_version)?;
        let inside = data.iter().filter(|(key, _)| request.range.contains(key));
        let bytes = inside.map(|(key, (value, _))| (key.len() + value.len()) as u64).sum();
        Ok(Measured {
            bytes,
            through: request.range.end,
            split_points: Vec::new(),
            has_passed: request.has_passed + bytes,
        })
    }

    async fn progress(self, _: Context) -> Result<Progress> {
        Ok(Progress::default())
    }

    /// It has too many watches already, whatever it is told: clients have to look for themselves.
    async fn change_watches(self, _: Context, changes: WatchChanges) -> Result<()> {
        self.check_cluster()?;
        let refused = changes.begin.iter().map(|watched| (watched.number, WatchEnd::TooMany));
        self.world.lock().watches.extend(refused);
        Ok(())
    }

    async fn watch_news(self, _: Context, _: WatchSessionId, _: u32) -> Result<WatchNews> {
        self.check_cluster()?;
        let ended = std::mem::take(&mut self.world.lock().watches);
        if ended.is_empty() {
            ferrisdb_core::runtime::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(WatchNews { applied_version: Version(u64::MAX), ended })
    }
}

impl Controller for Cluster {
    async fn leader(self, _: Context) -> Result<Leader> {
        self.check_cluster()?;
        Ok(Leader { address: Some(Address::new(ADDRESS)), controllers: Vec::new() })
    }

    async fn administer(self, _: Context, _: Command) -> Result<()> {
        Err(Error::new(ErrorCode::Unsupported, Stage::Control, "a fake has nothing to administer"))
    }

    async fn heartbeat(self, _: Context, _: Heartbeat) -> Result<HeartbeatReply> {
        Err(Error::new(ErrorCode::Unsupported, Stage::Control, "nobody registers here"))
    }

    async fn cluster_state(self, _: Context, known_revision: u64) -> Result<StateNews> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            self.check_cluster()?;
            let state = self.world.lock().state.clone();
            if state.revision > known_revision {
                return Ok(StateNews { state: Some(state), is_led: true });
            }
            changed.await;
        }
    }

    async fn status(self, _: Context) -> Result<Status> {
        let cluster = self.world.lock().state.clone();
        let controller = Address::new(ADDRESS);
        Ok(Status {
            metadata_version: Version::ZERO,
            unreached: Vec::new(),
            cluster,
            processes: Vec::new(),
            leads_for_ms: 60_000,
            failure_timeout_ms: 1_000,
            recoveries: 0,
            last_recovery: None,
            controller,
            silent_controllers: Vec::new(),
            repairs: Vec::new(),
            stuck: Vec::new(),
        })
    }
}
