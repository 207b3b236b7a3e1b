//! Key selectors: keys that are named by their place among the keys there are.
//!
//! ```text
//!   keys there are          b      d      f      h
//!
//!   last_less_than(d)       b
//!   last_less_or_equal(d)          d
//!   first_greater_or_equal(d)      d
//!   first_greater_than(d)                 f
//!   first_greater_than(d) + 1                    h
//!   last_less_than(d) - 1   nothing is there: the empty key, before all others
//! ```
//!
//! A selector has an anchor, right before or right after its key, and counts from there: upwards from one,
//! downwards from zero.

use ferrisdb_core::{Key, limits};

/// A key, named by its place among the keys there are when it is looked up.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use ferrisdb_client::{Database, Error, KeySelector};
/// # let database = Database::memory().await?;
/// let transaction = database.transaction();
/// for key in ["b", "d", "f"] {
///     transaction.set(key, "")?;
/// }
/// let key = transaction.get_key(KeySelector::first_greater_than("b")).await?;
/// assert_eq!(key, "d".into());
/// let key = transaction.get_key(KeySelector::last_less_than("b")).await?;
/// assert_eq!(key, "".into(), "there is none: before the first key stands the empty one");
/// let key = transaction.get_key(KeySelector::first_greater_than("b") + 2).await?;
/// assert_eq!(key, b"\xff".into(), "nor there: behind the last one ends what can be read");
/// # Ok::<_, Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeySelector {
    /// The key beside which counting begins.
    pub key: Key,
    /// Whether it begins behind the key, not before it.
    pub or_equal: bool,
    /// From 1 on: that many keys upwards. From 0 down: 1 minus that many keys downwards.
    pub offset: i32,
}

impl KeySelector {
    /// The last key before `key`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::KeySelector;
    /// # transaction.set("b", "")?;
    /// # transaction.set("d", "")?;
    /// // There are b and d.
    /// let key = transaction.get_key(KeySelector::last_less_than("c")).await?;
    /// assert_eq!(key, "b".into());
    /// # Ok(()) }
    /// ```
    pub fn last_less_than(key: impl Into<Key>) -> KeySelector {
        KeySelector { key: key.into(), or_equal: false, offset: 0 }
    }

    /// `key` if it is there, or else the last one before it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::KeySelector;
    /// # transaction.set("b", "")?;
    /// # transaction.set("d", "")?;
    /// // There are b and d.
    /// let key = transaction.get_key(KeySelector::last_less_or_equal("c")).await?;
    /// assert_eq!(key, "b".into(), "there is no c");
    /// # Ok(()) }
    /// ```
    pub fn last_less_or_equal(key: impl Into<Key>) -> KeySelector {
        KeySelector { key: key.into(), or_equal: true, offset: 0 }
    }

    /// The first key after `key`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::KeySelector;
    /// # transaction.set("b", "")?;
    /// # transaction.set("d", "")?;
    /// // There are b and d.
    /// let key = transaction.get_key(KeySelector::first_greater_than("b")).await?;
    /// assert_eq!(key, "d".into());
    /// # Ok(()) }
    /// ```
    pub fn first_greater_than(key: impl Into<Key>) -> KeySelector {
        KeySelector { key: key.into(), or_equal: true, offset: 1 }
    }

    /// `key` if it is there, or else the first one after it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::KeySelector;
    /// # transaction.set("b", "")?;
    /// # transaction.set("d", "")?;
    /// // There are b and d.
    /// let key = transaction.get_key(KeySelector::first_greater_or_equal("b")).await?;
    /// assert_eq!(key, "b".into());
    /// # Ok(()) }
    /// ```
    pub fn first_greater_or_equal(key: impl Into<Key>) -> KeySelector {
        KeySelector { key: key.into(), or_equal: false, offset: 1 }
    }

    /// Where counting begins: at the first key upwards, at the one before it downwards.
    ///
    /// It is no longer than a bound of a range may be, as what a read observes begins or ends here: what is longer than the
    /// longest key is no key itself, so before and behind it is the same.
    pub(crate) fn anchor(&self) -> Key {
        let can_be_there = self.key.len() <= limits::KEY_BYTES_MAX;
        if self.or_equal && can_be_there { self.key.successor() } else { self.key.clone() }
    }

    /// The bound of a range that has the same keys as one from, or up to, what this selects; `None` if that takes a look at
    /// the keys there are.
    pub(crate) fn as_bound(&self) -> Option<Key> {
        (self.offset == 1).then(|| self.anchor())
    }

    /// Whether to count downwards, and how many keys.
    pub(crate) fn steps(&self) -> (bool, usize) {
        let (reverse, steps) = match self.offset {
            1.. => (false, i64::from(self.offset)),
            _ => (true, 1 - i64::from(self.offset)),
        };
        (reverse, usize::try_from(steps).unwrap_or(usize::MAX))
    }
}

/// A plain key is the first one from there on.
impl<K: Into<Key>> From<K> for KeySelector {
    fn from(key: K) -> KeySelector {
        KeySelector::first_greater_or_equal(key)
    }
}

/// So many keys further up.
impl std::ops::Add<i32> for KeySelector {
    type Output = KeySelector;

    fn add(mut self, keys: i32) -> KeySelector {
        self.offset = self.offset.saturating_add(keys);
        self
    }
}

/// So many keys further down.
impl std::ops::Sub<i32> for KeySelector {
    type Output = KeySelector;

    fn sub(mut self, keys: i32) -> KeySelector {
        self.offset = self.offset.saturating_sub(keys);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_anchor_is_longer_than_a_bound_may_be() {
        let long = |bytes: usize| Key::from(vec![b'k'; bytes]);
        let longest = long(limits::KEY_BYTES_MAX);
        let behind = KeySelector::first_greater_than(longest.clone()).anchor();
        assert_eq!(behind, longest.successor());
        // The end of a range that has only the longest key, as a bound: nothing can be at it.
        let behind_that = KeySelector::first_greater_than(behind.clone());
        assert_eq!(behind_that.anchor(), behind);
        assert_eq!(behind_that.as_bound(), Some(behind));
    }
}
