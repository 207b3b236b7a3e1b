//! Transactions over a cluster that behaves: reads, own writes, conflicts, limits, failover, batches.

#![expect(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::{sync::Arc, time::Duration};

use fake::Cluster;
use ferrisdb_client::{
    AtomicOp, Database, Error, ErrorCode, Key, KeyRange, KeySelector, KeyValue, RangeQuery, Stage,
    TransactionOption, Value, Version,
};
use ferrisdb_core::{limits, runtime, service::controller::Phase};
use futures::{StreamExt as _, TryStreamExt as _, future};

async fn put(database: &Database, rows: &[(&str, &str)]) {
    let transaction = database.transaction();
    for (key, value) in rows {
        transaction.set(*key, *value).unwrap();
    }
    transaction.commit().await.unwrap();
}

fn keys(rows: &[KeyValue]) -> Vec<String> {
    rows.iter().map(|row| row.key.to_string()).collect()
}

fn code<T>(result: Result<T, Error>) -> Option<ErrorCode> {
    result.err().map(|error| error.code())
}

#[tokio::test]
async fn what_was_committed_is_read_with_its_version() {
    let database = Cluster::new().connect().await;
    let transaction = database.transaction();
    transaction.set("a", "1").unwrap();
    assert_eq!(transaction.get("a").await.unwrap(), Some("1".into()));
    let committed = transaction.commit().await.unwrap();
    assert_eq!(transaction.committed_version(), Some(committed.version));

    let transaction = database.transaction();
    let found = transaction.get_versioned("a").await.unwrap().unwrap();
    assert_eq!(found.commit_version, Some(committed.version));
    transaction.add("a", 0).unwrap();
    let found = transaction.get_versioned("a").await.unwrap().unwrap();
    assert_eq!(found.commit_version, None);
    assert_eq!(found.value.len(), 8);
    assert_eq!(transaction.get("b").await.unwrap(), None);
}

#[tokio::test]
async fn ranges_go_over_shards_in_both_directions() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    put(&database, &[("a", "1"), ("g", "2"), ("h", "3"), ("p", "4"), ("z", "5")]).await;
    let transaction = database.transaction();
    transaction.clear("g").unwrap();
    transaction.set("k", "own").unwrap();
    let rows = transaction.get_range("a".."z").await.unwrap();
    assert_eq!(keys(&rows), ["a", "h", "k", "p"]);
    let reverse = RangeQuery::from("b".."zz").reverse().rows(3);
    let page = transaction.get_range_page(reverse).await.unwrap();
    assert_eq!((keys(&page.rows), page.more), (vec!["z".into(), "p".into(), "k".into()], true));
    let streamed: Vec<_> = transaction.range_stream("".."\u{7f}").try_collect().await.unwrap();
    assert_eq!(keys(&streamed), ["a", "h", "k", "p", "z"]);
    // What is known is not asked for.
    let before = cluster.counts();
    transaction.clear_range("a".."z").unwrap();
    assert_eq!(transaction.get_range("a".."z").await.unwrap(), []);
    assert_eq!(transaction.get("h").await.unwrap(), None);
    assert_eq!(cluster.counts(), before);
}

#[tokio::test]
async fn a_long_range_is_streamed_in_pages() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    for index in 0..1000 {
        transaction.set(format!("{index:04}"), vec![0; 100]).unwrap();
    }
    transaction.commit().await.unwrap();
    let transaction = database.transaction();
    for query in [RangeQuery::from("0".."9"), RangeQuery::from("0".."9").reverse()] {
        let mut expected: Vec<_> = (0..1000).map(|index| format!("{index:04}")).collect();
        if query.reverse {
            expected.reverse();
        }
        let rows: Vec<_> = transaction.range_stream(query.clone()).try_collect().await.unwrap();
        assert_eq!(keys(&rows), expected);
        let rows: Vec<_> = transaction.range_stream(query.rows(700)).try_collect().await.unwrap();
        assert_eq!(keys(&rows), expected[..700]);
    }
    assert!(cluster.counts().range_requests > 8);

    // A consumer that stops early has observed one page.
    let reader = database.transaction();
    let first = reader.range_stream("0".."9").next().await.unwrap().unwrap();
    assert_eq!(first.key, Key::from("0000"));
    reader.set("result", "1").unwrap();
    put(&database, &[("0999", "later")]).await;
    reader.commit().await.unwrap();
}

#[tokio::test]
async fn a_write_to_what_was_read_is_a_conflict() {
    let database = Cluster::new().connect().await;
    put(&database, &[("a", "1"), ("b", "2"), ("c", "3")]).await;

    // Write skew: each reads what the other one writes.
    let (one, two) = (database.transaction(), database.transaction());
    two.set_option(TransactionOption::ReportConflicts).unwrap();
    one.get("a").await.unwrap();
    two.get("b").await.unwrap();
    one.set("b", "x").unwrap();
    two.set("a", "y").unwrap();
    one.commit().await.unwrap();
    let error = two.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotCommitted);
    let [conflict] = &two.conflicting_ranges()[..] else { panic!("one read was overtaken") };
    assert_eq!(conflict.range, KeyRange::single(&"b".into()));
    assert_eq!(Some(conflict.written_at), one.committed_version());
    two.on_error(error).await.unwrap();
    assert_eq!(two.get("b").await.unwrap(), Some("x".into()));

    // A snapshot read is none, nor is what lies behind a limit.
    let three = database.transaction();
    three.snapshot().get("a").await.unwrap();
    three.snapshot().get_range("a".."b").await.unwrap();
    assert_eq!(three.get_range(RangeQuery::from("b".."z").rows(1)).await.unwrap().len(), 1);
    three.set("result", "1").unwrap();
    put(&database, &[("a", "later"), ("c", "later")]).await;
    three.commit().await.unwrap();

    // The key of the row that ended the read is one.
    let four = database.transaction();
    four.get_range(RangeQuery::from("b".."z").rows(1)).await.unwrap();
    four.set("result", "1").unwrap();
    put(&database, &[("b", "later")]).await;
    assert_eq!(code(four.commit().await), Some(ErrorCode::NotCommitted));

    // Ranges added by hand count on both sides.
    let five = database.transaction();
    five.add_read_conflict_range("m".."n").unwrap();
    five.read_version().await.unwrap();
    five.set("result", "1").unwrap();
    let six = database.transaction();
    six.add_write_conflict_range("mm".."mn").unwrap();
    six.commit().await.unwrap();
    assert_eq!(code(five.commit().await), Some(ErrorCode::NotCommitted));
}

#[tokio::test]
async fn a_stamped_key_is_a_conflict_for_readers_of_what_it_becomes() {
    let database = Cluster::new().connect().await;
    let append = async |key: &str, offset| {
        let transaction = database.transaction();
        transaction.set_versionstamped_key(key, offset, "item").unwrap();
        transaction.commit().await.unwrap().versionstamp.unwrap()
    };
    let first = append("q/0123456789", 2).await;
    let of_stamp = |stamp: [u8; 10]| Key::from([b"q/", &stamp[..]].concat());

    let head = database.transaction();
    let found = head.get_range(RangeQuery::from("q/".."q0").rows(1)).await.unwrap();
    assert_eq!(found[0].key, of_stamp(first.to_bytes()));
    let beside = database.transaction();
    beside.get(of_stamp([0xff; 10])).await.unwrap();
    let tail = database.transaction();
    tail.get_range("q/".."q0").await.unwrap();
    for reader in [&head, &beside, &tail] {
        reader.set("result", "1").unwrap();
    }
    append("q/0123456789", 2).await;
    head.commit().await.unwrap();
    beside.commit().await.unwrap();
    assert_eq!(code(tail.commit().await), Some(ErrorCode::NotCommitted));

    // A key may be nothing but the stamp.
    let alone = append("0123456789", 0).await;
    let found = database.transaction().get(alone.to_bytes().to_vec()).await.unwrap();
    assert_eq!(found, Some("item".into()));
}

#[tokio::test]
async fn older_entries_are_read_beside_a_stamped_key() {
    let database = Cluster::new().connect().await;
    put(&database, &[("q/\0\0\0\0\0\0\0\x01\0\0", "old"), ("a", "1")]).await;
    let push = |transaction: &ferrisdb_client::Transaction| {
        transaction.set_versionstamped_key("q/0123456789", 2, "item").unwrap();
    };
    let transaction = database.transaction();
    push(&transaction);
    let head = || RangeQuery::from("q/".."q0").rows(1);
    let unreadable = Some(ErrorCode::AccessedUnreadable);
    assert_eq!(code(transaction.get_range(head()).await), unreadable, "it may be any version");

    let transaction = database.transaction();
    transaction.get("a").await.unwrap();
    push(&transaction);
    assert_eq!(transaction.get_range(head()).await.unwrap()[0].value, "old".into());
    assert_eq!(code(transaction.get_range("q/".."q0").await), unreadable);
}

#[tokio::test]
async fn the_last_write_of_a_key_counts() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    for round in 0..200u8 {
        transaction.set("a", vec![round; 100_000]).unwrap();
    }
    assert!(transaction.approximate_size() < 101_000);
    transaction.commit().await.unwrap();
    let transaction = database.transaction();
    for round in 0..3 {
        for index in 0..90 {
            transaction.set(format!("s{index}"), vec![round; 100_000]).unwrap();
        }
        transaction.clear_range("s".."t").unwrap();
    }
    transaction.set("x", "1").unwrap();
    assert!(transaction.approximate_size() < 1_000);
    transaction.commit().await.unwrap();
    assert_eq!(cluster.data(KeyRange::new("s", "z")).len(), 1);
    assert_eq!(database.transaction().get("a").await.unwrap().unwrap()[0], 199);
}

/// What a read leaves to conflict with: the keys of these, each written by itself after the read.
async fn conflicts(database: &Database, query: RangeQuery, own: &[&str]) -> String {
    let mut found = String::new();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"] {
        let reader = database.transaction();
        for key in own {
            reader.set(*key, "own").unwrap();
        }
        reader.get_range(query.clone()).await.unwrap();
        reader.add_write_conflict_key("\u{7f}").unwrap();
        let writer = database.transaction();
        writer.add_write_conflict_key(key).unwrap();
        writer.commit().await.unwrap();
        if reader.commit().await.is_err() {
            found.push_str(key);
        }
    }
    found
}

#[tokio::test]
async fn a_range_between_selectors_observes_what_matters() {
    let database = Cluster::new().connect().await;
    put(&database, &[("b", "1"), ("d", "1"), ("f", "1"), ("h", "1"), ("j", "1")]).await;
    let from = |key: &str| KeySelector::first_greater_or_equal(key);
    let before = |key: &str| KeySelector::last_less_than(key);
    let between = RangeQuery::between;
    let cases = [
        // A begin behind the end, whatever keys there are.
        (between(from("c") + 2, from("c")), ""),
        (between(from("h") + 1, from("c") + 1), ""),
        // ... and one because of the keys there are.
        (between(from("c") + 2, from("e")), "cd"),
        (between(from("c") + 3, from("e") + 1), "cd"),
        (between(from("g"), from("c") + 1), "cd"),
        // The end is so many keys further on: where the next one is does not matter.
        (between(from("a"), from("c") + 1), "abcd"),
        (between(from("a"), from("c") + 1).reverse(), "abcd"),
        (between(before("g"), from("i")), "fgh"),
        (between(before("g"), from("i")).reverse(), "fgh"),
        // A limit comes first.
        (between(from("a"), from("c") + 2).rows(1), "ab"),
        (between(from("a"), from("c") + 2).rows(3), "abcdef"),
        (between(before("c") - 1, from("i")).reverse().rows(1), "h"),
        (between(before("e") - 1, from("i")).reverse().rows(3), "defgh"),
        // An end below its anchor matters all the same.
        (between(from("a"), before("k")).rows(1), "abj"),
    ];
    for (query, expected) in cases {
        assert_eq!(conflicts(&database, query.clone(), &[]).await, expected, "{query:?}");
    }
    // What the transaction has set itself does not depend on others.
    let own = ["d", "e"];
    assert_eq!(conflicts(&database, between(from("a"), from("c") + 1), &own).await, "abc");
    assert_eq!(conflicts(&database, between(from("c") + 2, from("f")), &own).await, "c");
}

#[tokio::test]
async fn a_read_conflict_over_own_writes_is_none() {
    let database = Cluster::new().connect().await;
    let ends = async |key: &str| {
        let transaction = database.transaction();
        transaction.read_version().await.unwrap();
        transaction.set("b", "1").unwrap();
        transaction.clear_range("d".."f").unwrap();
        transaction.add("h", 1).unwrap();
        transaction.add_read_conflict_range("a".."z").unwrap();
        put(&database, &[(key, "")]).await;
        code(transaction.commit().await)
    };
    for known in ["b", "d", "e"] {
        assert_eq!(ends(known).await, None, "{known}");
    }
    for observed in ["a", "c", "f", "h"] {
        assert_eq!(ends(observed).await, Some(ErrorCode::NotCommitted), "{observed}");
    }
}

#[tokio::test]
async fn reads_issued_together_travel_together() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    future::try_join_all((0..100).map(|index| transaction.get(format!("{index}")))).await.unwrap();
    let counts = cluster.counts();
    assert_eq!((counts.read_versions, counts.point_reads), (1, 100));
    // Two replicas share them. The futures are polled in a few portions; each starts a round at most.
    assert!(counts.point_requests <= 4, "{} requests", counts.point_requests);

    let transactions: Vec<_> = (0..100).map(|_| database.transaction()).collect();
    future::try_join_all(transactions.iter().map(|transaction| transaction.read_version()))
        .await
        .unwrap();
    let rounds = cluster.counts().read_versions - counts.read_versions;
    assert!(rounds <= 4, "{rounds} rounds");
}

#[tokio::test]
async fn many_run_transactions_count_exactly() {
    let database = Cluster::new().connect().await;
    let count = |database: Database| async move {
        for _ in 0..10 {
            database
                .run_transaction(|transaction| async move {
                    let seen = transaction.get("count").await?.map_or(0, |value| value.len());
                    transaction.set("count", vec![b'|'; seen + 1])?;
                    transaction.add("sum", 1)
                })
                .await?;
        }
        Ok::<_, Error>(())
    };
    future::try_join_all((0..8).map(|_| count(database.clone()))).await.unwrap();
    let transaction = database.transaction();
    assert_eq!(transaction.get("count").await.unwrap().unwrap().len(), 80);
    let sum = transaction.get("sum").await.unwrap();
    assert_eq!(sum, Some(Value::from(&80i64.to_le_bytes())));
}

#[tokio::test]
async fn limits_are_typed_errors_before_anything_is_sent() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    let long_key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
    let long_value = vec![b'v'; limits::VALUE_BYTES_MAX + 1];
    let cases = [
        (transaction.set(long_key.clone(), ""), ErrorCode::KeyTooLarge),
        (transaction.set("k", long_value), ErrorCode::ValueTooLarge),
        (transaction.set(b"\xff/conf", ""), ErrorCode::KeyOutsideLegalRange),
        (transaction.clear_range("b".."a"), ErrorCode::InvertedRange),
        (transaction.set_versionstamped_value("k", "short", 0), ErrorCode::InvalidMutation),
        (transaction.set_read_version(Version::ZERO), ErrorCode::VersionInvalid),
        (transaction.set_option(TransactionOption::SizeLimit(1 << 30)), ErrorCode::InvalidArgument),
    ];
    for (result, expected) in cases {
        assert_eq!(code(result), Some(expected));
    }
    assert_eq!(code(transaction.get(long_key).await), Some(ErrorCode::KeyTooLarge));
    let system = transaction.get(b"\xff/conf").await;
    assert_eq!(code(system), Some(ErrorCode::KeyOutsideLegalRange));
    let nothing = transaction.get_range(RangeQuery::from("a".."b").rows(0)).await;
    assert_eq!(code(nothing), Some(ErrorCode::RangeLimitsInvalid));
    transaction.set_option(TransactionOption::SizeLimit(100)).unwrap();
    assert_eq!(code(transaction.set("k", vec![0; 100])), Some(ErrorCode::TransactionTooLarge));
    transaction.set("k", "small").unwrap();
    assert!(transaction.approximate_size() > 0);
    transaction.set_option(TransactionOption::AccessSystemKeys).unwrap();
    transaction.set(b"\xff/conf", "1").unwrap();
    assert_eq!(cluster.counts(), fake::Counts::default());
    transaction.commit().await.unwrap();
}

/// A read that was taken leaves nothing behind for which the commit is refused.
#[tokio::test]
async fn what_is_read_behind_the_longest_key_can_be_committed() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    let behind = Key::from(vec![b'k'; limits::KEY_BYTES_MAX]).successor();
    let selector = KeySelector { key: behind.clone(), or_equal: true, offset: 1 };
    let query = RangeQuery::between("k", selector.clone());
    assert_eq!(transaction.get_range(query).await.unwrap(), []);
    assert_eq!(transaction.get_key(selector - 1).await.unwrap(), Key::MIN);
    transaction.set("k", "1").unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_has_ended_says_how() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    let committed = transaction.commit().await.unwrap();
    assert_eq!((committed.versionstamp, transaction.committed_version()), (None, None));
    assert_eq!(cluster.counts(), fake::Counts::default());
    assert_eq!(code(transaction.set("a", "1")), Some(ErrorCode::UsedDuringCommit));
    transaction.reset();
    transaction.set("a", "1").unwrap();
    transaction.cancel();
    assert_eq!(code(transaction.get("a").await), Some(ErrorCode::TransactionCancelled));
    transaction.reset();
    assert_eq!(transaction.get("a").await.unwrap(), None);

    // An error that a retry does not help ends it as well.
    let error = transaction.set(vec![0; limits::KEY_BYTES_MAX + 1], "").unwrap_err();
    assert_eq!(code(transaction.on_error(error).await), Some(ErrorCode::KeyTooLarge));
    assert_eq!(code(transaction.get("a").await), Some(ErrorCode::TransactionCancelled));

    // Its time is measured from its beginning.
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::Timeout(Duration::from_nanos(1))).unwrap();
    assert_eq!(code(transaction.get("a").await), Some(ErrorCode::TransactionTimedOut));
    assert_eq!(code(transaction.commit().await), Some(ErrorCode::TransactionTimedOut));
}

#[tokio::test]
async fn a_commit_waits_for_the_reads_before_it() {
    let database = Cluster::new().connect().await;
    let transaction = database.transaction();
    transaction.read_version().await.unwrap();
    put(&database, &[("b", "later")]).await;
    transaction.set("a", "1").unwrap();
    let (read, committed) = future::join(transaction.get("b"), transaction.commit()).await;
    assert_eq!(read.unwrap(), None);
    assert_eq!(code(committed), Some(ErrorCode::NotCommitted), "what was read goes with it");

    // A read that was given up is not waited for.
    transaction.reset();
    transaction.set("a", "1").unwrap();
    drop(transaction.get("b"));
    let begun = future::poll_immediate(Box::pin(transaction.get("c"))).await;
    assert!(begun.is_none());
    transaction.commit().await.unwrap();
    assert_eq!(code(transaction.get("a").await), Some(ErrorCode::UsedDuringCommit));
    assert!(transaction.read_version().await.is_ok(), "that is known");
}

#[tokio::test]
async fn a_range_read_sees_the_writes_of_its_beginning() {
    let database = Cluster::new().connect().await;
    put(&database, &[("a", "1"), ("b", "2")]).await;
    let transaction = database.transaction();
    let write = async { transaction.clear("a") };
    let (rows, written) = future::join(transaction.get_range("a".."z"), write).await;
    written.unwrap();
    assert_eq!(keys(&rows.unwrap()), ["a", "b"]);
    assert_eq!(keys(&transaction.get_range("a".."z").await.unwrap()), ["b"]);
}

#[tokio::test]
async fn a_version_that_nobody_has_reached_is_an_error_soon() {
    let database = Cluster::new().connect().await;
    let transaction = database.transaction();
    transaction.set_read_version(Version(1 << 62)).unwrap();
    assert_eq!(code(transaction.get("a").await), Some(ErrorCode::FutureVersion));
    let old = database.transaction();
    old.set_read_version(Version(1)).unwrap();
    assert_eq!(code(old.get("a").await), Some(ErrorCode::TransactionTooOld));
    assert_eq!(code(old.set_read_version(Version(2))), Some(ErrorCode::ReadVersionAlreadySet));
}

#[tokio::test]
async fn reads_fail_over_and_find_servers_that_moved() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    put(&database, &[("a", "1")]).await;
    cluster.stop_storage(0);
    for _ in 0..4 {
        assert_eq!(database.transaction().get("a").await.unwrap(), Some("1".into()));
        assert_eq!(database.transaction().get_range("a".."b").await.unwrap().len(), 1);
    }
    // Nobody is left where the map says; then it says something else.
    cluster.stop_storage(1);
    let moved = async {
        cluster.start_storage(5);
        cluster.change_state(|state| {
            state.storage_servers.iter_mut().for_each(|server| server.endpoint.instance = 5);
        });
        Ok::<_, Error>(())
    };
    let transaction = database.transaction();
    let (found, ()) = future::try_join(transaction.get("a"), moved).await.unwrap();
    assert_eq!(found, Some("1".into()));
}

#[tokio::test]
async fn read_versions_and_commits_wait_for_the_next_generation() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.stop_proxy(100);
    let recovery = async {
        cluster.change_state(|state| state.phase = Phase::Recovering { step: "locking".into() });
        cluster.start_proxy(101);
        cluster.change_state(|state| {
            state.phase = Phase::Active;
            state.coordinator.as_mut().unwrap().proxies[0].instance = 101;
        });
    };
    let transaction = database.transaction();
    transaction.set("a", "1").unwrap();
    let (committed, ()) = future::join(transaction.commit(), recovery).await;
    committed.unwrap();
    assert_eq!(database.status().await.unwrap().cluster.revision, 3);
}

/// The next generation begins so far ahead that nothing which was read or committed before it is of use.
#[tokio::test]
async fn versions_of_an_earlier_generation_are_not_used_again() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let run = async |is_blind: bool| {
        let before = cluster.counts().read_versions;
        let transaction = database.transaction();
        if is_blind {
            transaction.set("a", "1").unwrap();
            transaction.commit().await.unwrap();
        } else {
            let age = TransactionOption::ReadAtMostStale(Duration::from_secs(60));
            transaction.set_option(age).unwrap();
            transaction.get("a").await.unwrap();
        }
        cluster.counts().read_versions - before
    };
    assert_eq!(run(true).await, 1);
    for (proxy, is_blind) in [(101, false), (102, true)] {
        assert_eq!((run(true).await, run(false).await), (0, 0));
        cluster.start_proxy(proxy);
        cluster.change_state(|state| {
            state.generation = state.generation.next();
            state.coordinator.as_mut().unwrap().proxies[0].instance = proxy;
        });
        // As soon as the client knows.
        let learnt = async { while run(is_blind).await == 0 {} };
        runtime::timeout(Duration::from_secs(10), Stage::Client, learnt).await.unwrap();
    }
}

#[tokio::test]
async fn options_change_one_transaction() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    put(&database, &[("a", "1")]).await;
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::ReadYourWritesDisabled).unwrap();
    transaction.set("a", "2").unwrap();
    assert_eq!(transaction.get("a").await.unwrap(), Some("1".into()));
    let late = transaction.set_option(TransactionOption::ReadYourWritesDisabled);
    assert_eq!(code(late), Some(ErrorCode::InvalidArgument));

    let reader = database.transaction();
    reader.get("a").await.unwrap();
    reader.set("result", "1").unwrap();
    let silent = database.transaction();
    silent.set_option(TransactionOption::NextWriteWithoutConflict).unwrap();
    silent.set("a", "3").unwrap();
    silent.atomic(AtomicOp::Max, "other", "x").unwrap();
    silent.commit().await.unwrap();
    reader.commit().await.unwrap();
}

#[test]
fn handles_and_their_futures_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}
    fn check(database: &Database) {
        let shared = Arc::new(String::from("a"));
        let run = database.run_transaction(|transaction| {
            let key = Arc::clone(&shared);
            async move { transaction.get(key.as_str()).await }
        });
        is_send(&run);
        is_sync(database);
        let transaction = database.transaction();
        is_sync(&transaction);
        is_send(&transaction.commit());
        is_send(&transaction.range_stream("a".."b"));
    }
    let _: fn(&Database) = check;
}
