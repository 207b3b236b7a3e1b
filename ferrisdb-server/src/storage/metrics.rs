//! What a storage server counts.

use ferrisdb_core::metrics::Timing;

ferrisdb_core::role_metrics! {
    /// What a storage server counts.
    pub struct StorageMetrics of "storage" {
        /// Keys that were read.
        point_reads: Counter(Count),
        /// Time of a request for keys, one or many, with its wait for a version.
        read: Histogram(Time),
        /// Keys in one request.
        read_size: Histogram(Count),
        /// Time of reading a page of a range, without waiting.
        range_read: Histogram(Time),
        /// Rows in the pages.
        rows: Counter(Count),
        /// Time that a read waited for its version to be applied, of those that had to.
        version_wait: Histogram(Time),
        /// Versions that were applied.
        versions: Counter(Count),
        /// Mutations that were applied.
        mutations: Counter(Count),
        /// Time of applying what came with one peek.
        apply: Histogram(Time),
        /// Changes that were written to the engine by flushes.
        flushed: Counter(Count),
        /// Part of a flush: making the batch from the window.
        flush_begin: Histogram(Time),
        /// Part of a flush: the engine's write.
        flush_write: Histogram(Time),
        /// Part of a flush: forgetting in the window what the engine has.
        flush_finish: Histogram(Time),
        /// Memory of the window.
        window: Gauge(Bytes),
        /// How far the window is behind what the logs said to be committed.
        behind: Gauge(Versions),
        /// Versions that were applied and are not in the engine: the window, as it should be, and what waits to be
        /// flushed.
        unflushed: Gauge(Versions),
        /// Memory of the engine: its tables in memory and its cache.
        engine_memory: Gauge(Bytes),
        /// Bytes of the engine's files on disk.
        engine_disk: Gauge(Bytes),
        /// Reads that wait for a version now.
        waiting: Gauge(Count),
    }
}

impl StorageMetrics {
    /// A request for so many keys; measures it until what is returned is dropped.
    pub(super) fn on_reads(&self, count: usize) -> Timing<'_> {
        self.point_reads.add_len(count);
        self.read_size.record_len(count);
        self.read.start()
    }
}
