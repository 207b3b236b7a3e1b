//! A transaction, as the caller sees it.
//!
//! ```text
//!            reads, writes           commit                     its answer
//!   Open ------------------> Open ------------> Committing ------------------> Ended
//!    ^                                              |                           |
//!    +--------------- reset, on_error --------------+---------------------------+
//! ```
//!
//! Everything lies in one state under one lock, which is never held across a wait. A call that waits takes
//! with it what it needs, and compares the attempt when it comes back: an answer that arrives after a reset
//! belongs to no attempt any more and is an error. A commit sees the reads under way to their end, because their
//! conflict ranges go with it (I-15). All that waits follows one deadline, the attempt's, wherever it moves.
//!
//! - `reads.rs`, `ranges.rs`, `snapshot.rs`, `writes.rs`, `conflicts.rs`, `watch.rs`, `options.rs`: what is done in an attempt
//! - `work.rs`, `read_version.rs`, `outstanding.rs`, `joint.rs`, `timer.rs`, `stamps.rs`, `turns.rs`: what an attempt keeps for that
//! - `phase.rs`: what may be done when, and with what error everything else is refused
//! - `commit.rs`, `fate.rs`, `attempts.rs`: the end of an attempt, what became of it, and the next one
//!
//! Start with [`Transaction::get`] in `reads.rs`, then [`Transaction::commit`] in `commit.rs`.

use std::{sync::Arc, time::Duration};

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Mutation, Result, Stage, Value, Version, Versionstamp,
    runtime::{self, Instant},
    simulation::{Plant, planted},
    transaction,
};
use futures::FutureExt as _;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    database::Database,
    options::{
        ConflictingRange, KeyValue, Priority, RangePage, RangeQuery, TransactionOption,
        TransactionOptions, VersionedValue,
    },
    range_stream::RangeStream,
    read_your_writes::{Lookup, Overlay, RangeSet},
    retry::Backoff,
    selector::KeySelector,
    watch::PendingWatch,
};
use commit::not_committed;
use fate::{Fate, Settles};
use outstanding::{Failure, Outstanding};
use phase::{Phase, cancelled, timed_out};
use read_version::ReadVersion;
pub use snapshot::Snapshot;
use stamps::Stamps;
use timer::Timer;
use turns::Turns;
pub(crate) use turns::{Act, Turn};
use work::Work;

mod attempts;
mod commit;
mod conflicts;
mod fate;
mod joint;
mod options;
mod outstanding;
mod phase;
mod ranges;
mod read_version;
mod reads;
mod snapshot;
mod stamps;
mod timer;
mod turns;
mod watch;
mod work;
mod writes;

/// How a transaction was committed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// # let transaction = database.transaction();
/// transaction.set("k", "v")?;
/// let committed = transaction.commit().await?;
/// assert_eq!(committed.versionstamp.map(|stamp| stamp.commit_version), Some(committed.version));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The commit version; of a transaction that wrote nothing, the version it read at (zero if it did not
    /// read either).
    pub version: Version,
    /// The transaction's place in the total order; `None` if it wrote nothing.
    pub versionstamp: Option<Versionstamp>,
}

/// Whether reads are protected by conflict ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// A later write to what was read is a conflict.
    Serializable,
    /// It is not.
    Snapshot,
}

/// A transaction. Clones are the same transaction, so that several tasks can read and write in it.
///
/// Reads see the database at one version, and the transaction's own writes over it. Writes are kept here until
/// [`Transaction::commit`], which waits for reads that were begun before it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// let transaction = database.transaction();
/// transaction.set("name", "Ada")?;
/// // Own writes are seen at once, by nobody else before the commit.
/// assert_eq!(transaction.get("name").await?, Some("Ada".into()));
/// assert_eq!(database.transaction().get("name").await?, None);
/// transaction.commit().await?;
/// assert_eq!(database.transaction().get("name").await?, Some("Ada".into()));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Transaction {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    state: Mutex<State>,
    turns: Turns,
}

struct State {
    /// Counts the attempts. What waits for an answer compares it.
    attempt: u64,
    phase: Phase,
    options: TransactionOptions,
    /// When the transaction was created or reset: where its timeout counts from.
    started: Instant,
    /// What waits follows it.
    timer: Arc<Timer>,
    backoff: Backoff,
    /// Whether the commit of an earlier attempt got no answer.
    fate: Fate,
    /// Who finds out what became of a commit with an id.
    settles: Settles,
    work: Work,
    committed: Option<Committed>,
    conflicting_ranges: Vec<ConflictingRange>,
    /// Who waits for the versionstamp.
    stamps: Stamps,
}

/// What a call that waits takes with it.
struct Call {
    attempt: u64,
    timer: Arc<Timer>,
    read_version: Arc<ReadVersion>,
    own_version: Option<Version>,
    staleness_max: Option<Duration>,
    priority: Priority,
}

impl Transaction {
    pub(crate) fn new(database: Database) -> Transaction {
        let options = database.defaults();
        let started = runtime::now();
        let timer = Timer::new(options.timeout.map(|timeout| started + timeout));
        let state = State {
            attempt: 0,
            phase: Phase::Open,
            options,
            started,
            timer,
            backoff: Backoff::default(),
            fate: Fate::Closed,
            settles: Settles::InCommit,
            work: Work::default(),
            committed: None,
            conflicting_ranges: Vec::new(),
            stamps: Stamps::default(),
        };
        let shared = Shared { database, state: Mutex::new(state), turns: Turns::default() };
        Transaction { shared: Arc::new(shared) }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }
}

impl State {
    fn call(&self) -> Call {
        Call {
            attempt: self.attempt,
            timer: Arc::clone(&self.timer),
            read_version: Arc::clone(&self.work.read_version),
            own_version: self.work.own_version,
            staleness_max: self.options.staleness_max,
            priority: self.options.priority,
        }
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.state.lock();
        let read_version = state.work.read_version.get();
        write!(f, "Transaction({:?}, read version {read_version:?})", state.phase)
    }
}
