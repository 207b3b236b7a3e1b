//! The engine: what a storage server has on disk, always the exact state at one version (I-9).
//!
//! ```text
//!   window     versions 31 .. 90     in memory, the newest changes
//!   engine     version 30            everything up to here, one value per key, each with its commit version
//! ```
//!
//! [`Engine::write`] moves it to a later version in one atomic, synced step. Reads see the newest version
//! that was written: whoever reads at an older one must notice that the engine has moved on (see
//! [`super::read`]).

pub mod memory;
#[cfg(not(madsim))]
pub mod rocksdb;
#[cfg(test)]
mod suite;

use ferrisdb_core::{
    Key, KeyRange, Result, Version,
    service::storage::{Row, VersionedValue},
};

/// A durable, ordered map from keys to values with their commit versions.
///
/// Operations block; short ones (cached reads) may be called from async code, writes may not.
pub trait Engine: Send + Sync + 'static {
    /// The version whose state the engine holds.
    fn version(&self) -> Version;

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// If the disk fails or its contents are damaged.
    fn get(&self, key: &[u8]) -> Result<Option<VersionedValue>>;

    /// Iterates over the rows of a range, upwards or downwards.
    fn cursor<'a>(&'a self, range: &KeyRange, reverse: bool) -> Box<dyn Cursor + 'a>;

    /// Applies a batch and its version as one step, and returns when both are on disk.
    ///
    /// # Errors
    ///
    /// If the disk fails: the engine is then at the batch's version or where it was.
    fn write(&self, batch: &EngineBatch) -> Result<()>;
}

/// A place in a range of an engine. Sees a fixed state: writes made after its creation stay hidden from it.
pub trait Cursor {
    /// The next row in the cursor's direction.
    ///
    /// # Errors
    ///
    /// If the disk fails or its contents are damaged.
    fn next(&mut self) -> Result<Option<Row>>;

    /// Skips ahead: the next row will be at `key` or behind it, in the cursor's direction.
    ///
    /// Upwards that is the first row with a key of at least `key`, downwards the first with a key below `key`.
    fn skip_to(&mut self, key: &Key);
}

/// Changes that take an engine from its version to a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineBatch {
    /// The version that the engine will be at.
    pub version: Version,
    /// The changes, to be applied in this order.
    pub changes: Vec<EngineChange>,
}

/// One change of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChange {
    /// Removes all keys of a range.
    ClearRange(KeyRange),
    /// Removes a key.
    Clear(Key),
    /// Sets a key.
    Set(Row),
}
