//! Real processes under faults: killed, stopped, cut off. Clients keep working, and what they saw is in order.
//!
//! The load is the recorded bank, so its whole history is checked for strict serializability; a probe measures
//! how long nothing could be committed.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::runtime;
use ferrisdb_sim::workload::{
    bank::{Bank, SharedJournal},
    recorded_bank::RecordedBank,
};
use support::{
    availability::{Probe, Times},
    cluster::{Cluster, Shape},
    relay::{AfterHeal, Relays},
};

const BANK: Bank = Bank { accounts: 8, balance: 100 };
const CLIENTS: u32 = 4;
const READERS: u32 = 2;
/// How long a process is stopped or cut off.
const OUTAGE: Duration = Duration::from_secs(3);
/// How long the cluster may take to be available again.
const LIMIT: Duration = Duration::from_secs(20);

/// How many transfers have to succeed after each fault, before the next one.
const PROGRESS: usize = 40;

/// A cluster with recorded clients at work.
struct Scene {
    cluster: Cluster,
    bank: RecordedBank,
    journal: SharedJournal,
    stopped: Arc<AtomicBool>,
    working: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
    probe: Probe,
    times: Times,
}

impl Scene {
    async fn begin(shape: &Shape) -> Scene {
        let cluster = Cluster::start(shape);
        cluster.wait_available(LIMIT).await;
        let bank = RecordedBank::new(BANK);
        bank.set_up(&cluster.connect().await).await.unwrap();
        let journal = SharedJournal::default();
        let stopped = Arc::new(AtomicBool::new(false));
        let mut working = Vec::new();
        for number in 0..CLIENTS + READERS {
            // A connection each, as if they were processes of their own.
            let database = cluster.connect().await;
            let (bank, journal, stopped) = (bank.clone(), journal.clone(), Arc::clone(&stopped));
            working.push(tokio::spawn(async move {
                let stop = || stopped.load(Ordering::SeqCst);
                if number < CLIENTS {
                    let name = format!("c{number}");
                    bank.transfer_until(&database, &name, &journal, stop).await
                } else {
                    let name = format!("r{number}");
                    bank.watch_until(&database, &name, &journal, stop).await
                }
            }));
        }
        let probe = Probe::start(cluster.connect().await);
        let scene =
            Scene { cluster, bank, journal, stopped, working, probe, times: Times::default() };
        scene.progress("the beginning").await;
        scene
    }

    /// A fault, which `undo` ends after a while; then the cluster has to be available again.
    async fn fault(
        &mut self,
        what: &str,
        inject: impl FnOnce(&mut Cluster),
        duration: Duration,
        undo: impl FnOnce(&mut Cluster),
    ) {
        let fault = runtime::now();
        inject(&mut self.cluster);
        runtime::sleep(duration).await;
        undo(&mut self.cluster);
        let undone = runtime::now();
        match self.probe.wait_after(fault, LIMIT).await {
            Ok(time) => {
                println!("{what}: available after {} ms", time.as_millis());
                self.times.push(time);
            }
            Err(error) => panic!("{what}: {error}\n{}", self.cluster.report()),
        }
        // Some faults are no outage before they are over.
        if let Err(error) = self.probe.wait_after(undone, LIMIT).await {
            panic!("{what}, undone: {error}\n{}", self.cluster.report());
        }
        self.progress(what).await;
    }

    async fn kill_and_restart(&mut self, name: &str) {
        let what = format!("SIGKILL of {name}");
        let pause = runtime::jitter(Duration::from_millis(100));
        self.fault(&what, |cluster| cluster.kill(name), pause, |cluster| cluster.restart(name))
            .await;
    }

    async fn stop_and_resume(&mut self, name: &str) {
        let what = format!("SIGSTOP of {name} for {OUTAGE:?}");
        self.fault(&what, |cluster| cluster.stop(name), OUTAGE, |cluster| cluster.resume(name))
            .await;
    }

    async fn isolate(&mut self, name: &str) {
        self.cut_and_heal(&format!("isolation of {name}"), |relays| relays.isolate(name)).await;
    }

    /// A fault of the network, healed after a while.
    async fn cut_and_heal(&mut self, what: &str, cut: impl FnOnce(&Relays)) {
        let what = format!("{what} for {OUTAGE:?}");
        let cut = |cluster: &mut Cluster| cut(cluster.relays());
        self.fault(&what, cut, OUTAGE, |cluster| cluster.relays().heal()).await;
    }

    /// Waits until transfers and readers get on.
    async fn progress(&self, when: &str) {
        let now = || {
            let journal = self.journal.lock();
            (journal.acknowledged.len(), journal.sums)
        };
        let before = now();
        let began = runtime::now();
        while now().0 < before.0 + PROGRESS || now().1 < before.1 + PROGRESS as u64 / 4 {
            if let Some(ended) = self.working.iter().find(|client| client.is_finished()) {
                panic!("a client has ended after {when}: {ended:?}\n{}", self.cluster.report());
            }
            let waited = runtime::now().duration_since(began);
            assert!(waited < LIMIT, "no progress after {when}\n{}", self.cluster.report());
            runtime::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the load, and checks what there is to check.
    async fn end(mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        for client in self.working {
            client
                .await
                .unwrap()
                .unwrap_or_else(|error| panic!("{error}\n{}", self.cluster.report()));
        }
        println!(
            "{} faults: median {:?}, worst {:?}; {} probes, errors {:?}",
            self.times.count(),
            self.times.median(),
            self.times.worst(),
            self.probe.successes().len(),
            self.probe.errors()
        );
        drop(self.probe);
        let database = self.cluster.connect().await;
        let (checked, verdict) = self
            .bank
            .check(&database, &self.journal)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.cluster.report()));
        println!("{checked:?}\n{verdict:?}");
        self.cluster.shut_down();
    }
}

/// Everything twice, in different zones, and one process of each kind to spare.
fn redundant() -> Shape {
    Shape {
        controllers: 3,
        coordinators: 3,
        logs: 4,
        logs_used: 3,
        redundancy: "double",
        storage: 4,
        proxies: 2,
        resolvers: 2,
        ..Shape::default()
    }
}

/// Who hosts what just now.
struct Cast {
    leader: String,
    follower: String,
    sequencer: String,
    /// Hosts a proxy; not the sequencer, if there is such a one.
    proxy: String,
    logs: Vec<String>,
}

impl Scene {
    async fn cast(&self) -> Cast {
        let database = self.cluster.connect().await;
        let began = runtime::now();
        let coordinator = loop {
            let status = database.status().await.unwrap();
            if let Some(coordinator) = status.cluster.coordinator.clone() {
                break (coordinator, status);
            }
            assert!(runtime::now().duration_since(began) < LIMIT, "no active generation");
            runtime::sleep(Duration::from_millis(20)).await;
        };
        let (coordinator, status) = coordinator;
        let name = |endpoint: &ferrisdb_core::Endpoint| self.cluster.name_of(&endpoint.address);
        let leader = self.cluster.name_of(&status.controller);
        let sequencer = name(&coordinator.sequencer);
        let proxies = coordinator.proxies.iter().map(name);
        let controllers = self.cluster.names("controller");
        Cast {
            follower: controllers.into_iter().find(|name| *name != leader).unwrap(),
            leader,
            proxy: proxies.into_iter().find(|name| *name != sequencer).unwrap_or(sequencer.clone()),
            sequencer,
            logs: status
                .cluster
                .log_sets
                .last()
                .unwrap()
                .logs
                .iter()
                .map(|l| name(&l.endpoint))
                .collect(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_each_role_is_killed_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    let cast = scene.cast().await;
    let logs = scene.cast().await.logs;
    for name in ["storage-0", &logs[0], &cast.sequencer, &cast.proxy, &cast.follower, &cast.leader]
    {
        scene.kill_and_restart(name).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_each_role_is_stopped_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    scene.stop_and_resume("storage-1").await;
    for role in 0..5 {
        let cast = scene.cast().await;
        let victims = [&cast.logs[1], &cast.sequencer, &cast.proxy, &cast.follower, &cast.leader];
        scene.stop_and_resume(victims[role]).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_each_role_is_isolated_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    scene.isolate("storage-1").await;
    for role in 0..5 {
        let cast = scene.cast().await;
        let victims = [&cast.logs[1], &cast.sequencer, &cast.proxy, &cast.follower, &cast.leader];
        scene.isolate(victims[role]).await;
        scene.cluster.relays().set_after_heal(AfterHeal::Break);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_fail_under_recorded_load_also_in_one_direction_only() {
    let mut scene = Scene::begin(&redundant()).await;
    for direction in 0..3 {
        let Cast { sequencer, logs, proxy, .. } = scene.cast().await;
        let log = &logs[2];
        let what = ["both directions between", "the way to", "the way back from"][direction];
        let what = format!("cut of {what} {proxy} and {log} (sequencer {sequencer})");
        scene
            .cut_and_heal(&what, |relays| match direction {
                0 => relays.cut(&proxy, log),
                1 => relays.cut_one_way(&proxy, log),
                // What is acknowledged is not heard of: the batch is durable there, and nobody knows.
                _ => relays.cut_one_way(log, &proxy),
            })
            .await;
    }
    let Cast { leader, logs, .. } = scene.cast().await;
    let what = format!("cut of the way from {leader}, which leads, to {}", logs[0]);
    scene.cut_and_heal(&what, |relays| relays.cut_one_way(&leader, &logs[0])).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_fail_at_once_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    for pair in 0..4 {
        let cast = scene.cast().await;
        let storage = "storage-2".to_owned();
        let pairs = [
            [&cast.leader, &cast.logs[0]],
            [&cast.leader, &cast.sequencer],
            [&cast.logs[1], &cast.proxy],
            [&cast.sequencer, &storage],
        ];
        let [one, other] = pairs[pair];
        let both = [one.clone(), other.clone()];
        let what = format!("SIGKILL of {one} and {other}");
        scene
            .fault(
                &what,
                |cluster| both.iter().for_each(|name| cluster.kill(name)),
                OUTAGE,
                |cluster| both.iter().for_each(|name| cluster.restart(name)),
            )
            .await;
    }
    scene.end().await;
}
