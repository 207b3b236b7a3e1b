//! What a process offers: handlers by service and instance.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tarpc::{
    ClientMessage, Response, ServerError, Transport, context::Context, server::Channel as _,
};

use super::caller::Offered;
use crate::{
    limits,
    metrics::Registry,
    runtime::{Awake, Task, spawn, true_now},
    service::{Service, ServiceKind},
};

/// The future of one request.
type Answer<S> = BoxFuture<'static, Result<<S as Service>::Response, ServerError>>;
/// The function that starts one request.
type Answerer<S> = dyn Fn(Context, <S as Service>::Request) -> Answer<S> + Send + Sync;

/// Answers the requests of a service. Made with [`crate::handler!`].
pub struct Handler<S: Service>(Arc<Answerer<S>>);

impl<S: Service> Handler<S> {
    /// A handler that calls `answer` for each request.
    pub fn new(answer: impl Fn(Context, S::Request) -> Answer<S> + Send + Sync + 'static) -> Self {
        Handler(Arc::new(answer))
    }

    /// Starts one request.
    pub(super) fn answer(&self, context: Context, request: S::Request) -> Answer<S> {
        (self.0)(context, request)
    }
}

impl<S: Service> Clone for Handler<S> {
    fn clone(&self) -> Self {
        Handler(Arc::clone(&self.0))
    }
}

impl<S: Service> tarpc::server::Serve for Handler<S> {
    type Req = S::Request;
    type Resp = S::Response;

    async fn serve(
        self,
        context: Context,
        request: S::Request,
    ) -> Result<S::Response, ServerError> {
        (self.0)(context, request).await
    }
}

impl<S: Service> std::fmt::Debug for Handler<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handler({:?})", S::KIND)
    }
}

/// A stream of bytes, of whatever kind.
pub(super) trait ByteStream:
    tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin
{
}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> ByteStream for T {}

/// A handler without its type, so that a router can hold all of them.
trait Endpoint: Send + Sync {
    /// Serves a connection until it ends. Does nothing if the handler is no longer offered.
    fn serve_stream(
        &self,
        stream: Box<dyn ByteStream>,
        awake: Arc<Awake>,
    ) -> BoxFuture<'static, ()>;
    /// The [`Offered`] itself.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// Ends the calls from within the process.
    fn end(&self);
}

impl<S: Service> Endpoint for Offered<S> {
    fn serve_stream(
        &self,
        stream: Box<dyn ByteStream>,
        awake: Arc<Awake>,
    ) -> BoxFuture<'static, ()> {
        let Some(handler) = self.handler() else { return Box::pin(std::future::ready(())) };
        let transport =
            super::tcp::framed::<ClientMessage<S::Request>, Response<S::Response>>(stream, awake);
        Box::pin(serve(handler, transport.map_ok(bound_deadline)))
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn end(&self) {
        Offered::end(self);
    }
}

/// Serves one connection. Requests run inside this task, side by side: no task of their own for each.
///
/// A panic of a handler ends the connection, with all its requests, and nothing else. Requests of a caller
/// that hangs up go on until they are done or their deadline passes.
async fn serve<S, T>(handler: Handler<S>, transport: T)
where
    S: Service,
    T: Transport<Response<S::Response>, ClientMessage<S::Request>> + Send + 'static,
    T::Error: Send + Sync,
{
    let config = tarpc::server::Config { pending_response_buffer: limits::REQUESTS_IN_FLIGHT_MAX };
    // The bound is tarpc's and not one of `for_each_concurrent`: that would stop polling the stream, which
    // is also what writes the answers and notices the end of the connection.
    tarpc::server::BaseChannel::new(config, transport)
        .max_concurrent_requests(limits::REQUESTS_IN_FLIGHT_MAX)
        .execute(handler)
        .for_each_concurrent(None, |request| request)
        .await;
}

/// Moves a deadline to where tarpc's timers can hold it: they panic beyond some two years.
fn bound_deadline<T>(mut message: ClientMessage<T>) -> ClientMessage<T> {
    if let ClientMessage::Request(request) = &mut message {
        let latest = true_now() + limits::REQUEST_DEADLINE_MAX;
        request.context.deadline = request.context.deadline.min(latest);
    }
    message
}

/// The place of a connection that is welcome and not served yet. Callers that come at once would all find room otherwise, by
/// the number of those that are served.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a process offers. Clones are the same router.
#[derive(Clone, Default)]
pub struct Router {
    endpoints: Arc<Mutex<Endpoints>>,
    /// The places of connections that are not served yet. It only rises under the lock of the endpoints.
    places: Arc<AtomicUsize>,
    metrics: Registry,
}

type Endpoints = BTreeMap<(ServiceKind, u64), Registered>;

struct Registered {
    endpoint: Arc<dyn Endpoint>,
    /// The tasks that serve this endpoint's connections. They end when it is removed, as calls from within do.
    connections: Vec<Task>,
}

impl Router {
    /// A router that offers nothing yet.
    pub fn new() -> Router {
        Router::default()
    }

    /// The metrics of the roles that are offered here: a router is a process' own, and every role has it.
    pub fn metrics(&self) -> &Registry {
        &self.metrics
    }

    /// Offers a service under an instance, in place of an earlier one.
    pub fn add<S: Service>(&self, instance: u64, handler: Handler<S>) {
        let endpoint = Arc::new(Offered::new(handler));
        let registered = Registered { endpoint, connections: Vec::new() };
        let replaced = self.endpoints.lock().insert((S::KIND, instance), registered);
        // Not under the lock: what is dropped may be the last of a role, which may use this router.
        drop(replaced);
    }

    /// Stops offering a service and ends its connections.
    pub fn remove(&self, kind: ServiceKind, instance: u64) {
        let removed = self.endpoints.lock().remove(&(kind, instance));
        drop(removed); // not under the lock
    }

    /// Stops offering anything and ends all connections.
    pub fn clear(&self) {
        let removed = std::mem::take(&mut *self.endpoints.lock());
        drop(removed); // not under the lock
    }

    /// Whether there is such an endpoint.
    pub fn offers(&self, kind: ServiceKind, instance: u64) -> bool {
        self.endpoints.lock().contains_key(&(kind, instance))
    }

    /// A place for one more connection, unless there are as many as may be.
    pub(super) fn take_place(&self, connections_max: usize) -> Option<Place> {
        let mut endpoints = self.endpoints.lock();
        let taken = served(&mut endpoints) + self.places.load(Ordering::Relaxed);
        (taken < connections_max).then(|| {
            self.places.fetch_add(1, Ordering::Relaxed);
            Place(Arc::clone(&self.places))
        })
    }

    /// Serves a connection that has passed the handshake, as long as the endpoint is offered.
    pub(super) fn serve_stream(
        &self,
        place: Place,
        kind: ServiceKind,
        instance: u64,
        stream: Box<dyn ByteStream>,
        awake: Arc<Awake>,
    ) {
        let mut endpoints = self.endpoints.lock();
        if let Some(registered) = endpoints.get_mut(&(kind, instance)) {
            let task = spawn(registered.endpoint.serve_stream(stream, awake));
            registered.keep(task);
        }
        // Under the lock: it counts as served from here on.
        drop(place);
    }

    /// A handler, for calls from within the process.
    pub(super) fn offered<S: Service>(&self, instance: u64) -> Option<Arc<Offered<S>>> {
        let endpoints = self.endpoints.lock();
        let endpoint = Arc::clone(&endpoints.get(&(S::KIND, instance))?.endpoint);
        endpoint.as_any().downcast().ok()
    }

    /// How many connections are being served.
    pub fn connections(&self) -> usize {
        served(&mut self.endpoints.lock())
    }
}

/// How many connections are being served.
fn served(endpoints: &mut Endpoints) -> usize {
    let of_each = endpoints.values_mut().map(|registered| {
        registered.connections.retain(|task| !task.is_finished());
        registered.connections.len()
    });
    of_each.sum()
}

impl Registered {
    fn keep(&mut self, task: Task) {
        self.connections.retain(|task| !task.is_finished());
        self.connections.push(task);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.endpoint.end();
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.endpoints.lock().keys()).finish()
    }
}
