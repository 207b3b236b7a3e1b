//! The binary of a controller: see `ferrisdb-controller --help`.

#[cfg(not(madsim))]
use {
    ferrisdb_core::{Result, transport::Network},
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
    if config.force_new_quorum {
        return force_new_quorum(&config).await;
    }
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

/// What `--force-new-quorum` does instead.
#[cfg(not(madsim))]
async fn force_new_quorum(config: &ControllerConfig) -> Result<()> {
    let address = config.process.advertise.as_ref().unwrap_or(&config.process.listen).clone();
    let (network, media) = (Network::new(), Media::files());
    let place = (&network, address.clone());
    let forced = ControllerHost::force_new_quorum(&media, &config.data, place).await?;
    let given_up: Vec<String> = forced.given_up.iter().map(ToString::to_string).collect();
    let known = forced.record.forced_after.unwrap_or_default();
    say(format!(
        "the controller at {address} is the only one of cluster {} now; its record is that of generation {known}\n\
         given up: {}; never start them with their old directories\n\
         next: start this one without --force-new-quorum, wait until the status says that reads and writes work,\n\
         start new controllers with empty directories, and add each: ferrisdb-cli controllers add ADDRESS",
        forced.record.cluster_id,
        if given_up.is_empty() { "nobody".to_owned() } else { given_up.join(", ") },
    ));
    Ok(())
}

#[cfg(madsim)]
fn main() {
    eprintln!("this binary was built for simulation: build it without --cfg madsim to run it");
}
