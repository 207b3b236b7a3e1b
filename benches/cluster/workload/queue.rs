//! Appending to a queue: the versionstamp of the commit is the item's key, so nobody conflicts with anybody.

use std::sync::Arc;

use anyhow::ensure;
use ferrisdb_client::{Database, Result, Transaction};
use futures::future::BoxFuture;

use super::{Totals, Workload};
use crate::{
    clients::Client,
    load,
    rows::{Rows, Table},
    tally::Work,
};

/// Inserts into a queue that was empty at first.
pub(super) struct Queue {
    rows: Arc<Rows>,
}

impl Queue {
    pub(super) async fn new(rows: &Arc<Rows>, database: &Database) -> anyhow::Result<Queue> {
        load::clear(database, &rows.all(Table::Queue)).await?;
        Ok(Queue { rows: Arc::clone(rows) })
    }
}

impl Workload for Queue {
    fn operate<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<Work>> {
        Box::pin(async move {
            let (key, offset) = client.rows.stamped_key();
            let (key, value) = (&key, &client.value());
            let body = |transaction: Transaction| async move {
                transaction.set_versionstamped_key(key, offset, value.as_slice())
            };
            client.transact(body).await?;
            Ok(Work::rows(0, 1))
        })
    }

    fn check<'a>(
        &'a self,
        database: &'a Database,
        totals: Totals,
    ) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        Box::pin(async move {
            let mut items: u64 = 0;
            load::for_each_row(database, self.rows.all(Table::Queue), |_| items += 1).await?;
            let inserted = totals.done.writes;
            ensure!(
                totals.explains(items, inserted),
                "{items} items are there, {inserted} were inserted"
            );
            Ok(Some(format!("all {items} items are there, each under a key of its own")))
        })
    }
}
