//! The words that every part of FerrisDB shares. This crate decides nothing.
//!
//! | to find | look in |
//! |---|---|
//! | versions, generations, versionstamps | [`version`] |
//! | keys, ranges, identities | [`key`], [`range`], [`id`] |
//! | what a transaction sends to commit | [`transaction`], [`mutation`], [`atomic`] |
//! | every bound of the system | [`limits`] |
//! | the one public error, and what to do about it | [`error`] |
//! | the newest known state of the cluster | [`cluster_view`] |
//! | the protocol between processes | [`service`] |
//! | how messages travel | [`transport`] |
//! | time, tasks, randomness, disk | [`runtime`] |

pub mod atomic;
pub mod cluster_view;
pub mod error;
pub mod id;
pub mod key;
pub mod limits;
pub mod mutation;
pub mod range;
pub mod runtime;
pub mod service;
pub mod transaction;
pub mod transport;
pub mod version;

pub use error::{Error, ErrorCode, Result, Stage};
pub use id::{ClusterId, Endpoint, ProcessId, Tag};
pub use key::{Key, Value};
pub use mutation::Mutation;
pub use range::KeyRange;
pub use version::{Generation, Version, Versionstamp};
