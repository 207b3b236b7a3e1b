//! The consistency check against storage servers that are right, wrong, slow, gone, and moving.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferrisdb_client::{
    Address, ConsistencyReport, Database, Error, ErrorCode, Generation, Key, KeyRange, Network,
    Result, Stage, Status, Value, Version,
};
use ferrisdb_core::{
    ClusterId, Endpoint, ProcessId, Shard, ShardMap, Tag, Teams, handler,
    service::{
        controller::{
            ClusterState, Command, Controller, ControllerService, CoordinatorMembers, Heartbeat,
            HeartbeatReply, Leader, Phase, Progress, StateNews, StorageServer,
        },
        proxy::{Proxy, ProxyService},
        storage::{
            Measure, Measured, PointRead, RangeRead, RangeReply, Row, Storage, StorageService,
            VersionedValue, WatchChanges, WatchNews, WatchSessionId,
        },
    },
    transaction::{CommitOutcome, CommitRequest},
    transport::Router,
};
use parking_lot::Mutex;
use tarpc::context::Context;
use tokio::sync::Notify;

const CONTROLLER: &str = "controller";

/// What all fakes share.
type Plan = Box<dyn FnOnce(&mut World) + Send>;

struct World {
    state: ClusterState,
    version: Version,
    /// The oldest version that storage servers still have.
    oldest: Version,
    servers: BTreeMap<Tag, Server>,
    /// What happens when so many pages were read.
    plans: BTreeMap<usize, Plan>,
    pages: usize,
    /// The versions at which pages were read.
    read_at: BTreeSet<Version>,
}

/// A storage server: what it holds, and which keys it believes to hold.
#[derive(Clone, Default)]
struct Server {
    rows: BTreeMap<Key, (Value, Version)>,
    owned: Vec<KeyRange>,
    /// Most rows of a page.
    rows_max: usize,
}

/// The cluster. Clones are the same.
#[derive(Clone)]
struct Cluster {
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
    network: Network,
}

/// One of its storage servers.
#[derive(Clone)]
struct StorageFake {
    cluster: Cluster,
    tag: Tag,
}

fn address(tag: u32) -> Address {
    Address::new(format!("s{tag}"))
}

fn shard(begin: &str, end: Key, team: &[u32]) -> Shard {
    let teams = Teams::of(team.iter().copied().map(Tag));
    Shard { range: KeyRange { begin: begin.into(), end }, teams }
}

impl Cluster {
    /// Shards up to m on servers 0 and 1, from m on 1 and 2, with a hundred keys each and one of the system.
    fn new() -> Cluster {
        let server = |tag: u32| StorageServer {
            tag: Tag(tag),
            process: ProcessId(u128::from(tag)),
            endpoint: Endpoint::of_process(address(tag)),
            zone: format!("z{tag}"),
            begin_version: Version(0),
        };
        let controller = Endpoint::of_process(Address::new(CONTROLLER));
        let shards = vec![shard("", "m".into(), &[0, 1]), shard("m", Key::SYSTEM_END, &[1, 2])];
        let mut servers: BTreeMap<Tag, Server> = BTreeMap::new();
        for shard in &shards {
            for tag in &shard.teams.team {
                let server = servers.entry(*tag).or_default();
                server.rows_max = 30 + tag.0 as usize;
                server.owned.push(shard.range.clone());
                for (key, value) in rows().filter(|(key, _)| shard.range.contains(key)) {
                    server.rows.insert(key, (value, Version(7)));
                }
            }
        }
        let state = ClusterState {
            cluster_id: ClusterId(7),
            revision: 1,
            generation: Generation(1),
            phase: Phase::Active,
            coordinator: Some(CoordinatorMembers {
                sequencer: controller.clone(),
                proxies: vec![controller],
                resolvers: Vec::new(),
            }),
            log_sets: Vec::new(),
            storage_servers: vec![server(0), server(1), server(2)],
            next_tag: Tag(3),
            shards: ShardMap::new(shards),
            controllers: Vec::new(),
            configuration: None,
            excluded: Vec::new(),
        };
        let world = World {
            state,
            version: Version(1000),
            oldest: Version(0),
            servers,
            plans: BTreeMap::new(),
            pages: 0,
            read_at: BTreeSet::new(),
        };
        let (world, network) = (Arc::new(Mutex::new(world)), Network::new());
        let cluster = Cluster { world, changed: Arc::default(), network: network.clone() };
        let router = Router::new();
        router.add::<ControllerService>(0, handler!(Controller, cluster.clone()));
        router.add::<ProxyService>(0, handler!(Proxy, cluster.clone()));
        network.add_local(Address::new(CONTROLLER), router);
        for tag in 0..3 {
            let router = Router::new();
            let fake = StorageFake { cluster: cluster.clone(), tag: Tag(tag) };
            router.add::<StorageService>(0, handler!(Storage, fake));
            network.add_local(address(tag), router);
        }
        cluster
    }

    async fn check(&self) -> ConsistencyReport {
        let controllers = vec![Address::new(CONTROLLER)];
        let database = Database::connect_with(self.network.clone(), controllers).await.unwrap();
        let mut last = Default::default();
        let report = database.check_consistency(|progress| last = *progress).await.unwrap();
        assert_eq!(report.total, last, "the last progress is the end");
        assert_eq!(last.shards, last.shards_total);
        report
    }

    fn server(&self, tag: u32, change: impl FnOnce(&mut Server)) {
        change(self.world.lock().servers.get_mut(&Tag(tag)).unwrap());
    }

    /// Changes the world once so many pages were read.
    fn after_pages(&self, pages: usize, change: impl FnOnce(&mut World) + Send + 'static) {
        self.world.lock().plans.insert(pages, Box::new(change));
    }

    /// Nothing is offered at the address of a server any more.
    fn stop(&self, tag: u32) {
        self.network.add_local(address(tag), Router::new());
    }
}

fn rows() -> impl Iterator<Item = (Key, Value)> {
    let user = (0..100).flat_map(|n| [format!("a{n:03}"), format!("p{n:03}")]);
    let user = user.map(|key| (Key::from(key.as_str()), Value::from(format!("value of {key}"))));
    user.chain([(Key::from(b"\xff/conf"), Value::from("x"))])
}

fn change(world: &mut World, change: impl FnOnce(&mut ClusterState)) {
    change(&mut world.state);
    world.state.revision += 1;
}

fn read_error(code: ErrorCode) -> Error {
    Error::new(code, Stage::Read, "")
}

impl Storage for StorageFake {
    async fn get(self, _: Context, _: Vec<PointRead>) -> Vec<Result<Option<VersionedValue>>> {
        Vec::new()
    }

    async fn get_range(self, _: Context, request: RangeRead) -> Result<RangeReply> {
        let mut world = self.cluster.world.lock();
        world.pages += 1;
        let pages = world.pages;
        if let Some(plan) = world.plans.remove(&pages) {
            plan(&mut world);
            self.cluster.changed.notify_waiters();
        }
        if request.read_version < world.oldest {
            return Err(read_error(ErrorCode::TransactionTooOld));
        }
        world.read_at.insert(request.read_version);
        let server = &world.servers[&self.tag];
        let KeyRange { begin, end } = &request.range;
        let owns = |owned: &KeyRange| owned.begin <= *begin && *end <= owned.end;
        if !server.owned.iter().any(owns) {
            return Err(read_error(ErrorCode::WrongShard));
        }
        let inside = server.rows.range(begin.clone()..end.clone());
        let row = |(key, (value, commit_version)): (&Key, &(Value, Version))| Row {
            key: key.clone(),
            value: value.clone(),
            commit_version: *commit_version,
        };
        let mut rows: Vec<Row> = inside.map(row).collect();
        let continue_at = rows.get(server.rows_max).map(|row| row.key.clone());
        rows.truncate(server.rows_max);
        Ok(RangeReply { rows, continue_at })
    }

    async fn measure(self, _: Context, _: Measure) -> Result<Measured> {
        Err(read_error(ErrorCode::Unsupported))
    }

    async fn progress(self, _: Context) -> Result<Progress> {
        Ok(Progress::default())
    }

    async fn change_watches(self, _: Context, _: WatchChanges) -> Result<()> {
        Err(read_error(ErrorCode::Unsupported))
    }

    async fn watch_news(self, _: Context, _: WatchSessionId, _: u32) -> Result<WatchNews> {
        Err(read_error(ErrorCode::Unsupported))
    }
}

impl Proxy for Cluster {
    async fn read_version(self, _: Context, _: bool) -> Result<Version> {
        let mut world = self.world.lock();
        world.version = Version(world.version.0 + 1);
        Ok(world.version)
    }

    async fn commit(self, _: Context, _: CommitRequest) -> Result<CommitOutcome> {
        Err(Error::new(ErrorCode::Unsupported, Stage::Commit, "nothing is written here"))
    }

    async fn commit_all(
        self,
        context: Context,
        requests: Vec<CommitRequest>,
    ) -> Vec<Result<CommitOutcome>> {
        let refused = self.commit(context, CommitRequest::default()).await;
        vec![refused; requests.len()]
    }
}

impl Controller for Cluster {
    async fn leader(self, _: Context) -> Result<Leader> {
        Ok(Leader { address: Some(Address::new(CONTROLLER)), controllers: Vec::new() })
    }

    async fn heartbeat(self, _: Context, _: Heartbeat) -> Result<HeartbeatReply> {
        Err(Error::new(ErrorCode::Unsupported, Stage::Control, "nobody registers here"))
    }

    async fn cluster_state(self, _: Context, known_revision: u64) -> Result<StateNews> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let state = self.world.lock().state.clone();
            if state.revision > known_revision {
                return Ok(StateNews { state: Some(state), is_led: true });
            }
            changed.await;
        }
    }

    async fn status(self, _: Context) -> Result<Status> {
        Err(Error::new(ErrorCode::Unsupported, Stage::Control, "the check does not ask for it"))
    }

    async fn administer(self, _: Context, _: Command) -> Result<()> {
        Err(Error::new(ErrorCode::Unsupported, Stage::Control, "nothing to administer"))
    }
}

#[tokio::test]
async fn equal_replicas_are_clean() {
    let cluster = Cluster::new();
    let report = cluster.check().await;
    assert!(report.is_clean(), "{report:?}");
    // The system keyspace is a part of it.
    assert_eq!((report.total.rows, report.total.shards, report.replicas), (201, 2, 4));
    let bytes: usize = rows().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!(report.total.bytes, bytes as u64);
}

#[tokio::test]
async fn every_kind_of_difference_is_found() {
    let cluster = Cluster::new();
    cluster.server(1, |server| {
        server.rows.get_mut(&Key::from("a050")).unwrap().0 = "another".into();
        server.rows.get_mut(&Key::from("p007")).unwrap().1 = Version(8);
        server.rows.remove(&Key::from("a099"));
        server.rows.remove(&Key::from(b"\xff/conf"));
    });
    cluster.server(0, |server| {
        server.rows.insert("lonely".into(), ("x".into(), Version(1)));
    });
    let report = cluster.check().await;
    let keys: Vec<String> = report.differences.iter().map(|d| d.key.to_string()).collect();
    assert_eq!(keys, ["a050", "a099", "lonely", "p007", r"\xff/conf"]);
    assert_eq!((report.total.differences, report.total.rows), (5, 202));
    let rows = &report.differences[0].rows;
    assert_eq!(rows[0].replica.to_string(), "storage 0 at s0");
    assert_eq!(rows[1].value, Some(("another".into(), Version(7))));
    assert!(report.unchecked.is_empty());
}

#[tokio::test]
async fn only_so_many_differences_are_kept() {
    let cluster = Cluster::new();
    cluster.server(1, |server| server.rows.clear());
    let report = cluster.check().await;
    assert_eq!((report.differences.len(), report.total.differences), (100, 201));
}

#[tokio::test]
async fn a_server_that_is_gone_is_unchecked_and_no_difference() {
    let cluster = Cluster::new();
    cluster.stop(1);
    let report = cluster.check().await;
    assert_eq!((report.total.differences, report.total.rows, report.replicas), (0, 201, 2));
    // One entry for both of its shards.
    assert_eq!(report.unchecked.len(), 1, "{:?}", report.unchecked);
    assert_eq!(report.unchecked[0].range, KeyRange::new(Key::MIN, Key::SYSTEM_END));
    assert_eq!(report.unchecked[0].replica.tag, Tag(1));
    assert!(!report.is_clean());
}

#[tokio::test]
async fn a_shard_without_any_server_is_unchecked_on_all() {
    let cluster = Cluster::new();
    (0..2).for_each(|tag| cluster.stop(tag));
    let report = cluster.check().await;
    assert_eq!(report.total.rows, 101, "the other shard is still on server 2");
    let unchecked: Vec<_> = report.unchecked.iter().map(|u| (u.replica.tag.0, &u.range)).collect();
    let (first, all) = (KeyRange::new("", "m"), KeyRange::new(Key::MIN, Key::SYSTEM_END));
    assert_eq!(unchecked, [(0, &first), (1, &all)]);
}

#[tokio::test]
async fn a_version_that_gets_too_old_is_replaced() {
    let cluster = Cluster::new();
    for pages in [4, 9] {
        cluster.after_pages(pages, |world| world.oldest = Version(world.version.0 + 1));
    }
    let report = cluster.check().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.total.rows, 201, "no row is counted twice");
    assert!(cluster.world.lock().read_at.len() >= 3, "three versions were used");
}

#[tokio::test]
async fn a_shard_that_moves_is_looked_up_again() {
    let cluster = Cluster::new();
    // In the middle of the first shard: its second part goes from 0 to 2.
    cluster.after_pages(3, |world| {
        let moved = KeyRange::new("a090", "m");
        let rows: Vec<_> = world.servers[&Tag(0)].rows.range(moved.begin.clone()..).collect();
        let rows: Vec<_> = rows.into_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let taker = world.servers.get_mut(&Tag(2)).unwrap();
        taker.rows.extend(rows);
        taker.owned.push(moved.clone());
        world.servers.get_mut(&Tag(0)).unwrap().owned = vec![KeyRange::new("", "a090")];
        change(world, |state| {
            state.shards.set(&moved.begin, Teams::of([Tag(1), Tag(2)]));
        });
    });
    let report = cluster.check().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.total.rows, report.total.shards), (201, 3));
}

#[tokio::test]
async fn a_server_that_denies_its_shard_is_unchecked() {
    let cluster = Cluster::new();
    cluster.server(2, |server| server.owned.clear());
    let report = cluster.check().await;
    assert_eq!((report.total.differences, report.total.rows), (0, 201));
    assert_eq!(report.unchecked.len(), 1, "{:?}", report.unchecked);
    assert!(report.unchecked[0].reason.contains("wrong_shard"), "{:?}", report.unchecked);
}

#[tokio::test]
async fn a_server_that_nobody_knows_is_unchecked() {
    let cluster = Cluster::new();
    change(&mut cluster.world.lock(), |state| {
        state.storage_servers.pop();
    });
    let report = cluster.check().await;
    assert_eq!(report.unchecked[0].replica.to_string(), "storage 2");
    assert_eq!(report.total.rows, 201);
}
