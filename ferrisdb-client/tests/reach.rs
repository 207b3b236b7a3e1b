//! What a client does that reaches a part of the cluster only, or none of it for a while.

#![expect(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::{net::TcpListener, time::Duration};

use fake::Cluster;
use ferrisdb_client::{Address, Database, Error};
use ferrisdb_core::{Endpoint, runtime};

async fn count_up(database: &Database) {
    let counted = database.run_transaction(|transaction| async move {
        transaction.get("read").await?;
        transaction.add("count", 1)?;
        Ok::<_, Error>(())
    });
    counted.await.unwrap();
}

/// An address at which connections are made and nobody ever says a word, as of a process that stands still.
fn silent() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::new(listener.local_addr().unwrap().to_string());
    (listener, Endpoint { address, instance: 100 })
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_holds_up_nobody() {
    let cluster = Cluster::new();
    let (_listener, silent) = silent();
    cluster.change_state(|state| {
        let coordinator = state.coordinator.as_mut().unwrap();
        coordinator.proxies.extend([silent.clone(), silent]);
    });
    let database = cluster.connect().await;
    let began = runtime::now();
    for _ in 0..30 {
        count_up(&database).await;
    }
    // To connect to the silent one takes five seconds each time.
    let took = runtime::now().duration_since(began);
    assert!(took < Duration::from_secs(3), "30 transactions took {took:?}");
}

#[tokio::test]
async fn a_proxy_that_is_gone_holds_up_nobody() {
    let cluster = Cluster::new();
    cluster.change_state(|state| {
        let coordinator = state.coordinator.as_mut().unwrap();
        let gone = Endpoint { instance: 101, ..coordinator.proxies[0].clone() };
        coordinator.proxies.push(gone);
    });
    cluster.start_proxy(101);
    let database = cluster.connect().await;
    for _ in 0..10 {
        count_up(&database).await;
    }
    cluster.stop_proxy(101);
    let before = cluster.counts().commits;
    for _ in 0..10 {
        count_up(&database).await;
    }
    assert!(cluster.counts().commits >= before + 10);
}

#[tokio::test]
async fn a_client_that_slept_while_all_controllers_moved_reads_its_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.cluster");
    let before = Cluster::new();
    let (listener, address) = before.listen().await;
    std::fs::write(&file, address.to_string()).unwrap();
    let database = Database::connect_by_file(Some(&file)).await.unwrap();
    count_up(&database).await;

    drop(listener);
    before.stop();
    let after = Cluster::new();
    after.change_state(|state| state.revision += 10);
    let (_listener, address) = after.listen().await;
    std::fs::write(&file, address.to_string()).unwrap();
    count_up(&database).await;
    assert_eq!(after.counts().commits, 1);

    // It does so as often as it is needed.
    after.stop();
    drop(_listener);
    let last = Cluster::new();
    last.change_state(|state| state.revision += 20);
    let (_listener, address) = last.listen().await;
    std::fs::write(&file, address.to_string()).unwrap();
    count_up(&database).await;
    assert_eq!(last.counts().commits, 1);
}
