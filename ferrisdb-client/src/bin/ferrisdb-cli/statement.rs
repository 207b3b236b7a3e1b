//! What a line of the shell can say: every command, and what only a shell can do.

use clap::Parser;

use crate::{command::Command, output::OutputFormat};

/// A line of the shell.
#[derive(Debug, Parser)]
#[command(
    name = "ferrisdb",
    no_binary_name = true,
    disable_version_flag = true,
    help_template = "{subcommands}\n\n{after-help}",
    after_help = "\
help COMMAND tells more about one.
Keys and values are typed and printed in escaped form: \\xNN, \\\\, \\t, \\n, \\r, \\0.
Words with spaces go into \"...\" or '...'; a key that begins with - is typed as \\x2d...
Tab completes commands, options and keys. Ctrl-C cancels, Ctrl-D leaves."
)]
pub(crate) struct Line {
    /// How data is written
    #[arg(long, value_enum, global = true)]
    pub(crate) output: Option<OutputFormat>,
    #[command(subcommand)]
    pub(crate) statement: Statement,
}

/// What a line says.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Statement {
    #[command(flatten)]
    Command(Command),
    /// Begin a transaction: what follows waits in it, and sees its own writes
    Begin,
    /// Commit the transaction
    Commit,
    /// Forget the transaction
    Rollback,
    /// Leave the shell
    #[command(visible_alias = "quit")]
    Exit,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(crate::words::split(line).unwrap())
    }

    #[test]
    fn the_grammar_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn values_may_begin_with_a_hyphen_and_be_empty() {
        for line in [
            "set k -v",
            "set k -- --",
            "set k ''",
            "set '' v",
            "add k -5",
            "get \\x2dk",
            "get -- -k",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_line_that_makes_no_sense_is_an_error() {
        for line in [
            "gett k",
            "get",
            "set k",
            "get \\q",
            "add k five",
            "range --limit 0",
            "range a b c",
            "range a --prefix b",
            "export f --prefix a --begin b",
            "import f --batch-bytes 9000000",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_is_found_for_the_shell_and_each_command() {
        for line in ["help", "help get", "help begin", "get --help"] {
            assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::DisplayHelp, "{line}");
        }
    }
}
