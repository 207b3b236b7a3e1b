//! Reads at a version.

use serde::{Deserialize, Serialize};

use super::{controller::Progress, declare_service};
use crate::{
    digest::ValueDigest,
    error::Result,
    key::{Key, Value},
    range::KeyRange,
    version::Version,
};

/// A storage server.
#[tarpc::service]
pub trait Storage {
    /// Point reads, each at a version of its own; answers come in the order of the reads.
    async fn get(reads: Vec<PointRead>) -> Vec<Result<Option<VersionedValue>>>;
    /// The rows of a range, at a version, up to a limit.
    async fn get_range(request: RangeRead) -> Result<RangeReply>;
    /// Counts the bytes of a range at a version, or of its lower end as far as one call goes.
    async fn measure(request: Measure) -> Result<Measured>;
    /// How far the server is.
    async fn progress() -> Result<Progress>;
    /// Begins and ends watches of a session.
    async fn change_watches(changes: WatchChanges) -> Result<()>;
    /// What happened to the watches of a session since it was asked last; waits for so many milliseconds if there is
    /// nothing to say.
    async fn watch_news(session: WatchSessionId, wait_ms: u32) -> Result<WatchNews>;
}

declare_service! {
    /// [`Storage`] as a service.
    StorageService, Storage, StorageRequest, StorageResponse, StorageClient
}

/// A read of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointRead {
    /// The key.
    pub key: Key,
    /// The version to read at (I-2).
    pub read_version: Version,
}

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionedValue {
    /// The value.
    pub value: Value,
    /// The version of the commit that wrote it.
    pub commit_version: Version,
}

/// A read of a range, which lies within one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRead {
    /// The keys.
    pub range: KeyRange,
    /// The version to read at (I-2).
    pub read_version: Version,
    /// Most rows to return; at least 1.
    pub rows_max: u32,
    /// Most bytes of keys and values to return; the first row comes in any case.
    pub bytes_max: u32,
    /// Whether to begin at the end of the range and go down.
    pub reverse: bool,
}

/// A row of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The version of the commit that wrote it.
    pub commit_version: Version,
}

/// Rows, in the direction of the read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeReply {
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether a limit ended the read: there may be more behind the last row.
    pub more: bool,
}

/// A question about the size of a range, which lies within one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// The keys.
    pub range: KeyRange,
    /// The version to measure at (I-2).
    pub read_version: Version,
    /// A split point is wanted for each so many bytes; zero for none.
    pub chunk_bytes: u64,
    /// Bytes before the range that belong to its first chunk.
    pub has_passed: u64,
}

/// The size of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The bytes of keys and values below `through`.
    pub bytes: u64,
    /// How far was counted: the range's end, if one call was enough.
    pub through: Key,
    /// Where chunks end, in order.
    pub split_points: Vec<Key>,
    /// Bytes counted since the last split point.
    pub has_passed: u64,
    /// The bytes of what was counted, and of the whole range, on the server's disk: only their ratio means something.
    pub on_disk: (u64, u64),
}

/// One client's watches on one server. Drawn at random by the client, which gives it up with the first call that
/// fails, and begins all its watches again in another session: so no answer that was lost needs to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WatchSessionId(pub u64);

/// Changes of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchChanges {
    /// The session.
    pub session: WatchSessionId,
    /// Whether these are its first ones. If they are not, a server that does not know it has forgotten its watches.
    pub begins_session: bool,
    /// Watches to begin.
    pub begin: Vec<Watched>,
    /// Watches to end, by number.
    pub end: Vec<u64>,
}

/// A key that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// By what its client calls it.
    pub number: u64,
    /// The key.
    pub key: Key,
    /// The value that the client knows: there is news when the key has another one. A digest, because both sides
    /// keep it for as long as the watch lasts, and values can be long.
    pub known: Option<ValueDigest>,
    /// A committed version at which the key had this value. What the server has of earlier versions is no news.
    pub known_version: Version,
}

/// News of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchNews {
    /// How far the server was: a change up to here that has happened to a watch is in these news, or was in earlier
    /// ones, unless there are more than fit in.
    pub applied_version: Version,
    /// The watches that have ended, by number.
    pub ended: Vec<(u64, WatchEnd)>,
}

/// How a watch has ended on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchEnd {
    /// The key has had another value at this version, which may not be committed and be rolled back.
    Changed(Version),
    /// The server does not hold the key.
    WrongShard,
    /// The server has too many watches.
    TooMany,
}
