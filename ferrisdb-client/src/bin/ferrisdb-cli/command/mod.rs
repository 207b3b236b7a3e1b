//! The commands, a file each: `get.rs` holds the arguments of `get` and what it does.
//!
//! A command is a function of a [`Session`] (a database, or the transaction open in it), its arguments and an
//! [`Output`]. It does not know whether it was typed into the shell, read from a script or given on the
//! command line.

mod add;
mod clear;
mod clear_range;
mod export;
mod get;
mod import;
mod range;
mod set;
mod status;

use anyhow::Result;
use clap::Subcommand;
use ferrisdb_client::{Key, KeyRange, Value};
use ferrisdb_core::key::unescape;

use crate::{output::Output, session::Session};

/// What can be asked for, in the shell and on the command line.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value of a key
    Get(get::Args),
    /// Set a key to a value
    Set(set::Args),
    /// Clear a key
    Clear(clear::Args),
    /// Clear all keys of a range
    ClearRange(clear_range::Args),
    /// Print the keys and values of a range
    Range(range::Args),
    /// Add a number to a key's value, as an atomic operation
    Add(add::Args),
    /// Show how the cluster is, and what to do if it is not well
    Status(status::Args),
    /// Load records from a file
    Import(import::Args),
    /// Save records to a file, all as of one moment
    Export(export::Args),
}

impl Command {
    /// Does it.
    pub(crate) async fn run(&self, session: &Session, output: &mut Output<'_>) -> Result<()> {
        match self {
            Command::Get(args) => get::run(session, args, output).await,
            Command::Set(args) => set::run(session, args, output).await,
            Command::Clear(args) => clear::run(session, args, output).await,
            Command::ClearRange(args) => clear_range::run(session, args, output).await,
            Command::Range(args) => range::run(session, args, output).await,
            Command::Add(args) => add::run(session, args, output).await,
            Command::Status(args) => status::run(session, args, output).await,
            Command::Import(args) => import::run(session, args, output).await,
            Command::Export(args) => export::run(session, args, output).await,
        }
    }

    /// Whether it changes the database.
    pub(crate) fn is_write(&self) -> bool {
        match self {
            Command::Set(_)
            | Command::Clear(_)
            | Command::ClearRange(_)
            | Command::Add(_)
            | Command::Import(_) => true,
            Command::Get(_) | Command::Range(_) | Command::Status(_) | Command::Export(_) => false,
        }
    }

    /// Whether it takes as long as its data is, so that only its single steps can have a time limit.
    pub(crate) fn is_long(&self) -> bool {
        match self {
            Command::Range(_) | Command::Import(_) | Command::Export(_) => true,
            Command::Get(_)
            | Command::Set(_)
            | Command::Clear(_)
            | Command::ClearRange(_)
            | Command::Add(_)
            | Command::Status(_) => false,
        }
    }
}

/// Parses a key in its escaped form.
fn key(text: &str) -> Result<Key, String> {
    unescape(text).map(Key::from).map_err(|error| error.to_string())
}

/// Parses a value in its escaped form.
fn value(text: &str) -> Result<Value, String> {
    unescape(text).map(Value::from).map_err(|error| error.to_string())
}

/// The range that optional ends or a prefix ask for; without any, all of the user's keys.
fn range_of(begin: Option<&Key>, end: Option<&Key>, prefix: Option<&Key>) -> KeyRange {
    match prefix {
        Some(prefix) if prefix.is_empty() => KeyRange::all_user_keys(),
        Some(prefix) => KeyRange::prefix(prefix),
        None => KeyRange {
            begin: begin.cloned().unwrap_or(Key::MIN),
            end: end.cloned().unwrap_or(Key::USER_END),
        },
    }
}
