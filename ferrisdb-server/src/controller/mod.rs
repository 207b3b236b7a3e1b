//! The controller: registers processes, notices which ones fail, and leads the cluster from one generation to the next.
//!
//! ```text
//!   heartbeats --> registry --(a member of the live generation failed)--> recovery --> a new generation
//!                                                                           |
//!                    1. begin generation g+1          on disk before anything else happens
//!                    2. lock the old logs             R = the least durable version of the answers
//!                    3. recruit logs and coordinator  which opens the generation by an empty commit
//!                    4. activate g+1                  on disk, then published to clients and storage servers
//!                    5. drop the old logs             once every storage server has R on its own disk
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`cluster_record`] | what a controller remembers across restarts, and its encoding |
//! | [`registry`] | which processes there are, and which are alive |
//! | [`machine`] | the decisions, as a synchronous machine |
//! | `server` | heartbeats and long polls in, recruitment calls out |
//!
//! Keeps I-12 and I-14. There is one controller for now, and its record is a file: the Raft group that
//! replaces it takes the same records as its log's entries.
//!
//! # Caveats
//!
//! A recovery waits until as many logs as the configuration asks for are alive, and does not copy
//! the tail of the old set to the new one: the old set is kept, and read from, until all storage servers
//! have its data.

pub mod cluster_record;
pub mod machine;
pub mod registry;
mod server;

pub use server::ControllerServer;

use std::time::Duration;

use ferrisdb_core::Key;

/// The shape of a cluster, and how patient its controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSettings {
    /// How many logs each generation has.
    pub logs: u32,
    /// On how many of them each storage server's messages are kept.
    pub log_replication: u32,
    /// How many storage servers the cluster is created with.
    pub storage_servers: u32,
    /// How many of them hold each key.
    pub storage_replication: u32,
    /// Where the keyspace is cut into shards when the cluster is created, ascending.
    pub shard_boundaries: Vec<Key>,
    /// How many proxies each generation has.
    pub proxies: u32,
    /// How many resolvers each generation has.
    pub resolvers: u32,
    /// A process that was silent for longer counts as failed.
    pub failure_timeout: Duration,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        ControllerSettings {
            logs: 1,
            log_replication: 1,
            storage_servers: 1,
            storage_replication: 1,
            shard_boundaries: Vec::new(),
            proxies: 1,
            resolvers: 1,
            failure_timeout: Duration::from_secs(1),
        }
    }
}
