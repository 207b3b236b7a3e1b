//! Troubles of whole zones, of the links between two of them, and of disks that fill: what a cluster has to live with while it
//! lasts, not only afterwards (I-13).
//!
//! ```text
//!   zone lost      a1 a2 and all else of zone a are off      commits go on meanwhile
//!   split zone     zone a and some clients on one side, everybody else on the other: two generations for a while
//!   broken link    zones a and b do not reach each other; controllers and clients reach both: commits go on meanwhile, and
//!                  the generation stays
//!   filled disk    full for a while, then not: commits go on, and nobody restarts anything
//! ```

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, bail, ensure};
use ferrisdb_client::TransactionOption;
use ferrisdb_core::{Stage, runtime, service::controller::Status};

use crate::{
    dice::Dice,
    fault::{Fault, FaultKind},
    operations::{self, number_of},
    plan::Topology,
    world::World,
};

/// How long after one of these troubles began something must be committed, though it lasts.
const GO_ON_LIMIT: Duration = Duration::from_secs(30);
/// For how long the generation is looked at after that, and how many new ones there may be meanwhile.
const CALM: Duration = Duration::from_secs(30);
const GENERATIONS_MAX: u64 = 3;

/// Draws one of these troubles, if the cluster is of a shape that has to live with it.
pub fn draw(kind: FaultKind, topology: &Topology, dice: &mut Dice) -> Option<Fault> {
    let (copies, logs) = (topology.redundancy.copies(), topology.logs + topology.spare_logs);
    let zones = topology.zones.min(logs).min(topology.coordinators);
    let zone = dice.between(1, u64::from(zones)) as u32;
    let other = dice.between(1, u64::from(zones)) as u32;
    // Without the zone there are still enough to recruit from.
    let is_spare = topology.zones.min(logs) > copies && zones > 1;
    match kind {
        FaultKind::ZoneLost => (copies > 1 && is_spare).then_some(Fault::ZoneLost(zone)),
        FaultKind::SplitZone => is_spare.then_some(Fault::SplitZone(zone)),
        FaultKind::BrokenLink => {
            (is_spare && zone != other).then_some(Fault::BrokenLink(zone, other))
        }
        _ => {
            let (of, count) =
                dice.pick(&[("log", logs), ("log", logs), ("storage", topology.storage)]);
            Some(Fault::FilledDisk(format!("{of}-{}", dice.between(1, u64::from(count)))))
        }
    }
}

/// What of a zone does not belong to the controllers.
fn members(world: &World, zone: u32) -> Vec<String> {
    let is_in = |node: &&str| {
        !node.starts_with("controller-") && world.topology().zone(number_of(node)) == zone
    };
    world.nodes().filter(is_in).map(str::to_owned).collect()
}

/// A zone has no power for a while.
///
/// # Errors
///
/// If the cluster does not go on without it.
pub async fn lose(world: &World, zone: u32, lasts: Duration) -> Result<()> {
    operations::drained(world, "before a zone is lost").await?;
    let nodes = members(world, zone);
    nodes.iter().for_each(|node| world.power_off(node));
    let went_on = go_on(world, "while a zone is lost").await;
    runtime::sleep(lasts).await;
    nodes.iter().for_each(|node| world.start_again(node));
    went_on?;
    operations::at_rest(world, "after a zone has come back").await?;
    Ok(())
}

/// A zone and the later half of the clients do not reach the others, for a while.
pub async fn split(world: &World, zone: u32, lasts: Duration) {
    let nodes = members(world, zone);
    let others: Vec<IpAddr> = world
        .nodes()
        .filter(|node| !nodes.iter().any(|member| member == node))
        .map(|node| world.ip_of(node))
        .collect();
    let mut old_side = world.ips_of(&nodes);
    let clients = world.client_ips();
    // Workloads that write and read have their readers there, see `Fault::SplitBrain`.
    old_side.extend(&clients[clients.len().div_ceil(2)..]);
    world.network().partition(&[old_side.clone(), others.clone()]);
    runtime::sleep(lasts).await;
    unclog(world, &old_side, &others);
}

fn unclog(world: &World, some: &[IpAddr], others: &[IpAddr]) {
    for (&one, &other) in some.iter().flat_map(|one| others.iter().map(move |other| (one, other))) {
        world.network().unclog(one, other);
        world.network().unclog(other, one);
    }
}

/// Two zones do not reach each other. Controllers and clients reach both.
///
/// # Errors
///
/// If the cluster does not go on, or changes its generation again and again.
pub async fn break_link(world: &World, zone: u32, other: u32, lasts: Duration) -> Result<()> {
    operations::drained(world, "before a link breaks").await?;
    let (one, other) = (world.ips_of(&members(world, zone)), world.ips_of(&members(world, other)));
    world.network().partition(&[one.clone(), other.clone()]);
    let stayed = async {
        go_on(world, "while two zones do not reach each other").await?;
        stay(world, "while two zones do not reach each other").await
    };
    let stayed = stayed.await;
    runtime::sleep(lasts).await;
    unclog(world, &one, &other);
    stayed
}

/// A disk is full for a while, and nobody restarts anything.
///
/// # Errors
///
/// If the cluster does not go on without the process, changes its generation again and again, or does not take it back.
pub async fn fill(world: &World, node: &str, lasts: Duration) -> Result<()> {
    operations::drained(world, "before a disk is full").await?;
    let topology = world.topology();
    let address = world.address_of(node).clone();
    let logs = topology.logs + topology.spare_logs;
    let is_needed = node.starts_with("log-")
        && topology.zones_without(number_of(node), logs) < topology.redundancy.copies();
    world.disk_of(node).fill(true);
    let stayed = async {
        if !is_needed {
            go_on(world, "while a disk is full").await?;
            stay(world, "while a disk is full").await?;
        }
        Ok(())
    };
    let stayed: Result<()> = stayed.await;
    runtime::sleep(lasts).await;
    world.disk_of(node).fill(false);
    stayed?;
    let is_back = |status: &Status| {
        let found = status.processes.iter().find(|p| p.heartbeat.worker.address == address);
        found.is_some_and(|process| process.alive)
    };
    operations::until(world, "taking a process back whose disk has space again", is_back).await?;
    operations::at_rest(world, "after a disk was full").await?;
    Ok(())
}

/// Something is committed within a bound, whatever else is wrong.
async fn go_on(world: &World, when: &str) -> Result<()> {
    let committed = world.client(|database| async move {
        loop {
            let transaction = database.transaction();
            let limit = TransactionOption::Timeout(Duration::from_secs(2));
            let committed = async {
                transaction.set_option(limit)?;
                transaction.set("zones/went-on", "yes")?;
                transaction.commit().await
            };
            if committed.await.is_ok() {
                return;
            }
            runtime::sleep(Duration::from_millis(50)).await;
        }
    });
    if runtime::timeout(GO_ON_LIMIT, Stage::Client, committed).await.is_err() {
        bail!("nothing was committed within {GO_ON_LIMIT:?} {when} (I-13)");
    }
    Ok(())
}

/// A generation that has proved that it works is not replaced by worse ones.
async fn stay(world: &World, when: &str) -> Result<()> {
    // Where connections come to nothing by themselves, any attempt may meet one, and the next one follows.
    let max = match world.climate().silent_connects > 0.0 {
        true => 2 * GENERATIONS_MAX,
        false => GENERATIONS_MAX,
    };
    let is_active = |status: &Status| status.cluster.coordinator.is_some();
    let before = operations::until(world, when, is_active).await?.cluster.generation;
    runtime::sleep(CALM).await;
    let after = operations::until(world, when, is_active).await?.cluster.generation;
    let count = after.0 - before.0;
    ensure!(count <= max, "{count} new generations within {CALM:?} {when} (I-13)");
    Ok(())
}
