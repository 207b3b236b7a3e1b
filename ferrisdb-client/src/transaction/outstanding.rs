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
//!
//! With [`TransactionOption::FailedReadsFailCommit`](crate::TransactionOption::FailedReadsFailCommit) it is another rule, that of
//! FoundationDB: the first error counts, heard or not, and the commit does not wait for other reads then. Watches and mapped ranges
//! are waited for there, too, but fail alone.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use ferrisdb_core::{Error, Result};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared, join_all},
    stream::{FuturesUnordered, StreamExt as _},
};
use parking_lot::Mutex;

use super::cancelled;

/// A read, which leaves its result where whoever has asked finds it, and ends with its error.
type Read = BoxFuture<'static, Option<Error>>;

/// What an error of a read is to a commit that fails with its reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The commit's own.
    FailsCommit,
    /// Nothing.
    LeavesCommit,
}

/// The reads of an attempt.
#[derive(Default)]
pub(super) struct Outstanding {
    /// Those that nobody has to hear of any more are dropped now and then.
    reads: Mutex<Vec<WeakShared<Read>>>,
    /// The first error that is a commit's own, whether or not it was heard.
    first_error: OnceLock<Error>,
}

impl Outstanding {
    /// A read begins. The caller holds the transaction's lock, as whoever ends its open phase does.
    pub(super) fn begin<T, R>(
        self: &Arc<Self>,
        failure: Failure,
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
            if let Some(error) = &error
                && failure == Failure::FailsCommit
            {
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

    /// Polls the reads until all of them have ended. No more may begin. Returns an error that nobody has heard yet, if there is one.
    pub(super) async fn all_ended(&self) -> Option<Error> {
        join_all(self.unheard()).await.into_iter().flatten().next()
    }

    /// Polls the reads until all of them have ended, or one has failed with an error that is the commit's own: returns that. No
    /// more may begin.
    pub(super) async fn ended_or_failed(&self) -> Option<Error> {
        let mut unheard: FuturesUnordered<_> = self.unheard().into_iter().collect();
        loop {
            if let Some(error) = self.first_error.get() {
                return Some(error.clone());
            }
            unheard.next().await?;
        }
    }

    fn unheard(&self) -> Vec<Shared<Read>> {
        self.reads.lock().iter().filter_map(unheard).collect()
    }
}

/// The read, if somebody may still want its answer, and it has not ended, or has failed.
fn unheard(read: &WeakShared<Read>) -> Option<Shared<Read>> {
    read.upgrade().filter(|read| !matches!(read.peek(), Some(None)))
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{ErrorCode, Stage};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_error_that_is_the_commits_own_ends_its_wait() {
        let outstanding = Arc::<Outstanding>::default();
        let never = std::future::pending::<Result<()>>();
        let _never = outstanding.begin(Failure::FailsCommit, never);
        let (fail, failed) = oneshot::channel::<Result<()>>();
        let failing = outstanding.begin(Failure::FailsCommit, async move { failed.await.unwrap() });
        let alone = async { Err::<(), _>(cancelled()) };
        let _alone = outstanding.begin(Failure::LeavesCommit, alone);
        let mut ended = Box::pin(outstanding.ended_or_failed());
        assert!((&mut ended).now_or_never().is_none());
        let error = Error::new(ErrorCode::TransactionTooOld, Stage::Read, "");
        fail.send(Err(error.clone())).unwrap();
        assert_eq!(ended.await, Some(error.clone()));
        assert_eq!(failing.await, Err(error));
    }
}
