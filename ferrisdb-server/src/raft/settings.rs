//! How patient a group is.

use std::{ops::Range, time::Duration};

/// The times and sizes of a register. All members of a group should have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterSettings {
    /// How often a leader says that it is alive. An entry must also reach a follower's disk within about this time, or
    /// it is sent again.
    pub heartbeat_interval: Duration,
    /// How long a member waits for a leader before it stands for election: each draws a time of its own from this
    /// range, once. Whoever has heard of a leader waits for the end of the range in addition, so that a leader
    /// can rely on its lease.
    pub election_timeout: Range<Duration>,
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
            snapshot_after_entries: 64,
            operation_timeout: Duration::from_secs(5),
        }
    }
}
