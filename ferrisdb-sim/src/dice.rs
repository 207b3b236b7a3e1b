//! Draws that depend on the seed alone, not on what happens in the run.
//!
//! A run's plan (the cluster's shape, its settings, its faults) comes from here, so that it stays the same when a
//! fault is left out, or when the code under test draws more or fewer numbers than it did. SplitMix64, by
//! Steele, Lea and Flood: "Fast splittable pseudorandom number generators", 2014.

use std::time::Duration;

/// A stream of draws.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The stream of a seed for a purpose: streams for different purposes have nothing to do with each other.
    pub fn new(seed: u64, purpose: &str) -> Dice {
        let mut dice = Dice(seed);
        let mixed = purpose.bytes().fold(dice.bits(), |mixed, byte| {
            (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Dice(mixed)
    }

    /// Sixty-four bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// One of several, which are not none.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// Yes, once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A duration between two others.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.between(low.as_micros() as u64, high.as_micros() as u64))
    }

    /// A number whose order of magnitude is drawn, from `low` to `high`: small ones as often as large ones.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let doublings = (high / low).max(1).ilog2();
        let scale = low << self.below(u64::from(doublings) + 1);
        self.between(scale.min(high), (2 * scale).min(high).max(scale.min(high)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_seed_and_purpose_alone() {
        let draws = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            [dice.bits(), dice.bits(), dice.below(10)]
        };
        assert_eq!(draws(1, "faults"), draws(1, "faults"));
        assert_ne!(draws(1, "faults"), draws(2, "faults"));
        assert_ne!(draws(1, "faults"), draws(1, "settings"));
    }

    #[test]
    fn magnitudes_keep_their_bounds_and_reach_both_ends() {
        let mut dice = Dice::new(3, "magnitudes");
        let drawn: Vec<u64> = (0..1_000).map(|_| dice.magnitude(4, 1_000)).collect();
        assert!(drawn.iter().all(|number| (4..=1_000).contains(number)), "{drawn:?}");
        assert!(drawn.iter().any(|number| *number < 8) && drawn.iter().any(|number| *number > 500));
    }
}
