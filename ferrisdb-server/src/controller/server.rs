//! A member of the group of controllers: it founds the group or waits to be taken in, leads while it is elected, and
//! otherwise says who does.
//!
//! ```text
//!   fresh      all controllers named on the command line are fresh: they found the group together
//!              one of them is in a group already: wait for an operator to add this one
//!   follower   says who leads, and hands out the state that the group has agreed on
//!   leader     reads the record, and reigns until it is not the leader any more
//! ```

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Result, Stage,
    id::Address,
    metrics::Registration,
    runtime::{self, Disk, TaskGroup},
    service::{
        controller::{
            ClusterState, Command, Controller as ControllerApi, ControllerMember,
            ControllerService, Heartbeat, HeartbeatReply, Leader, StateNews, Status,
        },
        raft::{RaftIdentity, RaftService},
    },
    transport::{Network, Router, call},
};
use parking_lot::Mutex;
use tarpc::context::Context;

use super::{
    ControllerSettings,
    cluster_record::ClusterRecord,
    machine::{Input, record_of_revision, refused, revision_of_record, state_of_record},
    metrics::ControllerMetrics,
    reign::{POLL_WAIT, Reign},
};
use crate::raft::{NodeId, Place, Register, RegisterSettings};

/// How long another controller may take to answer.
const PEER_LIMIT: Duration = Duration::from_millis(500);
/// How long it may take until another controller has found this one.
const MEET_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait before something is looked at again that nobody tells of.
const PAUSE: Duration = Duration::from_millis(50);

/// A controller. Clones are the same one.
#[derive(Clone)]
pub struct ControllerServer {
    shared: Arc<Shared>,
}

struct Shared {
    register: Register,
    reign: Mutex<Option<Arc<Reign>>>,
    address: Address,
    network: Network,
    settings: ControllerSettings,
    metrics: Arc<ControllerMetrics>,
    tasks: TaskGroup,
    /// Ends with the controller, also if somebody holds on to it.
    registration: Mutex<Option<Registration>>,
}

impl ControllerServer {
    /// Starts a controller that goes on from what is in `directory`, or founds a group with the other `controllers`.
    /// `identity` is its number, drawn with the directory, and where it is reached.
    ///
    /// # Errors
    ///
    /// If the directory's files cannot be read or are damaged.
    pub async fn start(
        disk: Arc<dyn Disk>,
        directory: &Path,
        identity: (NodeId, Address),
        (network, router): (Network, &Router),
        controllers: Vec<Address>,
        settings: ControllerSettings,
    ) -> Result<ControllerServer> {
        let ((node, address), patience) = (identity, RegisterSettings::default());
        let place = Place { node, address: address.clone(), others: controllers.clone() };
        let register = Register::open(disk, directory, place, network.clone(), patience).await?;
        router.add::<RaftService>(0, register.service());
        let shared = Arc::new(Shared {
            register,
            reign: Mutex::default(),
            address,
            network,
            settings,
            metrics: Arc::default(),
            tasks: TaskGroup::default(),
            registration: Mutex::default(),
        });
        let (metrics, weak) = (Arc::clone(&shared.metrics), Arc::downgrade(&shared));
        let registration = router.metrics().register_with(&[], metrics, move || {
            let shared = weak.upgrade();
            shared.iter().for_each(|s| s.metrics.leads.set(u64::from(s.reign.lock().is_some())));
        });
        *shared.registration.lock() = Some(registration);
        shared.tasks.spawn(found(Arc::clone(&shared), controllers));
        shared.tasks.spawn(lead(Arc::clone(&shared)));
        Ok(ControllerServer { shared })
    }

    /// The cluster, as soon as it is known.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::WrongCluster`] if the process belongs to another one.
    pub async fn cluster_id(&self) -> Result<ClusterId> {
        loop {
            let contents = self.shared.register.latest();
            if contents.revision > 0 {
                let cluster_id = ClusterRecord::from_bytes(&contents.value)?.cluster_id;
                self.shared.network.join(cluster_id)?;
                return Ok(cluster_id);
            }
            runtime::sleep(PAUSE).await;
        }
    }

    /// Waits for what makes it pointless to go on: the disk has failed.
    pub async fn failed(&self) -> Error {
        self.shared.register.failed().await
    }

    /// Ends the controller's tasks.
    pub fn stop(&self) {
        self.shared.tasks.abort_all();
        *self.shared.registration.lock() = None;
        // Not under the lock: the reign's tasks hold the server.
        let reign = self.shared.reign.lock().take();
        drop(reign);
    }

    /// Ends the controller, once its consensus is at rest.
    pub async fn shut_down(&self) {
        self.stop();
        self.shared.register.shut_down().await;
    }
}

impl ControllerApi for ControllerServer {
    async fn leader(self, _: Context) -> Result<Leader> {
        Ok(self.shared.leader())
    }

    async fn heartbeat(self, _: Context, request: Heartbeat) -> Result<HeartbeatReply> {
        self.shared.metrics.heartbeats.increment();
        Ok(self.shared.reign()?.heartbeat(request))
    }

    async fn cluster_state(self, _: Context, known_revision: u64) -> Result<StateNews> {
        let reign = self.shared.reign.lock().clone();
        let Some(reign) = reign else { return self.shared.agreed_state(known_revision).await };
        drop(self);
        let state = reign.newer_state(known_revision).await;
        Ok(StateNews { state: state.map(|state| ClusterState::clone(&state)), is_led: true })
    }

    async fn status(self, _: Context) -> Result<Status> {
        let reign = self.shared.reign()?;
        let mut status = reign.status(self.shared.address.clone());
        status.silent_controllers = self.shared.silent_controllers().await;
        Ok(status)
    }

    async fn administer(self, _: Context, command: Command) -> Result<()> {
        let reign = self.shared.reign()?;
        match &command {
            Command::AddController(address) => self.shared.add_controller(address).await,
            Command::RemoveController(address) => self.shared.remove_controller(address).await,
            _ => reign.administer(&command).await,
        }
    }
}

impl Shared {
    fn reign(&self) -> Result<Arc<Reign>> {
        self.reign.lock().clone().ok_or_else(|| {
            let leader = self.register.leadership().leader;
            let detail = match leader {
                Some((_, address)) if address != self.address => format!("{address} leads"),
                _ => "no leader is known here".to_owned(),
            };
            refused(ErrorCode::NotLeader, detail).at(&self.address)
        })
    }

    fn leader(&self) -> Leader {
        let leadership = self.register.leadership();
        let is_here = self.reign.lock().is_some();
        let elsewhere = leadership.leader.filter(|(node, _)| *node != self.register.node());
        Leader {
            address: if is_here {
                Some(self.address.clone())
            } else {
                elsewhere.map(|(_, address)| address)
            },
            controllers: self.members(),
        }
    }

    /// What a member tells that does not lead: what it knows to be agreed on, as soon as it is news, or after a while.
    async fn agreed_state(&self, known_revision: u64) -> Result<StateNews> {
        let is_news = |revision: u64| revision_of_record(revision) > known_revision;
        let known = record_of_revision(known_revision);
        if planted(Plant::OnlyLeaderAnswers) {
            return Err(refused(ErrorCode::NotLeader, "ask the leader").at(&self.address));
        }
        let newer = async {
            let mut contents = self.register.latest();
            while !is_news(contents.revision) {
                contents = self.register.newer_than(known.max(contents.revision)).await;
            }
            contents
        };
        let contents = runtime::timeout(POLL_WAIT, Stage::Control, newer).await.ok();
        let contents = contents.unwrap_or_else(|| self.register.latest());
        if contents.revision == 0 {
            let detail = "this controller does not belong to a cluster yet";
            return Err(refused(ErrorCode::NotLeader, detail).at(&self.address));
        }
        // One that was removed may go by the last leader that it heard of; one that is cut off knows of none.
        let own = self.register.node();
        let leader = self.register.leadership().leader;
        let is_led = leader.is_some_and(|(node, _)| node != own)
            && self.register.members().contains_key(&own);
        let state = match is_news(contents.revision) {
            true => {
                mark(Mark::FollowerToldState);
                let record = ClusterRecord::from_bytes(&contents.value)?;
                Some(state_of_record(&record, contents.revision, self.members()))
            }
            false => None,
        };
        Ok(StateNews { state, is_led })
    }

    fn members(&self) -> Vec<ControllerMember> {
        let member = |(node, address)| ControllerMember { node, address };
        self.register.members().into_iter().map(member).collect()
    }

    async fn identity(&self, address: &Address) -> Result<RaftIdentity> {
        let asked = async {
            let endpoint = Endpoint::of_process(address.clone());
            let client = self.network.connect::<RaftService>(&endpoint).await?;
            call(PEER_LIMIT, Stage::Control, |context| client.identity(context)).await?
        };
        let answer = runtime::timeout(PEER_LIMIT, Stage::Control, asked).await;
        answer.and_then(|answer| answer).map_err(|error| error.at(address))
    }

    /// Asks another controller who it is, once it has found this one at its own address.
    async fn meet(&self, address: &Address) -> Result<RaftIdentity> {
        let (node, own) = (self.register.node(), self.address.clone());
        let met = async {
            let endpoint = Endpoint::of_process(address.clone());
            let client = self.network.connect::<RaftService>(&endpoint).await?;
            call(MEET_LIMIT, Stage::Control, |context| client.introduce(context, node, own)).await?
        };
        let met = runtime::timeout(MEET_LIMIT, Stage::Control, met).await;
        let identity = met.and_then(|met| met).map_err(|error| error.at(address))?;
        self.check_address(&identity, address).await?;
        Ok(identity)
    }

    /// Whether a controller that was found at `found` is also where it says that it is.
    async fn check_address(&self, identity: &RaftIdentity, found: &Address) -> Result<()> {
        if identity.address == *found || identity.node == self.register.node() {
            return Ok(());
        }
        let there = self.identity(&identity.address).await;
        let why = match there {
            Ok(there) if there.node == identity.node => return Ok(()),
            Ok(_) => "another controller answers there".to_owned(),
            Err(error) => error.to_string(),
        };
        let detail = format!(
            "the controller at {found} gives out the address {}, where it is not reached (--advertise): {why}",
            identity.address
        );
        Err(refused(ErrorCode::Unreachable, detail))
    }

    async fn add_controller(&self, address: &Address) -> Result<()> {
        let is_member = |wanted: &Address| self.members().iter().any(|m| m.address == *wanted);
        let detail = |address: &Address| {
            format!("{address} is a controller already; remove it first if it lost its disk")
        };
        if is_member(address) {
            return Err(refused(ErrorCode::InvalidArgument, detail(address)));
        }
        let identity = self.identity(address).await?;
        self.check_address(&identity, address).await?;
        if is_member(&identity.address) {
            return Err(refused(ErrorCode::InvalidArgument, detail(&identity.address)));
        }
        tracing::info!(address = %identity.address, node = identity.node, "adding a controller");
        self.register.add_member(identity.node, identity.address).await
    }

    async fn remove_controller(&self, address: &Address) -> Result<()> {
        let members = self.members();
        let Some(member) = members.iter().find(|member| member.address == *address) else {
            // One that was being added, and has not caught up.
            let mut learners = self.register.learners().into_iter();
            if let Some((node, _)) = learners.find(|(_, at)| at == address) {
                tracing::info!(%address, node, "removing a controller that was being added");
                return self.register.remove_member(node).await;
            }
            let detail = format!("{address} is not a controller; the status lists them");
            return Err(refused(ErrorCode::InvalidArgument, detail));
        };
        if members.len() == 1 {
            let detail = "it is the only controller: add another one first";
            return Err(refused(ErrorCode::NotSatisfiable, detail));
        }
        if !planted(Plant::RemoveBlindly) {
            let mut silent = self.silent_controllers().await;
            silent.retain(|(silent, _)| silent != address);
            check_majority(address, members.len() - 1, &silent)?;
        }
        tracing::info!(%address, node = member.node, "removing a controller");
        self.register.remove_member(member.node).await
    }

    /// The controllers that do not answer now, or answer as somebody else.
    async fn silent_controllers(&self) -> Vec<(Address, String)> {
        let others: Vec<_> =
            self.members().into_iter().filter(|m| m.node != self.register.node()).collect();
        let asked = others.iter().map(|member| async move {
            match self.identity(&member.address).await {
                Ok(identity) if identity.node == member.node => None,
                Ok(_) => {
                    let lost = "it has lost its disk: remove it, and add it again".to_owned();
                    Some((member.address.clone(), lost))
                }
                Err(error) => Some((member.address.clone(), error.to_string())),
            }
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

/// Refuses a removal after which nothing could be decided any more, not even to take it back.
fn check_majority(address: &Address, left: usize, silent: &[(Address, String)]) -> Result<()> {
    let (needed, answer) = (left / 2 + 1, left - silent.len());
    if answer >= needed {
        return Ok(());
    }
    let silent: Vec<String> =
        silent.iter().map(|(silent, why)| format!("{silent} ({why})")).collect();
    let detail = format!(
        "without {address} there are {left} controllers, of which {needed} must answer, and {answer} would; start \
         {} first, or remove that one instead, if it is gone for good",
        silent.join(" and ")
    );
    Err(refused(ErrorCode::NotSatisfiable, detail))
}

/// Founds the group if nobody has.
async fn found(shared: Arc<Shared>, controllers: Vec<Address>) {
    let others: Vec<_> = controllers.into_iter().filter(|a| *a != shared.address).collect();
    let mut waited_for = String::new();
    while !shared.register.is_initialized() {
        let met = others.iter().map(|other| shared.meet(other));
        let met = futures::future::join_all(met).await;
        // By the addresses that they give out, which all founders see alike, and not by those on the command line.
        let fresh: Option<BTreeMap<NodeId, Address>> = met
            .iter()
            .map(|met| match met {
                Ok(RaftIdentity { node, is_initialized: false, address, .. }) => {
                    Some((*node, address.clone()))
                }
                _ => None,
            })
            .collect();
        // Each founder sees the same fresh controllers, so all of them name the same members.
        if let Some(mut members) = fresh {
            members.insert(shared.register.node(), shared.address.clone());
            tracing::info!(?members, "founding the group of controllers");
            match shared.register.initialize(members).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "the group was not founded here"),
            }
        } else {
            let reasons = others.iter().zip(&met).filter_map(|(other, met)| match met {
                Ok(identity) if identity.is_initialized => {
                    Some(format!("{other} belongs to a group, which can take this controller in"))
                }
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            });
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            if reasons != waited_for {
                tracing::info!(%reasons, "waiting for the other controllers");
                waited_for = reasons;
            }
        }
        runtime::sleep(runtime::jitter(PAUSE)).await;
    }
}

/// Reigns whenever this controller is elected.
async fn lead(shared: Arc<Shared>) {
    let mut leadership = shared.register.leadership();
    loop {
        if leadership.is_here {
            match reign(&shared, leadership.term).await {
                Ok(()) => {
                    tracing::info!(term = leadership.term, "this controller does not lead any more")
                }
                Err(error) => tracing::warn!(%error, "this controller cannot lead now"),
            }
            let reign = shared.reign.lock().take();
            drop(reign); // not under the lock
            runtime::sleep(PAUSE).await;
            leadership = shared.register.leadership();
        } else {
            leadership = shared.register.leadership_changed(&leadership).await;
        }
    }
}

/// One reign, until its term is over or something it wrote was not taken.
async fn reign(shared: &Arc<Shared>, term: u64) -> Result<()> {
    let contents = shared.register.read().await?;
    let record = if contents.revision == 0 {
        let cluster_id = shared.network.cluster_id().unwrap_or_else(ClusterId::random);
        tracing::info!(%cluster_id, "creating a cluster");
        ClusterRecord::new(cluster_id, shared.settings.configuration.clone())
    } else {
        ClusterRecord::from_bytes(&contents.value)?
    };
    shared.network.join(record.cluster_id)?;
    tracing::info!(term, generation = %record.generation, "this controller leads");
    let reign = Reign::begin(
        shared.register.clone(),
        contents.revision,
        record,
        shared.members(),
        shared.network.clone(),
        shared.settings.clone(),
        Arc::clone(&shared.metrics),
    );
    shared.metrics.elections.increment();
    *shared.reign.lock() = Some(Arc::clone(&reign));
    let mut known = shared.register.leadership();
    loop {
        if !known.is_here || known.term != term {
            return Ok(());
        }
        reign.input(Input::Controllers(shared.members()));
        tokio::select! {
            biased;
            error = reign.ended() => return Err(error),
            changed = shared.register.leadership_changed(&known) => known = changed,
            () = runtime::sleep(PAUSE * 5) => {}
        }
    }
}

/// The service of a controller, for a router.
pub(crate) fn handler(
    server: ControllerServer,
) -> ferrisdb_core::transport::Handler<ControllerService> {
    ferrisdb_core::handler!(ferrisdb_core::service::controller::Controller, server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_that_leaves_no_majority_is_refused_with_the_reason() {
        let address = |name: &str| Address::new(format!("{name}:4500"));
        let silent = |names: &[&str]| -> Vec<(Address, String)> {
            names.iter().map(|name| (address(name), "refused".to_owned())).collect()
        };
        let check = |left, names: &[&str]| check_majority(&address("b"), left, &silent(names));
        assert!(check(2, &[]).is_ok());
        assert!(check(4, &["c"]).is_ok());
        assert!(check(1, &[]).is_ok());
        assert!(check(4, &["c", "d"]).is_err());
        let error = check(2, &["c"]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotSatisfiable);
        let expected = "without b:4500 there are 2 controllers, of which 2 must answer, and 1 would; start c:4500 \
                        (refused) first, or remove that one instead, if it is gone for good";
        assert_eq!(error.detail(), expected);
    }
}
