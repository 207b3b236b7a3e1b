//! From elements to bytes.

use super::{
    NESTING_MAX, code, error::TupleError, integer::BigInt, stamp::Versionstamp, uuid::Uuid,
};

/// Writes the elements of one tuple: what [`TuplePack::pack_to`](crate::tuple::TuplePack::pack_to) is given.
///
/// ```text
///    depth 0   the packed value itself:  encoder.tuple(..) writes nothing around its elements
///    depth 1   elements of the tuple:    encoder.tuple(..) writes 05 .. 00; null is 00
///    depth 2   elements of a nested one: null is 00 ff, because 00 would end the tuple
/// ```
#[derive(Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
    depth: usize,
    /// How many incomplete versionstamps there are, and where the last of them begins.
    stamps: usize,
    stamp_offset: Option<usize>,
}

impl Encoder {
    /// Appends to `bytes`.
    pub(crate) fn new(bytes: Vec<u8>) -> Encoder {
        Encoder { bytes, depth: 0, stamps: 0, stamp_offset: None }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn stamps(&self) -> usize {
        self.stamps
    }

    pub(super) fn stamp_offset(&self) -> Option<usize> {
        self.stamp_offset
    }

    /// Writes nothing in place of a value.
    pub fn null(&mut self) {
        self.bytes.push(code::NULL);
        if self.depth > 1 {
            self.bytes.push(code::ESCAPE);
        }
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.push(code::BYTES);
        self.terminated(bytes);
    }

    /// Writes a string.
    pub fn string(&mut self, text: &str) {
        self.bytes.push(code::STRING);
        self.terminated(text.as_bytes());
    }

    /// Writes an integer.
    pub fn int(&mut self, value: i128) {
        self.integer(value < 0, &value.unsigned_abs().to_be_bytes());
    }

    /// Writes an integer.
    pub fn unsigned_int(&mut self, value: u128) {
        self.integer(false, &value.to_be_bytes());
    }

    /// Writes an integer.
    pub fn big_int(&mut self, value: &BigInt) {
        self.integer(value.is_negative(), value.magnitude());
    }

    /// Writes a floating point number of 32 bits. All its bits are kept, those of NaNs too.
    pub fn float(&mut self, value: f32) {
        let bits = value.to_bits();
        let flipped = if bits >> 31 == 0 { bits ^ 1 << 31 } else { !bits };
        self.bytes.push(code::FLOAT);
        self.bytes.extend_from_slice(&flipped.to_be_bytes());
    }

    /// Writes a floating point number of 64 bits. All its bits are kept, those of NaNs too.
    pub fn double(&mut self, value: f64) {
        let bits = value.to_bits();
        let flipped = if bits >> 63 == 0 { bits ^ 1 << 63 } else { !bits };
        self.bytes.push(code::DOUBLE);
        self.bytes.extend_from_slice(&flipped.to_be_bytes());
    }

    /// Writes a truth value.
    pub fn bool(&mut self, value: bool) {
        self.bytes.push(if value { code::TRUE } else { code::FALSE });
    }

    /// Writes a UUID.
    pub fn uuid(&mut self, uuid: Uuid) {
        self.bytes.push(code::UUID);
        self.bytes.extend_from_slice(&uuid.0);
    }

    /// Writes a versionstamp, complete or not.
    pub fn versionstamp(&mut self, stamp: Versionstamp) {
        self.bytes.push(code::VERSIONSTAMP);
        if !stamp.is_complete() {
            self.stamps += 1;
            self.stamp_offset = Some(self.bytes.len());
        }
        self.bytes.extend_from_slice(&stamp.to_bytes());
    }

    /// Writes a tuple, whose elements `write` writes.
    ///
    /// # Errors
    ///
    /// [`TupleError::TooDeep`], and what `write` returns.
    pub fn tuple(
        &mut self,
        write: impl FnOnce(&mut Encoder) -> Result<(), TupleError>,
    ) -> Result<(), TupleError> {
        if self.depth > NESTING_MAX {
            return Err(TupleError::TooDeep);
        }
        let is_nested = self.depth > 0;
        if is_nested {
            self.bytes.push(code::TUPLE);
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        if is_nested {
            self.bytes.push(code::NULL);
        }
        written
    }

    /// Writes what is an element in any case: a tuple that `write` writes is a nested one, even if it is all that
    /// there is. By this an optional tuple can be told from the tuple of an optional value.
    ///
    /// # Errors
    ///
    /// What `write` returns.
    pub fn element(
        &mut self,
        write: impl FnOnce(&mut Encoder) -> Result<(), TupleError>,
    ) -> Result<(), TupleError> {
        let depth_before = self.depth;
        self.depth = self.depth.max(1);
        let written = write(self);
        self.depth = depth_before;
        written
    }

    /// Content with its zeros escaped, and the zero that ends it.
    fn terminated(&mut self, content: &[u8]) {
        self.bytes.reserve(content.len() + 1);
        for (index, piece) in content.split(|&byte| byte == 0).enumerate() {
            if index > 0 {
                self.bytes.extend_from_slice(&[0, code::ESCAPE]);
            }
            self.bytes.extend_from_slice(piece);
        }
        self.bytes.push(0);
    }

    /// An integer by its magnitude, whose leading zeros are dropped. The magnitude of a negative one is
    /// complemented, so that the more negative sorts first, and so is the length that stands before it.
    fn integer(&mut self, is_negative: bool, magnitude: &[u8]) {
        let zeros = magnitude.iter().take_while(|&&byte| byte == 0).count();
        let magnitude = &magnitude[zeros..];
        // A magnitude has at most BigInt::BYTES_MAX = 255 bytes.
        let length = magnitude.len() as u8;
        match (is_negative, length) {
            (false, 0..=8) => self.bytes.push(code::INT_ZERO + length),
            (true, 0..=8) => self.bytes.push(code::INT_ZERO - length),
            (false, _) => self.bytes.extend_from_slice(&[code::INT_POSITIVE_BIG, length]),
            (true, _) => self.bytes.extend_from_slice(&[code::INT_NEGATIVE_BIG, !length]),
        }
        if is_negative {
            self.bytes.extend(magnitude.iter().map(|byte| !byte));
        } else {
            self.bytes.extend_from_slice(magnitude);
        }
    }
}

const _: () = assert!(BigInt::BYTES_MAX <= u8::MAX as usize);
