//! Getting one version after the other from the logs, and in between pages from other servers.
//!
//! ```text
//!   next_turn --> peek --> on_peeked --> apply      what is held, into the window
//!            \--> copy --> ingest --> record        a page, into the engine
//! ```
//!
//! One task does both, one after the other: what that is good for stands in [`super::shards`]. What is asked
//! next, and of whom, is decided by [`super::machine`] and [`super::fetch`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Key, KeyRange, Mutation, Result, Stage, Value,
    mutation::{self, Item},
    runtime,
    service::{
        Client,
        log::{LogService, PeekReply},
        storage::{RangeReply, StorageService},
    },
    transport,
};

use super::{
    engine::{Engine, EngineChange, Reserve},
    fetch::{Page, Turn},
    machine::{Advance, Peek, Pull},
    server::Shared,
    serving::Serving,
    window::Lookup,
};

/// How long another server may take to send a page, the way to it included: reads of newer versions wait for it.
const PAGE_LIMIT: Duration = Duration::from_secs(1);

/// For so many atomic operations the window is asked at once.
const BASES_AT_ONCE: usize = 128;

/// Gets one version after the other from the logs, and copies what is to be copied.
pub(super) async fn pull(shared: Arc<Shared>) {
    let (mut log, mut source) = (None, None);
    if let Err(error) = shared.clear_gaps().await {
        return shared.fail(error);
    }
    loop {
        let changed = shared.sources_changed.notified();
        tokio::pin!(changed);
        // Registered before the machine is asked, so that a change in between is not missed.
        changed.as_mut().enable();
        if shared.has_failed() {
            return;
        }
        let peek_wait = match shared.next_turn() {
            Turn::Copy(page) => {
                if let Err(error) = shared.copy(&page, &mut source).await {
                    return shared.fail(error);
                }
                continue;
            }
            Turn::PeekWithin(wait) => wait.min(shared.settings.peek_wait),
            Turn::Peek => shared.settings.peek_wait,
        };
        match shared.next_pull(peek_wait) {
            Pull::Wait(None) => changed.await,
            Pull::Wait(Some(pause)) => {
                tokio::select! {
                    biased;
                    () = changed => {}
                    () = runtime::sleep(pause) => {}
                }
            }
            Pull::Peek(peek) => {
                tokio::select! {
                    biased;
                    () = changed => {}
                    reply = shared.peek(&peek, &mut log) => shared.on_peeked(&peek, reply),
                }
            }
        }
    }
}

impl Shared {
    fn next_turn(&self) -> Turn {
        let serving = self.serving.read();
        let shards = &serving.shards;
        if !shards.is_copying() {
            return Turn::Peek;
        }
        let cluster = self.view.latest();
        self.fetch.lock().next(
            runtime::now(),
            shards.parts_to_copy(),
            cluster.as_deref(),
            shards.tag(),
            serving.window.applied_version(),
        )
    }

    fn next_pull(&self, peek_wait: Duration) -> Pull {
        let mut machine = self.machine.lock();
        let window_bytes = self.serving.read().window.memory_bytes();
        let pull = machine.next_pull(window_bytes, peek_wait);
        // Who waits for a full window must not wait for the timer of flushes as well.
        if machine.is_flush_urgent(window_bytes) {
            self.flush_is_urgent.notify_one();
        }
        pull
    }

    /// Asks a log, over the connection of the last time if it was the same log.
    async fn peek(
        &self,
        peek: &Peek,
        connection: &mut Option<(Endpoint, Client<LogService>)>,
    ) -> Result<PeekReply> {
        let known = connection.take().filter(|(endpoint, _)| *endpoint == peek.endpoint);
        let client = match known {
            Some((_, client)) => client,
            None => self.network.connect::<LogService>(&peek.endpoint).await?,
        };
        let grace = self.machine.lock().peek_grace();
        let limit = Duration::from_millis(peek.request.wait_ms.into()) + grace;
        let reply =
            transport::call(limit, Stage::Log, |context| client.peek(context, peek.request))
                .await
                .map_err(|error| error.at(&peek.endpoint))?;
        // Kept only while it works: a call that was given up leaves its connection in doubt.
        *connection = Some((peek.endpoint.clone(), client));
        reply
    }

    fn on_peeked(&self, peek: &Peek, reply: Result<PeekReply>) {
        let mut machine = self.machine.lock();
        let window_bytes = self.serving.read().window.memory_bytes();
        let advance = match reply {
            Ok(reply) => machine.on_peeked(peek, reply, window_bytes),
            Err(error) => {
                machine.on_peek_failed(peek, &error);
                Ok(None)
            }
        };
        let applied = advance.and_then(|advance| {
            self.fetch.lock().on_peeked(advance.is_none());
            advance.map_or(Ok(()), |advance| self.apply(advance))
        });
        if let Err(error) = applied {
            return self.fail(error);
        }
        let window_bytes = self.serving.read().window.memory_bytes();
        if machine.is_flush_urgent(window_bytes) {
            self.flush_is_urgent.notify_one();
        }
    }

    /// Applies one version after the other; reads go on in between.
    fn apply(&self, advance: Advance) -> Result<()> {
        let _timing = self.metrics.apply.start();
        self.metrics.versions.add_len(advance.messages.len());
        for (version, message) in advance.messages {
            let items: Vec<Item> =
                mutation::decode(message).collect::<Result<_, _>>().map_err(|error| {
                    let detail = format!("the messages of version {version}: {error}");
                    Error::new(ErrorCode::Corrupt, Stage::Apply, detail)
                })?;
            let items = if planted(Plant::ApplyTwice) && version.0.is_multiple_of(16) {
                [items.clone(), items].concat()
            } else {
                items
            };
            let bases = self.read_bases(&items)?;
            let mut base = |key: &Key| match bases.get(key) {
                Some(value) => Ok(value.clone()),
                // The window has forgotten it since then, because the engine has it.
                None => self.base_value(key),
            };
            let mut serving = self.serving.write();
            let Serving { window, shards, .. } = &mut *serving;
            let mutations = shards.apply(version, items)?;
            self.metrics.mutations.add_len(mutations.len());
            let touched = self.watches.touched_by(&mutations);
            window.apply(version, mutations, &mut base)?;
            let unknown = self.look_at_known(&serving, touched);
            drop(serving);
            self.look_at_unknown(unknown)?;
        }
        let mut serving = self.serving.write();
        if advance.through_version > serving.window.applied_version() {
            serving.window.advance(advance.through_version);
        }
        let applied_version = serving.window.applied_version();
        drop(serving);
        self.waiters.on_applied(advance.through_version);
        self.look_at_due_watches(applied_version)
    }

    /// What atomic operations will find in keys that the window does not know: read before the window is locked, so that
    /// reads do not wait for the engine (I-16). Nobody but this task changes what the newest version of a key is.
    fn read_bases(&self, items: &[Item]) -> Result<BTreeMap<Key, Option<Value>>> {
        let mut bases = BTreeMap::new();
        let mut keys = items.iter().filter_map(|item| match item {
            Item::Mutation(Mutation::Atomic { key, .. }) => Some(key),
            _ => None,
        });
        loop {
            let some: Vec<&Key> = keys.by_ref().take(BASES_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(bases);
            }
            let unknown: Vec<&Key> = {
                let serving = self.serving.read();
                let applied_version = serving.window.applied_version();
                let is_unknown =
                    |key: &&Key| serving.window.get(key, applied_version) == Lookup::Unknown;
                some.into_iter().filter(is_unknown).collect()
            };
            for key in unknown {
                if !bases.contains_key(key) {
                    bases.insert(key.clone(), self.base_value(key)?);
                }
            }
        }
    }

    /// What atomic operations find in a key that the window does not know.
    fn base_value(&self, key: &Key) -> Result<Option<Value>> {
        Ok(self.engine.get(key)?.map(|versioned| versioned.value))
    }

    /// Copies a page. What goes wrong elsewhere is tried again later.
    ///
    /// # Errors
    ///
    /// Those of the engine.
    async fn copy(
        &self,
        page: &Page,
        connection: &mut Option<(Endpoint, Client<StorageService>)>,
    ) -> Result<()> {
        let life = self.serving.read().life;
        let asked =
            runtime::timeout(PAGE_LIMIT, Stage::Apply, self.ask_for(page, connection)).await;
        let reply = asked.and_then(|reply| reply);
        let copied = {
            let mut fetch = self.fetch.lock();
            match reply {
                Ok(reply) => fetch.on_page(runtime::now(), page, reply),
                Err(error) => {
                    fetch.on_failed(runtime::now(), page, &error);
                    return Ok(());
                }
            }
        };
        let Ok(copied) = copied else { return Ok(()) };
        let bytes = copied.bytes();
        let (range, rows) = (copied.range.clone(), copied.rows);
        let ingesting = self.try_to_change_engine(life, move |engine| {
            // Left over from before a crash or a rollback.
            let is_left = has_rows(engine, &range)? && !planted(Plant::KeepLeftovers);
            let clear = is_left.then(|| EngineChange::ClearRange(range.clone()));
            let changes: Vec<_> =
                clear.into_iter().chain(rows.iter().cloned().map(EngineChange::Set)).collect();
            if changes.is_empty() {
                return Ok(());
            }
            engine.check_space(Reserve::All)?;
            engine.ingest(&changes)
        });
        match ingesting.await.1 {
            // Peeks go on meanwhile: what frees space, or ends the copy, comes out of the logs.
            Err(error) if error.code() == ErrorCode::DiskFull => {
                self.fetch.lock().on_failed(runtime::now(), page, &error);
                return Ok(());
            }
            ingested => {
                if ingested?.is_none() {
                    return Ok(());
                }
            }
        }
        self.fetch.lock().on_copied(page, bytes);
        let _machine = self.machine.lock();
        let mut serving = self.serving.write();
        let applied_version = serving.window.applied_version();
        // A rollback takes the applied version back, and nothing but this task brings it forward again.
        if serving.life == life && applied_version == page.request.read_version {
            mark(Mark::PageCopied);
            serving.shards.record_page(applied_version, &page.part, &copied.range.end);
        }
        Ok(())
    }

    /// Asks another server, over the connection of the last time if it was the same.
    async fn ask_for(
        &self,
        page: &Page,
        connection: &mut Option<(Endpoint, Client<StorageService>)>,
    ) -> Result<RangeReply> {
        let known = connection.take().filter(|(endpoint, _)| *endpoint == page.endpoint);
        let client = match known {
            Some((_, client)) => client,
            None => self.network.connect::<StorageService>(&page.endpoint).await?,
        };
        let reply = transport::call(PAGE_LIMIT, Stage::Apply, |context| {
            client.get_range(context, page.request.clone())
        })
        .await
        .map_err(|error| error.at(&page.endpoint))?;
        *connection = Some((page.endpoint.clone(), client));
        reply
    }

    /// Removes rows that pages have left behind, of which the engine's attachment knows nothing.
    async fn clear_gaps(&self) -> Result<()> {
        let (life, gaps) = {
            let serving = self.serving.read();
            // No version was applied yet, by this very task.
            (serving.life, serving.shards.gaps_after_restart())
        };
        let cleared = self.change_engine(life, move |engine| {
            let mut clears = Vec::new();
            for gap in &gaps {
                if has_rows(engine, gap)? {
                    clears.push(EngineChange::ClearRange(gap.clone()));
                }
            }
            if clears.is_empty() {
                return Ok(());
            }
            engine.check_space(Reserve::left_by(&clears))?;
            engine.ingest(&clears)
        });
        cleared.await.map(drop)
    }
}

fn has_rows(engine: &dyn Engine, range: &KeyRange) -> Result<bool> {
    Ok(engine.cursor(range, false).next_row()?.is_some())
}
