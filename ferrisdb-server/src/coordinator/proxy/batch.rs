//! Collecting transactions into batches.
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
    queue: VecDeque<(CommitRequest, R)>,
    bytes: usize,
    bytes_max: usize,
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

    /// Adds a transaction, and how to answer it.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TooBusy`] when the queue is full, with the way to answer.
    pub fn push(&mut self, request: CommitRequest, reply: R) -> Result<(), (Error, R)> {
        let cost = cost(&request);
        if !self.queue.is_empty() && self.bytes + cost > self.bytes_max {
            let detail = format!("{} transactions wait to be committed", self.queue.len());
            return Err((Error::new(ErrorCode::TooBusy, Stage::Commit, detail), reply));
        }
        self.bytes += cost;
        self.queue.push_back((request, reply));
        Ok(())
    }

    /// The next batch, oldest first: as much as the limits of a batch allow, at least one transaction.
    pub fn take_batch(&mut self) -> Vec<(CommitRequest, R)> {
        let (mut count, mut bytes) = (0, 0);
        for (request, _) in &self.queue {
            let cost = cost(request);
            let full =
                count >= limits::BATCH_TRANSACTIONS_MAX || bytes + cost > limits::BATCH_BYTES_MAX;
            if count > 0 && full {
                break;
            }
            count += 1;
            bytes += cost;
        }
        self.bytes -= bytes;
        self.queue.drain(..count).collect()
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
            waiting.push(CommitRequest::default(), number).unwrap();
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
            waiting.push(request(limits::BATCH_BYTES_MAX / 2), ()).unwrap();
        }
        assert_eq!(waiting.take_batch().len(), 1);
        assert_eq!(waiting.bytes, waiting.queue.iter().map(|(r, ())| cost(r)).sum::<usize>());
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut waiting = Waiting::new(1_000);
        waiting.push(request(700), 1).unwrap();
        let (error, reply) = waiting.push(request(700), 2).unwrap_err();
        assert_eq!((error.code(), reply), (ErrorCode::TooBusy, 2));
        waiting.take_batch();
        waiting.push(request(700), 3).unwrap();
    }
}
