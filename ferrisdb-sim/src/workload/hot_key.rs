//! Everybody counts the same two keys up, in every way that there is.
//!
//! ```text
//!                        read, add one, write          AtomicOp::Add, without reading
//!   hot_key/exact        run_transaction               run_transaction                  acknowledged = counted
//!   hot_key/loose        one attempt                   one attempt                      ... plus some of the unknown
//! ```
//!
//! Reads and writes of one key all conflict with each other, and the additions conflict with the readers but not
//! among themselves. An update that is lost makes the count too small (I-4, I-5), one that is applied twice makes
//! it too great (I-6). Whoever reads also compares with what had been acknowledged before it began (I-1).
//!
//! Start with [`HotKey::one`].

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrisdb_client::Transaction;
use ferrisdb_core::runtime;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    common::{Tally, counter, explained, once_in, patiently, pause},
};

/// The size of a [`HotKey`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HotKeySettings {
    /// How many clients count.
    pub clients: u32,
    /// How long a client rests between two increments, about, in milliseconds.
    pub rest_ms: u64,
}

impl Default for HotKeySettings {
    fn default() -> HotKeySettings {
        HotKeySettings { clients: 8, rest_ms: 5 }
    }
}

/// Two keys that are counted up: see the module.
pub struct HotKey {
    settings: HotKeySettings,
    tallies: Mutex<[Tally; 2]>,
}

const NAME: &str = "hot_key";
const KEYS: [&str; 2] = ["hot_key/exact", "hot_key/loose"];
const EXACT: usize = 0;
const LOOSE: usize = 1;

impl HotKey {
    /// Keys that are zero.
    pub fn new(settings: HotKeySettings) -> HotKey {
        HotKey { settings, tallies: Mutex::default() }
    }

    /// One increment.
    async fn one(&self, client: &Client) -> Result<()> {
        let which = if once_in(2) { EXACT } else { LOOSE };
        let reads = once_in(2);
        let before = {
            let tally = &mut self.tallies.lock()[which];
            tally.begun += 1;
            tally.acknowledged
        };
        let outcome = if which == EXACT {
            let body = |transaction| async move { count(&transaction, which, reads, before).await };
            client.database.run_transaction(body).await
        } else {
            let transaction = client.database.transaction();
            match count(&transaction, which, reads, before).await {
                Ok(()) => transaction.commit().await.map(|_| ()).map_err(Into::into),
                Err(error) => Err(error),
            }
        };
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(explained(error)?),
        };
        self.tallies.lock()[which].end(outcome.as_ref().copied());
        if let Err(error) = outcome
            && error.code() != ferrisdb_client::ErrorCode::NotCommitted
        {
            pause().await;
        }
        Ok(())
    }
}

/// Adds one. `before` is what was acknowledged before the transaction began.
async fn count(transaction: &Transaction, which: usize, reads: bool, before: u64) -> Result<()> {
    let key = KEYS[which];
    if !reads {
        transaction.add(key, 1)?;
        return Ok(());
    }
    let present = counter(transaction.get(key).await?.as_ref())?;
    check_covered(key, present, before)?;
    transaction.set(key, &(present + 1).to_le_bytes())?;
    Ok(())
}

fn check_covered(key: &str, present: u64, before: u64) -> Result<()> {
    ensure!(
        present >= before,
        "{key} is {present} for one that began after {before} were acknowledged (I-1)"
    );
    Ok(())
}

impl Workload for HotKey {
    fn name(&self) -> &str {
        NAME
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while !client.is_stopped() {
                self.one(&client).await?;
                runtime::sleep(runtime::jitter(Duration::from_millis(self.settings.rest_ms))).await;
            }
            Ok(())
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let tallies = *self.tallies.lock();
            let counts = patiently(&client.database, |transaction| async move {
                let exact = counter(transaction.get(KEYS[EXACT]).await?.as_ref())?;
                Ok([exact, counter(transaction.get(KEYS[LOOSE]).await?.as_ref())?])
            })
            .await?;
            for ((key, tally), count) in KEYS.iter().zip(&tallies).zip(counts) {
                tally.check(key, count)?;
            }
            Ok(format!(
                "exact {}, {} unknown; loose {}, {} unknown",
                counts[EXACT],
                tallies[EXACT].unknown(),
                counts[LOOSE],
                tallies[LOOSE].unknown()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_counts_are_found() {
        check_covered("k", 7, 7).unwrap();
        check_covered("k", 6, 7).unwrap_err();
    }
}
