//! Questions to servers, one at a time: over which connection, for how long, and what an error says of the server.
//!
//! Start with [`Links::read_version`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::simulation::{self, Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Generation, Key, KeyRange, Result, Stage, Version,
    cluster_view::ClusterView,
    controllers::Controllers,
    runtime::{self, Instant},
    service::{
        controller::{ClusterState, Phase},
        proxy::ProxyService,
        storage::{Measure, Measured, PointRead, RangeRead, StorageService, VersionedValue},
    },
    transaction::{CommitOutcome, CommitRequest},
    transport::{self, Network},
};
use parking_lot::Mutex;

use super::{ANSWER_LIMIT, RangePart};
use crate::{
    connections::Connections,
    hedge,
    locations::Locations,
    options::{Priority, Settings},
    read_your_writes::Fetch,
};

/// How long a proxy may take over a commit before it is asked whether it lives; then twice as long each time, up to the maximum.
const COMMIT_PATIENCE: Duration = Duration::from_millis(300);
const COMMIT_PATIENCE_MAX: Duration = Duration::from_secs(5);
/// How long to wait for news of the cluster before the same servers are asked again.
const PAUSE: Duration = Duration::from_millis(25);
/// How many servers may say that they have not reached the version before the caller hears it.
const FUTURE_VERSIONS_MAX: usize = 3;

/// What became of a commit at a proxy.
pub(super) enum CommitAnswer {
    /// It was sent, and this is what is known.
    Ended(Result<CommitOutcome>),
    /// It was not sent, for this reason.
    NotSent(CommitRequest, Error),
}

/// A version that was heard of: in which generation, and when. The next generation begins so far ahead that everything from before
/// it is too old.
#[derive(Clone, Copy)]
pub(super) struct Heard {
    pub(super) version: Version,
    pub(super) generation: Generation,
    pub(super) at: Instant,
}

impl Heard {
    pub(super) fn age(&self) -> Duration {
        runtime::now().saturating_duration_since(self.at)
    }
}

/// Whether a later generation than this is active.
pub(super) fn has_replaced(state: &ClusterState, generation: Generation) -> bool {
    state.generation > generation && state.phase == Phase::Active
}

/// What batches in flight need of the cluster. Apart, so that they do not keep their own batcher alive.
pub(super) struct Links {
    pub(super) network: Network,
    pub(super) controllers: Controllers,
    pub(super) settings: Settings,
    pub(super) view: ClusterView,
    pub(super) locations: Mutex<Arc<Locations>>,
    pub(super) proxies: Connections<ProxyService>,
    pub(super) storage: Connections<StorageService>,
    /// Counts requests, to spread them over servers that can all answer.
    pub(super) turn: AtomicUsize,
    pub(super) hedges: hedge::Budget,
    /// The newest version that was heard of.
    pub(super) newest_heard: AtomicU64,
    /// Apart from those of reads: read versions are fewer, because many ask together.
    pub(super) proxy_hedges: hedge::Budget,
    /// The newest version that was heard of, and when.
    pub(super) newest_version: Mutex<Option<Heard>>,
    /// The newest read version, and when it was asked for.
    pub(super) fresh_version: Mutex<Option<Heard>>,
}

impl Links {
    /// A read version from any proxy of whatever generation is alive.
    pub(super) async fn read_version(&self, priority: Priority) -> Result<Version> {
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
    pub(super) fn read_since(&self, heard: Heard) {
        let mut fresh = self.fresh_version.lock();
        if fresh.is_none_or(|known| heard.at > known.at) {
            *fresh = Some(heard);
        }
    }

    /// A committed version has come along.
    pub(super) fn heard_of(&self, version: Version, generation: Generation) {
        let at = runtime::now();
        self.newest_heard.fetch_max(version.0, Ordering::Relaxed);
        let mut newest = self.newest_version.lock();
        if newest.is_none_or(|newest| version >= newest.version) {
            *newest = Some(Heard { version, generation, at });
        }
    }

    pub(super) async fn read_version_of(
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
    pub(super) async fn generation_is_over(&self, generation: Generation, stage: Stage) -> Error {
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
    pub(super) async fn open_proxy(
        &self,
        proxies: &[Endpoint],
        generation: Generation,
        deadline: Instant,
    ) -> Result<Endpoint> {
        // Most often there is one, and no timer is needed.
        let attempts = match self.proxies.first_open(proxies) {
            Ok(open) => return Ok(open),
            Err(attempts) => attempts,
        };
        let left = deadline.saturating_duration_since(runtime::now());
        let found = async {
            tokio::select! {
                biased;
                found = attempts.first() => found,
                over = self.generation_is_over(generation, Stage::Commit) => Err(over),
            }
        };
        let found = runtime::timeout(left, Stage::Commit, found).await;
        found.map_err(|late| late.with_code(ErrorCode::Unreachable))?
    }

    /// Waits until a proxy that does not answer does not even greet any more.
    pub(super) async fn silence_of(&self, proxy: &Endpoint) -> Error {
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
    pub(super) async fn commit_at(
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
    pub(super) async fn near_part<T, Fut: Future<Output = Result<T>>>(
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

    pub(super) async fn measure_part(
        &self,
        server: &Endpoint,
        request: Measure,
    ) -> Result<Measured> {
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

    pub(super) async fn read_points(
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

    pub(super) async fn read_part(
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
    pub(super) fn unwrap_answer<T, S: ferrisdb_core::service::Service>(
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
    pub(super) async fn active_proxies(
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
    pub(super) async fn locations(&self, deadline: Instant) -> Result<Arc<Locations>> {
        Ok(self.locations_of(&*self.newer_state(0, deadline).await?))
    }

    pub(super) fn locations_of(&self, state: &ClusterState) -> Arc<Locations> {
        let mut locations = self.locations.lock();
        if locations.revision != state.revision {
            mark(Mark::LocationsForgotten);
            *locations = Arc::new(Locations::of(state));
        }
        Arc::clone(&locations)
    }

    /// The newest state, as soon as its revision is past `revision`.
    pub(super) async fn newer_state(
        &self,
        revision: u64,
        deadline: Instant,
    ) -> Result<Arc<ClusterState>> {
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
    pub(super) async fn pause(&self, revision: u64, deadline: Instant, error: Error) -> Result<()> {
        let left = deadline.saturating_duration_since(runtime::now());
        if left.is_zero() {
            return Err(error);
        }
        let pause = runtime::jitter(PAUSE).min(left);
        // Without news the same servers are asked again: they may have come back.
        let _ = runtime::timeout(pause, Stage::Connect, self.view.newer_than(revision)).await;
        Ok(())
    }

    pub(super) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// The tries of one read.
pub(super) struct Tries<'a> {
    pub(super) links: &'a Links,
    pub(super) deadline: Instant,
    pub(super) future_versions: usize,
    /// The last server that had waited for the version, and did not reach it.
    pub(super) future_version: Option<Error>,
    pub(super) last_error: Option<Error>,
}

impl<'a> Tries<'a> {
    pub(super) fn new(links: &'a Links) -> Tries<'a> {
        let deadline = runtime::now() + links.settings.read_limit;
        Tries { links, deadline, future_versions: 0, future_version: None, last_error: None }
    }

    /// A server answered with an error: returns it if no other server would do better.
    pub(super) fn failed(&mut self, error: Error) -> Result<()> {
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
    pub(super) async fn pause(&mut self, revision: u64) -> Result<()> {
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
pub(super) fn is_of_server(code: ErrorCode) -> bool {
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

pub(super) fn no_servers(stage: Stage, detail: &str) -> Error {
    Error::new(ErrorCode::Unavailable, stage, detail)
}

pub(super) fn unavailable(state: &ClusterState) -> Error {
    let detail = match &state.phase {
        Phase::Waiting { reason } => format!("generation {} waits: {reason}", state.generation),
        Phase::Recovering { step } => format!("generation {} recovers: {step}", state.generation),
        Phase::Active => format!("generation {} has no coordinator", state.generation),
    };
    Error::new(ErrorCode::Unavailable, Stage::Connect, detail)
}
