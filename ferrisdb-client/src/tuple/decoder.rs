//! From bytes to elements.

use super::{
    NESTING_MAX, code,
    element::{Element, Tuple},
    error::{Kind, TupleError},
    integer::BigInt,
    stamp::Versionstamp,
    uuid::Uuid,
};

/// Reads the elements of one tuple: what [`TupleUnpack::unpack_from`](crate::tuple::TupleUnpack::unpack_from) is
/// given. The mirror image of [`Encoder`](crate::tuple::Encoder), depths included.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    /// Where the next element begins.
    offset: usize,
    depth: usize,
    /// How many reads are under way within each other, the ones that find no tuple included.
    levels: usize,
}

/// Each level of nesting takes one, and one more if it is optional.
const LEVELS_MAX: usize = 2 * (NESTING_MAX + 1);

/// An integer as it was found.
enum Integer {
    Small(i128),
    Big(BigInt),
}

/// Reading a value of a known type.
impl<'a> Decoder<'a> {
    /// Reads `bytes` from `offset` on.
    pub(super) fn new(bytes: &'a [u8], offset: usize) -> Decoder<'a> {
        Decoder { bytes, offset, depth: 0, levels: 0 }
    }

    /// Where the next element begins, in bytes from the beginning of the key.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The kind of the next element; `None` at the end of the tuple.
    ///
    /// # Errors
    ///
    /// [`TupleError::UnknownCode`].
    pub fn peek(&self) -> Result<Option<Kind>, TupleError> {
        let offset = self.offset;
        let Some(&code) = self.bytes.get(offset) else { return Ok(None) };
        Ok(Some(match code {
            code::NULL => {
                let is_escaped = self.bytes.get(offset + 1) == Some(&code::ESCAPE);
                if self.depth > 1 && !is_escaped {
                    return Ok(None);
                }
                Kind::Null
            }
            code::BYTES => Kind::Bytes,
            code::STRING => Kind::String,
            code::TUPLE => Kind::Tuple,
            code::INT_NEGATIVE_BIG..=code::INT_POSITIVE_BIG => Kind::Int,
            code::FLOAT => Kind::Float,
            code::DOUBLE => Kind::Double,
            code::FALSE | code::TRUE => Kind::Bool,
            code::UUID => Kind::Uuid,
            code::VERSIONSTAMP => Kind::Versionstamp,
            _ => return Err(TupleError::UnknownCode { offset, code }),
        }))
    }

    /// Reads a null if one is next, and says whether it was.
    ///
    /// # Errors
    ///
    /// [`TupleError::UnknownCode`].
    pub fn null(&mut self) -> Result<bool, TupleError> {
        let is_null = self.peek()? == Some(Kind::Null);
        if is_null {
            self.offset += if self.depth > 1 { 2 } else { 1 };
        }
        Ok(is_null)
    }

    /// Reads a byte string.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn bytes(&mut self) -> Result<Vec<u8>, TupleError> {
        let offset = self.begin(Kind::Bytes, "a byte string")?;
        self.terminated(offset, Kind::Bytes)
    }

    /// Reads a string.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn string(&mut self) -> Result<String, TupleError> {
        let offset = self.begin(Kind::String, "a string")?;
        let content = self.terminated(offset, Kind::String)?;
        String::from_utf8(content).map_err(|_| TupleError::InvalidUtf8 { offset })
    }

    /// Reads an integer that fits into an `i128`.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn int(&mut self) -> Result<i128, TupleError> {
        let offset = self.offset;
        match self.integer()? {
            Integer::Small(value) => Ok(value),
            Integer::Big(_) => Err(TupleError::IntegerOutOfRange { offset, expected: "i128" }),
        }
    }

    /// Reads an integer that fits into a `u128`.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn unsigned_int(&mut self) -> Result<u128, TupleError> {
        let offset = self.offset;
        let value = match self.integer()? {
            Integer::Small(value) => u128::try_from(value).ok(),
            Integer::Big(value) => value.to_u128(),
        };
        value.ok_or(TupleError::IntegerOutOfRange { offset, expected: "u128" })
    }

    /// Reads an integer of any size.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn big_int(&mut self) -> Result<BigInt, TupleError> {
        Ok(match self.integer()? {
            Integer::Small(value) => BigInt::from(value),
            Integer::Big(value) => value,
        })
    }

    /// Reads a floating point number of 32 bits.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn float(&mut self) -> Result<f32, TupleError> {
        let offset = self.begin(Kind::Float, "a 32 bit float")?;
        let bits = u32::from_be_bytes(self.take(offset, Kind::Float)?);
        Ok(f32::from_bits(if bits >> 31 == 1 { bits ^ 1 << 31 } else { !bits }))
    }

    /// Reads a floating point number of 64 bits.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn double(&mut self) -> Result<f64, TupleError> {
        let offset = self.begin(Kind::Double, "a 64 bit float")?;
        let bits = u64::from_be_bytes(self.take(offset, Kind::Double)?);
        Ok(f64::from_bits(if bits >> 63 == 1 { bits ^ 1 << 63 } else { !bits }))
    }

    /// Reads a truth value.
    ///
    /// # Errors
    ///
    /// What is there instead.
    pub fn bool(&mut self) -> Result<bool, TupleError> {
        let offset = self.begin(Kind::Bool, "a boolean")?;
        Ok(self.bytes[offset] == code::TRUE)
    }

    /// Reads a UUID.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn uuid(&mut self) -> Result<Uuid, TupleError> {
        let offset = self.begin(Kind::Uuid, "a UUID")?;
        Ok(Uuid(self.take(offset, Kind::Uuid)?))
    }

    /// Reads a versionstamp, complete or not.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn versionstamp(&mut self) -> Result<Versionstamp, TupleError> {
        let offset = self.begin(Kind::Versionstamp, "a versionstamp")?;
        Ok(Versionstamp::from_bytes(self.take(offset, Kind::Versionstamp)?))
    }

    /// Reads a tuple, whose elements `read` reads, all of them.
    ///
    /// # Errors
    ///
    /// What is there instead, [`TupleError::TooDeep`], [`TupleError::ExtraElements`], or what `read` returns.
    pub fn tuple<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T, TupleError>,
    ) -> Result<T, TupleError> {
        if self.depth > NESTING_MAX {
            return Err(TupleError::TooDeep);
        }
        let begin = self.offset;
        let is_nested = self.depth > 0;
        if is_nested {
            self.begin(Kind::Tuple, "a tuple")?;
        }
        self.depth += 1;
        let value = read(self);
        let rest = self.peek();
        self.depth -= 1;
        let value = value?;
        if rest?.is_some() {
            return Err(TupleError::ExtraElements { offset: self.offset });
        }
        if is_nested {
            if self.offset >= self.bytes.len() {
                return Err(TupleError::Truncated { offset: begin, kind: Kind::Tuple });
            }
            self.offset += 1;
        }
        Ok(value)
    }

    /// Reads what is an element in any case, see [`Encoder::element`](crate::tuple::Encoder::element).
    ///
    /// # Errors
    ///
    /// [`TupleError::TooDeep`], or what `read` returns.
    pub fn element<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T, TupleError>,
    ) -> Result<T, TupleError> {
        // A type that contains nothing but an optional one of itself would never get to a tuple.
        if self.levels >= LEVELS_MAX {
            return Err(TupleError::TooDeep);
        }
        let depth_before = self.depth;
        self.depth = self.depth.max(1);
        self.levels += 1;
        let value = read(self);
        self.levels -= 1;
        self.depth = depth_before;
        value
    }

    /// The error of an implementation that cannot make a value of what it has read.
    pub fn refuse(&self, reason: impl Into<String>) -> TupleError {
        TupleError::Refused { offset: self.offset, reason: reason.into() }
    }

    /// Checks that everything was read.
    pub(super) fn finish(&self) -> Result<(), TupleError> {
        if self.offset < self.bytes.len() {
            return Err(TupleError::ExtraElements { offset: self.offset });
        }
        Ok(())
    }
}

/// Reading whatever comes.
impl Decoder<'_> {
    /// Reads the next element; `None` at the end of the tuple.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn any(&mut self) -> Result<Option<Element>, TupleError> {
        // A single value is the tuple of it alone.
        self.element(|decoder| {
            let Some(kind) = decoder.peek()? else { return Ok(None) };
            Ok(Some(match kind {
                Kind::Null => {
                    decoder.null()?;
                    Element::Null
                }
                Kind::Bytes => Element::Bytes(decoder.bytes()?),
                Kind::String => Element::String(decoder.string()?),
                Kind::Tuple => Element::Tuple(decoder.any_tuple()?),
                Kind::Int => match decoder.integer()? {
                    Integer::Small(value) => Element::Int(value),
                    Integer::Big(value) => Element::BigInt(value),
                },
                Kind::Float => Element::Float(decoder.float()?),
                Kind::Double => Element::Double(decoder.double()?),
                Kind::Bool => Element::Bool(decoder.bool()?),
                Kind::Uuid => Element::Uuid(decoder.uuid()?),
                Kind::Versionstamp => Element::Versionstamp(decoder.versionstamp()?),
            }))
        })
    }

    /// Reads a tuple of whatever elements.
    ///
    /// # Errors
    ///
    /// What is there instead, or what is wrong with it.
    pub fn any_tuple(&mut self) -> Result<Tuple, TupleError> {
        self.tuple(|decoder| {
            let mut elements = Vec::new();
            while let Some(element) = decoder.any()? {
                elements.push(element);
            }
            Ok(Tuple::from(elements))
        })
    }
}

/// Reading bytes.
impl Decoder<'_> {
    /// Goes past the code of an element, and returns where it stands.
    fn begin(&mut self, kind: Kind, expected: &'static str) -> Result<usize, TupleError> {
        let offset = self.offset;
        match self.peek()? {
            Some(found) if found == kind => {
                self.offset += 1;
                Ok(offset)
            }
            Some(found) => Err(TupleError::UnexpectedKind { offset, expected, found }),
            None => Err(TupleError::MissingElement { offset, expected }),
        }
    }

    /// Content up to the zero that ends it, without the escapes.
    fn terminated(&mut self, offset: usize, kind: Kind) -> Result<Vec<u8>, TupleError> {
        let mut content = Vec::new();
        loop {
            let rest = &self.bytes[self.offset..];
            let end = rest.iter().position(|&byte| byte == 0);
            let end = end.ok_or(TupleError::Truncated { offset, kind })?;
            content.extend_from_slice(&rest[..end]);
            self.offset += end + 1;
            if rest.get(end + 1) != Some(&code::ESCAPE) {
                return Ok(content);
            }
            content.push(0);
            self.offset += 1;
        }
    }

    fn take<const N: usize>(&mut self, offset: usize, kind: Kind) -> Result<[u8; N], TupleError> {
        let bytes = self.slice(N, offset, kind)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    fn slice(&mut self, length: usize, offset: usize, kind: Kind) -> Result<&[u8], TupleError> {
        let end = self.offset + length;
        let slice = self.bytes.get(self.offset..end);
        let slice = slice.ok_or(TupleError::Truncated { offset, kind })?;
        self.offset = end;
        Ok(slice)
    }

    /// An integer. Longer forms than necessary are taken, as FoundationDB does.
    fn integer(&mut self) -> Result<Integer, TupleError> {
        let offset = self.begin(Kind::Int, "an integer")?;
        let code = self.bytes[offset];
        let is_negative = code < code::INT_ZERO;
        let length = match code {
            code::INT_POSITIVE_BIG => {
                let [length] = self.take(offset, Kind::Int)?;
                length
            }
            code::INT_NEGATIVE_BIG => {
                let [length]: [u8; 1] = self.take(offset, Kind::Int)?;
                !length
            }
            code => code.abs_diff(code::INT_ZERO),
        };
        let length = usize::from(length);
        let bytes = self.slice(length, offset, Kind::Int)?;
        if length < 16 {
            // Complemented or not, it fits, and needs no allocation.
            let sign = if is_negative { 0xff } else { 0 };
            let magnitude =
                bytes.iter().fold(0i128, |value, byte| value << 8 | i128::from(byte ^ sign));
            return Ok(Integer::Small(if is_negative { -magnitude } else { magnitude }));
        }
        let value = match is_negative {
            true => BigInt::negative(&bytes.iter().map(|byte| !byte).collect::<Vec<_>>())?,
            false => BigInt::positive(bytes)?,
        };
        Ok(value.to_i128().map_or(Integer::Big(value), Integer::Small))
    }
}
