//! What a log decides: which pushes are appended and in which order, when they are answered, who may read what, and when
//! space is given up. Synchronous: inputs in, effects out, in order.
//!
//! ```text
//!   early (wait for their predecessor)      appended, being written          on disk
//!
//!        40 -> 50                           20 -> 25   25 -> 30              .. 10 -> 20
//!        70 -> 80                                           ^                         ^
//!                                              appended_version          durable_version: acknowledged, readable
//! ```
//!
//! - I-5: a push is answered by `Synced`, and by nothing else.
//! - I-7: a record is appended only if its `previous_version` is the `appended_version`.
//! - I-8: a lock is effective at once and answered when it is in the state file and when the writes under way are done,
//!   so its answer says how far the log will ever be.
//!
//! A failed disk is final. Whether a sync that failed has lost data cannot be found out by another one, so the
//! log takes nothing any more; what was durable is still read. Of a disk that was only full the host opens the log anew,
//! as after a restart.
//!
//! Start with [`Log::step`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
};

use bytes::Bytes;
use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Generation, Result, Stage, Tag, Version,
    limits::PEEK_BYTES_MAX,
    service::log::{
        CopyRequest, LockReply, LockRequest, PeekReply, PeekRequest, PushReply, PushRequest,
    },
};

use super::{
    copy::{CopyPlan, NOT_LOCKED},
    layout::{Extent, Layout},
    recent::Recent,
    record::{Place, Record},
    segment::SegmentHeader,
    settings::LogSettings,
    state::State,
};

/// How many of the last batches are remembered, to recognize a push that is repeated.
const HISTORY_COUNT: usize = 4096;

/// Stands for a caller that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplyTo(pub u64);

/// What happened. All that a log can know arrives here, the end of its own writes included.
#[derive(Debug)]
pub enum Input {
    /// A proxy pushes a batch.
    Push {
        /// The batch.
        request: PushRequest,
        /// The proxy.
        reply_to: ReplyTo,
    },
    /// All appended records up to a version are on disk.
    Synced {
        /// The version of the last one.
        through_version: Version,
    },
    /// The state file is what the last [`Effect::PersistState`] said.
    StatePersisted,
    /// The disk has failed, in a write or in a sync.
    DiskFailed {
        /// How.
        error: Error,
    },
    /// A reader asks for messages.
    Peek {
        /// Which ones.
        request: PeekRequest,
        /// The reader.
        reply_to: ReplyTo,
    },
    /// A reader has waited long enough, or is gone.
    PeekExpired {
        /// The reader.
        reply_to: ReplyTo,
    },
    /// A reader has a tag's messages on its own disk.
    Pop {
        /// Its tag.
        tag: Tag,
        /// Up to here.
        through_version: Version,
    },
    /// A recovery ends the log's generation.
    Lock {
        /// The generation that follows, and what its recovery knows.
        request: LockRequest,
        /// The recovery.
        reply_to: ReplyTo,
    },
}

/// What to do about it, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Begin a segment, after all that was appended before is on disk. The header counts as appended.
    BeginSegment(SegmentHeader),
    /// Write a record at its place, sync it, and report [`Input::Synced`].
    Append(Place, Record),
    /// Replace the state file, and report [`Input::StatePersisted`].
    PersistState(State),
    /// Remove the files of segments from `first` to before `end`.
    RemoveSegments {
        /// The oldest of them.
        first: u64,
        /// The oldest that stays.
        end: u64,
    },
    /// Answer a caller.
    Answer(ReplyTo, Result<Reply>),
    /// Answer a reader with what is on disk.
    ReadDisk(ReplyTo, ReadPlan),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a push.
    Push(PushReply),
    /// To a peek.
    Peek(PeekReply),
    /// To a lock.
    Lock(LockReply),
}

/// A read of the segments on behalf of a lagging reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    /// What the reader asked for.
    pub request: PeekRequest,
    /// The number of the log's instance, which its records name.
    pub instance: u64,
    /// Where to begin, and how far it is safe to go.
    pub extent: Extent,
    /// The answer but for its messages. They may go up to its `through_version`.
    pub reply: PeekReply,
}

/// What a restart found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The state file.
    pub(super) state: State,
    /// The segments.
    pub(super) layout: Layout,
    /// The last batches: previous version and version of each.
    pub(super) history: VecDeque<(Version, Version)>,
    /// The last version on disk.
    pub(super) durable_version: Version,
    /// The highest known-committed version in any record.
    pub(super) known_committed_version: Version,
    /// The changes of the shard map.
    pub(super) metadata: BTreeMap<Version, Bytes>,
}

impl Recovered {
    /// Takes in a record of so many bytes, after all others.
    pub(super) fn note(&mut self, record: &Record, bytes: u64) {
        let tags = record.messages.iter().map(|(tag, _)| *tag);
        self.layout.push_record(self.state.instance, record.commit_version, bytes, tags);
        remember(&mut self.history, record);
        note_metadata(&mut self.metadata, record);
        self.durable_version = record.commit_version;
        self.known_committed_version =
            self.known_committed_version.max(record.known_committed_version);
    }
}

fn remember(history: &mut VecDeque<(Version, Version)>, record: &Record) {
    if history.len() == HISTORY_COUNT {
        history.pop_front();
    }
    history.push_back((record.previous_version, record.commit_version));
}

fn note_metadata(metadata: &mut BTreeMap<Version, Bytes>, record: &Record) {
    // It is the last tag of all, so it is the last message.
    if let Some((Tag::METADATA, message)) = record.messages.last() {
        metadata.insert(record.commit_version, message.clone());
    }
}

/// A push that waits for its predecessor.
#[derive(Debug)]
struct Early {
    request: PushRequest,
    bytes: usize,
    reply_to: Vec<ReplyTo>,
}

/// A push that waits for the disk.
#[derive(Debug)]
struct Unsynced {
    commit_version: Version,
    bytes: usize,
    /// Its segment and where it ends there.
    end: (u64, u64),
    reply_to: Vec<ReplyTo>,
}

/// A lock that waits for its state file and for the writes that were under way.
#[derive(Debug)]
struct WaitingLock {
    generation: Generation,
    metadata_after: Version,
    through_version: Version,
    reply_to: ReplyTo,
}

/// The log of one generation.
#[derive(Debug)]
pub struct Log {
    settings: LogSettings,
    /// What the state file should say, what it says, and what is being written to it.
    state: State,
    saved: State,
    saving: Option<State>,
    layout: Layout,
    recent: Recent,
    history: VecDeque<(Version, Version)>,
    /// The changes of the shard map that were not popped. Few, and asked for by a recovery all at once.
    metadata: BTreeMap<Version, Bytes>,
    appended_version: Version,
    durable_version: Version,
    /// The segment of the last durable record, and where that ends.
    durable_end: (u64, u64),
    known_committed_version: Version,
    /// By previous version, each of them later than the appended version.
    early: BTreeMap<Version, Early>,
    early_bytes: usize,
    unsynced: VecDeque<Unsynced>,
    unsynced_bytes: usize,
    popped: BTreeMap<Tag, Version>,
    peeks: BTreeMap<ReplyTo, PeekRequest>,
    locks: Vec<WaitingLock>,
    failure: Option<Error>,
}

fn refused(code: ErrorCode, detail: String) -> Error {
    Error::new(code, Stage::Log, detail)
}

impl Log {
    /// The log that a restart, or a recruitment, has found on disk.
    pub(super) fn new(recovered: Recovered, settings: LogSettings) -> Log {
        let Recovered {
            state,
            layout,
            history,
            durable_version,
            known_committed_version,
            metadata,
        } = recovered;
        let durable_end = layout.end();
        Log {
            settings,
            saved: state.clone(),
            state,
            saving: None,
            layout,
            recent: Recent::new(durable_version),
            history,
            metadata,
            appended_version: durable_version,
            durable_version,
            durable_end,
            known_committed_version,
            early: BTreeMap::new(),
            early_bytes: 0,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            popped: BTreeMap::new(),
            peeks: BTreeMap::new(),
            locks: Vec::new(),
            failure: None,
        }
    }

    /// Advances by one input. Never waits and never fails.
    pub fn step(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Push { request, reply_to } => self.on_push(request, reply_to, effects),
            Input::Synced { through_version } => self.on_synced(through_version, effects),
            Input::StatePersisted => self.on_state_persisted(effects),
            Input::DiskFailed { error } => self.on_disk_failed(error, effects),
            Input::Peek { request, reply_to } => self.on_peek(request, reply_to, effects),
            Input::PeekExpired { reply_to } => self.on_peek_expired(reply_to, effects),
            Input::Pop { tag, through_version } => self.on_pop(tag, through_version, effects),
            Input::Lock { request, reply_to } => self.on_lock(request, reply_to, effects),
        }
        self.check_invariants();
    }

    // Pushes.

    fn on_push(&mut self, request: PushRequest, reply_to: ReplyTo, effects: &mut Vec<Effect>) {
        if let Err(error) = self.check_push(&request) {
            return effects.push(Effect::Answer(reply_to, Err(error)));
        }
        if request.previous_version > self.appended_version {
            self.wait_for_predecessor(request, reply_to, effects);
        } else if request.previous_version == self.appended_version {
            if self.unsynced_bytes > self.settings.unsynced_bytes_max {
                let detail = format!("{} bytes wait for the disk", self.unsynced_bytes);
                let error = refused(ErrorCode::TooBusy, detail);
                return effects.push(Effect::Answer(reply_to, Err(error)));
            }
            self.append(request, vec![reply_to], effects);
            self.append_early(effects);
        } else {
            self.on_repeated_push(&request, reply_to, effects);
        }
    }

    fn check_push(&self, request: &PushRequest) -> Result<()> {
        self.check_health()?;
        // A recovery goes on without this generation: accepting would acknowledge a commit that the next
        // generation has never seen (I-8, I-12).
        let (ours, locked) = (self.state.generation, self.state.locked_generation);
        let is_locked = locked > ours && !planted(Plant::PushThroughLock);
        if request.generation != ours || is_locked {
            mark(Mark::PushRefusedByLock);
            let detail = format!(
                "push of generation {} to the log of generation {ours}, locked by {locked}",
                request.generation
            );
            return Err(refused(ErrorCode::GenerationEnded, detail));
        }
        if request.commit_version <= request.previous_version {
            let (previous, commit) = (request.previous_version, request.commit_version);
            return Err(refused(ErrorCode::Protocol, format!("version {commit} after {previous}")));
        }
        if !request.messages.is_sorted_by(|(left, _), (right, _)| left < right) {
            return Err(refused(ErrorCode::Protocol, "tags do not ascend".to_owned()));
        }
        Ok(())
    }

    /// Batches overtake each other on the network. An early one waits for its predecessor (I-7).
    fn wait_for_predecessor(
        &mut self,
        request: PushRequest,
        reply_to: ReplyTo,
        effects: &mut Vec<Effect>,
    ) {
        let previous_version = request.previous_version;
        if let Some(early) = self.early.get_mut(&previous_version) {
            if early.request.commit_version == request.commit_version {
                early.reply_to.push(reply_to);
            } else {
                let detail = format!("two batches follow version {previous_version}");
                let error = refused(ErrorCode::Protocol, detail);
                effects.push(Effect::Answer(reply_to, Err(error)));
            }
            return;
        }
        let bytes = message_bytes(&request);
        if self.early.len() >= self.settings.early_pushes_max
            || self.early_bytes + bytes > self.settings.early_bytes_max
        {
            let detail = format!(
                "{} pushes with {} bytes wait for version {}",
                self.early.len(),
                self.early_bytes,
                self.appended_version
            );
            let error = refused(ErrorCode::TooBusy, detail);
            return effects.push(Effect::Answer(reply_to, Err(error)));
        }
        mark(Mark::EarlyPush);
        self.early_bytes += bytes;
        self.early.insert(previous_version, Early { request, bytes, reply_to: vec![reply_to] });
    }

    /// Appends the early pushes whose turn has come. Those that the chain has passed by never had one.
    fn append_early(&mut self, effects: &mut Vec<Effect>) {
        while let Some(entry) = self.early.first_entry()
            && *entry.key() <= self.appended_version
        {
            let (previous_version, early) = entry.remove_entry();
            self.early_bytes -= early.bytes;
            if previous_version == self.appended_version {
                self.append(early.request, early.reply_to, effects);
            } else {
                self.refuse_off_chain(&early.request, &early.reply_to, effects);
            }
        }
    }

    fn append(&mut self, request: PushRequest, reply_to: Vec<ReplyTo>, effects: &mut Vec<Effect>) {
        let record = Record {
            previous_version: request.previous_version,
            commit_version: request.commit_version,
            known_committed_version: request.known_committed_version,
            messages: request.messages,
        };
        if !record.fits() {
            let detail = format!("a record of {} bytes", record.encoded_bytes());
            let error = refused(ErrorCode::InvalidArgument, detail);
            return answer_all(&reply_to, &Err(error), effects);
        }
        let bytes = record.encoded_bytes();
        if self.layout.is_full_for(bytes as u64) {
            self.begin_segment(effects);
        }
        let tags = record.messages.iter().map(|(tag, _)| *tag);
        let place =
            self.layout.push_record(self.state.instance, record.commit_version, bytes as u64, tags);
        self.recent.push(record.commit_version, &record.messages);
        remember(&mut self.history, &record);
        note_metadata(&mut self.metadata, &record);
        self.appended_version = record.commit_version;
        self.known_committed_version =
            self.known_committed_version.max(record.known_committed_version);
        self.unsynced_bytes += bytes;
        let reply_to = if planted(Plant::AnswerBeforeSync) {
            let reply = PushReply { durable_version: record.commit_version };
            answer_all(&reply_to, &Ok(Reply::Push(reply)), effects);
            Vec::new()
        } else {
            reply_to
        };
        self.unsynced.push_back(Unsynced {
            commit_version: record.commit_version,
            bytes,
            end: self.layout.end(),
            reply_to,
        });
        effects.push(Effect::Append(place, record));
    }

    fn begin_segment(&mut self, effects: &mut Vec<Effect>) {
        let (sealed_segment, sealed_bytes) = self.layout.end();
        let segment = sealed_segment + 1;
        mark(Mark::SegmentBegun);
        self.layout.push_segment(segment, self.appended_version);
        effects.push(Effect::BeginSegment(SegmentHeader {
            instance: self.state.instance,
            segment,
            generation: self.state.generation,
            sealed_bytes,
            previous_version: self.appended_version,
        }));
    }

    /// A batch at or before the appended version: a repetition, which shares the first push's fate, or not of this chain.
    fn on_repeated_push(
        &mut self,
        request: &PushRequest,
        reply_to: ReplyTo,
        effects: &mut Vec<Effect>,
    ) {
        let batch = (request.previous_version, request.commit_version);
        let found = self.history.binary_search_by_key(&batch.1, |(_, commit)| *commit);
        // The sequencer gives a version to one batch only, so equal versions are the same batch.
        if !found.is_ok_and(|index| self.history[index] == batch) {
            return self.refuse_off_chain(request, &[reply_to], effects);
        }
        if request.commit_version <= self.durable_version {
            let reply = PushReply { durable_version: self.durable_version };
            return effects.push(Effect::Answer(reply_to, Ok(Reply::Push(reply))));
        }
        let unsynced = self
            .unsynced
            .iter_mut()
            .find(|unsynced| unsynced.commit_version == request.commit_version)
            .expect("what is appended and not durable is unsynced");
        unsynced.reply_to.push(reply_to);
    }

    fn refuse_off_chain(
        &self,
        request: &PushRequest,
        reply_to: &[ReplyTo],
        effects: &mut Vec<Effect>,
    ) {
        let detail = format!(
            "batch {} after {} does not continue the chain, which is at {}",
            request.commit_version, request.previous_version, self.appended_version
        );
        answer_all(reply_to, &Err(refused(ErrorCode::Protocol, detail)), effects);
    }

    fn on_synced(&mut self, through_version: Version, effects: &mut Vec<Effect>) {
        assert!(
            through_version > self.durable_version && through_version <= self.appended_version,
            "synced through {through_version}, durable {}, appended {}",
            self.durable_version,
            self.appended_version
        );
        self.durable_version = through_version;
        let answer = Ok(Reply::Push(PushReply { durable_version: through_version }));
        while let Some(unsynced) = self.unsynced.front()
            && unsynced.commit_version <= through_version
            && let Some(unsynced) = self.unsynced.pop_front()
        {
            self.unsynced_bytes -= unsynced.bytes;
            self.durable_end = unsynced.end;
            answer_all(&unsynced.reply_to, &answer, effects);
        }
        self.recent.shrink(self.settings.memory_bytes_max, self.durable_version);
        self.answer_locks(effects);
        self.wake_peeks(effects);
        self.reclaim(effects);
    }

    // Locks.

    fn on_lock(&mut self, request: LockRequest, reply_to: ReplyTo, effects: &mut Vec<Effect>) {
        let LockRequest { generation, metadata_after } = request;
        let locked = self.state.locked_generation;
        let checked = self.check_health().and_then(|()| match generation < locked {
            true => Err(refused(
                ErrorCode::GenerationEnded,
                format!("lock of generation {generation}, already locked by {locked}"),
            )),
            false => Ok(()),
        });
        if let Err(error) = checked {
            return effects.push(Effect::Answer(reply_to, Err(error)));
        }
        // From here on nothing is appended, so the writes under way are the last ones.
        self.state.locked_generation = generation;
        if generation > self.state.generation {
            let detail = format!("locked by generation {generation}");
            self.refuse_early(&refused(ErrorCode::GenerationEnded, detail), effects);
        }
        let overtaken: Vec<_> =
            self.locks.extract_if(.., |lock| lock.generation < generation).collect();
        for lock in overtaken {
            let detail =
                format!("lock of generation {}, overtaken by {generation}", lock.generation);
            let error = refused(ErrorCode::GenerationEnded, detail);
            effects.push(Effect::Answer(lock.reply_to, Err(error)));
        }
        self.locks.push(WaitingLock {
            generation,
            metadata_after,
            through_version: self.appended_version,
            reply_to,
        });
        self.persist_state(effects);
        self.answer_locks(effects);
    }

    /// Whether a push of `generation` could still succeed.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::GenerationEnded`] if a lock says no, [`ErrorCode::Disk`] if the disk has failed.
    pub fn confirm(&self, generation: Generation) -> Result<()> {
        self.check_health()?;
        let locked = self.state.locked_generation;
        if generation < locked {
            let detail = format!("generation {generation} is locked by {locked}");
            return Err(refused(ErrorCode::GenerationEnded, detail));
        }
        Ok(())
    }

    fn answer_locks(&mut self, effects: &mut Vec<Effect>) {
        let (saved, durable) = (self.saved.locked_generation, self.durable_version);
        let is_ready =
            |lock: &mut WaitingLock| lock.generation <= saved && lock.through_version <= durable;
        let ready: Vec<_> = self.locks.extract_if(.., is_ready).collect();
        if ready.is_empty() {
            return;
        }
        for lock in ready {
            // An old disk may have less than the controllers know of.
            let after =
                (Bound::Excluded(lock.metadata_after.min(durable)), Bound::Included(durable));
            let metadata = self.metadata.range(after);
            let reply = LockReply {
                durable_version: durable,
                known_committed_version: self.known_committed_version,
                metadata: metadata.map(|(version, message)| (*version, message.clone())).collect(),
            };
            effects.push(Effect::Answer(lock.reply_to, Ok(Reply::Lock(reply))));
        }
        // Waiting readers learn that nothing else will come.
        self.wake_peeks(effects);
    }

    fn refuse_early(&mut self, error: &Error, effects: &mut Vec<Effect>) {
        self.early_bytes = 0;
        for early in std::mem::take(&mut self.early).into_values() {
            answer_all(&early.reply_to, &Err(error.clone()), effects);
        }
    }

    // The state file, and the disk.

    fn persist_state(&mut self, effects: &mut Vec<Effect>) {
        if self.saving.is_none() && self.state != self.saved {
            self.saving = Some(self.state.clone());
            effects.push(Effect::PersistState(self.state.clone()));
        }
    }

    fn on_state_persisted(&mut self, effects: &mut Vec<Effect>) {
        let saved = self.saving.take().expect("a state was being saved");
        let first = self.saved.first_segment;
        let end = saved.first_segment;
        self.saved = saved;
        // Only now: a file that the state still counts on may not be missing after a restart.
        if first < end {
            mark(Mark::SegmentsDeleted);
            effects.push(Effect::RemoveSegments { first, end });
        }
        self.answer_locks(effects);
        self.persist_state(effects);
    }

    fn on_disk_failed(&mut self, error: Error, effects: &mut Vec<Effect>) {
        if self.failure.is_some() {
            return;
        }
        mark(Mark::LogWriteFailed);
        self.failure = Some(error.clone());
        for unsynced in &mut self.unsynced {
            answer_all(&std::mem::take(&mut unsynced.reply_to), &Err(error.clone()), effects);
        }
        self.refuse_early(&error, effects);
        for lock in std::mem::take(&mut self.locks) {
            effects.push(Effect::Answer(lock.reply_to, Err(error.clone())));
        }
    }

    fn check_health(&self) -> Result<()> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    // Readers.

    fn on_peek(&mut self, request: PeekRequest, reply_to: ReplyTo, effects: &mut Vec<Effect>) {
        if request.after_version < self.durable_version || request.wait_ms == 0 {
            self.answer_peek(request, reply_to, effects);
        } else if self.is_final() {
            // Nothing will ever come. The reader has to hear it, and to look elsewhere.
            self.answer_peek(request, reply_to, effects);
        } else if self.peeks.len() >= self.settings.waiting_peeks_max {
            let error = refused(ErrorCode::TooBusy, format!("{} readers wait", self.peeks.len()));
            effects.push(Effect::Answer(reply_to, Err(error)));
        } else {
            self.peeks.insert(reply_to, request);
        }
    }

    fn on_peek_expired(&mut self, reply_to: ReplyTo, effects: &mut Vec<Effect>) {
        if let Some(request) = self.peeks.remove(&reply_to) {
            self.answer_peek(request, reply_to, effects);
        }
    }

    /// A reader also learns that versions have passed without a message for it, so every sync is news to all.
    fn wake_peeks(&mut self, effects: &mut Vec<Effect>) {
        let is_final = self.is_final();
        for (reply_to, request) in std::mem::take(&mut self.peeks) {
            if request.after_version < self.durable_version || is_final {
                self.answer_peek(request, reply_to, effects);
            } else {
                self.peeks.insert(reply_to, request);
            }
        }
    }

    fn answer_peek(&self, request: PeekRequest, reply_to: ReplyTo, effects: &mut Vec<Effect>) {
        let mut reply = PeekReply {
            messages: Vec::new(),
            through_version: self.durable_version,
            known_committed_version: self.known_committed_version,
            popped_version: self.popped_version(request.tag),
            locked: self.is_final(),
        };
        if request.after_version < self.recent.floor_version()
            && let Some(extent) = self.layout.locate(request.after_version, self.durable_end)
        {
            mark(Mark::PeekFromDisk);
            let plan = ReadPlan { request, instance: self.state.instance, extent, reply };
            return effects.push(Effect::ReadDisk(reply_to, plan));
        }
        if request.after_version < self.durable_version {
            let bytes_max = (request.bytes_max as usize).min(PEEK_BYTES_MAX);
            let after_version = request.after_version.max(self.recent.floor_version());
            (reply.messages, reply.through_version) =
                self.recent.read(request.tag, after_version, self.durable_version, bytes_max);
        }
        effects.push(Effect::Answer(reply_to, Ok(Reply::Peek(reply))));
    }

    /// Messages of a tag up to here may be gone.
    fn popped_version(&self, tag: Tag) -> Version {
        let popped = self.popped.get(&tag).copied().unwrap_or_default();
        let dropped = self.state.dropped.get(&tag).copied().unwrap_or_default();
        popped.max(dropped).max(self.state.begin_version)
    }

    /// Whether no push will ever succeed again, and all that did is durable.
    fn is_final(&self) -> bool {
        self.saved.locked_generation > self.state.generation
            && self.durable_version == self.appended_version
    }

    /// Where batches are that a log of a later generation asks for; `None` if there are none.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Unavailable`] unless the log is locked, [`ErrorCode::InvalidArgument`] unless it has all of them on disk.
    pub fn plan_copy(&self, request: &CopyRequest) -> Result<Option<CopyPlan>> {
        let is_locked = self.is_final();
        if !is_locked || request.through_version > self.durable_version {
            let (code, how) = match is_locked {
                true => (ErrorCode::InvalidArgument, "locked"),
                false => (NOT_LOCKED, "not locked"),
            };
            let detail = format!(
                "a copy through {}, of a log that is at {} and {how}",
                request.through_version, self.durable_version
            );
            return Err(refused(code, detail));
        }
        let extent = self.layout.locate(request.after_version, self.durable_end);
        Ok(extent.map(|extent| CopyPlan { instance: self.state.instance, extent }))
    }

    fn on_pop(&mut self, tag: Tag, through_version: Version, effects: &mut Vec<Effect>) {
        if tag == Tag::METADATA {
            // The version comes from the network: there may be none after it.
            self.metadata = self.metadata.split_off(&through_version.saturating_add(1));
        }
        self.recent.pop(tag, through_version, self.durable_version);
        // Tags come from the network: those without messages here are not worth remembering.
        if !self.layout.has_tag(tag) {
            return;
        }
        if planted(Plant::PopTooEarly) {
            self.popped.extend(self.layout.tags().into_iter().map(|tag| (tag, through_version)));
        }
        let popped = self.popped.entry(tag).or_default();
        *popped = through_version.max(*popped);
        self.reclaim(effects);
    }

    fn reclaim(&mut self, effects: &mut Vec<Effect>) {
        if self.failure.is_some() {
            return;
        }
        let mut has_reclaimed = false;
        while let Some(dropped) = self.layout.reclaim_first(self.durable_end.0, &self.popped) {
            self.state.dropped.extend(dropped);
            has_reclaimed = true;
        }
        if has_reclaimed {
            self.state.first_segment = self.layout.first_segment();
            self.popped.retain(|tag, _| self.layout.has_tag(*tag));
            self.persist_state(effects);
        }
    }

    // What the host asks.

    /// The number under which the log is reached.
    pub fn instance(&self) -> u64 {
        self.state.instance
    }

    /// The generation whose pushes it takes.
    pub fn generation(&self) -> Generation {
        self.state.generation
    }

    /// The first push comes after this version.
    pub fn begin_version(&self) -> Version {
        self.state.begin_version
    }

    /// Whether pushes can succeed: not locked, and the disk has not failed.
    pub fn is_healthy(&self) -> bool {
        self.confirm(self.state.generation).is_ok()
    }

    /// How the disk has failed, if it has.
    pub fn failure(&self) -> Option<Error> {
        self.failure.clone()
    }

    /// Everything up to here is on disk.
    pub fn durable_version(&self) -> Version {
        self.durable_version
    }

    /// Everything up to here is on all logs of the set.
    pub fn known_committed_version(&self) -> Version {
        self.known_committed_version
    }

    /// The tags that there are messages of.
    pub fn tags(&self) -> BTreeSet<Tag> {
        self.layout.tags()
    }

    /// Bytes of records that wait for the disk.
    pub fn unsynced_bytes(&self) -> usize {
        self.unsynced_bytes
    }

    /// Bytes of the segments.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// About how much memory the messages take that are kept for readers.
    pub fn memory_bytes(&self) -> u64 {
        self.recent.bytes() as u64
    }

    /// Whether a segment is still there.
    pub fn has_segment(&self, segment: u64) -> bool {
        self.layout.has_segment(segment)
    }

    /// The state to write when the log is retired.
    pub(super) fn retired_state(&self) -> State {
        State { retired: true, ..self.state.clone() }
    }

    fn check_invariants(&self) {
        let (durable, appended) = (self.durable_version, self.appended_version);
        assert!(durable <= appended, "durable {durable} beyond appended {appended} (I-5)");
        assert!(
            self.unsynced.back().map_or(durable, |last| last.commit_version) == appended,
            "what is appended and not durable must be unsynced"
        );
        assert!(
            self.early.first_key_value().is_none_or(|(previous, _)| *previous > appended),
            "a push waits although its predecessor {appended} is appended (I-7)"
        );
        let (saved, locked) = (self.saved.locked_generation, self.state.locked_generation);
        assert!(saved <= locked, "lock {locked} is behind the state file's {saved} (I-8)");
    }
}

fn message_bytes(request: &PushRequest) -> usize {
    request.messages.iter().map(|(_, message)| message.len()).sum()
}

fn answer_all(reply_to: &[ReplyTo], answer: &Result<Reply>, effects: &mut Vec<Effect>) {
    effects.extend(reply_to.iter().map(|reply_to| Effect::Answer(*reply_to, answer.clone())));
}

#[cfg(test)]
mod tests;
