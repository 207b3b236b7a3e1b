//! Whether a leader can be reached where it says that it is.
//!
//! ```text
//!   leader                          member 2                          at the leader's address
//!   introduce(7, c1:4500)  ----->   a new connection to c1:4500 --->  "I am member 7"
//!                          <-----   vouched for
//! ```
//!
//! A leader reaches the others; that does not mean that anybody reaches it: it may give out a wrong address (`--advertise`), or
//! have moved, or stand behind something that lets connections out only. Everybody would look for it in vain, while its
//! heartbeats keep the others from standing. So a leadership counts only while a majority has reached the leader lately, and a
//! leader that was not reached for long falls silent, so that another one is elected.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ferrisdb_core::{
    runtime::Instant,
    simulation::{Plant, planted},
};

use super::{election::is_majority, types::NodeId};

/// How long a member takes for a new connection, at most.
pub(super) const REACH_LIMIT: Duration = Duration::from_millis(1_200);

/// Who has reached this member, and when.
#[derive(Debug)]
pub(super) struct Reach {
    vouched: BTreeMap<NodeId, Instant>,
    counts_for: Duration,
}

impl Reach {
    /// Nobody has reached this member yet. When somebody does, that counts for so long.
    pub(super) fn new(counts_for: Duration) -> Reach {
        Reach { vouched: BTreeMap::new(), counts_for }
    }

    /// A member has reached this one.
    pub(super) fn note(&mut self, by: NodeId, now: Instant) {
        self.vouched.insert(by, now);
    }

    /// Whether a majority of the voters has reached `node` lately, itself included.
    pub(super) fn is_proven(
        &self,
        node: NodeId,
        voters: &[BTreeSet<NodeId>],
        now: Instant,
    ) -> bool {
        if planted(Plant::LeadUnreached) {
            return true;
        }
        let recent = |at: &Instant| now.saturating_duration_since(*at) < self.counts_for;
        let recent = self.vouched.iter().filter(|(_, at)| recent(at)).map(|(node, _)| *node);
        let mut reached: BTreeSet<NodeId> = recent.collect();
        reached.insert(node);
        is_majority(voters, &reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leadership_needs_a_majority_that_reached_it_lately() {
        let now = ferrisdb_core::runtime::now();
        let three = [BTreeSet::from([1, 2, 3])];
        let counts_for = Duration::from_secs(5);
        let mut reach = Reach::new(counts_for);
        assert!(!reach.is_proven(1, &three, now));
        assert!(reach.is_proven(1, &[BTreeSet::from([1])], now));
        reach.note(9, now);
        assert!(!reach.is_proven(1, &three, now), "9 is no voter");
        reach.note(2, now);
        assert!(reach.is_proven(1, &three, now));
        assert!(!reach.is_proven(1, &three, now + counts_for));
        reach.note(3, now + counts_for);
        assert!(reach.is_proven(1, &three, now + counts_for));
    }
}
