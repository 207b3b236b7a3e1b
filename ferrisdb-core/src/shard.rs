//! Who holds which keys: shards, their teams, and how both change while the cluster runs.
//!
//! ```text
//!   \xff/keyServers/      team 0 1                     '' .. 'm'     on storage servers 0 and 1
//!   \xff/keyServers/m     team 1 2    joining 3        'm' .. end    on 1 and 2, and 3 is copying it
//! ```
//!
//! The map is data: keys of the system keyspace, changed by transactions, so every proxy switches at the same
//! version. A set at the beginning of a shard changes that shard; a set inside of one cuts it in two.
//! The proxy that tags such a transaction tells the storage servers concerned in their own streams, as
//! [`ShardChange`]s, at the very version (I-3).
//!
//! ```text
//!   version 40    m: team 1 2, joining 3     3: joining from 1 2        writes go to 1 2 3, reads to 1 2
//!   version 90    m: team 2 3                3: member    1: absent     writes and reads to 2 3
//! ```
//!
//! Start with [`ShardMap::set`].

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::{
    id::Tag,
    key::{Key, Value},
    mutation::{get_varint, put_varint},
    range::KeyRange,
};

/// What every key of the shard map begins with.
pub const KEY_SERVERS: &[u8] = b"\xff/keyServers/";

/// All keys of the shard map.
pub fn key_servers_range() -> KeyRange {
    KeyRange::prefix(KEY_SERVERS)
}

/// The key under which the shard that begins at `begin` is described.
pub fn key_servers_key(begin: &Key) -> Key {
    Key(Bytes::from([KEY_SERVERS, begin.as_slice()].concat()))
}

/// The shard that a key of the shard map describes, by its beginning.
pub fn shard_begin(key: &[u8]) -> Option<Key> {
    key.strip_prefix(KEY_SERVERS).map(Key::copy_from)
}

/// A range of keys and who holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The keys.
    pub range: KeyRange,
    /// Who holds it.
    pub teams: Teams,
}

/// The storage servers of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Teams {
    /// Those that have all of it, and answer reads.
    pub team: Vec<Tag>,
    /// Those that are copying it: they get its writes, but no reads.
    pub joining: Vec<Tag>,
}

/// The format of a value of the shard map.
const FORMAT: u64 = 1;

impl Teams {
    /// A team that nobody joins.
    pub fn of(team: impl IntoIterator<Item = Tag>) -> Teams {
        Teams { team: team.into_iter().collect(), joining: Vec::new() }
    }

    /// Everybody who gets the shard's writes.
    pub fn all(&self) -> impl Iterator<Item = Tag> + '_ {
        self.team.iter().chain(&self.joining).copied()
    }

    /// What a storage server is to the shard.
    pub fn role_of(&self, tag: Tag) -> ShardRole {
        if self.team.contains(&tag) {
            ShardRole::Member
        } else if self.joining.contains(&tag) {
            ShardRole::Joining { sources: self.team.clone() }
        } else {
            ShardRole::Absent
        }
    }

    /// The value in the shard map.
    pub fn to_value(&self) -> Value {
        let mut out = BytesMut::new();
        put_varint(&mut out, FORMAT);
        for tags in [&self.team, &self.joining] {
            put_tags(&mut out, tags);
        }
        Value(out.freeze())
    }

    /// The inverse of [`Teams::to_value`]; `None` for what it cannot have written.
    pub fn from_value(value: &Value) -> Option<Teams> {
        let mut rest = value.0.clone();
        if get_varint(&mut rest)? != FORMAT {
            return None;
        }
        let (team, joining) = (get_tags(&mut rest)?, get_tags(&mut rest)?);
        let is_sound = !team.is_empty() && !rest.has_remaining();
        is_sound.then_some(Teams { team, joining })
    }
}

fn put_tags(out: &mut BytesMut, tags: &[Tag]) {
    put_varint(out, tags.len() as u64);
    tags.iter().for_each(|tag| put_varint(out, u64::from(tag.0)));
}

fn get_tags(rest: &mut Bytes) -> Option<Vec<Tag>> {
    let count = get_varint(rest)?;
    (0..count).map(|_| Some(Tag(u32::try_from(get_varint(rest)?).ok()?))).collect()
}

/// What a storage server is to a range of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardRole {
    /// Nothing: it gets no writes of the range, and forgets what it has.
    Absent,
    /// It gets the writes, and copies the rest from `sources`.
    Joining {
        /// The shard's team.
        sources: Vec<Tag>,
    },
    /// It has all of the range and answers reads.
    Member,
}

/// Tells a storage server what it is to a range from the version on at which this stands in its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardChange {
    /// The keys.
    pub range: KeyRange,
    /// What the server is to them now.
    pub role: ShardRole,
}

impl ShardChange {
    pub(crate) fn put(&self, out: &mut BytesMut) {
        crate::mutation::put_bytes(out, &self.range.begin);
        crate::mutation::put_bytes(out, &self.range.end);
        let (role, sources) = match &self.role {
            ShardRole::Absent => (0, &[][..]),
            ShardRole::Joining { sources } => (1, &sources[..]),
            ShardRole::Member => (2, &[][..]),
        };
        put_varint(out, role);
        put_tags(out, sources);
    }

    pub(crate) fn get(rest: &mut Bytes) -> Option<ShardChange> {
        let begin = Key(crate::mutation::get_bytes(rest)?);
        let end = Key(crate::mutation::get_bytes(rest)?);
        let (role, sources) = (get_varint(rest)?, get_tags(rest)?);
        let role = match role {
            0 => ShardRole::Absent,
            1 => ShardRole::Joining { sources },
            2 => ShardRole::Member,
            _ => return None,
        };
        Some(ShardChange { range: KeyRange { begin, end }, role })
    }
}

/// The shards in key order, without gaps, from the first key to the last.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardMap {
    shards: Vec<Shard>,
}

impl ShardMap {
    /// A map of these shards.
    ///
    /// # Panics
    ///
    /// If they leave a gap or overlap: a mutation would be lost (I-2).
    pub fn new(shards: Vec<Shard>) -> ShardMap {
        for pair in shards.windows(2) {
            assert!(
                pair[0].range.end == pair[1].range.begin,
                "shards leave a gap or overlap at {}: a mutation would be lost (I-2)",
                pair[0].range.end
            );
        }
        ShardMap { shards }
    }

    /// All shards, in key order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Whether no keys are held by anybody yet: the cluster has no storage.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The shard of a key.
    pub fn of_key(&self, key: &[u8]) -> Option<&Shard> {
        let index = self.shards.partition_point(|shard| shard.range.end.as_slice() <= key);
        self.shards.get(index).filter(|shard| shard.range.contains(key))
    }

    /// The shards that intersect `range`, in key order, each with the part of its range that does.
    pub fn intersecting<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl DoubleEndedIterator<Item = (KeyRange, &'a Shard)> + 'a {
        let shards = &self.shards;
        let first = shards.partition_point(|shard| shard.range.end <= range.begin);
        let last = shards.partition_point(|shard| shard.range.begin < range.end).max(first);
        shards[first..last]
            .iter()
            .filter_map(move |shard| Some((shard.range.intersection(range)?, shard)))
    }

    /// What a set of `\xff/keyServers/<begin>` does to the map. Returns who has to be told what.
    ///
    /// A beginning inside of a shard cuts it: the new teams are those of the part from `begin` on. A beginning
    /// at or past the end of the keyspace changes nothing.
    pub fn set(&mut self, begin: &Key, teams: Teams) -> Vec<(Tag, ShardChange)> {
        let index = self.shards.partition_point(|shard| shard.range.end <= *begin);
        let Some(shard) = self.shards.get_mut(index) else { return Vec::new() };
        if shard.range.begin == *begin {
            let old = std::mem::replace(&mut shard.teams, teams.clone());
            return changes(&shard.range, &old, &teams);
        }
        let part = KeyRange { begin: begin.clone(), end: shard.range.end.clone() };
        shard.range.end = begin.clone();
        let changes = changes(&part, &shard.teams, &teams);
        self.shards.insert(index + 1, Shard { range: part, teams });
        changes
    }

    /// The changes that make every server what it is in this map, from nothing.
    pub fn all_changes(&self) -> Vec<(Tag, ShardChange)> {
        let nobody = Teams::default();
        self.shards.iter().flat_map(|shard| changes(&shard.range, &nobody, &shard.teams)).collect()
    }
}

/// What each server has to be told when a shard's teams change.
fn changes(range: &KeyRange, old: &Teams, new: &Teams) -> Vec<(Tag, ShardChange)> {
    let mut tags: Vec<Tag> = old.all().chain(new.all()).collect();
    tags.sort_unstable();
    tags.dedup();
    let change = |tag| {
        let role = new.role_of(tag);
        let is_same = match (&old.role_of(tag), &role) {
            // Who is copying goes on, from whomever it likes among those it knows.
            (ShardRole::Joining { .. }, ShardRole::Joining { .. }) => true,
            (before, after) => before == after,
        };
        (!is_same).then(|| (tag, ShardChange { range: range.clone(), role }))
    };
    tags.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags<const N: usize>(tags: [u32; N]) -> Vec<Tag> {
        tags.map(Tag).to_vec()
    }

    fn teams<const N: usize, const M: usize>(team: [u32; N], joining: [u32; M]) -> Teams {
        Teams { team: tags(team), joining: tags(joining) }
    }

    fn map() -> ShardMap {
        ShardMap::new(vec![
            Shard { range: KeyRange::new("", "m"), teams: teams([0, 1], []) },
            Shard {
                range: KeyRange { begin: "m".into(), end: Key::SYSTEM_END },
                teams: teams([1, 2], []),
            },
        ])
    }

    #[test]
    fn a_server_joins_and_another_leaves() {
        let mut map = map();
        let range = map.shards()[1].range.clone();
        let change = |tag, role| (Tag(tag), ShardChange { range: range.clone(), role });
        assert_eq!(
            map.set(&"m".into(), teams([1, 2], [3])),
            [change(3, ShardRole::Joining { sources: tags([1, 2]) })]
        );
        assert_eq!(map.set(&"m".into(), teams([1, 2], [3])), []);
        assert_eq!(
            map.set(&"m".into(), teams([2, 3], [])),
            [change(1, ShardRole::Absent), change(3, ShardRole::Member)]
        );
        assert_eq!(map.of_key(b"z").unwrap().teams, teams([2, 3], []));
    }

    #[test]
    fn a_set_inside_of_a_shard_cuts_it() {
        let mut map = map();
        let changes = map.set(&"g".into(), teams([0, 2], []));
        let range = KeyRange::new("g", "m");
        assert_eq!(
            changes,
            [
                (Tag(1), ShardChange { range: range.clone(), role: ShardRole::Absent }),
                (Tag(2), ShardChange { range, role: ShardRole::Member })
            ]
        );
        let begins: Vec<_> = map.shards().iter().map(|shard| shard.range.begin.clone()).collect();
        assert_eq!(begins, ["".into(), "g".into(), Key::from("m")]);
        ShardMap::new(map.shards().to_vec());
        assert_eq!(map.set(&Key::SYSTEM_END, teams([0], [])), []);
    }

    #[test]
    fn all_changes_tell_everybody() {
        let told: Vec<_> = map()
            .all_changes()
            .into_iter()
            .map(|(tag, change)| {
                (tag.0, change.range.begin.clone(), change.role == ShardRole::Member)
            })
            .collect();
        let m = || Key::from("m");
        assert_eq!(
            told,
            [(0, Key::MIN, true), (1, Key::MIN, true), (1, m(), true), (2, m(), true)]
        );
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(teams([1, 200], [3]).to_value().0[..], [1, 2, 1, 200, 1, 1, 3]);
        assert_eq!(key_servers_key(&"m".into()), Key::from(b"\xff/keyServers/m"));
        assert_eq!(shard_begin(b"\xff/keyServers/m"), Some("m".into()));
        assert_eq!(shard_begin(b"\xff/keyServer"), None);
    }

    #[test]
    #[should_panic(expected = "a mutation would be lost (I-2)")]
    fn a_gap_between_shards_is_a_broken_invariant() {
        let mut shards = map().shards().to_vec();
        shards[1].range.begin = "n".into();
        ShardMap::new(shards);
    }

    proptest! {
        #[test]
        fn round_trip(team in prop::collection::vec(any::<u32>(), 1..4), joining in prop::collection::vec(any::<u32>(), 0..3)) {
            let tags = |numbers: Vec<u32>| numbers.into_iter().map(Tag).collect();
            let teams = Teams { team: tags(team), joining: tags(joining) };
            prop_assert_eq!(Teams::from_value(&teams.to_value()), Some(teams));
        }

        #[test]
        fn garbage_is_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = Teams::from_value(&Value::from(&bytes[..]));
        }
    }
}
