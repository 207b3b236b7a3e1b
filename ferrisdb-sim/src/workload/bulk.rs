//! Megabytes in large values and many keys, overwritten, cleared by ranges and read in pages.
//!
//! ```text
//!   bulk/002/000017    what client 2 wrote there in its round 5: made of the three numbers, never kept
//!
//!   rows       17: round 5    18: round 3    19: -      all that the client remembers
//!   pages      up, down, and in streams; a page whose version is too old goes on at a newer one
//!   in the end everything is cleared: windows of storage servers and logs must become small again
//! ```
//!
//! Nobody else writes a client's keys, so that pages of different versions fit together. Start with
//! [`Bulk::read_all`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{Key, KeyRange, KeyValue, RangeQuery, Status, Value};
use ferrisdb_core::{runtime, service::controller::ProcessClass};
use futures::{FutureExt as _, TryStreamExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{self, draw, one_in, passing, persist},
};

/// How much of it, and the bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BulkSettings {
    /// How many clients.
    pub clients: u32,
    /// Keys of each client.
    pub keys: u32,
    /// Longest value, in bytes.
    pub value_bytes: u32,
    /// About how many bytes a transaction writes.
    pub transaction_bytes: u32,
    /// Bytes that each client writes before it only reads.
    pub bytes_max: u64,
    /// Bytes that the window of a storage server may take once everything is quiet.
    pub window_bytes_max: u64,
    /// Bytes that a log may take on disk once everything is quiet.
    pub log_bytes_max: u64,
    /// Seconds in which they must become so small.
    pub rest_seconds: u64,
}

impl Default for BulkSettings {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        BulkSettings {
            clients: 2,
            keys: 200,
            value_bytes: 20_000,
            transaction_bytes: 300_000,
            bytes_max: 6 * MIB,
            window_bytes_max: MIB / 4,
            log_bytes_max: 256 * MIB,
            rest_seconds: 120,
        }
    }
}

/// The workload.
pub struct Bulk {
    settings: BulkSettings,
    models: Mutex<BTreeMap<u32, Model>>,
}

/// What a client knows of its keys: the round in which each was last written.
#[derive(Clone, Debug, Default)]
struct Model {
    rows: BTreeMap<u32, u32>,
    round: u32,
    written_bytes: u64,
    read_bytes: u64,
}

fn prefix(client: u32) -> String {
    format!("bulk/{client:03}/")
}

fn key(client: u32, index: u32) -> Key {
    format!("{}{index:06}", prefix(client)).into()
}

/// The value of a key in a round: of any length, and different from all others.
fn value(client: u32, index: u32, round: u32, bytes_max: u32) -> Value {
    let seed = (u64::from(client) << 48 | u64::from(round) << 24 | u64::from(index))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let length = seed >> 33;
    let length = length as usize % (bytes_max as usize + 1);
    let mut bytes = Vec::with_capacity(length + 24);
    while bytes.len() < length {
        bytes.extend_from_slice(&(seed ^ bytes.len() as u64).to_be_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

impl Bulk {
    /// A workload of which nothing was done yet.
    pub fn new(settings: BulkSettings) -> Bulk {
        Bulk { settings, models: Mutex::default() }
    }

    fn value(&self, client: u32, index: u32, round: u32) -> Value {
        value(client, index, round, self.settings.value_bytes)
    }

    async fn work(&self, client: &Client, model: &mut Model) -> Result<()> {
        let keys = self.settings.keys.max(1);
        while !client.is_stopped() {
            let (a, b) = (draw(keys as usize) as u32, draw(keys as usize) as u32);
            let (begin, end) = (a.min(b), a.max(b) + 1);
            match draw(6) {
                0..=2 if model.written_bytes < self.settings.bytes_max => {
                    self.write(client, model, begin, end).await?;
                }
                3 if one_in(2) => self.clear(client, model, begin, end).await?,
                _ => self.read_all(client, client.number, model).await?,
            }
            support::pause().await;
        }
        Ok(())
    }

    /// Writes keys anew, in as many transactions as it takes.
    async fn write(&self, client: &Client, model: &mut Model, begin: u32, end: u32) -> Result<()> {
        model.round += 1;
        let (number, round) = (client.number, model.round);
        let mut next = begin;
        while next < end && !client.is_stopped() {
            let first = next;
            let mut bytes = 0;
            while next < end && bytes < self.settings.transaction_bytes as usize {
                bytes += self.value(number, next, round).len();
                next += 1;
            }
            support::run(client, "a large transaction", |transaction| async move {
                for index in first..next {
                    transaction.set(key(number, index), self.value(number, index, round))?;
                }
                Ok(())
            })
            .await?;
            model.rows.extend((first..next).map(|index| (index, round)));
            model.written_bytes += bytes as u64;
        }
        Ok(())
    }

    async fn clear(&self, client: &Client, model: &mut Model, begin: u32, end: u32) -> Result<()> {
        let range = &KeyRange { begin: key(client.number, begin), end: key(client.number, end) };
        support::run(client, "a clear", |transaction| async move {
            Ok(transaction.clear_range(range)?)
        })
        .await?;
        model.rows.retain(|index, _| !(begin..end).contains(index));
        Ok(())
    }

    /// Reads all keys of a client, in pages of some kind, and compares them with what it knows.
    async fn read_all(&self, client: &Client, number: u32, model: &mut Model) -> Result<()> {
        let reverse = one_in(2);
        let is_streamed = one_in(2);
        let mut query = RangeQuery::from(KeyRange::prefix(prefix(number).as_bytes()));
        query.reverse = reverse;
        let mut found = BTreeMap::new();
        let mut hopeless = 0;
        loop {
            match page(client, &query, is_streamed).await {
                Ok((rows, more)) => {
                    match rows.last() {
                        Some(last) if reverse => query.end = last.key.clone().into(),
                        Some(last) => query.begin = last.key.successor().into(),
                        None => {}
                    }
                    for row in rows {
                        model.read_bytes += row.size() as u64;
                        let again = found.insert(row.key.clone(), row.value);
                        ensure!(again.is_none(), "{} came twice in pages (I-2)", row.key);
                    }
                    if !more {
                        break;
                    }
                }
                Err(error) if passing(&error).is_some() => {
                    hopeless += u32::from(client.is_stopped());
                    ensure!(hopeless < 1_000, "pages cannot be read without faults: {error}");
                    support::pause().await;
                }
                Err(error) => return Err(error),
            }
        }
        self.compare(number, model, &found)
    }

    fn compare(&self, client: u32, model: &Model, found: &BTreeMap<Key, Value>) -> Result<()> {
        for (&index, &round) in &model.rows {
            let key = key(client, index);
            let Some(found) = found.get(&key) else {
                bail!("{key} is gone, it was written in round {round} (I-5)");
            };
            let is_right = *found == self.value(client, index, round);
            ensure!(is_right, "{key} is not what was written in round {round} (I-2)");
        }
        let expected: BTreeSet<Key> = model.rows.keys().map(|&index| key(client, index)).collect();
        let foreign = found.keys().find(|key| !expected.contains(*key));
        ensure!(foreign.is_none(), "{foreign:?} was cleared and is there (I-2)");
        Ok(())
    }

    /// Waits until windows and logs are small.
    async fn wait_for_rest(&self, client: &Client) -> Result<String> {
        let (began, limit) = (runtime::now(), Duration::from_secs(self.settings.rest_seconds));
        loop {
            let unrest = match client.database.status().await {
                Ok(status) => match self.sizes(&status) {
                    Ok(sizes) => return Ok(sizes),
                    Err(error) => format!("{error:#}"),
                },
                Err(error) => error.to_string(),
            };
            let passed = runtime::now().duration_since(began);
            ensure!(passed < limit, "not for {limit:?} after everything was cleared: {unrest}");
            runtime::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The largest window and log; an error if they are over their bounds.
    fn sizes(&self, status: &Status) -> Result<String> {
        let largest = |class: ProcessClass| {
            let processes = status.processes.iter().filter(|process| process.alive);
            let of_class = processes.filter(|process| process.heartbeat.class == class);
            of_class.map(|process| process.heartbeat.progress.bytes).max()
        };
        let window = largest(ProcessClass::Storage).context("no storage server is alive")?;
        let log = largest(ProcessClass::Log).context("no log is alive")?;
        self.check_sizes(window, log).with_context(|| {
            let all = status.processes.iter().map(|process| &process.heartbeat);
            let all: Vec<_> = all.map(|beat| (beat.class, &beat.progress)).collect();
            format!("{all:?}, log sets {:?}", status.cluster.log_sets)
        })?;
        Ok(format!("windows up to {window} bytes, logs up to {log}"))
    }

    fn check_sizes(&self, window: u64, log: u64) -> Result<()> {
        let BulkSettings { window_bytes_max, log_bytes_max, .. } = self.settings;
        ensure!(window <= window_bytes_max, "a window has {window} bytes, not {window_bytes_max}");
        ensure!(log <= log_bytes_max, "a log has {log} bytes on disk, not {log_bytes_max}");
        Ok(())
    }
}

/// The next page of a range, and whether there may be more.
async fn page(
    client: &Client,
    query: &RangeQuery,
    is_streamed: bool,
) -> Result<(Vec<KeyValue>, bool)> {
    let transaction = client.database.transaction();
    if is_streamed {
        let rows = transaction.snapshot().range_stream(query.clone());
        return Ok((rows.try_collect().await?, false));
    }
    let query = query.clone().rows(1 + draw(60)).bytes(1 + draw(300_000));
    let page = transaction.snapshot().get_range_page(query).await?;
    ensure!(!(page.more && page.rows.is_empty()), "a page without rows says that there are more");
    Ok((page.rows, page.more))
}

impl Workload for Bulk {
    fn name(&self) -> &str {
        "bulk"
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut model = Model::default();
            self.work(&client, &mut model).await?;
            self.models.lock().insert(client.number, model);
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let mut models = self.models.lock().clone();
            for (number, model) in &mut models {
                self.read_all(&client, *number, model).await?;
            }
            let written: u64 = models.values().map(|model| model.written_bytes).sum();
            let read: u64 = models.values().map(|model| model.read_bytes).sum();
            ensure!(written > 0, "nothing was written");
            let all = &KeyRange::prefix(b"bulk/");
            support::run(&client, "the last clear", |transaction| async move {
                Ok(transaction.clear_range(all)?)
            })
            .await?;
            let read_all = || support::read_all(&client.database, all);
            let left = persist(&client, "reading what is left", read_all).await?;
            ensure!(left.is_empty(), "{} rows are left after all was cleared", left.len());
            let sizes = self.wait_for_rest(&client).await?;
            Ok(format!("{written} bytes written, {read} read; then {sizes}"))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk() -> (Bulk, Model, BTreeMap<Key, Value>) {
        let bulk = Bulk::new(BulkSettings::default());
        let model = Model { rows: [(3, 1), (4, 7)].into(), ..Model::default() };
        let found =
            model.rows.iter().map(|(&index, &round)| (key(1, index), bulk.value(1, index, round)));
        let found = found.collect();
        (bulk, model, found)
    }

    #[test]
    fn wrong_pages_are_noticed() {
        let (bulk, model, mut found) = bulk();
        bulk.compare(1, &model, &found).unwrap();
        let complaint =
            |found: &BTreeMap<Key, Value>| bulk.compare(1, &model, found).unwrap_err().to_string();
        found.insert(key(1, 4), bulk.value(1, 4, 6));
        assert!(complaint(&found).contains("not what was written in round 7"));
        found.insert(key(1, 4), bulk.value(1, 4, 7));
        found.insert(key(1, 5), bulk.value(1, 5, 7));
        assert!(complaint(&found).contains("was cleared"));
        found.remove(&key(1, 3));
        assert!(complaint(&found).contains("is gone"));
    }

    #[test]
    fn what_stays_large_is_noticed() {
        let (bulk, ..) = bulk();
        bulk.check_sizes(1_000, 1_000).unwrap();
        assert!(bulk.check_sizes(u64::MAX, 1_000).is_err());
        assert!(bulk.check_sizes(1_000, u64::MAX).is_err());
    }

    #[test]
    fn values_of_all_rounds_differ() {
        let values: BTreeSet<Value> = (1..50).map(|round| value(1, 2, round, 20_000)).collect();
        assert_eq!(values.len(), 49);
    }
}
