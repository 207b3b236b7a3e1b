//! Directories: names for subspaces, with short prefixes that the layer chooses.
//!
//! A path such as `["app", "users"]` stands for a subspace whose prefix has two or three bytes. The names are rows of
//! the database: directories can be created, listed, moved and removed in transactions, together with other
//! work. A move changes a name and no data. Whoever knows FoundationDB's directory layer finds it here, in the same
//! format on disk (version 1.0.0), so that both can work on the same rows.
//!
//! ```text
//!   path            prefix    rows of the layer                             key, after fe
//!   ()              fe        version 1.0.0                                 01 fe 00 | 01 version 00
//!                             app   -> 15 0c                                01 fe 00 | 14 | 02 app 00
//!                             allocator: how many prefixes it gave away     01 fe 00 | 01 hca 00 | 14 | ..
//!                             ... and which ones lately                     01 fe 00 | 01 hca 00 | 15 01 | ..
//!   app             15 0c     layer ""                                      01 15 0c 00 | 01 layer 00
//!                             users -> 15 21                                01 15 0c 00 | 14 | 02 users 00
//!   app/users       15 21     layer ""                                      01 15 21 00 | 01 layer 00
//!
//!   content of app/users:  15 21 | whatever is packed into the directory's subspace
//! ```
//!
//! A node of the tree is known by its prefix, not by its path: that is why a move is cheap. No prefix is the
//! beginning of another one, so directories never overlap.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main]
//! # async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
//! use ferrisdb_client::{Database, directory::{DirectoryError, DirectoryLayer}};
//!
//! let database = Database::memory().await?;
//! let name = database
//!     .run_transaction(|transaction| async move {
//!         let users = DirectoryLayer::new().create_or_open(&transaction, ["app", "users"]).await?;
//!         transaction.set(users.pack(&(7, "name"))?, "Ada")?;
//!         // Nothing of this depends on where the directory is.
//!         let people = users.move_to(&transaction, ["app", "people"]).await?;
//!         assert_eq!(people.prefix()?, users.prefix()?);
//!         Ok::<_, DirectoryError>(transaction.get(people.pack(&(7, "name"))?).await?)
//!     })
//!     .await?;
//! assert_eq!(name, Some("Ada".into()));
//!
//! let transaction = database.transaction();
//! assert_eq!(DirectoryLayer::new().list(&transaction, "app").await?, ["people"]);
//! # database.close().await?;
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! # Layers and partitions
//!
//! A directory can carry the name of the *layer* that keeps its data there; opening it with another layer is an error.
//! The layer `partition` is special: everything below lives in the partition's own prefix, names included, so that
//! the whole of it is one range of keys. The price: nothing can be moved into it or out of it, and the partition
//! itself has no subspace to keep data in.
//!
//! Start with [`DirectoryLayer`], then `allocator.rs`.

mod allocator;
mod error;
mod handle;
mod layer;
mod node;
mod path;

pub use self::{
    allocator::HighContentionAllocator,
    error::DirectoryError,
    handle::Directory,
    layer::{CreateOptions, DirectoryLayer},
    path::DirectoryPath,
};

/// The layer of directories that are partitions.
pub const PARTITION: &[u8] = b"partition";

#[cfg(all(test, feature = "embedded", not(madsim)))]
mod tests;
