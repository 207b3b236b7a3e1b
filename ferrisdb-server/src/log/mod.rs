//! The log: batches made durable in chain order, and read back tag by tag.
//!
//! A process of class log keeps one *instance* per generation, each in a directory of its own. Only the newest
//! takes pushes; older ones are read until every storage server has their data on its own disk.
//!
//! ```text
//!   <data>/17/state           instance, begin_version 300, locked by 18, first segment 2, what was dropped
//!   <data>/17/00000002.log    | header | 300->310 | 310->325 |            sealed: its successor names its length
//!   <data>/17/00000003.log    | header | 325->340 | 340->341 | 0 0 0 0    active: a torn tail is cut at a restart
//!                                                            ^
//!                                                            zeros written ahead, so that an append changes no metadata
//!
//!   push --> early? wait : append --> writer: one write and sync for all that came meanwhile --> answer
//!                             |
//!                             +--> recent (memory, by tag) --> peek
//!                                  a lagging peek reads the segments, through a sparse index
//! ```
//!
//! | to find | look in |
//! |---|---|
//! | every decision | [`machine`] |
//! | calls, writes and files around it | [`server`], [`read`] |
//! | the instances of a process: recruit, retire | [`store`] |
//! | what a new log takes over from the set before | `copy` |
//! | how much is synced at once, and what is seen of it | `pieces` |
//! | formats on disk | [`envelope`], [`record`], [`segment`], [`state`] |
//! | what is cut and what is refused at a restart | [`recover`] |
//! | recent messages; where a version is on disk | [`recent`], [`layout`] |
//!
//! Keeps I-5 (a push is answered after its sync), I-7 (chain order) and I-8 (a lock outlives restarts). Knows nothing of
//! mutations, shards or other logs. Start with [`machine::Log::step`].

pub(crate) mod copy;
mod envelope;
mod layout;
pub mod machine;
mod metrics;
mod pieces;
mod read;
mod recent;
mod record;
mod recover;
mod segment;
mod server;
mod settings;
mod state;
mod store;

pub use metrics::LogMetrics;
pub use settings::LogSettings;
pub use store::{LogStore, Superseded};
