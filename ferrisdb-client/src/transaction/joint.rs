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
//!
//! It is polled under a lock of its own, and wakes under it. So it must not poll itself, and whoever polls it holds no lock that it
//! takes.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;

/// Hears once how a [`Joint`] has ended.
pub(super) trait OnEnd<T>: Send + Sync {
    /// Before anybody else hears of it, and under its lock: with what has come out, or nothing if it has panicked.
    fn on_end(&self, output: Option<&T>);
}

impl<T> OnEnd<T> for () {
    fn on_end(&self, _: Option<&T>) {}
}

/// A future that several may poll, each with a [`Seat`].
pub(super) struct Joint<T, O = ()> {
    state: Mutex<State<T>>,
    seats: AtomicUsize,
    /// Whoever hears of its end.
    pub(super) listener: O,
}

struct State<T> {
    /// In a box without a type, as all that asks the network: or the types of futures nest so deep that a program with a few
    /// functions around its reads reaches the compiler's limits, of layouts and of what may move between threads. Until it has ended,
    /// or panicked.
    future: Option<BoxFuture<'static, T>>,
    /// From then on.
    output: Option<T>,
    wakers: Wakers,
}

/// Who has to be woken.
enum Wakers {
    Nobody,
    One(usize, Waker),
    Several(Arc<Pollers>, Waker),
}

/// Wakes all who have polled since it has woken them last.
struct Pollers(Mutex<BTreeMap<usize, Waker>>);

impl Wake for Pollers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock());
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<T, O: OnEnd<T>> Joint<T, O> {
    /// Nobody polls it yet.
    pub(super) fn new(
        future: impl Future<Output = T> + Send + 'static,
        listener: O,
    ) -> Arc<Joint<T, O>> {
        let future = Some(future.boxed());
        let state = Mutex::new(State { future, output: None, wakers: Wakers::Nobody });
        Arc::new(Joint { state, seats: AtomicUsize::new(0), listener })
    }

    /// What has come out, if it has ended: none if it has panicked, or if that was taken.
    pub(super) fn with_output<R>(&self, with: impl FnOnce(&mut Option<T>) -> R) -> R {
        with(&mut self.state.lock().output)
    }

    fn poll(&self, seat: usize, context: &mut Context<'_>) -> Poll<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(mut future) = state.future.take() else { return Poll::Ready(()) };
        let stale = state.wakers.note(seat, context.waker());
        let polled = catch_unwind(AssertUnwindSafe(|| match &state.wakers {
            Wakers::Several(_, all) => future.as_mut().poll(&mut Context::from_waker(all)),
            _ => future.as_mut().poll(context),
        }));
        let panic = match polled {
            Ok(Poll::Pending) => {
                state.future = Some(future);
                drop(guard);
                drop(stale); // not under the lock: with some executors a task ends here, and all that it waits for
                return Poll::Pending;
            }
            Ok(Poll::Ready(output)) => {
                state.output = Some(output);
                None
            }
            Err(panic) => Some(panic),
        };
        self.listener.on_end(state.output.as_ref());
        let wakers = std::mem::replace(&mut state.wakers, Wakers::Nobody);
        drop(guard);
        drop((future, stale));
        wakers.wake_all_but(seat);
        match panic {
            Some(panic) => resume_unwind(panic),
            None => Poll::Ready(()),
        }
    }
}

impl Wakers {
    /// Notes who polls. Returns the waker that it had before, if that is another one.
    fn note(&mut self, seat: usize, waker: &Waker) -> Option<Waker> {
        let renewed = |known: &mut Waker| {
            (!known.will_wake(waker)).then(|| std::mem::replace(known, waker.clone()))
        };
        match self {
            Wakers::Nobody => *self = Wakers::One(seat, waker.clone()),
            Wakers::One(known, before) if *known == seat => return renewed(before),
            Wakers::One(known, before) => {
                let both = BTreeMap::from([(*known, before.clone()), (seat, waker.clone())]);
                let pollers = Arc::new(Pollers(Mutex::new(both)));
                let all = Waker::from(Arc::clone(&pollers));
                *self = Wakers::Several(pollers, all);
            }
            Wakers::Several(pollers, _) => {
                let mut pollers = pollers.0.lock();
                return renewed(pollers.entry(seat).or_insert_with(|| waker.clone()));
            }
        }
        None
    }

    /// Forgets one of them, and returns what it was.
    fn remove(&mut self, seat: usize) -> Option<Waker> {
        match std::mem::replace(self, Wakers::Nobody) {
            Wakers::One(known, waker) if known == seat => Some(waker),
            Wakers::Several(pollers, all) => {
                let removed = pollers.0.lock().remove(&seat);
                *self = Wakers::Several(pollers, all);
                removed
            }
            others => {
                *self = others;
                None
            }
        }
    }

    fn wake_all_but(self, seat: usize) {
        match self {
            Wakers::One(known, waker) if known != seat => waker.wake(),
            Wakers::Several(pollers, _) => {
                let mut wakers = std::mem::take(&mut *pollers.0.lock());
                wakers.remove(&seat);
                wakers.into_values().for_each(Waker::wake);
            }
            _ => {}
        }
    }
}

/// One who may poll a [`Joint`]: ready when that has ended.
///
/// # Panics
///
/// When polled, if the joint future does, for one of those who poll.
pub(super) struct Seat<T, O: OnEnd<T>> {
    joint: Arc<Joint<T, O>>,
    number: usize,
    has_ended: bool,
}

impl<T, O: OnEnd<T>> Seat<T, O> {
    /// It has not polled yet.
    pub(super) fn of(joint: &Arc<Joint<T, O>>) -> Seat<T, O> {
        let number = joint.seats.fetch_add(1, Ordering::Relaxed);
        Seat { joint: Arc::clone(joint), number, has_ended: false }
    }
}

impl<T, O: OnEnd<T>> Future for Seat<T, O> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let polled = self.joint.poll(self.number, context);
        self.has_ended = polled.is_ready();
        polled
    }
}

impl<T, O: OnEnd<T>> Drop for Seat<T, O> {
    fn drop(&mut self) {
        if !self.has_ended {
            let removed = self.joint.state.lock().wakers.remove(self.number);
            drop(removed); // not under the lock, as in `poll`
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often it wakes.
    #[derive(Default)]
    pub(in crate::transaction) struct Bell(AtomicUsize);

    impl Bell {
        pub(in crate::transaction) fn rings(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }

        fn polls(self: &Arc<Self>, seat: &mut Seat<u8, ()>) -> Poll<()> {
            Pin::new(seat).poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
        }
    }

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    type One = (Seat<u8, ()>, Arc<Bell>);

    fn joint() -> (oneshot::Sender<u8>, Arc<Joint<u8>>, One, One) {
        let (answer, answered) = oneshot::channel::<u8>();
        let joint = Joint::new(async { answered.await.expect("planned: no answer") }, ());
        let [a, b] = [Seat::of(&joint), Seat::of(&joint)];
        (answer, joint, (a, Arc::default()), (b, Arc::default()))
    }

    #[test]
    fn all_who_poll_are_woken_by_the_answer() {
        for a_polls_last in [false, true] {
            let (answer, joint, (mut a, bell_a), (mut b, bell_b)) = joint();
            assert!(bell_a.polls(&mut a).is_pending());
            assert!(bell_b.polls(&mut b).is_pending());
            if a_polls_last {
                assert!(bell_a.polls(&mut a).is_pending());
            }
            answer.send(7).unwrap();
            assert!(bell_a.rings() > 0 && bell_b.rings() > 0, "{a_polls_last}");
            assert!(bell_a.polls(&mut a).is_ready() && bell_b.polls(&mut b).is_ready());
            assert_eq!(joint.with_output(Option::take), Some(7));
        }
    }

    #[test]
    fn whoever_leaves_last_takes_nobodys_turn() {
        let (answer, _joint, (mut a, bell_a), (mut b, bell_b)) = joint();
        assert!(bell_a.polls(&mut a).is_pending());
        assert!(bell_b.polls(&mut b).is_pending());
        drop(b);
        answer.send(7).unwrap();
        assert!(bell_a.rings() > 0);
        assert_eq!(bell_b.rings(), 0, "it has gone");
        assert!(bell_a.polls(&mut a).is_ready());
    }

    #[test]
    fn a_new_waker_takes_the_place_of_the_one_before() {
        for b_comes_later in [false, true] {
            let (answer, _joint, (mut a, before), (mut b, bell_b)) = joint();
            let after = Arc::<Bell>::default();
            if !b_comes_later {
                assert!(bell_b.polls(&mut b).is_pending());
            }
            assert!(before.polls(&mut a).is_pending());
            assert!(after.polls(&mut a).is_pending());
            if b_comes_later {
                assert!(bell_b.polls(&mut b).is_pending());
            }
            answer.send(7).unwrap();
            assert_eq!((before.rings(), after.rings()), (0, 1), "{b_comes_later}");
        }
    }

    #[test]
    fn whoever_finds_the_answer_wakes_the_others() {
        let (answer, _joint, (mut a, bell_a), (mut b, bell_b)) = joint();
        assert!(bell_a.polls(&mut a).is_pending());
        answer.send(7).unwrap();
        let rings = bell_a.rings();
        assert!(bell_b.polls(&mut b).is_ready());
        assert!(bell_a.rings() > rings);
        assert_eq!(bell_b.rings(), 0, "it knows");
    }

    /// The waker of an executor whose tasks live as long as somebody may wake them.
    pub(in crate::transaction) struct Task<F> {
        _waits_for: Mutex<F>,
    }

    impl<F: Send + 'static> Task<F> {
        pub(in crate::transaction) fn waker(waits_for: F) -> Waker {
            Waker::from(Arc::new(Task { _waits_for: Mutex::new(waits_for) }))
        }
    }

    impl<F: Send + 'static> Wake for Task<F> {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_task_that_ends_with_its_last_waker_may_hold_another_seat() {
        for (leaves, both_poll) in [(false, false), (false, true), (true, false), (true, true)] {
            let (_answer, _joint, (mut a, bell), (mut b, _)) = joint();
            if both_poll {
                assert!(bell.polls(&mut b).is_pending());
            }
            let owner = Task::waker(b);
            assert!(Pin::new(&mut a).poll(&mut Context::from_waker(&owner)).is_pending());
            drop(owner);
            match leaves {
                true => drop(a),
                false => assert!(bell.polls(&mut a).is_pending()),
            }
        }
    }

    #[test]
    fn a_panic_is_the_end_for_all() {
        let (answer, joint, (mut a, bell_a), (mut b, bell_b)) = joint();
        assert!(bell_a.polls(&mut a).is_pending());
        drop(answer);
        let rings = bell_a.rings();
        assert!(catch_unwind(AssertUnwindSafe(|| bell_b.polls(&mut b))).is_err());
        assert!(bell_a.rings() > rings);
        assert!(bell_a.polls(&mut a).is_ready());
        assert_eq!(joint.with_output(Option::take), None);
    }
}
