//! Waiting for many cache misses at once instead of for one after the other.
//!
//! A window of a million writes does not fit into caches. Deciding on one range after the other waits for
//! each level of the tree in turn: which block it is, where the block is, where in it the key is. The ranges
//! of a batch are known beforehand, however. Here the tree is descended for some dozens of them together,
//! level by level: the loads of one level do not depend on each other, so the processor has many of them
//! under way. Afterwards the real work finds what it needs in the caches.
//!
//! This changes nothing and decides nothing; without it everything would be the same, only slower.

use std::hint::black_box;

use ferrisdb_core::{KeyRange, Version};

use super::{ConflictSet, Place, child_of};

/// So many ranges descend together: enough loads for the processor to choose from, and little enough to
/// stay in the cache until they are needed.
pub const PREFETCHED_RANGES: usize = 64;

impl ConflictSet {
    /// Brings into the caches what [`ConflictSet::is_written_after`] with a given version and
    /// [`ConflictSet::insert`] (no version) will look at. Takes the first [`PREFETCHED_RANGES`].
    pub fn prefetch<'a>(&self, ranges: impl Iterator<Item = (&'a KeyRange, Option<Version>)>) {
        let mut keys: [&[u8]; PREFETCHED_RANGES] = [&[]; PREFETCHED_RANGES];
        let mut versions = [Version::ZERO; PREFETCHED_RANGES];
        let mut count = 0;
        for (range, read_version) in ranges.take(PREFETCHED_RANGES) {
            keys[count] = &range.begin;
            versions[count] = read_version.unwrap_or(Version::ZERO);
            count += 1;
        }
        let mut places = [Place::default(); PREFETCHED_RANGES];
        for (place, key) in places[..count].iter_mut().zip(&keys) {
            place.group = child_of(&self.separators, key);
        }
        for (place, key) in places[..count].iter_mut().zip(&keys) {
            place.block = child_of(&self.groups[place.group].separators, key);
        }
        // A read that is newer than its block goes no further, neither here nor later.
        let mut needed = 0;
        for index in 0..count {
            let place = places[index];
            let block = &self.groups[place.group].blocks[place.block];
            (places[needed], keys[needed]) = (place, keys[index]);
            needed += usize::from(block.newest() > versions[index]);
        }
        let blocks =
            places[..needed].iter().map(|place| &self.groups[place.group].blocks[place.block]);
        let touched = blocks.clone().fold(0, |touched, block| touched ^ block.touch_heads());
        let entries = blocks.zip(&keys);
        let touched =
            entries.fold(touched, |touched, (block, key)| touched ^ block.touch_entry(key));
        // The loads must not be taken for useless.
        black_box(touched);
    }
}
