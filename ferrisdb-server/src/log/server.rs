//! The shell around the machine: calls, writes and files of one instance.
//!
//! ```text
//!   push, lock ...  --> step --> answers
//!                        |
//!                        +--> writes --> writer task: all there are, as one write and sync --> step(Synced)
//!                        +--> chores --> keeper task: the state file, removals          --> step(StatePersisted)
//! ```
//!
//! Two tasks, because a lock need not wait for the log's own writes to get into the state file. While the writer
//! is at the disk, further pushes gather: the slower the disk, the larger its groups.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use ferrisdb_core::{
    Error, ErrorCode, Generation, Result, Stage, Tag, Version,
    metrics::Registration,
    runtime::{self, Disk, Task, disk::OpenMode},
    service::{
        Health,
        controller::Progress,
        log::{
            CopyReply, CopyRequest, LockReply, LockRequest, Log as LogRpc, PeekReply, PeekRequest,
            PushReply, PushRequest,
        },
    },
};
use parking_lot::{Mutex, MutexGuard};
use tarpc::context::Context;
use tokio::sync::{
    Notify,
    oneshot::{self, error::TryRecvError},
};

use super::{
    copy,
    machine::{Effect, Input, Log, ReadPlan, Reply, ReplyTo},
    metrics::LogMetrics,
    pieces::{Pieces, SyncProgress},
    read,
    record::{Place, Record},
    recover::{Opened, Tail},
    segment::{self, SegmentHeader},
    settings::LogSettings,
    state::{self, State},
};

/// Bytes after which the writer syncs what it has, before it takes more.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a copy waits for the disk when what was being written before it fills the queue.
const COPY_PAUSE: Duration = Duration::from_millis(10);
/// Longest that a peek waits, whatever the reader asks for.
const PEEK_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a peek takes that finds nothing and never will. Keeps a reader from asking without pause.
const FINAL_PEEK_DELAY: Duration = Duration::from_millis(20);

/// One instance. Its service is [`LogServer`].
pub(super) struct Instance {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    extend_bytes: u64,
    segment_bytes: u64,
    reserve_bytes: u64,
    core: Mutex<Core>,
    has_writes: Notify,
    has_chores: Notify,
    /// For who wants to know whether the disk moves.
    progress: SyncProgress,
    pub(super) metrics: Arc<LogMetrics>,
}

/// The machine, and what its effects have left to do.
struct Core {
    log: Log,
    effects: Vec<Effect>,
    replies: BTreeMap<ReplyTo, oneshot::Sender<Outcome>>,
    next_reply: u64,
    writes: Vec<Write>,
    chores: VecDeque<Chore>,
    is_closing: bool,
}

/// What the writer does.
enum Write {
    BeginSegment(SegmentHeader),
    Append(Place, Record),
}

/// What the keeper does.
enum Chore {
    PersistState(State),
    RemoveSegments { first: u64, end: u64 },
}

/// What becomes of a call.
enum Outcome {
    Answer(Result<Reply>),
    ReadDisk(ReadPlan),
}

/// The tasks of an instance. Dropping them ends it at once.
pub(super) struct Running {
    pub(super) metrics: Option<Registration>,
    _tasks: [Task; 2],
    /// Resolve when the tasks have ended by themselves.
    ended: [oneshot::Receiver<()>; 2],
}

fn shutting_down() -> Error {
    Error::new(ErrorCode::ShuttingDown, Stage::Log, "the log is being shut down")
}

fn mixed_up(reply: &Reply) -> ! {
    panic!("the machine has answered another call: {reply:?}")
}

/// What became of a push of a copy.
fn check_pushed<E>(outcome: std::result::Result<Outcome, E>) -> Result<()> {
    match outcome.map_err(|_| shutting_down())? {
        Outcome::Answer(answer) => answer.map(drop),
        Outcome::ReadDisk(plan) => panic!("only peeks read the disk: {plan:?}"),
    }
}

impl Instance {
    /// Starts an instance.
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        settings: &LogSettings,
        opened: Opened,
    ) -> (Arc<Instance>, Running) {
        let instance = Arc::new(Instance {
            disk,
            directory,
            extend_bytes: settings.extend_bytes.max(1),
            segment_bytes: settings.segment_bytes,
            reserve_bytes: settings.reserve_bytes,
            core: Mutex::new(Core {
                log: opened.log,
                effects: Vec::new(),
                replies: BTreeMap::new(),
                next_reply: 0,
                writes: Vec::new(),
                chores: VecDeque::new(),
                is_closing: false,
            }),
            has_writes: Notify::new(),
            has_chores: Notify::new(),
            progress: SyncProgress::default(),
            metrics: Arc::default(),
        });
        let (writer_ends, writer_ended) = oneshot::channel();
        let (keeper_ends, keeper_ended) = oneshot::channel();
        let writer = Writer {
            instance: Arc::clone(&instance),
            tail: opened.tail,
            pieces: Pieces::default(),
        };
        let keeper = Arc::clone(&instance);
        let tasks = [
            // So that the disk never waits for the tasks of others before it is given the next group.
            runtime::spawn_apart("ferrisdb-log", async move {
                writer.run().await;
                drop(writer_ends);
            }),
            runtime::spawn(async move {
                keeper.keep().await;
                drop(keeper_ends);
            }),
        ];
        let running = Running { metrics: None, _tasks: tasks, ended: [writer_ended, keeper_ended] };
        (instance, running)
    }

    /// Looks at the machine.
    pub(super) fn inspect<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.core.lock().log)
    }

    /// How far the log is.
    pub(super) fn progress(&self) -> Progress {
        self.inspect(|log| Progress {
            version: log.durable_version(),
            durable_version: log.known_committed_version(),
            bytes: log.bytes(),
        })
    }

    /// Copies what the machine knows into the gauges.
    pub(super) fn set_gauges(&self) {
        let (disk_bytes, memory_bytes) = self.inspect(|log| (log.bytes(), log.memory_bytes()));
        self.metrics.disk.set(disk_bytes);
        self.metrics.memory.set(memory_bytes);
    }

    /// Refuses further calls, and returns when nothing is being written any more.
    pub(super) async fn shut_down(&self, running: Running) {
        {
            let mut core = self.core.lock();
            core.is_closing = true;
            core.replies.clear();
        }
        self.has_writes.notify_one();
        self.has_chores.notify_one();
        for ended in running.ended {
            // The sender is dropped at the end, never used.
            let _ = ended.await;
        }
    }

    /// Gives the machine an input and takes its effects.
    fn step(&self, input: Input) {
        let mut core = self.core.lock();
        core.step(input);
        self.wake_tasks(core);
    }

    /// A call: gives the machine an input that it will answer.
    fn call(
        &self,
        input: impl FnOnce(ReplyTo) -> Input,
    ) -> Result<(ReplyTo, oneshot::Receiver<Outcome>)> {
        let (sender, receiver) = oneshot::channel();
        let mut core = self.core.lock();
        // Under the same lock as the step: the writer must not end between the two.
        if core.is_closing {
            return Err(shutting_down());
        }
        let reply_to = ReplyTo(core.next_reply);
        core.next_reply += 1;
        core.replies.insert(reply_to, sender);
        core.step(input(reply_to));
        self.wake_tasks(core);
        Ok((reply_to, receiver))
    }

    /// Lets go of the core and wakes whoever has something to do.
    fn wake_tasks(&self, core: MutexGuard<'_, Core>) {
        let (has_writes, has_chores) = (!core.writes.is_empty(), !core.chores.is_empty());
        drop(core);
        if has_writes {
            self.has_writes.notify_one();
        }
        if has_chores {
            self.has_chores.notify_one();
        }
    }

    async fn answer_of(&self, input: impl FnOnce(ReplyTo) -> Input) -> Result<Reply> {
        let (_, outcome) = self.call(input)?;
        match outcome.await.map_err(|_| shutting_down())? {
            Outcome::Answer(answer) => answer,
            Outcome::ReadDisk(plan) => panic!("only peeks read the disk: {plan:?}"),
        }
    }

    // The calls.

    async fn push(&self, request: PushRequest) -> Result<PushReply> {
        match self.answer_of(|reply_to| Input::Push { request, reply_to }).await? {
            Reply::Push(reply) => Ok(reply),
            other => mixed_up(&other),
        }
    }

    async fn lock(&self, request: LockRequest) -> Result<LockReply> {
        match self.answer_of(|reply_to| Input::Lock { request, reply_to }).await? {
            Reply::Lock(reply) => Ok(reply),
            other => mixed_up(&other),
        }
    }

    async fn copy(&self, request: CopyRequest) -> Result<CopyReply> {
        match self.inspect(|log| log.plan_copy(&request))? {
            Some(plan) => copy::read(&*self.disk, &self.directory, &plan, &request).await,
            None => Ok(CopyReply { batches: Vec::new(), through_version: request.through_version }),
        }
    }

    /// Appends batches of the generation before, and returns when they are on disk. However many there are: no more are
    /// under way than the queue takes.
    pub(super) async fn take_over(&self, pushes: Vec<PushRequest>) -> Result<()> {
        let mut under_way = VecDeque::new();
        for push in pushes {
            loop {
                let request = push.clone();
                let (_, mut outcome) = self.call(|reply_to| Input::Push { request, reply_to })?;
                match outcome.try_recv() {
                    Err(TryRecvError::Empty) => {
                        under_way.push_back(outcome);
                        break;
                    }
                    Ok(Outcome::Answer(Err(busy))) if busy.code() == ErrorCode::TooBusy => {
                        match under_way.pop_front() {
                            Some(outcome) => check_pushed(outcome.await)?,
                            // Of a call before this one, which was given up.
                            None => runtime::sleep(COPY_PAUSE).await,
                        }
                    }
                    answered => {
                        check_pushed(answered.map_err(|_| ()))?;
                        break;
                    }
                }
            }
        }
        for outcome in under_way {
            check_pushed(outcome.await)?;
        }
        Ok(())
    }

    /// Bytes that were synced since the start, and what may be taken for it.
    pub(super) fn synced_bytes(&self) -> u64 {
        self.progress.bytes(runtime::now())
    }

    fn health(&self, generation: Generation) -> Result<Health> {
        let has_work = self.inspect(|log| {
            log.confirm(generation)?;
            Ok::<_, Error>(log.unsynced_bytes() > 0)
        })?;
        Ok(Health { has_work, progress: self.synced_bytes() })
    }

    /// Forgets the messages of tags that nobody will read any more.
    pub(super) fn forget(&self, is_removed: &dyn Fn(Tag) -> bool) {
        for tag in self.inspect(Log::tags).into_iter().filter(|tag| is_removed(*tag)) {
            self.step(Input::Pop { tag, through_version: Version::MAX });
        }
    }

    async fn peek(&self, request: PeekRequest) -> Result<PeekReply> {
        loop {
            let plan = match self.wait_for_news(request).await? {
                Outcome::Answer(answer) => match answer? {
                    Reply::Peek(reply) => return Ok(self.pace(&request, reply).await),
                    other => mixed_up(&other),
                },
                Outcome::ReadDisk(plan) => plan,
            };
            self.metrics.disk_peeks.increment();
            match read::read(&*self.disk, &self.directory, &plan).await {
                // The segment was given up meanwhile. Each time round there is one less.
                Err(_) if !self.inspect(|log| log.has_segment(plan.extent.segment)) => {}
                read => return read,
            }
        }
    }

    async fn wait_for_news(&self, request: PeekRequest) -> Result<Outcome> {
        let (reply_to, mut outcome) = self.call(|reply_to| Input::Peek { request, reply_to })?;
        if let Ok(outcome) = outcome.try_recv() {
            return Ok(outcome);
        }
        let _waiting = WaitingPeek { instance: self, reply_to };
        let wait = Duration::from_millis(request.wait_ms.into()).min(PEEK_WAIT_MAX);
        let outcome = match runtime::timeout(wait, Stage::Log, &mut outcome).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.step(Input::PeekExpired { reply_to });
                outcome.await
            }
        };
        outcome.map_err(|_| shutting_down())
    }

    /// A reader that has all of a locked log is answered at once, but not in a tight circle.
    async fn pace(&self, request: &PeekRequest, reply: PeekReply) -> PeekReply {
        if reply.locked && reply.through_version <= request.after_version {
            let wait = Duration::from_millis(request.wait_ms.into());
            runtime::sleep(wait.min(FINAL_PEEK_DELAY)).await;
        }
        reply
    }

    // The keeper.

    async fn keep(&self) {
        loop {
            let next = {
                let mut core = self.core.lock();
                if core.chores.is_empty() && core.is_closing {
                    return;
                }
                core.chores.pop_front()
            };
            match next {
                None => self.has_chores.notified().await,
                Some(Chore::PersistState(state)) => {
                    let path = self.directory.join(state::FILE_NAME);
                    match self.disk.replace(&path, state.encode()).await {
                        Ok(()) => self.step(Input::StatePersisted),
                        Err(error) => return self.fail(error),
                    }
                }
                Some(Chore::RemoveSegments { first, end }) => {
                    for number in first..end {
                        self.remove_segment(number).await;
                    }
                }
            }
        }
    }

    async fn remove_segment(&self, number: u64) {
        let path = self.directory.join(segment::file_name(number));
        if let Err(error) = self.disk.remove(&path).await {
            // It takes space, no more: the next start removes what the state has given up.
            tracing::warn!(%error, "a segment could not be removed");
        }
    }

    fn fail(&self, error: Error) {
        tracing::error!(directory = %self.directory.display(), %error, "the log's disk has failed");
        self.step(Input::DiskFailed { error });
    }
}

impl Core {
    fn step(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.log.step(input, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::BeginSegment(header) => self.writes.push(Write::BeginSegment(header)),
                Effect::Append(place, record) => self.writes.push(Write::Append(place, record)),
                Effect::PersistState(state) => self.chores.push_back(Chore::PersistState(state)),
                Effect::RemoveSegments { first, end } => {
                    self.chores.push_back(Chore::RemoveSegments { first, end });
                }
                Effect::Answer(reply_to, answer) => self.reply(reply_to, Outcome::Answer(answer)),
                Effect::ReadDisk(reply_to, plan) => self.reply(reply_to, Outcome::ReadDisk(plan)),
            }
        }
        self.effects = effects;
    }

    fn reply(&mut self, reply_to: ReplyTo, outcome: Outcome) {
        if let Some(sender) = self.replies.remove(&reply_to) {
            // A caller that has gone away needs no answer.
            let _ = sender.send(outcome);
        }
    }
}

/// Takes a reader off the machine's list when its call is dropped.
struct WaitingPeek<'a> {
    instance: &'a Instance,
    reply_to: ReplyTo,
}

impl Drop for WaitingPeek<'_> {
    fn drop(&mut self) {
        let is_waiting = self.instance.core.lock().replies.remove(&self.reply_to).is_some();
        if is_waiting {
            self.instance.step(Input::PeekExpired { reply_to: self.reply_to });
        }
    }
}

/// The task that writes.
struct Writer {
    instance: Arc<Instance>,
    tail: Tail,
    pieces: Pieces,
}

/// Records that are written and synced together, and go to the end of the active segment.
#[derive(Default)]
struct Group {
    buffer: BytesMut,
    records: u64,
    through_version: Option<Version>,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let (writes, is_closing) = {
                let mut core = self.instance.core.lock();
                (std::mem::take(&mut core.writes), core.is_closing)
            };
            if !writes.is_empty() {
                if let Err(error) = self.write(writes).await {
                    return self.instance.fail(error);
                }
            } else if is_closing {
                return;
            } else {
                self.instance.has_writes.notified().await;
            }
        }
    }

    async fn write(&mut self, writes: Vec<Write>) -> Result<()> {
        let mut group = Group::default();
        for write in writes {
            match write {
                Write::BeginSegment(header) => {
                    self.flush(&mut group).await?;
                    self.tail = self.begin_segment(&header).await?;
                    header.encode(&mut group.buffer);
                }
                Write::Append(place, record) => {
                    let end = self.tail.end + group.buffer.len() as u64;
                    assert!(place.offset == end, "{place:?} is not the end {end} of the segment");
                    record.encode(&place, self.tail.end, &mut group.buffer);
                    group.through_version = Some(record.commit_version);
                    group.records += 1;
                    if group.buffer.len() >= GROUP_BYTES_MAX {
                        self.flush(&mut group).await?;
                    }
                }
            }
        }
        self.flush(&mut group).await
    }

    /// All that was appended before is on disk.
    async fn begin_segment(&self, header: &SegmentHeader) -> Result<Tail> {
        let path = self.instance.directory.join(segment::file_name(header.segment));
        let file = self.instance.disk.open(&path, OpenMode::New).await?;
        Ok(Tail { file, end: 0, file_bytes: 0 })
    }

    async fn flush(&mut self, group: &mut Group) -> Result<()> {
        let Some(through_version) = group.through_version.take() else { return Ok(()) };
        let mut buffer = std::mem::take(&mut group.buffer);
        let tail = &mut self.tail;
        let (begin, end) = (tail.end, tail.end + buffer.len() as u64);
        if end > tail.file_bytes {
            let extended = end.next_multiple_of(self.instance.extend_bytes);
            let file_bytes = extended.min(self.instance.segment_bytes).max(end);
            let Instance { disk, directory, reserve_bytes, .. } = &*self.instance;
            disk.space(directory).await?.check(directory, file_bytes - begin, *reserve_bytes)?;
            tail.file_bytes = file_bytes;
            buffer.put_bytes(0, (tail.file_bytes - end) as usize);
        }
        let metrics = &self.instance.metrics;
        metrics.group_size.record(std::mem::take(&mut group.records));
        metrics.written.add(end - begin);
        let (mut offset, mut rest) = (begin, buffer.freeze());
        while !rest.is_empty() {
            let part = rest.split_to(self.pieces.next(rest.len()));
            let (bytes, began) = (part.len(), runtime::now());
            self.instance.progress.begin(bytes, began);
            metrics.sync.time(tail.file.write_and_sync(offset, part)).await?;
            self.instance.progress.end();
            self.pieces.on_synced(bytes, runtime::now().saturating_duration_since(began));
            offset += bytes as u64;
        }
        tail.end = end;
        self.instance.step(Input::Synced { through_version });
        Ok(())
    }
}

/// The service of an instance.
#[derive(Clone)]
pub(super) struct LogServer(pub(super) Arc<Instance>);

impl LogRpc for LogServer {
    async fn push(self, _: Context, request: PushRequest) -> Result<PushReply> {
        self.0.metrics.pushes.increment();
        self.0.metrics.push.time(self.0.push(request)).await
    }

    async fn peek(self, _: Context, request: PeekRequest) -> Result<PeekReply> {
        self.0.metrics.peeks.increment();
        self.0.metrics.peek.time(self.0.peek(request)).await
    }

    async fn pop(self, _: Context, tag: Tag, through_version: Version) -> Result<()> {
        self.0.step(Input::Pop { tag, through_version });
        Ok(())
    }

    async fn lock(self, _: Context, request: LockRequest) -> Result<LockReply> {
        self.0.lock(request).await
    }

    async fn copy(self, _: Context, request: CopyRequest) -> Result<CopyReply> {
        self.0.copy(request).await
    }

    async fn confirm(self, _: Context, generation: Generation) -> Result<()> {
        self.0.metrics.confirms.increment();
        self.0.inspect(|log| log.confirm(generation))
    }

    async fn health(self, _: Context, generation: Generation) -> Result<Health> {
        self.0.health(generation)
    }
}

/// Removes what an instance that has been shut down leaves on disk.
pub(super) async fn remove(disk: &dyn Disk, directory: &Path, instance: &Instance) -> Result<()> {
    // The state says so first: a directory that is half gone must not look like a damaged log.
    let state = instance.inspect(Log::retired_state);
    disk.replace(&directory.join(state::FILE_NAME), state.encode()).await?;
    let names = disk.list(directory).await?;
    let segments = names.iter().filter_map(|name| segment::number_of(name)).collect();
    super::recover::remove_retired(disk, directory, segments).await
}
