//! A conflict is reported exactly when there is one.
//!
//! ```text
//!   keys        k0    k1    k2           each key and each gap between two is one piece of the keyspace
//!   pieces     |0|.1.|2|.3.|4|.5..
//!
//!   A begins    reads the first row of k0..k9: finds k1           observes pieces 0 1 2
//!   B begins    clears k2..k9, commits                            writes pieces 4 5 ...
//!   A sets k0   commits: must succeed. Had B cleared from k1\0 on, too; from k1 on it must conflict
//! ```
//!
//! One client drives several transactions of its own by turns and knows what is in its keys, so that it knows what
//! each read must find, which pieces it observed (I-15), and which were written since the transaction began.
//! Whoever observed such a piece must get `not_committed`, everybody else must be committed.
//!
//! A transaction that was refused leaves its writes in the resolvers that had nothing against it, which is no defect: whoever
//! observes them conflicts. The client knows where resolvers meet, among its keys, and so it knows which.
//!
//! ```text
//!   resolvers   |------ 0 ------|---- 1 ----     C is refused, because of what it read of piece 0
//!   C writes           2             5           left: piece 5, as resolver 1 has accepted it
//! ```
//!
//! Two things are in doubt. What a read between selectors has looked at is known up to what FoundationDB would count only.
//! And a commit may get no answer: the round ends there and is not counted. All transactions read the client's epoch, so that
//! writing it keeps out what is under way.
//!
//! The keyspace in pieces is in `pieces.rs`, a transaction under way in `actor.rs`, how its commit must end in `verdict.rs`;
//! keys that get versionstamps have rounds of their own, in `stamped.rs`.
//!
//! Start with [`ConflictRanges::round`], then [`Round::verdict`].

mod actor;
mod pieces;
mod stamped;
mod verdict;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{Committed, Error, ErrorCode, Key, KeyRange, Value, Versionstamp};
use ferrisdb_core::Mutation;
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Deserialize;

use self::{
    actor::Actor,
    pieces::{Map, Pieces},
    stamped::{stamped_prefix, stamped_round},
    verdict::{Entry, Round, Verdict, check_verdict},
};
use super::{
    Client, Workload, atomic_model,
    support::{self, Fate, draw, fate, one_in, passing, persist},
};

/// How much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConflictRangesSettings {
    /// Keys of each client; at most 30.
    pub keys: u32,
    /// How many clients, each with keys of its own.
    pub clients: u32,
    /// Most transactions at a time.
    pub transactions: u32,
    /// Most steps of each.
    pub steps: u32,
    /// Whether the first two clients have the edges of the keyspace, in the place of keys below the workload's name.
    pub edges: bool,
}

impl Default for ConflictRangesSettings {
    fn default() -> Self {
        ConflictRangesSettings { keys: 10, clients: 2, transactions: 4, steps: 5, edges: false }
    }
}

/// The workload.
pub struct ConflictRanges {
    settings: ConflictRangesSettings,
    total: Mutex<Tally>,
    /// What the clients' keys held in the end.
    ended: Mutex<BTreeMap<u32, BTreeMap<Key, Value>>>,
}

/// How many commits there were of each kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    committed: u64,
    conflicts: u64,
    allowed_conflicts: u64,
    /// Refused transactions that have left writes in another resolver.
    left_behind: u64,
    skipped: u64,
}

impl ConflictRanges {
    /// A workload of which nothing was done yet.
    pub fn new(settings: ConflictRangesSettings) -> ConflictRanges {
        ConflictRanges { settings, total: Mutex::default(), ended: Mutex::default() }
    }

    async fn work(&self, client: &Client) -> Result<()> {
        let map = Map::new(client.number, &self.settings, &client.resolver_boundaries);
        let mut rows = self.begin_epoch(client, &map).await?;
        let mut late = 0;
        while !client.is_stopped() {
            let is_clear = if one_in(10) {
                stamped_round(client, &self.total).await.map(|()| true)
            } else {
                self.round(client, &map, &mut rows, &mut late).await
            };
            match is_clear {
                Ok(true) => {}
                Ok(false) => {
                    self.total.lock().skipped += 1;
                    rows = self.begin_epoch(client, &map).await?;
                }
                Err(error) if passing(&error).is_some() => {
                    self.total.lock().skipped += 1;
                    support::pause().await;
                }
                Err(error) => return Err(error),
            }
        }
        self.ended.lock().insert(client.number, rows);
        Ok(())
    }

    /// Several transactions by turns. Returns whether everything is known that happened.
    async fn round(
        &self,
        client: &Client,
        map: &Map,
        rows: &mut BTreeMap<Key, Value>,
        late: &mut Pieces,
    ) -> Result<bool> {
        let mut round = Round { log: Vec::new(), late: *late };
        let count = 2 + draw(self.settings.transactions.max(2) as usize - 1);
        let mut actors: Vec<Option<Actor>> = (0..count).map(|_| None).collect();
        let mut waiting: Vec<usize> = (0..count).collect();
        while !waiting.is_empty() {
            let place = draw(waiting.len());
            let actor = &mut actors[waiting[place]];
            let done = match actor {
                None => match self.begin(client, rows, &round).await {
                    Ok(begun) => {
                        *actor = Some(begun);
                        Ok(false)
                    }
                    Err(error) => Err(error),
                },
                Some(actor) if actor.steps_left > 0 => {
                    actor.steps_left -= 1;
                    actor.step(map).await.map(|()| false)
                }
                Some(actor) => match self.commit(map, actor, &mut round, rows).await {
                    Ok(true) => Ok(true),
                    Ok(false) => {
                        *late |= actor.written;
                        return Ok(false);
                    }
                    Err(error) => Err(error),
                },
            };
            match done {
                Ok(false) => {}
                Ok(true) => {
                    waiting.swap_remove(place);
                }
                // It has not committed and will not: the others go on.
                Err(error) if passing(&error).is_some() => {
                    self.total.lock().skipped += 1;
                    waiting.swap_remove(place);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Commits, and compares the end with what it must be. Returns whether the fate is known.
    async fn commit(
        &self,
        map: &Map,
        actor: &Actor,
        round: &mut Round,
        rows: &mut BTreeMap<Key, Value>,
    ) -> Result<bool> {
        let is_empty = !actor.has_written && actor.written == 0;
        let verdict = round.verdict(actor.began, actor.observed, actor.looked_at, is_empty);
        let ended = actor.transaction.commit().await;
        let about = |took_effect: bool| {
            check_verdict(verdict, !took_effect)
                .with_context(|| {
                    let Actor { observed, looked_at, began, reads, .. } = &actor;
                    format!("observed {observed:b}, perhaps {looked_at:b}, from {began} on, of {:x?}, by {reads:?}", round.log)
                })
        };
        match fate(ended)? {
            Fate::Committed(committed) => {
                about(true)?;
                self.total.lock().committed += 1;
                if !is_empty {
                    apply(rows, &actor.writes, committed)?;
                    round.log.push(Entry { left: actor.written, in_doubt: 0 });
                }
            }
            Fate::Refused(error) if is_conflict(&error) => {
                about(false)?;
                if actor.reports {
                    let conflicts = actor.transaction.conflicting_ranges();
                    let ranges: Vec<KeyRange> =
                        conflicts.into_iter().map(|conflict| conflict.range).collect();
                    round.check_report(map, actor, &ranges)?;
                }
                let mut total = self.total.lock();
                match verdict {
                    Verdict::MustConflict => total.conflicts += 1,
                    _ => total.allowed_conflicts += 1,
                }
                let entry = round.left_by_refused(map, actor);
                total.left_behind += u64::from(entry.left != 0);
                round.log.push(entry);
            }
            Fate::Refused(_) => {
                self.total.lock().skipped += 1;
                round.log.push(Entry { left: 0, in_doubt: actor.written });
            }
            Fate::Unknown => return Ok(false),
        }
        Ok(true)
    }

    /// Keeps out what may be under way, and reads what is there.
    async fn begin_epoch(&self, client: &Client, map: &Map) -> Result<BTreeMap<Key, Value>> {
        let (epoch, all) = (&epoch_key(client.number), &map.all());
        let rows = support::run(client, "an epoch", |transaction| async move {
            transaction.get(epoch).await?;
            transaction.set_versionstamped_value(epoch, vec![0; Versionstamp::LEN], 0)?;
            Ok(transaction.get_range(all).await?)
        });
        Ok(rows.await?.into_iter().map(|row| (row.key, row.value)).collect())
    }
}

fn is_conflict(error: &Error) -> bool {
    error.code() == ErrorCode::NotCommitted
}

fn epoch_key(client: u32) -> Key {
    format!("conflict_ranges/epoch/{client:03}").into()
}

/// Does what a transaction wrote to the rows.
fn apply(rows: &mut BTreeMap<Key, Value>, writes: &[Mutation], committed: Committed) -> Result<()> {
    let stamp = committed.versionstamp.context("a commit that wrote has a versionstamp")?;
    let mut marked: BTreeMap<Key, (Value, ())> =
        std::mem::take(rows).into_iter().map(|(key, value)| (key, (value, ()))).collect();
    writes.iter().for_each(|write| atomic_model::apply_mutation(&mut marked, write, stamp, &()));
    *rows = marked.into_iter().map(|(key, (value, ()))| (key, value)).collect();
    Ok(())
}

impl Workload for ConflictRanges {
    fn name(&self) -> &str {
        "conflict_ranges"
    }

    fn resolver_cuts(&self) -> Vec<Key> {
        let of_client = |client| {
            let bounds = Map::new(client, &self.settings, &[]).bounds;
            // Stamped keys lie on the other side of what they are before they get their stamps.
            let stamped = [&stamped_prefix(client)[..], &[0, 0, 0, 0, 0, 0, 0, 1]].concat();
            bounds.into_iter().chain([Key::from(stamped)])
        };
        let cuts = (0..self.settings.clients).flat_map(of_client);
        cuts.filter(|key| *key > Key::MIN && *key < Key::USER_END).collect()
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
            let ended = self.ended.lock().clone();
            for (number, rows) in ended {
                let all = &Map::new(number, &self.settings, &[]).all();
                let read = || support::read_all(&client.database, all);
                let found = persist(&client, "reading all keys", read).await?;
                ensure!(found == rows, "client {number} left {rows:?}, there is {found:?} (I-5)");
            }
            let total = *self.total.lock();
            ensure!(total.committed + total.conflicts > 0, "every commit was skipped: {total:?}");
            Ok(format!("{total:?}"))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::Version;

    use super::*;

    #[test]
    fn rows_follow_the_commits() {
        let stamp = Versionstamp { commit_version: Version(7), batch_index: 0 };
        let committed = Committed { version: Version(7), versionstamp: Some(stamp) };
        let mut rows = BTreeMap::from([("a".into(), "1".into())]);
        let writes = [Mutation::Clear { key: "a".into() }];
        apply(&mut rows, &writes, committed).unwrap();
        assert!(rows.is_empty());
    }
}
