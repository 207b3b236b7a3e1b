//! Each workload of models and interfaces, in a small cluster whose nodes are killed meanwhile.
//!
//! A run is a process of its own, because a seed is. `FERRISDB_SEEDS=100..130` runs other seeds than the few
//! that every test run has; `FERRISDB_RUN=queue:107` runs one, in the test `one_run`.

#![cfg(madsim)]

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use ferrisdb_core::{runtime, service::controller::Redundancy};
use ferrisdb_sim::{
    trace::Trace,
    workload::{
        Client, Workload, api_model::ApiModel, arguments::Arguments,
        atomic_operations::AtomicOperations, availability::Availability, bulk::Bulk,
        conflict_ranges::ConflictRanges, queue::Queue, replica_check::ReplicaCheck,
    },
    world::{self, Topology, World},
};

const SECONDS: u64 = 10;
const KILLS: u32 = 3;

fn workload(name: &str) -> Result<Arc<dyn Workload>> {
    Ok(match name {
        "api_model" => Arc::new(ApiModel::new(Default::default())),
        "arguments" => Arc::new(Arguments::new(Default::default())),
        "atomic_operations" => Arc::new(AtomicOperations::new(Default::default())),
        "availability" => Arc::new(Availability::new(Default::default())),
        "bulk" => Arc::new(Bulk::new(Default::default())),
        "conflict_ranges" => Arc::new(ConflictRanges::new(Default::default())),
        "queue" => Arc::new(Queue::new(Default::default())),
        "replica_check" => Arc::new(ReplicaCheck::new(Default::default())),
        other => bail!("no workload is called {other}"),
    })
}

fn draw(bound: u64) -> u64 {
    runtime::random_u64() % bound
}

/// What a client does of a workload.
#[derive(Clone, Copy)]
enum Part {
    SetUp,
    Run,
    Check,
}

struct Scene {
    world: World,
    trace: Trace,
    stopped: Arc<AtomicBool>,
}

impl Scene {
    fn client(
        &mut self,
        workload: &Arc<dyn Workload>,
        number: u32,
        part: Part,
    ) -> impl Future<Output = Result<String>> + Send + 'static {
        let (workload, trace) = (Arc::clone(workload), self.trace.clone());
        let stopped = Arc::clone(&self.stopped);
        self.world.client(move |database| async move {
            let client = Client::new(number, database, stopped, trace);
            match part {
                Part::SetUp => workload.set_up(client).await.map(|()| String::new()),
                Part::Run => workload.run(client).await.map(|()| String::new()),
                Part::Check => workload.check(client).await,
            }
        })
    }
}

async fn run(name: String, seed: u64) -> Result<()> {
    let trace = Trace::new();
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
    let world = World::start(topology, trace.clone());
    let mut scene = Scene { world, trace: trace.clone(), stopped: Arc::default() };
    // The comparison of replicas looks at the data of somebody else.
    let mut workloads = vec![workload(&name)?];
    if name == "replica_check" {
        workloads.push(workload("atomic_operations")?);
    }
    let mut running = Vec::new();
    for workload in &workloads {
        scene.client(workload, 0, Part::SetUp).await?;
        for number in 0..workload.clients() {
            running.push(madsim::task::spawn(scene.client(workload, number, Part::Run)));
        }
    }
    let pause = Duration::from_secs(SECONDS) / (KILLS + 1);
    for _ in 0..KILLS {
        runtime::sleep(runtime::jitter(pause)).await;
        let victim = draw(scene.world.node_count() as u64) as usize;
        scene.world.kill(victim);
        runtime::sleep(runtime::jitter(Duration::from_millis(500))).await;
        scene.world.restart(victim);
    }
    runtime::sleep(pause).await;
    scene.stopped.store(true, Ordering::SeqCst);
    for client in running {
        client.await.context("a client was cancelled")??;
    }
    trace.note("clients have stopped");
    for workload in &workloads {
        let checked = scene.client(workload, 0, Part::Check).await?;
        println!("{}, seed {seed}: {checked}; trace {:016x}", workload.name(), trace.hash());
    }
    if std::env::var("FERRISDB_TRACE").is_ok() {
        trace.events().iter().for_each(|event| println!("{event}"));
    }
    Ok(())
}

#[test]
fn one_run() {
    let Ok(run_of) = std::env::var("FERRISDB_RUN") else { return };
    let filter = std::env::var("FERRISDB_LOG").unwrap_or("error,tarpc=off,openraft=off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (name, seed) = run_of.split_once(':').expect("FERRISDB_RUN is a workload and a seed");
    let seed = seed.parse().expect("a seed is a number");
    // A panic on any node is a broken invariant: the run is over.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(101);
    }));
    let name = name.to_owned();
    world::run(seed, move || async move {
        let ended = run(name, seed).await;
        if let Err(error) = &ended {
            eprintln!("{error:?}");
        }
        // Before the world is taken down: what its other tasks do then is no part of the run.
        std::process::exit(i32::from(ended.is_err()));
    })
}

fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("FERRISDB_SEEDS").unwrap_or("100..103".to_owned());
    let (begin, end) = given.split_once("..").expect("FERRISDB_SEEDS is a range");
    begin.parse().expect("a number")..end.parse().expect("a number")
}

fn passes(name: &str) {
    let mut failed = Vec::new();
    for seed in seeds() {
        let itself = std::env::current_exe().expect("a test has a file");
        let output = Command::new(itself)
            .args(["--exact", "one_run", "--nocapture"])
            .env("FERRISDB_RUN", format!("{name}:{seed}"))
            .output()
            .expect("a test can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter(|line| line.contains("seed ")).for_each(|line| println!("{line}"));
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            println!("{name}, seed {seed} failed:\n{errors}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{name} failed with the seeds {failed:?}");
}

#[test]
fn api_model_passes() {
    passes("api_model");
}

#[test]
fn arguments_passes() {
    passes("arguments");
}

#[test]
fn atomic_operations_passes() {
    passes("atomic_operations");
}

#[test]
fn availability_passes() {
    passes("availability");
}

#[test]
fn bulk_passes() {
    passes("bulk");
}

#[test]
fn conflict_ranges_passes() {
    passes("conflict_ranges");
}

#[test]
fn queue_passes() {
    passes("queue");
}

#[test]
fn replica_check_passes() {
    passes("replica_check");
}
