//! A future that several may poll: whoever does goes on with it, for all.
//!
//! ```text
//!   a    polls it, is woken, ...            and may stop polling at any time
//!   b              polls it as well         from here on both are woken: nobody knows which of them will poll again
//!   b                            finds it ready, wakes a
//! ```
//!
//! `Shared` of the futures library does that as well, with two allocations more and a waker of its own, also for a single one who
//! polls: that is what hardly any read needs, and every read would pay.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;

/// A future that several may poll.
pub(super) struct Joint<T>(Mutex<State<T>>);

struct State<T> {
    /// Until it has ended, or panicked.
    future: Option<BoxFuture<'static, T>>,
    /// From then on.
    output: Option<T>,
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl<T> Joint<T> {
    /// Nobody polls it yet.
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Joint<T> {
        let future = Some(future.boxed());
        Joint(Mutex::new(State { future, output: None, first: None, others: Vec::new() }))
    }

    /// Goes on with the future; ready when it has ended. It is polled under a lock of its own.
    ///
    /// `ended` is called by whoever finds it ready, before anybody else hears of that: with its output, or without one if it has
    /// panicked.
    ///
    /// # Panics
    ///
    /// If the future does, once.
    pub(super) fn poll(
        &self,
        context: &mut Context<'_>,
        ended: impl FnOnce(Option<&T>),
    ) -> Poll<()> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let Some(mut future) = state.future.take() else { return Poll::Ready(()) };
        let polled = catch_unwind(AssertUnwindSafe(|| match state.waker(context.waker()) {
            None => future.as_mut().poll(context),
            Some(all) => future.as_mut().poll(&mut Context::from_waker(&all)),
        }));
        let panic = match polled {
            Ok(Poll::Pending) => {
                state.future = Some(future);
                return Poll::Pending;
            }
            Ok(Poll::Ready(output)) => {
                state.output = Some(output);
                None
            }
            Err(panic) => Some(panic),
        };
        ended(state.output.as_ref());
        let wakers = state.first.take().into_iter().chain(std::mem::take(&mut state.others));
        drop(guard);
        drop(future); // not under the lock
        wakers.filter(|waker| !waker.will_wake(context.waker())).for_each(Waker::wake);
        match panic {
            Some(panic) => resume_unwind(panic),
            None => Poll::Ready(()),
        }
    }

    /// What has come out, if it has ended: none if it has panicked, or if that was taken.
    pub(super) fn with_output<R>(&self, with: impl FnOnce(&mut Option<T>) -> R) -> R {
        with(&mut self.0.lock().output)
    }
}

impl<T> State<T> {
    /// Notes who polls. Returns a waker of all who do, unless it is only one.
    fn waker(&mut self, waker: &Waker) -> Option<Waker> {
        match &self.first {
            None => self.first = Some(waker.clone()),
            Some(first) if first.will_wake(waker) => {}
            Some(_) if self.others.iter().any(|known| known.will_wake(waker)) => {}
            Some(_) => self.others.push(waker.clone()),
        }
        if self.others.is_empty() {
            return None;
        }
        Some(Waker::from(Arc::new(All(self.first.iter().chain(&self.others).cloned().collect()))))
    }
}

/// Wakes all of them.
struct All(Vec<Waker>);

impl Wake for All {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.iter().for_each(Waker::wake_by_ref);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often it wakes.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Bell {
        fn rings(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }

        fn polls(self: &Arc<Self>, joint: &Joint<u8>) -> Poll<()> {
            joint.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))), |_| {})
        }
    }

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn joint() -> (oneshot::Sender<u8>, Joint<u8>, Arc<Bell>, Arc<Bell>) {
        let (answer, answered) = oneshot::channel::<u8>();
        let joint = Joint::new(async { answered.await.expect("planned: no answer") });
        (answer, joint, Arc::default(), Arc::default())
    }

    #[test]
    fn all_who_poll_are_woken_by_the_answer() {
        for a_polls_last in [false, true] {
            let (answer, joint, a, b) = joint();
            assert!(a.polls(&joint).is_pending());
            assert!(b.polls(&joint).is_pending());
            if a_polls_last {
                assert!(a.polls(&joint).is_pending());
            }
            answer.send(7).unwrap();
            assert!(a.rings() > 0 && b.rings() > 0, "{a_polls_last}");
            assert!(a.polls(&joint).is_ready() && b.polls(&joint).is_ready());
            assert_eq!(joint.with_output(Option::take), Some(7));
        }
    }

    #[test]
    fn whoever_finds_the_answer_wakes_the_others() {
        let (answer, joint, a, b) = joint();
        assert!(a.polls(&joint).is_pending());
        answer.send(7).unwrap();
        let rings = a.rings();
        assert!(b.polls(&joint).is_ready());
        assert!(a.rings() > rings);
        assert_eq!(b.rings(), 0, "it knows");
    }

    #[test]
    fn a_panic_is_the_end_for_all() {
        let (answer, joint, a, b) = joint();
        assert!(a.polls(&joint).is_pending());
        drop(answer);
        let rings = a.rings();
        assert!(catch_unwind(AssertUnwindSafe(|| b.polls(&joint))).is_err());
        assert!(a.rings() > rings);
        assert!(a.polls(&joint).is_ready());
        assert_eq!(joint.with_output(Option::take), None);
    }
}
