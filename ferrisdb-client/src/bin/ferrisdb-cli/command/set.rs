//! `set`: gives a key a value.

use anyhow::Result;
use ferrisdb_client::{Key, Value};

use crate::{output::Output, session::Session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The key, in escaped form (\xNN, \\, \t, \n, \r, \0)
    #[arg(value_parser = super::key)]
    key: Key,
    /// The value, in escaped form
    #[arg(value_parser = super::value, allow_hyphen_values = true)]
    value: Value,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let committed = session.write(|transaction| transaction.set(&args.key, &args.value)).await?;
    Ok(output.committed(committed)?)
}
