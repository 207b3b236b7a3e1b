//! Metrics for programs: an object for each process. Times are in nanoseconds.

use ferrisdb_client::{MetricSample, MetricValue, ProcessMetrics, RoleMetrics, Unit};
use serde_json::{Map, Value, json};

pub(super) fn object(process: &ProcessMetrics) -> Value {
    match &process.roles {
        Ok(roles) => json!({
            "process": process.address.to_string(),
            "roles": roles.iter().map(role).collect::<Vec<_>>(),
        }),
        Err(error) => json!({
            "process": process.address.to_string(),
            "failure": error.to_string(),
        }),
    }
}

fn role(role: &RoleMetrics) -> Value {
    let labels: Map<String, Value> =
        role.labels.iter().map(|(label, value)| (label.clone(), json!(value))).collect();
    let metrics: Map<String, Value> =
        role.samples.iter().map(|sample| (sample.name.clone(), metric(sample))).collect();
    json!({
        "role": role.role,
        "labels": labels,
        "seconds": role.age_us as f64 / 1e6,
        "metrics": metrics,
    })
}

fn metric(sample: &MetricSample) -> Value {
    let unit = match sample.unit {
        Unit::Count => "count",
        Unit::Bytes => "bytes",
        Unit::Time => "nanoseconds",
        Unit::Versions => "versions",
    };
    match &sample.value {
        MetricValue::Counter(count) => json!({ "kind": "counter", "unit": unit, "value": count }),
        MetricValue::Gauge(now) => json!({ "kind": "gauge", "unit": unit, "value": now }),
        MetricValue::Histogram(reading) => json!({
            "kind": "histogram",
            "unit": unit,
            "count": reading.count(),
            "sum": reading.sum,
            "p50": reading.quantile(0.5),
            "p90": reading.quantile(0.9),
            "p99": reading.quantile(0.99),
            "p999": reading.quantile(0.999),
            "max": reading.max,
        }),
    }
}
