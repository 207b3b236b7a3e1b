//! How long what belongs to an attempt may take: one shared value, which all that waits follows.
//!
//! ```text
//!   get(k)              waits . . . . . . . . . . . . . transaction_timed_out
//!   set_option(Timeout)        ^ moves the deadline: whatever waits already looks at it again
//!
//!   get(k)              waits . . . . . transaction_cancelled
//!   reset, cancel                     ^ the attempt is over, and with it all its reads
//! ```
//!
//! A commit on its way follows the deadline only: cancelling does not call it back.

use std::{future::Future, sync::Arc};

use ferrisdb_core::{
    Result,
    runtime::{self, Instant},
    simulation::{Plant, planted},
};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{cancelled, timed_out};

/// The deadline of one attempt, and whether the attempt is over.
#[derive(Debug)]
pub(super) struct Timer {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    deadline: Option<Instant>,
    is_over: bool,
}

/// What ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    DeadlineAndAttempt,
    Deadline,
}

impl Timer {
    /// The timer of a new attempt.
    pub(super) fn new(deadline: Option<Instant>) -> Arc<Timer> {
        let state = Mutex::new(State { deadline, is_over: false });
        Arc::new(Timer { state, changed: Notify::new() })
    }

    /// Moves the deadline.
    pub(super) fn set(&self, deadline: Option<Instant>) {
        let earlier = std::mem::replace(&mut self.state.lock().deadline, deadline);
        if earlier != deadline && !planted(Plant::DeafToTimeout) {
            self.changed.notify_waiters();
        }
    }

    /// The attempt is over: its reads fail.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_waiters();
    }

    /// Waits for `future`, but not past the deadline, nor past the end of the attempt.
    ///
    /// In a box: what waits around it would have room for `future` once for each function that it passes through.
    pub(super) fn within<'a, T: 'a>(
        &'a self,
        future: impl Future<Output = Result<T>> + Send + 'a,
    ) -> impl Future<Output = Result<T>> + Send + 'a {
        self.follow(Follows::DeadlineAndAttempt, future.boxed())
    }

    /// Waits for `future`, but not past the deadline; in a box as well.
    pub(super) fn in_time<'a, T: 'a>(
        &'a self,
        future: impl Future<Output = Result<T>> + Send + 'a,
    ) -> impl Future<Output = Result<T>> + Send + 'a {
        self.follow(Follows::Deadline, future.boxed())
    }

    async fn follow<T>(&self, follows: Follows, mut future: BoxFuture<'_, Result<T>>) -> Result<T> {
        loop {
            // Made before the look: it hears of every change after that.
            let changed = self.changed.notified();
            let State { deadline, is_over } = *self.state.lock();
            if is_over && follows == Follows::DeadlineAndAttempt {
                return Err(cancelled());
            }
            let time_is_over = async {
                match deadline {
                    Some(deadline) => {
                        runtime::sleep(deadline.saturating_duration_since(runtime::now())).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                result = &mut future => return result,
                () = changed => {}
                () = time_is_over => return Err(timed_out()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use ferrisdb_core::ErrorCode;

    async fn never() -> Result<()> {
        std::future::pending().await
    }

    #[tokio::test]
    async fn what_waits_follows_the_deadline() {
        let timer = Timer::new(None);
        let mut waits = Box::pin(timer.within(never()));
        assert!((&mut waits).now_or_never().is_none());
        timer.set(Some(runtime::now() + Duration::from_secs(3_600)));
        assert!((&mut waits).now_or_never().is_none());
        timer.set(Some(runtime::now()));
        assert_eq!(waits.await.unwrap_err().code(), ErrorCode::TransactionTimedOut);
    }

    #[tokio::test]
    async fn reads_end_with_their_attempt_and_commits_do_not() {
        let timer = Timer::new(None);
        let mut reads = Box::pin(timer.within(never()));
        let mut commits = Box::pin(timer.in_time(never()));
        assert!((&mut reads).now_or_never().is_none());
        assert!((&mut commits).now_or_never().is_none());
        timer.end();
        assert_eq!(reads.await.unwrap_err().code(), ErrorCode::TransactionCancelled);
        assert!((&mut commits).now_or_never().is_none());
        timer.set(Some(runtime::now()));
        assert_eq!(commits.await.unwrap_err().code(), ErrorCode::TransactionTimedOut);
    }
}
