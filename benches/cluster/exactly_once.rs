//! What exactly-once costs: `run_transaction` with and without idempotency ids, on one embedded database on files.
//!
//! ```text
//!   cargo bench -p ferrisdb-benches --bench exactly_once
//!
//!   workload            in flight   ids    transactions/s    p50       p99
//! ```
//!
//! Both settings take turns in short rounds, so that whatever else the machine does concerns both. Latencies are
//! those of single transactions, and the table is printed at the end.

#![expect(clippy::disallowed_methods, reason = "a user's program runs on tokio itself")]

use std::time::Duration;

use ferrisdb_client::{Database, Error, ExactlyOnce, Settings};
use ferrisdb_core::runtime;
use ferrisdb_server::host::Embedded;

const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 100;
const IN_FLIGHT: [u64; 2] = [1, 64];

#[derive(Clone, Copy, Debug)]
enum Workload {
    /// Reads a key and writes it.
    ReadModifyWrite,
    /// Writes a key.
    BlindWrite,
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Workload::ReadModifyWrite => "read-modify-write",
            Workload::BlindWrite => "blind write",
        }
    }

    async fn run(self, database: &Database, number: u64) -> Result<(), Error> {
        // A key of its own for each that is in flight: conflicts are not what is measured here.
        let key = format!("account/{:08}", number.wrapping_mul(7_919) % KEYS);
        let key = &key;
        database
            .run_transaction(|transaction| async move {
                let count = match self {
                    Workload::ReadModifyWrite => {
                        transaction.get(key.as_str()).await?.map_or(0, |value| value.len())
                    }
                    Workload::BlindWrite => 0,
                };
                transaction.set(key.as_str(), vec![b'x'; VALUE_BYTES - count % 2])
            })
            .await
    }
}

/// What was measured of one setting.
#[derive(Default)]
struct Measured {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Measured {
    /// Runs `in_flight` loops of transactions for a while.
    async fn round(
        &mut self,
        database: &Database,
        workload: Workload,
        in_flight: u64,
        length: Duration,
    ) {
        let began = runtime::now();
        let clients = (0..in_flight).map(|client| {
            let database = database.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                // Counts up in steps, so that no two clients ever have the same number.
                for number in (client..).step_by(in_flight as usize) {
                    let before = runtime::now();
                    workload.run(&database, number).await.expect("transactions succeed");
                    let after = runtime::now();
                    latencies.push(after - before);
                    if after - began >= length {
                        break;
                    }
                }
                latencies
            })
        });
        for client in clients.collect::<Vec<_>>() {
            self.latencies.extend(client.await.expect("clients do not panic"));
        }
        self.elapsed += runtime::now() - began;
    }

    fn print(&mut self, workload: Workload, in_flight: u64, ids: ExactlyOnce) {
        self.latencies.sort_unstable();
        let count = self.latencies.len();
        let percentile = |percent: usize| self.latencies[(count * percent / 100).min(count - 1)];
        let ids = if ids == ExactlyOnce::ById { "on" } else { "off" };
        println!(
            "{:<20}{in_flight:<12}{ids:<7}{:<18.0}{:<10.2?}{:.2?}",
            workload.name(),
            count as f64 / self.elapsed.as_secs_f64(),
            percentile(50),
            percentile(99),
        );
    }
}

async fn compare(rounds: u32, length: Duration) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let embedded = Embedded::open(Some(folder.path())).await.expect("the database opens");
    let connect = async |exactly_once| {
        let settings = Settings { exactly_once, ..Settings::default() };
        let (network, controllers) = (embedded.network(), embedded.controllers());
        let connected = Database::connect_with_settings(network, controllers, settings).await;
        (exactly_once, connected.expect("the database can be reached"))
    };
    let handles = [connect(ExactlyOnce::Refuse).await, connect(ExactlyOnce::ById).await];
    println!("workload            in flight   ids    transactions/s    p50       p99");
    for workload in [Workload::ReadModifyWrite, Workload::BlindWrite] {
        for in_flight in IN_FLIGHT {
            let mut measured = [Measured::default(), Measured::default()];
            for (_, database) in &handles {
                Measured::default().round(database, workload, in_flight, length).await; // warms up
            }
            for _ in 0..rounds {
                for ((_, database), measured) in handles.iter().zip(&mut measured) {
                    measured.round(database, workload, in_flight, length).await;
                }
            }
            for ((ids, _), measured) in handles.iter().zip(&mut measured) {
                measured.print(workload, in_flight, *ids);
            }
        }
    }
    drop(handles);
    embedded.shut_down().await;
}

fn main() {
    // As a test it only has to run.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (rounds, length) = if is_test { (1, Duration::ZERO) } else { (10, Duration::from_secs(1)) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(compare(rounds, length));
}
