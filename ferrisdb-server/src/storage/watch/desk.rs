//! The table of watches as tasks and calls share it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::{
    Error, ErrorCode, Key, Mutation, Result, Stage, Version, limits, runtime,
    service::storage::{WatchChanges, WatchNews, WatchSessionId},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    super::{server::Shared, serving::Serving, window::Lookup},
    table::{Found, WatchTable},
};

/// How often sessions are looked at that nobody may ask for any more.
const FORGET_INTERVAL: Duration = Duration::from_secs(5);
/// How many watches are compared without letting go of the window in between.
const LOOKS_AT_ONCE: usize = 32;

/// The table of watches, and who waits for news. Its lock is taken after that of what is served.
#[derive(Debug)]
pub(in crate::storage) struct WatchDesk {
    inner: Mutex<Inner>,
    /// Whether anybody watches. Set under the lock, and read without it by whoever applies a version: a watch that is
    /// begun at that moment is compared with the window after it was set, and so after that version.
    is_used: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    table: WatchTable,
    bells: BTreeMap<WatchSessionId, Arc<Notify>>,
    is_closed: bool,
}

impl Inner {
    fn ring(&mut self) {
        for session in self.table.take_rung() {
            if let Some(bell) = self.bells.get(&session) {
                bell.notify_waiters();
            }
        }
    }

    fn ring_all(&self) {
        self.bells.values().for_each(|bell| bell.notify_waiters());
    }
}

impl Default for WatchDesk {
    fn default() -> WatchDesk {
        let table = WatchTable::new(limits::WATCH_BYTES_MAX);
        let inner = Inner { table, bells: BTreeMap::new(), is_closed: false };
        WatchDesk { inner: Mutex::new(inner), is_used: AtomicBool::new(false) }
    }
}

impl WatchDesk {
    /// Does something with the table, and wakes whoever has got news by it.
    fn with<T>(&self, change: impl FnOnce(&mut WatchTable) -> T) -> T {
        let mut inner = self.inner.lock();
        let result = change(&mut inner.table);
        self.is_used.store(!inner.table.is_empty(), Ordering::Release);
        inner.ring();
        result
    }

    fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Acquire)
    }

    /// The watched keys that mutations are about to touch.
    pub(in crate::storage) fn touched_by(&self, mutations: &[Mutation]) -> BTreeSet<Key> {
        if !self.is_used() {
            return BTreeSet::new();
        }
        self.inner.lock().table.touched_by(mutations)
    }

    /// The server holds nothing any more.
    pub(in crate::storage) fn refuse_all(&self) {
        self.with(WatchTable::refuse_all);
    }

    /// Nobody serves any more: whoever waits finds out.
    pub(in crate::storage) fn wake_all(&self) {
        self.inner.lock().ring_all();
    }

    /// The server ends.
    pub(in crate::storage) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.is_closed = true;
        inner.ring_all();
    }

    /// Forgets sessions that nobody asks for any more, until the server ends.
    pub(in crate::storage) async fn forget_idle(shared: Arc<Shared>) {
        loop {
            runtime::sleep(FORGET_INTERVAL).await;
            let now = runtime::now();
            let idle = shared.watches.with(|table| table.forget_idle(now));
            let mut inner = shared.watches.inner.lock();
            idle.iter().for_each(|session| drop(inner.bells.remove(session)));
        }
    }

    fn open(&self, session: WatchSessionId) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.table.begin_session(session, runtime::now())?;
        inner.bells.entry(session).or_default();
        Ok(())
    }

    fn begin_poll(&self, session: WatchSessionId) -> Result<Poll<'_>> {
        let mut inner = self.inner.lock();
        inner.table.begin_poll(session)?;
        let bell = Arc::clone(inner.bells.entry(session).or_default());
        Ok(Poll { desk: self, session, bell })
    }
}

/// Somebody who waits for the news of a session.
struct Poll<'a> {
    desk: &'a WatchDesk,
    session: WatchSessionId,
    bell: Arc<Notify>,
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.desk.inner.lock().table.end_poll(self.session, runtime::now());
    }
}

impl Shared {
    /// Compares watches of these keys with what the server has now. For callers that do not hold the window's lock: nobody
    /// waits for what the engine has to say (I-16).
    ///
    /// # Errors
    ///
    /// Those of the engine.
    pub(in crate::storage) fn look_at_watches(&self, keys: BTreeSet<Key>) -> Result<()> {
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let some: BTreeSet<Key> = keys.by_ref().take(LOOKS_AT_ONCE).collect();
            let unknown = self.look_at_known(&self.serving.read(), some);
            self.look_at_unknown(unknown)?;
        }
        Ok(())
    }

    /// Compares the watches of those keys of which the window alone knows what they are; returns the others.
    pub(in crate::storage) fn look_at_known(
        &self,
        serving: &Serving,
        mut keys: BTreeSet<Key>,
    ) -> BTreeSet<Key> {
        let applied_version = serving.window.applied_version();
        keys.retain(|key| {
            // Any refusal means that somebody else is to be asked.
            let is_here = serving.shards.check_key(key, applied_version).is_ok();
            let known = is_here.then(|| serving.window.get(key, applied_version));
            let found = match &known {
                None => Found::Elsewhere,
                Some(Lookup::Value(found)) => Found::Here(Some(&found.value)),
                Some(Lookup::Cleared) => Found::Here(None),
                Some(Lookup::Unknown) => return true,
            };
            self.watches.with(|table| table.look(key, found, applied_version));
            false
        });
        keys
    }

    /// Compares watches of keys with what the engine has.
    ///
    /// The engine is read without the lock. If the window knows nothing of the key before and after that, and has forgotten
    /// nothing in between, the key has not changed since the version that the engine had at least: the value is that of
    /// the applied version.
    ///
    /// # Errors
    ///
    /// Those of the engine.
    pub(in crate::storage) fn look_at_unknown(&self, mut keys: BTreeSet<Key>) -> Result<()> {
        while let Some(key) = keys.pop_first() {
            let before = self.serving.read().window.flushed_version();
            let value = self.engine.get(&key)?.map(|found| found.value);
            let serving = self.serving.read();
            if self.look_at_known(&serving, BTreeSet::from([key.clone()])).is_empty() {
                continue;
            }
            if serving.window.flushed_version() != before {
                // A flush has taken something along.
                keys.insert(key);
                continue;
            }
            let applied_version = serving.window.applied_version();
            let found = Found::Here(value.as_ref());
            self.watches.with(|table| table.look(&key, found, applied_version));
        }
        Ok(())
    }

    /// A version was reached: compares the watches that have waited for it. For who applies versions, without the window's lock.
    ///
    /// # Errors
    ///
    /// Those of the engine.
    pub(in crate::storage) fn look_at_due_watches(&self, applied_version: Version) -> Result<()> {
        if !self.watches.is_used() {
            return Ok(());
        }
        let due = self.watches.with(|table| table.take_due(applied_version));
        self.look_at_watches(due)
    }

    /// Versions are gone: compares the watches that had been compared with them. For who rolls back, without the window's
    /// lock, but before any other version is applied.
    ///
    /// # Errors
    ///
    /// Those of the engine.
    pub(in crate::storage) fn look_after_rollback(&self, version: Version) -> Result<()> {
        let again = self.watches.with(|table| table.on_rollback(version));
        self.look_at_watches(again)
    }

    /// Begins and ends watches.
    pub(in crate::storage) fn change_watches(&self, changes: WatchChanges) -> Result<()> {
        let WatchChanges { session, begins_session, begin, end } = changes;
        let count = begin.len().max(end.len());
        if count > limits::WATCHES_PER_REQUEST_MAX {
            let detail = format!("{count} watches, at most {}", limits::WATCHES_PER_REQUEST_MAX);
            return Err(Error::new(ErrorCode::Protocol, Stage::Read, detail));
        }
        if let Some(long) = begin.iter().find(|watched| watched.key.len() > limits::KEY_BYTES_MAX) {
            let detail = format!("a watched key of {} bytes", long.key.len());
            return Err(Error::new(ErrorCode::KeyTooLarge, Stage::Read, detail));
        }
        if begins_session {
            self.watches.open(session)?;
        }
        let keys: BTreeSet<Key> = begin.iter().map(|watched| watched.key.clone()).collect();
        self.watches.with(|table| {
            table.end_all(session, end)?;
            begin.into_iter().try_for_each(|watched| table.begin(session, watched))
        })?;
        // From here on whoever applies a version looks at them too. Those that were applied before are seen now.
        self.look_at_watches(keys).inspect_err(|error| self.fail(error.clone()))
    }

    /// The news of a session, as soon as there are any or the time is over.
    pub(in crate::storage) async fn watch_news(
        &self,
        session: WatchSessionId,
        wait: Duration,
    ) -> Result<WatchNews> {
        let poll = self.watches.begin_poll(session)?;
        let rung = poll.bell.notified();
        tokio::pin!(rung);
        // Registered before the look, so that a ring in between is not missed.
        rung.as_mut().enable();
        if let Some(news) = self.news_now(session)? {
            return Ok(news);
        }
        let _ = runtime::timeout(wait.min(limits::WATCH_WAIT_MAX), Stage::Read, rung).await;
        let applied_version = self.applied_version();
        let nothing = WatchNews { applied_version, ended: Vec::new() };
        Ok(self.news_now(session)?.unwrap_or(nothing))
    }

    fn news_now(&self, session: WatchSessionId) -> Result<Option<WatchNews>> {
        let applied_version = {
            let serving = self.serving.read();
            serving.failure.clone().map_or(Ok(()), Err)?;
            serving.window.applied_version()
        };
        let mut inner = self.watches.inner.lock();
        if inner.is_closed {
            let detail = "the storage server stops";
            return Err(Error::new(ErrorCode::ShuttingDown, Stage::Read, detail));
        }
        let ended = inner.table.take_news(session);
        Ok((!ended.is_empty()).then_some(WatchNews { applied_version, ended }))
    }
}
