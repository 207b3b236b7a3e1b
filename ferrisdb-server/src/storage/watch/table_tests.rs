use std::collections::BTreeMap;

use ferrisdb_core::runtime;
use proptest::prelude::*;

use super::*;

const ONE: WatchSessionId = WatchSessionId(1);

fn digest(value: &str) -> Option<ValueDigest> {
    Some(ValueDigest::of(value.as_bytes()))
}

fn watched(number: u64, key: &str, known: Option<ValueDigest>, version: u64) -> Watched {
    Watched { number, key: key.into(), known, known_version: Version(version) }
}

fn table() -> WatchTable {
    let mut table = WatchTable::new(1 << 20);
    table.begin_session(ONE, runtime::now()).unwrap();
    table
}

fn look(table: &mut WatchTable, key: &str, value: Option<&str>, applied: u64) {
    let value = value.map(Value::from);
    table.look(&key.into(), Found::Here(value.as_ref()), Version(applied));
}

#[test]
fn a_watch_ends_when_the_value_differs() {
    let mut table = table();
    table.begin(ONE, watched(7, "a", digest("1"), 40)).unwrap();
    look(&mut table, "a", Some("1"), 50);
    look(&mut table, "b", Some("2"), 50);
    assert!(table.take_rung().is_empty());
    look(&mut table, "a", None, 51);
    assert_eq!(table.take_rung(), [ONE]);
    assert_eq!(table.take_news(ONE), [(7, WatchEnd::Changed(Version(51)))]);
    assert!(table.is_empty());
    assert_eq!(table.take_news(ONE), []);
}

#[test]
fn what_is_older_than_what_the_client_knows_is_no_news() {
    let mut table = table();
    table.begin(ONE, watched(7, "a", digest("2"), 60)).unwrap();
    look(&mut table, "a", Some("1"), 50);
    assert!(table.take_due(Version(59)).is_empty());
    assert_eq!(table.take_due(Version(60)), BTreeSet::from(["a".into()]));
    look(&mut table, "a", Some("2"), 60);
    assert!(table.take_rung().is_empty());
    assert!(table.take_due(Version::MAX).is_empty());
    look(&mut table, "a", Some("3"), 61);
    assert_eq!(table.take_news(ONE), [(7, WatchEnd::Changed(Version(61)))]);
}

#[test]
fn a_key_that_is_elsewhere_is_refused() {
    let mut table = table();
    for number in 0..3 {
        table.begin(ONE, watched(number, "a", None, 40)).unwrap();
    }
    table.end_all(ONE, [1, 9]).unwrap();
    table.look(&"a".into(), Found::Elsewhere, Version(50));
    let refused = WatchEnd::WrongShard;
    assert_eq!(table.take_news(ONE), [(0, refused), (2, refused)]);
    table.begin(ONE, watched(5, "b", None, 40)).unwrap();
    table.refuse_all();
    assert_eq!(table.take_news(ONE), [(5, refused)]);
}

#[test]
fn a_rollback_concerns_what_was_looked_at_since() {
    let mut table = table();
    table.begin(ONE, watched(1, "old", None, 40)).unwrap();
    look(&mut table, "old", None, 50);
    table.begin(ONE, watched(2, "new", None, 40)).unwrap();
    look(&mut table, "new", None, 57);
    assert_eq!(table.on_rollback(Version(55)), BTreeSet::from(["new".into()]));
    look(&mut table, "new", Some("x"), 55);
    assert_eq!(table.take_news(ONE), [(2, WatchEnd::Changed(Version(55)))]);
    assert!(table.on_rollback(Version(50)).is_empty());
}

#[test]
fn memory_is_bounded() {
    let mut table = WatchTable::new(SESSION_BYTES + 2 * (WATCH_BYTES + 2));
    table.begin_session(ONE, runtime::now()).unwrap();
    for number in 0..3 {
        table.begin(ONE, watched(number, "a", None, 40)).unwrap();
    }
    assert_eq!(table.take_news(ONE), [(2, WatchEnd::TooMany)]);
    let error = table.begin_session(WatchSessionId(2), runtime::now()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooBusy);
    // A number that begins again takes no more room.
    table.begin(ONE, watched(1, "b", None, 40)).unwrap();
    assert_eq!(table.take_news(ONE), []);
    for number in 0..NEWS_MAX as u64 {
        table.begin(ONE, watched(10 + number, "a", None, 40)).unwrap();
    }
    let error = table.begin(ONE, watched(1, "a", None, 40)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooBusy);
    assert_eq!(table.take_news(ONE).len(), limits::WATCHES_PER_REQUEST_MAX);
}

#[test]
fn sessions_that_nobody_asks_for_are_forgotten() {
    let mut table = table();
    let began = runtime::now();
    table.begin(ONE, watched(1, "a", None, 40)).unwrap();
    table.begin_poll(ONE).unwrap();
    assert_eq!(table.forget_idle(began + 2 * SESSION_LIFETIME), []);
    table.end_poll(ONE, began + SESSION_LIFETIME);
    assert_eq!(table.forget_idle(began + 2 * SESSION_LIFETIME), []);
    assert_eq!(table.forget_idle(began + 3 * SESSION_LIFETIME), [ONE]);
    assert!(table.is_empty());
    assert_eq!(table.memory_bytes(), 0);
    for error in [
        table.begin_poll(ONE).unwrap_err(),
        table.begin(ONE, watched(1, "a", None, 40)).unwrap_err(),
        table.end_all(ONE, []).unwrap_err(),
    ] {
        assert_eq!(error.code(), ErrorCode::NoSuchEndpoint);
    }
}

/// One thing that happens to a server.
#[derive(Clone, Debug)]
enum Step {
    Begin {
        session: u64,
        number: u64,
        key: u8,
        known: Option<u8>,
        ahead: u64,
    },
    End {
        session: u64,
        number: u64,
    },
    /// A version, with whatever it changes.
    Apply(Vec<Change>),
    Rollback(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Set(u8, u8),
    Clear(u8),
    ClearRange(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0u8..6;
    let change = prop_oneof![
        (key(), 0u8..3).prop_map(|(key, value)| Change::Set(key, value)),
        key().prop_map(Change::Clear),
        (key(), key()).prop_map(|(begin, end)| Change::ClearRange(begin, end)),
    ];
    prop_oneof![
        3 => (0u64..2, 0u64..6, key(), proptest::option::of(0u8..3), 0u64..4).prop_map(
            |(session, number, key, known, ahead)| Step::Begin { session, number, key, known, ahead }
        ),
        1 => (0u64..2, 0u64..6).prop_map(|(session, number)| Step::End { session, number }),
        4 => proptest::collection::vec(change, 0..4).prop_map(Step::Apply),
        1 => (0usize..4).prop_map(Step::Rollback),
    ]
}

fn name(key: u8) -> Key {
    Key::from(&[key][..])
}

/// The state at each version, the watches, and nothing else.
struct Model {
    states: Vec<BTreeMap<u8, u8>>,
    watches: BTreeMap<(u64, u64), (u8, Option<u8>, u64)>,
}

impl Model {
    fn applied(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// The watches that differ from what is there now.
    fn take_changed(&mut self) -> BTreeSet<(u64, u64)> {
        let (applied, state) = (self.applied(), &self.states[self.states.len() - 1]);
        let differs = |_: &(u64, u64), (key, known, from): &mut (u8, Option<u8>, u64)| {
            *from <= applied && state.get(key).copied() != *known
        };
        self.watches.extract_if(.., differs).map(|(id, _)| id).collect()
    }
}

proptest! {
    /// Whatever happens, after each step exactly those watches have ended that differ from the newest state.
    #[test]
    fn as_a_list_that_is_compared_again_and_again(steps in proptest::collection::vec(step(), 1..60)) {
        let mut table = WatchTable::new(1 << 20);
        for session in 0..2 {
            table.begin_session(WatchSessionId(session), runtime::now()).unwrap();
        }
        let mut model = Model { states: vec![BTreeMap::new()], watches: BTreeMap::new() };
        for step in steps {
            let mut keys = BTreeSet::new();
            match step {
                Step::Begin { session, number, key, known, ahead } => {
                    let from = model.applied() + ahead;
                    model.watches.insert((session, number), (key, known, from));
                    let digest = known.map(|value| ValueDigest::of(&[value]));
                    let (key, known_version) = (name(key), Version(from));
                    keys.insert(key.clone());
                    let watched = Watched { number, key, known: digest, known_version };
                    table.begin(WatchSessionId(session), watched).unwrap();
                }
                Step::End { session, number } => {
                    model.watches.remove(&(session, number));
                    table.end_all(WatchSessionId(session), [number]).unwrap();
                }
                Step::Apply(changes) => {
                    let mut state = model.states[model.states.len() - 1].clone();
                    let mut mutations = Vec::new();
                    for change in changes {
                        mutations.push(match change {
                            Change::Set(key, value) => {
                                state.insert(key, value);
                                Mutation::Set { key: name(key), value: Value::from(&[value]) }
                            }
                            Change::Clear(key) => {
                                state.remove(&key);
                                Mutation::Clear { key: name(key) }
                            }
                            Change::ClearRange(begin, end) => {
                                state.retain(|key, _| !(begin..end).contains(key));
                                Mutation::ClearRange { range: KeyRange::new(name(begin), name(end)) }
                            }
                        });
                    }
                    keys = table.touched_by(&mutations);
                    model.states.push(state);
                    keys.extend(table.take_due(Version(model.applied())));
                }
                Step::Rollback(count) => {
                    model.states.truncate((model.states.len() - count.min(model.states.len() - 1)).max(1));
                    keys = table.on_rollback(Version(model.applied()));
                }
            }
            let state = &model.states[model.states.len() - 1];
            for key in keys {
                let value = state.get(&key[0]).map(|value| Value::from(&[*value]));
                table.look(&key, Found::Here(value.as_ref()), Version(model.applied()));
            }
            let mut ended = BTreeSet::new();
            for session in table.take_rung() {
                let news = table.take_news(session);
                ended.extend(news.into_iter().map(|(number, _)| (session.0, number)));
            }
            prop_assert_eq!(ended, model.take_changed());
        }
        let numbers: BTreeSet<_> = model.watches.keys().copied().collect();
        let left = table.keys.values().flat_map(|of_key| of_key.keys()).map(|(session, number)| (session.0, *number));
        prop_assert_eq!(left.collect::<BTreeSet<_>>(), numbers);
        table.refuse_all();
        prop_assert!(table.is_empty() && table.early.is_empty());
        prop_assert_eq!(table.memory_bytes(), 2 * SESSION_BYTES);
    }
}
