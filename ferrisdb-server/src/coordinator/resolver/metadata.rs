//! Changes of the shard map, remembered until every proxy has had them.
//!
//! ```text
//!   chain          110 proxy 0    120 proxy 1    130 proxy 0    140 proxy 1
//!   changes         .              move m         .              .
//!   handed out      .              .              120: move m    .            proxy 1 knows its own
//! ```
//!
//! Each reply hands out what was accepted since the same proxy's batch before, and names that batch, so that a
//! proxy can take in its replies in their order and never tags by a map that lacks a change (I-2).

use std::collections::VecDeque;

use ferrisdb_core::{Version, service::resolver::MetadataBatch};

/// What the resolver of the system keyspace remembers.
#[derive(Debug)]
pub(super) struct Metadata {
    batches: VecDeque<MetadataBatch>,
    /// The version of each proxy's latest batch.
    latest: Vec<Version>,
}

impl Metadata {
    /// Nothing, for a generation that begins after `recovery_version`.
    pub(super) fn new(recovery_version: Version, proxies: u32) -> Metadata {
        Metadata { batches: VecDeque::new(), latest: vec![recovery_version; proxies as usize] }
    }

    /// Whether there is such a proxy.
    pub(super) fn knows(&self, proxy: u32) -> bool {
        (proxy as usize) < self.latest.len()
    }

    /// Takes in a proxy's batch with its accepted changes. Returns the proxy's batch before it, and what others have
    /// changed since.
    pub(super) fn on_batch(
        &mut self,
        proxy: u32,
        batch: MetadataBatch,
    ) -> (Version, Vec<MetadataBatch>) {
        let previous = std::mem::replace(&mut self.latest[proxy as usize], batch.commit_version);
        let since = self.batches.iter().filter(|batch| batch.commit_version > previous);
        let since = since.cloned().collect();
        if !batch.mutations.is_empty() {
            self.batches.push_back(batch);
        }
        let everybody = self.latest.iter().min().copied().unwrap_or_default();
        while self.batches.front().is_some_and(|first| first.commit_version <= everybody) {
            self.batches.pop_front();
        }
        (previous, since)
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::Mutation;

    use super::*;

    #[test]
    fn each_proxy_gets_each_change_of_the_others_once() {
        let mut metadata = Metadata::new(Version(100), 2);
        let mut batch = |proxy, version, change: bool| {
            let mutation = Mutation::Clear { key: "k".into() };
            let mutations = if change { vec![mutation] } else { Vec::new() };
            let batch = MetadataBatch { commit_version: Version(version), mutations };
            let (previous, since) = metadata.on_batch(proxy, batch);
            let since: Vec<_> = since.iter().map(|batch| batch.commit_version.0).collect();
            (previous.0, since, metadata.batches.len())
        };
        assert_eq!(batch(0, 110, true), (100, vec![], 1));
        assert_eq!(batch(1, 120, true), (100, vec![110], 1));
        assert_eq!(batch(1, 130, true), (120, vec![], 2));
        assert_eq!(batch(0, 140, false), (110, vec![120, 130], 0));
        assert_eq!(batch(1, 150, false), (130, vec![], 0));
        assert!(!metadata.knows(2));
    }
}
