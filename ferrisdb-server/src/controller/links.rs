//! Which of the processes that could be recruited may not reach each other, and whom to leave out because of it.
//!
//! ```text
//!   a coordinator on m1 waited in vain for a log on m2       m1 c1 l1 --x-- m2 c2 l2      m3 c3 l3
//!
//!   so c1 l2 are not taken together; nor are c2 l1, and c1 c2, as long as there are others: it may be the link
//!   left out, the fewest first:   l2 c2  |  c1 l1  |  c1 c2
//! ```
//!
//! A heartbeat tells that a controller is reached, never that others are. Who is accused is left out rather than who accuses; if that
//! fails, the next attempt has it the other way round. Logs of a generation do not talk to each other.
//!
//! Pure functions; who suspects whom is remembered by [`super::registry`].

use std::collections::BTreeSet;

use ferrisdb_core::{id::Address, service::controller::ProcessClass};

use super::recruitment::Candidate;

/// How many ways to leave processes out are looked at.
const WAYS_MAX: usize = 64;

/// Pairs of processes, of which the first has waited for the second in vain.
#[derive(Clone, Debug, Default)]
pub struct Suspicions {
    pairs: BTreeSet<(Address, Address)>,
}

/// How much of what is suspected is avoided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caution {
    /// Whatever may have the same cause, too: other processes of the same two machines.
    Machines,
    /// What was seen to fail.
    Processes,
}

fn machine(address: &Address) -> &str {
    address.0.rsplit_once(':').map_or(address.0.as_str(), |(machine, _)| machine)
}

impl Suspicions {
    /// These pairs.
    pub fn new(pairs: impl IntoIterator<Item = (Address, Address)>) -> Suspicions {
        // Who is accused by itself is nobody's neighbour.
        Suspicions { pairs: pairs.into_iter().filter(|(by, of)| by != of).collect() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Whether one of the two has waited for the other one in vain.
    pub fn has(&self, one: &Address, other: &Address) -> bool {
        let is_pair = |by: &Address, of: &Address| self.pairs.contains(&(by.clone(), of.clone()));
        is_pair(one, other) || is_pair(other, one)
    }

    fn has_machines(&self, one: &Address, other: &Address) -> bool {
        let (one, other) = (machine(one), machine(other));
        let mut pairs = self.pairs.iter().map(|(by, of)| (machine(by), machine(of)));
        one != other && pairs.any(|pair| pair == (one, other) || pair == (other, one))
    }

    fn is_accused(&self, address: &Address) -> bool {
        self.pairs.iter().any(|(_, of)| of == address)
    }

    fn accuses(&self, address: &Address) -> bool {
        self.pairs.iter().any(|(by, _)| by == address)
    }

    /// Ways to leave candidates out so that no two of the others are suspected, as what is left: those that leave out the fewest
    /// first, and of these those that leave out whoever is accused (whoever accuses, in every second turn).
    pub fn without_suspected<'a>(
        &self,
        candidates: &[Candidate<'a>],
        caution: Caution,
        turn: u32,
    ) -> Vec<Vec<Candidate<'a>>> {
        let address = |index: usize| &candidates[index].heartbeat.worker.address;
        let is_log = |index: usize| candidates[index].heartbeat.class == ProcessClass::Log;
        let mut neighbours = vec![BTreeSet::new(); candidates.len()];
        for one in 0..candidates.len() {
            for other in one + 1..candidates.len() {
                let (by, of) = (address(one), address(other));
                // A log may have failed to copy from the log that the other process had before.
                let is_edge = self.has(by, of)
                    || caution == Caution::Machines
                        && !(is_log(one) && is_log(other))
                        && self.has_machines(by, of);
                if is_edge {
                    neighbours[one].insert(other);
                    neighbours[other].insert(one);
                }
            }
        }
        let mut ways = BTreeSet::new();
        leave_out(&neighbours, BTreeSet::new(), &mut ways);
        let mut ways: Vec<_> = ways.into_iter().collect();
        ways.sort_by_key(|left_out| {
            let blamed = left_out.iter().filter(|index| match turn % 2 {
                0 => self.is_accused(address(**index)),
                _ => self.accuses(address(**index)),
            });
            (left_out.len(), std::cmp::Reverse(blamed.count()))
        });
        let kept = |left_out: BTreeSet<usize>| {
            let kept = candidates.iter().enumerate().filter(|(index, _)| !left_out.contains(index));
            kept.map(|(_, candidate)| *candidate).collect()
        };
        ways.into_iter().map(kept).collect()
    }
}

/// Either the one with most neighbours goes, or all its neighbours do.
fn leave_out(
    neighbours: &[BTreeSet<usize>],
    left_out: BTreeSet<usize>,
    ways: &mut BTreeSet<BTreeSet<usize>>,
) {
    if ways.len() >= WAYS_MAX {
        return;
    }
    let open = |index: usize| neighbours[index].iter().filter(|other| !left_out.contains(*other));
    let here = (0..neighbours.len()).filter(|index| !left_out.contains(index));
    let most = here.max_by_key(|index| open(*index).count());
    let Some(most) = most.filter(|most| open(*most).next().is_some()) else {
        ways.insert(left_out);
        return;
    };
    let mut all = left_out.clone();
    all.extend(open(most).copied());
    let mut one = left_out.clone();
    one.insert(most);
    leave_out(neighbours, one, ways);
    leave_out(neighbours, all, ways);
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::service::controller::Heartbeat;

    use super::{super::recruitment::tests::processes_at, *};

    /// Three machines, each with a coordinator and a log.
    fn three_machines() -> Vec<Heartbeat> {
        processes_at(&["m1:10", "m1:20", "m2:10", "m2:20", "m3:10", "m3:20"])
    }

    fn ways(pairs: &[(&str, &str)], caution: Caution, turn: u32) -> Vec<String> {
        let heartbeats = three_machines();
        let candidates: Vec<_> =
            heartbeats.iter().map(|heartbeat| Candidate { heartbeat, is_accused: false }).collect();
        let pairs = pairs.iter().map(|(by, of)| (Address::new(*by), Address::new(*of)));
        let kept = Suspicions::new(pairs).without_suspected(&candidates, caution, turn);
        let names = |kept: &Vec<Candidate<'_>>| {
            let left_out = heartbeats
                .iter()
                .filter(|heartbeat| !kept.iter().any(|c| c.heartbeat.process == heartbeat.process));
            let names: Vec<_> = left_out.map(|h| h.worker.address.to_string()).collect();
            names.join(" ")
        };
        kept.iter().map(names).collect()
    }

    #[test]
    fn nobody_is_left_out_without_a_reason() {
        assert_eq!(ways(&[], Caution::Machines, 0), [""]);
        assert_eq!(ways(&[("m1:10", "m1:10"), ("m1:10", "m9:20")], Caution::Machines, 0), [""]);
    }

    #[test]
    fn the_accused_goes_first_and_the_accuser_the_next_time() {
        let pair = [("m1:10", "m2:20")];
        assert_eq!(ways(&pair, Caution::Processes, 0), ["m2:20", "m1:10"]);
        assert_eq!(ways(&pair, Caution::Processes, 1), ["m1:10", "m2:20"]);
        // Who accuses several is taken for the one that is cut off.
        let several = [("m1:10", "m2:20"), ("m1:10", "m3:20"), ("m1:10", "m1:20")];
        assert_eq!(ways(&several, Caution::Processes, 0)[0], "m1:10");
    }

    #[test]
    fn two_machines_are_not_mixed_when_one_pair_was_seen_to_fail() {
        let found = ways(&[("m1:10", "m2:20")], Caution::Machines, 0);
        assert_eq!(found[0], "m2:10 m2:20", "{found:?}");
        assert!(found.iter().any(|way| way == "m1:10 m2:10"), "{found:?}");
        assert!(found.iter().any(|way| way == "m1:10 m1:20"), "{found:?}");
        assert_eq!(ways(&[("m1:10", "m2:20")], Caution::Machines, 1)[0], "m1:10 m1:20");
    }

    #[test]
    fn many_suspicions_are_looked_at_within_bounds() {
        let all = ["m1:10", "m1:20", "m2:10", "m2:20", "m3:10", "m3:20"];
        let pairs: Vec<_> =
            all.iter().flat_map(|by| all.iter().map(move |of| (*by, *of))).collect();
        let found = ways(&pairs, Caution::Processes, 0);
        assert!(found.len() <= WAYS_MAX && found.iter().all(|way| way.split(' ').count() == 5));
    }
}
