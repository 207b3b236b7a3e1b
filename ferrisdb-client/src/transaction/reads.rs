//! The reads of a transaction: keys, selectors, ranges.
//!
//! ```text
//!   get(key)                 own writes, then the database          observed: the key
//!   get_key(selector)        own writes over the database           from the anchor through the key that was found
//!   get_range(query)         see `ranges.rs`
//!   keys from \xff\xff on    nobody's data: see `special_keys`      nothing
//! ```
//!
//! A read takes its view of the own writes when it is first polled; writes after that are not in it.

use super::*;
use crate::special_keys;

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

    /// About how many bytes of keys and values a range has, without reading them all: some megabytes are counted, more than
    /// that is estimated by a sample that servers keep of their rows (of ten megabytes within a sixth or so). What was
    /// written in the last seconds may be missing from an estimate. Own writes do not count, and nothing is observed.
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
        let (range, call) = self.begin_measure(range.into())?;
        let estimated = async {
            let read_version = self.version_to_measure(&call).await?;
            let cluster = self.shared.database.cluster();
            let (mut rest, mut bytes) = (range, 0);
            while !rest.is_empty() {
                let measured = cluster.measure(&rest, read_version, 0, 0).await?;
                bytes += measured.bytes;
                rest.begin = measured.through;
            }
            Ok(bytes)
        };
        call.timer.within(estimated.boxed()).await
    }

    /// Keys that divide a range into parts of about so many bytes, the range's own begin and end included; at most
    /// `points_max` in between. Parts of a megabyte and more are cut by the servers' sample of their rows, without reading
    /// them; for smaller ones all bytes are counted, about a gigabyte in a few seconds. Own writes do not count, and
    /// nothing is observed.
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
        let (range, call) = self.begin_measure(range.into())?;
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
        let mut points = call.timer.within(split.boxed()).await?;
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
        let read = {
            let state = self.open()?;
            transaction::check_key(&key, &Key::SYSTEM_END, Stage::Client)?;
            let (database, call) = (self.shared.database.clone(), state.call());
            state.work.outstanding.begin(Failure::FailsCommit, async move {
                let addresses = call.timer.within(database.cluster().addresses_of(&key)).await?;
                Ok(addresses.iter().map(ToString::to_string).collect())
            })
        };
        read.await
    }
}

/// How they work.
impl Transaction {
    fn begin_measure(&self, range: KeyRange) -> Result<(KeyRange, Call)> {
        let state = self.open()?;
        transaction::check_range(&range, &Key::SYSTEM_END, Stage::Client)?;
        Ok((range, state.call()))
    }

    pub(super) async fn read_key(
        &self,
        key: Key,
        isolation: Isolation,
    ) -> Result<Option<VersionedValue>> {
        if special_keys::is_special(&key) {
            // Boxed, as it is rare: every other read would carry its size.
            let timer = Arc::clone(&self.shared.state.lock().timer);
            let value = timer.within(special_keys::get(self, &key)).boxed().await?;
            return Ok(value.map(|value| VersionedValue { value, commit_version: None }));
        }
        let read = {
            let state = self.open()?;
            state.options.check_readable(&key)?;
            let operations = match state.look_up(&key, isolation)? {
                Lookup::Known(value) => {
                    return Ok(value.map(|value| VersionedValue { value, commit_version: None }));
                }
                Lookup::Database(operations) => operations,
            };
            let (itself, call) = (self.clone(), state.call());
            state.work.outstanding.begin(Failure::FailsCommit, async move {
                let found = call.timer.within(itself.fetch_key(&call, &key)).await?;
                let mut state = itself.still_reading(&call)?;
                if isolation == Isolation::Serializable {
                    state.work.read_conflicts.insert(&KeyRange::single(&key));
                }
                if operations.is_empty() {
                    return Ok(found);
                }
                let found = found.as_ref().map(|found| &found.value);
                let value = Lookup::Database(operations).resolve(found);
                Ok(value.map(|value| VersionedValue { value, commit_version: None }))
            })
        };
        read.await
    }

    pub(super) async fn fetch_key(&self, call: &Call, key: &Key) -> Result<Option<VersionedValue>> {
        let read_version = self.version_for(call).await?;
        self.fetch_key_at(read_version, key).await
    }

    pub(super) async fn fetch_key_at(
        &self,
        read_version: Version,
        key: &Key,
    ) -> Result<Option<VersionedValue>> {
        let found = self.shared.database.cluster().get(key, read_version).await?;
        Ok(found.map(|found| VersionedValue {
            value: found.value,
            commit_version: Some(found.commit_version),
        }))
    }
}

impl State {
    /// What own writes say of a key that is read now.
    pub(super) fn look_up(&self, key: &Key, isolation: Isolation) -> Result<Lookup> {
        let found = self.overlay(isolation).lookup(key);
        found.inspect_err(|error| self.work.outstanding.note_failed(error))
    }

    /// The own writes, as a read sees them that begins now.
    pub(super) fn overlay(&self, isolation: Isolation) -> Arc<Overlay> {
        self.work.has_read.set(true);
        let hides_writes =
            isolation == Isolation::Snapshot && self.options.snapshot_read_your_writes < 0;
        if hides_writes || !self.options.read_your_writes {
            return Arc::default();
        }
        if !self.options.bypass_unreadable {
            return Arc::clone(&self.work.overlay);
        }
        let (mut overlay, before) = (Overlay::default(), self.work.earliest_stamp());
        for mutation in self.work.writes.mutations() {
            overlay.apply(&mutation.without_stamp(), before);
        }
        Arc::new(overlay)
    }
}
