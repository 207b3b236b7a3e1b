//! Keys that point to each other form one ring, whatever is swapped.
//!
//! ```text
//!   cycle/0003  "0007"      node 3 points to node 7
//!
//!   a swap reads three links and writes them:   a -> b -> c -> d     becomes     a -> c -> b -> d
//! ```
//!
//! Swaps that overlap and are not serializable tear the ring into several, or lose a node of it (I-4); so does a
//! part of a swap (I-2). Readers walk along the whole ring all the time. The idea is FoundationDB's: it costs
//! little, needs no memory of what happened, and hardly anything that goes wrong with isolation escapes it.
//!
//! Start with [`swap`], then [`check_ring`].

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::Transaction;
use ferrisdb_core::{Key, KeyRange, Value};
use futures::future::BoxFuture;
use serde::Deserialize;

use super::{
    Client, Workload,
    bank::number,
    common::{draw, explained, once_in, patiently, pause},
};

/// The size of a [`Cycle`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CycleSettings {
    /// How many keys form the ring: three at least. The fewer, the more conflicts.
    pub nodes: u32,
    /// How many clients swap.
    pub clients: u32,
    /// A client walks along the whole ring once in so many times.
    pub walk_once_in: u32,
}

impl Default for CycleSettings {
    fn default() -> CycleSettings {
        CycleSettings { nodes: 20, clients: 4, walk_once_in: 8 }
    }
}

/// A ring of keys: see the module.
pub struct Cycle {
    settings: CycleSettings,
    swaps: AtomicU64,
    walks: AtomicU64,
}

const NAME: &str = "cycle";

fn node_key(node: u32) -> String {
    format!("{NAME}/{node:04}")
}

fn node_value(node: u32) -> String {
    format!("{node:04}")
}

impl Cycle {
    /// A ring that is not there yet.
    pub fn new(settings: CycleSettings) -> Cycle {
        let settings = CycleSettings { nodes: settings.nodes.max(3), ..settings };
        Cycle { settings, swaps: AtomicU64::new(0), walks: AtomicU64::new(0) }
    }
}

impl Workload for Cycle {
    fn name(&self) -> &str {
        NAME
    }

    fn cuts(&self) -> Vec<Key> {
        let nodes = self.settings.nodes;
        [1, 2, 3].map(|quarter| node_key(quarter * nodes / 4).into()).to_vec()
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        let nodes = self.settings.nodes;
        Box::pin(async move {
            patiently(&client.database, |transaction| async move {
                for node in 0..nodes {
                    transaction.set(node_key(node), node_value((node + 1) % nodes))?;
                }
                Ok(())
            })
            .await
        })
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        let nodes = self.settings.nodes;
        Box::pin(async move {
            while !client.is_stopped() {
                let (outcome, count) = if once_in(self.settings.walk_once_in) {
                    let walk = |transaction| async move { walk(&transaction, nodes).await };
                    (client.database.run_transaction(walk).await, &self.walks)
                } else {
                    let swap = |transaction| async move { swap(&transaction, nodes).await };
                    (client.database.run_transaction(swap).await, &self.swaps)
                };
                match outcome {
                    Ok(()) => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        explained(error)?;
                        pause().await;
                    }
                }
            }
            Ok(())
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        let nodes = self.settings.nodes;
        Box::pin(async move {
            patiently(
                &client.database,
                |transaction| async move { walk(&transaction, nodes).await },
            )
            .await?;
            let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
            Ok(format!(
                "a ring of {nodes} after {} swaps, {} walks",
                count(&self.swaps),
                count(&self.walks)
            ))
        })
    }
}

/// Lets the second and the third of four nodes in a row change places.
async fn swap(transaction: &Transaction, nodes: u32) -> Result<()> {
    let next = async |node| {
        let value = transaction.get(node_key(node)).await?;
        link(node, value, nodes)
    };
    let first = draw(nodes);
    let second = next(first).await?;
    let third = next(second).await?;
    let fourth = next(third).await?;
    transaction.set(node_key(first), node_value(third))?;
    transaction.set(node_key(third), node_value(second))?;
    transaction.set(node_key(second), node_value(fourth))?;
    Ok(())
}

fn link(node: u32, value: Option<Value>, nodes: u32) -> Result<u32> {
    let value = value.with_context(|| format!("node {node} of the ring is gone (I-2)"))?;
    let next = number(&value).with_context(|| format!("node {node} points to '{value}' (I-2)"))?;
    ensure!(next < nodes, "node {node} points to {next}, of {nodes} nodes (I-2)");
    Ok(next)
}

/// Reads the whole ring at one version and walks along it.
async fn walk(transaction: &Transaction, nodes: u32) -> Result<()> {
    let rows = transaction.get_range(KeyRange::prefix(format!("{NAME}/").as_bytes())).await?;
    let mut links = BTreeMap::new();
    for row in rows {
        let node = number(&row.key[NAME.len() + 1..])?;
        links.insert(node, link(node, Some(row.value), nodes)?);
    }
    check_ring(&links, nodes)
}

/// Whether links form one ring of so many nodes.
///
/// # Errors
///
/// Where they do not.
pub fn check_ring(links: &BTreeMap<u32, u32>, nodes: u32) -> Result<()> {
    ensure!(links.len() == nodes as usize, "the ring has {} keys, not {nodes} (I-2)", links.len());
    let mut node = 0;
    for step in 1..=nodes {
        node = *links.get(&node).with_context(|| format!("node {node} is gone (I-2)"))?;
        ensure!(
            (node == 0) == (step == nodes),
            "after {step} of {nodes} steps around the ring from node 0 comes node {node}: swaps were not \
             serializable (I-4)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(links: &[u32]) -> BTreeMap<u32, u32> {
        (0..).zip(links.iter().copied()).collect()
    }

    #[test]
    fn one_ring_passes() {
        check_ring(&ring(&[1, 2, 3, 0]), 4).unwrap();
        check_ring(&ring(&[2, 3, 1, 0]), 4).unwrap();
    }

    #[test]
    fn everything_else_is_found() {
        // Two rings; one that does not come back to 0; a node too few, and too many; two swaps half done.
        for wrong in [
            &[1, 0, 3, 2][..],
            &[1, 2, 1, 0],
            &[1, 2, 0],
            &[1, 2, 3, 4, 0],
            &[0, 2, 3, 1],
            &[2, 2, 3, 0],
        ] {
            check_ring(&ring(wrong), 4).unwrap_err();
        }
    }

    #[test]
    fn links_stay_inside() {
        assert_eq!(link(1, Some("0002".into()), 4).unwrap(), 2);
        link(1, Some("0004".into()), 4).unwrap_err();
        link(1, Some("x".into()), 4).unwrap_err();
        link(1, None, 4).unwrap_err();
    }
}
