//! `status`: how the cluster is, and what to do if it is not well.
//!
//! The report begins with the verdict, then says what to do, and only then lists everything: whoever is woken
//! by an alarm reads the first lines.
//!
//! ```text
//!   facts.rs        what follows from the controller's answer        tolerance.rs   how much may be lost
//!   findings.rs     what of it is a problem, and what to do          leaderless.rs  when no controller leads
//!   text.rs         for people                                       json.rs        for programs
//! ```

pub(crate) mod facts;
mod findings;
mod json;
mod leaderless;
#[cfg(test)]
mod tests;
mod text;
mod tolerance;

use std::time::Duration;

use anyhow::Result;
use ferrisdb_client::{Address, ControllerAnswer, Database, Network, Status, ask_controllers};

pub(crate) use self::text::table;
use self::{facts::Facts, findings::Severity, leaderless::Survey};
use crate::{
    output::{Failure, Output, OutputFormat},
    session::Session,
};

/// What `--help` says.
pub(crate) const HELP: &str = "\
Says first whether the database can be read and written, then what is wrong and what to do about it, then how \
much more may fail, and then lists processes, storage servers and shards.

When no controller leads, it says which of them answer and what is missing. The exit code is 1 then, and when the \
database is down: 0 means that reads and writes work.";

/// How long a controller that has just begun to lead is given to hear of everybody.
const EARLY_MAX: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let database = session.database();
    let status = match database.status().await {
        Ok(status) => status,
        Err(error) => {
            let answers = database.ask_controllers().await;
            return without_a_leader(&answers, error.into(), args, output);
        }
    };
    let status = match Facts::new(&status).is_early() {
        true => later(database, status).await,
        false => status,
    };
    let facts = Facts::new(&status);
    let findings = findings::findings(&facts);
    match args.json || output.format == OutputFormat::Json {
        true => output.json(&json::object(&facts, &findings))?,
        false => output.data.write_all(text::report(&facts, &findings).as_bytes())?,
    }
    match findings.first() {
        Some(worst) if worst.severity == Severity::Down => {
            Err(Failure::new("the database is down", worst.todo.clone()).into())
        }
        _ => Ok(()),
    }
}

/// The status as soon as the controller leads for so long that it can judge, or the early one.
async fn later(database: &Database, early: Status) -> Status {
    let missing = early.failure_timeout_ms.saturating_sub(early.leads_for_ms);
    let missing = Duration::from_millis(missing);
    if missing > EARLY_MAX {
        return early;
    }
    ferrisdb_core::runtime::sleep(missing).await;
    database.status().await.unwrap_or(early)
}

/// The status of a cluster that could not be connected to.
///
/// # Errors
///
/// Always: why it could not be.
pub(crate) async fn run_unconnected(
    network: &Network,
    controllers: &[Address],
    error: anyhow::Error,
    args: &Args,
    output: &mut Output<'_>,
) -> Result<()> {
    let answers = ask_controllers(network, controllers).await;
    without_a_leader(&answers, error, args, output)
}

fn without_a_leader(
    answers: &[ControllerAnswer],
    error: anyhow::Error,
    args: &Args,
    output: &mut Output<'_>,
) -> Result<()> {
    let survey = Survey::new(answers);
    match args.json || output.format == OutputFormat::Json {
        true => output.json(&survey.object())?,
        false => output.data.write_all(survey.report().as_bytes())?,
    }
    let hint = survey.findings().first().map_or_else(String::new, |finding| finding.todo.clone());
    Err(error.context(Failure::new("the status is not to be had", hint)))
}
