//! The resolver as a machine: batches in, verdicts out, strictly along the chain of versions.
//!
//! ```text
//!   recovery at 100
//!   resolve 100 -> 110     decided at once
//!   resolve 120 -> 130     waits: 110 -> 120 was overtaken on the network
//!   resolve 110 -> 120     decided, and then 120 -> 130
//!   resolve 110 -> 120     a repeat, as the reply was lost: the same verdicts, from memory
//! ```
//!
//! Within a batch transactions are decided in their order, each against everything committed before it. As
//! an accepted one's writes enter the conflict set at the batch's version, which is greater than any read
//! version in the batch, nothing special has to be done for conflicts within the batch.
//!
//! Keeps I-7. Verdicts depend on the chain alone, never on when a batch arrived: whatever is refused here
//! with an error has left no trace.
//!
//! Start with [`Resolver::step`].

use std::collections::BTreeMap;

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Generation, KeyRange, Mutation, Result, Stage, Version, limits,
    service::resolver::{MetadataBatch, ResolveReply, ResolveRequest, ResolveTransaction, Verdict},
    transaction::ConflictingRead,
};

use super::{
    conflict_set::{ConflictSet, PREFETCHED_RANGES},
    metadata::Metadata,
};

/// So many transactions are looked up together: a usual one has about seven ranges.
const PREFETCHED_TRANSACTIONS: usize = PREFETCHED_RANGES / 8;

/// Most conflicting ranges that are reported to a transaction that did not ask for all of them.
const REPORTED_MAX: usize = 16;

/// How much a resolver keeps.
#[derive(Clone, Copy, Debug)]
pub struct ResolverSettings {
    /// How old a read version a transaction may have, in versions before the batch in front of its own.
    pub window_versions: u64,
    /// Most calls that wait for a batch before theirs.
    pub waiting_max: usize,
    /// Most bytes of transactions in batches that wait, about.
    pub waiting_bytes_max: usize,
    /// Most batches whose verdicts are remembered for repeated calls.
    pub remembered_max: usize,
    /// Most bytes of verdicts that are remembered, about.
    pub remembered_bytes_max: usize,
}

impl Default for ResolverSettings {
    fn default() -> ResolverSettings {
        ResolverSettings {
            window_versions: limits::WINDOW_VERSIONS,
            waiting_max: 1024,
            waiting_bytes_max: 8 * limits::BATCH_BYTES_MAX,
            remembered_max: 4096,
            remembered_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// What happened. `R` is whatever the shell finds the caller by.
#[derive(Debug)]
pub enum Input<R> {
    /// A proxy wants a batch decided.
    Resolve {
        /// The batch.
        request: ResolveRequest,
        /// Who wants it.
        reply_to: R,
    },
}

/// What to do about it, in this order.
#[derive(Debug)]
pub enum Effect<R> {
    /// Answer a call.
    Answer(R, Result<ResolveReply>),
}

/// What a resolver has done and holds, for status and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResolverProgress {
    /// The version of the newest batch that was decided.
    pub resolved_version: Version,
    /// Batches decided.
    pub batches: u64,
    /// Transactions accepted.
    pub accepted: u64,
    /// Transactions refused because of a conflict.
    pub conflicts: u64,
    /// Transactions refused because they were older than the window.
    pub too_old: u64,
    /// Batches that wait for one before them.
    pub waiting: usize,
    /// Entries of the conflict set.
    pub window_entries: usize,
}

/// Decides on the batches of one generation. See the module.
#[derive(Debug)]
pub struct Resolver<R> {
    generation: Generation,
    settings: ResolverSettings,
    /// Writes after `oldest_version`, which is at least the recovery version: what was written before
    /// this generation is not known here.
    window: ConflictSet,
    /// Whoever has read before this version is too old: `window` may have forgotten what was written since.
    oldest_version: Version,
    /// The end of the chain that was decided.
    resolved_version: Version,
    /// Batches that came too early, by the version they wait for.
    waiting: BTreeMap<Version, Waiting<R>>,
    waiting_calls: usize,
    waiting_bytes: usize,
    /// Replies to the latest batches, by commit version.
    remembered: BTreeMap<Version, ResolveReply>,
    remembered_bytes: usize,
    metadata: Metadata,
    progress: ResolverProgress,
}

#[derive(Debug)]
struct Waiting<R> {
    request: ResolveRequest,
    /// A repeated call waits with the first one.
    reply_to: Vec<R>,
}

impl<R> Resolver<R> {
    /// A resolver for a generation with so many proxies; its first batch follows `recovery_version`.
    pub fn new(
        generation: Generation,
        recovery_version: Version,
        proxies: u32,
        settings: ResolverSettings,
    ) -> Resolver<R> {
        let known_from = if planted(Plant::ForgetPast) { Version::ZERO } else { recovery_version };
        Resolver {
            generation,
            settings,
            window: ConflictSet::new(known_from),
            oldest_version: known_from,
            resolved_version: recovery_version,
            waiting: BTreeMap::new(),
            waiting_calls: 0,
            waiting_bytes: 0,
            remembered: BTreeMap::new(),
            remembered_bytes: 0,
            metadata: Metadata::new(recovery_version, proxies),
            progress: ResolverProgress::default(),
        }
    }

    /// What was done so far.
    pub fn progress(&self) -> ResolverProgress {
        ResolverProgress {
            resolved_version: self.resolved_version,
            waiting: self.waiting.len(),
            window_entries: self.window.len(),
            ..self.progress
        }
    }

    /// Advances by one input. Never waits and never fails.
    pub fn step(&mut self, input: Input<R>, effects: &mut Vec<Effect<R>>) {
        match input {
            Input::Resolve { request, reply_to } => self.on_resolve(request, reply_to, effects),
        }
    }

    fn on_resolve(&mut self, request: ResolveRequest, reply_to: R, effects: &mut Vec<Effect<R>>) {
        if let Err(error) = self.check_request(&request) {
            return effects.push(Effect::Answer(reply_to, Err(error)));
        }
        if request.commit_version <= self.resolved_version {
            mark(Mark::RepeatedBatch);
            return effects.push(Effect::Answer(reply_to, self.recall(&request)));
        }
        if request.previous_version != self.resolved_version {
            mark(Mark::BatchWaited);
            return self.wait(request, reply_to, effects);
        }
        let reply = self.resolve(&request);
        effects.push(Effect::Answer(reply_to, Ok(reply)));
        while let Some(waiting) = self.take_next() {
            let reply = self.resolve(&waiting.request);
            for reply_to in waiting.reply_to {
                effects.push(Effect::Answer(reply_to, Ok(reply.clone())));
            }
        }
        self.refuse_overtaken(effects);
    }

    fn check_request(&self, request: &ResolveRequest) -> Result<()> {
        if request.generation != self.generation {
            let (theirs, ours) = (request.generation, self.generation);
            let detail = format!("a batch of generation {theirs}, this is generation {ours}");
            return Err(error(ErrorCode::GenerationEnded, detail));
        }
        if !self.metadata.knows(request.proxy) {
            let detail = format!("there is no proxy {}", request.proxy);
            return Err(error(ErrorCode::Protocol, detail));
        }
        let (previous, commit) = (request.previous_version, request.commit_version);
        if previous >= commit {
            let detail = format!("batch {commit} cannot follow {previous}");
            return Err(error(ErrorCode::Protocol, detail));
        }
        // Two links of one chain never overlap.
        if previous < self.resolved_version && commit > self.resolved_version {
            let resolved = self.resolved_version;
            let detail =
                format!("batch {previous} to {commit} leaves the chain, which is at {resolved}");
            return Err(error(ErrorCode::Protocol, detail));
        }
        Ok(())
    }

    /// The reply to a batch that was decided before.
    fn recall(&self, request: &ResolveRequest) -> Result<ResolveReply> {
        let remembered = self.remembered.get(&request.commit_version);
        // Deciding again could accept what was refused, or the reverse; nobody may learn two verdicts.
        remembered.cloned().ok_or_else(|| {
            let detail = format!("the verdicts on batch {} are forgotten", request.commit_version);
            error(ErrorCode::TransactionTooOld, detail)
        })
    }

    /// Keeps a batch until the one before it has come.
    fn wait(&mut self, request: ResolveRequest, reply_to: R, effects: &mut Vec<Effect<R>>) {
        let size = size_of_request(&request);
        let known = self.waiting.get_mut(&request.previous_version);
        let is_repeat = match &known {
            Some(waiting) if waiting.request.commit_version != request.commit_version => {
                let (one, other) = (waiting.request.commit_version, request.commit_version);
                let previous = request.previous_version;
                let detail = format!("both batch {one} and batch {other} follow {previous}");
                let answer = Err(error(ErrorCode::Protocol, detail));
                return effects.push(Effect::Answer(reply_to, answer));
            }
            Some(_) => true,
            None => false,
        };
        let bytes = self.waiting_bytes + if is_repeat { 0 } else { size };
        if self.waiting_calls >= self.settings.waiting_max
            || bytes > self.settings.waiting_bytes_max
        {
            let detail = format!(
                "{} calls with {} bytes wait for the batch after {}",
                self.waiting_calls, self.waiting_bytes, self.resolved_version
            );
            let answer = Err(error(ErrorCode::TooBusy, detail));
            return effects.push(Effect::Answer(reply_to, answer));
        }
        self.waiting_calls += 1;
        self.waiting_bytes = bytes;
        match known {
            Some(waiting) => waiting.reply_to.push(reply_to),
            None => {
                let waiting = Waiting { request, reply_to: vec![reply_to] };
                self.waiting.insert(waiting.request.previous_version, waiting);
            }
        }
    }

    /// The batch that is next in the chain, if it waits.
    fn take_next(&mut self) -> Option<Waiting<R>> {
        let waiting = self.waiting.remove(&self.resolved_version)?;
        self.waiting_calls -= waiting.reply_to.len();
        self.waiting_bytes -= size_of_request(&waiting.request);
        Some(waiting)
    }

    /// Refuses what waits for a version that the chain has passed by, and would wait forever.
    fn refuse_overtaken(&mut self, effects: &mut Vec<Effect<R>>) {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() < self.resolved_version
        {
            let waiting = first.remove();
            self.waiting_calls -= waiting.reply_to.len();
            self.waiting_bytes -= size_of_request(&waiting.request);
            let answer = self.check_request(&waiting.request).and_then(|()| {
                // It would begin and end within what was decided as one batch.
                self.recall(&waiting.request)
            });
            for reply_to in waiting.reply_to {
                effects.push(Effect::Answer(reply_to, answer.clone()));
            }
        }
    }

    /// Decides on the batch that is next in the chain.
    fn resolve(&mut self, request: &ResolveRequest) -> ResolveReply {
        assert_eq!(
            request.previous_version, self.resolved_version,
            "batch {} is not next in the chain (I-7)",
            request.commit_version
        );
        // As its clients see it: nobody can have read at the batch's own version, or later than the one before it. That one
        // is near what was committed when they began, see the sequencer.
        let window_begin = request.previous_version.saturating_sub(self.settings.window_versions);
        let forgotten = match planted(Plant::ForgetBeforeRefusing) {
            true => window_begin.saturating_add(self.settings.window_versions / 50),
            false => window_begin,
        };
        self.oldest_version = window_begin.max(self.oldest_version);
        self.window.forget_before(forgotten.max(self.window.oldest_version()));
        let mut verdicts = Vec::with_capacity(request.transactions.len());
        for transactions in request.transactions.chunks(PREFETCHED_TRANSACTIONS) {
            self.window.prefetch(transactions.iter().flat_map(ranges_to_prefetch));
            verdicts.extend(transactions.iter().map(|each| self.decide(each, request)));
        }
        if planted(Plant::IgnoreConflictsInBatch) {
            for (transaction, verdict) in request.transactions.iter().zip(&verdicts) {
                let writes = transaction.write_conflicts.iter();
                writes.filter(|_| *verdict == Verdict::Accepted).for_each(|range| {
                    self.window.insert(range, request.commit_version);
                });
            }
        }
        self.resolved_version = request.commit_version;
        self.progress.batches += 1;
        let accepted = |(index, mutations): &(u32, Vec<Mutation>)| {
            let is_accepted = verdicts.get(*index as usize) == Some(&Verdict::Accepted);
            is_accepted.then(|| mutations.clone())
        };
        let mutations: Vec<_> = request.metadata.iter().filter_map(accepted).flatten().collect();
        let (commit_version, proxy) = (request.commit_version, request.proxy);
        let batch = MetadataBatch { commit_version, mutations };
        let (previous_batch, metadata) = self.metadata.on_batch(proxy, batch);
        let reply = ResolveReply { verdicts, previous_batch, metadata };
        self.remember(request.commit_version, reply.clone());
        reply
    }

    /// Decides on one transaction, and notes its writes if it is accepted.
    fn decide(&mut self, transaction: &ResolveTransaction, batch: &ResolveRequest) -> Verdict {
        // A read version from the future names no state anybody could have read. Taken for the newest
        // possible one, it conflicts at least with what this batch writes.
        let read_version = transaction.read_version.min(batch.previous_version);
        let has_reads = !transaction.read_conflicts.is_empty();
        let oldest_version = self.oldest_version;
        let accepts_too_old = planted(Plant::AcceptTooOld);
        if has_reads && read_version < oldest_version && !accepts_too_old {
            mark(Mark::TooOld);
            self.progress.too_old += 1;
            return Verdict::TooOld;
        }
        let read_version = match accepts_too_old || planted(Plant::ForgetBeforeRefusing) {
            true => read_version.max(self.window.oldest_version()),
            false => read_version,
        };
        let looked_at = match transaction.read_conflicts.len() {
            count if planted(Plant::SkipReadConflict) => count.saturating_sub(1),
            count => count,
        };
        let mut conflicts = transaction.read_conflicts[..looked_at]
            .iter()
            .filter(|(_, range)| self.window.is_written_after(range, read_version))
            .peekable();
        if conflicts.peek().is_some() {
            let reported_max = if transaction.report_conflicts { usize::MAX } else { REPORTED_MAX };
            let reads = conflicts.take(reported_max).map(|(index, range)| ConflictingRead {
                index: *index,
                written_at: self.window.last_write(range, read_version),
            });
            let reads = reads.collect();
            self.progress.conflicts += 1;
            if planted(Plant::RefusedWritesCount) {
                for range in &transaction.write_conflicts {
                    self.window.insert(range, batch.commit_version);
                }
            }
            return Verdict::Conflict { reads };
        }
        let inserts_at_once = !planted(Plant::IgnoreConflictsInBatch);
        for range in transaction.write_conflicts.iter().filter(|_| inserts_at_once) {
            self.window.insert(range, batch.commit_version);
        }
        self.progress.accepted += 1;
        Verdict::Accepted
    }

    /// Remembers a reply for repeated calls, and forgets the oldest ones beyond the bounds.
    fn remember(&mut self, commit_version: Version, reply: ResolveReply) {
        self.remembered_bytes += size_of_reply(&reply);
        self.remembered.insert(commit_version, reply);
        let window_begin = commit_version.saturating_sub(self.settings.window_versions);
        // The newest reply stays however large it is: it is the one most likely to be asked for.
        while let Some((&oldest, reply)) = self.remembered.first_key_value()
            && oldest < commit_version
            && (oldest < window_begin
                || self.remembered.len() > self.settings.remembered_max
                || self.remembered_bytes > self.settings.remembered_bytes_max)
        {
            self.remembered_bytes -= size_of_reply(reply);
            self.remembered.remove(&oldest);
        }
    }
}

fn error(code: ErrorCode, detail: String) -> Error {
    Error::new(code, Stage::Resolve, detail)
}

/// The ranges of a transaction, with the version that reads are checked against.
fn ranges_to_prefetch(
    transaction: &ResolveTransaction,
) -> impl Iterator<Item = (&KeyRange, Option<Version>)> {
    let read_version = transaction.read_version;
    let reads =
        transaction.read_conflicts.iter().map(move |(_, range)| (range, Some(read_version)));
    reads.chain(transaction.write_conflicts.iter().map(|range| (range, None)))
}

/// About how much memory a batch takes.
fn size_of_request(request: &ResolveRequest) -> usize {
    let ranges = |transaction: &ResolveTransaction| {
        let reads = transaction.read_conflicts.iter().map(|(_, range)| range);
        let bytes = reads
            .chain(&transaction.write_conflicts)
            .map(|range| size_of::<KeyRange>() + range.begin.len() + range.end.len());
        size_of::<ResolveTransaction>() + bytes.sum::<usize>()
    };
    request.transactions.iter().map(ranges).sum()
}

/// About how much memory a reply takes.
fn size_of_reply(reply: &ResolveReply) -> usize {
    let reads = |verdict: &Verdict| match verdict {
        Verdict::Conflict { reads } => size_of_val(reads.as_slice()),
        Verdict::Accepted | Verdict::TooOld => 0,
    };
    let verdicts = reply.verdicts.iter();
    verdicts.map(|verdict| size_of::<Verdict>() + reads(verdict)).sum()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
