//! A range read over own writes, as a machine that says what it needs from the database.
//!
//! ```text
//!   loop { next() -> Some(Fetch)   ask a server for this range, or for as much of it as it likes
//!          supply(covered, rows)   what it said: all rows of `covered`, a part from the read's near end
//!          next() -> None          done: finish() }
//! ```

use std::{cmp::Ordering, sync::Arc};

use ferrisdb_core::simulation::{Plant, planted};
use ferrisdb_core::{Key, KeyRange, Result, limits, service::storage::Row};

use super::{
    conflicts::RangeSet,
    overlay::{Lookup, Overlay},
};
use crate::options::{KeyValue, RangePage};

/// Bytes asked for at first when the caller has set no limit of bytes.
const FETCH_BYTES: usize = 256 * 1024;

/// What a range read looks for, once its ends are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) range: KeyRange,
    pub(crate) rows_max: Option<usize>,
    pub(crate) bytes_max: Option<usize>,
    pub(crate) reverse: bool,
}

/// A range read under way.
#[derive(Debug)]
pub(crate) struct RangeRead {
    overlay: Arc<Overlay>,
    query: Scan,
    /// What was not looked at yet.
    rest: KeyRange,
    /// Fetches so far that brought rows. Each asks for more than the one before, because own clears may eat the rows. One
    /// that brought none has told that there is a stretch of deleted keys, and the next one goes on behind it.
    fetches: u32,
    rows: Vec<KeyValue>,
    rows_bytes: usize,
    observed: RangeSet,
    limit_reached: bool,
}

/// What is needed from the database next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) range: KeyRange,
    pub(crate) rows_max: u32,
    pub(crate) bytes_max: u32,
    pub(crate) reverse: bool,
}

impl RangeRead {
    pub(crate) fn new(overlay: Arc<Overlay>, query: Scan) -> RangeRead {
        let rest = query.range.clone();
        RangeRead {
            overlay,
            query,
            rest,
            fetches: 0,
            rows: Vec::new(),
            rows_bytes: 0,
            observed: RangeSet::default(),
            limit_reached: false,
        }
    }

    /// What to fetch; `None` when the read is done.
    ///
    /// # Errors
    ///
    /// [`ferrisdb_core::ErrorCode::AccessedUnreadable`] if the read comes upon an own versionstamp.
    pub(crate) fn next(&mut self) -> Result<Option<Fetch>> {
        let known = self.known_part();
        self.supply(known, Vec::new())?;
        if self.limit_reached || self.rest.is_empty() {
            return Ok(None);
        }
        // The far end is left out if it is known; what is known in between is fetched for nothing at most once.
        let mut range = self.rest.clone();
        if self.query.reverse {
            range.begin = self.overlay.known_through_prefix(&range);
        } else {
            range.end = self.overlay.known_from_suffix(&range);
        }
        let factor = 1 << self.fetches.min(16);
        let rows_left = self.query.rows_max.map_or(usize::MAX, |max| max - self.rows.len());
        let bytes_left = self.query.bytes_max.map_or(FETCH_BYTES, |max| max - self.rows_bytes);
        Ok(Some(Fetch {
            range,
            rows_max: rows_left.saturating_mul(factor).min(limits::RANGE_ROWS_MAX) as u32,
            bytes_max: bytes_left.saturating_mul(factor).clamp(1, limits::RANGE_BYTES_MAX) as u32,
            reverse: self.query.reverse,
        }))
    }

    /// Takes all rows that the database has in `covered`, in the direction of the read.
    ///
    /// # Panics
    ///
    /// If `covered` leaves out keys at the near end of what is left to read.
    pub(crate) fn supply(&mut self, covered: KeyRange, rows: Vec<Row>) -> Result<()> {
        if covered.is_empty() || self.limit_reached {
            return Ok(());
        }
        self.fetches += u32::from(!rows.is_empty());
        let reverse = self.query.reverse;
        let near = |range: &KeyRange| {
            if reverse { range.end.clone() } else { range.begin.clone() }
        };
        assert!(near(&covered) == near(&self.rest), "{covered} leaves a hole in {}", self.rest);
        let looked_at = if self.overlay.touches(&covered) {
            self.merge(&covered, rows)?
        } else {
            self.append(covered, rows)
        };
        self.observed.extend(&self.overlay.observed(&looked_at));
        if reverse {
            self.rest.end = looked_at.begin;
        } else {
            self.rest.begin = looked_at.end;
        }
        Ok(())
    }

    /// Adds rows where nothing was written. Returns the part that was looked at until a limit was reached.
    fn append(&mut self, covered: KeyRange, rows: Vec<Row>) -> KeyRange {
        for row in rows {
            self.add(row.key.clone(), Lookup::Database(Vec::new()), Some(row));
            if self.limit_reached {
                return self.through_last_row(covered);
            }
        }
        covered
    }

    /// Adds rows under own writes. Returns the part that was looked at until a limit was reached.
    fn merge(&mut self, covered: &KeyRange, rows: Vec<Row>) -> Result<KeyRange> {
        let reverse = self.query.reverse;
        let overlay = Arc::clone(&self.overlay);
        let mut own = overlay.keys_in(covered, reverse).peekable();
        let mut database = rows.into_iter().peekable();
        // What the loop has not passed yet.
        let mut ahead = covered.clone();
        loop {
            // The nearer one of both, or both at once.
            let (own_key, row) = match (own.peek(), database.peek()) {
                (None, None) => break,
                (Some(_), None) => (own.next(), None),
                (None, Some(_)) => (None, database.next()),
                (Some(key), Some(row)) => match (**key).cmp(&row.key) {
                    Ordering::Equal => (own.next(), database.next()),
                    order if order.is_lt() != reverse => (own.next(), None),
                    _ => (None, database.next()),
                },
            };
            let Some(key) = own_key.or(row.as_ref().map(|row| &row.key)).cloned() else { break };
            // A stamped key may come to lie before this one.
            let passed = if reverse {
                KeyRange { begin: key.successor(), end: ahead.end.clone() }
            } else {
                KeyRange { begin: ahead.begin.clone(), end: key.clone() }
            };
            overlay.check_readable(&passed)?;
            let lookup = match overlay.lookup(&key)? {
                Lookup::Known(None) if planted(Plant::MissOwnClear) => Lookup::Database(Vec::new()),
                lookup => lookup,
            };
            if reverse {
                ahead.end = key.clone();
            } else {
                ahead.begin = key.successor();
            }
            self.add(key, lookup, row);
            if self.limit_reached {
                return Ok(self.through_last_row(covered.clone()));
            }
        }
        overlay.check_readable(&ahead)?;
        Ok(covered.clone())
    }

    /// The part of `covered` up to and including the last row.
    fn through_last_row(&self, covered: KeyRange) -> KeyRange {
        match self.rows.last() {
            Some(row) if self.query.reverse => {
                KeyRange { begin: row.key.clone(), end: covered.end }
            }
            Some(row) if planted(Plant::RangeConflictTooSmall) => {
                KeyRange { begin: covered.begin, end: row.key.clone() }
            }
            Some(row) => KeyRange { begin: covered.begin, end: row.key.successor() },
            None => covered,
        }
    }

    /// The rows, and what was observed of the database to find them (I-15).
    pub(crate) fn finish(self) -> (RangePage, RangeSet) {
        (RangePage { rows: self.rows, more: self.limit_reached }, self.observed)
    }

    /// Adds a row if the key has a value, and notices when a limit is reached.
    fn add(&mut self, key: Key, lookup: Lookup, row: Option<Row>) {
        let commit_version = match &lookup {
            Lookup::Database(ops) if ops.is_empty() => row.as_ref().map(|row| row.commit_version),
            _ => None,
        };
        let Some(value) = lookup.resolve(row.as_ref().map(|row| &row.value)) else { return };
        let row = KeyValue { key, value, commit_version };
        self.rows_bytes += row.size();
        self.rows.push(row);
        self.limit_reached = self.query.rows_max.is_some_and(|max| self.rows.len() >= max)
            || self.query.bytes_max.is_some_and(|max| self.rows_bytes >= max);
    }

    /// What is known without the database at the near end of the rest.
    fn known_part(&self) -> KeyRange {
        let mut part = self.rest.clone();
        if self.query.reverse {
            part.begin = self.overlay.known_from_suffix(&part);
        } else {
            part.end = self.overlay.known_through_prefix(&part);
        }
        part
    }
}
