//! What clients do. Each workload says how it is prepared, what one operation is, and what must hold afterwards.
//!
//! | file | workloads |
//! |---|---|
//! | `mix.rs` | point reads, blind updates, and what is made of them |
//! | `ycsb.rs` | the six core workloads of YCSB |
//! | `scan.rs` | ranges |
//! | `transfer.rs` | the bank, whose sum stays |
//! | `queue.rs` | items with keys by versionstamp |
//! | `watches.rs` | one change, many who wait for it |
//! | `latency.rs` | the parts of a transaction, one after the other |

mod latency;
mod mix;
mod queue;
mod scan;
mod transfer;
mod watches;
mod ycsb;

use std::sync::Arc;

use clap::ValueEnum;
use ferrisdb_client::{Database, Result};
use futures::future::BoxFuture;

use crate::{
    clients::Client,
    distribution::{Distribution, Draw},
    load,
    rows::{Rows, Table},
    tally::Work,
};

/// What clients do in a run.
pub(crate) trait Workload: Send + Sync {
    /// One operation, to its end.
    fn operate<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<Work>>;

    /// What must hold when all clients have ended: in words if it does, an error if not. `None` if there is nothing to check.
    fn check<'a>(
        &'a self,
        _database: &'a Database,
        _totals: Totals,
    ) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        Box::pin(async { Ok(None) })
    }
}

/// What all clients did from the begin of the warm-up to their end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    /// What succeeded.
    pub(crate) done: Work,
    /// How many operations ended so that nobody knows whether they took effect.
    pub(crate) unknown: u64,
}

impl Totals {
    /// Whether such a number of effects agrees with what clients saw.
    fn explains(&self, effects: u64, expected: u64) -> bool {
        (expected..=expected + self.unknown).contains(&effects)
    }
}

/// The workloads, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Read one row
    PointRead,
    /// Read ten rows, one after the other, in one transaction
    TenKeyTransaction,
    /// Read ten rows, issued together, in one transaction
    TenReadsTogether,
    /// Write one row without reading it
    BlindUpdate,
    /// Nine times out of ten read one row, else write one
    #[value(name = "mix-90-10")]
    Mix9010,
    /// Half reads of a row, a quarter updates without a read, a quarter reads and writes of a row
    #[value(name = "mix-50-25-25")]
    Mix502525,
    /// Read one row and write it
    ReadModifyWrite,
    /// Read nine rows, then read and write a tenth one
    NineReadsOneUpdate,
    /// 50 % reads, 50 % updates
    YcsbA,
    /// 95 % reads, 5 % updates
    YcsbB,
    /// Reads only
    YcsbC,
    /// 95 % reads of what is new, 5 % inserts
    YcsbD,
    /// 95 % scans of up to 100 rows, 5 % inserts
    YcsbE,
    /// 50 % reads, 50 % read-modify-writes
    YcsbF,
    /// Read ranges of 1,000 rows
    Scan,
    /// Read two accounts and write both; the sum is checked at the end
    Transfer,
    /// Append to a queue, with keys by versionstamp
    QueueInsert,
    /// Many watches of one key, and a change that all of them must hear of
    WatchFanout,
    /// The parts of a transaction by themselves: read version, read, commit (meant for one client)
    Latency,
}

impl Kind {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How workloads are sized.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// Rows to read and update.
    pub(crate) keys: u64,
    /// Accounts of the bank.
    pub(crate) accounts: u64,
    /// Rows of a scan.
    pub(crate) scan_rows: u64,
    /// Watches of one change.
    pub(crate) watchers: u64,
    /// How rows are drawn; each workload has a default.
    pub(crate) distribution: Option<Distribution>,
    /// Whether missing rows are loaded.
    pub(crate) may_load: bool,
    /// Whether nothing is said while they are.
    pub(crate) is_quiet: bool,
}

impl Sizes {
    fn draw(&self, default: Distribution) -> Draw {
        Draw::new(self.distribution.unwrap_or(default), self.keys)
    }
}

/// Prepares a workload: loads what it needs.
///
/// # Errors
///
/// What the database refuses.
pub(crate) async fn prepare(
    kind: Kind,
    sizes: &Sizes,
    rows: &Arc<Rows>,
    database: &Database,
) -> anyhow::Result<Arc<dyn Workload>> {
    let (table, count, counter) = match kind {
        Kind::Transfer => (Table::Accounts, sizes.accounts, transfer::FIRST_BALANCE),
        _ => (Table::Keys, sizes.keys, 0),
    };
    if sizes.may_load && !matches!(kind, Kind::QueueInsert | Kind::WatchFanout) {
        load::load(database, rows, table, count, counter, sizes.is_quiet).await?;
    }
    Ok(match kind {
        Kind::PointRead
        | Kind::TenKeyTransaction
        | Kind::TenReadsTogether
        | Kind::BlindUpdate
        | Kind::Mix9010
        | Kind::Mix502525
        | Kind::ReadModifyWrite
        | Kind::NineReadsOneUpdate => Arc::new(mix::Mix::new(kind, sizes, rows, database).await?),
        Kind::YcsbA | Kind::YcsbB | Kind::YcsbC | Kind::YcsbD | Kind::YcsbE | Kind::YcsbF => {
            Arc::new(ycsb::Ycsb::new(kind, sizes, rows, database).await?)
        }
        Kind::Scan => Arc::new(scan::Scan::new(sizes)?),
        Kind::Transfer => Arc::new(transfer::Transfer::new(sizes, rows)?),
        Kind::QueueInsert => Arc::new(queue::Queue::new(rows, database).await?),
        Kind::WatchFanout => Arc::new(watches::Watches::new(sizes)),
        Kind::Latency => Arc::new(latency::Latency::new(sizes)),
    })
}
