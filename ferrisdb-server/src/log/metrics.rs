//! What a log counts.

ferrisdb_core::role_metrics! {
    /// What a log counts.
    pub struct LogMetrics of "log" {
        /// Batches that were pushed.
        pushes: Counter(Count),
        /// Bytes that were written, without what fills up files.
        written: Counter(Bytes),
        /// Time of a push, from its arrival until it is on disk.
        push: Histogram(Time),
        /// Time of writing and syncing a group of records.
        sync: Histogram(Time),
        /// Records that were written and synced together.
        group_size: Histogram(Count),
        /// Times that a reader asked for messages.
        peeks: Counter(Count),
        /// Time of a peek, with its wait for something new.
        peek: Histogram(Time),
        /// Peeks that had to read the disk: their messages are not in memory any more.
        disk_peeks: Counter(Count),
        /// Confirmations that the log is not locked, for read versions.
        confirms: Counter(Count),
        /// Bytes of the log's segments on disk.
        disk: Gauge(Bytes),
        /// Memory of messages that are kept for those who read them.
        memory: Gauge(Bytes),
    }
}
