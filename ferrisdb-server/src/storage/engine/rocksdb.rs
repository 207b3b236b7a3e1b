//! The engine of production: RocksDB, one value per key.
//!
//! ```text
//!   column family   key                 value
//!   default         'a'                 00 00 00 00 00 00 00 1e 'v'     commit version 30, then the value
//!   meta            'format'            00 00 00 01                     the format of all this
//!   meta            'durable_version'   00 00 00 00 00 00 00 2a         the engine is the state at 42
//!   meta            'attachment'        any bytes, if there is one
//! ```
//!
//! A write is one batch of RocksDB over both column families, synced: data, version and attachment change
//! together or not at all (I-9). Versions never go back but by a reset, so a restart finds at least what logs
//! were told to forget (I-11). An ingest is synced, too, although it need not be: so the log of RocksDB can be torn at
//! its end only, and damage anywhere else is noticed.
//!
//! A reset is one batch as well: a range clear of all keys there are. What that leaves in files is removed afterwards.
//!
//! Knows nothing of windows, logs or shards. Start with [`RocksEngine::open`].
//!
//! # Caveats
//!
//! Many small range clears slow down reads that pass them until a compaction removes them.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Value, Version,
    runtime::disk,
    service::storage::{Row, VersionedValue},
};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator,
    DBRecoveryMode, ErrorKind, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{Cursor, Engine, EngineBatch, EngineChange, EngineUsage};

/// The format that this release reads and writes; see the essay.
const FORMAT: u32 = 1;

const META: &str = "meta";
const FORMAT_KEY: &[u8] = b"format";
const VERSION_KEY: &[u8] = b"durable_version";
const ATTACHMENT_KEY: &[u8] = b"attachment";
/// How much of a memtable its Bloom filter takes: ten bits for each entry of a hundred and some bytes are one percent, and the bits
/// of a key lie in one cache line, which wants some more.
const MEMTABLE_BLOOM_SHARE: f64 = 0.05;
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
}

impl Default for RocksSettings {
    fn default() -> RocksSettings {
        RocksSettings {
            cache_bytes: 256 << 20,
            memtable_bytes: 64 << 20,
            open_files_max: 1_000,
            background_jobs: 2,
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
            if let Some(foreign) = families
                .iter()
                .find(|name| *name != rocksdb::DEFAULT_COLUMN_FAMILY_NAME && *name != META)
            {
                return Err(wrong_directory(path, format!("has a column family {foreign:?}")));
            }
        }
        let families = [
            ColumnFamilyDescriptor::new(
                rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
                data_options(settings),
            ),
            ColumnFamilyDescriptor::new(META, Options::default()),
        ];
        let db = DB::open_cf_descriptors(&options, path, families)
            .map_err(|error| open_error(path, &error))?;
        let engine = RocksEngine {
            db,
            path: path.to_owned(),
            version: AtomicU64::new(0),
            writing: Mutex::new(()),
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

    fn write_synced(&self, batch: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|error| engine_error(&error))
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
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.begin.to_vec());
        options.set_iterate_upper_bound(range.end.to_vec());
        // The iterator pins what is there now: later writes stay hidden from it.
        let iterator = self.db.raw_iterator_opt(options);
        Box::new(RocksCursor { iterator, reverse, place: Place::Start })
    }

    fn approximate_bytes(&self, range: &KeyRange) -> u64 {
        let sizes = self.db.get_approximate_sizes(&[rocksdb::Range::new(&range.begin, &range.end)]);
        sizes.into_iter().sum()
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

    fn check_space(&self) -> Result<()> {
        disk::space_of(&self.path)?.check(&self.path, 0, RESERVE_BYTES)
    }

    fn write(&self, batch: &EngineBatch) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        let version = self.version();
        assert!(
            batch.version >= version,
            "an engine at {version} was to go back to {} (I-9, I-11)",
            batch.version
        );
        let mut written = encode_changes(&batch.changes);
        written.put_cf(self.meta_family(), VERSION_KEY, batch.version.0.to_be_bytes());
        if let Some(attachment) = &batch.attachment {
            written.put_cf(self.meta_family(), ATTACHMENT_KEY, attachment);
        }
        self.write_synced(written)?;
        self.version.store(batch.version.0, Ordering::Release);
        Ok(())
    }

    fn ingest(&self, changes: &[EngineChange]) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        self.write_synced(encode_changes(changes))
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
        }
        written.put_cf(self.meta_family(), VERSION_KEY, version.0.to_be_bytes());
        match attachment {
            Some(attachment) => written.put_cf(self.meta_family(), ATTACHMENT_KEY, attachment),
            None => written.delete_cf(self.meta_family(), ATTACHMENT_KEY),
        }
        self.write_synced(written)?;
        self.version.store(version.0, Ordering::Release);
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

/// A cursor of an empty range, which RocksDB has no bounds for.
struct EmptyCursor;

impl Cursor for EmptyCursor {
    fn next(&mut self) -> Result<Option<Row>> {
        Ok(None)
    }

    fn skip_to(&mut self, _key: &Key) {}
}

struct RocksCursor<'a> {
    iterator: DBRawIterator<'a>,
    reverse: bool,
    place: Place,
}

/// Where a cursor is, between two calls.
enum Place {
    /// Before the first row.
    Start,
    /// Before the first row that [`Cursor::skip_to`] of this key leads to.
    Before(Key),
    /// The iterator stands on the row that was returned last.
    Returned,
    /// Behind the last row.
    End,
}

impl RocksCursor<'_> {
    /// Moves to the first row at `key` or behind it, in the cursor's direction.
    fn seek(&mut self, key: &Key) {
        if !self.reverse {
            return self.iterator.seek(key);
        }
        self.iterator.seek_for_prev(key);
        if self.iterator.key() == Some(key) {
            self.iterator.prev();
        }
    }
}

impl Cursor for RocksCursor<'_> {
    fn next(&mut self) -> Result<Option<Row>> {
        match std::mem::replace(&mut self.place, Place::End) {
            Place::Start if self.reverse => self.iterator.seek_to_last(),
            Place::Start => self.iterator.seek_to_first(),
            Place::Before(key) => self.seek(&key),
            Place::Returned if self.reverse => self.iterator.prev(),
            Place::Returned => self.iterator.next(),
            Place::End => return Ok(None),
        }
        let Some((key, stored)) = self.iterator.item() else {
            // The end of the range looks like an error until the status tells them apart.
            self.iterator.status().map_err(|error| engine_error(&error))?;
            return Ok(None);
        };
        let VersionedValue { value, commit_version } = decode_value(key, stored)?;
        let row = Row { key: Key::copy_from(key), value, commit_version };
        self.place = Place::Returned;
        Ok(Some(row))
    }

    fn skip_to(&mut self, key: &Key) {
        let ahead =
            |of: &[u8]| if self.reverse { key.as_slice() < of } else { key.as_slice() > of };
        let moves = match &self.place {
            Place::Start => true,
            Place::Before(target) => ahead(target),
            Place::Returned => self.iterator.key().is_some_and(ahead),
            Place::End => false,
        };
        if moves {
            self.place = Place::Before(key.clone());
        }
    }
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
    options
}

fn engine_error(error: &rocksdb::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::Corruption => ErrorCode::Corrupt,
        // RocksDB has no kind for it. It resumes by itself when there is space.
        _ if error.as_ref().contains("No space left on device") => ErrorCode::DiskFull,
        _ => ErrorCode::Disk,
    };
    Error::new(code, Stage::Apply, error.to_string())
}

fn open_error(path: &Path, error: &rocksdb::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::Corruption => ErrorCode::Corrupt,
        ErrorKind::InvalidArgument => ErrorCode::WrongDirectory,
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
