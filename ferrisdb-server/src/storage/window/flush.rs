//! Handing versions over to the engine, and forgetting them afterwards.

use ferrisdb_core::{Key, KeyRange, Version, service::storage::Row};

use super::{Window, clears::NODE_BYTES, view::later};
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
    /// If the version is not within oldest ..= applied.
    pub fn begin_flush(&mut self, version: Version) -> EngineBatch {
        self.raise_oldest_version(version);
        self.flush_batch(version)
    }

    /// From now on reads below `version` are too old, and the engine may be written up to it.
    ///
    /// # Panics
    ///
    /// If the version is not within oldest ..= applied.
    pub fn raise_oldest_version(&mut self, version: Version) {
        assert!(version >= self.oldest_version, "flush {version} after {}", self.oldest_version);
        assert!(version <= self.applied_version, "flush {version} of {}", self.applied_version);
        self.oldest_version = version;
    }

    /// What takes the engine to `version`, from wherever it is between the last flushed and the oldest version.
    ///
    /// First come range clears, then sets and clears of single keys in the order of keys. The work is
    /// proportional to what was changed up to `version`.
    ///
    /// # Panics
    ///
    /// If the version is not within oldest ..= applied.
    pub fn flush_batch(&self, version: Version) -> EngineBatch {
        let mut changes: Vec<EngineChange> =
            self.flush_ranges(version).into_iter().map(EngineChange::ClearRange).collect();

        let flushed = self.journal.iter().take_while(|change| change.version <= version);
        let mut keys: Vec<&Key> = flushed.flat_map(|change| &change.keys).collect();
        keys.sort_unstable();
        keys.dedup();

        let mut stretches = self.view(version).stretches();
        changes.reserve(keys.len());
        for key in keys {
            let write = self.writes.get(key).and_then(|history| history.at(version));
            let cleared = stretches.clear_over(key);
            let Some(write) = later(write, cleared) else { continue };
            match &write.value {
                Some(value) => changes.push(EngineChange::Set(Row {
                    key: key.clone(),
                    value: value.clone(),
                    commit_version: write.stamp.version,
                })),
                None if cleared.is_none() => changes.push(EngineChange::Clear(key.clone())),
                // A range clear of this batch has removed it already.
                None => {}
            }
        }
        EngineBatch { version, changes, attachment: None }
    }

    /// The ranges cleared up to `version`, neighbours joined: many pieces may come from one clear.
    fn flush_ranges(&self, version: Version) -> Vec<KeyRange> {
        let mut ranges: Vec<KeyRange> = Vec::new();
        if let Some(clears) = self.clears_at(version) {
            clears.for_each_after(self.flushed_version, &mut |piece| match ranges.last_mut() {
                Some(range) if range.end == piece.begin => range.end = piece.end.clone(),
                _ => ranges.push(KeyRange::new(&piece.begin, &piece.end)),
            });
        }
        ranges
    }

    /// The engine has all changes up to `version`: forgets them.
    ///
    /// Takes time for each of them. Any version up to the engine's may be given, so it can be done in steps.
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
        self.flushed_version = self.flushed_version.max(version);
        while self.journal.front().is_some_and(|change| change.version <= version) {
            let Some(change) = self.journal.pop_front() else { break };
            self.bytes -= change.bytes;
            for key in &change.keys {
                self.forget_writes(key, |history| history.forget_through(version));
            }
        }
        // Later versions grow from the newest tree: without this, pieces would stay in it for ever. Trees of
        // versions in between keep theirs until they are flushed.
        if let Some(newest) = self.journal.back_mut() {
            let bytes = newest.clears.prune(version) * NODE_BYTES;
            newest.bytes += bytes;
            self.bytes += bytes;
        }
    }
}
