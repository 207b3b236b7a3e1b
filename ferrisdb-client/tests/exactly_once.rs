//! Commits whose answer is lost (I-6): applied once, not never and not twice.

#![expect(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::cell::Cell;

use fake::{Cluster, Fault};
use ferrisdb_client::{
    AsError, Database, Error, ErrorCode, ExactlyOnce, KeyRange, Settings, Stage, Transaction,
    TransactionOption, Value, Version,
};
use ferrisdb_core::{idempotency::records, transaction::CommitOutcome};

fn number(cluster: &Cluster) -> i64 {
    let found = cluster.data(KeyRange::single(&"n".into()));
    found.first().map_or(0, |(_, value)| i64::from_le_bytes(value.as_slice().try_into().unwrap()))
}

/// Adds one without reading, so that nothing but the record keeps two attempts apart. Returns which attempt of
/// the body the result is of.
async fn add_one(database: &Database, runs: &Cell<u32>) -> Result<u32, Error> {
    database
        .run_transaction(|transaction| async move {
            runs.set(runs.get() + 1);
            transaction.add("n", 1)?;
            Ok(runs.get())
        })
        .await
}

#[tokio::test]
async fn a_lost_answer_is_found_out() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseAnswer]);
    let runs = Cell::new(0);
    assert_eq!(add_one(&database, &runs).await.unwrap(), 1);
    assert_eq!((runs.get(), number(&cluster)), (1, 1));
}

#[tokio::test]
async fn a_lost_request_is_made_again() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseRequest, Fault::LoseRequest, Fault::LoseAnswer]);
    let runs = Cell::new(0);
    // The third attempt was committed: its result is returned, not that of another one.
    assert_eq!(add_one(&database, &runs).await.unwrap(), 3);
    assert_eq!((runs.get(), number(&cluster)), (3, 1));
}

#[tokio::test]
async fn the_record_of_an_earlier_use_of_the_id_is_not_taken_for_an_own_one() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let runs = Cell::new(0);
    for _ in 0..3 {
        add_one(&database, &runs).await.unwrap();
    }
    assert_eq!(cluster.data(records()).len(), 1, "the id was used again");
    // The record of the third transaction is there. The fourth must not believe that it is its own.
    cluster.faults([Fault::LoseRequest]);
    assert_eq!(add_one(&database, &runs).await.unwrap(), 5);
    assert_eq!(number(&cluster), 4);
    // And one that was committed finds its own in the place of the old one.
    cluster.faults([Fault::LoseAnswer]);
    assert_eq!(add_one(&database, &runs).await.unwrap(), 6);
    assert_eq!((runs.get(), number(&cluster)), (6, 5));
    database.close().await.unwrap();
    assert_eq!(cluster.data(records()), []);
}

#[tokio::test]
async fn nor_by_an_attempt_that_reads_before_that_record() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    add_one(&database, &Cell::new(0)).await.unwrap();
    // The first attempt draws the id and conflicts, the second one reads at an old version and is lost.
    cluster.faults([Fault::None, Fault::None, Fault::LoseRequest]);
    let (runs, other) = (&Cell::new(0), &database);
    let done = database.run_transaction(|transaction| async move {
        runs.set(runs.get() + 1);
        match runs.get() {
            1 => {
                transaction.get("n").await?;
                let overtakes = other.transaction();
                overtakes.add("n", 1)?;
                overtakes.commit().await?;
            }
            2 => transaction.set_read_version(Version(1000))?,
            _ => {}
        }
        transaction.add("n", 1)
    });
    done.await.unwrap();
    assert_eq!((runs.get(), number(&cluster)), (3, 3));
}

#[tokio::test]
async fn an_attempt_after_one_in_doubt_may_set_all_options() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseRequest]);
    let runs = &Cell::new(0);
    let done = database.run_transaction(|transaction| async move {
        runs.set(runs.get() + 1);
        transaction.set_option(TransactionOption::ReadYourWritesDisabled)?;
        transaction.add("n", 1)
    });
    done.await.unwrap();
    assert_eq!((runs.get(), number(&cluster)), (2, 1));
}

#[tokio::test]
async fn a_late_request_conflicts_with_the_attempt_after_it() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::Hold]);
    let runs = Cell::new(0);
    assert_eq!(add_one(&database, &runs).await.unwrap(), 2);
    // Even after the record was cleared by another transaction.
    add_one(&database, &runs).await.unwrap();
    assert!(matches!(cluster.deliver_held()[..], [CommitOutcome::Conflict(_)]));
    assert_eq!(number(&cluster), 2);
}

#[tokio::test]
async fn an_attempt_conflicts_with_a_late_request_before_it() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    // The second attempt has looked for the record before the first one arrives.
    cluster.faults([Fault::Hold, Fault::DeliverHeldFirst]);
    let runs = Cell::new(0);
    assert_eq!(add_one(&database, &runs).await.unwrap(), 1);
    assert_eq!((runs.get(), number(&cluster)), (2, 1));
}

#[derive(Debug, PartialEq)]
enum Refused {
    ByBody,
    ByDatabase(ErrorCode),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::ByDatabase(error.code())
    }
}

impl AsError for Refused {
    fn as_error(&self) -> Option<&Error> {
        None
    }
}

/// Adds one at the first attempt, and does not want to at any other.
async fn add_once_then(
    database: &Database,
    then: impl Fn(&Transaction) -> Result<&'static str, Refused>,
) -> Result<&'static str, Refused> {
    let (runs, then) = (&Cell::new(0), &then);
    database
        .run_transaction(|transaction| async move {
            runs.set(runs.get() + 1);
            if runs.get() > 1 {
                return then(&transaction);
            }
            transaction.add("n", 1)?;
            Ok("added")
        })
        .await
}

#[tokio::test]
async fn giving_up_keeps_a_late_request_out() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::Hold]);
    let outcome = add_once_then(&database, |_| Err(Refused::ByBody)).await;
    assert_eq!(outcome, Err(Refused::ByBody));
    assert!(matches!(cluster.deliver_held()[..], [CommitOutcome::Conflict(_)]));
    assert_eq!(number(&cluster), 0);

    // If it arrives in time, it counts, and nothing was given up.
    cluster.faults([Fault::Hold, Fault::DeliverHeldFirst]);
    let outcome = add_once_then(&database, |_| Err(Refused::ByBody)).await;
    assert_eq!((outcome, number(&cluster)), (Ok("added"), 1));

    // The empty commit that keeps it out may lose its answer as well.
    cluster.faults([Fault::Hold, Fault::LoseAnswer]);
    let outcome = add_once_then(&database, |_| Err(Refused::ByBody)).await;
    assert_eq!((outcome, number(&cluster)), (Err(Refused::ByBody), 1));
}

#[tokio::test]
async fn an_attempt_that_only_reads_keeps_a_late_request_out() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::Hold]);
    assert_eq!(add_once_then(&database, |_| Ok("nothing to do")).await, Ok("nothing to do"));
    assert!(matches!(cluster.deliver_held()[..], [CommitOutcome::Conflict(_)]));
    assert_eq!(number(&cluster), 0);
}

#[tokio::test]
async fn a_limit_of_retries_never_hides_an_unknown_result() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseAnswer]);
    let limited: Result<(), Error> = database
        .run_transaction(|transaction| async move {
            transaction.set_option(TransactionOption::RetryLimit(Some(0)))?;
            transaction.add("n", 1)
        })
        .await;
    assert_eq!(limited.unwrap_err().code(), ErrorCode::CommitUnknownResult);
    assert_eq!(number(&cluster), 1);
}

#[tokio::test]
async fn without_ids_the_unknown_result_is_the_callers() {
    let cluster = Cluster::new();
    let settings = Settings { exactly_once: ExactlyOnce::Refuse, ..Settings::default() };
    let database = cluster.connect_with(settings).await;
    cluster.faults([Fault::LoseAnswer]);
    let runs = Cell::new(0);
    let error = add_one(&database, &runs).await.unwrap_err();
    assert_eq!((error.code(), runs.get()), (ErrorCode::CommitUnknownResult, 1));
    add_one(&database, &runs).await.unwrap();
    assert_eq!(cluster.data(records()), []);
}

#[tokio::test]
async fn a_transaction_by_hand_has_no_id_unless_asked() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    cluster.faults([Fault::LoseAnswer]);
    transaction.add("n", 1).unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::CommitUnknownResult);
    transaction.on_error(error).await.unwrap();
    assert_eq!(cluster.data(records()), []);

    // With an id, the commit itself finds out what became of it.
    cluster.faults([Fault::LoseAnswer]);
    transaction.set_option(TransactionOption::IdempotencyId(5)).unwrap();
    transaction.add("n", 1).unwrap();
    let committed = transaction.commit().await.unwrap();
    let written = database.transaction().get_versioned("n").await.unwrap();
    assert_eq!(written.unwrap().commit_version, Some(committed.version), "its true version");
    assert_eq!(number(&cluster), 2);
}

/// Adds one as loops of FoundationDB's bindings do: the option is set in each attempt. Returns how many there were.
async fn add_one_in_a_loop(transaction: &Transaction) -> Result<u32, Error> {
    let mut attempts = 1;
    loop {
        transaction.set_option(TransactionOption::AutomaticIdempotency)?;
        transaction.add("n", 1)?;
        match transaction.commit().await {
            Ok(_) => return Ok(attempts),
            Err(error) => transaction.on_error(error).await?,
        }
        attempts += 1;
    }
}

#[tokio::test]
async fn an_option_in_the_body_of_a_loop_draws_one_id() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    for (fault, attempts) in [(Fault::LoseAnswer, 1), (Fault::LoseRequest, 2), (Fault::Hold, 2)] {
        for _ in 0..10 {
            cluster.faults([fault]);
            let transaction = database.transaction();
            assert_eq!(add_one_in_a_loop(&transaction).await.unwrap(), attempts, "{fault:?}");
            assert!(transaction.committed_version().is_some());
        }
    }
    let late = cluster.deliver_held();
    assert!(late.iter().all(|outcome| matches!(outcome, CommitOutcome::Conflict(_))), "{late:?}");
    assert_eq!((late.len(), number(&cluster)), (10, 30));
    // As a default of all transactions it is the same.
    database.set_default(TransactionOption::AutomaticIdempotency).unwrap();
    for fault in [Fault::LoseAnswer, Fault::LoseRequest] {
        cluster.faults([fault]);
        let transaction = database.transaction();
        transaction.add("n", 1).unwrap();
        while let Err(error) = transaction.commit().await {
            transaction.on_error(error).await.unwrap();
            transaction.add("n", 1).unwrap();
        }
    }
    assert_eq!(number(&cluster), 32);
    // Ids are used again, so there are few records.
    assert!(cluster.data(records()).len() < 5);
}

#[tokio::test]
async fn a_commit_that_arrives_before_the_fence_counts() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::Hold, Fault::DeliverHeldFirst]);
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::IdempotencyId(5)).unwrap();
    transaction.set_versionstamped_value("stamp", vec![0; 10], 0).unwrap();
    let stamp = transaction.versionstamp();
    let committed = transaction.commit().await.unwrap();
    let written = database.transaction().get_versioned("stamp").await.unwrap().unwrap();
    assert_eq!(written.commit_version, Some(committed.version));
    let stamp = stamp.await.unwrap();
    assert_eq!(written.value, Value::from(&stamp.to_bytes()));
    assert_eq!(committed.versionstamp, Some(stamp));
}

#[tokio::test]
async fn the_fence_may_lose_its_answer_too() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseAnswer, Fault::LoseRequest, Fault::LoseAnswer]);
    let transaction = database.transaction();
    assert_eq!(add_one_in_a_loop(&transaction).await.unwrap(), 1);
    cluster.faults([Fault::LoseRequest, Fault::LoseAnswer, Fault::LoseRequest]);
    assert_eq!(add_one_in_a_loop(&database.transaction()).await.unwrap(), 2);
    assert_eq!(number(&cluster), 2);
}

#[tokio::test]
async fn an_attempt_after_one_in_doubt_may_name_its_version() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseRequest]);
    let runs = &Cell::new(0);
    let done = database.run_transaction(|transaction| async move {
        runs.set(runs.get() + 1);
        transaction.set_read_version(Version(1000))?;
        transaction.add("n", 1)
    });
    done.await.unwrap();
    assert_eq!((runs.get(), number(&cluster)), (2, 1));

    // Even a version at which the earlier attempt has arrived after all: the result is that attempt's.
    cluster.faults([Fault::Hold]);
    let (runs, cluster) = (&Cell::new(0), &cluster);
    let done = database.run_transaction(|transaction| async move {
        runs.set(runs.get() + 1);
        if runs.get() == 2 {
            cluster.deliver_held();
            transaction.set_read_version(cluster.newest_version())?;
        }
        transaction.add("n", 1)?;
        Ok::<_, Error>(runs.get())
    });
    assert_eq!(done.await.unwrap(), 1);
    assert_eq!((runs.get(), number(cluster)), (2, 2));
}

#[tokio::test]
async fn a_commit_on_its_way_is_found_whatever_the_error_is_about() {
    let options = [TransactionOption::AutomaticIdempotency, TransactionOption::IdempotencyId(7)];
    for option in options {
        let cluster = Cluster::new();
        let database = cluster.connect().await;
        cluster.faults([Fault::Wait]);
        let transaction = database.transaction();
        transaction.set_option(option.clone()).unwrap();
        transaction.add("n", 1).unwrap();
        let mut commit = Box::pin(transaction.commit());
        while cluster.counts().commits == 0 {
            assert!(futures::poll!(&mut commit).is_pending());
            tokio::task::yield_now().await;
        }
        // Of a read whose error nobody has looked at before.
        let late = Error::new(ErrorCode::FutureVersion, Stage::Read, "");
        transaction.on_error(late).await.unwrap();
        cluster.go_on();
        let _ = commit.await;
        // Others must neither use its id nor clear its record meanwhile.
        for _ in 0..3 {
            let other = database.transaction();
            other.set_option(TransactionOption::AutomaticIdempotency).unwrap();
            other.set("other", "").unwrap();
            other.commit().await.unwrap();
        }
        transaction.set_option(option).unwrap();
        transaction.add("n", 1).unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(number(&cluster), 1);
    }
}

#[tokio::test]
async fn an_answer_after_a_reset_leaves_the_next_id_alone() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::AutomaticIdempotency).unwrap();
    transaction.add("n", 1).unwrap();
    cluster.faults([Fault::Wait]);
    let next = async {
        while cluster.counts().commits == 0 {
            tokio::task::yield_now().await;
        }
        transaction.reset();
        transaction.set_option(TransactionOption::IdempotencyId(5)).unwrap();
        transaction.add("n", 1).unwrap();
        cluster.go_on();
    };
    let (earlier, ()) = futures::join!(transaction.commit(), next);
    earlier.unwrap();
    transaction.commit().await.unwrap();
    let record = ferrisdb_core::idempotency::record_key(5);
    assert_eq!(cluster.data(KeyRange::single(&record)).len(), 1, "it was committed with its id");
}

#[tokio::test]
async fn an_unknown_commit_by_hand_does_not_take_effect_later() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    for risky in [false, true] {
        let transaction = database.transaction();
        if risky {
            transaction.set_option(TransactionOption::CausalWriteRisky).unwrap();
        }
        transaction.add("n", 1).unwrap();
        cluster.faults([Fault::Hold]);
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::CommitUnknownResult);
        let arrived = cluster.deliver_held();
        assert_eq!(matches!(arrived[..], [CommitOutcome::Committed(_)]), risky, "{arrived:?}");
    }
    assert_eq!(number(&cluster), 1);
}

#[tokio::test]
async fn records_are_cleared_by_later_transactions() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let runs = Cell::new(0);
    for _ in 0..20 {
        add_one(&database, &runs).await.unwrap();
    }
    assert_eq!(cluster.data(records()).len(), 1);
    database.clone().close().await.unwrap();
    assert_eq!(cluster.data(records()), []);
    // One that only reads leaves none, and needs no commit.
    let commits = cluster.counts().commits;
    let read: Option<Value> = database
        .run_transaction(|transaction| async move { transaction.get("n").await })
        .await
        .unwrap();
    assert_eq!(read, Some(Value::from(&20i64.to_le_bytes())));
    assert_eq!(cluster.counts().commits, commits);
}

#[tokio::test]
async fn a_result_whose_record_may_be_swept_stays_unknown() {
    for (fault, committed) in [(Fault::LoseAnswerThenSweep, 1), (Fault::LoseRequestThenSweep, 0)] {
        let cluster = Cluster::new();
        let database = cluster.connect().await;
        cluster.faults([fault]);
        let runs = Cell::new(0);
        let error = add_one(&database, &runs).await.unwrap_err();
        assert_eq!((error.code(), runs.get()), (ErrorCode::CommitUnknownResult, 1), "{fault:?}");
        assert_eq!((number(&cluster), cluster.counts().commits), (committed, 1), "{fault:?}");

        // Also for the body that would have given up.
        cluster.faults([Fault::LoseRequest, fault]);
        let outcome = add_once_then(&database, |_| Err(Refused::ByBody)).await;
        let unknown = Err(Refused::ByDatabase(ErrorCode::CommitUnknownResult));
        assert_eq!((outcome, number(&cluster)), (unknown, committed), "{fault:?}");
    }
}

#[tokio::test]
async fn by_hand_a_result_whose_record_may_be_swept_ends_the_retries() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseAnswerThenSweep]);
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::IdempotencyId(5)).unwrap();
    transaction.add("n", 1).unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::CommitUnknownResult);
    let error = transaction.on_error(error).await.unwrap_err();
    assert_eq!((error.code(), number(&cluster)), (ErrorCode::CommitUnknownResult, 1));
    // It is another transaction after a reset.
    transaction.reset();
    transaction.add("n", 1).unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(number(&cluster), 2);
}

#[tokio::test]
async fn what_was_swept_before_an_attempt_does_not_concern_it() {
    let cluster = Cluster::new();
    add_one(&cluster.connect().await, &Cell::new(0)).await.unwrap();
    cluster.sweep();
    assert_eq!(cluster.data(records()), []);
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseRequest, Fault::LoseAnswer]);
    let runs = Cell::new(0);
    assert_eq!(add_one(&database, &runs).await.unwrap(), 2);
    assert_eq!(number(&cluster), 2);
}

#[tokio::test]
async fn writes_without_reads_share_the_versions_that_were_heard_of() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    let runs = Cell::new(0);
    for _ in 0..5 {
        add_one(&database, &runs).await.unwrap();
    }
    assert_eq!((number(&cluster), cluster.counts().read_versions), (5, 1));

    // An old version keeps two attempts apart just as well, whichever arrives first.
    cluster.faults([Fault::Hold]);
    add_one(&database, &runs).await.unwrap();
    add_one(&database, &runs).await.unwrap();
    assert!(matches!(cluster.deliver_held()[..], [CommitOutcome::Conflict(_)]));
    assert_eq!(number(&cluster), 7);
    cluster.faults([Fault::Hold, Fault::DeliverHeldFirst]);
    add_one(&database, &runs).await.unwrap();
    assert_eq!(number(&cluster), 8);

    // Whoever has named what it depends on gets a version of its own. A stamped key depends on nothing: its conflict is the one
    // key that it becomes.
    let asked = cluster.counts().read_versions;
    let transaction = database.transaction();
    transaction.add_read_conflict_range(KeyRange::new("a", "b")).unwrap();
    transaction.add("n", 1).unwrap();
    transaction.commit().await.unwrap();
    let transaction = database.transaction();
    transaction.set_versionstamped_key([b"log/", &[0; 10][..]].concat(), 4, "").unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(cluster.counts().read_versions, asked + 1);
}

#[tokio::test]
async fn a_watch_belongs_to_the_attempt_that_was_committed() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    for (faults, attempts) in [(vec![Fault::LoseAnswer], 1), (vec![Fault::LoseRequest], 2)] {
        cluster.faults(faults);
        let runs = &Cell::new(0);
        let watched = database.run_transaction(|transaction| async move {
            runs.set(runs.get() + 1);
            transaction.add("n", 1)?;
            transaction.watch("n").await
        });
        let watch = watched.await.unwrap();
        assert_eq!(runs.get(), attempts);
        assert!(!watch.is_ready(), "{watch:?}");
        add_one(&database, &Cell::new(0)).await.unwrap();
        // No server watches: the key is read every now and then.
        watch.await.unwrap();
    }
}

#[tokio::test]
async fn a_watch_of_a_commit_in_doubt_fails() {
    let cluster = Cluster::new();
    let database = cluster.connect().await;
    cluster.faults([Fault::LoseRequest]);
    let transaction = database.transaction();
    transaction.set("n", "1").unwrap();
    let watch = transaction.watch("n").await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::CommitUnknownResult);
    assert!(watch.is_ready());
    transaction.on_error(error).await.unwrap();
    assert_eq!(watch.await.unwrap_err().code(), ErrorCode::CommitUnknownResult);

    // With an id there is no doubt.
    for (fault, is_committed) in [(Fault::LoseRequest, false), (Fault::LoseAnswer, true)] {
        cluster.faults([fault]);
        let transaction = database.transaction();
        transaction.set_option(TransactionOption::AutomaticIdempotency).unwrap();
        transaction.set("n", "2").unwrap();
        let watch = transaction.watch("n").await.unwrap();
        let committed = transaction.commit().await;
        assert_eq!((committed.is_ok(), watch.is_ready()), (is_committed, !is_committed));
    }
}
