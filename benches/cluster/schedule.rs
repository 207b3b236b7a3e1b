//! When operations begin.
//!
//! ```text
//!   closed loop     a client begins the next operation when the last one has ended: what is slow makes the load less
//!
//!   open loop       operation n is due at n / rate, whatever became of the others
//!      due            |     |     |     |     |     |
//!      begun          |     |..........X|X|X  |     |        X  begun late, because no client was free
//!      latency counts from when it was due, so a pause of the database shows in all that waited for it
//! ```
//!
//! Operations of an open loop are handed out by one thread that wakes every 200 µs: tokio's timers are too coarse.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::runtime::{self, Instant};
use tokio::sync::Semaphore;

/// How exactly operations of an open loop begin when they are due.
const PACE: Duration = Duration::from_micros(200);

/// The time of a run: its warm-up goes from `begin` to `start`, and what counts lies between `start` and `end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// When the first operation begins.
    pub(crate) begin: Instant,
    /// From when on it counts.
    pub(crate) start: Instant,
    /// When the last operation may begin.
    pub(crate) end: Instant,
}

impl Window {
    /// A run that begins now.
    pub(crate) fn new(warm_up: Duration, duration: Duration) -> Window {
        let begin = runtime::now();
        Window { begin, start: begin + warm_up, end: begin + warm_up + duration }
    }

    /// Whether a moment lies in the time that counts.
    pub(crate) fn contains(&self, moment: Instant) -> bool {
        (self.start..self.end).contains(&moment)
    }
}

/// Tells clients when to begin their next operation.
#[derive(Clone, Debug)]
pub(crate) enum Schedule {
    /// At once.
    Closed(Window),
    /// When it is due.
    Open(Arc<Open>),
}

/// The operations of an open loop.
#[derive(Debug)]
pub(crate) struct Open {
    window: Window,
    rate: f64,
    /// A permit for each operation that is due and not begun.
    due: Semaphore,
    begun: AtomicU64,
}

impl Schedule {
    /// A schedule; with a rate (in operations a second, above 0) it is an open loop.
    pub(crate) fn new(window: Window, rate: Option<f64>) -> Schedule {
        let Some(rate) = rate else { return Schedule::Closed(window) };
        let (due, begun) = (Semaphore::new(0), AtomicU64::new(0));
        let open = Arc::new(Open { window, rate, due, begun });
        let pacing = Arc::clone(&open);
        #[expect(clippy::disallowed_methods, reason = "timers of the runtime are too coarse")]
        std::thread::spawn(move || pacing.pace());
        Schedule::Open(open)
    }

    /// Waits until there is an operation to begin, and says since when; `None` when the run is over.
    pub(crate) async fn next(&self) -> Option<Instant> {
        match self {
            Schedule::Closed(window) => Some(runtime::now()).filter(|now| *now < window.end),
            Schedule::Open(open) => {
                open.due.acquire().await.ok()?.forget();
                let number = open.begun.fetch_add(1, Ordering::Relaxed);
                Some(open.window.begin + due_at(number, open.rate))
            }
        }
    }

    /// How many operations were due before the end and were not begun.
    pub(crate) fn never_begun(&self) -> u64 {
        match self {
            Schedule::Closed(_) => 0,
            Schedule::Open(open) => {
                let length = open.window.end - open.window.begin;
                due_within(length, open.rate).saturating_sub(open.begun.load(Ordering::Relaxed))
            }
        }
    }
}

impl Open {
    fn pace(&self) {
        let mut given: u64 = 0;
        loop {
            let now = runtime::now();
            if now >= self.window.end {
                break;
            }
            let due = due_within(now - self.window.begin, self.rate);
            self.due.add_permits((due - given) as usize);
            given = due;
            let next = due_at(given, self.rate).saturating_sub(now - self.window.begin);
            #[expect(clippy::disallowed_methods, reason = "this thread is outside of the runtime")]
            std::thread::sleep(next.clamp(PACE, Duration::from_millis(100)));
        }
        self.due.close();
    }
}

/// When an operation is due, after the begin.
fn due_at(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

/// How many operations are due before so much time has passed: the first one at once.
fn due_within(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_due_at_their_rate() {
        let ms = Duration::from_millis;
        assert_eq!([0, 1, 500].map(|n| due_at(n, 500.0)), [ms(0), ms(2), ms(1_000)]);
        assert_eq!(due_within(ms(0), 500.0), 0);
        assert_eq!(due_within(ms(1), 500.0), 1);
        assert_eq!(due_within(ms(1_000), 500.0), 500);
        // What is handed out is never early.
        for rate in [0.3, 7.0, 12_345.6] {
            for elapsed in (1..2_000).map(ms) {
                let due = due_within(elapsed, rate);
                assert!(due_at(due - 1, rate) < elapsed, "{rate} {elapsed:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_open_loop_hands_out_each_operation_once_whoever_is_late() {
        let window = Window::new(Duration::ZERO, Duration::from_millis(50));
        let schedule = Schedule::new(window, Some(1_000.0));
        // Nobody asks before it is over: all is late, and what is not taken has never begun.
        runtime::sleep(Duration::from_millis(20)).await;
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(schedule.next().await.unwrap() - window.begin);
        }
        let expected: Vec<Duration> = (0..10).map(Duration::from_millis).collect();
        assert_eq!(taken, expected);
        assert_eq!(schedule.never_begun(), 40);
    }

    #[tokio::test]
    async fn every_schedule_ends() {
        for rate in [None, Some(100.0)] {
            let window = Window::new(Duration::ZERO, Duration::from_millis(30));
            let schedule = Schedule::new(window, rate);
            while schedule.next().await.is_some() {
                runtime::sleep(Duration::from_millis(1)).await;
            }
            assert!(runtime::now() >= window.end, "{rate:?}");
        }
    }
}
