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
//!
//! What there is stands here, `draw.rs` makes a schedule of it, and in `happen.rs` that happens to a world.

mod draw;
mod happen;

use std::{fmt, time::Duration};

use ferrisdb_core::service::controller::Redundancy;
use serde::Deserialize;

pub use draw::draw;
pub use happen::happen;
pub(crate) use happen::unclog_all;

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
    /// No coordinator and one log reach each other: what the others get is rolled back, where that one is needed.
    LogCut,
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
    /// See [`FaultKind::Partition`] and [`FaultKind::LogCut`].
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
