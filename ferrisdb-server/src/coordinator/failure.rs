//! How the roles of a coordinator end together.

use std::sync::Arc;

use ferrisdb_core::{Error, ErrorCode, Stage, id::Address};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The end of a generation, as its own roles notice it. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    cause: Mutex<Option<Error>>,
    /// Who did not answer, if that was the cause.
    accused: Mutex<Option<Address>>,
    failed: Notify,
}

impl Failure {
    /// Ends the generation. The first cause counts.
    pub fn fail(&self, cause: Error) {
        let mut first = self.inner.cause.lock();
        if first.is_none() {
            if cause.code() == ErrorCode::ShuttingDown {
                tracing::info!("the coordinator stops");
            } else {
                tracing::warn!(%cause, "the coordinator's generation ends");
            }
            *first = Some(cause);
            self.inner.failed.notify_waiters();
        }
    }

    /// Ends the generation because of what a member at `peer` answered, or did not.
    pub fn fail_at(&self, peer: &Address, cause: Error) {
        let is_silent = matches!(cause.code(), ErrorCode::Unreachable | ErrorCode::TimedOut);
        if is_silent && self.cause().is_none() {
            *self.inner.accused.lock() = Some(peer.clone());
        }
        self.fail(cause);
    }

    /// The member whose silence has ended the generation.
    pub fn accused(&self) -> Option<Address> {
        self.inner.accused.lock().clone()
    }

    /// Why the generation has ended, if it has.
    pub fn cause(&self) -> Option<Error> {
        self.inner.cause.lock().clone()
    }

    /// An error for work that was not begun because the generation has ended.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::GenerationEnded`], with the cause.
    pub fn check(&self, stage: Stage) -> Result<(), Error> {
        match self.cause() {
            None => Ok(()),
            Some(cause) => Err(generation_ended(stage, &cause)),
        }
    }

    /// Waits for the end.
    pub async fn failed(&self) {
        loop {
            let failed = self.inner.failed.notified();
            tokio::pin!(failed);
            failed.as_mut().enable();
            if self.cause().is_some() {
                return;
            }
            failed.await;
        }
    }
}

/// What a client is told whose work did not take effect because the generation has ended.
pub fn generation_ended(stage: Stage, cause: &Error) -> Error {
    Error::new(ErrorCode::GenerationEnded, stage, format!("the generation has ended: {cause}"))
}
