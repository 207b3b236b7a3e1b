//! What can be asked for: settings of a [`Database`](crate::Database), options of a
//! [`Transaction`](crate::Transaction), and the shape of a range read.

use std::{ops::Range, time::Duration};

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Value, Version, limits,
    simulation::{Plant, planted},
    transaction::{self, IdempotencyId},
};

use crate::selector::KeySelector;

/// Settings of a database handle: how long it waits for what. The defaults fit a healthy cluster.
///
/// ```no_run
/// # async fn example() -> ferrisdb_client::Result<()> {
/// # use ferrisdb_client::{Connection, Database, Settings, TransactionOption};
/// use std::time::Duration;
/// let mut settings = Settings { connect_limit: Duration::from_secs(3), ..Settings::default() };
/// // Every transaction of this handle begins with it.
/// settings.defaults.set(TransactionOption::Timeout(Duration::from_secs(10)))?;
/// let database = Database::connect_to(Connection::find()?, settings).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long connecting waits until the state of the cluster is known.
    pub connect_limit: Duration,
    /// How long a read version is sought, over failures and recoveries, before the caller gets the error.
    pub read_version_limit: Duration,
    /// How long one read is tried, over replicas and changes of location, before the caller gets the error.
    pub read_limit: Duration,
    /// How long the answer to a commit is awaited before its result counts as unknown.
    pub commit_limit: Duration,
    /// Whether `run_transaction` gives each transaction an idempotency id, so that it takes effect
    /// exactly once although commits can end with an unknown result (I-6).
    pub exactly_once: ExactlyOnce,
    /// How many [watches](crate::Watch) may wait at a time; at most [`limits::WATCHES_MAX`].
    pub watches_max: usize,
    /// How long the runtime in which a database is opened stays awake after each message to or from a server, so that the answer
    /// need not wake it: that halves the latency of a single client on many machines. It costs the time of a core that nobody else
    /// wants. Brings most in a runtime with one thread. Zero lets it sleep at once. Default: 200 µs.
    pub stay_awake: Duration,
    /// The options that each transaction begins with.
    pub defaults: TransactionOptions,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connect_limit: Duration::from_secs(10),
            read_version_limit: Duration::from_secs(10),
            read_limit: Duration::from_secs(5),
            commit_limit: Duration::from_secs(10),
            exactly_once: ExactlyOnce::ById,
            watches_max: limits::WATCHES_DEFAULT,
            stay_awake: limits::STAY_AWAKE_DEFAULT,
            defaults: TransactionOptions::default(),
        }
    }
}

/// What `run_transaction` does about commits whose result is unknown.
///
/// ```
/// use ferrisdb_client::{ExactlyOnce, Settings};
/// let settings = Settings { exactly_once: ExactlyOnce::Refuse, ..Settings::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExactlyOnce {
    /// Every transaction that writes also writes a small record under a random id, by which the next
    /// attempt finds out.
    ById,
    /// Nothing is written; the error is returned instead of a retry that could apply the transaction twice.
    Refuse,
}

/// One option of a transaction.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// # let transaction = database.transaction();
/// use ferrisdb_client::{Priority, TransactionOption};
/// use std::time::Duration;
/// // How long and how often: these stay when an attempt follows.
/// transaction.set_option(TransactionOption::Timeout(Duration::from_secs(10)))?;
/// transaction.set_option(TransactionOption::RetryLimit(Some(5)))?;
/// transaction.set_option(TransactionOption::RetryDelayMax(Duration::from_millis(200)))?;
/// // What it reads, and what it is worth: these are set again in each attempt.
/// transaction.set_option(TransactionOption::ReadAtMostStale(Duration::from_secs(1)))?;
/// transaction.set_option(TransactionOption::Priority(Priority::Batch))?;
/// // What it may touch.
/// transaction.set_option(TransactionOption::ReadSystemKeys)?;
/// transaction.set_option(TransactionOption::ReadOnly)?;
/// assert!(transaction.set("k", "v").is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionOption {
    /// Allows reads of the system keyspace, `\xff` to `\xff\xff`.
    ReadSystemKeys,
    /// Allows reads and writes of the system keyspace.
    AccessSystemKeys,
    /// After a conflict, [`Transaction::conflicting_ranges`](crate::Transaction::conflicting_ranges)
    /// names all reads that were concerned, however many; otherwise the first sixteen.
    ReportConflicts,
    /// Every call fails with `transaction_timed_out` this long after the transaction was created or
    /// reset; zero removes the limit. Survives `on_error`.
    Timeout(Duration),
    /// How many times `on_error` (and `run_transaction`) retries; `None` for no limit. Survives `on_error`.
    RetryLimit(Option<u32>),
    /// The longest delay between two attempts. Survives `on_error`.
    RetryDelayMax(Duration),
    /// Most bytes of mutations and conflict ranges; at most [`limits::TRANSACTION_BYTES_MAX`].
    SizeLimit(usize),
    /// Writes over the size limit are taken, and the commit fails, as programs of FoundationDB know it. What is written is not limited
    /// before that, nor is the memory for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::TransactionOption;
    /// transaction.set_option(TransactionOption::SizeCheckedAtCommit)?;
    /// transaction.set_option(TransactionOption::SizeLimit(100))?;
    /// transaction.set("k", vec![0; 200])?;
    /// assert!(transaction.get("k").await?.is_some());
    /// assert!(transaction.commit().await.is_err());
    /// # Ok(()) }
    /// ```
    SizeCheckedAtCommit,
    /// A read that has failed lets the commit fail, with the same error, also if its caller has heard of it and decided to go on, as
    /// programs of FoundationDB know it; the commit waits for no other read then. Failures of watches and of mapped ranges are
    /// theirs alone. Without this only an error fails the commit that nobody has heard of before, of whichever read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::{ErrorCode, TransactionOption};
    /// transaction.set_option(TransactionOption::FailedReadsFailCommit)?;
    /// transaction.set_versionstamped_value("changed", vec![0; 10], 0)?;
    /// assert!(transaction.get("changed").await.is_err());
    /// let error = transaction.commit().await.unwrap_err();
    /// assert_eq!(error.code(), ErrorCode::AccessedUnreadable);
    /// # Ok(()) }
    /// ```
    FailedReadsFailCommit,
    /// The next write, and only that one, adds no write conflict range.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::TransactionOption;
    /// let reader = database.transaction();
    /// reader.get("heartbeat").await?;
    /// reader.set("k", "v")?;
    ///
    /// transaction.set_option(TransactionOption::NextWriteWithoutConflict)?;
    /// transaction.set("heartbeat", "now")?;
    /// transaction.commit().await?;
    /// reader.commit().await?;
    /// # Ok(()) }
    /// ```
    NextWriteWithoutConflict,
    /// Reads see the database only, not the transaction's own writes. Only before the first operation.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::TransactionOption;
    /// transaction.set_option(TransactionOption::ReadYourWritesDisabled)?;
    /// transaction.set("k", "v")?;
    /// assert_eq!(transaction.get("k").await?, None);
    /// # Ok(()) }
    /// ```
    ReadYourWritesDisabled,
    /// Snapshot reads see own writes, as they do from the beginning. Undoes one
    /// [`TransactionOption::SnapshotReadYourWritesDisabled`].
    SnapshotReadYourWritesEnabled,
    /// Snapshot reads do not see own writes. Calls are counted: it takes as many of the other one to undo them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::TransactionOption;
    /// transaction.set("k", "v")?;
    /// transaction.set_option(TransactionOption::SnapshotReadYourWritesDisabled)?;
    /// assert_eq!(transaction.snapshot().get("k").await?, None);
    /// assert_eq!(transaction.get("k").await?, Some("v".into()));
    /// # Ok(()) }
    /// ```
    SnapshotReadYourWritesDisabled,
    /// A read of what depends on an own versionstamp is no error: it sees keys and values as they were given, without the
    /// stamp.
    BypassUnreadable,
    /// The transaction may read a version that this handle was given at most so long ago, without asking for one. It then may
    /// miss what others, and this handle itself, have committed meanwhile; what it reads is one state of the database all the same, and if it writes
    /// it is as serializable as any other.
    ReadAtMostStale(Duration),
    /// Writes and write conflicts are errors: such a transaction never waits for a commit.
    ReadOnly,
    /// Whether to wait behind others, or not even that, when the cluster has too much to do.
    Priority(Priority),
    /// After an unknown commit result it is not made sure that the commit is not still on its way: a retry by hand could
    /// see nothing of it, and take effect a second time. Saves blind writes some bytes. Transactions with an idempotency id
    /// do not need it.
    CausalWriteRisky,
    /// Reads of the special keyspace may span several of its modules.
    SpecialKeysRelaxed,
    /// The first commit draws an idempotency id, unless there is one, so that the transaction takes effect at most once, however
    /// many attempts `on_error` begins. A commit whose answer is lost finds out what became of it before it returns: it succeeds
    /// with its true version, or fails with [`ErrorCode::NotCommitted`]. May be set again in each attempt. `run_transaction`
    /// does this by itself.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::TransactionOption;
    /// transaction.set_option(TransactionOption::AutomaticIdempotency)?;
    /// transaction.add("visits", 1)?;
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    AutomaticIdempotency,
    /// The transaction has this id: as [`TransactionOption::AutomaticIdempotency`], with an id of the caller's. It must not have
    /// been used by another transaction. While the outcome of an attempt is not known the transaction keeps the id that it has.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::TransactionOption;
    /// transaction.set_option(TransactionOption::IdempotencyId(0x7f3a_0c55_91d2_44be))?;
    /// transaction.add("visits", 1)?;
    /// // Even if the answer is lost, what follows `on_error` does not count twice.
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    IdempotencyId(IdempotencyId),
}

/// What a transaction is worth when there is too much to do.
///
/// ```
/// use ferrisdb_client::{Priority, TransactionOption};
/// let background = TransactionOption::Priority(Priority::Batch);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// For work in the background: refused with `batch_transaction_throttled`, which is worth a retry, while proxies are busy.
    Batch,
    /// As all others.
    #[default]
    Default,
    /// As all others, but asked for apart from them. Proxies do not limit the rate of read versions, and a round of theirs takes all
    /// that wait, so there is nobody to overtake.
    Immediate,
}

/// The options of a transaction, as they stand.
///
/// ```
/// use ferrisdb_client::{TransactionOption, TransactionOptions};
/// let mut options = TransactionOptions::default();
/// options.set(TransactionOption::SizeLimit(1_000_000))?;
/// assert!(options.set(TransactionOption::SizeLimit(0)).is_err());
/// # Ok::<(), ferrisdb_client::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionOptions {
    pub(crate) read_system_keys: bool,
    pub(crate) write_system_keys: bool,
    pub(crate) report_conflicts: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry_limit: Option<u32>,
    pub(crate) retry_delay_max: Duration,
    pub(crate) size_limit: usize,
    pub(crate) size_checked_at_commit: bool,
    pub(crate) reads_fail_commit: bool,
    pub(crate) next_write_without_conflict: bool,
    pub(crate) read_your_writes: bool,
    pub(crate) snapshot_read_your_writes: i32,
    pub(crate) bypass_unreadable: bool,
    pub(crate) staleness_max: Option<Duration>,
    pub(crate) read_only: bool,
    pub(crate) priority: Priority,
    pub(crate) causal_write_risky: bool,
    pub(crate) special_keys_relaxed: bool,
    pub(crate) idempotency_id: Option<IdempotencyId>,
    /// Whether the first commit draws an id if there is none.
    pub(crate) draws_idempotency_id: bool,
    /// The version of the record that the id's use before this one has left; zero if there is none.
    pub(crate) record_before: Version,
}

impl Default for TransactionOptions {
    fn default() -> TransactionOptions {
        TransactionOptions {
            read_system_keys: false,
            write_system_keys: false,
            report_conflicts: false,
            timeout: None,
            retry_limit: None,
            retry_delay_max: Duration::from_secs(1),
            size_limit: limits::TRANSACTION_BYTES_MAX,
            size_checked_at_commit: false,
            reads_fail_commit: false,
            next_write_without_conflict: false,
            read_your_writes: true,
            snapshot_read_your_writes: 0,
            bypass_unreadable: false,
            staleness_max: None,
            read_only: false,
            priority: Priority::Default,
            causal_write_risky: false,
            special_keys_relaxed: false,
            idempotency_id: None,
            draws_idempotency_id: false,
            record_before: Version::ZERO,
        }
    }
}

impl TransactionOptions {
    /// Sets one option.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for a value that the option does not take.
    pub fn set(&mut self, option: TransactionOption) -> Result<()> {
        match option {
            TransactionOption::ReadSystemKeys => self.read_system_keys = true,
            TransactionOption::AccessSystemKeys => {
                self.read_system_keys = true;
                self.write_system_keys = true;
            }
            TransactionOption::ReportConflicts => self.report_conflicts = true,
            TransactionOption::Timeout(limit) => {
                self.timeout = Some(limit).filter(|limit| !limit.is_zero());
            }
            TransactionOption::RetryLimit(limit) => self.retry_limit = limit,
            TransactionOption::RetryDelayMax(delay) => self.retry_delay_max = delay,
            TransactionOption::SizeLimit(bytes) => {
                if !(32..=limits::TRANSACTION_BYTES_MAX).contains(&bytes) {
                    let detail = format!(
                        "size limit {bytes}, allowed are 32 to {}",
                        limits::TRANSACTION_BYTES_MAX
                    );
                    return Err(Error::new(ErrorCode::InvalidArgument, Stage::Client, detail));
                }
                self.size_limit = bytes;
            }
            TransactionOption::SizeCheckedAtCommit => self.size_checked_at_commit = true,
            TransactionOption::FailedReadsFailCommit => self.reads_fail_commit = true,
            TransactionOption::NextWriteWithoutConflict => self.next_write_without_conflict = true,
            TransactionOption::ReadYourWritesDisabled => self.read_your_writes = false,
            TransactionOption::SnapshotReadYourWritesEnabled => {
                self.snapshot_read_your_writes = self.snapshot_read_your_writes.saturating_add(1);
            }
            TransactionOption::SnapshotReadYourWritesDisabled => {
                self.snapshot_read_your_writes = self.snapshot_read_your_writes.saturating_sub(1);
            }
            TransactionOption::BypassUnreadable => self.bypass_unreadable = true,
            TransactionOption::ReadAtMostStale(age) => self.staleness_max = Some(age),
            TransactionOption::ReadOnly => self.read_only = true,
            TransactionOption::Priority(priority) => self.priority = priority,
            TransactionOption::CausalWriteRisky => self.causal_write_risky = true,
            TransactionOption::SpecialKeysRelaxed => self.special_keys_relaxed = true,
            TransactionOption::AutomaticIdempotency => {
                if planted(Plant::RedrawId) {
                    self.idempotency_id = None;
                }
                // Set again in each attempt, as loops do, it changes nothing: the id is the transaction's, not the attempt's.
                if self.idempotency_id.is_none() {
                    self.draws_idempotency_id = true;
                }
            }
            TransactionOption::IdempotencyId(id) => {
                self.idempotency_id = Some(id);
                self.draws_idempotency_id = false;
                self.record_before = Version::ZERO;
            }
        }
        Ok(())
    }

    /// What is left of the options when `on_error` resets the transaction: the defaults, with what
    /// governs the retries themselves.
    pub(crate) fn after_error(&self, defaults: &TransactionOptions) -> TransactionOptions {
        TransactionOptions {
            timeout: self.timeout,
            retry_limit: self.retry_limit,
            retry_delay_max: self.retry_delay_max,
            // The next attempt is the same transaction: without its id it could apply twice (I-6).
            idempotency_id: self.idempotency_id,
            draws_idempotency_id: self.draws_idempotency_id,
            record_before: self.record_before,
            ..defaults.clone()
        }
    }

    /// Checks that a key may be read.
    pub(crate) fn check_readable(&self, key: &Key) -> Result<()> {
        if transaction::is_metadata_version(key) {
            return Ok(());
        }
        transaction::check_key(key, &self.read_end(), Stage::Client)
    }

    /// Checks that the transaction was not declared to read only.
    pub(crate) fn check_may_write(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::new(ErrorCode::TransactionReadOnly, Stage::Client, ""));
        }
        Ok(())
    }

    /// Where the keys end that may be read.
    pub(crate) fn read_end(&self) -> Key {
        if self.read_system_keys { Key::SYSTEM_END } else { Key::USER_END }
    }

    /// Where the keys end that may be written.
    pub(crate) fn write_end(&self) -> Key {
        if self.write_system_keys { Key::SYSTEM_END } else { Key::USER_END }
    }
}

/// What a range read asks for: from where, up to where, in which direction, and how much at most.
///
/// Both ends are [`KeySelector`]s; a plain key stands for itself. A range that ends before it begins has no rows if a selector
/// says so, but is an error if it was given as plain keys.
///
/// ```
/// use ferrisdb_client::{KeyRange, KeySelector, RangeQuery};
/// let newest_ten = RangeQuery::from("event/".."event0").reverse().rows(10);
/// let everything_of_a_user = RangeQuery::from(KeyRange::prefix(b"user/7/"));
/// let after_the_last_one_read = RangeQuery::between(KeySelector::first_greater_than("event/17"), "event0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// Where the range begins.
    pub begin: KeySelector,
    /// Where it ends: this key is not inside.
    pub end: KeySelector,
    /// Most rows to return; no limit if `None`. Zero is an error.
    pub rows_max: Option<usize>,
    /// Bytes of keys and values after which no further row is added; the first row comes in any case.
    pub bytes_max: Option<usize>,
    /// How many rows come at once, where that is not said otherwise.
    pub mode: StreamingMode,
    /// Whether to begin at the end of the range and go down.
    pub reverse: bool,
}

impl RangeQuery {
    /// All rows of a range, upwards.
    ///
    /// ```
    /// use ferrisdb_client::{KeyRange, RangeQuery};
    /// assert_eq!(RangeQuery::new("a".."b"), RangeQuery::from(KeyRange::new("a", "b")));
    /// ```
    pub fn new(range: impl Into<KeyRange>) -> RangeQuery {
        let range = range.into();
        RangeQuery::between(range.begin, range.end)
    }

    /// All rows from one key to another one, upwards.
    ///
    /// ```
    /// use ferrisdb_client::{KeySelector, RangeQuery};
    /// // The ten keys before "m".
    /// let query = RangeQuery::between(KeySelector::first_greater_or_equal("m") - 10, "m");
    /// ```
    pub fn between(begin: impl Into<KeySelector>, end: impl Into<KeySelector>) -> RangeQuery {
        RangeQuery {
            begin: begin.into(),
            end: end.into(),
            rows_max: None,
            bytes_max: None,
            mode: StreamingMode::default(),
            reverse: false,
        }
    }

    /// At most so many rows.
    ///
    /// ```
    /// use ferrisdb_client::RangeQuery;
    /// assert_eq!(RangeQuery::from("a".."b").rows(10).rows_max, Some(10));
    /// ```
    #[must_use]
    pub fn rows(mut self, rows_max: usize) -> RangeQuery {
        self.rows_max = Some(rows_max);
        self
    }

    /// No further row once there are so many bytes of keys and values.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::RangeQuery;
    /// transaction.set("a", vec![0; 500])?;
    /// transaction.set("b", vec![0; 500])?;
    /// let page = transaction.get_range_page(RangeQuery::from("a".."z").bytes(100)).await?;
    /// assert_eq!((page.rows.len(), page.more), (1, true), "the first row comes in any case");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn bytes(mut self, bytes_max: usize) -> RangeQuery {
        self.bytes_max = Some(bytes_max);
        self
    }

    /// How many rows come at once.
    ///
    /// ```
    /// use ferrisdb_client::{RangeQuery, StreamingMode};
    /// let everything = RangeQuery::from("a".."z").mode(StreamingMode::WantAll);
    /// ```
    #[must_use]
    pub fn mode(mut self, mode: StreamingMode) -> RangeQuery {
        self.mode = mode;
        self
    }

    /// From the end of the range down.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::RangeQuery;
    /// transaction.set("a", "")?;
    /// transaction.set("b", "")?;
    /// let last = transaction.get_range(RangeQuery::from("a".."z").reverse().rows(1)).await?;
    /// assert_eq!(last[0].key, "b".into());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn reverse(mut self) -> RangeQuery {
        self.reverse = true;
        self
    }

    /// The keys, if it does not take a look at the database to know them.
    ///
    /// ```
    /// use ferrisdb_client::{KeyRange, KeySelector, RangeQuery};
    /// assert_eq!(RangeQuery::from("a".."b").plain_range(), Some(KeyRange::new("a", "b")));
    /// let from_the_last_before = RangeQuery::between(KeySelector::last_less_than("a"), "b");
    /// assert_eq!(from_the_last_before.plain_range(), None);
    /// ```
    pub fn plain_range(&self) -> Option<KeyRange> {
        Some(KeyRange { begin: self.begin.as_bound()?, end: self.end.as_bound()? })
    }
}

impl From<KeyRange> for RangeQuery {
    fn from(range: KeyRange) -> RangeQuery {
        RangeQuery::new(range)
    }
}

impl From<&KeyRange> for RangeQuery {
    fn from(range: &KeyRange) -> RangeQuery {
        RangeQuery::new(range.clone())
    }
}

impl<K: Into<Key>> From<Range<K>> for RangeQuery {
    fn from(range: Range<K>) -> RangeQuery {
        RangeQuery::new(range)
    }
}

impl From<Range<KeySelector>> for RangeQuery {
    fn from(range: Range<KeySelector>) -> RangeQuery {
        RangeQuery::between(range.start, range.end)
    }
}

/// How many rows of a range come at once: what is not going to be looked at costs time, and so does another request.
///
/// The names and sizes are FoundationDB's. [`Transaction::get_range`](crate::Transaction::get_range) gets all rows in any case,
/// and asks for large parts.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// # let transaction = database.transaction();
/// use ferrisdb_client::{RangeQuery, StreamingMode};
/// use futures::TryStreamExt;
/// // Hardly more than one row is going to be looked at.
/// let query = RangeQuery::from("a".."z").mode(StreamingMode::Small);
/// let first = transaction.range_stream(query).try_next().await?;
/// # assert_eq!(first, None);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamingMode {
    /// Few at first and more with each request: for whoever does not know yet how many he needs.
    #[default]
    Iterator,
    /// Everything, in large parts.
    WantAll,
    /// Exactly as many as the limits of the query say, at once. It needs such a limit.
    Exact,
    /// About 256 bytes at once.
    Small,
    /// About 1,000 bytes at once.
    Medium,
    /// About 4,096 bytes at once.
    Large,
    /// About 80,000 bytes at once: as much as is useful for one reader.
    Serial,
}

impl StreamingMode {
    /// Bytes of the page after so many others of the same read.
    pub(crate) fn page_bytes(self, pages: u32) -> Option<usize> {
        const LARGE: usize = 4_096;
        const SERIAL: usize = 80_000;
        match self {
            StreamingMode::Iterator => {
                let factor = 1usize.checked_shl(pages).unwrap_or(usize::MAX);
                Some(LARGE.saturating_mul(factor).min(ITERATOR_BYTES_MAX))
            }
            StreamingMode::Small => Some(256),
            StreamingMode::Medium => Some(1_000),
            StreamingMode::Large => Some(LARGE),
            StreamingMode::WantAll | StreamingMode::Serial => Some(SERIAL),
            StreamingMode::Exact => None,
        }
    }
}

/// The most that [`StreamingMode::Iterator`] comes to ask for at once.
const ITERATOR_BYTES_MAX: usize = 1024 * 1024;

/// A read that was overtaken by another transaction's write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictingRange {
    /// What was read.
    pub range: KeyRange,
    /// The version of the commit that last wrote some of it, as of this one's commit.
    pub written_at: Version,
}

/// A row of a range read.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// # let transaction = database.transaction();
/// transaction.set("k", "v")?;
/// let row = &transaction.get_range("a".."z").await?[0];
/// assert_eq!((&row.key, &row.value, row.commit_version), (&"k".into(), &"v".into(), None));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The version of the commit that wrote it; `None` if the transaction itself has changed it.
    pub commit_version: Option<Version>,
}

impl KeyValue {
    /// The bytes that count against [`RangeQuery::bytes_max`].
    pub fn size(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedValue {
    /// The value.
    pub value: Value,
    /// The version of the commit that wrote it; `None` if the transaction itself has changed it.
    pub commit_version: Option<Version>,
}

/// A part of a range, in the direction of the read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    /// The rows.
    pub rows: Vec<KeyValue>,
    /// Whether a limit ended the read, so that there may be more behind the last row.
    pub more: bool,
}

/// A row with the range that was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedRow {
    /// The row.
    pub row: KeyValue,
    /// The range.
    pub range: KeyRange,
    /// What is in the range.
    pub found: Vec<KeyValue>,
}

/// A part of a mapped range, in the direction of the read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedPage {
    /// The rows.
    pub rows: Vec<MappedRow>,
    /// Whether a limit ended the read, so that there may be more behind the last row.
    pub more: bool,
}
