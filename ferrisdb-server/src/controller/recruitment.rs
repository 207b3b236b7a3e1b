//! Who gets which role in a new generation.
//!
//! ```text
//!   logs            a1 b1 a2 b2       two copies: any two neighbours in the ring are in different zones,
//!                                     so that every tag's copies are
//!   coordinators    c1 d1 c2          sequencer c1    proxies c1 d1    resolvers c2 d1
//! ```
//!
//! Pure functions of what is alive. Start with [`choose`].

use std::collections::{BTreeMap, BTreeSet};

use ferrisdb_core::service::controller::{Configuration, Heartbeat, ProcessClass};

use super::{
    cluster_record::Member,
    links::{Caution, Suspicions},
};

/// The processes chosen for a generation. One process can have several roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recruits {
    /// The logs, in the order of their indexes.
    pub logs: Vec<Member>,
    /// The sequencer.
    pub sequencer: Member,
    /// The resolvers, in the order of their keys.
    pub resolvers: Vec<Member>,
    /// The proxies.
    pub proxies: Vec<Member>,
}

impl Recruits {
    /// How many processes share the roles of the coordinator.
    pub fn coordinators(&self) -> usize {
        let all =
            self.resolvers.iter().chain(&self.proxies).chain(std::iter::once(&self.sequencer));
        all.map(|member| member.process).collect::<BTreeSet<_>>().len()
    }

    /// Every process once.
    pub fn members(&self) -> Vec<Member> {
        let coordinators = self.resolvers.iter().chain(&self.proxies);
        let all = self.logs.iter().chain(std::iter::once(&self.sequencer)).chain(coordinators);
        let mut members: Vec<_> = all.cloned().collect();
        members.sort_by_key(|member| member.process);
        members.dedup();
        members
    }
}

/// A process that could be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its last heartbeat.
    pub heartbeat: &'a Heartbeat,
    /// It did not answer the controller, or somebody who is gone, or was in trouble a moment ago: it is chosen only where there is nobody else.
    pub is_accused: bool,
}

impl Candidate<'_> {
    fn recruit(&self) -> Member {
        Member {
            process: self.heartbeat.process,
            incarnation: self.heartbeat.incarnation,
            worker: self.heartbeat.worker.clone(),
        }
    }
}

/// Chooses processes for all roles of a generation, so that no two are suspected not to reach each other, if that can be.
/// `turn` counts the attempts: if one fails, the next leaves out others.
///
/// # Errors
///
/// What is missing, for people.
pub fn choose(
    configuration: &Configuration,
    candidates: &[Candidate<'_>],
    suspicions: &Suspicions,
    turn: u32,
) -> Result<Recruits, String> {
    if !suspicions.is_empty() {
        for caution in [Caution::Machines, Caution::Processes] {
            let ways = suspicions.without_suspected(candidates, caution, turn);
            let mut chosen = ways.iter().filter_map(|kept| choose_any(configuration, kept).ok());
            if let Some(chosen) = chosen.next() {
                return Ok(chosen);
            }
        }
    }
    choose_any(configuration, candidates)
}

/// Chooses processes for all roles: as many logs as are wanted if there are, and never fewer than copies.
fn choose_any(
    configuration: &Configuration,
    candidates: &[Candidate<'_>],
) -> Result<Recruits, String> {
    let of = |class: ProcessClass| {
        candidates.iter().filter(move |c| c.heartbeat.class == class).copied().collect::<Vec<_>>()
    };
    let (logs, coordinators) = (of(ProcessClass::Log), of(ProcessClass::Coordinator));
    let mut missing = Vec::new();
    let copies = configuration.redundancy.copies() as usize;
    let wanted = configuration.logs_wanted() as usize;
    let trusted: Vec<_> = logs.iter().filter(|log| !log.is_accused).copied().collect();
    let ring = ring(&trusted, wanted, copies).or_else(|| ring(&logs, wanted, copies));
    if ring.is_none() {
        missing.push(format!(
            "log processes in {copies} zones ({} are alive, in {} zones)",
            logs.len(),
            zones(&logs)
        ));
    }
    if coordinators.is_empty() {
        missing.push("a coordinator process (none is alive)".to_owned());
    }
    let Some(ring) = ring.filter(|_| missing.is_empty()) else {
        return Err(format!("waiting for {}", missing.join(" and ")));
    };
    let trusted: Vec<_> = coordinators.iter().filter(|c| !c.is_accused).copied().collect();
    let coordinators = by_turns(if trusted.is_empty() { &coordinators } else { &trusted });
    let count = coordinators.len();
    let at = |index: usize| coordinators[index % count].recruit();
    Ok(Recruits {
        logs: ring.iter().map(Candidate::recruit).collect(),
        sequencer: at(0),
        resolvers: (1..=configuration.resolvers.max(1) as usize)
            .map(|index| at(count * index - index))
            .collect(),
        proxies: (0..configuration.proxies.max(1) as usize).map(at).collect(),
    })
}

/// In how many zones processes are.
pub fn zones(candidates: &[Candidate<'_>]) -> usize {
    let mut zones: Vec<_> = candidates.iter().map(|c| &c.heartbeat.zone).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.len()
}

/// The most logs up to `wanted` that can be put into a ring in which any `copies` neighbours are in different zones.
fn ring<'a>(logs: &[Candidate<'a>], wanted: usize, copies: usize) -> Option<Vec<Candidate<'a>>> {
    (copies..=wanted.min(logs.len())).rev().find_map(|count| {
        // Taken by turns, no zone has more than its share; laid out zone after zone in steps of so many places as
        // there are copies, equal zones are apart.
        let mut taken: Vec<_> = by_turns(logs).into_iter().take(count).collect();
        let share = |zone: &str| taken.iter().filter(|c| c.heartbeat.zone == zone).count();
        let mut order: Vec<_> = taken
            .iter()
            .map(|c| (std::cmp::Reverse(share(&c.heartbeat.zone)), &c.heartbeat.zone))
            .zip(0..)
            .collect();
        order.sort();
        let order: Vec<usize> = order.into_iter().map(|(_, index)| index).collect();
        let places = (0..copies).flat_map(|first| (first..count).step_by(copies));
        let mut ring: Vec<(usize, Candidate<'a>)> =
            places.zip(order.into_iter().map(|index| taken[index])).collect();
        ring.sort_by_key(|(place, _)| *place);
        taken = ring.into_iter().map(|(_, candidate)| candidate).collect();
        let is_apart = |begin: usize| {
            let neighbours: Vec<_> =
                (0..copies).map(|step| taken[(begin + step) % count]).collect();
            zones(&neighbours) == copies
        };
        (0..count).all(is_apart).then_some(taken)
    })
}

/// Processes in an order that takes the zones by turns, those with most processes first.
fn by_turns<'a>(candidates: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
    let mut zones: BTreeMap<&str, Vec<Candidate<'a>>> = BTreeMap::new();
    for candidate in candidates {
        zones.entry(&candidate.heartbeat.zone).or_default().push(*candidate);
    }
    let mut zones: Vec<_> = zones.into_values().collect();
    zones.sort_by_key(|zone| std::cmp::Reverse(zone.len()));
    let turns = zones.iter().map(Vec::len).max().unwrap_or(0);
    (0..turns)
        .flat_map(|turn| zones.iter().filter_map(move |zone| zone.get(turn).copied()))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use ferrisdb_core::{
        Endpoint, ProcessId,
        id::Address,
        service::controller::{Progress, Redundancy},
    };

    use super::*;
    use crate::controller::cluster_record::tests::configuration;

    /// Processes by name: class and zone, such as `log@a`.
    fn processes(names: &[&str]) -> Vec<Heartbeat> {
        let heartbeat = |(number, name): (u128, &&str)| {
            let (class, zone) = name.split_once('@').unwrap();
            Heartbeat {
                process: ProcessId(number),
                incarnation: 1,
                class: match class {
                    "log" => ProcessClass::Log,
                    "coordinator" => ProcessClass::Coordinator,
                    other => panic!("{other}"),
                },
                zone: zone.into(),
                worker: Endpoint::of_process(Address::new(*name)),
                hosted_generations: vec![],
                kept_generations: vec![],
                trouble: None,
                accused: vec![],
                progress: Progress::default(),
                storage: None,
            }
        };
        (0..).zip(names).map(heartbeat).collect()
    }

    /// Processes by address, each second one a log; the machine is the zone.
    pub(in crate::controller) fn processes_at(addresses: &[&str]) -> Vec<Heartbeat> {
        let names: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(index, address)| {
                let class = if index % 2 == 0 { "coordinator" } else { "log" };
                format!("{class}@{}", address.split(':').next().unwrap())
            })
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut found = processes(&names);
        for (heartbeat, address) in found.iter_mut().zip(addresses) {
            heartbeat.worker.address = Address::new(*address);
        }
        found
    }

    #[test]
    fn a_broken_link_between_two_machines_is_gone_around() {
        let heartbeats = processes_at(&["m1:10", "m1:20", "m2:10", "m2:20", "m3:10", "m3:20"]);
        let candidate = |heartbeat| Candidate { heartbeat, is_accused: false };
        let candidates: Vec<_> = heartbeats.iter().map(candidate).collect();
        let suspicions = Suspicions::new([(Address::new("m1:10"), Address::new("m2:20"))]);
        let machines = |redundancy, turn| {
            let configuration = Configuration { redundancy, proxies: 2, ..configuration() };
            let recruits = choose(&configuration, &candidates, &suspicions, turn).unwrap();
            let at = |members: &[Member]| {
                let mut at: Vec<_> = members.iter().map(|m| m.worker.to_string()).collect();
                at.sort();
                at.dedup();
                at.join(" ")
            };
            format!("{} | {}", at(&recruits.logs), at(&recruits.proxies))
        };
        assert_eq!(machines(Redundancy::Double, 0), "m1:20 m3:20 | m1:10 m3:10");
        assert_eq!(machines(Redundancy::Double, 1), "m2:20 m3:20 | m2:10 m3:10");
        // All three logs are needed, so the coordinators of both ends stay out.
        assert_eq!(machines(Redundancy::Triple, 0), "m1:20 m2:20 m3:20 | m3:10");
    }

    fn chosen(names: &[&str], accused: &[u128]) -> Result<Vec<String>, String> {
        let heartbeats = processes(names);
        let candidate = |heartbeat| {
            let is_accused = accused.contains(&Heartbeat::clone(heartbeat).process.0);
            Candidate { heartbeat, is_accused }
        };
        let candidates: Vec<_> = heartbeats.iter().map(candidate).collect();
        let configuration =
            Configuration { redundancy: Redundancy::Double, logs: 4, ..configuration() };
        let recruits = choose(&configuration, &candidates, &Suspicions::default(), 0)?;
        Ok(recruits.logs.iter().map(|log| format!("{}{}", log.worker, log.process.0)).collect())
    }

    #[test]
    fn neighbours_are_in_different_zones() {
        let logs = |names: &[&str]| {
            let mut all = names.to_vec();
            all.push("coordinator@a");
            chosen(&all, &[]).map(|logs| {
                let zone = |log: &String| log.chars().nth(4).unwrap();
                logs.iter().map(zone).collect::<String>()
            })
        };
        assert_eq!(logs(&["log@a", "log@a", "log@b", "log@b"]).unwrap(), "abab");
        assert_eq!(logs(&["log@a", "log@b", "log@c"]).unwrap(), "acb");
        assert_eq!(logs(&["log@a", "log@a", "log@b"]).unwrap(), "ab");
        assert_eq!(logs(&["log@a", "log@a", "log@a", "log@b", "log@c"]).unwrap(), "abac");
        assert!(logs(&["log@a", "log@a"]).unwrap_err().contains("2 are alive, in 1 zones"));
    }

    #[test]
    fn an_accused_log_is_a_last_resort() {
        let names = ["log@a", "log@b", "log@c", "coordinator@a"];
        assert_eq!(chosen(&names, &[1]).unwrap(), ["log@a0", "log@c2"]);
        assert_eq!(chosen(&names, &[1, 2]).unwrap(), ["log@a0", "log@c2", "log@b1"]);
    }

    #[test]
    fn coordinators_share_the_roles() {
        let heartbeats =
            processes(&["log@a", "log@b", "coordinator@a", "coordinator@b", "coordinator@a"]);
        let candidate = |heartbeat| Candidate { heartbeat, is_accused: false };
        let candidates: Vec<_> = heartbeats.iter().map(candidate).collect();
        let configuration = Configuration { proxies: 4, resolvers: 2, ..configuration() };
        let recruits = choose(&configuration, &candidates, &Suspicions::default(), 0).unwrap();
        let numbers =
            |recruits: &[Member]| recruits.iter().map(|r| r.process.0).collect::<Vec<_>>();
        assert_eq!(recruits.sequencer.process.0, 2);
        assert_eq!(numbers(&recruits.proxies), [2, 3, 4, 2]);
        assert_eq!(numbers(&recruits.resolvers), [4, 3]);
        assert_eq!(recruits.members().len(), 5);
        let alone = choose(&configuration, &candidates[..3], &Suspicions::default(), 0).unwrap();
        assert_eq!(numbers(&alone.resolvers), [2, 2]);
    }
}
