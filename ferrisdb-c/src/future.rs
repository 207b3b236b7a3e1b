//! `FDBFuture`: a result that is there, or will be.
//!
//! ```text
//!   pending --work ends--> complete --released as often as read--> released
//!      |                      ^                                    reads: future_released
//!      +--cancel, destroy-----+
//!         operation_cancelled
//! ```
//!
//! A callback is called once, whichever way the future becomes complete: on the network thread, or at once by whoever registers it
//! on a complete future. No lock is held meanwhile, so it may do anything with the future, destroying it included.

use std::{
    ffi::{CString, c_char, c_int, c_void},
    future::{Future as Work, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use ferrisdb_client::{Key, KeyRange, KeyValue, Value};
use ferrisdb_fdb::{Ended, MappedRow, Output, Promise};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::task::AbortHandle;

use crate::{
    errors::{self, Code},
    handle,
    layout::{FdbGetRange, FdbKey, FdbKeySelector, FdbKeyValue, FdbMappedKeyValue},
    network,
};

/// What the program wants to be called when the future is complete.
pub type Callback = unsafe extern "C" fn(*mut Future, *mut c_void);

/// A result, in the form in which C reads it.
#[derive(Debug)]
enum Laid {
    Void,
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Bool(bool),
    Key(Key),
    Value(Option<Value>),
    Rows(Rows),
    MappedRows(MappedRows),
    Keys(Keys),
    Strings(Strings),
}

impl From<Output> for Laid {
    fn from(output: Output) -> Laid {
        match output {
            Output::Void => Laid::Void,
            Output::Int64(number) => Laid::Int64(number),
            Output::Uint64(number) => Laid::Uint64(number),
            Output::Double(number) => Laid::Double(number),
            Output::Bool(answer) => Laid::Bool(answer),
            Output::Key(key) => Laid::Key(key),
            Output::Value(value) => Laid::Value(value),
            Output::Rows(page) => Laid::Rows(Rows::new(page.rows, page.more)),
            Output::MappedRows { rows, more } => Laid::MappedRows(MappedRows::new(rows, more)),
            Output::Keys(keys) => Laid::Keys(Keys::new(keys)),
            Output::Strings(texts) => Laid::Strings(Strings::new(texts)),
        }
    }
}

/// Rows as C reads them.
#[derive(Debug)]
pub struct Rows {
    rows: Box<[FdbKeyValue]>,
    more: bool,
    _owner: Vec<KeyValue>,
}

/// Rows with the ranges that were made of them, as C reads them.
#[derive(Debug)]
pub struct MappedRows {
    rows: Box<[FdbMappedKeyValue]>,
    more: bool,
    _owner: Vec<LaidRow>,
}

/// A row with what was found in the range that was made of it.
#[derive(Debug)]
struct LaidRow {
    row: KeyValue,
    range: KeyRange,
    found: Rows,
}

/// Keys as C reads them.
#[derive(Debug)]
pub struct Keys {
    keys: Box<[FdbKey]>,
    _owner: Vec<Key>,
}

/// Texts as C reads them.
#[derive(Debug)]
pub struct Strings {
    pointers: Box<[*const c_char]>,
    _owner: Vec<CString>,
}

// SAFETY: the pointers are into what the owner beside them holds on the heap, which never changes.
unsafe impl Send for Rows {}
// SAFETY: as before.
unsafe impl Send for MappedRows {}
// SAFETY: as before.
unsafe impl Send for Keys {}
// SAFETY: as before.
unsafe impl Send for Strings {}

impl Rows {
    /// A part of a range; `more` if there may be more of it.
    pub fn new(owner: Vec<KeyValue>, more: bool) -> Rows {
        let of_row = |row: &KeyValue| FdbKeyValue {
            key: row.key.as_ptr(),
            key_length: length_of(&row.key),
            value: row.value.as_ptr(),
            value_length: length_of(&row.value),
        };
        Rows { rows: owner.iter().map(of_row).collect(), more, _owner: owner }
    }
}

impl MappedRows {
    /// A part of a mapped range; `more` if there may be more of it.
    pub fn new(rows: Vec<MappedRow>, more: bool) -> MappedRows {
        let laid = |mapped: MappedRow| LaidRow {
            row: mapped.row,
            range: mapped.range,
            found: Rows::new(mapped.found, false),
        };
        let owner: Vec<LaidRow> = rows.into_iter().map(laid).collect();
        let selector = |key: &Key| FdbKeySelector { key: bytes_of(key), or_equal: 0, offset: 1 };
        let of_row = |mapped: &LaidRow| FdbMappedKeyValue {
            key: bytes_of(&mapped.row.key),
            value: bytes_of(&mapped.row.value),
            range: FdbGetRange {
                begin: selector(&mapped.range.begin),
                end: selector(&mapped.range.end),
                rows: mapped.found.rows.as_ptr(),
                count: count_of(&mapped.found.rows),
                capacity: count_of(&mapped.found.rows),
            },
            reserved: [0; 32],
        };
        MappedRows { rows: owner.iter().map(of_row).collect(), more, _owner: owner }
    }
}

impl Keys {
    /// Several keys.
    pub fn new(owner: Vec<Key>) -> Keys {
        let of_key = |key: &Key| bytes_of(key);
        Keys { keys: owner.iter().map(of_key).collect(), _owner: owner }
    }
}

impl Strings {
    /// Several texts. Those with a zero inside are left out: C could not read them.
    pub fn new(texts: Vec<String>) -> Strings {
        let owner: Vec<CString> =
            texts.into_iter().filter_map(|text| CString::new(text).ok()).collect();
        Strings { pointers: owner.iter().map(|text| text.as_ptr()).collect(), _owner: owner }
    }
}

fn bytes_of(bytes: &[u8]) -> FdbKey {
    FdbKey { key: bytes.as_ptr(), key_length: length_of(bytes) }
}

fn length_of(bytes: &[u8]) -> c_int {
    // Keys and values are far shorter: see `limits`.
    c_int::try_from(bytes.len()).unwrap_or(c_int::MAX)
}

/// A result that is there, or will be.
#[derive(Debug)]
pub struct Future {
    state: Mutex<State>,
    completed: Condvar,
}

#[derive(Debug)]
enum State {
    Pending { callbacks: Vec<Registered>, wakers: Vec<Waker>, task: Option<(AbortHandle, Held)> },
    Complete { result: Result<Laid, Code>, reads: usize },
    Released,
}

#[derive(Debug)]
struct Registered {
    callback: Callback,
    parameter: *mut c_void,
}

// SAFETY: the interface says that the parameter is handed to the callback on the network thread, whoever registers it.
unsafe impl Send for Registered {}

/// Callbacks that are due. They are called when this is dropped, wherever that is: none gets lost.
struct Due {
    future: Arc<Future>,
    callbacks: Vec<Registered>,
}

impl Drop for Due {
    fn drop(&mut self) {
        for Registered { callback, parameter } in self.callbacks.drain(..) {
            // SAFETY: who registered it vouches for both until it was called; the future lives as long as this.
            unsafe { callback(Arc::as_ptr(&self.future).cast_mut(), parameter) };
        }
    }
}

/// Completes its future when the work is dropped unfinished: the network has stopped.
struct Completion(Arc<Future>);

impl Drop for Completion {
    fn drop(&mut self) {
        drop(self.0.complete(Err(errors::OPERATION_CANCELLED)));
    }
}

impl Future {
    fn pending() -> Arc<Future> {
        let state = State::Pending { callbacks: Vec::new(), wakers: Vec::new(), task: None };
        Arc::new(Future { state: Mutex::new(state), completed: Condvar::new() })
    }

    /// A result that is there.
    pub fn ready(result: Ended) -> Arc<Future> {
        let state = State::Complete { result: result.map(Laid::from), reads: 0 };
        Arc::new(Future { state: Mutex::new(state), completed: Condvar::new() })
    }

    /// Begins some work. It is polled once before this returns, so that what it does first, such as taking its view of the
    /// transaction, comes before whatever the program does next.
    pub fn start(work: impl Work<Output = Ended> + Send + 'static) -> Arc<Future> {
        let entered = match network::entered() {
            Ok(entered) => entered,
            Err(code) => return Future::ready(Err(code)),
        };
        let mut work: Pin<Box<dyn Work<Output = Ended> + Send>> = Box::pin(work);
        let mut context = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context)));
        match polled {
            Ok(Poll::Ready(result)) => return Future::ready(result),
            Ok(Poll::Pending) => {}
            Err(_) => return Future::ready(Err(errors::INTERNAL_ERROR)),
        }
        drop(entered);
        let future = Future::pending();
        let completion = Completion(Arc::clone(&future));
        let held = Held(Arc::new(Mutex::new(Some(work))));
        let polled = held.clone();
        let task = network::spawn(async move {
            let result = polled.await;
            drop(completion.0.complete(result));
        });
        if let (State::Pending { task: slot, .. }, Some(task)) = (&mut *future.state.lock(), task) {
            *slot = Some((task, held));
        }
        future
    }

    /// Makes the future complete, unless it is. The callbacks are called when the result is dropped.
    #[must_use]
    fn complete(self: &Arc<Self>, result: Ended) -> Option<Due> {
        let mut state = self.state();
        let State::Pending { callbacks, wakers, task } = &mut *state else { return None };
        let (callbacks, task) = (std::mem::take(callbacks), task.take());
        wakers.drain(..).for_each(Waker::wake);
        *state = State::Complete { result: result.map(Laid::from), reads: 0 };
        self.completed.notify_all();
        drop(state);
        if let Some((task, held)) = task {
            held.drop_work();
            // Of no effect on work that has ended.
            task.abort();
        }
        Some(Due { future: Arc::clone(self), callbacks })
    }

    /// Gives the work up, if it has not ended, with an error.
    pub fn fail(self: &Arc<Self>, code: Code) {
        self.settle(Err(code));
    }

    /// Makes the future complete, if it is not.
    pub fn settle(self: &Arc<Self>, result: Ended) {
        let Some(due) = self.complete(result) else { return };
        if due.callbacks.is_empty() || network::is_network_thread() {
            return;
        }
        // They expect to be called on the network thread. If it has stopped they are called here, as the task is dropped.
        network::spawn(async move { drop(due) });
    }

    /// Gives the work up, if it has not ended.
    pub fn cancel(self: &Arc<Self>) {
        self.fail(errors::OPERATION_CANCELLED);
    }

    /// The state. In a forked child nobody completes what was pending in its parent: there it has failed.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if matches!(*state, State::Pending { .. }) && network::is_of_parent() {
            let result = Err(errors::NETWORK_NOT_SETUP);
            let abandoned = std::mem::replace(&mut *state, State::Complete { result, reads: 0 });
            // The task, its runtime and whoever waits for the callbacks are the parent's.
            std::mem::forget(abandoned);
        }
        state
    }

    /// Whether the result is there.
    pub fn is_ready(&self) -> bool {
        !matches!(*self.state(), State::Pending { .. })
    }

    /// Asks whether the result is there; who asks is woken once it is.
    fn poll_ready(&self, context: &Context<'_>) -> Poll<()> {
        match &mut *self.state() {
            State::Pending { wakers, .. } => {
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
            State::Complete { .. } | State::Released => Poll::Ready(()),
        }
    }

    /// Waits until the result is there.
    ///
    /// # Errors
    ///
    /// `blocked_from_network_thread`, on which that would never happen.
    pub fn block_until_ready(&self) -> Result<(), Code> {
        let mut state = self.state();
        while matches!(*state, State::Pending { .. }) {
            if network::is_network_thread() {
                return Err(errors::BLOCKED_FROM_NETWORK_THREAD);
            }
            self.completed.wait(&mut state);
        }
        Ok(())
    }

    /// Has `callback` called when the result is there; at once, if it is.
    pub fn set_callback(self: &Arc<Self>, callback: Callback, parameter: *mut c_void) {
        let registered = Registered { callback, parameter };
        let mut state = self.state();
        if let State::Pending { callbacks, .. } = &mut *state {
            callbacks.push(registered);
            return;
        }
        drop(state);
        drop(Due { future: Arc::clone(self), callbacks: vec![registered] });
    }

    /// Gives the memory of the result back, if as many as have read it do.
    pub fn release_memory(&self) {
        let mut state = self.state.lock();
        if let State::Complete { result: Ok(_), reads } = &mut *state {
            *reads = reads.saturating_sub(1);
            if *reads == 0 {
                *state = State::Released;
            }
        }
    }

    /// The error, or that there is none.
    ///
    /// # Errors
    ///
    /// `future_not_set`, or the error itself.
    pub fn error(&self) -> Result<(), Code> {
        match &*self.state() {
            State::Pending { .. } => Err(errors::FUTURE_NOT_SET),
            State::Complete { result: Err(code), .. } => Err(*code),
            State::Complete { .. } | State::Released => Ok(()),
        }
    }

    /// Reads the result by `pick`, which returns `None` if it is of another kind. Pointers that it picks are good until the
    /// future is destroyed, or as often released as read.
    fn read<T>(&self, pick: impl FnOnce(&Laid) -> Option<T>) -> Result<T, Code> {
        match &mut *self.state() {
            State::Pending { .. } => Err(errors::FUTURE_NOT_SET),
            State::Released => Err(errors::FUTURE_RELEASED),
            State::Complete { result: Err(code), .. } => Err(*code),
            State::Complete { result: Ok(output), reads } => {
                let picked = pick(output).ok_or(errors::CLIENT_INVALID_OPERATION)?;
                *reads += 1;
                Ok(picked)
            }
        }
    }

    /// The number.
    ///
    /// # Errors
    ///
    /// `future_not_set`, `future_released`, `client_invalid_operation` for a result of another kind, or the future's error. So for
    /// the functions that follow.
    pub fn int64(&self) -> Result<i64, Code> {
        self.read(|output| match output {
            Laid::Int64(number) => Some(*number),
            _ => None,
        })
    }

    /// The number.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn uint64(&self) -> Result<u64, Code> {
        self.read(|output| match output {
            Laid::Uint64(number) => Some(*number),
            _ => None,
        })
    }

    /// The number.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn double(&self) -> Result<f64, Code> {
        self.read(|output| match output {
            Laid::Double(number) => Some(*number),
            _ => None,
        })
    }

    /// Yes or no.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn boolean(&self) -> Result<bool, Code> {
        self.read(|output| match output {
            Laid::Bool(answer) => Some(*answer),
            _ => None,
        })
    }

    /// The key.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn key(&self) -> Result<(*const u8, c_int), Code> {
        self.read(|output| match output {
            Laid::Key(key) => Some((key.as_ptr(), length_of(key))),
            _ => None,
        })
    }

    /// The value, if there is one.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn value(&self) -> Result<Option<(*const u8, c_int)>, Code> {
        self.read(|output| match output {
            Laid::Value(value) => {
                Some(value.as_ref().map(|value| (value.as_ptr(), length_of(value))))
            }
            _ => None,
        })
    }

    /// The rows, how many, and whether there may be more.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn rows(&self) -> Result<(*const FdbKeyValue, c_int, bool), Code> {
        self.read(|output| match output {
            Laid::Rows(rows) => Some((rows.rows.as_ptr(), count_of(&rows.rows), rows.more)),
            _ => None,
        })
    }

    /// The rows of a mapped range, how many, and whether there may be more.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn mapped_rows(&self) -> Result<(*const FdbMappedKeyValue, c_int, bool), Code> {
        self.read(|output| match output {
            Laid::MappedRows(rows) => Some((rows.rows.as_ptr(), count_of(&rows.rows), rows.more)),
            _ => None,
        })
    }

    /// The keys, and how many.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn keys(&self) -> Result<(*const FdbKey, c_int), Code> {
        self.read(|output| match output {
            Laid::Keys(keys) => Some((keys.keys.as_ptr(), count_of(&keys.keys))),
            _ => None,
        })
    }

    /// The texts, and how many.
    ///
    /// # Errors
    ///
    /// See [`Future::int64`].
    pub fn strings(&self) -> Result<(*const *const c_char, c_int), Code> {
        self.read(|output| match output {
            Laid::Strings(texts) => Some((texts.pointers.as_ptr(), count_of(&texts.pointers))),
            _ => None,
        })
    }
}

impl Promise for Future {
    fn ready(result: Ended) -> Arc<Future> {
        Future::ready(result)
    }

    fn start(work: impl Work<Output = Ended> + Send + 'static) -> Arc<Future> {
        Future::start(work)
    }

    fn fail(self: &Arc<Self>, code: Code) {
        Future::fail(self, code);
    }

    fn settle(self: &Arc<Self>, result: Ended) {
        Future::settle(self, result);
    }

    fn is_ready(&self) -> bool {
        Future::is_ready(self)
    }

    async fn completed(self: Arc<Self>) {
        poll_fn(|context| self.poll_ready(context)).await;
    }

    fn error(&self) -> Result<(), Code> {
        Future::error(self)
    }
}

fn count_of<T>(items: &[T]) -> c_int {
    c_int::try_from(items.len()).unwrap_or(c_int::MAX)
}

/// Work that the network thread polls, and that whoever gives it up drops at once: a watch that is cancelled must not count
/// among those of the database when the call returns.
#[derive(Clone)]
struct Held(Arc<Mutex<Option<PinnedWork>>>);

/// Work that was not given up.
type PinnedWork = Pin<Box<dyn Work<Output = Ended> + Send>>;

impl Held {
    /// Drops the work. If it is being polled at this moment, that is waited for, but not for long: should it wait for
    /// something that this thread holds, its task drops it later.
    fn drop_work(&self) {
        let polled = match network::is_network_thread() {
            true => Duration::ZERO,
            false => Duration::from_millis(10),
        };
        let work = self.0.try_lock_for(polled).and_then(|mut work| work.take());
        let _entered = network::entered();
        drop(work);
    }
}

impl Work for Held {
    type Output = Ended;

    /// A panic ends the work with an error: it must not reach the program.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let mut work = self.0.lock();
        // It was given up; the task will be, too.
        let Some(polled) = &mut *work else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| polled.as_mut().poll(context)));
        let result = polled.unwrap_or(Poll::Ready(Err(errors::INTERNAL_ERROR)));
        if result.is_ready() {
            *work = None;
        }
        result
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// Gives a future to the program.
pub fn lend(future: Arc<Future>) -> *mut Future {
    handle::lend(future)
}

/// A future that is complete from the beginning, for the program.
pub fn lend_ready(result: Ended) -> *mut Future {
    handle::lend(Future::ready(result))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use ferrisdb_client::RangePage;

    use super::*;

    #[test]
    fn results_are_read_until_they_are_released() {
        let future = Future::ready(Ok(Output::Value(Some(Value::from("v")))));
        let (bytes, length) = future.value().unwrap().unwrap();
        // SAFETY: as long as the future lives and was not released.
        assert_eq!(unsafe { std::slice::from_raw_parts(bytes, 1) }, b"v");
        assert_eq!(length, 1);
        assert_eq!(future.int64(), Err(errors::CLIENT_INVALID_OPERATION));
        assert!(future.value().is_ok());
        future.release_memory();
        assert!(future.value().is_ok(), "one reader is left");
        future.release_memory();
        future.release_memory();
        assert_eq!(future.value(), Err(errors::FUTURE_RELEASED));
        assert_eq!(future.error(), Ok(()));
    }

    #[test]
    fn rows_are_laid_out_as_c_reads_them() {
        let row = |key: &str, value: &str| KeyValue {
            key: key.into(),
            value: value.into(),
            commit_version: None,
        };
        let rows = RangePage { rows: vec![row("a", "1"), row("bb", "")], more: true };
        let future = Future::ready(Ok(Output::Rows(rows)));
        let (pointer, count, more) = future.rows().unwrap();
        assert_eq!((count, more), (2, true));
        // SAFETY: so many rows are there as long as the future lives.
        let rows = unsafe { std::slice::from_raw_parts(pointer, 2) };
        let (key, length, value_length) = (rows[1].key, rows[1].key_length, rows[1].value_length);
        // SAFETY: as before.
        assert_eq!(unsafe { std::slice::from_raw_parts(key, 2) }, b"bb");
        assert_eq!((length, value_length), (2, 0));
    }

    unsafe extern "C" fn add(_: *mut Future, counter: *mut c_void) {
        // SAFETY: the tests pass a counter that outlives the future.
        unsafe { &*counter.cast::<AtomicI32>() }.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_callback_is_called_once_whatever_happens() {
        let counter = AtomicI32::new(0);
        let parameter = std::ptr::from_ref(&counter).cast_mut().cast();
        let future = Future::pending();
        future.set_callback(add, parameter);
        future.set_callback(add, parameter);
        assert_eq!(future.error(), Err(errors::FUTURE_NOT_SET));
        assert_eq!(counter.load(Ordering::Relaxed), 0);
        future.cancel();
        future.cancel();
        assert_eq!(counter.load(Ordering::Relaxed), 2);
        assert_eq!(future.error(), Err(errors::OPERATION_CANCELLED));
        future.set_callback(add, parameter);
        assert_eq!(counter.load(Ordering::Relaxed), 3);
        assert_eq!(future.block_until_ready(), Ok(()));
    }
}
