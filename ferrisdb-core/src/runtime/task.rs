//! Tasks that end when their owner does.

use std::future::Future;

use parking_lot::Mutex;

/// A running task. Dropping it ends the task at its next wait.
#[derive(Debug)]
#[must_use = "dropping a task ends it"]
pub struct Task(Option<tokio::task::JoinHandle<()>>);

impl Task {
    /// Lets the task run on without an owner, until it ends by itself.
    pub fn detach(mut self) {
        self.0 = None;
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|handle| handle.is_finished())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

/// Starts a task.
#[cfg_attr(not(madsim), expect(clippy::disallowed_methods, reason = "this is the door"))]
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(Some(tokio::task::spawn(future)))
}

/// Lets other tasks run that are ready, and then goes on.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

/// Runs a closure that blocks, such as a disk operation, without holding up other tasks.
///
/// # Panics
///
/// If the closure panics.
#[cfg_attr(not(madsim), expect(clippy::disallowed_methods, reason = "this is the door"))]
pub async fn blocking<T: Send + 'static>(closure: impl FnOnce() -> T + Send + 'static) -> T {
    #[cfg(not(madsim))]
    match tokio::task::spawn_blocking(closure).await.map_err(|error| error.try_into_panic()) {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down and has not begun the operation. It ends this task, too: nobody is
        // left to tell, and a panic now would make an orderly end look like a defect.
        Err(Err(_cancelled)) => std::future::pending().await,
    }
    // A simulation has one thread: the closure runs in place, and virtual time stands still meanwhile. What it
    // is on may be slow, though: then it runs half way through that time, and also if nobody waits for it any more.
    #[cfg(madsim)]
    {
        let Some([before, after]) = waits::of_this_task() else { return closure() };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let running = async move {
            before.await;
            let value = closure();
            after.await;
            // Whoever has gone needs no answer.
            let _ = sender.send(value);
        };
        spawn(running).detach();
        match receiver.await {
            Ok(value) => value,
            // The closure has panicked, which ends the simulation, or its process was killed.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(madsim)]
pub use waits::wait_in_blocking;

/// How long blocking operations of a simulation take.
#[cfg(madsim)]
mod waits {
    use std::{cell::RefCell, rc::Rc};

    use futures::future::BoxFuture;

    /// What is waited for before an operation, and after it.
    type Waits = [BoxFuture<'static, ()>; 2];

    type Asked = Rc<dyn Fn() -> Option<Waits>>;

    thread_local! {
        static WAITS: RefCell<Option<Asked>> = const { RefCell::new(None) };
    }

    /// Lets the simulation of this thread say how long each blocking operation takes. `waits` is asked by the task
    /// that has one; `None` is no time at all.
    pub fn wait_in_blocking(waits: impl Fn() -> Option<Waits> + 'static) {
        WAITS.set(Some(Rc::new(waits)));
    }

    pub(super) fn of_this_task() -> Option<Waits> {
        let waits = WAITS.with_borrow(Clone::clone);
        waits.and_then(|waits| waits())
    }
}

/// Tasks of one owner, which end together with it.
#[derive(Debug, Default)]
pub struct TaskGroup(Mutex<Vec<Task>>);

impl TaskGroup {
    /// Starts a task of the group.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let task = spawn(future);
        let mut tasks = self.0.lock();
        // Finished tasks are dropped now and then, so that a group of short ones stays small.
        if tasks.len() == tasks.capacity() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }

    /// How many tasks have not ended.
    pub fn running(&self) -> usize {
        let mut tasks = self.0.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.len()
    }

    /// Ends all tasks at their next wait.
    pub fn abort_all(&self) {
        let tasks = std::mem::take(&mut *self.0.lock());
        drop(tasks); // not under the lock
    }
}
