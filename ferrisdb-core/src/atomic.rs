//! Atomic operations, as pure functions of the present value and an operand.
//!
//! They stay operations until a storage server applies them in commit order, so that two transactions
//! that add to the same counter do not conflict. The semantics of each are FoundationDB's
//! (API version 510 and later), so that a layer written for it finds the same results here.

use serde::{Deserialize, Serialize};

use crate::{key::Value, limits};

/// Which atomic operation. The numbers are in logs on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum AtomicOp {
    /// Little-endian addition, wrapping, in the width of the operand.
    Add = 2,
    /// Bitwise and; an absent value becomes the operand.
    And = 6,
    /// Bitwise or.
    Or = 7,
    /// Bitwise exclusive or.
    Xor = 8,
    /// Appends the operand unless the value would become too long.
    AppendIfFits = 9,
    /// The greater one as little-endian unsigned integers, in the width of the operand.
    Max = 12,
    /// The lesser one as little-endian unsigned integers; an absent value becomes the operand.
    Min = 13,
    /// The lesser one as byte strings; an absent value becomes the operand.
    ByteMin = 16,
    /// The greater one as byte strings; an absent value becomes the operand.
    ByteMax = 17,
    /// Clears the key if its value equals the operand.
    CompareAndClear = 20,
}

impl AtomicOp {
    /// All operations.
    pub const ALL: &[AtomicOp] = &[
        AtomicOp::Add,
        AtomicOp::And,
        AtomicOp::Or,
        AtomicOp::Xor,
        AtomicOp::AppendIfFits,
        AtomicOp::Max,
        AtomicOp::Min,
        AtomicOp::ByteMin,
        AtomicOp::ByteMax,
        AtomicOp::CompareAndClear,
    ];

    /// The operation of a number.
    pub fn from_number(number: u8) -> Option<AtomicOp> {
        AtomicOp::ALL.iter().copied().find(|&op| op as u8 == number)
    }

    /// One operand that does what two of them do one after the other, whatever the value is; `None` if there is none, or
    /// none that is no longer than the two.
    ///
    /// ```
    /// use ferrisdb_core::{Value, atomic::AtomicOp};
    /// let (two, three) = (Value::from(&[2]), Value::from(&[3]));
    /// assert_eq!(AtomicOp::Add.joined(&two, &three), Some(Value::from(&[5])));
    /// assert_eq!(AtomicOp::AppendIfFits.joined(&two, &three), None, "the first may fit and the second not");
    /// ```
    pub fn joined(self, first: &Value, second: &Value) -> Option<Value> {
        match self {
            // The result has the width of the last operand: with another one before it, bytes would be lost.
            AtomicOp::Add
            | AtomicOp::And
            | AtomicOp::Or
            | AtomicOp::Xor
            | AtomicOp::Max
            | AtomicOp::Min
                if first.len() != second.len() =>
            {
                None
            }
            AtomicOp::Add
            | AtomicOp::And
            | AtomicOp::Or
            | AtomicOp::Xor
            | AtomicOp::Max
            | AtomicOp::Min
            | AtomicOp::ByteMin
            | AtomicOp::ByteMax => self.apply(Some(first), second),
            AtomicOp::AppendIfFits | AtomicOp::CompareAndClear => None,
        }
    }

    /// The value after the operation; `None` when the key is cleared (or stays absent).
    ///
    /// ```
    /// use ferrisdb_core::{Value, atomic::AtomicOp};
    /// let seven = Value::from(&[7, 0]);
    /// assert_eq!(AtomicOp::Add.apply(Some(&seven), &Value::from(&[1, 1])), Some(Value::from(&[8, 1])));
    /// ```
    pub fn apply(self, present: Option<&Value>, operand: &Value) -> Option<Value> {
        let bytes = present.map_or(&[][..], Value::as_slice);
        match self {
            AtomicOp::Add if bytes.is_empty() => Some(operand.clone()),
            AtomicOp::Add => {
                let mut carry = 0u16;
                Some(zip_operand(bytes, operand, |a, b| {
                    carry += u16::from(a) + u16::from(b);
                    let [low, high] = carry.to_le_bytes();
                    carry = u16::from(high);
                    low
                }))
            }
            AtomicOp::And if present.is_none() => Some(operand.clone()),
            AtomicOp::And => Some(zip_operand(bytes, operand, |a, b| a & b)),
            AtomicOp::Or => Some(zip_operand(bytes, operand, |a, b| a | b)),
            AtomicOp::Xor => Some(zip_operand(bytes, operand, |a, b| a ^ b)),
            AtomicOp::AppendIfFits => {
                if bytes.len() + operand.len() > limits::VALUE_BYTES_MAX {
                    return present.cloned();
                }
                Some(Value::from([bytes, operand].concat()))
            }
            AtomicOp::Max if bytes.is_empty() => Some(operand.clone()),
            AtomicOp::Max => Some(greater_or_lesser(bytes, operand, std::cmp::Ordering::Greater)),
            AtomicOp::Min if present.is_none() => Some(operand.clone()),
            AtomicOp::Min => Some(greater_or_lesser(bytes, operand, std::cmp::Ordering::Less)),
            AtomicOp::ByteMin => Some(present.map_or(operand, |p| p.min(operand)).clone()),
            AtomicOp::ByteMax => Some(present.map_or(operand, |p| p.max(operand)).clone()),
            AtomicOp::CompareAndClear => present.filter(|&present| present != operand).cloned(),
        }
    }
}

/// Combines byte by byte in the width of the operand: the present value is cut or filled with zeros.
fn zip_operand(present: &[u8], operand: &[u8], mut combine: impl FnMut(u8, u8) -> u8) -> Value {
    let filled = present.iter().copied().chain(std::iter::repeat(0));
    let bytes: Vec<u8> = filled.zip(operand).map(|(a, &b)| combine(a, b)).collect();
    Value::from(bytes)
}

/// Of the present value, in the width of the operand, and the operand: the one that compares as `wanted`.
fn greater_or_lesser(present: &[u8], operand: &Value, wanted: std::cmp::Ordering) -> Value {
    let present = zip_operand(present, operand, |a, _| a);
    if present.iter().rev().cmp(operand.iter().rev()) == wanted { present } else { operand.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(op: AtomicOp, present: Option<&[u8]>, operand: &[u8]) -> Option<Vec<u8>> {
        op.apply(present.map(Value::from).as_ref(), &Value::from(operand)).map(|v| v.to_vec())
    }

    #[test]
    fn semantics_case_by_case() {
        use AtomicOp::*;
        type Case = (AtomicOp, Option<&'static [u8]>, &'static [u8], Option<&'static [u8]>);
        let cases: &[Case] = &[
            (Add, None, b"\x05\x00", Some(b"\x05\x00")),
            (Add, Some(b"\xff"), b"\x01\x00", Some(b"\x00\x01")),
            (Add, Some(b"\xff\xff"), b"\x01", Some(b"\x00")),
            (Add, Some(b"\x01\x02\x03"), b"\x01", Some(b"\x02")),
            (Add, Some(b"\x01"), b"", Some(b"")),
            (And, None, b"\x05", Some(b"\x05")),
            (And, Some(b""), b"\x05", Some(b"\x00")),
            (And, Some(b"\x0c\xff"), b"\x0a", Some(b"\x08")),
            (Or, None, b"\x05", Some(b"\x05")),
            (Or, Some(b"\x0c"), b"\x0a\x01", Some(b"\x0e\x01")),
            (Xor, Some(b"\x0c"), b"\x0a\x01", Some(b"\x06\x01")),
            (AppendIfFits, None, b"x", Some(b"x")),
            (AppendIfFits, Some(b"ab"), b"c", Some(b"abc")),
            (Max, None, b"\x02", Some(b"\x02")),
            (Max, Some(b"\x01\x01"), b"\x02\x00", Some(b"\x01\x01")),
            (Max, Some(b"\x01\x01"), b"\x02", Some(b"\x02")),
            (Min, None, b"\x02", Some(b"\x02")),
            (Min, Some(b""), b"\x02", Some(b"\x00")),
            (Min, Some(b"\x01\x01"), b"\x02\x00", Some(b"\x02\x00")),
            (ByteMin, None, b"b", Some(b"b")),
            (ByteMin, Some(b"a"), b"b", Some(b"a")),
            (ByteMax, Some(b"a"), b"b", Some(b"b")),
            (ByteMax, Some(b"ba"), b"b", Some(b"ba")),
            (CompareAndClear, None, b"b", None),
            (CompareAndClear, Some(b"a"), b"b", Some(b"a")),
            (CompareAndClear, Some(b"b"), b"b", None),
        ];
        for &(op, present, operand, expected) in cases {
            let result = apply(op, present, operand);
            assert_eq!(result.as_deref(), expected, "{op:?} of {present:?} and {operand:?}");
        }
    }

    #[test]
    fn append_stops_at_the_limit() {
        let long = vec![b'x'; limits::VALUE_BYTES_MAX];
        assert_eq!(apply(AtomicOp::AppendIfFits, Some(&long), b"y"), Some(long));
    }
}
