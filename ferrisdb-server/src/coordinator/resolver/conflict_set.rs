//! Which keys were written when: for every key the version of its latest write, over a sliding window.
//!
//! ```text
//!   insert [d, e) at 7, then [b, h) at 9, then the key f at 12
//!
//!              a     b          f          h     i
//!   version    .     9    9     12    9    .     .            .  at most oldest_version
//!
//!   is_written_after([a, c), 8)   yes, b..c was written at 9
//!   is_written_after([f, g), 9)   yes, f was written at 12
//!   is_written_after([g, z), 9)   no
//! ```
//!
//! As only the *latest* write to a key counts, ranges need not be kept as such: the whole history is one
//! step function from keys to versions, and a write replaces the steps it covers. (FoundationDB's resolver
//! keeps the same function in a skip list with the maximum version of the stretch under every tower.) Here
//! it lies in a B+tree of three levels, made for few cache misses:
//!
//! ```text
//!   filter    slots         | 9 | 7 | . | 12 | ...       latest writes to single keys, by a hash of the key
//!
//!   root      separators    | g | p |                    any number; about a thousand for a million writes
//!             groups     [     |     |     ]
//!   group     separators    | h | k | m |                up to 64 blocks
//!             blocks     [     |  x  |     |     ]
//!   block     entries       h: at 7 after 2, i: ...      up to 32 entries
//! ```
//!
//! - Most reads of a single key do not come to the tree: the filter knows that it was not written (`filter`).
//! - Keys are compared by eight bytes as an integer first (`sorted_keys`).
//! - An entry has two versions, of its key and of the gap behind it (`block`). So a write to a single
//!   key, by far the most frequent one, is one entry found in one descent, not two boundaries.
//! - A block is one piece of memory but for the bytes of its keys, so that finding a place in it takes few cache misses.
//! - Of blocks and groups a version is known after which no part of theirs was written. A read that is newer
//!   skips them; most reads are newer than nearly everything.
//! - What a batch is going to look at is fetched together ([`ConflictSet::prefetch`]), so that misses overlap.
//! - A version is forgotten lazily. Who asks about `oldest_version` or later cannot tell what is older, so
//!   nothing has to change when the window moves. Entries that make no difference any more are dropped when
//!   their block is full, which may spare its division. Those to which no write comes back are dropped by a
//!   hand that sweeps over the blocks, `SWEEP_PER_INSERT` entries for each new entry: while it goes round
//!   once, the set grows by about a quarter, and no call takes longer than the inserts before it did.
//!
//! Invariants: entries ascend strictly within and across blocks; no version is greater than the newest of
//! its block, its group and the set, and none that a single key was written at than that of its slot; the gap
//! at the end of a block and the one at the beginning of the next have the same version, or both at most
//! `oldest_version`.
//!
//! # Caveats
//!
//! A write that covers many entries frees all of them at once; each was paid for by an insert, but a clear
//! of a million entries takes some milliseconds. The filter doubles at once, too: at most 16 MB are copied, thirteen times
//! in the life of a set, and it never shrinks.
//!
//! While there are writes to ranges of several keys in the window, reads that are older than the latest of them
//! get nothing from the filter.
//!
//! Start with [`ConflictSet::is_written_after`], then [`ConflictSet::insert`].

mod filter;
mod prefetch;

use ferrisdb_core::{KeyRange, Version};

pub use self::prefetch::PREFETCHED_RANGES;

use self::{filter::Filter, prefetch::PREFETCHED_BLOCKS};

use super::{
    block::{BLOCK_ENTRIES_MAX, Block},
    sorted_keys::SortedKeys,
};

/// A full block that has more entries when it was cleared up is divided: soon it would be full again.
const BLOCK_LEN_AFTER_FORGETTING: usize = BLOCK_ENTRIES_MAX * 3 / 4;
/// Blocks at which a group is divided.
const GROUP_BLOCKS_MAX: usize = 64;
/// How many entries are swept for each that is inserted.
const SWEEP_PER_INSERT: usize = 4;
/// How many entries are swept by each call, even if none was inserted.
const SWEEP_MIN: usize = 4 * BLOCK_ENTRIES_MAX;
/// What it costs to look at a block, in entries.
const SWEEP_PER_BLOCK: usize = 8;

/// The latest version at which each key was written. See the module.
#[derive(Clone, Debug)]
pub struct ConflictSet {
    /// The first key of every group but the first, which begins with the first key of all.
    separators: SortedKeys,
    groups: Vec<Group>,
    oldest_version: Version,
    /// Of all writes.
    newest: Version,
    /// Of all writes to ranges of more than one key.
    newest_range: Version,
    /// Knows most keys that were not written.
    filter: Filter,
    /// The number of entries in all blocks.
    len: usize,
    /// Where the sweep goes on, and how many entries it is behind.
    hand: Place,
    sweep_debt: usize,
}

/// Some neighbouring blocks.
#[derive(Clone, Debug)]
struct Group {
    /// The first key of every block but the first.
    separators: SortedKeys,
    /// Each in one piece of memory, which stays where it is when others come and go.
    #[expect(
        clippy::vec_box,
        reason = "a block is a kilobyte, too much to move for each new neighbour"
    )]
    blocks: Vec<Box<Block>>,
    /// No part of each block was written after this. A part that was may have been overwritten or removed since.
    newest_of: Vec<Version>,
    /// No part of any block was written after this.
    newest: Version,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    group: usize,
    block: usize,
}

impl ConflictSet {
    /// A set in which nothing was written after `oldest_version`.
    pub fn new(oldest_version: Version) -> ConflictSet {
        ConflictSet {
            separators: SortedKeys::default(),
            groups: vec![Group::new(oldest_version)],
            oldest_version,
            newest: oldest_version,
            newest_range: oldest_version,
            filter: Filter::new(oldest_version),
            len: 0,
            hand: Place::default(),
            sweep_debt: 0,
        }
    }

    /// Nothing is known of writes at or before this version, except that they are not after it.
    pub fn oldest_version(&self) -> Version {
        self.oldest_version
    }

    /// How many entries it takes to describe the window: at most one for each key and two for each range
    /// that was written, and for a while those that could be dropped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no write is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// About how much memory the set takes, in bytes. Looks at every block: for a status, not for a batch.
    pub fn memory_bytes(&self) -> usize {
        let around = self.filter.memory_bytes() + self.separators.memory_bytes();
        around + self.groups.iter().map(Group::memory_bytes).sum::<usize>()
    }

    /// Whether any key of the range was written after `read_version`, which must be at least
    /// [`ConflictSet::oldest_version`]. An empty range never was.
    pub fn is_written_after(&self, range: &KeyRange, read_version: Version) -> bool {
        assert!(
            read_version >= self.oldest_version,
            "asked about {read_version}, but only {} and later is known",
            self.oldest_version
        );
        if read_version >= self.newest {
            return false;
        }
        if range.is_single_key() {
            if !self.may_be_written_after(&range.begin, read_version) {
                return false;
            }
            let group = &self.groups[child_of(&self.separators, &range.begin)];
            if group.newest <= read_version {
                return false;
            }
            let block = child_of(&group.separators, &range.begin);
            return group.newest_of[block] > read_version
                && group.blocks[block].version_of(&range.begin) > read_version;
        }
        if range.is_empty() {
            return false;
        }
        let first = self.place_of(&range.begin);
        let last = self.place_before(&range.end);
        self.is_written_between(range, first, last, read_version)
    }

    /// Whether a key may have been written after a version, as far as that is known without the tree.
    fn may_be_written_after(&self, key: &[u8], read_version: Version) -> bool {
        self.newest_range > read_version
            || self.filter.may_be_written_after(self.filter.slot_of(key), read_version, self.newest)
    }

    /// When some key of the range was last written, given that one was after `read_version`.
    ///
    /// Only conflicts ask for it, so it costs a search over the versions, and the set does not have to keep anything for it.
    pub fn last_write(&self, range: &KeyRange, read_version: Version) -> Version {
        let (mut before, mut through) = (read_version.0, self.newest.0);
        while through - before > 1 {
            let middle = before + (through - before) / 2;
            if self.is_written_after(range, Version(middle)) {
                before = middle;
            } else {
                through = middle;
            }
        }
        Version(through)
    }

    /// [`ConflictSet::is_written_after`] for a range whose keys begin in one block and end in another.
    fn is_written_between(
        &self,
        range: &KeyRange,
        first: Place,
        last: Place,
        read_version: Version,
    ) -> bool {
        for group_index in first.group..=last.group {
            let group = &self.groups[group_index];
            if group.newest <= read_version {
                continue;
            }
            let from = if group_index == first.group { first.block } else { 0 };
            let through =
                if group_index == last.group { last.block } else { group.blocks.len() - 1 };
            for block_index in from..=through {
                let block = &group.blocks[block_index];
                if group.newest_of[block_index] <= read_version {
                    continue;
                }
                let place = Place { group: group_index, block: block_index };
                let begin = if place != first {
                    0
                } else {
                    match block.search(&range.begin) {
                        Ok(index) => index,
                        Err(index) if block.gap_before(index) > read_version => return true,
                        Err(index) => index,
                    }
                };
                let is_written = if place == last {
                    let (Ok(end) | Err(end)) = block.search(&range.end);
                    block.is_written_before_end(begin..end, &range.end, read_version)
                } else {
                    block.is_written_after(begin..block.len(), read_version)
                };
                if is_written {
                    return true;
                }
            }
        }
        false
    }

    /// Notes that all keys of the range were written at `commit_version`. Versions must not descend.
    pub fn insert(&mut self, range: &KeyRange, commit_version: Version) {
        assert!(
            commit_version >= self.newest,
            "a write at {commit_version} after one at {}",
            self.newest
        );
        if range.is_single_key() {
            self.newest = commit_version;
            self.filter.grow_for(self.len);
            self.filter.write(self.filter.slot_of(&range.begin), commit_version);
            let place = self.place_with_room(&range.begin);
            let is_new = self.block_mut(place).write_key(&range.begin, commit_version);
            self.groups[place.group].on_written(place.block, commit_version);
            return self.on_written(place, is_new);
        }
        if range.is_empty() {
            return;
        }
        self.newest = commit_version;
        self.newest_range = commit_version;
        // Entries of the range itself must not be forgotten before it is complete.
        self.place_with_room(&range.begin);
        self.place_with_room(&range.end);
        // What is written from the end on stays as it was, so this comes first.
        let end = self.place_of(&range.end);
        let is_new = self.block_mut(end).divide_at(&range.end);
        self.on_written(end, is_new);
        let begin = self.place_of(&range.begin);
        let is_new = self.block_mut(begin).write_from(&range.begin, commit_version);
        self.groups[begin.group].on_written(begin.block, commit_version);
        self.on_written(begin, is_new);
        self.remove_between(range, commit_version);
    }

    /// Drops the entries between the two that delimit a range just written.
    fn remove_between(&mut self, range: &KeyRange, version: Version) {
        let begin = self.place_of(&range.begin);
        let end = self.place_of(&range.end);
        let (Ok(begin_entry) | Err(begin_entry)) = self.block_mut(begin).search(&range.begin);
        let (Ok(end_entry) | Err(end_entry)) = self.block_mut(end).search(&range.end);
        if begin == end {
            self.len -= end_entry - (begin_entry + 1);
            return self.block_mut(begin).remove(begin_entry + 1..end_entry);
        }
        let begin_len = self.block_mut(begin).len();
        self.len -= begin_len - (begin_entry + 1) + end_entry;
        self.block_mut(begin).remove(begin_entry + 1..begin_len);
        self.block_mut(end).write_up_to(end_entry, version);
        self.groups[end.group].on_written(end.block, version);
        if begin.group == end.group {
            let dropped = self.groups[begin.group].remove_blocks(begin.block + 1, end.block);
            self.len -= dropped;
            return;
        }
        let begin_group = &mut self.groups[begin.group];
        self.len -= begin_group.remove_blocks(begin.block + 1, begin_group.blocks.len());
        let end_group = &mut self.groups[end.group];
        self.len -= end_group.remove_blocks(0, end.block);
        self.separators.remove(begin.group..end.group - 1);
        let dropped = self.groups.drain(begin.group + 1..end.group);
        self.len -= dropped.map(|group| group.len()).sum::<usize>();
    }

    /// Keeps the count, the sweep and the shape of the tree up with an entry that may be new.
    fn on_written(&mut self, place: Place, is_new: bool) {
        if !is_new {
            return;
        }
        self.len += 1;
        self.sweep_debt += SWEEP_PER_INSERT;
        if self.block_mut(place).is_overfull() {
            self.divide(place);
        }
    }

    /// The block that a key is in, which may not be full. If it is, what nobody needs any more is forgotten:
    /// it will never be cheaper, as the block has just been fetched.
    fn place_with_room(&mut self, key: &[u8]) -> Place {
        let place = self.place_of(key);
        if !self.block_mut(place).is_full() {
            return place;
        }
        self.forget_in(place);
        if self.block_mut(place).len() <= BLOCK_LEN_AFTER_FORGETTING {
            return place;
        }
        self.divide(place);
        self.place_of(key)
    }

    /// Drops the entries of a block that make no difference any more.
    fn forget_in(&mut self, place: Place) {
        let group = &mut self.groups[place.group];
        let block = &mut group.blocks[place.block];
        let before = block.len();
        group.newest_of[place.block] = block.forget(self.oldest_version);
        self.len -= before - block.len();
    }

    /// Divides a block, and its group if that becomes overfull in turn.
    fn divide(&mut self, place: Place) {
        let (separator, right) = self.block_mut(place).split();
        let group = &mut self.groups[place.group];
        group.separators.insert(place.block, &separator);
        group.blocks.insert(place.block + 1, Box::new(right));
        group.newest_of.insert(place.block + 1, group.newest_of[place.block]);
        if group.blocks.len() > GROUP_BLOCKS_MAX {
            let (separator, right) = group.split();
            self.separators.insert(place.group, &separator);
            self.groups.insert(place.group + 1, right);
        }
    }

    /// Moves the window on: from now on nobody asks about versions before `oldest_version`.
    ///
    /// Does a bounded part of the clearing up, in proportion to what was inserted since the last call.
    pub fn forget_before(&mut self, oldest_version: Version) {
        assert!(
            oldest_version >= self.oldest_version,
            "the window goes back from {} to {oldest_version}",
            self.oldest_version
        );
        self.oldest_version = oldest_version;
        self.newest = self.newest.max(oldest_version);
        // Going round more than once would find nothing new.
        let mut debt = (self.sweep_debt + SWEEP_MIN).min(self.len + SWEEP_MIN);
        while debt > 0 {
            if self.hand.block.is_multiple_of(PREFETCHED_BLOCKS) {
                self.prefetch_sweep(self.hand);
            }
            debt = debt.saturating_sub(self.sweep_block() + SWEEP_PER_BLOCK);
        }
        self.sweep_debt = 0;
    }

    /// Clears up one block and moves the hand on. Returns how many entries it has looked at.
    fn sweep_block(&mut self) -> usize {
        // The tree may have shrunk since the hand was moved. What it misses is found in the next round.
        let Some(group) = self.groups.get_mut(self.hand.group) else {
            self.hand = Place::default();
            return 0;
        };
        let Some(block) = group.blocks.get(self.hand.block) else {
            group.newest = group.newest_of.iter().copied().max().unwrap_or(group.newest);
            self.merge_groups();
            return 0;
        };
        let before = block.len();
        let hand = self.hand;
        self.forget_in(hand);
        if !self.groups[hand.group].merge_blocks(hand.block) {
            self.hand.block += 1;
        }
        before
    }

    /// Merges the group at the hand with the next one if both are small, else moves the hand on to it.
    fn merge_groups(&mut self) {
        let index = self.hand.group;
        let blocks = |index: usize| self.groups.get(index).map(|group| group.blocks.len());
        let together = blocks(index).zip(blocks(index + 1)).map(|(left, right)| left + right);
        if together.is_none_or(|blocks| blocks > GROUP_BLOCKS_MAX / 2) {
            self.hand = Place { group: index + 1, block: 0 };
            return;
        }
        let separator = self.separators.key(index);
        self.separators.remove(index..index + 1);
        let right = self.groups.remove(index + 1);
        let left = &mut self.groups[index];
        // The last block of the left group and the first of the right one are neighbours now.
        self.hand.block = left.blocks.len() - 1;
        left.append(&separator, right);
    }

    fn block_mut(&mut self, place: Place) -> &mut Block {
        &mut self.groups[place.group].blocks[place.block]
    }

    /// The block that a key is in.
    fn place_of(&self, key: &[u8]) -> Place {
        let group = child_of(&self.separators, key);
        Place { group, block: child_of(&self.groups[group].separators, key) }
    }

    /// The block that the keys right before `end` are in.
    fn place_before(&self, end: &[u8]) -> Place {
        let child_before = |separators: &SortedKeys| {
            let (Ok(child) | Err(child)) = separators.search(end);
            child
        };
        let group = child_before(&self.separators);
        Place { group, block: child_before(&self.groups[group].separators) }
    }
}

/// The child that a key is in: a separator is the first key of the child behind it.
fn child_of(separators: &SortedKeys, key: &[u8]) -> usize {
    match separators.search(key) {
        Ok(index) => index + 1,
        Err(index) => index,
    }
}

impl Group {
    /// A group of one block, all of whose keys were last written at `version`.
    fn new(version: Version) -> Group {
        Group {
            separators: SortedKeys::default(),
            blocks: vec![Box::new(Block::new(version))],
            newest_of: vec![version],
            newest: version,
        }
    }

    fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    /// Notes that a part of a block was written; versions do not descend.
    fn on_written(&mut self, block: usize, version: Version) {
        self.newest_of[block] = version;
        self.newest = version;
    }

    fn memory_bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| block.memory_bytes()).sum::<usize>();
        let lists = self.blocks.capacity() * (size_of::<Box<Block>>() + size_of::<Version>());
        size_of::<Group>() + self.separators.memory_bytes() + blocks + lists
    }

    /// Removes the blocks from one index up to, not including, another one, but not all. Their keys join
    /// the block before them, or the one behind them if there is none. Returns how many entries they had.
    fn remove_blocks(&mut self, from: usize, to: usize) -> usize {
        if from == to {
            return 0;
        }
        // The separator before each removed block goes, or for the very first block the one behind it.
        let first_separator = from.saturating_sub(1);
        self.separators.remove(first_separator..first_separator + (to - from));
        self.newest_of.drain(from..to);
        self.blocks.drain(from..to).map(|block| block.len()).sum()
    }

    /// Merges a block with the next one if they fill half a block together.
    fn merge_blocks(&mut self, index: usize) -> bool {
        let Some([left, right]) = self.blocks.get_mut(index..index + 2) else { return false };
        if left.len() + right.len() > BLOCK_ENTRIES_MAX / 2 {
            return false;
        }
        left.append(right);
        self.blocks.remove(index + 1);
        let right_newest = self.newest_of.remove(index + 1);
        self.newest_of[index] = self.newest_of[index].max(right_newest);
        self.separators.remove(index..index + 1);
        true
    }

    /// Moves the upper half of the blocks into a group of their own; a key divides the two.
    fn split(&mut self) -> (Vec<u8>, Group) {
        let middle = self.blocks.len() / 2;
        let separators = self.separators.split_off(middle);
        let separator = self.separators.key(middle - 1);
        self.separators.remove(middle - 1..middle);
        let blocks = self.blocks.split_off(middle);
        let newest_of = self.newest_of.split_off(middle);
        (separator, Group { separators, blocks, newest_of, newest: self.newest })
    }

    /// Takes the blocks of the next group, which begins with `separator`.
    fn append(&mut self, separator: &[u8], right: Group) {
        self.separators.insert(self.separators.len(), separator);
        self.separators.append(&right.separators);
        self.blocks.extend(right.blocks);
        self.newest_of.extend(right.newest_of);
        self.newest = self.newest.max(right.newest);
    }
}

#[cfg(test)]
mod tests;
