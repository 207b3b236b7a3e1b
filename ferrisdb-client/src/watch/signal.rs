//! How a watch learns that it is over, and how watches are counted.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use ferrisdb_core::{
    Error, ErrorCode, Result, Stage,
    runtime::{self, Instant},
};
use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// What one watch waits for. Counts among the watches of its handle until it is over, or nobody waits any more.
pub(super) struct Signal {
    outcome: OnceLock<Result<()>>,
    /// When the time of its transaction is over, if the watch is not armed by then.
    deadline: Mutex<Option<Instant>>,
    waker: AtomicWaker,
    outstanding: Arc<AtomicUsize>,
    is_counted: AtomicBool,
}

impl Signal {
    /// A signal that has not been given.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TooManyWatches`] if `max` are outstanding already.
    pub(super) fn new(outstanding: &Arc<AtomicUsize>, max: usize) -> Result<Arc<Signal>> {
        let one_more = |count| (count < max).then_some(count + 1);
        outstanding.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).map_err(
            |count| {
                let detail = format!("{count} are waiting, {max} are allowed");
                Error::new(ErrorCode::TooManyWatches, Stage::Client, detail)
            },
        )?;
        Ok(Arc::new(Signal {
            outcome: OnceLock::new(),
            deadline: Mutex::default(),
            waker: AtomicWaker::new(),
            outstanding: Arc::clone(outstanding),
            is_counted: AtomicBool::new(true),
        }))
    }

    /// Gives the signal, unless it was given before.
    pub(super) fn give(&self, outcome: Result<()>) {
        if self.outcome.set(outcome).is_ok() {
            if self.is_counted.swap(false, Ordering::AcqRel) {
                self.outstanding.fetch_sub(1, Ordering::AcqRel);
            }
            self.waker.wake();
        }
    }

    /// Lets whoever waits look again.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Until when the watch has to be armed; `None` if it is, or may take its time.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        let earlier = std::mem::replace(&mut *self.deadline.lock(), deadline);
        // Whoever waits has to set another alarm.
        if earlier != deadline {
            self.waker.wake();
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock()
    }

    /// Whether the watch cannot be armed in time any more.
    pub(super) fn is_late(&self) -> bool {
        self.deadline().is_some_and(|deadline| runtime::now() >= deadline)
    }

    pub(super) fn outcome(&self) -> Option<&Result<()>> {
        self.outcome.get()
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        // Registered before the look, so that a signal in between is not missed.
        self.waker.register(context.waker());
        self.outcome.get().map_or(Poll::Pending, |outcome| Poll::Ready(outcome.clone()))
    }
}
