//! A simulated cluster, with verbs.
//!
//! ```text
//!   10.0.1.1.. controllers      10.0.3.1.. logs           10.0.5.1.. clients
//!   10.0.2.1.. coordinators     10.0.4.1.. storage
//! ```
//!
//! The n-th process of each kind is in the n-th zone.
//!
//! Each node runs what the binary of its role runs. Its disk belongs to the world, so a node that is
//! killed and started again finds it, less what a power failure has taken.

use std::{
    convert::Infallible, future::Future, net::IpAddr, path::Path, sync::Arc, time::Duration,
};

use ferrisdb_client::Database;
use ferrisdb_core::{
    Result,
    controllers::Controllers,
    id::Address,
    runtime,
    service::controller::{Configuration, Redundancy},
    transport::Network,
};
use ferrisdb_server::{
    controller::ControllerSettings,
    coordinator::CoordinatorSettings,
    host::{ControllerHost, CoordinatorHost, LogHost, Media, Site, StorageHost},
    log::LogSettings,
    storage::StorageSettings,
};
use madsim::runtime::{Handle, NodeHandle};

use crate::{
    disk::{DiskProfile, MachineDisk},
    trace::Trace,
};

/// How many nodes of each kind a cluster has.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// How many copies of everything.
    pub redundancy: Redundancy,
    /// Members of the group of controllers.
    pub controllers: u32,
    /// Processes for sequencer, proxies and resolvers.
    pub coordinators: u32,
    /// Logs, each of which gets every batch.
    pub logs: u32,
    /// Further processes that could be logs.
    pub spare_logs: u32,
    /// Storage servers; the keyspace is spread over them.
    pub storage: u32,
    /// Proxies of a generation.
    pub proxies: u32,
    /// Resolvers of a generation.
    pub resolvers: u32,
}

impl Topology {
    /// One process of each kind.
    pub fn single() -> Topology {
        Topology {
            redundancy: Redundancy::Single,
            controllers: 1,
            coordinators: 1,
            logs: 1,
            spare_logs: 0,
            storage: 1,
            proxies: 1,
            resolvers: 1,
        }
    }

    fn controller_addresses(&self) -> Vec<Address> {
        (1..=self.controllers).map(|number| address(&format!("10.0.1.{number}"))).collect()
    }
}

/// A simulated cluster.
pub struct World {
    nodes: Vec<Node>,
    trace: Trace,
    clients: u32,
    controllers: Vec<Address>,
}

/// One process of the cluster.
struct Node {
    name: String,
    address: Address,
    handle: NodeHandle,
    disk: MachineDisk,
}

const PORT: u16 = 4500;
/// After how long a process that has ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

fn address(ip: &str) -> Address {
    Address::new(format!("{ip}:{PORT}"))
}

impl World {
    /// Starts all nodes of a cluster. Processes find each other by and by.
    pub fn start(topology: Topology, trace: Trace) -> World {
        let controllers = topology.controller_addresses();
        let mut world =
            World { nodes: Vec::new(), trace, clients: 0, controllers: controllers.clone() };
        let settings = ControllerSettings {
            configuration: Configuration {
                redundancy: topology.redundancy,
                logs: topology.logs,
                proxies: topology.proxies,
                resolvers: topology.resolvers,
                storage_replace_after_ms: 10_000,
            },
            storage_servers: topology.storage,
            shard_boundaries: (1..topology.storage)
                .map(|index| format!("bank/account/{:04}", index * 3).into())
                .collect(),
            ..ControllerSettings::default()
        };
        for number in 1..=topology.controllers {
            let (settings, all) = (settings.clone(), controllers.clone());
            let ip = format!("10.0.1.{number}");
            world.add(&format!("controller-{number}"), &ip, move |site, media| {
                let (settings, all) = (settings.clone(), all.clone());
                async move {
                    let path = Path::new("/data");
                    let _host = ControllerHost::start(site, &media, path, all, settings).await?;
                    std::future::pending().await
                }
            });
        }
        let of_site =
            |site: &Site, all: &[Address]| Controllers::new(site.network().clone(), all.to_vec());
        for number in 1..=topology.coordinators {
            let (zone, all) = (format!("zone-{number}"), controllers.clone());
            let ip = format!("10.0.2.{number}");
            world.add(&format!("coordinator-{number}"), &ip, move |site, _| {
                let (zone, to) = (zone.clone(), of_site(&site, &all));
                async move {
                    let settings = CoordinatorSettings::default();
                    let _host = CoordinatorHost::start(site, to, zone, settings);
                    std::future::pending().await
                }
            });
        }
        for number in 1..=topology.logs + topology.spare_logs {
            let (zone, all) = (format!("zone-{number}"), controllers.clone());
            let ip = format!("10.0.3.{number}");
            world.add(&format!("log-{number}"), &ip, move |site, media| {
                let (zone, to) = (zone.clone(), of_site(&site, &all));
                async move {
                    let (path, settings) = (Path::new("/data"), LogSettings::default());
                    let _host = LogHost::start(site, &media, path, to, zone, settings).await?;
                    std::future::pending().await
                }
            });
        }
        for number in 1..=topology.storage {
            let (zone, all) = (format!("zone-{number}"), controllers.clone());
            let ip = format!("10.0.4.{number}");
            world.add(&format!("storage-{number}"), &ip, move |site, media| {
                let (zone, to) = (zone.clone(), of_site(&site, &all));
                async move {
                    let (path, settings) = (Path::new("/data"), StorageSettings::default());
                    let host = StorageHost::start(site, &media, path, to, zone, settings, 0);
                    let _host = host.await?;
                    std::future::pending().await
                }
            });
        }
        world
    }

    /// Adds a node that runs `process` whenever it is started, and again whenever it ends: its disk may have
    /// failed, and be well again.
    fn add<F, Fut>(&mut self, name: &str, ip: &str, process: F)
    where
        F: Fn(Arc<Site>, Media) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Infallible>> + Send + 'static,
    {
        let disk = MachineDisk::new(DiskProfile::draw());
        let listen = address(ip);
        let address = listen.clone();
        let kept = disk.clone();
        let init = move || {
            let (process, disk, listen) = (process.clone(), kept.clone(), listen.clone());
            async move {
                loop {
                    let site = Site::listen(&listen, None).await;
                    let site = Arc::new(site.expect("a node's address is its own"));
                    let running = process(Arc::clone(&site), disk.media());
                    let error = tokio::select! {
                        biased;
                        error = site.failed() => error,
                        Err(error) = running => error,
                    };
                    tracing::warn!(%error, %listen, "a process has ended; it is started again");
                    site.close();
                    disk.crash_process();
                    drop(site);
                    runtime::sleep(RESTART_PAUSE).await;
                }
            }
        };
        let ip: IpAddr = ip.parse().expect("the world's addresses are well-formed");
        let handle = Handle::current().create_node().name(name).ip(ip).init(init).build();
        self.nodes.push(Node { name: name.to_string(), address, handle, disk });
    }

    /// The names of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// Where the controllers are reached.
    pub fn controllers(&self) -> &[Address] {
        &self.controllers
    }

    /// Where a node is reached.
    pub fn address_of(&self, index: usize) -> &Address {
        &self.nodes[index].address
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Kills a node as a power failure would: its tasks end, and what its disk had not synced may be lost.
    pub fn kill(&self, index: usize) {
        let node = &self.nodes[index];
        self.trace.note(format_args!("kill {}", node.name));
        Handle::current().kill(node.handle.id());
        node.disk.power_failure();
    }

    /// The disk of a node.
    pub fn disk(&self, index: usize) -> &MachineDisk {
        &self.nodes[index].disk
    }

    /// Starts a node again that was killed.
    pub fn restart(&self, index: usize) {
        let node = &self.nodes[index];
        self.trace.note(format_args!("restart {}", node.name));
        Handle::current().restart(node.handle.id());
    }

    /// The names of the nodes of a kind, such as "storage-".
    pub fn nodes_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (usize, &'a str)> + 'a {
        self.nodes().enumerate().filter(move |(_, name)| name.starts_with(kind))
    }

    /// Kills a node for good, and gives it an empty disk: when it is started again, it is somebody new.
    pub fn lose(&mut self, index: usize) {
        self.kill(index);
        let node = &mut self.nodes[index];
        self.trace.note(format_args!("the disk of {} is lost", node.name));
        node.disk.replace_with_empty();
    }

    /// Runs `client` on a node of its own, with a database connected to the cluster, and waits for it.
    pub fn client<F, Fut, T>(&mut self, client: F) -> impl Future<Output = T> + use<F, Fut, T>
    where
        F: FnOnce(Database) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let controllers = self.controllers.clone();
        self.on_client_node(async move {
            loop {
                let network = Network::new();
                match Database::connect_with(network, controllers.clone()).await {
                    Ok(database) => return client(database).await,
                    Err(_) => runtime::sleep(Duration::from_millis(100)).await,
                }
            }
        })
    }

    /// Runs something on a client's node of its own, and waits for it.
    pub fn on_client_node<T, W>(&mut self, work: W) -> impl Future<Output = T> + use<T, W>
    where
        T: Send + 'static,
        W: Future<Output = T> + Send + 'static,
    {
        let (high, low) = (5 + self.clients / 250, 1 + self.clients % 250);
        self.clients += 1;
        let ip: IpAddr =
            format!("10.0.{high}.{low}").parse().expect("the world's addresses are well-formed");
        let node = Handle::current().create_node().name("client").ip(ip).build();
        let running = node.spawn(work);
        async move { running.await.expect("a client's node is never killed") }
    }
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
        runtime.block_on(async move {
            let real = real_tokio::runtime::Builder::new_current_thread().enable_time().build();
            let real = Arc::new(real.expect("a runtime without threads or sockets can be built"));
            let _entered = real.enter();
            let driver = Arc::clone(&real);
            madsim::task::spawn_local(async move {
                loop {
                    runtime::sleep(Duration::from_millis(5)).await;
                    driver.block_on(real_tokio::task::yield_now());
                }
            });
            simulation().await
        })
    };
    #[expect(clippy::disallowed_methods, reason = "it is the world itself that runs on it")]
    let thread = std::thread::spawn(run);
    match thread.join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
