//! The client library of FerrisDB, a distributed, ordered, transactional key-value database.
//!
//! A [`Database`] is a handle, cheap to clone. A [`Transaction`] reads at one version, sees its own writes,
//! and takes effect at once or not at all. [`Database::run_transaction`] starts over after conflicts and
//! failures, and applies a transaction exactly once:
//!
//! ```no_run
//! use ferrisdb_client::{Database, Error};
//!
//! /// Moves an item from one list to another, unless it is gone.
//! async fn move_item(database: &Database, item: &str) -> Result<bool, Error> {
//!     let (from, to) = (&format!("inbox/{item}"), &format!("done/{item}"));
//!     database
//!         .run_transaction(|transaction| async move {
//!             let Some(value) = transaction.get(from.as_str()).await? else { return Ok(false) };
//!             transaction.clear(from.as_str())?;
//!             transaction.set(to.as_str(), value)?;
//!             transaction.add("moves", 1)?;
//!             Ok(true)
//!         })
//!         .await
//! }
//!
//! # async fn example() -> Result<(), Error> {
//! let database = Database::connect("127.0.0.1:4500").await?;
//! move_item(&database, "letter").await?;
//!
//! // Ranges are ordered by key, in both directions, and can be read in pages.
//! let transaction = database.transaction();
//! for row in transaction.get_range("done/".."done0").await? {
//!     println!("{} = {}", row.key, row.value);
//! }
//! # Ok(()) }
//! ```
//!
//! Reads that are issued together travel together: `futures::try_join!(a.get("x"), a.get("y"))` is one request
//! to a server that holds both. A read that other transactions may change without being a conflict goes
//! through [`Transaction::snapshot`].
//!
//! | to find | look in |
//! |---|---|
//! | connecting, running transactions | [`Database`] |
//! | reads, writes, commit | [`Transaction`] |
//! | hearing of changes | [`Transaction::watch`], [`Watch`] |
//! | options and limits | [`TransactionOption`], [`Settings`], [`ferrisdb_core::limits`] |
//! | changing the cluster's shape, excluding servers | [`Database::configure`], [`Database::exclude`], [`Command`] |
//! | whether all replicas hold the same | [`Database::check_consistency`] |
//! | keys made of values, parts of the keys, names for them | [`mod@tuple`], [`Subspace`], [`directory`] |
//! | what an error means and what to try | [`Error`], [`ErrorCode`] |
//! | errors of your own in a transaction | [`AsError`] |

mod administration;
mod batch;
mod cluster;
mod cluster_file;
mod connections;
mod consistency;
mod database;
pub mod directory;
#[cfg(feature = "embedded")]
mod embedded;
mod exactly_once;
mod hedge;
mod locations;
mod options;
mod range_stream;
mod read_your_writes;
mod retry;
mod selector;
pub mod special_keys;
mod subspace;
mod transaction;
pub mod tuple;
mod watch;

pub use administration::{ControllerAnswer, ask_controllers};
pub use cluster_file::{CLUSTER_FILE_NAME, CLUSTER_FILE_VARIABLE, Connection};
pub use consistency::{
    ConsistencyProgress, ConsistencyReport, Difference, Replica, ReplicaRow, Unchecked,
};
pub use database::Database;
pub use ferrisdb_core::{
    Error, ErrorCode, Generation, Key, KeyRange, Result, Stage, Value, Version, Versionstamp,
    atomic::AtomicOp,
    id::{Address, ClusterId},
    service::controller::{
        Command, Configuration, ConfigurationChange, ControllerMember, Leader, ProcessSelector,
        Redundancy, Status,
    },
    transaction::IdempotencyId,
    transport::Network,
};
pub use options::{
    ConflictingRange, ExactlyOnce, KeyValue, Priority, RangePage, RangeQuery, Settings,
    StreamingMode, TransactionOption, TransactionOptions, VersionedValue,
};
pub use range_stream::RangeStream;
pub use retry::{AsError, find_error};
pub use selector::KeySelector;
pub use subspace::Subspace;
pub use transaction::{Committed, Snapshot, Transaction};
pub use watch::Watch;

/// The example of the README is a test.
#[cfg(all(doctest, feature = "embedded"))]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So are those of the page on layers.
#[cfg(all(doctest, feature = "embedded", feature = "derive"))]
#[doc = include_str!("../../docs/layers.md")]
struct Layers;
