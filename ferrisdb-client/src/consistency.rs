//! Whether the replicas of every shard hold the same, byte for byte.
//!
//! ```text
//!   shard m..t, team 1 2 3, at version 41,000,000
//!     storage 1    m1 = a @ 40    m2 = b @ 17    p9 = c @ 33     more behind p9
//!     storage 2    m1 = a @ 40    m2 = b @ 17    p9 = c @ 33     more behind p9
//!     storage 3    m1 = a @ 40    m2 = B @ 17                    a difference at m2, and another one at p9
//!   next page, from p9\x00 on, at the same version; at a new one as soon as that has left the window
//! ```
//!
//! Every page is read from all members of the team at one version, so that whatever differs is damage and not
//! a write in between. Values and the versions of the commits that wrote them are compared. The system keyspace
//! is included.
//!
//! Shards move while they are checked: a server that says that it does not hold the range makes the check look
//! the shard up again. A server that cannot be asked is no difference: the part that was not read from it is
//! reported as unchecked. Servers that are only joining a shard are not asked; they hold a part of it at most.
//!
//! Knows nothing of the transactions that go on meanwhile. Start with [`Database::check_consistency`].
//!
//! # Caveats
//!
//! One shard is read at a time, so a check takes as long as reading all data over one connection to each server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Key, KeyRange, Result, Stage, Tag, Value, Version,
    id::Address,
    runtime,
    service::{
        controller::ClusterState,
        storage::{RangeRead, RangeReply, Row, StorageService},
    },
    transport,
};
use futures::future::join_all;

use crate::{connections::Connections, database::Database, options::Priority};

/// Differences that are kept for the report; of further ones only the number.
const DIFFERENCES_MAX: usize = 100;
/// Most bytes and rows of a page.
const PAGE_BYTES: u32 = 1024 * 1024;
const PAGE_ROWS: u32 = 20_000;
/// How long a server may take over a page.
const PAGE_LIMIT: Duration = Duration::from_secs(5);
/// How often a server is asked for a page before the shard counts as unchecked on it.
const TRIES_MAX: u32 = 5;
/// How often all versions of a page may be too old before it is given up: each was read too slowly.
const VERSIONS_MAX: u32 = 20;
/// How long to wait before a server is asked again, or for a newer map of the shards.
const PAUSE: Duration = Duration::from_millis(100);

/// A storage server that holds a shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// The storage server's tag.
    pub tag: Tag,
    /// Where it is reached; `None` if the cluster does not know it any more.
    pub address: Option<Address>,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "storage {} at {address}", self.tag),
            None => write!(f, "storage {}", self.tag),
        }
    }
}

/// What a replica has under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// The replica.
    pub replica: Replica,
    /// The value and the version of the commit that wrote it; `None` if the key is not set there.
    pub value: Option<(Value, Version)>,
}

/// A key under which the replicas do not have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Key,
    /// The version that all replicas were read at.
    pub read_version: Version,
    /// What each of them has.
    pub rows: Vec<ReplicaRow>,
}

/// A part of a shard that could not be read from one of its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchecked {
    /// The replica.
    pub replica: Replica,
    /// The keys.
    pub range: KeyRange,
    /// Why, for people.
    pub reason: String,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsistencyProgress {
    /// Shards that are done.
    pub shards: u64,
    /// Shards that there are. Changes if shards are cut or joined meanwhile.
    pub shards_total: u64,
    /// Keys that were seen on any replica.
    pub rows: u64,
    /// Bytes of keys and values, of each row once.
    pub bytes: u64,
    /// Keys with differences.
    pub differences: u64,
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsistencyReport {
    /// How much was checked, and how many differences there are in all.
    pub total: ConsistencyProgress,
    /// Replicas that were compared, those of each shard counted; a shard with one copy counts one.
    pub replicas: u64,
    /// The first differences, in key order; see [`ConsistencyProgress::differences`] for their number.
    pub differences: Vec<Difference>,
    /// What could not be read.
    pub unchecked: Vec<Unchecked>,
}

impl ConsistencyReport {
    /// Whether everything was read, and is the same everywhere.
    pub fn is_clean(&self) -> bool {
        self.total.differences == 0 && self.unchecked.is_empty()
    }
}

impl Database {
    /// Compares all replicas of every shard, the system keyspace included, while the database is being used.
    ///
    /// `progress` is called after each page. What differs or could not be read is in the report.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// let report = database
    ///     .check_consistency(|so_far| println!("{} of {} shards", so_far.shards, so_far.shards_total))
    ///     .await?;
    /// assert!(report.is_clean(), "{:?}", report.differences);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Why the cluster could not be asked for its shards or for a read version.
    pub async fn check_consistency(
        &self,
        progress: impl FnMut(&ConsistencyProgress) + Send,
    ) -> Result<ConsistencyReport> {
        let state = self.cluster().state_after(0, self.settings().read_limit).await?;
        let check = Check {
            database: self,
            servers: Connections::new(self.cluster().network().clone()),
            state,
            version: None,
            silent: BTreeSet::new(),
            report: ConsistencyReport::default(),
            progress,
        };
        check.run().await
    }
}

/// A check under way.
struct Check<'a, P> {
    database: &'a Database,
    servers: Connections<StorageService>,
    state: Arc<ClusterState>,
    /// What pages are read at, until it is too old.
    version: Option<Version>,
    /// Servers that were given up in some shard: in the next ones they are asked once, not several times.
    silent: BTreeSet<Tag>,
    report: ConsistencyReport,
    progress: P,
}

/// The shard that is being checked, from some key on.
struct Part {
    range: KeyRange,
    /// Its team, with where each is reached.
    team: Vec<(Replica, Option<Endpoint>)>,
    /// Members that were given up: from which key on, and why.
    given_up: BTreeMap<Tag, (Replica, Key, Error)>,
    failures: BTreeMap<Tag, u32>,
    /// Read versions that were too old for the page.
    versions: u32,
}

/// What became of a page.
enum Page {
    /// It was compared, up to this key.
    Compared(Key),
    /// Some server has to be asked again, in the same shard.
    Again,
    /// The shard has moved: its team has to be looked up again.
    Moved,
}

impl<P: FnMut(&ConsistencyProgress) + Send> Check<'_, P> {
    async fn run(mut self) -> Result<ConsistencyReport> {
        let mut begin = Key::MIN;
        let mut moves = 0;
        while let Some(mut part) = self.part_from(&begin, moves) {
            let end = part.range.end.clone();
            let compared = self.check_part(&mut part).await?;
            self.report_unchecked(&part, &compared);
            let is_done = compared == end;
            moves = if compared > begin { 0 } else { moves + 1 };
            begin = compared;
            if is_done {
                let left = part.team.len() - part.given_up.len();
                self.report.replicas += left as u64;
                self.report.total.shards += 1;
            } else {
                self.refresh().await;
            }
            self.tell(&begin);
        }
        Ok(self.report)
    }

    /// The shard of a key, from that key on; `None` at the end of all keys. A shard that has moved so often
    /// without an end has members that do not know that they are: they are not asked any more.
    fn part_from(&mut self, begin: &Key, moves: u32) -> Option<Part> {
        let shard = self.state.shards.of_key(begin)?;
        let endpoint_of = |tag: Tag| {
            let server = self.state.storage_servers.iter().find(|server| server.tag == tag);
            server.map(|server| server.endpoint.clone())
        };
        let team = shard.teams.team.iter().map(|&tag| {
            let endpoint = endpoint_of(tag);
            let address = endpoint.as_ref().map(|endpoint| endpoint.address.clone());
            (Replica { tag, address }, endpoint)
        });
        let mut part = Part {
            team: team.collect(),
            range: KeyRange { begin: begin.clone(), end: shard.range.end.clone() },
            given_up: BTreeMap::new(),
            failures: BTreeMap::new(),
            versions: 0,
        };
        if moves > 0 {
            // The last chance: one failure more, and the server is given up.
            let failures = moves.min(TRIES_MAX - 1);
            part.failures = part.team.iter().map(|(r, _)| (r.tag, failures)).collect();
        }
        Some(part)
    }

    /// Checks a part of a shard. Returns the key up to which it came: the end, unless the shard has moved.
    async fn check_part(&mut self, part: &mut Part) -> Result<Key> {
        while !part.range.is_empty() {
            match self.check_page(part).await? {
                Page::Compared(end) => {
                    part.range.begin = end;
                    part.failures.clear();
                    part.versions = 0;
                    let begin = part.range.begin.clone();
                    self.tell(&begin);
                }
                Page::Again => runtime::sleep(runtime::jitter(PAUSE)).await,
                Page::Moved => return Ok(part.range.begin.clone()),
            }
        }
        Ok(part.range.end.clone())
    }

    async fn check_page(&mut self, part: &mut Part) -> Result<Page> {
        let read_version = match self.version {
            Some(version) => version,
            None => {
                *self.version.insert(self.database.cluster().read_version(Priority::Default).await?)
            }
        };
        let asked =
            part.team.iter().filter(|(replica, _)| !part.given_up.contains_key(&replica.tag));
        let asked: Vec<(Replica, Option<Endpoint>)> = asked.cloned().collect();
        let answers = asked.iter().map(|(_, endpoint)| self.ask(endpoint, part, read_version));
        let answers = join_all(answers).await;
        let (mut pages, mut again, mut moved) = (Vec::new(), false, false);
        for ((replica, _), answer) in asked.into_iter().zip(answers) {
            let error = match answer {
                Ok(reply) => {
                    pages.push((replica, reply));
                    continue;
                }
                Err(error) => error,
            };
            if error.code() == ErrorCode::TransactionTooOld && part.versions < VERSIONS_MAX {
                // It says nothing of the server: time has passed.
                (self.version, again) = (None, true);
                continue;
            }
            let failures = part.failures.entry(replica.tag).or_default();
            *failures += 1;
            let is_known_as_silent = self.silent.contains(&replica.tag)
                && !matches!(error.code(), ErrorCode::WrongShard | ErrorCode::FutureVersion);
            if *failures >= TRIES_MAX || is_known_as_silent {
                self.silent.insert(replica.tag);
                part.given_up.insert(replica.tag, (replica, part.range.begin.clone(), error));
            } else if error.code() == ErrorCode::WrongShard {
                moved = true;
            } else {
                again = true;
            }
        }
        if moved {
            return Ok(Page::Moved);
        }
        if again {
            part.versions += u32::from(self.version.is_none());
            return Ok(Page::Again);
        }
        let end = end_of(&part.range, pages.iter().map(|(_, reply)| reply));
        let compared = compare(&pages, &end, read_version);
        self.report.total.rows += compared.rows;
        self.report.total.bytes += compared.bytes;
        self.report.total.differences += compared.differences.len() as u64;
        let room = DIFFERENCES_MAX - self.report.differences.len();
        self.report.differences.extend(compared.differences.into_iter().take(room));
        Ok(Page::Compared(end))
    }

    async fn ask(
        &self,
        endpoint: &Option<Endpoint>,
        part: &Part,
        read_version: Version,
    ) -> Result<RangeReply> {
        let Some(endpoint) = endpoint else {
            let detail =
                "the cluster does not know the server: it was replaced, or is not there yet";
            return Err(Error::new(ErrorCode::WrongShard, Stage::Read, detail));
        };
        let request = RangeRead {
            range: part.range.clone(),
            read_version,
            rows_max: PAGE_ROWS,
            bytes_max: PAGE_BYTES,
            reverse: false,
        };
        let answer = async {
            let client = self.servers.get(endpoint).await?;
            transport::call(PAGE_LIMIT, Stage::Read, |context| client.get_range(context, request))
                .await
        };
        let answer = runtime::timeout(PAGE_LIMIT, Stage::Read, answer).await;
        let reply = answer.and_then(|answer| answer).inspect_err(|_| self.servers.failed(endpoint));
        let reply = reply.and_then(|reply| reply).and_then(|reply| {
            check_reply(&part.range, &reply)?;
            Ok(reply)
        });
        reply.map_err(|error| error.at(endpoint))
    }

    /// Reports what was not read of a part that ended at `end`.
    fn report_unchecked(&mut self, part: &Part, end: &Key) {
        for (replica, begin, error) in part.given_up.values().filter(|(_, begin, _)| begin < end) {
            let range = KeyRange { begin: begin.clone(), end: end.clone() };
            // Shard after shard of a dead server is one entry.
            let last = self.report.unchecked.iter_mut().rfind(|last| last.replica == *replica);
            match last.filter(|last| last.range.end == range.begin) {
                Some(last) => last.range.end = range.end,
                None => self.report.unchecked.push(Unchecked {
                    replica: replica.clone(),
                    range,
                    reason: error.to_string(),
                }),
            }
        }
    }

    /// Waits for a newer map, or a little while: the old one may be right, and the server late.
    async fn refresh(&mut self) {
        let cluster = self.database.cluster();
        if let Ok(state) = cluster.state_after(self.state.revision, runtime::jitter(PAUSE)).await {
            self.state = state;
        }
    }

    fn tell(&mut self, begin: &Key) {
        let left = KeyRange { begin: begin.clone(), end: Key::SYSTEM_END };
        let left = self.state.shards.intersecting(&left).count() as u64;
        self.report.total.shards_total = self.report.total.shards + left;
        (self.progress)(&self.report.total);
    }
}

/// Rows come from another process: in order and inside of what was asked for, or not at all.
fn check_reply(range: &KeyRange, reply: &RangeReply) -> Result<()> {
    if reply.covered(range, false).is_none() {
        let detail = format!("rows out of order, outside of {range}, or no way to go on");
        return Err(Error::new(ErrorCode::Protocol, Stage::Read, detail));
    }
    Ok(())
}

/// Up to where all of the pages reach.
fn end_of<'a>(range: &KeyRange, pages: impl Iterator<Item = &'a RangeReply>) -> Key {
    let ends = pages.filter_map(|page| page.continue_at.as_ref());
    ends.min().unwrap_or(&range.end).clone()
}

/// What the comparison of a page came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    rows: u64,
    bytes: u64,
    differences: Vec<Difference>,
}

/// Compares the rows below `end`, key by key.
fn compare(pages: &[(Replica, RangeReply)], end: &Key, read_version: Version) -> Compared {
    let mut compared = Compared::default();
    let mut heads: Vec<_> = pages.iter().map(|(_, page)| page.rows.iter().peekable()).collect();
    loop {
        let keys = heads.iter_mut().filter_map(|rows| rows.peek().map(|row| &row.key));
        let Some(key) = keys.min().filter(|key| *key < end) else { return compared };
        let rows: Vec<Option<&Row>> =
            heads.iter_mut().map(|rows| rows.next_if(|row| row.key == *key)).collect();
        let one = rows.iter().flatten().next();
        compared.rows += 1;
        compared.bytes += one.map_or(0, |row| (row.key.len() + row.value.len()) as u64);
        if rows.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        let row = |((replica, _), row): (&(Replica, _), &Option<&Row>)| ReplicaRow {
            replica: replica.clone(),
            value: row.map(|row| (row.value.clone(), row.commit_version)),
        };
        let rows = pages.iter().zip(&rows).map(row).collect();
        compared.differences.push(Difference { key: key.clone(), read_version, rows });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(rows: &[(&str, &str, u64)], more: bool) -> RangeReply {
        let row = |&(key, value, version): &(&str, &str, u64)| Row {
            key: key.into(),
            value: value.into(),
            commit_version: Version(version),
        };
        let rows: Vec<Row> = rows.iter().map(row).collect();
        let continue_at = more.then(|| rows.last().map_or("b".into(), |last| last.key.successor()));
        RangeReply { rows, continue_at }
    }

    fn replicas<const N: usize>(pages: [RangeReply; N]) -> Vec<(Replica, RangeReply)> {
        let replica = |tag| Replica { tag: Tag(tag), address: None };
        (0..).map(replica).zip(pages).collect()
    }

    #[test]
    fn equal_pages_have_no_differences() {
        let one = page(&[("a", "1", 5), ("b", "2", 6)], false);
        let pages = replicas([one.clone(), one.clone(), one]);
        let compared = compare(&pages, &Key::SYSTEM_END, Version(9));
        assert_eq!(compared, Compared { rows: 2, bytes: 4, differences: Vec::new() });
        assert_eq!(compare(&[], &Key::SYSTEM_END, Version(9)), Compared::default());
    }

    #[test]
    fn values_versions_and_absent_keys_differ() {
        let pages = replicas([
            page(&[("a", "1", 5), ("b", "2", 6), ("c", "3", 7)], false),
            page(&[("a", "1", 5), ("b", "2", 8), ("d", "4", 7)], false),
        ]);
        let compared = compare(&pages, &Key::SYSTEM_END, Version(9));
        let keys: Vec<_> = compared.differences.iter().map(|d| d.key.to_string()).collect();
        assert_eq!((keys.concat().as_str(), compared.rows), ("bcd", 4));
        assert_eq!(compared.differences[1].rows[0].value, Some(("3".into(), Version(7))));
        assert_eq!(compared.differences[1].rows[1].value, None);
    }

    #[test]
    fn pages_are_compared_as_far_as_all_reach() {
        let short = page(&[("a", "1", 5)], true);
        let long = page(&[("a", "1", 5), ("b", "2", 6)], false);
        let range = KeyRange::new("", "m");
        assert_eq!(end_of(&range, [&short, &long].into_iter()), Key::from("a").successor());
        assert_eq!(end_of(&range, [&long].into_iter()), Key::from("m"));
        let pages = replicas([short, long]);
        let compared = compare(&pages, &Key::from("a").successor(), Version(9));
        assert_eq!((compared.rows, compared.differences.len()), (1, 0));
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        let range = KeyRange::new("b", "m");
        for wrong in [
            page(&[("a", "", 1)], false),
            page(&[("m", "", 1)], false),
            page(&[("d", "", 1), ("c", "", 1)], false),
            page(&[("d", "", 1), ("d", "", 1)], false),
            page(&[], true),
        ] {
            assert!(check_reply(&range, &wrong).is_err(), "{wrong:?}");
        }
        assert!(check_reply(&range, &page(&[("b", "", 1), ("c", "", 1)], true)).is_ok());
    }

    proptest! {
        #[test]
        fn differences_are_what_maps_say(
            maps in prop::collection::vec(prop::collection::btree_map("[a-d]{1,2}", 0..2u8, 0..6), 1..4),
        ) {
            let pages: Vec<(Replica, RangeReply)> = (0..).zip(&maps).map(|(tag, map)| {
                let row = |(key, value): (&String, &u8)| Row {
                    key: key.as_str().into(),
                    value: vec![*value].into(),
                    commit_version: Version(1),
                };
                let rows = map.iter().map(row).collect();
                (Replica { tag: Tag(tag), address: None }, RangeReply { rows, continue_at: None })
            }).collect();
            let keys: BTreeSet<&String> = maps.iter().flat_map(|map| map.keys()).collect();
            let differ = |key: &&&String| maps.iter().any(|map| map.get(**key) != maps[0].get(**key));
            let expected: Vec<Key> = keys.iter().filter(differ).map(|key| key.as_str().into()).collect();
            let compared = compare(&pages, &Key::SYSTEM_END, Version(1));
            let found: Vec<Key> = compared.differences.into_iter().map(|d| d.key).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(compared.rows, keys.len() as u64);
        }
    }
}
