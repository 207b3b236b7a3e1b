//! Programs written for FoundationDB's C interface, whose answers get lost: `ferrisdb-fdb` with the loops that bindings have.
//!
//! ```text
//!   c_interface/steps/0002/0000    1 2 3 ..     numbers of the steps, appended without reading
//!   c_interface/stamp/0002/0003    a stamp      of the commit that made step 3, the same version that the program was told
//!
//!   client 0    option 505 in the body of the loop: set again in each attempt
//!   client 1    option 506 on the database
//!   client 2    option 504 with an id of its own
//!   client 3    no id, but timeouts that are set when something waits already
//!   client 4    the Rust client: reads that nobody polls when the commit comes
//! ```
//!
//! Every few commits lose their answers, wherever the request is at that moment. A step that a client with an id was told of is
//! there once and has the version that it was told (I-6, I-4). Nothing waits for longer than its timeout (I-17), and no
//! commit leaves a read behind (I-15).
//!
//! Start with [`CInterface::step`].

mod impatient;
mod promise;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{ErrorCode, Settings, Transaction as RustTransaction, Version, Versionstamp};
use ferrisdb_core::{KeyRange, runtime, simulation};
use ferrisdb_fdb::{
    Output, api_version,
    database::DatabaseOptions,
    errors::{self, Code},
    transaction::Transaction,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;

use self::promise::Promised;
use super::{
    Client, Workload,
    bank::number,
    common::{patiently, pause},
    exactly_once::{Fate, Steps, check_steps},
};

/// The size of a [`CInterface`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CInterfaceSettings {
    /// How many clients there are: each kind is every fifth.
    pub clients: u32,
    /// How long a client rests between two steps, about, in milliseconds.
    pub rest_ms: u64,
    /// One of so many requests to commit gets no answer; zero for none.
    pub lost_every: u64,
}

impl Default for CInterfaceSettings {
    fn default() -> CInterfaceSettings {
        CInterfaceSettings { clients: 10, rest_ms: 10, lost_every: 4 }
    }
}

/// Programs for the C interface: see the module.
pub struct CInterface {
    settings: CInterfaceSettings,
    clients: Mutex<Vec<Told>>,
}

/// What a client was told.
#[derive(Clone, Debug, Default)]
struct Told {
    steps: Steps,
    /// Of each step that was acknowledged: its version.
    versions: Vec<Option<i64>>,
}

/// How a client works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    OptionInBody,
    DatabaseDefault,
    OwnId,
    Impatient,
    UnpolledReads,
}

impl Kind {
    fn of(client: u32) -> Kind {
        match client % 5 {
            0 => Kind::OptionInBody,
            1 => Kind::DatabaseDefault,
            2 => Kind::OwnId,
            3 => Kind::Impatient,
            _ => Kind::UnpolledReads,
        }
    }
}

const NAME: &str = "c_interface";
const STEPS: &str = "c_interface/steps/";
/// How many steps are in one value.
const STEPS_PER_KEY: u32 = 10_000;

/// The API version that the programs are written for.
const API_VERSION: i32 = 730;

const ADD: i32 = 2;
const APPEND_IF_FITS: i32 = 9;
const SET_VERSIONSTAMPED_VALUE: i32 = 15;
const OPTION_IDEMPOTENCY_ID: i32 = 504;
const OPTION_AUTOMATIC_IDEMPOTENCY: i32 = 505;
const DATABASE_AUTOMATIC_IDEMPOTENCY: i32 = 506;

fn steps_key(client: u32, step: u32) -> String {
    format!("{STEPS}{client:04}/{:04}", step / STEPS_PER_KEY)
}

fn stamp_key(client: u32, step: u32) -> String {
    format!("{NAME}/stamp/{client:04}/{step:08}")
}

fn count_key(client: u32) -> String {
    format!("{NAME}/count/{client:04}")
}

/// A transaction of the C interface.
type FdbTransaction = Transaction<Promised>;

fn begin(client: &Client, options: &Arc<DatabaseOptions>) -> Arc<FdbTransaction> {
    Transaction::new(Ok(client.database.clone()), Arc::clone(options))
}

/// What a program does about an error that it cannot retry.
fn ended(code: Code) -> Result<Fate> {
    let known = u16::try_from(code).map(ErrorCode::from_number).unwrap_or(ErrorCode::Internal);
    match known {
        ErrorCode::CommitUnknownResult | ErrorCode::TransactionTimedOut => Ok(Fate::Unknown),
        ErrorCode::TimedOut | ErrorCode::Disk | ErrorCode::Corrupt => Ok(Fate::Refused),
        _ => bail!("no fault explains error {code}: {:?}", errors::sentence(code)),
    }
}

impl CInterface {
    /// Clients that have not made a step.
    pub fn new(settings: CInterfaceSettings) -> CInterface {
        let clients = vec![Told::default(); settings.clients as usize];
        CInterface { settings, clients: Mutex::new(clients) }
    }

    /// One step, until it is known what became of it.
    async fn step(&self, client: &Client, options: &Arc<DatabaseOptions>) -> Result<()> {
        let own = client.number as usize;
        let step = {
            let told = &mut self.clients.lock()[own];
            told.steps.0.push(Fate::Unknown);
            told.versions.push(None);
            told.steps.0.len() - 1
        };
        let transaction = begin(client, options);
        let made = make_step(&transaction, client.number, u32::try_from(step)?).await;
        let (fate, version) = match made {
            Ok(version) => (Fate::Acknowledged, Some(version)),
            Err(code) => {
                client.note(format_args!("{NAME} client {own} step {step}: error {code}"));
                pause().await;
                (ended(code)?, None)
            }
        };
        let told = &mut self.clients.lock()[own];
        told.steps.0[step] = fate;
        told.versions[step] = version;
        Ok(())
    }
}

/// The loop of a binding around the body of a step. Returns the version that the program was told.
async fn make_step(transaction: &Arc<FdbTransaction>, client: u32, step: u32) -> Result<i64, Code> {
    loop {
        let Err(code) = attempt(transaction, client, step).await else {
            return Ok(transaction.committed_version());
        };
        transaction.on_error(code).wait().await?;
    }
}

async fn attempt(transaction: &Arc<FdbTransaction>, client: u32, step: u32) -> Result<(), Code> {
    match Kind::of(client) {
        Kind::OptionInBody => transaction.set_option(OPTION_AUTOMATIC_IDEMPOTENCY, None)?,
        Kind::OwnId => {
            let id = format!("{NAME}-{client:04}-{step:08}");
            transaction.set_option(OPTION_IDEMPOTENCY_ID, Some(id.as_bytes()))?;
        }
        Kind::DatabaseDefault | Kind::Impatient | Kind::UnpolledReads => {}
    }
    // Every second step reads as well: then two attempts exclude each other by what they read, too.
    if step.is_multiple_of(2) {
        transaction.get(count_key(client).as_bytes(), false).wait().await?;
    }
    transaction.atomic_op(count_key(client).as_bytes(), &1u64.to_le_bytes(), ADD);
    let steps = steps_key(client, step);
    transaction.atomic_op(steps.as_bytes(), &step.to_be_bytes(), APPEND_IF_FITS);
    let stamp = [0; Versionstamp::LEN + 4];
    transaction.atomic_op(stamp_key(client, step).as_bytes(), &stamp, SET_VERSIONSTAMPED_VALUE);
    transaction.commit().wait().await.map(drop)
}

/// What the database holds of the steps of one client.
struct Found {
    steps: Vec<u32>,
    /// The version in each stamp.
    versions: Vec<Option<i64>>,
}

async fn read(transaction: &RustTransaction, client: u32, steps: usize) -> Result<Found> {
    let mut found = Found { steps: Vec::new(), versions: vec![None; steps] };
    let prefix = format!("{STEPS}{client:04}/");
    for row in transaction.get_range(KeyRange::prefix(prefix.as_bytes())).await? {
        let chunks = row.value.chunks_exact(4);
        ensure!(chunks.remainder().is_empty(), "{} is torn (I-2)", row.key);
        let step = |chunk: &[u8]| chunk.iter().fold(0, |all, &byte| all << 8 | u32::from(byte));
        found.steps.extend(chunks.map(step));
    }
    let prefix = format!("{NAME}/stamp/{client:04}/");
    for row in transaction.get_range(KeyRange::prefix(prefix.as_bytes())).await? {
        let step: usize = number(&row.key[prefix.len()..])?;
        let stamp = row.value.as_slice().try_into();
        let stamp =
            Versionstamp::from_bytes(stamp.with_context(|| format!("{} is torn", row.key))?);
        let slot = found.versions.get_mut(step);
        *slot.with_context(|| format!("{} was never written (I-2)", row.key))? =
            Some(i64::try_from(stamp.commit_version.0)?);
    }
    Ok(found)
}

impl Told {
    fn check(&self, client: u32, found: &Found) -> Result<()> {
        check_steps(client as usize, &self.steps, &found.steps)?;
        for (step, (told, found)) in self.versions.iter().zip(&found.versions).enumerate() {
            let Some(told) = told else { continue };
            ensure!(
                found.as_ref() == Some(told),
                "step {step} of client {client} was committed at {found:?}, but the program was told {told} (I-4)"
            );
        }
        Ok(())
    }
}

impl Workload for CInterface {
    fn name(&self) -> &str {
        NAME
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // The first client of the process selects it.
            let _ = api_version::select(API_VERSION, API_VERSION);
            simulation::lose_answers(self.settings.lost_every);
            let kind = Kind::of(client.number);
            let options = Arc::<DatabaseOptions>::default();
            if kind == Kind::DatabaseDefault {
                let database = client.database.clone();
                let opened = options.client(Settings::default(), |_| Ok(database));
                let set =
                    opened.and_then(|_| options.set_option(DATABASE_AUTOMATIC_IDEMPOTENCY, None));
                set.map_err(|code| anyhow::anyhow!("the option was refused: {code}"))?;
            }
            while !client.is_stopped() {
                match kind {
                    Kind::Impatient => {
                        impatient::wait_with_a_late_timeout(&client, &options).await?
                    }
                    Kind::UnpolledReads => impatient::commit_behind_a_read(&client).await?,
                    _ => self.step(&client, &options).await?,
                }
                runtime::sleep(runtime::jitter(Duration::from_millis(self.settings.rest_ms))).await;
            }
            Ok(())
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            simulation::lose_answers(0);
            let clients = self.clients.lock().clone();
            let (mut acknowledged, mut unknown) = (0, 0);
            for (number, told) in (0..).zip(&clients) {
                let found = patiently(&client.database, |transaction| async move {
                    read(&transaction, number, told.steps.0.len()).await
                })
                .await?;
                told.check(number, &found)?;
                let count = |fate| told.steps.0.iter().filter(|&&known| known == fate).count();
                acknowledged += count(Fate::Acknowledged);
                unknown += count(Fate::Unknown);
            }
            Ok(format!("{acknowledged} steps acknowledged, {unknown} unknown"))
        })
    }
}

/// The number in a result.
fn int64(output: &Output) -> Option<Version> {
    match output {
        Output::Int64(number) => u64::try_from(*number).ok().map(Version),
        _ => None,
    }
}
