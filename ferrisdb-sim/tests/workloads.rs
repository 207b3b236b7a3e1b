//! Every workload in a simulated cluster whose nodes are killed, a process per seed.
//!
//! More seeds: `FERRISDB_SEEDS=100..130 cargo sim-test --test workloads`. One run, with its trace:
//! `FERRISDB_WORKLOAD=cycle FERRISDB_SEEDS=7..8 cargo sim-test --test workloads -- one_run --nocapture`.

#![cfg(madsim)]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::{runtime, service::controller::Redundancy};
use ferrisdb_sim::{
    trace::Trace,
    workload::{
        Client, Workload, bank::BankWorkload, cycle::Cycle, exactly_once::ExactlyOnce,
        external_consistency::ExternalConsistency, hot_key::HotKey, list_append::ListAppend,
        long_idle::LongIdle, recorded_bank::RecordedBankWorkload, serializability,
        serializability::Serializability,
    },
    world::{self, Topology, World},
};

const KILLS: u32 = 5;
const RUNNING: Duration = Duration::from_secs(10);

fn workload(kind: &str) -> Arc<dyn Workload> {
    match kind {
        "bank" => Arc::new(BankWorkload::new(Default::default())),
        "recorded_bank" => Arc::new(RecordedBankWorkload::new(Default::default())),
        "cycle" => Arc::new(Cycle::new(Default::default())),
        "serializability" => Arc::new(Serializability::new(Default::default())),
        "range_clears" => {
            Arc::new(Serializability::new(serializability::SerializabilitySettings {
                flavour: serializability::Flavour::RangeClears,
                ..Default::default()
            }))
        }
        "list_append" => Arc::new(ListAppend::new(Default::default())),
        "external_consistency" => Arc::new(ExternalConsistency::new(Default::default())),
        "hot_key" => Arc::new(HotKey::new(Default::default())),
        "exactly_once" => Arc::new(ExactlyOnce::new(Default::default())),
        "long_idle" => Arc::new(LongIdle::new(Default::default())),
        _ => panic!("there is no workload '{kind}'"),
    }
}

fn draw(bound: u64) -> u64 {
    runtime::random_u64() % bound
}

async fn simulate(kind: String, trace: Trace) -> anyhow::Result<String> {
    let redundancy = Redundancy::ALL[draw(3) as usize];
    let copies = redundancy.copies();
    let topology = Topology {
        redundancy,
        controllers: [1, 3, 3, 5][draw(4) as usize],
        coordinators: 1 + draw(3) as u32,
        logs: copies + draw(2) as u32,
        spare_logs: draw(2) as u32,
        storage: copies + draw(3) as u32,
        proxies: 1 + draw(3) as u32,
        resolvers: 1 + draw(3) as u32,
    };
    let mut world = World::start(topology, trace.clone());
    let workload = workload(&kind);
    let stopped = Arc::new(AtomicBool::new(false));
    let as_client = {
        let (stopped, trace) = (Arc::clone(&stopped), trace.clone());
        move |number, database| Client::new(number, database, stopped.clone(), trace.clone())
    };

    let (preparing, client) = (Arc::clone(&workload), as_client.clone());
    world
        .client(move |database| async move { preparing.set_up(client(0, database)).await })
        .await?;
    let mut running = Vec::new();
    for number in 0..workload.clients() {
        let (working, client) = (Arc::clone(&workload), as_client.clone());
        let client = world
            .client(move |database| async move { working.run(client(number, database)).await });
        running.push(madsim::task::spawn(client));
    }
    let pause = RUNNING / (KILLS + 1);
    for _ in 0..KILLS {
        runtime::sleep(runtime::jitter(pause)).await;
        let victim = draw(world.node_count() as u64) as usize;
        world.kill(victim);
        runtime::sleep(runtime::jitter(Duration::from_millis(500))).await;
        world.restart(victim);
    }
    runtime::sleep(pause).await;
    stopped.store(true, Ordering::SeqCst);
    for client in running {
        client.await.expect("a client is never cancelled")?;
    }
    trace.note("clients have stopped");
    let client = as_client.clone();
    world.client(move |database| async move { workload.check(client(0, database)).await }).await
}

/// Not a test by itself: what the others run in processes of their own.
#[test]
fn one_run() {
    let Ok(kind) = std::env::var("FERRISDB_WORKLOAD") else { return };
    for seed in seeds() {
        let kind = kind.clone();
        let (trace, result) = world::run(seed, move || async move {
            let trace = Trace::new();
            (trace.clone(), simulate(kind, trace).await)
        });
        if result.is_err() || std::env::var("FERRISDB_TRACE").is_ok() {
            trace.events().iter().for_each(|event| println!("{event}"));
        }
        println!("seed {seed} trace {:016x} {}", trace.hash(), result.unwrap());
    }
}

fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("FERRISDB_SEEDS").unwrap_or_else(|_| "100..103".into());
    let (from, before) = seeds.split_once("..").unwrap();
    from.parse().unwrap()..before.parse().unwrap()
}

fn run(kind: &str) {
    for seed in seeds() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "one_run", "--nocapture"])
            .env("FERRISDB_WORKLOAD", kind)
            .env("FERRISDB_SEEDS", format!("{seed}..{}", seed + 1))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{kind} seed {seed} failed\n{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let line = text.lines().find(|line| line.contains("trace")).unwrap();
        println!("{kind} {line}");
    }
}

macro_rules! workloads {
    ($($kind:ident)*) => {
        $(
            #[test]
            fn $kind() {
                run(stringify!($kind));
            }
        )*
    };
}

workloads! {
    bank recorded_bank cycle serializability range_clears list_append external_consistency hot_key exactly_once
    long_idle
}
