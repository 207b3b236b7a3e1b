//! Half-open ranges of keys.

use std::{fmt, ops::Range};

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// The keys from `begin` up to, not including, `end`. Empty when `begin >= end`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// The first key inside.
    pub begin: Key,
    /// The first key after the range.
    pub end: Key,
}

impl KeyRange {
    /// The range `begin..end`.
    pub fn new(begin: impl Into<Key>, end: impl Into<Key>) -> KeyRange {
        KeyRange { begin: begin.into(), end: end.into() }
    }

    /// The range that holds `key` and nothing else.
    pub fn single(key: &Key) -> KeyRange {
        KeyRange { begin: key.clone(), end: key.successor() }
    }

    /// All keys that begin with `prefix`.
    ///
    /// ```
    /// use ferrisdb_core::KeyRange;
    /// assert_eq!(KeyRange::prefix(b"a"), KeyRange::new(b"a", b"b"));
    /// assert_eq!(KeyRange::prefix(b"a\xff"), KeyRange::new(b"a\xff", b"b"));
    /// ```
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        let kept = prefix.iter().rposition(|&byte| byte != 0xff);
        let end = match kept {
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                Key::from(end)
            }
            // Nothing that is not all 0xff sorts after it: the range is open up to the last key.
            None => Key::from_static(b"\xff\xff\xff"),
        };
        KeyRange { begin: Key::copy_from(prefix), end }
    }

    /// All keys of the user, without the system keyspace.
    pub fn all_user_keys() -> KeyRange {
        KeyRange { begin: Key::MIN, end: Key::USER_END }
    }

    /// Whether there is no key in the range.
    pub fn is_empty(&self) -> bool {
        self.begin >= self.end
    }

    /// Whether `key` is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.begin.as_slice() <= key && key < self.end.as_slice()
    }

    /// Whether some key is in both ranges.
    pub fn intersects(&self, other: &KeyRange) -> bool {
        self.begin < other.end && other.begin < self.end && !self.is_empty() && !other.is_empty()
    }

    /// The keys that are in both ranges, if there are any.
    pub fn intersection(&self, other: &KeyRange) -> Option<KeyRange> {
        // Compared before they are cloned: this is asked for every range of every transaction.
        let begin = if self.begin < other.begin { &other.begin } else { &self.begin };
        let end = if other.end < self.end { &other.end } else { &self.end };
        (begin < end).then(|| KeyRange { begin: begin.clone(), end: end.clone() })
    }

    /// Whether the range is what [`KeyRange::single`] makes of its first key.
    pub fn is_single_key(&self) -> bool {
        self.end.len() == self.begin.len() + 1
            && self.end.last() == Some(&0)
            && self.end.starts_with(&self.begin)
    }
}

impl<K: Into<Key>> From<Range<K>> for KeyRange {
    fn from(range: Range<K>) -> KeyRange {
        KeyRange { begin: range.start.into(), end: range.end.into() }
    }
}

impl From<&KeyRange> for KeyRange {
    fn from(range: &KeyRange) -> KeyRange {
        range.clone()
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.begin, self.end)
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.begin, self.end)
    }
}
