//! The reads of a transaction: keys, selectors, ranges.
//!
//! ```text
//!   get(key)                 own writes, then the database          observed: the key
//!   get_key(selector)        own writes over the database           from the anchor through the key that was found
//!   get_range(query)         selectors first, if there are any      and then the range, up to the last row returned
//!   keys from \xff\xff on    nobody's data: see `special_keys`      nothing
//! ```
//!
//! A read takes its view of the own writes when it is first polled; writes after that are not in it.

use super::*;
use crate::{options::StreamingMode, special_keys};

/// Reads.
impl Transaction {
    /// Reads a key.
    ///
    /// Keys from `\xff\xff` on say something about the transaction or the cluster, see [`special_keys`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// assert_eq!(transaction.get("k").await?, None);
    /// // Reads that start together travel together.
    /// let (one, two) = futures::try_join!(transaction.get("one"), transaction.get("two"))?;
    /// # assert!(one.is_none() && two.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::AccessedUnreadable`] if the value depends on an own versionstamp; a limit that the key
    /// passes; what became of the read.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        let found = self.read_key(key.into(), Isolation::Serializable).await?;
        Ok(found.map(|found| found.value))
    }

    /// Reads a key, with the version of the commit that wrote it (unless this transaction changed it).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// let committed = transaction.commit().await?;
    /// let found = database.transaction().get_versioned("k").await?;
    /// assert_eq!(found.and_then(|found| found.commit_version), Some(committed.version));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get`].
    pub async fn get_versioned(&self, key: impl Into<Key>) -> Result<Option<VersionedValue>> {
        self.read_key(key.into(), Isolation::Serializable).await
    }

    /// The key that a selector names: the empty key if that would be before the first one, the end of what may be read
    /// (`\xff`, or `\xff\xff` with system keys) if it would be behind the last one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::KeySelector;
    /// transaction.set("event/17", "")?;
    /// let last = transaction.get_key(KeySelector::last_less_than("event0")).await?;
    /// assert_eq!(last, "event/17".into());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get`].
    pub async fn get_key(&self, selector: impl Into<KeySelector>) -> Result<Key> {
        self.read_selector(selector.into(), Isolation::Serializable).await
    }

    /// Reads a range, up to the limits of the query: `transaction.get_range("a".."b")`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::{KeyRange, RangeQuery};
    /// transaction.set("user/7/name", "Ada")?;
    /// let fields = transaction.get_range("user/7/".."user/70").await?;
    /// assert_eq!(fields[0].value, "Ada".into());
    /// let last_two = RangeQuery::from(KeyRange::prefix(b"user/")).reverse().rows(2);
    /// assert_eq!(transaction.get_range(last_two).await?.len(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get`]; [`ErrorCode::InvertedRange`] for plain keys in the wrong order;
    /// [`ErrorCode::RangeLimitsInvalid`] for a limit of no rows; [`ErrorCode::ExactModeWithoutLimits`].
    pub async fn get_range(&self, query: impl Into<RangeQuery>) -> Result<Vec<KeyValue>> {
        Ok(self.read_range(query.into(), Isolation::Serializable).await?.rows)
    }

    /// Reads a range and says whether a limit of the query ended it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::RangeQuery;
    /// for key in ["a", "b", "c"] {
    ///     transaction.set(key, "")?;
    /// }
    /// let page = transaction.get_range_page(RangeQuery::from("a".."z").rows(2)).await?;
    /// assert_eq!((page.rows.len(), page.more), (2, true));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Transaction::get_range`].
    pub async fn get_range_page(&self, query: impl Into<RangeQuery>) -> Result<RangePage> {
        self.read_range(query.into(), Isolation::Serializable).await
    }

    /// Reads a range in pages, as the rows are consumed: for scans that would not fit into memory. How large the pages are
    /// says [`RangeQuery::mode`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use futures::TryStreamExt;
    /// let mut rows = transaction.range_stream("log/".."log0");
    /// while let Some(row) = rows.try_next().await? {
    ///     println!("{} = {}", row.key, row.value);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn range_stream(&self, query: impl Into<RangeQuery>) -> RangeStream {
        RangeStream::new(self.clone(), query.into(), Isolation::Serializable)
    }

    /// About how many bytes of keys and values a range has, without reading them all: the first megabytes are counted, the
    /// rest is estimated by what it takes on disk. Own writes do not count, and nothing is observed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.set("blob", vec![0; 50_000])?;
    /// transaction.commit().await?;
    /// let bytes = database.transaction().estimated_range_size("a".."z").await?;
    /// assert!(bytes >= 50_000);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the range, or what became of the request.
    pub async fn estimated_range_size(&self, range: impl Into<KeyRange>) -> Result<u64> {
        let (range, call, _outstanding) = self.begin_measure(range.into())?;
        let estimated = async {
            let read_version = self.version_to_measure(&call).await?;
            let cluster = self.shared.database.cluster();
            let (mut rest, mut bytes) = (range, 0);
            while !rest.is_empty() {
                let measured = cluster.measure(&rest, read_version, 0, 0).await?;
                bytes += measured.bytes;
                rest.begin = measured.through;
                let (counted, whole) = measured.on_disk;
                // What was written a moment ago is not on disk yet: without that there is no ratio, and counting goes on.
                if counted > 0 && whole > counted {
                    let share = whole as f64 / counted as f64;
                    bytes += (measured.bytes as f64 * (share - 1.0)) as u64;
                    rest.begin = cluster
                        .boundaries(&rest)
                        .await?
                        .into_iter()
                        .nth(1)
                        .unwrap_or(rest.end.clone());
                }
            }
            Ok(bytes)
        };
        within(call.deadline, estimated).await
    }

    /// Keys that divide a range into parts of about so many bytes, the range's own begin and end included; at most
    /// `points_max` in between. The servers count all bytes of the range for that, about a gigabyte in a few seconds. Own
    /// writes do not count, and nothing is observed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// for part in 0..10 {
    ///     transaction.set(format!("part/{part}"), vec![0; 10_000])?;
    /// }
    /// transaction.commit().await?;
    /// // One task for each part of about 30,000 bytes.
    /// let points = database.transaction().range_split_points("part/".."part0", 30_000, None).await?;
    /// assert_eq!((points.first(), points.last()), (Some(&"part/".into()), Some(&"part0".into())));
    /// assert!(points.len() > 3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for chunks of zero bytes; what is wrong with the range, or what became of the request.
    pub async fn range_split_points(
        &self,
        range: impl Into<KeyRange>,
        chunk_bytes: u64,
        points_max: Option<usize>,
    ) -> Result<Vec<Key>> {
        if chunk_bytes == 0 {
            let detail = "chunks of zero bytes";
            return Err(Error::new(ErrorCode::InvalidArgument, Stage::Client, detail));
        }
        let (range, call, _outstanding) = self.begin_measure(range.into())?;
        let points_max = points_max.unwrap_or(usize::MAX);
        let split = async {
            let read_version = self.version_to_measure(&call).await?;
            let cluster = self.shared.database.cluster();
            let (mut points, mut passed) = (Vec::new(), 0);
            let mut rest = range.clone();
            while !rest.is_empty() && points.len() < points_max {
                let measured = cluster.measure(&rest, read_version, chunk_bytes, passed).await?;
                points.extend(measured.split_points);
                passed = measured.has_passed;
                rest.begin = measured.through;
            }
            points.truncate(points_max);
            Ok(points)
        };
        let mut points = within(call.deadline, split).await?;
        points.insert(0, range.begin);
        points.push(range.end);
        Ok(points)
    }

    /// The addresses (`host:port`) of the storage servers that hold a key, for whoever wants to compute near his data.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// transaction.get("k").await?;
    /// assert_eq!(transaction.addresses_for_key("k").await?.len(), 1, "one copy of everything");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the key, or what became of the request.
    pub async fn addresses_for_key(&self, key: impl Into<Key>) -> Result<Vec<String>> {
        let key = key.into();
        let call = {
            let state = self.open()?;
            transaction::check_key(&key, &Key::SYSTEM_END, Stage::Client)?;
            state.call()
        };
        let addresses = within(call.deadline, self.shared.database.cluster().addresses_of(&key));
        Ok(addresses.await?.iter().map(ToString::to_string).collect())
    }
}

/// How they work.
impl Transaction {
    fn begin_measure(&self, range: KeyRange) -> Result<(KeyRange, Call, outstanding::Guard)> {
        let state = self.open()?;
        transaction::check_range(&range, &Key::SYSTEM_END, Stage::Client)?;
        Ok((range, state.call(), state.work.outstanding.begin()))
    }

    pub(super) async fn read_key(
        &self,
        key: Key,
        isolation: Isolation,
    ) -> Result<Option<VersionedValue>> {
        if special_keys::is_special(&key) {
            // Boxed, as it is rare: every other read would carry its size.
            let value = special_keys::get(self, &key).boxed().await?;
            return Ok(value.map(|value| VersionedValue { value, commit_version: None }));
        }
        let (call, lookup, _outstanding) = {
            let state = self.open()?;
            state.options.check_readable(&key)?;
            let lookup = state.overlay(isolation).lookup(&key)?;
            (state.call(), lookup, state.work.outstanding.begin())
        };
        let operations = match lookup {
            Lookup::Known(value) => {
                return Ok(value.map(|value| VersionedValue { value, commit_version: None }));
            }
            Lookup::Database(operations) => operations,
        };
        // In a box without a type, as all that asks the network: or the types of futures nest so deep that a program with a
        // few functions around its reads reaches the compiler's limits, of layouts and of what may move between threads.
        let found = within(call.deadline, self.fetch_key(&call, &key)).boxed().await?;
        let mut state = self.still_open(&call)?;
        if isolation == Isolation::Serializable {
            state.work.read_conflicts.insert(&KeyRange::single(&key));
        }
        if operations.is_empty() {
            return Ok(found);
        }
        let value = Lookup::Database(operations).resolve(found.as_ref().map(|found| &found.value));
        Ok(value.map(|value| VersionedValue { value, commit_version: None }))
    }

    pub(super) async fn read_selector(
        &self,
        selector: KeySelector,
        isolation: Isolation,
    ) -> Result<Key> {
        let (call, overlay, read_end, _outstanding) = {
            let state = self.open()?;
            let read_end = state.options.read_end();
            check_selector(&selector, &read_end)?;
            (state.call(), state.overlay(isolation), read_end, state.work.outstanding.begin())
        };
        let resolved = self.resolve(&call, &overlay, &selector, &read_end);
        let (key, observed) = within(call.deadline, resolved).boxed().await?;
        self.observe(&call, isolation, &observed)?;
        Ok(key)
    }

    pub(crate) async fn read_range(
        &self,
        query: RangeQuery,
        isolation: Isolation,
    ) -> Result<RangePage> {
        if special_keys::is_special(&query.begin.key) {
            return special_keys::get_range(self, &query).boxed().await;
        }
        let (call, overlay, read_end, _outstanding) = {
            let state = self.open()?;
            let read_end = state.options.read_end();
            // The keys count as they were given: what is behind the last legal one stands for the end of what may be read.
            check_selector(&query.begin, &read_end)?;
            check_selector(&query.end, &read_end)?;
            if planted(Plant::SelectorAtEndRefused)
                && let Some(range) = query.plain_range()
            {
                transaction::check_range(&range, &read_end, Stage::Client)?;
            }
            if let Some(range) = query.plain_range().filter(|range| range.begin > range.end) {
                return Err(Error::new(ErrorCode::InvertedRange, Stage::Client, range.to_string()));
            }
            check_limits(&query)?;
            (state.call(), state.overlay(isolation), read_end, state.work.outstanding.begin())
        };
        let read = async {
            let begin = self.bound(&call, &overlay, &query.begin, &read_end);
            let end = self.bound(&call, &overlay, &query.end, &read_end);
            let ((begin, mut observed), (end, of_end)) = futures::try_join!(begin, end)?;
            observed.extend(&of_end);
            if begin >= end {
                return Ok((RangePage { rows: Vec::new(), more: false }, observed));
            }
            let scan = Scan {
                range: KeyRange { begin, end },
                rows_max: query.rows_max,
                bytes_max: query.bytes_max,
                reverse: query.reverse,
            };
            let (page, of_rows) = self.scan(&call, &overlay, scan).await?;
            observed.extend(&of_rows);
            Ok((page, observed))
        };
        let (page, observed) = within(call.deadline, read).boxed().await?;
        self.observe(&call, isolation, &observed)?;
        Ok(page)
    }

    /// A read has ended: a later write to what it saw is a conflict (I-15).
    fn observe(&self, call: &Call, isolation: Isolation, observed: &RangeSet) -> Result<()> {
        let mut state = self.still_open(call)?;
        if isolation == Isolation::Serializable {
            state.work.read_conflicts.extend(observed);
        }
        Ok(())
    }

    /// Where a range begins or ends, with what had to be looked at to know it.
    async fn bound(
        &self,
        call: &Call,
        overlay: &Arc<Overlay>,
        selector: &KeySelector,
        read_end: &Key,
    ) -> Result<(Key, RangeSet)> {
        match selector.as_bound() {
            Some(key) => Ok((key.min(read_end.clone()), RangeSet::default())),
            None => self.resolve(call, overlay, selector, read_end).boxed().await,
        }
    }

    /// The key that a selector names, with what had to be looked at.
    async fn resolve(
        &self,
        call: &Call,
        overlay: &Arc<Overlay>,
        selector: &KeySelector,
        read_end: &Key,
    ) -> Result<(Key, RangeSet)> {
        let anchor = selector.anchor().min(read_end.clone());
        let (reverse, steps) = selector.steps();
        let (range, beyond) = match reverse {
            true => (KeyRange { begin: Key::MIN, end: anchor }, Key::MIN),
            false => (KeyRange { begin: anchor, end: read_end.clone() }, read_end.clone()),
        };
        // Only the last row counts: they are read in parts, or a far selector would fill the memory.
        const ROWS_AT_ONCE: usize = 1_000;
        let (mut rest, mut observed, mut left) = (range, RangeSet::default(), steps);
        loop {
            let rows_max = Some(left.min(ROWS_AT_ONCE));
            let scan = Scan { range: rest.clone(), rows_max, bytes_max: None, reverse };
            let (page, of_rows) = self.scan(call, overlay, scan).await?;
            observed.extend(&of_rows);
            left -= page.rows.len();
            match page.rows.into_iter().next_back() {
                Some(last) if left == 0 => {
                    if planted(Plant::SelectorConflictTooSmall) {
                        observed = RangeSet::default();
                        observed.insert(&KeyRange::single(&last.key));
                    }
                    return Ok((last.key, observed));
                }
                Some(last) if page.more && reverse => rest.end = last.key,
                Some(last) if page.more => rest.begin = last.key.successor(),
                _ => return Ok((beyond, observed)),
            }
        }
    }

    async fn scan(
        &self,
        call: &Call,
        overlay: &Arc<Overlay>,
        scan: Scan,
    ) -> Result<(RangePage, RangeSet)> {
        let mut read = RangeRead::new(Arc::clone(overlay), scan);
        while let Some(fetch) = read.next()? {
            let read_version = self.version_for(call).await?;
            let part = self.shared.database.cluster().get_range(&fetch, read_version).await?;
            read.supply(part.covered, part.rows)?;
        }
        Ok(read.finish())
    }
}

impl State {
    /// The own writes, as a read sees them that begins now.
    fn overlay(&self, isolation: Isolation) -> Arc<Overlay> {
        self.work.has_read.set(true);
        let hides_writes =
            isolation == Isolation::Snapshot && self.options.snapshot_read_your_writes < 0;
        if hides_writes || !self.options.read_your_writes {
            return Arc::default();
        }
        if !self.options.bypass_unreadable {
            return Arc::clone(&self.work.overlay);
        }
        let mut overlay = Overlay::default();
        for mutation in &self.work.mutations {
            overlay.apply(&mutation.without_stamp());
        }
        Arc::new(overlay)
    }
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
