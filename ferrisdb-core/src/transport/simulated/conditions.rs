//! How links are: what a world sets, and what is drawn from it for each connection and each message.

use std::time::Duration;

use crate::runtime;

/// How one direction of a link is.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConditions {
    /// How long a message takes.
    pub latency: Latency,
    /// What all connections of the link carry in a second together; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// Bytes that may be under way on a connection. Whoever writes more has to wait.
    pub window_bytes: usize,
    /// The share of connections that break after a number of bytes in this direction, mostly within a message.
    pub deaths: f64,
    /// After how many bytes at most.
    pub death_bytes_max: u64,
    /// How often a connection is reset in a second, on average.
    pub resets_per_second: f64,
    /// The share of attempts to connect that get no answer at all.
    pub silent_connects: f64,
    /// The share of connections that the server sees twice: one of the two never says anything, or only its greeting.
    pub ghosts: f64,
}

impl Default for LinkConditions {
    fn default() -> Self {
        LinkConditions {
            latency: Latency::LAN,
            bytes_per_second: None,
            window_bytes: 1024 * 1024,
            deaths: 0.0,
            death_bytes_max: 64 * 1024,
            resets_per_second: 0.0,
            silent_connects: 0.0,
            ghosts: 0.0,
        }
    }
}

/// How long messages take: mostly between two bounds, now and then much longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// The least.
    pub least: Duration,
    /// The most of an ordinary message.
    pub most: Duration,
    /// The share of messages that take ten times as long.
    pub slow: f64,
    /// The share of messages that take a hundred times as long.
    pub very_slow: f64,
    /// What all of it is multiplied by.
    pub factor: f64,
}

impl Latency {
    /// Machines in one room.
    pub const LAN: Latency = Latency::between(100, 1_000);
    /// Machines in one country.
    pub const WAN: Latency = Latency::between(5_000, 40_000);

    /// Between two bounds in microseconds, always.
    pub const fn between(least_us: u64, most_us: u64) -> Latency {
        Latency {
            least: Duration::from_micros(least_us),
            most: Duration::from_micros(most_us),
            slow: 0.0,
            very_slow: 0.0,
            factor: 1.0,
        }
    }

    /// The same with a tail.
    pub const fn with_tail(mut self, slow: f64, very_slow: f64) -> Latency {
        self.slow = slow;
        self.very_slow = very_slow;
        self
    }

    /// How long a message takes.
    pub fn draw(&self) -> Duration {
        let ordinary = self.least + self.most.saturating_sub(self.least).mul_f64(fraction());
        let factor = match fraction() {
            tail if tail < self.very_slow => 100.0,
            tail if tail < self.very_slow + self.slow => 10.0,
            _ => 1.0,
        };
        ordinary.mul_f64(factor * self.factor)
    }
}

impl LinkConditions {
    /// After how many bytes a new connection breaks in this direction, if it does.
    pub(super) fn draw_death(&self) -> Option<u64> {
        happens(self.deaths).then(|| 1 + draw_below(self.death_bytes_max))
    }

    /// When a connection is reset, from now on, if ever: the time between events that happen at a rate.
    pub(super) fn draw_reset(&self) -> Option<Duration> {
        (self.resets_per_second > 0.0).then(|| {
            let seconds = -(1.0 - fraction()).ln() / self.resets_per_second;
            Duration::from_secs_f64(seconds.min(1e6))
        })
    }
}

/// A number of `0.0..1.0`.
pub(super) fn fraction() -> f64 {
    (runtime::random_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Whether something happens that has this chance. Draws nothing where that is not needed.
pub(super) fn happens(chance: f64) -> bool {
    chance > 0.0 && fraction() < chance
}

/// A number below a bound.
pub(super) fn draw_below(bound: u64) -> u64 {
    runtime::random_u64() % bound.max(1)
}
