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

use std::collections::BTreeMap;

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
        for change in changes {
            match change {
                EngineChange::ClearRange(range) if range.is_empty() => {}
                EngineChange::ClearRange(range) => {
                    let has_some =
                        sample.range(range.begin.clone()..range.end.clone()).next().is_some();
                    if has_some || !made.is_empty() {
                        batch.delete_range_cf(family, &range.begin, &range.end);
                        made.push(SampleChange::RemoveRange(range.clone()));
                    }
                }
                EngineChange::Set(row) if is_sampled(&row.key, row.key.len() + row.value.len()) => {
                    batch.put_cf(family, &row.key, b"");
                    made.push(SampleChange::Add(Key::copy_from(&row.key)));
                }
                EngineChange::Set(ferrisdb_core::service::storage::Row { key, .. })
                | EngineChange::Clear(key) => {
                    let may_be_in = chance(key) < ROW_BYTES_MAX;
                    if may_be_in && (sample.contains_key(key) || !made.is_empty()) {
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
                    let mut inside = sample.split_off(&range.begin);
                    let mut behind = inside.split_off(&range.end);
                    sample.append(&mut behind);
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
