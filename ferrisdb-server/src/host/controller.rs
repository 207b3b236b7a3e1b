//! A controller in a process.

use std::{path::Path, sync::Arc};

use ferrisdb_core::{
    Error, Result,
    id::Address,
    runtime::{self, Disk, Task},
    service::controller::ControllerService,
    transport::Network,
};

use super::{media::Media, site::Site};
use crate::{
    controller::{self, ControllerServer, ControllerSettings, force::Forced},
    directory::{DataDirectory, DirectoryKind},
    raft::{NodeId, forced_number},
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
        let node = number(&*disk, path, &directory).await?;
        let (identity, reached) = ((node, address), (network, site.router()));
        let start = ControllerServer::start(disk, path, identity, reached, controllers, settings);
        let server = start.await?;
        site.router().add::<ControllerService>(0, controller::handler(server.clone()));
        let watching = runtime::spawn(watch(Arc::clone(&site), server.clone(), directory));
        Ok(ControllerHost { site, server, _watching: watching })
    }

    /// Makes the controller of a directory, which does not run, the only one of its group; see [`controller::force`].
    ///
    /// # Errors
    ///
    /// If that is not the last resort, or if the directory cannot be used. Nothing is changed then.
    pub async fn force_new_quorum(
        media: &Media,
        path: &Path,
        (network, address): (&Network, Address),
    ) -> Result<Forced> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk.clone(), path, DirectoryKind::Controller).await?;
        if let Some(cluster_id) = directory.cluster_id() {
            network.join(cluster_id)?;
        }
        let node = number(&*disk, path, &directory).await?;
        controller::force::force_new_quorum(disk, path, node, address, network).await
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Leads no more: what is stopped from now on is stopped on purpose, and nobody is to recover from it.
    pub fn stop_leading(&self) {
        self.server.stop();
    }

    /// Stops it. What was agreed on is always on disk.
    pub async fn shut_down(self) {
        self.server.shut_down().await;
        self.site.close();
    }
}

/// The number of a controller: the directory's, so that one that lost its disk is another one, unless it was made to go on
/// alone.
async fn number(disk: &dyn Disk, path: &Path, directory: &DataDirectory) -> Result<NodeId> {
    let forced = forced_number(disk, path).await?;
    Ok(forced.unwrap_or(directory.process_id().0 as u64 | 1))
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
