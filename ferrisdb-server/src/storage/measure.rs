//! How large a range is: counted if that is little work, otherwise estimated by the engine's sample.
//!
//! ```text
//!   range       a ................................. z
//!   sample         d 256k     k 256k   m 256k    t 300k        about 1.1 MB: less than what is counted
//!   counted     a ......... k                                  0.4 MB when the budget is spent: the rest is another request
//! ```
//!
//! What is counted is exact at the request's version. A sample is as of the engine's, and the more exact, the larger
//! the range is: of four megabytes it is wrong by a quarter, of a hundred by a twentieth.

use ferrisdb_core::{
    Key, limits,
    service::storage::{Measure, Measured, Row},
};

use super::{
    engine::Engine,
    read::{Scan, Sink, Taken},
};

/// Ranges that have less than this are counted, by requests of about so many bytes.
const COUNTED_BYTES_MAX: u64 = limits::RANGE_BYTES_MAX as u64;
/// Chunks of less than this are counted: the sample does not know where they end.
const SAMPLED_CHUNK_BYTES_MIN: u64 = 1 << 20;
/// Most split points of one answer.
const SPLIT_POINTS_MAX: usize = 10_000;
/// How many keys of the sample are looked at in one step.
const SAMPLE_KEYS_AT_ONCE: usize = 4_096;

/// Estimates a range, if that is good enough for it.
pub(super) fn by_sample(engine: &dyn Engine, request: &Measure) -> Option<Measured> {
    if request.chunk_bytes > 0 && request.chunk_bytes < SAMPLED_CHUNK_BYTES_MIN {
        return None;
    }
    let mut counter = Counter::new(request);
    let mut rest = request.range.clone();
    while !rest.is_empty() {
        let sample = engine.sample(&rest, SAMPLE_KEYS_AT_ONCE);
        let is_last = sample.len() < SAMPLE_KEYS_AT_ONCE;
        for (key, bytes) in sample {
            if counter.split_points.len() == SPLIT_POINTS_MAX {
                return Some(counter.measured(key));
            }
            counter.count(&key, bytes);
            rest.begin = key.successor();
        }
        if is_last {
            break;
        }
    }
    (counter.bytes >= COUNTED_BYTES_MAX).then(|| counter.measured(request.range.end.clone()))
}

/// The walk that counts the rows of a range, or of its lower end.
pub(super) fn scan(request: &Measure) -> Scan<Counter> {
    Scan::new(request.range.clone(), request.read_version, false, Counter::new(request))
}

/// What a walk has counted.
pub(super) fn measured(scan: Scan<Counter>) -> Measured {
    let (rest, counter) = scan.into_parts();
    counter.measured(rest.begin)
}

/// Counts rows.
#[derive(Debug)]
pub(super) struct Counter {
    chunk_bytes: u64,
    bytes: u64,
    has_passed: u64,
    split_points: Vec<Key>,
    last: Option<Key>,
}

impl Counter {
    fn new(request: &Measure) -> Counter {
        Counter {
            chunk_bytes: request.chunk_bytes,
            bytes: 0,
            has_passed: request.has_passed,
            split_points: Vec::new(),
            last: None,
        }
    }

    /// Counts so many bytes that lie at a key.
    fn count(&mut self, key: &Key, bytes: u64) {
        // A row belongs to the chunk in which it begins. That may be the first row of the request, if what has passed came
        // before it.
        if self.chunk_bytes > 0 && self.has_passed >= self.chunk_bytes {
            self.split_points.push(key.clone());
            self.has_passed = 0;
        }
        self.bytes += bytes;
        self.has_passed += bytes;
    }

    fn measured(self, through: Key) -> Measured {
        let Counter { bytes, has_passed, split_points, .. } = self;
        Measured { bytes, through, split_points, has_passed }
    }
}

impl Sink for Counter {
    fn wants(&self) -> (usize, usize) {
        (usize::MAX, usize::MAX)
    }

    fn take(&mut self, row: Row) -> Taken {
        if self.bytes >= COUNTED_BYTES_MAX || self.split_points.len() == SPLIT_POINTS_MAX {
            return Taken::Refused(row);
        }
        self.count(&row.key, (row.key.len() + row.value.len()) as u64);
        self.last = Some(row.key);
        Taken::Wants
    }

    fn last(&self) -> Option<&Key> {
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{KeyRange, Version};

    use super::*;
    use crate::storage::engine::{EngineBatch, EngineChange, memory::MemoryStorage};

    #[test]
    fn a_large_range_is_estimated_and_cut_by_the_sample() {
        let engine = MemoryStorage::new().open();
        let row = |number: u32| {
            let (key, value) = (format!("{number:04}").into(), vec![0; 9_996].into());
            EngineChange::Set(Row { key, value, commit_version: Version(1) })
        };
        let changes = (0..1_000).map(row).collect();
        engine.write(&EngineBatch { version: Version(1), changes, attachment: None }).unwrap();
        let request = |end: &str, chunk_bytes| Measure {
            range: KeyRange::new("0000", end),
            read_version: Version(1),
            chunk_bytes,
            has_passed: 0,
        };
        let measured = by_sample(&engine, &request("1000", 0)).unwrap();
        assert_eq!((measured.bytes, measured.through), (10_000_000, "1000".into()));
        assert_eq!(by_sample(&engine, &request("0100", 0)), None, "a megabyte is counted");
        let measured = by_sample(&engine, &request("1000", 2_500_000)).unwrap();
        assert_eq!(measured.split_points, ["0250".into(), "0500".into(), "0750".into()]);
        assert_eq!(by_sample(&engine, &request("1000", 25_000)), None, "so small chunks, too");
    }
}
