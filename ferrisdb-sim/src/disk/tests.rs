//! What the disks of the world do to those who rely on them.

use std::{future::Future, path::Path, time::Duration};

use bytes::Bytes;
use ferrisdb_core::{
    ErrorCode, KeyRange, Version, runtime,
    runtime::{File, disk::OpenMode},
    service::storage::Row,
};
use ferrisdb_server::storage::engine::{EngineBatch, EngineChange};

use super::{DiskProfile, Faults, MachineDisk};
use crate::world;

const PATH: &str = "/data/file";

/// Runs a test in many small worlds.
fn in_worlds<F: Future<Output = ()>>(seeds: u64, test: impl Fn() -> F + Copy + Send + 'static) {
    (0..seeds).for_each(|seed| world::run(seed, test));
}

/// A disk with one file: 2048 synced bytes of a.
async fn disk_with_file() -> (MachineDisk, Box<dyn File>) {
    let disk = MachineDisk::new(DiskProfile::instant());
    let file = disk.media().disk().open(Path::new(PATH), OpenMode::New).await.unwrap();
    file.write_and_sync(0, Bytes::from(vec![b'a'; 2048])).await.unwrap();
    (disk, file)
}

async fn contents(disk: &MachineDisk) -> Bytes {
    disk.media().disk().read(Path::new(PATH)).await.unwrap().unwrap()
}

/// The letters of the sectors of a file, `?` for one that is torn.
fn sectors(bytes: &[u8]) -> String {
    let letter = |sector: &[u8]| match sector {
        [first, rest @ ..] if rest.iter().all(|byte| byte == first) => char::from(*first),
        _ => '?',
    };
    bytes.chunks(512).map(letter).collect()
}

#[test]
fn a_killed_process_loses_nothing() {
    in_worlds(4, || async {
        let (disk, file) = disk_with_file().await;
        file.write_at(512, Bytes::from(vec![b'b'; 512])).await.unwrap();
        disk.crash_process();
        assert_eq!(sectors(&contents(&disk).await), "abaa");
        let error = file.write_at(0, Bytes::from_static(b"c")).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Disk, "its process has died");
        assert_eq!(sectors(&contents(&disk).await), "abaa");
    });
}

#[test]
fn a_power_failure_keeps_loses_tears_and_reorders() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..300 {
        outcomes.insert(world::run(seed, || async {
            let (disk, file) = disk_with_file().await;
            file.write_at(0, Bytes::from(vec![b'b'; 1024])).await.unwrap();
            file.write_at(1024, Bytes::from(vec![b'c'; 2048])).await.unwrap();
            disk.power_failure();
            let after = sectors(&contents(&disk).await);
            disk.power_failure();
            assert_eq!(sectors(&contents(&disk).await), after, "what is left is durable");
            after
        }));
    }
    let has = |outcome: &str| outcomes.contains(outcome);
    assert!(outcomes.iter().all(|outcome| !outcome.contains('?')), "{outcomes:?}");
    assert!(has("aaaa") && has("bbcccc"), "all or nothing survives: {outcomes:?}");
    assert!(has("aacccc"), "the later write survives the earlier one: {outcomes:?}");
    assert!(has("baaa") && has("abaa"), "a write is torn, in both ways: {outcomes:?}");
    assert!(has("bbcc"), "an extension is cut short: {outcomes:?}");
    assert!(has("aaaa\0\0"), "an extension has zeros: {outcomes:?}");
}

#[test]
fn a_write_is_not_torn_within_a_sector() {
    in_worlds(60, || async {
        let (disk, file) = disk_with_file().await;
        file.write_at(300, Bytes::from(vec![b'b'; 400])).await.unwrap();
        disk.power_failure();
        let after = contents(&disk).await;
        let (first, second) = (&after[300..512], &after[512..700]);
        for part in [first, second] {
            assert!(part.iter().all(|byte| *byte == part[0]), "{after:?}");
        }
        assert!(after[..300].iter().chain(&after[700..]).all(|byte| *byte == b'a'));
    });
}

#[test]
fn a_cut_survives_or_not() {
    let after = |seed| {
        world::run(seed, || async {
            let (disk, file) = disk_with_file().await;
            file.set_len(512).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 512);
            disk.power_failure();
            contents(&disk).await.len()
        })
    };
    let lengths: std::collections::BTreeSet<usize> = (0..20).map(after).collect();
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [512, 2048]);
}

#[test]
fn a_sync_after_a_failed_one_saves_nothing() {
    let mut lost = 0;
    for seed in 0..40 {
        lost += world::run(seed, || async {
            let (disk, file) = disk_with_file().await;
            file.write_at(0, Bytes::from(vec![b'b'; 512])).await.unwrap();
            disk.set_faults(Faults { sync_errors: 1.0, ..Faults::NONE });
            assert_eq!(file.sync().await.unwrap_err().code(), ErrorCode::Disk);
            disk.set_faults(Faults::NONE);
            file.sync().await.unwrap();
            assert_eq!(sectors(&file.read_at(0, 2048).await.unwrap()), "baaa", "the cache has it");
            disk.power_failure();
            u32::from(sectors(&contents(&disk).await) == "aaaa")
        });
    }
    assert!((5..40).contains(&lost), "lost in {lost} of 40 worlds");
}

#[test]
fn a_full_disk_takes_what_needs_no_space() {
    in_worlds(1, || async {
        let (disk, file) = disk_with_file().await;
        assert_eq!(disk.used_bytes(), 2048);
        disk.fill(true);
        file.write_and_sync(0, Bytes::from_static(b"b")).await.unwrap();
        let error = file.write_at(2000, Bytes::from(vec![b'b'; 100])).await.unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
        let path = Path::new("/data/other");
        let device = disk.media();
        assert!(device.disk().replace(path, Bytes::from_static(b"x")).await.is_err());
        disk.fill(false);
        device.disk().replace(path, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(disk.used_bytes(), 2049);
        device.disk().remove(Path::new(PATH)).await.unwrap();
        assert_eq!(disk.used_bytes(), 1);
    });
}

#[test]
fn a_small_disk_is_full_by_itself() {
    in_worlds(1, || async {
        let profile = DiskProfile { capacity_bytes: Some(1000), ..DiskProfile::instant() };
        let disk = MachineDisk::new(profile);
        let file = disk.media().disk().open(Path::new(PATH), OpenMode::New).await.unwrap();
        file.write_at(0, Bytes::from(vec![1; 900])).await.unwrap();
        file.write_at(900, Bytes::from(vec![1; 200])).await.unwrap_err();
        file.write_at(900, Bytes::from(vec![1; 100])).await.unwrap();
    });
}

#[test]
fn a_flipped_bit_stays_and_a_misread_one_does_not() {
    in_worlds(20, || async {
        let (disk, file) = disk_with_file().await;
        let flips = |bytes: &[u8]| bytes.iter().map(|b| (b ^ b'a').count_ones()).sum::<u32>();
        disk.set_faults(Faults { read_flips: 1.0, ..Faults::NONE });
        assert_eq!(flips(&file.read_at(0, 2048).await.unwrap()), 1);
        disk.set_faults(Faults::NONE);
        assert_eq!(flips(&file.read_at(0, 2048).await.unwrap()), 0);
        assert!(disk.flip_bit_in(|path| path == Path::new("/other")).is_none());
        assert!(disk.flip_bit().unwrap().contains(PATH));
        assert_eq!(flips(&contents(&disk).await), 1);
        disk.power_failure();
        assert_eq!(flips(&contents(&disk).await), 1);
    });
}

#[test]
fn a_stalled_operation_waits() {
    in_worlds(1, || async {
        let (disk, file) = disk_with_file().await;
        let began = runtime::now();
        disk.stall(Some(Duration::from_secs(3)));
        file.sync().await.unwrap();
        let took = runtime::now() - began;
        assert!((3.0..3.1).contains(&took.as_secs_f64()), "{took:?}");
        disk.stall(None);
        let waits = |file: Box<dyn File>| async move {
            let limit = Duration::from_secs(60);
            let read = runtime::timeout(limit, ferrisdb_core::Stage::Log, file.read_at(0, 1));
            (read.await.is_ok(), file)
        };
        let (is_done, file) = waits(file).await;
        assert!(!is_done);
        disk.lift_stall();
        assert!(waits(file).await.0);
    });
}

#[test]
fn operations_take_their_time() {
    in_worlds(3, || async {
        let time_of = |profile: DiskProfile, slowness: f64| async move {
            let disk = MachineDisk::new(profile);
            disk.set_faults(Faults { slowness, ..Faults::NONE });
            let media = disk.media();
            let file = media.disk().open(Path::new(PATH), OpenMode::New).await.unwrap();
            let began = runtime::now();
            for _ in 0..200 {
                file.write_and_sync(0, Bytes::from_static(b"x")).await.unwrap();
            }
            (runtime::now() - began).as_secs_f64() / 200.0
        };
        let fast = time_of(DiskProfile::fast(), 1.0).await;
        let slow = time_of(DiskProfile::slow(), 1.0).await;
        let ill = time_of(DiskProfile::fast(), 50.0).await;
        assert!((0.0002..0.002).contains(&fast), "{fast}");
        assert!(slow > 5.0 * fast && ill > 20.0 * fast, "{fast} {slow} {ill}");
    });
}

#[test]
fn replacing_leaves_the_old_or_the_new() {
    let mut left = std::collections::BTreeSet::new();
    for seed in 0..80 {
        left.insert(world::run(seed, || async {
            let disk = MachineDisk::new(DiskProfile::slow());
            let device = disk.media();
            device.disk().replace(Path::new(PATH), Bytes::from_static(b"old")).await.unwrap();
            let replacing = runtime::spawn(async move {
                let _ = device.disk().replace(Path::new(PATH), Bytes::from_static(b"new")).await;
            });
            let after = Duration::from_millis(runtime::random_u64() % 12);
            if !after.is_zero() {
                runtime::sleep(after).await;
            }
            disk.power_failure();
            let names = disk.media().disk().list(Path::new("/data")).await.unwrap();
            drop(replacing);
            (contents(&disk).await, names.len())
        }));
    }
    let found: Vec<(&[u8], usize)> = left.iter().map(|(file, names)| (&file[..], *names)).collect();
    assert!(found.contains(&(b"old", 1)) && found.contains(&(b"new", 1)), "{found:?}");
    assert!(found.contains(&(b"old", 2)), "a leftover beside the old file: {found:?}");
    assert!(!found.contains(&(b"new", 2)), "{found:?}");
}

/// What a power failure leaves of a replacement that a killed process had half done, and the next one has read.
fn after_a_kill_and_a_power_failure(seed: u64, syncs: bool) -> Option<Bytes> {
    world::run(seed, move || async move {
        let disk = MachineDisk::new(DiskProfile::slow());
        let device = disk.media();
        device.disk().replace(Path::new(PATH), Bytes::from_static(b"old")).await.unwrap();
        let replacing = runtime::spawn(async move {
            let _ = device.disk().replace(Path::new(PATH), Bytes::from_static(b"new")).await;
        });
        runtime::sleep(Duration::from_millis(1 + runtime::random_u64() % 25)).await;
        let was_done = replacing.is_finished();
        disk.crash_process();
        let next = disk.media();
        if syncs {
            next.disk().sync_directory(Path::new("/data")).await.unwrap();
        }
        let read = next.disk().read(Path::new(PATH)).await.unwrap().unwrap();
        disk.power_failure();
        (!was_done && read == "new").then_some(contents(&disk).await)
    })
}

#[test]
fn a_name_that_was_read_is_lost_with_the_power_unless_its_directory_was_synced() {
    let left = |syncs| -> std::collections::BTreeSet<Bytes> {
        (0..800).filter_map(|seed| after_a_kill_and_a_power_failure(seed, syncs)).collect()
    };
    assert_eq!(Vec::from_iter(left(false)), ["new", "old"]);
    assert_eq!(Vec::from_iter(left(true)), ["new"]);
}

#[test]
fn an_old_disk_an_empty_one_and_that_of_another_machine() {
    in_worlds(1, || async {
        let (disk, file) = disk_with_file().await;
        let engine = disk.media().open_engine(Path::new("/engine"), 0).await.unwrap();
        engine.write(&batch(1, "k")).unwrap();
        let old = disk.snapshot();
        file.write_and_sync(0, Bytes::from(vec![b'b'; 512])).await.unwrap();
        engine.write(&batch(2, "l")).unwrap();
        let (other, _) = disk_with_file().await;
        disk.exchange(&other);
        assert_eq!(sectors(&contents(&disk).await), "aaaa");
        assert_eq!(sectors(&contents(&other).await), "baaa");
        assert_eq!(version(&other).await, 2);
        assert!(engine.get(b"k").is_err(), "it was taken away");
        for _ in 0..2 {
            disk.restore(&old);
            assert_eq!(
                (sectors(&contents(&disk).await).as_str(), version(&disk).await),
                ("aaaa", 1)
            );
            let file = disk.media().disk().open(Path::new(PATH), OpenMode::Existing).await.unwrap();
            file.write_and_sync(0, Bytes::from_static(b"c")).await.unwrap();
        }
        disk.replace_with_empty();
        assert_eq!((disk.used_bytes(), version(&disk).await), (0, 0));
    });
}

fn batch(version: u64, key: &str) -> EngineBatch {
    let changes = vec![EngineChange::Set(row(version, key))];
    EngineBatch { version: Version(version), changes, attachment: None }
}

fn row(version: u64, key: &str) -> Row {
    Row { key: key.into(), value: "v".into(), commit_version: Version(version) }
}

async fn version(disk: &MachineDisk) -> u64 {
    disk.media().open_engine(Path::new("/engine"), 0).await.unwrap().version().0
}

#[test]
fn of_ingests_a_beginning_survives() {
    let mut left = std::collections::BTreeSet::new();
    for seed in 0..30 {
        left.insert(world::run(seed, || async {
            let disk = MachineDisk::new(DiskProfile::instant());
            let engine = disk.media().open_engine(Path::new("/engine"), 0).await.unwrap();
            engine.ingest(&[EngineChange::Set(row(1, "a"))]).unwrap();
            engine.write(&batch(2, "b")).unwrap();
            engine
                .ingest(&[EngineChange::Set(row(1, "c")), EngineChange::Set(row(1, "d"))])
                .unwrap();
            engine.ingest(&[EngineChange::Set(row(1, "e"))]).unwrap();
            disk.power_failure();
            assert!(engine.get(b"b").is_err(), "its process has died");
            let engine = disk.media().open_engine(Path::new("/engine"), 0).await.unwrap();
            ["a", "b", "c", "d", "e"].map(|key| engine.get(key.as_bytes()).unwrap().is_some())
        }));
    }
    let expected = [[true, true, false, false, false], [true, true, true, true, false], [true; 5]];
    assert_eq!(left.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn an_engine_fails_with_its_disk() {
    in_worlds(4, || async {
        let disk = MachineDisk::new(DiskProfile::instant());
        let open = || async { disk.media().open_engine(Path::new("/engine"), 0).await };
        let engine = open().await.unwrap();
        engine.write(&batch(1, "k")).unwrap();
        disk.fill(true);
        assert_eq!(engine.write(&batch(2, "l")).unwrap_err().code(), ErrorCode::DiskFull);
        disk.fill(false);
        assert!(engine.needs_reopening());
        assert_eq!(engine.write(&batch(2, "l")).unwrap_err().code(), ErrorCode::DiskFull);
        let engine = open().await.unwrap();
        engine.write(&batch(2, "l")).unwrap();
        disk.set_faults(Faults { write_errors: 1.0, ..Faults::NONE });
        assert_eq!(engine.write(&batch(3, "m")).unwrap_err().code(), ErrorCode::Disk);
        disk.set_faults(Faults::NONE);
        assert!(engine.write(&batch(3, "m")).is_err(), "it stays failed until it is opened again");
        let engine = open().await.unwrap();
        assert_eq!(engine.version(), Version(2));
        disk.set_faults(Faults::DEAD);
        assert!(engine.get(b"k").is_err() && open().await.is_err());
        assert!(engine.cursor(&KeyRange::prefix(b"k"), false).next().is_err());
        disk.set_faults(Faults::NONE);
        assert!(disk.flip_bit().unwrap().contains("'k'") || disk.flip_bit().is_some());
        assert_eq!(engine.get(b"k").unwrap_err().code(), ErrorCode::Corrupt);
        let mut cursor = engine.cursor(&KeyRange::prefix(b"k"), false);
        assert_eq!(cursor.next().unwrap_err().code(), ErrorCode::Corrupt);
    });
}
