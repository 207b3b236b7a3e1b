//! The high-contention allocator: short byte strings, each given away once, to many transactions at the same time.
//!
//! A counter would do, but all allocations would conflict with each other. So numbers are drawn at random from a
//! window, and only two that draw the same number conflict.
//!
//! ```text
//!   counters    64 -> 17                the window begins at 64; 17 numbers of it were given away
//!   recent      70, 71, 89, ..          the numbers that were: their rows are the claims
//!
//!   window      size  64 below 255, 1024 below 65535, then 8192: short keys first, then less contention
//!   half full   the next one begins at its end; the rows of the old one are cleared
//! ```
//!
//! Why no two committed transactions have the same number. Each reads the number's row in `recent`, with a read
//! conflict, and claims it, with a write conflict:
//!
//! - The other one commits after this one's read version: one of them fails.
//! - It has committed before: its claim is seen. Only the closing of its window clears the claim, and then a later window
//!   is what this one begins with.
//! - This one has closed the window itself, in another allocation at the same time: claims of others look cleared
//!   then, so before a number is taken it has to be seen that there is no later window still.
//!
//! All else goes without conflicts: counters are added to, and read in a snapshot, because it does not matter
//! whether a window is closed a little early or late. Nor does it if others still draw from it.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use ferrisdb_core::{Key, KeyRange, Mutation, Value, runtime};
use futures::future::{self, maybe_done};
use parking_lot::Mutex;

use super::error::DirectoryError;
use crate::{options::RangeQuery, subspace::Subspace, transaction::Transaction};

/// Draws a number below its argument.
pub(super) type Draw = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

/// Gives away byte strings: distinct, short, and hardly ever with a conflict between transactions.
///
/// The [directory layer](super) has one for its prefixes; another one works in any subspace that nothing else
/// writes to.
///
/// ```
/// # use ferrisdb_client::{Subspace, Transaction, directory::{DirectoryError, HighContentionAllocator}};
/// /// A key of about three bytes for a user, who is known by a long name elsewhere.
/// async fn short_id(transaction: &Transaction) -> Result<Vec<u8>, DirectoryError> {
///     let allocator = HighContentionAllocator::new(&Subspace::from_prefix("user-ids"));
///     allocator.allocate(transaction).await
/// }
/// ```
#[derive(Clone)]
pub struct HighContentionAllocator {
    counters: Subspace,
    recent: Subspace,
    draw: Draw,
}

/// "The next write without a conflict" and the write are two calls, and claiming a number and looking whether it is
/// claimed belong together: allocations that go on at the same time in clones of a transaction take
/// turns here. Never held across a wait.
static STEP: Mutex<()> = Mutex::new(());

impl HighContentionAllocator {
    /// The allocator that keeps its rows in a subspace.
    pub fn new(subspace: &Subspace) -> HighContentionAllocator {
        Self::with_draw(subspace, Arc::new(|below| runtime::random_u64() % below))
    }

    pub(super) fn with_draw(subspace: &Subspace, draw: Draw) -> HighContentionAllocator {
        let counters = subspace.nested_by(|encoder| encoder.int(0));
        let recent = subspace.nested_by(|encoder| encoder.int(1));
        HighContentionAllocator { counters, recent, draw }
    }

    /// A byte string that no other call on this subspace has returned or will return, if the transaction is
    /// committed: the packed form of a number.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ferrisdb_client::directory::DirectoryError> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// # use ferrisdb_client::directory::DirectoryLayer;
    /// # let layer = DirectoryLayer::new();
    /// use ferrisdb_client::{Subspace, directory::HighContentionAllocator};
    /// let allocator = HighContentionAllocator::new(&Subspace::from_prefix("user-ids"));
    /// let (one, two) = (allocator.allocate(&transaction).await?, allocator.allocate(&transaction).await?);
    /// assert!(one != two && one.len() <= 3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Malformed`] for a counter that is none; what became of the transaction's reads and
    /// writes.
    pub async fn allocate(&self, transaction: &Transaction) -> Result<Vec<u8>, DirectoryError> {
        loop {
            let start = self.latest_window(transaction).await?;
            let (start, size) = self.count_allocation(transaction, start).await?;
            if let Some(number) = self.claim(transaction, start, size).await? {
                return Ok(crate::tuple::pack(&number)?);
            }
        }
    }

    /// Where the newest window begins, as far as this transaction's snapshot knows.
    async fn latest_window(&self, transaction: &Transaction) -> Result<i64, DirectoryError> {
        let newest = RangeQuery::new(self.counters.range()).reverse().rows(1);
        let rows = transaction.snapshot().get_range(newest).await?;
        let Some(row) = rows.first() else { return Ok(0) };
        let start: i64 = self.counters.unpack(&row.key)?;
        // Room for windows to come, and nothing that a size could not be found for.
        if !(0..i64::MAX / 2).contains(&start) {
            return Err(malformed(&row.key, "the window begins outside of the numbers"));
        }
        Ok(start)
    }

    /// Counts an allocation in the window that begins at `start`, or in a later one if that is half full.
    /// Returns the beginning and the size of the window.
    async fn count_allocation(
        &self,
        transaction: &Transaction,
        mut start: i64,
    ) -> Result<(i64, i64), DirectoryError> {
        let mut is_first = true;
        loop {
            let counter = self.counters.pack(&start)?;
            {
                let _turn = STEP.lock();
                if !is_first {
                    self.close_windows_before(transaction, start)?;
                }
                transaction.add(counter.clone(), 1)?;
            }
            let count = transaction.snapshot().get(counter.clone()).await?;
            let count = count.map_or(Ok(0), |value| {
                let bytes = <[u8; 8]>::try_from(value.as_slice());
                bytes
                    .map(i64::from_le_bytes)
                    .map_err(|_| malformed(&Key::from(counter), "a counter has eight bytes"))
            })?;
            let size = window_size(start);
            if count.saturating_mul(2) < size {
                return Ok((start, size));
            }
            start += size;
            is_first = false;
        }
    }

    fn close_windows_before(
        &self,
        transaction: &Transaction,
        start: i64,
    ) -> Result<(), DirectoryError> {
        let before = |subspace: &Subspace| -> Result<KeyRange, DirectoryError> {
            Ok(KeyRange::new(subspace.prefix(), subspace.pack(&start)?))
        };
        transaction.clear_range(before(&self.counters)?)?;
        // Whoever claims a number of an old window right now must not fail for this.
        let range = before(&self.recent)?;
        transaction.write_without_conflict(Mutation::ClearRange { range })?;
        Ok(())
    }

    /// Draws numbers until one is free; `None` if this transaction has opened a later window meanwhile.
    async fn claim(
        &self,
        transaction: &Transaction,
        start: i64,
        size: i64,
    ) -> Result<Option<i64>, DirectoryError> {
        loop {
            let number = start.saturating_add_unsigned((self.draw)(size.unsigned_abs()));
            let key = Key::from(self.recent.pack(&number)?);
            let mut latest_window = pin!(maybe_done(self.latest_window(transaction)));
            let mut claimed = pin!(maybe_done(transaction.get(key.clone())));
            // The reads take the transaction's own writes into account as they are when they begin: before
            // this claim, and after all others of this transaction.
            poll_fn(|context| {
                let _turn = STEP.lock();
                let _ = latest_window.as_mut().poll(context);
                let _ = claimed.as_mut().poll(context);
                let (key, value) = (key.clone(), Value::default());
                Poll::Ready(transaction.write_without_conflict(Mutation::Set { key, value }))
            })
            .await?;
            future::join(latest_window.as_mut(), claimed.as_mut()).await;
            let latest_window = latest_window.take_output().unwrap_or(Ok(start))?;
            let claimed = claimed.take_output().unwrap_or(Ok(None))?;
            if latest_window > start {
                return Ok(None);
            }
            if claimed.is_none() {
                transaction.add_write_conflict_range(KeyRange::single(&key))?;
                return Ok(Some(number));
            }
        }
    }
}

impl std::fmt::Debug for HighContentionAllocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HighContentionAllocator({})", self.counters)
    }
}

/// How many numbers there are in the window that begins at `start`.
fn window_size(start: i64) -> i64 {
    match start {
        ..255 => 64,
        255..65_535 => 1024,
        _ => 8192,
    }
}

fn malformed(key: &Key, detail: &str) -> DirectoryError {
    DirectoryError::Malformed { key: key.clone(), detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_where_the_numbers_do() {
        let sizes = [(0, 64), (254, 64), (255, 1024), (65_534, 1024), (65_535, 8192)];
        assert!(sizes.iter().all(|&(start, size)| window_size(start) == size));
    }
}
