//! What this process knows of the cluster: the newest [`ClusterState`], kept fresh by long polls.
//!
//! ```text
//!   c1 leads      71 72 73        a call waits at each controller for what is newer than the newest state known here
//!   c2 follows    70 72           each hands out what it knows; the leader is a little ahead
//!   c3 is cut     70
//!   the view      70 71 72 73     whoever is first; older ones are never taken
//! ```
//!
//! So the view depends on no single process: a client that does not reach the leader's machine hears of a new generation from
//! any other controller. States are hints about where to ask. Logs and proxies see to it that an old one does no harm.
//!
//! Clients find proxies and storage servers in it, storage servers their logs, processes the newest
//! generation. One view per process and cluster, shared by all who look.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    controllers::Controllers,
    error::{Error, ErrorCode, Result, Stage},
    id::Address,
    limits,
    runtime::{self, Task},
    service::controller::ClusterState,
    transport,
};

/// How long one long poll may take, the controller's own wait included.
const POLL_LIMIT: Duration = Duration::from_secs(1);
/// How often to look whether others are to be asked, when nothing has told so.
const LOOK_EVERY: Duration = Duration::from_millis(500);
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
    /// There is a newer state, or nobody follows any more.
    changed: Notify,
    is_followed: AtomicBool,
}

/// What whoever follows holds. When his runtime ends, those that wait in others have to hear of it: they follow on.
struct Followed(Arc<Shared>);

impl Drop for Followed {
    fn drop(&mut self) {
        // Before they look.
        self.0.is_followed.store(false, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct Latest {
    state: Option<Arc<ClusterState>>,
    /// Why the controllers could not be asked, since they last could.
    error: Option<Error>,
    /// Which cluster each is of that has said so when it was asked last: the error, if it is another one.
    belongs: BTreeMap<Address, Option<Error>>,
}

impl Latest {
    /// See [`ClusterView::is_replaced`].
    fn is_replaced(&self, members: &[Address], others_say_so: bool) -> Option<Error> {
        let said = members.iter().filter_map(|member| self.belongs.get(member));
        let (foreign, ours): (Vec<_>, Vec<_>) = said.partition(|error| error.is_some());
        let is_enough = others_say_so || foreign.len() == members.len();
        foreign.into_iter().flatten().next().filter(|_| ours.is_empty() && is_enough).cloned()
    }
}

impl ClusterView {
    /// Follows the cluster of these controllers, whoever of them leads.
    pub fn follow(controllers: Controllers) -> ClusterView {
        let shared = Arc::<Shared>::default();
        let following = Mutex::new(following(&shared, &controllers));
        ClusterView { shared, controllers, following }
    }

    /// Follows on if the runtime has ended in which the cluster was followed.
    fn follow_on(&self) {
        let mut task = self.following.lock();
        // A task that is just ending has not finished.
        if !self.shared.is_followed.load(Ordering::Acquire) {
            *task = following(&self.shared, &self.controllers);
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

    /// The error that says so, if the cluster was wiped and made anew, or gave its place to another one: all controllers say that
    /// they are another one's. One of them is enough if others say so, too, and none belongs to this cluster: a single address
    /// where somebody else listens by now says nothing about the cluster.
    pub fn is_replaced(&self, others_say_so: bool) -> Option<Error> {
        let members = self.controllers.members();
        self.shared.latest.lock().is_replaced(&members, others_say_so)
    }

    /// The first state known with a revision past `revision`; zero for any. Waits until there is one.
    pub async fn newer_than(&self, revision: u64) -> Arc<ClusterState> {
        self.shared.newer_than(revision, || self.follow_on()).await
    }
}

fn following(shared: &Arc<Shared>, controllers: &Controllers) -> Task {
    shared.is_followed.store(true, Ordering::Release);
    let (followed, controllers) = (Followed(Arc::clone(shared)), controllers.clone());
    runtime::keep_running("following the cluster", move || {
        follow(Arc::clone(&followed.0), controllers.clone())
    })
}

impl Shared {
    /// The first state past `revision`; `before_each_wait` is called whenever there is none yet.
    async fn newer_than(&self, revision: u64, before_each_wait: impl Fn()) -> Arc<ClusterState> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            let latest = self.latest.lock().state.clone();
            if let Some(state) = latest.filter(|state| state.revision > revision) {
                return state;
            }
            before_each_wait();
            changed.await;
        }
    }

    fn known_revision(&self) -> u64 {
        self.latest.lock().state.as_ref().map_or(0, |state| state.revision)
    }

    /// Takes a state, unless a newer one is known.
    fn take(&self, state: ClusterState, controllers: &Controllers) {
        {
            let mut latest = self.latest.lock();
            if latest.state.as_ref().is_some_and(|known| known.revision >= state.revision) {
                return;
            }
            controllers.learn(&state.controllers);
            latest.state = Some(Arc::new(state));
        }
        self.changed.notify_waiters();
    }

    /// A controller could not be asked. That one belongs to another cluster says more than that others are silent.
    fn failed(&self, address: &Address, error: Error) {
        let is_telling = |error: &Error| {
            matches!(error.code(), ErrorCode::WrongCluster | ErrorCode::IncompatibleProtocol)
        };
        let mut latest = self.latest.lock();
        match error.code() {
            ErrorCode::WrongCluster => {
                latest.belongs.insert(address.clone(), Some(error.clone()));
            }
            // Nobody knows who will be there next.
            _ => {
                latest.belongs.remove(address);
            }
        }
        if !latest.error.as_ref().is_some_and(is_telling) || is_telling(&error) {
            latest.error = Some(error);
        }
    }
}

/// Keeps a call waiting at each controller that is to be followed.
async fn follow(shared: Arc<Shared>, controllers: Controllers) {
    let mut polls: BTreeMap<Address, Task> = BTreeMap::new();
    loop {
        let changed = controllers.changed();
        tokio::pin!(changed);
        let followed = controllers.to_follow();
        polls.retain(|address, poll| followed.contains(address) && !poll.is_finished());
        for address in followed {
            polls.entry(address.clone()).or_insert_with(|| {
                runtime::spawn(poll(Arc::clone(&shared), controllers.clone(), address))
            });
        }
        tokio::select! {
            biased;
            () = changed => {}
            () = runtime::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Follows one controller, for as long as it is to be followed.
async fn poll(shared: Arc<Shared>, controllers: Controllers, address: Address) {
    let mut retry = RETRY_MIN;
    loop {
        let Err(error) = poll_until_failure(&shared, &controllers, &address, &mut retry).await;
        shared.failed(&address, error.at(&address));
        runtime::sleep(runtime::jitter(retry)).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

async fn poll_until_failure(
    shared: &Shared,
    controllers: &Controllers,
    address: &Address,
    retry: &mut Duration,
) -> Result<Infallible> {
    // The connection has a limit, too: a machine that has gone does not refuse it.
    let connecting = controllers.connect(address);
    let client = runtime::timeout(limits::LEADER_ANSWER_MAX, Stage::Control, connecting).await??;
    loop {
        let known = shared.known_revision();
        let asked = transport::call(POLL_LIMIT, Stage::Control, |context| {
            client.cluster_state(context, known)
        });
        let news = tokio::select! {
            biased;
            news = asked => news??,
            // Somebody else was faster: nobody needs to send the same state again.
            _ = shared.newer_than(known, || ()) => continue,
        };
        *retry = RETRY_MIN;
        {
            let mut latest = shared.latest.lock();
            latest.error = None;
            latest.belongs.insert(address.clone(), None);
        }
        if news.is_led {
            controllers.heard(address);
        }
        if let Some(state) = news.state {
            shared.take(state, controllers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stranger_does_not_replace_a_cluster() {
        let addresses = ["c1:1", "c2:1", "c3:1"].map(Address::new);
        let foreign = || Some(Error::new(ErrorCode::WrongCluster, Stage::Connect, ""));
        let replaced = |said: &[(usize, Option<Error>)], others_say_so| {
            let belongs = said.iter().map(|(at, error)| (addresses[*at].clone(), error.clone()));
            let latest = Latest { belongs: belongs.collect(), ..Latest::default() };
            latest.is_replaced(&addresses, others_say_so).is_some()
        };
        let all = [0, 1, 2].map(|at| (at, foreign()));
        assert!(replaced(&all, false));
        assert!(!replaced(&all[..1], false) && !replaced(&[], true), "the others are silent");
        assert!(replaced(&all[..1], true));
        for others_say_so in [false, true] {
            assert!(!replaced(&[(0, foreign()), (1, None), (2, foreign())], others_say_so));
        }
    }
}
