//! One run: a scenario with a seed.
//!
//! ```text
//!   plan       shape, settings and faults are drawn from the seed
//!   set up     each workload prepares its keys
//!   work       all clients of all workloads, while the faults happen
//!   heal       all faults are over: within a bound the cluster commits again (I-13)
//!   check      each workload compares what it was told with what is there; replicas are compared
//! ```
//!
//! Every step has a bound in simulated time: a cluster that hangs is a failure like any other.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{ConsistencyReport, Database, TransactionOption};
use ferrisdb_core::{Key, Stage, runtime};

use crate::{
    dice::Dice,
    fault::{self, Planned},
    group, operations,
    plan::{RoleSettings, Topology},
    scenario::Scenario,
    trace::Trace,
    workload::{Client, Workload},
    world::World,
};

/// How long a step that should take moments may take.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// How long a check may take: some wait for what happens once in minutes.
const CHECK_LIMIT: Duration = Duration::from_secs(1_800);
/// How many bytes the disk of one machine may ever take. Workloads write tens of megabytes at most, and what is
/// overwritten or drained must go.
const DISK_BYTES_MAX: u64 = 512 << 20;
/// How long after the last fault something must be committed.
const AVAILABLE_LIMIT: Duration = Duration::from_secs(30);

/// What can be changed of a run without changing its seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Instead of the scenario's own time, in simulated seconds.
    pub seconds: Option<u64>,
    /// Faults of the schedule that do not happen, by number.
    pub without: Vec<usize>,
}

/// What is drawn from the seed before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The shape of the cluster.
    pub topology: Topology,
    /// What its processes are told.
    pub settings: RoleSettings,
    /// What goes wrong.
    pub schedule: Vec<Planned>,
    /// How long the workloads run.
    pub lasts: Duration,
}

impl Plan {
    /// Draws a scenario's plan.
    ///
    /// # Errors
    ///
    /// If the scenario says what cannot be.
    pub fn draw(scenario: &Scenario, seed: u64, options: &Options) -> Result<Plan> {
        let seconds = options.seconds.unwrap_or(scenario.seconds);
        let topology = scenario.cluster.topology(&mut Dice::new(seed, "topology"))?;
        let mut settings = if scenario.cluster.default_settings {
            RoleSettings::defaults(&topology)
        } else {
            RoleSettings::drawn(&topology, &mut Dice::new(seed, "settings"))
        };
        scenario.cluster.fix(&mut settings);
        let dice = &mut Dice::new(seed, "faults");
        let mut schedule = fault::draw(&scenario.faults, &topology, seconds, dice);
        schedule.retain(|planned| !options.without.contains(&planned.number));
        Ok(Plan { topology, settings, schedule, lasts: Duration::from_secs(seconds) })
    }
}

/// Runs a scenario, inside of a simulation (see [`crate::world::run`]). Returns a line for each workload.
///
/// # Errors
///
/// What is wrong with the database, or with the scenario.
pub async fn run(scenario: &Scenario, seed: u64, plan: Plan, trace: &Trace) -> Result<Vec<String>> {
    trace.note(format_args!("seed {seed}: {}", scenario.about));
    if let Some(register) = &scenario.register {
        return Ok(vec![group::run(trace.clone(), plan.lasts, register.troubles).await?]);
    }
    let Plan { topology, mut settings, schedule, lasts } = plan;
    let workloads: Vec<Arc<dyn Workload>> =
        scenario.workloads().into_iter().map(Arc::from).collect();
    settings.cut_at(cuts(&workloads, topology.storage, &mut Dice::new(seed, "shards")));
    let dice = &mut Dice::new(seed, "resolvers");
    let boundaries: Arc<[Key]> = resolver_cuts(&workloads, topology.resolvers, dice).into();
    settings.cut_resolvers_at(boundaries.to_vec());
    trace.note(format_args!("{topology:?}"));
    trace.note(format_args!("{settings:?}"));
    let world = World::start(topology, settings, trace.clone());

    for workload in &workloads {
        let set_up = on_client(&world, workload, &boundaries, |workload, client| async move {
            workload.set_up(client).await
        });
        within(STEP_LIMIT, set_up)
            .await
            .with_context(|| format!("setting up {}", workload.name()))?;
        trace.note(format_args!("{} is set up", workload.name()));
    }

    let stopped = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for workload in &workloads {
        for number in 0..workload.clients() {
            let (workload, stopped, trace) =
                (Arc::clone(workload), Arc::clone(&stopped), trace.clone());
            let name = workload.name().to_owned();
            let (world, worker) = (world.clone(), running.len());
            let boundaries = Arc::clone(&boundaries);
            let client = async move {
                loop {
                    let (workload, stopped, trace) =
                        (Arc::clone(&workload), Arc::clone(&stopped), trace.clone());
                    let (is_mortal, boundaries) = (workload.is_mortal(), Arc::clone(&boundaries));
                    let ended = world.worker(worker, is_mortal, move |database| async move {
                        let client = Client::new(number, database, stopped, trace);
                        workload.run(client.with_resolver_boundaries(&boundaries)).await
                    });
                    // Another one takes the place of one that was killed.
                    if let Some(ended) = ended.await {
                        return ended;
                    }
                }
            };
            running.push((name, number, madsim::task::spawn(client)));
        }
    }
    let happening = {
        let world = world.clone();
        madsim::task::spawn(async move { fault::happen(&world, schedule).await })
    };
    let ends = runtime::now() + lasts;
    while runtime::now() < ends {
        runtime::sleep(Duration::from_secs(1).min(ends.saturating_duration_since(runtime::now())))
            .await;
        check_disks(&world)?;
    }
    happening.await?.context("while faults happened (I-13)")?;
    world.heal();
    trace.note("all faults are over");

    let healed = within(
        AVAILABLE_LIMIT,
        world.client(|database| async move { commit_one(&database).await }),
    );
    healed.await.context("after the last fault nothing could be committed (I-13)")?;
    trace.note("the cluster is available");
    stopped.store(true, Ordering::SeqCst);
    for (name, number, client) in running {
        let ended = within(STEP_LIMIT, async move { client.await? }).await;
        ended.with_context(|| format!("client {number} of {name}"))?;
    }
    trace.note("all clients have stopped");

    let mut checked = Vec::new();
    for workload in &workloads {
        let check = on_client(&world, workload, &boundaries, |workload, client| async move {
            workload.check(client).await
        });
        let line = within(CHECK_LIMIT, check).await.with_context(|| workload.name().to_owned())?;
        trace.note(format_args!("{}: {line}", workload.name()));
        checked.push(format!("{}: {line}", workload.name()));
    }
    if scenario.compare_replicas {
        operations::at_rest(&world, "before replicas are compared").await?;
        let report = within(STEP_LIMIT, world.client(compare_replicas));
        let report = report.await.context("comparing replicas")?;
        ensure!(report.is_clean(), "replicas differ (I-2): {report:#?}");
        trace.note(format_args!("replicas: {:?}", report.total));
    }
    check_disks(&world)?;
    trace.note("everything is in order");
    Ok(checked)
}

/// Compares all replicas. One that was cut off until a moment ago may have to catch up first, for so long at most as everything
/// else may take after the last fault.
async fn compare_replicas(database: Database) -> Result<ConsistencyReport> {
    let began = runtime::now();
    loop {
        let report = database.check_consistency(|_| {}).await?;
        let is_late = runtime::now().saturating_duration_since(began) > AVAILABLE_LIMIT;
        if report.total.differences > 0 || report.unchecked.is_empty() || is_late {
            return Ok(report);
        }
        runtime::sleep(Duration::from_secs(1)).await;
    }
}

/// Disks stay bounded: logs are popped, and what was overwritten is dropped.
fn check_disks(world: &World) -> Result<()> {
    for node in world.nodes() {
        let used = world.disk_of(node).used_bytes();
        ensure!(
            used <= DISK_BYTES_MAX,
            "the disk of {node} has {used} bytes, not {DISK_BYTES_MAX} (I-11)"
        );
    }
    Ok(())
}

/// Where the keyspace is cut: so that each workload meets several shards, as many as there are servers or more.
fn cuts(workloads: &[Arc<dyn Workload>], storage: u32, dice: &mut Dice) -> Vec<Key> {
    let mut candidates: Vec<Key> = workloads.iter().flat_map(|workload| workload.cuts()).collect();
    candidates.sort();
    candidates.dedup();
    let wanted = if storage == 1 { dice.below(3) } else { dice.between(1, 2 * u64::from(storage)) };
    while candidates.len() as u64 > wanted {
        let index = dice.below(candidates.len() as u64) as usize;
        candidates.remove(index);
    }
    candidates
}

/// Where the keyspace is cut for the resolvers: mostly so that the keys of some workload are in several hands.
fn resolver_cuts(workloads: &[Arc<dyn Workload>], resolvers: u32, dice: &mut Dice) -> Vec<Key> {
    let mut candidates: Vec<Key> =
        workloads.iter().flat_map(|workload| workload.resolver_cuts()).collect();
    candidates.sort();
    candidates.dedup();
    let wanted = resolvers.saturating_sub(1) as usize;
    if dice.one_in(6) || candidates.len() < wanted {
        return Vec::new();
    }
    while candidates.len() > wanted {
        let index = dice.below(candidates.len() as u64) as usize;
        candidates.remove(index);
    }
    candidates
}

fn on_client<F, Fut, T>(
    world: &World,
    workload: &Arc<dyn Workload>,
    boundaries: &Arc<[Key]>,
    work: F,
) -> impl Future<Output = Result<T>>
where
    F: FnOnce(Arc<dyn Workload>, Client) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let (workload, trace) = (Arc::clone(workload), world.trace().clone());
    let boundaries = Arc::clone(boundaries);
    world.client(move |database| {
        let client = Client::new(0, database, Arc::new(AtomicBool::new(false)), trace);
        work(workload, client.with_resolver_boundaries(&boundaries))
    })
}

async fn within<T>(limit: Duration, step: impl Future<Output = Result<T>>) -> Result<T> {
    match runtime::timeout(limit, Stage::Client, step).await {
        Ok(result) => result,
        Err(_) => bail!("not done within {limit:?} of simulated time: it hangs"),
    }
}

/// Commits something, however often it takes.
async fn commit_one(database: &Database) -> Result<()> {
    loop {
        let transaction = database.transaction();
        transaction.set_option(TransactionOption::Timeout(Duration::from_secs(2)))?;
        transaction.set("run/available", "yes")?;
        match transaction.commit().await {
            Ok(_) => return Ok(()),
            Err(error) => tracing::debug!(%error, "not available yet"),
        }
        runtime::sleep(Duration::from_millis(50)).await;
    }
}
