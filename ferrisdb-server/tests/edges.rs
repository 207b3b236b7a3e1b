//! What operators hope never to need, on real processes: zones that die, controllers that are lost or that move, a server
//! that slept while all of them moved.
//!
//! The cluster is `support/fleet.rs`: three zones, two copies of everything, and a client that counts its committed rows.
//! Everything is judged by its outcome, with generous limits; `--nocapture` shows the times. What the command line says is
//! checked if `ferrisdb-cli` was built beside the servers, as `cargo test --workspace --all-features` does.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::time::{Duration, Instant};

use ferrisdb_client::{Database, Status};
use ferrisdb_core::{id::Address, runtime};
use support::{
    Process,
    availability::Probe,
    fleet::{Fleet, LIMIT, Rows, ZONES, add_row, commits_after, row},
};

/// How soon a server that slept has to find controllers that have moved meanwhile.
const WAKING_MAX: Duration = Duration::from_secs(15);

const SERVER: &str = env!("CARGO_BIN_EXE_ferrisdb-server");

/// A cluster with a log in each zone, of which two are used: whole, as its status says, and with a client that adds rows.
async fn begin() -> (Fleet, Status, Rows) {
    let fleet = Fleet::start(1, 2).await;
    let status = fleet.until_whole("the beginning").await;
    let rows = Rows::begin(fleet.connect().await);
    rows.progress(&fleet, "the beginning").await;
    (fleet, status, rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zones_with_two_logs_die_one_after_the_other() {
    let mut fleet = Fleet::start(2, 4).await;
    let status = fleet.until_whole("all zones").await;
    if let Some((code, text, _)) = fleet.cli(&["status"]) {
        assert!(code == 0 && text.contains("1 zone without losing availability"), "{text}");
    }
    // Four logs in three zones: one has two of them, and there it begins.
    let logs = &status.cluster.log_sets.last().unwrap().logs;
    let logs: Vec<String> = logs.iter().map(|log| fleet.name_of(&log.endpoint.address)).collect();
    let host = |name: &String| fleet.members[name].host;
    let logs_at = |wanted| logs.iter().filter(|name| host(name) == wanted).count();
    let first = logs.iter().map(host).max_by_key(|host| logs_at(*host)).unwrap();
    assert_eq!(logs_at(first), 2, "{logs:?}");
    let second = logs.iter().map(host).find(|host| *host != first).unwrap();
    let of = |wanted| fleet.names(|member| member.host == wanted);
    let (first, second) = (of(first), of(second));

    let probe = Probe::start(fleet.connect().await);
    let rows = Rows::begin(fleet.connect().await);
    rows.progress(&fleet, "all zones").await;
    println!("{} leads", fleet.name_of(&status.controller));
    fleet.kill(&first);
    commits_after(&fleet, &probe, runtime::now(), &format!("SIGKILL of {first:?}")).await;
    rows.progress(&fleet, "the loss of a zone").await;

    // Its controller last: as long as one leads, it says what is the matter.
    let (controllers, servers): (Vec<String>, Vec<String>) =
        second.iter().cloned().partition(|name| name.starts_with("controller"));
    fleet.kill(&servers);
    fleet.until("saying that it waits", |status| status.cluster.coordinator.is_none()).await;
    if let Some((code, text, error)) = fleet.cli(&["status"]) {
        assert!(code == 1 && text.starts_with("DOWN"), "{code} {text}");
        assert!(error.contains("the database is down"), "{error}");
    }
    fleet.kill(&controllers);
    if let Some((code, text, _)) = fleet.cli(&["status"]) {
        // It leads for a moment, until it knows that it is alone.
        let is_told = text.starts_with("DOWN") || text.contains("1 of 3 controllers answer");
        assert!(code == 1 && is_told, "{code} {text}");
    }
    assert!(add_row(&fleet.connect_impatiently(), u64::MAX).await.is_err());

    let dead = [first, second].concat();
    fleet.spawn(&dead);
    fleet.wait_ready(&dead);
    commits_after(&fleet, &probe, runtime::now(), "restart of both zones").await;
    rows.progress(&fleet, "the restart").await;
    fleet.until_whole("all zones again").await;
    rows.check(&fleet.connect().await).await;
    fleet.shut_down();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_of_controllers_is_not_given_away_and_if_lost_is_made_anew() {
    let (mut fleet, status, rows) = begin().await;
    let left = fleet.name_of(&status.controller);
    let others: Vec<String> =
        fleet.of_role("controller").into_iter().filter(|name| *name != left).collect();

    // While the others answer there is nothing to force.
    fleet.terminate(&left);
    let (code, _, error) = fleet.force(&left);
    assert!(code == 1 && error.contains("2 of 3 controllers answer"), "{code} {error}");
    fleet.process(&left).start();
    let status = fleet.until_whole("back again").await;

    // Of three, one is dead and the next is not to be removed, whoever it is.
    let (left, dead) = (fleet.name_of(&status.controller), others[0].clone());
    let (left, dead) = if left == dead { (dead, others[1].clone()) } else { (left, dead) };
    let other = fleet.of_role("controller").into_iter().find(|n| *n != left && *n != dead).unwrap();
    fleet.kill(std::slice::from_ref(&dead));
    let before = fleet.until("knowing of the dead", |s| s.silent_controllers.len() == 1).await;
    let database = fleet.connect().await;
    for name in [&other, &left] {
        let address = fleet.address(name);
        let refused = database.remove_controller(address.clone()).await.unwrap_err();
        println!("removal of {name} is refused: {refused}");
        assert!(refused.detail().contains("must answer"), "{refused}");
        if let Some((code, _, error)) = fleet.cli(&["controllers", "remove", &address.0]) {
            assert!(code == 1 && error.contains("must answer"), "{code} {error}");
        }
    }
    let after = database.status().await.unwrap();
    assert_eq!(after.cluster.controllers, before.cluster.controllers);
    assert_eq!(after.controller, before.controller);
    rows.progress(&fleet, "the refusals").await;

    // Two disks are lost.
    fleet.kill(std::slice::from_ref(&other));
    for name in [&dead, &other] {
        std::fs::remove_dir_all(fleet.path(name, "data")).unwrap();
    }
    fleet.terminate(&left);
    let (code, output, error) = fleet.force(&left);
    assert!(code == 0 && output.contains("the only one"), "{code} {output} {error}");
    let probe = Probe::start(fleet.connect_impatiently());
    let began = runtime::now();
    fleet.process(&left).start();
    commits_after(&fleet, &probe, began, "a controller that goes on alone").await;
    rows.progress(&fleet, "the new quorum").await;

    // New ones, at new addresses.
    let hosts = [fleet.members[&dead].host, fleet.members[&other].host];
    fleet.members.remove(&dead);
    fleet.members.remove(&other);
    let new: Vec<String> =
        (3..).zip(hosts).map(|(number, host)| fleet.add("controller", number, host)).collect();
    fleet.write_files();
    fleet.spawn(&new);
    for name in &new {
        // It has to listen before it is added, and may not say that it is ready before.
        let (address, began) = (fleet.address(name), runtime::now());
        while let Err(error) =
            fleet.connect_to(vec![fleet.address(&left)]).await.add_controller(address.clone()).await
        {
            assert!(began.elapsed() < LIMIT, "{error}\n{}", fleet.report());
            runtime::sleep(Duration::from_millis(100)).await;
        }
        println!("{name} was added after {:?}", began.elapsed());
    }
    fleet.wait_ready(&new);
    fleet.until_whole("three controllers again").await;
    rows.progress(&fleet, "three controllers again").await;
    // They are as good as any: the one that was left may go, and with it a log.
    let log = fleet.used_log().await;
    fleet.kill(&[left, log]);
    commits_after(&fleet, &probe, runtime::now(), "the old controller and a log die").await;
    rows.progress(&fleet, "its death").await;
    rows.check(&fleet.connect().await).await;
    fleet.shut_down();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_moves_is_found() {
    let (mut fleet, status, rows) = begin().await;
    let probe = Probe::start(fleet.connect().await);
    let moved = fleet.name_of(&status.controller);
    let old = fleet.address(&moved);
    fleet.move_controller(&moved);
    fleet.until_whole(&format!("{moved} is found at its new address")).await;
    rows.progress(&fleet, "the move").await;
    // By the new address, by the old ones of the others, and by a list that is out of date.
    let others: Vec<Address> = fleet
        .controllers()
        .into_iter()
        .filter(|address| *address != fleet.address(&moved))
        .collect();
    let stale = [vec![old], others.clone()].concat();
    for (number, addresses) in (0..).zip([vec![fleet.address(&moved)], others, stale]) {
        let database = fleet.connect_to(addresses.clone()).await;
        let key = format!("new/{number}");
        let committed = database.run_transaction(|transaction| {
            let key = key.clone();
            async move { transaction.set(key, "in") }
        });
        committed.await.unwrap_or_else(|error| panic!("{addresses:?}: {error}"));
    }
    if let Some((code, text, _)) = fleet.cli(&["status"]) {
        assert!(code == 0, "{text}");
    }
    let generation = fleet.until_whole("before the loss of a log").await.cluster.generation;
    let log = fleet.used_log().await;
    fleet.kill(std::slice::from_ref(&log));
    commits_after(&fleet, &probe, runtime::now(), &format!("SIGKILL of {log}")).await;
    let recovered = |status: &Status| status.cluster.generation > generation;
    fleet.until("a new generation", recovered).await;
    rows.progress(&fleet, "the recovery").await;
    fleet.process(&log).start();
    fleet.until_whole("the log is back").await;
    rows.check(&fleet.connect().await).await;
    fleet.shut_down();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_slept_while_all_controllers_moved_wake_up_in_their_cluster() {
    let (mut fleet, _, rows) = begin().await;
    let probe = Probe::start(fleet.connect().await);
    let asleep = [fleet.used_log().await, "storage-1".to_owned()];
    asleep.iter().for_each(|name| fleet.process(name).signal("-STOP"));
    commits_after(&fleet, &probe, runtime::now(), &format!("SIGSTOP of {asleep:?}")).await;
    // The leader last: until then nobody has a reason to look for another one.
    let leader = fleet.until("a leader", |_| true).await.controller;
    let mut controllers = fleet.of_role("controller");
    controllers.sort_by_key(|name| fleet.address(name) == leader);
    for name in controllers {
        fleet.move_controller(&name);
        let (address, count) = (fleet.address(&name), usize::from(ZONES));
        let is_found = |status: &Status| {
            let members = &status.cluster.controllers;
            members.len() == count
                && members.iter().any(|member| member.address == address)
                && status.silent_controllers.is_empty()
        };
        fleet.until(&format!("{name} is found at its new address"), is_found).await;
        rows.progress(&fleet, &format!("the move of {name}")).await;
    }
    // Nobody's file was corrected yet: who was awake has followed by itself.
    let servers = fleet.names(|member| member.role != "controller").len();
    let followed = |status: &Status| {
        let alive = status.processes.iter().filter(|process| process.alive).count();
        let judges = status.leads_for_ms > 2 * status.failure_timeout_ms;
        judges && alive == servers - asleep.len() && status.cluster.coordinator.is_some()
    };
    fleet.until("those awake have followed", followed).await;
    fleet.write_files();
    let woken = runtime::now();
    asleep.iter().for_each(|name| fleet.process(name).signal("-CONT"));
    let addresses = asleep.clone().map(|name| fleet.address(&name));
    let awake = |status: &Status| {
        addresses.iter().all(|address| {
            let mut processes = status.processes.iter();
            processes.any(|p| p.alive && p.heartbeat.worker.address == *address)
        })
    };
    fleet.until("both are alive", awake).await;
    let waking = woken.elapsed();
    assert!(waking < WAKING_MAX, "only after {waking:?}\n{}", fleet.report());
    commits_after(&fleet, &probe, woken, &format!("SIGCONT of {asleep:?}")).await;
    rows.progress(&fleet, "the waking").await;
    fleet.until_whole("everybody is back").await;
    rows.check(&fleet.connect().await).await;
    fleet.shut_down();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_all_roles_stops_soon_and_without_a_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let address = support::free_address();
    let data = folder.path().join("data").display().to_string();
    let arguments = vec![format!("--listen={address}"), format!("--data={data}")];
    let mut server = Process::new("server", SERVER, arguments, folder.path().join("log"));
    for round in 0..3 {
        server.start();
        let database = Database::connect(&address).await.unwrap();
        for number in 0..20u64 {
            let key = row(round * 20 + number);
            let committed = database.run_transaction(|transaction| {
                let key = key.clone();
                async move { transaction.set(key, "1") }
            });
            committed.await.unwrap();
        }
        let began = Instant::now();
        assert_eq!(server.terminate(), Some(0), "{}", server.log());
        println!("round {round}: ended {:?} after SIGTERM", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(15), "{}", server.log());
        let log = server.log();
        let complains = |line: &&str| {
            line.contains("ERROR") || line.contains("WARN") && line.contains("coordinator")
        };
        let complaints: Vec<&str> = log.lines().filter(complains).collect();
        assert!(complaints.is_empty(), "{complaints:#?}\n{log}");
    }
}
