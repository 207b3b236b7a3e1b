//! The whole database inside the process that uses it.

use std::path::Path;

use ferrisdb_core::Result;
use ferrisdb_server::host::Embedded;
use parking_lot::Mutex;

use crate::Database;

/// The roles behind a database that was opened, until it is closed.
#[derive(Default)]
pub(crate) struct Roles(Mutex<Option<Embedded>>);

impl Roles {
    /// Stops the roles, if there are any.
    pub(crate) async fn shut_down(&self) {
        let embedded = self.0.lock().take();
        if let Some(embedded) = embedded {
            embedded.shut_down().await;
        }
    }
}

impl Database {
    /// Opens the database in a directory, or creates it there. Only one process can have it open.
    ///
    /// Commits are on disk when they are acknowledged. [`Database::close`] ends the roles in order; a process
    /// that just ends loses nothing either.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorCode::DirectoryLocked`] if another process has the directory,
    /// [`crate::ErrorCode::WrongDirectory`] or [`crate::ErrorCode::Corrupt`] if it cannot be used.
    pub async fn open(path: impl AsRef<Path>) -> Result<Database> {
        Self::embed(Some(path.as_ref())).await
    }

    /// A database that lives in memory, and only as long as its last clone. For tests.
    ///
    /// # Errors
    ///
    /// None that a caller could cause.
    pub async fn memory() -> Result<Database> {
        Self::embed(None).await
    }

    async fn embed(path: Option<&Path>) -> Result<Database> {
        let embedded = Embedded::open(path).await?;
        let database = Self::connect_with(embedded.network(), embedded.controllers()).await?;
        database.keep(Roles(Mutex::new(Some(embedded))));
        Ok(database)
    }
}
