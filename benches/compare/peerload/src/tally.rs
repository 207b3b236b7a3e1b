//! Counting, and the line that says what was counted.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::Common;

/// When to count and when to stop.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    end: Instant,
}

impl Clock {
    pub(crate) fn new(common: &Common) -> Clock {
        let start = Instant::now() + Duration::from_secs_f64(common.warm);
        Clock { start, end: start + Duration::from_secs_f64(common.secs) }
    }

    /// Whether another operation may begin.
    pub(crate) fn is_running(&self) -> bool {
        Instant::now() < self.end
    }

    /// Whether the warm-up is over.
    pub(crate) fn counts(&self) -> bool {
        Instant::now() >= self.start
    }

    /// What is used between start and end.
    pub(crate) async fn usage(&self, pid: Option<u32>) -> (Usage, Usage) {
        tokio::time::sleep_until(self.start.into()).await;
        let before = Usage::now(pid);
        tokio::time::sleep_until(self.end.into()).await;
        (before, Usage::now(pid))
    }
}

/// What one client saw.
pub(crate) struct Tally {
    clock: Clock,
    latencies: Histogram<u64>,
    operations: u64,
    retries: u64,
}

impl Tally {
    pub(crate) fn new(clock: Clock) -> Result<Tally> {
        let latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Tally { clock, latencies, operations: 0, retries: 0 })
    }

    /// Counts an operation that ends now.
    pub(crate) fn done(&mut self, began: Instant) {
        let now = Instant::now();
        if now >= self.clock.start && now < self.clock.end {
            self.operations += 1;
        }
        if began >= self.clock.start && began < self.clock.end {
            self.latencies.saturating_record((now - began).as_nanos() as u64);
        }
    }

    /// Counts an attempt that lost against another one.
    pub(crate) fn retry(&mut self) {
        let now = Instant::now();
        self.retries += u64::from(now >= self.clock.start && now < self.clock.end);
    }

    pub(crate) fn add(&mut self, other: &Tally) -> Result<()> {
        self.latencies.add(&other.latencies)?;
        self.operations += other.operations;
        self.retries += other.retries;
        Ok(())
    }

    /// Prints the line.
    pub(crate) fn report(
        &self,
        system: &str,
        workload: &str,
        common: &Common,
        (before, after): (Usage, Usage),
    ) {
        let us = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let operations = self.operations.max(1) as f64;
        println!(
            "system={system} workload={} clients={} ops_s={:.0} p50_us={:.1} p99_us={:.1} p999_us={:.1} \
             retries={} cli_us={:.2} srv_us={:.2} cores_busy={:.2}",
            common.label.as_deref().unwrap_or(workload),
            common.clients,
            self.operations as f64 / common.secs,
            us(0.5),
            us(0.99),
            us(0.999),
            self.retries,
            (after.own - before.own) * 1e6 / operations,
            (after.server - before.server) * 1e6 / operations,
            (after.machine - before.machine) / common.secs,
        );
    }
}

/// CPU seconds so far.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    own: f64,
    server: f64,
    machine: f64,
}

impl Usage {
    pub(crate) fn now(pid: Option<u32>) -> Usage {
        let of = |process: &str| of_process(process).unwrap_or(0.0);
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields: Vec<f64> = machine
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        // All but idle and waiting for the disk.
        let busy: f64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|place| fields.get(*place)).sum();
        Usage {
            own: of("self"),
            server: pid.map_or(0.0, |pid| of(&pid.to_string())),
            machine: busy / 100.0,
        }
    }
}

/// User and system time of a process; Linux counts it in hundredths of a second.
fn of_process(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}
