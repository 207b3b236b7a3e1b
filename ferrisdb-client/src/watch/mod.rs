//! Watches: waiting until a key has another value, without asking for it again and again.
//!
//! ```text
//!   transaction   watch('a') saw A          commit at 40: armed, "A as of 40"
//!   book          which server watches for it, or that the key is to be read, or that it waits
//!   driver        a session with each server that watches: what is to begin and to end; what has changed
//!                 'a' has changed at 57     read 'a' at a version given out now: it is B, the watch is over
//!                                           it is A: what was seen was rolled back or undone, it begins again
//! ```
//!
//! What a server says is a hint: it may have seen a change that is not committed yet and will be rolled back. The
//! read at a read version makes it certain, so a watch is over only when the key has had another committed value.
//!
//! # Why no change is missed
//!
//! A change counts as missed if the key has another value from then on, and the watch waits for ever. A server
//! compares values, not events, with what the watch knows: when the watch begins there, and whenever its
//! version touches the key. So it is enough that every watch is at all times at a server that holds the key and
//! that follows the logs, or is on its way to one:
//!
//! - a call that fails ends the session, and all its watches begin again, elsewhere if possible;
//! - a server that does not know the session any more says so; one that has given the key away, too;
//! - a new map of the cluster moves the watches of keys that have moved, should the server not know that;
//! - a server that has no news must have applied what was committed before it was asked for them;
//! - a server that has too many watches refuses some: their keys are read every two seconds.
//!
//! # What it costs
//!
//! Thirty-two bytes of digest and the key here, the same again at one server, and one request in flight to each such
//! server every five seconds. A read version and a point read when a watch is over, in batches with others.
//!
//! [`book`] decides, [`driver`] asks. The handle's tasks end with the handle, which every [`Watch`] keeps alive.

mod book;
mod driver;
mod signal;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use ferrisdb_core::{
    Error, ErrorCode, Key, Mutation, Result, Stage, Value, Version,
    digest::ValueDigest,
    runtime::{self, Instant, Task},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::{
    book::{Armed, Book},
    signal::Signal,
};
use crate::{
    cluster::Cluster,
    database::Database,
    read_your_writes::{Lookup, Overlay},
};

/// Waits until a key has another value than the one that a transaction saw: made by
/// [`Transaction::watch`](crate::Transaction::watch).
///
/// It is a future. Await it, as it is or by `&mut`, as often as you like: once it is ready it stays so. Dropping it
/// ends the watch. It outlives its transaction, and keeps the database handle alive that it was made by.
///
/// The watch is armed when its transaction commits. From then on it is ready, with `Ok(())`, as soon as the key is
/// known to have had another committed value. A change by the transaction itself makes it ready at once. A change that is undone soon may go unnoticed, one that stays never
/// does, whatever happens to the servers. Writing the same value again is no change. What the value is now, a new
/// transaction can tell.
///
/// # Errors
///
/// [`ErrorCode::TransactionCancelled`] if the transaction was reset, cancelled or dropped before it was committed; the error of
/// its commit, if that failed; [`ErrorCode::TransactionTimedOut`] as soon as the transaction's time is over, if it was not
/// committed by then; [`ErrorCode::ShuttingDown`] if the database was embedded and is closed; [`ErrorCode::WrongCluster`] if
/// another cluster has taken the place of the one that was watched.
#[must_use = "dropping a watch ends it"]
pub struct Watch {
    number: u64,
    key: Key,
    signal: Arc<Signal>,
    /// Goes off when the time of the transaction is over.
    alarm: Option<Alarm>,
    /// The watch is seen to for as long as the handle lives.
    database: Database,
}

/// An instant, and the wait until then.
type Alarm = (Instant, Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Watch {
    /// The key that is watched.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether it is over: awaiting it will not wait.
    pub fn is_ready(&self) -> bool {
        self.signal.outcome().is_some() || self.signal.is_late()
    }
}

impl Future for Watch {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let outcome = self.signal.poll(context);
            if outcome.is_pending() {
                self.database.watches().drive_on();
            }
            // Nothing bounds a watch that is armed, or the transaction has no timeout.
            let Some(deadline) = self.signal.deadline().filter(|_| outcome.is_pending()) else {
                self.alarm = None;
                return outcome;
            };
            let left = deadline.saturating_duration_since(runtime::now());
            if left.is_zero() {
                self.signal.give(Err(timed_out()));
                continue;
            }
            let alarm = self.alarm.take().filter(|(until, _)| *until == deadline);
            let (_, alarm) = self
                .alarm
                .insert(alarm.unwrap_or_else(|| (deadline, Box::pin(runtime::sleep(left)))));
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.alarm = None;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.signal.outcome().is_none() {
            self.signal.give(Err(cancelled()));
            self.database.watches().shared.book.lock().forget(self.number);
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("key", &self.key).field("is_ready", &self.is_ready()).finish()
    }
}

/// A watch whose transaction is not committed. Dropping it lets the watch fail.
pub(crate) struct PendingWatch {
    number: u64,
    key: Key,
    known: Option<ValueDigest>,
    /// `None` once it is armed.
    signal: Option<Arc<Signal>>,
    /// What it fails with.
    fails_with: Error,
}

impl PendingWatch {
    /// The value that the transaction saw.
    pub(crate) fn set_known(&mut self, value: Option<&Value>) {
        self.known = value.map(|value| ValueDigest::of(value));
    }

    /// Whether a write of the transaction itself, which `overlay` has taken already, changes the value.
    pub(crate) fn is_changed_by(&self, mutation: &Mutation, overlay: &Overlay) -> bool {
        let is_written = match mutation {
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::Atomic { key, .. }
            | Mutation::SetVersionstampedValue { key, .. } => *key == self.key,
            Mutation::ClearRange { range } => range.contains(&self.key),
            // It will have another name.
            Mutation::SetVersionstampedKey { .. } => false,
        };
        is_written && self.is_changed(overlay.lookup(&self.key).ok())
    }

    /// Whether the value is another one than the transaction saw, or may be: what it depends on is known at the commit.
    pub(crate) fn is_changed(&self, found: Option<Lookup>) -> bool {
        match found {
            Some(Lookup::Known(value)) => value.map(|value| ValueDigest::of(&value)) != self.known,
            Some(Lookup::Database(_)) | None => true,
        }
    }

    /// The transaction itself has changed the value.
    pub(crate) fn changed(mut self) {
        self.signal.take().into_iter().for_each(|signal| signal.give(Ok(())));
    }

    /// What the watch is to fail with instead, should it fail.
    pub(crate) fn set_error(&mut self, error: Error) {
        self.fails_with = error;
    }

    /// Until when it has to be armed.
    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        self.signal.iter().for_each(|signal| signal.set_deadline(deadline));
    }
}

impl Drop for PendingWatch {
    fn drop(&mut self) {
        if let Some(signal) = self.signal.take() {
            // The time of the transaction comes first: whoever waited has been told so already.
            let is_late = signal.is_late();
            signal.give(Err(if is_late { timed_out() } else { self.fails_with.clone() }));
        }
    }
}

/// The watches of a database handle.
pub(crate) struct Watches {
    shared: Arc<Shared>,
    max: AtomicUsize,
    next_number: AtomicU64,
    outstanding: Arc<AtomicUsize>,
    /// Sees to all of them, since the first was armed.
    driver: Mutex<Option<Task>>,
}

/// What the handle and its tasks share. Not the handle itself: it would never end.
struct Shared {
    cluster: Arc<Cluster>,
    book: Mutex<Book>,
    /// There is something to do.
    woken: Notify,
    /// Whether there is a driver.
    is_driven: AtomicBool,
}

/// What a driver holds while it lives. When its runtime ends, those that wait in others have to hear of it, as nobody else sees
/// to their watches: each poll of one drives on.
struct Driven(Arc<Shared>);

impl Drop for Driven {
    fn drop(&mut self) {
        // Before they look.
        self.0.is_driven.store(false, Ordering::Release);
        let waiting = self.0.book.lock().signals();
        waiting.iter().for_each(|signal| signal.wake());
    }
}

impl Watches {
    /// No watches; at most so many at a time.
    pub(crate) fn new(cluster: Arc<Cluster>, max: usize) -> Watches {
        let (book, woken, is_driven) = (Mutex::default(), Notify::new(), AtomicBool::new(false));
        let shared = Shared { cluster, book, woken, is_driven };
        Watches {
            shared: Arc::new(shared),
            max: AtomicUsize::new(max),
            next_number: AtomicU64::new(0),
            outstanding: Arc::default(),
            driver: Mutex::default(),
        }
    }

    /// At most so many at a time from now on.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// A watch that is not armed yet.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TooManyWatches`].
    pub(crate) fn reserve(database: &Database, key: Key) -> Result<(PendingWatch, Watch)> {
        let watches = database.watches();
        let signal = Signal::new(&watches.outstanding, watches.max.load(Ordering::Relaxed))?;
        let number = watches.next_number.fetch_add(1, Ordering::Relaxed);
        let pending = PendingWatch {
            number,
            key: key.clone(),
            known: None,
            signal: Some(Arc::clone(&signal)),
            fails_with: cancelled(),
        };
        Ok((pending, Watch { number, key, signal, alarm: None, database: database.clone() }))
    }

    /// The transaction of these watches was committed; at `version` the keys had the values that it saw, unless
    /// others had changed them by then.
    pub(crate) fn arm(&self, pending: Vec<PendingWatch>, version: Version) {
        if pending.is_empty() {
            return;
        }
        let now = runtime::now();
        for mut pending in pending {
            let Some(signal) = pending.signal.take() else { continue };
            // From here on it may take its time.
            signal.set_deadline(None);
            let (number, key, known) = (pending.number, pending.key.clone(), pending.known);
            let armed = Armed { number, key, known, version, signal: Arc::clone(&signal) };
            let armed = self.shared.book.lock().arm(armed, now);
            armed.unwrap_or_else(|closed| signal.give(Err(closed)));
        }
        self.drive(&mut self.driver.lock());
        self.shared.woken.notify_one();
    }

    /// Somebody waits: should the runtime have ended in which the watches were seen to, his takes over.
    fn drive_on(&self) {
        let mut driver = self.driver.lock();
        // Nothing was armed before the first one.
        if driver.is_some() {
            self.drive(&mut driver);
        }
    }

    /// Begins to drive, unless that is done already. Not whether the task has ended counts: one that is just ending has not.
    fn drive(&self, driver: &mut Option<Task>) {
        if !self.shared.is_driven.swap(true, Ordering::AcqRel) {
            let driven = Driven(Arc::clone(&self.shared));
            let driving = move || driver::drive(Arc::clone(&driven.0));
            *driver = Some(runtime::keep_running("watches", driving));
        }
    }

    /// Nothing can be watched any more.
    #[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "embedded databases close"))]
    pub(crate) fn close(&self, error: &Error) {
        let waiting = self.shared.book.lock().close(error.clone());
        waiting.into_iter().for_each(|signal| signal.give(Err(error.clone())));
    }
}

fn cancelled() -> Error {
    let detail = "the transaction of the watch was not committed";
    Error::new(ErrorCode::TransactionCancelled, Stage::Client, detail)
}

fn timed_out() -> Error {
    let detail = "the time of the watch's transaction was over before it was committed";
    Error::new(ErrorCode::TransactionTimedOut, Stage::Client, detail)
}
