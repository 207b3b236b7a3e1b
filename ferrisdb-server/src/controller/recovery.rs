//! The steps of a recovery. The picture is in [`super::machine`].
//!
//! ```text
//!   old set    log 0: durable 130, known committed 100      log 1: durable 120, known 110     log 2: gone
//!   R = 120    the least durable version of the answers: all that was acknowledged is on every log
//!   K = 110    the greatest known committed one: what is after it may be on some logs only, and is copied
//!
//!   new set    begins after 110, its own batches follow 120
//! ```

use std::{collections::BTreeMap, time::Duration};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Generation, KeyRange, ProcessId, Result, ShardMap, Version,
    id::Address,
    limits,
    runtime::Instant,
    service::{
        controller::{
            CoordinatorMembers, Heartbeat, LogMember, LogSet, Phase, ProcessClass, RecoveryReport,
        },
        log::{LockReply, LockRequest},
        worker::{
            RecruitLog, RecruitProxy, RecruitResolver, RecruitSequencer,
            Recruitment as RecruitmentHead, Sources,
        },
    },
};

use super::{
    cluster_record::{ActiveGeneration, Member},
    machine::{Controller, Effect, Recruitment, Slot, apply_metadata},
    proof::Verdict,
    recruitment::Recruits,
};
use crate::coordinator::split_keyspace;

/// How far the newest generation is.
#[derive(Debug)]
pub(super) enum Step {
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
    /// Logs, sequencer and resolvers.
    Recruiting {
        recruits: Recruits,
        ground: Ground,
        found: BTreeMap<Slot, Endpoint>,
    },
    /// Proxies, the first of which opens the generation.
    Opening {
        recruits: Recruits,
        ground: Ground,
        log_set: LogSet,
        coordinator: CoordinatorMembers,
        proxies: BTreeMap<Slot, Endpoint>,
    },
    Activating {
        sequence: u64,
    },
    Active {
        since: Instant,
    },
}

/// What the locks have told: where the generation before ended.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// R: its batches up to here are kept.
    recovery_version: Version,
    /// K: what is after it is copied.
    begin_version: Version,
    /// The logs to copy from.
    sources: Sources,
    /// The shard map at R. The record gets it only when the generation is activated: another attempt may find
    /// another R.
    shards: ShardMap,
    /// When the map was changed last, if that was found out by the locks.
    shards_version: Option<Version>,
}

impl Step {
    pub(super) fn waiting(reason: &str) -> Step {
        Step::Waiting { reason: reason.to_owned(), not_before: None }
    }

    /// The step as everybody sees it.
    pub(super) fn phase(&self) -> Phase {
        let recovering = |step: String| Phase::Recovering { step };
        match self {
            Step::Active { .. } => Phase::Active,
            Step::Waiting { reason, .. } => Phase::Waiting { reason: reason.clone() },
            Step::Beginning { .. } => recovering("beginning the generation".to_owned()),
            Step::Locking { answers, failed, .. } => {
                let (locked, failed) = (answers.len(), failed.values().collect::<Vec<_>>());
                let detail = format!("{locked} locked, {} not reached {failed:?}", failed.len());
                recovering(format!("locking the logs of the generation before: {detail}"))
            }
            Step::Recruiting { recruits, found, .. } => {
                let wanted = recruits.logs.len() + 1 + recruits.resolvers.len();
                let found = found.len();
                recovering(format!("recruiting logs, sequencer and resolvers: {found} of {wanted}"))
            }
            Step::Opening { recruits, proxies, .. } => {
                let (found, wanted) = (proxies.len(), recruits.proxies.len());
                recovering(format!("recruiting proxies: {found} of {wanted}"))
            }
            Step::Activating { .. } => recovering("activating the generation".to_owned()),
        }
    }

    /// The processes that an attempt under way counts on.
    fn recruits(&self) -> Option<&Recruits> {
        match self {
            Step::Beginning { recruits, .. }
            | Step::Locking { recruits, .. }
            | Step::Recruiting { recruits, .. }
            | Step::Opening { recruits, .. } => Some(recruits),
            Step::Waiting { .. } | Step::Activating { .. } | Step::Active { .. } => None,
        }
    }
}

/// The attempts at a recovery, one after the other.
#[derive(Debug)]
pub(super) struct Attempt {
    /// How many recoveries this controller has finished.
    pub(super) recoveries: u64,
    /// The last one that was finished.
    pub(super) last: Option<RecoveryReport>,
    /// When the present one became necessary, and why.
    needed: (Instant, String),
    /// When the present attempt at it began.
    began: Instant,
    /// Attempts at it that failed.
    pub(super) failed: u32,
    /// Whether one of them failed because a process did not reach another: the next has to show first that it is better.
    must_prove: bool,
}

/// An attempt that takes longer than this many failure timeouts is begun anew.
const ATTEMPT_TIMEOUTS: u32 = 10;
/// How long to wait after a failed attempt; doubles up to the failure timeout.
const RETRY_MIN: Duration = Duration::from_millis(20);

impl Attempt {
    pub(super) fn new(now: Instant) -> Attempt {
        let needed = (now, "the controller has just begun to lead".to_owned());
        Attempt { recoveries: 0, last: None, needed, began: now, failed: 0, must_prove: false }
    }

    pub(super) fn begin_recovery(&mut self, reason: &str, now: Instant) {
        self.needed = (now, reason.to_owned());
        self.failed = 0;
        self.must_prove = false;
    }

    fn finish(&mut self, generation: Generation, now: Instant) {
        let (needed, reason) = self.needed.clone();
        let took = now.saturating_duration_since(needed);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(%generation, duration_ms, %reason, "the generation is active");
        self.last =
            Some(RecoveryReport { generation, reason, duration_ms, attempts: self.failed + 1 });
        self.recoveries += 1;
        self.failed = 0;
        self.must_prove = false;
    }
}

impl Controller {
    /// Begins a recovery if the processes for it are there; otherwise says what is missing.
    pub(super) fn try_to_begin(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let recruits = self.choose_recruits(now).and_then(|recruits| {
            self.check_patience(&recruits, now)?;
            self.create_storage(now)?;
            Ok(recruits)
        });
        let recruits = match recruits {
            Ok(recruits) => recruits,
            Err(reason) => {
                if !matches!(&self.step, Step::Waiting { reason: said, .. } if *said == reason) {
                    tracing::info!(%reason, "waiting");
                    self.wait(reason, None, effects);
                }
                return;
            }
        };
        // What is found out counts until the recovery is over: if it were forgotten meanwhile, the same processes would be asked
        // again and again, where an answer takes as long as silence.
        self.registry.keep_accusations(Some(self.attempt.needed.0));
        // Where nobody better is left, even those that were seen to fail are tried: the answers may have been late.
        let is_suspicious = self.attempt.must_prove || !self.unreached(now).is_empty();
        if is_suspicious && self.verdict(&recruits, now, effects) == Verdict::Pending {
            return;
        }
        self.record.generation = self.record.generation.next();
        self.record.active = None;
        self.attempt.began = now;
        tracing::info!(generation = %self.record.generation, "recovery begins");
        let sequence = self.persist(effects);
        self.step = Step::Beginning { recruits, sequence };
        self.publish(effects);
    }

    /// A controller that was made to go on alone begins nothing before it knows that its record is the newest.
    fn check_record(&self, now: Instant) -> Result<(), String> {
        let Some(known) = self.record.forced_after else { return Ok(()) };
        for status in self.registry.statuses(now) {
            let Heartbeat { class, worker, hosted_generations, kept_generations, .. } =
                &status.heartbeat;
            let mut all = hosted_generations.iter().chain(kept_generations);
            if let Some(newer) = all.find(|generation| self.record.is_unknown(**generation)) {
                return Err(format!(
                    "this controller was made to go on alone with the record of generation {known}, but the {class} at {} \
                     has generation {newer}: what was committed in it would be lost. Go on with the disk of a controller \
                     that knows it; if that generation is known to hold nothing of worth, stop that process, remove \
                     \"generations/{newer}\" from its directory, and start it again",
                    worker.address
                ));
            }
        }
        let unheard = self.unheard();
        if !unheard.is_empty() {
            return Err(format!(
                "waiting to hear of {}, after --force-new-quorum: each may have what was committed in a generation that this \
                 controller does not know; exclude what is gone for good (ferrisdb-cli exclude)",
                unheard.join(", ")
            ));
        }
        let waited = now.saturating_duration_since(self.registry.began());
        if waited < self.registry.failure_timeout() {
            return Err("waiting to hear of all processes, after --force-new-quorum".to_owned());
        }
        Ok(())
    }

    /// The storage servers and the logs of the newest set that have not said anything since this controller leads, and are not
    /// given up.
    fn unheard(&self) -> Vec<String> {
        let is_unheard = |process: ProcessId, at: &Address| {
            self.registry.last(process).is_none() && !self.record.is_excluded(process, at)
        };
        let servers =
            self.record.storage_servers.iter().map(|s| ("storage server", s.process, &s.endpoint));
        let logs = self.record.log_sets.last().into_iter().flat_map(|set| &set.logs);
        let logs = logs.map(|log| ("log", log.process, &log.endpoint));
        let all = servers.chain(logs).filter(|(_, process, at)| is_unheard(*process, &at.address));
        all.map(|(what, _, at)| format!("the {what} at {}", at.address)).collect()
    }

    /// Why a record with which a controller was made to go on alone is not the newest: a storage server has more on its disk
    /// than the logs of the newest generation that it knows. What was committed on disk is never taken back (I-12).
    fn why_record_is_old(&self, recovery_version: Version) -> Option<String> {
        let known = self.record.forced_after?;
        self.record.storage_servers.iter().find_map(|server| {
            let durable = self.reported_durable(server)?;
            (durable > recovery_version).then(|| {
                format!(
                    "this controller was made to go on alone with the record of generation {known}, which ends at version \
                     {recovery_version}, but the storage server at {} has version {durable} on its disk: go on with the disk \
                     of a controller that has a newer record",
                    server.endpoint.address
                )
            })
        })
    }

    /// A new cluster waits for all its logs; a new leader gives everybody a moment to be heard.
    fn check_patience(&self, recruits: &Recruits, now: Instant) -> Result<(), String> {
        self.check_record(now)?;
        // Zones may not permit as many logs as there are processes: those that are there are not waited for.
        let logs = self.registry.alive_of(ProcessClass::Log, now).count();
        let (found, wanted) =
            (recruits.logs.len().max(logs), self.record.configuration.logs_wanted());
        let waited = now.saturating_duration_since(self.registry.began());
        let is_early = waited < self.registry.failure_timeout() / 4;
        if found < wanted as usize && (is_early || !self.record.is_created()) {
            return Err(format!("waiting for log processes ({found} of {wanted} can be used)"));
        }
        let (found, wanted) = (recruits.coordinators(), self.record.configuration.roles_wanted());
        if found < wanted && is_early {
            return Err(format!("waiting for coordinator processes ({found} of {wanted})"));
        }
        Ok(())
    }

    /// Looks at an attempt under way: does it take too long, or has somebody died that it counts on?
    pub(super) fn look_at_attempt(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let limit = self.settings.failure_timeout * ATTEMPT_TIMEOUTS;
        if now.saturating_duration_since(self.attempt.began) > limit {
            return self.give_up("the recovery took too long", now, effects);
        }
        let members = self.step.recruits().map(Recruits::members).unwrap_or_default();
        let is_there = |member: &Member| {
            let alive = self.registry.alive(member.process, now);
            alive.is_some_and(|heartbeat| heartbeat.incarnation == member.incarnation)
        };
        if let Some(lost) = members.iter().find(|member| !is_there(member)) {
            let reason = format!("{} failed meanwhile", self.describe(lost.process));
            self.give_up(&reason, now, effects);
        }
    }

    pub(super) fn on_persisted(&mut self, persisted: u64, now: Instant, effects: &mut Vec<Effect>) {
        match &self.step {
            Step::Beginning { recruits, sequence } if *sequence == persisted => {
                let recruits = recruits.clone();
                self.lock_or_recruit(recruits, effects);
            }
            Step::Activating { sequence } if *sequence == persisted => {
                self.step = Step::Active { since: now };
                self.attempt.finish(self.record.generation, now);
                self.registry.keep_accusations(None);
                self.publish(effects);
                self.watch(effects);
                // A short session may end before the next heartbeat.
                self.drop_drained(effects);
            }
            // Written for another reason, such as an address: nothing waits for it.
            _ => {}
        }
    }

    /// Locks the old logs; a new cluster has none.
    fn lock_or_recruit(&mut self, recruits: Recruits, effects: &mut Vec<Effect>) {
        let Some(old) = self.record.log_sets.last() else {
            let ground = Ground {
                recovery_version: Version::ZERO,
                begin_version: Version::ZERO,
                sources: Sources::default(),
                shards: self.record.shards.clone(),
                shards_version: None,
            };
            return self.recruit(recruits, ground, effects);
        };
        let request = LockRequest {
            generation: self.record.generation,
            metadata_after: self.record.metadata_version,
        };
        for (index, log) in old.logs.iter().enumerate() {
            effects.push(Effect::Lock { index, log: log.endpoint.clone(), request });
        }
        self.step = Step::Locking { recruits, answers: BTreeMap::new(), failed: BTreeMap::new() };
        self.publish(effects);
    }

    pub(super) fn on_locked(
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
        leave_out_forgetful(old, answers, failed, self.known_committed_version);
        // All that was acknowledged is on every log, so on each of these; and with these locked no
        // further push can be acknowledged by all (I-12).
        if locks_suffice(old, answers) {
            if answers.len() < old.logs.len() {
                mark(Mark::RecoveredWithoutAll);
            }
            let ground = ground(old, answers, failed, &self.record.shards);
            let recruits = recruits.clone();
            if let Some(reason) = self.why_record_is_old(ground.recovery_version) {
                return self.give_up(&reason, now, effects);
            }
            return self.recruit(recruits, ground, effects);
        }
        if answers.len() + failed.len() == old.logs.len() {
            let reason = why_locks_do_not_suffice(old, answers, failed);
            self.give_up(&reason, now, effects);
        }
    }

    fn head(&self, ground: &Ground) -> RecruitmentHead {
        RecruitmentHead {
            cluster_id: self.record.cluster_id,
            generation: self.record.generation,
            recovery_version: ground.recovery_version,
        }
    }

    /// Recruits logs, sequencer and resolvers, all at once.
    fn recruit(&mut self, recruits: Recruits, ground: Ground, effects: &mut Vec<Effect>) {
        let (recruitment, generation) = (self.head(&ground), self.record.generation);
        let mut ask = |slot, member: &Member, request| {
            let worker = member.worker.clone();
            effects.push(Effect::Recruit { generation, slot, worker, request });
        };
        let logs = recruits.logs.len() as u32;
        for (index, log) in (0u32..).zip(&recruits.logs) {
            let request = RecruitLog {
                recruitment,
                begin_version: ground.begin_version,
                sources: ground.sources.clone(),
                index,
                logs,
                replication: self.record.configuration.redundancy.copies().min(logs),
            };
            ask(Slot::Log(index as usize), log, Recruitment::Log(request));
        }
        let jump = match planted(Plant::ForgetPast) {
            true => 1,
            false => limits::RECOVERY_VERSION_JUMP,
        };
        let first_version = ground.recovery_version.saturating_add(jump);
        let request = RecruitSequencer { recruitment, first_version };
        ask(Slot::Sequencer, &recruits.sequencer, Recruitment::Sequencer(request));
        let proxies = recruits.proxies.len() as u32;
        for (index, resolver) in (0u32..).zip(&recruits.resolvers) {
            let request = RecruitResolver { recruitment, index, proxies };
            ask(Slot::Resolver(index as usize), resolver, Recruitment::Resolver(request));
        }
        self.step = Step::Recruiting { recruits, ground, found: BTreeMap::new() };
        self.publish(effects);
    }

    pub(super) fn on_recruited(
        &mut self,
        generation: Generation,
        slot: Slot,
        result: Result<Endpoint>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if generation != self.record.generation {
            return;
        }
        let endpoint = match (result, &self.step) {
            (Ok(endpoint), _) => endpoint,
            (Err(error), Step::Recruiting { .. } | Step::Opening { .. }) => {
                return self.on_not_recruited(slot, &error, now, effects);
            }
            (Err(_), _) => return,
        };
        match &mut self.step {
            Step::Recruiting { recruits, ground, found } => {
                found.insert(slot, endpoint);
                if found.len() == recruits.logs.len() + 1 + recruits.resolvers.len() {
                    let (recruits, ground) = (recruits.clone(), ground.clone());
                    let found = std::mem::take(found);
                    self.open(recruits, ground, &found, effects);
                }
            }
            Step::Opening { recruits, proxies, .. } => {
                proxies.insert(slot, endpoint);
                if proxies.len() == recruits.proxies.len() {
                    self.activate(effects);
                }
            }
            _ => {}
        }
    }

    /// A recruit is at it and gets on. The attempt's time counts from here: begun anew, it would have to copy everything anew.
    pub(super) fn on_recruiting(&mut self, generation: Generation, now: Instant) {
        if generation == self.record.generation && matches!(self.step, Step::Recruiting { .. }) {
            self.attempt.began = now;
        }
    }

    fn on_not_recruited(
        &mut self,
        slot: Slot,
        error: &Error,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let recruits = self.step.recruits();
        let member = recruits.and_then(|recruits| match slot {
            Slot::Log(index) => recruits.logs.get(index),
            Slot::Sequencer => Some(&recruits.sequencer),
            Slot::Resolver(index) => recruits.resolvers.get(index),
            Slot::Proxy(index) => recruits.proxies.get(index),
        });
        // Either this controller does not reach the member, or the member does not reach another one. The next attempt goes
        // without one of the two. One that the member finds too busy is such: it may be the member itself that lacks what a
        // connection needs.
        let is_silent = matches!(
            error.code(),
            ErrorCode::Unreachable | ErrorCode::TimedOut | ErrorCode::TooBusy
        );
        let server = error.server().and_then(|server| server.split('#').next()).map(Address::new);
        if let (Some(member), Some(server)) = (member, server) {
            let (process, address) = (member.process, member.worker.address.clone());
            if is_silent || address == server {
                self.attempt.must_prove |= address != server;
                self.registry.accuse(&address, &server, now);
            }
            // It lives, and its disk takes no new log: it would end a healthy generation again each time that it is forgotten.
            let is_of_disk = matches!(
                error.code(),
                ErrorCode::Disk | ErrorCode::DiskFull | ErrorCode::Corrupt | ErrorCode::TimedOut
            );
            if address == server && is_of_disk && matches!(slot, Slot::Log(_)) {
                self.registry.count_trouble(process, now);
            }
        }
        self.give_up(&format!("recruiting {slot:?}: {error}"), now, effects);
    }

    /// Recruits the proxies, now that everybody they talk to is there.
    fn open(
        &mut self,
        recruits: Recruits,
        ground: Ground,
        found: &BTreeMap<Slot, Endpoint>,
        effects: &mut Vec<Effect>,
    ) {
        let (recruitment, generation) = (self.head(&ground), self.record.generation);
        let logs = (0..).zip(&recruits.logs).filter_map(|(index, log)| {
            let endpoint = found.get(&Slot::Log(index))?.clone();
            Some(LogMember { process: log.process, endpoint })
        });
        let logs: Vec<_> = logs.collect();
        let copies = self.record.configuration.redundancy.copies();
        let log_set = LogSet {
            generation,
            replication: copies.min(logs.len() as u32),
            logs,
            begin_version: ground.begin_version,
            recovery_version: ground.recovery_version,
            end_version: None,
        };
        let boundaries = &self.settings.resolver_boundaries;
        let keys = split_keyspace(boundaries, recruits.resolvers.len() as u32);
        let resolvers: Vec<(KeyRange, Endpoint)> = (0..)
            .zip(keys)
            .filter_map(|(index, keys)| Some((keys, found.get(&Slot::Resolver(index))?.clone())))
            .collect();
        let Some(sequencer) = found.get(&Slot::Sequencer).cloned() else { return };
        for (number, proxy) in (0u32..).zip(&recruits.proxies) {
            let request = RecruitProxy {
                recruitment,
                number,
                sequencer: sequencer.clone(),
                resolvers: resolvers.clone(),
                log_set: log_set.clone(),
                shards: ground.shards.clone(),
            };
            effects.push(Effect::Recruit {
                generation,
                slot: Slot::Proxy(number as usize),
                worker: proxy.worker.clone(),
                request: Recruitment::Proxy(Box::new(request)),
            });
        }
        let coordinator = CoordinatorMembers { sequencer, proxies: Vec::new(), resolvers };
        let proxies = BTreeMap::new();
        self.step = Step::Opening { recruits, ground, log_set, coordinator, proxies };
        self.publish(effects);
    }

    fn activate(&mut self, effects: &mut Vec<Effect>) {
        let Step::Opening { recruits, ground, log_set, coordinator, proxies } = &self.step else {
            return;
        };
        if let Some(old) = self.record.log_sets.last_mut() {
            assert!(old.end_version.is_none(), "a log set would end twice: {old:?} (I-12)");
            old.end_version = Some(ground.recovery_version);
        }
        self.record.log_sets.push(log_set.clone());
        self.record.shards = ground.shards.clone();
        self.record.metadata_version = ground.recovery_version;
        self.record.shards_version = ground.shards_version.unwrap_or(self.record.shards_version);
        let proxies = proxies.values().cloned().collect();
        let coordinator = CoordinatorMembers { proxies, ..coordinator.clone() };
        self.record.active = Some(ActiveGeneration { coordinator, members: recruits.members() });
        // What the lost controllers had begun is over now: every process is told of a newer generation.
        self.record.forced_after = None;
        let sequence = self.persist(effects);
        self.step = Step::Activating { sequence };
        self.publish(effects);
    }

    /// Ends the present attempt. The next one, with a generation of its own, follows after a while.
    fn give_up(&mut self, reason: &str, now: Instant, effects: &mut Vec<Effect>) {
        mark(Mark::RecoveryAbandoned);
        tracing::warn!(generation = %self.record.generation, %reason, "recovery failed");
        let doubled = RETRY_MIN * 2u32.saturating_pow(self.attempt.failed.min(10));
        self.attempt.failed += 1;
        let not_before = now + doubled.min(self.settings.failure_timeout);
        self.wait(format!("the last attempt failed: {reason}"), Some(not_before), effects);
    }

    pub(super) fn wait(
        &mut self,
        reason: String,
        not_before: Option<Instant>,
        effects: &mut Vec<Effect>,
    ) {
        self.step = Step::Waiting { reason, not_before };
        self.publish(effects);
    }
}

/// Leaves out logs that do not have what is known to be on every log of the set: their disks are not the ones on which
/// they acknowledged it, but older ones. Counting them in would end the generation before commits that were
/// acknowledged (I-12). Each answer can show another one to be such.
fn leave_out_forgetful(
    old: &LogSet,
    answers: &mut BTreeMap<usize, LockReply>,
    failed: &mut BTreeMap<usize, String>,
    known_committed_version: Version,
) {
    let known = answers.values().map(|reply| reply.known_committed_version).max();
    let known = known.unwrap_or_default().max(known_committed_version).max(old.recovery_version);
    answers.retain(|index, reply| {
        let has_all = reply.durable_version >= known;
        if !has_all {
            let detail = format!(
                "its disk is an old one: it has versions up to {}, and has acknowledged {known}",
                reply.durable_version
            );
            let log = old.logs.get(*index).map(|log| &log.endpoint);
            tracing::error!(?log, %detail, "a log is left out of a recovery");
            failed.insert(*index, detail);
        }
        has_all
    });
}

/// Whether a recovery may go on with these locks: every copy group has one.
fn locks_suffice(old: &LogSet, answers: &BTreeMap<usize, LockReply>) -> bool {
    let (groups, locked) = (old.copy_groups(), |index: usize| answers.contains_key(&index));
    if planted(Plant::LocksByMembers) {
        return answers.len() > groups.count() - groups.copies();
    }
    if planted(Plant::TooFewLocks) {
        let missed = |group: &usize| !groups.members(*group).any(locked);
        return !answers.is_empty() && (0..groups.count()).filter(missed).count() <= 1;
    }
    groups.has_member_of_each(locked)
}

fn why_locks_do_not_suffice(
    old: &LogSet,
    answers: &BTreeMap<usize, LockReply>,
    failed: &BTreeMap<usize, String>,
) -> String {
    let groups = old.copy_groups();
    let group = groups.without_member(|index| answers.contains_key(&index)).unwrap_or_default();
    let logs = groups.members(group).map(|index| old.logs[index].endpoint.address.to_string());
    let logs: Vec<String> = logs.collect();
    let which = if logs.len() == 1 { "the log at" } else { "one of the logs at" };
    format!(
        "locked {} of the {} logs that hold the newest commits; {which} {} is needed, too, because the same is on no \
         other: {:?}",
        answers.len(),
        old.logs.len(),
        logs.join(" and "),
        failed.values().collect::<Vec<_>>()
    )
}

/// What the answers of the locks say together.
fn ground(
    old: &LogSet,
    answers: &BTreeMap<usize, LockReply>,
    failed: &BTreeMap<usize, String>,
    shards: &ShardMap,
) -> Ground {
    let durable = answers.values().map(|reply| reply.durable_version);
    if durable.clone().min() != durable.clone().max() {
        mark(Mark::UnequalLocks);
    }
    let end = if planted(Plant::RecoverToMaximum) { durable.max() } else { durable.min() };
    let recovery_version = end.unwrap_or_default().max(old.recovery_version);
    let known = answers.values().map(|reply| reply.known_committed_version);
    let begin_version = known.max().unwrap_or_default().max(old.begin_version);
    assert!(
        begin_version <= recovery_version,
        "version {begin_version} was committed, but only {recovery_version} is on every log (I-5)"
    );
    // Every log of the set has all changes of the map that it has made durable, so any answer will do.
    let mut shards = shards.clone();
    let metadata = answers.values().next().map(|reply| &reply.metadata[..]).unwrap_or_default();
    let mut shards_version = None;
    for (version, message) in metadata.iter().filter(|(version, _)| *version <= recovery_version) {
        apply_metadata(&mut shards, message.clone());
        shards_version = Some(*version);
    }
    // Those that have not answered yet, too: with two logs one answer is enough, and the other one may be the only one that a
    // recruit reaches. They have been sent the lock, and a log gives no copies before it has it, nor any that end after what it
    // has itself, so that one with an old disk gives none.
    let logs =
        (0u32..).zip(&old.logs).filter(|(index, _)| !failed.contains_key(&(*index as usize)));
    let sources = Sources {
        logs: logs.map(|(index, log)| (index, log.endpoint.clone())).collect(),
        count: old.logs.len() as u32,
        replication: old.replication,
    };
    Ground { recovery_version, begin_version, sources, shards, shards_version }
}
