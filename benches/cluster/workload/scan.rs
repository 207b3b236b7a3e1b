//! Range reads.

use anyhow::ensure;
use ferrisdb_client::{KeyRange, RangeQuery, Result, StreamingMode};
use futures::future::BoxFuture;

use super::{Sizes, Workload};
use crate::{clients::Client, rows::Table, tally::Work};

/// Reads so many rows that lie side by side, anywhere.
pub(super) struct Scan {
    scan_rows: u64,
    keys: u64,
}

impl Scan {
    pub(super) fn new(sizes: &Sizes) -> anyhow::Result<Scan> {
        let Sizes { scan_rows, keys, .. } = *sizes;
        ensure!(scan_rows > 0, "--scan-rows 0: at least one");
        ensure!(scan_rows <= keys, "--scan-rows {scan_rows}: there are {keys} rows (--keys)");
        Ok(Scan { scan_rows, keys })
    }
}

impl Workload for Scan {
    fn operate<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<Work>> {
        Box::pin(async move {
            let first = client.random.below(self.keys - self.scan_rows + 1);
            let range: &KeyRange = &client.rows.from(Table::Keys, first);
            let rows_max = self.scan_rows as usize;
            let found = client
                .transact(|transaction| async move {
                    let query = RangeQuery::from(range).rows(rows_max).mode(StreamingMode::WantAll);
                    Ok(transaction.get_range(query).await?.len())
                })
                .await? as u64;
            client.expect_row().missing(self.scan_rows - found);
            Ok(Work::rows(found, 0))
        })
    }
}
