//! Everything that a client can call, in random order, against a map.
//!
//! ```text
//!   api_model/003/k/004       few keys, of client 3 alone; every second one right after the one before
//!   api_model/003/s/<stamp>a  keys that hold a versionstamp
//!   '', '\0' .. , '\xfe' ..   the edges of the keyspace, if the scenario wants them: for the first two clients
//!   api_model/marker/003      which attempt of client 3 was the last that took effect, and its versionstamp
//!
//!   attempt 17   read the marker: 16     random steps, each answer compared with the map     marker = 17, commit
//!   no answer    read the marker: 17, then it took effect
//!                otherwise overwrite it; once that is committed attempt 17 conflicts, whatever is still under way
//! ```
//!
//! Each client keeps a map of its own keys, and nobody else writes them, so every read has one right answer at once:
//! that of the map with the transaction's own writes done to it (I-2, I-15). Some transactions go through
//! `run_transaction` instead of the marker, which must apply them once (I-6). Others are given up, reset or
//! cancelled and must leave nothing. Some read at an earlier version, which the client still knows.
//!
//! Start with [`ApiModel::attempt`].

mod program;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{
    ErrorCode, Key, KeyRange, Transaction, TransactionOption, Value, Version, Versionstamp,
};
use ferrisdb_core::{Mutation, runtime};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use self::program::{Keyspace, Program};
use super::{
    Client, Workload, atomic_model,
    support::{self, Fate, draw, fate, one_in, passing, persist},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiModelSettings {
    /// Keys of each client.
    pub keys: u32,
    /// How many clients.
    pub clients: u32,
    /// Most steps of a transaction.
    pub steps: u32,
    /// Longest value, in bytes.
    pub value_bytes: u32,
    /// Whether the first two clients have the edges of the keyspace, in the place of keys below the workload's name.
    pub edges: bool,
    /// How long a client rests between two transactions, about, in milliseconds.
    pub rest_ms: u64,
}

impl Default for ApiModelSettings {
    fn default() -> Self {
        ApiModelSettings {
            keys: 20,
            clients: 3,
            steps: 12,
            value_bytes: 12,
            edges: false,
            rest_ms: 0,
        }
    }
}

/// The workload.
pub struct ApiModel {
    settings: ApiModelSettings,
    /// What the clients know, from their ends on.
    models: Mutex<BTreeMap<u32, Model>>,
}

/// Rows, each with the version of the commit that wrote it.
type VersionedRows = BTreeMap<Key, (Value, Version)>;

/// What a client knows of its keys.
#[derive(Clone, Debug, Default)]
struct Model {
    rows: VersionedRows,
    /// The version of the last commit that changed them, and the rows before it.
    changed: Option<(Version, VersionedRows)>,
    marker: Option<Value>,
    attempts: u64,
    tally: Tally,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    committed: u64,
    refused: u64,
    unknown: u64,
    given_up: u64,
    /// Reads and writes in programs that came to their end, each compared.
    operations: u64,
}

/// Where the versionstamp begins in a marker's value: after the number of its attempt.
const STAMP_OFFSET: usize = 8;

impl ApiModel {
    /// A workload of which nothing was done yet.
    pub fn new(settings: ApiModelSettings) -> ApiModel {
        ApiModel { settings, models: Mutex::default() }
    }

    fn keyspace(&self, client: u32) -> Keyspace {
        let ApiModelSettings { keys, value_bytes, edges, .. } = self.settings;
        let at_edge = Keyspace::at_edge(client, value_bytes).filter(|_| edges);
        at_edge.unwrap_or_else(|| Keyspace::new(client, keys, value_bytes))
    }

    async fn work(&self, client: &Client, model: &mut Model) -> Result<()> {
        let keys = self.keyspace(client.number);
        while !client.is_stopped() {
            let program = keys.program(&program::as_seen(&model.rows), self.settings.steps);
            let done = match draw(8) {
                0 => self.give_up(client, model, &program).await,
                1 => self.look_back(client, model, &program).await,
                2 | 3 => self.run_transaction(client, model, &program).await,
                _ => self.attempt(client, model, &program).await,
            };
            match done {
                Err(error) if passing(&error).is_some() => support::pause().await,
                Err(error) => return Err(error.context(format!("{program:?}"))),
                Ok(()) => {
                    model.tally.operations += program.operations();
                    if one_in(4) {
                        self.compare(client, client.number, model).await?;
                    }
                }
            }
            if self.settings.rest_ms > 0 {
                runtime::sleep(runtime::jitter(Duration::from_millis(self.settings.rest_ms))).await;
            }
        }
        Ok(())
    }

    /// One transaction whose fate the client finds out by the marker.
    async fn attempt(&self, client: &Client, model: &mut Model, program: &Program) -> Result<()> {
        let transaction = client.database.transaction();
        if one_in(4) {
            transaction.set_option(TransactionOption::ReportConflicts)?;
        }
        program.prepare(&transaction)?;
        let done = program.run(&transaction, &program::as_seen(&model.rows)).await?;
        let key = marker_key(client.number);
        // A key that begins with a stamp hides whatever a stamp can be at least: all keys of all clients.
        let expected = (!done.hides(&key)).then_some(&model.marker);
        let marker = program::readable(transaction.snapshot().get(&key).await)?;
        ensure!(
            marker.as_ref() == expected,
            "the marker is {marker:?}, it was {:?}, expected is {expected:?} (I-2, I-15)",
            model.marker
        );
        let writes = done.writes;
        // What keeps this attempt out once the marker was overwritten.
        transaction.add_read_conflict_range(KeyRange::single(&key))?;
        model.attempts += 1;
        let attempt = model.attempts;
        set_marker(&transaction, client.number, attempt)?;
        let promised = transaction.versionstamp();
        match fate(transaction.commit().await)? {
            Fate::Committed(committed) => {
                let stamp = committed.versionstamp.context("a commit that wrote has a stamp")?;
                let promised = promised.await?;
                ensure!(promised == stamp, "the versionstamp was to be {promised}, it is {stamp}");
                check_ended(&transaction, stamp).await?;
                model.on_committed(attempt, &writes, stamp);
            }
            Fate::Refused(_) => model.tally.refused += 1,
            Fate::Unknown => {
                model.tally.unknown += 1;
                if let Some(stamp) = self.find_out(client, model, attempt).await? {
                    model.on_committed(attempt, &writes, stamp);
                }
            }
        }
        Ok(())
    }

    /// Whether an attempt that got no answer took effect; if not it never will.
    async fn find_out(
        &self,
        client: &Client,
        model: &mut Model,
        attempt: u64,
    ) -> Result<Option<Versionstamp>> {
        let key = marker_key(client.number);
        let mut overwriting = Vec::new();
        let mut hopeless = 0;
        loop {
            let transaction = client.database.transaction();
            let found = match transaction.get(&key).await {
                Ok(found) => found,
                Err(error) if support::passes(&error) => {
                    hopeless += u32::from(client.is_stopped());
                    ensure!(hopeless < 2_000, "the marker cannot be read: {error}");
                    support::pause().await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let holder = found.as_ref().map(parse_marker).transpose()?;
            match holder {
                Some((holder, stamp)) if holder == attempt => return Ok(Some(stamp)),
                Some((holder, _)) if overwriting.contains(&holder) => {
                    model.marker = found;
                    return Ok(None);
                }
                _ => ensure!(
                    found == model.marker,
                    "the marker is {holder:?}, not of {attempt}, not {:?} (I-12)",
                    model.marker
                ),
            }
            model.attempts += 1;
            overwriting.push(model.attempts);
            set_marker(&transaction, client.number, model.attempts)?;
            match fate(transaction.commit().await)? {
                // It is read once more, for its versionstamp.
                Fate::Committed(_) => {}
                Fate::Refused(_) | Fate::Unknown => support::pause().await,
            }
        }
    }

    /// One transaction that takes effect exactly once, whatever happens.
    async fn run_transaction(
        &self,
        client: &Client,
        model: &mut Model,
        program: &Program,
    ) -> Result<()> {
        let rows = &program::as_seen(&model.rows);
        let (writes, transaction) =
            support::run(client, "a transaction", |transaction| async move {
                program.prepare(&transaction)?;
                let done = program.run(&transaction, rows).await?;
                Ok((done.writes, transaction))
            })
            .await?;
        let committed = transaction.committed().context("a committed transaction knows it")?;
        match committed.versionstamp {
            Some(stamp) => model.apply(&writes, stamp),
            None => ensure!(
                writes.iter().all(clears_nothing),
                "writes were committed without a versionstamp: {writes:?}"
            ),
        }
        Ok(())
    }

    /// A transaction that is not committed: it leaves nothing, whichever way it ends.
    async fn give_up(&self, client: &Client, model: &mut Model, program: &Program) -> Result<()> {
        let rows = program::as_seen(&model.rows);
        let transaction = client.database.transaction();
        program.prepare(&transaction)?;
        program.run(&transaction, &rows).await?;
        model.tally.given_up += 1;
        if one_in(2) {
            transaction.cancel();
            let key = marker_key(client.number);
            let codes = [
                transaction.get(&key).await.err(),
                transaction.set(&key, "").err(),
                transaction.commit().await.err(),
            ];
            for code in codes.map(|error| error.map(|error| error.code())) {
                let cancelled = Some(ErrorCode::TransactionCancelled);
                ensure!(code == cancelled, "a cancelled transaction went on: {code:?}");
            }
        }
        transaction.reset();
        let size = transaction.approximate_size();
        ensure!(size == 0, "a transaction that was reset still has {size} bytes");
        // Its own writes are forgotten.
        let next = self.keyspace(client.number).program(&rows, self.settings.steps);
        next.prepare(&transaction)?;
        next.run(&transaction, &rows).await?;
        Ok(())
    }

    /// Reads at the version of the last change, or right before it.
    async fn look_back(&self, client: &Client, model: &Model, program: &Program) -> Result<()> {
        let Some((version, before)) = &model.changed else { return Ok(()) };
        let transaction = client.database.transaction();
        program.prepare(&transaction)?;
        let rows = if one_in(2) {
            transaction.set_read_version(*version)?;
            &model.rows
        } else {
            transaction.set_read_version(version.saturating_sub(1))?;
            before
        };
        program.run(&transaction, &program::as_seen(rows)).await?;
        Ok(())
    }

    /// Compares all keys of a client with its map.
    async fn compare(&self, client: &Client, number: u32, model: &Model) -> Result<()> {
        let range = &self.keyspace(number).all();
        let found =
            persist(client, "comparing all keys", || support::read_all(&client.database, range));
        check_rows(&found.await?, model)
    }
}

/// Compares all rows with what the client knows.
///
/// # Errors
///
/// The first difference.
fn check_rows(found: &BTreeMap<Key, Value>, model: &Model) -> Result<()> {
    for (key, (value, version)) in &model.rows {
        match found.get(key) {
            None => bail!("{key} is gone, it was written at {version} (I-5)"),
            Some(other) if other != value => {
                bail!("{key} is {other:?}, {value:?} was written at {version} (I-2)")
            }
            Some(_) => {}
        }
    }
    let foreign = found.iter().find(|(key, _)| !model.rows.contains_key(*key));
    ensure!(foreign.is_none(), "a row that nobody wrote, or that was cleared: {foreign:?} (I-12)");
    Ok(())
}

/// A transaction that was committed knows it, and can be used no more.
async fn check_ended(transaction: &Transaction, stamp: Versionstamp) -> Result<()> {
    let version = transaction.committed_version();
    ensure!(version == Some(stamp.commit_version), "committed at {stamp}, it says {version:?}");
    let used = transaction.set("api_model/never", "").err().map(|error| error.code());
    ensure!(used == Some(ErrorCode::UsedDuringCommit), "a committed transaction took a write");
    let used = transaction.get("api_model/never").await.err().map(|error| error.code());
    ensure!(used == Some(ErrorCode::UsedDuringCommit), "a committed transaction was read in");
    Ok(())
}

/// Whether a write clears a range without keys.
fn clears_nothing(write: &Mutation) -> bool {
    matches!(write, Mutation::ClearRange { range } if range.is_empty())
}

fn marker_key(client: u32) -> Key {
    format!("api_model/marker/{client:03}").into()
}

fn set_marker(transaction: &Transaction, client: u32, attempt: u64) -> Result<()> {
    let mut value = attempt.to_be_bytes().to_vec();
    value.resize(STAMP_OFFSET + Versionstamp::LEN, 0);
    transaction.set_versionstamped_value(marker_key(client), value, STAMP_OFFSET as u32)?;
    Ok(())
}

/// The attempt that set a marker, and its versionstamp.
fn parse_marker(value: &Value) -> Result<(u64, Versionstamp)> {
    let (attempt, stamp) = value.split_at_checked(STAMP_OFFSET).context("a marker is cut short")?;
    Ok((u64::from_be_bytes(attempt.try_into()?), Versionstamp::from_bytes(stamp.try_into()?)))
}

impl Model {
    /// An attempt took effect.
    fn on_committed(&mut self, attempt: u64, writes: &[Mutation], stamp: Versionstamp) {
        let mut marker = attempt.to_be_bytes().to_vec();
        marker.extend_from_slice(&stamp.to_bytes());
        self.marker = Some(marker.into());
        self.apply(writes, stamp);
    }

    fn apply(&mut self, writes: &[Mutation], stamp: Versionstamp) {
        self.changed = Some((stamp.commit_version, self.rows.clone()));
        for write in writes {
            atomic_model::apply_mutation(&mut self.rows, write, stamp, &stamp.commit_version);
        }
        self.tally.committed += 1;
    }
}

impl Workload for ApiModel {
    fn name(&self) -> &str {
        "api_model"
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
            client.note(format_args!("api_model {} {:?}", client.number, model.tally));
            self.models.lock().insert(client.number, model);
            Ok(())
        }
        .boxed()
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        async move {
            let models = self.models.lock().clone();
            let mut total = Tally::default();
            for (&number, model) in &models {
                self.compare(&client, number, model).await?;
                total.committed += model.tally.committed;
                total.refused += model.tally.refused;
                total.unknown += model.tally.unknown;
                total.given_up += model.tally.given_up;
                total.operations += model.tally.operations;
            }
            ensure!(total.committed > 0, "no transaction was committed");
            Ok(format!("{total:?}"))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::contents::{Contents, Point};

    fn stamp(version: u64) -> Versionstamp {
        Versionstamp { commit_version: Version(version), batch_index: 1 }
    }

    fn model() -> Model {
        let mut model = Model::default();
        let set = |key: &str, value: &str| Mutation::Set { key: key.into(), value: value.into() };
        model.on_committed(1, &[set("a", "1"), set("b", "2")], stamp(40));
        model.on_committed(2, &[set("b", "3")], stamp(50));
        model
    }

    #[test]
    fn rows_that_differ_from_the_map_are_noticed() {
        let model = model();
        let rows = |rows: &[(&str, &str)]| -> BTreeMap<Key, Value> {
            rows.iter().map(|&(key, value)| (key.into(), value.into())).collect()
        };
        check_rows(&rows(&[("a", "1"), ("b", "3")]), &model).unwrap();
        let complaint =
            |found: &[(&str, &str)]| check_rows(&rows(found), &model).unwrap_err().to_string();
        assert!(complaint(&[("a", "1")]).contains("b is gone"));
        assert!(complaint(&[("a", "1"), ("b", "2")]).contains("b is '2', '3' was written at 50"));
        assert!(complaint(&[("a", "1"), ("b", "3"), ("c", "")]).contains("nobody wrote"));
    }

    #[test]
    fn answers_that_differ_from_the_map_are_noticed() {
        use ferrisdb_client::RangeQuery;
        let sees = Contents::new(program::as_seen(&model().rows));
        let point = sees.point(&"b".into());
        program::check_point(&"b".into(), &point, &point).unwrap();
        let stale = Point::Found(Some(("2".into(), Some(Version(40)))));
        assert!(program::check_point(&"b".into(), &stale, &point).is_err());
        let wrong_version = Point::Found(Some(("3".into(), Some(Version(40)))));
        assert!(program::check_point(&"b".into(), &wrong_version, &point).is_err());

        let query = RangeQuery::from("a".."z").rows(1);
        let expected = sees.range(&query);
        let (rows, more) = expected.clone().unwrap();
        program::check_range(&query, &Some((rows.clone(), Some(more))), &expected).unwrap();
        for wrong in [None, Some((Vec::new(), Some(more))), Some((rows, Some(!more)))] {
            assert!(program::check_range(&query, &wrong, &expected).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn markers_name_their_attempt() {
        let model = model();
        assert_eq!(parse_marker(model.marker.as_ref().unwrap()).unwrap(), (2, stamp(50)));
        assert!(parse_marker(&"short".into()).is_err());
    }
}
