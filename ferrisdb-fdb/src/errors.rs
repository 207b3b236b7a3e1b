//! Error numbers: FoundationDB's, which programs compare with, and how ours become them.
//!
//! The numbers of [`ErrorCode`] are FoundationDB's already where the meaning is the same. What remains are numbers that only the
//! C interface has, and errors that FoundationDB does not tell apart: those that are worth a retry become
//! `process_behind`, the others keep FerrisDB's own number from 9000 on.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_int},
    sync::OnceLock,
};

use ferrisdb_client::{Error, ErrorCode, Stage};

/// `fdb_error_t`: zero, or what went wrong.
pub type Code = c_int;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $sentence:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = $number;)*

        /// What the numbers that only the C interface has say.
        const SENTENCES: &[(Code, &str)] = &[$(($number, $sentence)),*];
    };
}

codes! {
    /// No error.
    SUCCESS = 0, "success";
    /// The operation was given up by the program.
    OPERATION_CANCELLED = 1101, "the operation was cancelled";
    /// The memory of the result was given back.
    FUTURE_RELEASED = 1102, "the memory of the result was released";
    /// The database is locked.
    DATABASE_LOCKED = 1038, "the database is locked";
    /// A proxy has no memory left for commits.
    COMMIT_MEMORY = 1042, "a commit proxy has no memory left";
    /// A proxy has no memory left for read versions.
    READ_VERSION_MEMORY = 1078, "a proxy has no memory left for read versions";
    /// The transaction's tag is throttled.
    TAG_THROTTLED = 1213, "the tag of the transaction is throttled";
    /// As before, in a proxy.
    PROXY_TAG_THROTTLED = 1223, "the tag of the transaction is throttled in a proxy";
    /// As before, for a hot range.
    HOT_RANGE_THROTTLED = 1235, "the range that the transaction writes is throttled";
    /// As before, for another reason.
    RANGE_LOCKED = 1242, "the range that the transaction writes is locked";
    /// The call makes no sense here.
    CLIENT_INVALID_OPERATION = 2000, "the call makes no sense here";
    /// The range ends before it begins.
    INVERTED_RANGE = 2005, "the range ends before it begins";
    /// The option does not take this value.
    INVALID_OPTION_VALUE = 2006, "the option does not take this value";
    /// There is no such option.
    INVALID_OPTION = 2007, "there is no such option";
    /// The network has not been set up.
    NETWORK_NOT_SETUP = 2008, "the network of this process is not set up (a forked child has none of its parent's)";
    /// It was set up before.
    NETWORK_ALREADY_SETUP = 2009, "the network was set up before";
    /// The version is not one that can be read.
    VERSION_INVALID = 2011, "the version is not valid";
    /// The limits make no sense.
    RANGE_LIMITS_INVALID = 2012, "the limits of the range read are not valid";
    /// The future is not complete.
    FUTURE_NOT_SET = 2015, "the future is not complete yet";
    /// The future has no error.
    FUTURE_NOT_ERROR = 2016, "the future has no error";
    /// The transaction is being committed, or was.
    USED_DURING_COMMIT = 2017, "the transaction was used while it was being committed";
    /// There is no such atomic operation.
    INVALID_MUTATION_TYPE = 2018, "there is no such atomic operation";
    /// There is no versionstamp: the commit has failed.
    TRANSACTION_INVALID_VERSION = 2020, "the transaction was not committed, so it has no versionstamp";
    /// An option in the environment was refused.
    ENVIRONMENT_OPTION_FAILED = 2022, "a network option in the environment has a value that it does not take";
    /// It has run before.
    NETWORK_CANNOT_BE_RESTARTED = 2025, "the network has been stopped, and cannot run again";
    /// Waiting there would never end.
    BLOCKED_FROM_NETWORK_THREAD = 2026, "the network thread must not wait for itself";
    /// The template of a mapped range names an element in a form that is none, or one that a row does not have.
    MAPPER_BAD_INDEX = 2030, "the mapper names an element that is not there";
    /// Its range is not the last element.
    MAPPER_BAD_RANGE_DESCRIPTOR = 2032, "the mapper has {...} elsewhere than at its end";
    /// The key of a row is no tuple.
    KEY_NOT_TUPLE = 2041, "the key of a row that is mapped is not a tuple";
    /// The value of a row is no tuple.
    VALUE_NOT_TUPLE = 2042, "the value of a row that is mapped is not a tuple";
    /// The template is none.
    MAPPER_NOT_TUPLE = 2043, "the mapper is not a tuple";
    /// Exact streaming without a limit.
    EXACT_MODE_WITHOUT_LIMITS = 2210, "the exact streaming mode needs a limit";
    /// The connection string is wrong.
    CONNECTION_STRING_INVALID = 2104, "the connection string is not of the form description:id@host:port,...";
    /// Not offered.
    UNSUPPORTED_OPERATION = 2108, "the operation is not supported";
    /// Too many tags.
    TOO_MANY_TAGS = 2109, "the transaction has too many tags";
    /// The tag is too long.
    TAG_TOO_LONG = 2110, "the tag is too long";
    /// No such special key.
    SPECIAL_KEYS_NO_MODULE = 2113, "nothing is there in the special keyspace";
    /// The option for it was not set.
    SPECIAL_KEYS_WRITE_DISABLED = 2114, "writing special keys takes an option of the transaction";
    /// Nothing takes that write.
    SPECIAL_KEYS_NO_WRITE_MODULE = 2115, "nothing can be written there in the special keyspace";
    /// No version was chosen.
    API_VERSION_UNSET = 2200, "call fdb_select_api_version first";
    /// One was chosen before.
    API_VERSION_ALREADY_SET = 2201, "the API version was selected before";
    /// It is newer than the header.
    API_VERSION_INVALID = 2202, "the API version is newer than the header that the program was compiled with";
    /// Not known here.
    API_VERSION_NOT_SUPPORTED = 2203, "this library does not know that API version";
    /// FoundationDB's name for everything else.
    UNKNOWN_ERROR = 4000, "an unknown error occurred";
    /// A defect.
    INTERNAL_ERROR = 4100, "an internal error occurred";
}

/// Numbers that are worth a retry and have no code of ours: other words for a server with too much to do.
const ALSO_RETRYABLE: [Code; 7] = [
    DATABASE_LOCKED,
    COMMIT_MEMORY,
    READ_VERSION_MEMORY,
    TAG_THROTTLED,
    PROXY_TAG_THROTTLED,
    HOT_RANGE_THROTTLED,
    RANGE_LOCKED,
];

/// Retryable codes of ours that FoundationDB knows, under the same number and with the same class.
const RETRYABLE: [ErrorCode; 6] = [
    ErrorCode::TransactionTooOld,
    ErrorCode::FutureVersion,
    ErrorCode::NotCommitted,
    ErrorCode::CommitUnknownResult,
    ErrorCode::TooBusy,
    ErrorCode::BatchTransactionThrottled,
];

/// The number of an error.
pub fn number_of(error: &Error) -> Code {
    let code = error.code();
    if code.is_retryable() && !RETRYABLE.contains(&code) {
        return Code::from(ErrorCode::TooBusy.number());
    }
    Code::from(code.number())
}

/// The code of ours with the same meaning, as far as a retry is concerned.
pub fn as_error(number: Code) -> Error {
    let same = u16::try_from(number).ok().map(ErrorCode::from_number);
    let code = match same {
        _ if ALSO_RETRYABLE.contains(&number) => ErrorCode::TooBusy,
        Some(code) if Code::from(code.number()) == number => code,
        _ => ErrorCode::Internal,
    };
    Error::new(code, Stage::Client, format!("error {number} of the C interface"))
}

/// A sentence on a number; any number.
pub fn sentence(number: Code) -> &'static CStr {
    static ALL: OnceLock<BTreeMap<Code, CString>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let ours = ErrorCode::ALL.iter().map(|code| (Code::from(code.number()), code.sentence()));
        let text = |text: &str| CString::new(text).unwrap_or_default();
        ours.chain(SENTENCES.iter().copied()).map(|(code, words)| (code, text(words))).collect()
    });
    all.get(&number).map_or(c"unknown error", CString::as_c_str)
}

/// `FDBErrorPredicate`: what can be asked of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// The transaction may be tried again.
    Retryable,
    /// It may have been committed.
    MaybeCommitted,
    /// It may be tried again, and was not committed.
    RetryableNotCommitted,
}

impl Predicate {
    /// The predicate of a number, if there is one.
    pub fn of(number: c_int) -> Option<Predicate> {
        match number {
            50_000 => Some(Predicate::Retryable),
            50_001 => Some(Predicate::MaybeCommitted),
            50_002 => Some(Predicate::RetryableNotCommitted),
            _ => None,
        }
    }

    /// Whether it holds for an error number.
    pub fn holds(self, number: Code) -> bool {
        let error = as_error(number);
        // A change of the generation: ours says so only if nothing was committed, FoundationDB's may come after a commit.
        let may_be_committed =
            error.is_maybe_committed() || error.code() == ErrorCode::GenerationEnded;
        match self {
            Predicate::Retryable => error.is_retryable(),
            Predicate::MaybeCommitted => may_be_committed,
            Predicate::RetryableNotCommitted => error.is_retryable() && !may_be_committed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicates_are_those_of_the_interface() {
        let classes = |number| {
            [Predicate::Retryable, Predicate::MaybeCommitted, Predicate::RetryableNotCommitted]
                .map(|predicate| predicate.holds(number))
        };
        for number in [1007, 1009, 1020, 1037, 1038, 1042, 1051, 1078, 1213, 1223, 1235, 1242] {
            assert_eq!(classes(number), [true, false, true], "{number}");
        }
        for number in [1021, 1039] {
            assert_eq!(classes(number), [true, true, false], "{number}");
        }
        for number in [0, 1000, 1004, 1025, 1031, 1036, 1101, 1511, 2000, 2101, 4100, -1, 70_000] {
            assert_eq!(classes(number), [false; 3], "{number}");
        }
    }

    #[test]
    fn what_programs_do_not_know_becomes_what_they_know() {
        let number = |code| number_of(&Error::new(code, Stage::Client, ""));
        assert_eq!(number(ErrorCode::NotCommitted), 1020);
        assert_eq!(number(ErrorCode::Unavailable), 1037);
        assert_eq!(number(ErrorCode::GenerationEnded), 1037, "nothing was committed");
        assert_eq!(number(ErrorCode::WrongCluster), 9001);
        for code in ErrorCode::ALL {
            let error = Error::new(*code, Stage::Client, "");
            assert_eq!(
                Predicate::Retryable.holds(number_of(&error)),
                error.is_retryable(),
                "{code}"
            );
        }
    }

    #[test]
    fn each_number_has_a_sentence() {
        assert_eq!(sentence(0), c"success");
        assert_ne!(sentence(1020), sentence(1021));
        assert_eq!(sentence(-5), c"unknown error");
        assert_eq!(sentence(31_337), c"unknown error");
    }
}
