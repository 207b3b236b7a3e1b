//! Options of databases and transactions: numbers with a value in bytes, as C sets them, and what they mean here.
//!
//! ```text
//!   known, and it means something here     done
//!   known, but about FoundationDB itself   accepted: what it tunes does not exist here
//!   known, and it cannot be kept           unsupported_operation
//!   not known                              invalid_option
//! ```
//!
//! Numbers and names are those of FoundationDB's `fdb.options`.

use std::time::Duration;

use ferrisdb_client::{Error, Priority, TransactionOption};
use ferrisdb_core::{digest::ValueDigest, transaction::IdempotencyId};

use crate::errors::{self, Code};

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No value.
    Nothing,
    /// Eight bytes, the lowest first.
    Number,
    /// Any bytes.
    Bytes,
}

/// A value, as its option takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// No value.
    Nothing,
    /// A number.
    Number(i64),
    /// Bytes.
    Bytes(&'a [u8]),
}

use Takes::{Bytes, Nothing, Number};

/// Numbers of database options, with the transaction option that they are the default of, if any.
const DATABASE: &[(i32, Option<i32>, Takes)] = &[
    (10, None, Number),
    (LOCAL_WATCHES_MAX, None, Number),
    (21, None, Bytes),
    (22, None, Bytes),
    (26, Some(SNAPSHOT_RYW_ENABLE), Nothing),
    (27, Some(SNAPSHOT_RYW_DISABLE), Nothing),
    (405, Some(405), Number),
    (500, Some(TIMEOUT), Number),
    (501, Some(RETRY_LIMIT), Number),
    (502, Some(RETRY_DELAY_MAX), Number),
    (503, Some(SIZE_LIMIT), Number),
    (504, Some(20), Nothing),
    (505, Some(23), Nothing),
    (506, Some(AUTOMATIC_IDEMPOTENCY), Nothing),
    (700, Some(BYPASS_UNREADABLE), Nothing),
    (701, Some(USED_DURING_COMMIT_UNPROTECTED), Nothing),
    (702, Some(REPORT_CONFLICTS), Nothing),
    (900, None, Number),
];

const LOCAL_WATCHES_MAX: i32 = 20;
const CAUSAL_WRITE_RISKY: i32 = 10;
const NEXT_WRITE_WITHOUT_CONFLICT: i32 = 30;
const READ_YOUR_WRITES_DISABLE: i32 = 51;
const PRIORITY_IMMEDIATE: i32 = 200;
const PRIORITY_BATCH: i32 = 201;
const ACCESS_SYSTEM_KEYS: i32 = 301;
const READ_SYSTEM_KEYS: i32 = 302;
const RAW_ACCESS: i32 = 303;
const TIMEOUT: i32 = 500;
const RETRY_LIMIT: i32 = 501;
const RETRY_DELAY_MAX: i32 = 502;
const SIZE_LIMIT: i32 = 503;
const IDEMPOTENCY_ID: i32 = 504;
const AUTOMATIC_IDEMPOTENCY: i32 = 505;
const SNAPSHOT_RYW_ENABLE: i32 = 600;
const SNAPSHOT_RYW_DISABLE: i32 = 601;
const USED_DURING_COMMIT_UNPROTECTED: i32 = 701;
const REPORT_CONFLICTS: i32 = 712;
const SPECIAL_KEYS_RELAXED: i32 = 713;
const SPECIAL_KEY_WRITES: i32 = 714;
const TAG: i32 = 800;
const AUTO_THROTTLE_TAG: i32 = 801;
const SPAN_PARENT: i32 = 900;
const BYPASS_UNREADABLE: i32 = 1100;

const TRANSACTION: &[(i32, Takes)] = &[
    (CAUSAL_WRITE_RISKY, Nothing),
    (20, Nothing),
    (21, Nothing),
    (23, Nothing),
    (NEXT_WRITE_WITHOUT_CONFLICT, Nothing),
    (33, Number),
    (50, Nothing),
    (READ_YOUR_WRITES_DISABLE, Nothing),
    (52, Nothing),
    (110, Nothing),
    (120, Nothing),
    (130, Nothing),
    (PRIORITY_IMMEDIATE, Nothing),
    (PRIORITY_BATCH, Nothing),
    (300, Nothing),
    (ACCESS_SYSTEM_KEYS, Nothing),
    (READ_SYSTEM_KEYS, Nothing),
    (RAW_ACCESS, Nothing),
    (304, Nothing),
    (401, Bytes),
    (402, Bytes),
    (403, Bytes),
    (404, Nothing),
    (405, Number),
    (406, Nothing),
    (TIMEOUT, Number),
    (RETRY_LIMIT, Number),
    (RETRY_DELAY_MAX, Number),
    (SIZE_LIMIT, Number),
    (IDEMPOTENCY_ID, Bytes),
    (AUTOMATIC_IDEMPOTENCY, Nothing),
    (507, Nothing),
    (508, Nothing),
    (509, Nothing),
    (510, Nothing),
    (511, Nothing),
    (SNAPSHOT_RYW_ENABLE, Nothing),
    (SNAPSHOT_RYW_DISABLE, Nothing),
    (700, Nothing),
    (USED_DURING_COMMIT_UNPROTECTED, Nothing),
    (702, Nothing),
    (710, Nothing),
    (711, Nothing),
    (REPORT_CONFLICTS, Nothing),
    (SPECIAL_KEYS_RELAXED, Nothing),
    (SPECIAL_KEY_WRITES, Nothing),
    (TAG, Bytes),
    (AUTO_THROTTLE_TAG, Bytes),
    (SPAN_PARENT, Bytes),
    (1000, Nothing),
    (BYPASS_UNREADABLE, Nothing),
    (1101, Nothing),
    (1102, Nothing),
    (1103, Number),
    (2000, Bytes),
    (4000, Nothing),
    (4001, Number),
];

/// A transaction's tag is at most so long.
const TAG_BYTES_MAX: usize = 16;
/// How long an idempotency id may be.
const ID_BYTES: std::ops::Range<usize> = 16..256;
/// The context that a span's parent is passed as has this length.
const SPAN_BYTES: usize = 33;

/// The value in the form that the option takes.
///
/// # Errors
///
/// `invalid_option_value`.
pub fn given(takes: Takes, value: Option<&[u8]>) -> Result<Given<'_>, Code> {
    let value = value.unwrap_or_default();
    match takes {
        Takes::Nothing if value.is_empty() => Ok(Given::Nothing),
        Takes::Nothing => Err(errors::INVALID_OPTION_VALUE),
        Takes::Number => {
            let number = value.try_into().map_err(|_| errors::INVALID_OPTION_VALUE)?;
            Ok(Given::Number(i64::from_le_bytes(number)))
        }
        Takes::Bytes => Ok(Given::Bytes(value)),
    }
}

/// What a database option means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseSetting {
    /// So many watches at a time.
    WatchesMax(usize),
    /// What each transaction begins with.
    Default(TransactionSetting),
    /// Nothing here.
    Ignored,
}

/// The meaning of a database option.
///
/// # Errors
///
/// `invalid_option`, `invalid_option_value`.
pub fn of_database(option: i32, value: Option<&[u8]>) -> Result<DatabaseSetting, Code> {
    let known = DATABASE.iter().find(|(number, ..)| *number == option);
    let &(_, default_of, takes) = known.ok_or(errors::INVALID_OPTION)?;
    match (option, given(takes, value)?) {
        (LOCAL_WATCHES_MAX, Given::Number(max)) => {
            let max = usize::try_from(max).map_err(|_| errors::INVALID_OPTION_VALUE)?;
            Ok(DatabaseSetting::WatchesMax(max))
        }
        _ => match default_of {
            Some(option) => of_transaction(option, value).map(DatabaseSetting::Default),
            None => Ok(DatabaseSetting::Ignored),
        },
    }
}

/// What a transaction option means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionSetting {
    /// What the client's transaction has an option for.
    Client(TransactionOption),
    /// Misuse while the transaction is committed does no further harm.
    UsedDuringCommitUnprotected,
    /// Special keys may be written.
    SpecialKeyWrites,
    /// A tag, for the throttling of many transactions at once.
    Tag(Vec<u8>),
    /// Nothing here.
    Ignored,
}

/// The meaning of a transaction option.
///
/// # Errors
///
/// `invalid_option`, `invalid_option_value`, `tag_too_long`.
pub fn of_transaction(option: i32, value: Option<&[u8]>) -> Result<TransactionSetting, Code> {
    let known = TRANSACTION.iter().find(|(number, _)| *number == option);
    let &(_, takes) = known.ok_or(errors::INVALID_OPTION)?;
    let given = given(takes, value)?;
    let client = match (option, given) {
        (CAUSAL_WRITE_RISKY, _) => TransactionOption::CausalWriteRisky,
        (NEXT_WRITE_WITHOUT_CONFLICT, _) => TransactionOption::NextWriteWithoutConflict,
        (READ_YOUR_WRITES_DISABLE, _) => TransactionOption::ReadYourWritesDisabled,
        (PRIORITY_IMMEDIATE, _) => TransactionOption::Priority(Priority::Immediate),
        (PRIORITY_BATCH, _) => TransactionOption::Priority(Priority::Batch),
        (ACCESS_SYSTEM_KEYS, _) => TransactionOption::AccessSystemKeys,
        (READ_SYSTEM_KEYS | RAW_ACCESS, _) => TransactionOption::ReadSystemKeys,
        (TIMEOUT, Given::Number(limit)) => TransactionOption::Timeout(milliseconds(limit)?),
        (RETRY_LIMIT, Given::Number(-1)) => TransactionOption::RetryLimit(None),
        (RETRY_LIMIT, Given::Number(limit)) => {
            let limit = i32::try_from(limit).ok().and_then(|limit| u32::try_from(limit).ok());
            TransactionOption::RetryLimit(Some(limit.ok_or(errors::INVALID_OPTION_VALUE)?))
        }
        (RETRY_DELAY_MAX, Given::Number(limit)) => {
            TransactionOption::RetryDelayMax(milliseconds(limit)?)
        }
        (SIZE_LIMIT, Given::Number(limit)) => {
            let limit = usize::try_from(limit).map_err(|_| errors::INVALID_OPTION_VALUE)?;
            TransactionOption::SizeLimit(limit)
        }
        (SNAPSHOT_RYW_ENABLE, _) => TransactionOption::SnapshotReadYourWritesEnabled,
        (SNAPSHOT_RYW_DISABLE, _) => TransactionOption::SnapshotReadYourWritesDisabled,
        (REPORT_CONFLICTS, _) => TransactionOption::ReportConflicts,
        (SPECIAL_KEYS_RELAXED, _) => TransactionOption::SpecialKeysRelaxed,
        (BYPASS_UNREADABLE, _) => TransactionOption::BypassUnreadable,
        (IDEMPOTENCY_ID, Given::Bytes(id)) => TransactionOption::IdempotencyId(idempotency_id(id)?),
        (AUTOMATIC_IDEMPOTENCY, _) => TransactionOption::AutomaticIdempotency,
        (USED_DURING_COMMIT_UNPROTECTED, _) => {
            return Ok(TransactionSetting::UsedDuringCommitUnprotected);
        }
        (SPECIAL_KEY_WRITES, _) => return Ok(TransactionSetting::SpecialKeyWrites),
        (TAG | AUTO_THROTTLE_TAG, Given::Bytes(tag)) if tag.len() > TAG_BYTES_MAX => {
            return Err(errors::TAG_TOO_LONG);
        }
        (TAG | AUTO_THROTTLE_TAG, Given::Bytes(tag)) => {
            return Ok(TransactionSetting::Tag(tag.to_vec()));
        }
        (SPAN_PARENT, Given::Bytes(span)) if span.len() != SPAN_BYTES => {
            return Err(errors::INVALID_OPTION_VALUE);
        }
        _ => return Ok(TransactionSetting::Ignored),
    };
    Ok(TransactionSetting::Client(client))
}

/// An id of the program's: as it is, if it has the length of ours; otherwise a digest of it.
fn idempotency_id(id: &[u8]) -> Result<IdempotencyId, Code> {
    if !ID_BYTES.contains(&id.len()) {
        return Err(errors::INVALID_OPTION);
    }
    let first = match id.first_chunk() {
        Some(whole) if id.len() == whole.len() => *whole,
        _ => ValueDigest::of(id).first_bytes(),
    };
    Ok(IdempotencyId::from_be_bytes(first))
}

fn milliseconds(number: i64) -> Result<Duration, Code> {
    // FoundationDB's bounds: what fits into a number of 32 bits.
    let number = i32::try_from(number).ok().and_then(|number| u64::try_from(number).ok());
    number.map(Duration::from_millis).ok_or(errors::INVALID_OPTION_VALUE)
}

/// Whether an error of an option is not told at once: FoundationDB hands the value on to the thread of the network, and what is wrong
/// with it is the error of whatever comes next. It keeps time before that, so a timeout is looked at at once.
pub fn shows_up_later(option: i32, code: Code) -> bool {
    code != errors::INVALID_OPTION && option != TIMEOUT
}

/// Whether the client's complaint is about the option's value, not about the state of the transaction.
pub fn is_about_value(error: &Error) -> bool {
    error.code() == ferrisdb_client::ErrorCode::InvalidArgument
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_form_that_the_option_takes() {
        let number = 500i64.to_le_bytes();
        let timeout = TransactionOption::Timeout(Duration::from_millis(500));
        assert_eq!(of_transaction(500, Some(&number)), Ok(TransactionSetting::Client(timeout)));
        assert_eq!(of_transaction(500, Some(&number[..4])), Err(errors::INVALID_OPTION_VALUE));
        assert_eq!(of_transaction(500, None), Err(errors::INVALID_OPTION_VALUE));
        let negative = (-1i64).to_le_bytes();
        assert_eq!(of_transaction(500, Some(&negative)), Err(errors::INVALID_OPTION_VALUE));
        let unlimited = TransactionOption::RetryLimit(None);
        assert_eq!(of_transaction(501, Some(&negative)), Ok(TransactionSetting::Client(unlimited)));
        assert_eq!(of_transaction(301, Some(b"x")), Err(errors::INVALID_OPTION_VALUE));
        assert_eq!(of_transaction(12_345, None), Err(errors::INVALID_OPTION));
        assert_eq!(of_transaction(800, Some(&[b'x'; 17])), Err(errors::TAG_TOO_LONG));
        assert_eq!(of_transaction(700, None), Ok(TransactionSetting::Ignored));
    }

    #[test]
    fn an_id_is_of_sixteen_bytes_or_a_digest_of_more() {
        let id = |bytes: &[u8]| match of_transaction(504, Some(bytes))? {
            TransactionSetting::Client(TransactionOption::IdempotencyId(id)) => Ok(id),
            other => panic!("{other:?}"),
        };
        assert_eq!(id(&7u128.to_be_bytes()), Ok(7));
        assert_eq!(id(b"fifteen bytes.."), Err(errors::INVALID_OPTION));
        assert_eq!(id(&[1; 256]), Err(errors::INVALID_OPTION));
        assert_ne!(id(&[1; 255]), id(&[1; 254]));
        assert_eq!(id(&[1; 255]), id(&[1; 255]));
    }

    #[test]
    fn only_what_is_not_known_and_timeouts_are_refused_at_once() {
        assert!(!shows_up_later(12_345, errors::INVALID_OPTION));
        assert!(!shows_up_later(TIMEOUT, errors::INVALID_OPTION_VALUE));
        for option in [RETRY_LIMIT, RETRY_DELAY_MAX, SIZE_LIMIT, ACCESS_SYSTEM_KEYS] {
            assert!(shows_up_later(option, errors::INVALID_OPTION_VALUE));
        }
        assert!(shows_up_later(TAG, errors::TAG_TOO_LONG));
    }

    #[test]
    fn defaults_are_options_of_transactions() {
        let number = 7i64.to_le_bytes();
        let limit = TransactionSetting::Client(TransactionOption::RetryLimit(Some(7)));
        assert_eq!(of_database(501, Some(&number)), Ok(DatabaseSetting::Default(limit)));
        assert_eq!(of_database(20, Some(&number)), Ok(DatabaseSetting::WatchesMax(7)));
        let negative = (-1i64).to_le_bytes();
        assert_eq!(of_database(20, Some(&negative)), Err(errors::INVALID_OPTION_VALUE));
        let automatic = TransactionSetting::Client(TransactionOption::AutomaticIdempotency);
        assert_eq!(of_database(506, None), Ok(DatabaseSetting::Default(automatic)));
        assert_eq!(of_database(10, Some(&number)), Ok(DatabaseSetting::Ignored));
        assert_eq!(of_database(301, None), Err(errors::INVALID_OPTION));
    }
}
