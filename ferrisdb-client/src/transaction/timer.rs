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

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ferrisdb_core::{
    Result,
    runtime::{self, Instant},
    simulation::{Plant, planted},
};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use slab::Slab;

use super::{cancelled, timed_out};

/// The deadline of one attempt, and whether the attempt is over.
#[derive(Debug)]
pub(super) struct Timer {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    deadline: Option<Instant>,
    is_over: bool,
    /// Of all that waits.
    wakers: Slab<Waker>,
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
        let state = Mutex::new(State { deadline, is_over: false, wakers: Slab::new() });
        Arc::new(Timer { state })
    }

    /// Moves the deadline.
    pub(super) fn set(&self, deadline: Option<Instant>) {
        let earlier = std::mem::replace(&mut self.state.lock().deadline, deadline);
        if earlier != deadline {
            self.wake_all();
        }
    }

    /// The attempt is over: its reads fail.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.wake_all();
    }

    fn wake_all(&self) {
        // Not under the lock: whoever is woken may look at once.
        let wakers: Vec<Waker> =
            self.state.lock().wakers.iter().map(|(_, waker)| waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for `future`, but not past the deadline, nor past the end of the attempt.
    pub(super) fn within<F>(&self, future: F) -> Following<'_, F> {
        self.follow(Follows::DeadlineAndAttempt, future)
    }

    /// Waits for `future`, but not past the deadline.
    pub(super) fn in_time<F>(&self, future: F) -> Following<'_, F> {
        self.follow(Follows::Deadline, future)
    }

    fn follow<F>(&self, follows: Follows, future: F) -> Following<'_, F> {
        let place = Place { timer: self, number: None };
        Following { future, follows, place, deadline: None, time_is_over: None }
    }
}

pin_project! {
    /// A wait that follows a [`Timer`].
    ///
    /// By hand: an `async fn` would have room for its future twice, and what tokio has for such waits counts against the budget of
    /// a task that waits for many at once.
    pub(super) struct Following<'a, F> {
        #[pin]
        future: F,
        follows: Follows,
        place: Place<'a>,
        // The deadline that `time_is_over` waits for.
        deadline: Option<Instant>,
        time_is_over: Option<BoxFuture<'static, ()>>,
    }
}

/// Where the timer finds the waker of one who waits.
struct Place<'a> {
    timer: &'a Timer,
    number: Option<usize>,
}

impl<T, F: Future<Output = Result<T>>> Future for Following<'_, F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = self.project();
        let is_bound = *this.follows == Follows::DeadlineAndAttempt;
        let is_first = this.place.number.is_none();
        if is_first && is_bound && this.place.timer.state.lock().is_over {
            return Poll::Ready(Err(cancelled()));
        }
        if let Poll::Ready(result) = this.future.poll(context) {
            return Poll::Ready(result);
        }
        // After that: a change that came meanwhile is seen here, of a later one it hears.
        let (deadline, is_over) = this.place.look(context.waker());
        if is_over && is_bound {
            return Poll::Ready(Err(cancelled()));
        }
        if deadline != *this.deadline && (is_first || !planted(Plant::DeafToTimeout)) {
            *this.deadline = deadline;
            *this.time_is_over = deadline.map(|deadline| {
                runtime::sleep(deadline.saturating_duration_since(runtime::now())).boxed()
            });
        }
        match this.time_is_over {
            Some(time_is_over) => time_is_over.poll_unpin(context).map(|()| Err(timed_out())),
            None => Poll::Pending,
        }
    }
}

impl Place<'_> {
    /// The deadline, and whether the attempt is over; later changes wake.
    fn look(&mut self, waker: &Waker) -> (Option<Instant>, bool) {
        let mut stale = None;
        let mut state = self.timer.state.lock();
        match self.number {
            Some(number) if state.wakers[number].will_wake(waker) => {}
            Some(number) => {
                stale = Some(std::mem::replace(&mut state.wakers[number], waker.clone()));
            }
            None => self.number = Some(state.wakers.insert(waker.clone())),
        }
        let seen = (state.deadline, state.is_over);
        drop(state);
        drop(stale); // not under the lock: with some executors a task ends here, and all that it waits for
        seen
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.timer.state.lock().wakers.remove(number);
            drop(waker); // not under the lock
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::joint::tests::{Bell, Task},
        *,
    };
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

    #[test]
    fn whoever_polled_last_is_woken_and_whoever_has_left_is_forgotten() {
        let timer = Timer::new(None);
        let bells = [Arc::<Bell>::default(), Arc::default(), Arc::default()];
        let mut waits = Box::pin(timer.within(never()));
        let mut leaves = Box::pin(timer.in_time(never()));
        let wakers = bells.each_ref().map(|bell| Waker::from(Arc::clone(bell)));
        for waker in &wakers[..2] {
            assert!(waits.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        }
        assert!(leaves.as_mut().poll(&mut Context::from_waker(&wakers[2])).is_pending());
        drop(leaves);
        timer.end();
        let rings = bells.each_ref().map(|bell| bell.rings());
        assert_eq!(rings, [0, 1, 0]);
        assert!(waits.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_ready());
        drop(waits);
        assert!(timer.state.lock().wakers.is_empty());
    }

    #[test]
    fn a_task_that_ends_with_its_last_waker_may_wait_as_well() {
        for leaves in [false, true] {
            let timer: &Timer = Box::leak(Box::new(Timer::new(None)));
            let mut other = Box::pin(timer.within(never()));
            assert!(other.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            let owner = Task::waker(other);
            let mut waits = Box::pin(timer.within(never()));
            assert!(waits.as_mut().poll(&mut Context::from_waker(&owner)).is_pending());
            drop(owner);
            match leaves {
                true => drop(waits),
                false => {
                    let renewed = waits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    assert!(renewed.is_pending());
                }
            }
        }
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
