//! Special keys that only programs of FoundationDB ask for. All others are the client's, see
//! [`ferrisdb_client::special_keys`].
//!
//! ```text
//!   \xff\xff/tracing/transaction_id    32 digits, drawn for each transaction; may be set
//!   \xff\xff/tracing/token             16 digits; may be set
//!   \xff\xff/management/tenant/map/    may be cleared: there are no tenants
//! ```

use ferrisdb_client::{Key, KeyRange, KeyValue, Value};
use ferrisdb_core::runtime;

use crate::errors::{self, Code};

/// Where the special keyspace begins.
pub const BEGIN: &[u8] = b"\xff\xff";

const TRACING: &[u8] = b"\xff\xff/tracing/";
const TOKEN: &[u8] = b"\xff\xff/tracing/token";
const TRANSACTION_ID: &[u8] = b"\xff\xff/tracing/transaction_id";
const TENANTS: &[u8] = b"\xff\xff/management/tenant/map/";

/// Whether a key is in the special keyspace.
pub fn is_special(key: &[u8]) -> bool {
    key.starts_with(BEGIN)
}

/// What a transaction is called in traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    transaction_id: Value,
    token: Value,
}

impl Tracing {
    /// Names that nobody else has.
    pub fn random() -> Tracing {
        let half = || format!("{:016x}", runtime::random_u64());
        Tracing { transaction_id: (half() + &half()).into(), token: half().into() }
    }

    /// Reads a key of it; `None` if the key is not of this module.
    pub fn get(&self, key: &[u8]) -> Option<Option<Value>> {
        key.starts_with(TRACING).then(|| {
            let rows = self.rows().into_iter();
            rows.filter(|row| *row.key == *key).map(|row| row.value).next()
        })
    }

    /// Reads a range of it, upwards; `None` if the range is not inside of this module.
    pub fn get_range(&self, range: &KeyRange) -> Option<Vec<KeyValue>> {
        let module = KeyRange::prefix(TRACING);
        let is_inside = module.begin <= range.begin && range.end <= module.end;
        is_inside.then(|| self.rows().into_iter().filter(|row| range.contains(&row.key)).collect())
    }

    /// Sets a key of it.
    ///
    /// # Errors
    ///
    /// `special_keys_no_write_module_found` for a key that is not of this module.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Code> {
        let text = Value::copy_from(value);
        match key {
            TRANSACTION_ID => self.transaction_id = text,
            TOKEN => self.token = text,
            _ => return Err(errors::SPECIAL_KEYS_NO_WRITE_MODULE),
        }
        Ok(())
    }

    fn rows(&self) -> [KeyValue; 2] {
        let row = |key: &[u8], value: &Value| KeyValue {
            key: Key::copy_from(key),
            value: value.clone(),
            commit_version: None,
        };
        [row(TOKEN, &self.token), row(TRANSACTION_ID, &self.transaction_id)]
    }
}

/// Clears a range of special keys.
///
/// # Errors
///
/// `special_keys_no_write_module_found` for all but tenants, of which there are none.
pub fn clear(range: &KeyRange) -> Result<(), Code> {
    let tenants = KeyRange::prefix(TENANTS);
    if tenants.begin <= range.begin && range.end <= tenants.end {
        return Ok(());
    }
    Err(errors::SPECIAL_KEYS_NO_WRITE_MODULE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_traces_can_be_read_and_set() {
        let mut tracing = Tracing::random();
        assert_ne!(tracing, Tracing::random());
        let rows = tracing.get_range(&KeyRange::prefix(TRACING)).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].value.len(), 32);
        assert_eq!(tracing.get(TRANSACTION_ID), Some(Some(rows[1].value.clone())));
        assert_eq!(tracing.get(b"\xff\xff/tracing/x"), Some(None));
        assert_eq!(tracing.get(b"\xff\xff/status/json"), None);
        assert_eq!(tracing.set(TOKEN, b"7"), Ok(()));
        assert_eq!(tracing.get(TOKEN), Some(Some("7".into())));
        let unknown = tracing.set(b"\xff\xff/tracing/x", b"7");
        assert_eq!(unknown, Err(errors::SPECIAL_KEYS_NO_WRITE_MODULE));
    }

    #[test]
    fn tenants_can_be_cleared_because_there_are_none() {
        assert_eq!(clear(&KeyRange::prefix(TENANTS)), Ok(()));
        let all = KeyRange::new(BEGIN, b"\xff\xff\xff");
        assert_eq!(clear(&all), Err(errors::SPECIAL_KEYS_NO_WRITE_MODULE));
    }
}
