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

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Result;
use ferrisdb_core::{runtime, service::controller::Redundancy};
use serde::Deserialize;

use crate::{
    client_fault, dice::Dice, disk::Faults, network::SimulatedNetwork, operations, plan::Topology,
    world::World, zones,
};

/// The kinds of faults that a scenario may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// One node loses its power and what was not synced, and comes back.
    PowerFailure,
    /// Several nodes, or all, lose their power at once.
    Blackout,
    /// Some logs, or storage servers, or controllers, lose their power while their disks are slow: in the middle of writes.
    TornWrite,
    /// One process is killed and started again; its operating system goes on.
    Kill,
    /// One process is killed and started again, several times in quick succession.
    RebootStorm,
    /// A storage server stands still while a log is killed, and after the next recovery another one. Before they come
    /// back it goes on: what it lacks is only where a recovery has copied it.
    Cascade,
    /// One process is told to end, as by SIGTERM, does so in order, and is started again.
    Stop,
    /// One process stands still.
    Pause,
    /// A virtual machine is moved: it stands still, and so does its clock.
    Freeze,
    /// Servers are cut into two groups that do not reach each other. Clients reach all.
    Partition,
    /// The controllers are cut off from some coordinators and from every second client, or from the later half of them, which
    /// still reach each other and the logs: for a while there are two generations, and only one may commit.
    SplitBrain,
    /// Several nodes cannot be reached and reach nobody, clients included.
    Isolate,
    /// Messages of one node do not reach another one; the way back is open.
    CutOneWay,
    /// One node hears everything and cannot answer, or the reverse.
    HalfDeaf,
    /// A part of the nodes is cut off one by one, and connected again in another order.
    Swizzle,
    /// What one node says takes much longer; what it hears does not.
    SlowLinks,
    /// The connections of one node are reset again and again.
    FlakyLinks,
    /// Connections break within a message, anywhere.
    ConnectionDeaths,
    /// A disk takes much longer.
    SlowDisk,
    /// The disk of a log, or of all logs, takes only so many bytes a second. Nobody is lost by that.
    NarrowDisk,
    /// A disk does not answer at all for a while.
    StalledDisk,
    /// Operations of a disk fail. Afterwards somebody restarts the process.
    DiskErrors,
    /// A disk is full. Afterwards somebody restarts the process.
    FullDisk,
    /// A disk returns flipped bits. Afterwards somebody restarts the process.
    FlippedReads,
    /// A clock goes at another rate.
    ClockRate,
    /// A clock jumps forward by up to an hour, and its calendar by days in either direction.
    ClockJump,
    /// The disk of a storage server or of a log is lost.
    Lose,
    /// A bit of a disk is flipped while its machine is off. Somebody replaces the disk then.
    BitFlip,
    /// A machine comes back with the disk that it had a while before. Somebody replaces the disk then.
    OldDisk,
    /// Two machines that do the same are taken apart and put together with each other's disks.
    SwapDisks,
    /// So many logs are away that nobody can know what was committed (I-14): nothing may be committed meanwhile, and the
    /// status must say what is waited for.
    TooFewLeft,
    /// A storage server is excluded, and taken back when it is empty.
    Drain,
    /// The number of copies changes.
    Redundancy,
    /// A client and a few machines do not reach each other: one controller, all but one of them, one coordinator, or one storage
    /// server. Enough is left for it to go on.
    ClientCut,
    /// What a client says to a coordinator is held back, and arrives when the client may have found another way.
    ClientHeld,
    /// What a client and a coordinator or a storage server say to each other takes much longer.
    ClientSlow,
    /// A client stands still.
    ClientPause,
    /// A client stands still, and so does its clock.
    ClientFreeze,
    /// A client is killed, and another one takes its place.
    ClientKill,
    /// See [`zones::lose`].
    ZoneLost,
    /// See [`zones::split`].
    SplitZone,
    /// See [`zones::break_link`].
    BrokenLink,
    /// See [`zones::fill`].
    FilledDisk,
    /// A controller comes back at another address.
    MoveController,
    /// A controller loses its disk, is removed, and another one is added at its address.
    ReplaceController,
    /// A controller is to be removed while another one is away.
    RemoveController,
    /// All controllers but one lose their disks for good, and that one is made to go on alone.
    LoseControllers,
}

impl FaultKind {
    /// How many times as long as others it may last: long enough for something else to happen meanwhile.
    fn patience(self) -> Option<(u32, u32)> {
        use FaultKind::{ClientCut, ClientFreeze, ClientPause, ClientSlow};
        matches!(self, ClientCut | ClientSlow | ClientPause | ClientFreeze).then_some((2, 6))
    }
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
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// See [`FaultKind::PowerFailure`] and [`FaultKind::Blackout`].
    PowerFailure(Vec<String>),
    /// See [`FaultKind::TornWrite`].
    TornWrite(Vec<String>),
    /// See [`FaultKind::Kill`] and [`FaultKind::RebootStorm`]: so often.
    Kill(String, u32),
    /// See [`FaultKind::Cascade`]: the storage server, and the logs.
    Cascade(String, Vec<String>),
    /// See [`FaultKind::Stop`].
    Stop(String),
    /// See [`FaultKind::Pause`].
    Pause(String),
    /// See [`FaultKind::Freeze`].
    Freeze(String),
    /// See [`FaultKind::Partition`].
    Partition(Vec<String>, Vec<String>),
    /// See [`FaultKind::SplitBrain`]: the nodes, and whether the later half of the clients.
    SplitBrain(Vec<String>, bool),
    /// See [`FaultKind::Isolate`].
    Isolate(Vec<String>),
    /// See [`FaultKind::CutOneWay`]: from, to.
    CutOneWay(String, String),
    /// See [`FaultKind::HalfDeaf`]: it cannot speak.
    Mute(String),
    /// See [`FaultKind::HalfDeaf`]: it cannot hear.
    Deafen(String),
    /// See [`FaultKind::Swizzle`].
    Swizzle,
    /// See [`FaultKind::SlowLinks`]: so many times.
    SlowLinks(String, u32),
    /// See [`FaultKind::FlakyLinks`]: so often a second.
    FlakyLinks(String, u32),
    /// See [`FaultKind::ConnectionDeaths`]: so many in a hundred.
    ConnectionDeaths(u32),
    /// See [`FaultKind::SlowDisk`]: so many times.
    SlowDisk(String, u32),
    /// See [`FaultKind::NarrowDisk`]: so many bytes a second.
    NarrowDisk(Vec<String>, u64),
    /// See [`FaultKind::StalledDisk`].
    StalledDisk(String),
    /// See [`FaultKind::DiskErrors`]: so many in a hundred operations.
    DiskErrors(String, u32),
    /// See [`FaultKind::FullDisk`].
    FullDisk(String),
    /// See [`FaultKind::FlippedReads`]: so many in a hundred reads.
    FlippedReads(String, u32),
    /// See [`FaultKind::ClockRate`]: in hundredths.
    ClockRate(String, u32),
    /// See [`FaultKind::ClockJump`]: forward by seconds, the calendar by hours.
    ClockJump(String, u64, i64),
    /// See [`FaultKind::Lose`].
    Lose(String),
    /// See [`FaultKind::BitFlip`].
    BitFlip(String),
    /// See [`FaultKind::OldDisk`].
    OldDisk(String),
    /// See [`FaultKind::SwapDisks`].
    SwapDisks(String, String),
    /// See [`FaultKind::TooFewLeft`].
    TooFewLeft(Vec<String>),
    /// See [`FaultKind::Drain`].
    Drain(String),
    /// See [`FaultKind::Redundancy`].
    Redundancy(Redundancy),
    /// See [`FaultKind::ClientCut`]: which client, and from whom.
    ClientCut(u64, Vec<String>),
    /// See [`FaultKind::ClientHeld`].
    ClientHeld(u64, String),
    /// See [`FaultKind::ClientSlow`]: so many times.
    ClientSlow(u64, String, u32),
    /// See [`FaultKind::ClientPause`].
    ClientPause(u64),
    /// See [`FaultKind::ClientFreeze`].
    ClientFreeze(u64),
    /// See [`FaultKind::ClientKill`].
    ClientKill(u64),
    /// See [`FaultKind::ZoneLost`].
    ZoneLost(u32),
    /// See [`FaultKind::SplitZone`].
    SplitZone(u32),
    /// See [`FaultKind::BrokenLink`].
    BrokenLink(u32, u32),
    /// See [`FaultKind::FilledDisk`].
    FilledDisk(String),
    /// See [`FaultKind::MoveController`].
    MoveController(String),
    /// See [`FaultKind::ReplaceController`].
    ReplaceController(String),
    /// See [`FaultKind::RemoveController`]: who is away, and who is to be removed.
    RemoveController(String, String),
    /// See [`FaultKind::LoseControllers`].
    LoseControllers,
}

impl Fault {
    /// Whether it can take something away for good, or moves data: one at a time.
    fn needs_rest(&self) -> bool {
        matches!(
            self,
            Fault::Lose(_)
                | Fault::BitFlip(_)
                | Fault::OldDisk(_)
                | Fault::SwapDisks(..)
                | Fault::TooFewLeft(_)
                | Fault::Drain(_)
                | Fault::Redundancy(_)
                | Fault::ZoneLost(_)
                | Fault::BrokenLink(..)
                | Fault::FilledDisk(_)
                | Fault::MoveController(_)
                | Fault::ReplaceController(_)
                | Fault::RemoveController(..)
                | Fault::LoseControllers
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::PowerFailure(nodes) => write!(f, "power failure of {}", nodes.join(", ")),
            Fault::TornWrite(nodes) => {
                write!(f, "power failure in the middle of writes of {}", nodes.join(", "))
            }
            Fault::Kill(node, 1) => write!(f, "{node} is killed"),
            Fault::Kill(node, times) => write!(f, "{node} is killed {times} times"),
            Fault::Cascade(first, logs) => {
                write!(f, "{first} stands still while one by one are killed {}", logs.join(", "))
            }
            Fault::Stop(node) => write!(f, "{node} ends in order"),
            Fault::Pause(node) => write!(f, "{node} stands still"),
            Fault::Freeze(node) => write!(f, "{node} stands still with its clock"),
            Fault::Partition(one, other) => {
                write!(f, "{} do not reach {}", one.join(", "), other.join(", "))
            }
            Fault::SplitBrain(nodes, later_half) => {
                let clients = if *later_half {
                    "the later half of the clients"
                } else {
                    "every second client"
                };
                write!(f, "controllers do not reach {} and {clients}", nodes.join(", "))
            }
            Fault::Isolate(nodes) => write!(f, "{} cut off", nodes.join(", ")),
            Fault::CutOneWay(from, to) => write!(f, "no way from {from} to {to}"),
            Fault::Mute(node) => write!(f, "nothing gets out of {node}"),
            Fault::Deafen(node) => write!(f, "nothing gets to {node}"),
            Fault::Swizzle => {
                write!(f, "nodes are cut off one by one, and connected in another order")
            }
            Fault::SlowLinks(node, factor) => {
                write!(f, "all that {node} says takes {factor} times as long")
            }
            Fault::FlakyLinks(node, rate) => {
                write!(f, "connections of {node} are reset {rate} times a second")
            }
            Fault::ConnectionDeaths(share) => write!(f, "{share} % of all new connections break"),
            Fault::SlowDisk(node, factor) => {
                write!(f, "the disk of {node} takes {factor} times as long")
            }
            Fault::NarrowDisk(nodes, bytes) => {
                write!(f, "the disks of {} take {bytes} bytes a second", nodes.join(", "))
            }
            Fault::StalledDisk(node) => write!(f, "the disk of {node} does not answer"),
            Fault::DiskErrors(node, share) => {
                write!(f, "{share} % of what the disk of {node} does fails")
            }
            Fault::FullDisk(node) => write!(f, "the disk of {node} is full"),
            Fault::FlippedReads(node, share) => {
                write!(f, "{share} % of what {node} reads has a flipped bit")
            }
            Fault::ClockRate(node, rate) => write!(f, "the clock of {node} goes at {rate} %"),
            Fault::ClockJump(node, seconds, hours) => {
                write!(f, "the clock of {node} jumps by {seconds} s, its calendar by {hours} h")
            }
            Fault::Lose(node) => write!(f, "the disk of {node} is lost"),
            Fault::BitFlip(node) => write!(f, "a bit on the disk of {node} is flipped"),
            Fault::OldDisk(node) => write!(f, "{node} comes back with an old disk"),
            Fault::SwapDisks(one, other) => write!(f, "{one} and {other} swap their disks"),
            Fault::TooFewLeft(logs) => {
                write!(f, "too few logs are left without {}", logs.join(", "))
            }
            Fault::Drain(node) => write!(f, "{node} is drained"),
            Fault::Redundancy(redundancy) => write!(f, "the redundancy becomes {redundancy}"),
            Fault::ClientCut(client, nodes) => {
                write!(f, "client ~{client} is cut off from {}", nodes.join(", "))
            }
            Fault::ClientHeld(client, node) => {
                write!(f, "what client ~{client} says to {node} is held back")
            }
            Fault::ClientSlow(client, node, factor) => {
                write!(f, "between client ~{client} and {node} all takes {factor} times as long")
            }
            Fault::ClientPause(client) => write!(f, "client ~{client} stands still"),
            Fault::ClientFreeze(client) => {
                write!(f, "client ~{client} stands still with its clock")
            }
            Fault::ClientKill(client) => write!(f, "client ~{client} is killed"),
            Fault::ZoneLost(zone) => write!(f, "zone {zone} is lost for a while"),
            Fault::SplitZone(zone) => {
                write!(f, "zone {zone} and half of the clients do not reach the others")
            }
            Fault::BrokenLink(one, other) => {
                write!(f, "zones {one} and {other} do not reach each other")
            }
            Fault::FilledDisk(node) => write!(f, "the disk of {node} is full for a while"),
            Fault::MoveController(node) => write!(f, "{node} comes back at another address"),
            Fault::ReplaceController(node) => write!(f, "{node} loses its disk and is replaced"),
            Fault::LoseControllers => write!(f, "all controllers but one lose their disks"),
            Fault::RemoveController(away, node) => {
                write!(f, "{node} is to be removed while {away} is away")
            }
        }
    }
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq)]
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
                let _turn = match planned.fault.needs_rest() {
                    true => Some(turn.lock().await),
                    false => None,
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
    let (network, clocks) = (world.network(), world.clocks());
    let everybody: Vec<String> = world.nodes().map(str::to_owned).collect();
    let others_than = |node: &String| -> Vec<IpAddr> {
        world.ips_of(everybody.iter().filter(|other| *other != node))
    };
    match &planned.fault {
        Fault::PowerFailure(nodes) => {
            nodes.iter().for_each(|node| world.power_off(node));
            lasting().await;
            nodes.iter().for_each(|node| world.start_again(node));
        }
        Fault::TornWrite(nodes) => {
            let slow = Faults { slowness: 200.0, ..Faults::NONE };
            nodes.iter().for_each(|node| world.disk_of(node).set_faults(slow));
            lasting().await;
            nodes.iter().for_each(|node| world.power_off(node));
            nodes.iter().for_each(|node| world.disk_of(node).set_faults(Faults::NONE));
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
        Fault::Cascade(first, logs) => {
            let step = planned.lasts / (logs.len() as u32 + 1);
            world.pause(first);
            for log in logs {
                world.kill(log);
                runtime::sleep(step).await;
            }
            world.resume(first);
            runtime::sleep(step).await;
            logs.iter().for_each(|log| world.start_again(log));
        }
        Fault::Stop(node) => {
            world.ask_to_stop(node);
            lasting().await;
            // Whoever has not ended by then is killed.
            world.kill(node);
            world.start_again(node);
        }
        Fault::Pause(node) => {
            world.pause(node);
            lasting().await;
            world.resume(node);
        }
        Fault::Freeze(node) => {
            clocks.freeze(world.id_of(node));
            lasting().await;
            clocks.thaw(world.id_of(node));
        }
        Fault::Partition(one, other) => {
            let (one, other) = (world.ips_of(one), world.ips_of(other));
            network.partition(&[one.clone(), other.clone()]);
            lasting().await;
            unclog_all(network, &one, &other);
        }
        Fault::SplitBrain(nodes, later_half) => {
            let controllers: Vec<IpAddr> =
                world.nodes_of("controller-").map(|node| world.ip_of(node)).collect();
            let mut others = world.ips_of(nodes);
            let clients = world.client_ips();
            match later_half {
                // Workloads that write and read have their readers there: a reader alone does not notice that its
                // generation is over.
                true => others.extend(&clients[clients.len().div_ceil(2)..]),
                false => others.extend(clients.iter().step_by(2)),
            }
            network.partition(&[controllers.clone(), others.clone()]);
            lasting().await;
            unclog_all(network, &controllers, &others);
        }
        Fault::Isolate(nodes) => {
            nodes.iter().for_each(|node| network.isolate(world.ip_of(node)));
            lasting().await;
            nodes.iter().for_each(|node| network.rejoin(world.ip_of(node)));
        }
        Fault::CutOneWay(from, to) => {
            network.clog(world.ip_of(from), world.ip_of(to));
            lasting().await;
            network.unclog(world.ip_of(from), world.ip_of(to));
        }
        Fault::Mute(node) => {
            network.mute(world.ip_of(node));
            lasting().await;
            network.rejoin(world.ip_of(node));
        }
        Fault::Deafen(node) => {
            network.deafen(world.ip_of(node));
            lasting().await;
            network.rejoin(world.ip_of(node));
        }
        Fault::Swizzle => network.swizzle(&world.ips_of(&everybody), planned.lasts).await,
        Fault::SlowLinks(node, factor) => {
            let (from, to) = ([world.ip_of(node)], others_than(node));
            network.slow(&from, &to, f64::from(*factor));
            lasting().await;
            network.slow(&from, &to, 1.0);
        }
        Fault::FlakyLinks(node, rate) => {
            let (from, to) = ([world.ip_of(node)], others_than(node));
            network.flaky(&from, &to, f64::from(*rate));
            lasting().await;
            network.flaky(&from, &to, world.climate().resets_per_second);
        }
        Fault::ConnectionDeaths(share) => {
            network.connection_deaths(f64::from(*share) / 100.0);
            lasting().await;
            network.connection_deaths(world.climate().deaths);
        }
        Fault::SlowDisk(node, factor) => {
            let slowness = f64::from(*factor);
            world.disk_of(node).set_faults(Faults { slowness, ..Faults::NONE });
            lasting().await;
            world.disk_of(node).set_faults(Faults::NONE);
        }
        Fault::NarrowDisk(nodes, bytes) => {
            let faults = Faults { bytes_per_second: Some(*bytes), ..Faults::NONE };
            nodes.iter().for_each(|node| world.disk_of(node).set_faults(faults));
            lasting().await;
            nodes.iter().for_each(|node| world.disk_of(node).set_faults(Faults::NONE));
        }
        Fault::StalledDisk(node) => {
            world.disk_of(node).stall(Some(planned.lasts));
            lasting().await;
            world.disk_of(node).lift_stall();
        }
        Fault::DiskErrors(node, share) => {
            let rate = f64::from(*share) / 100.0;
            let faults =
                Faults { read_errors: rate, write_errors: rate, sync_errors: rate, ..Faults::NONE };
            world.disk_of(node).set_faults(faults);
            lasting().await;
            world.disk_of(node).set_faults(Faults::NONE);
            restart(world, node).await;
        }
        Fault::FullDisk(node) => {
            world.disk_of(node).fill(true);
            lasting().await;
            world.disk_of(node).fill(false);
            restart(world, node).await;
        }
        Fault::FlippedReads(node, share) => {
            let read_flips = f64::from(*share) / 100.0;
            world.disk_of(node).set_faults(Faults { read_flips, ..Faults::NONE });
            lasting().await;
            world.disk_of(node).set_faults(Faults::NONE);
            restart(world, node).await;
        }
        Fault::ClockRate(node, rate) => {
            clocks.set_rate(world.id_of(node), f64::from(*rate) / 100.0);
            lasting().await;
            clocks.set_rate(world.id_of(node), 1.0);
        }
        Fault::ClockJump(node, seconds, hours) => {
            clocks.jump_forward(world.id_of(node), Duration::from_secs(*seconds));
            clocks.jump_calendar(world.id_of(node), hours * 3_600);
        }
        Fault::Lose(node) => operations::lose(world, node).await?,
        Fault::BitFlip(node) => operations::flip_a_bit(world, node, planned.lasts).await?,
        Fault::OldDisk(node) => operations::bring_back_old_disk(world, node, planned.lasts).await?,
        Fault::SwapDisks(one, other) => {
            let both = [one, other];
            both.iter().for_each(|node| world.power_off(node));
            world.swap_disks(one, other);
            lasting().await;
            both.iter().for_each(|node| world.start_again(node));
        }
        Fault::TooFewLeft(logs) => operations::take_too_many(world, logs, planned.lasts).await?,
        Fault::Drain(node) => operations::drain(world, node).await?,
        Fault::Redundancy(redundancy) => operations::configure(world, *redundancy).await?,
        Fault::MoveController(node) => {
            operations::move_controller(world, node, planned.lasts).await?;
        }
        Fault::ReplaceController(node) => {
            operations::replace_controller(world, node, planned.lasts).await?;
        }
        Fault::LoseControllers => operations::lose_controllers(world, planned.lasts).await?,
        Fault::RemoveController(away, removed) => {
            operations::remove_controller(world, (away, removed), planned.lasts).await?;
        }
        Fault::ZoneLost(zone) => zones::lose(world, *zone, planned.lasts).await?,
        Fault::SplitZone(zone) => zones::split(world, *zone, planned.lasts).await,
        Fault::BrokenLink(one, other) => {
            zones::break_link(world, *one, *other, planned.lasts).await?;
        }
        Fault::FilledDisk(node) => zones::fill(world, node, planned.lasts).await?,
        client => client_fault::happen(world, client, planned.lasts).await,
    }
    Ok(())
}

pub(crate) fn unclog_all(network: &SimulatedNetwork, some: &[IpAddr], others: &[IpAddr]) {
    for (one, other) in some.iter().flat_map(|one| others.iter().map(|other| (*one, *other))) {
        network.unclog(one, other);
        network.unclog(other, one);
    }
}

/// What somebody does about a process that has said that its disk has failed.
async fn restart(world: &World, node: &str) {
    world.kill(node);
    runtime::sleep(Duration::from_millis(100)).await;
    world.start_again(node);
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
