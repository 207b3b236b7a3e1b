//! Reads at a version: the window over the engine.
//!
//! ```text
//!   window at 35     a = a30      b .. f cleared      m = m35
//!   engine           a = a10      c = c10, d = d10    k = k10
//!   answer           a = a30                          k = k10, m = m35
//! ```
//!
//! [`get`] asks the window, and the engine only for keys that the window does not know. A [`Scan`] merges the written keys
//! of the window with the rows of the engine, in either direction. Cleared stretches of the engine are skipped, and if
//! the range begins with one the cursor starts behind it: a queue whose front was just cleared does not read it again.
//!
//! # Steps
//!
//! ```text
//!   window's lock    excerpt of b..k            check b..k    excerpt of k..t            check k..t
//!   no lock                       rows of b..k                             rows of k..p, the budget is spent
//! ```
//!
//! Nobody waits for a scan (I-16). Under the lock it takes an [`Excerpt`]: what the window says about the next few keys. It
//! merges that with rows of the engine when it has let go of the lock, and asks then whether the version is still kept. Each
//! row that is looked at, deleted ones included, spends a [`Budget`]; when that is spent, or a limit is reached, the
//! answer says where to go on.
//!
//! # Why a read is right while the engine is being written
//!
//! The engine has one version only, and a flush moves it. Let `flushed` be the version up to which the window
//! has forgotten, `oldest` the one that a flush may have reached. In every moment
//!
//! - (A) the window knows all changes of (flushed, applied], because only `finish_flush` forgets, and only
//!   what the engine has;
//! - (B) the engine is at some version e with flushed <= e <= oldest, because `begin_flush(f)` raises `oldest`
//!   to f before the engine is written, and `finish_flush(f)` comes after.
//!
//! **With the lock held** `flushed` and `oldest` stand still, and only the engine may move, from one version to another
//! in one step: it is read at one version e, and a read version v was checked to be at least `oldest`, so e <= v. If the
//! window knows a key at v, its last change up to v is in (flushed, v], and the window has it: right, whatever the engine
//! says. If it does not know the key, the key did not change in (flushed, v], so it is the same at flushed, at e and at v:
//! the engine is right.
//!
//! **Without the lock** a read does three things: the window part under the lock ([`get_in_window`],
//! [`Scan::excerpt`]), the engine, and then, under the lock again, [`Window::check_version`]. Say the window did not know
//! a key: it did not change in (flushed, v], with `flushed` as it was then. The engine only moves on, so it is
//! read at some e >= flushed. If e <= v, the value is right as above. If e > v, a flush to e was begun
//! before it was written, so `oldest` >= e > v by the time of the second check, which then says
//! `transaction_too_old`. The second check may also refuse a right answer; that costs a retry.
//!
//! All of this is true for each key by itself, whatever e is for the others. So rows of window and engine can be
//! merged, a cursor may see some keys at a later version than others, and a scan may be continued in another step
//! or by another request.
//!
//! **Rows that were copied** from another server at version c lie in the engine before it is at c. For their
//! keys the engine is at max(c, e), and `flushed` is c until a flush passes it: the window has taken their
//! changes after c, and no other. Reads of them are at versions after c, so both arguments hold with these
//! numbers. See [`super::shards`].
//!
//! A rollback takes away versions that no commit was acknowledged at, so no read version lies there (I-1,
//! I-10); the engine is never that far (I-9).

use std::cmp::Ordering;
use std::iter::Peekable;

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Key, KeyRange, Result, Version, limits,
    service::storage::{RangeRead, RangeReply, Row, VersionedValue},
};

use super::{
    budget::Budget,
    engine::{Cursor, Engine, Step},
    window::{Cover, Excerpt, ExcerptMost, Lookup, Stretches, Window, Written},
};

/// Most keys of the window that one excerpt has: some tens of microseconds under its lock.
const EXCERPT_KEYS_MAX: usize = 512;
/// Most adjoining clears that are followed at once.
const PIECES_AT_ONCE: usize = 1_000;

/// The value of a key at a version. For callers that hold the window's lock, or need none.
///
/// # Errors
///
/// `TransactionTooOld` or `FutureVersion` if the window does not reach to the version; the engine's errors.
pub fn get(
    window: &Window,
    engine: &dyn Engine,
    key: &[u8],
    version: Version,
) -> Result<Option<VersionedValue>> {
    match get_in_window(window, key, version)? {
        Lookup::Value(value) => Ok(Some(value)),
        Lookup::Cleared => Ok(None),
        Lookup::Unknown => engine.get(key),
    }
}

/// The window's part of a point read. When it does not know, release the lock, ask the engine, and then
/// let [`Window::check_version`] confirm that the engine's answer is good.
///
/// # Errors
///
/// `TransactionTooOld` or `FutureVersion` if the window does not reach to the version.
pub fn get_in_window(window: &Window, key: &[u8], version: Version) -> Result<Lookup> {
    window.check_version(version)?;
    Ok(window.get(key, version))
}

/// The rows of a range at a version, up to the request's limits and those of [`limits`], and as far as the budget goes. For
/// callers that need no lock: others take the steps of a [`Scan`] themselves.
///
/// # Errors
///
/// `TransactionTooOld` or `FutureVersion` if the window does not reach to the version; the engine's errors.
pub fn get_range(
    window: &Window,
    engine: &dyn Engine,
    request: &RangeRead,
    mut budget: Budget,
) -> Result<RangeReply> {
    window.check_version(request.read_version)?;
    let mut scan = Scan::of_rows(request);
    while !scan.is_done() && !budget.is_spent() {
        let excerpt = scan.excerpt(window, &budget);
        scan.read(excerpt, engine, &mut budget)?;
    }
    Ok(scan.into_reply())
}

/// Somebody who wants rows.
pub trait Sink {
    /// Most rows that it still wants, and most bytes of them.
    fn wants(&self) -> (usize, usize);

    /// Takes the next row.
    fn take(&mut self, row: Row) -> Taken;

    /// The key of the last row that it took.
    fn last(&self) -> Option<&Key>;
}

/// What a [`Sink`] says to a row.
#[derive(Debug)]
pub enum Taken {
    /// It wants more.
    Wants,
    /// It wants no more rows.
    WasLast,
    /// It did not want this one any more.
    Refused(Row),
}

/// A walk over the rows of a range at a version, in steps.
#[derive(Debug)]
pub struct Scan<S> {
    /// What was not looked at yet.
    rest: KeyRange,
    read_version: Version,
    reverse: bool,
    /// Whether the sink wants no more, although something may be left.
    is_full: bool,
    sink: S,
}

impl<S: Sink> Scan<S> {
    /// A walk that begins at the range's begin, or at its end.
    pub fn new(range: KeyRange, read_version: Version, reverse: bool, sink: S) -> Scan<S> {
        Scan { rest: range, read_version, reverse, is_full: false, sink }
    }

    /// Whether there is nothing left to be done.
    pub fn is_done(&self) -> bool {
        self.is_full || self.rest.is_empty()
    }

    /// What was not looked at yet.
    pub fn rest(&self) -> &KeyRange {
        &self.rest
    }

    /// At which version rows are read.
    pub fn read_version(&self) -> Version {
        self.read_version
    }

    /// Who got the rows.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// What was not looked at, and who got the rows.
    pub fn into_parts(self) -> (KeyRange, S) {
        (self.rest, self.sink)
    }

    /// What the next step needs of the window, at a version that [`Window::check_version`] admits.
    ///
    /// # Panics
    ///
    /// If the window does not reach to the version.
    pub(super) fn excerpt(&self, window: &Window, budget: &Budget) -> Excerpt {
        let (values, bytes) = self.sink.wants();
        let looked_at = budget.rows().clamp(1, EXCERPT_KEYS_MAX);
        let most = ExcerptMost { looked_at, values, bytes };
        window.excerpt(&self.rest, self.read_version, self.reverse, most)
    }

    /// Takes a step: gives the sink the rows of an excerpt's range, as far as it wants them and the budget goes, but gets one
    /// key further in any case. The window's lock is not needed.
    ///
    /// # Errors
    ///
    /// The engine's.
    pub(super) fn read(
        &mut self,
        mut excerpt: Excerpt,
        engine: &dyn Engine,
        budget: &mut Budget,
    ) -> Result<()> {
        let reverse = self.reverse;
        let writes = std::mem::take(&mut excerpt.writes);
        let unwritten = excerpt.looked_at - writes.len();
        let range = &excerpt.range;
        let mut rows = MergedRows::new(excerpt.cover(), writes, engine, range, reverse, budget);
        let place = loop {
            match rows.next(budget)? {
                Merged::Row(row) => match self.sink.take(row) {
                    Taken::Wants => continue,
                    Taken::WasLast => self.is_full = true,
                    Taken::Refused(row) => {
                        self.is_full = true;
                        break if reverse { row.key.successor() } else { row.key };
                    }
                },
                Merged::Spent => {
                    mark(Mark::ReadBudgetSpent);
                    break rows.place(self.sink.last());
                }
                Merged::End => break if reverse { &range.begin } else { &range.end }.clone(),
            }
            // It has just taken one.
            let Some(last) = self.sink.last() else { continue };
            break if reverse { last.clone() } else { last.successor() };
        };
        // Keys that have no write at the version were only in the window's way.
        budget.spend(unwritten);
        if reverse {
            self.rest.end = place;
        } else {
            self.rest.begin = place;
        }
        Ok(())
    }
}

impl Scan<RowSink> {
    /// The walk of a range read.
    pub fn of_rows(request: &RangeRead) -> Scan<RowSink> {
        let sink = RowSink {
            rows: Vec::new(),
            bytes: 0,
            rows_max: (request.rows_max as usize).clamp(1, limits::RANGE_ROWS_MAX),
            bytes_max: (request.bytes_max as usize).min(limits::RANGE_BYTES_MAX),
        };
        Scan::new(request.range.clone(), request.read_version, request.reverse, sink)
    }

    /// The answer, so far. Whether there is another row is not worth the search: who wants more will ask.
    pub fn into_reply(self) -> RangeReply {
        let KeyRange { begin, end } = self.rest;
        let continue_at = (begin < end).then_some(if self.reverse { end } else { begin });
        RangeReply { rows: self.sink.rows, continue_at }
    }
}

/// The rows of a range read, up to its limits, at least one.
#[derive(Debug)]
pub struct RowSink {
    rows: Vec<Row>,
    bytes: usize,
    rows_max: usize,
    bytes_max: usize,
}

impl RowSink {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.len()
    }
}

impl Sink for RowSink {
    fn wants(&self) -> (usize, usize) {
        (self.rows_max - self.rows.len(), self.bytes_max.saturating_sub(self.bytes).max(1))
    }

    fn take(&mut self, row: Row) -> Taken {
        self.bytes += row.key.len() + row.value.len();
        if self.bytes > self.bytes_max && !self.rows.is_empty() {
            return Taken::Refused(row);
        }
        self.rows.push(row);
        if self.rows.len() == self.rows_max { Taken::WasLast } else { Taken::Wants }
    }

    fn last(&self) -> Option<&Key> {
        self.rows.last().map(|row| &row.key)
    }
}

/// The next of [`MergedRows`].
enum Merged {
    Row(Row),
    /// There may be more, but the budget is spent.
    Spent,
    End,
}

/// The rows of an excerpt's range, in order.
struct MergedRows<'a> {
    written: Peekable<std::vec::IntoIter<Written>>,
    written_stretches: Stretches<'a>,
    engine: EngineRows<'a>,
    reverse: bool,
    /// Whether a written key was passed: the first one is, however little the budget is.
    has_moved: bool,
    /// Whether the engine was asked to look at something: it is once, too.
    has_looked: bool,
}

impl<'a> MergedRows<'a> {
    fn new(
        cover: Cover<'a>,
        written: Vec<Written>,
        engine: &'a dyn Engine,
        range: &KeyRange,
        reverse: bool,
        budget: &mut Budget,
    ) -> Self {
        MergedRows {
            written: written.into_iter().peekable(),
            written_stretches: cover.stretches(),
            engine: EngineRows::new(cover, engine, range, reverse, budget),
            reverse,
            has_moved: false,
            has_looked: false,
        }
    }

    fn next(&mut self, budget: &mut Budget) -> Result<Merged> {
        loop {
            let Some(written) = self.written.peek() else {
                match self.engine.take() {
                    Some(row) => return Ok(Merged::Row(row)),
                    None if self.engine.is_at_end() => return Ok(Merged::End),
                    None if budget.is_spent() && self.has_begun() => return Ok(Merged::Spent),
                    None => self.advance(budget)?,
                }
                continue;
            };
            // Where the engine is, seen from the written key.
            let order = match self.engine.next_key() {
                Some(key) if self.reverse => key.cmp(&written.key),
                Some(key) => written.key.cmp(key),
                None if self.engine.has_passed(&written.key) => Ordering::Less,
                None if budget.is_spent() && self.has_begun() => return Ok(Merged::Spent),
                None => {
                    self.advance(budget)?;
                    continue;
                }
            };
            if order == Ordering::Greater {
                return Ok(self.engine.take().map_or(Merged::End, Merged::Row));
            }
            if budget.is_spent() && self.has_moved {
                return Ok(Merged::Spent);
            }
            self.has_moved = true;
            budget.spend(1);
            let row = match order {
                // The window knows better.
                Ordering::Equal => self.engine.take(),
                _ => None,
            };
            let Some(written) = self.written.next() else { continue };
            match self.written_stretches.resolve(written) {
                Some(row) => return Ok(Merged::Row(row)),
                None if planted(Plant::SkipTombstone) && row.is_some() => {
                    return Ok(row.map_or(Merged::End, Merged::Row));
                }
                // Cleared: nobody gets the engine's row, and still it was passed.
                None => row.into_iter().for_each(|row| self.engine.pass(&row.key)),
            }
        }
    }

    /// Lets the engine look at something, also if passing clears has spent the budget already: or nobody gets anywhere.
    fn advance(&mut self, budget: &mut Budget) -> Result<()> {
        self.has_looked = true;
        self.engine.advance(budget)
    }

    fn has_begun(&self) -> bool {
        self.has_looked || self.has_moved
    }

    /// Where to go on: everything before that place was looked at. `last` is the last row that was returned.
    fn place(&mut self, last: Option<&Key>) -> Key {
        let reverse = self.reverse;
        let before = |key: &Key| match reverse && !planted(Plant::ContinueIgnoresDirection) {
            true => key.successor(),
            false => key.clone(),
        };
        let engine = match self.engine.next_key() {
            Some(key) => before(key),
            None => self.engine.near().clone(),
        };
        let written = self.written.peek().map(|written| before(&written.key));
        let last = last.map(|last| if reverse { last.clone() } else { last.successor() });
        let place = if reverse {
            let place = written.map_or(engine.clone(), |written| written.max(engine));
            last.map_or(place.clone(), |last| last.min(place))
        } else {
            let place = written.map_or(engine.clone(), |written| written.min(engine));
            last.map_or(place.clone(), |last| last.max(place))
        };
        if planted(Plant::ContinueSkipsKey) && !reverse { place.successor() } else { place }
    }
}

/// The rows of the engine that no clear of the window hides.
struct EngineRows<'a> {
    cover: Cover<'a>,
    stretches: Stretches<'a>,
    /// What is left to read, except that its near end may lie before rows that were returned.
    range: KeyRange,
    reverse: bool,
    /// `None` at the end.
    cursor: Option<Box<dyn Cursor + 'a>>,
    peeked: Option<Row>,
}

impl<'a> EngineRows<'a> {
    fn new(
        cover: Cover<'a>,
        engine: &'a dyn Engine,
        range: &KeyRange,
        reverse: bool,
        budget: &mut Budget,
    ) -> Self {
        let (range, stretches) = (range.clone(), cover.stretches());
        let mut rows = EngineRows { cover, stretches, range, reverse, cursor: None, peeked: None };
        let near = rows.near().clone();
        rows.skip_cleared(&near, budget);
        if !rows.range.is_empty() {
            rows.cursor = Some(engine.cursor(&rows.range, reverse));
        }
        rows
    }

    /// Goes on behind the clears that cover all keys from `key` on.
    fn skip_cleared(&mut self, key: &Key, budget: &mut Budget) {
        let pieces_max = budget.rows().clamp(1, PIECES_AT_ONCE);
        let KeyRange { begin, end } = &mut self.range;
        // Not behind the end: the clears there may have been followed by writes that nobody has looked at.
        let pieces = if self.reverse {
            let (uncleared, pieces) = self.cover.uncleared_before(key, pieces_max);
            *end = uncleared.max(begin.clone());
            pieces
        } else {
            let (uncleared, pieces) = self.cover.uncleared_from(key, pieces_max);
            *begin = uncleared.min(end.clone());
            pieces
        };
        budget.spend(pieces);
    }

    /// Looks at the next row, or passes some that are deleted.
    fn advance(&mut self, budget: &mut Budget) -> Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        match cursor.next()? {
            Step::End => {
                self.cursor = None;
                let KeyRange { begin, end } = &mut self.range;
                if self.reverse { end.clone_from(begin) } else { begin.clone_from(end) }
            }
            Step::Passed { to, looked_at } => {
                budget.spend(looked_at);
                if self.reverse {
                    self.range.end = to;
                } else {
                    self.range.begin = to;
                }
            }
            Step::Row { row, looked_at } => {
                budget.spend(looked_at);
                if !self.stretches.hides(&row.key) {
                    self.peeked = Some(row);
                    return Ok(());
                }
                self.skip_cleared(&row.key, budget);
                cursor_skip(&mut self.cursor, &self.range, self.reverse);
            }
        }
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        self.cursor.is_none()
    }

    /// The key of the next row, if that is known.
    fn next_key(&self) -> Option<&Key> {
        self.peeked.as_ref().map(|row| &row.key)
    }

    /// Whether the engine has no row left up to and including a key.
    fn has_passed(&self, key: &Key) -> bool {
        self.is_at_end()
            || if self.reverse { self.range.end <= *key } else { self.range.begin > *key }
    }

    /// Where the next look will begin.
    fn near(&self) -> &Key {
        if self.reverse { &self.range.end } else { &self.range.begin }
    }

    fn take(&mut self) -> Option<Row> {
        self.peeked.take()
    }

    /// Goes on behind a row that was taken.
    fn pass(&mut self, key: &Key) {
        if self.reverse {
            self.range.end.clone_from(key);
        } else {
            self.range.begin = key.successor();
        }
    }
}

/// Takes a cursor to the near end of a range; there is none of an empty one.
fn cursor_skip(cursor: &mut Option<Box<dyn Cursor + '_>>, range: &KeyRange, reverse: bool) {
    if range.is_empty() {
        *cursor = None;
    } else if let Some(cursor) = cursor {
        cursor.skip_to(if reverse { &range.end } else { &range.begin });
    }
}
