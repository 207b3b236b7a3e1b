//! How much may be lost now: a pure function of who is alive and in which zone.
//!
//! ```text
//!   shard m..t      team 1 2 3, 2 is dead       zones a c        both must go before it is lost
//!   messages of 1   on logs 1 2, both alive     zones a b        both must go
//!   locks           copy group a1 b1, alive     zones a b        both must go before no recovery can be
//!   controllers     3 in zones a b c            2 must go before there is no majority
//!
//!   data            the least of the first two kinds, less one: 1 zone can be lost, whichever it is
//!   availability    the least of all kinds, less one
//! ```
//!
//! To lose a thing, the zones of all its living copies have to go; what survives any choice of k zones is therefore the
//! least number over all things, less one. It is the number for zones that are lost for good and at once: a cluster
//! that has the time to repair itself in between survives more.
//!
//! # Caveats
//!
//! Controllers do not say in which zone they are: one is taken to be where the processes of its host are.

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_core::{
    id::{Address, ProcessId, Tag},
    service::controller::{Phase, ProcessClass},
};

use super::facts::{Facts, plural};

/// How many zones can be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Any so many; `None` if something is lost as it is.
    pub(crate) zones: Option<usize>,
    /// What would be lost first, for people.
    pub(crate) limited_by: Vec<String>,
}

/// How much may be lost now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tolerance {
    /// Without losing anything that was committed.
    pub(crate) data: Loss,
    /// And with a database that goes on by itself.
    pub(crate) availability: Loss,
}

/// Something that is gone when so many zones are, and what that is.
type Limit = (usize, String);

/// Computes it.
pub(crate) fn tolerance(facts: &Facts<'_>) -> Tolerance {
    let data: Vec<Limit> = shards(facts).into_iter().chain(messages(facts)).collect();
    let mut all = data.clone();
    all.extend(locks(facts));
    all.extend(recruits(facts));
    all.extend(controllers(facts));
    Tolerance { data: loss(data), availability: loss(all) }
}

/// How many controllers may be lost before there is no majority of them.
pub(crate) fn controllers_to_spare(facts: &Facts<'_>) -> usize {
    let all = facts.status.cluster.controllers.len().max(1);
    let silent = facts.status.silent_controllers.len().min(all);
    (all - silent).saturating_sub(all / 2 + 1)
}

fn loss(limits: Vec<Limit>) -> Loss {
    let least = limits.iter().map(|(zones, _)| *zones).min();
    let first = limits.into_iter().filter(|(zones, _)| Some(*zones) == least);
    let limited_by = first.map(|(_, what)| what).collect();
    Loss { zones: least.unwrap_or(0).checked_sub(1), limited_by }
}

fn zone_of(facts: &Facts<'_>, process: ProcessId) -> Option<String> {
    let process = facts.process(process).filter(|process| process.alive)?;
    Some(process.heartbeat.zone.clone())
}

/// In how many zones these processes live, those that do.
fn zones(facts: &Facts<'_>, processes: impl Iterator<Item = ProcessId>) -> usize {
    processes.filter_map(|process| zone_of(facts, process)).collect::<BTreeSet<_>>().len()
}

fn shards(facts: &Facts<'_>) -> Option<Limit> {
    let members = |tags: &[Tag]| {
        let servers = tags.iter().filter_map(|tag| facts.server(*tag));
        zones(facts, servers.map(|server| server.process))
    };
    let counts: Vec<usize> =
        facts.shards().iter().map(|shard| members(&shard.teams.team)).collect();
    let least = *counts.iter().min()?;
    let count = counts.iter().filter(|zones| **zones == least).count();
    let what = match least {
        0 => format!("{} without a living copy", plural(count, "shard", "shards")),
        least => format!(
            "{} with living copies in {}",
            plural(count, "shard", "shards"),
            plural(least, "zone", "zones")
        ),
    };
    Some((least, what))
}

/// The messages that storage servers have not got from the logs yet.
fn messages(facts: &Facts<'_>) -> Option<Limit> {
    let mut counts: BTreeMap<usize, BTreeSet<Tag>> = BTreeMap::new();
    for set in &facts.status.cluster.log_sets {
        for tag in facts.tags_needed(set) {
            let count = zones(facts, set.logs_of(tag).map(|log| log.process));
            counts.entry(count).or_default().insert(tag);
        }
    }
    let (least, tags) = counts.first_key_value()?;
    let tags: Vec<String> = tags.iter().take(3).map(|tag| format!("storage {tag}")).collect();
    let tags = tags.join(", ");
    let what = match least {
        0 => format!("what the logs keep for {tags} is on no living log"),
        least => {
            let zones = plural(*least, "zone", "zones");
            format!("what the logs keep for {tags} is on living logs in {zones}")
        }
    };
    Some((*least, what))
}

/// What a recovery has to lock: a log of every copy group of the newest set, as it asks itself.
fn locks(facts: &Facts<'_>) -> Option<Limit> {
    let set = facts.status.cluster.log_sets.last()?;
    let groups = set.copy_groups();
    let living = |group| zones(facts, groups.members(group).map(|index| set.logs[index].process));
    let least = (0..groups.count()).map(living).min()?;
    let zones = plural(least, "zone", "zones");
    Some((least, format!("a recovery needs one of logs that live in {zones}")))
}

/// What the next generation can be recruited from.
fn recruits(facts: &Facts<'_>) -> [Limit; 2] {
    let is_active = facts.status.cluster.phase == Phase::Active;
    let limit = |class: ProcessClass, needed: usize| {
        let usable = facts.usable(class).map(|process| process.heartbeat.process);
        let count = zones(facts, usable);
        // A generation that is active goes on with what it has; the next loss ends it.
        let gone = (count + 1).saturating_sub(needed).max(usize::from(is_active));
        let zones = plural(count, "zone", "zones");
        let what = format!("{class} processes live in {zones}, a recovery needs {needed}");
        (gone, what)
    };
    [limit(ProcessClass::Log, facts.copies()), limit(ProcessClass::Coordinator, 1)]
}

fn controllers(facts: &Facts<'_>) -> Option<Limit> {
    let silent: BTreeSet<&Address> =
        facts.status.silent_controllers.iter().map(|(address, _)| address).collect();
    let members = &facts.status.cluster.controllers;
    let living = members.iter().map(|member| &member.address).filter(|a| !silent.contains(a));
    let mut by_zone: BTreeMap<String, usize> = BTreeMap::new();
    for address in living {
        *by_zone.entry(controller_zone(facts, address)).or_default() += 1;
    }
    let mut counts: Vec<usize> = by_zone.into_values().collect();
    counts.sort_unstable_by(|one, other| other.cmp(one));
    let spare = controllers_to_spare(facts);
    let (mut gone, mut zones) = (0, 0);
    for count in counts {
        zones += 1;
        gone += count;
        if gone > spare {
            break;
        }
    }
    let all = members.len();
    let what = format!("{spare} of {all} controllers can be lost before there is no majority");
    (all > 0).then_some((zones, what))
}

fn host(address: &Address) -> &str {
    address.0.rsplit_once(':').map_or(address.0.as_str(), |(host, _)| host)
}

/// The zone of the processes on the controller's host; without any, the host, which is also what a process calls its
/// zone by default. A host of several zones, as in tests, says nothing: then the controller is a zone of its own.
fn controller_zone(facts: &Facts<'_>, address: &Address) -> String {
    let heartbeats = facts.status.processes.iter().map(|process| &process.heartbeat);
    let here = heartbeats.filter(|heartbeat| host(&heartbeat.worker.address) == host(address));
    let zones: BTreeSet<&str> = here.map(|heartbeat| heartbeat.zone.as_str()).collect();
    match zones.len() {
        0 => host(address).to_owned(),
        1 => zones.into_iter().collect(),
        _ => address.to_string(),
    }
}
