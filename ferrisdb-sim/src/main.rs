//! `cargo sim <scenario>`: runs scenarios in the simulated world and says what happened. See `--help`.

#[cfg(not(madsim))]
fn main() {
    eprintln!("A simulation is a build of its own. Run it with: cargo sim bank --seed 42");
    std::process::exit(2);
}

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    command_line::main()
}

#[cfg(madsim)]
mod command_line {
    use std::{collections::BTreeMap, io::Write as _, process::ExitCode, sync::OnceLock};

    use anyhow::{Context as _, Result, ensure};
    use clap::Parser;
    use ferrisdb_core::simulation::{self, Mark, Plant};
    use ferrisdb_sim::{
        batch::{Batch, RunReport, Summary},
        run::{self, Options, Plan},
        scenario::{BUILT_IN, Scenario},
        trace::Trace,
        world,
    };

    /// How many events before a failure are shown.
    const EVENTS_SHOWN: usize = 60;
    /// How many runs may be spent on making a failing schedule small.
    const SHRINKING_RUNS_MAX: u32 = 60;

    /// Runs FerrisDB in a simulated world. The same seed gives the same run.
    #[derive(Parser)]
    #[command(
        name = "cargo sim",
        version,
        after_help = "Examples:\n  \
            cargo sim bank --seed 42 --trace     one run, with everything that happened\n  \
            cargo sim bank --seeds 1000          a thousand runs\n  \
            cargo sim all --seeds 100            a hundred runs of each scenario\n  \
            cargo sim list                       what scenarios there are\n  \
            cargo sim plants                     whether each planted bug is found\n  \
            cargo sim my.toml --seeds 10         a scenario of your own"
    )]
    struct Arguments {
        /// A scenario's name, the path of its file, `all`, `list`, or `plants`.
        scenario: String,
        /// Draws everything that is left to chance; the first one with --seeds.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Runs so many seeds, each in a process of its own.
        #[arg(long)]
        seeds: Option<u64>,
        /// How many runs at once; as many as there are processors if not given.
        #[arg(long)]
        jobs: Option<usize>,
        /// Switches a planted bug on. `cargo sim list` names them.
        #[arg(long)]
        plant: Option<String>,
        /// How long the workloads run, in simulated seconds, instead of what the scenario says.
        #[arg(long)]
        seconds: Option<u64>,
        /// Leaves faults of the schedule out, by number.
        #[arg(long, value_delimiter = ',')]
        without: Vec<usize>,
        /// Prints every event.
        #[arg(long)]
        trace: bool,
        /// Prints the report as a line of JSON.
        #[arg(long)]
        json: bool,
        /// Does not try to make a failing schedule small.
        #[arg(long)]
        no_shrink: bool,
        /// Goes on with the next seed after a failure.
        #[arg(long)]
        keep_going: bool,
        /// Says which coverage marks were reached, and how often.
        #[arg(long)]
        marks: bool,
    }

    pub(super) fn main() -> ExitCode {
        let arguments = Arguments::parse();
        let done = match (arguments.scenario.as_str(), arguments.seeds) {
            ("list", _) => list(),
            ("plants", _) => plants(&arguments),
            (_, Some(_)) | ("all", None) => batches(&arguments),
            _ => one(&arguments),
        };
        match done {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(2)
            }
        }
    }

    fn list() -> Result<bool> {
        say("scenarios:");
        for (name, _) in BUILT_IN {
            say(format_args!("  {name:<24} {}", Scenario::find(name)?.about));
        }
        say("\nplanted bugs (--plant):");
        Plant::ALL.iter().for_each(|plant| say(format_args!("  {plant:<32} {}", plant.what())));
        say("\ncoverage marks (--marks):");
        Mark::ALL.iter().for_each(|mark| say(format_args!("  {mark:<32} {}", mark.what())));
        Ok(true)
    }

    /// One run, in this process.
    fn one(arguments: &Arguments) -> Result<bool> {
        static ENDING: OnceLock<Ending> = OnceLock::new();
        let scenario = Scenario::find(&arguments.scenario)?;
        if let Some(name) = &arguments.plant {
            let plant =
                Plant::by_name(name).with_context(|| format!("no planted bug is called {name}"))?;
            simulation::plant(plant);
        }
        let filter = tracing_subscriber::EnvFilter::try_from_env("FERRISDB_LOG")
            .unwrap_or_else(|_| "error,tarpc=off,openraft=off,ferrisdb=off".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        let seed = arguments.seed;
        let options = Options { seconds: arguments.seconds, without: arguments.without.clone() };
        let plan = Plan::draw(&scenario, seed, &options)?;
        let trace = Trace::new();
        let ending = ENDING.get_or_init(|| Ending {
            trace: trace.clone(),
            seed,
            faults: plan.schedule.iter().map(|p| (p.number, p.to_string())).collect(),
            show_trace: arguments.trace,
            as_json: arguments.json,
            replay: replay(arguments),
        });
        // A panic on any node is a broken invariant: the run is over.
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            ending.say(Err(anyhow::anyhow!("a broken invariant: {panic}")));
            std::process::exit(1);
        }));
        let result =
            world::run(seed, move || async move { run::run(&scenario, seed, plan, &trace).await });
        Ok(ending.say(result))
    }

    fn replay(arguments: &Arguments) -> String {
        batch(arguments, &arguments.scenario, 1).replay(arguments.seed, &arguments.without)
    }

    /// What is said in the end, however it comes.
    struct Ending {
        trace: Trace,
        seed: u64,
        faults: Vec<(usize, String)>,
        show_trace: bool,
        as_json: bool,
        replay: String,
    }

    impl Ending {
        fn say(&self, result: Result<Vec<String>>) -> bool {
            let events = self.trace.events();
            if self.show_trace {
                events.iter().for_each(say);
            }
            let (failure, checked) = match result {
                Ok(checked) => (None, checked),
                Err(error) => (Some(format!("{error:#}")), Vec::new()),
            };
            let marks: BTreeMap<String, u64> =
                simulation::marks().map(|(mark, count)| (mark.name().to_owned(), count)).collect();
            let said = RunReport {
                seed: self.seed,
                failure: failure.clone(),
                trace: format!("{:016x}", self.trace.hash()),
                simulated: self.trace.elapsed().as_secs_f64(),
                faults: self.faults.clone(),
                checked,
                marks,
            };
            if let (Some(failure), false) = (&failure, self.as_json) {
                eprintln!("FAILED: {failure}");
                if !self.show_trace {
                    eprintln!("the last events (time in nanoseconds; all with --trace):");
                    events
                        .iter()
                        .rev()
                        .take(EVENTS_SHOWN)
                        .rev()
                        .for_each(|event| eprintln!("{event}"));
                }
                eprintln!("replay with: {}", self.replay);
            }
            if self.as_json {
                say(serde_json::to_string(&said).unwrap_or_default());
            } else {
                let RunReport { trace, simulated, faults, checked, .. } = &said;
                let outcome = if failure.is_some() { "FAILED" } else { "clean" };
                say(format_args!(
                    "seed {} {outcome}, trace {trace}, {simulated:.1} simulated s, {} faults; {}",
                    self.seed,
                    faults.len(),
                    checked.join("; ")
                ));
            }
            failure.is_none()
        }
    }

    fn batch(arguments: &Arguments, scenario: &str, seeds: u64) -> Batch {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Batch {
            scenario: scenario.to_owned(),
            seeds: arguments.seed..arguments.seed + seeds,
            jobs: arguments.jobs.unwrap_or(processors),
            plant: arguments.plant.clone(),
            seconds: arguments.seconds,
            stop_at_failure: !arguments.keep_going,
            progress: true,
        }
    }

    fn chosen(scenario: &str) -> Vec<&str> {
        match scenario {
            "all" => BUILT_IN.iter().map(|(name, _)| *name).collect(),
            one => vec![one],
        }
    }

    /// Many seeds of one scenario, or of all.
    fn batches(arguments: &Arguments) -> Result<bool> {
        let mut total = Summary::default();
        for scenario in chosen(&arguments.scenario) {
            Scenario::find(scenario)?;
            let batch = batch(arguments, scenario, arguments.seeds.unwrap_or(10));
            let summary = batch.run()?;
            say(format_args!(
                "{scenario}: {} seeds clean, {} failed, {:.2} simulated hours in {:.0} s",
                summary.clean,
                summary.failed.len(),
                summary.simulated / 3_600.0,
                summary.took
            ));
            for report in &summary.failed {
                explain(&batch, report, !arguments.no_shrink)?;
            }
            let failed = !summary.failed.is_empty();
            total.add(summary);
            if failed && !arguments.keep_going {
                break;
            }
        }
        let seeds = total.clean + total.failed.len() as u64;
        say(format_args!(
            "together: {seeds} seeds, {} failed, {:.2} simulated hours in {:.0} s: {:.0} seeds a minute, {:.0} simulated seconds a second",
            total.failed.len(),
            total.simulated / 3_600.0,
            total.took,
            60.0 * seeds as f64 / total.took,
            total.simulated / total.took
        ));
        if arguments.marks {
            say("marks: runs that reached it, and how often it was reached in all");
            for mark in Mark::ALL {
                let of =
                    |counts: &BTreeMap<String, u64>| counts.get(mark.name()).copied().unwrap_or(0);
                say(format_args!(
                    "  {mark:<34} {:>8} {:>12}",
                    of(&total.marked_runs),
                    of(&total.marks)
                ));
            }
        }
        let reached = |mark: &&Mark| total.marks.get(mark.name()).is_some_and(|count| *count > 0);
        let missed: Vec<&str> =
            Mark::ALL.iter().filter(|mark| !reached(mark)).map(|mark| mark.name()).collect();
        if !missed.is_empty() {
            say(format_args!("marks never reached: {}", missed.join(", ")));
        }
        Ok(total.failed.is_empty())
    }

    fn explain(batch: &Batch, report: &RunReport, shrink: bool) -> Result<()> {
        say(format_args!(
            "seed {} failed: {}",
            report.seed,
            report.failure.as_deref().unwrap_or("")
        ));
        say(format_args!("  replay with: {}", batch.replay(report.seed, &[])));
        if shrink && !report.faults.is_empty() {
            let shrunk = batch.shrink(report, SHRINKING_RUNS_MAX)?;
            say(format_args!(
                "  of {} faults these are needed (after {} runs):",
                report.faults.len(),
                shrunk.runs
            ));
            shrunk.needed.iter().for_each(|fault| say(format_args!("    {fault}")));
            say(format_args!("  replay them with: {}", batch.replay(report.seed, &shrunk.without)));
        }
        Ok(())
    }

    /// Switches each planted bug on, and looks whether some scenario fails: the table of `docs/simulation.md`.
    fn plants(arguments: &Arguments) -> Result<bool> {
        let seeds = arguments.seeds.unwrap_or(30);
        let only = arguments.plant.as_deref();
        if let Some(name) = only {
            ensure!(Plant::by_name(name).is_some(), "no planted bug is called {name}");
        }
        say("planted bug | found by | after seeds | said\n---|---|---|---");
        let mut missed = 0;
        for plant in Plant::ALL.iter().filter(|plant| only.is_none_or(|name| name == plant.name()))
        {
            let mut runs = 0;
            let found = ferrisdb_sim::plants::scenarios_for(*plant).iter().find_map(|scenario| {
                let batch = Batch {
                    plant: Some(plant.name().to_owned()),
                    progress: false,
                    stop_at_failure: true,
                    ..batch(arguments, scenario, seeds)
                };
                let summary = batch.run();
                summary.map_or_else(
                    |error| Some(Err(error)),
                    |summary| {
                        runs += summary.clean;
                        summary.failed.into_iter().next().map(|report| Ok((*scenario, report)))
                    },
                )
            });
            match found.transpose()? {
                Some((scenario, report)) => {
                    let failure = report.failure.unwrap_or_default();
                    // Where cargo keeps its crates is nobody's business.
                    let line = failure.lines().next().unwrap_or("");
                    let line = line.rsplit_once("/registry/src/").map_or(line, |(_, line)| line);
                    let line: String = line.chars().take(140).collect();
                    say(format_args!("{plant} | {scenario} | {} | {line}", runs + 1));
                }
                None => {
                    missed += 1;
                    say(format_args!("{plant} | NOT FOUND | {runs} |"));
                }
            }
        }
        Ok(missed == 0)
    }

    /// A line for whoever started this; that nobody reads it is no failure.
    fn say(line: impl std::fmt::Display) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}
