//! Metrics in the text exposition format of Prometheus, version 0.0.4.
//!
//! ```text
//!   # HELP ferrisdb_log_sync_seconds Time of writing and syncing a group of records.
//!   # TYPE ferrisdb_log_sync_seconds histogram
//!   ferrisdb_log_sync_seconds_bucket{process="10.0.0.7:4501",generation="7",le="0.001048575"} 70
//! ```
//!
//! All samples of a metric stand together, those of all processes: the format asks for it. Buckets end just before powers
//! of two, the same for every histogram of a unit, so that sums over processes are sums of the same buckets; that is
//! coarser than what other outputs show.

use std::{collections::BTreeMap, fmt::Write as _, ops::RangeInclusive};

use ferrisdb_client::{
    HistogramReading, MetricSample, MetricValue, ProcessMetrics, RoleMetrics, Unit,
};

/// A metric, and its samples from everywhere.
struct Family<'a> {
    first: &'a MetricSample,
    samples: Vec<(String, &'a MetricValue)>,
}

pub(super) fn exposition(processes: &[ProcessMetrics]) -> String {
    let mut families: BTreeMap<String, Family<'_>> = BTreeMap::new();
    for process in processes {
        for role in process.roles.iter().flatten() {
            let labels = labels(process, role);
            for sample in &role.samples {
                let family = families.entry(name(role, sample));
                let family = family.or_insert(Family { first: sample, samples: Vec::new() });
                family.samples.push((labels.clone(), &sample.value));
            }
        }
    }
    let mut text =
        String::from("# HELP ferrisdb_up Whether the process answers.\n# TYPE ferrisdb_up gauge\n");
    for process in processes {
        let (address, up) = (escaped(&process.address.0), u8::from(process.roles.is_ok()));
        // Writing to a string never fails.
        let _ = writeln!(text, "ferrisdb_up{{process=\"{address}\"}} {up}");
    }
    for (name, family) in &families {
        write_family(&mut text, name, family);
    }
    text
}

/// The name with its unit, as Prometheus asks for it.
fn name(role: &RoleMetrics, sample: &MetricSample) -> String {
    let unit = match sample.unit {
        Unit::Count => "",
        Unit::Bytes => "_bytes",
        Unit::Time => "_seconds",
        Unit::Versions => "_versions",
    };
    let total = if matches!(sample.value, MetricValue::Counter(_)) { "_total" } else { "" };
    format!("ferrisdb_{}_{}{unit}{total}", role.role, sample.name)
}

fn labels(process: &ProcessMetrics, role: &RoleMetrics) -> String {
    let process = format!("process=\"{}\"", escaped(&process.address.0));
    let others =
        role.labels.iter().map(|(label, value)| format!(",{label}=\"{}\"", escaped(value)));
    others.fold(process, |labels, label| labels + &label)
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn write_family(text: &mut String, name: &str, family: &Family<'_>) {
    let kind = match family.first.value {
        MetricValue::Counter(_) => "counter",
        MetricValue::Gauge(_) => "gauge",
        MetricValue::Histogram(_) => "histogram",
    };
    let help = family.first.help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    let unit = family.first.unit;
    for (labels, value) in &family.samples {
        match value {
            MetricValue::Counter(value) | MetricValue::Gauge(value) => {
                let _ = writeln!(text, "{name}{{{labels}}} {}", number(*value, unit));
            }
            MetricValue::Histogram(reading) => histogram(text, name, labels, reading, unit),
        }
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, reading: &HistogramReading, unit: Unit) {
    for power in powers(unit) {
        let limit = 1u64 << power;
        let (last, below) = (number(limit - 1, unit), reading.count_below(limit));
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{last}\"}} {below}");
    }
    let (count, sum) = (reading.count(), number(reading.sum, unit));
    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
}

/// Where buckets end: times from a microsecond to a minute, all else from one to a million and more.
fn powers(unit: Unit) -> RangeInclusive<u32> {
    match unit {
        Unit::Time => 10..=36,
        Unit::Count => 0..=20,
        Unit::Bytes | Unit::Versions => 6..=32,
    }
}

/// A number in the base unit.
fn number(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Time => format!("{}", value as f64 / 1e9),
        _ => value.to_string(),
    }
}
