//! Nobody does anything for a while, of any length; then many begin at once.
//!
//! ```text
//!   a transaction reads A, and is left alone
//!   ........... a moment, or some windows ...........
//!   many begin together, and read                     all of them are milliseconds old:
//!   somebody else commits, and moves the versions on  none of them may hear that it is too old
//!   they read again, and commit
//!   the old one reads B: too old, if it was left alone for some windows
//! ```
//!
//! Read versions, the sequencer's clock, and what resolvers and storage servers keep have to agree at every length of the pause:
//! a transaction lives for the better part of a window from its beginning, and not for much longer than a window.
//!
//! Only one client works here, or it would not be idle. Run it alone.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{Error, ErrorCode, Transaction, Version};
use ferrisdb_core::{limits, runtime};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{Fate, draw, fate, passes, pause, run},
};

/// The size of an [`Idle`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdleSettings {
    /// How long a transaction may last: what the cluster was told.
    pub window_ms: u64,
    /// How many begin at once.
    pub transactions: usize,
}

impl Default for IdleSettings {
    fn default() -> IdleSettings {
        IdleSettings { window_ms: 5_000, transactions: 24 }
    }
}

/// Pauses of every length: see the module.
pub struct Idle {
    settings: IdleSettings,
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    pauses: u64,
    committed: u64,
    too_old: u64,
}

const A: &str = "idle/a";
const B: &str = "idle/b";

impl Idle {
    /// A database in which nothing has happened yet.
    pub fn new(settings: IdleSettings) -> Idle {
        Idle { settings, counts: Mutex::default() }
    }

    fn window(&self) -> Duration {
        Duration::from_millis(self.settings.window_ms)
    }

    async fn round(&self, client: &Client) -> Result<()> {
        let old = client.database.transaction();
        let Some(began_at) = begin(&old).await? else { return Ok(()) };
        let longest = self.window().as_millis() as usize * 5;
        let length = Duration::from_millis((1usize << draw(longest.ilog2() as usize + 1)) as u64);
        let length = length + runtime::jitter(length) / 4;
        runtime::sleep(length).await;

        let burst = (0..self.settings.transactions).map(|_| client.database.transaction());
        let burst: Vec<_> = burst.collect();
        let awake = runtime::now();
        let begun = futures::future::join_all(burst.iter().map(begin)).await;
        let first = client.database.transaction();
        first.set("idle/first", "moves versions on")?;
        let moved = fate(first.commit().await)?;
        let others =
            burst.iter().zip(begun).enumerate().map(|(number, (transaction, begun))| async move {
                let Some(read_version) = begun? else { return Ok(None) };
                let ended = self.finish(transaction, number).await;
                Ok::<_, anyhow::Error>(Some((read_version, ended)))
            });
        for other in futures::future::join_all(others).await {
            let Some((read_version, ended)) = other? else { continue };
            let took = runtime::now().duration_since(awake);
            match ended {
                Err(error) if error.code() == ErrorCode::TransactionTooOld => {
                    let is_slow = took > self.window() / 2;
                    ensure!(
                        is_slow || self.has_recovered(client, read_version).await?,
                        "a transaction is too old {took:?} after it began, after a pause of {length:?}: {error}"
                    );
                }
                Err(error) if error.is_maybe_committed() || passes(&error) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => self.counts.lock().committed += 1,
            }
        }
        self.counts.lock().pauses += 1;

        // Far beyond the window: also the slowest flush has refused it by now.
        let is_long = length > self.window() * 3 + Duration::from_secs(2);
        if is_long && matches!(moved, Fate::Committed(_)) {
            match old.get(B).await {
                Err(error) if error.code() == ErrorCode::TransactionTooOld => {
                    self.counts.lock().too_old += 1;
                }
                Err(error) if passes(&error) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => bail!(
                    "a transaction at version {began_at} still reads after {length:?}, the window is {:?}",
                    self.window()
                ),
            }
        }
        Ok(())
    }

    async fn finish(&self, transaction: &Transaction, number: usize) -> Result<(), Error> {
        transaction.get(B).await?;
        transaction.set(format!("idle/burst/{number:03}"), "here")?;
        transaction.commit().await.map(drop)
    }

    /// Whether another generation has begun since a read version was handed out.
    async fn has_recovered(&self, client: &Client, read_version: Version) -> Result<bool> {
        let fresh = run(client, "a read version", |transaction| async move {
            Ok(transaction.read_version().await?)
        });
        Ok(fresh.await?.0 > read_version.0 + limits::RECOVERY_VERSION_JUMP / 2)
    }
}

/// Begins a transaction by a read. Its read version, unless a fault is in the way.
async fn begin(transaction: &Transaction) -> Result<Option<Version>> {
    match transaction.get(A).await {
        Ok(_) => Ok(Some(transaction.read_version().await?)),
        Err(error) if passes(&error) => Ok(None),
        Err(error) => Err(error).context("the first read of a transaction"),
    }
}

impl Workload for Idle {
    fn name(&self) -> &str {
        "idle"
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
                self.round(&client).await?;
                pause().await;
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, _: Client) -> BoxFuture<'_, Result<String>> {
        async {
            let Counts { pauses, committed, too_old } = *self.counts.lock();
            ensure!(pauses > 0 && committed > 0, "nothing was done after {pauses} pauses");
            Ok(format!("{committed} commits after {pauses} pauses, {too_old} too old"))
        }
        .boxed()
    }
}
