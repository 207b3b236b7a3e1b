//! The reads under way, which a commit waits for.
//!
//! ```text
//!   get(k)    polled once, then left alone: nobody polls it any more
//!   commit    polls it until it has ended: what it saw is part of the transaction (I-15)
//!   get(k)    awaited after all: the answer is there
//! ```
//!
//! So a commit never waits for a read that waits to be polled. A read whose future was dropped is not waited for.

use std::{future::Future, sync::Arc};

use ferrisdb_core::Result;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared, join_all},
};
use parking_lot::Mutex;

use super::cancelled;

/// The reads of an attempt.
#[derive(Default)]
pub(super) struct Outstanding {
    /// Those that have ended are dropped now and then.
    reads: Mutex<Vec<WeakShared<BoxFuture<'static, ()>>>>,
}

impl Outstanding {
    /// A read begins. The caller holds the transaction's lock, as whoever ends its open phase does.
    pub(super) fn begin<T, R>(&self, read: R) -> impl Future<Output = Result<T>> + Send + use<T, R>
    where
        T: Send + 'static,
        R: Future<Output = Result<T>> + Send + 'static,
    {
        let answer = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&answer);
        // In a box without a type, as all that asks the network: or the types of futures nest so deep that a program with a
        // few functions around its reads reaches the compiler's limits, of layouts and of what may move between threads.
        let read = async move {
            let result = read.await;
            *slot.lock() = Some(result);
        };
        let read = read.boxed().shared();
        {
            let mut reads = self.reads.lock();
            if reads.len() == reads.capacity() {
                reads.retain(|read| pending(read).is_some());
            }
            reads.extend(read.downgrade());
        }
        async move {
            read.await;
            // Only a read that panicked while the commit polled it has left nothing.
            let answer = answer.lock().take();
            answer.unwrap_or_else(|| Err(cancelled()))
        }
    }

    /// Polls the reads until all of them have ended. No more may begin.
    pub(super) async fn all_ended(&self) {
        let pending: Vec<_> = self.reads.lock().iter().filter_map(pending).collect();
        join_all(pending).await;
    }
}

/// The read, if it has not ended and somebody may still want its answer.
fn pending(read: &WeakShared<BoxFuture<'static, ()>>) -> Option<Shared<BoxFuture<'static, ()>>> {
    read.upgrade().filter(|read| read.peek().is_none())
}
