//! Where to look for each planted bug: the scenarios that are tried in turn until one of them fails.

use ferrisdb_core::simulation::Plant;

/// The scenarios that should notice a bug, the likeliest first.
pub fn scenarios_for(plant: Plant) -> &'static [&'static str] {
    match plant {
        Plant::AcknowledgeBeforeLastLog => &["unequal-logs", "bank", "disks"],
        Plant::UnconfirmedReadVersion => &["two-generations", "side-channel"],
        Plant::ReadVersionOfOneProxy => &["side-channel", "second-opinion"],
        Plant::ClearReachesOneShard => &["range-clears", "serializability"],
        Plant::ShardMapLate => &["operations"],
        Plant::FailedPushIsConflict => &["bank", "exactly-once", "serializability"],
        Plant::VersionstampOfFirst => &["atomic-operations", "serializability"],
        Plant::SkipReadConflict => &["cycle", "serializability"],
        Plant::IgnoreConflictsInBatch => &["exactly-once", "cycle", "serializability"],
        Plant::AcceptTooOld => &["serializability", "cycle"],
        Plant::RefusedWritesCount => &["conflicts"],
        Plant::ForgetReports => &["side-channel", "second-opinion"],
        Plant::AnswerBeforeSync => &["unequal-logs", "disks"],
        Plant::PushThroughLock => &["two-generations", "recorded-bank"],
        Plant::PopTooEarly => &["bank", "cycle"],
        Plant::BelieveDamagedRecord => &["torn-writes", "disks", "bad-disks"],
        Plant::SkipCopy => &["cascades", "unequal-logs", "operations"],
        Plant::RecoverToMaximum => &["unequal-logs", "bank"],
        Plant::TooFewLocks => &["too-few-left", "unequal-logs"],
        Plant::ForgetPast => &["cycle", "serializability", "recorded-bank"],
        Plant::DropUndrainedLogs => &["bank", "recorded-bank", "operations"],
        Plant::ForgetVote => &["register"],
        Plant::SkipRollback => &["unequal-logs", "bank"],
        Plant::ApplyTwice => &["atomic-operations", "exactly-once"],
        Plant::SkipTombstone => &["api", "range-clears"],
        Plant::PopBeforeSync => &["bank", "cycle"],
        Plant::FlushUncommitted => &["unequal-logs", "bank"],
        Plant::ServeForeignShard => &["operations", "bad-disks"],
        Plant::ReadTooNew => &["serializability", "api"],
        Plant::MissWatch => &["watches"],
        Plant::ForgetWatch => &["watches"],
        Plant::MissOwnClear => &["api"],
        Plant::RangeConflictTooSmall => &["api", "serializability"],
        Plant::ResendUnknown => &["exactly-once"],
        Plant::SelectorConflictTooSmall => &["conflicts"],
        Plant::ReuseReadVersion => &["side-channel"],
        Plant::MeasureTakesReadVersion | Plant::SelectorAtEndRefused => &["arguments"],
        Plant::StatusGuessesAvailability | Plant::StatusWithoutLimit => &["status"],
    }
}
