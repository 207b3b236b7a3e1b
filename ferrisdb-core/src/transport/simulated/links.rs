//! All links of a run, and what has been done to them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use madsim::task::NodeId;
use parking_lot::Mutex;

use super::{
    conditions::LinkConditions,
    connection::{Pipe, Side},
};
use crate::runtime::{Instant, true_now};

/// What has happened on the links of a run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were opened.
    pub connections: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// Messages that took ten times as long as others, or longer.
    pub slow_messages: u64,
    /// Connections that broke after a number of bytes.
    pub deaths: u64,
    /// Connections that were reset at a time.
    pub resets: u64,
    /// Times that a message, or an end of a connection, was due and held back.
    pub held: u64,
    /// Attempts to connect that got no answer for a while or ever.
    pub silent_connects: u64,
    /// Second connections that nobody asked for.
    pub ghosts: u64,
    /// Times that a writer had to wait for its reader.
    pub full_windows: u64,
}

/// One direction between two machines. Clones are the same link.
#[derive(Clone)]
pub(super) struct Link(Arc<Mutex<LinkState>>);

struct LinkState {
    from: IpAddr,
    to: IpAddr,
    conditions: LinkConditions,
    is_clogged: bool,
    /// When the last byte so far has left, where bytes take time.
    sent_until: Instant,
    /// The connections that have a direction on this link, oldest first. Those that are gone are dropped now and then.
    pipes: Vec<(Weak<Pipe>, Side)>,
}

impl Link {
    pub(super) fn is_clogged(&self) -> bool {
        self.0.lock().is_clogged
    }

    pub(super) fn with_conditions<T>(&self, with: impl FnOnce(&LinkConditions) -> T) -> T {
        with(&self.0.lock().conditions)
    }

    /// When a message that is sent now arrives.
    pub(super) fn draw_arrival(&self, bytes: usize) -> Instant {
        let mut link = self.0.lock();
        let mut leaves = true_now();
        if let Some(rate) = link.conditions.bytes_per_second {
            let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            leaves = leaves.max(link.sent_until) + takes;
            link.sent_until = leaves;
        }
        let latency = link.conditions.latency.draw();
        let ordinary = link.conditions.latency.most.mul_f64(link.conditions.latency.factor);
        count(|counts| {
            counts.messages += 1;
            counts.slow_messages += u64::from(latency > ordinary * 2);
        });
        leaves + latency
    }

    /// Remembers a connection whose `reader` reads what this link carries.
    pub(super) fn add(&self, pipe: &Arc<Pipe>, reader: Side) {
        let mut link = self.0.lock();
        if link.pipes.len() == link.pipes.capacity() {
            link.pipes.retain(|(pipe, _)| pipe.strong_count() > 0);
        }
        link.pipes.push((Arc::downgrade(pipe), reader));
    }

    fn pipes(&self) -> Vec<(Arc<Pipe>, Side)> {
        let link = self.0.lock();
        let alive = |(pipe, side): &(Weak<Pipe>, Side)| Some((pipe.upgrade()?, *side));
        link.pipes.iter().filter_map(alive).collect()
    }
}

/// All links.
#[derive(Default)]
struct Links {
    links: BTreeMap<(IpAddr, IpAddr), Link>,
    ordinary: LinkConditions,
    special: BTreeMap<(IpAddr, IpAddr), LinkConditions>,
    clogged: BTreeSet<(IpAddr, IpAddr)>,
    /// Machines that nothing leaves.
    mute: BTreeSet<IpAddr>,
    /// Machines that nothing reaches.
    deaf: BTreeSet<IpAddr>,
    /// Machines without power.
    dark: BTreeSet<IpAddr>,
    /// Machines as far as they are known: those that have connected or listened.
    addresses: BTreeMap<NodeId, IpAddr>,
    /// Connections that were opened and not accepted yet, by the addresses of caller and server.
    opened: BTreeMap<(SocketAddr, SocketAddr), Arc<Pipe>>,
    counts: Counts,
}

impl Links {
    fn is_clogged(&self, from: IpAddr, to: IpAddr) -> bool {
        // A machine always reaches itself.
        from != to
            && (self.clogged.contains(&(from, to))
                || self.mute.contains(&from)
                || self.deaf.contains(&to))
    }

    fn conditions(&self, from: IpAddr, to: IpAddr) -> LinkConditions {
        self.special.get(&(from, to)).unwrap_or(&self.ordinary).clone()
    }

    /// Makes all links as they should be.
    fn apply(&self) -> Changed {
        let mut changed = Changed::default();
        for (&(from, to), link) in &self.links {
            let mut state = link.0.lock();
            let conditions = self.conditions(from, to);
            if state.conditions.resets_per_second != conditions.resets_per_second {
                changed.breaking.push(link.clone());
            }
            state.conditions = conditions;
            let is_clogged = self.is_clogged(from, to);
            if state.is_clogged && !is_clogged {
                changed.moving.push(link.clone());
            }
            state.is_clogged = is_clogged;
        }
        changed
    }
}

/// What a change means for connections that are there already.
#[derive(Default)]
struct Changed {
    /// Links on which messages move again.
    moving: Vec<Link>,
    /// Links whose connections are reset at another rate.
    breaking: Vec<Link>,
}

thread_local! {
    /// The links of the simulation that runs on this thread, if it has conditions at all.
    static LINKS: RefCell<Option<Links>> = const { RefCell::new(None) };
}

/// Gives all links of this run conditions of their own, from the next connection on. A run without this has madsim's.
pub fn install(ordinary: LinkConditions) {
    LINKS.set(Some(Links { ordinary, ..Links::default() }));
}

/// Whether links have conditions of their own.
pub fn is_installed() -> bool {
    LINKS.with_borrow(Option::is_some)
}

fn with<T: Default>(with: impl FnOnce(&mut Links) -> T) -> T {
    LINKS.with_borrow_mut(|links| links.as_mut().map(with).unwrap_or_default())
}

/// Changes something, and tells the connections concerned.
fn change(change: impl FnOnce(&mut Links)) {
    let changed = with(|links| {
        change(links);
        links.apply()
    });
    for (pipe, reader) in changed.moving.iter().flat_map(Link::pipes) {
        pipe.wake_reader(reader);
    }
    for link in changed.breaking {
        for (pipe, reader) in link.pipes() {
            pipe.plan_reset(reader, link.with_conditions(LinkConditions::draw_reset));
        }
    }
}

/// How links are from now on that nothing special is said of.
pub fn set_ordinary(conditions: LinkConditions) {
    change(|links| links.ordinary = conditions);
}

/// How links are that nothing special is said of.
pub fn ordinary() -> LinkConditions {
    with(|links| links.ordinary.clone())
}

/// Changes how one direction is.
pub fn alter(from: IpAddr, to: IpAddr, alter: impl FnOnce(&mut LinkConditions)) {
    change(|links| {
        let mut conditions = links.conditions(from, to);
        alter(&mut conditions);
        links.special.insert((from, to), conditions);
    });
}

/// All links are ordinary again.
pub fn forget_special() {
    change(|links| links.special.clear());
}

/// Holds back everything in one direction: connections stay open and silent.
pub fn clog(from: IpAddr, to: IpAddr) {
    change(|links| {
        links.clogged.insert((from, to));
    });
}

/// Ends [`clog`].
pub fn unclog(from: IpAddr, to: IpAddr) {
    change(|links| {
        links.clogged.remove(&(from, to));
    });
}

/// Holds back everything that leaves a machine.
pub fn mute(machine: IpAddr) {
    change(|links| {
        links.mute.insert(machine);
    });
}

/// Holds back everything that would reach a machine.
pub fn deafen(machine: IpAddr) {
    change(|links| {
        links.deaf.insert(machine);
    });
}

/// Ends [`mute`] and [`deafen`].
pub fn let_speak(machine: IpAddr) {
    change(|links| {
        links.mute.remove(&machine);
        links.deaf.remove(&machine);
    });
}

/// Ends all clogs.
pub fn unclog_all() {
    change(|links| {
        links.clogged.clear();
        links.mute.clear();
        links.deaf.clear();
    });
}

/// Whether nothing passes in one direction.
pub fn is_clogged(from: IpAddr, to: IpAddr) -> bool {
    with(|links| links.is_clogged(from, to))
}

/// A machine loses its power: what it had open ends without a word, and whoever connects gets no answer. Its processes
/// have to be killed after this.
pub fn cut_power(machine: IpAddr) {
    change(|links| {
        links.dark.insert(machine);
    });
}

/// Ends [`cut_power`]. Its system knows nothing of the old connections and says so.
pub fn restore_power(machine: IpAddr) {
    change(|links| {
        links.dark.remove(&machine);
    });
    let links = with(|links| {
        let of_machine =
            |(&(_, to), link): (&(IpAddr, IpAddr), &Link)| (to == machine).then(|| link.clone());
        links.links.iter().filter_map(of_machine).collect::<Vec<_>>()
    });
    for (pipe, reader) in links.iter().flat_map(Link::pipes) {
        pipe.plan_reset(reader, Some(Duration::ZERO));
    }
}

pub(super) fn has_power(machine: IpAddr) -> bool {
    with(|links| !links.dark.contains(&machine))
}

/// Whether a caller gets an answer to its request for a connection.
pub(super) fn is_reached(caller: IpAddr, server: IpAddr) -> bool {
    !is_clogged(caller, server) && !is_clogged(server, caller) && has_power(server)
}

/// Resets all connections between two machines, and says how many there were.
pub fn reset(one: IpAddr, other: IpAddr) -> usize {
    let link = with(|links| links.links.get(&(one, other)).cloned());
    let pipes = link.map(|link| link.pipes()).unwrap_or_default();
    pipes.iter().for_each(|(pipe, reader)| pipe.plan_reset(*reader, Some(Duration::ZERO)));
    pipes.len()
}

/// What has happened so far.
pub fn counts() -> Counts {
    with(|links| links.counts)
}

pub(super) fn count(count: impl FnOnce(&mut Counts)) {
    with(|links| count(&mut links.counts));
}

/// The link between two machines.
pub(super) fn link(from: IpAddr, to: IpAddr) -> Link {
    with(|links| {
        let state = LinkState {
            from,
            to,
            conditions: links.conditions(from, to),
            is_clogged: links.is_clogged(from, to),
            sent_until: true_now(),
            pipes: Vec::new(),
        };
        let fresh = || Link(Arc::new(Mutex::new(state)));
        Some(links.links.entry((from, to)).or_insert_with(fresh).clone())
    })
    .expect("a connection is only made where links have conditions")
}

/// Where this node is, if that is known.
pub(super) fn own_address() -> Option<IpAddr> {
    let node = madsim::plugin::node();
    with(|links| links.addresses.get(&node).copied())
}

/// Notes where this node is.
pub(super) fn learn_address(address: IpAddr) {
    let node = madsim::plugin::node();
    with(|links| {
        links.addresses.insert(node, address);
    });
}

/// A caller has opened a connection. An earlier one of the same addresses is gone.
pub(super) fn offer(caller: SocketAddr, server: SocketAddr, pipe: Arc<Pipe>) {
    let replaced = with(|links| links.opened.insert((caller, server), pipe));
    drop(replaced);
}

/// The server's end of a connection that was opened, if the caller has not made another one meanwhile.
pub(super) fn take(caller: SocketAddr, server: SocketAddr) -> Option<Arc<Pipe>> {
    with(|links| links.opened.remove(&(caller, server)))
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let link = self.0.lock();
        write!(f, "{} -> {}", link.from, link.to)
    }
}
