//! A process that can host logs.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use ferrisdb_core::{
    ClusterId, Endpoint, Generation, Result,
    cluster_view::ClusterView,
    controllers::Controllers,
    id::Address,
    runtime::{self, Task},
    service::{
        controller::{ClusterState, Phase, ProcessClass, Progress},
        worker::RecruitLog,
    },
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
    log::{LogSettings, LogStore, Superseded, copy},
};

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
    /// If the directory cannot be used.
    pub async fn start(
        site: Arc<Site>,
        media: &Media,
        path: &Path,
        controllers: Controllers,
        zone: String,
        settings: LogSettings,
    ) -> Result<LogHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk.clone(), path, DirectoryKind::Log).await?;
        site.join_cluster_of(&directory)?;
        let logs = path.join("generations");
        let store = LogStore::open(disk, &logs, settings, site.router().clone()).await?;
        let store = Arc::new(store);
        let (process, class) = (directory.process_id(), ProcessClass::Log);
        let identity = Identity { process, class, zone };
        let hosted =
            Arc::new(LogWorker { site: Arc::clone(&site), store: Arc::clone(&store), directory });
        let view = ClusterView::follow(controllers.clone());
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

/// Deletes logs that nobody needs any more, and messages of servers that are gone.
async fn retire_logs(view: ClusterView, store: Arc<LogStore>) {
    let mut revision = 0;
    loop {
        let state = view.newer_than(revision).await;
        revision = state.revision;
        store.forget(|tag| state.is_removed(tag));
        let superseded = superseded(&state);
        if let Err(error) = store.retire(superseded).await {
            tracing::warn!(%error, "old logs could not be deleted yet");
        }
    }
}

/// The logs that nobody needs any more: those that are drained, and those of attempts at a recovery that were given up.
///
/// A later generation has begun than those of the attempts, so they will never be activated. They are let go while recovery
/// still fails, or each attempt would leave a log behind.
fn superseded(state: &ClusterState) -> Superseded {
    let kept: BTreeSet<Generation> = state.log_sets.iter().map(|set| set.generation).collect();
    let newest = kept.last().copied();
    let after = newest.filter(|_| state.phase != Phase::Active);
    Superseded { after, before: state.generation, kept }
}

impl Hosted for LogWorker {
    fn hosted_generations(&self) -> Vec<Generation> {
        self.store.hosted_generations()
    }

    fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    fn progress(&self) -> Progress {
        self.store.progress()
    }

    fn join(&self, cluster_id: ClusterId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.directory.join(cluster_id))
    }

    fn recruit_log(&self, request: RecruitLog) -> BoxFuture<'_, Result<Endpoint>> {
        Box::pin(async move {
            let taken_over = copy::gather(self.site.network(), &request).await?;
            let generation = request.recruitment.generation;
            let recruited = self.store.recruit(generation, request.begin_version, taken_over);
            Ok(Endpoint { address: self.site.address().clone(), instance: recruited.await? })
        })
    }
}
