//! Storage servers: reads at a version, and the data on disk.
//!
//! ```text
//!   logs --pull--> machine --> shards --> window (the last seconds) --flush--> engine (one version, on disk)
//!                                              |                                  |  ^
//!   clients --get, get_range--> service: keys it owns, versions it has -----------+  |
//!   other servers --pages of a shard that it joins-----------------------------------+
//! ```
//!
//! | to find | look in |
//! |---|---|
//! | which log is asked, what is rolled back, what goes to disk | [`machine`] |
//! | the tasks that do it | [`server`], `pulling`, `flushing` |
//! | how a read is answered, and why it is right | `service`, [`read`] |
//! | how much one request may look at | [`budget`] |
//! | the last versions, in memory | [`window`] |
//! | the state at one version, on disk | [`engine`] |
//! | which keys the server answers for, and which writes it takes | [`shards`] |
//! | who is told when a key changes | [`watch`] |
//! | how it gets a shard from another server | [`fetch`]; why that is right: [`shards`] |
//!
//! Keeps I-2, I-3, I-9, I-10 and I-11.

pub mod budget;
pub mod engine;
pub mod fetch;
mod flushing;
pub mod machine;
mod measure;
mod metrics;
mod pulling;
pub mod read;
pub mod server;
mod service;
mod serving;
pub mod shards;
#[cfg(test)]
#[cfg(not(madsim))]
mod tests;
mod waiters;
pub mod watch;
pub mod window;

pub use metrics::StorageMetrics;
pub use server::{StorageServer, StorageSettings};
