//! Laws of the shared words: escapes, ranges, shards, versionstamps, error codes.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_core::{
    ErrorCode, Key, KeyRange, Shard, ShardMap, ShardRole, Tag, Teams, Value, Version, Versionstamp,
    atomic::AtomicOp,
    key::{escape, unescape},
};
use proptest::prelude::*;

/// Short keys over few bytes, so that equal keys, prefixes and neighbours are common.
fn key() -> impl Strategy<Value = Key> {
    let byte = prop::sample::select(&[0x00, 0x01, b'a', 0xfe, 0xff]);
    prop::collection::vec(byte, 0..4).prop_map(Key::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), key()).prop_map(|(begin, end)| KeyRange { begin, end })
}

/// Few lengths and few bytes, so that carries, equal values and equal lengths are common.
fn value() -> impl Strategy<Value = Value> {
    let byte = prop::sample::select(&[0x00, 0x01, 0x80, 0xff]);
    prop::collection::vec(byte, 0..4).prop_map(Value::from)
}

proptest! {
    #[test]
    fn joined_operands_do_what_both_do(
        op in prop::sample::select(AtomicOp::ALL),
        present in prop::option::of(value()),
        first in value(),
        second in value(),
    ) {
        if let Some(joined) = op.joined(&first, &second) {
            let one_by_one = op.apply(op.apply(present.as_ref(), &first).as_ref(), &second);
            prop_assert_eq!(op.apply(present.as_ref(), &joined), one_by_one);
            prop_assert!(joined.len() <= first.len() + second.len());
        }
    }

    #[test]
    fn escape_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        let text = escape(&bytes);
        prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", text);
        prop_assert_eq!(unescape(&text).unwrap(), bytes);
    }

    #[test]
    fn unescape_takes_any_text_without_a_panic(text in r"[\\x0-9a-fntr\u{e4}]{0,12}") {
        match unescape(&text) {
            Ok(bytes) => prop_assert_eq!(unescape(&escape(&bytes)).unwrap(), bytes),
            Err(error) => prop_assert_eq!(text.as_bytes()[error.offset], b'\\'),
        }
    }

    #[test]
    fn the_successor_is_the_next_key(key in key(), other in key()) {
        let next = key.successor();
        prop_assert!(key < next);
        prop_assert!(other <= key || other >= next, "{:?} is between", other);
        let single = KeyRange::single(&key);
        prop_assert!(single.is_single_key());
        prop_assert_eq!(single.contains(&other), other == key);
    }

    #[test]
    fn a_single_key_range_is_recognized(range in range()) {
        prop_assert_eq!(range.is_single_key(), range == KeyRange::single(&range.begin));
    }

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_with_the_prefix(prefix in key(), other in key()) {
        // Three bytes of 0xff lie beyond every key, the system's included.
        prop_assume!(other < Key::from_static(b"\xff\xff\xff"));
        prop_assert_eq!(KeyRange::prefix(&prefix).contains(&other), other.starts_with(&prefix));
    }

    #[test]
    fn an_intersection_holds_what_both_hold(a in range(), b in range(), key in key()) {
        let both = a.intersection(&b);
        prop_assert_eq!(&both, &b.intersection(&a));
        prop_assert_eq!(both.is_some(), a.intersects(&b));
        prop_assert_eq!(a.intersects(&b), b.intersects(&a));
        let held = both.as_ref().is_some_and(|both| both.contains(&key));
        prop_assert_eq!(held, a.contains(&key) && b.contains(&key));
        prop_assert!(both.is_none_or(|both| !both.is_empty()));
        prop_assert_eq!(a.intersection(&a).is_none(), a.is_empty());
    }

    #[test]
    fn shards_cover_the_keyspace_once_however_they_are_cut(
        sets in prop::collection::vec((key(), 0u32..5, prop::option::of(0u32..5)), 0..8),
        key in key(),
        range in range(),
    ) {
        let whole = KeyRange { begin: Key::MIN, end: Key::SYSTEM_END };
        let mut map = ShardMap::new(vec![Shard { range: whole, teams: Teams::of([Tag(9)]) }]);
        // What each server was told, taken together, is what the map says of it.
        let mut told: BTreeMap<(Tag, Key), ShardRole> = BTreeMap::new();
        for (tag, change) in map.all_changes() {
            told.insert((tag, change.range.begin), change.role);
        }
        for (begin, team, joining) in sets {
            let cut = map.of_key(&begin).map(|shard| (shard.range.begin.clone(), shard.teams.clone()));
            let teams = Teams { joining: joining.into_iter().map(Tag).collect(), ..Teams::of([Tag(team)]) };
            let changes = map.set(&begin, teams);
            if let Some((old_begin, old_teams)) = cut.filter(|(old_begin, _)| *old_begin != begin) {
                for tag in old_teams.all() {
                    let role = told.get(&(tag, old_begin.clone())).cloned();
                    told.insert((tag, begin.clone()), role.unwrap_or(ShardRole::Absent));
                }
            }
            for (tag, change) in changes {
                told.insert((tag, change.range.begin), change.role);
            }
        }
        ShardMap::new(map.shards().to_vec());
        for shard in map.shards() {
            for tag in (0..10).map(Tag) {
                let told = told.get(&(tag, shard.range.begin.clone())).unwrap_or(&ShardRole::Absent);
                let is_same = std::mem::discriminant(told)
                    == std::mem::discriminant(&shard.teams.role_of(tag));
                prop_assert!(is_same, "{} was told {:?} of {:?}", tag, told, shard);
            }
        }
        let holders = map.shards().iter().filter(|shard| shard.range.contains(&key)).count();
        prop_assert_eq!(holders, usize::from(key < Key::SYSTEM_END));
        prop_assert_eq!(map.of_key(&key).is_some(), key < Key::SYSTEM_END);
        let found: Vec<_> = map.intersecting(&range).map(|(part, _)| part).collect();
        let expected: Vec<_> =
            map.shards().iter().filter_map(|shard| shard.range.intersection(&range)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn versionstamps_sort_like_their_bytes(
        a in (any::<u64>(), any::<u16>()),
        b in (any::<u64>(), any::<u16>()),
        same_version: bool,
    ) {
        let stamp = |(version, batch_index)| {
            Versionstamp { commit_version: Version(version), batch_index }
        };
        let (a, b) = (stamp(a), stamp(if same_version { (a.0, b.1) } else { b }));
        prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
        prop_assert_eq!(Versionstamp::from_bytes(a.to_bytes()), a);
    }

    #[test]
    fn a_number_without_a_code_is_an_internal_error(number: u16) {
        let code = ErrorCode::from_number(number);
        prop_assert!(code.number() == number || code == ErrorCode::Internal);
    }
}

#[test]
fn every_byte_survives_an_escape() {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    assert_eq!(unescape(&escape(&all)).unwrap(), all);
}

#[test]
fn error_codes_have_numbers_and_names_of_their_own() {
    for &code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_number(code.number()), code);
    }
    let numbers: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
    let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(numbers.len(), ErrorCode::ALL.len());
    assert_eq!(names.len(), ErrorCode::ALL.len());
}
