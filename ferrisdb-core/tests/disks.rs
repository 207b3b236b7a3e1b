//! The disk in memory against the file system: the same operations, the same answers.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{future::Future, path::Path};

use bytes::Bytes;
use ferrisdb_core::{
    ErrorCode, Result,
    runtime::{
        Disk, File,
        disk::{FileSystem, MemoryDisk, OpenMode},
    },
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    Open(&'static str, OpenMode),
    Read(&'static str),
    Replace(&'static str, Bytes),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    /// And makes it again: only then may files be in it.
    RemoveDirectory,
    List(&'static str),
    WriteAt(u64, Bytes),
    WriteAndSync(u64, Bytes),
    Sync,
    ReadAt(u64, usize),
    Len,
    SetLen(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let name = || prop::sample::select(&["a", "d/b", "d/c"]);
    let mode = prop::sample::select(&[OpenMode::New, OpenMode::Existing]);
    let data = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    prop_oneof![
        4 => (name(), mode).prop_map(|(name, mode)| Open(name, mode)),
        1 => name().prop_map(Read),
        1 => (name(), data()).prop_map(|(name, data)| Replace(name, data)),
        1 => (name(), name()).prop_map(|(from, to)| Rename(from, to)),
        1 => name().prop_map(Remove),
        1 => Just(RemoveDirectory),
        1 => prop::sample::select(&["", "d", "missing"]).prop_map(List),
        3 => (0..40u64, data()).prop_map(|(offset, data)| WriteAt(offset, data)),
        1 => (0..40u64, data()).prop_map(|(offset, data)| WriteAndSync(offset, data)),
        1 => Just(Sync),
        3 => (0..50u64, 0..50usize).prop_map(|(offset, length)| ReadAt(offset, length)),
        1 => Just(Len),
        1 => (0..50u64).prop_map(SetLen),
    ]
}

/// A disk below a directory, with the file that was opened last.
struct Subject<'a> {
    disk: &'a dyn Disk,
    root: &'a Path,
    open: Option<Box<dyn File>>,
}

impl Subject<'_> {
    /// What the operation returned, as text; of errors the code, because their details differ.
    async fn apply(&mut self, operation: &Operation) -> String {
        use Operation::*;
        let (disk, path) = (self.disk, |name: &str| self.root.join(name));
        match operation {
            Open(name, mode) => {
                let opened = disk.open(&path(name), *mode).await;
                let outcome = told(opened.as_ref().map(|_| ()).map_err(Clone::clone));
                // A failure keeps the file before, so that later operations have one.
                self.open = opened.ok().or_else(|| self.open.take());
                outcome
            }
            Read(name) => told(disk.read(&path(name)).await),
            Replace(name, data) => told(disk.replace(&path(name), data.clone()).await),
            Rename(from, to) => told(disk.rename(&path(from), &path(to)).await),
            Remove(name) => told(disk.remove(&path(name)).await),
            RemoveDirectory => {
                let removed = disk.remove_directory(&path("d")).await;
                let gone = disk.list(&path("d")).await;
                let again = disk.remove_directory(&path("d")).await;
                let made = disk.create_directory(&path("d")).await;
                told(Ok((removed, gone, again, made)))
            }
            List(name) => told(disk.list(&path(name)).await),
            _ => match &self.open {
                Some(file) => apply_to_file(file.as_ref(), operation).await,
                None => "no file is open".into(),
            },
        }
    }
}

async fn apply_to_file(file: &dyn File, operation: &Operation) -> String {
    use Operation::*;
    match operation {
        WriteAt(offset, data) => told(file.write_at(*offset, data.clone()).await),
        WriteAndSync(offset, data) => told(file.write_and_sync(*offset, data.clone()).await),
        Sync => told(file.sync().await),
        ReadAt(offset, length) => told(file.read_at(*offset, *length).await),
        Len => told(file.len().await),
        SetLen(length) => told(file.set_len(*length).await),
        other => panic!("not an operation on a file: {other:?}"),
    }
}

fn told(outcome: Result<impl std::fmt::Debug>) -> String {
    format!("{:?}", outcome.map_err(|error| error.code()))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn both_disks_answer_alike(operations in prop::collection::vec(operation(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new();
        run(async {
            let root = directory.path();
            let subject = |disk| Subject { disk, root, open: None };
            let (mut real, mut model) = (subject(&FileSystem), subject(&memory));
            for disk in [real.disk, model.disk] {
                disk.create_directory(&root.join("d")).await.unwrap();
            }
            for (index, operation) in operations.iter().enumerate() {
                let (real, model) = (real.apply(operation).await, model.apply(operation).await);
                prop_assert_eq!(real, model, "operation {}: {:?}", index, operation);
            }
            Ok(())
        })?;
    }
}

#[test]
fn both_disks_make_parents_and_lock_directories() {
    let directory = tempfile::tempdir().unwrap();
    let memory = MemoryDisk::new();
    let disks: [&dyn Disk; 2] = [&FileSystem, &memory];
    for disk in disks {
        run(async {
            let nested = directory.path().join("x/y/z");
            disk.create_directory(&nested).await.unwrap();
            disk.create_directory(&nested).await.unwrap();
            assert_eq!(disk.list(&directory.path().join("x")).await.unwrap(), ["y"]);
            let held = disk.lock_directory(&nested).await.unwrap();
            let error = disk.lock_directory(&nested).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::DirectoryLocked);
            drop(held);
            disk.lock_directory(&nested).await.unwrap();
        });
    }
}
