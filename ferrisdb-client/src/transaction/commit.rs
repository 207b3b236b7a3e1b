//! The life of a transaction: its commit, its end, and the attempts that follow an error.
//!
//! An attempt whose answer was lost leaves its fate open: the next one finds out before it commits (I-6).
//! Start with [`Transaction::commit`].

use ferrisdb_core::simulation::{Mark, mark};

use super::*;

/// The life of a transaction.
impl Transaction {
    pub(crate) fn new(database: Database) -> Transaction {
        let options = database.defaults();
        let started = runtime::now();
        let timer = Timer::new(options.timeout.map(|timeout| started + timeout));
        let state = State {
            attempt: 0,
            phase: Phase::Open,
            options,
            started,
            timer,
            backoff: Backoff::default(),
            fate: Fate::Closed,
            settles: Settles::InCommit,
            work: Work::default(),
            committed: None,
            conflicting_ranges: Vec::new(),
            stamps: Stamps::default(),
        };
        let shared = Shared { database, state: Mutex::new(state), turns: Turns::default() };
        Transaction { shared: Arc::new(shared) }
    }

    /// Has the first commit draw an idempotency id, by which `run_transaction` finds out what became of it.
    pub(crate) fn draw_idempotency_id(&self) {
        let mut state = self.shared.state.lock();
        state.options.draws_idempotency_id = true;
        state.settles = Settles::BeforeNextAttempt;
    }

    /// Sets an option.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::TransactionOption;
    /// transaction.set_option(TransactionOption::Timeout(std::time::Duration::from_secs(3)))?;
    /// transaction.set_option(TransactionOption::RetryLimit(Some(10)))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] if the option does not take the value, or not at this point.
    pub fn set_option(&self, option: TransactionOption) -> Result<()> {
        let mut state = match option {
            // What governs the transaction as a whole may change while it is committed, and the commit follows.
            TransactionOption::Timeout(_)
            | TransactionOption::RetryLimit(_)
            | TransactionOption::RetryDelayMax(_) => self.not_cancelled()?,
            _ => self.open()?,
        };
        // A read version alone is no operation yet.
        if option == TransactionOption::ReadYourWritesDisabled && state.work.is_begun() {
            let detail = "reads can be turned away from own writes before the first operation only";
            return Err(Error::new(ErrorCode::InvalidArgument, Stage::Client, detail));
        }
        let is_in_doubt = state.fate != Fate::Closed && state.options.idempotency_id.is_some();
        if is_in_doubt && matches!(option, TransactionOption::IdempotencyId(_)) {
            // By its id the attempt before is found out.
            return Ok(());
        }
        state.options.set(option)?;
        // It may have been the timeout.
        let deadline = state.deadline();
        state.timer.set(deadline);
        state.work.watches.iter().for_each(|watch| watch.set_deadline(deadline));
        Ok(())
    }

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
        let (call, outstanding) = {
            let mut state = self.open()?;
            state.phase = Phase::Closing;
            (state.call(), Arc::clone(&state.work.outstanding))
        };
        // In a box, as the reads are: see `Transaction::read_key`.
        let result = self.close_and_commit(&call, &outstanding).boxed().await;
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

    /// Commits once the reads have ended that were begun before: what they see is part of the transaction, and so is that they
    /// fail, see [`Outstanding`].
    async fn close_and_commit(&self, call: &Call, outstanding: &Outstanding) -> Result<Committed> {
        let unheard = match planted(Plant::CommitBeforeReads) {
            true => None,
            false => call.timer.within(async { Ok(outstanding.all_ended().await) }).await?,
        };
        {
            let mut state = self.shared.state.lock();
            if state.attempt != call.attempt || state.phase != Phase::Closing {
                return Err(cancelled());
            }
            let heard = state.options.reads_fail_commit.then(|| outstanding.first_error());
            if let Some(failed) = heard.flatten().or(unheard) {
                return Err(failed);
            }
            state.phase = Phase::Committing;
        }
        self.commit_attempt(call).await
    }

    async fn commit_attempt(&self, call: &Call) -> Result<Committed> {
        let Some((fate, options)) = self.to_commit(call)? else {
            let version = call.read_version.get().unwrap_or_default();
            return Ok(Committed { version, versionstamp: None });
        };
        let read_version = call.timer.in_time(self.version_to_commit(call, fate)).await?;
        let options = match options.draws_idempotency_id && fate == Fate::Closed {
            true => self.draw_id(call, read_version)?,
            false => options,
        };
        let (id, before) = (options.idempotency_id, options.record_before);
        if let (Some(after), Some(id)) = (fate.to_look_for(read_version), id) {
            let found = self.find_record(call, id, before, after, read_version);
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
                return self.settle(call, &options, fence, sent_at, error).await;
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

    /// The commit got no answer: sees to it that its outcome is known before anything new is sent, as far as there is something
    /// to know it by. `sent_at` is a version that it comes after, if it has taken effect.
    async fn settle(
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
    fn draw_id(&self, call: &Call, read_version: Version) -> Result<TransactionOptions> {
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
    fn acknowledge(
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

    /// What a commit has to regard; `None` if there is nothing to commit.
    fn to_commit(&self, call: &Call) -> Result<Option<(Fate, TransactionOptions)>> {
        let state = self.committing(call)?;
        let is_empty = state.work.writes.is_empty() && state.work.write_conflicts.is_empty();
        // An earlier attempt may be on its way: only a commit that writes the record keeps it out.
        if is_empty && state.fate == Fate::Closed {
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

    /// After an error of this transaction: makes it ready to be tried again, after a delay, if that may help.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// loop {
    ///     transaction.add("visits", 1)?;
    ///     match transaction.commit().await {
    ///         Ok(_) => break,
    ///         Err(error) => transaction.on_error(error).await?,
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The same error if it does not help, or if the limit of retries is reached; the transaction is cancelled
    /// then. [`ErrorCode::TransactionTimedOut`] if its time is over.
    pub async fn on_error(&self, error: Error) -> Result<()> {
        if error.is_maybe_committed() {
            self.set_fate_open();
        }
        // The reset comes first: should the caller stop waiting, the transaction is clean all the same.
        let delay = self.plan_retry(error)?;
        let timer = {
            let mut state = self.shared.state.lock();
            // Whatever the error is about, a commit may be on its way, or have been sent without an answer: nothing is sent
            // before there is a version to read at.
            let is_on_its_way =
                state.phase == Phase::Committing && state.work.read_version.get().is_some();
            if is_on_its_way || state.work.is_in_doubt {
                state.open_fate();
            }
            let options = state.options.after_error(&self.shared.database.defaults());
            state.begin_attempt(options);
            Arc::clone(&state.timer)
        };
        wait(delay, &timer).boxed().await
    }

    /// Forgets everything, options included, as if the transaction was new.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// transaction.reset();
    /// assert_eq!(transaction.get("k").await?, None);
    /// # Ok(()) }
    /// ```
    pub fn reset(&self) {
        let mut state = self.shared.state.lock();
        state.started = runtime::now();
        state.begin_attempt(self.shared.database.defaults());
        state.backoff = Backoff::default();
        state.fate = Fate::Closed;
    }

    /// Ends the transaction: every further call fails, until it is reset.
    ///
    /// A commit under way goes on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::ErrorCode;
    /// transaction.cancel();
    /// let error = transaction.get("k").await.unwrap_err();
    /// assert_eq!(error.code(), ErrorCode::TransactionCancelled);
    /// # Ok(()) }
    /// ```
    pub fn cancel(&self) {
        let mut state = self.shared.state.lock();
        state.phase = Phase::Cancelled;
        state.timer.end();
        state.stamps = Stamps::default();
        state.work.watches.clear();
    }

    /// Whether its time is over: all that is still asked of it fails with [`ErrorCode::TransactionTimedOut`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::TransactionOption;
    /// transaction.set_option(TransactionOption::Timeout(std::time::Duration::from_secs(60)))?;
    /// assert!(!transaction.is_timed_out());
    /// # Ok(()) }
    /// ```
    pub fn is_timed_out(&self) -> bool {
        self.shared.state.lock().check_time().is_err()
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

    /// The bytes of mutations and conflict ranges so far, which count against the transaction's limit: of what will be
    /// committed, without what was overwritten or cleared since.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// assert_eq!(transaction.approximate_size(), 0);
    /// transaction.set("k", vec![0; 100])?;
    /// assert!(transaction.approximate_size() > 100);
    /// # Ok(()) }
    /// ```
    pub fn approximate_size(&self) -> usize {
        self.shared.state.lock().work.size()
    }

    /// How many ranges may be a conflict because they were read, and the bytes of their ends; also of those that were added by
    /// hand to no effect, over own writes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.add_read_conflict_range("a".."bc")?;
    /// assert_eq!(transaction.read_conflicts_size(), (1, 3));
    /// # Ok(()) }
    /// ```
    pub fn read_conflicts_size(&self) -> (usize, usize) {
        let state = self.shared.state.lock();
        let (conflicts, unobserved) = (&state.work.read_conflicts, state.work.unobserved);
        (conflicts.len() + unobserved.0, conflicts.bytes() + unobserved.1)
    }

    /// After a conflict: the reads that were concerned, with the versions at which they were overtaken; sixteen at most
    /// without [`TransactionOption::ReportConflicts`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.get("k").await?;
    /// transaction.set("result", "1")?;
    /// let other = database.transaction();
    /// other.set("k", "v")?;
    /// let committed = other.commit().await?;
    ///
    /// assert!(transaction.commit().await.is_err());
    /// let conflict = &transaction.conflicting_ranges()[0];
    /// assert!(conflict.range.contains(b"k"));
    /// assert_eq!(conflict.written_at, committed.version);
    /// # Ok(()) }
    /// ```
    pub fn conflicting_ranges(&self) -> Vec<ConflictingRange> {
        self.shared.state.lock().conflicting_ranges.clone()
    }
}

/// For the special keyspace.
impl Transaction {
    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    /// What was read so far, once the reads under way have ended.
    pub(crate) async fn read_conflicts(&self) -> Vec<KeyRange> {
        let outstanding = Arc::clone(&self.shared.state.lock().work.outstanding);
        outstanding.all_ended().await;
        self.shared.state.lock().work.read_conflicts.iter().collect()
    }

    /// What was written so far.
    pub(crate) fn write_conflicts(&self) -> Vec<KeyRange> {
        let state = self.shared.state.lock();
        state.work.possible_write_conflicts(&state.options.read_end()).iter().collect()
    }

    pub(crate) fn reads_special_keys_relaxed(&self) -> bool {
        self.shared.state.lock().options.special_keys_relaxed
    }
}

/// For `run_transaction`.
impl Transaction {
    /// The next attempt, as a transaction of its own: clones of this one that the body left behind cannot
    /// write into it.
    pub(crate) fn successor(&self) -> Transaction {
        let state = self.shared.state.lock();
        let database = self.shared.database.clone();
        let successor = Transaction::new(database);
        {
            let mut next = successor.shared.state.lock();
            next.attempt = state.attempt + 1;
            next.options = state.options.after_error(&self.shared.database.defaults());
            next.started = state.started;
            let deadline = next.deadline();
            next.timer.set(deadline);
            next.backoff = state.backoff;
            next.fate = state.fate.of_next_attempt();
            next.settles = state.settles;
        }
        successor
    }

    /// Waits until it is time for the next attempt.
    pub(crate) async fn wait_to_retry(&self, error: Error) -> Result<()> {
        let delay = self.plan_retry(error)?;
        let timer = Arc::clone(&self.shared.state.lock().timer);
        wait(delay, &timer).boxed().await
    }

    /// Commits, unless the body has done so itself.
    pub(crate) async fn commit_unless_done(&self) -> Result<()> {
        if self.committed().is_none() {
            self.commit().await?;
        }
        Ok(())
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

    /// The record of an id, at a version, if it is later than what an earlier use of the id has left (`before`). Its
    /// key becomes a read conflict with the commit.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::CommitUnknownResult`] if there is none but may have been one: records of commits `after` that
    /// version were swept.
    async fn find_record(
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

fn not_committed(detail: &str) -> Error {
    Error::new(ErrorCode::NotCommitted, Stage::Resolve, detail)
}

fn swept() -> Error {
    let detail =
        "an earlier attempt got no answer, too long ago to find out: its record may be gone";
    Error::new(ErrorCode::CommitUnknownResult, Stage::Commit, detail)
}
