//! What a storage server decides: where its next versions come from, which of them stay, what goes to disk.
//!
//! ```text
//!   log sets    generation 3: (0, 50]     generation 4: (40, ..  with (40, 50] copied from generation 3
//!   applied     10 .. 57, from generation 3
//!
//!   The state of the cluster says that generation 3 ended at 50. The versions 51 to 57 were never
//!   acknowledged: they are rolled back (I-10), and the next peek, after 50, goes to generation 4.
//!   Had the server been at 45, it would have gone on with either of them.
//!
//!   versions    durable <= known committed, applied          (I-9)
//!               applied - durable is about the window, or less when the window needs too much memory
//! ```
//!
//! Versions that were applied from generation 4's copy are no reason to go back when generation 3 ends: they are
//! up to 50, whoever they came from. So it is enough to remember which generation the newest version came from,
//! and to go back to where that one has ended.
//!
//! The data of a server belongs to its tag. If the cluster has given the tag up while the server was away, its data
//! lives elsewhere, and the server [begins anew](Changes::begins_anew) with nothing and another tag.
//!
//! The shell holds the window and the engine and does what is returned here, under one lock with the call:
//! between a decision and its effect on the window no other decision is taken.
//!
//! Knows nothing of reads, of tasks or of the disk. Start with [`Machine::next_pull`], then
//! [`Machine::on_peeked`].

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Generation, ProcessId, Result, Stage, Tag, Version,
    service::{
        controller::{ClusterState, LogSet},
        log::{PeekReply, PeekRequest},
    },
};

/// How long to wait after the first failure of a log; doubles with each further one up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How much longer than its own wait a log may take to answer a peek. Doubles with each one that was too late, up to the
/// maximum: a version can be as large as a transaction, and would never come over a slow line that is given up each time.
const PEEK_GRACE_MIN: Duration = Duration::from_secs(1);
const PEEK_GRACE_MAX: Duration = Duration::from_secs(32);
/// How long to wait before asking again a log that answered at once that it has nothing.
const NOTHING_PAUSE: Duration = Duration::from_millis(1);
/// How long to wait while the window is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// While no key was written the engine's version follows at every such many timers, not at each.
const IDLE_TIMERS: u32 = 20;

/// The bounds that decisions keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineSettings {
    /// How far the engine stays behind what is applied, so that reads find their versions.
    pub window_versions: u64,
    /// Bytes of messages after which the engine is written before its time, and of the window that are written at once.
    pub flush_bytes: usize,
    /// Memory of the window at which it gets shorter, and if that is not possible, stops growing.
    pub window_bytes_max: usize,
    /// About how many bytes one peek asks for.
    pub peek_bytes: u32,
}

/// What is written to the engine next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextFlush {
    /// The version that the engine is taken to.
    pub version: Version,
    /// Whether more is due at once.
    pub is_cut: bool,
}

/// What the puller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Asks a log.
    Peek(Peek),
    /// Waits for a new state of the cluster, or until the time is over if there is one.
    Wait(Option<Duration>),
}

/// A question to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Of which log set.
    pub generation: Generation,
    /// Which log.
    pub endpoint: Endpoint,
    /// The question.
    pub request: PeekRequest,
}

/// Versions to apply to the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Encoded mutations, by ascending version.
    pub messages: Vec<(Version, Bytes)>,
    /// The window is complete up to here, then.
    pub through_version: Version,
}

/// A log to be told that it may forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pop {
    /// Of which log set.
    pub generation: Generation,
    /// The log's process.
    pub process: ProcessId,
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// Whose messages.
    pub tag: Tag,
    /// Up to where.
    pub through_version: Version,
}

/// What a new state of the cluster means for the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The window goes back to this version.
    pub rollback_after: Option<Version>,
    /// The logs are others than before: a peek under way may be in vain.
    pub sources_changed: bool,
    /// All data is to be forgotten. Then comes another machine, which is told the same state.
    pub begins_anew: Option<Beginning>,
}

/// What a server begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing: it waits for a tag.
    Waiting,
    /// Nothing but a tag, and the version up to which nothing was sent to it.
    Tagged(Tag, Version),
}

/// The decisions of one storage server.
#[derive(Debug)]
pub struct Machine {
    process: ProcessId,
    settings: MachineSettings,
    tag: Option<Tag>,
    /// Oldest first.
    log_sets: Vec<LogSet>,
    /// The generation that the newest applied versions came from, unless they came from the engine.
    source: Option<Generation>,
    applied_version: Version,
    known_committed_version: Version,
    durable_version: Version,
    /// The version that the engine is being written to.
    flushing_version: Option<Version>,
    /// The engine may be here although the flush to this version was refused for want of space.
    refused_version: Version,
    /// A full window gives up its versions up to here.
    given_up_version: Version,
    /// Messages applied since the last flush began.
    unflushed_bytes: usize,
    /// Timers that passed without a flush because nothing was written.
    idle_timers: u32,
    /// Which of the logs that have the next version is asked; counts on at every failure.
    choice: usize,
    failures: u32,
    peek_grace: Duration,
    pause: Option<Duration>,
    /// Up to where logs have confirmed that they were told.
    popped: BTreeMap<(Generation, ProcessId), Version>,
}

impl Machine {
    /// A server that has just opened its engine (I-11), with the data of `tag` up to a version.
    pub fn new(
        process: ProcessId,
        tag: Option<Tag>,
        durable_version: Version,
        settings: MachineSettings,
    ) -> Machine {
        Machine {
            process,
            settings,
            tag,
            log_sets: Vec::new(),
            source: None,
            applied_version: durable_version,
            known_committed_version: durable_version,
            durable_version,
            flushing_version: None,
            refused_version: durable_version,
            given_up_version: durable_version,
            unflushed_bytes: 0,
            idle_timers: 0,
            choice: 0,
            failures: 0,
            peek_grace: PEEK_GRACE_MIN,
            pause: None,
            popped: BTreeMap::new(),
        }
    }

    /// The server's tag, once the cluster has given it one.
    pub fn tag(&self) -> Option<Tag> {
        self.tag
    }

    /// Everything up to here is in the window or in the engine.
    pub fn applied_version(&self) -> Version {
        self.applied_version
    }

    /// Learns a newer state of the cluster.
    ///
    /// # Errors
    ///
    /// If the server cannot go on: see [`Machine::next_pull`].
    pub fn on_cluster_state(&mut self, cluster: &ClusterState) -> Result<Changes> {
        let begins_anew = self.begins_anew(cluster);
        if begins_anew.is_some() {
            mark(Mark::BeganAnew);
            return Ok(Changes { begins_anew, ..Changes::default() });
        }
        let sources_changed = self.log_sets != cluster.log_sets;
        if sources_changed {
            self.log_sets.clone_from(&cluster.log_sets);
            self.pause = None;
            self.failures = 0;
            self.peek_grace = PEEK_GRACE_MIN;
            let listed = |generation| self.log_sets.iter().any(|set| set.generation == generation);
            self.popped.retain(|(generation, _), _| listed(*generation));
        }
        let rollback_after = self.rollback();
        self.check_place()?;
        self.check_invariants();
        Ok(Changes { rollback_after, sources_changed, begins_anew: None })
    }

    /// Whether the server's data, if it has any, is not what the cluster counts on.
    fn begins_anew(&self, cluster: &ClusterState) -> Option<Beginning> {
        let of_process = || cluster.storage_servers.iter().filter(|s| s.process == self.process);
        let given =
            of_process().next().map(|given| Beginning::Tagged(given.tag, given.begin_version));
        let Some(tag) = self.tag else { return given };
        if of_process().any(|server| server.tag == tag) {
            return None;
        }
        // A state from before the tag was given knows nothing of it, and nothing may be forgotten for that.
        let is_known = tag < cluster.next_tag;
        let is_removed = || cluster.is_removed(tag).then_some(Beginning::Waiting);
        is_known.then(|| given.or_else(is_removed)).flatten()
    }

    /// Goes back if the generation that the newest versions came from ended before them (I-10).
    fn rollback(&mut self) -> Option<Version> {
        let end = self.end_of_generation(self.source?)?;
        if end >= self.applied_version {
            return None;
        }
        mark(Mark::RolledBack);
        if planted(Plant::SkipRollback) {
            self.source = None;
            return None;
        }
        let on_disk = self.flushing_version.unwrap_or(self.durable_version);
        assert!(
            end >= on_disk,
            "generation {:?} ended at {end}, but the engine is at {on_disk} (I-9, I-12)",
            self.source
        );
        let committed = self.known_committed_version;
        assert!(
            end >= committed,
            "{committed} was committed, its generation ended at {end} (I-12)"
        );
        self.applied_version = end;
        self.source = None;
        Some(end)
    }

    /// The last version of a generation, if that is known.
    fn end_of_generation(&self, generation: Generation) -> Option<Version> {
        match self.log_sets.iter().position(|set| set.generation == generation) {
            Some(index) => self.end_of(index),
            // The set was drained and is listed no more: its successor says where it ended. That is the next
            // one listed, or the ones between were empty: none is drained before this server has what is in it.
            None => self
                .log_sets
                .iter()
                .find(|set| set.generation > generation)
                .map(|set| set.recovery_version),
        }
    }

    fn end_of(&self, index: usize) -> Option<Version> {
        let next = || self.log_sets.get(index + 1).map(|next| next.recovery_version);
        self.log_sets[index].end_version.or_else(next)
    }

    /// Whether a log set has the version after the applied one.
    fn is_here(&self, index: usize) -> bool {
        self.log_sets[index].begin_version <= self.applied_version && self.is_ahead(index)
    }

    /// Whether a log set has versions after the applied one.
    fn is_ahead(&self, index: usize) -> bool {
        self.end_of(index).is_none_or(|end| end > self.applied_version)
    }

    /// Checks that some log set goes on where the server is.
    fn check_place(&self) -> Result<()> {
        let sets = || 0..self.log_sets.len();
        if self.tag.is_none() || sets().any(|index| self.is_here(index)) {
            return Ok(());
        }
        match sets().find(|&index| self.is_ahead(index)) {
            Some(index) => Err(self.lost_place(self.log_sets[index].begin_version)),
            None => Ok(()),
        }
    }

    fn lost_place(&self, oldest: Version) -> Error {
        let detail = format!(
            "the server is at version {}, but the logs have only what is after {oldest}",
            self.applied_version
        );
        Error::new(ErrorCode::Corrupt, Stage::Apply, detail)
    }

    /// Where to get the next versions from. A log may wait for as long as `peek_wait` for something new.
    pub fn next_pull(&mut self, window_bytes: usize, peek_wait: Duration) -> Pull {
        if let Some(pause) = self.pause.take() {
            return Pull::Wait(Some(pause));
        }
        let Some(tag) = self.tag else { return Pull::Wait(None) };
        let is_full = self.is_full(window_bytes);
        if is_full {
            mark(Mark::WindowFull);
        }
        if is_full && (self.flushing_version.is_some() || self.flush_limit(true).is_some()) {
            return Pull::Wait(Some(FULL_PAUSE));
        }
        let (settings, after_version) = (self.settings, self.applied_version);
        let sources = self.sources(tag);
        if sources.is_empty() {
            return Pull::Wait(None);
        }
        let (generation, endpoint) = sources[self.choice % sources.len()].clone();
        // A full window takes nothing, but has to learn what was committed, or it stays full for ever.
        let (bytes_max, wait) =
            if is_full { (1, Duration::ZERO) } else { (settings.peek_bytes, peek_wait) };
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = PeekRequest { tag, after_version, bytes_max, wait_ms };
        Pull::Peek(Peek { generation, endpoint, request })
    }

    /// How much longer than it waits a log may take to answer.
    pub fn peek_grace(&self) -> Duration {
        self.peek_grace
    }

    /// The logs that have the version after the applied one, the oldest set's first.
    fn sources(&self, tag: Tag) -> Vec<(Generation, Endpoint)> {
        let here = self.log_sets.iter().enumerate().filter(|(index, _)| self.is_here(*index));
        here.flat_map(|(_, set)| set.logs_of(tag).map(|log| (set.generation, log.endpoint.clone())))
            .collect()
    }

    /// A log has answered. Returns what to apply, if there is anything.
    ///
    /// # Errors
    ///
    /// If the logs have forgotten what the server needs next: it cannot go on.
    pub fn on_peeked(
        &mut self,
        peek: &Peek,
        reply: PeekReply,
        window_bytes: usize,
    ) -> Result<Option<Advance>> {
        if self.tag != Some(peek.request.tag) {
            // Asked before the server began anew.
            return Ok(None);
        }
        // What was committed once stays so, whoever says it.
        self.known_committed_version =
            self.known_committed_version.max(reply.known_committed_version);
        let set = self.log_sets.iter().position(|set| set.generation == peek.generation);
        let Some(set) = set.filter(|_| peek.request.after_version == self.applied_version) else {
            // Asked before a rollback or before the set was drained.
            return Ok(None);
        };
        if reply.popped_version > self.applied_version {
            return Err(self.lost_place(reply.popped_version));
        }
        if let Err(error) = check_reply(&peek.request, &reply) {
            self.on_peek_failed(peek, &error);
            return Ok(None);
        }
        if self.is_full(window_bytes) {
            self.pause = Some(FULL_PAUSE);
            return Ok(None);
        }
        let end = self.end_of(set).unwrap_or(Version::MAX);
        let through_version = reply.through_version.min(end);
        if through_version <= self.applied_version {
            // A log of an ended set has all that the set ever gets, locked or not: one that came back with an old disk
            // may have forgotten even the lock.
            self.on_nothing_new(reply.locked || self.end_of(set).is_some());
            return Ok(None);
        }
        let mut messages = reply.messages;
        // The tail past the end of its generation was never acknowledged (I-10).
        messages.retain(|(version, _)| *version <= through_version);
        self.failures = 0;
        self.peek_grace = PEEK_GRACE_MIN;
        self.source = Some(peek.generation);
        self.applied_version = through_version;
        self.unflushed_bytes += messages.iter().map(|(_, message)| message.len()).sum::<usize>();
        self.check_invariants();
        Ok(Some(Advance { messages, through_version }))
    }

    fn on_nothing_new(&mut self, is_final: bool) {
        // It has answered in time. What another one needed is no reason to wait long for the next that dies.
        self.peek_grace = PEEK_GRACE_MIN;
        if is_final {
            // The log will never have more. Another one may; or the cluster soon says how this ended.
            self.fail_over();
        } else {
            self.failures = 0;
            self.pause = Some(NOTHING_PAUSE);
        }
    }

    /// A log did not answer, or not sensibly: the next peek goes to another one.
    pub fn on_peek_failed(&mut self, peek: &Peek, error: &Error) {
        tracing::debug!(%error, log = %peek.endpoint, "a peek failed");
        if error.code() == ErrorCode::TimedOut {
            self.peek_grace = (self.peek_grace * 2).min(PEEK_GRACE_MAX);
        }
        self.fail_over();
    }

    fn fail_over(&mut self) {
        mark(Mark::OtherLogAsked);
        self.choice = self.choice.wrapping_add(1);
        let doubled = RETRY_MIN.saturating_mul(1 << self.failures.min(16));
        self.pause = Some(doubled.min(RETRY_MAX));
        self.failures = self.failures.saturating_add(1);
    }

    fn is_full(&self, window_bytes: usize) -> bool {
        window_bytes >= self.settings.window_bytes_max
    }

    /// Whether the engine should be written before its time.
    pub fn is_flush_urgent(&self, window_bytes: usize) -> bool {
        let is_full = self.is_full(window_bytes);
        (is_full || self.unflushed_bytes >= self.settings.flush_bytes)
            && self.flushing_version.is_none()
            && self.flush_limit(is_full).is_some()
    }

    /// The timer of flushes has fired, or one was urgent: the version to write to the engine now, if any.
    ///
    /// `through` says up to which version the window has about so many bytes, of the versions up to one: a part is written at a
    /// time, because after a pause a whole window may be due, and a full window gives up half of what it has. It returns a
    /// version of the window that is not greater.
    pub fn next_flush(
        &mut self,
        window_bytes: usize,
        window_is_empty: bool,
        through: impl Fn(Version, usize) -> Version,
    ) -> Option<NextFlush> {
        if self.flushing_version.is_some() {
            return None;
        }
        self.idle_timers = if window_is_empty { self.idle_timers + 1 } else { IDLE_TIMERS };
        if self.idle_timers < IDLE_TIMERS {
            return None;
        }
        let is_full = self.is_full(window_bytes);
        let limit = self.flush_limit(is_full)?;
        if is_full && self.given_up_version <= self.durable_version {
            // Half of the bytes, not of the versions: what has filled the window may have come in a moment.
            self.given_up_version = through(limit, window_bytes / 2);
        }
        let target = self.flush_limit(false)?;
        let version = through(target, self.settings.flush_bytes).max(self.refused_version);
        assert!(
            self.durable_version < version && version <= target && target <= limit,
            "a flush from {} to {target} of {limit} was cut to {version} (I-9)",
            self.durable_version
        );
        self.idle_timers = 0;
        self.unflushed_bytes = 0;
        self.flushing_version = Some(version);
        Some(NextFlush { version, is_cut: version < target })
    }

    /// There was no space for the flush that had begun. Another one may go further, and never less far, also after a rollback:
    /// the engine may have got there all the same, and does not go back (I-9).
    pub fn on_flush_refused(&mut self) {
        if let Some(version) = self.flushing_version.take() {
            self.refused_version = self.refused_version.max(version);
        }
    }

    /// Versions before this one are out of the window: a read of them is too old, whether or not the engine has got there.
    pub fn oldest_wanted(&self) -> Version {
        let behind_window = self.applied_version.saturating_sub(self.settings.window_versions);
        // A rollback may go back to what is known to be committed.
        behind_window.min(self.known_committed_version)
    }

    /// How far the engine may go, if it may: never past what is known to be committed (I-9).
    fn flush_limit(&self, is_full: bool) -> Option<Version> {
        let wanted = match is_full {
            true => self.applied_version,
            false => {
                let window = self.settings.window_versions;
                let behind_window = self.applied_version.saturating_sub(window);
                behind_window.max(self.given_up_version).max(self.refused_version)
            }
        };
        let committed = match planted(Plant::FlushUncommitted) {
            true => self.applied_version,
            false => self.known_committed_version,
        };
        Some(wanted.min(committed)).filter(|&to| to > self.durable_version)
    }

    /// The version up to which the engine is written when the server stops, if there is anything: nobody
    /// reads any more, so no window is kept. A flush that was cut off is done again with it.
    pub fn last_flush(&mut self) -> Option<Version> {
        let version = self.known_committed_version.min(self.applied_version);
        if version <= self.durable_version {
            return None;
        }
        self.flushing_version = Some(version);
        Some(version)
    }

    /// The engine has `version` on disk.
    pub fn on_flushed(&mut self, version: Version) {
        assert_eq!(self.flushing_version, Some(version), "a flush ended that was not begun (I-9)");
        self.flushing_version = None;
        self.durable_version = version;
        self.check_invariants();
    }

    /// The logs that should be told what the engine has (I-11).
    pub fn pops(&self) -> Vec<Pop> {
        let Some(tag) = self.tag else { return Vec::new() };
        let through_version = match planted(Plant::PopBeforeSync) {
            true => self.applied_version,
            false => self.durable_version,
        };
        let mut pops = Vec::new();
        for (index, set) in self.log_sets.iter().enumerate() {
            let last = self.end_of(index).map_or(through_version, |end| end.min(through_version));
            for log in set.logs_of(tag).filter(|_| set.begin_version < through_version) {
                let (generation, process) = (set.generation, log.process);
                if self.popped.get(&(generation, process)).is_none_or(|&popped| popped < last) {
                    let endpoint = log.endpoint.clone();
                    pops.push(Pop { generation, process, endpoint, tag, through_version });
                }
            }
        }
        pops
    }

    /// A log has confirmed a pop.
    pub fn on_popped(&mut self, pop: &Pop) {
        // Not if it was told before the server began anew.
        if self.tag == Some(pop.tag) {
            self.popped.insert((pop.generation, pop.process), pop.through_version);
        }
    }

    /// The newest version of which a log said that all logs have it.
    pub fn known_committed_version(&self) -> Version {
        self.known_committed_version
    }

    fn check_invariants(&self) {
        let (durable, applied) = (self.durable_version, self.applied_version);
        assert!(durable <= applied, "durable {durable} beyond applied {applied} (I-9)");
        let committed = self.known_committed_version;
        assert!(durable <= committed, "durable {durable} beyond known committed {committed} (I-9)");
    }
}

/// Checks that a reply keeps the protocol: whole versions after the one asked for, in order.
fn check_reply(request: &PeekRequest, reply: &PeekReply) -> Result<()> {
    let mut previous = request.after_version;
    for (version, _) in &reply.messages {
        if *version <= previous || *version > reply.through_version {
            let detail = format!(
                "version {version} after {previous} in a reply through {}",
                reply.through_version
            );
            return Err(Error::new(ErrorCode::Protocol, Stage::Apply, detail));
        }
        previous = *version;
    }
    Ok(())
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
