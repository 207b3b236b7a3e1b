//! The one total order of the cluster: versions, the generations that hand them out, and versionstamps.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in the cluster's one total order of commits.
///
/// Advances by about [`crate::limits::VERSIONS_PER_SECOND`] in a second of real time and never goes
/// back, across every recovery.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Before everything: what a new cluster starts from.
    pub const ZERO: Version = Version(0);
    /// After everything that can be committed.
    pub const MAX: Version = Version(u64::MAX);

    /// The version after this one.
    pub fn next(self) -> Version {
        Version(self.0 + 1)
    }

    /// This version moved back by `count` versions, stopping at zero.
    pub fn saturating_sub(self, count: u64) -> Version {
        Version(self.0.saturating_sub(count))
    }

    /// This version moved on by `count` versions, stopping at [`Version::MAX`].
    pub fn saturating_add(self, count: u64) -> Version {
        Version(self.0.saturating_add(count))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the recoveries of a cluster. Whatever belongs to an older generation is refused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation that the next recovery begins.
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of a transaction in the total order: its commit version, then its index in the batch.
///
/// Ten bytes that sort like the transactions do (I-4):
///
/// ```
/// use ferrisdb_core::version::{Version, Versionstamp};
/// let stamp = Versionstamp { commit_version: Version(0x0102), batch_index: 3 };
/// assert_eq!(stamp.to_bytes(), [0, 0, 0, 0, 0, 0, 1, 2, 0, 3]);
/// assert_eq!(Versionstamp::from_bytes(stamp.to_bytes()), stamp);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Versionstamp {
    /// The version that the transaction's batch committed at.
    pub commit_version: Version,
    /// The transaction's index among the batch's transactions.
    pub batch_index: u16,
}

impl Versionstamp {
    /// Length of the encoded form, in bytes.
    pub const LEN: usize = 10;

    /// Both parts as big-endian integers.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.commit_version.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.batch_index.to_be_bytes());
        bytes
    }

    /// The inverse of [`Versionstamp::to_bytes`].
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Versionstamp {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        Versionstamp {
            commit_version: Version(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            batch_index: u16::from_be_bytes([i, j]),
        }
    }
}

impl fmt::Display for Versionstamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.to_bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
