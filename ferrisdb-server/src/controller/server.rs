//! The shell of a controller: heartbeats and long polls in, disk and recruitment calls out.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ferrisdb_core::{
    ClusterId, Endpoint, Error, Generation, Result, Stage,
    id::Address,
    runtime::{self, Disk, TaskGroup},
    service::{
        controller::{
            ClusterState, Controller as ControllerApi, CoordinatorMembers, Heartbeat,
            HeartbeatReply, Status,
        },
        log::{LockReply, LogService},
        worker::{RecruitCoordinator, RecruitLog, WorkerService},
    },
    transport::{Network, call},
};
use parking_lot::Mutex;
use tarpc::context::Context;
use tokio::sync::{Notify, mpsc};

use super::{
    ControllerSettings,
    cluster_record::ClusterRecord,
    machine::{Controller, Effect, Input},
};

/// How long a call of a recovery may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a long poll waits for news.
const POLL_WAIT: Duration = Duration::from_secs(10);
/// The name of the record in the controller's directory.
const RECORD_FILE: &str = "cluster";

/// A controller. Clones are the same one.
#[derive(Clone)]
pub struct ControllerServer {
    shared: Arc<Shared>,
}

struct Shared {
    machine: Mutex<Controller>,
    effects: mpsc::UnboundedSender<Effect>,
    published: Mutex<Arc<ClusterState>>,
    changed: Notify,
    /// Set when the record could not be written: this controller decides nothing any more.
    failed: Mutex<Option<Error>>,
    address: Address,
    network: Network,
    tasks: TaskGroup,
}

impl ControllerServer {
    /// Starts a controller that goes on from the record in `directory`, or creates a cluster there.
    ///
    /// # Errors
    ///
    /// If the record cannot be read or written, is damaged, or is of another cluster than `network`.
    pub async fn start(
        disk: Arc<dyn Disk>,
        directory: &Path,
        address: Address,
        network: Network,
        settings: ControllerSettings,
    ) -> Result<ControllerServer> {
        let path = directory.join(RECORD_FILE);
        let mut record = match disk.read(&path).await? {
            Some(file) => ClusterRecord::from_bytes(&file).map_err(|e| e.at(path.display()))?,
            None => {
                let cluster_id = network.cluster_id().unwrap_or_else(ClusterId::random);
                tracing::info!(%cluster_id, "creating a cluster");
                ClusterRecord::new(cluster_id)
            }
        };
        network.join(record.cluster_id)?;
        record.starts += 1;
        disk.replace(&path, record.to_bytes()).await?;

        let tick = settings.failure_timeout / 10;
        let machine = Controller::new(settings, record, runtime::now());
        let published = Mutex::new(Arc::new(machine.state()));
        let (effects, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            machine: Mutex::new(machine),
            effects,
            published,
            changed: Notify::new(),
            failed: Mutex::default(),
            address,
            network,
            tasks: TaskGroup::default(),
        });
        shared.tasks.spawn(Shared::perform(Arc::clone(&shared), queue, disk, path));
        shared.tasks.spawn(Shared::tick(Arc::clone(&shared), tick));
        Ok(ControllerServer { shared })
    }

    /// The cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.published.lock().cluster_id
    }

    /// Ends the controller's tasks.
    pub fn stop(&self) {
        self.shared.tasks.abort_all();
    }
}

impl ControllerApi for ControllerServer {
    async fn heartbeat(self, _: Context, request: Heartbeat) -> Result<HeartbeatReply> {
        self.shared.check()?;
        let mut effects = Vec::new();
        let reply = {
            let mut machine = self.shared.machine.lock();
            let reply = machine.on_heartbeat(request, runtime::now(), &mut effects);
            // Sent under the lock, so that effects are performed in the order they were decided in.
            self.shared.send(effects);
            reply
        };
        Ok(reply)
    }

    async fn cluster_state(self, _: Context, known_revision: u64) -> Result<ClusterState> {
        self.shared.check()?;
        let newer = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let state = Arc::clone(&*self.shared.published.lock());
                // A caller that knows more than we do has met a later start of this controller.
                if state.revision > known_revision {
                    return state;
                }
                changed.await;
            }
        };
        match runtime::timeout(POLL_WAIT, Stage::Control, newer).await {
            Ok(state) => Ok(ClusterState::clone(&state)),
            Err(_) => Ok(ClusterState::clone(&*self.shared.published.lock())),
        }
    }

    async fn status(self, _: Context) -> Result<Status> {
        self.shared.check()?;
        let machine = self.shared.machine.lock();
        Ok(machine.status(runtime::now(), self.shared.address.clone()))
    }
}

impl Shared {
    fn check(&self) -> Result<()> {
        self.failed.lock().clone().map_or(Ok(()), Err)
    }

    fn send(&self, effects: Vec<Effect>) {
        for effect in effects {
            // The queue is closed only when the controller stops: nothing is to be done then.
            let _ = self.effects.send(effect);
        }
    }

    fn input(&self, input: Input) {
        let mut effects = Vec::new();
        let mut machine = self.machine.lock();
        machine.step(input, runtime::now(), &mut effects);
        self.send(effects);
    }

    async fn tick(self: Arc<Self>, every: Duration) {
        loop {
            runtime::sleep(every).await;
            self.input(Input::Tick);
        }
    }

    /// Performs effects one after the other; calls to other processes run on beside.
    async fn perform(
        self: Arc<Self>,
        mut queue: mpsc::UnboundedReceiver<Effect>,
        disk: Arc<dyn Disk>,
        path: PathBuf,
    ) {
        while let Some(effect) = queue.recv().await {
            match effect {
                Effect::Persist { sequence, record } => {
                    if let Err(error) = disk.replace(&path, record.to_bytes()).await {
                        // What is on disk is not known now. Going on could begin a generation twice.
                        tracing::error!(%error, "the cluster record cannot be written: this controller stops deciding");
                        *self.failed.lock() = Some(error);
                        return;
                    }
                    self.input(Input::Persisted { sequence });
                }
                Effect::Publish(state) => {
                    *self.published.lock() = Arc::new(*state);
                    self.changed.notify_waiters();
                }
                Effect::Lock { generation, index, log } => {
                    let this = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        let result = this.lock_log(&log, generation).await;
                        this.input(Input::Locked { generation, index, result });
                    });
                }
                Effect::RecruitLog { process, worker, request } => {
                    let this = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        let generation = request.generation;
                        let result = this.recruit_log(&worker, request).await;
                        this.input(Input::LogRecruited { generation, process, result });
                    });
                }
                Effect::RecruitCoordinator { worker, request } => {
                    let this = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        let generation = request.generation;
                        let result = this.recruit_coordinator(&worker, *request).await;
                        this.input(Input::CoordinatorRecruited { generation, result });
                    });
                }
            }
        }
    }

    async fn lock_log(&self, log: &Endpoint, generation: Generation) -> Result<LockReply> {
        let locked = async {
            let client = self.network.connect::<LogService>(log).await?;
            call(CALL_LIMIT, Stage::Control, |context| client.lock(context, generation)).await?
        };
        locked.await.map_err(|error: Error| error.at(log))
    }

    async fn recruit_log(&self, worker: &Endpoint, request: RecruitLog) -> Result<Endpoint> {
        let recruited = async {
            let client = self.network.connect::<WorkerService>(worker).await?;
            call(CALL_LIMIT, Stage::Control, |context| client.recruit_log(context, request)).await?
        };
        recruited.await.map_err(|error: Error| error.at(worker))
    }

    async fn recruit_coordinator(
        &self,
        worker: &Endpoint,
        request: RecruitCoordinator,
    ) -> Result<CoordinatorMembers> {
        let recruited = async {
            let client = self.network.connect::<WorkerService>(worker).await?;
            call(CALL_LIMIT, Stage::Control, |context| client.recruit_coordinator(context, request))
                .await?
        };
        recruited.await.map_err(|error: Error| error.at(worker))
    }
}
