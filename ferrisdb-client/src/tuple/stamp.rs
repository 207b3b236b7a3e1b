//! The versionstamp as an element of tuples.

use std::fmt;

/// A place in the order of all commits, refined by a number of the user's: twelve bytes.
///
/// ```text
///    commit version (8)      batch index (2)   user version (2)
///    00 00 00 00 00 00 01 02      00 03             00 07         complete
///    ff ff ff ff ff ff ff ff      ff ff             00 07         incomplete: to be filled in at the commit
/// ```
///
/// The user version orders what one transaction writes under its stamp. Incomplete ones sort last.
///
/// ```
/// use ferrisdb_client::{Version, tuple::Versionstamp};
/// let incomplete = Versionstamp::incomplete(7);
/// assert!(!incomplete.is_complete());
/// let stamp = ferrisdb_client::Versionstamp { commit_version: Version(0x102), batch_index: 3 };
/// let complete = incomplete.completed(stamp);
/// assert_eq!(complete, Versionstamp::complete(stamp, 7));
/// assert_eq!(complete.transaction(), Some(stamp));
/// assert!(complete < incomplete);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Versionstamp([u8; Versionstamp::LEN]);

impl Versionstamp {
    /// Length in bytes.
    pub const LEN: usize = 12;

    /// What stands for a transaction that is not committed yet.
    const PLACEHOLDER: [u8; ferrisdb_core::Versionstamp::LEN] =
        [0xff; ferrisdb_core::Versionstamp::LEN];

    /// The stamp of the transaction that it will be written by. At most one per key or value, see
    /// [`pack_with_versionstamp`](crate::tuple::pack_with_versionstamp).
    pub fn incomplete(user_version: u16) -> Versionstamp {
        Versionstamp::join(Versionstamp::PLACEHOLDER, user_version)
    }

    /// The stamp of a committed transaction.
    pub fn complete(transaction: ferrisdb_core::Versionstamp, user_version: u16) -> Versionstamp {
        Versionstamp::join(transaction.to_bytes(), user_version)
    }

    /// The bytes as they are in a key.
    pub fn from_bytes(bytes: [u8; Versionstamp::LEN]) -> Versionstamp {
        Versionstamp(bytes)
    }

    /// The bytes as they are in a key.
    pub fn to_bytes(self) -> [u8; Versionstamp::LEN] {
        self.0
    }

    /// Whether the transaction is known.
    pub fn is_complete(self) -> bool {
        self.transaction_bytes() != Versionstamp::PLACEHOLDER
    }

    /// The transaction's part; `None` if it is incomplete.
    pub fn transaction(self) -> Option<ferrisdb_core::Versionstamp> {
        let bytes = self.transaction_bytes();
        self.is_complete().then(|| ferrisdb_core::Versionstamp::from_bytes(bytes))
    }

    /// The user's part.
    pub fn user_version(self) -> u16 {
        let [.., high, low] = self.0;
        u16::from_be_bytes([high, low])
    }

    /// The same with the transaction's part filled in, as the commit does it (see
    /// [`Committed::versionstamp`](crate::Committed::versionstamp)). A complete one stays as it is.
    #[must_use]
    pub fn completed(self, transaction: ferrisdb_core::Versionstamp) -> Versionstamp {
        if self.is_complete() {
            return self;
        }
        Versionstamp::complete(transaction, self.user_version())
    }

    fn join(
        transaction: [u8; ferrisdb_core::Versionstamp::LEN],
        user_version: u16,
    ) -> Versionstamp {
        let mut bytes = [0; Versionstamp::LEN];
        bytes[..transaction.len()].copy_from_slice(&transaction);
        bytes[transaction.len()..].copy_from_slice(&user_version.to_be_bytes());
        Versionstamp(bytes)
    }

    fn transaction_bytes(self) -> [u8; ferrisdb_core::Versionstamp::LEN] {
        let mut bytes = [0; ferrisdb_core::Versionstamp::LEN];
        bytes.copy_from_slice(&self.0[..ferrisdb_core::Versionstamp::LEN]);
        bytes
    }
}

impl fmt::Display for Versionstamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transaction() {
            Some(transaction) => write!(f, "versionstamp {transaction}:{}", self.user_version()),
            None => write!(f, "versionstamp ?:{}", self.user_version()),
        }
    }
}

impl fmt::Debug for Versionstamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
