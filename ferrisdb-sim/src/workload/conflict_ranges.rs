//! A conflict is reported exactly when there is one.
//!
//! ```text
//!   keys        k0    k1    k2           each key and each gap between two is one piece of the keyspace
//!   pieces     |0|.1.|2|.3.|4|.5..
//!
//!   A begins    reads the first row of k0..k9: finds k1           observes pieces 0 1 2
//!   B begins    clears k2..k9, commits                            writes pieces 4 5 ...
//!   A sets k0   commits: must succeed. Had B cleared from k1\0 on, too; from k1 on it must conflict
//! ```
//!
//! One client drives several transactions of its own by turns and knows what is in its keys, so that it knows what
//! each read must find, which pieces it observed (I-15), and which were written since the transaction began.
//! Whoever observed such a piece must get `not_committed`, everybody else must be committed.
//!
//! A transaction that was refused leaves its writes in the resolvers that had nothing against it, which is no defect: whoever
//! observes them conflicts. The client knows where resolvers meet, among its keys, and so it knows which.
//!
//! ```text
//!   resolvers   |------ 0 ------|---- 1 ----     C is refused, because of what it read of piece 0
//!   C writes           2             5           left: piece 5, as resolver 1 has accepted it
//! ```
//!
//! Two things are in doubt. What a read between selectors has looked at is known up to what FoundationDB would count only.
//! And a commit may get no answer: the round ends there and is not counted. All transactions read the client's epoch, so that
//! writing it keeps out what is under way.
//!
//! Start with [`ConflictRanges::round`], then [`Round::verdict`].

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{
    AtomicOp, Committed, Error, ErrorCode, Key, KeyRange, KeySelector, RangeQuery, Transaction,
    TransactionOption, Value, Versionstamp,
};
use ferrisdb_core::{Mutation, limits};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload, atomic_model,
    contents::{Contents, Point, Rows, Selected},
    support::{self, Fate, draw, fate, few_bytes, one_in, passing, persist, pick},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConflictRangesSettings {
    /// Keys of each client; at most 30.
    pub keys: u32,
    /// How many clients, each with keys of its own.
    pub clients: u32,
    /// Most transactions at a time.
    pub transactions: u32,
    /// Most steps of each.
    pub steps: u32,
    /// Whether the first two clients have the edges of the keyspace, in the place of keys below the workload's name.
    pub edges: bool,
}

impl Default for ConflictRangesSettings {
    fn default() -> Self {
        ConflictRangesSettings { keys: 10, clients: 2, transactions: 4, steps: 5, edges: false }
    }
}

/// The workload.
pub struct ConflictRanges {
    settings: ConflictRangesSettings,
    total: Mutex<Tally>,
    /// What the clients' keys held in the end.
    ended: Mutex<BTreeMap<u32, BTreeMap<Key, Value>>>,
}

/// How many commits there were of each kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    committed: u64,
    conflicts: u64,
    allowed_conflicts: u64,
    /// Refused transactions that have left writes in another resolver.
    left_behind: u64,
    skipped: u64,
}

/// A set of pieces of the keyspace, a bit each.
type Pieces = u64;

/// The keyspace of a client, cut at every key and right after it.
#[derive(Clone, Debug)]
struct Map {
    /// Ascending: piece `i` begins at `bounds[i]` and ends at the next.
    bounds: Vec<Key>,
    keys: Vec<Key>,
    /// The pieces of each resolver.
    resolvers: Vec<Pieces>,
}

/// A transaction under way.
struct Actor {
    transaction: Transaction,
    /// What the database holds at its read version.
    base: Rows,
    sees: Contents,
    writes: Vec<Mutation>,
    steps_left: u32,
    /// How many entries the round's log had when the transaction began.
    began: usize,
    reads_own_writes: bool,
    reports: bool,
    /// Pieces that no read asks the database for any more.
    known: Pieces,
    observed: Pieces,
    /// Pieces that it may have observed.
    looked_at: Pieces,
    /// The reads between selectors.
    reads: Vec<RangeQuery>,
    written: Pieces,
    has_written: bool,
}

/// What happened in a round.
#[derive(Default)]
struct Round {
    /// The commits that were tried.
    log: Vec<Entry>,
    /// What commits of earlier rounds wrote that got no answer. They are kept out by the epoch, and may leave that with other
    /// resolvers at any time.
    late: Pieces,
}

/// What a commit has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Pieces whose readers conflict.
    left: Pieces,
    /// Pieces whose readers may conflict.
    in_doubt: Pieces,
}

/// How a commit has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    MustCommit,
    MayConflict,
    MustConflict,
}

impl Map {
    fn new(client: u32, settings: &ConflictRangesSettings, resolver_boundaries: &[Key]) -> Map {
        let prefix = format!("conflict_ranges/{client:03}/");
        let keys: Vec<Key> = (0..settings.keys.clamp(1, 30))
            .map(|index| format!("{prefix}{index:02}").into())
            .collect();
        match client {
            0 if settings.edges => Map::at(Key::MIN, b"\0", b"\x01".into(), resolver_boundaries),
            1 if settings.edges => {
                Map::at(b"\xfe".into(), b"\xfe", Key::USER_END, resolver_boundaries)
            }
            _ => Map::of(KeyRange::prefix(prefix.as_bytes()), keys, resolver_boundaries),
        }
    }

    /// Keys at an edge of the keyspace: the first one, or some of the last, and the longest.
    fn at(begin: Key, first: &[u8], end: Key, resolver_boundaries: &[Key]) -> Map {
        let long = |bytes: usize| {
            let mut key = first.to_vec();
            key.resize(bytes, 0xff);
            Key::from(key)
        };
        let keys = vec![
            begin.clone(),
            [first, b"\0\0"].concat().into(),
            [first, b"\x01"].concat().into(),
            [first, b"\xff"].concat().into(),
            long(limits::KEY_BYTES_MAX - 2),
            long(limits::KEY_BYTES_MAX),
        ];
        Map::of(KeyRange { begin, end }, keys, resolver_boundaries)
    }

    fn of(all: KeyRange, keys: Vec<Key>, resolver_boundaries: &[Key]) -> Map {
        let mut bounds = vec![all.begin];
        bounds.extend(keys.iter().flat_map(|key| [key.clone(), key.successor()]));
        bounds.push(all.end);
        bounds.dedup();
        let mut resolvers = vec![0; resolver_boundaries.len() + 1];
        for (piece, begin) in bounds[..bounds.len() - 1].iter().enumerate() {
            let resolver = resolver_boundaries.partition_point(|boundary| boundary <= begin);
            resolvers[resolver] |= 1 << piece;
        }
        Map { bounds, keys, resolvers }
    }

    fn all(&self) -> KeyRange {
        let last = self.bounds.len() - 1;
        KeyRange { begin: self.bounds[0].clone(), end: self.bounds[last].clone() }
    }

    /// The pieces of a range that begins and ends where pieces do.
    fn pieces(&self, range: &KeyRange) -> Pieces {
        let inside = |pair: &[Key]| range.begin <= pair[0] && pair[1] <= range.end;
        let pieces = self.bounds.windows(2).enumerate();
        pieces.filter(|(_, pair)| inside(pair)).map(|(index, _)| 1 << index).sum()
    }

    fn piece(&self, key: &Key) -> Pieces {
        self.pieces(&KeyRange::single(key))
    }

    /// The pieces that a range touches, wherever it begins and ends.
    fn touched(&self, range: &KeyRange) -> Pieces {
        let touches = |pair: &[Key]| range.begin < pair[1] && pair[0] < range.end;
        let pieces = self.bounds.windows(2).enumerate();
        pieces.filter(|(_, pair)| touches(pair)).map(|(index, _)| 1 << index).sum()
    }

    fn draw_range(&self) -> KeyRange {
        let (a, b) = (pick(&self.bounds), pick(&self.bounds));
        KeyRange { begin: a.min(b).clone(), end: a.max(b).clone() }
    }
}

impl Actor {
    /// One read or write that is drawn.
    async fn step(&mut self, map: &Map) -> Result<()> {
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

impl Round {
    /// How the commit of a transaction has to end that began after so many entries of the log.
    fn verdict(
        &self,
        began: usize,
        observed: Pieces,
        looked_at: Pieces,
        is_empty: bool,
    ) -> Verdict {
        let Entry { left, in_doubt } = self.left_since(began);
        match (left & observed, (left | in_doubt) & (observed | looked_at)) {
            _ if is_empty => Verdict::MustCommit,
            (0, 0) => Verdict::MustCommit,
            (0, _) => Verdict::MayConflict,
            _ => Verdict::MustConflict,
        }
    }

    /// All pieces that were, or may have been, written since.
    fn left_since(&self, began: usize) -> Entry {
        let join = |all: Entry, entry: &Entry| Entry {
            left: all.left | entry.left,
            in_doubt: all.in_doubt | entry.in_doubt,
        };
        self.log[began..].iter().fold(Entry { left: 0, in_doubt: self.late }, join)
    }

    /// What a transaction leaves that was refused as a conflict: what it writes to the keys of those resolvers that had nothing
    /// against it.
    fn left_by_refused(&self, map: &Map, actor: &Actor) -> Entry {
        let Entry { left, in_doubt } = self.left_since(actor.began);
        let mut entry = Entry::default();
        for keys in &map.resolvers {
            let written = actor.written & keys;
            if left & actor.observed & keys != 0 {
                continue;
            }
            match (left | in_doubt) & (actor.observed | actor.looked_at) & keys {
                0 => entry.left |= written,
                _ => entry.in_doubt |= written,
            }
        }
        entry
    }

    /// Compares the ranges that the database gave as the reason of a conflict with those that there were.
    fn check_report(&self, map: &Map, actor: &Actor, ranges: &[KeyRange]) -> Result<()> {
        let Entry { left, in_doubt } = self.left_since(actor.began);
        let possible = (left | in_doubt) & (actor.observed | actor.looked_at);
        let certain = left & actor.observed;
        let mut reported = 0;
        for range in ranges {
            let pieces = map.pieces(range);
            ensure!(pieces & possible != 0, "{range} is reported, nobody wrote to it (I-15)");
            reported |= pieces;
        }
        ensure!(certain & !reported == 0, "a conflict is missing in the report {ranges:?} (I-15)");
        Ok(())
    }
}

/// Compares how a commit ended with how it had to.
fn check_verdict(verdict: Verdict, is_conflict: bool) -> Result<()> {
    match (verdict, is_conflict) {
        (Verdict::MustConflict, false) => {
            bail!("a transaction was committed although what it read was written since (I-4)")
        }
        (Verdict::MustCommit, true) => {
            bail!("a transaction got not_committed although nobody wrote what it read (I-15)")
        }
        _ => Ok(()),
    }
}

impl ConflictRanges {
    /// A workload of which nothing was done yet.
    pub fn new(settings: ConflictRangesSettings) -> ConflictRanges {
        ConflictRanges { settings, total: Mutex::default(), ended: Mutex::default() }
    }

    async fn work(&self, client: &Client) -> Result<()> {
        let map = Map::new(client.number, &self.settings, &client.resolver_boundaries);
        let mut rows = self.begin_epoch(client, &map).await?;
        let mut late = 0;
        while !client.is_stopped() {
            let is_clear = if one_in(10) {
                stamped_round(client, &self.total).await.map(|()| true)
            } else {
                self.round(client, &map, &mut rows, &mut late).await
            };
            match is_clear {
                Ok(true) => {}
                Ok(false) => {
                    self.total.lock().skipped += 1;
                    rows = self.begin_epoch(client, &map).await?;
                }
                Err(error) if passing(&error).is_some() => {
                    self.total.lock().skipped += 1;
                    support::pause().await;
                }
                Err(error) => return Err(error),
            }
        }
        self.ended.lock().insert(client.number, rows);
        Ok(())
    }

    /// Several transactions by turns. Returns whether everything is known that happened.
    async fn round(
        &self,
        client: &Client,
        map: &Map,
        rows: &mut BTreeMap<Key, Value>,
        late: &mut Pieces,
    ) -> Result<bool> {
        let mut round = Round { log: Vec::new(), late: *late };
        let count = 2 + draw(self.settings.transactions.max(2) as usize - 1);
        let mut actors: Vec<Option<Actor>> = (0..count).map(|_| None).collect();
        let mut waiting: Vec<usize> = (0..count).collect();
        while !waiting.is_empty() {
            let place = draw(waiting.len());
            let actor = &mut actors[waiting[place]];
            let done = match actor {
                None => match self.begin(client, rows, &round).await {
                    Ok(begun) => {
                        *actor = Some(begun);
                        Ok(false)
                    }
                    Err(error) => Err(error),
                },
                Some(actor) if actor.steps_left > 0 => {
                    actor.steps_left -= 1;
                    actor.step(map).await.map(|()| false)
                }
                Some(actor) => match self.commit(map, actor, &mut round, rows).await {
                    Ok(true) => Ok(true),
                    Ok(false) => {
                        *late |= actor.written;
                        return Ok(false);
                    }
                    Err(error) => Err(error),
                },
            };
            match done {
                Ok(false) => {}
                Ok(true) => {
                    waiting.swap_remove(place);
                }
                // It has not committed and will not: the others go on.
                Err(error) if passing(&error).is_some() => {
                    self.total.lock().skipped += 1;
                    waiting.swap_remove(place);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn begin(
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

    /// Commits, and compares the end with what it must be. Returns whether the fate is known.
    async fn commit(
        &self,
        map: &Map,
        actor: &Actor,
        round: &mut Round,
        rows: &mut BTreeMap<Key, Value>,
    ) -> Result<bool> {
        let is_empty = !actor.has_written && actor.written == 0;
        let verdict = round.verdict(actor.began, actor.observed, actor.looked_at, is_empty);
        let ended = actor.transaction.commit().await;
        let about = |took_effect: bool| {
            check_verdict(verdict, !took_effect)
                .with_context(|| {
                    let Actor { observed, looked_at, began, reads, .. } = &actor;
                    format!("observed {observed:b}, perhaps {looked_at:b}, from {began} on, of {:x?}, by {reads:?}", round.log)
                })
        };
        match fate(ended)? {
            Fate::Committed(committed) => {
                about(true)?;
                self.total.lock().committed += 1;
                if !is_empty {
                    apply(rows, &actor.writes, committed)?;
                    round.log.push(Entry { left: actor.written, in_doubt: 0 });
                }
            }
            Fate::Refused(error) if is_conflict(&error) => {
                about(false)?;
                if actor.reports {
                    let conflicts = actor.transaction.conflicting_ranges();
                    let ranges: Vec<KeyRange> =
                        conflicts.into_iter().map(|conflict| conflict.range).collect();
                    round.check_report(map, actor, &ranges)?;
                }
                let mut total = self.total.lock();
                match verdict {
                    Verdict::MustConflict => total.conflicts += 1,
                    _ => total.allowed_conflicts += 1,
                }
                let entry = round.left_by_refused(map, actor);
                total.left_behind += u64::from(entry.left != 0);
                round.log.push(entry);
            }
            Fate::Refused(_) => {
                self.total.lock().skipped += 1;
                round.log.push(Entry { left: 0, in_doubt: actor.written });
            }
            Fate::Unknown => return Ok(false),
        }
        Ok(true)
    }

    /// Keeps out what may be under way, and reads what is there.
    async fn begin_epoch(&self, client: &Client, map: &Map) -> Result<BTreeMap<Key, Value>> {
        let (epoch, all) = (&epoch_key(client.number), &map.all());
        let rows = support::run(client, "an epoch", |transaction| async move {
            transaction.get(epoch).await?;
            transaction.set_versionstamped_value(epoch, vec![0; Versionstamp::LEN], 0)?;
            Ok(transaction.get_range(all).await?)
        });
        Ok(rows.await?.into_iter().map(|row| (row.key, row.value)).collect())
    }
}

fn is_conflict(error: &Error) -> bool {
    error.code() == ErrorCode::NotCommitted
}

fn epoch_key(client: u32) -> Key {
    format!("conflict_ranges/epoch/{client:03}").into()
}

/// Does what a transaction wrote to the rows.
fn apply(rows: &mut BTreeMap<Key, Value>, writes: &[Mutation], committed: Committed) -> Result<()> {
    let stamp = committed.versionstamp.context("a commit that wrote has a versionstamp")?;
    let mut marked: BTreeMap<Key, (Value, ())> =
        std::mem::take(rows).into_iter().map(|(key, value)| (key, (value, ()))).collect();
    writes.iter().for_each(|write| atomic_model::apply_mutation(&mut marked, write, stamp, &()));
    *rows = marked.into_iter().map(|(key, (value, ()))| (key, value)).collect();
    Ok(())
}

/// Keys with versionstamps: one that comes into a range is a conflict for who read the range, and none for who read
/// a key that was there before. Those that were there before can be read beside it.
async fn stamped_round(client: &Client, total: &Mutex<Tally>) -> Result<()> {
    let prefix = stamped_prefix(client.number);
    let template = [&prefix, [0; Versionstamp::LEN].as_slice()].concat();
    let offset = prefix.len() as u32;
    let add = |transaction: &Transaction| {
        transaction.set_versionstamped_key(template.as_slice(), offset, "")
    };
    let commit = async |transaction: Transaction| match fate(transaction.commit().await)? {
        Fate::Committed(committed) => Ok(Some(committed)),
        Fate::Refused(error) => Err(anyhow::Error::from(error)),
        Fate::Unknown => Ok(None),
    };
    let first = client.database.transaction();
    add(&first)?;
    let Some(Committed { versionstamp: Some(stamp), .. }) = commit(first).await? else {
        return Ok(());
    };
    let key = Key::from(atomic_model::stamped(&template, offset, stamp));
    let (reader, scanner) = (client.database.transaction(), client.database.transaction());
    ensure!(reader.get(&key).await?.is_some(), "{key} is not there (I-1)");
    let rows = scanner.get_range(KeyRange::prefix(&prefix)).await?;
    ensure!(rows.iter().any(|row| row.key == key), "{key} is not among {rows:?} (I-1)");
    // Nobody reads these: they let the commits be decided on.
    let mark = format!("conflict_ranges/mark/{:03}", client.number);
    reader.add_write_conflict_key(mark.as_str())?;
    scanner.add_write_conflict_key(mark.as_str())?;
    let second = client.database.transaction();
    let knows_version = one_in(2);
    if knows_version {
        second.read_version().await?;
    }
    add(&second)?;
    let older = second.snapshot().get(&key).await;
    let unreadable = |error: &Error| error.code() == ErrorCode::AccessedUnreadable;
    match older {
        Ok(found) => ensure!(found.is_some() && knows_version, "{key} is {found:?} (I-1)"),
        Err(error) if unreadable(&error) => {
            ensure!(!knows_version, "{key} is older, and was not read: {error}");
        }
        Err(error) => return Err(error.into()),
    }
    let Some(Committed { versionstamp: Some(stamp), .. }) = commit(second).await? else {
        return Ok(());
    };
    for (transaction, verdict) in [(reader, Verdict::MustCommit), (scanner, Verdict::MustConflict)]
    {
        let ended = transaction.commit().await;
        match fate(ended)? {
            Fate::Committed(_) => {
                check_verdict(verdict, false).context("a versionstamped key")?;
                total.lock().committed += 1;
            }
            Fate::Refused(error) if is_conflict(&error) => {
                check_verdict(verdict, true).context("a versionstamped key")?;
                total.lock().conflicts += 1;
            }
            Fate::Refused(_) | Fate::Unknown => total.lock().skipped += 1,
        }
    }
    // Should this come late, it must not reach what later rounds add.
    let end = Key::from(atomic_model::stamped(&template, offset, stamp)).successor();
    let last = client.database.transaction();
    last.clear_range(KeyRange { begin: prefix.into(), end })?;
    commit(last).await?;
    Ok(())
}

/// What the stamped keys of a client begin with. A commit that got no answer may come later; that disturbs only who has read
/// all of them, and has to conflict anyway.
fn stamped_prefix(client: u32) -> Vec<u8> {
    format!("conflict_ranges/stamped/{client:03}/").into_bytes()
}

impl Workload for ConflictRanges {
    fn name(&self) -> &str {
        "conflict_ranges"
    }

    fn resolver_cuts(&self) -> Vec<Key> {
        let of_client = |client| {
            let bounds = Map::new(client, &self.settings, &[]).bounds;
            // Stamped keys lie on the other side of what they are before they get their stamps.
            let stamped = [&stamped_prefix(client)[..], &[0, 0, 0, 0, 0, 0, 0, 1]].concat();
            bounds.into_iter().chain([Key::from(stamped)])
        };
        let cuts = (0..self.settings.clients).flat_map(of_client);
        cuts.filter(|key| *key > Key::MIN && *key < Key::USER_END).collect()
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move { self.work(&client).await }.boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let ended = self.ended.lock().clone();
            for (number, rows) in ended {
                let all = &Map::new(number, &self.settings, &[]).all();
                let read = || support::read_all(&client.database, all);
                let found = persist(&client, "reading all keys", read).await?;
                ensure!(found == rows, "client {number} left {rows:?}, there is {found:?} (I-5)");
            }
            let total = *self.total.lock();
            ensure!(total.committed + total.conflicts > 0, "every commit was skipped: {total:?}");
            Ok(format!("{total:?}"))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Version;

    use super::*;

    fn range(map: &Map, begin: usize, end: usize) -> KeyRange {
        KeyRange { begin: map.bounds[begin].clone(), end: map.bounds[end].clone() }
    }

    #[test]
    fn pieces_are_keys_and_the_gaps_between_them() {
        let map = Map::new(1, &ConflictRangesSettings { keys: 3, ..Default::default() }, &[]);
        assert_eq!(map.pieces(&map.all()), 0b111_1111);
        assert_eq!(map.piece(&map.keys[0]), 0b10);
        assert_eq!(map.pieces(&range(&map, 2, 5)), 0b1_1100);
        assert_eq!(map.pieces(&range(&map, 3, 3)), 0);
    }

    #[test]
    fn a_limit_ends_what_was_observed() {
        let map = Map::new(1, &ConflictRangesSettings { keys: 3, ..Default::default() }, &[]);
        let rows = [(map.keys[1].clone(), Value::default())];
        let query = RangeQuery::from(map.all()).rows(1);
        assert_eq!(map.pieces(&looked_at(&query, &rows, true)), 0b1111);
        assert_eq!(map.pieces(&looked_at(&query.clone().reverse(), &rows, true)), 0b111_1000);
        assert_eq!(map.pieces(&looked_at(&query, &rows, false)), 0b111_1111);
    }

    #[test]
    fn conflicts_too_many_and_too_few_are_noticed() {
        let left = |left| Entry { left, in_doubt: 0 };
        let in_doubt = Entry { left: 0, in_doubt: 0b100 };
        let round = Round { log: vec![left(0b001), left(0b010), in_doubt], late: 0 };
        assert_eq!(round.verdict(0, 0b001, 0, false), Verdict::MustConflict);
        assert_eq!(round.verdict(1, 0b001, 0, false), Verdict::MustCommit);
        assert_eq!(round.verdict(1, 0b110, 0, false), Verdict::MustConflict);
        assert_eq!(round.verdict(1, 0b100, 0, false), Verdict::MayConflict);
        assert_eq!(round.verdict(1, 0, 0b010, false), Verdict::MayConflict);
        assert_eq!(round.verdict(0, 0b111, 0, true), Verdict::MustCommit);
        let complaint = |verdict, is_conflict| check_verdict(verdict, is_conflict).unwrap_err();
        assert!(complaint(Verdict::MustConflict, false).to_string().contains("I-4"));
        assert!(complaint(Verdict::MustCommit, true).to_string().contains("I-15"));
        for is_conflict in [true, false] {
            check_verdict(Verdict::MayConflict, is_conflict).unwrap();
        }
    }

    #[test]
    fn rows_follow_the_commits() {
        let stamp = Versionstamp { commit_version: Version(7), batch_index: 0 };
        let committed = Committed { version: Version(7), versionstamp: Some(stamp) };
        let mut rows = BTreeMap::from([("a".into(), "1".into())]);
        let writes = [Mutation::Clear { key: "a".into() }];
        apply(&mut rows, &writes, committed).unwrap();
        assert!(rows.is_empty());
    }
}
