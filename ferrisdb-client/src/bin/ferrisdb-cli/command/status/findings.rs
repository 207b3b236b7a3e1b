//! What is wrong with a cluster, and what a person can do about it: a pure function of the status.
//!
//! Each finding is one sentence on what is the matter and one on what to do. What the cluster mends by itself is a
//! finding, too, as long as less may fail than should be able to; what to do is then to wait.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_core::{
    Shard,
    id::{Address, ProcessId},
    limits::WINDOW_VERSIONS,
    service::controller::{DISK_IS_FULL, Phase, ProcessClass, ProcessStatus},
};
use serde_json::{Value, json};

use super::{
    facts::{Facts, plural, seconds, spoken},
    tolerance::{controllers_to_spare, tolerance},
};

/// Findings of one kind that are told one by one; of more, only the number is.
const LISTED_MAX: usize = 3;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Reads or writes fail.
    Down,
    /// Not known yet.
    Unknown,
    /// All works; less may fail next than should be able to.
    Weak,
    /// All works as it was set up; it could be set up better.
    Advice,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) what: String,
    pub(crate) todo: String,
}

impl Finding {
    fn down(what: impl Into<String>, todo: impl Into<String>) -> Finding {
        Finding { severity: Severity::Down, what: what.into(), todo: todo.into() }
    }

    fn weak(what: impl Into<String>, todo: impl Into<String>) -> Finding {
        Finding { severity: Severity::Weak, what: what.into(), todo: todo.into() }
    }

    /// For programs.
    pub(crate) fn object(&self) -> Value {
        let severity = match self.severity {
            Severity::Down => "down",
            Severity::Unknown => "unknown",
            Severity::Weak => "weak",
            Severity::Advice => "advice",
        };
        json!({ "severity": severity, "what": self.what, "do": self.todo })
    }
}

/// Everything that is wrong, the worst first.
pub(crate) fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(phase(facts));
    findings.extend(early(facts));
    findings.extend(lost_logs(facts));
    findings.extend(shards(facts));
    findings.extend(stuck(facts));
    findings.extend(processes(facts));
    findings.extend(unheard(facts));
    findings.extend(controllers(facts));
    findings.extend(lagging(facts));
    findings.extend(accused(facts));
    findings.extend(shape(facts));
    if findings.is_empty() {
        findings.extend(less_than_promised(facts));
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// A leader that has just begun has not heard of everybody.
fn early(facts: &Facts<'_>) -> Option<Finding> {
    let count = facts.unheard().into_iter().filter(|process| facts.is_unknown(*process)).count();
    let leads_for = spoken(facts.status.leads_for_ms);
    (count > 0).then(|| Finding {
        severity: Severity::Unknown,
        what: format!(
            "the controller at {} leads since {leads_for} and has not heard of {} yet",
            facts.status.controller,
            plural(count, "process", "processes")
        ),
        todo: format!("ask again in {}", spoken(facts.status.failure_timeout_ms)),
    })
}

fn phase(facts: &Facts<'_>) -> Option<Finding> {
    let status = facts.status;
    let (what, todo) = match &status.cluster.phase {
        Phase::Active => return None,
        Phase::Waiting { reason } => (
            format!("neither reads nor writes work, the cluster waits: {reason}"),
            String::from(
                "start what is missing, or restart the processes below that are not alive; \
                 the cluster goes on by itself",
            ),
        ),
        Phase::Recovering { step } => (
            format!("neither reads nor writes work, a recovery is under way: {step}"),
            format!(
                "wait some seconds and ask again; if the step stays the same, look at the processes \
                 below and at the log of the controller at {}",
                status.controller
            ),
        ),
    };
    Some(Finding::down(what, todo))
}

/// Messages that no living log has: a recovery cannot do without them, and a storage server is not rid of its log
/// before it has them.
fn lost_logs(facts: &Facts<'_>) -> Vec<Finding> {
    let sets = &facts.status.cluster.log_sets;
    let mut findings = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        let dead_for = |tag| {
            let mut logs = set.logs_of(tag).peekable();
            logs.peek().is_some()
                && logs.all(|log| !facts.is_alive(log.process) && !facts.is_unknown(log.process))
        };
        let is_last = index + 1 == sets.len();
        let is_down = is_last && facts.status.cluster.phase != Phase::Active;
        let Some(tag) = facts.tags_needed(set).find(|tag| dead_for(*tag)) else {
            // No storage server misses anything, and yet no recovery can know what was committed.
            let groups = set.copy_groups();
            let is_alive = |index: usize| facts.is_alive(set.logs[index].process);
            if let Some(group) = groups.without_member(is_alive).filter(|_| is_down) {
                let logs = groups.members(group).map(|index| facts.name(set.logs[index].process));
                let logs: Vec<String> = logs.collect();
                findings.push(Finding::down(
                    format!("a recovery needs a log out of {}, and none is alive", logs.join(", ")),
                    "restart one of them with its data directory",
                ));
            }
            continue;
        };
        let logs: Vec<String> = set.logs_of(tag).map(|log| facts.name(log.process)).collect();
        let what = format!(
            "no log that is alive has the newest data of storage {tag} (generation {}); nobody else has it",
            set.generation
        );
        let todo = format!(
            "restart one of these with its data directory: {}. If their disks are lost, so is what was \
             committed last",
            logs.join(", ")
        );
        findings.push(match is_down {
            true => Finding::down(what, todo),
            false => Finding::weak(what, todo),
        });
    }
    findings
}

/// Shards that nobody serves, and those that have fewer living copies than they should; summed up, because a
/// cluster has many of them.
fn shards(facts: &Facts<'_>) -> Vec<Finding> {
    let shards = facts.shards();
    let all = shards.len();
    let is_known = |shard: &&Shard| !facts.has_unknown_member(shard);
    let known = || shards.iter().filter(is_known);
    let dead: Vec<&Shard> = known().filter(|shard| facts.members_alive(shard) == 0).collect();
    let is_weak = |shard: &&Shard| {
        let alive = facts.members_alive(shard);
        alive > 0 && alive < facts.members_wanted(shard)
    };
    let weak = known().filter(is_weak).count();
    let mut findings = Vec::new();
    if let Some(first) = dead.first() {
        let tags = first.teams.team.iter();
        let servers: Vec<String> = tags
            .map(|tag| match facts.server(*tag) {
                Some(server) => facts.name(server.process),
                None => format!("storage {tag}, which was replaced"),
            })
            .collect();
        findings.push(Finding::down(
            format!(
                "{} of {all} shards cannot be read: no storage server of their teams is alive (the first is {})",
                dead.len(),
                first.range
            ),
            format!(
                "restart at least one storage process of each team, with its data directory; of the first shard: \
                 {}",
                servers.join(", ")
            ),
        ));
    }
    if weak > 0 {
        let what = format!("{weak} of {all} shards have fewer living copies than they should");
        let status = facts.status;
        let replace_after = status.cluster.configuration.as_ref();
        let replace_after = replace_after.map_or(0, |shape| shape.storage_replace_after_ms);
        let todo = match status.repairs.is_empty() {
            false => String::from(
                "wait: the cluster copies them to other servers by itself, see the repairs below; restarting \
                 the storage processes that are not alive makes it quicker",
            ),
            true => format!(
                "restart the storage processes that are not alive; those that stay away for {} are replaced",
                spoken(replace_after)
            ),
        };
        findings.push(Finding::weak(what, todo));
    }
    findings
}

/// What the controller wants to do about the data and cannot.
fn stuck(facts: &Facts<'_>) -> Option<Finding> {
    let stuck = &facts.status.stuck;
    if stuck.is_empty() || facts.is_early() {
        return None;
    }
    let what = format!("the data cannot be repaired: {}", listed(stuck));
    let todo = format!(
        "restart the storage processes that are not alive, or start new ones in zones that have none (--zone): {} \
         zones are needed; what was excluded by mistake is taken back by ferrisdb-cli include, and ferrisdb-cli \
         configure --redundancy does with fewer copies for good",
        facts.copies()
    );
    Some(Finding::weak(what, todo))
}

/// The first of many, and how many more there are.
fn listed(items: &[String]) -> String {
    let first = items.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join("; ");
    match items.len().saturating_sub(LISTED_MAX) {
        0 => first,
        more => format!("{first}; and {more} more"),
    }
}

/// Processes that have failed. Those that are excluded and have nothing left may go.
fn processes<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = Finding> + 'a {
    let has_failed = |process: &&ProcessStatus| {
        let id = process.heartbeat.process;
        let may_go = facts.is_excluded(id) && facts.uses_of(id).is_empty();
        !process.alive && !may_go
    };
    facts.status.processes.iter().filter(has_failed).map(|process| {
        let heartbeat = &process.heartbeat;
        let failure = process.failure.as_deref().unwrap_or("no reason is known");
        let name = facts.name(heartbeat.process);
        let silent = spoken(process.silent_ms);
        let what = format!("the {name} has failed: {failure} (last heard of {silent} ago)");
        let todo = match (heartbeat.class, &heartbeat.trouble) {
            (ProcessClass::Coordinator, _) => {
                String::from("restart it, there or elsewhere: it keeps nothing on disk")
            }
            (_, Some(trouble)) if trouble.starts_with(DISK_IS_FULL) => format!(
                "free space on its disk, or give it more: the process goes on by itself then, and what it keeps stays; \
                 its address is {}",
                heartbeat.worker.address
            ),
            (_, Some(_)) => format!(
                "look at its disk and its log; if the disk is lost, start a new process with an empty directory, \
                 and exclude this one: ferrisdb-cli exclude {}",
                heartbeat.process
            ),
            (_, None) => format!(
                "restart it with the same data directory (process {}); its host, disk and log say why it ended",
                heartbeat.process
            ),
        };
        Finding::weak(what, todo)
    })
}

/// Who keeps data and was not heard of since the controllers have this leader, unless it may go.
fn unheard<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = Finding> + 'a {
    let unheard = facts.unheard().into_iter();
    let is_needed = |process: &ProcessId| {
        !facts.is_unknown(*process)
            && !facts.uses_of(*process).is_empty()
            && !needed_by_nobody(facts, *process)
    };
    unheard.filter(is_needed).map(|process| {
        Finding::weak(
            format!("the {} was not heard of since this controller leads", facts.name(process)),
            format!("restart it with the same data directory (process {process})"),
        )
    })
}

/// Whether all that a process keeps are logs that all storage servers have on their own disks.
fn needed_by_nobody(facts: &Facts<'_>, process: ProcessId) -> bool {
    let cluster = &facts.status.cluster;
    let stores = cluster.storage_servers.iter().any(|server| server.process == process);
    let mut sets = cluster.log_sets.iter().filter(|set| {
        set.logs.iter().any(|log| log.process == process) && facts.tags_needed(set).next().is_some()
    });
    !stores && sets.next().is_none()
}

fn controllers(facts: &Facts<'_>) -> Vec<Finding> {
    let status = facts.status;
    let all = status.cluster.controllers.len();
    let spare = controllers_to_spare(facts);
    let then = match spare {
        0 => String::from("no other controller may be lost"),
        spare => format!("{spare} more may be lost"),
    };
    let finding = |(address, why): &(Address, String)| {
        Finding::weak(
            format!("the controller at {address} is silent, one of {all}; {then}: {why}"),
            format!(
                "restart it with its data directory; if its disk is lost, start it with an empty one and give it its \
                 place anew: ferrisdb-cli controllers remove {address}, then controllers add {address}"
            ),
        )
    };
    status.silent_controllers.iter().map(finding).collect()
}

/// A storage server that is further behind than the window cannot serve a new read version in time.
fn lagging<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = Finding> + 'a {
    let behind = |process: &ProcessStatus| {
        let versions = facts.lag(process)?;
        let is_storage = process.heartbeat.class == ProcessClass::Storage;
        (process.alive && is_storage && versions > WINDOW_VERSIONS).then_some(versions)
    };
    facts.status.processes.iter().filter_map(move |process| {
        let versions = behind(process)?;
        let name = facts.name(process.heartbeat.process);
        Some(Finding::weak(
            format!("the {name} is {:.1} s behind; reads from it fail or wait", seconds(versions)),
            "ask again: after a start or a recovery (which counts as 100 s) it catches up by itself; \
             if it does not, look at its disk and processor",
        ))
    })
}

/// Processes that live, and yet did not answer others.
fn accused(facts: &Facts<'_>) -> Vec<Finding> {
    let mut by: BTreeMap<&Address, BTreeSet<&Address>> = BTreeMap::new();
    for (accuser, accused) in &facts.status.unreached {
        by.entry(accused).or_default().insert(accuser);
    }
    for process in facts.status.processes.iter().filter(|process| process.alive) {
        for accused in &process.heartbeat.accused {
            by.entry(accused).or_default().insert(&process.heartbeat.worker.address);
        }
    }
    // Whoever is dead is a finding already.
    let lives = |address: &Address| {
        let mut processes = facts.status.processes.iter();
        processes.any(|process| process.alive && process.heartbeat.worker.address == *address)
    };
    let accused = by.into_iter().filter(|(accused, _)| lives(accused));
    accused
        .map(|(accused, accusers)| {
            let accusers: Vec<String> = accusers.iter().map(ToString::to_string).collect();
            Finding::weak(
                format!("{accused} is alive, but did not answer {}", accusers.join(", ")),
                "look at the network between them, and at the load of both",
            )
        })
        .collect()
}

/// A generation that is not what the configuration says.
fn shape(facts: &Facts<'_>) -> Option<Finding> {
    let differences = facts.shape_differences();
    let is_active = facts.status.cluster.phase == Phase::Active;
    // What could be recruited is not known before everybody was heard.
    if differences.is_empty() || !is_active || facts.is_early() {
        return None;
    }
    Some(Finding {
        severity: Severity::Advice,
        what: format!("the generation has {}", differences.join(", ")),
        todo: String::from(
            "wait: a better generation is recruited as soon as there are processes for it; if it is not, start \
             more of them, in different zones",
        ),
    })
}

/// Nothing has failed, and yet less may be lost than the redundancy seems to promise.
fn less_than_promised(facts: &Facts<'_>) -> Option<Finding> {
    let promised = facts.copies() - 1;
    let tolerance = tolerance(facts);
    let (data, all) =
        (tolerance.data.zones.unwrap_or(0), tolerance.availability.zones.unwrap_or(0));
    if all >= promised || facts.status.cluster.phase != Phase::Active || facts.is_early() {
        return None;
    }
    Some(Finding {
        severity: Severity::Advice,
        what: format!(
            "the data survives the loss of {}, but after more than {all} the database waits for their return: {}",
            plural(data, "zone", "zones"),
            tolerance.availability.limited_by.join("; ")
        ),
        todo: format!(
            "run log processes and controllers in {0} zones ({0} controllers), coordinators in {1}",
            2 * promised + 1,
            promised + 1
        ),
    })
}
