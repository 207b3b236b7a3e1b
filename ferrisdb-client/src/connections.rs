//! Open connections, one per endpoint and service, and which servers have failed of late.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrisdb_core::{
    Endpoint, Result,
    runtime::{self, Instant},
    service::Service,
    transport::Network,
};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// How long a server that failed is asked only after all others.
const SUSPECT_FOR: Duration = Duration::from_secs(1);

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
            let slot = slots
                .entry(endpoint.clone())
                .or_insert_with(|| Slot { client: Arc::new(OnceCell::new()), suspect_until: None });
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

    /// The endpoints in the order in which to try them: from the `turn`-th on, those that failed of late last.
    pub(crate) fn in_order(&self, endpoints: &[Endpoint], turn: usize) -> Vec<Endpoint> {
        let now = runtime::now();
        let slots = self.slots.lock();
        let is_suspect = |endpoint: &Endpoint| {
            slots.get(endpoint).and_then(|slot| slot.suspect_until).is_some_and(|until| now < until)
        };
        let turned = endpoints.iter().cycle().skip(turn % endpoints.len().max(1));
        let mut ordered: Vec<Endpoint> = turned.take(endpoints.len()).cloned().collect();
        ordered.sort_by_key(is_suspect);
        ordered
    }

    /// Forgets all endpoints but these: roles of ended generations do not come back.
    pub(crate) fn retain(&self, endpoints: impl Fn(&Endpoint) -> bool) {
        self.slots.lock().retain(|endpoint, _| endpoints(endpoint));
    }
}
