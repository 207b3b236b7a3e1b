//! Keeping a thread from sleeping while the next message is about to come.
//!
//! ```text
//!   without    request | sleeps ......... | woken: some 30 µs | answer
//!   with       request | looks, looks, looks, looks, answer            looks: epoll with a wait of zero
//!                      |--- the window ---|                             after it without a message: sleeps
//! ```
//!
//! A core that has gone to sleep takes long to wake, on a virtual machine longer than a request takes altogether; and every message
//! between a client and a server wakes one on each side. So after each message a runtime goes on looking for the next
//! one for a while. What is lost is the time of a core that nobody else wanted: between two looks in a row without anything
//! to do, the thread offers its core to others. (ScyllaDB polls like that, by default for 200 µs.)
//!
//! [`Awake::keep`] is a task that is always ready while the window lasts. That is what makes tokio look for messages without
//! waiting for them. In a runtime with several threads it is one of them that stays awake, and another may be the one that
//! waits for messages: then this brings little.
//!
//! Nothing is decided here. A simulation has no use for it: virtual time passes while everybody sleeps.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use super::{Instant, true_now, yield_now};

/// Two looks in a row within this time: no other task had anything to do.
const NOTHING_DONE: u64 = 3_000;

/// Whether a runtime stays awake, and since when it could sleep. See the module.
#[derive(Debug)]
pub struct Awake {
    /// How long after a message, in nanoseconds; zero is never.
    window: AtomicU64,
    /// Times are nanoseconds since then.
    began: Instant,
    last_message: AtomicU64,
    is_asleep: AtomicBool,
    stirred: Notify,
}

impl Default for Awake {
    fn default() -> Awake {
        Awake {
            window: AtomicU64::new(0),
            began: true_now(),
            last_message: AtomicU64::new(0),
            is_asleep: AtomicBool::new(false),
            stirred: Notify::new(),
        }
    }
}

impl Awake {
    /// From now on, staying awake means for so long after each message.
    pub fn set_window(&self, window: Duration) {
        self.window.store(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A message has come in or gone out: another one may follow.
    pub fn stir(&self) {
        if self.window.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.last_message.store(self.now(), Ordering::Relaxed);
        // A message that comes while the task is falling asleep may not wake it. The next one does.
        if self.is_asleep.load(Ordering::Relaxed) {
            self.stirred.notify_one();
        }
    }

    /// Keeps the runtime that runs this awake, as long as it is polled.
    pub async fn keep(&self) {
        let mut looked_at = 0;
        loop {
            let now = self.now();
            let idle = now.saturating_sub(self.last_message.load(Ordering::Relaxed));
            if idle < self.window.load(Ordering::Relaxed) {
                if now - looked_at < NOTHING_DONE {
                    std::thread::yield_now();
                }
                looked_at = now;
                yield_now().await;
            } else {
                self.is_asleep.store(true, Ordering::Relaxed);
                self.stirred.notified().await;
                self.is_asleep.store(false, Ordering::Relaxed);
            }
        }
    }

    fn now(&self) -> u64 {
        let since = true_now().saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use std::{pin::pin, task::Poll};

    use super::*;

    /// Polls once; whether the task wants to be polled again at once.
    async fn stays_awake(keeping: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        let awakened = std::sync::Arc::new(Awakened::default());
        let waker = std::task::Waker::from(std::sync::Arc::clone(&awakened));
        let polled = keeping.poll(&mut std::task::Context::from_waker(&waker));
        assert_eq!(polled, Poll::Pending);
        // A task that has yielded is woken by the runtime, once that has looked for messages.
        yield_now().await;
        awakened.0.load(Ordering::Relaxed)
    }

    #[derive(Default)]
    struct Awakened(AtomicBool);

    impl std::task::Wake for Awakened {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_message_keeps_awake_for_the_window_only() {
        let awake = Awake::default();
        let mut keeping = pin!(awake.keep());
        awake.stir();
        assert!(!stays_awake(keeping.as_mut()).await, "no window was set");
        awake.set_window(Duration::from_secs(3_600));
        awake.stir();
        assert!(stays_awake(keeping.as_mut()).await);
        assert!(stays_awake(keeping.as_mut()).await);
        awake.set_window(Duration::from_nanos(1));
        assert!(!stays_awake(keeping.as_mut()).await, "the window is over");
    }
}
