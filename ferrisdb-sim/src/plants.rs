//! Where to look for each planted bug: the scenarios that are tried in turn until one of them fails.

use ferrisdb_core::simulation::Plant;

/// The scenarios that should notice a bug, the likeliest first.
pub fn scenarios_for(plant: Plant) -> &'static [&'static str] {
    match plant {
        Plant::AcknowledgeBeforeLastLog => &["bank", "disks", "serializability"],
        Plant::UnconfirmedReadVersion => &["side-channel", "second-opinion"],
        Plant::ReadVersionOfOneProxy => &["side-channel", "second-opinion"],
        Plant::ClearReachesOneShard => &["range-clears", "serializability"],
        Plant::ShardMapLate => &["operations"],
        Plant::FailedPushIsConflict => &["bank", "exactly-once", "serializability"],
        Plant::VersionstampOfFirst => &["atomic-operations", "serializability"],
        Plant::SkipReadConflict => &["cycle", "serializability"],
        Plant::IgnoreConflictsInBatch => &["exactly-once", "cycle", "serializability"],
        Plant::AcceptTooOld => &["serializability", "cycle"],
        Plant::RefusedWritesCount => &["api"],
        Plant::ForgetReports => &["side-channel", "second-opinion"],
        Plant::AnswerBeforeSync => &["bank", "cycle"],
        Plant::ForgetLockAtRestart => &["recorded-bank", "second-opinion", "exactly-once"],
        Plant::PushThroughLock => &["recorded-bank", "second-opinion", "side-channel"],
        Plant::PopTooEarly => &["bank", "cycle"],
        Plant::BelieveDamagedRecord => &["disks", "bad-disks"],
        Plant::SkipCopy => &["operations", "bad-disks", "recorded-bank"],
        Plant::RecoverToMaximum => &["bank", "recorded-bank"],
        Plant::TooFewLocks => &["recorded-bank", "second-opinion", "operations"],
        Plant::NoVersionJump => &["recorded-bank", "second-opinion", "side-channel"],
        Plant::DropUndrainedLogs => &["bank", "recorded-bank", "operations"],
        Plant::ForgetVote => &["register"],
        Plant::SkipRollback => &["bank", "recorded-bank", "serializability"],
        Plant::ApplyTwice => &["atomic-operations", "exactly-once"],
        Plant::SkipTombstone => &["api", "range-clears"],
        Plant::PopBeforeSync => &["bank", "cycle"],
        Plant::FlushUncommitted => &["bank", "recorded-bank"],
        Plant::ServeForeignShard => &["operations", "bad-disks"],
        Plant::ReadTooNew => &["serializability", "api"],
        Plant::MissOwnClear => &["api"],
        Plant::RangeConflictTooSmall => &["api", "serializability"],
        Plant::ResendUnknown => &["exactly-once"],
        Plant::ReuseReadVersion => &["side-channel"],
    }
}
