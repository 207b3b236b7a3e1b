//! How values are spread, in a fixed number of buckets.
//!
//! ```text
//!   value    0 1 2 3 | 4 5 6 7 | 8-9 10-11 12-13 14-15 | 16-19 20-23 24-27 28-31 | 32-39 ...
//!   bucket   0 1 2 3 | 4 5 6 7 |  8    9     10    11  |  12    13    14    15   |  16
//!                      a power of two and what follows it, up to the next, in four equal parts
//! ```
//!
//! A bucket is a quarter of its power of two wide. A quantile is reported as the middle of the bucket that it
//! lies in, so it is wrong by an eighth (12.5 %) at most, and exact below 8; so precise that a stage that takes a
//! third more is seen, and all of `u64` fits into 252 buckets. Sum and maximum are exact.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::MetricValue;
use crate::runtime::{Instant, now};

/// A power of two has `1 << SPLIT_BITS` buckets.
const SPLIT_BITS: u32 = 2;
const SPLIT: usize = 1 << SPLIT_BITS;
/// Every value of a `u64` has a bucket.
const BUCKETS: usize = SPLIT * (64 - SPLIT_BITS as usize + 1);

/// The bucket of a value.
fn bucket_of(value: u64) -> usize {
    let Some(power) = value.checked_ilog2().filter(|power| *power >= SPLIT_BITS) else {
        return value as usize;
    };
    let shift = power - SPLIT_BITS;
    SPLIT * shift as usize + (value >> shift) as usize
}

/// The least value of a bucket.
fn begin_of(bucket: usize) -> u64 {
    if bucket < 2 * SPLIT {
        return bucket as u64;
    }
    let shift = bucket / SPLIT - 1;
    ((SPLIT + bucket % SPLIT) as u64) << shift
}

/// The greatest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket + 1 < BUCKETS { begin_of(bucket + 1) - 1 } else { u64::MAX }
}

/// Counts values by their size: times in nanoseconds, numbers of rows, bytes.
///
/// Recording is a shift and two atomic additions, from any number of threads. See the module for the error of what is
/// read.
///
/// ```
/// use ferrisdb_core::metrics::{Histogram, MetricValue};
/// let rows = Histogram::default();
/// (1..=1_000).for_each(|count| rows.record(count));
/// let reading = rows.reading();
/// assert_eq!((reading.count(), reading.max, reading.mean()), (1_000, 1_000, 500.5));
/// assert!((437..=563).contains(&reading.quantile(0.5)));
/// ```
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Histogram {
    /// Adds a value.
    pub fn record(&self, value: u64) {
        self.buckets[bucket_of(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
        // A look is cheaper than an exchange, which is needed ever more seldom.
        if value > self.max.load(Relaxed) {
            self.max.fetch_max(value, Relaxed);
        }
    }

    /// Adds the size of a collection.
    pub fn record_len(&self, length: usize) {
        self.record(length as u64);
    }

    /// Adds a time, in nanoseconds; one of more than 584 years counts as that.
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the time from `began` until now.
    pub fn record_since(&self, began: Instant) {
        self.record_duration(now().saturating_duration_since(began));
    }

    /// Measures until what is returned is dropped: at the end of a scope, however it is left.
    ///
    /// ```
    /// # use ferrisdb_core::metrics::Histogram;
    /// # let parse = Histogram::default();
    /// {
    ///     let _timing = parse.start();
    ///     "70".parse::<u64>()?;
    /// }
    /// assert_eq!(parse.reading().count(), 1);
    /// # Ok::<(), std::num::ParseIntError>(())
    /// ```
    pub fn start(&self) -> Timing<'_> {
        Timing { histogram: self, began: now() }
    }

    /// Measures how long a future takes, waiting included. One that is dropped before its end is not counted.
    pub async fn time<T>(&self, future: impl Future<Output = T>) -> T {
        let began = now();
        let output = future.await;
        self.record_since(began);
        output
    }

    /// All that was recorded.
    pub fn reading(&self) -> HistogramReading {
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        let buckets = (0u16..).zip(counts).filter(|(_, count)| *count > 0).collect();
        HistogramReading { buckets, sum: self.sum.load(Relaxed), max: self.max.load(Relaxed) }
    }

    /// For a reading.
    pub fn read(&self) -> MetricValue {
        MetricValue::Histogram(self.reading())
    }
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = [const { AtomicU64::new(0) }; BUCKETS];
        Histogram { buckets, sum: AtomicU64::new(0), max: AtomicU64::new(0) }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reading = self.reading();
        write!(f, "Histogram(count {}, max {})", reading.count(), reading.max)
    }
}

/// A time that is being measured; see [`Histogram::start`].
#[derive(Debug)]
#[must_use = "it measures until it is dropped"]
pub struct Timing<'a> {
    histogram: &'a Histogram,
    began: Instant,
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.histogram.record_since(self.began);
    }
}

/// What a histogram said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramReading {
    /// Buckets that are not empty, ascending, with the number of values in each.
    pub buckets: Vec<(u16, u64)>,
    /// The sum of all values; wraps around after 2^64.
    pub sum: u64,
    /// The greatest value, zero if there is none.
    pub max: u64,
}

impl HistogramReading {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |count, (_, in_bucket)| count.saturating_add(*in_bucket))
    }

    /// The mean, zero if there are no values.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / (self.count() as f64).max(1.0)
    }

    /// The value that a share of all values does not exceed, `0.99` for all but one in a hundred; wrong by 12.5 % at
    /// most. Zero if there are no values.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (share.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut below = 0u64;
        for (bucket, count) in &self.buckets {
            below = below.saturating_add(*count);
            if below >= rank {
                let (begin, last) = bounds(*bucket);
                return (begin + (last - begin).div_ceil(2)).min(self.max);
            }
        }
        self.max
    }

    /// How many values are below `limit`. Exact if it is a power of two: no bucket lies across one.
    pub fn count_below(&self, limit: u64) -> u64 {
        let below = self.buckets.iter().filter(|(bucket, _)| bounds(*bucket).1 < limit);
        below.fold(0, |count, (_, in_bucket)| count.saturating_add(*in_bucket))
    }

    /// What came since an earlier reading. Its maximum is known as well as a quantile is.
    #[must_use]
    pub fn since(&self, earlier: &HistogramReading) -> HistogramReading {
        let then = |bucket| {
            let found = earlier.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket);
            found.map_or(0, |index| earlier.buckets[index].1)
        };
        let recent = |(bucket, count): &(u16, u64)| (*bucket, count.saturating_sub(then(*bucket)));
        let buckets: Vec<_> =
            self.buckets.iter().map(recent).filter(|(_, count)| *count > 0).collect();
        let last = buckets.last().map_or(0, |(bucket, _)| bounds(*bucket).1);
        let max = if self.max > earlier.max { self.max } else { last.min(self.max) };
        HistogramReading { buckets, sum: self.sum.wrapping_sub(earlier.sum), max }
    }
}

/// First and last value of a bucket. A number from the wire may be of no bucket at all.
fn bounds(bucket: u16) -> (u64, u64) {
    let bucket = usize::from(bucket).min(BUCKETS - 1);
    (begin_of(bucket), last_of(bucket))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(begin_of(bucket)), bucket);
            assert_eq!(bucket_of(last_of(bucket)), bucket);
        }
        assert_eq!((begin_of(0), last_of(BUCKETS - 1)), (0, u64::MAX));
        assert_eq!((begin_of(8), last_of(8), begin_of(13)), (8, 9, 20));
    }

    #[test]
    fn an_empty_one_says_zero() {
        let empty = Histogram::default().reading();
        assert_eq!((empty.count(), empty.quantile(0.5), empty.max, empty.mean()), (0, 0, 0, 0.0));
        assert_eq!(empty.since(&empty), empty);
    }

    #[test]
    fn a_reading_of_no_known_bucket_is_no_panic() {
        let odd = HistogramReading { buckets: vec![(u16::MAX, 3)], sum: 1, max: 7 };
        assert_eq!((odd.quantile(0.5), odd.count_below(64)), (7, 0));
    }

    #[test]
    fn what_is_timed_is_counted_once() {
        let histogram = Histogram::default();
        drop(histogram.start());
        assert_eq!(histogram.reading().count(), 1);
        let output = futures::executor::block_on(histogram.time(async { 7 }));
        assert_eq!((output, histogram.reading().count()), (7, 2));
    }

    /// Values of all sizes: most numbers of `u64` have sixty digits.
    fn values() -> impl Strategy<Value = Vec<u64>> {
        let value = (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift);
        proptest::collection::vec(value, 1..300)
    }

    fn recorded(values: &[u64]) -> Histogram {
        let histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    proptest! {
        #[test]
        fn quantiles_are_wrong_by_an_eighth_at_most(mut values in values(), share in 0.0..=1.0f64) {
            let reading = recorded(&values).reading();
            values.sort_unstable();
            let rank = (share * values.len() as f64).ceil().max(1.0) as usize;
            let (right, said) = (values[rank - 1], reading.quantile(share));
            prop_assert!(said.abs_diff(right) <= right / 8 + 1, "{said} for {right}");
            prop_assert_eq!(reading.count(), values.len() as u64);
            prop_assert_eq!(Some(reading.max), values.last().copied());
            let sum = values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value));
            prop_assert_eq!(reading.sum, sum);
        }

        #[test]
        fn powers_of_two_are_exact_borders(values in values(), power in 0u32..64) {
            let limit = 1u64 << power;
            let below = values.iter().filter(|value| **value < limit).count() as u64;
            prop_assert_eq!(recorded(&values).reading().count_below(limit), below);
        }

        #[test]
        fn a_difference_is_what_came_between(first in values(), second in values()) {
            let histogram = recorded(&first);
            let earlier = histogram.reading();
            second.iter().for_each(|value| histogram.record(*value));
            let (recent, alone) = (histogram.reading().since(&earlier), recorded(&second).reading());
            prop_assert_eq!(&recent.buckets, &alone.buckets);
            prop_assert_eq!(recent.sum, alone.sum);
            prop_assert!(recent.max >= alone.max && recent.max - alone.max <= alone.max / 4);
        }
    }
}
