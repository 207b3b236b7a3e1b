//! Handing out read versions.
//!
//! Requests are answered in rounds. All that wait when a round begins share it:
//!
//! ```text
//!   requests    a   b c          d
//!   round 1     [a    ]                      committed_version, and a copy group still unlocked for us
//!   round 2          [b c       ]            begun after b and c arrived
//!   round 3                      [d      ]
//! ```
//!
//! The version is asked from the sequencer after the request arrived, so it covers every commit
//! acknowledged before (I-1). That alone is not enough: a generation that was replaced without noticing
//! would go on handing out versions that miss the commits of its successor. So a round also has logs confirm that
//! they are not locked: all of one copy group. A recovery needs a lock in every group
//! ([`ferrisdb_core::copy_groups`]), so no successor can have begun to commit before the confirmation was asked for (I-12).

use std::collections::BTreeSet;

use ferrisdb_core::{
    copy_groups::CopyGroups,
    service::controller::LogSet,
    simulation::{Plant, planted},
};

/// The logs that have confirmed, in a round.
#[derive(Debug)]
pub struct Confirmations {
    groups: CopyGroups,
    confirmed: BTreeSet<usize>,
}

impl Confirmations {
    /// Nobody has confirmed yet.
    pub fn new(log_set: &LogSet) -> Confirmations {
        Confirmations { groups: log_set.copy_groups(), confirmed: BTreeSet::new() }
    }

    /// A log is not locked.
    pub fn add(&mut self, index: usize) {
        self.confirmed.insert(index);
    }

    /// Whether a version may be handed out.
    pub fn suffice(&self) -> bool {
        if planted(Plant::ConfirmByMembers) {
            return self.confirmed.len() >= self.groups.copies();
        }
        self.groups.has_whole_group(|index| self.confirmed.contains(&index))
    }

    /// How far they are, for people.
    pub fn describe(&self) -> String {
        let (confirmed, logs) = (self.confirmed.len(), self.groups.count());
        format!(
            "{confirmed} of {logs} logs confirmed, and among them no copy group of {}",
            self.groups.copies()
        )
    }
}
