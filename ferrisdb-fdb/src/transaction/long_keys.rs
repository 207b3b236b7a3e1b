//! Keys that are longer than any key may be: reads and ranges take them, and mean the same with shorter ones.

use ferrisdb_client::{Key, KeySelector};
use ferrisdb_core::limits;

/// A bound of a range with the same keys on either side, and not too long: no key is longer than the limit.
pub(super) fn shortened_bound(bound: &[u8]) -> Key {
    match bound.get(..limits::KEY_BYTES_MAX) {
        Some(prefix) if bound.len() > limits::KEY_BYTES_MAX => Key::copy_from(prefix).successor(),
        _ => Key::copy_from(bound),
    }
}

/// The same for a selector: behind all keys that are not longer.
pub(super) fn shortened(selector: KeySelector) -> KeySelector {
    match selector.key.get(..limits::KEY_BYTES_MAX) {
        Some(prefix) if selector.key.len() > limits::KEY_BYTES_MAX => {
            KeySelector { key: Key::copy_from(prefix), or_equal: true, ..selector }
        }
        _ => selector,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_shortened_to_the_same_place() {
        let long = vec![b'x'; limits::KEY_BYTES_MAX + 5];
        let longest = &long[..limits::KEY_BYTES_MAX];
        let bound = shortened_bound(&long);
        assert!(bound.as_slice() > longest && bound.as_slice() < long.as_slice());
        assert_eq!(shortened_bound(longest), Key::copy_from(longest));
        let selector = shortened(KeySelector::first_greater_or_equal(long.clone()));
        assert_eq!(selector, KeySelector::first_greater_than(longest));
    }
}
