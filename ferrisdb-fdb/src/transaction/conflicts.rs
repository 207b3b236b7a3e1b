//! Conflict ranges that the program adds by hand.

use ferrisdb_client::KeyRange;

use super::{Transaction, long_keys::shortened_bound};
use crate::{
    errors::{self, Code},
    promise::Promise,
    special,
};

/// Which conflict ranges are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictRangeType {
    /// A later write to it is a conflict.
    Read,
    /// It is a conflict for others that have read it.
    Write,
}

impl<P: Promise> Transaction<P> {
    /// Adds a conflict range.
    ///
    /// # Errors
    ///
    /// `inverted_range`.
    pub fn add_conflict_range(
        &self,
        begin: &[u8],
        end: &[u8],
        kind: ConflictRangeType,
    ) -> Result<(), Code> {
        if begin > end {
            return Err(errors::INVERTED_RANGE);
        }
        // Nobody looks for conflicts of what is not there.
        if special::is_special(begin) {
            return Ok(());
        }
        let range = KeyRange { begin: shortened_bound(begin), end: shortened_bound(end) };
        let is_taken = self.change(|client| match kind {
            ConflictRangeType::Read => client.add_read_conflict_range(range),
            ConflictRangeType::Write => client.add_write_conflict_range(range),
        });
        // What was read is counted where it is: see `Written::approximate_size`.
        if is_taken && kind == ConflictRangeType::Write {
            self.state.lock().written.conflict(begin, end);
        }
        Ok(())
    }
}
