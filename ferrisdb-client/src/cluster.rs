//! The client's side of the cluster: whom to ask, over which connection, and what to do when that fails.
//!
//! ```text
//!   read version   any proxy     asked again elsewhere, in the next generation, until the limit: harmless
//!   read           any server    of the shard's team, the fast ones first; the next one if it fails or takes long;
//!                                a fresh map if all do
//!   commit         one proxy     never asked twice: without an answer its result is unknown (I-6), as soon as a later
//!                                generation is active, or the proxy does not even greet; one that was not sent goes elsewhere
//! ```
//!
//! Errors that only say "ask somebody else" are handled here. What remains is an error of the whole attempt,
//! with a code by which the transaction is retried or not.
//!
//! Keeps I-1 (through [`crate::batch`]) and I-6. Knows nothing of transactions' contents.
//! Start with [`Cluster::commit`].

mod links;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Generation, Key, KeyRange, Result, Stage, Version,
    cluster_view::ClusterView,
    controllers::Controllers,
    id::Address,
    limits, runtime,
    service::{
        Client,
        controller::{ClusterState, Command, Status},
        storage::{Measure, Measured, PointRead, Row, StorageService, VersionedValue},
    },
    transaction::{CommitOutcome, CommitRequest},
    transport::{self, Network},
};
use futures::FutureExt as _;
use parking_lot::Mutex;

use self::links::{CommitAnswer, Links, Tries, has_replaced};
use crate::{
    batch::{self, Batcher},
    connections::Connections,
    hedge,
    locations::Locations,
    options::{Priority, Settings},
    read_your_writes::Fetch,
};

/// How long one server may take over a read or a read version before another one is asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long the controllers may take over a command. Adding one of them takes as long as it takes to catch up.
const ADMINISTER_LIMIT: Duration = Duration::from_secs(30);
/// How old a version may be that a commit is sent with when it has read nothing. Far from the window's end, so that
/// hardly any is refused as too old.
const RECENT: Duration = Duration::from_secs(1);

/// Few rounds in flight make large batches; more than one hides the time on the way.
const READ_VERSION_BATCHES: batch::Limits<()> =
    batch::Limits { rounds_max: 2, weight_max: usize::MAX, weigh: |()| 1 };
/// Reads that many transactions issue at once go out as several rounds, so that the client works on the first answers while the
/// server works on the next questions; with everything in one round the two of them take turns.
const POINT_READ_BATCHES: batch::Limits<PointRead> =
    batch::Limits { rounds_max: 4, weight_max: 128, weigh: |_| 1 };
const _: () = assert!(POINT_READ_BATCHES.weight_max <= limits::READS_PER_REQUEST_MAX);
/// A round of commits takes as long as the slowest of them, so a few more may be under way. Their weight is in bytes: a
/// large transaction is not to hold up small ones.
const COMMIT_BATCHES: batch::Limits<CommitRequest> =
    batch::Limits { rounds_max: 8, weight_max: 1 << 20, weigh: CommitRequest::size };

type PointReads = Batcher<PointRead, Result<Option<VersionedValue>>>;
type Commits = Batcher<CommitRequest, CommitAnswer>;

/// A cluster, as one database handle sees it.
pub(crate) struct Cluster {
    links: Arc<Links>,
    /// One for each priority.
    read_versions: [Arc<Batcher<(), Result<Version>>>; 3],
    point_reads: Mutex<BTreeMap<Endpoint, Arc<PointReads>>>,
    /// By proxy: the generation that it belongs to, and the commits that it is asked for.
    commits: Mutex<BTreeMap<Endpoint, (Generation, Arc<Commits>)>>,
}

/// All rows of a part of a range.
pub(crate) struct RangePart {
    pub(crate) covered: KeyRange,
    pub(crate) rows: Vec<Row>,
}

impl Cluster {
    /// Follows the cluster of these controllers; knows nothing of it yet.
    pub(crate) fn new(network: Network, controllers: Vec<Address>, settings: Settings) -> Cluster {
        let controllers = Controllers::new(network.clone(), controllers);
        let links = Arc::new(Links {
            view: ClusterView::follow(controllers.clone()),
            proxies: Connections::new(network.clone()),
            storage: Connections::new(network.clone()),
            network,
            controllers,
            settings,
            locations: Mutex::default(),
            turn: AtomicUsize::new(0),
            hedges: hedge::Budget::default(),
            newest_heard: AtomicU64::new(0),
            proxy_hedges: hedge::Budget::default(),
            newest_version: Mutex::default(),
            fresh_version: Mutex::default(),
        });
        let read_versions = |priority| {
            let asked = Arc::clone(&links);
            Batcher::new(READ_VERSION_BATCHES, move |questions: Vec<()>| {
                let links = Arc::clone(&asked);
                async move { vec![links.read_version(priority).await; questions.len()] }.boxed()
            })
        };
        let read_versions =
            [Priority::Batch, Priority::Default, Priority::Immediate].map(read_versions);
        Cluster { links, read_versions, point_reads: Mutex::default(), commits: Mutex::default() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.links.settings
    }

    /// Waits until the state of the cluster is known.
    pub(crate) async fn connected(&self) -> Result<()> {
        let links = &self.links;
        let state = links.newer_state(0, runtime::now() + links.settings.connect_limit).await?;
        links.network.join(state.cluster_id)
    }

    /// A version that covers every commit acknowledged before the call (I-1).
    pub(crate) async fn read_version(&self, priority: Priority) -> Result<Version> {
        if planted(Plant::ReuseReadVersion)
            && let Some(version) = self.recent_version()
        {
            return Ok(version);
        }
        self.read_versions[priority as usize].ask(()).await?
    }

    /// A read version that was asked for at most so long ago, if there is one.
    pub(crate) fn version_within(&self, age: Duration) -> Option<Version> {
        let heard = (*self.links.fresh_version.lock())?;
        // While a recovery is under way storage servers have everything still.
        let is_over = has_replaced(&*self.links.view.latest()?, heard.generation);
        (!is_over && heard.age() <= age).then_some(heard.version)
    }

    /// A version that was committed a short while ago, if one was heard of.
    pub(crate) fn recent_version(&self) -> Option<Version> {
        let heard = (*self.links.newest_version.lock())?;
        let is_present = self.links.view.latest()?.generation == heard.generation;
        (is_present && heard.age() < RECENT).then_some(heard.version)
    }

    /// Reads a key at a version.
    pub(crate) async fn get(
        &self,
        key: &Key,
        read_version: Version,
    ) -> Result<Option<VersionedValue>> {
        let mut tries = Tries::new(&self.links);
        loop {
            let locations = self.links.locations(tries.deadline).await?;
            let team = locations.of_key(key).map(|location| &location.team[..]);
            let servers = self.links.storage.in_order(team.unwrap_or_default(), self.links.turn());
            // A version that was set by hand may be one that no server reaches for long: nobody else is to wait with it.
            let is_known = read_version.0 <= self.links.newest_heard.load(Ordering::Relaxed);
            let ask = |server: Endpoint| async move {
                let read = PointRead { key: key.clone(), read_version };
                if is_known {
                    return self.point_reads(&server).ask(read).await?;
                }
                let mut answers = self.links.read_points(&server, vec![read]).boxed().await?;
                answers.remove(0)
            };
            let failed = |error| tries.failed(error);
            let links = &self.links;
            match hedge::first_answer(servers, &links.hedges, &links.storage, ask, failed).await? {
                Some(value) => return Ok(value),
                None => tries.pause(locations.revision).await?,
            }
        }
    }

    /// Reads the near end of a range at a version: as much as one server gives at once.
    pub(crate) async fn get_range(
        &self,
        fetch: &Fetch,
        read_version: Version,
    ) -> Result<RangePart> {
        let links = &self.links;
        let read = |server, part| async move {
            links.read_part(&server, fetch, &part, read_version).await
        };
        links.near_part(&fetch.range, fetch.reverse, read).await
    }

    /// Measures the lower end of a range at a version: as much as one server does at once.
    pub(crate) async fn measure(
        &self,
        range: &KeyRange,
        read_version: Version,
        chunk_bytes: u64,
        has_passed: u64,
    ) -> Result<Measured> {
        let links = &self.links;
        let measure = |server, part| async move {
            let request = Measure { range: part, read_version, chunk_bytes, has_passed };
            links.measure_part(&server, request).await
        };
        links.near_part(range, false, measure).await
    }

    /// The addresses of the servers that hold a key.
    pub(crate) async fn addresses_of(&self, key: &Key) -> Result<Vec<Address>> {
        let mut tries = Tries::new(&self.links);
        loop {
            let locations = self.links.locations(tries.deadline).await?;
            let team = locations.of_key(key).map(|location| &location.team[..]);
            let team = team.unwrap_or_default();
            if !team.is_empty() {
                return Ok(team.iter().map(|endpoint| endpoint.address.clone()).collect());
            }
            tries.pause(locations.revision).await?;
        }
    }

    /// Commits a transaction. `sent` says from when on the request may have been sent: a caller who stops waiting before that
    /// knows that it did not take effect.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::CommitUnknownResult`] if it may have been sent but no answer came (I-6); after any other
    /// error it did not take effect.
    pub(crate) async fn commit(
        &self,
        request: CommitRequest,
        sent: &AtomicBool,
    ) -> Result<CommitOutcome> {
        let links = &self.links;
        let deadline = runtime::now() + links.settings.read_version_limit;
        let mut request = request;
        loop {
            let (state, proxies) = links.active_proxies(deadline).await?;
            let error = match links.open_proxy(&proxies, state.generation, deadline).await {
                Ok(proxy) => {
                    let limit = links.settings.commit_limit;
                    sent.store(true, Ordering::Relaxed);
                    let commits = self.commits(&proxy, state.generation);
                    let asked = commits.ask(request);
                    match runtime::timeout(limit, Stage::Commit, asked).await {
                        Ok(Ok(CommitAnswer::Ended(outcome))) => return outcome,
                        Ok(Ok(CommitAnswer::NotSent(unsent, error))) => {
                            mark(Mark::CommitWentElsewhere);
                            sent.store(false, Ordering::Relaxed);
                            request = unsent;
                            error
                        }
                        // Not taken at all.
                        Ok(Err(busy)) if busy.code() == ErrorCode::TooBusy => return Err(busy),
                        // It may have been sent, and the proxy may be at it still.
                        Ok(Err(error)) | Err(error) => {
                            return Err(error.with_code(ErrorCode::CommitUnknownResult).at(&proxy));
                        }
                    }
                }
                Err(error) => error,
            };
            // Nothing was sent: another proxy may be asked, or the next generation's.
            links.pause(state.revision, deadline, error).await?;
        }
    }

    /// What an operator wants to know, from the leading controller.
    pub(crate) async fn status(&self) -> Result<Status> {
        let (leader, client) = self.links.controllers.leader().await?;
        transport::call(ANSWER_LIMIT, Stage::Control, |context| client.status(context))
            .await?
            .map_err(|error| error.at(&leader))
    }

    /// Has the leading controller carry out a command.
    pub(crate) async fn administer(&self, command: Command) -> Result<()> {
        let (leader, client) = self.links.controllers.leader().await?;
        transport::call(ADMINISTER_LIMIT, Stage::Control, |context| {
            client.administer(context, command)
        })
        .await?
        .map_err(|error| error.at(&leader))
    }

    /// The error that says so, if the controllers are another cluster's by now; see [`ClusterView::is_replaced`].
    pub(crate) fn is_replaced(&self, others_say_so: bool) -> Option<Error> {
        self.links.view.is_replaced(others_say_so)
    }

    /// How servers are reached.
    pub(crate) fn network(&self) -> &Network {
        &self.links.network
    }

    /// The controllers, as far as they are known.
    pub(crate) fn controllers(&self) -> &Controllers {
        &self.links.controllers
    }

    /// The newest state of the cluster, as soon as its revision is past `revision`; zero for any.
    pub(crate) async fn state_after(
        &self,
        revision: u64,
        limit: Duration,
    ) -> Result<Arc<ClusterState>> {
        self.links.newer_state(revision, runtime::now() + limit).await
    }

    /// Where keys are, as far as that is known now.
    pub(crate) fn known_locations(&self) -> Option<Arc<Locations>> {
        self.links.view.latest().map(|state| self.links.locations_of(&state))
    }

    /// Waits until a later revision of the map is known.
    pub(crate) async fn newer_locations(&self, revision: u64) {
        self.links.view.newer_than(revision).await;
    }

    /// Some servers in the order in which to try them.
    pub(crate) fn in_order(&self, servers: &[Endpoint]) -> Vec<Endpoint> {
        self.links.storage.in_order(servers, self.links.turn())
    }

    /// The connection to a storage server.
    pub(crate) async fn storage(&self, server: &Endpoint) -> Result<Client<StorageService>> {
        self.links.storage.get(server).await
    }

    /// A storage server did not answer: it is asked after others for a while, over a new connection.
    pub(crate) fn storage_failed(&self, server: &Endpoint) {
        self.links.storage.failed(server);
    }

    /// The batcher of a proxy's commits.
    fn commits(&self, proxy: &Endpoint, generation: Generation) -> Arc<Commits> {
        let mut batchers = self.commits.lock();
        if let Some((_, batcher)) = batchers.get(proxy) {
            return Arc::clone(batcher);
        }
        // A new proxy: those of generations before it are gone.
        batchers.retain(|_, (earlier, _)| *earlier >= generation);
        let (links, endpoint) = (Arc::clone(&self.links), proxy.clone());
        let batcher = Batcher::new(COMMIT_BATCHES, move |requests: Vec<CommitRequest>| {
            let (links, proxy) = (Arc::clone(&links), endpoint.clone());
            async move { links.commit_at(&proxy, generation, requests).await }.boxed()
        });
        batchers.insert(proxy.clone(), (generation, Arc::clone(&batcher)));
        batcher
    }

    /// The batcher of a server's point reads.
    fn point_reads(&self, server: &Endpoint) -> Arc<PointReads> {
        let mut batchers = self.point_reads.lock();
        if let Some(batcher) = batchers.get(server) {
            return Arc::clone(batcher);
        }
        // A new server: a good moment to forget those that are gone.
        if let Some(state) = self.links.view.latest() {
            let is_known = |endpoint: &Endpoint| {
                state.storage_servers.iter().any(|server| server.endpoint == *endpoint)
            };
            batchers.retain(|endpoint, _| is_known(endpoint));
            self.links.storage.retain(is_known);
        }
        let (links, endpoint) = (Arc::clone(&self.links), server.clone());
        let batcher = Batcher::new(POINT_READ_BATCHES, move |reads: Vec<PointRead>| {
            let (links, endpoint) = (Arc::clone(&links), endpoint.clone());
            async move {
                let count = reads.len();
                match links.read_points(&endpoint, reads).await {
                    Ok(answers) => answers,
                    Err(error) => vec![Err(error); count],
                }
            }
            .boxed()
        });
        batchers.insert(server.clone(), Arc::clone(&batcher));
        batcher
    }
}
