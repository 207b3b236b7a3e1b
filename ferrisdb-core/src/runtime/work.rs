//! Work that keeps a thread busy, and who has to wait for it in a simulation.
//!
//! ```text
//!   work in `blocking`, with nothing held        only the caller of `blocking` waits
//!   work in any other place                      everybody waits: the clock goes on without them
//!   work while a [`Holding`] lives               the same, wherever it is done
//! ```
//!
//! Virtual time stands still while a task runs, so a scan of a million rows would cost nothing, and no simulation would notice
//! that all others wait for the thread that it keeps busy, or for the lock that it holds. Whoever simulates such work says how
//! long it takes, with `work`. In a build without `--cfg madsim` nothing of this is there.

/// Says that others want what is held while this lives. To be kept beside the guard of a lock that is taken all the time.
#[derive(Debug)]
#[must_use = "it counts for as long as it lives"]
pub struct Holding(());

impl Holding {
    /// From now on.
    #[inline(always)]
    #[expect(clippy::new_without_default, reason = "a default that has an effect would surprise")]
    pub fn new() -> Holding {
        #[cfg(madsim)]
        simulated::hold(true);
        Holding(())
    }
}

#[cfg(madsim)]
impl Drop for Holding {
    fn drop(&mut self) {
        simulated::hold(false);
    }
}

#[cfg(madsim)]
pub(super) use simulated::in_blocking;
#[cfg(madsim)]
pub use simulated::work;

#[cfg(madsim)]
mod simulated {
    use std::{cell::Cell, time::Duration};

    thread_local! {
        /// What was done in the closure of `blocking` that runs, if one does.
        static IN_BLOCKING: Cell<Option<Duration>> = const { Cell::new(None) };
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn hold(begins: bool) {
        let held = HELD.get();
        HELD.set(if begins { held + 1 } else { held - 1 });
    }

    /// Some work takes so long.
    pub fn work(time: Duration) {
        match IN_BLOCKING.get() {
            Some(done) if HELD.get() == 0 => IN_BLOCKING.set(Some(done + time)),
            _ => madsim::time::advance(time),
        }
    }

    /// Runs a closure that may block, and says how long it has worked.
    pub(in crate::runtime) fn in_blocking<T>(closure: impl FnOnce() -> T) -> (T, Duration) {
        let outer = IN_BLOCKING.replace(Some(Duration::ZERO));
        let value = closure();
        let done = IN_BLOCKING.replace(outer);
        (value, done.unwrap_or_default())
    }
}
