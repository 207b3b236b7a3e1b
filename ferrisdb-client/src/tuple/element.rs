//! Tuples whose types are known only when they are there.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
};

use ferrisdb_core::{Key, KeyRange, Value, key};

use super::{
    error::{Kind, TupleError},
    integer::BigInt,
    stamp::Versionstamp,
    uuid::Uuid,
};

/// One element of a [`Tuple`].
///
/// Elements are ordered as their packed forms are, and equal if those are: `-0.0` is less than `0.0`, a NaN is equal
/// to itself, and integers are the same whether they are `Int` or `BigInt`.
///
/// ```
/// use ferrisdb_client::tuple::{Element, Kind, tuple};
/// let row = tuple!["user", 7, true];
/// assert_eq!((row[0].as_str(), row[1].as_int()), (Some("user"), Some(7)));
/// assert_eq!(row[2].kind(), Kind::Bool);
/// assert_eq!(Element::from(7u8), Element::Int(7));
/// ```
#[derive(Clone)]
pub enum Element {
    /// Nothing.
    Null,
    /// A byte string.
    Bytes(Vec<u8>),
    /// A string of Unicode characters.
    String(String),
    /// A tuple inside of the tuple.
    Tuple(Tuple),
    /// An integer.
    Int(i128),
    /// An integer of up to 255 bytes. Unpacking gives this for integers that do not fit into an `Int`.
    BigInt(BigInt),
    /// A floating point number of 32 bits. Another element than the same number in 64 bits, and sorts before it.
    Float(f32),
    /// A floating point number of 64 bits.
    Double(f64),
    /// A truth value.
    Bool(bool),
    /// A UUID.
    Uuid(Uuid),
    /// A versionstamp, complete or not.
    Versionstamp(Versionstamp),
}

impl Element {
    /// What kind of element it is. Kinds are ordered as their elements are.
    pub fn kind(&self) -> Kind {
        match self {
            Element::Null => Kind::Null,
            Element::Bytes(_) => Kind::Bytes,
            Element::String(_) => Kind::String,
            Element::Tuple(_) => Kind::Tuple,
            Element::Int(_) | Element::BigInt(_) => Kind::Int,
            Element::Float(_) => Kind::Float,
            Element::Double(_) => Kind::Double,
            Element::Bool(_) => Kind::Bool,
            Element::Uuid(_) => Kind::Uuid,
            Element::Versionstamp(_) => Kind::Versionstamp,
        }
    }

    /// The string inside; `None` for other elements.
    pub fn as_str(&self) -> Option<&str> {
        if let Element::String(text) = self { Some(text) } else { None }
    }

    /// The bytes inside; `None` for other elements.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Element::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The integer inside; `None` for other elements, and if it does not fit.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Element::Int(value) => Some(*value),
            Element::BigInt(value) => value.to_i128(),
            _ => None,
        }
    }

    /// The tuple inside; `None` for other elements.
    pub fn as_tuple(&self) -> Option<&Tuple> {
        if let Element::Tuple(tuple) = self { Some(tuple) } else { None }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        use Element::*;
        match (self, other) {
            (Bytes(a), Bytes(b)) => a.cmp(b),
            (String(a), String(b)) => a.cmp(b),
            (Tuple(a), Tuple(b)) => a.cmp(b),
            (Int(a), Int(b)) => a.cmp(b),
            (BigInt(a), BigInt(b)) => a.cmp(b),
            (Int(a), BigInt(b)) => super::BigInt::from(*a).cmp(b),
            (BigInt(a), Int(b)) => a.cmp(&super::BigInt::from(*b)),
            // The total order of IEEE 754, which flipping the bits gives, too.
            (Float(a), Float(b)) => a.total_cmp(b),
            (Double(a), Double(b)) => a.total_cmp(b),
            (Bool(a), Bool(b)) => a.cmp(b),
            (Uuid(a), Uuid(b)) => a.cmp(b),
            (Versionstamp(a), Versionstamp(b)) => a.cmp(b),
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

impl Hash for Element {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind().hash(state);
        match self {
            Element::Null => {}
            Element::Bytes(bytes) => bytes.hash(state),
            Element::String(text) => text.hash(state),
            Element::Tuple(tuple) => tuple.hash(state),
            Element::Int(value) => BigInt::from(*value).hash(state),
            Element::BigInt(value) => value.hash(state),
            Element::Float(value) => value.to_bits().hash(state),
            Element::Double(value) => value.to_bits().hash(state),
            Element::Bool(value) => value.hash(state),
            Element::Uuid(uuid) => uuid.hash(state),
            Element::Versionstamp(stamp) => stamp.hash(state),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Null => f.write_str("null"),
            Element::Bytes(bytes) => write!(f, "b\"{}\"", key::escape(bytes)),
            Element::String(text) => write!(f, "{text:?}"),
            Element::Tuple(tuple) => write!(f, "{tuple}"),
            Element::Int(value) => write!(f, "{value}"),
            Element::BigInt(value) => write!(f, "{value}"),
            Element::Float(value) => write!(f, "{value:?}f32"),
            Element::Double(value) => write!(f, "{value:?}"),
            Element::Bool(value) => write!(f, "{value}"),
            Element::Uuid(uuid) => write!(f, "{uuid}"),
            Element::Versionstamp(stamp) => write!(f, "{stamp}"),
        }
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! element_from {
    ($($type:ty => |$value:ident| $element:expr;)*) => {$(
        impl From<$type> for Element {
            fn from($value: $type) -> Element {
                $element
            }
        }
    )*};
}

element_from! {
    Vec<u8> => |bytes| Element::Bytes(bytes);
    &[u8] => |bytes| Element::Bytes(bytes.to_vec());
    Key => |key| Element::Bytes(key.to_vec());
    Value => |value| Element::Bytes(value.to_vec());
    bytes::Bytes => |bytes| Element::Bytes(bytes.to_vec());
    String => |text| Element::String(text);
    &str => |text| Element::String(text.to_string());
    Tuple => |tuple| Element::Tuple(tuple);
    BigInt => |value| value.to_i128().map_or(Element::BigInt(value), Element::Int);
    u128 => |value| Element::from(BigInt::from(value));
    i128 => |value| Element::Int(value);
    i64 => |value| Element::Int(value.into());
    i32 => |value| Element::Int(value.into());
    i16 => |value| Element::Int(value.into());
    i8 => |value| Element::Int(value.into());
    isize => |value| Element::Int(value as i128);
    u64 => |value| Element::Int(value.into());
    u32 => |value| Element::Int(value.into());
    u16 => |value| Element::Int(value.into());
    u8 => |value| Element::Int(value.into());
    usize => |value| Element::Int(value as i128);
    f32 => |value| Element::Float(value);
    f64 => |value| Element::Double(value);
    bool => |value| Element::Bool(value);
    Uuid => |uuid| Element::Uuid(uuid);
    Versionstamp => |stamp| Element::Versionstamp(stamp);
}

impl<const N: usize> From<&[u8; N]> for Element {
    fn from(bytes: &[u8; N]) -> Element {
        Element::Bytes(bytes.to_vec())
    }
}

impl<T: Into<Element>> From<Option<T>> for Element {
    fn from(value: Option<T>) -> Element {
        value.map_or(Element::Null, Into::into)
    }
}

/// A list of elements; as a slice it can be read and changed like any other.
///
/// Tuples are ordered as their packed forms are: element by element, the shorter first.
///
/// ```
/// use ferrisdb_client::tuple::{Element, Tuple, TupleError, tuple};
/// let mut row = tuple!["user", 7];
/// row.push(true);
/// let packed = row.pack()?;
/// assert_eq!(Tuple::unpack(&packed)?, row);
/// assert!(tuple!["user"] < row && row < tuple!["user", 10]);
/// # Ok::<(), TupleError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple(Vec<Element>);

impl Tuple {
    /// The tuple of no elements.
    pub const fn new() -> Tuple {
        Tuple(Vec::new())
    }

    /// Unpacks a whole byte string.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn unpack(bytes: &[u8]) -> Result<Tuple, TupleError> {
        super::unpack(bytes)
    }

    /// The packed form.
    ///
    /// # Errors
    ///
    /// As for [`pack`](crate::tuple::pack).
    pub fn pack(&self) -> Result<Vec<u8>, TupleError> {
        super::pack(self)
    }

    /// The packed form of a tuple with one incomplete versionstamp, and the versionstamp's offset.
    ///
    /// ```
    /// use ferrisdb_client::tuple::{Versionstamp, tuple};
    /// let (key, offset) = tuple!["log", Versionstamp::incomplete(0)].pack_with_versionstamp()?;
    /// assert_eq!(key[offset as usize..][..10], [0xff; 10]);
    /// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`pack_with_versionstamp`](crate::tuple::pack_with_versionstamp).
    pub fn pack_with_versionstamp(&self) -> Result<(Vec<u8>, u32), TupleError> {
        super::pack_with_versionstamp(self)
    }

    /// The keys of all longer tuples that begin with this one.
    ///
    /// ```
    /// use ferrisdb_client::tuple::tuple;
    /// assert!(tuple!["user"].range()?.contains(&tuple!["user", 7].pack()?));
    /// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`pack`](crate::tuple::pack).
    pub fn range(&self) -> Result<KeyRange, TupleError> {
        super::range(self)
    }

    /// Appends an element.
    pub fn push(&mut self, element: impl Into<Element>) {
        self.0.push(element.into());
    }

    /// Takes the last element away.
    pub fn pop(&mut self) -> Option<Element> {
        self.0.pop()
    }

    /// Whether an element, at whatever depth, is an incomplete versionstamp.
    ///
    /// ```
    /// use ferrisdb_client::tuple::{Versionstamp, tuple};
    /// assert!(tuple!["log", tuple![Versionstamp::incomplete(0)]].has_incomplete_versionstamp());
    /// ```
    pub fn has_incomplete_versionstamp(&self) -> bool {
        self.0.iter().any(|element| match element {
            Element::Versionstamp(stamp) => !stamp.is_complete(),
            Element::Tuple(tuple) => tuple.has_incomplete_versionstamp(),
            _ => false,
        })
    }

    /// The elements.
    pub fn into_elements(self) -> Vec<Element> {
        self.0
    }
}

impl From<Vec<Element>> for Tuple {
    fn from(elements: Vec<Element>) -> Tuple {
        Tuple(elements)
    }
}

impl<E: Into<Element>> FromIterator<E> for Tuple {
    fn from_iter<I: IntoIterator<Item = E>>(elements: I) -> Tuple {
        Tuple(elements.into_iter().map(Into::into).collect())
    }
}

impl<E: Into<Element>> Extend<E> for Tuple {
    fn extend<I: IntoIterator<Item = E>>(&mut self, elements: I) {
        self.0.extend(elements.into_iter().map(Into::into));
    }
}

impl IntoIterator for Tuple {
    type Item = Element;
    type IntoIter = std::vec::IntoIter<Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Tuple {
    type Item = &'a Element;
    type IntoIter = std::slice::Iter<'a, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Deref for Tuple {
    type Target = [Element];

    fn deref(&self) -> &[Element] {
        &self.0
    }
}

impl DerefMut for Tuple {
    fn deref_mut(&mut self) -> &mut [Element] {
        &mut self.0
    }
}

/// As it would be written down: `("user", 7, true)`.
impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (index, element) in self.0.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{element}")?;
        }
        f.write_str(if self.0.len() == 1 { ",)" } else { ")" })
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
