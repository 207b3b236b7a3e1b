//! Handing out read versions.
//!
//! Requests are answered in rounds. All that wait when a round begins share it:
//!
//! ```text
//!   requests    a   b c          d
//!   round 1     [a    ]                      committed_version, and k logs still unlocked for us
//!   round 2          [b c       ]            begun after b and c arrived
//!   round 3                      [d      ]
//! ```
//!
//! The version is asked from the sequencer after the request arrived, so it covers every commit
//! acknowledged before (I-1). That alone is not enough: a generation that was replaced without noticing
//! would go on handing out versions that miss the commits of its successor. So a round also has k logs
//! confirm that they are not locked: with k of L unlocked, fewer than the L-k+1 are locked that a
//! recovery needs, so no successor can have begun to commit before the confirmation was asked for (I-12).

use ferrisdb_core::service::controller::LogSet;

/// How many logs have to confirm before a version may be handed out.
pub fn confirmations_needed(log_set: &LogSet) -> usize {
    (log_set.replication as usize).clamp(1, log_set.logs.len())
}

/// How many logs a recovery has to lock before it may go on without this generation.
pub fn locks_needed(log_set: &LogSet) -> usize {
    log_set.logs.len() - confirmations_needed(log_set) + 1
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{
        Endpoint, Generation, ProcessId, Version, id::Address, service::controller::LogMember,
    };

    use super::*;

    #[test]
    fn a_confirmation_and_a_recovery_always_share_a_log() {
        for logs in 1..=7 {
            for replication in 1..=logs {
                let member = LogMember {
                    process: ProcessId(1),
                    endpoint: Endpoint::of_process(Address::new("log")),
                };
                let log_set = LogSet {
                    generation: Generation(1),
                    logs: vec![member; logs],
                    replication: replication as u32,
                    begin_version: Version(0),
                    recovery_version: Version(0),
                    end_version: None,
                };
                assert!(confirmations_needed(&log_set) + locks_needed(&log_set) > logs);
            }
        }
    }
}
