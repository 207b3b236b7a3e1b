//! A record: one batch, as it stands in a segment.
//!
//! The contents of its envelope:
//!
//! ```text
//!   0   u64  instance                   where the record belongs: bytes that were copied from
//!   8   u64  segment                    elsewhere, or that a user has stored as a value, are never
//!   16  u64  offset in the segment      taken for a record
//!   24  u64  synced_before              the first so many bytes of the segment were on disk before
//!   32  u64  previous_version
//!   40  u64  commit_version
//!   48  u64  known_committed_version
//!   56       messages: u32 tag, u32 length, bytes; one after the other
//! ```
//!
//! `synced_before` is what tells a torn tail from damage: an invalid record may be cut only if no record behind it says
//! that those bytes had been on disk.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrisdb_core::{Tag, Version};

use super::envelope::{self, CONTENTS_BYTES_MAX, Damage, ENVELOPE_BYTES, Kind};

/// Bytes of the contents before the messages.
const FIXED_BYTES: usize = 56;
/// Bytes in front of each message.
const MESSAGE_BYTES: usize = 8;

/// A batch, or rather this log's part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The batch before this one.
    pub previous_version: Version,
    /// The batch's version.
    pub commit_version: Version,
    /// A version that is on all logs of the set.
    pub known_committed_version: Version,
    /// Messages by tag; tags ascend.
    pub messages: Vec<(Tag, Bytes)>,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of the log's instance.
    pub instance: u64,
    /// The number of the segment.
    pub segment: u64,
    /// Bytes of the segment before the record.
    pub offset: u64,
}

/// A record as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The record.
    pub(super) record: Record,
    /// How much of the segment was on disk before it was written.
    pub(super) synced_before: u64,
    /// Its length with the envelope.
    pub(super) bytes: u64,
}

impl Record {
    /// The length on disk, with the envelope.
    pub(super) fn encoded_bytes(&self) -> usize {
        let messages: usize =
            self.messages.iter().map(|(_, bytes)| MESSAGE_BYTES + bytes.len()).sum();
        ENVELOPE_BYTES + FIXED_BYTES + messages
    }

    /// Whether it is short enough to be written.
    pub(super) fn fits(&self) -> bool {
        self.encoded_bytes() <= ENVELOPE_BYTES + CONTENTS_BYTES_MAX
    }

    /// Appends the encoded record to `out`.
    pub(super) fn encode(&self, place: &Place, synced_before: u64, out: &mut BytesMut) {
        assert!(
            synced_before <= place.offset,
            "synced through {synced_before} before a write at {}",
            place.offset
        );
        out.reserve(self.encoded_bytes());
        envelope::seal(Kind::Record, out, |out| {
            out.put_u64_le(place.instance);
            out.put_u64_le(place.segment);
            out.put_u64_le(place.offset);
            out.put_u64_le(synced_before);
            out.put_u64_le(self.previous_version.0);
            out.put_u64_le(self.commit_version.0);
            out.put_u64_le(self.known_committed_version.0);
            for (tag, message) in &self.messages {
                out.put_u32_le(tag.0);
                out.put_u32_le(message.len() as u32);
                out.put_slice(message);
            }
        });
    }
}

/// The record that begins `bytes`, which were read from `place`. Messages share their memory.
pub(super) fn decode(bytes: &Bytes, place: &Place) -> Result<Decoded, Damage> {
    let mut contents = envelope::unseal(Kind::Record, bytes)?;
    let length = (ENVELOPE_BYTES + contents.len()) as u64;
    if contents.len() < FIXED_BYTES {
        return Err(Damage::Nonsense(format!("expected a record, found {} bytes", contents.len())));
    }
    let found = Place {
        instance: contents.get_u64_le(),
        segment: contents.get_u64_le(),
        offset: contents.get_u64_le(),
    };
    if found != *place {
        return Err(Damage::Nonsense(format!("expected a record of {place:?}, found {found:?}")));
    }
    let synced_before = contents.get_u64_le();
    if synced_before > place.offset {
        return Err(Damage::Nonsense(format!("expected {synced_before} bytes before the record")));
    }
    let record = Record {
        previous_version: Version(contents.get_u64_le()),
        commit_version: Version(contents.get_u64_le()),
        known_committed_version: Version(contents.get_u64_le()),
        messages: decode_messages(contents)
            .ok_or_else(|| Damage::Nonsense("expected messages by tag".to_owned()))?,
    };
    if record.commit_version <= record.previous_version {
        let (previous, commit) = (record.previous_version, record.commit_version);
        return Err(Damage::Nonsense(format!(
            "expected versions to ascend, found {commit} after {previous}"
        )));
    }
    Ok(Decoded { record, synced_before, bytes: length })
}

fn decode_messages(mut rest: Bytes) -> Option<Vec<(Tag, Bytes)>> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let tag = Tag(rest.try_get_u32_le().ok()?);
        let length = rest.try_get_u32_le().ok()? as usize;
        messages.push((tag, (length <= rest.len()).then(|| rest.split_to(length))?));
    }
    messages.is_sorted_by(|(left, _), (right, _)| left < right).then_some(messages)
}

/// Whether a record of `place` may begin `bytes`: a cheap look before [`decode`] computes a checksum.
pub(super) fn may_begin(bytes: &[u8], place: &Place) -> bool {
    let place_begins = ENVELOPE_BYTES;
    bytes.starts_with(&Kind::Record.magic())
        && bytes.get(place_begins..place_begins + 24).is_some_and(|mut found| {
            found.get_u64_le() == place.instance
                && found.get_u64_le() == place.segment
                && found.get_u64_le() == place.offset
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = Place { instance: 0x1122, segment: 3, offset: 0x1000 };

    fn encode(record: &Record, synced_before: u64) -> Bytes {
        let mut out = BytesMut::new();
        record.encode(&PLACE, synced_before, &mut out);
        out.freeze()
    }

    fn record() -> impl Strategy<Value = Record> {
        let message = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let messages = prop::collection::btree_map(any::<u32>().prop_map(Tag), message, 0..5);
        (any::<u32>(), 1..1000u64, any::<u64>(), messages).prop_map(
            |(previous, step, known_committed, messages)| Record {
                previous_version: Version(previous.into()),
                commit_version: Version(u64::from(previous) + step),
                known_committed_version: Version(known_committed),
                messages: messages.into_iter().collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(record in record(), synced_before in 0..PLACE.offset) {
            let bytes = encode(&record, synced_before);
            prop_assert_eq!(bytes.len(), record.encoded_bytes());
            prop_assert!(may_begin(&bytes, &PLACE));
            let length = bytes.len() as u64;
            let decoded = decode(&bytes, &PLACE).unwrap();
            prop_assert_eq!(decoded, Decoded { record, synced_before, bytes: length });
        }

        #[test]
        fn garbage_is_damage_and_not_a_panic(contents in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut out = BytesMut::new();
            envelope::seal(Kind::Record, &mut out, |out| out.put_slice(&contents));
            prop_assert!(decode(&out.freeze(), &PLACE).is_err());
            let _ = decode_messages(Bytes::from(contents));
        }
    }

    #[test]
    fn golden_bytes() {
        let record = Record {
            previous_version: Version(0x21),
            commit_version: Version(0x22),
            known_committed_version: Version(0x20),
            messages: vec![(Tag(1), Bytes::from_static(b"ab")), (Tag(7), Bytes::new())],
        };
        let golden = [
            b"FLrc".as_slice(),
            &[0xe6, 0x14, 0x5b, 0x7d], // checksum
            &[1, 0, 0, 0, 74, 0, 0, 0],
            &[0x22, 0x11, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0x10, 0, 0, 0, 0, 0, 0],
            &[0, 0x08, 0, 0, 0, 0, 0, 0],
            &[0x21, 0, 0, 0, 0, 0, 0, 0],
            &[0x22, 0, 0, 0, 0, 0, 0, 0],
            &[0x20, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 2, 0, 0, 0, b'a', b'b'],
            &[7, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(encode(&record, 0x800)[..], golden[..]);
    }

    #[test]
    fn a_record_of_another_place_is_refused_and_not_cut() {
        let record = Record {
            previous_version: Version(1),
            commit_version: Version(2),
            known_committed_version: Version(1),
            messages: Vec::new(),
        };
        let elsewhere = Place { offset: 0x2000, ..PLACE };
        let damage = decode(&encode(&record, 0), &elsewhere).unwrap_err();
        assert!(!damage.may_be_torn(), "{damage}");
    }
}
