//! The form of all files of a register.
//!
//! ```text
//!   "FDBRENT1"   8 bytes: the format, what the file is, and the version of both
//!   u32          crc32c of the rest, big-endian
//!   record       in the wire encoding
//! ```
//!
//! | name | magic | record |
//! |---|---|---|
//! | `entry-` and the index in 20 digits | `FDBRENT1` | an entry of the log, with its log id |
//! | `vote` | `FDBRVOT1` | the newest vote |
//! | `purged` | `FDBRPUR1` | the log id through which the log is gone |
//! | `member` | `FDBRMEM1` | the member's number, if it was made to go on alone |
//! | `snapshot` | `FDBRSNP1` | all that was applied through a log id |

use bytes::{BufMut, Bytes, BytesMut};
use ferrisdb_core::{Error, ErrorCode, Result, Stage, transport};
use serde::{Serialize, de::DeserializeOwned};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Entry,
    Vote,
    Purged,
    Snapshot,
    Member,
}

impl FileKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            FileKind::Entry => b"FDBRENT1",
            FileKind::Vote => b"FDBRVOT1",
            FileKind::Purged => b"FDBRPUR1",
            FileKind::Snapshot => b"FDBRSNP1",
            FileKind::Member => b"FDBRMEM1",
        }
    }

    /// The file's contents.
    ///
    /// # Errors
    ///
    /// If the record is longer than the greatest frame.
    pub(super) fn encode<T: Serialize>(self, record: &T) -> Result<Bytes> {
        let encoded = transport::encode(record).map_err(|cause| {
            Error::new(ErrorCode::InvalidArgument, Stage::Control, format!("{self:?}: {cause}"))
        })?;
        let mut file = BytesMut::with_capacity(encoded.len() + 12);
        file.put_slice(self.magic());
        file.put_u32(crc32c::crc32c(&encoded));
        file.put_slice(&encoded);
        Ok(file.freeze())
    }

    /// The inverse of [`FileKind::encode`].
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Corrupt`] if the file is damaged, or of another kind or version.
    pub(super) fn decode<T: DeserializeOwned>(self, file: &[u8]) -> Result<T> {
        let damaged = |what: &str| corrupt(format!("{self:?} file: {what}"));
        let Some((magic, rest)) = file.split_first_chunk::<8>() else {
            return Err(damaged("cut short"));
        };
        if magic != self.magic() {
            return Err(damaged("not of this kind and version"));
        }
        let Some((checksum, encoded)) = rest.split_first_chunk::<4>() else {
            return Err(damaged("cut short"));
        };
        if u32::from_be_bytes(*checksum) != crc32c::crc32c(encoded) {
            return Err(damaged("the checksum is wrong"));
        }
        transport::decode(encoded).map_err(|cause| damaged(&cause.to_string()))
    }
}

pub(super) fn corrupt(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::Corrupt, Stage::Control, detail)
}
