//! What several workloads need: chance, patience, and counts that are known within bounds.

use std::{fmt, future::Future, ops::RangeInclusive, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{Database, Error, ErrorCode, Transaction};
use ferrisdb_core::{Value, runtime};

/// How long a client waits after an error before it goes on.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a set-up or a check is tried: through a recovery, not for ever.
const PATIENCE: u32 = 300;

/// A number below `bound`, or zero.
pub(super) fn draw(bound: u32) -> u32 {
    u32::try_from(runtime::random_u64() % u64::from(bound.max(1))).unwrap_or(0)
}

/// Whether chance says so, once in so many times.
pub(super) fn once_in(times: u32) -> bool {
    draw(times) == 0
}

/// Waits a little, so that clients that have failed do not all come back at once.
pub(super) async fn pause() {
    runtime::sleep(runtime::jitter(PAUSE)).await;
}

/// The error of the database in an error of a workload, if faults explain it.
///
/// # Errors
///
/// The same error, if it is not the database's, or one that no lost server or message can bring about.
pub(super) fn explained(error: anyhow::Error) -> Result<Error> {
    let error = error.downcast::<Error>()?;
    if is_explained(error.code()) { Ok(error) } else { Err(error.into()) }
}

/// Whether a lost or damaged server, or a lost message, can be the cause.
fn is_explained(code: ErrorCode) -> bool {
    use ErrorCode::*;
    matches!(
        code,
        WrongShard
            | TimedOut
            | TransactionTooOld
            | FutureVersion
            | NotCommitted
            | CommitUnknownResult
            | TransactionTimedOut
            | TooBusy
            | GenerationEnded
            | Unreachable
            | Disk
            | Corrupt
            | NoSuchEndpoint
            | Unavailable
            | ShuttingDown
            | NotLeader
    )
}

/// Runs a transaction of a set-up or a check, which no fault may keep from its end. It should not matter whether
/// it is applied twice.
///
/// # Errors
///
/// What the body has found to be wrong, or the last error of the database.
pub(super) async fn patiently<T, F, Fut>(database: &Database, mut body: F) -> Result<T>
where
    F: FnMut(Transaction) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    for _ in 1..PATIENCE {
        match database.run_transaction(&mut body).await {
            Ok(value) => return Ok(value),
            Err(error) => explained(error)?,
        };
        pause().await;
    }
    database.run_transaction(body).await
}

/// A counter as `Transaction::add` keeps it: zero if it is absent.
///
/// # Errors
///
/// If it has not eight bytes.
pub(super) fn counter(value: Option<&Value>) -> Result<u64> {
    let Some(value) = value else { return Ok(0) };
    let bytes = value.as_slice().try_into();
    Ok(u64::from_le_bytes(bytes.with_context(|| format!("'{value}' is no counter (I-2)"))?))
}

/// What clients know of how often something has taken effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// How often it was begun.
    pub(super) begun: u64,
    /// How often the database has acknowledged it.
    pub(super) acknowledged: u64,
    /// How often the database has said that it did not and will not take effect.
    pub(super) refused: u64,
}

impl Tally {
    /// Notes how one attempt ended that was begun before. Of unknown ones nothing is noted.
    pub(super) fn end(&mut self, outcome: Result<(), &Error>) {
        match outcome {
            Ok(()) => self.acknowledged += 1,
            Err(error) if error.is_maybe_committed() => {}
            Err(_) => self.refused += 1,
        }
    }

    /// How often it can have taken effect.
    pub(super) fn bounds(&self) -> RangeInclusive<u64> {
        self.acknowledged..=self.begun - self.refused
    }

    /// How many have ended with an unknown result, or not at all.
    pub(super) fn unknown(&self) -> u64 {
        self.begun - self.refused - self.acknowledged
    }

    /// Compares with a count in the database.
    ///
    /// # Errors
    ///
    /// If it is out of bounds.
    pub(super) fn check(&self, what: impl fmt::Display, found: u64) -> Result<()> {
        let bounds = self.bounds();
        ensure!(
            found >= *bounds.start(),
            "{what} is {found}, but {} were acknowledged (I-5)",
            self.acknowledged
        );
        ensure!(
            found <= *bounds.end(),
            "{what} is {found}, but of {} begun ones {} were refused: one took effect twice, or although it was refused (I-6)",
            self.begun,
            self.refused
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Stage;

    use super::*;

    #[test]
    fn a_tally_knows_its_bounds() {
        let error = |code| Error::new(code, Stage::Commit, "");
        let mut tally = Tally { begun: 5, ..Tally::default() };
        tally.end(Ok(()));
        tally.end(Ok(()));
        tally.end(Err(&error(ErrorCode::CommitUnknownResult)));
        tally.end(Err(&error(ErrorCode::NotCommitted)));
        assert_eq!((tally.bounds(), tally.unknown()), (2..=4, 2));
        for right in 2..=4 {
            tally.check("it", right).unwrap();
        }
        assert!(tally.check("it", 1).unwrap_err().to_string().contains("I-5"));
        assert!(tally.check("it", 5).unwrap_err().to_string().contains("I-6"));
    }

    #[test]
    fn only_faults_are_explained() {
        let error = |code| anyhow::Error::from(Error::new(code, Stage::Read, ""));
        assert_eq!(
            explained(error(ErrorCode::Unavailable)).unwrap().code(),
            ErrorCode::Unavailable
        );
        explained(error(ErrorCode::InvertedRange)).unwrap_err();
        explained(anyhow::anyhow!("a wrong sum")).unwrap_err();
    }

    #[test]
    fn counters_have_eight_bytes() {
        assert_eq!(counter(None).unwrap(), 0);
        assert_eq!(counter(Some(&Value::from(&7u64.to_le_bytes()))).unwrap(), 7);
        counter(Some(&Value::from("torn"))).unwrap_err();
    }
}
