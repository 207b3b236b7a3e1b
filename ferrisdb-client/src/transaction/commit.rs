//! The commit of a transaction: it sees the reads under way to their end, is sent, and its answer ends the attempt.
//!
//! A transaction that has written nothing, and whose reads have ended, commits without asking anybody.
//!
//! What follows when there is no answer is in `fate.rs`, what follows an error in `attempts.rs`. Start with
//! [`Transaction::commit`].

use std::sync::atomic::{AtomicBool, Ordering};

use ferrisdb_core::transaction::{CommitOutcome, CommitRequest};

use super::{fate::swept, *};
use crate::exactly_once;

/// The commit.
impl Transaction {
    /// Commits: makes all writes take effect at once, or none of them.
    ///
    /// A transaction that wrote nothing commits without asking anybody. After an error, pass it to
    /// [`Transaction::on_error`] to try again. If the future is dropped before it is ready, the transaction may
    /// be committed or not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// let committed = transaction.commit().await?;
    /// println!("committed at version {}", committed.version);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotCommitted`] after a conflict; [`ErrorCode::CommitUnknownResult`] if nobody knows (I-6), also because the
    /// transaction's time was over before the answer came; after any other error the transaction did not take effect. If a read of
    /// the transaction has failed and nobody has heard of that yet, its error.
    pub async fn commit(&self) -> Result<Committed> {
        let (call, outstanding, writes_nothing) = {
            let mut state = self.open()?;
            state.phase = Phase::Closing;
            let outstanding = Arc::clone(&state.work.outstanding);
            (state.call(), outstanding, state.has_nothing_to_commit())
        };
        let is_settled = outstanding.is_settled() || planted(Plant::CommitBeforeReads);
        let result = match writes_nothing && is_settled {
            true => Ok(call.committed_nothing()),
            // In a box, as the reads are: see `Joint`.
            false => {
                let reads = (!is_settled).then_some(&*outstanding);
                self.close_and_commit(&call, reads).boxed().await
            }
        };
        let mut state = self.shared.state.lock();
        let is_committing = matches!(state.phase, Phase::Closing | Phase::Committing);
        if state.attempt == call.attempt && is_committing {
            state.end_commit(&self.shared.database, &result);
        }
        result
    }

    /// Gives the commit under way up, if there is one: whoever waits for its versionstamp, and the watches that it would arm, hear
    /// this error. For whoever has dropped its future. It may take effect all the same.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::{Error, ErrorCode, Stage};
    /// let stamp = transaction.versionstamp();
    /// let mut commit = Box::pin(transaction.commit());
    /// let _ = futures::poll!(&mut commit);
    /// drop(commit);
    /// transaction.abandon_commit(Error::new(ErrorCode::UsedDuringCommit, Stage::Client, ""));
    /// assert!(stamp.await.is_err());
    /// # Ok(()) }
    /// ```
    pub fn abandon_commit(&self, error: Error) {
        let mut state = self.shared.state.lock();
        if matches!(state.phase, Phase::Closing | Phase::Committing) {
            state.work.is_in_doubt = state.phase == Phase::Committing;
            state.end_commit(&self.shared.database, &Err(error));
        }
    }

    /// How the transaction was committed, once it was.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// assert_eq!(transaction.committed(), None);
    /// let committed = transaction.commit().await?;
    /// assert_eq!(transaction.committed(), Some(committed));
    /// # Ok(()) }
    /// ```
    pub fn committed(&self) -> Option<Committed> {
        self.shared.state.lock().committed
    }

    /// The commit version, once the transaction was committed; `None` if it wrote nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.get("k").await?;
    /// transaction.commit().await?;
    /// assert_eq!(transaction.committed_version(), None, "it wrote nothing");
    /// # Ok(()) }
    /// ```
    pub fn committed_version(&self) -> Option<Version> {
        let committed = self.committed()?;
        committed.versionstamp.map(|_| committed.version)
    }

    /// Commits, unless the body has done so itself.
    pub(crate) async fn commit_unless_done(&self) -> Result<()> {
        if self.committed().is_none() {
            self.commit().await?;
        }
        Ok(())
    }

    /// Commits once the reads have ended that were begun before: what they see is part of the transaction, and so is that they
    /// fail, see [`Outstanding`]. Without `reads` there is none to wait for.
    async fn close_and_commit(
        &self,
        call: &Call,
        reads: Option<&Outstanding>,
    ) -> Result<Committed> {
        let failed = match reads {
            None => None,
            Some(reads) => {
                let fails_with_reads = self.shared.state.lock().options.reads_fail_commit;
                let ended = async {
                    Ok(match fails_with_reads {
                        true => reads.ended_or_failed().await,
                        false => reads.all_ended().await,
                    })
                };
                call.timer.within(ended).await?
            }
        };
        {
            let mut state = self.shared.state.lock();
            if state.attempt != call.attempt || state.phase != Phase::Closing {
                return Err(cancelled());
            }
            if let Some(failed) = failed {
                return Err(failed);
            }
            state.phase = Phase::Committing;
        }
        self.commit_attempt(call).await
    }

    async fn commit_attempt(&self, call: &Call) -> Result<Committed> {
        let Some((fate, options)) = self.to_commit(call)? else {
            return Ok(call.committed_nothing());
        };
        let read_version = match call.read_version.get() {
            Some(known) => known,
            None => call.timer.in_time(self.version_to_commit(call, fate)).await?,
        };
        let options = match options.draws_idempotency_id && fate == Fate::Closed {
            true => self.draw_id(call, read_version)?,
            false => options,
        };
        let (id, before) = (options.idempotency_id, options.record_before);
        if let (Some(after), Some(id)) = (fate.to_look_for(read_version), id) {
            let found = self.find_record(call, id, before, after, read_version).boxed();
            if let Some(record) = call.timer.in_time(found).await? {
                if matches!(fate, Fate::Excluded { .. }) {
                    // It came between the look and the version that the caller has set. What it returned is to count.
                    self.committing(call)?.fate = Fate::Open { after };
                    return Err(not_committed("an earlier attempt has taken effect meanwhile"));
                }
                self.acknowledge(call, &options, id, record.committed().version);
                return Ok(record.committed());
            }
        }
        if fate == Fate::Lost {
            return Err(swept());
        }
        let mut request = self.request(call, &options, read_version)?;
        let acknowledged_ids = self.shared.database.acknowledged_ids();
        let clearing = id.map(|id| {
            exactly_once::add_record(&mut request, id, call.attempt);
            acknowledged_ids.clear_some(&mut request)
        });
        let fence = (clearing.is_none() && !options.causal_write_risky)
            .then(|| exactly_once::Fence::add_to(&mut request));
        let cluster = self.shared.database.cluster();
        let sent = AtomicBool::new(false);
        let outcome = match call.timer.in_time(cluster.commit(request, &sent)).await {
            Err(late) if late.code() == ErrorCode::TransactionTimedOut => {
                return Err(match sent.load(Ordering::Relaxed) {
                    true => late.with_code(ErrorCode::CommitUnknownResult),
                    false => late,
                });
            }
            Err(error) if error.is_maybe_committed() => {
                let fence = fence.filter(|_| !planted(Plant::ForgetFence));
                let sent_at = match fate {
                    Fate::Open { after } | Fate::Excluded { after, .. } => after.min(read_version),
                    Fate::Closed | Fate::Lost => read_version,
                };
                // In a box, as it is rare: every commit would carry its size.
                return self.settle(call, &options, fence, sent_at, error).boxed().await;
            }
            outcome => outcome?,
        };
        match outcome {
            CommitOutcome::Committed(committed) => {
                clearing.into_iter().for_each(exactly_once::Clearing::done);
                let versionstamp = committed.versionstamp;
                id.into_iter().for_each(|id| {
                    self.acknowledge(call, &options, id, versionstamp.commit_version)
                });
                Ok(Committed {
                    version: versionstamp.commit_version,
                    versionstamp: Some(versionstamp),
                })
            }
            CommitOutcome::Conflict(conflict) => {
                let mut state = self.shared.state.lock();
                if state.attempt == call.attempt {
                    state.note_conflicts(&conflict.reads);
                }
                Err(not_committed(""))
            }
        }
    }

    /// What a commit has to regard; `None` if there is nothing to commit.
    fn to_commit(&self, call: &Call) -> Result<Option<(Fate, TransactionOptions)>> {
        let state = self.committing(call)?;
        if state.has_nothing_to_commit() {
            return Ok(None);
        }
        Ok(Some((state.fate, state.options.clone())))
    }

    /// Makes the request of everything that was done.
    fn request(
        &self,
        call: &Call,
        options: &TransactionOptions,
        read_version: Version,
    ) -> Result<CommitRequest> {
        let mut state = self.committing(call)?;
        let work = &mut state.work;
        let size = work.size();
        if size > options.size_limit {
            let detail = format!("{size} bytes, {} are allowed", options.size_limit);
            return Err(Error::new(ErrorCode::TransactionTooLarge, Stage::Client, detail));
        }
        let request = CommitRequest {
            read_version,
            read_conflicts: work.read_conflicts.iter().collect(),
            write_conflicts: work.write_conflicts.iter().collect(),
            mutations: std::mem::take(&mut work.writes).mutations().collect(),
            idempotency_id: None,
            report_conflicts: options.report_conflicts,
            changes_shard_map: false,
            may_write_system_keys: options.write_system_keys,
        };
        request.check(Stage::Client)?;
        Ok(request)
    }
}

impl Call {
    fn committed_nothing(&self) -> Committed {
        let version = self.read_version.get().unwrap_or_default();
        Committed { version, versionstamp: None }
    }
}

impl State {
    fn has_nothing_to_commit(&self) -> bool {
        let is_empty = self.work.writes.is_empty() && self.work.write_conflicts.is_empty();
        // An earlier attempt may be on its way: only a commit that writes the record keeps it out.
        is_empty && self.fate == Fate::Closed
    }

    /// The commit of this attempt has ended.
    fn end_commit(&mut self, database: &Database, result: &Result<Committed>) {
        self.phase = Phase::Ended;
        self.committed = result.as_ref().ok().copied();
        self.work.failed = result.as_ref().err().cloned();
        self.work.is_in_doubt |= result.as_ref().is_err_and(Error::is_maybe_committed);
        self.stamps.tell(result);
        self.settle_watches(database, result);
    }
}

pub(super) fn not_committed(detail: &str) -> Error {
    Error::new(ErrorCode::NotCommitted, Stage::Resolve, detail)
}
