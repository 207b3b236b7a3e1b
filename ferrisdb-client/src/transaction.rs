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
//! belongs to no attempt any more and is an error. A commit sees the reads under way to their end, because their conflict ranges
//! go with it (I-15). All that waits follows one deadline, the attempt's, wherever it moves.
//!
//! Start with [`Transaction::get`] in `reads.rs`, then [`Transaction::commit`] in `commit.rs`.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Mutation, Result, Stage, Value, Version, Versionstamp,
    atomic::AtomicOp,
    idempotency, limits,
    runtime::{self, Instant},
    simulation::{Plant, planted},
    transaction::{self, CommitOutcome, CommitRequest, ConflictingRead, IdempotencyId},
};
use futures::FutureExt as _;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    database::Database,
    exactly_once::{self, Record},
    options::{
        ConflictingRange, KeyValue, Priority, RangePage, RangeQuery, TransactionOption,
        TransactionOptions, VersionedValue,
    },
    range_stream::RangeStream,
    read_your_writes::{Lookup, Overlay, RangeSet, Writes, stamped_range},
    retry::Backoff,
    selector::KeySelector,
    watch::PendingWatch,
};
use outstanding::Outstanding;
use read_version::ReadVersion;
use stamps::Stamps;
use timer::Timer;
use turns::Turns;
pub(crate) use turns::{Act, Turn};

mod commit;
mod outstanding;
mod ranges;
mod read_version;
mod reads;
mod snapshot;
mod stamps;
mod timer;
mod turns;
mod watch;

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

/// What one attempt has done so far.
#[derive(Default)]
struct Work {
    outstanding: Arc<Outstanding>,
    read_version: Arc<ReadVersion>,
    /// A version that was asked for on behalf of this attempt: the one to read at, unless the caller names another.
    own_version: Option<Version>,
    /// Shared with range reads under way, which go on seeing the writes of their beginning.
    overlay: Arc<Overlay>,
    writes: Writes,
    read_conflicts: RangeSet,
    /// Ranges that were added by hand and are none, as all of them was written before: how many, and the bytes of their ends.
    unobserved: (usize, usize),
    write_conflicts: RangeSet,
    watches: Vec<PendingWatch>,
    /// Whether anything was read, without a conflict or with one.
    has_read: Cell<bool>,
    /// Whether its commit got no answer.
    is_in_doubt: bool,
}

/// What may be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Reads, writes, commit.
    Open,
    /// The commit waits for reads that were begun before it: they belong to the transaction.
    Closing,
    /// Nothing before the commit has ended, or a reset.
    Committing,
    /// Nothing but a reset, or `on_error`.
    Ended,
    /// Nothing but a reset.
    Cancelled,
}

/// What is known of the attempts before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// None of them is committed, or ever will be.
    Closed,
    /// One may be, or may come to be: its record has to be looked for, and kept out. If it is committed, then
    /// after the version `after`.
    Open { after: Version },
    /// The record was looked for at the version `at`, and is not there. At a later version it may be.
    Excluded { after: Version, at: Version },
    /// The record was looked for too late: it may have been there once, and have been swept.
    Lost,
}

/// When the outcome of a commit with an id is found out whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settles {
    /// Before the commit returns: the caller cannot do it, and must not do anything else before it is known.
    InCommit,
    /// Before the next attempt: `run_transaction` keeps what the body has returned until then.
    BeforeNextAttempt,
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

/// The same reads as a transaction's, without read conflicts: made by [`Transaction::snapshot`].
///
/// They see the same version and the same own writes, but a later write to what they read does not keep the
/// transaction from committing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// # let transaction = database.transaction();
/// transaction.snapshot().get("visits").await?;
/// transaction.set("last_seen", "today")?;
///
/// let other = database.transaction();
/// other.add("visits", 1)?;
/// other.commit().await?;
/// // No conflict, although what it read has changed.
/// transaction.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a>(&'a Transaction);

/// The version that is read, and the ranges that may conflict.
impl Transaction {
    /// The same reads, without read conflicts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// let rows = transaction.snapshot().get_range("a".."b").await?;
    /// assert!(rows.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot(self)
    }

    /// The version that all reads see; asked for now if no read has done so yet.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// let first = database.transaction().read_version().await?;
    /// transaction.set("k", "v")?;
    /// let committed = transaction.commit().await?;
    /// assert!(first < committed.version);
    /// // Whoever asks after a commit is acknowledged sees it.
    /// assert!(database.transaction().read_version().await? >= committed.version);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What became of the request.
    pub async fn read_version(&self) -> Result<Version> {
        let call = {
            let state = self.shared.state.lock();
            let known = state.work.read_version.get();
            let is_closed =
                matches!(state.phase, Phase::Closing | Phase::Committing | Phase::Ended);
            if let (true, Some(version)) = (is_closed, known) {
                return Ok(version);
            }
            drop(state);
            // It is no use of the transaction: a commit goes on, and may tell which version it is.
            self.not_cancelled()?.call()
        };
        let version = call.timer.within(self.version_for(&call)).boxed().await?;
        match self.not_cancelled()?.attempt == call.attempt {
            true => Ok(version),
            false => Err(cancelled()),
        }
    }

    /// The version that all reads see, if it is known already: set, asked for, or got with a read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// assert_eq!(transaction.known_read_version(), None);
    /// let version = transaction.read_version().await?;
    /// assert_eq!(transaction.known_read_version(), Some(version));
    /// # Ok(()) }
    /// ```
    pub fn known_read_version(&self) -> Option<Version> {
        self.shared.state.lock().work.read_version.get()
    }

    /// Reads at this version, not at one that the cluster gives. Only before the first read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// // Two transactions with the same view.
    /// let other = database.transaction();
    /// other.set_read_version(transaction.read_version().await?)?;
    /// assert_eq!(other.read_version().await?, transaction.read_version().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::VersionInvalid`] for zero; [`ErrorCode::ReadVersionAlreadySet`] if a version is known already.
    pub fn set_read_version(&self, version: Version) -> Result<()> {
        let state = self.open()?;
        if version == Version::ZERO {
            return Err(Error::new(ErrorCode::VersionInvalid, Stage::Client, "zero"));
        }
        match state.work.read_version.set(version) {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::ReadVersionAlreadySet, Stage::Client, "")),
        }
    }

    /// Lets a later write to this key be a conflict, as if it had been read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// // Read without protection; only what is used in the end shall not have changed.
    /// let rows = transaction.snapshot().get_range("free/".."free0").await?;
    /// if let Some(row) = rows.first() {
    ///     transaction.add_read_conflict_key(&row.key)?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the key.
    pub fn add_read_conflict_key(&self, key: impl Into<Key>) -> Result<()> {
        self.add_read_conflict_range(KeyRange::single(&key.into()))
    }

    /// Lets a later write to any of these keys be a conflict, as if they had been read: all but those whose value this
    /// transaction has set or cleared itself, which does not depend on what others write.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.add_read_conflict_range("lock/".."lock0")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the range.
    pub fn add_read_conflict_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let range = range.into();
        let mut state = self.open()?;
        transaction::check_range(&range, &state.options.read_end(), Stage::Client)?;
        let observed = state.work.overlay.observed(&range);
        if observed.is_empty() {
            state.work.unobserved.0 += 1;
            state.work.unobserved.1 += range.begin.len() + range.end.len();
        }
        state.work.read_conflicts.extend(&observed);
        Ok(())
    }

    async fn fetch_key(&self, call: &Call, key: &Key) -> Result<Option<VersionedValue>> {
        let read_version = self.version_for(call).await?;
        self.fetch_key_at(read_version, key).await
    }

    async fn fetch_key_at(
        &self,
        read_version: Version,
        key: &Key,
    ) -> Result<Option<VersionedValue>> {
        let found = self.shared.database.cluster().get(key, read_version).await?;
        Ok(found.map(|found| VersionedValue {
            value: found.value,
            commit_version: Some(found.commit_version),
        }))
    }

    /// The read version of a commit. Of one that has read nothing any recent version will do, see
    /// [`exactly_once`].
    async fn version_to_commit(&self, call: &Call, fate: Fate) -> Result<Version> {
        let is_blind =
            call.attempt == 0 && fate == Fate::Closed && self.committing(call)?.work.is_blind();
        if is_blind && let Some(version) = self.shared.database.cluster().recent_version() {
            // Unless it has one already, or is being told one.
            call.read_version.set(version);
        }
        self.version_for(call).await
    }

    /// A version to measure data at: the transaction's, if it has one. If not, it gets none by this.
    async fn version_to_measure(&self, call: &Call) -> Result<Version> {
        match call.read_version.get() {
            Some(version) => Ok(version),
            None if planted(Plant::MeasureTakesReadVersion) => self.version_for(call).await,
            None => self.shared.database.cluster().read_version(call.priority).await,
        }
    }

    /// The read version of the call's attempt. Whoever comes first asks for it, the others wait.
    async fn version_for(&self, call: &Call) -> Result<Version> {
        let ask = || {
            let database = self.shared.database.clone();
            let (own, staleness_max, priority) =
                (call.own_version, call.staleness_max, call.priority);
            async move {
                let cluster = database.cluster();
                let known = || staleness_max.and_then(|age| cluster.version_within(age));
                match own.or_else(known) {
                    Some(version) => Ok(version),
                    None => cluster.read_version(priority).await,
                }
            }
        };
        call.read_version.get_or_ask(ask).await
    }
}

/// Writes. They are kept until the commit; an error means that the write was not taken.
impl Transaction {
    /// Sets the value of a key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("greeting", "hello")?;
    /// transaction.set(b"\x00\x01", vec![0; 1_000])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn set(&self, key: impl Into<Key>, value: impl Into<Value>) -> Result<()> {
        self.write(Mutation::Set { key: key.into(), value: value.into() })
    }

    /// Removes a key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// transaction.clear("k")?;
    /// assert_eq!(transaction.get("k").await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn clear(&self, key: impl Into<Key>) -> Result<()> {
        self.write(Mutation::Clear { key: key.into() })
    }

    /// Removes all keys of a range. Costs the same however many there are.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::KeyRange;
    /// transaction.clear_range("session/2025".."session/2026")?;
    /// transaction.clear_range(KeyRange::prefix(b"user/7/"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvertedRange`], or the limit that is passed.
    pub fn clear_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        self.write(Mutation::ClearRange { range: range.into() })
    }

    /// Adds to a counter: an eight byte little-endian integer, zero if the key is absent. Wraps around.
    ///
    /// Transactions that add to the same counter without reading it do not conflict.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.add("visits", 1)?;
    /// transaction.add("visits", 2)?;
    /// let visits = transaction.get("visits").await?.unwrap_or_default();
    /// assert_eq!(visits.as_slice(), 3i64.to_le_bytes());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn add(&self, key: impl Into<Key>, delta: i64) -> Result<()> {
        self.atomic(AtomicOp::Add, key, &delta.to_le_bytes())
    }

    /// Changes a value by a function of it that is evaluated in commit order, without reading it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::AtomicOp;
    /// transaction.set("best", &[7, 0])?;
    /// transaction.atomic(AtomicOp::Max, "best", &[5, 0])?;
    /// assert_eq!(transaction.get("best").await?, Some((&[7, 0]).into()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn atomic(
        &self,
        op: AtomicOp,
        key: impl Into<Key>,
        operand: impl Into<Value>,
    ) -> Result<()> {
        self.write(Mutation::Atomic { key: key.into(), op, operand: operand.into() })
    }

    /// Sets a key that will contain the transaction's versionstamp, in the ten bytes from `offset` on.
    ///
    /// Until the commit no key that it may become can be read: those with a stamp later than the read version, if that is
    /// known already, or else with any. Others conflict with it only if they read the very key that it becomes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// let key = [b"log/".as_slice(), &[0; 10]].concat();
    /// transaction.set_versionstamped_key(key, 4, "the first entry")?;
    /// let committed = transaction.commit().await?;
    ///
    /// let row = &database.transaction().get_range("log/".."log0").await?[0];
    /// let stamp = committed.versionstamp.map(|stamp| stamp.to_bytes());
    /// assert_eq!(row.key[4..], stamp.unwrap_or_default());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidMutation`] if the ten bytes are not inside, or the limit that is passed.
    pub fn set_versionstamped_key(
        &self,
        key: impl Into<Key>,
        offset: u32,
        value: impl Into<Value>,
    ) -> Result<()> {
        self.write(Mutation::SetVersionstampedKey { key: key.into(), offset, value: value.into() })
    }

    /// Sets a value that will contain the transaction's versionstamp, in the ten bytes from `offset` on.
    ///
    /// Until the commit the key cannot be read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set_versionstamped_value("changed", vec![0; 10], 0)?;
    /// let committed = transaction.commit().await?;
    ///
    /// let changed = database.transaction().get("changed").await?.unwrap_or_default();
    /// assert_eq!(committed.versionstamp.map(|stamp| stamp.to_bytes().to_vec()), Some(changed.to_vec()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidMutation`] if the ten bytes are not inside, or the limit that is passed.
    pub fn set_versionstamped_value(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
        offset: u32,
    ) -> Result<()> {
        self.write(Mutation::SetVersionstampedValue {
            key: key.into(),
            value: value.into(),
            offset,
        })
    }

    /// Lets this transaction be a conflict for others that read this key, as if it had written it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// let reader = database.transaction();
    /// reader.get("lock").await?;
    /// reader.set("k", "v")?;
    ///
    /// transaction.add_write_conflict_key("lock")?;
    /// transaction.commit().await?;
    /// assert!(reader.commit().await.is_err(), "although nothing was written");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the key.
    pub fn add_write_conflict_key(&self, key: impl Into<Key>) -> Result<()> {
        self.add_write_conflict_range(KeyRange::single(&key.into()))
    }

    /// Lets this transaction be a conflict for others that read any of these keys, as if it had written them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.add_write_conflict_range("cache/".."cache0")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the range.
    pub fn add_write_conflict_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let range = range.into();
        let mut state = self.open()?;
        state.options.check_may_write()?;
        transaction::check_range(&range, &state.options.write_end(), Stage::Client)?;
        state.work.write_conflicts.insert(&range);
        Ok(())
    }

    fn write(&self, mutation: Mutation) -> Result<()> {
        self.write_as(mutation, None)
    }

    /// Writes without a write conflict: for layers, which share their transaction with others who may use the option for
    /// that at the same time.
    pub(crate) fn write_without_conflict(&self, mutation: Mutation) -> Result<()> {
        self.write_as(mutation, Some(false))
    }

    fn write_as(&self, mutation: Mutation, with_conflict: Option<bool>) -> Result<()> {
        let mut state = self.open()?;
        state.options.check_may_write()?;
        transaction::check_mutation(&mutation, &state.options.write_end(), Stage::Client)?;
        if !state.options.size_checked_at_commit {
            state.work.check_room(&mutation, state.options.size_limit)?;
        }
        let with_conflict = with_conflict
            .unwrap_or_else(|| !std::mem::take(&mut state.options.next_write_without_conflict));
        let with_overlay = state.options.read_your_writes;
        let changed = state.work.apply(mutation, with_conflict, with_overlay);
        drop(state);
        // Whoever waits for these is not woken while the state is locked.
        changed.into_iter().for_each(PendingWatch::changed);
        Ok(())
    }
}

/// Checks of the state.
impl Transaction {
    /// Whether an operation may begin now: neither the transaction's time is over, nor was it cancelled, nor has its commit begun.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// assert!(transaction.check_open().is_ok());
    /// transaction.cancel();
    /// assert!(transaction.check_open().is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The error that the operation would have.
    pub fn check_open(&self) -> Result<()> {
        self.open().map(drop)
    }

    /// The state, if the transaction can be used.
    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        state.check_time()?;
        match state.phase {
            Phase::Open => Ok(state),
            Phase::Closing | Phase::Committing | Phase::Ended => Err(used_during_commit()),
            Phase::Cancelled => Err(cancelled()),
        }
    }

    /// The state, whether or not the transaction is being committed, or was.
    fn not_cancelled(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        state.check_time()?;
        match state.phase {
            Phase::Open | Phase::Closing | Phase::Committing | Phase::Ended => Ok(state),
            Phase::Cancelled => Err(cancelled()),
        }
    }

    /// The state, if it is still the one that the call began in.
    fn still_open(&self, call: &Call) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        state.check_time()?;
        match state.phase {
            _ if state.attempt != call.attempt => Err(cancelled()),
            Phase::Open | Phase::Closing => Ok(state),
            Phase::Committing | Phase::Ended => Err(used_during_commit()),
            Phase::Cancelled => Err(cancelled()),
        }
    }

    /// The state, if the commit that the call belongs to is still wanted.
    fn committing(&self, call: &Call) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        if state.attempt == call.attempt && state.phase == Phase::Committing {
            Ok(state)
        } else {
            Err(cancelled())
        }
    }

    /// When to try again after an error; the error, if not at all.
    fn plan_retry(&self, error: Error) -> Result<Duration> {
        let mut state = self.shared.state.lock();
        state.check_time()?;
        if state.phase == Phase::Cancelled {
            return Err(cancelled());
        }
        let options = state.options.clone();
        // Whoever cannot find out any more what became of an attempt must not make another one.
        let retried = (state.fate != Fate::Lost).then(|| state.backoff.next(&error, &options));
        let Some(delay) = retried.flatten() else {
            state.phase = Phase::Cancelled;
            state.timer.end();
            state.work.watches.clear();
            return Err(error);
        };
        Ok(delay)
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

    fn deadline(&self) -> Option<Instant> {
        self.options.timeout.map(|timeout| self.started + timeout)
    }

    fn check_time(&self) -> Result<()> {
        match self.deadline() {
            Some(deadline) if runtime::now() >= deadline => Err(timed_out()),
            _ => Ok(()),
        }
    }

    /// The commit of this attempt has ended.
    fn end_commit(&mut self, database: &Database, result: &Result<Committed>) {
        self.phase = Phase::Ended;
        self.committed = result.as_ref().ok().copied();
        self.work.is_in_doubt |= result.as_ref().is_err_and(Error::is_maybe_committed);
        self.stamps.tell(result);
        self.settle_watches(database, result);
    }

    /// The commit got no answer. Without an id there is nothing to find out by.
    fn open_fate(&mut self) {
        if self.options.idempotency_id.is_none() || planted(Plant::ResendUnknown) {
            return;
        }
        // An attempt is committed after the version that it has read at, if it is.
        let sent_at = self.work.read_version.get().unwrap_or(Version::ZERO);
        self.fate = match self.fate {
            Fate::Closed => Fate::Open { after: sent_at },
            Fate::Open { after } | Fate::Excluded { after, .. } => {
                Fate::Open { after: after.min(sent_at) }
            }
            Fate::Lost => Fate::Lost,
        };
    }

    /// The commit conflicts because of these, by their numbers in the request.
    fn note_conflicts(&mut self, reads: &[ConflictingRead]) {
        // The request had them in this order, and perhaps some of its own behind them.
        let ranges: Vec<KeyRange> = self.work.read_conflicts.iter().collect();
        let named = reads.iter().filter_map(|read| {
            let range = ranges.get(read.index as usize)?.clone();
            Some(ConflictingRange { range, written_at: read.written_at })
        });
        self.conflicting_ranges = named.collect();
    }

    fn begin_attempt(&mut self, options: TransactionOptions) {
        self.attempt += 1;
        self.phase = Phase::Open;
        self.options = options;
        self.timer.end();
        self.timer = Timer::new(self.deadline());
        self.fate = self.fate.of_next_attempt();
        self.work = Work::default();
        self.committed = None;
        self.conflicting_ranges.clear();
        self.stamps = Stamps::default();
    }
}

impl Fate {
    /// What was excluded at one read version is open again at the next.
    fn of_next_attempt(self) -> Fate {
        match self {
            Fate::Closed => Fate::Closed,
            Fate::Open { after } | Fate::Excluded { after, .. } => Fate::Open { after },
            Fate::Lost => Fate::Lost,
        }
    }

    /// After which version the record has to be looked for by an attempt that reads at `read_version`. At one that was looked
    /// at, or before, a record written later is a conflict.
    fn to_look_for(self, read_version: Version) -> Option<Version> {
        match self {
            Fate::Open { after } => Some(after),
            Fate::Excluded { after, at } if read_version > at => Some(after),
            Fate::Closed | Fate::Excluded { .. } | Fate::Lost => None,
        }
    }
}

impl Work {
    fn is_begun(&self) -> bool {
        self.has_read.get() || !self.writes.is_empty() || !self.read_conflicts.is_empty()
    }

    /// Whether nothing of the commit depends on the read version.
    fn is_blind(&self) -> bool {
        self.read_conflicts.is_empty()
    }

    fn size(&self) -> usize {
        self.writes.bytes() + self.read_conflicts.bytes() + self.write_conflicts.bytes()
    }

    /// Checks that a mutation can be taken: that the transaction does not get too large.
    fn check_room(&self, mutation: &Mutation, size_limit: usize) -> Result<()> {
        let is_far = self.size() + mutation.size() <= size_limit
            && self.writes.count() < limits::TRANSACTION_ITEMS_MAX;
        if is_far {
            return Ok(());
        }
        // It may take the place of others.
        let (bytes, count) = self.writes.bytes_and_count_with(mutation);
        let size = self.size() - self.writes.bytes() + bytes;
        let detail = if size > size_limit {
            format!("{size} bytes, {size_limit} are allowed")
        } else if count > limits::TRANSACTION_ITEMS_MAX {
            format!("more than {} mutations", limits::TRANSACTION_ITEMS_MAX)
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorCode::TransactionTooLarge, Stage::Client, detail))
    }

    /// Takes a mutation. Returns the watches that it makes ready.
    fn apply(
        &mut self,
        mutation: Mutation,
        with_conflict: bool,
        with_overlay: bool,
    ) -> Vec<PendingWatch> {
        if with_conflict {
            match &mutation {
                Mutation::Set { key, .. }
                | Mutation::Clear { key }
                | Mutation::Atomic { key, .. }
                | Mutation::SetVersionstampedValue { key, .. } => {
                    self.write_conflicts.insert(&KeyRange::single(key));
                }
                Mutation::ClearRange { range } => self.write_conflicts.insert(range),
                // The proxy adds the key that this becomes, with an option or without.
                Mutation::SetVersionstampedKey { .. } => {}
            }
        }
        let mut changed = Vec::new();
        if with_overlay {
            let before = self.earliest_stamp();
            let overlay = Arc::make_mut(&mut self.overlay);
            overlay.apply(&mutation, before);
            let is_changed = |watch: &mut PendingWatch| watch.is_changed_by(&mutation, overlay);
            changed = self.watches.extract_if(.., is_changed).collect();
        }
        self.writes.apply(mutation);
        changed
    }

    /// The transaction commits with a versionstamp later than this one, as far as is known now.
    fn earliest_stamp(&self) -> Versionstamp {
        match self.read_version.get() {
            Some(commit_version) => Versionstamp { commit_version, batch_index: u16::MAX },
            None => Versionstamp { commit_version: Version::ZERO, batch_index: 0 },
        }
    }

    /// What counts as written, with everything that the stamped keys can become.
    fn possible_write_conflicts(&self, end: &Key) -> RangeSet {
        let mut conflicts = self.write_conflicts.clone();
        for (key, offset) in self.writes.stamped_keys() {
            let mut range = stamped_range(key, offset, self.earliest_stamp());
            range.end = range.end.min(end.clone());
            conflicts.insert(&range);
        }
        conflicts
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.state.lock();
        let read_version = state.work.read_version.get();
        write!(f, "Transaction({:?}, read version {read_version:?})", state.phase)
    }
}

impl Record {
    fn committed(self) -> Committed {
        let versionstamp = self.versionstamp;
        Committed { version: versionstamp.commit_version, versionstamp: Some(versionstamp) }
    }
}

/// Waits for a while, but not past the transaction's deadline.
async fn wait(delay: Duration, timer: &Timer) -> Result<()> {
    let pause = async {
        runtime::sleep(delay).await;
        Ok(())
    };
    timer.within(pause).await
}

fn timed_out() -> Error {
    Error::new(ErrorCode::TransactionTimedOut, Stage::Client, "")
}

fn cancelled() -> Error {
    Error::new(ErrorCode::TransactionCancelled, Stage::Client, "")
}

fn used_during_commit() -> Error {
    Error::new(ErrorCode::UsedDuringCommit, Stage::Client, "")
}
