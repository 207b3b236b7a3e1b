//! How much one request may look at (I-16).
//!
//! ```text
//!   rows       r . . . . . . . . r . . . . . . . .       . deleted
//!   spent      1 2 3 4 5 6 7 8 9 10                      the budget was 10: the answer says where to go on
//! ```
//!
//! Rows count whether they are returned or not: it is those that are deleted, cleared or written later that a limit of rows
//! in the answer does not bound. Time counts as well, for what comes from a slow disk. A budget that is spent ends a
//! step, never a scan: whoever works on a budget gets at least one key further with it.

use std::time::Duration;

use ferrisdb_core::{
    limits,
    runtime::{self, Instant},
};

/// So many rows are looked at between two looks at the clock.
const ROWS_PER_LOOK: usize = 64;

/// The bounds of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Most rows that a request looks at.
    pub looked_at_max: usize,
    /// How long it may look.
    pub time_max: Duration,
    /// Most rows that it looks at where it has arrived, in the place of other requests. What is left is done where it may
    /// block.
    pub looked_at_inline_max: usize,
}

impl Default for ReadLimits {
    fn default() -> ReadLimits {
        ReadLimits {
            looked_at_max: limits::READ_ROWS_LOOKED_AT_MAX,
            time_max: limits::READ_TIME_MAX,
            // A third of a millisecond, if they are in memory.
            looked_at_inline_max: 1_000,
        }
    }
}

/// What is left of a request's bounds.
#[derive(Debug)]
pub struct Budget {
    rows: usize,
    until: Option<Instant>,
    rows_per_look: usize,
    until_look: usize,
}

impl Budget {
    /// So many rows, at least one.
    pub fn of_rows(rows: usize) -> Budget {
        let (rows_per_look, until_look) = (ROWS_PER_LOOK, ROWS_PER_LOOK);
        Budget { rows: rows.max(1), until: None, rows_per_look, until_look }
    }

    /// The same, and not longer than this from now on.
    pub fn within(self, time: Duration) -> Budget {
        Budget { until: Some(runtime::now() + time), ..self }
    }

    /// The same, with a look at the clock after each so many rows: for those who would notice if a few of them came from a disk.
    pub fn looking_every(self, rows: usize) -> Budget {
        Budget { rows_per_look: rows, until_look: rows, ..self }
    }

    /// So many rows were looked at.
    pub fn spend(&mut self, rows: usize) {
        self.rows = self.rows.saturating_sub(rows);
        if rows < self.until_look {
            self.until_look -= rows;
            return;
        }
        self.until_look = self.rows_per_look;
        if self.until.is_some_and(|until| runtime::now() >= until) {
            self.rows = 0;
        }
    }

    /// How many rows may still be looked at.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it is time to answer.
    pub fn is_spent(&self) -> bool {
        self.rows == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_time_are_spent() {
        let mut budget = Budget::of_rows(3);
        budget.spend(2);
        assert!(!budget.is_spent());
        budget.spend(2);
        assert!(budget.is_spent());
        assert!(!Budget::of_rows(0).is_spent(), "one row is looked at in any case");

        let mut late = Budget::of_rows(1_000).within(Duration::ZERO);
        assert!(!late.is_spent());
        late.spend(ROWS_PER_LOOK);
        assert!(late.is_spent());

        let mut watched = Budget::of_rows(1_000).within(Duration::ZERO).looking_every(8);
        watched.spend(7);
        assert!(!watched.is_spent());
        watched.spend(1);
        assert!(watched.is_spent());
    }
}
