//! Reads of a transaction that has written a thousand rows itself, of which nothing is committed.
//!
//! The overlay of own writes is private to the client, so this goes through a transaction on a database in memory.
//!
//! - `set`: a thousand sets into a new transaction.
//! - `get`: a key that the transaction has set: nothing is asked of the database.
//! - `range`: a hundred rows, every other one of the transaction and the rest of the database, merged. With
//!   the call of the storage server, which is in the same process; `range, nothing written` is the same call for
//!   the fifty rows of the database alone.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use ferrisdb_client::{Database, Transaction};

const ROWS: u64 = 1_000;

fn key(number: u64) -> String {
    format!("row/{number:08}")
}

/// Odd rows are in the database, even ones are the transaction's own.
fn write(transaction: &Transaction, parity: u64) {
    for number in (0..2 * ROWS).filter(|number| number % 2 == parity) {
        transaction.set(key(number), vec![b'v'; 100]).expect("a small row can be set");
    }
}

fn read_your_writes(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let database = runtime.block_on(Database::memory()).expect("the database opens");
    let stored = database.run_transaction(|transaction| async move {
        write(&transaction, 1);
        Ok::<_, ferrisdb_client::Error>(())
    });
    runtime.block_on(stored).expect("the rows can be committed");
    let mut group = criterion.benchmark_group("read_your_writes");
    // A transaction lives five seconds, and each of the two phases has one of its own.
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));

    group.bench_function("set", |bencher| {
        bencher.iter(|| write(&database.transaction(), 0));
    });

    // Snapshot reads, so that what the transaction remembers of its reads does not grow.
    let mut number = 0;
    group.bench_function("get", |bencher| {
        let own = database.transaction();
        write(&own, 0);
        bencher.iter(|| {
            number = (number + 2) % (2 * ROWS);
            let value = runtime.block_on(own.snapshot().get(key(number)));
            black_box(value).expect("own writes can be read")
        });
    });
    for (name, writes) in [("range", true), ("range, nothing written", false)] {
        group.bench_function(name, |bencher| {
            let transaction = database.transaction();
            if writes {
                write(&transaction, 0);
            }
            bencher.iter(|| {
                number = (number + 100) % (2 * ROWS);
                let query = key(number)..key(number + 100);
                let rows = runtime.block_on(transaction.snapshot().get_range(query));
                black_box(rows).expect("a version of the last seconds can be read")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, read_your_writes);
criterion_main!(benches);
