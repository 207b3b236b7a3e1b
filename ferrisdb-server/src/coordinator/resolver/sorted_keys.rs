//! A small sorted list of keys that is searched mostly by comparing integers.
//!
//! ```text
//!   prefix   "user/0000"                           what all of them begin with, stored once
//!   heads    "1042\0\0\0\0" "1042/nam" "17\0..."   the eight bytes that follow, as big-endian integers
//!   tails    0..4           4..13      13..15      where the rest of each key lies in `bytes`, head included
//!   bytes    1042 1042/name 17
//! ```
//!
//! Integers sort like the bytes they were made of, so only keys with equal heads have to be compared in
//! full. The idea is that of the "poor man's normalized key" of Graefe's survey of B-tree techniques, with
//! prefix truncation; the layout as parallel arrays is our own. A search touches the cache lines of the
//! heads that it probes, and further ones only if it finds an equal head.
//!
//! A list is meant to have at most a few hundred keys: inserting moves everything behind the new key.
//! Knows nothing of versions. Start with [`SortedKeys::search`].

use std::ops::Range;

use super::inline_list::{InlineList, List};

/// A shorter common prefix is not worth the comparison, as heads tell keys apart as well without it.
const PREFIX_BYTES_MIN: usize = 4;
/// Bytes of removed keys that a list tolerates before it is packed again, beyond as much again as it needs.
const GARBAGE_BYTES_MIN: usize = 1024;
/// Longest list that is searched by probing every eighth head instead of by halving.
const PROBED_LEN_MAX: usize = 256;
/// Eight heads are a cache line.
const STRIDE: usize = 8;

/// Keys in ascending order, without duplicates. See the module.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(super) struct SortedKeys<Heads = Vec<u64>, Tails = Vec<Tail>> {
    /// The prefix, then tails in the order in which they came.
    bytes: Vec<u8>,
    prefix_len: usize,
    /// How much of `bytes` is the prefix or belongs to keys that are still there.
    live_bytes: usize,
    heads: Heads,
    tails: Tails,
}

/// At most `MAX` keys. Heads are where the list is, not somewhere else.
pub(super) type InlineSortedKeys<const MAX: usize> =
    SortedKeys<InlineList<u64, MAX>, InlineList<Tail, MAX>>;

/// Where the part of a key after the common prefix lies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tail {
    start: u32,
    len: u32,
}

impl Tail {
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

impl<Heads: List<u64>, Tails: List<Tail>> SortedKeys<Heads, Tails> {
    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// The key's index, or the index at which it belongs.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let tail = match self.prefix() {
            // Not to call a comparison of nothing is worth a branch: its arguments would be waited for.
            [] => key,
            prefix => match key.strip_prefix(prefix) {
                Some(tail) => tail,
                None => return Err(if key < prefix { 0 } else { self.len() }),
            },
        };
        let head = head_of(tail);
        let first = self.count_heads_before(head);
        if self.heads.get(first) != Some(&head) {
            return Err(first);
        }
        let equal = self.heads[first..].partition_point(|&other| other == head);
        self.tails[first..first + equal]
            .binary_search_by(|other| self.bytes[other.range()].cmp(tail))
            .map(|index| first + index)
            .map_err(|index| first + index)
    }

    /// How many heads sort before `head`.
    ///
    /// Halving waits for one cache miss after the other. Probing the last head of every cache line
    /// compares more, but its loads do not depend on each other, so the misses overlap.
    fn count_heads_before(&self, head: u64) -> usize {
        if self.heads.len() > PROBED_LEN_MAX {
            return self.heads.partition_point(|&other| other < head);
        }
        let (lines, rest) = self.heads.as_chunks::<STRIDE>();
        let full = lines.iter().map(|line| usize::from(line[STRIDE - 1] < head)).sum::<usize>();
        let line = lines.get(full).map_or(rest, |line| line.as_slice());
        full * STRIDE + line.iter().map(|&other| usize::from(other < head)).sum::<usize>()
    }

    /// The index at which a key would belong, if heads alone told.
    pub(super) fn place_by_head(&self, key: &[u8]) -> usize {
        self.count_heads_before(head_of(key.get(self.prefix_len..).unwrap_or_default()))
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[..self.prefix_len]
    }

    /// Loads all heads. The result means nothing.
    pub(super) fn touch_heads(&self) -> u64 {
        self.heads.iter().step_by(STRIDE).fold(0, |touched, head| touched ^ head)
    }

    /// Loads what a comparison with the key at an index takes. The result means nothing.
    pub(super) fn touch_tail(&self, index: usize) -> u64 {
        let byte = self.tails.get(index).and_then(|tail| self.bytes.get(tail.start as usize));
        u64::from(byte.copied().unwrap_or_default())
    }

    /// Loads what inserting at an index moves. The result means nothing.
    pub(super) fn touch_tails(&self, index: usize) -> u64 {
        let moved = self.tails.get(index..).unwrap_or_default();
        moved.iter().step_by(STRIDE).fold(0, |touched, tail| touched ^ u64::from(tail.len))
    }

    /// Inserts a key at the index where it belongs.
    pub(super) fn insert(&mut self, index: usize, key: &[u8]) {
        if !key.starts_with(self.prefix()) {
            let common = common_prefix_len(self.prefix(), key);
            self.rebuild(common);
        }
        let tail = &key[self.prefix_len..];
        let stored = Tail { start: narrow(self.bytes.len()), len: narrow(tail.len()) };
        self.bytes.extend_from_slice(tail);
        self.live_bytes += tail.len();
        self.heads.insert(index, head_of(tail));
        self.tails.insert(index, stored);
        if self.len().is_power_of_two() {
            // A list that only ever grows finds out what its keys have in common, too.
            self.rebuild(self.common_prefix_len());
        }
        self.pack_if_loose();
    }

    /// Removes the keys of a range of indexes.
    pub(super) fn remove(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let removed = &self.tails[range.clone()];
        self.live_bytes -= removed.iter().map(|tail| tail.len as usize).sum::<usize>();
        self.heads.remove(range.clone());
        self.tails.remove(range);
        self.pack_if_loose();
    }

    /// Keeps the keys at whose index `is_kept` is true.
    pub(super) fn retain(&mut self, is_kept: impl Fn(usize) -> bool) {
        let (mut kept, mut kept_bytes) = (0, self.prefix_len);
        for index in (0..self.len()).filter(|&index| is_kept(index)) {
            self.heads[kept] = self.heads[index];
            self.tails[kept] = self.tails[index];
            kept_bytes += self.tails[kept].len as usize;
            kept += 1;
        }
        self.heads.remove(kept..self.heads.len());
        self.tails.remove(kept..self.tails.len());
        self.live_bytes = kept_bytes;
        self.pack_if_loose();
    }

    /// Moves the keys from `index` on into a list of their own.
    pub(super) fn split_off(&mut self, index: usize) -> Self {
        let mut right = Self { prefix_len: self.prefix_len, ..Self::default() };
        // Rebuilt at once, so it does not matter that the left keys' bytes come along.
        right.bytes.clone_from(&self.bytes);
        right.heads.extend_from_slice(&self.heads[index..]);
        right.tails.extend_from_slice(&self.tails[index..]);
        self.heads.remove(index..self.heads.len());
        self.tails.remove(index..self.tails.len());
        right.rebuild(right.common_prefix_len());
        self.rebuild(self.common_prefix_len());
        right
    }

    /// Moves all keys of `right`, which sort after these, to the end of this list.
    pub(super) fn append(&mut self, right: &Self) {
        let mut key = Vec::new();
        for index in 0..right.len() {
            right.write_key(index, &mut key);
            self.insert(self.len(), &key);
        }
        self.rebuild(self.common_prefix_len());
    }

    /// The key at an index.
    pub(super) fn key(&self, index: usize) -> Vec<u8> {
        let mut key = Vec::new();
        self.write_key(index, &mut key);
        key
    }

    /// Whether `key` comes right after the key at an index: nothing sorts between them.
    pub(super) fn is_successor(&self, index: usize, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix())
            .and_then(|tail| tail.strip_suffix(&[0]))
            .is_some_and(|tail| tail == &self.bytes[self.tails[index].range()])
    }

    /// About how much memory the list takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.heads.memory_bytes() + self.tails.memory_bytes() + self.bytes.capacity()
    }

    fn write_key(&self, index: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix());
        key.extend_from_slice(&self.bytes[self.tails[index].range()]);
    }

    /// The length of what all keys begin with, counted from the beginning of the keys.
    fn common_prefix_len(&self) -> usize {
        match (self.tails.first(), self.tails.last()) {
            (Some(first), Some(last)) if self.len() > 1 => {
                let (first, last) = (&self.bytes[first.range()], &self.bytes[last.range()]);
                self.prefix_len + common_prefix_len(first, last)
            }
            _ => 0,
        }
    }

    fn pack_if_loose(&mut self) {
        if self.bytes.len() > 2 * self.live_bytes + GARBAGE_BYTES_MIN {
            self.rebuild(self.prefix_len);
        }
    }

    /// Writes all keys anew, without garbage and with the first `common` bytes as their prefix.
    fn rebuild(&mut self, common: usize) {
        let common = if common < PREFIX_BYTES_MIN { 0 } else { common };
        let old = std::mem::take(&mut self.bytes);
        let old_prefix = &old[..self.prefix_len];
        let old_tails: usize = self.tails.iter().map(|tail| tail.len as usize).sum();
        // Each tail becomes longer or shorter by as much as the prefix becomes shorter or longer.
        let longer = self.len() * self.prefix_len.saturating_sub(common);
        let mut bytes = Vec::with_capacity(common + (old_tails + longer) * 3 / 2);
        // Taken from the first key, which has it even if the old prefix is shorter.
        let first = self.tails.first().map_or(&[][..], |tail| &old[tail.range()]);
        bytes.extend(old_prefix.iter().chain(first).copied().take(common));
        for (tail, head) in self.tails.iter_mut().zip(self.heads.iter_mut()) {
            let start = bytes.len();
            let old_tail = &old[tail.range()];
            match common.checked_sub(old_prefix.len()) {
                Some(dropped) => bytes.extend_from_slice(&old_tail[dropped..]),
                None => {
                    bytes.extend_from_slice(&old_prefix[common..]);
                    bytes.extend_from_slice(old_tail);
                }
            }
            *head = head_of(&bytes[start..]);
            *tail = Tail { start: narrow(start), len: narrow(bytes.len() - start) };
        }
        self.prefix_len = common;
        self.live_bytes = bytes.len();
        self.bytes = bytes;
    }
}

/// The first eight bytes as an integer that sorts like them. Missing bytes count as zeros.
fn head_of(tail: &[u8]) -> u64 {
    match tail.first_chunk() {
        Some(head) => u64::from_be_bytes(*head),
        None => tail
            .iter()
            .enumerate()
            .fold(0, |head, (index, &byte)| head | u64::from(byte) << (56 - 8 * index)),
    }
}

fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Offsets are half as wide as they could be: a list is far from four gigabytes.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).expect("a list of keys has less than four gigabytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(Vec<u8>),
        Remove(prop::sample::Index, usize),
        Retain(u64),
        SplitOff(prop::sample::Index),
    }

    /// Keys that share prefixes of all lengths around the interesting ones, and differ in zeros at the end.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop::sample::select(vec![0, 0, 1, b'a', 0xff]);
        (0..12_usize, prop::collection::vec(byte, 0..12)).prop_map(|(shared, tail)| {
            b"table/row/0042"[..shared].iter().copied().chain(tail).collect()
        })
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            12 => key().prop_map(Op::Insert),
            1 => (any::<prop::sample::Index>(), 0..4_usize).prop_map(|(at, n)| Op::Remove(at, n)),
            1 => any::<u64>().prop_map(Op::Retain),
            1 => any::<prop::sample::Index>().prop_map(Op::SplitOff),
        ]
    }

    fn check(keys: &SortedKeys, model: &[Vec<u8>], sought: &[u8]) {
        assert_eq!((0..keys.len()).map(|index| keys.key(index)).collect::<Vec<_>>(), model);
        assert_eq!(keys.search(sought), model.binary_search_by(|key| key.as_slice().cmp(sought)));
        for (index, key) in model.iter().enumerate() {
            assert_eq!(keys.search(key), Ok(index));
            let is_successor = sought.split_last().is_some_and(|(z, k)| *z == 0 && k == key);
            assert_eq!(keys.is_successor(index, sought), is_successor);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_a_sorted_list(
            ops in prop::collection::vec(op(), 0..80), sought in prop::collection::vec(key(), 80)
        ) {
            let mut keys: SortedKeys = SortedKeys::default();
            let mut model: Vec<Vec<u8>> = Vec::new();
            for (op, sought) in ops.into_iter().zip(&sought) {
                match op {
                    Op::Insert(key) => if let Err(index) = keys.search(&key) {
                        keys.insert(index, &key);
                        model.insert(index, key);
                    },
                    Op::Remove(at, count) => {
                        let from = at.index(model.len() + 1);
                        let range = from..(from + count).min(model.len());
                        keys.remove(range.clone());
                        model.drain(range);
                    }
                    Op::Retain(mask) => {
                        let is_kept = |index: usize| mask >> (index % 64) & 1 == 1;
                        keys.retain(is_kept);
                        let mut index = 0..;
                        model.retain(|_| index.next().is_some_and(is_kept));
                    }
                    Op::SplitOff(at) => {
                        let at = at.index(model.len() + 1);
                        let right = keys.split_off(at);
                        check(&keys, &model[..at], sought);
                        check(&right, &model[at..], sought);
                        keys.append(&right);
                    }
                }
                check(&keys, &model, sought);
            }
        }
    }

    #[test]
    fn removed_keys_leave_no_garbage_behind() {
        let mut keys: SortedKeys = SortedKeys::default();
        for _ in 0..1000 {
            keys.insert(0, &[b'k'; 100]);
            keys.remove(0..1);
        }
        assert!(keys.memory_bytes() < 8 * GARBAGE_BYTES_MIN, "{} bytes", keys.memory_bytes());
    }
}
