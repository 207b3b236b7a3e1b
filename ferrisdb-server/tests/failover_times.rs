//! How long it takes from a fault to the first commit that began after it, for each kind of fault.
//!
//! ```text
//! FERRISDB_FAULT_ROUNDS=20 cargo test -p ferrisdb-server --test failover_times -- --nocapture
//! ```
//!
//! prints the table of `docs/availability.md`. By default each process meets with one of the kinds, for the checks: that
//! commits come back by themselves whatever fails. Times are not checked, but shown. `FERRISDB_FAULT_OF="the leader and"` leaves it at the
//! kinds whose victims are called so.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::{collections::BTreeMap, time::Duration};

use ferrisdb_core::runtime;
use support::{
    availability::Times,
    cluster::Cluster,
    relay::AfterHeal,
    scene::{Cast, LIMIT, Scene, redundant},
};

/// How long it may take until everybody is back in use: one that was accused of silence is avoided for a while.
const SETTLING_MAX: Duration = Duration::from_secs(60);

/// What happens to a process.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Stop,
    Isolate,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "SIGKILL",
            Fault::Stop => "SIGSTOP",
            Fault::Isolate => "isolation",
        }
    }

    fn inject(self, cluster: &mut Cluster, name: &str) {
        match self {
            Fault::Kill => cluster.kill(name),
            Fault::Stop => cluster.stop(name),
            Fault::Isolate => cluster.relays().isolate(name),
        }
    }

    fn undo(self, cluster: &mut Cluster, name: &str) {
        match self {
            Fault::Kill => cluster.restart(name),
            Fault::Stop => cluster.resume(name),
            Fault::Isolate => cluster.relays().heal(),
        }
    }
}

/// The processes that one fault is about, with what they are.
fn victims(cast: &Cast) -> Vec<(&'static str, Vec<String>)> {
    let one = |name: &String| vec![name.clone()];
    vec![
        ("a storage server", vec!["storage-1".to_owned()]),
        ("a log", one(&cast.logs[1])),
        ("the sequencer's process", one(&cast.sequencer)),
        ("a proxy's process", one(&cast.proxy)),
        ("a controller that follows", one(&cast.follower)),
        ("the controller that leads", one(&cast.leader)),
        ("the leader and a log", vec![cast.leader.clone(), cast.logs[0].clone()]),
        ("the leader and the sequencer's", vec![cast.leader.clone(), cast.sequencer.clone()]),
    ]
}

/// What was measured of one kind of fault.
#[derive(Default)]
struct Measured {
    outages: Times,
    recoveries: Times,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_each_kind_of_fault_to_the_first_new_commit() {
    let rounds = std::env::var("FERRISDB_FAULT_ROUNDS").ok();
    let is_all = rounds.is_some();
    let rounds: u32 = rounds.map_or(1, |rounds| rounds.parse().unwrap());
    let only = std::env::var("FERRISDB_FAULT_OF").unwrap_or_default();
    let mut scene = Scene::begin(&redundant()).await;
    scene.cluster.relays().set_after_heal(AfterHeal::Break);
    let mut table: BTreeMap<(usize, &str, &str), Measured> = BTreeMap::new();
    for _ in 0..rounds {
        let kinds = victims(&scene.cast().await);
        for kind in (0..kinds.len()).filter(|kind| kinds[*kind].0.contains(&only)) {
            let faults = [Fault::Kill, Fault::Stop, Fault::Isolate];
            let faults = if is_all { &faults[..] } else { &faults[kind % 3..][..1] };
            for fault in faults.iter().copied() {
                let cast = settled(&scene).await;
                let (what, names) = victims(&cast).swap_remove(kind);
                let generation = generation(&scene).await;
                names.iter().for_each(|name| fault.inject(&mut scene.cluster, name));
                // A commit that began before the fault was in place tells nothing.
                let began = runtime::now();
                let outage = scene.probe.wait_after(began, LIMIT).await;
                let outage = outage.unwrap_or_else(|error| {
                    panic!("{} of {what}: {error}\n{}", fault.name(), scene.cluster.report())
                });
                names.iter().for_each(|name| fault.undo(&mut scene.cluster, name));
                let measured = table.entry((kind, what, fault.name())).or_default();
                measured.outages.push(outage);
                let report = scene.cluster.connect().await.status().await.ok();
                let report = report.and_then(|status| status.last_recovery);
                if let Some(report) = report.filter(|report| report.generation.0 > generation) {
                    measured.recoveries.push(Duration::from_millis(report.duration_ms));
                }
            }
        }
    }
    println!("fault | of | median ms | worst ms | rounds | recovery median ms | worst ms");
    println!("---|---|---|---|---|---|---");
    let ms = |time: Option<Duration>| time.map_or("-".to_owned(), |t| t.as_millis().to_string());
    for ((_, what, fault), Measured { outages, recoveries }) in &table {
        println!(
            "{fault} | {what} | {} | {} | {} | {} | {}",
            ms(Some(outages.median())),
            ms(Some(outages.worst())),
            outages.count(),
            ms((recoveries.count() > 0).then(|| recoveries.median())),
            ms((recoveries.count() > 0).then(|| recoveries.worst())),
        );
    }
    scene.end().await;
}

async fn generation(scene: &Scene) -> u64 {
    scene.cluster.connect().await.status().await.map_or(0, |status| status.cluster.generation.0)
}

/// Who hosts what, once everybody is back and three logs are in use.
async fn settled(scene: &Scene) -> Cast {
    let everybody = ["coordinator", "log", "storage"]
        .into_iter()
        .map(|role| scene.cluster.names(role).len())
        .sum::<usize>();
    let began = runtime::now();
    let database = scene.cluster.connect().await;
    loop {
        if let Ok(status) = database.status().await
            && status.processes.iter().filter(|process| process.alive).count() == everybody
            && status.cluster.coordinator.is_some()
            && status.silent_controllers.is_empty()
            && status.cluster.log_sets.last().is_some_and(|set| set.logs.len() == 3)
        {
            scene.progress("the last fault").await;
            return scene.cast().await;
        }
        assert!(
            runtime::now().duration_since(began) < SETTLING_MAX,
            "not settled after {SETTLING_MAX:?}\n{}",
            scene.cluster.report()
        );
        runtime::sleep(Duration::from_millis(20)).await;
    }
}
