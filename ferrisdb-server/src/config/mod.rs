//! The settings of every binary: plain structs, filled from four layers.
//!
//! ```text
//!   --redundancy triple                      a flag                      wins
//!   FERRISDB_REDUNDANCY=double               the environment
//!   redundancy = 'double'                    a file, named by --config
//!   single                                   the default                 loses
//! ```
//!
//! A setting is declared once, as a field below: its doc comment is the help text, its parser knows the legal
//! values, and its name makes the flag, the variable and the key of the file. [`load()`] stacks the layers and
//! refuses what no setting answers to; each role then checks in [`Role::check`] what only holds between
//! settings. A host sees the structs and never a flag.
//!
//! Start with [`LogConfig`], then [`load()`].

mod error;
mod follow;
mod load;
mod value;

use std::{path::PathBuf, time::Duration};

use ferrisdb_core::{Key, id::Address, service::controller::Redundancy};

pub use error::SettingsError;
pub use follow::follow;
pub use load::{Load, Loaded, command, load};
pub use value::{LogFormat, parse_bytes};

use value::{address, bytes, log_filter, milliseconds, redundancy, seconds, shard_boundary, zone};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// What one binary is called, and how its settings differ from those of the others.
pub trait Role: clap::Args {
    /// The binary's name.
    const BINARY: &str;
    /// What it is, in a sentence.
    const ABOUT: &str;
    /// Shown at the end of the help: how it is used.
    const EXAMPLE: &str;
    /// Defaults of settings that several binaries share: names and values.
    const DEFAULTS: &[(&str, &str)];

    /// Checks what must hold between settings; each for itself was checked when it was parsed.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Contradiction`], naming the settings.
    fn check(&self) -> Result<(), SettingsError>;
}

/// Where a process is reached.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ProcessConfig {
    /// Address to listen on, as HOST:PORT.
    ///
    /// `0.0.0.0` or `[::]` listens on every interface and needs --advertise as well. Port 0 takes a free port,
    /// which the line printed at the start names.
    #[arg(long, env = "FERRISDB_LISTEN", value_name = "HOST:PORT")]
    #[arg(value_parser = address::<0>, default_value = "127.0.0.1:0")]
    pub listen: Address,

    /// Address at which others reach this process, if it is not the one it listens on.
    ///
    /// To be given behind a translation of addresses, in containers, and when listening on every interface.
    /// By default the address of --listen, with its real port.
    #[arg(long, env = "FERRISDB_ADVERTISE", value_name = "HOST:PORT")]
    #[arg(value_parser = address::<1>)]
    pub advertise: Option<Address>,

    /// What the process shares its fate with: the name of a machine, a rack, or a data center.
    ///
    /// Copies of the same data are kept in different zones. By default the host of the address at which the
    /// process is reached, which is right when a machine has one address.
    #[arg(long, env = "FERRISDB_ZONE", value_name = "NAME")]
    #[arg(value_parser = zone)]
    pub zone: Option<String>,

    /// How long the process looks for the next message before it sleeps, in microseconds; 0 sleeps at once.
    ///
    /// A thread that sleeps is slow to wake: on a virtual machine that takes longer than a request. The time costs nothing where
    /// a core has nothing else to do. Brings most with one worker thread.
    #[arg(
        long,
        env = "FERRISDB_STAY_AWAKE_US",
        value_name = "MICROSECONDS",
        default_value = "200"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub stay_awake_us: u32,
}

impl ProcessConfig {
    /// How long the process looks for the next message before it sleeps.
    pub fn stay_awake(&self) -> Duration {
        Duration::from_micros(self.stay_awake_us.into())
    }

    /// The zone of a process that is reached at `address`.
    pub fn zone(&self, address: &Address) -> String {
        let host = || address.0.rsplit_once(':').map_or(address.0.as_str(), |(host, _)| host);
        self.zone.clone().unwrap_or_else(|| host().to_owned())
    }

    fn check(&self) -> Result<(), SettingsError> {
        let host = self.listen.0.rsplit_once(':').map_or("", |(host, _)| host);
        if self.advertise.is_none() && ["0.0.0.0", "[::]"].contains(&host) {
            return Err(SettingsError::Contradiction(format!(
                "listen = {} means every interface, which is no address that others could connect to: \
                 set advertise to the one that they should use",
                self.listen
            )));
        }
        Ok(())
    }
}

/// What the controllers create a cluster with, and how they watch it.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ClusterConfig {
    /// How many copies there are of everything: single, double or triple, each copy in a zone of its own.
    ///
    /// With double the cluster survives the loss of any one zone, with triple that of any two. Only looked at when
    /// the cluster is created; later it is changed by "ferrisdb-cli configure".
    #[arg(long, env = "FERRISDB_REDUNDANCY", value_name = "MODE", default_value = "single")]
    #[arg(value_parser = redundancy)]
    pub redundancy: Redundancy,

    /// How many log processes a generation uses; at least as many as copies.
    ///
    /// A commit is acknowledged when all of them have it on disk. Further log processes stand by. By default as
    /// many as copies. Only looked at when the cluster is created.
    #[arg(long, env = "FERRISDB_LOGS", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    pub logs: Option<u32>,

    /// How many storage servers to wait for when the cluster is created.
    ///
    /// The keys are spread over them; those that come later take their share by themselves. By default as many
    /// as copies.
    #[arg(long, env = "FERRISDB_STORAGE_SERVERS", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub storage_servers: Option<u32>,

    /// How long a storage server may stay away before its data is copied to others, in seconds.
    ///
    /// A short time restores the redundancy soon; a long one avoids copying for a machine that only restarts.
    /// Only looked at when the cluster is created.
    #[arg(
        id = "storage_replace_after_s",
        long = "storage-replace-after-s",
        env = "FERRISDB_STORAGE_REPLACE_AFTER_S"
    )]
    #[arg(value_name = "SECONDS", default_value = "60")]
    #[arg(value_parser = seconds::<1, 31_536_000>)]
    pub storage_replace_after: Duration,

    /// Keys at which the keyspace is cut into shards: ascending, separated by commas.
    ///
    /// Bytes are written as in the shell: \x00 to \xff, \\ for a backslash, and \x2c for a comma. "g,n,t"
    /// makes four shards. By default nothing is cut: one shard holds all keys. Only looked at when the
    /// controller starts with an empty directory.
    #[arg(long, env = "FERRISDB_SHARD_BOUNDARIES", value_name = "KEYS", value_delimiter = ',')]
    #[arg(value_parser = shard_boundary)]
    pub shard_boundaries: Vec<Key>,

    /// How many commit proxies a generation uses.
    ///
    /// They batch the read versions and commits of clients, and spread over the coordinator processes.
    #[arg(long, env = "FERRISDB_PROXIES", value_name = "COUNT", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    pub proxies: u32,

    /// How many resolvers a generation uses.
    ///
    /// Each finds the conflicts in its part of the keyspace.
    #[arg(long, env = "FERRISDB_RESOLVERS", value_name = "COUNT", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    pub resolvers: u32,

    /// How long a process may be silent before it counts as failed, in milliseconds.
    ///
    /// A failed member of the running generation causes a recovery. A short time lets the cluster recover
    /// soon; too short a time makes it recover for nothing when a machine is slow.
    #[arg(
        id = "failure_timeout_ms",
        long = "failure-timeout-ms",
        env = "FERRISDB_FAILURE_TIMEOUT_MS"
    )]
    #[arg(value_name = "MILLISECONDS", default_value = "1000")]
    #[arg(value_parser = milliseconds::<100, 600_000>)]
    pub failure_timeout: Duration,
}

impl ClusterConfig {
    /// How many logs: as set, or as many as copies.
    pub fn logs(&self) -> u32 {
        self.logs.unwrap_or(self.redundancy.copies())
    }

    /// How many storage servers to wait for: as set, or as many as copies.
    pub fn storage_servers(&self) -> u32 {
        self.storage_servers.unwrap_or(self.redundancy.copies())
    }

    fn check(&self) -> Result<(), SettingsError> {
        let at_least = |name: &str, value: u32| {
            if value >= self.redundancy.copies() {
                return Ok(());
            }
            Err(SettingsError::Contradiction(format!(
                "{name} = {value} must be at least {}, the number of copies of redundancy = {}",
                self.redundancy.copies(),
                self.redundancy
            )))
        };
        at_least("logs", self.logs())?;
        at_least("storage_servers", self.storage_servers())?;
        if let Some(pair) = self.shard_boundaries.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(SettingsError::Contradiction(format!(
                "shard_boundaries must ascend, but {} comes before {}",
                ferrisdb_core::key::escape(&pair[0]),
                ferrisdb_core::key::escape(&pair[1])
            )));
        }
        Ok(())
    }
}

/// What a log keeps where.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct LogTuning {
    /// Size at which a log begins a new segment file, in bytes or as 64MiB.
    ///
    /// Disk space comes back by whole segments, when all storage servers have what is in them.
    #[arg(long, env = "FERRISDB_SEGMENT_BYTES", value_name = "SIZE", default_value = "64MiB")]
    #[arg(value_parser = bytes::<{ 64 * KIB }, { 16 * GIB }>)]
    pub segment_bytes: u64,

    /// Most memory for messages that storage servers have not fetched yet, in bytes or as 256MiB.
    ///
    /// Storage servers that lag further behind are served from disk, which is slower.
    #[arg(long, env = "FERRISDB_MEMORY_BYTES_MAX", value_name = "SIZE", default_value = "256MiB")]
    #[arg(value_parser = bytes::<MIB, TIB>)]
    pub memory_bytes_max: u64,
}

/// What a storage server keeps where, and when it moves changes to disk.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct StorageTuning {
    /// Memory for blocks read from disk, in bytes or as 256MiB.
    #[arg(long, env = "FERRISDB_CACHE_BYTES", value_name = "SIZE", default_value = "256MiB")]
    #[arg(value_parser = bytes::<MIB, TIB>)]
    pub cache_bytes: u64,

    /// Most memory for the last seconds of changes, which transactions read from, in bytes or as 512MiB.
    ///
    /// When they take more, transactions become too old sooner than after five seconds; if that is not
    /// enough, the storage server fetches nothing more until it has moved changes to disk.
    #[arg(long, env = "FERRISDB_WINDOW_BYTES_MAX", value_name = "SIZE", default_value = "512MiB")]
    #[arg(value_parser = bytes::<MIB, TIB>)]
    pub window_bytes_max: u64,

    /// How often changes that have left the window are written to disk, in milliseconds.
    ///
    /// Longer intervals write less, because later changes of a key replace earlier ones; shorter ones let
    /// the logs give back disk space sooner.
    #[arg(
        id = "flush_interval_ms",
        long = "flush-interval-ms",
        env = "FERRISDB_FLUSH_INTERVAL_MS"
    )]
    #[arg(value_name = "MILLISECONDS", default_value = "250")]
    #[arg(value_parser = milliseconds::<1, 60_000>)]
    pub flush_interval: Duration,

    /// Size of changes that are written to disk before the interval is over, and about how much is written at once, in bytes or as 16MiB.
    #[arg(long, env = "FERRISDB_FLUSH_BYTES", value_name = "SIZE", default_value = "16MiB")]
    #[arg(value_parser = bytes::<{ 64 * KIB }, GIB>)]
    pub flush_bytes: u64,
}

/// The controllers that a process reports to.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ControllersConfig {
    /// Addresses of the controllers, as HOST:PORT, separated by commas.
    ///
    /// The process belongs to the cluster of these controllers, for good: its data directory remembers. Any one that answers is
    /// enough. When none does, a file given by --config is read again, so it may be corrected while the process runs.
    #[arg(long = "controllers", id = "controllers", env = "FERRISDB_CONTROLLERS")]
    #[arg(value_name = "ADDRESSES", value_delimiter = ',', default_value = "127.0.0.1:4500")]
    #[arg(value_parser = address::<1>)]
    pub addresses: Vec<Address>,
}

/// Settings of `ferrisdb-controller`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ControllerConfig {
    /// Where it is reached.
    #[command(flatten)]
    pub process: ProcessConfig,

    /// Addresses of all controllers, as HOST:PORT, separated by commas: one, three or five.
    ///
    /// The first time they found the cluster together, each started with the same list. A controller that is
    /// started later with one of them in its list waits until "ferrisdb-cli controllers add" takes it in. One that comes back
    /// at another address tells the others by itself; if all of them have moved, each is started with the new addresses of
    /// the others. By default this controller is the only one.
    #[arg(long, env = "FERRISDB_CONTROLLERS", value_name = "ADDRESSES", value_delimiter = ',')]
    #[arg(value_parser = address::<1>)]
    pub controllers: Vec<Address>,

    /// Directory of the cluster's state; created if it is missing.
    #[arg(long, env = "FERRISDB_DATA", value_name = "DIRECTORY")]
    #[arg(default_value = "./ferrisdb-data/controller")]
    pub data: PathBuf,

    /// Let this controller go on alone, because a majority of the controllers has lost its disks; then exit.
    ///
    /// The last resort, with all controllers stopped. Nothing is done if a majority answers, or one with a newer record.
    /// Otherwise the controller becomes the only one of its cluster, for good: start it again without this flag, wait until the
    /// database is available, start new controllers with empty directories, and add them by "ferrisdb-cli controllers add".
    /// Never start one of those that were given up with its old directory.
    #[arg(long)]
    pub force_new_quorum: bool,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterConfig,
}

/// Settings of `ferrisdb-coordinator`, which keeps nothing on disk.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct CoordinatorConfig {
    /// Where it is reached.
    #[command(flatten)]
    pub process: ProcessConfig,

    /// Whom it reports to.
    #[command(flatten)]
    pub controllers: ControllersConfig,
}

/// Settings of `ferrisdb-log`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct LogConfig {
    /// Where it is reached.
    #[command(flatten)]
    pub process: ProcessConfig,

    /// Whom it reports to.
    #[command(flatten)]
    pub controllers: ControllersConfig,

    /// Directory of the log's segments; created if it is missing.
    ///
    /// Commits wait for this disk: a fast one makes fast commits.
    #[arg(long, env = "FERRISDB_DATA", value_name = "DIRECTORY")]
    #[arg(default_value = "./ferrisdb-data/log")]
    pub data: PathBuf,

    /// What is kept where.
    #[command(flatten)]
    pub tuning: LogTuning,
}

/// Settings of `ferrisdb-storage`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct StorageConfig {
    /// Where it is reached.
    #[command(flatten)]
    pub process: ProcessConfig,

    /// Whom it reports to.
    #[command(flatten)]
    pub controllers: ControllersConfig,

    /// Directory of the keys and values; created if it is missing.
    #[arg(long, env = "FERRISDB_DATA", value_name = "DIRECTORY")]
    #[arg(default_value = "./ferrisdb-data/storage")]
    pub data: PathBuf,

    /// What is kept where.
    #[command(flatten)]
    pub tuning: StorageTuning,
}

/// Settings of `ferrisdb-server`, which has all roles in one process.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ServerConfig {
    /// Where it is reached.
    #[command(flatten)]
    pub process: ProcessConfig,

    /// Directory of everything, with a subdirectory for each role; created if it is missing.
    #[arg(long, env = "FERRISDB_DATA", value_name = "DIRECTORY")]
    #[arg(default_value = "./ferrisdb-data/server")]
    pub data: PathBuf,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterConfig,

    /// What its log keeps where.
    #[command(flatten)]
    pub log: LogTuning,

    /// What its storage server keeps where.
    #[command(flatten)]
    pub storage: StorageTuning,
}

/// What every process needs before it has a role: logging, threads, and its settings' own file.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct RuntimeConfig {
    /// What to log: a level, and levels by module after it, separated by commas.
    ///
    /// Levels are error, warn, info, debug, trace and off. "info,ferrisdb_server::log=debug" says more about
    /// the log role. The libraries for calls and consensus are silent unless tarpc or openraft is named.
    #[arg(long, env = "FERRISDB_LOG", value_name = "FILTER", default_value = "info")]
    #[arg(value_parser = log_filter)]
    pub log: String,

    /// How log lines look: text for people, json for machines.
    #[arg(long, env = "FERRISDB_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// How many threads run the process' tasks.
    ///
    /// One is the fastest for a role with a core to itself: idle threads that wake each other cost more than
    /// they bring. A storage server under heavy reads can use more.
    #[arg(long, env = "FERRISDB_WORKER_THREADS", value_name = "COUNT", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub worker_threads: u16,
}

impl Role for ControllerConfig {
    const BINARY: &str = "ferrisdb-controller";
    const ABOUT: &str = "The controller of a FerrisDB cluster: knows all processes, recruits them, and \
                         recovers the cluster when one of them fails.";
    const EXAMPLE: &str = "\
One of three controllers of a cluster with two copies of everything and three logs:
  ferrisdb-controller --listen 10.0.0.1:4500 --data /var/lib/ferrisdb/controller \\
      --controllers 10.0.0.1:4500,10.0.0.2:4500,10.0.0.3:4500 --redundancy double --logs 3";
    // Nobody waits for a controller in a hurry.
    const DEFAULTS: &[(&str, &str)] = &[("listen", "127.0.0.1:4500"), ("stay_awake_us", "0")];

    fn check(&self) -> Result<(), SettingsError> {
        self.process.check()?;
        self.cluster.check()
    }
}

impl Role for CoordinatorConfig {
    const BINARY: &str = "ferrisdb-coordinator";
    const ABOUT: &str = "A coordinator of a FerrisDB cluster: hands out versions, batches commits and finds \
                         their conflicts. Keeps nothing on disk.";
    const EXAMPLE: &str = "\
  ferrisdb-coordinator --listen 10.0.0.2:4510 --controllers 10.0.0.1:4500";
    const DEFAULTS: &[(&str, &str)] = &[("listen", "127.0.0.1:4510")];

    fn check(&self) -> Result<(), SettingsError> {
        self.process.check()
    }
}

impl Role for LogConfig {
    const BINARY: &str = "ferrisdb-log";
    const ABOUT: &str = "A log of a FerrisDB cluster: makes commits durable and hands them to the storage \
                         servers.";
    const EXAMPLE: &str = "\
  ferrisdb-log --listen 10.0.0.3:4520 --controllers 10.0.0.1:4500 --data /var/lib/ferrisdb/log";
    const DEFAULTS: &[(&str, &str)] = &[("listen", "127.0.0.1:4520")];

    fn check(&self) -> Result<(), SettingsError> {
        self.process.check()
    }
}

impl Role for StorageConfig {
    const BINARY: &str = "ferrisdb-storage";
    const ABOUT: &str = "A storage server of a FerrisDB cluster: keeps keys and values, and answers reads at \
                         any version of the last seconds.";
    const EXAMPLE: &str = "\
  ferrisdb-storage --listen 10.0.0.4:4530 --controllers 10.0.0.1:4500 \\
      --data /var/lib/ferrisdb/storage --cache-bytes 4GiB --worker-threads 2";
    const DEFAULTS: &[(&str, &str)] = &[("listen", "127.0.0.1:4530")];

    fn check(&self) -> Result<(), SettingsError> {
        self.process.check()
    }
}

impl Role for ServerConfig {
    const BINARY: &str = "ferrisdb-server";
    const ABOUT: &str = "All of FerrisDB in one process: controller, coordinator, log and storage. For \
                         development, and for small databases on one machine.";
    const EXAMPLE: &str = "\
A database in a directory of its own, then a first key in it:
  ferrisdb-server --data ./mydata
  ferrisdb-cli --controllers 127.0.0.1:4500 set hello world";
    const DEFAULTS: &[(&str, &str)] = &[("listen", "127.0.0.1:4500")];

    fn check(&self) -> Result<(), SettingsError> {
        self.process.check()?;
        if self.cluster.redundancy != Redundancy::Single {
            return Err(SettingsError::Contradiction(format!(
                "redundancy = {} needs processes in several zones, this one is alone: start the binaries of the \
                 roles instead",
                self.cluster.redundancy
            )));
        }
        self.cluster.check()
    }
}

macro_rules! default_is_no_settings_at_all {
    ($($config:ty),*) => {
        $(impl Default for $config {
            /// What a process gets that sets nothing.
            fn default() -> Self {
                load::defaults::<Self>()
            }
        })*
    };
}

default_is_no_settings_at_all!(
    ControllerConfig,
    CoordinatorConfig,
    LogConfig,
    StorageConfig,
    ServerConfig
);

#[cfg(test)]
mod tests;
