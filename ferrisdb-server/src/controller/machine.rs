//! The decisions of a controller, as a synchronous machine.
//!
//! ```text
//!   Waiting --(enough processes)--> Beginning --(on disk)--> Locking --(enough answers)--> RecruitingLogs
//!      ^                                                                                        |
//!      |        a call failed, or a member died meanwhile                                       v
//!      +------------------------------------------------------ Activating <-- RecruitingCoordinator
//!      |                                                            |
//!      +--(a member of the live generation failed)-- Active <-------+ (on disk)
//! ```
//!
//! Every attempt at a recovery has a generation of its own, begun on disk before anything else is done for
//! it; answers that belong to an earlier attempt are ignored. So two attempts can never both activate (I-12).

use std::collections::BTreeMap;

use ferrisdb_core::{
    Endpoint, Generation, Key, ProcessId, Result, Tag, Version, limits,
    runtime::Instant,
    service::{
        controller::{
            ClusterState, CoordinatorMembers, Heartbeat, HeartbeatReply, LogMember, LogSet, Phase,
            ProcessClass, Shard, Status, StorageServer,
        },
        log::LockReply,
        worker::{RecruitCoordinator, RecruitLog},
    },
};

use super::{
    ControllerSettings,
    cluster_record::{ActiveGeneration, ClusterRecord},
    registry::Registry,
};
use crate::coordinator::proxy::read_version::locks_needed;

/// What happened. Heartbeats and status have methods of their own, because they are answered at once.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A record is on disk, as asked for by [`Effect::Persist`].
    Persisted {
        /// Which one.
        sequence: u64,
    },
    /// A log of the old set answered, or could not be reached.
    Locked {
        /// Which attempt.
        generation: Generation,
        /// The log's index in its set.
        index: usize,
        /// Its answer.
        result: Result<LockReply>,
    },
    /// A process answered the request to host a log.
    LogRecruited {
        /// Which attempt.
        generation: Generation,
        /// Who.
        process: ProcessId,
        /// Where the log is reached.
        result: Result<Endpoint>,
    },
    /// A process answered the request to host the coordinator.
    CoordinatorRecruited {
        /// Which attempt.
        generation: Generation,
        /// Where its roles are reached.
        result: Result<CoordinatorMembers>,
    },
}

/// What to do about it, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the record to disk, then report [`Input::Persisted`]. Records are written in this order.
    Persist {
        /// Counts the records of this start.
        sequence: u64,
        /// What to write.
        record: Box<ClusterRecord>,
    },
    /// Tell everybody who watches.
    Publish(Box<ClusterState>),
    /// Lock a log of the old set for the new generation, and report.
    Lock {
        /// For which attempt.
        generation: Generation,
        /// The log's index in its set.
        index: usize,
        /// Where it is.
        log: Endpoint,
    },
    /// Ask a process to host a log, and report.
    RecruitLog {
        /// Who.
        process: ProcessId,
        /// Its worker service.
        worker: Endpoint,
        /// What to host.
        request: RecruitLog,
    },
    /// Ask a process to host the coordinator, and report.
    RecruitCoordinator {
        /// Its worker service.
        worker: Endpoint,
        /// What to host.
        request: Box<RecruitCoordinator>,
    },
}

/// How far the newest generation is.
#[derive(Debug)]
enum Step {
    Waiting {
        reason: String,
        not_before: Option<Instant>,
    },
    Beginning {
        recruits: Recruits,
        sequence: u64,
    },
    Locking {
        recruits: Recruits,
        answers: BTreeMap<usize, LockReply>,
        failed: BTreeMap<usize, String>,
    },
    RecruitingLogs {
        recruits: Recruits,
        recovery_version: Version,
        logs: BTreeMap<ProcessId, Endpoint>,
    },
    RecruitingCoordinator {
        recruits: Recruits,
        log_set: LogSet,
    },
    Activating {
        sequence: u64,
    },
    Active {
        since: Instant,
    },
}

/// The processes chosen for an attempt.
#[derive(Clone, Debug)]
struct Recruits {
    logs: Vec<Recruit>,
    coordinator: Recruit,
}

#[derive(Clone, Debug)]
struct Recruit {
    process: ProcessId,
    incarnation: u64,
    worker: Endpoint,
}

impl Recruit {
    fn new(heartbeat: &Heartbeat) -> Self {
        Recruit {
            process: heartbeat.process,
            incarnation: heartbeat.incarnation,
            worker: heartbeat.worker.clone(),
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Controller {
    settings: ControllerSettings,
    record: ClusterRecord,
    registry: Registry,
    step: Step,
    revision: u64,
    recoveries: u64,
    /// When the present attempt began; one that takes too long is given up.
    attempt_began: Instant,
    /// How many records were sent to disk since the start.
    persists: u64,
}

/// An attempt at a recovery that takes longer than this many failure timeouts is begun anew.
const ATTEMPT_TIMEOUTS: u32 = 20;

impl Controller {
    /// A controller that goes on from `record`, whose `starts` counts this start already.
    pub fn new(settings: ControllerSettings, record: ClusterRecord, now: Instant) -> Self {
        let step = match &record.active {
            // The generation may be in good health: adopt it, and let the registry tell.
            Some(_) => Step::Active { since: now },
            None => {
                Step::Waiting { reason: "the controller has just started".into(), not_before: None }
            }
        };
        Controller {
            registry: Registry::new(settings.failure_timeout, now),
            // Revisions of this start are above those of all starts before.
            revision: u64::from(record.starts) << 32,
            settings,
            record,
            step,
            recoveries: 0,
            attempt_began: now,
            persists: 0,
        }
    }

    /// The state that everybody sees.
    pub fn state(&self) -> ClusterState {
        let phase = match &self.step {
            Step::Active { .. } => Phase::Active,
            Step::Waiting { reason, .. } => Phase::Waiting { reason: reason.clone() },
            Step::Beginning { .. } => recovering("beginning the generation"),
            Step::Locking { answers, failed, .. } => recovering(format!(
                "locking the logs of the generation before: {} locked, {} not reached {:?}",
                answers.len(),
                failed.len(),
                failed.values().collect::<Vec<_>>()
            )),
            Step::RecruitingLogs { recruits, logs, .. } => {
                recovering(format!("recruiting logs: {} of {}", logs.len(), recruits.logs.len()))
            }
            Step::RecruitingCoordinator { .. } => recovering("recruiting the coordinator"),
            Step::Activating { .. } => recovering("activating the generation"),
        };
        let active = matches!(self.step, Step::Active { .. });
        let coordinator = self.record.active.as_ref().filter(|_| active);
        ClusterState {
            cluster_id: self.record.cluster_id,
            revision: self.revision,
            generation: self.record.generation,
            phase,
            coordinator: coordinator.map(|active| active.coordinator.clone()),
            log_sets: self.record.log_sets.clone(),
            storage_servers: self.record.storage_servers.clone(),
            shards: self.record.shards.clone(),
        }
    }

    /// What an operator wants to know, but for the controller's own address.
    pub fn status(&self, now: Instant, controller: ferrisdb_core::id::Address) -> Status {
        Status {
            cluster: self.state(),
            processes: self.registry.statuses(now),
            recoveries: self.recoveries,
            controller,
        }
    }

    /// A sign of life, answered at once.
    pub fn on_heartbeat(
        &mut self,
        heartbeat: Heartbeat,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> HeartbeatReply {
        if self.follow_address(&heartbeat) {
            // Lost with a crash at worst, and then learnt again from the next heartbeat.
            self.persist(effects);
            self.publish(effects);
        }
        let storage = heartbeat.class == ProcessClass::Storage;
        self.registry.heard(heartbeat, now);
        if storage {
            self.drop_drained(effects);
        }
        self.look(now, effects);
        HeartbeatReply { cluster_id: self.record.cluster_id, generation: self.record.generation }
    }

    /// Advances by one input. Never waits and never fails.
    pub fn step(&mut self, input: Input, now: Instant, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.look(now, effects),
            Input::Persisted { sequence } => self.on_persisted(sequence, now, effects),
            Input::Locked { generation, index, result } => {
                self.on_locked(generation, index, result, now, effects);
            }
            Input::LogRecruited { generation, process, result } => {
                self.on_log_recruited(generation, process, result, now, effects);
            }
            Input::CoordinatorRecruited { generation, result } => {
                self.on_coordinator_recruited(generation, result, now, effects);
            }
        }
    }

    /// Looks at the processes: has a member failed, or is there enough to begin?
    fn look(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match &self.step {
            Step::Active { since } => {
                let members = self.record.active.as_ref().map_or(&[][..], |a| &a.processes);
                let generation = self.record.generation;
                let since = *since;
                let failed: Vec<String> = members
                    .iter()
                    .filter(|&&member| self.registry.has_failed(member, generation, since, now))
                    .map(|&(process, _)| self.describe(process))
                    .collect();
                if !failed.is_empty() {
                    tracing::warn!(%generation, ?failed, "members of the generation have failed");
                    self.wait(format!("lost {}", failed.join(", ")), None, effects);
                    self.look(now, effects);
                }
            }
            Step::Waiting { not_before, .. } => {
                if not_before.is_none_or(|not_before| now >= not_before) {
                    self.try_to_begin(now, effects);
                }
            }
            _ => {
                let limit = self.settings.failure_timeout * ATTEMPT_TIMEOUTS;
                if now.saturating_duration_since(self.attempt_began) > limit {
                    self.give_up("the recovery took too long", now, effects);
                }
            }
        }
    }

    fn describe(&self, process: ProcessId) -> String {
        match self.registry.last(process) {
            Some(heartbeat) => format!("{} at {}", heartbeat.class, heartbeat.worker.address),
            None => format!("process {process}"),
        }
    }

    /// Begins a recovery if the processes for it are there; otherwise says what is missing.
    fn try_to_begin(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let recruits = match self.choose_recruits(now) {
            Ok(recruits) => recruits,
            Err(reason) => {
                if !matches!(&self.step, Step::Waiting { reason: said, .. } if *said == reason) {
                    tracing::info!(%reason, "waiting");
                    self.wait(reason, None, effects);
                }
                return;
            }
        };
        self.create_storage(now);
        self.record.generation = self.record.generation.next();
        self.record.active = None;
        self.attempt_began = now;
        tracing::info!(generation = %self.record.generation, "recovery begins");
        let sequence = self.persist(effects);
        self.step = Step::Beginning { recruits, sequence };
        self.publish(effects);
    }

    /// Processes for every role of a generation, or which ones are missing.
    fn choose_recruits(&self, now: Instant) -> Result<Recruits, String> {
        let mut missing = Vec::new();
        let mut lacks = |class: ProcessClass, wanted: u32| {
            let found = self.registry.alive_of(class, now).count();
            if found < wanted as usize {
                missing.push(format!("{class} processes ({found} of {wanted} are alive)"));
            }
        };
        lacks(ProcessClass::Coordinator, 1);
        lacks(ProcessClass::Log, self.settings.logs);
        if self.record.storage_servers.is_empty() {
            lacks(ProcessClass::Storage, self.settings.storage_servers);
        }
        let coordinator = self.registry.alive_of(ProcessClass::Coordinator, now).next();
        match coordinator {
            Some(coordinator) if missing.is_empty() => Ok(Recruits {
                logs: self
                    .registry
                    .alive_of(ProcessClass::Log, now)
                    .take(self.settings.logs as usize)
                    .map(Recruit::new)
                    .collect(),
                coordinator: Recruit::new(coordinator),
            }),
            _ => Err(format!("waiting for {}", missing.join(" and "))),
        }
    }

    /// Gives a new cluster its storage servers and shards, once.
    fn create_storage(&mut self, now: Instant) {
        if !self.record.storage_servers.is_empty() {
            return;
        }
        let chosen = self.registry.alive_of(ProcessClass::Storage, now);
        let chosen = chosen.take(self.settings.storage_servers as usize);
        self.record.storage_servers = (0..)
            .map(Tag)
            .zip(chosen)
            .map(|(tag, heartbeat)| StorageServer {
                tag,
                process: heartbeat.process,
                endpoint: storage_endpoint(heartbeat),
            })
            .collect();
        let boundaries: &[Key] = &self.settings.shard_boundaries;
        let servers = self.record.storage_servers.len() as u32;
        self.record.shards = Shard::spread(boundaries, servers, self.settings.storage_replication);
    }

    /// Follows a process that has come back at another address. Returns whether anything changed.
    fn follow_address(&mut self, heartbeat: &Heartbeat) -> bool {
        let mut changed = false;
        for server in &mut self.record.storage_servers {
            let moved = storage_endpoint(heartbeat);
            if server.process == heartbeat.process && server.endpoint != moved {
                server.endpoint = moved;
                changed = true;
            }
        }
        for log in self.record.log_sets.iter_mut().flat_map(|set| &mut set.logs) {
            let address = &heartbeat.worker.address;
            if log.process == heartbeat.process && log.endpoint.address != *address {
                log.endpoint.address = address.clone();
                changed = true;
            }
        }
        changed
    }

    fn on_persisted(&mut self, persisted: u64, now: Instant, effects: &mut Vec<Effect>) {
        match &self.step {
            Step::Beginning { recruits, sequence } if *sequence == persisted => {
                let recruits = recruits.clone();
                self.lock_or_recruit(recruits, effects);
            }
            Step::Activating { sequence } if *sequence == persisted => {
                self.step = Step::Active { since: now };
                self.recoveries += 1;
                tracing::info!(generation = %self.record.generation, "the generation is active");
                self.publish(effects);
            }
            // Written for another reason, such as an address: nothing waits for it.
            _ => {}
        }
    }

    fn persist(&mut self, effects: &mut Vec<Effect>) -> u64 {
        self.persists += 1;
        let record = Box::new(self.record.clone());
        effects.push(Effect::Persist { sequence: self.persists, record });
        self.persists
    }

    /// Locks the old logs; a new cluster has none.
    fn lock_or_recruit(&mut self, recruits: Recruits, effects: &mut Vec<Effect>) {
        let generation = self.record.generation;
        let Some(old) = self.record.log_sets.last() else {
            return self.recruit_logs(recruits, Version::ZERO, effects);
        };
        for (index, log) in old.logs.iter().enumerate() {
            effects.push(Effect::Lock { generation, index, log: log.endpoint.clone() });
        }
        self.step = Step::Locking { recruits, answers: BTreeMap::new(), failed: BTreeMap::new() };
        self.publish(effects);
    }

    fn on_locked(
        &mut self,
        generation: Generation,
        index: usize,
        result: Result<LockReply>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Some(old) = self.record.log_sets.last() else { return };
        let Step::Locking { recruits, answers, failed } = &mut self.step else { return };
        if generation != self.record.generation {
            return;
        }
        match result {
            Ok(reply) => answers.insert(index, reply).map(|_| ()),
            Err(error) => failed.insert(index, error.to_string()).map(|_| ()),
        };
        if answers.len() + failed.len() < old.logs.len() {
            return;
        }
        // All that was acknowledged is on every log, so on each of these; and with these locked no
        // further push can be acknowledged by all (I-12).
        if answers.len() < locks_needed(old) {
            let reason = format!(
                "locked {} of the {} logs that hold the newest commits, {} are needed: {:?}",
                answers.len(),
                old.logs.len(),
                locks_needed(old),
                failed.values().collect::<Vec<_>>()
            );
            return self.give_up(&reason, now, effects);
        }
        let durable = answers.values().map(|reply| reply.durable_version);
        // A set that nothing was pushed to ends where it began.
        let recovery_version = durable.min().unwrap_or_default().max(old.begin_version);
        for reply in answers.values() {
            assert!(
                reply.known_committed_version <= recovery_version,
                "version {} was committed, but only {recovery_version} is on every log (I-5)",
                reply.known_committed_version
            );
        }
        let recruits = recruits.clone();
        self.recruit_logs(recruits, recovery_version, effects);
    }

    fn recruit_logs(
        &mut self,
        recruits: Recruits,
        recovery_version: Version,
        effects: &mut Vec<Effect>,
    ) {
        for log in &recruits.logs {
            effects.push(Effect::RecruitLog {
                process: log.process,
                worker: log.worker.clone(),
                request: RecruitLog {
                    cluster_id: self.record.cluster_id,
                    generation: self.record.generation,
                    begin_version: recovery_version,
                },
            });
        }
        self.step = Step::RecruitingLogs { recruits, recovery_version, logs: BTreeMap::new() };
        self.publish(effects);
    }

    fn on_log_recruited(
        &mut self,
        generation: Generation,
        process: ProcessId,
        result: Result<Endpoint>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Step::RecruitingLogs { recruits, recovery_version, logs } = &mut self.step else {
            return;
        };
        if generation != self.record.generation {
            return;
        }
        match result {
            Ok(endpoint) => logs.insert(process, endpoint),
            Err(error) => {
                return self.give_up(&format!("recruiting a log: {error}"), now, effects);
            }
        };
        if logs.len() < recruits.logs.len() {
            return;
        }
        let members = logs
            .iter()
            .map(|(&process, endpoint)| LogMember { process, endpoint: endpoint.clone() });
        let log_set = LogSet {
            generation,
            logs: members.collect(),
            replication: self.settings.log_replication.clamp(1, self.settings.logs),
            begin_version: *recovery_version,
            end_version: None,
        };
        let request = RecruitCoordinator {
            cluster_id: self.record.cluster_id,
            generation,
            recovery_version: *recovery_version,
            first_version: recovery_version.saturating_add(limits::RECOVERY_VERSION_JUMP),
            log_set: log_set.clone(),
            shards: self.record.shards.clone(),
            proxies: self.settings.proxies,
            resolvers: self.settings.resolvers,
        };
        let recruits = recruits.clone();
        effects.push(Effect::RecruitCoordinator {
            worker: recruits.coordinator.worker.clone(),
            request: Box::new(request),
        });
        self.step = Step::RecruitingCoordinator { recruits, log_set };
        self.publish(effects);
    }

    fn on_coordinator_recruited(
        &mut self,
        generation: Generation,
        result: Result<CoordinatorMembers>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Step::RecruitingCoordinator { recruits, log_set } = &self.step else { return };
        if generation != self.record.generation {
            return;
        }
        let coordinator = match result {
            Ok(members) => members,
            Err(error) => {
                let reason = format!("recruiting the coordinator: {error}");
                return self.give_up(&reason, now, effects);
            }
        };
        let members = recruits.logs.iter().chain(std::iter::once(&recruits.coordinator));
        let processes = members.map(|recruit| (recruit.process, recruit.incarnation)).collect();
        if let Some(old) = self.record.log_sets.last_mut() {
            assert!(old.end_version.is_none(), "a log set would end twice: {old:?} (I-12)");
            old.end_version = Some(log_set.begin_version);
        }
        self.record.log_sets.push(log_set.clone());
        self.record.active = Some(ActiveGeneration { coordinator, processes });
        let sequence = self.persist(effects);
        self.step = Step::Activating { sequence };
        self.publish(effects);
    }

    /// Ends the present attempt. The next one, with a generation of its own, follows after a while.
    fn give_up(&mut self, reason: &str, now: Instant, effects: &mut Vec<Effect>) {
        tracing::warn!(generation = %self.record.generation, %reason, "recovery failed");
        let not_before = now + self.settings.failure_timeout / 4;
        self.wait(format!("the last attempt failed: {reason}"), Some(not_before), effects);
    }

    fn wait(&mut self, reason: String, not_before: Option<Instant>, effects: &mut Vec<Effect>) {
        self.step = Step::Waiting { reason, not_before };
        self.publish(effects);
    }

    /// Drops old log sets that every storage server has on its own disk.
    fn drop_drained(&mut self, effects: &mut Vec<Effect>) {
        // While the record is on its way to disk it is not changed for anything else.
        if !matches!(self.step, Step::Active { .. }) || self.record.log_sets.len() < 2 {
            return;
        }
        let durable = self.record.storage_servers.iter().map(|server| {
            self.registry.last(server.process).map_or(Version::ZERO, |h| h.progress.durable_version)
        });
        let durable = durable.min().unwrap_or_default();
        if !self.record.drop_drained(durable) {
            return;
        }
        // The logs' processes see it in the published state and delete what is not in it any more.
        self.persist(effects);
        self.publish(effects);
    }

    fn publish(&mut self, effects: &mut Vec<Effect>) {
        self.revision += 1;
        effects.push(Effect::Publish(Box::new(self.state())));
    }
}

fn recovering(step: impl Into<String>) -> Phase {
    Phase::Recovering { step: step.into() }
}

/// A storage server offers its service under its worker's instance.
fn storage_endpoint(heartbeat: &Heartbeat) -> Endpoint {
    heartbeat.worker.clone()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
