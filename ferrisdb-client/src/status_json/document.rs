//! The document: what `client` and `cluster` say, and in whose words.
//!
//! Names of messages and of states of a recovery are those that FoundationDB documents; texts say what is the matter here.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_core::{
    id::Address,
    service::controller::{
        ClusterState, Heartbeat, LogSet, Phase, ProcessStatus, Status, is_selected,
    },
};
use serde_json::{Map, Value, json};

use super::{Findings, data, is_late, processes};

/// Which protocol of FoundationDB's clients is understood: that of release 7.3.
const PROTOCOL: &str = "fdb00b073000000";

/// The whole document, but for what is FerrisDB's own.
pub(super) fn document(findings: &Findings) -> Value {
    let cluster = match &findings.status {
        Ok(status) => cluster(findings, status),
        Err(_) => unknown_cluster(findings),
    };
    whole_numbers(json!({ "client": client(findings), "cluster": cluster }))
}

/// Numbers as FoundationDB writes them: 0, not 0.0. There are readers that take some of them for integers because of that.
fn whole_numbers(value: Value) -> Value {
    /// Beyond this not every integer has a number with a point.
    const WHOLE_MAX: f64 = (1u64 << 53) as f64;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < WHOLE_MAX => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, whole_numbers(value)));
            Value::Object(fields.collect())
        }
        other => other,
    }
}

fn message(name: &str, description: impl Into<String>) -> Value {
    let description: String = description.into();
    json!({ "name": name, "description": description })
}

/// How many controllers can be reached, and how many there are.
pub(super) fn quorum(findings: &Findings) -> (usize, usize) {
    let reached = findings.coordinators.iter().filter(|(_, answer)| answer.is_ok());
    (reached.count(), findings.coordinators.len())
}

fn is_quorum_reachable(findings: &Findings) -> bool {
    let (reached, all) = quorum(findings);
    reached > all / 2
}

/// Whether nothing has to be done, by anybody.
fn is_healthy(findings: &Findings, status: &Status) -> bool {
    let is_settled = recovery_state(&status.cluster)["name"] == "fully_recovered";
    let is_well = status.stuck.is_empty() && processes::troubled(status).next().is_none();
    findings.is_available()
        && is_settled
        && is_well
        && is_quorum_reachable(findings)
        && data::state(status).is_healthy
}

/// What the client knows by itself.
fn client(findings: &Findings) -> Value {
    let coordinators = findings.coordinators.iter().map(|(address, answer)| {
        json!({
            "address": address.to_string(),
            "protocol": format!("0{PROTOCOL}"),
            "reachable": answer.is_ok(),
        })
    });
    let path = findings.file.path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let is_healthy = findings.status.as_ref().is_ok_and(|status| is_healthy(findings, status));
    json!({
        "cluster_file": {
            "path": path.unwrap_or_default(),
            "up_to_date": findings.file.is_up_to_date,
        },
        "coordinators": {
            "coordinators": coordinators.collect::<Vec<_>>(),
            "quorum_reachable": is_quorum_reachable(findings),
        },
        "database_status": { "available": findings.is_available(), "healthy": is_healthy },
        "messages": client_messages(findings),
        "timestamp": findings.timestamp,
    })
}

fn client_messages(findings: &Findings) -> Vec<Value> {
    let mut messages = Vec::new();
    if !findings.file.is_up_to_date {
        let description = format!(
            "Cluster file is not up to date. It should name these controllers: {}",
            findings.coordinators.iter().map(|(a, _)| a.to_string()).collect::<Vec<_>>().join(",")
        );
        messages.push(message("inconsistent_cluster_file", description));
    }
    let (reached, all) = quorum(findings);
    if !is_quorum_reachable(findings) {
        let description = format!(
            "Unable to reach a quorum of coordinators: {reached} of {all} controllers answer."
        );
        messages.push(message("quorum_not_reachable", description));
    }
    if let Err(error) = &findings.status {
        let mut answers =
            findings.coordinators.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let name = match answers.any(|leader| leader.address.is_some()) {
            false if reached > 0 => "no_cluster_controller",
            false => "status_incomplete_coordinators",
            true if is_late(error) => "unreachable_cluster_controller",
            true => "status_incomplete_error",
        };
        messages.push(message(name, error.to_string()));
        messages.push(message("status_incomplete_cluster", "Could not retrieve cluster status."));
    }
    messages
}

/// The cluster, if the leading controller says nothing of it.
fn unknown_cluster(findings: &Findings) -> Value {
    let error = findings.status.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let mut cluster = json!({
        "connection_string": findings.connection.to_string(),
        "database_available": findings.is_available(),
        "layers": { "_valid": false, "_error": error },
        "messages": probe_messages(findings),
    });
    if findings.is_available() {
        cluster["latency_probe"] = latency_probe(findings);
    }
    cluster
}

/// The cluster, as the leading controller and each process see it.
fn cluster(findings: &Findings, status: &Status) -> Value {
    let state = &status.cluster;
    let data = data::state(status);
    let processes = processes::processes(findings, status);
    let excluded = state.excluded.iter().map(|selector| {
        let selects = |known: &&ProcessStatus| {
            let Heartbeat { process, worker, .. } = &known.heartbeat;
            is_selected(std::slice::from_ref(selector), *process, &worker.address)
        };
        let known = status.processes.iter().find(selects);
        let address = known.map_or_else(
            || selector.to_string(),
            |known| known.heartbeat.worker.address.to_string(),
        );
        json!({ "address": address })
    });
    json!({
        "active_primary_dc": "",
        "cluster_controller_timestamp": findings.timestamp,
        "configuration": configuration(state, excluded.collect()),
        "connection_string": connection_string(findings, state),
        "data": data::data(findings, status, &data),
        "database_available": findings.is_available(),
        "database_lock_state": { "locked": false },
        "database_locked": false,
        "datacenter_lag": { "seconds": 0.0, "versions": 0 },
        "degraded_processes": processes::troubled(status).count(),
        "fault_tolerance": data::fault_tolerance(findings, status),
        "full_replication": data.is_healthy,
        "generation": state.generation.0,
        "incompatible_connections": [],
        "latency_probe": latency_probe(findings),
        "layers": { "_valid": true },
        "logs": state.log_sets.iter().map(|set| log_set(set, status)).collect::<Vec<_>>(),
        "machines": processes::machines(findings, status),
        "messages": cluster_messages(findings, status),
        "processes": processes,
        "protocol_version": PROTOCOL,
        "qos": data::qos(findings, status),
        "recovery_state": recovery_state(state),
        "workload": data::workload(findings, status),
    })
}

/// As a cluster file should have it now.
fn connection_string(findings: &Findings, state: &ClusterState) -> String {
    let mut connection = findings.connection.clone();
    let members: BTreeSet<&Address> =
        state.controllers.iter().map(|member| &member.address).collect();
    if findings.file.is_up_to_date && findings.file.path.is_some() || members.is_empty() {
        return connection.to_string();
    }
    connection.addresses = members.into_iter().cloned().collect();
    connection.to_string()
}

fn latency_probe(findings: &Findings) -> Value {
    let probe = &findings.probe;
    let steps = [
        ("transaction_start_seconds", probe.start),
        ("immediate_priority_transaction_start_seconds", probe.start),
        ("read_seconds", probe.read),
        ("commit_seconds", probe.commit),
    ];
    let known = steps
        .into_iter()
        .filter_map(|(name, time)| Some((name.to_owned(), Value::from(time?.as_secs_f64()))));
    Value::Object(known.collect())
}

/// Which step of the probe has failed, if one has.
fn probe_messages(findings: &Findings) -> Vec<Value> {
    let probe = &findings.probe;
    let Some(error) = &probe.failure else { return Vec::new() };
    let name = match (probe.start, probe.read) {
        (None, _) => "transaction_start_probe_timeout",
        (Some(_), None) => "read_probe_timeout",
        _ => "commit_probe_timeout",
    };
    vec![message(name, error.to_string())]
}

fn cluster_messages(findings: &Findings, status: &Status) -> Vec<Value> {
    let mut messages = probe_messages(findings);
    let unreachable = processes::unreachable(status);
    if !unreachable.is_empty() {
        let addresses: Vec<Value> = unreachable
            .iter()
            .map(|(address, why)| json!({ "address": address.to_string(), "description": why }))
            .collect();
        messages.push(json!({
            "name": "unreachable_processes",
            "description": "The cluster has some unreachable processes.",
            "unreachable_processes": addresses,
        }));
    }
    let silent = findings.metrics.iter().filter_map(|reading| {
        let error = reading.roles.as_ref().err()?;
        Some(json!({ "description": error.to_string() }))
    });
    let silent: Vec<Value> = silent.collect();
    if !silent.is_empty() {
        messages.push(json!({
            "name": "status_incomplete",
            "description": "Unable to retrieve all status information.",
            "reasons": silent,
        }));
    }
    if !status.stuck.is_empty() {
        // What the data waits for: FoundationDB's name for what takes too long there.
        messages.push(message("full_replication_timeout", status.stuck.join("; ")));
    }
    messages
}

/// How far the newest generation is, in FoundationDB's terms.
fn recovery_state(state: &ClusterState) -> Value {
    let (name, description) = match &state.phase {
        // The logs of generations before it are there as long as a storage server still needs them.
        Phase::Active if state.log_sets.len() > 1 => (
            "all_logs_recruited",
            "Recovery complete; data is still read from earlier logs.".into(),
        ),
        Phase::Active => ("fully_recovered", "Recovery complete.".to_owned()),
        Phase::Waiting { reason } if state.configuration.is_none() => {
            ("configuration_never_created", reason.clone())
        }
        Phase::Waiting { reason } => ("recruiting_transaction_servers", reason.clone()),
        Phase::Recovering { step } => (of_step(step), step.clone()),
    };
    let mut recovery = json!({
        "name": name,
        "description": description,
        "active_generations": state.log_sets.len().max(1),
    });
    if let (false, Some(configuration)) = (state.phase == Phase::Active, &state.configuration) {
        recovery["required_logs"] = configuration.logs_wanted().into();
        recovery["required_commit_proxies"] = configuration.proxies.max(1).into();
        recovery["required_grv_proxies"] = configuration.proxies.max(1).into();
        recovery["required_resolvers"] = configuration.resolvers.max(1).into();
    }
    recovery
}

/// FoundationDB's name for a step of a recovery.
pub(super) fn of_step(step: &str) -> &'static str {
    const NAMES: [(&str, &str); 4] = [
        ("beginning", "locking_coordinated_state"),
        ("locking", "locking_old_transaction_servers"),
        ("recruiting proxies", "initializing_transaction_servers"),
        ("activating", "writing_coordinated_state"),
    ];
    let known = NAMES.into_iter().find(|(begin, _)| step.starts_with(begin));
    known.map_or("recruiting_transaction_servers", |(_, name)| name)
}

fn configuration(state: &ClusterState, excluded: Vec<Value>) -> Value {
    let Some(configuration) = &state.configuration else {
        return json!({ "excluded_servers": excluded });
    };
    let (copies, proxies) = (configuration.redundancy.copies(), configuration.proxies.max(1));
    let policy = match copies {
        1 => "one".to_owned(),
        copies => format!("zoneid^{copies} x 1"),
    };
    json!({
        "commit_proxies": proxies,
        "coordinators_count": state.controllers.len(),
        "excluded_servers": excluded,
        "grv_proxies": proxies,
        "log_anti_quorum": 0,
        "log_replicas": copies,
        "log_replication_policy": policy,
        "logs": configuration.logs_wanted(),
        "proxies": proxies,
        "redundancy_mode": configuration.redundancy.to_string(),
        "resolvers": configuration.resolvers.max(1),
        "storage_engine": "ssd-rocksdb-v1",
        "storage_replicas": copies,
        "storage_replication_policy": policy,
        "tenant_mode": "disabled",
        "usable_regions": 1,
    })
}

fn log_set(set: &LogSet, status: &Status) -> Value {
    let alive: BTreeMap<_, bool> =
        status.processes.iter().map(|known| (known.heartbeat.process, known.alive)).collect();
    let is_alive = |process| alive.get(&process).copied().unwrap_or(false);
    let interfaces = set.logs.iter().map(|log| {
        json!({
            "id": id_of(log.process.0, log.endpoint.instance),
            "healthy": is_alive(log.process),
            "address": log.endpoint.address.to_string(),
        })
    });
    let dead = set.logs.iter().filter(|log| !is_alive(log.process)).count();
    let copies = set.replication.max(1) as usize;
    let mut described: Map<String, Value> = Map::new();
    let mut say = |name: &str, value: Value| described.insert(name.to_owned(), value);
    say("begin_version", set.begin_version.0.into());
    say("current", set.end_version.is_none().into());
    if let Some(end) = set.end_version {
        say("end_version", end.0.into());
    }
    say("epoch", set.generation.0.into());
    say("log_fault_tolerance", (copies - 1).saturating_sub(dead).into());
    say("log_interfaces", interfaces.collect());
    say("log_replication_factor", copies.into());
    say("log_write_anti_quorum", 0.into());
    say("possibly_losing_data", (dead >= copies).into());
    Value::Object(described)
}

/// An id of sixteen digits of a role: its process, and which instance of it.
pub(super) fn id_of(process: u128, instance: u64) -> String {
    format!("{:016x}", (process as u64) ^ instance)
}
