//! What a process says of its own work.

use super::declare_service;
use crate::{error::Result, metrics::RoleMetrics};

/// The metrics of a process. Every process that listens offers this once, at instance zero, whatever it hosts: so who
/// knows an address can ask, also when nobody leads the cluster.
#[tarpc::service]
pub trait Metrics {
    /// The metrics of all roles that it hosts now.
    async fn read() -> Result<Vec<RoleMetrics>>;
}

declare_service! {
    /// [`Metrics`] as a service.
    MetricsService, Metrics, MetricsRequest, MetricsResponse, MetricsClient
}
