//! Subspaces: a part of the keys, with a prefix of its own.
//!
//! ```text
//!   Subspace "app"      61 70 70
//!     pack(("user", 7))          61 70 70 | 02 75 73 65 72 00 15 07
//!     nested("user")    61 70 70   02 75 73 65 72 00
//!       pack(7)                  61 70 70   02 75 73 65 72 00 | 15 07         the same key
//! ```
//!
//! Start with [`Subspace::pack`] and [`Subspace::range`].

use ferrisdb_core::{Key, KeyRange};

use crate::tuple::{self, Encoder, TupleError, TuplePack, TupleUnpack};

/// The keys that begin with a prefix. What follows the prefix is a packed [`mod@tuple`].
///
/// ```
/// use ferrisdb_client::{Subspace, tuple::TupleError};
/// let users = Subspace::from_prefix("app").nested(&"user")?;
/// let key = users.pack(&(7, "name"))?;
/// assert_eq!(users.unpack::<(u64, String)>(&key)?, (7, "name".to_string()));
/// // All rows of user 7.
/// assert!(users.range_of(&7)?.contains(&key));
/// # Ok::<(), TupleError>(())
/// ```
///
/// ```no_run
/// # use ferrisdb_client::{Subspace, Transaction, Error};
/// # async fn example(transaction: Transaction, users: Subspace) -> Result<(), Error> {
/// transaction.set(users.pack(&(7, "name"))?, "Ada")?;
/// for row in transaction.get_range(users.range()).await? {
///     let (id, field): (u64, String) = users.unpack(&row.key)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subspace {
    prefix: Key,
}

impl Subspace {
    /// All keys: the subspace of the empty prefix.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// assert!(Subspace::all().contains(b"whatever"));
    /// ```
    pub fn all() -> Subspace {
        Subspace::default()
    }

    /// The keys that begin with these bytes.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// let app = Subspace::from_prefix("app");
    /// assert_eq!(app.prefix(), &"app".into());
    /// ```
    pub fn from_prefix(prefix: impl Into<Key>) -> Subspace {
        Subspace { prefix: prefix.into() }
    }

    /// The keys that begin with a packed tuple.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// let users = Subspace::from_tuple(&("app", "user"))?;
    /// assert_eq!(users.prefix(), &b"\x02app\x00\x02user\x00".into());
    /// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`tuple::pack`].
    pub fn from_tuple<T: TuplePack + ?Sized>(tuple: &T) -> Result<Subspace, TupleError> {
        Subspace::all().nested(tuple)
    }

    /// The keys of this subspace whose tuples begin with these elements, as a subspace.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// let app = Subspace::from_prefix("app");
    /// let users = app.nested(&"user")?;
    /// assert_eq!(users.pack(&7)?, app.pack(&("user", 7))?);
    /// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`tuple::pack`].
    pub fn nested<T: TuplePack + ?Sized>(&self, tuple: &T) -> Result<Subspace, TupleError> {
        self.pack(tuple).map(Subspace::from_prefix)
    }

    /// The same for elements of which each has a packed form.
    pub(crate) fn nested_by(&self, write: impl FnOnce(&mut Encoder)) -> Subspace {
        let mut encoder = Encoder::new(self.prefix.to_vec());
        write(&mut encoder);
        Subspace::from_prefix(encoder.into_bytes())
    }

    /// The prefix; as a key it is the packed form of the empty tuple.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// assert_eq!(Subspace::from_prefix("app").prefix(), &"app".into());
    /// ```
    pub fn prefix(&self) -> &Key {
        &self.prefix
    }

    /// The key of a tuple.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// let app = Subspace::from_prefix("app");
    /// assert_eq!(app.pack(&("user", 7))?, b"app\x02user\x00\x15\x07");
    /// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`tuple::pack`].
    pub fn pack<T: TuplePack + ?Sized>(&self, tuple: &T) -> Result<Vec<u8>, TupleError> {
        let mut key = self.prefix.to_vec();
        tuple::pack_into(tuple, &mut key)?;
        Ok(key)
    }

    /// The key of a tuple with one incomplete versionstamp, and the versionstamp's offset in the key: what
    /// [`Transaction::set_versionstamped_key`](crate::Transaction::set_versionstamped_key) asks for.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::Subspace;
    /// use ferrisdb_client::tuple::Versionstamp;
    /// let log = Subspace::from_prefix("log");
    /// let (key, offset) = log.pack_with_versionstamp(&Versionstamp::incomplete(0))?;
    /// transaction.set_versionstamped_key(key, offset, "an entry")?;
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`tuple::pack_with_versionstamp`].
    pub fn pack_with_versionstamp<T: TuplePack + ?Sized>(
        &self,
        tuple: &T,
    ) -> Result<(Vec<u8>, u32), TupleError> {
        tuple::pack_with_versionstamp_behind(&self.prefix, tuple)
    }

    /// The tuple of a key.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// let app = Subspace::from_prefix("app");
    /// let (kind, id): (String, u64) = app.unpack(b"app\x02user\x00\x15\x07")?;
    /// assert_eq!((kind.as_str(), id), ("user", 7));
    /// assert!(app.unpack::<u64>(b"other").is_err());
    /// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TupleError::OutsideSubspace`], otherwise as for [`tuple::unpack`].
    pub fn unpack<T: TupleUnpack>(&self, key: &[u8]) -> Result<T, TupleError> {
        if !self.contains(key) {
            return Err(TupleError::OutsideSubspace);
        }
        tuple::unpack_behind(key, self.prefix.len())
    }

    /// Whether a key begins with the prefix.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// assert!(Subspace::from_prefix("app").contains(b"apple"));
    /// ```
    pub fn contains(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
    }

    /// The keys of all tuples but the empty one.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// let app = Subspace::from_prefix("app");
    /// assert!(app.range().contains(&app.pack(&"a")?));
    /// assert!(!app.range().contains(b"app"));
    /// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
    /// ```
    pub fn range(&self) -> KeyRange {
        tuple::range_behind(&self.prefix)
    }

    /// The keys of all tuples that begin with these elements and have more.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// let users = Subspace::from_prefix("users");
    /// let of_seven = users.range_of(&7)?;
    /// assert!(of_seven.contains(&users.pack(&(7, "name"))?));
    /// assert!(!of_seven.contains(&users.pack(&(8, "name"))?));
    /// # Ok::<(), ferrisdb_client::tuple::TupleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`tuple::pack`].
    pub fn range_of<T: TuplePack + ?Sized>(&self, tuple: &T) -> Result<KeyRange, TupleError> {
        Ok(tuple::range_behind(&self.pack(tuple)?))
    }

    /// All keys that begin with the prefix, whether a tuple follows or not.
    ///
    /// ```
    /// use ferrisdb_client::Subspace;
    /// assert!(Subspace::from_prefix("app").prefix_range().contains(b"app"));
    /// ```
    pub fn prefix_range(&self) -> KeyRange {
        KeyRange::prefix(&self.prefix)
    }
}

impl From<&Subspace> for Key {
    fn from(subspace: &Subspace) -> Key {
        subspace.prefix.clone()
    }
}

impl std::fmt::Display for Subspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple::{Versionstamp, tuple};

    #[test]
    fn nesting_is_packing_in_steps() {
        let app = Subspace::from_prefix("app");
        let users = app.nested(&"user").unwrap();
        assert_eq!(users.pack(&7).unwrap(), app.pack(&("user", 7)).unwrap());
        assert_eq!(users.pack(&7).unwrap(), b"app\x02user\x00\x15\x07");
        assert_eq!(
            Subspace::from_tuple(&("a", 1)).unwrap().prefix(),
            &Key::from(b"\x02a\0\x15\x01")
        );
        assert_eq!(users.pack(&()).unwrap(), users.prefix().to_vec());
    }

    #[test]
    fn unpacking_wants_the_prefix_and_counts_it() {
        let app = Subspace::from_prefix("app");
        assert_eq!(app.unpack::<u8>(b"ap"), Err(TupleError::OutsideSubspace));
        assert_eq!(app.unpack::<()>(b"app"), Ok(()));
        let unknown = TupleError::UnknownCode { offset: 3, code: 0x99 };
        assert_eq!(app.unpack::<u8>(b"app\x99"), Err(unknown));
    }

    #[test]
    fn ranges_hold_the_tuples_and_not_the_prefix() {
        let app = Subspace::from_prefix("app");
        assert_eq!(app.range(), KeyRange::new(b"app\x00", b"app\xff"));
        assert_eq!(
            app.range_of(&1).unwrap(),
            KeyRange::new(b"app\x15\x01\x00", b"app\x15\x01\xff")
        );
        assert_eq!(app.prefix_range(), KeyRange::new("app", "apq"));
    }

    #[test]
    fn the_offset_of_a_versionstamp_counts_the_prefix() {
        let app = Subspace::from_prefix("app");
        let entry = tuple!["log", tuple![Versionstamp::incomplete(1)]];
        let (key, offset) = app.pack_with_versionstamp(&entry).unwrap();
        assert_eq!(key[offset as usize..][..12], Versionstamp::incomplete(1).to_bytes());
        assert_eq!(offset, 3 + 5 + 1 + 1);
        assert_eq!(app.pack(&entry), Err(TupleError::IncompleteVersionstamp));
    }
}
