//! What became of a commit whose answer was lost (I-6).
//!
//! ```text
//!             no answer            no record at this version
//!   Closed -----------> Open --------------------------------> Excluded
//!     ^                 | | ^                                     |
//!     +-- settled: no --+ | +----------- the next attempt --------+
//!                         +--> Lost: the record may have been there, and be gone
//! ```
//!
//! A commit with an id leaves a record, see [`exactly_once`]. An attempt whose answer was lost leaves its fate open: the next
//! one finds out before it commits. Start with [`Fate`], then [`Transaction::settle`].

use ferrisdb_core::{
    idempotency,
    simulation::{Mark, mark},
    transaction::IdempotencyId,
};

use super::*;
use crate::exactly_once::{self, Record};

/// What is known of the attempts before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// None of them is committed, or ever will be.
    Closed,
    /// One may be, or may come to be: its record has to be looked for, and kept out. If it is committed, then
    /// after the version `after`.
    Open { after: Version },
    /// The record was looked for at the version `at`, and is not there. At a later version it may be.
    Excluded { after: Version, at: Version },
    /// The record was looked for too late: it may have been there once, and have been swept.
    Lost,
}

/// When the outcome of a commit with an id is found out whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settles {
    /// Before the commit returns: the caller cannot do it, and must not do anything else before it is known.
    InCommit,
    /// Before the next attempt: `run_transaction` keeps what the body has returned until then.
    BeforeNextAttempt,
}

/// At the end of a commit.
impl Transaction {
    /// The commit got no answer: sees to it that its outcome is known before anything new is sent, as far as there is something
    /// to know it by. `sent_at` is a version that it comes after, if it has taken effect.
    pub(super) async fn settle(
        &self,
        call: &Call,
        options: &TransactionOptions,
        fence: Option<exactly_once::Fence>,
        sent_at: Version,
        unknown: Error,
    ) -> Result<Committed> {
        let cluster = self.shared.database.cluster();
        let Some(id) = options.idempotency_id else {
            if let Some(fence) = fence {
                // Whether or not there was time for that, this is what the caller has to know.
                let _ = call.timer.in_time(fence.close(cluster)).await;
            }
            return Err(unknown);
        };
        let settles = self.shared.state.lock().settles;
        if settles == Settles::BeforeNextAttempt || planted(Plant::RedrawId) {
            return Err(unknown);
        }
        let found = self.find_out(call, id, options.record_before, sent_at);
        match call.timer.in_time(found).await {
            Ok((_, Some(record))) => {
                mark(Mark::SettledCommitted);
                self.acknowledge(call, options, id, record.committed().version);
                Ok(record.committed())
            }
            Ok((version, None)) => {
                mark(Mark::SettledNotCommitted);
                let mut state = self.shared.state.lock();
                if state.attempt == call.attempt {
                    // To read before the fence would be a conflict with it, as with a record.
                    state.options.record_before = version;
                    state.fate = Fate::Closed;
                }
                Err(not_committed("its answer was lost, and it did not take effect"))
            }
            // Its record may have been swept: nobody can find out any more.
            Err(error) if error.is_maybe_committed() => Err(error),
            Err(_) => Err(unknown),
        }
    }

    /// What became of a commit that got no answer: its record, if it has taken effect; otherwise it never will. And a version
    /// by which that is so.
    async fn find_out(
        &self,
        call: &Call,
        id: IdempotencyId,
        before: Version,
        sent_at: Version,
    ) -> Result<(Version, Option<Record>)> {
        let cluster = self.shared.database.cluster();
        let fence = exactly_once::Fence::of_id(id);
        loop {
            let found = async {
                let version = match planted(Plant::LookWithoutFence) {
                    true => cluster.read_version(call.priority).await?,
                    false => fence.close(cluster).await?,
                };
                let mut record = self.find_record(call, id, before, sent_at, version).await?;
                if let Some(found) = &mut record
                    && planted(Plant::FoundAtWrongVersion)
                {
                    found.versionstamp.commit_version = version;
                }
                Ok((version, record))
            };
            match found.await {
                Err(error) if exactly_once::passes(&error) && !error.is_maybe_committed() => {
                    tracing::debug!(%error, "finding out what became of a commit");
                    exactly_once::pause().await;
                }
                known => return known,
            }
        }
    }

    /// Draws an id for this attempt and those after it, unless there is one whose record is no conflict at this version:
    /// attempts may read at older versions than those before them.
    pub(super) fn draw_id(&self, call: &Call, read_version: Version) -> Result<TransactionOptions> {
        let mut state = self.committing(call)?;
        let ids = self.shared.database.acknowledged_ids();
        let options = &mut state.options;
        if let Some(id) = options.idempotency_id.filter(|_| options.record_before > read_version) {
            ids.give_back(id, options.record_before);
            options.idempotency_id = None;
        }
        if options.idempotency_id.is_none() {
            let (id, before) = ids.draw(read_version);
            options.idempotency_id = Some(id);
            options.record_before = before;
        }
        Ok(options.clone())
    }

    /// It is known that the transaction of an id was committed: nobody will look at its record any more.
    pub(super) fn acknowledge(
        &self,
        call: &Call,
        options: &TransactionOptions,
        id: IdempotencyId,
        committed: Version,
    ) {
        let ids = self.shared.database.acknowledged_ids();
        let mut state = self.shared.state.lock();
        let is_over = state.attempt != call.attempt;
        if is_over && state.options.idempotency_id == Some(id) {
            // The caller did not wait for this. The attempt that has followed has to find the record.
            return;
        }
        match options.draws_idempotency_id {
            true => {
                // Somebody else may draw it from here on. After a reset there is another transaction, with its own id.
                if !is_over {
                    state.options.idempotency_id = None;
                }
                drop(state);
                ids.give_back(id, committed);
            }
            false => {
                drop(state);
                ids.add(id);
            }
        }
    }

    /// The record of an id, at a version, if it is later than what an earlier use of the id has left (`before`). Its
    /// key becomes a read conflict with the commit.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::CommitUnknownResult`] if there is none but may have been one: records of commits `after` that
    /// version were swept.
    pub(super) async fn find_record(
        &self,
        call: &Call,
        id: IdempotencyId,
        before: Version,
        after: Version,
        read_version: Version,
    ) -> Result<Option<Record>> {
        let (found, mark) = futures::future::try_join(
            self.fetch_key_at(read_version, &idempotency::record_key(id)),
            self.fetch_key_at(read_version, &idempotency::swept_key()),
        )
        .await?;
        let Some(found) = found else {
            let swept_version =
                mark.map_or(Some(Version::ZERO), |mark| idempotency::swept_version(&mark.value));
            let swept_version = swept_version.ok_or_else(|| {
                let detail = "the version up to which records were swept cannot be read";
                Error::new(ErrorCode::Corrupt, Stage::Read, detail)
            })?;
            if swept_version <= after {
                return Ok(None);
            }
            let mut state = self.shared.state.lock();
            if state.attempt == call.attempt {
                state.fate = Fate::Lost;
            }
            return Err(swept());
        };
        let record = Record::decode(&found.value).ok_or_else(|| {
            let detail = format!("the record of id {id:032x} is {}", found.value);
            Error::new(ErrorCode::Corrupt, Stage::Read, detail)
        })?;
        // Or else it is of the transaction that has used the id before this one.
        Ok(Some(record).filter(|record| record.versionstamp.commit_version > before))
    }
}

/// For `run_transaction`.
impl Transaction {
    /// Has the first commit draw an idempotency id, by which `run_transaction` finds out what became of it.
    pub(crate) fn draw_idempotency_id(&self) {
        let mut state = self.shared.state.lock();
        state.options.draws_idempotency_id = true;
        state.settles = Settles::BeforeNextAttempt;
    }

    /// The commit of an attempt before this one of which nothing was known, if there was one.
    pub(crate) async fn earlier_commit(&self) -> Result<Option<Record>> {
        let (call, fate, options) = {
            let state = self.open()?;
            (state.call(), state.fate, state.options.clone())
        };
        let (Fate::Open { after }, Some(id)) = (fate, options.idempotency_id) else {
            return Ok(None);
        };
        let found = async {
            // Not the attempt's read version: the body may name one.
            let at = self.shared.database.cluster().read_version(call.priority).await?;
            let record = self.find_record(&call, id, options.record_before, after, at).await?;
            Ok((at, record))
        };
        let (at, record) = call.timer.within(found).boxed().await?;
        match record {
            Some(record) => {
                mark(Mark::FoundCommitted);
                self.acknowledge(&call, &options, id, record.committed().version);
            }
            None => {
                mark(Mark::FoundNotCommitted);
                let mut state = self.still_open(&call)?;
                state.fate = Fate::Excluded { after, at };
                state.work.own_version = Some(at);
            }
        }
        Ok(record)
    }

    /// Whether this is the attempt of a record; remembers the commit if it is.
    pub(crate) fn is_attempt(&self, record: Record) -> bool {
        let mut state = self.shared.state.lock();
        let is_it = state.attempt == record.attempt;
        if is_it {
            state.committed = Some(record.committed());
            state.arm_watches(&self.shared.database, record.committed().version);
        }
        is_it
    }

    pub(crate) fn is_fate_open(&self) -> bool {
        self.shared.state.lock().fate != Fate::Closed
    }

    /// The commit got no answer. Without an id there is nothing to find out by.
    pub(crate) fn set_fate_open(&self) {
        self.shared.state.lock().open_fate();
    }
}

impl State {
    /// The commit got no answer. Without an id there is nothing to find out by.
    pub(super) fn open_fate(&mut self) {
        if self.options.idempotency_id.is_none() || planted(Plant::ResendUnknown) {
            return;
        }
        // An attempt is committed after the version that it has read at, if it is.
        let sent_at = self.work.read_version.get().unwrap_or(Version::ZERO);
        self.fate = match self.fate {
            Fate::Closed => Fate::Open { after: sent_at },
            Fate::Open { after } | Fate::Excluded { after, .. } => {
                Fate::Open { after: after.min(sent_at) }
            }
            Fate::Lost => Fate::Lost,
        };
    }
}

impl Fate {
    /// What was excluded at one read version is open again at the next.
    pub(super) fn of_next_attempt(self) -> Fate {
        match self {
            Fate::Closed => Fate::Closed,
            Fate::Open { after } | Fate::Excluded { after, .. } => Fate::Open { after },
            Fate::Lost => Fate::Lost,
        }
    }

    /// After which version the record has to be looked for by an attempt that reads at `read_version`. At one that was looked
    /// at, or before, a record written later is a conflict.
    pub(super) fn to_look_for(self, read_version: Version) -> Option<Version> {
        match self {
            Fate::Open { after } => Some(after),
            Fate::Excluded { after, at } if read_version > at => Some(after),
            Fate::Closed | Fate::Excluded { .. } | Fate::Lost => None,
        }
    }
}

impl Record {
    pub(super) fn committed(self) -> Committed {
        let versionstamp = self.versionstamp;
        Committed { version: versionstamp.commit_version, versionstamp: Some(versionstamp) }
    }
}

pub(super) fn swept() -> Error {
    let detail =
        "an earlier attempt got no answer, too long ago to find out: its record may be gone";
    Error::new(ErrorCode::CommitUnknownResult, Stage::Commit, detail)
}
