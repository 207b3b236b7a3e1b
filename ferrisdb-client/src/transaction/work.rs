//! What one attempt has done so far, and what follows from it. Knows nothing of phases, of time or of the cluster.

use std::cell::Cell;

use ferrisdb_core::limits;

use super::*;
use crate::read_your_writes::{Writes, stamped_range};

/// What one attempt has done so far.
#[derive(Default)]
pub(super) struct Work {
    pub(super) outstanding: Arc<Outstanding>,
    pub(super) read_version: Arc<ReadVersion>,
    /// A version that was asked for on behalf of this attempt: the one to read at, unless the caller names another.
    pub(super) own_version: Option<Version>,
    /// Shared with range reads under way, which go on seeing the writes of their beginning.
    pub(super) overlay: Arc<Overlay>,
    pub(super) writes: Writes,
    pub(super) read_conflicts: RangeSet,
    /// Ranges that were added by hand and are none, as all of them was written before: how many, and the bytes of their ends.
    pub(super) unobserved: (usize, usize),
    pub(super) write_conflicts: RangeSet,
    pub(super) watches: Vec<PendingWatch>,
    /// Whether anything was read, without a conflict or with one.
    pub(super) has_read: Cell<bool>,
    /// Why its commit has failed.
    pub(super) failed: Option<Error>,
    /// Whether its commit got no answer.
    pub(super) is_in_doubt: bool,
}

impl Work {
    pub(super) fn is_begun(&self) -> bool {
        self.has_read.get() || !self.writes.is_empty() || !self.read_conflicts.is_empty()
    }

    /// Whether nothing of the commit depends on the read version.
    pub(super) fn is_blind(&self) -> bool {
        self.read_conflicts.is_empty()
    }

    pub(super) fn size(&self) -> usize {
        self.writes.bytes() + self.read_conflicts.bytes() + self.write_conflicts.bytes()
    }

    /// Checks that a mutation can be taken: that the transaction does not get too large.
    pub(super) fn check_room(&self, mutation: &Mutation, size_limit: usize) -> Result<()> {
        let is_far = self.size() + mutation.size() <= size_limit
            && self.writes.count() < limits::TRANSACTION_ITEMS_MAX;
        if is_far {
            return Ok(());
        }
        // It may take the place of others.
        let (bytes, count) = self.writes.bytes_and_count_with(mutation);
        let size = self.size() - self.writes.bytes() + bytes;
        let detail = if size > size_limit {
            format!("{size} bytes, {size_limit} are allowed")
        } else if count > limits::TRANSACTION_ITEMS_MAX {
            format!("more than {} mutations", limits::TRANSACTION_ITEMS_MAX)
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorCode::TransactionTooLarge, Stage::Client, detail))
    }

    /// Takes a mutation. Returns the watches that it makes ready.
    pub(super) fn apply(
        &mut self,
        mutation: Mutation,
        with_conflict: bool,
        with_overlay: bool,
    ) -> Vec<PendingWatch> {
        if with_conflict {
            match &mutation {
                Mutation::Set { key, .. }
                | Mutation::Clear { key }
                | Mutation::Atomic { key, .. }
                | Mutation::SetVersionstampedValue { key, .. } => {
                    self.write_conflicts.insert(&KeyRange::single(key));
                }
                Mutation::ClearRange { range } => self.write_conflicts.insert(range),
                // The proxy adds the key that this becomes, with an option or without.
                Mutation::SetVersionstampedKey { .. } => {}
            }
        }
        let mut changed = Vec::new();
        if with_overlay {
            let before = self.earliest_stamp();
            let overlay = Arc::make_mut(&mut self.overlay);
            overlay.apply(&mutation, before);
            let is_changed = |watch: &mut PendingWatch| watch.is_changed_by(&mutation, overlay);
            changed = self.watches.extract_if(.., is_changed).collect();
        }
        self.writes.apply(mutation);
        changed
    }

    /// The transaction commits with a versionstamp later than this one, as far as is known now.
    pub(super) fn earliest_stamp(&self) -> Versionstamp {
        match self.read_version.get() {
            Some(commit_version) => Versionstamp { commit_version, batch_index: u16::MAX },
            None => Versionstamp { commit_version: Version::ZERO, batch_index: 0 },
        }
    }

    /// What counts as written, with everything that the stamped keys can become.
    pub(super) fn possible_write_conflicts(&self, end: &Key) -> RangeSet {
        let mut conflicts = self.write_conflicts.clone();
        for (key, offset) in self.writes.stamped_keys() {
            let mut range = stamped_range(key, offset, self.earliest_stamp());
            range.end = range.end.min(end.clone());
            conflicts.insert(&range);
        }
        conflicts
    }
}
