//! The same answers wherever the database runs: in memory, in a directory, behind a socket, in a cluster of processes.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::sync::Arc;

use ferrisdb_client::Database;
use ferrisdb_core::id::Address;
use ferrisdb_server::host::{Media, ServerHost, ServerSettings, Site};
use ferrisdb_sim::workload::api_suite;
use support::cluster::{Cluster, Shape};

#[tokio::test]
async fn in_memory() {
    let database = Database::memory().await.unwrap();
    api_suite::run(&database).await.unwrap();
    database.close().await.unwrap();
}

#[tokio::test]
async fn in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).await.unwrap();
    api_suite::run(&database).await.unwrap();
    database.close().await.unwrap();
}

#[tokio::test]
async fn behind_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::listen(&Address::new("127.0.0.1:0"), None).await.unwrap());
    let (media, settings) = (Media::files(), ServerSettings::default());
    let host = ServerHost::start(site, &media, directory.path(), settings).await.unwrap();
    let database = Database::connect(&host.address().to_string()).await.unwrap();
    api_suite::run(&database).await.unwrap();
    // By a cluster file with the cluster's own id, and not by one with another id.
    let id = database.cluster_id().await.unwrap();
    let file = directory.path().join("a.cluster");
    std::fs::write(&file, format!("test:{id}@127.0.0.1:1,{}", host.address())).unwrap();
    let by_file = Database::connect_by_file(Some(&file)).await.unwrap();
    let path = by_file.transaction().get(b"\xff\xff/cluster_file_path").await.unwrap();
    assert_eq!(path, Some(file.to_str().unwrap().into()));
    let other = format!("test:{:032x}@{}", 1, host.address());
    Database::connect_to(
        other.parse().unwrap(),
        ferrisdb_client::Settings {
            connect_limit: std::time::Duration::from_secs(1),
            ..Default::default()
        },
    )
    .await
    .err()
    .unwrap();
    host.shut_down().await;
}

#[tokio::test]
async fn in_a_cluster_of_processes() {
    let shape = Shape {
        redundancy: "double",
        storage: 3,
        proxies: 2,
        resolvers: 2,
        shard_boundaries: "api_suite/l,api_suite/s",
        ..Shape::default()
    };
    let cluster = Cluster::start(&shape);
    let database = cluster.connect().await;
    api_suite::run(&database).await.unwrap();
}
