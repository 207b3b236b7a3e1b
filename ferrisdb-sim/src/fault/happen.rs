//! How the faults of a schedule happen to a world, and end.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Result;
use ferrisdb_core::runtime;

use super::{Fault, Planned};
use crate::{
    client_fault, disk::Faults, network::SimulatedNetwork, operations, world::World, zones,
};

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
