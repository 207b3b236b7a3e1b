//! `add`: adds to a number without reading it, so that concurrent additions do not conflict.

use anyhow::Result;
use ferrisdb_client::Key;

use crate::{output::Output, session::Session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The key, in escaped form (\xNN, \\, \t, \n, \r, \0); its value is eight bytes, little-endian
    #[arg(value_parser = super::key)]
    key: Key,
    /// What to add; may be negative
    #[arg(allow_hyphen_values = true, value_name = "N")]
    delta: i64,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let committed = session.write(|transaction| transaction.add(&args.key, args.delta)).await?;
    Ok(output.committed(committed)?)
}
