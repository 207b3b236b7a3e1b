//! `export`: all records of a range, exactly as they were at one version.
//!
//! ```text
//!   read version 41,000,000
//!     shard a..g   pages ──────┐
//!     shard g..p   pages ─────┐├──► in key order ──► .dump.tsv.5f3a.tmp ──► dump.tsv
//!     shard p..\xff  pages ──┘┘                                        renamed when complete
//! ```
//!
//! Every page is read at the same version, whichever shard it comes from; shards are read ahead side by side
//! (`snapshot.rs`), the file is written in key order. The cluster keeps about five seconds of versions while
//! others commit: an export that needs longer fails, it never mixes versions. The file appears whole or not at
//! all (`target.rs`).

mod snapshot;
mod target;

use std::{
    io::{self, IsTerminal as _, Write},
    path::PathBuf,
};

use anyhow::{Result, anyhow};
use ferrisdb_client::{ErrorCode, Key, Version};
use ferrisdb_core::runtime;
use indicatif::ProgressBar;

use self::{snapshot::Snapshot, target::Target};
use crate::{
    format::Format,
    output::{Failure, Output, OutputFormat},
    progress,
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file; - is standard output
    file: PathBuf,
    /// How the records are written [default: by the file's name, .jsonl or else tsv]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only keys that begin with this; they are exported whole
    #[arg(long, value_parser = super::key, conflicts_with_all = ["begin", "end"])]
    prefix: Option<Key>,
    /// The first key to export, in escaped form
    #[arg(long, value_parser = super::key)]
    begin: Option<Key>,
    /// The first key after the range
    #[arg(long, value_parser = super::key)]
    end: Option<Key>,
}

/// What an export has come to.
#[derive(Clone, Copy, Default)]
struct Progress {
    records: u64,
    bytes: u64,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    session.no_open_transaction("export")?;
    let range = super::range_of(args.begin.as_ref(), args.end.as_ref(), args.prefix.as_ref());
    let format = args.format.unwrap_or_else(|| Format::of_path(&args.file));
    let to_stdout = args.file.as_os_str() == "-";
    let began = runtime::now();
    let bar = match to_stdout && io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => progress::of_stream(),
    };
    let mut progress = Progress::default();

    let mut snapshot = Snapshot::take(session.database(), range).await?;
    let version = snapshot.version();
    let copied = if to_stdout {
        copy(&mut snapshot, format, output.data, &mut progress, &bar).await
    } else {
        let mut target = Target::create(&args.file)?;
        match copy(&mut snapshot, format, target.writer(), &mut progress, &bar).await {
            Ok(()) => target.complete(),
            Err(error) => Err(error),
        }
    };
    bar.finish_and_clear();
    copied.map_err(|error| explain(error, version, progress, to_stdout))?;

    if to_stdout {
        // Standard output is the file: an object about it would not belong there.
        return Ok(());
    }
    match output.format {
        OutputFormat::Json => output.json(&serde_json::json!({
            "records": progress.records,
            "bytes": progress.bytes,
            "version": version.0,
        }))?,
        OutputFormat::Text => {
            let summary = progress::summary(progress.records, runtime::now() - began);
            output.note(format_args!("exported {summary}, as of version {version}"))?;
        }
    }
    Ok(())
}

async fn copy(
    snapshot: &mut Snapshot,
    format: Format,
    writer: &mut dyn Write,
    progress: &mut Progress,
    bar: &ProgressBar,
) -> Result<()> {
    let mut previous: Option<Key> = None;
    while let Some(page) = snapshot.next_page().await? {
        for row in &page {
            // Nobody checks an export before it is needed: a row out of order or twice must not get in.
            if previous.as_ref().is_some_and(|previous| *previous >= row.key) {
                return Err(anyhow!("the key {:?} came out of order", row.key));
            }
            previous = Some(row.key.clone());
            format.write(writer, &row.key, &row.value)?;
            progress.records += 1;
            progress.bytes += row.size() as u64;
        }
        bar.set_position(progress.bytes);
        bar.set_message(format!("{} records", progress.records));
    }
    Ok(())
}

/// What a failed export means, and what to do instead.
fn explain(
    error: anyhow::Error,
    version: Version,
    progress: Progress,
    to_stdout: bool,
) -> anyhow::Error {
    if crate::output::is_broken_pipe(&error) {
        return error;
    }
    let left_behind = match to_stdout {
        true => "what was written is not complete",
        false => "no file was written",
    };
    let Progress { records, .. } = progress;
    let failure = match crate::output::error_code(&error) {
        Some(ErrorCode::TransactionTooOld) => Failure::new(
            format!(
                "the export outlived its version {version} after {records} records; {left_behind}: the \
                 cluster keeps about five seconds of versions while others commit"
            ),
            "export in parts (--prefix, or --begin and --end), each consistent in itself, or while \
             less is being written",
        ),
        code => Failure::new(
            format!("the export stopped after {records} records; {left_behind}"),
            code.map_or("see the cause", ErrorCode::hint),
        ),
    };
    error.context(failure)
}
