//! How much a log syncs at once, and what those who wait for it see of that.
//!
//! ```text
//!   a group   [ piece ][ piece ][ piece ]     each is written and synced by itself
//!   progress   ////////////////// . . . .     what is synced, and what even the slowest disk must have done of the piece
//! ```
//!
//! Nothing can be seen of a sync until it is over, and a disk may become slow between two of them: a piece that took a
//! millisecond takes ten seconds. So pieces have a bound, and while one is under way the slowest disk that is worth waiting
//! for is the measure. Only a disk that is slower than that stands still.

use std::time::Duration;

use ferrisdb_core::{
    runtime::Instant,
    simulation::{Plant, planted},
};
use parking_lot::Mutex;

/// Bytes that are synced at once. A quick disk gets larger pieces, a slow one smaller ones.
const PIECE_BYTES_FIRST: usize = 256 * 1024;
const PIECE_BYTES_MIN: usize = 64 * 1024;
/// More would not make a quick disk quicker. It is also what is trusted to be written on a disk that has hung: until that time
/// is over, nobody takes the log for dead.
const PIECE_BYTES_MAX: usize = 1024 * 1024;
/// A sync that is quicker than this could have been twice as long, and one that is slower should have been half as long.
const SYNC_QUICK: Duration = Duration::from_millis(100);
const SYNC_SLOW: Duration = Duration::from_millis(500);
/// A disk that writes less in a second is as good as dead.
const SLOWEST_BYTES_PER_SECOND: u128 = 100_000;

/// How large the next piece is.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes_at_once: usize,
}

impl Default for Pieces {
    fn default() -> Pieces {
        Pieces { bytes_at_once: PIECE_BYTES_FIRST }
    }
}

impl Pieces {
    /// How much of so many bytes comes next.
    pub(super) fn next(&self, left: usize) -> usize {
        left.min(self.bytes_at_once)
    }

    /// A piece has been synced, and took so long.
    pub(super) fn on_synced(&mut self, bytes: usize, took: Duration) {
        if took > SYNC_SLOW {
            self.bytes_at_once = (self.bytes_at_once / 2).max(PIECE_BYTES_MIN);
        } else if took < SYNC_QUICK && bytes == self.bytes_at_once {
            self.bytes_at_once = (self.bytes_at_once * 2).min(PIECE_BYTES_MAX);
        }
    }
}

/// How far the disk has come.
#[derive(Debug, Default)]
pub(super) struct SyncProgress(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    synced_bytes: u64,
    /// Bytes that are being synced, and since when.
    under_way: Option<(u64, Instant)>,
}

impl SyncProgress {
    /// A piece is given to the disk.
    pub(super) fn begin(&self, bytes: usize, now: Instant) {
        self.0.lock().under_way = Some((bytes as u64, now));
    }

    /// The disk has it.
    pub(super) fn end(&self) {
        let mut progress = self.0.lock();
        if let Some((bytes, _)) = progress.under_way.take() {
            progress.synced_bytes += bytes;
        }
    }

    /// Bytes that are synced or that may be taken for it. Never goes back.
    pub(super) fn bytes(&self, now: Instant) -> u64 {
        let progress = self.0.lock();
        let under_way = progress.under_way.filter(|_| !planted(Plant::SyncShowsNothing));
        let trusted = under_way.map_or(0, |(bytes, since)| {
            let waited = now.saturating_duration_since(since).as_micros();
            bytes.min((waited * SLOWEST_BYTES_PER_SECOND / 1_000_000) as u64)
        });
        progress.synced_bytes + trusted
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::runtime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pieces_follow_the_disk_within_bounds() {
        let mut pieces = Pieces::default();
        let next = |pieces: &Pieces| pieces.next(usize::MAX);
        assert_eq!(pieces.next(100), 100);
        let first = next(&pieces);
        pieces.on_synced(first, SYNC_QUICK / 2);
        assert_eq!(next(&pieces), 2 * first);
        // What was less than a whole piece says nothing.
        pieces.on_synced(first, SYNC_QUICK / 2);
        assert_eq!(next(&pieces), 2 * first);
        for _ in 0..10 {
            let bytes = next(&pieces);
            pieces.on_synced(bytes, SYNC_QUICK / 2);
        }
        assert_eq!(next(&pieces), PIECE_BYTES_MAX);
        for _ in 0..10 {
            pieces.on_synced(1, SYNC_SLOW * 2);
        }
        assert_eq!(next(&pieces), PIECE_BYTES_MIN);
    }

    #[test]
    fn a_piece_on_a_slow_disk_shows_progress_and_on_a_hung_one_stops_to() {
        let progress = SyncProgress::default();
        let began = runtime::now();
        progress.begin(PIECE_BYTES_MAX, began);
        let bytes: Vec<u64> =
            [0, 1, 5, 10, 11, 60].map(|seconds| progress.bytes(began + SECOND * seconds)).into();
        let whole = PIECE_BYTES_MAX as u64;
        assert_eq!(bytes, [0, 100_000, 500_000, 1_000_000, whole, whole]);
        progress.end();
        assert_eq!(progress.bytes(began + SECOND), whole);
        progress.begin(100, began + SECOND);
        assert_eq!(progress.bytes(began + SECOND), whole);
    }
}
