//! What may be done with a transaction, and when: each operation asks here before it begins, and again when it comes back.
//!
//! ```text
//!                    open()                not_cancelled()    still_reading(call)   still_open(call)      committing(call)
//!   Open             yes                   yes                yes                   yes                   cancelled
//!   Closing          used during commit    yes                yes                   yes                   cancelled
//!   Committing       used during commit    yes                used during commit    used during commit    yes
//!   Ended            used during commit    yes                yes                   why it failed         cancelled
//!   Cancelled        cancelled             cancelled          cancelled             cancelled             cancelled
//! ```
//!
//! All but the last also fail when the transaction's time is over. The last three fail in any other attempt than the call's.

use super::*;

/// What may be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Reads, writes, commit.
    Open,
    /// The commit waits for reads that were begun before it: they belong to the transaction.
    Closing,
    /// Nothing before the commit has ended, or a reset.
    Committing,
    /// Nothing but a reset, or `on_error`.
    Ended,
    /// Nothing but a reset.
    Cancelled,
}

/// Checks of the state.
impl Transaction {
    /// Whether an operation may begin now: neither the transaction's time is over, nor was it cancelled, nor has its commit begun.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// assert!(transaction.check_open().is_ok());
    /// transaction.cancel();
    /// assert!(transaction.check_open().is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The error that the operation would have.
    pub fn check_open(&self) -> Result<()> {
        self.open().map(drop)
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

    /// The state, if the transaction can be used.
    pub(super) fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        state.check_time()?;
        match state.phase {
            Phase::Open => Ok(state),
            Phase::Closing | Phase::Committing | Phase::Ended => Err(used_during_commit()),
            Phase::Cancelled => Err(cancelled()),
        }
    }

    /// The state, whether or not the transaction is being committed, or was.
    pub(super) fn not_cancelled(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        state.check_time()?;
        match state.phase {
            Phase::Open | Phase::Closing | Phase::Committing | Phase::Ended => Ok(state),
            Phase::Cancelled => Err(cancelled()),
        }
    }

    /// The state, if it is still the one that the call began in. A commit that has failed with one read has not waited for the
    /// others: what they have read is of use all the same.
    pub(super) fn still_reading(&self, call: &Call) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        state.check_time()?;
        match state.phase {
            _ if state.attempt != call.attempt => Err(cancelled()),
            Phase::Open | Phase::Closing | Phase::Ended => Ok(state),
            Phase::Committing => Err(used_during_commit()),
            Phase::Cancelled => Err(cancelled()),
        }
    }

    /// As [`Transaction::still_reading`], for what is to become part of the attempt: its commit must not have ended.
    pub(super) fn still_open(&self, call: &Call) -> Result<MutexGuard<'_, State>> {
        let state = self.still_reading(call)?;
        match state.phase {
            Phase::Ended => Err(state.work.failed.clone().unwrap_or_else(used_during_commit)),
            _ => Ok(state),
        }
    }

    /// The state, if the commit that the call belongs to is still wanted.
    pub(super) fn committing(&self, call: &Call) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        if state.attempt == call.attempt && state.phase == Phase::Committing {
            Ok(state)
        } else {
            Err(cancelled())
        }
    }
}

impl State {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.options.timeout.map(|timeout| self.started + timeout)
    }

    pub(super) fn check_time(&self) -> Result<()> {
        match self.deadline() {
            Some(deadline) if runtime::now() >= deadline => Err(timed_out()),
            _ => Ok(()),
        }
    }
}

pub(super) fn timed_out() -> Error {
    Error::new(ErrorCode::TransactionTimedOut, Stage::Client, "")
}

pub(super) fn cancelled() -> Error {
    Error::new(ErrorCode::TransactionCancelled, Stage::Client, "")
}

fn used_during_commit() -> Error {
    Error::new(ErrorCode::UsedDuringCommit, Stage::Client, "")
}
