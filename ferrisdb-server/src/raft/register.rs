//! The register: a member of a group, as the rest of its process sees it.

use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Result, Stage, handler,
    id::Address,
    runtime::{self, Disk, TaskGroup},
    service::raft::{Raft as RaftApi, RaftIdentity, RaftMessage, RaftMessageKind, RaftService},
    transport::{self, Handler, Network},
};
use openraft::raft::AppendEntriesResponse;
use openraft::{
    BasicNode, ChangeMembers, LogIdOptionExt as _, Snapshot, SnapshotPolicy,
    error::{
        ChangeMembershipError, CheckIsLeaderError, ClientWriteError, Fatal, ForwardToLeader,
        InitializeError, RaftError,
    },
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use tarpc::context::Context;
use tokio::sync::{Notify, watch};

use super::{
    VALUE_BYTES_MAX, campaign,
    election::Election,
    failure::Failure,
    file::corrupt,
    leadership::{Leadership, View, voters},
    log_store::LogStore,
    peers::{Peers, SnapshotMessage},
    reach::Reach,
    settings::RegisterSettings,
    state_machine::{Applied, StateMachine},
    types::{Consensus, Contents, LogId, NodeId, Place, Proposal, Written},
};

/// How long a snapshot may take to arrive and to be on the receiver's disk.
const SNAPSHOT_LIMIT_MS: u64 = 5_000;

/// A member of a group that keeps one value. Clones are the same one.
#[derive(Clone)]
pub struct Register {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) place: Place,
    pub(super) consensus: Consensus,
    pub(super) log: LogStore,
    pub(super) peers: Peers,
    pub(super) election: Mutex<Election>,
    /// Rung when the election may have something to do sooner than it had.
    pub(super) election_changed: Arc<Notify>,
    pub(super) reach: Mutex<Reach>,
    applied: watch::Receiver<Applied>,
    pub(super) view: watch::Receiver<View>,
    /// Whether there was something on the disk at the beginning.
    was_initialized: bool,
    failure: Failure,
    pub(super) settings: RegisterSettings,
    pub(super) tasks: TaskGroup,
}

impl Register {
    /// Opens the member whose files are in `directory`, or a new one.
    ///
    /// Its number was drawn with the directory and stays with it. `network` is how this member reaches the others. They
    /// reach it once [`Register::service`] is offered at its address; if the group knows it at another one, it says so.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Corrupt`] if a file is damaged or missing; what the disk says; or
    /// [`ErrorCode::InvalidArgument`] for settings that contradict each other.
    pub async fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        place: Place,
        network: Network,
        settings: RegisterSettings,
    ) -> Result<Register> {
        let node = place.node;
        disk.create_directory(directory).await?;
        let failure = Failure::default();
        let log = LogStore::open(Arc::clone(&disk), directory, failure.clone()).await?;
        let machine = StateMachine::open(disk, directory, failure.clone()).await?;
        let applied = machine.applied();
        let snapshot = applied.borrow().last_log_id;
        if log.purged() > snapshot {
            let detail = format!("purged through {:?}, snapshot of {snapshot:?}", log.purged());
            return Err(corrupt(detail).at(directory.display()));
        }
        let was_initialized = !log.is_pristine() || snapshot.is_some();
        log.step_down(node);

        let peers = Peers::new(node, network);
        let config = Arc::new(library_settings(&settings)?);
        let consensus = Consensus::new(node, config, peers.clone(), log.clone(), machine).await;
        let consensus = consensus.map_err(|fatal| stopped(&failure, &fatal))?;
        // The core says who its members are before it takes this first request.
        let started = consensus.is_initialized().await;
        started.map_err(|fatal| stopped(&failure, &fatal))?;
        let metrics = consensus.metrics();
        let first = View::new(metrics.borrow().clone());
        if first.metrics.membership_config.voter_ids().eq([node]) {
            // Nobody else could lead or object.
            consensus.trigger().elect().await.map_err(|fatal| stopped(&failure, &fatal))?;
        }
        let (viewed, view) = watch::channel(first);
        let tasks = TaskGroup::default();
        tasks.spawn(follow(metrics, viewed, failure.clone()));
        let election = Election::new(node, settings.election_timeout.clone(), runtime::now());
        let shared = Arc::new(Shared {
            place,
            consensus,
            log,
            peers,
            election: Mutex::new(election),
            election_changed: Arc::default(),
            reach: Mutex::new(Reach::new(settings.reached_within)),
            applied,
            view,
            was_initialized,
            failure,
            settings,
            tasks,
        });
        shared.tasks.spawn(campaign::campaign(Arc::downgrade(&shared)));
        shared.tasks.spawn(campaign::presence(Arc::downgrade(&shared)));
        Ok(Register { shared })
    }

    /// The number of this member.
    pub fn node(&self) -> NodeId {
        self.shared.place.node
    }

    /// Whether this member belongs to a group: it has been told the members, or has voted for one of them.
    pub fn is_initialized(&self) -> bool {
        self.shared.was_initialized || self.shared.view.borrow().is_initialized()
    }

    /// Founds a group. Done on one new member or on several, but with the same members everywhere.
    ///
    /// Does nothing if this member belongs to a group already.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] if this member is not one of `members`.
    pub async fn initialize(&self, members: BTreeMap<NodeId, Address>) -> Result<()> {
        let nodes: BTreeMap<NodeId, BasicNode> =
            members.iter().map(|(&node, address)| (node, BasicNode::new(address))).collect();
        match self.shared.consensus.initialize(nodes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                self.seen(View::is_initialized).await
            }
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                let detail = format!("member {} is not one of {members:?}", self.shared.place.node);
                Err(Error::new(ErrorCode::InvalidArgument, Stage::Control, detail))
            }
            Err(RaftError::Fatal(fatal)) => Err(self.stopped(&fatal)),
        }
    }

    /// Who leads now.
    pub fn leadership(&self) -> Leadership {
        let is_reached = self.is_reached();
        let lease = self.shared.settings.election_timeout.end;
        let mut leadership = self.shared.view.borrow().leadership(lease, is_reached);
        // The library remembers the last leader for ever, also on its disk. One that is cut off from it knows of none.
        let hears = self.shared.election.lock().hears_a_leader(runtime::now());
        leadership.leader = leadership.leader.filter(|(leader, _)| hears || *leader == self.node());
        if let Some((leader, address)) = &mut leadership.leader {
            *address = match *leader == self.node() {
                true => self.shared.place.address.clone(),
                false => self.shared.peers.address_of(*leader, address.clone()),
            };
        }
        leadership
    }

    /// Whether a majority has reached this member at its own address lately.
    pub(super) fn is_reached(&self) -> bool {
        let members = Arc::clone(&self.shared.view.borrow().metrics.membership_config);
        let voters = members.membership().get_joint_config();
        self.shared.reach.lock().is_proven(self.node(), voters, runtime::now())
    }

    /// Waits until the leadership is not `known` any more.
    pub async fn leadership_changed(&self, known: &Leadership) -> Leadership {
        let mut view = self.shared.view.clone();
        loop {
            let present = self.leadership();
            if present != *known {
                return present;
            }
            // A lease ends without a word, so this looks again by itself.
            let pause = self.shared.settings.heartbeat_interval;
            let changed = runtime::timeout(pause, Stage::Control, view.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                runtime::sleep(pause).await;
            }
        }
    }

    /// What the register holds: all writes that were acknowledged before the call, by whichever leader.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotLeader`] unless this member leads; [`ErrorCode::Unavailable`] or [`ErrorCode::TimedOut`] if
    /// no majority confirms that it does.
    pub async fn read(&self) -> Result<Contents> {
        let read = async {
            let (log_id, _) =
                self.shared.consensus.get_read_log_id().await.map_err(|error| match error {
                    RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)) => {
                        self.not_leader(&forward)
                    }
                    RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(missing)) => {
                        Error::new(ErrorCode::Unavailable, Stage::Control, missing.to_string())
                    }
                    RaftError::Fatal(fatal) => self.stopped(&fatal),
                })?;
            let mut applied = self.shared.applied.clone();
            loop {
                {
                    let applied = applied.borrow_and_update();
                    if applied.last_log_id.index() >= log_id.index() {
                        return Ok(applied.contents.clone());
                    }
                }
                applied.changed().await.map_err(|_| self.stopped(&Fatal::Stopped))?;
            }
        };
        self.in_time(read).await
    }

    /// What is applied here, which may be old.
    pub fn latest(&self) -> Contents {
        self.shared.applied.borrow().contents.clone()
    }

    /// What is applied here, which may be old, as soon as it is past `revision`.
    pub async fn newer_than(&self, revision: u64) -> Contents {
        let mut applied = self.shared.applied.clone();
        let newer = applied.wait_for(|applied| applied.contents.revision > revision).await;
        let newer = newer.map(|applied| applied.contents.clone());
        match newer {
            Ok(contents) => contents,
            // The core has ended: nothing newer will come.
            Err(_) => std::future::pending().await,
        }
    }

    /// Writes a value, if the register is at `expected_revision`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotLeader`] unless this member leads; [`ErrorCode::InvalidArgument`] if the value is
    /// longer than [`VALUE_BYTES_MAX`]; [`ErrorCode::TimedOut`] if no majority takes it. After any error
    /// but the second the write may still be applied, also later: whoever cares reads, or writes again with
    /// the same expected revision.
    pub async fn write(&self, expected_revision: u64, value: Bytes) -> Result<Written> {
        if value.len() > VALUE_BYTES_MAX {
            let detail = format!("a value of {} bytes, at most {VALUE_BYTES_MAX}", value.len());
            return Err(Error::new(ErrorCode::InvalidArgument, Stage::Control, detail));
        }
        let proposal = Proposal { expected_revision, value };
        let write = async {
            let answer = self.shared.consensus.client_write(proposal).await;
            let answer = answer.map_err(|error| self.change_error(error))?;
            answer.data.ok_or_else(|| {
                let detail = "a write was applied without an answer";
                Error::new(ErrorCode::Internal, Stage::Control, detail)
            })
        };
        self.in_time(write).await
    }

    /// The members that vote, as far as this one knows.
    pub fn members(&self) -> BTreeMap<NodeId, Address> {
        voters(&self.shared.view.borrow().metrics.membership_config)
    }

    /// The members that have no vote: those that are being added, or could not be for now.
    pub fn learners(&self) -> BTreeMap<NodeId, Address> {
        let membership = Arc::clone(&self.shared.view.borrow().metrics.membership_config);
        let nodes = membership.nodes().map(|(node, at)| (*node, Address::new(&at.addr)));
        let voters: std::collections::BTreeSet<NodeId> = membership.voter_ids().collect();
        nodes.filter(|(node, _)| !voters.contains(node)).collect()
    }

    /// Makes `node` a member, once it has all that the others have; or tells the others its new address.
    ///
    /// Waits for as long as it takes the new member to catch up, and can be dropped and repeated.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotLeader`] unless this member leads; [`ErrorCode::Unavailable`] while another change is
    /// under way; [`ErrorCode::TimedOut`] if no majority takes it.
    pub async fn add_member(&self, node: NodeId, address: Address) -> Result<()> {
        let known = self.members().get(&node).cloned();
        if known.as_ref() == Some(&address) {
            return Ok(());
        }
        // An address is all that a message needs to go astray, but it names the member that it is for.
        let nodes = BTreeMap::from([(node, BasicNode::new(&address))]);
        let named = self.change_members(ChangeMembers::SetNodes(nodes)).await?;
        if known.is_some() {
            return Ok(());
        }
        self.caught_up(node, named).await?;
        self.change_members(ChangeMembers::AddVoterIds([node].into())).await?;
        Ok(())
    }

    /// Removes a member, or one that is being added. It may be this one, which leads no more then.
    ///
    /// # Errors
    ///
    /// As [`Register::add_member`], and [`ErrorCode::InvalidArgument`] for the last member.
    pub async fn remove_member(&self, node: NodeId) -> Result<()> {
        let membership = Arc::clone(&self.shared.view.borrow().metrics.membership_config);
        if membership.voter_ids().any(|voter| voter == node) {
            self.change_members(ChangeMembers::RemoveVoters([node].into())).await?;
        } else if membership.membership().get_node(&node).is_some() {
            self.change_members(ChangeMembers::RemoveNodes([node].into())).await?;
        }
        Ok(())
    }

    /// What the others call: to be offered under instance 0.
    pub fn service(&self) -> Handler<RaftService> {
        handler!(RaftApi, self.clone())
    }

    /// Why this member takes part no more, if it does not: its disk failed.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure.get()
    }

    /// Waits for the failure of this member.
    pub async fn failed(&self) -> Error {
        let mut view = self.shared.view.clone();
        loop {
            if let Some(failure) = self.failure() {
                return failure;
            }
            if view.changed().await.is_err() {
                match self.failure() {
                    Some(failure) => return failure,
                    // Shut down in order.
                    None => std::future::pending().await,
                }
            }
        }
    }

    /// Takes part no more. Calls that are under way end with [`ErrorCode::ShuttingDown`].
    pub async fn shut_down(&self) {
        // The only error is that the core has ended otherwise, which is what is wanted.
        let _ = self.shared.consensus.shutdown().await;
        self.shared.tasks.abort_all();
    }

    async fn in_time<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.shared.settings.operation_timeout;
        runtime::timeout(limit, Stage::Control, operation).await?
    }

    async fn change_members(&self, change: ChangeMembers<NodeId, BasicNode>) -> Result<LogId> {
        let change = async {
            let changed = self.shared.consensus.change_membership(change, false).await;
            let log_id = changed.map_err(|error| self.change_error(error))?.log_id;
            self.seen(|view| *view.metrics.membership_config.log_id() >= Some(log_id)).await?;
            Ok(log_id)
        };
        self.in_time(change).await
    }

    /// Waits until what is shown to callers has caught up with what was done for one.
    async fn seen(&self, is_there: impl Fn(&View) -> bool) -> Result<()> {
        let mut view = self.shared.view.clone();
        let seen = view.wait_for(|view| is_there(view) || view.is_over).await;
        match seen {
            Ok(view) if !view.is_over => Ok(()),
            _ => Err(self.stopped(&Fatal::Stopped)),
        }
    }

    /// Waits until `node` has the log through `log_id`.
    async fn caught_up(&self, node: NodeId, log_id: LogId) -> Result<()> {
        let mut view = self.shared.view.clone();
        loop {
            {
                let view = view.borrow_and_update();
                // Only a leader knows what the others have.
                let Some(replication) = &view.metrics.replication else {
                    return Err(self.not_leader(&ForwardToLeader::empty()));
                };
                let known = replication.get(&node).copied().flatten();
                if known >= Some(log_id) {
                    return Ok(());
                }
            }
            view.changed().await.map_err(|_| self.stopped(&Fatal::Stopped))?;
        }
    }

    fn not_leader(&self, forward: &ForwardToLeader<NodeId, BasicNode>) -> Error {
        let detail = match (&forward.leader_id, &forward.leader_node) {
            (Some(leader), Some(node)) => format!("member {leader} at {} leads", node.addr),
            _ => "no leader is known".to_string(),
        };
        Error::new(ErrorCode::NotLeader, Stage::Control, detail)
    }

    fn change_error(&self, error: RaftError<NodeId, ClientWriteError<NodeId, BasicNode>>) -> Error {
        use ChangeMembershipError::{EmptyMembership, InProgress, LearnerNotFound};
        let change = match error {
            RaftError::Fatal(fatal) => return self.stopped(&fatal),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                return self.not_leader(&forward);
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(change)) => change,
        };
        let code = match &change {
            InProgress(_) => ErrorCode::Unavailable,
            EmptyMembership(_) | LearnerNotFound(_) => ErrorCode::InvalidArgument,
        };
        Error::new(code, Stage::Control, change.to_string())
    }

    fn stopped(&self, fatal: &Fatal<NodeId>) -> Error {
        stopped(&self.shared.failure, fatal)
    }

    /// Hands a message to the core.
    async fn take(&self, message: RaftMessage) -> Result<Bytes> {
        let consensus = &self.shared.consensus;
        match message.kind {
            RaftMessageKind::Append => {
                let answer = consensus.append_entries(decode(&message)?).await;
                let answer = answer.map_err(|error| self.rpc_error(error))?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.heard_a_leader();
                }
                encode(&answer)
            }
            RaftMessageKind::Vote => {
                let answer = consensus.vote(decode(&message)?).await;
                encode(&answer.map_err(|error| self.rpc_error(error))?)
            }
            RaftMessageKind::Snapshot => {
                let SnapshotMessage { vote, meta, contents } = decode(&message)?;
                let contents = std::io::Cursor::new(Vec::from(contents));
                let snapshot = Snapshot { meta, snapshot: Box::new(contents) };
                let answer = consensus.install_full_snapshot(vote, snapshot).await;
                let answer = answer.map_err(|fatal| self.stopped(&fatal))?;
                if answer.vote <= vote {
                    self.heard_a_leader();
                }
                encode(&answer)
            }
            RaftMessageKind::Canvass => {
                encode(&self.on_canvass(message.from, decode(&message)?).await)
            }
        }
    }

    fn rpc_error(&self, error: RaftError<NodeId>) -> Error {
        match error {
            RaftError::APIError(never) => match never {},
            RaftError::Fatal(fatal) => self.stopped(&fatal),
        }
    }
}

impl std::fmt::Debug for Register {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Register({}, {:?})", self.node(), self.leadership())
    }
}

impl RaftApi for Register {
    async fn deliver(self, _: Context, message: RaftMessage) -> Result<Bytes> {
        if message.to != self.shared.place.node {
            let detail = format!(
                "member {} asks for member {}, this is member {}",
                message.from, message.to, self.shared.place.node
            );
            return Err(Error::new(ErrorCode::NoSuchEndpoint, Stage::Control, detail));
        }
        self.take(message).await
    }

    async fn identity(self, _: Context) -> Result<RaftIdentity> {
        Ok(self.whoami())
    }

    async fn introduce(self, _: Context, node: u64, address: Address) -> Result<RaftIdentity> {
        self.on_introduce(node, address).await
    }
}

fn decode<T: DeserializeOwned>(message: &RaftMessage) -> Result<T> {
    transport::decode(&message.body).map_err(|cause| {
        let detail = format!("{:?} of member {}: {cause}", message.kind, message.from);
        Error::new(ErrorCode::Protocol, Stage::Control, detail)
    })
}

fn encode(answer: &impl Serialize) -> Result<Bytes> {
    transport::encode(answer)
        .map_err(|cause| Error::new(ErrorCode::Internal, Stage::Control, cause.to_string()))
}

/// Why the core has ended, for a caller.
fn stopped(failure: &Failure, fatal: &Fatal<NodeId>) -> Error {
    failure.get().unwrap_or_else(|| match fatal {
        Fatal::Stopped => {
            Error::new(ErrorCode::ShuttingDown, Stage::Control, "the register was shut down")
        }
        Fatal::Panicked | Fatal::StorageError(_) => {
            Error::new(ErrorCode::Internal, Stage::Control, fatal.to_string())
        }
    })
}

/// Follows what the core says about itself, until it ends.
async fn follow(
    mut metrics: watch::Receiver<super::types::Metrics>,
    view: watch::Sender<View>,
    failure: Failure,
) {
    let mut leader = None;
    loop {
        let seen = View::new(metrics.borrow_and_update().clone());
        let present = (seen.metrics.current_term, seen.metrics.current_leader);
        if leader.replace(present) != Some(present) {
            let (node, (term, leader)) = (seen.metrics.id, present);
            tracing::info!(node, term, ?leader, "the leader of the group");
        }
        if let Err(fatal) = &seen.metrics.running_state {
            if *fatal != Fatal::Stopped {
                failure.note(stopped(&failure, fatal));
            }
            view.send_replace(seen);
            return;
        }
        view.send_replace(seen);
        if metrics.changed().await.is_err() {
            // Gone without a last word.
            failure.note(stopped(&failure, &Fatal::Panicked));
            view.send_modify(|view| view.is_over = true);
            return;
        }
    }
}

/// Our settings, in the library's words.
fn library_settings(settings: &RegisterSettings) -> Result<openraft::Config> {
    let millis = |duration: std::time::Duration| duration.as_millis() as u64;
    let config = openraft::Config {
        cluster_name: "register".into(),
        heartbeat_interval: millis(settings.heartbeat_interval),
        election_timeout_min: millis(settings.election_timeout.start),
        election_timeout_max: millis(settings.election_timeout.end),
        // A member stands when a majority has promised its votes: see `election.rs`.
        enable_elect: false,
        install_snapshot_timeout: SNAPSHOT_LIMIT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_after_entries),
        max_in_snapshot_log_to_keep: settings.snapshot_after_entries / 2,
        ..openraft::Config::default()
    };
    config.validate().map_err(|cause| {
        Error::new(ErrorCode::InvalidArgument, Stage::Process, format!("register: {cause}"))
    })
}
