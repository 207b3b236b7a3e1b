//! A segment file: a header, then records one after the other, then zeros.
//!
//! The contents of the header's envelope:
//!
//! ```text
//!   0   u64  instance
//!   8   u64  number of the segment, as in its name
//!   16  u64  generation
//!   24  u64  length of the segment before, without its zeros; 0 in segment 0
//!   32  u64  previous_version: the last one of the segment before
//! ```
//!
//! A segment is begun only after all of the one before is on disk, so the header seals that one: a record missing at its
//! end is noticed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrisdb_core::{Generation, Version};

use super::{
    envelope::{self, Damage, ENVELOPE_BYTES, Kind},
    record::{self, Decoded, Place},
};

/// Bytes of the contents of a header.
const CONTENTS_BYTES: usize = 40;
/// Where the first record begins.
pub(super) const HEADER_BYTES: u64 = (ENVELOPE_BYTES + CONTENTS_BYTES) as u64;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The number of the log's instance.
    pub instance: u64,
    /// The number of the segment.
    pub segment: u64,
    /// The instance's generation.
    pub generation: Generation,
    /// The length of the segment before.
    pub sealed_bytes: u64,
    /// The last version of the segment before.
    pub previous_version: Version,
}

impl SegmentHeader {
    /// Appends the encoded header to `out`.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        envelope::seal(Kind::SegmentHeader, out, |out| {
            out.put_u64_le(self.instance);
            out.put_u64_le(self.segment);
            out.put_u64_le(self.generation.0);
            out.put_u64_le(self.sealed_bytes);
            out.put_u64_le(self.previous_version.0);
        });
    }

    /// The header at the beginning of a file.
    pub(super) fn decode(file: &Bytes) -> Result<SegmentHeader, Damage> {
        let mut contents = envelope::unseal(Kind::SegmentHeader, file)?;
        if contents.len() != CONTENTS_BYTES {
            let found = contents.len();
            return Err(Damage::Nonsense(format!("expected a header, found {found} bytes")));
        }
        Ok(SegmentHeader {
            instance: contents.get_u64_le(),
            segment: contents.get_u64_le(),
            generation: Generation(contents.get_u64_le()),
            sealed_bytes: contents.get_u64_le(),
            previous_version: Version(contents.get_u64_le()),
        })
    }
}

/// The name of a segment's file.
pub(super) fn file_name(segment: u64) -> String {
    format!("{segment:08}.log")
}

/// The inverse of [`file_name`]; `None` for names of other files.
pub(super) fn number_of(file_name: &str) -> Option<u64> {
    let number = file_name.strip_suffix(".log")?;
    let is_ours = number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| number.parse().ok())?
}

/// The records of a segment, as far as they are valid and in chain order.
#[derive(Debug)]
pub(super) struct Records<'a> {
    file: &'a Bytes,
    place: Place,
    last_version: Version,
    synced_before: u64,
    damage: Option<Damage>,
}

impl<'a> Records<'a> {
    /// The records of a file that begins with `header`.
    pub(super) fn new(file: &'a Bytes, header: &SegmentHeader) -> Records<'a> {
        let SegmentHeader { instance, segment, previous_version, .. } = *header;
        let place = Place { instance, segment, offset: HEADER_BYTES };
        Records { file, place, last_version: previous_version, synced_before: 0, damage: None }
    }

    /// Where the records end that were returned.
    pub(super) fn end(&self) -> u64 {
        self.place.offset
    }

    /// How much of the file was on disk, for sure, when the last record was written.
    pub(super) fn synced_before(&self) -> u64 {
        self.synced_before
    }

    /// Why there is no further record, once the iteration has ended.
    ///
    /// # Panics
    ///
    /// Before that.
    pub(super) fn into_damage(self) -> Damage {
        self.damage.expect("records end with something that is none")
    }

    fn decode_next(&self) -> Result<Decoded, Damage> {
        let rest = self.file.slice((self.place.offset as usize).min(self.file.len())..);
        let decoded = record::decode(&rest, &self.place)?;
        let found = decoded.record.previous_version;
        if found != self.last_version {
            let expected = self.last_version;
            let reason =
                format!("expected a record after version {expected}, found one after {found}");
            return Err(Damage::Nonsense(reason));
        }
        Ok(decoded)
    }
}

impl Iterator for Records<'_> {
    type Item = (u64, Decoded);

    fn next(&mut self) -> Option<(u64, Decoded)> {
        if self.damage.is_some() {
            return None;
        }
        match self.decode_next() {
            Ok(decoded) => {
                let offset = self.place.offset;
                self.place.offset += decoded.bytes;
                self.last_version = decoded.record.commit_version;
                self.synced_before = decoded.synced_before;
                Some((offset, decoded))
            }
            Err(damage) => {
                self.damage = Some(damage);
                None
            }
        }
    }
}

/// Looks behind `end`, where the valid records end, for one that says that more than `end` had been on disk. Returns
/// its offset and what it says.
pub(super) fn find_proof_of_loss(
    file: &Bytes,
    instance: u64,
    segment: u64,
    end: u64,
) -> Option<(u64, u64)> {
    let first_byte = Kind::Record.magic()[0];
    let mut at = end as usize;
    while let Some(step) = file.get(at..)?.iter().position(|byte| *byte == first_byte) {
        at += step;
        let place = Place { instance, segment, offset: at as u64 };
        if record::may_begin(&file[at..], &place)
            && let Ok(decoded) = record::decode(&file.slice(at..), &place)
            && decoded.synced_before > end
        {
            return Some((place.offset, decoded.synced_before));
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let header = SegmentHeader {
            instance: 0x55,
            segment: 3,
            generation: Generation(17),
            sealed_bytes: 0x1000,
            previous_version: Version(0x99),
        };
        let golden = [
            b"FLsg".as_slice(),
            &[0xf7, 0xe8, 0x15, 0x63], // checksum
            &[1, 0, 0, 0, 40, 0, 0, 0],
            &[0x55, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[17, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0x10, 0, 0, 0, 0, 0, 0],
            &[0x99, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let mut encoded = BytesMut::new();
        header.encode(&mut encoded);
        let encoded = encoded.freeze();
        assert_eq!(encoded[..], golden[..]);
        assert_eq!(encoded.len() as u64, HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&encoded), Ok(header));
    }

    #[test]
    fn names_sort_like_numbers() {
        assert_eq!(file_name(7), "00000007.log");
        assert_eq!(number_of("00000007.log"), Some(7));
        assert_eq!(number_of(&file_name(123_456_789)), Some(123_456_789));
        for other in ["state", "7.log", "00000007.log.new", "+0000007.log", ".log"] {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
