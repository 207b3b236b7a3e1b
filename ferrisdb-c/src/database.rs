//! `FDBDatabase`: a handle that never waits. Whatever is wrong with the cluster file shows up in the first operation, and is looked at
//! again in the next one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ferrisdb_client::{Connection, Database as Client, Key, Settings, Stage};
use ferrisdb_core::runtime;
use ferrisdb_fdb::{Ended, Output, database::DatabaseOptions};
use serde_json::json;

use crate::{
    errors::{self, Code},
    future::Future,
    network,
    transaction::Transaction,
};

/// The variable that names the cluster file for programs of FoundationDB.
const CLUSTER_FILE_VARIABLE: &str = "FDB_CLUSTER_FILE";
/// Its name in the working directory.
const CLUSTER_FILE_HERE: &str = "fdb.cluster";
/// Where it is on a machine with FoundationDB.
const CLUSTER_FILE_INSTALLED: &str = "/etc/foundationdb/fdb.cluster";

/// Operations wait for the cluster as long as the program lets them: this is its business, by timeouts of transactions.
const PATIENCE: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The status of a client is not waited for any longer.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// The version of FoundationDB's protocol whose interface this is: 7.3.
const PROTOCOL: u64 = 0x0FDB_00B0_7300_0000;

/// How the cluster is found.
#[derive(Debug)]
pub enum Source {
    /// A file; wherever one is looked for, if it is `None`.
    File(Option<PathBuf>),
    /// The line of a cluster file.
    Line(String),
}

/// `FDBDatabase`.
#[derive(Debug)]
pub struct Database {
    source: Source,
    options: Arc<DatabaseOptions>,
}

impl Source {
    fn connection(&self) -> ferrisdb_client::Result<Connection> {
        match self {
            Source::Line(line) => line.parse(),
            Source::File(Some(path)) => Connection::read(path),
            Source::File(None) => {
                if let Some(path) =
                    std::env::var_os(CLUSTER_FILE_VARIABLE).filter(|path| !path.is_empty())
                {
                    return Connection::read(PathBuf::from(path));
                }
                let usual = [CLUSTER_FILE_HERE, CLUSTER_FILE_INSTALLED].map(Path::new);
                match usual.into_iter().find(|path| path.exists()) {
                    Some(path) => Connection::read(path),
                    // Where FerrisDB's own programs look.
                    None => Connection::find(),
                }
            }
        }
    }
}

impl Database {
    /// A handle; nothing is looked at yet.
    ///
    /// # Errors
    ///
    /// `network_not_setup`.
    pub fn new(source: Source) -> Result<Arc<Database>, Code> {
        match network::entered() {
            // After the end of the network a handle can still be had; operations on it are cancelled.
            Ok(_) | Err(errors::OPERATION_CANCELLED) => {}
            Err(code) => return Err(code),
        }
        Ok(Arc::new(Database { source, options: Arc::default() }))
    }

    /// The client, if the cluster file says where the cluster is.
    ///
    /// # Errors
    ///
    /// `no_cluster_file_found`, `connection_string_invalid`; `operation_cancelled` if the network has stopped.
    pub fn client(&self) -> Result<Client, Code> {
        let settings = Settings {
            connect_limit: PATIENCE,
            read_version_limit: PATIENCE,
            read_limit: PATIENCE,
            ..Settings::default()
        };
        self.options.client(settings, |settings| {
            let _entered = network::entered()?;
            let opened = self
                .source
                .connection()
                .and_then(|connection| Client::connect_lazily(connection, settings));
            opened.map_err(|error| {
                tracing::warn!(%error, "the database cannot be opened");
                errors::number_of(&error)
            })
        })
    }

    /// Sets an option.
    ///
    /// # Errors
    ///
    /// `invalid_option`, `invalid_option_value`.
    pub fn set_option(&self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        self.options.set_option(option, value)
    }

    /// A new transaction.
    pub fn transaction(&self) -> Arc<Transaction> {
        Transaction::new(self.client(), Arc::clone(&self.options))
    }

    /// What the client knows of the cluster, as JSON.
    pub fn client_status(&self) -> Arc<Future> {
        let client = match self.client() {
            Ok(client) => client,
            Err(code) => {
                let status = json!({ "Healthy": false, "InitializationError": code });
                return Future::ready(Ok(Output::Key(Key::from(status.to_string()))));
            }
        };
        Future::start(async move {
            let connection = client.connection();
            let coordinators: Vec<String> =
                connection.addresses.iter().map(ToString::to_string).collect();
            let asked = runtime::timeout(STATUS_LIMIT, Stage::Client, client.status()).await;
            let status = asked.and_then(|status| status);
            let is_active = status.as_ref().is_ok_and(|status| {
                status.cluster.phase == ferrisdb_core::service::controller::Phase::Active
            });
            let proxies: Vec<String> = status
                .as_ref()
                .ok()
                .and_then(|status| status.cluster.coordinator.as_ref())
                .map(|coordinator| coordinator.proxies.iter().map(ToString::to_string).collect())
                .unwrap_or_default();
            let servers: Vec<String> = status
                .as_ref()
                .map(|status| status.cluster.storage_servers.iter())
                .map(|servers| servers.map(|server| server.endpoint.to_string()).collect())
                .unwrap_or_default();
            let cluster_id = status.as_ref().map(|status| status.cluster.cluster_id.to_string());
            let text = json!({
                "Healthy": is_active,
                "InitializationState": "created",
                "ProtocolVersion": format!("{PROTOCOL:x}"),
                "ConnectionRecord": connection.to_string(),
                "DatabaseStatus": { "Coordinators": coordinators },
                "ClusterID": cluster_id.unwrap_or_default(),
                "Coordinators": coordinators,
                "GrvProxies": proxies,
                "CommitProxies": proxies,
                "StorageServers": servers,
                "Error": status.err().map(|error| error.to_string()),
            });
            Ok(Output::Key(Key::from(text.to_string())))
        })
    }

    /// The version of the servers' protocol, once one of them has answered.
    pub fn server_protocol(&self) -> Arc<Future> {
        match self.client() {
            Ok(client) => Future::start(async move { protocol_of(&client).await }),
            Err(code) => Future::ready(Err(code)),
        }
    }
}

async fn protocol_of(client: &Client) -> Ended {
    client.cluster_id().await.map_err(|error| errors::number_of(&error))?;
    Ok(Output::Uint64(PROTOCOL))
}
