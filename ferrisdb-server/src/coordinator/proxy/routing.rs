//! Which storage servers a mutation is for, and which logs keep it for them.
//!
//! ```text
//!   shards   ..m: tags 0, 1     m..: tags 1, 2
//!   set a            ->  0: set a              1: set a
//!   clear k..p       ->  0: clear k..m         1: clear k..m, clear m..p       2: clear m..p
//!   set \xff/keyServers/m = 1, joining 3
//!                    ->  1, 2: the set, as data      every log: the set, for controllers
//!                        2: absent from m..          3: joining m.. from 1
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrisdb_core::simulation::{Plant, planted};
use ferrisdb_core::{
    Key, KeyRange, Mutation, Tag, limits,
    mutation::Encoder,
    service::{controller::LogSet, log::PushRequest, sequencer::BatchVersions},
    shard::{self, Shard, ShardChange, ShardMap, Teams},
    version::Generation,
};

/// The map from keys to storage servers, as one proxy knows it.
#[derive(Clone, Debug)]
pub struct Routing {
    shards: ShardMap,
}

impl Routing {
    /// By this map, until it is changed.
    pub fn new(shards: ShardMap) -> Self {
        Routing { shards }
    }

    /// Takes in a change of the map that another proxy has committed and told the storage servers of.
    pub fn learn(&mut self, mutation: &Mutation) {
        if let Some((begin, teams)) = shard_map_change(mutation) {
            self.shards.set(&begin, teams);
        }
    }

    /// Most servers that a shard has.
    pub fn servers_max(&self) -> usize {
        self.shards.shards().iter().map(|shard| shard.teams.all().count()).max().unwrap_or(0)
    }

    /// What the clear of a range takes in a message for one server of each of its shards, or, if that is more than
    /// `bytes_max`, something that is more. Each part that it is cut into has keys of its own: the borders of shards.
    pub fn clear_bytes(&self, range: &KeyRange, bytes_max: usize) -> usize {
        let mut bytes = 0;
        for (part, _) in self.shards.intersecting(range) {
            bytes += part.begin.len() + part.end.len() + limits::MUTATION_OVERHEAD_BYTES;
            if bytes > bytes_max {
                break;
            }
        }
        bytes.max(limits::MUTATION_OVERHEAD_BYTES)
    }

    /// Adds a mutation to the messages of everybody whom it concerns.
    pub fn tag(&mut self, mutation: &Mutation, messages: &mut Messages) {
        self.tag_data(mutation, messages);
        if let Some((begin, teams)) = shard_map_change(mutation) {
            messages.push(Tag::METADATA, mutation);
            for (tag, change) in self.shards.set(&begin, teams) {
                messages.push_shard_change(tag, &change);
            }
        }
    }

    /// Tells the storage servers of a new cluster what they hold, and writes the map into the system keyspace.
    pub fn tag_new_cluster(&mut self, messages: &mut Messages) {
        for (tag, change) in self.shards.all_changes() {
            messages.push_shard_change(tag, &change);
        }
        for Shard { range, teams } in self.shards.shards().to_vec() {
            let key = shard::key_servers_key(&range.begin);
            self.tag_data(&Mutation::Set { key, value: teams.to_value() }, messages);
        }
    }

    fn tag_data(&self, mutation: &Mutation, messages: &mut Messages) {
        match mutation {
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::Atomic { key, .. }
            | Mutation::SetVersionstampedKey { key, .. }
            | Mutation::SetVersionstampedValue { key, .. } => {
                let Some(Shard { teams, .. }) = self.shards.of_key(key) else { return };
                let is_set = matches!(mutation, Mutation::Set { .. });
                let forgets = planted(Plant::ForgetJoining) && is_set;
                let tags = teams.all().filter(|tag| !forgets || teams.team.contains(tag));
                tags.for_each(|tag| messages.push(tag, mutation));
            }
            Mutation::ClearRange { range } => {
                let shards_max = if planted(Plant::ClearReachesOneShard) { 1 } else { usize::MAX };
                for (part, shard) in self.shards.intersecting(range).take(shards_max) {
                    let part = Mutation::ClearRange { range: part };
                    for tag in shard.teams.all() {
                        messages.push(tag, &part);
                    }
                }
            }
        }
    }
}

/// The shard that a mutation changes, and its new teams. Whatever else is among those keys was refused on arrival.
pub fn shard_map_change(mutation: &Mutation) -> Option<(Key, Teams)> {
    let Mutation::Set { key, value } = mutation else { return None };
    Some((shard::shard_begin(key)?, Teams::from_value(value)?))
}

/// The mutations of one batch, encoded, by tag.
#[derive(Debug, Default)]
pub struct Messages(BTreeMap<Tag, Encoder>);

impl Messages {
    fn push(&mut self, tag: Tag, mutation: &Mutation) {
        self.0.entry(tag).or_default().push(mutation);
    }

    fn push_shard_change(&mut self, tag: Tag, change: &ShardChange) {
        self.0.entry(tag).or_default().push_shard_change(change);
    }

    /// One push for each log of the set: those of a tag's messages that it keeps, possibly none.
    pub fn into_pushes(
        self,
        log_set: &LogSet,
        generation: Generation,
        versions: BatchVersions,
    ) -> Vec<PushRequest> {
        let BatchVersions { previous_version, commit_version, known_committed_version } = versions;
        let empty = PushRequest {
            generation,
            previous_version,
            commit_version,
            known_committed_version,
            messages: Vec::new(),
        };
        let mut pushes = vec![empty; log_set.logs.len()];
        for (tag, encoder) in self.0 {
            let encoded: Bytes = encoder.finish();
            for index in log_set.indexes_of(tag) {
                pushes[index].messages.push((tag, encoded.clone()));
            }
        }
        pushes
    }
}

/// Cuts ranges to the keys of one resolver, keeping each range's index.
pub fn ranges_within<'a>(
    ranges: &'a [KeyRange],
    keys: &'a KeyRange,
) -> impl Iterator<Item = (u32, KeyRange)> + 'a {
    (0u32..).zip(ranges).filter_map(|(index, range)| {
        if planted(Plant::RangeCutAtResolver) && !keys.contains(&range.begin) {
            return None;
        }
        Some((index, range.intersection(keys)?))
    })
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{
        ProcessId, ShardRole, Version,
        id::{Address, Endpoint},
        mutation::{Item, decode},
        service::controller::LogMember,
    };

    use super::*;

    fn routing() -> Routing {
        let shard = |range, team: [u32; 2]| Shard { range, teams: Teams::of(team.map(Tag)) };
        Routing::new(ShardMap::new(vec![
            shard(KeyRange::new("", "m"), [0, 1]),
            shard(KeyRange { begin: "m".into(), end: Key::SYSTEM_END }, [1, 2]),
        ]))
    }

    fn decoded(messages: Messages) -> Vec<(u32, Vec<Item>)> {
        let decoded = |encoder: Encoder| decode(encoder.finish()).map(Result::unwrap).collect();
        messages.0.into_iter().map(|(tag, encoder)| (tag.0, decoded(encoder))).collect()
    }

    fn messages(mutations: &[Mutation]) -> Vec<(u32, Vec<Mutation>)> {
        let mut messages = Messages::default();
        let mut routing = routing();
        mutations.iter().for_each(|mutation| routing.tag(mutation, &mut messages));
        let mutation = |item| match item {
            Item::Mutation(mutation) => mutation,
            Item::ShardChange(change) => panic!("{change:?}"),
        };
        let tags = decoded(messages).into_iter();
        tags.map(|(tag, items)| (tag, items.into_iter().map(mutation).collect())).collect()
    }

    #[test]
    fn a_change_of_the_map_goes_to_all_it_concerns_and_counts_from_there() {
        let teams = Teams { team: vec![Tag(1)], joining: vec![Tag(3)] };
        let key = shard::key_servers_key(&"m".into());
        let change = Mutation::Set { key, value: teams.to_value() };
        let write = Mutation::Clear { key: "x".into() };
        let (mut routing, mut messages) = (routing(), Messages::default());
        routing.tag(&change, &mut messages);
        routing.tag(&write, &mut messages);
        let range = KeyRange { begin: "m".into(), end: Key::SYSTEM_END };
        let told = |role| Item::ShardChange(ShardChange { range: range.clone(), role });
        let data = || Item::Mutation(change.clone());
        let write = || Item::Mutation(write.clone());
        let sources = vec![Tag(1)];
        assert_eq!(
            decoded(messages),
            [
                (1, vec![data(), write()]),
                (2, vec![data(), told(ShardRole::Absent)]),
                (3, vec![told(ShardRole::Joining { sources }), write()]),
                (Tag::METADATA.0, vec![data()]),
            ]
        );
        let mut other = super::tests::routing();
        other.learn(&change);
        assert_eq!(other.shards, routing.shards);
    }

    #[test]
    fn a_mutation_goes_to_the_whole_team() {
        let set = |key: &str| Mutation::Set { key: key.into(), value: "v".into() };
        assert_eq!(
            messages(&[set("a"), set("m"), set("l")]),
            [
                (0, vec![set("a"), set("l")]),
                (1, vec![set("a"), set("m"), set("l")]),
                (2, vec![set("m")])
            ]
        );
    }

    #[test]
    fn a_range_is_cut_at_the_borders_of_shards() {
        let clear =
            |begin: &str, end: &str| Mutation::ClearRange { range: KeyRange::new(begin, end) };
        assert_eq!(
            messages(&[clear("k", "p")]),
            [
                (0, vec![clear("k", "m")]),
                (1, vec![clear("k", "m"), clear("m", "p")]),
                (2, vec![clear("m", "p")])
            ]
        );
        assert_eq!(messages(&[clear("p", "k")]), []);
    }

    #[test]
    fn the_parts_of_a_clear_are_as_long_as_the_borders_of_shards() {
        let border = |n: u32| Key::from(format!("{}/{n:03}", "x".repeat(500)));
        let mut shards = routing().shards;
        (0..100).for_each(|n| drop(shards.set(&border(n), Teams::of([0, 1].map(Tag)))));
        let routing = Routing::new(shards);
        let range = KeyRange::new("x", "y");
        let bytes = routing.clear_bytes(&range, usize::MAX);
        let mut messages = Messages::default();
        routing.clone().tag(&Mutation::ClearRange { range: range.clone() }, &mut messages);
        let encoded = messages.0.remove(&Tag(1)).unwrap().finish().len();
        assert!((encoded..encoded + encoded / 10).contains(&bytes), "{bytes} for {encoded}");
        // Not all parts are looked at.
        assert!((10_001..12_000).contains(&routing.clear_bytes(&range, 10_000)));
        assert_eq!(routing.clear_bytes(&KeyRange::new("p", "k"), 10), 10);
    }

    #[test]
    fn every_log_gets_every_batch_but_only_its_tags() {
        let member = |number: u128| LogMember {
            process: ProcessId(number),
            endpoint: Endpoint::of_process(Address::new("log")),
        };
        let log_set = LogSet {
            generation: Generation(1),
            logs: (0..4).map(member).collect(),
            replication: 2,
            begin_version: Version(0),
            recovery_version: Version(0),
            end_version: None,
        };
        let mut messages = Messages::default();
        routing().tag(&Mutation::Clear { key: "a".into() }, &mut messages);
        let versions = BatchVersions {
            previous_version: Version(1),
            commit_version: Version(2),
            known_committed_version: Version(0),
        };
        let pushes = messages.into_pushes(&log_set, Generation(1), versions);
        let tags: Vec<Vec<u32>> = pushes
            .iter()
            .map(|push| push.messages.iter().map(|(tag, _)| tag.0).collect())
            .collect();
        // Tag 0 is kept on logs 0 and 1, tag 1 on logs 1 and 2; log 3 gets an empty batch.
        assert_eq!(tags, [vec![0], vec![0, 1], vec![1], vec![]]);
    }
}
