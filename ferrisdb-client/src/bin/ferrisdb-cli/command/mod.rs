//! The commands, a file each: `get.rs` holds the arguments of `get` and what it does.
//!
//! A command is a function of a [`Session`] (a database, or the transaction open in it), its arguments and an
//! [`Output`]. It does not know whether it was typed into the shell, read from a script or given on the
//! command line.

mod add;
mod check;
mod clear;
mod clear_range;
mod configure;
mod controllers;
mod exclude;
mod export;
mod get;
mod import;
mod include;
pub(crate) mod metrics;
mod range;
mod set;
pub(crate) mod status;
mod waiting;

use anyhow::Result;
use clap::Subcommand;
use ferrisdb_client::{Error, ErrorCode, Key, KeyRange, ProcessSelector, Value};
use ferrisdb_core::key::unescape;

use crate::{
    output::{Failure, Output},
    session::Session,
};

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
    #[command(long_about = status::HELP)]
    Status(status::Args),
    /// Show where the time goes: what every role counts and measures
    #[command(long_about = metrics::HELP)]
    Metrics(metrics::Args),
    /// Change the shape of the cluster: copies, logs, proxies, resolvers
    #[command(long_about = configure::HELP)]
    Configure(configure::Args),
    /// Empty processes, so that they can be stopped for good
    #[command(long_about = exclude::HELP)]
    Exclude(exclude::Args),
    /// Take excluded processes back
    #[command(long_about = include::HELP)]
    Include(include::Args),
    /// List, add and remove controllers
    #[command(long_about = controllers::HELP)]
    Controllers(controllers::Args),
    /// Compare all replicas of the data, byte for byte
    #[command(long_about = check::HELP)]
    Check(check::Args),
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
            Command::Metrics(args) => metrics::run(session, args, output).await,
            Command::Configure(args) => configure::run(session, args, output).await,
            Command::Exclude(args) => exclude::run(session, args, output).await,
            Command::Include(args) => include::run(session, args, output).await,
            Command::Controllers(args) => controllers::run(session, args, output).await,
            Command::Check(args) => check::run(session, args, output).await,
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
            // What operators ask for changes the cluster, and says itself what may have become of it.
            Command::Configure(_)
            | Command::Exclude(_)
            | Command::Include(_)
            | Command::Controllers(_)
            | Command::Check(_) => false,
            Command::Get(_)
            | Command::Range(_)
            | Command::Status(_)
            | Command::Metrics(_)
            | Command::Export(_) => false,
        }
    }

    /// Whether it takes as long as its data is, so that only its single steps can have a time limit.
    pub(crate) fn is_long(&self) -> bool {
        match self {
            Command::Range(_) | Command::Import(_) | Command::Export(_) | Command::Check(_) => true,
            // They have limits of their own, and may be told to wait.
            Command::Metrics(_)
            | Command::Configure(_)
            | Command::Exclude(_)
            | Command::Include(_)
            | Command::Controllers(_) => true,
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

/// Parses what names a process: `host:port`, or its id as the status shows it.
fn process(text: &str) -> Result<ProcessSelector, String> {
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.parse() {
        Ok(process) if is_id => Ok(ProcessSelector::Process(process)),
        _ => crate::connect::address(text).map(ProcessSelector::Address).map_err(|_| {
            String::from(
                "expected host:port, or the 32 hexadecimal digits of a process (see status)",
            )
        }),
    }
}

/// A command to the controllers that failed: whether anything may have come of it.
fn not_answered(error: Error) -> anyhow::Error {
    let is_unknown = error.code() == ErrorCode::TimedOut;
    let error = anyhow::Error::from(error);
    match is_unknown {
        false => error,
        true => error.context(Failure::new(
            "the controllers may or may not have taken the command",
            "give it again: twice does no harm; status shows what is in force",
        )),
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Address;
    use ferrisdb_core::id::ProcessId;

    use super::*;

    #[test]
    fn processes_are_named_by_address_or_id() {
        let id = ProcessId(0xa7);
        assert_eq!(process(&id.to_string()), Ok(ProcessSelector::Process(id)));
        let address = ProcessSelector::Address(Address::new("[::1]:4500"));
        assert_eq!(process("[::1]:4500"), Ok(address));
        for wrong in ["", "a7", "host", "10.0.0.7"] {
            assert!(process(wrong).is_err(), "{wrong}");
        }
    }
}
