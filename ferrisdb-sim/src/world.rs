//! A simulated cluster, with verbs.
//!
//! ```text
//!   10.0.1.1.. controllers      10.0.3.1.. logs           10.0.5.1.. clients
//!   10.0.2.1.. coordinators     10.0.4.1.. storage
//! ```
//!
//! The n-th process of each kind is in the n-th zone; past the last zone it begins with the first again.
//!
//! Each node runs what the binary of its role runs. Its media belong to the world, so a node that is
//! killed and started again finds its disk, less what was not synced. A process that ends by itself with an error is
//! started again after a while, as a service manager would.
//!
//! Faults may overlap: a node that is down for two reasons comes back when both are over.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    future::Future,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ferrisdb_client::{Database, Settings};
use ferrisdb_core::{
    Error,
    controllers::Controllers,
    id::Address,
    runtime,
    simulation::{Mark, mark},
    transport::{Network, simulated::LinkConditions},
};
use ferrisdb_server::host::{ControllerHost, CoordinatorHost, LogHost, Media, Site, StorageHost};
use futures::future::BoxFuture;
use madsim::runtime::{Handle, NodeHandle};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    clock::Clocks,
    disk::{DiskProfile, Faults, MachineDisk},
    network::{self, SimulatedNetwork},
    plan::{RoleSettings, Topology},
    trace::Trace,
};

/// How long a process that has ended with an error stays away.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
const PORT: u16 = 4500;
/// The directory of every role, each on a machine of its own.
pub(crate) const DATA: &str = "/data";
/// The stack of the thread that runs a simulation.
const STACK_BYTES: usize = 16 << 20;

/// A simulated cluster. Clones are the same one.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    nodes: Vec<Node>,
    trace: Trace,
    clients: AtomicU32,
    topology: Topology,
    controllers: Places,
    network: SimulatedNetwork,
    climate: LinkConditions,
    clocks: Clocks,
    client_settings: Settings,
    /// The clients of workloads, by their numbers: those that faults may happen to.
    workers: Mutex<BTreeMap<usize, Worker>>,
}

/// A client of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Worker {
    /// Where it is on the simulated network.
    pub ip: IpAddr,
    /// What madsim knows it by.
    pub id: madsim::task::NodeId,
    /// Whether it may be killed: its workload begins another one then.
    pub is_mortal: bool,
}

/// One process of the cluster.
struct Node {
    name: String,
    ip: IpAddr,
    handle: NodeHandle,
    disk: MachineDisk,
    /// For how many reasons it does not run, and stands still.
    down: AtomicU32,
    paused: AtomicU32,
    /// Tells its present life to end in order.
    stop: Arc<Notify>,
}

/// Where processes are reached now, by name: what operators would write into command lines. Clones are the same.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<BTreeMap<String, Address>>>);

impl Places {
    fn all(&self) -> Vec<Address> {
        self.0.lock().values().cloned().collect()
    }

    fn of(&self, name: &str) -> Option<Address> {
        self.0.lock().get(name).cloned()
    }

    fn set(&self, name: &str, address: Address) {
        self.0.lock().insert(name.to_owned(), address);
    }
}

/// A role that runs until it is dropped, or ends in order.
trait Role: Send {
    fn shut_down(self: Box<Self>) -> BoxFuture<'static, ()>;
}

type Hosted = Box<dyn Role>;

macro_rules! roles {
    ($($host:ident)+) => {
        $(impl Role for $host {
            fn shut_down(self: Box<Self>) -> BoxFuture<'static, ()> {
                Box::pin(async move { $host::shut_down(*self).await })
            }
        })+
    };
}

roles! { ControllerHost CoordinatorHost LogHost StorageHost }

fn address(ip: impl std::fmt::Display) -> Address {
    Address::new(format!("{ip}:{PORT}"))
}

/// The address of the n-th client.
fn client_ip(number: u32) -> IpAddr {
    parse(&format!("10.0.{}.{}", 5 + number / 250, 1 + number % 250))
}

fn parse(ip: &str) -> IpAddr {
    ip.parse().expect("the world's addresses are well-formed")
}

impl World {
    /// Starts all nodes of a cluster. Processes find each other by and by.
    pub fn start(topology: Topology, settings: RoleSettings, trace: Trace) -> World {
        let drawn = network::draw_climate();
        let climate = if topology.calm_network { LinkConditions::default() } else { drawn };
        let network = SimulatedNetwork::install(climate.clone(), trace.clone());
        let controllers = Places::default();
        for number in 1..=topology.controllers {
            let address = address(format!("10.0.1.{number}"));
            controllers.set(&format!("controller-{number}"), address);
        }
        let path = Path::new(DATA);
        let zone = move |number: u32| format!("zone-{}", topology.zone(number));
        let of_site =
            |site: &Site, all: &Places| Controllers::new(site.network().clone(), all.all());
        let mut nodes = Vec::new();
        for number in 1..=topology.controllers {
            let (settings, all) = (settings.controller.clone(), controllers.clone());
            let name = format!("controller-{number}");
            let (ip, moved) = (format!("10.0.1.{number}"), Some(controllers.clone()));
            nodes.push(Node::new(name, ip, moved, &trace, move |site, media| {
                let (settings, all) = (settings.clone(), all.all());
                Box::pin(async move {
                    let host = ControllerHost::start(site, &media, path, all, settings).await?;
                    Ok(Box::new(host) as Hosted)
                })
            }));
        }
        for number in 1..=topology.coordinators {
            let (settings, all) = (settings.coordinator.clone(), controllers.clone());
            let name = format!("coordinator-{number}");
            nodes.push(Node::new(
                name,
                format!("10.0.2.{number}"),
                None,
                &trace,
                move |site, _| {
                    let (settings, to) = (settings.clone(), of_site(&site, &all));
                    Box::pin(async move {
                        let host = CoordinatorHost::start(site, to, zone(number), settings);
                        Ok(Box::new(host) as Hosted)
                    })
                },
            ));
        }
        for number in 1..=topology.logs + topology.spare_logs {
            let (settings, all) = (settings.log.clone(), controllers.clone());
            let name = format!("log-{number}");
            nodes.push(Node::new(
                name,
                format!("10.0.3.{number}"),
                None,
                &trace,
                move |site, media| {
                    let (settings, to) = (settings.clone(), of_site(&site, &all));
                    Box::pin(async move {
                        let zone = zone(number);
                        let host = LogHost::start(site, &media, path, to, zone, settings).await?;
                        Ok(Box::new(host) as Hosted)
                    })
                },
            ));
        }
        for log in nodes.iter().filter(|node| node.name.starts_with("log-")) {
            log.disk.set_bytes_per_second(topology.log_bytes_per_second);
        }
        for number in 1..=topology.storage {
            let (settings, all) = (settings.storage, controllers.clone());
            let name = format!("storage-{number}");
            nodes.push(Node::new(
                name,
                format!("10.0.4.{number}"),
                None,
                &trace,
                move |site, media| {
                    let to = of_site(&site, &all);
                    Box::pin(async move {
                        let zone = zone(number);
                        let host =
                            StorageHost::start(site, &media, path, to, zone, settings, 0).await?;
                        Ok(Box::new(host) as Hosted)
                    })
                },
            ));
        }
        let inner = Inner {
            nodes,
            clocks: Clocks::new(trace.clone()),
            trace,
            clients: AtomicU32::new(0),
            topology,
            controllers,
            network,
            climate,
            client_settings: settings.client,
            workers: Mutex::default(),
        };
        World { inner: Arc::new(inner) }
    }

    /// The shape of the cluster.
    pub fn topology(&self) -> &Topology {
        &self.inner.topology
    }

    /// The trace of the run.
    pub fn trace(&self) -> &Trace {
        &self.inner.trace
    }

    /// The names of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.inner.nodes.iter().map(|node| node.name.as_str())
    }

    /// The names of the nodes of a kind, such as "storage-".
    pub fn nodes_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.nodes().filter(move |name| name.starts_with(kind))
    }

    /// Where the controllers are reached.
    pub fn controllers(&self) -> Vec<Address> {
        self.inner.controllers.all()
    }

    /// A controller that is off comes back at another port of its machine.
    pub fn move_controller(&self, name: &str) {
        let old = self.address_of(name);
        let port = old.0.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let new = Address::new(format!("{}:{}", self.ip_of(name), port.unwrap_or(PORT) + 1));
        self.note(format_args!("{name} moves from {old} to {new}"));
        self.inner.controllers.set(name, new);
    }

    /// Where a node is reached.
    ///
    /// # Panics
    ///
    /// If no node has this name, as with all verbs.
    pub fn address_of(&self, name: &str) -> Address {
        let node = self.node(name);
        self.inner.controllers.of(name).unwrap_or_else(|| address(node.ip))
    }

    /// A node's address on the simulated network.
    pub fn ip_of(&self, name: &str) -> IpAddr {
        self.node(name).ip
    }

    /// What madsim knows a node by.
    pub fn id_of(&self, name: &str) -> madsim::task::NodeId {
        self.node(name).handle.id()
    }

    fn node(&self, name: &str) -> &Node {
        let found = self.inner.nodes.iter().find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("no node has the name {name}"))
    }

    /// Ends a node's tasks as a power failure would: of what its disk had not synced some is lost, and its peers are not
    /// told.
    pub fn power_off(&self, name: &str) {
        let node = self.node(name);
        self.note(format_args!("power off {name}"));
        self.inner.network.cut_power(node.ip);
        self.stop(node);
        node.disk.power_failure();
    }

    /// Ends a node's tasks as SIGKILL would: the operating system still writes what it was given.
    pub fn kill(&self, name: &str) {
        let node = self.node(name);
        self.note(format_args!("kill {name}"));
        self.stop(node);
        node.disk.crash_process();
    }

    /// Tells a node to end, as SIGTERM would. One that has just been started does not hear it.
    pub fn ask_to_stop(&self, name: &str) {
        self.note(format_args!("tell {name} to end"));
        self.node(name).stop.notify_waiters();
    }

    fn stop(&self, node: &Node) {
        node.down.fetch_add(1, Ordering::SeqCst);
        Handle::current().kill(node.handle.id());
    }

    /// Starts a node again that was killed or powered off, unless there is another reason for it to be down.
    pub fn start_again(&self, name: &str) {
        let node = self.node(name);
        if node.down.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.note(format_args!("start {name}"));
            self.inner.network.restore_power(node.ip);
            Handle::current().restart(node.handle.id());
            if node.paused.load(Ordering::SeqCst) > 0 {
                Handle::current().pause(node.handle.id());
            }
        }
    }

    /// Whether a node is meant to run.
    pub fn is_up(&self, name: &str) -> bool {
        self.node(name).down.load(Ordering::SeqCst) == 0
    }

    /// A node does nothing any more, as after SIGSTOP. Its connections stay open.
    pub fn pause(&self, name: &str) {
        let node = self.node(name);
        self.note(format_args!("pause {name}"));
        node.paused.fetch_add(1, Ordering::SeqCst);
        Handle::current().pause(node.handle.id());
    }

    /// A node goes on, unless there is another reason for it to stand still.
    pub fn resume(&self, name: &str) {
        let node = self.node(name);
        if node.paused.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.note(format_args!("resume {name}"));
            Handle::current().resume(node.handle.id());
        }
    }

    /// The disk of a node.
    pub fn disk_of(&self, name: &str) -> &MachineDisk {
        &self.node(name).disk
    }

    /// The network, to do things to it.
    pub fn network(&self) -> &SimulatedNetwork {
        &self.inner.network
    }

    /// The clocks, to do things to them.
    pub fn clocks(&self) -> &Clocks {
        &self.inner.clocks
    }

    /// How links are as a rule in this run.
    pub fn climate(&self) -> LinkConditions {
        self.inner.climate.clone()
    }

    /// The addresses of nodes on the simulated network.
    pub fn ips_of<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
        names.into_iter().map(|name| self.ip_of(name)).collect()
    }

    /// The addresses of all clients so far.
    pub fn client_ips(&self) -> Vec<IpAddr> {
        (0..self.inner.clients.load(Ordering::SeqCst)).map(client_ip).collect()
    }

    /// Powers a node off and gives it an empty disk: when it is started again, it is somebody new.
    pub fn lose(&self, name: &str) {
        self.power_off(name);
        self.note(format_args!("the disk of {name} is lost"));
        self.node(name).disk.replace_with_empty();
    }

    /// Puts the disk of each of two nodes that are off into the other one.
    pub fn swap_disks(&self, one: &str, other: &str) {
        self.note(format_args!("{one} and {other} swap their disks"));
        self.node(one).disk.exchange(&self.node(other).disk);
    }

    /// Ends whatever was done to links, disks and clocks: what remains is for the database to make good.
    pub fn heal(&self) {
        self.inner.network.calm_down();
        for node in &self.inner.nodes {
            node.disk.set_faults(Faults::NONE);
            node.disk.fill(false);
            node.disk.lift_stall();
            self.inner.clocks.set_rate(node.handle.id(), 1.0);
        }
    }

    fn note(&self, event: impl std::fmt::Display) {
        self.inner.trace.note(event);
    }

    /// Runs `client` on a node of its own, with a database connected to the cluster, and waits for it.
    pub fn client<F, Fut, T>(&self, client: F) -> impl Future<Output = T> + use<F, Fut, T>
    where
        F: FnOnce(Database) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        self.on_client_node(self.connected(client))
    }

    /// Runs a client of a workload, as [`World::client`] does, where faults may happen to it. `None` if it was killed.
    pub fn worker<F, Fut, T>(
        &self,
        number: usize,
        is_mortal: bool,
        client: F,
    ) -> impl Future<Output = Option<T>> + use<F, Fut, T>
    where
        F: FnOnce(Database) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let (node, ip) = self.client_node();
        let worker = Worker { ip, id: node.id(), is_mortal };
        self.inner.workers.lock().insert(number, worker);
        let running = node.spawn(self.connected(client));
        async move { running.await.ok() }
    }

    /// The client of a workload that a number stands for, whatever the number is; of those that may be killed, if it is about
    /// that. `None` if there is none.
    pub fn worker_of(&self, number: u64, to_kill: bool) -> Option<Worker> {
        let workers = self.inner.workers.lock();
        let possible = workers.values().filter(|worker| worker.is_mortal || !to_kill);
        let possible: Vec<Worker> = possible.copied().collect();
        possible.get((number % possible.len().max(1) as u64) as usize).copied()
    }

    fn connected<F, Fut, T>(&self, client: F) -> impl Future<Output = T> + use<F, Fut, T>
    where
        F: FnOnce(Database) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let controllers = self.controllers();
        let settings = self.inner.client_settings.clone();
        async move {
            loop {
                let network = Network::new();
                let (controllers, settings) = (controllers.clone(), settings.clone());
                match Database::connect_with_settings(network, controllers, settings).await {
                    Ok(database) => return client(database).await,
                    Err(_) => runtime::sleep(Duration::from_millis(100)).await,
                }
            }
        }
    }

    /// Runs something on a client's node of its own, and waits for it.
    pub fn on_client_node<T, W>(&self, work: W) -> impl Future<Output = T> + use<T, W>
    where
        T: Send + 'static,
        W: Future<Output = T> + Send + 'static,
    {
        let (node, _) = self.client_node();
        let running = node.spawn(work);
        async move { running.await.expect("only clients of workloads are killed") }
    }

    fn client_node(&self) -> (NodeHandle, IpAddr) {
        let ip = client_ip(self.inner.clients.fetch_add(1, Ordering::SeqCst));
        (Handle::current().create_node().name("client").ip(ip).build(), ip)
    }
}

impl Node {
    /// A node that runs a role whenever it is started.
    fn new<F>(name: String, ip: String, moved: Option<Places>, trace: &Trace, role: F) -> Node
    where
        F: Fn(Arc<Site>, Media) -> BoxFuture<'static, Result<Hosted, Error>>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let disk = MachineDisk::new(DiskProfile::draw());
        let (kept, first) = (disk.clone(), address(&ip));
        let (trace, who) = (trace.clone(), name.clone());
        let stop = Arc::new(Notify::new());
        let asked = Arc::clone(&stop);
        let init = move || {
            let (role, disk, asked) = (role.clone(), kept.clone(), Arc::clone(&asked));
            let listen = moved.as_ref().and_then(|places| places.of(&who));
            let listen = listen.unwrap_or_else(|| first.clone());
            let (trace, who) = (trace.clone(), who.clone());
            async move {
                while let Err(error) = live(&role, disk.media(), &listen, &asked).await {
                    trace.note(format_args!("{who} ends: {error}"));
                    runtime::sleep(RESTART_PAUSE).await;
                }
                trace.note(format_args!("{who} has ended in order"));
            }
        };
        let ip = parse(&ip);
        let handle = Handle::current().create_node().name(&name).ip(ip).init(init).build();
        let [down, paused] = std::array::from_fn(|_| AtomicU32::new(0));
        Node { name, ip, handle, disk, down, paused, stop }
    }
}

/// The life of a process: until it cannot go on, or is told to end.
async fn live<F>(role: &F, media: Media, listen: &Address, stop: &Notify) -> Result<(), Error>
where
    F: Fn(Arc<Site>, Media) -> BoxFuture<'static, Result<Hosted, Error>>,
{
    let site = Arc::new(Site::listen(listen, None).await?);
    let ended = match role(Arc::clone(&site), media).await {
        Ok(hosted) => tokio::select! {
            biased;
            error = site.failed() => Err(error),
            () = stop.notified() => {
                hosted.shut_down().await;
                mark(Mark::EndedInOrder);
                Ok(())
            }
        },
        Err(error) => Err(error),
    };
    site.close();
    ended
}

/// Runs a simulation with a seed, to its end, on a thread of its own.
///
/// A fresh thread has not drawn the keys of its hash maps yet, so madsim can seed them. tarpc's deadlines
/// need an entered runtime of tokio itself: one that is made inside the simulation reads the virtual
/// clock, and a task of the simulation drives its timers.
pub fn run<F, Fut>(seed: u64, simulation: F) -> Fut::Output
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future,
    Fut::Output: Send + 'static,
{
    let run = move || {
        let config = madsim::Config::default();
        let runtime = madsim::runtime::Runtime::with_seed_and_config(seed, config);
        let real = OnceCell::new();
        let (output, _entered) = runtime.block_on(async {
            let real = real.get_or_init(|| {
                let built =
                    real_tokio::runtime::Builder::new_current_thread().enable_time().build();
                Arc::new(built.expect("a runtime without threads or sockets can be built"))
            });
            let entered = real.enter();
            let driver = Arc::clone(real);
            madsim::task::spawn_local(async move {
                loop {
                    runtime::sleep(Duration::from_millis(5)).await;
                    driver.block_on(real_tokio::task::yield_now());
                }
            });
            // Other tasks may still run once after this one has ended: the guard must outlive them.
            (simulation().await, entered)
        });
        drop(runtime);
        output
    };
    // Without optimization the futures of a whole cluster and its clients need more than a thread has by default.
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run);
    let thread = thread.expect("a thread can be started");
    match thread.join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
