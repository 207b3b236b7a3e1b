//! The set against the simplest correct one: a list of all that was written.

use proptest::prelude::*;

use ferrisdb_core::Key;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Insert(KeyRange),
    /// So many single keys that the tree grows: numbers from `first` on, `stride` apart.
    InsertNumbers {
        first: u32,
        stride: u32,
        count: u32,
    },
    Forget(u64),
    /// So long that the lower half of a version comes round again.
    Pause(u64),
    Ask(KeyRange, u64),
}

const NUMBERS: u32 = 20_000;

/// A key that sorts like the number; the prefix gives blocks something to strip.
fn numbered(number: u32) -> Key {
    Key::from(format!("user/{number:05}"))
}

fn key() -> impl Strategy<Value = Key> {
    let byte = prop::sample::select(vec![0, 1, b'a', b'u', 0xff]);
    prop_oneof![
        3 => prop::collection::vec(byte, 0..4).prop_map(Key::from),
        6 => (0..NUMBERS).prop_map(numbered),
        2 => (0..NUMBERS).prop_map(|number| numbered(number).successor()),
    ]
}

/// All shapes of ranges, empty and inverted ones included.
fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(|key| KeyRange::single(&key)),
        2 => (key(), key()).prop_map(|(begin, end)| KeyRange { begin, end }),
        2 => (0..NUMBERS, 0..50_u32)
            .prop_map(|(from, n)| KeyRange::new(numbered(from), numbered(from + n))),
        1 => (0..NUMBERS, 0..3_u32)
            .prop_map(|(from, n)| KeyRange::new(numbered(from), numbered(from + n).successor())),
        1 => (0..NUMBERS, 0..3_u32)
            .prop_map(|(from, n)| KeyRange::new(numbered(from).successor(), numbered(from + n))),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => range().prop_map(Op::Insert),
        2 => (0..NUMBERS, 1..9_u32, 1..2000_u32)
            .prop_map(|(first, stride, count)| Op::InsertNumbers { first, stride, count }),
        10 => (0..30_u64).prop_map(Op::Forget),
        1 => prop::sample::select(vec![1 << 31, (1 << 32) - 2, 1 << 32, (1 << 32) + 2]).prop_map(Op::Pause),
        2 => (range(), 1_u64 << 31..1 << 33).prop_map(|(range, age)| Op::Ask(range, age)),
        60 => (range(), 0..60_u64).prop_map(|(range, age)| Op::Ask(range, age)),
    ]
}

/// Everything that the essay promises about the tree.
fn check_invariants(set: &ConflictSet) {
    let told = |version: Version| version.max(set.oldest_version);
    assert_eq!(set.separators.len() + 1, set.groups.len());
    assert_eq!(set.groups.iter().map(Group::len).sum::<usize>(), set.len);
    let mut previous: Option<Vec<u8>> = None;
    let mut gap = set.groups[0].blocks[0].gap_before(0);
    for (group_index, group) in set.groups.iter().enumerate() {
        assert_eq!(group.separators.len() + 1, group.blocks.len());
        assert_eq!(group.newest_of.len(), group.blocks.len());
        assert!(group.blocks.len() <= GROUP_BLOCKS_MAX);
        assert!(group.newest <= set.newest);
        for (block_index, block) in group.blocks.iter().enumerate() {
            let begin = match (group_index, block_index) {
                (0, 0) => Vec::new(),
                (_, 0) => set.separators.key(group_index - 1),
                _ => group.separators.key(block_index - 1),
            };
            assert!(previous.as_ref().is_none_or(|previous| *previous < begin));
            assert_eq!(told(block.gap_before(0)), told(gap));
            assert!(!block.is_overfull());
            let newest = group.newest_of[block_index];
            assert!(newest <= group.newest);
            assert!(!block.is_written_after(0..block.len(), told(newest)));
            for index in 0..block.len() {
                let key = block.key(index);
                assert!(key >= begin && previous.as_ref().is_none_or(|previous| *previous < key));
                assert_eq!(set.place_of(&key), Place { group: group_index, block: block_index });
                let at = block.version_of(&key);
                assert!(
                    at <= set.oldest_version || set.may_be_written_after(&key, Version(at.0 - 1))
                );
                previous = Some(key);
            }
            gap = block.gap_before(block.len());
            if block.len() == 0 {
                previous = previous.max(Some(begin));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn agrees_with_a_list_of_writes(
        ops in prop::collection::vec(op(), 1..300), writes_ranges in any::<bool>()
    ) {
        let mut set = ConflictSet::new(Version(100));
        let mut writes: Vec<(KeyRange, Version)> = Vec::new();
        let mut version = Version(100);
        for op in ops {
            match op {
                Op::Insert(range) => {
                    // After a write to a range the filter is hardly asked.
                    let range =
                        if writes_ranges { range } else { KeyRange::single(&range.begin) };
                    // Now and then a version twice, as by two transactions of a batch.
                    version = Version(version.0 + u64::from(!version.0.is_multiple_of(3)));
                    version = Version(version.0.max(101));
                    set.prefetch([(&range, None)].into_iter());
                    set.insert(&range, version);
                    writes.push((range, version));
                }
                Op::InsertNumbers { first, stride, count } => {
                    version = version.next();
                    for index in 0..count {
                        let range = KeyRange::single(&numbered((first + index * stride) % NUMBERS));
                        set.insert(&range, version);
                        writes.push((range, version));
                    }
                }
                Op::Forget(keep) => {
                    let oldest = version.saturating_sub(keep).max(set.oldest_version());
                    set.forget_before(oldest);
                    writes.retain(|(_, version)| *version > oldest);
                }
                Op::Pause(versions) => version = version.saturating_add(versions),
                Op::Ask(range, age) => {
                    let read_version = version.saturating_sub(age).max(set.oldest_version());
                    let expected = writes
                        .iter()
                        .any(|(other, version)| *version > read_version && other.intersects(&range));
                    set.prefetch([(&range, Some(read_version))].into_iter());
                    assert_eq!(set.is_written_after(&range, read_version), expected, "{range:?}");
                }
            }
        }
        check_invariants(&set);
    }
}

fn written(set: &ConflictSet, begin: &str, end: &str, read_version: u64) -> bool {
    set.is_written_after(&KeyRange::new(begin, end), Version(read_version))
}

#[test]
fn the_example_of_the_essay() {
    let mut set = ConflictSet::new(Version(5));
    set.insert(&KeyRange::new("d", "e"), Version(7));
    set.insert(&KeyRange::new("b", "h"), Version(9));
    set.insert(&KeyRange::single(&"f".into()), Version(12));
    assert!(written(&set, "a", "c", 8));
    assert!(written(&set, "f", "g", 9));
    assert!(!written(&set, "g", "z", 9));
    assert_eq!(set.len(), 3, "d and e make no difference any more");
}

#[test]
fn a_window_that_moves_on_takes_no_more_room() {
    let mut set = ConflictSet::new(Version::ZERO);
    let mut longest = 0;
    for batch in 0..400_u32 {
        let version = Version(u64::from(batch) + 1);
        for index in 0..50 {
            // The keys only ever ascend: nobody comes back to where the old ones are.
            let key = Key::from(format!("log/{:09}", batch * 50 + index));
            set.insert(&KeyRange::single(&key), version);
        }
        set.forget_before(version.saturating_sub(20));
        longest = longest.max(set.len());
    }
    // Twenty batches of fifty keys, and what the hand has not come to yet.
    assert!(longest <= 1000 * 3 / 2, "{longest} entries");
    // The filter keeps its size.
    let bytes = set.memory_bytes() - set.filter.memory_bytes();
    set.forget_before(Version(400));
    for _ in 0..100 {
        set.forget_before(Version(400));
    }
    assert!(set.is_empty());
    assert_eq!((set.groups.len(), set.groups[0].blocks.len()), (1, 1));
    let left = set.memory_bytes() - set.filter.memory_bytes();
    assert!(left < bytes / 4, "{left} of {bytes} bytes");
}

#[test]
fn a_write_to_everything_replaces_everything() {
    let mut set = ConflictSet::new(Version::ZERO);
    for number in 0..NUMBERS {
        set.insert(&KeyRange::single(&numbered(number)), Version(1));
    }
    assert!(set.groups.len() > 2, "{} groups", set.groups.len());
    set.insert(&KeyRange::new("a", "z"), Version(2));
    check_invariants(&set);
    assert_eq!(set.len(), 2);
    assert!(written(&set, "b", "c", 1));
    assert!(!written(&set, "z", "zz", 1));
}
