//! What every engine has to do, as one test that each of them runs.

use bytes::Bytes;
use ferrisdb_core::{
    Key, KeyRange, Version,
    service::storage::{Row, VersionedValue},
};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{Engine, EngineBatch, EngineChange, memory::MemoryStorage};

pub(super) fn row(key: &str, value: &str, commit_version: u64) -> Row {
    Row { key: key.into(), value: value.into(), commit_version: Version(commit_version) }
}

/// Checks a kind of engine. `open` opens the same storage again and again, at first an empty one.
pub(super) fn check_engine(open: impl Fn() -> Box<dyn Engine>) {
    let engine = open();
    assert_eq!(engine.version(), Version::ZERO);
    assert_eq!(engine.get(b"a").unwrap(), None);

    let set = |key, value, version| EngineChange::Set(row(key, value, version));
    let letters = vec![set("a", "1", 3), set("b", "2", 5), set("c", "", 7), set("d", "4", 9)];
    engine
        .write(&EngineBatch { version: Version(10), changes: letters, attachment: None })
        .unwrap();
    let value = VersionedValue { value: "2".into(), commit_version: Version(5) };
    assert_eq!(engine.get(b"b").unwrap(), Some(value));

    check_cursors(&*engine);

    // A cursor sees a key as it was when it was made, or later.
    let all = KeyRange::all_user_keys();
    let mut cursor = engine.cursor(&all, false);
    let changes = vec![
        EngineChange::ClearRange(KeyRange::new("b", "d")),
        set("c", "again", 15),
        EngineChange::ClearRange(KeyRange::new("z", "y")),
        EngineChange::Clear("a".into()),
    ];
    engine.write(&EngineBatch { version: Version(20), changes, attachment: None }).unwrap();
    let first = cursor.next_row().unwrap();
    assert!([row("a", "1", 3), row("c", "again", 15)].map(Some).contains(&first), "{first:?}");
    drop(cursor);
    let expected = [row("c", "again", 15), row("d", "4", 9)];
    assert_eq!(rows(&*engine, &all, false), expected);

    // A version without changes counts as well.
    engine.write(&EngineBatch { version: Version(30), changes: vec![], attachment: None }).unwrap();
    drop(engine);
    let engine = open();
    assert_eq!(engine.version(), Version(30));
    assert_eq!(rows(&*engine, &all, false), expected);

    check_attachments_and_ingests(&*engine);
    drop(engine);
    let engine = open();
    check_reset(&*engine);
    drop(engine);

    let engine = open();
    assert_eq!(engine.version(), Version(25), "a reset outlives a restart");
    assert_eq!(engine.attachment().unwrap(), Some(Bytes::from_static(b"new")));
    assert_eq!(rows(&*engine, &all, false), [row("n", "new", 26)]);
    check_against_memory(&*engine);
}

fn check_attachments_and_ingests(engine: &dyn Engine) {
    assert_eq!(engine.attachment().unwrap(), None);
    let batch = |version, attachment: Option<&'static [u8]>| EngineBatch {
        version: Version(version),
        changes: vec![],
        attachment: attachment.map(Bytes::from_static),
    };
    engine.write(&batch(31, Some(b"one"))).unwrap();
    engine.write(&batch(32, None)).unwrap();
    assert_eq!(engine.attachment().unwrap(), Some(Bytes::from_static(b"one")), "none leaves it");
    engine.write(&batch(33, Some(b""))).unwrap();
    assert_eq!(engine.attachment().unwrap(), Some(Bytes::new()));

    let changes = [
        EngineChange::ClearRange(KeyRange::new("d", "e")),
        EngineChange::Set(row("d2", "page", 40)),
    ];
    engine.ingest(&changes).unwrap();
    assert_eq!(engine.version(), Version(33));
    let expected = [row("c", "again", 15), row("d2", "page", 40)];
    assert_eq!(rows(engine, &KeyRange::all_user_keys(), false), expected);
    // From here on it is durable.
    engine.write(&batch(34, None)).unwrap();
}

fn check_reset(engine: &dyn Engine) {
    assert_eq!(engine.version(), Version(34));
    let system = Row { key: Key::from(b"\xff/last"), ..row("", "", 1) };
    engine.ingest(&[EngineChange::Set(row("", "first", 1)), EngineChange::Set(system)]).unwrap();
    engine.reset(Version(25), Some(&Bytes::from_static(b"new"))).unwrap();
    assert_eq!(engine.version(), Version(25));
    assert_eq!(rows(engine, &KeyRange::prefix(b""), false), []);
    engine.ingest(&[EngineChange::Set(row("n", "new", 26))]).unwrap();
    let batch = EngineBatch { version: Version(25), changes: vec![], attachment: None };
    engine.write(&batch).unwrap();
}

fn check_cursors(engine: &dyn Engine) {
    let letters = |text: &str, reverse, range: KeyRange| {
        let keys: Vec<Key> = rows(engine, &range, reverse).into_iter().map(|row| row.key).collect();
        let expected: Vec<Key> = text.chars().map(|letter| letter.to_string().into()).collect();
        assert_eq!(keys, expected, "{range:?}, reverse {reverse}");
    };
    letters("abcd", false, KeyRange::all_user_keys());
    letters("dcba", true, KeyRange::all_user_keys());
    letters("bc", false, KeyRange::new("b", "d"));
    letters("cb", true, KeyRange::new("b", "d"));
    letters("", false, KeyRange::new("d", "b"));
    letters("", true, KeyRange::new("bb", "bc"));

    let skip = |reverse, steps: &[&str], expected: Option<&str>| {
        let range = KeyRange::new("a", "d");
        let mut cursor = engine.cursor(&range, reverse);
        for step in steps {
            match *step {
                "next" => drop(cursor.next_row().unwrap()),
                key => cursor.skip_to(&key.into()),
            }
        }
        let next = cursor.next_row().unwrap().map(|row| row.key);
        assert_eq!(next, expected.map(Key::from), "{steps:?}, reverse {reverse}");
    };
    skip(false, &["b"], Some("b"));
    skip(false, &["bb"], Some("c"));
    skip(false, &["next", "c"], Some("c"));
    skip(false, &["next", "next", "a"], Some("c"));
    skip(false, &["c", "b"], Some("c"));
    skip(false, &["d"], None);
    skip(false, &["next", "next", "next", "next", "a"], None);
    skip(true, &["c"], Some("b"));
    skip(true, &["bb"], Some("b"));
    skip(true, &["z"], Some("c"));
    skip(true, &["next", "b"], Some("a"));
    skip(true, &["next", "next", "c"], Some("a"));
    skip(true, &["next", "next", "b"], Some("a"));
    skip(true, &["a"], None);
}

/// Random batches leave the engine and the memory engine with the same rows.
fn check_against_memory(engine: &dyn Engine) {
    let key = || (0..20u8, 0..3usize).prop_map(|(n, length)| Key::from(vec![n; length]));
    let change = prop_oneof![
        (key(), key()).prop_map(|(a, b)| EngineChange::ClearRange(KeyRange::new(a, b))),
        key().prop_map(EngineChange::Clear),
        (key(), any::<u8>()).prop_map(|(key, value)| {
            EngineChange::Set(Row { key, value: vec![value].into(), commit_version: Version(1) })
        }),
    ];
    let storage = MemoryStorage::new();
    let model = storage.open();
    let present = rows(engine, &KeyRange::all_user_keys(), false);
    let changes = present.into_iter().map(EngineChange::Set).collect();
    model.write(&EngineBatch { version: engine.version(), changes, attachment: None }).unwrap();

    let config = ProptestConfig { cases: 50, failure_persistence: None, ..Default::default() };
    let batches = (prop::collection::vec(change, 0..30), key(), key());
    let check = TestRunner::new(config).run(&batches, |(changes, begin, end)| {
        let batch = EngineBatch { version: engine.version().next(), changes, attachment: None };
        engine.write(&batch).unwrap();
        model.write(&batch).unwrap();
        for reverse in [false, true] {
            for range in [KeyRange::all_user_keys(), KeyRange::new(&begin, &end)] {
                prop_assert_eq!(rows(engine, &range, reverse), rows(&model, &range, reverse));
            }
        }
        Ok(())
    });
    check.unwrap();
}

fn rows(engine: &dyn Engine, range: &KeyRange, reverse: bool) -> Vec<Row> {
    let mut cursor = engine.cursor(range, reverse);
    let mut rows = Vec::new();
    while let Some(row) = cursor.next_row().unwrap() {
        rows.push(row);
    }
    rows
}
