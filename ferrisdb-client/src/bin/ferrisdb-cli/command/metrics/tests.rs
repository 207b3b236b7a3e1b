//! The three outputs over one cluster, of which one process is silent.

use ferrisdb_client::{
    Address, Error, ErrorCode, HistogramReading, MetricSample, MetricValue, ProcessMetrics,
    RoleMetrics, Stage, Unit,
};
use ferrisdb_core::metrics::Histogram;

use super::{json, prometheus, recent, text};

fn sample(name: &str, unit: Unit, value: MetricValue) -> MetricSample {
    MetricSample { name: name.into(), help: format!("What {name} is."), unit, value }
}

fn times(values: &[u64]) -> HistogramReading {
    let histogram = Histogram::default();
    values.iter().for_each(|value| histogram.record(*value));
    histogram.reading()
}

fn log(pushes: u64, sync: &[u64], age_us: u64) -> RoleMetrics {
    RoleMetrics {
        role: "log".into(),
        labels: vec![("generation".into(), "7".into())],
        registration: 3,
        age_us,
        samples: vec![
            sample("pushes", Unit::Count, MetricValue::Counter(pushes)),
            sample("sync", Unit::Time, MetricValue::Histogram(times(sync))),
            sample("disk", Unit::Bytes, MetricValue::Gauge(3 << 20)),
        ],
    }
}

fn processes(role: RoleMetrics) -> Vec<ProcessMetrics> {
    let silent = Error::new(ErrorCode::Unreachable, Stage::Connect, "refused");
    vec![
        ProcessMetrics { address: Address::new("a:1"), roles: Ok(vec![role]) },
        ProcessMetrics { address: Address::new("b\"2"), roles: Err(silent) },
    ]
}

#[test]
fn people_get_a_table() {
    let text = text::tables(&processes(log(10, &[1_500_000; 4], 5_000_000)));
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["a:1", "log", "generation=7", "over", "5.00", "s"]);
    assert_eq!(lines[1], ["METRIC", "COUNT", "RATE", "MEAN", "P50", "P99", "MAX", "NOW"]);
    assert_eq!(lines[2], ["pushes", "10", "2.00/s"]);
    let sync = ["sync", "4", "0.80/s", "1.50", "ms", "1.44", "ms", "1.44", "ms", "1.50", "ms"];
    assert_eq!(lines[3], sync);
    assert_eq!(lines[4], ["disk", "3.00", "MiB"]);
}

#[test]
fn amounts_have_the_unit_that_fits() {
    let times = [(0, "0 ns"), (999, "999 ns"), (1_000, "1.00 µs"), (70_000_000_000, "70.0 s")];
    for (value, shown) in times {
        assert_eq!(text::amount(value, Unit::Time), shown);
    }
    for (value, shown) in [(1_023, "1023 B"), (1 << 10, "1.00 KiB"), (200 << 30, "200 GiB")] {
        assert_eq!(text::amount(value, Unit::Bytes), shown);
    }
    assert_eq!(text::amount(u64::MAX, Unit::Versions), u64::MAX.to_string());
}

#[test]
fn programs_get_an_object() {
    let all = processes(log(10, &[5, 7], 5_000_000));
    let object = json::object(&all[0]);
    assert_eq!(object["process"], "a:1");
    assert_eq!(object["roles"][0]["labels"]["generation"], "7");
    assert_eq!(object["roles"][0]["seconds"], 5.0);
    assert_eq!(object["roles"][0]["metrics"]["pushes"]["value"], 10);
    let sync = &object["roles"][0]["metrics"]["sync"];
    assert_eq!((&sync["count"], &sync["p50"], &sync["max"]), (&2.into(), &5.into(), &7.into()));
    assert_eq!(json::object(&all[1])["process"], "b\"2");
    assert!(json::object(&all[1])["failure"].as_str().is_some_and(|why| why.contains("refused")));
}

#[test]
fn prometheus_gets_its_format() {
    let text = prometheus::exposition(&processes(log(10, &[1_000, 2_000_000, u64::MAX], 1)));
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "ferrisdb_up{process=\"a:1\"} 1",
        "ferrisdb_up{process=\"b\\\"2\"} 0",
        "# HELP ferrisdb_log_pushes_total What pushes is.",
        "# TYPE ferrisdb_log_pushes_total counter",
        "ferrisdb_log_pushes_total{process=\"a:1\",generation=\"7\"} 10",
        "# TYPE ferrisdb_log_sync_seconds histogram",
        "ferrisdb_log_sync_seconds_bucket{process=\"a:1\",generation=\"7\",le=\"0.000001023\"} 1",
        "ferrisdb_log_sync_seconds_bucket{process=\"a:1\",generation=\"7\",le=\"0.002097151\"} 2",
        "ferrisdb_log_sync_seconds_bucket{process=\"a:1\",generation=\"7\",le=\"+Inf\"} 3",
        "ferrisdb_log_sync_seconds_count{process=\"a:1\",generation=\"7\"} 3",
        "ferrisdb_log_disk_bytes{process=\"a:1\",generation=\"7\"} 3145728",
    ] {
        assert!(lines.contains(&line), "{line} is missing in\n{text}");
    }
    let buckets = lines.iter().filter(|line| line.contains("_bucket"));
    let counts = buckets.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()));
    assert!(counts.is_sorted(), "buckets are cumulative");
}

#[test]
fn an_interval_is_what_came_in_it() {
    let first = processes(log(10, &[1_000], 5_000_000));
    let roles = |second| recent(&first, processes(second))[0].roles.clone().unwrap_or_default();
    let later = roles(log(15, &[1_000, 8_000_000], 7_000_000));
    assert_eq!((later[0].counter("pushes"), later[0].age_us), (Some(5), 2_000_000));
    assert_eq!(later[0].histogram("sync").map(HistogramReading::count), Some(1));
    // A process that was started again meanwhile, and counts from zero.
    let restarted = roles(log(3, &[], 1_000_000));
    assert_eq!((restarted[0].counter("pushes"), restarted[0].age_us), (Some(3), 1_000_000));
}
