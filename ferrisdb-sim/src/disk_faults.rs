//! Trouble with disks, one at a time, while a workload runs.
//!
//! ```text
//!   errors, full      a log, a storage server or a controller, for a while; then the process is started again
//!   stall, slow       the same, and nobody has to be started again
//!   bit-flip          a log or a storage server is off, loses a bit, and comes back
//!   old-disk          a log or a storage server comes back with what it had some time ago
//!   empty-disk        ... with nothing
//! ```
//!
//! Whoever has lost data counts as lost, so after each the cluster is given the time to make it good.

use std::time::Duration;

use anyhow::Result;
use ferrisdb_core::{runtime, service::controller::Status};

use crate::{disk::Faults, operations, trace::Trace, world::World};

/// What happens to disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DiskTrouble {
    /// Operations fail for a while.
    Errors,
    /// Nothing that needs space succeeds for a while.
    Full,
    /// Everything hangs for seconds.
    Stall,
    /// Everything is slow for seconds.
    Slow,
    /// A bit is lost while the process is off.
    BitFlip,
    /// A machine comes back with an old disk.
    OldDisk,
    /// A machine comes back with an empty disk.
    EmptyDisk,
}

impl DiskTrouble {
    /// Whether a copy of the data is lost: the cluster needs a second one, and time to make up for it.
    pub fn loses_data(self) -> bool {
        matches!(self, DiskTrouble::BitFlip | DiskTrouble::OldDisk | DiskTrouble::EmptyDisk)
    }
}

fn draw(bound: usize) -> usize {
    (runtime::random_u64() % bound as u64) as usize
}

/// Any node of some kinds.
fn draw_node(world: &World, kinds: &[&str]) -> (usize, String) {
    let of_kind = |name: &str| kinds.iter().any(|kind| name.starts_with(kind));
    let nodes: Vec<(usize, String)> = world
        .nodes()
        .enumerate()
        .filter(|(_, name)| of_kind(name))
        .map(|(index, name)| (index, name.to_owned()))
        .collect();
    nodes[draw(nodes.len())].clone()
}

/// Makes trouble once, and ends it.
///
/// # Errors
///
/// If the cluster does not come to rest after a loss.
pub async fn make(world: &mut World, trouble: DiskTrouble, trace: &Trace) -> Result<()> {
    let a_while = runtime::jitter(Duration::from_secs(2));
    if !trouble.loses_data() {
        let (index, name) = draw_node(world, &["log-", "log-", "storage-", "controller-"]);
        trace.note(format_args!("{trouble:?} on {name}"));
        let disk = world.disk(index).clone();
        match trouble {
            DiskTrouble::Errors => {
                let some = || [0.0, 0.05, 0.5, 1.0][draw(4)];
                let (read_errors, write_errors, sync_errors) = (some(), some(), some());
                let faults = Faults { read_errors, write_errors, sync_errors, ..Faults::NONE };
                disk.set_faults(faults);
            }
            DiskTrouble::Full => disk.fill(true),
            DiskTrouble::Stall => disk.stall(None),
            _ => disk.set_faults(Faults { slowness: [10.0, 100.0][draw(2)], ..Faults::NONE }),
        }
        runtime::sleep(a_while).await;
        // Some are started again while it lasts, and do not succeed.
        let is_restarted_early = draw(3) == 0;
        if is_restarted_early {
            world.kill(index);
            world.restart(index);
            runtime::sleep(runtime::jitter(Duration::from_millis(500))).await;
        }
        disk.set_faults(Faults::NONE);
        disk.fill(false);
        disk.lift_stall();
        trace.note(format_args!("{name} is well again"));
        if matches!(trouble, DiskTrouble::Errors | DiskTrouble::Full) {
            world.kill(index);
            world.restart(index);
        }
        return Ok(());
    }
    let (index, name) = draw_node(world, &["log-", "storage-"]);
    let old = world.disk(index).snapshot();
    if trouble == DiskTrouble::OldDisk {
        // Some are from an earlier life of the process, others from this one.
        if draw(2) == 0 {
            world.kill(index);
            world.restart(index);
        }
        runtime::sleep(a_while * [0, 1, 4][draw(3)]).await;
    }
    world.kill(index);
    let disk = world.disk(index);
    let what = match trouble {
        DiskTrouble::OldDisk => {
            disk.restore(&old);
            Some("an old disk".to_owned())
        }
        DiskTrouble::EmptyDisk => {
            disk.replace_with_empty();
            Some("an empty disk".to_owned())
        }
        _ if name.starts_with("log-") => {
            disk.flip_bit_in(|path| path.extension().is_some_and(|name| name == "log"))
        }
        _ => disk.flip_bit(),
    };
    trace.note(format_args!("{name} has lost something: {what:?}"));
    runtime::sleep(runtime::jitter(Duration::from_millis(500))).await;
    world.restart(index);
    runtime::sleep(a_while).await;
    let when = format!("{trouble:?} on {name}");
    operations::at_rest(world, &when).await?;
    // Until everything that was in the old logs is elsewhere, another log that is lost may be one too many.
    let is_drained = |status: &Status| status.cluster.log_sets.len() == 1;
    let status = operations::until(world, &format!("draining after {when}"), is_drained).await?;
    let address = world.address_of(index).clone();
    let is_well = status
        .processes
        .iter()
        .any(|process| process.alive && process.heartbeat.worker.address == address);
    if !is_well {
        // What an operator does with a server that says that it is of no use.
        trace.note(format_args!("{name} gets an empty disk"));
        world.lose(index);
        world.restart(index);
        runtime::sleep(a_while).await;
        operations::at_rest(world, &when).await?;
    }
    Ok(())
}
