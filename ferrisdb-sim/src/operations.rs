//! What operators do to a running cluster, and losses that it has to make good by itself: servers are lost for good,
//! drained and taken back, the number of copies changes. After each the cluster must come to rest, with every shard
//! as often as it should be, on servers that are there.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{Network, TransactionOption};
use ferrisdb_core::{
    Tag,
    controllers::Controllers,
    id::Address,
    runtime,
    service::controller::{
        Command, ConfigurationChange, Phase, ProcessSelector, Redundancy, Status,
    },
    transport,
};
use ferrisdb_server::{host::ControllerHost, raft};

use crate::world::{DATA, World};

/// How long the cluster may take to come to rest, in simulated time.
const REST_LIMIT: Duration = Duration::from_secs(180);
/// How long it may take until controllers that are a majority have a leader.
const DECIDE_LIMIT: Duration = Duration::from_secs(40);

/// A node's disk is lost, its process never comes back, and another one takes its place with the same name. Waits
/// before it until everything has all its copies, and afterwards until it has them again.
///
/// # Errors
///
/// If the cluster does not come to rest.
pub async fn lose(world: &World, node: &str) -> Result<()> {
    if let Some(lost) = expendable(world, node).await? {
        replace_disk(world, node, lost).await?;
    }
    Ok(())
}

/// A bit of a node's disk is flipped while the machine is off. It is started again, whatever comes of that, and some time
/// later somebody puts a new disk in.
///
/// # Errors
///
/// If the cluster does not come to rest.
pub async fn flip_a_bit(world: &World, node: &str, lasts: Duration) -> Result<()> {
    let Some(tag) = expendable(world, node).await? else { return Ok(()) };
    world.power_off(node);
    let flipped = world.disk_of(node).flip_bit();
    world.trace().note(format_args!("flipped a bit of {node}: {flipped:?}"));
    world.start_again(node);
    runtime::sleep(lasts).await;
    replace_disk(world, node, tag).await
}

/// A machine comes back with the disk that it had a while ago. Some time later somebody puts a new disk in.
///
/// # Errors
///
/// If the cluster does not come to rest.
pub async fn bring_back_old_disk(world: &World, node: &str, lasts: Duration) -> Result<()> {
    let Some(tag) = expendable(world, node).await? else { return Ok(()) };
    let old = world.disk_of(node).snapshot();
    runtime::sleep(lasts * 2).await;
    world.power_off(node);
    world.trace().note(format_args!("{node} gets its old disk back"));
    world.disk_of(node).restore(&old);
    world.start_again(node);
    runtime::sleep(lasts).await;
    replace_disk(world, node, tag).await
}

/// Waits until a node can be done without, and says what its tag is, if it has one; `None` if it is needed.
async fn expendable(world: &World, node: &str) -> Result<Option<Option<Tag>>> {
    let address = world.address_of(node);
    let status = drained(world, "before a loss").await?;
    let copies = status.cluster.configuration.as_ref().map_or(1, |c| c.redundancy.copies());
    if copies == 1 {
        world.trace().note(format_args!("{node} has the only copy of something: it is spared"));
        return Ok(None);
    }
    let topology = world.topology();
    let count = match node.starts_with("log-") {
        true => topology.logs + topology.spare_logs,
        false => topology.storage,
    };
    if topology.zones_without(number_of(node), count) < copies {
        world.trace().note(format_args!("{node} has a zone that is needed: it is spared"));
        return Ok(None);
    }
    let servers = &status.cluster.storage_servers;
    let server = servers.iter().find(|server| server.endpoint.address == address);
    Ok(Some(server.map(|server| server.tag)))
}

async fn replace_disk(world: &World, node: &str, lost: Option<Tag>) -> Result<()> {
    world.lose(node);
    if let Some(lost) = lost {
        until(world, "replacing a lost server", |status| {
            !status.cluster.storage_servers.iter().any(|server| server.tag == lost)
        })
        .await?;
    }
    world.start_again(node);
    drained(world, "after a loss").await?;
    Ok(())
}

/// A storage server is excluded, and taken back when it holds nothing any more.
///
/// # Errors
///
/// If the cluster does not come to rest.
pub async fn drain(world: &World, node: &str) -> Result<()> {
    let address = world.address_of(node);
    let status = until(world, "waiting for a server to join", |status| {
        status.cluster.storage_servers.iter().any(|server| server.endpoint.address == address)
    })
    .await?;
    let copies = status.cluster.configuration.as_ref().map_or(1, |c| c.redundancy.copies());
    let topology = world.topology();
    if topology.zones_without(number_of(node), topology.storage) < copies {
        return Ok(());
    }
    let selector = || vec![ProcessSelector::Address(address.clone())];
    let tag = tag_of(&status, &address)?;
    administer(world, Command::Exclude(selector())).await?;
    until(world, "draining a server", |status| {
        let shards = status.cluster.shards.shards();
        !shards.iter().any(|shard| shard.teams.all().any(|other| other == tag))
    })
    .await?;
    administer(world, Command::Include(selector())).await?;
    at_rest(world, "after a drain").await?;
    Ok(())
}

/// So many logs lose their power that those left cannot know what was committed. Until they are back the cluster must wait,
/// and say for what (I-14).
///
/// # Errors
///
/// If it commits, or does not say so.
pub async fn take_too_many(world: &World, logs: &[String], lasts: Duration) -> Result<()> {
    let status = drained(world, "before too many logs go").await?;
    let logs = &too_many(world, &status, logs);
    logs.iter().for_each(|log| world.power_off(log));
    let status = until(world, "stopping without logs", |status| {
        matches!(&status.cluster.phase, Phase::Waiting { reason } if reason.contains("log"))
    })
    .await?;
    world.trace().note(format_args!("the cluster waits: {:?}", status.cluster.phase));
    let committed = world.client(move |database| async move {
        let ends = runtime::now() + lasts;
        let mut tries = 0;
        while runtime::now() < ends || tries == 0 {
            let transaction = database.transaction();
            transaction.set_option(TransactionOption::Timeout(Duration::from_secs(1)))?;
            transaction.set("operations/too-few-left", "written")?;
            if transaction.commit().await.is_ok() {
                bail!("a commit succeeded although too few logs are left (I-14)");
            }
            tries += 1;
        }
        Ok(tries)
    });
    let tries = committed.await?;
    world.trace().note(format_args!("{tries} commits failed, as they must"));
    logs.iter().for_each(|log| world.start_again(log));
    at_rest(world, "after the logs have come back").await?;
    Ok(())
}

/// These logs, if without them nobody knows what was committed; otherwise those as well that the generation has. One that began
/// while some log could not be reached does without it, and would not miss it now.
fn too_many(world: &World, status: &Status, logs: &[String]) -> Vec<String> {
    let mut logs = logs.to_vec();
    let Some(set) = status.cluster.log_sets.last() else { return logs };
    let is_lost = |index: usize| {
        logs.iter().any(|node| set.logs[index].endpoint.address == world.address_of(node))
    };
    if !set.copy_groups().has_whole_group(is_lost) {
        let is_member = |node: &&str| {
            set.logs.iter().any(|member| member.endpoint.address == world.address_of(node))
        };
        logs.extend(world.nodes_of("log-").filter(is_member).map(str::to_owned));
        logs.sort();
        logs.dedup();
    }
    logs
}

/// The number of copies changes.
///
/// # Errors
///
/// If the cluster does not come to rest.
pub async fn configure(world: &World, redundancy: Redundancy) -> Result<()> {
    let change = ConfigurationChange { redundancy: Some(redundancy), ..Default::default() };
    administer(world, Command::Configure(change)).await?;
    at_rest(world, "after a change of the redundancy").await?;
    Ok(())
}

/// A controller comes back at another address. Nobody tells the others but itself.
///
/// # Errors
///
/// If they do not learn it.
pub async fn move_controller(world: &World, node: &str, lasts: Duration) -> Result<()> {
    world.power_off(node);
    runtime::sleep(lasts).await;
    world.move_controller(node);
    world.start_again(node);
    let address = world.address_of(node);
    until(world, "waiting for the new address of a controller", |status| {
        status.cluster.controllers.iter().any(|member| member.address == address)
    })
    .await?;
    Ok(())
}

/// A controller loses its disk, and gives its place to one that begins with an empty one at the same address.
///
/// # Errors
///
/// If that is refused, or takes too long.
pub async fn replace_controller(world: &World, node: &str, lasts: Duration) -> Result<()> {
    let address = world.address_of(node);
    world.lose(node);
    runtime::sleep(lasts).await;
    world.start_again(node);
    change_controllers(world, Command::RemoveController(address.clone()), |members| {
        !members.contains(&address)
    })
    .await?;
    change_controllers(world, Command::AddController(address.clone()), |members| {
        members.contains(&address)
    })
    .await
}

/// All controllers stop, and all but one have lost their disks: that one is made to go on alone, and the others are added anew.
/// What the one has is enough; without a word from the others nobody could know that it is.
///
/// # Errors
///
/// If it does not go on.
pub async fn lose_controllers(world: &World, lasts: Duration) -> Result<()> {
    let nodes: Vec<String> = world.nodes_of("controller-").map(str::to_owned).collect();
    at_rest(world, "before all controllers but one are lost").await?;
    nodes.iter().for_each(|node| world.power_off(node));
    runtime::sleep(lasts).await;
    let mut newest = Vec::new();
    for node in &nodes {
        let disk = world.disk_of(node).clone();
        let remains = world.on_client_node(async move {
            raft::remains(Arc::clone(disk.media().disk()), Path::new(DATA)).await
        });
        newest.push((remains.await?.newest, node));
    }
    let Some((_, left)) = newest.into_iter().max() else { return Ok(()) };
    let others: Vec<&String> = nodes.iter().filter(|node| *node != left).collect();
    for other in &others {
        world.disk_of(other).replace_with_empty();
    }
    let (disk, address) = (world.disk_of(left).clone(), world.address_of(left));
    let forced = world.on_client_node(async move {
        let network = Network::new();
        ControllerHost::force_new_quorum(&disk.media(), Path::new(DATA), (&network, address)).await
    });
    world.trace().note(format_args!("{left} goes on alone: {:?}", forced.await?));
    nodes.iter().for_each(|node| world.start_again(node));
    for other in others {
        let address = world.address_of(other);
        let is_there = |members: &[Address]| members.contains(&address);
        change_controllers(world, Command::AddController(address.clone()), is_there).await?;
    }
    at_rest(world, "after all controllers but one were lost").await?;
    Ok(())
}

/// Repeats a command until the members are as it should make them. It may have been done although its answer was lost.
async fn change_controllers(
    world: &World,
    command: Command,
    is_done: impl Fn(&[Address]) -> bool,
) -> Result<()> {
    let began = runtime::now();
    loop {
        let refused = ask_once(world, command.clone()).await;
        let known = status(world).await.map(|status| {
            let members = status.cluster.controllers.iter();
            members.map(|member| member.address.clone()).collect::<Vec<_>>()
        });
        if known.as_deref().is_ok_and(&is_done) {
            return Ok(());
        }
        ensure!(
            runtime::now().duration_since(began) < REST_LIMIT,
            "{command:?} came to nothing: {refused:?}, {known:?}"
        );
        runtime::sleep(Duration::from_millis(200)).await;
    }
}

/// A controller is to be removed while another one is away. Whatever comes of that, the others must still be able to decide.
///
/// # Errors
///
/// If they are not.
pub async fn remove_controller(
    world: &World,
    (away, removed): (&str, &str),
    lasts: Duration,
) -> Result<()> {
    world.power_off(away);
    runtime::sleep(lasts).await;
    let address = world.address_of(removed);
    let answer = ask_once(world, Command::RemoveController(address.clone())).await;
    world.trace().note(format_args!("removing {removed} while {away} is away: {answer:?}"));
    // Whatever else goes wrong meanwhile is over within moments.
    let after = "after a controller was to be removed (I-13)";
    let status = until_within(world, after, DECIDE_LIMIT, |_| true).await?;
    let is_removed = !status.cluster.controllers.iter().any(|member| member.address == address);
    let when = "a controller could be removed, and nothing can be decided without it (I-13)";
    let change = ConfigurationChange::default();
    administer(world, Command::Configure(change)).await.context(when)?;
    world.start_again(away);
    if is_removed {
        let is_back = |members: &[Address]| members.contains(&address);
        change_controllers(world, Command::AddController(address.clone()), is_back).await?;
    }
    Ok(())
}

/// Waits until every shard is as it should be, and nothing is left that is on the logs of an older generation only.
///
/// # Errors
///
/// If that takes too long.
pub async fn drained(world: &World, when: &str) -> Result<Status> {
    at_rest(world, when).await?;
    until(world, when, |status| is_at_rest(status) && status.cluster.log_sets.len() <= 1).await
}

/// The number at the end of a node's name.
pub fn number_of(node: &str) -> u32 {
    let number = node.rsplit('-').next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{node} has no number"))
}

fn tag_of(status: &Status, address: &Address) -> Result<Tag> {
    let servers = &status.cluster.storage_servers;
    match servers.iter().find(|server| server.endpoint.address == *address) {
        Some(server) => Ok(server.tag),
        None => bail!("no storage server is at {address}: {servers:?}"),
    }
}

/// Waits until every shard is as it should be.
///
/// # Errors
///
/// If that takes too long.
pub async fn at_rest(world: &World, when: &str) -> Result<Status> {
    until(world, when, is_at_rest).await
}

/// Whether every shard has all its copies, on servers that are there.
fn is_at_rest(status: &Status) -> bool {
    let copies = status.cluster.configuration.as_ref().map_or(1, |c| c.redundancy.copies());
    let alive = |tag: &Tag| {
        let server = status.cluster.storage_servers.iter().find(|server| server.tag == *tag);
        server.is_some_and(|server| {
            let process = status.processes.iter().find(|p| p.heartbeat.process == server.process);
            process.is_some_and(|process| process.alive)
        })
    };
    status.cluster.phase == Phase::Active
        && status.repairs.is_empty()
        && status.stuck.is_empty()
        && status.cluster.shards.shards().iter().all(|shard| {
            let teams = &shard.teams;
            teams.joining.is_empty()
                && teams.team.len() == copies as usize
                && teams.team.iter().all(alive)
        })
}

/// Waits until something is so.
///
/// # Errors
///
/// If that takes too long.
pub async fn until(world: &World, when: &str, is_so: impl Fn(&Status) -> bool) -> Result<Status> {
    until_within(world, when, REST_LIMIT, is_so).await
}

async fn until_within(
    world: &World,
    when: &str,
    limit: Duration,
    is_so: impl Fn(&Status) -> bool,
) -> Result<Status> {
    let began = runtime::now();
    let mut last = None;
    while runtime::now().duration_since(began) < limit {
        match status(world).await {
            Ok(status) if is_so(&status) => return Ok(status),
            Ok(status) => last = Some(Ok(status)),
            Err(error) => last = Some(Err(error)),
        }
        runtime::sleep(Duration::from_millis(200)).await;
    }
    bail!("not at rest after {limit:?}, {when}: {last:#?}")
}

async fn status(world: &World) -> Result<Status> {
    let controllers = world.controllers();
    world
        .on_client_node(async move {
            let controllers = Controllers::new(Network::new(), controllers);
            let (_, client) = controllers.leader().await?;
            let limit = Duration::from_secs(1);
            let asked = transport::call(limit, ferrisdb_core::Stage::Control, |context| {
                client.status(context)
            });
            Ok(asked.await??)
        })
        .await
}

async fn administer(world: &World, command: Command) -> Result<()> {
    let began = runtime::now();
    loop {
        match ask_once(world, command.clone()).await {
            Ok(()) => return Ok(()),
            // A process that is away for a moment, or a leader that is being replaced.
            Err(error) => ensure!(
                runtime::now().duration_since(began) < REST_LIMIT,
                "{command:?} is refused: {error}"
            ),
        }
        runtime::sleep(Duration::from_millis(200)).await;
    }
}

async fn ask_once(world: &World, command: Command) -> Result<()> {
    let controllers = world.controllers();
    world
        .on_client_node(async move {
            let controllers = Controllers::new(Network::new(), controllers);
            let (_, client) = controllers.leader().await?;
            let limit = Duration::from_secs(5);
            let asked = transport::call(limit, ferrisdb_core::Stage::Control, |context| {
                client.administer(context, command)
            });
            Ok(asked.await??)
        })
        .await
}
