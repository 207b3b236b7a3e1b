//! Asking processes whether they reach each other, before a generation counts on them.
//!
//! ```text
//!   chosen     c1 c3 l1 l3                        old logs l1 l2 l3
//!   asked      c1: l1 l3 c3?   c3: l1 l3 c1?      l1: l1 l2 l3?   l3: l1 l2 l3?
//!   answers    all                                l3: not l2, but without it every copy group has a member: proved
//! ```
//!
//! A generation that works is ended for a better one only after this proof. An attempt at a recovery begins with it only if
//! some process was seen not to reach another. What is found out is remembered by the registry, so the next choice leaves
//! one of the two out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{Endpoint, ProcessId, Result, id::Address, runtime::Instant};

use super::{
    cluster_record::Member,
    links::Suspicions,
    machine::{Controller, Effect},
    recovery::Step,
    recruitment::Recruits,
};

/// For how many failure timeouts a proof counts.
const PROVED_TIMEOUTS: u32 = 2;
/// For how many failure timeouts the contrary counts, if the same processes are chosen again.
const REFUTED_TIMEOUTS: u32 = 5;
/// After how many failure timeouts a generation with fewer logs than wanted is replaced, if there are more now.
const BETTER_TIMEOUTS: u32 = 5;
/// How long an answer may take, at least.
const ANSWER_MIN: Duration = Duration::from_secs(4);

/// What is known of the processes chosen last.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Counts the proofs of this reign, so that late answers are recognised.
    number: u64,
    subject: Option<Subject>,
}

#[derive(Debug)]
struct Subject {
    recruits: Recruits,
    /// Who was asked about whom, and has not answered.
    waiting: BTreeMap<ProcessId, Question>,
    /// Since when the answers are awaited, or all there.
    since: Instant,
    is_sound: bool,
}

#[derive(Debug)]
struct Question {
    asked: Member,
    is_log: bool,
}

/// Whether a generation could be made of the processes chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They have been asked.
    Pending,
    /// They reach each other.
    Proved,
    /// They do not.
    Refuted,
}

impl Controller {
    /// Why a generation that could be recruited now is better than the live one, which is healthy: it goes on until the
    /// processes for the better one have shown that they reach each other.
    pub(super) fn why_a_better_one(
        &mut self,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Option<String> {
        let active = self.record.active.as_ref()?;
        let set = self.record.log_sets.last()?;
        let configuration = &self.record.configuration;
        let is_excluded =
            |member: &Member| self.record.is_excluded(member.process, &member.worker.address);
        let members = &active.coordinator;
        let excluded = active.members.iter().find(|member| is_excluded(member));
        let asked_for = match excluded {
            Some(member) => Some(format!("{} is excluded", self.describe(member.process))),
            None if set.replication != configuration.redundancy.copies()
                || members.proxies.len() != configuration.proxies.max(1) as usize
                || members.resolvers.len() != configuration.resolvers.max(1) as usize
                || set.logs.len() > configuration.logs_wanted() as usize =>
            {
                Some("the configuration was changed".to_owned())
            }
            None => None,
        };
        let coordinators: BTreeSet<&Address> = std::iter::once(&members.sequencer)
            .chain(&members.proxies)
            .chain(members.resolvers.iter().map(|(_, resolver)| resolver))
            .map(|role| &role.address)
            .collect();
        let coordinators = coordinators.len();
        let is_short = set.logs.len() < configuration.logs_wanted() as usize
            || coordinators < configuration.roles_wanted();
        if asked_for.is_none() && !is_short {
            self.better_since = None;
            return None;
        }
        let Ok(recruits) = self.choose_recruits(now) else {
            self.better_since = None;
            return None;
        };
        if asked_for.is_some() {
            return asked_for.filter(|_| self.is_proved(&recruits, now, effects));
        }
        let gain = (recruits.logs.len(), recruits.coordinators());
        if gain.0 < set.logs.len() || gain <= (set.logs.len(), coordinators) {
            self.better_since = None;
            return None;
        }
        // A process that comes and goes does not cost a recovery each time.
        let since = *self.better_since.get_or_insert(now);
        let patience = self.settings.failure_timeout * BETTER_TIMEOUTS;
        let is_due = now.saturating_duration_since(since) >= patience;
        if !is_due || !self.is_proved(&recruits, now, effects) {
            return None;
        }
        self.better_since = None;
        let (logs, processes) = gain;
        Some(format!(
            "{logs} logs and {processes} coordinator processes can be used instead of {} and {coordinators}",
            self.record.log_sets.last()?.logs.len()
        ))
    }

    fn is_proved(&mut self, recruits: &Recruits, now: Instant, effects: &mut Vec<Effect>) -> bool {
        planted(Plant::UnprovedBetter) || self.verdict(recruits, now, effects) == Verdict::Proved
    }

    /// Whether these processes reach each other; asks them if that is not known.
    pub(super) fn verdict(
        &mut self,
        recruits: &Recruits,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let timeout = self.settings.failure_timeout;
        if let Some(subject) = self.proof.subject.as_ref().filter(|s| s.recruits == *recruits) {
            let age = now.saturating_duration_since(subject.since);
            match (subject.waiting.is_empty(), subject.is_sound) {
                (false, _) if age < timeout.max(ANSWER_MIN) => return Verdict::Pending,
                (true, true) if age < timeout * PROVED_TIMEOUTS => return Verdict::Proved,
                (true, false) if age < timeout * REFUTED_TIMEOUTS => return Verdict::Refuted,
                _ => {}
            }
        }
        self.ask(recruits, now, effects);
        Verdict::Pending
    }

    fn ask(&mut self, recruits: &Recruits, now: Instant, effects: &mut Vec<Effect>) {
        self.proof.number += 1;
        let number = self.proof.number;
        let members = recruits.members();
        let sources: Vec<Endpoint> =
            self.old_logs(now).into_iter().filter_map(|(_, worker)| worker).collect();
        let mut waiting = BTreeMap::new();
        for asked in &members {
            let is_log = recruits.logs.contains(asked);
            let mut workers: Vec<Endpoint> = match is_log {
                true => sources.clone(),
                false => members.iter().map(|member| member.worker.clone()).collect(),
            };
            workers.retain(|worker| *worker != asked.worker);
            effects.push(Effect::Prove { number, member: asked.clone(), workers });
            waiting.insert(asked.process, Question { asked: asked.clone(), is_log });
        }
        let recruits = recruits.clone();
        self.proof.subject = Some(Subject { recruits, waiting, since: now, is_sound: true });
    }

    /// The logs that hold the newest commits, by index, and the workers of those that live.
    fn old_logs(&self, now: Instant) -> Vec<(usize, Option<Endpoint>)> {
        let logs = self.record.log_sets.last().map(|set| &set.logs[..]).unwrap_or_default();
        let worker = |process| self.registry.alive(process, now).map(|last| last.worker.clone());
        logs.iter().enumerate().map(|(index, log)| (index, worker(log.process))).collect()
    }

    pub(super) fn on_proved(
        &mut self,
        number: u64,
        process: ProcessId,
        result: Result<Vec<Endpoint>>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if number != self.proof.number {
            return;
        }
        let Some(subject) = &mut self.proof.subject else { return };
        let Some(Question { asked, is_log }) = subject.waiting.remove(&process) else { return };
        let asked = asked.worker;
        let unreached: Vec<Address> = match result {
            // It is this controller that does not reach it.
            Err(_) => vec![asked.address.clone()],
            Ok(unreached) if is_log && self.can_copy_without(&asked, &unreached, now) => Vec::new(),
            Ok(unreached) => unreached.into_iter().map(|worker| worker.address).collect(),
        };
        for other in &unreached {
            tracing::info!(process = %asked.address, %other, "not reached");
            self.registry.accuse(&asked.address, other, now);
        }
        let Some(subject) = &mut self.proof.subject else { return };
        subject.is_sound &= unreached.is_empty();
        if subject.waiting.is_empty() {
            subject.since = now;
            mark(match (subject.is_sound, &self.step) {
                (true, Step::Active { .. }) => Mark::BetterProved,
                (false, Step::Active { .. }) => Mark::BetterRefuted,
                (true, _) => Mark::Proved,
                (false, _) => Mark::Refuted,
            });
            self.look(now, effects);
        }
    }

    /// Whether a new log gets all that it has to copy although it does not reach some of the old ones.
    fn can_copy_without(&self, asked: &Endpoint, unreached: &[Endpoint], now: Instant) -> bool {
        let Some(set) = self.record.log_sets.last() else { return true };
        let old = self.old_logs(now);
        let is_reached = |index: usize| {
            let worker = old.get(index).and_then(|(_, worker)| worker.as_ref());
            worker.is_some_and(|worker| worker == asked || !unreached.contains(worker))
        };
        set.copy_groups().has_member_of_each(is_reached)
    }

    /// Whether nothing that is suspected keeps a new log there from all that it has to copy. With a single copy there are logs that
    /// nobody else stands in for.
    pub(super) fn can_copy(&self, asked: &Endpoint, suspicions: &Suspicions, now: Instant) -> bool {
        let sources = self.old_logs(now).into_iter().filter_map(|(_, worker)| worker);
        let is_suspected = |source: &Endpoint| suspicions.has(&asked.address, &source.address);
        let unreached: Vec<Endpoint> = sources.filter(is_suspected).collect();
        unreached.is_empty() || self.can_copy_without(asked, &unreached, now)
    }

    /// What was said of one another by the processes that live, for status.
    pub(super) fn unreached(&self, now: Instant) -> Vec<(Address, Address)> {
        let is_alive = |address: &Address| {
            self.registry.living(now).any(|heartbeat| heartbeat.worker.address == *address)
        };
        let pairs = self.registry.suspicions(now).filter(|(by, of)| by != of);
        pairs.filter(|(by, of)| is_alive(by) && is_alive(of)).cloned().collect()
    }
}
