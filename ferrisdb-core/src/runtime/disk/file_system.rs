//! The real disk: files, fdatasync, and the syncs of directories that make names durable.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

#[cfg(not(madsim))]
use super::Space;
use super::{DirectoryLock, Disk, DiskFuture, File, OpenMode};
use crate::{
    error::{Error, ErrorCode, Result, Stage},
    runtime::{self, blocking},
};

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

/// Runs a disk operation on a thread that may block, and names it in the error.
fn run<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    closure: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> DiskFuture<'static, T> {
    let path = path.to_owned();
    Box::pin(async move {
        blocking(move || closure(&path).map_err(|error| disk_error(operation, &path, &error))).await
    })
}

fn disk_error(operation: &str, path: &Path, error: &io::Error) -> Error {
    let detail = format!("{operation} {}: {error}", path.display());
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        _ => ErrorCode::Disk,
    };
    Error::new(code, Stage::Process, detail)
}

/// How much space there is where `path` lies. A moment's work: the kernel knows it.
///
/// # Errors
///
/// [`ErrorCode::Disk`].
#[cfg(not(madsim))]
pub fn space_of(path: &Path) -> Result<Space> {
    let found = rustix::fs::statvfs(path);
    let found = found.map_err(|error| disk_error("ask for the space of", path, &error.into()))?;
    Ok(Space {
        available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// How often it is tried to open something when there are no descriptors, and how long after the try before.
const DESCRIPTOR_TRIES: u32 = 500;
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(20);

/// Opens something. That there are no descriptors is no fault of the disk: connections that end leave some.
#[expect(clippy::disallowed_methods, reason = "this is where it may block")]
fn opened<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for tries in 1..DESCRIPTOR_TRIES {
        match open() {
            Err(error) if runtime::is_out_of_descriptors(&error) => {
                if tries == 1 {
                    tracing::warn!(%error, "a file cannot be opened yet");
                }
                std::thread::sleep(DESCRIPTOR_PAUSE);
            }
            opened => return opened,
        }
    }
    open()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    opened(|| fs::File::open(parent))?.sync_all()
}

impl Disk for FileSystem {
    fn create_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        run("create directory", path, |path| {
            // Each new name is in another directory, so each of those is synced.
            let missing = path.ancestors().skip(1).take_while(|parent| !parent.exists());
            let made: Vec<&Path> =
                missing.filter(|parent| !parent.as_os_str().is_empty()).collect();
            fs::create_dir_all(path)?;
            sync_parent(path)?;
            made.into_iter().try_for_each(sync_parent)
        })
    }

    fn list(&self, path: &Path) -> DiskFuture<'_, Vec<String>> {
        run("list", path, |path| {
            let entries = match opened(|| fs::read_dir(path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let names: io::Result<Vec<_>> = entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect();
            let mut names = names?;
            names.sort();
            Ok(names)
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> DiskFuture<'_, Box<dyn File>> {
        run("open", path, move |path| {
            let mut options = fs::File::options();
            options.read(true).write(true).create_new(mode == OpenMode::New);
            let file = opened(|| options.open(path))?;
            if mode == OpenMode::New {
                sync_parent(path)?;
            }
            Ok(Box::new(RealFile { file: Arc::new(file), path: path.into() }) as Box<dyn File>)
        })
    }

    fn read(&self, path: &Path) -> DiskFuture<'_, Option<Bytes>> {
        run("read", path, |path| match opened(|| fs::read(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            contents => Ok(Some(Bytes::from(contents?))),
        })
    }

    fn replace(&self, path: &Path, contents: Bytes) -> DiskFuture<'_, ()> {
        run("replace", path, move |path| {
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(".new");
            let temporary = PathBuf::from(temporary);
            let file = opened(|| fs::File::create(&temporary))?;
            file.write_all_at(&contents, 0)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            sync_parent(path)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskFuture<'_, ()> {
        let to = to.to_owned();
        run("rename", from, move |from| {
            fs::rename(from, &to)?;
            sync_parent(&to)?;
            // The old name is gone for good only when its own directory is synced, too.
            if from.parent() == to.parent() { Ok(()) } else { sync_parent(from) }
        })
    }

    fn remove(&self, path: &Path) -> DiskFuture<'_, ()> {
        run("remove", path, |path| {
            fs::remove_file(path)?;
            sync_parent(path)
        })
    }

    fn sync_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        run("sync directory", path, |path| match opened(|| fs::File::open(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            directory => directory?.sync_all(),
        })
    }

    fn remove_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        run("remove directory", path, |path| match opened(|| fs::remove_dir_all(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_parent(path)),
        })
    }

    #[cfg(not(madsim))]
    fn space(&self, path: &Path) -> DiskFuture<'_, Space> {
        Box::pin(std::future::ready(space_of(path)))
    }

    fn lock_directory(&self, path: &Path) -> DiskFuture<'_, DirectoryLock> {
        let path = path.to_owned();
        Box::pin(blocking(move || lock_directory(&path)))
    }
}

fn lock_directory(path: &Path) -> Result<DirectoryLock> {
    let lock_path = path.join("lock");
    let file =
        opened(|| fs::File::options().create(true).truncate(false).write(true).open(&lock_path));
    let file = file.map_err(|error| disk_error("open", &lock_path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let detail = format!("{} is locked", path.display());
            return Err(Error::new(ErrorCode::DirectoryLocked, Stage::Process, detail));
        }
        Err(fs::TryLockError::Error(error)) => return Err(disk_error("lock", &lock_path, &error)),
    }
    Ok(DirectoryLock { _held: Box::new(file) })
}

struct RealFile {
    file: Arc<fs::File>,
    path: PathBuf,
}

impl RealFile {
    fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        closure: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> DiskFuture<'static, T> {
        let file = Arc::clone(&self.file);
        run(operation, &self.path, move |_| closure(&file))
    }
}

impl File for RealFile {
    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<'_, ()> {
        self.run("write", move |file| file.write_all_at(&data, offset))
    }

    fn write_and_sync(&self, offset: u64, data: Bytes) -> DiskFuture<'_, ()> {
        self.run("write and sync", move |file| {
            file.write_all_at(&data, offset)?;
            file.sync_data()
        })
    }

    fn sync(&self) -> DiskFuture<'_, ()> {
        self.run("sync", fs::File::sync_data)
    }

    fn read_at(&self, offset: u64, length: usize) -> DiskFuture<'_, Bytes> {
        self.run("read", move |file| {
            let available = file.metadata()?.len().saturating_sub(offset);
            let mut data = vec![0; length.min(usize::try_from(available).unwrap_or(usize::MAX))];
            file.read_exact_at(&mut data, offset)?;
            Ok(Bytes::from(data))
        })
    }

    fn len(&self) -> DiskFuture<'_, u64> {
        self.run("measure", |file| Ok(file.metadata()?.len()))
    }

    fn set_len(&self, length: u64) -> DiskFuture<'_, ()> {
        self.run("resize", move |file| file.set_len(length))
    }
}
