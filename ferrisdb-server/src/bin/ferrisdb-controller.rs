//! The binary of a controller: see `ferrisdb-controller --help`.

#[cfg(not(madsim))]
use {
    ferrisdb_core::Result,
    ferrisdb_server::{
        config::ControllerConfig,
        controller::ControllerSettings,
        host::{ControllerHost, Media, Site},
        process::{self, Shutdown, say},
    },
    std::{process::ExitCode, sync::Arc},
};

#[cfg(not(madsim))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(madsim))]
fn main() -> ExitCode {
    process::main(controller)
}

/// The life of the process.
#[cfg(not(madsim))]
async fn controller(config: ControllerConfig, mut shutdown: Shutdown) -> Result<()> {
    let site = Site::listen(&config.process.listen, config.process.advertise.clone()).await?;
    site.network().stay_awake(config.process.stay_awake());
    let site = Arc::new(site);
    let host = ControllerHost::start(
        Arc::clone(&site),
        &Media::files(),
        &config.data,
        config.controllers,
        ControllerSettings::from(&config.cluster),
    )
    .await?;
    say(format!(
        "ferrisdb-controller listening on {}, data in {}",
        host.address(),
        config.data.display()
    ));
    let ended = shutdown.or(async { Err::<(), _>(site.failed().await) }).await;
    host.shut_down().await;
    ended.map(|_| ())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this binary was built for simulation: build it without --cfg madsim to run it");
}
