//! Randomness: one source, which a simulation seeds.

use std::time::Duration;

/// Sixty-four random bits.
#[cfg(not(madsim))]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn random_u64() -> u64 {
    rand::random()
}

/// Sixty-four random bits, from the seed of the simulation.
#[cfg(madsim)]
pub fn random_u64() -> u64 {
    use madsim::rand::Rng as _;
    madsim::rand::thread_rng().r#gen()
}

/// A duration between half of `around` and one and a half of it, so that many waiters spread out.
pub fn jitter(around: Duration) -> Duration {
    // Fifty-three bits make a fraction of 0..1 exactly.
    let fraction = (random_u64() >> 11) as f64 / (1u64 << 53) as f64;
    around.mul_f64(0.5 + fraction)
}
