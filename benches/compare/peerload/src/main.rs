//! `peerload`: the load that etcd, Redis and the bare machine get, so that their figures can stand beside FerrisDB's.
//!
//! ```text
//!   peerload etcd  --addr 127.0.0.1:2379 --workload put --clients 64     closed loop: each client waits for its answer
//!   peerload redis --addr 127.0.0.1:6379 --workload transfer
//!   peerload sync  --dir /data                                           write + fdatasync over blocks that exist
//!   peerload echo  --clients 64                                          128 bytes over loopback TCP and back
//! ```
//!
//! Each run prints one line of `name=value` fields, which `report.py` reads. `cli_us` and `srv_us` are CPU time for each
//! operation, of this process and of the one given by `--pid`; `cores_busy` is what the whole machine used.

mod echo;
mod etcd;
mod redis;
mod sync;
mod tally;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    target: Target,
}

/// What all loads have in common.
#[derive(clap::Args, Clone)]
struct Common {
    /// Measured seconds
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 1.0)]
    warm: f64,
    /// Requests in flight
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Rows there are
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Accounts that transfers are between
    #[arg(long, default_value_t = 100_000)]
    accounts: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value: usize,
    /// The server's process
    #[arg(long)]
    pid: Option<u32>,
    /// What the line is called, if not as the workload
    #[arg(long)]
    label: Option<String>,
}

#[derive(Subcommand)]
enum Target {
    /// Workloads: load, get, put, transfer, check
    Etcd {
        #[arg(long)]
        addr: String,
        #[arg(long)]
        workload: String,
        /// HTTP/2 connections that the clients share
        #[arg(long, default_value_t = 8)]
        conns: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Workloads: load, get, set, transfer, check
    Redis {
        #[arg(long)]
        addr: String,
        #[arg(long)]
        workload: String,
        #[command(flatten)]
        common: Common,
    },
    /// Writes of 4 KiB over blocks that exist, each with fdatasync
    Sync {
        #[arg(long)]
        dir: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// A round trip over loopback TCP
    Echo {
        #[command(flatten)]
        common: Common,
    },
}

fn main() -> Result<()> {
    let runtime = Runtime::new_on_one_thread()?;
    match Cli::parse().target {
        Target::Etcd { addr, workload, conns, common } => {
            on_loopback(&addr)?;
            runtime.block_on(etcd::run(&addr, &workload, conns, &common))
        }
        Target::Redis { addr, workload, common } => {
            on_loopback(&addr)?;
            runtime.block_on(redis::run(&addr, &workload, &common))
        }
        Target::Sync { dir, common } => sync::run(&dir, &common),
        Target::Echo { common } => runtime.block_on(echo::run(&common)),
    }
}

/// The load clears and writes what it likes, so it goes to servers that were started for it.
fn on_loopback(addr: &str) -> Result<()> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    ensure!(host == "127.0.0.1", "only 127.0.0.1 is allowed, not {host}");
    Ok(())
}

trait OnOneThread: Sized {
    fn new_on_one_thread() -> Result<Self>;
}

impl OnOneThread for Runtime {
    fn new_on_one_thread() -> Result<Runtime> {
        Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
    }
}

/// The key of a row: a letter for the table, and the number; sixteen bytes.
fn key(table: char, number: u64) -> Vec<u8> {
    format!("{table}{number:015}").into_bytes()
}

/// A value: a balance, then bytes that do not compress.
fn value(bytes: usize, balance: i64) -> Vec<u8> {
    let mut value = vec![0; bytes.max(8)];
    fastrand::fill(&mut value);
    value[..8].copy_from_slice(&balance.to_be_bytes());
    value
}

/// The balance of a value; 0 if it has none.
fn balance(value: &[u8]) -> i64 {
    value.first_chunk().map_or(0, |head| i64::from_be_bytes(*head))
}

/// Two accounts that differ.
fn two_accounts(rng: &mut fastrand::Rng, accounts: u64) -> [Vec<u8>; 2] {
    let first = rng.u64(..accounts);
    let second = (first + 1 + rng.u64(..accounts - 1)) % accounts;
    [key('t', first), key('t', second)]
}
