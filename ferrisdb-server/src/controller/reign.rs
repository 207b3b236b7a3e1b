//! What runs while a controller leads: the machine, and the tasks that move its messages.
//!
//! ```text
//!   heartbeats, commands, long polls --> machine --> effects --> perform     agree, publish, call processes
//!   tick                             -->    ^                    watch       a connection to each member
//!   follow     changes of the shard map, from the logs
//!   distribute transactions on the shard map, through a proxy
//!   sweep      records of idempotency ids that nobody will ask for
//! ```
//!
//! Effects are performed one after the other; calls to other processes run on beside. If the group does not take a
//! record, this controller is not the only one that decides: the reign ends there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Generation, Result, Stage, Tag, Version,
    id::Address,
    runtime::{self, TaskGroup},
    service::{
        Client,
        controller::{
            ClusterState, Command, ControllerMember, Heartbeat, HeartbeatReply, Phase, Status,
        },
        log::{LockReply, LockRequest, LogService},
        proxy::ProxyService,
        worker::WorkerService,
    },
    simulation::{Mark, mark},
    transaction::CommitOutcome,
    transport::{Network, call},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    ControllerSettings,
    cluster_record::{ClusterRecord, Member},
    machine::{Controller, Effect, Input, Recruitment, refused},
    metrics::ControllerMetrics,
    sweep::sweep,
};
use crate::raft::{Register, Written};

/// How long to wait before a member whose connection broke is connected to again: less than a recovery takes.
const RECONNECT_PAUSE: Duration = Duration::from_millis(2);
/// How long a call of a recovery may take. Whoever dies meanwhile is noticed sooner by other means.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a process may take to say whom it reaches; longer than it waits for each of them.
const PROVE_LIMIT: Duration = Duration::from_secs(3);
/// How long a long poll waits for news.
pub(super) const POLL_WAIT: Duration = Duration::from_millis(500);
/// How long to wait when there was nothing to do.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a change of the shard map may take to be seen in the logs.
const FOLLOW_LIMIT: Duration = Duration::from_secs(2);

/// A reign. Its tasks end when it is dropped.
pub(super) struct Reign {
    shared: Arc<Shared>,
    _tasks: TaskGroup,
}

struct Shared {
    machine: Mutex<Controller>,
    effects: mpsc::UnboundedSender<Effect>,
    published: Mutex<Arc<ClusterState>>,
    changed: Notify,
    /// Commands that wait to be agreed on.
    answers: Mutex<Answers>,
    /// Why the reign is over.
    end: Mutex<Option<Error>>,
    ended: Notify,
    register: Register,
    network: Network,
    failure_timeout: Duration,
    calls: TaskGroup,
    watching: Mutex<TaskGroup>,
    metrics: Arc<ControllerMetrics>,
}

#[derive(Default)]
struct Answers {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Reign {
    /// Begins to lead with the record that the register has at `revision`.
    pub(super) fn begin(
        register: Register,
        revision: u64,
        mut record: ClusterRecord,
        controllers: Vec<ControllerMember>,
        network: Network,
        settings: ControllerSettings,
        metrics: Arc<ControllerMetrics>,
    ) -> Arc<Reign> {
        record.reigns += 1;
        let failure_timeout = settings.failure_timeout;
        let idempotency_lifetime = settings.idempotency_lifetime;
        let mut machine = Controller::new(settings, record, revision, runtime::now());
        let mut first = Vec::new();
        machine.begin(controllers, &mut first);
        let (effects, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            published: Mutex::new(Arc::new(machine.state())),
            machine: Mutex::new(machine),
            effects,
            changed: Notify::new(),
            answers: Mutex::default(),
            end: Mutex::default(),
            ended: Notify::new(),
            register,
            network: network.clone(),
            failure_timeout,
            calls: TaskGroup::default(),
            watching: Mutex::default(),
            metrics,
        });
        shared.send(first);
        let tasks = TaskGroup::default();
        tasks.spawn(Shared::perform(Arc::clone(&shared), queue, revision));
        tasks.spawn(Shared::tick(Arc::clone(&shared)));
        tasks.spawn(Shared::follow(Arc::clone(&shared)));
        tasks.spawn(Shared::distribute(Arc::clone(&shared)));
        let published = Arc::clone(&shared);
        let state = move || Arc::clone(&*published.published.lock());
        tasks.spawn(sweep(network, state, idempotency_lifetime));
        Arc::new(Reign { shared, _tasks: tasks })
    }

    /// Gives the machine an input.
    pub(super) fn input(&self, input: Input) {
        self.shared.input(input);
    }

    pub(super) fn heartbeat(&self, request: Heartbeat) -> HeartbeatReply {
        let mut effects = Vec::new();
        let mut machine = self.shared.machine.lock();
        let reply = machine.on_heartbeat(request, runtime::now(), &mut effects);
        self.shared.send(effects);
        reply
    }

    pub(super) fn status(&self, controller: Address) -> Status {
        self.shared.machine.lock().status(runtime::now(), controller)
    }

    /// Carries out a command, as far as agreeing on it.
    pub(super) async fn administer(&self, command: &Command) -> Result<()> {
        let (sender, agreed) = oneshot::channel();
        let answer = {
            let mut answers = self.shared.answers.lock();
            answers.next += 1;
            let answer = answers.next;
            answers.waiting.insert(answer, sender);
            answer
        };
        let mut effects = Vec::new();
        let taken = {
            let mut machine = self.shared.machine.lock();
            let taken = machine.on_command(command, answer, runtime::now(), &mut effects);
            self.shared.send(effects);
            taken
        };
        if let Err(error) = taken {
            self.shared.answers.lock().waiting.remove(&answer);
            return Err(error);
        }
        agreed.await.map_err(|_| refused(ErrorCode::NotLeader, "the leader was replaced meanwhile"))
    }

    /// The published state, as soon as it is newer than `known_revision`; `None` if it is not after a while.
    pub(super) async fn newer_state(&self, known_revision: u64) -> Option<Arc<ClusterState>> {
        let shared = Arc::clone(&self.shared);
        let newer = async {
            loop {
                let changed = shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let state = Arc::clone(&*shared.published.lock());
                if state.revision > known_revision {
                    return state;
                }
                changed.await;
            }
        };
        runtime::timeout(POLL_WAIT, Stage::Control, newer).await.ok()
    }

    /// Waits for the end, and says why.
    pub(super) async fn ended(&self) -> Error {
        loop {
            let ended = self.shared.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(error) = self.shared.end.lock().clone() {
                return error;
            }
            ended.await;
        }
    }
}

impl Drop for Reign {
    fn drop(&mut self) {
        // These hold what is shared, and so would go on for ever.
        self.shared.calls.abort_all();
        self.shared.watching.lock().abort_all();
    }
}

impl Shared {
    fn send(&self, effects: Vec<Effect>) {
        for effect in effects {
            // The queue is closed only when the reign is over: nothing is to be done then.
            let _ = self.effects.send(effect);
        }
    }

    fn input(&self, input: Input) {
        let mut effects = Vec::new();
        let mut machine = self.machine.lock();
        let recoveries = machine.attempt.recoveries;
        machine.step(input, runtime::now(), &mut effects);
        if let Some(last) =
            machine.attempt.last.as_ref().filter(|_| machine.attempt.recoveries > recoveries)
        {
            self.metrics.recovery.record_duration(Duration::from_millis(last.duration_ms));
        }
        self.send(effects);
    }

    fn end(&self, error: Error) {
        self.end.lock().get_or_insert(error);
        self.ended.notify_waiters();
    }

    async fn tick(self: Arc<Self>) {
        loop {
            runtime::sleep(self.failure_timeout / 10).await;
            self.input(Input::Tick);
        }
    }

    async fn perform(
        self: Arc<Self>,
        mut queue: mpsc::UnboundedReceiver<Effect>,
        mut revision: u64,
    ) {
        while let Some(effect) = queue.recv().await {
            match effect {
                Effect::Persist { sequence, record } => {
                    let written = self.register.write(revision, record.to_bytes());
                    match self.metrics.persist.time(written).await {
                        Ok(Written::At(written)) => revision = written,
                        Ok(Written::Stale(_)) => {
                            let detail = "another controller has led meanwhile";
                            return self.end(refused(ErrorCode::NotLeader, detail));
                        }
                        Err(error) => return self.end(error),
                    }
                    self.input(Input::Persisted { sequence });
                }
                Effect::Publish(state) => {
                    *self.published.lock() = Arc::new(*state);
                    self.changed.notify_waiters();
                }
                Effect::Answer(answer) => {
                    if let Some(waiting) = self.answers.lock().waiting.remove(&answer) {
                        // Whoever has gone does not wait for the answer.
                        let _ = waiting.send(());
                    }
                }
                Effect::Lock { index, log, request } => {
                    let this = Arc::clone(&self);
                    self.calls.spawn(async move {
                        let result = this.lock(&log, request).await;
                        let generation = request.generation;
                        this.input(Input::Locked { generation, index, result });
                    });
                }
                Effect::Recruit { generation, slot, worker, request } => {
                    let this = Arc::clone(&self);
                    self.calls.spawn(async move {
                        let result = this.recruit(&worker, request).await;
                        this.input(Input::Recruited { generation, slot, result });
                    });
                }
                Effect::Prove { number, member, workers } => {
                    let this = Arc::clone(&self);
                    self.calls.spawn(async move {
                        let result = this.prove(&member.worker, workers).await;
                        let process = member.process;
                        this.input(Input::Proved { number, process, result });
                    });
                }
                Effect::Watch(members) => {
                    let watching = TaskGroup::default();
                    for member in members {
                        watching.spawn(Shared::watch(Arc::clone(&self), member));
                    }
                    let before = std::mem::replace(&mut *self.watching.lock(), watching);
                    drop(before); // not under the lock
                }
                Effect::PopMetadata { logs, through_version } => {
                    let this = Arc::clone(&self);
                    self.calls.spawn(async move {
                        let pops = logs.iter().map(|log| this.pop_metadata(log, through_version));
                        for popped in futures::future::join_all(pops).await {
                            if let Err(error) = popped {
                                // It is told again soon.
                                tracing::debug!(%error, "metadata could not be popped");
                            }
                        }
                    });
                }
            }
        }
    }

    async fn lock(&self, log: &Endpoint, request: LockRequest) -> Result<LockReply> {
        let locked = async {
            let client = self.network.connect::<LogService>(log).await?;
            call(CALL_LIMIT, Stage::Control, |context| client.lock(context, request)).await?
        };
        locked.await.map_err(|error: Error| error.at(log))
    }

    async fn recruit(&self, worker: &Endpoint, request: Recruitment) -> Result<Endpoint> {
        let recruited = async {
            let client = self.network.connect::<WorkerService>(worker).await?;
            let stage = Stage::Control;
            match request {
                Recruitment::Log(log) => loop {
                    let request = log.clone();
                    let asked = |context| client.recruit_log(context, request);
                    match call(CALL_LIMIT, stage, asked).await? {
                        // It has more to copy than fits into a call, and gets on.
                        Err(error) if error.code() == ErrorCode::TooBusy => {
                            let generation = log.recruitment.generation;
                            self.input(Input::Recruiting { generation });
                            runtime::sleep(PAUSE).await;
                        }
                        recruited => break recruited,
                    }
                },
                Recruitment::Sequencer(sequencer) => {
                    let asked = |context| client.recruit_sequencer(context, sequencer);
                    call(CALL_LIMIT, stage, asked).await?
                }
                Recruitment::Resolver(resolver) => {
                    call(CALL_LIMIT, stage, |context| client.recruit_resolver(context, resolver))
                        .await?
                }
                Recruitment::Proxy(proxy) => {
                    call(CALL_LIMIT, stage, |context| client.recruit_proxy(context, *proxy)).await?
                }
            }
        };
        recruited.await.map_err(|error: Error| error.at(worker))
    }

    async fn prove(&self, worker: &Endpoint, workers: Vec<Endpoint>) -> Result<Vec<Endpoint>> {
        let asked = async {
            let client = self.network.connect::<WorkerService>(worker).await?;
            call(PROVE_LIMIT, Stage::Control, |context| client.unreached(context, workers)).await?
        };
        runtime::timeout(PROVE_LIMIT, Stage::Control, asked).await?
    }

    // Watching the members of the live generation.

    async fn watch(self: Arc<Self>, member: Member) {
        let Err(error) = self.watch_until_lost(&member).await;
        let Member { process, incarnation, worker } = member;
        tracing::debug!(%error, %worker, "a member is lost");
        self.input(Input::Lost { process, incarnation });
    }

    /// Keeps a call waiting at a member. When its connection breaks and no new one can be made, or when nothing comes back, the
    /// member is lost. That a connection breaks says nothing of the process behind it: whoever makes another one lives.
    async fn watch_until_lost(&self, member: &Member) -> Result<std::convert::Infallible> {
        let is_late = |error: &Error| error.code() == ErrorCode::TimedOut;
        // Once is not the end: somebody else may have reset a connection, and an answer may be slow.
        let (mut was_refused, mut was_late) = (false, false);
        let mut client: Option<Client<WorkerService>> = None;
        loop {
            let connected = match client.take() {
                Some(client) => client,
                None => {
                    // The connection counts, too: a machine that has gone does not refuse it.
                    let connecting = self.network.connect::<WorkerService>(&member.worker);
                    let connecting =
                        runtime::timeout(self.failure_timeout, Stage::Control, connecting);
                    match connecting.await.and_then(|connected| connected) {
                        Ok(connected) => {
                            was_refused = false;
                            connected
                        }
                        Err(error) if is_late(&error) && !was_late => {
                            was_late = true;
                            continue;
                        }
                        Err(error) if !is_late(&error) && !was_refused => {
                            was_refused = true;
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let watched = call(self.failure_timeout, Stage::Control, |context| {
                connected.watch(context, member.incarnation)
            });
            match watched.await.and_then(|watched| watched) {
                Ok(incarnation) if incarnation != member.incarnation => {
                    return Err(refused(ErrorCode::NoSuchEndpoint, "it was restarted"));
                }
                Ok(_) => {
                    client = Some(connected);
                    was_late = false;
                }
                Err(error) if error.code() == ErrorCode::Unreachable => {
                    mark(Mark::WatchBroke);
                    runtime::sleep(runtime::jitter(RECONNECT_PAUSE)).await;
                }
                Err(_) if !was_late => was_late = true,
                Err(error) => return Err(error),
            }
        }
    }

    // Following the shard map.

    async fn follow(self: Arc<Self>) {
        let mut choice = 0;
        let mut connection: Option<(Endpoint, Client<LogService>)> = None;
        loop {
            let peek = self.machine.lock().metadata_peek();
            let Some((set, request)) = peek else {
                runtime::sleep(PAUSE).await;
                continue;
            };
            let Some(log) = set.logs.get(choice % set.logs.len().max(1)) else { continue };
            let known = connection.take().filter(|(endpoint, _)| *endpoint == log.endpoint);
            let peeked = async {
                let client = match known {
                    Some((_, client)) => client,
                    None => self.network.connect::<LogService>(&log.endpoint).await?,
                };
                let reply = call(FOLLOW_LIMIT, Stage::Log, |context| client.peek(context, request))
                    .await??;
                Ok::<_, Error>((client, reply))
            };
            match runtime::timeout(FOLLOW_LIMIT, Stage::Log, peeked).await.and_then(|p| p) {
                Ok((client, reply)) => {
                    connection = Some((log.endpoint.clone(), client));
                    let after_version = request.after_version;
                    let is_quiet = reply.messages.is_empty();
                    self.input(Input::Metadata {
                        generation: set.generation,
                        after_version,
                        reply,
                    });
                    if is_quiet {
                        runtime::sleep(PAUSE).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, log = %log.endpoint, "the shard map cannot be followed");
                    choice += 1;
                    runtime::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn pop_metadata(&self, log: &Endpoint, through_version: Version) -> Result<()> {
        let popped = async {
            let client = self.network.connect::<LogService>(log).await?;
            let pop = |context| client.pop(context, Tag::METADATA, through_version);
            call(FOLLOW_LIMIT, Stage::Log, pop).await?
        };
        popped.await.map_err(|error: Error| error.at(log))
    }

    // Changing the shard map.

    async fn distribute(self: Arc<Self>) {
        let mut turn = 0;
        loop {
            runtime::sleep(runtime::jitter(PAUSE * 2)).await;
            if !self.machine.lock().wants_relocation(runtime::now()) {
                continue;
            }
            turn += 1;
            if let Err(error) = self.relocate(turn).await {
                // Whether it was committed is seen in the map.
                tracing::debug!(%error, "the shard map was not changed");
                runtime::sleep(PAUSE).await;
            }
        }
    }

    /// Commits the next steps of all shards, and waits until the map shows them.
    async fn relocate(&self, turn: usize) -> Result<()> {
        let state = Arc::clone(&*self.published.lock());
        let coordinator = state.coordinator.as_ref().filter(|_| state.phase == Phase::Active);
        let proxies = coordinator.map(|members| &members.proxies[..]).unwrap_or_default();
        let Some(proxy) = proxies.get(turn % proxies.len().max(1)) else { return Ok(()) };
        let client = self.network.connect::<ProxyService>(proxy).await?;
        let read_version =
            call(FOLLOW_LIMIT, Stage::ReadVersion, |context| client.read_version(context, false))
                .await??;
        self.followed(read_version, state.generation).await?;
        let request = self.machine.lock().relocation(read_version, runtime::now());
        let Some(request) = request else { return Ok(()) };
        tracing::info!(changes = request.mutations.len(), "moving shards");
        let outcome =
            call(FOLLOW_LIMIT, Stage::Commit, |context| client.commit(context, request)).await??;
        if let CommitOutcome::Committed(committed) = outcome {
            self.followed(committed.versionstamp.commit_version, state.generation).await?;
        }
        Ok(())
    }

    /// Waits until the map is known up to a version, which is committed.
    async fn followed(&self, version: Version, generation: Generation) -> Result<()> {
        self.input(Input::Committed(version));
        let followed = async {
            loop {
                let (known, live) = {
                    let machine = self.machine.lock();
                    (machine.metadata_version(), machine.state().generation)
                };
                if known >= version || live != generation {
                    return;
                }
                runtime::sleep(PAUSE / 5).await;
            }
        };
        runtime::timeout(FOLLOW_LIMIT, Stage::Control, followed).await
    }
}
