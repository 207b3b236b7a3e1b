//! The tree of directories: what can be done with paths.

use std::sync::Arc;

use ferrisdb_core::{Key, KeyRange, runtime};
use futures::future;

use super::{
    allocator::{Draw, HighContentionAllocator},
    error::DirectoryError,
    handle::Directory,
    node::{Access, Node, Place},
    path::DirectoryPath,
};
use crate::{
    options::RangeQuery,
    subspace::Subspace,
    transaction::{Act, Isolation, Transaction, Turn},
};

/// A tree of directories. Clones are the same; it keeps nothing but where its rows are, so it can be made anew at
/// any time, and everything that it knows it reads in the transaction it is given.
///
/// Paths are counted from the root of the tree.
#[derive(Clone)]
pub struct DirectoryLayer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Where the rows of the tree are.
    nodes: Subspace,
    /// Where the prefixes are that the allocator chooses.
    contents: Subspace,
    root_rows: Subspace,
    allocator: HighContentionAllocator,
    draw: Draw,
    /// Of the partition, from the root of all; empty for the root.
    path: DirectoryPath,
    manual_prefixes: ManualPrefixes,
}

/// Whether callers may choose prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ManualPrefixes {
    Allowed,
    Refused,
}

/// What a directory is created with, see [`DirectoryLayer::create_with`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// # let transaction = database.transaction();
/// # use ferrisdb_client::directory::{CreateOptions, DirectoryLayer};
/// # let layer = DirectoryLayer::new();
/// let options = CreateOptions::new().layer("queue");
/// let jobs = layer.create_with(&transaction, "jobs", options).await?;
/// assert_eq!(jobs.layer(), b"queue");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateOptions {
    layer: Vec<u8>,
    prefix: Option<Key>,
}

impl CreateOptions {
    /// No layer, and a prefix that the allocator chooses.
    pub fn new() -> CreateOptions {
        CreateOptions::default()
    }

    /// What the directory is for: whoever opens it with another layer gets an error. The layer
    /// [`PARTITION`](super::PARTITION) makes it a partition.
    #[must_use]
    pub fn layer(mut self, layer: impl AsRef<[u8]>) -> CreateOptions {
        self.layer = layer.as_ref().to_vec();
        self
    }

    /// The prefix of the directory's content, instead of one that the allocator chooses. Only where
    /// [`DirectoryLayer::allow_manual_prefixes`] allows it, and never in a partition.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Key>) -> CreateOptions {
        self.prefix = Some(prefix.into());
        self
    }
}

/// What is to be done about the directory at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Open,
    Create,
    Either,
}

impl DirectoryLayer {
    /// The tree that everybody uses who says nothing else: its rows are under `\xfe`, and the contents anywhere
    /// else, under short prefixes.
    ///
    /// Data that is written without regard to directories should have keys that no packed integer is a beginning of,
    /// best in a directory of its own.
    pub fn new() -> DirectoryLayer {
        Self::with_subspaces(Subspace::from_prefix(b"\xfe"), Subspace::all())
    }

    /// A tree of the caller's own: `nodes` for its rows, `contents` for the prefixes that it chooses. Whoever
    /// uses the same tree has to give the same two.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// use ferrisdb_client::Subspace;
    /// // Everything of this tree lies in two places that nobody else uses.
    /// let (nodes, contents) = (Subspace::from_prefix("dir/"), Subspace::from_prefix("data/"));
    /// let layer = DirectoryLayer::with_subspaces(nodes, contents);
    /// let users = layer.create(&transaction, "users").await?;
    /// assert!(users.prefix()?.starts_with(b"data/"));
    /// # Ok(()) }
    /// ```
    pub fn with_subspaces(nodes: Subspace, contents: Subspace) -> DirectoryLayer {
        let draw = Arc::new(|below| runtime::random_u64() % below);
        Self::build(nodes, contents, DirectoryPath::default(), draw)
    }

    /// The same tree, in which callers may choose prefixes, see [`CreateOptions::prefix`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::{CreateOptions, DirectoryLayer};
    /// let options = CreateOptions::new().prefix("legacy/");
    /// let layer = DirectoryLayer::new().allow_manual_prefixes();
    /// let old = layer.create_with(&transaction, "legacy", options).await?;
    /// assert_eq!(old.prefix()?, &"legacy/".into());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn allow_manual_prefixes(&self) -> DirectoryLayer {
        let mut shared = self.shared.copy();
        shared.manual_prefixes = ManualPrefixes::Allowed;
        DirectoryLayer { shared: Arc::new(shared) }
    }

    fn build(
        nodes: Subspace,
        contents: Subspace,
        path: DirectoryPath,
        draw: Draw,
    ) -> DirectoryLayer {
        // The root is the directory whose content are the nodes.
        let root_rows = nodes.nested_by(|encoder| encoder.bytes(nodes.prefix()));
        let allocator_rows = root_rows.nested_by(|encoder| encoder.bytes(b"hca"));
        let allocator = HighContentionAllocator::with_draw(&allocator_rows, Arc::clone(&draw));
        let manual_prefixes = ManualPrefixes::Refused;
        let shared = Shared { nodes, contents, root_rows, allocator, draw, path, manual_prefixes };
        DirectoryLayer { shared: Arc::new(shared) }
    }

    /// The tree inside of a partition. `path` is counted from the root of this tree.
    fn inside(&self, partition: &Node, path: &DirectoryPath) -> DirectoryLayer {
        let nodes = Subspace::from_prefix([partition.prefix.as_slice(), b"\xfe"].concat());
        let contents = Subspace::from_prefix(&partition.prefix);
        Self::build(nodes, contents, self.absolute(path), Arc::clone(&self.shared.draw))
    }

    /// The same tree, with numbers that a test draws.
    #[cfg(test)]
    pub(super) fn with_draw(&self, draw: Draw) -> DirectoryLayer {
        let shared = &self.shared;
        let (nodes, contents) = (shared.nodes.clone(), shared.contents.clone());
        let layer = Self::build(nodes, contents, shared.path.clone(), draw);
        match shared.manual_prefixes {
            ManualPrefixes::Allowed => layer.allow_manual_prefixes(),
            ManualPrefixes::Refused => layer,
        }
    }

    pub(super) fn nodes(&self) -> &Subspace {
        &self.shared.nodes
    }

    pub(super) fn root_rows(&self) -> &Subspace {
        &self.shared.root_rows
    }

    /// The path of this tree's root, from the root of all.
    pub(super) fn path(&self) -> &DirectoryPath {
        &self.shared.path
    }

    fn absolute(&self, path: &DirectoryPath) -> DirectoryPath {
        self.shared.path.join(path)
    }

    /// The handle of a node.
    fn directory(&self, node: &Node, path: &DirectoryPath) -> Directory {
        let inside = node.is_partition().then(|| self.inside(node, path));
        Directory::new(self.clone(), inside, self.absolute(path), node)
    }
}

impl Shared {
    fn copy(&self) -> Shared {
        Shared {
            nodes: self.nodes.clone(),
            contents: self.contents.clone(),
            root_rows: self.root_rows.clone(),
            allocator: self.allocator.clone(),
            draw: Arc::clone(&self.draw),
            path: self.path.clone(),
            manual_prefixes: self.manual_prefixes,
        }
    }
}

impl Default for DirectoryLayer {
    fn default() -> DirectoryLayer {
        DirectoryLayer::new()
    }
}

impl std::fmt::Debug for DirectoryLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { nodes, contents, path, .. } = &*self.shared;
        write!(f, "DirectoryLayer('{path}', nodes {nodes}, contents {contents})")
    }
}

/// Opening and creating.
impl DirectoryLayer {
    /// Opens a directory, or creates it with all that are missing above it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// let users = layer.create_or_open(&transaction, ["app", "users"]).await?;
    /// transaction.set(users.pack(&(7, "name"))?, "Ada")?;
    /// assert_eq!(layer.create_or_open(&transaction, ["app", "users"]).await?.prefix()?, users.prefix()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Root`]; what became of the transaction's reads and writes.
    pub async fn create_or_open(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        self.create_or_open_with_layer(transaction, path, b"").await
    }

    /// Opens a directory of a layer, or creates it with all that are missing above it (which belong to no layer). An
    /// empty layer stands for any.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::{DirectoryError, DirectoryLayer};
    /// # let layer = DirectoryLayer::new();
    /// layer.create_or_open_with_layer(&transaction, "jobs", "queue").await?;
    /// let error = layer.create_or_open_with_layer(&transaction, "jobs", "log").await.unwrap_err();
    /// assert!(matches!(error, DirectoryError::WrongLayer { .. }));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::create_or_open`], and [`DirectoryError::WrongLayer`].
    pub async fn create_or_open_with_layer(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
        layer: impl AsRef<[u8]>,
    ) -> Result<Directory, DirectoryError> {
        let options = CreateOptions::new().layer(layer);
        Box::pin(self.provide(transaction, path.into(), options, Wanted::Either)).await
    }

    /// Opens a directory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::{DirectoryError, DirectoryLayer};
    /// # let layer = DirectoryLayer::new();
    /// let error = layer.open(&transaction, "users").await.unwrap_err();
    /// assert!(matches!(error, DirectoryError::DoesNotExist { .. }));
    /// layer.create(&transaction, "users").await?;
    /// layer.open(&transaction, "users").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::DoesNotExist`], otherwise as for [`DirectoryLayer::create_or_open`].
    pub async fn open(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        self.open_with_layer(transaction, path, b"").await
    }

    /// Opens a directory of a layer. An empty layer stands for any.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::{CreateOptions, DirectoryLayer};
    /// # let layer = DirectoryLayer::new();
    /// layer.create_with(&transaction, "jobs", CreateOptions::new().layer("queue")).await?;
    /// layer.open_with_layer(&transaction, "jobs", "queue").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::open`], and [`DirectoryError::WrongLayer`].
    pub async fn open_with_layer(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
        layer: impl AsRef<[u8]>,
    ) -> Result<Directory, DirectoryError> {
        let options = CreateOptions::new().layer(layer);
        Box::pin(self.provide(transaction, path.into(), options, Wanted::Open)).await
    }

    /// Creates a directory, with all that are missing above it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::{DirectoryError, DirectoryLayer};
    /// # let layer = DirectoryLayer::new();
    /// layer.create(&transaction, ["app", "users"]).await?;
    /// let error = layer.create(&transaction, ["app", "users"]).await.unwrap_err();
    /// assert!(matches!(error, DirectoryError::AlreadyExists { .. }));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::AlreadyExists`], otherwise as for [`DirectoryLayer::create_or_open`].
    pub async fn create(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        self.create_with(transaction, path, CreateOptions::new()).await
    }

    /// Creates a directory with a layer or a prefix of the caller's, and all that are missing above it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::{CreateOptions, DirectoryLayer, PARTITION};
    /// # let layer = DirectoryLayer::new();
    /// // Everything below is one range of keys.
    /// let options = CreateOptions::new().layer(PARTITION);
    /// let tenant = layer.create_with(&transaction, "tenant", options).await?;
    /// tenant.create(&transaction, ["data", "log"]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`DirectoryLayer::create`], and what is wrong with the prefix.
    pub async fn create_with(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
        options: CreateOptions,
    ) -> Result<Directory, DirectoryError> {
        Box::pin(self.provide(transaction, path.into(), options, Wanted::Create)).await
    }

    async fn provide(
        &self,
        transaction: &Transaction,
        path: DirectoryPath,
        options: CreateOptions,
        wanted: Wanted,
    ) -> Result<Directory, DirectoryError> {
        let mut turn = transaction.turn();
        let (mut tree, mut further) = (self.clone(), path.clone());
        loop {
            if options.prefix.is_some() {
                tree.check_manual_prefix()?;
            }
            if further.is_empty() {
                return Err(DirectoryError::Root);
            }
            match tree.look_up(&turn, &further, Access::Read).await? {
                Place::InPartition { partition, path: at, further: inside } => {
                    tree = tree.inside(&partition, &at);
                    further = inside;
                }
                Place::Here(node) => return tree.open_node(&node, &further, &options, wanted),
                Place::Absent { .. } if wanted == Wanted::Open => {
                    return Err(DirectoryError::DoesNotExist { path: tree.absolute(&further) });
                }
                Place::Absent { parent, depth } => {
                    let created = tree.create_nodes(&turn, &further, parent, depth, &options);
                    if let Some(created) = created.await? {
                        return Ok(created);
                    }
                    // Another operation of this transaction was faster: what it has made is looked at.
                    turn = transaction.turn();
                    (tree, further) = (self.clone(), path.clone());
                }
            }
        }
    }

    fn check_manual_prefix(&self) -> Result<(), DirectoryError> {
        match self.shared.manual_prefixes {
            ManualPrefixes::Allowed => Ok(()),
            ManualPrefixes::Refused if self.path().is_empty() => {
                Err(DirectoryError::ManualPrefixesNotAllowed)
            }
            ManualPrefixes::Refused => {
                Err(DirectoryError::ManualPrefixInPartition { path: self.path().clone() })
            }
        }
    }

    fn open_node(
        &self,
        node: &Node,
        path: &DirectoryPath,
        options: &CreateOptions,
        wanted: Wanted,
    ) -> Result<Directory, DirectoryError> {
        if wanted == Wanted::Create {
            return Err(DirectoryError::AlreadyExists { path: self.absolute(path) });
        }
        if !options.layer.is_empty() && options.layer != node.layer {
            return Err(DirectoryError::WrongLayer {
                path: self.absolute(path),
                expected: options.layer.clone(),
                found: node.layer.clone(),
            });
        }
        Ok(self.directory(node, path))
    }

    /// Creates the directory at a path and those that are missing above it, from the `depth`th on, which goes
    /// into `parent`.
    async fn create_nodes(
        &self,
        turn: &Turn<'_>,
        path: &DirectoryPath,
        parent: Node,
        depth: usize,
        options: &CreateOptions,
    ) -> Result<Option<Directory>, DirectoryError> {
        self.check_version(turn, Access::Write).await?;
        // From the end of the path up: a wrong prefix is found before anything is written.
        let prefix = match &options.prefix {
            None => self.allocate(turn).await?,
            Some(prefix) => {
                if !self.is_prefix_free(turn, prefix, Isolation::Serializable).await? {
                    return Err(DirectoryError::PrefixInUse { prefix: prefix.clone() });
                }
                prefix.clone()
            }
        };
        let mut above = Vec::new();
        for name in path[depth + 1..].iter().rev() {
            let allocated = self.allocate(turn).await?;
            // Nothing is written yet, so no read finds the prefix that the directory itself is to have.
            let overlaps = prefix.starts_with(&allocated) || allocated.starts_with(&prefix);
            if options.prefix.is_some() && overlaps {
                return Err(DirectoryError::PrefixConflictsWithManual { prefix: allocated });
            }
            above.push((name, allocated));
        }
        turn.act(|act| {
            let created = self.create_node(act, prefix, options.layer.clone())?;
            let mut below = created.clone();
            for (name, prefix) in above {
                let node = self.create_node(act, prefix, Vec::new())?;
                act.set(node.entry_of(name)?, below.prefix.as_slice())?;
                below = node;
            }
            act.set(parent.entry_of(&path[depth])?, below.prefix.as_slice())?;
            Ok(self.directory(&created, path))
        })
    }

    fn create_node(
        &self,
        act: &mut Act<'_>,
        prefix: Key,
        layer: Vec<u8>,
    ) -> Result<Node, DirectoryError> {
        let rows = self.rows_of(&prefix);
        let node = Node { prefix, rows, layer, entry: Vec::new() };
        act.set(node.layer_key()?, node.layer.as_slice())?;
        Ok(node)
    }

    /// A prefix that no directory has and under which there is no data.
    async fn allocate(&self, turn: &Turn<'_>) -> Result<Key, DirectoryError> {
        let transaction = turn.transaction();
        let chosen = self.shared.allocator.allocate(transaction).await?;
        let prefix = Key::from([self.shared.contents.prefix().as_slice(), &chosen].concat());
        let content = RangeQuery::from(KeyRange::prefix(&prefix)).rows(1);
        if !transaction.get_range(content).await?.is_empty() {
            return Err(DirectoryError::PrefixHasData { prefix });
        }
        // Without conflicts: the allocator keeps its own numbers apart, and this is about manual prefixes, which
        // are looked for with conflicts when they come.
        if !self.is_prefix_free(turn, &prefix, Isolation::Snapshot).await? {
            return Err(DirectoryError::PrefixConflictsWithManual { prefix });
        }
        Ok(prefix)
    }
}

/// Everything else.
impl DirectoryLayer {
    /// Gives a directory another path. Its prefix and its content stay as they are, so handles that are open go on
    /// working.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// let users = layer.create(&transaction, "users").await?;
    /// let people = layer.move_path(&transaction, "users", "people").await?;
    /// assert_eq!(people.prefix()?, users.prefix()?, "no data is moved");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::DoesNotExist`], [`DirectoryError::AlreadyExists`], [`DirectoryError::ParentDoesNotExist`],
    /// [`DirectoryError::MoveIntoItself`], [`DirectoryError::MoveBetweenPartitions`]; what became of the
    /// transaction's reads and writes.
    pub async fn move_path(
        &self,
        transaction: &Transaction,
        from: impl Into<DirectoryPath>,
        to: impl Into<DirectoryPath>,
    ) -> Result<Directory, DirectoryError> {
        let begun = (self.clone(), from.into(), to.into());
        let (mut tree, mut from, mut to) = begun.clone();
        let mut turn = transaction.turn();
        loop {
            let absolute = || (tree.absolute(&from), tree.absolute(&to));
            if to.starts_with(&from) {
                let (path, to) = absolute();
                return Err(DirectoryError::MoveIntoItself { path, to });
            }
            let source = tree.look_up(&turn, &from, Access::Write);
            let (source, target) = future::join(source, tree.find(&turn, &to)).await;
            let (source, target) = (source?, target?);
            match (source, target) {
                (Place::Absent { .. }, _) => {
                    return Err(DirectoryError::DoesNotExist { path: absolute().0 });
                }
                (
                    Place::InPartition { partition, path: at, further: from_inside },
                    Place::InPartition { path: to_at, further: to_inside, .. },
                ) if at == to_at => {
                    tree = tree.inside(&partition, &at);
                    (from, to) = (from_inside, to_inside);
                }
                (Place::InPartition { .. }, _) | (_, Place::InPartition { .. }) => {
                    let (path, to) = absolute();
                    return Err(DirectoryError::MoveBetweenPartitions { path, to });
                }
                (Place::Here(_), Place::Here(_)) => {
                    return Err(DirectoryError::AlreadyExists { path: absolute().1 });
                }
                (Place::Here(node), Place::Absent { parent, depth }) => {
                    let Some((to_parent, name)) = to.split_last() else {
                        return Err(DirectoryError::Root);
                    };
                    if depth < to_parent.len() {
                        let path = tree.absolute(&to_parent);
                        return Err(DirectoryError::ParentDoesNotExist { path });
                    }
                    let moved = turn.act(|act| {
                        act.set(parent.entry_of(name)?, node.prefix.as_slice())?;
                        act.clear(node.entry.clone())?;
                        Ok::<_, DirectoryError>(tree.directory(&node, &to))
                    });
                    if let Some(moved) = moved? {
                        return Ok(moved);
                    }
                    turn = transaction.turn();
                    (tree, from, to) = begun.clone();
                }
            }
        }
    }

    /// Removes a directory, its content, and all directories below.
    ///
    /// Whoever has it open can still write under its prefix, which nobody will look for any more. Handles should be
    /// opened in the transaction that writes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// let users = layer.create(&transaction, "users").await?;
    /// transaction.set(users.pack(&7)?, "Ada")?;
    /// layer.remove(&transaction, "users").await?;
    /// assert_eq!(transaction.get(users.pack(&7)?).await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::DoesNotExist`], [`DirectoryError::Root`]; what became of the transaction's reads and
    /// writes.
    pub async fn remove(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<(), DirectoryError> {
        let path = path.into();
        if self.remove_if_exists(transaction, &path).await? {
            return Ok(());
        }
        Err(DirectoryError::DoesNotExist { path: self.absolute(&path) })
    }

    /// Removes a directory like [`DirectoryLayer::remove`], and returns whether there was one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// assert!(!layer.remove_if_exists(&transaction, "users").await?);
    /// layer.create(&transaction, "users").await?;
    /// assert!(layer.remove_if_exists(&transaction, "users").await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Root`]; what became of the transaction's reads and writes.
    pub async fn remove_if_exists(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<bool, DirectoryError> {
        let begun = (self.clone(), path.into());
        let (mut tree, mut path) = begun.clone();
        let mut turn = transaction.turn();
        loop {
            if path.is_empty() {
                return Err(DirectoryError::Root);
            }
            match tree.look_up(&turn, &path, Access::Write).await? {
                Place::Absent { .. } => return Ok(false),
                Place::InPartition { partition, path: at, further } => {
                    tree = tree.inside(&partition, &at);
                    path = further;
                }
                Place::Here(node) => {
                    let nodes = tree.with_all_below(&turn, &node).await?;
                    let removed = turn.act(|act| {
                        act.clear(node.entry.clone())?;
                        nodes.iter().try_for_each(|node| node.remove(act))
                    });
                    if removed?.is_some() {
                        return Ok(true);
                    }
                    turn = transaction.turn();
                    (tree, path) = begun.clone();
                }
            }
        }
    }

    /// The names of the directories in a directory, in order. The path `()` is the root.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// layer.create(&transaction, ["app", "users"]).await?;
    /// layer.create(&transaction, ["app", "orders"]).await?;
    /// assert_eq!(layer.list(&transaction, "app").await?, ["orders", "users"]);
    /// assert_eq!(layer.list(&transaction, ()).await?, ["app"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::DoesNotExist`]; what became of the transaction's reads.
    pub async fn list(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<Vec<String>, DirectoryError> {
        let (mut tree, mut path) = (self.clone(), path.into());
        let turn = transaction.turn();
        loop {
            match tree.look_up(&turn, &path, Access::Read).await? {
                Place::Absent { .. } => {
                    return Err(DirectoryError::DoesNotExist { path: tree.absolute(&path) });
                }
                Place::InPartition { partition, path: at, further } => {
                    tree = tree.inside(&partition, &at);
                    path = further;
                }
                Place::Here(node) if node.is_partition() => {
                    tree = tree.inside(&node, &path);
                    path = DirectoryPath::default();
                }
                Place::Here(node) => {
                    let entries = node.entries(&turn).await?;
                    return Ok(entries.into_iter().map(|(name, _)| name).collect());
                }
            }
        }
    }

    /// Whether there is a directory at a path. The root is always there.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// assert!(!layer.exists(&transaction, "users").await?);
    /// layer.create(&transaction, "users").await?;
    /// assert!(layer.exists(&transaction, "users").await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What became of the transaction's reads.
    pub async fn exists(
        &self,
        transaction: &Transaction,
        path: impl Into<DirectoryPath>,
    ) -> Result<bool, DirectoryError> {
        let (mut tree, mut path) = (self.clone(), path.into());
        let turn = transaction.turn();
        loop {
            match tree.look_up(&turn, &path, Access::Read).await? {
                Place::Absent { .. } => return Ok(false),
                Place::Here(_) => return Ok(true),
                Place::InPartition { partition, path: at, further } => {
                    tree = tree.inside(&partition, &at);
                    path = further;
                }
            }
        }
    }
}
