//! Which watches there are, and what has become of them: see the [module](super).

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    ops::Bound,
    time::Duration,
};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Mutation, Result, Stage, Value, Version,
    digest::ValueDigest,
    limits,
    runtime::Instant,
    service::storage::{WatchEnd, WatchSessionId, Watched},
};

/// How long a session lives when nobody asks for its news.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(20);
/// About the memory of a watch without its key, its news included.
const WATCH_BYTES: usize = 256;
/// About the memory of a session without its watches.
const SESSION_BYTES: usize = 512;
/// Most news of a session that nobody has asked for; then no further watch is begun.
const NEWS_MAX: usize = 100_000;

/// A watch: whose, and by what they call it.
type WatchId = (WatchSessionId, u64);

/// All watches of a storage server.
#[derive(Debug)]
pub struct WatchTable {
    keys: BTreeMap<Key, BTreeMap<WatchId, Watch>>,
    /// Those that know the value at a version that was not applied yet, by that version.
    early: BTreeSet<(Version, WatchId)>,
    sessions: BTreeMap<WatchSessionId, Session>,
    /// Sessions that have news since somebody took note of it.
    rung: Vec<WatchSessionId>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Watch {
    known: Option<ValueDigest>,
    known_version: Version,
    /// The applied version when it was last compared, if it was.
    looked_at: Option<Version>,
}

#[derive(Debug)]
struct Session {
    keys: BTreeMap<u64, Key>,
    news: Vec<(u64, WatchEnd)>,
    /// How many calls wait for its news.
    polls: u32,
    /// When the last one has ended.
    idle_since: Instant,
}

/// What the server has of a key at its applied version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// It does not hold the key.
    Elsewhere,
    /// This value, or none.
    Here(Option<&'a Value>),
}

impl WatchTable {
    /// A table that takes about so much memory at most.
    pub fn new(bytes_max: usize) -> WatchTable {
        WatchTable {
            keys: BTreeMap::new(),
            early: BTreeSet::new(),
            sessions: BTreeMap::new(),
            rung: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// About the memory that watches and sessions take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the sessions that have got news since the last call.
    pub fn take_rung(&mut self) -> Vec<WatchSessionId> {
        std::mem::take(&mut self.rung)
    }

    /// Begins a session. Nothing happens if it has begun already.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TooBusy`] if there is no room for another one.
    pub fn begin_session(&mut self, session: WatchSessionId, now: Instant) -> Result<()> {
        let btree_map::Entry::Vacant(place) = self.sessions.entry(session) else { return Ok(()) };
        if self.bytes + SESSION_BYTES > self.bytes_max {
            let detail = format!("watches take {} bytes, no more sessions are begun", self.bytes);
            return Err(Error::new(ErrorCode::TooBusy, Stage::Read, detail));
        }
        self.bytes += SESSION_BYTES;
        let (keys, news) = (BTreeMap::new(), Vec::new());
        place.insert(Session { keys, news, polls: 0, idle_since: now });
        Ok(())
    }

    /// Begins a watch, in the place of an earlier one of the same number. It has to be looked at next.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NoSuchEndpoint`] if the session is not known; [`ErrorCode::TooBusy`] if nobody asks for its news.
    pub fn begin(&mut self, session: WatchSessionId, watched: Watched) -> Result<()> {
        let Watched { number, key, known, known_version } = watched;
        let id = (session, number);
        self.end(id);
        let bytes = watch_bytes(&key);
        let is_full = self.bytes + bytes > self.bytes_max;
        let of_session = self.sessions.get_mut(&session).ok_or_else(unknown_session)?;
        if of_session.news.len() >= NEWS_MAX {
            let detail = format!("{NEWS_MAX} news of watches wait for somebody to ask for them");
            return Err(Error::new(ErrorCode::TooBusy, Stage::Read, detail));
        }
        if is_full {
            Self::tell(of_session, &mut self.rung, id, WatchEnd::TooMany);
            return Ok(());
        }
        // A key of its own: the one of the message would keep all of the message.
        let key = Key::copy_from(&key);
        of_session.keys.insert(number, key.clone());
        self.bytes += bytes;
        self.early.insert((known_version, id));
        let watch = Watch { known, known_version, looked_at: None };
        self.keys.entry(key).or_default().insert(id, watch);
        Ok(())
    }

    /// Ends watches. Of numbers that are not known nothing is said: they may have ended by themselves.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NoSuchEndpoint`] if the session is not known.
    pub fn end_all(
        &mut self,
        session: WatchSessionId,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Result<()> {
        if !self.sessions.contains_key(&session) {
            return Err(unknown_session());
        }
        numbers.into_iter().for_each(|number| self.end((session, number)));
        Ok(())
    }

    fn end(&mut self, id: WatchId) {
        let Some(session) = self.sessions.get_mut(&id.0) else { return };
        let Some(key) = session.keys.remove(&id.1) else { return };
        self.bytes -= watch_bytes(&key);
        let btree_map::Entry::Occupied(mut of_key) = self.keys.entry(key) else { return };
        if let Some(watch) = of_key.get_mut().remove(&id) {
            self.early.remove(&(watch.known_version, id));
        }
        if of_key.get().is_empty() {
            of_key.remove();
        }
    }

    /// The watched keys that mutations touch.
    pub fn touched_by(&self, mutations: &[Mutation]) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for mutation in mutations {
            match mutation {
                Mutation::ClearRange { .. } if planted(Plant::MissWatch) => {}
                Mutation::ClearRange { range } => touched.extend(self.watched_in(range).cloned()),
                Mutation::Set { key, .. }
                | Mutation::Clear { key }
                | Mutation::Atomic { key, .. }
                | Mutation::SetVersionstampedKey { key, .. }
                | Mutation::SetVersionstampedValue { key, .. } => {
                    touched.extend(self.keys.get_key_value(key).map(|(key, _)| key.clone()));
                }
            }
        }
        touched
    }

    fn watched_in(&self, range: &KeyRange) -> impl Iterator<Item = &Key> {
        let bounds = (Bound::Included(&range.begin), Bound::Excluded(&range.end));
        // An inverted pair of bounds would panic.
        let keys = (!range.is_empty()).then(|| self.keys.range::<Key, _>(bounds));
        keys.into_iter().flatten().map(|(key, _)| key)
    }

    /// The keys of watches that have waited for a version up to this one. The caller looks at them next.
    pub fn take_due(&mut self, applied_version: Version) -> BTreeSet<Key> {
        let still_early = match applied_version.0.checked_add(1) {
            Some(next) => self.early.split_off(&(Version(next), (WatchSessionId(0), 0))),
            None => BTreeSet::new(),
        };
        let due = std::mem::replace(&mut self.early, still_early);
        let key_of = |(_, id): &(Version, WatchId)| self.key_of(*id).cloned();
        due.iter().filter_map(key_of).collect()
    }

    fn key_of(&self, (session, number): WatchId) -> Option<&Key> {
        self.sessions.get(&session)?.keys.get(&number)
    }

    /// Compares what is known of a key with what the server has, at its applied version.
    pub fn look(&mut self, key: &Key, found: Found<'_>, applied_version: Version) {
        let Some(watches) = self.keys.get_mut(key) else { return };
        let ended: Vec<WatchId> = match found {
            Found::Elsewhere => watches.keys().copied().collect(),
            Found::Here(value) => {
                let present = value.map(|value| ValueDigest::of(value));
                let mut changed = Vec::new();
                for (id, watch) in watches.iter_mut() {
                    if watch.known_version > applied_version {
                        mark(Mark::WatchWaited);
                    } else if watch.known == present {
                        watch.looked_at = Some(applied_version);
                        self.early.remove(&(watch.known_version, *id));
                    } else {
                        changed.push(*id);
                    }
                }
                changed
            }
        };
        let end = match found {
            Found::Elsewhere => WatchEnd::WrongShard,
            Found::Here(_) => WatchEnd::Changed(applied_version),
        };
        for id in ended {
            self.end_with(id, end);
        }
    }

    fn end_with(&mut self, id: WatchId, end: WatchEnd) {
        if end == WatchEnd::WrongShard {
            mark(Mark::WatchRefused);
        }
        self.end(id);
        if let Some(session) = self.sessions.get_mut(&id.0) {
            Self::tell(session, &mut self.rung, id, end);
        }
    }

    fn tell(session: &mut Session, rung: &mut Vec<WatchSessionId>, id: WatchId, end: WatchEnd) {
        if session.news.is_empty() {
            rung.push(id.0);
        }
        session.news.push((id.1, end));
    }

    /// The versions after this one are gone. Returns the keys to look at again.
    pub fn on_rollback(&mut self, version: Version) -> BTreeSet<Key> {
        if planted(Plant::ForgetWatchAtRollback) {
            return BTreeSet::new();
        }
        let is_concerned = |watch: &Watch| watch.looked_at.is_none_or(|looked| looked > version);
        let mut again = BTreeSet::new();
        for (key, watches) in &mut self.keys {
            for (id, watch) in watches.iter_mut().filter(|(_, watch)| is_concerned(watch)) {
                mark(Mark::WatchRolledBack);
                watch.looked_at = None;
                // It may have known the value at a version that this server had reached and has no more.
                self.early.insert((watch.known_version, *id));
                again.insert(key.clone());
            }
        }
        again
    }

    /// The server holds nothing any more.
    pub fn refuse_all(&mut self) {
        let all: Vec<WatchId> =
            self.keys.values().flat_map(|of_key| of_key.keys()).copied().collect();
        for id in all {
            self.end_with(id, WatchEnd::WrongShard);
        }
    }

    /// Somebody begins to wait for the news of a session.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NoSuchEndpoint`] if the session is not known.
    pub fn begin_poll(&mut self, session: WatchSessionId) -> Result<()> {
        self.sessions.get_mut(&session).ok_or_else(unknown_session)?.polls += 1;
        Ok(())
    }

    /// The news of a session since the last call, up to the limit of an answer.
    pub fn take_news(&mut self, session: WatchSessionId) -> Vec<(u64, WatchEnd)> {
        let Some(session) = self.sessions.get_mut(&session) else { return Vec::new() };
        let kept = session.news.len().min(limits::WATCHES_PER_REQUEST_MAX);
        let later = session.news.split_off(kept);
        std::mem::replace(&mut session.news, later)
    }

    /// Somebody has waited for the news of a session.
    pub fn end_poll(&mut self, session: WatchSessionId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.polls -= 1;
            session.idle_since = now;
        }
    }

    /// Forgets the sessions that nobody asks for any more, with their watches. Returns which.
    pub fn forget_idle(&mut self, now: Instant) -> Vec<WatchSessionId> {
        let is_idle = |session: &Session| {
            session.polls == 0
                && now.saturating_duration_since(session.idle_since) > SESSION_LIFETIME
        };
        let idle = self.sessions.iter().filter(|(_, session)| is_idle(session));
        let idle: Vec<WatchSessionId> = idle.map(|(id, _)| *id).collect();
        for &id in &idle {
            let numbers: Vec<u64> = self.sessions[&id].keys.keys().copied().collect();
            numbers.into_iter().for_each(|number| self.end((id, number)));
            self.sessions.remove(&id);
            self.bytes -= SESSION_BYTES;
        }
        idle
    }
}

fn watch_bytes(key: &Key) -> usize {
    WATCH_BYTES + 2 * key.len()
}

fn unknown_session() -> Error {
    let detail = "the session of these watches is not known here";
    Error::new(ErrorCode::NoSuchEndpoint, Stage::Read, detail)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
