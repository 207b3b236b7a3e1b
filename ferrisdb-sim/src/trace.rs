//! What happened in a run, in order, and a number that sums it up.

use std::{fmt, sync::Arc};

use ferrisdb_core::runtime;
use parking_lot::Mutex;

/// A log of events with their times since the beginning. Clones are the same trace.
#[derive(Clone)]
pub struct Trace {
    began: runtime::Instant,
    events: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    /// An empty trace that begins now.
    pub fn new() -> Trace {
        Trace { began: runtime::true_now(), events: Arc::default() }
    }

    /// Notes an event.
    pub fn note(&self, event: impl fmt::Display) {
        let elapsed = runtime::true_now().duration_since(self.began);
        self.events.lock().push(format!("{:>14} {event}", elapsed.as_nanos()));
    }

    /// All events so far, one per line: nanoseconds, then what happened.
    pub fn events(&self) -> Vec<String> {
        self.events.lock().clone()
    }

    /// A number that differs if the events do: FNV-1a over all lines.
    pub fn hash(&self) -> u64 {
        let events = self.events.lock();
        let bytes = events.iter().flat_map(|event| event.bytes().chain([b'\n']));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

impl Default for Trace {
    fn default() -> Self {
        Trace::new()
    }
}
