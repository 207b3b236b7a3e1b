//! A controller in a process.

use std::{path::Path, sync::Arc};

use ferrisdb_core::{
    Error, Result,
    id::Address,
    runtime::{self, Task},
    service::controller::ControllerService,
};

use super::{media::Media, site::Site};
use crate::{
    controller::{self, ControllerServer, ControllerSettings},
    directory::{DataDirectory, DirectoryKind},
};

/// A controller in this process.
pub struct ControllerHost {
    site: Arc<Site>,
    server: ControllerServer,
    _watching: Task,
}

impl ControllerHost {
    /// Starts a controller with its part of the group's state in `path`. The first time it founds a group together with
    /// `controllers`, itself included or not, or waits to be added to theirs.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, or what is in it is damaged.
    pub async fn start(
        site: Arc<Site>,
        media: &Media,
        path: &Path,
        controllers: Vec<Address>,
        settings: ControllerSettings,
    ) -> Result<ControllerHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk.clone(), path, DirectoryKind::Controller).await?;
        if let Some(cluster_id) = directory.cluster_id() {
            site.network().join(cluster_id)?;
        }
        let (address, network) = (site.address().clone(), site.network().clone());
        // The directory's, so that a controller that lost its disk is another one.
        let node = directory.process_id().0 as u64 | 1;
        let (identity, reached) = ((node, address), (network, site.router()));
        let start = ControllerServer::start(disk, path, identity, reached, controllers, settings);
        let server = start.await?;
        site.router().add::<ControllerService>(0, controller::handler(server.clone()));
        let watching = runtime::spawn(watch(Arc::clone(&site), server.clone(), directory));
        Ok(ControllerHost { site, server, _watching: watching })
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops it. What was agreed on is always on disk.
    pub async fn shut_down(self) {
        self.server.shut_down().await;
        self.site.close();
    }
}

/// Remembers the cluster when it is known, and gives up when the disk has failed.
async fn watch(site: Arc<Site>, server: ControllerServer, directory: DataDirectory) {
    let joined = async {
        let cluster_id = server.cluster_id().await?;
        directory.join(cluster_id).await
    };
    let failed: Error = match joined.await {
        Ok(()) => server.failed().await,
        Err(error) => error,
    };
    site.give_up(failed);
}

impl Drop for ControllerHost {
    fn drop(&mut self) {
        self.server.stop();
    }
}
