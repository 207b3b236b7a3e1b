//! A stretch of the key space, cut into keys and the gaps between them, each with its latest write.
//!
//! ```text
//!   keys            "b"        "f"        "k"
//!   writes          at 7       at 9       at 3
//!            before    after 2    after 9    after 2
//!               2
//!   written at   ..2  7  ...2...  9  ...9...  3  ..2..
//! ```
//!
//! Between the keys of two neighbouring entries all keys have the same latest write, and so have those
//! before the first entry. An entry is needed where something changes; where nothing does any more, as
//! both sides are older than anybody may ask for, [`Block::forget`] drops it.
//!
//! Knows nothing of its neighbours. Start with [`Block::version_of`].

use std::ops::Range;

use ferrisdb_core::Version;

use super::{
    inline_list::{InlineList, List},
    sorted_keys::InlineSortedKeys,
};

/// Entries at which a block is divided.
pub(super) const BLOCK_ENTRIES_MAX: usize = 32;
/// One more comes before the division.
const ENTRIES_MAX: usize = BLOCK_ENTRIES_MAX + 1;

/// Entries in the order of their keys. See the module.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Block {
    /// The latest write to the keys before the first entry.
    before: Version,
    keys: InlineSortedKeys<ENTRIES_MAX>,
    /// The writes to and after each key.
    writes: InlineList<Written, ENTRIES_MAX>,
}

/// The latest writes at an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Written {
    /// To the entry's key.
    at: Version,
    /// To the keys between it and the next entry, of which there may be none.
    after: Version,
}

impl Block {
    /// A block all of whose keys were last written at `version`.
    pub(super) fn new(version: Version) -> Block {
        Block { before: version, keys: InlineSortedKeys::default(), writes: InlineList::default() }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are more entries than a block should have.
    pub(super) fn is_overfull(&self) -> bool {
        self.len() > BLOCK_ENTRIES_MAX
    }

    /// Whether there is no room for another entry.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= BLOCK_ENTRIES_MAX
    }

    /// The index of the entry of a key, or the index at which it belongs.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.keys.search(key)
    }

    /// The latest write to a key.
    pub(super) fn version_of(&self, key: &[u8]) -> Version {
        match self.search(key) {
            Ok(index) => self.writes[index].at,
            Err(index) => self.gap_before(index),
        }
    }

    /// The latest write to the keys between an entry and the one before it.
    pub(super) fn gap_before(&self, index: usize) -> Version {
        index.checked_sub(1).map_or(self.before, |previous| self.writes[previous].after)
    }

    /// Whether any of the entries of `range`, or the gap after any of them, was written after a version.
    pub(super) fn is_written_after(&self, range: Range<usize>, version: Version) -> bool {
        self.writes[range].iter().any(|written| written.at > version || written.after > version)
    }

    /// Like [`Block::is_written_after`], where the last gap counts only up to the key `end`.
    pub(super) fn is_written_before_end(
        &self,
        range: Range<usize>,
        end: &[u8],
        version: Version,
    ) -> bool {
        let Some(last) = range.clone().next_back() else { return false };
        // Up to the successor of the last key the gap after it has no keys.
        let counts_gap = || !self.keys.is_successor(last, end);
        let written = self.writes[last];
        self.is_written_after(range.start..last, version)
            || written.at > version
            || (written.after > version && counts_gap())
    }

    /// Writes one key. Says whether that took a new entry.
    pub(super) fn write_key(&mut self, key: &[u8], version: Version) -> bool {
        match self.search(key) {
            Ok(index) => {
                self.writes[index].at = version;
                false
            }
            Err(index) => {
                let after = self.gap_before(index);
                self.insert(index, key, Written { at: version, after });
                true
            }
        }
    }

    /// Writes a key and those behind it, up to the next entry. Says whether that took a new entry.
    pub(super) fn write_from(&mut self, key: &[u8], version: Version) -> bool {
        let written = Written { at: version, after: version };
        match self.search(key) {
            Ok(index) => {
                self.writes[index] = written;
                false
            }
            Err(index) => {
                self.insert(index, key, written);
                true
            }
        }
    }

    /// Makes sure that there is an entry for a key, without a change of any version. Says whether that
    /// took a new entry.
    pub(super) fn divide_at(&mut self, key: &[u8]) -> bool {
        let Err(index) = self.search(key) else { return false };
        let version = self.gap_before(index);
        self.insert(index, key, Written { at: version, after: version });
        true
    }

    fn insert(&mut self, index: usize, key: &[u8], written: Written) {
        self.keys.insert(index, key);
        self.writes.insert(index, written);
    }

    /// Removes the entries of a range of indexes; their keys join the gap before it.
    pub(super) fn remove(&mut self, range: Range<usize>) {
        self.keys.remove(range.clone());
        self.writes.remove(range);
    }

    /// Removes the entries before `index`, and makes `version` the latest write to all keys before it.
    pub(super) fn write_up_to(&mut self, index: usize, version: Version) {
        self.remove(0..index);
        self.before = version;
    }

    /// Removes the entries that make no difference to anybody who asks about `oldest_version` or later.
    /// Returns a version after which no part was written.
    pub(super) fn forget(&mut self, oldest_version: Version) -> Version {
        // Nobody can tell versions up to the oldest one from each other.
        let told = |version: Version| version.max(oldest_version);
        let mut kept: u128 = 0;
        let mut gap = self.before;
        let mut newest = self.before;
        for (index, written) in self.writes.iter().enumerate() {
            if told(written.at) != told(gap) || told(written.after) != told(gap) {
                kept |= 1 << index;
                gap = written.after;
                newest = newest.max(written.at).max(written.after);
            }
        }
        let kept_len = kept.count_ones() as usize;
        if kept_len == self.len() {
            return newest;
        }
        let is_kept = |index: usize| kept >> index & 1 == 1;
        self.keys.retain(is_kept);
        for (to, from) in (0..self.len()).filter(|&index| is_kept(index)).enumerate() {
            self.writes[to] = self.writes[from];
        }
        self.writes.remove(kept_len..self.writes.len());
        newest
    }

    /// Moves the upper half of the entries into a block of their own; its first key divides the two.
    pub(super) fn split(&mut self) -> (Vec<u8>, Block) {
        let middle = self.len() / 2;
        let mut right = Block::new(self.gap_before(middle));
        right.keys = self.keys.split_off(middle);
        right.writes.extend_from_slice(&self.writes[middle..]);
        self.writes.remove(middle..self.writes.len());
        (right.keys.key(0), right)
    }

    /// Takes the entries of the block to the right of this one, which must have room for them.
    pub(super) fn append(&mut self, right: &Block) {
        self.keys.append(&right.keys);
        self.writes.extend_from_slice(&right.writes);
    }

    /// The key of an entry.
    #[cfg(test)]
    pub(super) fn key(&self, index: usize) -> Vec<u8> {
        self.keys.key(index)
    }

    /// Loads what [`Block::search`] begins with. The result means nothing.
    pub(super) fn touch_heads(&self) -> u64 {
        self.keys.touch_heads()
    }

    /// Loads what is at the place of a key, as far as it is known without a look at whole keys, and
    /// returns that place. The second result means nothing.
    pub(super) fn touch_entry(&self, key: &[u8], is_write: bool) -> (usize, u64) {
        let index = self.keys.place_by_head(key);
        let from = index.saturating_sub(1);
        // What is written moves everything behind it.
        let through = if is_write { self.writes.len() } else { index + 1 };
        let written = self.writes.get(from..through.min(self.writes.len())).unwrap_or_default();
        let touched = written.iter().step_by(4).fold(0, |touched, written| touched ^ written.at.0);
        (index, if is_write { touched ^ self.keys.touch_tails(index) } else { touched })
    }

    /// Loads all entries but for the bytes of their keys. The result means nothing.
    pub(super) fn touch_entries(&self) -> u64 {
        let writes = self.writes.iter().step_by(4);
        let touched = self.keys.touch_heads() ^ self.keys.touch_tails(0);
        writes.fold(touched, |touched, written| touched ^ written.at.0)
    }

    /// Loads what a comparison with the key of an entry takes. The result means nothing.
    pub(super) fn touch_key(&self, index: usize) -> u64 {
        self.keys.touch_tail(index)
    }

    /// About how much memory the block takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Block>() + self.keys.memory_bytes()
    }
}

// `forget` keeps a bit for each entry, of which there may be one too many before a block is divided.
const _: () = assert!(BLOCK_ENTRIES_MAX < u128::BITS as usize);
