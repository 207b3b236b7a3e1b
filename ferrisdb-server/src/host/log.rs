//! A process that can host logs.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Generation, Result, Stage,
    cluster_view::ClusterView,
    controllers::Controllers,
    id::Address,
    runtime::{self, Instant, Task},
    service::{
        controller::{ClusterState, Phase, ProcessClass, Progress},
        worker::RecruitLog,
    },
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    media::Media,
    site::Site,
    worker::{Hosted, Identity, Worker},
};
use crate::{
    directory::{DataDirectory, DirectoryKind},
    log::{LogSettings, LogStore, Superseded, copy},
};

/// A process that can host logs.
pub struct LogHost {
    site: Arc<Site>,
    store: Arc<LogStore>,
    _worker: Worker,
    _retiring: Task,
}

struct LogWorker {
    site: Arc<Site>,
    store: Arc<LogStore>,
    directory: DataDirectory,
    /// The log that was asked for last.
    recruiting: Mutex<Option<Arc<Recruiting>>>,
}

/// A log that is being made. It is made on, whatever becomes of the call that asked for it: what it copies may take longer than a
/// call, and the next one, of the same recovery, waits for the same log.
struct Recruiting {
    request: RecruitLog,
    gathering: Arc<copy::Gathering>,
    /// What the last call that was told to come again has seen of it.
    seen: Mutex<Seen>,
    made: Mutex<Option<Result<u64>>>,
    has_made: Notify,
    task: Mutex<Option<Task>>,
}

/// How much was done of a log, and since when it is the same.
#[derive(Clone, Copy, Debug)]
struct Seen {
    done: u64,
    since: Instant,
}

impl Seen {
    /// So much is done now. What to say to a call that waits for the rest.
    fn on_done(&mut self, done: u64, now: Instant) -> ErrorCode {
        if self.done != done {
            *self = Seen { done, since: now };
        }
        match now.saturating_duration_since(self.since) > STANDING_STILL_MAX {
            true => ErrorCode::TimedOut,
            false => ErrorCode::TooBusy,
        }
    }
}

/// So long a log that is being made may stand still. A single batch out of another log takes up to [`copy::CALL_LIMIT`].
const STANDING_STILL_MAX: Duration = copy::CALL_LIMIT.saturating_add(RECRUIT_WAIT);

/// How long a call waits for a log to be made, before it is told that this takes longer.
const RECRUIT_WAIT: Duration = Duration::from_secs(2);

impl LogHost {
    /// Opens the logs in `path` and registers with the controllers.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used.
    pub async fn start(
        site: Arc<Site>,
        media: &Media,
        path: &Path,
        controllers: Controllers,
        zone: String,
        settings: LogSettings,
    ) -> Result<LogHost> {
        let disk = Arc::clone(media.disk());
        let directory = DataDirectory::open(disk.clone(), path, DirectoryKind::Log).await?;
        site.join_cluster_of(&directory)?;
        let logs = path.join("generations");
        let store = LogStore::open(disk, &logs, settings, site.router().clone()).await?;
        let store = Arc::new(store);
        let (process, class) = (directory.process_id(), ProcessClass::Log);
        let identity = Identity { process, class, zone };
        let hosted = Arc::new(LogWorker {
            site: Arc::clone(&site),
            store: Arc::clone(&store),
            directory,
            recruiting: Mutex::default(),
        });
        let view = ClusterView::follow(controllers.clone());
        let retiring = runtime::spawn(retire_logs(view, Arc::clone(&store)));
        let changed = Arc::new(Notify::new());
        let worker = Worker::start(Arc::clone(&site), controllers, identity, hosted, changed);
        Ok(LogHost { site, store, _worker: worker, _retiring: retiring })
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        self.site.address()
    }

    /// The process' place on the network.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops it, once what is being written is on disk.
    pub async fn shut_down(self) {
        self.store.shut_down().await;
        self.site.close();
    }
}

/// Deletes logs that nobody needs any more, and messages of servers that are gone.
async fn retire_logs(view: ClusterView, store: Arc<LogStore>) {
    let mut revision = 0;
    loop {
        let state = view.newer_than(revision).await;
        revision = state.revision;
        store.forget(|tag| state.is_removed(tag));
        let superseded = superseded(&state);
        if let Err(error) = store.retire(superseded).await {
            tracing::warn!(%error, "old logs could not be deleted yet");
        }
    }
}

/// The logs that nobody needs any more: those that are drained, and those of attempts at a recovery that were given up.
///
/// A later generation has begun than those of the attempts, so they will never be activated. They are let go while recovery
/// still fails, or each attempt would leave a log behind.
fn superseded(state: &ClusterState) -> Superseded {
    let kept: BTreeSet<Generation> = state.log_sets.iter().map(|set| set.generation).collect();
    let newest = kept.last().copied();
    let after = newest.filter(|_| state.phase != Phase::Active);
    Superseded { after, before: state.generation, kept }
}

impl Hosted for LogWorker {
    fn hosted_generations(&self) -> Vec<Generation> {
        self.store.hosted_generations()
    }

    fn kept_generations(&self) -> Vec<Generation> {
        self.store.kept_generations()
    }

    fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    fn progress(&self) -> Progress {
        self.store.progress()
    }

    fn join(&self, cluster_id: ClusterId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.directory.join(cluster_id))
    }

    fn recruit_log(&self, request: RecruitLog) -> BoxFuture<'_, Result<Endpoint>> {
        Box::pin(async move {
            let recruiting = self.recruiting(request)?;
            let waited = runtime::timeout(RECRUIT_WAIT, Stage::Log, recruiting.made()).await;
            let instance = match waited {
                Ok(made) => made.map_err(not_made)?,
                Err(_) => return Err(self.not_yet(&recruiting)),
            };
            Ok(Endpoint { address: self.site.address().clone(), instance })
        })
    }
}

impl LogWorker {
    /// The log of a request, as far as it is made. Whatever else is being made is of an older recovery, and ends.
    fn recruiting(&self, request: RecruitLog) -> Result<Arc<Recruiting>> {
        let mut place = self.recruiting.lock();
        let generation = request.recruitment.generation;
        if let Some(newer) = place.as_ref().map(|other| other.request.recruitment.generation)
            && newer > generation
        {
            let detail = format!("generation {newer} has asked for a log, this is {generation}");
            return Err(Error::new(ErrorCode::GenerationEnded, Stage::Log, detail));
        }
        if let Some(same) = place.as_ref().filter(|other| other.request == request)
            && !same.has_failed()
        {
            return Ok(Arc::clone(same));
        }
        let recruiting = Arc::new(Recruiting {
            request,
            gathering: Arc::default(),
            seen: Mutex::new(Seen { done: 0, since: runtime::now() }),
            made: Mutex::default(),
            has_made: Notify::new(),
            task: Mutex::default(),
        });
        let (network, store) = (self.site.network().clone(), Arc::clone(&self.store));
        let made = Arc::downgrade(&recruiting);
        let (request, gathering) = (recruiting.request.clone(), Arc::clone(&recruiting.gathering));
        let task = runtime::spawn(async move {
            let made_now = async {
                let taken_over = copy::gather(&network, &request, &gathering).await?;
                let generation = request.recruitment.generation;
                store.recruit(generation, request.begin_version, taken_over).await
            };
            let result = made_now.await;
            if let Some(recruiting) = made.upgrade() {
                *recruiting.made.lock() = Some(result);
                recruiting.has_made.notify_waiters();
            }
        });
        *recruiting.task.lock() = Some(task);
        let before = place.replace(Arc::clone(&recruiting));
        drop(place);
        if let Some(task) = before.and_then(|before| before.task.lock().take()) {
            drop(task); // not under a lock
        }
        Ok(recruiting)
    }

    /// It takes longer: whether it goes on, and if not, who keeps it waiting.
    fn not_yet(&self, recruiting: &Recruiting) -> Error {
        let generation = recruiting.request.recruitment.generation;
        let copied = recruiting.gathering.copied_bytes();
        let done = copied + self.store.synced_bytes(generation);
        let code = recruiting.seen.lock().on_done(done, runtime::now());
        let detail = format!("the log takes over {copied} bytes of the generation before");
        let error = Error::new(code, Stage::Log, detail);
        let mut waits_for = recruiting.gathering.waits_for().into_iter();
        match waits_for.find(|source| source.address != *self.site.address()) {
            Some(source) => error.at(source),
            // It is itself that is slow.
            None => error,
        }
    }
}

/// Why a log could not be made. "Too busy" would say that it is being made and gets on.
fn not_made(error: Error) -> Error {
    let code = match error.code() {
        // A log that lets nobody in, or that this process lacks the means to connect to. Other processes may reach it.
        ErrorCode::TooBusy if error.server().is_some() => ErrorCode::Unreachable,
        ErrorCode::TooBusy => ErrorCode::Unavailable,
        code => code,
    };
    error.with_code(code)
}

impl Recruiting {
    fn has_failed(&self) -> bool {
        matches!(&*self.made.lock(), Some(Err(_)))
    }

    /// Waits until it is made.
    async fn made(&self) -> Result<u64> {
        loop {
            let made = self.has_made.notified();
            tokio::pin!(made);
            made.as_mut().enable();
            if let Some(result) = self.made.lock().clone() {
                return result;
            }
            made.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(madsim))]
    #[tokio::test]
    async fn a_log_whose_source_lets_nobody_in_was_not_made() {
        use ferrisdb_core::{
            Version,
            runtime::disk::MemoryDisk,
            service::worker::{Recruitment, Sources},
            transport::{Bounds, Listener, Network, Router},
        };

        let full = Network::with_bounds(Bounds { connections_max: 0, ..Bounds::default() });
        let anywhere = Address::new("127.0.0.1:0");
        let listener = Listener::bind(&anywhere, Router::new(), full).await.unwrap();
        let source = Endpoint { address: listener.address().clone(), instance: 7 };

        let disk: Arc<dyn runtime::Disk> = Arc::new(MemoryDisk::new());
        let directory =
            DataDirectory::open(Arc::clone(&disk), "log", DirectoryKind::Log).await.unwrap();
        let site = Arc::new(Site::local("here"));
        let (path, settings) = (Path::new("log/generations"), LogSettings::default());
        let store = LogStore::open(disk, path, settings, site.router().clone()).await.unwrap();
        let recruiting = Mutex::default();
        let worker = LogWorker { site, store: Arc::new(store), directory, recruiting };
        let recruitment = Recruitment {
            cluster_id: ClusterId(1),
            generation: Generation(2),
            recovery_version: Version(20),
        };
        let request = RecruitLog {
            recruitment,
            begin_version: Version(10),
            sources: Sources { logs: vec![(0, source.clone())], count: 1, replication: 1 },
            index: 0,
            logs: 1,
            replication: 1,
        };
        let error = worker.recruit_log(request).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unreachable, "{error}");
        assert_eq!(error.server(), Some(source.to_string().as_str()));
    }

    #[test]
    fn a_log_that_is_made_slowly_is_waited_for_and_one_that_stands_still_is_not() {
        let began = runtime::now();
        let mut seen = Seen { done: 0, since: began };
        let second = Duration::from_secs(1);
        let mut told = |done, at| seen.on_done(done, began + second * at);
        // The first batch has not come yet.
        assert_eq!([told(0, 2), told(0, 9)], [ErrorCode::TooBusy; 2]);
        assert_eq!([told(5, 11), told(5, 13), told(5, 20)], [ErrorCode::TooBusy; 3]);
        assert_eq!(told(5, 22), ErrorCode::TimedOut);
        assert_eq!(told(6, 23), ErrorCode::TooBusy);
    }
}
