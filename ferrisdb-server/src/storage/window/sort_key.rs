//! Keys that are compared a lot, with their first bytes at hand.
//!
//! ```text
//!   Key        -> bytes somewhere else in memory
//!   SortKey    "bench/0000001234" -> bytes somewhere else in memory, looked at only if these are the same
//! ```
//!
//! A search in a tree compares a dozen keys, and each look at a key's bytes is a cache miss. Most comparisons are decided by
//! the first sixteen bytes.

use std::{cmp::Ordering, ops::Deref};

use ferrisdb_core::Key;

const PREFIX_BYTES: usize = size_of::<u128>();

/// A key that compares like the key itself.
#[derive(Clone, Debug)]
pub(super) struct SortKey {
    /// The first bytes, filled up with zeros, as a number that compares like them.
    prefix: u128,
    key: Key,
}

impl From<Key> for SortKey {
    fn from(key: Key) -> SortKey {
        let mut first = [0; PREFIX_BYTES];
        let count = key.len().min(PREFIX_BYTES);
        first[..count].copy_from_slice(&key[..count]);
        SortKey { prefix: u128::from_be_bytes(first), key }
    }
}

impl Deref for SortKey {
    type Target = Key;

    fn deref(&self) -> &Key {
        &self.key
    }
}

impl Ord for SortKey {
    fn cmp(&self, other: &SortKey) -> Ordering {
        // Where a shorter key was filled up and the other has a zero as well, the prefixes are equal, and the keys decide.
        self.prefix.cmp(&other.prefix).then_with(|| self.key.cmp(&other.key))
    }
}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &SortKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SortKey {
    fn eq(&self, other: &SortKey) -> bool {
        self.prefix == other.prefix && self.key == other.key
    }
}

impl Eq for SortKey {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn compares_like_the_key(
            // Few different bytes, so that long common beginnings are frequent.
            left in prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 0..20),
            right in prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 0..20),
            common in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let key = |tail: &[u8]| Key::from([&common, tail].concat());
            let (left, right) = (key(&left), key(&right));
            let compared = SortKey::from(left.clone()).cmp(&SortKey::from(right.clone()));
            prop_assert_eq!(compared, left.cmp(&right));
            let equal = SortKey::from(left.clone()) == SortKey::from(right.clone());
            prop_assert_eq!(equal, left == right);
        }
    }
}
