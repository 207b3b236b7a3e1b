//! A server with few file descriptors, and peers who connect and say nothing.
#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests as well")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::{net::TcpStream, time::Duration};

use ferrisdb_client::{Database, Error};

const SERVER: &str = env!("CARGO_BIN_EXE_ferrisdb-server");

/// One transaction, which has to come to its end in time.
async fn commits(database: &Database, value: &str) {
    let work = database.run_transaction(|transaction| async move {
        transaction.set("k", value)?;
        Ok::<_, Error>(())
    });
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("a commit").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_leave_a_server_its_files_and_its_clients() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let address = support::free_address();
    // A shell sets the limit, soft and hard: the server cannot raise it.
    let arguments =
        ["-c", "ulimit -n 256; exec \"$0\" \"$@\"", SERVER, "--data", &data, "--listen"];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    arguments.push(address.clone());
    let log = directory.path().join("log");
    let mut server = support::Process::new("server", "/bin/sh", arguments, log);
    server.start();
    let database = Database::connect(&address).await.unwrap();
    commits(&database, "before").await;

    let silent: Vec<TcpStream> =
        (0..600).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    assert!(silent.len() > 300, "{}", silent.len());
    commits(&database, "with them").await;
    let another = Database::connect(&address).await.unwrap();
    commits(&another, "a new client").await;
    drop(silent);
    commits(&database, "after").await;
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}
