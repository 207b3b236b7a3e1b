//! The commit, and what is known of it afterwards.

use std::sync::Arc;

use ferrisdb_client::{ErrorCode, Transaction as Client};

use super::{Transaction, number_of, pending::AtCommit};
use crate::{
    api_version,
    errors::{self, Code},
    promise::{Output, Promise},
    size::Written,
};

impl<P: Promise> Transaction<P> {
    /// Commits.
    pub fn commit(self: &Arc<Self>) -> Arc<P> {
        if let Err(code) = self.usable() {
            // There will be no commit, unless one is under way: then it says what becomes of the versionstamp.
            if self.client.as_ref().is_ok_and(|client| client.check_open().is_ok()) {
                self.settle_stamps(Err(code));
            }
            return P::ready(Err(code));
        }
        let itself = Arc::clone(self);
        let begun_before = self.reads_under_way();
        self.run_raw(AtCommit::LeftAlone, async move |client: Client| {
            let committed = client.commit().await.map_err(|error| {
                // FoundationDB's timer fails what is under way, whatever may have become of it.
                match error.is_maybe_committed() && client.is_timed_out() {
                    true => Code::from(ErrorCode::TransactionTimedOut.number()),
                    false => errors::number_of(&error),
                }
            });
            // Not between two polls, as the commit ends in the one before the result is seen.
            let is_poisoned = itself.state.lock().is_poisoned;
            let committed = match is_poisoned {
                true => Err(errors::USED_DURING_COMMIT),
                false => committed,
            };
            // If there is another commit, whoever waits for the versionstamp waits for that one. If there was misuse, they know.
            if committed != Err(errors::USED_DURING_COMMIT) {
                itself.settle_stamps(committed);
            }
            committed?;
            // It has waited for the reads that were under way, though for nothing else. A program that destroys the
            // transaction now keeps their results, so they have to be where it looks for them.
            for read in begun_before {
                let Some(read) = read.upgrade() else { continue };
                read.completed().await;
            }
            if !api_version::is_at_least(700) {
                itself.state.lock().committed_version = client.committed_version().map(number_of);
                client.reset();
                itself.state.lock().written = Written::default();
                itself.apply_defaults();
            }
            Ok(Output::Void)
        })
    }

    /// The version of the commit; -1 if there was none, or nothing was written.
    pub fn committed_version(&self) -> i64 {
        let Ok(client) = &self.client else { return -1 };
        let version = client.committed_version().map(number_of);
        version.or(self.state.lock().committed_version).unwrap_or(-1)
    }
}
