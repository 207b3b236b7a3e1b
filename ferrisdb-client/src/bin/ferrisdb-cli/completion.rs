//! What Tab and the grey text behind the cursor offer.
//!
//! ```text
//!   ra<Tab>            range
//!   range --li<Tab>    range --limit
//!   get user/<Tab>     the keys of the database that begin with user/
//!   set <KEY> <VALUE>  a hint: what the command wants
//! ```
//!
//! The grammar is asked of the parser itself, so that a new command is completed without a word here.

use std::{borrow::Cow, rc::Rc, time::Duration};

use clap::{Arg, CommandFactory as _};
use ferrisdb_client::{Database, KeyRange, RangeQuery, Stage};
use ferrisdb_core::{
    key::{escape, unescape},
    runtime,
};
use rustyline::{
    Context, Helper, Result,
    completion::{Completer, Pair},
    highlight::Highlighter,
    hint::{Hint, Hinter, HistoryHinter},
    validate::Validator,
};
use tokio::runtime::Runtime;

use crate::{statement::Line, words};

/// Keys offered at once.
const KEYS_MAX: usize = 100;
/// How long Tab may wait for the database.
const KEYS_LIMIT: Duration = Duration::from_secs(1);

/// The shell's assistant.
pub(crate) struct Assistant {
    grammar: clap::Command,
    history: HistoryHinter,
    database: Database,
    /// To ask the database from inside the line editor, which knows nothing of tasks.
    runtime: Rc<Runtime>,
    colors: bool,
}

impl Assistant {
    pub(crate) fn new(database: Database, runtime: Rc<Runtime>, colors: bool) -> Assistant {
        let mut grammar = Line::command();
        // Adds `help`, and to each command what it inherits.
        grammar.build();
        Assistant { grammar, history: HistoryHinter::new(), database, runtime, colors }
    }

    /// The keys that begin with an escaped text. None on trouble: Tab is no place for errors.
    fn keys(&self, text: &str) -> Vec<String> {
        let Ok(prefix) = unescape(text) else { return Vec::new() };
        let range = KeyRange::prefix(&prefix).intersection(&KeyRange::all_user_keys());
        let Some(range) = range else { return Vec::new() };
        let query = RangeQuery::new(range).rows(KEYS_MAX);
        let transaction = self.database.transaction();
        let rows = self.runtime.block_on(async {
            let snapshot = transaction.snapshot();
            runtime::timeout(KEYS_LIMIT, Stage::Client, snapshot.get_range(query)).await
        });
        let rows = rows.and_then(|rows| rows).unwrap_or_default();
        rows.iter().map(|row| escape(&row.key)).collect()
    }
}

/// What can stand at the cursor.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// One of these words.
    OneOf(Vec<String>),
    Key,
    Nothing,
}

/// What can stand behind `before`, when the word at the cursor begins with `begun`.
fn wanted(grammar: &clap::Command, before: &[String], begun: &str) -> Wanted {
    let commands = || grammar.get_subcommands().map(|command| command.get_name().to_owned());
    let Some((name, given)) = before.split_first() else {
        return Wanted::OneOf(commands().collect());
    };
    if name == "help" {
        return Wanted::OneOf(commands().collect());
    }
    let Some(command) = grammar.find_subcommand(name) else { return Wanted::Nothing };
    if begun.starts_with('-') {
        return Wanted::OneOf(options(command).map(|(name, _)| name).collect());
    }
    if command.has_subcommands() {
        // They are commands of their own, with the words behind them.
        return wanted(command, given, begun);
    }
    let mut positionals = command.get_positionals();
    let mut next = positionals.next();
    let mut value_of: Option<&Arg> = None;
    for word in given {
        if value_of.take().is_some() {
            continue;
        }
        match options(command).find(|(option, _)| option == word) {
            Some((_, option)) => value_of = Some(option).filter(|o| o.get_action().takes_values()),
            None => next = positionals.next(),
        }
    }
    let Some(argument) = value_of.or(next) else { return Wanted::Nothing };
    if matches!(argument.get_id().as_str(), "key" | "begin" | "end" | "prefix") {
        return Wanted::Key;
    }
    let values = argument.get_possible_values();
    match values.is_empty() {
        true => Wanted::Nothing,
        false => Wanted::OneOf(values.iter().map(|value| value.get_name().to_owned()).collect()),
    }
}

/// The options of a command, as they are typed.
fn options(command: &clap::Command) -> impl Iterator<Item = (String, &Arg)> {
    command.get_arguments().filter_map(|arg| Some((format!("--{}", arg.get_long()?), arg)))
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let (before, begin, begun) = words::split_at_cursor(&line[..pos]);
        let pairs = match wanted(&self.grammar, &before, &begun) {
            Wanted::OneOf(words) => words
                .into_iter()
                .filter(|word| word.starts_with(&begun))
                .map(|word| Pair { display: word.clone(), replacement: word + " " })
                .collect(),
            Wanted::Key => self
                .keys(&begun)
                .into_iter()
                .map(|key| Pair { replacement: words::quote(&key), display: key })
                .collect(),
            Wanted::Nothing => Vec::new(),
        };
        Ok((begin, pairs))
    }
}

/// Grey text behind the cursor.
pub(crate) struct Suggestion {
    text: String,
    /// Whether the right arrow takes it over: what was typed before, but not the name of an argument.
    can_be_taken: bool,
}

impl Hint for Suggestion {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.can_be_taken.then_some(self.text.as_str())
    }
}

impl Hinter for Assistant {
    type Hint = Suggestion;

    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<Suggestion> {
        if pos < line.len() {
            return None;
        }
        let (before, _, begun) = words::split_at_cursor(line);
        if let ([name], true) = (before.as_slice(), begun.is_empty()) {
            let text = arguments(self.grammar.find_subcommand(name)?);
            return (!text.is_empty()).then_some(Suggestion { text, can_be_taken: false });
        }
        let text = self.history.hint(line, pos, context)?;
        Some(Suggestion { text, can_be_taken: true })
    }
}

/// `<KEY> <VALUE>`.
fn arguments(command: &clap::Command) -> String {
    let shown: Vec<String> = command
        .get_positionals()
        .map(|argument| {
            let name = argument.get_id().as_str().to_uppercase();
            match argument.is_required_set() {
                true => format!("<{name}>"),
                false => format!("[{name}]"),
            }
        })
        .collect();
    shown.join(" ")
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        match self.colors {
            true => Cow::Owned(format!("\x1b[90m{hint}\x1b[0m")),
            false => Cow::Borrowed(hint),
        }
    }
}

impl Validator for Assistant {}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Wanted {
        let mut grammar = Line::command();
        grammar.build();
        let (before, _, begun) = words::split_at_cursor(line);
        wanted(&grammar, &before, &begun)
    }

    fn offers(line: &str, word: &str) -> bool {
        matches!(at(line), Wanted::OneOf(words) if words.iter().any(|offered| offered == word))
    }

    #[test]
    fn statements_come_first() {
        assert!(offers("", "get") && offers("ran", "range") && offers("", "commit"));
        assert!(offers("help ", "export"));
        assert_eq!(at("nonsense "), Wanted::Nothing);
    }

    #[test]
    fn keys_where_keys_are_wanted() {
        for line in
            ["get ", "get us", "set u", "range a ", "range --limit 5 ", "import f --prefix "]
        {
            assert_eq!(at(line), Wanted::Key, "{line}");
        }
        for line in ["set k ", "get k ", "range --limit ", "import "] {
            assert_eq!(at(line), Wanted::Nothing, "{line}");
        }
    }

    #[test]
    fn options_and_their_values() {
        assert!(offers("range --", "--reverse") && offers("range a -", "--limit"));
        assert!(offers("export f --format ", "jsonl"));
        assert!(offers("configure --", "--redundancy") && offers("exclude a:1 --", "--wait"));
        assert!(offers("controllers ", "add") && offers("controllers --", "--output"));
        assert_eq!(at("controllers add "), Wanted::Nothing);
    }

    #[test]
    fn arguments_are_shown_as_help_writes_them() {
        let grammar = Line::command();
        let shown = |name| arguments(grammar.find_subcommand(name).unwrap());
        assert_eq!(shown("set"), "<KEY> <VALUE>");
        assert_eq!(shown("range"), "[BEGIN] [END]");
        assert_eq!(shown("commit"), "");
    }
}
