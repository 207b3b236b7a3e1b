//! The core workloads of YCSB, the Yahoo Cloud Serving Benchmark: each operation is a transaction of its own.
//!
//! Rows have one field; inserts go on behind the rows that were loaded, and are cleared before the next run.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ferrisdb_client::{Database, KeyRange, RangeQuery, Result, StreamingMode, Transaction};
use ferrisdb_core::runtime;
use futures::future::BoxFuture;

use super::{Kind, Sizes, Workload, mix::next_value};
use crate::{
    clients::Client,
    distribution::{Distribution, Draw},
    load,
    rows::{Rows, Table, counter},
    tally::Work,
};

/// The most rows of a scan.
const SCAN_ROWS_MAX: u64 = 100;

/// How often, in a hundred operations; the rest are updates.
struct Shares {
    reads: u64,
    inserts: u64,
    scans: u64,
    read_modify_writes: u64,
}

/// One of the workloads A to F.
pub(super) struct Ycsb {
    shares: Shares,
    draw: Draw,
    loaded: u64,
    /// How many rows have been given to inserts, and to the loading.
    given: AtomicU64,
    /// One more than the greatest row that is known to be there.
    newest: AtomicU64,
}

impl Ycsb {
    pub(super) async fn new(
        kind: Kind,
        sizes: &Sizes,
        rows: &Arc<Rows>,
        database: &Database,
    ) -> anyhow::Result<Ycsb> {
        let shares = |reads, inserts, scans, read_modify_writes| Shares {
            reads,
            inserts,
            scans,
            read_modify_writes,
        };
        let (shares, distribution) = match kind {
            Kind::YcsbA => (shares(50, 0, 0, 0), Distribution::Zipf),
            Kind::YcsbB => (shares(95, 0, 0, 0), Distribution::Zipf),
            Kind::YcsbD => (shares(95, 5, 0, 0), Distribution::Latest),
            Kind::YcsbE => (shares(0, 5, 95, 0), Distribution::Zipf),
            Kind::YcsbF => (shares(50, 0, 0, 50), Distribution::Zipf),
            _ => (shares(100, 0, 0, 0), Distribution::Zipf),
        };
        load::clear(database, &rows.from(Table::Keys, sizes.keys)).await?;
        let draw = sizes.draw(distribution);
        let (given, newest) = (AtomicU64::new(sizes.keys), AtomicU64::new(sizes.keys));
        Ok(Ycsb { shares, draw, loaded: sizes.keys, given, newest })
    }

    fn row(&self, client: &mut Client) -> u64 {
        self.draw.row(&mut client.random, self.newest.load(Ordering::Relaxed))
    }

    async fn read(&self, client: &mut Client) -> Result<Work> {
        let row = self.row(client);
        let (key, expect) = (&client.rows.key(Table::Keys, row), &client.expect_row());
        let is_found = client
            .transact(|transaction| async move { Ok(transaction.get(key).await?.is_some()) })
            .await?;
        // An insert with a lower number may be on its way still.
        if !is_found && row < self.loaded {
            expect.missing(1);
        }
        Ok(Work::rows(1, 0))
    }

    async fn update(&self, client: &mut Client) -> Result<Work> {
        let row = self.row(client);
        self.write(client, row).await
    }

    async fn insert(&self, client: &mut Client) -> Result<Work> {
        let row = self.given.fetch_add(1, Ordering::Relaxed);
        let work = self.write(client, row).await?;
        self.newest.fetch_max(row + 1, Ordering::Relaxed);
        Ok(work)
    }

    async fn write(&self, client: &mut Client, row: u64) -> Result<Work> {
        let (key, value) = (&client.rows.key(Table::Keys, row), &client.value());
        let body = |transaction: Transaction| async move { transaction.set(key, value.as_slice()) };
        client.transact(body).await?;
        Ok(Work::rows(0, 1))
    }

    async fn scan(&self, client: &mut Client) -> Result<Work> {
        let first = self.row(client);
        let count = 1 + client.random.below(SCAN_ROWS_MAX) as usize;
        let range: &KeyRange = &client.rows.from(Table::Keys, first);
        let found = client
            .transact(|transaction| async move {
                let query = RangeQuery::from(range).rows(count).mode(StreamingMode::WantAll);
                Ok(transaction.get_range(query).await?.len())
            })
            .await?;
        Ok(Work::rows(found as u64, 0))
    }

    async fn read_modify_write(&self, client: &mut Client) -> Result<Work> {
        let row = self.row(client);
        let (key, value) = (&client.rows.key(Table::Keys, row), &client.value());
        let expect = &client.expect_row();
        client
            .transact(|transaction| async move {
                let found = expect.get(&transaction, key.clone()).await?;
                transaction.set(key, next_value(value, counter(&found)))
            })
            .await?;
        Ok(Work::rows(1, 1))
    }
}

impl Workload for Ycsb {
    fn operate<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<Work>> {
        Box::pin(async move {
            let began = runtime::now();
            let mut choice = client.random.below(100);
            let mut is_it = |share: u64| {
                let is_it = choice < share;
                choice = choice.wrapping_sub(share);
                is_it
            };
            let (name, work) = if is_it(self.shares.reads) {
                ("read", self.read(client).await?)
            } else if is_it(self.shares.inserts) {
                ("insert", self.insert(client).await?)
            } else if is_it(self.shares.scans) {
                ("scan", self.scan(client).await?)
            } else if is_it(self.shares.read_modify_writes) {
                ("read-modify-write", self.read_modify_write(client).await?)
            } else {
                ("update", self.update(client).await?)
            };
            client.stage(name, began);
            Ok(work)
        })
    }
}
