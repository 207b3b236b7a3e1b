//! Integers beyond 128 bits, and the order of all integers.

use std::{cmp::Ordering, fmt};

use super::error::TupleError;

/// An integer of up to 255 bytes: a sign, and the magnitude.
///
/// For integers that do not fit into an `i128`; it does not calculate. Converts from and to other
/// representations by the bytes of the magnitude.
///
/// ```
/// use ferrisdb_client::tuple::{BigInt, TupleError, pack, unpack};
/// let big = BigInt::positive(&[1; 20])?;
/// assert_eq!(unpack::<BigInt>(&pack(&big)?)?, big);
/// assert!(BigInt::negative(&[1; 20])? < BigInt::from(i128::MIN));
/// assert_eq!(BigInt::positive(&[0, 0, 7])?, BigInt::from(7));
/// # Ok::<(), TupleError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BigInt {
    /// Never of zero.
    is_negative: bool,
    /// Big-endian, without leading zeros; empty for zero.
    magnitude: Vec<u8>,
}

impl BigInt {
    /// Most bytes of a magnitude: the encoding has one byte for their number.
    pub const BYTES_MAX: usize = 255;

    /// Zero, or the positive integer of a magnitude in big-endian bytes.
    ///
    /// # Errors
    ///
    /// [`TupleError::IntegerTooLong`] beyond [`BigInt::BYTES_MAX`].
    pub fn positive(magnitude: &[u8]) -> Result<BigInt, TupleError> {
        let zeros = magnitude.iter().take_while(|&&byte| byte == 0).count();
        let magnitude = &magnitude[zeros..];
        if magnitude.len() > BigInt::BYTES_MAX {
            return Err(TupleError::IntegerTooLong { bytes: magnitude.len() });
        }
        Ok(BigInt { is_negative: false, magnitude: magnitude.to_vec() })
    }

    /// Zero, or the negative integer of a magnitude in big-endian bytes.
    ///
    /// # Errors
    ///
    /// [`TupleError::IntegerTooLong`] beyond [`BigInt::BYTES_MAX`].
    pub fn negative(magnitude: &[u8]) -> Result<BigInt, TupleError> {
        let positive = BigInt::positive(magnitude)?;
        Ok(BigInt { is_negative: !positive.magnitude.is_empty(), ..positive })
    }

    /// Whether it is less than zero.
    pub fn is_negative(&self) -> bool {
        self.is_negative
    }

    /// The absolute value in big-endian bytes, without leading zeros: empty for zero.
    pub fn magnitude(&self) -> &[u8] {
        &self.magnitude
    }

    /// The absolute value, if it has at most 128 bits.
    fn small_magnitude(&self) -> Option<u128> {
        let mut bytes = [0; 16];
        let begin = bytes.len().checked_sub(self.magnitude.len())?;
        bytes[begin..].copy_from_slice(&self.magnitude);
        Some(u128::from_be_bytes(bytes))
    }

    /// The integer as an `i128`, if it fits.
    pub fn to_i128(&self) -> Option<i128> {
        let magnitude = self.small_magnitude()?;
        if self.is_negative {
            0i128.checked_sub_unsigned(magnitude)
        } else {
            i128::try_from(magnitude).ok()
        }
    }

    /// The integer as a `u128`, if it fits.
    pub fn to_u128(&self) -> Option<u128> {
        if self.is_negative { None } else { self.small_magnitude() }
    }
}

impl From<i128> for BigInt {
    fn from(value: i128) -> BigInt {
        BigInt { is_negative: value < 0, ..BigInt::from(value.unsigned_abs()) }
    }
}

impl From<u128> for BigInt {
    fn from(value: u128) -> BigInt {
        let zero_bytes = (value.leading_zeros() / 8) as usize;
        BigInt { is_negative: false, magnitude: value.to_be_bytes()[zero_bytes..].to_vec() }
    }
}

macro_rules! from_smaller {
    ($($small:ty as $wide:ty),*) => {$(
        impl From<$small> for BigInt {
            fn from(value: $small) -> BigInt {
                BigInt::from(<$wide>::from(value))
            }
        }
    )*};
}

from_smaller!(i8 as i128, i16 as i128, i32 as i128, i64 as i128);
from_smaller!(u8 as u128, u16 as u128, u32 as u128, u64 as u128);

impl Ord for BigInt {
    fn cmp(&self, other: &BigInt) -> Ordering {
        let by_magnitude = |a: &BigInt, b: &BigInt| {
            a.magnitude.len().cmp(&b.magnitude.len()).then_with(|| a.magnitude.cmp(&b.magnitude))
        };
        match (self.is_negative, other.is_negative) {
            (false, false) => by_magnitude(self, other),
            (true, true) => by_magnitude(other, self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for BigInt {
    fn partial_cmp(&self, other: &BigInt) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// In decimal if it has at most 128 bits, else in hexadecimal.
impl fmt::Display for BigInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_negative {
            f.write_str("-")?;
        }
        if let Some(magnitude) = self.small_magnitude() {
            return write!(f, "{magnitude}");
        }
        f.write_str("0x")?;
        self.magnitude.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BigInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
