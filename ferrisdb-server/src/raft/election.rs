//! When a member stands for election, and whom it supports: a machine in front of the library's own elections.
//!
//! ```text
//!   member 3, back from a partition       member 1 (leads)       member 2
//!     no leader heard for a while
//!     canvass: newest entry 4.41 ------>  refused: it leads      refused: heard a leader 40 ms ago
//!     stays a follower, in its term 4                            nobody was disturbed
//!
//!   member 1 is gone
//!     canvass: newest entry 4.42 ------------------------------> granted, and promised to nobody else for a while
//!     stands: term 5
//! ```
//!
//! A member raises its term only when a majority would vote for it now (Ongaro's pre-vote). The library has no such round, and
//! whoever meets a higher term gives up its leadership, so that a member that comes back would depose a leader that is well.
//! A promise keeps two candidates from standing at once, which under load could go on for a dozen terms. Who supports a candidate
//! has just reached it at the address that it gives out; see [`super::reach`]. Who was refused asks again soon, and gives way to
//! those that have refused it.
//!
//! Knows nothing of connections and of files. Start with [`Election::step`].

use std::{collections::BTreeSet, ops::Range, time::Duration};

use ferrisdb_core::{
    id::Address,
    runtime::Instant,
    simulation::{Mark, Plant, mark, planted},
};
use serde::{Deserialize, Serialize};

use super::{
    reach::REACH_LIMIT,
    types::{LogId, NodeId},
};

/// How long a candidate waits for answers. An answer takes a new connection back to the candidate.
const ROUND_LIMIT: Duration = Duration::from_millis(1_500);
/// How often the pause after an election that came to nothing doubles.
const DOUBLINGS_MAX: u32 = 3;

/// A candidate's question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Canvass {
    /// Where the candidate would be reached as the leader.
    pub(super) address: Address,
    /// The newest entry of its log.
    pub(super) newest: Option<LogId>,
}

/// The answer: nothing, or why not.
pub(super) type Support = Result<(), String>;

/// What is known of this member's place in the group when something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The voters: two sets while they are being changed, and both count.
    pub(super) voters: Vec<BTreeSet<NodeId>>,
    /// The newest entry of this member's log.
    pub(super) newest: Option<LogId>,
    /// Whether the library takes this member for the leader.
    pub(super) leads: bool,
    /// Whether a majority confirms that, and can reach it.
    pub(super) leads_well: bool,
}

impl Standing {
    /// Whether these members are a majority.
    pub(super) fn is_majority(&self, of: &BTreeSet<NodeId>) -> bool {
        is_majority(&self.voters, of)
    }

    fn is_voter(&self, node: NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(&node))
    }
}

/// Whether these members are a majority of every set.
pub(super) fn is_majority(sets: &[BTreeSet<NodeId>], of: &BTreeSet<NodeId>) -> bool {
    !sets.is_empty() && sets.iter().all(|set| set.intersection(of).count() * 2 > set.len())
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Time has passed.
    Tick,
    /// A leader's message was taken.
    Heard,
    /// A member wants to know whether it would be supported. It was reached at its address.
    Asked { candidate: NodeId, newest: Option<LogId> },
    /// A member answered the round of this number.
    Answered { round: u64, voter: NodeId, support: bool },
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Ask all other voters.
    Canvass { round: u64 },
    /// Stand for election: a majority has promised its votes.
    Stand,
    /// The answer to [`Input::Asked`].
    Answer(Support),
}

/// The machine.
#[derive(Debug)]
pub(super) struct Election {
    node: NodeId,
    /// A leader that was heard counts as alive for the end of this range; pauses are drawn from it.
    timeout: Range<Duration>,
    lease_ends: Instant,
    stands_at: Instant,
    /// To whom this member's vote is promised, and until when.
    promise: Option<(NodeId, Instant)>,
    round: Option<Round>,
    rounds: u64,
    /// Whether the last round came to its end without any support: perhaps nobody can reach this member.
    was_unanswered: bool,
    /// Elections since a leader was heard.
    stood: u32,
}

#[derive(Debug)]
struct Round {
    number: u64,
    /// As long as its answers may be on their way, it counts for more than that of a smaller member: a smaller one that was asked
    /// gives way as soon as it has reached this member, and if this one gave way to it meanwhile, neither would stand. One that gets
    /// no answers does not count: nobody may be able to reach this member, and the other one could lead.
    is_young_until: Instant,
    ends: Instant,
    support: BTreeSet<NodeId>,
    /// Who has refused, or could not be asked. To such a one this member gives way: it has not given way to this one.
    refused: BTreeSet<NodeId>,
    /// When everybody is asked again, because somebody has refused: it may have heard the leader a moment later than others.
    again_at: Option<Instant>,
}

impl Election {
    /// A member that was started just now. A leader may be alive of which it knows nothing yet.
    pub(super) fn new(node: NodeId, timeout: Range<Duration>, now: Instant) -> Election {
        let lease_ends = now + timeout.end;
        Election {
            node,
            timeout,
            lease_ends,
            stands_at: lease_ends,
            promise: None,
            round: None,
            rounds: 0,
            was_unanswered: false,
            stood: 0,
        }
    }

    /// When there is something to do, if nothing happens before.
    pub(super) fn wakes_at(&self) -> Instant {
        match &self.round {
            Some(round) => round.again_at.map_or(round.ends, |again| again.min(round.ends)),
            None => {
                let promised = self.promise.map_or(self.stands_at, |(_, until)| until);
                self.stands_at.max(self.lease_ends).max(promised)
            }
        }
    }

    /// Whether a leader was heard so lately that it counts as alive.
    pub(super) fn hears_a_leader(&self, now: Instant) -> bool {
        now < self.lease_ends
    }

    /// Advances by one input. `luck` is drawn anew for each, and makes members differ.
    pub(super) fn step(
        &mut self,
        input: Input,
        standing: &Standing,
        luck: u64,
        now: Instant,
    ) -> Option<Effect> {
        match input {
            Input::Tick => self.on_tick(standing, luck, now),
            Input::Heard => {
                self.lease_ends = now + self.timeout.end;
                self.stands_at = self.lease_ends + self.spread(luck);
                self.promise = None;
                self.round = None;
                self.was_unanswered = false;
                self.stood = 0;
                None
            }
            Input::Asked { candidate, newest } => {
                let support = self.on_asked(candidate, newest, standing, luck, now);
                Some(Effect::Answer(support))
            }
            Input::Answered { round, voter, support } => {
                self.on_answered(round, voter, support, standing, luck, now)
            }
        }
    }

    /// A part of the range's width.
    fn spread(&self, luck: u64) -> Duration {
        let width = self.timeout.end.saturating_sub(self.timeout.start);
        width.mul_f64(luck as f64 / u64::MAX as f64)
    }

    fn on_tick(&mut self, standing: &Standing, luck: u64, now: Instant) -> Option<Effect> {
        if standing.leads || !standing.is_voter(self.node) {
            self.round = None;
            self.stood = 0;
            self.stands_at = now + self.timeout.end;
            return None;
        }
        if now < self.wakes_at() {
            return None;
        }
        self.promise = None;
        let alone = BTreeSet::from([self.node]);
        if standing.is_majority(&alone) || planted(Plant::StandUnasked) {
            return Some(self.stand(luck, now));
        }
        let youth = match self.was_unanswered {
            true => self.timeout.start,
            false => self.timeout.start.max(REACH_LIMIT),
        };
        let is_young_until = now + youth;
        if let Some(round) = self.round.as_mut().filter(|round| now < round.ends) {
            // Everybody answers anew: who refuses still is soon known again.
            round.again_at = None;
            round.refused.clear();
            round.is_young_until = is_young_until;
            return Some(Effect::Canvass { round: round.number });
        }
        if let Some(round) = self.round.take() {
            self.was_unanswered = round.support == alone;
            // Not enough answers. Asking costs nobody anything, so the next round is soon.
            self.stands_at = now + self.timeout.start + self.spread(luck);
            return None;
        }
        self.rounds += 1;
        let (number, ends) = (self.rounds, now + ROUND_LIMIT);
        let refused = BTreeSet::new();
        let again_at = None;
        self.round =
            Some(Round { number, is_young_until, ends, support: alone, refused, again_at });
        Some(Effect::Canvass { round: number })
    }

    fn stand(&mut self, luck: u64, now: Instant) -> Effect {
        self.round = None;
        let patience = self.timeout.end * (1 << self.stood.min(DOUBLINGS_MAX));
        self.stood += 1;
        self.stands_at = now + patience + self.spread(luck);
        self.promise = Some((self.node, now + self.timeout.end));
        Effect::Stand
    }

    fn on_asked(
        &mut self,
        candidate: NodeId,
        newest: Option<LogId>,
        standing: &Standing,
        luck: u64,
        now: Instant,
    ) -> Support {
        let refused = |why: &str| Err(why.to_owned());
        // One that was named as a founder and has not been told of the group yet knows nobody. It is asked by a founder that
        // has, and if it refused, a group whose first votes were lost would never have a leader.
        let knows_members = standing.voters.iter().any(|set| !set.is_empty());
        if knows_members && !standing.is_voter(candidate) {
            return refused("it is not a member");
        }
        if newest < standing.newest {
            return refused("its log lacks entries");
        }
        if standing.leads_well {
            mark(Mark::CanvassRefused);
            return refused("this member leads, and is well");
        }
        if now < self.lease_ends {
            mark(Mark::CanvassRefused);
            return refused("a leader was heard just now");
        }
        let promised = self.promise.filter(|(node, until)| *node != candidate && now < *until);
        if promised.is_some() {
            return refused("its vote is promised to another member");
        }
        let asks_itself = self
            .round
            .as_ref()
            .is_some_and(|round| now < round.is_young_until && !round.refused.contains(&candidate));
        if asks_itself && (standing.newest, self.node) > (newest, candidate) {
            // Both ask at once: one of them gives way, the same one on both sides.
            return refused("this member is a candidate itself");
        }
        self.round = None;
        self.was_unanswered = false;
        let until = now + self.timeout.end;
        self.promise = Some((candidate, until));
        self.stands_at = self.stands_at.max(until + self.spread(luck));
        Ok(())
    }

    fn on_answered(
        &mut self,
        round: u64,
        voter: NodeId,
        support: bool,
        standing: &Standing,
        luck: u64,
        now: Instant,
    ) -> Option<Effect> {
        let again = now + self.timeout.end + self.spread(luck);
        let present = self.round.as_mut().filter(|present| present.number == round)?;
        if !support {
            if planted(Plant::SitOutRound) {
                return None;
            }
            // What it has promised before it promises no more.
            present.support.remove(&voter);
            present.refused.insert(voter);
            if again + self.timeout.start <= present.ends {
                present.again_at.get_or_insert(again);
            }
            return None;
        }
        present.refused.remove(&voter);
        present.support.insert(voter);
        let has_majority = is_majority(&standing.voters, &present.support);
        (has_majority && !standing.leads).then(|| self.stand(luck, now))
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    const TIMEOUT: Range<Duration> = Duration::from_millis(200)..Duration::from_millis(400);

    fn entry(term: u64, index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(term, 1), index))
    }

    fn standing(newest: u64) -> Standing {
        Standing {
            voters: vec![BTreeSet::from([1, 2, 3])],
            newest: entry(4, newest),
            leads: false,
            leads_well: false,
        }
    }

    /// A member, and the time since it was started.
    struct Member {
        election: Election,
        began: Instant,
        standing: Standing,
    }

    impl Member {
        fn new(node: NodeId) -> Member {
            let began = ferrisdb_core::runtime::now();
            let election = Election::new(node, TIMEOUT, began);
            Member { election, began, standing: standing(9) }
        }

        fn at(&mut self, ms: u64, input: Input) -> Option<Effect> {
            let now = self.began + Duration::from_millis(ms);
            self.election.step(input, &self.standing, 0, now)
        }

        fn asked(&mut self, ms: u64, candidate: NodeId, newest: u64) -> bool {
            let newest = entry(4, newest);
            match self.at(ms, Input::Asked { candidate, newest }) {
                Some(Effect::Answer(support)) => support.is_ok(),
                other => panic!("{other:?}"),
            }
        }
    }

    fn answered(round: u64, voter: NodeId, support: bool) -> Input {
        Input::Answered { round, voter, support }
    }

    #[test]
    fn nobody_stands_before_a_majority_would_vote_for_it() {
        let mut member = Member::new(3);
        assert_eq!(member.at(399, Input::Tick), None);
        assert_eq!(member.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        // Refused for ever: it asks again and again, and never stands.
        let mut ms = 400;
        for round in 1..20 {
            assert_eq!(member.at(ms, answered(round, 1, false)), None);
            ms += 1_500;
            assert_eq!(member.at(ms, Input::Tick), None);
            ms += 200;
            assert_eq!(member.at(ms, Input::Tick), Some(Effect::Canvass { round: round + 1 }));
        }
        // An answer to an earlier round does not count.
        assert_eq!(member.at(ms, answered(7, 1, true)), None);
        assert_eq!(member.at(ms, answered(20, 1, true)), Some(Effect::Stand));
    }

    #[test]
    fn a_leader_that_is_alive_is_not_deposed() {
        let mut follower = Member::new(2);
        follower.at(1_000, Input::Heard);
        assert!(!follower.asked(1_399, 3, 9));
        assert!(follower.asked(1_400, 3, 9));
        let mut leader = Member::new(1);
        (leader.standing.leads, leader.standing.leads_well) = (true, true);
        assert!(!leader.asked(5_000, 3, 9));
        // One that nobody can reach gives way.
        leader.standing.leads_well = false;
        assert!(leader.asked(5_000, 3, 9));
    }

    #[test]
    fn a_vote_is_promised_to_one_candidate_at_a_time() {
        let mut voter = Member::new(1);
        assert!(voter.asked(400, 2, 9));
        assert!(voter.asked(410, 2, 9));
        assert!(!voter.asked(420, 3, 9));
        assert_eq!(voter.at(500, Input::Tick), None, "it does not stand itself meanwhile");
        assert!(voter.asked(810, 3, 9));
    }

    #[test]
    fn of_two_candidates_one_gives_way() {
        let (mut second, mut third) = (Member::new(2), Member::new(3));
        assert_eq!(second.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(third.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert!(second.asked(401, 3, 9));
        assert!(!third.asked(401, 2, 9));
        assert_eq!(second.at(402, answered(1, 1, true)), None);
        assert_eq!(third.at(402, answered(1, 2, true)), Some(Effect::Stand));
    }

    #[test]
    fn a_candidate_that_nobody_answers_gives_way_to_a_smaller_one() {
        let mut third = Member::new(3);
        assert_eq!(third.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert!(!third.asked(1_599, 2, 9), "it may be answered yet");
        assert!(third.asked(1_600, 2, 9));
        assert_eq!(third.at(1_610, answered(1, 1, true)), None, "its vote is promised");
    }

    #[test]
    fn a_candidate_that_nobody_has_answered_gives_way_sooner() {
        let mut third = Member::new(3);
        assert_eq!(third.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(third.at(1_900, Input::Tick), None);
        assert_eq!(third.at(2_100, Input::Tick), Some(Effect::Canvass { round: 2 }));
        assert!(!third.asked(2_299, 2, 9), "it may be answered yet");
        assert!(third.asked(2_300, 2, 9));
    }

    /// The leader stands still, and the one has heard it a moment later than the other.
    #[test]
    fn a_candidate_gives_way_to_the_member_that_has_refused_it() {
        let mut third = Member::new(3);
        assert_eq!(third.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(third.at(402, answered(1, 2, false)), None);
        assert!(!third.asked(450, 1, 9), "it may be answered yet");
        assert!(third.asked(450, 2, 9));
    }

    #[test]
    fn who_has_refused_is_asked_again_soon() {
        let mut third = Member::new(3);
        assert_eq!(third.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(third.at(402, answered(1, 2, false)), None);
        assert_eq!(third.election.wakes_at(), third.began + Duration::from_millis(802));
        assert_eq!(third.at(801, Input::Tick), None);
        assert_eq!(third.at(802, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(third.at(804, Input::Tick), None);
        assert!(!third.asked(804, 2, 9), "both ask: the smaller one gives way");
        assert_eq!(third.at(805, answered(1, 2, true)), Some(Effect::Stand));
    }

    #[test]
    fn support_counts_until_it_is_refused() {
        let mut fifth = Member::new(5);
        fifth.standing.voters = vec![BTreeSet::from([1, 2, 3, 4, 5])];
        assert_eq!(fifth.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(fifth.at(401, answered(1, 4, true)), None);
        assert_eq!(fifth.at(402, answered(1, 3, false)), None);
        assert_eq!(fifth.at(802, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(fifth.at(803, answered(1, 4, false)), None);
        assert_eq!(fifth.at(804, answered(1, 3, true)), None, "one of five, and itself");
        assert_eq!(fifth.at(805, answered(1, 2, true)), Some(Effect::Stand));
    }

    /// Each has to be reached over a new connection before it is answered.
    #[test]
    fn of_two_candidates_one_gives_way_also_if_they_reach_each_other_slowly() {
        let (mut second, mut third) = (Member::new(2), Member::new(3));
        assert_eq!(third.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(second.at(420, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert!(second.asked(650, 3, 9));
        assert!(!third.asked(670, 2, 9));
        assert_eq!(third.at(680, answered(1, 2, true)), Some(Effect::Stand));
    }

    #[test]
    fn who_lacks_entries_or_is_no_member_is_not_supported() {
        let mut voter = Member::new(1);
        assert!(!voter.asked(400, 2, 8));
        assert!(!voter.asked(400, 7, 99));
        assert!(voter.asked(400, 2, 10));
    }

    /// One founder has founded the group, and its first votes were lost: the others know nothing of it yet.
    #[test]
    fn a_founder_is_supported_by_those_that_know_no_group_yet() {
        let mut founder = Member::new(1);
        founder.standing.newest = entry(0, 0);
        assert_eq!(founder.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        for voters in [vec![], vec![BTreeSet::new()]] {
            let mut fresh = Member::new(2);
            (fresh.standing.voters, fresh.standing.newest) = (voters, None);
            assert_eq!(fresh.at(500, Input::Tick), None, "it stands for nothing itself");
            assert!(fresh.asked(600, 1, 0));
            assert!(!fresh.asked(610, 3, 0), "its vote is promised");
        }
        assert_eq!(founder.at(600, answered(1, 2, true)), Some(Effect::Stand));
    }

    #[test]
    fn elections_that_come_to_nothing_become_rarer() {
        let mut member = Member::new(3);
        let mut ms = 400;
        let mut pauses = Vec::new();
        for round in 1..=5 {
            let before = ms;
            while member.at(ms, Input::Tick).is_none() {
                ms += 10;
            }
            pauses.push(ms - before);
            assert_eq!(member.at(ms, answered(round, 1, true)), Some(Effect::Stand));
        }
        assert_eq!(pauses, [0, 400, 800, 1_600, 3_200]);
        member.at(ms, Input::Heard);
        assert_eq!(member.at(ms + 400, Input::Tick), Some(Effect::Canvass { round: 6 }));
    }

    #[test]
    fn both_sets_of_voters_count_while_they_change() {
        let mut member = Member::new(3);
        member.standing.voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5])];
        assert_eq!(member.at(400, Input::Tick), Some(Effect::Canvass { round: 1 }));
        assert_eq!(member.at(401, answered(1, 1, true)), None);
        assert_eq!(member.at(402, answered(1, 5, true)), Some(Effect::Stand));
    }

    #[test]
    fn a_lone_member_stands_at_once_and_one_that_was_removed_never() {
        let mut member = Member::new(3);
        member.standing.voters = vec![BTreeSet::from([1, 2])];
        assert_eq!(member.at(9_000, Input::Tick), None);
        member.standing.voters = vec![BTreeSet::from([3])];
        assert_eq!(member.at(10_000, Input::Tick), Some(Effect::Stand));
    }
}
