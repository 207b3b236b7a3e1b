//! Random programs over the client's whole API, compared answer by answer with a map, against a database of your choice.
//!
//! ```text
//!   cargo run --release -p ferrisdb-sim --example model -- 60                            in memory, for 60 seconds
//!   cargo run --release -p ferrisdb-sim --example model -- 60 127.0.0.1:4500             on a cluster
//! ```
//!
//! The same programs run in the simulation, under faults: `cargo sim api`.

#[cfg(not(madsim))]
#[expect(clippy::disallowed_methods, reason = "clients of a real database run on tokio itself")]
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use anyhow::Context as _;
    use ferrisdb_client::Database;
    use ferrisdb_core::runtime;
    use ferrisdb_sim::{
        trace::Trace,
        workload::{
            Client, Workload,
            api_model::{ApiModel, ApiModelSettings},
        },
    };

    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().unwrap_or_else(|| "10".to_owned());
    let seconds: u64 = seconds.parse().context("the first argument is a number of seconds")?;
    let database = match arguments.next() {
        Some(controllers) => Database::connect(&controllers).await?,
        None => Database::memory().await?,
    };
    let settings = ApiModelSettings { clients: 16, ..ApiModelSettings::default() };
    let workload = Arc::new(ApiModel::new(settings));
    let stopped = Arc::new(AtomicBool::new(false));
    let trace = Trace::new();
    let client = |number| Client::new(number, database.clone(), stopped.clone(), trace.clone());
    workload.set_up(client(0)).await?;
    let mut running = Vec::new();
    for number in 0..workload.clients() {
        let (workload, client) = (Arc::clone(&workload), client(number));
        running.push(tokio::spawn(async move { workload.run(client).await }));
    }
    for passed in 1..=seconds {
        runtime::sleep(Duration::from_secs(1)).await;
        eprint!("\r{passed} of {seconds} s");
    }
    eprintln!();
    stopped.store(true, Ordering::SeqCst);
    for client in running {
        client.await??;
    }
    println!("{}", workload.check(client(0)).await?);
    database.close().await?;
    Ok(())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this example is for real databases; in the simulation it is `cargo sim api`");
}
