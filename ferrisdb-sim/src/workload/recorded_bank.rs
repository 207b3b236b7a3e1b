//! The bank, with every attempt of every client recorded: its order is checked as well as its totals.
//!
//! ```text
//!   transfer   get 0003, get 0001, set both, now and then sum all, set the record, commit
//!   reader     get_range of all accounts, up or down, at once or in halves; or get each
//!                        |
//!                     History --> checker::serializability::check, then Bank::check
//! ```
//!
//! Few accounts, so that transfers conflict. An attempt whose commit got no answer is not tried again: its
//! transfer stays in doubt, and the history finds out what became of it.
//!
//! Start with [`RecordedBank::transfer_until`].

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrisdb_client::{Database, Error, RangeQuery};
use ferrisdb_core::{Key, KeyRange, runtime};
use futures::future::BoxFuture;

use super::{
    Client, Workload,
    bank::{self, Bank, BankSettings, Checked, Keys, SharedJournal, number},
    common::draw,
};
use crate::{
    checker::serializability::{self, Verdict},
    history::{History, Recorder},
};

/// How long a client waits before it tries again.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the accounts are tried to be opened.
const SET_UP_ATTEMPTS: u32 = 300;

/// A bank whose clients are recorded. Clones are the same bank.
#[derive(Clone)]
pub struct RecordedBank {
    bank: Bank,
    keys: Keys,
    history: History,
    /// Between two transactions of a client.
    rest: Duration,
}

impl RecordedBank {
    /// A bank, with an empty history. Its keys are those of a bank that is not recorded.
    pub fn new(bank: Bank) -> RecordedBank {
        RecordedBank::named(bank::NAME, bank)
    }

    fn named(name: &str, bank: Bank) -> RecordedBank {
        let keys = Keys::of(name);
        let tracked = [&keys.accounts, &keys.transfers];
        let tracked = tracked.map(|prefix| KeyRange::prefix(prefix.as_bytes()));
        let history = History::new(name, tracked);
        RecordedBank { bank, keys, history, rest: Duration::ZERO }
    }

    /// The recorded history, to be looked into.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Opens the accounts.
    ///
    /// # Errors
    ///
    /// If the database refuses for good, or for half a minute.
    pub async fn set_up(&self, database: &Database) -> Result<()> {
        for attempt in 1.. {
            let recorder = self.history.begin(database, "set-up")?;
            for account in 0..self.bank.accounts {
                recorder.set(self.keys.account(account), self.bank.balance.to_string())?;
            }
            match recorder.commit().await {
                Ok(_) => break,
                // The same once more changes nothing: nobody has begun yet.
                Err(error) if error.is_retryable() && attempt < SET_UP_ATTEMPTS => {
                    runtime::sleep(runtime::jitter(PAUSE * 10)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Moves money, one transfer after the other, until `stop` says so or the history is full.
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
    ) -> Result<()> {
        let begun = journal.lock().begun(&self.keys, client);
        for count in begun.. {
            self.rest().await;
            if stop() || self.history.is_full() {
                break;
            }
            let record = self.keys.transfer(client, count);
            let from = draw(self.bank.accounts);
            let to = (from + 1 + draw(self.bank.accounts - 1)) % self.bank.accounts;
            let amount = i64::from(1 + draw(9));
            journal.lock().unknown.insert(record.clone());
            let outcome = loop {
                let recorder = self.history.begin(database, client)?;
                let outcome = match self.transfer(&recorder, &record, from, to, amount).await? {
                    Ok(()) => recorder.commit().await.map(|_| ()),
                    Err(error) => Err(error),
                };
                match outcome {
                    Err(error) if error.is_retryable() && !error.is_maybe_committed() => {
                        if stop() || self.history.is_full() {
                            break Err(error);
                        }
                        runtime::sleep(runtime::jitter(PAUSE)).await;
                    }
                    other => break other,
                }
            };
            let mut journal = journal.lock();
            match outcome {
                Ok(()) => {
                    journal.unknown.remove(&record);
                    journal.acknowledged.insert(record);
                }
                Err(error) if error.is_maybe_committed() => {}
                Err(_) => {
                    journal.unknown.remove(&record);
                    journal.refused.insert(record);
                }
            }
        }
        Ok(())
    }

    /// Reads, in all ways that there are, until `stop` says so or the history is full.
    ///
    /// # Errors
    ///
    /// If a sum of all balances is wrong.
    pub async fn watch_until(
        &self,
        database: &Database,
        client: &str,
        journal: &SharedJournal,
        stop: impl Fn() -> bool,
    ) -> Result<()> {
        while !stop() && !self.history.is_full() {
            self.rest().await;
            let recorder = self.history.begin(database, client)?;
            match self.look(&recorder).await? {
                Ok(()) => {
                    recorder.commit().await?;
                    journal.lock().sums += 1;
                    runtime::sleep(runtime::jitter(PAUSE / 2)).await;
                }
                // Unavailable for a while: only wrong answers count here.
                Err(error) => {
                    tracing::debug!(%error, "a reader waits");
                    runtime::sleep(runtime::jitter(PAUSE * 2)).await;
                }
            }
        }
        Ok(())
    }

    async fn rest(&self) {
        if !self.rest.is_zero() {
            runtime::sleep(runtime::jitter(self.rest)).await;
        }
    }

    /// Reads all accounts, in a way that is drawn, and adds them up.
    async fn look(&self, recorder: &Recorder) -> Result<Result<(), Error>> {
        let accounts = KeyRange::prefix(self.keys.accounts.as_bytes());
        let mut sum = 0;
        match draw(4) {
            0 => {
                for account in 0..self.bank.accounts {
                    match recorder.get(self.keys.account(account)).await {
                        Ok(value) => sum += number::<i64>(&value.unwrap_or_default())?,
                        Err(error) => return Ok(Err(error)),
                    }
                }
            }
            // Two halves, one from its end down, with limits that are not or just reached.
            1 => {
                let middle = Key::from(self.keys.account(self.bank.accounts / 2));
                let lower = RangeQuery::from(KeyRange::new(accounts.begin, middle.clone()));
                let upper = RangeQuery::from(KeyRange::new(middle, accounts.end)).reverse();
                let rows_max = self.bank.accounts as usize;
                for query in [lower.rows(rows_max), upper.rows(rows_max)] {
                    match recorder.get_range(query).await {
                        Ok(rows) => {
                            for row in rows {
                                sum += number::<i64>(&row.value)?;
                            }
                        }
                        Err(error) => return Ok(Err(error)),
                    }
                }
            }
            way => {
                let query = RangeQuery { reverse: way == 2, ..RangeQuery::from(accounts) };
                match recorder.get_range_snapshot(query).await {
                    Ok(rows) => {
                        for row in rows {
                            sum += number::<i64>(&row.value)?;
                        }
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        let total = self.bank.total();
        ensure!(sum == total, "a reader saw {sum} in all accounts together, not {total} (I-2)");
        Ok(Ok(()))
    }

    /// Checks the balances against the journal, and the history for strict serializability. All clients must
    /// have stopped.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub async fn check(
        &self,
        database: &Database,
        journal: &SharedJournal,
    ) -> Result<(Checked, Verdict)> {
        // The history first: it says more.
        let recorded = self.history.conclude(database).await?;
        let verdict = serializability::check(&recorded)?;
        let journal = std::mem::take(&mut *journal.lock());
        let checked = self.bank.check_keys(&self.keys, database, &journal).await?;
        Ok((checked, verdict))
    }

    /// One transfer; the inner result is what the database says.
    async fn transfer(
        &self,
        recorder: &Recorder,
        record: &Key,
        from: u32,
        to: u32,
        amount: i64,
    ) -> Result<Result<(), Error>> {
        let work = async {
            let mut balances = Vec::new();
            for account in [from, to] {
                let value = recorder.get(self.keys.account(account)).await?;
                balances.push(value.unwrap_or_default());
            }
            Ok::<_, Error>(balances)
        };
        let balances = match work.await {
            Ok(balances) => balances,
            Err(error) => return Ok(Err(error)),
        };
        for (account, balance, change) in
            [(from, &balances[0], -amount), (to, &balances[1], amount)]
        {
            recorder
                .set(self.keys.account(account), (number::<i64>(balance)? + change).to_string())?;
        }
        // Reads over own writes are compared, too.
        if draw(8) == 0
            && let Err(error) =
                recorder.get_range(KeyRange::prefix(self.keys.accounts.as_bytes())).await
        {
            return Ok(Err(error));
        }
        recorder.set(record, format!("{from:04} {to:04} {amount}"))?;
        Ok(Ok(()))
    }
}

/// A [`RecordedBank`] with its clients.
pub struct RecordedBankWorkload {
    settings: BankSettings,
    bank: RecordedBank,
    journal: SharedJournal,
}

const NAME: &str = "recorded_bank";

impl RecordedBankWorkload {
    /// A bank that is not open yet.
    pub fn new(settings: BankSettings) -> RecordedBankWorkload {
        let rest = Duration::from_millis(settings.rest_ms);
        let bank = RecordedBank { rest, ..RecordedBank::named(NAME, settings.bank()) };
        RecordedBankWorkload { settings, bank, journal: SharedJournal::default() }
    }
}

impl Workload for RecordedBankWorkload {
    fn name(&self) -> &str {
        NAME
    }

    fn cuts(&self) -> Vec<Key> {
        [2, 4, 6].map(|account| Keys::of(self.name()).account(account).into()).to_vec()
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
                let name = format!("r{}", client.number);
                return self.bank.watch_until(database, &name, &self.journal, stop).await;
            }
            let name = format!("c{}", client.number);
            self.bank.transfer_until(database, &name, &self.journal, stop).await
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let (checked, verdict) = self.bank.check(&client.database, &self.journal).await?;
            Ok(format!("{checked:?} {verdict:?}"))
        })
    }
}
