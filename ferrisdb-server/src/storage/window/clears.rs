//! The range clears of the window, as one persistent tree for each version.
//!
//! A tree holds disjoint pieces of key space, each with the stamp of the newest clear over it. A later clear
//! cuts what it covers out of the tree and becomes one piece; the ends it cut off stay:
//!
//! ```text
//!   version 30   clear b..k             b ------------- k
//!   version 40   clear d..f             b - d == f ---- k        b..d at 30, d..f at 40, f..k at 30
//!   version 50   clear a..z       a ########################## z
//! ```
//!
//! The tree is a treap: ordered by begin, heap-ordered by a priority made of the clear's stamp, so that it is
//! balanced whatever the order of keys and equal on every replica. Split and merge walk one path. A node that
//! other versions use too is copied before it changes, one that only this version uses is changed in place:
//! a version with a thousand clears copies the top of the tree once.
//!
//! - **Finding** the clear over a key is one descent, at every version: pieces do not overlap.
//! - **Dropping** what a clear has covered happens when the last version that uses it is flushed.
//! - Pieces that the engine has already may stay in a tree; their stamp tells. [`Clears::prune`] removes them
//!   from the newest tree, which the following versions grow from.

use std::sync::Arc;

use ferrisdb_core::{Key, KeyRange, Version};

use super::history::Stamp;

/// The clears that a reader at one version has to respect. Cloning shares the tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Clears {
    root: Tree,
}

type Tree = Option<Arc<Piece>>;

/// A stretch of keys and the newest clear over it; a node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) begin: Key,
    pub(super) end: Key,
    pub(super) stamp: Stamp,
    priority: u64,
    /// Of the pieces from here down.
    version_min: Version,
    /// Of the pieces from here down.
    version_max: Version,
    left: Tree,
    right: Tree,
}

/// The pieces around a place between two keys, see [`Clears::around`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    /// The last piece that begins before the place.
    pub(super) before: Option<&'a Piece>,
    /// The first piece that begins after it.
    pub(super) after: Option<&'a Piece>,
}

/// Bytes that one node takes, without its keys: the piece and the two counts of its `Arc`.
pub(super) const NODE_BYTES: usize = size_of::<Piece>() + 2 * size_of::<usize>();

impl Clears {
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Adds a clear that is later than all others, of a range that is not empty.
    ///
    /// Returns how many nodes it had to allocate.
    pub(super) fn insert(&mut self, range: KeyRange, stamp: Stamp) -> usize {
        let mut allocated = 0;
        let (mut left, rest) = split(self.root.take(), &range.begin, &mut allocated);
        let (covered, right) = split(rest, &range.end, &mut allocated);

        // At most one piece reaches beyond the end: the last of those that begin before it.
        let remainder = last(&covered)
            .or(last(&left))
            .filter(|piece| piece.end > range.end)
            .map(|piece| (KeyRange::new(&range.end, &piece.end), piece.stamp));
        if last(&left).is_some_and(|piece| piece.end > range.begin) {
            set_end_of_last(&mut left, &range.begin, &mut allocated);
        }

        let mut tree = merge(left, leaf(range, stamp, priority(stamp, 0)), &mut allocated);
        allocated += 1;
        if let Some((remainder, its_stamp)) = remainder {
            // A priority by the new clear: one old clear may be cut into many pieces.
            tree = merge(tree, leaf(remainder, its_stamp, priority(stamp, 1)), &mut allocated);
            allocated += 1;
        }
        self.root = merge(tree, right, &mut allocated);
        allocated
    }

    /// The pieces around the place right after `key`, so that one that begins with it is `before`.
    pub(super) fn around(&self, key: &[u8]) -> Around<'_> {
        self.search(|piece| piece.begin.as_slice() <= key)
    }

    /// The pieces around the place right before `key`, so that one that begins with it is `after`.
    pub(super) fn around_before(&self, key: &[u8]) -> Around<'_> {
        self.search(|piece| piece.begin.as_slice() < key)
    }

    fn search(&self, begins_before: impl Fn(&Piece) -> bool) -> Around<'_> {
        let mut around = Around { before: None, after: None };
        let mut tree = self.root.as_deref();
        while let Some(piece) = tree {
            if begins_before(piece) {
                around.before = Some(piece);
                tree = piece.right.as_deref();
            } else {
                around.after = Some(piece);
                tree = piece.left.as_deref();
            }
        }
        around
    }

    /// Calls `visit` with the pieces of versions after `version`, in the order of keys.
    pub(super) fn for_each_after<'a>(&'a self, version: Version, visit: &mut dyn FnMut(&'a Piece)) {
        fn walk<'a>(tree: &'a Tree, version: Version, visit: &mut dyn FnMut(&'a Piece)) {
            let Some(piece) = tree.as_deref().filter(|piece| piece.version_max > version) else {
                return;
            };
            walk(&piece.left, version, visit);
            if piece.stamp.version > version {
                visit(piece);
            }
            walk(&piece.right, version, visit);
        }
        walk(&self.root, version, visit);
    }

    /// Removes the pieces of versions up to `version`, as many as `left` says, which it counts down; returns how many nodes it
    /// had to allocate.
    pub(super) fn prune(&mut self, version: Version, left: &mut usize) -> usize {
        let mut allocated = 0;
        self.root = prune(self.root.take(), version, left, &mut allocated);
        allocated
    }
}

impl Piece {
    /// Restores what a piece knows of those below it.
    fn update(&mut self) {
        let below = || [&self.left, &self.right].into_iter().flatten();
        let version = self.stamp.version;
        self.version_min = below().map(|piece| piece.version_min).fold(version, Version::min);
        self.version_max = below().map(|piece| piece.version_max).fold(version, Version::max);
    }
}

fn leaf(range: KeyRange, stamp: Stamp, priority: u64) -> Tree {
    let KeyRange { begin, end } = range;
    let (version_min, version_max) = (stamp.version, stamp.version);
    let piece =
        Piece { begin, end, stamp, priority, version_min, version_max, left: None, right: None };
    Some(Arc::new(piece))
}

/// A well-mixed number of a stamp (the finalizer of splitmix64, twice): no randomness, so that a simulation
/// repeats, and nothing that the order of keys has an influence on.
fn priority(stamp: Stamp, part: u64) -> u64 {
    fn mix(mut x: u64) -> u64 {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    mix(mix(stamp.version.0.wrapping_add(0x9e37_79b9_7f4a_7c15))
        ^ (u64::from(stamp.sequence) << 1 | part))
}

/// The piece to change: itself if no other version uses it, else a copy.
fn own<'a>(piece: &'a mut Arc<Piece>, allocated: &mut usize) -> &'a mut Piece {
    *allocated += usize::from(Arc::strong_count(piece) > 1);
    Arc::make_mut(piece)
}

/// Divides a tree into the pieces that begin before `key` and the others.
fn split(tree: Tree, key: &Key, allocated: &mut usize) -> (Tree, Tree) {
    let Some(mut top) = tree else { return (None, None) };
    let piece = own(&mut top, allocated);
    if piece.begin < *key {
        let (left, right) = split(piece.right.take(), key, allocated);
        piece.right = left;
        piece.update();
        (Some(top), right)
    } else {
        let (left, right) = split(piece.left.take(), key, allocated);
        piece.left = right;
        piece.update();
        (left, Some(top))
    }
}

/// Joins two trees, all of `left` before all of `right`.
fn merge(left: Tree, right: Tree, allocated: &mut usize) -> Tree {
    let (mut left, mut right) = match (left, right) {
        (Some(left), Some(right)) => (left, right),
        (left, right) => return left.or(right),
    };
    if left.priority >= right.priority {
        let top = own(&mut left, allocated);
        top.right = merge(top.right.take(), Some(right), allocated);
        top.update();
        Some(left)
    } else {
        let top = own(&mut right, allocated);
        top.left = merge(Some(left), top.left.take(), allocated);
        top.update();
        Some(right)
    }
}

fn last(tree: &Tree) -> Option<&Piece> {
    let mut last = tree.as_deref()?;
    while let Some(piece) = last.right.as_deref() {
        last = piece;
    }
    Some(last)
}

fn set_end_of_last(tree: &mut Tree, end: &Key, allocated: &mut usize) {
    let Some(top) = tree else { return };
    let piece = own(top, allocated);
    if piece.right.is_some() {
        set_end_of_last(&mut piece.right, end, allocated);
    } else {
        piece.end = end.clone();
    }
}

fn prune(tree: Tree, version: Version, left: &mut usize, allocated: &mut usize) -> Tree {
    let mut top = tree.filter(|piece| piece.version_max > version)?;
    if top.version_min > version || *left == 0 {
        return Some(top);
    }
    let piece = own(&mut top, allocated);
    let before = prune(piece.left.take(), version, left, allocated);
    let behind = prune(piece.right.take(), version, left, allocated);
    if piece.stamp.version <= version && *left > 0 {
        *left -= 1;
        return merge(before, behind, allocated);
    }
    (piece.left, piece.right) = (before, behind);
    piece.update();
    Some(top)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: u64) -> Stamp {
        Stamp { version: Version(version), sequence: 0 }
    }

    fn pieces(clears: &Clears) -> Vec<(String, u64)> {
        let mut pieces = Vec::new();
        clears.for_each_after(Version::ZERO, &mut |piece| {
            let range = KeyRange::new(&piece.begin, &piece.end);
            pieces.push((range.to_string(), piece.stamp.version.0));
        });
        pieces
    }

    fn expected(pieces: &[(&str, u64)]) -> Vec<(String, u64)> {
        pieces.iter().map(|&(range, version)| (range.to_string(), version)).collect()
    }

    fn number_key(number: u32) -> Key {
        Key::from(number.to_be_bytes().to_vec())
    }

    #[test]
    fn a_clear_cuts_out_what_it_covers_and_leaves_the_version_before() {
        let mut at_30 = Clears::default();
        at_30.insert(KeyRange::new("b", "k"), stamp(30));
        let mut at_40 = at_30.clone();
        at_40.insert(KeyRange::new("d", "f"), stamp(40));
        let mut at_50 = at_40.clone();
        at_50.insert(KeyRange::new("e", "z"), stamp(50));
        let mut pruned = at_50.clone();
        let mut left = 10;
        pruned.prune(Version(30), &mut left);

        assert_eq!(pieces(&at_30), expected(&[("b..k", 30)]));
        assert_eq!(pieces(&at_40), expected(&[("b..d", 30), ("d..f", 40), ("f..k", 30)]));
        assert_eq!(pieces(&at_50), expected(&[("b..d", 30), ("d..e", 40), ("e..z", 50)]));
        assert_eq!(pieces(&pruned), expected(&[("d..e", 40), ("e..z", 50)]));
    }

    #[test]
    fn the_same_clear_again_and_again_stays_one_piece() {
        let mut clears = Clears::default();
        let mut kept = Vec::new();
        for version in 1..=10_000 {
            kept.push(clears.clone());
            let allocated = clears.insert(KeyRange::new("b", "k"), stamp(version));
            assert!(allocated <= 2, "{allocated} nodes for clear {version}");
        }
        assert_eq!(pieces(&clears), expected(&[("b..k", 10_000)]));
        assert_eq!(pieces(&kept[5_000]), expected(&[("b..k", 5_000)]));
    }

    #[test]
    fn a_clear_over_many_clears_copies_only_its_path() {
        let mut clears = Clears::default();
        for number in 0..50_000 {
            let range = KeyRange::new(number_key(2 * number), number_key(2 * number + 1));
            clears.insert(range, stamp(u64::from(number) + 1));
        }
        let before = clears.clone();
        let allocated =
            clears.insert(KeyRange::new(number_key(10), number_key(99_990)), stamp(60_000));
        assert!(allocated < 200, "{allocated} nodes for one clear");
        assert_eq!(pieces(&clears).len(), 11);
        assert_eq!(pieces(&before).len(), 50_000);
    }
}
