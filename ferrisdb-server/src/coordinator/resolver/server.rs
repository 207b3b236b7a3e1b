//! The resolver's shell: hands calls to the machine, and answers back.
//!
//! Deciding on a batch can take milliseconds, and a second caller must not spend them blocking a thread of
//! the runtime. So nobody waits for the machine: a call goes into an inbox, and who finds the machine idle
//! works the inbox off, for all.

use std::sync::Arc;

use ferrisdb_core::{
    Error, ErrorCode, Generation, Result, Stage, Version,
    service::{
        Health,
        resolver::{ResolveReply, ResolveRequest},
    },
};
use parking_lot::Mutex;
use tarpc::context::Context;
use tokio::sync::oneshot;

use super::machine::{Effect, Input, Resolver, ResolverProgress, ResolverSettings};
use super::metrics::ResolverMetrics;

type ReplyTo = oneshot::Sender<Result<ResolveReply>>;

/// Serves one resolver. Clones are the same resolver.
#[derive(Clone, Debug)]
pub struct ResolverServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    generation: Generation,
    /// Calls that the machine has not seen, in order of arrival. Bounded by the calls that connections
    /// may have in flight.
    inbox: Mutex<Vec<Input<ReplyTo>>>,
    machine: Mutex<Resolver<ReplyTo>>,
    progress: Mutex<ResolverProgress>,
    metrics: Arc<ResolverMetrics>,
}

impl ResolverServer {
    /// A resolver for a generation with so many proxies, whose first batch follows `recovery_version`.
    pub fn new(generation: Generation, recovery_version: Version, proxies: u32) -> ResolverServer {
        let settings = ResolverSettings::default();
        ResolverServer::with_settings(generation, recovery_version, proxies, settings)
    }

    /// Like [`ResolverServer::new`], with other bounds.
    pub fn with_settings(
        generation: Generation,
        recovery_version: Version,
        proxies: u32,
        settings: ResolverSettings,
    ) -> ResolverServer {
        let machine = Resolver::new(generation, recovery_version, proxies, settings);
        let progress = Mutex::new(machine.progress());
        let inbox = Mutex::new(Vec::new());
        ResolverServer {
            shared: Arc::new(Shared {
                generation,
                inbox,
                machine: Mutex::new(machine),
                progress,
                metrics: Arc::default(),
            }),
        }
    }

    /// What was done so far. Never waits for a batch being decided.
    pub fn progress(&self) -> ResolverProgress {
        *self.shared.progress.lock()
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<ResolverMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    fn submit(&self, request: ResolveRequest) -> oneshot::Receiver<Result<ResolveReply>> {
        let (reply_to, reply) = oneshot::channel();
        self.shared.inbox.lock().push(Input::Resolve { request, reply_to });
        self.shared.work();
        reply
    }
}

impl Shared {
    /// Works the inbox off, unless somebody else is at it.
    fn work(&self) {
        // Looking again after the machine was given back is what makes sure that no call is left: whoever
        // found the machine busy had put its call in before.
        while !self.inbox.lock().is_empty() {
            let Some(mut machine) = self.machine.try_lock() else { return };
            let inputs = std::mem::take(&mut *self.inbox.lock());
            let mut effects = Vec::new();
            for input in inputs {
                let timing = self.metrics.decide.start();
                machine.step(input, &mut effects);
                drop(timing);
                for Effect::Answer(reply_to, answer) in effects.drain(..) {
                    // A caller that has gone repeats its call if it still cares.
                    let _ = reply_to.send(answer);
                }
            }
            let progress = machine.progress();
            self.metrics.follow(&progress);
            *self.progress.lock() = progress;
        }
    }
}

impl ferrisdb_core::service::resolver::Resolver for ResolverServer {
    async fn resolve(self, _: Context, request: ResolveRequest) -> Result<ResolveReply> {
        let reply = self.submit(request);
        drop(self);
        // The machine drops no call unanswered, except when it is dropped itself.
        let stopped =
            || Error::new(ErrorCode::ShuttingDown, Stage::Resolve, "the resolver stopped");
        reply.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn health(self, _: Context, generation: Generation) -> Result<Health> {
        if generation != self.shared.generation {
            let detail = format!("this is generation {}, not {generation}", self.shared.generation);
            return Err(Error::new(ErrorCode::GenerationEnded, Stage::Resolve, detail));
        }
        // Whatever can be decided is decided at once, so what waits does so for somebody else.
        Ok(Health { has_work: false, progress: self.progress().batches })
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::service::resolver::Resolver as _;

    use super::*;

    fn batch(previous: u64, commit: u64) -> ResolveRequest {
        ResolveRequest {
            generation: Generation(3),
            proxy: 0,
            previous_version: Version(previous),
            commit_version: Version(commit),
            transactions: Vec::new(),
            metadata: Vec::new(),
        }
    }

    fn resolve(
        server: &ResolverServer,
        request: ResolveRequest,
    ) -> impl Future<Output = Result<ResolveReply>> + use<> {
        server.clone().resolve(tarpc::context::current(), request)
    }

    #[tokio::test]
    async fn every_call_is_answered_in_whatever_order_they_come() {
        let server = ResolverServer::new(Generation(3), Version(0), 1);
        let last_first =
            (1..=100).rev().map(|version| resolve(&server, batch(version - 1, version)));
        let replies = futures::future::join_all(last_first).await;
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
        assert_eq!(server.progress().resolved_version, Version(100));
        assert_eq!(server.progress().batches, 100);
    }

    #[test]
    fn calls_on_many_threads_leave_none_in_the_inbox() {
        let server = ResolverServer::new(Generation(3), Version(0), 1);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let server = &server;
                scope.spawn(move || {
                    for version in (1..=400).filter(|version| version % 4 == thread) {
                        drop(server.submit(batch(version - 1, version)));
                    }
                });
            }
        });
        assert_eq!(server.progress().resolved_version, Version(400));
    }

    #[tokio::test]
    async fn who_waits_learns_that_the_resolver_stopped() {
        let server = ResolverServer::new(Generation(3), Version(0), 1);
        let waits = resolve(&server, batch(7, 8));
        let stop = async move { drop(server) };
        let (reply, ()) = futures::join!(waits, stop);
        assert_eq!(reply.map_err(|error| error.code()), Err(ErrorCode::ShuttingDown));
    }
}
