//! `metrics`: where the time goes, process by process, role by role.
//!
//! ```text
//!   addresses (named, or from the status) --> ask each --> [wait, ask again, take the difference] --> one of
//!       text.rs         tables for people
//!       json.rs         an object a process, for programs
//!       prometheus.rs   the text exposition format
//! ```

mod json;
mod prometheus;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use anyhow::Result;
use ferrisdb_client::{
    Address, Database, Network, ProcessMetrics, ProcessSelector, RoleMetrics, ask_controllers,
    metrics_of,
};
use ferrisdb_core::runtime;

use crate::{
    output::{Failure, Output, OutputFormat},
    session::Session,
};

/// What `--help` says.
pub(super) const HELP: &str = "\
Prints what every role counts and measures: how many, how often, and how long each stage of its work takes. Without a \
process it asks all that the controllers know. A process that does not answer is named on standard error, and the \
others are printed; the exit code is 1 if none of them answers.

Numbers count from the start of each role; --for shows what happens from now on. docs/reference/metrics.md says what \
each of them means, and what to do when it is high.

Examples:
  metrics
  metrics --for 10 10.0.0.7:4502
  metrics --prometheus";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which processes: an address (host:port), or an id as status shows it; all by default
    #[arg(value_name = "ADDRESS|PROCESS", value_parser = super::process)]
    processes: Vec<ProcessSelector>,
    /// Print what happens in the next so many seconds, instead of all since the roles began
    #[arg(long = "for", value_name = "SECONDS", value_parser = crate::seconds)]
    interval: Option<Duration>,
    /// Print a JSON object for each process
    #[arg(long)]
    json: bool,
    /// Print the text format that Prometheus reads
    #[arg(long, conflicts_with_all = ["json", "interval"])]
    prometheus: bool,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let database = session.database();
    let addresses = addresses(database, &args.processes).await?;
    // One list of addresses, for two readings.
    let ask = || database.metrics_at(&addresses);
    print(&ask().await, ask, args, output).await
}

/// The metrics of a cluster that could not be connected to: of the processes that are named, or of its controllers.
///
/// # Errors
///
/// If none of them answers; if no process was named always, with why there is no connection.
pub(crate) async fn run_unconnected(
    network: &Network,
    controllers: &[Address],
    error: anyhow::Error,
    args: &Args,
    output: &mut Output<'_>,
) -> Result<()> {
    let named = args.processes.iter().filter_map(|process| match process {
        ProcessSelector::Address(address) => Some(address.clone()),
        ProcessSelector::Process(_) => None,
    });
    let mut addresses: Vec<Address> = named.collect();
    let all_named = !addresses.is_empty() && addresses.len() == args.processes.len();
    if addresses.is_empty() {
        let controllers = ask_controllers(network, controllers).await;
        addresses = controllers.into_iter().map(|answer| answer.address).collect();
    }
    let ask = || metrics_of(network, &addresses);
    print(&ask().await, ask, args, output).await?;
    if all_named { Ok(()) } else { Err(error.context("only some processes could be asked")) }
}

/// Where to ask.
async fn addresses(database: &Database, processes: &[ProcessSelector]) -> Result<Vec<Address>> {
    let only_addresses = processes.iter().map(|process| match process {
        ProcessSelector::Address(address) => Some(address.clone()),
        ProcessSelector::Process(_) => None,
    });
    match only_addresses.collect::<Option<Vec<_>>>() {
        Some(addresses) if !addresses.is_empty() => return Ok(addresses),
        Some(_) => return Ok(database.process_addresses().await?.into_iter().collect()),
        None => {}
    }
    let status = database.status().await?;
    let address = |process: &ProcessSelector| match process {
        ProcessSelector::Address(address) => Ok(address.clone()),
        ProcessSelector::Process(id) => {
            let mut known = status.processes.iter();
            let found = known.find(|known| known.heartbeat.process == *id);
            found.map(|found| found.heartbeat.worker.address.clone()).ok_or_else(|| {
                Failure::new(format!("nobody knows process {id}"), "status lists the processes")
            })
        }
    };
    Ok(processes.iter().map(address).collect::<Result<_, _>>()?)
}

/// Prints a first reading, or what has come when `--for` is over.
async fn print<F>(
    first: &[ProcessMetrics],
    again: impl Fn() -> F,
    args: &Args,
    output: &mut Output<'_>,
) -> Result<()>
where
    F: Future<Output = Vec<ProcessMetrics>>,
{
    let second = match args.interval {
        None => None,
        Some(interval) => {
            runtime::sleep(interval).await;
            Some(recent(first, again().await))
        }
    };
    let processes = second.as_deref().unwrap_or(first);
    for process in processes {
        if let Err(error) = &process.roles {
            output.note(format_args!("{} does not answer: {error}", process.address))?;
        }
    }
    if args.prometheus {
        output.data.write_all(prometheus::exposition(processes).as_bytes())?;
    } else if args.json || output.format == OutputFormat::Json {
        for process in processes {
            output.json(&json::object(process))?;
        }
    } else {
        output.data.write_all(text::tables(processes).as_bytes())?;
    }
    match processes.iter().any(|process| process.roles.is_ok()) {
        true => Ok(()),
        false => Err(Failure::new("no process answers", "status says who is alive").into()),
    }
}

/// What happened between two readings. A role that began meanwhile is there with all it has.
fn recent(first: &[ProcessMetrics], second: Vec<ProcessMetrics>) -> Vec<ProcessMetrics> {
    let earlier = |address: &Address, role: &RoleMetrics| {
        let process = first.iter().find(|process| process.address == *address)?;
        let then = process.roles.as_ref().ok()?.iter();
        // A process that was started again counts its registrations anew.
        let mut then = then.filter(|then| then.age_us <= role.age_us && then.role == role.role);
        then.find(|then| then.registration == role.registration).cloned()
    };
    let recent = |process: ProcessMetrics| {
        let since = |role: RoleMetrics| match earlier(&process.address, &role) {
            Some(then) => role.since(&then),
            None => role,
        };
        let roles = process.roles.clone().map(|roles| roles.into_iter().map(since).collect());
        ProcessMetrics { address: process.address.clone(), roles }
    };
    second.into_iter().map(recent).collect()
}
