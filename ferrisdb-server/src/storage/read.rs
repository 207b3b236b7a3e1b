//! Reads at a version: the window over the engine.
//!
//! ```text
//!   window at 35     a = a30      b .. f cleared      m = m35
//!   engine           a = a10      c = c10, d = d10    k = k10
//!   answer           a = a30                          k = k10, m = m35
//! ```
//!
//! [`get`] asks the window, and the engine only for keys that the window does not know. [`get_range`] merges
//! the written keys of the window with the rows of the engine, in either direction. Cleared stretches of the
//! engine are skipped, and if the range begins with one the cursor starts behind it: a queue whose front was
//! just cleared does not read it again.
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
//! **With the lock held**, as a range read does, `flushed` and `oldest` stand still, and only the engine may
//! move, from one version to another in one step. A cursor sees it at one version e, whenever it was created;
//! a read version v was checked to be at least `oldest`, so e <= v. If the window knows a key at v, its last
//! change up to v is in (flushed, v], and the window has it: right, whatever the engine says. If it does not
//! know the key, the key did not change in (flushed, v], so it is the same at flushed, at e and at v: the
//! engine is right. Both are true for each key by itself, so rows of both can be merged.
//!
//! **Without the lock** a point read does three things: the window part under the lock ([`get_in_window`]),
//! the engine, and then, under the lock again, [`Window::check_version`]. Say the window did not know the
//! key: it did not change in (flushed, v], with `flushed` as it was then. The engine only moves on, so it is
//! read at some e >= flushed. If e <= v, the value is right as above. If e > v, a flush to e was begun
//! before it was written, so `oldest` >= e > v by the time of the second check, which then says
//! `transaction_too_old`. The second check may also refuse a right answer; that costs a retry.
//!
//! **Rows that were copied** from another server at version c lie in the engine before it is at c. For their
//! keys the engine is at max(c, e), and `flushed` is c until a flush passes it: the window has taken their
//! changes after c, and no other. Reads of them are at versions after c, so both arguments hold with these
//! numbers. See [`super::shards`].
//!
//! A rollback takes away versions that no commit was acknowledged at, so no read version lies there (I-1,
//! I-10); the engine is never that far (I-9).
//!
//! # Caveats
//!
//! A range read is bounded by the rows it returns, not by what it passes over: many cleared keys in a row,
//! each of them cleared by itself, take time and yield nothing.

use std::cmp::Ordering;
use std::iter::Peekable;

use ferrisdb_core::simulation::{Plant, planted};
use ferrisdb_core::{
    KeyRange, Result, Version, limits,
    service::storage::{RangeRead, RangeReply, Row, VersionedValue},
};

use super::{
    engine::{Cursor, Engine},
    window::{Lookup, Stretches, View, Window, Writes},
};

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

/// The rows of a range at a version, up to the request's limits and those of [`limits`], at least one.
///
/// The window must stand still until it returns: the caller holds its lock.
///
/// # Errors
///
/// `TransactionTooOld` or `FutureVersion` if the window does not reach to the version; the engine's errors.
pub fn get_range(window: &Window, engine: &dyn Engine, request: &RangeRead) -> Result<RangeReply> {
    window.check_version(request.read_version)?;
    let rows_max = (request.rows_max as usize).clamp(1, limits::RANGE_ROWS_MAX);
    let bytes_max = (request.bytes_max as usize).min(limits::RANGE_BYTES_MAX);
    let mut reply = RangeReply { rows: Vec::new(), more: false };
    if request.range.is_empty() {
        return Ok(reply);
    }

    let view = window.view(request.read_version);
    let mut rows = MergedRows::new(view, engine, &request.range, request.reverse);
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += row.key.len() + row.value.len();
        if bytes > bytes_max && !reply.rows.is_empty() {
            reply.more = true;
            break;
        }
        let is_last_key = ends_range(&row, request);
        reply.rows.push(row);
        if reply.rows.len() == rows_max {
            // Whether there is another row is not worth the search: who wants more will ask.
            reply.more = !is_last_key;
            break;
        }
    }
    Ok(reply)
}

/// Whether no key of the range lies behind the row, in the direction of the read.
fn ends_range(row: &Row, request: &RangeRead) -> bool {
    let KeyRange { begin, end } = &request.range;
    if request.reverse {
        row.key == *begin
    } else {
        // The key's successor, without making it.
        end.len() == row.key.len() + 1 && end.starts_with(&row.key) && end.last() == Some(&0)
    }
}

/// The rows of a range at a version, in order.
pub(super) struct MergedRows<'a> {
    written: Peekable<Writes<'a>>,
    written_stretches: Stretches<'a>,
    engine: EngineRows<'a>,
    reverse: bool,
}

impl<'a> MergedRows<'a> {
    pub(super) fn new(
        view: View<'a>,
        engine: &'a dyn Engine,
        range: &KeyRange,
        reverse: bool,
    ) -> Self {
        MergedRows {
            written: view.writes(range, reverse).peekable(),
            written_stretches: view.stretches(),
            engine: EngineRows::new(view, engine, range, reverse),
            reverse,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        loop {
            let engine_row = self.engine.peek()?;
            let Some(&(key, _)) = self.written.peek() else { return Ok(self.engine.take()) };
            let order = match engine_row {
                Some(row) if self.reverse => row.key.cmp(key),
                Some(row) => key.cmp(&row.key),
                None => Ordering::Less,
            };
            if order == Ordering::Greater {
                return Ok(self.engine.take());
            }
            let row = match order {
                // The window knows better.
                Ordering::Equal => self.engine.take(),
                _ => None,
            };
            let Some((key, written)) = self.written.next() else { continue };
            if planted(Plant::SkipTombstone)
                && row.is_some()
                && self.written_stretches.resolve(key, written).is_none()
            {
                return Ok(row);
            }
            if let Some(VersionedValue { value, commit_version }) =
                self.written_stretches.resolve(key, written)
            {
                return Ok(Some(Row { key: key.clone(), value, commit_version }));
            }
        }
    }
}

/// The rows of the engine that no clear of the window hides.
struct EngineRows<'a> {
    view: View<'a>,
    stretches: Stretches<'a>,
    /// What is left to read, without a cleared stretch at the side where the read begins.
    range: KeyRange,
    reverse: bool,
    /// `None` at the end.
    cursor: Option<Box<dyn Cursor + 'a>>,
    peeked: Option<Row>,
}

impl<'a> EngineRows<'a> {
    fn new(view: View<'a>, engine: &'a dyn Engine, range: &KeyRange, reverse: bool) -> Self {
        let mut range = range.clone();
        if reverse {
            range.end = view.uncleared_before(&range.end);
        } else {
            range.begin = view.uncleared_from(&range.begin);
        }
        let cursor = (!range.is_empty()).then(|| engine.cursor(&range, reverse));
        EngineRows { view, stretches: view.stretches(), range, reverse, cursor, peeked: None }
    }

    fn peek(&mut self) -> Result<Option<&Row>> {
        while let Some(cursor) = self.cursor.as_mut().filter(|_| self.peeked.is_none()) {
            match cursor.next()? {
                None => self.cursor = None,
                Some(row) if self.stretches.hides(&row.key) => {
                    let side =
                        if self.reverse { &mut self.range.end } else { &mut self.range.begin };
                    *side = if self.reverse {
                        self.view.uncleared_before(&row.key)
                    } else {
                        self.view.uncleared_from(&row.key)
                    };
                    cursor.skip_to(side);
                    if self.range.is_empty() {
                        self.cursor = None;
                    }
                }
                Some(row) => self.peeked = Some(row),
            }
        }
        Ok(self.peeked.as_ref())
    }

    fn take(&mut self) -> Option<Row> {
        self.peeked.take()
    }
}
