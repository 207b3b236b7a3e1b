//! The decisions of the leading controller, as a synchronous machine.
//!
//! ```text
//!   Waiting --(enough processes)--> Beginning --(agreed)--> Locking --(enough answers)--> Recruiting
//!      ^                                                                                      |
//!      |        a call failed, or a member died meanwhile                                     v
//!      +---------------------------------------------------- Activating <------------------ Opening
//!      |                                                          |
//!      +--(a member of the live generation failed)-- Active <-----+ (agreed)
//! ```
//!
//! Every attempt at a recovery has a generation of its own, agreed on before anything else is done for
//! it; answers that belong to an earlier attempt are ignored. So two attempts can never both activate (I-12).
//!
//! This file holds the machine's inputs and effects, what it looks at all the time, and what everybody sees of it.
//! The steps of a recovery are in `recovery.rs`, operators' commands in `administration.rs`.

use std::{collections::BTreeMap, time::Duration};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, Generation, Key, KeyRange, ProcessId, Result, Shard, ShardMap, Tag, Teams,
    Version,
    id::Address,
    mutation::{self, Item, Mutation},
    runtime::Instant,
    service::{
        controller::{
            ClusterState, ControllerMember, Heartbeat, HeartbeatReply, LogSet, Phase, ProcessClass,
            Status, StorageServer,
        },
        log::{LockReply, LockRequest, PeekReply, PeekRequest},
        worker::{RecruitLog, RecruitProxy, RecruitResolver, RecruitSequencer},
    },
    shard,
    transaction::CommitRequest,
};

use super::{
    ControllerSettings,
    cluster_record::{ClusterRecord, Member},
    distribution::{
        planner::{self, Plan},
        teams::{Server, Servers, Standing},
    },
    links::Suspicions,
    proof::Proof,
    recovery::{Attempt, Step},
    recruitment::{self, Candidate, Recruits},
    registry::Registry,
};
use crate::coordinator::proxy::routing::shard_map_change;

/// What happened. Heartbeats, commands and status have methods of their own, because they are answered at once.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A record is agreed on, as asked for by [`Effect::Persist`].
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
    /// A process answered the request to host a role.
    Recruited {
        /// Which attempt.
        generation: Generation,
        /// Which role.
        slot: Slot,
        /// Where the role is reached.
        result: Result<Endpoint>,
    },
    /// A process was asked whether it reaches others, by [`Effect::Prove`].
    Proved {
        /// By which question.
        number: u64,
        /// Who was asked.
        process: ProcessId,
        /// Those that it does not reach.
        result: Result<Vec<Endpoint>>,
    },
    /// A process is still at it: it copies what its log takes over.
    Recruiting {
        /// Which attempt.
        generation: Generation,
    },
    /// The connection to a process broke, and a new one cannot be made.
    Lost {
        /// Who.
        process: ProcessId,
        /// In which of its lives.
        incarnation: u64,
    },
    /// A log answered with changes of the shard map.
    Metadata {
        /// The generation of the log's set.
        generation: Generation,
        /// Up to where they were known.
        after_version: Version,
        /// The answer.
        reply: PeekReply,
    },
    /// A version was seen to be committed.
    Committed(Version),
    /// The members of the group of controllers.
    Controllers(Vec<ControllerMember>),
}

/// A role of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// A log, by its index.
    Log(usize),
    /// The sequencer.
    Sequencer,
    /// A resolver, by its index.
    Resolver(usize),
    /// A proxy, by its number.
    Proxy(usize),
}

/// What a process is asked to host.
#[derive(Clone, Debug, PartialEq)]
pub enum Recruitment {
    /// A log.
    Log(RecruitLog),
    /// The sequencer.
    Sequencer(RecruitSequencer),
    /// A resolver.
    Resolver(RecruitResolver),
    /// A proxy.
    Proxy(Box<RecruitProxy>),
}

/// What to do about it, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Agree on the record with the other controllers, then report [`Input::Persisted`]. Nothing that follows is done
    /// before.
    Persist {
        /// Counts the records of this reign.
        sequence: u64,
        /// What to agree on.
        record: Box<ClusterRecord>,
    },
    /// Tell everybody who watches.
    Publish(Box<ClusterState>),
    /// Lock a log of the old set for the new generation, and report.
    Lock {
        /// The log's index in its set.
        index: usize,
        /// Where it is.
        log: Endpoint,
        /// The lock.
        request: LockRequest,
    },
    /// Ask a process to host a role, and report.
    Recruit {
        /// For which attempt.
        generation: Generation,
        /// Which role.
        slot: Slot,
        /// The process' worker service.
        worker: Endpoint,
        /// What to host.
        request: Recruitment,
    },
    /// Ask a process whether it reaches others, and report.
    Prove {
        /// Counts the questions of this reign.
        number: u64,
        /// Who is asked.
        member: Member,
        /// The others.
        workers: Vec<Endpoint>,
    },
    /// Notice at once when one of these processes dies. Replaces the processes watched before.
    Watch(Vec<Member>),
    /// Let logs forget the changes of the shard map up to a version.
    PopMetadata {
        /// The logs.
        logs: Vec<Endpoint>,
        /// Up to where.
        through_version: Version,
    },
    /// Answer a command, now that what it asked for is agreed on.
    Answer(u64),
}

/// The machine.
#[derive(Debug)]
pub struct Controller {
    pub(super) settings: ControllerSettings,
    pub(super) record: ClusterRecord,
    pub(super) registry: Registry,
    pub(super) step: Step,
    pub(super) attempt: Attempt,
    pub(super) proof: Proof,
    revision: u64,
    /// The register's revision when this reign began. Each record that is agreed on adds one.
    register_revision: u64,
    /// How many records were sent to be agreed on.
    persists: u64,
    controllers: Vec<ControllerMember>,
    /// A version that is known to be committed.
    pub(super) known_committed_version: Version,
    /// Since when a better generation than the live one could be recruited.
    pub(super) better_since: Option<Instant>,
    /// When logs were last told what they may forget of the shard map.
    metadata_popped: Option<Instant>,
}

/// How often logs are told how far the shard map is known. The word may be lost, a log may forget it in a restart, and what
/// a recovery has copied is known before there is a log to be told: so it is said again and again.
const METADATA_POP_EVERY: Duration = Duration::from_secs(5);

impl Controller {
    /// A controller that begins to lead with `record`, whose `reigns` counts this reign already, and which the register had at
    /// `register_revision`.
    pub fn new(
        settings: ControllerSettings,
        record: ClusterRecord,
        register_revision: u64,
        now: Instant,
    ) -> Self {
        let step = match &record.active {
            // The generation may be in good health: adopt it, and let the registry tell.
            Some(_) => {
                mark(Mark::GenerationAdopted);
                Step::Active { since: now }
            }
            None => Step::waiting("the controller has just begun to lead"),
        };
        Controller {
            registry: Registry::new(settings.failure_timeout, now),
            revision: revision_of_record(register_revision),
            register_revision,
            known_committed_version: record.metadata_version,
            settings,
            record,
            step,
            attempt: Attempt::new(now),
            proof: Proof::default(),
            persists: 0,
            controllers: Vec::new(),
            better_since: None,
            metadata_popped: None,
        }
    }

    /// What comes first: the reign is agreed on, everybody hears of it, and the adopted generation is watched.
    pub fn begin(&mut self, controllers: Vec<ControllerMember>, effects: &mut Vec<Effect>) {
        self.controllers = controllers;
        self.persist(effects);
        self.publish(effects);
        self.watch(effects);
    }

    /// The state that everybody sees.
    pub fn state(&self) -> ClusterState {
        let (phase, controllers) = (self.step.phase(), self.controllers.clone());
        state_of(&self.record, self.revision, phase, controllers)
    }

    /// What an operator wants to know, but for what concerns the group of controllers.
    pub fn status(&self, now: Instant, controller: Address) -> Status {
        let Plan { repairs, stuck, .. } = self.plan(now);
        Status {
            cluster: self.state(),
            processes: self.registry.statuses(now),
            leads_for_ms: milliseconds(now.saturating_duration_since(self.registry.began())),
            failure_timeout_ms: milliseconds(self.registry.failure_timeout()),
            recoveries: self.attempt.recoveries,
            last_recovery: self.attempt.last.clone(),
            controller,
            silent_controllers: Vec::new(),
            unreached: self.unreached(now),
            repairs,
            stuck,
            metadata_version: self.record.metadata_version,
        }
    }

    /// A sign of life, answered at once.
    pub fn on_heartbeat(
        &mut self,
        heartbeat: Heartbeat,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> HeartbeatReply {
        self.registry.look(now);
        if self.follow_address(&heartbeat) {
            // Lost with a reign at worst, and then learnt again from the next heartbeat.
            self.persist(effects);
            self.publish(effects);
        }
        let is_storage = heartbeat.class == ProcessClass::Storage;
        self.registry.heard(heartbeat, now);
        if is_storage {
            self.drop_drained(effects);
        }
        self.look(now, effects);
        let generation = self.record.told_generation();
        HeartbeatReply { cluster_id: self.record.cluster_id, generation }
    }

    /// Advances by one input. Never waits and never fails.
    pub fn step(&mut self, input: Input, now: Instant, effects: &mut Vec<Effect>) {
        self.registry.look(now);
        match input {
            Input::Tick => self.on_tick(now, effects),
            Input::Persisted { sequence } => self.on_persisted(sequence, now, effects),
            Input::Locked { generation, index, result } => {
                self.on_locked(generation, index, result, now, effects);
            }
            Input::Recruited { generation, slot, result } => {
                self.on_recruited(generation, slot, result, now, effects);
            }
            Input::Proved { number, process, result } => {
                self.on_proved(number, process, result, now, effects);
            }
            Input::Recruiting { generation } => self.on_recruiting(generation, now),
            Input::Lost { process, incarnation } => {
                self.registry.lost(process, incarnation);
                self.look(now, effects);
            }
            Input::Metadata { generation, after_version, reply } => {
                self.on_metadata(generation, after_version, reply, effects);
            }
            Input::Committed(version) => {
                self.known_committed_version = self.known_committed_version.max(version);
            }
            Input::Controllers(controllers) => {
                if self.controllers != controllers {
                    self.controllers = controllers;
                    self.publish(effects);
                }
            }
        }
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let record = &self.record;
        self.registry.forget(now, |process| record.storage_server(process.process).is_some());
        self.look(now, effects);
        self.keep_storage(now, effects);
        let is_due = |told| now.saturating_duration_since(told) >= METADATA_POP_EVERY;
        if self.metadata_popped.is_none_or(is_due) && !planted(Plant::PopMetadataOnce) {
            self.metadata_popped = Some(now);
            self.pop_metadata(effects);
        }
    }

    /// Looks at the processes: has a member failed, or is there enough to begin?
    pub(super) fn look(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match &self.step {
            Step::Active { since } => {
                let since = *since;
                if let Some(reason) = self.why_to_recover(since, now, effects) {
                    tracing::warn!(generation = %self.record.generation, %reason, "a recovery is needed");
                    self.attempt.begin_recovery(&reason, now);
                    self.wait(reason, None, effects);
                    self.look(now, effects);
                }
            }
            Step::Waiting { not_before, .. } => {
                if not_before.is_none_or(|not_before| now >= not_before) {
                    self.try_to_begin(now, effects);
                }
            }
            _ => self.look_at_attempt(now, effects),
        }
    }

    /// Why the live generation has to be replaced, if it has to.
    fn why_to_recover(
        &mut self,
        since: Instant,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Option<String> {
        let generation = self.record.generation;
        let active = self.record.active.as_ref()?;
        let failed: Vec<String> = active
            .members
            .iter()
            .filter_map(|member| {
                let id = (member.process, member.incarnation);
                let failure = self.registry.failure(id, generation, since, now)?;
                Some(format!("{}: {failure}", self.describe(member.process)))
            })
            .collect();
        if !failed.is_empty() {
            return Some(format!("lost {}", failed.join(", ")));
        }
        self.why_a_better_one(now, effects)
    }

    pub(super) fn choose_recruits(&self, now: Instant) -> Result<Recruits, String> {
        let classes = [ProcessClass::Log, ProcessClass::Coordinator];
        let usable: Vec<&Heartbeat> = classes
            .into_iter()
            .flat_map(|class| self.registry.alive_of(class, now))
            .filter(|heartbeat| {
                !self.record.is_excluded(heartbeat.process, &heartbeat.worker.address)
            })
            .collect();
        // What the others say of each other is looked at pair by pair.
        let is_gone = |by: &Address| !usable.iter().any(|usable| usable.worker.address == *by);
        let candidates = usable.iter().map(|&heartbeat| Candidate {
            heartbeat,
            is_accused: self.registry.was_in_trouble(heartbeat.process, now)
                || self.registry.is_accused(&heartbeat.worker.address, is_gone, now),
        });
        let candidates: Vec<_> = candidates.collect();
        let suspicions = Suspicions::new(self.registry.suspicions(now).cloned());
        let choose = |candidates: &[Candidate<'_>]| {
            let configuration = &self.record.configuration;
            recruitment::choose(configuration, candidates, &suspicions, self.attempt.failed)
        };
        let is_able = |candidate: &&Candidate<'_>| {
            candidate.heartbeat.class != ProcessClass::Log
                || self.can_copy(&candidate.heartbeat.worker, &suspicions, now)
        };
        let able: Vec<_> = candidates.iter().filter(is_able).copied().collect();
        if able.len() < candidates.len()
            && let Ok(recruits) = choose(&able)
        {
            mark(Mark::SourceUnreached);
            return Ok(recruits);
        }
        choose(&candidates)
    }

    pub(super) fn describe(&self, process: ProcessId) -> String {
        match self.registry.last(process) {
            Some(heartbeat) => format!("{} at {}", heartbeat.class, heartbeat.worker.address),
            None => {
                let active = self.record.active.as_ref();
                let member = active.and_then(|a| a.members.iter().find(|m| m.process == process));
                member.map_or_else(
                    || format!("process {process}"),
                    |member| format!("the process at {}", member.worker.address),
                )
            }
        }
    }

    /// Gives a new cluster its storage servers and shards, once. Says what is missing for it.
    pub(super) fn create_storage(&mut self, now: Instant) -> Result<(), String> {
        if self.record.is_created() {
            return Ok(());
        }
        let copies = self.record.configuration.redundancy.copies();
        let wanted = self.settings.storage_servers.max(copies) as usize;
        let found: Vec<Heartbeat> =
            self.registry.alive_of(ProcessClass::Storage, now).cloned().collect();
        let servers: Vec<StorageServer> = (0..)
            .map(Tag)
            .zip(&found)
            .map(|(tag, heartbeat)| storage_server(tag, heartbeat, Version::ZERO))
            .collect();
        let standing = |server: &StorageServer| Server {
            tag: server.tag,
            zone: server.zone.clone(),
            standing: Standing::Good,
        };
        let mut teams = Servers::new(servers.iter().map(standing));
        if servers.len() < wanted || teams.new_team(copies as usize).len() < copies as usize {
            return Err(format!(
                "waiting for storage processes ({} of {wanted} are alive, {copies} zones are needed)",
                found.len()
            ));
        }
        let boundaries = &self.settings.shard_boundaries;
        let begins = std::iter::once(Key::MIN).chain(boundaries.iter().cloned());
        let ends = boundaries.iter().cloned().chain(std::iter::once(Key::SYSTEM_END));
        let shards = begins.zip(ends).map(|(begin, end)| {
            let team = teams.new_team(copies as usize);
            team.iter().for_each(|tag| teams.add_load(*tag));
            Shard { range: KeyRange { begin, end }, teams: Teams::of(team) }
        });
        self.record.shards = ShardMap::new(shards.collect());
        self.record.next_tag = Tag(servers.len() as u32);
        self.record.storage_servers = servers;
        Ok(())
    }

    /// Follows a process that has come back at another address or in another zone. Returns whether anything changed.
    fn follow_address(&mut self, heartbeat: &Heartbeat) -> bool {
        let mut changed = false;
        for server in &mut self.record.storage_servers {
            let now = storage_server(server.tag, heartbeat, server.begin_version);
            if server.process == heartbeat.process && *server != now {
                *server = now;
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

    pub(super) fn persist(&mut self, effects: &mut Vec<Effect>) -> u64 {
        self.persists += 1;
        self.revision = revision_of_record(self.register_revision + self.persists);
        let record = Box::new(self.record.clone());
        effects.push(Effect::Persist { sequence: self.persists, record });
        self.persists
    }

    pub(super) fn publish(&mut self, effects: &mut Vec<Effect>) {
        self.revision += 1;
        effects.push(Effect::Publish(Box::new(self.state())));
    }

    pub(super) fn watch(&self, effects: &mut Vec<Effect>) {
        let members = self.record.active.as_ref().map(|active| active.members.clone());
        effects.push(Effect::Watch(members.unwrap_or_default()));
    }

    // What is kept of the data, and where.

    /// Drops old log sets that every storage server has on its own disk.
    pub(super) fn drop_drained(&mut self, effects: &mut Vec<Effect>) {
        // While the record is on its way it is not changed for anything else.
        if !matches!(self.step, Step::Active { .. }) || self.record.log_sets.len() < 2 {
            return;
        }
        let durable = self.record.storage_servers.iter().map(|server| {
            self.reported_durable(server).unwrap_or_default().max(server.begin_version)
        });
        let drained = match planted(Plant::DropUndrainedLogs) {
            true => durable.max(),
            false => durable.min(),
        };
        let durable = drained.unwrap_or_default();
        if !self.record.drop_drained(durable) {
            return;
        }
        // The logs' processes see it in the published state and delete what is not in it any more.
        self.persist(effects);
        self.publish(effects);
    }

    /// What a storage server has on its disk, as far as it has said.
    pub(super) fn reported_durable(&self, server: &StorageServer) -> Option<Version> {
        let heard = self.registry.last(server.process)?;
        // What it says of another tag's data is about another life.
        let is_same = heard.storage.as_ref()?.tag == Some(server.tag);
        is_same.then_some(heard.progress.durable_version)
    }

    /// Takes in storage servers that have come, and lets go of those that are gone and hold nothing.
    fn keep_storage(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !matches!(self.step, Step::Active { .. }) || !self.record.is_created() {
            return;
        }
        let is_new = |heartbeat: &&Heartbeat| {
            let tag = heartbeat.storage.as_ref().and_then(|report| report.tag);
            self.record.storage_server(heartbeat.process).is_none()
                && !self.record.is_excluded(heartbeat.process, &heartbeat.worker.address)
                // It forgets what it has of a tag that was given up, and then says so.
                && tag.is_none()
        };
        let alive = self.registry.alive_of(ProcessClass::Storage, now);
        let new: Vec<Heartbeat> = alive.filter(is_new).cloned().collect();
        let gone: Vec<Tag> = self
            .record
            .storage_servers
            .iter()
            .filter(|server| {
                self.standing(server, now) == Standing::Gone
                    && planner::is_drained(&self.record.shards, server.tag)
            })
            .map(|server| server.tag)
            .collect();
        if new.is_empty() && gone.is_empty() {
            return;
        }
        for heartbeat in &new {
            let tag = self.record.next_tag;
            self.record.next_tag = Tag(tag.0 + 1);
            let begin_version = self.record.metadata_version;
            tracing::info!(%tag, process = %self.describe(heartbeat.process), "a storage server joins");
            self.record.storage_servers.push(storage_server(tag, heartbeat, begin_version));
        }
        for tag in &gone {
            tracing::info!(%tag, "a storage server is gone for good");
        }
        self.record.storage_servers.retain(|server| !gone.contains(&server.tag));
        self.persist(effects);
        self.publish(effects);
        self.drop_drained(effects);
    }

    fn standing(&self, server: &StorageServer, now: Instant) -> Standing {
        let replace_after =
            Duration::from_millis(self.record.configuration.storage_replace_after_ms);
        let is_excluded = self.record.is_excluded(server.process, &server.endpoint.address);
        match self.registry.dead_for(server.process, now) {
            Some(away) if away >= replace_after => Standing::Gone,
            _ if is_excluded => Standing::Leaving,
            Some(_) => Standing::Away,
            None => {
                let heard = self.registry.last(server.process);
                let report = heard.and_then(|heartbeat| heartbeat.storage.as_ref());
                let has_begun = report.is_some_and(|report| report.tag == Some(server.tag));
                if has_begun { Standing::Good } else { Standing::Away }
            }
        }
    }

    /// What is to be done about the data.
    pub(super) fn plan(&self, now: Instant) -> Plan {
        let server = |server: &StorageServer| Server {
            tag: server.tag,
            zone: server.zone.clone(),
            standing: self.standing(server, now),
        };
        let servers = Servers::new(self.record.storage_servers.iter().map(server));
        let copied = self.record.storage_servers.iter().filter_map(|server| {
            let heartbeat = self.registry.last(server.process)?;
            let report = heartbeat.storage.as_ref()?;
            // Before it has the newest change of the map, it may speak of an earlier time that it joined a shard.
            let is_recent = heartbeat.progress.durable_version >= self.record.shards_version;
            let is_same = report.tag == Some(server.tag);
            (is_same && is_recent).then(|| (server.tag, report.copied.clone()))
        });
        let copied: BTreeMap<_, _> = copied.collect();
        let copies = self.record.configuration.redundancy.copies() as usize;
        planner::plan(&self.record.shards, servers, &copied, copies)
    }

    /// The transaction that takes the next steps, at a read version; `None` if there are none, or if the map is not
    /// known up to that version yet.
    pub fn relocation(&self, read_version: Version, now: Instant) -> Option<CommitRequest> {
        if !self.wants_relocation(now) || self.record.metadata_version < read_version {
            return None;
        }
        let set = |(begin, teams): (Key, Teams)| Mutation::Set {
            key: shard::key_servers_key(&begin),
            value: teams.to_value(),
        };
        let mutations: Vec<_> = self.plan(now).changes.into_iter().map(set).collect();
        // Whoever else changes the map meanwhile makes this conflict.
        Some(CommitRequest {
            read_version,
            read_conflicts: vec![shard::key_servers_range()],
            write_conflicts: vec![shard::key_servers_range()],
            mutations,
            may_write_system_keys: true,
            changes_shard_map: true,
            ..CommitRequest::default()
        })
    }

    /// Whether there is a step to take.
    pub fn wants_relocation(&self, now: Instant) -> bool {
        matches!(self.step, Step::Active { .. }) && !self.plan(now).changes.is_empty()
    }

    /// Where the controller stands in following the shard map.
    pub fn metadata_version(&self) -> Version {
        self.record.metadata_version
    }

    /// The question for the next changes of the shard map, and the logs that can answer it.
    pub fn metadata_peek(&self) -> Option<(LogSet, PeekRequest)> {
        if !matches!(self.step, Step::Active { .. }) {
            return None;
        }
        let request = PeekRequest {
            tag: Tag::METADATA,
            after_version: self.record.metadata_version,
            bytes_max: 1 << 20,
            wait_ms: 250,
        };
        Some((self.record.log_sets.last()?.clone(), request))
    }

    fn on_metadata(
        &mut self,
        generation: Generation,
        after_version: Version,
        reply: PeekReply,
        effects: &mut Vec<Effect>,
    ) {
        let is_active = matches!(self.step, Step::Active { .. });
        if !is_active
            || generation != self.record.generation
            || after_version != self.record.metadata_version
        {
            return;
        }
        self.known_committed_version =
            self.known_committed_version.max(reply.known_committed_version);
        // What is not known to be committed may be rolled back.
        let through_version = reply.through_version.min(self.known_committed_version);
        if through_version <= after_version {
            return;
        }
        let mut has_changed = false;
        for (version, message) in reply.messages {
            if version <= through_version && apply_metadata(&mut self.record.shards, message) {
                self.record.shards_version = version;
                has_changed = true;
            }
        }
        self.record.metadata_version = through_version;
        if !has_changed {
            return;
        }
        self.persist(effects);
        self.publish(effects);
        self.pop_metadata(effects);
    }

    /// Tells the live logs up to where the shard map is known. All of it that is told has been sent to be agreed on before.
    fn pop_metadata(&self, effects: &mut Vec<Effect>) {
        let Some(set) = self.record.log_sets.last() else { return };
        if !matches!(self.step, Step::Active { .. }) {
            return;
        }
        let logs = set.logs.iter().map(|log| log.endpoint.clone()).collect();
        let through_version = self.record.metadata_version;
        effects.push(Effect::PopMetadata { logs, through_version });
    }
}

/// How many bits of a revision count what a leader publishes between two records.
const PUBLISHED_BITS: u32 = 24;

/// The revision of the state that a record alone tells.
///
/// ```text
///   the register at 7     revision 7 << 24          what every member tells that has applied it
///                         7 << 24 | 1, | 2 ...      what the leader publishes from there on, which others do not know
///   the register at 8     8 << 24                   newer than all of those
/// ```
///
/// What is published waits for the records before it to be agreed on, so a higher revision never says less, whoever tells it.
pub(super) fn revision_of_record(register_revision: u64) -> u64 {
    register_revision << PUBLISHED_BITS
}

/// The record whose leader can have published a revision.
pub(super) fn record_of_revision(revision: u64) -> u64 {
    revision >> PUBLISHED_BITS
}

/// The state as a record tells it to a member of the group that does not lead.
pub(super) fn state_of_record(
    record: &ClusterRecord,
    register_revision: u64,
    controllers: Vec<ControllerMember>,
) -> ClusterState {
    let phase = match &record.active {
        Some(_) => Phase::Active,
        None => Phase::Recovering { step: "the leading controller knows how far it is".to_owned() },
    };
    state_of(record, revision_of_record(register_revision), phase, controllers)
}

fn state_of(
    record: &ClusterRecord,
    revision: u64,
    phase: Phase,
    controllers: Vec<ControllerMember>,
) -> ClusterState {
    let coordinator = record.active.as_ref().filter(|_| phase == Phase::Active);
    ClusterState {
        cluster_id: record.cluster_id,
        revision,
        generation: record.told_generation(),
        phase,
        coordinator: coordinator.map(|active| active.coordinator.clone()),
        log_sets: record.log_sets.clone(),
        storage_servers: record.storage_servers.clone(),
        next_tag: record.next_tag,
        shards: record.shards.clone(),
        controllers,
        configuration: Some(record.configuration.clone()),
        excluded: record.excluded.clone(),
    }
}

/// Applies a message of the metadata tag to a map. Returns whether there was anything in it.
pub(super) fn apply_metadata(shards: &mut ShardMap, message: bytes::Bytes) -> bool {
    let mut has_changed = false;
    for item in mutation::decode(message) {
        let change = match &item {
            Ok(Item::Mutation(mutation)) => shard_map_change(mutation),
            _ => None,
        };
        let Some((begin, teams)) = change else {
            panic!("not a change of the shard map, in the metadata of a log: {item:?} (I-2)");
        };
        shards.set(&begin, teams);
        has_changed = true;
    }
    has_changed
}

/// A storage server offers its service under its worker's instance.
fn storage_server(tag: Tag, heartbeat: &Heartbeat, begin_version: Version) -> StorageServer {
    StorageServer {
        tag,
        process: heartbeat.process,
        endpoint: heartbeat.worker.clone(),
        zone: heartbeat.zone.clone(),
        begin_version,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error of the controller.
pub(super) fn refused(code: ferrisdb_core::ErrorCode, detail: impl Into<String>) -> Error {
    Error::new(code, ferrisdb_core::Stage::Control, detail)
}

#[cfg(test)]
#[path = "machine_tests/mod.rs"]
mod tests;
