//! `configure`: changes the shape of the cluster, while it runs.

use anyhow::Result;
use ferrisdb_client::{ConfigurationChange, Redundancy};
use serde_json::json;

use super::{status::facts::Facts, waiting};
use crate::{
    output::{Output, OutputFormat},
    session::Session,
};

/// What `--help` says.
pub(super) const HELP: &str = "\
Changes the shape of the cluster, while it runs. What is not given stays as it is.

The controllers refuse what cannot be had with the processes there are, and change nothing then. Otherwise the \
cluster recruits a new generation if it has to, which takes a fraction of a second, and copies or drops data, which \
takes as long as the data is. status shows the configuration that is in force.

Examples:
  configure --redundancy triple --wait
  configure --logs 5 --proxies 3";

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args([
    "redundancy", "logs", "proxies", "resolvers", "storage_replace_after_s",
]))]
pub(crate) struct Args {
    /// How many copies there are of everything, each in a zone of its own: single, double or triple
    #[arg(long)]
    redundancy: Option<Redundancy>,
    /// How many logs a generation has, if there are as many log processes; never fewer than copies
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    logs: Option<u32>,
    /// How many proxies a generation has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    proxies: Option<u32>,
    /// How many resolvers a generation has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    resolvers: Option<u32>,
    /// After how many seconds a storage server that stays away is replaced
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    storage_replace_after_s: Option<u64>,
    /// Wait until the cluster is what was asked for; Ctrl-C ends the waiting, not the change
    #[arg(long)]
    wait: bool,
}

impl Args {
    fn change(&self) -> ConfigurationChange {
        let Args { redundancy, logs, proxies, resolvers, storage_replace_after_s, .. } = *self;
        let storage_replace_after_ms =
            storage_replace_after_s.map(|seconds| seconds.saturating_mul(1000));
        ConfigurationChange { redundancy, logs, proxies, resolvers, storage_replace_after_ms }
    }
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    session.database().configure(args.change()).await.map_err(super::not_answered)?;
    if args.wait {
        waiting::until_nothing_is_left(session, output, |facts: &Facts<'_>| facts.unsettled())
            .await?;
    }
    match output.format {
        OutputFormat::Json => output.json(&json!({ "configured": true, "waited": args.wait }))?,
        OutputFormat::Text if args.wait => {}
        OutputFormat::Text => {
            output.note(
                "the configuration is changed; status shows how far the cluster is with it",
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn something_has_to_be_changed() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ').map(str::to_owned));
        let change = |line| parse(line).unwrap().args.change();
        assert_eq!(
            change("configure --redundancy triple --storage-replace-after-s 90"),
            ConfigurationChange {
                redundancy: Some(Redundancy::Triple),
                storage_replace_after_ms: Some(90_000),
                ..ConfigurationChange::default()
            }
        );
        assert_eq!(change("configure --logs 5 --wait").logs, Some(5));
        for wrong in
            ["configure", "configure --wait", "configure --logs 0", "configure --redundancy four"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
