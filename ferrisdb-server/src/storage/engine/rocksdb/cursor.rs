//! Cursors of RocksDB, which pass deleted keys in short steps.
//!
//! ```text
//!   rows                  a  t t t t t t t t t t t t t t t t  m        t  a tombstone, passed 4 at once
//!   iterator from a       a  t t t t ?                                 too many: it cannot say how far it came
//!   probes of (a, z)      [a ................................ z)  ?    too many
//!                         [a ...... f)  ?                              too many
//!                         [a . c)                                      nothing: the first step ends at c
//!                            [c ... g)  ?                              twice as far: too many
//!                            [c . e)                                   nothing: the second step ends at e
//! ```
//!
//! RocksDB can stop after so many tombstones, but it does not tell where. So a cursor that is stopped asks whether there is
//! anything in a part of what is ahead, with the same bound: a *probe* that ends without a row and without being stopped has
//! shown that its part is empty. Its length doubles with each success and shrinks with each failure, so that it is about
//! right soon, whatever the keys look like.
//!
//! The shortest part is that of a single key. Upwards it is reached from anywhere; downwards only where the bound ends with
//! a zero, as there is no last key before any other one: there a cursor that comes near to a key comes only nearer. RocksDB
//! counts some entries of a key that was written often, so with a small bound even one key can stop a probe. Therefore a
//! cursor that has taken some steps without a row lets its probes pass as many as one key can have.

use ferrisdb_core::{
    Key, KeyRange, Result,
    service::storage::{Row, VersionedValue},
};
use rocksdb::{
    DBRawIterator, ErrorKind, ReadOptions,
    perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats},
};

use super::{RocksEngine, decode_value, engine_error};
use crate::storage::engine::{Cursor, Step};

/// After so many steps over tombstones they are worth a word to the engine: a scan that pays for them will come again.
const STEPS_PER_FLUSH: u32 = 32;
/// After so many probes in one step the last one is not stopped any more. Keys that are equal in their first hundred bytes
/// need a fifth of them.
const PROBES_MAX: u32 = 256;
/// What a probe costs beside the keys that it passes: as much as so many of them.
const PROBE_COST: usize = 8;
/// More entries than RocksDB counts of one key: after eight it seeks behind them, in either direction and perhaps twice.
const KEY_ENTRIES_MAX: u32 = 64;
/// The entries that rows have cost are counted with each of so many, and with the first.
const ROWS_PER_COUNT: usize = 8;
/// After so many steps without a row probes are not stopped by a single key any more.
const STEPS_PER_KEY: u32 = 8;

/// A cursor of an empty range, which RocksDB has no bounds for.
pub(super) struct EmptyCursor;

impl Cursor for EmptyCursor {
    fn next(&mut self) -> Result<Step> {
        Ok(Step::End)
    }

    fn skip_to(&mut self, _key: &Key) {}
}

/// A cursor of a range that is not empty.
pub(super) struct RocksCursor<'a> {
    engine: &'a RocksEngine,
    iterator: DBRawIterator<'a>,
    range: KeyRange,
    reverse: bool,
    place: Place,
    stride: Option<Stride>,
    steps: u32,
    /// Steps since the last row.
    steps_without_row: u32,
    counters: Counters,
}

/// What RocksDB counts in this thread, in which a cursor stays.
struct Counters {
    of_thread: PerfContext,
    /// Entries that were passed so far.
    passed: u64,
    /// Rows since they were counted, if they were.
    rows: Option<usize>,
}

impl Counters {
    fn new() -> Counters {
        set_perf_stats(PerfStatsLevel::EnableCount);
        let mut counters = Counters { of_thread: PerfContext::default(), passed: 0, rows: None };
        counters.take();
        counters
    }

    /// Entries that were passed since the last time: tombstones, and what they and later entries hide.
    fn take(&mut self) -> usize {
        let of = |metric| self.of_thread.metric(metric);
        let passed =
            of(PerfMetric::InternalKeySkippedCount) + of(PerfMetric::InternalDeleteSkippedCount);
        let before = std::mem::replace(&mut self.passed, passed);
        usize::try_from(passed.saturating_sub(before)).unwrap_or(usize::MAX)
    }

    /// The next row was found: how much was looked at. Rows are counted some at a time, as that takes a part of what a row
    /// takes; what lies before each is told with the last one of them.
    fn on_row(&mut self) -> usize {
        match &mut self.rows {
            Some(rows) if *rows + 1 < ROWS_PER_COUNT => {
                *rows += 1;
                1
            }
            told => {
                let told = told.replace(0).unwrap_or(0);
                self.take().saturating_sub(told).max(1)
            }
        }
    }
}

/// Where a cursor is, between two calls.
enum Place {
    /// Before the first row.
    Start,
    /// Before the first row that [`Cursor::skip_to`] of this key leads to.
    Before(Key),
    /// The same, and there are many tombstones.
    AmongTombstones(Key),
    /// The iterator stands on the row that was returned last, which has this key.
    Returned(Key),
    /// Behind the last row.
    End,
}

impl<'a> RocksCursor<'a> {
    pub(super) fn new(engine: &'a RocksEngine, range: KeyRange, reverse: bool) -> RocksCursor<'a> {
        let iterator = iterator(engine, &range, u64::from(engine.tombstones_at_once));
        RocksCursor {
            engine,
            iterator,
            range,
            reverse,
            place: Place::Start,
            stride: None,
            steps: 0,
            steps_without_row: 0,
            counters: Counters::new(),
        }
    }

    /// Moves the iterator to the first row at `key` or behind it, in the cursor's direction.
    fn seek(&mut self, key: &Key) {
        if !self.reverse {
            return self.iterator.seek(key);
        }
        self.iterator.seek_for_prev(key);
        if self.iterator.key() == Some(key) {
            self.iterator.prev();
        }
    }

    /// The place of a row for [`Cursor::skip_to`], so that the next row is the one after it.
    fn after(&self, key: &Key) -> Key {
        if self.reverse { key.clone() } else { key.successor() }
    }

    /// How many tombstones a probe may pass.
    fn tombstones_at_once(&self) -> u32 {
        let at_once = self.engine.tombstones_at_once;
        if self.steps_without_row < STEPS_PER_KEY { at_once } else { at_once.max(KEY_ENTRIES_MAX) }
    }

    /// Passes some tombstones from `near` on.
    fn pass(&mut self, near: Key) -> Result<Step> {
        let at_once = self.tombstones_at_once();
        let mut refused: Option<KeyRange> = None;
        for probes in 1.. {
            let mut stride = self
                .stride
                .take()
                .unwrap_or_else(|| Stride::first(&near, &self.range, self.reverse));
            let mut part = stride.part(&near, &self.range, self.reverse);
            // Where the range ends, another stride may come to the same.
            while refused.as_ref() == Some(&part) && !stride.is_shortest(&near, self.reverse) {
                stride.shorten();
                part = stride.part(&near, &self.range, self.reverse);
            }
            // Nothing shorter comes: then it takes as long as it takes.
            let is_last =
                probes >= PROBES_MAX || part.is_single_key() || refused.as_ref() == Some(&part);
            let tombstones_max = if is_last { 0 } else { u64::from(at_once) };
            let mut probe = iterator(self.engine, &part, tombstones_max);
            if self.reverse {
                probe.seek_to_last()
            } else {
                probe.seek_to_first()
            }
            if let Some((key, stored)) = probe.item() {
                let row = row(key, stored)?;
                self.stride = Some(stride);
                self.steps_without_row = 0;
                self.place = Place::Before(self.after(&row.key));
                return Ok(Step::Row { row, looked_at: self.looked_at(probes) });
            }
            match probe.status() {
                Ok(()) => {
                    stride.lengthen();
                    self.stride = Some(stride);
                    let to = if self.reverse { part.begin } else { part.end };
                    let far = if self.reverse { &self.range.begin } else { &self.range.end };
                    if to == *far {
                        self.place = Place::End;
                        return Ok(Step::End);
                    }
                    self.steps += 1;
                    self.steps_without_row = self.steps_without_row.saturating_add(1);
                    if self.steps.is_multiple_of(STEPS_PER_FLUSH) {
                        self.engine.flush_tombstones();
                    }
                    self.place = Place::AmongTombstones(to.clone());
                    return Ok(Step::Passed { to, looked_at: self.looked_at(probes) });
                }
                Err(error) if error.kind() == ErrorKind::Incomplete => {
                    stride.shorten();
                    self.stride = Some(stride);
                    refused = Some(part);
                }
                Err(error) => return Err(engine_error(&error)),
            }
        }
        unreachable!("the last probe is not stopped")
    }

    /// What so many probes have cost, and what was passed on the way.
    fn looked_at(&mut self, probes: u32) -> usize {
        self.counters.take() + PROBE_COST * probes as usize
    }
}

impl Cursor for RocksCursor<'_> {
    fn next(&mut self) -> Result<Step> {
        let place = std::mem::replace(&mut self.place, Place::End);
        match &place {
            Place::Start if self.reverse => self.iterator.seek_to_last(),
            Place::Start => self.iterator.seek_to_first(),
            Place::Before(key) => self.seek(key),
            Place::AmongTombstones(key) => return self.pass(key.clone()),
            Place::Returned(_) if self.reverse => self.iterator.prev(),
            Place::Returned(_) => self.iterator.next(),
            Place::End => return Ok(Step::End),
        }
        if let Some((key, stored)) = self.iterator.item() {
            let row = row(key, stored)?;
            self.place = Place::Returned(row.key.clone());
            self.steps_without_row = 0;
            return Ok(Step::Row { row, looked_at: self.counters.on_row() });
        }
        // The end of the range looks like an error until the status tells them apart.
        match self.iterator.status() {
            Ok(()) => Ok(Step::End),
            Err(error) if error.kind() == ErrorKind::Incomplete => {
                let near = match place {
                    Place::Before(key) => key,
                    Place::Returned(key) => self.after(&key),
                    _ if self.reverse => self.range.end.clone(),
                    _ => self.range.begin.clone(),
                };
                self.pass(near)
            }
            Err(error) => Err(engine_error(&error)),
        }
    }

    fn skip_to(&mut self, key: &Key) {
        let ahead = |of: &Key| if self.reverse { key < of } else { key > of };
        let moves = match &self.place {
            Place::Start => true,
            Place::Before(place) | Place::AmongTombstones(place) | Place::Returned(place) => {
                ahead(place)
            }
            Place::End => false,
        };
        if moves {
            self.place = Place::Before(key.clone());
        }
    }
}

/// An iterator that is stopped after so many tombstones; never, after zero.
fn iterator<'a>(
    engine: &'a RocksEngine,
    range: &KeyRange,
    tombstones_max: u64,
) -> DBRawIterator<'a> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(range.begin.to_vec());
    options.set_iterate_upper_bound(range.end.to_vec());
    options.set_max_skippable_internal_keys(tombstones_max);
    engine.db.raw_iterator_opt(options)
}

fn row(key: &[u8], stored: &[u8]) -> Result<Row> {
    let VersionedValue { value, commit_version } = decode_value(key, stored)?;
    Ok(Row { key: Key::copy_from(key), value, commit_version })
}

/// Bytes of a key that make a number.
const DIGITS: usize = size_of::<u128>();

/// How long a probe is: keys as numbers, of the bytes from `at` on.
///
/// ```text
///   at 2, length 256^14    from "q/0001" to "q/0101"          the number begins with the third byte
///   at 2, length 256^13    from "q/0001" to "q/0011"
/// ```
///
/// The longer it goes into one direction, up or down, the faster it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stride {
    at: usize,
    length: u128,
    rises: bool,
    /// By so many bits it has changed last.
    bits: u32,
}

/// Downwards a part is that much longer than the key it ends with, at most: nothing but keys with so many bytes of 255 behind
/// what they have in common with it would need more.
const DEPTH_MAX: usize = 4 * DIGITS;
/// By how many bits a stride changes at most.
const BITS_MAX: u32 = 32;

impl Stride {
    /// A small part of a range.
    fn first(near: &Key, range: &KeyRange, reverse: bool) -> Stride {
        let far = if reverse { &range.begin } else { &range.end };
        let at = near.iter().zip(far.iter()).take_while(|(one, other)| one == other).count();
        let length = number(near, at).abs_diff(number(far, at)) >> 16;
        Stride { at, length: length.max(1), rises: false, bits: BITS_MAX / 4 }
    }

    /// Whether no other stride makes a shorter part.
    fn is_shortest(&self, near: &Key, reverse: bool) -> bool {
        match (reverse, near.last()) {
            (false, _) => self.at > near.len(),
            (true, Some(0)) => self.at >= near.len(),
            (true, _) => self.at >= near.len() + DEPTH_MAX && self.length == 1,
        }
    }

    /// The part of a range from `near` on that is to be probed; never empty.
    fn part(&mut self, near: &Key, range: &KeyRange, reverse: bool) -> KeyRange {
        if reverse && self.at > near.len() + DEPTH_MAX {
            (self.at, self.length) = (near.len() + DEPTH_MAX, 1);
        }
        if self.is_shortest(near, reverse) && !reverse {
            // Only zeros are left to tell keys apart from it: the next one is its successor.
            (self.at, self.length) = (self.at.saturating_sub(DIGITS), 1);
            return KeyRange::single(near);
        }
        if self.is_shortest(near, reverse)
            && let Some((0, before)) = near.split_last()
        {
            // It is a successor itself: whatever is taken away from it, the key before is in the part.
            (self.at, self.length) = (near.len().saturating_sub(DIGITS), 1);
            return KeyRange { begin: Key::copy_from(before), end: near.clone() };
        }
        let far = moved(near, self.at, self.length, reverse);
        if reverse {
            let begin = far.map_or(range.begin.clone(), |far| far.max(range.begin.clone()));
            KeyRange { begin, end: near.clone() }
        } else {
            let end = far.map_or(range.end.clone(), |far| far.min(range.end.clone()));
            KeyRange { begin: near.clone(), end }
        }
    }

    fn turn(&mut self, rises: bool) {
        self.bits = if self.rises == rises { (self.bits * 2).min(BITS_MAX) } else { 1 };
        self.rises = rises;
    }

    fn lengthen(&mut self) {
        self.turn(true);
        if self.length.leading_zeros() > self.bits {
            self.length <<= self.bits;
        } else if self.at > 0 {
            // So far that an earlier byte differs.
            (self.at, self.length) = (self.at.saturating_sub(DIGITS), 1);
        } else {
            self.length = u128::MAX;
        }
    }

    fn shorten(&mut self) {
        self.turn(false);
        if self.length > 1 {
            self.length = (self.length >> self.bits).max(1);
        } else {
            // Keys that are equal this far: what comes behind tells them apart.
            (self.at, self.length) = (self.at + DIGITS, 1 << 120);
        }
    }
}

/// Some bytes of a key as a number; bytes that it does not have are zero.
fn number(key: &Key, at: usize) -> u128 {
    let mut digits = [0; DIGITS];
    let rest = key.get(at..).unwrap_or_default();
    let count = rest.len().min(DIGITS);
    digits[..count].copy_from_slice(&rest[..count]);
    u128::from_be_bytes(digits)
}

/// The key that is so far from `near`, by the number of its bytes from `at` on; `None` if there is no key so far from it.
fn moved(near: &Key, at: usize, length: u128, down: bool) -> Option<Key> {
    let mut bytes: Vec<u8> = near.iter().copied().take(at + DIGITS).collect();
    bytes.resize(at + DIGITS, 0);
    let number = number(near, at);
    let (number, mut carries) =
        if down { number.overflowing_sub(length) } else { number.overflowing_add(length) };
    bytes[at..].copy_from_slice(&number.to_be_bytes());
    for byte in bytes[..at].iter_mut().rev() {
        if carries {
            (*byte, carries) = if down { byte.overflowing_sub(1) } else { byte.overflowing_add(1) };
        }
    }
    // Zeros at the end would only make it longer.
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    bytes.truncate(bytes.len() - zeros);
    (!carries).then(|| Key::from(bytes))
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::Version;
    use rocksdb::WaitForCompactOptions;

    use super::super::{RocksEngine, RocksSettings};
    use super::*;
    use crate::storage::engine::{Engine, EngineBatch, EngineChange};

    fn open(directory: &std::path::Path, tombstones_at_once: u32) -> RocksEngine {
        let settings =
            RocksSettings { cache_bytes: 1 << 20, tombstones_at_once, ..RocksSettings::default() };
        RocksEngine::open(directory, settings).unwrap()
    }

    fn write(engine: &RocksEngine, changes: Vec<EngineChange>) {
        let version = engine.version().next();
        engine.write(&EngineBatch { version, changes, attachment: None }).unwrap();
    }

    /// The keys of a range, and the most that one step has looked at, and the steps.
    fn walk(engine: &RocksEngine, range: &KeyRange, reverse: bool) -> (Vec<Key>, usize, usize) {
        let mut cursor = engine.cursor(range, reverse);
        let (mut keys, mut most, mut steps) = (Vec::new(), 0, 0);
        let mut place: Option<Key> = None;
        loop {
            match cursor.next().unwrap() {
                Step::Row { row, .. } => keys.push(row.key),
                Step::Passed { to, looked_at } => {
                    let is_further = place.as_ref().is_none_or(|place| match reverse {
                        true => to < *place,
                        false => to > *place,
                    });
                    assert!(is_further, "{to} after {place:?}");
                    assert!(range.contains(&to) || to == range.end, "{to} of {range}");
                    place = Some(to);
                    most = most.max(looked_at);
                    steps += 1;
                }
                Step::End => return (keys, most, steps),
            }
        }
    }

    #[test]
    fn deleted_keys_are_passed_in_short_steps() {
        let shapes: [fn(u32) -> Vec<u8>; 5] = [
            |n| format!("q/{n:08}").into_bytes(),
            |n| format!("tenant/0000000000000000000000/queue/of/jobs/{n:08}/item").into_bytes(),
            |n| n.to_be_bytes().to_vec(),
            |n| [vec![0; 40], n.to_be_bytes().to_vec(), vec![0; 3]].concat(),
            |n| [vec![0xff; 40], n.to_le_bytes().to_vec()].concat(),
        ];
        for (shape, key_of) in shapes.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let engine = open(directory.path(), 64);
            let last = Key::from(key_of(20_000));
            let rows = (0..=20_000).map(|n| {
                let (key, value) = (Key::from(key_of(n)), "v".into());
                EngineChange::Set(Row { key, value, commit_version: Version(1) })
            });
            write(&engine, rows.collect());
            write(&engine, (0..20_000).map(|n| EngineChange::Clear(key_of(n).into())).collect());
            let everything = KeyRange { begin: Key::MIN, end: vec![0xff; 50].into() };
            for reverse in [false, true] {
                let (keys, most, steps) = walk(&engine, &everything, reverse);
                assert_eq!(keys, std::slice::from_ref(&last), "shape {shape}, {reverse}");
                assert!(most <= 64 * 40, "shape {shape}: {most} keys in one step");
                assert!((150..4_000).contains(&steps), "shape {shape}: {steps} steps");
            }
        }
    }

    #[test]
    fn a_cursor_that_is_stopped_all_the_time_finds_all_rows() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), 2);
        let mut random = 7_u32;
        let mut draw = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        let mut expected = std::collections::BTreeSet::new();
        for _ in 0..15 {
            let mut changes = Vec::new();
            for _ in 0..60 {
                let length = draw(4) as usize;
                let bytes: Vec<u8> =
                    (0..length).map(|_| [0, 1, 7, 0xfe, 0xff][draw(5) as usize]).collect();
                let key = Key::from(bytes);
                if draw(5) == 0 {
                    expected.insert(key.clone());
                    let (value, commit_version) = ("v".into(), Version(1));
                    changes.push(EngineChange::Set(Row { key, value, commit_version }));
                } else {
                    expected.remove(&key);
                    changes.push(EngineChange::Clear(key));
                }
            }
            write(&engine, changes);
            let begin = Key::from(vec![draw(256) as u8; draw(2) as usize]);
            let end = Key::from(vec![0xff; 5]);
            let range = KeyRange { begin, end };
            let mut keys: Vec<Key> =
                expected.iter().filter(|key| range.contains(key)).cloned().collect();
            assert_eq!(walk(&engine, &range, false).0, keys);
            keys.reverse();
            assert_eq!(walk(&engine, &range, true).0, keys);
        }
    }

    /// RocksDB stops at a single one of these keys.
    #[test]
    fn a_key_that_was_written_often_takes_few_steps_and_probes() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), 2);
        let names: [&[u8]; 10] = [
            b"",
            b"\0",
            b"\0\0",
            b"\x05",
            b"\x05\0",
            b"\x05\x05",
            b"\x05\x05\0\0",
            b"item/17",
            &[0xff; 20],
            &[0xff; 40],
        ];
        let set = |key: &Key| {
            let (key, value, commit_version) = (key.clone(), "v".into(), Version(1));
            EngineChange::Set(Row { key, value, commit_version })
        };
        let keys: Vec<Key> = names.iter().map(|name| Key::copy_from(name)).collect();
        for _ in 0..30 {
            write(&engine, keys.iter().map(set).collect());
            write(&engine, keys.iter().cloned().map(EngineChange::Clear).collect());
        }
        let range = KeyRange { begin: Key::MIN, end: vec![0xff; 50].into() };
        for live in 0..2 {
            let expected = if live == 1 { keys.clone() } else { Vec::new() };
            if live == 1 {
                write(&engine, keys.iter().map(set).collect());
            }
            for reverse in [false, true] {
                let (mut found, most, steps) = walk(&engine, &range, reverse);
                if reverse {
                    found.reverse();
                }
                assert_eq!(found, expected, "reverse {reverse}");
                // A probe is counted as eight, and passes some entries.
                assert!(most <= 20 * (8 + 20), "reverse {reverse}: {most} in one step");
                assert!(steps <= 40 * keys.len(), "reverse {reverse}: {steps} steps");
            }
        }
    }

    /// The tombstones before a row are part of what the step to it costs.
    #[test]
    fn a_row_tells_of_the_deleted_keys_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), 512);
        let key_of = |n: u32| Key::from(format!("{n:06}"));
        let set = |n: u32| {
            let (key, value, commit_version) = (key_of(n), "v".into(), Version(1));
            EngineChange::Set(Row { key, value, commit_version })
        };
        write(&engine, (0..=150).map(set).collect());
        write(&engine, (0..150).map(|n| EngineChange::Clear(key_of(n))).collect());
        let mut cursor = engine.cursor(&KeyRange::all_user_keys(), false);
        let Step::Row { row, looked_at } = cursor.next().unwrap() else { panic!("a row") };
        assert_eq!(row.key, key_of(150));
        assert!((150..1_000).contains(&looked_at), "{looked_at}");
    }

    #[test]
    fn tombstones_are_compacted_away_for_their_own_sake() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), 64);
        let key_of = |n: u32| Key::from(format!("q/{n:08}"));
        for _ in 0..2 {
            let rows = (0..20_000).map(|n| {
                let (key, value) = (key_of(n), "v".into());
                EngineChange::Set(Row { key, value, commit_version: Version(1) })
            });
            write(&engine, rows.collect());
            engine.db.flush().unwrap();
        }
        write(&engine, (0..20_000).map(|n| EngineChange::Clear(key_of(n))).collect());
        engine.db.flush().unwrap();
        engine.db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
        let files = engine.db.property_int_value("rocksdb.num-files-at-level0").unwrap();
        assert_eq!(files, Some(0), "the tombstones are a reason to compact");
        let everything = KeyRange { begin: Key::MIN, end: vec![0xff; 50].into() };
        assert_eq!(walk(&engine, &everything, false).2, 0, "nothing is left to pass");
    }
}
