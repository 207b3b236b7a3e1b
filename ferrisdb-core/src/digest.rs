//! A short stand-in for a value, so that two values can be compared where one of them is not at hand.
//!
//! ```text
//!   client   saw 100 kB at version 40, keeps 32 bytes
//!   server   has 100 kB at version 57: the digests are equal, so the values are
//! ```
//!
//! SHA-256 (FIPS 180-4): whoever watches a key must not miss a change because somebody has found another value with
//! the same digest.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The digest of a value: equal for equal values, and in practice only for those.
///
/// ```
/// use ferrisdb_core::digest::ValueDigest;
/// assert_eq!(ValueDigest::of(b"queued"), ValueDigest::of(b"queued"));
/// assert_ne!(ValueDigest::of(b"queued"), ValueDigest::of(b"done"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ValueDigest([u8; ValueDigest::LEN]);

impl ValueDigest {
    /// Bytes of a digest.
    pub const LEN: usize = 32;

    /// The digest of a value.
    pub fn of(value: &[u8]) -> ValueDigest {
        ValueDigest(Sha256::digest(value).into())
    }

    /// Its first bytes: a shorter digest.
    pub fn first_bytes<const N: usize>(&self) -> [u8; N] {
        const { assert!(N <= ValueDigest::LEN, "a digest is not longer") };
        std::array::from_fn(|index| self.0[index])
    }
}

impl std::fmt::Debug for ValueDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(value: &[u8]) -> String {
        ValueDigest::of(value).0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn it_is_what_everybody_calls_sha_256() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(b"abc"), known);
    }
}
