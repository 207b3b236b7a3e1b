//! Sets of keys, kept as disjoint ranges: what was observed, what was written, what was cleared.

use std::{collections::BTreeMap, ops::Bound};

use ferrisdb_core::{Key, KeyRange};

/// A set of keys. Ranges that overlap or touch are one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// From the begin of each range to its end. No two of them touch, none is empty.
    ends: BTreeMap<Key, Key>,
    /// The bytes of all begins and ends.
    bytes: usize,
}

impl RangeSet {
    /// Adds the keys of a range.
    pub(crate) fn insert(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let (mut begin, mut end) = (range.begin.clone(), range.end.clone());
        // The last range that begins before this one ends is the only candidate again and again, from the
        // right: what it covers joins the new range.
        while let Some((found_begin, found_end)) = self.last_beginning_through(&end) {
            if found_end < begin {
                break;
            }
            begin = begin.min(found_begin.clone());
            end = end.max(found_end);
            self.take(&found_begin);
        }
        self.bytes += begin.len() + end.len();
        self.ends.insert(begin, end);
    }

    /// Removes the keys of a range.
    pub(crate) fn remove(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        while let Some((begin, end)) = self.last_beginning_before(&range.end) {
            if end <= range.begin {
                break;
            }
            self.take(&begin);
            self.insert_apart(range.end.clone(), end);
            self.insert_apart(begin, range.begin.clone());
        }
    }

    /// Whether the set has a key.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.range_of(key).is_some()
    }

    /// Begin and end of the range that has the key.
    pub(crate) fn range_of(&self, key: &Key) -> Option<(&Key, &Key)> {
        let (begin, end) =
            self.ends.range::<Key, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        (key < end).then_some((begin, end))
    }

    /// Where the range begins that has the keys right before `end`.
    pub(crate) fn begin_of_range_before(&self, end: &Key) -> Option<&Key> {
        let (begin, found_end) =
            self.ends.range::<Key, _>((Bound::Unbounded, Bound::Excluded(end))).next_back()?;
        (end <= found_end).then_some(begin)
    }

    /// Whether some key of the range is in the set.
    pub(crate) fn intersects(&self, range: &KeyRange) -> bool {
        !range.is_empty()
            && self
                .ends
                .range::<Key, _>((Bound::Unbounded, Bound::Excluded(&range.end)))
                .next_back()
                .is_some_and(|(_, end)| *end > range.begin)
    }

    /// The ranges, in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = KeyRange> + '_ {
        self.ends.iter().map(|(begin, end)| KeyRange { begin: begin.clone(), end: end.clone() })
    }

    /// The ranges that have a key of `range`, in key order.
    pub(crate) fn iter_in<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = KeyRange> + 'a {
        let first = self.range_of(&range.begin).map_or(&range.begin, |(begin, _)| begin);
        self.ends
            .range::<Key, _>((Bound::Included(first), Bound::Unbounded))
            .take_while(|(begin, _)| **begin < range.end)
            .map(|(begin, end)| KeyRange { begin: begin.clone(), end: end.clone() })
    }

    /// Whether there is no key in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of all begins and ends, which count against the transaction's limit.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the keys of another set.
    pub(crate) fn extend(&mut self, other: &RangeSet) {
        for range in other.iter() {
            self.insert(&range);
        }
    }

    fn last_beginning_through(&self, key: &Key) -> Option<(Key, Key)> {
        let bounds = (Bound::Unbounded, Bound::Included(key));
        self.ends.range::<Key, _>(bounds).next_back().map(|(b, e)| (b.clone(), e.clone()))
    }

    fn last_beginning_before(&self, key: &Key) -> Option<(Key, Key)> {
        let bounds = (Bound::Unbounded, Bound::Excluded(key));
        self.ends.range::<Key, _>(bounds).next_back().map(|(b, e)| (b.clone(), e.clone()))
    }

    /// Adds a range that touches none, unless it is empty.
    fn insert_apart(&mut self, begin: Key, end: Key) {
        if begin < end {
            self.bytes += begin.len() + end.len();
            self.ends.insert(begin, end);
        }
    }

    fn take(&mut self, begin: &Key) {
        if let Some(end) = self.ends.remove(begin) {
            self.bytes -= begin.len() + end.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(index: u8) -> Key {
        Key::from(&[index])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Against a set of single keys.
        #[test]
        fn behaves_like_a_set_of_keys(
            steps in prop::collection::vec((any::<bool>(), 0u8..20, 0u8..20), 0..30),
        ) {
            let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
            for (insert, begin, end) in steps {
                let range = KeyRange { begin: key(begin), end: key(end) };
                let intersects = (begin..end).any(|index| model.contains(&index));
                prop_assert_eq!(set.intersects(&range), intersects);
                if insert {
                    set.insert(&range);
                    model.extend(begin..end);
                } else {
                    set.remove(&range);
                    model.retain(|index| !(begin..end).contains(index));
                }
                for index in 0..20 {
                    prop_assert_eq!(set.contains(&key(index)), model.contains(&index));
                    let before = set.begin_of_range_before(&key(index + 1)).is_some();
                    prop_assert_eq!(before, model.contains(&index));
                }
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].begin));
                prop_assert!(ranges.iter().all(|range| !range.is_empty()));
                let bytes: usize = ranges.iter().map(|r| r.begin.len() + r.end.len()).sum();
                prop_assert_eq!(set.bytes(), bytes);
                prop_assert_eq!(set.len(), ranges.len());
            }
        }
    }
}
