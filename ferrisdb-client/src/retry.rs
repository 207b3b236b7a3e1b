//! Starting over: which errors, after how long, and without applying anything twice.
//!
//! ```text
//!   body ok, commit ok                done
//!   retryable error                   wait 10 ms, 20 ms, ... up to 1 s, each a little random; start over
//!   commit_unknown_result             keep what the body returned; look for the attempt's record
//!                                     (see exactly_once) before the body runs again
//!   any other error of the body       give up, but not before it is sure that no earlier attempt
//!                                     is committed after all
//! ```

use std::{future::Future, time::Duration};

use ferrisdb_core::{Error, ErrorCode, Result, Stage, runtime};

use crate::{
    database::Database,
    options::{ExactlyOnce, TransactionOptions},
    transaction::Transaction,
};

/// The first delay between two attempts.
const DELAY_MIN: Duration = Duration::from_millis(10);

/// An error that may hold one of FerrisDB's, by which `run_transaction` decides whether to start over.
///
/// An error type of your own implements it with [`find_error`], or by a match:
///
/// ```
/// use ferrisdb_client::{AsError, Error};
///
/// enum BankError {
///     NotEnoughMoney,
///     Database(Error),
/// }
///
/// impl From<Error> for BankError {
///     fn from(error: Error) -> BankError {
///         BankError::Database(error)
///     }
/// }
///
/// impl AsError for BankError {
///     fn as_error(&self) -> Option<&Error> {
///         match self {
///             BankError::NotEnoughMoney => None,
///             BankError::Database(error) => Some(error),
///         }
///     }
/// }
/// ```
pub trait AsError {
    /// The FerrisDB error inside, if there is one.
    fn as_error(&self) -> Option<&Error>;
}

impl AsError for Error {
    fn as_error(&self) -> Option<&Error> {
        Some(self)
    }
}

impl AsError for Box<dyn std::error::Error + Send + Sync> {
    fn as_error(&self) -> Option<&Error> {
        find_error(self.as_ref())
    }
}

impl AsError for Box<dyn std::error::Error> {
    fn as_error(&self) -> Option<&Error> {
        find_error(self.as_ref())
    }
}

#[cfg(feature = "anyhow")]
impl AsError for anyhow::Error {
    fn as_error(&self) -> Option<&Error> {
        self.downcast_ref().or_else(|| find_error(self.as_ref()))
    }
}

/// The FerrisDB error among an error and its sources.
///
/// ```
/// use ferrisdb_client::{Error, ErrorCode, Stage, find_error};
/// let inside = Error::new(ErrorCode::NotCommitted, Stage::Resolve, "");
/// let boxed: Box<dyn std::error::Error> = inside.clone().into();
/// assert_eq!(find_error(boxed.as_ref()), Some(&inside));
/// ```
pub fn find_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref())
}

/// How often a transaction has started over, and how long it waits next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    retries: u32,
    delay: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { retries: 0, delay: DELAY_MIN }
    }
}

impl Backoff {
    /// How long to wait before starting over after `error`; `None` if that should not be.
    pub(crate) fn next(&mut self, error: &Error, options: &TransactionOptions) -> Option<Duration> {
        let exhausted = options.retry_limit.is_some_and(|limit| self.retries >= limit);
        if !error.is_retryable() || exhausted {
            return None;
        }
        self.retries = self.retries.saturating_add(1);
        let delay = match error.code() {
            // Not a sign of load: waiting longer does not make the next attempt any better.
            ErrorCode::TransactionTooOld | ErrorCode::FutureVersion => DELAY_MIN,
            _ => {
                let delay = self.delay;
                self.delay = (self.delay * 2).min(options.retry_delay_max);
                delay
            }
        };
        Some(runtime::jitter(delay.min(options.retry_delay_max)))
    }
}

/// An attempt whose commit got no answer.
struct Unknown<T> {
    transaction: Transaction,
    /// What the body returned: the answer, if this is the attempt that was committed.
    result: T,
}

/// Runs a transaction until it is committed, once.
pub(crate) async fn run<T, E, F, Fut>(database: &Database, mut body: F) -> Result<T, E>
where
    F: FnMut(Transaction) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<Error> + AsError,
{
    let mut transaction = database.transaction();
    let exactly_once = database.settings().exactly_once;
    if exactly_once == ExactlyOnce::ById {
        transaction.draw_idempotency_id();
    }
    let mut unknown: Vec<Unknown<T>> = Vec::new();
    // Why the body gave up while the fate of an earlier attempt was open.
    let mut given_up: Option<E> = None;
    'attempts: loop {
        let error = 'attempt: {
            if transaction.is_fate_open() {
                match transaction.earlier_commit().await {
                    Ok(Some(committed)) => {
                        let is_it =
                            |attempt: &Unknown<T>| attempt.transaction.is_attempt(committed);
                        let found = unknown.into_iter().find(is_it).map(|attempt| attempt.result);
                        // Otherwise it was the empty attempt of a body that had given up.
                        return found.map_or_else(|| Err(no_result(given_up)), Ok);
                    }
                    Ok(None) => {}
                    Err(error) => break 'attempt error,
                }
            }
            let result = match &given_up {
                Some(_) => None,
                // In a box: see `Transaction::read_key`.
                None => match Box::pin(body(transaction.clone())).await {
                    Ok(result) => Some(result),
                    Err(error) => match error.as_error().filter(|error| helps_to_retry(error)) {
                        Some(error) => break 'attempt error.clone(),
                        None if !transaction.is_fate_open() => return Err(error),
                        // An earlier attempt may be on its way still. An empty one that commits keeps it out.
                        None => {
                            given_up = Some(error);
                            transaction = transaction.successor();
                            continue 'attempts;
                        }
                    },
                },
            };
            match transaction.commit_unless_done().await {
                Ok(()) => return result.ok_or_else(|| no_result(given_up)),
                Err(error) => {
                    if let (true, Some(result)) = (error.is_maybe_committed(), result) {
                        unknown.push(Unknown { transaction: transaction.clone(), result });
                    }
                    error
                }
            }
        };
        if error.is_maybe_committed() {
            if exactly_once == ExactlyOnce::Refuse {
                return Err(error.into());
            }
            transaction.set_fate_open();
        }
        if let Err(last) = transaction.wait_to_retry(error).await {
            // Not even a conflict may be reported as such while an earlier attempt can still take effect.
            let fate_open = transaction.is_fate_open() && !last.is_maybe_committed();
            return Err(if fate_open { still_unknown(&last).into() } else { last.into() });
        }
        transaction = transaction.successor();
    }
}

/// Whether to start over after an error that the body returned. Not if it says that something may have been
/// committed: that was another transaction, which this one knows nothing of.
fn helps_to_retry(error: &Error) -> bool {
    error.is_retryable() && !error.is_maybe_committed()
}

/// The error of a run that has committed nothing of the body's.
fn no_result<E: From<Error>>(given_up: Option<E>) -> E {
    given_up.unwrap_or_else(|| {
        let detail = "the record of an attempt names one that was not made";
        Error::new(ErrorCode::Internal, Stage::Commit, detail).into()
    })
}

fn still_unknown(last: &Error) -> Error {
    let detail = format!("an earlier attempt got no answer; then: {last}");
    Error::new(ErrorCode::CommitUnknownResult, Stage::Commit, detail)
}
