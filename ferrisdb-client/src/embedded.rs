//! The whole database inside the process that uses it: the same servers, reached without a socket.

use std::path::Path;

use ferrisdb_core::Result;
use ferrisdb_server::host::Embedded;

use crate::database::Database;

impl Database {
    /// Opens the database in a directory, or creates it there. What was committed is on disk.
    ///
    /// ```no_run
    /// # use ferrisdb_client::{Database, Error};
    /// # async fn example() -> Result<(), Error> {
    /// let database = Database::open("guestbook").await?;
    /// database.run_transaction(|transaction| async move { transaction.add("visits", 1) }).await?;
    /// database.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryLocked`](crate::ErrorCode::DirectoryLocked) if another process has it open; what is wrong with
    /// the directory or the disk.
    pub async fn open(path: impl AsRef<Path>) -> Result<Database> {
        Self::embed(Embedded::open(Some(path.as_ref())).await?).await
    }

    /// A new database in memory, which ends with the handle: for tests and for trying things out.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// use ferrisdb_client::Database;
    /// let database = Database::memory().await?;
    /// database.run_transaction(|transaction| async move { transaction.set("k", "v") }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Why it did not start.
    pub async fn memory() -> Result<Database> {
        Self::embed(Embedded::open(None).await?).await
    }

    async fn embed(embedded: Embedded) -> Result<Database> {
        match Self::connect_with(embedded.network(), embedded.controllers()).await {
            Ok(database) => {
                database.keep_running(embedded);
                Ok(database)
            }
            Err(error) => {
                embedded.shut_down().await;
                Err(error)
            }
        }
    }
}
