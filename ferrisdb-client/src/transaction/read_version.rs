//! The version that an attempt reads: asked for by whoever comes first, for all.
//!
//! Those that wait ask together: should the first of them not be polled any more, the others go on with the question.

use std::{future::Future, sync::OnceLock};

use ferrisdb_core::{Result, Version};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

/// A version that is known, asked for, or neither.
#[derive(Default)]
pub(super) struct ReadVersion {
    known: OnceLock<Version>,
    asked: Mutex<Option<Shared<BoxFuture<'static, Result<Version>>>>>,
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
            asked.get_or_insert_with(|| ask().boxed().shared()).clone()
        };
        let answer = question.clone().await;
        let mut asked = self.asked.lock();
        // Of those that have waited for this answer, the first one takes it down.
        if asked.as_ref().is_some_and(|asked| asked.ptr_eq(&question)) {
            *asked = None;
            if let Ok(version) = answer {
                let _ = self.known.set(version);
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{Error, ErrorCode, Stage};
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
