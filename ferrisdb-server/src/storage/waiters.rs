//! Reads that wait for their version to be applied.
//!
//! ```text
//!   applied through 40        waiting: 41 41 57        applied through 50        waiting: 57
//! ```
//!
//! Each is woken by the version it waits for, and not by every version on the way. Whoever stops waiting
//! (its time is over, its client is gone) leaves the list when its [`Waiter`] is dropped.

use std::collections::BTreeMap;

use ferrisdb_core::{Error, ErrorCode, Result, Stage, Version};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Most reads that wait at a time; a further one is refused.
const WAITERS_MAX: usize = 64 * 1024;

/// The list.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    applied_version: Version,
    next_id: u64,
    waiting: BTreeMap<(Version, u64), oneshot::Sender<()>>,
}

/// A place in the list.
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    key: (Version, u64),
    reached: oneshot::Receiver<()>,
}

impl Waiters {
    /// Begins to wait for `version`. `None` if it has been reached.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TooBusy`] if too many wait.
    pub(super) fn wait_for(&self, version: Version) -> Result<Option<Waiter<'_>>> {
        let mut inner = self.0.lock();
        if version <= inner.applied_version {
            return Ok(None);
        }
        if inner.waiting.len() >= WAITERS_MAX {
            let detail = format!("{WAITERS_MAX} reads wait for versions to be applied");
            return Err(Error::new(ErrorCode::TooBusy, Stage::Read, detail));
        }
        let key = (version, inner.next_id);
        inner.next_id += 1;
        let (sender, reached) = oneshot::channel();
        inner.waiting.insert(key, sender);
        Ok(Some(Waiter { waiters: self, key, reached }))
    }

    /// Wakes those that wait for `version` or an earlier one. A rollback takes the version back.
    pub(super) fn on_applied(&self, version: Version) {
        let mut inner = self.0.lock();
        inner.applied_version = version;
        let still_waiting = inner.waiting.split_off(&(version.saturating_add(1), 0));
        // Dropping a sender wakes its receiver.
        inner.waiting = still_waiting;
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// Wakes everybody: no version will be applied any more.
    pub(super) fn wake_all(&self) {
        self.0.lock().waiting.clear();
    }
}

impl Waiter<'_> {
    /// Waits until the version was applied, or never will be.
    pub(super) async fn reached(mut self) {
        // The sender sends nothing: that it is dropped is the message.
        let _ = (&mut self.reached).await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiters.0.lock().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn each_is_woken_by_its_version() {
        let waiters = Waiters::default();
        waiters.on_applied(Version(40));
        assert!(waiters.wait_for(Version(40)).unwrap().is_none());
        let mut early = Box::pin(waiters.wait_for(Version(41)).unwrap().unwrap().reached());
        let mut late = Box::pin(waiters.wait_for(Version(57)).unwrap().unwrap().reached());
        waiters.on_applied(Version(50));
        assert!(early.as_mut().now_or_never().is_some());
        assert!(late.as_mut().now_or_never().is_none());
        waiters.wake_all();
        assert!(late.as_mut().now_or_never().is_some());
    }

    #[test]
    fn who_stops_waiting_leaves_the_list() {
        let waiters = Waiters::default();
        let waiter = waiters.wait_for(Version(1)).unwrap().unwrap();
        assert_eq!(waiters.0.lock().waiting.len(), 1);
        drop(waiter);
        assert_eq!(waiters.0.lock().waiting.len(), 0);
    }
}
