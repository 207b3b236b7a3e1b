//! Metrics for people: a table for each role.

use std::fmt::Write as _;

use comfy_table::Table;
use ferrisdb_client::{MetricSample, MetricValue, ProcessMetrics, RoleMetrics, Unit};

use crate::command::status::table;

/// All of it.
pub(super) fn tables(processes: &[ProcessMetrics]) -> String {
    let mut text = String::new();
    for process in processes {
        // What does not answer is on standard error.
        let Ok(roles) = &process.roles else { continue };
        for role in roles {
            let over = amount(role.age_us.saturating_mul(1_000), Unit::Time);
            // Writing to a string never fails.
            let _ = writeln!(text, "{}  {}  over {over}", process.address, role.name());
            let _ = writeln!(text, "{}\n", of_role(role));
        }
    }
    text
}

fn of_role(role: &RoleMetrics) -> Table {
    let header = ["  METRIC", "COUNT", "RATE", "MEAN", "P50", "P99", "MAX", "NOW"];
    let mut table = table(header, &[1, 2, 3, 4, 5, 6, 7]);
    for sample in &role.samples {
        table.add_row(row(sample, role.age_us));
    }
    table
}

fn row(sample: &MetricSample, age_us: u64) -> [String; 8] {
    let name = format!("  {}", sample.name);
    let none = String::new;
    let rate = |count: u64| format!("{}/s", short(count as f64 * 1e6 / age_us.max(1) as f64));
    match &sample.value {
        MetricValue::Counter(count) => {
            let total = amount(*count, sample.unit);
            [name, total, rate(*count), none(), none(), none(), none(), none()]
        }
        MetricValue::Gauge(now) => {
            [name, none(), none(), none(), none(), none(), none(), amount(*now, sample.unit)]
        }
        MetricValue::Histogram(reading) => {
            let count = reading.count();
            let shown = |value| if count == 0 { none() } else { amount(value, sample.unit) };
            let mean = match sample.unit {
                Unit::Count if count > 0 => format!("{:.1}", reading.mean()),
                _ => shown(reading.mean() as u64),
            };
            let (p50, p99) = (reading.quantile(0.5), reading.quantile(0.99));
            let (p50, p99, max) = (shown(p50), shown(p99), shown(reading.max));
            [name, count.to_string(), rate(count), mean, p50, p99, max, none()]
        }
    }
}

/// A number in the unit that fits.
pub(super) fn amount(value: u64, unit: Unit) -> String {
    let number = value as f64;
    let scaled = |steps: &[(f64, &str)]| {
        let fitting = steps.iter().rev().find(|(size, _)| number >= *size);
        let (size, name) = fitting.or(steps.first()).copied().unwrap_or((1.0, ""));
        format!("{} {name}", short(number / size))
    };
    match unit {
        Unit::Count | Unit::Versions => value.to_string(),
        Unit::Time if value < 1_000 => format!("{value} ns"),
        Unit::Time => scaled(&[(1e3, "µs"), (1e6, "ms"), (1e9, "s")]),
        Unit::Bytes if value < 1 << 10 => format!("{value} B"),
        Unit::Bytes => {
            let power = |power: i32| 2f64.powi(power);
            scaled(&[
                (power(10), "KiB"),
                (power(20), "MiB"),
                (power(30), "GiB"),
                (power(40), "TiB"),
            ])
        }
    }
}

/// A number with as many digits as anybody reads.
fn short(number: f64) -> String {
    match number {
        0.0 => String::from("0"),
        small if small < 10.0 => format!("{small:.2}"),
        medium if medium < 100.0 => format!("{medium:.1}"),
        large => format!("{large:.0}"),
    }
}
