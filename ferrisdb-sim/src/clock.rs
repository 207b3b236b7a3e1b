//! What happens to the clocks of nodes, and to nodes that do not get to run, as verbs.
//!
//! ```text
//!                     what the node sees                                     what others see
//!   set_rate 1.1      timers ring early, leases end early                    an impatient peer
//!   jump_forward      all its deadlines pass at once                         a peer that gives up everything
//!   jump_calendar     logs and status with wrong dates, nothing else         nothing
//!   pause, resume     nothing, then a jump: its clock went on                silence; connections stay open
//!   freeze, thaw      nothing at all: its clock stood still, too             silence; and then it believes its leases
//! ```
//!
//! True time is what traces, histories and checkers have. Start with [`draw_rate`], or [`Clocks::freeze`].

use std::time::Duration;

use ferrisdb_core::runtime::{self, node_clocks};
use madsim::{runtime::Handle, task::NodeId};

use crate::trace::Trace;

/// The clocks of a run.
#[derive(Clone)]
pub struct Clocks {
    trace: Trace,
}

/// How fast a node's clock goes: mostly right within a tenth, sometimes far off.
pub fn draw_rate() -> f64 {
    let fraction = (runtime::random_u64() >> 11) as f64 / (1u64 << 53) as f64;
    if runtime::random_u64().is_multiple_of(10) {
        0.5 + 1.5 * fraction
    } else {
        0.9 + 0.2 * fraction
    }
}

impl Clocks {
    /// The clocks of a run with this trace.
    pub fn new(trace: Trace) -> Clocks {
        Clocks { trace }
    }

    /// Lets a node's clock go at another rate from now on: 1.1 is a tenth too fast.
    pub fn set_rate(&self, node: NodeId, rate: f64) {
        self.trace.note(format_args!("the clock of node {node} goes at {rate:.3}"));
        node_clocks::set_rate(node, rate);
    }

    /// Lets a node's monotonic clock jump, as that of a machine that was asleep and knows it.
    pub fn jump_forward(&self, node: NodeId, by: Duration) {
        self.trace.note(format_args!("the clock of node {node} jumps by {by:?}"));
        node_clocks::jump_forward(node, by);
    }

    /// Lets a node's calendar jump, in either direction.
    pub fn jump_calendar(&self, node: NodeId, by_seconds: i64) {
        self.trace.note(format_args!("the calendar of node {node} jumps by {by_seconds} s"));
        node_clocks::jump_calendar(node, by_seconds);
    }

    /// Does not let a node run. Its clock goes on, and what is sent to it waits.
    pub fn pause(&self, node: NodeId) {
        self.trace.note(format_args!("pause node {node}"));
        Handle::current().pause(node);
    }

    /// Lets a node run again.
    pub fn resume(&self, node: NodeId) {
        self.trace.note(format_args!("resume node {node}"));
        Handle::current().resume(node);
    }

    /// Does not let a node run, and stops its clock: a virtual machine that is moved to another host.
    pub fn freeze(&self, node: NodeId) {
        self.pause(node);
        node_clocks::set_rate(node, 0.0);
    }

    /// Ends [`Clocks::freeze`]. The clock goes on where it stood, at the right rate.
    pub fn thaw(&self, node: NodeId) {
        node_clocks::set_rate(node, 1.0);
        self.resume(node);
    }
}
