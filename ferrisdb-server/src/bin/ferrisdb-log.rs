//! The binary of a log: see `ferrisdb-log --help`.

#[cfg(not(madsim))]
use {
    ferrisdb_core::{Result, controllers::Controllers},
    ferrisdb_server::{
        config::{LogConfig, follow},
        host::{LogHost, Media, Site},
        log::LogSettings,
        process::{self, Shutdown, say},
    },
    std::{process::ExitCode, sync::Arc},
};

#[cfg(not(madsim))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(madsim))]
fn main() -> ExitCode {
    process::main(log)
}

/// The life of the process.
#[cfg(not(madsim))]
async fn log(config: LogConfig, mut shutdown: Shutdown) -> Result<()> {
    let site = Site::listen(&config.process.listen, config.process.advertise.clone()).await?;
    site.network().stay_awake(config.process.stay_awake());
    let site = Arc::new(site);
    let controllers = Controllers::new(site.network().clone(), config.controllers.addresses);
    let _following = follow::<LogConfig>(&controllers, |config| config.controllers.addresses);
    let host = LogHost::start(
        Arc::clone(&site),
        &Media::files(),
        &config.data,
        controllers,
        config.process.zone(site.address()),
        LogSettings::from(&config.tuning),
    )
    .await?;
    say(format!("ferrisdb-log listening on {}, data in {}", host.address(), config.data.display()));
    let ended = shutdown.or(async { Err::<(), _>(site.failed().await) }).await;
    host.shut_down().await;
    ended.map(|_| ())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this binary was built for simulation: build it without --cfg madsim to run it");
}
