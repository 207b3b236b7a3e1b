//! What a cluster survives, and when it rather stops: too few are left, a controller is alone, a coordinator wakes up
//! from a long sleep, a storage server never comes back. And what operators do to it while it runs.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::time::Duration;

use ferrisdb_client::{
    Command, ConfigurationChange, Database, ProcessSelector, Redundancy, Status,
};
use ferrisdb_core::{
    Key, KeyRange, Mutation, Stage, Tag, Version,
    id::Address,
    runtime,
    service::{controller::Phase, proxy::ProxyService},
    transaction::CommitRequest,
    transport::{Network, call},
};
use support::{
    cluster::{Cluster, Shape},
    scene::{LIMIT, Scene, redundant},
};

/// How long the cluster may take to make good a loss.
const REPAIR_LIMIT: Duration = Duration::from_secs(60);

/// Waits until the status is as it should be.
async fn until(database: &Database, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
    let began = runtime::now();
    let mut last = String::new();
    while runtime::now().duration_since(began) < REPAIR_LIMIT {
        match database.status().await {
            Ok(status) if is_so(&status) => return status,
            Ok(status) => {
                last = format!("{:?} {:?} {:?}", status.cluster.phase, status.repairs, status.stuck)
            }
            Err(error) => last = error.to_string(),
        }
        runtime::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within {REPAIR_LIMIT:?}: {last}");
}

/// Every shard has all its copies, on servers that are there.
fn is_at_rest(status: &Status) -> bool {
    let copies = status.cluster.configuration.as_ref().unwrap().redundancy.copies();
    let alive = |tag: &Tag| {
        let server = status.cluster.storage_servers.iter().find(|server| server.tag == *tag);
        server.is_some_and(|server| {
            status.processes.iter().any(|p| p.heartbeat.process == server.process && p.alive)
        })
    };
    status.cluster.phase == Phase::Active
        && status.repairs.is_empty()
        && status.stuck.is_empty()
        && status.cluster.shards.shards().iter().all(|shard| {
            shard.teams.joining.is_empty()
                && shard.teams.team.len() == copies as usize
                && shard.teams.team.iter().all(alive)
        })
}

async fn set(database: &Database, key: &str, value: &str) {
    let (key, value) = (key.to_owned(), value.to_owned());
    database
        .run_transaction(|transaction| {
            let (key, value) = (key.clone(), value.clone());
            async move { transaction.set(key.as_str(), value.as_str()) }
        })
        .await
        .unwrap();
}

async fn get(database: &Database, key: &str) -> Option<Vec<u8>> {
    let value = database.transaction().get(key).await.unwrap();
    value.map(|value| value.to_vec())
}

/// All replicas are the same, byte for byte.
async fn check_replicas(database: &Database) {
    let report = database.check_consistency(|_| {}).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.total.rows > 0, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_too_few_logs_it_stops_says_so_loses_nothing_and_resumes() {
    let shape = Shape { logs: 3, ..redundant() };
    let mut cluster = Cluster::start(&shape);
    cluster.wait_available(LIMIT).await;
    let database = cluster.connect().await;
    set(&database, "before", "1").await;
    // Two copies on three logs: any one can be lost, two cannot.
    cluster.kill("log-0");
    cluster.kill("log-1");
    until(&database, "saying what is missing", |status| match &status.cluster.phase {
        Phase::Waiting { reason } => reason.contains("log processes in 2 zones (1 are alive"),
        _ => false,
    })
    .await;
    let impatient = cluster.connect().await;
    let transaction = impatient.transaction();
    let refused = transaction.get("before").await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");

    cluster.restart("log-1");
    cluster.wait_available(LIMIT).await;
    assert_eq!(get(&database, "before").await, Some(b"1".to_vec()));
    set(&database, "after", "2").await;
    cluster.restart("log-0");
    assert_eq!(get(&database, "after").await, Some(b"2".to_vec()));
    cluster.shut_down();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_of_controllers_commits_go_on_and_recoveries_wait() {
    let mut cluster = Cluster::start(&redundant());
    cluster.wait_available(LIMIT).await;
    let database = cluster.connect().await;
    let status = database.status().await.unwrap();
    let logs = status.cluster.log_sets.last().unwrap().logs.clone();
    let log = cluster.name_of(&logs[0].endpoint.address);
    let impatient = cluster.connect().await;
    let leader = cluster.leader().await;
    let others: Vec<String> =
        cluster.names("controller").into_iter().filter(|name| *name != leader).collect();
    others.iter().for_each(|name| cluster.kill(name));
    set(&database, "without", "controllers").await;

    // Now a recovery is needed, and nobody may begin it.
    cluster.kill(&log);
    runtime::sleep(Duration::from_secs(3)).await;
    let answers = database.ask_controllers().await;
    let leads = |address: &Address| cluster.name_of(address) == leader;
    for answer in answers.iter().filter(|answer| leads(&answer.address)) {
        let says = answer.answer.as_ref().unwrap();
        assert!(says.address.is_none(), "it believes that it leads, alone: {says:?}");
    }
    let commit = impatient.transaction();
    commit.set("never", "1").unwrap();
    assert!(commit.commit().await.is_err(), "a commit on a log set that has lost a log");

    others.iter().for_each(|name| cluster.restart(name));
    cluster.wait_available(LIMIT).await;
    assert_eq!(get(&database, "without").await, Some(b"controllers".to_vec()));
    cluster.restart(&log);
    cluster.shut_down();
}

/// A proxy of a generation that was replaced while it was stopped is asked over a connection from before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_slept_for_a_minute_serves_nobody() {
    let mut cluster = Cluster::start(&redundant());
    cluster.wait_available(LIMIT).await;
    let database = cluster.connect().await;
    set(&database, "slept", "no").await;
    let status = database.status().await.unwrap();
    let members = status.cluster.coordinator.clone().unwrap();
    let network = Network::new();
    let mut old = Vec::new();
    for proxy in &members.proxies {
        old.push((proxy.clone(), network.connect::<ProxyService>(proxy).await.unwrap()));
    }
    let limit = Duration::from_secs(5);
    let before = call(limit, Stage::ReadVersion, |context| old[0].1.read_version(context, false));
    let before = before.await.unwrap().unwrap();

    let mut asleep: Vec<String> =
        members.proxies.iter().map(|proxy| cluster.name_of(&proxy.address)).collect();
    asleep.push(cluster.name_of(&members.sequencer.address));
    asleep.sort();
    asleep.dedup();
    assert!(asleep.len() < cluster.names("coordinator").len(), "somebody is awake: {asleep:?}");
    asleep.iter().for_each(|name| cluster.stop(name));
    cluster.wait_available(LIMIT).await;
    set(&database, "slept", "yes").await;
    runtime::sleep(Duration::from_secs(60)).await;
    asleep.iter().for_each(|name| cluster.resume(name));

    for (proxy, client) in &old {
        // It may take them a moment to find out, but they never answer.
        for _ in 0..20 {
            let version =
                call(limit, Stage::ReadVersion, |context| client.read_version(context, false));
            let version = version.await.and_then(|version| version);
            assert!(version.is_err(), "{proxy} of the old generation gave out {version:?} (I-12)");
            let request = CommitRequest {
                read_version: before,
                read_conflicts: vec![KeyRange::single(&Key::from("slept"))],
                write_conflicts: vec![KeyRange::single(&Key::from("slept"))],
                mutations: vec![Mutation::Clear { key: "slept".into() }],
                ..CommitRequest::default()
            };
            let outcome = call(limit, Stage::Commit, |context| client.commit(context, request));
            let outcome = outcome.await.and_then(|outcome| outcome);
            assert!(outcome.is_err(), "{proxy} of the old generation answered {outcome:?} (I-12)");
        }
    }
    assert_eq!(get(&database, "slept").await, Some(b"yes".to_vec()));
    cluster.shut_down();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_storage_server_is_replaced_under_load_and_all_replicas_are_equal() {
    let replace_after = ("controller", "--storage-replace-after-s=3".to_owned());
    let shape = Shape { arguments: vec![replace_after], ..redundant() };
    let mut scene = Scene::begin(&shape).await;
    let database = scene.cluster.connect().await;
    let status = until(&database, "the beginning", is_at_rest).await;
    let victim = status.cluster.shards.shards()[0].teams.team[0];
    let servers = &status.cluster.storage_servers;
    let server = servers.iter().find(|server| server.tag == victim).unwrap();
    let name = scene.cluster.name_of(&server.endpoint.address);
    let began = runtime::now();
    scene.cluster.kill(&name);
    let gone = |status: &Status| {
        is_at_rest(status) && !status.cluster.storage_servers.iter().any(|s| s.tag == victim)
    };
    until(&database, "replacing a lost server", gone).await;
    println!("redundancy restored {:?} after the loss, 3 s of which is patience", began.elapsed());
    scene.progress("the loss of a storage server").await;
    check_replicas(&database).await;
    // It comes back with what it had, and is somebody new.
    scene.cluster.restart(&name);
    let back = |status: &Status| {
        let servers = &status.cluster.storage_servers;
        is_at_rest(status)
            && servers.iter().any(|s| s.endpoint == server.endpoint && s.tag != victim)
    };
    until(&database, "taking a server back", back).await;
    scene.progress("its return").await;
    check_replicas(&database).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_change_everything_while_it_runs() {
    let scene = Scene::begin(&redundant()).await;
    let database = scene.cluster.connect().await;
    let configure =
        |redundancy| ConfigurationChange { redundancy: Some(redundancy), ..Default::default() };
    let copies = |copies: usize| {
        move |status: &Status| {
            is_at_rest(status)
                && status.cluster.shards.shards().iter().all(|s| s.teams.team.len() == copies)
                && status.cluster.log_sets.last().unwrap().replication as usize == copies
        }
    };
    until(&database, "the beginning", copies(2)).await;
    database.configure(configure(Redundancy::Triple)).await.unwrap();
    until(&database, "three copies", copies(3)).await;
    check_replicas(&database).await;
    database.configure(configure(Redundancy::Double)).await.unwrap();
    until(&database, "two copies", copies(2)).await;

    let status = database.status().await.unwrap();
    let server = status.cluster.storage_servers[0].clone();
    let selector = || vec![ProcessSelector::Address(server.endpoint.address.clone())];
    database.exclude(selector()).await.unwrap();
    let is_used = |status: &Status| {
        let shards = status.cluster.shards.shards();
        shards.iter().any(|shard| shard.teams.all().any(|tag| tag == server.tag))
    };
    until(&database, "draining", |status| !is_used(status) && is_at_rest(status)).await;
    check_replicas(&database).await;
    database.include(selector()).await.unwrap();

    let impossible = ConfigurationChange { logs: Some(0), ..Default::default() };
    let refused = database.administer(Command::Configure(impossible)).await.unwrap_err();
    assert!(refused.detail().contains("logs = 0"), "{refused}");

    let leader = scene.cluster.leader().await;
    let controllers = database.status().await.unwrap().cluster.controllers;
    let follower =
        controllers.iter().find(|c| scene.cluster.name_of(&c.address) != leader).unwrap();
    database.remove_controller(follower.address.clone()).await.unwrap();
    until(&database, "two controllers", |s| s.cluster.controllers.len() == 2).await;
    database.add_controller(follower.address.clone()).await.unwrap();
    until(&database, "three controllers", |s| s.cluster.controllers.len() == 3).await;
    scene.progress("all that").await;
    check_replicas(&database).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_dies_at_once_and_comes_back() {
    let mut scene = Scene::begin(&redundant()).await;
    let names: Vec<String> = ["controller", "coordinator", "log", "storage"]
        .into_iter()
        .flat_map(|role| scene.cluster.names(role))
        .collect();
    for _ in 0..3 {
        scene
            .fault(
                "SIGKILL of everything",
                |cluster| names.iter().for_each(|name| cluster.kill(name)),
                Duration::from_millis(100),
                |cluster| cluster.restart_all(&names),
            )
            .await;
    }
    let database = scene.cluster.connect().await;
    until(&database, "the end", is_at_rest).await;
    check_replicas(&database).await;
    assert!(database.transaction().read_version().await.unwrap() > Version(0));
    scene.end().await;
}
