//! The client library of FerrisDB.

mod database;
mod options;
mod range_stream;
mod retry;
mod transaction;

pub use database::Database;
pub use ferrisdb_core::{
    Error, ErrorCode, Generation, Key, KeyRange, Result, Stage, Value, Version, Versionstamp,
    atomic::AtomicOp,
    id::{Address, ClusterId},
    service::controller::Status,
    transaction::IdempotencyId,
    transport::Network,
};
pub use options::{
    ExactlyOnce, KeyValue, RangePage, RangeQuery, Settings, TransactionOption, TransactionOptions,
    VersionedValue,
};
pub use range_stream::RangeStream;
pub use retry::{AsError, find_error};
pub use transaction::{Committed, Snapshot, Transaction};
