//! The shell of a storage server: tasks that move messages between the logs, the machine, the window and
//! the engine, and the service that answers reads.
//!
//! ```text
//!   follow    cluster state --> machine --> rollback of window and shards, or a new life with nothing
//!   pull      log --> machine --> shards, window --> reads that wait for their version       (super::pulling)
//!             other servers --> engine, a page at a time, between two pulls
//!   flush     window, shards --> engine                                                      (super::flushing)
//!   pop       engine's version --> logs
//!   watches   what was applied --> clients that wait for a change of a key                   (super::watch)
//! ```
//!
//! Locks, in the order in which they are taken: the machine, the state that reads look at, the waiters, the watches or
//! what is known of copying. What the machine decides about the window is done before its lock is released, so that a
//! rollback never overtakes the versions it is about. No lock is held across an await.
//!
//! A server whose tag was given up begins a new *life*: machine, window, shards and engine begin with nothing. What
//! was under way for the old life is recognized by its number and dropped.
//!
//! An error of the engine, or of what the logs say, ends the service: every read gets it, nothing is pulled
//! or written any more, and the log of the process says so. Start with [`StorageServer::open`].

use std::{sync::Arc, time::Duration};

use ferrisdb_core::{
    Error, ProcessId, Result, Version,
    cluster_view::ClusterView,
    handler, limits,
    metrics::Registration,
    runtime::{self, TaskGroup},
    service::{
        ServiceKind,
        controller::{ClusterState, DISK_IS_FULL, Progress, StorageReport},
        storage::StorageService,
    },
    simulation::{Plant, planted},
    transport::{Network, Router},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::{
    budget::ReadLimits,
    engine::{Engine, Reserve},
    fetch::Fetch,
    flushing::{flush, pop},
    machine::{Beginning, Machine, MachineSettings},
    metrics::StorageMetrics,
    pulling::pull,
    service::Reads,
    serving::{Serving, ServingLock},
    shards::Shards,
    waiters::Waiters,
    watch::WatchDesk,
    window::Window,
};

/// The settings of a storage server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageSettings {
    /// How far the engine stays behind what is applied: the versions that can be read.
    pub window_versions: u64,
    /// How often the engine is written.
    pub flush_interval: Duration,
    /// Bytes of messages after which the engine is written before its time, and of the window that are written at once.
    pub flush_bytes: usize,
    /// Memory of the window at which it gets shorter, and if that is not possible, stops growing.
    pub window_bytes_max: usize,
    /// How long a read waits for a version that was not applied yet.
    pub future_version_wait: Duration,
    /// About how many bytes one peek asks for.
    pub peek_bytes: u32,
    /// How long a log may wait for something new before it answers that there is nothing.
    pub peek_wait: Duration,
    /// About how many bytes of a shard are copied from another server at once.
    pub page_bytes: u32,
    /// How much one range read may look at.
    pub read_limits: ReadLimits,
}

impl StorageSettings {
    fn machine(&self) -> MachineSettings {
        MachineSettings {
            window_versions: self.window_versions,
            flush_bytes: self.flush_bytes,
            window_bytes_max: self.window_bytes_max,
            peek_bytes: self.peek_bytes,
        }
    }
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
            page_bytes: 1 << 20,
            read_limits: ReadLimits::default(),
        }
    }
}

/// How often to look whether somebody still uses an engine that is to be opened anew.
const RELEASE_PAUSE: Duration = Duration::from_millis(10);

/// A storage server. Ends when it is dropped.
#[derive(Debug)]
pub struct StorageServer {
    shared: Arc<Shared>,
    router: Router,
    instance: u64,
    tasks: TaskGroup,
    _metrics: Registration,
}

/// What tasks and requests share.
pub(super) struct Shared {
    process: ProcessId,
    pub(super) network: Network,
    pub(super) view: Arc<ClusterView>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) settings: StorageSettings,
    pub(super) machine: Mutex<Machine>,
    pub(super) serving: ServingLock,
    pub(super) waiters: Waiters,
    pub(super) watches: WatchDesk,
    pub(super) fetch: Mutex<Fetch>,
    /// The logs or the tag have changed, or the server has failed.
    pub(super) sources_changed: Notify,
    /// The engine should be written before its time.
    pub(super) flush_is_urgent: Notify,
    /// Logs can be told more than before.
    pub(super) pops_changed: Notify,
    /// Held by a write of the engine, which outlives the task that began it.
    pub(super) writing: Arc<Semaphore>,
    /// Why a change of the engine waits: the disk has no space.
    pub(super) full: Mutex<Option<String>>,
    pub(super) metrics: Arc<StorageMetrics>,
}

impl StorageServer {
    /// Serves what the engine has, and whatever the logs have for the tag that the cluster gave `process`. Without a
    /// tag it waits for one.
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
        let restored =
            engine.attachment().and_then(|attachment| Shards::restore(attachment, version));
        let (shards, failure) = match restored {
            Ok(shards) => (shards, None),
            Err(error) => (Shards::none(), Some(error)),
        };
        let machine = Machine::new(process, shards.tag(), version, settings.machine());
        let serving = Serving { life: 0, window: Window::new(version), shards, failure: None };
        let shared = Arc::new(Shared {
            process,
            network,
            view,
            engine,
            settings,
            machine: Mutex::new(machine),
            serving: ServingLock::new(serving),
            waiters: Waiters::default(),
            watches: WatchDesk::default(),
            fetch: Mutex::new(Fetch::new(settings.page_bytes)),
            sources_changed: Notify::new(),
            flush_is_urgent: Notify::new(),
            pops_changed: Notify::new(),
            writing: Arc::new(Semaphore::new(1)),
            full: Mutex::default(),
            metrics: Arc::default(),
        });
        shared.waiters.on_applied(version);
        if let Some(error) = failure {
            shared.fail(error);
        }
        let reads = Reads(Arc::clone(&shared));
        router.add::<StorageService>(
            instance,
            handler!(ferrisdb_core::service::storage::Storage, reads),
        );
        let (metrics, weak) = (Arc::clone(&shared.metrics), Arc::downgrade(&shared));
        let _metrics = router.metrics().register_with(&[], metrics, move || {
            weak.upgrade().iter().for_each(|shared| shared.set_gauges());
        });
        let tasks = TaskGroup::default();
        tasks.spawn(follow(Arc::clone(&shared)));
        // Applying keeps a thread busy for half a millisecond at a time: requests are not to wait for it.
        tasks.add(runtime::spawn_apart("ferrisdb-apply", pull(Arc::clone(&shared))));
        tasks.spawn(flush(Arc::clone(&shared)));
        tasks.spawn(pop(Arc::clone(&shared)));
        tasks.spawn(WatchDesk::forget_idle(Arc::clone(&shared)));
        StorageServer { shared, router, instance, tasks, _metrics }
    }

    /// How far the server is.
    pub fn progress(&self) -> Progress {
        self.shared.progress()
    }

    /// What the server holds, for the controllers.
    ///
    /// A range is copied as of the joining that the server has seen last. Whoever lets it leave and join again has to
    /// know which joining a report is about: one that is taken after [`StorageServer::progress`] and says that it is
    /// copied, is about the joining at version v or a later one if the durable version of the progress is at least v.
    pub fn report(&self) -> StorageReport {
        let serving = self.shared.serving.read();
        let shards = &serving.shards;
        StorageReport {
            tag: shards.tag(),
            copied: shards.copied(),
            copying: shards.copying(),
            copied_bytes: self.shared.fetch.lock().copied_bytes(),
        }
    }

    /// Why the server is of no use any more, for the controllers. A restart may help; if the disk is full, space does.
    pub fn trouble(&self) -> Option<String> {
        let full = || self.shared.full.lock().as_ref().map(|why| format!("{DISK_IS_FULL}: {why}"));
        self.failure().map(|error| error.to_string()).or_else(full)
    }

    /// Why the server has stopped serving, if it has. It does not recover from that.
    pub fn failure(&self) -> Option<Error> {
        self.shared.serving.read().failure.clone()
    }

    /// Whether the engine has to be opened anew before anything can be written to it, and there is space for that.
    pub fn needs_reopening(&self) -> bool {
        let engine = &self.shared.engine;
        engine.needs_reopening() && engine.check_space(Reserve::All).is_ok()
    }

    /// Stops, and returns when nobody uses the engine any more, so that it can be opened anew. The caller has the last handle.
    pub async fn release_engine(self: Arc<StorageServer>) {
        let engine = Arc::downgrade(&self.shared.engine);
        self.shut_down().await;
        self.shared.waiters.wake_all();
        drop(self);
        while engine.strong_count() > 0 {
            runtime::sleep(RELEASE_PAUSE).await;
        }
    }

    /// Stops, and returns when nothing writes to the engine any more. What is not in it stays in the logs, from
    /// which the next start has its window again: versions that can be read now can be read then.
    pub async fn shut_down(&self) {
        self.router.remove(ServiceKind::Storage, self.instance);
        self.tasks.abort_all();
        self.shared.watches.close();
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
        self.shared.watches.close();
    }
}

/// Follows the state of the cluster.
async fn follow(shared: Arc<Shared>) {
    let mut revision = 0;
    while !shared.has_failed() {
        let cluster = shared.view.newer_than(revision).await;
        revision = cluster.revision;
        match shared.on_cluster_state(&cluster) {
            Ok(None) => {}
            Ok(Some(beginning)) => {
                // The new life learns the same state, when it can pull.
                let begun = shared.begin_anew(beginning).await;
                if let Err(error) = begun.and_then(|()| shared.on_cluster_state(&cluster).map(drop))
                {
                    return shared.fail(error);
                }
            }
            Err(error) => return shared.fail(error),
        }
    }
}

impl Shared {
    /// Returns what to begin anew with, if that is what the state asks for.
    fn on_cluster_state(&self, cluster: &ClusterState) -> Result<Option<Beginning>> {
        let mut machine = self.machine.lock();
        let changes = machine.on_cluster_state(cluster)?;
        if let Some(version) = changes.rollback_after {
            tracing::info!(%version, "versions that were never acknowledged are rolled back");
            let mut serving = self.serving.write();
            serving.window.rollback_after(version);
            if !planted(Plant::KeepShardsOfRolledBack) {
                serving.shards.rollback_after(version);
            }
            drop(serving);
            self.waiters.on_applied(version);
            // Before the machine goes on: what is applied next looks for itself.
            self.look_after_rollback(version)?;
        }
        drop(machine);
        if changes.sources_changed {
            self.sources_changed.notify_waiters();
            self.pops_changed.notify_waiters();
        }
        Ok(changes.begins_anew)
    }

    /// Forgets everything: the data belonged to a tag that the cluster has given up, if there is any.
    async fn begin_anew(&self, beginning: Beginning) -> Result<()> {
        let (shards, version) = match beginning {
            Beginning::Waiting => (Shards::none(), Version::ZERO),
            Beginning::Tagged(tag, version) => (Shards::new(tag, version), version),
        };
        tracing::info!(?beginning, "the server begins anew");
        // First nothing is served, pulled or flushed any more. Then the engine is emptied, and then it starts.
        self.install(Shards::none(), Version::ZERO);
        let attachment = shards.first_attachment();
        let life = self.serving.read().life;
        self.change_engine(life, move |engine| engine.reset(version, attachment.as_ref())).await?;
        self.install(shards, version);
        Ok(())
    }

    /// Puts another life in the place of this one.
    fn install(&self, shards: Shards, version: Version) {
        let mut machine = self.machine.lock();
        let mut serving = self.serving.write();
        *machine = Machine::new(self.process, shards.tag(), version, self.settings.machine());
        serving.life += 1;
        serving.window = Window::new(version);
        serving.shards = shards;
        drop(serving);
        self.waiters.wake_all();
        self.waiters.on_applied(version);
        self.watches.refuse_all();
        drop(machine);
        self.sources_changed.notify_waiters();
        self.pops_changed.notify_waiters();
    }

    pub(super) fn progress(&self) -> Progress {
        let serving = self.serving.read();
        Progress {
            version: serving.window.applied_version(),
            durable_version: self.engine.version(),
            bytes: serving.window.memory_bytes() as u64,
        }
    }

    fn set_gauges(&self) {
        let Progress { version, durable_version, bytes } = self.progress();
        let committed = self.machine.lock().known_committed_version();
        self.metrics.behind.set(committed.0.saturating_sub(version.0));
        self.metrics.window.set(bytes);
        self.metrics.unflushed.set(version.0.saturating_sub(durable_version.0));
        let engine = self.engine.usage();
        self.metrics.engine_memory.set(engine.memory_bytes);
        self.metrics.engine_disk.set(engine.disk_bytes);
        self.metrics.waiting.set(self.waiters.count() as u64);
    }

    pub(super) fn has_failed(&self) -> bool {
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
        self.watches.wake_all();
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
