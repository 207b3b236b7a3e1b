//! The data, how much of it may be lost, and what the cluster is asked for.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_core::{
    id::{ProcessId, Tag},
    service::controller::{Phase, ProcessClass, Status},
};
use serde_json::{Value, json};

use super::{
    Findings, RoleReading,
    document::quorum,
    processes::{frequency_of, lag},
};

/// What FoundationDB gives as the limit of transactions a second where there is none.
const NO_LIMIT: f64 = 1e9;

/// How the copies of the data are.
pub(super) struct DataState {
    /// Whether everything has as many copies as it should.
    pub(super) is_healthy: bool,
    name: &'static str,
    description: String,
    replicas_min: usize,
    /// Moves of this priority are under way, by FoundationDB's scale.
    priority: u32,
}

/// The zones of the living processes.
fn zones(status: &Status) -> BTreeMap<ProcessId, &str> {
    let living = status.processes.iter().filter(|process| process.alive);
    let heartbeats = living.map(|process| &process.heartbeat);
    heartbeats.map(|heartbeat| (heartbeat.process, heartbeat.zone.as_str())).collect()
}

/// The zones in which each shard has a living copy; `None` before there is a map.
fn zones_of_shards(status: &Status) -> Option<Vec<(usize, usize)>> {
    let zones = zones(status);
    let servers = status.cluster.storage_servers.iter();
    let servers: BTreeMap<Tag, &str> =
        servers.filter_map(|server| Some((server.tag, *zones.get(&server.process)?))).collect();
    let shards = status.cluster.shards.shards();
    let counted = shards.iter().map(|shard| {
        let living = shard.teams.team.iter().filter_map(|tag| servers.get(tag));
        (living.collect::<BTreeSet<_>>().len(), shard.teams.team.len())
    });
    (!shards.is_empty()).then(|| counted.collect())
}

fn copies(status: &Status) -> usize {
    let configuration = status.cluster.configuration.as_ref();
    configuration.map_or(1, |configuration| configuration.redundancy.copies() as usize)
}

pub(super) fn state(status: &Status) -> DataState {
    let copies = copies(status);
    let of = |name, is_healthy, replicas_min, priority, description: String| DataState {
        is_healthy,
        name,
        description,
        replicas_min,
        priority,
    };
    let Some(shards) = zones_of_shards(status) else {
        return of(
            "initializing",
            false,
            0,
            0,
            "(Re)initializing automatic data distribution".into(),
        );
    };
    let replicas_min = shards.iter().map(|(living, _)| *living).min().unwrap_or(0);
    let lost = shards.iter().filter(|(living, _)| *living == 0).count();
    let short = shards.iter().filter(|(living, team)| living < team || *living < copies).count();
    let all = shards.len();
    if lost > 0 {
        let description = format!("No replicas remain of some data: {lost} of {all} shards.");
        return of("missing_data", false, 0, 999, description);
    }
    if short > 0 {
        let description = format!(
            "{short} of {all} shards have too few copies; the least has {replicas_min} of {copies}."
        );
        let priority = if replicas_min > 1 { 709 } else { 809 };
        return of("healing", false, replicas_min, priority, description);
    }
    let (name, priority) = match (status.cluster.excluded.is_empty(), status.repairs.is_empty()) {
        (_, true) => ("healthy", 0),
        (false, false) => ("healthy_removing_server", 700),
        (true, false) => ("healthy_rebalancing", 120),
    };
    of(name, true, replicas_min, priority, status.repairs.join("; "))
}

pub(super) fn data(findings: &Findings, status: &Status, state: &DataState) -> Value {
    let reports =
        || status.processes.iter().filter_map(|process| process.heartbeat.storage.as_ref());
    let written: u64 = reports().map(|report| report.copied_bytes).sum();
    // How much is left of a copy is not known; that something is copied is, and what of it has come.
    let copying = reports().filter(|report| !report.copying.is_empty());
    let in_flight: u64 = copying.map(|report| report.copied_bytes.max(1)).sum();
    let disk = gauges(findings, "storage", "engine_disk").chain(gauges(findings, "log", "disk"));
    let described = json!({
        "description": state.description,
        "healthy": state.is_healthy,
        "min_replicas_remaining": state.replicas_min,
        "name": state.name,
    });
    json!({
        "moving_data": {
            "highest_priority": state.priority,
            "in_flight_bytes": in_flight,
            "in_queue_bytes": 0,
            "total_written_bytes": written,
        },
        "partitions_count": status.cluster.shards.shards().len(),
        "state": described,
        "team_trackers": [{
            "in_flight_bytes": in_flight,
            "primary": true,
            "state": described,
            "unhealthy_servers": unhealthy_servers(status),
        }],
        "total_disk_used_bytes": disk.sum::<u64>(),
    })
}

/// Storage servers whose process is not counted on.
fn unhealthy_servers(status: &Status) -> usize {
    let zones = zones(status);
    let servers = status.cluster.storage_servers.iter();
    servers.filter(|server| !zones.contains_key(&server.process)).count()
}

/// How many zones may be lost now.
pub(super) fn fault_tolerance(findings: &Findings, status: &Status) -> Value {
    let shards = zones_of_shards(status).unwrap_or_default();
    let spare = shards.iter().map(|(living, _)| living.saturating_sub(1)).min().unwrap_or(0);
    let zones = zones(status);
    let of_logs = status.cluster.log_sets.iter().map(|set| {
        let living = set.logs.iter().filter_map(|log| zones.get(&log.process));
        let living = living.collect::<BTreeSet<_>>().len();
        (set.replication.max(1) as usize).min(living).saturating_sub(1)
    });
    let data = of_logs.min().map_or(0, |logs| logs.min(spare));
    let (reached, all) = quorum(findings);
    let controllers = reached.saturating_sub(all / 2 + 1);
    // A cluster that does not serve has none to lose.
    let is_serving = status.cluster.phase == Phase::Active;
    let availability = if is_serving { data.min(controllers) } else { 0 };
    json!({
        "max_zone_failures_without_losing_availability": availability,
        "max_zone_failures_without_losing_data": data,
    })
}

/// A gauge of all roles of a name.
fn gauges<'a>(
    findings: &'a Findings,
    role: &'a str,
    name: &'a str,
) -> impl Iterator<Item = u64> + 'a {
    readings(findings, role).filter_map(move |reading| reading.all.gauge(name))
}

fn readings<'a>(
    findings: &'a Findings,
    role: &'a str,
) -> impl Iterator<Item = &'a RoleReading> + 'a {
    let roles = findings.metrics.iter().filter_map(|reading| reading.roles.as_ref().ok());
    roles.flatten().filter(move |reading| reading.all.role == role)
}

/// A counter of all roles of a name: in all, and a second.
fn total(findings: &Findings, role: &str, counters: &[&str]) -> (u64, f64) {
    let all = readings(findings, role).flat_map(|reading| {
        let of = |name: &&str| (reading.all.counter(name).unwrap_or_default(), reading.hz(name));
        counters.iter().map(of).collect::<Vec<_>>()
    });
    all.fold((0, 0.0), |(count, rate), (more, faster)| (count + more, rate + faster))
}

/// What limits the cluster. Nothing limits its rate of transactions yet; what waits says how close it is to its bounds.
pub(super) fn qos(findings: &Findings, status: &Status) -> Value {
    let queue = |class: ProcessClass| {
        let of_class = status
            .processes
            .iter()
            .filter(move |process| process.alive && process.heartbeat.class == class);
        of_class.map(|process| process.heartbeat.progress.bytes).max().unwrap_or(0)
    };
    let storage = queue(ProcessClass::Storage);
    let worst = |gauge| lag(gauges(findings, "storage", gauge).max().unwrap_or(0));
    let (data_lag, durability_lag) = (worst("behind"), worst("unflushed"));
    let (_, released) = total(findings, "proxy", &["read_versions"]);
    let limited_by = json!({
        "description": "The database is not being saturated by the workload.",
        "name": "workload",
        "reason_id": 2,
    });
    json!({
        "batch_performance_limited_by": limited_by,
        "batch_released_transactions_per_second": 0.0,
        "batch_transactions_per_second_limit": NO_LIMIT,
        "limiting_data_lag_storage_server": data_lag,
        "limiting_durability_lag_storage_server": durability_lag,
        "limiting_queue_bytes_storage_server": storage,
        "performance_limited_by": limited_by,
        "released_transactions_per_second": released,
        "transactions_per_second_limit": NO_LIMIT,
        "worst_data_lag_storage_server": data_lag,
        "worst_durability_lag_storage_server": durability_lag,
        "worst_queue_bytes_log_server": queue(ProcessClass::Log),
        "worst_queue_bytes_storage_server": storage,
    })
}

/// What clients ask for. Bytes that are read are not counted, so they are left out.
pub(super) fn workload(findings: &Findings, status: &Status) -> Value {
    let of = |role: &str, counters: &[&str]| {
        let (count, rate) = total(findings, role, counters);
        frequency_of(count, rate)
    };
    let copies = copies(status) as u64;
    // Every copy applies each of them.
    let (mutations, rate) = total(findings, "storage", &["mutations"]);
    let writes = frequency_of(mutations / copies, rate / copies as f64);
    let log_copies = status.cluster.log_sets.last().map_or(1, |set| set.replication.max(1));
    let (written, bytes_rate) = total(findings, "log", &["written"]);
    let written = frequency_of(written / u64::from(log_copies), bytes_rate / f64::from(log_copies));
    let requests = readings(findings, "storage").map(super::processes::queries);
    let (requests, requests_rate) = requests.fold((0, 0.0), |(count, rate), queries| {
        let more = queries["counter"].as_u64().unwrap_or_default();
        (count + more, rate + queries["hz"].as_f64().unwrap_or_default())
    });
    let rows = of("storage", &["point_reads", "rows"]);
    json!({
        "bytes": { "written": written },
        "keys": { "read": rows },
        "operations": {
            "read_requests": frequency_of(requests, requests_rate),
            "reads": rows,
            "writes": writes,
        },
        "transactions": {
            "committed": of("proxy", &["committed"]),
            "conflicted": of("proxy", &["conflicts"]),
            "started": of("proxy", &["read_versions"]),
        },
    })
}
