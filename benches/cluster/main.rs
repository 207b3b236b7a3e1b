//! `ferrisdb-bench`: puts a load on a database and says how it bears it.
//!
//! ```text
//!   ferrisdb-bench --start point-read blind-update          a server of its own, two workloads one after the other
//!   ferrisdb-bench --connect 10.0.0.1:4500 --clients 1,64,400 transfer
//!   ferrisdb-bench --memory --rate 20000 ycsb-a             an open loop: latencies as users see them
//!
//!   main ──► target.rs      which database; starts and stops a server
//!        ──► run.rs         one run ──► workload/    what an operation is, what must hold at the end
//!                                   ──► schedule.rs  when it begins      distribution.rs  which row it is about
//!                                   ──► clients.rs   do it               tally.rs         counts
//!                                   ──► intervals.rs goes on telling, with --every
//!        ──► report.rs      the table, or JSON      process.rs: what it took
//! ```
//!
//! The figures go to standard output, progress to standard error. The exit code is 1 if a check fails (money was lost, rows are
//! missing): such a run measures nothing.
//!
//! The files beside this one that are not named here are benches of their own, for `cargo bench`.

mod clients;
mod distribution;
mod intervals;
mod load;
mod process;
mod progress;
mod random;
mod report;
mod rows;
mod run;
mod schedule;
#[cfg(test)]
mod smoke_tests;
mod tally;
mod target;
mod workload;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, bail, ensure};
use clap::Parser;

use crate::{
    clients::ExactlyOnce,
    distribution::Distribution,
    intervals::Every,
    rows::Rows,
    run::Plan,
    target::{Target, TargetArguments},
    workload::{Kind, Sizes},
};

const EXAMPLES: &str = "\
Examples:
  ferrisdb-bench --start point-read blind-update transfer
      starts a server, measures three workloads with 64 transactions in flight, stops it
  ferrisdb-bench --start --clients 1 latency
      what one client waits for
  ferrisdb-bench --connect 10.0.0.1:4500 --clients 100,400 read-modify-write
  ferrisdb-bench --memory --rate 5000 --duration 60 ycsb-b
      5,000 operations a second, however slow the database is
  ferrisdb-bench --start --rate 5000 --duration 600 --every 10 --json mix-50-25-25
      the same for ten minutes; every ten seconds an object of rates, latencies, memory and
      what each role keeps, then the object of the whole run

Everything is written below one prefix (--prefix). Rows stay, and are used by the next run.";

/// Puts a load on a FerrisDB database and measures how it bears it.
#[derive(Debug, Parser)]
#[command(name = "ferrisdb-bench", version, after_help = EXAMPLES)]
struct Cli {
    /// What clients do; several are measured one after the other
    #[arg(required = true, value_enum, value_name = "WORKLOAD")]
    workloads: Vec<Kind>,
    #[command(flatten)]
    target: TargetArguments,
    /// Transactions in flight; with several numbers each workload is run with each of them
    #[arg(long, default_value = "64", value_delimiter = ',', value_name = "NUMBER,...")]
    clients: Vec<usize>,
    /// How long is measured, in seconds
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    duration: Duration,
    /// How long the load runs before that, in seconds
    #[arg(long, default_value = "2", value_parser = seconds_or_none, value_name = "SECONDS")]
    warm_up: Duration,
    /// Tell every so many seconds what has happened meanwhile, and what the roles of the database keep in memory and on disk
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    every: Option<Duration>,
    /// An open loop: so many operations a second become due, and latencies count from then on
    #[arg(long, value_parser = rate, value_name = "PER SECOND")]
    rate: Option<f64>,
    /// How rows are drawn; uniform by default, for YCSB as its authors have it
    #[arg(long, value_enum)]
    distribution: Option<Distribution>,
    /// Rows there are
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    value_size: usize,
    /// Bytes of a key
    #[arg(long, default_value_t = 16, value_name = "BYTES")]
    key_size: usize,
    /// What all keys begin with
    #[arg(long, default_value = "bench/")]
    prefix: String,
    /// Accounts of the bank; few of them means many conflicts
    #[arg(long, default_value_t = 100_000)]
    accounts: u64,
    /// Rows of a scan
    #[arg(long, default_value_t = 1_000)]
    scan_rows: u64,
    /// Watches of each change in watch-fanout
    #[arg(long, default_value_t = 100)]
    watchers: u64,
    /// Take the rows for loaded
    #[arg(long)]
    no_load: bool,
    /// What a transaction does about a commit whose answer was lost
    #[arg(long, value_enum, default_value = "by-id")]
    exactly_once: ExactlyOnce,
    /// Threads of the clients; 1, or as many as there are cores if the database runs inside this process
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Handles that share the clients, each with connections of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    handles: u16,
    /// Seeds the random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// JSON on standard output, an object a line, instead of the table
    #[arg(long)]
    json: bool,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// Parses a number of seconds above zero, which may have a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let duration = seconds_or_none(text)?;
    if duration.is_zero() {
        Err("expected more than zero seconds".to_owned())
    } else {
        Ok(duration)
    }
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .filter(|duration| duration.as_secs() < 1_000_000)
        .ok_or_else(|| "expected a number of seconds".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (1e-3..=1e8).contains(rate));
    rate.ok_or_else(|| "expected a number of operations a second, 0.001 to 100,000,000".to_owned())
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: &Cli) -> Result<()> {
    let threads = match cli.threads {
        Some(threads) => usize::from(threads),
        None if cli.target.is_embedded() => std::thread::available_parallelism()?.get(),
        None => 1,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted")
            }
            ended = measure(cli) => ended,
        }
    })
}

/// Runs all that was asked for, one after the other.
async fn measure(cli: &Cli) -> Result<()> {
    ensure!(!cli.clients.contains(&0), "--clients 0: at least one");
    let largest = cli.keys.max(cli.accounts);
    let rows = Arc::new(Rows::new(&cli.prefix, cli.key_size, cli.value_size, largest)?);
    let sizes = Sizes {
        keys: cli.keys,
        accounts: cli.accounts,
        scan_rows: cli.scan_rows,
        watchers: cli.watchers,
        distribution: cli.distribution,
        may_load: !cli.no_load,
        is_quiet: cli.quiet,
    };
    let target = Target::open(&cli.target, usize::from(cli.handles)).await?;
    let mut reports = Vec::new();
    for kind in &cli.workloads {
        for clients in &cli.clients {
            let plan = Plan {
                clients: *clients,
                warm_up: cli.warm_up,
                duration: cli.duration,
                rate: cli.rate,
                exactly_once: cli.exactly_once,
                seed: cli.seed,
                every: cli.every.map(|length| Every { length, is_json: cli.json }),
            };
            let report = run::run(*kind, &sizes, &rows, &target, &plan).await?;
            if cli.json {
                println!("{}", serde_json::to_string(&report)?);
            }
            reports.push(report);
        }
    }
    if !cli.json {
        println!("{}\n\n{}", target.description, report::table(&reports));
    }
    target.close().await?;
    ensure!(!reports.iter().any(report::Report::is_empty), "a run had no operation that succeeded");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        let refused = [
            "ferrisdb-bench",
            "ferrisdb-bench no-such-workload",
            "ferrisdb-bench scan --rate 0",
            "ferrisdb-bench scan --duration 0",
            "ferrisdb-bench scan --duration -1",
            "ferrisdb-bench scan --keys 0",
            "ferrisdb-bench scan --memory --start",
            "ferrisdb-bench scan --data /tmp",
            "ferrisdb-bench scan --clients many",
            "ferrisdb-bench scan --every 0",
            "ferrisdb-bench scan --memory --data /tmp",
            "ferrisdb-bench scan --memory --server-pid 1",
        ];
        for line in refused {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        let line = "ferrisdb-bench --start --clients 1,64 mix-90-10 ycsb-f -- --worker-threads 1";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        let line =
            "ferrisdb-bench --connect 127.0.0.1:1 --data /tmp --server-pid 1,2 --every 10 scan";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
    }
}
