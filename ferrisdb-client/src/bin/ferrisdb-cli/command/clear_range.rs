//! `clear-range`: no key of a range is set any more. Both ends have to be given: nobody clears all by omission.

use anyhow::Result;
use ferrisdb_client::{Key, KeyRange};

use crate::{output::Output, session::Session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first key to clear, in escaped form (\xNN, \\, \t, \n, \r, \0)
    #[arg(value_parser = super::key)]
    begin: Key,
    /// The first key after the range, which is kept
    #[arg(value_parser = super::key)]
    end: Key,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let range = KeyRange::new(&args.begin, &args.end);
    let committed = session.write(|transaction| transaction.clear_range(&range)).await?;
    Ok(output.committed(committed)?)
}
