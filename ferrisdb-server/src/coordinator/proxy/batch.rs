//! Collecting transactions into batches.
//!
//! How much a batch may hold is measured twice: in bytes of its transactions, and in bytes that a log gets of it at most. Every
//! mutation goes to all servers of its shard, and one log may keep the messages of all of them: three copies, and three more
//! while they move, are six times the bytes in one message.
//!
//! A batch is everything that waits at the moment when a place in the pipeline is free. An idle proxy so
//! begins a batch at once with the single transaction that came; a busy one finds many waiting, and the
//! more the longer the batches before take. No timer is needed, and none delays anybody.
//!
//! ```text
//!   places: 2     arrivals:  a   b c   d e f   g
//!   batch 1 [a        ]
//!   batch 2     [b          ]              c waits: both places are taken
//!   batch 3            [c d e      ]
//! ```

use std::collections::VecDeque;

use ferrisdb_core::{Error, ErrorCode, Result, Stage, limits, transaction::CommitRequest};

/// Transactions that wait for a batch, bounded in bytes.
#[derive(Debug)]
pub struct Waiting<R> {
    queue: VecDeque<Waiter<R>>,
    bytes: usize,
    bytes_max: usize,
}

/// A transaction that waits.
#[derive(Debug)]
struct Waiter<R> {
    request: CommitRequest,
    reply: R,
    /// What it costs the proxy, in bytes.
    cost: usize,
    /// What a log gets of it at most, in bytes.
    pushed: usize,
}

/// What a transaction without any data still costs the proxy, in bytes.
const TRANSACTION_OVERHEAD_BYTES: usize = 256;

fn cost(request: &CommitRequest) -> usize {
    request.size() + TRANSACTION_OVERHEAD_BYTES
}

impl<R> Waiting<R> {
    /// An empty queue that takes `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Waiting { queue: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds a transaction of which a log gets `pushed` bytes at most, and how to answer it.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TooBusy`] when the queue is full, [`ErrorCode::TransactionTooLarge`] when no log could be told of it; with
    /// the way to answer.
    pub fn push(
        &mut self,
        request: CommitRequest,
        reply: R,
        pushed: usize,
    ) -> Result<(), (Error, R)> {
        let cost = cost(&request);
        if pushed > limits::PUSH_BYTES_MAX {
            let most = limits::PUSH_BYTES_MAX;
            let detail = format!("{pushed} bytes for the logs, {most} are allowed");
            return Err((Error::new(ErrorCode::TransactionTooLarge, Stage::Commit, detail), reply));
        }
        if !self.queue.is_empty() && self.bytes + cost > self.bytes_max {
            let detail = format!("{} transactions wait to be committed", self.queue.len());
            return Err((Error::new(ErrorCode::TooBusy, Stage::Commit, detail), reply));
        }
        self.bytes += cost;
        self.queue.push_back(Waiter { request, reply, cost, pushed });
        Ok(())
    }

    /// The next batch, oldest first: as much as the limits of a batch allow, at least one transaction.
    pub fn take_batch(&mut self) -> Vec<(CommitRequest, R)> {
        let (mut count, mut bytes, mut pushed) = (0, 0, 0);
        for waiter in &self.queue {
            let full = count >= limits::BATCH_TRANSACTIONS_MAX
                || bytes + waiter.cost > limits::BATCH_BYTES_MAX
                || pushed + waiter.pushed > limits::BATCH_PUSHED_BYTES_MAX;
            if count > 0 && full {
                break;
            }
            count += 1;
            bytes += waiter.cost;
            pushed += waiter.pushed;
        }
        self.bytes -= bytes;
        self.queue.drain(..count).map(|waiter| (waiter.request, waiter.reply)).collect()
    }

    /// Whether so much waits that nobody should begin who wants to commit later.
    pub fn is_crowded(&self) -> bool {
        self.bytes > self.bytes_max / 2
    }

    /// Whether so much waits that work in the background had better not begin.
    pub fn is_busy(&self) -> bool {
        self.bytes > self.bytes_max / 4
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::Mutation;

    use super::*;

    fn request(bytes: usize) -> CommitRequest {
        let mutation = Mutation::Set { key: "k".into(), value: vec![0; bytes].into() };
        CommitRequest { mutations: vec![mutation], ..CommitRequest::default() }
    }

    #[test]
    fn a_batch_is_all_that_waits_within_the_limits() {
        let mut waiting = Waiting::new(usize::MAX);
        for number in 0..limits::BATCH_TRANSACTIONS_MAX + 10 {
            waiting.push(CommitRequest::default(), number, 0).unwrap();
        }
        assert_eq!(waiting.take_batch().len(), limits::BATCH_TRANSACTIONS_MAX);
        let rest: Vec<usize> = waiting.take_batch().into_iter().map(|(_, reply)| reply).collect();
        let first = limits::BATCH_TRANSACTIONS_MAX;
        assert_eq!(rest, Vec::from_iter(first..first + 10));
        assert!(waiting.is_empty());
    }

    #[test]
    fn bytes_close_a_batch() {
        let mut waiting = Waiting::new(usize::MAX);
        for _ in 0..4 {
            waiting.push(request(limits::BATCH_BYTES_MAX / 2), (), 0).unwrap();
        }
        assert_eq!(waiting.take_batch().len(), 1);
        assert_eq!(waiting.bytes, waiting.queue.iter().map(|waiter| waiter.cost).sum::<usize>());
    }

    #[test]
    fn what_a_log_gets_of_it_closes_a_batch_and_refuses_a_transaction() {
        let mut waiting = Waiting::new(usize::MAX);
        for _ in 0..4 {
            waiting.push(request(100), (), limits::BATCH_PUSHED_BYTES_MAX / 2).unwrap();
        }
        waiting.push(request(100), (), limits::PUSH_BYTES_MAX).unwrap();
        assert_eq!([2, 2, 1], [0; 3].map(|_| waiting.take_batch().len()));
        let (error, ()) = waiting.push(request(100), (), limits::PUSH_BYTES_MAX + 1).unwrap_err();
        assert_eq!(error.code(), ErrorCode::TransactionTooLarge);
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut waiting = Waiting::new(1_000);
        waiting.push(request(700), 1, 0).unwrap();
        let (error, reply) = waiting.push(request(700), 2, 0).unwrap_err();
        assert_eq!((error.code(), reply), (ErrorCode::TooBusy, 2));
        waiting.take_batch();
        waiting.push(request(700), 3, 0).unwrap();
    }
}
