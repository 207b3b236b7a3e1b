//! The caller's side: finding an endpoint and calling it.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tarpc::client::RpcError;

use super::{
    caller::Caller,
    handshake::{self, Hello, clusters_agree},
    router::{ByteStream, Router},
    tcp,
};
use crate::{
    error::{Error, ErrorCode, Result, Stage},
    id::{Address, ClusterId, Endpoint},
    limits,
    runtime::{self, Awake, Task},
    service::{PROTOCOL_VERSION, Service},
};

/// The bounds of a process' connections. Tests tighten them, to get there.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// See [`limits::HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`limits::CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// See [`limits::HANDSHAKES_MAX`].
    pub handshakes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            connections_max: limits::CONNECTIONS_MAX,
            handshakes_max: limits::HANDSHAKES_MAX,
        }
    }
}

/// How one process reaches others, and which cluster it belongs to. Clones are the same network.
#[derive(Clone, Default)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    bounds: Bounds,
    cluster_id: Mutex<Option<ClusterId>>,
    /// Where this process is reached; empty for a client.
    origin: Mutex<String>,
    local: Mutex<BTreeMap<Address, Router>>,
    awake: Arc<Awake>,
    /// The task that keeps the runtime awake.
    keeping_awake: Mutex<Option<Task>>,
}

impl Network {
    /// A network of a process that does not know its cluster yet and offers nothing.
    pub fn new() -> Network {
        Network::default()
    }

    /// The same, with other bounds.
    pub fn with_bounds(bounds: Bounds) -> Network {
        Network { inner: Arc::new(Inner { bounds, ..Inner::default() }) }
    }

    /// The bounds of its connections.
    pub(super) fn bounds(&self) -> Bounds {
        self.inner.bounds
    }

    /// The cluster that this process belongs to, if it knows.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        *self.inner.cluster_id.lock()
    }

    /// Joins a cluster, for good.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::WrongCluster`] if the process belongs to another one.
    pub fn join(&self, cluster_id: ClusterId) -> Result<()> {
        let mut ours = self.inner.cluster_id.lock();
        if !clusters_agree(*ours, Some(cluster_id)) {
            let detail = format!("this side belongs to {ours:?}, the server to {cluster_id}");
            return Err(Error::new(ErrorCode::WrongCluster, Stage::Connect, detail));
        }
        *ours = Some(cluster_id);
        Ok(())
    }

    /// Tells servers from now on where this process itself is reached, for their logs, and so that it gets connections that
    /// clients do not get.
    pub fn set_origin(&self, address: &Address) {
        self.inner.origin.lock().clone_from(&address.0);
    }

    /// Makes what `router` offers reachable at `address` without a socket, for this process.
    pub fn add_local(&self, address: Address, router: Router) {
        let replaced = self.inner.local.lock().insert(address, router);
        // Not under the lock: what is dropped may be the last of a role, which holds this network.
        drop(replaced);
    }

    /// Forgets all routers: this process stops. Breaks the circle of routers whose roles hold the network.
    pub fn clear_local(&self) {
        let routers = std::mem::take(&mut *self.inner.local.lock());
        // Not under the lock, for the same reason.
        drop(routers);
    }

    /// Keeps the runtime of the caller awake for so long after each message, so that the next one need not wake it. Zero, as
    /// it is before this is called, lets it sleep. See [`Awake`].
    pub fn stay_awake(&self, window: Duration) {
        self.inner.awake.set_window(window);
        // Virtual time passes only while everybody sleeps.
        if cfg!(madsim) || window.is_zero() {
            return;
        }
        let awake = self.awake();
        let keeping = runtime::spawn(async move { awake.keep().await });
        let replaced = self.inner.keeping_awake.lock().replace(keeping);
        drop(replaced); // not under the lock
    }

    /// What messages stir.
    pub(super) fn awake(&self) -> Arc<Awake> {
        Arc::clone(&self.inner.awake)
    }

    /// Connects to an endpoint. The connection ends when the last clone of the client is dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Unreachable`], [`ErrorCode::NoSuchEndpoint`], or what the handshake found to differ.
    pub async fn connect<S: Service>(&self, endpoint: &Endpoint) -> Result<S::Client> {
        let local = self.inner.local.lock().get(&endpoint.address).cloned();
        if let Some(router) = local {
            let offered = router.offered::<S>(endpoint.instance).ok_or_else(|| {
                let detail = format!("{:?} #{:x}", S::KIND, endpoint.instance);
                Error::new(ErrorCode::NoSuchEndpoint, Stage::Connect, detail).at(endpoint)
            })?;
            return Ok(S::Client::from(Caller::Local(offered)));
        }
        let mut stream = tcp::connect(&endpoint.address).await?;
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: self.cluster_id(),
            service: S::KIND as u8,
            instance: endpoint.instance,
            origin: self.inner.origin.lock().clone(),
        };
        let cluster_id = handshake::greet(&mut stream, hello, self.bounds().handshake_timeout)
            .await
            .map_err(|error| error.at(endpoint))?;
        if let Some(cluster_id) = cluster_id {
            self.join(cluster_id).map_err(|error| error.at(endpoint))?;
        }
        let stream: Box<dyn ByteStream> = Box::new(stream);
        Ok(dispatch::<S, _>(tcp::framed(stream, self.awake())))
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({:?})", self.cluster_id())
    }
}

/// A client over a transport, with the task that moves its messages.
fn dispatch<S: Service, T>(transport: T) -> S::Client
where
    T: tarpc::Transport<tarpc::ClientMessage<S::Request>, tarpc::Response<S::Response>>
        + Send
        + 'static,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let mut config = tarpc::client::Config::default();
    config.max_in_flight_requests = limits::REQUESTS_IN_FLIGHT_MAX;
    config.pending_request_buffer = limits::REQUESTS_IN_FLIGHT_MAX;
    let tarpc::client::NewClient { client, dispatch } = tarpc::client::new(config, transport);
    runtime::spawn(async move {
        // The callers in flight get the error; nobody else has to know.
        if let Err(error) = dispatch.await {
            tracing::debug!(%error, service = ?S::KIND, "a connection ended");
        }
    })
    .detach();
    S::Client::from(Caller::Remote(client))
}

/// Calls a method with a deadline: `call(limit, |context| client.method(context, argument))`.
///
/// # Errors
///
/// What became of the call if it got no answer; see [`rpc_error`].
pub async fn call<T, F>(
    limit: Duration,
    stage: Stage,
    method: impl FnOnce(tarpc::context::Context) -> F,
) -> Result<T>
where
    F: Future<Output = Result<T, RpcError>>,
{
    let mut context = tarpc::context::current();
    // tarpc compares it with the clock that is right.
    context.deadline = runtime::true_now() + limit;
    // tarpc's own deadline frees the server; ours does not depend on tarpc's timers.
    match runtime::timeout(limit, stage, method(context)).await {
        Ok(answered) => answered.map_err(|error| rpc_error(&error, stage)),
        Err(late) => Err(late),
    }
}

/// An error of the transport, as an error of ours.
pub fn rpc_error(error: &RpcError, stage: Stage) -> Error {
    let code = match error {
        // Over TCP this is a request that cannot be encoded: trying again would not make it shorter.
        RpcError::Send(cause) if cause.is::<std::io::Error>() => ErrorCode::InvalidArgument,
        RpcError::Shutdown | RpcError::Send(_) | RpcError::Channel(_) => ErrorCode::Unreachable,
        RpcError::DeadlineExceeded => ErrorCode::TimedOut,
        // What a server of ours says itself is in the answer. This is tarpc's word for too many requests in
        // flight; the kind in it cannot be relied on, as tarpc encodes it signed and decodes it unsigned.
        RpcError::Server(_) => ErrorCode::TooBusy,
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    Error::new(code, stage, format!("{error}{}", cause.unwrap_or_default()))
}
