//! A transaction from end to end: the whole database, embedded, on real files.
//!
//! `alone` is the latency of one client that waits for each commit; `64 at once` the throughput when
//! commits share batches and syncs.

#![expect(clippy::disallowed_methods, reason = "a user's program runs on tokio itself")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferrisdb_client::{Database, Error};

const CLIENTS: u64 = 64;
const KEYS: u64 = 10_000;

fn key(number: u64) -> String {
    format!("account/{:08}", number.wrapping_mul(7_919) % KEYS)
}

/// Reads a key and writes it: one read version, one read, one durable commit.
async fn read_modify_write(database: &Database, number: u64) -> Result<(), Error> {
    database
        .run_transaction(|transaction| async move {
            let value = transaction.get(key(number)).await?;
            let count = value.map_or(0, |value| value.len());
            transaction.set(key(number), vec![b'x'; 100 - count % 2])
        })
        .await
}

fn transactions(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let database = runtime.block_on(Database::open(folder.path())).expect("the database opens");
    let mut number = 0u64;
    let mut group = criterion.benchmark_group("transaction");

    group.throughput(Throughput::Elements(1));
    group.bench_function("read-modify-write, alone", |bencher| {
        bencher.iter(|| {
            number += 1;
            runtime.block_on(read_modify_write(&database, number)).expect("commits succeed");
        });
    });
    group.bench_function("read version and read, alone", |bencher| {
        bencher.iter(|| {
            number += 1;
            let transaction = database.transaction();
            black_box(runtime.block_on(transaction.get(key(number)))).expect("reads succeed")
        });
    });

    group.throughput(Throughput::Elements(CLIENTS));
    group.bench_function("read-modify-write, 64 at once", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let clients = (0..CLIENTS).map(|client| {
                    let (database, number) = (database.clone(), number + client);
                    tokio::spawn(async move { read_modify_write(&database, number).await })
                });
                for client in clients.collect::<Vec<_>>() {
                    client.await.expect("clients do not panic").expect("commits succeed");
                }
            });
            number += CLIENTS;
        });
    });
    group.finish();
    runtime.block_on(database.close()).expect("the database closes");
}

criterion_group!(benches, transactions);
criterion_main!(benches);
