//! The schedule of a run, from its seed.

use std::time::Duration;

use ferrisdb_core::service::controller::Redundancy;

use super::{Fault, FaultKind, FaultSpec, Planned};
use crate::{dice::Dice, operations, plan::Topology, zones};

/// The names of the nodes of a cluster, as its world will call them.
fn names(topology: &Topology) -> [(&'static str, Vec<String>); 4] {
    let named = |kind: &'static str, count: u32| {
        (kind, (1..=count).map(|number| format!("{kind}-{number}")).collect())
    };
    [
        named("controller", topology.controllers),
        named("coordinator", topology.coordinators),
        named("log", topology.logs + topology.spare_logs),
        named("storage", topology.storage),
    ]
}

/// Draws what goes wrong within a time.
pub fn draw(spec: &FaultSpec, topology: &Topology, seconds: u64, dice: &mut Dice) -> Vec<Planned> {
    let mut planned = Vec::new();
    if spec.kinds.is_empty() {
        return planned;
    }
    let end = Duration::from_secs(seconds);
    let pause = Duration::from_millis(spec.every_ms);
    let mut at = Duration::from_millis(spec.after_ms) + dice.duration(Duration::ZERO, pause);
    // Of what lasts longer than others there is one at a time: two could cut a client off from everybody.
    let mut patient_until = Duration::ZERO;
    while at < end {
        let kind = dice.pick(&spec.kinds);
        let fault = draw_one(kind, topology, dice);
        let longest = Duration::from_millis(spec.lasts_ms);
        // Over before anybody has noticed, or long after: every second one lasts long enough for a recovery.
        let brief = Duration::from_micros(dice.magnitude(1_000, longest.as_micros() as u64));
        let long = dice.duration(longest / 2, longest);
        let is_long = dice.one_in(2)
            || matches!(kind, FaultKind::SplitBrain | FaultKind::SplitZone | FaultKind::Cascade);
        let mut lasts = if is_long { long } else { brief };
        let mut fault = fault;
        if let Some((least, most)) = kind.patience() {
            lasts = dice.duration(longest * least, longest * most);
            fault = fault.filter(|_| at >= patient_until);
            if fault.is_some() {
                patient_until = at + lasts;
            }
        }
        if let Some(fault) = fault {
            planned.push(Planned { number: planned.len(), at, lasts, fault });
        }
        at += dice.duration(pause / 4, pause * 7 / 4);
    }
    planned
}

fn draw_one(kind: FaultKind, topology: &Topology, dice: &mut Dice) -> Option<Fault> {
    let roles = names(topology);
    let [_, _, logs, storage] = &roles;
    let all: Vec<String> = roles.iter().flat_map(|(_, names)| names.clone()).collect();
    // Each role as often as the others, however many processes it has.
    let anybody = |dice: &mut Dice| {
        let (_, names) = dice.pick(&roles);
        dice.pick(&names)
    };
    let several = |dice: &mut Dice| {
        let mut chosen: Vec<String> = match dice.below(3) {
            0 => dice.pick(&roles).1,
            _ => all.iter().filter(|_| dice.one_in(3)).cloned().collect(),
        };
        if chosen.is_empty() {
            chosen = all.clone();
        }
        chosen
    };
    let with_disk = |dice: &mut Dice| {
        let (_, names) = dice.pick(&[roles[0].clone(), logs.clone(), storage.clone()]);
        dice.pick(&names)
    };
    let copies = topology.redundancy.copies();
    // With a single copy a loss is a loss, and with nobody to spare nothing replaces it.
    let expendable = |dice: &mut Dice| {
        let (_, of) = dice.pick(&[storage.clone(), logs.clone()]);
        let node = dice.pick(&of);
        let is_log = node.starts_with("log-");
        let (spare, count) = match is_log {
            true => (topology.spare_logs > 0, topology.logs + topology.spare_logs),
            false => (topology.storage > copies, topology.storage),
        };
        let zones = topology.zones_without(operations::number_of(&node), count);
        (copies > 1 && spare && zones >= copies).then_some(node)
    };
    Some(match kind {
        FaultKind::PowerFailure => Fault::PowerFailure(vec![anybody(dice)]),
        FaultKind::Blackout => Fault::PowerFailure(several(dice)),
        FaultKind::TornWrite => {
            let (_, mut nodes) =
                dice.pick(&[logs.clone(), logs.clone(), storage.clone(), roles[0].clone()]);
            if dice.one_in(2) {
                nodes = vec![dice.pick(&nodes)];
            }
            Fault::TornWrite(nodes)
        }
        FaultKind::Kill => Fault::Kill(anybody(dice), 1),
        FaultKind::RebootStorm => Fault::Kill(anybody(dice), dice.between(2, 6) as u32),
        FaultKind::Cascade => {
            let mut left = logs.1.clone();
            let mut fallen = Vec::new();
            while fallen.len() < 2 && !left.is_empty() {
                fallen.push(left.remove(dice.below(left.len() as u64) as usize));
            }
            Fault::Cascade(dice.pick(&storage.1), fallen)
        }
        FaultKind::Stop => Fault::Stop(anybody(dice)),
        FaultKind::Pause => Fault::Pause(anybody(dice)),
        FaultKind::Freeze => Fault::Freeze(anybody(dice)),
        FaultKind::Partition => {
            let (one, other): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|_| dice.one_in(2));
            if one.is_empty() || other.is_empty() {
                return None;
            }
            Fault::Partition(one, other)
        }
        FaultKind::SplitBrain => {
            let mut cut = roles[1].1.clone();
            if cut.len() < 2 {
                return None;
            }
            // One is left, for the generation that follows.
            cut.remove(dice.below(cut.len() as u64) as usize);
            Fault::SplitBrain(cut, dice.one_in(2))
        }
        FaultKind::LogCut => Fault::Partition(roles[1].1.clone(), vec![dice.pick(&logs.1)]),
        FaultKind::Isolate => Fault::Isolate(several(dice)),
        FaultKind::CutOneWay => {
            let (from, to) = (anybody(dice), anybody(dice));
            if from == to {
                return None;
            }
            Fault::CutOneWay(from, to)
        }
        FaultKind::HalfDeaf => match dice.below(2) {
            0 => Fault::Mute(anybody(dice)),
            _ => Fault::Deafen(anybody(dice)),
        },
        FaultKind::Swizzle => Fault::Swizzle,
        FaultKind::SlowLinks => Fault::SlowLinks(anybody(dice), dice.magnitude(5, 500) as u32),
        FaultKind::FlakyLinks => Fault::FlakyLinks(anybody(dice), dice.between(1, 5) as u32),
        FaultKind::ConnectionDeaths => Fault::ConnectionDeaths(dice.between(5, 50) as u32),
        FaultKind::SlowDisk => Fault::SlowDisk(with_disk(dice), dice.magnitude(5, 200) as u32),
        FaultKind::NarrowDisk => {
            let nodes = if dice.one_in(2) { logs.1.clone() } else { vec![dice.pick(&logs.1)] };
            Fault::NarrowDisk(nodes, dice.magnitude(100_000, 2_000_000))
        }
        FaultKind::StalledDisk => Fault::StalledDisk(with_disk(dice)),
        FaultKind::DiskErrors => Fault::DiskErrors(with_disk(dice), dice.pick(&[1, 10, 100])),
        FaultKind::FullDisk => Fault::FullDisk(with_disk(dice)),
        FaultKind::FlippedReads => Fault::FlippedReads(with_disk(dice), dice.pick(&[1, 10, 50])),
        FaultKind::ClockRate => {
            Fault::ClockRate(anybody(dice), dice.pick(&[50, 80, 90, 99, 101, 110, 125, 200]))
        }
        FaultKind::ClockJump => {
            let hours = dice.between(0, 96) as i64 - 48;
            Fault::ClockJump(anybody(dice), dice.magnitude(1, 3_600), hours)
        }
        FaultKind::Lose => Fault::Lose(expendable(dice)?),
        FaultKind::BitFlip => Fault::BitFlip(expendable(dice)?),
        FaultKind::OldDisk => Fault::OldDisk(expendable(dice)?),
        FaultKind::SwapDisks => {
            let (_, mut nodes) = dice.pick(&[logs.clone(), storage.clone()]);
            if nodes.len() < 2 {
                return None;
            }
            let one = nodes.remove(dice.below(nodes.len() as u64) as usize);
            Fault::SwapDisks(one, dice.pick(&nodes))
        }
        FaultKind::TooFewLeft => {
            // Each log misses what only others have: without as many of them as there are copies, nobody knows.
            let mut lost = logs.1.clone();
            while lost.len() > copies as usize && dice.one_in(2) {
                lost.remove(dice.below(lost.len() as u64) as usize);
            }
            Fault::TooFewLeft(lost)
        }
        FaultKind::Drain => {
            let node = dice.pick(&storage.1);
            if topology.zones_without(operations::number_of(&node), topology.storage) < copies {
                return None;
            }
            Fault::Drain(node)
        }
        FaultKind::MoveController => {
            // Whoever was away meanwhile finds the others where they always were.
            let minority = (topology.controllers.saturating_sub(1) / 2) as usize;
            let movable = &roles[0].1[..minority];
            if movable.is_empty() {
                return None;
            }
            Fault::MoveController(dice.pick(movable))
        }
        FaultKind::ReplaceController if topology.controllers >= 3 => {
            Fault::ReplaceController(dice.pick(&roles[0].1))
        }
        FaultKind::RemoveController if topology.controllers >= 3 => {
            let mut nodes = roles[0].1.clone();
            let away = nodes.remove(dice.below(nodes.len() as u64) as usize);
            Fault::RemoveController(away, dice.pick(&nodes))
        }
        FaultKind::ReplaceController | FaultKind::RemoveController => return None,
        FaultKind::LoseControllers => Fault::LoseControllers,
        FaultKind::Redundancy => {
            let possible = topology.storage.min(topology.logs).min(topology.zones).min(3) as usize;
            Fault::Redundancy(dice.pick(&Redundancy::ALL[..possible]))
        }
        FaultKind::ClientCut => {
            let client = dice.below(1 << 16);
            let [controllers, coordinators, _, storage] = &roles;
            let mut nodes = match dice.below(4) {
                0 | 1 => controllers.1.clone(),
                2 => vec![dice.pick(&coordinators.1)],
                _ => vec![dice.pick(&storage.1)],
            };
            let is_needed = match nodes.len() {
                1 if nodes[0].starts_with("coordinator-") => topology.coordinators < 2,
                1 if nodes[0].starts_with("storage-") => copies < 2,
                count => count < 2,
            };
            if is_needed {
                return None;
            }
            if nodes.len() > 1 {
                // All but one, or one: in either case it may be the leader that is lost.
                let one = nodes.remove(dice.below(nodes.len() as u64) as usize);
                if dice.one_in(2) {
                    nodes = vec![one];
                }
            }
            Fault::ClientCut(client, nodes)
        }
        FaultKind::ClientHeld => Fault::ClientHeld(dice.below(1 << 16), dice.pick(&roles[1].1)),
        FaultKind::ClientSlow => {
            let (_, nodes) = dice.pick(&[roles[1].clone(), storage.clone()]);
            let node = dice.pick(&nodes);
            Fault::ClientSlow(dice.below(1 << 16), node, dice.magnitude(5, 500) as u32)
        }
        FaultKind::ClientPause => Fault::ClientPause(dice.below(1 << 16)),
        FaultKind::ClientFreeze => Fault::ClientFreeze(dice.below(1 << 16)),
        FaultKind::ClientKill => Fault::ClientKill(dice.below(1 << 16)),
        FaultKind::ZoneLost
        | FaultKind::SplitZone
        | FaultKind::BrokenLink
        | FaultKind::FilledDisk => zones::draw(kind, topology, dice)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_drawn_from_the_seed_alone() {
        let spec = FaultSpec {
            kinds: vec![FaultKind::PowerFailure, FaultKind::CutOneWay, FaultKind::Pause],
            ..FaultSpec::default()
        };
        let topology = Topology { controllers: 3, storage: 3, ..Topology::smallest() };
        let schedule = |seed| draw(&spec, &topology, 60, &mut Dice::new(seed, "faults"));
        assert_eq!(schedule(1), schedule(1));
        assert_ne!(schedule(1), schedule(2));
        assert!(schedule(1).len() > 10, "{:?}", schedule(1));
        assert!(draw(&FaultSpec::default(), &topology, 60, &mut Dice::new(1, "faults")).is_empty());
    }
}
