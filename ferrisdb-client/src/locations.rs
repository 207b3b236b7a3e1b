//! Where keys are: the map of shards to storage servers, made ready for looking up.

use ferrisdb_core::{Endpoint, Key, KeyRange, service::controller::ClusterState};

/// The shards of one revision of the cluster's state, each with the addresses of its team.
#[derive(Debug, Default)]
pub(crate) struct Locations {
    /// Which revision of the state this was made of.
    pub(crate) revision: u64,
    /// In key order, without gaps.
    shards: Vec<Location>,
}

/// A shard and where it is.
#[derive(Debug)]
pub(crate) struct Location {
    pub(crate) range: KeyRange,
    /// Whoever of the team is registered; each has all of the shard.
    pub(crate) team: Vec<Endpoint>,
}

impl Locations {
    pub(crate) fn of(state: &ClusterState) -> Locations {
        let endpoint_of = |tag| {
            let server = state.storage_servers.iter().find(|server| server.tag == tag)?;
            Some(server.endpoint.clone())
        };
        let shards = state.shards.shards().iter().map(|shard| Location {
            range: shard.range.clone(),
            team: shard.teams.team.iter().filter_map(|&tag| endpoint_of(tag)).collect(),
        });
        Locations { revision: state.revision, shards: shards.collect() }
    }

    /// The shard of a key.
    pub(crate) fn of_key(&self, key: &Key) -> Option<&Location> {
        let index = self.shards.partition_point(|location| location.range.end <= *key);
        self.shards.get(index).filter(|location| location.range.begin <= *key)
    }

    /// The shard at the near end of a range, and the part of the range that it holds.
    pub(crate) fn near_part(
        &self,
        range: &KeyRange,
        reverse: bool,
    ) -> Option<(KeyRange, &Location)> {
        let location = if reverse {
            let after = self.shards.partition_point(|location| location.range.begin < range.end);
            let last = self.shards.get(after.checked_sub(1)?)?;
            (last.range.end >= range.end).then_some(last)
        } else {
            self.of_key(&range.begin)
        }?;
        Some((location.range.intersection(range)?, location))
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{
        ClusterId, Generation, ProcessId, Shard, ShardMap, Tag, Teams, Version,
        id::Address,
        service::controller::{Phase, StorageServer},
    };

    use super::*;

    fn locations() -> Locations {
        let server = |tag| StorageServer {
            tag: Tag(tag),
            process: ProcessId(u128::from(tag)),
            endpoint: Endpoint::of_process(Address::new(format!("s{tag}"))),
            zone: "z".into(),
            begin_version: Version(0),
        };
        let shard = |begin: &str, end: Key, team: [u32; 2]| Shard {
            range: KeyRange { begin: begin.into(), end },
            teams: Teams { joining: vec![Tag(0)], ..Teams::of(team.map(Tag)) },
        };
        Locations::of(&ClusterState {
            cluster_id: ClusterId(1),
            revision: 3,
            generation: Generation(1),
            phase: Phase::Active,
            coordinator: None,
            log_sets: Vec::new(),
            storage_servers: vec![server(1), server(0)],
            next_tag: Tag(3),
            shards: ShardMap::new(vec![
                shard("", "h".into(), [0, 1]),
                shard("h", "q".into(), [1, 2]),
                shard("q", Key::SYSTEM_END, [2, 0]),
            ]),
            controllers: Vec::new(),
            configuration: None,
            excluded: Vec::new(),
        })
    }

    fn team(location: &Location) -> Vec<String> {
        location.team.iter().map(Endpoint::to_string).collect()
    }

    #[test]
    fn a_key_is_in_the_shard_that_begins_at_it() {
        let locations = locations();
        let of_key = |key: &str| locations.of_key(&key.into()).map(team);
        assert_eq!(of_key("a"), Some(vec!["s0".into(), "s1".into()]));
        // Server 2 is not registered yet: the rest of the team serves.
        assert_eq!(of_key("h"), Some(vec!["s1".into()]));
        assert_eq!(of_key("z"), Some(vec!["s0".into()]));
        assert!(locations.of_key(&Key::SYSTEM_END).is_none());
    }

    #[test]
    fn a_range_is_cut_at_its_near_shard() {
        let locations = locations();
        let part =
            |range: KeyRange, reverse| locations.near_part(&range, reverse).map(|(part, _)| part);
        assert_eq!(part(KeyRange::new("a", "z"), false), Some(KeyRange::new("a", "h")));
        assert_eq!(part(KeyRange::new("a", "z"), true), Some(KeyRange::new("q", "z")));
        assert_eq!(part(KeyRange::new("a", "h"), true), Some(KeyRange::new("a", "h")));
        assert_eq!(part(KeyRange::new("h", "i"), false), Some(KeyRange::new("h", "i")));
        let beyond = KeyRange::new("a", b"\xff\xff\xff");
        assert_eq!(part(beyond, true), None);
    }
}
