//! How a cluster is reached: a line of text, usually in a file.
//!
//! ```text
//!   # the test cluster                                    a comment
//!   test:7f00c0ffee@10.0.0.1:4500,db2.example:4500        description:id@addresses of the controllers
//!
//!   looked for      1. the path that was given
//!                   2. the path in FERRISDB_CLUSTER_FILE, and nowhere else if that is set
//!                   3. ./ferrisdb.cluster
//!                   4. /etc/ferrisdb/ferrisdb.cluster
//! ```
//!
//! The form is FoundationDB's. Any one of the addresses that answers is enough: it knows the others. Names are looked up each
//! time that a connection is made. An id of 32 hexadecimal digits is the cluster's own, as `ferrisdb-cli status` shows it, and
//! keeps the client from talking to another cluster at the same address; any other id is just a name.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use ferrisdb_core::{
    Error, ErrorCode, Result, Stage,
    id::{Address, ClusterId},
};

/// The environment variable that names the cluster file.
pub const CLUSTER_FILE_VARIABLE: &str = "FERRISDB_CLUSTER_FILE";
/// The name of the cluster file in the working directory.
pub const CLUSTER_FILE_NAME: &str = "ferrisdb.cluster";

/// How a cluster is reached.
///
/// ```
/// use ferrisdb_client::Connection;
/// let connection: Connection = "test:abc@10.0.0.1:4500,[::1]:4500".parse()?;
/// assert_eq!(connection.description, "test");
/// assert_eq!(connection.addresses.len(), 2);
/// // A list of addresses alone is enough.
/// let connection: Connection = "localhost:4500".parse()?;
/// # Ok::<_, ferrisdb_client::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What the operator calls the cluster: letters, digits and underscores.
    pub description: String,
    /// The cluster's id, or whatever the operator has made up: letters and digits.
    pub id: String,
    /// Where its controllers are reached, or some of them.
    pub addresses: Vec<Address>,
    /// The file in which this was found.
    pub path: Option<PathBuf>,
}

impl Connection {
    /// A connection to these controllers.
    ///
    /// ```
    /// use ferrisdb_client::{Address, Connection};
    /// let connection = Connection::to(vec![Address::new("10.0.0.1:4500")]);
    /// assert_eq!(connection.to_string(), "ferrisdb:0@10.0.0.1:4500");
    /// ```
    pub fn to(addresses: Vec<Address>) -> Connection {
        let (description, id) = ("ferrisdb".to_owned(), "0".to_owned());
        Connection { description, id, addresses, path: None }
    }

    /// Reads a cluster file.
    ///
    /// ```no_run
    /// use ferrisdb_client::Connection;
    /// let connection = Connection::read("/etc/ferrisdb/test.cluster")?;
    /// # Ok::<(), ferrisdb_client::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NoClusterFile`] if it cannot be read; [`ErrorCode::ConnectionStringInvalid`] for what it contains.
    pub fn read(path: impl AsRef<Path>) -> Result<Connection> {
        let path = path.as_ref();
        let describe = |detail: &dyn fmt::Display| format!("{}: {detail}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(ErrorCode::NoClusterFile, Stage::Client, describe(&error))
        })?;
        let connection: Connection = text.parse().map_err(|error: Error| {
            Error::new(error.code(), Stage::Client, describe(&error.detail()))
        })?;
        Ok(Connection { path: Some(path.to_owned()), ..connection })
    }

    /// Reads the cluster file from where one is looked for, see the module.
    ///
    /// ```no_run
    /// use ferrisdb_client::Connection;
    /// println!("the cluster is {}", Connection::find()?);
    /// # Ok::<(), ferrisdb_client::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Connection::read`]; if there is no file at all, the detail says where it was looked for.
    pub fn find() -> Result<Connection> {
        let named = std::env::var_os(CLUSTER_FILE_VARIABLE).filter(|path| !path.is_empty());
        Connection::find_in(named.map(PathBuf::from), Path::new(CLUSTER_FILE_NAME), &default_path())
    }

    /// The file that the environment has named, or else the first of the two that is there.
    fn find_in(named: Option<PathBuf>, here: &Path, installed: &Path) -> Result<Connection> {
        if let Some(named) = named {
            return Connection::read(&named).map_err(|error| {
                let detail = format!("{} (from {CLUSTER_FILE_VARIABLE})", error.detail());
                Error::new(error.code(), Stage::Client, detail)
            });
        }
        // A file that is there and cannot be read is an error, not a reason to look further: the next one may be of
        // another cluster.
        let is_there = |path: &&Path| !matches!(path.try_exists(), Ok(false));
        [here, installed].into_iter().find(is_there).map_or_else(
            || {
                let detail = format!(
                    "looked for {} in the working directory and for {}; {CLUSTER_FILE_VARIABLE} is not set",
                    here.display(),
                    installed.display()
                );
                Err(Error::new(ErrorCode::NoClusterFile, Stage::Client, detail))
            },
            Connection::read,
        )
    }

    /// The id, if it is one that a cluster gives itself.
    ///
    /// ```
    /// use ferrisdb_client::Connection;
    /// let connection: Connection = "test:0123456789abcdef0123456789abcdef@10.0.0.1:4500".parse()?;
    /// assert!(connection.cluster_id().is_some());
    /// let connection: Connection = "test:ours@10.0.0.1:4500".parse()?;
    /// assert!(connection.cluster_id().is_none(), "just a name");
    /// # Ok::<(), ferrisdb_client::Error>(())
    /// ```
    pub fn cluster_id(&self) -> Option<ClusterId> {
        (self.id.len() == 32).then(|| u128::from_str_radix(&self.id, 16).ok().map(ClusterId))?
    }
}

/// Where the cluster file of the machine is.
fn default_path() -> PathBuf {
    let directory = if cfg!(windows) {
        PathBuf::from(std::env::var_os("ProgramData").unwrap_or_else(|| "C:\\ProgramData".into()))
            .join("ferrisdb")
    } else {
        PathBuf::from("/etc/ferrisdb")
    };
    directory.join(CLUSTER_FILE_NAME)
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::ConnectionStringInvalid, Stage::Client, detail)
}

impl FromStr for Connection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Connection> {
        let without_comments = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let text: String =
            without_comments.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
        let (head, list) = match text.split_once('@') {
            Some((head, list)) => (Some(head), list),
            None => (None, text.as_str()),
        };
        let mut connection = Connection::to(Vec::new());
        if let Some(head) = head {
            let (description, id) = head
                .split_once(':')
                .ok_or_else(|| invalid(format!("'{head}' is not of the form description:id")))?;
            let is_word = |word: &str| {
                !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            };
            if !is_word(description) || !is_word(id) || id.contains('_') {
                return Err(invalid(format!(
                    "'{description}:{id}' has other than letters and digits"
                )));
            }
            connection.description = description.to_owned();
            connection.id = id.to_owned();
        }
        for address in list.split(',') {
            let address = parse_address(address)?;
            if connection.addresses.contains(&address) {
                return Err(invalid(format!("{address} is there twice")));
            }
            connection.addresses.push(address);
        }
        Ok(connection)
    }
}

fn parse_address(text: &str) -> Result<Address> {
    if text.ends_with(":tls") {
        return Err(invalid(format!("'{text}': connections with TLS are not supported")));
    }
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(invalid(format!("'{text}' is not of the form host:port")));
    }
    Ok(Address::new(text))
}

/// The line of a cluster file.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        write!(f, "{}:{}@{}", self.description, self.id, addresses.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_everything() {
        let text = "# ours\n test_1:7fAB@ a:1 , [::1]:2,db.example:65535 # and so on\n";
        let connection: Connection = text.parse().unwrap();
        assert_eq!(connection.to_string(), "test_1:7fAB@a:1,[::1]:2,db.example:65535");
        assert_eq!(connection.cluster_id(), None);
        let id = "00000000000000000000000000000c0f";
        let connection: Connection = format!("x:{id}@a:1").parse().unwrap();
        assert_eq!(connection.cluster_id(), Some(ClusterId(0xc0f)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for wrong in [
            "",
            "#",
            "a",
            "a:",
            ":1",
            "a:b",
            "a:1,",
            "a:70000",
            "a:1,a:1",
            "x@a:1",
            "x:@a:1",
            ":y@a:1",
            "x:y_@a:1",
            "x-:y@a:1",
            "x:y@",
            "x:y@a:1:tls",
        ] {
            let error = wrong.parse::<Connection>().unwrap_err();
            assert_eq!(error.code(), ErrorCode::ConnectionStringInvalid, "{wrong}");
        }
    }

    #[test]
    fn files_are_read_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.cluster");
        assert_eq!(Connection::read(&path).unwrap_err().code(), ErrorCode::NoClusterFile);
        std::fs::write(&path, "nonsense").unwrap();
        let error = Connection::read(&path).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ConnectionStringInvalid);
        assert!(error.to_string().contains("a.cluster"), "{error}");
        std::fs::write(&path, "x:y@a:1\n").unwrap();
        assert_eq!(Connection::read(&path).unwrap().path, Some(path));
    }

    #[test]
    fn files_are_looked_for_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (named, here, installed) = (path("named"), path("here"), path("installed"));
        let find = |is_named: bool| {
            let named = is_named.then(|| named.clone());
            Connection::find_in(named, &here, &installed).map(|found| found.description)
        };

        let error = find(false).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NoClusterFile);
        for place in [here.to_str().unwrap(), installed.to_str().unwrap(), CLUSTER_FILE_VARIABLE] {
            assert!(error.detail().contains(place), "{place} is missing in {error}");
        }
        std::fs::write(&installed, "installed:0@a:1").unwrap();
        assert_eq!(find(false).unwrap(), "installed");
        std::fs::write(&here, "here:0@a:1").unwrap();
        assert_eq!(find(false).unwrap(), "here");
        let error = find(true).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NoClusterFile, "a name excludes all other places");
        assert!(error.detail().contains(CLUSTER_FILE_VARIABLE), "{error}");
        std::fs::write(&named, "named:0@a:1").unwrap();
        assert_eq!(find(true).unwrap(), "named");
        std::fs::write(&here, "nonsense").unwrap();
        assert_eq!(find(false).unwrap_err().code(), ErrorCode::ConnectionStringInvalid);
    }
}
