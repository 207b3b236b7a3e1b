//! Whole logs: over a disk in memory that crashes, against a model, and over real files.

use std::time::Duration;

use bytes::Bytes;
use ferrisdb_core::{
    ClusterId, Endpoint, Tag,
    id::Address,
    runtime::disk::{FileSystem, MemoryDisk},
    service::{
        Client,
        log::{
            CopyRequest, LockReply, LockRequest, LogService, PeekReply, PeekRequest, PushReply,
            PushRequest,
        },
        worker::{RecruitLog, Recruitment, Sources},
    },
    transport::{Network, call},
};
use proptest::prelude::*;

use super::*;
use crate::log::{copy, segment};

const GENERATION: Generation = Generation(3);
const BEGIN: Version = Version(100);

/// A process with logs, and a client of the log of [`GENERATION`].
struct Process {
    store: LogStore,
    network: Network,
    number: u64,
    client: Client<LogService>,
}

fn address() -> Address {
    Address::new("here:1")
}

impl Process {
    async fn start(disk: Arc<dyn Disk>, directory: &Path, settings: &LogSettings) -> Process {
        let router = Router::new();
        let network = Network::new();
        network.add_local(address(), router.clone());
        let store = LogStore::open(disk, directory, settings.clone(), router).await.unwrap();
        let number = store.recruit(GENERATION, BEGIN, Vec::new()).await.unwrap();
        let endpoint = Endpoint { address: address(), instance: number };
        let client = network.connect::<LogService>(&endpoint).await.unwrap();
        Process { store, network, number, client }
    }

    async fn push(&self, request: PushRequest) -> Result<PushReply> {
        push(&self.client, request).await
    }

    async fn peek(&self, request: PeekRequest) -> Result<PeekReply> {
        call(LIMIT, Stage::Log, |context| self.client.peek(context, request)).await?
    }

    async fn pop(&self, tag: Tag, through_version: Version) {
        let popped =
            call(LIMIT, Stage::Log, |context| self.client.pop(context, tag, through_version));
        popped.await.unwrap().unwrap();
    }

    async fn lock(&self, generation: Generation) -> Result<LockReply> {
        let request = LockRequest { generation, metadata_after: Version(0) };
        call(LIMIT, Stage::Log, |context| self.client.lock(context, request)).await?
    }

    /// All of a tag's messages after a version, in as many steps as it takes.
    async fn read_all(
        &self,
        tag: Tag,
        after_version: Version,
        durable_version: Version,
    ) -> Vec<(Version, Bytes)> {
        let mut found = Vec::new();
        let mut after_version = after_version;
        while after_version < durable_version {
            let request = PeekRequest { tag, after_version, bytes_max: 30, wait_ms: 0 };
            let reply = self.peek(request).await.unwrap();
            assert!(reply.through_version > after_version, "{reply:?} is no progress");
            assert!(reply.through_version <= durable_version);
            after_version = reply.through_version;
            found.extend(reply.messages);
        }
        found
    }
}

const LIMIT: Duration = Duration::from_secs(30);

async fn push(client: &Client<LogService>, request: PushRequest) -> Result<PushReply> {
    call(LIMIT, Stage::Log, |context| client.push(context, request)).await?
}

fn request(previous: Version, commit: Version, messages: &[(u32, usize)]) -> PushRequest {
    PushRequest {
        generation: GENERATION,
        previous_version: previous,
        commit_version: commit,
        known_committed_version: previous,
        messages: messages
            .iter()
            .map(|(tag, bytes)| (Tag(*tag), Bytes::from(vec![commit.0 as u8 | 1; *bytes])))
            .collect(),
    }
}

/// Everything small, so that a few pushes fill memory, segments and index.
fn before(generation: u64) -> Superseded {
    Superseded { before: Generation(generation), ..Superseded::default() }
}

fn small() -> LogSettings {
    LogSettings {
        segment_bytes: 900,
        extend_bytes: 128,
        memory_bytes_max: 600,
        index_spacing_bytes: 200,
        index_entries_max: 8,
        ..LogSettings::default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Batches pushed together, the later ones first. Each has messages: tag and length.
    Push(Vec<Vec<(u32, usize)>>),
    /// Pops a tag through the batch of this index.
    Pop(u32, prop::sample::Index),
    /// Reads a tag after the batch of this index.
    Read(u32, prop::sample::Index),
    /// A power failure, with so many bytes of a write torn.
    Crash(Vec<u8>),
    Restart,
}

fn messages() -> impl Strategy<Value = Vec<(u32, usize)>> {
    let by_tag = prop::collection::btree_map(0..3u32, 1..150usize, 0..3);
    by_tag.prop_map(|messages| messages.into_iter().collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(messages(), 1..5).prop_map(Step::Push),
        2 => (0..3u32, any::<prop::sample::Index>()).prop_map(|(tag, index)| Step::Pop(tag, index)),
        4 => (0..3u32, any::<prop::sample::Index>()).prop_map(|(tag, index)| Step::Read(tag, index)),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

/// What was acknowledged, in order.
#[derive(Default)]
struct Model {
    batches: Vec<PushRequest>,
    popped: BTreeMap<Tag, Version>,
}

impl Model {
    fn last_version(&self) -> Version {
        self.batches.last().map_or(BEGIN, |batch| batch.commit_version)
    }

    /// A version that exists: of a batch, or the beginning.
    fn version(&self, index: &prop::sample::Index) -> Version {
        match index.index(self.batches.len() + 1) {
            0 => BEGIN,
            batch => self.batches[batch - 1].commit_version,
        }
    }

    fn messages(&self, tag: Tag, after_version: Version) -> Vec<(Version, Bytes)> {
        let batches = self.batches.iter().filter(|batch| batch.commit_version > after_version);
        let messages = batches.flat_map(|batch| {
            let of_tag = batch.messages.iter().filter(|(other, _)| *other == tag);
            of_tag.map(|(_, message)| (batch.commit_version, message.clone()))
        });
        messages.collect()
    }

    /// Compares what a reader gets with what it should. Popped messages may be there or not.
    async fn check(&self, process: &Process, tag: Tag, after_version: Version) {
        let popped_version = self.popped.get(&tag).copied().unwrap_or(BEGIN).max(after_version);
        let mut found = process.read_all(tag, after_version, self.last_version()).await;
        found.retain(|(version, _)| *version > popped_version);
        assert_eq!(found, self.messages(tag, popped_version), "tag {tag} after {after_version}");
    }
}

/// Leaves the beginning of a write behind the log's end that never was acknowledged.
async fn tear(disk: &MemoryDisk, directory: &Path, torn: Vec<u8>) {
    let names = disk.list(directory).await.unwrap();
    let last = names.iter().filter_map(|name| segment::number_of(name)).max().unwrap();
    let path = directory.join(segment::file_name(last));
    let file = disk.open(&path, runtime::disk::OpenMode::Existing).await.unwrap();
    let contents = disk.read(&path).await.unwrap().unwrap();
    let end = contents.iter().rposition(|byte| *byte != 0).unwrap();
    // A record may end in zeros, but in fewer than this.
    file.write_and_sync(end as u64 + 16, Bytes::from(torn)).await.unwrap();
}

async fn run_model(steps: Vec<Step>) {
    let disk = MemoryDisk::new();
    let directory = Path::new("logs");
    let settings = small();
    let start = || Process::start(Arc::new(disk.clone()), directory, &settings);
    let mut process = start().await;
    let number = process.number;
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Push(batches) => {
                let mut previous = model.last_version();
                let mut requests = Vec::new();
                for messages in batches {
                    let commit = Version(previous.0 + 1 + messages.len() as u64);
                    requests.push(request(previous, commit, &messages));
                    previous = commit;
                }
                let pushes = requests.iter().rev().map(|request| process.push(request.clone()));
                for (reply, request) in
                    futures::future::join_all(pushes).await.iter().zip(requests.iter().rev())
                {
                    let durable_version = reply.as_ref().unwrap().durable_version;
                    assert!(durable_version >= request.commit_version, "(I-5)");
                }
                model.batches.extend(requests);
            }
            Step::Pop(tag, index) => {
                let (tag, through_version) = (Tag(tag), model.version(&index));
                process.pop(tag, through_version).await;
                let popped = model.popped.entry(tag).or_insert(BEGIN);
                *popped = through_version.max(*popped);
            }
            Step::Read(tag, index) => {
                model.check(&process, Tag(tag), model.version(&index)).await;
            }
            Step::Crash(torn) => {
                drop(process);
                disk.crash();
                let of_generation = directory.join(GENERATION.to_string());
                tear(&disk, &of_generation, torn).await;
                process = start().await;
            }
            Step::Restart => {
                process.store.shut_down().await;
                process = start().await;
            }
        }
        assert_eq!(process.number, number, "the instance stays the same");
        assert_eq!(process.store.progress().version, model.last_version());
    }
    for tag in 0..3 {
        model.check(&process, Tag(tag), BEGIN).await;
    }
    let locked = process.lock(GENERATION.next()).await.unwrap();
    assert_eq!(locked.durable_version, model.last_version());
    drop(process);
    disk.crash();
    let process = start().await;
    let late = request(model.last_version(), Version::MAX, &[]);
    assert_eq!(process.push(late).await.unwrap_err().code(), ErrorCode::GenerationEnded, "(I-8)");
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_acknowledged_is_read_back(steps in prop::collection::vec(step(), 1..40)) {
        block_on(run_model(steps));
    }
}

#[test]
fn real_files() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(FileSystem);
        let settings = LogSettings { segment_bytes: 10_000, extend_bytes: 4096, ..small() };
        let mut process = Process::start(Arc::clone(&disk), directory.path(), &settings).await;
        let mut model = Model::default();
        for round in 0..3 {
            for _ in 0..50 {
                let previous = model.last_version();
                let batch = request(previous, Version(previous.0 + 5), &[(1, 100), (2, 300)]);
                process.push(batch.clone()).await.unwrap();
                model.batches.push(batch);
            }
            model.check(&process, Tag(2), BEGIN).await;
            process.pop(Tag(1), model.last_version()).await;
            let through_version = Version(BEGIN.0 + 5 * 50 * round);
            process.pop(Tag(2), through_version).await;
            model.popped.insert(Tag(2), through_version);
            process.store.shut_down().await;
            process = Process::start(Arc::clone(&disk), directory.path(), &settings).await;
            assert_eq!(process.store.progress().version, model.last_version());
        }
        model.check(&process, Tag(2), BEGIN).await;
        let files = disk.list(&directory.path().join("3")).await.unwrap();
        assert!(!files.contains(&"00000000.log".to_owned()), "{files:?}");
    });
}

#[test]
fn a_copy_may_be_longer_than_the_queue() {
    block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let settings = LogSettings { unsynced_bytes_max: 300, early_pushes_max: 1, ..small() };
        let process = Process::start(disk, Path::new("logs"), &settings).await;
        let batch = |number| request(Version(number), Version(number + 1), &[(1, 200)]);
        let batches: Vec<_> = (100..160).map(batch).collect();
        // As often as the call is repeated.
        for _ in 0..2 {
            process.store.recruit(GENERATION, BEGIN, batches.clone()).await.unwrap();
        }
        assert_eq!(process.store.progress().version, Version(160));
        assert!(process.store.synced_bytes(GENERATION) > 60 * 200);
        let ask = || call(LIMIT, Stage::Log, |context| process.client.health(context, GENERATION));
        let health = ask().await.unwrap().unwrap();
        assert!(!health.has_work && health.progress > 60 * 200, "{health:?}");
        process.lock(Generation(4)).await.unwrap();
        assert_eq!(ask().await.unwrap().unwrap_err().code(), ErrorCode::GenerationEnded);
    });
}

#[test]
fn a_waiting_reader_gets_the_next_push() {
    block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let process = Process::start(disk, Path::new("logs"), &small()).await;
        let wanted =
            PeekRequest { tag: Tag(1), after_version: BEGIN, bytes_max: 99, wait_ms: 20_000 };
        let batch = request(BEGIN, Version(101), &[(1, 4)]);
        let (peeked, pushed) = tokio::join!(process.peek(wanted), process.push(batch.clone()));
        pushed.unwrap();
        let peeked = peeked.unwrap();
        assert_eq!(peeked.messages, [(Version(101), batch.messages[0].1.clone())]);
        let patient = PeekRequest { after_version: Version(101), wait_ms: 1, ..wanted };
        let peeked = process.peek(patient).await.unwrap();
        assert_eq!((peeked.messages.len(), peeked.through_version), (0, Version(101)));
    });
}

#[test]
fn a_reader_that_hangs_up_is_not_waited_for() {
    block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let settings = LogSettings { waiting_peeks_max: 1, ..small() };
        let process = Process::start(disk, Path::new("logs"), &settings).await;
        let patient =
            PeekRequest { tag: Tag(1), after_version: BEGIN, bytes_max: 99, wait_ms: 60_000 };
        for _ in 0..3 {
            let endpoint = Endpoint { address: address(), instance: process.number };
            let other = process.network.connect::<LogService>(&endpoint).await.unwrap();
            let hung_up =
                call(Duration::from_millis(1), Stage::Log, |context| other.peek(context, patient));
            assert_eq!(hung_up.await.unwrap_err().code(), ErrorCode::TimedOut);
            // The connection carries the end of the call to the log before it carries this.
            let confirmed = call(LIMIT, Stage::Log, |context| other.confirm(context, GENERATION));
            confirmed.await.unwrap().unwrap();
        }
        let impatient = PeekRequest { wait_ms: 1, ..patient };
        process.peek(impatient).await.unwrap();
    });
}

#[test]
fn generations_are_recruited_and_retired() {
    block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let directory = Path::new("logs");
        let process = Process::start(disk.clone(), directory, &small()).await;
        let store = &process.store;
        process.push(request(BEGIN, Version(110), &[(1, 10)])).await.unwrap();
        assert_eq!(store.recruit(GENERATION, BEGIN, Vec::new()).await.unwrap(), process.number);
        let other = store.recruit(GENERATION, Version(5), Vec::new()).await.unwrap_err();
        assert_eq!(other.code(), ErrorCode::InvalidArgument);

        assert_eq!(store.hosted_generations(), [GENERATION]);
        process.lock(Generation(4)).await.unwrap();
        assert_eq!(store.hosted_generations(), []);
        let next = store.recruit(Generation(4), Version(110), Vec::new()).await.unwrap();
        assert_eq!(store.hosted_generations(), [Generation(4)]);
        assert_ne!(next, process.number);

        // The old one is read until it is retired.
        let model =
            Model { batches: vec![request(BEGIN, Version(110), &[(1, 10)])], ..Model::default() };
        model.check(&process, Tag(1), BEGIN).await;
        store.retire(before(4)).await.unwrap();
        let gone = process.lock(Generation(4)).await.unwrap_err();
        assert_eq!(gone.code(), ErrorCode::Unreachable);
        assert_eq!(disk.list(directory).await.unwrap(), ["4"]);
        assert_eq!(store.hosted_generations(), [Generation(4)]);
    });
}

/// Two logs of the old set, each with a part of the messages; a new one takes over what it shall keep of both.
#[test]
fn a_new_log_takes_over_from_the_old_set() {
    block_on(async {
        let network = Network::new();
        let mut stores = Vec::new();
        let mut sources = Vec::new();
        for number in 0..2u32 {
            let at = Address::new(format!("log:{number}"));
            let router = Router::new();
            network.add_local(at.clone(), router.clone());
            let disk = Arc::new(MemoryDisk::new());
            let store = LogStore::open(disk, Path::new("logs"), small(), router).await.unwrap();
            let instance = store.recruit(GENERATION, BEGIN, Vec::new()).await.unwrap();
            let endpoint = Endpoint { address: at, instance };
            let client = network.connect::<LogService>(&endpoint).await.unwrap();
            for version in 0..20u64 {
                let (previous, commit) = (Version(100 + 5 * version), Version(105 + 5 * version));
                // Tag 0 is on log 0, tag 1 on log 1, tag 2 on both; some batches are empty.
                let all = [(number, 40), (2, 300)];
                let messages = if version % 4 == 0 { &[][..] } else { &all[..] };
                push(&client, request(previous, commit, messages)).await.unwrap();
            }
            stores.push((store, client));
            sources.push((number, endpoint));
        }
        let recruit = RecruitLog {
            recruitment: Recruitment {
                cluster_id: ClusterId(1),
                generation: Generation(4),
                recovery_version: Version(180),
            },
            begin_version: Version(130),
            sources: Sources { logs: sources, count: 2, replication: 1 },
            index: 0,
            logs: 2,
            replication: 1,
        };
        let refused =
            copy::gather(&network, &recruit, &copy::Gathering::default()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Unavailable, "the logs are not locked yet");
        // The locks may be on their way still when the copies are asked for.
        let gathering = copy::Gathering::default();
        let mut taken = Box::pin(copy::gather(&network, &recruit, &gathering));
        for (number, (_, client)) in stores.iter().enumerate() {
            assert!(futures::poll!(taken.as_mut()).is_pending());
            assert!(!gathering.waits_for().is_empty(), "{number}");
            let request = LockRequest { generation: Generation(4), metadata_after: Version(0) };
            call(LIMIT, Stage::Log, |context| client.lock(context, request))
                .await
                .unwrap()
                .unwrap();
        }
        let taken = taken.await.unwrap();
        assert!(gathering.copied_bytes() > 0 && gathering.waits_for().is_empty());
        let versions: Vec<_> = taken.iter().map(|push| push.commit_version.0).collect();
        assert_eq!(versions, Vec::from_iter((135..=180).step_by(5)));
        assert!(taken.iter().all(|push| push.messages.iter().all(|(tag, _)| tag.0 % 2 == 0)));
        let of_both = taken.iter().filter(|push| push.messages.len() == 2).count();
        assert_eq!(of_both, taken.iter().filter(|push| !push.messages.is_empty()).count());

        // Twice, as after an answer that was lost, and then the generation's own batches.
        let (store, _) = &stores[0];
        let first = store.recruit(Generation(4), Version(130), taken.clone()).await.unwrap();
        let again = store.recruit(Generation(4), Version(130), taken).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(store.progress().version, Version(180));
        let endpoint = Endpoint { address: Address::new("log:0"), instance: first };
        let client = network.connect::<LogService>(&endpoint).await.unwrap();
        let next = PushRequest {
            generation: Generation(4),
            ..request(Version(180), Version(1_000), &[(0, 1)])
        };
        push(&client, next).await.unwrap();

        let gap = RecruitLog { begin_version: Version(132), ..recruit };
        let error = copy::gather(&network, &gap, &copy::Gathering::default()).await.unwrap_err();
        assert!(error.detail().contains("do not have (132, 130]"), "{error}");
        let request = CopyRequest {
            after_version: Version(130),
            through_version: Version(1_000),
            bytes_max: 1,
        };
        let (_, old) = &stores[1];
        let beyond = call(LIMIT, Stage::Log, |context| old.copy(context, request)).await.unwrap();
        assert_eq!(beyond.unwrap_err().code(), ErrorCode::InvalidArgument);
    });
}

/// An attempt at a recovery that is given up leaves a log on every process; those go while recovery still fails.
#[test]
fn logs_of_attempts_that_were_given_up_go() {
    block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let directory = Path::new("logs");
        let process = Process::start(disk.clone(), directory, &small()).await;
        let store = &process.store;
        for attempt in 4..=7 {
            store.recruit(Generation(attempt), BEGIN, Vec::new()).await.unwrap();
        }
        let kept = BTreeSet::from([GENERATION]);
        let attempts =
            Superseded { after: Some(GENERATION), before: Generation(7), kept: kept.clone() };
        store.retire(attempts).await.unwrap();
        assert_eq!(store.hosted_generations(), [GENERATION, Generation(7)]);
        assert_eq!(disk.list(directory).await.unwrap(), ["3", "7"]);
        // Once a generation is active, nothing goes that is named in its record.
        store.retire(Superseded { kept, ..before(7) }).await.unwrap();
        assert_eq!(store.hosted_generations(), [GENERATION, Generation(7)]);
    });
}

/// Recoveries come one after the other while a disk is slow: what the earlier ones have asked for is not in the way.
#[test]
fn a_log_that_nobody_waits_for_is_not_made() {
    use futures::FutureExt as _;
    block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let process = Process::start(disk, Path::new("logs"), &small()).await;
        let store = &process.store;
        for abandoned in 4..7 {
            let asked = store.recruit(Generation(abandoned), BEGIN, Vec::new());
            assert!(asked.now_or_never().is_none(), "it has not begun yet");
        }
        store.recruit(Generation(7), BEGIN, Vec::new()).await.unwrap();
        assert_eq!(store.hosted_generations(), [GENERATION, Generation(7)]);
        // What is taken over for nobody ends as well: the batch before it never comes.
        let late = request(Version(900), Version(910), &[(1, 10)]);
        let late = PushRequest { generation: Generation(8), ..late };
        let asked = store.recruit(Generation(8), BEGIN, vec![late]);
        runtime::timeout(Duration::from_millis(100), Stage::Log, asked).await.unwrap_err();
        let next = store.recruit(Generation(9), BEGIN, Vec::new());
        runtime::timeout(LIMIT, Stage::Log, next).await.unwrap().unwrap();
    });
}

#[test]
fn a_damaged_log_does_not_keep_the_others_from_serving() {
    block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let directory = Path::new("logs");
        let process = Process::start(disk.clone(), directory, &small()).await;
        process.push(request(BEGIN, Version(110), &[(1, 10)])).await.unwrap();
        process.store.recruit(Generation(4), Version(110), Vec::new()).await.unwrap();
        process.store.shut_down().await;
        let state = directory.join("3").join("state");
        disk.replace(&state, Bytes::from_static(b"nonsense")).await.unwrap();
        let router = Router::new();
        let store = LogStore::open(disk.clone(), directory, small(), router).await.unwrap();
        assert_eq!(store.hosted_generations(), [Generation(4)]);
        assert_eq!(store.kept_generations(), [GENERATION, Generation(4)]);
        // It is left as it is, for whoever wants to look, and is not made anew.
        let refused = store.recruit(GENERATION, BEGIN, Vec::new()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Corrupt);
        store.retire(before(4)).await.unwrap();
        assert_eq!(disk.list(directory).await.unwrap(), ["3", "4"]);
    });
}

#[test]
fn a_disk_that_takes_no_new_log_is_in_trouble_until_it_does() {
    block_on(async {
        let disk = MemoryDisk::new();
        let directory = Path::new("logs");
        let process = Process::start(Arc::new(disk.clone()), directory, &small()).await;
        let store = &process.store;
        disk.refuse_new_files(Some("no inodes are left"));
        let refused = store.recruit(Generation(4), BEGIN, Vec::new()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Disk);
        assert!(store.trouble().is_some_and(|why| why.contains("no inodes")));
        // The log that is there goes on.
        process.push(request(BEGIN, Version(110), &[(1, 10)])).await.unwrap();
        disk.refuse_new_files(None);
        while store.trouble().is_some() {
            runtime::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(disk.list(directory).await.unwrap(), ["3"]);
        store.recruit(Generation(4), BEGIN, Vec::new()).await.unwrap();
        assert_eq!(store.kept_generations(), [GENERATION, Generation(4)]);
    });
}
