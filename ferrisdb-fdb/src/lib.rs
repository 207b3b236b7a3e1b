//! The rules of FoundationDB's C interface, over the client: what its transactions do, without C.
//!
//! ```text
//!   program ----C----> ferrisdb-c      pointers, threads, memory            unsafe; real processes only
//!                          |
//!   simulation --------> ferrisdb-fdb  options as numbers, errors that show up later, retries    safe; runs anywhere
//!                          |
//!                      ferrisdb-client transactions
//! ```
//!
//! The library that programs load is a thin skin over this, so the simulation can drive the same rules over lossy links.
//! The only thing that the two users differ in is the kind of result that they hand out: [`Promise`].
//!
//! - [`transaction`]: start there
//! - [`database`], [`options`], [`errors`], [`api_version`]: what a transaction begins with, and the numbers
//! - [`mapped`], [`special`]: what only programs of FoundationDB ask for
//!
//! Knows nothing of pointers, threads, cluster files or the network.

pub mod api_version;
pub mod database;
pub mod errors;
pub mod mapped;
pub mod options;
mod promise;
mod size;
pub mod special;
pub mod transaction;

pub use ferrisdb_client::MappedRow;
pub use promise::{Ended, Output, Promise};
