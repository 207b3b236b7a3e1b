//! What is counted during a run. One tally is shared by all clients.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use ferrisdb_client::ErrorCode;
use ferrisdb_core::runtime::Instant;
use hdrhistogram::Histogram;

use crate::schedule::Window;

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// What one operation did, for the rates.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// How many operations it counts for: one, but for those that do several things at once.
    pub(crate) operations: u64,
    /// Rows that were read.
    pub(crate) reads: u64,
    /// Rows that were written.
    pub(crate) writes: u64,
}

impl Work {
    /// One operation with so many rows read and written.
    pub(crate) fn rows(reads: u64, writes: u64) -> Work {
        Work { operations: 1, reads, writes }
    }
}

/// Latencies, in nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Result<Latencies> {
        Ok(Latencies(Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3)?))
    }

    fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The latency that this share of all operations did not exceed.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }

    /// The greatest one.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }
}

/// What happened since it was last asked for.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    /// Operations that ended.
    pub(crate) operations: u64,
    /// Their latencies, however long ago they began.
    pub(crate) latencies: Latencies,
    /// Attempts that lost against another transaction.
    pub(crate) conflicts: u64,
    /// Operations that were given up.
    pub(crate) failed: u64,
}

impl Recent {
    fn new() -> Result<Recent> {
        Ok(Recent { operations: 0, latencies: Latencies::new()?, conflicts: 0, failed: 0 })
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Tally {
    window: Window,
    /// What ended within the window.
    pub(crate) done: Work,
    /// Bytes of keys and values that were written within the window.
    pub(crate) written_bytes: u64,
    /// Of operations that began (or were due) within the window.
    pub(crate) latencies: Latencies,
    /// Of parts of operations, by name.
    pub(crate) stages: BTreeMap<&'static str, Latencies>,
    /// Attempts that lost against another transaction.
    pub(crate) conflicts: u64,
    /// Attempts that were made again, conflicts included.
    pub(crate) retries: u64,
    /// Errors that ended an attempt, by code, conflicts left out.
    pub(crate) errors: BTreeMap<ErrorCode, u64>,
    /// Operations that were given up after an error.
    pub(crate) failed: u64,
    /// All operations of the run that succeeded, warm-up included: what checks at the end compare with.
    pub(crate) all: Work,
    /// All operations of the run of which nobody knows whether they took effect.
    pub(crate) unknown: u64,
    /// Reads that found nothing where there must be a row.
    pub(crate) missing: u64,
    /// Since the last interval, of a run that tells of its intervals.
    recent: Option<Recent>,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    ///
    /// None but for a defect: the bounds of the histogram are constants.
    pub(crate) fn new(window: Window) -> Result<Tally> {
        Ok(Tally {
            window,
            done: Work::default(),
            written_bytes: 0,
            latencies: Latencies::new()?,
            stages: BTreeMap::new(),
            conflicts: 0,
            retries: 0,
            errors: BTreeMap::new(),
            failed: 0,
            all: Work::default(),
            unknown: 0,
            missing: 0,
            recent: None,
        })
    }

    /// What happened since the last call, the warm-up included. The first call begins with counting it, and returns nothing.
    ///
    /// # Errors
    ///
    /// None but for a defect, as of [`Tally::new`].
    pub(crate) fn take_recent(&mut self) -> Result<Option<Recent>> {
        Ok(self.recent.replace(Recent::new()?))
    }

    /// An operation has succeeded; `since` is when it began, or was due.
    pub(crate) fn operation(&mut self, since: Instant, now: Instant, work: Work, row_bytes: usize) {
        add(&mut self.all, work);
        if self.window.contains(now) {
            add(&mut self.done, work);
            self.written_bytes += work.writes * row_bytes as u64;
        }
        if self.window.contains(since) {
            self.latencies.record(now - since);
        }
        if let Some(recent) = &mut self.recent {
            recent.operations += work.operations;
            recent.latencies.record(now - since);
        }
    }

    /// A part of an operation has ended.
    pub(crate) fn stage(&mut self, name: &'static str, since: Instant, now: Instant) {
        if !self.window.contains(since) {
            return;
        }
        match self.stages.get_mut(name) {
            Some(latencies) => latencies.record(now - since),
            None => {
                if let Ok(mut latencies) = Latencies::new() {
                    latencies.record(now - since);
                    self.stages.insert(name, latencies);
                }
            }
        }
    }

    /// An attempt has ended with an error.
    pub(crate) fn attempt_failed(&mut self, code: ErrorCode, now: Instant) {
        if let Some(recent) = &mut self.recent {
            recent.conflicts += u64::from(code == ErrorCode::NotCommitted);
        }
        if !self.window.contains(now) {
            return;
        }
        if code == ErrorCode::NotCommitted {
            self.conflicts += 1;
        } else {
            *self.errors.entry(code).or_default() += 1;
        }
    }

    /// An operation was given up.
    pub(crate) fn operation_failed(&mut self, is_maybe_committed: bool, now: Instant) {
        self.unknown += u64::from(is_maybe_committed);
        self.failed += u64::from(self.window.contains(now));
        if let Some(recent) = &mut self.recent {
            recent.failed += 1;
        }
    }

    /// An attempt is made again.
    pub(crate) fn retried(&mut self, now: Instant) {
        self.retries += u64::from(self.window.contains(now));
    }
}

fn add(sum: &mut Work, work: Work) {
    sum.operations += work.operations;
    sum.reads += work.reads;
    sum.writes += work.writes;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_of_the_window_counts_for_checks_only() {
        let ms = Duration::from_millis;
        let window = Window::new(ms(100), ms(100));
        let mut tally = Tally::new(window).unwrap();
        let at = |millis| window.begin + ms(millis);
        tally.operation(at(10), at(20), Work::rows(1, 1), 116);
        assert_eq!((tally.all.operations, tally.done.operations), (1, 0));
        // Begun in the warm-up, ended in the window: it counts, its latency does not.
        tally.operation(at(90), at(110), Work::rows(1, 1), 116);
        assert_eq!((tally.done.operations, tally.latencies.count()), (1, 0));
        tally.operation(at(120), at(130), Work::rows(0, 2), 116);
        assert_eq!(tally.written_bytes, 3 * 116);
        // Slow to the end and past it: the latency is not forgotten.
        tally.operation(at(199), at(1_199), Work::rows(1, 1), 116);
        assert_eq!((tally.all.operations, tally.done.operations), (4, 2));
        assert_eq!(tally.latencies.count(), 2);
        let longest = tally.latencies.quantile(1.0).as_secs_f64();
        assert!((longest - 1.0).abs() < 0.01, "{longest}");
    }

    #[test]
    fn what_is_recent_is_forgotten_once_it_was_told() {
        let window = Window::new(Duration::ZERO, Duration::from_secs(9));
        let mut tally = Tally::new(window).unwrap();
        let one = |tally: &mut Tally| {
            tally.operation(window.begin, window.begin, Work::rows(1, 0), 116);
            tally.attempt_failed(ErrorCode::NotCommitted, window.begin);
        };
        one(&mut tally);
        assert!(tally.take_recent().unwrap().is_none());
        for count in [2, 0, 1] {
            (0..count).for_each(|_| one(&mut tally));
            let recent = tally.take_recent().unwrap().unwrap();
            assert_eq!((recent.operations, recent.latencies.count()), (count, count));
            assert_eq!(recent.conflicts, count);
        }
        assert_eq!((tally.done.operations, tally.conflicts), (4, 4));
    }

    #[test]
    fn conflicts_are_no_errors() {
        let window = Window::new(Duration::ZERO, Duration::from_secs(9));
        let mut tally = Tally::new(window).unwrap();
        for code in [ErrorCode::NotCommitted, ErrorCode::TimedOut, ErrorCode::NotCommitted] {
            tally.attempt_failed(code, window.begin);
        }
        assert_eq!(tally.conflicts, 2);
        assert_eq!(tally.errors, BTreeMap::from([(ErrorCode::TimedOut, 1)]));
    }
}
