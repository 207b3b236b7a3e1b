//! What can be wrong with a directory.

use std::fmt;

use ferrisdb_core::{Error, ErrorCode, Key, Stage, key};

use super::path::DirectoryPath;
use crate::{retry::AsError, tuple::TupleError};

/// Why an operation on directories was not done. Paths are counted from the root of the directory layer.
///
/// [`Database::run_transaction`](crate::Database::run_transaction) takes closures that return it. Where other errors
/// occur as well, it converts into [`Error`]: into the one inside of [`DirectoryError::Database`], else into one of the
/// code [`ErrorCode::InvalidArgument`] (and [`ErrorCode::Unsupported`] for another version of the format).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The root is no directory: it has no content, and can neither be opened nor moved nor removed.
    Root,
    /// There is a directory at this path already.
    AlreadyExists {
        /// Where.
        path: DirectoryPath,
    },
    /// There is no directory at this path.
    DoesNotExist {
        /// Where.
        path: DirectoryPath,
    },
    /// A move would put the directory below one that does not exist.
    ParentDoesNotExist {
        /// The directory that does not exist.
        path: DirectoryPath,
    },
    /// The directory belongs to another layer.
    WrongLayer {
        /// Where it is.
        path: DirectoryPath,
        /// The layer that was asked for.
        expected: Vec<u8>,
        /// The layer that it belongs to.
        found: Vec<u8>,
    },
    /// A move would put the directory into itself.
    MoveIntoItself {
        /// Where it is.
        path: DirectoryPath,
        /// Where it should go.
        to: DirectoryPath,
    },
    /// A move would lead into a partition, or out of one.
    MoveBetweenPartitions {
        /// Where the directory is.
        path: DirectoryPath,
        /// Where it should go.
        to: DirectoryPath,
    },
    /// A partition has no subspace of its own: data goes into directories inside of it.
    PartitionHasNoSubspace {
        /// Where it is.
        path: DirectoryPath,
    },
    /// The directory layer was not made with
    /// [`allow_manual_prefixes`](super::DirectoryLayer::allow_manual_prefixes).
    ManualPrefixesNotAllowed,
    /// Directories in a partition cannot have prefixes of the caller's: the partition's comes first.
    ManualPrefixInPartition {
        /// Where the partition is.
        path: DirectoryPath,
    },
    /// The prefix is empty, is the beginning of another directory's, or begins with one.
    PrefixInUse {
        /// The prefix.
        prefix: Key,
    },
    /// The allocator has chosen a prefix under which there is data already: something writes outside of its
    /// directory. Another attempt chooses another prefix.
    PrefixHasData {
        /// The prefix.
        prefix: Key,
    },
    /// The allocator has chosen a prefix that a manual one is in conflict with.
    PrefixConflictsWithManual {
        /// The prefix.
        prefix: Key,
    },
    /// The directories were written by a version of the format that this one cannot read, or not write.
    Version {
        /// The version that is there.
        found: [u32; 3],
    },
    /// A row of the directory layer is not what it should be.
    Malformed {
        /// Its key.
        key: Key,
        /// What is wrong with it.
        detail: String,
    },
    /// A key of a directory cannot be packed or unpacked.
    Tuple(TupleError),
    /// The transaction failed.
    Database(Error),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| key::escape(bytes);
        match self {
            DirectoryError::Root => {
                f.write_str("the root of the directories cannot be opened, moved or removed")
            }
            DirectoryError::AlreadyExists { path } => {
                write!(f, "directory '{path}' exists already")
            }
            DirectoryError::DoesNotExist { path } => write!(f, "directory '{path}' does not exist"),
            DirectoryError::ParentDoesNotExist { path } => {
                write!(f, "directory '{path}', where another one should go, does not exist")
            }
            DirectoryError::WrongLayer { path, expected, found } => {
                let (expected, found) = (text(expected), text(found));
                write!(f, "directory '{path}' is of layer '{found}', not of '{expected}'")
            }
            DirectoryError::MoveIntoItself { path, to } => {
                write!(f, "directory '{path}' cannot go to '{to}', into itself")
            }
            DirectoryError::MoveBetweenPartitions { path, to } => {
                write!(f, "directory '{path}' cannot go to '{to}', into another partition")
            }
            DirectoryError::PartitionHasNoSubspace { path } => {
                write!(f, "'{path}' is a partition: its data is in the directories inside of it")
            }
            DirectoryError::ManualPrefixesNotAllowed => {
                f.write_str("manual prefixes are not allowed in this directory layer")
            }
            DirectoryError::ManualPrefixInPartition { path } => {
                write!(f, "manual prefixes are not possible in the partition '{path}'")
            }
            DirectoryError::PrefixInUse { prefix } => {
                write!(f, "prefix '{prefix}' overlaps with that of another directory, or is empty")
            }
            DirectoryError::PrefixHasData { prefix } => {
                write!(f, "there is data under the prefix '{prefix}' that the allocator has chosen")
            }
            DirectoryError::PrefixConflictsWithManual { prefix } => {
                write!(f, "prefix '{prefix}', chosen by the allocator, overlaps with a manual one")
            }
            DirectoryError::Version { found: [major, minor, micro] } => write!(
                f,
                "the directories have version {major}.{minor}.{micro}, which this one cannot change"
            ),
            DirectoryError::Malformed { key, detail } => {
                write!(f, "the directory layer's row '{key}' is malformed: {detail}")
            }
            DirectoryError::Tuple(error) => fmt::Display::fmt(error, f),
            DirectoryError::Database(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for DirectoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DirectoryError::Tuple(error) => Some(error),
            DirectoryError::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for DirectoryError {
    fn from(error: Error) -> DirectoryError {
        DirectoryError::Database(error)
    }
}

impl From<TupleError> for DirectoryError {
    fn from(error: TupleError) -> DirectoryError {
        DirectoryError::Tuple(error)
    }
}

impl From<DirectoryError> for Error {
    fn from(error: DirectoryError) -> Error {
        let code = match error {
            DirectoryError::Database(error) => return error,
            DirectoryError::Version { .. } => ErrorCode::Unsupported,
            _ => ErrorCode::InvalidArgument,
        };
        Error::new(code, Stage::Client, error.to_string())
    }
}

impl AsError for DirectoryError {
    fn as_error(&self) -> Option<&Error> {
        if let DirectoryError::Database(error) = self { Some(error) } else { None }
    }
}
