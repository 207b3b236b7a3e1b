//! The reads under way, which a commit waits for.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Counts the reads of an attempt that have begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    count: AtomicUsize,
    ended: Notify,
}

/// A read under way: it has ended, or was given up, when this is dropped.
#[derive(Debug)]
pub(super) struct Guard(Arc<Outstanding>);

impl Outstanding {
    /// A read begins. The caller holds the transaction's lock, as whoever ends its open phase does.
    pub(super) fn begin(self: &Arc<Self>) -> Guard {
        self.count.fetch_add(1, Ordering::AcqRel);
        Guard(Arc::clone(self))
    }

    /// Whether no read is under way.
    pub(super) fn is_none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Waits until no read is under way. No more may begin.
    pub(super) async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_none() {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}
