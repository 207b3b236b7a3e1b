//! The sequencer: one chain of versions for all batches of a generation.
//!
//! ```text
//!   begin_batch   (20 -> 100000020)     the opening batch: previous is the recovery version
//!   begin_batch   (100000020 -> 100001530)
//!   begin_batch   (100001530 -> 100001531)    versions follow real time, but at least by one
//!   an hour later, or the clock jumped by one
//!   begin_batch   (100001531 -> 110001531)    ... and at most by two windows; the rest of the hour is left out
//! ```
//!
//! Keeps I-7 (no gaps) and its part of I-1: a commit is reported here before its client is answered, and
//! [`Sequencer::committed_version`] is asked after a read's request arrived. Knows nothing of keys.

use std::sync::Arc;

use ferrisdb_core::simulation::{Plant, planted};
use ferrisdb_core::{
    Error, ErrorCode, Generation, Result, Stage, Version, limits, runtime,
    service::sequencer::{BatchVersions, Sequencer as SequencerService},
};
use parking_lot::Mutex;
use tarpc::context::Context;

/// Most versions between two batches. After two windows nothing of before can be read any more, as after an hour; but an
/// hour of versions that never was would not be real time.
const STEP_MAX: u64 = 2 * limits::WINDOW_VERSIONS;

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
}

impl Sequencer {
    /// A sequencer that opens `generation`: the first batch is `(recovery_version, first_version)`.
    pub fn new(generation: Generation, recovery_version: Version, first_version: Version) -> Self {
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
        }
    }

    /// The next link of the chain.
    pub fn begin_batch(&mut self, elapsed_us: u64) -> BatchVersions {
        let versions_elapsed = u128::from(elapsed_us) * u128::from(limits::VERSIONS_PER_SECOND)
            / u128::from(1_000_000u32);
        let versions_elapsed = u64::try_from(versions_elapsed).unwrap_or(u64::MAX);
        let previous_version = self.last_version;
        // The opening batch is at the first version exactly, however late it is asked for.
        let commit_version = if previous_version < self.first_version {
            self.first_version
        } else {
            let versions = versions_elapsed.saturating_sub(self.skipped_versions);
            let by_time = self.first_version.saturating_add(versions);
            let latest = previous_version.saturating_add(STEP_MAX);
            self.skipped_versions =
                self.skipped_versions.saturating_add(by_time.0.saturating_sub(latest.0));
            by_time.min(latest).max(previous_version.next())
        };
        self.last_version = commit_version;
        let known_committed_version = self.committed_version;
        BatchVersions { previous_version, commit_version, known_committed_version }
    }

    /// A batch is on all logs; so are those before it, since each log appends along the chain.
    pub fn report_committed(&mut self, commit_version: Version) {
        assert!(
            commit_version <= self.last_version,
            "version {commit_version} was committed but never given out (I-7)"
        );
        if planted(Plant::ForgetReports) && commit_version.0.is_multiple_of(2) {
            return;
        }
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

    /// What it counts.
    pub fn metrics(&self) -> Arc<SequencerMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl SequencerService for SequencerServer {
    async fn begin_batch(self, _: Context, generation: Generation) -> Result<BatchVersions> {
        self.metrics.batches.increment();
        let elapsed = runtime::now().duration_since(self.began);
        let mut machine = self.machine.lock();
        machine.check_generation(generation)?;
        Ok(machine.begin_batch(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)))
    }

    async fn report_committed(
        self,
        _: Context,
        generation: Generation,
        commit_version: Version,
    ) -> Result<()> {
        self.metrics.reports.increment();
        let mut machine = self.machine.lock();
        machine.check_generation(generation)?;
        machine.report_committed(commit_version);
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

    #[test]
    fn versions_follow_time_and_never_repeat() {
        let mut sequencer = Sequencer::new(Generation(2), Version(20), Version(1_000));
        let chain: Vec<_> = [50, 51, 51, 9, 400]
            .into_iter()
            .map(|elapsed| {
                let BatchVersions { previous_version, commit_version, .. } =
                    sequencer.begin_batch(elapsed);
                (previous_version.0, commit_version.0)
            })
            .collect();
        assert_eq!(
            chain,
            [(20, 1_000), (1_000, 1_051), (1_051, 1_052), (1_052, 1_053), (1_053, 1_400)]
        );
    }

    #[test]
    fn a_clock_that_jumps_moves_versions_by_two_windows_once() {
        const HOUR_US: u64 = 3_600_000_000;
        let mut sequencer = Sequencer::new(Generation(2), Version(20), Version(1_000));
        let mut next = |elapsed| sequencer.begin_batch(elapsed).commit_version.0;
        assert_eq!(next(50), 1_000);
        assert_eq!(next(100), 1_100);
        assert_eq!(next(HOUR_US), 1_100 + STEP_MAX);
        assert_eq!(next(HOUR_US + 7), 1_107 + STEP_MAX);
        assert_eq!(next(3 * HOUR_US), 1_107 + 2 * STEP_MAX);
        assert_eq!(next(3 * HOUR_US), 1_108 + 2 * STEP_MAX);
        assert_eq!(next(u64::MAX), 1_108 + 3 * STEP_MAX);
    }

    #[test]
    fn the_committed_version_never_goes_back() {
        let mut sequencer = Sequencer::new(Generation(1), Version(0), Version(100));
        assert_eq!(sequencer.committed_version(), Version(0));
        let first = sequencer.begin_batch(0).commit_version;
        let second = sequencer.begin_batch(0).commit_version;
        sequencer.report_committed(second);
        sequencer.report_committed(first);
        assert_eq!(sequencer.committed_version(), second);
    }

    #[test]
    #[should_panic(expected = "never given out (I-7)")]
    fn a_version_from_nowhere_is_a_broken_invariant() {
        Sequencer::new(Generation(1), Version(0), Version(100)).report_committed(Version(100));
    }

    #[test]
    fn another_generation_is_refused() {
        let sequencer = Sequencer::new(Generation(2), Version(0), Version(100));
        assert!(sequencer.check_generation(Generation(2)).is_ok());
        for other in [1, 3] {
            let error = sequencer.check_generation(Generation(other)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::GenerationEnded);
        }
    }
}
