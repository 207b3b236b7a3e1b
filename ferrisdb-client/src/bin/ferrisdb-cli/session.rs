//! A database, and perhaps a transaction that stays open between commands.
//!
//! ```text
//!   get a        no transaction open: reads in a transaction of its own, retried as needed
//!   begin        opens one
//!   set a 1      waits in it
//!   get a        sees 1; nobody else does
//!   commit       all or nothing, at one version
//! ```
//!
//! Inside `begin ... commit` nothing is retried: a conflict is told to the person (or the script) that knows
//! which statements to repeat. A script in which a statement failed cannot commit the rest of its transaction.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use ferrisdb_client::{Committed, Database, Error, ErrorCode, Transaction, TransactionOption};

use crate::output::{Failure, Output};

/// What commands work on.
pub(crate) struct Session {
    database: Database,
    limit: Duration,
    open: Option<Open>,
}

struct Open {
    transaction: Transaction,
    /// Whether a statement failed that the transaction was meant to contain.
    broken: bool,
}

impl Session {
    /// A session without an open transaction.
    pub(crate) fn new(database: Database, limit: Duration) -> Session {
        Session { database, limit, open: None }
    }

    /// How long a statement may take; of a long one, each of its transactions.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// The database, whatever transaction is open.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The transaction between `begin` and `commit`.
    pub(crate) fn open_transaction(&self) -> Option<Transaction> {
        self.open.as_ref().map(|open| open.transaction.clone())
    }

    /// Refuses a command that makes transactions of its own while one is open: its place in it would be unclear.
    pub(crate) fn no_open_transaction(&self, command: &str) -> Result<(), Failure> {
        match self.open {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                format!("{command} makes transactions of its own, and one is open"),
                "commit or rollback comes first",
            )),
        }
    }

    /// Reads in the open transaction, or in one of its own.
    pub(crate) async fn read<T, Reading>(
        &self,
        body: impl Fn(Transaction) -> Reading,
    ) -> Result<T, Error>
    where
        Reading: Future<Output = Result<T, Error>>,
    {
        match self.open_transaction() {
            Some(transaction) => body(transaction).await,
            None => self.database.run_transaction(body).await,
        }
    }

    /// Writes in the open transaction, then `None`; or in one of its own, then how that was committed.
    pub(crate) async fn write(
        &self,
        body: impl Fn(&Transaction) -> Result<(), Error>,
    ) -> Result<Option<Committed>, Error> {
        if let Some(transaction) = self.open_transaction() {
            body(&transaction)?;
            return Ok(None);
        }
        let written = self.database.run_transaction(|transaction| {
            let done = body(&transaction);
            async move { done.map(|()| transaction) }
        });
        Ok(written.await?.committed())
    }

    /// `begin`.
    pub(crate) fn begin(&mut self) -> Result<()> {
        if self.open.is_some() {
            bail!(Failure::new("a transaction is open already", "commit or rollback comes first"));
        }
        let transaction = self.database.transaction();
        transaction.set_option(TransactionOption::ReportConflicts)?;
        self.open = Some(Open { transaction, broken: false });
        Ok(())
    }

    /// `commit`. Whatever comes of it, no transaction is open afterwards.
    pub(crate) async fn commit(&mut self, output: &mut Output<'_>) -> Result<()> {
        let open = self.take_open()?;
        if open.broken {
            bail!(Failure::new(
                "nothing was committed: a statement of the transaction had failed",
                "mend the statement and run the transaction again",
            ));
        }
        let committed = open.transaction.commit().await;
        let committed = committed.map_err(|error| not_committed(error, &open.transaction))?;
        if output.interactive && committed.versionstamp.is_none() {
            output.note("committed; there was nothing to write")?;
            return Ok(());
        }
        Ok(output.committed(Some(committed))?)
    }

    /// `rollback`.
    pub(crate) fn rollback(&mut self) -> Result<()> {
        self.take_open()?.transaction.cancel();
        Ok(())
    }

    /// A statement failed: if a transaction is open, it cannot be committed any more.
    pub(crate) fn mark_broken(&mut self) {
        if let Some(open) = &mut self.open {
            open.broken = true;
        }
    }

    fn take_open(&mut self) -> Result<Open> {
        self.open
            .take()
            .ok_or_else(|| Failure::new("no transaction is open", "begin opens one").into())
    }
}

/// What a failed commit means for the one who typed the transaction.
fn not_committed(error: Error, transaction: &Transaction) -> anyhow::Error {
    let failure = match error.code() {
        ErrorCode::NotCommitted => {
            let ranges = transaction.conflicting_ranges();
            let ranges: Vec<String> = ranges
                .iter()
                .map(|conflict| match conflict.range.is_single_key() {
                    true => conflict.range.begin.to_string(),
                    false => conflict.range.to_string(),
                })
                .collect();
            let read = match ranges.is_empty() {
                true => String::from("what this transaction read"),
                false => format!("what this transaction read ({})", ranges.join(", ")),
            };
            Failure::new(
                format!("nothing was committed: another transaction wrote {read}"),
                "run the statements again, from begin on",
            )
        }
        ErrorCode::TransactionTooOld => Failure::new(
            "nothing was committed: the transaction was open for too long",
            "run the statements again, from begin on, within five seconds",
        ),
        _ if error.is_maybe_committed() => Failure::new(
            "the transaction may or may not have been committed",
            "look whether its writes are there before you run it again",
        ),
        _ => Failure::new("nothing was committed", error.hint()),
    };
    anyhow::Error::from(error).context(failure)
}
