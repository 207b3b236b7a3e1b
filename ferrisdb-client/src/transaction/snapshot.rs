//! Reads without read conflicts: the same as in `reads.rs`, for whoever does not mind if others change what was read.

use super::*;

/// Reads without read conflicts.
impl Snapshot<'_> {
    /// Reads a key.
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
    /// # Errors
    ///
    /// As for [`Transaction::get`].
    pub async fn get_versioned(&self, key: impl Into<Key>) -> Result<Option<VersionedValue>> {
        self.0.read_key(key.into(), Isolation::Snapshot).await
    }

    /// The key that a selector names, see [`Transaction::get_key`].
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get`].
    pub async fn get_key(&self, selector: impl Into<KeySelector>) -> Result<Key> {
        self.0.read_selector(selector.into(), Isolation::Snapshot).await
    }

    /// Reads a range, up to the limits of the query: `transaction.get_range("a".."b")`.
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get`], and [`ErrorCode::InvertedRange`].
    pub async fn get_range(&self, query: impl Into<RangeQuery>) -> Result<Vec<KeyValue>> {
        Ok(self.0.read_range(query.into(), Isolation::Snapshot).await?.rows)
    }

    /// Reads a range and says whether a limit of the query ended it.
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get_range`].
    pub async fn get_range_page(&self, query: impl Into<RangeQuery>) -> Result<RangePage> {
        self.0.read_range(query.into(), Isolation::Snapshot).await
    }

    /// Reads a range in pages, as the rows are consumed: for scans that would not fit into memory.
    pub fn range_stream(&self, query: impl Into<RangeQuery>) -> RangeStream {
        RangeStream::new(self.0.clone(), query.into(), Isolation::Snapshot)
    }
}
