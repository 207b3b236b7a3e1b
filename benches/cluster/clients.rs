//! One client: does one operation after the other, and counts what becomes of them.

use std::{future::Future, sync::Arc, time::Duration};

use clap::ValueEnum;
use ferrisdb_client::{Database, Error, Key, Result, Transaction, TransactionOption, Value};
use ferrisdb_core::runtime::{self, Instant};
use parking_lot::Mutex;

use crate::{
    random::Random,
    rows::Rows,
    schedule::Schedule,
    tally::{Tally, Work},
    workload::Workload,
};

/// How long a client waits after an operation that failed for good: whatever is wrong takes longer than that.
const PAUSE: Duration = Duration::from_millis(10);

/// What a transaction does about a commit whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExactlyOnce {
    /// It has an idempotency id, as with `run_transaction`: exactly once
    ById,
    /// It makes sure that the lost attempt is over before the next one, as with `commit` and `on_error`
    Fenced,
    /// Nothing (the option `CausalWriteRisky`)
    Off,
}

/// A client of the benchmark.
#[derive(Clone)]
pub(crate) struct Client {
    /// The handle it works with.
    pub(crate) database: Database,
    /// Its own random numbers.
    pub(crate) random: Random,
    /// What rows look like.
    pub(crate) rows: Arc<Rows>,
    /// Its number, from 0 on.
    pub(crate) number: u64,
    tally: Arc<Mutex<Tally>>,
    exactly_once: ExactlyOnce,
}

impl Client {
    /// A client; its number seeds its random numbers.
    pub(crate) fn new(
        database: Database,
        rows: Arc<Rows>,
        tally: Arc<Mutex<Tally>>,
        exactly_once: ExactlyOnce,
        seed: u64,
        number: u64,
    ) -> Client {
        let random = Random::new(seed.wrapping_add(number.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        Client { database, random, rows, number, tally, exactly_once }
    }

    /// Does operations until the schedule is over.
    pub(crate) async fn run(mut self, workload: Arc<dyn Workload>, schedule: Schedule) {
        while let Some(since) = schedule.next().await {
            match workload.operate(&mut self).await {
                Ok(work) => {
                    let row_bytes = self.rows.row_bytes();
                    self.tally.lock().operation(since, runtime::now(), work, row_bytes);
                }
                Err(error) => {
                    let is_maybe_committed = error.is_maybe_committed();
                    self.tally.lock().operation_failed(is_maybe_committed, runtime::now());
                    runtime::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Runs a transaction until it is committed. As `Database::run_transaction`, but it counts the attempts.
    ///
    /// # Errors
    ///
    /// What a retry does not help. It has been counted.
    pub(crate) async fn transact<T, F, Fut>(&mut self, body: F) -> Result<T>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let transaction = self.database.transaction();
        if self.exactly_once == ExactlyOnce::ById {
            transaction.set_option(TransactionOption::AutomaticIdempotency)?;
        }
        loop {
            let attempt = async {
                if self.exactly_once == ExactlyOnce::Off {
                    transaction.set_option(TransactionOption::CausalWriteRisky)?;
                }
                let result = body(transaction.clone()).await?;
                transaction.commit().await?;
                Ok::<_, Error>(result)
            };
            match attempt.await {
                Ok(result) => return Ok(result),
                Err(error) => {
                    // Both at the same moment, or the end of the window could come between the two.
                    let failed_at = runtime::now();
                    self.tally.lock().attempt_failed(error.code(), failed_at);
                    transaction.on_error(error).await?;
                    self.tally.lock().retried(failed_at);
                }
            }
        }
    }

    /// Counts an error that ended an attempt, for whoever does without [`Client::transact`]; says whether to try again.
    pub(crate) fn tries_again(&self, error: &Error) -> bool {
        let now = runtime::now();
        let tries_again = error.is_retryable() && !error.is_maybe_committed();
        let mut tally = self.tally.lock();
        tally.attempt_failed(error.code(), now);
        if tries_again {
            tally.retried(now);
        }
        tries_again
    }

    /// Counts a part of an operation that ends now; returns now, for the part that follows.
    pub(crate) fn stage(&self, name: &'static str, since: Instant) -> Instant {
        let now = runtime::now();
        self.tally.lock().stage(name, since, now);
        now
    }

    /// A value with a counter of 0.
    pub(crate) fn value(&mut self) -> Vec<u8> {
        self.rows.value(&mut self.random, 0)
    }

    /// The sink for rows that are missing, to be moved into a transaction's body.
    pub(crate) fn expect_row(&self) -> ExpectRow {
        ExpectRow(Arc::clone(&self.tally))
    }
}

/// Reads rows that must be there.
#[derive(Clone)]
pub(crate) struct ExpectRow(Arc<Mutex<Tally>>);

impl ExpectRow {
    /// Reads a row; counts it if it is not there, and goes on with an empty value.
    pub(crate) async fn get(&self, transaction: &Transaction, key: Key) -> Result<Value> {
        let found = transaction.get(key).await?;
        Ok(found.unwrap_or_else(|| {
            self.missing(1);
            Value::default()
        }))
    }

    /// Counts rows that were not found.
    pub(crate) fn missing(&self, rows: u64) {
        self.0.lock().missing += rows;
    }
}

/// Runs all clients to their end.
pub(crate) async fn run_all(
    clients: Vec<Client>,
    workload: &Arc<dyn Workload>,
    schedule: &Schedule,
) -> anyhow::Result<()> {
    let mut running = Vec::new();
    for client in clients {
        let client = client.run(Arc::clone(workload), schedule.clone());
        #[expect(clippy::disallowed_methods, reason = "a user's program runs on tokio itself")]
        running.push(tokio::spawn(client));
    }
    for client in running {
        client.await?;
    }
    Ok(())
}

impl Work {
    /// An operation that counts for each of its parts.
    pub(crate) fn parts(operations: u64) -> Work {
        Work { operations, ..Work::default() }
    }
}
