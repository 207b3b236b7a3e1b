//! Nodes of the tree, and walking along paths.

use ferrisdb_core::{Key, KeyRange};
use futures::future;

use super::{PARTITION, error::DirectoryError, layer::DirectoryLayer, path::DirectoryPath};
use crate::{
    options::RangeQuery,
    subspace::Subspace,
    transaction::{Act, Isolation, Turn},
};

/// The version of the format that this writes.
const VERSION: [u32; 3] = [1, 0, 0];

/// Under a node's prefix: names of the directories in it, to their prefixes.
const ENTRIES: u8 = 0;
/// Under a node's prefix: what the directory is for.
const LAYER: &[u8] = b"layer";
/// Under the root's prefix.
const VERSION_KEY: &[u8] = b"version";

/// A directory, as its rows say it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The prefix of the directory's content, by which the node is known.
    pub(super) prefix: Key,
    /// Where the rows of the node are.
    pub(super) rows: Subspace,
    pub(super) layer: Vec<u8>,
    /// The row of the parent that leads here; empty for the root, which no row leads to.
    pub(super) entry: Vec<u8>,
}

/// What is at the end of a path.
pub(super) enum Place {
    /// A directory, or a partition.
    Here(Node),
    /// Whatever is there, a partition on the way has the rows.
    InPartition { partition: Node, path: DirectoryPath, further: DirectoryPath },
    /// Nothing. The way there ends at `parent`, after `depth` names.
    Absent { parent: Node, depth: usize },
}

/// What an operation is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Node {
    pub(super) fn is_partition(&self) -> bool {
        self.layer == PARTITION
    }

    /// The row that leads to a directory in this one.
    pub(super) fn entry_of(&self, name: &str) -> Result<Vec<u8>, DirectoryError> {
        Ok(self.rows.pack(&(ENTRIES, name))?)
    }

    /// The row that says what the directory is for.
    pub(super) fn layer_key(&self) -> Result<Vec<u8>, DirectoryError> {
        Ok(self.rows.pack(LAYER)?)
    }

    /// Names and prefixes of the directories in this one, by name.
    pub(super) async fn entries(
        &self,
        turn: &Turn<'_>,
    ) -> Result<Vec<(String, Key)>, DirectoryError> {
        let entries = self.rows.nested(&ENTRIES)?;
        let rows = turn.get_range(entries.range().into(), Isolation::Serializable).await?;
        rows.into_iter()
            .map(|row| {
                let name = entries.unpack(&row.key).map_err(|error| DirectoryError::Malformed {
                    key: row.key.clone(),
                    detail: error.to_string(),
                })?;
                Ok((name, checked_prefix(&row.key, &row.value)?))
            })
            .collect()
    }
}

/// The prefix in a row of a parent. One without any bytes would stand for all keys there are, and a removal would
/// clear them.
fn checked_prefix(row: &[u8], prefix: &[u8]) -> Result<Key, DirectoryError> {
    if prefix.is_empty() {
        let detail = "the directory's prefix is empty".to_string();
        return Err(DirectoryError::Malformed { key: Key::copy_from(row), detail });
    }
    Ok(Key::copy_from(prefix))
}

/// Reading and writing nodes.
impl DirectoryLayer {
    /// The node that all paths begin at.
    pub(super) fn root(&self) -> Node {
        Node {
            prefix: self.nodes().prefix().clone(),
            rows: self.root_rows().clone(),
            layer: Vec::new(),
            entry: Vec::new(),
        }
    }

    /// The rows of the directory with a prefix.
    pub(super) fn rows_of(&self, prefix: &[u8]) -> Subspace {
        self.nodes().nested_by(|encoder| encoder.bytes(prefix))
    }

    /// Checks the version and follows a path, at the same time.
    pub(super) async fn look_up(
        &self,
        turn: &Turn<'_>,
        path: &DirectoryPath,
        access: Access,
    ) -> Result<Place, DirectoryError> {
        let version = self.check_version(turn, access);
        let (version, place) = future::join(version, self.find(turn, path)).await;
        // Of another version, nothing that was found means anything.
        version?;
        place
    }

    /// Follows a path, up to its end or to the first partition.
    pub(super) async fn find(
        &self,
        turn: &Turn<'_>,
        path: &DirectoryPath,
    ) -> Result<Place, DirectoryError> {
        let mut node = self.root();
        let mut found = self.entry(turn, &node, path.first()).await?;
        for depth in 0..path.len() {
            let Some((entry, prefix)) = found else {
                return Ok(Place::Absent { parent: node, depth });
            };
            let rows = self.rows_of(&prefix);
            node = Node { prefix, rows, layer: Vec::new(), entry };
            let names = depth + 1;
            // In a partition the next entry is nowhere, but in all others it saves waiting once more.
            let layer_key = node.layer_key()?;
            let layer = async { Ok(turn.get(layer_key).await?) };
            let next = self.entry(turn, &node, path.get(names));
            let (layer, next) = future::try_join(layer, next).await?;
            node.layer = layer.unwrap_or_default().to_vec();
            if node.is_partition() && names < path.len() {
                return Ok(Place::InPartition {
                    partition: node,
                    path: path[..names].into(),
                    further: path.without_first(names),
                });
            }
            found = next;
        }
        Ok(Place::Here(node))
    }

    /// The row of a node that leads to a directory in it, and that directory's prefix.
    async fn entry(
        &self,
        turn: &Turn<'_>,
        node: &Node,
        name: Option<&String>,
    ) -> Result<Option<(Vec<u8>, Key)>, DirectoryError> {
        let Some(name) = name else { return Ok(None) };
        let entry = node.entry_of(name)?;
        let Some(prefix) = turn.get(entry.clone()).await? else { return Ok(None) };
        let prefix = checked_prefix(&entry, &prefix)?;
        Ok(Some((entry, prefix)))
    }

    /// Checks the version of the format, and writes it if there is none and something is about to be written. It is the
    /// same whoever writes it, so that it need not wait for the operation to act.
    pub(super) async fn check_version(
        &self,
        turn: &Turn<'_>,
        access: Access,
    ) -> Result<(), DirectoryError> {
        let key = self.root_rows().pack(VERSION_KEY)?;
        let Some(value) = turn.get(key.clone()).await? else {
            if access == Access::Write {
                let bytes: Vec<u8> = VERSION.iter().flat_map(|part| part.to_le_bytes()).collect();
                turn.transaction().set(key, bytes)?;
            }
            return Ok(());
        };
        let (parts, []) = value.as_chunks::<4>() else { return Err(malformed_version(key)) };
        let Ok(parts) = <[[u8; 4]; 3]>::try_from(parts) else { return Err(malformed_version(key)) };
        let found = parts.map(u32::from_le_bytes);
        let [major, minor, _] = found;
        // A newer minor version can be read, but what else it keeps up to date is not known here.
        if major > VERSION[0] || (minor > VERSION[1] && access == Access::Write) {
            return Err(DirectoryError::Version { found });
        }
        Ok(())
    }

    /// Whether a prefix neither begins with that of a directory nor is the beginning of one.
    pub(super) async fn is_prefix_free(
        &self,
        turn: &Turn<'_>,
        prefix: &Key,
        isolation: Isolation,
    ) -> Result<bool, DirectoryError> {
        if prefix.is_empty() || prefix.starts_with(self.nodes().prefix()) {
            return Ok(false);
        }
        // Prefixes are no beginnings of each other, so only the last one up to this can be a beginning of it.
        let up_to_it = [&self.nodes().pack(prefix)?[..], &[0]].concat();
        let before = RangeQuery::from(KeyRange::new(self.nodes().range().begin, up_to_it));
        let before = before.reverse().rows(1);
        // The end of the keys that begin with the prefix; all keys, if no other sorts after it.
        let end = KeyRange::prefix(prefix).end;
        let below = KeyRange::new(self.nodes().pack(prefix)?, self.nodes().pack(&end)?);
        let below = RangeQuery::from(below).rows(1);
        let (before, below) = futures::try_join!(
            turn.get_range(before, isolation),
            turn.get_range(below, isolation)
        )?;
        if let Some(row) = before.first() {
            let found = self.prefix_of_row(&row.key)?;
            if prefix.starts_with(&found) {
                return Ok(false);
            }
        }
        Ok(below.is_empty())
    }

    /// The prefix of the directory that a row of a node is of.
    fn prefix_of_row(&self, key: &Key) -> Result<Vec<u8>, DirectoryError> {
        // More follows, so the first element alone is taken.
        let malformed = |detail: String| DirectoryError::Malformed { key: key.clone(), detail };
        let row: crate::tuple::Tuple =
            self.nodes().unpack(key).map_err(|error| malformed(error.to_string()))?;
        match row.into_iter().next() {
            Some(crate::tuple::Element::Bytes(prefix)) => Ok(prefix),
            _ => Err(malformed("it does not begin with a prefix".to_string())),
        }
    }

    /// A directory and all below it.
    pub(super) async fn with_all_below(
        &self,
        turn: &Turn<'_>,
        node: &Node,
    ) -> Result<Vec<Node>, DirectoryError> {
        let mut nodes = vec![node.clone()];
        let mut looked_at = 0;
        while looked_at < nodes.len() {
            for (_, prefix) in nodes[looked_at].entries(turn).await? {
                let rows = self.rows_of(&prefix);
                nodes.push(Node { prefix, rows, layer: Vec::new(), entry: Vec::new() });
            }
            looked_at += 1;
        }
        Ok(nodes)
    }
}

impl Node {
    /// Removes a directory's rows and content. The row that leads to it stays.
    pub(super) fn remove(&self, act: &mut Act<'_>) -> Result<(), DirectoryError> {
        act.clear_range(KeyRange::prefix(&self.prefix))?;
        act.clear_range(self.rows.range())?;
        Ok(())
    }
}

fn malformed_version(key: Vec<u8>) -> DirectoryError {
    let detail = "a version has three integers of four bytes".to_string();
    DirectoryError::Malformed { key: Key::from(key), detail }
}
