//! A disk in memory that knows what was synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::FutureExt as _;
use parking_lot::Mutex;

use super::{DirectoryLock, Disk, DiskFuture, File, OpenMode};
use crate::error::{Error, ErrorCode, Result, Stage};

/// A disk in memory. Clones are the same disk, so a harness can keep one while its process dies.
///
/// # Caveats
///
/// A crash loses all that was not synced, as a whole; it does not tear or reorder writes. Names
/// (creation, renaming, removal) are durable at once. Unlike on a real disk, a file can be made in a
/// directory that was not, and the lock of a directory is not a file in it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Arc<Mutex<Contents>>>,
    locks: BTreeMap<PathBuf, Arc<()>>,
    /// Why nothing can be made, if that is so.
    refuses: Option<String>,
}

impl State {
    fn check_may_make(&self, path: &Path) -> Result<()> {
        let Some(why) = &self.refuses else { return Ok(()) };
        let detail = format!("make {}: {why}", path.display());
        Err(Error::new(ErrorCode::Disk, Stage::Process, detail))
    }
}

/// What a reader sees, and what would be left after a crash.
#[derive(Debug, Default)]
struct Contents {
    current: Vec<u8>,
    synced: Vec<u8>,
    /// Everything before this offset is the same in both.
    clean_before: usize,
}

impl Contents {
    fn write(&mut self, offset: u64, data: &[u8]) {
        // As with files, writing nothing does not move the end.
        if data.is_empty() {
            return;
        }
        let begin = offset as usize;
        let end = begin + data.len();
        if self.current.len() < end {
            self.current.resize(end, 0);
        }
        self.current[begin..end].copy_from_slice(data);
        self.clean_before = self.clean_before.min(begin);
    }

    fn sync(&mut self) {
        self.synced.truncate(self.clean_before);
        let clean = self.synced.len();
        self.synced.extend_from_slice(&self.current[clean..]);
        self.clean_before = self.current.len();
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// What a power failure leaves: the synced contents of every file. Releases all locks.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        for contents in state.files.values() {
            let mut contents = contents.lock();
            contents.current = contents.synced.clone();
            contents.clean_before = contents.current.len();
        }
        state.locks.clear();
    }

    /// From now on no file and no directory can be made or replaced, as on a disk without inodes; none ends that. Files that are
    /// open can be read and written all the while.
    pub fn refuse_new_files(&self, why: Option<&str>) {
        self.state.lock().refuses = why.map(str::to_owned);
    }

    /// The bytes of all files together.
    pub fn used_bytes(&self) -> usize {
        self.state.lock().files.values().map(|contents| contents.lock().current.len()).sum()
    }
}

fn missing(path: &Path) -> Error {
    let detail = format!("{} does not exist", path.display());
    Error::new(ErrorCode::Disk, Stage::Process, detail)
}

/// Done at once: the disk in memory never waits.
fn ready<T: Send + 'static>(result: Result<T>) -> DiskFuture<'static, T> {
    futures::future::ready(result).boxed()
}

impl Disk for MemoryDisk {
    fn create_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        let mut state = self.state.lock();
        if let Err(refused) = state.check_may_make(path) {
            return ready(Err(refused));
        }
        for directory in path.ancestors() {
            state.directories.insert(directory.to_owned());
        }
        ready(Ok(()))
    }

    fn list(&self, path: &Path) -> DiskFuture<'_, Vec<String>> {
        let state = self.state.lock();
        let all = state.files.keys().chain(&state.directories);
        let names: BTreeSet<String> = all
            .filter(|candidate| candidate.parent() == Some(path))
            .filter_map(|candidate| Some(candidate.file_name()?.to_string_lossy().into_owned()))
            .collect();
        ready(Ok(names.into_iter().collect()))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> DiskFuture<'_, Box<dyn File>> {
        let mut state = self.state.lock();
        let existing = state.files.get(path).cloned();
        let contents = match (mode, existing) {
            (OpenMode::Existing, Some(contents)) => contents,
            (OpenMode::Existing, None) => return ready(Err(missing(path))),
            (OpenMode::New, Some(_)) => {
                let detail = format!("open {}: the file exists", path.display());
                return ready(Err(Error::new(ErrorCode::Disk, Stage::Process, detail)));
            }
            (OpenMode::New, None) => {
                if let Err(refused) = state.check_may_make(path) {
                    return ready(Err(refused));
                }
                let contents = Arc::<Mutex<Contents>>::default();
                state.files.insert(path.to_owned(), Arc::clone(&contents));
                contents
            }
        };
        ready(Ok(Box::new(MemoryFile(contents)) as Box<dyn File>))
    }

    fn read(&self, path: &Path) -> DiskFuture<'_, Option<Bytes>> {
        let state = self.state.lock();
        let contents = state.files.get(path);
        ready(Ok(contents.map(|contents| Bytes::copy_from_slice(&contents.lock().current))))
    }

    fn replace(&self, path: &Path, data: Bytes) -> DiskFuture<'_, ()> {
        let mut contents = Contents::default();
        contents.write(0, &data);
        contents.sync();
        let mut state = self.state.lock();
        if let Err(refused) = state.check_may_make(path) {
            return ready(Err(refused));
        }
        state.files.insert(path.to_owned(), Arc::new(Mutex::new(contents)));
        ready(Ok(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskFuture<'_, ()> {
        let mut state = self.state.lock();
        match state.files.remove(from) {
            Some(contents) => {
                state.files.insert(to.to_owned(), contents);
                ready(Ok(()))
            }
            None => ready(Err(missing(from))),
        }
    }

    fn remove(&self, path: &Path) -> DiskFuture<'_, ()> {
        ready(self.state.lock().files.remove(path).map(|_| ()).ok_or_else(|| missing(path)))
    }

    fn sync_directory(&self, _: &Path) -> DiskFuture<'_, ()> {
        ready(Ok(()))
    }

    fn remove_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        let mut state = self.state.lock();
        state.files.retain(|file, _| !file.starts_with(path));
        state.directories.retain(|directory| !directory.starts_with(path));
        ready(Ok(()))
    }

    fn lock_directory(&self, path: &Path) -> DiskFuture<'_, DirectoryLock> {
        let mut state = self.state.lock();
        if state.locks.get(path).is_some_and(|held| Arc::strong_count(held) > 1) {
            let detail = format!("{} is locked", path.display());
            return ready(Err(Error::new(ErrorCode::DirectoryLocked, Stage::Process, detail)));
        }
        let held = Arc::new(());
        state.locks.insert(path.to_owned(), Arc::clone(&held));
        ready(Ok(DirectoryLock { _held: Box::new(held) }))
    }
}

struct MemoryFile(Arc<Mutex<Contents>>);

impl File for MemoryFile {
    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<'_, ()> {
        self.0.lock().write(offset, &data);
        ready(Ok(()))
    }

    fn write_and_sync(&self, offset: u64, data: Bytes) -> DiskFuture<'_, ()> {
        let mut contents = self.0.lock();
        contents.write(offset, &data);
        contents.sync();
        ready(Ok(()))
    }

    fn sync(&self) -> DiskFuture<'_, ()> {
        self.0.lock().sync();
        ready(Ok(()))
    }

    fn read_at(&self, offset: u64, length: usize) -> DiskFuture<'_, Bytes> {
        let contents = self.0.lock();
        let begin = contents.current.len().min(offset as usize);
        let end = contents.current.len().min(begin.saturating_add(length));
        ready(Ok(Bytes::copy_from_slice(&contents.current[begin..end])))
    }

    fn len(&self) -> DiskFuture<'_, u64> {
        ready(Ok(self.0.lock().current.len() as u64))
    }

    fn set_len(&self, length: u64) -> DiskFuture<'_, ()> {
        let mut contents = self.0.lock();
        contents.current.resize(length as usize, 0);
        contents.clean_before = contents.clean_before.min(length as usize);
        ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn a_crash_leaves_what_was_synced() {
        let disk = MemoryDisk::new();
        let path = Path::new("a/b");
        let file = block_on(disk.open(path, OpenMode::New)).unwrap();
        block_on(file.write_and_sync(0, Bytes::from_static(b"kept"))).unwrap();
        block_on(file.write_at(2, Bytes::from_static(b"lost"))).unwrap();
        assert_eq!(&block_on(file.read_at(0, 100)).unwrap()[..], b"kelost");
        disk.crash();
        assert_eq!(&block_on(file.read_at(0, 100)).unwrap()[..], b"kept");
        block_on(file.set_len(2)).unwrap();
        block_on(file.sync()).unwrap();
        disk.crash();
        assert_eq!(block_on(file.len()).unwrap(), 2);
    }

    #[test]
    fn a_directory_has_one_owner() {
        let disk = MemoryDisk::new();
        let held = block_on(disk.lock_directory(Path::new("d"))).unwrap();
        let error = block_on(disk.lock_directory(Path::new("d"))).unwrap_err();
        assert_eq!(error.code(), ErrorCode::DirectoryLocked);
        drop(held);
        block_on(disk.lock_directory(Path::new("d"))).unwrap();
    }
}
