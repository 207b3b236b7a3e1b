//! A data directory: who it belongs to, and that one process at a time has it.
//!
//! ```text
//!   log/
//!     identity      what the directory is for, of which process, of which cluster
//!     lock          held by the running process
//!     ...           the role's own files
//!
//!   identity, 48 bytes, integers with their most significant byte first:
//!     0         8        10      12                28               44        48
//!     | FERRISID | format | kind  | process id      | cluster id      | crc32c |
//!                    1                                 0: none yet
//! ```
//!
//! Disks are moved, paths are mistyped, volumes fail to mount. So nothing is written to a directory before
//! it is known to be ours or empty, and everything else that opens a directory goes by what its identity
//! says: the process keeps its [`ProcessId`] across restarts, and never meets another cluster than its own.
//!
//! The checksum is the last thing in the file in every format to come, so a damaged file is told from a newer
//! one. Start with [`DataDirectory::open`].

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use ferrisdb_core::{
    ClusterId, Error, ErrorCode, ProcessId, Result, Stage,
    runtime::{DirectoryLock, Disk},
};
use parking_lot::Mutex;

const MAGIC: &[u8; 8] = b"FERRISID";
const FORMAT: u16 = 1;
const IDENTITY_BYTES: usize = 8 + 2 + 2 + 16 + 16 + 4;
const CHECKSUM_BYTES: usize = 4;

/// Names that may stand in a directory that counts as empty: our own lock, what a crash leaves of an
/// identity that was being written, and what a file system puts into a new volume.
const NAMES_OF_NOBODY: [&str; 3] = ["lock", "identity.new", "lost+found"];

/// What a directory is for. The numbers are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum DirectoryKind {
    /// The state of a controller.
    Controller = 1,
    /// The segments of a log.
    Log = 2,
    /// The keys and values of a storage server.
    Storage = 3,
    /// All of it: `controller/`, `log/` and `storage/`, each with an identity of its own.
    Server = 4,
}

impl DirectoryKind {
    const ALL: [DirectoryKind; 4] = [
        DirectoryKind::Controller,
        DirectoryKind::Log,
        DirectoryKind::Storage,
        DirectoryKind::Server,
    ];

    fn from_number(number: u16) -> Option<DirectoryKind> {
        DirectoryKind::ALL.into_iter().find(|&kind| kind as u16 == number)
    }

    /// The binary that such a directory is for.
    fn binary(self) -> &'static str {
        match self {
            DirectoryKind::Controller => "ferrisdb-controller",
            DirectoryKind::Log => "ferrisdb-log",
            DirectoryKind::Storage => "ferrisdb-storage",
            DirectoryKind::Server => "ferrisdb-server",
        }
    }
}

impl fmt::Display for DirectoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DirectoryKind::Controller => "controller",
            DirectoryKind::Log => "log",
            DirectoryKind::Storage => "storage",
            DirectoryKind::Server => "server",
        })
    }
}

/// What the file `identity` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    kind: DirectoryKind,
    process_id: ProcessId,
    cluster_id: Option<ClusterId>,
}

/// Why a file is not an identity that can be used.
#[derive(Debug, PartialEq, Eq)]
enum Unusable {
    Damaged(String),
    Unknown(String),
}

impl Identity {
    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(IDENTITY_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_u16(FORMAT);
        bytes.put_u16(self.kind as u16);
        bytes.put_u128(self.process_id.0);
        bytes.put_u128(self.cluster_id.map_or(0, |cluster_id| cluster_id.0));
        bytes.put_u32(crc32c::crc32c(&bytes));
        assert_eq!(bytes.len(), IDENTITY_BYTES, "the identity's layout is wrong");
        bytes.freeze()
    }

    fn decode(bytes: &[u8]) -> Result<Identity, Unusable> {
        let damaged = |what: String| Err(Unusable::Damaged(what));
        if bytes.len() < MAGIC.len() + 2 + CHECKSUM_BYTES {
            return damaged(format!("it has {} bytes", bytes.len()));
        }
        if !bytes.starts_with(MAGIC) {
            return damaged("it does not begin as one".to_owned());
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if crc32c::crc32c(body) != u32::from_be_bytes(array(checksum, 0)) {
            return damaged("its checksum is wrong".to_owned());
        }
        let format = u16::from_be_bytes(array(body, 8));
        if format != FORMAT {
            return Err(Unusable::Unknown(format!(
                "its format is {format}, made by another version; this one knows {FORMAT}"
            )));
        }
        if bytes.len() != IDENTITY_BYTES {
            return damaged(format!("it has {} bytes instead of {IDENTITY_BYTES}", bytes.len()));
        }
        let kind = u16::from_be_bytes(array(body, 10));
        let Some(kind) = DirectoryKind::from_number(kind) else {
            return Err(Unusable::Unknown(format!("its kind is {kind}, made by another version")));
        };
        let cluster_id = u128::from_be_bytes(array(body, 28));
        Ok(Identity {
            kind,
            process_id: ProcessId(u128::from_be_bytes(array(body, 12))),
            cluster_id: (cluster_id != 0).then_some(ClusterId(cluster_id)),
        })
    }
}

/// The bytes of an integer. The caller has checked the length.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[offset..offset + N]);
    array
}

/// A data directory that this process has for itself until it is dropped.
pub struct DataDirectory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    kind: DirectoryKind,
    process_id: ProcessId,
    membership: Mutex<Membership>,
    _lock: DirectoryLock,
}

/// The cluster, before and after the disk has taken it.
#[derive(Debug)]
struct Membership {
    /// The only cluster that the directory can belong to, if one was ever written.
    claimed: Option<ClusterId>,
    /// The cluster that it belongs to, on disk.
    joined: Option<ClusterId>,
}

impl DataDirectory {
    /// Opens a directory of a kind. One that is missing or empty is created, as a new process' own.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::DirectoryLocked`] if another process has it;
    /// - [`ErrorCode::WrongDirectory`] if it holds something else: then nothing in it is touched;
    /// - [`ErrorCode::Corrupt`] if its identity is damaged;
    /// - [`ErrorCode::Disk`] if the disk fails.
    pub async fn open(
        disk: Arc<dyn Disk>,
        path: impl Into<PathBuf>,
        kind: DirectoryKind,
    ) -> Result<DataDirectory> {
        let path = path.into();
        // Before the lock, whose file would be the first of ours among somebody else's.
        check_ours_or_empty(&*disk, &path, kind).await?;
        disk.create_directory(&path).await?;
        let lock = disk.lock_directory(&path).await?;
        // Whoever was here before may have been killed before its names were durable.
        disk.sync_directory(&path).await?;
        let identity_path = path.join("identity");
        let identity = match disk.read(&identity_path).await? {
            Some(bytes) => read_identity(&path, &bytes, kind)?,
            None => {
                // Once more: another process may have used the directory and ended before we locked it.
                check_ours_or_empty(&*disk, &path, kind).await?;
                let identity = Identity { kind, process_id: ProcessId::random(), cluster_id: None };
                disk.replace(&identity_path, identity.encode()).await?;
                tracing::info!(
                    path = %path.display(), %kind, process_id = %identity.process_id,
                    "created a data directory"
                );
                identity
            }
        };
        let Identity { process_id, cluster_id, .. } = identity;
        let membership = Mutex::new(Membership { claimed: cluster_id, joined: cluster_id });
        Ok(DataDirectory { disk, path, kind, process_id, membership, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is for.
    pub fn kind(&self) -> DirectoryKind {
        self.kind
    }

    /// The process it belongs to: drawn when the directory was created.
    pub fn process_id(&self) -> ProcessId {
        self.process_id
    }

    /// The cluster it belongs to, if it has joined one.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.membership.lock().joined
    }

    /// Makes the directory one of a cluster, for good: on disk when this returns. One call at a time.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::WrongCluster`] if it belongs to another cluster;
    /// - [`ErrorCode::Protocol`] if `cluster_id` is zero, which no cluster is;
    /// - [`ErrorCode::Disk`] if the disk fails. Nobody knows then what it has taken, so the same cluster can be
    ///   joined again, and no other.
    pub async fn join(&self, cluster_id: ClusterId) -> Result<()> {
        self.claim(cluster_id)?;
        if self.cluster_id() == Some(cluster_id) {
            return Ok(());
        }
        let identity =
            Identity { kind: self.kind, process_id: self.process_id, cluster_id: Some(cluster_id) };
        self.disk.replace(&self.path.join("identity"), identity.encode()).await?;
        self.membership.lock().joined = Some(cluster_id);
        tracing::info!(path = %self.path.display(), %cluster_id, "joined a cluster");
        Ok(())
    }

    fn claim(&self, cluster_id: ClusterId) -> Result<()> {
        let refuse = |code, detail: String| Err(Error::new(code, Stage::Process, detail));
        if cluster_id.0 == 0 {
            return refuse(ErrorCode::Protocol, "a cluster with the id zero".to_owned());
        }
        let claimed = *self.membership.lock().claimed.get_or_insert(cluster_id);
        if claimed == cluster_id {
            return Ok(());
        }
        let path = self.path.display();
        refuse(
            ErrorCode::WrongCluster,
            format!("{path} belongs to cluster {claimed}, the controllers to cluster {cluster_id}"),
        )
    }
}

impl fmt::Debug for DataDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, kind, process_id) = (self.path.display(), self.kind, self.process_id);
        write!(f, "DataDirectory({path}, {kind}, {process_id}, {:?})", self.cluster_id())
    }
}

/// Refuses a directory that has something in it but no identity.
async fn check_ours_or_empty(disk: &dyn Disk, path: &Path, kind: DirectoryKind) -> Result<()> {
    let mut names = disk.list(path).await?;
    if names.iter().any(|name| name == "identity") {
        return Ok(());
    }
    names.retain(|name| !NAMES_OF_NOBODY.contains(&name.as_str()));
    if names.is_empty() {
        return Ok(());
    }
    let examples = names.iter().take(3).map(|name| format!("{name:?}")).collect::<Vec<_>>();
    let more = if names.len() > examples.len() { " and more" } else { "" };
    Err(wrong_directory(format!(
        "{} is not empty and no data directory of FerrisDB: it holds {}{more}; a {kind} directory or an empty \
         one was expected, and nothing was touched",
        path.display(),
        examples.join(", ")
    )))
}

fn read_identity(path: &Path, bytes: &[u8], kind: DirectoryKind) -> Result<Identity> {
    let identity = Identity::decode(bytes).map_err(|unusable| {
        let path = path.join("identity");
        match unusable {
            Unusable::Damaged(what) => {
                let detail = format!("{} is not an identity: {what}", path.display());
                Error::new(ErrorCode::Corrupt, Stage::Process, detail)
            }
            Unusable::Unknown(what) => {
                wrong_directory(format!("{} cannot be read: {what}", path.display()))
            }
        }
    })?;
    if identity.kind != kind {
        return Err(wrong_directory(format!(
            "{} is a {} directory, for {}; a {kind} directory was expected",
            path.display(),
            identity.kind,
            identity.kind.binary()
        )));
    }
    Ok(identity)
}

fn wrong_directory(detail: String) -> Error {
    Error::new(ErrorCode::WrongDirectory, Stage::Process, detail)
}

#[cfg(test)]
mod tests;
