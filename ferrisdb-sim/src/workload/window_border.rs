//! Reads and commits at the border of the window, at versions that are set by hand.
//!
//! ```text
//!                     the border                                    now
//!   ----- too old -------|---- written here ---------------------------|
//!                      ^   ^
//!       read versions: just before and just after a key was written, and the border near it
//! ```
//!
//! Each client writes keys of its own, so it knows what every version of them holds, and that nobody else has written them. A
//! while later, when a write is about to leave the window, a transaction reads its key at a version right before it, or right
//! after it. It may be told that this is too old; but what it is shown must be right (I-2), and it must never be committed over
//! the write (I-4): for that, resolvers and storage servers have to refuse at the very border up to which they remember.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use ferrisdb_client::{ErrorCode, Key, Transaction, Value, Version};
use ferrisdb_core::{limits, runtime};
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    support::{Fate, draw, fate, one_in, passes, pause},
};

/// The size of a [`WindowBorder`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowBorderSettings {
    /// How many clients work at once.
    pub clients: u32,
    /// How long a transaction may last: what the cluster was told.
    pub window_ms: u64,
}

impl Default for WindowBorderSettings {
    fn default() -> WindowBorderSettings {
        WindowBorderSettings { clients: 3, window_ms: 5_000 }
    }
}

/// The border: see the module.
pub struct WindowBorder {
    settings: WindowBorderSettings,
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    reads: u64,
    committed: u64,
    conflicts: u64,
    too_old: u64,
}

/// Keys that a client writes in turn.
const SLOTS: usize = 12;

/// What one client has written.
#[derive(Default)]
struct Written {
    /// A key whose last write has an unknown result is not used any more: another one takes its place.
    lives: [u32; SLOTS],
    /// The values of each key, by the version that wrote them.
    values: BTreeMap<Key, BTreeMap<Version, u64>>,
    /// All writes, by version.
    writes: BTreeMap<Version, Key>,
    next: u64,
}

impl Written {
    /// The value of a key at a version.
    fn value_at(&self, key: &Key, version: Version) -> Option<u64> {
        let values = self.values.get(key)?;
        values.range(..=version).next_back().map(|(_, value)| *value)
    }

    /// Whether a key was written after a version.
    fn is_written_after(&self, key: &Key, version: Version) -> bool {
        self.values.get(key).is_some_and(|values| values.range(version.next()..).next().is_some())
    }
}

impl WindowBorder {
    /// A border that nobody has been at.
    pub fn new(settings: WindowBorderSettings) -> WindowBorder {
        WindowBorder { settings, counts: Mutex::default() }
    }

    fn window(&self) -> u64 {
        self.settings.window_ms * limits::VERSIONS_PER_SECOND / 1_000
    }

    async fn write(&self, client: &Client, written: &mut Written) -> Result<()> {
        let slot = draw(SLOTS);
        let (number, life) = (client.number, written.lives[slot]);
        let key = Key::from(format!("window_border/{number}/{slot:02}/{life}"));
        written.next += 1;
        let value = written.next;
        let transaction = client.database.transaction();
        transaction.set(key.clone(), Value::from(&value.to_be_bytes()))?;
        match fate(transaction.commit().await)? {
            Fate::Committed(committed) => {
                written.values.entry(key.clone()).or_default().insert(committed.version, value);
                written.writes.insert(committed.version, key);
            }
            Fate::Refused(_) => {}
            Fate::Unknown => {
                written.lives[slot] += 1;
                written.values.remove(&key);
                written.writes.retain(|_, written| *written != key);
            }
        }
        Ok(())
    }

    /// Goes where a write is about to leave the window.
    async fn probe(&self, client: &Client, written: &Written) -> Result<()> {
        let window = self.window();
        let now = match client.database.transaction().read_version().await {
            Ok(version) => version,
            Err(error) if passes(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let border = now.saturating_sub(window);
        let near = border.saturating_sub(window / 100)..=border.saturating_add(window / 40);
        let near: Vec<_> = written.writes.range(near).collect();
        if near.is_empty() {
            return Ok(());
        }
        let (version, key) = near[draw(near.len())];
        let read_version = match draw(3) {
            0 => *version,
            1 => Version(version.0 - 1),
            _ => version.saturating_sub(draw(window as usize / 50) as u64),
        };
        let transaction = client.database.transaction();
        transaction.set_read_version(read_version)?;
        if one_in(2) {
            transaction.add_read_conflict_key(key.clone())?;
        } else if !self.read(&transaction, key, read_version, written).await? {
            return Ok(());
        }
        transaction.set(format!("window_border/{}/probe", client.number), "was here")?;
        match transaction.commit().await {
            Ok(committed) => {
                ensure!(
                    !written.is_written_after(key, read_version),
                    "{key} was read at {read_version} and written since, and the transaction was committed at {} (I-4)",
                    committed.version
                );
                self.counts.lock().committed += 1;
            }
            Err(error) if error.code() == ErrorCode::NotCommitted => {
                ensure!(
                    written.is_written_after(key, read_version),
                    "{key} was read at {read_version} and not written since, and that conflicts (I-15)"
                );
                self.counts.lock().conflicts += 1;
            }
            Err(error) if error.code() == ErrorCode::TransactionTooOld => {
                self.counts.lock().too_old += 1;
            }
            Err(error) if error.is_maybe_committed() || passes(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads a key and compares it. Whether there was an answer.
    async fn read(
        &self,
        transaction: &Transaction,
        key: &Key,
        read_version: Version,
        written: &Written,
    ) -> Result<bool> {
        match transaction.get(key.clone()).await {
            Ok(found) => {
                let expected = written.value_at(key, read_version);
                let expected = expected.map(|value| Value::from(&value.to_be_bytes()));
                ensure!(
                    found == expected,
                    "{key} at {read_version} is {found:?}, not {expected:?} (I-2)"
                );
                self.counts.lock().reads += 1;
                Ok(true)
            }
            Err(error) if error.code() == ErrorCode::TransactionTooOld => {
                self.counts.lock().too_old += 1;
                Ok(false)
            }
            Err(error) if passes(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Workload for WindowBorder {
    fn name(&self) -> &str {
        "window_border"
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _: Client) -> BoxFuture<'_, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut written = Written::default();
            while !client.is_stopped() {
                self.write(&client, &mut written).await?;
                self.probe(&client, &written).await?;
                match one_in(50) {
                    true => runtime::sleep(Duration::from_millis(self.settings.window_ms)).await,
                    false => pause().await,
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, _: Client) -> BoxFuture<'_, Result<String>> {
        async {
            let Counts { reads, committed, conflicts, too_old } = *self.counts.lock();
            Ok(format!(
                "{reads} reads at the border, {committed} commits, {conflicts} conflicts, {too_old} too old"
            ))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_holds_is_known() {
        let key = Key::from("k");
        let mut written = Written::default();
        written.values.insert(key.clone(), BTreeMap::from([(Version(10), 1), (Version(20), 2)]));
        let at = |version| written.value_at(&key, Version(version));
        assert_eq!([at(9), at(10), at(19), at(20)], [None, Some(1), Some(1), Some(2)]);
        assert!(written.is_written_after(&key, Version(19)));
        assert!(!written.is_written_after(&key, Version(20)));
    }
}
