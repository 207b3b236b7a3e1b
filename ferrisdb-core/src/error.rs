//! The one public error: what happened, where in the pipeline, on which server, and what to try.
//!
//! A code exists if a caller can react to it in a way of its own; everything else goes into the detail.
//! The numbers are FoundationDB's where the meaning is the same, ours from 9000 on.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A result with FerrisDB's own error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $sentence:literal, $hint:literal;)*) => {
        /// What happened, in the ways that a caller can react to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of this file.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name),*];

            /// The number on the wire and in the C library.
            pub fn number(self) -> u16 {
                self as u16
            }

            /// The code of a number. A number that this version does not know is an internal error.
            pub fn from_number(number: u16) -> ErrorCode {
                match number {
                    $($number => ErrorCode::$name,)*
                    _ => ErrorCode::Internal,
                }
            }

            /// The name by which documentation and logs call it.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// One sentence on what happened.
            pub fn sentence(self) -> &'static str {
                match self { $(ErrorCode::$name => $sentence,)* }
            }

            /// What to try.
            pub fn hint(self) -> &'static str {
                match self { $(ErrorCode::$name => $hint,)* }
            }
        }
    };
}

error_codes! {
    /// The server does not hold the shard (at this version). The client looks the location up again.
    WrongShard = 1001, "wrong_shard", "the server does not hold this key", "retry: the client refreshes its map of the cluster";
    /// An operation took longer than allowed.
    TimedOut = 1004, "timed_out", "the operation timed out", "look at the cluster's status; raise the timeout if the load explains it";
    /// The read version has left the window.
    TransactionTooOld = 1007, "transaction_too_old", "the transaction is older than the versions that are kept", "retry with a new transaction; keep transactions under five seconds";
    /// The server has not reached the read version yet.
    FutureVersion = 1009, "future_version", "the server has not reached the transaction's read version", "retry; if it persists the storage server lags behind its log";
    /// Another transaction wrote what this one read.
    NotCommitted = 1020, "not_committed", "the transaction conflicts with another one", "retry the transaction";
    /// Nobody knows whether the transaction was committed.
    CommitUnknownResult = 1021, "commit_unknown_result", "the transaction may or may not have been committed", "check the transaction's effect before repeating it";
    /// Work in the background, while there is too much to do.
    BatchTransactionThrottled = 1051, "batch_transaction_throttled", "the cluster is too busy for work in the background", "retry later, or raise the transaction's priority";
    /// The transaction was cancelled.
    TransactionCancelled = 1025, "transaction_cancelled", "the transaction was cancelled", "begin a new transaction";
    /// The transaction's own timeout has passed.
    TransactionTimedOut = 1031, "transaction_timed_out", "the transaction did not finish within its timeout", "look at the cluster's status; raise the timeout";
    /// The database handle has as many watches as its settings allow.
    TooManyWatches = 1032, "too_many_watches", "more watches wait than the settings of the handle allow", "await or drop watches, or raise Settings::watches_max";
    /// A transaction that does not read its own writes cannot watch.
    WatchesDisabled = 1034, "watches_disabled", "a transaction that does not read its own writes cannot watch a key", "watch in a transaction without ReadYourWritesDisabled";
    /// The key's value depends on the versionstamp that the commit will give.
    AccessedUnreadable = 1036, "accessed_unreadable", "the value depends on a versionstamp that is not known before the commit", "read the key after the commit";
    /// A server is over its bound of queued work.
    TooBusy = 1037, "process_behind", "the server has more work queued than it may hold", "retry later; spread the load or add servers";
    /// The generation has ended; the client finds the next one.
    GenerationEnded = 1039, "cluster_version_changed", "the server belongs to a generation that has ended", "retry: the client finds the generation that follows";
    /// A server cannot be reached, or hung up.
    Unreachable = 1026, "connection_failed", "the server could not be reached", "check that the server runs and that its address is right";
    /// The peer speaks another version of the protocol.
    IncompatibleProtocol = 1109, "incompatible_protocol_version", "the peer speaks another version of the protocol", "run the same release on both sides";
    /// A disk refused or failed.
    Disk = 1510, "io_error", "a disk operation failed", "check the disk and the directory's permissions";
    /// A disk has no space left. It is tried again when there is some.
    DiskFull = 9010, "disk_full", "the disk has no space left", "free space on the disk, or give it more; the server goes on by itself";
    /// Data on disk is damaged.
    Corrupt = 1522, "file_corrupt", "data on disk is damaged", "do not restart in place: replace the server, or restore its directory from a copy";
    /// A key outside of what the transaction may touch.
    KeyOutsideLegalRange = 2004, "key_outside_legal_range", "the key is outside of the legal range", "keys from \\xff on need the option for system keys";
    /// A range that ends before it begins.
    InvertedRange = 2005, "inverted_range", "the range ends before it begins", "exchange begin and end";
    /// A value that an option or operation does not take.
    InvalidArgument = 2006, "invalid_option_value", "an argument is not valid", "see the detail";
    /// A call that makes no sense in this state or with these arguments.
    ClientInvalidOperation = 2000, "client_invalid_operation", "the call makes no sense here", "see the detail";
    /// The transaction has a read version already.
    ReadVersionAlreadySet = 2010, "read_version_already_set", "the transaction has a read version already", "set the version before the first read";
    /// The limits of a range read contradict each other.
    RangeLimitsInvalid = 2012, "range_limits_invalid", "the limits of the range read are not valid", "ask for at least one row";
    /// A transaction that wrote nothing has no commit version.
    NoCommitVersion = 2021, "no_commit_version", "the transaction wrote nothing, so it has no versionstamp", "ask for it in transactions that write";
    /// A write in a transaction that was declared to read only.
    TransactionReadOnly = 2023, "transaction_read_only", "the transaction only reads", "write in another transaction, or do not declare this one read-only";
    /// A list of servers, or a cluster file, that is not of the right form.
    ConnectionStringInvalid = 2104, "connection_string_invalid", "the cluster file or connection string is not of the right form", "it is description:id@host:port,host:port";
    /// No cluster file was found where one was looked for.
    NoClusterFile = 1515, "no_cluster_file_found", "there is no cluster file", "pass its path, set FERRISDB_CLUSTER_FILE, or put it into the default place";
    /// A transaction with too many tags.
    TooManyTags = 2109, "too_many_tags", "the transaction has too many tags", "use at most five";
    /// A tag that is too long.
    TagTooLong = 2110, "tag_too_long", "the tag is longer than allowed", "use at most sixteen bytes";
    /// A read over several modules of the special keyspace.
    SpecialKeysCrossModuleRead = 2112, "special_keys_cross_module_read", "the range spans several modules of the special keyspace", "read one module at a time, or set the option that allows it";
    /// A read of a special key that no module answers for.
    SpecialKeysNoModuleFound = 2113, "special_keys_no_module_found", "nothing is there in the special keyspace", "see the reference for the special keys there are";
    /// A write to the special keyspace without the option for it.
    SpecialKeysWriteDisabled = 2114, "special_keys_write_disabled", "the special keyspace is only read", "use the client's own functions to change things";
    /// Exact streaming without a limit.
    ExactModeWithoutLimits = 2210, "exact_mode_without_limits", "the exact streaming mode needs a limit", "set a limit of rows or bytes";
    /// The read version is one that nobody can have been given.
    VersionInvalid = 2011, "version_invalid", "the version is not valid", "take read versions from the cluster";
    /// The transaction is being committed, or was.
    UsedDuringCommit = 2017, "used_during_commit", "the transaction was used while it was being committed", "begin a new transaction";
    /// An atomic operation that cannot be applied to its argument.
    InvalidMutation = 2018, "invalid_mutation_type", "the atomic operation does not take this operand", "see the operation's documentation";
    /// The transaction is over its limit.
    TransactionTooLarge = 2101, "transaction_too_large", "the transaction affects more data than allowed", "split the work into several transactions";
    /// The key is over its limit.
    KeyTooLarge = 2102, "key_too_large", "the key is longer than allowed", "shorten the key, or store the long part in the value";
    /// The value is over its limit.
    ValueTooLarge = 2103, "value_too_large", "the value is longer than allowed", "split the value over several keys";
    /// Not offered by this server.
    Unsupported = 2108, "unsupported_operation", "the operation is not supported", "see the documentation for what is";
    /// The peer belongs to another cluster.
    WrongCluster = 9001, "wrong_cluster", "the peer belongs to another cluster", "check the address and the data directory: they are of different clusters";
    /// A data directory is in use by another process.
    DirectoryLocked = 9002, "directory_locked", "the data directory is in use by another process", "stop the other process, or use another directory";
    /// A data directory was made for something else, or by another version.
    WrongDirectory = 9003, "wrong_directory", "the data directory does not belong to this server", "check the path; use an empty directory for a new server";
    /// The role that the message is for does not run here.
    NoSuchEndpoint = 9004, "no_such_endpoint", "the role does not run at this address", "retry: the client refreshes its map of the cluster";
    /// The cluster is not available: a recovery is under way or waits for servers.
    Unavailable = 9005, "cluster_unavailable", "the cluster does not accept work now", "ask for the status: it says what the cluster waits for";
    /// The peer sent what the protocol does not allow.
    Protocol = 9006, "protocol_violation", "the peer sent a message that makes no sense here", "run the same release on both sides";
    /// The server is stopping.
    ShuttingDown = 9007, "shutting_down", "the server is stopping", "retry: another server takes over";
    /// The controller is not the leader. Processes and clients find the leader by themselves.
    NotLeader = 9008, "not_leader", "this controller does not lead the cluster", "ask the leader; if there is none, check that a majority of the controllers runs";
    /// What an operator asked for cannot be had with the processes there are.
    NotSatisfiable = 9009, "not_satisfiable", "the cluster cannot satisfy this", "see the detail for what is missing";
    /// A defect of FerrisDB.
    Internal = 4100, "internal_error", "an internal error occurred", "please report it with the server's log";
}

impl ErrorCode {
    /// Whether the whole transaction may be tried again from its beginning.
    pub fn is_retryable(self) -> bool {
        use ErrorCode::*;
        matches!(
            self,
            WrongShard
                | TransactionTooOld
                | FutureVersion
                | NotCommitted
                | CommitUnknownResult
                | TooBusy
                | BatchTransactionThrottled
                | GenerationEnded
                | Unreachable
                | NoSuchEndpoint
                | Unavailable
                | ShuttingDown
                | NotLeader
        )
    }

    /// Whether the transaction may have taken effect although the caller got an error (I-6).
    pub fn is_maybe_committed(self) -> bool {
        self == ErrorCode::CommitUnknownResult
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
        u16::deserialize(deserializer).map(ErrorCode::from_number)
    }
}

/// Where in the pipeline an error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Stage {
    /// In the client, before anything was sent.
    Client,
    /// On the way to a server.
    Connect,
    /// Getting a read version from a proxy.
    ReadVersion,
    /// Reading from a storage server.
    Read,
    /// In a proxy, before the transaction was resolved.
    Commit,
    /// In the sequencer.
    Sequence,
    /// In a resolver.
    Resolve,
    /// Making the batch durable on the logs.
    Log,
    /// Applying mutations in a storage server.
    Apply,
    /// In a controller.
    Control,
    /// Starting or stopping a process.
    Process,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Client => "in the client",
            Stage::Connect => "while connecting",
            Stage::ReadVersion => "while getting a read version",
            Stage::Read => "while reading",
            Stage::Commit => "in the commit proxy",
            Stage::Sequence => "in the sequencer",
            Stage::Resolve => "in the resolver",
            Stage::Log => "in the log",
            Stage::Apply => "in the storage server",
            Stage::Control => "in the controller",
            Stage::Process => "in the server process",
        })
    }
}

/// An error of FerrisDB. One pointer wide, because most results are not errors.
///
/// ```
/// use ferrisdb_core::{Error, ErrorCode, Stage};
/// let error = Error::new(ErrorCode::TransactionTooOld, Stage::Read, "read version 7, oldest kept 9")
///     .at("127.0.0.1:4505");
/// assert!(error.is_retryable());
/// assert_eq!(error.code().number(), 1007);
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Inner {
    code: ErrorCode,
    stage: Stage,
    server: Option<String>,
    detail: String,
}

impl Error {
    /// An error with what is known where it arises.
    pub fn new(code: ErrorCode, stage: Stage, detail: impl Into<String>) -> Error {
        Error(Box::new(Inner { code, stage, server: None, detail: detail.into() }))
    }

    /// Names the server it happened on, unless one is named already.
    #[must_use]
    pub fn at(mut self, server: impl fmt::Display) -> Error {
        self.0.server.get_or_insert_with(|| server.to_string());
        self
    }

    /// The same error, with another code: for a caller to whom it means something else.
    #[must_use]
    pub fn with_code(mut self, code: ErrorCode) -> Error {
        self.0.code = code;
        self
    }

    /// What happened.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// Where in the pipeline.
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// On which server, if it was on one.
    pub fn server(&self) -> Option<&str> {
        self.0.server.as_deref()
    }

    /// The particulars.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What to try.
    pub fn hint(&self) -> &'static str {
        self.0.code.hint()
    }

    /// See [`ErrorCode::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// See [`ErrorCode::is_maybe_committed`].
    pub fn is_maybe_committed(&self) -> bool {
        self.code().is_maybe_committed()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.code().sentence(), self.code(), self.code().number())?;
        write!(f, ", {}", self.stage())?;
        if let Some(server) = self.server() {
            write!(f, " on {server}")?;
        }
        if !self.detail().is_empty() {
            write!(f, ": {}", self.detail())?;
        }
        write!(f, " [{}]", self.hint())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
