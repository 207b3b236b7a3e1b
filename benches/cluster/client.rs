//! What the client itself costs: transactions against an embedded database in memory, where no network and no disk take time.
//!
//! ```text
//!   cargo bench -p ferrisdb-benches --bench client
//!
//!   workload                               operations/s    allocations/operation    bytes/operation
//! ```
//!
//! Allocations are those of the whole process, servers included, divided by the operations: the client's own part is the
//! difference between two rows. Each row is the median of several rounds.

#![expect(unsafe_code, reason = "counting allocations takes an allocator of one's own")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ferrisdb_client::{Database, Error, KeyRange, RangeQuery, TransactionOption};
use ferrisdb_core::runtime;
use futures::future::try_join_all;

/// The system's allocator, which counts.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEYS: usize = 10_000;
const ROUND: Duration = Duration::from_millis(700);
const ROUNDS: usize = 5;

fn key(number: usize) -> String {
    format!("key/{:08}", number.wrapping_mul(7_919) % KEYS)
}

/// Runs `operation` for several rounds, and prints the median of what it costs. It says how many operations one call is.
async fn measure<F, Fut>(name: &str, operation: F) -> Result<(), Error>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<usize, Error>>,
{
    let mut rounds = Vec::new();
    let mut number = 0;
    for _ in 0..ROUNDS {
        let (allocations, bytes) =
            (ALLOCATIONS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
        let began = runtime::now();
        let mut operations = 0;
        while runtime::now().duration_since(began) < ROUND {
            for _ in 0..20 {
                operations += operation(number).await?;
                number += 1;
            }
        }
        let per_operation = |now: u64, before: u64| (now - before) as f64 / operations as f64;
        rounds.push((
            operations as f64 / runtime::now().duration_since(began).as_secs_f64(),
            per_operation(ALLOCATIONS.load(Ordering::Relaxed), allocations),
            per_operation(BYTES.load(Ordering::Relaxed), bytes),
        ));
    }
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (rate, allocations, bytes) = rounds[ROUNDS / 2];
    println!("{name:<52} {rate:>12.0} {allocations:>12.1} {bytes:>12.0}");
    Ok(())
}

async fn run() -> Result<(), Error> {
    let database = Database::memory().await?;
    let database = &database;
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(1_000) {
        let fill = |transaction: ferrisdb_client::Transaction| async move {
            for number in chunk {
                transaction.set(key(*number), vec![b'x'; 100])?;
            }
            Ok::<_, Error>(())
        };
        database.run_transaction(fill).await?;
    }
    println!("{:<52} {:>12} {:>12} {:>12}", "workload", "operations/s", "allocations", "bytes");

    measure("a transaction that does nothing", |_| async {
        database.transaction().commit().await.map(|_| 1)
    })
    .await?;
    measure("1,000 sets in a transaction that is given up", |round| async move {
        let transaction = database.transaction();
        for number in 0..1_000 {
            transaction.set(key(round + number), "value")?;
        }
        Ok(1_000)
    })
    .await?;
    measure("read version + read", |number| async move {
        database.transaction().get(key(number)).await.map(|_| 1)
    })
    .await?;
    for own_writes in [true, false] {
        let name = if own_writes { "on" } else { "off" };
        measure(
            &format!("100 reads after 100 writes, read-your-writes {name}"),
            |round| async move {
                let transaction = database.transaction();
                if !own_writes {
                    transaction.set_option(TransactionOption::ReadYourWritesDisabled)?;
                }
                for number in 0..100 {
                    transaction.set(key(round + number), "value")?;
                }
                for number in 0..100 {
                    transaction.get(key(round + 500 + number)).await?;
                }
                Ok(100)
            },
        )
        .await?;
        measure(&format!("rows of a range of 1,000, read-your-writes {name}"), |_| async move {
            let transaction = database.transaction();
            if !own_writes {
                transaction.set_option(TransactionOption::ReadYourWritesDisabled)?;
            }
            for number in 0..100 {
                transaction.set(key(number * 10), "value")?;
            }
            let query = RangeQuery::from(KeyRange::prefix(b"key/")).rows(1_000);
            transaction.get_range(query).await.map(|rows| rows.len())
        })
        .await?;
    }
    measure("100 reads of one transaction, one after the other", |round| async move {
        let transaction = database.transaction();
        for number in 0..100 {
            transaction.get(key(round + number)).await?;
        }
        Ok(100)
    })
    .await?;
    measure("100 reads of one transaction, together", |round| async move {
        let transaction = database.transaction();
        let reads = (0..100).map(|number| transaction.get(key(round + number)));
        try_join_all(reads).await.map(|found| found.len())
    })
    .await?;
    measure("64 transactions together, each a read and a write", |round| async move {
        let transactions = (0..64).map(|number| async move {
            let name = &key(round * 64 + number);
            let body = |transaction: ferrisdb_client::Transaction| async move {
                transaction.get(name.as_str()).await?;
                transaction.set(name.as_str(), "value")
            };
            database.run_transaction(body).await
        });
        try_join_all(transactions).await.map(|done| done.len())
    })
    .await?;
    Ok(())
}

fn main() -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("tokio's runtime can be started");
    runtime.block_on(run())
}
