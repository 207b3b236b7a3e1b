//! What this process knows of the cluster: the newest [`ClusterState`], kept fresh by a long poll.
//!
//! Clients find proxies and storage servers in it, storage servers their logs, processes the newest
//! generation. One view per process and cluster, shared by all who look.

use std::{convert::Infallible, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    controllers::Controllers,
    error::{Error, Result, Stage},
    runtime::{self, Task},
    service::controller::ClusterState,
    transport,
};

/// How long one long poll may take, the controller's own wait included.
/// A leader that is silent for longer may have stopped or be cut off: another one is looked for.
const POLL_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait before asking again after a failure; doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// The newest known state of the cluster. Following ends when the view is dropped.
///
/// It happens in the runtime in which the view was made. Should that end, it goes on in the one of whoever waits next.
#[derive(Debug)]
pub struct ClusterView {
    shared: Arc<Shared>,
    controllers: Controllers,
    following: Mutex<Task>,
}

#[derive(Debug, Default)]
struct Shared {
    latest: Mutex<Latest>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Latest {
    state: Option<Arc<ClusterState>>,
    /// Why the controllers could not be asked, since they last could.
    error: Option<Error>,
}

impl ClusterView {
    /// Follows the cluster of these controllers, whoever of them leads.
    pub fn follow(controllers: Controllers) -> ClusterView {
        let shared = Arc::<Shared>::default();
        let following = runtime::spawn(follow(Arc::clone(&shared), controllers.clone()));
        ClusterView { shared, controllers, following: Mutex::new(following) }
    }

    /// Follows on if the runtime has ended in which the cluster was followed.
    fn follow_on(&self) {
        let mut following = self.following.lock();
        if following.is_finished() {
            *following = runtime::spawn(follow(Arc::clone(&self.shared), self.controllers.clone()));
        }
    }

    /// The newest state, if any was learnt yet.
    pub fn latest(&self) -> Option<Arc<ClusterState>> {
        self.shared.latest.lock().state.clone()
    }

    /// Why the controllers cannot be reached at present.
    pub fn error(&self) -> Option<Error> {
        self.shared.latest.lock().error.clone()
    }

    /// The first state known with a revision past `revision`; zero for any. Waits until there is one.
    pub async fn newer_than(&self, revision: u64) -> Arc<ClusterState> {
        self.follow_on();
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if let Some(state) = self.latest().filter(|state| state.revision > revision) {
                return state;
            }
            changed.await;
        }
    }
}

async fn follow(shared: Arc<Shared>, controllers: Controllers) {
    let mut retry = RETRY_MIN;
    loop {
        let Err(error) = follow_leader(&shared, &controllers, &mut retry).await;
        shared.latest.lock().error = Some(error);
        runtime::sleep(runtime::jitter(retry)).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// Polls the leader until it fails.
async fn follow_leader(
    shared: &Shared,
    controllers: &Controllers,
    retry: &mut Duration,
) -> Result<Infallible> {
    let (address, client) = controllers.leader().await?;
    loop {
        let known = shared.latest.lock().state.as_ref().map_or(0, |state| state.revision);
        let state = transport::call(POLL_LIMIT, Stage::Control, |context| {
            client.cluster_state(context, known)
        })
        .await
        .and_then(|state| state)
        .map_err(|error| error.at(&address))?;
        *retry = RETRY_MIN;
        controllers.learn(&state.controllers);
        let mut latest = shared.latest.lock();
        latest.error = None;
        if state.revision > known {
            latest.state = Some(Arc::new(state));
            drop(latest);
            shared.changed.notify_waiters();
        }
    }
}
