//! What can be wrong with a tuple, or with bytes that should be one.

use std::fmt;

use ferrisdb_core::{Error, ErrorCode, Stage};

use crate::retry::AsError;

/// Why a tuple cannot be packed, or bytes not be unpacked. Offsets are in bytes, from the beginning of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TupleError {
    /// The tuple has an incomplete versionstamp, which only
    /// [`pack_with_versionstamp`](crate::tuple::pack_with_versionstamp) takes.
    IncompleteVersionstamp,
    /// The tuple has no incomplete versionstamp, so there is nothing for the commit to fill in.
    NoIncompleteVersionstamp,
    /// The tuple has more than one incomplete versionstamp; the commit fills in one.
    SeveralIncompleteVersionstamps,
    /// Tuples lie in each other deeper than [`NESTING_MAX`](crate::tuple::NESTING_MAX).
    TooDeep,
    /// The packed form is longer than an offset can say.
    TooLong,
    /// An integer's magnitude has more bytes than [`BigInt::BYTES_MAX`](crate::tuple::BigInt::BYTES_MAX).
    IntegerTooLong {
        /// How many it has, leading zeros not counted.
        bytes: usize,
    },
    /// The bytes end inside of an element, or before the end of a nested tuple.
    Truncated {
        /// Where the element, or the nested tuple, begins.
        offset: usize,
        /// What it is.
        kind: Kind,
    },
    /// A byte that begins no element.
    UnknownCode {
        /// Where it stands.
        offset: usize,
        /// The byte.
        code: u8,
    },
    /// A string that is not UTF-8.
    InvalidUtf8 {
        /// Where the string's element begins.
        offset: usize,
    },
    /// An element of another type than asked for.
    UnexpectedKind {
        /// Where it begins.
        offset: usize,
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        found: Kind,
    },
    /// An integer that the type asked for cannot hold.
    IntegerOutOfRange {
        /// Where it begins.
        offset: usize,
        /// The type.
        expected: &'static str,
    },
    /// Bytes of another length than asked for.
    WrongLength {
        /// Where their element begins.
        offset: usize,
        /// The length asked for.
        expected: usize,
        /// The length that they have.
        found: usize,
    },
    /// The tuple ends where another element was asked for.
    MissingElement {
        /// Where it ends.
        offset: usize,
        /// What was asked for.
        expected: &'static str,
    },
    /// The tuple has more elements than asked for.
    ExtraElements {
        /// Where the first of them begins.
        offset: usize,
    },
    /// The key does not begin with the subspace's prefix.
    OutsideSubspace,
    /// An implementation of [`TupleUnpack`](crate::tuple::TupleUnpack) refused the value.
    Refused {
        /// Where the value ends.
        offset: usize,
        /// Why, in the words of the implementation.
        reason: String,
    },
}

/// The kinds of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Nothing.
    Null,
    /// A byte string.
    Bytes,
    /// A string of Unicode characters.
    String,
    /// A tuple inside of the tuple.
    Tuple,
    /// An integer of any size.
    Int,
    /// A floating point number of 32 bits.
    Float,
    /// A floating point number of 64 bits.
    Double,
    /// A truth value.
    Bool,
    /// A UUID.
    Uuid,
    /// A versionstamp.
    Versionstamp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "null",
            Kind::Bytes => "a byte string",
            Kind::String => "a string",
            Kind::Tuple => "a tuple",
            Kind::Int => "an integer",
            Kind::Float => "a 32 bit float",
            Kind::Double => "a 64 bit float",
            Kind::Bool => "a boolean",
            Kind::Uuid => "a UUID",
            Kind::Versionstamp => "a versionstamp",
        })
    }
}

impl fmt::Display for TupleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TupleError::IncompleteVersionstamp => {
                f.write_str("the tuple has an incomplete versionstamp: use pack_with_versionstamp")
            }
            TupleError::NoIncompleteVersionstamp => {
                f.write_str("the tuple has no incomplete versionstamp: use pack")
            }
            TupleError::SeveralIncompleteVersionstamps => {
                f.write_str("the tuple has more than one incomplete versionstamp")
            }
            TupleError::TooDeep => {
                write!(f, "tuples are nested deeper than {}", super::NESTING_MAX)
            }
            TupleError::TooLong => f.write_str("the packed tuple is too long"),
            TupleError::IntegerTooLong { bytes } => {
                write!(f, "an integer of {bytes} bytes, {} are possible", super::BigInt::BYTES_MAX)
            }
            TupleError::Truncated { offset, kind } => {
                write!(f, "the bytes end within {kind} that begins at byte {offset}")
            }
            TupleError::UnknownCode { offset, code } => {
                write!(f, "byte {offset} is {code:#04x}, which begins no element")
            }
            TupleError::InvalidUtf8 { offset } => {
                write!(f, "the string at byte {offset} is not UTF-8")
            }
            TupleError::UnexpectedKind { offset, expected, found } => {
                write!(f, "at byte {offset} there is {found} instead of {expected}")
            }
            TupleError::IntegerOutOfRange { offset, expected } => {
                write!(f, "the integer at byte {offset} does not fit into {expected}")
            }
            TupleError::WrongLength { offset, expected, found } => {
                write!(f, "the bytes at byte {offset} are {found} instead of {expected}")
            }
            TupleError::MissingElement { offset, expected } => {
                write!(f, "the tuple ends at byte {offset}, before {expected}")
            }
            TupleError::ExtraElements { offset } => {
                write!(f, "at byte {offset} there are more elements than expected")
            }
            TupleError::OutsideSubspace => {
                f.write_str("the key does not begin with the subspace's prefix")
            }
            TupleError::Refused { offset, reason } => {
                write!(f, "the value that ends at byte {offset} is refused: {reason}")
            }
        }
    }
}

impl std::error::Error for TupleError {}

/// For transactions whose body returns [`Error`]: the code is [`ErrorCode::InvalidArgument`], the detail says which
/// error it is.
impl From<TupleError> for Error {
    fn from(error: TupleError) -> Error {
        Error::new(ErrorCode::InvalidArgument, Stage::Client, error.to_string())
    }
}

/// Holds no error of the database: starting over would not help.
impl AsError for TupleError {
    fn as_error(&self) -> Option<&Error> {
        None
    }
}
