//! A worker: the part of a process that a controller can recruit.

use std::{sync::Arc, time::Duration};

use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Generation, ProcessId, Result, Stage,
    controllers::Controllers,
    handler,
    id::Address,
    runtime::{self, Task},
    service::{
        controller::{Heartbeat, HeartbeatReply, ProcessClass, Progress, StorageReport},
        worker::{
            RecruitLog, RecruitProxy, RecruitResolver, RecruitSequencer, Recruitment,
            Worker as WorkerApi, WorkerService,
        },
    },
    transport::call,
};
use futures::future::BoxFuture;
use tarpc::context::Context;
use tokio::sync::Notify;

use super::site::Site;

/// How often a process says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(100);
/// How long one heartbeat may take.
const HEARTBEAT_LIMIT: Duration = Duration::from_millis(500);

/// How long another process may take to show that it is reached, and of how many that is asked at once.
const REACH_LIMIT: Duration = Duration::from_millis(1_500);
const REACHED_MAX: usize = 256;

/// How long a controller's watching call is kept waiting.
const WATCH_HOLD: Duration = Duration::from_millis(200);

/// What a worker hosts, and what it has to remember.
pub(super) trait Hosted: Send + Sync + 'static {
    /// The generations whose members it hosts, in good health.
    fn hosted_generations(&self) -> Vec<Generation> {
        Vec::new()
    }
    /// The generations whose logs it has.
    fn kept_generations(&self) -> Vec<Generation> {
        Vec::new()
    }
    /// Why it is of no use although it lives.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// Processes that did not answer it when it needed them.
    fn accused(&self) -> Vec<Address> {
        Vec::new()
    }
    /// How far they are.
    fn progress(&self) -> Progress;
    /// What it holds, if it is a storage server.
    fn storage(&self) -> Option<StorageReport> {
        None
    }
    /// The process belongs to this cluster from now on; remembers it across restarts.
    fn join(&self, cluster_id: ClusterId) -> BoxFuture<'_, Result<()>>;
    /// A heartbeat was answered.
    fn on_reply(&self, _reply: &HeartbeatReply) {}
    /// The controller asks it to host a log.
    fn recruit_log(&self, _request: RecruitLog) -> BoxFuture<'_, Result<Endpoint>> {
        Box::pin(async { Err(not_recruitable("logs")) })
    }
    /// The controller asks it to host the sequencer.
    fn recruit_sequencer(&self, _request: RecruitSequencer) -> Result<Endpoint> {
        Err(not_recruitable("sequencers"))
    }
    /// The controller asks it to host a resolver.
    fn recruit_resolver(&self, _request: RecruitResolver) -> Result<Endpoint> {
        Err(not_recruitable("resolvers"))
    }
    /// The controller asks it to host a proxy.
    fn recruit_proxy(&self, _request: RecruitProxy) -> BoxFuture<'_, Result<Endpoint>> {
        Box::pin(async { Err(not_recruitable("proxies")) })
    }
}

fn not_recruitable(what: &str) -> Error {
    Error::new(ErrorCode::Unsupported, Stage::Control, format!("this process does not host {what}"))
}

/// Who a worker is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) process: ProcessId,
    pub(super) class: ProcessClass,
    pub(super) zone: String,
}

impl Identity {
    /// The instance under which the process' worker service (and a storage server's) is offered.
    pub(super) fn instance(&self) -> u64 {
        // Never zero: that is the instance of services of which a process has just one.
        (self.process.0 as u64) | 1
    }
}

/// The heartbeat of a worker, and the service by which it is recruited. Dropping it ends the heartbeat.
#[derive(Debug)]
pub(super) struct Worker {
    _beating: Task,
}

impl Worker {
    /// Offers the worker service, and sends heartbeats to the leading controller; at once when `changed` is notified.
    pub(super) fn start(
        site: Arc<Site>,
        controllers: Controllers,
        identity: Identity,
        hosted: Arc<dyn Hosted>,
        changed: Arc<Notify>,
    ) -> Worker {
        let incarnation = runtime::random_u64();
        let server = WorkerServer { incarnation, site: Arc::clone(&site), hosted: hosted.clone() };
        site.router().add::<WorkerService>(
            identity.instance(),
            handler!(ferrisdb_core::service::worker::Worker, server),
        );
        let describe = move |site: &Site, hosted: &dyn Hosted| Heartbeat {
            process: identity.process,
            incarnation,
            class: identity.class,
            zone: identity.zone.clone(),
            worker: Endpoint { address: site.address().clone(), instance: identity.instance() },
            hosted_generations: hosted.hosted_generations(),
            kept_generations: hosted.kept_generations(),
            trouble: hosted.trouble(),
            accused: hosted.accused(),
            progress: hosted.progress(),
            storage: hosted.storage(),
        };
        let beating = runtime::spawn(async move {
            loop {
                let beats = beat(&site, &controllers, hosted.as_ref(), &changed, &describe);
                let Err(error) = beats.await;
                match error.code() {
                    // Neither gets better by asking again.
                    ErrorCode::WrongCluster | ErrorCode::IncompatibleProtocol => {
                        return site.give_up(error);
                    }
                    _ => tracing::debug!(%error, "no heartbeat"),
                }
                runtime::sleep(runtime::jitter(HEARTBEAT_EVERY / 2)).await;
            }
        });
        Worker { _beating: beating }
    }
}

/// Sends heartbeats to the leader until that fails.
async fn beat(
    site: &Site,
    controllers: &Controllers,
    hosted: &dyn Hosted,
    changed: &Notify,
    describe: &(impl Fn(&Site, &dyn Hosted) -> Heartbeat + Sync),
) -> Result<std::convert::Infallible> {
    let (_, client) = controllers.leader().await?;
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

/// The worker service of a process.
#[derive(Clone)]
struct WorkerServer {
    incarnation: u64,
    site: Arc<Site>,
    hosted: Arc<dyn Hosted>,
}

impl WorkerServer {
    /// A controller of another cluster recruits nobody here.
    fn check_cluster(&self, recruitment: &Recruitment) -> Result<()> {
        let (ours, theirs) = (self.site.network().cluster_id(), recruitment.cluster_id);
        if ours == Some(theirs) {
            return Ok(());
        }
        let detail = format!("recruited for {theirs}, but of {ours:?}");
        Err(Error::new(ErrorCode::WrongCluster, Stage::Control, detail))
    }
}

impl WorkerApi for WorkerServer {
    async fn recruit_log(self, _: Context, request: RecruitLog) -> Result<Endpoint> {
        self.check_cluster(&request.recruitment)?;
        self.hosted.recruit_log(request).await
    }

    async fn recruit_sequencer(self, _: Context, request: RecruitSequencer) -> Result<Endpoint> {
        self.check_cluster(&request.recruitment)?;
        self.hosted.recruit_sequencer(request)
    }

    async fn recruit_resolver(self, _: Context, request: RecruitResolver) -> Result<Endpoint> {
        self.check_cluster(&request.recruitment)?;
        self.hosted.recruit_resolver(request)
    }

    async fn recruit_proxy(self, _: Context, request: RecruitProxy) -> Result<Endpoint> {
        self.check_cluster(&request.recruitment)?;
        self.hosted.recruit_proxy(request).await
    }

    async fn unreached(self, _: Context, workers: Vec<Endpoint>) -> Result<Vec<Endpoint>> {
        let network = self.site.network().clone();
        drop(self);
        let network = &network;
        let asked = workers.into_iter().take(REACHED_MAX).map(|worker| async move {
            let reached = async {
                let client = network.connect::<WorkerService>(&worker).await?;
                // No process has this incarnation, so it answers at once.
                call(REACH_LIMIT, Stage::Control, |context| client.watch(context, 0)).await?
            };
            let reached = runtime::timeout(REACH_LIMIT, Stage::Control, reached).await;
            let is_reached = reached.and_then(|reached| reached).is_ok();
            (!is_reached).then_some(worker)
        });
        Ok(futures::future::join_all(asked).await.into_iter().flatten().collect())
    }

    async fn watch(self, _: Context, known_incarnation: u64) -> Result<u64> {
        let incarnation = self.incarnation;
        // The connection is what counts: the roles must be free to go meanwhile.
        drop(self);
        if known_incarnation == incarnation {
            runtime::sleep(WATCH_HOLD).await;
        }
        Ok(incarnation)
    }
}
