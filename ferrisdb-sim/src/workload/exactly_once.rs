//! Each client counts with `run_transaction`, and has to find each of its steps in the database exactly once.
//!
//! ```text
//!   exactly_once/count/0002        17        read, add one, write
//!   exactly_once/steps/0002/0000   1 2 3 ..  numbers of the steps, added by AppendIfFits without reading
//!   exactly_once/total             51        one for all clients, by AtomicOp::Add
//! ```
//!
//! None of the three effects is harmless if it happens twice: a commit whose answer is lost, and that is simply
//! tried again, shows. And nothing shows where it happened twice better than the numbers of the steps. A step
//! that `run_transaction` has acknowledged is there once; one that was refused is not; one that was under way
//! when the client ended is there once or not at all (I-5, I-6).
//!
//! The records by which clients find out what became of their commits must not pile up: each client leaves a
//! few. Records of all workloads of the cluster count, and those of clients that never come back are there until
//! the sweeper's time has come.
//!
//! Every third client does not use `run_transaction`. It writes blindly, and after a commit of which nobody knows it looks for
//! its step before it tries again: that is right only if the first commit cannot take effect after that look.
//!
//! Start with [`ExactlyOnce::step`], then [`check_steps`].

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{Database, Error, ErrorCode, RangeQuery, Transaction, TransactionOption};
use ferrisdb_core::{KeyRange, Value, atomic::AtomicOp, idempotency, runtime};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    bank::number,
    common::{Tally, counter, explained, patiently, pause},
};

/// The size of an [`ExactlyOnce`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExactlyOnceSettings {
    /// How many clients count.
    pub clients: u32,
    /// How long a client rests between two steps, about, in milliseconds.
    pub rest_ms: u64,
    /// Most records of idempotency ids in the end, of all workloads together.
    pub records_max: usize,
    /// How long to wait in the end, in seconds, until none of the records is left. Zero: not at all.
    pub sweep_seconds: u64,
}

impl Default for ExactlyOnceSettings {
    fn default() -> ExactlyOnceSettings {
        ExactlyOnceSettings { clients: 5, rest_ms: 5, records_max: 500, sweep_seconds: 0 }
    }
}

/// Clients that count their steps: see the module.
pub struct ExactlyOnce {
    settings: ExactlyOnceSettings,
    clients: Mutex<Vec<Steps>>,
}

/// What a client was told of its steps, which are numbered from zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps(pub Vec<Fate>);

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// `run_transaction` returned without an error.
    Acknowledged,
    /// It returned an error that says that nothing happened.
    Refused,
    /// It has not returned yet, or with an error that says that nobody knows.
    Unknown,
}

const NAME: &str = "exactly_once";
const TOTAL: &str = "exactly_once/total";
const STEPS: &str = "exactly_once/steps/";
/// How many steps are in one value.
const STEPS_PER_KEY: u32 = 10_000;

fn count_key(client: u32) -> String {
    format!("{NAME}/count/{client:04}")
}

fn steps_key(client: u32, step: u32) -> String {
    format!("{STEPS}{client:04}/{:04}", step / STEPS_PER_KEY)
}

impl Steps {
    fn tally(&self) -> Tally {
        let count = |wanted| self.0.iter().filter(|&&fate| fate == wanted).count() as u64;
        Tally {
            begun: self.0.len() as u64,
            acknowledged: count(Fate::Acknowledged),
            refused: count(Fate::Refused),
        }
    }
}

impl ExactlyOnce {
    /// Clients that have not made a step.
    pub fn new(settings: ExactlyOnceSettings) -> ExactlyOnce {
        let clients = vec![Steps::default(); settings.clients as usize];
        ExactlyOnce { settings, clients: Mutex::new(clients) }
    }

    /// One step, until it is known what became of it.
    async fn step(&self, client: &Client) -> Result<()> {
        let own = client.number as usize;
        let step = {
            let steps = &mut self.clients.lock()[own].0;
            // A client that ended without warning leaves it like this.
            steps.push(Fate::Unknown);
            steps.len() - 1
        };
        let (number, name) = (u32::try_from(step)?, client.number);
        let body = |transaction| async move { count(&transaction, name, number).await };
        let done = match name % 3 {
            2 => step_by_hand(&client.database, name, number).await,
            _ => client.database.run_transaction(body).await,
        };
        let fate = match done {
            Ok(()) => Fate::Acknowledged,
            Err(error) => {
                let error = explained(error)?;
                client.note(format_args!("{NAME} client {name} step {number}: {}", error.code()));
                pause().await;
                if error.is_maybe_committed() { Fate::Unknown } else { Fate::Refused }
            }
        };
        self.clients.lock()[own].0[step] = fate;
        Ok(())
    }
}

async fn count(transaction: &Transaction, client: u32, step: u32) -> Result<()> {
    let present = counter(transaction.get(count_key(client)).await?.as_ref())?;
    transaction.set(count_key(client), &(present + 1).to_le_bytes())?;
    let operand = Value::from(&step.to_be_bytes());
    transaction.atomic(AtomicOp::AppendIfFits, steps_key(client, step), operand)?;
    transaction.add(TOTAL, 1)?;
    Ok(())
}

/// The same without reading, in a loop that any user could write.
async fn step_by_hand(database: &Database, client: u32, step: u32) -> Result<()> {
    let transaction = database.transaction();
    let mut is_in_doubt = false;
    loop {
        let attempt = async {
            if is_in_doubt && is_done(&transaction, client, step).await? {
                return Ok(());
            }
            transaction.add(count_key(client), 1)?;
            let operand = Value::from(&step.to_be_bytes());
            transaction.atomic(AtomicOp::AppendIfFits, steps_key(client, step), operand)?;
            transaction.add(TOTAL, 1)?;
            transaction.commit().await?;
            Ok::<_, Error>(())
        };
        let Err(error) = attempt.await else { return Ok(()) };
        is_in_doubt |= error.is_maybe_committed();
        if let Err(error) = transaction.on_error(error).await {
            // What became of an earlier attempt is not known either.
            return Err(match is_in_doubt {
                true => error.with_code(ErrorCode::CommitUnknownResult).into(),
                false => error.into(),
            });
        }
    }
}

async fn is_done(transaction: &Transaction, client: u32, step: u32) -> Result<bool, Error> {
    let steps = transaction.get(steps_key(client, step)).await?.unwrap_or_default();
    Ok(steps.chunks_exact(4).any(|found| found == step.to_be_bytes()))
}

/// What the database holds of the steps.
struct Found {
    counts: Vec<u64>,
    steps: Vec<Vec<u32>>,
    total: u64,
}

async fn read(transaction: &Transaction, clients: u32) -> Result<Found> {
    let mut found = Found {
        counts: Vec::new(),
        steps: vec![Vec::new(); clients as usize],
        total: counter(transaction.get(TOTAL).await?.as_ref())?,
    };
    for client in 0..clients {
        found.counts.push(counter(transaction.get(count_key(client)).await?.as_ref())?);
    }
    for row in transaction.get_range(KeyRange::prefix(STEPS.as_bytes())).await? {
        let client: usize = number(&row.key[STEPS.len()..STEPS.len() + 4])?;
        let steps = found.steps.get_mut(client).with_context(|| format!("{}", row.key))?;
        let chunks = row.value.chunks_exact(4);
        ensure!(chunks.remainder().is_empty(), "{} is torn (I-2)", row.key);
        let step = |chunk: &[u8]| chunk.iter().fold(0, |all, &byte| all << 8 | u32::from(byte));
        steps.extend(chunks.map(step));
    }
    Ok(found)
}

/// Compares the steps of a client with those in the database.
///
/// # Errors
///
/// The first step that is missing, or there too often.
pub fn check_steps(client: usize, steps: &Steps, found: &[u32]) -> Result<()> {
    let mut times = vec![0u32; steps.0.len()];
    for &step in found {
        let times = times.get_mut(step as usize);
        *times.with_context(|| format!("client {client} never made step {step} (I-2)"))? += 1;
    }
    for (step, (fate, times)) in steps.0.iter().zip(times).enumerate() {
        ensure!(times <= 1, "step {step} of client {client} took effect {times} times (I-6)");
        ensure!(
            times == 1 || *fate != Fate::Acknowledged,
            "step {step} of client {client} was acknowledged and did not take effect (I-5)"
        );
        ensure!(
            times == 0 || *fate != Fate::Refused,
            "step {step} of client {client} was refused and took effect (I-6)"
        );
    }
    Ok(())
}

/// How many records of idempotency ids there are.
async fn records(database: &Database) -> Result<usize> {
    patiently(database, |transaction| async move {
        transaction.set_option(TransactionOption::ReadSystemKeys)?;
        let query = RangeQuery::from(idempotency::records());
        Ok(transaction.snapshot().get_range(query).await?.len())
    })
    .await
}

impl Workload for ExactlyOnce {
    fn name(&self) -> &str {
        NAME
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn is_mortal(&self) -> bool {
        true
    }

    fn set_up(&self, _client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while !client.is_stopped() {
                self.step(&client).await?;
                runtime::sleep(runtime::jitter(Duration::from_millis(self.settings.rest_ms))).await;
            }
            Ok(())
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let clients = self.clients.lock().clone();
            let found = patiently(&client.database, |transaction| async move {
                read(&transaction, self.settings.clients).await
            })
            .await?;
            let mut all = Tally::default();
            for (number, steps) in clients.iter().enumerate() {
                check_steps(number, steps, &found.steps[number])?;
                let tally = steps.tally();
                tally.check(format_args!("the count of client {number}"), found.counts[number])?;
                ensure!(
                    found.counts[number] == found.steps[number].len() as u64,
                    "client {number} has counted to {} in {} steps: a part of a transaction (I-2)",
                    found.counts[number],
                    found.steps[number].len()
                );
                all.begun += tally.begun;
                all.acknowledged += tally.acknowledged;
                all.refused += tally.refused;
            }
            all.check(TOTAL, found.total)?;
            let left = records(&client.database).await?;
            ensure!(
                left <= self.settings.records_max,
                "{left} records of idempotency ids are left, more than {}",
                self.settings.records_max
            );
            self.wait_for_sweep(&client).await?;
            Ok(format!(
                "{} steps, {} unknown, {} refused; {left} records left",
                found.total,
                all.unknown(),
                all.refused
            ))
        })
    }
}

impl ExactlyOnce {
    async fn wait_for_sweep(&self, client: &Client) -> Result<()> {
        let limit = Duration::from_secs(self.settings.sweep_seconds);
        let began = runtime::now();
        while !limit.is_zero() {
            let left = records(&client.database).await?;
            let waited = runtime::now().duration_since(began);
            if left == 0 {
                client.note(format_args!("{NAME}: all records were swept after {waited:?}"));
                break;
            }
            ensure!(
                waited < limit,
                "{left} records of idempotency ids are there after {waited:?}: they are not swept"
            );
            runtime::sleep(Duration::from_secs(5)).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Steps {
        use Fate::{Acknowledged, Refused, Unknown};
        Steps(vec![Acknowledged, Refused, Acknowledged, Unknown])
    }

    #[test]
    fn each_acknowledged_step_is_there_once() {
        check_steps(0, &steps(), &[0, 2]).unwrap();
        check_steps(0, &steps(), &[0, 2, 3]).unwrap();
        assert_eq!(steps().tally().bounds(), 2..=3);
    }

    #[test]
    fn whatever_else_is_there_is_found() {
        for (wrong, invariant) in [
            (&[0][..], "I-5"),
            (&[0, 2, 2], "I-6"),
            (&[0, 2, 3, 3], "I-6"),
            (&[0, 1, 2], "I-6"),
            (&[0, 2, 4], "I-2"),
        ] {
            let error = check_steps(0, &steps(), wrong).unwrap_err().to_string();
            assert!(error.contains(invariant), "{error}");
        }
    }
}
