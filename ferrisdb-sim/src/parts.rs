//! Reading a large range at one version, in parts side by side.
//!
//! ```text
//!   rows 40,000    13 at a time, as a run may have drawn it    one after the other: 3,000 trips, longer than a window of versions
//!                  in 32 parts                                 100 trips
//! ```
//!
//! How much a workload leaves behind grows with how long it ran; a window does not. Whoever reads all of it in the end, at one
//! version, would be too old each time that it tries again. The cuts are keys that the workload knows.

use ferrisdb_client::{RangePage, RangeQuery, Result, Transaction};
use ferrisdb_core::{Key, KeyRange};

/// Into so many parts a range is cut at most.
const PARTS_MAX: usize = 32;
/// So many known keys are worth a part.
const KEYS_MIN: usize = 100;

/// Cuts a range at some of the keys that are known to be in it, which are in order, so that each part has about as many.
pub fn cut<'a>(range: &KeyRange, known: impl IntoIterator<Item = &'a Key>) -> Vec<KeyRange> {
    let known: Vec<&Key> =
        known.into_iter().filter(|key| **key > range.begin && range.contains(key)).collect();
    let step = known.len().div_ceil(PARTS_MAX).max(KEYS_MIN);
    let mut begin = range.begin.clone();
    let mut parts = Vec::new();
    for key in known.into_iter().skip(step).step_by(step) {
        let part = KeyRange { begin, end: key.clone() };
        begin = key.clone();
        parts.push(part);
    }
    parts.push(KeyRange { begin, end: range.end.clone() });
    parts
}

/// Reads the parts of a range side by side. A page for each, in their order.
///
/// # Errors
///
/// What became of one of the reads.
pub async fn read(transaction: &Transaction, parts: &[KeyRange]) -> Result<Vec<RangePage>> {
    let reads = parts.iter().map(|part| transaction.get_range_page(RangeQuery::from(part)));
    futures::future::try_join_all(reads).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_range_again() {
        let range = KeyRange::prefix(b"k/");
        for count in [0, 1, 99, 100, 101, 250, 3_200, 50_000] {
            let keys: Vec<Key> = (0..count).map(|n| format!("k/{n:06}").into()).collect();
            let parts = cut(&range, &keys);
            assert!(parts.len() <= PARTS_MAX && !parts.is_empty(), "{count}: {}", parts.len());
            assert_eq!(parts.len() > 1, count > KEYS_MIN, "{count}");
            assert_eq!((&parts[0].begin, &parts[parts.len() - 1].end), (&range.begin, &range.end));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].begin));
            assert!(parts.iter().all(|part| !part.is_empty()));
        }
        let elsewhere = [Key::from("a"), range.begin.clone(), range.end.clone()];
        assert_eq!(cut(&range, &elsewhere), [range]);
    }
}
