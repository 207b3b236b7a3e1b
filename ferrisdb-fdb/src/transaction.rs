//! `FDBTransaction`: the client's transaction, with C's rules of when errors show up.
//!
//! ```text
//!   set, clear, ...       cannot fail: the first error is kept ...
//!   get, commit, ...      ... and every future from then on has it, until a reset or on_error
//!   reset, on_error,      futures that are pending fail with transaction_cancelled
//!   cancel, destroy
//!   misuse while the      used_during_commit, and the commit fails with it, too, and so does on_error: only a reset
//!   commit is under way   helps (unless the option says otherwise)
//! ```

use std::{
    future::Future as Work,
    sync::{Arc, Weak},
};

use ferrisdb_client::{
    AtomicOp, Error, ErrorCode, Key, KeyRange, KeySelector, RangePage, RangeQuery, Stage,
    StreamingMode, Transaction as Client, TransactionOption,
};
use ferrisdb_core::{limits, transaction::METADATA_VERSION_KEY};
use parking_lot::Mutex;

use crate::{
    api_version,
    database::{DatabaseOptions, Defaults},
    errors::{self, Code},
    mapped::Mapper,
    options::{self, TransactionSetting},
    promise::{Ended, Output, Promise},
    size::Written,
    special::{self, Tracing},
};

/// Most tags of a transaction.
const TAGS_MAX: usize = 5;

/// Bytes of the pages of an iteration, by its number.
const ITERATION_BYTES: [usize; 10] =
    [4_096, 6_144, 9_216, 13_824, 20_736, 31_104, 46_656, 69_984, 80_000, 120_000];

/// The value that sets the version of the metadata: the gap for the stamp, and the stamp's offset.
const METADATA_VERSION_VALUE: [u8; 14] = [0; 14];

/// `FDBTransaction`, whose results are of the kind `P`.
#[derive(Debug)]
pub struct Transaction<P> {
    /// Or why there is no database.
    client: Result<Client, Code>,
    database: Arc<DatabaseOptions>,
    state: Mutex<State<P>>,
}

#[derive(Debug)]
struct State<P> {
    /// The first error of a call that cannot fail.
    deferred: Option<Code>,
    /// The transaction was used during its commit.
    is_poisoned: bool,
    may_write_special_keys: bool,
    defaults: Defaults,
    tags: Vec<Vec<u8>>,
    tracing: Option<Tracing>,
    /// The commit before the present state, of programs for which a commit resets.
    committed_version: Option<i64>,
    /// What fails when the transaction is reset.
    pending: Vec<Weak<P>>,
    /// The reads among them, which a commit waits for.
    reads: Vec<Weak<P>>,
    /// Who waits for the versionstamp: they hear of it before whoever waits for the commit.
    stamps: Vec<Weak<P>>,
    written: Written,
}

impl<P> Default for State<P> {
    fn default() -> State<P> {
        State {
            deferred: None,
            is_poisoned: false,
            may_write_special_keys: false,
            defaults: Defaults::default(),
            tags: Vec::new(),
            tracing: None,
            committed_version: None,
            pending: Vec::new(),
            reads: Vec::new(),
            stamps: Vec::new(),
            written: Written::default(),
        }
    }
}

/// A range read, as C asks for it.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// Where the range begins.
    pub begin: KeySelector,
    /// Where it ends.
    pub end: KeySelector,
    /// Most rows; zero for no limit.
    pub limit: i32,
    /// Most bytes, about; zero for no limit.
    pub target_bytes: i32,
    /// `FDBStreamingMode`.
    pub mode: i32,
    /// Counts the parts that are asked for in the iterator mode, from 1 on.
    pub iteration: i32,
    /// Whether no conflict is wanted.
    pub snapshot: bool,
    /// Whether to begin at the end.
    pub reverse: bool,
}

/// Which conflict ranges are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictRangeType {
    /// A later write to it is a conflict.
    Read,
    /// It is a conflict for others that have read it.
    Write,
}

impl<P: Promise> Transaction<P> {
    /// A new transaction of a handle with these options; or one that says in each result why there is no database.
    pub fn new(
        client: Result<ferrisdb_client::Database, Code>,
        database: Arc<DatabaseOptions>,
    ) -> Arc<Transaction<P>> {
        let client = client.map(|client| client.transaction());
        let transaction = Transaction { client, database, state: Mutex::default() };
        transaction.apply_defaults();
        Arc::new(transaction)
    }

    /// Fails what is pending, and drops the transaction unless a commit still needs it.
    pub fn destroy(self: Arc<Self>) {
        self.fail_pending();
    }

    /// Gives up: everything fails from now on, until a reset.
    pub fn cancel(&self) {
        if let Ok(client) = &self.client {
            client.cancel();
        }
        self.fail_pending();
    }

    /// Forgets everything.
    pub fn reset(&self) {
        if let Ok(client) = &self.client {
            client.reset();
        }
        self.begin_again();
    }

    /// After an error: makes the transaction ready to be tried again, if that may help.
    pub fn on_error(&self, code: Code) -> Arc<P> {
        if self.state.lock().is_poisoned {
            return P::ready(Err(errors::USED_DURING_COMMIT));
        }
        let client = match &self.client {
            Ok(client) => client.clone(),
            Err(_) => return P::ready(Err(code)),
        };
        let error = errors::as_error(code);
        let stand_in = error.code();
        // That nothing has failed is no reason to try again: the transaction ends as with any other error of that kind.
        let code = if code == errors::SUCCESS { errors::CLIENT_INVALID_OPERATION } else { code };
        // Its first step resets the transaction.
        let future = P::start(async move {
            match client.on_error(error).await {
                Ok(()) => Ok(Output::Void),
                Err(last) if last.code() == stand_in => Err(code),
                Err(last) => Err(errors::number_of(&last)),
            }
        });
        self.begin_again();
        self.remember(&future);
        future
    }

    /// Sets an option.
    ///
    /// # Errors
    ///
    /// `invalid_option`, and `invalid_option_value` for a timeout. What is wrong with another value, or with the state of the
    /// transaction, shows up later.
    pub fn set_option(&self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        match self.set_checked_option(option, value) {
            Err(code) if options::shows_up_later(option, code) => {
                self.defer(code);
                Ok(())
            }
            result => result,
        }
    }

    fn set_checked_option(&self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        match options::of_transaction(option, value)? {
            TransactionSetting::Client(TransactionOption::SizeLimit(bytes))
                if !(32..=limits::TRANSACTION_BYTES_MAX).contains(&bytes) =>
            {
                return Err(errors::INVALID_OPTION_VALUE);
            }
            TransactionSetting::Client(option) => {
                let Ok(client) = &self.client else { return Ok(()) };
                if option == TransactionOption::NextWriteWithoutConflict {
                    self.state.lock().written.without_conflict();
                }
                // Of a transaction that has ended or was cancelled options do not matter: it has to be reset first.
                if let Err(error) = client.set_option(option)
                    && options::is_about_value(&error)
                {
                    self.defer(errors::CLIENT_INVALID_OPERATION);
                }
            }
            TransactionSetting::UsedDuringCommitUnprotected => {
                self.state.lock().defaults.is_commit_unprotected = true;
            }
            TransactionSetting::SpecialKeyWrites => {
                self.state.lock().may_write_special_keys = true;
            }
            TransactionSetting::Tag(tag) => {
                let mut state = self.state.lock();
                if !state.tags.contains(&tag) {
                    if state.tags.len() >= TAGS_MAX {
                        return Err(errors::TOO_MANY_TAGS);
                    }
                    state.tags.push(tag);
                }
            }
            TransactionSetting::Ignored => {}
        }
        Ok(())
    }
}

/// The version that is read, and the commit.
impl<P: Promise> Transaction<P> {
    /// Reads at this version.
    pub fn set_read_version(&self, version: i64) {
        let positive = u64::try_from(version).ok().filter(|version| *version > 0);
        let Some(version) = positive else { return self.defer(errors::VERSION_INVALID) };
        let _ = self.change(|client| client.set_read_version(ferrisdb_client::Version(version)));
    }

    /// The version that is read.
    pub fn read_version(&self) -> Arc<P> {
        self.run(async |client: Client| client.read_version().await.map(of_version))
    }

    /// Commits.
    pub fn commit(self: &Arc<Self>) -> Arc<P> {
        if let Err(code) = self.usable() {
            // There will be no commit.
            self.settle_stamps(Err(code));
            return P::ready(Err(code));
        }
        let itself = Arc::clone(self);
        let begun_before = self.state.lock().reads.clone();
        self.run_raw(async move |client: Client| {
            let committed = client.commit().await.map_err(|error| {
                // FoundationDB's timer fails what is under way, whatever may have become of it.
                match error.is_maybe_committed() && client.is_timed_out() {
                    true => Code::from(ErrorCode::TransactionTimedOut.number()),
                    false => errors::number_of(&error),
                }
            });
            // Not between two polls, as the commit ends in the one before the result is seen.
            let is_poisoned = itself.state.lock().is_poisoned;
            let committed = match is_poisoned {
                true => Err(errors::USED_DURING_COMMIT),
                false => committed,
            };
            // If there is another commit, whoever waits for the versionstamp waits for that one. If there was misuse, they know.
            if committed != Err(errors::USED_DURING_COMMIT) {
                itself.settle_stamps(committed);
            }
            committed?;
            // It has waited for the reads that were under way, though for nothing else. A program that destroys the transaction now keeps their results, so
            // they have to be where it looks for them.
            for read in begun_before {
                let Some(read) = read.upgrade() else { continue };
                read.completed().await;
            }
            if !api_version::is_at_least(700) {
                itself.state.lock().committed_version = client.committed_version().map(number_of);
                client.reset();
                itself.state.lock().written = Written::default();
                itself.apply_defaults();
            }
            Ok(Output::Void)
        })
    }

    /// The version of the commit; -1 if there was none, or nothing was written.
    pub fn committed_version(&self) -> i64 {
        let Ok(client) = &self.client else { return -1 };
        let version = client.committed_version().map(number_of);
        version.or(self.state.lock().committed_version).unwrap_or(-1)
    }

    /// The versionstamp of the commit that will be.
    pub fn versionstamp(&self) -> Arc<P> {
        let client = match self.open() {
            Ok(client) => client,
            Err(code) => return P::ready(Err(code)),
        };
        let stamp = client.versionstamp();
        // Not given up with the transaction: the client says what became of it.
        let future = P::start(async move {
            let stamp = stamp.await;
            stamp_of(stamp.map_err(|error| errors::number_of(&error)))
        });
        self.state.lock().stamps.push(Arc::downgrade(&future));
        future
    }

    /// The commit has ended: says so to whoever waits for the versionstamp, before anybody hears of the commit itself.
    fn settle_stamps(&self, committed: Result<ferrisdb_client::Committed, Code>) {
        let stamp = committed.and_then(|committed| {
            let none = Code::from(ErrorCode::NoCommitVersion.number());
            committed.versionstamp.ok_or(none)
        });
        let waiting = std::mem::take(&mut self.state.lock().stamps);
        for future in waiting.iter().filter_map(Weak::upgrade) {
            future.settle(stamp_of(stamp));
        }
    }

    /// Bytes of mutations and conflict ranges so far, see [`crate::size`].
    pub fn approximate_size(&self) -> Arc<P> {
        let written = self.state.lock().written;
        let size = self.usable().map(|client| written.approximate_size(&client));
        let size = size.map(|size| Output::Int64(i64::try_from(size).unwrap_or(i64::MAX)));
        P::ready(size)
    }

    /// What the transaction costs so far, in pages of 4,096 bytes that it writes; at least one.
    pub fn total_cost(&self) -> Arc<P> {
        let size = self.usable().map(|client| client.approximate_size());
        P::ready(size.map(|size| {
            Output::Int64(i64::try_from(size.div_ceil(4_096).max(1)).unwrap_or(i64::MAX))
        }))
    }

    /// How long the transaction waited because of its tags: no tag is throttled here.
    pub fn tag_throttled_duration(&self) -> Arc<P> {
        P::ready(self.usable().map(|_| Output::Double(0.0)))
    }
}

/// Reads.
impl<P: Promise> Transaction<P> {
    /// Reads a key.
    pub fn get(&self, key: &[u8], snapshot: bool) -> Arc<P> {
        if special::is_special(key)
            && let Some(value) = self.state.lock().tracing().get(key)
        {
            return P::ready(Ok(Output::Value(value)));
        }
        // Nobody can have written it.
        if key.len() > limits::KEY_BYTES_MAX {
            return P::ready(self.open().map(|_| Output::Value(None)));
        }
        let (key, is_special) = (Key::copy_from(key), special::is_special(key));
        let future = self.run(async move |client: Client| {
            let value = match snapshot {
                true => client.snapshot().get(key).await,
                false => client.get(key).await,
            };
            value.map(Output::Value)
        });
        if !is_special {
            self.remember_read(&future);
        }
        future
    }

    /// The key that a selector names.
    pub fn get_key(&self, selector: KeySelector, snapshot: bool) -> Arc<P> {
        let selector = shortened(selector);
        let future = self.run(async move |client: Client| {
            let key = match snapshot {
                true => client.snapshot().get_key(selector).await,
                false => client.get_key(selector).await,
            };
            key.map(Output::Key)
        });
        self.remember_read(&future);
        future
    }

    /// Reads a part of a range.
    pub fn get_range(&self, request: RangeRequest) -> Arc<P> {
        let (snapshot, query) = match query_of(request) {
            Ok(query) => query,
            Err(code) => return self.refuse_range(code),
        };
        let is_special = special::is_special(&query.begin.key);
        if is_special
            && let Some(range) = query.plain_range()
            && let Some(mut rows) = self.state.lock().tracing().get_range(&range)
        {
            if query.reverse {
                rows.reverse();
            }
            let count = rows.len();
            rows.truncate(query.rows_max.unwrap_or(count));
            let more = rows.len() < count;
            return P::ready(Ok(Output::Rows(RangePage { rows, more })));
        }
        let future = self.run(async move |client: Client| {
            let page = match snapshot {
                true => client.snapshot().get_range_page(query).await,
                false => client.get_range_page(query).await,
            };
            page.map(Output::Rows)
        });
        if !is_special {
            self.remember_read(&future);
        }
        future
    }

    /// A range read that makes no sense: a wrong limit is found out in the transaction, everything else before it is looked at.
    fn refuse_range(&self, code: Code) -> Arc<P> {
        P::ready(match code {
            errors::RANGE_LIMITS_INVALID => self.open().and(Err(code)),
            _ => Err(code),
        })
    }

    /// Reads a part of a range, and for every row of it the range that the mapper makes of the row.
    pub fn get_mapped_range(&self, request: RangeRequest, mapper: &[u8]) -> Arc<P> {
        let prepared = match request.snapshot {
            true => Err(errors::UNSUPPORTED_OPERATION),
            false => query_of(request).and_then(|(_, query)| Ok((query, Mapper::parse(mapper)?))),
        };
        let (query, mapper) = match prepared {
            Ok(prepared) => prepared,
            Err(code) => return P::ready(self.usable().and(Err(code))),
        };
        let future = self.run_raw(async move |client: Client| {
            let mapped = client.get_mapped_range(query, move |row| mapper.range(row)).await;
            let page = mapped.map_err(|error| errors::number_of(&error))??;
            Ok(Output::MappedRows { rows: page.rows, more: page.more })
        });
        self.remember_read(&future);
        future
    }

    /// Watches a key.
    pub fn watch(&self, key: &[u8]) -> Arc<P> {
        let client = match self.usable() {
            Ok(client) => client,
            Err(code) => return P::ready(Err(code)),
        };
        let key = Key::copy_from(key);
        // It outlives the transaction once that is committed; before, the client lets it fail with it.
        let future = P::start(async move {
            let watch = client.watch(key).await.map_err(|error| errors::number_of(&error))?;
            drop(client);
            watch.await.map(|()| Output::Void).map_err(|error| errors::number_of(&error))
        });
        self.look_for_misuse(&future);
        future
    }

    /// Who holds a key.
    pub fn addresses_for_key(&self, key: &[u8]) -> Arc<P> {
        let key = Key::copy_from(key);
        self.run(async move |client: Client| {
            let addresses = client.addresses_for_key(key).await;
            addresses.map(Output::Strings)
        })
    }

    /// About how many bytes a range has.
    pub fn estimated_range_size(&self, begin: &[u8], end: &[u8]) -> Arc<P> {
        let range = KeyRange { begin: shortened_bound(begin), end: shortened_bound(end) };
        self.run(async move |client: Client| {
            let size = client.estimated_range_size(range).await;
            size.map(|size| Output::Int64(i64::try_from(size).unwrap_or(i64::MAX)))
        })
    }

    /// Keys that divide a range into parts of about so many bytes; at most so many between its ends, if that is more than zero.
    pub fn range_split_points(
        &self,
        begin: &[u8],
        end: &[u8],
        chunk_bytes: i64,
        limit: i32,
    ) -> Arc<P> {
        let range = KeyRange { begin: shortened_bound(begin), end: shortened_bound(end) };
        let Some(chunk_bytes) = u64::try_from(chunk_bytes).ok().filter(|bytes| *bytes > 0) else {
            return P::ready(self.usable().and(Err(errors::CLIENT_INVALID_OPERATION)));
        };
        let points_max = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        self.run(async move |client: Client| {
            let points = client.range_split_points(range, chunk_bytes, points_max).await;
            points.map(Output::Keys)
        })
    }
}

/// Writes: they cannot fail.
impl<P: Promise> Transaction<P> {
    /// Sets a key.
    pub fn set(&self, key: &[u8], value: &[u8]) {
        if special::is_special(key) {
            return self.change_special(|tracing, is_first| tracing.set(key, value, is_first));
        }
        if key == METADATA_VERSION_KEY {
            return self.defer(errors::CLIENT_INVALID_OPERATION);
        }
        if self.change(|client| client.set(key, value)) {
            self.state.lock().written.set(key, value, false);
        }
    }

    /// Clears a key.
    pub fn clear(&self, key: &[u8]) {
        if special::is_special(key) {
            return self.change_special(|_, _| special::clear(&KeyRange::single(&key.into())));
        }
        if key == METADATA_VERSION_KEY {
            return self.defer(errors::CLIENT_INVALID_OPERATION);
        }
        // Nobody can have written a longer one.
        if key.len() <= limits::KEY_BYTES_MAX && self.change(|client| client.clear(key)) {
            self.state.lock().written.clear(key);
        }
    }

    /// Clears a range.
    pub fn clear_range(&self, begin: &[u8], end: &[u8]) {
        if special::is_special(begin) {
            let range = KeyRange::new(begin, end);
            return self.change_special(|_, _| special::clear(&range));
        }
        let range = KeyRange { begin: shortened_bound(begin), end: shortened_bound(end) };
        if self.change(|client| client.clear_range(range)) {
            self.state.lock().written.clear_range(begin, end);
        }
    }

    /// An atomic operation.
    pub fn atomic_op(&self, key: &[u8], parameter: &[u8], operation: i32) {
        if key == METADATA_VERSION_KEY {
            let is_stamp =
                operation == SET_VERSIONSTAMPED_VALUE && *parameter == METADATA_VERSION_VALUE;
            if !is_stamp {
                return self.defer(errors::CLIENT_INVALID_OPERATION);
            }
        }
        let is_taken = match operation {
            SET_VERSIONSTAMPED_KEY => match split_offset(key) {
                Some((key, offset)) => {
                    self.change(|client| client.set_versionstamped_key(key, offset, parameter))
                }
                None => return self.defer(errors::CLIENT_INVALID_OPERATION),
            },
            SET_VERSIONSTAMPED_VALUE => match split_offset(parameter) {
                Some((value, offset)) => {
                    self.change(|client| client.set_versionstamped_value(key, value, offset))
                }
                None => return self.defer(errors::CLIENT_INVALID_OPERATION),
            },
            _ => match atomic_operation(operation) {
                Some(operation) => self.change(|client| client.atomic(operation, key, parameter)),
                None => return self.defer(errors::INVALID_MUTATION_TYPE),
            },
        };
        if is_taken {
            let is_key_stamped = operation == SET_VERSIONSTAMPED_KEY;
            self.state.lock().written.set(key, parameter, is_key_stamped);
        }
    }

    /// Adds a conflict range.
    ///
    /// # Errors
    ///
    /// `inverted_range`.
    pub fn add_conflict_range(
        &self,
        begin: &[u8],
        end: &[u8],
        kind: ConflictRangeType,
    ) -> Result<(), Code> {
        if begin > end {
            return Err(errors::INVERTED_RANGE);
        }
        // Nobody looks for conflicts of what is not there.
        if special::is_special(begin) {
            return Ok(());
        }
        let range = KeyRange { begin: shortened_bound(begin), end: shortened_bound(end) };
        let is_taken = self.change(|client| match kind {
            ConflictRangeType::Read => client.add_read_conflict_range(range),
            ConflictRangeType::Write => client.add_write_conflict_range(range),
        });
        // What was read is counted where it is: see `Written::approximate_size`.
        if is_taken && kind == ConflictRangeType::Write {
            self.state.lock().written.conflict(begin, end);
        }
        Ok(())
    }
}

/// How all of them work.
impl<P: Promise> Transaction<P> {
    /// The client's transaction, unless an error was deferred.
    fn usable(&self) -> Result<Client, Code> {
        let deferred = self.state.lock().deferred;
        match deferred {
            Some(code) => Err(code),
            None => self.client.clone(),
        }
    }

    /// As [`Transaction::usable`], if an operation may begin now.
    fn open(&self) -> Result<Client, Code> {
        let client = self.usable()?;
        let open = client.check_open().map_err(|error| errors::number_of(&error));
        if open == Err(errors::USED_DURING_COMMIT) {
            self.note_misuse();
        }
        open.map(|()| client)
    }

    /// Begins an operation; its errors are the client's.
    fn run<W>(&self, work: impl FnOnce(Client) -> W + Send + 'static) -> Arc<P>
    where
        W: Work<Output = ferrisdb_client::Result<Output>> + Send + 'static,
    {
        self.run_raw(move |client| {
            let work = work(client);
            async move { work.await.map_err(|error: Error| errors::number_of(&error)) }
        })
    }

    /// Begins an operation.
    fn run_raw<W>(&self, work: impl FnOnce(Client) -> W) -> Arc<P>
    where
        W: Work<Output = Ended> + Send + 'static,
    {
        let client = match self.usable() {
            Ok(client) => client,
            Err(code) => return P::ready(Err(code)),
        };
        let future = P::start(work(client));
        self.look_for_misuse(&future);
        self.remember(&future);
        future
    }

    /// Lets the future fail with the transaction, as long as it is pending.
    fn remember(&self, future: &Arc<P>) {
        if !future.is_ready() {
            remember_in(&mut self.state.lock().pending, future);
        }
    }

    /// Lets a commit that begins now wait for the future: it is one of a read.
    fn remember_read(&self, future: &Arc<P>) {
        if !future.is_ready() {
            remember_in(&mut self.state.lock().reads, future);
        }
    }

    /// The transaction was reset, or will not be used any more.
    fn fail_pending(&self) {
        self.fail_pending_with(Code::from(ErrorCode::TransactionCancelled.number()));
    }

    fn fail_pending_with(&self, code: Code) {
        let pending = std::mem::take(&mut self.state.lock().pending);
        for future in pending.iter().filter_map(Weak::upgrade) {
            future.fail(code);
        }
    }

    /// The transaction was reset.
    fn begin_again(&self) {
        self.fail_pending();
        *self.state.lock() = State::default();
        self.apply_defaults();
    }

    fn apply_defaults(&self) {
        self.state.lock().defaults = self.database.defaults();
    }

    fn defer(&self, code: Code) {
        self.state.lock().deferred.get_or_insert(code);
    }

    /// Changes the client's transaction, and says whether that was done; an error is kept.
    fn change(&self, change: impl FnOnce(&Client) -> ferrisdb_client::Result<()>) -> bool {
        let code = match &self.client {
            Ok(client) => match change(client) {
                Ok(()) => return true,
                Err(error) if error.code() == ErrorCode::InvalidMutation => {
                    errors::CLIENT_INVALID_OPERATION
                }
                Err(error) => errors::number_of(&error),
            },
            Err(code) => *code,
        };
        if code == errors::USED_DURING_COMMIT {
            self.note_misuse();
        }
        self.defer(code);
        false
    }

    /// Changes a special key; tells the change whether nothing was read or written before.
    fn change_special(&self, change: impl FnOnce(&mut Tracing, bool) -> Result<(), Code>) {
        let has_read = |client: &Client| client.read_conflicts_size().0 > 0;
        let has_read = self.client.as_ref().is_ok_and(has_read);
        let mut state = self.state.lock();
        let is_first = state.written.is_empty() && !has_read;
        let changed = match state.may_write_special_keys {
            true => change(state.tracing(), is_first),
            false => Err(errors::SPECIAL_KEYS_WRITE_DISABLED),
        };
        drop(state);
        if let Err(code) = changed {
            self.defer(code);
        }
    }

    /// The transaction was used while it is being committed, or after that.
    fn note_misuse(&self) {
        {
            let mut state = self.state.lock();
            if state.defaults.is_commit_unprotected {
                return;
            }
            state.is_poisoned = true;
        }
        self.fail_pending_with(errors::USED_DURING_COMMIT);
        // The work of the commit was dropped with that: nobody else tells those who wait for what it would have brought.
        self.settle_stamps(Err(errors::USED_DURING_COMMIT));
        if let Ok(client) = &self.client {
            client.abandon_commit(Error::new(ErrorCode::UsedDuringCommit, Stage::Client, ""));
        }
    }

    fn look_for_misuse(&self, future: &P) {
        if future.error() == Err(errors::USED_DURING_COMMIT) {
            self.note_misuse();
        }
    }
}

/// Adds a future to a list. Those that are complete are dropped now and then.
fn remember_in<P: Promise>(list: &mut Vec<Weak<P>>, future: &Arc<P>) {
    if list.len() == list.capacity() {
        list.retain(|future| future.upgrade().is_some_and(|future| !future.is_ready()));
    }
    list.push(Arc::downgrade(future));
}

impl<P> State<P> {
    fn tracing(&mut self) -> &mut Tracing {
        self.tracing.get_or_insert_with(Tracing::random)
    }
}

const SET_VERSIONSTAMPED_KEY: i32 = 14;
const SET_VERSIONSTAMPED_VALUE: i32 = 15;

/// The operation of a number. 18 and 19 are how FoundationDB itself names two of them.
fn atomic_operation(number: i32) -> Option<AtomicOp> {
    match number {
        18 => Some(AtomicOp::Min),
        19 => Some(AtomicOp::And),
        _ => AtomicOp::from_number(u8::try_from(number).ok()?),
    }
}

/// A versionstamp as C reads it. A commit that has failed has none; who gave the transaction up hears that.
fn stamp_of(stamp: Result<ferrisdb_client::Versionstamp, Code>) -> Ended {
    const KEPT: [ErrorCode; 3] = [
        ErrorCode::NoCommitVersion,
        ErrorCode::TransactionCancelled,
        ErrorCode::TransactionTimedOut,
    ];
    match stamp {
        Ok(stamp) => Ok(Output::Key(Key::copy_from(&stamp.to_bytes()))),
        Err(errors::USED_DURING_COMMIT) => Err(errors::USED_DURING_COMMIT),
        Err(code) if KEPT.map(|kept| Code::from(kept.number())).contains(&code) => Err(code),
        Err(_) => Err(errors::TRANSACTION_INVALID_VERSION),
    }
}

/// What comes before the offset of a versionstamp, and the offset: four bytes at the end, the lowest first.
fn split_offset(bytes: &[u8]) -> Option<(&[u8], u32)> {
    let (rest, offset) = bytes.split_last_chunk()?;
    let offset = u32::from_le_bytes(*offset);
    let end = usize::try_from(offset).ok()?.checked_add(ferrisdb_client::Versionstamp::LEN)?;
    (end <= rest.len()).then_some((rest, offset))
}

/// A bound of a range with the same keys on either side, and not too long: no key is longer than the limit.
fn shortened_bound(bound: &[u8]) -> Key {
    match bound.get(..limits::KEY_BYTES_MAX) {
        Some(prefix) if bound.len() > limits::KEY_BYTES_MAX => Key::copy_from(prefix).successor(),
        _ => Key::copy_from(bound),
    }
}

/// The same for a selector: behind all keys that are not longer.
fn shortened(selector: KeySelector) -> KeySelector {
    match selector.key.get(..limits::KEY_BYTES_MAX) {
        Some(prefix) if selector.key.len() > limits::KEY_BYTES_MAX => {
            KeySelector { key: Key::copy_from(prefix), or_equal: true, ..selector }
        }
        _ => selector,
    }
}

/// The query of a request, and whether it is a snapshot read.
fn query_of(request: RangeRequest) -> Result<(bool, RangeQuery), Code> {
    let unlimited = |number: i32| match number {
        0 | -1 => Ok(None),
        ..-1 => Err(errors::RANGE_LIMITS_INVALID),
        1.. => Ok(usize::try_from(number).ok()),
    };
    let rows_max = unlimited(request.limit)?;
    let target_bytes = unlimited(request.target_bytes)?;
    let mode_bytes = match request.mode {
        -2 => Some(80_000),
        -1 => {
            let part = usize::try_from(request.iteration).ok().and_then(|part| part.checked_sub(1));
            let part = part.ok_or(errors::CLIENT_INVALID_OPERATION)?;
            Some(ITERATION_BYTES[part.min(ITERATION_BYTES.len() - 1)])
        }
        0 if rows_max.is_none() && target_bytes.is_none() => {
            return Err(errors::EXACT_MODE_WITHOUT_LIMITS);
        }
        0 => None,
        1 => Some(256),
        2 => Some(1_000),
        3 => Some(4_096),
        4 => Some(80_000),
        _ => return Err(errors::CLIENT_INVALID_OPERATION),
    };
    let mut query = RangeQuery::between(shortened(request.begin), shortened(request.end));
    query.rows_max = rows_max;
    query.bytes_max = mode_bytes.into_iter().chain(target_bytes).min();
    query.reverse = request.reverse;
    // The limits say it all.
    query.mode = StreamingMode::WantAll;
    // A range that ends before it begins has no rows. Its keys have to be legal all the same.
    if query.plain_range().is_some_and(|range| range.begin > range.end) {
        query.end = query.begin.clone();
    }
    Ok((request.snapshot, query))
}

fn of_version(version: ferrisdb_client::Version) -> Output {
    Output::Int64(number_of(version))
}

fn number_of(version: ferrisdb_client::Version) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mode: i32, iteration: i32, limit: i32, target_bytes: i32) -> RangeRequest {
        RangeRequest {
            begin: KeySelector::first_greater_or_equal("a"),
            end: KeySelector::first_greater_or_equal("b"),
            limit,
            target_bytes,
            mode,
            iteration,
            snapshot: false,
            reverse: false,
        }
    }

    #[test]
    fn limits_and_modes_become_limits() {
        let limits = |mode, iteration, limit, target_bytes| {
            let (_, query) = query_of(request(mode, iteration, limit, target_bytes))?;
            Ok((query.rows_max, query.bytes_max))
        };
        assert_eq!(limits(-1, 1, 0, 0), Ok((None, Some(4_096))));
        assert_eq!(limits(-1, 1_000, 5, 0), Ok((Some(5), Some(120_000))));
        assert_eq!(limits(-1, 0, 0, 0), Err(errors::CLIENT_INVALID_OPERATION));
        assert_eq!(limits(0, 0, 0, 0), Err(errors::EXACT_MODE_WITHOUT_LIMITS));
        assert_eq!(limits(0, 0, 7, 0), Ok((Some(7), None)));
        assert_eq!(limits(-2, 0, -1, 100), Ok((None, Some(100))));
        assert_eq!(limits(-2, 0, -2, 0), Err(errors::RANGE_LIMITS_INVALID));
        assert_eq!(limits(5, 0, 0, 0), Err(errors::CLIENT_INVALID_OPERATION));
    }

    #[test]
    fn an_inverted_range_is_empty() {
        let mut inverted = request(-2, 0, 0, 0);
        std::mem::swap(&mut inverted.begin, &mut inverted.end);
        let (_, query) = query_of(inverted).unwrap();
        assert!(query.plain_range().unwrap().is_empty());
    }

    #[test]
    fn long_keys_are_shortened_to_the_same_place() {
        let long = vec![b'x'; limits::KEY_BYTES_MAX + 5];
        let longest = &long[..limits::KEY_BYTES_MAX];
        let bound = shortened_bound(&long);
        assert!(bound.as_slice() > longest && bound.as_slice() < long.as_slice());
        assert_eq!(shortened_bound(longest), Key::copy_from(longest));
        let selector = shortened(KeySelector::first_greater_or_equal(long.clone()));
        assert_eq!(selector, KeySelector::first_greater_than(longest));
    }

    #[test]
    fn offsets_are_inside_or_refused() {
        let with =
            |length: usize, offset: u32| [&vec![0; length][..], &offset.to_le_bytes()].concat();
        assert_eq!(split_offset(&with(10, 0)), Some((&[0; 10][..], 0)));
        assert_eq!(split_offset(&with(10, 1)), None);
        assert_eq!(split_offset(&with(12, u32::MAX)), None);
        assert_eq!(split_offset(b"abc"), None);
    }

    #[test]
    fn operations_have_numbers() {
        assert_eq!(atomic_operation(2), Some(AtomicOp::Add));
        assert_eq!(atomic_operation(19), Some(AtomicOp::And));
        for unknown in [-1, 0, 1, 3, 5, 10, 21, 256 + 2] {
            assert_eq!(atomic_operation(unknown), None, "{unknown}");
        }
    }
}
