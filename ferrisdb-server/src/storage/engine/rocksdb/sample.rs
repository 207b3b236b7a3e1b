//! The sample: a key for about every 256 kB of rows, so that the size of a range is known without reading it.
//!
//! ```text
//!   rows      a 100 B    b 90 kB    c 100 B    d 100 B    e 50 kB    ...
//!   sample               b                                           m    t    each stands for 256 kB
//! ```
//!
//! A row is in the sample with a probability of its size in 256 kB, so the sum over the keys of a range is right on
//! average, whatever its rows look like and however well they compress. Chance is a number made of the key: the same
//! key is in or out for the same size, so a row that is written again need not be looked for. The idea is that of
//! FoundationDB's storage servers.
//!
//! It lies in a column family of its own, changes in the same batch as the rows, and is in memory as well: some
//! hundred bytes for each 256 kB of data.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_core::{Key, KeyRange, limits};
use parking_lot::RwLock;
use rocksdb::{AsColumnFamilyRef, WriteBatch};

use crate::storage::engine::EngineChange;

/// How many bytes a key stands for.
const BYTES_PER_KEY: u64 = 256 * 1024;
/// No row is larger than this, so that most keys are never looked for.
const ROW_BYTES_MAX: u64 = (limits::KEY_BYTES_MAX + limits::VALUE_BYTES_MAX) as u64;

const _: () = assert!(ROW_BYTES_MAX < BYTES_PER_KEY);

/// The sample in memory.
#[derive(Debug, Default)]
pub(super) struct Sample(RwLock<BTreeMap<Key, u64>>);

/// Changes of the sample, in order. They are in the batch of the rows already.
#[derive(Debug, Default)]
pub(super) struct SampleChanges(Vec<SampleChange>);

#[derive(Debug)]
enum SampleChange {
    Add(Key),
    Remove(Key),
    RemoveRange(KeyRange),
}

/// Whether a row of this size is in the sample.
pub(super) fn is_sampled(key: &[u8], bytes: usize) -> bool {
    chance(key) < bytes as u64
}

/// A number below [`BYTES_PER_KEY`] that looks random. Never to be changed: it is what is on disk.
fn chance(key: &[u8]) -> u64 {
    // FNV-1a, and the finalizer of splitmix64, because its upper bits are better than its lower ones.
    let mut hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)) % BYTES_PER_KEY
}

impl Sample {
    /// A sample of these keys.
    pub(super) fn of(keys: impl Iterator<Item = Key>) -> Sample {
        Sample(RwLock::new(keys.map(|key| (key, BYTES_PER_KEY)).collect()))
    }

    /// Adds to a batch of changes what it means for the sample; to be [applied](Self::apply) when it is written.
    pub(super) fn add_changes(
        &self,
        changes: &[EngineChange],
        batch: &mut WriteBatch,
        family: &impl AsColumnFamilyRef,
    ) -> SampleChanges {
        let sample = self.0.read();
        let mut sample_changes = SampleChanges::default();
        let SampleChanges(made) = &mut sample_changes;
        // Keys that come into the sample by this very batch: clears may be about them.
        let mut added: BTreeSet<&Key> = BTreeSet::new();
        for change in changes {
            match change {
                EngineChange::ClearRange(range) if range.is_empty() => {}
                EngineChange::ClearRange(range) => {
                    let has_some =
                        sample.range::<Key, _>(&range.begin..&range.end).next().is_some()
                            || added.range::<Key, _>(&range.begin..&range.end).next().is_some();
                    if has_some {
                        batch.delete_range_cf(family, &range.begin, &range.end);
                        made.push(SampleChange::RemoveRange(range.clone()));
                    }
                }
                EngineChange::Set(row) if is_sampled(&row.key, row.key.len() + row.value.len()) => {
                    batch.put_cf(family, &row.key, b"");
                    added.insert(&row.key);
                    made.push(SampleChange::Add(Key::copy_from(&row.key)));
                }
                EngineChange::Set(ferrisdb_core::service::storage::Row { key, .. })
                | EngineChange::Clear(key) => {
                    let may_be_in = chance(key) < ROW_BYTES_MAX;
                    if may_be_in && (sample.contains_key(key) || added.contains(key)) {
                        batch.delete_cf(family, key);
                        made.push(SampleChange::Remove(key.clone()));
                    }
                }
            }
        }
        sample_changes
    }

    /// The batch is written.
    pub(super) fn apply(&self, changes: SampleChanges) {
        if changes.0.is_empty() {
            return;
        }
        let mut sample = self.0.write();
        for change in changes.0 {
            match change {
                SampleChange::Add(key) => drop(sample.insert(key, BYTES_PER_KEY)),
                SampleChange::Remove(key) => drop(sample.remove(&key)),
                SampleChange::RemoveRange(range) => {
                    // One by one: to cut the map in pieces would cost as much as all that lies behind.
                    let inside = sample.range(range.begin..range.end);
                    let inside: Vec<Key> = inside.map(|(key, _)| key.clone()).collect();
                    for key in &inside {
                        sample.remove(key);
                    }
                }
            }
        }
    }

    /// All rows are gone.
    pub(super) fn clear(&self) {
        self.0.write().clear();
    }

    /// The first keys in a range, each with the bytes that it stands for.
    pub(super) fn keys(&self, range: &KeyRange, keys_max: usize) -> Vec<(Key, u64)> {
        if range.is_empty() {
            return Vec::new();
        }
        let sample = self.0.read();
        let inside = sample.range(range.begin.clone()..range.end.clone()).take(keys_max);
        inside.map(|(key, bytes)| (key.clone(), *bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clears_remove_what_was_there_and_what_came_with_them() {
        let key_of = |n: u32| Key::from(format!("{n:02}"));
        let sample = Sample::of((0..10).map(key_of));
        let whole = KeyRange::new("", "z");
        let keys = |sample: &Sample| -> Vec<Key> {
            sample.keys(&whole, usize::MAX).into_iter().map(|(key, _)| key).collect()
        };
        let clear = |begin: &str, end: &str| EngineChange::ClearRange(KeyRange::new(begin, end));
        let directory = tempfile::tempdir().unwrap();
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        let db = rocksdb::DB::open_cf(&options, directory.path(), ["default"]).unwrap();
        let family = db.cf_handle("default").unwrap();
        let apply = |changes: &[EngineChange]| {
            let mut batch = WriteBatch::default();
            let changes = sample.add_changes(changes, &mut batch, &family);
            let count = changes.0.len();
            sample.apply(changes);
            count
        };
        assert_eq!(apply(&[clear("03", "05"), clear("03x", "03z"), clear("50", "60")]), 1);
        assert_eq!(keys(&sample), [0, 1, 2, 5, 6, 7, 8, 9].map(key_of));
        let large = vec![0; ROW_BYTES_MAX as usize].into();
        let key = (20..90).map(key_of).find(|key| chance(key) < 90_000).unwrap();
        let (version, end) = (ferrisdb_core::Version(1), key.successor());
        let row = ferrisdb_core::service::storage::Row {
            key: key.clone(),
            value: large,
            commit_version: version,
        };
        let set = || EngineChange::Set(row.clone());
        let range = || EngineChange::ClearRange(KeyRange { begin: key.clone(), end: end.clone() });
        assert_eq!(apply(&[range(), set(), range(), range()]), 3);
        assert_eq!(keys(&sample).len(), 8);
        assert_eq!(apply(&[set(), EngineChange::Clear(key.clone()), set()]), 3);
        assert_eq!(keys(&sample).last(), Some(&key));
    }

    #[test]
    fn a_row_is_in_the_sample_as_often_as_it_is_large() {
        let count = |bytes: usize| {
            (0..50_000).filter(|n| is_sampled(format!("user/{n:09}").as_bytes(), bytes)).count()
        };
        for bytes in [1_000, 10_000, 100_000] {
            let (found, expected) = (count(bytes) as f64, 50_000.0 * bytes as f64 / 262_144.0);
            assert!((found / expected - 1.0).abs() < 0.25, "{found} of {bytes} bytes, {expected}");
        }
        // What is on disk was drawn by this number.
        assert_eq!(chance(b"user/000000001"), 193_129);
    }
}
