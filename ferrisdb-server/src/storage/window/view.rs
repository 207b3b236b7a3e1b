//! What the window knows at one version.

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Version, service::storage::VersionedValue,
};

use super::{
    Window,
    clears::{Around, Clears, Piece},
    history::{Stamp, Write},
    writes,
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
        View { window: self, version, clears: clears.filter(|clears| !clears.is_empty()) }
    }
}

/// The window at one version.
#[derive(Clone, Copy)]
pub struct View<'a> {
    window: &'a Window,
    version: Version,
    clears: Option<&'a Clears>,
}

impl<'a> View<'a> {
    /// What the window knows of a key.
    pub fn get(&self, key: &[u8]) -> Lookup {
        let write = self.window.writes.get(key).and_then(|history| history.at(self.version));
        let cleared = self.clear_over(key).map(|piece| piece.stamp);
        match later(write, cleared) {
            Some(write) => write.lookup(),
            None if cleared.is_some() => Lookup::Cleared,
            None => Lookup::Unknown,
        }
    }

    /// The keys of a range, which is not empty, that were written, with their last writes.
    pub(in crate::storage) fn writes(&self, range: &KeyRange, reverse: bool) -> Writes<'a> {
        Writes { histories: self.window.writes.range(range), version: self.version, reverse }
    }

    /// The stretches of this view, to be asked for key after key.
    pub(in crate::storage) fn stretches(&self) -> Stretches<'a> {
        Stretches { view: *self, current: None }
    }

    /// The first key at or above `key` that no clear covers.
    pub(in crate::storage) fn uncleared_from(&self, key: &Key) -> Key {
        let mut from = key;
        let view = *self;
        while let Some(piece) = view.clear_over(from) {
            from = &piece.end;
        }
        from.clone()
    }

    /// The end of the last stretch below `key` that no clear covers: all keys from there to `key` are cleared.
    pub(in crate::storage) fn uncleared_before(&self, key: &Key) -> Key {
        let mut before = key;
        while let Some(piece) = self
            .clears
            .and_then(|clears| clears.around_before(before).before)
            .filter(|piece| piece.end >= *before && self.counts(piece))
        {
            before = &piece.begin;
        }
        before.clone()
    }

    pub(super) fn clear_over(&self, key: &[u8]) -> Option<&'a Piece> {
        let piece = self.clears?.around(key).before?;
        (key < piece.end.as_slice() && self.counts(piece)).then_some(piece)
    }

    /// Whether a clear still has to be respected. Others are in the engine, and what was written after them
    /// too, which the window has forgotten.
    fn counts(&self, piece: &Piece) -> bool {
        piece.stamp.version > self.window.flushed_version
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

/// Written keys in order. Whether a clear is later than a write, [`Stretches::resolve`] tells.
pub(in crate::storage) struct Writes<'a> {
    histories: writes::Range<'a>,
    version: Version,
    reverse: bool,
}

/// A write found by [`Writes`].
#[derive(Clone, Copy)]
pub(in crate::storage) struct Written<'a>(&'a Write);

impl<'a> Iterator for Writes<'a> {
    type Item = (&'a Key, Written<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next =
                if self.reverse { self.histories.next_back() } else { self.histories.next() };
            let (key, history) = next?;
            if let Some(write) = history.at(self.version) {
                return Some((key, Written(write)));
            }
        }
    }
}

/// Finds the clears over keys that are asked for in order, mostly without a search: the answer for one key
/// holds for all keys up to the next end of a piece.
pub(in crate::storage) struct Stretches<'a> {
    view: View<'a>,
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
        let clears = self.view.clears?;
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
                        cleared: self.view.counts(piece).then_some(piece.stamp),
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

    /// The value that a written key has, if it has one.
    pub(in crate::storage) fn resolve(
        &mut self,
        key: &[u8],
        written: Written<'_>,
    ) -> Option<VersionedValue> {
        let cleared = self.clear_over(key);
        match later(Some(written.0), cleared)?.lookup() {
            Lookup::Value(value) => Some(value),
            Lookup::Cleared | Lookup::Unknown => None,
        }
    }
}
