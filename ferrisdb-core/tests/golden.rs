//! The bytes of every message, as they are on the wire: `golden/*.txt` has a line for each.
//!
//! A difference means that this version cannot talk to the one before. If that is meant, raise
//! `service::PROTOCOL_VERSION`, so that the handshake says so, and write the files anew:
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p ferrisdb-core --test golden
//! ```
//!
//! which fails wherever it has changed a file, so that a run that passes has always compared.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{env, fmt::Write as _, fs, path::Path};

use bytes::Bytes;
use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Generation, Key, KeyRange, Mutation, ProcessId, Result,
    Shard, ShardMap, Stage, Tag, Teams, Value, Version, Versionstamp,
    atomic::AtomicOp,
    digest::ValueDigest,
    id::Address,
    metrics::{HistogramReading, MetricSample, MetricValue, RoleMetrics, Unit},
    service::{
        Health, PROTOCOL_VERSION,
        controller::*,
        log::*,
        metrics::{MetricsRequest, MetricsResponse},
        proxy::{ProxyRequest, ProxyResponse},
        raft::*,
        resolver::*,
        sequencer::*,
        storage::*,
        worker::*,
    },
    transaction::{CommitOutcome, CommitRequest, Committed, Conflict, ConflictingRead},
    transport::{decode, encode},
};
use serde::{Serialize, de::DeserializeOwned};

/// The lines of one file.
struct Golden {
    file: &'static str,
    text: String,
}

impl Golden {
    fn new(file: &'static str) -> Golden {
        let text = format!("# Protocol version {PROTOCOL_VERSION}. See tests/golden.rs.\n");
        Golden { file, text }
    }

    /// Adds a message: its name, and its bytes in hexadecimal.
    fn line<T: Serialize + DeserializeOwned>(&mut self, name: &str, message: &T) {
        let bytes = encode(message).unwrap();
        let decoded: T = decode(&bytes).unwrap();
        assert_eq!(encode(&decoded).unwrap(), bytes, "{name} changes when it is decoded");
        write!(self.text, "{name}: ").unwrap();
        bytes.iter().for_each(|byte| write!(self.text, "{byte:02x}").unwrap());
        self.text.push('\n');
    }

    /// Adds all variants of an enum without fields. Fails if one is missing.
    fn variants<T: Serialize + DeserializeOwned + std::fmt::Debug>(&mut self, all: &[T]) {
        for variant in all {
            self.line(&format!("{variant:?}"), variant);
        }
        let next = u8::try_from(all.len()).unwrap();
        assert!(decode::<T>(&[next]).is_err(), "a variant after {:?} is not listed", all.last());
    }

    /// Compares with the file, or writes it.
    fn check(self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(self.file);
        let recorded = fs::read_to_string(&path).unwrap_or_default();
        if env::var_os("UPDATE_GOLDEN").is_some() && recorded != self.text {
            assert!(env::var_os("CI").is_none(), "golden files are not written in CI");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &self.text).unwrap();
            panic!("{} was written: review it, then run the test again", self.file);
        }
        for (recorded, present) in recorded.lines().zip(self.text.lines()) {
            assert_eq!(
                recorded, present,
                "{}: the bytes of a message have changed. If that is meant, raise PROTOCOL_VERSION",
                self.file
            );
        }
        assert_eq!(
            recorded.lines().count(),
            self.text.lines().count(),
            "{}: there are messages more or less. If that is meant, raise PROTOCOL_VERSION",
            self.file
        );
    }
}

fn endpoint(instance: u64) -> Endpoint {
    Endpoint { address: Address::new("h:1"), instance }
}

fn error() -> Error {
    Error::new(ErrorCode::TooBusy, Stage::Log, "full").at("h:1")
}

fn failed<T>() -> Result<T> {
    Err(error())
}

fn range() -> KeyRange {
    KeyRange::new("a", "b")
}

fn log_set() -> LogSet {
    LogSet {
        generation: Generation(3),
        logs: vec![LogMember { process: ProcessId(0x11), endpoint: endpoint(0x12) }],
        replication: 2,
        begin_version: Version(300),
        recovery_version: Version(350),
        end_version: Some(Version(400)),
    }
}

fn shards() -> ShardMap {
    let teams = Teams { team: vec![Tag(1), Tag(2)], joining: vec![Tag(3)] };
    ShardMap::new(vec![Shard { range: range(), teams }])
}

fn configuration() -> Configuration {
    Configuration {
        redundancy: Redundancy::Double,
        logs: 3,
        proxies: 2,
        resolvers: 1,
        storage_replace_after_ms: 60_000,
    }
}

fn controllers() -> Vec<ControllerMember> {
    vec![ControllerMember { node: 7, address: Address::new("h:3") }]
}

fn recruitment() -> Recruitment {
    Recruitment {
        cluster_id: ClusterId(0xc1),
        generation: Generation(3),
        recovery_version: Version(350),
    }
}

fn members() -> CoordinatorMembers {
    CoordinatorMembers {
        sequencer: endpoint(1),
        proxies: vec![endpoint(2)],
        resolvers: vec![(range(), endpoint(3))],
    }
}

fn cluster_state() -> ClusterState {
    ClusterState {
        cluster_id: ClusterId(0xc1),
        revision: 9,
        generation: Generation(3),
        phase: Phase::Active,
        coordinator: Some(members()),
        log_sets: vec![log_set()],
        storage_servers: vec![StorageServer {
            tag: Tag(1),
            process: ProcessId(0x21),
            endpoint: endpoint(0x22),
            zone: "z".into(),
            begin_version: Version(10),
        }],
        next_tag: Tag(4),
        shards: shards(),
        controllers: controllers(),
        configuration: Some(configuration()),
        excluded: vec![ProcessSelector::Process(ProcessId(0x31))],
    }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        process: ProcessId(0x11),
        incarnation: 0x1122_3344_5566_7788,
        class: ProcessClass::Log,
        zone: "z".into(),
        worker: Endpoint::of_process(Address::new("h:1")),
        hosted_generations: vec![Generation(2), Generation(3)],
        kept_generations: vec![Generation(1)],
        trouble: Some("t".into()),
        accused: vec![Address::new("h:9")],
        progress: progress(),
        storage: Some(StorageReport {
            tag: Some(Tag(1)),
            copied: vec![range()],
            copying: vec![KeyRange::new("c", "d")],
            copied_bytes: 300,
        }),
    }
}

fn progress() -> Progress {
    Progress { version: Version(300), durable_version: Version(200), bytes: 70_000 }
}

fn mutations() -> Vec<Mutation> {
    let (key, value) = (Key::from("k"), Value::from("v"));
    vec![
        Mutation::Set { key: key.clone(), value: value.clone() },
        Mutation::Clear { key: key.clone() },
        Mutation::ClearRange { range: range() },
        Mutation::Atomic { key: key.clone(), op: AtomicOp::ByteMax, operand: value.clone() },
        Mutation::SetVersionstampedKey { key: key.clone(), offset: 1, value: value.clone() },
        Mutation::SetVersionstampedValue { key, value, offset: 2 },
    ]
}

#[test]
fn errors() {
    let mut golden = Golden::new("errors.txt");
    golden.line("Error", &error());
    golden.line("Error without a server", &Error::new(ErrorCode::Internal, Stage::Client, ""));
    golden.variants(&[
        Stage::Client,
        Stage::Connect,
        Stage::ReadVersion,
        Stage::Read,
        Stage::Commit,
        Stage::Sequence,
        Stage::Resolve,
        Stage::Log,
        Stage::Apply,
        Stage::Control,
        Stage::Process,
    ]);
    for code in ErrorCode::ALL {
        golden.line(&format!("{code:?} {} {code}", code.number()), code);
    }
    golden.check();
}

#[test]
fn envelope() {
    let mut golden = Golden::new("envelope.txt");
    let response = |message| tarpc::Response::<Version> { request_id: 300, message };
    golden.line("Response", &response(Ok(Version(5))));
    // Most other kinds do not survive tarpc's encoding.
    let refused = tarpc::ServerError::new(std::io::ErrorKind::Other, "no".into());
    golden.line("Response, refused", &response(Err(refused)));
    let trace_context = tarpc::trace::Context::default();
    let cancel = tarpc::ClientMessage::<Version>::Cancel { trace_context, request_id: 300 };
    golden.line("Cancel", &cancel);
    golden.check();

    // A request holds a moment, which is a span on the wire, so its bytes are never the same twice.
    // Request, in 5 s, 16 bytes of trace, a span, not sampled, number 7, Version(42).
    let request = [&[0, 5, 0][..], &[0; 16], &[0, 1], &[7], &[42]].concat();
    match decode(&request).unwrap() {
        tarpc::ClientMessage::<Version>::Request(request) => {
            assert_eq!((request.id, request.message), (7, Version(42)));
        }
        other => panic!("decoded as {other:?}"),
    }
}

#[test]
fn controller() {
    let mut golden = Golden::new("controller.txt");
    let ask = ControllerRequest::Heartbeat { request: heartbeat() };
    golden.line("Request heartbeat", &ask);
    golden.line("Request cluster_state", &ControllerRequest::ClusterState { known_revision: 9 });
    golden.line("Request status", &ControllerRequest::Status {});
    golden.line("Request leader", &ControllerRequest::Leader {});
    let selectors = vec![
        ProcessSelector::Address(Address::new("h:1")),
        ProcessSelector::Process(ProcessId(0x11)),
    ];
    let change = ConfigurationChange {
        redundancy: Some(Redundancy::Triple),
        logs: Some(4),
        proxies: None,
        resolvers: Some(2),
        storage_replace_after_ms: Some(300),
    };
    for command in [
        Command::Configure(change),
        Command::Exclude(selectors.clone()),
        Command::Include(selectors),
        Command::AddController(Address::new("h:4")),
        Command::RemoveController(Address::new("h:5")),
    ] {
        golden.line("Request administer", &ControllerRequest::Administer { command });
    }
    golden.variants(&Redundancy::ALL);

    let leader = Leader { address: Some(Address::new("h:3")), controllers: controllers() };
    golden.line("Response leader", &ControllerResponse::Leader(Ok(leader)));
    golden.line("Response leader, failed", &ControllerResponse::Leader(failed()));
    golden.line("Response administer", &ControllerResponse::Administer(Ok(())));
    golden.line("Response administer, failed", &ControllerResponse::Administer(failed()));
    let reply = HeartbeatReply { cluster_id: ClusterId(0xc1), generation: Generation(3) };
    golden.line("Response heartbeat", &ControllerResponse::Heartbeat(Ok(reply)));
    golden.line("Response heartbeat, failed", &ControllerResponse::Heartbeat(failed()));
    let news = StateNews { state: Some(cluster_state()), is_led: true };
    golden.line("Response cluster_state", &ControllerResponse::ClusterState(Ok(news)));
    let no_news = StateNews { state: None, is_led: false };
    golden.line("Response cluster_state, none", &ControllerResponse::ClusterState(Ok(no_news)));
    golden.line("Response cluster_state, failed", &ControllerResponse::ClusterState(failed()));
    let process = ProcessStatus {
        heartbeat: heartbeat(),
        silent_ms: 300,
        alive: false,
        failure: Some("f".into()),
    };
    let status = Status {
        cluster: cluster_state(),
        processes: vec![process],
        leads_for_ms: 20,
        failure_timeout_ms: 21,
        recoveries: 4,
        last_recovery: Some(RecoveryReport {
            generation: Generation(3),
            reason: "r".into(),
            duration_ms: 300,
            attempts: 2,
        }),
        controller: Address::new("h:2"),
        silent_controllers: vec![(Address::new("h:4"), "s".into())],
        repairs: vec!["p".into()],
        stuck: vec!["q".into()],
        metadata_version: Version(300),
        unreached: vec![(Address::new("h:1"), Address::new("h:2"))],
    };
    golden.line("Response status", &ControllerResponse::Status(Ok(status)));
    golden.line("Response status, failed", &ControllerResponse::Status(failed()));

    golden.variants(&[ProcessClass::Coordinator, ProcessClass::Log, ProcessClass::Storage]);
    golden.line("Phase waiting", &Phase::Waiting { reason: "r".into() });
    golden.line("Phase recovering", &Phase::Recovering { step: "s".into() });
    golden.line("Phase active", &Phase::Active);
    golden.line("LogSet, open", &LogSet { end_version: None, ..log_set() });
    let mut waiting = cluster_state();
    waiting.coordinator = None;
    waiting.phase = Phase::Waiting { reason: "r".into() };
    golden.line("ClusterState, waiting", &waiting);
    golden.check();
}

#[test]
fn worker() {
    let mut golden = Golden::new("worker.txt");
    let log = RecruitLog {
        recruitment: recruitment(),
        begin_version: Version(300),
        sources: Sources { logs: vec![(2, endpoint(4))], count: 3, replication: 2 },
        index: 1,
        logs: 3,
        replication: 2,
    };
    golden.line("Request recruit_log", &WorkerRequest::RecruitLog { request: log });
    let sequencer = RecruitSequencer { recruitment: recruitment(), first_version: Version(400) };
    let ask = WorkerRequest::RecruitSequencer { request: sequencer };
    golden.line("Request recruit_sequencer", &ask);
    let resolver = RecruitResolver { recruitment: recruitment(), index: 1, proxies: 2 };
    let ask = WorkerRequest::RecruitResolver { request: resolver };
    golden.line("Request recruit_resolver", &ask);
    let proxy = RecruitProxy {
        recruitment: recruitment(),
        number: 1,
        sequencer: endpoint(1),
        resolvers: vec![(range(), endpoint(3))],
        log_set: log_set(),
        shards: shards(),
    };
    golden.line("Request recruit_proxy", &WorkerRequest::RecruitProxy { request: proxy });
    golden.line("Request watch", &WorkerRequest::Watch { known_incarnation: 300 });
    golden.line("Request unreached", &WorkerRequest::Unreached { workers: vec![endpoint(6)] });

    golden.line("Response recruit_log", &WorkerResponse::RecruitLog(Ok(endpoint(5))));
    golden.line("Response recruit_log, failed", &WorkerResponse::RecruitLog(failed()));
    let recruited = WorkerResponse::RecruitSequencer(Ok(endpoint(5)));
    golden.line("Response recruit_sequencer", &recruited);
    let refused = WorkerResponse::RecruitSequencer(failed());
    golden.line("Response recruit_sequencer, failed", &refused);
    golden.line("Response recruit_resolver", &WorkerResponse::RecruitResolver(Ok(endpoint(5))));
    golden.line("Response recruit_resolver, failed", &WorkerResponse::RecruitResolver(failed()));
    golden.line("Response recruit_proxy", &WorkerResponse::RecruitProxy(Ok(endpoint(5))));
    golden.line("Response recruit_proxy, failed", &WorkerResponse::RecruitProxy(failed()));
    golden.line("Response watch", &WorkerResponse::Watch(Ok(300)));
    golden.line("Response watch, failed", &WorkerResponse::Watch(failed()));
    golden.line("Response unreached", &WorkerResponse::Unreached(Ok(vec![endpoint(6)])));
    golden.line("Response unreached, failed", &WorkerResponse::Unreached(failed()));
    golden.check();
}

#[test]
fn sequencer() {
    let mut golden = Golden::new("sequencer.txt");
    let generation = Generation(3);
    let begin = SequencerRequest::BeginBatch { generation, batch: 300 };
    golden.line("Request begin_batch", &begin);
    let report = SequencerRequest::ReportCommitted { generation, commit_version: Version(300) };
    golden.line("Request report_committed", &report);
    golden.line("Request committed_version", &SequencerRequest::CommittedVersion { generation });

    let versions = BatchVersions {
        previous_version: Version(200),
        commit_version: Version(300),
        known_committed_version: Version(150),
    };
    golden.line("Response begin_batch", &SequencerResponse::BeginBatch(Ok(versions)));
    golden.line("Response begin_batch, failed", &SequencerResponse::BeginBatch(failed()));
    golden.line("Response report_committed", &SequencerResponse::ReportCommitted(Ok(())));
    let failure = SequencerResponse::ReportCommitted(failed());
    golden.line("Response report_committed, failed", &failure);
    let committed = SequencerResponse::CommittedVersion(Ok(Version(300)));
    golden.line("Response committed_version", &committed);
    let failure = SequencerResponse::CommittedVersion(failed());
    golden.line("Response committed_version, failed", &failure);
    golden.check();
}

#[test]
fn proxy() {
    let mut golden = Golden::new("proxy.txt");
    golden.line("Request read_version", &ProxyRequest::ReadVersion { is_background: true });
    let request = CommitRequest {
        read_version: Version(300),
        read_conflicts: vec![range()],
        write_conflicts: vec![KeyRange::new("c", "d")],
        mutations: mutations(),
        idempotency_id: Some(0x1d),
        report_conflicts: true,
        may_write_system_keys: false,
        changes_shard_map: true,
    };
    golden.line("Request commit", &ProxyRequest::Commit { request });
    let empty = CommitRequest::default();
    golden.line("Request commit, empty", &ProxyRequest::Commit { request: empty });

    let requests = vec![CommitRequest::default(); 2];
    golden.line("Request commit_all", &ProxyRequest::CommitAll { requests });

    golden.line("Response read_version", &ProxyResponse::ReadVersion(Ok(Version(300))));
    golden.line("Response read_version, failed", &ProxyResponse::ReadVersion(failed()));
    let versionstamp = Versionstamp { commit_version: Version(300), batch_index: 2 };
    let committed = CommitOutcome::Committed(Committed { versionstamp });
    golden.line("Response commit, committed", &ProxyResponse::Commit(Ok(committed)));
    let conflict = CommitOutcome::Conflict(Conflict {
        reads: vec![
            ConflictingRead { index: 0, written_at: Version(310) },
            ConflictingRead { index: 2, written_at: Version(320) },
        ],
    });
    golden.line("Response commit, conflict", &ProxyResponse::Commit(Ok(conflict)));
    golden.line("Response commit, failed", &ProxyResponse::Commit(failed()));
    let outcomes = vec![Ok(CommitOutcome::Committed(Committed { versionstamp })), failed()];
    golden.line("Response commit_all", &ProxyResponse::CommitAll(outcomes));

    for (mutation, name) in mutations().iter().zip([
        "Set",
        "Clear",
        "ClearRange",
        "Atomic",
        "SetVersionstampedKey",
        "SetVersionstampedValue",
    ]) {
        golden.line(&format!("Mutation {name}"), mutation);
    }
    golden.variants(AtomicOp::ALL);
    golden.check();
}

#[test]
fn resolver() {
    let mut golden = Golden::new("resolver.txt");
    let transaction = ResolveTransaction {
        read_version: Version(300),
        read_conflicts: vec![(7, range())],
        write_conflicts: vec![KeyRange::new("c", "d")],
        report_conflicts: true,
    };
    let request = ResolveRequest {
        generation: Generation(3),
        proxy: 1,
        previous_version: Version(300),
        commit_version: Version(400),
        transactions: vec![transaction],
        metadata: vec![(0, mutations())],
    };
    golden.line("Request resolve", &ResolverRequest::Resolve { request });
    let verdicts = vec![
        Verdict::Accepted,
        Verdict::Conflict { reads: vec![ConflictingRead { index: 7, written_at: Version(310) }] },
        Verdict::TooOld,
    ];
    for verdict in &verdicts {
        golden.line(&format!("{verdict:?}"), verdict);
    }
    let batch = MetadataBatch { commit_version: Version(350), mutations: mutations() };
    let reply = ResolveReply { verdicts, previous_batch: Version(300), metadata: vec![batch] };
    golden.line("Response resolve", &ResolverResponse::Resolve(Ok(reply)));
    golden.line("Response resolve, failed", &ResolverResponse::Resolve(failed()));
    golden.line("Request health", &ResolverRequest::Health { generation: Generation(4) });
    let health = Health { has_work: false, progress: 7 };
    golden.line("Response health", &ResolverResponse::Health(Ok(health)));
    golden.line("Response health, failed", &ResolverResponse::Health(failed()));
    golden.check();
}

#[test]
fn log() {
    let mut golden = Golden::new("log.txt");
    let generation = Generation(3);
    let push = PushRequest {
        generation,
        previous_version: Version(200),
        commit_version: Version(300),
        known_committed_version: Version(100),
        messages: vec![(Tag(1), Bytes::from_static(b"m"))],
    };
    golden.line("Request push", &LogRequest::Push { request: push });
    let peek =
        PeekRequest { tag: Tag(1), after_version: Version(200), bytes_max: 1_000, wait_ms: 500 };
    golden.line("Request peek", &LogRequest::Peek { request: peek });
    let pop = LogRequest::Pop { tag: Tag(1), through_version: Version(300) };
    golden.line("Request pop", &pop);
    let request = LockRequest { generation, metadata_after: Version(200) };
    golden.line("Request lock", &LogRequest::Lock { request });
    let request = CopyRequest {
        after_version: Version(200),
        through_version: Version(300),
        bytes_max: 1_000,
    };
    golden.line("Request copy", &LogRequest::Copy { request });
    golden.line("Request confirm", &LogRequest::Confirm { generation });

    let pushed = PushReply { durable_version: Version(300) };
    golden.line("Response push", &LogResponse::Push(Ok(pushed)));
    golden.line("Response push, failed", &LogResponse::Push(failed()));
    let peeked = PeekReply {
        messages: vec![(Version(300), Bytes::from_static(b"m"))],
        through_version: Version(350),
        known_committed_version: Version(320),
        popped_version: Version(200),
        locked: true,
    };
    golden.line("Response peek", &LogResponse::Peek(Ok(peeked)));
    golden.line("Response peek, failed", &LogResponse::Peek(failed()));
    golden.line("Response pop", &LogResponse::Pop(Ok(())));
    golden.line("Response pop, failed", &LogResponse::Pop(failed()));
    let locked = LockReply {
        durable_version: Version(300),
        known_committed_version: Version(200),
        metadata: vec![(Version(250), Bytes::from_static(b"m"))],
    };
    golden.line("Response lock", &LogResponse::Lock(Ok(locked)));
    golden.line("Response lock, failed", &LogResponse::Lock(failed()));
    let batch = CopiedBatch {
        previous_version: Version(200),
        commit_version: Version(300),
        messages: vec![(Tag(1), Bytes::from_static(b"m"))],
    };
    let copied = CopyReply { batches: vec![batch], through_version: Version(300) };
    golden.line("Response copy", &LogResponse::Copy(Ok(copied)));
    golden.line("Response copy, failed", &LogResponse::Copy(failed()));
    golden.line("Response confirm", &LogResponse::Confirm(Ok(())));
    golden.line("Response confirm, failed", &LogResponse::Confirm(failed()));
    golden.line("Request health", &LogRequest::Health { generation: Generation(4) });
    let health = Health { has_work: true, progress: 7 };
    golden.line("Response health", &LogResponse::Health(Ok(health)));
    golden.line("Response health, failed", &LogResponse::Health(failed()));
    golden.check();
}

#[test]
fn storage() {
    let mut golden = Golden::new("storage.txt");
    let read = PointRead { key: "k".into(), read_version: Version(300) };
    golden.line("Request get", &StorageRequest::Get { reads: vec![read] });
    let request = RangeRead {
        range: range(),
        read_version: Version(300),
        rows_max: 10,
        bytes_max: 1_000,
        reverse: true,
    };
    golden.line("Request get_range", &StorageRequest::GetRange { request });
    golden.line("Request progress", &StorageRequest::Progress {});
    let session = WatchSessionId(0x5e);
    let watched =
        |number, known| Watched { number, key: "k".into(), known, known_version: Version(300) };
    let changes = WatchChanges {
        session,
        begins_session: true,
        begin: vec![watched(7, None), watched(8, Some(ValueDigest::of(b"v")))],
        end: vec![6],
    };
    golden.line("Request change_watches", &StorageRequest::ChangeWatches { changes });
    golden.line("Request watch_news", &StorageRequest::WatchNews { session, wait_ms: 5_000 });

    let found = VersionedValue { value: "v".into(), commit_version: Version(200) };
    let answers = vec![Ok(Some(found)), Ok(None), failed()];
    golden.line("Response get", &StorageResponse::Get(answers));
    let row = Row { key: "k".into(), value: "v".into(), commit_version: Version(200) };
    let reply = RangeReply { rows: vec![row.clone()], continue_at: Some("l".into()) };
    golden.line("Response get_range", &StorageResponse::GetRange(Ok(reply)));
    let reply = RangeReply { rows: vec![row], continue_at: None };
    golden.line("Response get_range, to the end", &StorageResponse::GetRange(Ok(reply)));
    golden.line("Response get_range, failed", &StorageResponse::GetRange(failed()));
    let measured =
        Measured { bytes: 9, through: "y".into(), split_points: vec!["m".into()], has_passed: 5 };
    golden.line("Response measure", &StorageResponse::Measure(Ok(measured)));
    golden.line("Response progress", &StorageResponse::Progress(Ok(progress())));
    golden.line("Response progress, failed", &StorageResponse::Progress(failed()));
    golden.line("Response change_watches", &StorageResponse::ChangeWatches(Ok(())));
    golden.line("Response change_watches, failed", &StorageResponse::ChangeWatches(failed()));
    let changed = WatchEnd::Changed(Version(300));
    let ended = vec![(7, changed), (8, WatchEnd::WrongShard), (9, WatchEnd::TooMany)];
    let news = WatchNews { applied_version: Version(300), ended };
    golden.line("Response watch_news", &StorageResponse::WatchNews(Ok(news)));
    golden.line("Response watch_news, failed", &StorageResponse::WatchNews(failed()));
    golden.check();
}

#[test]
fn raft() {
    let mut golden = Golden::new("raft.txt");
    let message = RaftMessage {
        to: 0x1122_3344_5566_7788,
        from: 2,
        kind: RaftMessageKind::Vote,
        body: Bytes::from_static(b"b"),
    };
    golden.line("Request deliver", &RaftRequest::Deliver { message });
    golden.line("Request identity", &RaftRequest::Identity {});
    let (node, address) = (7, Address::new("h:1"));
    golden.line("Request introduce", &RaftRequest::Introduce { node, address: address.clone() });
    golden.variants(&[
        RaftMessageKind::Append,
        RaftMessageKind::Vote,
        RaftMessageKind::Snapshot,
        RaftMessageKind::Canvass,
    ]);

    golden.line("Response deliver", &RaftResponse::Deliver(Ok(Bytes::from_static(b"b"))));
    golden.line("Response deliver, failed", &RaftResponse::Deliver(failed()));
    let identity = RaftIdentity { node, is_initialized: true, address, newest: (3, 4) };
    golden.line("Response identity", &RaftResponse::Identity(Ok(identity.clone())));
    golden.line("Response introduce", &RaftResponse::Introduce(Ok(identity)));
    golden.line("Response identity, failed", &RaftResponse::Identity(failed()));
    golden.check();
}

#[test]
fn metrics() {
    let mut golden = Golden::new("metrics.txt");
    golden.line("Request read", &MetricsRequest::Read {});
    golden.variants(&[Unit::Count, Unit::Bytes, Unit::Time, Unit::Versions]);
    let sample = |value| MetricSample {
        name: "n".to_owned(),
        help: "What.".to_owned(),
        unit: Unit::Time,
        value,
    };
    let reading = HistogramReading { buckets: vec![(7, 1), (300, 2)], sum: 9, max: 8 };
    let role = RoleMetrics {
        role: "log".to_owned(),
        labels: vec![("generation".to_owned(), "7".to_owned())],
        registration: 3,
        age_us: 5_000,
        samples: vec![
            sample(MetricValue::Counter(1)),
            sample(MetricValue::Gauge(2)),
            sample(MetricValue::Histogram(reading)),
        ],
    };
    golden.line("Response read", &MetricsResponse::Read(Ok(vec![role])));
    golden.line("Response read, failed", &MetricsResponse::Read(failed()));
    golden.check();
}
