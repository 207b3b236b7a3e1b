//! What operators do to a running cluster, and losses that it has to make good by itself: servers are lost for good,
//! drained and taken back, the number of copies changes. After each the cluster must come to rest, with every shard
//! as often as it should be, on servers that are there.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ferrisdb_client::Network;
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

use crate::world::World;

/// How long the cluster may take to come to rest, in simulated time.
const REST_LIMIT: Duration = Duration::from_secs(180);

fn draw(bound: usize) -> usize {
    (runtime::random_u64() % bound as u64) as usize
}

/// Does one thing that is drawn, and waits until the cluster is at rest again. Returns what it was.
///
/// # Errors
///
/// If the cluster does not come to rest.
pub async fn one(world: &mut World) -> Result<String> {
    let storage: Vec<(usize, String)> =
        world.nodes_of("storage-").map(|(index, name)| (index, name.to_owned())).collect();
    let (index, name) = storage[draw(storage.len())].clone();
    // The others go on, and recover, while this happens.
    if draw(2) == 0 {
        let victim = draw(world.node_count());
        world.kill(victim);
        runtime::sleep(runtime::jitter(Duration::from_millis(300))).await;
        world.restart(victim);
    }
    let address = world.address_of(index).clone();
    let status = until(world, "waiting for a server to join", |status| {
        status.cluster.storage_servers.iter().any(|server| server.endpoint.address == address)
    })
    .await?;
    let redundancy = status.cluster.configuration.as_ref().map(|c| c.redundancy);
    let copies = redundancy.map_or(1, Redundancy::copies) as usize;
    let can_spare_one = copies > 1 && storage.len() > copies;
    let what = match draw(3) {
        0 if can_spare_one => {
            let tag = tag_of(&status, &address)?;
            world.lose(index);
            until(world, "replacing a lost server", |status| {
                !status.cluster.storage_servers.iter().any(|server| server.tag == tag)
            })
            .await?;
            world.restart(index);
            format!("{name} was lost")
        }
        1 if storage.len() > copies => {
            let selector = || vec![ProcessSelector::Address(address.clone())];
            let tag = tag_of(&status, &address)?;
            let (exclude, include) = (Command::Exclude(selector()), Command::Include(selector()));
            administer(world, exclude).await?;
            until(world, "draining a server", |status| {
                let shards = status.cluster.shards.shards();
                !shards.iter().any(|shard| shard.teams.all().any(|other| other == tag))
            })
            .await?;
            administer(world, include).await?;
            format!("{name} was drained and taken back")
        }
        _ => {
            let possible = storage.len().min(world.nodes_of("log-").count()).min(3);
            let redundancy = Redundancy::ALL[draw(possible)];
            let change = ConfigurationChange { redundancy: Some(redundancy), ..Default::default() };
            administer(world, Command::Configure(change)).await?;
            format!("the redundancy is {redundancy}")
        }
    };
    at_rest(world, &what).await?;
    Ok(what)
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
pub async fn at_rest(world: &mut World, when: &str) -> Result<Status> {
    until(world, when, |status| {
        let copies = status.cluster.configuration.as_ref().map_or(1, |c| c.redundancy.copies());
        let alive = |tag: &Tag| {
            let server = status.cluster.storage_servers.iter().find(|server| server.tag == *tag);
            server.is_some_and(|server| {
                let process =
                    status.processes.iter().find(|p| p.heartbeat.process == server.process);
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
    })
    .await
}

pub(crate) async fn until(
    world: &mut World,
    when: &str,
    is_so: impl Fn(&Status) -> bool,
) -> Result<Status> {
    let began = runtime::now();
    let mut last = None;
    while runtime::now().duration_since(began) < REST_LIMIT {
        match status(world).await {
            Ok(status) if is_so(&status) => return Ok(status),
            Ok(status) => last = Some(Ok(status)),
            Err(error) => last = Some(Err(error)),
        }
        runtime::sleep(Duration::from_millis(200)).await;
    }
    bail!("not at rest after {REST_LIMIT:?}, {when}: {last:#?}")
}

async fn status(world: &mut World) -> Result<Status> {
    let controllers = world.controllers().to_vec();
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

async fn administer(world: &mut World, command: Command) -> Result<()> {
    let began = runtime::now();
    loop {
        let (controllers, wish) = (world.controllers().to_vec(), command.clone());
        let done: Result<()> = world
            .on_client_node(async move {
                let controllers = Controllers::new(Network::new(), controllers);
                let (_, client) = controllers.leader().await?;
                let limit = Duration::from_secs(2);
                let asked = transport::call(limit, ferrisdb_core::Stage::Control, |context| {
                    client.administer(context, wish)
                });
                Ok(asked.await??)
            })
            .await;
        match done {
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
