//! Commands to the controllers, and what can be learnt of those that do not lead.

use std::sync::Arc;

use ferrisdb_client::{
    Address, Command, ConfigurationChange, ControllerMember, Database, Error, ErrorCode,
    Generation, Leader, Network, ProcessSelector, Redundancy, Result, Settings, Stage, Status,
    ask_controllers,
};
use ferrisdb_core::{
    ClusterId, ShardMap, Tag, handler,
    service::controller::{
        ClusterState, Controller, ControllerService, Heartbeat, HeartbeatReply, Phase, StateNews,
    },
    transport::Router,
};
use parking_lot::Mutex;
use tarpc::context::Context;

/// Three controllers; what they have in common.
#[derive(Default)]
struct Group {
    leader: Option<usize>,
    commands: Vec<(usize, Command)>,
    /// After so many commands the next one leads.
    refuses: usize,
    /// So many commands come while there is too much to do.
    busy: usize,
}

#[derive(Clone)]
struct Member {
    index: usize,
    group: Arc<Mutex<Group>>,
}

fn address(index: usize) -> Address {
    Address::new(format!("c{index}"))
}

fn members() -> Vec<ControllerMember> {
    (0..3).map(|index| ControllerMember { node: index as u64, address: address(index) }).collect()
}

/// Controllers of which those at `running` run.
fn controllers(running: &[usize], leader: Option<usize>) -> (Network, Arc<Mutex<Group>>) {
    let group = Arc::new(Mutex::new(Group { leader, ..Group::default() }));
    let network = Network::new();
    for index in 0..3 {
        let router = Router::new();
        if running.contains(&index) {
            let member = Member { index, group: Arc::clone(&group) };
            router.add::<ControllerService>(0, handler!(Controller, member));
        }
        network.add_local(address(index), router);
    }
    (network, group)
}

fn not_leader() -> Error {
    Error::new(ErrorCode::NotLeader, Stage::Control, "")
}

impl Controller for Member {
    async fn leader(self, _: Context) -> Result<Leader> {
        let leader = self.group.lock().leader.map(address);
        Ok(Leader { address: leader, controllers: members() })
    }

    async fn heartbeat(self, _: Context, _: Heartbeat) -> Result<HeartbeatReply> {
        Err(not_leader())
    }

    async fn cluster_state(self, _: Context, known_revision: u64) -> Result<StateNews> {
        if known_revision > 0 {
            return std::future::pending().await;
        }
        let state = ClusterState {
            cluster_id: ClusterId(7),
            revision: 1,
            generation: Generation(0),
            phase: Phase::Waiting { reason: "a test".to_owned() },
            coordinator: None,
            log_sets: Vec::new(),
            storage_servers: Vec::new(),
            next_tag: Tag(0),
            shards: ShardMap::default(),
            controllers: members(),
            configuration: None,
            excluded: Vec::new(),
        };
        Ok(StateNews { state: Some(state), is_led: true })
    }

    async fn status(self, _: Context) -> Result<Status> {
        Err(not_leader())
    }

    async fn administer(self, _: Context, command: Command) -> Result<()> {
        let mut group = self.group.lock();
        if group.leader != Some(self.index) {
            return Err(not_leader());
        }
        if group.refuses > 0 {
            group.refuses -= 1;
            group.leader = Some((self.index + 1) % 3);
            return Err(not_leader());
        }
        if group.busy > 0 {
            group.busy -= 1;
            return Err(Error::new(ErrorCode::TooBusy, Stage::Control, ""));
        }
        if let Command::Include(_) = command {
            return Err(Error::new(ErrorCode::InvalidArgument, Stage::Control, "unknown"));
        }
        group.commands.push((self.index, command));
        Ok(())
    }
}

#[tokio::test]
async fn commands_reach_the_leader_whoever_that_is_by_then() {
    let (network, group) = controllers(&[0, 1, 2], Some(0));
    let database = Database::connect_with(network, vec![address(1)]).await.unwrap();
    let change = ConfigurationChange {
        redundancy: Some(Redundancy::Triple),
        ..ConfigurationChange::default()
    };
    database.configure(change.clone()).await.unwrap();
    group.lock().refuses = 1;
    group.lock().busy = 2;
    let selectors = vec![ProcessSelector::Address(Address::new("x:1"))];
    database.exclude(selectors.clone()).await.unwrap();
    database.add_controller(address(4)).await.unwrap();
    assert_eq!(
        group.lock().commands,
        [
            (0, Command::Configure(change)),
            (1, Command::Exclude(selectors.clone())),
            (1, Command::AddController(address(4))),
        ]
    );
    // What the leader refuses is not asked again.
    let refused = database.include(selectors).await.unwrap_err();
    assert_eq!((refused.code(), refused.server()), (ErrorCode::InvalidArgument, Some("c1")));
}

#[tokio::test]
async fn without_a_leader_a_command_is_refused_in_time() {
    let (network, group) = controllers(&[0, 1, 2], Some(0));
    let connect_limit = std::time::Duration::from_millis(300);
    let settings = Settings { connect_limit, ..Settings::default() };
    let database =
        Database::connect_with_settings(network, vec![address(0)], settings).await.unwrap();
    group.lock().leader = None;
    let refused = database.remove_controller(address(2)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotLeader);
}

#[tokio::test]
async fn everybody_who_is_named_is_asked_who_leads() {
    let (network, _) = controllers(&[0, 2], None);
    let answers = ask_controllers(&network, &[address(0)]).await;
    let known: Vec<_> =
        answers.iter().map(|answer| (answer.address.clone(), answer.answer.is_ok())).collect();
    assert_eq!(known, [(address(0), true), (address(1), false), (address(2), true)]);
    let error = answers[1].answer.as_ref().unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoSuchEndpoint);
}
