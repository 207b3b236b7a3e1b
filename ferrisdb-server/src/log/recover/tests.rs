//! Directories as crashes and bad disks leave them.

use futures::executor::block_on;

use ferrisdb_core::{Generation, Tag, Version, runtime::disk::MemoryDisk};

use super::*;
use crate::log::record::{Place, Record};

const INSTANCE: u64 = 7;

/// A directory with a state and segments, written by hand.
struct Directory {
    disk: MemoryDisk,
    state: State,
}

/// A record from the version before to `version`, with a message of so many bytes.
fn record(version: u64, message_bytes: usize) -> Record {
    Record {
        previous_version: Version(version - 1),
        commit_version: Version(version),
        known_committed_version: Version(version - 1),
        messages: vec![(Tag(1), Bytes::from(vec![b'x'; message_bytes]))],
    }
}

/// A segment that begins after `previous`, with records of ten bytes. Each is given with what was on disk before it, in
/// records. Returns the file and where each record begins and the last one ends.
fn segment_file(
    number: u64,
    previous: u64,
    sealed_bytes: u64,
    synced_records: &[usize],
) -> (Vec<u8>, Vec<u64>) {
    let header = SegmentHeader {
        instance: INSTANCE,
        segment: number,
        generation: Generation(3),
        sealed_bytes,
        previous_version: Version(previous),
    };
    let mut file = BytesMut::new();
    header.encode(&mut file);
    let mut offsets = vec![HEADER_BYTES];
    for (index, synced) in synced_records.iter().enumerate() {
        let place = Place { instance: INSTANCE, segment: number, offset: file.len() as u64 };
        let record = record(previous + 1 + index as u64, 10);
        // A later segment's header is written together with its first record.
        let synced_before = if (number, *synced) == (1, 0) { 0 } else { offsets[*synced] };
        record.encode(&place, synced_before, &mut file);
        offsets.push(file.len() as u64);
    }
    file.put_bytes(0, 500);
    (file.to_vec(), offsets)
}

impl Directory {
    fn new() -> Directory {
        let directory = Directory {
            disk: MemoryDisk::new(),
            state: State::new(INSTANCE, Generation(3), Version(10)),
        };
        directory.write("state", &directory.state.encode());
        directory
    }

    fn write(&self, name: &str, contents: &[u8]) {
        let contents = Bytes::copy_from_slice(contents);
        block_on(self.disk.replace(&Path::new("log").join(name), contents)).unwrap();
    }

    fn contents(&self, name: &str) -> Bytes {
        block_on(self.disk.read(&Path::new("log").join(name))).unwrap().unwrap()
    }

    fn names(&self) -> Vec<String> {
        block_on(self.disk.list(Path::new("log"))).unwrap()
    }

    fn open(&self) -> Result<Option<Opened>> {
        block_on(open(&self.disk, Path::new("log"), &LogSettings::default()))
    }

    fn durable_version(&self) -> u64 {
        self.open().unwrap().unwrap().log.durable_version().0
    }

    /// What the refusal says.
    fn refusal(&self) -> String {
        let error = self.open().err().expect("the directory is damaged");
        assert_eq!(error.code(), ErrorCode::Corrupt);
        error.detail().to_owned()
    }
}

#[test]
fn a_torn_tail_is_cut_with_all_that_was_written_with_it() {
    for torn in [1, 2, 3] {
        let directory = Directory::new();
        // The first record alone, then the three others in one write.
        let (mut file, offsets) = segment_file(0, 10, 0, &[0, 1, 1, 1]);
        file[offsets[torn] as usize + 20] ^= 1;
        directory.write("00000000.log", &file);
        assert_eq!(directory.durable_version(), 10 + torn as u64);
        let cut = directory.contents("00000000.log");
        let kept = offsets[torn] as usize;
        assert_eq!(cut[..kept], file[..kept]);
        assert!(cut[kept..].iter().all(|byte| *byte == 0), "nothing can come back");
        assert_eq!(directory.durable_version(), 10 + torn as u64);
    }
}

#[test]
fn a_flipped_bit_in_what_was_on_disk_is_refused() {
    let (file, offsets) = segment_file(0, 10, 0, &[0, 1, 2, 3]);
    for at in offsets[0] as usize..offsets[3] as usize {
        let directory = Directory::new();
        let mut damaged = file.clone();
        damaged[at] ^= 4;
        directory.write("00000000.log", &damaged);
        let record = offsets.iter().rev().find(|offset| **offset as usize <= at).unwrap();
        let refusal = directory.refusal();
        assert!(refusal.starts_with(&format!("log/00000000.log at byte {record}: ")), "{refusal}");
        assert!(refusal.contains("were on disk"), "{refusal}");
        assert_eq!(directory.contents("00000000.log")[..], damaged[..], "nothing is changed");
    }
}

#[test]
fn a_file_that_ends_early_is_a_torn_tail_too() {
    let directory = Directory::new();
    let (file, offsets) = segment_file(0, 10, 0, &[0, 1, 2]);
    directory.write("00000000.log", &file[..offsets[3] as usize - 1]);
    assert_eq!(directory.durable_version(), 12);
}

#[test]
fn a_valid_record_that_does_not_continue_the_chain_is_refused() {
    let directory = Directory::new();
    let (mut file, offsets) = segment_file(0, 10, 0, &[0]);
    let place = Place { instance: INSTANCE, segment: 0, offset: offsets[1] };
    let mut stray = BytesMut::new();
    record(15, 10).encode(&place, 0, &mut stray);
    file.splice(offsets[1] as usize.., stray);
    directory.write("00000000.log", &file);
    let refusal = directory.refusal();
    assert!(
        refusal.contains("expected a record after version 11, found one after 14"),
        "{refusal}"
    );
}

#[test]
fn damage_in_a_sealed_segment_is_refused() {
    let (first, offsets) = segment_file(0, 10, 0, &[0, 0, 0]);
    let (second, _) = segment_file(1, 13, offsets[3], &[0]);
    for at in 0..offsets[3] as usize {
        let directory = Directory::new();
        let mut damaged = first.clone();
        damaged[at] ^= 1;
        directory.write("00000000.log", &damaged);
        directory.write("00000001.log", &second);
        let refusal = directory.refusal();
        assert!(refusal.starts_with("log/00000000.log at byte "), "{refusal}");
    }
    // Its last record is missing altogether.
    let directory = Directory::new();
    let (shorter, _) = segment_file(0, 10, 0, &[0, 0]);
    directory.write("00000000.log", &shorter);
    directory.write("00000001.log", &second);
    let refusal = directory.refusal();
    assert!(refusal.contains("expected records up to byte"), "{refusal}");
}

#[test]
fn segments_follow_each_other_without_a_gap() {
    let (first, offsets) = segment_file(0, 10, 0, &[0, 1]);
    let (second, _) = segment_file(1, 12, offsets[2], &[0, 1]);
    let directory = Directory::new();
    directory.write("00000000.log", &first);
    directory.write("00000001.log", &second);
    assert_eq!(directory.durable_version(), 14);

    directory.write("00000003.log", &second);
    assert!(directory.refusal().starts_with("log/00000002.log at byte 0: "));

    let directory = Directory::new();
    directory.write("00000001.log", &second);
    assert!(directory.refusal().starts_with("log/00000000.log at byte 0: "));
}

#[test]
fn a_last_segment_whose_header_is_torn_was_never_begun() {
    let (first, offsets) = segment_file(0, 10, 0, &[0, 1]);
    // Header and records are one write, so the records say that nothing was on disk before.
    let (mut second, _) = segment_file(1, 12, offsets[2], &[0, 0]);
    second[3] ^= 1;
    for contents in [&[] as &[u8], &[0; 50], &second] {
        let directory = Directory::new();
        directory.write("00000000.log", &first);
        directory.write("00000001.log", contents);
        assert_eq!(directory.durable_version(), 12);
        assert_eq!(directory.names(), ["00000000.log", "state"]);
    }
}

#[test]
fn a_last_segment_whose_header_is_damaged_is_refused() {
    let (first, offsets) = segment_file(0, 10, 0, &[0, 1]);
    let (mut second, _) = segment_file(1, 12, offsets[2], &[0, 1]);
    second[3] ^= 1;
    let directory = Directory::new();
    directory.write("00000000.log", &first);
    directory.write("00000001.log", &second);
    assert!(directory.refusal().starts_with("log/00000001.log at byte 0: "));
}

#[test]
fn segments_that_were_given_up_are_removed() {
    let (first, offsets) = segment_file(0, 10, 0, &[0, 1]);
    let (second, _) = segment_file(1, 12, offsets[2], &[0, 1]);
    let directory = Directory::new();
    directory.write("00000000.log", &first);
    directory.write("00000001.log", &second);
    let state = State { first_segment: 1, ..directory.state.clone() };
    directory.write("state", &state.encode());
    assert_eq!(directory.durable_version(), 14);
    assert_eq!(directory.names(), ["00000001.log", "state"]);
}

#[test]
fn an_instance_that_was_not_finished_is_removed_and_one_that_lost_its_state_is_not() {
    let (file, _) = segment_file(0, 10, 0, &[0]);
    let without_state = |contents: &[u8]| {
        let directory = Directory::new();
        block_on(directory.disk.remove(Path::new("log/state"))).unwrap();
        directory.write("00000000.log", contents);
        directory
    };
    let unfinished = without_state(&file[..HEADER_BYTES as usize]);
    assert!(unfinished.open().unwrap().is_none());
    assert_eq!(unfinished.names(), [] as [&str; 0]);
    assert!(without_state(&file).refusal().starts_with("log/state at byte 0: "));
}

#[test]
fn a_damaged_state_is_refused() {
    let directory = Directory::new();
    let (file, _) = segment_file(0, 10, 0, &[0]);
    directory.write("00000000.log", &file);
    let mut state = directory.state.encode().to_vec();
    state[30] ^= 1;
    directory.write("state", &state);
    assert!(directory.refusal().starts_with("log/state at byte 0: "));
}

#[test]
fn a_retired_instance_is_removed_however_far_that_was() {
    let directory = Directory::new();
    let (file, offsets) = segment_file(1, 10, 1000, &[0]);
    directory.write("00000001.log", &file[..offsets[1] as usize]);
    let state = State { retired: true, ..directory.state.clone() };
    directory.write("state", &state.encode());
    assert!(directory.open().unwrap().is_none());
    assert_eq!(directory.names(), [] as [&str; 0]);
}

#[test]
fn what_is_valid_is_synced_before_it_counts() {
    let directory = Directory::new();
    let (file, _) = segment_file(0, 10, 0, &[0, 0]);
    directory.write("00000000.log", &file[..HEADER_BYTES as usize]);
    let path = Path::new("log/00000000.log");
    let written = block_on(directory.disk.open(path, OpenMode::Existing)).unwrap();
    block_on(written.write_at(0, Bytes::from(file))).unwrap();
    // The process has died, the machine has not: the records are in its cache only.
    assert_eq!(directory.durable_version(), 12);
    directory.disk.crash();
    assert_eq!(directory.durable_version(), 12);
}
