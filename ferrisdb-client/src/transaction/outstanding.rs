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
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use ferrisdb_core::{Error, Result};
use futures::{
    FutureExt as _,
    future::{BoxFuture, join_all},
    stream::{FuturesUnordered, StreamExt as _},
};
use parking_lot::Mutex;

use super::{
    cancelled,
    joint::{Joint, OnEnd, Seat},
};

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
    reads: Mutex<Vec<Weak<dyn AnyRead>>>,
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
        let end =
            End { outstanding: Arc::clone(self), failure, has_succeeded: AtomicBool::new(false) };
        let read = Joint::new(read, end);
        let mut reads = self.reads.lock();
        if reads.len() == reads.capacity() {
            reads.retain(|read| unheard(read).is_some());
        }
        let of_any_type: Weak<dyn AnyRead> = Arc::<Joint<Result<T>, End>>::downgrade(&read);
        reads.push(of_any_type);
        drop(reads);
        let seat = Seat::of(&read);
        async move {
            seat.await;
            // An error is left to a commit that has waited for it as well.
            let result = read.with_output(|result| match result {
                Some(Err(error)) => Some(Err(error.clone())),
                result => result.take(),
            });
            // Only a read that panicked while the commit polled it has left nothing.
            result.unwrap_or_else(|| Err(cancelled()))
        }
    }

    /// A read has failed; also one that needed nobody's answer for that.
    pub(super) fn note_failed(&self, error: &Error) {
        let _ = self.first_error.set(error.clone());
    }

    /// Whether there is nothing to wait for, and no error that anybody has to hear.
    pub(super) fn is_settled(&self) -> bool {
        if !self.unheard().is_empty() {
            return false;
        }
        // After that look: a read that fails meanwhile, and is heard, is gone from there. It had noted its error before.
        fence(Ordering::Acquire);
        self.first_error.get().is_none()
    }

    /// Polls the reads until all of them have ended. No more may begin. Returns an error that nobody had heard when this began, if
    /// there is one.
    pub(super) async fn all_ended(&self) -> Option<Error> {
        let ended = self.unheard().into_iter().map(AnyRead::ended);
        join_all(ended).await.into_iter().flatten().next()
    }

    /// Polls the reads until all of them have ended, or one has failed with an error that is the commit's own: returns that. No
    /// more may begin.
    pub(super) async fn ended_or_failed(&self) -> Option<Error> {
        let mut under_way: FuturesUnordered<_> =
            self.unheard().into_iter().map(AnyRead::ended).collect();
        loop {
            if let Some(error) = self.first_error.get() {
                return Some(error.clone());
            }
            under_way.next().await?;
        }
    }

    fn unheard(&self) -> Vec<Arc<dyn AnyRead>> {
        self.reads.lock().iter().filter_map(unheard).collect()
    }
}

/// The read, if somebody may still want its answer, and it has not ended, or has failed.
fn unheard(read: &Weak<dyn AnyRead>) -> Option<Arc<dyn AnyRead>> {
    read.upgrade().filter(|read| !read.has_succeeded())
}

/// What a read leaves when it ends.
struct End {
    outstanding: Arc<Outstanding>,
    failure: Failure,
    /// Apart from the lock under which the read is polled: whoever looks at it may hold the transaction's.
    has_succeeded: AtomicBool,
}

impl<T> OnEnd<Result<T>> for End {
    fn on_end(&self, result: Option<&Result<T>>) {
        if let (Some(Err(error)), Failure::FailsCommit) = (result, self.failure) {
            self.outstanding.note_failed(error);
        }
        self.has_succeeded.store(matches!(result, Some(Ok(_))), Ordering::Release);
    }
}

/// A read, to those who only want it to end.
trait AnyRead: Send + Sync {
    /// Whether it has ended without an error.
    fn has_succeeded(&self) -> bool;
    /// Polls it until it has ended; its error.
    fn ended(self: Arc<Self>) -> BoxFuture<'static, Option<Error>>;
}

impl<T: Send + 'static> AnyRead for Joint<Result<T>, End> {
    fn has_succeeded(&self) -> bool {
        self.listener.has_succeeded.load(Ordering::Acquire)
    }

    fn ended(self: Arc<Self>) -> BoxFuture<'static, Option<Error>> {
        let seat = Seat::of(&self);
        let ended = async move {
            seat.await;
            self.with_output(|result| result.as_ref()?.as_ref().err().cloned())
        };
        ended.boxed()
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{ErrorCode, Stage};
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_read_that_is_left_alone_is_seen_to_its_end() {
        let outstanding = Arc::<Outstanding>::default();
        assert!(outstanding.is_settled());
        let (answer, answered) = oneshot::channel::<Result<u8>>();
        let read = outstanding.begin(Failure::FailsCommit, async { answered.await.unwrap() });
        let mut read = Box::pin(read);
        assert!((&mut read).now_or_never().is_none());
        assert!(!outstanding.is_settled());
        answer.send(Ok(7)).unwrap();
        assert_eq!(outstanding.all_ended().await, None);
        assert!(outstanding.is_settled());
        assert_eq!(read.await, Ok(7));
    }

    #[tokio::test]
    async fn a_read_whose_future_was_dropped_is_nobodys_concern() {
        let outstanding = Arc::<Outstanding>::default();
        drop(outstanding.begin(Failure::FailsCommit, std::future::pending::<Result<()>>()));
        assert!(outstanding.is_settled());
        assert_eq!(outstanding.all_ended().await, None);
    }

    #[tokio::test]
    async fn an_error_counts_until_its_caller_has_heard_it() {
        let outstanding = Arc::<Outstanding>::default();
        let error = Error::new(ErrorCode::TransactionTooOld, Stage::Read, "");
        let fails = std::future::ready(Err::<(), _>(error.clone()));
        let read = outstanding.begin(Failure::FailsCommit, fails);
        assert_eq!(outstanding.all_ended().await, Some(error.clone()));
        assert_eq!(outstanding.all_ended().await, Some(error.clone()), "nobody has heard it yet");
        assert_eq!(read.await, Err(error.clone()));
        assert_eq!(outstanding.all_ended().await, None);
        assert!(!outstanding.is_settled(), "it may be the commit's own");
        assert_eq!(outstanding.ended_or_failed().await, Some(error));
    }

    #[tokio::test]
    async fn an_error_that_comes_while_the_commit_waits_counts_whoever_hears_it_first() {
        for read_is_first in [false, true] {
            let outstanding = Arc::<Outstanding>::default();
            let (fail, failed) = oneshot::channel::<Result<()>>();
            let read = outstanding.begin(Failure::FailsCommit, async { failed.await.unwrap() });
            let (mut read, mut ended) = (Box::pin(read), Box::pin(outstanding.all_ended()));
            assert!((&mut read).now_or_never().is_none());
            assert!((&mut ended).now_or_never().is_none());
            let error = Error::new(ErrorCode::TransactionTooOld, Stage::Read, "");
            fail.send(Err(error.clone())).unwrap();
            if read_is_first {
                assert_eq!(read.await, Err(error.clone()));
                assert_eq!(ended.await, Some(error));
            } else {
                assert_eq!(ended.await, Some(error.clone()));
                assert_eq!(read.await, Err(error));
            }
        }
    }

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
