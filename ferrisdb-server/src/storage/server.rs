//! The shell of a storage server: tasks that move messages between the logs, the machine, the window and
//! the engine, and the service that answers reads.
//!
//! ```text
//!   follow    cluster state --> machine --> rollback of the window, shards
//!   pull      log --> machine --> window --> reads that wait for their version
//!   flush     window --> engine
//!   pop       engine's version --> logs
//! ```
//!
//! Locks, in the order in which they are taken: the machine, the state that reads look at, the waiters. What
//! the machine decides about the window is done before its lock is released, so that a rollback never
//! overtakes the versions it is about. No lock is held across an await.
//!
//! An error of the engine, or of what the logs say, ends the service: every read gets it, nothing is pulled
//! or written any more, and the log of the process says so. Start with [`StorageServer::open`].
//!
//! # Caveats
//!
//! Atomic operations on keys that the window does not know read the engine while the window is locked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Key, ProcessId, Result, Stage, Value, Version,
    cluster_view::ClusterView,
    handler, limits,
    mutation::{self, Mutation},
    runtime::{self, TaskGroup},
    service::{
        ServiceKind,
        controller::{ClusterState, Progress},
        log::{LogClient, LogService, PeekReply},
        storage::StorageService,
    },
    transport::{self, Network, Router},
};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio::sync::{Notify, Semaphore};

use super::{
    engine::{Engine, EngineBatch},
    machine::{Advance, Machine, MachineSettings, Peek, Pop, Pull},
    ownership::Ownership,
    service::Reads,
    waiters::Waiters,
    window::Window,
};

/// How much longer than its own wait a log may take to answer a peek.
const PEEK_GRACE: Duration = Duration::from_secs(1);
/// How long a log may take to answer a pop.
const POP_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait before logs that did not answer are told again.
const POP_RETRY: Duration = Duration::from_millis(500);

/// The settings of a storage server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageSettings {
    /// How far the engine stays behind what is applied: the versions that can be read.
    pub window_versions: u64,
    /// How often the engine is written.
    pub flush_interval: Duration,
    /// Bytes of messages after which the engine is written before its time.
    pub flush_bytes: usize,
    /// Memory of the window at which it gets shorter, and if that is not possible, stops growing.
    pub window_bytes_max: usize,
    /// How long a read waits for a version that was not applied yet.
    pub future_version_wait: Duration,
    /// About how many bytes one peek asks for.
    pub peek_bytes: u32,
    /// How long a log may wait for something new before it answers that there is nothing.
    pub peek_wait: Duration,
}

impl Default for StorageSettings {
    fn default() -> StorageSettings {
        StorageSettings {
            window_versions: limits::WINDOW_VERSIONS,
            flush_interval: Duration::from_millis(250),
            flush_bytes: 16 << 20,
            window_bytes_max: 512 << 20,
            future_version_wait: Duration::from_secs(1),
            peek_bytes: limits::PEEK_BYTES_MAX as u32,
            peek_wait: Duration::from_millis(500),
        }
    }
}

/// A storage server. Ends when it is dropped.
#[derive(Debug)]
pub struct StorageServer {
    shared: Arc<Shared>,
    router: Router,
    instance: u64,
    tasks: TaskGroup,
}

/// What tasks and requests share.
pub(super) struct Shared {
    network: Network,
    view: Arc<ClusterView>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) settings: StorageSettings,
    machine: Mutex<Machine>,
    pub(super) serving: RwLock<Serving>,
    pub(super) waiters: Waiters,
    /// The logs or the tag have changed, or the server has failed.
    sources_changed: Notify,
    /// The engine should be written before its time.
    flush_is_urgent: Notify,
    /// Logs can be told more than before.
    pops_changed: Notify,
    /// Held by a write of the engine, which outlives the task that began it.
    writing: Arc<Semaphore>,
}

/// What reads look at.
pub(super) struct Serving {
    pub(super) window: Window,
    pub(super) ownership: Ownership,
    /// Why nothing is served any more.
    pub(super) failure: Option<Error>,
}

impl StorageServer {
    /// Serves what the engine has, and whatever the logs have for the tag that the cluster gave `process`.
    ///
    /// Offers [`StorageService`] under `instance` of the router, until the server is dropped.
    pub fn open(
        network: Network,
        view: Arc<ClusterView>,
        router: Router,
        instance: u64,
        process: ProcessId,
        engine: Arc<dyn Engine>,
        settings: StorageSettings,
    ) -> StorageServer {
        let version = engine.version();
        let machine_settings = MachineSettings {
            window_versions: settings.window_versions,
            flush_bytes: settings.flush_bytes,
            window_bytes_max: settings.window_bytes_max,
            peek_bytes: settings.peek_bytes,
            peek_wait: settings.peek_wait,
        };
        let serving =
            Serving { window: Window::new(version), ownership: Ownership::Unknown, failure: None };
        let shared = Arc::new(Shared {
            network,
            view,
            engine,
            settings,
            machine: Mutex::new(Machine::new(process, version, machine_settings)),
            serving: RwLock::new(serving),
            waiters: Waiters::default(),
            sources_changed: Notify::new(),
            flush_is_urgent: Notify::new(),
            pops_changed: Notify::new(),
            writing: Arc::new(Semaphore::new(1)),
        });
        shared.waiters.on_applied(version);
        let reads = Reads(Arc::clone(&shared));
        router.add::<StorageService>(
            instance,
            handler!(ferrisdb_core::service::storage::Storage, reads),
        );
        let tasks = TaskGroup::default();
        tasks.spawn(follow(Arc::clone(&shared)));
        tasks.spawn(pull(Arc::clone(&shared)));
        tasks.spawn(flush(Arc::clone(&shared)));
        tasks.spawn(pop(Arc::clone(&shared)));
        StorageServer { shared, router, instance, tasks }
    }

    /// How far the server is.
    pub fn progress(&self) -> Progress {
        self.shared.progress()
    }

    /// Why the server has stopped serving, if it has. It does not recover from that.
    pub fn failure(&self) -> Option<Error> {
        self.shared.serving.read().failure.clone()
    }

    /// Stops, and returns when nothing writes to the engine any more. What is not in it stays in the logs, from
    /// which the next start has its window again: versions that can be read now can be read then.
    pub async fn shut_down(&self) {
        self.router.remove(ServiceKind::Storage, self.instance);
        self.tasks.abort_all();
        // Nobody closes the semaphore, so this only waits for a write that is under way.
        drop(self.shared.writing.acquire().await);
    }

    /// Stops together with the whole cluster: whatever is known to be committed is written to the engine.
    ///
    /// The recovery at the next start makes every read version too old anyway, so no window is worth keeping,
    /// and the logs can be dropped sooner.
    pub async fn shut_down_with_cluster(&self) {
        self.shut_down().await;
        if !self.shared.has_failed()
            && let Err(error) = self.shared.last_flush().await
        {
            tracing::warn!(%error, "the engine could not be written at the end; the logs have it all");
        }
    }
}

impl Drop for StorageServer {
    fn drop(&mut self) {
        self.router.remove(ServiceKind::Storage, self.instance);
    }
}

/// Follows the state of the cluster.
async fn follow(shared: Arc<Shared>) {
    let mut revision = 0;
    while !shared.has_failed() {
        let cluster = shared.view.newer_than(revision).await;
        revision = cluster.revision;
        shared.on_cluster_state(&cluster);
    }
}

/// Gets one version after the other from the logs.
async fn pull(shared: Arc<Shared>) {
    let mut connection = None;
    loop {
        let changed = shared.sources_changed.notified();
        tokio::pin!(changed);
        // Registered before the machine is asked, so that a change in between is not missed.
        changed.as_mut().enable();
        if shared.has_failed() {
            return;
        }
        match shared.next_pull() {
            Pull::Wait(None) => changed.await,
            Pull::Wait(Some(pause)) => {
                tokio::select! {
                    biased;
                    () = changed => {}
                    () = runtime::sleep(pause) => {}
                }
            }
            Pull::Peek(peek) => {
                tokio::select! {
                    biased;
                    () = changed => {}
                    reply = shared.peek(&peek, &mut connection) => shared.on_peeked(&peek, reply),
                }
            }
        }
    }
}

/// Writes to the engine what leaves the window.
async fn flush(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.flush_is_urgent.notified() => {}
            () = runtime::sleep(shared.settings.flush_interval) => {}
        }
        if shared.has_failed() {
            return;
        }
        if let Err(error) = shared.flush().await {
            return shared.fail(error);
        }
    }
}

/// Tells logs what they may forget. Best effort: they are told again until they confirm.
async fn pop(shared: Arc<Shared>) {
    let mut clients = BTreeMap::new();
    loop {
        let changed = shared.pops_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if shared.has_failed() {
            return;
        }
        let pops = shared.machine.lock().pops();
        let told: Vec<_> =
            pops.iter().map(|pop| shared.pop(pop, clients.remove(&pop.endpoint))).collect();
        let mut failed = false;
        // Connections to logs that have nothing left to be told end here.
        clients = BTreeMap::new();
        for (pop, told) in pops.iter().zip(futures::future::join_all(told).await) {
            match told {
                Ok(client) => {
                    clients.insert(pop.endpoint.clone(), client);
                    shared.machine.lock().on_popped(pop);
                }
                Err(error) => {
                    tracing::debug!(%error, log = %pop.endpoint, "a pop failed");
                    failed = true;
                }
            }
        }
        if failed {
            runtime::sleep(runtime::jitter(POP_RETRY)).await;
        } else {
            changed.await;
        }
    }
}

impl Shared {
    fn on_cluster_state(&self, cluster: &ClusterState) {
        let mut machine = self.machine.lock();
        let changes = match machine.on_cluster_state(cluster) {
            Ok(changes) => changes,
            Err(error) => return self.fail(error),
        };
        let mut serving = self.serving.write();
        if let Some(version) = changes.rollback_after {
            tracing::info!(%version, "versions that were never acknowledged are rolled back");
            serving.window.rollback_after(version);
            self.waiters.on_applied(version);
        }
        serving.ownership = Ownership::new(cluster, machine.tag());
        drop(serving);
        drop(machine);
        if changes.sources_changed {
            self.sources_changed.notify_waiters();
            self.pops_changed.notify_waiters();
        }
    }

    fn next_pull(&self) -> Pull {
        let mut machine = self.machine.lock();
        let window_bytes = self.serving.read().window.memory_bytes();
        machine.next_pull(window_bytes)
    }

    /// Asks a log, over the connection of the last time if it was the same log.
    async fn peek(
        &self,
        peek: &Peek,
        connection: &mut Option<(Endpoint, LogClient)>,
    ) -> Result<PeekReply> {
        let known = connection.take().filter(|(endpoint, _)| *endpoint == peek.endpoint);
        let client = match known {
            Some((_, client)) => client,
            None => self.network.connect::<LogService>(&peek.endpoint).await?,
        };
        let limit = Duration::from_millis(peek.request.wait_ms.into()) + PEEK_GRACE;
        let reply =
            transport::call(limit, Stage::Log, |context| client.peek(context, peek.request))
                .await
                .map_err(|error| error.at(&peek.endpoint))?;
        // Kept only while it works: a call that was given up leaves its connection in doubt.
        *connection = Some((peek.endpoint.clone(), client));
        reply
    }

    fn on_peeked(&self, peek: &Peek, reply: Result<PeekReply>) {
        let mut machine = self.machine.lock();
        let window_bytes = self.serving.read().window.memory_bytes();
        let applied = match reply {
            Ok(reply) => machine
                .on_peeked(peek, reply, window_bytes)
                .and_then(|advance| advance.map_or(Ok(()), |advance| self.apply(advance))),
            Err(error) => {
                machine.on_peek_failed(peek, &error);
                Ok(())
            }
        };
        if let Err(error) = applied {
            return self.fail(error);
        }
        let window_bytes = self.serving.read().window.memory_bytes();
        if machine.is_flush_urgent(window_bytes) {
            self.flush_is_urgent.notify_one();
        }
    }

    /// Applies one version after the other; reads go on in between.
    fn apply(&self, advance: Advance) -> Result<()> {
        for (version, message) in advance.messages {
            let mutations: Vec<Mutation> =
                mutation::decode(message).collect::<Result<_, _>>().map_err(|error| {
                    let detail = format!("the messages of version {version}: {error}");
                    Error::new(ErrorCode::Corrupt, Stage::Apply, detail)
                })?;
            let mut base = |key: &Key| self.base_value(key);
            self.serving.write().window.apply(version, mutations, &mut base)?;
        }
        let mut serving = self.serving.write();
        if advance.through_version > serving.window.applied_version() {
            serving.window.advance(advance.through_version);
        }
        drop(serving);
        self.waiters.on_applied(advance.through_version);
        Ok(())
    }

    /// What atomic operations find in a key that the window does not know.
    fn base_value(&self, key: &Key) -> Result<Option<Value>> {
        Ok(self.engine.get(key)?.map(|versioned| versioned.value))
    }

    async fn flush(&self) -> Result<()> {
        let Some(batch) = self.begin_flush() else { return Ok(()) };
        let version = batch.version;
        let permit = Arc::clone(&self.writing).acquire_owned().await;
        let engine = Arc::clone(&self.engine);
        runtime::blocking(move || {
            let written = engine.write(&batch);
            drop(engine);
            drop(permit);
            written
        })
        .await?;
        let mut machine = self.machine.lock();
        self.serving.write().window.finish_flush(version);
        machine.on_flushed(version);
        drop(machine);
        self.pops_changed.notify_waiters();
        Ok(())
    }

    /// Writes what is known to be committed, once all tasks have ended.
    async fn last_flush(&self) -> Result<()> {
        let batch = {
            let mut machine = self.machine.lock();
            let mut serving = self.serving.write();
            let Some(version) = machine.last_flush() else { return Ok(()) };
            // A write that was cut off from its task may have got there.
            if self.engine.version() >= version {
                return Ok(());
            }
            serving.window.begin_flush(version)
        };
        let engine = Arc::clone(&self.engine);
        runtime::blocking(move || engine.write(&batch)).await
    }

    /// Reads wait only while the oldest version is raised, not while the batch is made.
    fn begin_flush(&self) -> Option<EngineBatch> {
        let mut machine = self.machine.lock();
        let mut serving = self.serving.write();
        let (bytes, is_empty) = (serving.window.memory_bytes(), serving.window.is_empty());
        let version = machine.next_flush(bytes, is_empty)?;
        serving.window.raise_oldest_version(version);
        let serving = RwLockWriteGuard::downgrade(serving);
        Some(serving.window.flush_batch(version))
    }

    /// Tells one log, over a connection or a new one.
    async fn pop(&self, pop: &Pop, client: Option<LogClient>) -> Result<LogClient> {
        let client = match client {
            Some(client) => client,
            None => self.network.connect::<LogService>(&pop.endpoint).await?,
        };
        transport::call(POP_LIMIT, Stage::Log, |context| {
            client.pop(context, pop.tag, pop.through_version)
        })
        .await??;
        Ok(client)
    }

    pub(super) fn progress(&self) -> Progress {
        let serving = self.serving.read();
        Progress {
            version: serving.window.applied_version(),
            durable_version: self.engine.version(),
            bytes: serving.window.memory_bytes() as u64,
        }
    }

    fn has_failed(&self) -> bool {
        self.serving.read().failure.is_some()
    }

    /// Stops for good.
    pub(super) fn fail(&self, error: Error) {
        {
            let mut serving = self.serving.write();
            if serving.failure.is_some() {
                return;
            }
            tracing::error!(%error, "the storage server stops serving");
            serving.failure = Some(error);
        }
        self.waiters.wake_all();
        self.sources_changed.notify_waiters();
        self.pops_changed.notify_waiters();
        self.flush_is_urgent.notify_one();
    }

    /// The newest version of which everything can be read.
    pub(super) fn applied_version(&self) -> Version {
        self.serving.read().window.applied_version()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.machine.lock().fmt(f)
    }
}
