//! Watches of a transaction, until it has ended: see [`crate::watch`].

use super::*;
use crate::watch::{Watch, Watches};

/// Watches.
impl Transaction {
    /// Watches a key: the [`Watch`] is ready when the key has another value than this transaction sees now, its
    /// own writes included. It is armed by the commit, also by one of a transaction that only reads, and lives on
    /// after the transaction.
    ///
    /// This reads the key, but adds no read conflict: whoever changes it before the commit makes the watch ready at
    /// once. So does a later write of this same transaction. [`TransactionOption::Timeout`] counts until the watch is
    /// armed; from then on neither that nor any other option does.
    ///
    /// ```
    /// # use ferrisdb_client::{Database, Error};
    /// # #[cfg(not(feature = "embedded"))]
    /// # fn main() {}
    /// # #[cfg(feature = "embedded")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// # let database = Database::memory().await?;
    /// let (jobs, changed) = database
    ///     .run_transaction(|transaction| async move {
    ///         let jobs = transaction.get_range("job/".."job0").await?;
    ///         // Whoever adds a job also changes this key.
    ///         let changed = transaction.watch("job_added").await?;
    ///         Ok::<_, Error>((jobs, changed))
    ///     })
    ///     .await?;
    /// assert!(jobs.is_empty());
    ///
    /// let add = |transaction: ferrisdb_client::Transaction| async move {
    ///     transaction.set("job/1", "sweep the floor")?;
    ///     transaction.add("job_added", 1)
    /// };
    /// database.run_transaction(add).await?;
    /// changed.await?;
    /// # database.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TooManyWatches`] if [`Settings::watches_max`](crate::Settings::watches_max) of the handle are
    /// waiting; [`ErrorCode::WatchesDisabled`] with [`TransactionOption::ReadYourWritesDisabled`];
    /// [`ErrorCode::AccessedUnreadable`] if the value depends on an own versionstamp; a limit that the key passes; what
    /// became of the read. What the watch itself fails with: see [`Watch`].
    pub async fn watch(&self, key: impl Into<Key>) -> Result<Watch> {
        let key = key.into();
        let call = {
            let state = self.open()?;
            if !state.options.read_your_writes {
                return Err(Error::new(ErrorCode::WatchesDisabled, Stage::Client, ""));
            }
            state.options.check_readable(&key)?;
            state.call()
        };
        let (mut pending, watch) = Watches::reserve(&self.shared.database, key.clone())?;
        let seen = self.read_key(key, Isolation::Snapshot).await?;
        pending.set_known(seen.as_ref().map(|seen| &seen.value));
        let mut state = self.still_open(&call)?;
        pending.set_deadline(state.deadline());
        state.work.watches.push(pending);
        Ok(watch)
    }
}

/// What becomes of watches at the end of a transaction.
impl State {
    /// The commit of this attempt has ended.
    pub(super) fn settle_watches(&mut self, database: &Database, result: &Result<Committed>) {
        match result {
            Ok(committed) => self.arm_watches(database, committed.version),
            Err(error) if error.is_maybe_committed() => {
                self.work.watches.iter_mut().for_each(|watch| watch.set_error(error.clone()));
                // With an id it may turn out that this was the attempt that has taken effect.
                if self.options.idempotency_id.is_none() {
                    self.work.watches.clear();
                }
            }
            Err(_) => self.work.watches.clear(),
        }
    }

    /// This attempt has taken effect.
    pub(super) fn arm_watches(&mut self, database: &Database, version: Version) {
        let read_version = self.work.read_version.get().unwrap_or_default();
        let watches = std::mem::take(&mut self.work.watches);
        database.watches().arm(watches, version.max(read_version));
    }
}
