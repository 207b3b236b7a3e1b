//! The written keys of the window: found by hash, walked in order.
//!
//! ```text
//!   histories   hash table    m -> [30.0 = "x", 40.7 = "y"]      a -> [35.2 cleared]
//!   order       tree          a, m
//! ```
//!
//! Each write is looked for when it is applied, when it is flushed and when it is forgotten, and each point read looks as
//! well. A tree has to compare a dozen keys for that, all of them somewhere else in memory; a hash table looks at one. The tree is
//! there for range reads. It changes only when a key comes or goes, not with each write.
//!
//! The table's hash has a key of its own for each window, so that nobody can choose keys that collide.

use std::collections::{BTreeSet, btree_set};

use ahash::RandomState;
use ferrisdb_core::{Key, KeyRange, runtime};

use super::{
    history::{History, Left, Write},
    sort_key::SortKey,
};

/// Never iterated: its order is no order.
#[expect(clippy::disallowed_types, reason = "it is for look-ups only")]
type Histories = std::collections::HashMap<Key, History, RandomState>;

/// The histories of all keys in the window that have one.
#[derive(Debug)]
pub(super) struct WrittenKeys {
    histories: Histories,
    order: BTreeSet<SortKey>,
}

/// Memory of a key besides its bytes and those of its values: a place in a table that is filled by two thirds, and one in a
/// tree that is.
pub(super) const KEY_BYTES: usize = (size_of::<(Key, History)>() + size_of::<SortKey>()) * 3 / 2;

impl WrittenKeys {
    pub(super) fn new() -> WrittenKeys {
        let seed = || runtime::random_u64();
        let hasher = RandomState::with_seeds(seed(), seed(), seed(), seed());
        WrittenKeys { histories: Histories::with_hasher(hasher), order: BTreeSet::new() }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&History> {
        self.histories.get(key)
    }

    /// Adds a write that is later than all others of its key. Tells whether it is the key's first of its version.
    pub(super) fn push(&mut self, key: &Key, write: Write) -> bool {
        if let Some(history) = self.histories.get_mut(key) {
            return history.push(write);
        }
        // The key stays for as long as any write of it is left, so it gets bytes of its own: what it came in is a message.
        let key = Key::copy_from(key);
        self.order.insert(SortKey::from(key.clone()));
        self.histories.insert(key, History::new(write));
        true
    }

    /// Removes writes of a key; the key too, if no other is left.
    pub(super) fn forget(&mut self, key: &Key, forget: impl FnOnce(&mut History) -> Left) {
        if self.histories.get_mut(key).map(forget) == Some(Left::Nothing) {
            self.histories.remove(key);
            self.order.remove(&SortKey::from(key.clone()));
            self.give_back();
        }
    }

    /// After a burst of writes the table would keep its size for ever.
    fn give_back(&mut self) {
        let (len, capacity) = (self.histories.len(), self.histories.capacity());
        if capacity > 4_096 && len < capacity / 8 {
            self.histories.shrink_to(len * 2);
        }
    }

    /// The keys of a range with their histories.
    pub(super) fn range(&self, range: &KeyRange) -> Range<'_> {
        let bound = |key: &Key| SortKey::from(key.clone());
        let keys = self.order.range(bound(&range.begin)..bound(&range.end));
        Range { keys, histories: &self.histories }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        assert_eq!(self.order.len(), self.histories.len());
        self.order.is_empty()
    }
}

/// Some keys, in order.
pub(super) struct Range<'a> {
    keys: btree_set::Range<'a, SortKey>,
    histories: &'a Histories,
}

impl<'a> Range<'a> {
    fn with_history(&self, key: &'a SortKey) -> (&'a Key, &'a History) {
        let key: &Key = key;
        let history = self.histories.get(key);
        (key, history.expect("each key in order has a history"))
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a Key, &'a History);

    fn next(&mut self) -> Option<Self::Item> {
        self.keys.next().map(|key| self.with_history(key))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.keys.next_back().map(|key| self.with_history(key))
    }
}
