//! What the seed decides.

use std::time::Duration;

use ferrisdb_core::runtime;

/// The shortest time that a timer of the simulation measures.
const TICK: Duration = Duration::from_millis(1);

/// A number below `bound`, or zero if that is zero.
pub(super) fn below(bound: usize) -> usize {
    if bound == 0 { 0 } else { (runtime::random_u64() % bound as u64) as usize }
}

/// A fraction of 0..1.
pub(super) fn fraction() -> f64 {
    (runtime::random_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Whether something happens that has this probability. Draws nothing for what is certain.
pub(super) fn happens(probability: f64) -> bool {
    probability > 0.0 && (probability >= 1.0 || fraction() < probability)
}

/// Waits. Less than a timer can measure is rounded up or down, by chance, so that it is right on average.
pub(super) async fn wait(time: Duration) {
    if time >= TICK {
        runtime::sleep(time).await;
    } else if happens(time.as_secs_f64() / TICK.as_secs_f64()) {
        runtime::sleep(TICK).await;
    }
}
