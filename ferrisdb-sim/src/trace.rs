//! What happened in a run, in order, and a number that sums it up.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ferrisdb_core::runtime;
use parking_lot::Mutex;

/// A log of events with their times since the beginning. Clones are the same trace.
#[derive(Clone, Default)]
pub struct Trace {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    began: OnceLock<runtime::Instant>,
    ended: Mutex<Duration>,
    events: Mutex<Vec<String>>,
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// Notes an event. The first one is the beginning of time.
    pub fn note(&self, event: impl fmt::Display) {
        let now = runtime::true_now();
        let elapsed = now.duration_since(*self.inner.began.get_or_init(|| now));
        *self.inner.ended.lock() = elapsed;
        self.inner.events.lock().push(format!("{:>14} {event}", elapsed.as_nanos()));
    }

    /// All events so far, one per line: nanoseconds, then what happened.
    pub fn events(&self) -> Vec<String> {
        self.inner.events.lock().clone()
    }

    /// When the last event was, since the first.
    pub fn elapsed(&self) -> Duration {
        *self.inner.ended.lock()
    }

    /// A number that differs if the events do: FNV-1a over all lines.
    pub fn hash(&self) -> u64 {
        let events = self.inner.events.lock();
        let bytes = events.iter().flat_map(|event| event.bytes().chain([b'\n']));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}
