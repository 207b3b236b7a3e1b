//! Where the database remembers which idempotency ids were committed (I-6).
//!
//! ```text
//!   \xff\x02/idempotency/<id>     versionstamp, attempt    written by the commit, cleared once its client knows
//!   \xff\x02/idempotency-swept    version                  records up to here may be gone: their clients never came
//! ```
//!
//! A client that finds no record looks at the second key, at the same version. Its commit would have come after
//! the read version that it was sent with: if nothing as late as that was swept, the commit did not take effect.
//! No clock is asked, so it does not matter how long the client, or its machine, was asleep.

use crate::{
    atomic::AtomicOp,
    key::{Key, Value},
    mutation::Mutation,
    range::KeyRange,
    transaction::IdempotencyId,
    version::Version,
};

const RECORDS: &[u8] = b"\xff\x02/idempotency/";
const SWEPT: &[u8] = b"\xff\x02/idempotency-swept";

/// All records.
pub fn records() -> KeyRange {
    KeyRange::prefix(RECORDS)
}

/// The key of an id's record.
pub fn record_key(id: IdempotencyId) -> Key {
    Key::from([RECORDS, &id.to_be_bytes()].concat())
}

/// The key that says which records may be gone.
pub fn swept_key() -> Key {
    Key::from(SWEPT)
}

/// Says that records of commits up to and including `version` may be gone. Never takes back what was said before,
/// also if two sweepers do not know of each other.
pub fn mark_swept(version: Version) -> Mutation {
    // Big-endian: byte strings of one length compare like the numbers.
    let operand = Value::from(&version.0.to_be_bytes());
    Mutation::Atomic { key: swept_key(), op: AtomicOp::ByteMax, operand }
}

/// The version that [`mark_swept`] has left; `None` for what it cannot have written.
pub fn swept_version(value: &Value) -> Option<Version> {
    let bytes = value.as_slice().try_into().ok()?;
    Some(Version(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_beside_the_records_and_only_grows() {
        assert!(records().contains(&record_key(u128::MAX)));
        assert!(!records().contains(&swept_key()));
        let mut value = None;
        for (marked, expected) in [(255, 255), (256, 256), (3, 256)] {
            let Mutation::Atomic { key, op, operand } = mark_swept(Version(marked)) else {
                panic!("marks are atomic operations");
            };
            assert_eq!(key, swept_key());
            value = op.apply(value.as_ref(), &operand);
            assert_eq!(value.as_ref().and_then(swept_version), Some(Version(expected)));
        }
        assert_eq!(swept_version(&"torn".into()), None);
    }
}
