//! What a storage server holds at one version.
//!
//! ```text
//!   'a'..'g' member      'g'..'p' joining since 55, copied up to 'k'      everything else: absent
//!   held: 'a'..'k'       owned: 'a'..'g'
//! ```
//!
//! *Held* keys are those whose data and writes the server has; *owned* ones it answers for.

use ferrisdb_core::simulation::{Mark, mark};
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Tag, Version,
    shard::{ShardChange, ShardRole},
};

/// The ranges, in key order; none overlaps another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings(pub(super) Vec<Holding>);

/// A range that the server is something to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) range: KeyRange,
    pub(super) role: Role,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Member,
    Joining(Joining),
}

/// A copy that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joining {
    /// The version at which it began: tells it from an earlier one of the same keys.
    pub(super) since: Version,
    /// Who was in the shard's team then.
    pub(super) sources: Vec<Tag>,
    /// From the begin of the range up to here it is copied.
    pub(super) copied_to: Key,
}

impl Holding {
    fn held(&self) -> KeyRange {
        match &self.role {
            Role::Member => self.range.clone(),
            Role::Joining(joining) => KeyRange::new(&self.range.begin, &joining.copied_to),
        }
    }

    /// Whether it belongs to the joining that began at `since`.
    pub(super) fn is_of_joining(&self, since: Version) -> bool {
        matches!(&self.role, Role::Joining(joining) if joining.since == since)
    }

    /// The part of it inside of `range`, if there is one.
    fn within(&self, range: &KeyRange) -> Option<Holding> {
        let range = self.range.intersection(range)?;
        let mut role = self.role.clone();
        if let Role::Joining(joining) = &mut role {
            let copied_to = joining.copied_to.clone();
            joining.copied_to = copied_to.clamp(range.begin.clone(), range.end.clone());
        }
        Some(Holding { range, role })
    }

    /// Takes in its right neighbour if both together can be told as one.
    fn absorb(&mut self, next: &Holding) -> bool {
        if self.range.end != next.range.begin {
            return false;
        }
        match (&mut self.role, &next.role) {
            (Role::Member, Role::Member) => {}
            (Role::Joining(ours), Role::Joining(theirs)) => {
                let is_same = ours.since == theirs.since && ours.sources == theirs.sources;
                if is_same && ours.copied_to == self.range.end {
                    ours.copied_to = theirs.copied_to.clone();
                } else if !is_same || theirs.copied_to != next.range.begin {
                    return false;
                }
            }
            _ => return false,
        }
        self.range.end = next.range.end.clone();
        true
    }
}

impl Holdings {
    /// The ranges, without those that end before `key`.
    fn not_before(&self, key: &[u8]) -> &[Holding] {
        let index = self.0.partition_point(|holding| holding.range.end.as_slice() <= key);
        &self.0[index..]
    }

    pub(super) fn of_key(&self, key: &[u8]) -> Option<&Holding> {
        self.not_before(key).first().filter(|holding| holding.range.contains(key))
    }

    /// Those that intersect `range`.
    pub(super) fn intersecting<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = &'a Holding> {
        let rest = self.not_before(&range.begin).iter();
        rest.take_while(|holding| holding.range.begin < range.end && !range.is_empty())
    }

    /// Whether the server answers for a key.
    pub(super) fn owns_key(&self, key: &[u8]) -> bool {
        self.of_key(key).is_some_and(|holding| holding.role == Role::Member)
    }

    /// Whether the server answers for all of a range. Of an empty one, that is for its begin.
    pub(super) fn owns_range(&self, range: &KeyRange) -> bool {
        // Neighbours that are both a member's are one.
        self.of_key(&range.begin)
            .is_some_and(|holding| holding.role == Role::Member && range.end <= holding.range.end)
    }

    /// Whether the server has the data and writes of a key.
    pub(super) fn holds_key(&self, key: &[u8]) -> bool {
        self.of_key(key).is_some_and(|holding| match &holding.role {
            Role::Member => true,
            Role::Joining(joining) => key < joining.copied_to.as_slice(),
        })
    }

    /// The parts of a range that the server has data and writes of.
    pub(super) fn held_within<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = KeyRange> + 'a {
        self.intersecting(range).filter_map(|holding| holding.held().intersection(range))
    }

    /// Whether there is something that is not copied yet.
    pub(super) fn is_copying(&self) -> bool {
        self.joining().any(|(range, joining)| joining.copied_to < range.end)
    }

    /// The ranges that are being joined.
    pub(super) fn joining(&self) -> impl Iterator<Item = (&KeyRange, &Joining)> {
        self.0.iter().filter_map(|holding| match &holding.role {
            Role::Member => None,
            Role::Joining(joining) => Some((&holding.range, joining)),
        })
    }

    /// Whether all of a range was copied, in the joining that began at `since`.
    pub(super) fn has_copied(&self, range: &KeyRange, since: Version) -> bool {
        let mut to = &range.begin;
        for holding in self.intersecting(range) {
            match &holding.role {
                Role::Joining(joining) if holding.range.begin <= *to && joining.since == since => {
                    to = &joining.copied_to;
                    if *to < holding.range.end {
                        break;
                    }
                }
                _ => break,
            }
        }
        *to >= range.end
    }

    /// Becomes what a change says. Returns the ranges whose data has to go.
    ///
    /// # Errors
    ///
    /// If the server becomes a member of what it has not copied: it would have to answer for data that it
    /// does not have.
    pub(super) fn change(
        &mut self,
        change: &ShardChange,
        version: Version,
    ) -> Result<Vec<KeyRange>> {
        let range = &change.range;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let before: Vec<Holding> =
            self.intersecting(range).filter_map(|holding| holding.within(range)).collect();
        let mut gone = Vec::new();
        let mut after = Vec::new();
        match &change.role {
            ShardRole::Absent => {
                mark(Mark::ShardGivenUp);
                gone.extend(before.iter().map(Holding::held));
            }
            ShardRole::Member => {
                if let Some(holding) = before.iter().find(|holding| holding.held() != holding.range)
                {
                    return Err(not_copied(holding, version));
                }
                after.push(Holding { range: range.clone(), role: Role::Member });
            }
            ShardRole::Joining { sources } => {
                let begin = |begin: &Key, end: &Key| Holding {
                    range: KeyRange::new(begin, end),
                    role: Role::Joining(Joining {
                        since: version,
                        sources: sources.clone(),
                        copied_to: begin.clone(),
                    }),
                };
                let mut at = range.begin.clone();
                for mut holding in before {
                    if at < holding.range.begin {
                        after.push(begin(&at, &holding.range.begin));
                    }
                    at = holding.range.end.clone();
                    match &mut holding.role {
                        Role::Joining(joining) => joining.sources.clone_from(sources),
                        // It was told to forget what it has, and to begin anew.
                        Role::Member => {
                            gone.push(holding.range.clone());
                            holding = begin(&holding.range.begin, &holding.range.end);
                        }
                    }
                    after.push(holding);
                }
                if at < range.end {
                    after.push(begin(&at, &range.end));
                }
            }
        }
        self.replace(range, after);
        gone.retain(|range| !range.is_empty());
        Ok(gone)
    }

    /// Puts `inside` in the place of what is inside of `range`.
    fn replace(&mut self, range: &KeyRange, inside: Vec<Holding>) {
        let below = KeyRange::new(Key::MIN, &range.begin);
        let old = std::mem::take(&mut self.0);
        let all = old.iter().filter_map(|holding| holding.within(&below)).chain(inside);
        let above = old.iter().filter_map(|holding| {
            let rest = KeyRange::new(&range.end, holding.range.end.clone().max(range.end.clone()));
            holding.within(&rest)
        });
        for holding in all.chain(above) {
            if !self.0.last_mut().is_some_and(|last| last.absorb(&holding)) {
                self.0.push(holding);
            }
        }
    }

    /// Notes that the range that is being copied from `from` on was copied up to `to`. Returns whether
    /// there is such a range.
    pub(super) fn advance_copy(&mut self, from: &Key, since: Version, to: &Key) -> bool {
        let found = self.0.iter_mut().find_map(|holding| match &mut holding.role {
            Role::Joining(joining) if joining.copied_to == *from && joining.since == since => {
                (*from < *to && *to <= holding.range.end).then_some(&mut joining.copied_to)
            }
            _ => None,
        });
        found.map(|copied_to| copied_to.clone_from(to)).is_some()
    }

    /// The stretches of all keys of which the server has no data, in key order.
    pub(super) fn gaps(&self) -> Vec<KeyRange> {
        let KeyRange { begin, end } = KeyRange::prefix(b"");
        let mut gaps = Vec::new();
        let mut at = begin;
        for held in self.0.iter().map(Holding::held).filter(|held| !held.is_empty()) {
            gaps.push(KeyRange::new(&at, &held.begin));
            at = held.end;
        }
        gaps.push(KeyRange { begin: at, end });
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }
}

fn not_copied(holding: &Holding, version: Version) -> Error {
    let detail = format!(
        "version {version} makes this server a member of {:?}, of which it has copied only {:?}",
        holding.range,
        holding.held()
    );
    Error::new(ErrorCode::Protocol, Stage::Apply, detail)
}
