//! What goes wrong in a run: a schedule of faults, drawn from the seed before the run begins.
//!
//! ```text
//!   #0    3.20 s   for 0.84 s   power failure of log-1, storage-2
//!   #1    4.15 s   for 2.01 s   storage-1 stands still
//!   #2    9.70 s   for 0.00 s   the disk of storage-2 is lost
//! ```
//!
//! Faults overlap as they come. Those that end by themselves may hit any number of nodes at once: afterwards the
//! cluster has to be available again (I-13). What is lost for good is lost one at a time, and the next loss waits
//! until everything has all its copies again, because more than that no database could survive.
//!
//! The schedule does not depend on what happens in the run, so a fault can be left out of it: that is how a failing
//! schedule is made small.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Result;
use ferrisdb_core::{runtime, service::controller::Redundancy};
use serde::Deserialize;

use crate::{dice::Dice, operations, plan::Topology, world::World};

/// The kinds of faults that a scenario may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// One node loses its power and what was not synced, and comes back.
    PowerFailure,
    /// Several nodes, or all, lose their power at once.
    Blackout,
    /// One process is killed and started again; its operating system goes on.
    Kill,
    /// One process is killed and started again, several times in quick succession.
    RebootStorm,
    /// One process stands still.
    Pause,
    /// Several nodes cannot be reached and reach nobody.
    Isolate,
    /// Messages of one node do not reach another one.
    CutOneWay,
    /// The disk of a storage server or of a log is lost.
    Lose,
    /// A storage server is excluded, and taken back when it is empty.
    Drain,
    /// The number of copies changes.
    Redundancy,
}

/// What a scenario says of its faults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultSpec {
    /// The kinds, each as likely as the others. None: nothing goes wrong.
    pub kinds: Vec<FaultKind>,
    /// How long it takes from one to the next, about.
    pub every_ms: u64,
    /// How long one lasts at most.
    pub lasts_ms: u64,
    /// How long the cluster is left alone in the beginning.
    pub after_ms: u64,
}

impl Default for FaultSpec {
    fn default() -> FaultSpec {
        FaultSpec { kinds: Vec::new(), every_ms: 3_000, lasts_ms: 3_000, after_ms: 1_000 }
    }
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// See [`FaultKind::PowerFailure`] and [`FaultKind::Blackout`].
    PowerFailure(Vec<String>),
    /// See [`FaultKind::Kill`] and [`FaultKind::RebootStorm`]: so often.
    Kill(String, u32),
    /// See [`FaultKind::Pause`].
    Pause(String),
    /// See [`FaultKind::Isolate`].
    Isolate(Vec<String>),
    /// See [`FaultKind::CutOneWay`]: from, to.
    CutOneWay(String, String),
    /// See [`FaultKind::Lose`].
    Lose(String),
    /// See [`FaultKind::Drain`].
    Drain(String),
    /// See [`FaultKind::Redundancy`].
    Redundancy(Redundancy),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::PowerFailure(nodes) => write!(f, "power failure of {}", nodes.join(", ")),
            Fault::Kill(node, 1) => write!(f, "{node} is killed"),
            Fault::Kill(node, times) => write!(f, "{node} is killed {times} times"),
            Fault::Pause(node) => write!(f, "{node} stands still"),
            Fault::Isolate(nodes) => write!(f, "{} cut off", nodes.join(", ")),
            Fault::CutOneWay(from, to) => write!(f, "no way from {from} to {to}"),
            Fault::Lose(node) => write!(f, "the disk of {node} is lost"),
            Fault::Drain(node) => write!(f, "{node} is drained"),
            Fault::Redundancy(redundancy) => write!(f, "the redundancy becomes {redundancy}"),
        }
    }
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its number in the schedule.
    pub number: usize,
    /// When it begins, since the workloads did.
    pub at: Duration,
    /// How long it lasts, where it ends by itself.
    pub lasts: Duration,
    /// What it is.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "#{:<3} {at:>7.2} s  for {lasts:>5.2} s  {}", self.number, self.fault)
    }
}

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
    while at < end {
        let kind = dice.pick(&spec.kinds);
        let fault = draw_one(kind, topology, dice);
        let longest = Duration::from_millis(spec.lasts_ms);
        // Short ones as often as long ones: a reboot is over before anybody has noticed, or long after.
        let lasts = Duration::from_micros(dice.magnitude(1_000, longest.as_micros() as u64));
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
    let copies = topology.redundancy.copies();
    Some(match kind {
        FaultKind::PowerFailure => Fault::PowerFailure(vec![anybody(dice)]),
        FaultKind::Blackout => Fault::PowerFailure(several(dice)),
        FaultKind::Kill => Fault::Kill(anybody(dice), 1),
        FaultKind::RebootStorm => Fault::Kill(anybody(dice), dice.between(2, 6) as u32),
        FaultKind::Pause => Fault::Pause(anybody(dice)),
        FaultKind::Isolate => Fault::Isolate(several(dice)),
        FaultKind::CutOneWay => {
            let (from, to) = (anybody(dice), anybody(dice));
            if from == to {
                return None;
            }
            Fault::CutOneWay(from, to)
        }
        FaultKind::Lose => {
            let (_, of) = dice.pick(&[storage.clone(), logs.clone()]);
            let node = dice.pick(&of);
            // With a single copy a loss is a loss, and with nobody to spare nothing replaces it.
            let is_log = node.starts_with("log-");
            let spare = if is_log { topology.spare_logs > 0 } else { topology.storage > copies };
            if copies == 1 || !spare {
                return None;
            }
            Fault::Lose(node)
        }
        FaultKind::Drain => {
            let node = dice.pick(&storage.1);
            if topology.storage <= copies {
                return None;
            }
            Fault::Drain(node)
        }
        FaultKind::Redundancy => {
            let possible = topology.storage.min(topology.logs).min(3) as usize;
            Fault::Redundancy(dice.pick(&Redundancy::ALL[..possible]))
        }
    })
}

/// Lets everything of a schedule happen, and waits until all of it is over.
///
/// # Errors
///
/// If the cluster did not come to rest after a loss or an operator's command.
pub async fn happen(world: &World, schedule: Vec<Planned>) -> Result<()> {
    let one_at_a_time = Arc::new(tokio::sync::Mutex::new(()));
    let faults: Vec<_> = schedule
        .into_iter()
        .map(|planned| {
            let (world, turn) = (world.clone(), Arc::clone(&one_at_a_time));
            madsim::task::spawn(async move {
                runtime::sleep(planned.at).await;
                let _turn = match planned.fault {
                    Fault::Lose(_) | Fault::Drain(_) | Fault::Redundancy(_) => {
                        Some(turn.lock().await)
                    }
                    _ => None,
                };
                world.trace().note(format_args!("fault {planned}"));
                one(&world, &planned).await?;
                world.trace().note(format_args!("fault #{} is over", planned.number));
                Ok::<(), anyhow::Error>(())
            })
        })
        .collect();
    for fault in faults {
        fault.await??;
    }
    Ok(())
}

async fn one(world: &World, planned: &Planned) -> Result<()> {
    let lasting = || runtime::sleep(planned.lasts);
    match &planned.fault {
        Fault::PowerFailure(nodes) => {
            nodes.iter().for_each(|node| world.power_off(node));
            lasting().await;
            nodes.iter().for_each(|node| world.start_again(node));
        }
        Fault::Kill(node, times) => {
            for _ in 0..*times {
                world.kill(node);
                runtime::sleep(planned.lasts / (2 * times)).await;
                world.start_again(node);
                runtime::sleep(planned.lasts / (2 * times)).await;
            }
        }
        Fault::Pause(node) => {
            world.pause(node);
            lasting().await;
            world.resume(node);
        }
        Fault::Isolate(nodes) => {
            nodes.iter().for_each(|node| world.isolate(node));
            lasting().await;
            nodes.iter().for_each(|node| world.reconnect(node));
        }
        Fault::CutOneWay(from, to) => {
            world.cut(from, to);
            lasting().await;
            world.uncut(from, to);
        }
        Fault::Lose(node) => operations::lose(world, node).await?,
        Fault::Drain(node) => operations::drain(world, node).await?,
        Fault::Redundancy(redundancy) => operations::configure(world, *redundancy).await?,
    }
    Ok(())
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
