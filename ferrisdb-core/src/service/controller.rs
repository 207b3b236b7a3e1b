//! What processes and clients ask of a controller.

use serde::{Deserialize, Serialize};

use super::declare_service;
use crate::{
    copy_groups::CopyGroups,
    error::Result,
    id::{Address, ClusterId, Endpoint, ProcessId, Tag},
    range::KeyRange,
    shard::ShardMap,
    version::{Generation, Version},
};

/// A member of the group of controllers. The leader is the cluster controller; the others say who that is, and hand out what the
/// group has agreed on.
///
/// All methods but [`Controller::leader`] and [`Controller::cluster_state`] are answered by the leader alone; others refuse with
/// [`crate::ErrorCode::NotLeader`].
#[tarpc::service]
pub trait Controller {
    /// Who leads the controllers, as far as this one knows.
    async fn leader() -> Result<Leader>;
    /// A process says that it lives and what it hosts. Sent all the time; the first one registers it.
    async fn heartbeat(request: Heartbeat) -> Result<HeartbeatReply>;
    /// The state of the cluster, as soon as its revision is past `known_revision`; after a while, that there is none.
    ///
    /// Every member answers with the newest state that it knows: a caller that cannot reach the leader's machine asks another one.
    async fn cluster_state(known_revision: u64) -> Result<StateNews>;
    /// What an operator wants to know.
    async fn status() -> Result<Status>;
    /// An operator's wish. Answered when the controllers remember it; carrying it out takes longer.
    async fn administer(command: Command) -> Result<()>;
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

/// Who leads the controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Where the leader is reached; `None` while there is none, or none that this controller knows.
    pub address: Option<Address>,
    /// All controllers.
    pub controllers: Vec<ControllerMember>,
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ControllerMember {
    /// Drawn with its data directory: one that lost its disk is another controller.
    pub node: u64,
    /// Where it is reached.
    pub address: Address,
}

/// What an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Change the configuration, as far as it is given.
    Configure(ConfigurationChange),
    /// Keep no data and no roles on these processes from now on.
    Exclude(Vec<ProcessSelector>),
    /// Take these processes back.
    Include(Vec<ProcessSelector>),
    /// Make a controller a member of the group. It has to run already.
    AddController(Address),
    /// Remove a controller from the group.
    RemoveController(Address),
}

/// Names processes to an operator's command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProcessSelector {
    /// The processes at an address.
    Address(Address),
    /// One process.
    Process(ProcessId),
}

impl std::fmt::Display for ProcessSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProcessSelector::Address(address) => address.fmt(f),
            ProcessSelector::Process(process) => process.fmt(f),
        }
    }
}

/// Whether one of the selectors names a process that is reached at `address`.
pub fn is_selected(selectors: &[ProcessSelector], process: ProcessId, address: &Address) -> bool {
    selectors.iter().any(|selector| match selector {
        ProcessSelector::Address(selected) => selected == address,
        ProcessSelector::Process(selected) => *selected == process,
    })
}

/// How many copies there are of everything that is committed, each in a zone of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Redundancy {
    /// One: a lost disk is lost data.
    Single,
    /// Two: any one zone can be lost.
    Double,
    /// Three: any two zones can be lost.
    Triple,
}

impl Redundancy {
    /// All of them.
    pub const ALL: [Redundancy; 3] = [Redundancy::Single, Redundancy::Double, Redundancy::Triple];

    /// How many copies.
    pub fn copies(self) -> u32 {
        match self {
            Redundancy::Single => 1,
            Redundancy::Double => 2,
            Redundancy::Triple => 3,
        }
    }
}

impl std::fmt::Display for Redundancy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Redundancy::Single => "single",
            Redundancy::Double => "double",
            Redundancy::Triple => "triple",
        })
    }
}

impl std::str::FromStr for Redundancy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Redundancy::ALL.into_iter().find(|mode| mode.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is none of single, double and triple"))
    }
}

/// The shape of a cluster, remembered by its controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// How many copies, of the logs as of the data.
    pub redundancy: Redundancy,
    /// How many logs a generation has, if there are as many processes; never fewer than copies.
    pub logs: u32,
    /// How many proxies a generation has.
    pub proxies: u32,
    /// How many resolvers a generation has.
    pub resolvers: u32,
    /// A storage server that stays away for longer is replaced, in milliseconds.
    pub storage_replace_after_ms: u64,
}

impl Configuration {
    /// How many logs a generation should have.
    pub fn logs_wanted(&self) -> u32 {
        self.logs.max(self.redundancy.copies())
    }

    /// Over how many processes the roles of a generation's coordinator can be spread with some use.
    pub fn roles_wanted(&self) -> usize {
        self.proxies.max(self.resolvers).max(1) as usize
    }

    /// The configuration after a change.
    pub fn changed(&self, change: &ConfigurationChange) -> Configuration {
        Configuration {
            redundancy: change.redundancy.unwrap_or(self.redundancy),
            logs: change.logs.unwrap_or(self.logs),
            proxies: change.proxies.unwrap_or(self.proxies),
            resolvers: change.resolvers.unwrap_or(self.resolvers),
            storage_replace_after_ms: change
                .storage_replace_after_ms
                .unwrap_or(self.storage_replace_after_ms),
        }
    }
}

/// A change of a [`Configuration`]; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationChange {
    /// See [`Configuration::redundancy`].
    pub redundancy: Option<Redundancy>,
    /// See [`Configuration::logs`].
    pub logs: Option<u32>,
    /// See [`Configuration::proxies`].
    pub proxies: Option<u32>,
    /// See [`Configuration::resolvers`].
    pub resolvers: Option<u32>,
    /// See [`Configuration::storage_replace_after_ms`].
    pub storage_replace_after_ms: Option<u64>,
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
    /// What it shares its fate with, such as a machine or a rack. Copies are kept in different zones.
    pub zone: String,
    /// Where its worker service is reached.
    pub worker: Endpoint,
    /// The generations whose members it hosts, in good health.
    pub hosted_generations: Vec<Generation>,
    /// The generations whose logs it has, whether anything can be committed in them or not.
    pub kept_generations: Vec<Generation>,
    /// Why it is of no use although it lives, such as a disk that has failed.
    pub trouble: Option<String>,
    /// Processes that did not answer it when it needed them.
    pub accused: Vec<Address>,
    /// How far it is, by class.
    pub progress: Progress,
    /// Of a storage server: what it holds.
    pub storage: Option<StorageReport>,
}

/// How a process begins to say that its trouble is a disk without space: it goes on by itself when there is some.
pub const DISK_IS_FULL: &str = "its disk is full";

/// What a storage server says of its data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    /// The tag that its data belongs to; `None` if it has none.
    pub tag: Option<Tag>,
    /// The ranges that it has joined and copied, safely on disk: it can become a member of their teams.
    pub copied: Vec<KeyRange>,
    /// The ranges that it is copying still.
    pub copying: Vec<KeyRange>,
    /// Bytes that it has copied since it started.
    pub copied_bytes: u64,
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

/// What a controller knows of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateNews {
    /// The newest state, if the caller does not know it yet.
    pub state: Option<ClusterState>,
    /// Whether the controller leads, or hears from whoever does. If not, the caller looks for others that know more.
    pub is_led: bool,
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
    /// Tags from here on were never given to anybody. An older one that no storage server has is gone for good.
    pub next_tag: Tag,
    /// Who holds which keys, as far as the controller has followed it.
    pub shards: ShardMap,
    /// All controllers.
    pub controllers: Vec<ControllerMember>,
    /// The shape of the cluster; `None` before it is created.
    pub configuration: Option<Configuration>,
    /// Processes that shall keep no data and no roles, as an operator has named them: whoever comes to an address that is
    /// excluded is excluded, too.
    pub excluded: Vec<ProcessSelector>,
}

impl ClusterState {
    /// Whether the data of a tag is gone for good: its server was replaced.
    pub fn is_removed(&self, tag: Tag) -> bool {
        tag < self.next_tag && !self.storage_servers.iter().any(|server| server.tag == tag)
    }
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
    /// The set holds versions after this one: those that the set before may not have on all of its logs were
    /// copied from there.
    pub begin_version: Version,
    /// Where the generation before ended. The generation's own batches come after it.
    pub recovery_version: Version,
    /// The set holds versions up to this one, once its generation has ended.
    pub end_version: Option<Version>,
}

impl LogSet {
    /// The logs that keep the messages of a tag.
    pub fn logs_of(&self, tag: Tag) -> impl Iterator<Item = &LogMember> {
        self.indexes_of(tag).map(|index| &self.logs[index])
    }

    /// Which of the logs have to answer a recovery, or a proxy.
    pub fn copy_groups(&self) -> CopyGroups {
        CopyGroups::new(self.logs.len(), self.replication)
    }

    /// The indexes of [`LogSet::logs_of`].
    pub fn indexes_of(&self, tag: Tag) -> impl Iterator<Item = usize> + use<> {
        log_indexes(self.logs.len(), self.replication, tag)
    }
}

/// The indexes of the logs, out of `count`, that keep the messages of a tag. All of them keep the metadata.
pub fn log_indexes(
    count: usize,
    replication: u32,
    tag: Tag,
) -> impl Iterator<Item = usize> + use<> {
    let copies = if tag == Tag::METADATA { count as u32 } else { replication };
    let groups = CopyGroups::new(count, copies);
    groups.members(if count == 0 { 0 } else { tag.0 as usize % count })
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
    /// What it shares its fate with.
    pub zone: String,
    /// Nothing was sent to the tag up to this version: its server begins here, with nothing.
    pub begin_version: Version,
}

/// What an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state that clients see.
    pub cluster: ClusterState,
    /// All processes that have registered.
    pub processes: Vec<ProcessStatus>,
    /// How long this controller has led, in milliseconds. Of processes that it was not told of within the failure timeout it
    /// can say nothing yet.
    pub leads_for_ms: u64,
    /// How long a process may be silent, in milliseconds.
    pub failure_timeout_ms: u64,
    /// How many recoveries this controller has finished since it started.
    pub recoveries: u64,
    /// The last recovery that it has finished.
    pub last_recovery: Option<RecoveryReport>,
    /// Where the leading controller is reached.
    pub controller: Address,
    /// Controllers that the leader cannot reach, or that are not who they were, and why.
    pub silent_controllers: Vec<(Address, String)>,
    /// What is being done about the data, for people: shards that are copied, servers that are drained.
    pub repairs: Vec<String>,
    /// What cannot be done about the data, and why.
    pub stuck: Vec<String>,
    /// Until where the controller has followed the shard map.
    pub metadata_version: Version,
    /// Processes that do not reach each other although both live: who waited in vain, and for whom.
    pub unreached: Vec<(Address, Address)>,
}

/// A recovery that has come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryReport {
    /// The generation that it made.
    pub generation: Generation,
    /// Why it was necessary, for people.
    pub reason: String,
    /// From when the controller noticed that until the generation was active, in milliseconds.
    pub duration_ms: u64,
    /// How many attempts it took.
    pub attempts: u32,
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
    /// Why it does not.
    pub failure: Option<String>,
}
