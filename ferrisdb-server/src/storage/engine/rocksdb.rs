//! The engine of production: RocksDB, one value per key.
//!
//! ```text
//!   column family   key                 value
//!   default         'a'                 00 00 00 00 00 00 00 1e 'v'     commit version 30, then the value
//!   meta            'format'            00 00 00 01                     the format of all this
//!   meta            'durable_version'   00 00 00 00 00 00 00 2a         the engine is the state at 42
//!   meta            'attachment'        any bytes, if there is one
//!   meta            'sampled'           nothing: the sample is complete
//!   sample          'a'                 nothing: the key is in the sample by which sizes are estimated
//! ```
//!
//! A write is one batch of RocksDB over both column families, synced: data, version and attachment change
//! together or not at all (I-9). Versions never go back but by a reset, so a restart finds at least what logs
//! were told to forget (I-11). An ingest is synced, too, although it need not be: so the log of RocksDB can be torn at
//! its end only, and damage anywhere else is noticed.
//!
//! A reset is one batch as well: a range clear of all keys there are. What that leaves in files is removed afterwards.
//!
//! # Deleted keys
//!
//! A deleted key stays in RocksDB, as a *tombstone*, until a compaction meets it. A cursor passes a bounded number of them
//! in one step (see `cursor`). They go early: a file of which a part is mostly tombstones is compacted for that reason
//! alone, and a cursor that had to pass many of them has the table in memory written out, so that they come to lie in a
//! file.
//!
//! Knows nothing of windows, logs or shards. Start with [`RocksEngine::open`].
//!
//! # Caveats
//!
//! - Keys that a range clear has removed while they were in the table in memory do not count in a cursor's step until that
//!   table is written out; they are at most as many as fit into it.
//! - Many small range clears slow down reads that pass them until a compaction removes them; after some thousand of them
//!   the table in memory is written out.

mod cursor;
mod sample;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Value, Version,
    runtime::{self, Instant, disk},
    service::storage::{Row, VersionedValue},
};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    ErrorKind, FlushOptions, Options, WriteBatch, WriteOptions,
};

use self::{
    cursor::{EmptyCursor, RocksCursor},
    sample::{Sample, SampleChanges, is_sampled},
};
use super::{Cursor, Engine, EngineBatch, EngineChange, EngineUsage, Reserve};

/// The format that this release reads and writes; see the essay.
const FORMAT: u32 = 1;

const META: &str = "meta";
const SAMPLE: &str = "sample";
const FORMAT_KEY: &[u8] = b"format";
const VERSION_KEY: &[u8] = b"durable_version";
const ATTACHMENT_KEY: &[u8] = b"attachment";
const SAMPLED_KEY: &[u8] = b"sampled";
/// A sample that is missing is made in batches of so many keys.
const SAMPLE_BATCH_KEYS: usize = 10_000;
/// How much of a memtable its Bloom filter takes: ten bits for each entry of a hundred and some bytes are one percent, and the bits
/// of a key lie in one cache line, which wants some more.
const MEMTABLE_BLOOM_SHARE: f64 = 0.05;
/// A file is compacted for its tombstones if of so many entries in a row ...
const TOMBSTONE_WINDOW: usize = 4_096;
/// ... so many are tombstones.
const TOMBSTONES_IN_WINDOW: usize = 2_048;
/// The table in memory is written out when it has so many range clears.
const RANGE_CLEARS_IN_MEMORY: &str = "2000";
/// How long after the table in memory was written out for its tombstones it is done again, at the earliest.
const TOMBSTONE_FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// So many tables of the youngest level are half of those at which RocksDB slows down writes.
const TABLES_BEFORE_STALL: u64 = 10;
/// How much space is left to RocksDB for merging its files, and to everybody else; at most a sixteenth of the disk.
const RESERVE_BYTES: u64 = 256 << 20;
/// How many bytes of a stored value are its commit version.
const STAMP_BYTES: usize = 8;

/// How much of the machine RocksDB may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksSettings {
    /// Memory for blocks read from disk, their indexes and filters included.
    pub cache_bytes: usize,
    /// Size at which a table in memory is written out. Up to three exist at once.
    pub memtable_bytes: usize,
    /// Most files open at once.
    pub open_files_max: i32,
    /// Threads that write out tables and merge them.
    pub background_jobs: i32,
    /// Most tombstones that a cursor passes in one step.
    pub tombstones_at_once: u32,
}

impl Default for RocksSettings {
    fn default() -> RocksSettings {
        RocksSettings {
            cache_bytes: 256 << 20,
            memtable_bytes: 64 << 20,
            open_files_max: 1_000,
            background_jobs: 2,
            tombstones_at_once: 512,
        }
    }
}

/// Sizes, as RocksDB estimates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatistics {
    /// Bytes of data on disk that are not superseded.
    pub live_bytes: u64,
    /// Bytes of tables in memory.
    pub memtable_bytes: u64,
    /// Keys.
    pub keys_count: u64,
}

/// An engine in a directory of its own.
#[derive(Debug)]
pub struct RocksEngine {
    db: DB,
    path: PathBuf,
    version: AtomicU64,
    /// One write at a time: versions are checked against the one before.
    writing: Mutex<()>,
    sample: Sample,
    tombstones_at_once: u32,
    /// When the table in memory was written out for its tombstones.
    tombstones_flushed: Mutex<Option<Instant>>,
    /// The disk has refused a write. RocksDB tries once or a few times to go on by itself, and after that never again.
    is_stuck: AtomicBool,
}

impl RocksEngine {
    /// Opens the engine in `path`, and makes one at version zero if the directory is empty.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::WrongDirectory`] if `path` holds something else, or a format of another release.
    /// - [`ErrorCode::Corrupt`] if the data is damaged; [`ErrorCode::Disk`] if the disk refuses.
    pub fn open(path: &Path, settings: RocksSettings) -> Result<RocksEngine> {
        let options = database_options(settings);
        let exists = path.join("CURRENT").exists();
        if exists {
            let families = DB::list_cf(&options, path).map_err(|error| open_error(path, &error))?;
            let ours = [rocksdb::DEFAULT_COLUMN_FAMILY_NAME, META, SAMPLE];
            if let Some(foreign) = families.iter().find(|name| !ours.contains(&name.as_str())) {
                return Err(wrong_directory(path, format!("has a column family {foreign:?}")));
            }
        }
        let families = [
            ColumnFamilyDescriptor::new(
                rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
                data_options(settings),
            ),
            ColumnFamilyDescriptor::new(META, Options::default()),
            ColumnFamilyDescriptor::new(SAMPLE, Options::default()),
        ];
        let db = DB::open_cf_descriptors(&options, path, families)
            .map_err(|error| open_error(path, &error))?;
        // Nothing depends on it, so a release of RocksDB that does not know it is as good.
        let _ = db.set_options(&[("memtable_max_range_deletions", RANGE_CLEARS_IN_MEMORY)]);
        let mut engine = RocksEngine {
            db,
            path: path.to_owned(),
            version: AtomicU64::new(0),
            writing: Mutex::new(()),
            sample: Sample::default(),
            tombstones_at_once: settings.tombstones_at_once,
            tombstones_flushed: Mutex::default(),
            is_stuck: AtomicBool::new(false),
        };
        let version = match engine.meta(FORMAT_KEY)? {
            Some(format) => {
                check_format(path, &format)?;
                engine.read_version()?
            }
            // A crash may have left a first opening half done, so what counts is that there is no data.
            None if engine.is_blank()? => {
                engine.initialize()?;
                Version::ZERO
            }
            None => return Err(wrong_directory(path, "is a RocksDB database of something else")),
        };
        engine.version.store(version.0, Ordering::Release);
        engine.sample = engine.read_sample()?;
        Ok(engine)
    }

    /// Sizes for status.
    ///
    /// # Errors
    ///
    /// If RocksDB cannot tell.
    pub fn statistics(&self) -> Result<EngineStatistics> {
        let property = |name: &str| {
            let size = self.db.property_int_value(name).map_err(|error| engine_error(&error))?;
            Ok::<u64, ferrisdb_core::Error>(size.unwrap_or_default())
        };
        Ok(EngineStatistics {
            live_bytes: property("rocksdb.estimate-live-data-size")?,
            memtable_bytes: property("rocksdb.size-all-mem-tables")?,
            keys_count: property("rocksdb.estimate-num-keys")?,
        })
    }

    fn meta_family(&self) -> &rocksdb::ColumnFamily {
        self.db.cf_handle(META).expect("open names the column family, and nobody drops it")
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db.get_cf(self.meta_family(), key).map_err(|error| engine_error(&error))
    }

    fn sample_family(&self) -> &rocksdb::ColumnFamily {
        self.db.cf_handle(SAMPLE).expect("open names the column family, and nobody drops it")
    }

    /// The sample that is on disk; makes it if the data is of a release that had none.
    fn read_sample(&self) -> Result<Sample> {
        if self.meta(SAMPLED_KEY)?.is_none() {
            tracing::info!("the rows are read once, to take a sample of their sizes");
            let mut batch = WriteBatch::default();
            let mut rows = self.db.raw_iterator();
            rows.seek_to_first();
            while let Some((key, stored)) = rows.item() {
                if is_sampled(key, key.len() + stored.len().saturating_sub(STAMP_BYTES)) {
                    batch.put_cf(self.sample_family(), key, b"");
                }
                if batch.len() >= SAMPLE_BATCH_KEYS {
                    self.write_synced(std::mem::take(&mut batch))?;
                }
                rows.next();
            }
            rows.status().map_err(|error| engine_error(&error))?;
            batch.put_cf(self.meta_family(), SAMPLED_KEY, b"");
            self.write_synced(batch)?;
        }
        let mut iterator = self.db.raw_iterator_cf(self.sample_family());
        iterator.seek_to_first();
        let mut keys = Vec::new();
        while let Some(key) = iterator.key() {
            keys.push(Key::copy_from(key));
            iterator.next();
        }
        iterator.status().map_err(|error| engine_error(&error))?;
        Ok(Sample::of(keys.into_iter()))
    }

    /// A batch with these changes, the sample's included.
    fn encode(&self, changes: &[EngineChange]) -> (WriteBatch, SampleChanges) {
        let mut batch = encode_changes(changes);
        let sample_changes = self.sample.add_changes(changes, &mut batch, &self.sample_family());
        (batch, sample_changes)
    }

    fn read_version(&self) -> Result<Version> {
        let bytes = self.meta(VERSION_KEY)?;
        let bytes = bytes.as_deref().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| corrupt("the durable version is missing or malformed"))?;
        Ok(Version(u64::from_be_bytes(bytes)))
    }

    fn is_blank(&self) -> Result<bool> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek_to_first();
        let blank = !iterator.valid();
        iterator.status().map_err(|error| engine_error(&error))?;
        Ok(blank && self.meta(VERSION_KEY)?.is_none())
    }

    fn initialize(&self) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.meta_family(), FORMAT_KEY, FORMAT.to_be_bytes());
        batch.put_cf(self.meta_family(), VERSION_KEY, Version::ZERO.0.to_be_bytes());
        self.write_synced(batch)
    }

    /// The last key.
    fn last_key(&self) -> Result<Option<Key>> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek_to_last();
        let last = iterator.key().map(Key::copy_from);
        iterator.status().map_err(|error| engine_error(&error))?;
        Ok(last)
    }

    /// A cursor had to pass many tombstones: those in memory are brought to where compactions find them, now and then.
    fn flush_tombstones(&self) {
        let now = runtime::now();
        let mut flushed = self.tombstones_flushed.lock();
        let is_early = |at: Instant| now.saturating_duration_since(at) < TOMBSTONE_FLUSH_INTERVAL;
        if flushed.is_some_and(is_early) {
            return;
        }
        *flushed = Some(now);
        drop(flushed);
        // RocksDB holds back a flush that would make writes wait, and with it whoever has asked for it: that is a reader.
        if self.is_near_a_stall() {
            return;
        }
        let mut options = FlushOptions::default();
        options.set_wait(false);
        if let Err(error) = self.db.flush_opt(&options) {
            tracing::debug!(%error, "the table in memory was not written out for its tombstones");
        }
    }

    /// Whether one more table that is written out might make writes wait.
    fn is_near_a_stall(&self) -> bool {
        let count = |name: &str| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        count("rocksdb.num-immutable-mem-table") > 0
            || count("rocksdb.num-files-at-level0") >= TABLES_BEFORE_STALL
            || count("rocksdb.is-write-stopped") > 0
            || count("rocksdb.actual-delayed-write-rate") > 0
    }

    fn write_synced(&self, batch: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        let written = self.db.write_opt(batch, &options).map_err(|error| engine_error(&error));
        let is_refused = |error: &Error| error.code() == ErrorCode::DiskFull;
        self.is_stuck.store(written.as_ref().is_err_and(is_refused), Ordering::Release);
        written
    }
}

impl Engine for RocksEngine {
    fn version(&self) -> Version {
        Version(self.version.load(Ordering::Acquire))
    }

    fn get(&self, key: &[u8]) -> Result<Option<VersionedValue>> {
        let stored = self.db.get_pinned(key).map_err(|error| engine_error(&error))?;
        stored.map(|stored| decode_value(key, &stored)).transpose()
    }

    fn cursor<'a>(&'a self, range: &KeyRange, reverse: bool) -> Box<dyn Cursor + 'a> {
        if range.is_empty() {
            return Box::new(EmptyCursor);
        }
        Box::new(RocksCursor::new(self, range.clone(), reverse))
    }

    fn sample(&self, range: &KeyRange, keys_max: usize) -> Vec<(Key, u64)> {
        self.sample.keys(range, keys_max)
    }

    fn usage(&self) -> EngineUsage {
        let property = |name: &str| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        EngineUsage {
            memory_bytes: property("rocksdb.size-all-mem-tables")
                + property("rocksdb.block-cache-usage")
                + property("rocksdb.estimate-table-readers-mem"),
            disk_bytes: property("rocksdb.total-sst-files-size"),
        }
    }

    fn check_space(&self, left: Reserve) -> Result<()> {
        let space = disk::space_of(&self.path)?;
        let reserve = space.reserve(RESERVE_BYTES);
        let left = match left {
            Reserve::All => reserve,
            Reserve::Half => reserve / 2,
            Reserve::Quarter => reserve / 4,
        };
        space.check(&self.path, 0, left)
    }

    fn needs_reopening(&self) -> bool {
        self.is_stuck.load(Ordering::Acquire)
    }

    fn write(&self, batch: &EngineBatch) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        let version = self.version();
        assert!(
            batch.version >= version,
            "an engine at {version} was to go back to {} (I-9, I-11)",
            batch.version
        );
        let (mut written, sample_changes) = self.encode(&batch.changes);
        written.put_cf(self.meta_family(), VERSION_KEY, batch.version.0.to_be_bytes());
        if let Some(attachment) = &batch.attachment {
            written.put_cf(self.meta_family(), ATTACHMENT_KEY, attachment);
        }
        self.write_synced(written)?;
        self.version.store(batch.version.0, Ordering::Release);
        self.sample.apply(sample_changes);
        Ok(())
    }

    fn ingest(&self, changes: &[EngineChange]) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        let (written, sample_changes) = self.encode(changes);
        self.write_synced(written)?;
        self.sample.apply(sample_changes);
        Ok(())
    }

    fn attachment(&self) -> Result<Option<Bytes>> {
        Ok(self.meta(ATTACHMENT_KEY)?.map(Bytes::from))
    }

    fn reset(&self, version: Version, attachment: Option<&Bytes>) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        let last = self.last_key()?;
        let mut written = WriteBatch::default();
        if let Some(last) = &last {
            written.delete_range(&Key::MIN, &last.successor());
            written.delete_range_cf(self.sample_family(), &Key::MIN, &last.successor());
        }
        written.put_cf(self.meta_family(), VERSION_KEY, version.0.to_be_bytes());
        match attachment {
            Some(attachment) => written.put_cf(self.meta_family(), ATTACHMENT_KEY, attachment),
            None => written.delete_cf(self.meta_family(), ATTACHMENT_KEY),
        }
        self.write_synced(written)?;
        self.version.store(version.0, Ordering::Release);
        self.sample.clear();
        if let Some(last) = &last {
            // Frees the disk before new data comes: whole files at once, then what shares a file with the clear.
            self.db
                .delete_file_in_range(&Key::MIN, &last.successor())
                .map_err(|error| engine_error(&error))?;
            self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }
}

fn encode_changes(changes: &[EngineChange]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    let mut stored = Vec::new();
    for change in changes {
        match change {
            // RocksDB refuses inverted ranges; they hold no keys.
            EngineChange::ClearRange(range) if range.is_empty() => {}
            EngineChange::ClearRange(range) => batch.delete_range(&range.begin, &range.end),
            EngineChange::Clear(key) => batch.delete(key),
            EngineChange::Set(row) => {
                encode_value(row, &mut stored);
                batch.put(&row.key, &stored);
            }
        }
    }
    batch
}

fn encode_value(row: &Row, stored: &mut Vec<u8>) {
    stored.clear();
    stored.extend_from_slice(&row.commit_version.0.to_be_bytes());
    stored.extend_from_slice(&row.value);
}

fn decode_value(key: &[u8], stored: &[u8]) -> Result<VersionedValue> {
    let Some((stamp, value)) = stored.split_first_chunk::<STAMP_BYTES>() else {
        let key = Key::copy_from(key);
        return Err(corrupt(format!("the value of {key:?} has only {} bytes", stored.len())));
    };
    Ok(VersionedValue {
        value: Value(Bytes::copy_from_slice(value)),
        commit_version: Version(u64::from_be_bytes(*stamp)),
    })
}

fn check_format(path: &Path, format: &[u8]) -> Result<()> {
    let format = <[u8; 4]>::try_from(format)
        .map(u32::from_be_bytes)
        .map_err(|_| corrupt("the format number is malformed"))?;
    if format == FORMAT {
        return Ok(());
    }
    Err(wrong_directory(path, format!("has format {format}, this release knows {FORMAT}")))
}

fn database_options(settings: RocksSettings) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // Every write was synced, so only the last one can be torn. Damage before it must not be cut off
    // silently: logs have forgotten what stood there (I-11).
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_total_wal_size(4 * settings.memtable_bytes as u64);
    options.set_db_write_buffer_size(4 * settings.memtable_bytes);
    options.set_max_open_files(settings.open_files_max);
    options.set_max_background_jobs(settings.background_jobs);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(16 << 20);
    options
}

fn data_options(settings: RocksSettings) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_hyper_clock_cache(settings.cache_bytes, 0));
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Ten bits a key; the youngest level gets a Bloom filter, which is quicker to build.
    blocks.set_hybrid_ribbon_filter(10.0, 1);
    blocks.set_block_size(16 << 10);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(settings.memtable_bytes);
    options.set_max_write_buffer_number(3);
    // Most keys that are read are not in a memtable: a Bloom filter says so without a search of it.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_SHARE);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.add_compact_on_deletion_collector_factory(TOMBSTONE_WINDOW, TOMBSTONES_IN_WINDOW, 0.5);
    options
}

fn engine_error(error: &rocksdb::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::Corruption => ErrorCode::Corrupt,
        _ if is_no_space(error) => ErrorCode::DiskFull,
        _ => ErrorCode::Disk,
    };
    Error::new(code, Stage::Apply, error.to_string())
}

/// RocksDB has no kind for it.
fn is_no_space(error: &rocksdb::Error) -> bool {
    error.as_ref().contains("No space left on device")
}

fn open_error(path: &Path, error: &rocksdb::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::Corruption => ErrorCode::Corrupt,
        ErrorKind::InvalidArgument => ErrorCode::WrongDirectory,
        _ if is_no_space(error) => ErrorCode::DiskFull,
        _ => ErrorCode::Disk,
    };
    Error::new(code, Stage::Process, format!("{}: {error}", path.display()))
}

fn corrupt(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::Corrupt, Stage::Apply, detail)
}

fn wrong_directory(path: &Path, detail: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::WrongDirectory, Stage::Process, format!("{} {detail}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    fn open(path: &Path) -> Result<RocksEngine> {
        RocksEngine::open(path, RocksSettings { cache_bytes: 1 << 20, ..RocksSettings::default() })
    }

    #[test]
    fn keeps_the_contract_of_engines() {
        let directory = tempfile::tempdir().unwrap();
        suite::check_engine(|| Box::new(open(directory.path()).unwrap()));
    }

    #[test]
    fn keeps_it_with_cursors_that_stop_all_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let settings = RocksSettings { tombstones_at_once: 2, ..RocksSettings::default() };
        suite::check_engine(|| Box::new(RocksEngine::open(directory.path(), settings).unwrap()));
    }

    #[test]
    fn golden_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path()).unwrap();
        let changes = vec![EngineChange::Set(suite::row("k", "vv", 0x0102))];
        let attachment = Some(Bytes::from_static(b"tag"));
        engine.write(&EngineBatch { version: Version(0x0304), changes, attachment }).unwrap();
        assert_eq!(engine.db.get(b"k").unwrap().unwrap(), b"\0\0\0\0\0\0\x01\x02vv");
        assert_eq!(engine.meta(b"format").unwrap().unwrap(), b"\0\0\0\x01");
        assert_eq!(engine.meta(b"durable_version").unwrap().unwrap(), b"\0\0\0\0\0\0\x03\x04");
        assert_eq!(engine.meta(b"attachment").unwrap().unwrap(), b"tag");
    }

    #[test]
    fn sizes_are_estimated_by_a_sample_that_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path()).unwrap();
        let key_of = |n: u32| Key::from(format!("{n:06}"));
        // They compress well, which makes no difference.
        let set = |n: u32, bytes: usize| {
            let (key, value) = (key_of(n), vec![b'v'; bytes].into());
            EngineChange::Set(Row { key, value, commit_version: Version(1) })
        };
        let write = |engine: &RocksEngine, changes: Vec<EngineChange>| {
            let version = engine.version().next();
            engine.write(&EngineBatch { version, changes, attachment: None }).unwrap();
        };
        let megabytes = |engine: &RocksEngine, begin: u32, end: u32| {
            let range = KeyRange::new(key_of(begin), key_of(end));
            let bytes: u64 = engine.sample(&range, usize::MAX).iter().map(|(_, bytes)| bytes).sum();
            bytes as f64 / 1e6
        };
        write(&engine, (0..10_000).map(|n| set(n, 4_000)).collect());
        let is_about = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.35;
        assert!(is_about(megabytes(&engine, 0, 10_000), 40.0));
        assert!(is_about(megabytes(&engine, 5_000, 10_000), 20.0));
        // Smaller, deleted, cleared.
        write(&engine, (0..5_000).map(|n| set(n, 10)).collect());
        write(&engine, (5_000..7_000).map(|n| EngineChange::Clear(key_of(n))).collect());
        write(&engine, vec![EngineChange::ClearRange(KeyRange::new(key_of(7_000), key_of(8_000)))]);
        let before = megabytes(&engine, 0, 10_000);
        assert!(is_about(before, 8.0), "{before}");
        drop(engine);
        let engine = open(directory.path()).unwrap();
        assert_eq!(megabytes(&engine, 0, 10_000), before);
        // Data of a release without samples gets one when it is opened.
        engine.db.delete_cf(engine.meta_family(), SAMPLED_KEY).unwrap();
        let everything = engine.last_key().unwrap().unwrap().successor();
        engine.db.delete_range_cf(engine.sample_family(), &Key::MIN, &everything).unwrap();
        drop(engine);
        let engine = open(directory.path()).unwrap();
        assert_eq!(megabytes(&engine, 0, 10_000), before);
        engine.reset(Version(1), None).unwrap();
        assert_eq!(megabytes(&engine, 0, 10_000), 0.0);
    }

    #[test]
    fn a_value_without_its_stamp_is_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path()).unwrap();
        engine.db.put(b"k", b"short").unwrap();
        assert_eq!(engine.get(b"k").unwrap_err().code(), ErrorCode::Corrupt);
        let mut cursor = engine.cursor(&KeyRange::all_user_keys(), false);
        assert_eq!(cursor.next().unwrap_err().code(), ErrorCode::Corrupt);
    }

    #[test]
    fn another_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path()).unwrap();
        engine.db.put_cf(engine.meta_family(), FORMAT_KEY, 7u32.to_be_bytes()).unwrap();
        drop(engine);
        let error = open(directory.path()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::WrongDirectory);
        assert!(error.detail().contains("format 7"), "{error}");
    }

    #[test]
    fn databases_of_something_else_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        DB::open_default(directory.path()).unwrap().put(b"k", b"v").unwrap();
        assert_eq!(open(directory.path()).unwrap_err().code(), ErrorCode::WrongDirectory);
    }

    #[test]
    fn a_damaged_table_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path()).unwrap();
        let changes = (0..1000)
            .map(|n| EngineChange::Set(suite::row(&format!("{n:04}"), &format!("value {n}"), 1)))
            .collect();
        engine.write(&EngineBatch { version: Version(1), changes, attachment: None }).unwrap();
        engine.db.flush().unwrap();
        drop(engine);
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sst") {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[100] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        let read = open(directory.path()).and_then(|engine| engine.get(b"0001"));
        assert_eq!(read.unwrap_err().code(), ErrorCode::Corrupt);
    }
}
