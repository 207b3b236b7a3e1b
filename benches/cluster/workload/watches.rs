//! Fan-out of a change: many watches of one key, armed; then the key is changed, and all of them must hear of it.
//!
//! An operation is one watch that heard; the latency of the stage `notified` is from the begin of the change's commit
//! to the moment at which a watch is ready, that of `arm` is of all watches together.

use ferrisdb_client::{Result, Transaction};
use ferrisdb_core::runtime;
use futures::future::{BoxFuture, try_join_all};

use super::{Sizes, Workload};
use crate::{clients::Client, rows::Table, tally::Work};

/// Watches of one key for each client.
pub(super) struct Watches {
    watchers: u64,
}

impl Watches {
    pub(super) fn new(sizes: &Sizes) -> Watches {
        Watches { watchers: sizes.watchers.max(1) }
    }
}

impl Workload for Watches {
    fn operate<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<Work>> {
        Box::pin(async move {
            let key = &client.rows.key(Table::Watched, client.number);
            let began = runtime::now();
            let body = |transaction: Transaction| async move {
                try_join_all((0..self.watchers).map(|_| transaction.watch(key))).await
            };
            let watches = client.transact(body).await?;
            let armed = client.stage("arm", began);
            let value = &client.value();
            // Another value each time: setting the same one again is no change.
            let change = client.random.next().to_be_bytes();
            let changed = |transaction: Transaction| async move {
                transaction.set(key, [&change, value.as_slice()].concat())
            };
            client.transact(changed).await?;
            let told = &*client;
            let heard = watches.into_iter().map(|watch| async move {
                watch.await?;
                told.stage("notified", armed);
                Ok::<_, ferrisdb_client::Error>(())
            });
            try_join_all(heard).await?;
            Ok(Work::parts(self.watchers))
        })
    }
}
