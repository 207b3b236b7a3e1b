//! Reads over own writes, against the simplest thing that is right: the writes applied to a copy.

use std::{collections::BTreeMap, sync::Arc};

use ferrisdb_core::{
    ErrorCode, Key, KeyRange, Mutation, Value, Version, Versionstamp, atomic::AtomicOp,
    service::storage::Row,
};
use proptest::prelude::*;

use super::{Overlay, RangeRead, Scan};

/// Few keys, so that writes meet; each with the key right after it.
fn keys() -> Vec<Key> {
    (b'a'..=b'g').flat_map(|letter| [Key::from(&[letter]), Key::from(&[letter, 0])]).collect()
}

fn any_key() -> impl Strategy<Value = Key> {
    prop::sample::select(keys())
}

fn any_value() -> impl Strategy<Value = Value> {
    prop::collection::vec(0u8..3, 0..3).prop_map(Value::from)
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    (any_key(), any_key())
        .prop_map(|(a, b)| KeyRange { begin: a.clone().min(b.clone()), end: a.max(b) })
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        3 => (any_key(), any_value()).prop_map(|(key, value)| Mutation::Set { key, value }),
        2 => any_key().prop_map(|key| Mutation::Clear { key }),
        2 => any_range().prop_map(|range| Mutation::ClearRange { range }),
        3 => (any_key(), prop::sample::select(AtomicOp::ALL), any_value())
            .prop_map(|(key, op, operand)| Mutation::Atomic { key, op, operand }),
    ]
}

fn any_query() -> impl Strategy<Value = Scan> {
    let limit = || prop::option::of(1usize..6);
    (any_range(), limit(), limit(), any::<bool>()).prop_map(
        |(range, rows_max, bytes_max, reverse)| Scan { range, rows_max, bytes_max, reverse },
    )
}

/// What the transaction does to one key, as the model sees it.
#[derive(Clone, Default)]
struct Written {
    /// The value no longer depends on the database.
    is_known: bool,
    is_changed: bool,
    value: Option<Value>,
}

/// Every key with its state after the mutations.
fn apply(database: &BTreeMap<Key, Value>, mutations: &[Mutation]) -> BTreeMap<Key, Written> {
    let start = |key: Key| {
        let value = database.get(&key).cloned();
        (key, Written { value, ..Written::default() })
    };
    let mut model: BTreeMap<Key, Written> = keys().into_iter().map(start).collect();
    let known = |value| Written { is_known: true, is_changed: true, value };
    for mutation in mutations {
        match mutation {
            Mutation::Set { key, value } => {
                model.insert(key.clone(), known(Some(value.clone())));
            }
            Mutation::Clear { key } => {
                model.insert(key.clone(), known(None));
            }
            Mutation::ClearRange { range } => {
                let inside = model.iter_mut().filter(|(key, _)| range.contains(key));
                inside.for_each(|(_, written)| *written = known(None));
            }
            Mutation::Atomic { key, op, operand } => {
                let written = model.get_mut(key).unwrap();
                written.is_changed = true;
                written.value = op.apply(written.value.as_ref(), operand);
            }
            stamped => panic!("not generated: {stamped:?}"),
        }
    }
    model
}

fn scan(begin: &str, end: &str) -> Scan {
    Scan { range: KeyRange::new(begin, end), rows_max: None, bytes_max: None, reverse: false }
}

/// Nothing is known of the versionstamp.
const ANY: Versionstamp = Versionstamp { commit_version: Version::ZERO, batch_index: 0 };

fn overlay_of(mutations: &[Mutation]) -> Overlay {
    let mut overlay = Overlay::default();
    mutations.iter().for_each(|mutation| overlay.apply(mutation, ANY));
    overlay
}

/// Reads a range from a database that gives `rows_max` rows at once, in shards that begin at `boundary`.
fn read(
    database: &BTreeMap<Key, Value>,
    overlay: Overlay,
    query: Scan,
    server_rows_max: usize,
    boundary: &Key,
) -> (RangeRead, usize) {
    let mut read = RangeRead::new(Arc::new(overlay), query);
    let mut fetches = 0;
    while let Some(fetch) = read.next().unwrap() {
        fetches += 1;
        assert!(fetches < 100, "the read makes no progress: {read:?}");
        let mut covered = fetch.range.clone();
        if covered.contains(boundary) && *boundary > covered.begin {
            let side = if fetch.reverse { &mut covered.begin } else { &mut covered.end };
            *side = boundary.clone();
        }
        let row = |(key, value): (&Key, &Value)| Row {
            key: key.clone(),
            value: value.clone(),
            commit_version: Version(1),
        };
        let mut rows: Vec<Row> =
            database.iter().filter(|(key, _)| covered.contains(key)).map(row).collect();
        if fetch.reverse {
            rows.reverse();
        }
        let rows_max = server_rows_max.min(fetch.rows_max as usize);
        if rows.len() > rows_max {
            rows.truncate(rows_max);
            let last = rows[rows_max - 1].key.clone();
            if fetch.reverse {
                covered.begin = last;
            } else {
                covered.end = last.successor();
            }
        }
        read.supply(covered, rows).unwrap();
    }
    (read, fetches)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn reads_are_those_of_a_copy_with_the_writes_applied(
        database in prop::collection::btree_map(any_key(), any_value(), 0..14),
        mutations in prop::collection::vec(any_mutation(), 0..12),
        query in any_query(),
        server_rows_max in 1usize..5,
        boundary in any_key(),
    ) {
        let model = apply(&database, &mutations);
        let overlay = overlay_of(&mutations);
        for (key, written) in &model {
            let lookup = overlay.lookup(key).unwrap();
            prop_assert_eq!(matches!(lookup, super::Lookup::Known(_)), written.is_known);
            prop_assert_eq!(&lookup.resolve(database.get(key)), &written.value, "{}", key);
        }

        let mut expected: Vec<(Key, Value, bool)> = Vec::new();
        // Keys that the read came by, in its direction.
        let mut passed: Vec<(&Key, &Written)> = Vec::new();
        let mut inside: Vec<_> =
            model.iter().filter(|(key, _)| query.range.contains(key)).collect();
        if query.reverse {
            inside.reverse();
        }
        let mut bytes = 0;
        let mut limited = false;
        for (key, written) in inside {
            passed.push((key, written));
            let Some(value) = &written.value else { continue };
            expected.push((key.clone(), value.clone(), !written.is_changed));
            bytes += key.len() + value.len();
            limited = query.rows_max.is_some_and(|max| expected.len() >= max)
                || query.bytes_max.is_some_and(|max| bytes >= max);
            if limited {
                break;
            }
        }

        let (read, fetches) = read(&database, overlay, query.clone(), server_rows_max, &boundary);
        let (page, observed) = read.finish();
        let rows: Vec<_> = page
            .rows
            .into_iter()
            .map(|row| (row.key, row.value, row.commit_version.is_some()))
            .collect();
        prop_assert_eq!(rows, expected);
        prop_assert_eq!(page.more, limited);

        // Observed is what was passed and depends on the database (I-15).
        let depends = |key: &Key| passed.iter().any(|(passed, written)| *passed == key && !written.is_known);
        for key in keys() {
            prop_assert_eq!(observed.contains(&key), depends(&key), "{} of {:?}", key, observed);
        }
        let asked = &query.range;
        let is_inside = observed.iter().all(|o| asked.begin <= o.begin && o.end <= asked.end);
        prop_assert!(is_inside, "{:?} of {}", observed, asked);
        if observed.is_empty() {
            prop_assert_eq!(fetches, 0, "asked for what is known");
        }
    }
}

#[test]
fn a_limit_ends_what_was_observed_at_the_last_row() {
    let database: BTreeMap<Key, Value> =
        ["b", "d", "f"].iter().map(|key| (Key::from(*key), "x".into())).collect();
    let query = Scan { rows_max: Some(2), ..scan("a", "z") };
    let (read, _) = read(&database, Overlay::default(), query.clone(), 9, &"c".into());
    let observed: Vec<_> = read.finish().1.iter().collect();
    assert_eq!(observed, [KeyRange::new("a", b"d\0")]);
    let (read, _) =
        self::read(&database, Overlay::default(), Scan { reverse: true, ..query }, 9, &"c".into());
    let observed: Vec<_> = read.finish().1.iter().collect();
    assert_eq!(observed, [KeyRange::new("d", "z")]);
}

#[test]
fn versionstamps_cannot_be_read_before_the_commit() {
    let stamped_key = Mutation::SetVersionstampedKey {
        key: "q/0123456789/x".into(),
        offset: 2,
        value: "".into(),
    };
    let stamped_value = Mutation::SetVersionstampedValue {
        key: "last".into(),
        value: "0123456789".into(),
        offset: 0,
    };
    let mut overlay = overlay_of(&[stamped_key, stamped_value]);
    let unreadable =
        |overlay: &Overlay, key: &str| overlay.lookup(&key.into()).err().map(|error| error.code());
    let expected = Some(ErrorCode::AccessedUnreadable);
    assert_eq!(unreadable(&overlay, "last"), expected);
    assert_eq!(unreadable(&overlay, "q/abcdefghij/x"), expected);
    assert_eq!(unreadable(&overlay, "q/"), None);
    assert_eq!(unreadable(&overlay, "r"), None);

    // A range read fails where it comes upon one, not before.
    let database = BTreeMap::from([(Key::from("a"), Value::from("x"))]);
    let query = scan("a", "z");
    let (read, _) = read(
        &database,
        overlay.clone(),
        Scan { rows_max: Some(1), ..query.clone() },
        9,
        &"m".into(),
    );
    assert_eq!(read.finish().0.rows.len(), 1);
    for query in [scan("q", "r"), Scan { reverse: true, ..scan("q", "r") }, query] {
        let mut read = RangeRead::new(Arc::new(overlay.clone()), query);
        let failed = loop {
            match read.next() {
                Ok(Some(fetch)) => {
                    if let Err(error) = read.supply(fetch.range, Vec::new()) {
                        break error;
                    }
                }
                Ok(None) => panic!("passed over a versionstamp"),
                Err(error) => break error,
            }
        };
        assert_eq!(failed.code(), ErrorCode::AccessedUnreadable);
    }

    // Whatever is written over them, until they are cleared.
    let set = |key: &str| Mutation::Set { key: key.into(), value: "1".into() };
    overlay.apply(&set("last"), ANY);
    overlay.apply(&set("q/abcdefghij/x"), ANY);
    assert_eq!(unreadable(&overlay, "last"), expected);
    assert_eq!(unreadable(&overlay, "q/abcdefghij/x"), expected);
    overlay.apply(&Mutation::Clear { key: "last".into() }, ANY);
    overlay.apply(&Mutation::ClearRange { range: KeyRange::new("q/", "q0") }, ANY);
    overlay.apply(&set("last"), ANY);
    assert_eq!(unreadable(&overlay, "last"), None);
    assert_eq!(unreadable(&overlay, "q/abcdefghij/x"), None);
}

#[test]
fn stamped_keys_of_earlier_commits_can_be_read() {
    let at = |version: u64| {
        let stamp = Versionstamp { commit_version: Version(version), batch_index: 3 };
        Key::from([b"q/".as_slice(), &stamp.to_bytes()].concat())
    };
    let push = Mutation::SetVersionstampedKey { key: at(0), offset: 2, value: "".into() };
    let before = Versionstamp { commit_version: Version(40), batch_index: u16::MAX };
    let mut overlay = Overlay::default();
    overlay.apply(&push, before);
    assert!(overlay.lookup(&at(40)).is_ok());
    assert!(overlay.lookup(&at(41)).is_err());
    let mut head =
        RangeRead::new(Arc::new(overlay), Scan { rows_max: Some(1), ..scan("q/", "q0") });
    let fetch = head.next().unwrap().unwrap();
    let row = Row { key: at(30), value: "".into(), commit_version: Version(30) };
    head.supply(fetch.range, vec![row]).unwrap();
    assert_eq!(head.finish().0.rows[0].key, at(30));
}
