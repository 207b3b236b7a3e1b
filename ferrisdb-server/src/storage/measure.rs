//! How large a range is: counted exactly for a while, with a ratio by which the rest can be estimated.
//!
//! ```text
//!   range       a ................................. z
//!   counted     a ......... k                             1.2 MB of keys and values
//!   on disk     a ......... k                             0.4 MB
//!               a ................................. z     2.0 MB, so about 6 MB altogether
//! ```

use ferrisdb_core::{
    Key, KeyRange, Result, limits,
    service::storage::{Measure, Measured},
};

use super::{engine::Engine, read::MergedRows, window::Window};

/// Most rows that one call counts, under the window's lock: some milliseconds.
const ROWS_MAX: usize = 20_000;
/// Most bytes that one call counts: what a range read holds the lock for.
const BYTES_MAX: u64 = limits::RANGE_BYTES_MAX as u64;

/// Counts the bytes of a range.
///
/// The window must stand still until it returns: the caller holds its lock.
///
/// # Errors
///
/// `TransactionTooOld` or `FutureVersion` if the window does not reach to the version; the engine's errors.
pub(super) fn measure(window: &Window, engine: &dyn Engine, request: &Measure) -> Result<Measured> {
    window.check_version(request.read_version)?;
    let Measure { range, chunk_bytes, .. } = request;
    let view = window.view(request.read_version);
    let mut rows = MergedRows::new(view, engine, range, false);
    let mut measured = Measured {
        bytes: 0,
        through: range.end.clone(),
        split_points: Vec::new(),
        has_passed: request.has_passed,
        on_disk: (0, 0),
    };
    let mut count = 0;
    while let Some(row) = rows.next()? {
        // A row belongs to the chunk in which it begins.
        if *chunk_bytes > 0 && measured.has_passed >= *chunk_bytes {
            if row.key > range.begin {
                measured.split_points.push(row.key.clone());
            }
            measured.has_passed = 0;
        }
        let size = (row.key.len() + row.value.len()) as u64;
        measured.bytes += size;
        measured.has_passed += size;
        count += 1;
        if count >= ROWS_MAX || measured.bytes >= BYTES_MAX {
            measured.through = row.key.successor().min(range.end.clone());
            break;
        }
    }
    if measured.through < range.end {
        let on_disk = |end: &Key| {
            engine.approximate_bytes(&KeyRange { begin: range.begin.clone(), end: end.clone() })
        };
        measured.on_disk = (on_disk(&measured.through), on_disk(&range.end));
    }
    Ok(measured)
}
