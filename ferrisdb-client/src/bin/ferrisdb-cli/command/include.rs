//! `include`: takes excluded processes back.

use anyhow::Result;
use ferrisdb_client::ProcessSelector;
use serde_json::json;

use crate::{
    output::{Output, OutputFormat},
    session::Session,
};

/// What `--help` says.
pub(super) const HELP: &str = "\
Takes excluded processes back: they get data and roles again.

Examples:
  include 10.0.0.7:4502";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which processes: an address (host:port), or an id as status shows it
    #[arg(required = true, value_name = "ADDRESS|PROCESS", value_parser = super::process)]
    processes: Vec<ProcessSelector>,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let processes = args.processes.clone();
    session.database().include(processes).await.map_err(super::not_answered)?;
    match output.format {
        OutputFormat::Json => output.json(&json!({ "included": true }))?,
        OutputFormat::Text => output.note("included")?,
    }
    Ok(())
}
