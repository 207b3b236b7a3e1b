//! The proxy: what clients talk to. It hands out read versions and takes transactions to their commit.
//!
//! | file | decides |
//! |---|---|
//! | [`batch`] | which waiting transactions go together |
//! | [`commit`] | the phases of a batch: resolve, push, answer |
//! | [`routing`] | which storage servers, and so which logs, a mutation is for |
//! | [`patience`] | whether a member that does not answer is slow or dead |
//! | [`link`] | what a broken connection to a member means |
//! | [`read_version`] | when a version may be handed out |
//!
//! `server.rs` holds the connections and moves the messages.

pub mod batch;
pub mod commit;
pub mod link;
mod metrics;
pub mod patience;
pub mod read_version;
pub mod routing;
mod server;

pub use metrics::ProxyMetrics;
pub use server::{ProxyMembers, ProxyServer, ProxySettings, Ways};
