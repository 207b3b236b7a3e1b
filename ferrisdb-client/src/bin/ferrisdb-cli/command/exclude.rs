//! `exclude`: empties processes, so that they can be stopped for good.

use anyhow::Result;
use ferrisdb_client::ProcessSelector;
use serde_json::json;

use super::{status::facts::Facts, waiting};
use crate::{
    output::{Output, OutputFormat},
    session::Session,
};

/// What `--help` says.
pub(super) const HELP: &str = "\
Empties processes, so that they can be stopped for good: their data is copied elsewhere, their roles are recruited \
on others. Until then they go on serving.

An address stays excluded, whatever process comes there later, until include takes it back. The controllers refuse if \
too few processes would be left for the redundancy.

Examples:
  exclude 10.0.0.7:4502 10.0.0.7:4503 --wait
  exclude 5a0c3c0e5f3b4f6d8e1f2a3b4c5d6e7f";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which processes: an address (host:port), or an id as status shows it
    #[arg(required = true, value_name = "ADDRESS|PROCESS", value_parser = super::process)]
    processes: Vec<ProcessSelector>,
    /// Wait until they are drained; Ctrl-C ends the waiting, not the exclusion
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let processes = args.processes.clone();
    session.database().exclude(processes).await.map_err(super::not_answered)?;
    if args.wait {
        let left = |facts: &Facts<'_>| facts.undrained(&args.processes);
        waiting::until_nothing_is_left(session, output, left).await?;
    }
    match output.format {
        OutputFormat::Json => output.json(&json!({ "excluded": true, "drained": args.wait }))?,
        OutputFormat::Text if args.wait => {
            output.note("drained: the processes can be stopped")?;
        }
        OutputFormat::Text => {
            output.note("excluded; do not stop them before status calls them drained")?;
        }
    }
    Ok(())
}
