//! Clients wait for keys that others change: who waits must hear of a change that stays, and of nothing else.
//!
//! ```text
//!   data/07     A    A    B    .    .    C         set, set to the same, set, cleared with others, cleared, set
//!   count/07    1    1    2    3    3    4         counted by whoever really changes the value
//!               ^                        ^
//!               a watch knows A and 1    once it is ready the count must be past 1
//!
//!   ring/0 -> ring/1 -> ring/2 -> ring/0           each client waits for its key, and then changes the next one
//! ```
//!
//! In the end nobody changes anything any more. A watch whose key has another value than the one that it knows has to
//! be ready within a bound: else a change was missed. The ring is what a single lost wake-up brings to a halt: nobody
//! changes its keys a second time.
//!
//! Start with [`Watches::begin`], then [`Watches::change`].

use std::{future::Future, ops::Range, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{
    AsError as _, AtomicOp, ErrorCode, KeyRange, Stage, Transaction, TransactionOption, Value,
    Watch,
};
use ferrisdb_core::{Key, runtime};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    common::counter,
    support::{self, draw, one_in, passing, persist},
};

/// How long after the last change and the last fault a watch may take.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The size of [`Watches`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchesSettings {
    /// How many clients watch and change.
    pub clients: u32,
    /// How many keys, apart from the ring.
    pub keys: usize,
    /// How many watches a client has at a time, apart from the ring.
    pub watches: usize,
    /// Whether a key that is changed usually goes back to the value that it had before, is often set to one of the two by
    /// somebody who does not look, and is watched a while after it was read. After a fault all keys are left as they are, and
    /// others take their place. Who sets a key without a look counts a change that may be none: a watch that is ready too soon is found
    /// only where this is off.
    pub returning: bool,
}

impl Default for WatchesSettings {
    fn default() -> WatchesSettings {
        WatchesSettings { clients: 4, keys: 40, watches: 12, returning: false }
    }
}

/// The workload: see the module.
pub struct Watches {
    settings: WatchesSettings,
    journal: Mutex<Journal>,
}

#[derive(Default)]
struct Journal {
    /// What was not ready when its client stopped.
    waiting: Vec<Waiting>,
    ready: u64,
    changes: u64,
    hops: u64,
    /// How many times the keys were left for others.
    eras: usize,
}

/// A watch and what it knows.
struct Waiting {
    watch: Watch,
    known: Option<Value>,
    /// How often the value had been changed; `None` for the ring.
    count: Option<u64>,
}

/// What a transaction does with the key that it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// It only reads.
    Read,
    /// It changes the key first.
    ChangeBefore,
    /// It changes the key afterwards.
    ChangeAfter,
}

const NAME: &str = "watches";
/// How long after it has read a key a transaction watches it, about, where values return.
const LATE: Duration = Duration::from_millis(300);
/// The way to change a key without a look at it.
const UNSEEN: usize = 5;
/// What a key goes back and forth between.
const RETURNING: [&str; 2] = ["A", "B"];

fn data_key(index: usize) -> String {
    format!("{NAME}/data/{index:06}")
}

fn count_key(index: usize) -> String {
    format!("{NAME}/count/{index:06}")
}

fn ring_key(client: u32) -> String {
    format!("{NAME}/ring/{client:04}")
}

/// A value that nothing has had before, sometimes a long one.
fn new_value() -> Value {
    let mut value = format!("{:016x}", runtime::random_u64()).into_bytes();
    if one_in(8) {
        value.resize(3_000, b'.');
    }
    Value::from(value)
}

/// The beginning of a value.
fn brief(value: Option<&Value>) -> String {
    value.map_or("nothing".into(), |value| Value::from(&value[..value.len().min(20)]).to_string())
}

impl Watches {
    /// Nobody waits for anything yet.
    pub fn new(settings: WatchesSettings) -> Watches {
        Watches { settings, journal: Mutex::default() }
    }

    /// Sets a key to another value than it has, and counts that: to a new one, or to the one of two that it has not.
    async fn set_other(&self, transaction: &Transaction, index: usize) -> Result<()> {
        let value = if self.settings.returning && !one_in(8) {
            let now = transaction.get(data_key(index)).await?;
            let [one, other] = RETURNING.map(Value::from);
            if now.as_ref() == Some(&one) { other } else { one }
        } else {
            new_value()
        };
        transaction.set(data_key(index), value)?;
        transaction.add(count_key(index), 1)?;
        Ok(())
    }

    /// Begins to watch some key.
    async fn begin(&self, client: &Client) -> Result<Option<Waiting>> {
        let era = self.era();
        let index = era.start + draw(self.settings.keys);
        let style = match draw(6) {
            0 | 1 => Style::ChangeBefore,
            2 => Style::ChangeAfter,
            _ => Style::Read,
        };
        // Whatever snapshots see, a watch sees what its transaction does.
        let snapshots_see_writes = !one_in(3);
        let body = |transaction: Transaction| async move {
            if !snapshots_see_writes {
                transaction.set_option(TransactionOption::SnapshotReadYourWritesDisabled)?;
            }
            if style == Style::ChangeBefore {
                self.set_other(&transaction, index).await?;
            }
            let known = transaction.get(data_key(index)).await?;
            let count = counter(transaction.get(count_key(index)).await?.as_ref())?;
            if self.settings.returning && style == Style::Read {
                // The watch comes to a server that has gone on: to another value, and back.
                runtime::sleep(runtime::jitter(LATE)).await;
            }
            let watch = transaction.watch(data_key(index)).await?;
            if style == Style::ChangeAfter {
                self.set_other(&transaction, index).await?;
                ensure!(watch.is_ready(), "a change by the transaction itself is told at once");
            }
            Ok(Waiting { watch, known, count: Some(count) })
        };
        self.transact(client, &era, body).await
    }

    /// The keys that are watched and changed now.
    fn era(&self) -> Range<usize> {
        let begin = self.journal.lock().eras * self.settings.keys;
        begin..begin + self.settings.keys
    }

    /// Runs a transaction on keys of an era. Where values return that is one attempt if no conflict ends it: what a fault has
    /// rolled back must stay as it is, because the next change would make up for what was missed. `None` if there was a fault.
    async fn transact<T, Fut>(
        &self,
        client: &Client,
        era: &Range<usize>,
        body: impl Fn(Transaction) -> Fut + Copy,
    ) -> Result<Option<T>>
    where
        Fut: Future<Output = Result<T>>,
    {
        if !self.settings.returning {
            return client.database.run_transaction(body).await.map(Some);
        }
        while *era == self.era() {
            let transaction = client.database.transaction();
            let attempt = async {
                let done = body(transaction.clone()).await?;
                transaction.commit().await?;
                Ok(done)
            };
            let error: anyhow::Error = match attempt.await {
                Ok(done) => return Ok(Some(done)),
                Err(error) => error,
            };
            match error.as_error() {
                Some(error) if error.code() == ErrorCode::NotCommitted => {}
                Some(found) if support::passes(found) || found.is_maybe_committed() => {
                    let mut journal = self.journal.lock();
                    journal.eras += usize::from(journal.eras * self.settings.keys == era.start);
                }
                _ => return Err(error),
            }
        }
        support::pause().await;
        Ok(None)
    }

    /// Changes some keys, or seems to.
    async fn change(&self, client: &Client) -> Result<()> {
        let era = self.era();
        let (index, length) = (era.start + draw(self.settings.keys), 1 + draw(6));
        let era_end = era.end;
        let way = if self.settings.returning && one_in(2) { UNSEEN } else { draw(8) };
        let body = |transaction: Transaction| async move {
            let key = data_key(index);
            match way {
                0 | 1 => self.set_other(&transaction, index).await?,
                2 => {
                    if transaction.get(key.as_str()).await?.is_some() {
                        transaction.clear(key)?;
                        transaction.add(count_key(index), 1)?;
                    }
                }
                3 | 4 => {
                    let end = (index + length).min(era_end);
                    let range = KeyRange::new(key, data_key(end));
                    for row in transaction.get_range(&range).await? {
                        let digits = support::text(&row.key[row.key.len() - 6..])?;
                        transaction.add(count_key(digits.parse()?), 1)?;
                    }
                    transaction.clear_range(&range)?;
                }
                // Nobody waits for anybody: a server may have both values before either is committed.
                UNSEEN if self.settings.returning => {
                    transaction.set(key, RETURNING[draw(2)])?;
                    transaction.add(count_key(index), 1)?;
                }
                UNSEEN => {
                    transaction.atomic(AtomicOp::Add, key, &1u64.to_le_bytes())?;
                    transaction.add(count_key(index), 1)?;
                }
                6 => {
                    transaction.set_versionstamped_value(key, &[0; 10], 0)?;
                    transaction.add(count_key(index), 1)?;
                }
                // The same again.
                _ => match transaction.get(key.as_str()).await? {
                    Some(value) => transaction.set(key, value)?,
                    None => transaction.clear_range(KeyRange::single(&key.into()))?,
                },
            }
            Ok(())
        };
        let done = self.transact(client, &era, body).await?;
        self.journal.lock().changes += u64::from(done.is_some());
        Ok(())
    }

    /// Passes on what has come to this client's place in the ring, and waits there for more.
    async fn hop(&self, client: &Client, passed: u64) -> Result<(Waiting, u64)> {
        let own = ring_key(client.number);
        let next = ring_key((client.number + 1) % self.settings.clients);
        let (own, next) = (&own, &next);
        let body = |transaction: Transaction| async move {
            let known = transaction.get(own.as_str()).await?;
            let number = counter(known.as_ref())?;
            ensure!(number >= passed, "{own} went back from {passed} to {number} (I-5)");
            if number > passed {
                transaction.set(next.as_str(), &(number + 1).to_le_bytes())?;
            }
            let watch = transaction.watch(own.as_str()).await?;
            Ok((Waiting { watch, known, count: None }, number))
        };
        client.database.run_transaction::<_, anyhow::Error, _, _>(body).await
    }

    /// A watch is ready: it must not have failed, and something must have changed.
    async fn check_ready(&self, client: &Client, waiting: Waiting) -> Result<()> {
        let Waiting { mut watch, known, count } = waiting;
        let key = watch.key().clone();
        (&mut watch).await.with_context(|| format!("the watch of {key}, which was armed"))?;
        self.journal.lock().ready += 1;
        let Some(count) = count else { return Ok(()) };
        let now = persist(client, "looking at a key that has changed", || {
            let counted = key.to_string().replace("/data/", "/count/");
            let transaction = client.database.transaction();
            async move { counter(transaction.get(counted).await?.as_ref()) }
        })
        .await?;
        ensure!(
            now > count,
            "the watch of {key} is ready, but the key has {} and was changed {count} times, before and now",
            brief(known.as_ref())
        );
        Ok(())
    }

    async fn work(&self, client: &Client, waiting: &mut Vec<Waiting>) -> Result<()> {
        let mut place: Option<Waiting> = None;
        let mut passed = 0;
        while !client.is_stopped() {
            let worked = async {
                if place.as_ref().is_none_or(|waiting| waiting.watch.is_ready()) {
                    if let Some(ready) = place.take() {
                        self.check_ready(client, ready).await?;
                    }
                    let (waiting, number) = self.hop(client, passed).await?;
                    self.journal.lock().hops += u64::from(number > passed);
                    (place, passed) = (Some(waiting), number);
                }
                match draw(3) {
                    0 if waiting.len() < self.settings.watches => {
                        waiting.extend(self.begin(client).await?);
                    }
                    0 | 1 => self.change(client).await?,
                    _ => {
                        let some = waiting.first_mut().or(place.as_mut());
                        let limit = runtime::jitter(Duration::from_millis(200));
                        if let Some(Waiting { watch, .. }) = some {
                            // What it says is looked at below.
                            let _ = runtime::timeout(limit, Stage::Client, watch).await;
                        }
                    }
                }
                let ready = |waiting: &mut Waiting| waiting.watch.is_ready();
                for ready in waiting.extract_if(.., ready).collect::<Vec<_>>() {
                    self.check_ready(client, ready).await?;
                }
                Ok(())
            };
            if let Err(error) = worked.await {
                // Whatever a fault does to transactions: a watch that is armed never fails.
                passing(&error).is_some().then_some(()).ok_or(error)?;
                support::pause().await;
            }
        }
        waiting.extend(place);
        Ok(())
    }
}

impl Workload for Watches {
    fn name(&self) -> &str {
        NAME
    }

    fn cuts(&self) -> Vec<Key> {
        let middle = data_key(self.settings.keys / 2);
        [data_key(0), middle, ring_key(0), ring_key(2)].map(Key::from).to_vec()
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            support::run(&client, "setting the ring in motion", |transaction| async move {
                transaction.set(ring_key(0), &1u64.to_le_bytes())?;
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut waiting = Vec::new();
            self.work(&client, &mut waiting).await?;
            self.journal.lock().waiting.append(&mut waiting);
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let waiting = std::mem::take(&mut self.journal.lock().waiting);
            let range = &KeyRange::prefix(format!("{NAME}/").as_bytes());
            let read = || support::read_all(&client.database, range);
            let rows = persist(&client, "reading all keys", read).await?;
            let (mut still, count) = (0, waiting.len());
            for mut waiting in waiting {
                let key = waiting.watch.key().clone();
                let value = rows.get(&key);
                if value != waiting.known.as_ref() {
                    let ready = runtime::timeout(READY_LIMIT, Stage::Client, &mut waiting.watch).await;
                    ensure!(
                        ready.is_ok(),
                        "the watch of {key} knows {}, the key has {} now: that was missed",
                        brief(waiting.known.as_ref()),
                        brief(value)
                    );
                } else if !waiting.watch.is_ready() {
                    still += 1;
                    continue;
                }
                self.check_ready(&client, waiting).await?;
            }
            let Journal { ready, changes, hops, .. } = &*self.journal.lock();
            Ok(format!(
                "{ready} watches were ready, {} of them in the end, {still} wait; {changes} changes, {hops} hops",
                count - still
            ))
        }
        .boxed()
    }
}
