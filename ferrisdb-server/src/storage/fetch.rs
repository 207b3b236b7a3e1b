//! Copying ranges from other servers: when it is its turn, whom to ask, and what of the answer to believe.
//!
//! ```text
//!   pull    58    59    60           61    62            the log has nothing more at 60 and at 62
//!   page                  'g'..'k'           'k'..'n'    as of 60, as of 62
//! ```
//!
//! Pulling and copying take turns, so the applied version stands still while a page is on its way, and nothing has
//! to be kept for later. A page is small and its time is bounded, because reads of the newest versions wait for it.
//! Its turn comes when the log has nothing new, and on a busy cluster after some peeks.
//!
//! A page is asked of a member of the shard's team. Who that is the stream said when the copy began; the state of the
//! cluster may know of newer members. Neither has to be right: who does not own the keys at the version
//! refuses (I-3), and another one is asked. A team that has cut the shard since then owns less than is asked for, so
//! of the servers in the state of the cluster only as much is asked as that says they have.
//!
//! Start with [`Fetch::next`].

use std::time::Duration;

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, KeyRange, Result, Stage, Tag, Version, limits,
    runtime::Instant,
    service::{
        controller::ClusterState,
        storage::{RangeRead, RangeReply, Row},
    },
};

use super::shards::Part;

/// After so many peeks a page has its turn, although there may be more in the logs.
const PEEKS_PER_PAGE: u32 = 8;
/// A page has about so many bytes at least, and always a row.
const PAGE_BYTES_MIN: u32 = 4 * 1024;
/// How long to wait after the first failure; doubles with each further one up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The decisions about copying.
#[derive(Debug)]
pub struct Fetch {
    /// About how many bytes of rows a page has at most.
    page_bytes_max: u32,
    /// About how many bytes the next one has: fewer after one that was too late, or it would be too late again and again.
    page_bytes: u32,
    /// Peeks since the last page; enough of them when the log had nothing.
    peeks: u32,
    /// Who sent the last page.
    preferred: Option<Tag>,
    /// Counts on at every failure: whom to ask, and for what.
    choice: usize,
    failures: u32,
    not_before: Option<Instant>,
    copied_bytes: u64,
}

/// What the puller does next, as far as copying is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Peeks, and lets the log wait for as long as it likes: there is nothing to copy.
    Peek,
    /// Peeks, with at most so much time for the log to wait.
    PeekWithin(Duration),
    /// Copies a page.
    Copy(Box<Page>),
}

/// A page to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What it is the beginning of.
    pub part: Part,
    /// Whom to ask.
    pub source: Tag,
    /// Where that is.
    pub endpoint: Endpoint,
    /// The question.
    pub request: RangeRead,
}

/// A page that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The keys, whose rows are all there.
    pub range: KeyRange,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Copied {
    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| (row.key.len() + row.value.len()) as u64).sum()
    }
}

impl Fetch {
    /// Pages of about so many bytes.
    pub fn new(page_bytes: u32) -> Fetch {
        Fetch {
            page_bytes_max: page_bytes,
            page_bytes,
            peeks: 0,
            preferred: None,
            choice: 0,
            failures: 0,
            not_before: None,
            copied_bytes: 0,
        }
    }

    /// Bytes of rows that were copied.
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Whose turn it is. `parts` is what can be copied now, for the server of `tag`.
    pub fn next(
        &mut self,
        now: Instant,
        parts: Vec<Part>,
        cluster: Option<&ClusterState>,
        tag: Option<Tag>,
        applied_version: Version,
    ) -> Turn {
        if parts.is_empty() {
            return Turn::Peek;
        }
        if let Some(wait) =
            self.not_before.and_then(|not_before| not_before.checked_duration_since(now))
            && !wait.is_zero()
        {
            return Turn::PeekWithin(wait);
        }
        if self.peeks < PEEKS_PER_PAGE {
            return Turn::PeekWithin(Duration::ZERO);
        }
        let Some(cluster) = cluster else { return Turn::PeekWithin(RETRY_MIN) };
        let candidates: Vec<_> = parts
            .iter()
            .flat_map(|part| {
                let mut candidates = candidates(part, cluster, tag);
                // Those that answer are asked on, before the others of the same part.
                candidates.sort_by_key(|(source, ..)| Some(*source) != self.preferred);
                candidates.into_iter().map(move |candidate| (part, candidate))
            })
            .collect();
        if candidates.is_empty() {
            self.fail(now);
            return Turn::PeekWithin(RETRY_MIN);
        }
        let (part, (source, endpoint, range)) = candidates[self.choice % candidates.len()].clone();
        let request = RangeRead {
            range,
            read_version: applied_version,
            rows_max: limits::RANGE_ROWS_MAX as u32,
            bytes_max: self.page_bytes,
            reverse: false,
        };
        Turn::Copy(Box::new(Page { part: part.clone(), source, endpoint, request }))
    }

    /// A peek has ended. `is_caught_up` if there was nothing new.
    pub fn on_peeked(&mut self, is_caught_up: bool) {
        self.peeks = if is_caught_up { PEEKS_PER_PAGE } else { self.peeks.saturating_add(1) };
    }

    /// Somebody has answered. Returns what is good to be written: after that comes [`Fetch::on_copied`], or
    /// [`Fetch::on_failed`] if there was no space for it.
    ///
    /// # Errors
    ///
    /// If the answer makes no sense. As after [`Fetch::on_failed`], another one is asked.
    pub fn on_page(&mut self, now: Instant, page: &Page, reply: RangeReply) -> Result<Copied> {
        let checked = check_reply(&page.request, reply);
        if let Err(error) = &checked {
            self.on_failed(now, page, error);
        }
        checked
    }

    /// A page of so many bytes was written.
    pub fn on_copied(&mut self, page: &Page, bytes: u64) {
        self.peeks = 0;
        self.failures = 0;
        self.choice = 0;
        self.preferred = Some(page.source);
        self.page_bytes = self.page_bytes.saturating_mul(2).min(self.page_bytes_max);
        self.copied_bytes += bytes;
    }

    /// Somebody did not answer, or refused, or there is no space for what came.
    pub fn on_failed(&mut self, now: Instant, page: &Page, error: &Error) {
        tracing::debug!(%error, range = %page.request.range, "a page could not be copied");
        if error.code() == ErrorCode::TimedOut {
            self.page_bytes = (self.page_bytes / 2).max(PAGE_BYTES_MIN).min(self.page_bytes_max);
        }
        self.fail(now);
    }

    fn fail(&mut self, now: Instant) {
        self.peeks = 0;
        self.preferred = None;
        self.choice = self.choice.wrapping_add(1);
        let doubled = RETRY_MIN.saturating_mul(1 << self.failures.min(16));
        self.not_before = Some(now + doubled.min(RETRY_MAX));
        self.failures = self.failures.saturating_add(1);
    }
}

/// Who may have the beginning of a part, and up to where to ask each of them.
fn candidates(
    part: &Part,
    cluster: &ClusterState,
    ours: Option<Tag>,
) -> Vec<(Tag, Endpoint, KeyRange)> {
    let shard = cluster.shards.of_key(&part.range.begin);
    let team = shard.into_iter().flat_map(|shard| {
        let range = part.range.intersection(&shard.range);
        shard.teams.team.iter().filter_map(move |tag| Some((*tag, range.clone()?)))
    });
    let told = part.sources.iter().map(|tag| (*tag, part.range.clone()));
    let mut candidates: Vec<(Tag, Endpoint, KeyRange)> = Vec::new();
    for (tag, range) in team.chain(told) {
        let server = cluster.storage_servers.iter().find(|server| server.tag == tag);
        let is_known = candidates.iter().any(|(known, ..)| *known == tag);
        if let Some(server) = server.filter(|_| !is_known && Some(tag) != ours) {
            candidates.push((tag, server.endpoint.clone(), range));
        }
    }
    candidates
}

/// Checks that a page keeps the protocol: rows of the range, in order, none from after the version.
fn check_reply(request: &RangeRead, reply: RangeReply) -> Result<Copied> {
    let too_new = reply.rows.iter().find(|row| row.commit_version > request.read_version);
    if let Some(row) = too_new {
        let detail = format!("row {:?} of {} in {request:?}", row.key, row.commit_version);
        return Err(Error::new(ErrorCode::Protocol, Stage::Apply, detail));
    }
    let range = reply.covered(&request.range, false).ok_or_else(|| {
        let detail = format!("rows without order, or of something else, in {request:?}");
        Error::new(ErrorCode::Protocol, Stage::Apply, detail)
    })?;
    Ok(Copied { range, rows: reply.rows })
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{Key, runtime};

    use super::*;

    fn request() -> RangeRead {
        RangeRead {
            range: KeyRange::new("b", "k"),
            read_version: Version(60),
            rows_max: 100,
            bytes_max: 100,
            reverse: false,
        }
    }

    fn check(rows: &[(&str, u64)], continue_at: Option<&str>) -> Option<KeyRange> {
        let row = |&(key, version): &(&str, u64)| Row {
            key: key.into(),
            value: "v".into(),
            commit_version: Version(version),
        };
        let rows = rows.iter().map(row).collect();
        let reply = RangeReply { rows, continue_at: continue_at.map(Key::from) };
        check_reply(&request(), reply).ok().map(|copied| copied.range)
    }

    #[test]
    fn a_page_says_up_to_where_it_goes() {
        assert_eq!(check(&[("b", 1), ("d", 60)], None), Some(KeyRange::new("b", "k")));
        assert_eq!(check(&[("b", 1), ("d", 60)], Some("e")), Some(KeyRange::new("b", "e")));
        assert_eq!(check(&[], None), Some(KeyRange::new("b", "k")));
        assert_eq!(check(&[], Some("d")), Some(KeyRange::new("b", "d")), "only deleted keys");
    }

    #[test]
    fn a_page_that_makes_no_sense_is_refused() {
        assert_eq!(check(&[], Some("b")), None, "it would never end");
        assert_eq!(check(&[("d", 61)], None), None, "from after the version");
        assert_eq!(check(&[("d", 1), ("c", 1)], None), None, "no order");
        assert_eq!(check(&[("k", 1)], None), None, "of something else");
    }

    /// A server that copies a shard.
    fn joining() -> crate::storage::shards::Shards {
        let mut shards = crate::storage::shards::Shards::new(Tag(0), Version(1));
        let joining = ferrisdb_core::shard::ShardChange {
            range: KeyRange::new("b", "k"),
            role: ferrisdb_core::shard::ShardRole::Joining { sources: vec![Tag(1)] },
        };
        let item = ferrisdb_core::mutation::Item::ShardChange(joining);
        shards.apply(Version(2), vec![item]).unwrap();
        shards
    }

    #[test]
    fn pages_that_are_too_late_get_smaller() {
        let mut fetch = Fetch::new(1 << 20);
        let now = runtime::now();
        let part = joining().parts_to_copy()[0].clone();
        let endpoint = Endpoint::of_process(ferrisdb_core::id::Address::new("s:1"));
        let page = Page { part, source: Tag(1), endpoint, request: request() };
        let error = |code| Error::new(code, Stage::Apply, "");
        fetch.on_failed(now, &page, &error(ErrorCode::Unreachable));
        assert_eq!(fetch.page_bytes, 1 << 20);
        for _ in 0..20 {
            fetch.on_failed(now, &page, &error(ErrorCode::TimedOut));
        }
        assert_eq!(fetch.page_bytes, PAGE_BYTES_MIN);
        for _ in 0..20 {
            fetch.on_page(now, &page, RangeReply { rows: Vec::new(), continue_at: None }).unwrap();
            fetch.on_copied(&page, 10);
        }
        assert_eq!((fetch.page_bytes, fetch.copied_bytes()), (1 << 20, 200));
    }

    #[test]
    fn pages_without_space_come_more_and_more_rarely_and_do_not_count() {
        let mut fetch = Fetch::new(1 << 20);
        let now = runtime::now();
        let part = joining().parts_to_copy()[0].clone();
        let endpoint = Endpoint::of_process(ferrisdb_core::id::Address::new("s:1"));
        let page = Page { part, source: Tag(1), endpoint, request: request() };
        let full = Error::new(ErrorCode::DiskFull, Stage::Apply, "");
        let mut waits = Vec::new();
        for _ in 0..9 {
            fetch.on_page(now, &page, RangeReply { rows: Vec::new(), continue_at: None }).unwrap();
            fetch.on_failed(now, &page, &full);
            waits.push(fetch.not_before.unwrap().duration_since(now).as_millis());
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1_280, 2_000, 2_000]);
        assert_eq!(fetch.copied_bytes(), 0);
    }

    #[test]
    fn a_page_has_its_turn_when_the_logs_have_nothing_or_after_some_peeks() {
        let shards = joining();
        let now = runtime::now();
        let mut fetch = Fetch::new(100);
        // Without a state of the cluster nobody can be asked, but the turn would have come.
        let is_turn = |fetch: &mut Fetch| {
            fetch.next(now, shards.parts_to_copy(), None, Some(Tag(0)), Version(2))
                != Turn::PeekWithin(Duration::ZERO)
        };
        assert!(!is_turn(&mut fetch));
        fetch.on_peeked(true);
        assert!(is_turn(&mut fetch));
        let mut fetch = Fetch::new(100);
        for _ in 0..PEEKS_PER_PAGE {
            assert!(!is_turn(&mut fetch));
            fetch.on_peeked(false);
        }
        assert!(is_turn(&mut fetch));
        assert_eq!(fetch.next(now, vec![], None, None, Version(2)), Turn::Peek);
    }
}
