//! A queue by versionstamps: nothing is lost, nothing comes twice, and the order is that of the commits.
//!
//! ```text
//!   queue/item/<stamp>/00     3/17/0      the first item of what producer 3 appended in its transaction 17
//!   queue/item/<stamp>/01     3/17/1
//!   queue/pop/<stamp>         item and value that a consumer took, or that it found nothing: in the same transaction
//!
//!   ..2a 0000  append a b         by versionstamp, each pop must have taken what was then
//!   ..2c 0000  pop a              the first of the queue (I-4)
//! ```
//!
//! The versionstamp that a producer is told is the one in its keys, and later than all that anybody was told before
//! it began (I-1).
//!
//! Start with [`replay`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{Key, KeyRange, RangeQuery, Transaction, Value, Versionstamp};
use ferrisdb_core::{runtime, transport};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{self, Fate, draw, fate, one_in, passing, persist},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// How many clients; every second one is a consumer.
    pub clients: u32,
    /// Most items of a transaction.
    pub items: u32,
    /// Transactions of each client after which it rests: the queue is read as a whole.
    pub transactions: u32,
}

impl Default for QueueSettings {
    fn default() -> Self {
        QueueSettings { clients: 4, items: 3, transactions: 400 }
    }
}

/// The workload.
pub struct Queue {
    settings: QueueSettings,
    journal: Mutex<Journal>,
}

/// What the clients were told.
#[derive(Debug, Default)]
struct Journal {
    /// Appended items by name, in the order of their keys.
    appended: BTreeMap<Value, Versionstamp>,
    popped: BTreeSet<Versionstamp>,
    refused: BTreeSet<Value>,
    /// The newest versionstamp that anybody was told.
    newest: Option<Versionstamp>,
}

/// What a consumer took; nothing if the queue was empty.
type Popped = Option<(Key, Value)>;

/// All that is below the queue's keys.
#[derive(Debug, Default)]
struct Contents {
    items: BTreeMap<Key, Value>,
    pops: BTreeMap<Versionstamp, Popped>,
}

const ITEMS: &str = "queue/item/";
const POPS: &str = "queue/pop/";
const GAP: [u8; Versionstamp::LEN] = [0; Versionstamp::LEN];

impl Queue {
    /// A workload of which nothing was done yet.
    pub fn new(settings: QueueSettings) -> Queue {
        Queue { settings, journal: Mutex::default() }
    }

    async fn work(&self, client: &Client) -> Result<()> {
        for number in 0..self.settings.transactions {
            if client.is_stopped() {
                break;
            }
            let is_consumer = client.number % 2 == 1;
            let done = if is_consumer {
                self.consume(client).await
            } else {
                self.produce(client, number).await
            };
            match done {
                Err(error) if passing(&error).is_some() => support::pause().await,
                other => other?,
            }
        }
        while !client.is_stopped() {
            runtime::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// Appends some items in one transaction.
    async fn produce(&self, client: &Client, number: u32) -> Result<()> {
        let count = 1 + draw(self.settings.items.clamp(1, 100) as usize);
        let names: Vec<Value> = (0..count)
            .map(|item| Value::from(format!("{}/{number}/{item}", client.number)))
            .collect();
        let appended = &names;
        let fate = self.commit(client, |transaction| async move { append(&transaction, appended) });
        let fate = fate.await?;
        let mut journal = self.journal.lock();
        match fate {
            Fate::Committed((stamp, ())) => {
                journal.appended.extend(names.into_iter().map(|name| (name, stamp)));
            }
            Fate::Refused(error) => {
                journal.refused.extend(names);
                return Err(error.into());
            }
            Fate::Unknown => {}
        }
        Ok(())
    }

    /// Takes the first item.
    async fn consume(&self, client: &Client) -> Result<()> {
        let found = self.commit(client, |transaction| async move { pop(&transaction).await });
        match found.await? {
            Fate::Committed((stamp, popped)) => {
                self.journal.lock().popped.insert(stamp);
                if popped.is_none() {
                    support::pause().await;
                }
                Ok(())
            }
            Fate::Refused(error) => Err(error.into()),
            Fate::Unknown => Ok(()),
        }
    }

    /// Commits what `body` does, once or exactly once, and notes the versionstamp.
    async fn commit<T, Fut>(
        &self,
        client: &Client,
        body: impl Fn(Transaction) -> Fut + Copy,
    ) -> Result<Fate<(Versionstamp, T)>>
    where
        Fut: Future<Output = Result<T>>,
    {
        let newest = self.journal.lock().newest;
        let (transaction, result) = if one_in(3) {
            support::run(client, "the queue", |transaction| async move {
                let result = body(transaction.clone()).await?;
                Ok((transaction, result))
            })
            .await?
        } else {
            let transaction = client.database.transaction();
            let result = body(transaction.clone()).await?;
            match fate(transaction.commit().await)? {
                Fate::Committed(_) => (transaction, result),
                Fate::Refused(error) => return Ok(Fate::Refused(error)),
                Fate::Unknown => return Ok(Fate::Unknown),
            }
        };
        let stamp = stamp_of(&transaction)?;
        self.journal.lock().on_told(newest, stamp)?;
        Ok(Fate::Committed((stamp, result)))
    }
}

fn stamp_of(transaction: &Transaction) -> Result<Versionstamp> {
    let committed = transaction.committed().context("a committed transaction knows it")?;
    committed.versionstamp.context("a commit that wrote has a versionstamp")
}

fn append(transaction: &Transaction, names: &[Value]) -> Result<()> {
    for (item, name) in names.iter().enumerate() {
        let key = [ITEMS.as_bytes(), &GAP, format!("/{item:02}").as_bytes()].concat();
        transaction.set_versionstamped_key(key, ITEMS.len() as u32, name)?;
    }
    Ok(())
}

async fn pop(transaction: &Transaction) -> Result<Popped> {
    let first = RangeQuery::from(KeyRange::prefix(ITEMS.as_bytes())).rows(1);
    let first = transaction.get_range(first).await?.pop().map(|row| (row.key, row.value));
    if let Some((key, _)) = &first {
        transaction.clear(key)?;
    }
    let key = [POPS.as_bytes(), &GAP].concat();
    let record = transport::encode(&first)?;
    transaction.set_versionstamped_key(key, POPS.len() as u32, record)?;
    Ok(first)
}

impl Journal {
    /// A client was told a versionstamp; `newest` was known when its transaction began to be committed.
    fn on_told(&mut self, newest: Option<Versionstamp>, stamp: Versionstamp) -> Result<()> {
        if let Some(newest) = newest {
            ensure!(stamp > newest, "a commit at {stamp} began after {newest} was told (I-1)");
        }
        self.newest = self.newest.max(Some(stamp));
        Ok(())
    }
}

fn stamp_in(key: &Key, prefix: &str) -> Result<Versionstamp> {
    let rest = support::rest_of(key, prefix)?;
    let stamp = rest.get(..Versionstamp::LEN).with_context(|| format!("{key} has no stamp"))?;
    Ok(Versionstamp::from_bytes(stamp.try_into()?))
}

impl Contents {
    fn parse(rows: BTreeMap<Key, Value>) -> Result<Contents> {
        let mut contents = Contents::default();
        for (key, value) in rows {
            if key.starts_with(ITEMS.as_bytes()) {
                contents.items.insert(key, value);
            } else {
                contents.pops.insert(stamp_in(&key, POPS)?, transport::decode(&value)?);
            }
        }
        Ok(contents)
    }
}

/// Lets all appends and pops happen again, in the order of their versionstamps. Returns all items there ever were.
fn replay(contents: &Contents) -> Result<BTreeMap<Key, Value>> {
    let popped = contents.pops.values().flatten().map(|(key, value)| (key, value));
    let mut items: BTreeMap<Key, Value> = BTreeMap::new();
    for (key, value) in popped.chain(&contents.items) {
        if items.insert(key.clone(), value.clone()).is_some() {
            bail!("{value} under {key} was taken twice, or was taken and is there (I-4)");
        }
    }
    let mut queue: BTreeMap<&Key, &Value> = BTreeMap::new();
    let mut to_append = items.iter().peekable();
    for (stamp, popped) in &contents.pops {
        while let Some((key, value)) = to_append.peek()
            && stamp_in(key, ITEMS)? < *stamp
        {
            queue.insert(key, value);
            to_append.next();
        }
        let first = queue.pop_first();
        let taken = popped.as_ref().map(|(key, value)| (key, value));
        ensure!(first == taken, "the pop at {stamp} took {taken:?}, the first was {first:?} (I-4)");
    }
    queue.extend(to_append);
    let left: BTreeMap<&Key, &Value> = contents.items.iter().collect();
    ensure!(queue == left, "the queue holds {left:?}, it should hold {queue:?} (I-4)");
    Ok(items)
}

/// Compares all items and pops with what the clients were told.
fn check_journal(
    items: &BTreeMap<Key, Value>,
    contents: &Contents,
    journal: &Journal,
) -> Result<()> {
    let mut stamps = BTreeMap::new();
    for (key, name) in items {
        if stamps.insert(name, stamp_in(key, ITEMS)?).is_some() {
            bail!("{name} was appended twice (I-6)");
        }
    }
    for (name, stamp) in &journal.appended {
        let found = stamps.get(name);
        ensure!(found == Some(stamp), "{name} was appended at {stamp}, it is at {found:?} (I-5)");
    }
    if let Some(name) = journal.refused.iter().find(|name| stamps.contains_key(name)) {
        bail!("{name} was refused and is there (I-12)");
    }
    if let Some(stamp) = journal.popped.iter().find(|stamp| !contents.pops.contains_key(stamp)) {
        bail!("the pop at {stamp} was acknowledged and left nothing (I-5)");
    }
    Ok(())
}

impl Workload for Queue {
    fn name(&self) -> &str {
        "queue"
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move { self.work(&client).await }.boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let range = &KeyRange::prefix(b"queue/");
            let read = || support::read_all(&client.database, range);
            let contents = Contents::parse(persist(&client, "reading the queue", read).await?)?;
            let items = replay(&contents)?;
            let journal = self.journal.lock();
            check_journal(&items, &contents, &journal)?;
            ensure!(!journal.appended.is_empty(), "no append was acknowledged");
            ensure!(!journal.popped.is_empty(), "no pop was acknowledged");
            Ok(format!(
                "{} items, {} pops, {} items left",
                items.len(),
                contents.pops.len(),
                contents.items.len()
            ))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Version;

    use super::*;

    fn stamp(version: u64) -> Versionstamp {
        Versionstamp { commit_version: Version(version), batch_index: 0 }
    }

    fn item(version: u64, name: &str) -> (Key, Value) {
        let key = [ITEMS.as_bytes(), &stamp(version).to_bytes(), b"/00"].concat();
        (key.into(), name.into())
    }

    /// Appended at 40, 50 and 70, popped at 45, empty at 46, popped at 60.
    fn contents() -> Contents {
        Contents {
            items: [item(70, "c")].into(),
            pops: [
                (stamp(45), Some(item(40, "a"))),
                (stamp(46), None),
                (stamp(60), Some(item(50, "b"))),
            ]
            .into(),
        }
    }

    fn journal() -> Journal {
        Journal {
            appended: [("a".into(), stamp(40)), ("c".into(), stamp(70))].into(),
            popped: [stamp(45)].into(),
            refused: ["d".into()].into(),
            newest: Some(stamp(70)),
        }
    }

    fn complaint<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn an_orderly_queue_passes() {
        let items = replay(&contents()).unwrap();
        check_journal(&items, &contents(), &journal()).unwrap();
    }

    #[test]
    fn disorder_is_noticed() {
        let mut empty_too_late = contents();
        empty_too_late.pops.insert(stamp(55), None);
        let expected = format!("the pop at {} took None", stamp(55));
        assert!(complaint(replay(&empty_too_late)).contains(&expected));
        let mut twice = contents();
        twice.pops.insert(stamp(61), Some(item(50, "b")));
        assert!(complaint(replay(&twice)).contains("twice"));
        let mut out_of_order = contents();
        out_of_order.pops.insert(stamp(60), Some(item(70, "c")));
        out_of_order.items = [item(50, "b")].into();
        assert!(complaint(replay(&out_of_order)).contains("the first was"));
    }

    #[test]
    fn losses_are_noticed() {
        let items = replay(&contents()).unwrap();
        let check = |journal: Journal| complaint(check_journal(&items, &contents(), &journal));
        let lost = Journal { appended: [("e".into(), stamp(80))].into(), ..journal() };
        assert!(check(lost).contains("I-5"));
        let other_stamp = Journal { appended: [("a".into(), stamp(41))].into(), ..journal() };
        assert!(check(other_stamp).contains("I-5"));
        let risen = Journal { refused: ["b".into()].into(), ..journal() };
        assert!(check(risen).contains("I-12"));
        let pop = Journal { popped: [stamp(47)].into(), ..journal() };
        assert!(check(pop).contains("left nothing"));
        let twice = items.clone().into_iter().chain([item(90, "a")]).collect();
        assert!(complaint(check_journal(&twice, &contents(), &journal())).contains("twice"));
    }

    #[test]
    fn versionstamps_that_go_back_are_noticed() {
        let mut journal = journal();
        journal.on_told(Some(stamp(70)), stamp(71)).unwrap();
        journal.on_told(None, stamp(5)).unwrap();
        assert_eq!(journal.newest, Some(stamp(71)));
        assert!(complaint(journal.on_told(Some(stamp(71)), stamp(71))).contains("I-1"));
    }
}
