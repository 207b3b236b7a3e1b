//! Misuse: the transaction is used while it is being committed, or after that. The commit fails with it, and so does everything
//! else until a reset, unless the option says otherwise.

use ferrisdb_client::{Error, ErrorCode, Stage};

use super::Transaction;
use crate::{errors, promise::Promise};

impl<P: Promise> Transaction<P> {
    /// The transaction was used while it is being committed, or after that.
    pub(super) fn note_misuse(&self) {
        {
            let mut state = self.state.lock();
            if state.defaults.is_commit_unprotected {
                return;
            }
            state.is_poisoned = true;
        }
        self.fail_pending_with(errors::USED_DURING_COMMIT);
        // The work of the commit was dropped with that: nobody else tells those who wait for what it would have brought.
        self.settle_stamps(Err(errors::USED_DURING_COMMIT));
        if let Ok(client) = &self.client {
            client.abandon_commit(Error::new(ErrorCode::UsedDuringCommit, Stage::Client, ""));
        }
    }

    pub(super) fn look_for_misuse(&self, future: &P) {
        if future.error() == Err(errors::USED_DURING_COMMIT) {
            self.note_misuse();
        }
    }
}
