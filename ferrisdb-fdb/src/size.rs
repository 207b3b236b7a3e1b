//! What `fdb_transaction_get_approximate_size` says: the bytes of everything that was written, with what FoundationDB's own
//! structures around them take. It only grows, whatever is written over what.
//!
//! ```text
//!   set k = v               k + v + 28     and 2k + 1 + 24 for the conflict with others
//!   clear k                 2k + 1 + 24    and as much for the conflict
//!   clear b..e              b + e + 28     and b + e + 24
//!   a conflict range b..e   b + e + 24     a key that was read is the range from it to its successor
//! ```
//!
//! Programs divide their work by it, and tests look at it. The limit of a transaction counts without what is around: see
//! `docs/libfdb_c.md`.

use ferrisdb_client::Transaction as Client;

/// What is around a mutation.
const MUTATION: usize = 28;
/// What is around a range of keys.
const RANGE: usize = 24;

/// The writes of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    bytes: usize,
    /// The next mutation adds no conflict.
    is_next_without_conflict: bool,
    count: usize,
}

impl Written {
    /// The next mutation, and only that one, adds no conflict.
    pub(crate) fn without_conflict(&mut self) {
        self.is_next_without_conflict = true;
    }

    /// A key was set, or changed by an operation; one with a stamp has no conflict before the commit.
    pub(crate) fn set(&mut self, key: &[u8], parameter: &[u8], is_key_stamped: bool) {
        self.add(key.len() + parameter.len() + MUTATION, single(key), is_key_stamped);
    }

    /// A key was cleared.
    pub(crate) fn clear(&mut self, key: &[u8]) {
        self.add(single(key), single(key), false);
    }

    /// A range was cleared.
    pub(crate) fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        let ends = begin.len() + end.len();
        self.add(ends + MUTATION, ends + RANGE, false);
    }

    /// A write conflict was added.
    pub(crate) fn conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.bytes += begin.len() + end.len() + RANGE;
    }

    fn add(&mut self, bytes: usize, conflict: usize, is_without_conflict: bool) {
        let is_without = std::mem::take(&mut self.is_next_without_conflict) || is_without_conflict;
        self.bytes += bytes + if is_without { 0 } else { conflict };
        self.count += 1;
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// With what was read, too.
    pub(crate) fn approximate_size(&self, client: &Client) -> usize {
        let (ranges, bytes) = client.read_conflicts_size();
        self.bytes + bytes + ranges * RANGE
    }
}

/// A key as a range.
fn single(key: &[u8]) -> usize {
    2 * key.len() + 1 + RANGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_counts_what_is_around_it() {
        let mut written = Written::default();
        let mut grows_by = |change: &dyn Fn(&mut Written)| {
            let before = written.bytes;
            change(&mut written);
            written.bytes - before
        };
        assert_eq!(grows_by(&|written| written.set(b"foo", b"bar", false)), 3 + 3 + 28 + 7 + 24);
        assert_eq!(grows_by(&|written| written.set(b"foo", b"bar", false)), 65, "again");
        assert_eq!(grows_by(&|written| written.set(b"foo", b"bar", true)), 3 + 3 + 28);
        assert_eq!(grows_by(&|written| written.clear(b"foo")), 2 * (7 + 24));
        assert_eq!(grows_by(&|written| written.clear_range(b"a", b"bc")), 3 + 28 + 3 + 24);
        assert_eq!(grows_by(&|written| written.conflict(b"a", b"bc")), 3 + 24);
        assert_eq!(grows_by(&Written::without_conflict), 0);
        assert_eq!(grows_by(&|written| written.clear(b"foo")), 7 + 24);
        assert_eq!(grows_by(&|written| written.clear(b"foo")), 2 * (7 + 24));
        assert!(!written.is_empty());
    }
}
