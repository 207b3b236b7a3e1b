//! Questions asked together travel together.
//!
//! ```text
//!   idle              a question starts a round
//!   asking            further questions wait; a few rounds may be under way at once
//!   a round ends      all that wait go out as the next one
//! ```
//!
//! Who starts a round sends it at once if none is under way and the last one was for a single question: there seems to be nobody to wait for.
//! Otherwise a task of its own sends it after all others that are ready have run, because they were woken by the same answer
//! and are about to ask as well. A round that needs no waiting, as within a process, is over before [`Batcher::ask`] looks for
//! its answer: no task, no switch of threads.
//!
//! A question only ever joins a round that is sent after it arrived: a read version obtained here covers
//! every commit acknowledged before it was asked for (I-1).

use std::{collections::VecDeque, future::Future as _, sync::Arc, task::Poll};

use ferrisdb_core::{Error, ErrorCode, Result, Stage, runtime};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Most questions that wait; a further one is refused.
const WAITING_MAX: usize = 1_000_000;

/// Sends one round: an answer per question, in order.
type SendRound<Q, A> = dyn Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>> + Send + Sync;

/// Gathers questions into rounds.
pub(crate) struct Batcher<Q, A> {
    limits: Limits<Q>,
    send: Box<SendRound<Q, A>>,
    state: Mutex<State<Q, A>>,
}

/// How much goes out at once.
#[derive(Debug)]
pub(crate) struct Limits<Q> {
    /// Most rounds under way at once.
    pub(crate) rounds_max: usize,
    /// Most questions in a round, by their weight. One question always fits.
    pub(crate) weight_max: usize,
    /// What a question weighs.
    pub(crate) weigh: fn(&Q) -> usize,
}

struct State<Q, A> {
    waiting: VecDeque<(Q, oneshot::Sender<A>)>,
    rounds: usize,
    /// Of the round that was sent last.
    questions_in_round: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// A batcher that sends rounds by `send`, which answers each question, in order.
    pub(crate) fn new(
        limits: Limits<Q>,
        send: impl Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state =
            Mutex::new(State { waiting: VecDeque::new(), rounds: 0, questions_in_round: 0 });
        Arc::new(Batcher { limits, send: Box::new(send), state })
    }

    /// Asks in the next round.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TooBusy`] if too many questions wait; [`ErrorCode::ShuttingDown`] if the round ended
    /// without an answer.
    pub(crate) async fn ask(self: &Arc<Self>, question: Q) -> Result<A> {
        let (answer_to, answer) = oneshot::channel();
        let (starts_round, is_alone) = {
            let mut state = self.state.lock();
            if state.waiting.len() >= WAITING_MAX {
                let detail = format!("{WAITING_MAX} requests wait to be sent");
                return Err(Error::new(ErrorCode::TooBusy, Stage::Client, detail));
            }
            state.waiting.push_back((question, answer_to));
            let starts_round = state.rounds < self.limits.rounds_max;
            state.rounds += usize::from(starts_round);
            (starts_round, state.rounds == 1 && state.questions_in_round <= 1)
        };
        if starts_round {
            let round = Round { batcher: Arc::clone(self), ended: false };
            begin(round, is_alone).await;
        }
        answer.await.map_err(|_| {
            Error::new(ErrorCode::ShuttingDown, Stage::Client, "the request was dropped unanswered")
        })
    }
}

/// Starts to send rounds. What cannot be done without waiting goes on in a task of its own, for the others, too, when the first
/// asker gives up.
async fn begin<Q: Send + 'static, A: Send + 'static>(round: Round<Q, A>, is_alone: bool) {
    let mut running = Box::pin(async move {
        if !is_alone {
            runtime::yield_now().await;
        }
        round.run().await;
    });
    let has_ended = is_alone
        && std::future::poll_fn(|context| Poll::Ready(running.as_mut().poll(context).is_ready()))
            .await;
    if !has_ended {
        runtime::spawn(running).detach();
    }
}

/// The right to send rounds one after the other.
struct Round<Q, A> {
    batcher: Arc<Batcher<Q, A>>,
    ended: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Round<Q, A> {
    /// Sends rounds until nothing waits.
    async fn run(mut self) {
        while let Some((questions, answers_to)) = self.take() {
            let answers = (self.batcher.send)(questions).await;
            for (answer_to, answer) in answers_to.into_iter().zip(answers) {
                // Whoever gave up does not hear it.
                let _ = answer_to.send(answer);
            }
        }
    }

    /// All that wait, up to a round's limit, without those whose askers have given up.
    fn take(&mut self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        let mut state = self.batcher.state.lock();
        let Limits { weight_max, weigh, .. } = self.batcher.limits;
        let (mut questions, mut answers_to, mut weight) = (Vec::new(), Vec::new(), 0);
        while let Some((question, answer_to)) = state.waiting.pop_front() {
            if answer_to.is_closed() {
                continue;
            }
            weight += weigh(&question);
            if weight > weight_max && !questions.is_empty() {
                state.waiting.push_front((question, answer_to));
                break;
            }
            questions.push(question);
            answers_to.push(answer_to);
        }
        if questions.is_empty() {
            // Under the same lock as the look: a question that arrives now starts a round of its own.
            state.rounds -= 1;
            self.ended = true;
            return None;
        }
        state.questions_in_round = questions.len();
        Some((questions, answers_to))
    }
}

impl<Q, A> Drop for Round<Q, A> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let unanswered = {
            let mut state = self.batcher.state.lock();
            state.rounds -= 1;
            // The runtime of the last round has ended: nobody is left who would send what waits. Those who ask hear it.
            match state.rounds {
                0 => std::mem::take(&mut state.waiting),
                _ => VecDeque::new(),
            }
        };
        drop(unanswered); // not under the lock
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn questions_end_with_the_runtime_of_the_last_round() {
        let limits = Limits { rounds_max: 1, weight_max: usize::MAX, weigh: |_: &u8| 1 };
        let batcher = Batcher::<u8, u8>::new(limits, |_| futures::future::pending().boxed());
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = runtime();
        first.block_on(async {
            assert!(batcher.ask(1).now_or_never().is_none());
            runtime::yield_now().await;
        });
        let (second, mut waits) = (runtime(), Box::pin(batcher.ask(2)));
        second.block_on(async { assert!((&mut waits).now_or_never().is_none()) });
        drop(first);
        let dropped = second.block_on(waits);
        assert_eq!(dropped.unwrap_err().code(), ErrorCode::ShuttingDown);
    }
}
