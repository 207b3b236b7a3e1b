//! Statements one after the other: typed by a person, or from standard input.
//!
//! ```text
//!   a person                               a script on standard input
//!   prompt, history, completion            nothing but the output
//!   an error: told, and on it goes         an error: told with its line, then exit 1 (or --keep-going)
//!   Ctrl-C cancels what runs               Ctrl-C ends all
//!   leaving rolls an open transaction back, and says so
//! ```

use std::{
    env, fs,
    io::{self, stderr},
    path::PathBuf,
    rc::Rc,
};

use anyhow::{Context as _, Result, anyhow};
use ferrisdb_core::runtime;
use rustyline::{
    ColorMode, CompletionType, Config, Editor, error::ReadlineError, history::DefaultHistory,
};
use tokio::runtime::Runtime;

use crate::{
    completion::Assistant,
    output::{is_broken_pipe, report},
    runner::{Flow, Interrupted, Runner, interruptible, read_line},
};

/// Lines of history that are kept.
const HISTORY_LINES_MAX: usize = 10_000;

/// Talks with a person until they leave.
pub(crate) fn interact(runner: &mut Runner, runtime: &Rc<Runtime>) -> Result<()> {
    let colors = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let config = Config::builder()
        .max_history_size(HISTORY_LINES_MAX)?
        .history_ignore_dups(true)?
        // As in shells: a line that begins with a space is not remembered.
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .color_mode(if colors { ColorMode::Enabled } else { ColorMode::Disabled })
        .build();
    let mut editor = Editor::<Assistant, DefaultHistory>::with_config(config)?;
    let database = runner.session.database().clone();
    editor.set_helper(Some(Assistant::new(database, Rc::clone(runtime), colors)));
    let history = history_file();
    if let Some(history) = &history {
        // There is none the first time.
        let _ = editor.load_history(history);
    }

    eprintln!("FerrisDB {}; help lists the commands, Ctrl-D leaves", env!("CARGO_PKG_VERSION"));
    loop {
        let prompt = match runner.session.open_transaction() {
            None => "ferrisdb> ",
            Some(_) => "ferrisdb (transaction)> ",
        };
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        editor.add_history_entry(line.as_str())?;
        match runtime.block_on(runner.run_line(&line)) {
            Ok(Flow::Continue) => {}
            Ok(Flow::Exit) => break,
            // Standard output is gone, and with it the point of going on.
            Err(error) if is_broken_pipe(&error) => return Err(error),
            Err(error) => report(&error, &mut stderr())?,
        }
    }
    if runner.session.rollback().is_ok() {
        eprintln!("the open transaction was rolled back");
    }
    if let Some(history) = &history {
        editor.append_history(history).context("cannot write the history")?;
    }
    Ok(())
}

/// `$XDG_STATE_HOME/ferrisdb/cli_history`, its directory made. `None` where there is no place for it.
fn history_file() -> Option<PathBuf> {
    let directory = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = directory("XDG_STATE_HOME")
        .or_else(|| Some(directory("HOME")?.join(".local").join("state")))?;
    let ours = state.join("ferrisdb");
    fs::create_dir_all(&ours).ok()?;
    Some(ours.join("cli_history"))
}

/// What to do after an error in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    Stop,
    KeepGoing,
}

/// Runs the lines of standard input.
///
/// # Errors
///
/// The first error, with its line. If it is to keep going: that there were errors, each told already.
pub(crate) async fn script(runner: &mut Runner, on_error: OnError) -> Result<()> {
    let mut failed: u64 = 0;
    for number in 1_u64.. {
        // Reading blocks: on a thread of its own it does not keep Ctrl-C from being heard.
        let line = match interruptible(runtime::blocking(read_line)).await? {
            Ok(Some(line)) => line,
            Ok(None) => break,
            // A line that is not UTF-8 was consumed whole, like any other that makes no sense.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let error = anyhow!("line {number}: not UTF-8; such bytes are written \\xNN");
                tell_or_stop(runner, error, on_error)?;
                failed += 1;
                continue;
            }
            Err(error) => return Err(error).context("cannot read standard input"),
        };
        match runner.run_line(&line).await {
            Ok(Flow::Continue) => {}
            Ok(Flow::Exit) => break,
            Err(error) => {
                tell_or_stop(runner, error.context(format!("line {number}")), on_error)?;
                failed += 1;
            }
        }
    }
    if runner.session.rollback().is_ok() {
        return Err(anyhow!("the input ended inside a transaction, which was rolled back"));
    }
    match failed {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} statements failed")),
    }
}

/// Deals with a statement that failed: whatever transaction it was meant for must not commit without it.
fn tell_or_stop(runner: &mut Runner, error: anyhow::Error, on_error: OnError) -> Result<()> {
    runner.session.mark_broken();
    let must_stop = is_broken_pipe(&error) || error.chain().any(|cause| cause.is::<Interrupted>());
    match on_error {
        OnError::KeepGoing if !must_stop => Ok(report(&error, &mut stderr())?),
        _ => Err(error),
    }
}
