//! Clients tell each other what they have committed, past the database: whoever begins later has to see it.
//!
//! ```text
//!   the board, outside of the database          the database
//!     highest version acknowledged  V             external_consistency/0000  7
//!     acknowledged or seen   7 4 9                external_consistency/0001  4
//!     begun                  8 4 9                external_consistency/0002  9
//!
//!   1  look at the board           --> promised
//!   2  begin, read all counters    --> read version >= V, each counter >= promised           (I-1)
//!   3  look at the board again     --> no counter > begun: nobody reads the future           (I-2)
//!   4  count oneself up, commit, write version and counters on the board
//! ```
//!
//! Only client n changes counter n, and it never goes back. Clients sit on nodes of their own and speak to
//! whichever proxy they like, so what one of them was told need not have passed by the proxy that the next one
//! asks. A commit of unknown fate may show up later; once somebody has seen it, it stays.
//!
//! Start with [`ExternalConsistency::one`].

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{Transaction, Version};
use ferrisdb_core::{Key, KeyRange, Value, atomic::AtomicOp};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    bank::number,
    common::{counter, draw, explained, patiently, pause},
};

/// The size of an [`ExternalConsistency`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalConsistencySettings {
    /// How many clients talk to each other.
    pub clients: u32,
}

impl Default for ExternalConsistencySettings {
    fn default() -> ExternalConsistencySettings {
        ExternalConsistencySettings { clients: 6 }
    }
}

/// Clients with a side channel: see the module.
pub struct ExternalConsistency {
    settings: ExternalConsistencySettings,
    board: Mutex<Board>,
}

/// What the clients tell each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// The highest version of a commit that was acknowledged.
    pub highest: Version,
    /// Up to where each counter is known to have come: acknowledged, or seen in a transaction that has ended.
    pub known: Vec<u64>,
    /// Up to where somebody has tried to bring each counter.
    pub begun: Vec<u64>,
    /// How many transactions have ended well.
    pub transactions: u64,
}

impl Board {
    fn new(clients: u32) -> Board {
        let zeros = vec![0; clients as usize];
        Board { known: zeros.clone(), begun: zeros, ..Board::default() }
    }

    /// Compares what a transaction has seen with what was on the board before it began.
    ///
    /// # Errors
    ///
    /// What it does not see although it was there before.
    pub fn check_covered(&self, read_version: Version, counters: &[u64]) -> Result<()> {
        ensure!(
            read_version >= self.highest,
            "a commit at version {} was acknowledged before a transaction began that reads at {read_version} (I-1)",
            self.highest
        );
        for (client, (&found, &known)) in counters.iter().zip(&self.known).enumerate() {
            ensure!(
                found >= known,
                "counter {client} was known to be {known} before a transaction began that reads {found} at version {read_version} (I-1)"
            );
        }
        Ok(())
    }

    /// Compares what a transaction has seen with what was begun before it had the answer.
    ///
    /// # Errors
    ///
    /// What it has seen too early.
    pub fn check_begun(&self, counters: &[u64]) -> Result<()> {
        for (client, (found, begun)) in counters.iter().zip(&self.begun).enumerate() {
            ensure!(
                found <= begun,
                "counter {client} is {found}, and nobody has counted further than {begun} (I-2)"
            );
        }
        Ok(())
    }

    /// What has been seen and committed is known from now on.
    fn publish(&mut self, committed: Option<Version>, counters: &[u64]) {
        self.highest = self.highest.max(committed.unwrap_or_default());
        for (known, &counter) in self.known.iter_mut().zip(counters) {
            *known = (*known).max(counter);
        }
        self.transactions += 1;
    }
}

/// How a client brings its counter forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Reads all counters, writes its own.
    ReadAndWrite,
    /// Writes without reading, by an operation that never brings a counter back.
    Blind,
    /// Only looks.
    Look,
    /// Only looks, without conflicts.
    LookAtSnapshot,
}

const NAME: &str = "external_consistency";

fn counter_key(client: u32) -> String {
    format!("{NAME}/{client:04}")
}

impl ExternalConsistency {
    /// Clients that have nothing to tell yet.
    pub fn new(settings: ExternalConsistencySettings) -> ExternalConsistency {
        let board = Mutex::new(Board::new(settings.clients));
        ExternalConsistency { settings, board }
    }

    /// Reads all counters at one version.
    async fn look(&self, transaction: &Transaction, way: Way) -> Result<(Version, Vec<u64>)> {
        let range = KeyRange::prefix(format!("{NAME}/").as_bytes());
        let rows = match way {
            Way::LookAtSnapshot => transaction.snapshot().get_range(range).await?,
            _ => transaction.get_range(range).await?,
        };
        let mut counters = vec![0; self.settings.clients as usize];
        for row in rows {
            let client: usize = number(&row.key[NAME.len() + 1..])?;
            let place = counters.get_mut(client);
            *place.with_context(|| format!("{} is nobody's counter", row.key))? =
                counter(Some(&row.value))?;
        }
        Ok((transaction.read_version().await?, counters))
    }

    /// One transaction, with all comparisons.
    async fn one(&self, client: &Client, way: Way) -> Result<()> {
        let own = client.number as usize;
        let promised = self.board.lock().clone();
        let transaction = client.database.transaction();
        let mut counters = Vec::new();
        if way != Way::Blind {
            let (read_version, found) = self.look(&transaction, way).await?;
            promised.check_covered(read_version, &found)?;
            self.board.lock().check_begun(&found)?;
            counters = found;
        }
        if matches!(way, Way::ReadAndWrite | Way::Blind) {
            let next = {
                let mut board = self.board.lock();
                board.begun[own] += 1;
                board.begun[own]
            };
            let value = Value::from(&next.to_le_bytes());
            match way {
                Way::Blind => {
                    transaction.atomic(AtomicOp::Max, counter_key(client.number), value)?
                }
                _ => transaction.set(counter_key(client.number), value)?,
            }
            counters.resize(self.settings.clients as usize, 0);
            counters[own] = next;
        }
        let committed = transaction.commit().await?;
        let version = committed.versionstamp.map(|stamp| stamp.commit_version);
        self.board.lock().publish(version, &counters);
        Ok(())
    }
}

impl Workload for ExternalConsistency {
    fn name(&self) -> &str {
        NAME
    }

    fn cuts(&self) -> Vec<Key> {
        [1, 2].map(|client| counter_key(client).into()).to_vec()
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
                let way = match draw(5) {
                    0 | 1 => Way::ReadAndWrite,
                    2 => Way::Blind,
                    3 => Way::Look,
                    _ => Way::LookAtSnapshot,
                };
                if let Err(error) = self.one(&client, way).await {
                    let error = explained(error)?;
                    // Conflicts are the rule here: every writer reads all counters.
                    if error.code() != ferrisdb_client::ErrorCode::NotCommitted {
                        pause().await;
                    }
                }
            }
            Ok(())
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let promised = self.board.lock().clone();
            let (read_version, counters) = patiently(&client.database, |transaction| async move {
                self.look(&transaction, Way::Look).await
            })
            .await?;
            promised.check_covered(read_version, &counters)?;
            promised.check_begun(&counters)?;
            Ok(format!("{} transactions, counters {counters:?}", promised.transactions))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board { highest: Version(20), known: vec![7, 4], begun: vec![8, 4], transactions: 0 }
    }

    #[test]
    fn whoever_sees_what_was_told_passes() {
        board().check_covered(Version(20), &[7, 4]).unwrap();
        board().check_covered(Version(30), &[8, 4]).unwrap();
        board().check_begun(&[8, 4]).unwrap();
    }

    #[test]
    fn what_was_told_and_is_not_seen_is_found() {
        let error = board().check_covered(Version(19), &[7, 4]).unwrap_err().to_string();
        assert!(error.contains("I-1") && error.contains("version 20"), "{error}");
        let error = board().check_covered(Version(20), &[7, 3]).unwrap_err().to_string();
        assert!(error.contains("I-1") && error.contains("counter 1"), "{error}");
    }

    #[test]
    fn nobody_reads_the_future() {
        board().check_begun(&[8, 5]).unwrap_err();
    }

    #[test]
    fn the_board_only_grows() {
        let mut board = board();
        board.publish(Some(Version(10)), &[6, 5]);
        assert_eq!((board.highest, board.known), (Version(20), vec![7, 5]));
    }
}
