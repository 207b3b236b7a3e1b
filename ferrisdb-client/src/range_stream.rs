//! Long range reads: rows come in pages, each read when the one before is used up.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use ferrisdb_core::{Error, Result};
use futures::{
    Stream, StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use crate::{
    options::{KeyValue, RangeQuery},
    selector::KeySelector,
    transaction::{Isolation, Transaction},
};

/// The rows of a range, read in pages as they are consumed. Made by
/// [`Transaction::range_stream`](crate::Transaction::range_stream).
///
/// Each page sees the transaction's own writes as they are when it is read, and observes exactly itself
/// (I-15). The stream ends after an error.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// # let transaction = database.transaction();
/// use futures::TryStreamExt;
/// transaction.set("a", "1")?;
/// transaction.set("b", "2")?;
/// let keys = transaction.range_stream("a".."z").map_ok(|row| row.key.to_string());
/// assert_eq!(keys.try_collect::<Vec<_>>().await?, ["a", "b"]);
/// # Ok(()) }
/// ```
pub struct RangeStream(BoxStream<'static, Result<KeyValue>>);

impl RangeStream {
    pub(crate) fn new(
        transaction: Transaction,
        query: RangeQuery,
        isolation: Isolation,
    ) -> RangeStream {
        let scan = Scan { transaction, query, isolation, pages: 0 };
        let pages = stream::try_unfold(Some(scan), |scan| async {
            let Some(mut scan) = scan else { return Ok::<_, Error>(None) };
            let (rows, more) = scan.page().await?;
            Ok(Some((stream::iter(rows.into_iter().map(Ok)), more.then_some(scan))))
        });
        RangeStream(pages.try_flatten().boxed())
    }
}

/// What is left to read.
struct Scan {
    transaction: Transaction,
    query: RangeQuery,
    isolation: Isolation,
    /// How many were read so far.
    pages: u32,
}

impl Scan {
    /// The next page, and whether there may be more after it.
    async fn page(&mut self) -> Result<(Vec<KeyValue>, bool)> {
        let mut query = self.query.clone();
        if let Some(page_bytes) = query.mode.page_bytes(self.pages) {
            query.bytes_max = Some(query.bytes_max.unwrap_or(usize::MAX).min(page_bytes));
        }
        self.pages = self.pages.saturating_add(1);
        let page = self.transaction.read_range(query, self.isolation).await?;
        let bytes: usize = page.rows.iter().map(KeyValue::size).sum();
        let rest = &mut self.query;
        rest.rows_max = rest.rows_max.map(|max| max.saturating_sub(page.rows.len()));
        rest.bytes_max = rest.bytes_max.map(|max| max.saturating_sub(bytes));
        match page.rows.last() {
            Some(last) if rest.reverse => rest.end = last.key.clone().into(),
            Some(last) => rest.begin = KeySelector::first_greater_than(last.key.clone()),
            None => {}
        }
        let limit_reached = rest.rows_max == Some(0) || rest.bytes_max == Some(0);
        Ok((page.rows, page.more && !limit_reached))
    }
}

impl Stream for RangeStream {
    type Item = Result<KeyValue>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for RangeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RangeStream")
    }
}
