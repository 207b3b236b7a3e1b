//! Which storage servers make a team: copies in different zones, and the least loaded first.

use std::collections::BTreeMap;

use ferrisdb_core::Tag;

/// What a storage server is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Alive and welcome: it can be given more.
    Good,
    /// Not heard from for a moment. What it has it keeps; it is given nothing.
    Away,
    /// Excluded: what it has goes elsewhere, and can be copied from it.
    Leaving,
    /// Away for too long: what it has is copied from others.
    Gone,
}

/// A storage server, as far as teams are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its tag.
    pub tag: Tag,
    /// What it shares its fate with.
    pub zone: String,
    /// What it is good for.
    pub standing: Standing,
}

/// All storage servers, by tag, with how many shards each has or is about to have.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    servers: BTreeMap<Tag, (Server, usize)>,
}

impl Servers {
    /// These servers, without any load.
    pub fn new(servers: impl IntoIterator<Item = Server>) -> Servers {
        Servers { servers: servers.into_iter().map(|server| (server.tag, (server, 0))).collect() }
    }

    /// Counts a shard.
    pub fn add_load(&mut self, tag: Tag) {
        if let Some((_, load)) = self.servers.get_mut(&tag) {
            *load += 1;
        }
    }

    /// A shard less.
    pub fn remove_load(&mut self, tag: Tag) {
        if let Some((_, load)) = self.servers.get_mut(&tag) {
            *load = load.saturating_sub(1);
        }
    }

    /// How many shards a server has.
    pub fn load(&self, tag: Tag) -> usize {
        self.servers.get(&tag).map_or(0, |(_, load)| *load)
    }

    /// What a server is good for. One that is not in the list is gone.
    pub fn standing(&self, tag: Tag) -> Standing {
        self.servers.get(&tag).map_or(Standing::Gone, |(server, _)| server.standing)
    }

    /// The zone of a server.
    pub fn zone(&self, tag: Tag) -> Option<&str> {
        self.servers.get(&tag).map(|(server, _)| server.zone.as_str())
    }

    /// The servers that can be given more, the least loaded first.
    pub fn good(&self) -> Vec<Tag> {
        let good = self.servers.values().filter(|(server, _)| server.standing == Standing::Good);
        let mut good: Vec<_> = good.map(|(server, load)| (*load, server.tag)).collect();
        good.sort_unstable();
        good.into_iter().map(|(_, tag)| tag).collect()
    }

    /// Of `candidates`, in their order, as many as are in zones of their own, beside those that are `given`.
    pub fn in_own_zones(&self, given: &[Tag], candidates: &[Tag], count: usize) -> Vec<Tag> {
        let mut zones: Vec<_> = given.iter().filter_map(|tag| self.zone(*tag)).collect();
        let mut found = Vec::new();
        for tag in candidates.iter().filter(|tag| !given.contains(tag)) {
            if found.len() == count {
                break;
            }
            if let Some(zone) = self.zone(*tag)
                && !zones.contains(&zone)
            {
                zones.push(zone);
                found.push(*tag);
            }
        }
        found
    }

    /// A new team of `copies` servers, or as many as there can be.
    pub fn new_team(&self, copies: usize) -> Vec<Tag> {
        self.in_own_zones(&[], &self.good(), copies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::controller) fn server(tag: u32, zone: &str, standing: Standing) -> Server {
        Server { tag: Tag(tag), zone: zone.into(), standing }
    }

    #[test]
    fn teams_are_in_different_zones_and_the_load_is_spread() {
        use Standing::*;
        let all = [server(0, "a", Good), server(1, "a", Good), server(2, "b", Good)];
        let mut servers = Servers::new(all);
        assert_eq!(servers.new_team(2), [Tag(0), Tag(2)]);
        servers.add_load(Tag(0));
        servers.add_load(Tag(2));
        assert_eq!(servers.new_team(2), [Tag(1), Tag(2)]);
        assert_eq!(servers.new_team(3).len(), 2, "there are two zones");
        assert_eq!(servers.in_own_zones(&[Tag(2)], &[Tag(2), Tag(1), Tag(0)], 2), [Tag(1)]);
        let servers = Servers::new([server(0, "a", Away), server(1, "b", Leaving)]);
        assert_eq!(servers.new_team(1), []);
        assert_eq!(servers.standing(Tag(7)), Gone);
    }
}
