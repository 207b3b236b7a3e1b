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

    use clap::{Parser, ValueEnum as _};
    use ferrisdb_core::{runtime, service::controller::Redundancy};
    use ferrisdb_sim::{
        disk_faults::{self, DiskTrouble},
        group::Group,
        operations,
        trace::Trace,
        workload::{
            bank::{Bank, SharedJournal},
            recorded_bank::RecordedBank,
        },
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
        /// Instead of kills, so many times this trouble with a disk.
        #[arg(long)]
        disk_faults: Option<DiskTrouble>,
        /// Prints every event.
        #[arg(long)]
        trace: bool,
    }

    #[derive(Clone, Copy, clap::ValueEnum)]
    enum Scenario {
        /// Money is moved between accounts while nodes are killed.
        Bank,
        /// The same between few accounts, and the order of everything is checked: strict serializability.
        RecordedBank,
        /// The recorded bank while storage servers are lost, drained and taken back, and the redundancy changes.
        Operations,
        /// Lines are added to a register while its members are killed and cut off.
        Register,
    }

    pub(super) fn main() -> anyhow::Result<()> {
        let arguments = Arguments::parse();
        let filter = tracing_subscriber::EnvFilter::try_from_env("FERRISDB_LOG")
            .unwrap_or_else(|_| "warn,tarpc=error,openraft=off".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        // A panic on any node is a broken invariant: the run is over.
        let report = std::panic::take_hook();
        let (scenario, seed) = (arguments.scenario, arguments.seed);
        let name = scenario.to_possible_value().map(|value| value.get_name().to_owned());
        let name = name.unwrap_or_default();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            eprintln!("replay with: cargo sim {name} --seed {seed}");
            std::process::exit(101);
        }));
        match scenario {
            Scenario::Bank => world::run(seed, || bank(arguments)),
            Scenario::RecordedBank | Scenario::Operations => {
                world::run(seed, || recorded_bank(arguments))
            }
            Scenario::Register => world::run(seed, || register(arguments)),
        }
    }

    async fn bank(arguments: Arguments) -> anyhow::Result<()> {
        let trace = Trace::new();
        let mut world = draw_world(&trace, &arguments);
        let bank = Bank { accounts: 10, balance: 100 };
        let journal = SharedJournal::default();
        let stopped = Arc::new(AtomicBool::new(false));

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

        trouble_some(&mut world, &arguments, &trace).await?;
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

    /// The bank with everything recorded: what each client saw is compared with the order of all commits.
    async fn recorded_bank(arguments: Arguments) -> anyhow::Result<()> {
        let trace = Trace::new();
        let mut world = draw_world(&trace, &arguments);
        let bank = RecordedBank::new(Bank { accounts: 8, balance: 100 });
        let journal = SharedJournal::default();
        let stopped = Arc::new(AtomicBool::new(false));
        let opening = bank.clone();
        world.client(move |database| async move { opening.set_up(&database).await }).await?;
        trace.note("accounts are open");

        let mut running = Vec::new();
        for number in 0..6 {
            let (bank, journal, stop) = (bank.clone(), journal.clone(), stop(&stopped));
            running.push(beside(world.client(move |database| async move {
                if number < 4 {
                    let name = format!("c{number}");
                    bank.transfer_until(&database, &name, &journal, stop).await
                } else {
                    let name = format!("r{number}");
                    bank.watch_until(&database, &name, &journal, stop).await
                }
            })));
        }
        if let Scenario::Operations = arguments.scenario {
            for _ in 0..arguments.kills {
                let what = operations::one(&mut world).await?;
                trace.note(what);
            }
        } else {
            trouble_some(&mut world, &arguments, &trace).await?;
        }
        stopped.store(true, Ordering::SeqCst);
        for client in running {
            client.await?;
        }
        trace.note(format_args!("clients have stopped after {} attempts", bank.history().len()));

        let checking = bank.clone();
        let (checked, verdict) = world
            .client(move |database| async move { checking.check(&database, &journal).await })
            .await?;
        trace.note(format_args!("{checked:?} {verdict:?}"));
        if let Scenario::Operations = arguments.scenario {
            let report = world
                .client(move |database| async move { database.check_consistency(|_| {}).await })
                .await?;
            anyhow::ensure!(report.is_clean(), "replicas differ: {report:#?}");
            trace.note(format_args!("{:?}", report.total));
        }
        anyhow::ensure!(verdict.committed > 1, "no transfer was acknowledged");
        anyhow::ensure!(verdict.read_only > 1, "no reader ever got an answer");
        if arguments.trace {
            trace.events().iter().for_each(|event| println!("{event}"));
        }
        println!("seed {} trace {:016x} {checked:?} {verdict:?}", arguments.seed, trace.hash());
        Ok(())
    }

    fn draw(bound: u64) -> u64 {
        runtime::random_u64() % bound
    }

    /// A cluster of a shape that is drawn.
    fn draw_world(trace: &Trace, arguments: &Arguments) -> World {
        // Who loses the only copy cannot have it back.
        let is_safe = arguments.disk_faults.is_some_and(DiskTrouble::loses_data);
        let least = u64::from(is_safe);
        let redundancy = Redundancy::ALL[(least + draw(3 - least)) as usize];
        let copies = redundancy.copies();
        let topology = Topology {
            redundancy,
            controllers: [1, 3, 3, 5][draw(4) as usize],
            coordinators: 1 + draw(3) as u32,
            logs: copies + draw(2) as u32,
            spare_logs: draw(2) as u32,
            storage: copies + draw(3) as u32 + 2 * least as u32,
            proxies: 1 + draw(3) as u32,
            resolvers: 1 + draw(3) as u32,
        };
        trace.note(format_args!("{topology:?}"));
        World::start(topology, trace.clone())
    }

    /// Makes the trouble that is asked for, as long as the workload runs.
    async fn trouble_some(
        world: &mut World,
        arguments: &Arguments,
        trace: &Trace,
    ) -> anyhow::Result<()> {
        let Some(trouble) = arguments.disk_faults else {
            kill_some(world, arguments).await;
            return Ok(());
        };
        let pause = Duration::from_secs(arguments.seconds) / (arguments.kills + 1);
        for _ in 0..arguments.kills {
            runtime::sleep(runtime::jitter(pause)).await;
            disk_faults::make(world, trouble, trace).await?;
        }
        runtime::sleep(pause).await;
        Ok(())
    }

    /// Kills nodes that are drawn and starts them again, as long as the workload runs.
    async fn kill_some(world: &mut World, arguments: &Arguments) {
        let pause = Duration::from_secs(arguments.seconds) / (arguments.kills + 1);
        for _ in 0..arguments.kills {
            runtime::sleep(runtime::jitter(pause)).await;
            let victim = draw(world.node_count() as u64) as usize;
            world.kill(victim);
            runtime::sleep(runtime::jitter(Duration::from_millis(500))).await;
            world.restart(victim);
        }
        runtime::sleep(pause).await;
    }

    fn stop(stopped: &Arc<AtomicBool>) -> impl Fn() -> bool + use<> {
        let stopped = Arc::clone(stopped);
        move || stopped.load(Ordering::SeqCst)
    }

    /// A group of controllers' registers under faults: see the workload.
    async fn register(arguments: Arguments) -> anyhow::Result<()> {
        let trace = Trace::new();
        let draw = |bound: usize| (runtime::random_u64() % bound as u64) as usize;
        let group = Group::start(trace.clone());
        let pause = Duration::from_secs(arguments.seconds) / (arguments.kills + 1);
        for _ in 0..arguments.kills {
            runtime::sleep(runtime::jitter(pause)).await;
            // The leader is worth more trouble than the others.
            let anybody = draw(group.member_count());
            let victim = group.leader().filter(|_| draw(3) > 0).unwrap_or(anybody);
            let trouble = runtime::jitter(Duration::from_millis(1_000));
            match draw(5) {
                0 => {
                    (0..group.member_count()).for_each(|member| group.kill(member));
                    runtime::sleep(trouble).await;
                    (0..group.member_count()).for_each(|member| group.restart(member));
                }
                1 | 2 => {
                    group.cut_off(victim);
                    runtime::sleep(trouble).await;
                    group.reconnect(victim);
                }
                _ => {
                    group.kill(victim);
                    runtime::sleep(trouble).await;
                    group.restart(victim);
                }
            }
        }
        runtime::sleep(pause).await;
        let (held, history) = group.finish().await?;
        let checked = history.check(&held)?;
        anyhow::ensure!(checked.acknowledged > 0, "no write was acknowledged");
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
