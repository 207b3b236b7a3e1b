//! Options of a transaction: which may be set when. What they mean: see [`crate::options`].

use super::*;

/// Options.
impl Transaction {
    /// Sets an option.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// # let transaction = database.transaction();
    /// use ferrisdb_client::TransactionOption;
    /// transaction.set_option(TransactionOption::Timeout(std::time::Duration::from_secs(3)))?;
    /// transaction.set_option(TransactionOption::RetryLimit(Some(10)))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] if the option does not take the value, or not at this point.
    pub fn set_option(&self, option: TransactionOption) -> Result<()> {
        let mut state = match option {
            // What governs the transaction as a whole may change while it is committed, and the commit follows.
            TransactionOption::Timeout(_)
            | TransactionOption::RetryLimit(_)
            | TransactionOption::RetryDelayMax(_) => self.not_cancelled()?,
            _ => self.open()?,
        };
        // A read version alone is no operation yet.
        if option == TransactionOption::ReadYourWritesDisabled && state.work.is_begun() {
            let detail = "reads can be turned away from own writes before the first operation only";
            return Err(Error::new(ErrorCode::InvalidArgument, Stage::Client, detail));
        }
        let is_in_doubt = state.fate != Fate::Closed && state.options.idempotency_id.is_some();
        if is_in_doubt && matches!(option, TransactionOption::IdempotencyId(_)) {
            // By its id the attempt before is found out.
            return Ok(());
        }
        state.options.set(option)?;
        // It may have been the timeout.
        let deadline = state.deadline();
        state.timer.set(deadline);
        state.work.watches.iter().for_each(|watch| watch.set_deadline(deadline));
        Ok(())
    }

    pub(crate) fn reads_special_keys_relaxed(&self) -> bool {
        self.shared.state.lock().options.special_keys_relaxed
    }
}
