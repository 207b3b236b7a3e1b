//! A simulated cluster, with verbs.
//!
//! ```text
//!   10.0.0.1  controller        10.0.0.11.. logs          10.0.0.31.. clients
//!   10.0.0.2  coordinator       10.0.0.21.. storage
//! ```
//!
//! Each node runs what the binary of its role runs. Its media belong to the world, so a node that is
//! killed and started again finds its disk, less what was not synced.

use std::{future::Future, net::IpAddr, path::Path, sync::Arc, time::Duration};

use ferrisdb_client::Database;
use ferrisdb_core::{
    id::Address,
    runtime::{self, disk::MemoryDisk},
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

use crate::trace::Trace;

/// How many nodes of each kind a cluster has.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// Logs, each of which gets every batch.
    pub logs: u32,
    /// Storage servers; the keyspace is spread over them.
    pub storage: u32,
    /// Proxies of the coordinator.
    pub proxies: u32,
    /// Resolvers of the coordinator.
    pub resolvers: u32,
}

/// A simulated cluster.
pub struct World {
    nodes: Vec<Node>,
    trace: Trace,
    clients: u32,
}

/// One process of the cluster.
struct Node {
    name: String,
    handle: NodeHandle,
    disk: MemoryDisk,
}

const PORT: u16 = 4500;
const CONTROLLER: &str = "10.0.0.1";

fn address(ip: &str) -> Address {
    Address::new(format!("{ip}:{PORT}"))
}

impl World {
    /// Starts all nodes of a cluster. Processes find each other by and by.
    pub fn start(topology: Topology, trace: Trace) -> World {
        let mut world = World { nodes: Vec::new(), trace, clients: 0 };
        let settings = ControllerSettings {
            logs: topology.logs,
            log_replication: topology.logs,
            storage_servers: topology.storage,
            shard_boundaries: (1..topology.storage)
                .map(|index| format!("bank/account/{:04}", index * 3).into())
                .collect(),
            proxies: topology.proxies,
            resolvers: topology.resolvers,
            ..ControllerSettings::default()
        };
        world.add("controller", CONTROLLER, move |site, media| {
            let settings = settings.clone();
            async move {
                let path = Path::new("/data");
                let host = ControllerHost::start(site, &media, path, settings).await;
                let _host = host.expect("the controller starts on its own disk");
                std::future::pending::<()>().await;
            }
        });
        world.add("coordinator", "10.0.0.2", |site, _| async move {
            let controllers = vec![address(CONTROLLER)];
            let _host = CoordinatorHost::start(site, controllers, CoordinatorSettings::default());
            std::future::pending::<()>().await;
        });
        for index in 0..topology.logs {
            let ip = format!("10.0.0.{}", 11 + index);
            world.add(&format!("log-{index}"), &ip, |site, media| async move {
                let (path, controllers) = (Path::new("/data"), vec![address(CONTROLLER)]);
                let settings = LogSettings::default();
                let host = LogHost::start(site, &media, path, controllers, settings).await;
                let _host = host.expect("the log starts on its own disk");
                std::future::pending::<()>().await;
            });
        }
        for index in 0..topology.storage {
            let ip = format!("10.0.0.{}", 21 + index);
            world.add(&format!("storage-{index}"), &ip, |site, media| async move {
                let (path, controllers) = (Path::new("/data"), vec![address(CONTROLLER)]);
                let settings = StorageSettings::default();
                let host = StorageHost::start(site, &media, path, controllers, settings, 0).await;
                let _host = host.expect("the storage server starts on its own disk");
                std::future::pending::<()>().await;
            });
        }
        world
    }

    /// Adds a node that runs `process` whenever it is started.
    fn add<F, Fut>(&mut self, name: &str, ip: &str, process: F)
    where
        F: Fn(Arc<Site>, Media) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let disk = MemoryDisk::new();
        let media = Media::memory(disk.clone());
        let listen = address(ip);
        let init = move || {
            let (process, media, listen) = (process.clone(), media.clone(), listen.clone());
            async move {
                let site = Site::listen(&listen, None).await.expect("a node's address is its own");
                process(Arc::new(site), media).await;
            }
        };
        let ip: IpAddr = ip.parse().expect("the world's addresses are well-formed");
        let handle = Handle::current().create_node().name(name).ip(ip).init(init).build();
        self.nodes.push(Node { name: name.to_string(), handle, disk });
    }

    /// The names of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Kills a node as a power failure would: its tasks end, and what its disk had not synced is lost.
    pub fn kill(&self, index: usize) {
        let node = &self.nodes[index];
        self.trace.note(format_args!("kill {}", node.name));
        Handle::current().kill(node.handle.id());
        node.disk.crash();
    }

    /// Starts a node again that was killed.
    pub fn restart(&self, index: usize) {
        let node = &self.nodes[index];
        self.trace.note(format_args!("restart {}", node.name));
        Handle::current().restart(node.handle.id());
    }

    /// Runs `client` on a node of its own, with a database connected to the cluster, and waits for it.
    pub fn client<F, Fut, T>(&mut self, client: F) -> impl Future<Output = T> + use<F, Fut, T>
    where
        F: FnOnce(Database) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let ip = format!("10.0.0.{}", 31 + self.clients);
        self.clients += 1;
        let ip: IpAddr = ip.parse().expect("the world's addresses are well-formed");
        let node = Handle::current().create_node().name("client").ip(ip).build();
        let running = node.spawn(async move {
            loop {
                let network = Network::new();
                match Database::connect_with(network, vec![address(CONTROLLER)]).await {
                    Ok(database) => return client(database).await,
                    Err(_) => runtime::sleep(Duration::from_millis(100)).await,
                }
            }
        });
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
