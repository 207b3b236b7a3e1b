//! All replicas hold the same, byte for byte (I-2).
//!
//! ```text
//!   meanwhile    now and then everything is compared: servers may be silent, but no two may differ
//!   in the end   wait until every shard is as often as it should be, on servers that live;
//!                then everything must be read, and be the same everywhere
//! ```
//!
//! It looks at the data of all workloads, and has none of its own. Start with [`check_report`].

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ferrisdb_client::{ConsistencyReport, Status};
use ferrisdb_core::{Tag, runtime, service::controller::Phase};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{self, passes},
};

/// When to look, and for how long to wait.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicaCheckSettings {
    /// Seconds between two comparisons while clients work; zero for none.
    pub interval_seconds: u64,
    /// Seconds in which the cluster must come to rest in the end.
    pub rest_seconds: u64,
}

impl Default for ReplicaCheckSettings {
    fn default() -> Self {
        ReplicaCheckSettings { interval_seconds: 5, rest_seconds: 180 }
    }
}

/// The workload.
pub struct ReplicaCheck {
    settings: ReplicaCheckSettings,
    comparisons: Mutex<u64>,
}

impl ReplicaCheck {
    /// A workload of which nothing was done yet.
    pub fn new(settings: ReplicaCheckSettings) -> ReplicaCheck {
        ReplicaCheck { settings, comparisons: Mutex::default() }
    }

    /// Compares everything while others write and faults happen.
    async fn compare(&self, client: &Client) -> Result<()> {
        match client.database.check_consistency(|_| {}).await {
            Ok(report) => {
                check_differences(&report)?;
                *self.comparisons.lock() += 1;
            }
            Err(error) => ensure!(passes(&error), "a comparison ended with {error}"),
        }
        Ok(())
    }

    async fn wait_for_rest(&self, client: &Client) -> Result<()> {
        let (began, limit) = (runtime::now(), Duration::from_secs(self.settings.rest_seconds));
        loop {
            let unrest = match client.database.status().await {
                Ok(status) => match unrest(&status) {
                    None => return Ok(()),
                    Some(unrest) => unrest,
                },
                Err(error) => error.to_string(),
            };
            if runtime::now().duration_since(began) > limit {
                bail!("not at rest {limit:?} after the last fault (I-13): {unrest}");
            }
            runtime::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Why the cluster is not at rest.
fn unrest(status: &Status) -> Option<String> {
    let cluster = &status.cluster;
    if cluster.phase != Phase::Active {
        return Some(format!("{:?}", cluster.phase));
    }
    if !status.repairs.is_empty() || !status.stuck.is_empty() {
        return Some(format!("repairs {:?}, stuck {:?}", status.repairs, status.stuck));
    }
    let copies = cluster.configuration.as_ref().map_or(1, |c| c.redundancy.copies()) as usize;
    let is_alive = |tag: &Tag| {
        let server = cluster.storage_servers.iter().find(|server| server.tag == *tag);
        server.is_some_and(|server| {
            let mut processes = status.processes.iter();
            processes.any(|p| p.heartbeat.process == server.process && p.alive)
        })
    };
    let incomplete = cluster.shards.shards().iter().find(|shard| {
        let teams = &shard.teams;
        !teams.joining.is_empty() || teams.team.len() != copies || !teams.team.iter().all(is_alive)
    });
    incomplete.map(|shard| format!("shard {} has {:?}", shard.range, shard.teams))
}

fn check_differences(report: &ConsistencyReport) -> Result<()> {
    let first = report.differences.first();
    ensure!(
        report.total.differences == 0,
        "replicas differ under {} keys (I-2), the first: {first:#?}",
        report.total.differences
    );
    Ok(())
}

/// Judges a comparison of a cluster at rest.
fn check_report(report: &ConsistencyReport) -> Result<()> {
    check_differences(report)?;
    ensure!(report.is_clean(), "replicas of a cluster at rest do not answer: {report:#?}");
    Ok(())
}

impl Workload for ReplicaCheck {
    fn name(&self) -> &str {
        "replica_check"
    }

    fn clients(&self) -> u32 {
        1
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            let interval = Duration::from_secs(self.settings.interval_seconds);
            let mut next = runtime::now() + interval;
            while !client.is_stopped() {
                runtime::sleep(runtime::jitter(Duration::from_millis(500))).await;
                if !interval.is_zero() && runtime::now() >= next {
                    self.compare(&client).await?;
                    next = runtime::now() + interval;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            self.wait_for_rest(&client).await?;
            // A server that was restarted a moment ago may still be catching up.
            let check = || async { Ok(client.database.check_consistency(|_| {}).await?) };
            let report = support::persist(&client, "comparing replicas", check).await?;
            check_report(&report)?;
            let meanwhile = *self.comparisons.lock();
            Ok(format!("{:?}, and compared {meanwhile} times meanwhile", report.total))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::{ConsistencyProgress, Difference, KeyRange, Replica, Unchecked, Version};

    use super::*;

    #[test]
    fn differences_and_silence_are_noticed() {
        check_report(&ConsistencyReport::default()).unwrap();
        let difference = Difference { key: "k".into(), read_version: Version(7), rows: Vec::new() };
        let different = ConsistencyReport {
            total: ConsistencyProgress { differences: 1, ..ConsistencyProgress::default() },
            differences: vec![difference],
            ..ConsistencyReport::default()
        };
        let complaint = check_report(&different).unwrap_err().to_string();
        assert!(complaint.contains("I-2") && complaint.contains("'k'"), "{complaint}");
        let silent = ConsistencyReport {
            unchecked: vec![Unchecked {
                replica: Replica { tag: Tag(1), address: None },
                range: KeyRange::new("a", "b"),
                reason: "gone".to_owned(),
            }],
            ..ConsistencyReport::default()
        };
        check_differences(&silent).unwrap();
        assert!(check_report(&silent).unwrap_err().to_string().contains("do not answer"));
    }
}
