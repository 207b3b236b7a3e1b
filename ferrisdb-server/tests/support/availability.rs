//! How long a cluster is not available: a client that begins a small transaction all the time.
//!
//! ```text
//!   attempts    |--| |--| |---- error     |----- error      |--|
//!   fault               x                                      ^
//!                       '--------------- first_after ----------'   the first commit that BEGAN after x
//! ```
//!
//! An attempt begins at every tick, whether the ones before have ended or not: one that hangs in the fault does
//! not keep others from finding out that it is over.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use ferrisdb_client::{Database, Error, TransactionOption};
use ferrisdb_core::runtime::{self, Task, TaskGroup};
use parking_lot::Mutex;

const TICK: Duration = Duration::from_millis(10);
/// After which an attempt gives up, so that it makes room for a new one.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);
const IN_FLIGHT_MAX: u32 = 128;

/// A commit that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Success {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

/// A client that commits all the time, until it is dropped.
pub(crate) struct Probe {
    shared: Arc<Shared>,
    _ticking: Task,
}

#[derive(Default)]
struct Shared {
    successes: Mutex<Vec<Success>>,
    /// How often which error came.
    errors: Mutex<BTreeMap<String, u64>>,
    in_flight: AtomicU32,
    stopped: AtomicBool,
}

impl Probe {
    /// Begins. The keys it writes begin with `probe/`.
    pub(crate) fn start(database: Database) -> Probe {
        let shared = Arc::new(Shared::default());
        let ticking = {
            let shared = Arc::clone(&shared);
            runtime::spawn(async move {
                let attempts = TaskGroup::default();
                for number in 0u64.. {
                    if shared.stopped.load(Ordering::SeqCst) {
                        break;
                    }
                    if shared.in_flight.load(Ordering::SeqCst) < IN_FLIGHT_MAX {
                        shared.in_flight.fetch_add(1, Ordering::SeqCst);
                        attempts.spawn(attempt(Arc::clone(&shared), database.clone(), number));
                    }
                    runtime::sleep(TICK).await;
                }
            })
        };
        Probe { shared, _ticking: ticking }
    }

    /// From `fault` to the end of the first commit that began after it; `None` if there is none yet.
    pub(crate) fn first_after(&self, fault: Instant) -> Option<Duration> {
        let successes = self.shared.successes.lock();
        let after = successes.iter().filter(|success| success.began >= fault);
        after.map(|success| success.ended.duration_since(fault)).min()
    }

    /// Waits for that.
    ///
    /// # Errors
    ///
    /// The errors so far, if it does not come within the limit.
    pub(crate) async fn wait_after(
        &self,
        fault: Instant,
        limit: Duration,
    ) -> Result<Duration, String> {
        let began = runtime::now();
        loop {
            if let Some(time) = self.first_after(fault) {
                return Ok(time);
            }
            if runtime::now().duration_since(began) > limit {
                return Err(format!("no commit within {limit:?}: {:?}", self.errors()));
            }
            runtime::sleep(Duration::from_millis(2)).await;
        }
    }

    /// All commits so far, in the order in which they ended.
    pub(crate) fn successes(&self) -> Vec<Success> {
        self.shared.successes.lock().clone()
    }

    /// How often which error came.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.shared.errors.lock().clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
    }
}

async fn attempt(shared: Arc<Shared>, database: Database, number: u64) {
    let began = runtime::now();
    let transaction = database.transaction();
    let committed = async {
        transaction.set_option(TransactionOption::Timeout(ATTEMPT_LIMIT))?;
        transaction.set(format!("probe/{:03}", number % 100), number.to_string())?;
        transaction.commit().await
    };
    match committed.await {
        Ok(_) => shared.successes.lock().push(Success { began, ended: runtime::now() }),
        Err(error) => {
            let error: Error = error;
            *shared.errors.lock().entry(error.code().to_string()).or_default() += 1;
        }
    }
    shared.in_flight.fetch_sub(1, Ordering::SeqCst);
}

/// Durations, to be summed up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort();
    }

    /// The least time that so many percent of all do not pass; zero if there are none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// Half of all are not longer.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The longest.
    pub(crate) fn worst(&self) -> Duration {
        self.percentile(100)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}
