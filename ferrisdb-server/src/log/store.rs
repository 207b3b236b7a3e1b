//! The logs of a process: one instance per generation, each in a directory of its own.
//!
//! Recruiting and retiring run one at a time in a task of their own, so that a caller that gives up half way, and comes
//! again, finds whole instances only.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use ferrisdb_core::{
    Error, ErrorCode, Generation, Result, Stage, Tag, Version, handler,
    runtime::{self, Disk, Task},
    service::{
        ServiceKind,
        controller::Progress,
        log::{Log as LogRpc, LogService, PushRequest},
    },
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
}

enum Command {
    Recruit(Generation, Version, Vec<PushRequest>, oneshot::Sender<Result<u64>>),
    Retire(Generation, oneshot::Sender<Result<()>>),
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
        let hosted = Arc::new(Hosted { router, instances: Mutex::default() });
        let directory = directory.to_owned();
        let (hosting, damaged) = (Arc::clone(&hosted), Mutex::default());
        let manager = Manager { disk, directory, settings, hosted: hosting, damaged };
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

    /// Bytes that the log of a generation has synced since it was opened.
    pub fn synced_bytes(&self, generation: Generation) -> u64 {
        let instances = self.hosted.instances.lock();
        instances.get(&generation).map_or(0, |(instance, _)| instance.synced_bytes())
    }

    /// Removes the logs of generations before `oldest_kept`, with their files.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Disk`]: those logs are not offered any more, but some files may be left until the next start.
    pub async fn retire(&self, oldest_kept: Generation) -> Result<()> {
        self.command(|reply| Command::Retire(oldest_kept, reply)).await
    }

    /// Forgets the messages of tags that nobody will read any more, so that they take up no space.
    pub fn forget(&self, is_removed: impl Fn(Tag) -> bool) {
        let instances: Vec<_> =
            self.hosted.instances.lock().values().map(|(i, _)| Arc::clone(i)).collect();
        instances.iter().for_each(|instance| instance.forget(&is_removed));
    }

    /// Why no log can work here, although the process lives: the disk has failed.
    pub fn trouble(&self) -> Option<String> {
        let instances = self.hosted.instances.lock();
        let failures = instances.values().filter_map(|(i, _)| i.inspect(|log| log.failure()));
        failures.map(|error| error.to_string()).next()
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
        self.hosted.take_before(None);
    }
}

impl Hosted {
    /// Takes the instances before a generation, or all, off the router.
    fn take_before(
        &self,
        oldest_kept: Option<Generation>,
    ) -> BTreeMap<Generation, (Arc<Instance>, Running)> {
        let mut instances = self.instances.lock();
        let kept = oldest_kept.map_or_else(BTreeMap::new, |oldest| instances.split_off(&oldest));
        let taken = std::mem::replace(&mut *instances, kept);
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
    /// Instances that could not be opened. They stay on disk, and are not made anew.
    damaged: Mutex<BTreeMap<Generation, Error>>,
}

impl Manager {
    async fn run(self, mut commands: mpsc::Receiver<Command>) {
        // A caller that has gone away needs no answer.
        while let Some(command) = commands.recv().await {
            match command {
                Command::Recruit(generation, begin_version, taken_over, reply) => {
                    let _ = reply.send(self.recruit(generation, begin_version, taken_over).await);
                }
                Command::Retire(oldest_kept, reply) => {
                    let _ = reply.send(self.retire(oldest_kept).await);
                }
                Command::ShutDown(reply) => {
                    self.shut_down_before(None).await;
                    let _ = reply.send(Ok(()));
                    return;
                }
            }
        }
    }

    async fn open_all(&self) -> Result<()> {
        for name in self.disk.list(&self.directory).await? {
            let Ok(generation) = name.parse().map(Generation) else { continue };
            let directory = self.directory_of(generation);
            let opened = match recover::open(&*self.disk, &directory, &self.settings).await {
                Ok(Some(opened)) => self.check_generation(generation, &opened).map(|()| opened),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match opened {
                Ok(opened) => _ = self.host(generation, opened),
                Err(error) if error.code() == ErrorCode::Corrupt => {
                    tracing::error!(%error, %generation, "a log is damaged, and is not offered");
                    self.damaged.lock().insert(generation, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
    ) -> Result<u64> {
        let number = self.find_or_create(generation, begin_version).await?;
        let instance = self.hosted.instances.lock().get(&generation).map(|(i, _)| Arc::clone(i));
        if let Some(instance) = instance {
            // What was taken over by an earlier call is recognized as repeated.
            instance.take_over(taken_over).await?;
        }
        Ok(number)
    }

    async fn find_or_create(&self, generation: Generation, begin_version: Version) -> Result<u64> {
        let damaged = self.damaged.lock().get(&generation).cloned();
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
                // Zero is the instance of services of which a process has just one.
                let number = runtime::random_u64().max(1);
                let state = State::new(number, generation, begin_version);
                let directory = self.directory_of(generation);
                let opened =
                    recover::create(&*self.disk, &directory, state, &self.settings).await?;
                Ok(self.host(generation, opened))
            }
        }
    }

    async fn retire(&self, oldest_kept: Generation) -> Result<()> {
        for (generation, instance) in self.shut_down_before(Some(oldest_kept)).await {
            server::remove(&*self.disk, &self.directory_of(generation), &instance).await?;
        }
        Ok(())
    }

    async fn shut_down_before(
        &self,
        oldest_kept: Option<Generation>,
    ) -> Vec<(Generation, Arc<Instance>)> {
        let mut taken = Vec::new();
        for (generation, (instance, running)) in self.hosted.take_before(oldest_kept) {
            instance.shut_down(running).await;
            taken.push((generation, instance));
        }
        taken
    }
}

#[cfg(test)]
mod tests;
