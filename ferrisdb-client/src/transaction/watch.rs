//! Watches of a transaction, until it has ended: see [`crate::watch`].

use ferrisdb_core::simulation::{Plant, planted};

use super::*;
use crate::watch::{Watch, Watches};

/// Watches.
impl Transaction {
    /// Watches a key: the [`Watch`] is ready when the key has another value than this transaction sees now, its
    /// own writes included. It is armed by the commit, also by one of a transaction that only reads, and lives on
    /// after the transaction.
    ///
    /// This reads the key, with a read conflict: the commit fails if others have changed it before, unless the transaction
    /// writes nothing; then the watch is ready at once. It also is if this same transaction changes the value afterwards.
    /// [`TransactionOption::Timeout`] counts until the watch is armed; from then on neither that nor any other option does.
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
        // As a read under way: a commit that begins meanwhile sees it to its end, so that the watch is there to be armed.
        let begun = {
            let state = self.open()?;
            if !state.options.read_your_writes {
                return Err(Error::new(ErrorCode::WatchesDisabled, Stage::Client, ""));
            }
            state.options.check_readable(&key)?;
            let seen = match planted(Plant::WatchBelowWrites) {
                true => Lookup::Database(Vec::new()),
                false => state.overlay(Isolation::Serializable).lookup(&key)?,
            };
            let (pending, watch) = Watches::reserve(&self.shared.database, key.clone())?;
            let (itself, call) = (self.clone(), state.call());
            state.work.outstanding.begin(Failure::LeavesCommit, async move {
                itself.begin_watch(&call, key, seen, pending).await?;
                Ok(watch)
            })
        };
        begun.await
    }

    /// Finds the value that a watch knows, given what own writes say about it.
    async fn begin_watch(
        &self,
        call: &Call,
        key: Key,
        seen: Lookup,
        mut pending: PendingWatch,
    ) -> Result<()> {
        let found = match &seen {
            Lookup::Known(_) => None,
            Lookup::Database(_) => call.timer.within(self.fetch_key(call, &key)).await?,
        };
        let value = seen.clone().resolve(found.as_ref().map(|found| &found.value));
        pending.set_known(value.as_ref());
        let mut state = self.still_open(call)?;
        if let Lookup::Database(_) = seen {
            state.work.read_conflicts.insert(&KeyRange::single(&key));
        }
        // What was written while the value was read is a change like any other.
        let now = state.overlay(Isolation::Serializable).lookup(&key).ok();
        let is_written = now.as_ref() != Some(&seen) && !planted(Plant::WatchBelowWrites);
        if is_written && pending.is_changed(now) {
            drop(state);
            pending.changed();
            return Ok(());
        }
        pending.set_deadline(state.deadline());
        state.work.watches.push(pending);
        Ok(())
    }
}

/// What becomes of watches at the end of a transaction.
impl State {
    /// The commit of this attempt has ended.
    pub(super) fn settle_watches(&mut self, database: &Database, result: &Result<Committed>) {
        match result {
            Ok(committed) => self.arm_watches(database, committed.version),
            Err(error) => {
                self.work.watches.iter_mut().for_each(|watch| watch.set_error(error.clone()));
                // With an id it may turn out that this was the attempt that has taken effect.
                if !error.is_maybe_committed() || self.options.idempotency_id.is_none() {
                    self.work.watches.clear();
                }
            }
        }
    }

    /// This attempt has taken effect.
    pub(super) fn arm_watches(&mut self, database: &Database, version: Version) {
        let read_version = self.work.read_version.get().unwrap_or_default();
        let watches = std::mem::take(&mut self.work.watches);
        database.watches().arm(watches, version.max(read_version));
    }
}
