//! What happens to the network of a run, as verbs.
//!
//! ```text
//!   partition([a b] [c])          a-b talk, c alone; both ways
//!   partition_one_way([a] [b])    requests of a never arrive; those of b do, and a's answers do not
//!   swizzle([a b c])              clogged one by one, in an order; unclogged one by one, in another
//!   slow(a, 50)                   all that a says takes fifty times as long
//!   flaky(a b, 0.2)               connections between them are reset every five seconds
//!   connection_deaths(0.1)        a tenth of all connections break within a message
//! ```
//!
//! Machines are named by their addresses. What holds for all links is drawn once in a run ([`draw_climate`]): most runs
//! have the calm network of one room, some have a long tail, some are spread over a country.
//!
//! Knows nothing of clusters. Start with [`SimulatedNetwork::install`].

use std::{net::IpAddr, time::Duration};

use ferrisdb_core::{
    runtime,
    transport::simulated::{self, Counts, Latency, LinkConditions},
};

use crate::trace::Trace;

/// The network of a run. Clones are the same.
#[derive(Clone)]
pub struct SimulatedNetwork {
    trace: Trace,
}

/// A number below a bound.
fn draw(bound: u64) -> u64 {
    runtime::random_u64() % bound
}

/// How all links of a run are: drawn from the run's randomness.
pub fn draw_climate() -> LinkConditions {
    let calm = LinkConditions::default();
    match draw(10) {
        0..=5 => calm,
        6 | 7 => {
            let latency = Latency::LAN.with_tail(0.01, 0.001);
            LinkConditions { latency, ..calm }
        }
        8 => LinkConditions { latency: Latency::WAN, ..calm },
        // A bad line: slow now and then, narrow, and its connections do not last.
        _ => LinkConditions {
            latency: Latency::between(500, 5_000).with_tail(0.02, 0.002),
            bytes_per_second: Some(4 * 1024 * 1024),
            window_bytes: 64 * 1024,
            deaths: 0.02,
            resets_per_second: 0.01,
            silent_connects: 0.01,
            ghosts: 0.05,
            ..calm
        },
    }
}

impl SimulatedNetwork {
    /// Gives the links of this run conditions, from the next connection on: before the world is started.
    pub fn install(conditions: LinkConditions, trace: Trace) -> SimulatedNetwork {
        trace.note(format_args!("network: {conditions:?}"));
        simulated::install(conditions);
        // What madsim adds by itself is one and the same for all: as little as it can be.
        madsim::net::NetSim::current().update_config(|config| {
            config.send_latency = Duration::from_micros(1)..Duration::from_micros(2);
        });
        SimulatedNetwork { trace }
    }

    /// What has happened on the links so far.
    pub fn counts(&self) -> Counts {
        simulated::counts()
    }

    /// Cuts groups of machines off from each other. Machines in no group keep all their links.
    pub fn partition(&self, groups: &[Vec<IpAddr>]) {
        self.trace.note(format_args!("partition {groups:?}"));
        for (index, group) in groups.iter().enumerate() {
            for other in &groups[index + 1..] {
                for (&one, &other) in
                    group.iter().flat_map(|one| other.iter().map(move |it| (one, it)))
                {
                    simulated::clog(one, other);
                    simulated::clog(other, one);
                }
            }
        }
    }

    /// Lets nothing through from some machines to others; the other way is open.
    pub fn partition_one_way(&self, from: &[IpAddr], to: &[IpAddr]) {
        self.trace.note(format_args!("partition {from:?} -> {to:?}"));
        for (&from, &to) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
            simulated::clog(from, to);
        }
    }

    /// Cuts a machine off from all others.
    pub fn isolate(&self, machine: IpAddr) {
        self.trace.note(format_args!("isolate {machine}"));
        simulated::mute(machine);
        simulated::deafen(machine);
    }

    /// Lets nothing out of a machine: it hears all and cannot answer.
    pub fn mute(&self, machine: IpAddr) {
        self.trace.note(format_args!("mute {machine}"));
        simulated::mute(machine);
    }

    /// Lets nothing into a machine: it speaks and hears no answer.
    pub fn deafen(&self, machine: IpAddr) {
        self.trace.note(format_args!("deafen {machine}"));
        simulated::deafen(machine);
    }

    /// Ends what was done to one machine as a whole.
    pub fn rejoin(&self, machine: IpAddr) {
        self.trace.note(format_args!("rejoin {machine}"));
        simulated::let_speak(machine);
    }

    /// Holds back what goes from one machine to another.
    pub fn clog(&self, from: IpAddr, to: IpAddr) {
        self.trace.note(format_args!("clog {from} -> {to}"));
        simulated::clog(from, to);
    }

    /// Ends a clog.
    pub fn unclog(&self, from: IpAddr, to: IpAddr) {
        self.trace.note(format_args!("unclog {from} -> {to}"));
        simulated::unclog(from, to);
    }

    /// Ends all partitions and clogs.
    pub fn heal_all(&self) {
        self.trace.note("heal all links");
        simulated::unclog_all();
    }

    /// Ends all partitions and clogs, and makes the network as it should be: for the end of a run, when everything
    /// has to work again.
    pub fn calm_down(&self) {
        self.heal_all();
        simulated::forget_special();
        simulated::set_ordinary(LinkConditions::default());
    }

    /// Clogs a part of some machines one by one, and unclogs them in another order, within `time` altogether.
    pub async fn swizzle(&self, machines: &[IpAddr], time: Duration) {
        let mut some: Vec<IpAddr> = machines.iter().copied().filter(|_| draw(2) == 0).collect();
        self.trace.note(format_args!("swizzle {some:?}"));
        let steps = u32::try_from(some.len()).unwrap_or(u32::MAX).max(1) * 2;
        for clogs in [true, false] {
            shuffle(&mut some);
            for &machine in &some {
                if clogs {
                    self.isolate(machine)
                } else {
                    self.rejoin(machine)
                }
                runtime::sleep(runtime::jitter(time / steps)).await;
            }
        }
    }

    /// Lets everything that a machine says, or hears, take `factor` times as long, as far as links to `others` go.
    pub fn slow(&self, from: &[IpAddr], to: &[IpAddr], factor: f64) {
        self.trace.note(format_args!("{from:?} -> {to:?} takes {factor} times as long"));
        self.alter(from, to, |link| link.latency.factor = factor);
    }

    /// Lets connections be reset that go from some machines to others, `rate` times a second each.
    pub fn flaky(&self, from: &[IpAddr], to: &[IpAddr], rate: f64) {
        self.trace.note(format_args!("{from:?} -> {to:?} is reset {rate} times a second"));
        self.alter(from, to, |link| link.resets_per_second = rate);
    }

    /// Changes links in whatever way.
    pub fn alter(&self, from: &[IpAddr], to: &[IpAddr], alter: impl Fn(&mut LinkConditions)) {
        for (&from, &to) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
            simulated::alter(from, to, &alter);
        }
    }

    /// The share of all connections that break within a message, from now on.
    pub fn connection_deaths(&self, rate: f64) {
        self.trace.note(format_args!("{rate} of all connections die"));
        simulated::set_ordinary(LinkConditions { deaths: rate, ..simulated::ordinary() });
    }

    /// How all links are from now on that nothing special is said of.
    pub fn set_ordinary(&self, conditions: LinkConditions) {
        self.trace.note(format_args!("network: {conditions:?}"));
        simulated::set_ordinary(conditions);
    }

    /// Resets all connections between two machines.
    pub fn reset(&self, one: IpAddr, other: IpAddr) {
        let count = simulated::reset(one, other);
        self.trace.note(format_args!("reset {count} connections of {one} and {other}"));
    }

    /// A machine loses its power, with all processes on it, which have to be killed at once after this: nobody is told.
    pub fn cut_power(&self, machine: IpAddr) {
        self.trace.note(format_args!("{machine} loses its power"));
        simulated::cut_power(machine);
    }

    /// Ends [`SimulatedNetwork::cut_power`].
    pub fn restore_power(&self, machine: IpAddr) {
        self.trace.note(format_args!("{machine} has power again"));
        simulated::restore_power(machine);
    }
}

/// Puts things into an order that is drawn.
fn shuffle<T>(things: &mut [T]) {
    for index in (1..things.len()).rev() {
        things.swap(index, draw(index as u64 + 1) as usize);
    }
}
