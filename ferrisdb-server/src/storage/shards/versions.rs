//! The holdings of a storage server at each version that somebody can still ask for.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use bytes::Bytes;
use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Mutation, Result, Stage, Tag, Version,
    mutation::Item,
    shard::{ShardChange, ShardRole},
};

use super::{Holdings, attachment};

/// The shards of a storage server, see the [module](super).
#[derive(Clone, Debug)]
pub struct Shards {
    /// Whose data the server has; `None` if it has none.
    tag: Option<Tag>,
    /// By the version from which on they hold, ascending; never empty. The first one holds from the engine's version
    /// on, or from before.
    states: VecDeque<(Version, Arc<Holdings>)>,
    /// What the engine's attachment says.
    durable: Arc<Holdings>,
}

/// What is to be copied next of one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// All that is left of the range.
    pub range: KeyRange,
    /// Who was in the shard's team when the copy began.
    pub sources: Vec<Tag>,
    since: Version,
}

impl Shards {
    /// The shards of a server that has no tag and no data.
    pub fn none() -> Shards {
        Shards::of(None, Version::ZERO, Holdings::default())
    }

    /// A server that has just been given a tag, and holds nothing yet.
    pub fn new(tag: Tag, begin_version: Version) -> Shards {
        Shards::of(Some(tag), begin_version, Holdings::default())
    }

    /// What an engine at `version` has.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Corrupt`] if nobody can have written that attachment.
    pub fn restore(attachment: Option<Bytes>, version: Version) -> Result<Shards> {
        let Some(attachment) = attachment else { return Ok(Shards::none()) };
        let Some((tag, holdings)) = attachment::decode(attachment) else {
            let detail = "the engine's list of shards is malformed";
            return Err(Error::new(ErrorCode::Corrupt, Stage::Apply, detail));
        };
        Ok(Shards::of(Some(tag), version, holdings))
    }

    fn of(tag: Option<Tag>, version: Version, holdings: Holdings) -> Shards {
        let holdings = Arc::new(holdings);
        Shards {
            tag,
            states: VecDeque::from([(version, Arc::clone(&holdings))]),
            durable: holdings,
        }
    }

    /// Whose data the server has.
    pub fn tag(&self) -> Option<Tag> {
        self.tag
    }

    fn newest(&self) -> &(Version, Arc<Holdings>) {
        self.states.back().expect("there is always a state")
    }

    fn at(&self, version: Version) -> &Arc<Holdings> {
        let count = self.states.partition_point(|(from, _)| *from <= version);
        &self.states[count.saturating_sub(1)].1
    }

    /// Puts the holdings that hold from `version` on, which is not before any other.
    fn put(&mut self, version: Version, holdings: Holdings) {
        let (newest, state) = self.states.back_mut().expect("there is always a state");
        if *newest == version {
            *state = Arc::new(holdings);
        } else {
            self.states.push_back((version, Arc::new(holdings)));
        }
    }

    /// Whether the server answers for a key at a version that its window has.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::WrongShard`]; [`ErrorCode::TransactionTooOld`] if it does at later versions;
    /// [`ErrorCode::Unavailable`] as long as it has no tag.
    pub fn check_key(&self, key: &[u8], version: Version) -> Result<()> {
        self.check(
            version,
            |holdings| holdings.owns_key(key),
            || format!("{:?}", Key::copy_from(key)),
        )
    }

    /// Whether the server answers for a range at a version that its window has: all of it, or nothing.
    ///
    /// # Errors
    ///
    /// As [`Shards::check_key`].
    pub fn check_range(&self, range: &KeyRange, version: Version) -> Result<()> {
        self.check(version, |holdings| holdings.owns_range(range), || format!("{range:?}"))
    }

    fn check(
        &self,
        version: Version,
        owns: impl Fn(&Holdings) -> bool,
        what: impl Fn() -> String,
    ) -> Result<()> {
        self.check_tag()?;
        if owns(self.at(version)) || planted(Plant::ServeForeignShard) {
            return Ok(());
        }
        let (code, when) = if owns(&self.newest().1) {
            // A newer version finds it here.
            (ErrorCode::TransactionTooOld, "was not on this server yet")
        } else {
            mark(Mark::WrongShard);
            (ErrorCode::WrongShard, "is not on this server")
        };
        Err(Error::new(code, Stage::Read, format!("{} {when} at version {version}", what())))
    }

    /// Whether the server has any data to answer from.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Unavailable`] if it has not.
    pub fn check_tag(&self) -> Result<()> {
        if self.tag.is_some() {
            return Ok(());
        }
        let detail = "the server is no part of the cluster yet";
        Err(Error::new(ErrorCode::Unavailable, Stage::Read, detail))
    }

    /// Takes in what the stream has at a version, later than all before. Returns what the window has to
    /// apply: the mutations of what is held, and clears of what is held no more.
    ///
    /// # Errors
    ///
    /// If the server cannot become what the stream says. It has not changed then.
    pub fn apply(&mut self, version: Version, items: Vec<Item>) -> Result<Vec<Mutation>> {
        let newest = Arc::clone(&self.newest().1);
        let mut holdings = Cow::Borrowed(&*newest);
        let mut mutations = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::ShardChange(change) => {
                    log_change(&change, version);
                    let gone = holdings.to_mut().change(&change, version)?;
                    mutations.extend(gone.into_iter().map(|range| Mutation::ClearRange { range }));
                }
                Item::Mutation(mutation) => filter(&holdings, mutation, &mut mutations),
            }
        }
        if let Cow::Owned(holdings) = holdings {
            self.put(version, holdings);
        }
        Ok(mutations)
    }

    /// Forgets what was learnt at versions after `version` (I-10).
    pub fn rollback_after(&mut self, version: Version) {
        while self.states.len() > 1 && self.newest().0 > version {
            self.states.pop_back();
        }
        let oldest = self.newest().0;
        assert!(oldest <= version, "rollback to {version}, engine at {oldest} or later (I-9)");
    }

    /// What the engine has to say of itself when it is at `version`.
    pub fn flush(&self, version: Version) -> Arc<Holdings> {
        Arc::clone(self.at(version))
    }

    /// The attachment that says so; `None` if the engine has it already.
    pub fn attachment_of(&self, holdings: &Arc<Holdings>) -> Option<Bytes> {
        if holdings == &self.durable {
            return None;
        }
        Some(attachment::encode(self.tag?, holdings))
    }

    /// The attachment of an engine that begins with what is now.
    pub fn first_attachment(&self) -> Option<Bytes> {
        Some(attachment::encode(self.tag?, &self.newest().1))
    }

    /// The engine is at `version`, with what [`Shards::flush`] returned.
    pub fn on_flushed(&mut self, version: Version, holdings: Arc<Holdings>) {
        self.durable = holdings;
        while self.states.get(1).is_some_and(|(from, _)| *from <= version) {
            self.states.pop_front();
        }
    }

    /// Whether the engine has everything that is here.
    pub fn is_durable(&self) -> bool {
        self.newest().1 == self.durable
    }

    /// Whether there is something to copy, now or later.
    pub fn is_copying(&self) -> bool {
        self.newest().1.is_copying()
    }

    /// What can be copied now: not what the window still knows something about from an earlier time.
    pub fn parts_to_copy(&self) -> Vec<Part> {
        let (_, newest) = self.newest();
        let incomplete = newest.joining().filter(|(range, joining)| joining.copied_to < range.end);
        let ready = incomplete.filter(|(range, joining)| {
            let mut earlier = self.states.iter().flat_map(|(_, state)| state.intersecting(range));
            earlier.all(|holding| holding.is_of_joining(joining.since))
        });
        let part = ready.map(|(range, joining)| Part {
            range: KeyRange::new(&joining.copied_to, &range.end),
            sources: joining.sources.clone(),
            since: joining.since,
        });
        part.collect()
    }

    /// The engine has the rows of `part` up to, not including, `copied_to`, as of the applied version.
    ///
    /// Returns whether that counts: the part may have been left meanwhile.
    pub fn record_page(&mut self, applied_version: Version, part: &Part, copied_to: &Key) -> bool {
        let mut holdings = Holdings::clone(&self.newest().1);
        let counts = holdings.advance_copy(&part.range.begin, part.since, copied_to);
        if counts {
            self.put(applied_version, holdings);
        }
        counts
    }

    /// The ranges that were joined and copied, and are so on disk.
    pub fn copied(&self) -> Vec<KeyRange> {
        self.joining(|is_copied| is_copied)
    }

    /// The ranges that were joined, and are not copied or not on disk yet.
    pub fn copying(&self) -> Vec<KeyRange> {
        self.joining(|is_copied| !is_copied)
    }

    fn joining(&self, wanted: impl Fn(bool) -> bool) -> Vec<KeyRange> {
        let (_, newest) = self.newest();
        let mut ranges: Vec<KeyRange> = Vec::new();
        for (range, joining) in newest.joining() {
            let is_durable =
                self.durable.has_copied(range, joining.since) || planted(Plant::ReportCopyTooEarly);
            let is_copied = joining.copied_to == range.end && is_durable;
            if wanted(is_copied) {
                match ranges.last_mut() {
                    Some(last) if last.end == range.begin => last.end = range.end.clone(),
                    _ => ranges.push(range.clone()),
                }
            }
        }
        ranges
    }

    /// What the engine may have rows of, from before a crash, that nobody will ever read.
    ///
    /// # Panics
    ///
    /// If anything was applied since the engine was opened: older versions may read what newer ones do not hold.
    pub fn gaps_after_restart(&self) -> Vec<KeyRange> {
        assert_eq!(self.states.len(), 1, "versions after the engine's were applied (I-3)");
        if self.tag.is_some() { self.newest().1.gaps() } else { Vec::new() }
    }
}

/// Keeps of a mutation what concerns keys that are held.
fn filter(holdings: &Holdings, mutation: Mutation, kept: &mut Vec<Mutation>) {
    let key = match &mutation {
        Mutation::ClearRange { range } => {
            return kept
                .extend(holdings.held_within(range).map(|range| Mutation::ClearRange { range }));
        }
        Mutation::Set { key, .. }
        | Mutation::Clear { key }
        | Mutation::Atomic { key, .. }
        | Mutation::SetVersionstampedKey { key, .. }
        | Mutation::SetVersionstampedValue { key, .. } => key,
    };
    if holdings.holds_key(key) {
        kept.push(mutation);
    } else if holdings.of_key(key).is_none() {
        tracing::debug!(%key, "a mutation of a key that is not on this server is dropped");
    }
}

fn log_change(ShardChange { range, role }: &ShardChange, version: Version) {
    match role {
        ShardRole::Absent => tracing::info!(%version, %range, "leaves a range"),
        ShardRole::Joining { .. } => tracing::info!(%version, %range, "joins a range"),
        ShardRole::Member => tracing::info!(%version, %range, "is a member of a range"),
    }
}
