//! What a process counts, whatever it hosts, and the service that reads it all.

use std::sync::Arc;

use ferrisdb_core::{
    Result, handler,
    metrics::{Registration, Registry, RoleMetrics},
    service::metrics::{Metrics, MetricsService},
    transport::Router,
};
use tarpc::context::Context;

ferrisdb_core::role_metrics! {
    /// What a process counts. Memory and CPU are known to the operating system.
    pub(super) struct ProcessMetrics of "process" {
        /// Connections that are served, of other processes and of its own roles.
        connections: Gauge(Count),
    }
}

/// Offers the metrics of a process to whoever asks. Ends with what is returned.
pub(super) fn offer(router: &Router) -> Registration {
    let metrics = Arc::new(ProcessMetrics::default());
    let refreshed = Arc::clone(&metrics);
    let registry = router.metrics().clone();
    // The registry is the router's own, so this is a circle until the registration is dropped.
    let served = router.clone();
    let registration = registry.register_with(&[], metrics, move || {
        refreshed.connections.set(served.connections() as u64);
    });
    router.add::<MetricsService>(0, handler!(Metrics, MetricsServer(registry)));
    registration
}

#[derive(Clone)]
struct MetricsServer(Registry);

impl Metrics for MetricsServer {
    async fn read(self, _: Context) -> Result<Vec<RoleMetrics>> {
        Ok(self.0.read())
    }
}
