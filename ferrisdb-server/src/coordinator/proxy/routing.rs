//! Which storage servers a mutation is for, and which logs keep it for them.
//!
//! ```text
//!   shards   ..m: tags 0, 1     m..: tags 1, 2
//!   set a            ->  0: set a              1: set a
//!   clear k..p       ->  0: clear k..m         1: clear k..m, clear m..p       2: clear m..p
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrisdb_core::{
    KeyRange, Mutation, Tag, Version,
    mutation::Encoder,
    service::{
        controller::{LogSet, Shard, shards_in},
        log::PushRequest,
    },
    version::Generation,
};

/// The map from keys to storage servers, as one proxy knows it.
#[derive(Clone, Debug)]
pub struct Routing {
    shards: Vec<Shard>,
}

impl Routing {
    /// A map of shards in key order, without gaps.
    pub fn new(shards: Vec<Shard>) -> Self {
        for pair in shards.windows(2) {
            assert!(
                pair[0].range.end == pair[1].range.begin,
                "shards leave a gap or overlap at {}: a mutation would be lost (I-2)",
                pair[0].range.end
            );
        }
        Routing { shards }
    }

    /// Adds a mutation to the messages of every storage server that it is for.
    pub fn tag(&self, mutation: &Mutation, messages: &mut Messages) {
        match mutation {
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::Atomic { key, .. }
            | Mutation::SetVersionstampedKey { key, .. }
            | Mutation::SetVersionstampedValue { key, .. } => {
                let index = self.shards.partition_point(|shard| shard.range.end <= *key);
                for &tag in self.shards.get(index).map_or(&[][..], |shard| &shard.team) {
                    messages.push(tag, mutation);
                }
            }
            Mutation::ClearRange { range } => {
                for (part, shard) in shards_in(&self.shards, range) {
                    let part = Mutation::ClearRange { range: part };
                    for &tag in &shard.team {
                        messages.push(tag, &part);
                    }
                }
            }
        }
    }
}

/// The mutations of one batch, encoded, by tag.
#[derive(Debug, Default)]
pub struct Messages(BTreeMap<Tag, Encoder>);

impl Messages {
    fn push(&mut self, tag: Tag, mutation: &Mutation) {
        self.0.entry(tag).or_default().push(mutation);
    }

    /// One push for each log of the set: those of a tag's messages that it keeps, possibly none.
    pub fn into_pushes(
        self,
        log_set: &LogSet,
        generation: Generation,
        previous_version: Version,
        commit_version: Version,
        known_committed_version: Version,
    ) -> Vec<PushRequest> {
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
    (0u32..).zip(ranges).filter_map(|(index, range)| Some((index, range.intersection(keys)?)))
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{
        Key, ProcessId,
        id::{Address, Endpoint},
        mutation::decode,
        service::controller::LogMember,
    };

    use super::*;

    fn shards() -> Vec<Shard> {
        let shard = |range, team: [u32; 2]| Shard { range, team: team.map(Tag).to_vec() };
        vec![
            shard(KeyRange::new("", "m"), [0, 1]),
            shard(KeyRange { begin: "m".into(), end: Key::SYSTEM_END }, [1, 2]),
        ]
    }

    fn messages(mutations: &[Mutation]) -> Vec<(u32, Vec<Mutation>)> {
        let routing = Routing::new(shards());
        let mut messages = Messages::default();
        mutations.iter().for_each(|mutation| routing.tag(mutation, &mut messages));
        let decoded = |encoder: Encoder| decode(encoder.finish()).map(Result::unwrap).collect();
        messages.0.into_iter().map(|(tag, encoder)| (tag.0, decoded(encoder))).collect()
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
            end_version: None,
        };
        let mut messages = Messages::default();
        let routing = Routing::new(shards());
        routing.tag(&Mutation::Clear { key: "a".into() }, &mut messages);
        let pushes =
            messages.into_pushes(&log_set, Generation(1), Version(1), Version(2), Version(0));
        let tags: Vec<Vec<u32>> = pushes
            .iter()
            .map(|push| push.messages.iter().map(|(tag, _)| tag.0).collect())
            .collect();
        // Tag 0 is kept on logs 0 and 1, tag 1 on logs 1 and 2; log 3 gets an empty batch.
        assert_eq!(tags, [vec![0], vec![0, 1], vec![1], vec![]]);
    }

    #[test]
    #[should_panic(expected = "a mutation would be lost (I-2)")]
    fn a_gap_between_shards_is_a_broken_invariant() {
        let mut shards = shards();
        shards[1].range.begin = "n".into();
        Routing::new(shards);
    }
}
