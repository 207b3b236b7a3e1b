//! Waiting for many cache misses at once instead of for one after the other.
//!
//! A window of a million writes does not fit into caches. Deciding on one range after the other waits for
//! each level of the tree in turn: which block it is, where the block is, where in it the key is. The ranges
//! of a batch are known beforehand, however. Here the filter is asked about a hundred of them together, and then
//! the tree is descended for those that it cannot answer, level by level: the loads of one level do not depend on each other, so the processor has many of them
//! under way. Afterwards the real work finds what it needs in the caches.
//!
//! This changes nothing and decides nothing; without it everything would be the same, only slower.

use std::hint::black_box;

use ferrisdb_core::{KeyRange, Version};

use super::{ConflictSet, Place, child_of};

/// So many ranges descend together: enough loads for the processor to choose from, and little enough to
/// stay in the cache until they are needed.
pub const PREFETCHED_RANGES: usize = 128;
/// So many blocks are fetched together for the sweep.
pub(super) const PREFETCHED_BLOCKS: usize = 8;

impl ConflictSet {
    /// Brings into the caches what [`ConflictSet::is_written_after`] with a given version and
    /// [`ConflictSet::insert`] (no version) will look at. Takes the first [`PREFETCHED_RANGES`].
    pub fn prefetch<'a>(&self, ranges: impl Iterator<Item = (&'a KeyRange, Option<Version>)>) {
        let mut keys: [&[u8]; PREFETCHED_RANGES] = [&[]; PREFETCHED_RANGES];
        let mut versions = [Version::ZERO; PREFETCHED_RANGES];
        let mut is_single = [false; PREFETCHED_RANGES];
        let mut count = 0;
        for (range, read_version) in ranges.take(PREFETCHED_RANGES) {
            keys[count] = &range.begin;
            is_single[count] = range.is_single_key();
            versions[count] = read_version.unwrap_or(Version::ZERO);
            count += 1;
        }
        // A read that the filter can answer goes no further, neither here nor later.
        let mut slots = [0; PREFETCHED_RANGES];
        for (slot, key) in slots[..count].iter_mut().zip(&keys) {
            *slot = self.filter.slot_of(key);
        }
        let mut in_doubt = 0;
        for index in 0..count {
            let (key, version) = (keys[index], versions[index]);
            (keys[in_doubt], versions[in_doubt]) = (key, version);
            let is_in_doubt = self.newest_range > version
                || !is_single[index]
                || self.filter.may_be_written_after(slots[index], version, self.newest);
            in_doubt += usize::from(is_in_doubt || version == Version::ZERO);
        }
        let count = in_doubt;
        let mut places = [Place::default(); PREFETCHED_RANGES];
        for (place, key) in places[..count].iter_mut().zip(&keys) {
            place.group = child_of(&self.separators, key);
        }
        for (place, key) in places[..count].iter_mut().zip(&keys) {
            place.block = child_of(&self.groups[place.group].separators, key);
        }
        // Neither does one that is newer than its block.
        let mut needed = 0;
        for index in 0..count {
            let place = places[index];
            let newest = self.groups[place.group].newest_of[place.block];
            (places[needed], keys[needed], versions[needed]) =
                (place, keys[index], versions[index]);
            needed += usize::from(newest > versions[index]);
        }
        let block = |place: &Place| &*self.groups[place.group].blocks[place.block];
        let mut touched = 0;
        for place in &places[..needed] {
            touched ^= block(place).touch_heads();
        }
        let mut entries = [0; PREFETCHED_RANGES];
        for index in 0..needed {
            let is_write = versions[index] == Version::ZERO;
            let (entry, loaded) = block(&places[index]).touch_entry(keys[index], is_write);
            entries[index] = entry;
            touched ^= loaded;
        }
        for (place, entry) in places[..needed].iter().zip(entries) {
            touched ^= block(place).touch_key(entry);
        }
        // The loads must not be taken for useless.
        black_box(touched);
    }

    /// Brings into the caches what the sweep looks at from a block on, as far as its group reaches.
    pub(super) fn prefetch_sweep(&self, from: Place) {
        let blocks = self.groups.get(from.group).and_then(|group| group.blocks.get(from.block..));
        let blocks = blocks.unwrap_or_default().iter().take(PREFETCHED_BLOCKS);
        black_box(blocks.fold(0, |touched, block| touched ^ block.touch_entries()));
    }
}
