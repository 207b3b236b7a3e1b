//! The status for programs. Keys are in their escaped form, ids are strings.

use ferrisdb_client::KeyRange;
use ferrisdb_core::{
    Shard, Tag,
    id::ProcessId,
    key::escape,
    service::controller::{LogSet, Phase, ProcessStatus, StorageServer},
};
use serde_json::{Value, json};

use super::{
    facts::{Availability, Facts},
    findings::{Finding, Severity},
    tolerance::{Loss, controllers_to_spare, tolerance},
};

/// All that the controller told, and what we make of it.
pub(crate) fn object(facts: &Facts<'_>, findings: &[Finding]) -> Value {
    let status = facts.status;
    let cluster = &status.cluster;
    let (phase, waits_for) = match &cluster.phase {
        Phase::Active => ("active", None),
        Phase::Waiting { reason } => ("waiting", Some(reason)),
        Phase::Recovering { step } => ("recovering", Some(step)),
    };
    let health = match findings.first().map(|worst| worst.severity) {
        None | Some(Severity::Advice) => "ok",
        Some(Severity::Weak) => "degraded",
        Some(Severity::Unknown) => "unknown",
        Some(Severity::Down) => "down",
    };
    let tolerance = tolerance(facts);
    let mut object = json!({
        "health": health,
        "available": available(facts.availability(), facts.shards().len()),
        "findings": findings.iter().map(Finding::object).collect::<Vec<_>>(),
        "can_be_lost": {
            "data": loss(&tolerance.data),
            "availability": loss(&tolerance.availability),
            "controllers": controllers_to_spare(facts),
        },
        "cluster_id": cluster.cluster_id.to_string(),
        "controller": status.controller.to_string(),
        "controllers": controllers(facts),
        "configuration": cluster.configuration.as_ref().map(|shape| json!({
            "redundancy": shape.redundancy.to_string(),
            "copies": shape.redundancy.copies(),
            "logs": shape.logs,
            "proxies": shape.proxies,
            "resolvers": shape.resolvers,
            "storage_replace_after_ms": shape.storage_replace_after_ms,
        })),
        "zones": facts.zones(),
        "generation": cluster.generation.0,
        "phase": phase,
        "waits_for": waits_for,
        "leads_for_ms": status.leads_for_ms,
        "recoveries": status.recoveries,
        "last_recovery": status.last_recovery.as_ref().map(|last| json!({
            "generation": last.generation.0,
            "reason": last.reason,
            "duration_ms": last.duration_ms,
            "attempts": last.attempts,
        })),
        "repairs": status.repairs,
        "stuck": status.stuck,
        "unreached": status
            .unreached
            .iter()
            .map(|(from, to)| json!({ "from": from.to_string(), "to": to.to_string() }))
            .collect::<Vec<_>>(),
        "revision": cluster.revision,
        "metadata_version": status.metadata_version.0,
    });
    object["coordinator"] = json!(cluster.coordinator.as_ref().map(|coordinator| json!({
        "sequencer": coordinator.sequencer.to_string(),
        "proxies": texts(&coordinator.proxies),
        "resolvers": coordinator
            .resolvers
            .iter()
            .map(|(keys, resolver)| json!({ "endpoint": resolver.to_string(), "range": range(keys) }))
            .collect::<Vec<_>>(),
    })));
    object["log_sets"] = cluster.log_sets.iter().map(log_set).collect();
    object["processes"] = status.processes.iter().map(|one| process(facts, one)).collect();
    object["excluded"] = facts
        .excluded()
        .into_iter()
        .map(|excluded| {
            json!({
                "excluded": excluded.selector.to_string(),
                "is": excluded.name,
                "drained": excluded.uses.is_empty(),
                "uses": excluded.uses,
            })
        })
        .collect();
    object["storage_servers"] =
        cluster.storage_servers.iter().map(|server| storage_server(facts, server)).collect();
    object["shards"] =
        facts.shards().iter().map(|one| shard(one, facts.members_alive(one))).collect();
    object
}

/// Reads are "all", "some" or "none": of the shards, because a key is read from its shard's team alone. "unknown" while nothing
/// can be said of some.
fn available(availability: Availability, shards: usize) -> Value {
    let reads = match availability {
        Availability { is_active: true, shards_unreadable: 0, shards_unknown: 1.. } => "unknown",
        Availability { is_active: true, shards_unreadable: 0, .. } => "all",
        Availability { is_active: true, shards_unreadable, .. } if shards_unreadable < shards => {
            "some"
        }
        _ => "none",
    };
    json!({
        "reads": reads,
        "writes": availability.is_active,
        "shards_unreadable": availability.shards_unreadable,
    })
}

fn loss(loss: &Loss) -> Value {
    json!({ "zones": loss.zones, "limited_by": loss.limited_by })
}

fn controllers(facts: &Facts<'_>) -> Vec<Value> {
    let status = facts.status;
    let controller = |member: &ferrisdb_client::ControllerMember| {
        let mut silent = status.silent_controllers.iter();
        let silent = silent.find(|(address, _)| *address == member.address);
        json!({
            "address": member.address.to_string(),
            "node": format!("{:016x}", member.node),
            "leads": member.address == status.controller,
            "failure": silent.map(|(_, why)| why),
        })
    };
    status.cluster.controllers.iter().map(controller).collect()
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
        "recovery_version": set.recovery_version.0,
        "end_version": set.end_version.map(|version| version.0),
    })
}

fn process(facts: &Facts<'_>, process: &ProcessStatus) -> Value {
    let heartbeat = &process.heartbeat;
    json!({
        "process": heartbeat.process.to_string(),
        "class": heartbeat.class.to_string(),
        "zone": heartbeat.zone,
        "address": heartbeat.worker.address.to_string(),
        "alive": process.alive,
        "failure": process.failure,
        "trouble": heartbeat.trouble,
        "accuses": texts(&heartbeat.accused),
        "excluded": facts.is_excluded(heartbeat.process),
        "silent_ms": process.silent_ms,
        "version": heartbeat.progress.version.0,
        "durable_version": heartbeat.progress.durable_version.0,
        "lag_versions": facts.lag(process),
        "bytes": heartbeat.progress.bytes,
    })
}

fn storage_server(facts: &Facts<'_>, server: &StorageServer) -> Value {
    let shards = |names: fn(&Shard) -> &[Tag]| {
        facts.shards().iter().filter(|shard| names(shard).contains(&server.tag)).count()
    };
    let report = copying(facts, server.process);
    json!({
        "tag": server.tag.0,
        "process": server.process.to_string(),
        "endpoint": server.endpoint.to_string(),
        "zone": server.zone,
        "alive": facts.server_is_alive(server.tag),
        "shards": shards(|shard| &shard.teams.team),
        "joining": shards(|shard| &shard.teams.joining),
        "copying": report.iter().flat_map(|report| &report.copying).map(range).collect::<Vec<_>>(),
        "copied_bytes": report.map(|report| report.copied_bytes),
    })
}

fn copying<'a>(
    facts: &Facts<'a>,
    process: ProcessId,
) -> Option<&'a ferrisdb_core::service::controller::StorageReport> {
    facts.process(process)?.heartbeat.storage.as_ref()
}

fn shard(shard: &Shard, alive: usize) -> Value {
    let tags = |tags: &[Tag]| tags.iter().map(|tag| tag.0).collect::<Vec<_>>();
    json!({
        "range": range(&shard.range),
        "team": tags(&shard.teams.team),
        "joining": tags(&shard.teams.joining),
        "alive": alive,
    })
}
