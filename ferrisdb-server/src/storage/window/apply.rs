//! Taking in versions: applying, advancing, rolling back.

use std::collections::VecDeque;

use ferrisdb_core::{Error, ErrorCode, Key, Mutation, Result, Stage, Value, Version};

use super::{
    clears::{Clears, NODE_BYTES},
    history::{Stamp, Write},
    view::Lookup,
    writes::{KEY_BYTES, WrittenKeys},
};

/// The newest versions of a storage server's data, see the [module](super).
#[derive(Debug)]
pub struct Window {
    /// The changes of versions up to here are forgotten: the engine has them.
    pub(super) flushed_version: Version,
    pub(super) oldest_version: Version,
    pub(super) applied_version: Version,
    pub(super) writes: WrittenKeys,
    /// By version, ascending; only versions that changed something.
    pub(super) journal: VecDeque<Change>,
    /// The sum over the journal.
    pub(super) bytes: usize,
}

/// What one version changed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) version: Version,
    /// The keys it wrote, each once.
    pub(super) keys: Vec<Key>,
    /// All clears of versions up to this one.
    pub(super) clears: Clears,
    /// About the memory that it takes in the window.
    pub(super) bytes: usize,
}

/// A write without its key's and value's bytes: what its key takes, and the journal's key.
const WRITE_BYTES: usize = KEY_BYTES + size_of::<Key>();

impl Window {
    /// An empty window in front of an engine that is at `version`.
    pub fn new(version: Version) -> Window {
        Window {
            flushed_version: version,
            oldest_version: version,
            applied_version: version,
            writes: WrittenKeys::new(),
            journal: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The newest version that can be read.
    pub fn applied_version(&self) -> Version {
        self.applied_version
    }

    /// The oldest version that can be read.
    pub fn oldest_version(&self) -> Version {
        self.oldest_version
    }

    /// The version up to which changes are forgotten: the engine has them.
    pub fn flushed_version(&self) -> Version {
        self.flushed_version
    }

    /// About the memory that the window takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the engine has everything that was applied.
    pub fn is_empty(&self) -> bool {
        self.journal.is_empty()
    }

    /// Takes note of a version that changes nothing here.
    ///
    /// # Panics
    ///
    /// If the version is not later than all before (I-7).
    pub fn advance(&mut self, version: Version) {
        assert!(version > self.applied_version, "{version} after {} (I-7)", self.applied_version);
        self.applied_version = version;
    }

    /// Applies all mutations of one version, in order.
    ///
    /// `base` reads the engine, for atomic operations on keys that the window does not know.
    ///
    /// # Errors
    ///
    /// Those of `base`, and `Protocol` for a mutation whose versionstamp was never filled in. The window is
    /// then as it was before.
    ///
    /// # Panics
    ///
    /// If the version is not later than all before (I-7).
    pub fn apply(
        &mut self,
        version: Version,
        mutations: impl IntoIterator<Item = Mutation>,
        base: &mut dyn FnMut(&Key) -> Result<Option<Value>>,
    ) -> Result<()> {
        assert!(version > self.applied_version, "{version} after {} (I-7)", self.applied_version);
        let clears = self.newest_clears().cloned().unwrap_or_default();
        let mut change = Change { version, keys: Vec::new(), clears, bytes: 0 };
        for (mutation, sequence) in mutations.into_iter().zip(0..) {
            let stamp = Stamp { version, sequence };
            if let Err(error) = self.apply_one(mutation, stamp, &mut change, base) {
                self.forget_writes_after(&change.keys, self.applied_version);
                return Err(error);
            }
        }
        self.applied_version = version;
        // Whatever changes something takes memory.
        if change.bytes > 0 {
            self.bytes += change.bytes;
            self.journal.push_back(change);
        }
        Ok(())
    }

    fn apply_one(
        &mut self,
        mutation: Mutation,
        stamp: Stamp,
        change: &mut Change,
        base: &mut dyn FnMut(&Key) -> Result<Option<Value>>,
    ) -> Result<()> {
        match mutation {
            Mutation::Set { key, value } => self.write(key, Some(value), stamp, change),
            Mutation::Clear { key } => self.write(key, None, stamp, change),
            Mutation::ClearRange { range } if range.is_empty() => {}
            // A write takes less memory than a clear, and leaves the tree small.
            Mutation::ClearRange { range } if range.is_single_key() => {
                self.write(range.begin, None, stamp, change);
            }
            Mutation::ClearRange { range } => {
                let key_bytes = range.begin.len() + range.end.len();
                let allocated = change.clears.insert(range, stamp);
                change.bytes += key_bytes + allocated * NODE_BYTES;
            }
            Mutation::Atomic { key, op, operand } => {
                let present = match self.newest(&key, &change.clears) {
                    Lookup::Value(present) => Some(present.value),
                    Lookup::Cleared => None,
                    Lookup::Unknown => base(&key)?,
                };
                let value = op.apply(present.as_ref(), &operand);
                self.write(key, value, stamp, change);
            }
            Mutation::SetVersionstampedKey { key, .. }
            | Mutation::SetVersionstampedValue { key, .. } => {
                let detail = format!("no versionstamp in the mutation of {key}");
                return Err(Error::new(ErrorCode::Protocol, Stage::Apply, detail));
            }
        }
        Ok(())
    }

    fn write(&mut self, key: Key, value: Option<Value>, stamp: Stamp, change: &mut Change) {
        change.bytes += value.as_ref().map_or(0, |value| value.len());
        let is_first = self.writes.push(&key, Write { stamp, value });
        if is_first {
            change.bytes += WRITE_BYTES + key.len();
            change.keys.push(key);
        }
    }

    /// What is known of a key in the midst of a version, whose clears so far are given.
    fn newest(&self, key: &Key, clears: &Clears) -> Lookup {
        self.view_of(Version::MAX, Some(clears)).get(key)
    }

    /// Forgets all versions after `version`: the recovery did not keep them (I-10).
    ///
    /// # Panics
    ///
    /// If the version is before the oldest one: the engine never runs ahead of what is known to be
    /// committed (I-9), and a recovery keeps all of that.
    pub fn rollback_after(&mut self, version: Version) {
        assert!(
            version >= self.oldest_version,
            "rollback to {version}, engine at up to {} (I-9)",
            self.oldest_version
        );
        while self.journal.back().is_some_and(|change| change.version > version) {
            let Some(change) = self.journal.pop_back() else { break };
            self.bytes -= change.bytes;
            self.forget_writes_after(&change.keys, version);
        }
        self.applied_version = self.applied_version.min(version);
    }

    fn forget_writes_after(&mut self, keys: &[Key], version: Version) {
        for key in keys {
            self.writes.forget(key, |history| history.forget_after(version));
        }
    }

    pub(super) fn newest_clears(&self) -> Option<&Clears> {
        self.journal.back().map(|change| &change.clears)
    }

    /// The clears of versions up to `version`; none if all of those are flushed.
    pub(super) fn clears_at(&self, version: Version) -> Option<&Clears> {
        match self.journal.back() {
            Some(newest) if newest.version <= version => Some(&newest.clears),
            _ => {
                let count = self.journal.partition_point(|change| change.version <= version);
                count.checked_sub(1).map(|last| &self.journal[last].clears)
            }
        }
    }
}
