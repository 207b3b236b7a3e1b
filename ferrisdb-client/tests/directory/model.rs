//! The simplest tree of directories: nodes that hold nodes. What an operation has to answer is read off it.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_client::{
    Database, KeyRange, Subspace, Transaction,
    directory::{CreateOptions, Directory, DirectoryError, DirectoryLayer, PARTITION},
};
use proptest::prelude::*;

type Path = Vec<String>;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create {
        path: Path,
        layer: Vec<u8>,
    },
    CreateOrOpen {
        path: Path,
        layer: Vec<u8>,
    },
    Open {
        path: Path,
        layer: Vec<u8>,
    },
    Move {
        from: Path,
        to: Path,
    },
    Remove {
        path: Path,
    },
    RemoveIfExists {
        path: Path,
    },
    List {
        path: Path,
    },
    Exists {
        path: Path,
    },
    /// Writes a row into the directory.
    Write {
        path: Path,
        row: u8,
    },
    /// The transaction is committed, and another one begins.
    Commit,
}

#[derive(Clone, Debug, Default)]
struct Node {
    layer: Vec<u8>,
    directories: BTreeMap<String, Node>,
    rows: BTreeSet<u8>,
}

/// What an operation answers. Errors by their kind: the paths in them are looked at elsewhere.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Opened { path: Path, layer: Vec<u8> },
    Names(Vec<String>),
    Is(bool),
    Root,
    AlreadyExists,
    DoesNotExist,
    ParentDoesNotExist,
    WrongLayer,
    MoveIntoItself,
    MoveBetweenPartitions,
    PartitionHasNoSubspace,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || prop::collection::vec("[abc]", 0..5);
    let short = || prop::collection::vec("[abc]", 1..3);
    let layer = || {
        prop_oneof![
            4 => Just(Vec::new()),
            1 => Just(b"x".to_vec()),
            1 => Just(PARTITION.to_vec()),
        ]
    };
    let step = prop_oneof![
        4 => (short(), layer()).prop_map(|(path, layer)| Step::Create { path, layer }),
        4 => (path(), layer()).prop_map(|(path, layer)| Step::CreateOrOpen { path, layer }),
        1 => (path(), layer()).prop_map(|(path, layer)| Step::Open { path, layer }),
        4 => (short(), path()).prop_map(|(from, to)| Step::Move { from, to }),
        1 => path().prop_map(|path| Step::Remove { path }),
        1 => path().prop_map(|path| Step::RemoveIfExists { path }),
        1 => path().prop_map(|path| Step::List { path }),
        1 => path().prop_map(|path| Step::Exists { path }),
        4 => (short(), any::<u8>()).prop_map(|(path, row)| Step::Write { path, row }),
        1 => Just(Step::Commit),
    ];
    prop::collection::vec(step, 1..50)
}

impl Node {
    fn find(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.directories.get(name))
    }

    fn find_mut(&mut self, path: &[String]) -> Option<&mut Node> {
        path.iter().try_fold(self, |node, name| node.directories.get_mut(name))
    }

    /// How many names lead to the next partition after `from`, if something below it is meant.
    fn next_partition(&self, path: &[String], from: usize) -> Option<usize> {
        (from + 1..path.len())
            .find(|&length| self.find(&path[..length]).is_some_and(|node| node.layer == PARTITION))
    }

    /// The node at a path, with all that are missing.
    fn create(&mut self, path: &[String], layer: &[u8]) {
        let node =
            path.iter().fold(self, |node, name| node.directories.entry(name.clone()).or_default());
        node.layer = layer.to_vec();
    }

    fn remove(&mut self, path: &[String]) -> Option<Node> {
        let (name, parents) = path.split_last()?;
        self.find_mut(parents)?.directories.remove(name)
    }

    fn apply(&mut self, step: &Step) -> Answer {
        match step {
            Step::Create { path, .. }
            | Step::CreateOrOpen { path, .. }
            | Step::Open { path, .. }
            | Step::Remove { path }
            | Step::RemoveIfExists { path }
                if path.is_empty() =>
            {
                Answer::Root
            }
            Step::Create { path, layer } => match self.find(path) {
                Some(_) => Answer::AlreadyExists,
                None => {
                    self.create(path, layer);
                    Answer::Opened { path: path.clone(), layer: layer.clone() }
                }
            },
            Step::CreateOrOpen { path, layer } => match self.find(path) {
                Some(_) => self.open(path, layer),
                None => {
                    self.create(path, layer);
                    Answer::Opened { path: path.clone(), layer: layer.clone() }
                }
            },
            Step::Open { path, layer } => self.open(path, layer),
            Step::Move { from, to } => self.apply_move(from, to),
            Step::Remove { path } => match self.remove(path) {
                Some(_) => Answer::Done,
                None => Answer::DoesNotExist,
            },
            Step::RemoveIfExists { path } => Answer::Is(self.remove(path).is_some()),
            Step::List { path } => match self.find(path) {
                Some(node) => Answer::Names(node.directories.keys().cloned().collect()),
                None => Answer::DoesNotExist,
            },
            Step::Exists { path } => Answer::Is(self.find(path).is_some()),
            Step::Write { path, row } => match self.find_mut(path) {
                None => Answer::DoesNotExist,
                Some(node) if node.layer == PARTITION => Answer::PartitionHasNoSubspace,
                Some(node) => {
                    node.rows.insert(*row);
                    Answer::Done
                }
            },
            Step::Commit => Answer::Done,
        }
    }

    fn open(&self, path: &[String], layer: &[u8]) -> Answer {
        match self.find(path) {
            None => Answer::DoesNotExist,
            Some(node) if !layer.is_empty() && layer != node.layer => Answer::WrongLayer,
            Some(node) => Answer::Opened { path: path.to_vec(), layer: node.layer.clone() },
        }
    }

    fn apply_move(&mut self, from: &[String], to: &[String]) -> Answer {
        if to.starts_with(from) {
            return Answer::MoveIntoItself;
        }
        // The innermost partition that both are in.
        let mut base = 0;
        loop {
            let (in_from, in_to) = (self.next_partition(from, base), self.next_partition(to, base));
            match (in_from, in_to) {
                (Some(from_base), Some(to_base)) if from[..from_base] == to[..to_base] => {
                    base = from_base;
                }
                (None, _) if self.find(from).is_none() => return Answer::DoesNotExist,
                (None, None) => break,
                _ => return Answer::MoveBetweenPartitions,
            }
        }
        if self.find(to).is_some() {
            return Answer::AlreadyExists;
        }
        let Some((name, parents)) = to.split_last() else { return Answer::AlreadyExists };
        if self.find(parents).is_none() {
            return Answer::ParentDoesNotExist;
        }
        let Some(node) = self.remove(from) else { return Answer::DoesNotExist };
        let layer = node.layer.clone();
        if let Some(parent) = self.find_mut(parents) {
            parent.directories.insert(name.clone(), node);
        }
        Answer::Opened { path: to.to_vec(), layer }
    }

    /// All paths, with what is there.
    fn all(&self) -> Vec<(Path, &Node)> {
        let mut found = Vec::new();
        let mut left = vec![(Path::new(), self)];
        while let Some((path, node)) = left.pop() {
            for (name, node) in &node.directories {
                let path = [path.as_slice(), std::slice::from_ref(name)].concat();
                found.push((path.clone(), node));
                left.push((path, node));
            }
        }
        found
    }
}

/// Runs the steps in a tree of its own in the database, and compares each answer and, in the end, everything.
pub(crate) async fn compare(database: &Database, case: usize, steps: &[Step]) {
    let nodes = Subspace::from_prefix(format!("{case:03} nodes"));
    let contents = Subspace::from_prefix(format!("{case:03} contents"));
    let layer = DirectoryLayer::with_subspaces(nodes, contents.clone());
    let mut model = Node::default();
    let mut transaction = database.transaction();
    for (number, step) in steps.iter().enumerate() {
        if let Step::Commit = step {
            transaction.commit().await.unwrap();
            transaction = database.transaction();
        }
        let expected = model.apply(step);
        let found = perform(&layer, &transaction, step).await;
        assert_eq!(found, expected, "case {case}, step {number}: {step:?} of {steps:#?}");
    }
    transaction.commit().await.unwrap();
    check_all(database, &layer, &contents, &model).await;
}

async fn perform(layer: &DirectoryLayer, transaction: &Transaction, step: &Step) -> Answer {
    let with = |layer: &Vec<u8>| CreateOptions::new().layer(layer);
    let result = match step {
        Step::Create { path, layer: name } => {
            layer.create_with(transaction, path.clone(), with(name)).await.map(opened)
        }
        Step::CreateOrOpen { path, layer: name } => {
            layer.create_or_open_with_layer(transaction, path.clone(), name).await.map(opened)
        }
        Step::Open { path, layer: name } => {
            layer.open_with_layer(transaction, path.clone(), name).await.map(opened)
        }
        Step::Move { from, to } => {
            layer.move_path(transaction, from.clone(), to.clone()).await.map(opened)
        }
        Step::Remove { path } => {
            layer.remove(transaction, path.clone()).await.map(|()| Answer::Done)
        }
        Step::RemoveIfExists { path } => {
            layer.remove_if_exists(transaction, path.clone()).await.map(Answer::Is)
        }
        Step::List { path } => layer.list(transaction, path.clone()).await.map(Answer::Names),
        Step::Exists { path } => layer.exists(transaction, path.clone()).await.map(Answer::Is),
        Step::Write { path, row } => write(layer, transaction, path, *row).await,
        Step::Commit => Ok(Answer::Done),
    };
    result.unwrap_or_else(|error| match error {
        DirectoryError::Root => Answer::Root,
        DirectoryError::AlreadyExists { .. } => Answer::AlreadyExists,
        DirectoryError::DoesNotExist { .. } => Answer::DoesNotExist,
        DirectoryError::ParentDoesNotExist { .. } => Answer::ParentDoesNotExist,
        DirectoryError::WrongLayer { .. } => Answer::WrongLayer,
        DirectoryError::MoveIntoItself { .. } => Answer::MoveIntoItself,
        DirectoryError::MoveBetweenPartitions { .. } => Answer::MoveBetweenPartitions,
        DirectoryError::PartitionHasNoSubspace { .. } => Answer::PartitionHasNoSubspace,
        error => panic!("{step:?}: {error}"),
    })
}

fn opened(directory: Directory) -> Answer {
    Answer::Opened { path: directory.path().to_vec(), layer: directory.layer().to_vec() }
}

async fn write(
    layer: &DirectoryLayer,
    transaction: &Transaction,
    path: &Path,
    row: u8,
) -> Result<Answer, DirectoryError> {
    let directory = layer.open(transaction, path.clone()).await?;
    transaction.set(directory.pack(&row)?, "")?;
    Ok(Answer::Done)
}

async fn check_all(database: &Database, layer: &DirectoryLayer, contents: &Subspace, model: &Node) {
    let transaction = database.transaction();
    assert_eq!(
        layer.list(&transaction, ()).await.unwrap(),
        model.directories.keys().cloned().collect::<Vec<_>>()
    );
    let mut expected_rows = BTreeSet::new();
    let mut prefixes: Vec<Vec<u8>> = Vec::new();
    for (path, node) in model.all() {
        let directory = layer.open(&transaction, path.clone()).await.unwrap();
        assert_eq!(directory.layer(), node.layer);
        let names = layer.list(&transaction, path.clone()).await.unwrap();
        assert_eq!(names, node.directories.keys().cloned().collect::<Vec<_>>(), "{path:?}");
        if node.layer == PARTITION {
            continue;
        }
        let prefix = directory.prefix().unwrap();
        prefixes.push(prefix.to_vec());
        let rows = transaction.get_range(KeyRange::prefix(prefix)).await.unwrap();
        let rows: Vec<u8> = rows.iter().map(|row| directory.unpack(&row.key).unwrap()).collect();
        assert!(rows.iter().eq(&node.rows), "{path:?}: {rows:?}, {:?}", node.rows);
        expected_rows.extend(node.rows.iter().map(|row| directory.pack(row).unwrap()));
    }
    // No prefix is the beginning of another one.
    prefixes.sort();
    assert!(prefixes.windows(2).all(|pair| !pair[1].starts_with(&pair[0])), "{prefixes:?}");
    // Nothing is left of what was removed: all else are the nodes of partitions, which begin with fe.
    let rows = transaction.get_range(contents.prefix_range()).await.unwrap();
    let left = rows.iter().filter(|row| !expected_rows.contains(row.key.as_slice()));
    for row in left {
        assert!(row.key.contains(&0xfe), "{}", row.key);
    }
}
