//! Writing to the engine what leaves the window, and telling the logs.
//!
//! ```text
//!   begin    window, shards --> batch and attachment, as of one version
//!   write    engine
//!   finish   window and shards forget it; logs may forget it, too
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrisdb_core::{
    Result, Stage, runtime,
    service::log::{LogClient, LogService},
    transport,
};
use parking_lot::RwLockWriteGuard;

use super::{
    engine::{Engine, EngineBatch},
    machine::Pop,
    server::Shared,
    shards::Holdings,
};

/// How long a log may take to answer a pop.
const POP_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait before logs that did not answer are told again.
const POP_RETRY: Duration = Duration::from_millis(500);

/// A flush that has begun.
struct Flush {
    life: u64,
    batch: EngineBatch,
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
        if shared.has_failed() {
            return;
        }
        if let Err(error) = shared.flush().await {
            return shared.fail(error);
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
    async fn flush(&self) -> Result<()> {
        let Some(Flush { life, batch, holdings }) = self.begin_flush() else { return Ok(()) };
        let version = batch.version;
        self.metrics.flushed.add_len(batch.changes.len());
        let written = self.change_engine(life, move |engine| engine.write(&batch));
        if self.metrics.flush_write.time(written).await?.is_none() {
            return Ok(());
        }
        let _timing = self.metrics.flush_finish.start();
        let mut machine = self.machine.lock();
        let mut serving = self.serving.write();
        if serving.life == life {
            serving.window.finish_flush(version);
            serving.shards.on_flushed(version, holdings);
            machine.on_flushed(version);
        }
        drop(serving);
        drop(machine);
        self.pops_changed.notify_waiters();
        Ok(())
    }

    /// Reads wait only while the oldest version is raised, not while the batch is made.
    fn begin_flush(&self) -> Option<Flush> {
        let mut machine = self.machine.lock();
        let mut serving = self.serving.write();
        let bytes = serving.window.memory_bytes();
        let is_empty = serving.window.is_empty() && serving.shards.is_durable();
        let version = machine.next_flush(bytes, is_empty)?;
        let _timing = self.metrics.flush_begin.start();
        serving.window.raise_oldest_version(version);
        let serving = RwLockWriteGuard::downgrade(serving);
        let holdings = serving.shards.flush(version);
        let attachment = serving.shards.attachment_of(&holdings);
        let batch = EngineBatch { attachment, ..serving.window.flush_batch(version) };
        Some(Flush { life: serving.life, batch, holdings })
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
    /// begun, the change is made even if nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// Those of the change.
    pub(super) async fn change_engine<T: Send + 'static>(
        &self,
        life: u64,
        change: impl FnOnce(&dyn Engine) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Ok(permit) = Arc::clone(&self.writing).acquire_owned().await else { return Ok(None) };
        if self.serving.read().life != life {
            return Ok(None);
        }
        let engine = Arc::clone(&self.engine);
        runtime::blocking(move || {
            let changed = change(&*engine);
            drop(engine);
            drop(permit);
            changed.map(Some)
        })
        .await
    }

    /// Tells one log, over a connection or a new one.
    async fn pop(&self, pop: &Pop, client: Option<LogClient>) -> Result<LogClient> {
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
