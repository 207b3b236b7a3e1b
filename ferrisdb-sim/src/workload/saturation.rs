//! More is written than the disks of the logs take, in transactions as large as they may be.
//!
//! ```text
//!   clients   8 x up to 10 MB ---> proxies: queues are full ---> logs: the disk takes 1 MB a second
//!             slower, by errors that say so                      slower, and well
//! ```
//!
//! Slow is not dead: as long as everybody answers, no generation may end because of it, and what is acknowledged is there. Only
//! faults that make something slow belong beside it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{Database, Key, KeyRange, Status, Value};
use ferrisdb_core::{Generation, runtime};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{Fate, draw, fate, pause, read_all, run},
};

/// The size of a [`Saturation`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaturationSettings {
    /// How many clients write at once.
    pub clients: u32,
    /// Most values in a transaction.
    pub values_max: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
}

impl Default for SaturationSettings {
    fn default() -> SaturationSettings {
        SaturationSettings { clients: 8, values_max: 95, value_bytes: 100_000 }
    }
}

/// Saturation: see the module.
pub struct Saturation {
    settings: SaturationSettings,
    began: Mutex<Generation>,
    /// Of each client, the last round that was acknowledged.
    acknowledged: Mutex<Vec<(u32, u64)>>,
}

impl Saturation {
    /// A database that has nothing to do yet.
    pub fn new(settings: SaturationSettings) -> Saturation {
        let (began, acknowledged) = (Mutex::new(Generation(0)), Mutex::default());
        Saturation { settings, began, acknowledged }
    }

    fn prefix(client: u32) -> String {
        format!("saturation/{client:03}/")
    }

    /// Writes some of a client's values anew, all with the number of the round.
    async fn write(&self, client: &Client, round: u64) -> Result<bool> {
        let SaturationSettings { values_max, value_bytes, .. } = self.settings;
        let count = 1 + draw(values_max);
        let transaction = client.database.transaction();
        // Who reads first is held back by a proxy that has too much to do; who does not is refused by it.
        if draw(2) == 0
            && let Fate::Refused(_) | Fate::Unknown =
                fate(transaction.get("saturation/set-up").await)?
        {
            return Ok(false);
        }
        let prefix = Saturation::prefix(client.number);
        transaction.clear_range(KeyRange::prefix(prefix.as_bytes()))?;
        let mut value = vec![b'.'; value_bytes];
        value[..8].copy_from_slice(&round.to_be_bytes());
        value[8..16].copy_from_slice(&(count as u64).to_be_bytes());
        let value = Value::from(value);
        for index in 0..count {
            transaction.set(Key::from(format!("{prefix}{index:03}")), value.clone())?;
        }
        Ok(matches!(fate(transaction.commit().await)?, Fate::Committed(_)))
    }

    /// Whether the generation is the one that it was, or another one for a good reason.
    fn check_generation(&self, status: &Status) -> Result<()> {
        if let Some(last) = status
            .last_recovery
            .as_ref()
            .filter(|last| last.generation > *self.began.lock() && last.reason.starts_with("lost"))
        {
            anyhow::bail!("everybody lives, and a generation has ended: {}", last.reason);
        }
        Ok(())
    }

    /// Compares what a client has left with what it knows.
    async fn check_values(&self, database: &Database, number: u32, round: u64) -> Result<u64> {
        let range = KeyRange::prefix(Saturation::prefix(number).as_bytes());
        let rows = read_all(database, &range).await?;
        let heads: Vec<_> = rows.values().map(|value| value.as_slice()[..16].to_vec()).collect();
        let Some(head) = heads.first() else {
            ensure!(
                round == 0,
                "client {number} has nothing, round {round} was acknowledged (I-5)"
            );
            return Ok(0);
        };
        let number_at = |at: usize| {
            head[at..at + 8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
        };
        let (found, count) = (number_at(0), number_at(8));
        ensure!(
            heads.iter().all(|other| other == head) && count == heads.len() as u64,
            "client {number} has {} values of {count}, or of several rounds (I-2)",
            heads.len()
        );
        ensure!(
            found >= round,
            "client {number} has round {found}, {round} was acknowledged (I-5)"
        );
        Ok(found)
    }
}

impl Workload for Saturation {
    fn name(&self) -> &str {
        "saturation"
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            run(&client, "something", |transaction| async move {
                Ok(transaction.set("saturation/set-up", "done")?)
            })
            .await?;
            let status = client.database.status().await.context("the status at the beginning")?;
            *self.began.lock() = status.cluster.generation;
            Ok(())
        }
        .boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            let (mut round, mut acknowledged) = (0, 0);
            while !client.is_stopped() {
                round += 1;
                match self.write(&client, round).await {
                    Ok(true) => acknowledged = round,
                    Ok(false) => pause().await,
                    Err(error) => return Err(error),
                }
                if client.number == 0
                    && let Ok(status) = client.database.status().await
                {
                    self.check_generation(&status)?;
                }
            }
            self.acknowledged.lock().push((client.number, acknowledged));
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            // What was given up may still be on its way.
            runtime::sleep(Duration::from_secs(1)).await;
            let status = client.database.status().await.context("the status at the end")?;
            self.check_generation(&status)?;
            let acknowledged = self.acknowledged.lock().clone();
            let mut rounds = 0;
            for (number, round) in acknowledged {
                rounds += round.min(1);
                self.check_values(&client.database, number, round).await?;
            }
            ensure!(rounds > 0, "nothing was acknowledged at all");
            Ok(format!("{rounds} clients have what they were told"))
        }
        .boxed()
    }
}
