//! The status among the special keys comes soon and is true, whatever happens to the cluster.
//!
//! ```text
//!   faults      ..... kill ........... partition ........
//!   reads       s   s      s  s    s           s   s        each comes within a bound, with what typed readers require
//!   available   y   y      n  y    y           n   y        what a transaction found out, nothing else
//! ```
//!
//! Nobody else knows how the cluster is while faults happen, so what a status says is compared with what it says elsewhere: who is
//! reachable with whether that is a majority, the availability with the times of the probe. When all faults are over it must come
//! to say that everything is well.
//!
//! Start with [`check_status`].

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{Database, Stage};
use ferrisdb_core::runtime;
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use super::{Client, Workload, support};

/// How much of it, and the bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusSettings {
    /// How many clients.
    pub clients: u32,
    /// Milliseconds between two readings of a client.
    pub pause_ms: u64,
    /// Seconds in which a status must come.
    pub answer_seconds: u64,
    /// Seconds after the last fault in which it must say that all is well.
    pub recovery_seconds: u64,
}

impl Default for StatusSettings {
    fn default() -> Self {
        StatusSettings { clients: 2, pause_ms: 200, answer_seconds: 10, recovery_seconds: 180 }
    }
}

/// The workload.
pub struct Status {
    settings: StatusSettings,
    seen: Mutex<Seen>,
}

/// How often what was read.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    read: u64,
    unavailable: u64,
    without_leader: u64,
}

impl Status {
    /// A workload of which nothing was done yet.
    pub fn new(settings: StatusSettings) -> Status {
        Status { settings, seen: Mutex::default() }
    }

    async fn read(&self, database: &Database) -> Result<Value> {
        let transaction = database.transaction();
        let limit = Duration::from_secs(self.settings.answer_seconds);
        let read = transaction.get(b"\xff\xff/status/json");
        let text = runtime::timeout(limit, Stage::Client, read).await;
        let text = text.with_context(|| format!("no status within {limit:?}"))??;
        let status = serde_json::from_slice(&text.context("there is always a status")?)?;
        check_status(&status).with_context(|| format!("{status}"))?;
        Ok(status)
    }
}

/// A field, by the names on the way to it.
fn field<'a>(status: &'a Value, path: &str) -> Result<&'a Value> {
    let found = path.split('.').try_fold(status, |value, name| value.get(name));
    found.with_context(|| format!("{path} is missing"))
}

fn flag(status: &Value, path: &str) -> Result<bool> {
    field(status, path)?.as_bool().with_context(|| format!("{path} is neither true nor false"))
}

fn list<'a>(status: &'a Value, path: &str) -> Result<&'a Vec<Value>> {
    field(status, path)?.as_array().with_context(|| format!("{path} is no list"))
}

/// Whether a status is complete, and agrees with itself.
fn check_status(status: &Value) -> Result<()> {
    let coordinators = list(status, "client.coordinators.coordinators")?;
    let reachable = coordinators.iter().filter(|one| one["reachable"] == true).count();
    ensure!(
        flag(status, "client.coordinators.quorum_reachable")?
            == (2 * reachable > coordinators.len()),
        "{reachable} of {} controllers are no majority, or they are",
        coordinators.len()
    );
    let available = flag(status, "client.database_status.available")?;
    ensure!(available == flag(status, "cluster.database_available")?, "available and not");
    let probe = &status["cluster"]["latency_probe"]["commit_seconds"];
    ensure!(
        available == probe.is_number(),
        "the status says that the database is available: {available}; the probe's commit: {probe}"
    );
    ensure!(
        available || !flag(status, "client.database_status.healthy")?,
        "healthy, not available"
    );
    if !flag(status, "cluster.layers._valid")? {
        ensure!(!list(status, "client.messages")?.is_empty(), "nothing says what is the matter");
        return Ok(());
    }
    for required in ["generation", "data.state.name", "qos", "machines", "recovery_state.name"] {
        field(&status["cluster"], required)?;
    }
    let processes = field(status, "cluster.processes")?.as_object().context("no processes")?;
    let addresses: BTreeSet<&str> =
        processes.values().filter_map(|process| process["address"].as_str()).collect();
    ensure!(addresses.len() == processes.len(), "a process is listed twice");
    ensure!(processes.values().all(|process| process["roles"].is_array()), "no roles");
    for message in list(status, "cluster.messages")? {
        let named = message["unreachable_processes"].as_array().into_iter().flatten();
        for address in named.filter_map(|process| process["address"].as_str()) {
            ensure!(!addresses.contains(address), "{address} is listed, and is not reachable");
        }
    }
    Ok(())
}

impl Workload for Status {
    fn name(&self) -> &str {
        "status"
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            while !client.is_stopped() {
                let status = self.read(&client.database).await?;
                {
                    let mut seen = self.seen.lock();
                    seen.read += 1;
                    seen.unavailable += u64::from(status["cluster"]["database_available"] == false);
                    seen.without_leader +=
                        u64::from(status["cluster"]["layers"]["_valid"] == false);
                }
                let pause = Duration::from_millis(self.settings.pause_ms);
                runtime::sleep(runtime::jitter(pause)).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let (began, limit) =
                (runtime::now(), Duration::from_secs(self.settings.recovery_seconds));
            loop {
                let status = self.read(&client.database).await?;
                if status["client"]["database_status"]["healthy"] == true {
                    return Ok(format!("{:?}", *self.seen.lock()));
                }
                if runtime::now().duration_since(began) > limit {
                    bail!("{limit:?} after the last fault the status is {status}");
                }
                support::pause().await;
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nobody() -> Value {
        let coordinator = json!({ "address": "a:1", "reachable": false });
        json!({
            "client": {
                "coordinators": { "coordinators": [coordinator], "quorum_reachable": false },
                "database_status": { "available": false, "healthy": false },
                "messages": [{ "name": "quorum_not_reachable" }],
            },
            "cluster": { "database_available": false, "layers": { "_valid": false } },
        })
    }

    #[test]
    fn a_status_that_contradicts_itself_is_noticed() {
        check_status(&nobody()).unwrap();
        let wrong: [(&[&str], Value); 4] = [
            (&["client", "coordinators", "quorum_reachable"], json!(true)),
            (&["client", "database_status", "available"], json!(true)),
            (&["client", "messages"], json!([])),
            (&["cluster", "layers"], json!({ "_valid": true })),
        ];
        for (path, value) in wrong {
            let mut status = nobody();
            let place = path.iter().fold(&mut status, |value, name| &mut value[*name]);
            *place = value;
            assert!(check_status(&status).is_err(), "{path:?}");
        }
    }
}
