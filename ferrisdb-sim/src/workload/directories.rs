//! Several operations on directories at once, in each transaction: the tree stays a tree.
//!
//! ```text
//!   one transaction     create a/b     create a/c     move a to d     at the same time: in some order
//!   in the end          every node has rows and is found by one path; every row belongs to a node that is found
//! ```
//!
//! Start with [`Directories::transaction`], then [`check_tree`].

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{
    AsError as _, Key, KeyRange, Subspace, Transaction,
    directory::{DirectoryError, DirectoryLayer},
    tuple::{Element, Tuple},
};
use futures::{FutureExt as _, future::BoxFuture, future::join_all};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{self, draw, passing, persist, pick},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectoriesSettings {
    /// How many clients.
    pub clients: u32,
    /// Most operations of a transaction.
    pub operations: usize,
}

impl Default for DirectoriesSettings {
    fn default() -> Self {
        DirectoriesSettings { clients: 3, operations: 4 }
    }
}

/// The workload.
pub struct Directories {
    settings: DirectoriesSettings,
    transactions: Mutex<u64>,
}

/// What is done to a path.
#[derive(Clone, Debug)]
enum Operation {
    CreateOrOpen(Path),
    Create(Path),
    Move(Path, Path),
    Remove(Path),
    List(Path),
}

type Path = Vec<&'static str>;

fn nodes() -> Subspace {
    Subspace::from_prefix(b"directories/nodes/")
}

fn layer() -> DirectoryLayer {
    DirectoryLayer::with_subspaces(nodes(), Subspace::from_prefix(b"directories/content/"))
}

fn draw_path() -> Path {
    (0..=draw(3)).map(|_| *pick(&["a", "b", "c"])).collect()
}

fn draw_operation() -> Operation {
    match draw(9) {
        0..=3 => Operation::CreateOrOpen(draw_path()),
        4 => Operation::Create(draw_path()),
        5 | 6 => Operation::Move(draw_path(), draw_path()),
        7 => Operation::Remove(draw_path()),
        _ => Operation::List(draw_path()),
    }
}

impl Operation {
    async fn perform(&self, transaction: &Transaction) -> Result<(), DirectoryError> {
        let layer = layer();
        match self.clone() {
            Operation::CreateOrOpen(path) => {
                layer.create_or_open(transaction, path).await.map(drop)
            }
            Operation::Create(path) => layer.create(transaction, path).await.map(drop),
            Operation::Move(from, to) => layer.move_path(transaction, from, to).await.map(drop),
            Operation::Remove(path) => layer.remove_if_exists(transaction, path).await.map(drop),
            Operation::List(path) => layer.list(transaction, path).await.map(drop),
        }
    }
}

impl Directories {
    /// A workload of which nothing was done yet.
    pub fn new(settings: DirectoriesSettings) -> Directories {
        Directories { settings, transactions: Mutex::default() }
    }

    /// Some operations at once. What one of them refuses, such as to create what is there, is an answer.
    async fn transaction(&self, client: &Client) -> Result<()> {
        let count = 2 + draw(self.settings.operations.max(2) - 1);
        let operations: &Vec<Operation> = &(0..count).map(|_| draw_operation()).collect();
        support::run(client, "operations on directories", |transaction| async move {
            let performed = operations.iter().map(|operation| operation.perform(&transaction));
            for ended in join_all(performed).await {
                match ended {
                    Err(error) if error.as_error().is_some() => return Err(error.into()),
                    Err(DirectoryError::Malformed { key, detail }) => {
                        anyhow::bail!("{key} is malformed: {detail} (I-2)")
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            Ok(())
        })
        .await?;
        *self.transactions.lock() += 1;
        Ok(())
    }
}

/// Compares the nodes that paths lead to with those that have rows.
async fn check_tree(transaction: &Transaction) -> Result<usize> {
    let mut reached: BTreeSet<Key> = BTreeSet::new();
    let mut paths: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        if !path.is_empty() {
            let directory = layer().open(transaction, path.clone()).await?;
            let prefix = directory.prefix()?.clone();
            ensure!(
                reached.insert(prefix.clone()),
                "{path:?} has the prefix {prefix}, which another directory has, too (I-4)"
            );
        }
        for name in layer().list(transaction, path.clone()).await? {
            paths.push(path.iter().cloned().chain([name]).collect());
        }
    }
    for row in transaction.get_range(nodes().range()).await? {
        let elements: Tuple = nodes().unpack(&row.key)?;
        let prefix = match elements.into_iter().next() {
            Some(Element::Bytes(prefix)) => Key::from(prefix),
            other => anyhow::bail!("{} begins with {other:?}", row.key),
        };
        let is_root = prefix == *nodes().prefix();
        ensure!(
            is_root || reached.contains(&prefix),
            "{} belongs to a directory that no path leads to (I-4)",
            row.key
        );
    }
    Ok(reached.len())
}

impl Workload for Directories {
    fn name(&self) -> &str {
        "directories"
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            while !client.is_stopped() {
                match self.transaction(&client).await {
                    Err(error) if passing(&error).is_some() => support::pause().await,
                    ended => ended?,
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let check = || async {
                let transaction = client.database.transaction();
                check_tree(&transaction).await
            };
            let count = persist(&client, "walking the tree", check).await?;
            let content = KeyRange::prefix(b"directories/content/");
            let transactions = *self.transactions.lock();
            ensure!(transactions > 0, "no transaction was committed");
            let left = support::read_all(&client.database, &content).await.context("content")?;
            ensure!(left.is_empty(), "nobody has written content, there is {left:?} (I-12)");
            Ok(format!("{transactions} transactions, {count} directories"))
        }
        .boxed()
    }
}
