//! The whole database inside the process: what a user of `open` and `memory` counts on.

#![cfg(all(feature = "embedded", not(madsim)))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, time::Duration};

use ferrisdb_client::{Database, Error, ErrorCode, Key, KeyRange, RangeQuery, Value};
use ferrisdb_core::runtime;

async fn put(database: &Database, key: &[u8], value: &[u8]) {
    let (key, value) = (Key::from(key), Value::from(value));
    database
        .run_transaction(|transaction| {
            let (key, value) = (key.clone(), value.clone());
            async move { transaction.set(key, value) }
        })
        .await
        .unwrap();
}

async fn get(database: &Database, key: &[u8]) -> Option<Vec<u8>> {
    let value = database.transaction().get(key).await.unwrap();
    value.map(|value| value.to_vec())
}

/// Opens a directory as soon as its last owner has let go of it.
async fn reopen(path: &Path) -> Database {
    let mut last = None;
    for _ in 0..10_000 {
        match Database::open(path).await {
            Ok(database) => return database,
            Err(error) => {
                // RocksDB has a lock of its own, which it reports as a disk error.
                let locked = [ErrorCode::DirectoryLocked, ErrorCode::Disk].contains(&error.code());
                assert!(locked, "{error}");
                last = Some(error);
                runtime::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    panic!("the directory stays locked: {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_there_after_closing_and_after_dropping() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).await.unwrap();
    put(&database, b"\xfe\x00key", b"\xff\x00value").await;
    database.close().await.unwrap();

    let database = reopen(folder.path()).await;
    assert_eq!(get(&database, b"\xfe\x00key").await.unwrap(), b"\xff\x00value");
    put(&database, b"second", b"").await;
    // Nobody closes it: that must neither lose anything nor keep the directory locked.
    drop(database);

    let database = reopen(folder.path()).await;
    assert_eq!(get(&database, b"second").await.unwrap(), b"");
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_sessions_do_not_pile_up_logs() {
    let folder = tempfile::tempdir().unwrap();
    for session in 0..6u8 {
        let database = reopen(folder.path()).await;
        put(&database, &[session], b"value").await;
        let status = database.status().await.unwrap();
        let sets = status.cluster.log_sets.len();
        assert!(sets <= 3, "{sets} log sets in session {session}");
        database.close().await.unwrap();
    }
    let database = reopen(folder.path()).await;
    for session in 0..6u8 {
        assert_eq!(get(&database, &[session]).await.unwrap(), b"value");
    }
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).await.unwrap();
    let error = Database::open(folder.path()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DirectoryLocked, "{error}");
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_directory_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("letter.txt"), "dear diary").unwrap();
    let error = Database::open(folder.path()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::WrongDirectory, "{error}");
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing was added");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_counters_and_ranges() {
    let database = Database::memory().await.unwrap();
    // Write skew: each reads what the other writes, so only one may commit.
    let (one, two) = (database.transaction(), database.transaction());
    for transaction in [&one, &two] {
        assert_eq!(transaction.get("a").await.unwrap(), None);
        assert_eq!(transaction.get("b").await.unwrap(), None);
    }
    one.set("a", "1").unwrap();
    two.set("b", "2").unwrap();
    one.commit().await.unwrap();
    assert_eq!(two.commit().await.unwrap_err().code(), ErrorCode::NotCommitted);
    // Without the conflict of a snapshot read it commits.
    let three = database.transaction();
    three.snapshot().get("a").await.unwrap();
    put(&database, b"a", b"changed").await;
    three.set("c", "3").unwrap();
    three.commit().await.unwrap();

    // A counter that many add to, without a single conflict.
    let adders = (0..20).map(|_| {
        database.run_transaction(|transaction| async move { transaction.add("counter", 5) })
    });
    futures::future::try_join_all(adders).await.unwrap();
    let sum = get(&database, b"counter").await.unwrap();
    assert_eq!(i64::from_le_bytes(sum.try_into().unwrap()), 100);

    database
        .run_transaction(|transaction| async move {
            for number in 0..1_000u32 {
                transaction.set([b"row/", &number.to_be_bytes()[..]].concat(), vec![7; 100])?;
            }
            Ok::<(), Error>(())
        })
        .await
        .unwrap();
    let transaction = database.transaction();
    let rows = transaction.get_range(KeyRange::prefix(b"row/")).await.unwrap();
    assert_eq!(rows.len(), 1_000);
    assert!(rows.is_sorted_by(|a, b| a.key < b.key));
    let query = RangeQuery::from(KeyRange::prefix(b"row/")).rows(3).reverse();
    let last: Vec<_> = transaction.get_range(query).await.unwrap();
    assert_eq!(last.iter().map(|row| row.key[7]).collect::<Vec<_>>(), [231, 230, 229]);

    transaction.clear_range(KeyRange::prefix(b"row/")).unwrap();
    assert_eq!(transaction.get_range(KeyRange::prefix(b"row/")).await.unwrap(), []);
    transaction.commit().await.unwrap();
    let rest = database.transaction().get_range(KeyRange::prefix(b"row/")).await.unwrap();
    assert_eq!(rest, []);
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_typed_errors() {
    let database = Database::memory().await.unwrap();
    let transaction = database.transaction();
    let code = |result: Result<(), Error>| result.unwrap_err().code();
    assert_eq!(code(transaction.set(vec![1; 10_001], "")), ErrorCode::KeyTooLarge);
    assert_eq!(code(transaction.set("k", vec![1; 100_001])), ErrorCode::ValueTooLarge);
    assert_eq!(code(transaction.set(b"\xff/system", "")), ErrorCode::KeyOutsideLegalRange);
    assert_eq!(code(transaction.clear_range(KeyRange::new("b", "a"))), ErrorCode::InvertedRange);
    // A hundred of these are ten million bytes, and their keys are over the limit.
    let mut sets = (0..100u8).map(|number| transaction.set(vec![number], vec![1; 100_000]));
    assert_eq!(code(sets.find(Result::is_err).unwrap()), ErrorCode::TransactionTooLarge);
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_among_the_special_keys_is_json() {
    let database = Database::memory().await.unwrap();
    put(&database, b"key", b"value").await;
    let text = get(&database, b"\xff\xff/status/json").await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(status["client"]["database_status"]["available"], true);
    assert_eq!(status["cluster"]["processes"].as_object().map(|all| all.is_empty()), Some(false));
    assert!(status["ferrisdb"]["processes"].is_array(), "{status}");
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_large_range_is_estimated_and_divided() {
    const ROWS: usize = 50_000;
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).await.unwrap();
    for first in (0..ROWS).step_by(5_000) {
        database
            .run_transaction(|transaction| async move {
                for number in first..first + 5_000 {
                    transaction.set(format!("row/{number:06}"), vec![b'v'; 100])?;
                }
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
    }
    // More rows than one call counts, so that one server is asked several times, or estimates.
    let range = KeyRange::prefix(b"row/");
    let bytes = (ROWS * 110) as u64;
    let transaction = database.transaction();
    let estimated = transaction.estimated_range_size(&range).await.unwrap();
    assert!(bytes / 2 < estimated && estimated < bytes * 2, "{estimated} of {bytes}");
    let points = transaction.range_split_points(&range, bytes / 10, None).await.unwrap();
    let middles: Vec<Key> = (1..10).map(|part| format!("row/{:06}", part * 5_000).into()).collect();
    assert_eq!(points[1..points.len() - 1], middles);
    database.close().await.unwrap();
}
