//! What becomes of each watch next, as a machine: no clock, network or randomness inside. See the [module](super).
//!
//! ```text
//!                      begin_due                 Changed, TooMany
//!   Waiting (Begin) -------------> At a session -----------------> Confirming ----> over
//!        ^                              |                           |   another value
//!        +------------------------------+---------------------------+
//!          session failed, wrong shard, moved        the same value, or the read failed
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, Key, Result, Version,
    digest::ValueDigest,
    limits,
    runtime::Instant,
    service::storage::{WatchChanges, WatchEnd, WatchSessionId, Watched},
};
use tokio::sync::Notify;

use super::signal::Signal;
use crate::locations::Locations;

/// How long a watch waits that has to begin again; doubles each time that follows soon, up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A watch that a server kept for so long begins again without delay.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// How often a key is read that no server will watch.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// All watches of a handle that were armed and are not over.
#[derive(Default)]
pub(super) struct Book {
    watches: BTreeMap<u64, Entry>,
    /// The watches that wait, by when they go on.
    due: BTreeSet<(Instant, u64)>,
    /// The watches whose key is to be read.
    doubtful: VecDeque<u64>,
    sessions: BTreeMap<WatchSessionId, Session>,
    by_server: BTreeMap<Endpoint, WatchSessionId>,
    closed: Option<Error>,
}

/// A watch that is armed.
pub(super) struct Armed {
    pub(super) number: u64,
    pub(super) key: Key,
    /// The value that its transaction saw.
    pub(super) known: Option<ValueDigest>,
    /// A version at which the key had it, unless it was changed already.
    pub(super) version: Version,
    pub(super) signal: Arc<Signal>,
}

struct Entry {
    armed: Armed,
    place: Place,
    /// How often it has begun again in a row.
    tries: u32,
}

enum Place {
    Waiting { until: Instant, then: Step },
    At { session: WatchSessionId, since: Instant },
    Confirming { changed_at: Version },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    Confirm,
}

struct Session {
    server: Endpoint,
    watches: BTreeSet<u64>,
    begin: BTreeSet<u64>,
    end: Vec<u64>,
    has_begun: bool,
    changed: Arc<Notify>,
}

/// A session to be held with a server.
pub(super) struct NewSession {
    pub(super) id: WatchSessionId,
    pub(super) server: Endpoint,
    /// Rung when there is something to tell the server.
    pub(super) changed: Arc<Notify>,
}

/// A key to be read, at a version that covers `changed_at` if possible.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) number: u64,
    pub(super) key: Key,
    pub(super) changed_at: Version,
}

impl Book {
    /// Begins a watch, unless nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// What the caller has to tell whoever waits, if the book is closed. Signals are never given in here: nobody may
    /// be woken while the book is locked.
    pub(super) fn arm(&mut self, armed: Armed, now: Instant) -> Result<()> {
        self.closed.clone().map_or(Ok(()), Err)?;
        if armed.signal.outcome().is_some() {
            return Ok(());
        }
        let number = armed.number;
        let place = Place::Waiting { until: now, then: Step::Begin };
        self.watches.insert(number, Entry { armed, place, tries: 0 });
        self.due.insert((now, number));
        Ok(())
    }

    /// Nobody waits for the watch any more.
    pub(super) fn forget(&mut self, number: u64) {
        let Some(entry) = self.watches.remove(&number) else { return };
        match entry.place {
            Place::Waiting { until, .. } => drop(self.due.remove(&(until, number))),
            // The answer of the read finds nobody.
            Place::Confirming { .. } => {}
            Place::At { session, .. } => self.leave(session, number),
        }
    }

    /// Takes a watch out of its session. The server hears of it with whatever it is told next.
    fn leave(&mut self, session: WatchSessionId, number: u64) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        session.watches.remove(&number);
        if !session.begin.remove(&number) {
            session.end.push(number);
        }
    }

    /// No watch waits any more, now and from now on. Returns whom to tell.
    pub(super) fn close(&mut self, error: Error) -> Vec<Arc<Signal>> {
        let closed = std::mem::replace(self, Book { closed: Some(error), ..Book::default() });
        closed.watches.into_values().map(|entry| entry.armed.signal).collect()
    }

    /// All watches are over, for a reason that no waiting cures. Returns whom to tell.
    pub(super) fn fail_all(&mut self) -> Vec<Arc<Signal>> {
        let closed = self.closed.take();
        let failed = std::mem::replace(self, Book { closed, ..Book::default() });
        failed.watches.into_values().map(|entry| entry.armed.signal).collect()
    }

    /// Who waits.
    pub(super) fn signals(&self) -> Vec<Arc<Signal>> {
        self.watches.values().map(|entry| Arc::clone(&entry.armed.signal)).collect()
    }

    /// When [`Book::begin_due`] has something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(until, _)| *until)
    }

    /// Lets watches go on whose time has come. Each that is to begin goes to the first of the servers of its key,
    /// as `in_order` has them. Returns the sessions that are new; `draw` makes up their ids.
    pub(super) fn begin_due(
        &mut self,
        now: Instant,
        locations: Option<&Locations>,
        in_order: impl Fn(&[Endpoint]) -> Vec<Endpoint>,
        mut draw: impl FnMut() -> u64,
    ) -> Vec<NewSession> {
        let mut new = Vec::new();
        while let Some(&(until, number)) = self.due.first().filter(|(until, _)| *until <= now) {
            self.due.remove(&(until, number));
            let Some(entry) = self.watches.get_mut(&number) else { continue };
            if let Place::Waiting { then: Step::Confirm, .. } = entry.place {
                entry.place = Place::Confirming { changed_at: Version::ZERO };
                self.doubtful.push_back(number);
                continue;
            }
            let team = locations.and_then(|locations| locations.of_key(&entry.armed.key));
            let servers = team.map(|location| in_order(&location.team)).unwrap_or_default();
            let Some(server) = servers.into_iter().next() else {
                self.wait(number, Step::Begin, now + PAUSE_MAX);
                continue;
            };
            let id = match self.by_server.get(&server) {
                Some(&id) => id,
                None => {
                    let session = self.open_session(server, WatchSessionId(draw()));
                    let id = session.id;
                    new.push(session);
                    id
                }
            };
            entry_at(&mut self.watches, number, id, now);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.watches.insert(number);
                session.begin.insert(number);
                session.changed.notify_one();
            }
        }
        new
    }

    fn open_session(&mut self, server: Endpoint, id: WatchSessionId) -> NewSession {
        let changed = Arc::new(Notify::new());
        let session = Session {
            server: server.clone(),
            watches: BTreeSet::new(),
            begin: BTreeSet::new(),
            end: Vec::new(),
            has_begun: false,
            changed: Arc::clone(&changed),
        };
        self.sessions.insert(id, session);
        self.by_server.insert(server.clone(), id);
        NewSession { id, server, changed }
    }

    /// The map of the cluster has changed: watches of keys that have moved away begin again.
    pub(super) fn on_locations(&mut self, locations: &Locations, now: Instant) {
        let mut strays = Vec::new();
        for (&number, entry) in &self.watches {
            let Place::At { session, .. } = entry.place else { continue };
            let Some(at) = self.sessions.get(&session) else { continue };
            let team = locations.of_key(&entry.armed.key).map(|location| &location.team[..]);
            if !team.unwrap_or_default().contains(&at.server) {
                strays.push((session, number));
            }
        }
        for (session, number) in strays {
            mark(Mark::WatchMoved);
            self.leave(session, number);
            self.wait(number, Step::Begin, now);
        }
    }

    /// What a server is to be told next.
    pub(super) fn take_changes(&mut self, id: WatchSessionId) -> Option<WatchChanges> {
        let session = self.sessions.get_mut(&id)?;
        if session.begin.is_empty() && session.end.is_empty() {
            return None;
        }
        let max = limits::WATCHES_PER_REQUEST_MAX;
        let ended = session.end.len().min(max);
        let end = session.end.drain(..ended).collect();
        let mut begin = Vec::new();
        // Ends first: a number that has ended and begins again must not be ended by its own end.
        while begin.len() < max
            && session.end.is_empty()
            && let Some(number) = session.begin.pop_first()
        {
            let Some(Entry { armed, .. }) = self.watches.get(&number) else { continue };
            begin.push(Watched {
                number,
                key: armed.key.clone(),
                known: armed.known,
                known_version: armed.version,
            });
        }
        let begins_session = !std::mem::replace(&mut session.has_begun, true);
        Some(WatchChanges { session: id, begins_session, begin, end })
    }

    /// A server has said how watches have ended there.
    pub(super) fn on_news(
        &mut self,
        id: WatchSessionId,
        ended: Vec<(u64, WatchEnd)>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        // What has ended there, and was not begun again since, is in the session no more.
        let of_session = |(number, _): &(u64, WatchEnd)| {
            !session.begin.contains(number) && session.watches.remove(number)
        };
        let ended: Vec<(u64, WatchEnd)> = ended.into_iter().filter(of_session).collect();
        for (number, end) in ended {
            let Some(entry) = self.watches.get_mut(&number) else { continue };
            entry.settle(now);
            match end {
                WatchEnd::Changed(changed_at) => {
                    entry.place = Place::Confirming { changed_at };
                    self.doubtful.push_back(number);
                }
                WatchEnd::WrongShard => self.wait_a_while(number, Step::Begin, now),
                WatchEnd::TooMany => self.wait(number, Step::Confirm, now + LOOK_INTERVAL),
            }
        }
    }

    /// Ends a session if it has no watches. Whoever holds it stops then.
    pub(super) fn end_if_empty(&mut self, id: WatchSessionId) -> bool {
        let is_empty = self.sessions.get(&id).is_none_or(|session| session.watches.is_empty());
        if is_empty {
            self.remove_session(id);
        }
        is_empty
    }

    /// A session has failed: its watches begin again, in another one.
    pub(super) fn on_session_failed(&mut self, id: WatchSessionId, now: Instant) {
        let Some(session) = self.remove_session(id) else { return };
        if planted(Plant::ForgetWatch) && session.has_begun {
            return;
        }
        mark(Mark::WatchMoved);
        for number in session.watches {
            if let Some(entry) = self.watches.get_mut(&number) {
                entry.settle(now);
            }
            self.wait_a_while(number, Step::Begin, now);
        }
    }

    /// Whoever held sessions has ended, and the reads that he waited for.
    pub(super) fn on_all_sessions_failed(&mut self, now: Instant) {
        let sessions: Vec<WatchSessionId> = self.sessions.keys().copied().collect();
        sessions.into_iter().for_each(|id| self.on_session_failed(id, now));
        let confirming = |entry: &Entry| matches!(entry.place, Place::Confirming { .. });
        let watches = self.watches.iter().filter(|(_, entry)| confirming(entry));
        self.doubtful = watches.map(|(&number, _)| number).collect();
    }

    fn remove_session(&mut self, id: WatchSessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.by_server.remove(&session.server);
        Some(session)
    }

    /// Keys to read next, at most so many.
    pub(super) fn take_doubts(&mut self, max: usize) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        while doubts.len() < max
            && let Some(number) = self.doubtful.pop_front()
        {
            // Others have been forgotten meanwhile.
            if let Some(entry) = self.watches.get(&number)
                && let Place::Confirming { changed_at } = entry.place
            {
                doubts.push(Doubt { number, key: entry.armed.key.clone(), changed_at });
            }
        }
        doubts
    }

    /// What the key of a watch has been found to be, and at which version. Returns whom to tell that it has changed.
    pub(super) fn on_looked(
        &mut self,
        number: u64,
        found: Result<(Version, Option<ValueDigest>)>,
        now: Instant,
    ) -> Option<Arc<Signal>> {
        let entry = self.watches.get_mut(&number)?;
        match found {
            Ok((_, digest)) if digest != entry.armed.known => {
                return self.watches.remove(&number).map(|entry| entry.armed.signal);
            }
            Ok((version, _)) => {
                mark(Mark::WatchUnconfirmed);
                // What a server has of earlier versions is no news any more.
                entry.armed.version = entry.armed.version.max(version);
                self.wait_a_while(number, Step::Begin, now);
            }
            Err(error) => {
                tracing::debug!(%error, key = %entry.armed.key, "a watched key could not be read");
                self.wait_a_while(number, Step::Confirm, now);
            }
        }
        None
    }

    /// Waits, the longer the oftener in a row.
    fn wait_a_while(&mut self, number: u64, then: Step, now: Instant) {
        let Some(entry) = self.watches.get_mut(&number) else { return };
        let pause = PAUSE_MIN.saturating_mul(1 << entry.tries.min(16)).min(PAUSE_MAX);
        entry.tries += 1;
        // Spread out by the number, so that many that fail together do not all come back at once.
        let spread = pause.mul_f64((number % 16) as f64 / 16.0);
        self.wait(number, then, now + pause + spread);
    }

    fn wait(&mut self, number: u64, then: Step, until: Instant) {
        if let Some(entry) = self.watches.get_mut(&number) {
            entry.place = Place::Waiting { until, then };
            self.due.insert((until, number));
        }
    }
}

fn entry_at(
    watches: &mut BTreeMap<u64, Entry>,
    number: u64,
    session: WatchSessionId,
    now: Instant,
) {
    if let Some(entry) = watches.get_mut(&number) {
        entry.place = Place::At { session, since: now };
    }
}

impl Entry {
    /// It was somewhere; if that was for long, the past does not count any more.
    fn settle(&mut self, now: Instant) {
        if let Place::At { since, .. } = self.place
            && now.saturating_duration_since(since) >= SETTLED_AFTER
        {
            self.tries = 0;
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
