//! A process that can host sequencers, proxies and resolvers.

use std::sync::Arc;

use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Generation, ProcessId, Result, Stage,
    cluster_view::ClusterView,
    controllers::Controllers,
    id::Address,
    runtime::{self, Task},
    service::{
        controller::{HeartbeatReply, ProcessClass, Progress},
        worker::{RecruitProxy, RecruitResolver, RecruitSequencer},
    },
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    site::Site,
    worker::{Hosted, Identity, Worker},
};
use crate::coordinator::{Coordinator, CoordinatorSettings, Tenancy};

/// A process that can host roles of a coordinator.
pub struct CoordinatorHost {
    site: Arc<Site>,
    hosted: Arc<CoordinatorWorker>,
    _worker: Worker,
    /// Nobody looks at it. It learns where the controllers are now: heartbeats to a leader that stays say nothing of the others
    /// that move meanwhile, and when that leader goes as well, all that is known of them would be old.
    _view: ClusterView,
}

struct CoordinatorWorker {
    site: Arc<Site>,
    settings: CoordinatorSettings,
    tenants: Mutex<Tenants>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Tenants {
    /// Decides whose turn it is.
    tenancy: Tenancy,
    hosted: Option<Arc<Coordinator>>,
    /// Waits for the end of the hosted generation, to report it at once.
    watching: Option<Task>,
}

impl CoordinatorHost {
    /// Registers with the controllers, and waits to be recruited.
    pub fn start(
        site: Arc<Site>,
        controllers: Controllers,
        zone: String,
        settings: CoordinatorSettings,
    ) -> CoordinatorHost {
        let changed = Arc::new(Notify::new());
        let hosted = Arc::new(CoordinatorWorker {
            site: Arc::clone(&site),
            settings,
            tenants: Mutex::default(),
            changed: Arc::clone(&changed),
        });
        // It has no directory, so it is somebody new at each start.
        let (process, class) = (ProcessId::random(), ProcessClass::Coordinator);
        let identity = Identity { process, class, zone };
        let view = ClusterView::follow(controllers.clone());
        let worker =
            Worker::start(Arc::clone(&site), controllers, identity, hosted.clone(), changed);
        CoordinatorHost { site, hosted, _worker: worker, _view: view }
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops it. Commits in flight are answered with an unknown result.
    pub async fn shut_down(self) {
        let tenants = std::mem::take(&mut *self.hosted.tenants.lock());
        drop(tenants); // not under the lock
        self.site.close();
    }
}

impl CoordinatorWorker {
    /// The coordinator of a generation; the roles of an older one end for it.
    fn coordinator(&self, generation: Generation) -> Result<Arc<Coordinator>> {
        let mut tenants = self.tenants.lock();
        let is_new = tenants.tenancy.admit(generation)?;
        if let Some(hosted) = tenants.hosted.as_ref().filter(|_| !is_new) {
            return Ok(Arc::clone(hosted));
        }
        let site = &self.site;
        let coordinator = Arc::new(Coordinator::new(
            generation,
            site.address().clone(),
            site.network().clone(),
            site.router().clone(),
            self.settings.clone(),
        ));
        let (failure, changed) = (coordinator.failure().clone(), Arc::clone(&self.changed));
        let watching = runtime::spawn(async move {
            failure.failed().await;
            changed.notify_one();
        });
        // The one before ends first: its clients are told, and find the next.
        tenants.watching = Some(watching);
        let before = tenants.hosted.replace(Arc::clone(&coordinator));
        drop(tenants);
        drop(before);
        Ok(coordinator)
    }
}

impl Hosted for CoordinatorWorker {
    fn hosted_generations(&self) -> Vec<Generation> {
        let tenants = self.tenants.lock();
        let healthy = tenants.hosted.iter().filter(|hosted| hosted.failure().cause().is_none());
        healthy.map(|hosted| hosted.generation()).collect()
    }

    fn accused(&self) -> Vec<Address> {
        let tenants = self.tenants.lock();
        // Said as long as the failed generation is hosted; the controller remembers it for a while.
        tenants.hosted.iter().filter_map(|hosted| hosted.failure().accused()).collect()
    }

    fn progress(&self) -> Progress {
        Progress::default()
    }

    fn join(&self, _: ClusterId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn on_reply(&self, reply: &HeartbeatReply) {
        // A generation that was replaced serves nobody; its roles go.
        let mut tenants = self.tenants.lock();
        if tenants.tenancy.is_over(reply.generation) {
            let (hosted, watching) = (tenants.hosted.take(), tenants.watching.take());
            drop(tenants);
            drop((hosted, watching));
        }
    }

    fn recruit_sequencer(&self, request: RecruitSequencer) -> Result<Endpoint> {
        Ok(self.coordinator(request.recruitment.generation)?.host_sequencer(&request))
    }

    fn recruit_resolver(&self, request: RecruitResolver) -> Result<Endpoint> {
        Ok(self.coordinator(request.recruitment.generation)?.host_resolver(&request))
    }

    fn recruit_proxy(&self, request: RecruitProxy) -> BoxFuture<'_, Result<Endpoint>> {
        Box::pin(async move {
            let coordinator = self.coordinator(request.recruitment.generation)?;
            let hosted = coordinator.host_proxy(request).await;
            if coordinator.failure().cause().is_some() && hosted.is_ok() {
                let detail = "the generation has ended while its proxy was made";
                return Err(Error::new(ErrorCode::GenerationEnded, Stage::Control, detail));
            }
            hosted
        })
    }
}
