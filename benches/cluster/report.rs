//! What a run has shown: a table for people, JSON for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{
    process::{DiskUsage, Usage},
    tally::{Latencies, Tally},
};

/// What a run was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    /// The workload.
    pub(crate) workload: String,
    /// Transactions in flight.
    pub(crate) clients: usize,
    /// Rows there are to read and update.
    pub(crate) keys: u64,
    /// Accounts of the bank.
    pub(crate) accounts: u64,
    /// Bytes of a key.
    pub(crate) key_bytes: usize,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// How rows were drawn; empty for the workload's own way.
    pub(crate) distribution: String,
    /// Operations a second that were due, of an open loop.
    pub(crate) rate: Option<f64>,
    /// What was measured.
    pub(crate) target: String,
}

/// Percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    count: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

/// What was measured in a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    setting: Setting,
    seconds: f64,
    operations: u64,
    operations_per_second: f64,
    rows_read_per_second: f64,
    rows_written_per_second: f64,
    latency: Percentiles,
    /// Latencies of the parts of operations, by name.
    stages: std::collections::BTreeMap<&'static str, Percentiles>,
    conflicts: u64,
    retries: u64,
    /// Errors that ended an attempt, by their names, conflicts left out.
    errors: std::collections::BTreeMap<&'static str, u64>,
    /// Operations that were given up.
    failed: u64,
    /// Operations of an open loop that were due and not begun.
    never_begun: u64,
    /// CPU time of the clients for each operation; of the servers as well, if they run in the same process.
    client_cpu_us_per_operation: Option<f64>,
    /// CPU time of the server for each operation, if its process is known.
    server_cpu_us_per_operation: Option<f64>,
    /// Cores that both have kept busy.
    cores: Option<f64>,
    /// Bytes that went to the disk for each byte that was written by a client; those of other processes count as well.
    disk_bytes_per_written_byte: Option<f64>,
    /// How often a second the disk was told to make durable what it holds.
    disk_flushes_per_second: Option<f64>,
    /// Memory of the serving process at the end of the run.
    server_resident_bytes: Option<u64>,
    /// What was checked at the end, and holds.
    check: Option<String>,
}

/// What processes used during the window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// The benchmark itself.
    pub(crate) client: Option<Usage>,
    /// The server, if it is a process of its own and known.
    pub(crate) server: Option<Usage>,
    /// The disk on which the data lies, if it is known.
    pub(crate) disk: Option<DiskUsage>,
    /// The server, if it is this process.
    pub(crate) is_embedded: bool,
    /// Memory of the serving process.
    pub(crate) resident_bytes: Option<u64>,
}

impl Report {
    /// Puts together what a run has shown in so much time.
    pub(crate) fn new(
        setting: Setting,
        length: Duration,
        tally: &Tally,
        used: Used,
        never_begun: u64,
        check: Option<String>,
    ) -> Report {
        let seconds = length.as_secs_f64();
        let operations = tally.done.operations;
        let per_operation = |usage: Option<Usage>| {
            usage
                .filter(|_| operations > 0)
                .map(|usage| usage.cpu_seconds * 1e6 / operations as f64)
        };
        let knows_all = used.is_embedded || used.server.is_some();
        let cpu_seconds =
            [used.client, used.server].iter().flatten().map(|usage| usage.cpu_seconds).sum::<f64>();
        Report {
            setting,
            seconds,
            operations,
            operations_per_second: operations as f64 / seconds,
            rows_read_per_second: tally.done.reads as f64 / seconds,
            rows_written_per_second: tally.done.writes as f64 / seconds,
            latency: percentiles(&tally.latencies),
            stages: tally.stages.iter().map(|(name, of)| (*name, percentiles(of))).collect(),
            conflicts: tally.conflicts,
            retries: tally.retries,
            errors: tally.errors.iter().map(|(code, count)| (code.name(), *count)).collect(),
            failed: tally.failed,
            never_begun,
            client_cpu_us_per_operation: per_operation(used.client),
            server_cpu_us_per_operation: per_operation(used.server),
            cores: knows_all.then_some(cpu_seconds / seconds),
            disk_bytes_per_written_byte: used
                .disk
                .filter(|_| tally.written_bytes > 0)
                .map(|disk| disk.written_bytes as f64 / tally.written_bytes as f64),
            disk_flushes_per_second: used.disk.map(|disk| disk.flushes as f64 / seconds),
            server_resident_bytes: used.resident_bytes,
            check,
        }
    }

    /// Whether no operation succeeded.
    pub(crate) fn is_empty(&self) -> bool {
        self.operations == 0
    }
}

pub(crate) fn percentiles(latencies: &Latencies) -> Percentiles {
    let micros = |duration: Duration| duration.as_nanos() as f64 / 1e3;
    Percentiles {
        count: latencies.count(),
        p50_us: micros(latencies.quantile(0.5)),
        p99_us: micros(latencies.quantile(0.99)),
        p999_us: micros(latencies.quantile(0.999)),
        max_us: micros(latencies.max()),
    }
}

/// All runs, as a table with notes below it.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "workload",
        "clients",
        "ops/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "conflicts",
        "retries",
        "CPU/op client",
        "server",
        "cores",
        "disk/byte",
        "flushes/s",
        "RSS",
    ]);
    for report in reports {
        let latency = &report.latency;
        let mut cells = vec![
            report.setting.workload.clone(),
            report.setting.clients.to_string(),
            rate(report.operations_per_second),
        ];
        cells.extend(latency.cells());
        cells.extend([
            report.conflicts.to_string(),
            report.retries.to_string(),
            or_dash(report.client_cpu_us_per_operation, time),
            or_dash(report.server_cpu_us_per_operation, time),
            or_dash(report.cores, |cores| format!("{cores:.2}")),
            or_dash(report.disk_bytes_per_written_byte, |ratio| format!("{ratio:.1}")),
            or_dash(report.disk_flushes_per_second, rate),
            or_dash(report.server_resident_bytes, |bytes| format!("{} MiB", bytes >> 20)),
        ]);
        table.add_row(cells);
        for (name, stage) in &report.stages {
            let per_second = rate(stage.count as f64 / report.seconds);
            let mut cells = vec![format!("  {name}"), String::new(), per_second];
            cells.extend(stage.cells());
            table.add_row(cells);
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table.trim_fmt();
    for note in notes(reports) {
        text.push('\n');
        text.push_str(&note);
    }
    text
}

fn notes(reports: &[Report]) -> Vec<String> {
    let mut notes = Vec::new();
    for report in reports {
        let name = format!("{}, {} clients", report.setting.workload, report.setting.clients);
        let operations = report.operations_per_second;
        if report.rows_read_per_second > operations * 1.01 {
            notes.push(format!("{name}: {} rows read/s", rate(report.rows_read_per_second)));
        }
        if let Some(check) = &report.check {
            notes.push(format!("{name}: {check}"));
        }
        if !report.errors.is_empty() || report.failed > 0 {
            let errors = report.errors.iter().map(|(code, count)| format!("{count} {code}"));
            let errors: Vec<String> = errors.collect();
            notes.push(format!("{name}: {}; {} given up", errors.join(", "), report.failed));
        }
        if let Some(rate) = report.setting.rate {
            notes.push(format!(
                "{name}: {rate}/s were due, {} were not begun; latencies count from when they were due",
                report.never_begun
            ));
        }
    }
    if reports.iter().any(|report| report.server_cpu_us_per_operation.is_none()) {
        notes.push(match reports.iter().any(|report| report.cores.is_some()) {
            true => {
                "client and server are one process: its CPU time stands under client".to_owned()
            }
            false => "CPU time and memory of the server are not known: see --server-pid".to_owned(),
        });
    }
    notes
}

impl Percentiles {
    pub(crate) fn cells(&self) -> [String; 4] {
        [self.p50_us, self.p99_us, self.p999_us, self.max_us].map(time)
    }
}

fn or_dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// A time that is given in microseconds, with three digits.
fn time(micros: f64) -> String {
    match micros {
        _ if micros >= 1e6 => format!("{:.2} s", micros / 1e6),
        _ if micros >= 1e5 => format!("{:.0} ms", micros / 1e3),
        _ if micros >= 1e4 => format!("{:.1} ms", micros / 1e3),
        _ if micros >= 1e3 => format!("{:.2} ms", micros / 1e3),
        _ if micros >= 1e2 => format!("{micros:.0} µs"),
        _ => format!("{micros:.1} µs"),
    }
}

/// A rate without a fraction, its thousands set apart.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second < 10.0 {
        return format!("{per_second:.1}");
    }
    let digits = format!("{per_second:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [3.25, 12.0, 999.6, 45_123.4, 1_234_567.0].map(rate),
            ["3.2", "12", "1,000", "45,123", "1,234,567"]
        );
        assert_eq!(
            [9.87, 123.4, 1_234.0, 12_345.0, 123_456.0, 2_500_000.0].map(time),
            ["9.9 µs", "123 µs", "1.23 ms", "12.3 ms", "123 ms", "2.50 s"]
        );
    }
}
