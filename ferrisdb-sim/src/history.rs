//! A recorded history: what each attempt of a transaction saw and did, and when.
//!
//! ```text
//!   History                                      Recorder: one attempt of one transaction
//!     begin_with(database)  what was there         get, get_range, set, ...   as on a Transaction, noted
//!     begin(database, "c1") ------------------->   commit                     its outcome, noted
//!     conclude(database)    which attempts took effect, and what is there now
//!            |
//!            v
//!   Recorded --> checker::serializability::check
//!
//!   history/bank/c1/000007/<versionstamp>        the marker of attempt 7: written by its own commit
//! ```
//!
//! An attempt that writes also writes a marker, under a key that contains its versionstamp. So the markers say
//! afterwards which attempts took effect, where in the total order, and how often: also of those whose commit
//! got no answer (I-6). An attempt is one commit at most, and a transaction that is tried again is a further
//! attempt: the history knows nothing of idempotency ids.
//!
//! Only keys of the tracked ranges may be touched, and only through recorders: whatever else writes there is
//! found out as a violation.
//!
//! Start with [`History::begin`], then [`Recorder`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use ferrisdb_client::{
    Committed, Database, Error, ErrorCode, KeyValue, RangePage, RangeQuery, Result, Stage,
    Transaction, VersionedValue,
};
use ferrisdb_core::{
    Key, KeyRange, Mutation, Value, Version, Versionstamp, atomic::AtomicOp, runtime,
};
use parking_lot::Mutex;

use crate::parts;

/// Most attempts of one history: they stay in memory until they are checked.
pub const OPERATIONS_MAX: usize = 400_000;
/// How often the first and the last read are tried: through a recovery, not for ever.
const READ_ATTEMPTS: u32 = 100;
const READ_PAUSE: Duration = Duration::from_millis(100);

/// One attempt of a transaction.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who made it. Clients are sequential or not, as they like: only times count.
    pub client: Arc<str>,
    /// The attempt's number in the history, unique.
    pub number: u64,
    /// When it began, since the history did: nothing had been sent before.
    pub invoked: Duration,
    /// When its client knew how it ended, since the history began.
    pub responded: Duration,
    /// What its reads see; `None` if it ended before it knew.
    pub read_version: Option<Version>,
    /// What it read, in the order in which the answers came.
    pub reads: Vec<Read>,
    /// What it wrote, in order, without its marker.
    pub mutations: Vec<Mutation>,
    /// What it protected by itself, besides what it read.
    pub read_conflicts: Vec<KeyRange>,
    /// What it was a conflict for by itself, besides what it wrote.
    pub write_conflicts: Vec<KeyRange>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an attempt ended, as far as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It wrote nothing and was committed.
    ReadOnly,
    /// It was acknowledged, at this place in the total order.
    Committed(Versionstamp),
    /// It did not take effect and never will: a conflict, an error before the commit, or given up.
    Refused,
    /// Nobody told.
    Unknown,
}

/// A read and what it returned.
#[derive(Clone, Debug)]
pub struct Read {
    /// How many of the attempt's mutations came before it: it sees those.
    pub after_mutations: usize,
    /// Whether it is not protected by a conflict range.
    pub is_snapshot: bool,
    /// What was asked and answered.
    pub kind: ReadKind,
}

/// What a read asked and what was answered.
#[derive(Clone, Debug)]
pub enum ReadKind {
    /// A key.
    Point {
        /// The key.
        key: Key,
        /// Its value, if it had one.
        found: Option<VersionedValue>,
    },
    /// A range.
    Range {
        /// The keys, the limits and the direction.
        query: RangeQuery,
        /// The rows, and whether a limit ended the read.
        found: RangePage,
    },
}

impl fmt::Display for Operation {
    /// `c1#7`: the client and the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.client, self.number)
    }
}

/// Everything that a checker needs to know.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// What was there before the first attempt.
    pub initial: Vec<KeyValue>,
    /// All attempts, the last read included, in any order.
    pub operations: Vec<Operation>,
    /// The markers that the last read has found, by the number of their attempt.
    pub markers: BTreeMap<u64, Vec<Versionstamp>>,
}

/// A history being recorded. Clones are the same one.
#[derive(Clone)]
pub struct History {
    shared: Arc<Shared>,
}

struct Shared {
    /// When the first attempt began. The history itself may be made where there is no simulated clock yet.
    began: OnceLock<Instant>,
    tracked: Vec<KeyRange>,
    /// What the keys of all markers begin with.
    markers: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: u64,
    initial: Vec<KeyValue>,
    operations: Vec<Operation>,
}

impl History {
    /// An empty history of what happens in some ranges. The name tells its markers from those of others.
    pub fn new(name: &str, tracked: impl IntoIterator<Item = KeyRange>) -> History {
        let shared = Shared {
            began: OnceLock::new(),
            tracked: tracked.into_iter().collect(),
            markers: format!("history/{name}/"),
            state: Mutex::default(),
        };
        History { shared: Arc::new(shared) }
    }

    /// Reads what is in the tracked ranges before the first attempt. Not needed where that is nothing.
    ///
    /// # Errors
    ///
    /// Why the last try did not succeed.
    pub async fn begin_with(&self, database: &Database) -> Result<()> {
        let (operation, _) = self.read_everything(database, "initial").await?;
        let rows = operation.reads.into_iter().flat_map(|read| match read.kind {
            ReadKind::Range { found, .. } => found.rows,
            ReadKind::Point { .. } => Vec::new(),
        });
        self.shared.state.lock().initial = rows.collect();
        Ok(())
    }

    /// Begins an attempt.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] when the history is full.
    pub fn begin(&self, database: &Database, client: &str) -> Result<Recorder> {
        if self.is_full() {
            let detail = format!("the history holds {OPERATIONS_MAX} attempts: no more fit");
            return Err(Error::new(ErrorCode::InvalidArgument, Stage::Client, detail));
        }
        let operation = self.new_operation(client);
        Ok(Recorder {
            history: self.clone(),
            transaction: database.transaction(),
            noted: Mutex::new(Some(operation)),
        })
    }

    /// Whether no further attempt can be recorded.
    pub fn is_full(&self) -> bool {
        self.shared.state.lock().operations.len() >= OPERATIONS_MAX
    }

    /// How many attempts have ended.
    pub fn len(&self) -> usize {
        self.shared.state.lock().operations.len()
    }

    /// Whether none has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the recording: reads all markers and, as an attempt of its own, everything tracked. Attempts that
    /// end later are not part of it.
    ///
    /// # Errors
    ///
    /// Why the last try did not succeed.
    pub async fn conclude(&self, database: &Database) -> Result<Recorded> {
        let (operation, markers) = self.read_everything(database, "conclusion").await?;
        let mut state = self.shared.state.lock();
        let mut operations = std::mem::take(&mut state.operations);
        operations.push(operation);
        Ok(Recorded { initial: std::mem::take(&mut state.initial), operations, markers })
    }

    fn new_operation(&self, client: &str) -> Operation {
        let mut state = self.shared.state.lock();
        state.begun += 1;
        Operation {
            client: client.into(),
            number: state.begun,
            invoked: self.elapsed(),
            responded: Duration::MAX,
            read_version: None,
            reads: Vec::new(),
            mutations: Vec::new(),
            read_conflicts: Vec::new(),
            write_conflicts: Vec::new(),
            outcome: Outcome::Refused,
        }
    }

    fn elapsed(&self) -> Duration {
        let began = *self.shared.began.get_or_init(runtime::true_now);
        runtime::true_now().duration_since(began)
    }

    /// All tracked keys and all markers, at one version.
    async fn read_everything(
        &self,
        database: &Database,
        client: &str,
    ) -> Result<(Operation, BTreeMap<u64, Vec<Versionstamp>>)> {
        for attempt in 1.. {
            match self.try_to_read_everything(database, client).await {
                Err(error) if error.is_retryable() && attempt < READ_ATTEMPTS => {
                    tracing::debug!(%error, "a reader of everything waits");
                    runtime::sleep(READ_PAUSE).await;
                }
                other => return other,
            }
        }
        unreachable!("the loop ends by a return")
    }

    async fn try_to_read_everything(
        &self,
        database: &Database,
        client: &str,
    ) -> Result<(Operation, BTreeMap<u64, Vec<Versionstamp>>)> {
        let mut operation = self.new_operation(client);
        let transaction = database.transaction();
        operation.read_version = Some(transaction.read_version().await?);
        let known = self.known_keys();
        for range in &self.shared.tracked {
            let parts = parts::cut(range, &known);
            for (part, found) in parts.iter().zip(parts::read(&transaction, &parts).await?) {
                let kind = ReadKind::Range { query: RangeQuery::from(part), found };
                operation.reads.push(Read { after_mutations: 0, is_snapshot: false, kind });
            }
        }
        let prefix = self.shared.markers.as_bytes();
        let mut markers: BTreeMap<u64, Vec<Versionstamp>> = BTreeMap::new();
        let parts = parts::cut(&KeyRange::prefix(prefix), &known);
        let pages = parts::read(&transaction, &parts).await?;
        for row in pages.into_iter().flat_map(|page| page.rows) {
            let (number, versionstamp) = parse_marker(&row.key[prefix.len()..])
                .ok_or_else(|| foreign(&row.key, "is not the marker of an attempt"))?;
            markers.entry(number).or_default().push(versionstamp);
        }
        operation.outcome = Outcome::ReadOnly;
        operation.responded = self.elapsed();
        Ok((operation, markers))
    }

    /// Keys that attempts may have written, their markers included.
    fn known_keys(&self) -> BTreeSet<Key> {
        let state = self.shared.state.lock();
        let written = state.operations.iter().filter(|operation| !operation.mutations.is_empty());
        let keys = written.flat_map(|operation| {
            let marker = self.marker(&operation.client, operation.number).into();
            let set = operation.mutations.iter().filter_map(|mutation| match mutation {
                Mutation::Set { key, .. } | Mutation::Atomic { key, .. } => Some(key.clone()),
                _ => None,
            });
            set.chain(std::iter::once(marker))
        });
        keys.collect()
    }

    /// What the key of an attempt's marker begins with.
    fn marker(&self, client: &str, number: u64) -> String {
        format!("{}{client}/{number:06}/", self.shared.markers)
    }

    /// Touching what is not tracked would go unnoticed.
    fn check_tracked(&self, range: &KeyRange) -> Result<()> {
        let holds = |tracked: &KeyRange| tracked.begin <= range.begin && range.end <= tracked.end;
        if self.shared.tracked.iter().any(holds) {
            return Ok(());
        }
        Err(foreign(&range.begin, "is in no range that this history tracks"))
    }
}

/// The part of a marker's key behind the prefix: `c1/000007/`, then ten bytes of versionstamp.
fn parse_marker(name: &[u8]) -> Option<(u64, Versionstamp)> {
    let (name, stamp) = name.split_last_chunk::<{ Versionstamp::LEN }>()?;
    let name = name.strip_suffix(b"/")?;
    let number = name.rsplit(|&byte| byte == b'/').next()?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((number, Versionstamp::from_bytes(*stamp)))
}

fn foreign(key: &Key, what: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, Stage::Client, format!("{key} {what}"))
}

/// One attempt of a transaction, being recorded.
///
/// Dropping it gives the attempt up; if its commit was under way, its fate is unknown.
pub struct Recorder {
    history: History,
    transaction: Transaction,
    /// `None` once it has been added to the history.
    noted: Mutex<Option<Operation>>,
}

impl Recorder {
    /// The attempt's number in the history.
    pub fn number(&self) -> u64 {
        self.note(|operation| operation.number)
    }

    /// Whether it has written with a versionstamp, so that something cannot be read before the commit.
    pub fn is_stamped(&self) -> bool {
        self.note(|operation| {
            operation.mutations.iter().any(|mutation| {
                matches!(
                    mutation,
                    Mutation::SetVersionstampedKey { .. } | Mutation::SetVersionstampedValue { .. }
                )
            })
        })
    }

    /// Reads a key.
    ///
    /// # Errors
    ///
    /// What became of the read.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        self.read_key(key.into(), false).await
    }

    /// Reads a key, without a read conflict.
    ///
    /// # Errors
    ///
    /// What became of the read.
    pub async fn get_snapshot(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        self.read_key(key.into(), true).await
    }

    /// Reads a range, up to the limits of the query.
    ///
    /// # Errors
    ///
    /// What became of the read.
    pub async fn get_range(&self, query: impl Into<RangeQuery>) -> Result<Vec<KeyValue>> {
        self.read_range(query.into(), false).await
    }

    /// Reads a range, without a read conflict.
    ///
    /// # Errors
    ///
    /// What became of the read.
    pub async fn get_range_snapshot(&self, query: impl Into<RangeQuery>) -> Result<Vec<KeyValue>> {
        self.read_range(query.into(), true).await
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn set(&self, key: impl Into<Key>, value: impl Into<Value>) -> Result<()> {
        self.write(Mutation::Set { key: key.into(), value: value.into() })
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// The limit that is passed.
    pub fn clear(&self, key: impl Into<Key>) -> Result<()> {
        self.write(Mutation::Clear { key: key.into() })
    }

    /// Removes all keys of a range.
    ///
    /// # Errors
    ///
    /// What is wrong with the range.
    pub fn clear_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        self.write(Mutation::ClearRange { range: range.into() })
    }

    /// Changes a value by a function of it.
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

    /// Sets a key that will contain the versionstamp, in the ten bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// As for [`Transaction::set_versionstamped_key`].
    pub fn set_versionstamped_key(
        &self,
        key: impl Into<Key>,
        offset: u32,
        value: impl Into<Value>,
    ) -> Result<()> {
        self.write(Mutation::SetVersionstampedKey { key: key.into(), offset, value: value.into() })
    }

    /// Sets a value that will contain the versionstamp, in the ten bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// As for [`Transaction::set_versionstamped_value`].
    pub fn set_versionstamped_value(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
        offset: u32,
    ) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        self.write(Mutation::SetVersionstampedValue { key, value, offset })
    }

    /// Lets later writes to a range be a conflict, as if it had been read.
    ///
    /// # Errors
    ///
    /// What is wrong with the range, or why there is no read version.
    pub async fn add_read_conflict_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let range = range.into();
        self.history.check_tracked(&range)?;
        // It is from here on that nobody may write.
        self.transaction.read_version().await.inspect(|&version| self.read_at(version))?;
        self.transaction.add_read_conflict_range(&range)?;
        self.note(|operation| {
            let protected = not_written(range, &operation.mutations);
            operation.read_conflicts.extend(protected);
        });
        Ok(())
    }

    /// Lets the attempt be a conflict for others, as if it had written a range.
    ///
    /// # Errors
    ///
    /// What is wrong with the range.
    pub fn add_write_conflict_range(&self, range: impl Into<KeyRange>) -> Result<()> {
        let range = range.into();
        self.history.check_tracked(&range)?;
        self.transaction.add_write_conflict_range(&range)?;
        self.note(|operation| operation.write_conflicts.push(range));
        Ok(())
    }

    /// Commits, and notes how that ended.
    ///
    /// # Errors
    ///
    /// As for [`Transaction::commit`].
    pub async fn commit(self) -> Result<Committed> {
        let writes = self.note(|operation| {
            !operation.mutations.is_empty() || !operation.write_conflicts.is_empty()
        });
        if writes {
            self.transaction.read_version().await.inspect(|&version| self.read_at(version))?;
            let marker = self.note(|operation| {
                // From here on: whoever stops waiting does not know what becomes of it.
                operation.outcome = Outcome::Unknown;
                self.history.marker(&operation.client, operation.number)
            });
            let (offset, mut key) = (marker.len(), marker.into_bytes());
            key.extend([0; Versionstamp::LEN]);
            let offset = u32::try_from(offset).expect("names of clients are short");
            self.transaction.set_versionstamped_key(key, offset, "").inspect_err(|_| {
                self.note(|operation| operation.outcome = Outcome::Refused);
            })?;
        }
        let result = self.transaction.commit().await;
        let outcome = match &result {
            Ok(Committed { versionstamp: Some(versionstamp), .. }) => {
                Outcome::Committed(*versionstamp)
            }
            Ok(Committed { versionstamp: None, .. }) => Outcome::ReadOnly,
            Err(error) if error.is_maybe_committed() => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        self.note(|operation| operation.outcome = outcome);
        result
    }

    async fn read_key(&self, key: Key, is_snapshot: bool) -> Result<Option<Value>> {
        self.history.check_tracked(&KeyRange::single(&key))?;
        self.transaction.read_version().await.inspect(|&version| self.read_at(version))?;
        let after_mutations = self.note(|operation| operation.mutations.len());
        let found = match is_snapshot {
            true => self.transaction.snapshot().get_versioned(&key).await?,
            false => self.transaction.get_versioned(&key).await?,
        };
        let value = found.as_ref().map(|found| found.value.clone());
        let kind = ReadKind::Point { key, found };
        self.note(|operation| operation.reads.push(Read { after_mutations, is_snapshot, kind }));
        Ok(value)
    }

    async fn read_range(&self, query: RangeQuery, is_snapshot: bool) -> Result<Vec<KeyValue>> {
        let range = query.plain_range().expect("recorded reads have plain ends");
        self.history.check_tracked(&range)?;
        self.transaction.read_version().await.inspect(|&version| self.read_at(version))?;
        let after_mutations = self.note(|operation| operation.mutations.len());
        let found = match is_snapshot {
            true => self.transaction.snapshot().get_range_page(query.clone()).await?,
            false => self.transaction.get_range_page(query.clone()).await?,
        };
        let rows = found.rows.clone();
        let kind = ReadKind::Range { query, found };
        self.note(|operation| operation.reads.push(Read { after_mutations, is_snapshot, kind }));
        Ok(rows)
    }

    fn write(&self, mutation: Mutation) -> Result<()> {
        let range = match &mutation {
            Mutation::ClearRange { range } => range.clone(),
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::Atomic { key, .. }
            | Mutation::SetVersionstampedValue { key, .. } => KeyRange::single(key),
            // Whatever the versionstamp will be.
            Mutation::SetVersionstampedKey { key, offset, .. } => {
                KeyRange::prefix(key.get(..*offset as usize).unwrap_or_default())
            }
        };
        self.history.check_tracked(&range)?;
        match mutation.clone() {
            Mutation::Set { key, value } => self.transaction.set(key, value)?,
            Mutation::Clear { key } => self.transaction.clear(key)?,
            Mutation::ClearRange { range } => self.transaction.clear_range(range)?,
            Mutation::Atomic { key, op, operand } => self.transaction.atomic(op, key, operand)?,
            Mutation::SetVersionstampedKey { key, offset, value } => {
                self.transaction.set_versionstamped_key(key, offset, value)?;
            }
            Mutation::SetVersionstampedValue { key, value, offset } => {
                self.transaction.set_versionstamped_value(key, value, offset)?;
            }
        }
        self.note(|operation| operation.mutations.push(mutation));
        Ok(())
    }

    fn read_at(&self, version: Version) {
        self.note(|operation| operation.read_version = Some(version));
    }

    fn note<T>(&self, change: impl FnOnce(&mut Operation) -> T) -> T {
        change(self.noted.lock().as_mut().expect("an attempt is added when its recorder is gone"))
    }
}

/// The parts of a range that a transaction has not set or cleared itself: only those can be protected.
fn not_written(range: KeyRange, mutations: &[Mutation]) -> Vec<KeyRange> {
    let mut parts = vec![range];
    for mutation in mutations {
        let written = match mutation {
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::SetVersionstampedValue { key, .. } => KeyRange::single(key),
            Mutation::ClearRange { range } => range.clone(),
            Mutation::Atomic { .. } | Mutation::SetVersionstampedKey { .. } => continue,
        };
        let without = |part: KeyRange| {
            if !part.intersects(&written) {
                return vec![part];
            }
            let before = KeyRange { begin: part.begin, end: written.begin.clone() };
            let after = KeyRange { begin: written.end.clone(), end: part.end };
            vec![before, after]
        };
        parts = parts.into_iter().flat_map(without).filter(|part| !part.is_empty()).collect();
    }
    parts
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(mut operation) = self.noted.get_mut().take() {
            operation.responded = self.history.elapsed();
            self.history.shared.state.lock().operations.push(operation);
        }
    }
}
