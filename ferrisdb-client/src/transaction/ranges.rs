//! Range reads: where they begin and end, and what of it they observe.
//!
//! ```text
//!   keys there are          b      d      f      h      j
//!
//!   from a to first_greater_or_equal(c) + 2, two rows       b d        observed: a through d. Where it ends is after f,
//!                                                                      but two rows are two rows
//!   ... without a limit                                     b d f      observed: a through f. The end is h; that it is not g
//!                                                                      does not matter
//!   from first_greater_than(a) + 3 to e                     nothing    observed: a to e. There would have to be four keys
//!                                                                      between them, wherever the fourth is
//!   from first_greater_than(d) to first_greater_than(b)     nothing, whatever there is: nothing is observed
//! ```
//!
//! Whether there is anything between both ends is known by counting the keys between their anchors. An end that is a
//! number of keys beyond its anchor, in the direction of the read, is never looked for: everything up to the anchor belongs
//! to the range, and then so many keys. All other ends are resolved first.
//!
//! Start with [`Transaction::read_range`].

use std::cmp::Ordering;

use ferrisdb_core::simulation::{Plant, planted};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::*;
use crate::{
    options::{MappedPage, MappedRow, StreamingMode},
    read_your_writes::{RangeRead, Scan},
    special_keys,
};

/// How many rows of a mapped range are looked up at the same time.
const MAPPED_AT_ONCE: usize = 32;

/// A range read under way: what its parts need.
struct Reading {
    transaction: Transaction,
    call: Call,
    /// The own writes that it sees.
    overlay: Arc<Overlay>,
    /// The end of what may be read.
    read_end: Key,
    isolation: Isolation,
}

/// How far a walk has come that counts keys.
struct Walked {
    /// The last key, if there was one.
    last: Option<Key>,
    count: usize,
    observed: RangeSet,
}

/// Range reads.
impl Transaction {
    pub(crate) async fn read_range(
        &self,
        query: RangeQuery,
        isolation: Isolation,
    ) -> Result<RangePage> {
        if special_keys::is_special(&query.begin.key) {
            let timer = Arc::clone(&self.shared.state.lock().timer);
            return timer.within(special_keys::get_range(self, &query)).boxed().await;
        }
        let read = {
            let state = self.open()?;
            let reading = Reading::of(self, &state, isolation);
            check_query(&query, &reading.read_end)?;
            state.work.outstanding.begin(Failure::FailsCommit, async move {
                let (page, observed) = reading.call.timer.within(reading.read(&query)).await?;
                reading.observe(&observed)?;
                Ok(page)
            })
        };
        read.await
    }

    /// Reads a range, usually an index, and for every row of it another range, which `map` makes of the row. All of it is one
    /// read: it sees the own writes of its beginning, and a commit that begins meanwhile waits for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::{KeyRange, KeyValue};
    /// transaction.set("by-color/blue", "user/7/")?;
    /// transaction.set("user/7/name", "Ada")?;
    /// let user = |row: &KeyValue| Ok::<_, std::convert::Infallible>(KeyRange::prefix(&row.value));
    /// let Ok(page) = transaction.get_mapped_range("by-color/".."by-color0", user).await?;
    /// assert_eq!(page.rows[0].found[0].value, "Ada".into());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get_range`]; inside, what `map` says to one of the rows.
    pub async fn get_mapped_range<E: Send + 'static>(
        &self,
        query: impl Into<RangeQuery>,
        map: impl Fn(&KeyValue) -> Result<KeyRange, E> + Send + Sync + 'static,
    ) -> Result<Result<MappedPage, E>> {
        let query = query.into();
        let read = {
            let state = self.open()?;
            let reading = Reading::of(self, &state, Isolation::Serializable);
            check_query(&query, &reading.read_end)?;
            state.work.outstanding.begin(Failure::LeavesCommit, async move {
                let mapped = reading.read_mapped(&query, &map);
                let (page, observed) = reading.call.timer.within(mapped).await?;
                reading.observe(&observed)?;
                Ok(page)
            })
        };
        read.await
    }

    pub(super) async fn read_selector(
        &self,
        selector: KeySelector,
        isolation: Isolation,
    ) -> Result<Key> {
        let read = {
            let state = self.open()?;
            let reading = Reading::of(self, &state, isolation);
            check_selector(&selector, &reading.read_end)?;
            state.work.outstanding.begin(Failure::FailsCommit, async move {
                let resolved = reading.resolve(&selector);
                let (key, observed) = reading.call.timer.within(resolved).await?;
                reading.observe(&observed)?;
                Ok(key)
            })
        };
        read.await
    }
}

impl Reading {
    /// A read that begins now.
    fn of(transaction: &Transaction, state: &State, isolation: Isolation) -> Reading {
        Reading {
            transaction: transaction.clone(),
            call: state.call(),
            overlay: state.overlay(isolation),
            read_end: state.options.read_end(),
            isolation,
        }
    }

    /// The read has ended: a later write to what it saw is a conflict (I-15).
    fn observe(&self, observed: &RangeSet) -> Result<()> {
        let mut state = self.transaction.still_reading(&self.call)?;
        if self.isolation == Isolation::Serializable {
            state.work.read_conflicts.extend(observed);
        }
        Ok(())
    }

    /// The rows, with what was observed to find them.
    async fn read(&self, query: &RangeQuery) -> Result<(RangePage, RangeSet)> {
        let (begin, end) = (&query.begin, &query.end);
        if let Some(observed) = self.is_empty(begin, end).boxed().await? {
            return Ok((nothing(), observed));
        }
        if query.reverse && begin.offset < 1 {
            let steps = begin.steps().1;
            return self.read_past(query, begin.anchor(), steps).await;
        }
        if !query.reverse && end.offset > 1 {
            let steps = end.steps().1 - 1;
            return self.read_past(query, end.anchor(), steps).await;
        }
        let ((first, mut observed), (last, of_end)) =
            futures::try_join!(self.begin(begin), self.end(end))?;
        observed.extend(&of_end);
        if first >= last {
            return Ok((nothing(), observed));
        }
        let scan = limited(query, KeyRange { begin: first, end: last });
        let (page, of_rows) = self.scan(scan).await?;
        observed.extend(&of_rows);
        Ok((page, observed))
    }

    /// The rows, each with the range that is made of it.
    async fn read_mapped<E: Send>(
        &self,
        query: &RangeQuery,
        map: &(impl Fn(&KeyValue) -> Result<KeyRange, E> + Sync),
    ) -> Result<(Result<MappedPage, E>, RangeSet)> {
        let (page, mut observed) = self.read(query).boxed().await?;
        let more = page.more;
        let parts = stream::iter(page.rows).map(|row| {
            let range = map(&row);
            async move {
                let range = match range {
                    Ok(range) => range,
                    Err(error) => return Ok(Err(error)),
                };
                let query = RangeQuery::from(range.clone());
                check_query(&query, &self.read_end)?;
                let (page, observed) = self.read(&query).boxed().await?;
                Ok::<_, Error>(Ok((MappedRow { row, range, found: page.rows }, observed)))
            }
        });
        let parts: Vec<_> = parts.buffered(MAPPED_AT_ONCE).try_collect().await?;
        let mut rows = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Ok((row, of_row)) => {
                    observed.extend(&of_row);
                    rows.push(row);
                }
                Err(error) => return Ok((Err(error), observed)),
            }
        }
        Ok((Ok(MappedPage { rows, more }), observed))
    }

    /// Whether a range begins where it ends or behind that; what was observed to know it, if so.
    async fn is_empty(&self, begin: &KeySelector, end: &KeySelector) -> Result<Option<RangeSet>> {
        // In keys there are, the end is as far from the begin as the anchors are, less by this.
        let lead = i64::from(begin.offset) - i64::from(end.offset);
        let first = begin.anchor().min(self.read_end.clone());
        let last = end.anchor().min(self.read_end.clone());
        let (between, steps, are_in_order) = match first.cmp(&last) {
            Ordering::Less if lead > 0 => (KeyRange { begin: first, end: last }, lead + 1, true),
            Ordering::Less => return Ok(None),
            _ if lead >= 0 => return Ok(Some(RangeSet::default())),
            Ordering::Equal => return Ok(None),
            Ordering::Greater => (KeyRange { begin: last, end: first }, -lead, false),
        };
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        let walked = self.walk(between, false, steps).await?;
        let is_empty = (walked.count < steps) == are_in_order;
        Ok(is_empty.then_some(walked.observed))
    }

    /// Reads to the anchor of the far end, and then so many keys beyond it.
    async fn read_past(
        &self,
        query: &RangeQuery,
        anchor: Key,
        steps: usize,
    ) -> Result<(RangePage, RangeSet)> {
        let anchor = anchor.min(self.read_end.clone());
        let reverse = query.reverse;
        let (near, mut observed) = match reverse {
            true => self.end(&query.end).boxed().await?,
            false => self.begin(&query.begin).boxed().await?,
        };
        let range = |begin: &Key, end: &Key| KeyRange { begin: begin.clone(), end: end.clone() };
        // One of the first two is empty.
        let (to_anchor, from_anchor, beyond) = match reverse {
            true => (
                range(&anchor, &near),
                range(&near, &anchor),
                range(&Key::MIN, (&near).min(&anchor)),
            ),
            false => (
                range(&near, &anchor),
                range(&anchor, &near),
                range((&near).max(&anchor), &self.read_end),
            ),
        };
        let mut page = nothing();
        if !to_anchor.is_empty() {
            let (found, of_rows) = self.scan(limited(query, to_anchor)).await?;
            observed.extend(&of_rows);
            if found.more {
                return Ok((found, observed));
            }
            page = found;
        }
        let mut left = steps;
        if !from_anchor.is_empty() {
            let walked = self.walk(from_anchor, reverse, left).await?;
            observed.extend(&walked.observed);
            left -= walked.count;
            if left == 0 {
                return Ok((nothing(), observed));
            }
        }
        let bytes: usize = page.rows.iter().map(KeyValue::size).sum();
        let rows_left = query.rows_max.map_or(usize::MAX, |max| max - page.rows.len());
        let scan = Scan {
            range: beyond,
            rows_max: Some(rows_left.min(left)),
            bytes_max: query.bytes_max.map(|max| max - bytes),
            reverse,
        };
        let (rest, of_rows) = self.scan(scan).await?;
        observed.extend(&of_rows);
        let rest_bytes: usize = rest.rows.iter().map(KeyValue::size).sum();
        page.more = rest.rows.len() >= rows_left
            || query.bytes_max.is_some_and(|max| bytes + rest_bytes >= max);
        page.rows.extend(rest.rows);
        Ok((page, observed))
    }

    /// Where a range begins, with what had to be looked at to know it.
    async fn begin(&self, selector: &KeySelector) -> Result<(Key, RangeSet)> {
        match selector.as_bound() {
            Some(key) => Ok((key.min(self.read_end.clone()), RangeSet::default())),
            None => self.resolve(selector).boxed().await,
        }
    }

    /// Where a range ends, or might as well: right after the last key in it.
    async fn end(&self, selector: &KeySelector) -> Result<(Key, RangeSet)> {
        if selector.offset <= 1 {
            return self.begin(selector).await;
        }
        let last = KeySelector { offset: selector.offset - 1, ..selector.clone() };
        let (last, observed) = self.resolve(&last).boxed().await?;
        Ok((if last < self.read_end { last.successor() } else { last }, observed))
    }

    /// The key that a selector names, with what had to be looked at.
    async fn resolve(&self, selector: &KeySelector) -> Result<(Key, RangeSet)> {
        let anchor = selector.anchor().min(self.read_end.clone());
        let (reverse, steps) = selector.steps();
        let (range, beyond) = match reverse {
            true => (KeyRange { begin: Key::MIN, end: anchor }, Key::MIN),
            false => {
                (KeyRange { begin: anchor, end: self.read_end.clone() }, self.read_end.clone())
            }
        };
        let Walked { last, count, mut observed } = self.walk(range, reverse, steps).await?;
        match last {
            Some(last) if count == steps => {
                if planted(Plant::SelectorConflictTooSmall) {
                    observed = RangeSet::default();
                    observed.insert(&KeyRange::single(&last));
                }
                Ok((last, observed))
            }
            _ => Ok((beyond, observed)),
        }
    }

    /// Passes so many keys of a range, or as many as there are.
    async fn walk(&self, range: KeyRange, reverse: bool, steps: usize) -> Result<Walked> {
        // Only the last row counts: they are read in parts, or a far selector would fill the memory.
        const ROWS_AT_ONCE: usize = 1_000;
        let mut walked = Walked { last: None, count: 0, observed: RangeSet::default() };
        let mut rest = range;
        loop {
            let rows_max = Some((steps - walked.count).min(ROWS_AT_ONCE));
            let scan = Scan { range: rest.clone(), rows_max, bytes_max: None, reverse };
            let (page, of_rows) = self.scan(scan).await?;
            walked.observed.extend(&of_rows);
            walked.count += page.rows.len();
            let Some(last) = page.rows.into_iter().next_back() else { return Ok(walked) };
            if reverse {
                rest.end = last.key.clone();
            } else {
                rest.begin = last.key.successor();
            }
            walked.last = Some(last.key);
            if walked.count == steps || !page.more {
                return Ok(walked);
            }
        }
    }

    async fn scan(&self, scan: Scan) -> Result<(RangePage, RangeSet)> {
        let mut read = RangeRead::new(Arc::clone(&self.overlay), scan);
        while let Some(fetch) = read.next()? {
            let read_version = self.transaction.version_for(&self.call).await?;
            let cluster = self.transaction.shared.database.cluster();
            let part = cluster.get_range(&fetch, read_version).await?;
            read.supply(part.covered, part.rows)?;
        }
        Ok(read.finish())
    }
}

fn nothing() -> RangePage {
    RangePage { rows: Vec::new(), more: false }
}

/// A part of the range, within the limits of the query.
fn limited(query: &RangeQuery, range: KeyRange) -> Scan {
    let RangeQuery { rows_max, bytes_max, reverse, .. } = *query;
    Scan { range, rows_max, bytes_max, reverse }
}

fn check_query(query: &RangeQuery, read_end: &Key) -> Result<()> {
    // The keys count as they were given: what is behind the last legal one stands for the end of what may be read.
    check_selector(&query.begin, read_end)?;
    check_selector(&query.end, read_end)?;
    if planted(Plant::SelectorAtEndRefused)
        && let Some(range) = query.plain_range()
    {
        transaction::check_range(&range, read_end, Stage::Client)?;
    }
    if let Some(range) = query.plain_range().filter(|range| range.begin > range.end) {
        return Err(Error::new(ErrorCode::InvertedRange, Stage::Client, range.to_string()));
    }
    check_limits(query)
}

fn check_selector(selector: &KeySelector, read_end: &Key) -> Result<()> {
    let range = KeyRange { begin: Key::MIN, end: selector.key.clone() };
    transaction::check_range(&range, read_end, Stage::Client)
}

fn check_limits(query: &RangeQuery) -> Result<()> {
    if query.rows_max == Some(0) {
        let detail = "a range read of zero rows";
        return Err(Error::new(ErrorCode::RangeLimitsInvalid, Stage::Client, detail));
    }
    let is_exact = query.mode == StreamingMode::Exact;
    if is_exact && query.rows_max.is_none() && query.bytes_max.is_none() {
        return Err(Error::new(ErrorCode::ExactModeWithoutLimits, Stage::Client, ""));
    }
    Ok(())
}
