//! For most keys, that they were not written: one look at a table instead of a descent into the tree.
//!
//! ```text
//!   slot      0      1      2      3      4          slot of a key: its hash, modulo the number of slots
//!   latest    .      9      7      .     12          the latest write to any key of the slot
//!
//!   may_be_written_after(a key of slot 2, 8)   no
//!   may_be_written_after(a key of slot 4, 8)   perhaps: the tree knows
//! ```
//!
//! Slots hold no keys, so nothing has to be found, moved or removed: a write overwrites its slot, as it is the
//! latest of all, and what leaves the window becomes older than what anybody asks about. A slot says "no"
//! only if none of its keys was written. So what is answered in the end never depends on the hash, and somebody
//! who chooses keys that collide gets descents, as if there were no filter.
//!
//! Slots have the lower half of a version and are taken for the newest one that ends like this. It is the right one or a later one,
//! which may cost a descent and no more.
//!
//! Knows nothing of writes to ranges; whoever asks must.

use ahash::RandomState;
use ferrisdb_core::Version;

/// Slots to begin with.
const SLOTS_MIN: usize = 1 << 10;
/// Slots of the largest table: 32 MB.
const SLOTS_MAX: usize = 1 << 23;
/// So many slots for each entry of the tree, so that few slots are shared.
const SLOTS_PER_ENTRY: usize = 4;

/// The latest writes to single keys, by a hash of them. See the module.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// The lower halves of versions. The number of slots is a power of two.
    latest: Vec<u32>,
    /// Always the same: who makes keys collide gains nothing.
    hasher: RandomState,
}

impl Filter {
    /// A filter in which nothing was written after a version.
    pub(super) fn new(oldest_version: Version) -> Filter {
        Filter {
            latest: vec![lower_half(oldest_version); SLOTS_MIN],
            hasher: RandomState::with_seeds(1, 2, 3, 4),
        }
    }

    /// Where a key's latest write is.
    pub(super) fn slot_of(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(key) as usize & (self.latest.len() - 1)
    }

    /// Whether a key of the slot may have been written after a version; nothing was after `newest`.
    pub(super) fn may_be_written_after(
        &self,
        slot: usize,
        version: Version,
        newest: Version,
    ) -> bool {
        let age = lower_half(newest).wrapping_sub(self.latest[slot]);
        newest.saturating_sub(u64::from(age)) > version
    }

    /// Notes a write to a key of a slot. Versions do not descend.
    pub(super) fn write(&mut self, slot: usize, version: Version) {
        self.latest[slot] = lower_half(version);
    }

    /// Makes the table large enough for a tree of so many entries.
    ///
    /// A key's new slot is its old one or lies as many slots behind it as there were, so both get what the old one had.
    pub(super) fn grow_for(&mut self, entries: usize) {
        let slots = self.latest.len();
        if slots < SLOTS_MAX && slots < SLOTS_PER_ENTRY * entries {
            self.latest.extend_from_within(..);
        }
    }

    /// How much memory the table takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.latest.capacity() * size_of::<u32>()
    }
}

fn lower_half(version: Version) -> u32 {
    version.0 as u32
}
