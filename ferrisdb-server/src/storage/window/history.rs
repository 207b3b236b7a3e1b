//! The writes of one key within the window, by version.
//!
//! ```text
//!   older: [ 30.0 = "x", 35.2 cleared ]   newest: 40.7 = "y"
//!
//!   at 29: nothing     at 36: cleared     at 40 and later: "y"
//! ```
//!
//! At most one write per version is kept, its last. Most keys have one write in all, so that one needs no
//! allocation of its own.

use std::collections::VecDeque;

use ferrisdb_core::{Value, Version};

/// When something was changed: the commit version, then the place among the mutations of that version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) version: Version,
    pub(super) sequence: u32,
}

/// What a mutation made of a key.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) stamp: Stamp,
    /// `None` if it cleared the key.
    pub(super) value: Option<Value>,
}

/// Whether anything is left of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an empty history has to be removed"]
pub(super) enum Left {
    Writes,
    Nothing,
}

/// The writes of one key. Never empty, except between [`Left::Nothing`] and its removal.
#[derive(Debug)]
pub(super) struct History {
    newest: Write,
    /// Oldest first, each of another version, all of versions before the newest's.
    older: VecDeque<Write>,
}

impl History {
    pub(super) fn new(write: Write) -> History {
        History { newest: write, older: VecDeque::new() }
    }

    /// Adds a write that is later than all others; takes the place of an earlier one of the same version.
    ///
    /// Tells whether it is the first of its version.
    pub(super) fn push(&mut self, write: Write) -> bool {
        assert!(
            self.newest.stamp < write.stamp,
            "write {:?} after {:?} (I-7)",
            write.stamp,
            self.newest.stamp
        );
        let is_first = self.newest.stamp.version < write.stamp.version;
        let replaced = std::mem::replace(&mut self.newest, write);
        if is_first {
            self.older.push_back(replaced);
        }
        is_first
    }

    /// The last write of versions up to `version`.
    pub(super) fn at(&self, version: Version) -> Option<&Write> {
        if self.newest.stamp.version <= version {
            return Some(&self.newest);
        }
        let count = self.older.partition_point(|write| write.stamp.version <= version);
        count.checked_sub(1).map(|last| &self.older[last])
    }

    /// Removes the writes of versions up to `version`.
    pub(super) fn forget_through(&mut self, version: Version) -> Left {
        if self.newest.stamp.version <= version {
            return Left::Nothing;
        }
        while self.older.front().is_some_and(|write| write.stamp.version <= version) {
            self.older.pop_front();
        }
        Left::Writes
    }

    /// Removes the writes of versions after `version`.
    pub(super) fn forget_after(&mut self, version: Version) -> Left {
        while self.newest.stamp.version > version {
            match self.older.pop_back() {
                Some(write) => self.newest = write,
                None => return Left::Nothing,
            }
        }
        Left::Writes
    }
}
