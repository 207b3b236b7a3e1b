//! Who leads, as one member sees it.

use std::{collections::BTreeMap, time::Duration};

use ferrisdb_core::{id::Address, runtime};
use openraft::ServerState;

use super::types::{Membership, Metrics, NodeId};

/// Who leads a group, as far as a member knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term. A leadership is a term and its leader: in a contested term two members may lead one after the other,
    /// the one with the smaller number first.
    pub term: u64,
    /// The leader of the term, if one is known, and was heard lately if it is another member.
    pub leader: Option<(NodeId, Address)>,
    /// Whether this member leads, a majority has confirmed that within the election timeout, and a majority has reached it
    /// at its own address lately. While it holds, no other member can have become the leader, as far as clocks run equally
    /// fast.
    pub is_here: bool,
}

/// What the consensus core last said about itself, and when it was heard.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) metrics: Metrics,
    pub(super) seen_at: runtime::Instant,
    /// Whether the core has ended.
    pub(super) is_over: bool,
}

impl View {
    pub(super) fn new(metrics: Metrics) -> View {
        let is_over = metrics.running_state.is_err();
        View { metrics, seen_at: runtime::now(), is_over }
    }

    /// Whether the member belongs to a group.
    pub(super) fn is_initialized(&self) -> bool {
        self.metrics.last_log_index.is_some() || self.metrics.vote != openraft::Vote::default()
    }

    /// Who leads, where a lease lasts for `lease`, and this member is reached by a majority or not.
    pub(super) fn leadership(&self, lease: Duration, is_reached: bool) -> Leadership {
        let metrics = &self.metrics;
        let term = metrics.current_term;
        if self.is_over {
            return Leadership { term, leader: None, is_here: false };
        }
        let leader = metrics.current_leader.and_then(|leader| {
            let node = metrics.membership_config.membership().get_node(&leader)?;
            Some((leader, Address::new(&node.addr)))
        });
        // The core may hang on its disk: the time since it was heard counts, too.
        let silent = runtime::now().saturating_duration_since(self.seen_at);
        let is_confirmed = metrics
            .millis_since_quorum_ack
            .is_some_and(|ago| Duration::from_millis(ago) + silent < lease);
        let is_here = metrics.state == ServerState::Leader
            && metrics.current_leader == Some(metrics.id)
            && is_confirmed
            && is_reached;
        Leadership { term, leader, is_here }
    }
}

/// The voting members, with their addresses.
pub(super) fn voters(membership: &Membership) -> BTreeMap<NodeId, Address> {
    let address = |node: NodeId| membership.membership().get_node(&node).map(|n| n.addr.clone());
    membership.voter_ids().filter_map(|node| Some((node, Address(address(node)?)))).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use openraft::BasicNode;

    use super::*;

    const LEASE: Duration = Duration::from_millis(500);

    fn view(quorum_ack: Option<u64>) -> View {
        let nodes: BTreeMap<_, _> =
            (1..=3).map(|n| (n, BasicNode::new(format!("h:{n}")))).collect();
        let members = openraft::Membership::new(vec![BTreeSet::from([1, 2, 3])], nodes);
        let mut metrics = Metrics::new_initial(1);
        metrics.current_term = 7;
        metrics.state = ServerState::Leader;
        metrics.current_leader = Some(1);
        metrics.millis_since_quorum_ack = quorum_ack;
        metrics.membership_config = Arc::new(Membership::new(None, members));
        View::new(metrics)
    }

    #[test]
    fn a_leader_without_a_majority_does_not_say_so() {
        let leader = Some((1, Address::new("h:1")));
        let leads = Leadership { term: 7, leader: leader.clone(), is_here: true };
        let alone = Leadership { term: 7, leader, is_here: false };
        assert_eq!(view(Some(10)).leadership(LEASE, true), leads);
        assert_eq!(view(Some(500)).leadership(LEASE, true), alone);
        assert_eq!(view(None).leadership(LEASE, true), alone);
    }

    #[test]
    fn a_leader_that_nobody_reaches_does_not_say_so() {
        assert!(!view(Some(10)).leadership(LEASE, false).is_here);
    }

    #[test]
    fn a_core_that_hangs_does_not_lead() {
        let mut view = view(Some(10));
        view.seen_at = runtime::now().checked_sub(LEASE).unwrap();
        assert!(!view.leadership(LEASE, true).is_here);
    }

    #[test]
    fn a_core_that_ended_knows_no_leader() {
        let mut view = view(Some(10));
        view.is_over = true;
        assert_eq!(
            view.leadership(LEASE, true),
            Leadership { term: 7, leader: None, is_here: false }
        );
    }
}
