//! The transaction's own writes, laid over what the database holds.

use std::{collections::BTreeMap, ops::Bound};

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Mutation, Result, Stage, Value, Versionstamp, atomic::AtomicOp,
};

use super::conflicts::RangeSet;

/// What the transaction has written so far, in the form in which reads ask for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    /// Keys that were written one by one. They stand above the two sets below.
    entries: BTreeMap<Key, Entry>,
    /// Ranges that were cleared.
    cleared: RangeSet,
    /// Where keys with a versionstamp may come to lie. Stands above `cleared`; no pending entry is inside
    /// either set.
    unreadable: RangeSet,
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// It has this value.
    Value(Value),
    /// It is absent.
    Absent,
    /// These operations apply to whatever the database holds; at least one.
    Pending(Vec<(AtomicOp, Value)>),
    /// Its value holds a versionstamp, or a stamped key may come to lie here. It stays so whatever is written to it, until it
    /// is cleared: as in FoundationDB. It depends on what the database holds if it begins with an operation.
    Unreadable { is_dependent: bool },
}

/// What the own writes say about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The value, whatever the database holds.
    Known(Option<Value>),
    /// The operations to apply to what the database holds; none for a key that was not written.
    Database(Vec<(AtomicOp, Value)>),
}

impl Overlay {
    /// Takes a mutation. The transaction commits with a versionstamp later than `before`, as far as is known.
    pub(crate) fn apply(&mut self, mutation: &Mutation, before: Versionstamp) {
        match mutation {
            Mutation::Set { key, value } => self.set(key.clone(), value.clone()),
            Mutation::Clear { key } => self.clear(key.clone()),
            Mutation::ClearRange { range } => self.clear_range(range),
            Mutation::Atomic { key, op, operand } => self.atomic(*op, key.clone(), operand.clone()),
            Mutation::SetVersionstampedKey { key, offset, .. } => {
                self.set_versionstamped_key(key, *offset, before);
            }
            Mutation::SetVersionstampedValue { key, .. } => {
                self.set_versionstamped_value(key.clone());
            }
        }
    }

    fn set(&mut self, key: Key, value: Value) {
        let is_unreadable = match self.entries.get(&key) {
            Some(entry) => matches!(entry, Entry::Unreadable { .. }),
            None => self.unreadable.contains(&key),
        };
        let entry = match is_unreadable {
            true => Entry::Unreadable { is_dependent: false },
            false => Entry::Value(value),
        };
        self.entries.insert(key, entry);
    }

    fn clear(&mut self, key: Key) {
        self.entries.insert(key, Entry::Absent);
    }

    fn clear_range(&mut self, range: &KeyRange) {
        self.remove_entries(range);
        self.unreadable.remove(range);
        self.cleared.insert(range);
    }

    fn atomic(&mut self, op: AtomicOp, key: Key, operand: Value) {
        let known = |value: Option<Value>| value.map_or(Entry::Absent, Entry::Value);
        let entry = match self.entries.remove(&key) {
            Some(Entry::Value(value)) => known(op.apply(Some(&value), &operand)),
            Some(Entry::Absent) => known(op.apply(None, &operand)),
            Some(Entry::Pending(mut ops)) => {
                push_operation(&mut ops, op, operand);
                Entry::Pending(ops)
            }
            Some(unreadable @ Entry::Unreadable { .. }) => unreadable,
            None if self.unreadable.contains(&key) => Entry::Unreadable { is_dependent: true },
            None if self.cleared.contains(&key) => known(op.apply(None, &operand)),
            None => Entry::Pending(vec![(op, operand)]),
        };
        self.entries.insert(key, entry);
    }

    fn set_versionstamped_value(&mut self, key: Key) {
        self.entries.insert(key, Entry::Unreadable { is_dependent: false });
    }

    /// Any key that the stamp can make of `key` may be the one: none of them can be read any more.
    fn set_versionstamped_key(&mut self, key: &Key, offset: u32, before: Versionstamp) {
        let range = stamped_range(key, offset, before);
        self.remove_entries(&range);
        self.unreadable.insert(&range);
    }

    /// What the own writes say about a key.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::AccessedUnreadable`] if its value depends on the commit's versionstamp.
    pub(crate) fn lookup(&self, key: &Key) -> Result<Lookup> {
        match self.entries.get(key) {
            Some(Entry::Value(value)) => Ok(Lookup::Known(Some(value.clone()))),
            Some(Entry::Absent) => Ok(Lookup::Known(None)),
            Some(Entry::Pending(ops)) => Ok(Lookup::Database(ops.clone())),
            Some(Entry::Unreadable { .. }) => Err(unreadable(key)),
            None if self.unreadable.contains(key) => Err(unreadable(key)),
            None if self.cleared.contains(key) => Ok(Lookup::Known(None)),
            None => Ok(Lookup::Database(Vec::new())),
        }
    }

    /// How far from its begin a range is known without the database.
    pub(super) fn known_through_prefix(&self, range: &KeyRange) -> Key {
        let mut known = range.begin.clone();
        while known < range.end {
            known = match self.entries.get(&known) {
                Some(Entry::Pending(_)) => break,
                Some(_) => known.successor(),
                None => match self.unreadable.range_of(&known).or(self.cleared.range_of(&known)) {
                    Some((_, end)) => end.clone(),
                    None => break,
                },
            };
        }
        known.min(range.end.clone())
    }

    /// From which key on, to its end, a range is known without the database.
    pub(super) fn known_from_suffix(&self, range: &KeyRange) -> Key {
        let mut known = range.end.clone();
        while known > range.begin {
            // The key that has `known` as its successor, if it was written.
            let last = match known.split_last() {
                Some((0, key)) => self.entries.get_key_value(key),
                _ => None,
            };
            known = match last {
                Some((_, Entry::Pending(_))) => break,
                Some((key, _)) => key.clone(),
                None => {
                    let unreadable = self.unreadable.begin_of_range_before(&known);
                    match unreadable.or(self.cleared.begin_of_range_before(&known)) {
                        Some(begin) => begin.clone(),
                        None => break,
                    }
                }
            };
        }
        known.max(range.begin.clone())
    }

    /// The keys of a range that were written one by one and whose value may still be there, in a direction.
    pub(super) fn keys_in(&self, range: &KeyRange, reverse: bool) -> impl Iterator<Item = &Key> {
        let bounds = (Bound::Included(&range.begin), Bound::Excluded(&range.end));
        // An inverted pair of bounds would panic.
        let mut entries = (!range.is_empty()).then(|| self.entries.range::<Key, _>(bounds));
        std::iter::from_fn(move || {
            let entries = entries.as_mut()?;
            if reverse { entries.next_back() } else { entries.next() }
        })
        .map(|(key, _)| key)
    }

    /// Whether anything was written in the range.
    pub(super) fn touches(&self, range: &KeyRange) -> bool {
        self.keys_in(range, false).next().is_some()
            || self.cleared.intersects(range)
            || self.unreadable.intersects(range)
    }

    /// Whether a stamped key may come to lie in the range, apart from keys written one by one.
    pub(super) fn check_readable(&self, range: &KeyRange) -> Result<()> {
        if self.unreadable.intersects(range) { Err(unreadable(&range.begin)) } else { Ok(()) }
    }

    /// The parts of a range that a read of it observes in the database (I-15).
    pub(crate) fn observed(&self, range: &KeyRange) -> RangeSet {
        let mut observed = RangeSet::default();
        observed.insert(range);
        for cleared in self.cleared.iter_in(range) {
            observed.remove(&cleared);
        }
        for key in self.keys_in(range, false) {
            let is_dependent = match self.entries.get(key) {
                Some(Entry::Unreadable { is_dependent }) => *is_dependent,
                entry => matches!(entry, Some(Entry::Pending(_))),
            };
            if !is_dependent {
                observed.remove(&KeyRange::single(key));
            }
        }
        observed
    }

    fn remove_entries(&mut self, range: &KeyRange) {
        let inside: Vec<Key> = self.keys_in(range, false).cloned().collect();
        for key in inside {
            self.entries.remove(&key);
        }
    }
}

impl Lookup {
    /// The value, given what the database holds.
    pub(crate) fn resolve(self, database: Option<&Value>) -> Option<Value> {
        match self {
            Lookup::Known(value) => value,
            Lookup::Database(ops) => {
                ops.iter().fold(database.cloned(), |present, (op, operand)| {
                    op.apply(present.as_ref(), operand)
                })
            }
        }
    }
}

/// Adds an operation to those that wait for the value: to the last of them, where one can do what both do.
pub(super) fn push_operation(
    operations: &mut Vec<(AtomicOp, Value)>,
    op: AtomicOp,
    operand: Value,
) {
    if let Some((last_op, last)) = operations.last_mut()
        && *last_op == op
        && let Some(joined) = op.joined(last, &operand)
    {
        *last = joined;
    } else {
        operations.push((op, operand));
    }
}

/// The keys that `key` can become with a versionstamp later than `before` in its gap.
pub(crate) fn stamped_range(key: &Key, offset: u32, before: Versionstamp) -> KeyRange {
    let gap = offset as usize..offset as usize + Versionstamp::LEN;
    let fill = |stamp: [u8; Versionstamp::LEN]| {
        let mut bytes = key.to_vec();
        bytes[gap.clone()].copy_from_slice(&stamp);
        Key::from(bytes)
    };
    KeyRange { begin: fill(before.to_bytes()), end: fill([0xff; Versionstamp::LEN]).successor() }
}

fn unreadable(key: &Key) -> Error {
    Error::new(ErrorCode::AccessedUnreadable, Stage::Client, format!("at or after {key}"))
}
