//! The client library of FerrisDB, a distributed, ordered, transactional key-value database.
//!
//! A [`Database`] is a handle, cheap to clone. A [`Transaction`] reads at one version, sees its own writes,
//! and takes effect at once or not at all. [`Database::run_transaction`] starts over after conflicts and
//! failures, and applies a transaction exactly once.
//!
//! Below is a guide of ten minutes; its examples are tests. Further: recipes in `docs/cookbook.md`, keys made of values in
//! `docs/layers.md`, and for whoever knows FoundationDB `docs/coming-from-foundationdb.md` and
//! `docs/reference/foundationdb-api.md`.
//!
//! | to find | look in |
//! |---|---|
//! | connecting, running transactions | [`Database`] |
//! | reads, writes, commit | [`Transaction`] |
//! | what a range read asks for, keys by their place | [`RangeQuery`], [`KeySelector`] |
//! | hearing of changes | [`Transaction::watch`], [`Watch`] |
//! | options and limits | [`TransactionOption`], [`Settings`], [`ferrisdb_core::limits`] |
//! | changing the cluster's shape, excluding servers | [`Database::configure`], [`Database::exclude`], [`Command`] |
//! | whether all replicas hold the same | [`Database::check_consistency`] |
//! | keys made of values, parts of the keys, names for them | [`mod@tuple`], [`Subspace`], [`directory`] |
//! | what the database says about itself as keys | [`special_keys`] |
//! | what an error means and what to try | [`Error`], [`ErrorCode`] |
//! | errors of your own in a transaction | [`AsError`] |
//!
//! # A database, and the first transaction
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ferrisdb_client::Error> {
//! use ferrisdb_client::{Database, Error};
//!
//! // In memory, gone with the handle. `Database::open("folder")` keeps it on disk, in this process;
//! // `Database::connect("10.0.0.1:4500")` talks to a cluster. The rest is the same for all three.
//! let database = Database::memory().await?;
//!
//! database
//!     .run_transaction(|transaction| async move {
//!         transaction.set("city/london", "8.9 million")?;
//!         transaction.set("city/paris", "2.1 million")?;
//!         transaction.add("cities", 2)?;
//!         Ok::<_, Error>(())
//!     })
//!     .await?;
//!
//! let transaction = database.transaction();
//! assert_eq!(transaction.get("city/paris").await?, Some("2.1 million".into()));
//! assert_eq!(transaction.get("city/rome").await?, None);
//! database.close().await
//! # }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Keys and values are bytes, up to 10,000 and 100,000 of them; strings, vectors and slices become
//! [`Key`] and [`Value`] by themselves. Keys from `\xff` on belong to the database.
//!
//! A transaction reads what was committed when it began to read, and its own writes on top. Writes stay in the client until the
//! commit, so `set` does not wait for anybody.
//!
//! # Ranges
//!
//! Rows are ordered by the bytes of their keys, so what begins alike lies side by side:
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ferrisdb_client::Error> {
//! # use ferrisdb_client::{Database, Error};
//! use ferrisdb_client::{KeyRange, RangeQuery};
//! use futures::TryStreamExt;
//!
//! # let database = Database::memory().await?;
//! let transaction = database.transaction();
//! for (day, page) in [("01", "home"), ("02", "shop"), ("03", "home")] {
//!     transaction.set(format!("visit/{day}"), page)?;
//! }
//!
//! // From the first key up to, but not including, the second one.
//! let rows = transaction.get_range("visit/01".."visit/03").await?;
//! assert_eq!(rows.len(), 2);
//! assert_eq!((&rows[0].key, &rows[0].value), (&"visit/01".into(), &"home".into()));
//!
//! // All keys with a prefix, the last one first, one row at most.
//! let latest = RangeQuery::from(KeyRange::prefix(b"visit/")).reverse().rows(1);
//! assert_eq!(transaction.get_range(latest).await?[0].key, "visit/03".into());
//!
//! // As a stream, for ranges that need not fit into memory.
//! let mut visits = transaction.range_stream(KeyRange::prefix(b"visit/"));
//! while let Some(row) = visits.try_next().await? {
//!     println!("{} = {}", row.key, row.value);
//! }
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Waiting for one read after the other wastes time: start them together. Those for the same server become one message.
//!
//! ```
//! # use ferrisdb_client::{Result, Transaction};
//! # async fn example(transaction: &Transaction) -> Result<()> {
//! let (name, city) = futures::try_join!(transaction.get("name"), transaction.get("city"))?;
//! # Ok(()) }
//! ```
//!
//! # Conflicts
//!
//! There are no locks. The commit checks whether anything that the transaction has read was written by somebody else since; if so,
//! nothing of it takes effect, and the error is [`ErrorCode::NotCommitted`]. What two transactions write does not matter:
//! only what one reads and the other one writes.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ferrisdb_client::Error> {
//! # use ferrisdb_client::{Database, Error};
//! use ferrisdb_client::ErrorCode;
//!
//! # let database = Database::memory().await?;
//! let (one, two) = (database.transaction(), database.transaction());
//! assert_eq!(one.get("seat/12").await?, None);
//! assert_eq!(two.get("seat/12").await?, None);
//! one.set("seat/12", "Ada")?;
//! two.set("seat/12", "Grace")?;
//! one.commit().await?;
//!
//! let error = two.commit().await.unwrap_err();
//! assert_eq!(error.code(), ErrorCode::NotCommitted);
//! // What was read, and when somebody else wrote it.
//! let conflict = &two.conflicting_ranges()[0];
//! assert!(conflict.range.contains(b"seat/12"));
//! assert_eq!(Some(conflict.written_at), one.committed_version());
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! [`Database::run_transaction`] runs the body again after a conflict, from a fresh read on. So let the body change
//! nothing but the transaction, and return what shall be known outside:
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ferrisdb_client::Error> {
//! use ferrisdb_client::{Database, Error};
//!
//! /// Whether the seat was still free.
//! async fn book(database: &Database, seat: &str, name: &str) -> Result<bool, Error> {
//!     database
//!         .run_transaction(|transaction| async move {
//!             if transaction.get(seat).await?.is_some() {
//!                 return Ok(false);
//!             }
//!             transaction.set(seat, name)?;
//!             Ok(true)
//!         })
//!         .await
//! }
//!
//! # let database = Database::memory().await?;
//! let (ada, grace) =
//!     futures::try_join!(book(&database, "seat/12", "Ada"), book(&database, "seat/12", "Grace"))?;
//! assert!(ada != grace, "one of them has the seat");
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Fewer conflicts: read less, and let the database compute. [`Transaction::add`] and [`Transaction::atomic`] change a value
//! without reading it; [`Transaction::set_versionstamped_key`] gives each transaction a key of its own.
//!
//! # Exactly once
//!
//! When the connection breaks during a commit, nobody can say at first whether it took effect. A client that tries again in
//! this moment may do everything twice. `run_transaction` does not: each transaction that writes also writes a small record under a
//! random id; after a lost answer it reads that record before it does anything else. If the commit took effect, the
//! result of the body that belongs to it is returned; if not, the body runs again, and the first commit is kept from taking effect
//! later. So there is no need to make the body idempotent, and `add` in the examples here counts right.
//!
//! Only where the truth cannot be found out the error is [`ErrorCode::CommitUnknownResult`]: when a timeout or a
//! limit of retries ends the search, or when it takes longer than ten minutes.
//!
//! # Snapshot reads
//!
//! A read by [`Transaction::snapshot`] sees the same version, but a later write to it is no conflict. For what shall not
//! keep the transaction from committing:
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ferrisdb_client::Error> {
//! # use ferrisdb_client::Database;
//! # let database = Database::memory().await?;
//! # let transaction = database.transaction();
//! // Any free desk will do; that others take one meanwhile does not matter ...
//! # transaction.set("free/1", "")?;
//! let free = transaction.snapshot().get_range("free/".."free0").await?;
//! let desk = &free[0].key;
//! // ... unless they take this one.
//! transaction.add_read_conflict_key(desk)?;
//! transaction.clear(desk)?;
//! transaction.commit().await?;
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! # Waiting for a change
//!
//! Instead of reading again and again, watch a key: the [`Watch`] is ready when the key has another value than the transaction
//! has seen. It is armed by the commit, and outlives the transaction.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ferrisdb_client::Error> {
//! # use ferrisdb_client::{Database, Error};
//! # let database = Database::memory().await?;
//! let (colour, changed) = database
//!     .run_transaction(|transaction| async move {
//!         let colour = transaction.get("colour").await?;
//!         Ok::<_, Error>((colour, transaction.watch("colour").await?))
//!     })
//!     .await?;
//! assert_eq!(colour, None);
//!
//! # let other = database.clone();
//! // Somebody else, later:
//! other.run_transaction(|transaction| async move { transaction.set("colour", "red") }).await?;
//!
//! changed.await?;
//! assert_eq!(database.transaction().get("colour").await?, Some("red".into()));
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! # Keys made of values
//!
//! Numbers as text sort wrongly, and separators turn up in names. [Tuples](mod@tuple) are keys that sort as their values do, a
//! [`Subspace`] is a place for them, and [directories](directory) give subspaces names and short prefixes:
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ferrisdb_client::Error> {
//! # use ferrisdb_client::Database;
//! use ferrisdb_client::Subspace;
//!
//! # let database = Database::memory().await?;
//! # let transaction = database.transaction();
//! let temperatures = Subspace::from_prefix("temperature");
//! for (place, celsius) in [("oslo", -12), ("rome", 3), ("oslo", -4)] {
//!     transaction.set(temperatures.pack(&(place, celsius))?, "")?;
//! }
//! let mut in_oslo = Vec::new();
//! for row in transaction.get_range(temperatures.range_of(&"oslo")?).await? {
//!     let (_, celsius): (String, i32) = temperatures.unpack(&row.key)?;
//!     in_oslo.push(celsius);
//! }
//! assert_eq!(in_oslo, [-12, -4]);
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! # By hand
//!
//! `run_transaction` is a loop around [`Transaction::commit`] and [`Transaction::on_error`]. Whoever writes his own decides
//! after each error; it then is up to him what a commit with an unknown result means, unless he sets
//! [`TransactionOption::IdempotencyId`].
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ferrisdb_client::Error> {
//! # use ferrisdb_client::{Database, Transaction};
//! use ferrisdb_client::TransactionOption;
//! use std::time::Duration;
//!
//! # let database = Database::memory().await?;
//! let transaction = database.transaction();
//! transaction.set_option(TransactionOption::Timeout(Duration::from_secs(10)))?;
//! let committed = loop {
//!     let attempt = async {
//!         let stock = transaction.get("stock").await?;
//!         transaction.set("stock", [stock.as_deref().unwrap_or_default(), b"|"].concat())?;
//!         transaction.commit().await
//!     };
//!     match attempt.await {
//!         Ok(committed) => break committed,
//!         // Waits a little and begins anew; or gives the error back, if trying again does not help.
//!         Err(error) => transaction.on_error(error).await?,
//!     }
//! };
//! assert!(committed.versionstamp.is_some());
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! # Limits
//!
//! A transaction may take five seconds from its first read to its commit, and affect 10,000,000 bytes. Whoever has more to do
//! splits the work over several transactions, with a mark of how far he is in each of them; see the cookbook.
//! Every limit is a typed error; [`ferrisdb_core::limits`] has all of them.

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
mod metrics;
mod options;
mod range_stream;
mod read_your_writes;
mod retry;
mod selector;
pub mod special_keys;
mod status_json;
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
    metrics::{HistogramReading, MetricSample, MetricValue, RoleMetrics, Unit},
    service::controller::{
        Command, Configuration, ConfigurationChange, ControllerMember, Leader, ProcessSelector,
        Redundancy, Status,
    },
    transaction::IdempotencyId,
    transport::Network,
};
pub use metrics::{ProcessMetrics, metrics_of};
pub use options::{
    ConflictingRange, ExactlyOnce, KeyValue, MappedPage, MappedRow, Priority, RangePage,
    RangeQuery, Settings, StreamingMode, TransactionOption, TransactionOptions, VersionedValue,
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

/// And those of the cookbook.
#[cfg(all(doctest, feature = "embedded"))]
#[doc = include_str!("../../docs/cookbook.md")]
struct Cookbook;

/// And those of the page for whoever knows FoundationDB.
#[cfg(all(doctest, feature = "embedded"))]
#[doc = include_str!("../../docs/coming-from-foundationdb.md")]
struct ComingFromFoundationDb;
