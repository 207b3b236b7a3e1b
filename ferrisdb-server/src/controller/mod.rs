//! The controllers: they register processes, notice which ones fail, lead the cluster from one generation to the next, and
//! see to it that everything is kept as often as it should be.
//!
//! ```text
//!   heartbeats --> registry --(a member of the live generation failed)--> recovery --> a new generation
//!                     |                                                     |
//!                     |       1. begin generation g+1          agreed on before anything else happens
//!                     |       2. lock the old logs             R = the least durable version of the answers
//!                     |       3. recruit logs (which copy what only some logs have), sequencer, resolvers
//!                     |       4. recruit proxies               the first opens the generation by an empty commit
//!                     |       5. activate g+1                  agreed on, then published
//!                     |       6. drop the old logs             once every storage server has R on its own disk
//!                     |
//!                     +--> distribution --> transactions on the shard map --> storage servers copy and hand over
//! ```
//!
//! The controllers are a Raft group ([`crate::raft`]) that agrees on one small value, the [`cluster_record`]. Their leader
//! is the cluster controller. A new leader begins with the record, adopts the live generation if it is well, and
//! needs nothing else: who is alive it hears within a heartbeat, and what is being copied is in the shard map.
//!
//! | file | holds |
//! |---|---|
//! | [`cluster_record`] | what controllers remember together, and its encoding |
//! | [`registry`] | which processes there are, and which are alive |
//! | [`recruitment`] | who gets which role |
//! | [`links`] | who is left out because it may not reach another one; `proof` asks them |
//! | [`machine`] | the decisions, as a synchronous machine; its recovery in `recovery`, operators' wishes in `administration` |
//! | [`distribution`] | who should hold which keys |
//! | [`idempotency`] | which records of idempotency ids nobody will ask for; `sweep` reads and clears them |
//! | `server` | heartbeats and long polls in, recruitment calls out; `reign` is what runs while a controller leads |
//!
//! Keeps I-12 to I-14.

mod administration;
pub mod cluster_record;
pub mod distribution;
pub mod force;
pub mod idempotency;
pub mod links;
pub mod machine;
mod metrics;
mod proof;
mod recovery;
pub mod recruitment;
pub mod registry;
mod reign;
mod server;
mod sweep;

pub use metrics::ControllerMetrics;
pub use server::ControllerServer;
pub(crate) use server::handler;

use std::time::Duration;

use ferrisdb_core::{
    Key, limits,
    service::controller::{Configuration, Redundancy},
};

/// What a controller is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSettings {
    /// The shape of the cluster. Counts when the cluster is created; later it is changed by commands.
    pub configuration: Configuration,
    /// How many storage servers there have to be before the cluster is created.
    pub storage_servers: u32,
    /// Where the keyspace is cut into shards when the cluster is created, ascending.
    pub shard_boundaries: Vec<Key>,
    /// Where the keyspace is cut for the resolvers, ascending, if there is one resolver more than that; otherwise they
    /// share it evenly by the first bytes of keys.
    pub resolver_boundaries: Vec<Key>,
    /// A process that was silent for longer counts as failed.
    pub failure_timeout: Duration,
    /// How long the records of idempotency ids are kept, see [`limits::IDEMPOTENCY_LIFETIME`].
    pub idempotency_lifetime: Duration,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        ControllerSettings {
            configuration: Configuration {
                redundancy: Redundancy::Single,
                logs: 1,
                proxies: 1,
                resolvers: 1,
                storage_replace_after_ms: 60_000,
            },
            storage_servers: 1,
            shard_boundaries: Vec::new(),
            resolver_boundaries: Vec::new(),
            failure_timeout: Duration::from_secs(1),
            idempotency_lifetime: limits::IDEMPOTENCY_LIFETIME,
        }
    }
}
