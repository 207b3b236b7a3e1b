//! Strict serializability of a recorded history, by its versions.
//!
//! ```text
//!   c1#1  read version 20   reads x = 1        writes y = 2     committed at 30
//!   c2#2  read version 20   reads y = 1        writes x = 2     committed at 31
//!
//!   state            x   y
//!     at 20          1   1      both have read what was there at their read version
//!     before 30      1   1      c1#1 reads the same at its place in the order
//!     before 31      1   2      c2#2 does not: it would have read y = 2, so the order is not serial (I-4)
//! ```
//!
//! The database says itself where each transaction stands in the total order. So nothing has to be searched
//! for: the checker replays all transactions that took effect, in the order of their versionstamps, and looks
//! whether every answer is the one that this order gives.
//!
//! - Markers and outcomes agree: acknowledged is there once, refused is not there (I-5, I-6).
//! - No two transactions have one place, and nobody commits before it reads (I-4).
//! - Each read, of whichever attempt, is the state at its read version, own writes over it (I-2).
//! - Each protected read of a transaction that took effect is also the state just before its commit (I-4).
//! - What an attempt protected by a conflict range of its own nobody has written meanwhile (I-4).
//! - Who begins after an answer was given sees what was answered (I-1).
//!
//! The time is linear in the history but for a few sorts. Start with [`check`].

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    time::Duration,
};

use ferrisdb_client::KeyValue;
use ferrisdb_core::{Key, KeyRange, Mutation, Value, Version, Versionstamp};

use crate::history::{Operation, Outcome, Read, ReadKind, Recorded};

/// What a history that keeps all invariants consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Attempts that were acknowledged.
    pub committed: usize,
    /// Attempts that only read.
    pub read_only: usize,
    /// Attempts that did not take effect, as their clients were told.
    pub refused: usize,
    /// Attempts of which their clients were told nothing.
    pub unknown: usize,
    /// How many of those took effect.
    pub unknown_effective: usize,
    /// Reads that were compared.
    pub reads: usize,
}

/// An invariant that a history does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number, as in the design: `I-2`.
    pub invariant: &'static str,
    /// What is wrong, in words.
    pub what: &'static str,
    /// The attempts concerned, the one that noticed first.
    pub operations: Vec<String>,
    /// The key, where it is about one.
    pub key: Option<Key>,
    /// What should be.
    pub expected: String,
    /// What is.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}: {}", self.invariant, self.what, self.operations.join(", "))?;
        if let Some(key) = &self.key {
            write!(f, ", key {key}")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

impl std::error::Error for Violation {}

/// Checks a history.
///
/// # Errors
///
/// The first violation that is found.
pub fn check(recorded: &Recorded) -> Result<Verdict, Box<Violation>> {
    let mut effective = effective(recorded)?;
    effective.sort_by_key(|&(versionstamp, _)| versionstamp);
    check_places(recorded, &effective)?;
    check_conflict_ranges(recorded, &effective)?;
    let mut replay = Replay::new(recorded);
    for &(versionstamp, index) in &effective {
        replay.apply(index, versionstamp);
    }
    let mut places = vec![None; recorded.operations.len()];
    for (versionstamp, index) in effective {
        places[index] = Some(versionstamp);
    }
    let mut verdict = Verdict::default();
    let mut seen = vec![Version::ZERO; recorded.operations.len()];
    for (index, operation) in recorded.operations.iter().enumerate() {
        seen[index] = replay.check_reads(operation, places[index])?;
        verdict.count(operation, places[index]);
    }
    check_real_time(recorded, &seen)?;
    Ok(verdict)
}

impl Verdict {
    fn count(&mut self, operation: &Operation, place: Option<Versionstamp>) {
        self.reads += operation.reads.len();
        match operation.outcome {
            Outcome::ReadOnly => self.read_only += 1,
            Outcome::Committed(_) => self.committed += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Unknown => {
                self.unknown += 1;
                self.unknown_effective += usize::from(place.is_some());
            }
        }
    }
}

/// Which attempts took effect, and where: the markers must not contradict what clients were told.
fn effective(recorded: &Recorded) -> Result<Vec<(Versionstamp, usize)>, Box<Violation>> {
    let mut markers = recorded.markers.clone();
    let mut effective = Vec::new();
    for (index, operation) in recorded.operations.iter().enumerate() {
        let found = markers.remove(&operation.number).unwrap_or_default();
        let violation = |invariant, what, expected: &str| {
            Box::new(Violation {
                invariant,
                what,
                operations: vec![operation.to_string()],
                key: None,
                expected: expected.into(),
                found: places_text(&found),
            })
        };
        if found.len() > 1 {
            return Err(violation("I-6", "a transaction took effect more than once", "one marker"));
        }
        match operation.outcome {
            Outcome::Committed(versionstamp) if found.is_empty() => {
                let expected = places_text(&[versionstamp]);
                return Err(violation("I-5", "an acknowledged transaction is missing", &expected));
            }
            Outcome::Committed(versionstamp) if found[0] != versionstamp => {
                let expected = places_text(&[versionstamp]);
                let what = "a transaction is not where it was acknowledged to be";
                return Err(violation("I-4", what, &expected));
            }
            Outcome::Refused | Outcome::ReadOnly if !found.is_empty() => {
                let what = "a transaction took effect that was refused";
                return Err(violation("I-6", what, "no marker"));
            }
            Outcome::Committed(_) | Outcome::Unknown | Outcome::Refused | Outcome::ReadOnly => {}
        }
        effective.extend(found.first().map(|&versionstamp| (versionstamp, index)));
    }
    if let Some((number, found)) = markers.pop_first() {
        return Err(Box::new(Violation {
            invariant: "I-6",
            what: "an attempt took effect whose recorder was still at work",
            operations: vec![format!("#{number}")],
            key: None,
            expected: "all attempts ended before the history was concluded".into(),
            found: places_text(&found),
        }));
    }
    Ok(effective)
}

fn places_text(versionstamps: &[Versionstamp]) -> String {
    if versionstamps.is_empty() {
        return "no marker".into();
    }
    let place = |stamp: &Versionstamp| format!("{}+{}", stamp.commit_version, stamp.batch_index);
    let places: Vec<String> = versionstamps.iter().map(place).collect();
    format!("committed at {}", places.join(" and at "))
}

/// One transaction a place, and after what it read.
fn check_places(
    recorded: &Recorded,
    effective: &[(Versionstamp, usize)],
) -> Result<(), Box<Violation>> {
    let name = |index: usize| recorded.operations[index].to_string();
    let shared = effective.windows(2).find(|pair| pair[0].0 == pair[1].0);
    if let Some(&[(versionstamp, one), (_, other)]) = shared {
        return Err(Box::new(Violation {
            invariant: "I-4",
            what: "two transactions have the same versionstamp",
            operations: vec![name(one), name(other)],
            key: None,
            expected: "a place for each".into(),
            found: format!("both {}", places_text(&[versionstamp])),
        }));
    }
    for &(versionstamp, index) in effective {
        let read_version = recorded.operations[index].read_version;
        if read_version.is_none_or(|version| version >= versionstamp.commit_version) {
            return Err(Box::new(Violation {
                invariant: "I-4",
                what: "a transaction was committed before it read",
                operations: vec![name(index)],
                key: None,
                expected: format!("a commit version after the read version {read_version:?}"),
                found: places_text(&[versionstamp]),
            }));
        }
    }
    Ok(())
}

/// What is protected from the read version on, nobody writes before the commit.
fn check_conflict_ranges(
    recorded: &Recorded,
    effective: &[(Versionstamp, usize)],
) -> Result<(), Box<Violation>> {
    for (position, &(versionstamp, index)) in effective.iter().enumerate() {
        let operation = &recorded.operations[index];
        if operation.read_conflicts.is_empty() {
            continue;
        }
        let read_version = operation.read_version.unwrap_or_default();
        let first = effective.partition_point(|(stamp, _)| stamp.commit_version <= read_version);
        for &(place, writer) in effective.get(first..position).unwrap_or_default() {
            let writer = &recorded.operations[writer];
            let written = written(writer, place);
            let both = operation.read_conflicts.iter().find_map(|protected| {
                let found = written.iter().find(|written| written.intersects(protected))?;
                Some((protected, found))
            });
            if let Some((protected, found)) = both {
                return Err(Box::new(Violation {
                    invariant: "I-4",
                    what: "what a transaction has protected was written before it was committed",
                    operations: vec![operation.to_string(), format!("{writer} wrote")],
                    key: Some(found.begin.clone()),
                    expected: format!(
                        "no write of {protected} after version {read_version} before {}",
                        places_text(&[versionstamp])
                    ),
                    found: format!("{found}, {}", places_text(&[place])),
                }));
            }
        }
    }
    Ok(())
}

/// What an attempt is a conflict for, where it took effect at a place.
fn written(operation: &Operation, place: Versionstamp) -> Vec<KeyRange> {
    let ranges =
        operation.mutations.iter().map(|mutation| match mutation.clone().substitute(place) {
            Mutation::ClearRange { range } => range,
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::Atomic { key, .. }
            | Mutation::SetVersionstampedKey { key, .. }
            | Mutation::SetVersionstampedValue { key, .. } => KeyRange::single(&key),
        });
    ranges.chain(operation.write_conflicts.iter().cloned()).collect()
}

/// An answer given before another attempt began, with the version that the attempt has to see.
struct Answer {
    given: Duration,
    version: Version,
    by: usize,
}

/// Whoever begins after an answer sees it.
fn check_real_time(recorded: &Recorded, seen: &[Version]) -> Result<(), Box<Violation>> {
    let answers = |version: &dyn Fn(usize, &Operation) -> Option<Version>| {
        let answer = |(by, operation): (usize, &Operation)| {
            let version = version(by, operation)?;
            Some(Answer { given: operation.responded, version, by })
        };
        latest(recorded.operations.iter().enumerate().filter_map(answer).collect())
    };
    let acknowledged = answers(&|_, operation| match operation.outcome {
        Outcome::Committed(versionstamp) => Some(versionstamp.commit_version),
        Outcome::ReadOnly | Outcome::Refused | Outcome::Unknown => None,
    });
    // A commit need not be acknowledged to be history: it is as soon as somebody was shown it.
    let shown = answers(&|index, operation| match operation.outcome {
        Outcome::ReadOnly => Some(seen[index]),
        Outcome::Committed(_) | Outcome::Refused | Outcome::Unknown => None,
    });
    for operation in &recorded.operations {
        let Some(read_version) = operation.read_version else { continue };
        for (what, answers) in [
            ("a commit that was acknowledged before is not covered", &acknowledged),
            ("a commit that a reader has seen before is not covered", &shown),
        ] {
            let before = answers.partition_point(|answer| answer.given < operation.invoked);
            let Some(answer) = before.checked_sub(1).map(|last| &answers[last]) else { continue };
            if read_version < answer.version {
                return Err(Box::new(Violation {
                    invariant: "I-1",
                    what,
                    operations: vec![
                        format!("{operation} begun at {:?}", operation.invoked),
                        format!(
                            "{} answered at {:?}",
                            recorded.operations[answer.by], answer.given
                        ),
                    ],
                    key: None,
                    expected: format!("a read version of at least {}", answer.version),
                    found: format!("{read_version}"),
                }));
            }
        }
    }
    Ok(())
}

/// Sorted by time; each with the greatest version up to it, and who gave that.
fn latest(mut answers: Vec<Answer>) -> Vec<Answer> {
    answers.sort_by_key(|answer| answer.given);
    for index in 1..answers.len() {
        if answers[index - 1].version > answers[index].version {
            let Answer { version, by, .. } = answers[index - 1];
            answers[index] = Answer { given: answers[index].given, version, by };
        }
    }
    answers
}

/// A state, by what has happened before it.
#[derive(Clone, Copy)]
enum Place {
    /// All commits up to a version.
    At(Version),
    /// All commits before one.
    Before(Versionstamp),
}

impl Place {
    fn includes(self, versionstamp: Versionstamp) -> bool {
        match self {
            Place::At(version) => versionstamp.commit_version <= version,
            Place::Before(end) => versionstamp < end,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::At(version) => write!(f, "at version {version}"),
            Place::Before(end) => {
                write!(f, "just before {}+{}", end.commit_version, end.batch_index)
            }
        }
    }
}

/// All states of all keys.
struct Replay<'a> {
    recorded: &'a Recorded,
    keys: BTreeMap<Key, Vec<Change>>,
}

/// A key has this value from a place on.
struct Change {
    place: Versionstamp,
    value: Option<Value>,
    /// Who wrote it; `None` if it was there in the beginning.
    writer: Option<usize>,
    /// Whether it is clear that the database takes this for a write. An atomic operation that leaves the value
    /// as it was may or may not be one.
    is_write: bool,
}

/// What a row should be.
struct Expected {
    value: Value,
    /// When it was written; `None` if the transaction itself changed it, or if that is not clear.
    commit_version: Option<Version>,
}

impl<'a> Replay<'a> {
    fn new(recorded: &'a Recorded) -> Replay<'a> {
        let change = |row: &KeyValue| Change {
            place: Versionstamp {
                commit_version: row.commit_version.unwrap_or_default(),
                batch_index: 0,
            },
            value: Some(row.value.clone()),
            writer: None,
            is_write: true,
        };
        let keys = recorded.initial.iter().map(|row| (row.key.clone(), vec![change(row)]));
        Replay { recorded, keys: keys.collect() }
    }

    /// Applies the mutations of an attempt, after all those before it.
    fn apply(&mut self, writer: usize, place: Versionstamp) {
        for mutation in &self.recorded.operations[writer].mutations {
            match mutation.clone().substitute(place) {
                Mutation::Set { key, value } => {
                    self.push(key, place, writer, true, |_| Some(value))
                }
                Mutation::Clear { key } => self.push(key, place, writer, true, |_| None),
                Mutation::ClearRange { range } => {
                    for key in self.keys_in(&range) {
                        self.push(key, place, writer, true, |_| None);
                    }
                }
                Mutation::Atomic { key, op, operand } => {
                    self.push(key, place, writer, false, |present| op.apply(present, &operand));
                }
                Mutation::SetVersionstampedKey { .. } | Mutation::SetVersionstampedValue { .. } => {
                    unreachable!("the versionstamp was filled in")
                }
            }
        }
    }

    fn push(
        &mut self,
        key: Key,
        place: Versionstamp,
        writer: usize,
        is_write: bool,
        value: impl FnOnce(Option<&Value>) -> Option<Value>,
    ) {
        let changes = match self.keys.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Vec::new()),
        };
        let value = value(changes.last().and_then(|change| change.value.as_ref()));
        changes.push(Change { place, value, writer: Some(writer), is_write });
    }

    fn keys_in(&self, range: &KeyRange) -> Vec<Key> {
        if range.is_empty() {
            return Vec::new();
        }
        let range = range.begin.clone()..range.end.clone();
        self.keys.range(range).map(|(key, _)| key.clone()).collect()
    }

    /// The last change of a key before a place.
    fn change(&self, key: &Key, place: Place) -> Option<&Change> {
        let changes = self.keys.get(key)?;
        let count = changes.partition_point(|change| place.includes(change.place));
        count.checked_sub(1).map(|last| &changes[last])
    }

    /// Compares all reads of an attempt. Returns the newest version whose effects they have shown.
    fn check_reads(
        &self,
        operation: &Operation,
        committed: Option<Versionstamp>,
    ) -> Result<Version, Box<Violation>> {
        let mut seen = Version::ZERO;
        for read in &operation.reads {
            let read_version = operation.read_version.unwrap_or_default();
            let what = "a read is not the state at its read version";
            self.check_read(operation, read, Place::At(read_version), "I-2", what)?;
            if let Some(versionstamp) = committed.filter(|_| !read.is_snapshot) {
                let what = "what a transaction has read was changed before it was committed";
                self.check_read(operation, read, Place::Before(versionstamp), "I-4", what)?;
            }
            seen = seen.max(self.shown(read, read_version));
        }
        Ok(seen)
    }

    /// The newest version whose effects are in an answer.
    fn shown(&self, read: &Read, read_version: Version) -> Version {
        let version = |key: &Key| {
            self.change(key, Place::At(read_version))
                .map_or(Version::ZERO, |change| change.place.commit_version)
        };
        match &read.kind {
            ReadKind::Point { key, .. } => version(key),
            ReadKind::Range { found, .. } => {
                found.rows.iter().map(|row| version(&row.key)).max().unwrap_or_default()
            }
        }
    }

    fn check_read(
        &self,
        operation: &Operation,
        read: &Read,
        place: Place,
        invariant: &'static str,
        what: &'static str,
    ) -> Result<(), Box<Violation>> {
        let own = &operation.mutations[..read.after_mutations];
        let (range, reverse) = match &read.kind {
            ReadKind::Point { key, .. } => (KeyRange::single(key), false),
            ReadKind::Range { query, .. } => {
                (query.plain_range().expect("recorded reads have plain ends"), query.reverse)
            }
        };
        let expected = self.rows(&range, place, own);
        let mut expected: Vec<(&Key, &Expected)> = expected.iter().collect();
        if reverse {
            expected.reverse();
        }
        let found: Vec<(&Key, &Value, Option<Version>)> = match &read.kind {
            ReadKind::Point { key, found } => {
                found.iter().map(|found| (key, &found.value, found.commit_version)).collect()
            }
            ReadKind::Range { query, found } => {
                check_limits(operation, query, found)?;
                if found.more {
                    expected.truncate(found.rows.len());
                }
                found.rows.iter().map(|row| (&row.key, &row.value, row.commit_version)).collect()
            }
        };
        for index in 0..expected.len().max(found.len()) {
            let (wanted, got) = (expected.get(index), found.get(index));
            let is_same = match (wanted, got) {
                (Some((key, row)), Some((found_key, value, commit_version))) => {
                    let same_version = match (row.commit_version, commit_version) {
                        (Some(wanted), Some(got)) => wanted == *got,
                        _ => true,
                    };
                    key == found_key && row.value == **value && same_version
                }
                _ => false,
            };
            if is_same {
                continue;
            }
            // The nearer of two different keys is the one that is missing on the other side.
            let keys = wanted.map(|row| row.0).into_iter().chain(got.map(|row| row.0));
            let key = if reverse { keys.max() } else { keys.min() };
            let Some(key) = key else { continue };
            let wanted = wanted.filter(|row| row.0 == key).map(|row| row.1);
            let got = got.filter(|row| row.0 == key);
            let last = self.change(key, place).and_then(|change| change.writer);
            let writer = got.and_then(|(_, value, _)| self.writer_of(key, value));
            let mut operations = vec![operation.to_string()];
            operations.extend(last.map(|index| format!("{} wrote last", self.name(index))));
            operations
                .extend(writer.map(|index| format!("{} wrote what was found", self.name(index))));
            let version = |version: Option<Version>| {
                version.map_or(String::new(), |version| format!(" of version {version}"))
            };
            return Err(Box::new(Violation {
                invariant,
                what,
                operations,
                key: Some(key.clone()),
                expected: format!(
                    "{} {place}",
                    wanted.map_or("nothing".into(), |row| {
                        format!("'{}'{}", row.value, version(row.commit_version))
                    })
                ),
                found: got.map_or("nothing".into(), |(_, value, commit_version)| {
                    format!("'{value}'{}", version(*commit_version))
                }),
            }));
        }
        Ok(())
    }

    /// What a range holds at a place, with own writes over it.
    fn rows(&self, range: &KeyRange, place: Place, own: &[Mutation]) -> BTreeMap<Key, Expected> {
        let mut rows = BTreeMap::new();
        for key in self.keys_in(range) {
            let Some(change) = self.change(&key, place) else { continue };
            let Some(value) = change.value.clone() else { continue };
            let commit_version = change.is_write.then_some(change.place.commit_version);
            rows.insert(key, Expected { value, commit_version });
        }
        for mutation in own {
            match mutation {
                Mutation::Set { key, value } if range.contains(key) => {
                    let row = Expected { value: value.clone(), commit_version: None };
                    rows.insert(key.clone(), row);
                }
                Mutation::Clear { key } => {
                    rows.remove(key);
                }
                Mutation::ClearRange { range } => rows.retain(|key, _| !range.contains(key)),
                Mutation::Atomic { key, op, operand } if range.contains(key) => {
                    let present = rows.remove(key).map(|row| row.value);
                    if let Some(value) = op.apply(present.as_ref(), operand) {
                        rows.insert(key.clone(), Expected { value, commit_version: None });
                    }
                }
                // Outside; or not readable before the commit, so that no read can have returned it.
                Mutation::Set { .. }
                | Mutation::Atomic { .. }
                | Mutation::SetVersionstampedKey { .. }
                | Mutation::SetVersionstampedValue { .. } => {}
            }
        }
        rows
    }

    /// Who has ever written this value, in effect or not: the last one, if there are several.
    fn writer_of(&self, key: &Key, value: &Value) -> Option<usize> {
        self.recorded.operations.iter().rposition(|operation| {
            operation.mutations.iter().any(|mutation| match mutation {
                Mutation::Set { key: written, value: with } => written == key && with == value,
                _ => false,
            })
        })
    }

    fn name(&self, index: usize) -> String {
        let operation = &self.recorded.operations[index];
        match operation.outcome {
            Outcome::Committed(_) | Outcome::ReadOnly => operation.to_string(),
            Outcome::Refused => format!("{operation} (refused)"),
            Outcome::Unknown => format!("{operation} (unknown)"),
        }
    }
}

/// A page that says there may be more has reached a limit, and no page goes past one.
fn check_limits(
    operation: &Operation,
    query: &ferrisdb_client::RangeQuery,
    found: &ferrisdb_client::RangePage,
) -> Result<(), Box<Violation>> {
    let before_last = found.rows.len().saturating_sub(1);
    let bytes: usize = found.rows[..before_last].iter().map(KeyValue::size).sum();
    let all_bytes: usize = found.rows.iter().map(KeyValue::size).sum();
    let reached = query.rows_max.is_some_and(|max| found.rows.len() >= max)
        || query.bytes_max.is_some_and(|max| all_bytes >= max);
    let passed = query.rows_max.is_some_and(|max| found.rows.len() > max)
        || query.bytes_max.is_some_and(|max| before_last > 0 && bytes >= max);
    if !passed && found.more == reached {
        return Ok(());
    }
    Err(Box::new(Violation {
        invariant: "I-2",
        what: "a range read ended where none of its limits is",
        operations: vec![operation.to_string()],
        key: found.rows.last().map(|row| row.key.clone()),
        expected: format!("{:?} rows, {:?} bytes", query.rows_max, query.bytes_max),
        found: format!("{} rows, {all_bytes} bytes, more: {}", found.rows.len(), found.more),
    }))
}
