//! Storage servers: reads at a version, and the data on disk.
//!
//! ```text
//!   logs --pull--> machine --> window (the last seconds, in memory) --flush--> engine (one version, on disk)
//!                                   |                                              |
//!   clients --get, get_range--> service: keys it owns, versions it has ------------+
//! ```
//!
//! | to find | look in |
//! |---|---|
//! | which log is asked, what is rolled back, what goes to disk | [`machine`] |
//! | the tasks that do it | [`server`] |
//! | how a read is answered, and why it is right | `service`, [`read`] |
//! | the last versions, in memory | [`window`] |
//! | the state at one version, on disk | [`engine`] |
//! | which keys the server answers for | [`ownership`] |
//!
//! Keeps I-2, I-3, I-9, I-10 and I-11.

pub mod engine;
pub mod machine;
pub mod ownership;
pub mod read;
pub mod server;
mod service;
#[cfg(test)]
#[cfg(not(madsim))]
mod tests;
mod waiters;
pub mod window;

pub use server::{StorageServer, StorageSettings};
