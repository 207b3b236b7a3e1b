//! The binary with all roles in one process: see `ferrisdb-server --help`.

#[cfg(not(madsim))]
use {
    ferrisdb_core::Result,
    ferrisdb_server::{
        config::ServerConfig,
        host::{Media, ServerHost, ServerSettings, Site},
        process::{self, Shutdown, say, sibling},
    },
    std::{process::ExitCode, sync::Arc},
};

#[cfg(not(madsim))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(madsim))]
fn main() -> ExitCode {
    process::main(server)
}

/// The life of the process.
#[cfg(not(madsim))]
async fn server(config: ServerConfig, mut shutdown: Shutdown) -> Result<()> {
    let site = Site::listen(&config.process.listen, config.process.advertise.clone()).await?;
    site.network().stay_awake(config.process.stay_awake());
    let site = Arc::new(site);
    let settings = ServerSettings::from(&config);
    let host =
        ServerHost::start(Arc::clone(&site), &Media::files(), &config.data, settings).await?;
    let address = host.address();
    say(format!(
        "ferrisdb-server listening on {address}, data in {}\n\
         connect with:  {} --controllers {address}\n\
         and try:       set hello world",
        config.data.display(),
        sibling("ferrisdb-cli")
    ));
    let ended = shutdown.or(async { Err::<(), _>(site.failed().await) }).await;
    host.shut_down().await;
    ended.map(|_| ())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this binary was built for simulation: build it without --cfg madsim to run it");
}
