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

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::simulation::{self, Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Generation, Key, KeyRange, Result, Stage, Version,
    cluster_view::ClusterView,
    controllers::Controllers,
    id::Address,
    limits,
    runtime::{self, Instant},
    service::{
        Client,
        controller::{ClusterState, Command, Phase, Status},
        proxy::ProxyService,
        storage::{Measure, Measured, PointRead, RangeRead, Row, StorageService, VersionedValue},
    },
    transaction::{CommitOutcome, CommitRequest},
    transport::{self, Network},
};
use futures::FutureExt as _;
use parking_lot::Mutex;

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
/// How long a proxy may take over a commit before it is asked whether it lives; then twice as long each time, up to the maximum.
const COMMIT_PATIENCE: Duration = Duration::from_millis(300);
const COMMIT_PATIENCE_MAX: Duration = Duration::from_secs(5);
/// How long to wait for news of the cluster before the same servers are asked again.
const PAUSE: Duration = Duration::from_millis(25);
/// How old a version may be that a commit is sent with when it has read nothing. Far from the window's end, so that
/// hardly any is refused as too old.
const RECENT: Duration = Duration::from_secs(1);
/// How many servers may say that they have not reached the version before the caller hears it.
const FUTURE_VERSIONS_MAX: usize = 3;

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

/// What became of a commit at a proxy.
enum CommitAnswer {
    /// It was sent, and this is what is known.
    Ended(Result<CommitOutcome>),
    /// It was not sent, for this reason.
    NotSent(CommitRequest, Error),
}

/// A cluster, as one database handle sees it.
pub(crate) struct Cluster {
    links: Arc<Links>,
    /// One for each priority.
    read_versions: [Arc<Batcher<(), Result<Version>>>; 3],
    point_reads: Mutex<BTreeMap<Endpoint, Arc<PointReads>>>,
    /// By proxy: the generation that it belongs to, and the commits that it is asked for.
    commits: Mutex<BTreeMap<Endpoint, (Generation, Arc<Commits>)>>,
}

/// A version that was heard of: in which generation, and when. The next generation begins so far ahead that everything from before
/// it is too old.
#[derive(Clone, Copy)]
struct Heard {
    version: Version,
    generation: Generation,
    at: Instant,
}

impl Heard {
    fn age(&self) -> Duration {
        runtime::now().saturating_duration_since(self.at)
    }
}

/// Whether a later generation than this is active.
fn has_replaced(state: &ClusterState, generation: Generation) -> bool {
    state.generation > generation && state.phase == Phase::Active
}

/// What batches in flight need of the cluster. Apart, so that they do not keep their own batcher alive.
struct Links {
    network: Network,
    controllers: Controllers,
    settings: Settings,
    view: ClusterView,
    locations: Mutex<Arc<Locations>>,
    proxies: Connections<ProxyService>,
    storage: Connections<StorageService>,
    /// Counts requests, to spread them over servers that can all answer.
    turn: AtomicUsize,
    hedges: hedge::Budget,
    /// The newest version that was heard of.
    newest_heard: AtomicU64,
    /// Apart from those of reads: read versions are fewer, because many ask together.
    proxy_hedges: hedge::Budget,
    /// The newest version that was heard of, and when.
    newest_version: Mutex<Option<Heard>>,
    /// The newest read version, and when it was asked for.
    fresh_version: Mutex<Option<Heard>>,
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
                let mut answers = self.links.read_points(&server, vec![read]).await?;
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

impl Links {
    /// A read version from any proxy of whatever generation is alive.
    async fn read_version(&self, priority: Priority) -> Result<Version> {
        let asked_at = runtime::now();
        let deadline = asked_at + self.settings.read_version_limit;
        loop {
            let (state, proxies) = self.active_proxies(deadline).await?;
            let mut error = no_servers(Stage::ReadVersion, "the generation has no proxies");
            let ask = |proxy| self.read_version_of(proxy, state.generation, priority);
            let failed = |failed: Error| {
                if !is_of_server(failed.code()) {
                    return Err(failed);
                }
                error = failed;
                Ok(())
            };
            let (hedges, speeds) = (&self.proxy_hedges, ProxySpeeds(&self.proxies));
            if let Some(version) =
                hedge::first_answer(proxies, hedges, &speeds, ask, failed).await?
            {
                self.heard_of(version, state.generation);
                self.read_since(Heard { version, generation: state.generation, at: asked_at });
                return Ok(version);
            }
            self.pause(state.revision, deadline, error).await?;
        }
    }

    /// A read version was obtained: it covers all that was acknowledged before it was asked for.
    fn read_since(&self, heard: Heard) {
        let mut fresh = self.fresh_version.lock();
        if fresh.is_none_or(|known| heard.at > known.at) {
            *fresh = Some(heard);
        }
    }

    /// A committed version has come along.
    fn heard_of(&self, version: Version, generation: Generation) {
        let at = runtime::now();
        self.newest_heard.fetch_max(version.0, Ordering::Relaxed);
        let mut newest = self.newest_version.lock();
        if newest.is_none_or(|newest| version >= newest.version) {
            *newest = Some(Heard { version, generation, at });
        }
    }

    async fn read_version_of(
        &self,
        proxy: Endpoint,
        generation: Generation,
        priority: Priority,
    ) -> Result<Version> {
        let proxy = &proxy;
        let asked = async {
            let client = self.proxies.get(proxy).await?;
            let is_background = priority == Priority::Batch;
            let began = runtime::now();
            let answer = transport::call(ANSWER_LIMIT, Stage::ReadVersion, |context| {
                client.read_version(context, is_background)
            });
            let answer = answer.await?;
            self.proxies.answered(proxy, runtime::now().saturating_duration_since(began));
            Ok(answer)
        };
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            over = self.generation_is_over(generation, Stage::ReadVersion) => Err(over),
        };
        self.unwrap_answer(answer, &self.proxies, proxy)?
    }

    /// Waits until a later generation than this is active.
    async fn generation_is_over(&self, generation: Generation, stage: Stage) -> Error {
        let mut revision = 0;
        loop {
            let state = self.view.newer_than(revision).await;
            if has_replaced(&state, generation) {
                let detail =
                    format!("generation {generation} was replaced by {}", state.generation);
                return Error::new(ErrorCode::GenerationEnded, stage, detail);
            }
            revision = state.revision;
        }
    }

    /// A proxy that a commit can be sent to at once, as soon as there is one. News of the cluster end the wait.
    async fn open_proxy(
        &self,
        proxies: &[Endpoint],
        generation: Generation,
        deadline: Instant,
    ) -> Result<Endpoint> {
        let left = deadline.saturating_duration_since(runtime::now());
        let found = async {
            tokio::select! {
                biased;
                found = self.proxies.first_open(proxies) => found,
                over = self.generation_is_over(generation, Stage::Commit) => Err(over),
            }
        };
        let found = runtime::timeout(left, Stage::Commit, found).await;
        found.map_err(|late| late.with_code(ErrorCode::Unreachable))?
    }

    /// Waits until a proxy that does not answer does not even greet any more.
    async fn silence_of(&self, proxy: &Endpoint) -> Error {
        if planted(Plant::ClingToProxy) {
            return std::future::pending().await;
        }
        let mut patience = COMMIT_PATIENCE;
        loop {
            runtime::sleep(patience).await;
            if let Err(error) = self.proxies.probe(proxy).await {
                mark(Mark::ProxySilent);
                return error;
            }
            patience = (patience * 2).min(COMMIT_PATIENCE_MAX);
        }
    }

    /// Commits some transactions at a proxy.
    async fn commit_at(
        &self,
        proxy: &Endpoint,
        generation: Generation,
        requests: Vec<CommitRequest>,
    ) -> Vec<CommitAnswer> {
        let count = requests.len();
        let unsent = |requests: Vec<CommitRequest>, error: Error| {
            let answer = |request| CommitAnswer::NotSent(request, error.clone());
            requests.into_iter().map(answer).collect()
        };
        let client = match self.proxies.open(proxy) {
            Some(client) => client,
            // They have waited for those before them, which have found out.
            None => {
                let detail = "the connection has failed meanwhile";
                let error = Error::new(ErrorCode::Unreachable, Stage::Commit, detail).at(proxy);
                return unsent(requests, error);
            }
        };
        let copies = planted(Plant::SendElsewhere).then(|| requests.clone());
        let limit = self.settings.commit_limit;
        let committed =
            transport::call(limit, Stage::Commit, |context| client.commit_all(context, requests));
        let answer = tokio::select! {
            biased;
            () = simulation::answer_is_lost() => {
                let detail = "the connection broke before the answer";
                Err(Error::new(ErrorCode::Unreachable, Stage::Commit, detail))
            }
            answer = committed => answer,
            // Whatever the proxy may say now, it says too late: nobody of its generation commits any more.
            over = self.generation_is_over(generation, Stage::Commit) => Err(over),
            // A proxy that cannot be reached may have them all the same. Whoever asked finds that out by another one.
            silent = self.silence_of(proxy) => match copies {
                Some(copies) => return unsent(copies, silent),
                None => Err(silent),
            },
        };
        let answer = answer.and_then(|outcomes| {
            if outcomes.len() == count {
                return Ok(outcomes);
            }
            let detail = format!("{} outcomes of {count} commits", outcomes.len());
            Err(Error::new(ErrorCode::Protocol, Stage::Commit, detail))
        });
        match answer {
            Ok(outcomes) => {
                let committed = outcomes.iter().filter_map(|outcome| match outcome {
                    Ok(CommitOutcome::Committed(committed)) => Some(committed.versionstamp),
                    _ => None,
                });
                if let Some(newest) = committed.max() {
                    self.heard_of(newest.commit_version, generation);
                }
                let at_proxy =
                    |outcome: Result<_>| CommitAnswer::Ended(outcome.map_err(|e| e.at(proxy)));
                outcomes.into_iter().map(at_proxy).collect()
            }
            // They may have been sent, and the proxy may be at them still.
            Err(error) => {
                self.proxies.failed(proxy);
                let unknown = error.with_code(ErrorCode::CommitUnknownResult).at(proxy);
                let unknown = std::iter::repeat_n(unknown, count);
                unknown.map(|unknown| CommitAnswer::Ended(Err(unknown))).collect()
            }
        }
    }

    /// Has a server do something with the part of a range at its near end that lies in one shard, as soon as one of its
    /// team can.
    async fn near_part<T, Fut: Future<Output = Result<T>>>(
        &self,
        range: &KeyRange,
        reverse: bool,
        ask: impl Fn(Endpoint, KeyRange) -> Fut,
    ) -> Result<T> {
        let mut tries = Tries::new(self);
        loop {
            let locations = self.locations(tries.deadline).await?;
            if let Some((part, location)) = locations.near_part(range, reverse) {
                let servers = self.storage.in_order(&location.team, self.turn());
                let ask = |server| ask(server, part.clone());
                let failed = |error| tries.failed(error);
                let answer =
                    hedge::first_answer(servers, &self.hedges, &self.storage, ask, failed).await?;
                if let Some(answer) = answer {
                    return Ok(answer);
                }
            }
            tries.pause(locations.revision).await?;
        }
    }

    async fn measure_part(&self, server: &Endpoint, request: Measure) -> Result<Measured> {
        let part = request.range.clone();
        let answer = async {
            let client = self.storage.get(server).await?;
            transport::call(ANSWER_LIMIT, Stage::Read, |context| client.measure(context, request))
                .await
        };
        let measured = self.unwrap_answer(answer.await, &self.storage, server)?;
        let measured = measured.map_err(|error| error.at(server))?;
        let is_inside = |key: &Key| part.begin <= *key && *key < part.end;
        let is_measured = part.begin < measured.through
            && measured.through <= part.end
            && measured.split_points.iter().all(is_inside);
        if !is_measured {
            let detail = format!("measured {part} up to {}", measured.through);
            return Err(Error::new(ErrorCode::Protocol, Stage::Read, detail).at(server));
        }
        Ok(measured)
    }

    async fn read_points(
        &self,
        server: &Endpoint,
        reads: Vec<PointRead>,
    ) -> Result<Vec<Result<Option<VersionedValue>>>> {
        let count = reads.len();
        let answer = async {
            let client = self.storage.get(server).await?;
            transport::call(ANSWER_LIMIT, Stage::Read, |context| client.get(context, reads)).await
        };
        let began = runtime::now();
        let answers = self.unwrap_answer(answer.await, &self.storage, server)?;
        self.storage.answered(server, runtime::now().saturating_duration_since(began));
        if answers.len() != count {
            let detail = format!("{} answers to {count} reads", answers.len());
            return Err(Error::new(ErrorCode::Protocol, Stage::Read, detail).at(server));
        }
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| error.at(server))).collect())
    }

    async fn read_part(
        &self,
        server: &Endpoint,
        fetch: &Fetch,
        part: &KeyRange,
        read_version: Version,
    ) -> Result<RangePart> {
        let request = RangeRead {
            range: part.clone(),
            read_version,
            rows_max: fetch.rows_max,
            bytes_max: fetch.bytes_max,
            reverse: fetch.reverse,
        };
        let answer = async {
            let client = self.storage.get(server).await?;
            transport::call(ANSWER_LIMIT, Stage::Read, |context| client.get_range(context, request))
                .await
        };
        let began = runtime::now();
        let reply = self.unwrap_answer(answer.await, &self.storage, server)?;
        self.storage.answered(server, runtime::now().saturating_duration_since(began));
        let reply = reply.map_err(|error| error.at(server))?;
        let covered = reply.covered(part, fetch.reverse).ok_or_else(|| {
            let detail = format!("rows out of order, outside of {part}, or no way to go on");
            Error::new(ErrorCode::Protocol, Stage::Read, detail).at(server)
        })?;
        Ok(RangePart { covered, rows: reply.rows })
    }

    /// An answer of a server; when it gave none, its connection is dropped and the silence has the code of a
    /// server that cannot be reached, because to a transaction it is the same.
    fn unwrap_answer<T, S: ferrisdb_core::service::Service>(
        &self,
        answer: Result<T>,
        connections: &Connections<S>,
        server: &Endpoint,
    ) -> Result<T> {
        answer.map_err(|error| {
            connections.failed(server);
            let error = match error.code() {
                ErrorCode::TimedOut => error.with_code(ErrorCode::Unreachable),
                _ => error,
            };
            error.at(server)
        })
    }

    /// The proxies in the order in which to ask them, as soon as a generation is active.
    async fn active_proxies(
        &self,
        deadline: Instant,
    ) -> Result<(Arc<ClusterState>, Vec<Endpoint>)> {
        let mut state = self.newer_state(0, deadline).await?;
        loop {
            if let (Phase::Active, Some(coordinator)) = (&state.phase, &state.coordinator) {
                self.proxies.retain(|endpoint| coordinator.proxies.contains(endpoint));
                let proxies = self.proxies.in_order(&coordinator.proxies, self.turn());
                return Ok((state, proxies));
            }
            state = match self.newer_state(state.revision, deadline).await {
                Ok(newer) => newer,
                Err(_) => return Err(unavailable(&state)),
            };
        }
    }

    /// The map of the newest state.
    async fn locations(&self, deadline: Instant) -> Result<Arc<Locations>> {
        Ok(self.locations_of(&*self.newer_state(0, deadline).await?))
    }

    fn locations_of(&self, state: &ClusterState) -> Arc<Locations> {
        let mut locations = self.locations.lock();
        if locations.revision != state.revision {
            mark(Mark::LocationsForgotten);
            *locations = Arc::new(Locations::of(state));
        }
        Arc::clone(&locations)
    }

    /// The newest state, as soon as its revision is past `revision`.
    async fn newer_state(&self, revision: u64, deadline: Instant) -> Result<Arc<ClusterState>> {
        if let Some(state) = self.view.latest().filter(|state| state.revision > revision) {
            return Ok(state);
        }
        let left = deadline.saturating_duration_since(runtime::now());
        runtime::timeout(left, Stage::Connect, self.view.newer_than(revision)).await.map_err(|_| {
            let silent = "no controller has answered";
            let error = self.view.error();
            error.unwrap_or_else(|| Error::new(ErrorCode::Unavailable, Stage::Connect, silent))
        })
    }

    /// Waits for news of the cluster, or a little while; returns `error` if the time is over.
    async fn pause(&self, revision: u64, deadline: Instant, error: Error) -> Result<()> {
        let left = deadline.saturating_duration_since(runtime::now());
        if left.is_zero() {
            return Err(error);
        }
        let pause = runtime::jitter(PAUSE).min(left);
        // Without news the same servers are asked again: they may have come back.
        let _ = runtime::timeout(pause, Stage::Connect, self.view.newer_than(revision)).await;
        Ok(())
    }

    fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// The tries of one read.
struct Tries<'a> {
    links: &'a Links,
    deadline: Instant,
    future_versions: usize,
    /// The last server that had waited for the version, and did not reach it.
    future_version: Option<Error>,
    last_error: Option<Error>,
}

impl<'a> Tries<'a> {
    fn new(links: &'a Links) -> Tries<'a> {
        let deadline = runtime::now() + links.settings.read_limit;
        Tries { links, deadline, future_versions: 0, future_version: None, last_error: None }
    }

    /// A server answered with an error: returns it if no other server would do better.
    fn failed(&mut self, error: Error) -> Result<()> {
        if error.code() == ErrorCode::FutureVersion {
            self.future_versions += 1;
            self.future_version = Some(error.clone());
        } else if !is_of_server(error.code()) {
            return Err(error);
        }
        if self.future_versions >= FUTURE_VERSIONS_MAX || runtime::now() >= self.deadline {
            // That one server lags behind the version says more than that another one was not waited for.
            return Err(self.future_version.take().unwrap_or(error));
        }
        self.last_error = Some(error);
        Ok(())
    }

    /// All servers failed: waits for a newer map, or a little while.
    async fn pause(&mut self, revision: u64) -> Result<()> {
        let error = self.last_error.take();
        let error = error.unwrap_or_else(|| no_servers(Stage::Read, "no server holds the key"));
        self.links.pause(revision, self.deadline, error).await
    }
}

/// What is known of the speeds of proxies.
struct ProxySpeeds<'a>(&'a Connections<ProxyService>);

impl hedge::Speeds for ProxySpeeds<'_> {
    fn usual(&self, server: &Endpoint) -> Option<Duration> {
        hedge::Speeds::usual(self.0, server)
    }

    fn is_late(&self, server: &Endpoint, after: Duration) {
        hedge::Speeds::is_late(self.0, server, after);
        // A commit could not go elsewhere once it was sent there.
        self.0.suspect(server);
    }
}

/// Whether the error is about the server that was asked, so that another one may do better.
fn is_of_server(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::WrongShard
            | ErrorCode::Unreachable
            | ErrorCode::NoSuchEndpoint
            | ErrorCode::GenerationEnded
            | ErrorCode::ShuttingDown
            | ErrorCode::Unavailable
            | ErrorCode::TooBusy
            | ErrorCode::TimedOut
            | ErrorCode::Disk
            | ErrorCode::DiskFull
            | ErrorCode::Corrupt
    )
}

fn no_servers(stage: Stage, detail: &str) -> Error {
    Error::new(ErrorCode::Unavailable, stage, detail)
}

fn unavailable(state: &ClusterState) -> Error {
    let detail = match &state.phase {
        Phase::Waiting { reason } => format!("generation {} waits: {reason}", state.generation),
        Phase::Recovering { step } => format!("generation {} recovers: {step}", state.generation),
        Phase::Active => format!("generation {} has no coordinator", state.generation),
    };
    Error::new(ErrorCode::Unavailable, Stage::Connect, detail)
}
