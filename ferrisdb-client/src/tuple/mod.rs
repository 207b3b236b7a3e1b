//! Tuples: keys that are made of values, and that sort as the values do.
//!
//! A tuple is a list of elements; packed, it is a byte string. Byte strings compare as their tuples do,
//! element by element, and a tuple's packed form is a prefix of the packed form of every longer tuple that
//! begins with it. So a tuple is a key, its first elements are a range, and the order of rows is chosen by the
//! order of elements. The encoding is FoundationDB's, byte for byte: both can read what the other has written.
//!
//! ```text
//!   ("user", 7, true)        02 75 73 65 72 00 . 15 07 . 27
//!                            string "user"       int 7  true
//!
//!   ("user", 7)              02 75 73 65 72 00 15 07           sorts before ("user", 7, true)
//!   ("user", 300)            02 75 73 65 72 00 16 01 2c        sorts after both
//!
//!   code      element                 then                                          order
//!   00        null                    (inside of a nested tuple 00 ff)
//!   01  02    bytes, string           content with 00 as 00 ff, then 00             by unsigned bytes
//!   05        nested tuple            its elements, then 00                         element by element
//!   0b .. 1d  integer                 big-endian in as few bytes as it needs        by value
//!   20  21    float, double           big-endian, sign flipped (all, if negative)   -NaN -inf .. -0 0 .. inf NaN
//!   26  27    false, true
//!   30        UUID                    16 bytes                                      by unsigned bytes
//!   33        versionstamp            12 bytes                                      incomplete ones last
//! ```
//!
//! # Packing and unpacking
//!
//! [`pack`] takes whatever is [`TuplePack`]: numbers, strings, Rust tuples of those, structs that derive it.
//! [`unpack`] gives back whatever is [`TupleUnpack`], and checks every byte on the way.
//!
//! ```
//! use ferrisdb_client::tuple::{self, TupleError};
//!
//! let key = tuple::pack(&("user", 7, true))?;
//! assert_eq!(key, b"\x02user\x00\x15\x07\x27");
//! let (kind, id, active): (String, u32, bool) = tuple::unpack(&key)?;
//! assert_eq!((kind.as_str(), id, active), ("user", 7, true));
//!
//! // Everything of user 7, and nothing of user 77.
//! let range = tuple::range(&("user", 7))?;
//! assert!(range.contains(&key));
//! assert!(!range.contains(&tuple::pack(&("user", 77))?));
//! # Ok::<(), TupleError>(())
//! ```
//!
//! Where the types are not known beforehand, [`Tuple`] is a list of [`Element`]s:
//!
//! ```
//! use ferrisdb_client::tuple::{Element, Tuple, TupleError, tuple};
//!
//! let row = Tuple::unpack(b"\x02user\x00\x15\x07\x27")?;
//! assert_eq!(row, tuple!["user", 7, true]);
//! assert_eq!(row[1], Element::Int(7));
//! assert_eq!(row.to_string(), r#"("user", 7, true)"#);
//! # Ok::<(), TupleError>(())
//! ```
//!
//! Structs derive both traits (feature `derive`). A struct is the tuple of its fields, a newtype struct is
//! the value inside:
//!
//! ```
//! # #[cfg(feature = "derive")] {
//! use ferrisdb_client::tuple::{self, TuplePack, TupleUnpack};
//!
//! #[derive(TuplePack, TupleUnpack, Debug, PartialEq)]
//! struct UserId(u64);
//!
//! #[derive(TuplePack, TupleUnpack, Debug, PartialEq)]
//! struct Visit {
//!     user: UserId,
//!     page: String,
//!     referrer: Option<String>,
//! }
//!
//! let visit = Visit { user: UserId(7), page: "/".into(), referrer: None };
//! let key = tuple::pack(&visit)?;
//! assert_eq!(key, tuple::pack(&(7, "/", None::<String>))?);
//! assert_eq!(tuple::unpack::<Visit>(&key)?, visit);
//! # }
//! # Ok::<(), ferrisdb_client::tuple::TupleError>(())
//! ```
//!
//! An enum has no encoding that other languages would know, so it does not derive them: it
//! implements [`TuplePack`] and [`TupleUnpack`] by hand, in a few lines.
//!
//! ```compile_fail
//! #[derive(ferrisdb_client::tuple::TuplePack)]
//! enum Status { Open, Closed }
//! ```
//!
//! # Versionstamps
//!
//! A tuple with one incomplete [`Versionstamp`] is packed by [`pack_with_versionstamp`], which also says where
//! the commit has to put the transaction's place in the total order:
//!
//! ```
//! use ferrisdb_client::{Transaction, tuple::{self, Versionstamp}};
//!
//! /// Appends to a log; entries of one transaction are ordered by `nth`.
//! fn append(transaction: &Transaction, nth: u16, text: &str) -> ferrisdb_client::Result<()> {
//!     let (key, offset) = tuple::pack_with_versionstamp(&("log", Versionstamp::incomplete(nth)))?;
//!     transaction.set_versionstamped_key(key, offset, text)
//! }
//! ```
//!
//! # Caveats
//!
//! Every integer has one encoding, whatever its Rust type. FoundationDB's Python binding alone writes
//! 2^64-1 and its negative in another form than all other bindings; both forms are read, the common one is
//! written.
//!
//! Knows nothing of transactions. Start with [`Element`], then `encoder.rs` and `decoder.rs`.

mod convert;
mod decoder;
mod element;
mod encoder;
mod error;
mod integer;
mod stamp;
mod uuid;

use ferrisdb_core::KeyRange;

pub use self::{
    convert::{TuplePack, TupleUnpack},
    decoder::Decoder,
    element::{Element, Tuple},
    encoder::Encoder,
    error::{Kind, TupleError},
    integer::BigInt,
    stamp::Versionstamp,
    uuid::{ParseUuidError, Uuid},
};
/// Derives the trait of the same name for structs. See [the module](self).
#[cfg(feature = "derive")]
pub use ferrisdb_derive::{TuplePack, TupleUnpack};

pub use crate::tuple_of as tuple;

/// How deep tuples may lie in each other. FoundationDB has no bound of its own; a key of 10,000 bytes could
/// hold 5,000 levels, which would exhaust the stack of whoever reads it.
pub const NESTING_MAX: usize = 100;

/// The type codes.
mod code {
    pub(super) const NULL: u8 = 0x00;
    pub(super) const BYTES: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const TUPLE: u8 = 0x05;
    pub(super) const INT_NEGATIVE_BIG: u8 = 0x0b;
    pub(super) const INT_ZERO: u8 = 0x14;
    pub(super) const INT_POSITIVE_BIG: u8 = 0x1d;
    pub(super) const FLOAT: u8 = 0x20;
    pub(super) const DOUBLE: u8 = 0x21;
    pub(super) const FALSE: u8 = 0x26;
    pub(super) const TRUE: u8 = 0x27;
    pub(super) const UUID: u8 = 0x30;
    pub(super) const VERSIONSTAMP: u8 = 0x33;
    /// After a zero byte: the zero is content and not an end.
    pub(super) const ESCAPE: u8 = 0xff;
}

/// Packs a tuple, or a single value as the tuple of it alone.
///
/// ```
/// use ferrisdb_client::tuple::pack;
/// assert_eq!(pack(&(b"a\0b", -1))?, b"\x01a\x00\xffb\x00\x13\xfe");
/// assert_eq!(pack(&"a")?, pack(&("a",))?);
/// assert_eq!(pack(&())?, b"");
/// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
/// ```
///
/// # Errors
///
/// [`TupleError::IncompleteVersionstamp`], or [`TupleError::TooDeep`].
pub fn pack<T: TuplePack + ?Sized>(value: &T) -> Result<Vec<u8>, TupleError> {
    let mut bytes = Vec::new();
    pack_into(value, &mut bytes)?;
    Ok(bytes)
}

/// Packs a tuple behind the bytes that are there already: a prefix, or the key so far.
///
/// ```
/// use ferrisdb_client::tuple::pack_into;
/// let mut key = b"app".to_vec();
/// pack_into(&("user", 7), &mut key)?;
/// assert_eq!(key, b"app\x02user\x00\x15\x07");
/// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
/// ```
///
/// # Errors
///
/// As for [`pack`]; the bytes are as they were then.
pub fn pack_into<T: TuplePack + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<(), TupleError> {
    let length_before = bytes.len();
    let mut encoder = Encoder::new(std::mem::take(bytes));
    let packed = value.pack_to(&mut encoder);
    let stamps = encoder.stamps();
    *bytes = encoder.into_bytes();
    let result = match (packed, stamps) {
        (Ok(()), 0) => Ok(()),
        (Ok(()), _) => Err(TupleError::IncompleteVersionstamp),
        (Err(error), _) => Err(error),
    };
    if result.is_err() {
        bytes.truncate(length_before);
    }
    result
}

/// Packs a tuple that has one incomplete versionstamp, behind a prefix. Returns the bytes, and the offset of the
/// versionstamp in them: what
/// [`Transaction::set_versionstamped_key`](crate::Transaction::set_versionstamped_key) asks for.
pub(crate) fn pack_with_versionstamp_behind<T: TuplePack + ?Sized>(
    prefix: &[u8],
    value: &T,
) -> Result<(Vec<u8>, u32), TupleError> {
    let mut encoder = Encoder::new(prefix.to_vec());
    value.pack_to(&mut encoder)?;
    match (encoder.stamps(), encoder.stamp_offset()) {
        (1, Some(offset)) => {
            let offset = u32::try_from(offset).map_err(|_| TupleError::TooLong)?;
            Ok((encoder.into_bytes(), offset))
        }
        (0, _) => Err(TupleError::NoIncompleteVersionstamp),
        _ => Err(TupleError::SeveralIncompleteVersionstamps),
    }
}

/// Packs a tuple that has exactly one incomplete versionstamp, at whatever depth. Returns the bytes, and the
/// offset of the versionstamp in them: what
/// [`Transaction::set_versionstamped_key`](crate::Transaction::set_versionstamped_key) and
/// [`Transaction::set_versionstamped_value`](crate::Transaction::set_versionstamped_value) ask for.
///
/// ```
/// use ferrisdb_client::tuple::{Versionstamp, pack_with_versionstamp};
/// let (key, offset) = pack_with_versionstamp(&("log", Versionstamp::incomplete(7)))?;
/// assert_eq!(key, b"\x02log\x00\x33\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x07");
/// assert_eq!(offset, 6);
/// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
/// ```
///
/// # Errors
///
/// [`TupleError::NoIncompleteVersionstamp`], [`TupleError::SeveralIncompleteVersionstamps`], or
/// [`TupleError::TooDeep`].
pub fn pack_with_versionstamp<T: TuplePack + ?Sized>(
    value: &T,
) -> Result<(Vec<u8>, u32), TupleError> {
    pack_with_versionstamp_behind(&[], value)
}

/// Unpacks a whole byte string.
///
/// ```
/// use ferrisdb_client::tuple::{TupleError, pack, unpack};
/// let key = pack(&("a", 300, (None::<u8>, 2.5)))?;
/// let (name, count, (gap, ratio)): (String, u16, (Option<u8>, f64)) = unpack(&key)?;
/// assert_eq!((name.as_str(), count, gap, ratio), ("a", 300, None, 2.5));
/// // 300 is not a u8.
/// let error = unpack::<(String, u8, (Option<u8>, f64))>(&key).unwrap_err();
/// assert_eq!(error, TupleError::IntegerOutOfRange { offset: 3, expected: "u8" });
/// # Ok::<(), TupleError>(())
/// ```
///
/// # Errors
///
/// What is wrong with the bytes and where, or how they differ from what was asked for.
pub fn unpack<T: TupleUnpack>(bytes: &[u8]) -> Result<T, TupleError> {
    unpack_behind(bytes, 0)
}

/// Unpacks what follows the first `prefix_bytes` bytes. Offsets in errors count from the first byte of all.
pub(crate) fn unpack_behind<T: TupleUnpack>(
    bytes: &[u8],
    prefix_bytes: usize,
) -> Result<T, TupleError> {
    let mut decoder = Decoder::new(bytes, prefix_bytes);
    let value = T::unpack_from(&mut decoder)?;
    decoder.finish()?;
    Ok(value)
}

/// The keys of all tuples that begin with these elements and have more: from the packed form and `00` up to, not
/// including, the packed form and `ff`. The tuple itself is not among them.
///
/// ```
/// use ferrisdb_client::tuple::{pack, range};
/// let of_seven = range(&("user", 7))?;
/// assert!(of_seven.contains(&pack(&("user", 7, "name"))?));
/// assert!(!of_seven.contains(&pack(&("user", 7))?), "the tuple itself");
/// assert!(!of_seven.contains(&pack(&("user", 70))?));
/// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
/// ```
///
/// # Errors
///
/// As for [`pack`].
pub fn range<T: TuplePack + ?Sized>(value: &T) -> Result<KeyRange, TupleError> {
    Ok(range_behind(&pack(value)?))
}

/// The keys of all tuples behind a prefix, the empty one excepted.
pub(crate) fn range_behind(prefix: &[u8]) -> KeyRange {
    KeyRange::new([prefix, b"\x00"].concat(), [prefix, b"\xff"].concat())
}

/// A [`Tuple`] of elements, each converted by `Element::from`.
///
/// ```
/// use ferrisdb_client::tuple::{Element, Tuple, tuple};
/// let key = tuple!["user", 7, true, None::<u8>, tuple![2.5, Element::Null]];
/// assert_eq!(key.len(), 5);
/// assert_eq!(tuple![], Tuple::new());
/// ```
#[macro_export]
macro_rules! tuple_of {
    ($($element:expr),* $(,)?) => {
        $crate::tuple::Tuple::from(::std::vec![
            $($crate::tuple::Element::from($element)),*
        ])
    };
}

#[cfg(test)]
mod tests;
