//! The protocol between processes: one tarpc service per file, with the messages it takes.
//!
//! ```text
//!   controller   heartbeats of all processes, the state of the cluster
//!   worker       what a controller asks of a process: host this role, retire that one
//!   sequencer    versions for batches, the newest committed version
//!   proxy        read versions and commits, for clients
//!   resolver     conflicts of a batch
//!   log          push, peek, pop, lock, confirm
//!   storage      reads at a version
//!   raft         what the controllers of a group agree by
//!   metrics      where a process' time goes
//! ```
//!
//! Messages are encoded by [`crate::transport`]; `tests/golden.rs` pins their bytes. A change of any message
//! is a change of [`PROTOCOL_VERSION`], which the handshake of a connection compares.

pub mod controller;
pub mod log;
pub mod metrics;
pub mod proxy;
pub mod raft;
pub mod resolver;
pub mod sequencer;
pub mod storage;
pub mod worker;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::transport::Caller;

/// The version of all messages in this module together.
pub const PROTOCOL_VERSION: u16 = 1;

/// Which service a connection is for. The numbers are on the wire: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ServiceKind {
    /// [`controller::Controller`]
    Controller = 1,
    /// [`worker::Worker`]
    Worker = 2,
    /// [`sequencer::Sequencer`]
    Sequencer = 3,
    /// [`proxy::Proxy`]
    Proxy = 4,
    /// [`resolver::Resolver`]
    Resolver = 5,
    /// [`log::Log`]
    Log = 6,
    /// [`storage::Storage`]
    Storage = 7,
    /// [`raft::Raft`]
    Raft = 8,
    /// [`metrics::Metrics`]
    Metrics = 9,
}

impl ServiceKind {
    /// The kind of a number.
    pub fn from_number(number: u8) -> Option<ServiceKind> {
        use ServiceKind::*;
        [Controller, Worker, Sequencer, Proxy, Resolver, Log, Storage, Raft, Metrics]
            .into_iter()
            .find(|&kind| kind as u8 == number)
    }
}

/// How a resolver or a log is, for a proxy that waits for it: slow, or as good as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it has work that it could do now.
    pub has_work: bool,
    /// Becomes more with whatever it does.
    pub progress: u64,
}

/// A tarpc service, as far as transports need to know it.
pub trait Service: Sized + 'static {
    /// Which one.
    const KIND: ServiceKind;
    /// Its requests, of all methods.
    type Request: Serialize + DeserializeOwned + tarpc::RequestName + Send + std::fmt::Debug;
    /// Its responses, of all methods.
    type Response: Serialize + DeserializeOwned + Send + std::fmt::Debug;
    /// The caller's side.
    type Client: From<Caller<Self>> + Clone + Send + Sync;
}

/// The caller's side of a service, with a method for each of its own.
pub type Client<S> = <S as Service>::Client;

/// Declares the [`Service`] of what `#[tarpc::service]` has generated.
macro_rules! declare_service {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $request:ident, $response:ident, $client:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl $crate::service::Service for $name {
            const KIND: $crate::service::ServiceKind = $crate::service::ServiceKind::$kind;
            type Request = $request;
            type Response = $response;
            type Client = $client<$crate::transport::Caller<$name>>;
        }
    };
}
pub(crate) use declare_service;
