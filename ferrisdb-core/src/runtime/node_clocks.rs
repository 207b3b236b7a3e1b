//! A clock for each node of a simulation. Nodes without one have the simulation's own.
//!
//! ```text
//!   true time          0 s ............. 10 s ............. 20 s        what tarpc and checkers read
//!   n1   (no clock)    0 s ............. 10 s ............. 20 s
//!   n2   rate 1.1      0 s ............. 11 s ............. 22 s        a timer of 11 s rings after 10 s
//!   n3   jumped        0 s ............. 10 s | 3610 s .... 3620 s      never back: no system allows that
//! ```
//!
//! The calendar is apart: it can be wrong by hours, in both directions, and says nothing about the monotonic clock.
//! Instants of different nodes must not be compared, which holds for real machines, too.
//!
//! # Caveats
//!
//! A timer that is set before its node gets a first clock rings by true time.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::{Duration, Instant},
};

use madsim::{task::NodeId, time::TimeHandle};

/// How long a timer waits at most until it looks at its node's clock again: that may have jumped.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A clock that stands still would divide by zero.
const RATE_MIN: f64 = 1e-6;

/// How one node's clock goes.
#[derive(Clone, Copy, Debug)]
struct NodeClock {
    /// True time when the clock was changed last.
    since: Instant,
    /// What it showed then.
    shown: Instant,
    /// Its seconds in a second.
    rate: f64,
    /// How wrong the calendar is, in seconds.
    calendar_off_s: i64,
}

impl NodeClock {
    fn now(&self, true_now: Instant) -> Instant {
        self.shown + true_now.saturating_duration_since(self.since).mul_f64(self.rate)
    }
}

thread_local! {
    /// Whether any node has a clock of its own, so that nobody looks for one in vain.
    static ANY: Cell<bool> = const { Cell::new(false) };
    static CLOCKS: RefCell<BTreeMap<NodeId, NodeClock>> = const { RefCell::new(BTreeMap::new()) };
}

fn of_this_node() -> Option<NodeClock> {
    // A run that is over drops its tasks outside of any node.
    if !ANY.get() || TimeHandle::try_current().is_none() {
        return None;
    }
    let node = madsim::plugin::node();
    CLOCKS.with_borrow(|clocks| clocks.get(&node).copied())
}

/// Changes a node's clock from now on, without a step in what it shows.
fn change(node: NodeId, change: impl FnOnce(&mut NodeClock)) {
    ANY.set(true);
    CLOCKS.with_borrow_mut(|clocks| {
        let now = super::true_now();
        let fresh = NodeClock { since: now, shown: now, rate: 1.0, calendar_off_s: 0 };
        let clock = clocks.entry(node).or_insert(fresh);
        clock.shown = clock.now(now);
        clock.since = now;
        change(clock);
    });
}

/// Lets a node's clock go at another rate: 1.1 is a tenth too fast.
pub fn set_rate(node: NodeId, rate: f64) {
    change(node, |clock| clock.rate = rate.max(RATE_MIN));
}

/// Lets a node's monotonic clock jump forward, as that of a machine that was asleep. Its timers ring soon after.
pub fn jump_forward(node: NodeId, by: Duration) {
    change(node, |clock| clock.shown += by);
}

/// Lets a node's calendar jump, in either direction.
pub fn jump_calendar(node: NodeId, by_seconds: i64) {
    change(node, |clock| clock.calendar_off_s += by_seconds);
}

/// What a node's monotonic clock shows.
pub fn read(node: NodeId) -> Instant {
    let now = super::true_now();
    CLOCKS.with_borrow(|clocks| clocks.get(&node).map_or(now, |clock| clock.now(now)))
}

/// The calendar of this node, which shows `true_time` where it is right.
pub(super) fn calendar(true_time: Duration) -> Duration {
    let off = of_this_node().map_or(0, |clock| clock.calendar_off_s);
    if off >= 0 {
        true_time + Duration::from_secs(off.unsigned_abs())
    } else {
        true_time.saturating_sub(Duration::from_secs(off.unsigned_abs()))
    }
}

/// What this node's monotonic clock shows.
pub(super) fn now() -> Instant {
    let now = super::true_now();
    of_this_node().map_or(now, |clock| clock.now(now))
}

/// Whether this node has a clock of its own.
pub(super) fn is_own() -> bool {
    of_this_node().is_some()
}

/// Waits by this node's clock.
pub(super) fn sleep(duration: Duration) -> impl Future<Output = ()> {
    let until = now() + duration;
    async move {
        loop {
            let left = until.saturating_duration_since(now());
            let rate = of_this_node().map_or(1.0, |clock| clock.rate);
            let true_left = Duration::try_from_secs_f64(left.as_secs_f64() / rate);
            madsim::time::sleep(true_left.unwrap_or(Duration::MAX).min(LOOK_AGAIN)).await;
            if now() >= until {
                return;
            }
        }
    }
}
