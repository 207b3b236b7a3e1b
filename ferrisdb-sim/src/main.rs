//! `cargo sim <scenario> --seed N`: runs a scenario in the simulated world and prints what happened.

#[cfg(not(madsim))]
fn main() {
    eprintln!("A simulation is a build of its own. Run it with: cargo sim bank --seed 42");
    std::process::exit(2);
}

#[cfg(madsim)]
fn main() -> anyhow::Result<()> {
    simulation::main()
}

#[cfg(madsim)]
mod simulation {
    use std::{
        future::Future,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use clap::Parser;
    use ferrisdb_core::runtime;
    use ferrisdb_sim::{
        trace::Trace,
        workload::bank::{Bank, SharedJournal},
        world::{self, Topology, World},
    };

    /// Runs FerrisDB in a simulated world. The same seed gives the same run.
    #[derive(Parser)]
    #[command(
        name = "cargo sim",
        version,
        after_help = "Example: cargo sim bank --seed 42 --trace"
    )]
    struct Arguments {
        /// What to run.
        scenario: Scenario,
        /// Draws everything that is left to chance.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How long the workload runs, in simulated seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// How many nodes are killed and started again meanwhile.
        #[arg(long, default_value_t = 5)]
        kills: u32,
        /// Prints every event.
        #[arg(long)]
        trace: bool,
    }

    #[derive(Clone, Copy, clap::ValueEnum)]
    enum Scenario {
        /// Money is moved between accounts while nodes are killed.
        Bank,
    }

    pub(super) fn main() -> anyhow::Result<()> {
        let arguments = Arguments::parse();
        let filter = tracing_subscriber::EnvFilter::try_from_env("FERRISDB_LOG")
            .unwrap_or_else(|_| "warn,tarpc=error".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        // A panic on any node is a broken invariant: the run is over.
        let report = std::panic::take_hook();
        let seed = arguments.seed;
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            eprintln!("replay with: cargo sim bank --seed {seed}");
            std::process::exit(101);
        }));
        match arguments.scenario {
            Scenario::Bank => world::run(seed, || bank(arguments)),
        }
    }

    async fn bank(arguments: Arguments) -> anyhow::Result<()> {
        let trace = Trace::new();
        let draw = |bound: u64| runtime::random_u64() % bound;
        let topology = Topology {
            logs: 1 + draw(3) as u32,
            storage: 1 + draw(3) as u32,
            proxies: 1 + draw(2) as u32,
            resolvers: 1 + draw(2) as u32,
        };
        trace.note(format_args!("{topology:?}"));
        let mut world = World::start(topology, trace.clone());
        let bank = Bank { accounts: 10, balance: 100 };
        let journal = SharedJournal::default();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = move |stopped: &Arc<AtomicBool>| {
            let stopped = Arc::clone(stopped);
            move || stopped.load(Ordering::SeqCst)
        };

        world.client(move |database| async move { bank.set_up(&database).await }).await?;
        trace.note("accounts are open");

        let mut running = Vec::new();
        for number in 0..3 {
            let (journal, trace) = (journal.clone(), trace.clone());
            let stop = stop(&stopped);
            let client = world.client(move |database| async move {
                let note = |event: &dyn std::fmt::Display| trace.note(event);
                let name = format!("c{number}");
                bank.transfer_until(&database, &name, &journal, stop, note).await
            });
            running.push(beside(client));
        }
        let (watching, stop_watching) = (journal.clone(), stop(&stopped));
        let reader = world.client(move |database| async move {
            bank.watch_until(&database, &watching, stop_watching).await
        });
        running.push(beside(reader));

        let pause = Duration::from_secs(arguments.seconds) / (arguments.kills + 1);
        for _ in 0..arguments.kills {
            runtime::sleep(runtime::jitter(pause)).await;
            let victim = draw(world.node_count() as u64) as usize;
            world.kill(victim);
            runtime::sleep(runtime::jitter(Duration::from_millis(500))).await;
            world.restart(victim);
        }
        runtime::sleep(pause).await;
        stopped.store(true, Ordering::SeqCst);
        for client in running {
            client.await?;
        }
        trace.note("clients have stopped");

        let checking = journal.clone();
        let checked = world
            .client(move |database| async move {
                let journal = std::mem::take(&mut *checking.lock());
                anyhow::ensure!(journal.sums > 0, "no reader ever got an answer");
                anyhow::ensure!(!journal.acknowledged.is_empty(), "no transfer was acknowledged");
                bank.check(&database, &journal).await
            })
            .await?;
        trace.note(format_args!("{checked:?}"));
        if arguments.trace {
            trace.events().iter().for_each(|event| println!("{event}"));
        }
        println!("seed {} trace {:016x} {checked:?}", arguments.seed, trace.hash());
        Ok(())
    }

    /// Runs a client beside the faults; the future that comes back waits for its end.
    fn beside<T: Send + 'static>(
        client: impl Future<Output = T> + Send + 'static,
    ) -> futures::future::BoxFuture<'static, T> {
        let running = madsim::task::spawn(client);
        Box::pin(async move { running.await.expect("a client is never cancelled") })
    }
}
