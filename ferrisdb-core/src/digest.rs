//! A short stand-in for a value, so that two values can be compared where one of them is not at hand.
//!
//! ```text
//!   client   saw 100 kB at version 40, keeps 32 bytes
//!   server   has 100 kB at version 57: the digests are equal, so the values are
//! ```
//!
//! SHA-256 (FIPS 180-4): whoever watches a key must not miss a change because somebody has found another value with
//! the same digest. The constants are computed from the primes that define them.

use serde::{Deserialize, Serialize};

/// The digest of a value: equal for equal values, and in practice only for those.
///
/// ```
/// use ferrisdb_core::digest::ValueDigest;
/// assert_eq!(ValueDigest::of(b"queued"), ValueDigest::of(b"queued"));
/// assert_ne!(ValueDigest::of(b"queued"), ValueDigest::of(b"done"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ValueDigest([u8; ValueDigest::LEN]);

const BLOCK: usize = 64;
const PRIMES: [u128; 64] = primes();
const START: [u32; 8] = start();
const ROUNDS: [u32; 64] = rounds();

const fn primes() -> [u128; 64] {
    let mut primes = [0; 64];
    let (mut count, mut candidate) = (0, 2);
    while count < 64 {
        let mut divisor = 2;
        while candidate % divisor != 0 {
            divisor += 1;
        }
        if divisor == candidate {
            primes[count] = candidate;
            count += 1;
        }
        candidate += 1;
    }
    primes
}

/// The first 32 bits behind the point of the `degree`-th root of a prime below 512.
const fn root_fraction(prime: u128, degree: u32) -> u32 {
    let target = prime << (32 * degree);
    let (mut low, mut high) = (0u128, 1 << 37);
    // low^degree <= target < high^degree
    while high - low > 1 {
        let middle = (low + high) / 2;
        if middle.pow(degree) <= target {
            low = middle;
        } else {
            high = middle;
        }
    }
    low as u32
}

const fn start() -> [u32; 8] {
    let mut words = [0; 8];
    let mut i = 0;
    while i < 8 {
        words[i] = root_fraction(PRIMES[i], 2);
        i += 1;
    }
    words
}

const fn rounds() -> [u32; 64] {
    let mut words = [0; 64];
    let mut i = 0;
    while i < 64 {
        words[i] = root_fraction(PRIMES[i], 3);
        i += 1;
    }
    words
}

impl ValueDigest {
    /// Bytes of a digest.
    pub const LEN: usize = 32;

    /// The digest of a value.
    pub fn of(value: &[u8]) -> ValueDigest {
        let mut state = START;
        let (blocks, rest) = value.as_chunks::<BLOCK>();
        blocks.iter().for_each(|block| mix(&mut state, block));
        // The rest, a one bit, zeros, and the length in bits at the end of a block.
        let mut tail = [0; 2 * BLOCK];
        tail[..rest.len()].copy_from_slice(rest);
        tail[rest.len()] = 0x80;
        let end = if rest.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
        tail[end - 8..end].copy_from_slice(&(value.len() as u64 * 8).to_be_bytes());
        tail[..end].as_chunks::<BLOCK>().0.iter().for_each(|block| mix(&mut state, block));
        let mut digest = [0; Self::LEN];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        ValueDigest(digest)
    }
}

/// Takes in one block.
fn mix(state: &mut [u32; 8], block: &[u8; BLOCK]) {
    let mut words = [0u32; 64];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for i in 16..64 {
        let (early, late) = (words[i - 15], words[i - 2]);
        let early = early.rotate_right(7) ^ early.rotate_right(18) ^ (early >> 3);
        let late = late.rotate_right(17) ^ late.rotate_right(19) ^ (late >> 10);
        words[i] = words[i - 16].wrapping_add(early).wrapping_add(words[i - 7]).wrapping_add(late);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (round, word) in ROUNDS.into_iter().zip(words) {
        let chosen = (e & f) ^ (!e & g);
        let turned = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let first =
            h.wrapping_add(turned).wrapping_add(chosen).wrapping_add(round).wrapping_add(word);
        let most = (a & b) ^ (a & c) ^ (b & c);
        let second =
            (a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22)).wrapping_add(most);
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(second));
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(added);
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

    /// The examples that NIST gives.
    #[test]
    fn known_digests() {
        assert_eq!(hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(
            hex(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(
            hex(&vec![b'a'; 1_000_000]),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    #[test]
    fn every_length_around_a_block_has_its_own() {
        let digests: std::collections::BTreeSet<String> =
            (0..200).map(|length| hex(&vec![0; length])).collect();
        assert_eq!(digests.len(), 200);
    }
}
