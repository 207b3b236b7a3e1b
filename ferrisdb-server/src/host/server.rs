//! All roles in one process and one directory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ferrisdb_core::{
    Error, Result, controllers::Controllers, id::Address, runtime::disk::MemoryDisk,
    transport::Network,
};

use super::{
    controller::ControllerHost, coordinator::CoordinatorHost, log::LogHost, media::Media,
    site::Site, storage::StorageHost,
};
use crate::{
    controller::ControllerSettings,
    coordinator::CoordinatorSettings,
    directory::{DataDirectory, DirectoryKind},
    log::LogSettings,
    storage::StorageSettings,
};

/// How the roles of a [`ServerHost`] work.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The controller. Its numbers of logs and storage servers are one each.
    pub controller: ControllerSettings,
    /// The coordinator.
    pub coordinator: CoordinatorSettings,
    /// The log.
    pub log: LogSettings,
    /// The storage server.
    pub storage: StorageSettings,
    /// The engine's cache, in bytes.
    pub cache_bytes: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            controller: ControllerSettings::default(),
            coordinator: CoordinatorSettings::default(),
            log: LogSettings::default(),
            storage: StorageSettings::default(),
            cache_bytes: 256 << 20,
        }
    }
}

/// Controller, coordinator, log and storage in one process.
pub struct ServerHost {
    site: Arc<Site>,
    controller: ControllerHost,
    coordinator: CoordinatorHost,
    log: LogHost,
    storage: StorageHost,
    _directory: DataDirectory,
}

impl ServerHost {
    /// Starts all roles, each in a directory of its own below `path`.
    ///
    /// # Errors
    ///
    /// If the directory is locked, of another kind, or damaged.
    pub async fn start(
        site: Arc<Site>,
        media: &Media,
        path: &Path,
        settings: ServerSettings,
    ) -> Result<ServerHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk, path, DirectoryKind::Server).await?;
        let alone = vec![site.address().clone()];
        let controllers = Controllers::new(site.network().clone(), alone.clone());
        let zone = || String::from("here");
        let at = |role: &str| path.join(role);
        let here = || Arc::clone(&site);
        let controller =
            ControllerHost::start(here(), media, &at("controller"), alone, settings.controller)
                .await?;
        let coordinator =
            CoordinatorHost::start(here(), controllers.clone(), zone(), settings.coordinator);
        let (path, to) = (at("log"), controllers.clone());
        let log = LogHost::start(here(), media, &path, to, zone(), settings.log).await?;
        let (path, cache_bytes) = (at("storage"), settings.cache_bytes);
        let (to, settings) = (controllers, settings.storage);
        let storage =
            StorageHost::start(here(), media, &path, to, zone(), settings, cache_bytes).await?;
        Ok(ServerHost { site, controller, coordinator, log, storage, _directory: directory })
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops all roles: the coordinator first, so that no commit is cut off half-way.
    pub async fn shut_down(self) {
        self.controller.stop_leading();
        self.coordinator.shut_down().await;
        self.storage.shut_down_with_cluster().await;
        self.log.shut_down().await;
        self.controller.shut_down().await;
    }
}

/// A whole database inside the process that uses it. It listens nowhere.
pub struct Embedded {
    site: Arc<Site>,
    /// There until the shutdown.
    host: Option<ServerHost>,
}

impl Embedded {
    /// Opens the database in a directory, or creates it there; `None` for one that lives in memory only.
    ///
    /// # Errors
    ///
    /// If the directory is locked, of another kind, or damaged.
    pub async fn open(path: Option<&Path>) -> Result<Embedded> {
        let site = Arc::new(Site::local("embedded"));
        let (media, path) = match path {
            #[cfg(not(madsim))]
            Some(path) => (Media::files(), path.to_owned()),
            #[cfg(madsim)]
            Some(path) => (Media::memory(MemoryDisk::new()), path.to_owned()),
            None => (Media::memory(MemoryDisk::new()), PathBuf::from("memory")),
        };
        let settings = ServerSettings::default();
        let host = ServerHost::start(Arc::clone(&site), &media, &path, settings).await?;
        Ok(Embedded { site, host: Some(host) })
    }

    /// How to reach it.
    pub fn network(&self) -> Network {
        self.site.network().clone()
    }

    /// Where its controller is.
    pub fn controllers(&self) -> Vec<Address> {
        vec![self.site.address().clone()]
    }

    /// Waits for what makes it pointless to go on.
    pub async fn failed(&self) -> Error {
        self.site.failed().await
    }

    /// Stops it cleanly. What was acknowledged is on disk in any case.
    pub async fn shut_down(mut self) {
        if let Some(host) = self.host.take() {
            host.shut_down().await;
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Roles hold their site, whose router holds the roles: without this none of them would ever go.
        self.site.close();
    }
}
