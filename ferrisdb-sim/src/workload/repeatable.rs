//! Whoever reads again at the same version finds the same, up to the moment at which it is too old.
//!
//! ```text
//!   version 40      read everything                                 a = 7, b absent, c = 9
//!   later           others set and clear what nobody has touched for longer than the window
//!   still 40        read again, again, again ...                    the same, or too old
//! ```
//!
//! The keys are *cold*: each rests for longer than versions are kept, so that the window knows nothing of it and the engine
//! is asked. What is written to it next reaches the engine just when the versions before it can no longer be
//! read: whoever reads on at its old version until then reads while the engine is being written. An engine that has gone
//! on too early, or a window that has forgotten too early, shows as a value of another version (I-2).
//!
//! Start with [`Repeatable::read_on`].

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use ferrisdb_client::{Key, KeyRange, RangeQuery, Transaction, Value};
use ferrisdb_core::runtime;
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{self, Fate, draw, fate, one_in, passing},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepeatableSettings {
    /// How many clients read.
    pub readers: u32,
    /// How many keys there are.
    pub keys: u32,
    /// How long a key rests between two writes, in milliseconds: longer than the window.
    pub rest_ms: u64,
}

impl Default for RepeatableSettings {
    fn default() -> Self {
        RepeatableSettings { readers: 4, keys: 60, rest_ms: 10_000 }
    }
}

/// The workload.
pub struct Repeatable {
    settings: RepeatableSettings,
    seen: Mutex<Seen>,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    versions: u64,
    again: u64,
    too_old: u64,
}

type Rows = BTreeMap<Key, Value>;

const PREFIX: &str = "repeatable/";

impl Repeatable {
    /// A workload of which nothing was done yet.
    pub fn new(settings: RepeatableSettings) -> Repeatable {
        Repeatable { settings, seen: Mutex::default() }
    }

    fn key(&self, number: u32) -> Key {
        format!("{PREFIX}{number:04}").into()
    }

    /// Writes the keys one after the other, so that each rests in between.
    async fn write_on(&self, client: &Client) -> Result<()> {
        let keys = self.settings.keys;
        let pause = Duration::from_millis(self.settings.rest_ms / u64::from(keys));
        for (round, number) in (0..).map(|count| (count / keys, count % keys)) {
            if client.is_stopped() {
                return Ok(());
            }
            let transaction = client.database.transaction();
            let key = self.key(number);
            match draw(4) {
                0 => transaction.clear(key)?,
                1 => {
                    let end = self.key(number + 1 + draw(3) as u32);
                    transaction.clear_range(KeyRange { begin: key, end })?;
                }
                _ => transaction.set(key, format!("{round}.{}", draw(1_000)))?,
            }
            if let Fate::Refused(_) = fate(transaction.commit().await)? {
                support::pause().await;
            }
            runtime::sleep(runtime::jitter(pause)).await;
        }
        Ok(())
    }

    /// Reads everything at one version, and again until that is too old.
    async fn read_on(&self, transaction: &Transaction) -> Result<()> {
        let rows = self.rows(transaction, one_in(2)).await?;
        self.seen.lock().versions += 1;
        loop {
            runtime::sleep(runtime::jitter(Duration::from_millis(150))).await;
            self.read_again(transaction, &rows).await?;
            self.seen.lock().again += 1;
        }
    }

    async fn rows(&self, transaction: &Transaction, reverse: bool) -> Result<Rows> {
        let mut query = RangeQuery::from(KeyRange::prefix(PREFIX.as_bytes()));
        if reverse {
            query = query.reverse();
        }
        let rows = transaction.snapshot().get_range(query).await?;
        Ok(rows.into_iter().map(|row| (row.key, row.value)).collect())
    }

    async fn read_again(&self, transaction: &Transaction, rows: &Rows) -> Result<()> {
        if one_in(2) {
            let again = self.rows(transaction, one_in(2)).await?;
            return check(rows, &again);
        }
        for _ in 0..5 {
            let key = self.key(draw(self.settings.keys as usize) as u32);
            let again = transaction.snapshot().get(&key).await?;
            ensure!(
                again.as_ref() == rows.get(&key),
                "{key} was {:?}, and at the same version it is {again:?} (I-2)",
                rows.get(&key)
            );
        }
        Ok(())
    }
}

fn check(rows: &Rows, again: &Rows) -> Result<()> {
    for key in rows.keys().chain(again.keys()) {
        let (first, second) = (rows.get(key), again.get(key));
        ensure!(
            first == second,
            "{key} was {first:?}, and at the same version it is {second:?} (I-2)"
        );
    }
    Ok(())
}

impl Workload for Repeatable {
    fn name(&self) -> &str {
        "repeatable"
    }

    fn cuts(&self) -> Vec<Key> {
        vec![PREFIX.into(), self.key(self.settings.keys / 2)]
    }

    fn clients(&self) -> u32 {
        self.settings.readers + 1
    }

    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            let fill = |transaction: Transaction| async move {
                for number in 0..self.settings.keys {
                    transaction.set(self.key(number), "first")?;
                }
                Ok::<_, anyhow::Error>(())
            };
            support::run(&client, "filling", fill).await?;
            runtime::sleep(Duration::from_millis(self.settings.rest_ms)).await;
            Ok(())
        }
        .boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            if client.number == 0 {
                return self.write_on(&client).await;
            }
            while !client.is_stopped() {
                let transaction = client.database.transaction();
                match self.read_on(&transaction).await {
                    Ok(()) => {}
                    Err(error) if passing(&error).is_some() => self.seen.lock().too_old += 1,
                    Err(error) => return Err(error),
                }
                support::pause().await;
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, _: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let Seen { versions, again, too_old } = *self.seen.lock();
            Ok(format!("{versions} versions were read {again} times more, {too_old} to their end"))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_value_at_the_same_version_is_noticed() {
        let rows = |rows: &[(&str, &str)]| -> Rows {
            rows.iter().map(|(key, value)| (Key::from(*key), Value::from(*value))).collect()
        };
        let first = rows(&[("a", "1"), ("b", "2")]);
        check(&first, &first).unwrap();
        for other in [rows(&[("a", "1")]), rows(&[("a", "1"), ("b", "3")]), rows(&[])] {
            assert!(check(&first, &other).unwrap_err().to_string().contains("I-2"));
            assert!(check(&other, &first).is_err());
        }
    }
}
