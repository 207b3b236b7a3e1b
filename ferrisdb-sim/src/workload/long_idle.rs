//! Nothing happens for a long time, and then everything works at once.
//!
//! ```text
//!   run     some writes, until all are told to stop
//!   check   write A and B    begin two old transactions, which read A          an idle cluster:
//!           ........... for minutes nobody asks for anything ...........       records of idempotency
//!           overwrite A, at once and with the first attempt                    ids are swept
//!           the one reads A: it is shown the old A, or told that it is too old
//!           the other one writes B: it cannot be committed
//!           ........... for some seconds ...............................       the window goes on
//!           the one reads B: it is told that it is too old
//!           all processes: hardly anything in memory or in the logs
//! ```
//!
//! Versions go on while nothing is written, so an old transaction is too old after the pause, or soon. It must never be
//! shown the new A (I-2), nor commit over it (I-4). Whoever comes first after the pause must find a cluster that is as quick as ever: what
//! expires by time, such as connections, caches, leases, must have been renewed or be replaced at once.
//!
//! The pause is in the check, because that is when no other client is at work: run it alone, or last.
//!
//! Start with [`LongIdle::idle`].

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{Database, Error, ErrorCode, Status, Transaction, TransactionOption};
use ferrisdb_core::{Value, limits, runtime, service::controller::ProcessClass};
use futures::future::BoxFuture;
use serde::Deserialize;

use super::{
    Client, Workload,
    common::{counter, draw, explained, patiently, pause},
};

/// The size of a [`LongIdle`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LongIdleSettings {
    /// How many clients write before the pause.
    pub clients: u32,
    /// How long the pause is.
    pub idle_seconds: u64,
    /// How long the first transaction after the pause may take.
    pub wake_up_ms: u64,
    /// Most bytes that a storage server's window, or a log, holds after the pause.
    pub bytes_max: u64,
}

impl Default for LongIdleSettings {
    fn default() -> LongIdleSettings {
        LongIdleSettings {
            clients: 2,
            idle_seconds: 600,
            wake_up_ms: 2_000,
            bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// A pause: see the module.
pub struct LongIdle {
    settings: LongIdleSettings,
    written: AtomicU64,
}

const NAME: &str = "long_idle";
const A: &str = "long_idle/a";
const B: &str = "long_idle/b";
/// Keys that are written before the pause, so that there is something to keep.
const FILLING: u32 = 500;
const FILLING_BYTES: usize = 200;
/// How often the old transaction asks again when a server does not answer.
const ASKED_MAX: u32 = 50;

impl LongIdle {
    /// A database in which nothing has happened yet.
    pub fn new(settings: LongIdleSettings) -> LongIdle {
        LongIdle { settings, written: AtomicU64::new(0) }
    }

    /// The pause, with a transaction that began before it.
    async fn idle(&self, client: &Client) -> Result<String> {
        let database = &client.database;
        set_both(database, 1).await?;
        let (reader, writer) = (begin_old(database).await?, begin_old(database).await?);
        client.note(format_args!("{NAME}: idle for {} seconds", self.settings.idle_seconds));
        runtime::sleep(Duration::from_secs(self.settings.idle_seconds)).await;

        let woken = runtime::now();
        let limit = Duration::from_millis(self.settings.wake_up_ms);
        let transaction = database.transaction();
        // Not a timeout around it all: the error would not say what was waited for.
        transaction.set_option(TransactionOption::Timeout(limit))?;
        let first = async {
            let before = counter(transaction.get(A).await?.as_ref())?;
            ensure!(before == 1, "A is {before} after the pause, not 1 (I-2)");
            transaction.set(A, &2u64.to_le_bytes())?;
            transaction.commit().await?;
            Ok(())
        };
        first.await.context("the first transaction after the pause")?;
        let took = runtime::now().duration_since(woken);

        let ask = async |key| ask(|| async { reader.get(key).await }).await;
        expect_old(ask(A).await)?;
        // It has read A, which was overwritten: whatever its reads are told, its commit cannot succeed.
        writer.set(B, &3u64.to_le_bytes())?;
        match writer.commit().await {
            Ok(committed) => bail!(
                "a transaction that had read A before the pause was committed at version {} over a newer A (I-4)",
                committed.version
            ),
            Err(error) => {
                explained(error.into())?;
            }
        }
        runtime::sleep(4 * window()).await;
        expect_too_old(ask(B).await)?;
        let counters = patiently(database, |transaction| async move {
            let a = counter(transaction.get(A).await?.as_ref())?;
            Ok([a, counter(transaction.get(B).await?.as_ref())?])
        });
        let counters = counters.await?;
        ensure!(counters == [2, 1], "A and B are {counters:?} after the pause, not 2 and 1 (I-4)");
        let status = database.status().await.context("the status after the pause")?;
        let most = check_bytes(&bytes_held(&status), self.settings.bytes_max)?;
        Ok(format!(
            "{} transactions, idle for {} s, woken up in {took:?}, {most} bytes at most",
            self.written.load(Ordering::Relaxed),
            self.settings.idle_seconds
        ))
    }
}

/// How long versions are kept.
fn window() -> Duration {
    Duration::from_secs(limits::WINDOW_VERSIONS / limits::VERSIONS_PER_SECOND)
}

async fn set_both(database: &Database, number: u64) -> Result<()> {
    patiently(database, |transaction| async move {
        transaction.set(A, &number.to_le_bytes())?;
        transaction.set(B, &number.to_le_bytes())?;
        Ok(())
    })
    .await
}

/// A transaction that has read A. What it reads later is of the same version.
async fn begin_old(database: &Database) -> Result<Transaction> {
    for _ in 0..ASKED_MAX {
        let transaction = database.transaction();
        match transaction.get(A).await {
            Ok(value) => {
                let found = counter(value.as_ref())?;
                ensure!(found == 1, "A is {found} before the pause, not 1 (I-1)");
                return Ok(transaction);
            }
            Err(error) => explained(error.into())?,
        };
        pause().await;
    }
    bail!("A cannot be read before the pause")
}

/// Asks until there is an answer that counts.
async fn ask<Fut>(question: impl Fn() -> Fut) -> Result<Option<Value>, Error>
where
    Fut: Future<Output = Result<Option<Value>, Error>>,
{
    let mut answer = question().await;
    for _ in 1..ASKED_MAX {
        match &answer {
            Err(error) if error.is_retryable() && error.code() != ErrorCode::TransactionTooOld => {
                pause().await;
                answer = question().await;
            }
            _ => break,
        }
    }
    answer
}

/// What was there before the pause, or that nobody knows any more.
fn expect_old(answer: Result<Option<Value>, Error>) -> Result<()> {
    match answer {
        Err(error) if error.code() == ErrorCode::TransactionTooOld => Ok(()),
        Err(error) => Err(error).context("a read at a version from before the pause"),
        Ok(value) => {
            let found = counter(value.as_ref())?;
            ensure!(found == 1, "{found} is read at a version at which it was 1 (I-2)");
            Ok(())
        }
    }
}

fn expect_too_old(answer: Result<Option<Value>, Error>) -> Result<()> {
    match answer {
        Err(error) if error.code() == ErrorCode::TransactionTooOld => Ok(()),
        Err(error) => Err(error).context("a read at a version that should be too old"),
        Ok(found) => bail!("a version from before the pause is never too old: {found:?} is read"),
    }
}

/// What each log, and the window of each storage server, holds in bytes.
fn bytes_held(status: &Status) -> Vec<(String, u64)> {
    let heartbeats = status.processes.iter().filter(|process| process.alive);
    let heartbeats = heartbeats.map(|process| &process.heartbeat);
    heartbeats
        .filter(|heartbeat| matches!(heartbeat.class, ProcessClass::Log | ProcessClass::Storage))
        .map(|heartbeat| {
            let name = format!("the {} at {}", heartbeat.class, heartbeat.worker.address);
            (name, heartbeat.progress.bytes)
        })
        .collect()
}

/// Whether no process holds more than so many bytes. Returns the most that one holds.
///
/// # Errors
///
/// Who does.
pub fn check_bytes(held: &[(String, u64)], bytes_max: u64) -> Result<u64> {
    ensure!(!held.is_empty(), "there is no log and no storage server after the pause");
    for (name, bytes) in held {
        ensure!(
            *bytes <= bytes_max,
            "{name} holds {bytes} bytes after the pause, more than {bytes_max}"
        );
    }
    Ok(held.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default())
}

impl Workload for LongIdle {
    fn name(&self) -> &str {
        NAME
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { set_both(&client.database, 0).await })
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while !client.is_stopped() {
                let written = client.database.run_transaction(|transaction| async move {
                    let key = format!("{NAME}/filling/{:04}", draw(FILLING));
                    transaction.set(key, Value::from(vec![b'.'; FILLING_BYTES]))?;
                    Ok::<(), Error>(())
                });
                match written.await {
                    Ok(()) => {
                        self.written.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        explained(error.into())?;
                    }
                }
                pause().await;
            }
            Ok(())
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move { self.idle(&client).await })
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Stage;

    use super::*;

    #[test]
    fn the_old_value_or_too_old_and_later_only_that() {
        let error = |code| Err(Error::new(code, Stage::Read, ""));
        let read = |number: u64| Ok(Some(Value::from(&number.to_le_bytes())));
        expect_old(read(1)).unwrap();
        expect_old(error(ErrorCode::TransactionTooOld)).unwrap();
        assert!(expect_old(read(2)).unwrap_err().to_string().contains("I-2"));
        expect_old(Ok(None)).unwrap_err();
        expect_old(error(ErrorCode::Unavailable)).unwrap_err();
        expect_too_old(error(ErrorCode::TransactionTooOld)).unwrap();
        expect_too_old(error(ErrorCode::Unavailable)).unwrap_err();
        expect_too_old(read(1)).unwrap_err();
    }

    #[test]
    fn nobody_may_hold_too_much() {
        let held = [("a log".into(), 7), ("a window".into(), 9)];
        assert_eq!(check_bytes(&held, 9).unwrap(), 9);
        let error = check_bytes(&held, 8).unwrap_err().to_string();
        assert!(error.starts_with("a window holds 9 bytes"), "{error}");
        check_bytes(&[], 9).unwrap_err();
    }
}
