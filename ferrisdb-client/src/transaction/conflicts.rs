//! The ranges that make a commit a conflict, or others that commit later: what was read, and what was written.
//!
//! Reads and writes add theirs as they go. Here is what the caller adds by hand, and what he is told.

use ferrisdb_core::transaction::ConflictingRead;

use super::*;

/// Conflict ranges.
impl Transaction {
    /// Lets a later write to this key be a conflict, as if it had been read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// // Read without protection; only what is used in the end shall not have changed.
    /// let rows = transaction.snapshot().get_range("free/".."free0").await?;
    /// if let Some(row) = rows.first() {
    ///     transaction.add_read_conflict_key(&row.key)?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the key.
    pub fn add_read_conflict_key(&self, key: impl Into<Key>) -> Result<()> {
        self.add_read_conflict_range(KeyRange::single(&key.into()))
    }

    /// Lets a later write to any of these keys be a conflict, as if they had been read: all but those whose value this
    /// transaction has set or cleared itself, which does not depend on what others write.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.add_read_conflict_range("lock/".."lock0")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the range.
    pub fn add_read_conflict_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let range = range.into();
        let mut state = self.open()?;
        transaction::check_range(&range, &state.options.read_end(), Stage::Client)?;
        let observed = state.work.overlay.observed(&range);
        if observed.is_empty() {
            state.work.unobserved.0 += 1;
            state.work.unobserved.1 += range.begin.len() + range.end.len();
        }
        state.work.read_conflicts.extend(&observed);
        Ok(())
    }

    /// Lets this transaction be a conflict for others that read this key, as if it had written it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// let reader = database.transaction();
    /// reader.get("lock").await?;
    /// reader.set("k", "v")?;
    ///
    /// transaction.add_write_conflict_key("lock")?;
    /// transaction.commit().await?;
    /// assert!(reader.commit().await.is_err(), "although nothing was written");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the key.
    pub fn add_write_conflict_key(&self, key: impl Into<Key>) -> Result<()> {
        self.add_write_conflict_range(KeyRange::single(&key.into()))
    }

    /// Lets this transaction be a conflict for others that read any of these keys, as if it had written them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.add_write_conflict_range("cache/".."cache0")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the range.
    pub fn add_write_conflict_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let range = range.into();
        let mut state = self.open()?;
        state.options.check_may_write()?;
        transaction::check_range(&range, &state.options.write_end(), Stage::Client)?;
        state.work.write_conflicts.insert(&range);
        Ok(())
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
}

impl State {
    /// The commit conflicts because of these, by their numbers in the request.
    pub(super) fn note_conflicts(&mut self, reads: &[ConflictingRead]) {
        // The request had them in this order, and perhaps some of its own behind them.
        let ranges: Vec<KeyRange> = self.work.read_conflicts.iter().collect();
        let named = reads.iter().filter_map(|read| {
            let range = ranges.get(read.index as usize)?.clone();
            Some(ConflictingRange { range, written_at: read.written_at })
        });
        self.conflicting_ranges = named.collect();
    }
}
