//! How fast a disk is, and how large.

use std::time::Duration;

use super::chance;

/// How long an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// It never takes less.
    pub least: Duration,
    /// It takes up to this, as a rule.
    pub usual: Duration,
    /// Once in so many operations it takes longer; never, if this is zero.
    pub slow_one_in: u32,
    /// Up to this.
    pub slow: Duration,
}

impl Latency {
    /// No time at all.
    pub const NONE: Latency = Latency {
        least: Duration::ZERO,
        usual: Duration::ZERO,
        slow_one_in: 0,
        slow: Duration::ZERO,
    };

    const fn micros(least: u64, usual: u64, slow_one_in: u32, slow: u64) -> Latency {
        let (least, usual) = (Duration::from_micros(least), Duration::from_micros(usual));
        Latency { least, usual, slow_one_in, slow: Duration::from_micros(slow) }
    }

    /// The time of one operation.
    pub(super) fn draw(&self) -> Duration {
        if *self == Latency::NONE {
            return Duration::ZERO;
        }
        let is_slow = self.slow_one_in > 0 && chance::below(self.slow_one_in as usize) == 0;
        let most = if is_slow { self.slow } else { self.usual };
        self.least + most.saturating_sub(self.least).mul_f64(chance::fraction())
    }
}

/// What kind of disk it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskProfile {
    /// Of reads.
    pub read: Latency,
    /// Of writes into the cache, and of changes of names.
    pub write: Latency,
    /// Of syncs.
    pub sync: Latency,
    /// Bytes that fit on it; `None` for more than anybody writes.
    pub capacity_bytes: Option<u64>,
}

impl DiskProfile {
    /// Takes no time.
    pub fn instant() -> DiskProfile {
        let none = Latency::NONE;
        DiskProfile { read: none, write: none, sync: none, capacity_bytes: None }
    }

    /// A good drive: a tenth of a millisecond to one, and now and then some more.
    pub fn fast() -> DiskProfile {
        DiskProfile {
            read: Latency::micros(50, 200, 500, 5_000),
            write: Latency::micros(5, 50, 1_000, 5_000),
            sync: Latency::micros(100, 1_000, 200, 20_000),
            capacity_bytes: None,
        }
    }

    /// A drive that shares its machine, or turns: several milliseconds, and a long tail.
    pub fn slow() -> DiskProfile {
        DiskProfile {
            read: Latency::micros(500, 5_000, 100, 50_000),
            write: Latency::micros(20, 500, 200, 50_000),
            sync: Latency::micros(2_000, 12_000, 50, 150_000),
            capacity_bytes: None,
        }
    }

    /// A disk as machines have them: mostly fast, one in ten slow.
    pub fn draw() -> DiskProfile {
        if chance::below(10) == 0 { DiskProfile::slow() } else { DiskProfile::fast() }
    }
}

impl Default for DiskProfile {
    fn default() -> DiskProfile {
        DiskProfile::fast()
    }
}
