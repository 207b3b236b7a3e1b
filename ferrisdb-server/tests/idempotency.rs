//! Records of idempotency ids go, also those of clients that never come back.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, sync::Arc, time::Duration};

use ferrisdb_client::{Database, TransactionOption, Value};
use ferrisdb_core::{
    KeyRange, Stage, idempotency,
    runtime::{self, disk::MemoryDisk},
};
use ferrisdb_server::{
    controller::ControllerSettings,
    host::{Media, ServerHost, ServerSettings, Site},
};

/// How many rows there are in a range of system keys.
async fn count(database: &Database, range: KeyRange) -> usize {
    let transaction = database.transaction();
    transaction.set_option(TransactionOption::ReadSystemKeys).unwrap();
    transaction.get_range(range).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dead_clients_leave_is_cleared() {
    let site = Arc::new(Site::local("sweeping"));
    let media = Media::memory(MemoryDisk::new());
    let settings = ServerSettings {
        controller: ControllerSettings {
            idempotency_lifetime: Duration::from_millis(1_500),
            ..ControllerSettings::default()
        },
        ..ServerSettings::default()
    };
    let path = Path::new("memory");
    let host = ServerHost::start(Arc::clone(&site), &media, path, settings).await.unwrap();
    let connect = || Database::connect_with(site.network().clone(), vec![host.address().clone()]);

    const CLIENTS: usize = 20;
    for _ in 0..CLIENTS {
        // One transaction, and never again.
        let client = connect().await.unwrap();
        client
            .run_transaction(|transaction| async move { transaction.add("visits", 1) })
            .await
            .unwrap();
    }
    let database = connect().await.unwrap();
    assert!(count(&database, idempotency::records()).await > 0, "they leave records");
    let swept = async {
        while count(&database, idempotency::records()).await > 0 {
            runtime::sleep(Duration::from_millis(20)).await;
        }
    };
    runtime::timeout(Duration::from_secs(30), Stage::Client, swept).await.unwrap();
    // Whoever is still in doubt can see it.
    assert_eq!(count(&database, KeyRange::single(&idempotency::swept_key())).await, 1);
    let visits = database.transaction().get("visits").await.unwrap();
    assert_eq!(visits, Some(Value::from(&(CLIENTS as i64).to_le_bytes())));
    drop(database);
    host.shut_down().await;
    site.close();
}
