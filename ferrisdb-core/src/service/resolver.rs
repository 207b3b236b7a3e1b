//! Which transactions of a batch conflict.

use serde::{Deserialize, Serialize};

use super::{Health, declare_service};
use crate::{
    error::Result,
    mutation::Mutation,
    range::KeyRange,
    transaction::ConflictingRead,
    version::{Generation, Version},
};

/// A resolver of a generation: decides over a part of the key space.
#[tarpc::service]
pub trait Resolver {
    /// Decides on a batch, after the batch of `previous_version` (I-7).
    ///
    /// Repeating the call gets the same verdicts again, for as long as the window reaches back. A batch that comes too early
    /// while too many wait is refused as [`crate::ErrorCode::TooBusy`], and may come again.
    async fn resolve(request: ResolveRequest) -> Result<ResolveReply>;
    /// How the resolver is, for a proxy of `generation` whose batch has not been answered.
    async fn health(generation: Generation) -> Result<Health>;
}

declare_service! {
    /// [`Resolver`] as a service.
    ResolverService, Resolver, ResolverRequest, ResolverResponse, ResolverClient
}

/// A batch, reduced to what the resolver decides on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// The proxy's generation; another one is refused.
    pub generation: Generation,
    /// Which proxy of the generation: metadata changes are remembered until each proxy has had them.
    pub proxy: u32,
    /// The batch to be resolved before this one.
    pub previous_version: Version,
    /// The version at which accepted transactions will have written.
    pub commit_version: Version,
    /// The transactions, in their order within the batch.
    pub transactions: Vec<ResolveTransaction>,
    /// Changes of the shard map, by the index of the transaction that makes them, ascending. Only the resolver of
    /// the system keyspace gets them.
    pub metadata: Vec<(u32, Vec<Mutation>)>,
}

/// A transaction, as far as this resolver is concerned with it. Ranges are cut to the resolver's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveTransaction {
    /// The version it read at.
    pub read_version: Version,
    /// What it read, with the range's index in the transaction.
    pub read_conflicts: Vec<(u32, KeyRange)>,
    /// What it writes.
    pub write_conflicts: Vec<KeyRange>,
    /// Whether a conflict is answered with all ranges that conflicted.
    pub report_conflicts: bool,
}

/// The verdicts on a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveReply {
    /// One for each transaction, in order.
    pub verdicts: Vec<Verdict>,
    /// The version of the proxy's batch before this one; where the generation began, if it is the first.
    pub previous_batch: Version,
    /// The accepted changes of the shard map by other proxies' batches since that batch, in order.
    pub metadata: Vec<MetadataBatch>,
}

/// The accepted changes of the shard map of one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataBatch {
    /// The batch's version.
    pub commit_version: Version,
    /// The changes, in order.
    pub mutations: Vec<Mutation>,
}

/// The decision on one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// No conflict in this resolver's keys.
    Accepted,
    /// It read what was written after its read version.
    Conflict {
        /// The conflicting ranges: all if that was asked for, or else some of them.
        reads: Vec<ConflictingRead>,
    },
    /// Its read version is older than the window.
    TooOld,
}
