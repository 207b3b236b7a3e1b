//! `libfdb_c.so`: FoundationDB's C interface, on FerrisDB. A program made for FoundationDB, in whatever language, runs on a
//! FerrisDB cluster when it finds this library in place of FoundationDB's.
//!
//! ```text
//!   the program            this library               ferrisdb-fdb                    ferrisdb-client
//!
//!   fdb_transaction_get    -> a Future for the caller -> checks, deferred errors  ->  Transaction::get, polled once here, so
//!                                                                                     it sees what was written before the call
//!   fdb_run_network        -> the thread on which everything else runs
//!   callback, or
//!   block_until_ready      <- the Future is complete
//! ```
//!
//! The interface, its numbers and its layouts are those of FoundationDB's C API documentation and headers, for API versions
//! 520 to 800. What it means is ferrisdb-client's business; where FoundationDB's rules differ from the Rust client's, such as errors
//! that show up later, in the next result, and options as numbers, they are in ferrisdb-fdb, which also runs in the simulation. Here
//! is only what C needs.
//!
//! - [`api`]: the functions, nothing but conversions
//! - [`network`], [`future`]: the thread, and what is complete when
//! - [`database`], [`options`]: finding the cluster, options of the network
//! - [`transaction`], [`errors`], [`api_version`]: of `ferrisdb-fdb`
//!
//! Not here: tenants, blob granules, and orders to single processes. Their functions exist and answer
//! `unsupported_operation`.
//!
//! # Safety
//!
//! `unsafe` is where pointers come in from C and go out to it: [`api`], [`handle`] and [`future`]. No panic passes the boundary: it is
//! caught there and becomes `internal_error`.

#![cfg(not(madsim))]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod api;
pub mod database;
pub mod future;
pub mod handle;
pub mod layout;
pub mod network;
pub mod options;
pub mod transaction;

pub use ferrisdb_fdb::{api_version, errors};
