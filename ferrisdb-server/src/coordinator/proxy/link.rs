//! The connections of a proxy to a log, a resolver or the sequencer: made anew when they break.
//!
//! ```text
//!   push 110 -> 120      on its way, or there already
//!        the connection breaks: a reset, a firewall that has forgotten it, a switch that was replaced
//!   connect again        the same instance answers: the member lives
//!   push 110 -> 120      the same once more: the log appends it, or remembers it and waits for the same sync
//! ```
//!
//! A broken connection says nothing of the process behind it. If that has died, no new connection is made, and the generation
//! ends; if it was started again, its instance is gone, or the controller sees its next life. So one lost connection costs a
//! round trip, where a recovery would cost each client its transactions.
//!
//! All that goes this way may be sent twice: logs and resolvers know repeated batches by their versions, the sequencer by their
//! numbers, and to ask for the newest committed version once more only finds a newer one.

use std::{future::Future, time::Duration};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Result, Stage,
    id::Address,
    runtime,
    service::{Client, Service},
    transport::Network,
};
use parking_lot::Mutex;

/// So many connections in a row may break before they can be used, before the way there counts as broken.
const REFUSED_MAX: u32 = 3;

/// So many connections may break within [`BREAKS_WITHIN`] under one request: something is wrong with the request then.
const BREAKS_MAX: u32 = 20;
const BREAKS_WITHIN: Duration = Duration::from_secs(1);

/// How long to wait after a connection that could not be made. All tries together are quicker than a recovery.
const BREAK_PAUSE: Duration = Duration::from_millis(2);

/// How long to wait before a question is asked again that the member was too busy for.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A connection to a member that is made anew when it breaks.
pub struct Link<S: Service> {
    network: Network,
    endpoint: Endpoint,
    kept: Mutex<Kept<S>>,
    /// Held by whoever makes a new connection: the others wait for the same one.
    connecting: tokio::sync::Mutex<()>,
}

struct Kept<S: Service> {
    client: Client<S>,
    /// Counts the connections.
    number: u64,
}

impl<S: Service> Link<S> {
    /// To this endpoint, over `client` for as long as that works.
    pub fn new(network: Network, endpoint: Endpoint, client: Client<S>) -> Link<S> {
        let kept = Mutex::new(Kept { client, number: 0 });
        Link { network, endpoint, kept, connecting: tokio::sync::Mutex::default() }
    }

    /// Where the member is.
    pub fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// Sends something that may be sent twice, again if the connection breaks under it. A new connection has to be there within
    /// the limit.
    ///
    /// # Errors
    ///
    /// What the member answers; [`ErrorCode::Unreachable`] or [`ErrorCode::TimedOut`] if there is no new connection to it, or one
    /// after the other breaks.
    pub(super) async fn send<T, Sent>(
        &self,
        limit: Duration,
        stage: Stage,
        request: impl Fn(Client<S>) -> Sent,
    ) -> Result<T>
    where
        Sent: Future<Output = Result<T>>,
    {
        let (mut breaks, mut refused, mut since) = (0, 0, runtime::now());
        loop {
            let (client, number) = self.kept();
            let answer = request(client).await;
            let is_broken = |error: &Error| error.code() == ErrorCode::Unreachable;
            match answer {
                Err(error) if is_broken(&error) => {
                    let now = runtime::now();
                    if now.saturating_duration_since(since) > BREAKS_WITHIN {
                        (breaks, since) = (0, now);
                    }
                    breaks += 1;
                    if breaks > BREAKS_MAX || planted(Plant::BreakIsDeath) {
                        return Err(error.at(&self.endpoint));
                    }
                    let renewed = runtime::timeout(limit, stage, self.renew(number)).await;
                    match renewed.and_then(|renewed| renewed) {
                        Ok(()) => {
                            mark(Mark::MemberReconnected);
                            refused = 0;
                        }
                        // The new one has broken, too, before it could be used.
                        Err(error) if is_broken(&error) && refused < REFUSED_MAX => {
                            refused += 1;
                            runtime::sleep(runtime::jitter(BREAK_PAUSE)).await;
                        }
                        Err(error) => return Err(error.at(&self.endpoint)),
                    }
                }
                answer => return answer.map_err(|error| error.at(&self.endpoint)),
            }
        }
    }

    /// Asks a question as [`Link::send`] does, with a limit for all of it. A member that is too busy, such as one with no place for
    /// another connection, is asked again within the limit.
    ///
    /// # Errors
    ///
    /// That there is no answer, or what the answer is.
    pub(super) async fn ask<T, Asked>(
        &self,
        limit: Duration,
        stage: Stage,
        question: impl Fn(Client<S>) -> Asked,
    ) -> Result<T>
    where
        Asked: Future<Output = Result<T>>,
    {
        let until = runtime::now() + limit;
        let asked = async {
            loop {
                let answer = self.send(limit, stage, &question).await;
                let is_busy = |error: &Error| error.code() == ErrorCode::TooBusy;
                if !answer.as_ref().is_err_and(is_busy) {
                    return answer;
                }
                let pause = runtime::jitter(BUSY_PAUSE);
                if runtime::now() + pause >= until {
                    return answer;
                }
                runtime::sleep(pause).await;
            }
        };
        let asked = runtime::timeout(limit, stage, asked).await;
        asked.and_then(|answer| answer).map_err(|error| error.at(&self.endpoint))
    }

    fn kept(&self) -> (Client<S>, u64) {
        let kept = self.kept.lock();
        (kept.client.clone(), kept.number)
    }

    /// Makes a connection in the place of the one of this number, unless somebody has done so already.
    async fn renew(&self, number: u64) -> Result<()> {
        let _connecting = self.connecting.lock().await;
        if self.kept.lock().number != number {
            return Ok(());
        }
        let client = self.network.connect::<S>(&self.endpoint).await?;
        let kept = Kept { client, number: number + 1 };
        let before = std::mem::replace(&mut *self.kept.lock(), kept);
        drop(before); // not under the lock
        Ok(())
    }
}
