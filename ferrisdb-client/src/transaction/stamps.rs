//! Who waits for the versionstamp of a transaction.

use std::{future::Future, sync::Arc};

use ferrisdb_core::{Error, ErrorCode, Result, Stage, Versionstamp};
use tokio::sync::oneshot;

use super::{Committed, Phase, Transaction, cancelled};

/// The waiters of one attempt. When they are dropped, they hear that the transaction was cancelled.
#[derive(Debug, Default)]
pub(super) struct Stamps(Vec<oneshot::Sender<Result<Versionstamp>>>);

impl Stamps {
    /// The commit has ended.
    pub(super) fn tell(&mut self, result: &Result<Committed>) {
        for waiter in self.0.drain(..) {
            // Whoever does not wait any more does not hear it.
            let _ = waiter.send(result.clone().and_then(of_commit));
        }
    }
}

fn of_commit(committed: Committed) -> Result<Versionstamp> {
    let none = || Error::new(ErrorCode::NoCommitVersion, Stage::Client, "");
    committed.versionstamp.ok_or_else(none)
}

impl Transaction {
    /// The versionstamp that the transaction will be committed with: ask before the commit, wait after it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use ferrisdb_client::{Database, Error};
    /// # let database = Database::memory().await?;
    /// let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// let stamp = transaction.versionstamp();
    /// let committed = transaction.commit().await?;
    /// assert_eq!(Some(stamp.await?), committed.versionstamp);
    /// # Ok::<_, Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The future returns the error of the commit; [`ErrorCode::NoCommitVersion`] if the transaction wrote nothing;
    /// [`ErrorCode::TransactionCancelled`] if it was reset, cancelled or dropped before its commit.
    pub fn versionstamp(&self) -> impl Future<Output = Result<Versionstamp>> + Send + use<> {
        let (timer, known_or_waiter) = {
            let mut state = self.shared.state.lock();
            let known_or_waiter = match (state.phase, state.committed) {
                (Phase::Ended, Some(committed)) => Ok(of_commit(committed)),
                (Phase::Ended | Phase::Cancelled, _) => Ok(Err(cancelled())),
                _ => {
                    let (tell, waiter) = oneshot::channel();
                    state.stamps.0.push(tell);
                    Err(waiter)
                }
            };
            (Arc::clone(&state.timer), known_or_waiter)
        };
        async move {
            match known_or_waiter {
                Ok(known) => known,
                Err(waiter) => {
                    let told = async { waiter.await.unwrap_or_else(|_| Err(cancelled())) };
                    timer.in_time(told).await
                }
            }
        }
    }
}
