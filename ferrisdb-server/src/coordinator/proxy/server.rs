//! The shell of a proxy: its connections, its queues, and the network between the phases of a batch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Generation, KeyRange, Mutation, Result, Stage, Version, limits,
    runtime::{self, TaskGroup},
    service::{
        Service,
        controller::LogSet,
        log::{LogService, PushRequest},
        proxy::Proxy as ProxyService,
        resolver::{ResolveReply, ResolverService},
        sequencer::{BatchVersions, SequencerService},
    },
    transaction::{CommitOutcome, CommitRequest, Conflict},
    transport::call,
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tarpc::context::Context;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::{
    batch::Waiting,
    commit::{self, Batch},
    link::Link,
    metrics::{CommitReply, ProxyMetrics},
    patience::{WORK_LIMIT, patiently},
    read_version::Confirmations,
    routing::{Messages, Routing},
};
use crate::coordinator::failure::{Failure, generation_ended};

/// How long a read version is held back while commits cannot get through. Clients then ask elsewhere, or again: a proxy that
/// says nothing for longer would look like a dead one.
const HELD_BACK_MAX: Duration = Duration::from_millis(100);

/// How a proxy works.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Batches between their beginning and their answers.
    pub batches_in_flight_max: usize,
    /// Rounds of read versions that overlap.
    pub read_version_rounds_max: usize,
    /// Bytes of transactions that wait for a batch; further ones are refused.
    pub waiting_bytes_max: usize,
    /// How long a sequencer, resolver or log may not answer before the generation is given up. Resolvers and logs may take
    /// longer for their work, as long as they say that they are at it: see [`super::patience`].
    pub call_limit: Duration,
    /// After this long without a commit comes an empty batch, so that versions go on: read versions stay near the sequencer's
    /// clock, storage servers finish with the last commit, old transactions become too old, copies of shards count.
    pub idle_batch_after: Duration,
}

impl Default for ProxySettings {
    fn default() -> Self {
        ProxySettings {
            batches_in_flight_max: 4,
            read_version_rounds_max: 2,
            waiting_bytes_max: 4 * limits::BATCH_BYTES_MAX,
            call_limit: Duration::from_millis(1_500),
            idle_batch_after: limits::IDLE_BATCH_AFTER,
        }
    }
}

/// The connections to a member that gets batches.
pub struct Ways<S: Service> {
    /// For the batches.
    pub work: Link<S>,
    /// For what must not wait behind them.
    pub aside: Link<S>,
}

/// The roles that a proxy works with.
pub struct ProxyMembers {
    /// The proxy's number in its generation.
    pub number: u32,
    /// The generation of all of them.
    pub generation: Generation,
    /// The sequencer.
    pub sequencer: Link<SequencerService>,
    /// The resolvers and their keys. The last one has the system keyspace.
    pub resolvers: Vec<(KeyRange, Ways<ResolverService>)>,
    /// The logs, in the order of `log_set`.
    pub logs: Vec<Ways<LogService>>,
    /// Where each tag's messages are kept.
    pub log_set: LogSet,
    /// Where each key's mutations go, when the generation begins.
    pub routing: Routing,
}

/// The map that mutations are tagged by, and how far it has come.
struct Tagging {
    routing: Routing,
    /// The proxy's newest batch that was tagged. Batches are tagged in their order, each by the map at its version.
    tagged_version: Version,
}

/// A proxy. Clones are the same one.
#[derive(Clone)]
pub struct ProxyServer {
    shared: Arc<Shared>,
}

type CommitAnswer = oneshot::Receiver<Result<CommitOutcome>>;
type VersionReply = oneshot::Sender<Result<Version>>;

struct Shared {
    members: ProxyMembers,
    settings: ProxySettings,
    failure: Failure,
    /// Numbers the batches, so that the sequencer knows one that asks again. Begins anywhere: no other proxy has the same.
    batches: AtomicU64,
    commits: Mutex<Waiting<CommitReply>>,
    commits_changed: Notify,
    /// A batch was taken from `commits`.
    commits_taken: Notify,
    /// Most servers that a shard has, to estimate by what a log gets of a transaction.
    servers_max: AtomicUsize,
    version_requests: Mutex<Vec<VersionReply>>,
    version_requests_changed: Notify,
    /// Places for rounds of read versions.
    version_rounds: Arc<Semaphore>,
    tagging: Mutex<Tagging>,
    tagged: Notify,
    metrics: Arc<ProxyMetrics>,
    tasks: TaskGroup,
}

impl ProxyServer {
    /// Starts a proxy and commits the empty batch that opens its generation, if it is the first proxy.
    ///
    /// # Errors
    ///
    /// If a member cannot be reached.
    pub async fn start(
        members: ProxyMembers,
        settings: ProxySettings,
        failure: Failure,
    ) -> Result<ProxyServer> {
        let waiting = Waiting::new(settings.waiting_bytes_max);
        let shared = Arc::new(Shared {
            tagging: Mutex::new(Tagging {
                routing: members.routing.clone(),
                tagged_version: members.log_set.recovery_version,
            }),
            servers_max: AtomicUsize::new(members.routing.servers_max()),
            tagged: Notify::new(),
            version_rounds: Arc::new(Semaphore::new(settings.read_version_rounds_max)),
            members,
            settings,
            failure,
            batches: AtomicU64::new(runtime::random_u64()),
            commits: Mutex::new(waiting),
            commits_changed: Notify::new(),
            commits_taken: Notify::new(),
            version_requests: Mutex::default(),
            version_requests_changed: Notify::new(),
            metrics: Arc::default(),
            tasks: TaskGroup::default(),
        });
        if shared.members.number == 0 {
            shared.commit_batch(Vec::new()).await?;
        }
        shared.tasks.spawn(Shared::run_commits(Arc::clone(&shared)));
        shared.tasks.spawn(Shared::run_read_versions(Arc::clone(&shared)));
        Ok(ProxyServer { shared })
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<ProxyMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Ends the proxy's tasks. What waits is answered with an error by being dropped.
    pub fn stop(&self) {
        self.shared.tasks.abort_all();
        let ended = Error::new(ErrorCode::ShuttingDown, Stage::Process, "the coordinator stops");
        self.shared.refuse_waiting(&ended);
    }
}

impl ProxyService for ProxyServer {
    async fn read_version(self, _: Context, is_background: bool) -> Result<Version> {
        self.shared.failure.check(Stage::ReadVersion)?;
        if is_background && self.shared.commits.lock().is_busy() {
            let detail = "commits wait in the proxy";
            let code = ErrorCode::BatchTransactionThrottled;
            return Err(Error::new(code, Stage::ReadVersion, detail));
        }
        self.shared.wait_for_room().await?;
        if let Some(version) = self.shared.lone_read_version().await {
            return version;
        }
        let (reply, answer) = oneshot::channel();
        {
            let mut requests = self.shared.version_requests.lock();
            if requests.len() >= limits::REQUESTS_IN_FLIGHT_MAX {
                let detail = format!("{} requests wait for a read version", requests.len());
                return Err(Error::new(ErrorCode::TooBusy, Stage::ReadVersion, detail));
            }
            requests.push(reply);
        }
        self.shared.version_requests_changed.notify_one();
        answer.await.unwrap_or_else(|_| Err(dropped(Stage::ReadVersion)))
    }

    async fn commit(self, _: Context, request: CommitRequest) -> Result<CommitOutcome> {
        self.shared.failure.check(Stage::Commit)?;
        outcome(self.shared.submit([request]).next()).await
    }

    async fn commit_all(
        self,
        _: Context,
        requests: Vec<CommitRequest>,
    ) -> Vec<Result<CommitOutcome>> {
        if let Err(error) = self.shared.failure.check(Stage::Commit) {
            return vec![Err(error); requests.len()];
        }
        let mut outcomes = Vec::with_capacity(requests.len());
        for submitted in self.shared.submit(requests) {
            outcomes.push(outcome(Some(submitted)).await);
        }
        outcomes
    }
}

/// What becomes of a transaction.
async fn outcome(submitted: Option<Result<CommitAnswer>>) -> Result<CommitOutcome> {
    let answer = match submitted {
        Some(submitted) => submitted?.await.ok(),
        None => None,
    };
    // A reply that is dropped without an answer went down with its batch, at a point nobody knows.
    answer.unwrap_or_else(|| Err(commit::unknown_result(&dropped(Stage::Commit))))
}

fn dropped(stage: Stage) -> Error {
    Error::new(ErrorCode::GenerationEnded, stage, "the proxy stopped")
}

impl Shared {
    /// Puts transactions into the queue: all at once, so that one batch takes them if it can. Says of each how its outcome
    /// is learned, or why it was not taken.
    fn submit(
        &self,
        requests: impl IntoIterator<Item = CommitRequest>,
    ) -> std::vec::IntoIter<Result<CommitAnswer>> {
        let weighed: Vec<_> =
            requests.into_iter().map(|request| (self.pushed_bytes(&request), request)).collect();
        let mut commits = self.commits.lock();
        let submit = |(pushed, request)| {
            let (reply, answer) = CommitReply::channel(&self.metrics);
            match commits.push(request, reply, pushed) {
                Ok(()) => Ok(answer),
                Err((error, _)) => {
                    if error.code() == ErrorCode::TooBusy {
                        mark(Mark::ProxyTooBusy);
                        self.metrics.too_busy.increment();
                    }
                    Err(error)
                }
            }
        };
        let submitted: Vec<_> = weighed.into_iter().map(submit).collect();
        drop(commits);
        self.commits_changed.notify_one();
        submitted.into_iter()
    }

    /// What a log gets of a transaction at most, by the map of the moment. If that is too much, then how much too much is not
    /// worth the work (I-16).
    fn pushed_bytes(&self, request: &CommitRequest) -> usize {
        let servers = self.servers_max.load(Ordering::Relaxed).max(1);
        let bytes_max = limits::PUSH_BYTES_MAX / servers;
        let mut bytes = 0;
        for mutation in &request.mutations {
            bytes += match mutation {
                Mutation::ClearRange { range } => {
                    self.tagging.lock().routing.clear_bytes(range, bytes_max - bytes)
                }
                _ => mutation.size() + limits::MUTATION_OVERHEAD_BYTES,
            };
            if bytes > bytes_max {
                break;
            }
        }
        bytes * servers
    }

    /// Holds a read version back while so many commits wait that whoever begins now could not commit anyway. That is how a slow
    /// disk gets to the clients: they begin as much as can be done.
    async fn wait_for_room(&self) -> Result<()> {
        if !self.commits.lock().is_crowded() {
            return Ok(());
        }
        mark(Mark::ReadVersionHeldBack);
        self.metrics.held_back.increment();
        let room = async {
            loop {
                let taken = self.commits_taken.notified();
                tokio::pin!(taken);
                taken.as_mut().enable();
                if !self.commits.lock().is_crowded() {
                    return;
                }
                taken.await;
            }
        };
        runtime::timeout(HELD_BACK_MAX, Stage::ReadVersion, room).await.map_err(|_| {
            let detail = "more commits wait than get through";
            Error::new(ErrorCode::TooBusy, Stage::ReadVersion, detail)
        })
    }

    /// Begins a batch whenever something waits and a place in the pipeline is free.
    async fn run_commits(self: Arc<Self>) {
        let places = Arc::new(Semaphore::new(self.settings.batches_in_flight_max));
        loop {
            let waiting = !self.commits.lock().is_empty();
            if !waiting {
                tokio::select! {
                    biased;
                    () = self.failure.failed() => return self.refuse_after_failure(),
                    () = self.commits_changed.notified() => continue,
                    () = runtime::sleep(self.settings.idle_batch_after) => {}
                }
                if planted(Plant::IdleVersionsStand) || planted(Plant::VersionsRunAhead) {
                    continue;
                }
            }
            let place = tokio::select! {
                biased;
                () = self.failure.failed() => return self.refuse_after_failure(),
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let batch = self.commits.lock().take_batch();
            self.commits_taken.notify_waiters();
            self.metrics.on_batch(&batch);
            let this = Arc::clone(&self);
            self.tasks.spawn(async move {
                // Errors have been told to the clients and, through `failure`, to the coordinator.
                let _ = this.metrics.batch.time(this.commit_batch(batch)).await;
                drop(place);
            });
        }
    }

    fn refuse_after_failure(&self) {
        let cause = self.failure.cause().unwrap_or_else(|| dropped(Stage::Commit));
        self.refuse_waiting(&generation_ended(Stage::Commit, &cause));
    }

    /// Answers everybody whose work has not begun.
    fn refuse_waiting(&self, error: &Error) {
        loop {
            let batch = self.commits.lock().take_batch();
            if batch.is_empty() {
                break;
            }
            for (_, reply) in batch {
                let _ = reply.send(Err(error.clone()));
            }
        }
        for reply in std::mem::take(&mut *self.version_requests.lock()) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// Takes a batch through its phases. An error ends the generation.
    async fn commit_batch(&self, requests: Vec<(CommitRequest, CommitReply)>) -> Result<()> {
        let (requests, refused) = commit::check(requests);
        answer(refused);
        let generation = self.members.generation;

        let versions = match self.metrics.sequence.time(self.begin_batch()).await {
            Ok(versions) => versions,
            Err(error) => {
                self.failure.fail_at(self.members.sequencer.address(), error.clone());
                let ended = generation_ended(Stage::Sequence, &error);
                requests.into_iter().for_each(|(_, reply)| {
                    let _ = reply.send(Err(ended.clone()));
                });
                return Err(error);
            }
        };
        if requests.len() > 1 {
            mark(Mark::BatchOfMany);
        }
        let (batch, refused) = Batch::new(generation, versions, requests);
        answer(refused);

        let resolved = match self.metrics.resolve.time(self.resolve(&batch)).await {
            Ok(replies) => self.metrics.tag.time(self.tag(batch, replies)).await,
            Err(error) => Err((error, batch.replies())),
        };
        let (messages, answers) = match resolved {
            Ok(resolved) => resolved,
            Err((error, replies)) => {
                // Nothing was pushed: these transactions surely did not take effect.
                self.failure.fail(error.clone());
                let ended = generation_ended(Stage::Resolve, &error);
                replies.into_iter().for_each(|reply| {
                    let _ = reply.send(Err(ended.clone()));
                });
                return Err(error);
            }
        };

        let pushes = messages.into_pushes(&self.members.log_set, generation, versions);
        if let Err(error) = self.push_and_report(pushes, versions.commit_version).await {
            self.failure.fail(error.clone());
            for (reply, outcome) in answers {
                // Only what would have been committed is in doubt: a conflict is one either way.
                let outcome = match outcome {
                    Ok(CommitOutcome::Committed(_)) if planted(Plant::FailedPushIsConflict) => {
                        Ok(CommitOutcome::Conflict(Conflict { reads: Vec::new() }))
                    }
                    Ok(CommitOutcome::Committed(_)) => {
                        mark(Mark::CommitUnknown);
                        Err(commit::unknown_result(&error))
                    }
                    other => other,
                };
                let _ = reply.send(outcome);
            }
            return Err(error);
        }
        answer(answers);
        Ok(())
    }

    async fn begin_batch(&self) -> Result<BatchVersions> {
        let (limit, generation) = (self.settings.call_limit, self.members.generation);
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        let begun = self.members.sequencer.ask(limit, Stage::Sequence, |sequencer| async move {
            call(limit, Stage::Sequence, |context| {
                sequencer.begin_batch(context, generation, batch)
            })
            .await
            .and_then(|versions| versions)
        });
        begun.await
    }

    async fn resolve<R>(&self, batch: &Batch<R>) -> Result<Vec<ResolveReply>> {
        let (limit, generation) = (self.settings.call_limit, self.members.generation);
        let calls = self.members.resolvers.iter().map(|(keys, Ways { work, aside })| async move {
            let send = || {
                work.send(limit, Stage::Resolve, |resolver| {
                    let request = batch.resolve_request(self.members.number, keys);
                    async move {
                        let asked = |context| resolver.resolve(context, request);
                        call(WORK_LIMIT, Stage::Resolve, asked).await.and_then(|reply| reply)
                    }
                })
            };
            let ask = |limit| {
                aside.ask(limit, Stage::Resolve, move |client| async move {
                    call(limit, Stage::Resolve, |context| client.health(context, generation))
                        .await
                        .and_then(|health| health)
                })
            };
            let reply = patiently(limit, Stage::Resolve, send, ask).await;
            let address = work.address();
            reply
                .map_err(|error| error.at(address))
                .inspect_err(|error| self.failure.fail_at(address, error.clone()))
        });
        futures::future::try_join_all(calls).await
    }

    /// Tags a batch by the map at its version: after the proxy's batch before it, and after what other proxies have
    /// changed in the map since.
    async fn tag<R>(
        &self,
        batch: Batch<R>,
        mut replies: Vec<ResolveReply>,
    ) -> Result<(Messages, Vec<commit::Answer<R>>), commit::Failed<R>> {
        let (previous_batch, metadata) = match replies.last_mut() {
            Some(last) => (last.previous_batch, std::mem::take(&mut last.metadata)),
            None => return Err((dropped(Stage::Resolve), batch.replies())),
        };
        loop {
            let tagged = self.tagged.notified();
            tokio::pin!(tagged);
            tagged.as_mut().enable();
            if self.tagging.lock().tagged_version >= previous_batch {
                break;
            }
            tokio::select! {
                biased;
                () = self.failure.failed() => {
                    return Err((dropped(Stage::Resolve), batch.replies()));
                }
                () = tagged => {}
            }
        }
        let mut tagging = self.tagging.lock();
        assert!(
            tagging.tagged_version == previous_batch,
            "batch {} would be tagged by the map at {}, but follows {previous_batch} (I-7)",
            batch.commit_version(),
            tagging.tagged_version
        );
        let late = planted(Plant::ShardMapLate);
        let changes = || metadata.iter().flat_map(|batch| &batch.mutations);
        for change in changes().filter(|_| !late) {
            mark(Mark::ShardMapChanged);
            tagging.routing.learn(change);
        }
        let has_changed = !metadata.is_empty() || batch.changes_shard_map();
        let commit_version = batch.commit_version();
        let verdicts = replies.into_iter().map(|reply| reply.verdicts).collect();
        let is_new_cluster = self.members.log_set.recovery_version == Version::ZERO
            && self.members.number == 0
            && previous_batch == Version::ZERO;
        let mut resolved = batch.resolved(verdicts, &mut tagging.routing);
        if let (true, Ok((messages, _))) = (is_new_cluster, &mut resolved) {
            tagging.routing.tag_new_cluster(messages);
        }
        changes().filter(|_| late).for_each(|change| tagging.routing.learn(change));
        tagging.tagged_version = commit_version;
        if has_changed {
            self.servers_max.store(tagging.routing.servers_max(), Ordering::Relaxed);
        }
        drop(tagging);
        self.tagged.notify_waiters();
        resolved
    }

    /// Makes the batch durable on every log (I-5) and tells the sequencer (I-1).
    async fn push_and_report(
        &self,
        pushes: Vec<PushRequest>,
        commit_version: Version,
    ) -> Result<()> {
        let (limit, generation) = (self.settings.call_limit, self.members.generation);
        let logs = self.members.logs.iter().zip(pushes);
        let calls = logs.zip(&self.members.log_set.logs).map(
            |((Ways { work, aside }, push), member)| async move {
                let send = || {
                    work.send(limit, Stage::Log, |log| {
                        let push = push.clone();
                        async move {
                            call(WORK_LIMIT, Stage::Log, |context| log.push(context, push))
                                .await
                                .and_then(|reply| reply)
                        }
                    })
                };
                let ask = |limit| {
                    aside.ask(limit, Stage::Log, move |client| async move {
                        call(limit, Stage::Log, |context| client.health(context, generation))
                            .await
                            .and_then(|health| health)
                    })
                };
                let reply = patiently(limit, Stage::Log, send, ask)
                    .await
                    .map_err(|error| error.at(&member.endpoint))
                    .inspect_err(|error| {
                        self.failure.fail_at(&member.endpoint.address, error.clone());
                    })?;
                assert!(
                    reply.durable_version >= commit_version,
                    "{} acknowledged {commit_version} but is durable only to {} (I-5)",
                    member.endpoint,
                    reply.durable_version
                );
                Ok::<(), Error>(())
            },
        );
        if planted(Plant::AcknowledgeBeforeLastLog) {
            let enough = self.members.logs.len() - 1;
            let mut pushes: FuturesUnordered<_> = calls.collect();
            for _ in 0..enough {
                pushes.next().await.unwrap_or(Ok(()))?;
            }
        } else {
            self.metrics.push.time(futures::future::try_join_all(calls)).await?;
        }
        let sequencer = &self.members.sequencer;
        let reported = sequencer.ask(limit, Stage::Sequence, |sequencer| async move {
            call(limit, Stage::Sequence, |context| {
                sequencer.report_committed(context, generation, commit_version)
            })
            .await
            .and_then(|reported| reported)
        });
        let reported = self.metrics.report.time(reported).await;
        reported.inspect_err(|error| self.failure.fail_at(sequencer.address(), error.clone()))
    }

    /// A round for a single request, in the task of that request; `None` if others wait or no place is free.
    ///
    /// It is begun after the request arrived, as every round is (I-1). Where all roles are in this process it is answered without
    /// waiting for anybody.
    async fn lone_read_version(&self) -> Option<Result<Version>> {
        let _place = self.version_rounds.try_acquire().ok()?;
        if !self.version_requests.lock().is_empty() {
            return None;
        }
        Some(self.read_version_for(1).await)
    }

    /// Begins a round whenever somebody waits and the bound on rounds permits.
    async fn run_read_versions(self: Arc<Self>) {
        loop {
            let place = tokio::select! {
                biased;
                () = self.failure.failed() => return self.refuse_after_failure(),
                place = Arc::clone(&self.version_rounds).acquire_owned() => place,
            };
            while self.version_requests.lock().is_empty() {
                tokio::select! {
                    biased;
                    () = self.failure.failed() => return self.refuse_after_failure(),
                    () = self.version_requests_changed.notified() => {}
                }
            }
            // From here on nobody joins the round: its question is asked after its requests arrived (I-1).
            let requests = std::mem::take(&mut *self.version_requests.lock());
            let this = Arc::clone(&self);
            self.tasks.spawn(async move {
                let version = this.read_version_for(requests.len()).await;
                for reply in requests {
                    let _ = reply.send(version.clone());
                }
                drop(place);
            });
        }
    }

    /// A round for so many requests. An error ends the generation.
    async fn read_version_for(&self, requests: usize) -> Result<Version> {
        self.metrics.read_round_size.record_len(requests);
        let version = self.metrics.read_round.time(self.read_version_round()).await;
        if let Err(error) = &version {
            self.failure.fail(error.clone());
        }
        let version = version.map_err(|error| generation_ended(Stage::ReadVersion, &error))?;
        self.metrics.read_versions.add_len(requests);
        Ok(version)
    }

    /// The newest committed version, with evidence that the generation is alive.
    async fn read_version_round(&self) -> Result<Version> {
        let (limit, generation) = (self.settings.call_limit, self.members.generation);
        let sequencer = &self.members.sequencer;
        let committed = async {
            let asked = sequencer.ask(limit, Stage::ReadVersion, |sequencer| async move {
                call(limit, Stage::ReadVersion, |context| {
                    sequencer.committed_version(context, generation)
                })
                .await
                .and_then(|version| version)
            });
            asked.await.inspect_err(|error| {
                self.failure.fail_at(sequencer.address(), error.clone());
            })
        };
        if planted(Plant::ReadVersionOfOneProxy) {
            return Ok(self.tagging.lock().tagged_version);
        }
        if planted(Plant::UnconfirmedReadVersion) {
            return committed.await;
        }
        let (committed, confirmed) = futures::future::join(committed, self.confirm()).await;
        confirmed?;
        committed
    }

    /// Waits until enough logs say that they are not locked for a later generation.
    async fn confirm(&self) -> Result<()> {
        let mut answers: FuturesUnordered<_> = self
            .members
            .logs
            .iter()
            .enumerate()
            .map(|(index, log)| async move {
                let (limit, generation) = (self.settings.call_limit, self.members.generation);
                let confirmed =
                    log.aside.ask(limit, Stage::ReadVersion, move |client| async move {
                        call(limit, Stage::ReadVersion, |context| {
                            client.confirm(context, generation)
                        })
                        .await
                        .and_then(|confirmed| confirmed)
                    });
                (index, confirmed.await)
            })
            .collect();
        let mut confirmed = Confirmations::new(&self.members.log_set);
        let mut refusal = None;
        mark(Mark::ConfirmedByLogs);
        while !confirmed.suffice() {
            match answers.next().await {
                Some((index, Ok(()))) => confirmed.add(index),
                Some((_, Err(error))) => refusal = Some(error),
                None => {
                    let detail = confirmed.describe();
                    let missing = || Error::new(ErrorCode::Unreachable, Stage::ReadVersion, detail);
                    return Err(refusal.unwrap_or_else(missing));
                }
            }
        }
        Ok(())
    }
}

fn answer(answers: Vec<commit::Answer<CommitReply>>) {
    for (reply, outcome) in answers {
        // A client that has gone does not wait for its answer.
        let _ = reply.send(outcome);
    }
}
