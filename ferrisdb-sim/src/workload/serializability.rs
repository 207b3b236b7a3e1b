//! Random transactions over a few keys, all recorded: the order that the database gives must explain everything.
//!
//! ```text
//!   serializability/k/0003        a key among few, so that everything conflicts with everything
//!   serializability/s/<stamp>..   keys with versionstamps in them
//!
//!   a transaction, some steps of:
//!     get, get_range up and down, with limits of rows and bytes, each also as a snapshot; two reads at once
//!     set, clear, clear_range, every atomic operation, versionstamped keys and values
//!     conflict ranges that are neither read nor written
//!                     |
//!                  History --> checker::serializability::check
//! ```
//!
//! A transaction is one attempt: it is not tried again, and the history finds out what became of those of unknown
//! fate. Now and then one waits before it goes on, up to the end of the window of versions.
//!
//! In the flavour of [`Flavour::RangeClears`] nearly everything is a clear or a read of a range, and ranges
//! overlap: that is where an interval that is cut, merged or forgotten shows. The two are of different name, so
//! that both can run on one cluster.
//!
//! Start with [`Serializability::attempt`].

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrisdb_client::{Database, Error, ErrorCode, RangeQuery, Versionstamp};
use ferrisdb_core::{Key, KeyRange, Value, atomic::AtomicOp, runtime};
use futures::future::BoxFuture;
use serde::Deserialize;

use super::{
    Client, Workload,
    common::{draw, explained, once_in, pause},
};
use crate::{
    checker::serializability,
    history::{History, Recorder},
};

/// What transactions mostly do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flavour {
    /// A little of everything.
    #[default]
    Everything,
    /// Clears and reads of ranges.
    RangeClears,
}

/// The size of a [`Serializability`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SerializabilitySettings {
    /// What transactions mostly do.
    pub flavour: Flavour,
    /// How many clients there are.
    pub clients: u32,
    /// How many keys they share. The fewer, the more conflicts.
    pub keys: u32,
    /// Most keys of a range.
    pub range_keys_max: u32,
    /// Most steps of a transaction.
    pub steps_max: u32,
    /// Most bytes of a value that is set.
    pub value_bytes_max: u32,
    /// How long a client rests between two transactions, about, in milliseconds.
    pub rest_ms: u64,
    /// A transaction waits inside, for seconds, once in so many times.
    pub linger_once_in: u32,
}

impl Default for SerializabilitySettings {
    fn default() -> SerializabilitySettings {
        SerializabilitySettings {
            flavour: Flavour::Everything,
            clients: 6,
            keys: 24,
            range_keys_max: 8,
            steps_max: 6,
            value_bytes_max: 24,
            rest_ms: 4,
            linger_once_in: 400,
        }
    }
}

/// Random transactions and their history: see the module.
pub struct Serializability {
    settings: SerializabilitySettings,
    history: History,
}

/// The longest that a transaction waits inside: past the window of versions.
const LINGER: Duration = Duration::from_secs(4);

impl Serializability {
    /// A key space in which nothing has happened yet.
    pub fn new(settings: SerializabilitySettings) -> Serializability {
        let name = name(settings.flavour);
        let tracked = KeyRange::prefix(format!("{name}/").as_bytes());
        Serializability { settings, history: History::new(name, [tracked]) }
    }

    /// The recorded history, to be looked into.
    pub fn history(&self) -> &History {
        &self.history
    }

    fn key(&self, number: u32) -> Key {
        Key::from(format!("{}/k/{number:04}", name(self.settings.flavour)))
    }

    fn draw_key(&self) -> Key {
        self.key(draw(self.settings.keys))
    }

    /// Mostly short, now and then everything, seldom nothing.
    fn draw_range(&self) -> KeyRange {
        let keys = self.settings.keys;
        if once_in(10) {
            return KeyRange::prefix(format!("{}/k/", name(self.settings.flavour)).as_bytes());
        }
        let begin = draw(keys);
        let count = draw(self.settings.range_keys_max + 1);
        KeyRange::new(self.key(begin), self.key(begin + count))
    }

    fn stamps(&self) -> KeyRange {
        KeyRange::prefix(format!("{}/s/", name(self.settings.flavour)).as_bytes())
    }

    fn draw_query(&self, range: KeyRange) -> RangeQuery {
        let mut query = RangeQuery::from(range);
        query.reverse = once_in(2);
        if once_in(3) {
            query.rows_max = Some(1 + draw(5) as usize);
        }
        if once_in(5) {
            query.bytes_max = Some(1 + draw(120) as usize);
        }
        query
    }

    /// Bytes of which each attempt has its own, so that it shows who wrote them.
    fn draw_value(&self, recorder: &Recorder, step: u32) -> Value {
        let mut bytes = format!("{}.{step}", recorder.number()).into_bytes();
        let filling = draw(self.settings.value_bytes_max + 1) as usize;
        bytes.resize(bytes.len().max(filling), b'.');
        Value::from(bytes)
    }

    /// One attempt of one transaction, up to its commit or its first error.
    async fn attempt(&self, database: &Database, client: &str) -> Result<()> {
        let recorder = self.history.begin(database, client)?;
        let only_reads = once_in(4);
        for step in 0..1 + draw(self.settings.steps_max) {
            if once_in(self.settings.linger_once_in.max(1) * self.settings.steps_max.max(1)) {
                runtime::sleep(runtime::jitter(LINGER)).await;
            }
            let outcome = match only_reads {
                true => self.read(&recorder).await,
                false => self.step(&recorder, step).await,
            };
            if let Err(error) = outcome {
                // Whoever has written with a versionstamp cannot read there before the commit.
                let is_unreadable = error.code() == ErrorCode::AccessedUnreadable;
                ensure!(!is_unreadable || recorder.is_stamped(), "nothing is unreadable: {error}");
                return if is_unreadable { Ok(()) } else { Err(error.into()) };
            }
        }
        recorder.commit().await?;
        Ok(())
    }

    async fn step(&self, recorder: &Recorder, step: u32) -> Result<(), Error> {
        let choice = match self.settings.flavour {
            Flavour::Everything => draw(24),
            // Ranges are cleared, keys are set, ranges are read; the rest is rare.
            Flavour::RangeClears => match draw(10) {
                0..=2 => return recorder.clear_range(self.draw_range()),
                3..=5 => 10,
                6 | 7 => return self.read_some(recorder, self.draw_range()).await,
                8 => 0,
                _ => draw(24),
            },
        };
        match choice {
            0..=9 => self.read(recorder).await,
            10..=12 => recorder.set(self.draw_key(), self.draw_value(recorder, step)),
            13 => recorder.clear(self.draw_key()),
            14 | 15 => recorder.clear_range(self.draw_range()),
            16..=18 => {
                let op = AtomicOp::ALL[draw(AtomicOp::ALL.len() as u32) as usize];
                recorder.atomic(op, self.draw_key(), draw_operand())
            }
            19 => {
                let mut key = self.stamps().begin.to_vec();
                let offset = u32::try_from(key.len()).unwrap_or_default();
                key.extend([0; Versionstamp::LEN]);
                // One transaction may have several.
                key.extend(format!("/{step}").bytes());
                recorder.set_versionstamped_key(key, offset, self.draw_value(recorder, step))
            }
            20 => {
                let value = [&b"at "[..], &[0; Versionstamp::LEN], b"."].concat();
                recorder.set_versionstamped_value(self.draw_key(), value, 3)
            }
            21 => recorder.add_read_conflict_range(self.draw_range()).await,
            22 => recorder.add_write_conflict_range(self.draw_range()),
            // So that the keys with versionstamps do not become too many.
            _ if once_in(4) => recorder.clear_range(self.stamps()),
            _ => self.read(recorder).await,
        }
    }

    async fn read(&self, recorder: &Recorder) -> Result<(), Error> {
        match draw(12) {
            0..=3 => recorder.get(self.draw_key()).await.map(|_| ()),
            4 => recorder.get_snapshot(self.draw_key()).await.map(|_| ()),
            5 | 6 => {
                let (one, other) = (self.draw_key(), self.draw_range());
                let both = futures::future::try_join(
                    recorder.get(one),
                    recorder.get_range(self.draw_query(other)),
                );
                both.await.map(|_| ())
            }
            7 => self.read_some(recorder, self.stamps()).await,
            _ => self.read_some(recorder, self.draw_range()).await,
        }
    }

    async fn read_some(&self, recorder: &Recorder, range: KeyRange) -> Result<(), Error> {
        let query = self.draw_query(range);
        match once_in(4) {
            true => recorder.get_range_snapshot(query).await.map(|_| ()),
            false => recorder.get_range(query).await.map(|_| ()),
        }
    }
}

fn name(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Everything => "serializability",
        Flavour::RangeClears => "range_clears",
    }
}

/// A few bytes, also none.
fn draw_operand() -> Value {
    let bytes = runtime::random_u64().to_le_bytes();
    Value::from(&bytes[..draw(9) as usize])
}

impl Workload for Serializability {
    fn name(&self) -> &str {
        name(self.settings.flavour)
    }

    fn cuts(&self) -> Vec<Key> {
        let keys = self.settings.keys;
        [1, 2, 3].map(|quarter| self.key(quarter * keys / 4)).to_vec()
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let name = format!("c{}", client.number);
            while !client.is_stopped() && !self.history.is_full() {
                if let Err(error) = self.attempt(&client.database, &name).await {
                    let error = explained(error)?;
                    if error.code() != ErrorCode::NotCommitted {
                        pause().await;
                    }
                }
                runtime::sleep(runtime::jitter(Duration::from_millis(self.settings.rest_ms))).await;
            }
            Ok(())
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let recorded = self.history.conclude(&client.database).await?;
            let verdict = serializability::check(&recorded)?;
            Ok(format!("{verdict:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ranges_are_never_inverted_and_names_differ() {
        let new = |flavour| {
            Serializability::new(SerializabilitySettings { flavour, ..Default::default() })
        };
        let both = [new(Flavour::Everything), new(Flavour::RangeClears)];
        for workload in &both {
            let prefix = KeyRange::prefix(format!("{}/", workload.name()).as_bytes());
            for _ in 0..1_000 {
                let range = workload.draw_range();
                assert!(range.begin <= range.end, "{range}");
                assert!(prefix.contains(&range.begin) && range.end <= prefix.end, "{range}");
            }
        }
        assert_ne!(both[0].name(), both[1].name());
    }
}
