//! The parts of a transaction, timed one by one: read version, read, commit of one update; the read version
//! together with the read, as somebody sees it who reads one row; and all of it, a whole read-modify-write transaction.

use ferrisdb_client::Result;
use ferrisdb_core::runtime;
use futures::future::BoxFuture;

use super::{Sizes, Workload};
use crate::{
    clients::Client,
    distribution::{Distribution, Draw},
    rows::Table,
    tally::Work,
};

/// One transaction after the other, with its parts.
pub(super) struct Latency {
    draw: Draw,
    keys: u64,
}

impl Latency {
    pub(super) fn new(sizes: &Sizes) -> Latency {
        Latency { draw: sizes.draw(Distribution::Uniform), keys: sizes.keys }
    }

    async fn parts(&self, client: &mut Client) -> Result<Work> {
        let row = self.draw.row(&mut client.random, self.keys);
        let key = client.rows.key(Table::Keys, row);
        let value = client.value();

        let began = runtime::now();
        let transaction = client.database.transaction();
        transaction.read_version().await?;
        let versioned = client.stage("read version", began);
        client.expect_row().get(&transaction, key.clone()).await?;
        client.stage("read at a known version", versioned);
        let committing = client.stage("read version and read", began);
        transaction.set(key.clone(), value.clone())?;
        transaction.commit().await?;
        let committed = client.stage("commit after a read", committing);
        client.stage("read-modify-write", began);

        let blind = client.database.transaction();
        blind.set(key, value)?;
        blind.commit().await?;
        client.stage("blind commit", committed);
        Ok(Work::rows(1, 2))
    }
}

impl Workload for Latency {
    fn operate<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<Work>> {
        Box::pin(async move {
            loop {
                match self.parts(client).await {
                    Err(error) if client.tries_again(&error) => {}
                    result => return result,
                }
            }
        })
    }
}
