//! A view of the cluster depends on none of the controllers: the newest state comes from whoever answers.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{sync::Arc, time::Duration};

use ferrisdb_core::{
    ClusterId, Error, ErrorCode, Generation, Result, ShardMap, Stage, Tag,
    cluster_view::ClusterView,
    controllers::Controllers,
    handler,
    id::Address,
    runtime,
    service::controller::{
        ClusterState, Command, Controller, ControllerMember, ControllerService, Heartbeat,
        HeartbeatReply, Leader, Phase, StateNews, Status,
    },
    transport::{Network, Router},
};
use tarpc::context::Context;
use tokio::sync::watch;

/// A controller that tells what the test says, or nothing.
#[derive(Clone)]
struct Member(Arc<watch::Sender<Option<ClusterState>>>);

impl Member {
    fn offer(network: &Network, name: &str) -> Member {
        let (member, router) = (Member(Arc::new(watch::Sender::new(None))), Router::new());
        router.add::<ControllerService>(0, handler!(Controller, member.clone()));
        network.add_local(Address::new(name), router);
        member
    }

    fn tell(&self, revision: u64, members: &[&str]) {
        self.0.send_replace(Some(state(revision, members)));
    }
}

fn state(revision: u64, members: &[&str]) -> ClusterState {
    let member =
        |(node, name): (u64, &&str)| ControllerMember { node, address: Address::new(*name) };
    ClusterState {
        cluster_id: ClusterId(7),
        revision,
        generation: Generation(revision),
        phase: Phase::Active,
        coordinator: None,
        log_sets: Vec::new(),
        storage_servers: Vec::new(),
        next_tag: Tag(0),
        shards: ShardMap::default(),
        controllers: (1..).zip(members).map(member).collect(),
        configuration: None,
        excluded: Vec::new(),
    }
}

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorCode::Unsupported, Stage::Control, ""))
}

impl Controller for Member {
    async fn leader(self, _: Context) -> Result<Leader> {
        unsupported()
    }

    async fn heartbeat(self, _: Context, _: Heartbeat) -> Result<HeartbeatReply> {
        unsupported()
    }

    async fn cluster_state(self, _: Context, known_revision: u64) -> Result<StateNews> {
        let mut told = self.0.subscribe();
        let is_news = |state: &Option<ClusterState>| {
            state.as_ref().is_some_and(|state| state.revision > known_revision)
        };
        let state = told.wait_for(is_news).await.unwrap().clone();
        Ok(StateNews { state, is_led: true })
    }

    async fn status(self, _: Context) -> Result<Status> {
        unsupported()
    }

    async fn administer(self, _: Context, _: Command) -> Result<()> {
        unsupported()
    }
}

#[tokio::test]
async fn the_newest_state_comes_from_whoever_answers() {
    let network = Network::new();
    let [_silent, one, other] =
        ["silent", "one", "other"].map(|name| Member::offer(&network, name));
    let all = ["silent", "one", "other", "gone"];
    let given = all.map(Address::new).to_vec();
    let view = ClusterView::follow(Controllers::new(network, given));
    one.tell(5, &all);
    assert_eq!(view.newer_than(0).await.revision, 5);
    other.tell(7, &all);
    assert_eq!(view.newer_than(5).await.revision, 7);
    // What is older is not taken.
    one.tell(6, &all);
    one.tell(8, &all);
    assert_eq!(view.newer_than(7).await.revision, 8);
    assert_eq!(view.latest().unwrap().revision, 8);
}

#[tokio::test]
async fn members_that_are_new_are_followed_and_former_ones_when_those_are_silent() {
    let network = Network::new();
    let [first, second] = ["first", "second"].map(|name| Member::offer(&network, name));
    let view = ClusterView::follow(Controllers::new(network, vec![Address::new("first")]));
    first.tell(1, &["second"]);
    second.tell(2, &["second"]);
    assert_eq!(view.newer_than(1).await.revision, 2);
    // Only the first knows where everybody has gone.
    second.0.send_replace(None);
    first.tell(3, &["first"]);
    let limit = Duration::from_secs(10);
    let found = runtime::timeout(limit, Stage::Control, view.newer_than(2)).await.unwrap();
    assert_eq!(found.revision, 3);
}
