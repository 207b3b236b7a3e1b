//! The next step of each shard, as a pure function of the map, the servers and what they have copied.
//!
//! A shard that somebody is joining waits until all of them have copied it, and then drops whoever is too many;
//! any other is compared with what it should be. Few shards move to a server at a time, so that the
//! copies end one after the other and do not crowd out the load.
//!
//! A member is dropped only when the team is as large as it should be without it, so that no step ever leaves fewer
//! copies on servers that are there than there were before. Start with [`plan`].

use std::collections::BTreeMap;

use ferrisdb_core::{Key, KeyRange, ShardMap, Tag, Teams};

use super::teams::{Servers, Standing};

/// How many shards one server may be joining at a time.
const JOINING_MAX: usize = 4;

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes of the shard map to commit now.
    pub changes: Vec<(Key, Teams)>,
    /// What is under way, for people.
    pub repairs: Vec<String>,
    /// What cannot be done, and why, for people.
    pub stuck: Vec<String>,
}

/// Plans the next steps. `copied` are the ranges that servers have joined and have safely on disk.
pub fn plan(
    map: &ShardMap,
    mut servers: Servers,
    copied: &BTreeMap<Tag, Vec<KeyRange>>,
    copies: usize,
) -> Plan {
    let mut joining: BTreeMap<Tag, usize> = BTreeMap::new();
    for shard in map.shards() {
        shard.teams.all().for_each(|tag| servers.add_load(tag));
        shard.teams.joining.iter().for_each(|tag| *joining.entry(*tag).or_default() += 1);
    }
    let mut planner = Planner { servers, copied, copies, joining, plan: Plan::default() };
    for shard in map.shards() {
        let next = if shard.teams.joining.is_empty() {
            planner.begin(&shard.range, &shard.teams)
        } else {
            planner.go_on(&shard.range, &shard.teams)
        };
        if let Some(teams) = next {
            planner.plan.changes.push((shard.range.begin.clone(), teams));
        }
    }
    // Only when nothing is wrong anywhere is data moved for the sake of the load.
    if planner.joining.values().all(|count| *count == 0) && planner.plan.changes.is_empty() {
        planner.balance(map);
    }
    planner.plan
}

struct Planner<'a> {
    servers: Servers,
    copied: &'a BTreeMap<Tag, Vec<KeyRange>>,
    copies: usize,
    joining: BTreeMap<Tag, usize>,
    plan: Plan,
}

impl Planner<'_> {
    /// The first step of a shard that is not what it should be.
    fn begin(&mut self, range: &KeyRange, teams: &Teams) -> Option<Teams> {
        let kept = self.best(&teams.team);
        if kept.len() == self.copies {
            // Whoever is too many goes at once.
            return (teams.team.len() > kept.len()).then(|| Teams::of(self.leave(teams, kept)));
        }
        if teams.team.iter().all(|tag| self.servers.standing(*tag) == Standing::Gone) {
            let team = list(&teams.team);
            let detail = format!("{range} cannot be read or copied until one of {team} returns");
            self.plan.stuck.push(detail);
            return None;
        }
        let missing = self.copies - kept.len();
        let good = self.servers.good();
        let possible = self.servers.in_own_zones(&kept, &good, missing);
        if possible.is_empty() {
            let detail = format!(
                "{range} has {} of {} copies: a storage server in another zone than {} is needed",
                kept.len(),
                self.copies,
                list(&kept)
            );
            self.plan.stuck.push(detail);
            return None;
        }
        let free = |tag: &Tag| self.joining.get(tag).is_none_or(|count| *count < JOINING_MAX);
        let joining: Vec<Tag> = possible.into_iter().filter(free).collect();
        self.plan.repairs.push(format!("{range}: waits for its turn to be copied"));
        if joining.is_empty() {
            return None;
        }
        for tag in &joining {
            self.servers.add_load(*tag);
            *self.joining.entry(*tag).or_default() += 1;
        }
        self.plan.repairs.pop();
        self.plan.repairs.push(format!("{range}: {} begins to copy it", list(&joining)));
        Some(Teams { team: teams.team.clone(), joining })
    }

    /// The next step of a shard that somebody is joining.
    fn go_on(&mut self, range: &KeyRange, teams: &Teams) -> Option<Teams> {
        let gone = |tag: &&Tag| self.servers.standing(**tag) >= Standing::Leaving;
        if let Some(left) = teams.joining.iter().find(gone).copied() {
            let joining: Vec<Tag> = teams.joining.iter().copied().filter(|t| *t != left).collect();
            self.servers.remove_load(left);
            self.plan
                .repairs
                .push(format!("{range}: {left} is gone and does not join it any more"));
            return Some(Teams { team: teams.team.clone(), joining });
        }
        let missing = teams.joining.iter().filter(|tag| !self.has_copied(**tag, range)).copied();
        let missing: Vec<Tag> = missing.collect();
        if !missing.is_empty() {
            self.plan.repairs.push(format!("{range}: {} is copying it", list(&missing)));
            return None;
        }
        for tag in &teams.joining {
            self.joining.entry(*tag).and_modify(|count| *count -= 1);
        }
        let all: Vec<Tag> = teams.all().collect();
        let mut kept = self.best(&all);
        if kept.len() < self.copies {
            // Not enough yet: nobody is dropped, and the next step goes on from here.
            kept = all;
        }
        self.plan.repairs.push(format!("{range}: {} takes over", list(&teams.joining)));
        Some(Teams::of(self.leave(teams, kept)))
    }

    fn has_copied(&self, tag: Tag, range: &KeyRange) -> bool {
        let covers = |copied: &KeyRange| copied.begin <= range.begin && range.end <= copied.end;
        self.copied.get(&tag).is_some_and(|ranges| ranges.iter().any(covers))
    }

    /// The members to keep, out of some: in zones of their own, those that are there first, then the less loaded.
    fn best(&self, tags: &[Tag]) -> Vec<Tag> {
        let mut order: Vec<_> = tags
            .iter()
            .copied()
            .filter(|tag| self.servers.standing(*tag) < Standing::Leaving)
            .collect();
        order.sort_by_key(|tag| (self.servers.standing(*tag), self.servers.load(*tag), *tag));
        let mut kept = self.servers.in_own_zones(&[], &order, self.copies);
        kept.sort_unstable();
        kept
    }

    /// The members that stay, after the others' load was taken from them.
    fn leave(&mut self, teams: &Teams, kept: Vec<Tag>) -> Vec<Tag> {
        for tag in teams.all().filter(|tag| !kept.contains(tag)).collect::<Vec<_>>() {
            self.servers.remove_load(tag);
        }
        kept
    }

    /// Moves a shard from the most loaded server to the least loaded one, if that makes a difference.
    fn balance(&mut self, map: &ShardMap) {
        let good = self.servers.good();
        let Some(&least) = good.first() else { return };
        for most in good.iter().rev().copied() {
            if self.servers.load(most) < self.servers.load(least) + 2 {
                return;
            }
            let fits = |teams: &Teams| {
                let others: Vec<Tag> =
                    teams.team.iter().copied().filter(|tag| *tag != most).collect();
                teams.team.contains(&most)
                    && !teams.team.contains(&least)
                    && !self.servers.in_own_zones(&others, &[least], 1).is_empty()
            };
            if let Some(shard) = map.shards().iter().find(|shard| fits(&shard.teams)) {
                let teams = Teams { team: shard.teams.team.clone(), joining: vec![least] };
                let detail = format!("{}: {least} joins, {most} has more", shard.range);
                self.plan.repairs.push(detail);
                self.plan.changes.push((shard.range.begin.clone(), teams));
                return;
            }
        }
    }
}

fn list(tags: &[Tag]) -> String {
    let tags: Vec<_> = tags.iter().map(|tag| format!("storage {tag}")).collect();
    if tags.is_empty() { "nobody".to_owned() } else { tags.join(", ") }
}

/// Whether no shard needs a server any more.
pub fn is_drained(map: &ShardMap, tag: Tag) -> bool {
    !map.shards().iter().any(|shard| shard.teams.all().any(|other| other == tag))
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::Shard;
    use proptest::prelude::*;

    use super::{super::teams::Server, *};

    fn servers(standings: &[(&str, Standing)]) -> Servers {
        let server = |(tag, (zone, standing)): (u32, &(&str, Standing))| Server {
            tag: Tag(tag),
            zone: (*zone).to_owned(),
            standing: *standing,
        };
        Servers::new((0..).zip(standings).map(server))
    }

    fn map(teams: &[&[u32]]) -> ShardMap {
        let count = teams.len();
        let border = |index: usize| match index {
            0 => Key::MIN,
            index if index == count => Key::SYSTEM_END,
            index => Key::from(vec![u8::try_from(index).unwrap()]),
        };
        let shard = |(index, team): (usize, &&[u32])| Shard {
            range: KeyRange { begin: border(index), end: border(index + 1) },
            teams: Teams::of(team.iter().copied().map(Tag)),
        };
        ShardMap::new(teams.iter().enumerate().map(shard).collect())
    }

    /// Takes steps until there are none, with every copy done at once. Returns the map and what is stuck.
    fn settle(map: &mut ShardMap, servers: &Servers, copies: usize) -> Vec<String> {
        for _ in 0..200 {
            let mut copied: BTreeMap<Tag, Vec<KeyRange>> = BTreeMap::new();
            for shard in map.shards() {
                for tag in &shard.teams.joining {
                    copied.entry(*tag).or_default().push(shard.range.clone());
                }
            }
            let plan = plan(map, servers.clone(), &copied, copies);
            if plan.changes.is_empty() {
                return plan.stuck;
            }
            for (begin, teams) in plan.changes {
                let there = |teams: &Teams| {
                    let there = |tag: &&Tag| servers.standing(**tag) < Standing::Leaving;
                    teams.team.iter().filter(there).count().min(copies)
                };
                let before = there(&map.of_key(&begin).unwrap().teams);
                assert!(there(&teams) >= before, "copies were given up: {teams:?}");
                map.set(&begin, teams);
            }
        }
        panic!("the plan never ends: {map:?}");
    }

    use Standing::{Away, Gone, Good, Leaving};

    #[test]
    fn a_lost_server_is_replaced_in_two_steps() {
        let mut map = map(&[&[0, 1]]);
        let all = servers(&[("a", Good), ("b", Gone), ("c", Good)]);
        let nobody = BTreeMap::new();
        let first = plan(&map, all.clone(), &nobody, 2);
        let joining = Teams { team: vec![Tag(0), Tag(1)], joining: vec![Tag(2)] };
        assert_eq!(first.changes, [(Key::MIN, joining.clone())]);
        map.set(&Key::MIN, joining);
        let waits = plan(&map, all.clone(), &nobody, 2);
        assert_eq!((waits.changes.len(), waits.repairs.len()), (0, 1));
        let range = map.shards()[0].range.clone();
        let copied = BTreeMap::from([(Tag(2), vec![range])]);
        let second = plan(&map, all, &copied, 2);
        assert_eq!(second.changes, [(Key::MIN, Teams::of([Tag(0), Tag(2)]))]);
    }

    #[test]
    fn a_server_that_is_away_for_a_moment_is_waited_for() {
        let all = servers(&[("a", Good), ("b", Away), ("c", Good)]);
        assert_eq!(plan(&map(&[&[0, 1]]), all, &BTreeMap::new(), 2), Plan::default());
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let all = servers(&[("a", Good), ("b", Gone), ("a", Good)]);
        let stuck = settle(&mut map(&[&[0, 1]]), &all, 2);
        assert!(stuck[0].contains("has 1 of 2 copies"), "{stuck:?}");
        let all = servers(&[("a", Gone), ("b", Good)]);
        let stuck = settle(&mut map(&[&[0]]), &all, 1);
        assert!(stuck[0].contains("until one of storage 0 returns"), "{stuck:?}");
    }

    #[test]
    fn an_excluded_server_is_drained_and_comes_back() {
        let mut map = map(&[&[0], &[0], &[1]]);
        let all = servers(&[("a", Leaving), ("b", Good)]);
        assert!(settle(&mut map, &all, 1).is_empty());
        assert!(is_drained(&map, Tag(0)));
        let all = servers(&[("a", Good), ("b", Good)]);
        assert!(settle(&mut map, &all, 1).is_empty());
        assert!(!is_drained(&map, Tag(0)), "the load is shared again");
    }

    #[test]
    fn the_number_of_copies_can_change() {
        let mut map = map(&[&[0], &[1]]);
        let all = servers(&[("a", Good), ("b", Good), ("c", Good)]);
        for copies in [3, 2, 1, 2] {
            assert!(settle(&mut map, &all, copies).is_empty());
            assert!(map.shards().iter().all(|shard| shard.teams.team.len() == copies));
        }
    }

    fn standing() -> impl Strategy<Value = Standing> {
        prop_oneof![4 => Just(Good), 1 => Just(Away), 1 => Just(Leaving), 1 => Just(Gone)]
    }

    proptest! {
        #[test]
        fn every_shard_becomes_what_it_can_be(
            zones in prop::collection::vec((0..4usize, standing()), 6),
            teams in prop::collection::vec(prop::collection::vec(0..6u32, 1..3), 1..6),
            copies in 1..4usize,
        ) {
            let names = ["a", "b", "c", "d"];
            let all: Vec<_> = zones.iter().map(|(zone, standing)| (names[*zone], *standing)).collect();
            let all = servers(&all);
            let teams: Vec<Vec<u32>> = teams.into_iter().map(|mut team| {
                team.sort_unstable();
                team.dedup();
                team
            }).collect();
            let teams: Vec<&[u32]> = teams.iter().map(Vec::as_slice).collect();
            let mut map = map(&teams);
            let stuck = settle(&mut map, &all, copies);
            for shard in map.shards() {
                prop_assert!(shard.teams.joining.is_empty());
                let zones: std::collections::BTreeSet<_> =
                    shard.teams.team.iter().filter_map(|tag| all.zone(*tag)).collect();
                let is_right = shard.teams.team.len() == copies && zones.len() == copies
                    && shard.teams.team.iter().all(|tag| all.standing(*tag) < Leaving);
                prop_assert!(is_right || !stuck.is_empty(), "{:?} {:?}", shard, stuck);
            }
        }
    }
}
