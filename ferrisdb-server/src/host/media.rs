//! What roles keep their data on: files in production, memory in simulation and in-memory databases.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use ferrisdb_core::{
    Result,
    runtime::{Disk, disk::MemoryDisk},
};
use parking_lot::Mutex;

use crate::storage::engine::{Engine, memory::MemoryStorage};

/// The disk and the engines of a process. Clones are the same media.
#[derive(Clone)]
pub struct Media {
    disk: Arc<dyn Disk>,
    engines: Engines,
}

#[derive(Clone)]
enum Engines {
    #[cfg(not(madsim))]
    Files,
    Made(Arc<dyn EngineFactory>),
}

/// Opens engines that are not files of this machine.
pub trait EngineFactory: Send + Sync + 'static {
    /// Opens the engine in a directory, or creates it there.
    ///
    /// # Errors
    ///
    /// If the engine cannot be used.
    fn open(&self, directory: &Path) -> Result<Arc<dyn Engine>>;
}

/// Engines in memory, by path, so that a process that is started again finds its data.
#[derive(Default)]
struct MemoryEngines(Mutex<BTreeMap<PathBuf, MemoryStorage>>);

impl EngineFactory for MemoryEngines {
    fn open(&self, directory: &Path) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(self.0.lock().entry(directory.to_owned()).or_default().open()))
    }
}

impl Media {
    /// The files of this machine.
    #[cfg(not(madsim))]
    pub fn files() -> Media {
        Media { disk: Arc::new(ferrisdb_core::runtime::disk::FileSystem), engines: Engines::Files }
    }

    /// Memory that lives as long as the last clone.
    pub fn memory(disk: MemoryDisk) -> Media {
        Media::new(Arc::new(disk), Arc::new(MemoryEngines::default()))
    }

    /// A disk and engines of one's own: a simulation has some that fail.
    pub fn new(disk: Arc<dyn Disk>, engines: Arc<dyn EngineFactory>) -> Media {
        Media { disk, engines: Engines::Made(engines) }
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Opens the engine in a directory, or creates it there.
    ///
    /// # Errors
    ///
    /// If the engine's files cannot be used.
    pub async fn open_engine(
        &self,
        directory: &Path,
        cache_bytes: usize,
    ) -> Result<Arc<dyn Engine>> {
        match &self.engines {
            #[cfg(not(madsim))]
            Engines::Files => {
                use crate::storage::engine::rocksdb::{RocksEngine, RocksSettings};
                let path = directory.to_owned();
                let tables = crate::descriptors::Descriptors::of_process().engine;
                let open_files_max = i32::try_from(tables).unwrap_or(i32::MAX);
                let settings =
                    RocksSettings { cache_bytes, open_files_max, ..RocksSettings::default() };
                let open = move || RocksEngine::open(&path, settings);
                Ok(Arc::new(ferrisdb_core::runtime::blocking(open).await?))
            }
            Engines::Made(engines) => {
                let _ = cache_bytes;
                engines.open(directory)
            }
        }
    }
}

impl std::fmt::Debug for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.engines {
            #[cfg(not(madsim))]
            Engines::Files => "Media(files)",
            Engines::Made(_) => "Media(memory)",
        })
    }
}
