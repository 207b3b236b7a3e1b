//! The version that an attempt reads: asked for by whoever comes first, for all.
//!
//! Those that wait ask together: should the first of them not be polled any more, the others go on with the question.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use ferrisdb_core::{
    Error, ErrorCode, Result, Stage, Version,
    simulation::{Plant, planted},
};
use futures::FutureExt as _;
use parking_lot::Mutex;

use super::{
    Call, Fate, Phase, Transaction, cancelled,
    joint::{Joint, Seat},
};

/// A version that is known, asked for, or neither.
#[derive(Default)]
pub(super) struct ReadVersion {
    known: OnceLock<Version>,
    /// The question, until it has failed. After an answer it stays, and is asked no more.
    asked: Mutex<Option<Arc<Joint<Result<Version>>>>>,
}

impl ReadVersion {
    /// The version, if it is known.
    pub(super) fn get(&self) -> Option<Version> {
        self.known.get().copied()
    }

    /// Names the version. Says no if there is one, or one is asked for.
    pub(super) fn set(&self, version: Version) -> bool {
        let asked = self.asked.lock();
        asked.is_none() && self.known.set(version).is_ok()
    }

    /// The version; `ask` is for whoever comes first, also after an error.
    pub(super) async fn get_or_ask<F>(&self, ask: impl FnOnce() -> F) -> Result<Version>
    where
        F: Future<Output = Result<Version>> + Send + 'static,
    {
        if let Some(known) = self.get() {
            return Ok(known);
        }
        let question = {
            let mut asked = self.asked.lock();
            if let Some(known) = self.get() {
                return Ok(known);
            }
            Arc::clone(asked.get_or_insert_with(|| Joint::new(ask(), ())))
        };
        Seat::of(&question).await;
        // Only a question that panicked has no answer.
        let answer =
            question.with_output(|answer| answer.clone()).unwrap_or_else(|| Err(cancelled()));
        match &answer {
            Ok(version) => {
                let _ = self.known.set(*version);
            }
            // Of those that have waited for this answer, the first one takes the question down: it may be asked again.
            Err(_) => {
                let mut asked = self.asked.lock();
                asked.take_if(|asked| Arc::ptr_eq(asked, &question));
            }
        }
        answer
    }
}

/// The version that is read.
impl Transaction {
    /// The version that all reads see; asked for now if no read has done so yet.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// let first = database.transaction().read_version().await?;
    /// transaction.set("k", "v")?;
    /// let committed = transaction.commit().await?;
    /// assert!(first < committed.version);
    /// // Whoever asks after a commit is acknowledged sees it.
    /// assert!(database.transaction().read_version().await? >= committed.version);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What became of the request.
    pub async fn read_version(&self) -> Result<Version> {
        let call = {
            let state = self.shared.state.lock();
            state.check_time()?;
            let known = state.work.read_version.get();
            let is_closed =
                matches!(state.phase, Phase::Closing | Phase::Committing | Phase::Ended);
            if let (true, Some(version)) = (is_closed, known) {
                return Ok(version);
            }
            drop(state);
            // It is no use of the transaction: a commit goes on, and may tell which version it is.
            self.not_cancelled()?.call()
        };
        let version = call.timer.within(self.version_for(&call)).boxed().await?;
        match self.not_cancelled()?.attempt == call.attempt {
            true => Ok(version),
            false => Err(cancelled()),
        }
    }

    /// The version that all reads see, if it is known already: set, asked for, or got with a read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// assert_eq!(transaction.known_read_version(), None);
    /// let version = transaction.read_version().await?;
    /// assert_eq!(transaction.known_read_version(), Some(version));
    /// # Ok(()) }
    /// ```
    pub fn known_read_version(&self) -> Option<Version> {
        self.shared.state.lock().work.read_version.get()
    }

    /// Reads at this version, not at one that the cluster gives. Only before the first read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// // Two transactions with the same view.
    /// let other = database.transaction();
    /// other.set_read_version(transaction.read_version().await?)?;
    /// assert_eq!(other.read_version().await?, transaction.read_version().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::VersionInvalid`] for zero; [`ErrorCode::ReadVersionAlreadySet`] if a version is known already.
    pub fn set_read_version(&self, version: Version) -> Result<()> {
        let state = self.open()?;
        if version == Version::ZERO {
            return Err(Error::new(ErrorCode::VersionInvalid, Stage::Client, "zero"));
        }
        match state.work.read_version.set(version) {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::ReadVersionAlreadySet, Stage::Client, "")),
        }
    }

    /// The read version of a commit. Of one that has read nothing any recent version will do, see
    /// [`exactly_once`](crate::exactly_once).
    pub(super) async fn version_to_commit(&self, call: &Call, fate: Fate) -> Result<Version> {
        let is_blind =
            call.attempt == 0 && fate == Fate::Closed && self.committing(call)?.work.is_blind();
        if is_blind && let Some(version) = self.shared.database.cluster().recent_version() {
            // Unless it has one already, or is being told one.
            call.read_version.set(version);
        }
        self.version_for(call).await
    }

    /// A version to measure data at: the transaction's, if it has one. If not, it gets none by this.
    pub(super) async fn version_to_measure(&self, call: &Call) -> Result<Version> {
        match call.read_version.get() {
            Some(version) => Ok(version),
            None if planted(Plant::MeasureTakesReadVersion) => self.version_for(call).await,
            None => self.shared.database.cluster().read_version(call.priority).await,
        }
    }

    /// The read version of the call's attempt. Whoever comes first asks for it, the others wait.
    pub(super) async fn version_for(&self, call: &Call) -> Result<Version> {
        let ask = || {
            let database = self.shared.database.clone();
            let (own, staleness_max, priority) =
                (call.own_version, call.staleness_max, call.priority);
            async move {
                let cluster = database.cluster();
                let known = || staleness_max.and_then(|age| cluster.version_within(age));
                match own.or_else(known) {
                    Some(version) => Ok(version),
                    None => cluster.read_version(priority).await,
                }
            }
        };
        call.read_version.get_or_ask(ask).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn one_that_is_not_polled_holds_nobody_up() {
        let version = ReadVersion::default();
        let (answer, answered) = oneshot::channel();
        let ask = || async move { Ok(answered.await.unwrap()) };
        let mut first = Box::pin(version.get_or_ask(ask));
        assert!((&mut first).now_or_never().is_none());
        assert!(!version.set(Version(5)), "it is being asked for");
        answer.send(Version(7)).unwrap();
        let never = || async { panic!("it was asked for already") };
        assert_eq!(version.get_or_ask(never).await, Ok(Version(7)));
        assert_eq!(version.get(), Some(Version(7)));
        assert_eq!(first.await, Ok(Version(7)));
        assert!(!version.set(Version(5)));
    }

    #[tokio::test]
    async fn after_an_error_it_is_asked_for_again() {
        let version = ReadVersion::default();
        let busy = Error::new(ErrorCode::TooBusy, Stage::ReadVersion, "");
        let refused = busy.clone();
        assert_eq!(version.get_or_ask(|| async { Err(refused) }).await, Err(busy));
        assert!(version.set(Version(5)));
        assert_eq!(version.get(), Some(Version(5)));
    }
}
