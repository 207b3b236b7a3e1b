//! The logs of a process: one instance per generation, each in a directory of its own.
//!
//! Recruiting and retiring run one at a time in a task of their own, so that a caller that gives up half way, and comes
//! again, finds whole instances only. The same task looks once a second whether a disk that was full has space again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Generation, Result, Stage, Tag, Version, handler,
    runtime::{self, Disk, Task, disk::OpenMode},
    service::{
        ServiceKind,
        controller::{DISK_IS_FULL, Progress},
        log::{Log as LogRpc, LogService, PushRequest},
    },
    simulation::{Mark, Plant, mark, planted},
    transport::Router,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{
    recover::{self, Opened},
    server::{self, Instance, LogServer, Running},
    settings::LogSettings,
    state::State,
};

/// Calls that wait for the one under way.
const COMMANDS_MAX: usize = 64;

/// How often the store looks at its disk's space, and at logs whose disk was full.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where it is tried whether files can be made. Not a number, so that it is not taken for a generation.
const PROBE: &str = "probe";
const PROBE_BYTES: usize = 4_096;

/// All logs of a process. Dropping it ends them without waiting for their writes, as a kill would.
pub struct LogStore {
    hosted: Arc<Hosted>,
    commands: mpsc::Sender<Command>,
    _manager: Task,
}

/// The instances there are, by generation.
struct Hosted {
    router: Router,
    instances: Mutex<BTreeMap<Generation, (Arc<Instance>, Running)>>,
    /// Instances whose disk was full and that wait to be opened anew.
    closed: Mutex<BTreeMap<Generation, Arc<Instance>>>,
    /// Instances that could not be opened. They stay on disk, and are not made anew.
    damaged: Mutex<BTreeMap<Generation, Error>>,
    /// Why no new log can begin here: there is too little space.
    full: Mutex<Option<String>>,
    /// Why the last new log could not be made, until it is seen that files can be made again.
    refused: Mutex<Option<Error>>,
}

/// Which generations' logs are not needed any more.
#[derive(Clone, Debug, Default)]
pub struct Superseded {
    /// Only those after this one, if there is one.
    pub after: Option<Generation>,
    /// Only those before this one.
    pub before: Generation,
    /// Those are still needed.
    pub kept: BTreeSet<Generation>,
}

impl Superseded {
    fn has(&self, generation: Generation) -> bool {
        self.after.is_none_or(|after| after < generation)
            && generation < self.before
            && !self.kept.contains(&generation)
    }
}

enum Command {
    Recruit(Generation, Version, Vec<PushRequest>, oneshot::Sender<Result<u64>>),
    Retire(Superseded, oneshot::Sender<Result<()>>),
    ShutDown(oneshot::Sender<Result<()>>),
}

impl LogStore {
    /// Opens all instances of a directory, and offers each on `router`, under its own number.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::WrongDirectory`] if it was written by another release, [`ErrorCode::Disk`]. A damaged instance is
    /// only left out: other logs of its set may have what it had.
    pub async fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        settings: LogSettings,
        router: Router,
    ) -> Result<LogStore> {
        disk.create_directory(directory).await?;
        let hosted = Arc::new(Hosted {
            router,
            instances: Mutex::default(),
            closed: Mutex::default(),
            damaged: Mutex::default(),
            full: Mutex::default(),
            refused: Mutex::default(),
        });
        let manager = Manager {
            disk,
            directory: directory.to_owned(),
            settings,
            hosted: Arc::clone(&hosted),
            leftover: Mutex::default(),
        };
        manager.open_all().await?;
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let _manager = runtime::spawn(manager.run(received));
        Ok(LogStore { hosted, commands, _manager })
    }

    /// Makes the log of a generation, or finds it if it was made before, and appends what it takes over from the
    /// generation before. Returns the number under which it is reached, which stays the same across restarts.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] if the generation's log begins after another version; [`ErrorCode::Disk`].
    pub async fn recruit(
        &self,
        generation: Generation,
        begin_version: Version,
        taken_over: Vec<PushRequest>,
    ) -> Result<u64> {
        self.command(|reply| Command::Recruit(generation, begin_version, taken_over, reply)).await
    }

    /// Bytes that the log of a generation has synced since it was opened, and what may be taken for it while it syncs. Of all
    /// logs, while that one has its turn to be made still before it: what it waits for is done by the others.
    pub fn synced_bytes(&self, generation: Generation) -> u64 {
        let instances = self.hosted.instances.lock();
        match instances.get(&generation) {
            Some((instance, _)) => instance.synced_bytes(),
            None => instances.values().map(|(instance, _)| instance.synced_bytes()).sum(),
        }
    }

    /// Removes logs that are not needed any more, with their files.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Disk`]: those logs are not offered any more, but some files are left, and are removed later.
    pub async fn retire(&self, superseded: Superseded) -> Result<()> {
        self.command(|reply| Command::Retire(superseded, reply)).await
    }

    /// Forgets the messages of tags that nobody will read any more, so that they take up no space.
    pub fn forget(&self, is_removed: impl Fn(Tag) -> bool) {
        let instances: Vec<_> =
            self.hosted.instances.lock().values().map(|(i, _)| Arc::clone(i)).collect();
        instances.iter().for_each(|instance| instance.forget(&is_removed));
    }

    /// Why no log can work here, although the process lives: the disk has failed, or is full.
    pub fn trouble(&self) -> Option<String> {
        let failures: Vec<Error> = {
            let instances = self.hosted.instances.lock();
            instances.values().filter_map(|(i, _)| i.inspect(|log| log.failure())).collect()
        };
        let refused = self.hosted.refused.lock().clone();
        let failures = failures.into_iter().chain(refused);
        let (full, broken): (Vec<_>, Vec<_>) = failures.partition(is_full);
        if let Some(error) = broken.first() {
            return Some(error.to_string());
        }
        if planted(Plant::RecruitFullDisk) {
            return None;
        }
        let is_closed = !self.hosted.closed.lock().is_empty();
        let why = full.first().map(|error| error.detail().to_owned());
        let why = why.or_else(|| self.hosted.full.lock().clone());
        let why = why.or_else(|| is_closed.then(|| "a log of it is opened anew".to_owned()));
        why.map(|why| format!("{DISK_IS_FULL}: {why}"))
    }

    /// Stops offering the logs, and returns when nothing is being written any more.
    pub async fn shut_down(&self) {
        // The only error is that it happened before.
        let _ = self.command(Command::ShutDown).await;
    }

    /// The generations that can still commit here: neither locked nor on a disk that has failed.
    pub fn hosted_generations(&self) -> Vec<Generation> {
        let instances = self.hosted.instances.lock();
        let healthy =
            instances.iter().filter(|(_, (instance, _))| instance.inspect(|log| log.is_healthy()));
        healthy.map(|(generation, _)| *generation).collect()
    }

    /// The generations whose logs are here, also those in which nothing can be committed any more, and damaged ones: each is proof
    /// that its generation has begun.
    pub fn kept_generations(&self) -> Vec<Generation> {
        // Held until all have been looked at: none is missed while it goes from one place to the other.
        let closed = self.hosted.closed.lock();
        let mut kept: BTreeSet<_> = closed.keys().copied().collect();
        kept.extend(self.hosted.instances.lock().keys());
        kept.extend(self.hosted.damaged.lock().keys());
        drop(closed);
        kept.into_iter().collect()
    }

    /// How far the newest log is. Nothing, if there is none.
    pub fn progress(&self) -> Progress {
        let instances = self.hosted.instances.lock();
        instances.last_key_value().map(|(_, (instance, _))| instance.progress()).unwrap_or_default()
    }

    async fn command<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let shutting_down =
            || Error::new(ErrorCode::ShuttingDown, Stage::Process, "the logs are being shut down");
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_| shutting_down())?;
        answer.await.map_err(|_| shutting_down())?
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.hosted.take_all();
    }
}

fn is_full(error: &Error) -> bool {
    error.code() == ErrorCode::DiskFull
}

impl Hosted {
    fn take_all(&self) -> BTreeMap<Generation, (Arc<Instance>, Running)> {
        self.take(|_, _| true)
    }

    /// Takes some instances off the router.
    fn take(
        &self,
        is_taken: impl Fn(Generation, &Instance) -> bool,
    ) -> BTreeMap<Generation, (Arc<Instance>, Running)> {
        let mut instances = self.instances.lock();
        let found = instances.iter().filter(|(number, (instance, _))| is_taken(**number, instance));
        let found: Vec<Generation> = found.map(|(generation, _)| *generation).collect();
        let taken: BTreeMap<_, _> =
            found.into_iter().filter_map(|number| instances.remove_entry(&number)).collect();
        for (instance, _) in taken.values() {
            self.router.remove(ServiceKind::Log, instance.inspect(|log| log.instance()));
        }
        taken
    }
}

/// Makes and removes instances.
struct Manager {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    settings: LogSettings,
    hosted: Arc<Hosted>,
    /// Retired instances whose files could not be removed.
    leftover: Mutex<BTreeMap<Generation, Arc<Instance>>>,
}

impl Manager {
    async fn run(self, mut commands: mpsc::Receiver<Command>) {
        // A caller that has gone away needs no answer.
        let mut look_at = runtime::now() + LOOK_EVERY;
        loop {
            let until_look = look_at.saturating_duration_since(runtime::now());
            let command = tokio::select! {
                biased;
                () = runtime::sleep(until_look) => {
                    self.look_at_disk().await;
                    look_at = runtime::now() + LOOK_EVERY;
                    continue;
                }
                command = commands.recv() => command,
            };
            let Some(command) = command else { return };
            match command {
                // Nobody waits for it any more, and others do for what comes after it.
                Command::Recruit(.., reply) if reply.is_closed() => {}
                Command::Recruit(generation, begin_version, taken_over, mut reply) => {
                    let made =
                        self.recruit(generation, begin_version, taken_over, &mut reply).await;
                    let _ = reply.send(made);
                }
                Command::Retire(superseded, reply) => {
                    let _ = reply.send(self.retire(&superseded).await);
                }
                Command::ShutDown(reply) => {
                    self.shut_down(self.hosted.take_all()).await;
                    let _ = reply.send(Ok(()));
                    return;
                }
            }
        }
    }

    async fn open_all(&self) -> Result<()> {
        for name in self.disk.list(&self.directory).await? {
            let Ok(generation) = name.parse().map(Generation) else { continue };
            self.open_one(generation).await?;
        }
        Ok(())
    }

    /// Opens an instance, if it is one and is not damaged.
    async fn open_one(&self, generation: Generation) -> Result<()> {
        let directory = self.directory_of(generation);
        let opened = match recover::open(&*self.disk, &directory, &self.settings).await {
            Ok(Some(opened)) => self.check_generation(generation, &opened).map(|()| opened),
            Ok(None) => return Ok(()),
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => _ = self.host(generation, opened),
            Err(error) if error.code() == ErrorCode::Corrupt => {
                tracing::error!(%error, %generation, "a log is damaged, and is not offered");
                self.hosted.damaged.lock().insert(generation, error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    // Full disks.

    async fn look_at_disk(&self) {
        // A disk that does not say how much it has is found out by writing.
        if let Ok(space) = self.disk.space(&self.directory).await {
            let mut full = self.hosted.full.lock();
            let wanted = self.settings.reserve_bytes;
            // Twice the reserve, before it counts as having space again: a disk at the edge is of no use.
            let more = if full.is_some() { space.reserve(wanted) } else { 0 };
            let checked = space.check(&self.directory, more, wanted);
            if full.is_some() && checked.is_ok() {
                mark(Mark::SpaceAgain);
                tracing::info!("the disk has space again");
            }
            *full = checked.err().map(|error| error.detail().to_owned());
        }
        self.try_to_write().await;
        let failed = |_: Generation, instance: &Instance| {
            instance.inspect(|log| log.failure().is_some_and(|error| is_full(&error)))
        };
        let taken = {
            let mut closed = self.hosted.closed.lock();
            let taken = self.hosted.take(failed);
            closed.extend(
                taken.iter().map(|(number, (instance, _))| (*number, Arc::clone(instance))),
            );
            taken
        };
        self.shut_down(taken).await;
        let closed: Vec<_> = self.hosted.closed.lock().keys().copied().collect();
        for generation in closed {
            match self.open_one(generation).await {
                Ok(()) => _ = self.hosted.closed.lock().remove(&generation),
                Err(error) => tracing::warn!(%error, %generation, "a log cannot be opened anew"),
            }
        }
        let leftover = std::mem::take(&mut *self.leftover.lock());
        if let Err(error) = self.remove(leftover).await {
            tracing::debug!(%error, "files of old logs are still there");
        }
    }

    /// After a log could not be made: whether a file can be made now.
    async fn try_to_write(&self) {
        if self.hosted.refused.lock().is_none() {
            return;
        }
        let directory = self.directory.join(PROBE);
        let file = directory.join("probe");
        let tried = async {
            self.disk.remove_directory(&directory).await?;
            self.disk.create_directory(&directory).await?;
            let opened = self.disk.open(&file, OpenMode::New).await?;
            opened.write_and_sync(0, Bytes::from_static(&[0; PROBE_BYTES])).await?;
            drop(opened);
            self.disk.remove_directory(&directory).await
        };
        let tried: Result<()> = tried.await;
        match tried {
            Ok(()) => tracing::info!("new logs can be made again"),
            Err(error) => return tracing::debug!(%error, "no file can be made"),
        }
        *self.hosted.refused.lock() = None;
    }

    fn check_generation(&self, generation: Generation, opened: &Opened) -> Result<()> {
        let found = opened.log.generation();
        if found != generation {
            let directory = self.directory_of(generation);
            let detail =
                format!("{}: expected generation {generation}, found {found}", directory.display());
            return Err(Error::new(ErrorCode::Corrupt, Stage::Process, detail));
        }
        Ok(())
    }

    fn directory_of(&self, generation: Generation) -> PathBuf {
        self.directory.join(generation.to_string())
    }

    fn host(&self, generation: Generation, opened: Opened) -> u64 {
        let number = opened.log.instance();
        let directory = self.directory_of(generation);
        let (instance, mut running) =
            Instance::start(Arc::clone(&self.disk), directory, &self.settings, opened);
        let (metrics, weak) = (instance.metrics.clone(), Arc::downgrade(&instance));
        let labels = [("generation", generation.to_string())];
        let register = self.hosted.router.metrics();
        running.metrics = Some(register.register_with(&labels, metrics, move || {
            let instance = weak.upgrade();
            instance.iter().for_each(|instance| instance.set_gauges());
        }));
        let server = LogServer(Arc::clone(&instance));
        self.hosted.instances.lock().insert(generation, (instance, running));
        self.hosted.router.add::<LogService>(number, handler!(LogRpc, server));
        number
    }

    async fn recruit(
        &self,
        generation: Generation,
        begin_version: Version,
        taken_over: Vec<PushRequest>,
        reply: &mut oneshot::Sender<Result<u64>>,
    ) -> Result<u64> {
        let number = self.find_or_create(generation, begin_version).await?;
        let instance = self.hosted.instances.lock().get(&generation).map(|(i, _)| Arc::clone(i));
        if let Some(instance) = instance {
            // What was taken over by an earlier call is recognized as repeated.
            tokio::select! {
                biased;
                taken = instance.take_over(taken_over) => taken?,
                // Another recovery has begun. It must not wait until a slow disk has all that this one wanted.
                () = reply.closed() => {
                    let detail = "nobody waits for this log any more";
                    return Err(Error::new(ErrorCode::GenerationEnded, Stage::Log, detail));
                }
            }
        }
        Ok(number)
    }

    async fn find_or_create(&self, generation: Generation, begin_version: Version) -> Result<u64> {
        let damaged = self.hosted.damaged.lock().get(&generation).cloned();
        damaged.map_or(Ok(()), Err)?;
        let found = self
            .hosted
            .instances
            .lock()
            .get(&generation)
            .map(|(instance, _)| instance.inspect(|log| (log.instance(), log.begin_version())));
        match found {
            Some((number, found)) if found == begin_version => Ok(number),
            Some((_, found)) => {
                let detail = format!(
                    "the log of generation {generation} begins after {found}, not after {begin_version}"
                );
                Err(Error::new(ErrorCode::InvalidArgument, Stage::Process, detail))
            }
            None => {
                let full = self.hosted.full.lock().clone();
                if let Some(why) = full.filter(|_| !planted(Plant::RecruitFullDisk)) {
                    return Err(Error::new(ErrorCode::DiskFull, Stage::Process, why));
                }
                // Zero is the instance of services of which a process has just one.
                let number = runtime::random_u64().max(1);
                let state = State::new(number, generation, begin_version);
                let directory = self.directory_of(generation);
                let opened = recover::create(&*self.disk, &directory, state, &self.settings).await;
                // Said until it is over, or this process would be recruited again and again, and each time in vain.
                *self.hosted.refused.lock() = opened.as_ref().err().cloned();
                Ok(self.host(generation, opened?))
            }
        }
    }

    async fn retire(&self, superseded: &Superseded) -> Result<()> {
        let taken = self.hosted.take(|generation, _| superseded.has(generation));
        let mut retired = self.shut_down(taken).await;
        self.hosted.closed.lock().retain(|generation, instance| {
            let is_retired = superseded.has(*generation);
            if is_retired {
                retired.insert(*generation, Arc::clone(instance));
            }
            !is_retired
        });
        self.remove(retired).await
    }

    /// Removes the files of instances that have been shut down. Those that cannot be removed now are remembered.
    async fn remove(&self, retired: BTreeMap<Generation, Arc<Instance>>) -> Result<()> {
        let mut result = Ok(());
        for (generation, instance) in retired {
            let directory = self.directory_of(generation);
            if let Err(error) = server::remove(&*self.disk, &directory, &instance).await {
                self.leftover.lock().insert(generation, instance);
                result = Err(error);
            }
        }
        result
    }

    async fn shut_down(
        &self,
        taken: BTreeMap<Generation, (Arc<Instance>, Running)>,
    ) -> BTreeMap<Generation, Arc<Instance>> {
        let mut ended = BTreeMap::new();
        for (generation, (instance, running)) in taken {
            instance.shut_down(running).await;
            ended.insert(generation, instance);
        }
        ended
    }
}

#[cfg(test)]
mod tests;
