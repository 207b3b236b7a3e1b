//! The processes and their machines.
//!
//! A process here is what listens at one address. It may have several workers: `ferrisdb-server` has one of each class.
//! Those that are not counted on are not among them, as in FoundationDB: `cluster.messages` names them. Neither are controllers that
//! host nothing else, because they send no heartbeats: `client.coordinators` has them.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_core::{
    id::Address,
    limits::VERSIONS_PER_SECOND,
    metrics::HistogramReading,
    service::controller::{Heartbeat, ProcessClass, ProcessStatus, Status, is_selected},
};
use serde_json::{Map, Value, json};

use super::{Findings, RoleReading, document::id_of};

/// The living processes, each with its workers.
fn grouped(status: &Status) -> BTreeMap<&Address, Vec<&ProcessStatus>> {
    let mut groups: BTreeMap<&Address, Vec<&ProcessStatus>> = BTreeMap::new();
    for process in status.processes.iter().filter(|process| process.alive) {
        groups.entry(&process.heartbeat.worker.address).or_default().push(process);
    }
    groups
}

/// Processes that are not counted on, and why. An address at which another process lives now is not one of them.
pub(super) fn unreachable(status: &Status) -> BTreeMap<&Address, String> {
    let living: BTreeSet<_> = grouped(status).into_keys().collect();
    let dead = status.processes.iter().filter(|process| !process.alive);
    let named = dead.map(|process| {
        let why = process.failure.clone().unwrap_or_else(|| "does not answer".to_owned());
        (&process.heartbeat.worker.address, why)
    });
    named.filter(|(address, _)| !living.contains(address)).collect()
}

/// Living processes that cannot do their work.
pub(super) fn troubled(status: &Status) -> impl Iterator<Item = &ProcessStatus> {
    status.processes.iter().filter(|process| process.alive && process.heartbeat.trouble.is_some())
}

/// What a process has measured; nothing if it did not answer.
fn roles<'a>(findings: &'a Findings, address: &Address) -> &'a [RoleReading] {
    let reading = findings.metrics.iter().find(|reading| reading.address == *address);
    reading.and_then(|reading| reading.roles.as_ref().ok()).map_or(&[], Vec::as_slice)
}

/// What a process has measured in all its roles of a name.
fn of_role<'a>(
    readings: &'a [RoleReading],
    name: &'a str,
) -> impl Iterator<Item = &'a RoleReading> {
    readings.iter().filter(move |reading| reading.all.role == name)
}

fn process_reading<'a>(findings: &'a Findings, address: &Address) -> Option<&'a RoleReading> {
    of_role(roles(findings, address), "process").next()
}

/// The machine that an address belongs to.
fn host(address: &Address) -> &str {
    address.0.rsplit_once(':').map_or(address.0.as_str(), |(host, _)| host)
}

pub(super) fn processes(findings: &Findings, status: &Status) -> Value {
    let described = grouped(status).into_iter().filter_map(|(address, workers)| {
        let first = workers.iter().map(|worker| worker.heartbeat.process).min()?;
        Some((first.to_string(), process(findings, status, address, &workers)))
    });
    Value::Object(described.collect())
}

fn process(
    findings: &Findings,
    status: &Status,
    address: &Address,
    workers: &[&ProcessStatus],
) -> Value {
    let zone = workers.first().map_or("", |worker| worker.heartbeat.zone.as_str());
    let id = workers.iter().map(|worker| worker.heartbeat.process).min();
    let class = match workers {
        [worker] => match worker.heartbeat.class {
            ProcessClass::Coordinator => "stateless",
            ProcessClass::Log => "log",
            ProcessClass::Storage => "storage",
        },
        _ => "unset",
    };
    let troubles = workers.iter().filter_map(|worker| worker.heartbeat.trouble.as_ref());
    let messages: Vec<Value> = troubles
        .map(|trouble| {
            json!({
                "name": "io_error",
                "type": "io_error",
                "time": findings.timestamp,
                "description": trouble,
                "raw_log_message": "",
            })
        })
        .collect();
    let mut described = json!({
        "address": address.to_string(),
        "class_source": "command_line",
        "class_type": class,
        "degraded": !messages.is_empty(),
        "excluded": workers.iter().all(|worker| is_excluded(status, worker)),
        "fault_domain": zone,
        "locality": {
            "machineid": host(address),
            "processid": id.map(|id| id.to_string()).unwrap_or_default(),
            "zoneid": zone,
        },
        "machine_id": host(address),
        "messages": messages,
        "roles": process_roles(findings, status, address, workers),
        "under_maintenance": false,
    });
    if let (Some(measured), Value::Object(described)) =
        (process_reading(findings, address), &mut described)
    {
        described.extend(vitals(measured));
    }
    described
}

/// What a process says of itself.
fn vitals(reading: &RoleReading) -> Map<String, Value> {
    let gauge = |name| reading.all.gauge(name).unwrap_or_default();
    let threads = gauge("threads").max(1) as f64;
    let version = reading.all.labels.iter().find(|(label, _)| label == "version");
    let measured = json!({
        "cpu": { "usage_cores": seconds(reading.hz("cpu")) },
        "memory": {
            "available_bytes": gauge("machine_memory_available"),
            "limit_bytes": gauge("machine_memory"),
            "rss_bytes": gauge("memory"),
            "unused_allocated_memory": 0,
            "used_bytes": gauge("memory"),
        },
        "run_loop_busy": (seconds(reading.hz("busy")) / threads).clamp(0.0, 1.0),
        "uptime_seconds": reading.all.age_us as f64 / 1e6,
        "version": version.map_or("", |(_, version)| version.as_str()),
    });
    match measured {
        Value::Object(measured) => measured,
        _ => Map::new(),
    }
}

/// Nanoseconds as seconds.
fn seconds(nanoseconds: f64) -> f64 {
    nanoseconds / 1e9
}

/// What a process does for the cluster.
fn process_roles(
    findings: &Findings,
    status: &Status,
    address: &Address,
    workers: &[&ProcessStatus],
) -> Vec<Value> {
    let state = &status.cluster;
    let measured = roles(findings, address);
    let mut described = Vec::new();
    let plain = |role: &str, id: String| json!({ "role": role, "id": id });
    if let Some(member) = state.controllers.iter().find(|member| member.address == *address) {
        described.push(plain("coordinator", id_of(0, member.node)));
        if status.controller == *address {
            described.push(plain("cluster_controller", id_of(1, member.node)));
            described.push(plain("data_distributor", id_of(2, member.node)));
        }
    }
    if let Some(coordinator) = &state.coordinator {
        let instances = |endpoints: Vec<&ferrisdb_core::Endpoint>| {
            let here = endpoints.into_iter().filter(|endpoint| endpoint.address == *address);
            here.map(|endpoint| endpoint.instance).collect::<Vec<_>>()
        };
        let sequencers = instances(vec![&coordinator.sequencer]);
        described.extend(sequencers.into_iter().map(|i| plain("master", id_of(0, i))));
        // Several of one process have the same order in both lists: they were recruited one after the other.
        let mut proxies = of_role(measured, "proxy");
        for instance in instances(coordinator.proxies.iter().collect()) {
            let reading = proxies.next();
            let statistics = |name: &str| {
                let histogram = reading.and_then(|reading| reading.all.histogram(name));
                histogram.map(latency).unwrap_or_default()
            };
            let mut commit = plain("commit_proxy", id_of(0, instance));
            let mut grv = plain("grv_proxy", id_of(1, instance));
            if reading.is_some() {
                commit["commit_latency_statistics"] = statistics("commit");
                let start = statistics("read_round");
                grv["grv_latency_statistics"] = json!({ "default": start });
            }
            described.extend([commit, grv]);
        }
        let resolvers = coordinator.resolvers.iter().map(|(_, endpoint)| endpoint).collect();
        let resolvers = instances(resolvers).into_iter();
        described.extend(resolvers.map(|instance| plain("resolver", id_of(0, instance))));
    }
    let is_here = |process| workers.iter().find(|worker| worker.heartbeat.process == process);
    for set in &state.log_sets {
        let here = set.logs.iter().filter_map(|log| Some((log, is_here(log.process)?)));
        for (log, worker) in here {
            let generation = set.generation.to_string();
            let is_of_set = |reading: &&RoleReading| {
                let labels = &reading.all.labels;
                labels.iter().any(|(name, value)| name == "generation" && *value == generation)
            };
            let reading = of_role(measured, "log").find(is_of_set);
            let id = id_of(log.process.0, log.endpoint.instance);
            described.push(log_role(plain("log", id), worker, reading));
        }
    }
    let servers = state.storage_servers.iter();
    for (server, worker) in servers.filter_map(|server| Some((server, is_here(server.process)?))) {
        let id = id_of(server.process.0, server.endpoint.instance);
        let reading = of_role(measured, "storage").next();
        described.push(storage_role(plain("storage", id), worker, reading));
    }
    described
}

fn log_role(mut role: Value, worker: &ProcessStatus, reading: Option<&RoleReading>) -> Value {
    let progress = &worker.heartbeat.progress;
    role["data_version"] = progress.version.0.into();
    role["durable_version"] = progress.version.0.into();
    if let Some(reading) = reading {
        let written = frequency(reading, "written");
        role["input_bytes"] = written.clone();
        role["durable_bytes"] = written;
        role["queue_disk_used_bytes"] = reading.all.gauge("disk").into();
    }
    role
}

fn storage_role(mut role: Value, worker: &ProcessStatus, reading: Option<&RoleReading>) -> Value {
    let progress = &worker.heartbeat.progress;
    role["data_version"] = progress.version.0.into();
    role["durable_version"] = progress.durable_version.0.into();
    let unflushed = progress.version.0.saturating_sub(progress.durable_version.0);
    let Some(reading) = reading else {
        role["durability_lag"] = lag(unflushed);
        return role;
    };
    role["data_lag"] = lag(reading.all.gauge("behind").unwrap_or_default());
    role["durability_lag"] = lag(reading.all.gauge("unflushed").unwrap_or(unflushed));
    role["query_queue_max"] = reading.all.gauge("waiting").into();
    role["kvstore_used_bytes"] = reading.all.gauge("engine_disk").into();
    role["mutations"] = frequency(reading, "mutations");
    role["keys_queried"] = sum(reading, &["point_reads", "rows"]);
    let queries = queries(reading);
    role["total_queries"] = queries.clone();
    role["finished_queries"] = queries;
    if let Some(read) = reading.all.histogram("read") {
        role["read_latency_statistics"] = latency(read);
    }
    role
}

/// How far something is behind, as FoundationDB says it.
pub(super) fn lag(versions: u64) -> Value {
    json!({ "seconds": versions as f64 / VERSIONS_PER_SECOND as f64, "versions": versions })
}

/// A counter: how many in all, and how many a second lately. How evenly they come is not measured, for which FoundationDB
/// says -1.
pub(super) fn frequency(reading: &RoleReading, counter: &str) -> Value {
    sum(reading, &[counter])
}

fn sum(reading: &RoleReading, counters: &[&str]) -> Value {
    let all = counters.iter().map(|name| reading.all.counter(name).unwrap_or_default());
    frequency_of(all.sum(), counters.iter().map(|name| reading.hz(name)).sum())
}

pub(super) fn frequency_of(counter: u64, hz: f64) -> Value {
    json!({ "counter": counter, "hz": hz, "roughness": -1.0 })
}

/// Requests for keys and for ranges, all that were answered.
pub(super) fn queries(reading: &RoleReading) -> Value {
    let count = |metrics: &ferrisdb_core::metrics::RoleMetrics| -> u64 {
        let histograms = ["read", "range_read"].into_iter();
        histograms.filter_map(|name| metrics.histogram(name)).map(HistogramReading::count).sum()
    };
    let seconds = reading.recent.age_us as f64 / 1e6;
    let hz = if seconds > 0.0 { count(&reading.recent) as f64 / seconds } else { 0.0 };
    frequency_of(count(&reading.all), hz)
}

/// A histogram of times.
fn latency(times: &HistogramReading) -> Value {
    let quantile = |share| seconds(times.quantile(share) as f64);
    json!({
        "count": times.count(),
        "min": quantile(0.0),
        "max": seconds(times.max as f64),
        "median": quantile(0.5),
        "mean": seconds(times.mean()),
        "p25": quantile(0.25),
        "p90": quantile(0.9),
        "p95": quantile(0.95),
        "p99": quantile(0.99),
        "p99.9": quantile(0.999),
    })
}

/// The machines of processes that have answered.
pub(super) fn machines(findings: &Findings, status: &Status) -> Value {
    let mut machines: BTreeMap<&str, Vec<(&Address, Vec<&ProcessStatus>)>> = BTreeMap::new();
    for (address, workers) in grouped(status) {
        machines.entry(host(address)).or_default().push((address, workers));
    }
    let described = machines.into_iter().filter_map(|(host, processes)| {
        let mut measured = processes.iter().map(|(at, _)| process_reading(findings, at));
        let reading = measured.find_map(|reading| reading)?;
        let mut workers = processes.iter().flat_map(|(_, workers)| workers);
        let is_excluded = workers.all(|worker| is_excluded(status, worker));
        let zone = processes.first().and_then(|(_, workers)| workers.first());
        let gauge = |name| reading.all.gauge(name).unwrap_or_default();
        let (all, available) = (gauge("machine_memory"), gauge("machine_memory_available"));
        let megabits = |counter| json!({ "hz": reading.hz(counter) * 8.0 / 1e6 });
        let cores = gauge("machine_cores").max(1) as f64;
        let utilization = (seconds(reading.hz("machine_cpu")) / cores).clamp(0.0, 1.0);
        let machine = json!({
            "address": host,
            "contributing_workers": processes.len(),
            "cpu": { "logical_core_utilization": utilization },
            "excluded": is_excluded,
            "locality": {
                "machineid": host,
                "zoneid": zone.map_or("", |worker| worker.heartbeat.zone.as_str()),
            },
            "machine_id": host,
            "memory": {
                "committed_bytes": all.saturating_sub(available),
                "free_bytes": available,
                "total_bytes": all,
            },
            "network": {
                "megabits_received": megabits("machine_received"),
                "megabits_sent": megabits("machine_sent"),
                "tcp_segments_retransmitted": { "hz": reading.hz("machine_retransmitted") },
            },
        });
        Some((host.to_owned(), machine))
    });
    Value::Object(described.collect())
}

/// Whether an operator has excluded a process, by its address or by its identity.
fn is_excluded(status: &Status, worker: &ProcessStatus) -> bool {
    let Heartbeat { process, worker, .. } = &worker.heartbeat;
    is_selected(&status.cluster.excluded, *process, &worker.address)
}
