//! The writes of a transaction: they change nothing but what the attempt has done so far, see `work.rs`.
//!
//! Start with [`Transaction::set`].

use ferrisdb_core::atomic::AtomicOp;

use super::*;

/// Writes. They are kept until the commit; an error means that the write was not taken.
impl Transaction {
    /// Sets the value of a key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("greeting", "hello")?;
    /// transaction.set(b"\x00\x01", vec![0; 1_000])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn set(&self, key: impl Into<Key>, value: impl Into<Value>) -> Result<()> {
        self.write(Mutation::Set { key: key.into(), value: value.into() })
    }

    /// Removes a key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// transaction.clear("k")?;
    /// assert_eq!(transaction.get("k").await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn clear(&self, key: impl Into<Key>) -> Result<()> {
        self.write(Mutation::Clear { key: key.into() })
    }

    /// Removes all keys of a range. Costs the same however many there are.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::KeyRange;
    /// transaction.clear_range("session/2025".."session/2026")?;
    /// transaction.clear_range(KeyRange::prefix(b"user/7/"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvertedRange`], or the limit that is passed.
    pub fn clear_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        self.write(Mutation::ClearRange { range: range.into() })
    }

    /// Adds to a counter: an eight byte little-endian integer, zero if the key is absent. Wraps around.
    ///
    /// Transactions that add to the same counter without reading it do not conflict.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.add("visits", 1)?;
    /// transaction.add("visits", 2)?;
    /// let visits = transaction.get("visits").await?.unwrap_or_default();
    /// assert_eq!(visits.as_slice(), 3i64.to_le_bytes());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn add(&self, key: impl Into<Key>, delta: i64) -> Result<()> {
        self.atomic(AtomicOp::Add, key, &delta.to_le_bytes())
    }

    /// Changes a value by a function of it that is evaluated in commit order, without reading it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::AtomicOp;
    /// transaction.set("best", &[7, 0])?;
    /// transaction.atomic(AtomicOp::Max, "best", &[5, 0])?;
    /// assert_eq!(transaction.get("best").await?, Some((&[7, 0]).into()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn atomic(
        &self,
        op: AtomicOp,
        key: impl Into<Key>,
        operand: impl Into<Value>,
    ) -> Result<()> {
        self.write(Mutation::Atomic { key: key.into(), op, operand: operand.into() })
    }

    /// Sets a key that will contain the transaction's versionstamp, in the ten bytes from `offset` on.
    ///
    /// Until the commit no key that it may become can be read: those with a stamp later than the read version, if that is
    /// known already, or else with any. Others conflict with it only if they read the very key that it becomes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// let key = [b"log/".as_slice(), &[0; 10]].concat();
    /// transaction.set_versionstamped_key(key, 4, "the first entry")?;
    /// let committed = transaction.commit().await?;
    ///
    /// let row = &database.transaction().get_range("log/".."log0").await?[0];
    /// let stamp = committed.versionstamp.map(|stamp| stamp.to_bytes());
    /// assert_eq!(row.key[4..], stamp.unwrap_or_default());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidMutation`] if the ten bytes are not inside, or the limit that is passed.
    pub fn set_versionstamped_key(
        &self,
        key: impl Into<Key>,
        offset: u32,
        value: impl Into<Value>,
    ) -> Result<()> {
        self.write(Mutation::SetVersionstampedKey { key: key.into(), offset, value: value.into() })
    }

    /// Sets a value that will contain the transaction's versionstamp, in the ten bytes from `offset` on.
    ///
    /// Until the commit the key cannot be read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set_versionstamped_value("changed", vec![0; 10], 0)?;
    /// let committed = transaction.commit().await?;
    ///
    /// let changed = database.transaction().get("changed").await?.unwrap_or_default();
    /// assert_eq!(committed.versionstamp.map(|stamp| stamp.to_bytes().to_vec()), Some(changed.to_vec()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidMutation`] if the ten bytes are not inside, or the limit that is passed.
    pub fn set_versionstamped_value(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
        offset: u32,
    ) -> Result<()> {
        self.write(Mutation::SetVersionstampedValue {
            key: key.into(),
            value: value.into(),
            offset,
        })
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

    fn write(&self, mutation: Mutation) -> Result<()> {
        self.write_as(mutation, None)
    }

    /// Writes without a write conflict: for layers, which share their transaction with others who may use the option for
    /// that at the same time.
    pub(crate) fn write_without_conflict(&self, mutation: Mutation) -> Result<()> {
        self.write_as(mutation, Some(false))
    }

    fn write_as(&self, mutation: Mutation, with_conflict: Option<bool>) -> Result<()> {
        let mut state = self.open()?;
        state.options.check_may_write()?;
        transaction::check_mutation(&mutation, &state.options.write_end(), Stage::Client)?;
        if !state.options.size_checked_at_commit {
            state.work.check_room(&mutation, state.options.size_limit)?;
        }
        let with_conflict = with_conflict
            .unwrap_or_else(|| !std::mem::take(&mut state.options.next_write_without_conflict));
        let with_overlay = state.options.read_your_writes;
        let changed = state.work.apply(mutation, with_conflict, with_overlay);
        drop(state);
        // Whoever waits for these is not woken while the state is locked.
        changed.into_iter().for_each(PendingWatch::changed);
        Ok(())
    }
}
