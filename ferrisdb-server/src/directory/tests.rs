use ferrisdb_core::runtime::disk::{FileSystem, MemoryDisk, OpenMode};

use super::*;

/// A disk with the path of a directory that does not exist yet, and what keeps it alive.
type TestDisk = (Arc<dyn Disk>, PathBuf, Option<tempfile::TempDir>);

/// The disk in memory, and where there is one, the real one.
fn disks() -> Vec<TestDisk> {
    let mut disks: Vec<TestDisk> =
        vec![(Arc::new(MemoryDisk::new()), PathBuf::from("data/log"), None)];
    if cfg!(not(madsim)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/log");
        disks.push((Arc::new(FileSystem), path, Some(directory)));
    }
    disks
}

fn identity() -> Identity {
    Identity {
        kind: DirectoryKind::Storage,
        process_id: ProcessId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        cluster_id: Some(ClusterId(0xfedc_ba98_7654_3210_0123_4567_89ab_cdef)),
    }
}

async fn open(disk: &Arc<dyn Disk>, path: &Path, kind: DirectoryKind) -> Result<DataDirectory> {
    DataDirectory::open(Arc::clone(disk), path, kind).await
}

async fn put(disk: &Arc<dyn Disk>, path: &Path, name: &str, contents: &[u8]) {
    disk.create_directory(path).await.unwrap();
    disk.replace(&path.join(name), Bytes::copy_from_slice(contents)).await.unwrap();
}

#[test]
fn the_bytes_of_an_identity_stay_what_they_are() {
    let mut golden = b"FERRISID\x00\x01\x00\x03".to_vec();
    golden.extend(b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
    golden.extend(b"\xfe\xdc\xba\x98\x76\x54\x32\x10\x01\x23\x45\x67\x89\xab\xcd\xef");
    golden.extend(b"\x5b\xd9\x44\xec");
    assert_eq!(identity().encode(), golden);
    assert_eq!(Identity::decode(&golden), Ok(identity()));
}

#[test]
fn every_flipped_bit_and_every_cut_of_an_identity_is_noticed() {
    let bytes = identity().encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(Identity::decode(&flipped), Err(Unusable::Damaged(_))), "bit {bit}");
    }
    for length in 0..bytes.len() {
        let decoded = Identity::decode(&bytes[..length]);
        assert!(matches!(decoded, Err(Unusable::Damaged(_))), "{length} bytes");
    }
}

#[tokio::test]
async fn a_directory_remembers_its_process_and_its_cluster() {
    for (disk, path, _guard) in disks() {
        let directory = open(&disk, &path, DirectoryKind::Log).await.unwrap();
        let process_id = directory.process_id();
        assert_eq!(directory.cluster_id(), None);
        assert_eq!(directory.path(), path);
        drop(directory);

        let directory = open(&disk, &path, DirectoryKind::Log).await.unwrap();
        assert_eq!(directory.process_id(), process_id);
        directory.join(ClusterId(7)).await.unwrap();
        directory.join(ClusterId(7)).await.unwrap();
        drop(directory);

        let directory = open(&disk, &path, DirectoryKind::Log).await.unwrap();
        assert_eq!(directory.process_id(), process_id);
        assert_eq!(directory.cluster_id(), Some(ClusterId(7)));
        let error = directory.join(ClusterId(8)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::WrongCluster);
        assert_eq!(directory.cluster_id(), Some(ClusterId(7)));
    }
}

#[tokio::test]
async fn a_joined_cluster_survives_a_crash() {
    let disk = MemoryDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let path = Path::new("log");
    let directory = open(&shared, path, DirectoryKind::Log).await.unwrap();
    directory.join(ClusterId(7)).await.unwrap();
    let process_id = directory.process_id();
    disk.crash();
    let directory = open(&shared, path, DirectoryKind::Log).await.unwrap();
    assert_eq!((directory.process_id(), directory.cluster_id()), (process_id, Some(ClusterId(7))));
}

/// Whether the disk took the first identity is not known, so the directory stays with the first cluster.
#[cfg(not(madsim))]
#[tokio::test]
async fn after_a_failed_join_only_the_same_cluster_is_tried_again() {
    let disk: Arc<dyn Disk> = Arc::new(FileSystem);
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let directory = open(&disk, &path, DirectoryKind::Log).await.unwrap();
    disk.create_directory(&path.join("identity.new")).await.unwrap();
    assert_eq!(directory.join(ClusterId(7)).await.unwrap_err().code(), ErrorCode::Disk);
    assert_eq!(directory.cluster_id(), None);
    assert_eq!(directory.join(ClusterId(8)).await.unwrap_err().code(), ErrorCode::WrongCluster);
    disk.remove_directory(&path.join("identity.new")).await.unwrap();
    directory.join(ClusterId(7)).await.unwrap();
    assert_eq!(directory.cluster_id(), Some(ClusterId(7)));
}

#[tokio::test]
async fn a_cluster_of_id_zero_is_no_cluster() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let directory = open(&disk, Path::new("log"), DirectoryKind::Log).await.unwrap();
    assert_eq!(directory.join(ClusterId(0)).await.unwrap_err().code(), ErrorCode::Protocol);
}

#[tokio::test]
async fn a_second_process_is_refused_while_the_first_one_runs() {
    for (disk, path, _guard) in disks() {
        let directory = open(&disk, &path, DirectoryKind::Log).await.unwrap();
        let error = open(&disk, &path, DirectoryKind::Log).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DirectoryLocked);
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        drop(directory);
        open(&disk, &path, DirectoryKind::Log).await.unwrap();
    }
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_not_touched() {
    for (disk, path, _guard) in disks() {
        put(&disk, &path, "holiday.jpg", b"sunset").await;
        let before = disk.list(&path).await.unwrap();
        let error = open(&disk, &path, DirectoryKind::Log).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::WrongDirectory);
        assert!(error.detail().contains("holiday.jpg"), "{error}");
        assert_eq!(disk.list(&path).await.unwrap(), before);
    }
}

#[tokio::test]
async fn what_a_crash_or_a_new_volume_leaves_counts_as_empty() {
    for (disk, path, _guard) in disks() {
        put(&disk, &path, "lock", b"").await;
        put(&disk, &path, "identity.new", b"FERR").await;
        disk.create_directory(&path.join("lost+found")).await.unwrap();
        open(&disk, &path, DirectoryKind::Log).await.unwrap();
    }
}

#[tokio::test]
async fn a_directory_of_another_kind_is_refused_by_name() {
    for (disk, path, _guard) in disks() {
        drop(open(&disk, &path, DirectoryKind::Storage).await.unwrap());
        let error = open(&disk, &path, DirectoryKind::Log).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::WrongDirectory);
        assert!(error.detail().contains("is a storage directory, for ferrisdb-storage"), "{error}");
        assert!(error.detail().contains("a log directory was expected"), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_identity_is_reported_and_not_replaced() {
    for (disk, path, _guard) in disks() {
        drop(open(&disk, &path, DirectoryKind::Log).await.unwrap());
        let file = disk.open(&path.join("identity"), OpenMode::Existing).await.unwrap();
        file.write_and_sync(20, Bytes::from_static(b"????")).await.unwrap();
        let error = open(&disk, &path, DirectoryKind::Log).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Corrupt);
        assert!(error.detail().contains("checksum"), "{error}");
        assert_eq!(&file.read_at(20, 4).await.unwrap()[..], b"????");
    }
}

#[tokio::test]
async fn a_newer_format_or_kind_is_told_from_damage() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let path = Path::new("log");
    for (offset, name) in [(9, "format"), (11, "kind")] {
        let mut bytes = identity().encode().to_vec();
        bytes[offset] = 99;
        let body = bytes.len() - CHECKSUM_BYTES;
        let checksum = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.to_be_bytes());
        put(&disk, path, "identity", &bytes).await;
        let error = open(&disk, path, DirectoryKind::Log).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::WrongDirectory);
        assert!(error.detail().contains(&format!("its {name} is 99")), "{error}");
    }
}
