//! `FDBDatabase`: a handle that never waits. Whatever is wrong with the cluster file shows up in the first operation, and is looked at
//! again in the next one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ferrisdb_client::{Connection, Database as Client, Key, Settings, Stage, TransactionOption};
use ferrisdb_core::runtime;
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    errors::{self, Code},
    future::{Ended, Future, Output},
    network,
    options::{self, DatabaseSetting, TransactionSetting},
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

/// What transactions begin with that only this library knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// See [`TransactionSetting::UsedDuringCommitUnprotected`].
    pub is_commit_unprotected: bool,
    /// See [`TransactionSetting::AutomaticIdempotency`].
    pub has_idempotency_id: bool,
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
        Ok(Arc::new(Database { source, state: Mutex::default() }))
    }

    /// The client, if the cluster file says where the cluster is.
    ///
    /// # Errors
    ///
    /// `no_cluster_file_found`, `connection_string_invalid`; `operation_cancelled` if the network has stopped.
    pub fn client(&self) -> Result<Client, Code> {
        let mut state = self.state.lock();
        if let Some(client) = &state.client {
            return Ok(client.clone());
        }
        let _entered = network::entered()?;
        let mut settings = Settings {
            connect_limit: PATIENCE,
            read_version_limit: PATIENCE,
            read_limit: PATIENCE,
            ..Settings::default()
        };
        if let Some(watches_max) = state.watches_max {
            settings.watches_max = watches_max;
        }
        for default in &state.client_defaults {
            // It was checked when it was set.
            settings.defaults.set(default.clone()).map_err(|error| errors::number_of(&error))?;
        }
        let opened = self
            .source
            .connection()
            .and_then(|connection| Client::connect_lazily(connection, settings));
        let client = opened.map_err(|error| {
            tracing::warn!(%error, "the database cannot be opened");
            errors::number_of(&error)
        })?;
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
            DatabaseSetting::Default(TransactionSetting::AutomaticIdempotency) => {
                state.defaults.has_idempotency_id = true;
            }
            DatabaseSetting::Default(_) | DatabaseSetting::Ignored => {}
        }
        Ok(())
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
