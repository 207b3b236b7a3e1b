//! Reads without read conflicts: the same as in `reads.rs`, for whoever does not mind if others change what was read.

use super::*;

/// The same reads as a transaction's, without read conflicts: made by [`Transaction::snapshot`].
///
/// They see the same version and the same own writes, but a later write to what they read does not keep the
/// transaction from committing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// # let transaction = database.transaction();
/// transaction.snapshot().get("visits").await?;
/// transaction.set("last_seen", "today")?;
///
/// let other = database.transaction();
/// other.add("visits", 1)?;
/// other.commit().await?;
/// // No conflict, although what it read has changed.
/// transaction.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a>(&'a Transaction);

impl Transaction {
    /// The same reads, without read conflicts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// let rows = transaction.snapshot().get_range("a".."b").await?;
    /// assert!(rows.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot(self)
    }
}

/// Reads without read conflicts.
impl Snapshot<'_> {
    /// Reads a key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// assert_eq!(transaction.snapshot().get("k").await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::AccessedUnreadable`] if the value depends on an own versionstamp; a limit that the key
    /// passes; what became of the read.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        let found = self.0.read_key(key.into(), Isolation::Snapshot).await?;
        Ok(found.map(|found| found.value))
    }

    /// Reads a key, with the version of the commit that wrote it (unless this transaction changed it).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// let found = transaction.snapshot().get_versioned("k").await?;
    /// assert_eq!(found.map(|found| found.commit_version), Some(None), "it is not committed yet");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get`].
    pub async fn get_versioned(&self, key: impl Into<Key>) -> Result<Option<VersionedValue>> {
        self.0.read_key(key.into(), Isolation::Snapshot).await
    }

    /// The key that a selector names, see [`Transaction::get_key`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::KeySelector;
    /// let first = transaction.snapshot().get_key(KeySelector::first_greater_than("a")).await?;
    /// assert_eq!(first, b"\xff".into(), "there is none");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get`].
    pub async fn get_key(&self, selector: impl Into<KeySelector>) -> Result<Key> {
        self.0.read_selector(selector.into(), Isolation::Snapshot).await
    }

    /// Reads a range, up to the limits of the query: `transaction.get_range("a".."b")`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// assert_eq!(transaction.snapshot().get_range("a".."b").await?, []);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get`], and [`ErrorCode::InvertedRange`].
    pub async fn get_range(&self, query: impl Into<RangeQuery>) -> Result<Vec<KeyValue>> {
        Ok(self.0.read_range(query.into(), Isolation::Snapshot).await?.rows)
    }

    /// Reads a range and says whether a limit of the query ended it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::RangeQuery;
    /// let page = transaction.snapshot().get_range_page(RangeQuery::from("a".."b").rows(10)).await?;
    /// assert!(!page.more);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get_range`].
    pub async fn get_range_page(&self, query: impl Into<RangeQuery>) -> Result<RangePage> {
        self.0.read_range(query.into(), Isolation::Snapshot).await
    }

    /// Reads a range in pages, as the rows are consumed: for scans that would not fit into memory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use futures::TryStreamExt;
    /// let rows: Vec<_> = transaction.snapshot().range_stream("a".."b").try_collect().await?;
    /// assert!(rows.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn range_stream(&self, query: impl Into<RangeQuery>) -> RangeStream {
        RangeStream::new(self.0.clone(), query.into(), Isolation::Snapshot)
    }
}
