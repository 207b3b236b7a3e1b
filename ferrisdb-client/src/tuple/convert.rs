//! Rust types as tuples and elements.

use std::{borrow::Cow, sync::Arc};

use ferrisdb_core::{Key, Value};

use super::{
    decoder::Decoder,
    element::{Element, Tuple},
    encoder::Encoder,
    error::TupleError,
    integer::BigInt,
    stamp::Versionstamp,
    uuid::Uuid,
};

/// What can be packed.
///
/// | Rust | element |
/// |---|---|
/// | integers, [`BigInt`] | integer |
/// | `f32`, `f64`, `bool` | float, double, boolean |
/// | `str`, `String` | string |
/// | `[u8]`, `Vec<u8>`, `[u8; N]`, `bytes::Bytes`, [`Key`], [`Value`] | byte string |
/// | tuples up to twelve, `()`, [`Tuple`], slices and `Vec`s of what is not `u8`, structs that derive it | tuple |
/// | `Option` | null, or the element |
/// | [`Uuid`], [`Versionstamp`], [`Element`], newtype structs that derive it | what they are |
///
/// What is packed by itself is a tuple in any case: a single value is the tuple of it alone.
///
/// A type of your own derives it, or implements it by what it consists of:
///
/// ```
/// use ferrisdb_client::tuple::{Decoder, Encoder, TupleError, TuplePack, TupleUnpack, pack, unpack};
///
/// #[derive(Debug, PartialEq)]
/// enum Status { Open, Closed }
///
/// impl TuplePack for Status {
///     fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
///         encoder.string(match self { Status::Open => "open", Status::Closed => "closed" });
///         Ok(())
///     }
/// }
///
/// impl TupleUnpack for Status {
///     fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Status, TupleError> {
///         match decoder.string()?.as_str() {
///             "open" => Ok(Status::Open),
///             "closed" => Ok(Status::Closed),
///             other => Err(decoder.refuse(format!("'{other}' is no status"))),
///         }
///     }
/// }
///
/// assert_eq!(unpack::<(u8, Status)>(&pack(&(7, Status::Closed))?)?, (7, Status::Closed));
/// # Ok::<(), TupleError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be packed as a tuple or an element of one",
    note = "structs can `#[derive(TuplePack)]`; an enum can implement `TuplePack` by hand"
)]
pub trait TuplePack {
    /// Writes the value as one element; a tuple by [`Encoder::tuple`].
    ///
    /// # Errors
    ///
    /// [`TupleError::TooDeep`], or why the value has no packed form.
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError>;

    /// Writes a list of such values as one element: a tuple, and for `u8` a byte string.
    ///
    /// # Errors
    ///
    /// As for [`TuplePack::pack_to`].
    fn pack_list_to(list: &[Self], encoder: &mut Encoder) -> Result<(), TupleError>
    where
        Self: Sized,
    {
        encoder.tuple(|encoder| list.iter().try_for_each(|value| value.pack_to(encoder)))
    }
}

/// What can be unpacked: the same types as for [`TuplePack`], as far as they own what they hold.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be unpacked from a tuple",
    note = "structs can `#[derive(TupleUnpack)]`; an enum can implement `TupleUnpack` by hand",
    note = "only types that own what they hold can be unpacked: `String` and not `&str`, `Vec<u8>` and not `&[u8]`"
)]
pub trait TupleUnpack: Sized {
    /// Reads what [`TuplePack::pack_to`] has written.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Self, TupleError>;

    /// Reads what [`TuplePack::pack_list_to`] has written.
    ///
    /// # Errors
    ///
    /// As for [`TupleUnpack::unpack_from`].
    fn unpack_list_from(decoder: &mut Decoder<'_>) -> Result<Vec<Self>, TupleError> {
        decoder.tuple(|decoder| {
            let mut list = Vec::new();
            while decoder.peek()?.is_some() {
                list.push(Self::unpack_from(decoder)?);
            }
            Ok(list)
        })
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl TuplePack for $type {
            fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
                encoder.int(*self as i128);
                Ok(())
            }
        }

        impl TupleUnpack for $type {
            fn unpack_from(decoder: &mut Decoder<'_>) -> Result<$type, TupleError> {
                int_from(decoder, stringify!($type))
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, isize, u16, u32, u64, usize);

fn int_from<T: TryFrom<i128>>(
    decoder: &mut Decoder<'_>,
    expected: &'static str,
) -> Result<T, TupleError> {
    let offset = decoder.offset();
    let out_of_range = TupleError::IntegerOutOfRange { offset, expected };
    match decoder.int() {
        Ok(value) => T::try_from(value).map_err(|_| out_of_range),
        Err(TupleError::IntegerOutOfRange { .. }) => Err(out_of_range),
        Err(error) => Err(error),
    }
}

/// Lists of `u8` are byte strings; everything else that is done for integers is done for it as well.
impl TuplePack for u8 {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        encoder.int(i128::from(*self));
        Ok(())
    }

    fn pack_list_to(list: &[u8], encoder: &mut Encoder) -> Result<(), TupleError> {
        encoder.bytes(list);
        Ok(())
    }
}

impl TupleUnpack for u8 {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<u8, TupleError> {
        int_from(decoder, "u8")
    }

    fn unpack_list_from(decoder: &mut Decoder<'_>) -> Result<Vec<u8>, TupleError> {
        decoder.bytes()
    }
}

/// Types that the encoder writes and the decoder reads by one call.
macro_rules! elements {
    ($($type:ty: |$value:ident, $encoder:ident| $write:expr, |$decoder:ident| $read:expr;)*) => {$(
        impl TuplePack for $type {
            fn pack_to(&self, $encoder: &mut Encoder) -> Result<(), TupleError> {
                let $value = self;
                $write;
                Ok(())
            }
        }

        impl TupleUnpack for $type {
            fn unpack_from($decoder: &mut Decoder<'_>) -> Result<$type, TupleError> {
                $read
            }
        }
    )*};
}

elements! {
    i128: |value, encoder| encoder.int(*value), |decoder| decoder.int();
    u128: |value, encoder| encoder.unsigned_int(*value), |decoder| decoder.unsigned_int();
    BigInt: |value, encoder| encoder.big_int(value), |decoder| decoder.big_int();
    f32: |value, encoder| encoder.float(*value), |decoder| decoder.float();
    f64: |value, encoder| encoder.double(*value), |decoder| decoder.double();
    bool: |value, encoder| encoder.bool(*value), |decoder| decoder.bool();
    Uuid: |uuid, encoder| encoder.uuid(*uuid), |decoder| decoder.uuid();
    Versionstamp: |stamp, encoder| encoder.versionstamp(*stamp), |decoder| decoder.versionstamp();
    String: |text, encoder| encoder.string(text), |decoder| decoder.string();
    bytes::Bytes: |bytes, encoder| encoder.bytes(bytes), |decoder| decoder.bytes().map(Into::into);
    Key: |key, encoder| encoder.bytes(key), |decoder| decoder.bytes().map(Key::from);
    Value: |value, encoder| encoder.bytes(value), |decoder| decoder.bytes().map(Value::from);
}

impl TuplePack for str {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        encoder.string(self);
        Ok(())
    }
}

impl<T: TuplePack> TuplePack for [T] {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        T::pack_list_to(self, encoder)
    }
}

impl<T: TuplePack, const N: usize> TuplePack for [T; N] {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        T::pack_list_to(self, encoder)
    }
}

impl<T: TupleUnpack, const N: usize> TupleUnpack for [T; N] {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<[T; N], TupleError> {
        let offset = decoder.offset();
        let list = T::unpack_list_from(decoder)?;
        let found = list.len();
        list.try_into().map_err(|_| TupleError::WrongLength { offset, expected: N, found })
    }
}

impl<T: TuplePack> TuplePack for Vec<T> {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        T::pack_list_to(self, encoder)
    }
}

impl<T: TupleUnpack> TupleUnpack for Vec<T> {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Vec<T>, TupleError> {
        T::unpack_list_from(decoder)
    }
}

impl<T: TuplePack> TuplePack for Option<T> {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        encoder.element(|encoder| match self {
            Some(value) => value.pack_to(encoder),
            None => {
                encoder.null();
                Ok(())
            }
        })
    }
}

impl<T: TupleUnpack> TupleUnpack for Option<T> {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Option<T>, TupleError> {
        decoder.element(|decoder| match decoder.null()? {
            true => Ok(None),
            false => T::unpack_from(decoder).map(Some),
        })
    }
}

macro_rules! pointers {
    ($($pointer:ty),*) => {$(
        impl<T: TuplePack + ?Sized> TuplePack for $pointer {
            fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
                (**self).pack_to(encoder)
            }
        }
    )*};
}

pointers!(&T, &mut T, Box<T>, Arc<T>);

impl<T: TupleUnpack> TupleUnpack for Box<T> {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Box<T>, TupleError> {
        T::unpack_from(decoder).map(Box::new)
    }
}

impl<T: TuplePack + ToOwned + ?Sized> TuplePack for Cow<'_, T> {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        (**self).pack_to(encoder)
    }
}

impl<T: ToOwned<Owned: TupleUnpack> + ?Sized> TupleUnpack for Cow<'_, T> {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Self, TupleError> {
        T::Owned::unpack_from(decoder).map(Cow::Owned)
    }
}

impl TuplePack for Element {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        // By itself it is the tuple of one element, even if that is a tuple.
        encoder.element(|encoder| {
            match self {
                Element::Null => encoder.null(),
                Element::Bytes(bytes) => encoder.bytes(bytes),
                Element::String(text) => encoder.string(text),
                Element::Tuple(tuple) => tuple.pack_to(encoder)?,
                Element::Int(value) => encoder.int(*value),
                Element::BigInt(value) => encoder.big_int(value),
                Element::Float(value) => encoder.float(*value),
                Element::Double(value) => encoder.double(*value),
                Element::Bool(value) => encoder.bool(*value),
                Element::Uuid(uuid) => encoder.uuid(*uuid),
                Element::Versionstamp(stamp) => encoder.versionstamp(*stamp),
            }
            Ok(())
        })
    }
}

impl TupleUnpack for Element {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Element, TupleError> {
        let offset = decoder.offset();
        decoder.any()?.ok_or(TupleError::MissingElement { offset, expected: "an element" })
    }
}

impl TuplePack for Tuple {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        encoder.tuple(|encoder| self.iter().try_for_each(|element| element.pack_to(encoder)))
    }
}

impl TupleUnpack for Tuple {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Tuple, TupleError> {
        decoder.any_tuple()
    }
}

macro_rules! tuples {
    ($($($name:ident)*;)*) => {$(
        #[allow(non_snake_case, reason = "a name for the type and for the value")]
        impl<$($name: TuplePack),*> TuplePack for ($($name,)*) {
            fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
                let ($($name,)*) = self;
                encoder.tuple(|_encoder| {
                    $($name.pack_to(_encoder)?;)*
                    Ok(())
                })
            }
        }

        impl<$($name: TupleUnpack),*> TupleUnpack for ($($name,)*) {
            fn unpack_from(decoder: &mut Decoder<'_>) -> Result<($($name,)*), TupleError> {
                decoder.tuple(|_decoder| Ok(($($name::unpack_from(_decoder)?,)*)))
            }
        }
    )*};
}

tuples! {
    ;
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
}
