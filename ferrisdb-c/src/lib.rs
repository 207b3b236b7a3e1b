//! `libfdb_c.so`: FoundationDB's C interface, on FerrisDB. A program made for FoundationDB, in whatever language, runs on a
//! FerrisDB cluster when it finds this library in place of FoundationDB's.
//!
//! ```text
//!   the program            this library                                    ferrisdb-client
//!
//!   fdb_transaction_get    -> Transaction: checks, deferred error      ->  Transaction::get, polled once here, so that
//!                             a Future for the caller                      it sees what was written before the call
//!   fdb_run_network        -> the thread on which everything else runs
//!   callback, or
//!   block_until_ready      <- the Future is complete
//! ```
//!
//! The interface, its numbers and its layouts are those of FoundationDB's C API documentation and headers, for API versions
//! 520 to 800. What it means is ferrisdb-client's business; here is only what C needs, and where FoundationDB's rules differ from
//! the Rust client's: errors that show up later, in the next result, and options as numbers.
//!
//! - [`api`]: the functions, nothing but conversions
//! - [`network`], [`future`]: the thread, and what is complete when
//! - [`database`], [`transaction`], [`mapped`], [`special`], [`options`], [`errors`]: what the functions do
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
pub mod api_version;
pub mod database;
pub mod errors;
pub mod future;
pub mod handle;
pub mod layout;
pub mod mapped;
pub mod network;
pub mod options;
pub mod special;
pub mod transaction;
