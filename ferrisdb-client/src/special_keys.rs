//! The special keyspace: keys from `\xff\xff` on that nobody has written. They say something about the transaction that reads
//! them, or about the cluster.
//!
//! ```text
//!   \xff\xff/status/json                               the status, as JSON
//!   \xff\xff/connection_string                         how the cluster is reached: description:id@host:port,...
//!   \xff\xff/cluster_file_path                         the file where that was found; empty if there is none
//!   \xff\xff/cluster_id                                32 hexadecimal digits
//!   \xff\xff/transaction/conflicting_keys/<key>        after a conflict: '1' from here on, '0' from here on not
//!   \xff\xff/transaction/read_conflict_range/<key>     what the transaction has read so far, in the same form
//!   \xff\xff/transaction/write_conflict_range/<key>    what it has written so far
//! ```
//!
//! The names are FoundationDB's, so that tools made for it find what they look for. Reading them observes nothing; a range
//! read stays inside one of these lines, or inside all of `/transaction/`, unless the option [`SpecialKeysRelaxed`](crate::TransactionOption) is set. There
//! is nothing to write here: what it changes elsewhere, [`Database`](crate::Database) has functions for.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
//! # let database = ferrisdb_client::Database::memory().await?;
//! # let transaction = database.transaction();
//! let status = transaction.get(b"\xff\xff/status/json").await?.unwrap_or_default();
//! assert!(String::from_utf8_lossy(&status).contains("database_available"));
//!
//! transaction.get("k").await?;
//! let prefix = b"\xff\xff/transaction/read_conflict_range/".len();
//! let module = ferrisdb_client::KeyRange::prefix(b"\xff\xff/transaction/read_conflict_range/");
//! let observed = transaction.get_range(module).await?;
//! assert_eq!(observed[0].key[prefix..], *b"k");
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;

use ferrisdb_core::{Error, ErrorCode, Key, KeyRange, Result, Stage, Value};

use crate::{
    options::{KeyValue, RangePage, RangeQuery},
    status_json,
    transaction::Transaction,
};

/// Where the special keyspace begins.
const BEGIN: &[u8] = b"\xff\xff";

/// A part of the special keyspace with one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Module {
    ClusterFilePath,
    ClusterId,
    ConnectionString,
    Status,
    ConflictingKeys,
    ReadConflicts,
    WriteConflicts,
}

impl Module {
    /// All of them, in key order, with the key, or what its keys begin with.
    const ALL: [(Module, &'static str); 7] = [
        (Module::ClusterFilePath, "/cluster_file_path"),
        (Module::ClusterId, "/cluster_id"),
        (Module::ConnectionString, "/connection_string"),
        (Module::Status, "/status/json"),
        (Module::ConflictingKeys, "/transaction/conflicting_keys/"),
        (Module::ReadConflicts, "/transaction/read_conflict_range/"),
        (Module::WriteConflicts, "/transaction/write_conflict_range/"),
    ];

    fn range(name: &str) -> KeyRange {
        let prefix = [BEGIN, name.as_bytes()].concat();
        if name.ends_with('/') {
            KeyRange::prefix(&prefix)
        } else {
            KeyRange::single(&prefix.into())
        }
    }

    /// What it says at the moment.
    async fn rows(
        self,
        transaction: &Transaction,
        range: &KeyRange,
    ) -> Result<BTreeMap<Key, Value>> {
        let database = transaction.database();
        let connection = database.connection();
        let one = |value: Value| BTreeMap::from([(range.begin.clone(), value)]);
        Ok(match self {
            Module::ClusterFilePath => {
                let path = connection.path.as_ref().map(|path| path.to_string_lossy().into_owned());
                one(path.unwrap_or_default().into())
            }
            Module::ClusterId => one(database.cluster_id().await?.to_string().into()),
            Module::ConnectionString => one(connection.to_string().into()),
            Module::Status => one(status_json::text(database).await.into()),
            Module::ConflictingKeys => {
                let ranges = transaction.conflicting_ranges();
                boundaries(range, ranges.into_iter().map(|conflict| conflict.range))
            }
            Module::ReadConflicts => boundaries(range, transaction.read_conflicts().await),
            Module::WriteConflicts => boundaries(range, transaction.write_conflicts()),
        })
    }
}

/// Ranges as keys: '1' where one begins, '0' where it ends.
fn boundaries(
    module: &KeyRange,
    ranges: impl IntoIterator<Item = KeyRange>,
) -> BTreeMap<Key, Value> {
    let at = |key: &Key| Key::from([&module.begin[..], &key[..]].concat());
    let mut rows = BTreeMap::new();
    for range in ranges {
        // Ranges that touch are one.
        if rows.remove(&at(&range.begin)).is_none() {
            rows.insert(at(&range.begin), Value::from("1"));
        }
        rows.insert(at(&range.end), Value::from("0"));
    }
    rows
}

/// Whether a key is in the special keyspace.
pub(crate) fn is_special(key: &Key) -> bool {
    key.starts_with(BEGIN)
}

/// Reads a special key.
pub(crate) async fn get(transaction: &Transaction, key: &Key) -> Result<Option<Value>> {
    for (module, name) in Module::ALL {
        let range = Module::range(name);
        if range.contains(key) {
            return Ok(module.rows(transaction, &range).await?.remove(key));
        }
    }
    Err(Error::new(ErrorCode::SpecialKeysNoModuleFound, Stage::Client, key.to_string()))
}

/// Reads a range of special keys.
pub(crate) async fn get_range(transaction: &Transaction, query: &RangeQuery) -> Result<RangePage> {
    let Some(range) = query.plain_range() else {
        let detail = "special keys are found by their names, not by their places";
        return Err(Error::new(ErrorCode::Unsupported, Stage::Client, detail));
    };
    if range.begin > range.end {
        return Err(Error::new(ErrorCode::InvertedRange, Stage::Client, range.to_string()));
    }
    let touched = Module::ALL.map(|(module, name)| (module, Module::range(name)));
    let touched: Vec<_> =
        touched.into_iter().filter(|(_, of_module)| of_module.intersects(&range)).collect();
    let is_inside =
        |of_module: &KeyRange| of_module.begin <= range.begin && range.end <= of_module.end;
    let is_one = matches!(&touched[..], [(_, of_module)] if is_inside(of_module))
        || is_inside(&Module::range("/transaction/"));
    if !is_one && !transaction.reads_special_keys_relaxed() {
        let code = match touched.is_empty() {
            true => ErrorCode::SpecialKeysNoModuleFound,
            false => ErrorCode::SpecialKeysCrossModuleRead,
        };
        return Err(Error::new(code, Stage::Client, range.to_string()));
    }
    let mut rows = Vec::new();
    for (module, of_module) in touched {
        let found = module.rows(transaction, &of_module).await?;
        let inside = found.into_iter().filter(|(key, _)| range.contains(key));
        rows.extend(inside.map(|(key, value)| KeyValue { key, value, commit_version: None }));
    }
    if query.reverse {
        rows.reverse();
    }
    Ok(limited(rows, query))
}

fn limited(mut rows: Vec<KeyValue>, query: &RangeQuery) -> RangePage {
    let mut bytes = 0;
    let within = |row: &&KeyValue| {
        let is_first_or_fits = bytes == 0 || query.bytes_max.is_none_or(|max| bytes < max);
        bytes += row.size();
        is_first_or_fits
    };
    let count = rows.iter().take(query.rows_max.unwrap_or(usize::MAX)).take_while(within).count();
    let more = count < rows.len();
    rows.truncate(count);
    RangePage { rows, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_in_order_and_apart() {
        let ranges = Module::ALL.map(|(_, name)| Module::range(name));
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].begin));
        assert!(ranges.iter().all(|range| is_special(&range.begin)));
    }

    #[test]
    fn what_is_of_the_transaction_can_be_read_together() {
        let all = Module::range("/transaction/");
        let inside = Module::ALL.map(|(_, name)| Module::range(name)).into_iter();
        assert_eq!(inside.filter(|range| all.contains(&range.begin)).count(), 3);
    }

    #[test]
    fn touching_ranges_are_one() {
        let module = Module::range("/transaction/conflicting_keys/");
        let ranges = [("a", "b"), ("b", "d"), ("x", "y")].map(|(b, e)| KeyRange::new(b, e));
        let rows = boundaries(&module, ranges);
        let short = |key: &Key| String::from_utf8_lossy(&key[module.begin.len()..]).into_owned();
        let rows: Vec<_> = rows.iter().map(|(key, value)| (short(key), value.clone())).collect();
        let expected = [("a", "1"), ("d", "0"), ("x", "1"), ("y", "0")];
        assert_eq!(rows, expected.map(|(key, value)| (key.to_owned(), value.into())));
    }
}
