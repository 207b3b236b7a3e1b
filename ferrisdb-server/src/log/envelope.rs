//! The frame around everything a log writes: what it is, how long, and a checksum.
//!
//! ```text
//!   0   u32  magic, one for each kind of contents
//!   4   u32  crc32c of all that follows, contents included
//!   8   u16  format version
//!   10  u16  zero
//!   12  u32  length of the contents, in bytes
//!   16       contents
//! ```
//!
//! Integers are little-endian, here and in the contents.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrisdb_core::limits;
use ferrisdb_core::simulation::{Plant, planted};

/// Bytes before the contents.
pub(super) const ENVELOPE_BYTES: usize = 16;
/// Longest contents. A push fits a frame of the network; its record adds a little for each tag.
pub(super) const CONTENTS_BYTES_MAX: usize = 2 * limits::FRAME_BYTES_MAX;
/// The format that this release writes and reads.
pub(super) const FORMAT_VERSION: u16 = 1;

const _: () = assert!(CONTENTS_BYTES_MAX <= u32::MAX as usize);

/// What stands in an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// See [`super::record`].
    Record,
    /// See [`super::segment`].
    SegmentHeader,
    /// See [`super::state`].
    State,
}

impl Kind {
    /// The first four bytes of the envelope.
    pub(super) fn magic(self) -> [u8; 4] {
        match self {
            Kind::Record => *b"FLrc",
            Kind::SegmentHeader => *b"FLsg",
            Kind::State => *b"FLst",
        }
    }
}

/// What is wrong with bytes that should be an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// The file or the part that was read ends too early.
    #[error("expected {need} bytes, found {have}")]
    Short {
        /// Bytes of the whole envelope, as far as its beginning says.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// Something else, or nothing.
    #[error("expected {expected:?}, found {found:02x?}")]
    Magic {
        /// What should begin here.
        expected: Kind,
        /// The bytes that do.
        found: [u8; 4],
    },
    /// A length that is never written.
    #[error("expected at most {CONTENTS_BYTES_MAX} bytes of contents, found a length of {length}")]
    Length {
        /// The length.
        length: usize,
    },
    /// The bytes are not those that were written.
    #[error("expected checksum {stored:08x}, the contents give {computed:08x}")]
    Checksum {
        /// As written.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// Written by another release.
    #[error("expected format {FORMAT_VERSION}, found {found}")]
    Format {
        /// The other format.
        found: u16,
    },
    /// Intact, but it makes no sense here.
    #[error("{0}")]
    Nonsense(String),
}

impl Damage {
    /// Whether a write that a crash cut short can leave this. Whatever passed its checksum was written whole.
    pub(super) fn may_be_torn(&self) -> bool {
        match self {
            Damage::Short { .. }
            | Damage::Magic { .. }
            | Damage::Length { .. }
            | Damage::Checksum { .. } => true,
            Damage::Format { .. } | Damage::Nonsense(_) => false,
        }
    }
}

/// Appends an envelope with the contents that `write` appends.
///
/// # Panics
///
/// If the contents are longer than [`CONTENTS_BYTES_MAX`]: whoever takes them in has checked that.
pub(super) fn seal(kind: Kind, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let begin = out.len();
    out.put_slice(&kind.magic());
    out.put_u32_le(0);
    out.put_u16_le(FORMAT_VERSION);
    out.put_u16_le(0);
    out.put_u32_le(0);
    write(out);
    let length = out.len() - begin - ENVELOPE_BYTES;
    assert!(length <= CONTENTS_BYTES_MAX, "{kind:?} of {length} bytes");
    out[begin + 12..begin + 16].copy_from_slice(&(length as u32).to_le_bytes());
    let checksum = crc32c::crc32c(&out[begin + 8..]);
    out[begin + 4..begin + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// The contents of the envelope that begins `bytes`, which may go on after it.
pub(super) fn unseal(kind: Kind, bytes: &Bytes) -> Result<Bytes, Damage> {
    let have = bytes.len();
    if have < ENVELOPE_BYTES {
        return Err(Damage::Short { need: ENVELOPE_BYTES, have });
    }
    let mut head = bytes.slice(..ENVELOPE_BYTES);
    let mut found = [0; 4];
    head.copy_to_slice(&mut found);
    if found != kind.magic() {
        return Err(Damage::Magic { expected: kind, found });
    }
    let stored = head.get_u32_le();
    let format = head.get_u16_le();
    head.advance(2);
    let length = head.get_u32_le() as usize;
    if length > CONTENTS_BYTES_MAX {
        return Err(Damage::Length { length });
    }
    let need = ENVELOPE_BYTES + length;
    if have < need {
        return Err(Damage::Short { need, have });
    }
    let computed = crc32c::crc32c(&bytes[8..need]);
    if stored != computed && !planted(Plant::BelieveDamagedRecord) {
        return Err(Damage::Checksum { stored, computed });
    }
    // After the checksum: a damaged number is damage, an intact one of another release is that.
    if format != FORMAT_VERSION {
        return Err(Damage::Format { found: format });
    }
    Ok(bytes.slice(ENVELOPE_BYTES..need))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(contents: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        seal(Kind::Record, &mut out, |out| out.put_slice(contents));
        out.freeze()
    }

    proptest! {
        #[test]
        fn garbage_is_damage_and_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(unseal(Kind::State, &Bytes::from(bytes)).is_err());
        }

        #[test]
        fn any_flipped_bit_is_noticed(
            contents in prop::collection::vec(any::<u8>(), 0..64),
            at: prop::sample::Index,
            bit in 0..8,
        ) {
            let mut bytes = sealed(&contents).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(unseal(Kind::Record, &Bytes::from(bytes)).is_err());
        }
    }

    #[test]
    fn what_follows_is_not_part_of_it() {
        let mut bytes = sealed(b"abc").to_vec();
        bytes.extend_from_slice(b"more");
        assert_eq!(unseal(Kind::Record, &Bytes::from(bytes)).unwrap(), "abc");
    }

    #[test]
    fn another_release_is_not_taken_for_a_torn_write() {
        let mut bytes = sealed(b"abc").to_vec();
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        let damage = unseal(Kind::Record, &Bytes::from(bytes)).unwrap_err();
        assert_eq!(damage, Damage::Format { found: 2 });
        assert!(!damage.may_be_torn());
    }
}
