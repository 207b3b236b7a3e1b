//! The files of a node. The picture is in [`super`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Result, Stage,
    runtime::{
        self, DirectoryLock, Disk, File,
        disk::{DiskFuture, OpenMode, Space},
    },
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    chance,
    condition::{Condition, Kind, disk_error, input_output_error},
    contents::Contents,
};

type SharedContents = Arc<Mutex<Contents>>;

/// A disk as one process sees it: all its operations fail once the process has died. Clones are the same one.
#[derive(Clone)]
pub struct SimulatedDisk {
    files: Files,
    condition: Condition,
    life: u64,
}

/// What is on the disk, for all processes that come and go. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Files(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    image: Image,
    locks: BTreeMap<PathBuf, Arc<()>>,
    /// Names whose directory is not synced, with what they stood for before, in order.
    unsynced: Vec<(PathBuf, Option<SharedContents>)>,
    /// Counts the processes that have died.
    life: u64,
}

/// Names and what they stand for.
#[derive(Clone, Default)]
pub(super) struct Image {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, SharedContents>,
}

impl Image {
    /// What is on the platter.
    fn at_rest(&self) -> Image {
        let at_rest = |file: &SharedContents| Arc::new(Mutex::new(file.lock().at_rest()));
        let files = self.files.iter().map(|(path, file)| (path.clone(), at_rest(file)));
        Image { directories: self.directories.clone(), files: files.collect() }
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.lock().len() as u64).sum()
    }
}

impl State {
    /// Lets a name stand for another file, or for none, until its directory is synced or the power fails.
    fn rename(&mut self, path: PathBuf, file: Option<SharedContents>) -> Option<SharedContents> {
        let before = match file {
            Some(file) => self.image.files.insert(path.clone(), file),
            None => self.image.files.remove(&path),
        };
        self.unsynced.push((path, before.clone()));
        before
    }

    fn sync_names(&mut self, directory: Option<&Path>) {
        self.unsynced.retain(|(path, _)| path.parent() != directory);
    }

    /// Of the names that were not synced, each is lost or not.
    fn lose_names(&mut self) {
        for (path, before) in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if chance::below(2) == 0 {
                match before {
                    Some(file) => self.image.files.insert(path, file),
                    None => self.image.files.remove(&path),
                };
            }
        }
    }
}

impl Files {
    /// The power has failed: names that were not synced may be lost.
    pub(super) fn lose_names(&self) {
        self.0.lock().lose_names();
    }

    /// The disk, for a process that is starting.
    pub(super) fn open(&self, condition: Condition) -> SimulatedDisk {
        SimulatedDisk { files: self.clone(), condition, life: self.0.lock().life }
    }

    /// The process dies: its handles are closed, and `settle` is done to every file.
    pub(super) fn crash(&self, settle: impl Fn(&mut Contents)) {
        let mut state = self.0.lock();
        state.life += 1;
        state.locks.clear();
        state.image.files.values().for_each(|file| settle(&mut file.lock()));
    }

    pub(super) fn image(&self) -> Image {
        self.0.lock().image.at_rest()
    }

    /// Another disk in the place of this one.
    pub(super) fn replace(&self, image: &Image) {
        let mut state = self.0.lock();
        state.life += 1;
        state.locks.clear();
        state.unsynced.clear();
        state.image = image.at_rest();
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.0.lock().image.used_bytes()
    }

    /// The files whose path a filter takes, with the number of bytes on the platter.
    pub(super) fn durable_files(&self, is_meant: impl Fn(&Path) -> bool) -> Vec<(PathBuf, usize)> {
        let state = self.0.lock();
        let files = state.image.files.iter().filter(|(path, _)| is_meant(path));
        files.map(|(path, file)| (path.clone(), file.lock().durable().len())).collect()
    }

    /// The bytes of a file on the platter.
    pub(super) fn durable(&self, path: &Path) -> Option<Bytes> {
        let state = self.0.lock();
        let file = state.image.files.get(path)?;
        Some(Bytes::copy_from_slice(file.lock().durable()))
    }

    pub(super) fn flip(&self, path: &Path, offset: usize, bit: u8) {
        if let Some(file) = self.0.lock().image.files.get(path) {
            file.lock().flip(offset, bit);
        }
    }
}

/// Does an operation to its end, also if nobody waits for it any more: a kernel does, too. It ends with its process.
fn to_the_end<T: Send + 'static>(
    operation: impl Future<Output = Result<T>> + Send + 'static,
) -> DiskFuture<'static, T> {
    Box::pin(async move {
        let (sender, receiver) = oneshot::channel();
        let running = async move {
            // Whoever has gone needs no answer.
            let _ = sender.send(operation.await);
        };
        runtime::spawn(running).detach();
        match receiver.await {
            Ok(done) => done,
            // The process was killed.
            Err(_) => std::future::pending().await,
        }
    })
}

impl SimulatedDisk {
    /// Waits for the first part of an operation, after which it has its effect.
    async fn begin(&self, kind: Kind) {
        self.condition.pass(self.condition.latency(kind)).await;
    }

    /// Whether an operation may have its effect now.
    fn check(&self, kind: Kind, what: &str) -> Result<()> {
        self.check_alive(what)?;
        if self.condition.fails(kind) {
            return Err(input_output_error(what));
        }
        Ok(())
    }

    fn check_alive(&self, what: &str) -> Result<()> {
        if self.files.0.lock().life != self.life {
            return Err(disk_error(what, "the process that opened it has died"));
        }
        Ok(())
    }

    /// Whether the disk takes so many bytes more.
    fn check_space(&self, what: &str, more_bytes: u64) -> Result<()> {
        if more_bytes == 0 {
            return Ok(());
        }
        self.condition.check_space(what, self.files.used_bytes(), more_bytes)
    }

    fn find(&self, path: &Path) -> Option<SharedContents> {
        self.files.0.lock().image.files.get(path).cloned()
    }

    fn write(&self, file: &SharedContents, offset: u64, data: &Bytes, what: &str) -> Result<()> {
        let end = offset + data.len() as u64;
        let more_bytes = end.saturating_sub(file.lock().len() as u64);
        self.check_space(what, more_bytes)?;
        if let Err(error) = self.check(Kind::Write, what) {
            // Some of it may be there.
            if self.check_alive(what).is_ok() {
                file.lock().write(offset, data.slice(..chance::below(data.len())));
            }
            return Err(error);
        }
        file.lock().write(offset, data.clone());
        Ok(())
    }

    /// A crash comes before the effect, or after it but before anybody hears of it.
    async fn sync(&self, file: &SharedContents, what: &str) -> Result<()> {
        let time = self.condition.latency(Kind::Sync);
        self.condition.pass(time.mul_f64(0.5)).await;
        self.check_alive(what)?;
        if self.condition.fails(Kind::Sync) {
            file.lock().fail_sync();
            return Err(input_output_error(what));
        }
        file.lock().sync();
        self.condition.pass(time.mul_f64(0.5)).await;
        Ok(())
    }

    fn flipped(&self, read: Bytes) -> Bytes {
        if read.is_empty() || !chance::happens(self.condition.faults().read_flips) {
            return read;
        }
        let mut bytes = Vec::from(read);
        let place = chance::below(bytes.len());
        bytes[place] ^= 1 << chance::below(8);
        bytes.into()
    }

    /// Replaces a file as files are replaced: another one, synced, takes its name.
    async fn replace_in_steps(self, path: PathBuf, data: Bytes) -> Result<()> {
        let what = format!("replace {}", path.display());
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        self.begin(Kind::Write).await;
        self.check(Kind::Write, &what)?;
        let file = SharedContents::default();
        self.files.0.lock().image.files.insert(temporary.clone(), Arc::clone(&file));
        self.write(&file, 0, &data, &what)?;
        self.sync(&file, &what).await?;
        self.begin(Kind::Write).await;
        self.check(Kind::Write, &what)?;
        {
            let mut state = self.files.0.lock();
            if let Some(file) = state.image.files.remove(&temporary) {
                state.rename(path.clone(), Some(file));
            }
        }
        self.begin(Kind::Write).await;
        self.check_alive(&what)?;
        self.files.0.lock().sync_names(path.parent());
        Ok(())
    }

    /// Removes a directory one file after the other, in no order.
    async fn remove_in_steps(self, path: PathBuf) -> Result<()> {
        let what = format!("remove directory {}", path.display());
        self.begin(Kind::Write).await;
        loop {
            self.check(Kind::Write, &what)?;
            let is_done = {
                let image = &mut self.files.0.lock().image;
                let inside = |file: &&PathBuf| file.starts_with(&path);
                let count = image.files.keys().filter(inside).count();
                let next = image.files.keys().filter(inside).nth(chance::below(count)).cloned();
                match next {
                    Some(file) => image.files.remove(&file),
                    None => {
                        image.directories.retain(|directory| !directory.starts_with(&path));
                        None
                    }
                }
                .is_none()
            };
            self.begin(Kind::Write).await;
            if is_done {
                return Ok(());
            }
        }
    }
}

fn missing(what: &str) -> Error {
    disk_error(what, "no such file or directory")
}

impl Disk for SimulatedDisk {
    fn space(&self, _: &Path) -> DiskFuture<'_, Space> {
        let space = self.condition.space(self.files.used_bytes());
        Box::pin(std::future::ready(Ok(space)))
    }

    fn create_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        let (disk, path) = (self.clone(), path.to_owned());
        to_the_end(async move {
            let what = format!("create directory {}", path.display());
            disk.begin(Kind::Write).await;
            disk.check(Kind::Write, &what)?;
            let image = &mut disk.files.0.lock().image;
            image.directories.extend(path.ancestors().map(Path::to_owned));
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> DiskFuture<'_, Vec<String>> {
        let (disk, path) = (self.clone(), path.to_owned());
        to_the_end(async move {
            disk.begin(Kind::Read).await;
            disk.check(Kind::Read, &format!("list {}", path.display()))?;
            let image = &disk.files.0.lock().image;
            let all = image.files.keys().chain(&image.directories);
            let names: BTreeSet<String> = all
                .filter(|candidate| candidate.parent() == Some(&path))
                .filter_map(|candidate| Some(candidate.file_name()?.to_string_lossy().into_owned()))
                .collect();
            Ok(names.into_iter().collect())
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> DiskFuture<'_, Box<dyn File>> {
        let (disk, path) = (self.clone(), path.to_owned());
        to_the_end(async move {
            let what = format!("open {}", path.display());
            let kind = if mode == OpenMode::New { Kind::Write } else { Kind::Read };
            disk.begin(kind).await;
            disk.check(kind, &what)?;
            let contents = match (mode, disk.find(&path)) {
                (OpenMode::Existing, Some(contents)) => contents,
                (OpenMode::Existing, None) => return Err(missing(&what)),
                (OpenMode::New, Some(_)) => return Err(disk_error(&what, "the file exists")),
                (OpenMode::New, None) => {
                    disk.check_space(&what, 1)?;
                    let contents = SharedContents::default();
                    let files = &mut disk.files.0.lock().image.files;
                    files.insert(path.clone(), Arc::clone(&contents));
                    contents
                }
            };
            Ok(Box::new(SimulatedFile { disk, path, contents }) as Box<dyn File>)
        })
    }

    fn read(&self, path: &Path) -> DiskFuture<'_, Option<Bytes>> {
        let (disk, path) = (self.clone(), path.to_owned());
        to_the_end(async move {
            disk.begin(Kind::Read).await;
            disk.check(Kind::Read, &format!("read {}", path.display()))?;
            let contents = disk.find(&path);
            Ok(contents.map(|contents| disk.flipped(contents.lock().read(0, usize::MAX))))
        })
    }

    fn replace(&self, path: &Path, contents: Bytes) -> DiskFuture<'_, ()> {
        to_the_end(self.clone().replace_in_steps(path.to_owned(), contents))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskFuture<'_, ()> {
        let (disk, from, to) = (self.clone(), from.to_owned(), to.to_owned());
        to_the_end(async move {
            let what = format!("rename {}", from.display());
            disk.begin(Kind::Write).await;
            disk.check(Kind::Write, &what)?;
            let files = &mut disk.files.0.lock().image.files;
            let contents = files.remove(&from).ok_or_else(|| missing(&what))?;
            files.insert(to, contents);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> DiskFuture<'_, ()> {
        let (disk, path) = (self.clone(), path.to_owned());
        to_the_end(async move {
            let what = format!("remove {}", path.display());
            disk.begin(Kind::Write).await;
            disk.check(Kind::Write, &what)?;
            let removed = match disk.find(&path) {
                Some(_) => disk.files.0.lock().rename(path.clone(), None),
                None => None,
            };
            removed.ok_or_else(|| missing(&what))?;
            disk.begin(Kind::Write).await;
            disk.files.0.lock().sync_names(path.parent());
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        let (disk, path) = (self.clone(), path.to_owned());
        to_the_end(async move {
            disk.begin(Kind::Sync).await;
            disk.check(Kind::Sync, &format!("sync directory {}", path.display()))?;
            disk.files.0.lock().sync_names(Some(&path));
            Ok(())
        })
    }

    fn remove_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        to_the_end(self.clone().remove_in_steps(path.to_owned()))
    }

    fn lock_directory(&self, path: &Path) -> DiskFuture<'_, DirectoryLock> {
        let (disk, path) = (self.clone(), path.to_owned());
        Box::pin(async move {
            disk.check_alive(&format!("lock {}", path.display()))?;
            let mut state = disk.files.0.lock();
            if state.locks.get(&path).is_some_and(|held| Arc::strong_count(held) > 1) {
                let detail = format!("{} is locked", path.display());
                return Err(Error::new(ErrorCode::DirectoryLocked, Stage::Process, detail));
            }
            let held = Arc::new(());
            state.locks.insert(path, Arc::clone(&held));
            Ok(DirectoryLock::new(held))
        })
    }
}

/// An open file.
#[derive(Clone)]
struct SimulatedFile {
    disk: SimulatedDisk,
    path: PathBuf,
    contents: SharedContents,
}

impl SimulatedFile {
    fn what(&self, operation: &str) -> String {
        format!("{operation} {}", self.path.display())
    }
}

impl File for SimulatedFile {
    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<'_, ()> {
        let file = self.clone();
        to_the_end(async move {
            file.disk.begin(Kind::Write).await;
            file.disk.write(&file.contents, offset, &data, &file.what("write"))
        })
    }

    fn write_and_sync(&self, offset: u64, data: Bytes) -> DiskFuture<'_, ()> {
        let file = self.clone();
        to_the_end(async move {
            let what = file.what("write and sync");
            file.disk.begin(Kind::Write).await;
            file.disk.write(&file.contents, offset, &data, &what)?;
            let transfer = file.disk.condition.transfer(data.len());
            if !transfer.is_zero() {
                file.disk.condition.pass(transfer).await;
            }
            file.disk.sync(&file.contents, &what).await
        })
    }

    fn sync(&self) -> DiskFuture<'_, ()> {
        let file = self.clone();
        to_the_end(async move { file.disk.sync(&file.contents, &file.what("sync")).await })
    }

    fn read_at(&self, offset: u64, length: usize) -> DiskFuture<'_, Bytes> {
        let file = self.clone();
        to_the_end(async move {
            file.disk.begin(Kind::Read).await;
            file.disk.check(Kind::Read, &file.what("read"))?;
            let read = file.contents.lock().read(offset, length);
            Ok(file.disk.flipped(read))
        })
    }

    fn len(&self) -> DiskFuture<'_, u64> {
        let file = self.clone();
        to_the_end(async move {
            file.disk.check(Kind::Read, &file.what("measure"))?;
            Ok(file.contents.lock().len() as u64)
        })
    }

    fn set_len(&self, length: u64) -> DiskFuture<'_, ()> {
        let file = self.clone();
        to_the_end(async move {
            let what = file.what("resize");
            file.disk.begin(Kind::Write).await;
            let more_bytes = length.saturating_sub(file.contents.lock().len() as u64);
            file.disk.check_space(&what, more_bytes)?;
            file.disk.check(Kind::Write, &what)?;
            file.contents.lock().set_len(length);
            Ok(())
        })
    }
}
