//! A cluster of real processes with recorded clients at work, to which things happen.
//!
//! The load is the recorded bank, so its whole history is checked for strict serializability; a probe measures
//! how long nothing could be committed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ferrisdb_client::{Database, Error, Settings};
use ferrisdb_core::{
    runtime,
    service::controller::{DISK_IS_FULL, ProcessStatus},
};
use ferrisdb_sim::workload::{
    bank::{Bank, SharedJournal},
    recorded_bank::RecordedBank,
};

use super::{
    availability::{Probe, Times},
    cluster::{Cluster, Shape},
    relay::Relays,
};

const BANK: Bank = Bank { accounts: 8, balance: 100 };
const CLIENTS: u32 = 4;
const READERS: u32 = 2;
/// How long a process is stopped or cut off.
pub(crate) const OUTAGE: Duration = Duration::from_secs(3);
/// How long the cluster may take to be available again.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// How many transfers have to succeed after each fault, before the next one.
const PROGRESS: usize = 40;

/// A cluster with recorded clients at work.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) bank: RecordedBank,
    pub(crate) journal: SharedJournal,
    pub(crate) stopped: Arc<AtomicBool>,
    working: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
    pub(crate) probe: Probe,
    pub(crate) times: Times,
    counting: tokio::task::JoinHandle<u64>,
}

/// A key that one client counts up, with `run_transaction` and nothing else: each time must count once, and no fault may
/// be more to it than a delay.
const COUNTER: &str = "counter";

async fn count(database: Database, stopped: Arc<AtomicBool>) -> u64 {
    let mut done = 0;
    while !stopped.load(Ordering::SeqCst) {
        let counted = database.run_transaction(|transaction| async move {
            let before: u64 = match transaction.get(COUNTER).await? {
                Some(text) => String::from_utf8_lossy(&text).parse().unwrap(),
                None => 0,
            };
            transaction.set(COUNTER, (before + 1).to_string())?;
            Ok::<(), Error>(())
        });
        counted.await.unwrap_or_else(|error| panic!("run_transaction has failed: {error}"));
        done += 1;
    }
    done
}

impl Scene {
    pub(crate) async fn begin(shape: &Shape) -> Scene {
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
        let patient = cluster.connect_with(Settings::default()).await;
        let counting = tokio::spawn(count(patient, Arc::clone(&stopped)));
        let times = Times::default();
        let scene = Scene { cluster, bank, journal, stopped, working, probe, times, counting };
        scene.progress("the beginning").await;
        scene
    }

    /// A fault, which `undo` ends after a while; then the cluster has to be available again.
    pub(crate) async fn fault(
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

    pub(crate) async fn kill_and_restart(&mut self, name: &str) {
        let what = format!("SIGKILL of {name}");
        let pause = runtime::jitter(Duration::from_millis(100));
        self.fault(&what, |cluster| cluster.kill(name), pause, |cluster| cluster.restart(name))
            .await;
    }

    pub(crate) async fn stop_and_resume(&mut self, name: &str) {
        let what = format!("SIGSTOP of {name} for {OUTAGE:?}");
        self.fault(&what, |cluster| cluster.stop(name), OUTAGE, |cluster| cluster.resume(name))
            .await;
    }

    pub(crate) async fn isolate(&mut self, name: &str) {
        self.cut_and_heal(&format!("isolation of {name}"), |relays| relays.isolate(name)).await;
    }

    /// The disk of a process refuses all writes for a while; when it works again, an operator starts the process anew.
    pub(crate) async fn refuse_writes(&mut self, name: &str) {
        let what = format!("refused writes of {name} for {OUTAGE:?}");
        let renew = |cluster: &mut Cluster| cluster.allow_writes_and_restart(name);
        self.fault(&what, |cluster| cluster.refuse_writes(name), OUTAGE, renew).await;
    }

    /// The disk of a process is full until the process has said so, and some seconds more. Commits go on meanwhile, and when there
    /// is space again the process lives on and has no trouble any more: nobody starts it anew.
    pub(crate) async fn fill_and_free_disk(&mut self, name: &str) {
        let what = format!("full disk of {name}");
        let fault = runtime::now();
        self.cluster.fill_disk(name);
        let trouble = self.trouble_of(name, |trouble| trouble.is_some()).await;
        assert!(trouble.as_ref().is_some_and(|text| text.starts_with(DISK_IS_FULL)), "{trouble:?}");
        match self.probe.wait_after(fault, LIMIT).await {
            Ok(time) => {
                println!("{what}: available after {} ms", time.as_millis());
                self.times.push(time);
            }
            Err(error) => panic!("{what}: {error}\n{}", self.cluster.report()),
        }
        self.progress(&what).await;
        runtime::sleep(OUTAGE).await;
        self.progress(&what).await;
        self.cluster.free_disk(name);
        self.trouble_of(name, |trouble| trouble.is_none()).await;
        self.progress(&format!("{what}, which has space again")).await;
    }

    /// Waits for what a process says of its disk, as `status` shows it.
    async fn trouble_of(
        &self,
        name: &str,
        is_as_expected: impl Fn(&Option<String>) -> bool,
    ) -> Option<String> {
        let database = self.cluster.connect().await;
        let began = runtime::now();
        loop {
            let status = database.status().await;
            let processes = status.iter().flat_map(|status| &status.processes);
            let mut of_name = processes
                .filter(|process| self.cluster.name_of(&process.heartbeat.worker.address) == name);
            // The controller does not count on one that has trouble.
            if let Some(ProcessStatus { heartbeat, alive, .. }) = of_name.next()
                && *alive == heartbeat.trouble.is_none()
                && is_as_expected(&heartbeat.trouble)
            {
                return heartbeat.trouble.clone();
            }
            let waited = runtime::now().duration_since(began);
            assert!(waited < LIMIT, "{name} says nothing else\n{}", self.cluster.report());
            runtime::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A fault of the network, healed after a while.
    pub(crate) async fn cut_and_heal(&mut self, what: &str, cut: impl FnOnce(&Relays)) {
        let what = format!("{what} for {OUTAGE:?}");
        let cut = |cluster: &mut Cluster| cut(cluster.relays());
        self.fault(&what, cut, OUTAGE, |cluster| cluster.relays().heal()).await;
    }

    /// Waits until transfers and readers get on.
    pub(crate) async fn progress(&self, when: &str) {
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
    pub(crate) async fn end(mut self) {
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
        let counted = self.counting.await.unwrap();
        let counter = database.transaction().get(COUNTER).await.unwrap().unwrap();
        assert_eq!(
            counter.as_slice(),
            counted.to_string().as_bytes(),
            "each time counts once (I-6)"
        );
        println!("run_transaction has counted to {counted} without an error");
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
pub(crate) fn redundant() -> Shape {
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
pub(crate) struct Cast {
    pub(crate) leader: String,
    pub(crate) follower: String,
    pub(crate) sequencer: String,
    /// Hosts a proxy; not the sequencer, if there is such a one.
    pub(crate) proxy: String,
    pub(crate) logs: Vec<String>,
}

impl Scene {
    pub(crate) async fn cast(&self) -> Cast {
        cast(&self.cluster).await
    }
}

/// Who hosts what in a cluster, as soon as a generation is active.
pub(crate) async fn cast(cluster: &Cluster) -> Cast {
    let database = cluster.connect().await;
    let began = runtime::now();
    let (coordinator, status) = loop {
        let status = database.status().await.unwrap();
        if let Some(coordinator) = status.cluster.coordinator.clone() {
            break (coordinator, status);
        }
        assert!(runtime::now().duration_since(began) < LIMIT, "no active generation");
        runtime::sleep(Duration::from_millis(20)).await;
    };
    let name = |endpoint: &ferrisdb_core::Endpoint| cluster.name_of(&endpoint.address);
    let leader = cluster.name_of(&status.controller);
    let sequencer = name(&coordinator.sequencer);
    let proxies = coordinator.proxies.iter().map(name);
    let controllers = cluster.names("controller");
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
