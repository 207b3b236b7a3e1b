//! Which processes there are, and which of them are alive.

use std::{collections::BTreeMap, time::Duration};

use ferrisdb_core::{
    Generation, ProcessId,
    runtime::Instant,
    service::controller::{Heartbeat, ProcessClass, ProcessStatus},
};

/// Every process that has sent a heartbeat, with the last one and when it came.
#[derive(Debug)]
pub struct Registry {
    processes: BTreeMap<ProcessId, (Heartbeat, Instant)>,
    failure_timeout: Duration,
    /// Nobody has failed before this: after a restart, everybody gets the time to be heard.
    began: Instant,
}

impl Registry {
    /// An empty registry.
    pub fn new(failure_timeout: Duration, now: Instant) -> Self {
        Registry { processes: BTreeMap::new(), failure_timeout, began: now }
    }

    /// A process lives.
    pub fn heard(&mut self, heartbeat: Heartbeat, now: Instant) {
        self.processes.insert(heartbeat.process, (heartbeat, now));
    }

    /// The last heartbeat of a process that is alive.
    pub fn alive(&self, process: ProcessId, now: Instant) -> Option<&Heartbeat> {
        let (heartbeat, heard) = self.processes.get(&process)?;
        (now.saturating_duration_since(*heard) < self.failure_timeout).then_some(heartbeat)
    }

    /// The last heartbeat of a process, alive or not.
    pub fn last(&self, process: ProcessId) -> Option<&Heartbeat> {
        self.processes.get(&process).map(|(heartbeat, _)| heartbeat)
    }

    /// The living processes of a class, in the order of their identities.
    pub fn alive_of(&self, class: ProcessClass, now: Instant) -> impl Iterator<Item = &Heartbeat> {
        let alive = self.processes.keys().filter_map(move |&process| self.alive(process, now));
        alive.filter(move |heartbeat| heartbeat.class == class)
    }

    /// Whether a member of a generation has failed: silent, restarted, or no longer hosting it.
    ///
    /// A heartbeat that came soon after the generation was activated may have been written before its
    /// sender was recruited: what it says of hosting counts only later.
    pub fn has_failed(
        &self,
        (process, incarnation): (ProcessId, u64),
        generation: Generation,
        active_since: Instant,
        now: Instant,
    ) -> bool {
        match self.processes.get(&process) {
            // Never heard since this controller started: it gets the time that anybody else gets.
            None => now.saturating_duration_since(self.began) >= self.failure_timeout,
            Some((heartbeat, heard)) => {
                now.saturating_duration_since(*heard) >= self.failure_timeout
                    || heartbeat.incarnation != incarnation
                    || (*heard > active_since + self.failure_timeout
                        && !heartbeat.hosted_generations.contains(&generation))
            }
        }
    }

    /// All processes, for status.
    pub fn statuses(&self, now: Instant) -> Vec<ProcessStatus> {
        self.processes
            .values()
            .map(|(heartbeat, heard)| {
                let silent = now.saturating_duration_since(*heard);
                ProcessStatus {
                    heartbeat: heartbeat.clone(),
                    silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
                    alive: silent < self.failure_timeout,
                }
            })
            .collect()
    }
}
