//! What happens during a run, interval by interval: for runs so long that the sum of it hides how it went on.
//!
//! ```text
//!   begin      start                                      end
//!     | warm-up  |----- 1 -----|----- 2 -----| ... |--- n --|
//!                              what ended since the last line, and what there is at this moment
//! ```
//!
//! Operations count in the interval in which they end, with their whole latency. What the roles keep is asked of the database
//! itself: all its gauges (`docs/reference/metrics.md`), each summed up over the processes that have it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use ferrisdb_client::Database;
use ferrisdb_core::{metrics::MetricValue, runtime};
use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    process::Usage,
    report::{Percentiles, percentiles, rate},
    schedule::Window,
    tally::{Recent, Tally},
    target::Target,
};

/// How often to tell, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Every {
    /// How long an interval is.
    pub(crate) length: Duration,
    /// An object a line, for programs.
    pub(crate) is_json: bool,
}

/// What is told of one interval.
#[derive(Debug, Serialize)]
struct Interval {
    /// When it began and ended, in seconds after the warm-up.
    begin_s: f64,
    end_s: f64,
    operations_per_second: f64,
    latency: Percentiles,
    conflicts: u64,
    failed: u64,
    /// Cores that the servers kept busy, if their processes are known.
    server_cores: Option<f64>,
    /// Memory of the serving processes at its end.
    server_resident_bytes: Option<u64>,
    /// Every gauge of every role at its end, as `log.disk`.
    kept: BTreeMap<String, u64>,
}

/// Tells how the run goes on until its window is over; at once if there is nothing to tell.
///
/// # Errors
///
/// None but for a defect.
pub(crate) async fn tell(
    every: Option<Every>,
    window: Window,
    tally: &Arc<Mutex<Tally>>,
    target: &Target,
) -> Result<()> {
    let Some(every) = every else { return Ok(()) };
    runtime::sleep(window.start.saturating_duration_since(runtime::now())).await;
    tally.lock().take_recent()?;
    let (mut began, mut used_before) = (runtime::now(), target.server_usage());
    for number in 1.. {
        let due = (window.start + every.length * number).min(window.end);
        runtime::sleep(due.saturating_duration_since(runtime::now())).await;
        let (now, used) = (runtime::now(), target.server_usage());
        let recent = tally.lock().take_recent()?;
        let kept = kept(target.database(0)).await;
        let seconds = (now - began).as_secs_f64();
        let cores = |(now, before): (Usage, Usage)| now.since(before).cpu_seconds / seconds;
        if let Some(recent) = recent {
            let Recent { operations, latencies, conflicts, failed } = recent;
            let interval = Interval {
                begin_s: (began - window.start).as_secs_f64(),
                end_s: (now - window.start).as_secs_f64(),
                operations_per_second: operations as f64 / seconds,
                latency: percentiles(&latencies),
                conflicts,
                failed,
                server_cores: used.zip(used_before).map(cores),
                server_resident_bytes: target.resident_bytes(),
                kept,
            };
            println!("{}", interval.line(every)?);
        }
        (began, used_before) = (now, used);
        if due >= window.end {
            break;
        }
    }
    Ok(())
}

impl Interval {
    fn line(&self, every: Every) -> Result<String> {
        if every.is_json {
            return Ok(serde_json::to_string(&BTreeMap::from([("interval", self)]))?);
        }
        let [p50, p99, p999, max] = self.latency.cells();
        let resident = self.server_resident_bytes.map_or(0, |bytes| bytes >> 20);
        Ok(format!(
            "{:.0} to {:.0} s: {}/s, p50 {p50}, p99 {p99}, p99.9 {p999}, max {max}; {} conflicts, {} failed; {resident} MiB",
            self.begin_s,
            self.end_s,
            rate(self.operations_per_second),
            self.conflicts,
            self.failed,
        ))
    }
}

/// All gauges of the database at this moment; those of a process that does not answer are left out.
pub(crate) async fn kept(database: &Database) -> BTreeMap<String, u64> {
    let mut kept = BTreeMap::new();
    let processes = database.metrics().await.unwrap_or_default();
    for role in processes.into_iter().filter_map(|process| process.roles.ok()).flatten() {
        for sample in &role.samples {
            if let MetricValue::Gauge(amount) = sample.value {
                *kept.entry(format!("{}.{}", role.role, sample.name)).or_default() += amount;
            }
        }
    }
    kept
}
