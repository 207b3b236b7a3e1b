//! UUIDs as elements of tuples: sixteen bytes, whoever has made them.

use std::{fmt, str::FromStr};

/// A UUID: sixteen bytes in network order.
///
/// ```
/// use ferrisdb_client::tuple::Uuid;
/// let id: Uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse()?;
/// assert_eq!(id.0[..2], [0x67, 0xe5]);
/// assert_eq!(id.to_string(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
/// # Ok::<(), ferrisdb_client::tuple::ParseUuidError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl From<[u8; 16]> for Uuid {
    fn from(bytes: [u8; 16]) -> Uuid {
        Uuid(bytes)
    }
}

impl From<u128> for Uuid {
    fn from(value: u128) -> Uuid {
        Uuid(value.to_be_bytes())
    }
}

impl From<Uuid> for u128 {
    fn from(uuid: Uuid) -> u128 {
        u128::from_be_bytes(uuid.0)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&index) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    /// Takes thirty-two hexadecimal digits, with hyphens in the usual places or without any.
    fn from_str(text: &str) -> Result<Uuid, ParseUuidError> {
        let has_hyphens =
            text.len() == 36 && [8, 13, 18, 23].iter().all(|&index| text.as_bytes()[index] == b'-');
        let digits: String = match has_hyphens {
            true => text.chars().filter(|&character| character != '-').collect(),
            false => text.to_string(),
        };
        let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digits.len() != 32 || !is_hexadecimal {
            return Err(ParseUuidError);
        }
        u128::from_str_radix(&digits, 16).map(Uuid::from).map_err(|_| ParseUuidError)
    }
}

/// A text that is not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseUuidError;

impl fmt::Display for ParseUuidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID: thirty-two hexadecimal digits, with or without hyphens")
    }
}

impl std::error::Error for ParseUuidError {}
