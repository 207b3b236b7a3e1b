//! Which database: a cluster by its controllers, or a directory.

use std::time::Duration;

use anyhow::{Result, bail};
use ferrisdb_client::{Address, Database, Network, Settings};

#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The cluster's controllers, host:port[,host:port...]
    #[arg(
        long,
        global = true,
        env = "FERRISDB_CONTROLLERS",
        default_value = "127.0.0.1:4500",
        value_delimiter = ',',
        value_parser = address
    )]
    controllers: Vec<Address>,
    /// Open the database in this directory instead, inside this process; no server may use it meanwhile
    #[cfg(feature = "embedded")]
    #[arg(long, global = true, value_name = "DIR")]
    path: Option<std::path::PathBuf>,
}

/// Parses `host:port`.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(Address::new(text))
        }
        _ => Err(String::from("expected host:port, for example 127.0.0.1:4500")),
    }
}

impl Target {
    /// The controllers, unless a directory is to be opened.
    pub(crate) fn controllers(&self) -> Option<&[Address]> {
        #[cfg(feature = "embedded")]
        if self.path.is_some() {
            return None;
        }
        Some(&self.controllers)
    }

    /// Opens or connects, each step within `limit`.
    pub(crate) async fn database(&self, limit: Duration) -> Result<Database> {
        #[cfg(feature = "embedded")]
        if let Some(path) = &self.path {
            return open(path).await;
        }
        if self.controllers.is_empty() {
            bail!("no controllers are given");
        }
        let settings = Settings {
            connect_limit: limit,
            read_version_limit: limit,
            read_limit: limit,
            commit_limit: limit,
            ..Settings::default()
        };
        let controllers = self.controllers.clone();
        Ok(Database::connect_with_settings(Network::new(), controllers, settings).await?)
    }
}

/// Opens a directory that is there. To make one for every misspelt path would answer with an empty database.
#[cfg(feature = "embedded")]
async fn open(path: &std::path::Path) -> Result<Database> {
    use crate::output::Failure;

    if !path.is_dir() {
        bail!(Failure::new(
            format!("{} is not a directory", path.display()),
            "check the path; for a new database, make the directory first (mkdir)",
        ));
    }
    Ok(Database::open(path).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(address("db-1:4500"), Ok(Address::new("db-1:4500")));
        assert_eq!(address("[::1]:4500"), Ok(Address::new("[::1]:4500")));
        for wrong in ["", "host", ":4500", "host:", "host:99999", "host:port"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
