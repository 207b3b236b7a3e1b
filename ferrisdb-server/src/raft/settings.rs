//! How patient a group is.

use std::{ops::Range, time::Duration};

/// The times and sizes of a register. All members of a group should have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterSettings {
    /// How often a leader says that it is alive. An entry must also reach a follower's disk within about this time, or
    /// it is sent again.
    pub heartbeat_interval: Duration,
    /// A leader that was heard counts as alive for the end of this range, so that it can rely on its lease. Then a member waits
    /// for a part of the range's width, drawn anew each time, before it asks the others whether it may stand for election.
    pub election_timeout: Range<Duration>,
    /// A leader must have been reached by a majority, at the address that it gives out, within this time. It asks five times as
    /// often.
    pub reached_within: Duration,
    /// How many entries are applied before the next snapshot. Half as many are kept behind it, for members that
    /// are a little late.
    pub snapshot_after_entries: u64,
    /// How long a read, a write or a change of members may take. It can fail much earlier; after it, nobody waits any
    /// more for a majority that does not answer.
    pub operation_timeout: Duration,
}

impl Default for RegisterSettings {
    fn default() -> Self {
        RegisterSettings {
            heartbeat_interval: Duration::from_millis(75),
            election_timeout: Duration::from_millis(200)..Duration::from_millis(400),
            reached_within: Duration::from_secs(5),
            snapshot_after_entries: 64,
            operation_timeout: Duration::from_secs(5),
        }
    }
}
