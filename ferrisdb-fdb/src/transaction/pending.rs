//! The futures that are not ready yet: they fail with the transaction, and a commit waits for the reads among them.

use std::sync::{Arc, Weak};

use ferrisdb_client::ErrorCode;

use super::Transaction;
use crate::{errors::Code, promise::Promise};

/// Whether a commit that begins now waits for a future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtCommit {
    /// It is one of a read: what it sees is part of the transaction.
    WaitedFor,
    /// It is one of anything else.
    LeftAlone,
}

/// A future that was not ready when it was handed out.
#[derive(Debug)]
pub(super) struct Pending<P> {
    future: Weak<P>,
    at_commit: AtCommit,
}

impl<P: Promise> Transaction<P> {
    /// Lets the future fail with the transaction, as long as it is pending. Those that are complete are dropped now and then.
    pub(super) fn remember(&self, future: &Arc<P>, at_commit: AtCommit) {
        if future.is_ready() {
            return;
        }
        let mut state = self.state.lock();
        let list = &mut state.pending;
        if list.len() == list.capacity() {
            list.retain(Pending::is_pending);
        }
        list.push(Pending { future: Arc::downgrade(future), at_commit });
    }

    /// What a commit that begins now waits for.
    pub(super) fn reads_under_way(&self) -> Vec<Weak<P>> {
        let state = self.state.lock();
        let reads = state.pending.iter().filter(|entry| entry.at_commit == AtCommit::WaitedFor);
        reads.map(|read| Weak::clone(&read.future)).collect()
    }

    /// The transaction was reset, or will not be used any more.
    pub(super) fn fail_pending(&self) {
        self.fail_pending_with(Code::from(ErrorCode::TransactionCancelled.number()));
    }

    pub(super) fn fail_pending_with(&self, code: Code) {
        let pending = std::mem::take(&mut self.state.lock().pending);
        for future in pending.iter().filter_map(|entry| entry.future.upgrade()) {
            future.fail(code);
        }
    }
}

impl<P: Promise> Pending<P> {
    fn is_pending(&self) -> bool {
        self.future.upgrade().is_some_and(|future| !future.is_ready())
    }
}
