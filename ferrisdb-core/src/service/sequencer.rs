//! Versions for batches, and the newest version that is committed.

use serde::{Deserialize, Serialize};

use super::declare_service;
use crate::{
    error::Result,
    version::{Generation, Version},
};

/// The sequencer of a generation.
#[tarpc::service]
pub trait Sequencer {
    /// A version for a batch, chained to the one given out before. Whoever asks again for the same batch gets the same one: a
    /// version that nobody uses would be a gap in the chain. No two batches of a generation have the same number.
    async fn begin_batch(generation: Generation, batch: u64) -> Result<BatchVersions>;
    /// Every log has the batch of this version, and so all before it.
    async fn report_committed(generation: Generation, commit_version: Version) -> Result<()>;
    /// The newest version that was reported committed, by any proxy (I-1).
    async fn committed_version(generation: Generation) -> Result<Version>;
}

declare_service! {
    /// [`Sequencer`] as a service.
    SequencerService, Sequencer, SequencerRequest, SequencerResponse, SequencerClient
}

/// One link of the chain that resolvers, logs and storage servers follow (I-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchVersions {
    /// The version given out before this one: its batch is processed first everywhere.
    pub previous_version: Version,
    /// The batch's version.
    pub commit_version: Version,
    /// The newest version that was reported committed, by any proxy.
    pub known_committed_version: Version,
}
