//! Keys and values: byte strings, compared as unsigned bytes, printed without loss.

use std::{borrow::Borrow, fmt, ops::Deref};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

macro_rules! byte_string {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Bytes);

        impl $name {
            /// Copies `bytes`.
            pub fn copy_from(bytes: &[u8]) -> Self {
                Self(Bytes::copy_from_slice(bytes))
            }

            /// Wraps bytes that live as long as the program.
            pub const fn from_static(bytes: &'static [u8]) -> Self {
                Self(Bytes::from_static(bytes))
            }

            /// The bytes.
            pub fn as_slice(&self) -> &[u8] {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self::copy_from(bytes)
            }
        }

        impl<const N: usize> From<&[u8; N]> for $name {
            fn from(bytes: &[u8; N]) -> Self {
                Self::copy_from(bytes)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::copy_from(text.as_bytes())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Bytes::from(text.into_bytes()))
            }
        }

        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self(Bytes::from(bytes))
            }
        }

        impl From<Bytes> for $name {
            fn from(bytes: Bytes) -> Self {
                Self(bytes)
            }
        }

        impl From<&$name> for $name {
            fn from(other: &$name) -> Self {
                other.clone()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&escape(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "'{}'", escape(&self.0))
            }
        }
    };
}

byte_string! {
    /// A key. Ordered by unsigned bytes; at most [`crate::limits::KEY_BYTES_MAX`] bytes.
    Key
}

byte_string! {
    /// A value. At most [`crate::limits::VALUE_BYTES_MAX`] bytes.
    Value
}

impl Key {
    /// The first key of all.
    pub const MIN: Key = Key::from_static(b"");
    /// Where the user's keys end and the system keyspace begins.
    pub const USER_END: Key = Key::from_static(b"\xff");
    /// Where the system keyspace ends.
    pub const SYSTEM_END: Key = Key::from_static(b"\xff\xff");

    /// The key right after this one: nothing sorts between them.
    pub fn successor(&self) -> Key {
        let mut bytes = Vec::with_capacity(self.len() + 1);
        bytes.extend_from_slice(self);
        bytes.push(0);
        Key::from(bytes)
    }
}

/// Writes bytes so that a person can read them and [`unescape`] can restore them exactly.
///
/// Printable ASCII stays as it is, a backslash is doubled, everything else becomes `\xNN`.
///
/// ```
/// use ferrisdb_core::key::{escape, unescape};
/// assert_eq!(escape(b"a\\b\x00\xff"), r"a\\b\x00\xff");
/// assert_eq!(unescape(r"a\\b\x00\xff").unwrap(), b"a\\b\x00\xff");
/// ```
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                text.push_str("\\x");
                text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
                text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
            }
        }
    }
    text
}

/// Restores what [`escape`] wrote. Also takes `\t`, `\n`, `\r`, `\0`, and text that is not ASCII (as UTF-8).
///
/// # Errors
///
/// Says at which byte an escape is malformed.
pub fn unescape(text: &str) -> Result<Vec<u8>, UnescapeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let error = || UnescapeError { offset: text.len() - tail.len() - 1 };
        let (&kind, tail) = rest.split_first().ok_or_else(error)?;
        rest = tail;
        bytes.push(match kind {
            b'\\' => b'\\',
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'0' => 0,
            b'x' => {
                let digits = rest.get(..2).ok_or_else(error)?;
                rest = &rest[2..];
                let digit = |digit: u8| char::from(digit).to_digit(16).ok_or_else(error);
                (digit(digits[0])? << 4 | digit(digits[1])?) as u8
            }
            _ => return Err(error()),
        });
    }
    Ok(bytes)
}

/// A malformed escape sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "malformed escape at byte {offset}: after a backslash come x and two hexadecimal digits, t, n, r, 0 or a backslash"
)]
pub struct UnescapeError {
    /// Where the backslash stands.
    pub offset: usize,
}
