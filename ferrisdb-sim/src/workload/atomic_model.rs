//! What mutations do to a map: a second opinion on `ferrisdb_core::atomic` and `ferrisdb_core::mutation`.
//!
//! ```text
//!   rows   counter = ff 00            add 01 00   -->   counter = 00 01
//!          last = ?                   stamped value     last = 00..2a 0003
//! ```
//!
//! Written from the documentation of the operations, without their code, and as slow as it likes: a mistake in
//! one of the two shows as a difference.

use std::collections::BTreeMap;

use ferrisdb_client::{AtomicOp, Key, Value, Versionstamp};
use ferrisdb_core::{Mutation, limits};

/// The value after an operation; `None` for no value.
pub fn apply(op: AtomicOp, present: Option<&[u8]>, operand: &[u8]) -> Option<Vec<u8>> {
    let width = operand.len();
    let is_absent = present.is_none();
    let old = present.unwrap_or_default();
    // The present value in the operand's width.
    let fitted = |index: usize| old.get(index).copied().unwrap_or(0);
    let by_byte = |combine: fn(u8, u8) -> u8| {
        Some((0..width).map(|index| combine(fitted(index), operand[index])).collect())
    };
    // As little-endian numbers: the last byte counts most.
    let is_old_less = || {
        let differs = (0..width).rev().find(|&index| fitted(index) != operand[index]);
        differs.is_some_and(|index| fitted(index) < operand[index])
    };
    let fitted_old = || (0..width).map(fitted).collect::<Vec<u8>>();
    match op {
        AtomicOp::Add => {
            let mut sum = Vec::with_capacity(width);
            let mut carry = 0;
            for (index, &byte) in operand.iter().enumerate() {
                let digits = u32::from(fitted(index)) + u32::from(byte) + carry;
                sum.push((digits % 256) as u8);
                carry = digits / 256;
            }
            Some(sum)
        }
        AtomicOp::And if is_absent => Some(operand.to_vec()),
        AtomicOp::And => by_byte(|a, b| a & b),
        AtomicOp::Or => by_byte(|a, b| a | b),
        AtomicOp::Xor => by_byte(|a, b| a ^ b),
        AtomicOp::AppendIfFits if old.len() + width > limits::VALUE_BYTES_MAX => {
            present.map(<[u8]>::to_vec)
        }
        AtomicOp::AppendIfFits => Some(old.iter().chain(operand).copied().collect()),
        AtomicOp::Max if is_old_less() => Some(operand.to_vec()),
        AtomicOp::Max => Some(fitted_old()),
        AtomicOp::Min if is_absent || !is_old_less() => Some(operand.to_vec()),
        AtomicOp::Min => Some(fitted_old()),
        AtomicOp::ByteMin if is_absent || old > operand => Some(operand.to_vec()),
        AtomicOp::ByteMin => Some(old.to_vec()),
        AtomicOp::ByteMax if is_absent || old < operand => Some(operand.to_vec()),
        AtomicOp::ByteMax => Some(old.to_vec()),
        AtomicOp::CompareAndClear if present == Some(operand) => None,
        AtomicOp::CompareAndClear => present.map(<[u8]>::to_vec),
    }
}

/// Bytes with a versionstamp in their gap: the version, then the index in the batch, both big-endian.
pub fn stamped(bytes: &[u8], offset: u32, stamp: Versionstamp) -> Vec<u8> {
    let (version, index) = (stamp.commit_version.0, u64::from(stamp.batch_index));
    let mut filled = bytes.to_vec();
    for place in 0..10 {
        let byte = if place < 8 { version >> (56 - 8 * place) } else { index >> (72 - 8 * place) };
        filled[offset as usize + place] = (byte & 0xff) as u8;
    }
    filled
}

/// Does to a map what a mutation of a transaction with this versionstamp does. `T` is kept with each value.
pub fn apply_mutation<T: Clone>(
    rows: &mut BTreeMap<Key, (Value, T)>,
    mutation: &Mutation,
    stamp: Versionstamp,
    mark: &T,
) {
    let mut set = |key: Key, value: Value| {
        rows.insert(key, (value, mark.clone()));
    };
    match mutation {
        Mutation::Set { key, value } => set(key.clone(), value.clone()),
        Mutation::SetVersionstampedKey { key, offset, value } => {
            set(stamped(key, *offset, stamp).into(), value.clone());
        }
        Mutation::SetVersionstampedValue { key, value, offset } => {
            set(key.clone(), stamped(value, *offset, stamp).into());
        }
        Mutation::Clear { key } => {
            rows.remove(key);
        }
        Mutation::ClearRange { range } => {
            rows.retain(|key, _| !(range.begin <= *key && *key < range.end));
        }
        Mutation::Atomic { key, op, operand } => {
            let present = rows.get(key).map(|(value, _)| value.to_vec());
            match apply(*op, present.as_deref(), operand) {
                Some(value) => {
                    rows.insert(key.clone(), (value.into(), mark.clone()));
                }
                None => {
                    rows.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Version;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_what_storage_servers_do(
            op in prop::sample::select(AtomicOp::ALL),
            present in prop::option::of(prop::collection::vec(prop::sample::select(vec![0u8, 1, 127, 128, 255]), 0..4)),
            operand in prop::collection::vec(prop::sample::select(vec![0u8, 1, 127, 128, 255]), 0..4),
        ) {
            let theirs = op.apply(present.clone().map(Value::from).as_ref(), &operand.clone().into());
            let ours = apply(op, present.as_deref(), &operand).map(Value::from);
            prop_assert_eq!(ours, theirs, "{:?} of {:?} and {:?}", op, present, operand);
        }

        #[test]
        fn agrees_on_versionstamps(version: u64, batch_index: u16, offset in 0u32..3) {
            let stamp = Versionstamp { commit_version: Version(version), batch_index };
            let key = Key::from(b"ab..........cd");
            let theirs = Mutation::SetVersionstampedKey { key: key.clone(), offset, value: "".into() };
            let Mutation::Set { key: theirs, .. } = theirs.substitute(stamp) else { panic!("no set") };
            prop_assert_eq!(Key::from(stamped(&key, offset, stamp)), theirs);
        }
    }
}
