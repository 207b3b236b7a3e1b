//! Where the time of a cluster goes: the metrics of its processes.
//!
//! ```text
//!   status --> the addresses of all processes --> each is asked for itself --> its roles, or why it is silent
//! ```
//!
//! Numbers count from the start of each role. What happened lately is the difference of two readings, see
//! [`RoleMetrics::since`]. `docs/reference/metrics.md` says what each of them means.

use std::{collections::BTreeSet, time::Duration};

use ferrisdb_core::{
    Endpoint, Error, Result, Stage,
    id::Address,
    metrics::RoleMetrics,
    runtime,
    service::metrics::MetricsService,
    transport::{self, Network},
};

use crate::database::Database;

/// How long a process may take to answer, the way to it included.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What one process says.
#[derive(Clone, Debug)]
pub struct ProcessMetrics {
    /// Where it is reached.
    pub address: Address,
    /// The metrics of its roles, or why there are none.
    pub roles: Result<Vec<RoleMetrics>>,
}

impl Database {
    /// The metrics of all processes that the controllers know, in the order of their addresses. A process that does not
    /// answer within two seconds is there with its error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # database.transaction().get("k").await?;
    /// for process in database.metrics().await? {
    ///     for role in process.roles? {
    ///         if let Some(commit) = role.histogram("commit") {
    ///             println!("{}: p99 of a commit {} ns", role.name(), commit.quantile(0.99));
    ///         }
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Database::status`], from which the addresses come.
    pub async fn metrics(&self) -> Result<Vec<ProcessMetrics>> {
        let addresses: Vec<Address> = self.process_addresses().await?.into_iter().collect();
        Ok(self.metrics_at(&addresses).await)
    }

    /// The metrics of the processes at these addresses, in their order. The controllers need not know them.
    ///
    /// ```no_run
    /// # async fn example(database: ferrisdb_client::Database) -> ferrisdb_client::Result<()> {
    /// # use ferrisdb_client::Address;
    /// let processes = database.metrics_at(&[Address::new("10.0.0.7:4502")]).await;
    /// # Ok(()) }
    /// ```
    pub async fn metrics_at(&self, addresses: &[Address]) -> Vec<ProcessMetrics> {
        metrics_of(self.cluster().network(), addresses).await
    }

    /// The metrics of one process.
    ///
    /// ```no_run
    /// # async fn example(database: ferrisdb_client::Database) -> ferrisdb_client::Result<()> {
    /// # use ferrisdb_client::Address;
    /// for role in database.metrics_of(&Address::new("10.0.0.7:4502")).await? {
    ///     println!("{}: {} metrics", role.name(), role.samples.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Why it did not answer within two seconds.
    pub async fn metrics_of(&self, address: &Address) -> Result<Vec<RoleMetrics>> {
        ask(self.cluster().network(), address).await
    }

    /// Where the processes of the cluster are reached, controllers included.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// assert_eq!(database.process_addresses().await?.len(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Database::status`].
    pub async fn process_addresses(&self) -> Result<BTreeSet<Address>> {
        let status = self.status().await?;
        let processes = status.processes.iter().map(|process| &process.heartbeat.worker.address);
        let controllers = status.cluster.controllers.iter().map(|member| &member.address);
        Ok(processes.chain(controllers).chain([&status.controller]).cloned().collect())
    }
}

/// Asks processes for their metrics, all at once; answers in the order of `addresses`. For the case that no database can
/// be connected to.
///
/// ```no_run
/// # async fn example() -> ferrisdb_client::Result<()> {
/// use ferrisdb_client::{Address, Network, metrics_of};
/// for process in metrics_of(&Network::new(), &[Address::new("10.0.0.1:4500")]).await {
///     println!("{}: {} roles", process.address, process.roles?.len());
/// }
/// # Ok(()) }
/// ```
pub async fn metrics_of(network: &Network, addresses: &[Address]) -> Vec<ProcessMetrics> {
    let asked = addresses.iter().map(|address| async move {
        ProcessMetrics { address: address.clone(), roles: ask(network, address).await }
    });
    futures::future::join_all(asked).await
}

async fn ask(network: &Network, address: &Address) -> Result<Vec<RoleMetrics>> {
    let asked = async {
        let endpoint = Endpoint::of_process(address.clone());
        let client = network.connect::<MetricsService>(&endpoint).await?;
        transport::call(ANSWER_LIMIT, Stage::Client, |context| client.read(context)).await?
    };
    // The connection counts, too: a machine that has gone does not refuse it.
    let answer = runtime::timeout(ANSWER_LIMIT, Stage::Client, asked).await;
    answer.and_then(|answer| answer).map_err(|error: Error| error.at(address))
}
