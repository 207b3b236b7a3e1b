//! The binary of a coordinator: see `ferrisdb-coordinator --help`.

#[cfg(not(madsim))]
use {
    ferrisdb_core::{Result, controllers::Controllers},
    ferrisdb_server::{
        config::{CoordinatorConfig, follow},
        coordinator::CoordinatorSettings,
        host::{CoordinatorHost, Site},
        process::{self, Shutdown, say},
    },
    std::{process::ExitCode, sync::Arc},
};

#[cfg(not(madsim))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(madsim))]
fn main() -> ExitCode {
    process::main(coordinator)
}

/// The life of the process.
#[cfg(not(madsim))]
async fn coordinator(config: CoordinatorConfig, mut shutdown: Shutdown) -> Result<()> {
    let site = Site::listen(&config.process.listen, config.process.advertise.clone()).await?;
    site.network().stay_awake(config.process.stay_awake());
    let site = Arc::new(site);
    let controllers = Controllers::new(site.network().clone(), config.controllers.addresses);
    let _following =
        follow::<CoordinatorConfig>(&controllers, |config| config.controllers.addresses);
    let zone = config.process.zone(site.address());
    let settings = CoordinatorSettings::default();
    let host = CoordinatorHost::start(Arc::clone(&site), controllers, zone, settings);
    say(format!("ferrisdb-coordinator listening on {}", host.address()));
    let ended = shutdown.or(async { Err::<(), _>(site.failed().await) }).await;
    host.shut_down().await;
    ended.map(|_| ())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this binary was built for simulation: build it without --cfg madsim to run it");
}
