//! What a controller asks of a process: to host a role of a generation.

use serde::{Deserialize, Serialize};

use super::{controller::LogSet, declare_service};
use crate::{
    copy_groups::CopyGroups,
    error::Result,
    id::{ClusterId, Endpoint},
    range::KeyRange,
    shard::ShardMap,
    version::{Generation, Version},
};

/// A process that hosts roles. Whatever it hosts of older generations ends when it is recruited for a newer one.
#[tarpc::service]
pub trait Worker {
    /// Hosts a log of a new generation, and answers when it has copied what it shall. Repeating the call finds
    /// the log that the first one made.
    async fn recruit_log(request: RecruitLog) -> Result<Endpoint>;
    /// Hosts the sequencer of a new generation.
    async fn recruit_sequencer(request: RecruitSequencer) -> Result<Endpoint>;
    /// Hosts a resolver of a new generation.
    async fn recruit_resolver(request: RecruitResolver) -> Result<Endpoint>;
    /// Hosts a proxy of a new generation. The first proxy opens the generation by an empty commit.
    async fn recruit_proxy(request: RecruitProxy) -> Result<Endpoint>;
    /// The process' incarnation: at once if it is not `known_incarnation`, otherwise after a while. The connection
    /// that a controller has this call on breaks when the process dies.
    async fn watch(known_incarnation: u64) -> Result<u64>;
    /// Those of these workers that this process does not reach. A process is asked before a generation counts on it.
    async fn unreached(workers: Vec<Endpoint>) -> Result<Vec<Endpoint>>;
}

declare_service! {
    /// [`Worker`] as a service.
    WorkerService, Worker, WorkerRequest, WorkerResponse, WorkerClient
}

/// For which generation of which cluster a process is recruited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recruitment {
    /// The cluster, so that a worker that has been given to another one refuses.
    pub cluster_id: ClusterId,
    /// The role's generation.
    pub generation: Generation,
    /// Where the generation before ended: the first batch's previous version.
    pub recovery_version: Version,
}

/// The log to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecruitLog {
    /// For which generation. Pushes and locks are compared with it.
    pub recruitment: Recruitment,
    /// The log holds versions after this one: those up to the recovery version it copies.
    pub begin_version: Version,
    /// Where to copy from.
    pub sources: Sources,
    /// The log's index in its set.
    pub index: u32,
    /// How many logs the set has.
    pub logs: u32,
    /// On how many of them each tag's messages are kept.
    pub replication: u32,
}

/// Locked logs of the set before, that together have what is to be copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Which ones, by their index in that set. Not all of them have to answer: one of each copy group does.
    pub logs: Vec<(u32, Endpoint)>,
    /// How many logs that set has.
    pub count: u32,
    /// On how many of them each tag's messages are kept.
    pub replication: u32,
}

impl Sources {
    /// The copy groups of the set before.
    pub fn copy_groups(&self) -> CopyGroups {
        CopyGroups::new(self.count as usize, self.replication)
    }
}

/// The sequencer to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecruitSequencer {
    /// For which generation.
    pub recruitment: Recruitment,
    /// The version of the first batch, far enough on to make every older read version too old.
    pub first_version: Version,
}

/// The resolver to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecruitResolver {
    /// For which generation.
    pub recruitment: Recruitment,
    /// Its index among the resolvers.
    pub index: u32,
    /// How many proxies will ask it.
    pub proxies: u32,
}

/// The proxy to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecruitProxy {
    /// For which generation.
    pub recruitment: Recruitment,
    /// Its number among the proxies; the first, zero, opens the generation.
    pub number: u32,
    /// The sequencer.
    pub sequencer: Endpoint,
    /// The resolvers, each with the keys it resolves: in key order, without gaps.
    pub resolvers: Vec<(KeyRange, Endpoint)>,
    /// The logs to push to.
    pub log_set: LogSet,
    /// Where each key's mutations go, as of the recovery version.
    pub shards: ShardMap,
}
