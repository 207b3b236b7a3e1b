//! What clients do, and what must be true afterwards: a file per workload.
//!
//! ```text
//!   set_up    once, by one client, before anything goes wrong
//!   run       by each client, until it is told to stop, while faults happen
//!   check     once, by one client, when all faults are over: an error is a defect of the database
//! ```
//!
//! A workload keeps what its clients were told, such as a journal or a history, and compares it in the end.
//! Several workloads can run on one cluster: each keeps to keys that begin with its own name.

pub mod api_model;
pub mod api_suite;
pub mod arguments;
pub mod atomic_model;
pub mod atomic_operations;
pub mod availability;
pub mod bank;
pub mod bulk;
pub mod c_interface;
mod common;
pub mod conflict_ranges;
pub mod contents;
pub mod cycle;
pub mod deleted_keys;
pub mod directories;
pub mod exactly_once;
pub mod external_consistency;
pub mod hot_key;
pub mod idle;
pub mod list_append;
pub mod log_space;
pub mod long_idle;
pub mod queue;
pub mod recorded_bank;
pub mod register;
pub mod repeatable;
pub mod replica_check;
pub mod saturation;
pub mod serializability;
pub mod spec;
pub mod status;
pub mod support;
pub mod watches;
pub mod window_border;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;
use ferrisdb_client::Database;
use ferrisdb_core::Key;
use futures::future::BoxFuture;

pub use self::spec::WorkloadSpec;
use crate::trace::Trace;

/// Something that clients do, and that can be checked afterwards.
pub trait Workload: Send + Sync + 'static {
    /// What its keys begin with, and what it is called in traces.
    fn name(&self) -> &str;

    /// Keys at which it is worth cutting the keyspace into shards.
    fn cuts(&self) -> Vec<Key> {
        vec![Key::from(format!("{}/", self.name()))]
    }

    /// Keys at which it is worth cutting the keyspace for resolvers: ranges go over them, and transactions lie on both sides.
    fn resolver_cuts(&self) -> Vec<Key> {
        self.cuts()
    }

    /// How many clients run it at once.
    fn clients(&self) -> u32;

    /// Whether a client may be killed. Another one with its number begins then, and finds in the workload what its predecessor
    /// has noted there.
    fn is_mortal(&self) -> bool {
        false
    }

    /// Prepares the keys.
    ///
    /// # Errors
    ///
    /// If the database refuses for good.
    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>>;

    /// One client's part, until [`Client::is_stopped`]. Rides through faults.
    ///
    /// # Errors
    ///
    /// What no fault explains.
    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>>;

    /// Compares what the clients were told with what is there, and says in a line how much that was.
    ///
    /// # Errors
    ///
    /// What is wrong, with the invariant that it breaks.
    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>>;
}

/// One client of a workload.
#[derive(Clone)]
pub struct Client {
    /// Its number among the clients of its workload, from zero.
    pub number: u32,
    /// A handle of its own, on a node of its own.
    pub database: Database,
    /// Where the keyspace is cut for the resolvers, if it is not cut by the first bytes of keys.
    pub resolver_boundaries: Arc<[Key]>,
    stopped: Arc<AtomicBool>,
    trace: Trace,
}

impl Client {
    /// A client that works until `stopped` is set.
    pub fn new(number: u32, database: Database, stopped: Arc<AtomicBool>, trace: Trace) -> Client {
        let resolver_boundaries = Arc::from([]);
        Client { number, database, resolver_boundaries, stopped, trace }
    }

    /// The same client of a cluster whose resolvers meet at these keys.
    #[must_use]
    pub fn with_resolver_boundaries(self, boundaries: &Arc<[Key]>) -> Client {
        Client { resolver_boundaries: Arc::clone(boundaries), ..self }
    }

    /// Whether it is time to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Notes an event in the trace of the run.
    pub fn note(&self, event: impl fmt::Display) {
        self.trace.note(event);
    }
}
