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
        /// Proxy: as many logs confirm a read version as there are copies, whichever they are (I-1).
        ConfirmByMembers = "confirm-by-members",
        /// Proxy: a range clear over several shards reaches the first one only (I-2).
        ClearReachesOneShard = "clear-reaches-one-shard",
        /// Proxy: changes of the shard map count one batch too late (I-3).
        ShardMapLate = "shard-map-late",
        /// Proxy: a push that failed is reported as a conflict (I-6).
        FailedPushIsConflict = "failed-push-is-conflict",
        /// Proxy: a log or a resolver that has not done its work after a while is taken for dead, whatever it says of itself.
        WaitingIsDeath = "waiting-is-death",
        /// Proxy: a log or a resolver whose queue is full is taken for dead.
        BusyIsDeath = "busy-is-death",
        /// Proxy: a member whose connection breaks is taken for dead.
        BreakIsDeath = "break-is-death",
        /// Sequencer: a proxy that asks again for the version of a batch gets another one, and the first is a gap (I-7).
        ForgetBegun = "forget-begun",
        /// Proxy: all transactions of a batch get the versionstamp of the first (I-4).
        VersionstampOfFirst = "versionstamp-of-first",
        /// Proxy: the verdict of the first resolver counts, whatever the others say (I-4).
        OneResolverDecides = "one-resolver-decides",
        /// Proxy: of a range over the keys of several resolvers only the first one hears (I-4).
        RangeCutAtResolver = "range-cut-at-resolver",
        /// Proxy: the conflict of a stamped key is the key without its stamp (I-4).
        StampedConflictUnnamed = "stamped-conflict-unnamed",
        /// Resolver: the last read-conflict range of a transaction is not looked at (I-4).
        SkipReadConflict = "skip-read-conflict",
        /// Resolver: conflicts between transactions of the same batch are not seen (I-4).
        IgnoreConflictsInBatch = "ignore-conflicts-in-batch",
        /// Resolver: a transaction older than the window is accepted (I-4).
        AcceptTooOld = "accept-too-old",
        /// Resolver: writes are forgotten some time before transactions that read before them are refused (I-4).
        ForgetBeforeRefusing = "forget-before-refusing",
        /// Resolver: writes of refused transactions count for later ones (I-15).
        RefusedWritesCount = "refused-writes-count",
        /// Sequencer: the reports of some commits are forgotten (I-1).
        ForgetReports = "forget-reports",
        /// Sequencer: after a pause versions jump by two windows, so that whoever has just begun is too old.
        VersionsRunAhead = "versions-run-ahead",
        /// Proxy: versions of an idle database stand still, so that a transaction that was left alone reads for ever.
        IdleVersionsStand = "idle-versions-stand",
        /// Log: a push is answered before it is on disk (I-5).
        AnswerBeforeSync = "answer-before-sync",
        /// Log: nothing is seen of a sync until it is over, so that a slow disk is taken for a dead one.
        SyncShowsNothing = "sync-shows-nothing",
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
        /// Controller: a recovery goes on although one copy group has no lock (I-12).
        TooFewLocks = "too-few-locks",
        /// Controller: locks are counted by members, so the loss of a zone with several logs stops the cluster (I-13).
        LocksByMembers = "locks-by-members",
        /// Controller: it is forgotten which processes do not reach each other, so the next attempt takes both again (I-13).
        ForgetUnreachable = "forget-unreachable",
        /// Controller: a healthy generation is ended for a better one whose processes were not asked whether they reach each
        /// other (I-13).
        UnprovedBetter = "unproved-better",
        /// Log: it does not say that its disk is full, and is recruited again (I-13).
        RecruitFullDisk = "recruit-full-disk",
        /// Resolver: a generation begins right behind the last one, and its resolvers take their empty conflict sets for
        /// all that ever was (I-4).
        ForgetPast = "forget-past",
        /// Controller: old log sets are dropped before they are drained (I-11).
        DropUndrainedLogs = "drop-undrained-logs",
        /// Controller: logs are told once that a change of the shard map is known, and not at all if a recovery found it
        /// out (I-11).
        PopMetadataOnce = "pop-metadata-once",
        /// Controllers' group: a vote is not written to disk (I-12).
        ForgetVote = "forget-vote",
        /// Controllers' group: a member stands for election without asking first: one that comes back deposes a good leader.
        StandUnasked = "stand-unasked",
        /// Controllers' group: a candidate that was refused neither gives way nor asks again before its round is over.
        SitOutRound = "sit-out-round",
        /// Controllers' group: a member leads although nobody reaches it at the address that it gives out.
        LeadUnreached = "lead-unreached",
        /// Controllers: one is removed although the others are no majority without it.
        RemoveBlindly = "remove-blindly",
        /// Controllers' group: one that is made to go on alone takes its snapshot only, not the entries after it.
        ForceSnapshotOnly = "force-snapshot-only",
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
        /// Storage: a range read that is to be continued leaves out the key at which it stopped (I-2).
        ContinueSkipsKey = "continue-skips-key",
        /// Storage: a range read downwards is continued as if it went upwards (I-2).
        ContinueIgnoresDirection = "continue-ignores-direction",
        /// Storage: a range read looks at all it wants where it arrives, and others wait for the thread (I-16).
        ScanInPlace = "scan-in-place",
        /// Storage: a range read holds the window's lock while it reads the engine (I-16).
        ScanUnderLock = "scan-under-lock",
        /// Storage: reads of older versions are refused only when the engine has been written, not before (I-2).
        RaiseOldestLate = "raise-oldest-late",
        /// Storage: after a rollback the holdings are still those of versions that are gone (I-3, I-10).
        KeepShardsOfRolledBack = "keep-shards-of-rolled-back",
        /// Storage: a page is written over what an earlier copy has left behind (I-2).
        KeepLeftovers = "keep-leftovers",
        /// Storage: a shard is reported as copied before that is on disk (I-11).
        ReportCopyTooEarly = "report-copy-too-early",
        /// Storage: watches that were compared with versions that are gone are not looked at again.
        ForgetWatchAtRollback = "forget-watch-at-rollback",
        /// Proxy: single keys that are set do not reach servers that are joining their shard (I-2).
        ForgetJoining = "forget-joining",
        /// Storage: reads a little older than the window are answered from the engine (I-2).
        ServePastBorder = "serve-past-border",
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
        /// Client: merged writes are sent with the clears of ranges behind what was written to them (I-2).
        MergedClearsLast = "merged-clears-last",
        /// Client: a watch knows the value without the transaction's own writes.
        WatchBelowWrites = "watch-below-writes",
        /// Layers: an operation acts on what it has read, whatever others of the same transaction have written since.
        ActUnchecked = "act-unchecked",
        /// Client: transactions reuse a read version that was asked for earlier (I-1).
        ReuseReadVersion = "reuse-read-version",
        /// Controllers: only the leader hands out the state of the cluster (I-13).
        OnlyLeaderAnswers = "only-leader-answers",
        /// Client: a proxy that does not answer is waited for, and connected to before others are tried (I-13).
        ClingToProxy = "cling-to-proxy",
        /// Client: a commit without an answer is reported before it can take effect no more (I-6).
        ForgetFence = "forget-fence",
        /// Client: a commit of which nobody knows is sent to another proxy as well (I-6).
        SendElsewhere = "send-elsewhere",
        /// Client: each attempt draws an idempotency id of its own, and what became of the one before is not found out (I-6).
        RedrawId = "redraw-id",
        /// Client: the record of a commit without an answer is looked for while the commit may still be on its way (I-6).
        LookWithoutFence = "look-without-fence",
        /// Client: a commit that was found out later reports the version of the look (I-4).
        FoundAtWrongVersion = "found-at-wrong-version",
        /// Client: what waits does not hear that the timeout of its transaction has changed (I-17).
        DeafToTimeout = "deaf-to-timeout",
        /// Client: a commit does not wait for reads that were begun before it (I-15).
        CommitBeforeReads = "commit-before-reads",
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
        /// A process ended in order.
        EndedInOrder = "ended-in-order",
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
        /// Proxy: two resolvers have found a conflict of the same transaction.
        ConflictsJoined = "proxy-conflicts-joined",
        /// Proxy: the shard map changed with a batch.
        ShardMapChanged = "proxy-shard-map-changed",
        /// Proxy: a read version was confirmed by asking the logs.
        ConfirmedByLogs = "proxy-confirmed-by-logs",
        /// Proxy: it refused work because too much was waiting.
        ProxyTooBusy = "proxy-too-busy",
        /// Proxy: a commit of an ended generation got no result.
        CommitUnknown = "proxy-commit-unknown",
        /// Proxy: it waited for a log or a resolver that was slow.
        WaitedForMember = "proxy-waited-for-member",
        /// Proxy: a connection to a log, a resolver or the sequencer broke, and was made anew.
        MemberReconnected = "proxy-member-reconnected",
        /// Storage: an engine that its full disk had stopped was opened anew.
        EngineReopened = "storage-engine-reopened",
        /// Controller: the call that waits at a member lost its connection.
        WatchBroke = "controller-watch-broke",
        /// Sequencer: a proxy asked again for the version of a batch.
        BegunAgain = "sequencer-begun-again",
        /// Proxy: the queue of a log or a resolver was full.
        MemberTooBusy = "proxy-member-too-busy",
        /// Proxy: a read version was held back, because too many commits waited.
        ReadVersionHeldBack = "proxy-read-version-held-back",
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
        /// Controller: processes for a recovery were asked whether they reach each other, and do.
        Proved = "controller-proved",
        /// Controller: processes for a recovery were asked whether they reach each other, and do not.
        Refuted = "controller-refuted",
        /// Controller: processes for a better generation than a healthy one were asked, and reach each other.
        BetterProved = "controller-better-proved",
        /// Controller: processes for a better generation than a healthy one were asked, and do not reach each other.
        BetterRefuted = "controller-better-refuted",
        /// Controller: a log was not recruited that does not reach the only copy of something.
        SourceUnreached = "controller-source-unreached",
        /// Log: a disk that was full had space again.
        SpaceAgain = "log-space-again",
        /// Controller: records of idempotency ids were swept.
        RecordsSwept = "controller-records-swept",
        /// Controller: it did not count a time in which it stood still itself.
        ControllerStoodStill = "controller-stood-still",
        /// Controllers' group: a candidate was refused because there is a leader that is well.
        CanvassRefused = "raft-canvass-refused",
        /// Controllers' group: a snapshot was installed.
        SnapshotInstalled = "raft-snapshot-installed",
        /// Storage: versions were rolled back.
        RolledBack = "storage-rolled-back",
        /// Storage: a read waited for its version.
        ReadWaited = "storage-read-waited",
        /// Storage: a range read had looked at so much that it was to be continued.
        ReadBudgetSpent = "storage-read-budget-spent",
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
        /// Controller: one that does not lead has told the state of the cluster.
        FollowerToldState = "controller-follower-told-state",
        /// Client: a commit that was not sent has gone to another proxy.
        CommitWentElsewhere = "client-commit-went-elsewhere",
        /// Client: a proxy kept silent over a commit, and could not be reached anew.
        ProxySilent = "client-proxy-silent",
        /// Client: before a commit without an answer returned, it turned out to have happened.
        SettledCommitted = "client-settled-committed",
        /// Client: before a commit without an answer returned, it turned out not to have happened.
        SettledNotCommitted = "client-settled-not-committed",
        /// Client: cached locations were forgotten.
        LocationsForgotten = "client-locations-forgotten",
    }
}

#[cfg(madsim)]
mod switches {
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use super::{Mark, Plant};
    use crate::runtime;

    /// An answer is lost within so many microseconds: on most links that is sometimes before the request arrives.
    const LOST_WITHIN_US: u64 = 4_000;

    static PLANTED: OnceLock<Plant> = OnceLock::new();
    static REACHED: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];

    static ANSWERS_LOST_EVERY: AtomicU64 = AtomicU64::new(0);
    static COMMITS: AtomicU64 = AtomicU64::new(0);

    /// Lets clients lose the answer of every n-th request to commit, for the rest of the process; zero ends that.
    pub fn lose_answers(every: u64) {
        ANSWERS_LOST_EVERY.store(every, Ordering::Relaxed);
    }

    /// A request to commit was made: ends when its answer counts as lost, which is mostly never. The request may have arrived by
    /// then, arrive later, or not at all.
    pub async fn answer_is_lost() {
        let every = ANSWERS_LOST_EVERY.load(Ordering::Relaxed);
        if every == 0 || !COMMITS.fetch_add(1, Ordering::Relaxed).is_multiple_of(every) {
            return std::future::pending().await;
        }
        runtime::sleep(Duration::from_micros(runtime::random_u64() % LOST_WITHIN_US)).await;
    }

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
pub use switches::{answer_is_lost, lose_answers, mark, marks, plant, planted};

/// Whether this bug is switched on: never.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn planted(_plant: Plant) -> bool {
    false
}

/// Lets clients lose answers: not outside of a simulation.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn lose_answers(_every: u64) {}

/// Ends when the answer to a request to commit is lost on purpose: never.
#[cfg(not(madsim))]
#[inline(always)]
pub async fn answer_is_lost() {
    std::future::pending().await
}

/// Notes that a branch was taken: nothing is noted outside of a simulation.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn mark(_mark: Mark) {}
