//! A directory that was opened.

use ferrisdb_core::{Key, KeyRange};

use super::{
    PARTITION,
    error::DirectoryError,
    layer::{CreateOptions, DirectoryLayer},
    node::Node,
    path::DirectoryPath,
};
use crate::{
    subspace::Subspace,
    transaction::Transaction,
    tuple::{TuplePack, TupleUnpack},
};

/// A directory, as it was when it was opened: where it is, what it is for, and the subspace of its content.
///
/// It is not told when the directory is moved or removed: then the subspace stays what it was, and operations on
/// paths look for the old path. Open directories in the transaction that uses them, or keep them for as long as
/// nobody moves them.
///
/// ```no_run
/// # use ferrisdb_client::{Transaction, directory::{DirectoryError, DirectoryLayer}};
/// # async fn example(transaction: Transaction) -> Result<(), DirectoryError> {
/// let users = DirectoryLayer::new().create_or_open(&transaction, ["app", "users"]).await?;
/// transaction.set(users.pack(&(7, "name"))?, "Ada")?;
/// for row in transaction.get_range(users.range_of(&7)?).await? {
///     let (_, field): (u64, String) = users.unpack(&row.key)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Directory {
    /// The tree that the directory is in.
    tree: DirectoryLayer,
    /// The tree that is in the directory, if it is a partition.
    inside: Option<DirectoryLayer>,
    path: DirectoryPath,
    layer: Vec<u8>,
    subspace: Subspace,
}

/// What is known without asking the database.
impl Directory {
    pub(super) fn new(
        tree: DirectoryLayer,
        inside: Option<DirectoryLayer>,
        path: DirectoryPath,
        node: &Node,
    ) -> Directory {
        let subspace = Subspace::from_prefix(&node.prefix);
        Directory { tree, inside, path, layer: node.layer.clone(), subspace }
    }

    /// The path by which it was opened, from the root of the directory layer.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// let users = layer.create(&transaction, ["app", "users"]).await?;
    /// assert_eq!(users.path().to_string(), "app/users");
    /// # Ok(()) }
    /// ```
    pub fn path(&self) -> &DirectoryPath {
        &self.path
    }

    /// What the directory is for; empty if nobody said so.
    pub fn layer(&self) -> &[u8] {
        &self.layer
    }

    /// Whether it is a partition.
    pub fn is_partition(&self) -> bool {
        self.layer == PARTITION
    }

    /// The subspace of its content.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// let users = layer.create(&transaction, "users").await?;
    /// let names = users.subspace()?.nested(&"name")?;
    /// transaction.set(names.pack(&7)?, "Ada")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::PartitionHasNoSubspace`].
    pub fn subspace(&self) -> Result<&Subspace, DirectoryError> {
        if self.is_partition() {
            return Err(DirectoryError::PartitionHasNoSubspace { path: self.path.clone() });
        }
        Ok(&self.subspace)
    }

    /// The prefix of its content.
    ///
    /// # Errors
    ///
    /// As for [`Directory::subspace`].
    pub fn prefix(&self) -> Result<&Key, DirectoryError> {
        self.subspace().map(Subspace::prefix)
    }

    /// See [`Subspace::pack`].
    ///
    /// # Errors
    ///
    /// As for [`Directory::subspace`] and [`Subspace::pack`].
    pub fn pack<T: TuplePack + ?Sized>(&self, tuple: &T) -> Result<Vec<u8>, DirectoryError> {
        Ok(self.subspace()?.pack(tuple)?)
    }

    /// See [`Subspace::pack_with_versionstamp`].
    ///
    /// # Errors
    ///
    /// As for [`Directory::subspace`] and [`Subspace::pack_with_versionstamp`].
    pub fn pack_with_versionstamp<T: TuplePack + ?Sized>(
        &self,
        tuple: &T,
    ) -> Result<(Vec<u8>, u32), DirectoryError> {
        Ok(self.subspace()?.pack_with_versionstamp(tuple)?)
    }

    /// See [`Subspace::unpack`].
    ///
    /// # Errors
    ///
    /// As for [`Directory::subspace`] and [`Subspace::unpack`].
    pub fn unpack<T: TupleUnpack>(&self, key: &[u8]) -> Result<T, DirectoryError> {
        Ok(self.subspace()?.unpack(key)?)
    }

    /// See [`Subspace::range`].
    ///
    /// # Errors
    ///
    /// As for [`Directory::subspace`].
    pub fn range(&self) -> Result<KeyRange, DirectoryError> {
        Ok(self.subspace()?.range())
    }

    /// See [`Subspace::range_of`].
    ///
    /// # Errors
    ///
    /// As for [`Directory::subspace`] and [`Subspace::range_of`].
    pub fn range_of<T: TuplePack + ?Sized>(&self, tuple: &T) -> Result<KeyRange, DirectoryError> {
        Ok(self.subspace()?.range_of(tuple)?)
    }

    /// See [`Subspace::nested`].
    ///
    /// # Errors
    ///
    /// As for [`Directory::subspace`] and [`Subspace::nested`].
    pub fn nested<T: TuplePack + ?Sized>(&self, tuple: &T) -> Result<Subspace, DirectoryError> {
        Ok(self.subspace()?.nested(tuple)?)
    }

    /// See [`Subspace::contains`].
    ///
    /// # Errors
    ///
    /// As for [`Directory::subspace`].
    pub fn contains(&self, key: &[u8]) -> Result<bool, DirectoryError> {
        Ok(self.subspace()?.contains(key))
    }

    /// The tree that paths below are looked for in, and such a path in it.
    fn below(&self, path: impl Into<DirectoryPath>) -> (&DirectoryLayer, DirectoryPath) {
        let tree = self.inside.as_ref().unwrap_or(&self.tree);
        (tree, self.path.without_first(tree.path().len()).join(path))
    }

    /// The tree that a path is looked for in which may be the directory itself: as a partition it is a directory of the
    /// tree around it.
    fn at(&self, path: impl Into<DirectoryPath>) -> (&DirectoryLayer, DirectoryPath) {
        let path = path.into();
        if path.is_empty() {
            return (&self.tree, self.path.without_first(self.tree.path().len()));
        }
        self.below(path)
    }
}

/// Directories below this one: paths are counted from here. As for the methods of the same names of
/// [`DirectoryLayer`].
impl Directory {
    /// See [`DirectoryLayer::create_or_open`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn create_or_open(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        let (tree, path) = self.below(path);
        tree.create_or_open(transaction, path).await
    }

    /// See [`DirectoryLayer::create_or_open_with_layer`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn create_or_open_with_layer(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
        layer: impl AsRef<[u8]>,
    ) -> Result<Directory, DirectoryError> {
        let (tree, path) = self.below(path);
        tree.create_or_open_with_layer(transaction, path, layer).await
    }

    /// See [`DirectoryLayer::open`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn open(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        let (tree, path) = self.below(path);
        tree.open(transaction, path).await
    }

    /// See [`DirectoryLayer::open_with_layer`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn open_with_layer(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
        layer: impl AsRef<[u8]>,
    ) -> Result<Directory, DirectoryError> {
        let (tree, path) = self.below(path);
        tree.open_with_layer(transaction, path, layer).await
    }

    /// See [`DirectoryLayer::create`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn create(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        let (tree, path) = self.below(path);
        tree.create(transaction, path).await
    }

    /// See [`DirectoryLayer::create_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn create_with(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
        options: CreateOptions,
    ) -> Result<Directory, DirectoryError> {
        let (tree, path) = self.below(path);
        tree.create_with(transaction, path, options).await
    }

    /// The names of the directories in this one (with the path `()`), or in one below.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::list`].
    pub async fn list(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Vec<String>, DirectoryError> {
        let (tree, path) = self.below(path);
        tree.list(transaction, path).await
    }

    /// Whether this directory (with the path `()`), or one below, is there.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::exists`].
    pub async fn exists(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<bool, DirectoryError> {
        let (tree, path) = self.at(path);
        tree.exists(transaction, path).await
    }

    /// Removes this directory (with the path `()`), or one below.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// let app = layer.create(&transaction, "app").await?;
    /// app.create(&transaction, "users").await?;
    /// app.remove(&transaction, "users").await?;
    /// app.remove(&transaction, ()).await?;
    /// assert!(!layer.exists(&transaction, "app").await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::remove`].
    pub async fn remove(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<(), DirectoryError> {
        let (tree, path) = self.at(path);
        tree.remove(transaction, path).await
    }

    /// Removes this directory (with the path `()`), or one below, and returns whether there was one.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::remove_if_exists`].
    pub async fn remove_if_exists(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<bool, DirectoryError> {
        let (tree, path) = self.at(path);
        tree.remove_if_exists(transaction, path).await
    }

    /// Gives a directory below this one another path below this one.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::move_path`].
    pub async fn move_path(
        &self,
        transaction: &Transaction,
        from: impl Into<DirectoryPath>,
        to: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        let (tree, from) = self.below(from);
        let (_, to) = self.below(to);
        tree.move_path(transaction, from, to).await
    }

    /// Gives this directory another path, counted from the root of the directory layer. Returns the handle for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// let users = layer.create(&transaction, ["app", "users"]).await?;
    /// let people = users.move_to(&transaction, ["app", "people"]).await?;
    /// assert_eq!(people.prefix()?, users.prefix()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::move_path`].
    pub async fn move_to(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        let to = path.into();
        let partition = self.tree.path();
        if !to.starts_with(partition) {
            let path = self.path.clone();
            return Err(DirectoryError::MoveBetweenPartitions { path, to });
        }
        let from = self.path.without_first(partition.len());
        self.tree.move_path(transaction, from, to.without_first(partition.len())).await
    }
}
