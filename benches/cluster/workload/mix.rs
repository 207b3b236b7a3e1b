//! Transactions of point reads and updates.

use std::sync::Arc;

use anyhow::ensure;
use ferrisdb_client::{Database, Key, Result, Transaction};
use ferrisdb_core::runtime;
use futures::future::{BoxFuture, try_join_all};

use super::{Kind, Sizes, Totals, Workload};
use crate::{
    clients::Client,
    distribution::{Distribution, Draw},
    load,
    rows::{Rows, Table, counter},
    tally::Work,
};

/// So many rows are summed up before and after a run that counts in them; more would take too long.
const SUMMED_MAX: u64 = 1_000_000;

/// What a transaction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Reads so many rows, one after the other.
    Reads(usize),
    /// Reads so many rows at once.
    ReadsTogether(usize),
    /// Writes a row.
    Write,
    /// Reads a row mostly, and writes one otherwise.
    ReadOrWrite { reads_percent: u64 },
    /// Half of the time reads a row; else writes one, as often blindly as after reading it.
    Everything,
    /// Reads so many rows, then one more, in which it counts.
    Count { reads: usize },
}

/// A mix of point reads and updates.
pub(super) struct Mix {
    shape: Shape,
    draw: Draw,
    keys: u64,
    rows: Arc<Rows>,
    /// The sum of all counters before the run, if that is checked.
    sum_before: Option<i64>,
}

impl Mix {
    pub(super) async fn new(
        kind: Kind,
        sizes: &Sizes,
        rows: &Arc<Rows>,
        database: &Database,
    ) -> anyhow::Result<Mix> {
        let shape = match kind {
            Kind::TenKeyTransaction => Shape::Reads(10),
            Kind::TenReadsTogether => Shape::ReadsTogether(10),
            Kind::BlindUpdate => Shape::Write,
            Kind::Mix9010 => Shape::ReadOrWrite { reads_percent: 90 },
            Kind::Mix502525 => Shape::Everything,
            Kind::ReadModifyWrite => Shape::Count { reads: 0 },
            Kind::NineReadsOneUpdate => Shape::Count { reads: 9 },
            _ => Shape::Reads(1),
        };
        let counts = matches!(shape, Shape::Count { .. }) && sizes.keys <= SUMMED_MAX;
        let sum_before = if counts { Some(sum(database, rows).await?) } else { None };
        let draw = sizes.draw(Distribution::Uniform);
        Ok(Mix { shape, draw, keys: sizes.keys, rows: Arc::clone(rows), sum_before })
    }

    fn key(&self, client: &mut Client) -> Key {
        client.rows.key(Table::Keys, self.draw.row(&mut client.random, self.keys))
    }

    fn keys(&self, client: &mut Client, count: usize) -> Vec<Key> {
        (0..count).map(|_| self.key(client)).collect()
    }

    async fn read(&self, client: &mut Client, count: usize, together: bool) -> Result<Work> {
        let (keys, expect) = (&self.keys(client, count), &client.expect_row());
        client
            .transact(|transaction| async move {
                if together {
                    let reads = keys.iter().map(|key| expect.get(&transaction, key.clone()));
                    try_join_all(reads).await?;
                } else {
                    for key in keys {
                        expect.get(&transaction, key.clone()).await?;
                    }
                }
                Ok(())
            })
            .await?;
        Ok(Work::rows(count as u64, 0))
    }

    async fn write(&self, client: &mut Client) -> Result<Work> {
        let (key, value) = (&self.key(client), &client.value());
        let body = |transaction: Transaction| async move { transaction.set(key, value.as_slice()) };
        client.transact(body).await?;
        Ok(Work::rows(0, 1))
    }

    async fn everything(&self, client: &mut Client) -> Result<Work> {
        let began = runtime::now();
        let (name, work) = match client.random.below(4) {
            0 => ("update", self.write(client).await?),
            1 => ("read-modify-write", self.count(client, 0).await?),
            _ => ("read", self.read(client, 1, false).await?),
        };
        client.stage(name, began);
        Ok(work)
    }

    async fn count(&self, client: &mut Client, reads: usize) -> Result<Work> {
        let (others, own) = (&self.keys(client, reads), &self.key(client));
        let (expect, value) = (&client.expect_row(), &client.value());
        client
            .transact(|transaction| async move {
                for key in others {
                    expect.get(&transaction, key.clone()).await?;
                }
                let found = expect.get(&transaction, own.clone()).await?;
                transaction.set(own, next_value(value, counter(&found)))
            })
            .await?;
        Ok(Work::rows(reads as u64 + 1, 1))
    }
}

impl Workload for Mix {
    fn operate<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<Work>> {
        Box::pin(async move {
            match self.shape {
                Shape::Reads(count) => self.read(client, count, false).await,
                Shape::ReadsTogether(count) => self.read(client, count, true).await,
                Shape::ReadOrWrite { reads_percent } if client.random.percent(reads_percent) => {
                    self.read(client, 1, false).await
                }
                Shape::Write | Shape::ReadOrWrite { .. } => self.write(client).await,
                Shape::Everything => self.everything(client).await,
                Shape::Count { reads } => self.count(client, reads).await,
            }
        })
    }

    fn check<'a>(
        &'a self,
        database: &'a Database,
        totals: Totals,
    ) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        Box::pin(async move {
            let Some(before) = self.sum_before else { return Ok(None) };
            let counted = sum(database, &self.rows).await? - before;
            let done = totals.done.writes;
            ensure!(
                u64::try_from(counted).is_ok_and(|counted| totals.explains(counted, done)),
                "the rows count {counted} updates, {done} were committed"
            );
            Ok(Some(format!("the rows count the {counted} updates that were committed")))
        })
    }
}

/// A value that follows one with such a counter.
pub(super) fn next_value(template: &[u8], counter: i64) -> Vec<u8> {
    let mut value = template.to_vec();
    let next = counter.wrapping_add(1).to_be_bytes();
    value[..next.len()].copy_from_slice(&next);
    value
}

async fn sum(database: &Database, rows: &Rows) -> anyhow::Result<i64> {
    let mut sum: i64 = 0;
    load::for_each_row(database, rows.all(Table::Keys), |row| {
        sum = sum.wrapping_add(counter(&row.value));
    })
    .await?;
    Ok(sum)
}
