//! What is wrong with a cluster, and what a person can do about it: a pure function of the status.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_client::{Status, Version};
use ferrisdb_core::{
    id::{ProcessId, Tag},
    limits::{VERSIONS_PER_SECOND, WINDOW_VERSIONS},
    service::controller::{Phase, ProcessClass, ProcessStatus, Shard},
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Reads or writes fail.
    Down,
    /// All works; less may fail next than should be able to.
    Weak,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) what: String,
    pub(crate) todo: String,
}

/// Everything that is wrong, the worst first.
pub(crate) fn findings(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(phase(status));
    findings.extend(shards(status));
    findings.extend(processes(status));
    findings.extend(lagging(status));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The newest version that any process has reported.
pub(crate) fn newest_version(status: &Status) -> Version {
    let versions = status.processes.iter().map(|process| process.heartbeat.progress.version);
    versions.max().unwrap_or(Version::ZERO)
}

/// How far a process is behind the newest version that is known, in versions. A coordinator is not behind
/// anything: it is the one that goes ahead.
pub(crate) fn lag(status: &Status, process: &ProcessStatus) -> Option<u64> {
    match process.heartbeat.class {
        ProcessClass::Coordinator => None,
        ProcessClass::Log | ProcessClass::Storage => {
            Some(newest_version(status).0.saturating_sub(process.heartbeat.progress.version.0))
        }
    }
}

/// Versions as the seconds in which they pass.
pub(crate) fn seconds(versions: u64) -> f64 {
    versions as f64 / VERSIONS_PER_SECOND as f64
}

/// The processes of the storage servers, dead or alive, by tag.
pub(crate) fn storage_processes(status: &Status) -> BTreeMap<Tag, (ProcessId, bool)> {
    let alive: BTreeSet<ProcessId> = status
        .processes
        .iter()
        .filter(|process| process.alive)
        .map(|process| process.heartbeat.process)
        .collect();
    let servers = status.cluster.storage_servers.iter();
    servers.map(|server| (server.tag, (server.process, alive.contains(&server.process)))).collect()
}

/// How many of a shard's servers are alive.
pub(crate) fn servers_alive(shard: &Shard, servers: &BTreeMap<Tag, (ProcessId, bool)>) -> usize {
    shard.team.iter().filter(|tag| servers.get(tag).is_some_and(|(_, alive)| *alive)).count()
}

fn phase(status: &Status) -> Option<Finding> {
    let (what, todo) = match &status.cluster.phase {
        Phase::Active => return None,
        Phase::Waiting { reason } => (
            format!("the cluster does not serve: {reason}"),
            String::from(
                "start what is missing, or restart the processes below that are not alive; \
                 the cluster goes on by itself",
            ),
        ),
        Phase::Recovering { step } => (
            format!("the cluster does not serve: a recovery is under way ({step})"),
            format!(
                "wait some seconds and ask again; if the step stays the same, look at the processes \
                 below and at the log of the controller at {}",
                status.controller
            ),
        ),
    };
    Some(Finding { severity: Severity::Down, what, todo })
}

fn processes(status: &Status) -> impl Iterator<Item = Finding> {
    status.processes.iter().filter(|process| !process.alive).map(|process| {
        let heartbeat = &process.heartbeat;
        let what = format!(
            "the {} process at {} has been silent for {} s",
            heartbeat.class,
            heartbeat.worker.address,
            process.silent_ms / 1000
        );
        let todo = match heartbeat.class {
            ProcessClass::Coordinator => {
                String::from("restart it, there or elsewhere: it keeps nothing on disk")
            }
            ProcessClass::Log | ProcessClass::Storage => format!(
                "restart it with the same data directory (process {}); its host, disk and log say why it ended",
                heartbeat.process
            ),
        };
        Finding { severity: Severity::Weak, what, todo }
    })
}

/// Shards that nobody serves, and those that the next failure could take away; summed up, because a cluster
/// has many of them.
fn shards(status: &Status) -> Vec<Finding> {
    let servers = storage_processes(status);
    let shards = &status.cluster.shards;
    let dead: Vec<&Shard> =
        shards.iter().filter(|shard| servers_alive(shard, &servers) == 0).collect();
    let weak = shards.iter().filter(|shard| {
        let alive = servers_alive(shard, &servers);
        alive > 0 && alive < shard.team.len()
    });
    let weak = weak.count();
    let mut findings = Vec::new();
    if let Some(first) = dead.first() {
        findings.push(Finding {
            severity: Severity::Down,
            what: format!(
                "{} of {} shards cannot be read: no server of their teams is alive (the first is {})",
                dead.len(),
                shards.len(),
                first.range
            ),
            todo: String::from(
                "restart at least one storage process of each team, with its data directory",
            ),
        });
    }
    if weak > 0 {
        findings.push(Finding {
            severity: Severity::Weak,
            what: format!("{weak} of {} shards have lost a part of their team", shards.len()),
            todo: String::from("restart the storage processes that are not alive"),
        });
    }
    findings
}

/// A storage server that is further behind than the window cannot serve a new read version in time.
fn lagging(status: &Status) -> impl Iterator<Item = Finding> {
    let behind = |process: &ProcessStatus| {
        let versions = lag(status, process)?;
        let is_storage = process.heartbeat.class == ProcessClass::Storage;
        (process.alive && is_storage && versions > WINDOW_VERSIONS).then_some(versions)
    };
    status.processes.iter().filter_map(move |process| {
        let versions = behind(process)?;
        let address = &process.heartbeat.worker.address;
        Some(Finding {
            severity: Severity::Weak,
            what: format!(
                "the storage process at {address} is {:.1} s behind; reads from it fail or wait",
                seconds(versions)
            ),
            todo: String::from(
                "ask again: after a start or a recovery (which counts as 100 s) it catches up by itself; \
                 if it does not, look at its disk and processor",
            ),
        })
    })
}
