//! Atomic operations from many clients on few keys, without reads. Their log must explain the values.
//!
//! ```text
//!   atomic_operations/value/003               shared by all clients
//!   atomic_operations/by_stamp/<stamp>1/42    what client 1's transaction 42 did: in the same transaction
//!   atomic_operations/by_client/1/43          the same, with the versionstamp in the value
//!
//!   00..2a 0001   1/42   003 add 01, 005 max ff       in the order of their versionstamps the
//!   00..2a 0002   2/17   003 append x                 operations must make the values (I-4)
//! ```
//!
//! A record says what its transaction did, so transactions of unknown fate need no care: the record is there or not,
//! and the operations with it. A reader compares at one version, all along: values and records of a commit are seen
//! together, on whichever shards they lie (I-2).
//!
//! Start with [`Log::check_values`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{AtomicOp, Key, KeyRange, Transaction, Value, Version, Versionstamp};
use ferrisdb_core::{Mutation, runtime, transport};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload, atomic_model,
    support::{self, Fate, draw, fate, few_bytes, one_in, passing, persist, pick},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AtomicOperationsSettings {
    /// Keys that all clients share.
    pub keys: u32,
    /// How many clients.
    pub clients: u32,
    /// Most operations of a transaction.
    pub operations: u32,
    /// Transactions of each client after which it rests: the log is read as a whole.
    pub transactions: u32,
    /// Longest operand, in bytes.
    pub operand_bytes: u32,
}

impl Default for AtomicOperationsSettings {
    fn default() -> Self {
        AtomicOperationsSettings {
            keys: 8,
            clients: 4,
            operations: 4,
            transactions: 400,
            operand_bytes: 9,
        }
    }
}

/// The workload.
pub struct AtomicOperations {
    settings: AtomicOperationsSettings,
    journal: Mutex<Journal>,
}

/// A client's number and the number of its transaction.
type Id = (u32, u32);

/// What the clients were told.
#[derive(Debug, Default)]
struct Journal {
    begun: BTreeSet<Id>,
    acknowledged: BTreeMap<Id, Versionstamp>,
    refused: BTreeSet<Id>,
    comparisons: u64,
}

/// All records, in commit order.
#[derive(Debug, Default)]
struct Log {
    records: BTreeMap<Versionstamp, (Id, Vec<Mutation>)>,
}

const PREFIX: &str = "atomic_operations/";
const VALUES: &str = "atomic_operations/value/";
const BY_STAMP: &str = "atomic_operations/by_stamp/";
const BY_CLIENT: &str = "atomic_operations/by_client/";

fn value_key(index: usize) -> Key {
    format!("{VALUES}{index:03}").into()
}

impl AtomicOperations {
    /// A workload of which nothing was done yet.
    pub fn new(settings: AtomicOperationsSettings) -> AtomicOperations {
        AtomicOperations { settings, journal: Mutex::default() }
    }

    fn draw_operations(&self) -> Vec<Mutation> {
        let keys = self.settings.keys.max(1) as usize;
        let count = 1 + draw(self.settings.operations.max(1) as usize);
        let bytes = || few_bytes(draw(self.settings.operand_bytes as usize + 1));
        let operation = |_| {
            let key = value_key(draw(keys));
            match draw(16) {
                0 => Mutation::Set { key, value: bytes().into() },
                1 => Mutation::Clear { key },
                2 => {
                    let begin = draw(keys);
                    let end = value_key(begin + 1 + draw(2));
                    Mutation::ClearRange { range: KeyRange { begin: value_key(begin), end } }
                }
                3 => {
                    let offset = draw(3);
                    let value = few_bytes(offset + 10 + draw(4)).into();
                    Mutation::SetVersionstampedValue { key, value, offset: offset as u32 }
                }
                _ => Mutation::Atomic { key, op: *pick(AtomicOp::ALL), operand: bytes().into() },
            }
        };
        (0..count).map(operation).collect()
    }

    async fn work(&self, client: &Client) -> Result<()> {
        for number in 0..self.settings.transactions {
            if client.is_stopped() {
                break;
            }
            let id = (client.number, number);
            let operations = self.draw_operations();
            let by_stamp = one_in(2);
            self.journal.lock().begun.insert(id);
            let fate = if one_in(3) {
                let operations = &operations;
                let transaction = support::run(client, "operations", |transaction| async move {
                    write(&transaction, id, operations, by_stamp)?;
                    Ok(transaction)
                });
                let committed = transaction.await?.committed();
                let stamp = committed.and_then(|committed| committed.versionstamp);
                Fate::Committed(stamp.context("a committed transaction has a stamp")?)
            } else {
                let transaction = client.database.transaction();
                write(&transaction, id, &operations, by_stamp)?;
                match fate(transaction.commit().await)? {
                    Fate::Committed(committed) => {
                        Fate::Committed(committed.versionstamp.context("a commit has a stamp")?)
                    }
                    Fate::Refused(error) => Fate::Refused(error),
                    Fate::Unknown => Fate::Unknown,
                }
            };
            self.on_ended(id, fate).await;
            if one_in(60) {
                self.compare(client).await?;
            }
        }
        while !client.is_stopped() {
            runtime::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    async fn on_ended(&self, id: Id, fate: Fate<Versionstamp>) {
        let is_refused = matches!(fate, Fate::Refused(_));
        match fate {
            Fate::Committed(stamp) => {
                self.journal.lock().acknowledged.insert(id, stamp);
            }
            Fate::Refused(_) => {
                self.journal.lock().refused.insert(id);
            }
            Fate::Unknown => {}
        }
        if is_refused {
            support::pause().await;
        }
    }

    /// Compares values and records as they are at some version. Errors that faults explain are none.
    async fn compare(&self, client: &Client) -> Result<()> {
        let range = KeyRange::prefix(PREFIX.as_bytes());
        let rows = match support::read_all(&client.database, &range).await {
            Ok(rows) => rows,
            Err(error) if passing(&error).is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        Log::parse(&rows)?.check_values(&rows)?;
        self.journal.lock().comparisons += 1;
        Ok(())
    }
}

/// Writes operations and their record into a transaction.
fn write(transaction: &Transaction, id: Id, operations: &[Mutation], by_stamp: bool) -> Result<()> {
    for operation in operations {
        match operation.clone() {
            Mutation::Set { key, value } => transaction.set(key, value),
            Mutation::Clear { key } => transaction.clear(key),
            Mutation::ClearRange { range } => transaction.clear_range(range),
            Mutation::Atomic { key, op, operand } => transaction.atomic(op, key, operand),
            Mutation::SetVersionstampedValue { key, value, offset } => {
                transaction.set_versionstamped_value(key, value, offset)
            }
            Mutation::SetVersionstampedKey { key, offset, value } => {
                transaction.set_versionstamped_key(key, offset, value)
            }
        }?;
    }
    let (client, number) = id;
    let record = transport::encode(operations)?;
    let gap = [0; Versionstamp::LEN];
    if by_stamp {
        let key = [BY_STAMP.as_bytes(), &gap, format!("{client}/{number}").as_bytes()].concat();
        transaction.set_versionstamped_key(key, BY_STAMP.len() as u32, record)?;
    } else {
        let value = [&gap[..], &record].concat();
        transaction.set_versionstamped_value(format!("{BY_CLIENT}{client}/{number}"), value, 0)?;
    }
    Ok(())
}

impl Log {
    /// The records among the rows.
    fn parse(rows: &BTreeMap<Key, Value>) -> Result<Log> {
        let mut log = Log::default();
        let mut ids = BTreeSet::new();
        for (key, value) in rows {
            let (stamp, id, record) = if let Some(rest) = key.strip_prefix(BY_STAMP.as_bytes()) {
                let (stamp, id) =
                    rest.split_at_checked(Versionstamp::LEN).context("a short record's key")?;
                (stamp, id, &value[..])
            } else if let Some(id) = key.strip_prefix(BY_CLIENT.as_bytes()) {
                let (stamp, record) =
                    value.split_at_checked(Versionstamp::LEN).context("a short record")?;
                (stamp, id, record)
            } else {
                continue;
            };
            let (client, number) = support::text(id)?.split_once('/').context("a record's id")?;
            let id = (client.parse()?, number.parse()?);
            let stamp = Versionstamp::from_bytes(stamp.try_into()?);
            ensure!(ids.insert(id), "transaction {id:?} took effect twice (I-6)");
            if let Some((other, _)) = log.records.insert(stamp, (id, transport::decode(record)?)) {
                bail!("{id:?} and {other:?} have the same versionstamp {stamp} (I-4)");
            }
        }
        Ok(log)
    }

    /// Does all operations in order, and compares what comes out with the values among the rows.
    fn check_values(&self, rows: &BTreeMap<Key, Value>) -> Result<()> {
        let mut expected: BTreeMap<Key, (Value, Version)> = BTreeMap::new();
        for (stamp, (_, operations)) in &self.records {
            for operation in operations {
                let mark = &stamp.commit_version;
                atomic_model::apply_mutation(&mut expected, operation, *stamp, mark);
            }
        }
        let found = rows.iter().filter(|(key, _)| key.starts_with(VALUES.as_bytes()));
        let found: BTreeMap<&Key, &Value> = found.collect();
        for (key, (value, version)) in &expected {
            ensure!(
                found.get(key) == Some(&value),
                "{key} is {:?}, its operations up to {version} make {value:?} (I-2, I-4)",
                found.get(key)
            );
        }
        let foreign = found.keys().find(|key| !expected.contains_key(**key));
        ensure!(foreign.is_none(), "{foreign:?} has a value, its operations leave none (I-4)");
        Ok(())
    }

    /// Compares the records with what the clients were told.
    fn check_journal(&self, journal: &Journal) -> Result<()> {
        let stamps: BTreeMap<Id, Versionstamp> =
            self.records.iter().map(|(stamp, (id, _))| (*id, *stamp)).collect();
        for (id, stamp) in &journal.acknowledged {
            ensure!(
                stamps.get(id) == Some(stamp),
                "{id:?} was acknowledged at {stamp}, its record is at {:?} (I-5)",
                stamps.get(id)
            );
        }
        if let Some(id) = journal.refused.iter().find(|id| stamps.contains_key(id)) {
            bail!("{id:?} was refused and took effect (I-12)");
        }
        if let Some(id) = stamps.keys().find(|id| !journal.begun.contains(id)) {
            bail!("{id:?} took effect and was never begun");
        }
        Ok(())
    }
}

impl Workload for AtomicOperations {
    fn name(&self) -> &str {
        "atomic_operations"
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
            let range = &KeyRange::prefix(PREFIX.as_bytes());
            let read = || support::read_all(&client.database, range);
            let rows = persist(&client, "reading values and log", read).await?;
            let log = Log::parse(&rows)?;
            log.check_values(&rows)?;
            let journal = self.journal.lock();
            log.check_journal(&journal)?;
            ensure!(!journal.acknowledged.is_empty(), "no transaction was acknowledged");
            Ok(format!(
                "{} transactions, {} acknowledged, compared {} times meanwhile",
                log.records.len(),
                journal.acknowledged.len(),
                journal.comparisons
            ))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: u64) -> Versionstamp {
        Versionstamp { commit_version: Version(version), batch_index: 0 }
    }

    /// Two additions to one key, one with each kind of record.
    fn rows() -> BTreeMap<Key, Value> {
        let add = |operand: &[u8]| {
            let (key, op) = (value_key(1), AtomicOp::Add);
            transport::encode(&vec![Mutation::Atomic { key, op, operand: operand.into() }]).unwrap()
        };
        let by_stamp = [BY_STAMP.as_bytes(), &stamp(40).to_bytes(), b"1/0"].concat();
        let by_client = format!("{BY_CLIENT}2/7");
        let value = [&stamp(50).to_bytes()[..], &add(b"\x02")].concat();
        BTreeMap::from([
            (by_stamp.into(), add(b"\x01\x01").into()),
            (by_client.into(), value.into()),
            (value_key(1), b"\x03".into()),
        ])
    }

    fn journal() -> Journal {
        Journal {
            begun: [(1, 0), (2, 7), (3, 3)].into(),
            acknowledged: [((1, 0), stamp(40))].into(),
            refused: [(3, 3)].into(),
            comparisons: 0,
        }
    }

    #[test]
    fn operations_in_order_make_the_values() {
        let log = Log::parse(&rows()).unwrap();
        log.check_values(&rows()).unwrap();
        log.check_journal(&journal()).unwrap();
    }

    #[test]
    fn other_values_are_noticed() {
        let complaint = |rows: &BTreeMap<Key, Value>| {
            let log = Log::parse(rows);
            log.and_then(|log| log.check_values(rows)).unwrap_err().to_string()
        };
        for wrong in [&b"\x02"[..], b"\x03\x01", b""] {
            let rows = rows().into_iter().chain([(value_key(1), wrong.into())]).collect();
            assert!(complaint(&rows).contains("operations up to 50 make"), "{wrong:?}");
        }
        let rows_and = |key: Key| rows().into_iter().chain([(key, Value::default())]).collect();
        assert!(complaint(&rows_and(value_key(2))).contains("leave none"));
        let mut twice = rows();
        let record = twice.remove(&Key::from(format!("{BY_CLIENT}2/7"))).unwrap();
        twice.insert(format!("{BY_CLIENT}1/0").into(), record);
        assert!(complaint(&twice).contains("took effect twice"));
    }

    #[test]
    fn other_fates_are_noticed() {
        let log = Log::parse(&rows()).unwrap();
        let complaint = |journal: Journal| log.check_journal(&journal).unwrap_err().to_string();
        let other_stamp = Journal { acknowledged: [((1, 0), stamp(41))].into(), ..journal() };
        assert!(complaint(other_stamp).contains("I-5"));
        let lost = Journal { acknowledged: [((3, 3), stamp(60))].into(), ..journal() };
        assert!(complaint(lost).contains("I-5"));
        let risen = Journal { refused: [(2, 7)].into(), ..journal() };
        assert!(complaint(risen).contains("I-12"));
        let foreign = Journal { begun: [(1, 0)].into(), ..journal() };
        assert!(complaint(foreign).contains("never begun"));
    }
}
