//! Scripts that test a machine: commands, and what they print, in one text file.
//!
//! ```text
//!   # A lock outlives a restart.
//!   lock gen=4
//!   restart
//!   ---
//!   locked gen=4 durable=20
//!   restarted
//!
//!   push gen=3 previous=20 version=30
//!   ---
//!   refused: generation 3 is locked by 4
//! ```
//!
//! A block is comments and commands, a line of `---`, and the output of those commands together; an empty
//! line ends it. A machine keeps its state from block to block. A command is a word and its arguments:
//! [`run`] passes it to a function of the test, which answers with what it prints: any number of lines.
//!
//! `UPDATE_SCRIPTS=1 cargo nextest run ...` writes the output of this run into the files, to be read in
//! review like code. Empty lines of an output would end its block, so they are written as `.`.
//!
//! Start with [`run`].

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The arguments of a command: `name=value` pairs and bare words, in the order of the script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    words: Vec<String>,
}

impl Args {
    /// All arguments, as written.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// The arguments that are not pairs.
    pub(crate) fn bare(&self) -> impl Iterator<Item = &str> {
        self.words().filter(|word| !word.contains('='))
    }

    /// The pairs, for commands whose names are data: `push a=1 b=2`.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.words().filter_map(|word| word.split_once('='))
    }

    /// The value of `name=value`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The number of `name=value`. Panics if it is missing or no number: the script is wrong.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.number_or_none(name).unwrap_or_else(|| panic!("{name}=<number> in {:?}", self.words))
    }

    /// The number of `name=value`, if it is there. Panics if the value is no number.
    pub(crate) fn number_or_none(&self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
    }
}

/// Runs a script. `path` begins at the crate's root, as in `src/log/testscripts/lock_survives_restart`.
///
/// # Panics
///
/// Panics if the output differs from the file's, unless `UPDATE_SCRIPTS` is set.
pub(crate) fn run(path: &str, execute: impl FnMut(&str, &Args) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let actual = replay(&text, execute);
    if actual == text {
        return;
    }
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        fs::write(&path, actual).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    } else {
        panic!("{}", difference(&path, &text, &actual));
    }
}

/// The scripts of a directory, by name: for a test that every file in it is run.
pub(crate) fn names(directory: &str) -> Vec<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().expect("names are plain text"))
        .collect();
    names.sort();
    names
}

/// The script with the output that its commands print now.
fn replay(text: &str, mut execute: impl FnMut(&str, &Args) -> String) -> String {
    let mut replayed = String::new();
    for block in text.split("\n\n").map(|block| block.trim_matches('\n')) {
        if block.is_empty() {
            continue;
        }
        if !replayed.is_empty() {
            replayed.push('\n');
        }
        let mut output = String::new();
        let mut commands = 0;
        for line in block.lines().take_while(|line| *line != "---") {
            writeln!(replayed, "{line}").unwrap();
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            commands += 1;
            let mut words = line.split_whitespace().map(str::to_owned);
            let command = words.next().expect("the line is not empty");
            let printed = execute(&command, &Args { words: words.collect() });
            if !printed.is_empty() {
                output.push_str(printed.trim_end_matches('\n'));
                output.push('\n');
            }
        }
        // A block of nothing but comments is the script's own essay.
        if commands > 0 {
            replayed.push_str("---\n");
            for line in output.lines() {
                writeln!(replayed, "{}", if line.trim().is_empty() { "." } else { line }).unwrap();
            }
        }
    }
    replayed
}

/// Where two texts part ways, with the lines before it.
fn difference(path: &Path, expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<_>, Vec<_>) =
        (expected.lines().collect(), actual.lines().collect());
    let at = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    let line =
        |lines: &[&str]| lines.get(at).map_or("the end".to_owned(), |line| format!("{line:?}"));
    format!(
        "{}:{}: the script says\n    {}\nbut it was\n    {}\nall of it:\n{}\n(UPDATE_SCRIPTS=1 accepts this)",
        path.display(),
        at + 1,
        line(&expected),
        line(&actual),
        actual.join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(command: &str, args: &Args) -> String {
        match command {
            "sum" => args.pairs().map(|(_, n)| n.parse::<u64>().unwrap()).sum::<u64>().to_string(),
            "echo" => args.bare().collect::<Vec<_>>().join("\n\n"),
            _ => String::new(),
        }
    }

    #[test]
    fn output_is_replaced_and_the_rest_is_kept() {
        let text = "# Sums.\nsum a=1 b=2\n---\nwrong\n\n\n# An essay.\n\nnothing\necho x y\n---\n";
        let replayed = replay(text, sum);
        assert_eq!(
            replayed,
            "# Sums.\nsum a=1 b=2\n---\n3\n\n# An essay.\n\nnothing\necho x y\n---\nx\n.\ny\n"
        );
        assert_eq!(replay(&replayed, sum), replayed);
    }

    #[test]
    fn a_difference_names_the_line() {
        let text = difference(Path::new("script"), "a\nb\n", "a\nc\n");
        assert!(text.starts_with("script:2:"), "{text}");
    }
}
