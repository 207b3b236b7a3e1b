//! Which records of idempotency ids can go: those that are older than any client's question for them.
//!
//! A client clears its own records. What a client leaves behind that ends before that is found here, with a lifetime
//! of ten minutes:
//!
//! ```text
//!   10:00   checkpoint: version 500 is committed
//!   10:01   checkpoint: version 900
//!           ...
//!   10:10   the checkpoint of 10:00 is a lifetime old: a record that was written at 500 or before is, too
//!             7f..  written at 340     cleared
//!             a0..  written at 870     stays
//! ```
//!
//! Versions only tell what was before a checkpoint and what after; how long ago that was, our own clock tells. A
//! recovery moves versions far ahead in no time, and so says nothing about time. A dozen checkpoints are all that has
//! to be remembered, however many records there are. A new leader has none, and begins anew.
//!
//! The commit that clears records also marks up to where that was done (see [`ferrisdb_core::idempotency`]), so a client
//! that comes too late knows that it is too late (I-6).
//!
//! Start with [`Sweeper::on_read_version`], then [`Sweeper::on_page`].

use std::{collections::VecDeque, time::Duration};

use ferrisdb_core::simulation::{Mark, mark};
use ferrisdb_core::{
    Key, KeyRange, Mutation, Version, idempotency, runtime::Instant, service::storage::Row,
    transaction::CommitRequest,
};

/// Into how many parts the lifetime is divided by passes, so that records live that part longer at most.
const PASSES_PER_LIFETIME: u32 = 10;

/// Goes through all records again and again, page by page, and says what to clear.
#[derive(Debug)]
pub struct Sweeper {
    lifetime: Duration,
    /// Oldest first. Only the first one may be older than a lifetime.
    checkpoints: VecDeque<Checkpoint>,
    /// Where the next page begins.
    next: Key,
}

/// A version and when it was known to be committed.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    version: Version,
    at: Instant,
}

/// What to read at a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys, or a beginning of them.
    pub range: KeyRange,
    /// The version.
    pub read_version: Version,
    /// Records that were written up to here can go.
    swept_version: Version,
}

/// What a page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What clears the records that can go, if there are any.
    pub clearing: Option<CommitRequest>,
    /// Whether it was the last page of a pass: the next one has time.
    pub is_last: bool,
}

impl Sweeper {
    /// Has seen nothing yet.
    pub fn new(lifetime: Duration) -> Sweeper {
        let next = idempotency::records().begin;
        Sweeper { lifetime, checkpoints: VecDeque::new(), next }
    }

    /// How long to rest between passes.
    pub fn pause(&self) -> Duration {
        self.lifetime / PASSES_PER_LIFETIME
    }

    /// A read version has come. Says what to read at it; `None` if nothing can be old enough.
    pub fn on_read_version(&mut self, read_version: Version, now: Instant) -> Option<Page> {
        let is_past = |checkpoint: &Checkpoint, age: Duration| {
            now.saturating_duration_since(checkpoint.at) >= age
        };
        if self.checkpoints.back().is_none_or(|last| is_past(last, self.pause())) {
            self.checkpoints.push_back(Checkpoint { version: read_version, at: now });
        }
        while self.checkpoints.get(1).is_some_and(|second| is_past(second, self.lifetime)) {
            self.checkpoints.pop_front();
        }
        let oldest = self.checkpoints.front().filter(|first| is_past(first, self.lifetime))?;
        let range = KeyRange { begin: self.next.clone(), end: idempotency::records().end };
        Some(Page { range, read_version, swept_version: oldest.version })
    }

    /// A page was read: all rows of `covered`, a beginning of the page's range.
    pub fn on_page(&mut self, page: &Page, covered: &KeyRange, rows: &[Row]) -> Verdict {
        let is_last = covered.end >= page.range.end;
        self.next = if is_last { idempotency::records().begin } else { covered.end.clone() };
        let old: Vec<&Key> = rows
            .iter()
            .filter(|row| row.commit_version <= page.swept_version)
            .map(|row| &row.key)
            .collect();
        if old.is_empty() {
            return Verdict { clearing: None, is_last };
        }
        mark(Mark::RecordsSwept);
        let clears = old.iter().map(|&key| Mutation::Clear { key: key.clone() });
        let clearing = CommitRequest {
            read_version: page.read_version,
            // What was written again meanwhile is not what was read. Attempts of one transaction do not do that, but
            // ids can also be given by hand.
            read_conflicts: old.iter().map(|&key| KeyRange::single(key)).collect(),
            mutations: clears.chain([idempotency::mark_swept(page.swept_version)]).collect(),
            may_write_system_keys: true,
            ..CommitRequest::default()
        };
        Verdict { clearing: Some(clearing), is_last }
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{Stage, runtime};

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn record(id: u128, commit_version: u64) -> Row {
        Row {
            key: idempotency::record_key(id),
            value: "stamp".into(),
            commit_version: Version(commit_version),
        }
    }

    fn cleared(verdict: &Verdict) -> Vec<Key> {
        let mutations = verdict.clearing.iter().flat_map(|request| &request.mutations);
        let key = |mutation: &Mutation| match mutation {
            Mutation::Clear { key } => Some(key.clone()),
            _ => None,
        };
        mutations.filter_map(key).collect()
    }

    #[test]
    fn what_is_older_than_a_checkpoint_of_a_lifetime_ago_goes() {
        let (mut sweeper, start) = (Sweeper::new(LIFETIME), runtime::now());
        for minute in 0..10 {
            // A recovery in between: versions jump, time does not.
            let version = Version(if minute < 5 { 500 } else { 100_000_000 } + u64::from(minute));
            assert_eq!(sweeper.on_read_version(version, start + MINUTE * minute), None);
        }
        let page = sweeper.on_read_version(Version(200_000_000), start + LIFETIME).unwrap();
        assert_eq!(page.range, idempotency::records());
        let rows = [record(1, 340), record(2, 501), record(3, 500), record(4, 150_000_000)];
        let verdict = sweeper.on_page(&page, &page.range, &rows);
        assert_eq!(cleared(&verdict), [rows[0].key.clone(), rows[2].key.clone()]);
        assert!(verdict.is_last);
        let request = verdict.clearing.unwrap();
        assert_eq!(request.mutations.last(), Some(&idempotency::mark_swept(Version(500))));
        assert_eq!((request.read_conflicts.len(), request.read_version), (2, page.read_version));
        request.check(Stage::Control).unwrap();

        // A minute later, so is what was there a minute later.
        let page = sweeper.on_read_version(Version(200_000_001), start + MINUTE * 11).unwrap();
        let verdict = sweeper.on_page(&page, &page.range, &rows[1..2]);
        assert_eq!(cleared(&verdict), [rows[1].key.clone()]);
    }

    #[test]
    fn a_long_silence_makes_nothing_older_than_it_is_known_to_be() {
        let (mut sweeper, start) = (Sweeper::new(LIFETIME), runtime::now());
        assert_eq!(sweeper.on_read_version(Version(10), start), None);
        // No proxy has answered for an hour.
        let page = sweeper.on_read_version(Version(90), start + MINUTE * 60).unwrap();
        let verdict = sweeper.on_page(&page, &page.range, &[record(1, 10), record(2, 11)]);
        assert_eq!(cleared(&verdict), [idempotency::record_key(1)]);
    }

    #[test]
    fn a_pass_goes_on_where_the_last_page_ended() {
        let (mut sweeper, start) = (Sweeper::new(LIFETIME), runtime::now());
        sweeper.on_read_version(Version(10), start);
        let later = start + LIFETIME;
        let page = sweeper.on_read_version(Version(20), later).unwrap();
        let covered = KeyRange { begin: page.range.begin.clone(), end: idempotency::record_key(7) };
        let verdict = sweeper.on_page(&page, &covered, &[]);
        assert_eq!(verdict, Verdict { clearing: None, is_last: false });
        // Also if the page could not be read at first.
        for _ in 0..2 {
            let page = sweeper.on_read_version(Version(30), later).unwrap();
            assert_eq!(page.range.begin, covered.end);
        }
        let page = sweeper.on_read_version(Version(40), later).unwrap();
        assert!(sweeper.on_page(&page, &page.range, &[]).is_last);
        let page = sweeper.on_read_version(Version(50), later).unwrap();
        assert_eq!(page.range, idempotency::records());
    }

    #[test]
    fn few_checkpoints_are_remembered_however_many_pages_are_read() {
        let (mut sweeper, start) = (Sweeper::new(LIFETIME), runtime::now());
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            let page = sweeper.on_read_version(Version(second), now);
            let swept = page.map(|page| page.swept_version.0);
            // At least a lifetime old, and less than a pass more.
            let expected = second.checked_sub(600).map(|oldest| oldest / 60 * 60);
            assert_eq!(swept, expected, "after {second} seconds");
            assert!(sweeper.checkpoints.len() <= 12);
        }
    }
}
