//! Stacking the layers: defaults, file, environment, flags.
//!
//! clap knows three of the four layers. The file becomes its layer of defaults: a key of the file replaces
//! the default of the setting with that name, so precedence, parsing and legal values stay in one place.
//! Each value of the file is first parsed alone, so that an error can name the file and the key.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches, parser::ValueSource};
use config::{File, FileFormat, Source as _, Value, ValueKind};

use super::{Role, RuntimeConfig, SettingsError};

/// What the command line asks for.
#[derive(Debug)]
pub enum Load<R> {
    /// To run with these settings.
    Run(Box<Loaded<R>>),
    /// To print this on the standard output, and end: help, the version, or the settings.
    Print(String),
}

/// All settings of a process.
#[derive(Debug)]
pub struct Loaded<R> {
    /// Those of its role.
    pub role: R,
    /// Those of the process around it.
    pub runtime: RuntimeConfig,
}

/// Where the settings come from and what to do with them: not settings themselves.
#[derive(clap::Args)]
struct Layers {
    /// File with settings, in TOML.
    ///
    /// Its keys are the names of the flags with underscores, as --print-config shows them. A key that is no
    /// setting is an error. Flags and the environment win over the file.
    #[arg(long, env = "FERRISDB_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the settings in effect, as a file for --config, and exit.
    #[arg(long)]
    print_config: bool,
}

/// The command line of a role's binary.
pub fn command<R: Role>() -> Command {
    let mut command = Command::new(R::BINARY)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(format!("Example:\n{}", R::EXAMPLE))
        .after_long_help(format!(
            "Every setting can be given as a flag, as a variable of the environment, or in a file (see \
             --config); a flag wins over the environment, and that over the file.\n\nExample:\n{}",
            R::EXAMPLE
        ));
    command = R::augment_args(command);
    command = RuntimeConfig::augment_args(command.next_help_heading("Process"));
    command = Layers::augment_args(command);
    // Last: a group of arguments brings its own description along as that of the command.
    command = command.about(R::ABOUT).long_about(R::ABOUT);
    let default = |arg: &Arg| R::DEFAULTS.iter().find(|(id, _)| arg.get_id() == id);
    command.mut_args(|arg| match default(&arg) {
        Some((_, value)) => arg.default_value(value),
        None => arg,
    })
}

/// The settings among a command's arguments.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    let other = ["config", "print_config", "force_new_quorum", "help", "version"];
    command.get_arguments().filter(move |arg| !other.contains(&arg.get_id().as_str()))
}

/// Reads all layers. `arguments` begin with the program's name, as [`std::env::args_os`].
///
/// # Errors
///
/// Names the setting, where it was set, and what would be legal.
pub fn load<R: Role>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Load<R>, SettingsError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = command::<R>();
    // Each parse builds a command for good, so each gets one of its own.
    let mut matches = match command.clone().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Ok(Load::Print(error.render().to_string())),
        Err(error) => return Err(error.into()),
    };
    let file = matches.get_one::<PathBuf>("config").cloned();
    let mut keys_in_file = BTreeMap::new();
    if let Some(file) = &file {
        keys_in_file = read_file::<R>(file, &command)?;
        command = command.mut_args(|arg| match keys_in_file.get(arg.get_id().as_str()) {
            Some(values) => arg.default_values(values),
            None => arg,
        });
        matches = command.clone().try_get_matches_from(&arguments)?;
    }
    let role = R::from_arg_matches(&matches)?;
    role.check()?;
    if matches.get_flag("print_config") {
        return Ok(Load::Print(print::<R>(&command, &matches, &keys_in_file)));
    }
    let runtime = RuntimeConfig::from_arg_matches(&matches)?;
    Ok(Load::Run(Box::new(Loaded { role, runtime })))
}

/// A role's settings where nothing is set, not even in the environment.
pub(super) fn defaults<R: Role>() -> R {
    let command = command::<R>().mut_args(|arg| arg.env(None::<&'static str>));
    let parsed =
        command.try_get_matches_from([R::BINARY]).and_then(|matches| R::from_arg_matches(&matches));
    parsed.unwrap_or_else(|error| panic!("a default is not legal: {error}"))
}

/// The settings of a file, each as the texts that a flag would have been given, all of them legal.
fn read_file<R: Role>(
    path: &Path,
    command: &Command,
) -> Result<BTreeMap<String, Vec<String>>, SettingsError> {
    let file = path.to_owned();
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::Unreadable { file: file.clone(), error })?;
    let table = File::from_str(&text, FileFormat::Toml).collect().map_err(|error| {
        SettingsError::NotToml { file: file.clone(), detail: error.to_string() }
    })?;
    // In the order of the keys: which of two errors is reported must not depend on a hash.
    let table: BTreeMap<String, Value> = table.into_iter().collect();
    let mut layer = BTreeMap::new();
    for (key, value) in table {
        let Some(setting) = settings(command).find(|arg| arg.get_id() == key.as_str()) else {
            let known: Vec<&str> = settings(command).map(|arg| arg.get_id().as_str()).collect();
            let known = known.join(", ");
            return Err(SettingsError::UnknownKey { file, key, binary: R::BINARY, known });
        };
        let values = texts(setting, value.kind)
            .and_then(|values| check_alone::<R>(setting, &values).map(|()| values))
            .map_err(|detail| SettingsError::BadValue {
                file: file.clone(),
                key: key.clone(),
                detail,
            })?;
        layer.insert(key, values);
    }
    Ok(layer)
}

/// A value of a file as texts: one, or as many as a list has.
fn texts(setting: &Arg, value: ValueKind) -> Result<Vec<String>, String> {
    let is_list = setting.get_value_delimiter().is_some();
    match value {
        ValueKind::Array(elements) if is_list => {
            let texts: Result<Vec<Vec<String>>, String> =
                elements.into_iter().map(|element| texts(setting, element.kind)).collect();
            let texts: Vec<String> = texts?.concat();
            // As a default the text will be split at commas again.
            match texts.iter().find(|text| text.contains(',')) {
                Some(text) => Err(format!(r"{text:?} has a comma: write it as \x2c")),
                None => Ok(texts),
            }
        }
        ValueKind::Array(_) => Err("a single value is expected, not a list".to_owned()),
        ValueKind::Table(_) => Err("a value is expected, not a table".to_owned()),
        scalar => Ok(vec![Value::new(None, scalar).to_string()]),
    }
}

/// Parses the values as if they were all that was set, and returns what is wrong with them.
fn check_alone<R: Role>(setting: &Arg, values: &[String]) -> Result<(), String> {
    if values.is_empty() {
        // An empty list is what a list without a default has anyway.
        let has_default = !setting.get_default_values().is_empty();
        return if has_default { Err("at least one is expected".to_owned()) } else { Ok(()) };
    }
    let flag = setting.get_long().unwrap_or_default();
    let argument = format!("--{flag}={}", values.join(","));
    let command = command::<R>().mut_args(|arg| arg.env(None::<&'static str>));
    match command.try_get_matches_from([R::BINARY, &argument]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.render().to_string();
            let lines = text.lines().take_while(|line| !line.is_empty());
            let text: Vec<&str> = lines.map(str::trim).collect();
            Err(text.join(" ").trim_start_matches("error: ").to_owned())
        }
    }
}

/// The settings in effect, as a file that sets them.
fn print<R: Role>(
    command: &Command,
    matches: &ArgMatches,
    keys_in_file: &BTreeMap<String, Vec<String>>,
) -> String {
    let mut text = format!("# The settings of {}, as they are in effect.\n", R::BINARY);
    for setting in settings(command) {
        let key = setting.get_id().as_str();
        if let Some(help) = setting.get_help() {
            let _ = write!(text, "\n# {help}\n");
        }
        let values: Vec<String> = matches
            .get_raw(key)
            .into_iter()
            .flatten()
            .map(|value| quote(&value.to_string_lossy()))
            .collect();
        let source = match matches.value_source(key) {
            Some(ValueSource::CommandLine) => "from a flag",
            Some(ValueSource::EnvVariable) => "from the environment",
            _ if keys_in_file.contains_key(key) => "from the file",
            _ => "by default",
        };
        let _ = match (setting.get_value_delimiter(), values.first()) {
            (Some(_), _) => writeln!(text, "{key} = [{}]  # {source}", values.join(", ")),
            (None, Some(value)) => writeln!(text, "{key} = {value}  # {source}"),
            (None, None) => writeln!(text, "# {key} is not set"),
        };
    }
    text
}

/// A value in TOML: a number as it is, anything else as a string.
fn quote(value: &str) -> String {
    if value.parse::<u32>().is_ok_and(|number| number.to_string() == value) {
        return value.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
