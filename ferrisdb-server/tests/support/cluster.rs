//! A cluster of real processes, with verbs: start, kill, stop and resume, cut and heal, wipe.
//!
//! ```text
//!   controller-0   127.7.3.1:4500   <- relay 127.7.3.1:41873   <- everybody, as advertised
//!   coordinator-0  127.7.3.2:4500   <- relay 127.7.3.2:35001
//!   log-0 ...      storage-0 ...    and so on
//! ```
//!
//! Each process has a loopback address of its own. A process that is started again has the same name, address
//! and data directory. When the cluster is dropped, everything is killed and removed.
//!
//! Start with [`Cluster::start`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use ferrisdb_client::{Database, Network, Settings, TransactionOption};
use ferrisdb_core::{id::Address, runtime};

use super::{Process, relay::Relays, report};

const PORT: u16 = 4500;

/// How many processes of each role there are, and how they are set.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) controllers: u32,
    pub(crate) coordinators: u32,
    /// Log processes; those beyond `logs_used` stand by.
    pub(crate) logs: u32,
    pub(crate) logs_used: u32,
    /// How many copies: single, double or triple. The n-th process of each role is in the n-th zone.
    pub(crate) redundancy: &'static str,
    pub(crate) storage: u32,
    pub(crate) proxies: u32,
    pub(crate) resolvers: u32,
    /// Where the keys are cut, as on the command line.
    pub(crate) shard_boundaries: &'static str,
    /// Further arguments of one process, or of all processes of a role:
    /// `("controller", "--failure-timeout-ms=500")`, `("log-2", "--worker-threads=2")`.
    pub(crate) arguments: Vec<(&'static str, String)>,
    /// Whether the processes run with disks that can be full: `full_disk.c`.
    pub(crate) disks_can_fill: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            controllers: 1,
            coordinators: 1,
            logs: 3,
            logs_used: 3,
            redundancy: "single",
            storage: 2,
            proxies: 1,
            resolvers: 1,
            shard_boundaries: "bank/account/0004",
            arguments: Vec::new(),
            disks_can_fill: false,
        }
    }
}

/// A running cluster.
pub(crate) struct Cluster {
    members: BTreeMap<String, Member>,
    relays: Relays,
    /// Where the controllers are reached: by relays.
    controllers: Vec<Address>,
    addresses: BTreeMap<String, Address>,
    _folder: tempfile::TempDir,
}

struct Member {
    process: Process,
    data: PathBuf,
}

impl Cluster {
    /// Starts all processes: controllers first. They find each other by and by.
    pub(crate) fn start(shape: &Shape) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let library = shape.disks_can_fill.then(|| full_disks(folder.path()));
        let relays = Relays::new();
        let roles = [
            ("controller", shape.controllers, env!("CARGO_BIN_EXE_ferrisdb-controller")),
            ("coordinator", shape.coordinators, env!("CARGO_BIN_EXE_ferrisdb-coordinator")),
            ("log", shape.logs, env!("CARGO_BIN_EXE_ferrisdb-log")),
            ("storage", shape.storage, env!("CARGO_BIN_EXE_ferrisdb-storage")),
        ];
        // All addresses before all arguments: controllers may have to know each other.
        let mut places = Vec::new();
        for (role, count, binary) in roles {
            for number in 0..count {
                let name = format!("{role}-{number}");
                let listen = own_address();
                let advertise = relays.add(&name, listen);
                places.push((role, name, binary, listen, advertise));
            }
        }
        let is_controller = |place: &&(&str, String, _, _, _)| place.0 == "controller";
        let controllers: Vec<Address> = places
            .iter()
            .filter(is_controller)
            .map(|place| Address::new(place.4.to_string()))
            .collect();
        let addresses = places
            .iter()
            .map(|place| (place.1.clone(), Address::new(place.4.to_string())))
            .collect();
        let mut members = BTreeMap::new();
        let mut order = Vec::new();
        for (role, name, binary, listen, advertise) in places {
            let data = folder.path().join(&name);
            let mut arguments = vec![
                format!("--listen={listen}"),
                format!("--advertise={advertise}"),
                "--log=info".into(),
            ];
            arguments.extend(role_arguments(role, shape, &controllers));
            if role != "coordinator" {
                arguments.push(format!("--data={}", data.display()));
            }
            if role != "controller" {
                let (_, number) = name.rsplit_once('-').unwrap();
                arguments.push(format!("--zone=zone-{number}"));
            }
            let further = shape.arguments.iter().filter(|(of, _)| *of == role || *of == name);
            arguments.extend(further.map(|(_, argument)| argument.clone()));
            let log = folder.path().join(format!("{name}.stderr"));
            let mut process = Process::new(&name, binary, arguments, log);
            if let Some(library) = &library {
                process.environment = vec![
                    ("LD_PRELOAD", library.clone()),
                    ("FULL_DISK", data.with_extension("full")),
                    ("FULL_DISK_OF", data.clone()),
                ];
            }
            members.insert(name.clone(), Member { process, data });
            order.push(name);
        }
        let mut cluster = Cluster { members, relays, controllers, addresses, _folder: folder };
        // All before any is waited for: controllers may not be ready without each other.
        order.iter().for_each(|name| cluster.spawn(name));
        order.iter().for_each(|name| cluster.member(name).process.wait_ready());
        cluster
    }

    /// The network, to cut and heal it.
    pub(crate) fn relays(&self) -> &Relays {
        &self.relays
    }

    /// The names of all processes of a role.
    pub(crate) fn names(&self, role: &str) -> Vec<String> {
        let prefix = format!("{role}-");
        self.members.keys().filter(|name| name.starts_with(&prefix)).cloned().collect()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, name: &str) {
        self.member(name).process.kill();
    }

    /// Starts a process again that was killed, and waits until it says that it is ready.
    pub(crate) fn restart(&mut self, name: &str) {
        self.spawn(name);
        self.member(name).process.wait_ready();
    }

    /// Starts processes that were killed, all before any is waited for: they may need each other to be ready.
    pub(crate) fn restart_all(&mut self, names: &[String]) {
        names.iter().for_each(|name| self.spawn(name));
        names.iter().for_each(|name| self.member(name).process.wait_ready());
    }

    fn spawn(&mut self, name: &str) {
        self.member(name).process.spawn();
    }

    /// SIGSTOP: the process does nothing any more, and its connections stay open.
    pub(crate) fn stop(&mut self, name: &str) {
        self.member(name).process.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, name: &str) {
        self.member(name).process.signal("-CONT");
    }

    /// The disk of a process takes nothing more, without a reason that the process knows, until
    /// [`Cluster::allow_writes_and_restart`].
    pub(crate) fn refuse_writes(&mut self, name: &str) {
        self.member(name).process.limit_files(0);
    }

    /// The disk works again, and the process is started anew, whether it still ran or had ended with an error.
    pub(crate) fn allow_writes_and_restart(&mut self, name: &str) {
        let process = &mut self.member(name).process;
        if !process.collect_failed() {
            process.kill();
        }
        self.restart(name);
    }

    /// The disk of a process is full, until [`Cluster::free_disk`]: [`Shape::disks_can_fill`].
    pub(crate) fn fill_disk(&self, name: &str) {
        std::fs::write(self.full_disk(name), "").unwrap();
    }

    /// There is space again.
    pub(crate) fn free_disk(&self, name: &str) {
        std::fs::remove_file(self.full_disk(name)).unwrap();
    }

    fn full_disk(&self, name: &str) -> PathBuf {
        self.members[name].data.with_extension("full")
    }

    /// Removes the data of a process that was killed.
    pub(crate) fn wipe(&mut self, name: &str) {
        let member = self.member(name);
        assert!(!member.process.is_started(), "{name} still uses its directory");
        std::fs::remove_dir_all(&member.data).unwrap();
    }

    /// SIGTERM to all processes, servers of data before those that watch them: each ends without an error.
    pub(crate) fn shut_down(&mut self) {
        for role in ["storage", "log", "coordinator", "controller"] {
            for name in self.names(role) {
                let process = &mut self.member(&name).process;
                assert_eq!(process.terminate(), Some(0), "{name}\n{}", process.log());
            }
        }
    }

    /// What a process has logged, in all its lives.
    pub(crate) fn log(&self, name: &str) -> String {
        self.members[name].process.log()
    }

    /// The last lines of all logs: what to say when something has failed.
    pub(crate) fn report(&self) -> String {
        report(self.members.values().map(|member| &member.process))
    }

    /// The processes that something of the cluster's state names, by the address at which they are reached.
    pub(crate) fn name_of(&self, address: &Address) -> String {
        let found = self.addresses.iter().find(|(_, known)| *known == address);
        found.map(|(name, _)| name.clone()).unwrap_or_else(|| panic!("nobody is at {address}"))
    }

    /// The name of the controller that leads.
    pub(crate) async fn leader(&self) -> String {
        let status = self.connect().await.status().await.unwrap();
        self.name_of(&status.controller)
    }

    /// A database handle with connections of its own. Impatient, so that a test notices an outage.
    pub(crate) async fn connect(&self) -> Database {
        let settings = Settings {
            read_version_limit: Duration::from_secs(3),
            read_limit: Duration::from_secs(3),
            commit_limit: Duration::from_secs(3),
            ..Settings::default()
        };
        self.connect_with(settings).await
    }

    /// A database handle with connections of its own.
    pub(crate) async fn connect_with(&self, settings: Settings) -> Database {
        let controllers = self.controllers.clone();
        Database::connect_with_settings(Network::new(), controllers, settings)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.report()))
    }

    /// A database handle as most have it, whose links can be cut apart from those of others, by this name.
    pub(crate) async fn connect_as(&self, name: &str) -> Database {
        // Nobody calls a client: its address is there to know it by.
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let network = Network::new();
        network.set_origin(&Address::new(self.relays.add(name, nowhere).to_string()));
        let controllers = self.controllers.clone();
        Database::connect_with_settings(network, controllers, Settings::default())
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.report()))
    }

    /// Waits until a transaction that begins after this call is committed, and says how long that took.
    pub(crate) async fn wait_available(&self, limit: Duration) -> Duration {
        let database = self.connect().await;
        let began = runtime::now();
        let mut last = String::new();
        while elapsed(began) < limit {
            let transaction = database.transaction();
            let committed = async {
                transaction.set_option(TransactionOption::Timeout(Duration::from_secs(1)))?;
                transaction.set("available", "yes")?;
                transaction.commit().await
            };
            match committed.await {
                Ok(_) => return elapsed(began),
                Err(error) => last = error.to_string(),
            }
            runtime::sleep(Duration::from_millis(10)).await;
        }
        panic!("not available within {limit:?}: {last}\n{}", self.report())
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.get_mut(name).unwrap_or_else(|| panic!("no process has the name {name}"))
    }
}

/// Builds what makes disks full, into a folder.
fn full_disks(folder: &Path) -> PathBuf {
    let library = folder.join("full_disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/full_disk.c");
    let built = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-o"])
        .args([library.as_os_str(), source.as_ref(), "-ldl".as_ref()])
        .status();
    assert!(built.unwrap().success(), "{source} does not compile");
    library
}

/// What the processes of a role are started with, besides their addresses and directories.
fn role_arguments(role: &str, shape: &Shape, controllers: &[Address]) -> Vec<String> {
    let addresses: Vec<String> = controllers.iter().map(Address::to_string).collect();
    let reports_to = format!("--controllers={}", addresses.join(","));
    match role {
        "controller" => {
            let mut arguments = vec![
                format!("--logs={}", shape.logs_used),
                format!("--redundancy={}", shape.redundancy),
                format!("--storage-servers={}", shape.storage),
                format!("--proxies={}", shape.proxies),
                format!("--resolvers={}", shape.resolvers),
            ];
            if !shape.shard_boundaries.is_empty() {
                arguments.push(format!("--shard-boundaries={}", shape.shard_boundaries));
            }
            // A lone controller knows whom to ask.
            if controllers.len() > 1 {
                arguments.push(reports_to);
            }
            arguments
        }
        _ => vec![reports_to],
    }
}

fn elapsed(since: Instant) -> Duration {
    runtime::now().duration_since(since)
}

/// An address of this machine for one process of one cluster of one test.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    loop {
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        assert!(number < u8::MAX, "one test program has used up its 254 addresses");
        let [_, _, high, low] = pid.to_be_bytes();
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, high | 1, low, number)), PORT);
        // Another test program may have the same digits.
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
