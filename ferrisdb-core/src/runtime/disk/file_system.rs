//! The real disk: files, fdatasync, and the syncs of directories that make names durable.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{DirectoryLock, Disk, DiskFuture, File, OpenMode};
use crate::{
    error::{Error, ErrorCode, Result, Stage},
    runtime::blocking,
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
    Error::new(ErrorCode::Disk, Stage::Process, detail)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
        _ => fs::File::open(".")?.sync_all(),
    }
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
            let entries = match fs::read_dir(path) {
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
            let file = options.open(path)?;
            if mode == OpenMode::New {
                sync_parent(path)?;
            }
            Ok(Box::new(RealFile { file: Arc::new(file), path: path.into() }) as Box<dyn File>)
        })
    }

    fn read(&self, path: &Path) -> DiskFuture<'_, Option<Bytes>> {
        run("read", path, |path| match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            contents => Ok(Some(Bytes::from(contents?))),
        })
    }

    fn replace(&self, path: &Path, contents: Bytes) -> DiskFuture<'_, ()> {
        run("replace", path, move |path| {
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(".new");
            let temporary = PathBuf::from(temporary);
            let file = fs::File::create(&temporary)?;
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
        run("sync directory", path, |path| match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            directory => directory?.sync_all(),
        })
    }

    fn remove_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        run("remove directory", path, |path| match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_parent(path)),
        })
    }

    fn lock_directory(&self, path: &Path) -> DiskFuture<'_, DirectoryLock> {
        let path = path.to_owned();
        Box::pin(blocking(move || lock_directory(&path)))
    }
}

fn lock_directory(path: &Path) -> Result<DirectoryLock> {
    let lock_path = path.join("lock");
    let file = fs::File::options().create(true).truncate(false).write(true).open(&lock_path);
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
