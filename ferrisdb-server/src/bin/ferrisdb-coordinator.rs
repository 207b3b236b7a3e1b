//! The binary of a coordinator: see `ferrisdb-coordinator --help`.

#[cfg(not(madsim))]
use {
    ferrisdb_core::{
        Result,
        transport::{Listener, Network, Router},
    },
    ferrisdb_server::{
        config::CoordinatorConfig,
        process::{self, Shutdown, say},
    },
    std::process::ExitCode,
};

#[cfg(not(madsim))]
fn main() -> ExitCode {
    process::main(coordinator)
}

/// The life of the process.
#[cfg(not(madsim))]
async fn coordinator(config: CoordinatorConfig, mut shutdown: Shutdown) -> Result<()> {
    let listener = Listener::bind(&config.process.listen, Router::new(), Network::new()).await?;
    let address = config.process.advertise.as_ref().unwrap_or(listener.address());
    say(format!("ferrisdb-coordinator listening on {address}"));
    shutdown.requested().await;
    Ok(())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this binary was built for simulation: build it without --cfg madsim to run it");
}
