//! Runs one statement after the other: within the time limit, until Ctrl-C, with standard output flushed.

use std::{
    fmt,
    future::Future,
    io::{self, BufWriter, Write as _, stderr, stdout},
};

use anyhow::Result;
use clap::{Parser as _, error::ErrorKind};
use ferrisdb_client::Stage;
use ferrisdb_core::runtime;

use crate::{
    command::Command,
    output::{Failure, Output, OutputFormat},
    session::Session,
    statement::{Line, Statement},
    words,
};

/// Whether the shell goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Exit,
}

/// Ctrl-C was pressed.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Runs `future` until it ends or somebody presses Ctrl-C.
pub(crate) async fn interruptible<T>(future: impl Future<Output = T>) -> Result<T, Interrupted> {
    tokio::select! {
        biased;
        result = future => Ok(result),
        // Without a way to hear of Ctrl-C, the branch is out and the future runs to its end.
        Ok(()) = tokio::signal::ctrl_c() => Err(Interrupted),
    }
}

/// Runs statements on a session.
pub(crate) struct Runner {
    pub(crate) session: Session,
    pub(crate) format: OutputFormat,
    /// Whether somebody types the statements.
    pub(crate) interactive: bool,
}

impl Runner {
    /// Runs a line as it was typed. An empty one does nothing.
    pub(crate) async fn run_line(&mut self, line: &str) -> Result<Flow> {
        let words = words::split(line)?;
        if words.is_empty() {
            return Ok(Flow::Continue);
        }
        let line = match Line::try_parse_from(words) {
            Ok(line) => line,
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                error.print()?;
                return Ok(Flow::Continue);
            }
            Err(error) => return Err(usage(&error)),
        };
        if matches!(line.statement, Statement::Exit) {
            return Ok(Flow::Exit);
        }
        let format = line.output.unwrap_or(self.format);
        self.run_statement(&line.statement, format).await?;
        Ok(Flow::Continue)
    }

    /// Runs a command that came from the command line.
    pub(crate) async fn run_command(&mut self, command: Command) -> Result<()> {
        self.run_statement(&Statement::Command(command), self.format).await
    }

    async fn run_statement(&mut self, statement: &Statement, format: OutputFormat) -> Result<()> {
        let mut data = BufWriter::with_capacity(64 * 1024, stdout());
        let mut notes = stderr();
        let interactive = self.interactive;
        let mut output = Output { data: &mut data, notes: &mut notes, format, interactive };
        let may_commit = self.may_commit(statement);
        let limit = self.session.limit();
        let work = Box::pin(perform(&mut self.session, statement, &mut output));
        let result = match is_long(statement) {
            true => interruptible(work).await,
            false => match interruptible(runtime::timeout(limit, Stage::Client, work)).await {
                Ok(Ok(result)) => Ok(result),
                Ok(Err(error)) => Ok(Err(abandoned(error, may_commit))),
                Err(interrupted) => Err(interrupted),
            },
        };
        // What was written before an error is data, too.
        let flushed = data.flush();
        result.unwrap_or_else(|interrupted| Err(abandoned(interrupted, may_commit)))?;
        Ok(flushed?)
    }

    /// Whether a statement that is abandoned half-way may have changed the database.
    fn may_commit(&self, statement: &Statement) -> bool {
        match statement {
            Statement::Command(command) => {
                command.is_write() && self.session.open_transaction().is_none()
            }
            Statement::Commit => true,
            Statement::Begin | Statement::Rollback | Statement::Exit => false,
        }
    }
}

async fn perform(
    session: &mut Session,
    statement: &Statement,
    output: &mut Output<'_>,
) -> Result<()> {
    match statement {
        Statement::Command(command) => command.run(session, output).await,
        Statement::Begin => session.begin(),
        Statement::Commit => session.commit(output).await,
        Statement::Rollback => session.rollback(),
        Statement::Exit => Ok(()),
    }
}

fn is_long(statement: &Statement) -> bool {
    matches!(statement, Statement::Command(command) if command.is_long())
}

/// A statement that was not waited for.
fn abandoned(cause: impl Into<anyhow::Error>, may_commit: bool) -> anyhow::Error {
    let cause = cause.into();
    match may_commit {
        false => cause,
        true => cause.context(Failure::new(
            "the write may or may not have taken effect",
            "look whether it is there; --timeout allows more time, status shows how the cluster is",
        )),
    }
}

/// clap's message without its "error: ", which all our errors get.
fn usage(error: &clap::Error) -> anyhow::Error {
    let text = error.render().to_string();
    anyhow::Error::msg(text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned())
}

/// Reads a line of standard input; `None` at its end.
pub(crate) fn read_line() -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line)?;
    Ok((read > 0).then_some(line))
}
