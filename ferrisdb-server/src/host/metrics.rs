//! What a process counts, whatever it hosts, and the service that reads it all.

use std::{sync::Arc, time::Duration};

use ferrisdb_core::{
    Result, handler,
    metrics::{Registration, Registry, RoleMetrics},
    runtime::{self, Vitals},
    service::metrics::{Metrics, MetricsService},
    transport::Router,
};
use tarpc::context::Context;

ferrisdb_core::role_metrics! {
    /// What a process counts, and what its operating system says of it. `\xff\xff/status/json` is made of it, too.
    pub(super) struct ProcessMetrics of "process" {
        /// Connections that are served, of other processes and of its own roles.
        connections: Gauge(Count),
        /// Time of the process on a core, of all its threads.
        cpu: Counter(Time),
        /// Time that the threads for tasks were busy, all of them together.
        busy: Counter(Time),
        /// Threads for tasks.
        threads: Gauge(Count),
        /// Memory of the process that is in use and not on disk.
        memory: Gauge(Bytes),
        /// Cores of the machine.
        machine_cores: Gauge(Count),
        /// Time that the cores of the machine were busy, all of them together.
        machine_cpu: Counter(Time),
        /// Memory of the machine.
        machine_memory: Gauge(Bytes),
        /// Memory of the machine that could be had without swapping.
        machine_memory_available: Gauge(Bytes),
        /// Bytes that the machine sent to others.
        machine_sent: Counter(Bytes),
        /// Bytes that the machine got from others.
        machine_received: Counter(Bytes),
        /// TCP segments that the machine sent again.
        machine_retransmitted: Counter(Count),
    }
}

impl ProcessMetrics {
    fn refresh(&self, vitals: &Vitals) {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let machine = &vitals.machine;
        self.cpu.follow(nanoseconds(vitals.cpu));
        self.busy.follow(nanoseconds(vitals.busy));
        self.threads.set(vitals.threads);
        self.memory.set(vitals.memory_bytes);
        self.machine_cores.set(machine.cores);
        self.machine_cpu.follow(nanoseconds(machine.cpu));
        self.machine_memory.set(machine.memory_bytes);
        self.machine_memory_available.set(machine.memory_available_bytes);
        self.machine_sent.follow(machine.sent_bytes);
        self.machine_received.follow(machine.received_bytes);
        self.machine_retransmitted.follow(machine.retransmitted);
    }
}

/// Offers the metrics of a process to whoever asks. Ends with what is returned.
pub(super) fn offer(router: &Router) -> Registration {
    let metrics = Arc::new(ProcessMetrics::default());
    let refreshed = Arc::clone(&metrics);
    let registry = router.metrics().clone();
    // The registry is the router's own, so this is a circle until the registration is dropped.
    let served = router.clone();
    // Counts begin with the site: the process may have done much before.
    let before = runtime::vitals();
    let release = [("version", env!("CARGO_PKG_VERSION").to_owned())];
    let registration = registry.register_with(&release, metrics, move || {
        refreshed.connections.set(served.connections() as u64);
        refreshed.refresh(&runtime::vitals().since(&before));
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
