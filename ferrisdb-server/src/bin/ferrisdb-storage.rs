//! The binary of a storage server: see `ferrisdb-storage --help`.

#[cfg(not(madsim))]
use {
    ferrisdb_core::{
        Result,
        runtime::disk::FileSystem,
        transport::{Listener, Network, Router},
    },
    ferrisdb_server::{
        config::StorageConfig,
        directory::{DataDirectory, DirectoryKind},
        process::{self, Shutdown, say},
    },
    std::{process::ExitCode, sync::Arc},
};

#[cfg(not(madsim))]
fn main() -> ExitCode {
    process::main(storage)
}

/// The life of the process.
#[cfg(not(madsim))]
async fn storage(config: StorageConfig, mut shutdown: Shutdown) -> Result<()> {
    let disk = Arc::new(FileSystem);
    let _directory = DataDirectory::open(disk, &config.data, DirectoryKind::Storage).await?;
    let listener = Listener::bind(&config.process.listen, Router::new(), Network::new()).await?;
    let address = config.process.advertise.as_ref().unwrap_or(listener.address());
    say(format!("ferrisdb-storage listening on {address}, data in {}", config.data.display()));
    shutdown.requested().await;
    Ok(())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this binary was built for simulation: build it without --cfg madsim to run it");
}
