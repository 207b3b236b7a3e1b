//! A simulated group of registers, with verbs.
//!
//! ```text
//!   10.0.0.1  10.0.0.2  10.0.0.3     a member each, and writers beside it, as a controller is beside its member
//! ```
//!
//! The disks belong to the group and take their time, so a power failure meets writes that are under way. Members come back at
//! other addresses, or give out a wrong one.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use ferrisdb_core::{
    Endpoint, Stage,
    id::Address,
    runtime::{
        self, DirectoryLock, Disk, File,
        disk::{DiskFuture, MemoryDisk, OpenMode},
    },
    service::raft::RaftService,
    transport::{Listener, Network, Router},
};
use ferrisdb_server::raft::{Contents, NodeId, Place, Register, RegisterSettings, Written};
use madsim::{
    net::NetSim,
    runtime::{Handle, NodeHandle},
};
use parking_lot::Mutex;

use crate::{trace::Trace, workload::register::History};

/// How many members a group has.
const MEMBERS: u64 = 3;
/// How many writers each member has.
const WRITERS: u64 = 2;

/// A group, its writers, and what they were told.
pub struct Group {
    members: Vec<Member>,
    /// Whoever looks for the leader.
    stranger: NodeHandle,
    shared: Arc<Shared>,
}

/// One node.
struct Member {
    name: String,
    handle: NodeHandle,
    disk: MemoryDisk,
}

/// Where a member listens, and what it says about that, when it is started the next time.
#[derive(Clone)]
struct Door {
    port: u16,
    gives_out: Option<Address>,
}

/// What outlives the nodes.
struct Shared {
    history: Mutex<History>,
    /// Where the members are, by node.
    doors: Mutex<BTreeMap<NodeId, Door>>,
    /// The members that run, by node.
    registers: Mutex<BTreeMap<NodeId, Register>>,
    trace: Trace,
    /// How many writes were begun, for lines that are all different.
    begun: Mutex<u64>,
    is_over: Mutex<bool>,
}

fn address(node: NodeId, port: u16) -> Address {
    Address::new(format!("10.0.0.{node}:{port}"))
}

/// Where the members listen at first.
const PORT: u16 = 4500;
/// How long nobody may lead after the leader has fallen silent: its lease, the pause before somebody stands, and two attempts.
const LEADERLESS_MAX: Duration = Duration::from_millis(1_500);
/// How long a leader may lead where nobody reaches it.
const UNREACHED_MAX: Duration = Duration::from_secs(8);

/// Lets writers add lines to a register while its members are killed and cut off, and checks what they were told.
///
/// # Errors
///
/// What is wrong.
pub async fn run(trace: Trace, lasts: Duration, troubles: u32) -> anyhow::Result<String> {
    let draw = |bound: usize| (runtime::random_u64() % bound as u64) as usize;
    let group = Group::start(trace.clone());
    let pause = lasts / (troubles + 1);
    for _ in 0..troubles {
        runtime::sleep(runtime::jitter(pause)).await;
        // The leader is worth more trouble than the others.
        let anybody = draw(group.member_count());
        let victim = group.leader().filter(|_| draw(3) > 0).unwrap_or(anybody);
        let trouble = runtime::jitter(Duration::from_millis(1_000));
        match draw(10) {
            8 | 9 => group.fall_silent(draw(2) + 1).await?,
            5 => group.go_and_return(draw(2) + 1).await?,
            6 => group.give_out_a_wrong_address().await?,
            7 => group.move_away(victim, draw(3) == 0).await,
            0 => {
                (0..group.member_count()).for_each(|member| group.kill(member));
                runtime::sleep(trouble).await;
                (0..group.member_count()).for_each(|member| group.restart(member));
            }
            1 | 2 => {
                group.cut_off(victim);
                runtime::sleep(trouble).await;
                group.reconnect(victim);
            }
            _ => {
                group.kill(victim);
                runtime::sleep(trouble).await;
                group.restart(victim);
            }
        }
    }
    runtime::sleep(pause).await;
    let (held, history) = group.finish().await?;
    let checked = history.check(&held)?;
    anyhow::ensure!(checked.acknowledged > 0, "no write was acknowledged");
    trace.note(format_args!("{checked:?}"));
    Ok(format!("register: {checked:?}"))
}

impl Shared {
    /// Where all members are reached that have been started since they moved.
    fn addresses(&self) -> BTreeMap<NodeId, Address> {
        let doors = self.doors.lock();
        doors.iter().map(|(node, door)| (*node, address(*node, door.port))).collect()
    }
}

impl Group {
    /// Founds a group on nodes of its own and starts the writers.
    pub fn start(trace: Trace) -> Group {
        let door = |node| (node, Door { port: PORT, gives_out: None });
        let shared = Arc::new(Shared {
            history: Mutex::default(),
            doors: Mutex::new((1..=MEMBERS).map(door).collect()),
            registers: Mutex::default(),
            trace,
            begun: Mutex::new(0),
            is_over: Mutex::new(false),
        });
        let members = (1..=MEMBERS).map(|node| Member::start(node, &shared)).collect();
        let ip = IpAddr::from([10, 0, 1, 1]);
        let stranger = Handle::current().create_node().name("stranger").ip(ip).build();
        Group { members, stranger, shared }
    }

    /// The member that says that it leads, if there is one.
    pub fn leader(&self) -> Option<usize> {
        let registers = self.shared.registers.lock();
        let leader = registers.iter().find(|(_, register)| register.leadership().is_here);
        leader.map(|(&node, _)| node as usize - 1)
    }

    /// How many members there are.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Kills a member as a power failure would.
    pub fn kill(&self, index: usize) {
        let member = &self.members[index];
        self.shared.trace.note(format_args!("kill {}", member.name));
        let gone = self.shared.registers.lock().remove(&(index as u64 + 1));
        drop(gone);
        Handle::current().kill(member.handle.id());
        member.disk.crash();
    }

    /// Starts a member again that was killed.
    pub fn restart(&self, index: usize) {
        let member = &self.members[index];
        self.shared.trace.note(format_args!("restart {}", member.name));
        Handle::current().restart(member.handle.id());
    }

    /// Cuts a member off from the others.
    pub fn cut_off(&self, index: usize) {
        let member = &self.members[index];
        self.shared.trace.note(format_args!("cut off {}", member.name));
        NetSim::current().clog_node(member.handle.id());
    }

    /// Connects a member again.
    pub fn reconnect(&self, index: usize) {
        let member = &self.members[index];
        self.shared.trace.note(format_args!("reconnect {}", member.name));
        NetSim::current().unclog_node(member.handle.id());
    }

    /// A member that follows is cut off until it looks for a leader itself, and comes back: nobody minds.
    async fn go_and_return(&self, further: usize) -> anyhow::Result<()> {
        let Some(leader) = self.leader() else { return Ok(()) };
        let known = self.leadership_of(leader);
        let away = (leader + further) % self.members.len();
        self.cut_off(away);
        runtime::sleep(Duration::from_secs(2)).await;
        let between = self.leadership_of(leader);
        self.reconnect(away);
        runtime::sleep(Duration::from_secs(2)).await;
        let present = self.leadership_of(leader);
        anyhow::ensure!(
            known.is_none() || known != between || present == known,
            "member {} came back and deposed a leader that was well: {known:?}, now {present:?}",
            away + 1
        );
        Ok(())
    }

    /// The leader falls silent, as a machine that stands still. The others, which have heard it at different moments, soon agree on
    /// one of them.
    async fn fall_silent(&self, further: usize) -> anyhow::Result<()> {
        // Whoever was started just now knows the group again.
        runtime::sleep(Duration::from_secs(1)).await;
        let Some(silent) = self.leader() else { return Ok(()) };
        let [from, to] = [silent, (silent + further) % self.member_count()]
            .map(|index| self.members[index].handle.id());
        NetSim::current().clog_link(from, to);
        runtime::sleep(runtime::jitter(Duration::from_millis(200))).await;
        self.cut_off(silent);
        let began = runtime::now();
        let leads = |index: usize| index != silent && self.leadership_of(index).is_some();
        while !(0..self.member_count()).any(leads) {
            let waited = runtime::now().duration_since(began);
            anyhow::ensure!(
                waited < LEADERLESS_MAX,
                "nobody leads {waited:?} after the leader was cut off"
            );
            runtime::sleep(Duration::from_millis(10)).await;
        }
        NetSim::current().unclog_link(from, to);
        self.reconnect(silent);
        Ok(())
    }

    fn change_door(&self, index: usize, change: impl FnOnce(&mut Door)) {
        let mut doors = self.shared.doors.lock();
        change(doors.get_mut(&(index as NodeId + 1)).expect("every member has a door"));
    }

    /// The term in which a member leads.
    fn leadership_of(&self, index: usize) -> Option<u64> {
        let registers = self.shared.registers.lock();
        let leadership = registers.get(&(index as NodeId + 1))?.leadership();
        leadership.is_here.then_some(leadership.term)
    }

    /// The leader comes back with a wrong address, and whoever leads then is killed: of the two that are left it must not be the
    /// one that nobody finds.
    async fn give_out_a_wrong_address(&self) -> anyhow::Result<()> {
        let Some(wrong) = self.leader() else { return Ok(()) };
        self.kill(wrong);
        self.change_door(wrong, |door| door.gives_out = Some(address(99, PORT)));
        self.restart(wrong);
        runtime::sleep(Duration::from_secs(3)).await;
        self.check_reached().await?;
        let next = self.leader();
        if let Some(next) = next.filter(|next| *next != wrong) {
            self.kill(next);
            runtime::sleep(Duration::from_secs(3)).await;
            self.check_reached().await?;
            self.restart(next);
        }
        self.kill(wrong);
        self.change_door(wrong, |door| door.gives_out = None);
        self.restart(wrong);
        Ok(())
    }

    /// Whoever says that it leads is found where it says that it is.
    async fn check_reached(&self) -> anyhow::Result<()> {
        let Some(leader) = self.leader() else { return Ok(()) };
        let began = runtime::now();
        while self.leader() == Some(leader) {
            let node = leader as NodeId + 1;
            let given = self.shared.registers.lock().get(&node).map(Register::leadership);
            let Some((_, address)) = given.and_then(|given| given.leader) else { return Ok(()) };
            let limit = Duration::from_secs(1);
            let endpoint = Endpoint::of_process(address.clone());
            let looking = self.stranger.spawn(async move {
                let network = Network::new();
                let connected = network.connect::<RaftService>(&endpoint);
                let connected = runtime::timeout(limit, Stage::Client, connected).await;
                connected.is_ok_and(|connected| connected.is_ok())
            });
            if looking.await? {
                return Ok(());
            }
            anyhow::ensure!(
                runtime::now().duration_since(began) < UNREACHED_MAX,
                "member {node} leads, and nobody reaches it at {address}"
            );
            runtime::sleep(limit / 2).await;
        }
        Ok(())
    }

    /// A member, or all of them, come back at another address.
    async fn move_away(&self, member: usize, all: bool) {
        let moving: Vec<usize> = if all { (0..self.members.len()).collect() } else { vec![member] };
        moving.iter().for_each(|member| self.kill(*member));
        for member in &moving {
            self.change_door(*member, |door| door.port += 1);
        }
        let pause = runtime::jitter(Duration::from_millis(500));
        for member in moving {
            self.restart(member);
            runtime::sleep(pause).await;
        }
    }

    /// Ends the writers, waits until all members hold the same, and returns that, with what the writers know.
    ///
    /// # Errors
    ///
    /// If the members do not come to agree.
    pub async fn finish(&self) -> anyhow::Result<(Contents, History)> {
        *self.shared.is_over.lock() = true;
        // Writes that are under way end within their timeout; elections are over by then.
        runtime::sleep(RegisterSettings::default().operation_timeout * 2).await;
        let registers: Vec<Register> = self.shared.registers.lock().values().cloned().collect();
        anyhow::ensure!(registers.len() == self.members.len(), "a member is missing");
        let leader = self.leader().and_then(|index| registers.get(index));
        let leader = leader.ok_or_else(|| anyhow::anyhow!("nobody leads at the end"))?;
        let held = leader.read().await?;
        runtime::sleep(Duration::from_secs(1)).await;
        for register in &registers {
            anyhow::ensure!(register.failure().is_none(), "{register:?}: {:?}", register.failure());
            anyhow::ensure!(register.latest() == held, "{register:?} holds something else");
            let (places, known) = (self.shared.addresses(), register.members());
            anyhow::ensure!(
                known == places,
                "{register:?} knows {known:?}, they are at {places:?}"
            );
        }
        Ok((held, self.shared.history.lock().clone()))
    }
}

impl Member {
    fn start(node: NodeId, shared: &Arc<Shared>) -> Member {
        let disk = MemoryDisk::new();
        let (slow, init_shared) = (SlowDisk(disk.clone()), Arc::clone(shared));
        let init = move || live(node, slow.clone(), Arc::clone(&init_shared));
        let ip: IpAddr = format!("10.0.0.{node}").parse().expect("a well-formed address");
        let name = format!("member-{node}");
        let handle = Handle::current().create_node().name(&name).ip(ip).init(init).build();
        Member { name, handle, disk }
    }
}

/// What a node runs.
async fn live(node: NodeId, disk: SlowDisk, shared: Arc<Shared>) {
    let (network, router) = (Network::new(), Router::new());
    // Few entries per snapshot, so that members that were away are sent some.
    let settings = RegisterSettings { snapshot_after_entries: 16, ..RegisterSettings::default() };
    let path = Path::new("/raft");
    let addresses = shared.addresses();
    let listens = addresses[&node].clone();
    let gives_out = shared.doors.lock()[&node].gives_out.clone();
    let others = addresses.into_values().collect();
    let place = Place { node, address: gives_out.unwrap_or_else(|| listens.clone()), others };
    let opened = Register::open(Arc::new(disk), path, place, network.clone(), settings).await;
    let register = opened.expect("a member starts on its own disk");
    router.add::<RaftService>(0, register.service());
    let listener = Listener::bind(&listens, router, network).await;
    let _listener = listener.expect("a node's address is its own");
    let members = (1..=MEMBERS).map(|node| (node, address(node, PORT))).collect();
    register.initialize(members).await.expect("each member is one of the members");
    shared.registers.lock().insert(node, register.clone());
    let writers = (0..WRITERS).map(|_| write_on(&register, node, &shared));
    futures::future::join_all(writers).await;
    std::future::pending::<()>().await;
}

/// Adds a line whenever the member leads, until it is over.
async fn write_on(register: &Register, node: NodeId, shared: &Shared) {
    while !*shared.is_over.lock() {
        runtime::sleep(runtime::jitter(Duration::from_millis(20))).await;
        if !register.leadership().is_here {
            continue;
        }
        let newest = shared.history.lock().newest_acknowledged();
        let Ok(held) = register.read().await else {
            continue;
        };
        shared.history.lock().on_read(newest, &held).expect("a read sees what was acknowledged");
        let line = {
            let mut begun = shared.begun.lock();
            *begun += 1;
            format!("m{node}-{begun}")
        };
        // Between the two another writer may come in, of this member or of another that leads by now.
        runtime::sleep(runtime::jitter(Duration::from_millis(5))).await;
        let written = register.write(held.revision, History::extended(&held, &line)).await;
        let mut history = shared.history.lock();
        match written {
            Ok(Written::At(revision)) => {
                shared.trace.note(format_args!("{line} at {revision}"));
                history.on_acknowledged(revision, line).expect("a revision is of one write");
            }
            Ok(Written::Stale(_)) => {
                shared.trace.note(format_args!("{line} refused"));
                history.on_refused(line);
            }
            Err(error) => {
                shared.trace.note(format_args!("{line} {}", error.code()));
                history.on_unknown();
            }
        }
    }
}

/// A disk whose changes take their time, before they are durable and until that is known.
#[derive(Clone)]
struct SlowDisk(MemoryDisk);

impl SlowDisk {
    fn slowly<T: Send + 'static>(
        &self,
        change: impl FnOnce(MemoryDisk) -> DiskFuture<'static, T> + Send + 'static,
    ) -> DiskFuture<'static, T> {
        let disk = self.0.clone();
        Box::pin(async move {
            runtime::sleep(runtime::jitter(Duration::from_millis(2))).await;
            let changed = change(disk).await;
            runtime::sleep(runtime::jitter(Duration::from_millis(2))).await;
            changed
        })
    }
}

impl Disk for SlowDisk {
    fn create_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        self.0.create_directory(path)
    }

    fn list(&self, path: &Path) -> DiskFuture<'_, Vec<String>> {
        self.0.list(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> DiskFuture<'_, Box<dyn File>> {
        self.0.open(path, mode)
    }

    fn read(&self, path: &Path) -> DiskFuture<'_, Option<Bytes>> {
        self.0.read(path)
    }

    fn replace(&self, path: &Path, contents: Bytes) -> DiskFuture<'_, ()> {
        let path = path.to_owned();
        self.slowly(move |disk| Box::pin(async move { disk.replace(&path, contents).await }))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskFuture<'_, ()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> DiskFuture<'_, ()> {
        let path = path.to_owned();
        self.slowly(move |disk| Box::pin(async move { disk.remove(&path).await }))
    }

    fn sync_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        self.0.sync_directory(path)
    }

    fn remove_directory(&self, path: &Path) -> DiskFuture<'_, ()> {
        self.0.remove_directory(path)
    }

    fn lock_directory(&self, path: &Path) -> DiskFuture<'_, DirectoryLock> {
        self.0.lock_directory(path)
    }
}
