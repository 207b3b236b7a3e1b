//! The words that every part of FerrisDB shares. This crate decides nothing.
//!
//! | to find | look in |
//! |---|---|
//! | versions, generations, versionstamps | [`version`] |
//! | keys, ranges, identities | [`key`], [`range`], [`id`] |
//! | what a transaction sends to commit | [`transaction`], [`mutation`], [`atomic`] |
//! | every bound of the system | [`limits`] |
//! | the one public error, and what to do about it | [`error`] |
//! | who holds which keys | [`shard`] |
//! | which logs of a set have to answer | [`copy_groups`] |
//! | which idempotency ids were committed | [`idempotency`] |
//! | the newest known state of the cluster, the leading controller | [`cluster_view`], [`controllers`] |
//! | the protocol between processes | [`service`] |
//! | how messages travel | [`transport`] |
//! | time, tasks, randomness, disk | [`runtime`] |
//! | where the time goes | [`metrics`] |

pub mod atomic;
pub mod cluster_view;
pub mod controllers;
pub mod copy_groups;
pub mod digest;
pub mod error;
pub mod id;
pub mod idempotency;
pub mod key;
pub mod limits;
pub mod metrics;
pub mod mutation;
pub mod range;
pub mod runtime;
pub mod service;
pub mod shard;
pub mod simulation;
pub mod transaction;
pub mod transport;
pub mod version;

pub use error::{Error, ErrorCode, Result, Stage};
pub use id::{ClusterId, Endpoint, ProcessId, Tag};
pub use key::{Key, Value};
pub use mutation::Mutation;
pub use range::KeyRange;
pub use shard::{Shard, ShardChange, ShardMap, ShardRole, Teams};
pub use version::{Generation, Version, Versionstamp};
