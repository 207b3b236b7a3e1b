//! The status for programs. Keys are in their escaped form, ids are strings.

use ferrisdb_client::{KeyRange, Status};
use ferrisdb_core::{
    key::escape,
    service::controller::{LogSet, Phase, ProcessStatus, Shard},
};
use serde_json::{Value, json};

use super::findings::{Finding, Severity, lag, servers_alive, storage_processes};

/// All that the controller told, and what we make of it.
pub(crate) fn object(status: &Status, findings: &[Finding]) -> Value {
    let cluster = &status.cluster;
    let servers = storage_processes(status);
    let (phase, waits_for) = match &cluster.phase {
        Phase::Active => ("active", None),
        Phase::Waiting { reason } => ("waiting", Some(reason)),
        Phase::Recovering { step } => ("recovering", Some(step)),
    };
    let health = match findings.first().map(|worst| worst.severity) {
        None => "ok",
        Some(Severity::Weak) => "degraded",
        Some(Severity::Down) => "down",
    };
    json!({
        "health": health,
        "findings": findings
            .iter()
            .map(|finding| json!({ "what": finding.what, "do": finding.todo }))
            .collect::<Vec<_>>(),
        "cluster_id": cluster.cluster_id.to_string(),
        "controller": status.controller.to_string(),
        "generation": cluster.generation.0,
        "phase": phase,
        "waits_for": waits_for,
        "recoveries": status.recoveries,
        "revision": cluster.revision,
        "coordinator": cluster.coordinator.as_ref().map(|coordinator| json!({
            "sequencer": coordinator.sequencer.to_string(),
            "proxies": texts(&coordinator.proxies),
            "resolvers": coordinator
                .resolvers
                .iter()
                .map(|(keys, resolver)| json!({ "endpoint": resolver.to_string(), "range": range(keys) }))
                .collect::<Vec<_>>(),
        })),
        "log_sets": cluster.log_sets.iter().map(log_set).collect::<Vec<_>>(),
        "processes": status.processes.iter().map(|p| process(status, p)).collect::<Vec<_>>(),
        "storage_servers": cluster
            .storage_servers
            .iter()
            .map(|server| json!({
                "tag": server.tag.0,
                "process": server.process.to_string(),
                "endpoint": server.endpoint.to_string(),
            }))
            .collect::<Vec<_>>(),
        "shards": cluster
            .shards
            .iter()
            .map(|one| shard(one, servers_alive(one, &servers)))
            .collect::<Vec<_>>(),
    })
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn range(keys: &KeyRange) -> Value {
    json!({ "begin": escape(&keys.begin), "end": escape(&keys.end) })
}

fn log_set(set: &LogSet) -> Value {
    json!({
        "generation": set.generation.0,
        "logs": set.logs.iter().map(|log| log.endpoint.to_string()).collect::<Vec<_>>(),
        "replication": set.replication,
        "begin_version": set.begin_version.0,
        "end_version": set.end_version.map(|version| version.0),
    })
}

fn process(status: &Status, process: &ProcessStatus) -> Value {
    let heartbeat = &process.heartbeat;
    json!({
        "process": heartbeat.process.to_string(),
        "class": heartbeat.class.to_string(),
        "address": heartbeat.worker.address.to_string(),
        "alive": process.alive,
        "silent_ms": process.silent_ms,
        "version": heartbeat.progress.version.0,
        "durable_version": heartbeat.progress.durable_version.0,
        "lag_versions": lag(status, process),
        "bytes": heartbeat.progress.bytes,
    })
}

fn shard(shard: &Shard, alive: usize) -> Value {
    json!({
        "range": range(&shard.range),
        "team": shard.team.iter().map(|tag| tag.0).collect::<Vec<_>>(),
        "alive": alive,
    })
}
