//! The keyspace of a client in pieces: each key, and each gap between two of them.

use ferrisdb_client::{Key, KeyRange};
use ferrisdb_core::limits;

use super::ConflictRangesSettings;
use crate::workload::support::pick;

/// A set of pieces of the keyspace, a bit each.
pub(super) type Pieces = u64;

/// The keyspace of a client, cut at every key and right after it.
#[derive(Clone, Debug)]
pub(super) struct Map {
    /// Ascending: piece `i` begins at `bounds[i]` and ends at the next.
    pub(super) bounds: Vec<Key>,
    pub(super) keys: Vec<Key>,
    /// The pieces of each resolver.
    pub(super) resolvers: Vec<Pieces>,
}

impl Map {
    pub(super) fn new(
        client: u32,
        settings: &ConflictRangesSettings,
        resolver_boundaries: &[Key],
    ) -> Map {
        let prefix = format!("conflict_ranges/{client:03}/");
        let keys: Vec<Key> = (0..settings.keys.clamp(1, 30))
            .map(|index| format!("{prefix}{index:02}").into())
            .collect();
        match client {
            0 if settings.edges => Map::at(Key::MIN, b"\0", b"\x01".into(), resolver_boundaries),
            1 if settings.edges => {
                Map::at(b"\xfe".into(), b"\xfe", Key::USER_END, resolver_boundaries)
            }
            _ => Map::of(KeyRange::prefix(prefix.as_bytes()), keys, resolver_boundaries),
        }
    }

    /// Keys at an edge of the keyspace: the first one, or some of the last, and the longest.
    fn at(begin: Key, first: &[u8], end: Key, resolver_boundaries: &[Key]) -> Map {
        let long = |bytes: usize| {
            let mut key = first.to_vec();
            key.resize(bytes, 0xff);
            Key::from(key)
        };
        let keys = vec![
            begin.clone(),
            [first, b"\0\0"].concat().into(),
            [first, b"\x01"].concat().into(),
            [first, b"\xff"].concat().into(),
            long(limits::KEY_BYTES_MAX - 2),
            long(limits::KEY_BYTES_MAX),
        ];
        Map::of(KeyRange { begin, end }, keys, resolver_boundaries)
    }

    fn of(all: KeyRange, keys: Vec<Key>, resolver_boundaries: &[Key]) -> Map {
        let mut bounds = vec![all.begin];
        bounds.extend(keys.iter().flat_map(|key| [key.clone(), key.successor()]));
        bounds.push(all.end);
        bounds.dedup();
        let mut resolvers = vec![0; resolver_boundaries.len() + 1];
        for (piece, begin) in bounds[..bounds.len() - 1].iter().enumerate() {
            let resolver = resolver_boundaries.partition_point(|boundary| boundary <= begin);
            resolvers[resolver] |= 1 << piece;
        }
        Map { bounds, keys, resolvers }
    }

    pub(super) fn all(&self) -> KeyRange {
        let last = self.bounds.len() - 1;
        KeyRange { begin: self.bounds[0].clone(), end: self.bounds[last].clone() }
    }

    /// The pieces of a range that begins and ends where pieces do.
    pub(super) fn pieces(&self, range: &KeyRange) -> Pieces {
        let inside = |pair: &[Key]| range.begin <= pair[0] && pair[1] <= range.end;
        let pieces = self.bounds.windows(2).enumerate();
        pieces.filter(|(_, pair)| inside(pair)).map(|(index, _)| 1 << index).sum()
    }

    pub(super) fn piece(&self, key: &Key) -> Pieces {
        self.pieces(&KeyRange::single(key))
    }

    /// The pieces that a range touches, wherever it begins and ends.
    pub(super) fn touched(&self, range: &KeyRange) -> Pieces {
        let touches = |pair: &[Key]| range.begin < pair[1] && pair[0] < range.end;
        let pieces = self.bounds.windows(2).enumerate();
        pieces.filter(|(_, pair)| touches(pair)).map(|(index, _)| 1 << index).sum()
    }

    pub(super) fn draw_range(&self) -> KeyRange {
        let (a, b) = (pick(&self.bounds), pick(&self.bounds));
        KeyRange { begin: a.min(b).clone(), end: a.max(b).clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(map: &Map, begin: usize, end: usize) -> KeyRange {
        KeyRange { begin: map.bounds[begin].clone(), end: map.bounds[end].clone() }
    }

    #[test]
    fn pieces_are_keys_and_the_gaps_between_them() {
        let map = Map::new(1, &ConflictRangesSettings { keys: 3, ..Default::default() }, &[]);
        assert_eq!(map.pieces(&map.all()), 0b111_1111);
        assert_eq!(map.piece(&map.keys[0]), 0b10);
        assert_eq!(map.pieces(&range(&map, 2, 5)), 0b1_1100);
        assert_eq!(map.pieces(&range(&map, 3, 3)), 0);
    }
}
