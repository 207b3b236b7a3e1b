//! The binary of a log: see `ferrisdb-log --help`.

#[cfg(not(madsim))]
use {
    ferrisdb_core::{
        Result,
        runtime::disk::FileSystem,
        transport::{Listener, Network, Router},
    },
    ferrisdb_server::{
        config::LogConfig,
        directory::{DataDirectory, DirectoryKind},
        process::{self, Shutdown, say},
    },
    std::{process::ExitCode, sync::Arc},
};

#[cfg(not(madsim))]
fn main() -> ExitCode {
    process::main(log)
}

/// The life of the process.
#[cfg(not(madsim))]
async fn log(config: LogConfig, mut shutdown: Shutdown) -> Result<()> {
    let disk = Arc::new(FileSystem);
    let _directory = DataDirectory::open(disk, &config.data, DirectoryKind::Log).await?;
    let listener = Listener::bind(&config.process.listen, Router::new(), Network::new()).await?;
    let address = config.process.advertise.as_ref().unwrap_or(listener.address());
    say(format!("ferrisdb-log listening on {address}, data in {}", config.data.display()));
    shutdown.requested().await;
    Ok(())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this binary was built for simulation: build it without --cfg madsim to run it");
}
