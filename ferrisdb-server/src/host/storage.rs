//! A storage server in a process.

use std::{path::Path, sync::Arc};

use ferrisdb_core::{
    ClusterId, Result,
    cluster_view::ClusterView,
    controllers::Controllers,
    id::Address,
    service::controller::{ProcessClass, Progress, StorageReport},
};
use futures::future::BoxFuture;
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
        controllers: Controllers,
        zone: String,
        settings: StorageSettings,
        cache_bytes: usize,
    ) -> Result<StorageHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk, path, DirectoryKind::Storage).await?;
        site.join_cluster_of(&directory)?;
        let engine = media.open_engine(&path.join("engine"), cache_bytes).await?;
        let (process, class) = (directory.process_id(), ProcessClass::Storage);
        let identity = Identity { process, class, zone };
        let view = ClusterView::follow(controllers.clone());
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
    fn trouble(&self) -> Option<String> {
        self.server.trouble()
    }

    fn storage(&self) -> Option<StorageReport> {
        Some(self.server.report())
    }

    fn progress(&self) -> Progress {
        self.server.progress()
    }

    fn join(&self, cluster_id: ClusterId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.directory.join(cluster_id))
    }
}
