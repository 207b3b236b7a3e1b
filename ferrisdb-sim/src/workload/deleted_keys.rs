//! A queue whose head was deleted row by row, and somebody who has nothing to do with it.
//!
//! ```text
//!   deleted_keys/q/   - - - - - - - - - ... - - - - x        thousands of deleted rows in the engine, and one that is left
//!   readers           the first row, the last but one, the key that a selector names, how large it is
//!   deleted_keys/p    read by itself, again and again: that must be as fast as ever (I-16)
//! ```
//!
//! Whoever looks for the head looks at all that is deleted. That takes its time, and nobody else may have to wait for it:
//! neither for the thread on which the look began, nor for a lock. And what is found is right, however often the look was
//! interrupted and went on (I-2).
//!
//! Start with [`DeletedKeys::look`].

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{Key, KeyRange, KeySelector, RangeQuery, Transaction, Version};
use ferrisdb_core::runtime;
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{self, draw, passing},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeletedKeysSettings {
    /// How many clients look for the head of the queue.
    pub readers: u32,
    /// How many read the other key.
    pub others: u32,
    /// How many rows are deleted.
    pub rows: u32,
    /// What half of the others' reads may take at most, in milliseconds.
    pub read_ms_max: u64,
}

impl Default for DeletedKeysSettings {
    fn default() -> Self {
        DeletedKeysSettings { readers: 3, others: 2, rows: 20_000, read_ms_max: 15 }
    }
}

/// The workload.
pub struct DeletedKeys {
    settings: DeletedKeysSettings,
    seen: Mutex<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    looks: u64,
    longest_look: Duration,
    reads: Vec<Duration>,
}

const QUEUE: &str = "deleted_keys/q/";
const OTHER: &str = "deleted_keys/p";
/// Rows of one transaction.
const ROWS_AT_ONCE: u32 = 500;
/// Until what was deleted has left the window, whatever its length.
const UNTIL_FLUSHED: Duration = Duration::from_secs(12);

impl DeletedKeys {
    /// A workload of which nothing was done yet.
    pub fn new(settings: DeletedKeysSettings) -> DeletedKeys {
        DeletedKeys { settings, seen: Mutex::default() }
    }

    fn last(&self) -> Key {
        row_key(self.settings.rows)
    }

    /// One look at the queue, of any kind.
    async fn look(&self, transaction: &Transaction) -> Result<()> {
        let (queue, last) = (KeyRange::prefix(QUEUE.as_bytes()), self.last());
        match draw(5) {
            0 => {
                let head = transaction.get_range(RangeQuery::from(&queue).rows(1)).await?;
                let keys: Vec<&Key> = head.iter().map(|row| &row.key).collect();
                ensure!(keys == [&last], "the head of the queue is {keys:?} (I-2)");
            }
            1 => {
                let before = KeyRange { begin: queue.begin, end: last };
                let before = RangeQuery::from(&before).rows(1).reverse();
                let rows = transaction.get_range(before).await?;
                ensure!(rows.is_empty(), "{rows:?} was deleted (I-2)");
            }
            2 => {
                let found =
                    transaction.get_key(KeySelector::first_greater_than(queue.begin)).await?;
                ensure!(found == last, "the first key is {found} (I-2)");
            }
            3 => {
                let found = transaction.get_key(KeySelector::last_less_than(last)).await?;
                ensure!(found == OTHER.into(), "the last key before is {found} (I-2)");
            }
            _ => {
                let bytes = transaction.estimated_range_size(&queue).await?;
                ensure!(bytes == last.len() as u64 + 1, "{bytes} bytes in one row");
            }
        }
        Ok(())
    }

    async fn look_on(&self, client: &Client) -> Result<()> {
        while !client.is_stopped() {
            let transaction = client.database.transaction();
            let began = runtime::now();
            match self.look(&transaction).await {
                Ok(()) => {
                    let mut seen = self.seen.lock();
                    seen.looks += 1;
                    seen.longest_look = seen.longest_look.max(runtime::now().duration_since(began));
                }
                Err(error) if passing(&error).is_some() => support::pause().await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read_on(&self, client: &Client) -> Result<()> {
        let mut read_version = read_version(client).await?;
        while !client.is_stopped() {
            let transaction = client.database.transaction();
            transaction.set_read_version(read_version)?;
            let began = runtime::now();
            match transaction.get(OTHER).await {
                Ok(found) => {
                    ensure!(found.is_some(), "{OTHER} is gone (I-2)");
                    self.seen.lock().reads.push(runtime::now().duration_since(began));
                    runtime::sleep(runtime::jitter(Duration::from_millis(3))).await;
                }
                Err(error) if support::passes(&error) => {
                    read_version = self::read_version(client).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

async fn read_version(client: &Client) -> Result<Version> {
    let ask = || async { Ok(client.database.transaction().read_version().await?) };
    support::persist(client, "a read version", ask).await
}

fn row_key(number: u32) -> Key {
    format!("{QUEUE}{number:08}").into()
}

impl Workload for DeletedKeys {
    fn name(&self) -> &str {
        "deleted_keys"
    }

    fn clients(&self) -> u32 {
        self.settings.readers + self.settings.others
    }

    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            let rows = self.settings.rows;
            for deletes in [false, true] {
                let mut next = 0;
                while next < rows {
                    let end = (next + ROWS_AT_ONCE).min(rows);
                    let fill = |transaction: Transaction| async move {
                        for number in next..end {
                            match deletes {
                                true => transaction.clear(row_key(number))?,
                                false => transaction.set(row_key(number), "r")?,
                            }
                        }
                        transaction.set(row_key(rows), "l")?;
                        transaction.set(OTHER, "o")?;
                        Ok::<_, anyhow::Error>(())
                    };
                    support::run(&client, "filling the queue", fill).await?;
                    next = end;
                }
                runtime::sleep(UNTIL_FLUSHED).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            match client.number < self.settings.readers {
                true => self.look_on(&client).await,
                false => self.read_on(&client).await,
            }
        }
        .boxed()
    }

    fn check(&self, _: Client) -> BoxFuture<'_, Result<String>> {
        async move { self.seen.lock().check(Duration::from_millis(self.settings.read_ms_max)) }
            .boxed()
    }
}

impl Seen {
    fn check(&mut self, read_max: Duration) -> Result<String> {
        self.reads.sort();
        let median = *self.reads.get(self.reads.len() / 2).context("nobody has read anything")?;
        let longest = self.reads.last().copied().unwrap_or_default();
        let looks = self.looks;
        ensure!(looks > 0, "nobody has found the head of the queue: looks begin again and again");
        ensure!(
            median <= read_max,
            "half of the reads of another key took {median:?} and longer (I-16)"
        );
        let count = self.reads.len();
        let longest_look = self.longest_look;
        Ok(format!(
            "{looks} looks, up to {longest_look:?}; {count} reads, half of them within {median:?}, all {longest:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_reads_and_looks_without_an_end_are_noticed() {
        let ms = Duration::from_millis;
        let seen = |looks, reads: &[u64]| Seen {
            looks,
            longest_look: ms(9),
            reads: reads.iter().copied().map(ms).collect(),
        };
        assert!(seen(1, &[1, 1, 90]).check(ms(10)).is_ok());
        assert!(seen(1, &[1, 90, 90]).check(ms(10)).unwrap_err().to_string().contains("I-16"));
        assert!(seen(0, &[1]).check(ms(10)).is_err());
        assert!(seen(1, &[]).check(ms(10)).is_err());
    }
}
