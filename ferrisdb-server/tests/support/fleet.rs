//! A cluster over three zones whose processes move, sleep and lose their disks; everything it knows is in files.
//!
//! ```text
//!   zone 0 = 127.x.y.1    controller-0  coordinator-0  log-0 log-3   storage-0
//!   zone 1 = 127.x.y.2    controller-1  coordinator-1  log-1 log-4   storage-1
//!   zone 2 = 127.x.y.3    controller-2  coordinator-2  log-2 log-5   storage-2
//! ```
//!
//! A zone is a host, as by default. Each process has a settings file, so that what an operator corrects while it runs is found,
//! and listens where others reach it, without a relay: a controller that moves is really gone from where it was. `cluster.rs`
//! is the one whose links can be cut.
//!
//! Start with [`Fleet::start`]; [`Rows`] are what must not be lost.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use ferrisdb_client::{Connection, Database, Error, Network, Settings, Status, TransactionOption};
use ferrisdb_core::{id::Address, runtime};
use parking_lot::Mutex;

use super::{Process, availability::Probe, report};

/// How long anything may take on a machine that is busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
pub(crate) const ZONES: u8 = 3;

const CONTROLLER: &str = env!("CARGO_BIN_EXE_ferrisdb-controller");

pub(crate) struct Member {
    process: Process,
    pub(crate) role: &'static str,
    pub(crate) host: IpAddr,
    address: SocketAddr,
}

/// A cluster over three zones, `double`, of processes that are told everything by files.
pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    pub(crate) members: BTreeMap<String, Member>,
    logs_used: u8,
}

impl Fleet {
    /// Starts it, with so many logs in each zone, and waits until it is available.
    pub(crate) async fn start(logs_per_zone: u8, logs_used: u8) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let mut fleet = Fleet { folder, members: BTreeMap::new(), logs_used };
        let hosts = own_hosts();
        for number in 0..ZONES * logs_per_zone {
            let host = hosts[usize::from(number % ZONES)];
            if number < ZONES {
                fleet.add("controller", number, host);
                fleet.add("coordinator", number, host);
                fleet.add("storage", number, host);
            }
            fleet.add("log", number, host);
        }
        fleet.write_files();
        let names = fleet.names(|_| true);
        // Controllers may not be ready without each other.
        fleet.spawn(&names);
        fleet.wait_ready(&names);
        fleet.wait_available("the beginning").await;
        fleet
    }

    pub(crate) fn add(&mut self, role: &'static str, number: u8, host: IpAddr) -> String {
        let binary = match role {
            "controller" => CONTROLLER,
            "coordinator" => env!("CARGO_BIN_EXE_ferrisdb-coordinator"),
            "log" => env!("CARGO_BIN_EXE_ferrisdb-log"),
            _ => env!("CARGO_BIN_EXE_ferrisdb-storage"),
        };
        let name = format!("{role}-{number}");
        let arguments = vec![format!("--config={}", self.path(&name, "toml").display())];
        let process = Process::new(&name, binary, arguments, self.path(&name, "stderr"));
        let member = Member { process, role, host, address: free_port(host) };
        self.members.insert(name.clone(), member);
        name
    }

    pub(crate) fn path(&self, name: &str, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{suffix}"))
    }

    /// Writes the settings of all processes, and the cluster file of clients.
    pub(crate) fn write_files(&self) {
        self.members.keys().for_each(|name| self.write_file(name));
        let addresses: Vec<String> = self.controllers().iter().map(Address::to_string).collect();
        let line = format!("edges:0@{}\n", addresses.join(","));
        std::fs::write(self.cluster_file(), line).unwrap();
    }

    /// Writes the settings of one process, with the controllers where they are now.
    fn write_file(&self, name: &str) {
        let member = &self.members[name];
        let mut text = format!("listen = '{}'\n", member.address);
        let controllers = self.controllers();
        let controllers: Vec<String> = controllers.iter().map(|at| format!("'{at}'")).collect();
        let _ = writeln!(text, "controllers = [{}]", controllers.join(", "));
        if member.role != "coordinator" {
            let _ = writeln!(text, "data = '{}'", self.path(name, "data").display());
        }
        if member.role == "controller" {
            let _ = writeln!(text, "redundancy = 'double'\nlogs = {}", self.logs_used);
            let _ = writeln!(text, "storage_servers = {ZONES}\nproxies = 2\nresolvers = 2");
        }
        std::fs::write(self.path(name, "toml"), text).unwrap();
    }

    pub(crate) fn cluster_file(&self) -> PathBuf {
        self.path("ferrisdb", "cluster")
    }

    /// Where the controllers are, by the plan: a member of it that is no controller any more was taken out.
    pub(crate) fn controllers(&self) -> Vec<Address> {
        let members = self.members.values().filter(|member| member.role == "controller");
        members.map(|member| Address::new(member.address.to_string())).collect()
    }

    pub(crate) fn names(&self, of: impl Fn(&Member) -> bool) -> Vec<String> {
        self.members.iter().filter(|(_, member)| of(member)).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn of_role(&self, role: &str) -> Vec<String> {
        self.names(|member| member.role == role)
    }

    pub(crate) fn address(&self, name: &str) -> Address {
        Address::new(self.members[name].address.to_string())
    }

    pub(crate) fn name_of(&self, address: &Address) -> String {
        let mut found = self.names(|member| member.address.to_string() == address.0);
        found.pop().unwrap_or_else(|| panic!("nobody is at {address}"))
    }

    pub(crate) fn process(&mut self, name: &str) -> &mut Process {
        &mut self.members.get_mut(name).unwrap().process
    }

    pub(crate) fn spawn(&mut self, names: &[String]) {
        names.iter().for_each(|name| self.process(name).spawn());
    }

    pub(crate) fn wait_ready(&mut self, names: &[String]) {
        names.iter().for_each(|name| self.process(name).wait_ready());
    }

    pub(crate) fn kill(&mut self, names: &[String]) {
        names.iter().for_each(|name| self.process(name).kill());
    }

    /// SIGTERM, which no process may answer with an error.
    pub(crate) fn terminate(&mut self, name: &str) {
        let process = self.process(name);
        assert_eq!(process.terminate(), Some(0), "{name}\n{}", process.log());
    }

    /// Stops a controller and starts it at another port, with a list of where the controllers are then. Nobody else is told.
    pub(crate) fn move_controller(&mut self, name: &str) {
        self.terminate(name);
        let host = self.members[name].host;
        self.members.get_mut(name).unwrap().address = free_port(host);
        self.write_file(name);
        self.process(name).start();
    }

    /// SIGTERM to all that run, servers of data before those that watch them.
    pub(crate) fn shut_down(&mut self) {
        for role in ["storage", "log", "coordinator", "controller"] {
            let running = self.names(|member| member.role == role && member.process.is_started());
            running.iter().for_each(|name| self.terminate(name));
        }
    }

    pub(crate) async fn connect(&self) -> Database {
        self.connect_to(self.controllers()).await
    }

    pub(crate) async fn connect_to(&self, controllers: Vec<Address>) -> Database {
        let limit = Duration::from_secs(5);
        let settings = Settings {
            connect_limit: LIMIT,
            read_version_limit: limit,
            read_limit: limit,
            commit_limit: limit,
            ..Settings::default()
        };
        let connected = Database::connect_with_settings(Network::new(), controllers, settings);
        connected.await.unwrap_or_else(|error| panic!("{error}\n{}", self.report()))
    }

    /// Waits until a new client commits a transaction.
    pub(crate) async fn wait_available(&self, when: &str) {
        let began = runtime::now();
        let probe = Probe::start(self.connect().await);
        match probe.wait_after(began, LIMIT).await {
            Ok(_) => println!("{when}: available after {:?}", began.elapsed()),
            Err(error) => panic!("{when}: {error}\n{}", self.report()),
        }
    }

    /// Waits until the status is as it should be.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let database = self.connect().await;
        let began = runtime::now();
        let mut last = String::new();
        while began.elapsed() < LIMIT {
            match database.status().await {
                Ok(status) if is_so(&status) => {
                    println!("{what}: after {:?}", began.elapsed());
                    return status;
                }
                Ok(status) => {
                    let (phase, silent) = (&status.cluster.phase, &status.silent_controllers);
                    last = format!("{phase:?} {silent:?} {:?}", status.cluster.controllers);
                }
                Err(error) => last = error.to_string(),
            }
            runtime::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: not within {LIMIT:?}: {last}\n{}", self.report());
    }

    /// All processes live, a generation of the wanted shape is active, and the leader reaches all other controllers.
    pub(crate) async fn until_whole(&self, what: &str) -> Status {
        let servers = self.names(|member| member.role != "controller").len();
        let controllers = self.controllers();
        let is_whole = |status: &Status| {
            let members = &status.cluster.controllers;
            status.cluster.coordinator.is_some()
                && status.processes.iter().filter(|process| process.alive).count() == servers
                && status.silent_controllers.is_empty()
                && members.len() == controllers.len()
                && members.iter().all(|member| controllers.contains(&member.address))
                && status.cluster.log_sets.last().unwrap().logs.len() == usize::from(self.logs_used)
                && status.cluster.shards.shards().iter().all(|shard| shard.teams.team.len() == 2)
        };
        self.until(what, is_whole).await
    }

    /// `ferrisdb-cli` with this cluster: exit code, standard output, standard error. `None` if it was not built.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Option<(i32, String, String)> {
        let binary = Path::new(CONTROLLER).with_file_name("ferrisdb-cli");
        if !binary.exists() {
            println!("not checked, there is no {}: ferrisdb-cli {arguments:?}", binary.display());
            return None;
        }
        let mut command = Command::new(binary);
        let (code, output, error) =
            run(command.arg("--cluster-file").arg(self.cluster_file()).args(arguments));
        println!(
            "ferrisdb-cli {arguments:?}: {code} {}{error}",
            output.lines().next().unwrap_or("")
        );
        Some((code, output, error))
    }

    /// A client of a cluster that need not be there.
    pub(crate) fn connect_impatiently(&self) -> Database {
        let connection = Connection::to(self.controllers());
        Database::connect_lazily(connection, Settings::default()).unwrap()
    }

    /// `ferrisdb-controller --force-new-quorum` in the directory of a controller that is stopped.
    pub(crate) fn force(&self, name: &str) -> (i32, String, String) {
        let config = format!("--config={}", self.path(name, "toml").display());
        let began = Instant::now();
        let forced = run(Command::new(CONTROLLER).args([config.as_str(), "--force-new-quorum"]));
        println!("--force-new-quorum of {name} after {:?}: {forced:?}", began.elapsed());
        forced
    }

    /// A log of the newest generation.
    pub(crate) async fn used_log(&self) -> String {
        let status = self.until("a generation", |s| s.cluster.coordinator.is_some()).await;
        self.name_of(&status.cluster.log_sets.last().unwrap().logs[0].endpoint.address)
    }

    pub(crate) fn report(&self) -> String {
        report(self.members.values().map(|member| &member.process))
    }
}

fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A host for each zone of one cluster.
fn own_hosts() -> Vec<IpAddr> {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = |_| {
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        IpAddr::V4(Ipv4Addr::new(127, high | 1, low, number))
    };
    (0..ZONES).map(host).collect()
}

fn free_port(host: IpAddr) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

/// A client that adds one row after the other, and knows which it was told are committed.
pub(crate) struct Rows {
    committed: Arc<Mutex<Vec<u64>>>,
    stopped: Arc<AtomicBool>,
    writing: tokio::task::JoinHandle<()>,
}

impl Rows {
    pub(crate) fn begin(database: Database) -> Rows {
        let (committed, stopped) =
            (Arc::<Mutex<Vec<u64>>>::default(), Arc::<AtomicBool>::default());
        let writing = tokio::spawn({
            let (committed, stopped) = (Arc::clone(&committed), Arc::clone(&stopped));
            async move {
                for number in 0u64.. {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    // A row of its own for each attempt: of those that fail nothing is claimed.
                    if add_row(&database, number).await.is_ok() {
                        committed.lock().push(number);
                    }
                    runtime::sleep(Duration::from_millis(2)).await;
                }
            }
        });
        Rows { committed, stopped, writing }
    }

    pub(crate) fn count(&self) -> usize {
        self.committed.lock().len()
    }

    /// Waits for so many more rows.
    pub(crate) async fn progress(&self, fleet: &Fleet, when: &str) {
        let (began, wanted) = (runtime::now(), self.count() + 20);
        while self.count() < wanted {
            assert!(began.elapsed() < LIMIT, "no rows after {when}\n{}", fleet.report());
            runtime::sleep(Duration::from_millis(5)).await;
        }
        println!("{when}: 20 more rows after {:?}", began.elapsed());
    }

    /// Ends, and looks whether all rows are there.
    pub(crate) async fn check(self, database: &Database) {
        self.stopped.store(true, Ordering::SeqCst);
        self.writing.await.unwrap();
        let committed = std::mem::take(&mut *self.committed.lock());
        assert!(!committed.is_empty());
        for numbers in committed.chunks(500) {
            let read = database.run_transaction(|transaction| async move {
                let mut missing = Vec::new();
                for number in numbers {
                    if transaction.get(row(*number)).await?.is_none() {
                        missing.push(*number);
                    }
                }
                Ok::<_, Error>(missing)
            });
            assert_eq!(read.await.unwrap(), Vec::<u64>::new(), "committed rows that are lost");
        }
        println!("all of {} committed rows are there", committed.len());
    }
}

pub(crate) fn row(number: u64) -> String {
    format!("rows/{number:08}")
}

pub(crate) async fn add_row(database: &Database, number: u64) -> ferrisdb_client::Result<()> {
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::Timeout(Duration::from_secs(1)))?;
    transaction.set(row(number), number.to_string())?;
    transaction.commit().await.map(|_| ())
}

/// Waits for a commit that began after `fault`, and says how long it took.
pub(crate) async fn commits_after(fleet: &Fleet, probe: &Probe, fault: Instant, what: &str) {
    match probe.wait_after(fault, LIMIT).await {
        Ok(time) => println!("{what}: first commit after {} ms", time.as_millis()),
        Err(error) => panic!("{what}: {error}\n{}", fleet.report()),
    }
}
