//! A transaction under way: what it reads, what it must find, and which pieces it observes by that.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{
    AtomicOp, Key, KeyRange, KeySelector, RangeQuery, Transaction, TransactionOption, Value,
};
use ferrisdb_core::Mutation;

use super::{
    ConflictRanges, epoch_key,
    pieces::{Map, Pieces},
    verdict::Round,
};
use crate::workload::{
    Client,
    contents::{Contents, Point, Rows, Selected},
    support::{draw, few_bytes, one_in, pick},
};

/// A transaction under way.
pub(super) struct Actor {
    pub(super) transaction: Transaction,
    /// What the database holds at its read version.
    base: Rows,
    sees: Contents,
    pub(super) writes: Vec<Mutation>,
    pub(super) steps_left: u32,
    /// How many entries the round's log had when the transaction began.
    pub(super) began: usize,
    reads_own_writes: bool,
    pub(super) reports: bool,
    /// Pieces that no read asks the database for any more.
    known: Pieces,
    pub(super) observed: Pieces,
    /// Pieces that it may have observed.
    pub(super) looked_at: Pieces,
    /// The reads between selectors.
    pub(super) reads: Vec<RangeQuery>,
    pub(super) written: Pieces,
    pub(super) has_written: bool,
}

impl ConflictRanges {
    /// A transaction that sees these rows, after what the round's log has.
    pub(super) async fn begin(
        &self,
        client: &Client,
        rows: &BTreeMap<Key, Value>,
        round: &Round,
    ) -> Result<Actor> {
        let transaction = client.database.transaction();
        let (reads_own_writes, reports) = (!one_in(8), one_in(2));
        if !reads_own_writes {
            transaction.set_option(TransactionOption::ReadYourWritesDisabled)?;
        }
        if reports {
            transaction.set_option(TransactionOption::ReportConflicts)?;
        }
        transaction.read_version().await?;
        transaction.add_read_conflict_range(KeyRange::single(&epoch_key(client.number)))?;
        let row = |(key, value): (&Key, &Value)| (key.clone(), (value.clone(), None));
        Ok(Actor {
            transaction,
            base: rows.iter().map(row).collect(),
            sees: Contents::new(rows.iter().map(row).collect()),
            writes: Vec::new(),
            steps_left: 1 + draw(self.settings.steps.max(1) as usize) as u32,
            began: round.log.len(),
            reads_own_writes,
            reports,
            known: 0,
            observed: 0,
            looked_at: 0,
            reads: Vec::new(),
            written: 0,
            has_written: false,
        })
    }
}

impl Actor {
    /// One read or write that is drawn.
    pub(super) async fn step(&mut self, map: &Map) -> Result<()> {
        let key = pick(&map.keys);
        match draw(17) {
            12 | 13 => self.read_selector(map).await?,
            14..=16 => self.read_between(map).await?,
            0..=2 => {
                let is_snapshot = one_in(4);
                let found = if is_snapshot {
                    self.transaction.snapshot().get(key).await
                } else {
                    self.transaction.get(key).await
                }?;
                let expected = match self.sees.point(key) {
                    Point::Found(found) => found.map(|(value, _)| value),
                    Point::Unreadable => bail!("nothing here has a versionstamp"),
                };
                ensure!(found == expected, "{key} was read as {found:?}, not {expected:?} (I-2)");
                self.on_read(map.piece(key), is_snapshot);
            }
            3..=6 => {
                let limit = || one_in(2).then(|| 1 + draw(3));
                let range = map.draw_range();
                let query = RangeQuery {
                    rows_max: limit(),
                    bytes_max: limit().map(|limit| limit * 25).filter(|_| one_in(3)),
                    reverse: one_in(2),
                    ..RangeQuery::new(range)
                };
                self.read_range(map, query, one_in(5)).await?;
            }
            7 => {
                let range = map.draw_range();
                self.transaction.add_read_conflict_range(&range)?;
                self.on_read(map.pieces(&range), false);
            }
            8 => {
                let range = map.draw_range();
                self.transaction.add_write_conflict_range(&range)?;
                self.written |= map.pieces(&range);
            }
            _ => self.write(map, key)?,
        }
        Ok(())
    }

    /// A key by its place: observes everything from the anchor through it. One outside of the client's keys would observe what
    /// others write, so such a read comes with no conflict.
    async fn read_selector(&mut self, map: &Map) -> Result<()> {
        let selector = KeySelector {
            key: pick(&map.keys).clone(),
            or_equal: one_in(2),
            offset: draw(5) as i32 - 1,
        };
        let anchor =
            if selector.or_equal { selector.key.successor() } else { selector.key.clone() };
        let Selected::Key(expected) = self.sees.select(&selector, &map.all()) else {
            return Ok(());
        };
        let is_snapshot = one_in(4);
        let found = match is_snapshot {
            true => self.transaction.snapshot().get_key(selector.clone()).await,
            false => self.transaction.get_key(selector.clone()).await,
        }?;
        ensure!(found == expected, "{selector:?} named {found}, not {expected} (I-2)");
        let looked_at = match selector.offset >= 1 {
            true => KeyRange { begin: anchor, end: found.successor() },
            false => KeyRange { begin: found, end: anchor },
        };
        self.on_read(map.pieces(&looked_at), is_snapshot);
        Ok(())
    }

    async fn read_range(&mut self, map: &Map, query: RangeQuery, is_snapshot: bool) -> Result<()> {
        let page = if is_snapshot {
            self.transaction.snapshot().get_range_page(query.clone()).await
        } else {
            self.transaction.get_range_page(query.clone()).await
        }?;
        let (expected, more) =
            self.sees.range(&query).context("nothing here has a versionstamp")?;
        let found: Vec<_> = page.rows.into_iter().map(|row| (row.key, row.value)).collect();
        let expected: Vec<_> = expected.into_iter().map(|(key, value, _)| (key, value)).collect();
        ensure!(
            found == expected && page.more == more,
            "{query:?} found {found:?}, {}, not {expected:?}, {more} (I-2)",
            page.more
        );
        self.on_read(map.pieces(&looked_at(&query, &expected, more)), is_snapshot);
        Ok(())
    }

    /// A range between selectors: whatever would change its answer is observed, and no more than FoundationDB counts.
    async fn read_between(&mut self, map: &Map) -> Result<()> {
        let selector = || KeySelector {
            key: pick(&map.keys).clone(),
            or_equal: one_in(2),
            offset: draw(7) as i32 - 2,
        };
        let limit = || one_in(2).then(|| 1 + draw(3));
        let query = RangeQuery {
            rows_max: limit(),
            bytes_max: limit().map(|limit| limit * 25).filter(|_| one_in(3)),
            reverse: one_in(2),
            ..RangeQuery::between(selector(), selector())
        };
        if query.plain_range().is_some() {
            return Ok(());
        }
        let Some((expected, more)) = self.sees.select_rows(&query, &map.all()) else {
            return Ok(());
        };
        let page = self.transaction.get_range_page(query.clone()).await?;
        let found: Vec<_> = page.rows.into_iter().map(|row| (row.key, row.value)).collect();
        let expected: Vec<_> = expected.into_iter().map(|(key, value, _)| (key, value)).collect();
        ensure!(
            found == expected && page.more == more,
            "{query:?} found {found:?}, {}, not {expected:?}, {more} (I-2)",
            page.more
        );
        self.on_read(self.depends_on(map, &query), false);
        self.looked_at |= map.touched(&counted(&query, &expected, more)) & !self.known;
        if expected.is_empty() {
            // FoundationDB counts nothing of the way to two ends with nothing between them. Yet several writes together, each
            // of which changes nothing by itself, may bring something between them.
            let ends = [&query.begin, &query.end];
            let stepped = ends.into_iter().filter_map(|end| self.stepped_over(map, end));
            self.looked_at |= stepped.fold(0, |all, range| all | map.touched(&range)) & !self.known;
        }
        self.reads.push(query);
        Ok(())
    }

    /// The keys from where a selector begins to where it leads.
    fn stepped_over(&self, map: &Map, selector: &KeySelector) -> Option<KeyRange> {
        let Selected::Key(found) = self.sees.select(selector, &map.all()) else { return None };
        let anchor =
            if selector.or_equal { selector.key.successor() } else { selector.key.clone() };
        Some(KeyRange {
            begin: found.clone().min(anchor.clone()),
            end: found.successor().max(anchor),
        })
    }

    /// The pieces of the database that would change the answer of a read, each by itself, if something was written there.
    fn depends_on(&self, map: &Map, query: &RangeQuery) -> Pieces {
        let answer = |base: Rows| {
            let mut sees = Contents::new(base);
            if self.reads_own_writes {
                self.writes.iter().for_each(|write| sees.write(write, None));
            }
            let (rows, more) = sees.select_rows(query, &map.all())?;
            Some((rows.into_iter().map(|(key, value, _)| (key, value)).collect::<Vec<_>>(), more))
        };
        let before = answer(self.base.clone());
        let changes_answer = |key: &Key| {
            let (mut without, mut other) = (self.base.clone(), self.base.clone());
            without.remove(key);
            other.insert(key.clone(), ("another value".into(), None));
            // Where the read would leave the client's keys, nobody knows here what it would find.
            let differs = |after: Option<_>| after.is_some() && after != before;
            differs(answer(without)) || differs(answer(other))
        };
        let pieces = map.bounds[..map.bounds.len() - 1].iter().enumerate();
        pieces.filter(|(_, begin)| changes_answer(begin)).map(|(index, _)| 1 << index).sum()
    }

    fn on_read(&mut self, pieces: Pieces, is_snapshot: bool) {
        if !is_snapshot {
            self.observed |= pieces & !self.known;
        }
    }

    fn write(&mut self, map: &Map, key: &Key) -> Result<()> {
        let mutation = match draw(5) {
            0 | 1 => Mutation::Set { key: key.clone(), value: few_bytes(draw(5)).into() },
            2 => Mutation::Clear { key: key.clone() },
            3 => Mutation::ClearRange { range: map.draw_range() },
            _ => {
                let (op, operand) = (*pick(AtomicOp::ALL), few_bytes(draw(3)).into());
                Mutation::Atomic { key: key.clone(), op, operand }
            }
        };
        let with_conflict = !one_in(8);
        if !with_conflict {
            self.transaction.set_option(TransactionOption::NextWriteWithoutConflict)?;
        }
        let (pieces, is_known) = match &mutation {
            Mutation::Set { key, value } => {
                self.transaction.set(key, value)?;
                (map.piece(key), true)
            }
            Mutation::Clear { key } => {
                self.transaction.clear(key)?;
                (map.piece(key), true)
            }
            Mutation::ClearRange { range } => {
                self.transaction.clear_range(range)?;
                (map.pieces(range), true)
            }
            Mutation::Atomic { key, op, operand } => {
                self.transaction.atomic(*op, key, operand)?;
                (map.piece(key), false)
            }
            other => bail!("not drawn: {other:?}"),
        };
        if with_conflict {
            self.written |= pieces;
        }
        if self.reads_own_writes {
            self.sees.write(&mutation, None);
            self.known |= if is_known { pieces } else { 0 };
        }
        // To clear no keys is to write nothing.
        self.has_written |=
            !matches!(&mutation, Mutation::ClearRange { range } if range.is_empty());
        self.writes.push(mutation);
        Ok(())
    }
}

/// The part of a range read up to the row at which a limit ended it.
fn looked_at(query: &RangeQuery, rows: &[(Key, Value)], more: bool) -> KeyRange {
    let mut range = query.plain_range().expect("this workload has plain ranges");
    if let (true, Some((last, _))) = (more, rows.last()) {
        if query.reverse {
            range.begin = last.clone();
        } else {
            range.end = last.successor();
        }
    }
    range
}

/// What FoundationDB counts as read by a range read between selectors that found these rows.
fn counted(query: &RangeQuery, rows: &[(Key, Value)], more: bool) -> KeyRange {
    let anchor = |selector: &KeySelector| {
        if selector.or_equal { selector.key.successor() } else { selector.key.clone() }
    };
    let (begin, end) = (anchor(&query.begin), anchor(&query.end));
    let (begin_offset, end_offset) = (query.begin.offset, query.end.offset);
    if begin >= end && begin_offset >= end_offset {
        return KeyRange { begin: Key::MIN, end: Key::MIN };
    }
    let is_in_order = begin < end;
    let mut range =
        KeyRange { begin: begin.clone().min(end.clone()), end: begin.clone().max(end.clone()) };
    let lowest = rows.iter().map(|(key, _)| key).min();
    let highest = rows.iter().map(|(key, _)| key.successor()).max();
    let (Some(lowest), Some(highest)) = (lowest, highest) else { return range };
    if query.reverse {
        if is_in_order && more && begin_offset <= 1 {
            range.begin = end;
        }
        range.begin = range.begin.min(lowest.clone());
        if end_offset > 1 {
            range.end = range.end.max(highest);
        }
    } else {
        if is_in_order && more && end_offset > 0 {
            range.end = begin;
        }
        range.end = range.end.max(highest);
        if begin_offset <= 0 {
            range.begin = range.begin.min(lowest.clone());
        }
    }
    range
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::conflict_ranges::ConflictRangesSettings;

    #[test]
    fn a_limit_ends_what_was_observed() {
        let map = Map::new(1, &ConflictRangesSettings { keys: 3, ..Default::default() }, &[]);
        let rows = [(map.keys[1].clone(), Value::default())];
        let query = RangeQuery::from(map.all()).rows(1);
        assert_eq!(map.pieces(&looked_at(&query, &rows, true)), 0b1111);
        assert_eq!(map.pieces(&looked_at(&query.clone().reverse(), &rows, true)), 0b111_1000);
        assert_eq!(map.pieces(&looked_at(&query, &rows, false)), 0b111_1111);
    }
}
