//! The way to the other members: the consensus library's messages over our transport.
//!
//! The library hands over a message with a short time limit, and asks again at once when it fails. So this side
//! ends a call before the library would drop it, and holds an error back until the call's time is over: a member
//! that is gone is asked once per heartbeat, not as fast as the machine can. A connection outlives calls that are
//! late, as on a busy machine; it is made anew when it breaks, and when it has been silent for long, as one from
//! before a partition may be for ever.

use std::{collections::BTreeMap, future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Result, Stage,
    id::Address,
    runtime::{self, Instant},
    service::{
        Client,
        raft::{RaftMessage, RaftMessageKind, RaftService},
    },
    transport::{self, Network},
};
use openraft::{
    AnyError, BasicNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot,
    error::{
        Fatal, InstallSnapshotError, NetworkError, RPCError, RaftError, ReplicationClosed,
        StreamingError, Unreachable,
    },
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Notify;

use super::types::{NodeId, SnapshotMeta, Types, Vote};

/// How long a snapshot that could not be delivered waits before the next try.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(100);

/// How long it may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// A connection on which nothing was answered for so long is given up.
const SILENCE_MAX: Duration = Duration::from_millis(500);

/// A whole state, as it travels.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotMessage {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    pub(super) contents: Bytes,
}

/// The ways to all members. Clones share their connections.
#[derive(Clone)]
pub(super) struct Peers {
    node: NodeId,
    network: Network,
    connections: Arc<Mutex<Slots>>,
    /// Where members were reached that the group knows at another address still.
    routes: Arc<Mutex<BTreeMap<NodeId, Route>>>,
}

/// Where a member was reached, while the group knew it somewhere else.
struct Route {
    known: Address,
    address: Address,
}

/// A member, and where the group knows it.
type Slots = BTreeMap<(NodeId, Address), Arc<Slot>>;

/// The connection to one member.
struct Slot {
    state: Mutex<State>,
    /// Why it could not be made the last time.
    failure: Mutex<Option<Error>>,
    changed: Notify,
}

enum State {
    Idle,
    Connecting,
    Connected { client: Client<RaftService>, heard: Instant },
}

impl Slot {
    fn new() -> Slot {
        Slot { state: Mutex::new(State::Idle), failure: Mutex::default(), changed: Notify::new() }
    }

    fn failure(&self) -> Option<Error> {
        self.failure.lock().clone()
    }
}

/// The way to one member.
pub(super) struct Peer {
    peers: Peers,
    target: NodeId,
    address: Address,
}

impl Peers {
    pub(super) fn new(node: NodeId, network: Network) -> Peers {
        Peers { node, network, connections: Arc::default(), routes: Arc::default() }
    }

    /// How addresses are reached.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// A member was reached at this address, and the group knows it at `known`.
    pub(super) fn route(&self, node: NodeId, known: Address, address: Address) {
        let mut routes = self.routes.lock();
        match known == address {
            true => _ = routes.remove(&node),
            false => _ = routes.insert(node, Route { known, address }),
        }
    }

    /// Where a member is reached that the group knows at `known`.
    pub(super) fn address_of(&self, node: NodeId, known: Address) -> Address {
        let routes = self.routes.lock();
        // Once the group has agreed on another address, that is newer.
        let route = routes.get(&node).filter(|route| route.known == known);
        route.map_or(known, |route| route.address.clone())
    }

    /// A connection to whoever is at an address.
    pub(super) async fn at(&self, address: &Address) -> Result<Client<RaftService>> {
        self.network.connect::<RaftService>(&Endpoint::of_process(address.clone())).await
    }

    /// Delivers a message within `limit` and brings back the answer.
    pub(super) async fn ask<A: DeserializeOwned>(
        &self,
        (target, known): (NodeId, Address),
        kind: RaftMessageKind,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<A> {
        let invalid = |cause: io::Error| {
            Error::new(ErrorCode::InvalidArgument, Stage::Control, cause.to_string())
        };
        let body = transport::encode(body).map_err(invalid)?;
        let message = RaftMessage { to: target, from: self.node, kind, body };
        let key = (target, self.address_of(target, known));
        let asked = async {
            let client = self.connection(&key).await?;
            transport::call(limit, Stage::Control, |context| client.deliver(context, message))
                .await?
        };
        let answer: Result<Bytes> =
            runtime::timeout(limit, Stage::Control, asked).await.and_then(|answer| answer);
        self.note(&key, answer.as_ref().err());
        let answer = answer.map_err(|error| error.at(&key.1))?;
        transport::decode(&answer).map_err(|cause| {
            Error::new(ErrorCode::Protocol, Stage::Control, cause.to_string()).at(&key.1)
        })
    }

    /// The connection to a member, as soon as there is one. Making it goes on when the caller gives up: the library's
    /// limits are much shorter than what a busy machine may take to greet.
    async fn connection(&self, key: &(NodeId, Address)) -> Result<Client<RaftService>> {
        let slot = {
            let mut slots = self.connections.lock();
            let slot = slots.entry(key.clone()).or_insert_with(|| Arc::new(Slot::new()));
            Arc::clone(slot)
        };
        loop {
            let changed = slot.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let begins = {
                let mut state = slot.state.lock();
                match &*state {
                    State::Connected { client, .. } => return Ok(client.clone()),
                    State::Connecting => false,
                    State::Idle => {
                        *state = State::Connecting;
                        true
                    }
                }
            };
            if begins {
                *slot.failure.lock() = None;
                runtime::spawn(self.clone().connect(key.1.clone(), Arc::clone(&slot))).detach();
            }
            changed.await;
            if let Some(error) = slot.failure() {
                return Err(error);
            }
        }
    }

    async fn connect(self, address: Address, slot: Arc<Slot>) {
        let endpoint = Endpoint::of_process(address);
        let connected = self.network.connect::<RaftService>(&endpoint);
        let connected = runtime::timeout(CONNECT_LIMIT, Stage::Connect, connected).await;
        let (state, failure) = match connected.and_then(|connected| connected) {
            Ok(client) => (State::Connected { client, heard: runtime::now() }, None),
            Err(error) => (State::Idle, Some(error)),
        };
        *slot.state.lock() = state;
        *slot.failure.lock() = failure;
        slot.changed.notify_waiters();
    }

    /// Notes how a call has ended: a connection that is broken, or has been silent for long, is made anew.
    fn note(&self, key: &(NodeId, Address), error: Option<&Error>) {
        if error.is_some_and(|error| error.code() != ErrorCode::TimedOut) {
            // It may have moved back. If it has not, it says again where it is.
            let mut routes = self.routes.lock();
            if routes.get(&key.0).is_some_and(|route| route.address == key.1) {
                routes.remove(&key.0);
            }
        }
        let Some(slot) = self.connections.lock().get(key).cloned() else { return };
        let mut state = slot.state.lock();
        let State::Connected { heard, .. } = &mut *state else { return };
        let now = runtime::now();
        match error {
            None => *heard = now,
            Some(error) if error.code() == ErrorCode::TimedOut => {
                if now.saturating_duration_since(*heard) >= SILENCE_MAX {
                    let silent = std::mem::replace(&mut *state, State::Idle);
                    drop(state);
                    drop(silent); // not under the lock
                }
            }
            Some(_) => {
                let broken = std::mem::replace(&mut *state, State::Idle);
                drop(state);
                drop(broken); // not under the lock
            }
        }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer {
        Peer { peers: self.clone(), target, address: Address::new(&node.addr) }
    }
}

impl Peer {
    /// Delivers a message within `limit` and brings back the answer.
    async fn ask<A: DeserializeOwned>(
        &self,
        kind: RaftMessageKind,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<A> {
        self.peers.ask((self.target, self.address.clone()), kind, body, limit).await
    }
}

/// Holds an error back until `limit` has passed since the call began.
async fn paced<T>(limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let began = runtime::now();
    let answer = call.await;
    if answer.is_err() {
        let passed = runtime::now().duration_since(began);
        runtime::sleep(limit.saturating_sub(passed)).await;
    }
    answer
}

type RpcError<E> = RPCError<NodeId, BasicNode, RaftError<NodeId, E>>;

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RpcError<openraft::error::Infallible>> {
        let limit = option.soft_ttl();
        let answer = paced(limit, self.ask(RaftMessageKind::Append, &request, limit)).await;
        answer.map_err(|error| NetworkError::new(&error).into())
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, RpcError<InstallSnapshotError>> {
        // Pieces of snapshots: never sent, as `full_snapshot` sends the whole.
        let cause = AnyError::error("snapshots are not sent in pieces");
        Err(RPCError::Unreachable(Unreachable::from(cause)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RpcError<openraft::error::Infallible>> {
        let answer = self.ask(RaftMessageKind::Vote, &request, option.soft_ttl()).await;
        answer.map_err(|error| NetworkError::new(&error).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<Types, Fatal<NodeId>>> {
        let contents = Bytes::from(snapshot.snapshot.into_inner());
        let message = SnapshotMessage { vote, meta: snapshot.meta, contents };
        let limit = option.soft_ttl();
        let sent = paced(SNAPSHOT_PAUSE, self.ask(RaftMessageKind::Snapshot, &message, limit));
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = sent => answer.map_err(|error| NetworkError::new(&error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_counts_until_the_group_knows_better() {
        let peers = Peers::new(1, Network::new());
        let at = |name: &str| Address::new(format!("{name}:1"));
        peers.route(2, at("old"), at("new"));
        assert_eq!(peers.address_of(2, at("old")), at("new"));
        assert_eq!(peers.address_of(3, at("old")), at("old"));
        // It has moved on, and the group has agreed on that.
        assert_eq!(peers.address_of(2, at("newest")), at("newest"));
        // It is reached where the group knows it.
        peers.route(2, at("old"), at("old"));
        assert_eq!(peers.address_of(2, at("old")), at("old"));
    }
}
