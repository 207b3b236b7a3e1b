//! A worker: the part of a process that a controller can recruit.

use std::{sync::Arc, time::Duration};

use ferrisdb_core::{
    ClusterId, Endpoint, ErrorCode, Generation, ProcessId, Result, Stage,
    id::Address,
    runtime::{self, Task},
    service::controller::{
        ControllerClient, ControllerService, Heartbeat, HeartbeatReply, ProcessClass, Progress,
    },
    transport::call,
};
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::site::Site;

/// How often a process says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(100);
/// How long one heartbeat may take.
const HEARTBEAT_LIMIT: Duration = Duration::from_millis(500);

/// What a worker hosts, and what it has to remember.
pub(super) trait Hosted: Send + Sync + 'static {
    /// The generations whose members it hosts, in good health.
    fn hosted_generations(&self) -> Vec<Generation>;
    /// How far they are.
    fn progress(&self) -> Progress;
    /// The process belongs to this cluster from now on; remembers it across restarts.
    fn join(&self, cluster_id: ClusterId) -> BoxFuture<'_, Result<()>>;
    /// A heartbeat was answered.
    fn on_reply(&self, _reply: &HeartbeatReply) {}
}

/// Who a worker is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) process: ProcessId,
    pub(super) class: ProcessClass,
}

impl Identity {
    /// The instance under which the process' worker service (and a storage server's) is offered.
    pub(super) fn instance(&self) -> u64 {
        // Never zero: that is the instance of services of which a process has just one.
        (self.process.0 as u64) | 1
    }
}

/// The heartbeat of a worker. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Worker {
    _beating: Task,
}

impl Worker {
    /// Sends heartbeats to the first of `controllers` that answers; at once when `changed` is notified.
    pub(super) fn start(
        site: Arc<Site>,
        controllers: Vec<Address>,
        identity: Identity,
        hosted: Arc<dyn Hosted>,
        changed: Arc<Notify>,
    ) -> Worker {
        let incarnation = runtime::random_u64();
        let describe = move |site: &Site, hosted: &dyn Hosted| Heartbeat {
            process: identity.process,
            incarnation,
            class: identity.class,
            worker: Endpoint { address: site.address().clone(), instance: identity.instance() },
            hosted_generations: hosted.hosted_generations(),
            progress: hosted.progress(),
        };
        let beating = runtime::spawn(async move {
            for controller in controllers.iter().cycle() {
                let beats = beat(&site, controller, hosted.as_ref(), &changed, &describe);
                let Err(error) = beats.await;
                match error.code() {
                    // Neither gets better by asking again.
                    ErrorCode::WrongCluster | ErrorCode::IncompatibleProtocol => {
                        return site.give_up(error);
                    }
                    _ => tracing::debug!(%error, %controller, "no heartbeat"),
                }
                runtime::sleep(runtime::jitter(HEARTBEAT_EVERY)).await;
            }
        });
        Worker { _beating: beating }
    }
}

/// Sends heartbeats to one controller until it fails.
async fn beat(
    site: &Site,
    controller: &Address,
    hosted: &dyn Hosted,
    changed: &Notify,
    describe: &(impl Fn(&Site, &dyn Hosted) -> Heartbeat + Sync),
) -> Result<std::convert::Infallible> {
    let endpoint = Endpoint::of_process(controller.clone());
    let client: ControllerClient = site.network().connect::<ControllerService>(&endpoint).await?;
    loop {
        let heartbeat = describe(site, hosted);
        let reply =
            call(HEARTBEAT_LIMIT, Stage::Control, |context| client.heartbeat(context, heartbeat))
                .await??;
        site.network().join(reply.cluster_id)?;
        hosted.join(reply.cluster_id).await?;
        hosted.on_reply(&reply);
        tokio::select! {
            biased;
            () = changed.notified() => {}
            () = runtime::sleep(HEARTBEAT_EVERY) => {}
        }
    }
}
