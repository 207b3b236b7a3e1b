//! What a controller asks of a process: to host a role of a generation.

use serde::{Deserialize, Serialize};

use super::{
    controller::{CoordinatorMembers, LogSet, Shard},
    declare_service,
};
use crate::{
    error::Result,
    id::{ClusterId, Endpoint},
    version::{Generation, Version},
};

/// A process that hosts roles.
#[tarpc::service]
pub trait Worker {
    /// Hosts a log of a new generation. Repeating the call finds the log that the first one made.
    async fn recruit_log(request: RecruitLog) -> Result<Endpoint>;
    /// Hosts sequencer, proxies and resolvers of a new generation, and ends those of older ones.
    async fn recruit_coordinator(request: RecruitCoordinator) -> Result<CoordinatorMembers>;
}

declare_service! {
    /// [`Worker`] as a service.
    WorkerService, Worker, WorkerRequest, WorkerResponse, WorkerClient
}

/// The log to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecruitLog {
    /// The cluster, so that a worker that has been given to another one refuses.
    pub cluster_id: ClusterId,
    /// The log's generation. Pushes and locks are compared with it.
    pub generation: Generation,
    /// The first push comes after this version.
    pub begin_version: Version,
}

/// The coordinator to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecruitCoordinator {
    /// The cluster, so that a worker that has been given to another one refuses.
    pub cluster_id: ClusterId,
    /// The generation of all its roles.
    pub generation: Generation,
    /// What was committed before: the first batch's previous version.
    pub recovery_version: Version,
    /// The version of the first batch, far enough on to make every older read version too old.
    pub first_version: Version,
    /// The logs to push to.
    pub log_set: LogSet,
    /// Where each key's mutations go.
    pub shards: Vec<Shard>,
    /// How many proxies.
    pub proxies: u32,
    /// How many resolvers.
    pub resolvers: u32,
}
