//! What the window knows at one version.

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Version,
    service::storage::{Row, VersionedValue},
};

use super::{
    Window,
    clears::{Around, Clears, Piece},
    history::{Stamp, Write},
};

/// What the window knows of a key at a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The key has this value.
    Value(VersionedValue),
    /// The key has no value.
    Cleared,
    /// Nothing: the key is as the engine has it.
    Unknown,
}

impl Window {
    /// Checks that reads at `version` can be answered.
    ///
    /// # Errors
    ///
    /// `TransactionTooOld` below [`Window::oldest_version`], `FutureVersion` above
    /// [`Window::applied_version`].
    pub fn check_version(&self, version: Version) -> Result<()> {
        let is_served = planted(Plant::ServePastBorder)
            && version.saturating_add(50_000) >= self.oldest_version();
        if version < self.oldest_version() && !is_served {
            mark(Mark::ReadTooOld);
            let detail = format!("read version {version}, oldest kept {}", self.oldest_version());
            return Err(Error::new(ErrorCode::TransactionTooOld, Stage::Read, detail));
        }
        if version > self.applied_version() {
            let detail = format!("read version {version}, reached {}", self.applied_version());
            return Err(Error::new(ErrorCode::FutureVersion, Stage::Read, detail));
        }
        Ok(())
    }

    /// What the window knows of a key at a version that [`Window::check_version`] admits.
    ///
    /// # Panics
    ///
    /// If the version is not within oldest ..= applied.
    pub fn get(&self, key: &[u8], version: Version) -> Lookup {
        self.view(version).get(key)
    }

    /// The window at a version that [`Window::check_version`] admits.
    ///
    /// # Panics
    ///
    /// If the version is not within oldest ..= applied.
    pub fn view(&self, version: Version) -> View<'_> {
        assert!(
            version >= self.oldest_version || planted(Plant::ServePastBorder),
            "view at {version}, before {}",
            self.oldest_version
        );
        assert!(version <= self.applied_version, "view at {version} of {}", self.applied_version);
        let version = match planted(Plant::ReadTooNew) {
            true => self.applied_version.min(version.next()),
            false => version,
        };
        self.view_of(version, self.clears_at(version))
    }

    /// The writes of versions up to `version`, under the given clears.
    pub(super) fn view_of<'a>(&'a self, version: Version, clears: Option<&'a Clears>) -> View<'a> {
        let flushed_version = self.flushed_version;
        View { window: self, version, cover: Cover::new(clears, flushed_version) }
    }

    /// What the window knows of the near part of a range, which is not empty, at a version that [`Window::check_version`]
    /// admits.
    ///
    /// # Panics
    ///
    /// If the version is not within oldest ..= applied.
    pub(in crate::storage) fn excerpt(
        &self,
        range: &KeyRange,
        version: Version,
        reverse: bool,
        most: ExcerptMost,
    ) -> Excerpt {
        let View { version, cover, .. } = self.view(version);
        let mut histories = self.writes.range(range);
        let mut excerpt = Excerpt {
            range: range.clone(),
            writes: Vec::new(),
            looked_at: 0,
            clears: cover.clears.cloned(),
            flushed_version: self.flushed_version,
        };
        let (mut values, mut bytes) = (0, 0);
        while let Some((key, history)) =
            if reverse { histories.next_back() } else { histories.next() }
        {
            excerpt.looked_at += 1;
            if let Some(write) = history.at(version) {
                if let Some(value) = &write.value {
                    values += 1;
                    bytes += key.len() + value.len();
                }
                excerpt.writes.push(Written { key: key.clone(), write: write.clone() });
            }
            let is_enough =
                excerpt.looked_at >= most.looked_at || values >= most.values || bytes >= most.bytes;
            if is_enough && reverse {
                excerpt.range.begin = key.clone();
                break;
            } else if is_enough {
                excerpt.range.end = key.successor().min(excerpt.range.end);
                break;
            }
        }
        excerpt
    }
}

/// Where an excerpt ends: with the first of these that is reached. At least one key is looked at.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct ExcerptMost {
    /// Keys with or without a write at the version.
    pub(in crate::storage) looked_at: usize,
    /// Keys with a value: a reader that wants no more rows needs no more of them.
    pub(in crate::storage) values: usize,
    /// Their bytes.
    pub(in crate::storage) bytes: usize,
}

/// What the window knows of a range at one version, taken out of it: nobody has to wait for its reader.
#[derive(Debug)]
pub(in crate::storage) struct Excerpt {
    /// Of which keys: the near part of what was asked for, in the direction of the read.
    pub(in crate::storage) range: KeyRange,
    /// The keys that were written, with their last writes, in the direction of the read.
    pub(in crate::storage) writes: Vec<Written>,
    /// How many keys the window had to look at.
    pub(in crate::storage) looked_at: usize,
    clears: Option<Clears>,
    flushed_version: Version,
}

impl Excerpt {
    /// The range clears.
    pub(in crate::storage) fn cover(&self) -> Cover<'_> {
        Cover::new(self.clears.as_ref(), self.flushed_version)
    }
}

/// A key and its last write.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Written {
    pub(in crate::storage) key: Key,
    write: Write,
}

/// The window at one version.
#[derive(Clone, Copy)]
pub struct View<'a> {
    window: &'a Window,
    version: Version,
    cover: Cover<'a>,
}

impl<'a> View<'a> {
    /// What the window knows of a key.
    pub fn get(&self, key: &[u8]) -> Lookup {
        let write = self.window.writes.get(key).and_then(|history| history.at(self.version));
        let cleared = self.cover.over(key).map(|piece| piece.stamp);
        match later(write, cleared) {
            Some(write) => write.lookup(),
            None if cleared.is_some() => Lookup::Cleared,
            None => Lookup::Unknown,
        }
    }

    /// The stretches of this view, to be asked for key after key.
    pub(super) fn stretches(&self) -> Stretches<'a> {
        self.cover.stretches()
    }
}

/// The range clears that count at one version.
#[derive(Clone, Copy)]
pub(in crate::storage) struct Cover<'a> {
    clears: Option<&'a Clears>,
    flushed_version: Version,
}

impl<'a> Cover<'a> {
    fn new(clears: Option<&'a Clears>, flushed_version: Version) -> Cover<'a> {
        Cover { clears: clears.filter(|clears| !clears.is_empty()), flushed_version }
    }

    /// To be asked for key after key.
    pub(in crate::storage) fn stretches(&self) -> Stretches<'a> {
        Stretches { cover: *self, current: None }
    }

    /// A key at or above `key` such that clears cover all keys between them: the first one that no clear covers, if so many
    /// pieces lead there. Says how many did.
    pub(in crate::storage) fn uncleared_from(&self, key: &Key, pieces_max: usize) -> (Key, usize) {
        let (mut from, mut pieces) = (key, 0);
        let cover = *self;
        while pieces < pieces_max
            && let Some(piece) = cover.over(from)
        {
            from = &piece.end;
            pieces += 1;
        }
        (from.clone(), pieces)
    }

    /// A key at or below `key` such that clears cover all keys from there to `key`: the end of the last stretch that no clear
    /// covers, if so many pieces lead there. Says how many did.
    pub(in crate::storage) fn uncleared_before(
        &self,
        key: &Key,
        pieces_max: usize,
    ) -> (Key, usize) {
        let (mut before, mut pieces) = (key, 0);
        while pieces < pieces_max
            && let Some(piece) = self
                .clears
                .and_then(|clears| clears.around_before(before).before)
                .filter(|piece| piece.end >= *before && self.counts(piece))
        {
            before = &piece.begin;
            pieces += 1;
        }
        (before.clone(), pieces)
    }

    fn over(&self, key: &[u8]) -> Option<&'a Piece> {
        let piece = self.clears?.around(key).before?;
        (key < piece.end.as_slice() && self.counts(piece)).then_some(piece)
    }

    /// Whether a clear still has to be respected. Others are in the engine, and what was written after them
    /// too, which the window has forgotten.
    fn counts(&self, piece: &Piece) -> bool {
        piece.stamp.version > self.flushed_version
    }
}

/// The write, if it is later than the clear.
pub(super) fn later(write: Option<&Write>, cleared: Option<Stamp>) -> Option<&Write> {
    write.filter(|write| cleared.is_none_or(|cleared| cleared < write.stamp))
}

impl Write {
    fn lookup(&self) -> Lookup {
        match &self.value {
            Some(value) => {
                let commit_version = self.stamp.version;
                Lookup::Value(VersionedValue { value: value.clone(), commit_version })
            }
            None => Lookup::Cleared,
        }
    }
}

/// Finds the clears over keys that are asked for in order, mostly without a search: the answer for one key
/// holds for all keys up to the next end of a piece.
pub(in crate::storage) struct Stretches<'a> {
    cover: Cover<'a>,
    current: Option<Stretch<'a>>,
}

/// Keys from `begin` up to `end` for which the same answer holds; without a bound if there is none.
struct Stretch<'a> {
    begin: Option<&'a Key>,
    end: Option<&'a Key>,
    cleared: Option<Stamp>,
}

impl Stretches<'_> {
    /// The stamp of the clear that counts for a key.
    pub(super) fn clear_over(&mut self, key: &[u8]) -> Option<Stamp> {
        let clears = self.cover.clears?;
        let holds = |stretch: &Stretch<'_>| {
            stretch.begin.is_none_or(|begin| begin.as_slice() <= key)
                && stretch.end.is_none_or(|end| key < end.as_slice())
        };
        match &self.current {
            Some(stretch) if holds(stretch) => stretch.cleared,
            _ => {
                let Around { before, after } = clears.around(key);
                let stretch = match before {
                    Some(piece) if key < piece.end.as_slice() => Stretch {
                        begin: Some(&piece.begin),
                        end: Some(&piece.end),
                        cleared: self.cover.counts(piece).then_some(piece.stamp),
                    },
                    _ => Stretch {
                        begin: before.map(|piece| &piece.end),
                        end: after.map(|piece| &piece.begin),
                        cleared: None,
                    },
                };
                self.current.insert(stretch).cleared
            }
        }
    }

    /// Whether a clear hides what the engine has for a key.
    pub(in crate::storage) fn hides(&mut self, key: &[u8]) -> bool {
        self.clear_over(key).is_some()
    }

    /// The row of a written key, if it has a value.
    pub(in crate::storage) fn resolve(&mut self, written: Written) -> Option<Row> {
        let Written { key, write } = written;
        let cleared = self.clear_over(&key);
        let commit_version = later(Some(&write), cleared)?.stamp.version;
        Some(Row { key, value: write.value?, commit_version })
    }
}
