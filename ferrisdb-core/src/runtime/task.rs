//! Tasks that end when their owner does.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use parking_lot::Mutex;

/// How long to wait before a task is begun again that has ended although it should not.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// A running task. Dropping it ends the task at its next wait; of one that runs apart, that is awaited.
#[derive(Debug)]
#[must_use = "dropping a task ends it"]
pub struct Task(Option<Running>);

#[derive(Debug)]
enum Running {
    InRuntime(tokio::task::JoinHandle<()>),
    #[cfg(not(madsim))]
    Apart(apart::Thread),
}

impl Task {
    /// Lets the task run on without an owner, until it ends by itself.
    pub fn detach(mut self) {
        self.0 = None;
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            None => true,
            Some(Running::InRuntime(handle)) => handle.is_finished(),
            #[cfg(not(madsim))]
            Some(Running::Apart(thread)) => thread.is_finished(),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        match self.0.take() {
            None => {}
            Some(Running::InRuntime(handle)) => handle.abort(),
            #[cfg(not(madsim))]
            Some(Running::Apart(thread)) => thread.end(),
        }
    }
}

/// Starts a task.
#[cfg_attr(not(madsim), expect(clippy::disallowed_methods, reason = "this is the door"))]
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(Some(Running::InRuntime(tokio::task::spawn(future))))
}

/// Starts a task that goes on for as long as its owner lives, such as one that follows something. Should it end, or panic in a
/// process that goes on after panics, that is an error in the log, and it is begun again: whoever depends on it waits no longer
/// than that (I-17).
pub fn keep_running<F>(name: &'static str, mut run: impl FnMut() -> F + Send + 'static) -> Task
where
    F: Future<Output = ()> + Send + 'static,
{
    spawn(async move {
        loop {
            let ended = AssertUnwindSafe(run()).catch_unwind().await;
            // In a simulation a panic is what was looked for.
            #[cfg(madsim)]
            let ended: Result<(), ()> = ended.map_err(|panic| std::panic::resume_unwind(panic));
            let has_panicked = ended.is_err();
            tracing::error!(
                name,
                has_panicked,
                "a task has ended that should not: it is begun again"
            );
            super::sleep(RESTART_PAUSE).await;
        }
    })
}

/// Starts a task that is often busy on a thread of its own, with that name: others need not wait until it waits. What blocks it
/// does in place. Nobody may drop it while he holds what the task needs to get to its next wait. If no thread is to be had, it is
/// a task like others.
#[cfg_attr(madsim, expect(unused_variables, reason = "a simulation has one thread"))]
pub fn spawn_apart(name: &str, future: impl Future<Output = ()> + Send + 'static) -> Task {
    #[cfg(not(madsim))]
    return match apart::Thread::start(name) {
        Ok(idle) => Task(Some(Running::Apart(idle.run(Box::pin(future))))),
        Err(error) => {
            tracing::warn!(name, %error, "no thread for a task, which runs among others");
            spawn(future)
        }
    };
    #[cfg(madsim)]
    spawn(future)
}

/// Threads with one task.
#[cfg(not(madsim))]
mod apart {
    use std::{cell::Cell, io, sync::mpsc, thread};

    use futures::future::BoxFuture;
    use tokio::sync::oneshot;

    thread_local! {
        static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether this thread holds up nobody when it blocks.
    pub(super) fn may_block() -> bool {
        MAY_BLOCK.get()
    }

    /// A thread that runs a task.
    #[derive(Debug)]
    pub(super) struct Thread {
        handle: thread::JoinHandle<()>,
        end: Option<oneshot::Sender<()>>,
    }

    /// A thread that waits for its task.
    pub(super) struct Idle {
        thread: Thread,
        task: mpsc::Sender<BoxFuture<'static, ()>>,
    }

    impl Thread {
        pub(super) fn start(name: &str) -> io::Result<Idle> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (task, tasks) = mpsc::channel::<BoxFuture<'static, ()>>();
            let (end, ended) = oneshot::channel();
            let ended = async {
                // A sender that is dropped lets the task run on.
                if ended.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let run = move || {
                MAY_BLOCK.set(true);
                let Ok(task) = tasks.recv() else { return };
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = ended => {}
                        () = task => {}
                    }
                });
            };
            let handle = thread::Builder::new().name(name.to_owned()).spawn(run)?;
            Ok(Idle { thread: Thread { handle, end: Some(end) }, task })
        }

        pub(super) fn is_finished(&self) -> bool {
            self.handle.is_finished()
        }

        /// Returns when the thread is gone: a process that ends must not have one left that still closes files.
        pub(super) fn end(mut self) {
            // One that has ended by itself does not hear it.
            let _ = self.end.take().map(|end| end.send(()));
            // Unless it is the task itself that has let go of its owner.
            if self.handle.thread().id() != thread::current().id() {
                // A panic has been reported when it happened.
                let _ = self.handle.join();
            }
        }
    }

    impl Idle {
        pub(super) fn run(self, task: BoxFuture<'static, ()>) -> Thread {
            // The thread waits for nothing else.
            let _ = self.task.send(task);
            self.thread
        }
    }
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
    if apart::may_block() {
        return closure();
    }
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
        let Some([before, after]) = waits::of_this_task() else {
            let (value, worked) = super::work::in_blocking(closure);
            if !worked.is_zero() {
                super::sleep(worked).await;
            }
            return value;
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let running = async move {
            before.await;
            let (value, worked) = super::work::in_blocking(closure);
            after.await;
            if !worked.is_zero() {
                super::sleep(worked).await;
            }
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
        self.add(spawn(future));
    }

    /// Takes a task into the group.
    pub fn add(&self, task: Task) {
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

#[cfg(all(test, not(madsim)))]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_task_apart_blocks_in_place_and_ends_with_its_owner() {
        let (sender, receiver) = oneshot::channel();
        let (dropped, mut is_dropped) = oneshot::channel::<()>();
        let task = spawn_apart("apart", async move {
            let _dropped = dropped;
            let own = std::thread::current().id();
            let of_blocking = blocking(|| std::thread::current().id()).await;
            let name = std::thread::current().name().map(str::to_owned);
            let _ = sender.send((own == of_blocking, name));
            std::future::pending::<()>().await;
        });
        let (in_place, name) = receiver.await.unwrap();
        assert!(in_place);
        assert_eq!(name.as_deref(), Some("apart"));
        assert!(!task.is_finished());
        drop(task);
        let has_gone = matches!(is_dropped.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(has_gone, "the future is dropped by now, and with it what it holds");
    }

    #[tokio::test]
    async fn a_task_that_should_not_end_is_begun_again() {
        let (sender, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let mut times = 0;
        let task = keep_running("a test", move || {
            times += 1;
            let (sender, times) = (sender.clone(), times);
            async move {
                sender.send(times).unwrap();
                match times {
                    1 => panic!("once"),
                    2 => {}
                    _ => std::future::pending().await,
                }
            }
        });
        for expected in 1..=3 {
            assert_eq!(begun.recv().await, Some(expected));
        }
        drop(task);
        assert_eq!(begun.recv().await, None, "it ends with its owner");
    }

    #[tokio::test]
    async fn a_detached_task_apart_runs_on() {
        let (go, gone) = oneshot::channel::<()>();
        let (sender, receiver) = oneshot::channel();
        let running = async move {
            gone.await.unwrap();
            let _ = sender.send(());
        };
        spawn_apart("apart", running).detach();
        go.send(()).unwrap();
        receiver.await.unwrap();
    }
}
