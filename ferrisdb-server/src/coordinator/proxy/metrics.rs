//! What a proxy counts, and the way to answer a commit, which is where its fate is known.

use std::sync::Arc;

use ferrisdb_core::{
    ErrorCode, Result,
    runtime::{self, Instant},
    transaction::{CommitOutcome, CommitRequest},
};
use tokio::sync::oneshot;

ferrisdb_core::role_metrics! {
    /// What a proxy counts. The phases of a batch are those of [`super::commit`].
    pub struct ProxyMetrics of "proxy" {
        /// Transactions that were committed.
        committed: Counter(Count),
        /// Transactions that conflicted with others.
        conflicts: Counter(Count),
        /// Transactions whose read version was too old.
        too_old: Counter(Count),
        /// Transactions of which nobody knows whether they were committed.
        unknown: Counter(Count),
        /// Transactions refused for another reason: malformed, over a limit, or the generation has ended.
        refused: Counter(Count),
        /// Transactions refused at once, because too many waited.
        too_busy: Counter(Count),
        /// Requests for a read version that were held back, because too many commits waited.
        held_back: Counter(Count),
        /// Time of a commit, from its arrival to its answer.
        commit: Histogram(Time),
        /// Part of it: a transaction waits for a place in the pipeline.
        queue: Histogram(Time),
        /// Part of it: the whole way of its batch through the phases.
        batch: Histogram(Time),
        /// Phase of a batch: getting its version from the sequencer.
        sequence: Histogram(Time),
        /// Phase of a batch: the verdicts of all resolvers.
        resolve: Histogram(Time),
        /// Phase of a batch: waiting for the batch before to be tagged, and tagging it.
        tag: Histogram(Time),
        /// Phase of a batch: until all logs have it on disk.
        push: Histogram(Time),
        /// Phase of a batch: telling the sequencer that it is committed.
        report: Histogram(Time),
        /// Transactions in a batch, zero for the batches of an idle cluster.
        batch_size: Histogram(Count),
        /// Read versions handed out.
        read_versions: Counter(Count),
        /// Requests that shared a round of read versions.
        read_round_size: Histogram(Count),
        /// Time of a round: the sequencer's answer, and the confirmation of the logs.
        read_round: Histogram(Time),
    }
}

impl ProxyMetrics {
    /// A batch begins with these transactions.
    pub(super) fn on_batch(&self, batch: &[(CommitRequest, CommitReply)]) {
        self.batch_size.record_len(batch.len());
        let now = runtime::now();
        for (_, reply) in batch {
            self.queue.record_duration(now.saturating_duration_since(reply.arrived));
        }
    }

    fn on_outcome(&self, outcome: &Result<CommitOutcome>) {
        let counter = match outcome {
            Ok(CommitOutcome::Committed(_)) => &self.committed,
            Ok(CommitOutcome::Conflict(_)) => &self.conflicts,
            Err(error) => match error.code() {
                ErrorCode::TransactionTooOld => &self.too_old,
                ErrorCode::CommitUnknownResult => &self.unknown,
                _ => &self.refused,
            },
        };
        counter.increment();
    }
}

/// How a commit is answered, and counted.
#[derive(Debug)]
pub(super) struct CommitReply {
    sender: oneshot::Sender<Result<CommitOutcome>>,
    arrived: Instant,
    metrics: Arc<ProxyMetrics>,
}

impl CommitReply {
    /// For a transaction that has arrived just now.
    pub(super) fn channel(
        metrics: &Arc<ProxyMetrics>,
    ) -> (CommitReply, oneshot::Receiver<Result<CommitOutcome>>) {
        let (sender, receiver) = oneshot::channel();
        let (arrived, metrics) = (runtime::now(), Arc::clone(metrics));
        (CommitReply { sender, arrived, metrics }, receiver)
    }

    /// Answers; gives the answer back if the client has gone.
    pub(super) fn send(self, outcome: Result<CommitOutcome>) -> Result<(), Result<CommitOutcome>> {
        self.metrics.on_outcome(&outcome);
        self.metrics.commit.record_since(self.arrived);
        self.sender.send(outcome)
    }
}
