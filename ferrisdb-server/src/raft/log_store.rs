//! The log of a member, and its vote, on disk.
//!
//! ```text
//!   purged = 4     entry-..05   entry-..06   entry-..07        vote
//!
//!   append 8, 9    one file after the other, each durable before the next
//!   truncate 6     removes 7, then 6             \   whatever a crash leaves of either,
//!   purge 6        writes purged = 6, then       /   the entries after `purged` have no gap
//!                  removes 5, then 6
//! ```
//!
//! The log of a register is small and grows rarely, a few entries for each recovery of a database: a file for each
//! entry needs no framing, no recovery of a torn tail and no compaction. All entries are in memory as well, and
//! are read from there.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::Arc,
};

use ferrisdb_core::simulation::{Plant, planted};
use ferrisdb_core::{Result, runtime::Disk};
use openraft::{
    LogIdOptionExt as _, LogState, OptionalSend, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};
use parking_lot::Mutex;

use super::{
    failure::Failure,
    file::{FileKind, corrupt},
    types::{Entry, EntryBytes as _, LogId, NodeId, StorageError, Types, Vote},
};

const VOTE_FILE: &str = "vote";
const PURGED_FILE: &str = "purged";
const ENTRY_PREFIX: &str = "entry-";
/// How many bytes of entries one message to a follower holds, unless a single entry is longer.
const MESSAGE_BYTES: usize = 1 << 20;

/// The log of one member. Clones are the same one; only the library's core writes to it.
#[derive(Clone)]
pub(super) struct LogStore {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    failure: Failure,
    log: Arc<Mutex<Log>>,
}

/// What is on disk.
#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl Log {
    fn last_log_id(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }
}

fn entry_name(index: u64) -> String {
    format!("{ENTRY_PREFIX}{index:020}")
}

impl LogStore {
    /// Reads the log in `directory`, and finishes the purge that a crash may have cut short.
    ///
    /// # Errors
    ///
    /// [`ferrisdb_core::ErrorCode::Corrupt`] if a file is damaged or an entry is missing between two others.
    pub(super) async fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        failure: Failure,
    ) -> Result<LogStore> {
        // A process that was killed may have renamed a file whose name is not durable yet: what is read now and promised to
        // others must not be gone after the next power failure.
        disk.sync_directory(directory).await?;
        let mut log = Log {
            vote: read(&*disk, FileKind::Vote, &directory.join(VOTE_FILE)).await?,
            purged: read(&*disk, FileKind::Purged, &directory.join(PURGED_FILE)).await?,
            entries: BTreeMap::new(),
        };
        let first_index = log.purged.next_index();
        for name in disk.list(directory).await? {
            let path = directory.join(&name);
            let Some(digits) = name.strip_prefix(ENTRY_PREFIX) else {
                continue;
            };
            // A replacement that a crash has kept from taking its place: nobody was told of it.
            if digits.ends_with(".new") {
                disk.remove(&path).await?;
                continue;
            }
            let index = digits.parse().ok().filter(|&index| entry_name(index) == name);
            let index: u64 = index.ok_or_else(|| corrupt("not an entry").at(path.display()))?;
            if index < first_index {
                disk.remove(&path).await?;
                continue;
            }
            let entry: Option<Entry> = read(&*disk, FileKind::Entry, &path).await?;
            let entry = entry.ok_or_else(|| corrupt("the entry is gone").at(path.display()))?;
            if entry.log_id.index != index {
                let detail = format!("holds entry {}", entry.log_id.index);
                return Err(corrupt(detail).at(path.display()));
            }
            log.entries.insert(index, entry);
        }
        // The names are sorted, so a gap shows as a number that is not the next one.
        for (expected, index) in (first_index..).zip(log.entries.keys()) {
            if expected != *index {
                let detail = format!("entry {expected} is missing, entry {index} is there");
                return Err(corrupt(detail).at(directory.display()));
            }
        }
        let directory = directory.to_owned();
        Ok(LogStore { disk, directory, failure, log: Arc::new(Mutex::new(log)) })
    }

    /// Whether anything was ever written: the members of a group, or a vote.
    pub(super) fn is_pristine(&self) -> bool {
        let log = self.log.lock();
        log.vote.is_none() && log.last_log_id().is_none()
    }

    /// All entries.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.log.lock().entries.values().cloned().collect()
    }

    /// The newest entry, or what was purged last.
    pub(super) fn newest(&self) -> Option<LogId> {
        self.log.lock().last_log_id()
    }

    /// The log id through which the log is gone.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.log.lock().purged
    }

    /// Makes a leader that was restarted stand for election again, in a new term.
    ///
    /// The library would let it lead on in its old term. But it has forgotten how much of that term is
    /// committed, so that a read could miss a write that was acknowledged; and whoever tells leaderships
    /// apart by their term would not notice that the process behind this one is another.
    pub(super) fn step_down(&self, node: NodeId) {
        if let Some(vote) = &mut self.log.lock().vote
            && vote.leader_id.node_id == node
        {
            vote.committed = false;
        }
    }

    async fn write(
        &self,
        name: &str,
        kind: FileKind,
        record: &impl serde::Serialize,
    ) -> Result<()> {
        self.disk.replace(&self.directory.join(name), kind.encode(record)?).await
    }

    async fn try_append(&self, entries: impl Iterator<Item = Entry> + Send) -> Result<()> {
        for entry in entries {
            let index = entry.log_id.index;
            self.write(&entry_name(index), FileKind::Entry, &entry).await?;
            self.log.lock().entries.insert(index, entry);
        }
        Ok(())
    }

    /// Forgets an entry, on disk first: one that was read after it is gone would be worse than one too many.
    async fn remove(&self, index: u64) -> Result<()> {
        self.disk.remove(&self.directory.join(entry_name(index))).await?;
        self.log.lock().entries.remove(&index);
        Ok(())
    }

    async fn try_truncate(&self, from: u64) -> Result<()> {
        let indexes: Vec<u64> = self.log.lock().entries.range(from..).map(|(&i, _)| i).collect();
        for index in indexes.into_iter().rev() {
            self.remove(index).await?;
        }
        Ok(())
    }

    async fn try_purge(&self, through: LogId) -> Result<()> {
        // A snapshot may have purged more already.
        if self.log.lock().purged >= Some(through) {
            return Ok(());
        }
        self.write(PURGED_FILE, FileKind::Purged, &through).await?;
        let indexes: Vec<u64> = {
            let mut log = self.log.lock();
            log.purged = Some(through);
            log.entries.range(..=through.index).map(|(&index, _)| index).collect()
        };
        for index in indexes {
            self.remove(index).await?;
        }
        Ok(())
    }
}

/// The record in a file, if the file exists.
pub(super) async fn read<T: serde::de::DeserializeOwned>(
    disk: &dyn Disk,
    kind: FileKind,
    path: &Path,
) -> Result<Option<T>> {
    let file = disk.read(path).await?;
    file.map(|file| kind.decode(&file).map_err(|error| error.at(path.display()))).transpose()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        // An empty range of this form is a panic of the map.
        if let (Bound::Included(start), Bound::Excluded(end)) = bounds
            && start >= end
        {
            return Ok(Vec::new());
        }
        let log = self.log.lock();
        Ok(log.entries.range(bounds).map(|(_, entry)| entry.clone()).collect())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut bytes = 0;
        let log = self.log.lock();
        let entries = log.entries.range(start..end.max(start)).map(|(_, entry)| entry);
        let fitting = entries.enumerate().take_while(|(place, entry)| {
            bytes += entry.value_bytes();
            *place == 0 || bytes <= MESSAGE_BYTES
        });
        Ok(fitting.map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let log = self.log.lock();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        if !planted(Plant::ForgetVote) {
            let written = self.write(VOTE_FILE, FileKind::Vote, vote).await;
            written.map_err(|error| self.failure.stop_by(error))?;
        }
        self.log.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.log.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, done: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let appended = self.try_append(entries.into_iter()).await;
        appended.map_err(|error| self.failure.stop_by(error))?;
        done.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        let truncated = self.try_truncate(since.index).await;
        truncated.map_err(|error| self.failure.stop_by(error))
    }

    async fn purge(&mut self, through: LogId) -> Result<(), StorageError> {
        let purged = self.try_purge(through).await;
        purged.map_err(|error| self.failure.stop_by(error))
    }
}
