//! Every workload on a real database inside the process: they need no simulation, only a client.

#![cfg(not(madsim))]
#![expect(clippy::disallowed_methods, reason = "clients of a real database run on tokio itself")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ferrisdb_client::Database;
use ferrisdb_core::runtime;
use ferrisdb_sim::{
    trace::Trace,
    workload::{
        Client, Workload,
        bank::BankWorkload,
        c_interface::CInterface,
        cycle::Cycle,
        exactly_once::{ExactlyOnce, ExactlyOnceSettings},
        external_consistency::ExternalConsistency,
        hot_key::HotKey,
        list_append::ListAppend,
        long_idle::{LongIdle, LongIdleSettings},
        recorded_bank::RecordedBankWorkload,
        serializability::{Flavour, Serializability, SerializabilitySettings},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pass_side_by_side_on_an_honest_database() {
    let range_clears =
        SerializabilitySettings { flavour: Flavour::RangeClears, ..Default::default() };
    // What takes minutes of simulated time takes a second here: shorter than the window.
    let idle = LongIdleSettings { idle_seconds: 1, wake_up_ms: 10_000, ..Default::default() };
    // As many records as a quick machine writes within two seconds: they are swept later.
    let many = ExactlyOnceSettings { records_max: usize::MAX, ..Default::default() };
    let workloads: Vec<Arc<dyn Workload>> = vec![
        Arc::new(BankWorkload::new(Default::default())),
        Arc::new(RecordedBankWorkload::new(Default::default())),
        Arc::new(CInterface::new(Default::default())),
        Arc::new(Cycle::new(Default::default())),
        Arc::new(Serializability::new(Default::default())),
        Arc::new(Serializability::new(range_clears)),
        Arc::new(ListAppend::new(Default::default())),
        Arc::new(ExternalConsistency::new(Default::default())),
        Arc::new(HotKey::new(Default::default())),
        Arc::new(ExactlyOnce::new(many)),
        Arc::new(LongIdle::new(idle)),
    ];
    let database = Database::memory().await.unwrap();
    let stopped = Arc::new(AtomicBool::new(false));
    let trace = Trace::new();
    let client = |number| Client::new(number, database.clone(), stopped.clone(), trace.clone());
    let mut running = Vec::new();
    for workload in &workloads {
        workload.set_up(client(0)).await.unwrap();
        for number in 0..workload.clients() {
            let (workload, client) = (Arc::clone(workload), client(number));
            running.push(tokio::spawn(async move { workload.run(client).await }));
        }
    }
    runtime::sleep(Duration::from_secs(2)).await;
    stopped.store(true, Ordering::SeqCst);
    for client in running {
        client.await.unwrap().unwrap();
    }
    for workload in workloads {
        println!("{}: {}", workload.name(), workload.check(client(0)).await.unwrap());
    }
}
