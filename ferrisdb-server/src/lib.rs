//! The roles of FerrisDB, each a synchronous machine that decides and an async shell that moves messages.
//!
//! | to find | look in |
//! |---|---|
//! | generations, recovery, recruitment | [`controller`] |
//! | read versions, commits, conflicts | [`coordinator`] |
//! | durable batches | [`log`] |
//! | reads at a version, the engine | [`storage`] |
//! | how a process hosts roles | [`host`] |
//! | consensus on one value | [`raft`] |
//! | data directories: identity and lock | [`directory`] |
//! | settings of the binaries | [`config`] |
//! | logging, signals, panics, the exit code | `process` |

pub mod config;
pub mod controller;
pub mod coordinator;
#[cfg(not(madsim))]
pub mod descriptors;
pub mod directory;
pub mod host;
pub mod log;
#[cfg(not(madsim))]
pub mod process;
pub mod raft;
pub mod storage;
#[cfg(test)]
mod testscript;
