//! The options of a database handle: what its transactions begin with, before and after there is a client.

use ferrisdb_client::{Database as Client, Settings, TransactionOption};
use parking_lot::Mutex;

use crate::{
    errors::{self, Code},
    options::{self, DatabaseSetting, TransactionSetting},
};

/// The options of a handle, and its client once it was opened.
#[derive(Debug, Default)]
pub struct DatabaseOptions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<Client>,
    watches_max: Option<usize>,
    /// What the client's transactions begin with, in the order in which it was set.
    client_defaults: Vec<TransactionOption>,
    defaults: Defaults,
}

/// What transactions begin with that only this interface knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// See [`TransactionSetting::UsedDuringCommitUnprotected`].
    pub is_commit_unprotected: bool,
}

impl DatabaseOptions {
    /// The client. The first time `open` makes it, of `settings` with what was set here.
    ///
    /// # Errors
    ///
    /// Those of `open`.
    pub fn client(
        &self,
        mut settings: Settings,
        open: impl FnOnce(Settings) -> Result<Client, Code>,
    ) -> Result<Client, Code> {
        let mut state = self.state.lock();
        if let Some(client) = &state.client {
            return Ok(client.clone());
        }
        if let Some(watches_max) = state.watches_max {
            settings.watches_max = watches_max;
        }
        for default in &state.client_defaults {
            // It was checked when it was set.
            settings.defaults.set(default.clone()).map_err(|error| errors::number_of(&error))?;
        }
        let client = open(settings)?;
        // Programs of FoundationDB hear of a transaction that is too large from its commit.
        let at_commit = client.set_default(TransactionOption::SizeCheckedAtCommit);
        at_commit.map_err(|error| errors::number_of(&error))?;
        // And of a read that has failed, too, whether or not they have looked at it.
        let with_reads = client.set_default(TransactionOption::FailedReadsFailCommit);
        with_reads.map_err(|error| errors::number_of(&error))?;
        state.client = Some(client.clone());
        Ok(client)
    }

    /// What transactions begin with.
    pub fn defaults(&self) -> Defaults {
        self.state.lock().defaults
    }

    /// Sets an option.
    ///
    /// # Errors
    ///
    /// `invalid_option`, `invalid_option_value`.
    pub fn set_option(&self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        let setting = options::of_database(option, value)?;
        let mut state = self.state.lock();
        let invalid = |_| errors::INVALID_OPTION_VALUE;
        match setting {
            DatabaseSetting::WatchesMax(max) if max > ferrisdb_core::limits::WATCHES_MAX => {
                return Err(errors::INVALID_OPTION_VALUE);
            }
            DatabaseSetting::WatchesMax(max) => {
                state.watches_max = Some(max);
                if let Some(client) = &state.client {
                    client.set_watches_max(max).map_err(invalid)?;
                }
            }
            DatabaseSetting::Default(TransactionSetting::Client(default)) => {
                let mut check = ferrisdb_client::TransactionOptions::default();
                check.set(default.clone()).map_err(invalid)?;
                if let Some(client) = &state.client {
                    client.set_default(default.clone()).map_err(invalid)?;
                }
                state.client_defaults.push(default);
            }
            DatabaseSetting::Default(TransactionSetting::UsedDuringCommitUnprotected) => {
                state.defaults.is_commit_unprotected = true;
            }
            DatabaseSetting::Default(_) | DatabaseSetting::Ignored => {}
        }
        Ok(())
    }
}
