//! What is going on, each second, on standard error.

use std::{
    io::{IsTerminal as _, stderr},
    sync::Arc,
    time::Duration,
};

use ferrisdb_core::runtime;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::{report::rate, schedule::Window, tally::Tally};

/// Shows how a run goes on until it is over. On a terminal it is one line that changes; elsewhere a line a second.
pub(crate) async fn show(name: String, window: Window, tally: Arc<Mutex<Tally>>) {
    let length = (window.end - window.begin).as_secs().max(1);
    let bar = stderr().is_terminal().then(|| ProgressBar::new(length));
    if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{bar:20} {msg}")) {
        bar.set_style(style);
    }
    let mut before = 0;
    let mut then = window.begin;
    loop {
        runtime::sleep(Duration::from_secs(1)).await;
        let now = runtime::now();
        if now >= window.end {
            break;
        }
        let (operations, conflicts, failed) = {
            let tally = tally.lock();
            (tally.all.operations, tally.conflicts, tally.failed)
        };
        let elapsed = now - window.begin;
        let seconds = (now - then).as_secs_f64();
        let per_second = rate((operations - before) as f64 / seconds);
        (before, then) = (operations, now);
        let warming = if now < window.start { " (warming up)" } else { "" };
        let message = format!(
            "{name}: {}/{length} s, {per_second}/s, {conflicts} conflicts, {failed} failed{warming}",
            elapsed.as_secs()
        );
        match &bar {
            Some(bar) => {
                bar.set_position(elapsed.as_secs());
                bar.set_message(message);
            }
            None => eprintln!("{message}"),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}
