//! What processes and clients ask of a controller.

use serde::{Deserialize, Serialize};

use super::declare_service;
use crate::{
    error::Result,
    id::{Address, ClusterId, Endpoint, ProcessId, Tag},
    key::Key,
    range::KeyRange,
    version::{Generation, Version},
};

/// The cluster controller.
#[tarpc::service]
pub trait Controller {
    /// A process says that it lives and what it hosts. Sent all the time; the first one registers it.
    async fn heartbeat(request: Heartbeat) -> Result<HeartbeatReply>;
    /// The state of the cluster, as soon as its revision is past `known_revision`, or after a while.
    async fn cluster_state(known_revision: u64) -> Result<ClusterState>;
    /// What an operator wants to know.
    async fn status() -> Result<Status>;
}

declare_service! {
    /// [`Controller`] as a service.
    ControllerService, Controller, ControllerRequest, ControllerResponse, ControllerClient
}

/// What a process can be recruited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProcessClass {
    /// Sequencer, proxies and resolvers.
    Coordinator,
    /// A log.
    Log,
    /// A storage server.
    Storage,
}

impl std::fmt::Display for ProcessClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ProcessClass::Coordinator => "coordinator",
            ProcessClass::Log => "log",
            ProcessClass::Storage => "storage",
        })
    }
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who. The same across restarts of one data directory.
    pub process: ProcessId,
    /// Drawn at each start, so that a restart between two heartbeats is noticed.
    pub incarnation: u64,
    /// What it can be recruited for.
    pub class: ProcessClass,
    /// Where its worker service is reached.
    pub worker: Endpoint,
    /// The generations whose members it hosts, in good health.
    pub hosted_generations: Vec<Generation>,
    /// How far it is, by class.
    pub progress: Progress,
}

/// How far a process is; for status and for lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Storage: applied. Log: durable. Coordinator: committed.
    pub version: Version,
    /// Storage: synced into the engine. Log: known to be committed.
    pub durable_version: Version,
    /// Bytes on disk (log) or in the window (storage).
    pub bytes: u64,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// The cluster that the process now belongs to.
    pub cluster_id: ClusterId,
    /// The newest generation; members of older ones retire.
    pub generation: Generation,
}

/// What everybody has to know to find everybody else. Grows by revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// Counts the changes of this record.
    pub revision: u64,
    /// The newest generation that was begun.
    pub generation: Generation,
    /// How far that generation is.
    pub phase: Phase,
    /// Its coordinator, while it is active.
    pub coordinator: Option<CoordinatorMembers>,
    /// The log sets that still matter, oldest first. The last one belongs to the newest generation that was active.
    pub log_sets: Vec<LogSet>,
    /// All storage servers, by tag.
    pub storage_servers: Vec<StorageServer>,
    /// Who holds which keys: shards in key order, without gaps.
    pub shards: Vec<Shard>,
}

impl ClusterState {
    /// The shards that intersect `range`, in key order, each with the part of its range that does.
    pub fn shards_in<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl DoubleEndedIterator<Item = (KeyRange, &'a Shard)> + 'a {
        shards_in(&self.shards, range)
    }
}

/// The shards of `shards` (in key order, without gaps) that intersect `range`, each with that part of its range.
pub fn shards_in<'a>(
    shards: &'a [Shard],
    range: &'a KeyRange,
) -> impl DoubleEndedIterator<Item = (KeyRange, &'a Shard)> + 'a {
    let first = shards.partition_point(|shard| shard.range.end <= range.begin);
    let last = shards.partition_point(|shard| shard.range.begin < range.end).max(first);
    shards[first..last]
        .iter()
        .filter_map(move |shard| Some((shard.range.intersection(range)?, shard)))
}

/// How far a generation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waits for processes to appear; says for which.
    Waiting {
        /// For people.
        reason: String,
    },
    /// Is being recovered; says which step is under way.
    Recovering {
        /// For people.
        step: String,
    },
    /// Serves.
    Active,
}

/// The roles of a coordinator, as recruited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorMembers {
    /// The sequencer.
    pub sequencer: Endpoint,
    /// The proxies; clients spread over them.
    pub proxies: Vec<Endpoint>,
    /// The resolvers, each with the keys it resolves: in key order, without gaps.
    pub resolvers: Vec<(KeyRange, Endpoint)>,
}

/// The logs of one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSet {
    /// Which generation.
    pub generation: Generation,
    /// The logs. Every one gets every batch; a tag's messages go to [`LogSet::logs_of`] only.
    pub logs: Vec<LogMember>,
    /// On how many logs each tag's messages are kept.
    pub replication: u32,
    /// The set holds versions after this one.
    pub begin_version: Version,
    /// The set holds versions up to this one, once its generation has ended.
    pub end_version: Option<Version>,
}

impl LogSet {
    /// The logs that keep the messages of a tag.
    pub fn logs_of(&self, tag: Tag) -> impl Iterator<Item = &LogMember> {
        self.indexes_of(tag).map(|index| &self.logs[index])
    }

    /// The indexes of [`LogSet::logs_of`].
    pub fn indexes_of(&self, tag: Tag) -> impl Iterator<Item = usize> + use<> {
        let count = self.logs.len();
        let copies = (self.replication as usize).min(count);
        (0..copies).map(move |copy| (tag.0 as usize + copy) % count)
    }
}

/// A log, as recruited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMember {
    /// The process that hosts it.
    pub process: ProcessId,
    /// Where it is reached.
    pub endpoint: Endpoint,
}

/// A storage server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageServer {
    /// Its stream of mutations.
    pub tag: Tag,
    /// Its process.
    pub process: ProcessId,
    /// Where it is reached.
    pub endpoint: Endpoint,
}

/// A range of keys and the team that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The keys.
    pub range: KeyRange,
    /// The storage servers, each with all of it.
    pub team: Vec<Tag>,
}

impl Shard {
    /// Cuts the whole keyspace at `boundaries` and gives the parts to teams of `replication` servers in turn.
    pub fn spread(boundaries: &[Key], servers: u32, replication: u32) -> Vec<Shard> {
        let begins = std::iter::once(Key::MIN).chain(boundaries.iter().cloned());
        let ends = boundaries.iter().cloned().chain(std::iter::once(Key::SYSTEM_END));
        let ranges = begins.zip(ends).map(|(begin, end)| KeyRange { begin, end });
        let teams = (0..).map(|first: u32| {
            (0..replication.min(servers)).map(|copy| Tag((first + copy) % servers)).collect()
        });
        ranges.zip(teams).map(|(range, team)| Shard { range, team }).collect()
    }
}

/// What an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state that clients see.
    pub cluster: ClusterState,
    /// All processes that have registered.
    pub processes: Vec<ProcessStatus>,
    /// How many recoveries this controller has finished since it started.
    pub recoveries: u64,
    /// Where the controller is reached.
    pub controller: Address,
}

/// One process, as the controller sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its last heartbeat.
    pub heartbeat: Heartbeat,
    /// How long ago that was, in milliseconds.
    pub silent_ms: u64,
    /// Whether the controller counts on it.
    pub alive: bool,
}
