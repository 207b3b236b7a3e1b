//! What can be wrong with settings: always which one, where it was set, and what would be legal.

use std::path::PathBuf;

use ferrisdb_core::{Error, ErrorCode, Stage};

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A flag or a variable of the environment; the text names it and its legal values.
    #[error("{}", .0.render().to_string().trim_start_matches("error: ").trim_end())]
    CommandLine(Box<clap::Error>),

    /// The file cannot be read.
    #[error("cannot read the settings file {}: {error}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },

    /// The file is not TOML.
    #[error("the settings file {} is not TOML: {detail}", file.display())]
    NotToml {
        /// The file.
        file: PathBuf,
        /// Where and why.
        detail: String,
    },

    /// The file has a key that is no setting of this binary.
    #[error("the settings file {} has a key {key:?} that {binary} does not know; its settings are {known}", file.display())]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Whose settings they were meant to be.
        binary: &'static str,
        /// All that would be known.
        known: String,
    },

    /// The file has a value that its setting does not take.
    #[error("the settings file {} has a bad value for {key:?}: {detail}", file.display())]
    BadValue {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it and what would be legal.
        detail: String,
    },

    /// Settings that are legal each for itself, but not together.
    #[error("settings contradict each other: {0}")]
    Contradiction(String),
}

impl From<clap::Error> for SettingsError {
    fn from(error: clap::Error) -> SettingsError {
        SettingsError::CommandLine(Box::new(error))
    }
}

impl SettingsError {
    /// The public error. Not a `From`: that would make the error type of every `?` in dependent crates ambiguous.
    pub fn into_error(self) -> Error {
        Error::new(ErrorCode::InvalidArgument, Stage::Process, self.to_string())
    }
}
