//! What a command says, and where: data to standard output and nothing else, all other words to standard error.

use std::{
    fmt,
    io::{self, Write},
};

use ferrisdb_client::{Committed, Error, ErrorCode, find_error};

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// Escaped text; fields are separated by tabs
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Where a command writes to.
pub(crate) struct Output<'a> {
    /// What was asked for.
    pub(crate) data: &'a mut dyn Write,
    /// Everything else.
    pub(crate) notes: &'a mut dyn Write,
    pub(crate) format: OutputFormat,
    /// Whether somebody is there to be told that things went well.
    pub(crate) interactive: bool,
}

impl Output<'_> {
    /// Says something that is not data.
    pub(crate) fn note(&mut self, note: impl fmt::Display) -> io::Result<()> {
        writeln!(self.notes, "{note}")
    }

    /// Writes an object on a line.
    pub(crate) fn json(&mut self, object: &serde_json::Value) -> io::Result<()> {
        writeln!(self.data, "{object}")
    }

    /// Says how a write ended; `None` when it waits in an open transaction.
    pub(crate) fn committed(&mut self, committed: Option<Committed>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        match self.format {
            OutputFormat::Json => self.json(&serde_json::json!({
                "commit_version": committed.version.0,
                "versionstamp": committed.versionstamp.map(|stamp| stamp.to_string()),
            })),
            OutputFormat::Text if self.interactive => {
                self.note(format_args!("committed at version {}", committed.version))
            }
            OutputFormat::Text => Ok(()),
        }
    }
}

/// A failure of the command line's own making, with what to try.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Tells a person what failed, why, and what to try.
pub(crate) fn report(error: &anyhow::Error, notes: &mut dyn Write) -> io::Result<()> {
    let causes: Vec<String> = error
        .chain()
        .map(|cause| cause.downcast_ref::<Error>().map_or(cause.to_string(), without_hint))
        .collect();
    writeln!(notes, "error: {}", causes.join(": "))?;
    match hint_of(error) {
        Some(hint) => writeln!(notes, "hint: {hint}"),
        None => Ok(()),
    }
}

/// The hint of the outermost cause that has one. (A context is not in the chain as the type it is, hence the
/// first look at the error itself.)
fn hint_of(error: &anyhow::Error) -> Option<&str> {
    error
        .downcast_ref::<Failure>()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<Failure>()))
        .map(|failure| failure.hint.as_str())
        .or_else(|| error_code(error).map(ErrorCode::hint))
}

/// The code of the database's error inside.
pub(crate) fn error_code(error: &anyhow::Error) -> Option<ErrorCode> {
    find_error(error.as_ref()).map(Error::code)
}

/// The database's error as one sentence; its hint gets a line of its own.
fn without_hint(error: &Error) -> String {
    let mut text =
        format!("{} ({} {})", error.code().sentence(), error.code(), error.code().number());
    text.push_str(&format!(", {}", error.stage()));
    if let Some(server) = error.server() {
        text.push_str(&format!(" on {server}"));
    }
    if !error.detail().is_empty() {
        text.push_str(&format!(": {}", error.detail()));
    }
    text
}

/// Whether the reader of our output went away, as `head` does: nothing that deserves an error.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use ferrisdb_client::Stage;

    use super::*;

    fn reported(error: anyhow::Error) -> String {
        let mut notes = Vec::new();
        report(&error, &mut notes).unwrap();
        String::from_utf8(notes).unwrap()
    }

    #[test]
    fn the_hint_has_a_line_of_its_own() {
        let error = Error::new(ErrorCode::NotCommitted, Stage::Resolve, "batch 7").at("host:1");
        let text = reported(anyhow::Error::from(error).context("while writing"));
        assert_eq!(
            text,
            "error: while writing: the transaction conflicts with another one (not_committed 1020), \
             in the resolver on host:1: batch 7\nhint: retry the transaction\n"
        );
    }

    #[test]
    fn our_own_hint_wins_over_the_one_below() {
        let cause: Result<(), Error> =
            Err(Error::new(ErrorCode::TransactionTooOld, Stage::Read, ""));
        let error =
            cause.context(Failure::new("the export took too long", "export less")).unwrap_err();
        assert!(reported(error).ends_with("\nhint: export less\n"));
        assert_eq!(reported(anyhow::anyhow!("plain")), "error: plain\n");
    }

    #[test]
    fn a_closed_pipe_is_recognized_through_contexts() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&error.context("while writing")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("plain")));
    }
}
