//! Which processes there are, which of them are alive, and whom others accuse of silence.
//!
//! ```text
//!   heard       a heartbeat came less than the failure timeout ago
//!   lost        its connection broke and could not be made again; the next heartbeat clears it
//!   troubled    it says itself that it is of no use: its disk has failed
//!   accused     somebody waited for it in vain; the two are not recruited together if others can be
//! ```
//!
//! One slow heartbeat does not matter: they come ten times in a failure timeout.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Generation, ProcessId,
    id::Address,
    runtime::Instant,
    service::controller::{Heartbeat, ProcessClass, ProcessStatus},
};

/// How many failure timeouts an accusation counts.
const ACCUSATION_TIMEOUTS: u32 = 10;
/// For how many failure timeouts a process that says that it is well again is a last resort; twice as many each time.
const TROUBLE_TIMEOUTS: u32 = 10;
/// The longest such time.
const TROUBLE_MAX: Duration = Duration::from_secs(600);
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
    /// Accusations made since then do not grow old.
    accusations_kept_since: Option<Instant>,
    /// Who was in trouble, such as with a full disk.
    troubles: BTreeMap<ProcessId, Troubles>,
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

/// How often a process was in trouble, and until when.
#[derive(Clone, Copy, Debug)]
struct Troubles {
    count: u32,
    until: Instant,
}

impl Troubles {
    /// How long the process is a last resort after it.
    fn lasting(self, failure_timeout: Duration) -> Duration {
        let doubled = 2u32.saturating_pow(self.count.saturating_sub(1).min(16));
        (failure_timeout * TROUBLE_TIMEOUTS).saturating_mul(doubled).min(TROUBLE_MAX)
    }
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
            accusations_kept_since: None,
            troubles: BTreeMap::new(),
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
        self.note_trouble(&heartbeat, now);
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

    /// A disk that is full, freed and full again does not cost a recovery each time.
    fn note_trouble(&mut self, heartbeat: &Heartbeat, now: Instant) {
        if heartbeat.trouble.is_none() {
            return;
        }
        let known = self.processes.get(&heartbeat.process);
        let is_new = known.is_none_or(|known| known.heartbeat.trouble.is_none());
        match self.troubles.get_mut(&heartbeat.process) {
            Some(troubles) if !is_new => troubles.until = now,
            _ => self.count_trouble(heartbeat.process, now),
        }
    }

    /// A process is in trouble once more.
    pub fn count_trouble(&mut self, process: ProcessId, now: Instant) {
        let troubles = self.troubles.entry(process);
        let troubles = troubles.or_insert(Troubles { count: 0, until: now });
        let lasting = troubles.lasting(self.failure_timeout);
        let is_long_ago = now.saturating_duration_since(troubles.until) > lasting * 4;
        troubles.count = if is_long_ago { 1 } else { troubles.count.saturating_add(1) };
        troubles.until = now;
    }

    /// Whether a process was in trouble not long ago: it is recruited only where there is nobody else.
    pub fn was_in_trouble(&self, process: ProcessId, now: Instant) -> bool {
        self.troubles.get(&process).is_some_and(|troubles| {
            now.saturating_duration_since(troubles.until) < troubles.lasting(self.failure_timeout)
        })
    }

    /// Accusations made since then do not grow old any more, or all do again.
    pub fn keep_accusations(&mut self, since: Option<Instant>) {
        self.accusations_kept_since = since;
    }

    fn counts(&self, accused_at: Instant, now: Instant) -> bool {
        let limit = self.failure_timeout * ACCUSATION_TIMEOUTS;
        now.saturating_duration_since(accused_at) < limit
            || self.accusations_kept_since.is_some_and(|since| accused_at >= since)
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

    /// The living processes, in the order of their identities.
    pub fn living(&self, now: Instant) -> impl Iterator<Item = &Heartbeat> {
        self.processes.keys().filter_map(move |&process| self.alive(process, now))
    }

    /// The living processes of a class, in the order of their identities.
    pub fn alive_of(&self, class: ProcessClass, now: Instant) -> impl Iterator<Item = &Heartbeat> {
        self.living(now).filter(move |heartbeat| heartbeat.class == class)
    }

    /// Who waited in vain for whom, not long ago.
    pub fn suspicions(&self, now: Instant) -> impl Iterator<Item = &(Address, Address)> {
        let recent = self.accusations.iter().filter(move |(_, at)| self.counts(**at, now));
        recent.filter(|_| !planted(Plant::ForgetUnreachable)).map(|(pair, _)| pair)
    }

    /// Whether the process at an address did not answer this controller, or somebody of whom `counts` holds, not long ago.
    pub fn is_accused(
        &self,
        address: &Address,
        counts: impl Fn(&Address) -> bool,
        now: Instant,
    ) -> bool {
        let mut accusers = self.suspicions(now).filter(|(_, accused)| accused == address);
        accusers.any(|(by, _)| by == address || counts(by))
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
        let mut accusations = std::mem::take(&mut self.accusations);
        accusations.retain(|_, at| self.counts(*at, now));
        self.accusations = accusations;
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
        self.troubles.retain(|process, _| self.processes.contains_key(process));
        self.lost.retain(|(process, _)| self.processes.contains_key(process));
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
            kept_generations: vec![],
            trouble: None,
            accused: accused.iter().map(|accused| Address::new(*accused)).collect(),
            progress: Progress::default(),
            storage: None,
        }
    }

    #[test]
    fn who_is_in_trouble_again_and_again_is_a_last_resort_for_longer() {
        let began = ferrisdb_core::runtime::now();
        let mut registry = Registry::new(Duration::from_secs(1), began);
        let after = |seconds: u64| began + Duration::from_secs(seconds);
        let mut say = |trouble: bool, seconds: u64, waits: u64| {
            let trouble = trouble.then(|| "its disk is full".to_owned());
            registry.heard(Heartbeat { trouble, ..heartbeat(1, &[]) }, after(seconds));
            let is_last = |at| registry.was_in_trouble(ProcessId(1), after(at));
            assert!(waits == 0 || is_last(seconds + waits - 1) && !is_last(seconds + waits));
        };
        say(false, 0, 0);
        say(true, 1, 10);
        say(true, 2, 10);
        say(false, 3, 0);
        say(true, 20, 20);
        say(false, 21, 0);
        say(true, 60, 40);
        say(false, 61, 0);
        say(true, 3_000, 10);
    }

    #[test]
    fn accusations_are_remembered_for_a_while() {
        let now = ferrisdb_core::runtime::now();
        let mut registry = Registry::new(Duration::from_secs(1), now);
        let address = |number: u32| Address::new(format!("p{number}"));
        registry.heard(heartbeat(1, &["p7"]), now);
        registry.accuse(&address(3), &address(3), now);
        let later = now + Duration::from_secs(9);
        let pairs = [(address(1), address(7)), (address(3), address(3))];
        assert!(registry.suspicions(later).eq(&pairs));
        assert!(registry.is_accused(&address(3), |_| false, later), "it did not answer us");
        assert!(!registry.is_accused(&address(7), |_| false, later));
        assert!(registry.is_accused(&address(7), |by| *by == address(1), later));
        assert_eq!(registry.suspicions(now + Duration::from_secs(10)).count(), 0);

        // While a recovery is not over, what was found out since it became necessary counts.
        registry.keep_accusations(Some(later));
        registry.accuse(&address(4), &address(5), later);
        let much_later = later + Duration::from_secs(100);
        registry.forget(much_later, |_| true);
        assert!(registry.suspicions(much_later).eq(&[(address(4), address(5))]));
        registry.keep_accusations(None);
        assert_eq!(registry.suspicions(much_later).count(), 0);
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
        registry.lost(ProcessId(1), 1);
        registry.lost(ProcessId(9), 1);
        registry.forget(now, |_| false);
        assert_eq!(Vec::from_iter(&registry.lost), [&(ProcessId(1), 1)], "9 is not known");
    }
}
