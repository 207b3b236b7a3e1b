//! Progress on standard error, if that is a terminal; indicatif shows nothing otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// For a file of a known size: its bytes, their rate, and when it will be over.
pub(crate) fn of_file(bytes_total: u64) -> ProgressBar {
    let template =
        "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left, {msg}";
    styled(ProgressBar::new(bytes_total), template)
}

/// For a stream that ends when it ends.
pub(crate) fn of_stream() -> ProgressBar {
    styled(ProgressBar::no_length(), "{spinner} {binary_bytes} {binary_bytes_per_sec}, {msg}")
}

/// For a number of shards, which becomes known later.
pub(crate) fn of_shards() -> ProgressBar {
    styled(ProgressBar::new(0), "{bar:30} {pos}/{len} shards, {msg}")
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    // A template that does not parse would be a pity, not a reason to stop: the bar then keeps its own.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// "1234 records in 2.5 s (494/s)".
pub(crate) fn summary(records: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    // Below a millisecond a rate says nothing.
    match seconds >= 0.001 {
        true => {
            format!("{records} records in {seconds:.1} s ({:.0}/s)", records as f64 / seconds)
        }
        false => format!("{records} records"),
    }
}
