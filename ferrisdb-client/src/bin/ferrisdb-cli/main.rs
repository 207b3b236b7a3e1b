//! `ferrisdb-cli`: the database from the command line.
//!
//! ```text
//!   ferrisdb-cli get user/7                  one command
//!   ferrisdb-cli                             a shell, if standard input is a terminal ...
//!   ferrisdb-cli < statements                ... and otherwise a script, a statement a line
//!
//!   main ──► connect.rs    which database
//!        ──► runner.rs     one statement: its time limit, Ctrl-C ──► session.rs ──► command/ (a file each)
//!        ──► repl.rs       many of them: prompt or script; words.rs, statement.rs, completion.rs
//!   format/                records in files
//!   output.rs              data to standard output, all else to standard error
//! ```
//!
//! Keys and values are byte strings. Wherever they are typed or printed they are in the escaped form of
//! [`ferrisdb_core::key::escape`], so nothing is ever lost, and what was printed can be typed.
//!
//! Exit codes: 0 success, 1 an error (told on standard error, with what to try), 2 a command line that makes no
//! sense, 130 interrupted. A key that is not set is no error. When the reader of standard output goes away, as
//! `head` does, that is success.

mod command;
mod completion;
mod connect;
mod format;
mod output;
mod progress;
mod repl;
mod runner;
mod session;
mod statement;
mod words;

use std::{
    io::{self, IsTerminal as _},
    rc::Rc,
    time::Duration,
};

use anyhow::Result;
use clap::Parser;
use ferrisdb_client::{Connection, Network};
use tokio::runtime::{Builder, Runtime};

use crate::{
    command::Command,
    connect::{Place, Target},
    output::{Output, OutputFormat},
    repl::OnError,
    runner::{Interrupted, Runner, interruptible},
    session::Session,
};

/// How long the end waits for threads that do not end.
#[cfg(not(madsim))]
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// How long `status` tries to connect before it says who answers.
const STATUS_CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// FerrisDB from the command line: one command, a script on standard input, or an interactive shell.
///
/// Keys and values are typed and printed in escaped form: printable ASCII as it is, \\ for a backslash, \xNN for
/// any other byte; \t, \n, \r and \0 are understood, too.
#[derive(Debug, Parser)]
#[command(name = "ferrisdb-cli", version)]
struct Cli {
    #[command(flatten)]
    target: Target,
    /// How long connecting and each command may take, in seconds; range, import and export as a whole may take
    /// longer
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        default_value = "10",
        value_parser = seconds
    )]
    timeout: Duration,
    /// How data is written
    #[arg(long, value_enum, global = true, default_value = "text")]
    output: OutputFormat,
    /// In a script on standard input: go on after an error (and exit 1 at the end)
    #[arg(long)]
    keep_going: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Parses a number of seconds, which may have a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| String::from("expected a number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(String::from("expected a number of seconds above zero")),
    }
}

fn main() {
    let cli = Cli::parse();
    start_logging();
    let result = run(cli);
    let code = match &result {
        Ok(()) => 0,
        Err(error) if output::is_broken_pipe(error) => 0,
        Err(error) => {
            // Where should it be told, if not on standard error?
            let _ = output::report(error, &mut io::stderr());
            let interrupted = error.chain().any(|cause| cause.is::<Interrupted>());
            if interrupted { 130 } else { 1 }
        }
    };
    std::process::exit(code);
}

/// Logs go to standard error, and only if RUST_LOG asks for more than errors.
fn start_logging() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
}

fn run(cli: Cli) -> Result<()> {
    let runtime = Rc::new(Builder::new_multi_thread().enable_all().build()?);
    let limit = match cli.command {
        // Whoever asks how the cluster is wants to hear soon that nobody leads it.
        Some(Command::Status(_) | Command::Metrics(_)) => cli.timeout.min(STATUS_CONNECT_LIMIT),
        _ => cli.timeout,
    };
    let place = cli.target.place()?;
    let connected = runtime.block_on(interruptible(place.database(limit)))?;
    let database = match (connected, &cli.command, &place) {
        (Ok(database), _, _) => database,
        (
            Err(error),
            Some(command @ (Command::Status(_) | Command::Metrics(_))),
            Place::Cluster(connection),
        ) => {
            let unconnected = run_unconnected(connection, error, command, cli.output);
            return runtime.block_on(interruptible(unconnected))?;
        }
        (Err(error), _, _) => return Err(error),
    };
    let mut runner = Runner {
        session: Session::new(database.clone(), cli.timeout),
        format: cli.output,
        interactive: cli.command.is_none() && io::stdin().is_terminal(),
    };
    let on_error = if cli.keep_going { OnError::KeepGoing } else { OnError::Stop };
    let result = work(&mut runner, &runtime, cli.command, on_error);
    // An embedded database ends in order, whatever came of the work; the first error is the one to tell.
    let closed = runtime.block_on(database.close());
    drop(runner);
    stop(runtime);
    result?;
    Ok(closed?)
}

/// What can be said of a cluster that cannot be connected to; then the error.
async fn run_unconnected(
    connection: &Connection,
    error: anyhow::Error,
    command: &Command,
    format: OutputFormat,
) -> Result<()> {
    let (mut data, mut notes) = (io::stdout(), io::stderr());
    let mut output = Output { data: &mut data, notes: &mut notes, format, interactive: false };
    let network = Network::new();
    // So that controllers of another cluster are told apart from those of this one.
    if let Some(id) = connection.cluster_id() {
        network.join(id)?;
    }
    let controllers = &connection.addresses;
    match command {
        Command::Status(args) => {
            command::status::run_unconnected(&network, controllers, error, args, &mut output).await
        }
        Command::Metrics(args) => {
            command::metrics::run_unconnected(&network, controllers, error, args, &mut output).await
        }
        _ => Err(error),
    }
}

/// Ends the tasks and threads that are left, so that nothing uses an embedded database's engine while the
/// process takes down its globals: RocksDB aborts then.
fn stop(runtime: Rc<Runtime>) {
    let Some(runtime) = Rc::into_inner(runtime) else { return };
    // With a limit, because a thread may be waiting for standard input, for ever.
    #[cfg(not(madsim))]
    runtime.shutdown_timeout(STOP_LIMIT);
    #[cfg(madsim)]
    drop(runtime);
}

fn work(
    runner: &mut Runner,
    runtime: &Rc<Runtime>,
    command: Option<Command>,
    on_error: OnError,
) -> Result<()> {
    match command {
        Some(command) => runtime.block_on(runner.run_command(command)),
        None if runner.interactive => repl::interact(runner, runtime),
        None => runtime.block_on(repl::script(runner, on_error)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn timeouts_are_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "-1", "ten", "inf", "NaN"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
