//! What a controller counts.

ferrisdb_core::role_metrics! {
    /// What a controller counts. All but `elections` and `leads` stand still while another one leads.
    pub struct ControllerMetrics of "controller" {
        /// Heartbeats of processes.
        heartbeats: Counter(Count),
        /// Times that this controller began to lead.
        elections: Counter(Count),
        /// One if this controller leads, zero if not.
        leads: Gauge(Count),
        /// Time of a recovery, from the moment it became necessary.
        recovery: Histogram(Time),
        /// Time of agreeing with the other controllers on one change of the cluster's record.
        persist: Histogram(Time),
    }
}
