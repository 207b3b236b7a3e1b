//! `import`: sets the records of a file, in transactions of a bounded size, several at once.
//!
//! ```text
//!   file ──► RecordReader ──► batch 7 ──► batches 3..6 being committed ──► count
//!            a blocking       1 MB of     IN_FLIGHT_MAX at once
//!            thread           records
//! ```
//!
//! Memory is bounded by the batches in flight. They commit in any order, except that two batches that set the
//! same key wait for each other: the last line of a key wins, as it would in a loop. An import that stops
//! half-way can be run again from the beginning, because setting a key twice changes nothing.
//!
//! When a line is malformed, everything before it is imported first, so that the count in the error is exact.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, stdin},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use ferrisdb_client::{Error, Key, Stage, Transaction};
use ferrisdb_core::{limits, runtime};
use futures::{StreamExt as _, stream::FuturesUnordered};
use indicatif::ProgressBar;

use crate::{
    format::{Format, LineError, Record, RecordReader},
    output::{Failure, Output, OutputFormat},
    progress,
    session::Session,
};

/// Transactions being committed at once.
const IN_FLIGHT_MAX: usize = 8;
/// Most that a transaction may be asked to hold; what one record adds to it stays within the limit, too.
const BATCH_BYTES_MAX: u64 = 8_000_000;
/// What a record adds to its transaction besides its key and value, counted generously.
const RECORD_OVERHEAD_BYTES: u64 = 64;

const _: () = assert!(
    BATCH_BYTES_MAX as usize + 3 * limits::KEY_BYTES_MAX + limits::VALUE_BYTES_MAX + 1024
        < limits::TRANSACTION_BYTES_MAX
);
// A mutation and a conflict range each.
const _: () = assert!(
    2 * (BATCH_BYTES_MAX / RECORD_OVERHEAD_BYTES + 1) < limits::TRANSACTION_ITEMS_MAX as u64
);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file; - is standard input
    file: PathBuf,
    /// How the records are written [default: by the file's name, .jsonl or else tsv]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Put this in front of every key
    #[arg(long, value_parser = super::key, default_value = "", hide_default_value = true)]
    prefix: Key,
    /// Begin another transaction after so many bytes
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1..=BATCH_BYTES_MAX)
    )]
    batch_bytes: u64,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    session.no_open_transaction("import")?;
    let (reader, bar) = open(args)?;
    let source = Source { reader, batch_bytes: args.batch_bytes };
    let began = runtime::now();
    let mut imported = 0;
    let result = import(session, source, &mut imported, &bar).await;
    bar.finish_and_clear();
    match result {
        Ok(()) => {}
        Err(Stop::Line(error)) => {
            return Err(anyhow!(Failure::new(
                format!(
                    "{}: {error} ({imported} records before it were imported)",
                    args.file.display()
                ),
                "mend the line and import the file again: records that are there already do no harm",
            )));
        }
        Err(Stop::Commit(error)) => {
            return Err(anyhow::Error::from(error).context(Failure::new(
                format!(
                    "the import of {} stopped after {imported} records (some more may be there)",
                    args.file.display()
                ),
                "when the cause is mended, import the file again: records that are there already do no harm",
            )));
        }
    }
    match output.format {
        OutputFormat::Json => output.json(&serde_json::json!({ "records": imported }))?,
        OutputFormat::Text => {
            let summary = progress::summary(imported, runtime::now() - began);
            output.note(format_args!("imported {summary}"))?;
        }
    }
    Ok(())
}

fn open(args: &Args) -> Result<(RecordReader, ProgressBar)> {
    let format = args.format.unwrap_or_else(|| Format::of_path(&args.file));
    let (reader, bar) = if args.file.as_os_str() == "-" {
        (RecordReader::new(BufReader::new(stdin()), format), progress::of_stream())
    } else {
        let cannot_open = || format!("cannot open {}", args.file.display());
        let file = File::open(&args.file).with_context(cannot_open)?;
        let metadata = file.metadata().with_context(cannot_open)?;
        let bar = match metadata.is_file() {
            true => progress::of_file(metadata.len()),
            false => progress::of_stream(),
        };
        (RecordReader::new(BufReader::with_capacity(1 << 20, file), format), bar)
    };
    Ok((reader.prefix(&args.prefix), bar))
}

/// Why an import ends early.
enum Stop {
    Line(LineError),
    Commit(Error),
}

/// Records that are set together.
struct Batch {
    records: Arc<[Record]>,
    /// Where in the file the batch ends.
    position: u64,
}

/// What the records are read from.
struct Source {
    reader: RecordReader,
    batch_bytes: u64,
}

impl Source {
    /// The next batch, which is empty only at the end; and why there is no further one.
    fn next_batch(&mut self) -> (Batch, End) {
        let mut records = Vec::new();
        let mut bytes = 0;
        let end = loop {
            if bytes >= self.batch_bytes {
                break End::NotYet;
            }
            match self.reader.next_record() {
                Ok(Some(record)) => {
                    bytes += cost(&record);
                    records.push(record);
                }
                Ok(None) => break End::OfFile,
                Err(error) => break End::AtLine(error),
            }
        };
        (Batch { records: records.into(), position: self.reader.position() }, end)
    }
}

enum End {
    NotYet,
    OfFile,
    AtLine(LineError),
}

/// What a record adds to its transaction: the mutation, and the key twice more in its conflict range.
fn cost(record: &Record) -> u64 {
    3 * record.key.len() as u64 + record.value.len() as u64 + RECORD_OVERHEAD_BYTES
}

async fn import(
    session: &Session,
    source: Source,
    imported: &mut u64,
    bar: &ProgressBar,
) -> Result<(), Stop> {
    // Reading blocks, on a pipe for as long as it likes: it has a thread of its own, and goes on while
    // earlier batches are committed.
    let read = |mut source: Source| {
        runtime::blocking(move || {
            let (batch, end) = source.next_batch();
            (source, batch, end)
        })
    };
    let mut commits = FuturesUnordered::new();
    let mut in_flight = KeysInFlight::default();
    let mut finish = |batch: Batch, in_flight: &mut KeysInFlight| {
        in_flight.remove(&batch);
        *imported += batch.records.len() as u64;
        bar.set_position(bar.position().max(batch.position));
        bar.set_message(format!("{imported} records"));
    };
    let mut reading = Box::pin(read(source));
    let end = loop {
        let (source, batch, end) = tokio::select! {
            biased;
            Some(committed) = commits.next() => {
                finish(committed?, &mut in_flight);
                continue;
            }
            read = &mut reading, if commits.len() < IN_FLIGHT_MAX => read,
        };
        while in_flight.shares_a_key_with(&batch) {
            let committed = commits.next().await.expect("keys in flight belong to a commit");
            finish(committed?, &mut in_flight);
        }
        if !batch.records.is_empty() {
            in_flight.insert(&batch);
            commits.push(commit(session, batch));
        }
        match end {
            End::NotYet => reading = Box::pin(read(source)),
            End::OfFile => break None,
            End::AtLine(error) => break Some(error),
        }
    };
    while let Some(committed) = commits.next().await {
        finish(committed?, &mut in_flight);
    }
    end.map_or(Ok(()), |error| Err(Stop::Line(error)))
}

async fn commit(session: &Session, batch: Batch) -> Result<Batch, Stop> {
    let set_all = |transaction: Transaction| {
        let records = Arc::clone(&batch.records);
        async move {
            for record in records.iter() {
                transaction.set(&record.key, &record.value)?;
            }
            Ok(())
        }
    };
    // Without a limit, an import into a cluster that is down would wait for it without a word.
    let committing = session.database().run_transaction(set_all);
    let committed = runtime::timeout(session.limit(), Stage::Client, committing).await;
    committed.and_then(|committed| committed).map_err(Stop::Commit)?;
    Ok(batch)
}

/// The keys that are being committed, by the position of their batch.
#[derive(Default)]
struct KeysInFlight(BTreeMap<u64, BTreeSet<Key>>);

impl KeysInFlight {
    fn insert(&mut self, batch: &Batch) {
        let keys = batch.records.iter().map(|record| record.key.clone());
        self.0.insert(batch.position, keys.collect());
    }

    fn remove(&mut self, batch: &Batch) {
        self.0.remove(&batch.position);
    }

    /// Sorted files, as exports are, never get past the comparison of the ends.
    fn shares_a_key_with(&self, batch: &Batch) -> bool {
        let keys = || batch.records.iter().map(|record| &record.key);
        let (Some(first), Some(last)) = (keys().min(), keys().max()) else { return false };
        self.0.values().any(|in_flight| {
            let apart = in_flight.first().is_none_or(|key| last < key)
                || in_flight.last().is_none_or(|key| key < first);
            !apart && keys().any(|key| in_flight.contains(key))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn source(file: &'static str, batch_bytes: u64) -> Source {
        Source { reader: RecordReader::new(Cursor::new(file), Format::Tsv), batch_bytes }
    }

    #[test]
    fn batches_end_by_size_at_the_end_and_at_a_bad_line() {
        let mut source =
            source("a\t1\nb\t2\nc\t3\nbad\nd\t4\n", 2 * (3 + 1 + RECORD_OVERHEAD_BYTES));
        let (batch, end) = source.next_batch();
        assert_eq!((batch.records.len(), batch.position), (2, 8));
        assert!(matches!(end, End::NotYet));
        let (batch, end) = source.next_batch();
        assert_eq!(batch.records.len(), 1);
        assert!(matches!(end, End::AtLine(LineError { line: 4, .. })));
    }

    #[test]
    fn an_empty_file_is_an_empty_batch() {
        let (batch, end) = source("", 100).next_batch();
        assert!(batch.records.is_empty() && matches!(end, End::OfFile));
    }

    #[test]
    fn batches_that_set_the_same_key_know_of_each_other() {
        let batch = |file: &'static str, position| {
            let (batch, _) = source(file, 1000).next_batch();
            Batch { position, ..batch }
        };
        let mut in_flight = KeysInFlight::default();
        let (odd, even) = (batch("c\t1\na\t1\n", 1), batch("b\t1\nd\t1\n", 2));
        in_flight.insert(&odd);
        assert!(!in_flight.shares_a_key_with(&even), "interleaved, but no key in common");
        in_flight.insert(&even);
        assert!(in_flight.shares_a_key_with(&batch("x\t1\nb\t2\n", 3)));
        assert!(!in_flight.shares_a_key_with(&batch("x\t1\n", 3)));
        in_flight.remove(&even);
        assert!(!in_flight.shares_a_key_with(&batch("x\t1\nb\t2\n", 3)));
    }
}
