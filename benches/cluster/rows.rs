//! What the benchmark's rows look like.
//!
//! ```text
//!   bench/ k 000000042 -> 0000000000000007 random bytes        16 bytes of key, 100 of value, unless told otherwise
//!   prefix | number       counter (or balance), big-endian
//!          table
//! ```

use anyhow::{Result, ensure};
use ferrisdb_client::{Key, KeyRange};

use crate::random::Random;

/// The counter at the begin of each value.
const COUNTER_BYTES: usize = 8;

/// A set of rows that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// The rows that are read and updated.
    Keys,
    /// The accounts of the bank.
    Accounts,
    /// The items of the queue.
    Queue,
    /// What was loaded, and how: a row for each of the other tables.
    Marks,
    /// The rows that are watched.
    Watched,
}

impl Table {
    fn letter(self) -> char {
        match self {
            Table::Keys => 'k',
            Table::Accounts => 'a',
            Table::Queue => 'q',
            Table::Marks => 'm',
            Table::Watched => 'w',
        }
    }
}

/// The sizes and names of all rows.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    prefix: String,
    digits: usize,
    value_bytes: usize,
}

impl Rows {
    /// Rows with such sizes; `count` of them, and some that are inserted, must have a name.
    ///
    /// # Errors
    ///
    /// If keys or values are too small.
    pub(crate) fn new(
        prefix: &str,
        key_bytes: usize,
        value_bytes: usize,
        count: u64,
    ) -> Result<Rows> {
        ensure!(
            value_bytes >= COUNTER_BYTES,
            "--value-size {value_bytes}: values begin with a counter of {COUNTER_BYTES} bytes"
        );
        ensure!(value_bytes <= 100_000, "--value-size {value_bytes}: at most 100000 bytes");
        ensure!(key_bytes <= 10_000, "--key-size {key_bytes}: at most 10000 bytes");
        let digits = key_bytes.saturating_sub(prefix.len() + 1);
        // Room for ten times as many: inserts go on behind the rows that are loaded.
        let needed = count.saturating_mul(10).to_string().len();
        ensure!(
            digits >= needed,
            "--key-size {key_bytes}: {count} rows need {} bytes, with the prefix {prefix:?}",
            prefix.len() + 1 + needed
        );
        Ok(Rows { prefix: prefix.to_owned(), digits, value_bytes })
    }

    /// The key of a row.
    pub(crate) fn key(&self, table: Table, number: u64) -> Key {
        let digits = self.digits;
        Key::from(format!("{}{}{number:0digits$}", self.prefix, table.letter()))
    }

    /// The key of a queue's item: the versionstamp comes where the offset says.
    pub(crate) fn stamped_key(&self) -> (Key, u32) {
        let mut key = self.table_prefix(Table::Queue);
        let offset = key.len();
        key.resize(offset + ferrisdb_client::Versionstamp::LEN, 0);
        (Key::from(key), offset as u32)
    }

    /// All rows of a table from a number on.
    pub(crate) fn from(&self, table: Table, number: u64) -> KeyRange {
        KeyRange::new(self.key(table, number), KeyRange::prefix(&self.table_prefix(table)).end)
    }

    /// All rows of a table.
    pub(crate) fn all(&self, table: Table) -> KeyRange {
        KeyRange::prefix(&self.table_prefix(table))
    }

    /// A value: a counter, then bytes that do not compress.
    pub(crate) fn value(&self, random: &mut Random, counter: i64) -> Vec<u8> {
        let mut value = vec![0; self.value_bytes];
        let (head, rest) = value.split_at_mut(COUNTER_BYTES);
        head.copy_from_slice(&counter.to_be_bytes());
        random.fill(rest);
        value
    }

    /// The bytes of a row, key and value.
    pub(crate) fn row_bytes(&self) -> usize {
        self.prefix.len() + 1 + self.digits + self.value_bytes
    }

    /// The bytes of a value.
    pub(crate) fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    fn table_prefix(&self, table: Table) -> Vec<u8> {
        format!("{}{}", self.prefix, table.letter()).into_bytes()
    }
}

/// The counter of a value; 0 of one that is too short to have one.
pub(crate) fn counter(value: &[u8]) -> i64 {
    value.first_chunk().map_or(0, |head| i64::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_size_and_sort_by_number() {
        let rows = Rows::new("bench/", 16, 100, 100_000).unwrap();
        let keys: Vec<Key> = [0, 9, 10, 99_999].map(|number| rows.key(Table::Keys, number)).into();
        assert!(keys.is_sorted());
        assert!(keys.iter().all(|key| key.len() == 16));
        assert!(keys.iter().all(|key| rows.all(Table::Keys).contains(key)));
        assert!(!rows.all(Table::Accounts).contains(&keys[0]));
        assert!(rows.from(Table::Keys, 10).contains(&keys[2]));
        assert!(!rows.from(Table::Keys, 10).contains(&keys[1]));
    }

    #[test]
    fn values_keep_their_counter() {
        let rows = Rows::new("bench/", 16, 100, 1).unwrap();
        let value = rows.value(&mut Random::new(3), -5);
        assert_eq!((value.len(), counter(&value)), (100, -5));
        assert_eq!(counter(b"short"), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Rows::new("bench/", 8, 100, 1_000).is_err());
        assert!(Rows::new("bench/", 16, 7, 1_000).is_err());
        assert!(Rows::new("bench/", 16, 100_001, 1_000).is_err());
    }
}
