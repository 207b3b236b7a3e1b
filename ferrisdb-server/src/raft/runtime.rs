//! The consensus library's view of the runtime: each of its wishes, led to one of our doors.
//!
//! Written against [`ferrisdb_core::runtime`] alone, so a simulation owns its tasks, timers and election
//! timeouts as it owns everybody else's.

use std::{
    future::Future,
    ops::{Add, AddAssign, Sub, SubAssign},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use ferrisdb_core::runtime;
use openraft::{AsyncRuntime, OptionalSend, async_runtime::TokioOneShotSender};
use rand_core::RngCore;
use tokio::sync::oneshot;

/// The doors.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Doors;

/// A timer.
type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl AsyncRuntime for Doors {
    type JoinError = oneshot::error::RecvError;
    type JoinHandle<T: OptionalSend + 'static> = oneshot::Receiver<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Randomness;
    type OneshotSender<T: OptionalSend> = TokioOneShotSender<T>;
    type OneshotReceiver<T: OptionalSend> = oneshot::Receiver<T>;
    type OneshotReceiverError = oneshot::error::RecvError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (done, join) = oneshot::channel();
        // The library ends its tasks by closing their channels, and does not keep the handles of all of them.
        runtime::spawn(async move {
            let _ = done.send(future.await);
        })
        .detach();
        join
    }

    fn sleep(duration: Duration) -> Sleep {
        Box::pin(runtime::sleep(duration))
    }

    fn sleep_until(deadline: Moment) -> Sleep {
        Self::sleep(deadline.until_then())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Moment,
        future: F,
    ) -> Timeout<F> {
        Self::timeout(deadline.until_then(), future)
    }

    fn is_panic(_: &Self::JoinError) -> bool {
        // Nobody aborts these tasks: one that ends without its output has panicked.
        true
    }

    fn thread_rng() -> Randomness {
        Randomness
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (TokioOneShotSender(sender), receiver)
    }
}

/// An instant of the runtime's clock. The library's own type would read a clock beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(runtime::Instant);

impl Moment {
    /// How long it is until then.
    fn until_then(self) -> Duration {
        self.0.saturating_duration_since(runtime::now())
    }
}

impl openraft::Instant for Moment {
    fn now() -> Moment {
        Moment(runtime::now())
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, after: Duration) -> Moment {
        Moment(self.0 + after)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, after: Duration) {
        self.0 += after;
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, before: Duration) -> Moment {
        Moment(self.0 - before)
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, before: Duration) {
        self.0 -= before;
    }
}

/// A future that ends when its time is over.
pub(super) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

/// The time was over first.
#[derive(Debug, thiserror::Error)]
#[error("the time is over")]
pub(super) struct Elapsed;

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        self.sleep.as_mut().poll(context).map(|()| Err(Elapsed))
    }
}

/// The runtime's randomness, which draws the election timeouts.
pub(super) struct Randomness;

impl RngCore for Randomness {
    fn next_u32(&mut self) -> u32 {
        (runtime::random_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        runtime::random_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&runtime::random_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}
