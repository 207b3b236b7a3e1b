//! The sequencer: one chain of versions for all batches of a generation.
//!
//! ```text
//!   begin_batch   (20 -> 100000020)     the opening batch: previous is the recovery version
//!   begin_batch   (100000020 -> 100001530)
//!   begin_batch   (100001530 -> 100001531)    versions follow real time, but at least by one
//!   report_committed   100001531
//!   an hour later, or the clock jumped by one, or the logs were slow
//!   begin_batch   (100001531 -> 101501531)    ... and are at most so far ahead of the newest committed one;
//!                                             the rest of the hour is left out
//! ```
//!
//! The last rule is what a transaction's life rests on. It reads at a committed version r, and whatever is given out
//! from then on is at most `r + ahead + the time since then`: so resolvers and storage servers, which measure their windows
//! in versions, keep r for a window less `ahead` at least, however long nothing was committed before, however many
//! batches wait for slow logs, and whatever the clock did. An idle database keeps up with time by empty batches.
//!
//! Keeps I-7 (no gaps) and its part of I-1: a commit is reported here before its client is answered, and
//! [`Sequencer::committed_version`] is asked after a read's request arrived. Knows nothing of keys.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Generation, Result, Stage, Version, limits, runtime,
    service::sequencer::{BatchVersions, Sequencer as SequencerService},
};
use parking_lot::Mutex;
use tarpc::context::Context;

/// The machine. Time arrives as the microseconds since the generation began.
#[derive(Debug)]
pub struct Sequencer {
    generation: Generation,
    first_version: Version,
    /// The version given out last.
    last_version: Version,
    /// Versions that time would have given, and that were left out.
    skipped_versions: u64,
    committed_version: Version,
    /// How far versions may be ahead of the committed one.
    ahead_max: u64,
    /// What was given out lately, by the number of the batch.
    begun: BTreeMap<u64, BatchVersions>,
    /// The same in the order in which it was given out.
    begun_order: VecDeque<u64>,
}

/// So many batches are remembered. One whose answer was lost holds up all that come after it, and each proxy begins few of those.
const BEGUN_MAX: usize = 4_096;

impl Sequencer {
    /// A sequencer that opens `generation`: the first batch is `(recovery_version, first_version)`.
    pub fn new(
        generation: Generation,
        recovery_version: Version,
        first_version: Version,
        ahead_max: u64,
    ) -> Self {
        assert!(
            recovery_version < first_version,
            "the generation would begin at {first_version}, before {recovery_version} (I-7)"
        );
        Sequencer {
            generation,
            first_version,
            last_version: recovery_version,
            skipped_versions: 0,
            committed_version: recovery_version,
            ahead_max: match planted(Plant::VersionsRunAhead) {
                true => 2 * limits::WINDOW_VERSIONS,
                false => ahead_max,
            },
            begun: BTreeMap::new(),
            begun_order: VecDeque::new(),
        }
    }

    /// The link of a proxy's batch: the next one, or the same as before if the proxy asks again, because the answer was lost with
    /// its connection.
    pub fn begin_batch_of(&mut self, batch: u64, elapsed_us: u64) -> BatchVersions {
        if let Some(versions) = self.begun.get(&batch)
            && !planted(Plant::ForgetBegun)
        {
            mark(Mark::BegunAgain);
            return *versions;
        }
        let versions = self.begin_batch(elapsed_us);
        self.begun.insert(batch, versions);
        self.begun_order.push_back(batch);
        if self.begun_order.len() > BEGUN_MAX
            && let Some(oldest) = self.begun_order.pop_front()
        {
            self.begun.remove(&oldest);
        }
        versions
    }

    /// The next link of the chain.
    pub fn begin_batch(&mut self, elapsed_us: u64) -> BatchVersions {
        let previous_version = self.last_version;
        // The opening batch is at the first version exactly, however late it is asked for.
        let commit_version = if previous_version < self.first_version {
            self.first_version
        } else {
            self.clock(elapsed_us).max(previous_version.next())
        };
        self.last_version = commit_version;
        let known_committed_version = self.committed_version;
        BatchVersions { previous_version, commit_version, known_committed_version }
    }

    /// The version that it is time for. It stands still while it is as far ahead as it may be; what it misses is left out.
    fn clock(&mut self, elapsed_us: u64) -> Version {
        let versions_elapsed = u128::from(elapsed_us) * u128::from(limits::VERSIONS_PER_SECOND)
            / u128::from(1_000_000u32);
        let versions_elapsed = u64::try_from(versions_elapsed).unwrap_or(u64::MAX);
        let versions = versions_elapsed.saturating_sub(self.skipped_versions);
        let by_time = self.first_version.saturating_add(versions);
        // Nobody reads before the opening batch is committed.
        let base = self.committed_version.max(self.first_version);
        let latest = base.saturating_add(self.ahead_max);
        self.skipped_versions =
            self.skipped_versions.saturating_add(by_time.0.saturating_sub(latest.0));
        by_time.min(latest)
    }

    /// A batch is on all logs; so are those before it, since each log appends along the chain.
    pub fn report_committed(&mut self, commit_version: Version, elapsed_us: u64) {
        assert!(
            commit_version <= self.last_version,
            "version {commit_version} was committed but never given out (I-7)"
        );
        if planted(Plant::ForgetReports) && commit_version.0.is_multiple_of(2) {
            return;
        }
        // Until now the clock had to stay near the version before.
        self.clock(elapsed_us);
        self.committed_version = self.committed_version.max(commit_version);
    }

    /// The newest committed version.
    pub fn committed_version(&self) -> Version {
        self.committed_version
    }

    fn check_generation(&self, generation: Generation) -> Result<()> {
        if generation == self.generation {
            return Ok(());
        }
        let detail = format!("this is generation {}, not {generation}", self.generation);
        Err(Error::new(ErrorCode::GenerationEnded, Stage::Sequence, detail))
    }
}

ferrisdb_core::role_metrics! {
    /// What a sequencer counts.
    pub struct SequencerMetrics of "sequencer" {
        /// Batches that were given their versions.
        batches: Counter(Count),
        /// Batches that were reported committed.
        reports: Counter(Count),
        /// Times that the newest committed version was asked for: rounds of read versions.
        read_rounds: Counter(Count),
    }
}

/// The shell: a lock and a clock around the machine.
#[derive(Clone, Debug)]
pub struct SequencerServer {
    machine: Arc<Mutex<Sequencer>>,
    began: runtime::Instant,
    metrics: Arc<SequencerMetrics>,
}

impl SequencerServer {
    /// Serves `machine`, whose generation begins now.
    pub fn new(machine: Sequencer) -> Self {
        let (machine, metrics) = (Arc::new(Mutex::new(machine)), Arc::default());
        SequencerServer { machine, began: runtime::now(), metrics }
    }

    fn elapsed_us(&self) -> u64 {
        let elapsed = runtime::now().saturating_duration_since(self.began);
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<SequencerMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl SequencerService for SequencerServer {
    async fn begin_batch(
        self,
        _: Context,
        generation: Generation,
        batch: u64,
    ) -> Result<BatchVersions> {
        self.metrics.batches.increment();
        let elapsed_us = self.elapsed_us();
        let mut machine = self.machine.lock();
        machine.check_generation(generation)?;
        Ok(machine.begin_batch_of(batch, elapsed_us))
    }

    async fn report_committed(
        self,
        _: Context,
        generation: Generation,
        commit_version: Version,
    ) -> Result<()> {
        self.metrics.reports.increment();
        let elapsed_us = self.elapsed_us();
        let mut machine = self.machine.lock();
        machine.check_generation(generation)?;
        machine.report_committed(commit_version, elapsed_us);
        Ok(())
    }

    async fn committed_version(self, _: Context, generation: Generation) -> Result<Version> {
        self.metrics.read_rounds.increment();
        let machine = self.machine.lock();
        machine.check_generation(generation)?;
        Ok(machine.committed_version())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: u64 = 1_000_000;

    fn sequencer(recovery_version: Version, first_version: Version) -> Sequencer {
        Sequencer::new(Generation(2), recovery_version, first_version, AHEAD)
    }

    #[test]
    fn versions_follow_time_and_never_repeat() {
        let mut sequencer = sequencer(Version(20), Version(1_000));
        let chain: Vec<_> = [50, 51, 51, 9, 400]
            .into_iter()
            .map(|elapsed| {
                let BatchVersions { previous_version, commit_version, .. } =
                    sequencer.begin_batch(elapsed);
                sequencer.report_committed(commit_version, elapsed);
                (previous_version.0, commit_version.0)
            })
            .collect();
        assert_eq!(
            chain,
            [(20, 1_000), (1_000, 1_051), (1_051, 1_052), (1_052, 1_053), (1_053, 1_400)]
        );
    }

    #[test]
    fn versions_stay_near_the_committed_one_whatever_the_clock_does() {
        const HOUR_US: u64 = 3_600_000_000;
        let mut sequencer = sequencer(Version(20), Version(1_000));
        let mut next = |elapsed, is_committed| {
            let version = sequencer.begin_batch(elapsed).commit_version;
            if is_committed {
                sequencer.report_committed(version, elapsed);
            }
            version.0
        };
        assert_eq!(next(50, true), 1_000);
        assert_eq!(next(100, true), 1_100);
        // An hour without a commit counts as much as may be ahead, and time goes on from there.
        assert_eq!(next(HOUR_US, true), 1_100 + AHEAD);
        assert_eq!(next(HOUR_US + 7, false), 1_107 + AHEAD);
        // The logs are slow: what was given out is not committed.
        assert_eq!(next(HOUR_US + AHEAD, false), 1_100 + 2 * AHEAD);
        assert_eq!(next(2 * HOUR_US, false), 1_101 + 2 * AHEAD);
        assert_eq!(next(3 * HOUR_US, true), 1_102 + 2 * AHEAD);
        assert_eq!(next(3 * HOUR_US + 5, true), 1_105 + 2 * AHEAD);
        assert_eq!(next(u64::MAX, true), 1_105 + 3 * AHEAD);
    }

    proptest::proptest! {
        /// What resolvers and storage servers rely on: a read version that is handed out now is overtaken as fast as time
        /// passes, and by no more than `AHEAD` besides.
        #[test]
        fn a_read_version_is_overtaken_no_faster_than_time_passes(
            steps in proptest::collection::vec((0u64..3 * AHEAD, 0usize..4), 1..60),
        ) {
            let mut sequencer = sequencer(Version(20), Version(1_000));
            let first = sequencer.begin_batch(0).commit_version;
            sequencer.report_committed(first, 0);
            let (mut now, mut batches, mut in_flight) = (0, 0, std::collections::VecDeque::new());
            let mut read = Vec::new();
            for (passed, committed) in steps {
                now += passed;
                read.push((sequencer.committed_version().0, now));
                let given = sequencer.begin_batch(now);
                // Batches of the same time differ by one nevertheless.
                batches += 1;
                in_flight.push_back(given.commit_version);
                for (read_version, at) in &read {
                    let most = read_version + AHEAD + (now - at) + batches;
                    proptest::prop_assert!(given.commit_version.0 <= most);
                }
                for version in in_flight.drain(..committed.min(in_flight.len())) {
                    sequencer.report_committed(version, now);
                }
            }
        }
    }

    #[test]
    fn who_asks_again_leaves_no_gap() {
        let mut sequencer = sequencer(Version(20), Version(1_000));
        let mut ask = |batch, elapsed| {
            let versions = sequencer.begin_batch_of(batch, elapsed);
            (versions.previous_version.0, versions.commit_version.0)
        };
        assert_eq!(ask(7, 0), (20, 1_000));
        assert_eq!(ask(90, 50), (1_000, 1_050));
        assert_eq!(ask(8, 60), (1_050, 1_060));
        assert_eq!(ask(90, 70), (1_000, 1_050), "the answer was lost");
        assert_eq!(ask(91, 80), (1_060, 1_080));
        // What is remembered is bounded.
        let mut previous = 1_080;
        for batch in 92..10_000 {
            let versions = ask(batch, 80);
            assert_eq!(versions.0, previous);
            previous = versions.1;
        }
        assert_eq!(ask(9_999, 90).1, previous);
        assert_eq!(sequencer.begun.len(), BEGUN_MAX);
    }

    #[test]
    fn the_committed_version_never_goes_back() {
        let mut sequencer = sequencer(Version(0), Version(100));
        assert_eq!(sequencer.committed_version(), Version(0));
        let first = sequencer.begin_batch(0).commit_version;
        let second = sequencer.begin_batch(0).commit_version;
        sequencer.report_committed(second, 0);
        sequencer.report_committed(first, 0);
        assert_eq!(sequencer.committed_version(), second);
    }

    #[test]
    #[should_panic(expected = "never given out (I-7)")]
    fn a_version_from_nowhere_is_a_broken_invariant() {
        sequencer(Version(0), Version(100)).report_committed(Version(100), 0);
    }

    #[test]
    fn another_generation_is_refused() {
        let sequencer = sequencer(Version(0), Version(100));
        assert!(sequencer.check_generation(Generation(2)).is_ok());
        for other in [1, 3] {
            let error = sequencer.check_generation(Generation(other)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::GenerationEnded);
        }
    }
}
