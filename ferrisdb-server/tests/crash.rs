//! Money is moved between accounts while real processes are killed with SIGKILL and started again.
//!
//! The workload and its checks are those of the simulation: `ferrisdb_sim::workload::bank`.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ferrisdb_client::Database;
use ferrisdb_core::runtime;
use ferrisdb_sim::workload::bank::{Bank, SharedJournal};
use support::{Process, free_address};

const BANK: Bank = Bank { accounts: 20, balance: 100 };
const CLIENTS: u32 = 6;

/// Kills what `victims` names in each round, starts it again, and goes on once transfers succeed.
async fn survive(processes: &mut [Process], controllers: &str, rounds: &[Vec<usize>]) {
    let database = Database::connect(controllers).await.unwrap();
    BANK.set_up(&database).await.unwrap();
    let journal = SharedJournal::default();
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = || {
        let stopped = Arc::clone(&stopped);
        move || stopped.load(Ordering::SeqCst)
    };
    let mut running = Vec::new();
    for number in 0..CLIENTS {
        // A connection each, as if they were processes of their own.
        let database = Database::connect(controllers).await.unwrap();
        let (journal, stop) = (journal.clone(), stop());
        running.push(tokio::spawn(async move {
            let name = format!("c{number}");
            BANK.transfer_until(&database, &name, &journal, stop, |_| ()).await
        }));
    }
    let (reading, watched, stop_watching) = (database.clone(), journal.clone(), stop());
    running.push(tokio::spawn(
        async move { BANK.watch_until(&reading, &watched, stop_watching).await },
    ));

    for (round, victims) in rounds.iter().enumerate() {
        progress(&journal, round, processes).await;
        for &victim in victims {
            processes[victim].kill();
        }
        runtime::sleep(runtime::jitter(Duration::from_millis(100))).await;
        for &victim in victims {
            processes[victim].start();
        }
    }
    progress(&journal, rounds.len(), processes).await;
    stopped.store(true, Ordering::SeqCst);
    for client in running {
        client.await.unwrap().unwrap();
    }
    let journal = std::mem::take(&mut *journal.lock());
    assert!(journal.sums > 0, "no reader ever got an answer");
    let checked = BANK.check(&database, &journal).await.unwrap();
    println!("{} rounds, {} sums, {checked:?}", rounds.len(), journal.sums);
}

/// Waits until transfers succeed again, all clients together and a reader.
async fn progress(journal: &SharedJournal, round: usize, processes: &[Process]) {
    let reached = |goal: (usize, u64)| {
        let journal = journal.lock();
        journal.acknowledged.len() >= goal.0 && journal.sums >= goal.1
    };
    let goal = {
        let journal = journal.lock();
        (journal.acknowledged.len() + 20, journal.sums + 2)
    };
    for _ in 0..60_000 {
        if reached(goal) {
            return;
        }
        runtime::sleep(Duration::from_millis(1)).await;
    }
    let logs: Vec<String> = processes
        .iter()
        .map(|process| {
            let log = process.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            format!("{}:\n{}", process.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })
        .collect();
    panic!("no progress in round {round}\n{}", logs.join("\n"));
}

/// One process a round, drawn at random, and now and then all at once.
fn draw_rounds(count: usize, processes: usize) -> Vec<Vec<usize>> {
    (0..count)
        .map(|round| match round % 5 {
            4 => (0..processes).collect(),
            _ => vec![(runtime::random_u64() % processes as u64) as usize],
        })
        .collect()
}

fn cluster(folder: &Path, controllers: &str) -> Vec<Process> {
    let new = |name: &str, binary, arguments: &[&str]| {
        let arguments = arguments.iter().map(|&argument| argument.to_string()).collect();
        let log = folder.join(format!("{name}.stderr"));
        Process::new(name, binary, arguments, log)
    };
    let data = |name: &str| folder.join(name).display().to_string();
    let mut processes = vec![
        new(
            "controller",
            env!("CARGO_BIN_EXE_ferrisdb-controller"),
            &[
                &["--listen", controllers, "--data", &data("controller")][..],
                &["--logs", "3", "--storage-servers", "3"],
                &["--shard-boundaries", "bank/account/0007,bank/transfer/c2"],
            ]
            .concat(),
        ),
        new(
            "coordinator",
            env!("CARGO_BIN_EXE_ferrisdb-coordinator"),
            &["--listen", "127.0.0.1:0", "--controllers", controllers],
        ),
    ];
    for number in 0..3 {
        for (role, binary) in [
            ("log", env!("CARGO_BIN_EXE_ferrisdb-log")),
            ("storage", env!("CARGO_BIN_EXE_ferrisdb-storage")),
        ] {
            let name = format!("{role}-{number}");
            let data = data(&name);
            // Another port at each start: the cluster has to follow.
            let arguments =
                ["--listen", "127.0.0.1:0", "--controllers", controllers, "--data", &data];
            processes.push(new(&name, binary, &arguments));
        }
    }
    processes.iter_mut().for_each(Process::start);
    processes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_survives_the_death_of_any_process_and_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let controllers = free_address();
    let mut processes = cluster(folder.path(), &controllers);
    let rounds = draw_rounds(20, processes.len());
    survive(&mut processes, &controllers, &rounds).await;
    for process in &mut processes {
        assert_eq!(process.terminate(), Some(0), "{}\n{}", process.name, process.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_one_process_survives_its_own_death() {
    let folder = tempfile::tempdir().unwrap();
    let controllers = free_address();
    let data = folder.path().join("data").display().to_string();
    let arguments = ["--listen", &controllers, "--data", &data];
    let mut processes = [Process::new(
        "server",
        env!("CARGO_BIN_EXE_ferrisdb-server"),
        arguments.iter().map(|&argument| argument.to_string()).collect(),
        folder.path().join("stderr"),
    )];
    processes[0].start();
    survive(&mut processes, &controllers, &vec![vec![0]; 10]).await;
    assert_eq!(processes[0].terminate(), Some(0), "{}", processes[0].log());
}
