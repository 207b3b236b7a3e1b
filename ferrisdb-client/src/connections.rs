//! Open connections, one per endpoint and service, which servers have failed of late, and which are slow.
//!
//! ```text
//!   asked in turn     a  b  c        each of them as good as the others
//!   b is slow         a  c  b        it takes several times as long as the fastest
//!   c has failed      a  b  c        for a while it comes last
//! ```
//!
//! What was measured is forgotten after a while, so that a server that was slow gets another chance.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrisdb_core::{
    Endpoint, Result,
    runtime::{self, Instant},
    service::Service,
    transport::Network,
};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::hedge::Speeds;

/// How long a server that failed is asked only after all others.
const SUSPECT_FOR: Duration = Duration::from_secs(1);

/// How long a measured latency counts.
const LATENCY_COUNTS_FOR: Duration = Duration::from_secs(2);
/// A server that takes so many times as long as the fastest one is slow ...
const SLOW_FACTOR: u32 = 4;
/// ... unless the difference is smaller than this.
const SLOW_MIN: Duration = Duration::from_millis(2);

/// The connections to the endpoints of a service.
pub(crate) struct Connections<S: Service> {
    network: Network,
    slots: Mutex<BTreeMap<Endpoint, Slot<S>>>,
}

/// An endpoint that was used.
struct Slot<S: Service> {
    /// Filled by whoever connects first; the others wait for that.
    client: Arc<OnceCell<S::Client>>,
    suspect_until: Option<Instant>,
    /// A moving average, and when it was last updated.
    latency: Option<(Duration, Instant)>,
}

impl<S: Service> Connections<S> {
    pub(crate) fn new(network: Network) -> Connections<S> {
        Connections { network, slots: Mutex::default() }
    }

    /// The connection to an endpoint, made now if there is none.
    ///
    /// # Errors
    ///
    /// What [`Network::connect`] says.
    pub(crate) async fn get(&self, endpoint: &Endpoint) -> Result<S::Client> {
        let client = {
            let mut slots = self.slots.lock();
            let slot = slots.entry(endpoint.clone()).or_insert_with(|| Slot {
                client: Arc::new(OnceCell::new()),
                suspect_until: None,
                latency: None,
            });
            Arc::clone(&slot.client)
        };
        client.get_or_try_init(|| self.network.connect::<S>(endpoint)).await.cloned()
    }

    /// Drops the connection to an endpoint, which did not answer, and asks others first for a while.
    pub(crate) fn failed(&self, endpoint: &Endpoint) {
        if let Some(slot) = self.slots.lock().get_mut(endpoint) {
            slot.client = Arc::new(OnceCell::new());
            slot.suspect_until = Some(runtime::now() + SUSPECT_FOR);
        }
    }

    /// An endpoint has answered after so long.
    pub(crate) fn answered(&self, endpoint: &Endpoint, after: Duration) {
        let now = runtime::now();
        if let Some(slot) = self.slots.lock().get_mut(endpoint) {
            let before =
                slot.latency.filter(|(_, at)| now.duration_since(*at) < LATENCY_COUNTS_FOR);
            let average = before.map_or(after, |(average, _)| (average * 7 + after) / 8);
            slot.latency = Some((average, now));
        }
    }

    /// The moving average of an endpoint, if it counts.
    fn latency(slot: &Slot<S>, now: Instant) -> Option<Duration> {
        let (average, at) = slot.latency?;
        (now.saturating_duration_since(at) < LATENCY_COUNTS_FOR).then_some(average)
    }

    /// The endpoints in the order in which to try them: from the `turn`-th on, slow ones after the others, those that
    /// failed of late last.
    pub(crate) fn in_order(&self, endpoints: &[Endpoint], turn: usize) -> Vec<Endpoint> {
        let now = runtime::now();
        let slots = self.slots.lock();
        let is_suspect = |endpoint: &Endpoint| {
            slots.get(endpoint).and_then(|slot| slot.suspect_until).is_some_and(|until| now < until)
        };
        let latency = |endpoint: &Endpoint| Self::latency(slots.get(endpoint)?, now);
        let fastest = endpoints.iter().filter_map(latency).min().unwrap_or_default();
        let slow = (fastest * SLOW_FACTOR).max(fastest + SLOW_MIN);
        let is_slow = |endpoint: &Endpoint| latency(endpoint).is_some_and(|average| average > slow);
        let turned = endpoints.iter().cycle().skip(turn % endpoints.len().max(1));
        let mut ordered: Vec<Endpoint> = turned.take(endpoints.len()).cloned().collect();
        ordered.sort_by_key(|endpoint| (is_suspect(endpoint), is_slow(endpoint)));
        ordered
    }

    /// Forgets all endpoints but these: roles of ended generations do not come back.
    pub(crate) fn retain(&self, endpoints: impl Fn(&Endpoint) -> bool) {
        self.slots.lock().retain(|endpoint, _| endpoints(endpoint));
    }
}

impl<S: Service> Speeds for Connections<S> {
    fn usual(&self, server: &Endpoint) -> Option<Duration> {
        Self::latency(self.slots.lock().get(server)?, runtime::now())
    }

    fn is_late(&self, server: &Endpoint, after: Duration) {
        self.answered(server, after);
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{id::Address, service::storage::StorageService, transport::Router};

    use super::*;

    #[tokio::test]
    async fn slow_and_failed_endpoints_come_last() {
        let connections = Connections::<StorageService>::new(Network::new());
        let endpoint = |name: &str| Endpoint::of_process(Address::new(name));
        let all = ["a", "b", "c"].map(endpoint);
        for endpoint in &all {
            connections.network.add_local(endpoint.address.clone(), Router::new());
            // Nothing is offered there, but that it was tried is known from now on.
            assert!(connections.get(endpoint).await.is_err());
        }
        let order = |connections: &Connections<StorageService>, turn| {
            let order = connections.in_order(&all, turn);
            order.iter().map(Endpoint::to_string).collect::<String>()
        };
        assert_eq!(order(&connections, 1), "bca");
        for (endpoint, ms) in all.iter().zip([1, 9, 2]) {
            connections.answered(endpoint, Duration::from_millis(ms));
        }
        assert_eq!(order(&connections, 1), "cab");
        connections.failed(&all[2]);
        assert_eq!(order(&connections, 2), "abc");
    }
}
