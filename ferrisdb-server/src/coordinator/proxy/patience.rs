//! Slow or dead: how long a proxy waits for a resolver or a log that has work of it.
//!
//! ```text
//!   work sent        a third of the limit        asked apart: how are you?
//!      |------------------------|---------------------------|-------------------- ... answered
//!                                 no answer in the rest of the limit: dead
//!                                 an answer: it has work in its queue, and moves: wait on, and ask again
//!                                 an answer, but it has not moved for a while: dead
//!      "too busy"  sent again after a pause, for as long as it lives
//! ```
//!
//! A log that has a hundred megabytes to write before ours is not dead, and nothing would be won by another generation, which
//! would find the same disk. So work has no limit of its own. Liveness is asked over a connection of its own, where no large
//! message is in the way, and what the answer must show is progress: of work that waits for the disk some has to be done. A queue
//! that is full says so, and its caller keeps what it has and comes again: that is how a slow disk slows down the proxy, whose own
//! queue then slows down its clients.
//!
//! Knows nothing of what the work is. Start with [`patiently`].

use std::{future::Future, time::Duration};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Result, Stage, limits,
    runtime::{self, Instant},
    service::Health,
};

/// How long to wait before work is sent again to a member that was too busy; doubles up to the maximum.
const AGAIN_MIN: Duration = Duration::from_millis(5);
const AGAIN_MAX: Duration = Duration::from_millis(100);
/// So many times the limit for an answer a member may have work and not do any of it, and at least so long: what a log syncs
/// at once takes its time on the slowest of disks.
const STANDING_STILL_LIMITS: u32 = 2;
const STANDING_STILL_MIN: Duration = Duration::from_secs(3);

/// How long work may take at most: nothing waits without an end (I-17).
pub(super) const WORK_LIMIT: Duration = limits::REQUEST_DEADLINE_MAX;

/// What is known of a member that is waited for.
#[derive(Debug)]
struct Waiting {
    limit: Duration,
    stage: Stage,
    /// The progress it told last, and since when it is the same.
    standing_still: Option<(u64, Instant)>,
}

impl Waiting {
    fn new(limit: Duration, stage: Stage) -> Waiting {
        Waiting { limit, stage, standing_still: None }
    }

    /// After so long without an answer it is asked how it is.
    fn asked_after(&self) -> Duration {
        self.limit / 3
    }

    /// How long it may take to say how it is.
    fn answer_limit(&self) -> Duration {
        self.limit - self.asked_after()
    }

    /// It was asked how it is. Whether to wait on.
    fn on_answer(&mut self, answer: Result<Health>, now: Instant) -> Result<()> {
        match answer {
            // It has no place for another connection: so it lives, and has told nothing of its work.
            Err(busy) if busy.code() == ErrorCode::TooBusy && !planted(Plant::BusyIsDeath) => {
                Ok(())
            }
            answer => self.on_health(answer?, now),
        }
    }

    /// It said how it is. Whether to wait on.
    fn on_health(&mut self, health: Health, now: Instant) -> Result<()> {
        if planted(Plant::WaitingIsDeath) {
            return Err(self.dead("it has not answered".to_owned()));
        }
        mark(Mark::WaitedForMember);
        if !health.has_work {
            // What we wait for is elsewhere, such as a batch before ours: whose fault that is, others find out.
            self.standing_still = None;
            return Ok(());
        }
        match self.standing_still {
            Some((progress, since)) if progress == health.progress => {
                let standing = now.saturating_duration_since(since);
                if standing >= (self.limit * STANDING_STILL_LIMITS).max(STANDING_STILL_MIN) {
                    return Err(self.dead(format!("its disk has done nothing for {standing:?}")));
                }
            }
            _ => self.standing_still = Some((health.progress, now)),
        }
        Ok(())
    }

    fn dead(&self, detail: String) -> Error {
        Error::new(ErrorCode::TimedOut, self.stage, detail)
    }
}

/// Has a member do some work, however long it takes, as long as it lives. `send` sends it, again if need be; `ask` asks how the
/// member is, and takes no longer than it is told.
///
/// # Errors
///
/// What the member says against the work, except that it is too busy; or that it is dead.
pub(super) async fn patiently<T, Sent, Asked>(
    limit: Duration,
    stage: Stage,
    send: impl Fn() -> Sent,
    ask: impl Fn(Duration) -> Asked,
) -> Result<T>
where
    Sent: Future<Output = Result<T>>,
    Asked: Future<Output = Result<Health>>,
{
    let mut waiting = Waiting::new(limit, stage);
    let mut ask_at = runtime::now() + waiting.asked_after();
    let mut again_after = AGAIN_MIN;
    loop {
        let sent = send();
        tokio::pin!(sent);
        let answer = loop {
            let until = ask_at.saturating_duration_since(runtime::now());
            tokio::select! {
                biased;
                answer = &mut sent => break answer,
                () = runtime::sleep(until) => {}
            }
            tokio::select! {
                biased;
                answer = &mut sent => break answer,
                health = ask(waiting.answer_limit()) => {
                    waiting.on_answer(health, runtime::now())?;
                    ask_at = runtime::now() + waiting.asked_after();
                }
            }
        };
        match answer {
            Err(busy) if busy.code() == ErrorCode::TooBusy && !planted(Plant::BusyIsDeath) => {
                mark(Mark::MemberTooBusy);
                runtime::sleep(runtime::jitter(again_after)).await;
                again_after = (again_after * 2).min(AGAIN_MAX);
                if runtime::now() >= ask_at {
                    waiting.on_answer(ask(waiting.answer_limit()).await, runtime::now())?;
                    ask_at = runtime::now() + waiting.asked_after();
                }
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(6);

    fn busy() -> Error {
        Error::new(ErrorCode::TooBusy, Stage::Log, "full")
    }

    fn health(progress: u64) -> Health {
        Health { has_work: true, progress }
    }

    /// The verdicts on a member that says the same progress, or another one, at these times in limits.
    fn is_dead(told: &[(u32, Health)]) -> bool {
        const LIMIT: Duration = Duration::from_millis(1_500);
        let mut waiting = Waiting::new(LIMIT, Stage::Log);
        let began = runtime::now();
        told.iter().any(|(at, health)| waiting.on_health(*health, began + LIMIT * *at).is_err())
    }

    #[test]
    fn who_moves_is_waited_for_and_who_stands_still_is_not() {
        assert!(!is_dead(&[(1, health(1)), (2, health(2)), (3, health(3)), (9, health(4))]));
        assert!(!is_dead(&[(1, health(1)), (2, health(1)), (3, health(2)), (4, health(2))]));
        assert!(is_dead(&[(1, health(1)), (2, health(1)), (3, health(1))]));
        // It has nothing to do: a batch of somebody else is missing.
        let idle = Health { has_work: false, progress: 1 };
        assert!(!is_dead(&[(1, health(1)), (2, idle), (9, idle), (10, health(1))]));
    }

    #[tokio::test]
    async fn work_may_take_as_long_as_it_likes_while_the_member_answers() {
        let asked = AtomicU32::new(0);
        let send = || async {
            runtime::sleep(LIMIT * 20).await;
            Ok(7)
        };
        let ask = |_| async { Ok(health(asked.fetch_add(1, Ordering::Relaxed).into())) };
        assert_eq!(patiently(LIMIT, Stage::Log, send, ask).await, Ok(7));
        assert!(asked.load(Ordering::Relaxed) > 1, "{asked:?}");
    }

    #[tokio::test]
    async fn a_member_that_does_not_say_how_it_is_is_dead() {
        let send = std::future::pending::<Result<()>>;
        let ask = |limit| async move {
            runtime::timeout(limit, Stage::Log, std::future::pending()).await
        };
        let error = patiently(LIMIT, Stage::Log, send, ask).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::TimedOut);
    }

    #[tokio::test]
    async fn a_member_without_a_place_for_the_question_lives() {
        let send = || async {
            runtime::sleep(LIMIT * 5).await;
            Ok(7)
        };
        assert_eq!(patiently(LIMIT, Stage::Log, send, |_| async { Err(busy()) }).await, Ok(7));
        let mut waiting = Waiting::new(Duration::from_millis(1_500), Stage::Log);
        let began = runtime::now();
        waiting.on_answer(Ok(health(1)), began).unwrap();
        waiting.on_answer(Err(busy()), began + Duration::from_secs(2)).unwrap();
        let still = waiting.on_answer(Ok(health(1)), began + Duration::from_secs(4));
        assert!(still.is_err(), "to be busy is no progress");
    }

    #[tokio::test]
    async fn what_is_refused_by_a_full_queue_is_sent_again() {
        let sent = AtomicU32::new(0);
        let send = || async {
            match sent.fetch_add(1, Ordering::Relaxed) {
                0..30 => Err(busy()),
                _ => Ok(()),
            }
        };
        let ask = |_| async { Ok(health(sent.load(Ordering::Relaxed).into())) };
        assert_eq!(patiently(LIMIT, Stage::Log, send, ask).await, Ok(()));
    }
}
