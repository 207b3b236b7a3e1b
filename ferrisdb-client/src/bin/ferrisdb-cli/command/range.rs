//! `range`: keys and values in order, as they come. The rows are in the formats of `import`.

use anyhow::Result;
use ferrisdb_client::{Error, Key, RangeQuery, Transaction, TransactionOption};
use futures::StreamExt as _;

use crate::{
    format::Format,
    output::{Failure, Output, OutputFormat},
    session::Session,
};

/// How often the beginning of a range is tried again.
const RETRIES_MAX: u32 = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first key, in escaped form (\xNN, \\, \t, \n, \r, \0) [default: the first of all]
    #[arg(value_parser = super::key, conflicts_with = "prefix")]
    begin: Option<Key>,
    /// The first key after the range [default: the end of the user's keys]
    #[arg(value_parser = super::key)]
    end: Option<Key>,
    /// All keys that begin with this, instead of a range
    #[arg(long, value_parser = super::key)]
    prefix: Option<Key>,
    /// Print at most so many rows
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// From the last key down
    #[arg(long)]
    reverse: bool,
}

impl Args {
    fn query(&self) -> RangeQuery {
        let range = super::range_of(self.begin.as_ref(), self.end.as_ref(), self.prefix.as_ref());
        let rows_max = self.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        RangeQuery { rows_max, reverse: self.reverse, ..RangeQuery::new(range) }
    }
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let mut printed = 0;
    if let Some(transaction) = session.open_transaction() {
        return print(&transaction, args, output, &mut printed).await;
    }
    // Not `run_transaction`: what is printed cannot be taken back, so only an attempt that has not printed
    // anything can be made again.
    let transaction = session.database().transaction();
    transaction.set_option(TransactionOption::RetryLimit(Some(RETRIES_MAX)))?;
    loop {
        let Err(error) = print(&transaction, args, output, &mut printed).await else {
            return Ok(());
        };
        match error.downcast::<Error>() {
            Ok(error) if printed == 0 => transaction.on_error(error).await?,
            Ok(error) => return Err(stopped_early(error, printed)),
            Err(error) => return Err(error),
        }
    }
}

async fn print(
    transaction: &Transaction,
    args: &Args,
    output: &mut Output<'_>,
    printed: &mut u64,
) -> Result<()> {
    let format = match output.format {
        OutputFormat::Text => Format::Tsv,
        OutputFormat::Json => Format::Jsonl,
    };
    let mut rows = transaction.range_stream(args.query());
    while let Some(row) = rows.next().await {
        let row = row?;
        format.write(output.data, &row.key, &row.value)?;
        *printed += 1;
    }
    Ok(())
}

fn stopped_early(error: Error, printed: u64) -> anyhow::Error {
    anyhow::Error::from(error).context(Failure::new(
        format!("stopped after {printed} rows"),
        "print less at once, with --limit or a smaller range; `export` reads faster",
    ))
}
