//! Operations of layers that read, wait, and then write what follows from it, several of them in one transaction at a time.
//!
//! ```text
//!   create a/x     reads: a is absent                 acts: sets a, a/x
//!   create a/y     reads: a is absent                                       acts: a was written since, it does not
//!                                                                           reads again: a is there     acts: sets a/y
//! ```
//!
//! It is what a resolver does, within a transaction: an operation acts only if no other one has written, since its turn
//! began, what it has read. Nothing is locked while it waits, so one that is not polled any more keeps nobody from
//! anything (I-17), and of those that meet one always acts.
//!
//! Start with [`Transaction::turn`], then [`Turn::act`].

use ferrisdb_core::simulation::{Plant, planted};

use super::*;

/// What the operations of a transaction have written, each in one step.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Acts>);

#[derive(Debug, Default)]
struct Acts {
    attempt: u64,
    written: Vec<RangeSet>,
}

/// The turn of an operation: it reads by this, and writes once, at the end.
pub(crate) struct Turn<'a> {
    transaction: &'a Transaction,
    attempt: u64,
    /// How many have acted before.
    began: usize,
    observed: Mutex<RangeSet>,
}

/// The writes of an operation.
pub(crate) struct Act<'a> {
    transaction: &'a Transaction,
    written: RangeSet,
}

impl Transaction {
    /// The turn of an operation begins, or begins again.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let attempt = self.shared.state.lock().attempt;
        let acts = self.shared.turns.of(attempt);
        // One that begins too late for its attempt does not act any more.
        let began = if acts.attempt == attempt { acts.written.len() } else { 0 };
        Turn { transaction: self, attempt, began, observed: Mutex::default() }
    }
}

impl Turns {
    /// What was written in an attempt, or in a later one: a turn that is late must not let that be forgotten.
    fn of(&self, attempt: u64) -> MutexGuard<'_, Acts> {
        let mut acts = self.0.lock();
        if acts.attempt < attempt {
            *acts = Acts { attempt, written: Vec::new() };
        }
        acts
    }
}

impl Turn<'_> {
    /// As [`Transaction::get`].
    pub(crate) async fn get(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        let key = key.into();
        self.observed.lock().insert(&KeyRange::single(&key));
        self.transaction.get(key).await
    }

    /// As [`Transaction::get_range`], of a plain range; a snapshot is not observed by the turn either.
    pub(crate) async fn get_range(
        &self,
        query: RangeQuery,
        isolation: Isolation,
    ) -> Result<Vec<KeyValue>> {
        let mut range = query.plain_range().unwrap_or(KeyRange::all_user_keys());
        let reverse = query.reverse;
        let page = self.transaction.read_range(query, isolation).await?;
        match page.rows.last().filter(|_| page.more) {
            Some(last) if reverse => range.begin = last.key.clone(),
            Some(last) => range.end = last.key.successor(),
            None => {}
        }
        if isolation == Isolation::Serializable {
            self.observed.lock().insert(&range);
        }
        Ok(page.rows)
    }

    /// Beside what the turn observes.
    pub(crate) fn transaction(&self) -> &Transaction {
        self.transaction
    }

    /// Lets the operation write, all at once; `None` if others have written what it has read, so that it has to read again.
    ///
    /// # Errors
    ///
    /// That of `act`, or that the transaction has ended.
    pub(crate) fn act<T, E: From<Error>>(
        &self,
        act: impl FnOnce(&mut Act<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let mut acts = self.transaction.shared.turns.of(self.attempt);
        let is_late = acts.attempt != self.attempt;
        if is_late || self.transaction.shared.state.lock().attempt != self.attempt {
            return Err(cancelled().into());
        }
        let observed = self.observed.lock();
        let meets = |written: &RangeSet| written.iter().any(|range| observed.intersects(&range));
        if acts.written[self.began.min(acts.written.len())..].iter().any(meets)
            && !planted(Plant::ActUnchecked)
        {
            return Ok(None);
        }
        let mut writes = Act { transaction: self.transaction, written: RangeSet::default() };
        let done = act(&mut writes);
        acts.written.push(writes.written);
        done.map(Some)
    }
}

impl Act<'_> {
    /// As [`Transaction::set`].
    pub(crate) fn set(&mut self, key: impl Into<Key>, value: impl Into<Value>) -> Result<()> {
        let key = key.into();
        self.written.insert(&KeyRange::single(&key));
        self.transaction.set(key, value)
    }

    /// As [`Transaction::clear`].
    pub(crate) fn clear(&mut self, key: impl Into<Key>) -> Result<()> {
        let key = key.into();
        self.written.insert(&KeyRange::single(&key));
        self.transaction.clear(key)
    }

    /// As [`Transaction::clear_range`].
    pub(crate) fn clear_range(&mut self, range: KeyRange) -> Result<()> {
        self.written.insert(&range);
        self.transaction.clear_range(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_turn_does_not_let_a_later_attempt_forget() {
        let turns = Turns::default();
        drop(turns.of(1));
        turns.of(2).written.push(RangeSet::default());
        assert_eq!(turns.of(1).attempt, 2, "whoever is late sees that");
        assert_eq!(turns.of(2).written.len(), 1);
        assert!(turns.of(3).written.is_empty());
    }
}
