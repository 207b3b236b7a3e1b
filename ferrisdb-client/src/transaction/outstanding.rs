//! The reads under way, which a commit waits for.
//!
//! ```text
//!   get(k)    polled once, then left alone: nobody polls it any more
//!   commit    polls it until it has ended: what it saw is part of the transaction (I-15)
//!   get(k)    awaited after all: the answer is there
//!
//!   get(k)    has failed, or fails now, and nobody has heard of it yet
//!   commit    fails with that error: else its caller would hear of success first, then of an error of the same transaction, and
//!             whoever tries again after an error would do all of it twice
//! ```
//!
//! So a commit never waits for a read that waits to be polled. A read whose future was dropped is not waited for, nor does its
//! error matter.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use ferrisdb_core::{Error, Result};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared, join_all},
};
use parking_lot::Mutex;

use super::cancelled;

/// A read, which leaves its result where whoever has asked finds it, and ends with its error.
type Read = BoxFuture<'static, Option<Error>>;

/// The reads of an attempt.
#[derive(Default)]
pub(super) struct Outstanding {
    /// Those that nobody has to hear of any more are dropped now and then.
    reads: Mutex<Vec<WeakShared<Read>>>,
    /// The first error of any of them, whether or not it was heard.
    first_error: OnceLock<Error>,
}

impl Outstanding {
    /// A read begins. The caller holds the transaction's lock, as whoever ends its open phase does.
    pub(super) fn begin<T, R>(
        self: &Arc<Self>,
        read: R,
    ) -> impl Future<Output = Result<T>> + Send + use<T, R>
    where
        T: Send + 'static,
        R: Future<Output = Result<T>> + Send + 'static,
    {
        let answer = Arc::new(Mutex::new(None));
        let (itself, slot) = (Arc::clone(self), Arc::clone(&answer));
        // In a box without a type, as all that asks the network: or the types of futures nest so deep that a program with a
        // few functions around its reads reaches the compiler's limits, of layouts and of what may move between threads.
        let read = async move {
            let result = read.await;
            let error = result.as_ref().err().cloned();
            if let Some(error) = &error {
                itself.note_failed(error);
            }
            *slot.lock() = Some(result);
            error
        };
        let read = read.boxed().shared();
        {
            let mut reads = self.reads.lock();
            if reads.len() == reads.capacity() {
                reads.retain(|read| unheard(read).is_some());
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

    /// A read has failed; also one that needed nobody's answer for that.
    pub(super) fn note_failed(&self, error: &Error) {
        let _ = self.first_error.set(error.clone());
    }

    /// The first error of all reads so far, whether or not somebody has heard it.
    pub(super) fn first_error(&self) -> Option<Error> {
        self.first_error.get().cloned()
    }

    /// Polls the reads until all of them have ended. No more may begin. Returns an error that nobody has heard yet, if there is one.
    pub(super) async fn all_ended(&self) -> Option<Error> {
        let unheard: Vec<_> = self.reads.lock().iter().filter_map(unheard).collect();
        join_all(unheard).await.into_iter().flatten().next()
    }
}

/// The read, if somebody may still want its answer, and it has not ended, or has failed.
fn unheard(read: &WeakShared<Read>) -> Option<Shared<Read>> {
    read.upgrade().filter(|read| !matches!(read.peek(), Some(None)))
}
