//! Watches of an embedded database: when they are ready, when they are not, and how they fail.

#![cfg(all(feature = "embedded", not(madsim)))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{future::Future, time::Duration};

use ferrisdb_client::{
    AtomicOp, Database, Error, ErrorCode, Transaction, TransactionOption, Watch,
};
use ferrisdb_core::{Stage, limits, runtime};
use futures::{TryFutureExt as _, future};

/// How long a watch may take that is to be ready.
const SOON: Duration = Duration::from_secs(20);
/// How long one is looked at that is not.
const A_WHILE: Duration = Duration::from_millis(1_200);

async fn soon(watch: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    runtime::timeout(SOON, Stage::Client, watch).await.expect("the watch is ready soon")
}

async fn assert_waits(watch: &mut Watch) {
    let waited = runtime::timeout(A_WHILE, Stage::Client, &mut *watch).await;
    assert!(waited.is_err() && !watch.is_ready(), "{watch:?} should wait: {waited:?}");
}

/// Watches a key in a transaction that only reads.
async fn watch(database: &Database, key: &str) -> Watch {
    let transaction = database.transaction();
    let watch = transaction.watch(key).await.unwrap();
    transaction.commit().await.unwrap();
    watch
}

async fn change(database: &Database, change: impl Fn(&Transaction) -> Result<(), Error>) {
    let transaction = database.transaction();
    change(&transaction).unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn each_kind_of_change_makes_it_ready() {
    let database = Database::memory().await.unwrap();
    for key in ["set", "clear", "range", "single", "atomic", "stamped"] {
        change(&database, |transaction| transaction.set(key, "old value")).await;
    }
    let mut watches = Vec::new();
    for key in ["set", "absent", "clear", "range", "single", "atomic", "stamped"] {
        watches.push(watch(&database, key).await);
    }
    let mut untouched = watch(&database, "rangf").await;
    change(&database, |transaction| transaction.set("set", "new")).await;
    change(&database, |transaction| transaction.set("absent", "")).await;
    change(&database, |transaction| transaction.clear("clear")).await;
    change(&database, |transaction| transaction.clear_range("rang".."rangf")).await;
    change(&database, |transaction| transaction.clear_range("single".."single\0")).await;
    change(&database, |transaction| transaction.atomic(AtomicOp::Add, "atomic", b"\x01")).await;
    let stamp = &[0; 10];
    change(&database, |transaction| transaction.set_versionstamped_value("stamped", stamp, 0))
        .await;
    soon(future::try_join_all(watches).map_ok(drop)).await.unwrap();
    assert_waits(&mut untouched).await;
}

#[tokio::test]
async fn what_leaves_the_value_as_it_is_does_not() {
    let database = Database::memory().await.unwrap();
    change(&database, |transaction| transaction.set("a", "1")).await;
    let mut a = watch(&database, "a").await;
    let mut absent = watch(&database, "b").await;
    change(&database, |transaction| transaction.set("a", "1")).await;
    change(&database, |transaction| {
        transaction.clear("a")?;
        transaction.set("a", "1")
    })
    .await;
    change(&database, |transaction| transaction.atomic(AtomicOp::ByteMax, "a", b"0")).await;
    change(&database, |transaction| transaction.clear_range("b".."c")).await;
    change(&database, |transaction| transaction.set("a0", "x")).await;
    future::join(assert_waits(&mut a), assert_waits(&mut absent)).await;
    assert_eq!(a.key().to_string(), "a");

    change(&database, |transaction| transaction.clear_range("".."\u{7f}")).await;
    soon(&mut a).await.unwrap();
    assert!(a.is_ready());
    soon(&mut a).await.unwrap();
    assert!(!absent.is_ready());
}

#[tokio::test]
async fn own_writes_count() {
    let database = Database::memory().await.unwrap();
    // What the transaction wrote before it began to watch is what it knows.
    let transaction = database.transaction();
    transaction.set("a", "1").unwrap();
    transaction.set("sum", &7u64.to_le_bytes()).unwrap();
    transaction.add("sum", 1).unwrap();
    let mut a = transaction.watch("a").await.unwrap();
    let mut sum = transaction.watch("sum").await.unwrap();
    transaction.commit().await.unwrap();
    future::join(assert_waits(&mut a), assert_waits(&mut sum)).await;
    change(&database, |transaction| transaction.add("sum", 1)).await;
    soon(sum).await.unwrap();

    // What it writes afterwards is a change.
    let transaction = database.transaction();
    let later = transaction.watch("a").await.unwrap();
    transaction.set("a", "1").unwrap();
    assert!(!later.is_ready(), "it is the same");
    transaction.set("a", "2").unwrap();
    assert!(later.is_ready(), "at once");
    transaction.commit().await.unwrap();
    soon(later).await.unwrap();
    soon(a).await.unwrap();
    for change in [
        |transaction: &Transaction| transaction.clear("a"),
        |transaction: &Transaction| transaction.clear_range(""..""),
        |transaction: &Transaction| transaction.clear_range("".."b"),
        |transaction: &Transaction| transaction.add("a", 1),
        |transaction: &Transaction| transaction.set_versionstamped_value("a", &[0; 10], 0),
        |transaction: &Transaction| transaction.set("b", "1"),
    ] {
        let transaction = database.transaction();
        let watch = transaction.watch("a").await.unwrap();
        change(&transaction).unwrap();
        let is_changed = transaction.get("a").await.ok() != Some(Some("2".into()));
        assert_eq!(watch.is_ready(), is_changed);
    }

    // One that is written while the watch reads, and one that the transaction is committed with meanwhile.
    let transaction = database.transaction();
    let set = async { transaction.set("a", "3") };
    let (watch, written) = future::join(transaction.watch("a"), set).await;
    written.unwrap();
    assert!(watch.unwrap().is_ready());
    let transaction = database.transaction();
    let (watch, committed) = future::join(transaction.watch("a"), transaction.commit()).await;
    committed.unwrap();
    let mut watch = watch.unwrap();
    assert_waits(&mut watch).await;
    change(&database, |transaction| transaction.set("a", "4")).await;
    soon(watch).await.unwrap();

    // Whatever snapshots see.
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::SnapshotReadYourWritesDisabled).unwrap();
    transaction.set("a", "5").unwrap();
    let mut watch = transaction.watch("a").await.unwrap();
    transaction.commit().await.unwrap();
    assert_waits(&mut watch).await;

    let transaction = database.transaction();
    transaction.set_versionstamped_value("a", &[0; 10], 0).unwrap();
    let error = transaction.watch("a").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AccessedUnreadable);
}

#[tokio::test]
async fn a_change_before_the_commit_is_a_conflict() {
    let database = Database::memory().await.unwrap();
    let transaction = database.transaction();
    let watch = transaction.watch("a").await.unwrap();
    change(&database, |transaction| transaction.set("a", "1")).await;
    transaction.set("b", "1").unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotCommitted);
    assert_eq!(soon(watch).await.unwrap_err().code(), ErrorCode::NotCommitted);

    // Who writes nothing is not refused, and hears of it.
    let transaction = database.transaction();
    let watch = transaction.watch("a").await.unwrap();
    change(&database, |transaction| transaction.set("a", "2")).await;
    transaction.commit().await.unwrap();
    soon(watch).await.unwrap();
    // Nor is who knows the value by itself.
    let transaction = database.transaction();
    transaction.set("a", "3").unwrap();
    let watch = transaction.watch("a").await.unwrap();
    change(&database, |transaction| transaction.set("a", "4")).await;
    transaction.commit().await.unwrap();
    drop(watch);
}

#[tokio::test]
async fn it_fails_with_its_transaction() {
    let database = Database::memory().await.unwrap();
    let cancelled = async |watch: Watch| {
        let error = soon(watch).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::TransactionCancelled);
    };
    let transaction = database.transaction();
    let watch = transaction.watch("a").await.unwrap();
    transaction.reset();
    cancelled(watch).await;

    let watch = transaction.watch("a").await.unwrap();
    transaction.cancel();
    cancelled(watch).await;

    let transaction = database.transaction();
    let watch = transaction.watch("a").await.unwrap();
    drop(transaction);
    cancelled(watch).await;

    let transaction = database.transaction();
    transaction.get("c").await.unwrap();
    let watch = transaction.watch("a").await.unwrap();
    transaction.set("b", "1").unwrap();
    change(&database, |transaction| transaction.set("c", "1")).await;
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotCommitted);
    assert_eq!(soon(watch).await.unwrap_err().code(), ErrorCode::NotCommitted);
    transaction.on_error(error).await.unwrap();
    let watch = transaction.watch("a").await.unwrap();
    transaction.commit().await.unwrap();
    change(&database, |transaction| transaction.set("a", "2")).await;
    soon(watch).await.unwrap();

    let transaction = database.transaction();
    let watch = transaction.watch("a").await.unwrap();
    transaction.on_error(Error::new(ErrorCode::Internal, Stage::Client, "")).await.unwrap_err();
    cancelled(watch).await;
}

#[tokio::test]
async fn what_may_not_be_read_may_not_be_watched() {
    let database = Database::memory().await.unwrap();
    let transaction = database.transaction();
    let code = async |key: Vec<u8>| transaction.watch(key).await.unwrap_err().code();
    assert_eq!(code(b"\xffx".to_vec()).await, ErrorCode::KeyOutsideLegalRange);
    assert_eq!(code(vec![b'k'; limits::KEY_BYTES_MAX + 1]).await, ErrorCode::KeyTooLarge);
    transaction.set_option(TransactionOption::ReadSystemKeys).unwrap();
    drop(transaction.watch(b"\xffx").await.unwrap());
    drop(transaction.watch(vec![b'k'; limits::KEY_BYTES_MAX]).await.unwrap());

    let transaction = database.transaction();
    transaction.set_option(TransactionOption::ReadYourWritesDisabled).unwrap();
    let error = transaction.watch("a").await.unwrap_err();
    assert_eq!((error.code(), error.code().number()), (ErrorCode::WatchesDisabled, 1034));
}

#[tokio::test]
async fn it_outlives_transaction_handle_and_timeout() {
    let database = Database::memory().await.unwrap();
    let other = database.clone();
    let transaction = database.transaction();
    let timeout = TransactionOption::Timeout(Duration::from_millis(300));
    transaction.set_option(timeout).unwrap();
    let mut watch = transaction.watch("a").await.unwrap();
    transaction.commit().await.unwrap();
    drop((transaction, database));
    assert_waits(&mut watch).await;
    change(&other, |transaction| transaction.set("a", "1")).await;
    drop(other);
    soon(watch).await.unwrap();
}

#[tokio::test]
async fn it_fails_when_the_time_of_its_transaction_is_over() {
    let database = Database::memory().await.unwrap();
    let timeout = |milliseconds| TransactionOption::Timeout(Duration::from_millis(milliseconds));
    let timed_out = |watch: Watch| async {
        let error = soon(watch).await.unwrap_err();
        assert_eq!((error.code(), error.code().number()), (ErrorCode::TransactionTimedOut, 1031));
    };
    // At that time, and not at the end of the transaction.
    let began = runtime::now();
    let transaction = database.transaction();
    transaction.set_option(timeout(200)).unwrap();
    let (polled, looked_at, left) =
        future::try_join3(transaction.watch("a"), transaction.watch("a"), transaction.watch("a"))
            .await
            .unwrap();
    assert!(!polled.is_ready());
    timed_out(polled).await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(looked_at.is_ready());
    timed_out(looked_at).await;
    // Afterwards nothing else is to be heard of it.
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TransactionTimedOut);
    transaction.reset();
    timed_out(left).await;

    // The timeout may be set, or put off, while somebody waits.
    let mut watch = transaction.watch("a").await.unwrap();
    assert_waits(&mut watch).await;
    let put_off_and_set = async {
        transaction.set_option(timeout(1_000_000)).unwrap();
        tokio::task::yield_now().await;
        transaction.set_option(timeout(1)).unwrap();
    };
    let (error, ()) = future::join(soon(watch), put_off_and_set).await;
    assert_eq!(error.unwrap_err().code(), ErrorCode::TransactionTimedOut);

    // What is armed in time waits on, also if it was waited for before.
    let transaction = database.transaction();
    transaction.set_option(timeout(500)).unwrap();
    let mut watch = transaction.watch("a").await.unwrap();
    assert!(futures::poll!(&mut watch).is_pending());
    transaction.commit().await.unwrap();
    assert_waits(&mut watch).await;
    change(&database, |transaction| transaction.set("a", "1")).await;
    soon(watch).await.unwrap();
}

#[tokio::test]
async fn closing_ends_all() {
    let database = Database::memory().await.unwrap();
    let armed = watch(&database, "a").await;
    let transaction = database.transaction();
    let pending = transaction.watch("a").await.unwrap();
    transaction.commit().await.unwrap();
    database.close().await.unwrap();
    for watch in [armed, pending] {
        assert_eq!(soon(watch).await.unwrap_err().code(), ErrorCode::ShuttingDown);
    }
}

#[tokio::test]
async fn a_body_may_return_one() {
    let database = Database::memory().await.unwrap();
    for round in 0..20u8 {
        let watch = database
            .run_transaction(|transaction| async move {
                transaction.set("round", &[round])?;
                transaction.watch("round").await
            })
            .await
            .unwrap();
        let next = database.clone();
        let changed = async move {
            change(&next, |transaction| transaction.set("round", &[round + 1])).await;
        };
        let (watched, ()) = future::join(soon(watch), changed).await;
        watched.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_are_ready_and_no_more_are_allowed() {
    let database = Database::memory().await.unwrap();
    let count = limits::WATCHES_DEFAULT;
    let key = |index: usize| format!("many/{index:05}");
    let mut watches = Vec::new();
    while watches.len() < count {
        let transaction = database.transaction();
        let some =
            (watches.len()..watches.len() + 1_000).map(|index| transaction.watch(key(index)));
        watches.extend(future::try_join_all(some).await.unwrap());
        transaction.commit().await.unwrap();
    }
    let transaction = database.transaction();
    let error = transaction.watch("one more").await.unwrap_err();
    assert_eq!((error.code(), error.code().number()), (ErrorCode::TooManyWatches, 1032));
    drop(watches.pop());
    drop(transaction.watch("one more").await.unwrap());

    let began = runtime::now();
    change(&database, |transaction| {
        (0..count).step_by(2).try_for_each(|index| transaction.set(key(index), "x"))
    })
    .await;
    change(&database, |transaction| transaction.set("many/00001", "x")).await;
    let odd = watches.split_off(0).into_iter().enumerate();
    let (even, odd): (Vec<_>, Vec<_>) = odd.partition(|(index, _)| index % 2 == 0 || *index == 1);
    soon(future::try_join_all(even.into_iter().map(|(_, watch)| watch)).map_ok(drop))
        .await
        .unwrap();
    println!("half of them were ready after {:?}", began.elapsed());
    assert!(odd.iter().all(|(_, watch)| !watch.is_ready()));
    // There is room again.
    let transaction = database.transaction();
    let some = (0..count / 2).map(|_| transaction.watch("the same key"));
    let same = future::try_join_all(some).await.unwrap();
    transaction.commit().await.unwrap();
    change(&database, |transaction| {
        transaction.clear_range("many/".."many0")?;
        (0..count).step_by(3).try_for_each(|index| transaction.set(key(index), "y"))?;
        transaction.set("the same key", "x")
    })
    .await;
    soon(future::try_join_all(same).map_ok(drop)).await.unwrap();
    let changed = odd.into_iter().filter(|(index, _)| index % 3 == 0).map(|(_, watch)| watch);
    soon(future::try_join_all(changed).map_ok(drop)).await.unwrap();
}
