//! What only a simulation can switch on or look at: planted bugs and coverage marks.
//!
//! ```text
//!   if planted(Plant::SkipReadConflict) { .. }   a bug of a known name, at the place where it could really be
//!   mark(Mark::TornTailCut)                      this branch was taken
//! ```
//!
//! A planted bug shows that the checkers would find it: a simulation runs with one of them switched on and has to
//! fail. A mark shows that a batch of seeds has been where bugs hide. In a build without `--cfg madsim` both
//! are nothing: [`planted`] is `false` when it is compiled, so the planted code is not even there.

macro_rules! named {
    ($(#[$attribute:meta])* $kind:ident { $($(#[doc = $what:literal])+ $variant:ident = $name:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $kind { $($(#[doc = $what])+ $variant,)+ }

        impl $kind {
            /// All of them.
            pub const ALL: &[$kind] = &[$($kind::$variant,)+];

            /// What it is called on the command line and in reports.
            pub const fn name(self) -> &'static str {
                match self { $($kind::$variant => $name,)+ }
            }

            /// What it means, in a sentence.
            pub const fn what(self) -> &'static str {
                match self { $($kind::$variant => concat!($($what),+).trim_ascii(),)+ }
            }

            /// The one of a name.
            pub fn by_name(name: &str) -> Option<$kind> {
                $kind::ALL.iter().copied().find(|one| one.name() == name)
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// A bug that can be switched on. Each breaks an invariant that its description names.
    Plant {
        /// Proxy: a commit is acknowledged when all logs but one have it on disk (I-5).
        AcknowledgeBeforeLastLog = "acknowledge-before-last-log",
        /// Proxy: read versions are given out without asking the logs whether the generation still lives (I-1).
        UnconfirmedReadVersion = "unconfirmed-read-version",
        /// Proxy: a read version is the last one that this proxy itself has sent to the logs (I-1).
        ReadVersionOfOneProxy = "read-version-of-one-proxy",
        /// Proxy: a range clear over several shards reaches the first one only (I-2).
        ClearReachesOneShard = "clear-reaches-one-shard",
        /// Proxy: changes of the shard map count one batch too late (I-3).
        ShardMapLate = "shard-map-late",
        /// Proxy: a push that failed is reported as a conflict (I-6).
        FailedPushIsConflict = "failed-push-is-conflict",
        /// Proxy: all transactions of a batch get the versionstamp of the first (I-4).
        VersionstampOfFirst = "versionstamp-of-first",
        /// Resolver: the last read-conflict range of a transaction is not looked at (I-4).
        SkipReadConflict = "skip-read-conflict",
        /// Resolver: conflicts between transactions of the same batch are not seen (I-4).
        IgnoreConflictsInBatch = "ignore-conflicts-in-batch",
        /// Resolver: a transaction older than the window is accepted (I-4).
        AcceptTooOld = "accept-too-old",
        /// Resolver: writes of refused transactions count for later ones (I-15).
        RefusedWritesCount = "refused-writes-count",
        /// Sequencer: the reports of some commits are forgotten (I-1).
        ForgetReports = "forget-reports",
        /// Log: a push is answered before it is on disk (I-5).
        AnswerBeforeSync = "answer-before-sync",
        /// Log: pushes of a locked generation still succeed (I-8).
        PushThroughLock = "push-through-lock",
        /// Log: what one reader has is deleted for all (I-11).
        PopTooEarly = "pop-too-early",
        /// Log: checksums are not looked at (I-2).
        BelieveDamagedRecord = "believe-damaged-record",
        /// Log: a new set copies from one log of the last set only, whatever the others have (I-12).
        SkipCopy = "skip-copy",
        /// Controller: the recovery version is the highest durable version, not the lowest (I-12).
        RecoverToMaximum = "recover-to-maximum",
        /// Controller: a recovery goes on with one lock too few (I-12).
        TooFewLocks = "too-few-locks",
        /// Resolver: a generation begins right behind the last one, and its resolvers take their empty conflict sets for
        /// all that ever was (I-4).
        ForgetPast = "forget-past",
        /// Controller: old log sets are dropped before they are drained (I-11).
        DropUndrainedLogs = "drop-undrained-logs",
        /// Controllers' group: a vote is not written to disk (I-12).
        ForgetVote = "forget-vote",
        /// Storage: versions past the recovery version are kept (I-10).
        SkipRollback = "skip-rollback",
        /// Storage: the mutations of some versions are applied twice (I-2).
        ApplyTwice = "apply-twice",
        /// Storage: a range read does not see single-key clears in the window (I-2).
        SkipTombstone = "skip-tombstone",
        /// Storage: logs are told to forget what is not on this server's disk yet (I-11).
        PopBeforeSync = "pop-before-sync",
        /// Storage: the engine is written past what is known to be committed (I-9).
        FlushUncommitted = "flush-uncommitted",
        /// Storage: keys that have moved away are still answered for (I-3).
        ServeForeignShard = "serve-foreign-shard",
        /// Storage: a read may see one version later than it asked for (I-2).
        ReadTooNew = "read-too-new",
        /// Storage: a range clear wakes nobody who watches a key of it.
        MissWatch = "miss-watch",
        /// Client: watches are not begun again when their server was lost.
        ForgetWatch = "forget-watch",
        /// Client: a range read does not see the transaction's own clears (I-15).
        MissOwnClear = "miss-own-clear",
        /// Client: a range read with a limit protects one key too few (I-15).
        RangeConflictTooSmall = "range-conflict-too-small",
        /// Client: a commit of unknown result is sent again without finding out (I-6).
        ResendUnknown = "resend-unknown",
        /// Client: a key selector observes the key that it found, not what it stepped over (I-15).
        SelectorConflictTooSmall = "selector-conflict-too-small",
        /// Client: transactions reuse a read version that was asked for earlier (I-1).
        ReuseReadVersion = "reuse-read-version",
        /// Client: measuring a range gives the transaction a read version, so none can be set any more.
        MeasureTakesReadVersion = "measure-takes-read-version",
        /// Client: a selector behind the last legal key is refused, although its key is legal.
        SelectorAtEndRefused = "selector-at-end-refused",
        /// Client: the status says that the database is available because the controllers think so.
        StatusGuessesAvailability = "status-guesses-availability",
        /// Client: the status waits for its probe for as long as a transaction waits.
        StatusWithoutLimit = "status-without-limit",
    }
}

named! {
    /// A branch that is rarely taken.
    Mark {
        /// Log: a torn tail was cut at a restart.
        TornTailCut = "log-torn-tail-cut",
        /// Log: a push arrived before its predecessor.
        EarlyPush = "log-early-push",
        /// Log: a reader was served from the disk.
        PeekFromDisk = "log-peek-from-disk",
        /// Log: a new segment was begun.
        SegmentBegun = "log-segment-begun",
        /// Log: segments were deleted.
        SegmentsDeleted = "log-segments-deleted",
        /// Log: a push of an older generation was refused.
        PushRefusedByLock = "log-push-refused-by-lock",
        /// Log: a write failed.
        LogWriteFailed = "log-write-failed",
        /// Log: a restart found its own lock.
        LockFoundAtRestart = "log-lock-found-at-restart",
        /// Log: a recovery took messages over from the last set.
        TakenOver = "log-taken-over",
        /// Proxy: a batch held more than one transaction.
        BatchOfMany = "proxy-batch-of-many",
        /// Proxy: a transaction conflicted.
        Conflict = "proxy-conflict",
        /// Proxy: the shard map changed with a batch.
        ShardMapChanged = "proxy-shard-map-changed",
        /// Proxy: a read version was confirmed by asking the logs.
        ConfirmedByLogs = "proxy-confirmed-by-logs",
        /// Proxy: it refused work because too much was waiting.
        ProxyTooBusy = "proxy-too-busy",
        /// Proxy: a commit of an ended generation got no result.
        CommitUnknown = "proxy-commit-unknown",
        /// Resolver: a batch waited for its predecessor.
        BatchWaited = "resolver-batch-waited",
        /// Resolver: a repeated call was answered from memory.
        RepeatedBatch = "resolver-repeated-batch",
        /// Resolver: a transaction was older than the window.
        TooOld = "resolver-too-old",
        /// Controller: a recovery went on without all locks.
        RecoveredWithoutAll = "controller-recovered-without-all",
        /// Controller: a recovery was given up for another one.
        RecoveryAbandoned = "controller-recovery-abandoned",
        /// Controller: a new leader adopted a healthy generation.
        GenerationAdopted = "controller-generation-adopted",
        /// Controller: the locks told of different durable versions.
        UnequalLocks = "controller-unequal-locks",
        /// Controller: a process said that its disk has failed.
        TroubleReported = "controller-trouble-reported",
        /// Controller: an accusation was believed.
        Accused = "controller-accused",
        /// Controller: records of idempotency ids were swept.
        RecordsSwept = "controller-records-swept",
        /// Controller: it did not count a time in which it stood still itself.
        ControllerStoodStill = "controller-stood-still",
        /// Controllers' group: a snapshot was installed.
        SnapshotInstalled = "raft-snapshot-installed",
        /// Storage: versions were rolled back.
        RolledBack = "storage-rolled-back",
        /// Storage: a read waited for its version.
        ReadWaited = "storage-read-waited",
        /// Storage: a read was too old.
        ReadTooOld = "storage-read-too-old",
        /// Storage: a read went to a server that does not have the shard.
        WrongShard = "storage-wrong-shard",
        /// Storage: the window was full.
        WindowFull = "storage-window-full",
        /// Storage: a page of a shard was copied from another server.
        PageCopied = "storage-page-copied",
        /// Storage: the server began anew because the logs no longer had its versions.
        BeganAnew = "storage-began-anew",
        /// Storage: a shard was given up.
        ShardGivenUp = "storage-shard-given-up",
        /// Storage: a peek was continued at another log of the set.
        OtherLogAsked = "storage-other-log-asked",
        /// Storage: a watch was begun at a version that was not applied yet.
        WatchWaited = "storage-watch-waited",
        /// Storage: a watch was refused because its key is elsewhere.
        WatchRefused = "storage-watch-refused",
        /// Storage: a watch was looked at again after a rollback.
        WatchRolledBack = "storage-watch-rolled-back",
        /// Client: what a server said of a watched key was not so.
        WatchUnconfirmed = "client-watch-unconfirmed",
        /// Client: watches were begun again on another server, or on the same one.
        WatchMoved = "client-watch-moved",
        /// Client: a commit of unknown result turned out to have happened.
        FoundCommitted = "client-found-committed",
        /// Client: a commit of unknown result turned out not to have happened.
        FoundNotCommitted = "client-found-not-committed",
        /// Client: cached locations were forgotten.
        LocationsForgotten = "client-locations-forgotten",
    }
}

#[cfg(madsim)]
mod switches {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    use super::{Mark, Plant};

    static PLANTED: OnceLock<Plant> = OnceLock::new();
    static REACHED: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];

    /// Switches a bug on, for the rest of the process.
    ///
    /// # Panics
    ///
    /// If another one is on already.
    pub fn plant(plant: Plant) {
        assert_eq!(*PLANTED.get_or_init(|| plant), plant, "one bug at a time");
    }

    /// Whether this bug is switched on.
    pub fn planted(plant: Plant) -> bool {
        PLANTED.get() == Some(&plant)
    }

    /// Notes that a branch was taken.
    pub fn mark(mark: Mark) {
        REACHED[mark as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often each mark was reached, those that never were included.
    pub fn marks() -> impl Iterator<Item = (Mark, u64)> {
        Mark::ALL.iter().zip(&REACHED).map(|(mark, count)| (*mark, count.load(Ordering::Relaxed)))
    }
}

#[cfg(madsim)]
pub use switches::{mark, marks, plant, planted};

/// Whether this bug is switched on: never.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn planted(_plant: Plant) -> bool {
    false
}

/// Notes that a branch was taken: nothing is noted outside of a simulation.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn mark(_mark: Mark) {}
