//! The database that is measured: a cluster, one in this process, or a server that is started for the purpose.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ferrisdb_client::Database;
use ferrisdb_core::runtime;

use crate::process::{self, Usage};

/// How long a server has to start, and to stop.
const SERVER_LIMIT: Duration = Duration::from_secs(30);

/// Which database to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TargetArguments {
    /// A cluster, by its controllers
    #[arg(long, value_name = "HOST:PORT,...", groups = ["target", "served"], help_heading = "Target")]
    connect: Option<String>,
    /// The cluster of a cluster file; without any target, of the one that is found where one is looked for
    #[arg(long, value_name = "PATH", group = "target", help_heading = "Target")]
    cluster_file: Option<PathBuf>,
    /// A database in a directory, inside this process
    #[arg(long, value_name = "PATH", group = "target", help_heading = "Target")]
    embedded: Option<PathBuf>,
    /// A database in memory, inside this process
    #[arg(long, group = "target", help_heading = "Target")]
    memory: bool,
    /// Start a ferrisdb-server on a free port of the loopback with a fresh directory, and stop it afterwards
    #[arg(long, groups = ["target", "served"], help_heading = "Target")]
    start: bool,
    /// Where --start makes the directory: on the disk that is to be measured. With --connect, where the servers have it
    #[arg(long, value_name = "PATH", requires = "served", help_heading = "Target")]
    data: Option<PathBuf>,
    /// The binary that --start starts, if it does not lie beside this one
    #[arg(long, value_name = "PATH", requires = "start", help_heading = "Target")]
    server: Option<PathBuf>,
    /// The servers' processes, for their CPU time and memory together, if they run on this machine
    #[arg(long, value_name = "PID,...", value_delimiter = ',', help_heading = "Target")]
    #[arg(conflicts_with_all = ["start", "memory", "embedded"])]
    server_pid: Vec<u32>,
    /// What --start passes on to the server, for example: -- --worker-threads 1
    #[arg(last = true, requires = "start", value_name = "SERVER ARGUMENTS")]
    server_arguments: Vec<String>,
}

impl TargetArguments {
    /// Whether the database runs inside this process.
    pub(crate) fn is_embedded(&self) -> bool {
        self.memory || self.embedded.is_some()
    }
}

/// A database, and what is known about its server.
pub(crate) struct Target {
    /// As many handles as were asked for; each has connections of its own.
    pub(crate) databases: Vec<Database>,
    /// What it is, for people.
    pub(crate) description: String,
    /// The servers' processes, as far as they are known and not this one.
    pub(crate) server_pids: Vec<u32>,
    /// Whether the server is this process.
    pub(crate) is_embedded: bool,
    /// Where the data lies, if it lies on this machine.
    pub(crate) data: Option<PathBuf>,
    server: Option<Server>,
}

impl Target {
    /// Connects, opens or starts.
    ///
    /// # Errors
    ///
    /// Why that is not possible.
    pub(crate) async fn open(arguments: &TargetArguments, handles: usize) -> Result<Target> {
        let is_embedded = arguments.is_embedded();
        let mut target = Target {
            databases: Vec::new(),
            description: String::new(),
            server_pids: arguments.server_pid.clone(),
            is_embedded,
            data: arguments.embedded.clone().or_else(|| arguments.data.clone()),
            server: None,
        };
        if is_embedded {
            let database = match &arguments.embedded {
                Some(path) => {
                    target.description =
                        format!("embedded in {}{}", path.display(), on_file_system(path));
                    Database::open(path).await?
                }
                None => {
                    target.description = "embedded, in memory".to_owned();
                    Database::memory().await?
                }
            };
            target.databases = vec![database; handles];
            return Ok(target);
        }
        let address = if arguments.start {
            let server = Server::start(arguments).await?;
            target.server_pids = vec![server.child.id()];
            let (address, data) = (server.address.clone(), server.data.path().to_owned());
            target.server = Some(server);
            target.description = format!("ferrisdb-server started here{}", on_file_system(&data));
            target.data = Some(data);
            Some(address)
        } else {
            arguments.connect.clone()
        };
        for _ in 0..handles {
            let database = match &address {
                Some(address) => Database::connect(address).await,
                None => Database::connect_by_file(arguments.cluster_file.as_deref()).await,
            };
            target.databases.push(database.context("cannot connect to the database")?);
        }
        if target.description.is_empty() {
            target.description = match target.databases.first() {
                Some(database) => database.connection().to_string(),
                None => bail!("at least one handle is needed"),
            };
        }
        Ok(target)
    }

    /// The handle of a client.
    pub(crate) fn database(&self, client: usize) -> &Database {
        &self.databases[client % self.databases.len()]
    }

    /// What the servers have used; `None` if their processes are not known, or are this one.
    pub(crate) fn server_usage(&self) -> Option<Usage> {
        let used = self.server_pids.iter().map(|pid| Some(Usage::of(*pid)?.cpu_seconds));
        let cpu_seconds = used.sum::<Option<f64>>().filter(|_| !self.server_pids.is_empty())?;
        Some(Usage { cpu_seconds })
    }

    /// The memory of the processes that serve, be it this one; `None` if they are not known.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        if self.is_embedded {
            return process::resident_bytes(std::process::id());
        }
        let resident = self.server_pids.iter().map(|pid| process::resident_bytes(*pid));
        resident.sum::<Option<u64>>().filter(|_| !self.server_pids.is_empty())
    }

    /// Closes the handles, and stops the server that was started.
    ///
    /// # Errors
    ///
    /// What closing fails with; a server that does not stop.
    pub(crate) async fn close(mut self) -> Result<()> {
        for database in std::mem::take(&mut self.databases) {
            database.close().await?;
        }
        match self.server.take() {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}

fn on_file_system(path: &Path) -> String {
    match process::file_system(path).as_deref() {
        Some("tmpfs" | "ramfs") => " (in memory: nothing is durable there)".to_owned(),
        Some(kind) => format!(" ({kind})"),
        None => String::new(),
    }
}

/// A server that was started here. It ends with this value, whatever happens.
struct Server {
    child: Child,
    address: String,
    data: tempfile::TempDir,
}

impl Server {
    async fn start(arguments: &TargetArguments) -> Result<Server> {
        let binary = match &arguments.server {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("ferrisdb-server"),
        };
        ensure!(
            binary.is_file(),
            "{} is not there: build it (cargo build --release -p ferrisdb-server), or say where it is with --server",
            binary.display()
        );
        let parent = arguments.data.clone().unwrap_or_else(std::env::temp_dir);
        let data = tempfile::Builder::new().prefix("ferrisdb-bench-").tempdir_in(&parent);
        let data = data.with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        let mut command = Command::new(&binary);
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data.path());
        // What a server says of its start and its end is of no interest here, unless somebody asks for it.
        if !arguments.server_arguments.iter().any(|argument| argument.starts_with("--log")) {
            command.args(["--log", "error"]);
        }
        let mut child = command
            .args(&arguments.server_arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stdout = child.stdout.take();
        let mut server = Server { child, address: String::new(), data };
        let listening = runtime::blocking(move || stdout.and_then(first_address));
        match runtime::timeout(SERVER_LIMIT, ferrisdb_client::Stage::Process, listening).await? {
            Some(address) => server.address = address,
            None => bail!("{} has ended before it listened: see above", binary.display()),
        }
        Ok(server)
    }

    async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        ensure!(asked?.success(), "the server has ended by itself");
        let deadline = runtime::now() + SERVER_LIMIT;
        while self.child.try_wait()?.is_none() {
            ensure!(runtime::now() < deadline, "the server does not stop when asked to");
            runtime::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Neither matters if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in "... listening on HOST:PORT, ...". Reads on afterwards, so that the server never writes into a closed pipe.
fn first_address(stdout: std::process::ChildStdout) -> Option<String> {
    let mut lines = BufReader::new(stdout).lines();
    let address = lines.by_ref().find_map(|line| listening_address(&line.ok()?));
    #[expect(clippy::disallowed_methods, reason = "waits for the end of another process")]
    std::thread::spawn(move || lines.for_each(drop));
    address
}

fn listening_address(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let address = rest.split([',', ' ']).next()?;
    (!address.is_empty()).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_a_server_says() {
        let line = "ferrisdb-server listening on 127.0.0.1:4500, data in ./x";
        assert_eq!(listening_address(line).as_deref(), Some("127.0.0.1:4500"));
        assert_eq!(listening_address("and try: set hello world"), None);
    }
}
