//! What workloads have in common: draws, patience, and which errors a fault explains.
//!
//! ```text
//!   conflict, unavailable, too old ...     passes: the client tries again
//!   unknown result                         the workload finds out by itself
//!   anything else                          no fault explains it: the run has failed
//! ```
//!
//! Start with [`persist`].

use std::{collections::BTreeMap, future::Future, time::Duration};

use anyhow::{Result, anyhow, bail};
use ferrisdb_client::{
    AsError as _, Database, Error, ErrorCode, Key, KeyRange, Transaction, Value,
};
use ferrisdb_core::runtime;
use futures::TryStreamExt as _;

use super::Client;

/// How long a client waits before it tries again.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the database may refuse its work when no faults happen any more.
const PATIENCE: Duration = Duration::from_secs(180);

/// A number below `bound`, which is not zero.
pub fn draw(bound: usize) -> usize {
    (runtime::random_u64() % bound as u64) as usize
}

/// True in one of so many cases.
pub fn one_in(count: usize) -> bool {
    draw(count) == 0
}

/// One of these.
pub fn pick<T>(choices: &[T]) -> &T {
    &choices[draw(choices.len())]
}

/// Bytes of few different values, so that equal ones are met again.
pub fn few_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|_| *pick(b"\x00\x01\x7f\x80\xffab")).collect()
}

/// Waits a little.
pub async fn pause() {
    runtime::sleep(runtime::jitter(PAUSE)).await;
}

/// Whether a fault can be the reason of an error that says that nothing took effect.
pub fn passes(error: &Error) -> bool {
    let by_fault =
        matches!(error.code(), ErrorCode::TimedOut | ErrorCode::Disk | ErrorCode::DiskFull);
    (error.is_retryable() || by_fault) && !error.is_maybe_committed()
}

/// The database's error inside, if a fault explains it.
pub fn passing(error: &anyhow::Error) -> Option<&Error> {
    error.as_error().filter(|error| passes(error))
}

/// What became of one attempt to commit.
#[derive(Debug)]
pub enum Fate<T> {
    /// It took effect.
    Committed(T),
    /// It did not.
    Refused(Error),
    /// Nobody knows.
    Unknown,
}

/// Sorts the end of an attempt; errors that no fault explains are errors here.
///
/// # Errors
///
/// The error, if no fault explains it.
pub fn fate<T>(result: Result<T, Error>) -> Result<Fate<T>> {
    match result {
        Ok(value) => Ok(Fate::Committed(value)),
        Err(error) if error.is_maybe_committed() => Ok(Fate::Unknown),
        Err(error) if passes(&error) => Ok(Fate::Refused(error)),
        Err(error) => Err(error.into()),
    }
}

/// Does something again and again until it succeeds, through all faults. When they are over for long and it still
/// fails, that is a defect.
///
/// # Errors
///
/// An error that no fault explains, or the last one after a long time without faults.
pub async fn persist<T, Fut>(client: &Client, what: &str, work: impl Fn() -> Fut) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    let mut hopeless_since = None;
    loop {
        let error = match work().await {
            Ok(value) => return Ok(value),
            Err(error) if passing(&error).is_some() => error,
            Err(error) => return Err(error.context(what.to_owned())),
        };
        if client.is_stopped() {
            let since = *hopeless_since.get_or_insert_with(runtime::now);
            if runtime::now().duration_since(since) > PATIENCE {
                return Err(error.context(format!("{what}: not for {PATIENCE:?} without faults")));
            }
        }
        pause().await;
    }
}

/// Runs a transaction to its end, exactly once, through all faults.
///
/// # Errors
///
/// As [`persist`], and if the database cannot say what became of it.
pub async fn run<T, Fut>(
    client: &Client,
    what: &str,
    body: impl Fn(Transaction) -> Fut + Copy,
) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    persist(client, what, || client.database.run_transaction(body)).await
}

/// All rows of a range, at one version, read in pages.
///
/// # Errors
///
/// What became of the read.
pub async fn read_all(database: &Database, range: &KeyRange) -> Result<BTreeMap<Key, Value>> {
    let transaction = database.transaction();
    let rows: Vec<_> = transaction.snapshot().range_stream(range).try_collect().await?;
    let count = rows.len();
    let rows: BTreeMap<Key, Value> = rows.into_iter().map(|row| (row.key, row.value)).collect();
    if rows.len() != count {
        bail!("a range read gave a row twice in {range} (I-2)");
    }
    Ok(rows)
}

/// The part of a key between a prefix and the end.
///
/// # Errors
///
/// If the key has another beginning.
pub fn rest_of<'a>(key: &'a Key, prefix: &str) -> Result<&'a [u8]> {
    key.strip_prefix(prefix.as_bytes()).ok_or_else(|| anyhow!("{key} is not below {prefix}"))
}

/// Bytes as text, for keys and values that workloads write as such.
///
/// # Errors
///
/// If they are not.
pub fn text(bytes: &[u8]) -> Result<&str> {
    Ok(std::str::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Stage;

    use super::*;

    #[test]
    fn faults_explain_some_errors_only() {
        let error = |code| Error::new(code, Stage::Commit, "");
        assert!(matches!(
            fate::<()>(Err(error(ErrorCode::CommitUnknownResult))),
            Ok(Fate::Unknown)
        ));
        assert!(matches!(fate::<()>(Err(error(ErrorCode::NotCommitted))), Ok(Fate::Refused(_))));
        for code in [ErrorCode::Internal, ErrorCode::Protocol, ErrorCode::KeyTooLarge] {
            assert!(fate::<()>(Err(error(code))).is_err(), "{code}");
        }
        assert!(passing(&error(ErrorCode::Unavailable).into()).is_some());
        assert!(passing(&anyhow!("a wrong answer")).is_none());
    }
}
