//! Your own code in the simulation, from an ordinary Rust test.
//!
//! ```no_run
//! use ferrisdb_sim::testing::Simulation;
//!
//! # #[cfg(madsim)]
//! #[test]
//! fn greetings_survive_failures() {
//!     Simulation::new("greetings_survive_failures").seeds(0..20).run(|world| async move {
//!         let written = world.client(|database| async move {
//!             database
//!                 .run_transaction(|transaction| async move { transaction.set("hello", "world") })
//!                 .await
//!         });
//!         written.await?;
//!         Ok(())
//!     });
//! }
//! ```
//!
//! The test is built with `--cfg madsim` (`docs/simulation.md` says how). Each seed runs in a process of its own: the test
//! starts itself again, with the seed in its environment. A seed draws the cluster's shape, its settings, and what goes
//! wrong meanwhile; your code is to get along with all of that. Whatever it waits for has to come from `tokio` as
//! madsim replaces it (the `madsim-tokio` package under the name of `tokio`), or from [`ferrisdb_core::runtime`].

use std::{future::Future, ops::Range, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use ferrisdb_core::{Key, Stage, runtime};

use crate::{
    dice::Dice,
    fault::{self, FaultKind, FaultSpec},
    plan::{ClusterSpec, RoleSettings},
    trace::Trace,
    world::{self, World},
};

/// The variable by which the test tells itself which seed to run.
const SEED: &str = "FERRISDB_SIM_SEED";
/// How many events are shown of a run that failed.
const EVENTS_SHOWN: usize = 40;

/// A test in simulated worlds.
#[derive(Clone, Debug)]
pub struct Simulation {
    name: String,
    seeds: Range<u64>,
    cluster: ClusterSpec,
    faults: FaultSpec,
    lasts: Duration,
    limit: Duration,
    boundaries: Vec<Key>,
}

impl Simulation {
    /// A test that the test runner knows by `name`: with the modules that it is in, such as `orders::are_shipped_once`.
    ///
    /// Ten seeds; nodes lose their power, are killed, stand still and are cut off for twenty simulated seconds.
    pub fn new(name: &str) -> Simulation {
        use FaultKind::{Blackout, CutOneWay, Isolate, Kill, Partition, Pause, PowerFailure};
        let kinds = vec![PowerFailure, Blackout, Kill, Pause, Partition, Isolate, CutOneWay];
        Simulation {
            name: name.to_owned(),
            seeds: 0..10,
            cluster: ClusterSpec::default(),
            faults: FaultSpec { kinds, ..FaultSpec::default() },
            lasts: Duration::from_secs(20),
            limit: Duration::from_secs(600),
            boundaries: Vec::new(),
        }
    }

    /// Which seeds are run.
    pub fn seeds(mut self, seeds: Range<u64>) -> Simulation {
        self.seeds = seeds;
        self
    }

    /// What the cluster looks like, as far as it is not to be drawn.
    pub fn cluster(mut self, cluster: ClusterSpec) -> Simulation {
        self.cluster = cluster;
        self
    }

    /// What goes wrong.
    pub fn faults(mut self, faults: FaultSpec) -> Simulation {
        self.faults = faults;
        self
    }

    /// For how long things go wrong, in simulated time.
    pub fn lasts(mut self, lasts: Duration) -> Simulation {
        self.lasts = lasts;
        self
    }

    /// How long the body may take, in simulated time: ten minutes if nothing is said.
    pub fn limit(mut self, limit: Duration) -> Simulation {
        self.limit = limit;
        self
    }

    /// Where the keyspace is cut into shards: the servers that hold them answer without each other.
    pub fn cut_at(mut self, boundaries: impl IntoIterator<Item = Key>) -> Simulation {
        self.boundaries = boundaries.into_iter().collect();
        self
    }

    /// Runs all seeds, one after the other.
    ///
    /// # Panics
    ///
    /// If the body fails or hangs with one of them, with the command that runs this seed again.
    pub fn run<F, Fut>(&self, body: F)
    where
        F: FnOnce(World) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        if let Ok(seed) = std::env::var(SEED) {
            let seed = seed.parse().unwrap_or_else(|error| panic!("{SEED}={seed}: {error}"));
            return self.run_seed(seed, body);
        }
        for seed in self.seeds.clone() {
            let this = std::env::current_exe().unwrap_or_else(|error| panic!("{error}"));
            let status = Command::new(this)
                .args([&self.name, "--exact", "--nocapture"])
                .env(SEED, seed.to_string())
                .status()
                .unwrap_or_else(|error| panic!("{}: {error}", self.name));
            assert!(
                status.success(),
                "{} fails with seed {seed}; run it alone with {SEED}={seed} and the test's name",
                self.name
            );
        }
    }

    fn run_seed<F, Fut>(&self, seed: u64, body: F)
    where
        F: FnOnce(World) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let trace = Trace::new();
        let (this, noted) = (self.clone(), trace.clone());
        let result =
            world::run(seed, move || async move { this.simulate(seed, body, noted).await });
        if let Err(error) = result {
            let events = trace.events();
            let shown = &events[events.len().saturating_sub(EVENTS_SHOWN)..];
            panic!("seed {seed}: {error:#}\nthe last events:\n{}", shown.join("\n"));
        }
    }

    async fn simulate<F, Fut>(self, seed: u64, body: F, trace: Trace) -> Result<()>
    where
        F: FnOnce(World) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let topology = self.cluster.topology(&mut Dice::new(seed, "topology"))?;
        let mut settings = if self.cluster.default_settings {
            RoleSettings::defaults(&topology)
        } else {
            RoleSettings::drawn(&topology, &mut Dice::new(seed, "settings"))
        };
        settings.cut_at(self.boundaries);
        let dice = &mut Dice::new(seed, "faults");
        let schedule = fault::draw(&self.faults, &topology, self.lasts.as_secs(), dice);
        let world = World::start(topology, settings, trace);
        let happening = {
            let world = world.clone();
            madsim::task::spawn(async move {
                fault::happen(&world, schedule).await?;
                world.heal();
                Ok::<(), anyhow::Error>(())
            })
        };
        let running = madsim::task::spawn(body(world));
        let ended = runtime::timeout(self.limit, Stage::Client, running).await;
        ended.context("the body hangs")???;
        happening.await?
    }
}
