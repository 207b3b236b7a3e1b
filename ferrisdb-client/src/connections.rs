//! Open connections, one per endpoint and service, which servers have failed of late, and which are slow.
//!
//! ```text
//!   asked in turn     a  b  c        each of them as good as the others
//!   b is slow         a  c  b        it takes several times as long as the fastest
//!   c has failed      a  b  c        for a while it comes last
//! ```
//!
//! What was measured is forgotten after a while, so that a server that was slow gets another chance.
//!
//! What must not wait for a server that is silent goes to one with an open connection ([`Connections::first_open`]). All others
//! are connected to meanwhile, each by a task of its own: an attempt that hangs holds up nobody. And a server that should have
//! answered by now is asked for a new connection ([`Connections::probe`]): one that lives greets at once, however busy it is.

use std::{
    cell::LazyCell,
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Result, Stage, limits,
    runtime::{self, Instant},
    service::Service,
    simulation::{Plant, planted},
    transport::Network,
};
use futures::{
    StreamExt as _,
    stream::{FuturesOrdered, FuturesUnordered},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::hedge::Speeds;

/// How long a server that failed is asked only after all others.
const SUSPECT_FOR: Duration = Duration::from_secs(1);
/// An attempt to connect that is older than this is given up when its server fails: the way may be open again for a new one.
const ATTEMPT_KEPT_FOR: Duration = Duration::from_millis(500);
/// An attempt that is older than this has no end: all that it may wait for has shorter limits. Its runtime is not driven any more.
const ATTEMPT_LIMIT: Duration =
    limits::CONNECT_TIMEOUT.saturating_add(limits::HANDSHAKE_TIMEOUT.saturating_mul(2));
/// How long a server may take to greet when it is asked whether it lives.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// A server that is late is asked that so often at most.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// How long a measured latency counts.
const LATENCY_COUNTS_FOR: Duration = Duration::from_secs(2);
/// A server that takes so many times as long as the fastest one is slow ...
const SLOW_FACTOR: u32 = 4;
/// ... unless the difference is smaller than this.
const SLOW_MIN: Duration = Duration::from_millis(2);

/// The connections to the endpoints of a service. Clones are the same.
pub(crate) struct Connections<S: Service> {
    network: Network,
    slots: Arc<Mutex<BTreeMap<Endpoint, Slot<S>>>>,
}

impl<S: Service> Clone for Connections<S> {
    fn clone(&self) -> Self {
        Connections { network: self.network.clone(), slots: Arc::clone(&self.slots) }
    }
}

/// An endpoint that was used.
struct Slot<S: Service> {
    attempt: Option<Arc<Attempt<S>>>,
    suspect_until: Option<Instant>,
    /// A moving average, and when it was last updated.
    latency: Option<(Duration, Instant)>,
    probed_at: Option<Instant>,
}

impl<S: Service> Default for Slot<S> {
    fn default() -> Self {
        Slot { attempt: None, suspect_until: None, latency: None, probed_at: None }
    }
}

impl<S: Service> Slot<S> {
    fn is_open(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.is_open())
    }

    fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_until.is_some_and(|until| now < until)
    }
}

/// An attempt to connect, and the connection that it has made.
struct Attempt<S: Service> {
    since: Instant,
    outcome: OnceLock<Result<S::Client>>,
    ended: Notify,
}

impl<S: Service> Attempt<S> {
    /// Connects in a task of its own, which goes on when nobody waits for it.
    fn begin(network: Network, endpoint: Endpoint) -> Arc<Attempt<S>> {
        let attempt = Arc::new(Attempt {
            since: runtime::now(),
            outcome: OnceLock::new(),
            ended: Notify::new(),
        });
        let ending = Ending(Arc::clone(&attempt));
        runtime::spawn(async move {
            let outcome = network.connect::<S>(&endpoint).await;
            ending.0.end(outcome);
        })
        .detach();
        attempt
    }

    /// It has ended, unless it had before.
    fn end(&self, outcome: Result<S::Client>) {
        if self.outcome.set(outcome).is_ok() {
            self.ended.notify_waiters();
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.outcome.get(), Some(Ok(_)))
    }

    fn has_failed(&self) -> bool {
        matches!(self.outcome.get(), Some(Err(_)))
    }

    /// Whether it has neither ended nor ever will.
    fn is_stuck(&self, now: Instant) -> bool {
        self.outcome.get().is_none() && now.saturating_duration_since(self.since) >= ATTEMPT_LIMIT
    }

    async fn outcome(&self) -> Result<S::Client> {
        if let Some(outcome) = self.outcome.get() {
            return outcome.clone();
        }
        let left = (self.since + ATTEMPT_LIMIT).saturating_duration_since(runtime::now());
        let ended = runtime::timeout(left, Stage::Connect, self.end_of()).await;
        ended.map_err(|late| late.with_code(ErrorCode::Unreachable))?
    }

    async fn end_of(&self) -> Result<S::Client> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Registered before the look, so that an end in between is not missed.
            ended.as_mut().enable();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            ended.await;
        }
    }
}

/// Ends its attempt, at the latest when the task ends that connects, with its runtime or otherwise.
struct Ending<S: Service>(Arc<Attempt<S>>);

impl<S: Service> Drop for Ending<S> {
    fn drop(&mut self) {
        let detail = "the task that connects has ended";
        self.0.end(Err(Error::new(ErrorCode::Unreachable, Stage::Connect, detail)));
    }
}

/// Attempts to connect to several endpoints, none of which has succeeded yet.
pub(crate) struct Attempts<S: Service> {
    connections: Connections<S>,
    under_way: Vec<(Endpoint, Arc<Attempt<S>>)>,
}

impl<S: Service> Attempts<S> {
    /// The first that can be connected to.
    ///
    /// # Errors
    ///
    /// Why the last one could not be reached, if none could.
    pub(crate) async fn first(self) -> Result<Endpoint> {
        let outcome = |(endpoint, attempt): (_, Arc<Attempt<S>>)| async move {
            (endpoint, attempt.outcome().await)
        };
        let under_way = self.under_way.into_iter().map(outcome);
        let mut outcomes = match planted(Plant::ClingToProxy) {
            true => under_way.collect::<FuturesOrdered<_>>().left_stream(),
            false => under_way.collect::<FuturesUnordered<_>>().right_stream(),
        };
        let mut error = nobody();
        while let Some((endpoint, outcome)) = outcomes.next().await {
            match outcome {
                Ok(_) => return Ok(endpoint),
                Err(failed) => {
                    self.connections.failed(&endpoint);
                    error = failed;
                }
            }
        }
        Err(error)
    }
}

impl<S: Service> Connections<S> {
    pub(crate) fn new(network: Network) -> Connections<S> {
        Connections { network, slots: Arc::default() }
    }

    /// The connection to an endpoint, made now if there is none.
    ///
    /// # Errors
    ///
    /// What [`Network::connect`] says.
    pub(crate) async fn get(&self, endpoint: &Endpoint) -> Result<S::Client> {
        let attempt = self.attempt(endpoint);
        attempt.outcome().await
    }

    /// The attempt to connect to an endpoint that has succeeded or is under way, or a new one.
    fn attempt(&self, endpoint: &Endpoint) -> Arc<Attempt<S>> {
        let mut slots = self.slots.lock();
        // Most often it is there, and then the name of the endpoint need not be copied.
        let slot = match slots.get_mut(endpoint) {
            Some(slot) => slot,
            None => slots.entry(endpoint.clone()).or_default(),
        };
        let now = runtime::now();
        let is_useful =
            |attempt: &&Arc<Attempt<S>>| !attempt.has_failed() && !attempt.is_stuck(now);
        match slot.attempt.as_ref().filter(is_useful) {
            Some(attempt) => Arc::clone(attempt),
            None => {
                let attempt = Attempt::begin(self.network.clone(), endpoint.clone());
                slot.attempt = Some(Arc::clone(&attempt));
                attempt
            }
        }
    }

    /// The open connection to an endpoint, if there is one.
    pub(crate) fn open(&self, endpoint: &Endpoint) -> Option<S::Client> {
        let slots = self.slots.lock();
        let outcome = slots.get(endpoint)?.attempt.as_ref()?.outcome.get()?;
        outcome.as_ref().ok().cloned()
    }

    /// The first of some endpoints, in this order, that there is an open connection to; if there is none, the attempts to connect to
    /// all of them. The others are connected to as well, without waiting for them.
    pub(crate) fn first_open(&self, endpoints: &[Endpoint]) -> Result<Endpoint, Attempts<S>> {
        let (open, closed) = {
            let (now, slots) = (LazyCell::new(runtime::now), self.slots.lock());
            let slot = |endpoint: &&Endpoint| slots.get(*endpoint);
            let is_open = |endpoint: &&Endpoint| slot(endpoint).is_some_and(Slot::is_open);
            let waits = |endpoint: &&Endpoint| slot(endpoint).is_some_and(|s| s.is_suspect(*now));
            let clings = planted(Plant::ClingToProxy);
            let open = endpoints.iter().find(is_open).filter(|_| !clings).cloned();
            let closed = endpoints.iter().filter(|endpoint| clings || !is_open(endpoint));
            // One that has just failed is not asked again all the time while there are others.
            let closed = closed.filter(|endpoint| open.is_none() || !waits(endpoint));
            let closed: Vec<Endpoint> = closed.cloned().collect();
            (open, closed)
        };
        let attempt = |endpoint: Endpoint| {
            let attempt = self.attempt(&endpoint);
            (endpoint, attempt)
        };
        let under_way: Vec<_> = closed.into_iter().map(attempt).collect();
        open.ok_or_else(|| Attempts { connections: self.clone(), under_way })
    }

    /// Asks an endpoint for another connection, to find out whether it lives. If it does not, the one that there is counts no
    /// more.
    ///
    /// # Errors
    ///
    /// Why it could not be reached.
    pub(crate) async fn probe(&self, endpoint: &Endpoint) -> Result<()> {
        let connecting = self.network.connect::<S>(endpoint);
        let greeted = runtime::timeout(PROBE_LIMIT, Stage::Connect, connecting).await;
        match greeted.and_then(|greeted| greeted) {
            Ok(_) => Ok(()),
            // It has said so itself.
            Err(busy) if busy.code() == ErrorCode::TooBusy => Ok(()),
            Err(error) => {
                self.failed(endpoint);
                Err(error)
            }
        }
    }

    /// An endpoint has not answered yet while another one has: sees to it that it is asked whether it lives.
    pub(crate) fn suspect(&self, endpoint: &Endpoint) {
        let now = runtime::now();
        {
            let mut slots = self.slots.lock();
            let Some(slot) = slots.get_mut(endpoint).filter(|slot| slot.is_open()) else { return };
            let is_recent = |at: Instant| now.saturating_duration_since(at) < PROBE_EVERY;
            if slot.probed_at.is_some_and(is_recent) || planted(Plant::ClingToProxy) {
                return;
            }
            slot.probed_at = Some(now);
        }
        let (connections, endpoint) = (self.clone(), endpoint.clone());
        runtime::spawn(async move {
            if let Err(error) = connections.probe(&endpoint).await {
                tracing::debug!(%endpoint, %error, "left aside: it does not answer");
            }
        })
        .detach();
    }

    /// Drops the connection to an endpoint, which did not answer, and asks others first for a while.
    pub(crate) fn failed(&self, endpoint: &Endpoint) {
        let now = runtime::now();
        let dropped = self.slots.lock().get_mut(endpoint).and_then(|slot| {
            slot.suspect_until = Some(now + SUSPECT_FOR);
            // One that has just begun to connect anew may go on.
            let is_new = |attempt: &Arc<Attempt<S>>| {
                let age = now.saturating_duration_since(attempt.since);
                attempt.outcome.get().is_none() && age < ATTEMPT_KEPT_FOR
            };
            if slot.attempt.as_ref().is_some_and(is_new) { None } else { slot.attempt.take() }
        });
        drop(dropped); // not under the lock
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
        let is_suspect =
            |endpoint: &Endpoint| slots.get(endpoint).is_some_and(|slot| slot.is_suspect(now));
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

fn nobody() -> Error {
    Error::new(ErrorCode::Unavailable, Stage::Connect, "there is nobody to connect to")
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

    #[test]
    fn an_attempt_ends_with_its_runtime() {
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Nobody accepts there, but the connection comes about, and the greeting is waited for.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::new(listener.local_addr().unwrap().to_string().as_str());
        let endpoint = Endpoint::of_process(address);
        let first = runtime();
        let connections = Connections::<StorageService>::new(Network::new());
        let attempt = first.block_on(async {
            let attempt = connections.attempt(&endpoint);
            runtime::sleep(Duration::from_millis(10)).await;
            attempt
        });
        drop(first);
        let outcome = attempt.outcome.get().and_then(|outcome| outcome.as_ref().err());
        assert_eq!(outcome.map(Error::code), Some(ErrorCode::Unreachable));
        runtime().block_on(async {
            assert!(!Arc::ptr_eq(&attempt, &connections.attempt(&endpoint)), "a new one");
        });
    }
}
