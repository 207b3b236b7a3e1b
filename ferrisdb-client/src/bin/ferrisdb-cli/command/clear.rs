//! `clear`: a key is not set any more.

use anyhow::Result;
use ferrisdb_client::Key;

use crate::{output::Output, session::Session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The key, in escaped form (\xNN, \\, \t, \n, \r, \0)
    #[arg(value_parser = super::key)]
    key: Key,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let committed = session.write(|transaction| transaction.clear(&args.key)).await?;
    Ok(output.committed(committed)?)
}
