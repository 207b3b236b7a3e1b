//! One attempt after another: what ends one, and what the next one begins with.
//!
//! ```text
//!                       options            time, retries     what became of commits
//!   on_error            those that stay    go on             stays open (I-6)
//!   successor           those that stay    go on             stays open, for `run_transaction`
//!   reset               the handle's       from the start    forgotten
//! ```
//!
//! Start with [`Transaction::on_error`].

use super::*;

/// The end of an attempt.
impl Transaction {
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
        self.shared.state.lock().end_for_good();
    }

    /// When to try again after an error; the error, if not at all.
    fn plan_retry(&self, error: Error) -> Result<Duration> {
        let mut state = self.shared.state.lock();
        state.check_time()?;
        if state.phase == Phase::Cancelled {
            return Err(cancelled());
        }
        let options = state.options.clone();
        // Whoever cannot find out any more what became of an attempt must not make another one.
        let retried = (state.fate != Fate::Lost).then(|| state.backoff.next(&error, &options));
        let Some(delay) = retried.flatten() else {
            state.end_for_good();
            return Err(error);
        };
        Ok(delay)
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
}

impl State {
    /// There is no attempt after this one: whoever waits for something of it hears so. Those that wait for the versionstamp of a
    /// commit that has ended were told before.
    fn end_for_good(&mut self) {
        self.phase = Phase::Cancelled;
        self.timer.end();
        self.stamps = Stamps::default();
        self.work.watches.clear();
    }

    fn begin_attempt(&mut self, options: TransactionOptions) {
        self.attempt += 1;
        self.phase = Phase::Open;
        self.options = options;
        self.timer.end();
        self.timer = Timer::new(self.deadline());
        self.fate = self.fate.of_next_attempt();
        self.work = Work::default();
        self.committed = None;
        self.conflicting_ranges.clear();
        self.stamps = Stamps::default();
    }
}

/// Waits for a while, but not past the transaction's deadline.
async fn wait(delay: Duration, timer: &Timer) -> Result<()> {
    let pause = async {
        runtime::sleep(delay).await;
        Ok(())
    };
    timer.within(pause).await
}
