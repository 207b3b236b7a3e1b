//! What proxies, storage servers and recoveries ask of a log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Health, declare_service};
use crate::{
    error::Result,
    id::Tag,
    version::{Generation, Version},
};

/// The log of one generation on one process.
#[tarpc::service]
pub trait Log {
    /// Appends a batch after the one of `previous_version`, and answers when it is on disk (I-5).
    ///
    /// Repeating a push that was appended waits for its sync and succeeds. One that finds the queues full is refused as
    /// [`crate::ErrorCode::TooBusy`], and may come again.
    async fn push(request: PushRequest) -> Result<PushReply>;
    /// A tag's messages after a version. Waits a while if there is nothing new.
    async fn peek(request: PeekRequest) -> Result<PeekReply>;
    /// The reader of a tag has everything up to a version on its own disk.
    async fn pop(tag: Tag, through_version: Version) -> Result<()>;
    /// From now on, across restarts, no push of a generation before `generation` succeeds (I-8).
    async fn lock(request: LockRequest) -> Result<LockReply>;
    /// Whole batches, for the log of a later generation that takes them over. Only a locked log answers.
    async fn copy(request: CopyRequest) -> Result<CopyReply>;
    /// Whether the log is still unlocked for `generation`.
    async fn confirm(generation: Generation) -> Result<()>;
    /// How the log is, for a proxy of `generation` whose push has not been answered. Refused as pushes are.
    async fn health(generation: Generation) -> Result<Health>;
}

declare_service! {
    /// [`Log`] as a service.
    LogService, Log, LogRequest, LogResponse, LogClient
}

/// A batch, or rather the part of it that this log keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRequest {
    /// The proxy's generation.
    pub generation: Generation,
    /// The batch before this one; the log appends in chain order (I-7).
    pub previous_version: Version,
    /// The batch's version.
    pub commit_version: Version,
    /// A version that is on all logs of the set; kept for recoveries and for readers.
    pub known_committed_version: Version,
    /// Mutations by tag, in the format of [`crate::mutation`]. Tags ascend.
    pub messages: Vec<(Tag, Bytes)>,
}

/// The batch is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReply {
    /// Everything up to here is on this log's disk.
    pub durable_version: Version,
}

/// What a reader wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeekRequest {
    /// Whose messages.
    pub tag: Tag,
    /// It has everything up to here.
    pub after_version: Version,
    /// About how many bytes of messages it takes at once; always a whole version.
    pub bytes_max: u32,
    /// How long to wait for something new, in milliseconds.
    pub wait_ms: u32,
}

/// What the log has for the reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeekReply {
    /// The tag's messages, by ascending version.
    pub messages: Vec<(Version, Bytes)>,
    /// The reply is complete up to here: the tag has nothing else. Never past what is durable here.
    pub through_version: Version,
    /// A version that is on all logs of the set.
    pub known_committed_version: Version,
    /// Messages up to here may be gone. A reader that has less has lost its place.
    pub popped_version: Version,
    /// No further push will succeed: what is durable now is all there will be.
    pub locked: bool,
}

/// The end of a log's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRequest {
    /// The generation that follows.
    pub generation: Generation,
    /// The recovery knows the changes of the shard map up to here.
    pub metadata_after: Version,
}

/// What a recovery learns from a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockReply {
    /// Everything up to here is on this log's disk.
    pub durable_version: Version,
    /// Everything up to here is on all logs of the set.
    pub known_committed_version: Version,
    /// The durable changes of the shard map after the version asked for, in the format of [`crate::mutation`].
    pub metadata: Vec<(Version, Bytes)>,
}

/// Which batches are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// Those after this version.
    pub after_version: Version,
    /// Those up to this version.
    pub through_version: Version,
    /// About how many bytes at once; always a whole batch.
    pub bytes_max: u32,
}

/// Batches of a locked log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReply {
    /// The batches, in chain order, each with those of its messages that this log keeps.
    pub batches: Vec<CopiedBatch>,
    /// The reply is complete up to here.
    pub through_version: Version,
}

/// A batch as a log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedBatch {
    /// The batch before.
    pub previous_version: Version,
    /// The batch's version.
    pub commit_version: Version,
    /// Mutations by tag. Tags ascend.
    pub messages: Vec<(Tag, Bytes)>,
}
