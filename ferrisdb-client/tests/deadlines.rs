//! Whatever waits has an end (I-17): the deadline of its transaction, wherever that moves, or the end of its cause.

#![expect(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::time::Duration;

use fake::{Cluster, Fault};
use ferrisdb_client::{
    Address, ControllerMember, Database, Error, ErrorCode, Settings, Transaction,
    TransactionOption, Version,
};
use ferrisdb_core::runtime;
use futures::{FutureExt as _, future};

/// Far longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

/// Settings of somebody who leaves all limits to timeouts of transactions, as the C library does.
fn patient() -> Settings {
    Settings {
        connect_limit: LONG,
        read_version_limit: LONG,
        read_limit: LONG,
        commit_limit: LONG,
        ..Settings::default()
    }
}

fn time_is_over(transaction: &Transaction) {
    transaction.set_option(TransactionOption::Timeout(Duration::from_nanos(1))).unwrap();
}

/// Polls `work` until it waits, lets the transaction's time be over, and returns how it ends.
async fn ends_with<T>(
    transaction: &Transaction,
    work: impl Future<Output = Result<T, Error>>,
) -> ErrorCode {
    let mut work = Box::pin(work);
    for _ in 0..10 {
        assert!((&mut work).now_or_never().is_none(), "it waits");
        tokio::task::yield_now().await;
    }
    time_is_over(transaction);
    work.await.err().expect("the time is over").code()
}

#[tokio::test]
async fn a_timeout_set_late_ends_what_waits() {
    let cluster = Cluster::new();
    let database = cluster.connect_with(patient()).await;
    database.transaction().get("k").await.unwrap();
    cluster.stop_proxy(100);
    let begin = || database.transaction();
    let transaction = begin();
    assert_eq!(
        ends_with(&transaction, transaction.read_version()).await,
        ErrorCode::TransactionTimedOut
    );
    let transaction = begin();
    assert_eq!(ends_with(&transaction, transaction.get("k")).await, ErrorCode::TransactionTimedOut);
    let transaction = begin();
    let rows = transaction.get_range("a".."b");
    assert_eq!(ends_with(&transaction, rows).await, ErrorCode::TransactionTimedOut);
    let transaction = begin();
    let watch = transaction.watch("k");
    assert_eq!(ends_with(&transaction, watch).await, ErrorCode::TransactionTimedOut);
    let transaction = begin();
    let stamp = transaction.versionstamp();
    assert_eq!(ends_with(&transaction, stamp).await, ErrorCode::TransactionTimedOut);
    let transaction = begin();
    let size = transaction.estimated_range_size("a".."b");
    assert_eq!(ends_with(&transaction, size).await, ErrorCode::TransactionTimedOut);
    // Nothing was sent: it is certain that nothing was committed.
    let transaction = begin();
    transaction.set("k", "v").unwrap();
    let commit = transaction.commit();
    assert_eq!(ends_with(&transaction, commit).await, ErrorCode::TransactionTimedOut);
    assert!(transaction.is_timed_out());
    // The wait before the next attempt.
    let transaction = begin();
    let error = Error::new(ErrorCode::TooBusy, ferrisdb_client::Stage::Client, "");
    transaction.set_option(TransactionOption::RetryDelayMax(LONG)).unwrap();
    for _ in 0..40 {
        // It doubles each time.
        let _ = transaction.on_error(error.clone()).now_or_never();
    }
    let retry = transaction.on_error(error);
    assert_eq!(ends_with(&transaction, retry).await, ErrorCode::TransactionTimedOut);
}

#[tokio::test]
async fn a_commit_on_its_way_when_the_time_is_over_is_in_doubt() {
    let cluster = Cluster::new();
    let database = cluster.connect_with(patient()).await;
    for option in [None, Some(TransactionOption::AutomaticIdempotency)] {
        cluster.faults([Fault::Wait]);
        let transaction = database.transaction();
        option.into_iter().for_each(|option| transaction.set_option(option).unwrap());
        transaction.set("k", "v").unwrap();
        let before = cluster.counts().commits;
        let late = async {
            while cluster.counts().commits == before {
                tokio::task::yield_now().await;
            }
            time_is_over(&transaction);
        };
        let (committed, ()) = futures::join!(transaction.commit(), late);
        assert_eq!(committed.unwrap_err().code(), ErrorCode::CommitUnknownResult);
        cluster.go_on();
    }
}

#[tokio::test]
async fn reads_end_when_their_transaction_does() {
    let cluster = Cluster::new();
    let database = cluster.connect_with(patient()).await;
    cluster.stop_proxy(100);
    let ends: [fn(&Transaction); 2] = [Transaction::reset, Transaction::cancel];
    for end in ends {
        let transaction = database.transaction();
        let mut read = Box::pin(transaction.get("k"));
        assert!((&mut read).now_or_never().is_none());
        end(&transaction);
        assert_eq!(read.await.unwrap_err().code(), ErrorCode::TransactionCancelled);
    }
}

#[tokio::test]
async fn a_commit_does_not_wait_for_a_read_that_nobody_polls() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    for is_overtaken in [false, true] {
        let transaction = database.transaction();
        transaction.read_version().await.unwrap();
        let mut read = Box::pin(transaction.get("other"));
        let mut rows = Box::pin(transaction.get_range("p".."q"));
        assert!((&mut read).now_or_never().is_none());
        let seen = (&mut rows).now_or_never();
        // One that is given up is none.
        drop(Box::pin(transaction.get("given up")).now_or_never());
        for key in ["other", "given up"] {
            let others = database.transaction();
            if is_overtaken || key != "other" {
                others.set(key, "changed").unwrap();
            }
            others.commit().await.unwrap();
        }
        transaction.set("k", "v").unwrap();
        let committed = transaction.commit().await;
        // What it saw is part of the transaction all the same.
        assert_eq!(committed.is_err(), is_overtaken, "{committed:?}");
        assert_eq!(read.await.unwrap(), None);
        let rows = match seen {
            Some(rows) => rows,
            None => rows.await,
        };
        assert_eq!(rows.unwrap(), []);
    }
}

#[tokio::test]
async fn an_error_of_a_read_that_nobody_has_heard_of_fails_the_commit() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    transaction.set_read_version(Version(1 << 62)).unwrap();
    transaction.set("k", "v").unwrap();
    let mut read = Box::pin(transaction.get("other"));
    assert!((&mut read).now_or_never().is_none());
    let committed = transaction.commit().await;
    assert_eq!(committed.unwrap_err().code(), ErrorCode::FutureVersion);
    assert_eq!(read.await.unwrap_err().code(), ErrorCode::FutureVersion);
    // One that fails while the commit waits for it does so, too, whoever of the two is polled first.
    for read_is_first in [false, true] {
        let transaction = database.transaction();
        transaction.set_read_version(Version(1 << 62)).unwrap();
        transaction.set("k", "v").unwrap();
        let mut read = Box::pin(transaction.get("other"));
        assert!((&mut read).now_or_never().is_none());
        let (read, committed) = match read_is_first {
            true => future::join(read, transaction.commit()).await,
            false => {
                let (committed, read) = future::join(transaction.commit(), read).await;
                (read, committed)
            }
        };
        assert_eq!(committed.unwrap_err().code(), ErrorCode::FutureVersion, "{read_is_first}");
        assert_eq!(read.unwrap_err().code(), ErrorCode::FutureVersion, "{read_is_first}");
    }
    // Whoever has heard of it decides.
    let transaction = database.transaction();
    transaction.set_versionstamped_value("k", vec![0; 10], 0).unwrap();
    assert!(transaction.get("k").await.is_err());
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_commit_that_has_failed_with_a_read_waits_for_no_other() {
    let cluster = Cluster::new();
    let database = cluster.connect_with(patient()).await;
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::FailedReadsFailCommit).unwrap();
    transaction.read_version().await.unwrap();
    for tag in [0, 1] {
        cluster.stop_storage(tag);
    }
    let (mut read, mut watch) = (Box::pin(transaction.get("r")), Box::pin(transaction.watch("w")));
    assert!((&mut read).now_or_never().is_none() && (&mut watch).now_or_never().is_none());
    transaction.set_versionstamped_value("k", vec![0; 10], 0).unwrap();
    assert!(transaction.get("k").await.is_err());
    let committed = transaction.commit().now_or_never().expect("it waits for nothing");
    assert_eq!(committed.unwrap_err().code(), ErrorCode::AccessedUnreadable);
    // The others go on; a watch that nothing can arm any more hears why.
    for tag in [0, 1] {
        cluster.start_storage(tag);
    }
    assert_eq!(read.await.unwrap(), None);
    assert_eq!(watch.await.unwrap_err().code(), ErrorCode::AccessedUnreadable);
}

#[tokio::test]
async fn a_read_that_nobody_polls_holds_up_no_other() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    // The first one asks for the read version, and is left alone at that.
    let mut left = Box::pin(transaction.get("a"));
    assert!((&mut left).now_or_never().is_none());
    assert_eq!(transaction.get("b").await.unwrap(), None);
    assert_eq!(left.await.unwrap(), None);
}

#[tokio::test]
async fn the_timeout_of_a_commit_bounds_the_reads_before_it() {
    let cluster = Cluster::new();
    let database = cluster.connect_with(patient()).await;
    cluster.stop_proxy(100);
    let transaction = database.transaction();
    let mut read = Box::pin(transaction.get("k"));
    assert!((&mut read).now_or_never().is_none());
    transaction.set("k", "v").unwrap();
    let commit = transaction.commit();
    assert_eq!(ends_with(&transaction, commit).await, ErrorCode::TransactionTimedOut);
}

#[tokio::test]
async fn special_keys_that_need_the_cluster_have_a_deadline() {
    let nobody = Database::connect_lazily("127.0.0.1:1".parse().unwrap(), patient()).unwrap();
    let transaction = nobody.transaction();
    let value = transaction.get(b"\xff\xff/cluster_id");
    assert_eq!(ends_with(&transaction, value).await, ErrorCode::TransactionTimedOut);
}

#[tokio::test]
async fn a_watch_ends_when_another_cluster_has_taken_the_place() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    let mut watch = transaction.watch("k").await.unwrap();
    transaction.commit().await.unwrap();
    assert!((&mut watch).now_or_never().is_none());
    cluster.become_another();
    assert_eq!(watch.await.unwrap_err().code(), ErrorCode::WrongCluster);
}

#[tokio::test]
async fn one_stranger_among_the_controllers_ends_no_watch() {
    let cluster = Cluster::new();
    cluster.add_stranger("elsewhere");
    let members = [(1, "fake"), (2, "elsewhere")];
    let members =
        members.map(|(node, address)| ControllerMember { node, address: Address::new(address) });
    cluster.change_state(|state| state.controllers = members.to_vec());
    let database = cluster.connect().await;
    let transaction = database.transaction();
    let mut watch = transaction.watch("k").await.unwrap();
    transaction.commit().await.unwrap();
    runtime::sleep(Duration::from_millis(100)).await;
    for tag in [0, 1] {
        cluster.stop_storage(tag);
        runtime::sleep(Duration::from_millis(100)).await;
        cluster.start_storage(tag);
    }
    runtime::sleep(Duration::from_millis(100)).await;
    assert!((&mut watch).now_or_never().is_none());
    let change = |transaction: Transaction| async move { transaction.set("k", "v") };
    database.run_transaction(change).await.unwrap();
    watch.await.unwrap();
}

#[test]
fn a_watch_outlives_the_runtime_that_it_was_armed_in_while_it_is_awaited_in_another() {
    let (first, second) = (runtime(), runtime());
    let (cluster, database, watch) = first.block_on(async {
        let cluster = Cluster::new();
        let database = cluster.connect().await;
        let transaction = database.transaction();
        let watch = transaction.watch("k").await.unwrap();
        transaction.commit().await.unwrap();
        (cluster, database, watch)
    });
    let watching = second.spawn(watch);
    second.block_on(tokio::task::yield_now());
    drop(first);
    second.block_on(async {
        database
            .run_transaction(|transaction| async move { transaction.set("k", "v") })
            .await
            .unwrap();
        let limit = Duration::from_secs(10);
        let watched = runtime::timeout(limit, ferrisdb_client::Stage::Client, watching).await;
        watched.expect("it is seen to").unwrap().unwrap();
    });
    drop(cluster);
}

/// A runtime, as programs make them.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_handle_outlives_the_runtime_that_it_was_made_in() {
    let first = runtime();
    let cluster = first.block_on(async { Cluster::new() });
    let (database, watch) = first.block_on(async {
        let database = cluster.connect().await;
        let transaction = database.transaction();
        let mut watch = transaction.watch("k").await.unwrap();
        transaction.commit().await.unwrap();
        assert!((&mut watch).now_or_never().is_none());
        (database, watch)
    });
    drop(first);
    // There is a new generation, of which only the next runtime can hear.
    cluster.stop_proxy(100);
    cluster.start_proxy(101);
    cluster.change_state(|state| {
        state.generation = ferrisdb_client::Generation(2);
        let coordinator = state.coordinator.as_mut().unwrap();
        coordinator.proxies[0].instance = 101;
    });
    runtime().block_on(async {
        database
            .run_transaction(|transaction| async move { transaction.set("k", "v") })
            .await
            .unwrap();
        watch.await.unwrap();
    });
}
