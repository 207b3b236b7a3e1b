//! A storage server in a process.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ferrisdb_core::{
    ClusterId, ErrorCode, Result, Stage,
    cluster_view::ClusterView,
    controllers::Controllers,
    id::Address,
    runtime::{self, Task},
    service::controller::{DISK_IS_FULL, ProcessClass, Progress, StorageReport},
    simulation::{Mark, mark},
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    media::Media,
    site::Site,
    worker::{Hosted, Identity, Worker},
};
use crate::{
    directory::{DataDirectory, DirectoryKind},
    storage::{StorageServer, StorageSettings},
};

/// How often to look whether the engine has to be opened anew, and how long to wait after that has failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// How long requests may hold an engine that is to be opened anew; longer than any of them may take.
const RELEASE_MAX: Duration = Duration::from_secs(60);

/// A storage server in this process.
pub struct StorageHost {
    site: Arc<Site>,
    hosted: Arc<StorageWorker>,
    _worker: Worker,
    _reopening: Task,
}

struct StorageWorker {
    server: Mutex<Kept>,
    directory: DataDirectory,
}

/// The storage server, which is replaced when its engine has to be opened anew.
enum Kept {
    Server(Arc<StorageServer>),
    /// There is none for a moment; what the last one has said of itself.
    Reopening(Progress, StorageReport),
}

/// What it takes to open the engine and to serve it.
struct Opener {
    site: Arc<Site>,
    media: Media,
    path: PathBuf,
    cache_bytes: usize,
    view: Arc<ClusterView>,
    identity: Identity,
    settings: StorageSettings,
}

impl Opener {
    async fn open(&self) -> Result<Arc<StorageServer>> {
        let engine = self.media.open_engine(&self.path, self.cache_bytes).await?;
        Ok(Arc::new(StorageServer::open(
            self.site.network().clone(),
            Arc::clone(&self.view),
            self.site.router().clone(),
            self.identity.instance(),
            self.identity.process,
            engine,
            self.settings,
        )))
    }
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
        controllers: Controllers,
        zone: String,
        settings: StorageSettings,
        cache_bytes: usize,
    ) -> Result<StorageHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk, path, DirectoryKind::Storage).await?;
        site.join_cluster_of(&directory)?;
        let (process, class) = (directory.process_id(), ProcessClass::Storage);
        let identity = Identity { process, class, zone };
        let opener = Opener {
            site: Arc::clone(&site),
            media: media.clone(),
            path: path.join("engine"),
            cache_bytes,
            view: Arc::new(ClusterView::follow(controllers.clone())),
            identity: identity.clone(),
            settings,
        };
        let server = Mutex::new(Kept::Server(opener.open().await?));
        let hosted = Arc::new(StorageWorker { server, directory });
        let changed = Arc::new(Notify::new());
        let said = Arc::clone(&hosted);
        let worker = Worker::start(Arc::clone(&site), controllers, identity, said, changed);
        let reopening = runtime::spawn(reopen(Arc::clone(&hosted), opener));
        Ok(StorageHost { site, hosted, _worker: worker, _reopening: reopening })
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
        drop(self._reopening);
        if let Some(server) = self.hosted.server() {
            server.shut_down().await;
        }
        self.site.close();
    }

    /// Stops it together with the whole cluster; see [`StorageServer::shut_down_with_cluster`].
    pub async fn shut_down_with_cluster(self) {
        drop(self._reopening);
        if let Some(server) = self.hosted.server() {
            server.shut_down_with_cluster().await;
        }
        self.site.close();
    }
}

/// Opens the engine anew whenever it takes no more changes after its disk was full. If that is not possible, for another reason
/// than the disk's space, the process ends, as one does that cannot start.
async fn reopen(hosted: Arc<StorageWorker>, opener: Opener) {
    loop {
        runtime::sleep(REOPEN_PAUSE).await;
        let Some(server) = hosted.server().filter(|server| server.needs_reopening()) else {
            continue;
        };
        tracing::warn!("the disk has space again, and the engine is opened anew");
        *hosted.server.lock() = Kept::Reopening(server.progress(), server.report());
        let releasing = server.release_engine();
        if let Err(error) = runtime::timeout(RELEASE_MAX, Stage::Process, releasing).await {
            return opener.site.give_up(error);
        }
        let opened = loop {
            match opener.open().await {
                Ok(opened) => break opened,
                Err(error) if error.code() == ErrorCode::DiskFull => {
                    tracing::warn!(%error, "the disk is full again");
                }
                Err(error) => return opener.site.give_up(error),
            }
            runtime::sleep(REOPEN_PAUSE).await;
        };
        mark(Mark::EngineReopened);
        *hosted.server.lock() = Kept::Server(opened);
    }
}

impl StorageWorker {
    /// The storage server, unless its engine is being opened.
    fn server(&self) -> Option<Arc<StorageServer>> {
        match &*self.server.lock() {
            Kept::Server(server) => Some(Arc::clone(server)),
            Kept::Reopening(..) => None,
        }
    }
}

impl Hosted for StorageWorker {
    fn trouble(&self) -> Option<String> {
        match &*self.server.lock() {
            Kept::Server(server) => server.trouble(),
            Kept::Reopening(..) => {
                Some(format!("{DISK_IS_FULL}: it has space again, and the engine is being opened"))
            }
        }
    }

    fn storage(&self) -> Option<StorageReport> {
        Some(match &*self.server.lock() {
            Kept::Server(server) => server.report(),
            Kept::Reopening(_, report) => report.clone(),
        })
    }

    fn progress(&self) -> Progress {
        match &*self.server.lock() {
            Kept::Server(server) => server.progress(),
            Kept::Reopening(progress, _) => *progress,
        }
    }

    fn join(&self, cluster_id: ClusterId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.directory.join(cluster_id))
    }
}
