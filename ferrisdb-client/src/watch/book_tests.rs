use std::sync::atomic::{AtomicUsize, Ordering};

use ferrisdb_core::{
    ClusterId, ErrorCode, Generation, ProcessId, Shard, ShardMap, Stage, Tag, Teams,
    id::Address,
    runtime,
    service::controller::{ClusterState, Phase, StorageServer},
};

use super::*;

/// A book, a clock, and two servers: both have `''..'m'`, the second one has the rest.
struct World {
    book: Book,
    now: Instant,
    locations: Locations,
    sessions: u64,
    outstanding: Arc<AtomicUsize>,
}

fn endpoint(tag: u32) -> Endpoint {
    Endpoint::of_process(Address::new(format!("s{tag}")))
}

fn locations(revision: u64, first: &[u32]) -> Locations {
    let server = |tag| StorageServer {
        tag: Tag(tag),
        process: ProcessId(u128::from(tag)),
        endpoint: endpoint(tag),
        zone: "z".into(),
        begin_version: Version(0),
    };
    let shard = |begin: &str, end: Key, team: &[u32]| Shard {
        range: ferrisdb_core::KeyRange { begin: begin.into(), end },
        teams: Teams::of(team.iter().copied().map(Tag)),
    };
    Locations::of(&ClusterState {
        cluster_id: ClusterId(1),
        revision,
        generation: Generation(1),
        phase: Phase::Active,
        coordinator: None,
        log_sets: Vec::new(),
        storage_servers: vec![server(0), server(1)],
        next_tag: Tag(2),
        shards: ShardMap::new(vec![
            shard("", "m".into(), first),
            shard("m", Key::SYSTEM_END, &[1]),
        ]),
        controllers: Vec::new(),
        configuration: None,
        excluded: Vec::new(),
    })
}

impl World {
    fn new() -> World {
        World {
            book: Book::default(),
            now: runtime::now(),
            locations: locations(1, &[0, 1]),
            sessions: 0,
            outstanding: Arc::default(),
        }
    }

    fn arm(&mut self, number: u64, key: &str) -> Arc<Signal> {
        let signal = Signal::new(&self.outstanding, 10).unwrap();
        let known = Some(ValueDigest::of(b"known"));
        let (key, version, signal) = (key.into(), Version(40), Arc::clone(&signal));
        let armed = Armed { number, key, known, version, signal: Arc::clone(&signal) };
        if let Err(closed) = self.book.arm(armed, self.now) {
            signal.give(Err(closed));
        }
        signal
    }

    /// Lets everything go on that is due within a second; returns the servers of new sessions.
    fn go_on(&mut self) -> Vec<(WatchSessionId, Endpoint)> {
        self.now += Duration::from_secs(1);
        let sessions = &mut self.sessions;
        let draw = || {
            *sessions += 1;
            *sessions
        };
        let new = self.book.begin_due(self.now, Some(&self.locations), <[Endpoint]>::to_vec, draw);
        new.into_iter().map(|session| (session.id, session.server)).collect()
    }

    fn changes(&mut self, session: u64) -> Option<(bool, Vec<u64>, Vec<u64>)> {
        let changes = self.book.take_changes(WatchSessionId(session))?;
        let begin = changes.begin.iter().map(|watched| watched.number).collect();
        Some((changes.begins_session, begin, changes.end))
    }

    fn news(&mut self, session: u64, number: u64, end: WatchEnd) {
        self.book.on_news(WatchSessionId(session), vec![(number, end)], self.now);
    }

    fn doubts(&mut self) -> Vec<(u64, Version)> {
        let doubts = self.book.take_doubts(10);
        doubts.into_iter().map(|doubt| (doubt.number, doubt.changed_at)).collect()
    }

    fn found(&mut self, number: u64, value: &str) {
        let digest = Some(ValueDigest::of(value.as_bytes()));
        let changed = self.book.on_looked(number, Ok((Version(60), digest)), self.now);
        changed.into_iter().for_each(|signal| signal.give(Ok(())));
    }
}

fn changed(version: u64) -> WatchEnd {
    WatchEnd::Changed(Version(version))
}

#[test]
fn a_change_that_is_confirmed_ends_it() {
    let mut world = World::new();
    let signal = world.arm(1, "a");
    assert_eq!(world.go_on(), [(WatchSessionId(1), endpoint(0))]);
    assert_eq!(world.changes(1), Some((true, vec![1], vec![])));
    assert_eq!(world.changes(1), None);
    world.news(1, 1, changed(57));
    assert_eq!(world.doubts(), [(1, Version(57))]);
    assert!(signal.outcome().is_none());
    world.found(1, "new");
    assert_eq!(signal.outcome(), Some(&Ok(())));
    assert_eq!(world.outstanding.load(Ordering::SeqCst), 0);
    assert!(world.book.end_if_empty(WatchSessionId(1)));
    assert!(world.book.next_due().is_none());
}

#[test]
fn a_change_that_is_not_confirmed_does_not() {
    let mut world = World::new();
    let signal = world.arm(1, "a");
    world.go_on();
    world.changes(1);
    world.news(1, 1, changed(57));
    world.doubts();
    world.found(1, "known");
    assert!(signal.outcome().is_none());
    // It begins again in the same session, and what is older than the look counts no more.
    assert_eq!(world.go_on(), []);
    let changes = world.book.take_changes(WatchSessionId(1)).unwrap();
    assert_eq!((changes.begins_session, changes.begin[0].known_version), (false, Version(60)));
    // A read that failed is made again.
    world.news(1, 1, changed(70));
    world.doubts();
    let error = Error::new(ErrorCode::Unavailable, Stage::Read, "");
    assert!(world.book.on_looked(1, Err(error), world.now).is_none());
    world.go_on();
    assert_eq!(world.doubts(), [(1, Version::ZERO)]);
}

#[test]
fn when_a_session_fails_its_watches_begin_again() {
    let mut world = World::new();
    world.arm(1, "a");
    world.arm(2, "b");
    let sent_before = world.go_on();
    assert_eq!(sent_before.len(), 1);
    assert_eq!(world.changes(1), Some((true, vec![1, 2], vec![])));
    world.book.on_session_failed(WatchSessionId(1), world.now);
    world.locations = locations(2, &[1]);
    assert_eq!(world.go_on(), [(WatchSessionId(2), endpoint(1))]);
    assert_eq!(world.changes(2), Some((true, vec![1, 2], vec![])));
    // The old session has nothing to say any more.
    world.news(1, 1, changed(57));
    assert_eq!(world.doubts(), []);
    // Without any server it waits for one.
    world.book.on_session_failed(WatchSessionId(2), world.now);
    world.locations = locations(3, &[]);
    assert_eq!(world.go_on(), []);
    world.locations = locations(4, &[0]);
    world.go_on();
    assert_eq!(world.go_on(), []);
    assert_eq!(world.changes(3), Some((true, vec![1, 2], vec![])));
}

#[test]
fn watches_of_keys_that_have_moved_follow_them() {
    let mut world = World::new();
    world.arm(1, "a");
    world.arm(2, "z");
    assert_eq!(world.go_on().len(), 2);
    assert_eq!(world.changes(1), Some((true, vec![1], vec![])));
    assert_eq!(world.changes(2), Some((true, vec![2], vec![])));
    world.locations = locations(2, &[1]);
    world.book.on_locations(&world.locations, world.now);
    assert_eq!(world.changes(1), Some((false, vec![], vec![1])));
    world.go_on();
    assert_eq!(world.changes(2), Some((false, vec![1], vec![])));
    // A server that knows it first says so.
    world.news(2, 2, WatchEnd::WrongShard);
    world.go_on();
    assert_eq!(world.changes(2), Some((false, vec![2], vec![])));
}

#[test]
fn a_server_with_too_many_is_replaced_by_looking() {
    let mut world = World::new();
    let signal = world.arm(1, "a");
    world.go_on();
    world.changes(1);
    world.news(1, 1, WatchEnd::TooMany);
    for _ in 0..2 {
        assert_eq!(world.doubts(), []);
        world.go_on();
    }
    assert_eq!(world.doubts(), [(1, Version::ZERO)]);
    world.found(1, "known");
    world.go_on();
    assert_eq!(world.changes(1), Some((false, vec![1], vec![])));
    assert!(signal.outcome().is_none());
}

#[test]
fn who_does_not_wait_is_forgotten() {
    let mut world = World::new();
    world.arm(1, "a");
    world.book.forget(1);
    assert_eq!(world.go_on(), []);
    for number in 2..5 {
        world.arm(number, "a");
    }
    world.go_on();
    // Before the server was told: it never hears of it.
    world.book.forget(2);
    assert_eq!(world.changes(1), Some((true, vec![3, 4], vec![])));
    world.book.forget(3);
    world.news(1, 4, changed(57));
    world.book.forget(4);
    assert_eq!(world.doubts(), []);
    assert_eq!(world.changes(1), Some((false, vec![], vec![3])));
    assert!(world.book.end_if_empty(WatchSessionId(1)));
}

#[test]
fn nothing_waits_in_a_closed_book() {
    let mut world = World::new();
    let (early, waiting) = (world.arm(1, "a"), world.arm(2, "b"));
    world.go_on();
    let error = Error::new(ErrorCode::ShuttingDown, Stage::Client, "");
    for signal in world.book.close(error.clone()) {
        signal.give(Err(error.clone()));
    }
    let late = world.arm(3, "c");
    for signal in [early, waiting, late] {
        assert_eq!(signal.outcome(), Some(&Err(error.clone())));
    }
    assert_eq!(world.go_on(), []);
    assert_eq!(world.outstanding.load(Ordering::SeqCst), 0);
}

#[test]
fn pauses_grow_while_it_begins_again_in_a_row() {
    let mut world = World::new();
    world.arm(16, "a");
    let mut pauses = Vec::new();
    for round in 1..12 {
        let new = world.go_on();
        assert_eq!(new, [(WatchSessionId(round), endpoint(0))]);
        world.book.on_session_failed(WatchSessionId(round), world.now);
        pauses.push(world.book.next_due().unwrap().duration_since(world.now));
    }
    assert_eq!(pauses[0], PAUSE_MIN);
    assert!(pauses.is_sorted() && pauses[10] == PAUSE_MAX, "{pauses:?}");
    world.go_on();
    world.now += SETTLED_AFTER;
    world.book.on_session_failed(WatchSessionId(12), world.now);
    assert_eq!(world.book.next_due().unwrap().duration_since(world.now), PAUSE_MIN);
}
