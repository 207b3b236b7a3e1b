//! Handing versions over to the engine, and forgetting them afterwards.

use bytes::Bytes;
use ferrisdb_core::{Key, KeyRange, Version, service::storage::Row};

use super::{
    Window,
    clears::{Clears, NODE_BYTES},
    sort_key::SortKey,
    view::later,
};
use crate::storage::engine::{EngineBatch, EngineChange};

impl Window {
    /// Raises the oldest version and returns what takes the engine to it: the net changes since the last
    /// version that was flushed.
    ///
    /// Call it before the engine is written, so that readers of older versions notice. The same as
    /// [`Window::raise_oldest_version`], which is short, and [`Window::flush_batch`], which only reads.
    ///
    /// # Panics
    ///
    /// If the version is not within flushed ..= applied.
    pub fn begin_flush(&mut self, version: Version) -> EngineBatch {
        self.raise_oldest_version(version);
        self.flush_batch(version)
    }

    /// From now on reads below `version` are too old, and the engine may be written up to it.
    ///
    /// # Panics
    ///
    /// If the version is not within flushed ..= applied.
    pub fn raise_oldest_version(&mut self, version: Version) {
        assert!(version >= self.flushed_version, "flush {version} after {}", self.flushed_version);
        assert!(version <= self.applied_version, "flush {version} of {}", self.applied_version);
        self.oldest_version = self.oldest_version.max(version);
    }

    /// The version up to which about `bytes_max` of the window would be flushed, of those up to `target`: at least one that
    /// changed something, if there is any.
    pub fn flushed_at_once(&self, target: Version, bytes_max: usize) -> Version {
        let mut bytes = 0;
        let mut reached = None;
        for change in self.journal.iter().take_while(|change| change.version <= target) {
            if bytes >= bytes_max
                && let Some(reached) = reached
            {
                return reached;
            }
            bytes += change.bytes;
            reached = Some(change.version);
        }
        target
    }

    /// What takes the engine to `version`, all at once: see [`Batch`].
    ///
    /// # Panics
    ///
    /// If the version is not within oldest ..= applied.
    pub fn flush_batch(&self, version: Version) -> EngineBatch {
        let mut batch = Batch::new(version);
        while batch.collect(self, usize::MAX) {}
        batch.sort();
        while batch.resolve(self, usize::MAX) {}
        batch.finish(None)
    }

    /// The engine has all changes up to `version`: forgets them.
    ///
    /// Takes time for each of them, so call [`Window::forget_flushed`] and [`Window::prune_clears`] before, in steps.
    ///
    /// # Panics
    ///
    /// If the version is beyond the oldest one: no flush up to it was begun.
    pub fn finish_flush(&mut self, version: Version) {
        assert!(
            version <= self.oldest_version,
            "flushed {version}, begun up to {}",
            self.oldest_version
        );
        while self.forget_flushed(version, usize::MAX) {}
        self.flushed_version = self.flushed_version.max(version);
        self.prune_clears(version, usize::MAX);
    }

    /// A part of [`Window::finish_flush`], after all of [`Window::forget_flushed`]: removes range clears that the engine has, so
    /// many pieces of them. Returns whether there may be more.
    ///
    /// Later versions grow from the newest tree: without this, pieces would stay in it for ever. Trees of versions in between
    /// keep theirs until they are flushed.
    pub fn prune_clears(&mut self, version: Version, pieces_max: usize) -> bool {
        let Some(newest) = self.journal.back_mut() else { return false };
        let mut left = pieces_max;
        let bytes = newest.clears.prune(version, &mut left) * NODE_BYTES;
        newest.bytes += bytes;
        self.bytes += bytes;
        left == 0
    }

    /// A part of [`Window::finish_flush`]: forgets the oldest versions, with about so many keys. Returns whether there are more
    /// up to `version`, which is at most the engine's.
    ///
    /// # Panics
    ///
    /// As [`Window::finish_flush`].
    pub fn forget_flushed(&mut self, version: Version, keys_max: usize) -> bool {
        assert!(version <= self.oldest_version, "flushed {version} before it was begun");
        let mut keys = 0;
        while self.journal.front().is_some_and(|change| change.version <= version) {
            if keys >= keys_max {
                return true;
            }
            let Some(change) = self.journal.pop_front() else { break };
            self.bytes -= change.bytes;
            // From here on the window does not know all of this version any more. The engine has it.
            self.flushed_version = self.flushed_version.max(change.version);
            for key in &change.keys {
                self.writes.forget(key, |history| history.forget_through(change.version));
            }
            keys += change.keys.len();
        }
        false
    }
}

/// A batch that is made in parts, so that nobody waits for the window for long.
///
/// ```text
///   raise_oldest_version    from now on the versions up to the batch's do not change any more
///   collect, collect, ..    the keys they wrote
///   sort                    without the window
///   resolve, resolve, ..    what became of each
///   finish
/// ```
///
/// Between two parts versions may be applied, and those after the batch's rolled back. Only [`Window::finish_flush`] and
/// [`Window::forget_flushed`] have to wait until the batch is made.
///
/// First in the batch are range clears, then sets and clears of single keys in the order of keys. It takes the engine to
/// its version from wherever it is between the last flushed and the oldest version.
#[derive(Debug)]
pub struct Batch {
    version: Version,
    keys: Vec<SortKey>,
    /// How many versions of the journal were looked at.
    collected: usize,
    /// How many keys are resolved.
    resolved: usize,
    changes: Vec<EngineChange>,
    /// The range clears up to the version, and the version up to which the engine has them.
    clears: Clears,
    flushed_version: Version,
}

impl Batch {
    /// Nothing of it yet. The window's oldest version must have been raised to `version`.
    pub fn new(version: Version) -> Batch {
        Batch {
            version,
            keys: Vec::new(),
            collected: 0,
            resolved: 0,
            changes: Vec::new(),
            clears: Clears::default(),
            flushed_version: version,
        }
    }

    /// Collects about so many keys; returns whether there are more.
    ///
    /// # Panics
    ///
    /// If the version is not within oldest ..= applied.
    pub fn collect(&mut self, window: &Window, keys_max: usize) -> bool {
        if self.collected == 0 {
            self.clears = window.clears_at(self.version).cloned().unwrap_or_default();
            self.flushed_version = window.flushed_version;
        }
        let enough = self.keys.len().saturating_add(keys_max);
        while let Some(change) = window.journal.get(self.collected)
            && change.version <= self.version
        {
            if self.keys.len() >= enough {
                return true;
            }
            self.keys.extend(change.keys.iter().cloned().map(SortKey::from));
            self.collected += 1;
        }
        false
    }

    /// Brings the keys into order, each once, and joins the range clears that are neighbours: many pieces may come from one
    /// clear.
    pub fn sort(&mut self) {
        let mut ranges: Vec<KeyRange> = Vec::new();
        self.clears.for_each_after(self.flushed_version, &mut |piece| match ranges.last_mut() {
            Some(range) if range.end == piece.begin => range.end = piece.end.clone(),
            _ => ranges.push(KeyRange::new(&piece.begin, &piece.end)),
        });
        self.changes.extend(ranges.into_iter().map(EngineChange::ClearRange));
        self.keys.sort_unstable();
        self.keys.dedup();
        self.changes.reserve(self.keys.len());
    }

    /// Finds out what became of so many keys; returns whether there are more.
    ///
    /// # Panics
    ///
    /// If the version is not within flushed ..= applied.
    pub fn resolve(&mut self, window: &Window, keys_max: usize) -> bool {
        let end = self.resolved.saturating_add(keys_max).min(self.keys.len());
        let (version, flushed, applied) =
            (self.version, window.flushed_version, window.applied_version);
        assert!(
            flushed <= version && version <= applied,
            "flush {version} of {flushed}..{applied}"
        );
        // Readers of this version may be too old already: the bound that they meet does not wait for the engine.
        let mut stretches = window.view_of(version, window.clears_at(version)).stretches();
        for key in self.keys[self.resolved..end].iter().map(|key| -> &Key { key }) {
            let write = window.writes.get(key).and_then(|history| history.at(self.version));
            let cleared = stretches.clear_over(key);
            let Some(write) = later(write, cleared) else { continue };
            match &write.value {
                Some(value) => self.changes.push(EngineChange::Set(Row {
                    key: key.clone(),
                    value: value.clone(),
                    commit_version: write.stamp.version,
                })),
                None if cleared.is_none() => self.changes.push(EngineChange::Clear(key.clone())),
                // A range clear of this batch has removed it already.
                None => {}
            }
        }
        self.resolved = end;
        end < self.keys.len()
    }

    /// The batch, with an attachment.
    pub fn finish(self, attachment: Option<Bytes>) -> EngineBatch {
        EngineBatch { version: self.version, changes: self.changes, attachment }
    }
}
