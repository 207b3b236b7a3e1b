//! Mutations: what a transaction does to the data, and how a batch of them is written to a log.
//!
//! Logs do not look into mutations: a proxy encodes those of one tag and one version into a single byte
//! string, and the storage server that owns the tag decodes it. So the format below is both on the
//! wire and on disk, and is written by hand. One mutation after the other:
//!
//! ```text
//!   1 set           u8 kind = 1   varint key length, key    varint value length, value
//!   2 clear         u8 kind = 2   varint key length, key
//!   3 clear range   u8 kind = 3   varint begin length, begin   varint end length, end
//!   4 atomic        u8 kind = 4   u8 operation   varint key length, key   varint operand length, operand
//!   7 shard change  u8 kind = 7   begin and end as in 3   varint role   varint count, varint tags: the sources
//! ```
//!
//! Varints are unsigned LEB128. Kinds 5 and 6 are versionstamped sets, which a proxy turns into sets
//! before they get here; kinds are never reused. A shard change is no mutation of a transaction: the proxy adds
//! it for the storage server whose stream it is in, see [`crate::shard`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::{
    atomic::AtomicOp,
    key::{Key, Value},
    range::KeyRange,
    shard::ShardChange,
    version::Versionstamp,
};

/// One change of the data, in the order in which the transaction made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation {
    /// Sets the value of a key.
    Set {
        /// The key.
        key: Key,
        /// Its value from now on.
        value: Value,
    },
    /// Removes a key.
    Clear {
        /// The key.
        key: Key,
    },
    /// Removes all keys of a range.
    ClearRange {
        /// The keys.
        range: KeyRange,
    },
    /// Changes a value by a function of it, evaluated in commit order.
    Atomic {
        /// The key.
        key: Key,
        /// The function.
        op: AtomicOp,
        /// Its second argument.
        operand: Value,
    },
    /// Sets a key that contains the transaction's versionstamp.
    SetVersionstampedKey {
        /// The key with a gap of ten bytes.
        key: Key,
        /// Where in the key the gap begins.
        offset: u32,
        /// The value.
        value: Value,
    },
    /// Sets a value that contains the transaction's versionstamp.
    SetVersionstampedValue {
        /// The key.
        key: Key,
        /// The value with a gap of ten bytes.
        value: Value,
        /// Where in the value the gap begins.
        offset: u32,
    },
}

impl Mutation {
    /// The bytes of keys and values in it, which count against the transaction's limit.
    pub fn size(&self) -> usize {
        match self {
            Mutation::Set { key, value }
            | Mutation::SetVersionstampedKey { key, value, .. }
            | Mutation::SetVersionstampedValue { key, value, .. } => key.len() + value.len(),
            Mutation::Clear { key } => key.len(),
            Mutation::ClearRange { range } => range.begin.len() + range.end.len(),
            Mutation::Atomic { key, operand, .. } => key.len() + operand.len(),
        }
    }

    /// The same mutation as if its gap for a versionstamp were just bytes.
    #[must_use]
    pub fn without_stamp(&self) -> Mutation {
        match self {
            Mutation::SetVersionstampedKey { key, value, .. }
            | Mutation::SetVersionstampedValue { key, value, .. } => {
                Mutation::Set { key: key.clone(), value: value.clone() }
            }
            other => other.clone(),
        }
    }

    /// The key that a mutation with a versionstamp in its key sets, once the stamp is known.
    pub fn stamped_key(&self, stamp: Versionstamp) -> Option<Key> {
        match self {
            Mutation::SetVersionstampedKey { key, offset, .. } => {
                Some(Key(fill_gap(&key.0, *offset, stamp)))
            }
            _ => None,
        }
    }

    /// Fills in the versionstamp where the mutation has a gap for one.
    ///
    /// The gap was checked to be inside when the transaction arrived; one outside leaves the bytes as they are.
    pub fn substitute(self, stamp: Versionstamp) -> Mutation {
        match self {
            Mutation::SetVersionstampedKey { key, offset, value } => {
                Mutation::Set { key: Key(fill_gap(&key.0, offset, stamp)), value }
            }
            Mutation::SetVersionstampedValue { key, value, offset } => {
                Mutation::Set { key, value: Value(fill_gap(&value.0, offset, stamp)) }
            }
            other => other,
        }
    }
}

fn fill_gap(bytes: &Bytes, offset: u32, stamp: Versionstamp) -> Bytes {
    let mut filled = bytes.to_vec();
    let begin = offset as usize;
    if let Some(gap) = filled.get_mut(begin..begin.saturating_add(Versionstamp::LEN)) {
        gap.copy_from_slice(&stamp.to_bytes());
    }
    Bytes::from(filled)
}

/// Writes mutations one after the other in the format of this module.
#[derive(Debug, Default)]
pub struct Encoder(BytesMut);

impl Encoder {
    /// Appends one mutation.
    ///
    /// # Panics
    ///
    /// If a versionstamp has not been substituted yet.
    pub fn push(&mut self, mutation: &Mutation) {
        let out = &mut self.0;
        match mutation {
            Mutation::Set { key, value } => {
                out.put_u8(1);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Mutation::Clear { key } => {
                out.put_u8(2);
                put_bytes(out, key);
            }
            Mutation::ClearRange { range } => {
                out.put_u8(3);
                put_bytes(out, &range.begin);
                put_bytes(out, &range.end);
            }
            Mutation::Atomic { key, op, operand } => {
                out.put_u8(4);
                out.put_u8(*op as u8);
                put_bytes(out, key);
                put_bytes(out, operand);
            }
            Mutation::SetVersionstampedKey { .. } | Mutation::SetVersionstampedValue { .. } => {
                panic!("a versionstamp was not substituted before tagging: {mutation:?} (I-4)")
            }
        }
    }

    /// Appends word of a change of the reader's shards.
    pub fn push_shard_change(&mut self, change: &ShardChange) {
        self.0.put_u8(7);
        change.put(&mut self.0);
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The encoded mutations.
    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// What a storage server finds in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A change of data.
    Mutation(Mutation),
    /// A change of what the server is to a range of keys.
    ShardChange(ShardChange),
}

/// Reads a stream's items back, in order. Keys and values share the memory of the encoded bytes.
///
/// # Errors
///
/// The first malformed mutation ends the iteration with its offset.
pub fn decode(encoded: Bytes) -> impl Iterator<Item = Result<Item, DecodeError>> {
    let length = encoded.len();
    let mut rest = encoded;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let offset = length - rest.len();
        let decoded = decode_one(&mut rest).ok_or(DecodeError { offset });
        if decoded.is_err() {
            rest.clear();
        }
        Some(decoded)
    })
}

/// A malformed mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed mutation at byte {offset}")]
pub struct DecodeError {
    /// Where the mutation begins.
    pub offset: usize,
}

fn decode_one(rest: &mut Bytes) -> Option<Item> {
    Some(Item::Mutation(match rest.try_get_u8().ok()? {
        1 => Mutation::Set { key: Key(get_bytes(rest)?), value: Value(get_bytes(rest)?) },
        2 => Mutation::Clear { key: Key(get_bytes(rest)?) },
        3 => {
            let (begin, end) = (Key(get_bytes(rest)?), Key(get_bytes(rest)?));
            Mutation::ClearRange { range: KeyRange { begin, end } }
        }
        4 => {
            let op = AtomicOp::from_number(rest.try_get_u8().ok()?)?;
            Mutation::Atomic { op, key: Key(get_bytes(rest)?), operand: Value(get_bytes(rest)?) }
        }
        7 => return Some(Item::ShardChange(ShardChange::get(rest)?)),
        _ => return None,
    }))
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

pub(crate) fn get_bytes(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(get_varint(rest)?).ok()?;
    (length <= rest.len()).then(|| rest.split_to(length))
}

/// Writes an unsigned LEB128 integer.
pub fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// Reads an unsigned LEB128 integer; `None` if it does not end or does not fit.
pub fn get_varint(rest: &mut Bytes) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = rest.try_get_u8().ok()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{id::Tag, version::Version};

    fn mutation() -> impl Strategy<Value = Mutation> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            (bytes(), bytes()).prop_map(|(k, v)| Mutation::Set { key: k.into(), value: v.into() }),
            bytes().prop_map(|k| Mutation::Clear { key: k.into() }),
            (bytes(), bytes())
                .prop_map(|(b, e)| Mutation::ClearRange { range: KeyRange::new(b, e) }),
            (bytes(), bytes(), prop::sample::select(AtomicOp::ALL)).prop_map(|(k, v, op)| {
                Mutation::Atomic { key: k.into(), op, operand: v.into() }
            }),
        ]
    }

    fn encode(mutations: &[Mutation]) -> Bytes {
        let mut encoder = Encoder::default();
        mutations.iter().for_each(|mutation| encoder.push(mutation));
        encoder.finish()
    }

    proptest! {
        #[test]
        fn round_trip(mutations in prop::collection::vec(mutation(), 0..20)) {
            let decoded: Result<Vec<_>, _> = decode(encode(&mutations)).collect();
            let items: Vec<_> = mutations.into_iter().map(Item::Mutation).collect();
            prop_assert_eq!(decoded.unwrap(), items);
        }

        #[test]
        fn garbage_is_an_error_and_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(Bytes::from(bytes)).count();
        }

        #[test]
        fn varint_round_trip(number: u64) {
            let mut out = BytesMut::new();
            put_varint(&mut out, number);
            prop_assert_eq!(get_varint(&mut out.freeze()), Some(number));
        }
    }

    #[test]
    fn golden_bytes() {
        let mutations = [
            Mutation::Set { key: "k".into(), value: "vv".into() },
            Mutation::Clear { key: "k".into() },
            Mutation::ClearRange { range: KeyRange::new("a", "b") },
            Mutation::Atomic { key: "n".into(), op: AtomicOp::Add, operand: Value::from(&[1, 0]) },
            Mutation::Set { key: vec![b'x'; 200].into(), value: "".into() },
        ];
        let mut golden =
            b"\x01\x01k\x02vv\x02\x01k\x03\x01a\x01b\x04\x02\x01n\x02\x01\x00".to_vec();
        golden.extend_from_slice(b"\x01\xc8\x01");
        golden.extend_from_slice(&[b'x'; 200]);
        golden.push(0);
        assert_eq!(encode(&mutations), golden);
    }

    #[test]
    fn shard_changes_travel_between_mutations() {
        let clear = Mutation::Clear { key: "k".into() };
        let change = ShardChange {
            range: KeyRange::new("a", "b"),
            role: crate::shard::ShardRole::Joining { sources: vec![Tag(1), Tag(300)] },
        };
        let mut encoder = Encoder::default();
        encoder.push(&clear);
        encoder.push_shard_change(&change);
        let encoded = encoder.finish();
        assert_eq!(encoded[..], *b"\x02\x01k\x07\x01a\x01b\x01\x02\x01\xac\x02");
        let decoded: Vec<_> = decode(encoded).map(Result::unwrap).collect();
        assert_eq!(decoded, [Item::Mutation(clear), Item::ShardChange(change)]);
    }

    #[test]
    fn a_truncated_mutation_is_an_error_with_its_offset() {
        let encoded = encode(&[
            Mutation::Clear { key: "k".into() },
            Mutation::Set { key: "k".into(), value: "v".into() },
        ]);
        let cut = encoded.slice(..encoded.len() - 1);
        assert_eq!(decode(cut).last(), Some(Err(DecodeError { offset: 3 })));
    }

    #[test]
    fn versionstamps_are_filled_in() {
        let stamp = Versionstamp { commit_version: Version(7), batch_index: 1 };
        let mutation = Mutation::SetVersionstampedKey {
            key: Key::from(b"q/........../"),
            offset: 2,
            value: "v".into(),
        };
        let expected = Key::from(b"q/\0\0\0\0\0\0\0\x07\0\x01/");
        assert_eq!(mutation.stamped_key(stamp), Some(expected.clone()));
        assert_eq!(mutation.substitute(stamp), Mutation::Set { key: expected, value: "v".into() });
    }
}
