//! Shards move, generations change, and afterwards the logs give up their space.
//!
//! ```text
//!   check   a server is drained ... the last change of the shard map is committed
//!           at once the number of proxies changes: another generation, whose logs copy that change
//!           much is written                          logs: a few segments, not all of it
//! ```
//!
//! A segment goes when everybody has what is in it: each storage server its messages, and the controllers the changes of the
//! shard map. Nobody reads those that a recovery has copied, and the word that the others are known may get lost: one
//! of them that is forgotten keeps all that comes after it, for as long as the generation lasts (I-11).

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{Command, ConfigurationChange, Database, ProcessSelector, Status, Value};
use ferrisdb_core::{
    runtime,
    service::controller::{Phase, ProcessClass},
};
use futures::{FutureExt as _, future::BoxFuture};
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{draw, passes, pause, run},
};

/// The size of a [`LogSpace`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSpaceSettings {
    /// How often a server is drained.
    pub rounds: u32,
    /// How much is written after each.
    pub written_bytes: usize,
    /// How much of it a log may keep.
    pub log_bytes_max: u64,
    /// How long it may take to give the rest up.
    pub rest_seconds: u64,
}

impl Default for LogSpaceSettings {
    fn default() -> LogSpaceSettings {
        LogSpaceSettings {
            rounds: 3,
            written_bytes: 400_000,
            log_bytes_max: 100_000,
            rest_seconds: 60,
        }
    }
}

/// Space: see the module.
pub struct LogSpace {
    settings: LogSpaceSettings,
}

impl LogSpace {
    /// Logs in which nothing is yet.
    pub fn new(settings: LogSpaceSettings) -> LogSpace {
        LogSpace { settings }
    }

    /// Writes so much, in small transactions.
    async fn write(&self, client: &Client) -> Result<()> {
        const BYTES: usize = 2_000;
        for _ in 0..self.settings.written_bytes / BYTES {
            let key = format!("log_space/{:03}", draw(200));
            let key = &key;
            run(client, "filling", |transaction| async move {
                Ok(transaction.set(key.as_str(), Value::from(vec![b'.'; BYTES]))?)
            })
            .await?;
        }
        Ok(())
    }

    /// Moves shards, and has another generation begin as soon as the last one has moved.
    async fn move_and_recover(&self, database: &Database, round: u32) -> Result<()> {
        let status = until(database, "before shards move", is_at_rest).await?;
        let servers = &status.cluster.storage_servers;
        let server = servers[round as usize % servers.len()].clone();
        let selector = || vec![ProcessSelector::Address(server.endpoint.address.clone())];
        administer(database, Command::Exclude(selector())).await?;
        until(database, "while a server is drained", |status| {
            let shards = status.cluster.shards.shards();
            !shards.iter().any(|shard| shard.teams.all().any(|tag| tag == server.tag))
        })
        .await?;
        let proxies = status.cluster.configuration.as_ref().map_or(1, |c| c.proxies);
        let proxies = Some(if proxies == 1 { 2 } else { 1 });
        let generation = status.cluster.generation;
        let change = ConfigurationChange { proxies, ..Default::default() };
        administer(database, Command::Configure(change)).await?;
        until(database, "after the number of proxies has changed", |status| {
            status.cluster.generation > generation && status.cluster.phase == Phase::Active
        })
        .await?;
        Ok(())
    }

    async fn include_all(&self, database: &Database) -> Result<()> {
        let status = until(database, "before servers come back", |_| true).await?;
        for excluded in status.cluster.excluded {
            administer(database, Command::Include(vec![excluded])).await?;
        }
        Ok(())
    }

    /// Waits until the logs have given up what they may.
    async fn wait_for_space(&self, database: &Database) -> Result<u64> {
        let limit = Duration::from_secs(self.settings.rest_seconds);
        let began = runtime::now();
        loop {
            let largest = match database.status().await {
                Ok(status) => largest_log(&status),
                Err(_) => None,
            };
            match largest {
                Some(bytes) if bytes <= self.settings.log_bytes_max => return Ok(bytes),
                _ if runtime::now().duration_since(began) < limit => {
                    runtime::sleep(Duration::from_millis(500)).await;
                }
                _ => bail!(
                    "a log keeps {largest:?} bytes of {} after {limit:?} (I-11)",
                    self.settings.written_bytes
                ),
            }
        }
    }
}

/// The bytes of the largest log.
fn largest_log(status: &Status) -> Option<u64> {
    let heartbeats = status.processes.iter().filter(|process| process.alive);
    let logs = heartbeats.filter(|process| process.heartbeat.class == ProcessClass::Log);
    logs.map(|process| process.heartbeat.progress.bytes).max()
}

fn is_at_rest(status: &Status) -> bool {
    status.cluster.phase == Phase::Active
        && status.repairs.is_empty()
        && status.stuck.is_empty()
        && status.cluster.log_sets.len() == 1
}

async fn until(database: &Database, when: &str, is_so: impl Fn(&Status) -> bool) -> Result<Status> {
    let began = runtime::now();
    loop {
        if let Ok(status) = database.status().await
            && is_so(&status)
        {
            return Ok(status);
        }
        let passed = runtime::now().duration_since(began);
        ensure!(passed < Duration::from_secs(120), "not for {passed:?}: {when}");
        runtime::sleep(Duration::from_millis(30)).await;
    }
}

async fn administer(database: &Database, command: Command) -> Result<()> {
    for _ in 0..100 {
        match database.administer(command.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if passes(&error) => pause().await,
            Err(error) => return Err(error).context(format!("{command:?}")),
        }
    }
    bail!("nobody takes {command:?}")
}

impl Workload for LogSpace {
    fn name(&self) -> &str {
        "log_space"
    }

    fn clients(&self) -> u32 {
        1
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            while !client.is_stopped() {
                run(&client, "a write", |transaction| async move {
                    Ok(transaction.set("log_space/run", "written")?)
                })
                .await?;
                pause().await;
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let mut most = 0;
            for round in 0..self.settings.rounds {
                self.move_and_recover(&client.database, round).await?;
                self.write(&client).await?;
                most = most.max(self.wait_for_space(&client.database).await?);
                self.include_all(&client.database).await?;
            }
            Ok(format!("logs have up to {most} bytes after {} drains", self.settings.rounds))
        }
        .boxed()
    }
}
