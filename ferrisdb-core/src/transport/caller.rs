//! How a call gets to its handler: over a connection, or straight into it.
//!
//! ```text
//!   Caller::Remote    tarpc's channel --> task of the connection --> socket ...
//!   Caller::Local     the handler of this process, in the task of the caller
//! ```
//!
//! Roles of one process call each other several times for each commit and each read version. A channel costs two tasks a
//! switch and some microseconds for each call; a function call does not. Both behave alike: a caller that is dropped
//! cancels its call, and a handler that is no longer offered ends the calls that are under way.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::RwLock;
use tarpc::{
    ServerError,
    client::{Channel, RpcError, stub::Stub},
    context::Context,
};
use tokio::sync::Notify;

use super::router::Handler;
use crate::{limits, service::Service};

/// What the clients of services make their calls by.
pub enum Caller<S: Service> {
    /// Over a connection.
    Remote(Channel<S::Request, S::Response>),
    /// To a handler of this process.
    Local(Arc<Offered<S>>),
}

impl<S: Service> Clone for Caller<S> {
    fn clone(&self) -> Self {
        match self {
            Caller::Remote(channel) => Caller::Remote(channel.clone()),
            Caller::Local(offered) => Caller::Local(Arc::clone(offered)),
        }
    }
}

impl<S: Service> std::fmt::Debug for Caller<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = if matches!(self, Caller::Remote(_)) { "Remote" } else { "Local" };
        write!(f, "Caller::{way}({:?})", S::KIND)
    }
}

impl<S: Service> Stub for Caller<S> {
    type Req = S::Request;
    type Resp = S::Response;

    async fn call(&self, context: Context, request: S::Request) -> Result<S::Response, RpcError> {
        match self {
            Caller::Remote(channel) => channel.call(context, request).await,
            Caller::Local(offered) => offered.call(context, request).await,
        }
    }
}

/// A handler, for as long as it is offered.
pub struct Offered<S: Service> {
    handler: RwLock<Option<Handler<S>>>,
    has_ended: Notify,
    in_flight: AtomicUsize,
}

impl<S: Service> Offered<S> {
    pub(super) fn new(handler: Handler<S>) -> Offered<S> {
        Offered {
            handler: RwLock::new(Some(handler)),
            has_ended: Notify::new(),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// The handler, if it is still offered.
    pub(super) fn handler(&self) -> Option<Handler<S>> {
        self.handler.read().clone()
    }

    /// Ends all calls, and lets go of the handler: its role may hold the network that the callers belong to.
    pub(super) fn end(&self) {
        let ended = self.handler.write().take();
        drop(ended); // not under the lock
        self.has_ended.notify_waiters();
    }

    async fn call(&self, context: Context, request: S::Request) -> Result<S::Response, RpcError> {
        let handler = self.handler().ok_or(RpcError::Shutdown)?;
        let _in_flight = InFlight::enter(&self.in_flight)?;
        let answer = handler.answer(context, request);
        drop(handler);
        tokio::select! {
            biased;
            answer = answer => answer.map_err(RpcError::Server),
            () = self.ended() => Err(RpcError::Shutdown),
        }
    }

    async fn ended(&self) {
        let ended = self.has_ended.notified();
        tokio::pin!(ended);
        // Registered before the look, so that an end in between is not missed.
        ended.as_mut().enable();
        if self.handler.read().is_some() {
            ended.await;
        }
    }
}

/// Counts a call while it is under way.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    /// The same bound as that of a connection.
    fn enter(count: &'a AtomicUsize) -> Result<Self, RpcError> {
        let in_flight = InFlight(count);
        if count.fetch_add(1, Ordering::Relaxed) >= limits::REQUESTS_IN_FLIGHT_MAX {
            let detail = "too many requests in flight".to_owned();
            return Err(RpcError::Server(ServerError::new(std::io::ErrorKind::WouldBlock, detail)));
        }
        Ok(in_flight)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
