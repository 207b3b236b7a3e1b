//! Which database: a cluster, by its controllers or by a cluster file, or a directory.
//!
//! ```text
//!   --path DIR                          the database in a directory
//!   --controllers host:port,...         a cluster, by some of its controllers
//!   --cluster-file PATH, -C PATH        ... by the cluster file
//!   FERRISDB_CONTROLLERS=host:port,...  ... by some of its controllers, from the environment
//!   otherwise                           ... by the cluster file that every client finds, see Connection::find
//! ```
//!
//! The first of them that is given decides alone. None of them falls back to another: an answer from another database than
//! the one that was meant is worse than an error.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use ferrisdb_client::{Address, Connection, Database, Settings};

use crate::output::Failure;

/// Controllers from the environment. Not an `env` of clap's: the command line's cluster file comes before it.
const CONTROLLERS_VARIABLE: &str = "FERRISDB_CONTROLLERS";

#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The cluster's controllers, host:port[,host:port...]; from FERRISDB_CONTROLLERS if neither this nor a cluster
    /// file is given
    #[arg(long, global = true, value_delimiter = ',', value_parser = address)]
    controllers: Vec<Address>,
    /// The cluster's file, with a line description:id@host:port,...; without any of these options it is the one named
    /// by FERRISDB_CLUSTER_FILE, or else ./ferrisdb.cluster, or else /etc/ferrisdb/ferrisdb.cluster
    #[arg(long, short = 'C', global = true, value_name = "PATH")]
    cluster_file: Option<PathBuf>,
    /// Open the database in this directory instead, inside this process; no server may use it meanwhile
    #[cfg(feature = "embedded")]
    #[arg(long, global = true, value_name = "DIR")]
    path: Option<PathBuf>,
}

/// The database that was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cluster(Connection),
    #[cfg(feature = "embedded")]
    Directory(PathBuf),
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
    /// Which database is meant.
    pub(crate) fn place(&self) -> Result<Place> {
        #[cfg(feature = "embedded")]
        if let Some(path) = &self.path {
            return Ok(Place::Directory(path.clone()));
        }
        let named = env::var(CONTROLLERS_VARIABLE).ok().filter(|named| !named.is_empty());
        self.connection(named, Connection::find).map(Place::Cluster)
    }

    /// How the cluster is reached, given what the environment says.
    fn connection(
        &self,
        named: Option<String>,
        find: impl FnOnce() -> ferrisdb_client::Result<Connection>,
    ) -> Result<Connection> {
        if !self.controllers.is_empty() {
            return Ok(Connection::to(self.controllers.clone()));
        }
        if let Some(path) = &self.cluster_file {
            return Ok(Connection::read(path)?);
        }
        if let Some(named) = named {
            return named.parse().context(CONTROLLERS_VARIABLE);
        }
        find().with_context(|| {
            let hint = "name the controllers (--controllers host:port) or a cluster file (--cluster-file PATH)";
            Failure::new("which cluster is meant is not known", hint)
        })
    }
}

impl Place {
    /// Opens or connects, each step within `limit`.
    pub(crate) async fn database(&self, limit: Duration) -> Result<Database> {
        let connection = match self {
            Place::Cluster(connection) => connection,
            #[cfg(feature = "embedded")]
            Place::Directory(path) => return open(path).await,
        };
        let settings = Settings {
            connect_limit: limit,
            read_version_limit: limit,
            read_limit: limit,
            commit_limit: limit,
            ..Settings::default()
        };
        let connected = Database::connect_to(connection.clone(), settings).await;
        match &connection.path {
            Some(path) => connected.with_context(|| format!("the cluster of {}", path.display())),
            None => Ok(connected?),
        }
    }
}

/// Opens a directory that is there. To make one for every misspelt path would answer with an empty database.
#[cfg(feature = "embedded")]
async fn open(path: &std::path::Path) -> Result<Database> {
    if !path.is_dir() {
        anyhow::bail!(Failure::new(
            format!("{} is not a directory", path.display()),
            "check the path; for a new database, make the directory first (mkdir)",
        ));
    }
    Ok(Database::open(path).await?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use ferrisdb_client::{Error, ErrorCode, Stage};

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        target: Target,
    }

    fn nothing() -> ferrisdb_client::Result<Connection> {
        Err(Error::new(ErrorCode::NoClusterFile, Stage::Client, "looked here and there"))
    }

    /// The description of the cluster file that was read, or the addresses if there was none.
    fn chosen(words: &[&str], named: Option<&str>) -> Result<String> {
        let line = Line::try_parse_from([&["ferrisdb-cli"], words].concat())?;
        let connection = line.target.connection(named.map(String::from), nothing)?;
        Ok(match connection.path {
            Some(_) => connection.description,
            None => connection.addresses[0].to_string(),
        })
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(address("db-1:4500"), Ok(Address::new("db-1:4500")));
        assert_eq!(address("[::1]:4500"), Ok(Address::new("[::1]:4500")));
        for wrong in ["", "host", ":4500", "host:", "host:99999", "host:port"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_given_first_decides() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.cluster");
        std::fs::write(&file, "ours:0@c:3").unwrap();
        let file = file.to_str().unwrap();

        assert_eq!(chosen(&["--controllers", "a:1", "-C", file], Some("b:2")).unwrap(), "a:1");
        assert_eq!(chosen(&["-C", file], Some("b:2")).unwrap(), "ours");
        assert_eq!(chosen(&["--cluster-file", file], None).unwrap(), "ours");
        assert_eq!(chosen(&[], Some("b:2,c:3")).unwrap(), "b:2");
        assert!(chosen(&["-C", "/no/such/file"], Some("b:2")).is_err(), "it does not fall back");
        assert!(chosen(&[], Some("nonsense")).is_err());
    }

    #[test]
    fn an_error_says_where_was_looked_and_what_helps() {
        let error = chosen(&[], None).unwrap_err();
        let mut report = Vec::new();
        crate::output::report(&error, &mut report).unwrap();
        let report = String::from_utf8(report).unwrap();
        assert!(report.contains("looked here and there"), "{report}");
        assert!(report.contains("hint: name the controllers (--controllers"), "{report}");
    }
}
