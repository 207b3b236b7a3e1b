//! What a resolver counts.

use super::machine::ResolverProgress;

ferrisdb_core::role_metrics! {
    /// What a resolver counts.
    pub struct ResolverMetrics of "resolver" {
        /// Batches that were decided.
        batches: Counter(Count),
        /// Transactions that were accepted by this resolver; another one may have refused them.
        accepted: Counter(Count),
        /// Transactions refused because of a conflict.
        conflicts: Counter(Count),
        /// Transactions refused because they were older than the window.
        too_old: Counter(Count),
        /// Time of deciding one batch, and those that waited for it.
        decide: Histogram(Time),
        /// Batches that wait for one before them.
        waiting: Gauge(Count),
        /// Entries of the conflict set.
        conflict_set: Gauge(Count),
    }
}

impl ResolverMetrics {
    /// Takes over what the machine counts by itself.
    pub(super) fn follow(&self, progress: &ResolverProgress) {
        self.batches.follow(progress.batches);
        self.accepted.follow(progress.accepted);
        self.conflicts.follow(progress.conflicts);
        self.too_old.follow(progress.too_old);
        self.waiting.set(progress.waiting as u64);
        self.conflict_set.set(progress.window_entries as u64);
    }
}
