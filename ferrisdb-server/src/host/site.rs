//! A process' place on the network.

use ferrisdb_core::{
    Error, Result,
    id::Address,
    metrics::Registration,
    transport::{Listener, Network, Router},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::metrics;
use crate::directory::DataDirectory;

/// Where a process is reached, what it offers there, and how it reaches others.
#[derive(Debug)]
pub struct Site {
    address: Address,
    network: Network,
    router: Router,
    listener: Mutex<Option<Listener>>,
    /// What makes it pointless to go on, such as a controller of another cluster.
    fatal: Mutex<Option<Error>>,
    fatal_noticed: Notify,
    _metrics: Registration,
}

impl Site {
    /// A site that listens on `listen` and tells others to use `advertise`, or the address listened on.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn listen(listen: &Address, advertise: Option<Address>) -> Result<Site> {
        #[cfg(not(madsim))]
        let network = Network::with_bounds(crate::descriptors::Descriptors::of_process().bounds());
        #[cfg(madsim)]
        let network = Network::new();
        let router = Router::new();
        let listener = Listener::bind(listen, router.clone(), network.clone()).await?;
        let address = advertise.unwrap_or_else(|| listener.address().clone());
        let site = Site::new(address, network, router);
        *site.listener.lock() = Some(listener);
        Ok(site)
    }

    /// A site that is reached from within the process only.
    pub fn local(name: &str) -> Site {
        Site::new(Address::new(name), Network::new(), Router::new())
    }

    fn new(address: Address, network: Network, router: Router) -> Site {
        network.set_origin(&address);
        // Roles of one process reach each other without a socket.
        network.add_local(address.clone(), router.clone());
        let _metrics = metrics::offer(&router);
        Site {
            address,
            network,
            router,
            listener: Mutex::default(),
            fatal: Mutex::default(),
            fatal_noticed: Notify::new(),
            _metrics,
        }
    }

    /// Where others reach it.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How it reaches others.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What it offers.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Joins the cluster that a directory belongs to, if it does.
    pub(super) fn join_cluster_of(&self, directory: &DataDirectory) -> Result<()> {
        directory.cluster_id().map_or(Ok(()), |cluster_id| self.network.join(cluster_id))
    }

    /// Notes what makes it pointless to go on.
    pub(super) fn give_up(&self, error: Error) {
        tracing::error!(%error, "this process cannot go on");
        self.fatal.lock().get_or_insert(error);
        self.fatal_noticed.notify_waiters();
    }

    /// Waits for what makes it pointless to go on.
    pub async fn failed(&self) -> Error {
        loop {
            let noticed = self.fatal_noticed.notified();
            tokio::pin!(noticed);
            noticed.as_mut().enable();
            if let Some(error) = self.fatal.lock().clone() {
                return error;
            }
            noticed.await;
        }
    }

    /// Stops listening, ends all connections, and lets go of all roles.
    pub fn close(&self) {
        *self.listener.lock() = None;
        self.router.clear();
        self.network.clear_local();
    }
}
