//! Arguments that are illegal or as large as they may be, through the client and past it.
//!
//! ```text
//!   arguments/guard/0..     rows that nobody changes; whatever must be refused aims at them
//!   arguments/scratch/2     what client 2 may write
//!
//!   calls       set a key of 10,000 bytes                    must succeed
//!               set a key of 10,001 bytes                    must end with key_too_large
//!   requests    to a proxy: change a guard, clear b..a       must end with inverted_range, as a whole
//!               to a log: push of generation 0               must end with cluster_version_changed
//! ```
//!
//! Each has one documented end (`ferrisdb_core::error`). Faults may get in the way: such a try is not counted, but in
//! the end, when all is quiet, each must have come to its own end once. The guards must be what they were, all along:
//! nothing of what was refused takes effect. That no server falls over is seen by the world around.
//!
//! Start with [`Expected::judge`], then [`Arguments::pass`].
//!
//! # Caveats
//!
//! A server believes what a member of its own generation tells it, so requests that imitate one convincingly are not
//! tried: whoever can reach the servers' ports can end a generation, and worse.

mod calls;
mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Result, bail, ensure};
use ferrisdb_client::{Error, ErrorCode, Key, KeyRange, Network, Value};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use self::calls::Call;
use super::{
    Client, Workload,
    support::{self, one_in, passes, passing, persist, pick},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArgumentsSettings {
    /// How many clients.
    pub clients: u32,
    /// Whether requests are sent to servers directly, which needs a network of its own to them.
    pub raw: bool,
}

impl Default for ArgumentsSettings {
    fn default() -> Self {
        ArgumentsSettings { clients: 1, raw: true }
    }
}

/// The workload.
pub struct Arguments {
    settings: ArgumentsSettings,
    /// How often each was decided.
    decided: Arc<Mutex<BTreeMap<String, u64>>>,
    skipped: Mutex<u64>,
}

/// How something must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Success,
    Refused(ErrorCode),
}

impl Expected {
    /// Compares an end with what it must be. Returns whether it was that: a fault may have come first.
    fn judge(self, what: &str, ended: &Result<(), Error>) -> Result<bool> {
        let expected = match self {
            Expected::Success => None,
            Expected::Refused(code) => Some(code),
        };
        match ended {
            Ok(()) if expected.is_none() => Ok(true),
            Err(error) if Some(error.code()) == expected => Ok(true),
            Err(error) if passes(error) || error.is_maybe_committed() => Ok(false),
            Ok(()) => bail!("{what} succeeded, it must be refused: {self:?}"),
            Err(error) => bail!("{what} must end with {self:?} and ended with {error}"),
        }
    }
}

const GUARDS: &str = "arguments/guard/";

fn guard_key(index: usize) -> Key {
    format!("{GUARDS}{index}").into()
}

fn guards() -> BTreeMap<Key, Value> {
    (0..5).map(|index| (guard_key(index), format!("guard {index}").into())).collect()
}

/// Compares the guards with what they were.
fn check_guards(found: &BTreeMap<Key, Value>) -> Result<()> {
    let expected = guards();
    ensure!(*found == expected, "something that was refused took effect: the guards are {found:?}");
    Ok(())
}

fn scratch(client: u32) -> String {
    format!("arguments/scratch/{client}/")
}

impl Arguments {
    /// A workload of which nothing was done yet.
    pub fn new(settings: ArgumentsSettings) -> Arguments {
        Arguments { settings, decided: Arc::default(), skipped: Mutex::default() }
    }

    fn on_ended(&self, what: &str, expected: Expected, ended: &Result<(), Error>) -> Result<()> {
        if expected.judge(what, ended)? {
            *self.decided.lock().entry(what.to_owned()).or_default() += 1;
        } else {
            *self.skipped.lock() += 1;
        }
        Ok(())
    }

    /// Tries one call.
    async fn call(&self, client: &Client, call: Call, expected: Expected) -> Result<()> {
        let transaction = client.database.transaction();
        let guard = pick(&[0, 1, 2, 3, 4]);
        let ended = call.perform(&transaction, &scratch(client.number), &guard_key(*guard)).await;
        self.on_ended(&format!("{call:?}"), expected, &ended)
    }

    /// Tries all requests of one kind.
    async fn requests(&self, client: &Client, kind: usize) -> Result<()> {
        let state = client.database.status().await?.cluster;
        // Servers of generations that have ended are no subject here.
        let network = Network::new();
        network.join(state.cluster_id)?;
        let read_version = client.database.transaction().read_version().await?;
        let (scratch, guard) = (scratch(client.number), guard_key(kind));
        let sent = match kind {
            0 => {
                let commits = requests::commits(&scratch, &guard, read_version);
                requests::to_proxy(&network, &state, commits).await?
            }
            1 => requests::to_storage(&network, &state, &guard, read_version).await?,
            2 => requests::to_logs(&network, &state, &guard, read_version).await?,
            _ => requests::to_coordinator(&network, &state).await?,
        };
        for (what, expected, ended) in &sent {
            self.on_ended(what, *expected, ended)?;
        }
        Ok(())
    }

    /// Tries everything that is not decided yet, or some of it.
    async fn pass(&self, client: &Client) -> Result<()> {
        let decided: BTreeSet<String> = self.decided.lock().keys().cloned().collect();
        for &(call, expected) in Call::ALL {
            let is_new = !decided.contains(&format!("{call:?}"));
            if (is_new || one_in(3)) && (!call.is_heavy() || is_new || one_in(10)) {
                self.call(client, call, expected).await?;
            }
        }
        if self.settings.raw {
            for kind in 0..4 {
                match self.requests(client, kind).await {
                    Err(error) if passing(&error).is_some() => *self.skipped.lock() += 1,
                    other => other?,
                }
            }
        }
        self.check_guards(client).await
    }

    async fn check_guards(&self, client: &Client) -> Result<()> {
        let range = &KeyRange::prefix(GUARDS.as_bytes());
        let read = || support::read_all(&client.database, range);
        check_guards(&persist(client, "reading the guards", read).await?)
    }

    /// What must be decided in the end: all that does not depend on the cluster's shape.
    fn undecided(&self) -> Vec<String> {
        let decided = self.decided.lock();
        let calls = Call::ALL.iter().map(|(call, _)| format!("{call:?}"));
        let commits = requests::PROXY.iter().filter(|_| self.settings.raw);
        let all = calls.chain(commits.map(|name| (*name).to_owned()));
        all.filter(|name| !decided.contains_key(name)).collect()
    }
}

impl Workload for Arguments {
    fn name(&self) -> &str {
        "arguments"
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            support::run(&client, "setting the guards", |transaction| async move {
                for (key, value) in guards() {
                    transaction.set(key, value)?;
                }
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            while !client.is_stopped() {
                self.pass(&client).await?;
                support::pause().await;
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let mut passes = 0;
            while passes == 0 || !self.undecided().is_empty() {
                ensure!(passes < 50, "without faults these come to no end: {:?}", self.undecided());
                self.pass(&client).await?;
                passes += 1;
                support::pause().await;
            }
            let decided = self.decided.lock();
            let times: u64 = decided.values().sum();
            let skipped = *self.skipped.lock();
            Ok(format!("{} kinds, decided {times} times, {skipped} not", decided.len()))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Stage;

    use super::*;

    fn ended(code: ErrorCode) -> Result<(), Error> {
        Err(Error::new(code, Stage::Commit, ""))
    }

    #[test]
    fn other_ends_are_noticed() {
        let refused = Expected::Refused(ErrorCode::KeyTooLarge);
        assert!(refused.judge("it", &ended(ErrorCode::KeyTooLarge)).unwrap());
        assert!(!refused.judge("it", &ended(ErrorCode::Unavailable)).unwrap());
        assert!(!refused.judge("it", &ended(ErrorCode::CommitUnknownResult)).unwrap());
        assert!(refused.judge("it", &Ok(())).unwrap_err().to_string().contains("must be refused"));
        assert!(refused.judge("it", &ended(ErrorCode::Internal)).is_err());
        assert!(refused.judge("it", &ended(ErrorCode::ValueTooLarge)).is_err());
        assert!(Expected::Success.judge("it", &Ok(())).unwrap());
        assert!(Expected::Success.judge("it", &ended(ErrorCode::Protocol)).is_err());
    }

    #[test]
    fn changed_guards_are_noticed() {
        check_guards(&guards()).unwrap();
        let mut changed = guards();
        changed.insert(guard_key(3), "changed".into());
        assert!(check_guards(&changed).unwrap_err().to_string().contains("took effect"));
        assert!(check_guards(&BTreeMap::new()).is_err());
    }

    #[test]
    fn what_was_never_decided_is_noticed() {
        let arguments = Arguments::new(ArgumentsSettings::default());
        assert_eq!(arguments.undecided().len(), Call::ALL.len() + requests::PROXY.len());
        let refused = Expected::Refused(ErrorCode::KeyTooLarge);
        arguments.on_ended("KeyOverLimit", refused, &ended(ErrorCode::KeyTooLarge)).unwrap();
        arguments.on_ended("ValueOverLimit", refused, &ended(ErrorCode::Unavailable)).unwrap();
        let undecided = arguments.undecided();
        assert!(!undecided.contains(&"KeyOverLimit".to_owned()));
        assert!(undecided.contains(&"ValueOverLimit".to_owned()));
    }

    #[test]
    fn each_request_to_a_proxy_has_its_name() {
        let commits = requests::commits("s", &guard_key(0), ferrisdb_client::Version(7));
        assert_eq!(commits.len(), requests::PROXY.len());
    }
}
