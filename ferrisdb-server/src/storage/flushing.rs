//! Writing to the engine what leaves the window, and telling the logs.
//!
//! ```text
//!   begin    shards --> attachment, and reads of older versions are refused from here on
//!   make     window --> batch, in steps; others have the window in between
//!   write    engine
//!   finish   window, in steps, and shards forget it; logs may forget it, too
//! ```
//!
//! Usually that is a quarter of a second of versions. After a pause a whole window may leave at once: that is written in parts, one
//! after the other, so that neither a batch nor what the engine has in memory of it becomes large.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use ferrisdb_core::simulation::{Plant, planted};
use ferrisdb_core::{
    ErrorCode, Result, Stage, Version, runtime,
    service::{Client, log::LogService},
    transport,
};

use super::{
    engine::{Engine, EngineBatch, Reserve},
    machine::{NextFlush, Pop},
    server::Shared,
    shards::Holdings,
    window::{Batch, Window},
};

/// How long to wait before a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// How long a log may take to answer a pop.
const POP_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait before logs that did not answer are told again.
const POP_RETRY: Duration = Duration::from_millis(500);

/// So many keys are looked at before others may have the window: some tens of microseconds.
const KEYS_AT_ONCE: usize = 128;

/// A flush that has begun.
struct Flush {
    life: u64,
    version: Version,
    /// Whether the next one is due at once.
    is_cut: bool,
    attachment: Option<Bytes>,
    /// What the engine says of itself, then.
    holdings: Arc<Holdings>,
}

/// Writes to the engine what leaves the window.
pub(super) async fn flush(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.flush_is_urgent.notified() => {}
            () = runtime::sleep(shared.settings.flush_interval) => {}
        }
        loop {
            if shared.has_failed() {
                return;
            }
            match shared.flush().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return shared.fail(error),
            }
        }
    }
}

/// Tells logs what they may forget. Best effort: they are told again until they confirm.
pub(super) async fn pop(shared: Arc<Shared>) {
    let mut clients = BTreeMap::new();
    loop {
        let changed = shared.pops_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if shared.has_failed() {
            return;
        }
        let pops = shared.machine.lock().pops();
        let told: Vec<_> =
            pops.iter().map(|pop| shared.pop(pop, clients.remove(&pop.endpoint))).collect();
        let mut failed = false;
        // Connections to logs that have nothing left to be told end here.
        clients = BTreeMap::new();
        for (pop, told) in pops.iter().zip(futures::future::join_all(told).await) {
            match told {
                Ok(client) => {
                    clients.insert(pop.endpoint.clone(), client);
                    shared.machine.lock().on_popped(pop);
                }
                Err(error) => {
                    tracing::debug!(%error, log = %pop.endpoint, "a pop failed");
                    failed = true;
                }
            }
        }
        if failed {
            runtime::sleep(runtime::jitter(POP_RETRY)).await;
        } else {
            changed.await;
        }
    }
}

impl Shared {
    /// Writes what is due, or a part of it; whether the next part is due at once.
    async fn flush(self: &Arc<Self>) -> Result<bool> {
        let Some(Flush { life, version, is_cut, attachment, holdings }) = self.begin_flush() else {
            self.look_for_space().await;
            return Ok(false);
        };
        let shared = Arc::clone(self);
        let (_, written) = self
            .try_to_change_engine(life, move |engine| {
                let metrics = &shared.metrics;
                let making = metrics.flush_begin.start();
                let Some(batch) = shared.make_batch(life, version) else { return Ok(false) };
                drop(making);
                let batch = batch.finish(attachment.clone());
                engine.check_space(Reserve::left_by(&batch.changes))?;
                let writing = metrics.flush_write.start();
                engine.write(&batch)?;
                drop(writing);
                metrics.flushed.add_len(batch.changes.len());
                let _finishing = metrics.flush_finish.start();
                if !planted(Plant::RaiseOldestLate) {
                    shared.forget_flushed(life, version);
                }
                Ok(true)
            })
            .await;
        match written {
            Err(error) if error.code() == ErrorCode::DiskFull => {
                // Made anew, with what has come meanwhile: that may be a clear, for which there is space.
                self.refuse_flush(life);
                runtime::sleep(FULL_RETRY).await;
                return Ok(true);
            }
            written => {
                if written? != Some(true) {
                    return Ok(false);
                }
            }
        }
        let mut machine = self.machine.lock();
        let mut serving = self.serving.write();
        if serving.life == life {
            if planted(Plant::RaiseOldestLate) {
                serving.window.raise_oldest_version(version);
            }
            serving.window.finish_flush(version);
            serving.shards.on_flushed(version, holdings);
            machine.on_flushed(version);
        }
        drop(serving);
        drop(machine);
        self.pops_changed.notify_waiters();
        Ok(is_cut)
    }

    /// A server that has nothing to write any more, such as one that has begun anew, learns here that its disk has space again.
    async fn look_for_space(&self) {
        let is_full = self.full.lock().is_some();
        if is_full {
            let engine = Arc::clone(&self.engine);
            if runtime::blocking(move || engine.check_space(Reserve::All)).await.is_ok() {
                *self.full.lock() = None;
            }
        }
    }

    /// There was no space for the flush that had begun.
    fn refuse_flush(&self, life: u64) {
        let mut machine = self.machine.lock();
        if self.serving.read().life == life {
            machine.on_flush_refused();
        }
    }

    /// From here on reads below the version are too old, and the engine may go there.
    fn begin_flush(&self) -> Option<Flush> {
        let mut machine = self.machine.lock();
        let mut serving = self.serving.write();
        let bytes = serving.window.memory_bytes();
        let is_empty = serving.window.is_empty() && serving.shards.is_durable();
        // What has left the window is refused from here on, also while there is nothing to write: resolvers refuse it, too.
        let oldest = machine.oldest_wanted();
        if oldest > serving.window.oldest_version() && !planted(Plant::RaiseOldestLate) {
            serving.window.raise_oldest_version(oldest);
        }
        let through = |limit, bytes_max| serving.window.flushed_at_once(limit, bytes_max);
        let NextFlush { version, is_cut } = machine.next_flush(bytes, is_empty, through)?;
        if !planted(Plant::RaiseOldestLate) {
            serving.window.raise_oldest_version(version);
        }
        let holdings = serving.shards.flush(version);
        let attachment = serving.shards.attachment_of(&holdings);
        Some(Flush { life: serving.life, version, is_cut, attachment, holdings })
    }

    /// Makes the batch of a version. Others have the window in between. `None` if the server has begun another life.
    fn make_batch(&self, life: u64, version: Version) -> Option<Batch> {
        let mut batch = Batch::new(version);
        let in_window = |part: &mut dyn FnMut(&Window) -> bool| {
            let serving = self.serving.read();
            (serving.life == life).then(|| part(&serving.window))
        };
        while in_window(&mut |window| batch.collect(window, KEYS_AT_ONCE))? {}
        batch.sort();
        while in_window(&mut |window| batch.resolve(window, KEYS_AT_ONCE))? {}
        Some(batch)
    }

    /// Has the window forget what the engine has. Others have it in between.
    fn forget_flushed(&self, life: u64, version: Version) {
        loop {
            let mut serving = self.serving.write();
            if serving.life != life {
                return;
            }
            if !serving.window.forget_flushed(version, KEYS_AT_ONCE) {
                break;
            }
        }
        loop {
            let mut serving = self.serving.write();
            if serving.life != life || !serving.window.prune_clears(version, KEYS_AT_ONCE) {
                return;
            }
        }
    }

    /// Writes what is known to be committed, once all tasks have ended.
    pub(super) async fn last_flush(&self) -> Result<()> {
        let batch = {
            let mut machine = self.machine.lock();
            let mut serving = self.serving.write();
            let Some(version) = machine.last_flush() else { return Ok(()) };
            // A write that was cut off from its task may have got there.
            if self.engine.version() >= version {
                return Ok(());
            }
            let attachment = serving.shards.attachment_of(&serving.shards.flush(version));
            EngineBatch { attachment, ..serving.window.begin_flush(version) }
        };
        let engine = Arc::clone(&self.engine);
        runtime::blocking(move || engine.write(&batch)).await
    }

    /// Changes the engine, one change at a time; `None` if the server has begun another life meanwhile. Once it has
    /// begun, the change is made even if nobody waits for it any more. While the disk is full, it is tried again and again:
    /// a change that failed for want of space was done or not, and can be made twice. What adds to the engine asks before
    /// whether there is space: see [`Engine::check_space`].
    ///
    /// # Errors
    ///
    /// Those of the change.
    pub(super) async fn change_engine<T: Send + 'static>(
        &self,
        life: u64,
        mut change: impl FnMut(&dyn Engine) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        loop {
            let (again, changed) = self.try_to_change_engine(life, change).await;
            match changed {
                Err(error) if error.code() == ErrorCode::DiskFull => {}
                changed => return changed,
            }
            change = again;
            runtime::sleep(FULL_RETRY).await;
        }
    }

    /// The same, once, also if the disk is full; gives the change back.
    pub(super) async fn try_to_change_engine<T: Send + 'static, Change>(
        &self,
        life: u64,
        mut change: Change,
    ) -> (Change, Result<Option<T>>)
    where
        Change: FnMut(&dyn Engine) -> Result<T> + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.writing).acquire_owned().await else {
            return (change, Ok(None));
        };
        if self.serving.read().life != life {
            return (change, Ok(None));
        }
        let engine = Arc::clone(&self.engine);
        let (change, changed, space) = runtime::blocking(move || {
            let changed = change(&*engine);
            // That something could be cleared does not make the disk one with space for more: that is said before the reserve is
            // used up, when others can still take over what is here.
            let space = engine.check_space(Reserve::All);
            drop(engine);
            drop(permit);
            (change, changed, space)
        })
        .await;
        let errors = [changed.as_ref().err(), space.as_ref().err()];
        match errors.into_iter().flatten().find(|error| error.code() == ErrorCode::DiskFull) {
            Some(error) => {
                let before = self.full.lock().replace(error.detail().to_owned());
                if before.is_none() {
                    tracing::error!(%error, "the disk of the engine is full");
                }
            }
            None => *self.full.lock() = None,
        }
        (change, changed.map(Some))
    }

    /// Tells one log, over a connection or a new one.
    async fn pop(
        &self,
        pop: &Pop,
        client: Option<Client<LogService>>,
    ) -> Result<Client<LogService>> {
        let client = match client {
            Some(client) => client,
            None => self.network.connect::<LogService>(&pop.endpoint).await?,
        };
        transport::call(POP_LIMIT, Stage::Log, |context| {
            client.pop(context, pop.tag, pop.through_version)
        })
        .await??;
        Ok(client)
    }
}
