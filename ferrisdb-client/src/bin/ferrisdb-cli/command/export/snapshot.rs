//! A range at one version, read shard by shard, several shards ahead.

use std::collections::VecDeque;

use ferrisdb_client::{Database, Error, ErrorCode, KeyRange, KeyValue, RangeQuery, Stage, Version};
use ferrisdb_core::runtime::{self, Task};
use tokio::sync::mpsc;

/// Shards that are read at once.
const READERS_MAX: usize = 4;
/// Pages that a reader may have ready; with [`PAGE_BYTES`] and [`READERS_MAX`] the bound on memory (32 MiB).
const PAGES_AHEAD: usize = 8;
const PAGE_BYTES: usize = 1024 * 1024;

type Page = Result<Vec<KeyValue>, Error>;

/// A range as it was at one version, in pages, in key order.
pub(super) struct Snapshot {
    database: Database,
    version: Version,
    /// Parts that nobody reads yet, in key order.
    parts: VecDeque<KeyRange>,
    /// Parts that are being read; pages are taken from the first.
    readers: VecDeque<Reader>,
}

/// Reads one part, as far ahead as its channel holds. Ends with its owner.
struct Reader {
    pages: mpsc::Receiver<Page>,
    _task: Task,
}

impl Snapshot {
    /// Fixes the version. Nothing of the range is read yet.
    pub(super) async fn take(database: &Database, range: KeyRange) -> Result<Snapshot, Error> {
        if range.begin > range.end {
            let detail = format!("from {:?} to {:?}", range.begin, range.end);
            return Err(Error::new(ErrorCode::InvertedRange, Stage::Client, detail));
        }
        // Before the version, which ages: asking for the shards takes its time.
        let parts = parts_of(database, &range).await;
        let version = database
            .run_transaction(|transaction| async move { transaction.read_version().await })
            .await?;
        Ok(Snapshot { database: database.clone(), version, parts, readers: VecDeque::new() })
    }

    /// The version that everything is read at.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The next rows in key order; `None` after the last.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        loop {
            while self.readers.len() < READERS_MAX
                && let Some(part) = self.parts.pop_front()
            {
                self.readers.push_back(Reader::start(self.database.clone(), self.version, part));
            }
            let Some(first) = self.readers.front_mut() else { return Ok(None) };
            match first.pages.recv().await {
                Some(page) => return page.map(Some),
                None => self.readers.pop_front(),
            };
        }
    }
}

/// The range, cut where shards meet. The cuts only say what can be read side by side: stale ones, or none when
/// the status is not to be had, give the same rows.
async fn parts_of(database: &Database, range: &KeyRange) -> VecDeque<KeyRange> {
    if range.is_empty() {
        return VecDeque::new();
    }
    match database.status().await {
        Ok(status) => cut(range, status.cluster.shards.shards().iter().map(|shard| &shard.range)),
        Err(_) => VecDeque::from([range.clone()]),
    }
}

/// Cuts `range` at the begins of `shards`, which are in key order. Whatever the shards are, the parts are the
/// whole range without gaps.
fn cut<'a>(range: &KeyRange, shards: impl Iterator<Item = &'a KeyRange>) -> VecDeque<KeyRange> {
    let mut parts = VecDeque::new();
    let mut rest = range.clone();
    for shard in shards {
        if rest.begin < shard.begin && shard.begin < rest.end {
            parts.push_back(KeyRange::new(&rest.begin, &shard.begin));
            rest.begin = shard.begin.clone();
        }
    }
    parts.push_back(rest);
    parts
}

impl Reader {
    fn start(database: Database, version: Version, part: KeyRange) -> Reader {
        let (sender, pages) = mpsc::channel(PAGES_AHEAD);
        Reader { pages, _task: runtime::spawn(read(database, version, part, sender)) }
    }
}

/// Reads a part page by page. The channel closes after the last page, or after an error.
async fn read(database: Database, version: Version, mut part: KeyRange, pages: mpsc::Sender<Page>) {
    let transaction = database.transaction();
    if let Err(error) = transaction.set_read_version(version) {
        // Nobody listens only if the export has ended.
        let _ = pages.send(Err(error)).await;
        return;
    }
    loop {
        let query = RangeQuery::from(&part).bytes(PAGE_BYTES);
        let page = transaction.snapshot().get_range_page(query).await;
        let next = match &page {
            Ok(page) if page.more => page.rows.last().map(|last| last.key.successor()),
            _ => None,
        };
        let sent = pages.send(page.map(|page| page.rows)).await;
        match (next, sent) {
            (Some(next), Ok(())) => part.begin = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cuts_are_where_shards_meet() {
        let shards =
            [KeyRange::new("", "g"), KeyRange::new("g", "p"), KeyRange::new("p", "\u{7f}")];
        let parts = cut(&KeyRange::new("c", "q"), shards.iter());
        let expected = [KeyRange::new("c", "g"), KeyRange::new("g", "p"), KeyRange::new("p", "q")];
        assert_eq!(parts, expected);
        assert_eq!(cut(&KeyRange::new("g", "h"), shards.iter()), [KeyRange::new("g", "h")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn parts_are_the_range_without_gaps(
            begin in "[a-e]{0,2}", length in "[a-e]{1,2}", shards in prop::collection::vec("[a-e]{0,3}", 0..6),
        ) {
            let range = KeyRange::new(begin.clone(), format!("{begin}{length}"));
            let shards: Vec<KeyRange> = shards.into_iter().map(|begin| KeyRange::new(begin, "z")).collect();
            let parts = cut(&range, shards.iter());
            prop_assert_eq!(&parts[0].begin, &range.begin);
            prop_assert_eq!(&parts[parts.len() - 1].end, &range.end);
            for (one, next) in parts.iter().zip(parts.iter().skip(1)) {
                prop_assert_eq!(&one.end, &next.begin);
                prop_assert!(!one.is_empty() && !next.is_empty());
            }
        }
    }
}
