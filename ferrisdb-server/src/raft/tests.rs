//! The files of a member: their bytes, what damage does, and what each possible crash leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Result, Stage,
    runtime::{
        DirectoryLock, Disk, File,
        disk::{DiskFuture, MemoryDisk, OpenMode},
    },
};
use futures::executor::block_on;
use openraft::{
    BasicNode, CommittedLeaderId, EntryPayload, RaftLogReader as _, RaftSnapshotBuilder as _,
    storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _},
};

use super::{
    failure::Failure,
    file::FileKind,
    log_store::LogStore,
    state_machine::{Applied, StateMachine},
    types::{Contents, Entry, LogId, Membership, Proposal, Vote, Written},
};

fn directory() -> &'static Path {
    Path::new("/raft")
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> Entry {
    let value = Bytes::from(format!("value {index}"));
    let payload = EntryPayload::Normal(Proposal { expected_revision: index, value });
    Entry { log_id: log_id(term, index), payload }
}

fn membership() -> openraft::Membership<u64, BasicNode> {
    let nodes = BTreeMap::from([(1, BasicNode::new("h:1")), (2, BasicNode::new("h:2"))]);
    openraft::Membership::new(vec![BTreeSet::from([1])], nodes)
}

fn open(disk: &MemoryDisk) -> Result<LogStore> {
    block_on(LogStore::open(Arc::new(disk.clone()), directory(), Failure::default()))
}

fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry>) -> bool {
    let entries: Vec<Entry> = entries.into_iter().collect();
    block_on(log.blocking_append(entries)).is_ok()
}

/// The indexes of all entries, after checking that each holds what it should.
fn indexes(log: &mut LogStore) -> Vec<u64> {
    let entries = block_on(log.try_get_log_entries(..)).unwrap();
    for found in &entries {
        let index = found.log_id.index;
        assert_eq!(found, &entry(found.log_id.leader_id.term, index), "entry {index}");
    }
    entries.iter().map(|entry| entry.log_id.index).collect()
}

/// A disk that breaks after some changes: what a process leaves that dies at that point.
struct BrittleDisk {
    disk: MemoryDisk,
    changes_left: AtomicUsize,
    /// Syncs of directories, and what was read, in order.
    told: parking_lot::Mutex<Vec<String>>,
}

impl BrittleDisk {
    fn change<T: Send + 'static>(&self, change: DiskFuture<'static, T>) -> DiskFuture<'static, T> {
        let left = self.changes_left.load(Ordering::Relaxed);
        if left == 0 {
            let broken = Error::new(ErrorCode::Disk, Stage::Process, "the disk broke");
            return Box::pin(async { Err(broken) });
        }
        self.changes_left.store(left - 1, Ordering::Relaxed);
        change
    }
}

impl Disk for BrittleDisk {
    fn create_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        self.disk.create_directory(path)
    }

    fn list(&self, path: &Path) -> DiskFuture<'_, Vec<String>> {
        self.disk.list(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> DiskFuture<'_, Box<dyn File>> {
        self.disk.open(path, mode)
    }

    fn read(&self, path: &Path) -> DiskFuture<'_, Option<Bytes>> {
        self.told.lock().push(format!("read {}", path.display()));
        self.disk.read(path)
    }

    fn replace(&self, path: &Path, contents: Bytes) -> DiskFuture<'_, ()> {
        let (disk, path) = (self.disk.clone(), path.to_owned());
        self.change(Box::pin(async move { disk.replace(&path, contents).await }))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskFuture<'_, ()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> DiskFuture<'_, ()> {
        let (disk, path) = (self.disk.clone(), path.to_owned());
        self.change(Box::pin(async move { disk.remove(&path).await }))
    }

    fn sync_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        self.told.lock().push(String::from("sync"));
        self.disk.sync_directory(path)
    }

    fn remove_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        self.disk.remove_directory(path)
    }

    fn lock_directory(&self, path: &Path) -> DiskFuture<'_, DirectoryLock> {
        self.disk.lock_directory(path)
    }
}

/// Does `change` to a log of entries 3 to 8, purged through 2, on a disk that breaks after `changes`; then opens
/// what is left. Returns whether the change was done, and the log.
fn cut_short(changes: usize, change: impl FnOnce(&mut LogStore) -> bool) -> (bool, LogStore) {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).unwrap();
    assert!(append(&mut log, (0..=8).map(|index| entry(1, index))));
    block_on(log.purge(log_id(1, 2))).unwrap();

    let changes_left = AtomicUsize::new(changes);
    let brittle = BrittleDisk { disk: disk.clone(), changes_left, told: Default::default() };
    let failure = Failure::default();
    let opened = LogStore::open(Arc::new(brittle), directory(), failure.clone());
    let is_done = change(&mut block_on(opened).unwrap());
    assert_eq!(is_done, failure.get().is_none(), "a failure is remembered, and nothing else");
    assert!(failure.get().is_none_or(|error| error.code() == ErrorCode::Disk));
    disk.crash();
    (is_done, open(&disk).unwrap())
}

#[test]
fn an_append_leaves_a_beginning_of_it_wherever_it_is_cut_short() {
    for changes in 0..=4 {
        let new = (9..=11).map(|index| entry(2, index));
        let (is_done, mut log) = cut_short(changes, |log| append(log, new));
        assert_eq!(is_done, changes >= 3);
        let expected: Vec<u64> = (3..=8 + changes.min(3) as u64).collect();
        assert_eq!(indexes(&mut log), expected);
    }
}

#[test]
fn a_truncation_leaves_a_beginning_of_the_log_wherever_it_is_cut_short() {
    for changes in 0..=4 {
        let (is_done, mut log) =
            cut_short(changes, |log| block_on(log.truncate(log_id(1, 6))).is_ok());
        assert_eq!(is_done, changes >= 3);
        let expected: Vec<u64> = (3..=8 - changes.min(3) as u64).collect();
        assert_eq!(indexes(&mut log), expected);
    }
}

#[test]
fn a_purge_has_happened_once_it_is_noted_wherever_it_is_cut_short() {
    for changes in 0..=5 {
        let (is_done, mut log) =
            cut_short(changes, |log| block_on(log.purge(log_id(1, 5))).is_ok());
        assert_eq!(is_done, changes >= 4);
        let first = if changes == 0 { 3 } else { 6 };
        assert_eq!(indexes(&mut log), (first..=8).collect::<Vec<u64>>());
        assert_eq!(log.purged(), Some(log_id(1, first - 1)));
    }
}

#[test]
fn a_purge_beyond_the_end_leaves_an_empty_log_that_goes_on_there() {
    for changes in 1..=7 {
        let (is_done, mut log) =
            cut_short(changes, |log| block_on(log.purge(log_id(2, 20))).is_ok());
        assert_eq!(is_done, changes >= 7);
        assert_eq!(indexes(&mut log), Vec::<u64>::new());
        let state = block_on(log.get_log_state()).unwrap();
        assert_eq!(state.last_log_id, Some(log_id(2, 20)));
        assert!(append(&mut log, [entry(2, 21)]));
        assert_eq!(indexes(&mut log), [21]);
    }
}

#[test]
fn a_vote_is_the_old_one_or_the_new_one() {
    for changes in 0..=1 {
        let vote = Vote::new(7, 2);
        let (is_done, mut log) = cut_short(changes, |log| block_on(log.save_vote(&vote)).is_ok());
        assert_eq!(is_done, changes == 1);
        assert_eq!(block_on(log.read_vote()).unwrap(), (changes == 1).then_some(vote));
    }
}

#[test]
fn a_leader_that_was_restarted_is_a_candidate_and_a_follower_stays_one() {
    let disk = MemoryDisk::new();
    block_on(open(&disk).unwrap().save_vote(&Vote::new_committed(7, 2))).unwrap();
    let mut log = open(&disk).unwrap();
    log.step_down(3);
    assert_eq!(block_on(log.read_vote()).unwrap(), Some(Vote::new_committed(7, 2)));
    log.step_down(2);
    assert_eq!(block_on(log.read_vote()).unwrap(), Some(Vote::new(7, 2)));
}

#[test]
fn names_are_made_durable_before_they_are_believed() {
    let disk = MemoryDisk::new();
    assert!(append(&mut open(&disk).unwrap(), [entry(1, 0)]));
    let changes_left = AtomicUsize::new(0);
    let told = Default::default();
    let brittle = Arc::new(BrittleDisk { disk, changes_left, told });
    let opened = LogStore::open(brittle.clone(), directory(), Failure::default());
    assert_eq!(indexes(&mut block_on(opened).unwrap()), [0]);
    let told = brittle.told.lock().clone();
    assert_eq!(told[0], "sync", "{told:?}");
    assert!(told.contains(&format!("read {}", entry_path(0).display())), "{told:?}");
}

#[test]
fn a_gap_is_damage() {
    let (name_0, name_1) = (entry_path(0), entry_path(1));
    for missing in [&name_0, &name_1] {
        let disk = MemoryDisk::new();
        assert!(append(&mut open(&disk).unwrap(), (0..=2).map(|index| entry(1, index))));
        block_on(disk.remove(missing)).unwrap();
        assert_eq!(open(&disk).err().map(|error| error.code()), Some(ErrorCode::Corrupt));
    }
}

fn entry_path(index: u64) -> PathBuf {
    directory().join(format!("entry-{index:020}"))
}

#[test]
fn an_entry_under_another_number_or_none_is_damage() {
    for name in ["entry-00000000000000000001", "entry-0", "entry-x", "entry-"] {
        let disk = MemoryDisk::new();
        assert!(append(&mut open(&disk).unwrap(), [entry(1, 0)]));
        let file = block_on(disk.read(&entry_path(0))).unwrap().unwrap();
        block_on(disk.replace(&directory().join(name), file)).unwrap();
        assert_eq!(open(&disk).err().map(|error| error.code()), Some(ErrorCode::Corrupt), "{name}");
    }
}

#[test]
fn a_replacement_that_did_not_happen_is_cleared_away() {
    let disk = MemoryDisk::new();
    assert!(append(&mut open(&disk).unwrap(), [entry(1, 0)]));
    let left = directory().join("entry-00000000000000000001.new");
    block_on(disk.replace(&left, Bytes::from_static(b"FDBR"))).unwrap();
    assert_eq!(indexes(&mut open(&disk).unwrap()), [0]);
    assert_eq!(block_on(disk.read(&left)).unwrap(), None);
}

#[test]
fn a_message_is_bounded_by_bytes_but_holds_at_least_one_entry() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).unwrap();
    let long = |index| {
        let value = Bytes::from(vec![0; 400_000]);
        let payload = EntryPayload::Normal(Proposal { expected_revision: index, value });
        Entry { log_id: log_id(1, index), payload }
    };
    let longest = Entry {
        payload: EntryPayload::Normal(Proposal {
            expected_revision: 0,
            value: Bytes::from(vec![0; 2_000_000]),
        }),
        ..entry(1, 4)
    };
    assert!(append(&mut log, (0..4).map(long).chain([longest])));
    let mut sent = |start, end| {
        let entries = block_on(log.limited_get_log_entries(start, end)).unwrap();
        entries.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>()
    };
    assert_eq!(sent(0, 5), [0, 1]);
    assert_eq!(sent(3, 5), [3]);
    assert_eq!(sent(4, 5), [4]);
    assert_eq!(sent(2, 2), Vec::<u64>::new());
}

/// Each kind of file with a record, and the record's bytes.
fn files() -> Vec<(FileKind, Bytes, Vec<u8>)> {
    let applied = Applied {
        last_log_id: Some(log_id(2, 5)),
        membership: Membership::new(Some(log_id(1, 3)), membership()),
        contents: Contents { revision: 4, value: Bytes::from_static(b"v") },
    };
    let members: Entry =
        Entry { log_id: log_id(1, 3), payload: EntryPayload::Membership(membership()) };
    let blank: Entry = Entry { log_id: log_id(3, 9), payload: EntryPayload::Blank };
    let write = Entry {
        log_id: log_id(2, 300),
        payload: EntryPayload::Normal(Proposal {
            expected_revision: 7,
            value: Bytes::from_static(b"v"),
        }),
    };
    // Term, member, index; then the payload. A membership: one set of voters, two nodes with addresses.
    let members_bytes = [&[1, 1, 1, 2][..], &[1, 3], b"h:1", &[2, 3], b"h:2"].concat();
    let file = |kind: FileKind, bytes: Result<Bytes>, record: &[&[u8]]| {
        (kind, bytes.unwrap(), record.concat())
    };
    use FileKind::{Entry as EntryFile, Member, Purged, Snapshot, Vote as VoteFile};
    vec![
        file(EntryFile, EntryFile.encode(&blank), &[&[3, 1, 9], &[0]]),
        file(EntryFile, EntryFile.encode(&write), &[&[2, 1, 251, 44, 1], &[1, 7, 1, b'v']]),
        file(EntryFile, EntryFile.encode(&members), &[&[1, 1, 3], &[2], &members_bytes]),
        file(VoteFile, VoteFile.encode(&Vote::new_committed(7, 2)), &[&[7, 2, 1]]),
        file(Member, Member.encode(&300u64), &[&[251, 44, 1]]),
        file(Purged, Purged.encode(&log_id(2, 5)), &[&[2, 1, 5]]),
        file(
            Snapshot,
            Snapshot.encode(&applied),
            &[&[1, 2, 1, 5], &[1, 1, 1, 3], &members_bytes, &[4, 1, b'v']],
        ),
    ]
}

#[test]
fn golden_bytes() {
    for (kind, file, record) in files() {
        let magic = match kind {
            FileKind::Entry => b"FDBRENT1",
            FileKind::Vote => b"FDBRVOT1",
            FileKind::Purged => b"FDBRPUR1",
            FileKind::Snapshot => b"FDBRSNP1",
            FileKind::Member => b"FDBRMEM1",
        };
        let expected = [&magic[..], &crc32c::crc32c(&record).to_be_bytes(), &record].concat();
        assert_eq!(file, expected, "{kind:?}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    fn is_damaged(kind: FileKind, file: &[u8]) -> bool {
        let error = match kind {
            FileKind::Entry => kind.decode::<Entry>(file).err(),
            FileKind::Vote => kind.decode::<Vote>(file).err(),
            FileKind::Purged => kind.decode::<LogId>(file).err(),
            FileKind::Snapshot => kind.decode::<Applied>(file).err(),
            FileKind::Member => kind.decode::<u64>(file).err(),
        };
        error.is_some_and(|error| error.code() == ErrorCode::Corrupt)
    }
    for (kind, file, _) in files() {
        assert!(!is_damaged(kind, &file));
        for bit in 0..file.len() * 8 {
            let mut damaged = file.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(is_damaged(kind, &damaged), "{kind:?}, bit {bit}");
        }
        for length in 0..file.len() {
            assert!(is_damaged(kind, &file[..length]), "{kind:?}, length {length}");
        }
    }
}

fn open_machine(disk: &MemoryDisk) -> StateMachine {
    let disk = Arc::new(disk.clone());
    block_on(StateMachine::open(disk, directory(), Failure::default())).unwrap()
}

#[test]
fn a_write_is_applied_only_at_its_revision() {
    let mut machine = open_machine(&MemoryDisk::new());
    let write = |index, expected_revision, value: &'static [u8]| {
        let payload =
            EntryPayload::Normal(Proposal { expected_revision, value: Bytes::from_static(value) });
        Entry { log_id: log_id(1, index), payload }
    };
    let held = Contents { revision: 1, value: Bytes::from_static(b"a") };
    let answers =
        block_on(machine.apply([write(0, 0, b"a"), write(1, 0, b"b"), write(2, 1, b"c")]));
    let expected = [Written::At(1), Written::Stale(held), Written::At(2)].map(Some);
    assert_eq!(answers.unwrap(), expected);
    assert_eq!(machine.applied().borrow().contents.value, "c");
}

#[test]
fn a_snapshot_survives_a_crash_and_gives_way_to_newer_ones_only() {
    let disk = MemoryDisk::new();
    let mut machine = open_machine(&disk);
    block_on(machine.apply([entry(1, 0)])).unwrap();
    let mut early = block_on(machine.get_snapshot_builder());
    block_on(machine.apply([entry(1, 1)])).unwrap();
    let mut late = block_on(machine.get_snapshot_builder());
    block_on(late.build_snapshot()).unwrap();
    // The early one is written after the late one: the log may be purged through the late one already.
    let kept = block_on(early.build_snapshot()).unwrap();
    assert_eq!(kept.meta.last_log_id, Some(log_id(1, 1)));
    disk.crash();
    let machine = open_machine(&disk);
    assert_eq!(machine.applied().borrow().last_log_id, Some(log_id(1, 1)));
    assert_eq!(machine.applied().borrow().contents.revision, 2);
}

/// The library's own tests of a storage.
#[cfg(not(madsim))]
mod suite {
    use openraft::testing::{StoreBuilder, Suite};

    use super::*;
    use crate::raft::types::{StorageError, Types};

    struct Fresh;

    impl StoreBuilder<Types, LogStore, StateMachine, ()> for Fresh {
        async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError> {
            let disk = MemoryDisk::new();
            Ok(((), open(&disk).unwrap(), open_machine(&disk)))
        }
    }

    #[test]
    fn the_library_is_content_with_the_storage() {
        Suite::test_all(Fresh).unwrap();
    }
}
