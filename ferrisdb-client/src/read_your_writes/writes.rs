//! The writes of a transaction, merged: what its commit will send.
//!
//! ```text
//!   made                                        sent
//!   set a 1, set a 2                            set a 2
//!   set b 1, add b 1, clear b, append b x       set b x
//!   add c 1, add c 2                            add c 3
//!   set d 1, set f 1, clear d..e, set dd 2      clear d..e, set dd 2, set f 1
//!   push q/?, clear q/..q0, push q/?            clear q/..q0, push q/?          ? a versionstamp
//! ```
//!
//! Only the last write of a key counts, and a cleared range drops what it covers, so that memory and size are those of
//! what is left, however long it took to get there. The order in which keys were written does not matter otherwise:
//! first all clears of ranges, then the keys, then the keys that hold a versionstamp. Where a stamped key will come to
//! lie nobody knows yet. So a later write that it could meet begins a new layer, which is sent after all of this one.
//!
//! Knows nothing of reads: those ask the [`Overlay`](super::Overlay), which forgets what may not be read.
//! Start with [`Writes::apply`], then [`Writes::mutations`].

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use ferrisdb_core::simulation::{Plant, planted};
use ferrisdb_core::{Key, KeyRange, Mutation, Value, Version, Versionstamp, atomic::AtomicOp};

use super::{
    conflicts::RangeSet,
    overlay::{push_operation, stamped_range},
};

/// What a transaction has written so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    /// The layers before the last one, as they will be sent.
    earlier: Vec<Mutation>,
    cleared: RangeSet,
    /// The keys that were written one by one, after what was cleared.
    entries: BTreeMap<Key, Entry>,
    /// In the order in which they were made, after all entries.
    stamped_keys: Vec<Mutation>,
    /// Where those may come to lie.
    stamped: RangeSet,
    /// What `earlier`, `entries` and `stamped_keys` count against the transaction's limit.
    bytes: usize,
    /// How many mutations `entries` will be.
    entries_count: usize,
}

/// What becomes of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Set(Value),
    Clear,
    Operations { base: Base, operations: Vec<(AtomicOp, Value)> },
}

/// What operations begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Base {
    /// What the database holds.
    Database,
    /// A value with a gap for the versionstamp.
    Stamped { value: Value, offset: u32 },
}

impl Writes {
    /// Takes a mutation.
    pub(crate) fn apply(&mut self, mutation: Mutation) {
        match mutation {
            Mutation::Set { key, value } => self.put(key, Entry::Set(value)),
            Mutation::Clear { key } => self.clear(key),
            Mutation::ClearRange { range } => self.clear_range(&range),
            Mutation::Atomic { key, op, operand } => self.operate(key, op, operand),
            Mutation::SetVersionstampedValue { key, value, offset } => {
                let base = Base::Stamped { value, offset };
                self.put(key, Entry::Operations { base, operations: Vec::new() });
            }
            Mutation::SetVersionstampedKey { ref key, offset, .. } => {
                self.stamped.insert(&possible(key, offset));
                self.bytes += mutation.size();
                self.stamped_keys.push(mutation);
            }
        }
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many mutations will be sent.
    pub(crate) fn count(&self) -> usize {
        self.earlier.len() + self.cleared.len() + self.entries_count + self.stamped_keys.len()
    }

    /// What they count against the transaction's limit.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.cleared.bytes()
    }

    /// What they would count, at most, with another mutation; and how many they would be.
    pub(crate) fn bytes_and_count_with(&self, mutation: &Mutation) -> (usize, usize) {
        let replaced = match mutation {
            Mutation::ClearRange { range } => {
                let inside = self.entries.range::<Key, _>(bounds(range));
                inside.fold((0, 0), |(bytes, count), (key, entry)| {
                    (bytes + entry.size(key), count + entry.count())
                })
            }
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::SetVersionstampedValue { key, .. } => {
                self.entries.get(key).map_or((0, 0), |entry| (entry.size(key), entry.count()))
            }
            Mutation::Atomic { key, op, operand } => self.replaced_by_operation(key, *op, operand),
            Mutation::SetVersionstampedKey { .. } => (0, 0),
        };
        // What was replaced in another layer stays, if this begins a new one.
        let replaced = if self.meets_stamped(mutation) { (0, 0) } else { replaced };
        (self.bytes() + mutation.size() - replaced.0, self.count() + 1 - replaced.1)
    }

    /// What has to be sent, in this order.
    pub(crate) fn mutations(&self) -> impl Iterator<Item = Mutation> + '_ {
        self.earlier.iter().cloned().chain(self.last_layer())
    }

    /// The stamped keys among it, each with the offset of the stamp.
    pub(crate) fn stamped_keys(&self) -> impl Iterator<Item = (&Key, u32)> {
        self.earlier.iter().chain(&self.stamped_keys).filter_map(|mutation| match mutation {
            Mutation::SetVersionstampedKey { key, offset, .. } => Some((key, *offset)),
            _ => None,
        })
    }

    fn last_layer(&self) -> impl Iterator<Item = Mutation> + '_ {
        let cleared = self.cleared.iter().map(|range| Mutation::ClearRange { range });
        let entries = self.entries.iter().flat_map(|(key, entry)| entry.mutations(key));
        // What was cleared comes before what was written afterwards.
        let (first, last) = if planted(Plant::MergedClearsLast) {
            (None, Some(cleared))
        } else {
            (Some(cleared), None)
        };
        let first = first.into_iter().flatten().chain(entries);
        first.chain(self.stamped_keys.iter().cloned()).chain(last.into_iter().flatten())
    }

    fn put(&mut self, key: Key, entry: Entry) {
        if self.stamped.contains(&key) {
            self.begin_layer();
        }
        self.replace(key, entry);
    }

    fn replace(&mut self, key: Key, entry: Entry) {
        self.take(&key);
        self.bytes += entry.size(&key);
        self.entries_count += entry.count();
        self.entries.insert(key, entry);
    }

    fn clear(&mut self, key: Key) {
        if self.stamped.contains(&key) {
            self.begin_layer();
        }
        match self.cleared.contains(&key) {
            true => self.take(&key),
            false => self.replace(key, Entry::Clear),
        }
    }

    fn clear_range(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        if self.stamped.intersects(range) {
            self.drop_stamped_keys(range);
        }
        if self.stamped.intersects(range) {
            self.begin_layer();
        }
        let inside: Vec<Key> =
            self.entries.range::<Key, _>(bounds(range)).map(|(key, _)| key.clone()).collect();
        inside.iter().for_each(|key| self.take(key));
        self.cleared.insert(range);
    }

    /// A stamped key that is cleared wherever it would lie is not sent either.
    fn drop_stamped_keys(&mut self, range: &KeyRange) {
        let Writes { stamped_keys, stamped, bytes, .. } = self;
        *stamped = RangeSet::default();
        stamped_keys.retain(|mutation| {
            let Mutation::SetVersionstampedKey { key, offset, .. } = mutation else { return true };
            let possible = possible(key, *offset);
            let is_covered = range.begin <= possible.begin && possible.end <= range.end;
            if is_covered {
                *bytes -= mutation.size();
            } else {
                stamped.insert(&possible);
            }
            !is_covered
        });
    }

    fn operate(&mut self, key: Key, op: AtomicOp, operand: Value) {
        if self.stamped.contains(&key) {
            self.begin_layer();
        }
        let known = match self.entries.get_mut(&key) {
            Some(Entry::Operations { operations, .. }) => {
                let size = |operations: &[(AtomicOp, Value)]| -> usize {
                    operations.iter().map(|(_, operand)| key.len() + operand.len()).sum()
                };
                let (bytes, count) = (size(operations), operations.len());
                push_operation(operations, op, operand);
                self.bytes = self.bytes + size(operations) - bytes;
                self.entries_count = self.entries_count + operations.len() - count;
                return;
            }
            Some(Entry::Set(value)) => Some(value.clone()),
            Some(Entry::Clear) => None,
            None if self.cleared.contains(&key) => None,
            None => {
                let operations = vec![(op, operand)];
                return self.replace(key, Entry::Operations { base: Base::Database, operations });
            }
        };
        match op.apply(known.as_ref(), &operand) {
            Some(value) => self.replace(key, Entry::Set(value)),
            None => self.clear(key),
        }
    }

    fn take(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.size(key);
            self.entries_count -= entry.count();
        }
    }

    /// From here on everything comes after all that was written so far.
    fn begin_layer(&mut self) {
        let layer: Vec<Mutation> = self.last_layer().collect();
        // Clears of ranges are counted by the set as long as they are in it.
        self.bytes += self.cleared.bytes();
        self.earlier.extend(layer);
        self.cleared = RangeSet::default();
        self.entries.clear();
        self.entries_count = 0;
        self.stamped_keys.clear();
        self.stamped = RangeSet::default();
    }

    fn meets_stamped(&self, mutation: &Mutation) -> bool {
        match mutation {
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::Atomic { key, .. }
            | Mutation::SetVersionstampedValue { key, .. } => self.stamped.contains(key),
            Mutation::ClearRange { range } => self.stamped.intersects(range),
            Mutation::SetVersionstampedKey { .. } => false,
        }
    }

    /// Bytes and count of what goes when an operation comes: as much as its operand, if it joins the one before.
    fn replaced_by_operation(&self, key: &Key, op: AtomicOp, operand: &Value) -> (usize, usize) {
        match self.entries.get(key) {
            Some(Entry::Operations { operations, .. }) => match operations.last() {
                Some((last_op, last)) if *last_op == op => match op.joined(last, operand) {
                    Some(joined) => (key.len() + last.len() + operand.len() - joined.len(), 1),
                    None => (0, 0),
                },
                _ => (0, 0),
            },
            // The value that comes of both is never longer than both.
            Some(Entry::Set(_) | Entry::Clear) => (key.len(), 1),
            None => (0, 0),
        }
    }
}

impl Entry {
    fn mutations(&self, key: &Key) -> impl Iterator<Item = Mutation> + '_ {
        let key = key.clone();
        let first = match self {
            Entry::Set(value) => Some(Mutation::Set { key: key.clone(), value: value.clone() }),
            Entry::Clear => Some(Mutation::Clear { key: key.clone() }),
            Entry::Operations { base: Base::Database, .. } => None,
            Entry::Operations { base: Base::Stamped { value, offset }, .. } => {
                let (value, offset) = (value.clone(), *offset);
                Some(Mutation::SetVersionstampedValue { key: key.clone(), value, offset })
            }
        };
        let operations = match self {
            Entry::Operations { operations, .. } => operations.as_slice(),
            Entry::Set(_) | Entry::Clear => &[],
        };
        let operations = operations.iter().map(move |(op, operand)| Mutation::Atomic {
            key: key.clone(),
            op: *op,
            operand: operand.clone(),
        });
        first.into_iter().chain(operations)
    }

    /// What it counts against the transaction's limit.
    fn size(&self, key: &Key) -> usize {
        match self {
            Entry::Set(value) => key.len() + value.len(),
            Entry::Clear => key.len(),
            Entry::Operations { base, operations } => {
                let base = match base {
                    Base::Database => 0,
                    Base::Stamped { value, .. } => key.len() + value.len(),
                };
                operations.iter().fold(base, |sum, (_, operand)| sum + key.len() + operand.len())
            }
        }
    }

    /// How many mutations it will be.
    fn count(&self) -> usize {
        match self {
            Entry::Set(_) | Entry::Clear => 1,
            Entry::Operations { base: Base::Database, operations } => operations.len(),
            Entry::Operations { base: Base::Stamped { .. }, operations } => 1 + operations.len(),
        }
    }
}

/// All keys that a stamped key can become, whatever is known of the commit.
fn possible(key: &Key, offset: u32) -> KeyRange {
    let least = Versionstamp { commit_version: Version::ZERO, batch_index: 0 };
    stamped_range(key, offset, least)
}

/// The bounds of a range of a map. An inverted pair would panic.
fn bounds(range: &KeyRange) -> impl RangeBounds<Key> + use<> {
    let end = range.end.clone().max(range.begin.clone());
    (Bound::Included(range.begin.clone()), Bound::Excluded(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two letters and what a stamp can make of the keys between them.
    fn any_key() -> impl Strategy<Value = Key> {
        let stamp = |last: u8| [b"q".as_slice(), &[0, 0, 0, 0, 0, 0, 0, 7, 0, last]].concat();
        let mut keys: Vec<Key> = ["a", "b", "q", "r", "z"].map(Key::from).to_vec();
        keys.extend([stamp(1), stamp(2), stamp(3)].map(Key::from));
        prop::sample::select(keys)
    }

    fn any_range() -> impl Strategy<Value = KeyRange> {
        (any_key(), any_key())
            .prop_map(|(a, b)| KeyRange { begin: a.clone().min(b.clone()), end: a.max(b) })
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop::collection::vec(0u8..3, 0..3).prop_map(Value::from)
    }

    fn any_mutation() -> impl Strategy<Value = Mutation> {
        let stamped_key = |value| Mutation::SetVersionstampedKey {
            key: [b"q".as_slice(), &[0xff; 10]].concat().into(),
            offset: 1,
            value,
        };
        let stamped_value = |(key, last): (Key, u8)| Mutation::SetVersionstampedValue {
            key,
            value: [[0; 10].as_slice(), &[last]].concat().into(),
            offset: 0,
        };
        prop_oneof![
            4 => (any_key(), any_value()).prop_map(|(key, value)| Mutation::Set { key, value }),
            2 => any_key().prop_map(|key| Mutation::Clear { key }),
            2 => any_range().prop_map(|range| Mutation::ClearRange { range }),
            4 => (any_key(), prop::sample::select(AtomicOp::ALL), any_value())
                .prop_map(|(key, op, operand)| Mutation::Atomic { key, op, operand }),
            2 => any_value().prop_map(stamped_key),
            1 => (any_key(), 0u8..3).prop_map(stamped_value),
        ]
    }

    fn run(
        rows: &BTreeMap<Key, Value>,
        mutations: impl IntoIterator<Item = Mutation>,
    ) -> BTreeMap<Key, Value> {
        let stamp = Versionstamp { commit_version: Version(7), batch_index: 2 };
        let mut rows = rows.clone();
        for mutation in mutations {
            match mutation.substitute(stamp) {
                Mutation::Set { key, value } => drop(rows.insert(key, value)),
                Mutation::Clear { key } => drop(rows.remove(&key)),
                Mutation::ClearRange { range } => rows.retain(|key, _| !range.contains(key)),
                Mutation::Atomic { key, op, operand } => match op.apply(rows.get(&key), &operand) {
                    Some(value) => drop(rows.insert(key, value)),
                    None => drop(rows.remove(&key)),
                },
                stamped => panic!("{stamped:?} after substitution"),
            }
        }
        rows
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Against the same mutations, one by one.
        #[test]
        fn merged_writes_do_what_the_writes_do(
            rows in prop::collection::btree_map(any_key(), any_value(), 0..8),
            mutations in prop::collection::vec(any_mutation(), 0..20),
        ) {
            let mut writes = Writes::default();
            for mutation in &mutations {
                let (bytes_max, count_max) = writes.bytes_and_count_with(mutation);
                writes.apply(mutation.clone());
                let sent: Vec<Mutation> = writes.mutations().collect();
                prop_assert_eq!(writes.bytes(), sent.iter().map(Mutation::size).sum::<usize>());
                prop_assert_eq!(writes.count(), sent.len());
                prop_assert!(writes.bytes() <= bytes_max, "{} > {}", writes.bytes(), bytes_max);
                prop_assert!(writes.count() <= count_max, "{} > {}", writes.count(), count_max);
            }
            prop_assert_eq!(run(&rows, writes.mutations()), run(&rows, mutations));
        }
    }

    fn sent(mutations: impl IntoIterator<Item = Mutation>) -> Vec<Mutation> {
        let mut writes = Writes::default();
        mutations.into_iter().for_each(|mutation| writes.apply(mutation));
        writes.mutations().collect()
    }

    fn set(key: &str, value: &str) -> Mutation {
        Mutation::Set { key: key.into(), value: value.into() }
    }

    fn clear(begin: &str, end: &str) -> Mutation {
        Mutation::ClearRange { range: KeyRange::new(begin, end) }
    }

    fn add(key: &str, number: u8) -> Mutation {
        Mutation::Atomic { key: key.into(), op: AtomicOp::Add, operand: Value::from(&[number]) }
    }

    fn push(value: &str) -> Mutation {
        let key = [b"q/".as_slice(), &[0; 10]].concat();
        Mutation::SetVersionstampedKey { key: key.into(), offset: 2, value: value.into() }
    }

    #[test]
    fn the_last_write_counts() {
        assert_eq!(sent([set("a", "1"), set("a", "2")]), [set("a", "2")]);
        assert_eq!(sent([add("c", 1), add("c", 2)]), [add("c", 3)]);
        assert_eq!(sent([set("c", "\u{1}"), add("c", 2)]), [set("c", "\u{3}")]);
        let made = [set("d", "1"), set("f", "1"), clear("d", "e"), set("dd", "2")];
        assert_eq!(sent(made), [clear("d", "e"), set("dd", "2"), set("f", "1")]);
        let touching = [clear("a", "b"), clear("b", "c"), clear("aa", "bb")];
        assert_eq!(sent(touching), [clear("a", "c")]);
        let long = vec![0; 100_000];
        let many = (0..200).map(|_| Mutation::Set { key: "k".into(), value: long.clone().into() });
        assert_eq!(sent(many).len(), 1);
    }

    #[test]
    fn stamped_keys_keep_their_place() {
        let cleared = clear("q/", "q0");
        assert_eq!(sent([push("1"), cleared.clone(), push("2")]), [cleared.clone(), push("2")]);
        assert_eq!(sent([push("1"), push("2")]), [push("1"), push("2")]);
        // What is cleared in part may be hit or not: that comes behind.
        let half = clear("q/", "q/x");
        let made = [set("q/a", "1"), push("1"), half.clone(), set("b", "2"), set("b", "3")];
        let expected = [set("q/a", "1"), push("1"), half, set("b", "3")];
        assert_eq!(sent(made), expected);
    }
}
