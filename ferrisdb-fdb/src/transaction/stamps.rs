//! Who waits for the versionstamp: they hear of it before whoever waits for the commit.

use std::sync::{Arc, Weak};

use ferrisdb_client::{ErrorCode, Key};

use super::Transaction;
use crate::{
    errors::{self, Code},
    promise::{Ended, Output, Promise},
};

impl<P: Promise> Transaction<P> {
    /// The versionstamp of the commit that will be.
    pub fn versionstamp(&self) -> Arc<P> {
        let client = match self.open() {
            Ok(client) => client,
            Err(code) => return P::ready(Err(code)),
        };
        let stamp = client.versionstamp();
        // Not given up with the transaction: the client says what became of it.
        let future = P::start(async move {
            let stamp = stamp.await;
            stamp_of(stamp.map_err(|error| errors::number_of(&error)))
        });
        self.state.lock().stamps.push(Arc::downgrade(&future));
        future
    }

    /// The commit has ended: says so to whoever waits for the versionstamp, before anybody hears of the commit itself.
    pub(super) fn settle_stamps(&self, committed: Result<ferrisdb_client::Committed, Code>) {
        let stamp = committed.and_then(|committed| {
            let none = Code::from(ErrorCode::NoCommitVersion.number());
            committed.versionstamp.ok_or(none)
        });
        let waiting = std::mem::take(&mut self.state.lock().stamps);
        for future in waiting.iter().filter_map(Weak::upgrade) {
            future.settle(stamp_of(stamp));
        }
    }
}

/// A versionstamp as C reads it. A commit that has failed has none; who gave the transaction up hears that.
fn stamp_of(stamp: Result<ferrisdb_client::Versionstamp, Code>) -> Ended {
    const KEPT: [ErrorCode; 3] = [
        ErrorCode::NoCommitVersion,
        ErrorCode::TransactionCancelled,
        ErrorCode::TransactionTimedOut,
    ];
    match stamp {
        Ok(stamp) => Ok(Output::Key(Key::copy_from(&stamp.to_bytes()))),
        Err(errors::USED_DURING_COMMIT) => Err(errors::USED_DURING_COMMIT),
        Err(code) if KEPT.map(|kept| Code::from(kept.number())).contains(&code) => Err(code),
        Err(_) => Err(errors::TRANSACTION_INVALID_VERSION),
    }
}
