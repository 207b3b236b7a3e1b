//! The engine: what a storage server has on disk. It is the exact state at one version, of the ranges that its
//! attachment says are held (I-9).
//!
//! ```text
//!   window       versions 31 .. 90     in memory, the newest changes
//!   engine       version 30            everything up to here, one value per key, each with its commit version
//!   attachment   of version 30         whose data it is, and of which ranges; see [`super::shards`]
//! ```
//!
//! [`Engine::write`] moves it to a later version in one atomic, synced step. Reads see the newest version
//! that was written: whoever reads at an older one must notice that the engine has moved on (see
//! [`super::read`]). [`Engine::ingest`] brings rows of a range that is not held yet, and leaves the version as it
//! is. [`Engine::reset`] begins anew, for another tag.

pub mod memory;
#[cfg(not(madsim))]
pub mod rocksdb;
#[cfg(test)]
mod suite;

use bytes::Bytes;
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

    /// Some keys of a range, the first so many, each with the bytes of keys and values that it stands for: a sample by size.
    fn sample(&self, range: &KeyRange, keys_max: usize) -> Vec<(Key, u64)>;

    /// What the engine takes at this moment, for the metrics; nothing where there is nothing to tell.
    fn usage(&self) -> EngineUsage {
        EngineUsage::default()
    }

    /// Whether there is space for a change, and some more for the engine's own work.
    ///
    /// # Errors
    ///
    /// [`ferrisdb_core::ErrorCode::DiskFull`], with the numbers.
    fn check_space(&self, _left: Reserve) -> Result<()> {
        Ok(())
    }

    /// Whether the engine takes no more changes, since its disk refused one, although there may be space again: then it has to be
    /// opened anew.
    fn needs_reopening(&self) -> bool {
        false
    }

    /// Applies a batch and its version as one step, and returns when both are on disk.
    ///
    /// # Errors
    ///
    /// If the disk fails: the engine is then at the batch's version or where it was.
    fn write(&self, batch: &EngineBatch) -> Result<()>;

    /// Applies changes and keeps the version. They are on disk at the latest when the next [`Engine::write`]
    /// returns; a crash before may leave all of them or none.
    ///
    /// # Errors
    ///
    /// If the disk fails: the changes are then there or not.
    fn ingest(&self, changes: &[EngineChange]) -> Result<()>;

    /// The attachment of the newest batch that had one.
    ///
    /// # Errors
    ///
    /// If the disk fails or its contents are damaged.
    fn attachment(&self) -> Result<Option<Bytes>>;

    /// Forgets all rows, and begins at `version` with an attachment, in one step: returns when that is on disk.
    /// The version may be an earlier one than the engine's.
    ///
    /// # Errors
    ///
    /// If the disk fails: the engine is then as it was, or empty with the new version and attachment.
    fn reset(&self, version: Version, attachment: Option<&Bytes>) -> Result<()>;
}

/// How much of the space that is kept for the engine's own work a change has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// All of it: for what only adds.
    All,
    /// A half: for what clears something and sets a little. A load that does that all the time, such as a queue's, may add more than
    /// it frees, and must leave something for what only clears.
    Half,
    /// A quarter: for what leads to more space. A full disk that refused that, too, would be full for ever.
    Quarter,
}

/// A change that clears something may set so much and still counts as one that may lead to more space.
const FREEING_BYTES_MAX: usize = 1 << 20;

impl Reserve {
    /// What a batch with these changes has to leave.
    pub fn left_by(changes: &[EngineChange]) -> Reserve {
        let (mut bytes, mut clears) = (0, 0);
        for change in changes {
            match change {
                EngineChange::Set(row) => bytes += row.key.len() + row.value.len(),
                EngineChange::Clear(_) | EngineChange::ClearRange(_) => clears += 1,
            }
        }
        match (bytes, clears) {
            (0, _) => Reserve::Quarter,
            (bytes, 1..) if bytes < FREEING_BYTES_MAX => Reserve::Half,
            _ => Reserve::All,
        }
    }
}

/// What an engine takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineUsage {
    /// Memory: tables that are not on disk yet, cached blocks, and what is kept of each file.
    pub memory_bytes: u64,
    /// Files with data, the log of the engine left out.
    pub disk_bytes: u64,
}

/// A place in a range of an engine. It sees each key as it was at some moment after the cursor was made.
pub trait Cursor {
    /// The next row in the cursor's direction, or how far there is none: a step is short, however many deleted keys lie
    /// on the way.
    ///
    /// # Errors
    ///
    /// If the disk fails or its contents are damaged.
    fn next(&mut self) -> Result<Step>;

    /// Skips ahead: the next row will be at `key` or behind it, in the cursor's direction.
    ///
    /// Upwards that is the first row with a key of at least `key`, downwards the first with a key below `key`.
    fn skip_to(&mut self, key: &Key);

    /// The next row, however long that takes.
    ///
    /// # Errors
    ///
    /// As [`Cursor::next`].
    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            match self.next()? {
                Step::Row { row, .. } => return Ok(Some(row)),
                Step::Passed { .. } => {}
                Step::End => return Ok(None),
            }
        }
    }
}

/// What a [`Cursor`] comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A row.
    Row {
        /// The row.
        row: Row,
        /// About how many keys were looked at, deleted ones before it included: one at least.
        looked_at: usize,
    },
    /// Nothing but deleted keys. Upwards the next row has a key of at least `to`, downwards one below it.
    Passed {
        /// The cursor's place now, further than it was before.
        to: Key,
        /// About how many keys were looked at.
        looked_at: usize,
    },
    /// The end of its range.
    End,
}

/// Changes that take an engine from its version to a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineBatch {
    /// The version that the engine will be at.
    pub version: Version,
    /// The changes, to be applied in this order.
    pub changes: Vec<EngineChange>,
    /// The engine's attachment from now on; `None` leaves the one it has.
    pub attachment: Option<Bytes>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clears_leaves_less_of_the_reserve() {
        let set = |bytes: usize| {
            let (key, value) = ("k".into(), vec![0; bytes].into());
            EngineChange::Set(Row { key, value, commit_version: Version(1) })
        };
        let clear = || EngineChange::ClearRange(KeyRange::new("a", "b"));
        assert_eq!(Reserve::left_by(&[]), Reserve::Quarter);
        assert_eq!(Reserve::left_by(&[clear()]), Reserve::Quarter);
        assert_eq!(Reserve::left_by(&[set(1_000), clear()]), Reserve::Half);
        assert_eq!(Reserve::left_by(&[set(1_000)]), Reserve::All);
        assert_eq!(Reserve::left_by(&[clear(), set(2 << 20)]), Reserve::All);
    }
}
