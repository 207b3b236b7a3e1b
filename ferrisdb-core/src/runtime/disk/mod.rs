//! The disk that logs, controllers and identities are written to, as a trait.
//!
//! Production uses files ([`FileSystem`]). In-memory databases and tests use [`MemoryDisk`], which
//! knows what was synced: after [`MemoryDisk::crash`] only that is left. A simulation has disks of its own, which
//! take their time, fail, and lose what a power failure may. A simulated process is killed by dropping its
//! tasks; its disk belongs to the harness and survives.
//!
//! The engine of a storage server (RocksDB) has files of its own and does not come through here.

mod file_system;
mod memory;

use std::path::Path;

use bytes::Bytes;
use futures::future::BoxFuture;

pub use file_system::FileSystem;
#[cfg(not(madsim))]
pub use file_system::space_of;
pub use memory::MemoryDisk;

use crate::error::{Error, ErrorCode, Result, Stage};

/// A result that a disk delivers when the operation is done.
pub type DiskFuture<'a, T> = BoxFuture<'a, Result<T>>;

/// How much space a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can still be written.
    pub available_bytes: u64,
    /// Bytes altogether.
    pub total_bytes: u64,
}

impl Space {
    /// Of a disk that does not know.
    pub const UNLIMITED: Space = Space { available_bytes: u64::MAX, total_bytes: u64::MAX };

    /// How much of it is kept free, of so many bytes that one would like to: a small disk is not all reserve.
    pub fn reserve(self, bytes: u64) -> u64 {
        bytes.min(self.total_bytes / 16)
    }

    /// Whether `more_bytes` can be written without touching a reserve.
    pub fn has(self, more_bytes: u64, reserve_bytes: u64) -> bool {
        self.available_bytes >= self.reserve(reserve_bytes).saturating_add(more_bytes)
    }

    /// The error of a write that would not leave the reserve.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorCode::DiskFull`], with the numbers.
    pub fn check(self, path: &Path, more_bytes: u64, reserve_bytes: u64) -> Result<()> {
        if self.has(more_bytes, reserve_bytes) {
            return Ok(());
        }
        let detail = format!(
            "{} MiB are free in {}, and {} MiB are needed",
            self.available_bytes >> 20,
            path.display(),
            (self.reserve(reserve_bytes).saturating_add(more_bytes) >> 20) + 1
        );
        Err(Error::new(ErrorCode::DiskFull, Stage::Process, detail))
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist.
    Existing,
    /// The file must not exist.
    New,
}

/// Directories and files.
///
/// Every error is of code [`crate::ErrorCode::Disk`], or [`crate::ErrorCode::DiskFull`], and names the operation and the path.
pub trait Disk: Send + Sync + 'static {
    /// Creates a directory and its parents, durably.
    fn create_directory(&self, path: &Path) -> DiskFuture<'_, ()>;

    /// The names in a directory, sorted; none if it does not exist.
    fn list(&self, path: &Path) -> DiskFuture<'_, Vec<String>>;

    /// Opens or creates a file for reading and writing. A new file's name is durable at once.
    fn open(&self, path: &Path, mode: OpenMode) -> DiskFuture<'_, Box<dyn File>>;

    /// All of a small file; `None` if it does not exist.
    fn read(&self, path: &Path) -> DiskFuture<'_, Option<Bytes>>;

    /// Replaces a small file, durably and as a whole: after a crash it is the old one or the new one.
    fn replace(&self, path: &Path, contents: Bytes) -> DiskFuture<'_, ()>;

    /// Renames a file, durably.
    fn rename(&self, from: &Path, to: &Path) -> DiskFuture<'_, ()>;

    /// Removes a file, durably.
    fn remove(&self, path: &Path) -> DiskFuture<'_, ()>;

    /// Makes the names in a directory durable that an earlier process left there; nothing if it does not exist.
    ///
    /// All operations above do that for their own names before they are done. A process that is killed before leaves a name
    /// that is there until the power fails: whoever opens a directory syncs it before it believes what it reads.
    fn sync_directory(&self, path: &Path) -> DiskFuture<'_, ()>;

    /// Removes a directory and all in it, durably. Not an error if it does not exist.
    fn remove_directory(&self, path: &Path) -> DiskFuture<'_, ()>;

    /// How much space there is where a directory lies. Disks that do not know have enough.
    fn space(&self, path: &Path) -> DiskFuture<'_, Space> {
        let _ = path;
        Box::pin(std::future::ready(Ok(Space::UNLIMITED)))
    }

    /// Takes a directory for this process alone, until the lock is dropped or the process dies.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorCode::DirectoryLocked`] if another process has it.
    fn lock_directory(&self, path: &Path) -> DiskFuture<'_, DirectoryLock>;
}

/// An open file. Operations on one file are issued one at a time.
#[expect(clippy::len_without_is_empty, reason = "asking a disk is not worth two methods")]
pub trait File: Send + Sync + 'static {
    /// Writes `data` at `offset`. Not durable before [`File::sync`].
    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<'_, ()>;

    /// Writes `data` at `offset` and makes all of the file's contents durable: one trip for the usual pair.
    fn write_and_sync(&self, offset: u64, data: Bytes) -> DiskFuture<'_, ()>;

    /// Makes the file's contents durable.
    fn sync(&self) -> DiskFuture<'_, ()>;

    /// Up to `length` bytes from `offset`: fewer only where the file ends.
    fn read_at(&self, offset: u64, length: usize) -> DiskFuture<'_, Bytes>;

    /// The file's length, in bytes.
    fn len(&self) -> DiskFuture<'_, u64>;

    /// Cuts the file, or fills it with zeros, to `length`. Not durable before [`File::sync`].
    fn set_len(&self, length: u64) -> DiskFuture<'_, ()>;
}

/// Holds a directory for this process. Dropping it lets go.
pub struct DirectoryLock {
    _held: Box<dyn Send + Sync>,
}

impl DirectoryLock {
    /// A lock that lets go when `held` is dropped: for disks of one's own.
    pub fn new(held: impl Send + Sync + 'static) -> DirectoryLock {
        DirectoryLock { _held: Box::new(held) }
    }
}

impl std::fmt::Debug for DirectoryLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectoryLock")
    }
}
