//! Rows that must be there before a run: written once, and found again by the next run with the same sizes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use ferrisdb_client::{Database, Error, Key, KeyRange, KeyValue, RangeQuery, StreamingMode};
use futures::future::try_join_all;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    random::Random,
    rows::{Rows, Table},
};

/// Rows that one transaction writes, unless they are large.
const ROWS_AT_ONCE: u64 = 500;
/// Bytes that one transaction writes, about.
const BYTES_AT_ONCE: u64 = 1_000_000;
/// Transactions in flight.
const LOADERS: u64 = 8;
/// Rows that one transaction reads.
const ROWS_TO_READ: usize = 20_000;

/// Writes a table of so many rows with such a counter, unless it is there already.
///
/// # Errors
///
/// Why the database does not take it.
pub(crate) async fn load(
    database: &Database,
    rows: &Arc<Rows>,
    table: Table,
    count: u64,
    counter: i64,
    is_quiet: bool,
) -> Result<()> {
    let mark_key = &rows.key(Table::Marks, table as u64);
    let mark = &format!("{count} rows of {} bytes, {counter}", rows.row_bytes());
    if database.transaction().get(mark_key).await?.as_deref() == Some(mark.as_bytes()) {
        return Ok(());
    }
    let forget = |transaction: ferrisdb_client::Transaction| async move {
        transaction.clear(mark_key)?;
        transaction.clear_range(rows.all(table))
    };
    database.run_transaction(forget).await?;
    let progress = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new(count) };
    if let Ok(style) =
        ProgressStyle::with_template("loading {bar:30} {pos}/{len} rows, {per_sec}, {eta} left")
    {
        progress.set_style(style);
    }
    let next = &AtomicU64::new(0);
    let rows_at_once = (BYTES_AT_ONCE / rows.row_bytes() as u64).clamp(1, ROWS_AT_ONCE);
    let progress = &progress;
    let loaders = (0..LOADERS).map(|loader| async move {
        let mut random = Random::new(loader);
        loop {
            let begin = next.fetch_add(rows_at_once, Ordering::Relaxed);
            let end = (begin + rows_at_once).min(count);
            if begin >= end {
                return Ok::<_, Error>(());
            }
            let values: Vec<Vec<u8>> =
                (begin..end).map(|_| rows.value(&mut random, counter)).collect();
            let values = &values;
            database
                .run_transaction(|transaction| async move {
                    for (number, value) in (begin..end).zip(values) {
                        transaction.set(rows.key(table, number), value.as_slice())?;
                    }
                    Ok::<_, Error>(())
                })
                .await?;
            progress.inc(end - begin);
        }
    });
    try_join_all(loaders).await?;
    database
        .run_transaction(|transaction| async move { transaction.set(mark_key, mark.as_str()) })
        .await?;
    progress.finish_and_clear();
    Ok(())
}

/// Clears a range.
///
/// # Errors
///
/// Why that was not possible.
pub(crate) async fn clear(database: &Database, range: &KeyRange) -> Result<()> {
    let body =
        |transaction: ferrisdb_client::Transaction| async move { transaction.clear_range(range) };
    Ok(database.run_transaction(body).await?)
}

/// Shows all rows of a range, over as many transactions as it takes: nobody may write meanwhile.
///
/// # Errors
///
/// What a read fails with.
pub(crate) async fn for_each_row(
    database: &Database,
    range: KeyRange,
    mut show: impl FnMut(&KeyValue),
) -> Result<()> {
    let KeyRange { mut begin, end } = range;
    loop {
        let rest = &KeyRange::new(begin, end.clone());
        let page = database
            .run_transaction(|transaction| async move {
                let query = RangeQuery::from(rest).rows(ROWS_TO_READ).mode(StreamingMode::WantAll);
                transaction.snapshot().get_range(query).await
            })
            .await?;
        page.iter().for_each(&mut show);
        match page.last() {
            Some(last) if page.len() == ROWS_TO_READ => {
                begin = Key::from([last.key.as_slice(), b"\0"].concat());
            }
            _ => return Ok(()),
        }
    }
}
