//! Results of the C interface in the simulation: what `FDBFuture` is to programs.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ferrisdb_core::runtime::{self, Task};
use ferrisdb_fdb::{
    Ended, Promise,
    errors::{self, Code},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A result that is there, or will be.
pub(super) struct Promised {
    state: Mutex<State>,
    completed: Notify,
}

#[derive(Default)]
struct State {
    result: Option<Ended>,
    task: Option<Task>,
}

impl Promised {
    fn complete(&self, result: Ended) {
        let task = {
            let mut state = self.state.lock();
            state.result.get_or_insert(result);
            state.task.take()
        };
        self.completed.notify_waiters();
        // Ends work that has not ended; not under the lock, as that may run into it.
        drop(task);
    }

    /// The result, as soon as it is there.
    pub(super) async fn wait(&self) -> Ended {
        loop {
            let completed = self.completed.notified();
            if let Some(result) = self.state.lock().result.clone() {
                return result;
            }
            completed.await;
        }
    }
}

impl Promise for Promised {
    fn ready(result: Ended) -> Arc<Promised> {
        let state = State { result: Some(result), task: None };
        Arc::new(Promised { state: Mutex::new(state), completed: Notify::new() })
    }

    fn start(work: impl Future<Output = Ended> + Send + 'static) -> Arc<Promised> {
        let mut work: Pin<Box<dyn Future<Output = Ended> + Send>> = Box::pin(work);
        if let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Promised::ready(result);
        }
        let promised = Arc::new(Promised { state: Mutex::default(), completed: Notify::new() });
        // Not the promise itself: a program that forgets it ends the work, as `fdb_future_destroy` does.
        let completes = Arc::downgrade(&promised);
        let task = runtime::spawn(async move {
            let result = work.await;
            if let Some(promised) = completes.upgrade() {
                promised.complete(result);
            }
        });
        promised.state.lock().task = Some(task);
        promised
    }

    fn fail(self: &Arc<Self>, code: Code) {
        self.complete(Err(code));
    }

    fn is_ready(&self) -> bool {
        self.state.lock().result.is_some()
    }

    async fn completed(self: Arc<Self>) {
        drop(self.wait().await);
    }

    fn error(&self) -> Result<(), Code> {
        match &self.state.lock().result {
            None => Err(errors::FUTURE_NOT_SET),
            Some(result) => result.as_ref().map(drop).map_err(|code| *code),
        }
    }
}
