//! From the settings of the binaries to those of the roles.

use std::time::Duration;

use ferrisdb_core::service::controller::Configuration;

use crate::{
    config::{ClusterConfig, LogTuning, ServerConfig, StorageTuning},
    controller::ControllerSettings,
    coordinator::CoordinatorSettings,
    host::ServerSettings,
    log::LogSettings,
    storage::StorageSettings,
};

/// A size in bytes as memory can have it; one that is greater is as good as unlimited.
fn memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The size of the engine's cache.
pub fn cache_bytes(tuning: &StorageTuning) -> usize {
    memory(tuning.cache_bytes)
}

impl From<&ClusterConfig> for ControllerSettings {
    fn from(config: &ClusterConfig) -> Self {
        ControllerSettings {
            configuration: Configuration {
                redundancy: config.redundancy,
                logs: config.logs(),
                proxies: config.proxies,
                resolvers: config.resolvers,
                storage_replace_after_ms: milliseconds(config.storage_replace_after),
            },
            storage_servers: config.storage_servers(),
            shard_boundaries: config.shard_boundaries.clone(),
            failure_timeout: config.failure_timeout,
            ..ControllerSettings::default()
        }
    }
}

impl From<&LogTuning> for LogSettings {
    fn from(tuning: &LogTuning) -> Self {
        LogSettings {
            segment_bytes: tuning.segment_bytes,
            memory_bytes_max: memory(tuning.memory_bytes_max),
            ..LogSettings::default()
        }
    }
}

impl From<&StorageTuning> for StorageSettings {
    fn from(tuning: &StorageTuning) -> Self {
        StorageSettings {
            flush_interval: tuning.flush_interval,
            flush_bytes: memory(tuning.flush_bytes),
            window_bytes_max: memory(tuning.window_bytes_max),
            ..StorageSettings::default()
        }
    }
}

impl From<&ServerConfig> for ServerSettings {
    fn from(config: &ServerConfig) -> Self {
        ServerSettings {
            controller: ControllerSettings::from(&config.cluster),
            coordinator: CoordinatorSettings::default(),
            log: LogSettings::from(&config.log),
            storage: StorageSettings::from(&config.storage),
            cache_bytes: cache_bytes(&config.storage),
        }
    }
}
