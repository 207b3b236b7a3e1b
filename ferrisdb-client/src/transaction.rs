//! A transaction.

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Value, Version, Versionstamp, atomic::AtomicOp,
};

use crate::{
    options::{KeyValue, RangePage, RangeQuery, TransactionOption, VersionedValue},
    range_stream::RangeStream,
};

/// How a transaction was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The commit version; of a transaction that wrote nothing, the version it read at (zero if it did not read).
    pub version: Version,
    /// The transaction's place in the total order; `None` if it wrote nothing.
    pub versionstamp: Option<Versionstamp>,
}

fn later() -> Error {
    Error::new(ErrorCode::Unsupported, Stage::Client, "this build has the interface only")
}

/// A transaction. Clones are the same transaction.
#[derive(Clone, Debug)]
pub struct Transaction {}

/// The same reads, without read conflicts.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a>(&'a Transaction);

impl Transaction {
    /// Reads a key.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        let _ = key.into();
        Err(later())
    }
    /// Reads a key, with the version of the commit that wrote it.
    pub async fn get_versioned(&self, key: impl Into<Key>) -> Result<Option<VersionedValue>> {
        let _ = key.into();
        Err(later())
    }
    /// Reads a range.
    pub async fn get_range(&self, query: impl Into<RangeQuery>) -> Result<Vec<KeyValue>> {
        let _ = query.into();
        Err(later())
    }
    /// Reads the first part of a range.
    pub async fn get_range_page(&self, query: impl Into<RangeQuery>) -> Result<RangePage> {
        let _ = query.into();
        Err(later())
    }
    /// Reads a range in parts.
    pub fn range_stream(&self, query: impl Into<RangeQuery>) -> RangeStream {
        let _ = query.into();
        RangeStream {}
    }

    /// The same reads without read conflicts.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot(self)
    }
    /// To be described.
    pub fn set(&self, key: impl Into<Key>, value: impl Into<Value>) -> Result<()> {
        let _ = key;
        let _ = value;
        Err(later())
    }
    /// To be described.
    pub fn clear(&self, key: impl Into<Key>) -> Result<()> {
        let _ = key;
        Err(later())
    }
    /// To be described.
    pub fn clear_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let _ = range;
        Err(later())
    }
    /// To be described.
    pub fn add(&self, key: impl Into<Key>, delta: i64) -> Result<()> {
        let _ = key;
        let _ = delta;
        Err(later())
    }
    /// To be described.
    pub fn atomic(
        &self,
        op: AtomicOp,
        key: impl Into<Key>,
        operand: impl Into<Value>,
    ) -> Result<()> {
        let _ = op;
        let _ = key;
        let _ = operand;
        Err(later())
    }
    /// To be described.
    pub fn set_versionstamped_key(
        &self,
        key: impl Into<Key>,
        offset: u32,
        value: impl Into<Value>,
    ) -> Result<()> {
        let _ = key;
        let _ = offset;
        let _ = value;
        Err(later())
    }
    /// To be described.
    pub fn set_versionstamped_value(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
        offset: u32,
    ) -> Result<()> {
        let _ = key;
        let _ = value;
        let _ = offset;
        Err(later())
    }
    /// To be described.
    pub fn add_read_conflict_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let _ = range;
        Err(later())
    }
    /// To be described.
    pub fn add_write_conflict_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let _ = range;
        Err(later())
    }
    /// To be described.
    pub fn set_read_version(&self, version: Version) -> Result<()> {
        let _ = version;
        Err(later())
    }
    /// To be described.
    pub fn set_option(&self, option: TransactionOption) -> Result<()> {
        let _ = option;
        Err(later())
    }
    /// To be described.
    pub async fn read_version(&self) -> Result<Version> {
        Err(later())
    }
    /// To be described.
    pub async fn commit(&self) -> Result<Committed> {
        Err(later())
    }
    /// To be described.
    pub async fn on_error(&self, error: Error) -> Result<()> {
        Err(error)
    }
    /// To be described.
    pub fn reset(&self) -> () {
        ()
    }
    /// To be described.
    pub fn cancel(&self) -> () {
        ()
    }
    /// To be described.
    pub fn committed_version(&self) -> Option<Version> {
        None
    }
    /// To be described.
    pub fn committed(&self) -> Option<Committed> {
        None
    }
    /// To be described.
    pub fn approximate_size(&self) -> usize {
        0
    }
    /// To be described.
    pub fn conflicting_ranges(&self) -> Vec<KeyRange> {
        Vec::new()
    }
}

impl Snapshot<'_> {
    /// Reads a key.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        let _ = key.into();
        Err(later())
    }
    /// Reads a key, with the version of the commit that wrote it.
    pub async fn get_versioned(&self, key: impl Into<Key>) -> Result<Option<VersionedValue>> {
        let _ = key.into();
        Err(later())
    }
    /// Reads a range.
    pub async fn get_range(&self, query: impl Into<RangeQuery>) -> Result<Vec<KeyValue>> {
        let _ = query.into();
        Err(later())
    }
    /// Reads the first part of a range.
    pub async fn get_range_page(&self, query: impl Into<RangeQuery>) -> Result<RangePage> {
        let _ = query.into();
        Err(later())
    }
    /// Reads a range in parts.
    pub fn range_stream(&self, query: impl Into<RangeQuery>) -> RangeStream {
        let _ = query.into();
        RangeStream {}
    }
}
