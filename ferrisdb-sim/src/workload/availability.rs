//! The cluster commits, and after the last fault it does so again within a bound (I-13).
//!
//! ```text
//!   commits      |||||||||||          ||||||||||||||||    |||||||||||
//!                           <- gap ->                             ^ the last fault is over
//!                                                                 |<- bound ->| a commit must succeed
//! ```
//!
//! Each client counts in a key of its own, without pause, one commit after the other. A cluster that hangs is a
//! failure: a single call that does not come back is one even while faults happen. What was counted must be there
//! in the end.
//!
//! Where faults always leave enough to go on, each client has a bound of its own for its longest gap: that the cluster serves
//! others is no help to one that waits for a machine that it cannot reach.
//!
//! Start with [`Availability::commit`].

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{Key, Stage};
use ferrisdb_core::runtime::{self, Instant};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{self, Fate, fate, passing},
};

/// How much of it, and the bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AvailabilitySettings {
    /// How many clients.
    pub clients: u32,
    /// Milliseconds between two commits of a client.
    pub pause_ms: u64,
    /// Seconds after the last fault in which a commit must succeed.
    pub recovery_seconds: u64,
    /// Seconds in which one attempt must come to an end, of whatever kind, at any time.
    pub attempt_seconds: u64,
    /// Most seconds from one commit of a client to its next one, at any time. Zero: no bound, because faults may leave too
    /// little.
    pub gap_seconds: u64,
}

impl Default for AvailabilitySettings {
    fn default() -> Self {
        AvailabilitySettings {
            clients: 1,
            pause_ms: 20,
            recovery_seconds: 30,
            attempt_seconds: 60,
            gap_seconds: 0,
        }
    }
}

/// The workload.
pub struct Availability {
    settings: AvailabilitySettings,
    counts: Mutex<BTreeMap<u32, Count>>,
}

/// What a client has counted.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    acknowledged: u64,
    attempts: u64,
    commits: u64,
    longest_gap: Duration,
}

impl Count {
    /// A commit succeeded, so long after the one before.
    fn on_commit(&mut self, number: u64, gap: Duration) {
        self.acknowledged = number;
        self.commits += 1;
        self.longest_gap = self.longest_gap.max(gap);
    }

    /// Compares the count with what the database has in the end.
    fn check(&self, client: u32, found: u64) -> Result<()> {
        ensure!(
            found >= self.acknowledged,
            "client {client} was told that {} is committed, there is {found} (I-5)",
            self.acknowledged
        );
        ensure!(
            found <= self.attempts,
            "client {client} has counted to {}, there is {found}",
            self.attempts
        );
        Ok(())
    }
}

impl Availability {
    /// A workload of which nothing was done yet.
    pub fn new(settings: AvailabilitySettings) -> Availability {
        Availability { settings, counts: Mutex::default() }
    }

    /// One attempt to commit a number.
    async fn commit(&self, client: &Client, key: &Key, number: u64) -> Result<bool> {
        let limit = Duration::from_secs(self.settings.attempt_seconds);
        let transaction = client.database.transaction();
        let attempt = async {
            // What was sent before and comes late will conflict.
            transaction.get(key).await?;
            transaction.set(key, number.to_be_bytes().to_vec())?;
            transaction.commit().await
        };
        let ended = runtime::timeout(limit, Stage::Client, attempt).await;
        let ended = ended.map_err(|_| {
            anyhow::anyhow!("a transaction has not come to any end for {limit:?}: it hangs (I-13)")
        })?;
        Ok(matches!(fate(ended)?, Fate::Committed(_)))
    }

    async fn work(&self, client: &Client, count: &mut Count) -> Result<()> {
        let key = key_of(client.number);
        let mut last = runtime::now();
        while !client.is_stopped() {
            count.attempts += 1;
            let number = count.attempts;
            match self.commit(client, &key, number).await {
                Ok(true) => {
                    let now = runtime::now();
                    count.on_commit(number, now.duration_since(last));
                    last = now;
                }
                Ok(false) => {}
                Err(error) if passing(&error).is_some() => {}
                Err(error) => return Err(error),
            }
            self.check_gap(count, runtime::now().duration_since(last))?;
            runtime::sleep(runtime::jitter(Duration::from_millis(self.settings.pause_ms))).await;
        }
        Ok(())
    }

    /// A client must not be without a commit for so long; `since_last` counts what has not ended yet.
    fn check_gap(&self, count: &Count, since_last: Duration) -> Result<()> {
        let bound = Duration::from_secs(self.settings.gap_seconds);
        let gap = count.longest_gap.max(since_last);
        ensure!(
            bound.is_zero() || gap <= bound,
            "a client has not committed for {gap:?}, although enough was left for it (I-13)"
        );
        Ok(())
    }

    /// Commits until it succeeds, which must not take longer than the bound.
    async fn recover(&self, client: &Client) -> Result<Duration> {
        let (began, key) = (runtime::now(), Key::from("availability/check"));
        let limit = Duration::from_secs(self.settings.recovery_seconds);
        let mut last = None;
        loop {
            let left = (began + limit).saturating_duration_since(runtime::now());
            let attempt = self.commit(client, &key, 1);
            match runtime::timeout(left, Stage::Client, attempt).await {
                Ok(Ok(true)) => return Ok(runtime::now().duration_since(began)),
                Ok(Ok(false)) => {}
                Ok(Err(error)) if passing(&error).is_some() => last = Some(error.to_string()),
                Ok(Err(error)) => return Err(error),
                Err(_) => bail!("no commit for {limit:?} after the last fault (I-13): {last:?}"),
            }
            self.check_time(began, limit, last.as_deref())?;
            support::pause().await;
        }
    }

    fn check_time(&self, began: Instant, limit: Duration, last: Option<&str>) -> Result<()> {
        let passed = runtime::now().duration_since(began);
        ensure!(passed < limit, "no commit for {limit:?} after the last fault (I-13): {last:?}");
        Ok(())
    }
}

fn key_of(client: u32) -> Key {
    format!("availability/{client:03}").into()
}

impl Workload for Availability {
    fn name(&self) -> &str {
        "availability"
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut count = Count::default();
            self.work(&client, &mut count).await?;
            client.note(format_args!("availability {} {count:?}", client.number));
            self.counts.lock().insert(client.number, count);
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let recovered = self.recover(&client).await?;
            let counts = self.counts.lock().clone();
            for (&number, count) in &counts {
                let key = &key_of(number);
                let read =
                    || async { Ok(client.database.transaction().snapshot().get(key).await?) };
                let found = support::persist(&client, "reading a count", read).await?;
                let found = found.map(|value| value.as_slice().try_into().map(u64::from_be_bytes));
                let found = found.transpose().context("a count has eight bytes")?;
                count.check(number, found.unwrap_or(0))?;
            }
            let longest = counts.values().map(|count| count.longest_gap).max();
            let commits: u64 = counts.values().map(|count| count.commits).sum();
            Ok(format!(
                "{commits} commits, longest gap {:?}, a commit {recovered:?} after the last fault",
                longest.unwrap_or_default()
            ))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_foreign_counts_are_noticed() {
        let mut count = Count { attempts: 9, ..Count::default() };
        count.on_commit(6, Duration::from_secs(2));
        count.on_commit(7, Duration::from_secs(1));
        assert_eq!((count.longest_gap, count.commits), (Duration::from_secs(2), 2));
        count.check(1, 7).unwrap();
        count.check(1, 9).unwrap();
        assert!(count.check(1, 6).unwrap_err().to_string().contains("I-5"));
        assert!(count.check(1, 10).is_err());
    }

    #[test]
    fn one_client_that_hangs_is_noticed() {
        let settings = AvailabilitySettings { gap_seconds: 10, ..AvailabilitySettings::default() };
        let availability = Availability::new(settings);
        let mut count = Count { attempts: 2, ..Count::default() };
        count.on_commit(1, Duration::from_secs(10));
        assert!(availability.check_gap(&count, Duration::from_secs(10)).is_ok());
        assert!(availability.check_gap(&count, Duration::from_secs(11)).is_err(), "it hangs now");
        count.on_commit(2, Duration::from_secs(11));
        assert!(availability.check_gap(&count, Duration::ZERO).is_err(), "it has hung");
        let boundless = Availability::new(AvailabilitySettings::default());
        assert!(boundless.check_gap(&count, Duration::from_secs(99)).is_ok());
    }

    #[test]
    fn a_recovery_that_takes_too_long_is_noticed() {
        let availability = Availability::new(AvailabilitySettings::default());
        let (began, limit) = (runtime::now(), Duration::from_secs(30));
        assert!(availability.check_time(began, limit, None).is_ok());
        assert!(availability.check_time(began, Duration::ZERO, None).is_err());
    }
}
