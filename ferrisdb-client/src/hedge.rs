//! Asking replicas: the second one before the first has failed, when it takes longer than it should.
//!
//! ```text
//!   a      |-----------------------------...          usually answers within 1 ms
//!   b            |----| the answer                    asked after 10 ms without one
//!   c                                                 not asked
//! ```
//!
//! A server that stands still, or a packet that was lost, so costs a read a few milliseconds and not a timeout. The price is
//! bounded: one read in [`READS_PER_HEDGE`] at most may ask twice for slowness alone, or a busy cluster would get twice the
//! work just when it has too much. (The idea is that of Dean and Barroso, "The Tail at Scale", 2013.)

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
    time::Duration,
};

use ferrisdb_core::{
    Endpoint, Error, Result,
    runtime::{self, Instant},
};

/// A server may take so many times as long as it usually does before another one is asked as well ...
const USUAL_TIMES: u32 = 4;
/// ... but not less than this ...
const WAIT_MIN: Duration = Duration::from_millis(10);
/// ... and not more than this, which is also how long the next one waits when there have been too many hedges.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// One hedge for so many reads ...
const READS_PER_HEDGE: u32 = 20;
/// ... and so many at once after a quiet time.
const HEDGES_SAVED_MAX: u32 = 10;

/// How many reads may be hedged.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In parts of a hedge: each read adds one, each hedge takes [`READS_PER_HEDGE`].
    saved: AtomicU32,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { saved: AtomicU32::new(READS_PER_HEDGE * HEDGES_SAVED_MAX) }
    }
}

impl Budget {
    fn add_read(&self) {
        let more = |saved| (saved < READS_PER_HEDGE * HEDGES_SAVED_MAX).then_some(saved + 1);
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn take_hedge(&self) -> bool {
        let less = |saved: u32| saved.checked_sub(READS_PER_HEDGE);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// What is known of the servers, and what is told about them.
pub(crate) trait Speeds {
    /// How long the server takes as a rule, if it was asked of late.
    fn usual(&self, server: &Endpoint) -> Option<Duration>;
    /// The server has not answered for so long.
    fn is_late(&self, server: &Endpoint, after: Duration);
}

/// Asks servers in this order and returns the first answer.
///
/// `failed` hears of each error: it returns the one that no other server would do better about. `Ok(None)` if all have
/// failed otherwise.
///
/// # Errors
///
/// What `failed` returned.
pub(crate) async fn first_answer<T, Fut: Future<Output = Result<T>>>(
    servers: Vec<Endpoint>,
    budget: &Budget,
    speeds: &impl Speeds,
    ask: impl Fn(Endpoint) -> Fut,
    mut failed: impl FnMut(Error) -> Result<()>,
) -> Result<Option<T>> {
    let mut ahead = servers.into_iter();
    let Some(server) = ahead.next() else { return Ok(None) };
    let mut first = std::pin::pin!(ask(server.clone()));
    if ahead.len() == 0 {
        // The usual case of a small cluster needs no clock.
        return match first.await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => failed(error).map(|()| None),
        };
    }
    budget.add_read();
    let mut asked = vec![(server, runtime::now())];
    let mut first_is_open = true;
    let mut others: Vec<Pin<Box<Fut>>> = Vec::new();
    loop {
        if !first_is_open && others.is_empty() {
            let Some(server) = ahead.next() else { return Ok(None) };
            asked.push((server.clone(), runtime::now()));
            others.push(Box::pin(ask(server)));
        }
        // Not a `FuturesUnordered`: with a single future that one wakes its own task each time.
        let answer = std::future::poll_fn(|context| {
            if first_is_open && let Poll::Ready(answer) = first.as_mut().poll(context) {
                return Poll::Ready((None, answer));
            }
            for (index, other) in others.iter_mut().enumerate() {
                if let Poll::Ready(answer) = other.as_mut().poll(context) {
                    return Poll::Ready((Some(index), answer));
                }
            }
            Poll::Pending
        });
        let wait = async {
            let (Some((last, _)), true) = (asked.last(), ahead.len() > 0) else {
                return std::future::pending().await;
            };
            let usual = speeds.usual(last).unwrap_or(WAIT_MIN);
            let early = (usual * USUAL_TIMES).clamp(WAIT_MIN, WAIT_MAX);
            runtime::sleep(early).await;
            if !budget.take_hedge() {
                runtime::sleep(WAIT_MAX.saturating_sub(early)).await;
            }
        };
        let answered = tokio::select! {
            biased;
            answered = answer => Some(answered),
            () = wait => None,
        };
        match answered {
            Some((_, Ok(answer))) => {
                if asked.len() > 1 {
                    tell_late(speeds, &asked);
                }
                return Ok(Some(answer));
            }
            Some((index, Err(error))) => {
                match index {
                    None => first_is_open = false,
                    Some(index) => drop(others.remove(index)),
                }
                failed(error)?;
            }
            None => {}
        }
        if let Some(server) = ahead.next() {
            asked.push((server.clone(), runtime::now()));
            others.push(Box::pin(ask(server)));
        }
    }
}

/// Those asked first took longer than whoever has answered: next time they come later in the order. (The one that has answered
/// told its own time, which is shorter.)
fn tell_late(speeds: &impl Speeds, asked: &[(Endpoint, Instant)]) {
    let now = runtime::now();
    for (server, since) in &asked[..asked.len() - 1] {
        speeds.is_late(server, now.saturating_duration_since(*since));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ferrisdb_core::{ErrorCode, Stage, id::Address};

    use super::*;

    #[derive(Default)]
    struct Known(Mutex<Vec<String>>);

    impl Speeds for Known {
        fn usual(&self, _: &Endpoint) -> Option<Duration> {
            Some(Duration::from_millis(1))
        }

        fn is_late(&self, server: &Endpoint, _: Duration) {
            self.0.lock().unwrap().push(server.address.to_string());
        }
    }

    fn servers(names: &[&str]) -> Vec<Endpoint> {
        names.iter().map(|name| Endpoint::of_process(Address::new(*name))).collect()
    }

    fn unreachable() -> Error {
        Error::new(ErrorCode::Unreachable, Stage::Read, "")
    }

    /// `dead` never answers, `broken` fails at once, others say their name.
    async fn ask(server: Endpoint) -> Result<String> {
        match server.address.to_string().as_str() {
            "dead" => std::future::pending().await,
            "broken" => Err(unreachable()),
            name => Ok(name.to_owned()),
        }
    }

    async fn answer_of(names: &[&str], budget: &Budget, known: &Known) -> Option<String> {
        first_answer(servers(names), budget, known, ask, |_| Ok(())).await.unwrap()
    }

    #[tokio::test]
    async fn a_silent_server_is_not_waited_for() {
        let (budget, known) = (Budget::default(), Known::default());
        let began = runtime::now();
        assert_eq!(answer_of(&["dead", "good"], &budget, &known).await.unwrap(), "good");
        assert!(runtime::now().duration_since(began) >= WAIT_MIN);
        assert_eq!(*known.0.lock().unwrap(), ["dead"], "it comes later next time");
        assert_eq!(answer_of(&["good", "dead"], &budget, &known).await.unwrap(), "good");
        assert_eq!(known.0.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_next_one_is_asked_at_once_after_an_error() {
        let (budget, known) = (Budget::default(), Known::default());
        let saved = budget.saved.load(Ordering::Relaxed);
        assert_eq!(
            answer_of(&["broken", "broken", "good"], &budget, &known).await.unwrap(),
            "good"
        );
        assert_eq!(answer_of(&["broken", "broken"], &budget, &known).await, None);
        assert_eq!(budget.saved.load(Ordering::Relaxed), saved, "errors cost no hedge");
        let refused = first_answer(servers(&["broken", "good"]), &budget, &known, ask, Err).await;
        assert_eq!(refused.unwrap_err().code(), ErrorCode::Unreachable);
    }

    #[tokio::test]
    async fn hedges_are_bounded() {
        let (budget, known) = (Budget::default(), Known::default());
        let hedged = (0..100).filter(|_| {
            budget.add_read();
            budget.take_hedge()
        });
        let hedged = hedged.count() as u32;
        assert!((HEDGES_SAVED_MAX..=HEDGES_SAVED_MAX + 5).contains(&hedged), "{hedged}");
        budget.saved.store(0, Ordering::Relaxed);
        let began = runtime::now();
        assert_eq!(answer_of(&["dead", "good"], &budget, &known).await.unwrap(), "good");
        assert!(runtime::now().duration_since(began) >= WAIT_MAX, "no hedge was left");
    }
}
