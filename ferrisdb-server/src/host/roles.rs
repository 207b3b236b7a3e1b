//! One role in a process: made, offered, registered, and stopped.

use std::{path::Path, sync::Arc};

use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Generation, ProcessId, Result, Stage,
    cluster_view::ClusterView,
    handler,
    id::Address,
    runtime::{self, Task},
    service::{
        controller::{
            ControllerService, CoordinatorMembers, HeartbeatReply, Phase, ProcessClass, Progress,
        },
        worker::{RecruitCoordinator, RecruitLog, Worker as WorkerApi, WorkerService},
    },
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tarpc::context::Context;
use tokio::sync::Notify;

use super::{
    media::Media,
    site::Site,
    worker::{Hosted, Identity, Worker},
};
use crate::{
    controller::{ControllerServer, ControllerSettings},
    coordinator::{Coordinator, CoordinatorSettings},
    directory::{DataDirectory, DirectoryKind},
    log::{LogSettings, LogStore},
    storage::{StorageServer, StorageSettings},
};

/// A controller in this process.
pub struct ControllerHost {
    site: Arc<Site>,
    server: ControllerServer,
    _directory: DataDirectory,
}

impl ControllerHost {
    /// Starts a controller with its record in `path`.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, or its record is damaged.
    pub async fn start(
        site: Arc<Site>,
        media: &Media,
        path: &Path,
        settings: ControllerSettings,
    ) -> Result<ControllerHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk.clone(), path, DirectoryKind::Controller).await?;
        if let Some(cluster_id) = directory.cluster_id() {
            site.network().join(cluster_id)?;
        }
        let (address, network) = (site.address().clone(), site.network().clone());
        let server = ControllerServer::start(disk, path, address, network, settings).await?;
        directory.join(server.cluster_id()).await?;
        site.router().add::<ControllerService>(
            0,
            handler!(ferrisdb_core::service::controller::Controller, server.clone()),
        );
        Ok(ControllerHost { site, server, _directory: directory })
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops it. Its record is always on disk, so nothing is left to be done.
    pub async fn shut_down(self) {
        self.site.close();
    }
}

impl Drop for ControllerHost {
    fn drop(&mut self) {
        self.server.stop();
    }
}

/// A process that can host a coordinator.
pub struct CoordinatorHost {
    site: Arc<Site>,
    hosted: Arc<CoordinatorWorker>,
    _worker: Worker,
}

struct CoordinatorWorker {
    site: Arc<Site>,
    settings: CoordinatorSettings,
    hosted: Mutex<Option<Arc<Coordinator>>>,
    changed: Arc<Notify>,
    /// Waits for the end of the hosted generation, to report it at once.
    watching: Mutex<Option<Task>>,
}

impl CoordinatorHost {
    /// Registers with the controllers, and waits to be recruited.
    pub fn start(
        site: Arc<Site>,
        controllers: Vec<Address>,
        settings: CoordinatorSettings,
    ) -> CoordinatorHost {
        let changed = Arc::new(Notify::new());
        let hosted = Arc::new(CoordinatorWorker {
            site: Arc::clone(&site),
            settings,
            hosted: Mutex::default(),
            changed: Arc::clone(&changed),
            watching: Mutex::default(),
        });
        // It has no directory, so it is somebody new at each start.
        let identity = Identity { process: ProcessId::random(), class: ProcessClass::Coordinator };
        let service = WorkerServer::Coordinator(Arc::clone(&hosted));
        site.router().add::<WorkerService>(
            identity.instance(),
            handler!(ferrisdb_core::service::worker::Worker, service),
        );
        let worker =
            Worker::start(Arc::clone(&site), controllers, identity, hosted.clone(), changed);
        CoordinatorHost { site, hosted, _worker: worker }
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops it. Commits in flight are answered with an unknown result.
    pub async fn shut_down(self) {
        *self.hosted.watching.lock() = None;
        *self.hosted.hosted.lock() = None;
        self.site.close();
    }
}

impl CoordinatorWorker {
    async fn recruit(&self, request: RecruitCoordinator) -> Result<CoordinatorMembers> {
        check_cluster(&self.site, request.cluster_id)?;
        {
            let mut hosted = self.hosted.lock();
            match hosted.as_ref().map(|coordinator| coordinator.generation()) {
                Some(newer) if newer > request.generation => {
                    let detail = format!("generation {newer} is hosted here");
                    return Err(Error::new(ErrorCode::GenerationEnded, Stage::Control, detail));
                }
                // The one before ends first: its clients are told, and find the next.
                _ => *hosted = None,
            }
        }
        let (site, settings) = (&self.site, &self.settings);
        let (address, network, router) = (site.address(), site.network(), site.router());
        let coordinator = Coordinator::start(request, address, network, router, settings).await?;
        let coordinator = Arc::new(coordinator);
        let members = coordinator.members().clone();
        let (failure, changed) = (coordinator.failure().clone(), Arc::clone(&self.changed));
        let mut hosted = self.hosted.lock();
        if hosted.as_ref().is_some_and(|other| other.generation() > coordinator.generation()) {
            let detail = "a newer generation was recruited meanwhile";
            return Err(Error::new(ErrorCode::GenerationEnded, Stage::Control, detail));
        }
        *hosted = Some(coordinator);
        *self.watching.lock() = Some(runtime::spawn(async move {
            failure.failed().await;
            changed.notify_one();
        }));
        Ok(members)
    }
}

impl Hosted for CoordinatorWorker {
    fn hosted_generations(&self) -> Vec<Generation> {
        let hosted = self.hosted.lock();
        let healthy = hosted.iter().filter(|coordinator| coordinator.failure().cause().is_none());
        healthy.map(|coordinator| coordinator.generation()).collect()
    }

    fn progress(&self) -> Progress {
        Progress::default()
    }

    fn join(&self, _: ClusterId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn on_reply(&self, reply: &HeartbeatReply) {
        // A generation that was replaced serves nobody; its roles go.
        let mut hosted = self.hosted.lock();
        if hosted.as_ref().is_some_and(|coordinator| coordinator.generation() < reply.generation) {
            *hosted = None;
        }
    }
}

/// A process that can host logs.
pub struct LogHost {
    site: Arc<Site>,
    store: Arc<LogStore>,
    _worker: Worker,
    _retiring: Task,
}

struct LogWorker {
    site: Arc<Site>,
    store: Arc<LogStore>,
    directory: DataDirectory,
}

impl LogHost {
    /// Opens the logs in `path` and registers with the controllers.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, or a log in it is damaged.
    pub async fn start(
        site: Arc<Site>,
        media: &Media,
        path: &Path,
        controllers: Vec<Address>,
        settings: LogSettings,
    ) -> Result<LogHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk.clone(), path, DirectoryKind::Log).await?;
        join_known(&site, &directory)?;
        let logs = path.join("generations");
        let store = LogStore::open(disk, &logs, settings, site.router().clone()).await?;
        let store = Arc::new(store);
        let identity = Identity { process: directory.process_id(), class: ProcessClass::Log };
        let hosted =
            Arc::new(LogWorker { site: Arc::clone(&site), store: Arc::clone(&store), directory });
        site.router().add::<WorkerService>(
            identity.instance(),
            handler!(
                ferrisdb_core::service::worker::Worker,
                WorkerServer::Log(Arc::clone(&hosted))
            ),
        );
        let view = ClusterView::follow(site.network().clone(), controllers.clone());
        let retiring = runtime::spawn(retire_logs(view, Arc::clone(&store)));
        let changed = Arc::new(Notify::new());
        let worker = Worker::start(Arc::clone(&site), controllers, identity, hosted, changed);
        Ok(LogHost { site, store, _worker: worker, _retiring: retiring })
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops it, once what is being written is on disk.
    pub async fn shut_down(self) {
        self.store.shut_down().await;
        self.site.close();
    }
}

/// Deletes logs of generations that no storage server needs any more.
async fn retire_logs(view: ClusterView, store: Arc<LogStore>) {
    let mut revision = 0;
    loop {
        let state = view.newer_than(revision).await;
        revision = state.revision;
        let oldest_kept = state.log_sets.first().map(|set| set.generation);
        if let (Phase::Active, Some(oldest_kept)) = (&state.phase, oldest_kept)
            && let Err(error) = store.retire(oldest_kept).await
        {
            tracing::warn!(%error, %oldest_kept, "old logs could not be deleted");
        }
    }
}

impl LogWorker {
    async fn recruit(&self, request: RecruitLog) -> Result<Endpoint> {
        check_cluster(&self.site, request.cluster_id)?;
        let instance = self.store.recruit(request.generation, request.begin_version).await?;
        Ok(Endpoint { address: self.site.address().clone(), instance })
    }
}

impl Hosted for LogWorker {
    fn hosted_generations(&self) -> Vec<Generation> {
        self.store.hosted_generations()
    }

    fn progress(&self) -> Progress {
        self.store.progress()
    }

    fn join(&self, cluster_id: ClusterId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.directory.join(cluster_id))
    }
}

/// A storage server in this process.
pub struct StorageHost {
    site: Arc<Site>,
    server: Arc<StorageServer>,
    _worker: Worker,
}

struct StorageWorker {
    server: Arc<StorageServer>,
    directory: DataDirectory,
}

impl StorageHost {
    /// Opens the engine in `path` and registers with the controllers.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, or the engine in it is damaged.
    pub async fn start(
        site: Arc<Site>,
        media: &Media,
        path: &Path,
        controllers: Vec<Address>,
        settings: StorageSettings,
        cache_bytes: usize,
    ) -> Result<StorageHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk, path, DirectoryKind::Storage).await?;
        join_known(&site, &directory)?;
        let engine = media.open_engine(&path.join("engine"), cache_bytes).await?;
        let identity = Identity { process: directory.process_id(), class: ProcessClass::Storage };
        let view = ClusterView::follow(site.network().clone(), controllers.clone());
        let server = StorageServer::open(
            site.network().clone(),
            Arc::new(view),
            site.router().clone(),
            identity.instance(),
            identity.process,
            engine,
            settings,
        );
        let server = Arc::new(server);
        let hosted = Arc::new(StorageWorker { server: Arc::clone(&server), directory });
        let changed = Arc::new(Notify::new());
        let worker = Worker::start(Arc::clone(&site), controllers, identity, hosted, changed);
        Ok(StorageHost { site, server, _worker: worker })
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops it, once what is being written is on disk.
    pub async fn shut_down(self) {
        self.server.shut_down().await;
        self.site.close();
    }

    /// Stops it together with the whole cluster; see [`StorageServer::shut_down_with_cluster`].
    pub async fn shut_down_with_cluster(self) {
        self.server.shut_down_with_cluster().await;
        self.site.close();
    }
}

impl Hosted for StorageWorker {
    fn hosted_generations(&self) -> Vec<Generation> {
        Vec::new()
    }

    fn progress(&self) -> Progress {
        self.server.progress()
    }

    fn join(&self, cluster_id: ClusterId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.directory.join(cluster_id))
    }
}

/// The worker service of a process, by what it can host.
#[derive(Clone)]
enum WorkerServer {
    Coordinator(Arc<CoordinatorWorker>),
    Log(Arc<LogWorker>),
}

impl WorkerApi for WorkerServer {
    async fn recruit_log(self, _: Context, request: RecruitLog) -> Result<Endpoint> {
        match self {
            WorkerServer::Log(worker) => worker.recruit(request).await,
            WorkerServer::Coordinator(_) => Err(not_recruitable("logs")),
        }
    }

    async fn recruit_coordinator(
        self,
        _: Context,
        request: RecruitCoordinator,
    ) -> Result<CoordinatorMembers> {
        match self {
            WorkerServer::Coordinator(worker) => worker.recruit(request).await,
            WorkerServer::Log(_) => Err(not_recruitable("coordinators")),
        }
    }
}

fn not_recruitable(what: &str) -> Error {
    Error::new(ErrorCode::Unsupported, Stage::Control, format!("this process does not host {what}"))
}

/// Joins the cluster that a directory belongs to.
fn join_known(site: &Site, directory: &DataDirectory) -> Result<()> {
    directory.cluster_id().map_or(Ok(()), |cluster_id| site.network().join(cluster_id))
}

/// A controller of another cluster recruits nobody here.
fn check_cluster(site: &Site, cluster_id: ClusterId) -> Result<()> {
    if site.network().cluster_id() == Some(cluster_id) {
        return Ok(());
    }
    let detail = format!("recruited for {cluster_id}, but of {:?}", site.network().cluster_id());
    Err(Error::new(ErrorCode::WrongCluster, Stage::Control, detail))
}
