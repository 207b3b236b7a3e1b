//! Groups of members over real sockets: what a register promises while members stop, restart, come and go.
//!
//! Nothing here depends on how long something takes: conditions are waited for, with limits that only a hang reaches.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Stage,
    id::Address,
    runtime::{self, Disk, disk::MemoryDisk},
    service::raft::{RaftMessage, RaftMessageKind, RaftService},
    transport::{self, Listener, Network, Router},
};
use ferrisdb_server::raft::{self, Contents, NodeId, Place, Register, RegisterSettings, Written};

/// Fails instead of hanging.
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    let done = runtime::timeout(limit, Stage::Client, future).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    in_time(what, async {
        while !condition() {
            runtime::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A member, which can be stopped and started again on the same disk and address.
struct Member {
    node: NodeId,
    address: Address,
    /// What it gives out instead of its address.
    advertise: Option<Address>,
    /// Where it looks for the others, beside where the group knows them.
    others: Vec<Address>,
    disk: MemoryDisk,
    running: Option<(Register, Router, Listener)>,
}

impl Member {
    async fn start(&mut self, settings: &RegisterSettings) {
        let (network, router) = (Network::new(), Router::new());
        let disk = Arc::new(self.disk.clone());
        let path = Path::new("/raft");
        // The port of the time before may still be taken: by what ends in the background, or for a while by a connection.
        let listener = in_time("its port is free", async {
            loop {
                match Listener::bind(&self.address, router.clone(), network.clone()).await {
                    Ok(listener) => return listener,
                    Err(_) => runtime::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        self.address = listener.address().clone();
        let address = self.advertise.clone().unwrap_or_else(|| self.address.clone());
        let place = Place { node: self.node, address, others: self.others.clone() };
        let register = Register::open(disk, path, place, network, settings.clone()).await.unwrap();
        router.add::<RaftService>(0, register.service());
        self.running = Some((register, router, listener));
    }

    /// Ends the member as the end of its process would: nobody is told.
    async fn stop(&mut self) {
        let (register, router, listener) = self.running.take().unwrap();
        drop(listener);
        router.clear();
        register.shut_down().await;
        self.disk.crash();
    }

    fn register(&self) -> &Register {
        &self.running.as_ref().unwrap().0
    }
}

/// A member that nobody looks for.
fn place(node: NodeId) -> Place {
    Place { node, address: Address::new("nowhere"), others: Vec::new() }
}

/// A group of members.
struct Group {
    settings: RegisterSettings,
    members: Vec<Member>,
}

impl Group {
    /// New members that belong to no group yet.
    async fn strangers(count: u64, settings: RegisterSettings) -> Group {
        let mut group = Group { settings, members: Vec::new() };
        for _ in 0..count {
            group.add().await;
        }
        group
    }

    async fn new(count: u64) -> Group {
        let group = Group::strangers(count, RegisterSettings::default()).await;
        for member in &group.members {
            member.register().initialize(group.addresses()).await.unwrap();
        }
        group
    }

    /// Starts one more stranger. Numbers are as large as drawn ones are.
    async fn add(&mut self) -> usize {
        let node = u64::MAX - self.members.len() as u64;
        let address = Address::new("127.0.0.1:0");
        let (advertise, others, disk) = (None, Vec::new(), MemoryDisk::new());
        let mut member = Member { node, address, advertise, others, disk, running: None };
        member.start(&self.settings).await;
        self.members.push(member);
        self.members.len() - 1
    }

    fn addresses(&self) -> BTreeMap<NodeId, Address> {
        self.members.iter().map(|member| (member.node, member.address.clone())).collect()
    }

    async fn restart(&mut self, index: usize) {
        self.members[index].start(&self.settings).await;
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Register)> {
        let running = |member: &'_ Member| member.running.is_some();
        let members = self.members.iter().enumerate().filter(move |(_, member)| running(member));
        members.map(|(index, member)| (index, member.register()))
    }

    /// The member that leads now, or soon.
    async fn leader(&self) -> usize {
        let leads = || self.running().find(|(_, register)| register.leadership().is_here);
        until("somebody leads", || leads().is_some()).await;
        leads().unwrap().0
    }

    /// Writes as the database's controllers do: by whoever leads, and again until it is known to be done.
    async fn write(&self, value: &str) -> u64 {
        let value = Bytes::from(value.to_string());
        let writing = async {
            loop {
                let leader = self.members[self.leader().await].register();
                let Ok(held) = leader.read().await else { continue };
                if held.value == value {
                    return held.revision;
                }
                if let Ok(Written::At(revision)) = leader.write(held.revision, value.clone()).await
                {
                    return revision;
                }
            }
        };
        in_time("a write", writing).await
    }

    async fn read(&self) -> Contents {
        let reading = async {
            loop {
                if let Ok(held) = self.members[self.leader().await].register().read().await {
                    return held;
                }
            }
        };
        in_time("a read", reading).await
    }

    /// Waits until `value` is applied on every running member.
    async fn everywhere(&self, value: &str) {
        let everywhere = || self.running().all(|(_, register)| register.latest().value == value);
        until(&format!("{value} is everywhere"), everywhere).await;
    }
}

fn code<T>(result: Result<T, Error>) -> Option<ErrorCode> {
    result.err().map(|error| error.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_member_leads_also_after_a_restart() {
    // Election timeouts that nobody would wait for: a lone member does not.
    let hour = Duration::from_secs(3_600);
    let settings =
        RegisterSettings { election_timeout: hour..2 * hour, ..RegisterSettings::default() };
    let mut group = Group::strangers(1, settings).await;
    let register = group.members[0].register().clone();
    assert!(!register.is_initialized());
    assert_eq!(code(register.read().await), Some(ErrorCode::NotLeader));
    assert_eq!(code(register.write(0, Bytes::new()).await), Some(ErrorCode::NotLeader));
    register.initialize(group.addresses()).await.unwrap();
    assert!(register.is_initialized());

    group.leader().await;
    assert_eq!(register.read().await.unwrap(), Contents::default());
    let first_leadership = register.leadership();
    assert_eq!(first_leadership.leader.as_ref().unwrap().0, register.node());
    assert_eq!(register.write(0, "a".into()).await.unwrap(), Written::At(1));
    let held = Contents { revision: 1, value: "a".into() };
    let stale = register.write(0, "b".into()).await.unwrap();
    assert_eq!(stale, Written::Stale(held.clone()));
    drop(register);

    for _ in 0..3 {
        group.members[0].stop().await;
        group.restart(0).await;
        assert!(group.members[0].register().is_initialized());
        assert_eq!(group.read().await, held);
    }
    let leadership = group.members[0].register().leadership();
    assert!(leadership.term > first_leadership.term, "a restart is another leadership");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen_by_every_member() {
    let group = Group::new(3).await;
    assert_eq!(group.write("a").await, 1);
    group.everywhere("a").await;
    assert_eq!(group.read().await, Contents { revision: 1, value: "a".into() });
    let leader = group.leader().await;
    for (index, register) in group.running() {
        assert_eq!(register.members(), group.addresses());
        assert!(register.is_initialized());
        if index != leader {
            assert_eq!(code(register.read().await), Some(ErrorCode::NotLeader));
            assert_eq!(code(register.write(1, "b".into()).await), Some(ErrorCode::NotLeader));
            assert!(!register.leadership().is_here);
        }
    }
    let long = Bytes::from(vec![0; ferrisdb_server::raft::VALUE_BYTES_MAX + 1]);
    let refused = group.members[leader].register().write(1, long).await;
    assert_eq!(code(refused), Some(ErrorCode::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_founded_once() {
    let group = Group::new(3).await;
    group.write("a").await;
    // Founding it again, even with other members, changes nothing.
    let other = BTreeMap::from([(group.members[0].node, group.members[0].address.clone())]);
    group.members[0].register().initialize(other).await.unwrap();
    assert_eq!(group.write("b").await, 2);
    assert_eq!(group.members[0].register().members().len(), 3);

    let stranger = Group::strangers(1, RegisterSettings::default()).await;
    let founded = stranger.members[0].register().initialize(BTreeMap::new()).await;
    assert_eq!(code(founded), Some(ErrorCode::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_member_leads_when_the_leader_stops_and_the_old_one_writes_nothing() {
    let mut group = Group::new(3).await;
    let revision = group.write("a").await;
    let old = group.leader().await;
    let known = group.members[(old + 1) % 3].register().leadership();
    group.members[old].stop().await;

    let watched = group.members[(old + 1) % 3].register().leadership_changed(&known);
    assert_ne!(in_time("a change of leadership", watched).await, known);
    let new = group.leader().await;
    assert_ne!(new, old);
    assert_eq!(group.write("b").await, revision + 1);

    // What the old leader still has in mind is of a revision that is gone, whoever writes it.
    let late = group.members[new].register().write(revision, "late".into()).await.unwrap();
    assert_eq!(late, Written::Stale(Contents { revision: revision + 1, value: "b".into() }));
    group.restart(old).await;
    group.everywhere("b").await;
    assert_eq!(group.read().await.value, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_majority_says_so_and_acknowledges_nothing() {
    let settings = RegisterSettings {
        operation_timeout: Duration::from_millis(300),
        ..RegisterSettings::default()
    };
    let mut group = Group::strangers(3, settings).await;
    for member in &group.members {
        member.register().initialize(group.addresses()).await.unwrap();
    }
    group.write("a").await;
    let leader = group.leader().await;
    let known = group.members[leader].register().leadership();
    for other in [(leader + 1) % 3, (leader + 2) % 3] {
        group.members[other].stop().await;
    }
    let register = group.members[leader].register();
    let alone = in_time("the end of the lease", register.leadership_changed(&known)).await;
    assert!(!alone.is_here);
    let refused = code(register.write(1, "lost".into()).await);
    assert!(matches!(refused, Some(ErrorCode::TimedOut | ErrorCode::NotLeader)), "{refused:?}");
    let refused = code(register.read().await);
    let expected = [ErrorCode::TimedOut, ErrorCode::Unavailable, ErrorCode::NotLeader];
    assert!(refused.is_some_and(|code| expected.contains(&code)), "{refused:?}");

    // With a majority again, the register goes on; the write that nobody acknowledged is there or not.
    group.restart((leader + 1) % 3).await;
    group.write("b").await;
    assert_eq!(group.read().await.value, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_restart_with_what_was_acknowledged() {
    let mut group = Group::new(3).await;
    for round in 0..3 {
        let value = format!("round {round}");
        group.write(&value).await;
        for index in 0..3 {
            group.members[index].stop().await;
        }
        for index in 0..3 {
            group.restart(index).await;
        }
        assert_eq!(group.read().await.value, value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go() {
    let mut group = Group::new(1).await;
    group.write("a").await;
    for _ in 0..2 {
        let new = group.add().await;
        let (node, address) = (group.members[new].node, group.members[new].address.clone());
        let leader = group.members[group.leader().await].register();
        let added = leader.add_member(node, address.clone());
        in_time("a member is added", added).await.unwrap();
        leader.add_member(node, address).await.unwrap();
    }
    group.everywhere("a").await;
    for (_, register) in group.running() {
        until("all are members", || register.members() == group.addresses()).await;
    }

    // The founder goes, and is not needed any more.
    let leader = group.leader().await;
    let founder = group.members[0].node;
    in_time("the founder is removed", group.members[leader].register().remove_member(founder))
        .await
        .unwrap();
    group.members[0].stop().await;
    group.write("b").await;
    let leader = group.members[group.leader().await].register();
    assert_eq!(leader.members().len(), 2);
    leader.remove_member(founder).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_stays() {
    let group = Group::new(1).await;
    let register = group.members[group.leader().await].register();
    let removed = register.remove_member(register.node()).await;
    assert_eq!(code(removed), Some(ErrorCode::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_moves_to_another_address() {
    let mut group = Group::new(3).await;
    group.write("a").await;
    let leader = group.leader().await;
    let mover = (leader + 1) % 3;
    group.members[mover].stop().await;
    // Another port, while nobody else can take the old one and be mistaken for this member.
    group.members[mover].address = Address::new("127.0.0.1:0");
    group.restart(mover).await;
    // It is needed now. Nobody tells the others where it is but itself.
    let other = (0..3).find(|index| *index != mover && *index != leader);
    group.members[other.unwrap()].stop().await;
    group.write("b").await;
    group.everywhere("b").await;
    let known = || group.running().all(|(_, register)| register.members() == group.addresses());
    until("all know the new address", known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_comes_back_elsewhere_is_found_there() {
    let mut group = Group::new(3).await;
    group.write("a").await;
    let mover = group.leader().await;
    group.members[mover].stop().await;
    group.members[mover].address = Address::new("127.0.0.1:0");
    group.restart(mover).await;
    let address = group.members[mover].address.clone();
    // Two of the three are left, so that it has to lead sooner or later, or to be reached by whoever does.
    group.members[(mover + 1) % 3].stop().await;
    group.write("b").await;
    group.everywhere("b").await;
    let known = || {
        group.running().all(|(_, r)| r.members().get(&group.members[mover].node) == Some(&address))
    };
    until("its new address is agreed on", known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_left_goes_on_alone_with_what_it_has() {
    let mut group = Group::new(3).await;
    group.write("a").await;
    group.everywhere("a").await;
    for index in 0..3 {
        group.members[index].stop().await;
    }
    let path = Path::new("/raft");
    let left = |group: &Group| Arc::new(group.members[0].disk.clone());
    let remains = raft::remains(left(&group), path).await.unwrap();
    assert_eq!(remains.members, Vec::from_iter(group.addresses()));
    assert_eq!(remains.contents.value, "a");
    assert_eq!(raft::forced_number(&group.members[0].disk, path).await.unwrap(), None);
    let value = Bytes::from_static(b"a, alone");
    let contents = Contents { revision: remains.contents.revision + 1, value };
    let new = (42, Address::new("127.0.0.1:9"));
    raft::force_quorum(left(&group), path, new, contents.clone()).await.unwrap();
    assert_eq!(raft::forced_number(&group.members[0].disk, path).await.unwrap(), Some(42));

    // It leads at once, under a new number, wherever it is.
    group.members[0].node = 42;
    group.restart(0).await;
    assert_eq!(group.read().await, contents);
    // The others were not lost after all: they are a group of their own and cannot touch this one.
    group.restart(1).await;
    group.restart(2).await;
    let others = || group.members[1..].iter().any(|member| member.register().leadership().is_here);
    until("the old group leads itself", others).await;
    let alone = group.members[0].register();
    assert_eq!(
        alone.write(contents.revision, "b".into()).await.unwrap(),
        Written::At(contents.revision + 1)
    );
    assert_eq!(alone.read().await.unwrap().value, "b");
    assert_ne!(group.members[1].register().latest().value, "b");
    for index in 1..3 {
        group.members[index].stop().await;
        group.members[index].disk = MemoryDisk::new();
        group.members[index].node = 50 + index as u64;
        group.restart(index).await;
        let (node, address) = (group.members[index].node, group.members[index].address.clone());
        let added = group.members[0].register().add_member(node, address);
        in_time("a new member is added", added).await.unwrap();
    }
    group.everywhere("b").await;
    let stranger = MemoryDisk::new();
    let nothing = raft::remains(Arc::new(stranger), path).await;
    assert_eq!(code(nothing), Some(ErrorCode::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_move_at_once() {
    let mut group = Group::new(3).await;
    group.write("a").await;
    for index in 0..3 {
        group.members[index].stop().await;
    }
    // As an operator does who starts each with the new addresses of the others.
    for index in 0..3 {
        group.members[index].others =
            group.members[..index].iter().map(|m| m.address.clone()).collect();
        group.members[index].address = Address::new("127.0.0.1:0");
        group.restart(index).await;
    }
    assert_eq!(group.read().await.value, "a");
    group.write("b").await;
    group.everywhere("b").await;
    let known = || group.running().all(|(_, register)| register.members() == group.addresses());
    until("all know the new addresses", known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_gives_out_a_wrong_address_does_not_lead() {
    let mut group = Group::new(3).await;
    group.write("a").await;
    let wrong = group.leader().await;
    group.members[wrong].stop().await;
    // Port 1 of loopback: nobody listens there.
    group.members[wrong].advertise = Some(Address::new("127.0.0.1:1"));
    group.restart(wrong).await;
    group.write("b").await;
    group.everywhere("b").await;
    // Twice the other one of the two that could lead goes; the one that is left has the wrong one's vote only.
    for value in ["c", "d"] {
        let leader = group.leader().await;
        assert_ne!(leader, wrong);
        group.members[leader].stop().await;
        group.write(value).await;
        group.everywhere(value).await;
        assert_ne!(group.leader().await, wrong);
        group.restart(leader).await;
        group.everywhere(value).await;
    }
    group.members[wrong].stop().await;
    group.members[wrong].advertise = None;
    group.restart(wrong).await;
    group.everywhere("d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_reaches_any_more_gives_way() {
    let reached_within = Duration::from_millis(500);
    let settings = RegisterSettings { reached_within, ..RegisterSettings::default() };
    let mut group = Group::strangers(3, settings).await;
    for member in &group.members {
        member.register().initialize(group.addresses()).await.unwrap();
    }
    group.write("a").await;
    let old = group.leader().await;
    // Its own connections live on, so the others still hear it.
    let (register, router, listener) = group.members[old].running.take().unwrap();
    drop(listener);
    let new = group.leader().await;
    assert_ne!(new, old);
    group.write("b").await;
    until("it leads no more", || !register.leadership().is_here).await;
    router.clear();
    register.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let settings = RegisterSettings { snapshot_after_entries: 8, ..RegisterSettings::default() };
    let mut group = Group::strangers(3, settings).await;
    for member in &group.members {
        member.register().initialize(group.addresses()).await.unwrap();
    }
    group.write("first").await;
    group.everywhere("first").await;
    let away = (group.leader().await + 1) % 3;
    group.members[away].stop().await;
    for count in 0..40 {
        group.write(&format!("value {count}")).await;
    }
    let purged = |member: &Member| {
        let purged = Path::new("/raft/purged");
        futures::executor::block_on(member.disk.read(purged)).unwrap().is_some()
    };
    let leader = group.leader().await;
    until("the log is purged", || purged(&group.members[leader])).await;
    assert!(!purged(&group.members[away]));
    group.restart(away).await;
    group.everywhere("value 39").await;
    until("its log is purged, too", || purged(&group.members[away])).await;

    // It is a full member again: with it, one of the others can be missed.
    group.members[leader].stop().await;
    group.write("last").await;
    group.everywhere("last").await;
    for index in 0..3 {
        if index != leader {
            group.members[index].stop().await;
            group.restart(index).await;
        }
    }
    assert_eq!(group.read().await.value, "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_somebody_else_is_refused() {
    let group = Group::new(1).await;
    let member = &group.members[0];
    let endpoint = Endpoint::of_process(member.address.clone());
    let client = Network::new().connect::<RaftService>(&endpoint).await.unwrap();
    let ask = |to, body: &'static [u8]| {
        let kind = RaftMessageKind::Vote;
        let message = RaftMessage { to, from: 1, kind, body: Bytes::from_static(body) };
        let limit = Duration::from_secs(60);
        let client = client.clone();
        async move {
            transport::call(limit, Stage::Control, |context| client.deliver(context, message))
                .await?
        }
    };
    assert_eq!(code(ask(member.node - 1, b"").await), Some(ErrorCode::NoSuchEndpoint));
    assert_eq!(code(ask(member.node, b"?").await), Some(ErrorCode::Protocol));
    let limit = Duration::from_secs(60);
    let identity = transport::call(limit, Stage::Control, |context| client.identity(context));
    let identity = identity.await.unwrap().unwrap();
    assert_eq!((identity.node, identity.is_initialized), (member.node, true));
    group.write("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_is_somebody_new() {
    let mut group = Group::new(3).await;
    group.write("a").await;
    let wiped = (group.leader().await + 1) % 3;
    group.members[wiped].stop().await;
    let before = group.members[wiped].node;
    group.members[wiped].disk = MemoryDisk::new();
    group.members[wiped].node = 42;
    group.restart(wiped).await;
    group.write("b").await;
    // Nobody's messages have reached it under its old name, so it has promised nothing.
    assert!(!group.members[wiped].register().is_initialized());

    let leader = group.members[group.leader().await].register();
    in_time("the old one is removed", leader.remove_member(before)).await.unwrap();
    let address = group.members[wiped].address.clone();
    in_time("the new one is added", leader.add_member(42, address)).await.unwrap();
    group.everywhere("b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_fails_stops_and_says_why() {
    let disk = MemoryDisk::new();
    let path = Path::new("/raft");
    let settings = RegisterSettings::default();
    let opened = Register::open(Arc::new(disk.clone()), path, place(1), Network::new(), settings);
    let register = opened.await.unwrap();
    register.initialize(BTreeMap::from([(1, Address::new("nowhere"))])).await.unwrap();
    until("it leads", || register.leadership().is_here).await;
    assert_eq!(register.write(0, "a".into()).await.unwrap(), Written::At(1));
    assert_eq!(register.failure(), None);

    disk.refuse_new_files(Some("no space left"));
    let failed = register.write(1, "b".into()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::Disk);
    assert!(failed.detail().contains("no space left"), "{failed}");
    let failure = in_time("the failure", register.failed()).await;
    assert_eq!(failure.detail(), failed.detail());
    until("it leads no more", || !register.leadership().is_here).await;
    assert_eq!(register.leadership().leader, None);
    assert_eq!(code(register.read().await), Some(ErrorCode::Disk));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_shut_down_says_so() {
    let group = Group::new(1).await;
    group.write("a").await;
    let register = group.members[0].register();
    register.shut_down().await;
    assert_eq!(code(register.read().await), Some(ErrorCode::ShuttingDown));
    assert_eq!(code(register.write(1, "b".into()).await), Some(ErrorCode::ShuttingDown));
    assert_eq!(register.failure(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_directory_is_not_opened() {
    let mut group = Group::new(1).await;
    group.write("a").await;
    group.members[0].stop().await;
    let member = &group.members[0];
    let names = member.disk.list(Path::new("/raft")).await.unwrap();
    assert!(names.contains(&"vote".to_string()), "{names:?}");
    for name in names {
        let path = Path::new("/raft").join(&name);
        let file = member.disk.read(&path).await.unwrap().unwrap();
        let mut damaged = file.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        member.disk.replace(&path, damaged.into()).await.unwrap();
        let disk = Arc::new(member.disk.clone());
        let settings = RegisterSettings::default();
        let opened =
            Register::open(disk, Path::new("/raft"), place(1), Network::new(), settings).await;
        assert_eq!(code(opened), Some(ErrorCode::Corrupt), "{name}");
        member.disk.replace(&path, file).await.unwrap();
    }
    group.restart(0).await;
    assert_eq!(group.read().await.value, "a");
}
