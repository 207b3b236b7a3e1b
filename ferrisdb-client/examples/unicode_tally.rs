//! Tallies the imported Unicode table by category, with many workers that share the counters.
//!
//! Each worker takes the next block of records from a shared cursor and adds the block's categories to shared
//! counters, all in one transaction. The workers collide all the time: it is `run_transaction` that makes
//! the counts come out right. `docs/examples/real-cluster.sh` runs it and compares with another count.

#![expect(
    clippy::disallowed_methods,
    reason = "a program like a user's, outside of any simulation"
)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ferrisdb_client::{Database, Error, Key, KeyRange, RangeQuery};

/// Records that one transaction tallies.
const BLOCK: usize = 20;
/// Up to where the records are tallied.
const CURSOR: &str = "cursor";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let controllers = arguments.next().unwrap_or_else(|| "127.0.0.1:4500".into());
    let workers: u32 = arguments.next().map_or(Ok(8), |count| count.parse())?;
    let database = Database::connect(&controllers).await?;
    let attempts = Arc::new(AtomicU64::new(0));
    let steps = Arc::new(AtomicU64::new(0));

    let mut running = Vec::new();
    for _ in 0..workers {
        let (database, attempts, steps) = (database.clone(), attempts.clone(), steps.clone());
        running.push(tokio::spawn(async move {
            loop {
                let tallied = database
                    .run_transaction(|transaction| {
                        attempts.fetch_add(1, Ordering::Relaxed);
                        tally_block(transaction)
                    })
                    .await?;
                if tallied == 0 {
                    return Ok::<(), Error>(());
                }
                steps.fetch_add(1, Ordering::Relaxed);
                // Another worker's turn: without it one of them could have the cursor all to itself.
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }));
    }
    for worker in running {
        worker.await??;
    }
    let (attempts, steps) = (attempts.load(Ordering::Relaxed), steps.load(Ordering::Relaxed));
    println!(
        "{steps} transactions committed, {} attempts were repeated",
        attempts - steps - u64::from(workers)
    );
    Ok(())
}

/// Tallies the next block; returns how many records it had.
async fn tally_block(transaction: ferrisdb_client::Transaction) -> Result<usize, Error> {
    let records = KeyRange::prefix(b"unicode/");
    let begin = match transaction.get(CURSOR).await? {
        Some(last) => Key::from(last.to_vec()).successor(),
        None => records.begin.clone(),
    };
    let block = RangeQuery::from(KeyRange::new(begin, records.end)).rows(BLOCK);
    let rows = transaction.get_range(block).await?;
    let Some(last) = rows.last() else { return Ok(0) };
    transaction.set(CURSOR, last.key.to_vec())?;

    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for row in &rows {
        // The value is name;category;...
        let text = String::from_utf8_lossy(&row.value);
        let category = text.split(';').nth(1).unwrap_or("?");
        *found.entry(category.to_string()).or_default() += 1;
    }
    for (category, more) in found {
        let counter = format!("tally/{category}");
        let present = transaction.get(counter.as_str()).await?;
        let present = present.map_or(0, |text| String::from_utf8_lossy(&text).parse().unwrap_or(0));
        transaction.set(counter, (present + more).to_string())?;
    }
    Ok(rows.len())
}
