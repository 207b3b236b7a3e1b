//! Special keys that only programs of FoundationDB ask for. All others are the client's, see
//! [`ferrisdb_client::special_keys`].
//!
//! ```text
//!   \xff\xff/tracing/transaction_id    32 hexadecimal digits, drawn for each transaction; may be set
//!   \xff\xff/tracing/token             a decimal number, drawn, too; "true" draws another one, "false" makes it zero: no trace
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
    transaction_id: u128,
    /// Zero if the transaction is not traced.
    token: u64,
}

impl Tracing {
    /// Names that nobody else has.
    pub fn random() -> Tracing {
        let (high, low) = (runtime::random_u64(), runtime::random_u64());
        let transaction_id = u128::from(high) << 64 | u128::from(low);
        Tracing { transaction_id, token: drawn_token() }
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

    /// Sets a key of it. Has no effect if something was read or written before (unless `is_first`), and neither has a value of another
    /// form, as in FoundationDB.
    ///
    /// # Errors
    ///
    /// `special_keys_no_write_module_found` for a key that is not of this module.
    pub fn set(&mut self, key: &[u8], value: &[u8], is_first: bool) -> Result<(), Code> {
        let id = std::str::from_utf8(value).ok().and_then(|id| u128::from_str_radix(id, 16).ok());
        match (key, value, id) {
            (TRANSACTION_ID | TOKEN, ..) if !is_first => {}
            (TRANSACTION_ID, _, Some(id)) => self.transaction_id = id,
            (TOKEN, b"true", _) => self.token = drawn_token(),
            (TOKEN, b"false", _) => self.token = 0,
            (TRANSACTION_ID | TOKEN, ..) => {}
            _ => return Err(errors::SPECIAL_KEYS_NO_WRITE_MODULE),
        }
        Ok(())
    }

    fn rows(&self) -> [KeyValue; 2] {
        let row = |key: &[u8], value: String| KeyValue {
            key: Key::copy_from(key),
            value: value.into(),
            commit_version: None,
        };
        let id = format!("{:032x}", self.transaction_id);
        [row(TOKEN, self.token.to_string()), row(TRANSACTION_ID, id)]
    }
}

/// Never zero.
fn drawn_token() -> u64 {
    runtime::random_u64().max(1)
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
        let drawn = rows[0].value.clone();
        assert!(String::from_utf8_lossy(&drawn).parse::<u64>().unwrap() > 0);
        let mut set_to = |key, value: &[u8], is_first| {
            assert_eq!(tracing.set(key, value, is_first), Ok(()));
            tracing.get(key).unwrap().unwrap()
        };
        assert_eq!(set_to(TOKEN, b"7", true), drawn, "a token is not chosen");
        assert_eq!(set_to(TOKEN, b"false", false), drawn, "too late");
        assert_eq!(set_to(TOKEN, b"false", true), "0".into());
        assert_ne!(set_to(TOKEN, b"true", true), "0".into());
        let id = set_to(TRANSACTION_ID, b"2a", true);
        assert_eq!((id.len(), id.ends_with(b"02a")), (32, true));
        assert_eq!(set_to(TRANSACTION_ID, b"no number", true), id);
        let unknown = tracing.set(b"\xff\xff/tracing/x", b"7", true);
        assert_eq!(unknown, Err(errors::SPECIAL_KEYS_NO_WRITE_MODULE));
    }

    #[test]
    fn tenants_can_be_cleared_because_there_are_none() {
        assert_eq!(clear(&KeyRange::prefix(TENANTS)), Ok(()));
        let all = KeyRange::new(BEGIN, b"\xff\xff\xff");
        assert_eq!(clear(&all), Err(errors::SPECIAL_KEYS_NO_WRITE_MODULE));
    }
}
