//! The shell of [`Election`](super::election::Election) and [`Reach`](super::reach::Reach): asks the other members, answers them, and
//! tells the library when to stand.
//!
//! ```text
//!   campaign    wakes when the election has something to do; canvasses, stands
//!   presence    a leader asks each second whether it is reached; a member at a new address tells everybody
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Result, Stage,
    id::Address,
    runtime,
    service::raft::{RaftIdentity, RaftMessageKind, RaftService},
    simulation::{Plant, planted},
    transport::call,
};
use openraft::ServerState;

use super::{
    election::{Canvass, Effect, Input, Standing, Support},
    reach::REACH_LIMIT,
    register::{Register, Shared},
    types::NodeId,
};

/// How long an introduction may take: the other side makes a connection, too.
const INTRODUCE_LIMIT: Duration = Duration::from_secs(2);
/// How often it is said again that this member cannot be reached.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

impl Register {
    /// What this member knows of its place in the group.
    fn standing(&self) -> Standing {
        let (voters, leads) = {
            let view = self.shared.view.borrow();
            let membership = view.metrics.membership_config.membership();
            let leads = view.metrics.state == ServerState::Leader && !view.is_over;
            (membership.get_joint_config().clone(), leads)
        };
        let leads_well = leads && self.leadership().is_here;
        Standing { voters, newest: self.shared.log.newest(), leads, leads_well }
    }

    fn advance(&self, input: Input) -> Option<Effect> {
        let standing = self.standing();
        let (luck, now) = (runtime::random_u64(), runtime::now());
        self.shared.election.lock().step(input, &standing, luck, now)
    }

    /// A leader's message was taken.
    pub(super) fn heard_a_leader(&self) {
        let wakes_at = || self.shared.election.lock().wakes_at();
        let before = wakes_at();
        self.advance(Input::Heard);
        if wakes_at() < before {
            self.shared.election_changed.notify_one();
        }
    }

    async fn perform(&self, effect: Option<Effect>) {
        match effect {
            Some(Effect::Canvass { round }) => self.canvass(round),
            // The only error is that the core has ended.
            Some(Effect::Stand) => {
                tracing::debug!(node = self.node(), "standing for election");
                let _ = self.shared.consensus.trigger().elect().await;
            }
            Some(Effect::Answer(_)) | None => {}
        }
    }

    /// Asks all other voters.
    fn canvass(&self, round: u64) {
        let canvass = Canvass {
            address: self.shared.place.address.clone(),
            newest: self.shared.log.newest(),
        };
        for (voter, address) in self.others() {
            let (weak, canvass) = (Arc::downgrade(&self.shared), canvass.clone());
            let peers = self.shared.peers.clone();
            self.shared.tasks.spawn(async move {
                let limit = REACH_LIMIT + INTRODUCE_LIMIT;
                let kind = RaftMessageKind::Canvass;
                let answer: Result<Support> =
                    peers.ask((voter, address), kind, &canvass, limit).await;
                let Some(shared) = weak.upgrade() else { return };
                let register = Register { shared };
                let support = match answer {
                    Ok(support) => support,
                    Err(error) => Err(error.to_string()),
                };
                if let Err(why) = &support {
                    tracing::debug!(node = register.node(), voter, why, "no support");
                } else {
                    register.shared.reach.lock().note(voter, runtime::now());
                }
                let support = support.is_ok();
                let effect = register.advance(Input::Answered { round, voter, support });
                register.shared.election_changed.notify_one();
                register.perform(effect).await;
            });
        }
    }

    /// A candidate asks for this member's support.
    pub(super) async fn on_canvass(&self, candidate: NodeId, canvass: Canvass) -> Support {
        let standing = self.standing();
        let is_disturbing =
            standing.leads_well || self.shared.election.lock().hears_a_leader(runtime::now());
        // Whoever would be refused anyway is not worth a connection.
        if !is_disturbing && !planted(Plant::LeadUnreached) {
            let reached = self.reach(candidate, &canvass.address).await;
            reached.map_err(|error| format!("it was not reached: {error}"))?;
            self.follow_address(candidate, &canvass.address);
        }
        let answer = self.advance(Input::Asked { candidate, newest: canvass.newest });
        self.shared.election_changed.notify_one();
        match answer {
            Some(Effect::Answer(support)) => support,
            other => Err(format!("no answer: {other:?}")),
        }
    }

    /// Makes a new connection to an address and finds a member there.
    async fn reach(&self, node: NodeId, address: &Address) -> Result<()> {
        let reached = async {
            let endpoint = Endpoint::of_process(address.clone());
            let client = self.shared.peers.network().connect::<RaftService>(&endpoint).await?;
            call(REACH_LIMIT, Stage::Control, |context| client.identity(context)).await?
        };
        let reached = runtime::timeout(REACH_LIMIT, Stage::Control, reached).await;
        let identity = reached.and_then(|identity| identity).map_err(|error| error.at(address))?;
        if identity.node != node {
            let detail = format!("member {} is there, not member {node}", identity.node);
            return Err(Error::new(ErrorCode::NoSuchEndpoint, Stage::Control, detail).at(address));
        }
        Ok(())
    }

    /// Remembers that a member was reached at an address that the group does not know yet.
    fn follow_address(&self, node: NodeId, address: &Address) -> bool {
        let Some(known) = self.members().get(&node).cloned() else { return false };
        let has_moved = known != *address;
        if node != self.node() {
            // If it has moved back, no earlier route counts any more.
            self.shared.peers.route(node, known, address.clone());
        }
        has_moved
    }

    /// A member says where it is reached.
    pub(super) async fn on_introduce(
        &self,
        node: NodeId,
        address: Address,
    ) -> Result<RaftIdentity> {
        if node != self.node() {
            self.reach(node, &address).await?;
        }
        if self.follow_address(node, &address) && self.leadership().is_here {
            tracing::info!(node, %address, "a member has moved");
            let weak = Arc::downgrade(&self.shared);
            self.shared.tasks.spawn(async move {
                let Some(shared) = weak.upgrade() else { return };
                if let Err(error) = (Register { shared }).add_member(node, address).await {
                    // It introduces itself again.
                    tracing::debug!(node, %error, "the new address was not agreed on");
                }
            });
        }
        Ok(self.whoami())
    }

    /// What this member says of itself.
    pub(super) fn whoami(&self) -> RaftIdentity {
        let newest = self.shared.log.newest();
        RaftIdentity {
            node: self.node(),
            is_initialized: self.is_initialized(),
            address: self.shared.place.address.clone(),
            newest: newest.map_or((0, 0), |newest| (newest.leader_id.term, newest.index)),
        }
    }

    /// The other voters, where this one reaches them.
    fn others(&self) -> BTreeMap<NodeId, Address> {
        let mut others = self.members();
        others.remove(&self.node());
        others
    }

    /// Whether the group knows this member at another address than its own.
    fn has_moved(&self) -> bool {
        self.members().get(&self.node()).is_some_and(|known| *known != self.shared.place.address)
    }

    /// Tells the others where this member is, and notes who has reached it there. Returns why others have not.
    async fn introduce_everywhere(&self, has_moved: bool) -> Vec<Error> {
        let mut targets: BTreeSet<Address> = self.others().into_values().collect();
        if has_moved {
            // The others may have moved, too.
            targets.extend(self.shared.place.others.iter().cloned());
            targets.remove(&self.shared.place.address);
        }
        let introduced = targets.iter().map(|target| self.introduce_at(target, has_moved));
        let introduced = futures::future::join_all(introduced).await;
        introduced.into_iter().filter_map(Result::err).collect()
    }

    async fn introduce_at(&self, target: &Address, has_moved: bool) -> Result<()> {
        let (node, address) = (self.node(), self.shared.place.address.clone());
        let introduced = async {
            let client = self.shared.peers.at(target).await?;
            let asked = |context| client.introduce(context, node, address);
            call(INTRODUCE_LIMIT, Stage::Control, asked).await?
        };
        let identity = runtime::timeout(INTRODUCE_LIMIT, Stage::Control, introduced).await;
        let identity = identity.and_then(|identity| identity).map_err(|error| error.at(target))?;
        self.shared.reach.lock().note(identity.node, runtime::now());
        if has_moved && identity.node != node {
            // Each learns the other's address, also where no leader is that could tell.
            let known = self.others().get(&identity.node).cloned();
            if known.is_some_and(|known| known != identity.address)
                && self.reach(identity.node, &identity.address).await.is_ok()
            {
                self.follow_address(identity.node, &identity.address);
            }
        }
        Ok(())
    }
}

/// Stands for election when it is time.
pub(super) async fn campaign(weak: Weak<Shared>) {
    loop {
        let (wakes_at, changed) = {
            let Some(shared) = weak.upgrade() else { return };
            let register = Register { shared };
            let effect = register.advance(Input::Tick);
            register.perform(effect).await;
            let wakes_at = register.shared.election.lock().wakes_at();
            (wakes_at, Arc::clone(&register.shared.election_changed))
        };
        let wait = wakes_at.saturating_duration_since(runtime::now()).max(Duration::from_millis(5));
        // A leader that is heard meanwhile usually makes it later only.
        let _ = runtime::timeout(wait, Stage::Control, changed.notified()).await;
    }
}

/// Sees to it that this member is reached where it says that it is, while that matters.
pub(super) async fn presence(weak: Weak<Shared>) {
    let mut leads_since = None;
    let mut complained: Option<runtime::Instant> = None;
    let mut is_silent = false;
    loop {
        let Some(shared) = weak.upgrade() else { return };
        let register = Register { shared };
        let counts_for = register.shared.settings.reached_within;
        let mut view = register.shared.view.clone();
        let (state, term) = {
            let view = view.borrow_and_update();
            (view.metrics.state, view.metrics.current_term)
        };
        let leads = state == ServerState::Leader;
        let has_moved = register.has_moved();
        if leads || has_moved {
            let failures = register.introduce_everywhere(has_moved).await;
            let now = runtime::now();
            let may_complain =
                complained.is_none_or(|at| now.saturating_duration_since(at) >= COMPLAIN_EVERY);
            if !register.is_reached() && may_complain {
                complained = Some(now);
                let (node, address) = (register.node(), &register.shared.place.address);
                let failures = failures.iter().map(ToString::to_string).collect::<Vec<_>>();
                tracing::warn!(
                    node, %address, ?failures,
                    "no majority of the controllers reaches this one at the address that it gives out: it cannot lead"
                );
            }
            if leads && has_moved && register.leadership().is_here {
                let (node, address) = (register.node(), register.shared.place.address.clone());
                if let Err(error) = register.add_member(node, address).await {
                    tracing::debug!(node, %error, "the new address was not agreed on");
                }
            }
        }
        let now = runtime::now();
        let since = leads.then_some(match leads_since {
            Some((known, since)) if known == term => (term, since),
            _ => (term, now),
        });
        leads_since = since;
        // Whoever leads and is not reached lets the others elect somebody else.
        let waited = since.map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(at));
        let gives_way = leads && waited >= counts_for && !register.is_reached();
        if gives_way != is_silent {
            is_silent = gives_way;
            register.shared.consensus.runtime_config().heartbeat(!gives_way);
        }
        drop(register);
        let is_over = async {
            let changed = view.wait_for(|view| {
                (view.metrics.state, view.metrics.current_term) != (state, term) || view.is_over
            });
            changed.await.map_or(true, |view| view.is_over)
        };
        if runtime::timeout(counts_for / 5, Stage::Control, is_over).await.unwrap_or(false) {
            return;
        }
    }
}
