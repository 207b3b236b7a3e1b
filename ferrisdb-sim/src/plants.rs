//! Where to look for each planted bug: the scenarios that are tried in turn until one of them fails.

use ferrisdb_core::simulation::Plant;

// Not clean yet without a bug, so they are not among the scenarios that every change has to pass.
const EDGES: &str = "ferrisdb-sim/scenarios/edges.toml";
const FULL_DISKS: &str = "ferrisdb-sim/scenarios/full-disks.toml";
const OVERLOAD: &str = "ferrisdb-sim/scenarios/overload.toml";

/// The scenarios that should notice a bug, the likeliest first.
pub fn scenarios_for(plant: Plant) -> &'static [&'static str] {
    match plant {
        Plant::AcknowledgeBeforeLastLog => &["unequal-logs", "bank", "disks"],
        Plant::UnconfirmedReadVersion => &["two-generations", "side-channel"],
        Plant::ReadVersionOfOneProxy => &["side-channel", "second-opinion"],
        Plant::ConfirmByMembers => &["zones"],
        Plant::ClearReachesOneShard => &["range-clears", "serializability"],
        Plant::ShardMapLate => &["operations"],
        Plant::FailedPushIsConflict => &["bank", "exactly-once", "serializability"],
        Plant::VersionstampOfFirst => &["atomic-operations", "serializability"],
        Plant::OneResolverDecides => &["resolvers", "cycle"],
        Plant::RangeCutAtResolver => &["resolvers", "serializability"],
        Plant::StampedConflictUnnamed => &["resolvers", "conflicts"],
        Plant::SkipReadConflict => &["cycle", "serializability"],
        Plant::IgnoreConflictsInBatch => &["exactly-once", "cycle", "serializability"],
        Plant::AcceptTooOld => &["serializability", "cycle"],
        Plant::ForgetBeforeRefusing => &["window-border"],
        Plant::VersionsRunAhead => &["idle"],
        Plant::IdleVersionsStand => &["idle"],
        Plant::WaitingIsDeath => &[OVERLOAD],
        Plant::BusyIsDeath => &[OVERLOAD],
        Plant::PopMetadataOnce => &["log-space"],
        Plant::ServePastBorder => &["window-border"],
        Plant::RefusedWritesCount => &["conflicts"],
        Plant::ForgetReports => &["side-channel", "second-opinion"],
        Plant::AnswerBeforeSync => &["unequal-logs", "disks"],
        Plant::PushThroughLock => &["two-generations", "recorded-bank"],
        Plant::PopTooEarly => &["bank", "cycle"],
        Plant::BelieveDamagedRecord => &["torn-writes", "disks", "bad-disks"],
        Plant::SkipCopy => &["cascades", "unequal-logs", "operations"],
        Plant::RecoverToMaximum => &["unequal-logs", "bank"],
        Plant::TooFewLocks => &["too-few-left", "unequal-logs"],
        Plant::LocksByMembers => &["zones"],
        Plant::ForgetUnreachable => &["broken-links"],
        Plant::UnprovedBetter => &["broken-links"],
        Plant::RecruitFullDisk => &[FULL_DISKS],
        Plant::ForgetPast => &["cycle", "serializability", "recorded-bank"],
        Plant::DropUndrainedLogs => &["bank", "recorded-bank", "operations"],
        Plant::ForgetVote => &["register"],
        Plant::StandUnasked => &["register"],
        Plant::LeadUnreached => &["register"],
        Plant::RemoveBlindly => &["controllers"],
        Plant::ForceSnapshotOnly => &["controllers"],
        Plant::SkipRollback => &["unequal-logs", "bank"],
        Plant::ApplyTwice => &["atomic-operations", "exactly-once"],
        Plant::SkipTombstone => &["api", "range-clears"],
        Plant::PopBeforeSync => &["bank", "cycle"],
        Plant::FlushUncommitted => &["unequal-logs", "bank"],
        Plant::ServeForeignShard => &["operations", "bad-disks"],
        Plant::ReadTooNew => &["serializability", "api"],
        Plant::ContinueSkipsKey => &["range-clears", "api", "serializability"],
        Plant::ContinueIgnoresDirection => &["range-clears", "api", "serializability"],
        Plant::ScanInPlace => &["deleted-keys"],
        Plant::ScanUnderLock => &["deleted-keys"],
        Plant::RaiseOldestLate => &["cold-keys"],
        Plant::KeepShardsOfRolledBack => &["relocations", "operations"],
        Plant::KeepLeftovers => &["relocations", "operations"],
        Plant::ReportCopyTooEarly => &["relocations", "operations"],
        Plant::ForgetWatchAtRollback => &["watches-unequal", "watches"],
        Plant::ForgetJoining => &["relocations", "operations"],
        Plant::MissWatch => &["watches"],
        Plant::ForgetWatch => &["watches"],
        Plant::MissOwnClear => &["api"],
        Plant::RangeConflictTooSmall => &["api", "serializability"],
        Plant::ResendUnknown => &["exactly-once"],
        Plant::SelectorConflictTooSmall => &["conflicts"],
        Plant::MergedClearsLast => &["api", EDGES],
        Plant::WatchBelowWrites => &["watches"],
        Plant::ActUnchecked => &["directories"],
        Plant::ReuseReadVersion => &["side-channel"],
        Plant::OnlyLeaderAnswers => &["client-links"],
        Plant::ClingToProxy => &["client-links"],
        Plant::ForgetFence => &["client-lives", "client-links"],
        Plant::SendElsewhere => &["client-lives", "client-links"],
        Plant::RedrawId
        | Plant::LookWithoutFence
        | Plant::FoundAtWrongVersion
        | Plant::DeafToTimeout
        | Plant::CommitBeforeReads => &["c-interface"],
        Plant::MeasureTakesReadVersion | Plant::SelectorAtEndRefused => &["arguments"],
        Plant::StatusGuessesAvailability | Plant::StatusWithoutLimit => &["status"],
    }
}
