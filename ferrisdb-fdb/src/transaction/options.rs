//! Options of a transaction: which of them are the client's, and which errors show up at once.

use ferrisdb_client::TransactionOption;
use ferrisdb_core::limits;

use super::Transaction;
use crate::{
    errors::{self, Code},
    options::{self, TransactionSetting},
    promise::Promise,
};

/// Most tags of a transaction.
const TAGS_MAX: usize = 5;

impl<P: Promise> Transaction<P> {
    /// Sets an option.
    ///
    /// # Errors
    ///
    /// `invalid_option`, and `invalid_option_value` for a timeout. What is wrong with another value, or with the state of the
    /// transaction, shows up later.
    pub fn set_option(&self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        match self.set_checked_option(option, value) {
            Err(code) if options::shows_up_later(option, code) => {
                self.defer(code);
                Ok(())
            }
            result => result,
        }
    }

    fn set_checked_option(&self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        match options::of_transaction(option, value)? {
            TransactionSetting::Client(TransactionOption::SizeLimit(bytes))
                if !(32..=limits::TRANSACTION_BYTES_MAX).contains(&bytes) =>
            {
                return Err(errors::INVALID_OPTION_VALUE);
            }
            TransactionSetting::Client(option) => {
                let Ok(client) = &self.client else { return Ok(()) };
                if option == TransactionOption::NextWriteWithoutConflict {
                    self.state.lock().written.without_conflict();
                }
                // Of a transaction that has ended or was cancelled options do not matter: it has to be reset first.
                if let Err(error) = client.set_option(option)
                    && options::is_about_value(&error)
                {
                    self.defer(errors::CLIENT_INVALID_OPERATION);
                }
            }
            TransactionSetting::UsedDuringCommitUnprotected => {
                self.state.lock().defaults.is_commit_unprotected = true;
            }
            TransactionSetting::SpecialKeyWrites => {
                self.state.lock().may_write_special_keys = true;
            }
            TransactionSetting::Tag(tag) => {
                let mut state = self.state.lock();
                if !state.tags.contains(&tag) {
                    if state.tags.len() >= TAGS_MAX {
                        return Err(errors::TOO_MANY_TAGS);
                    }
                    state.tags.push(tag);
                }
            }
            TransactionSetting::Ignored => {}
        }
        Ok(())
    }

    pub(super) fn apply_defaults(&self) {
        self.state.lock().defaults = self.database.defaults();
    }
}
