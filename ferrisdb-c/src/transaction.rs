//! `FDBTransaction`: its rules are in [`ferrisdb_fdb::transaction`], its results are this library's futures.

pub use ferrisdb_fdb::transaction::{ConflictRangeType, RangeRequest};

use crate::future::Future;

/// `FDBTransaction`.
pub type Transaction = ferrisdb_fdb::transaction::Transaction<Future>;
