//! What clients ask of a proxy: read versions and commits.

use super::declare_service;
use crate::{
    error::Result,
    transaction::{CommitOutcome, CommitRequest},
    version::Version,
};

/// A proxy of a generation.
#[tarpc::service]
pub trait Proxy {
    /// A version that covers every commit acknowledged before the call (I-1).
    ///
    /// Work in the background is refused while the proxy is busy.
    async fn read_version(is_background: bool) -> Result<Version>;
    /// Commits a transaction, or says why not.
    ///
    /// An error other than [`crate::ErrorCode::CommitUnknownResult`] means that it did not take effect.
    async fn commit(request: CommitRequest) -> Result<CommitOutcome>;
    /// Commits several transactions that have nothing to do with each other, an outcome for each, in order. Answers when
    /// all have ended.
    async fn commit_all(requests: Vec<CommitRequest>) -> Vec<Result<CommitOutcome>>;
}

declare_service! {
    /// [`Proxy`] as a service.
    ProxyService, Proxy, ProxyRequest, ProxyResponse, ProxyClient
}
