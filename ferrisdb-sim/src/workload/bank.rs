//! Money is moved between accounts while processes die. None may appear or vanish.
//!
//! ```text
//!   bank/account/0003            95          the balance, as decimal text
//!   bank/transfer/c1/000007      0003 0001 5 client c1's seventh transfer moved 5 from 3 to 1
//! ```
//!
//! A transfer reads two balances, and writes both and a record of itself, in one transaction. Readers sum
//! all balances at one version, all along. Each client keeps a journal of what it was told. Afterwards:
//!
//! - the total is what it was, and no reader ever saw another (I-2);
//! - every acknowledged transfer has its record, none that was refused for good has one (I-5, I-12);
//! - each account's balance is what its records add up to: every transfer took effect wholly and once
//!   (I-4, I-6), also those of which the client never learnt the fate.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::Database;
use ferrisdb_core::{Error, Key, KeyRange, runtime};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{Client, Workload};
use crate::parts;

/// The bank's size.
#[derive(Clone, Copy, Debug)]
pub struct Bank {
    /// How many accounts.
    pub accounts: u32,
    /// What each has in the beginning.
    pub balance: i64,
}

/// What one client knows of its transfers.
#[derive(Debug, Default)]
pub struct Journal {
    /// Transfers that the database has acknowledged, by their record's key.
    pub acknowledged: BTreeSet<Key>,
    /// Transfers that were begun and of which nothing is known.
    pub unknown: BTreeSet<Key>,
    /// Transfers that the database has refused for good.
    pub refused: BTreeSet<Key>,
    /// How often a reader has summed all balances.
    pub sums: u64,
}

impl Journal {
    /// How many transfers a client has begun, so that one that is started again does not use a record twice.
    pub(super) fn begun(&self, keys: &Keys, client: &str) -> u64 {
        let prefix = format!("{}{client}/", keys.transfers);
        let known = [&self.acknowledged, &self.unknown, &self.refused];
        let own = known.into_iter().flatten().filter(|key| key.starts_with(prefix.as_bytes()));
        own.count() as u64
    }
}

/// The journals of all clients together.
pub type SharedJournal = Arc<Mutex<Journal>>;

/// What [`Bank::check`] has found to be in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Records of transfers.
    pub transfers: usize,
    /// Of those, how many had been acknowledged.
    pub acknowledged: usize,
    /// How many transfers of unknown fate there were, and how many of them took effect.
    pub unknown: (usize, usize),
}

/// Where the keys of a bank are.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) accounts: String,
    pub(super) transfers: String,
}

impl Keys {
    /// The keys of the bank of a name.
    pub(super) fn of(name: &str) -> Keys {
        Keys { accounts: format!("{name}/account/"), transfers: format!("{name}/transfer/") }
    }

    pub(super) fn account(&self, account: u32) -> String {
        format!("{}{account:04}", self.accounts)
    }

    /// A client's transfer of a number.
    pub(super) fn transfer(&self, client: &str, count: u64) -> Key {
        Key::from(format!("{}{client}/{count:06}", self.transfers))
    }
}

pub(super) const NAME: &str = "bank";

pub(super) fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    Ok(std::str::from_utf8(text)?.parse()?)
}

impl Bank {
    pub(super) fn total(&self) -> i64 {
        i64::from(self.accounts) * self.balance
    }

    /// Opens the accounts.
    ///
    /// # Errors
    ///
    /// If the database refuses for good.
    pub async fn set_up(&self, database: &Database) -> Result<()> {
        let (keys, balance) = (&Keys::of(NAME), &self.balance.to_string());
        database
            .run_transaction(|transaction| async move {
                for account in 0..self.accounts {
                    transaction.set(keys.account(account), balance.as_str())?;
                }
                Ok::<(), Error>(())
            })
            .await?;
        Ok(())
    }

    /// Moves money, one transfer after the other, until `stop` says so. Notes everything in the journal.
    ///
    /// # Errors
    ///
    /// If an account is not what only this workload can have written.
    pub async fn transfer_until(
        &self,
        database: &Database,
        client: &str,
        journal: &SharedJournal,
        stop: impl Fn() -> bool,
        note: impl Fn(&dyn Display),
    ) -> Result<()> {
        let keys = Keys::of(NAME);
        let begun = journal.lock().begun(&keys, client);
        for count in begun.. {
            if stop() {
                break;
            }
            let record = keys.transfer(client, count);
            let draw = |bound: u64| u32::try_from(runtime::random_u64() % bound).unwrap_or(0);
            let from = draw(u64::from(self.accounts));
            let to = (from + 1 + draw(u64::from(self.accounts) - 1)) % self.accounts;
            let amount = i64::from(1 + draw(9));
            // In doubt from here on, until the database has said what became of it.
            journal.lock().unknown.insert(record.clone());
            let outcome = transfer(database, &keys, &record, from, to, amount).await;
            let mut journal = journal.lock();
            match outcome {
                Ok(()) => {
                    journal.unknown.remove(&record);
                    note(&format_args!("{record} {from} -> {to}: {amount}"));
                    journal.acknowledged.insert(record);
                }
                Err(error) if error.is_maybe_committed() => {
                    note(&format_args!("{record} unknown: {}", error.code()));
                }
                Err(error) => {
                    journal.unknown.remove(&record);
                    note(&format_args!("{record} refused: {}", error.code()));
                    journal.refused.insert(record);
                }
            }
        }
        Ok(())
    }

    /// Sums all balances, again and again, until `stop` says so.
    ///
    /// # Errors
    ///
    /// If a sum is wrong: a reader saw a part of a transfer.
    pub async fn watch_until(
        &self,
        database: &Database,
        journal: &SharedJournal,
        stop: impl Fn() -> bool,
    ) -> Result<()> {
        let accounts = KeyRange::prefix(Keys::of(NAME).accounts.as_bytes());
        while !stop() {
            let transaction = database.transaction();
            let rows = match transaction.snapshot().get_range(&accounts).await {
                Ok(rows) => rows,
                Err(error) => {
                    // Unavailable for a while: only wrong answers count here.
                    tracing::debug!(%error, "a reader waits");
                    runtime::sleep(runtime::jitter(Duration::from_millis(20))).await;
                    continue;
                }
            };
            let mut sum = 0;
            for row in &rows {
                sum += number::<i64>(&row.value)?;
            }
            ensure!(
                rows.len() == self.accounts as usize && sum == self.total(),
                "a reader saw {} accounts with {sum} together, not {} with {} (I-2)",
                rows.len(),
                self.accounts,
                self.total()
            );
            journal.lock().sums += 1;
            runtime::sleep(runtime::jitter(Duration::from_millis(5))).await;
        }
        Ok(())
    }

    /// Compares the database with the journal.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub async fn check(&self, database: &Database, journal: &Journal) -> Result<Checked> {
        self.check_keys(&Keys::of(NAME), database, journal).await
    }

    /// The same for a bank whose keys are elsewhere.
    pub(super) async fn check_keys(
        &self,
        keys: &Keys,
        database: &Database,
        journal: &Journal,
    ) -> Result<Checked> {
        let (balances, records) = read_all(keys, journal, database).await?;
        let total: i64 = balances.values().sum();
        ensure!(total == self.total(), "the accounts hold {total}, not {}", self.total());
        let mut expected: BTreeMap<u32, i64> =
            (0..self.accounts).map(|account| (account, self.balance)).collect();
        for (record, (from, to, amount)) in &records {
            for (account, change) in [(from, -amount), (to, *amount)] {
                *expected.get_mut(account).with_context(|| format!("{record}"))? += change;
            }
        }
        for (account, balance) in &expected {
            ensure!(
                balances.get(account) == Some(balance),
                "account {account} holds {:?}, its transfers add up to {balance}: one took effect in part or twice",
                balances.get(account)
            );
        }
        if let Some(lost) = journal.acknowledged.iter().find(|key| !records.contains_key(*key)) {
            bail!("{lost} was acknowledged and is not there (I-5)");
        }
        if let Some(risen) = journal.refused.iter().find(|key| records.contains_key(*key)) {
            bail!("{risen} was refused and is there (I-12)");
        }
        let known = |key: &Key| journal.acknowledged.contains(key) || journal.unknown.contains(key);
        if let Some(foreign) = records.keys().find(|key| !known(key)) {
            bail!("{foreign} is there and was never begun");
        }
        Ok(Checked {
            transfers: records.len(),
            acknowledged: journal.acknowledged.len(),
            unknown: (
                journal.unknown.len(),
                journal.unknown.iter().filter(|key| records.contains_key(*key)).count(),
            ),
        })
    }
}

/// All balances and all records, at one version.
async fn read_all(
    keys: &Keys,
    journal: &Journal,
    database: &Database,
) -> Result<(BTreeMap<u32, i64>, BTreeMap<Key, (u32, u32, i64)>)> {
    let known: BTreeSet<&Key> = journal.acknowledged.union(&journal.unknown).collect();
    let parts = parts::cut(&KeyRange::prefix(keys.transfers.as_bytes()), known);
    let parts = &parts;
    let (accounts, transfers) = database
        .run_transaction(|transaction| async move {
            let accounts = KeyRange::prefix(keys.accounts.as_bytes());
            let accounts = transaction.get_range(accounts).await?;
            Ok::<_, Error>((accounts, parts::read(&transaction, parts).await?))
        })
        .await?;
    let transfers = transfers.into_iter().flat_map(|page| page.rows);
    let mut balances = BTreeMap::new();
    for row in accounts {
        balances.insert(number(&row.key[keys.accounts.len()..])?, number(&row.value)?);
    }
    let mut records = BTreeMap::new();
    for row in transfers {
        let text = std::str::from_utf8(&row.value)?;
        let mut fields = text.split(' ');
        let mut field = || fields.next().context("a record is cut short");
        records.insert(row.key, (field()?.parse()?, field()?.parse()?, field()?.parse()?));
    }
    Ok((balances, records))
}

async fn transfer(
    database: &Database,
    keys: &Keys,
    record: &Key,
    from: u32,
    to: u32,
    amount: i64,
) -> Result<(), Error> {
    database
        .run_transaction(|transaction| {
            let record = record.clone();
            async move {
                let balance = async |account| {
                    let value = transaction.get(keys.account(account)).await?;
                    let balance = value.as_deref().map(number::<i64>);
                    Ok::<i64, Error>(
                        balance.expect("accounts stay open").expect("balances are decimal numbers"),
                    )
                };
                let (from_balance, to_balance) = (balance(from).await?, balance(to).await?);
                transaction.set(keys.account(from), (from_balance - amount).to_string())?;
                transaction.set(keys.account(to), (to_balance + amount).to_string())?;
                transaction.set(record, format!("{from:04} {to:04} {amount}"))?;
                Ok::<(), Error>(())
            }
        })
        .await
}

/// The size of a [`BankWorkload`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BankSettings {
    /// How many accounts: two at least. The fewer, the more conflicts.
    pub accounts: u32,
    /// What each has in the beginning.
    pub balance: i64,
    /// How many clients move money.
    pub clients: u32,
    /// How many more sum it up.
    pub readers: u32,
    /// How long each of a recorded bank rests between two transactions: for faults that last long.
    pub rest_ms: u64,
}

impl Default for BankSettings {
    fn default() -> BankSettings {
        BankSettings { accounts: 10, balance: 100, clients: 3, readers: 1, rest_ms: 0 }
    }
}

impl BankSettings {
    pub(super) fn bank(&self) -> Bank {
        Bank { accounts: self.accounts.max(2), balance: self.balance }
    }
}

/// A [`Bank`] with its clients.
pub struct BankWorkload {
    settings: BankSettings,
    bank: Bank,
    journal: SharedJournal,
}

impl BankWorkload {
    /// A bank that is not open yet.
    pub fn new(settings: BankSettings) -> BankWorkload {
        BankWorkload { settings, bank: settings.bank(), journal: SharedJournal::default() }
    }
}

impl Workload for BankWorkload {
    fn name(&self) -> &str {
        NAME
    }

    fn cuts(&self) -> Vec<Key> {
        [3, 6, 9].map(|account| Keys::of(self.name()).account(account).into()).to_vec()
    }

    fn clients(&self) -> u32 {
        self.settings.clients + self.settings.readers
    }

    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.bank.set_up(&client.database).await })
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let (database, stop) = (&client.database, || client.is_stopped());
            if client.number >= self.settings.clients {
                return self.bank.watch_until(database, &self.journal, stop).await;
            }
            let name = format!("c{}", client.number);
            let note = |event: &dyn Display| client.note(event);
            self.bank.transfer_until(database, &name, &self.journal, stop, note).await
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let journal = std::mem::take(&mut *self.journal.lock());
            let checked = self.bank.check(&client.database, &journal).await?;
            Ok(format!("{checked:?}, {} sums", journal.sums))
        })
    }
}
