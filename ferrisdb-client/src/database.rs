//! The handle of a database.

use std::future::Future;

use ferrisdb_core::{
    Error, ErrorCode, Result, Stage, id::Address, service::controller::Status, transport::Network,
};

use crate::{options::Settings, retry::AsError, transaction::Transaction};

/// A database. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Database {}

fn later() -> Error {
    Error::new(ErrorCode::Unsupported, Stage::Client, "this build has the interface only")
}

impl Database {
    /// Connects to a cluster by its controllers, `host:port[,host:port...]`.
    pub async fn connect(controllers: &str) -> Result<Database> {
        let _ = controllers;
        Err(later())
    }

    /// Connects over a network of the caller's: in process, or simulated.
    pub async fn connect_with(network: Network, controllers: Vec<Address>) -> Result<Database> {
        Self::connect_with_settings(network, controllers, Settings::default()).await
    }

    /// Connects with settings.
    pub async fn connect_with_settings(
        network: Network,
        controllers: Vec<Address>,
        settings: Settings,
    ) -> Result<Database> {
        let _ = (network, controllers, settings);
        Err(later())
    }

    /// A new transaction.
    pub fn transaction(&self) -> Transaction {
        Transaction {}
    }

    /// Runs a transaction, retries it as needed, and commits it: exactly once.
    pub async fn run_transaction<T, E, F, Fut>(&self, mut body: F) -> Result<T, E>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error> + AsError,
    {
        body(self.transaction()).await
    }

    /// What an operator wants to know.
    pub async fn status(&self) -> Result<Status> {
        Err(later())
    }

    /// Ends the use of the database.
    pub async fn close(self) -> Result<()> {
        Ok(())
    }
}
