//! What a transaction of the workload does, step by step: drawn beforehand, so that it can be done again.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use ferrisdb_client::{
    AtomicOp, Error, ErrorCode, Key, KeyRange, KeySelector, RangeQuery, Transaction,
    TransactionOption, Value, Versionstamp,
};
use ferrisdb_core::{Mutation, limits};
use futures::{StreamExt as _, future::try_join_all};

use crate::workload::{
    contents::{Contents, Point, Row, Rows, Selected},
    support::{draw, few_bytes, one_in, pick},
};

/// The keys of one client.
#[derive(Clone, Debug)]
pub(super) struct Keyspace {
    all: KeyRange,
    /// Those without a versionstamp.
    plain: Vec<Key>,
    /// What those with one begin with.
    stamped: Vec<u8>,
    /// How long those are, at most.
    stamped_bytes_max: usize,
    value_bytes_max: usize,
}

/// One step of a transaction.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Point reads that are issued together.
    Get { keys: Vec<Key>, is_snapshot: bool },
    /// Keys by their places.
    Select { selectors: Vec<KeySelector>, is_snapshot: bool },
    /// A range read.
    Range { query: RangeQuery, is_snapshot: bool, is_streamed: bool },
    /// How large a range is, and where it would be divided.
    Measure { range: KeyRange, chunk_bytes: u64 },
    /// A write that must be taken.
    Write { mutation: Mutation, with_conflict: bool },
    /// A write that must be refused, and leave nothing behind.
    Refused(Mutation, ErrorCode),
    /// Conflict ranges beyond what is read and written.
    Conflicts(KeyRange),
    /// The read version is asked for: it is the same each time.
    ReadVersion,
}

/// The steps of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// All keys of the client.
    keys: KeyRange,
    steps: Vec<Step>,
    reads_own_writes: bool,
    snapshots_see_writes: bool,
    /// Stamped keys and values are seen without their stamps.
    bypasses_unreadable: bool,
}

/// What came of a program, step by step.
#[derive(Debug)]
pub(super) struct Done {
    /// The writes, in order.
    pub(super) writes: Vec<Mutation>,
    /// What a snapshot read sees now.
    snapshot: Contents,
}

impl Done {
    /// Whether a snapshot read of a key, also of one that is not the client's own, has to wait for the commit.
    pub(super) fn hides(&self, key: &Key) -> bool {
        self.snapshot.point(key) == Point::Unreadable
    }
}

impl Keyspace {
    /// The keys of the client with this number. Every second key is the one right after the key before it: ends of ranges
    /// meet there.
    pub(super) fn new(client: u32, keys: u32, value_bytes_max: u32) -> Keyspace {
        let prefix = format!("api_model/{client:03}/");
        let plain = (0..keys.max(1)).map(|index| {
            let key = Key::from(format!("{prefix}k/{:03}", index / 2));
            if index.is_multiple_of(2) { key } else { key.successor() }
        });
        let stamped = format!("{prefix}s/").into_bytes();
        Keyspace {
            all: KeyRange::prefix(prefix.as_bytes()),
            plain: plain.collect(),
            stamped_bytes_max: stamped.len() + Versionstamp::LEN + 1,
            stamped,
            value_bytes_max: value_bytes_max as usize,
        }
    }

    /// The keys of the client with this number, if it is one of the two that have the edges of the keyspace: the first key
    /// of all and versionstamps at the begin of keys, or the last keys of all. The longest ones, too.
    pub(super) fn at_edge(client: u32, value_bytes_max: u32) -> Option<Keyspace> {
        let (first, end): (&[u8], _) = match client {
            0 => (b"\0", Key::from(b"\x01")),
            1 => (b"\xfe", Key::USER_END),
            _ => return None,
        };
        let long = |bytes: usize| {
            let mut key = first.to_vec();
            key.resize(bytes, 0xff);
            Key::from(key)
        };
        let begin = if client == 0 { Key::MIN } else { first.into() };
        let plain = vec![
            begin.clone(),
            begin.successor(),
            [first, b"\xff"].concat().into(),
            [first, b"\xff\0"].concat().into(),
            long(limits::KEY_BYTES_MAX - 1),
            long(limits::KEY_BYTES_MAX),
        ];
        Some(Keyspace {
            all: KeyRange { begin: begin.clone(), end },
            plain,
            stamped: begin.to_vec(),
            stamped_bytes_max: limits::KEY_BYTES_MAX,
            value_bytes_max: value_bytes_max as usize,
        })
    }

    /// All keys of the client.
    pub(super) fn all(&self) -> KeyRange {
        self.all.clone()
    }

    fn key(&self) -> Key {
        pick(&self.plain).clone()
    }

    /// A key that can be read: now and then one with a versionstamp in it.
    fn readable(&self, rows: &Rows) -> Key {
        let is_stamped = |key: &&Key| !self.plain.contains(key);
        let stamped: Vec<&Key> = rows.keys().filter(is_stamped).collect();
        if stamped.is_empty() || !one_in(8) { self.key() } else { (*pick(&stamped)).clone() }
    }

    fn bound(&self, rows: &Rows) -> Key {
        match draw(10) {
            0 => self.all().begin,
            1 => self.all().end,
            2 => self.stamped.clone().into(),
            3 => self.readable(rows).successor(),
            _ => self.readable(rows),
        }
    }

    fn selector(&self, rows: &Rows) -> KeySelector {
        let offset = match draw(6) {
            0 => draw(12) as i32 - 5,
            _ => draw(2) as i32,
        };
        KeySelector { key: self.bound(rows), or_equal: one_in(2), offset }
    }

    fn range(&self, rows: &Rows) -> KeyRange {
        let (a, b) = (self.bound(rows), self.bound(rows));
        KeyRange { begin: a.clone().min(b.clone()), end: a.max(b) }
    }

    fn value(&self) -> Value {
        few_bytes(draw(self.value_bytes_max + 1)).into()
    }

    fn mutation(&self, rows: &Rows) -> Mutation {
        let key = self.key();
        match draw(12) {
            0..=3 => Mutation::Set { key, value: self.value() },
            4 => Mutation::Clear { key: self.readable(rows) },
            5 => Mutation::ClearRange { range: self.range(rows) },
            6 => {
                let mut key = self.stamped.clone();
                let offset = key.len() as u32;
                key.extend_from_slice(&[0; Versionstamp::LEN]);
                key.push(b'a' + draw(3) as u8);
                if one_in(2) {
                    key.resize(self.stamped_bytes_max, b'z');
                }
                let value = self.value();
                Mutation::SetVersionstampedKey { key: key.into(), offset, value }
            }
            7 => {
                let offset = draw(4);
                let value = few_bytes(offset + 10 + draw(4)).into();
                Mutation::SetVersionstampedValue { key, value, offset: offset as u32 }
            }
            _ => {
                // The present value, now and then, so that comparisons find it equal.
                let present = rows.get(&key).filter(|_| one_in(2)).map(|(value, _)| value.clone());
                let operand = present.unwrap_or_else(|| self.value());
                Mutation::Atomic { key, op: *pick(AtomicOp::ALL), operand }
            }
        }
    }

    fn refused(&self) -> Step {
        let (key, value) = (self.key(), Value::default());
        let mut long_key = self.stamped.clone();
        long_key.resize(limits::KEY_BYTES_MAX + 1, b'k');
        let long_value = Value::from(vec![0; limits::VALUE_BYTES_MAX + 1]);
        let (mutation, code) = match draw(6) {
            0 => (Mutation::Set { key: long_key.into(), value }, ErrorCode::KeyTooLarge),
            1 => (Mutation::Set { key, value: long_value }, ErrorCode::ValueTooLarge),
            2 => {
                let range = KeyRange { begin: key.successor(), end: key };
                (Mutation::ClearRange { range }, ErrorCode::InvertedRange)
            }
            3 => {
                let mutation =
                    Mutation::SetVersionstampedValue { key, value: vec![0; 12].into(), offset: 3 };
                (mutation, ErrorCode::InvalidMutation)
            }
            4 => {
                let offset = (key.len() as u32).saturating_sub(9);
                let mutation = Mutation::SetVersionstampedKey { key, offset, value };
                (mutation, ErrorCode::InvalidMutation)
            }
            _ => {
                let key = Key::from(b"\xff/api_model");
                (Mutation::Clear { key }, ErrorCode::KeyOutsideLegalRange)
            }
        };
        Step::Refused(mutation, code)
    }

    /// A transaction over what the client's keys hold.
    pub(super) fn program(&self, rows: &Rows, steps_max: u32) -> Program {
        let limit = || (!one_in(3)).then(|| 1 + draw(6));
        let steps = (0..=draw(steps_max.max(1) as usize)).map(|_| match draw(24) {
            0..=4 => {
                let keys = (0..=draw(3)).map(|_| self.readable(rows)).collect();
                Step::Get { keys, is_snapshot: one_in(3) }
            }
            5..=9 => {
                let range = self.range(rows);
                let query = RangeQuery {
                    rows_max: limit(),
                    bytes_max: limit().map(|limit| limit * 20).filter(|_| one_in(2)),
                    reverse: one_in(2),
                    ..match one_in(3) {
                        true => RangeQuery::between(self.selector(rows), self.selector(rows)),
                        false => RangeQuery::new(range),
                    }
                };
                Step::Range { query, is_snapshot: one_in(3), is_streamed: one_in(3) }
            }
            10 => self.refused(),
            11 => Step::Conflicts(self.range(rows)),
            12 => Step::ReadVersion,
            13 => Step::Measure { range: self.range(rows), chunk_bytes: 1 + draw(100) as u64 },
            14..=16 => {
                let selectors = (0..=draw(2)).map(|_| self.selector(rows)).collect();
                Step::Select { selectors, is_snapshot: one_in(3) }
            }
            _ => Step::Write { mutation: self.mutation(rows), with_conflict: !one_in(6) },
        });
        Program {
            keys: self.all(),
            steps: steps.collect(),
            reads_own_writes: !one_in(8),
            snapshots_see_writes: !one_in(6),
            bypasses_unreadable: one_in(6),
        }
    }
}

impl Program {
    /// How many reads and writes there are in it.
    pub(super) fn operations(&self) -> u64 {
        let of_step = |step: &Step| match step {
            Step::Get { keys, .. } => keys.len(),
            Step::Select { selectors, .. } => selectors.len(),
            _ => 1,
        };
        self.steps.iter().map(of_step).sum::<usize>() as u64
    }

    /// Sets the options that must be set before anything else is done.
    pub(super) fn prepare(&self, transaction: &Transaction) -> Result<(), Error> {
        if !self.reads_own_writes {
            transaction.set_option(TransactionOption::ReadYourWritesDisabled)?;
        }
        if !self.snapshots_see_writes {
            transaction.set_option(TransactionOption::SnapshotReadYourWritesDisabled)?;
        }
        if self.bypasses_unreadable {
            transaction.set_option(TransactionOption::BypassUnreadable)?;
        }
        Ok(())
    }

    /// Does all steps in a transaction that sees `rows`, and compares each answer at once.
    ///
    /// # Errors
    ///
    /// The database's errors as they are; anything else is a wrong answer.
    pub(super) async fn run(&self, transaction: &Transaction, rows: &Rows) -> Result<Done> {
        let without_writes = Contents::new(rows.clone());
        let mut sees = without_writes.clone();
        let keys = &self.keys;
        let mut writes = Vec::new();
        let mut read_version = None;
        for step in &self.steps {
            match step {
                Step::Get { keys, is_snapshot } => {
                    let found =
                        try_join_all(keys.iter().map(|key| get(transaction, key, *is_snapshot)));
                    let sees = self.seen(&sees, &without_writes, *is_snapshot);
                    for (key, found) in keys.iter().zip(found.await?) {
                        check_point(key, &found, &sees.point(key))?;
                    }
                }
                Step::Select { selectors, is_snapshot } => {
                    let select = |selector: &KeySelector| {
                        get_key(transaction, selector.clone(), *is_snapshot)
                    };
                    let found = try_join_all(selectors.iter().map(select)).await?;
                    let sees = self.seen(&sees, &without_writes, *is_snapshot);
                    for (selector, found) in selectors.iter().zip(found) {
                        check_selected(
                            selector,
                            found.as_ref(),
                            &sees.select(selector, keys),
                            keys,
                        )?;
                    }
                }
                Step::Range { query, is_snapshot, is_streamed } => {
                    let sees = self.seen(&sees, &without_writes, *is_snapshot);
                    let Some(plain) = query.plain_range() else {
                        // Where a read would leave the client's keys it meets those of others.
                        let Some(expected) = sees.select_rows(query, keys) else { continue };
                        let found = range(transaction, query, *is_snapshot, *is_streamed).await?;
                        check_selected_range(query, &found, &expected, sees)?;
                        continue;
                    };
                    if plain.begin > plain.end {
                        continue;
                    }
                    let expected = match plain.is_empty() {
                        true => Some((Vec::new(), false)),
                        false => sees.range(query),
                    };
                    let found = range(transaction, query, *is_snapshot, *is_streamed).await?;
                    check_range(query, &found, &expected)?;
                }
                Step::Measure { range, chunk_bytes } => {
                    let size = |(key, (value, _)): (&Key, &(Value, _))| key.len() + value.len();
                    let inside = rows.iter().filter(|(key, _)| range.contains(key));
                    let expected: usize = inside.map(size).sum();
                    let found = transaction.estimated_range_size(range).await?;
                    ensure!(
                        found == expected as u64,
                        "{range} was measured as {found} bytes, it has {expected} (I-2)"
                    );
                    let points = transaction.range_split_points(range, *chunk_bytes, None).await?;
                    check_split(rows, range, *chunk_bytes as usize, &points)?;
                }
                Step::Write { mutation, with_conflict } => {
                    if !with_conflict {
                        transaction.set_option(TransactionOption::NextWriteWithoutConflict)?;
                    }
                    let before = transaction.known_read_version();
                    write(transaction, mutation)?;
                    writes.push(mutation.clone());
                    if self.reads_own_writes {
                        match self.bypasses_unreadable {
                            true => sees.write(&mutation.without_stamp(), before),
                            false => sees.write(mutation, before),
                        }
                    }
                }
                Step::Refused(mutation, code) => {
                    let refused = write(transaction, mutation).err().map(|error| error.code());
                    ensure!(
                        refused == Some(*code),
                        "an illegal write ended with {refused:?}, not {code}"
                    );
                }
                Step::Conflicts(range) => {
                    transaction.add_read_conflict_range(range)?;
                    transaction.add_write_conflict_range(range)?;
                }
                Step::ReadVersion => {
                    let version = transaction.read_version().await?;
                    let first = *read_version.get_or_insert(version);
                    ensure!(first == version, "the read version was {first} and is {version}");
                }
            }
        }
        let snapshot = self.seen(&sees, &without_writes, true).clone();
        Ok(Done { writes, snapshot })
    }

    /// What a read sees that is done now.
    fn seen<'a>(
        &self,
        sees: &'a Contents,
        without_writes: &'a Contents,
        is_snapshot: bool,
    ) -> &'a Contents {
        if is_snapshot && !self.snapshots_see_writes { without_writes } else { sees }
    }
}

/// What a point read said.
type FoundPoint = Point;
/// What a range read said: the rows and whether there may be more, if it says so; `None` if it cannot be read.
type FoundRange = Option<(Vec<Row>, Option<bool>)>;

/// Turns the error that is an answer into one.
pub(super) fn readable<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == ErrorCode::AccessedUnreadable => Ok(None),
        Err(error) => Err(error),
    }
}

async fn get(transaction: &Transaction, key: &Key, is_snapshot: bool) -> Result<FoundPoint, Error> {
    let found = if is_snapshot {
        transaction.snapshot().get_versioned(key).await
    } else {
        transaction.get_versioned(key).await
    };
    let found = readable(found)?;
    Ok(found.map_or(Point::Unreadable, |found| {
        Point::Found(found.map(|found| (found.value, found.commit_version)))
    }))
}

async fn get_key(
    transaction: &Transaction,
    selector: KeySelector,
    is_snapshot: bool,
) -> Result<Option<Key>, Error> {
    readable(match is_snapshot {
        true => transaction.snapshot().get_key(selector).await,
        false => transaction.get_key(selector).await,
    })
}

async fn range(
    transaction: &Transaction,
    query: &RangeQuery,
    is_snapshot: bool,
    is_streamed: bool,
) -> Result<FoundRange, Error> {
    let row = |row: ferrisdb_client::KeyValue| (row.key, row.value, row.commit_version);
    if is_streamed {
        let mut stream = if is_snapshot {
            transaction.snapshot().range_stream(query.clone())
        } else {
            transaction.range_stream(query.clone())
        };
        let mut rows = Vec::new();
        while let Some(next) = stream.next().await {
            match readable(next)? {
                Some(found) => rows.push(row(found)),
                None => return Ok(None),
            }
        }
        return Ok(Some((rows, None)));
    }
    let page = if is_snapshot {
        transaction.snapshot().get_range_page(query.clone()).await
    } else {
        transaction.get_range_page(query.clone()).await
    };
    let page = readable(page)?;
    Ok(page.map(|page| (page.rows.into_iter().map(row).collect(), Some(page.more))))
}

/// Does a write through the method that is there for it.
fn write(transaction: &Transaction, mutation: &Mutation) -> Result<(), Error> {
    match mutation.clone() {
        Mutation::Set { key, value } => transaction.set(key, value),
        Mutation::Clear { key } => transaction.clear(key),
        Mutation::ClearRange { range } => transaction.clear_range(range),
        Mutation::Atomic { key, op, operand } => transaction.atomic(op, key, operand),
        Mutation::SetVersionstampedKey { key, offset, value } => {
            transaction.set_versionstamped_key(key, offset, value)
        }
        Mutation::SetVersionstampedValue { key, value, offset } => {
            transaction.set_versionstamped_value(key, value, offset)
        }
    }
}

/// Compares a point read with what it must say.
///
/// # Errors
///
/// If it differs.
pub(super) fn check_point(key: &Key, found: &Point, expected: &Point) -> Result<()> {
    ensure!(found == expected, "{key} was read as {found:?}, it is {expected:?} (I-2, I-15)");
    Ok(())
}

/// Compares the key that a selector has named with the one it must name; none if it depends on a versionstamp.
///
/// # Errors
///
/// If it differs.
pub(super) fn check_selected(
    selector: &KeySelector,
    found: Option<&Key>,
    expected: &Selected,
    keys: &KeyRange,
) -> Result<()> {
    let is_right = match (found, expected) {
        (Some(found), Selected::Key(expected)) => found == expected,
        (Some(found), Selected::Outside) => !keys.contains(found),
        (found, Selected::Unreadable) => found.is_none(),
        (None, _) => false,
    };
    ensure!(is_right, "{selector:?} named {found:?}, it is {expected:?} (I-2, I-15)");
    Ok(())
}

/// Checks that split points divide a range into parts of the right size.
///
/// # Errors
///
/// If they do not.
pub(super) fn check_split(
    rows: &Rows,
    range: &KeyRange,
    chunk_bytes: usize,
    points: &[Key],
) -> Result<()> {
    let mut expected = vec![range.begin.clone()];
    let mut passed = 0;
    for (key, (value, _)) in rows.iter().filter(|(key, _)| range.contains(key)) {
        if passed >= chunk_bytes {
            expected.push(key.clone());
            passed = 0;
        }
        passed += key.len() + value.len();
    }
    expected.push(range.end.clone());
    ensure!(points == expected, "{range} is split at {points:?}, not at {expected:?}");
    Ok(())
}

/// Compares a range read with what it must say.
///
/// # Errors
///
/// If it differs.
pub(super) fn check_range(
    query: &RangeQuery,
    found: &FoundRange,
    expected: &Option<(Vec<Row>, bool)>,
) -> Result<()> {
    let is_right = match (found, expected) {
        (None, None) => true,
        (Some((rows, more)), Some((expected_rows, expected_more))) => {
            rows == expected_rows && more.is_none_or(|more| more == *expected_more)
        }
        _ => false,
    };
    ensure!(is_right, "{query:?} was read as {found:?}, it is {expected:?} (I-2, I-15)");
    Ok(())
}

/// Compares a range read between selectors with what it must say. How far it has to look to find its ends is its own
/// business: it may come upon what cannot be read, but must not pass over it between rows.
///
/// # Errors
///
/// If it differs.
pub(super) fn check_selected_range(
    query: &RangeQuery,
    found: &FoundRange,
    expected: &(Vec<Row>, bool),
    sees: &Contents,
) -> Result<()> {
    let Some((rows, _)) = found else {
        ensure!(sees.hides_anything(), "{query:?} cannot be read, nothing is hidden (I-15)");
        return Ok(());
    };
    let keys = || rows.iter().map(|(key, ..)| key);
    if let (Some(begin), Some(end)) = (keys().min(), keys().max()) {
        let between = KeyRange { begin: begin.clone(), end: end.successor() };
        ensure!(!sees.hides(&between), "{query:?} was read over what cannot be read (I-15)");
    }
    check_range(query, found, &Some(expected.clone()))
}

/// The rows with their versions, as a transaction sees them that has written nothing.
pub(super) fn as_seen(rows: &BTreeMap<Key, (Value, ferrisdb_client::Version)>) -> Rows {
    rows.iter().map(|(key, (value, at))| (key.clone(), (value.clone(), Some(*at)))).collect()
}
