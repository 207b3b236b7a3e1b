//! Which processes there are, which of them are alive, and whom others accuse of silence.
//!
//! ```text
//!   heard       a heartbeat came less than the failure timeout ago
//!   lost        its connection broke and could not be made again; the next heartbeat clears it
//!   troubled    it says itself that it is of no use: its disk has failed
//!   accused     a proxy waited for it in vain; it is recruited only if nobody else can be
//! ```
//!
//! One slow heartbeat does not matter: they come ten times in a failure timeout.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ferrisdb_core::simulation::{Mark, mark};
use ferrisdb_core::{
    Generation, ProcessId,
    id::Address,
    runtime::Instant,
    service::controller::{Heartbeat, ProcessClass, ProcessStatus},
};

/// How many failure timeouts an accusation counts.
const ACCUSATION_TIMEOUTS: u32 = 10;
/// After how many failure timeouts a dead process that keeps nothing is not shown any more.
const FORGET_TIMEOUTS: u32 = 300;

/// Every process that has sent a heartbeat.
#[derive(Debug)]
pub struct Registry {
    processes: BTreeMap<ProcessId, Process>,
    /// Processes whose connection broke, by incarnation, and of which nothing was heard since.
    lost: BTreeSet<(ProcessId, u64)>,
    /// Who was accused by whom, and when.
    accusations: BTreeMap<(Address, Address), Instant>,
    failure_timeout: Duration,
    /// Nobody has failed before this: after a change of leaders, everybody gets the time to be heard.
    began: Instant,
    /// When this controller looked last.
    looked: Instant,
}

#[derive(Debug)]
struct Process {
    heartbeat: Heartbeat,
    heard: Instant,
    /// When it was heard last without saying that it is in trouble.
    well: Instant,
}

impl Process {
    fn failure(&self, now: Instant, failure_timeout: Duration) -> Option<String> {
        let silent = now.saturating_duration_since(self.heard);
        if silent >= failure_timeout {
            Some(format!("silent for {:.1} s", silent.as_secs_f64()))
        } else {
            self.heartbeat.trouble.clone().inspect(|_| mark(Mark::TroubleReported))
        }
    }
}

impl Registry {
    /// An empty registry.
    pub fn new(failure_timeout: Duration, now: Instant) -> Self {
        Registry {
            processes: BTreeMap::new(),
            lost: BTreeSet::new(),
            accusations: BTreeMap::new(),
            failure_timeout,
            began: now,
            looked: now,
        }
    }

    /// This controller looks again, as it does many times in a failure timeout.
    ///
    /// If it has not for long, it was the one that stood still, or that its clock has jumped: it does not count that
    /// time as anybody's silence, and certainly replaces nobody's data because of it.
    pub fn look(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.looked);
        self.looked = now;
        if gap < self.failure_timeout / 2 {
            return;
        }
        tracing::warn!(gap_ms = gap.as_millis(), "this controller has stood still");
        mark(Mark::ControllerStoodStill);
        self.began += gap;
        for process in self.processes.values_mut() {
            process.heard += gap;
            process.well += gap;
        }
    }

    /// Since when heartbeats are taken.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// How long a process may be silent.
    pub fn failure_timeout(&self) -> Duration {
        self.failure_timeout
    }

    /// A process lives.
    pub fn heard(&mut self, heartbeat: Heartbeat, now: Instant) {
        for accused in &heartbeat.accused {
            self.accuse(&heartbeat.worker.address, accused, now);
        }
        let id = heartbeat.process;
        self.lost.retain(|(process, _)| *process != id);
        let was_well = self.processes.get(&id).map(|process| process.well);
        let well = was_well.filter(|_| heartbeat.trouble.is_some()).unwrap_or(now);
        if heartbeat.class == ProcessClass::Coordinator {
            // It keeps no data, so it is somebody new at each start: this is the one from before.
            let at = &heartbeat.worker.address;
            self.processes.retain(|_, process| {
                let known = &process.heartbeat;
                known.process == id
                    || known.class != ProcessClass::Coordinator
                    || known.worker.address != *at
            });
        }
        self.processes.insert(id, Process { heartbeat, heard: now, well });
    }

    /// Somebody waited for another in vain.
    pub fn accuse(&mut self, accuser: &Address, accused: &Address, now: Instant) {
        mark(Mark::Accused);
        self.accusations.insert((accuser.clone(), accused.clone()), now);
    }

    /// The connection to a process broke, and a new one cannot be made.
    pub fn lost(&mut self, process: ProcessId, incarnation: u64) {
        self.lost.insert((process, incarnation));
    }

    fn failure_of(&self, process: &Process, now: Instant) -> Option<String> {
        let is_lost =
            |p: &Process| self.lost.contains(&(p.heartbeat.process, p.heartbeat.incarnation));
        if is_lost(process) {
            return Some("its connection broke and cannot be made again".to_owned());
        }
        process.failure(now, self.failure_timeout)
    }

    /// The last heartbeat of a process that is alive and well.
    pub fn alive(&self, process: ProcessId, now: Instant) -> Option<&Heartbeat> {
        let process = self.processes.get(&process)?;
        self.failure_of(process, now).is_none().then_some(&process.heartbeat)
    }

    /// The last heartbeat of a process, alive or not.
    pub fn last(&self, process: ProcessId) -> Option<&Heartbeat> {
        self.processes.get(&process).map(|process| &process.heartbeat)
    }

    /// Since when a process is not alive, as far as this controller can know; `None` if it is.
    pub fn dead_for(&self, process: ProcessId, now: Instant) -> Option<Duration> {
        let well = match self.processes.get(&process) {
            Some(known) if self.failure_of(known, now).is_none() => return None,
            Some(known) => known.well,
            None => self.began,
        };
        Some(now.saturating_duration_since(well))
    }

    /// The living processes of a class, in the order of their identities.
    pub fn alive_of(&self, class: ProcessClass, now: Instant) -> impl Iterator<Item = &Heartbeat> {
        let alive = self.processes.keys().filter_map(move |&process| self.alive(process, now));
        alive.filter(move |heartbeat| heartbeat.class == class)
    }

    /// Whether somebody waited in vain for the process at an address not long ago.
    ///
    /// Who accuses several others is taken for the one that is cut off, and counts as accused itself.
    pub fn is_accused(&self, address: &Address, now: Instant) -> bool {
        let limit = self.failure_timeout * ACCUSATION_TIMEOUTS;
        let recent = || {
            let recent = move |at: &Instant| now.saturating_duration_since(*at) < limit;
            self.accusations.iter().filter(move |(_, at)| recent(at)).map(|(pair, _)| pair)
        };
        let accuses_several =
            |accuser: &Address| recent().filter(|(by, _)| by == accuser).count() >= 2;
        accuses_several(address)
            || recent().any(|(by, accused)| accused == address && !accuses_several(by))
    }

    /// Why a member of a generation counts as failed, if it does: silent, lost, in trouble, restarted, or no longer
    /// hosting it.
    ///
    /// A heartbeat that came soon after the generation was activated may have been written before its
    /// sender was recruited: what it says of hosting counts only later.
    pub fn failure(
        &self,
        (process, incarnation): (ProcessId, u64),
        generation: Generation,
        active_since: Instant,
        now: Instant,
    ) -> Option<String> {
        if self.lost.contains(&(process, incarnation)) {
            return Some("its connection broke and cannot be made again".to_owned());
        }
        let Some(process) = self.processes.get(&process) else {
            // Never heard since this controller leads. It had no heartbeat on the way when that began, as others have
            // when they fall silent, so it gets less time.
            let waited = now.saturating_duration_since(self.began);
            return (waited >= self.failure_timeout * 3 / 4).then(|| "not heard from".to_owned());
        };
        if let Some(failure) = self.failure_of(process, now) {
            return Some(failure);
        }
        if process.heartbeat.incarnation != incarnation {
            return Some("restarted".to_owned());
        }
        let says_so = process.heard > active_since + self.failure_timeout / 2;
        (says_so && !process.heartbeat.hosted_generations.contains(&generation))
            .then(|| "has given up its part in the generation".to_owned())
    }

    /// All processes, for status.
    pub fn statuses(&self, now: Instant) -> Vec<ProcessStatus> {
        let status = |process: &Process| {
            let silent = now.saturating_duration_since(process.heard);
            let failure = self.failure_of(process, now);
            ProcessStatus {
                heartbeat: process.heartbeat.clone(),
                silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
                alive: failure.is_none(),
                failure,
            }
        };
        self.processes.values().map(status).collect()
    }

    /// Forgets processes that keep nothing, and have been silent for long or given their address to another: a coordinator is
    /// new at each start, and a machine that was wiped comes back as somebody new.
    pub fn forget(&mut self, now: Instant, keep: impl Fn(&Heartbeat) -> bool) {
        let limit = self.failure_timeout * ACCUSATION_TIMEOUTS;
        self.accusations.retain(|_, at| now.saturating_duration_since(*at) < limit);
        let limit = self.failure_timeout * FORGET_TIMEOUTS;
        let place =
            |process: &Process| (process.heartbeat.class, process.heartbeat.worker.address.clone());
        let mut newest: BTreeMap<(ProcessClass, Address), Instant> = BTreeMap::new();
        for process in self.processes.values() {
            let heard = newest.entry(place(process)).or_insert(process.heard);
            *heard = process.heard.max(*heard);
        }
        let failure_timeout = self.failure_timeout;
        self.processes.retain(|_, process| {
            let silent = now.saturating_duration_since(process.heard);
            let has_successor = newest.get(&place(process)).is_some_and(|at| *at > process.heard);
            let is_replaced = has_successor && silent >= failure_timeout;
            (silent < limit && !is_replaced) || keep(&process.heartbeat)
        });
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{Endpoint, service::controller::Progress};

    use super::*;

    fn heartbeat(number: u128, accused: &[&str]) -> Heartbeat {
        Heartbeat {
            process: ProcessId(number),
            incarnation: 1,
            class: ProcessClass::Log,
            zone: "z".into(),
            worker: Endpoint::of_process(Address::new(format!("p{number}"))),
            hosted_generations: vec![],
            trouble: None,
            accused: accused.iter().map(|accused| Address::new(*accused)).collect(),
            progress: Progress::default(),
            storage: None,
        }
    }

    #[test]
    fn who_accuses_several_is_the_suspect() {
        let now = ferrisdb_core::runtime::now();
        let mut registry = Registry::new(Duration::from_secs(1), now);
        let accused = |registry: &Registry, number: u32, now| {
            registry.is_accused(&Address::new(format!("p{number}")), now)
        };
        registry.heard(heartbeat(1, &["p7"]), now);
        assert!(accused(&registry, 7, now) && !accused(&registry, 1, now));
        registry.heard(heartbeat(1, &["p8"]), now);
        assert!(accused(&registry, 1, now));
        assert!(!accused(&registry, 7, now) && !accused(&registry, 8, now));
        registry.heard(heartbeat(2, &["p7"]), now);
        assert!(accused(&registry, 7, now));
        let later = now + Duration::from_secs(20);
        assert!((1..9).all(|number| !accused(&registry, number, later)));
    }

    #[test]
    fn nobody_is_blamed_for_the_time_in_which_the_controller_stood_still() {
        let began = ferrisdb_core::runtime::now();
        let mut registry = Registry::new(Duration::from_secs(1), began);
        let after = |seconds: u64| began + Duration::from_secs(seconds);
        registry.heard(heartbeat(1, &[]), began);
        let mut trouble = Heartbeat { trouble: Some("disk".into()), ..heartbeat(2, &[]) };
        trouble.process = ProcessId(2);
        registry.heard(trouble, began);
        registry.look(after(3_600));
        assert_eq!(registry.dead_for(ProcessId(1), after(3_600)), None);
        assert_eq!(registry.dead_for(ProcessId(2), after(3_600)), Some(Duration::ZERO));
        assert_eq!(registry.dead_for(ProcessId(3), after(3_600)), Some(Duration::ZERO));
        // From then on it counts again.
        for tenths in 1..=10 {
            registry.look(after(3_600) + Duration::from_millis(100 * tenths));
        }
        let second = Some(Duration::from_secs(1));
        assert_eq!(registry.dead_for(ProcessId(1), after(3_601)), second);
    }

    #[test]
    fn a_wiped_machine_is_not_remembered_as_a_dead_one() {
        let began = ferrisdb_core::runtime::now();
        let mut registry = Registry::new(Duration::from_secs(1), began);
        let at = |number, address: &str| {
            let worker = Endpoint::of_process(Address::new(address));
            Heartbeat { worker, ..heartbeat(number, &[]) }
        };
        registry.heard(at(1, "a"), began);
        registry.heard(at(2, "b"), began);
        let later = began + Duration::from_millis(1_500);
        registry.heard(at(3, "a"), later);
        let known = |registry: &Registry| {
            let all = registry.statuses(later).into_iter();
            all.map(|status| status.heartbeat.process.0).collect::<Vec<_>>()
        };
        registry.forget(later, |heartbeat| heartbeat.process == ProcessId(1));
        assert_eq!(known(&registry), [1, 2, 3], "its data is missed");
        registry.forget(later, |_| false);
        assert_eq!(known(&registry), [2, 3], "nobody has taken the place of 2");
    }

    #[test]
    fn a_lost_process_lives_again_when_it_is_heard() {
        let now = ferrisdb_core::runtime::now();
        let mut registry = Registry::new(Duration::from_secs(1), now);
        registry.heard(heartbeat(1, &[]), now);
        registry.lost(ProcessId(1), 2);
        assert!(registry.alive(ProcessId(1), now).is_some(), "another incarnation was lost");
        registry.lost(ProcessId(1), 1);
        assert!(registry.alive(ProcessId(1), now).is_none());
        registry.heard(heartbeat(1, &[]), now);
        assert!(registry.alive(ProcessId(1), now).is_some());
        let trouble = Heartbeat { trouble: Some("disk".into()), ..heartbeat(1, &[]) };
        registry.heard(trouble, now);
        assert!(registry.alive(ProcessId(1), now).is_none());
    }
}
