//! Directories as their users see them: many at the same time, and against the simplest tree that does the same.

#![cfg(all(feature = "embedded", not(madsim)))]
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "directory/model.rs"]
mod model;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ferrisdb_client::{
    Database, Error, ErrorCode, Subspace,
    directory::{
        CreateOptions, DirectoryError, DirectoryLayer, HighContentionAllocator, PARTITION,
    },
};
use ferrisdb_core::runtime;
use futures::{channel::oneshot, future};
use parking_lot::Mutex;
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, TestRunner},
};

/// Runs a job in each of several tasks, at the same time, to their ends.
async fn in_tasks<F>(tasks: usize, job: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (running, ended): (Vec<_>, Vec<_>) = (0..tasks)
        .map(|task| {
            let (end, ended) = oneshot::channel();
            let job = job(task);
            let run = async move {
                job.await;
                let _ = end.send(());
            };
            (runtime::spawn(run), ended)
        })
        .unzip();
    for ended in ended {
        ended.await.expect("the task panicked");
    }
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_allocations_at_the_same_time_are_distinct_and_hardly_conflict() {
    const TASKS: usize = 10;
    const EACH: usize = 60;
    let database = Database::memory().await.unwrap();
    let allocator = HighContentionAllocator::new(&Subspace::from_prefix("ids"));
    let given = Arc::new(Mutex::new(Vec::new()));
    let conflicts = Arc::new(AtomicUsize::new(0));
    let (database_of_task, given_of_task, conflicts_of_task) =
        (database.clone(), Arc::clone(&given), Arc::clone(&conflicts));
    in_tasks(TASKS, move |_| {
        let (database, allocator) = (database_of_task.clone(), allocator.clone());
        let (given, conflicts) = (Arc::clone(&given_of_task), Arc::clone(&conflicts_of_task));
        async move {
            for _ in 0..EACH {
                let transaction = database.transaction();
                loop {
                    let id = allocator.allocate(&transaction).await.unwrap();
                    match transaction.commit().await {
                        Ok(_) => {
                            given.lock().push(id);
                            break;
                        }
                        Err(error) => {
                            assert_eq!(error.code(), ErrorCode::NotCommitted, "{error}");
                            conflicts.fetch_add(1, Ordering::Relaxed);
                            transaction.on_error(error).await.unwrap();
                        }
                    }
                }
            }
        }
    })
    .await;
    let given = given.lock().clone();
    let distinct: BTreeSet<_> = given.iter().collect();
    assert_eq!(distinct.len(), TASKS * EACH);
    // Short ones: numbers below 64 + 1024, one or two bytes and the code.
    assert!(given.iter().all(|id| id.len() <= 3), "{given:?}");
    let conflicts = conflicts.load(Ordering::Relaxed);
    println!("{conflicts} conflicts in {} allocations", TASKS * EACH);
    assert!(conflicts < TASKS * EACH / 10, "{conflicts} conflicts");
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_are_created_at_the_same_time() {
    let database = Database::memory().await.unwrap();
    let prefixes = Arc::new(Mutex::new(BTreeSet::new()));
    let (database_of_task, prefixes_of_task) = (database.clone(), Arc::clone(&prefixes));
    in_tasks(8, move |task| {
        let (database, prefixes) = (database_of_task.clone(), Arc::clone(&prefixes_of_task));
        async move {
            for number in 0..30 {
                // Half of the paths are everybody's.
                let name = if number % 2 == 0 { "shared".into() } else { format!("task {task}") };
                let path = [name, number.to_string()];
                let directory = database
                    .run_transaction(|transaction| {
                        let path = path.clone();
                        async move { DirectoryLayer::new().create_or_open(&transaction, path).await }
                    })
                    .await
                    .unwrap();
                let prefix = directory.prefix().unwrap().clone();
                prefixes.lock().insert((path, prefix));
            }
        }
    })
    .await;
    let found = prefixes.lock().clone();
    // Each path has one prefix, and each prefix one path.
    assert_eq!(found.len(), 15 + 8 * 15);
    let distinct: BTreeSet<_> = found.iter().map(|(_, prefix)| prefix).collect();
    assert_eq!(distinct.len(), found.len());
    let transaction = database.transaction();
    assert_eq!(DirectoryLayer::new().list(&transaction, ()).await.unwrap().len(), 9);
    database.close().await.unwrap();
}

#[tokio::test]
async fn operations_of_one_transaction_see_each_other() {
    let database = Database::memory().await.unwrap();
    let layer = &DirectoryLayer::new();
    for round in 0..10 {
        let path = |rest: &'static str| {
            let names = rest.split('/').filter(|name| !name.is_empty()).map(str::to_string);
            std::iter::once(format!("round {round}")).chain(names).collect::<Vec<_>>()
        };
        let transaction = &database.transaction();
        let create = |rest| layer.create_or_open(transaction, path(rest));
        // Two of one path, and children of one parent that is not there yet.
        let (one, two) = future::try_join(create("x"), create("x")).await.unwrap();
        assert_eq!(one.prefix().unwrap(), two.prefix().unwrap());
        let names: Vec<_> =
            (0..20).map(|index| ["p/a", "p/b", "p/c", "p/c/d"][index % 4]).collect();
        let made = future::try_join_all(names.iter().map(|&name| create(name))).await.unwrap();
        let prefixes: BTreeSet<_> = made.iter().map(|each| each.prefix().unwrap()).collect();
        assert_eq!(prefixes.len(), 4);
        assert_eq!(layer.list(transaction, path("p")).await.unwrap(), ["a", "b", "c"]);
        assert_eq!(layer.list(transaction, path("p/c")).await.unwrap(), ["d"]);

        // A move and a removal beside what is created below.
        let moved = layer.move_path(transaction, path("p"), path("q"));
        let (below, moved) = future::join(create("p/e"), moved).await;
        moved.unwrap();
        below.unwrap();
        let names = |of: &'static str| layer.list(transaction, path(of));
        let (old, new) = (names("p").await.unwrap_or_default(), names("q").await.unwrap());
        let all: BTreeSet<_> = old.iter().chain(&new).collect();
        assert_eq!(all.len(), 4, "{old:?} {new:?}");
        let removed = layer.remove_if_exists(transaction, path("q"));
        let (removed, below) = future::join(removed, create("q/f")).await;
        assert!(removed.unwrap());
        below.unwrap();
        let left = names("q").await.unwrap_or_default();
        assert!(left.is_empty() || left == ["f"], "{left:?}");
        let only_once = future::join(
            layer.create(transaction, path("y")),
            layer.create(transaction, path("y")),
        );
        let (first, second) = only_once.await;
        assert!(first.is_ok() != second.is_ok());
        transaction.commit().await.unwrap();

        // In a partition, as well.
        let transaction = &database.transaction();
        let options = CreateOptions::new().layer(PARTITION);
        let tenant = &layer.create_with(transaction, path("tenant"), options).await.unwrap();
        let create = || tenant.create_or_open(transaction, ["deep", "down"]);
        let (one, two) = future::try_join(create(), create()).await.unwrap();
        assert_eq!(one.prefix().unwrap(), two.prefix().unwrap());
        transaction.commit().await.unwrap();
    }
    database.close().await.unwrap();
}

#[tokio::test]
async fn an_operation_that_nobody_waits_for_keeps_no_other_from_anything() {
    let database = Database::memory().await.unwrap();
    let (layer, transaction) = (DirectoryLayer::new(), database.transaction());
    let mut left = Box::pin(layer.create_or_open(&transaction, ["a", "b"]));
    assert!(futures::poll!(&mut left).is_pending());
    let there = layer.create_or_open(&transaction, ["a", "b"]).await.unwrap();
    assert_eq!(left.await.unwrap().prefix().unwrap(), there.prefix().unwrap());
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_directory_is_used_like_a_subspace() {
    let database = Database::memory().await.unwrap();
    let transaction = database.transaction();
    let layer = DirectoryLayer::new();
    let users = layer.create(&transaction, ["app", "users"]).await.unwrap();
    let key = users.pack(&(7, "name")).unwrap();
    assert!(users.contains(&key).unwrap());
    assert_eq!(users.unpack::<(u8, String)>(&key).unwrap(), (7, "name".to_string()));
    assert_eq!(users.nested(&7).unwrap().pack(&"name").unwrap(), key);
    assert!(users.range().unwrap().contains(&key));
    assert!(users.range_of(&7).unwrap().contains(&key));
    assert!(!users.is_partition());

    // The same path below an opened directory, and the layer that it is of.
    let app = layer.open(&transaction, "app").await.unwrap();
    let options = CreateOptions::new().layer("queue");
    let jobs = app.create_with(&transaction, "jobs", options).await.unwrap();
    assert_eq!(jobs.path().to_string(), "app/jobs");
    assert_eq!(jobs.layer(), b"queue");
    let error = app.open_with_layer(&transaction, "jobs", "stack").await.unwrap_err();
    assert_eq!(error.to_string(), "directory 'app/jobs' is of layer 'queue', not of 'stack'");
    assert!(jobs.exists(&transaction, ()).await.unwrap());
    jobs.remove(&transaction, ()).await.unwrap();
    assert!(!jobs.exists(&transaction, ()).await.unwrap());
    assert!(!jobs.remove_if_exists(&transaction, ()).await.unwrap());
    assert_eq!(app.list(&transaction, ()).await.unwrap(), ["users"]);
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_partition_is_one_range_and_has_no_subspace() {
    let database = Database::memory().await.unwrap();
    let transaction = database.transaction();
    let layer = DirectoryLayer::new();
    let options = CreateOptions::new().layer(PARTITION);
    let tenant = layer.create_with(&transaction, "tenant", options).await.unwrap();
    let expected = DirectoryError::PartitionHasNoSubspace { path: "tenant".into() };
    assert_eq!(tenant.prefix().unwrap_err(), expected);
    assert_eq!(tenant.pack(&1).unwrap_err(), expected);
    assert_eq!(tenant.range().unwrap_err(), expected);
    let log = tenant.create(&transaction, ["data", "log"]).await.unwrap();
    assert_eq!(log.path().to_string(), "tenant/data/log");
    layer.create(&transaction, "outside").await.unwrap();

    let error = layer.move_path(&transaction, "outside", ["tenant", "in"]).await.unwrap_err();
    assert!(matches!(error, DirectoryError::MoveBetweenPartitions { .. }), "{error}");
    let error = log.move_to(&transaction, "out").await.unwrap_err();
    assert!(matches!(error, DirectoryError::MoveBetweenPartitions { .. }), "{error}");
    let moved = log.move_to(&transaction, ["tenant", "log"]).await.unwrap();
    assert_eq!(moved.prefix().unwrap(), log.prefix().unwrap());
    // The partition itself can be moved, with everything in it.
    let customer = tenant.move_to(&transaction, "customer").await.unwrap();
    assert_eq!(customer.list(&transaction, ()).await.unwrap(), ["data", "log"]);
    assert_eq!(layer.list(&transaction, "customer").await.unwrap(), ["data", "log"]);
    let error = layer
        .allow_manual_prefixes()
        .create_with(&transaction, ["customer", "x"], CreateOptions::new().prefix("x"))
        .await
        .unwrap_err();
    assert_eq!(error, DirectoryError::ManualPrefixInPartition { path: "customer".into() });
    customer.remove(&transaction, ()).await.unwrap();
    assert_eq!(layer.list(&transaction, ()).await.unwrap(), ["outside"]);
    let left = transaction.get_range(ferrisdb_client::KeyRange::prefix(moved.prefix().unwrap()));
    assert!(left.await.unwrap().is_empty());
    database.close().await.unwrap();
}

#[tokio::test]
async fn readers_of_a_name_and_its_removal_conflict_and_creations_side_by_side_do_not() {
    let database = Database::memory().await.unwrap();
    let layer = DirectoryLayer::new();
    let transaction = database.transaction();
    layer.create(&transaction, "a").await.unwrap();
    transaction.commit().await.unwrap();

    let (first, second) = (database.transaction(), database.transaction());
    let (b, c) = future::join(layer.create(&first, "b"), layer.create(&second, "c")).await;
    let is_distinct = b.unwrap().prefix().unwrap() != c.unwrap().prefix().unwrap();
    first.commit().await.unwrap();
    // Unless both have drawn the same number, once in sixty-four times.
    assert_eq!(second.commit().await.is_ok(), is_distinct);

    let (writer, remover) = (database.transaction(), database.transaction());
    let a = layer.open(&writer, "a").await.unwrap();
    writer.set(a.pack(&1).unwrap(), "x").unwrap();
    layer.remove(&remover, "a").await.unwrap();
    remover.commit().await.unwrap();
    let error: Error = writer.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotCommitted);
    database.close().await.unwrap();
}

#[tokio::test]
async fn random_operations_do_what_they_do_to_a_simple_tree() {
    let database = Database::memory().await.unwrap();
    let mut runner = TestRunner::new(Config::default());
    for case in 0..60 {
        let steps = model::steps().new_tree(&mut runner).unwrap().current();
        model::compare(&database, case, &steps).await;
    }
    database.close().await.unwrap();
}
