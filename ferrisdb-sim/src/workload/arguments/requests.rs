//! What a broken or hostile program sends to servers directly, and how each request must end.

use std::time::Duration;

use bytes::Bytes;
use ferrisdb_client::{
    Error, ErrorCode, Generation, Key, KeyRange, Network, Stage, Value, Version,
};
use ferrisdb_core::{
    Endpoint, Mutation, Tag, limits,
    mutation::Encoder,
    service::{
        controller::ClusterState,
        log::{CopyRequest, LockRequest, LogService, PeekRequest, PushRequest},
        proxy::ProxyService,
        resolver::{ResolveRequest, ResolverService},
        sequencer::SequencerService,
        storage::{PointRead, RangeRead, StorageService},
    },
    transaction::{CommitOutcome, CommitRequest},
    transport::call,
};

use super::Expected;
use crate::workload::support::pick;

/// How long a server may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A request that was sent: what it was, how it had to end, and how it did.
pub(super) type Sent = (&'static str, Expected, Result<(), Error>);

const fn refused(code: ErrorCode) -> Expected {
    Expected::Refused(code)
}

/// The names of all requests that a cluster of any shape can be sent.
pub(super) const PROXY: &[&str] = &[
    "commit: an orderly one",
    "commit: ranges without order that overlap",
    "commit: a key over the limit",
    "commit: a value over the limit",
    "commit: a versionstamp past its key",
    "commit: a versionstamp past its value",
    "commit: a system key without the right",
    "commit: an inverted clear",
    "commit: an inverted read conflict",
    "commit: an inverted write conflict",
    "commit: a conflict range past all keys",
    "commit: the shard map",
    "commit: the shard map and a user's conflict",
    "commit: a value that is no team in the shard map",
    "commit: a read version of the future",
    "commit: a read version of the past",
];

/// Commits, each of which would also change the guard if it was not refused as a whole.
pub(super) fn commits(
    scratch: &str,
    guard: &Key,
    read_version: Version,
) -> Vec<(&'static str, Expected, CommitRequest)> {
    let change = || Mutation::Set { key: guard.clone(), value: "changed".into() };
    let with = |mutation: Mutation| CommitRequest {
        read_version,
        write_conflicts: vec![KeyRange::single(guard)],
        mutations: vec![change(), mutation],
        ..CommitRequest::default()
    };
    let inverted = || KeyRange { begin: guard.successor(), end: guard.clone() };
    let range = |begin: &str, end: &str| {
        KeyRange::new(format!("{scratch}{begin}"), format!("{scratch}{end}"))
    };
    let value = Value::default;
    let harmless = Mutation::Set { key: scratch.into(), value: value() };
    let shard_map = Mutation::Set { key: Key::from(b"\xff/keyServers/x"), value: "x".into() };
    let changes_map = |request: CommitRequest| CommitRequest {
        changes_shard_map: true,
        may_write_system_keys: true,
        ..request
    };
    let requests = vec![
        (
            Expected::Success,
            CommitRequest {
                read_version,
                write_conflicts: vec![range("m", "n")],
                mutations: vec![harmless.clone()],
                ..CommitRequest::default()
            },
        ),
        (
            Expected::Success,
            CommitRequest {
                read_version,
                read_conflicts: vec![range("x", "z"), range("a", "c"), range("b", "b")],
                write_conflicts: vec![
                    range("p", "r"),
                    range("a", "z"),
                    range("q", "q"),
                    range("p", "r"),
                    range("o", "s"),
                ],
                mutations: vec![harmless],
                ..CommitRequest::default()
            },
        ),
        (
            refused(ErrorCode::KeyTooLarge),
            with(Mutation::Clear { key: vec![b'k'; limits::KEY_BYTES_MAX + 1].into() }),
        ),
        (
            refused(ErrorCode::ValueTooLarge),
            with(Mutation::Set {
                key: guard.clone(),
                value: vec![0; limits::VALUE_BYTES_MAX + 1].into(),
            }),
        ),
        (
            refused(ErrorCode::InvalidMutation),
            with(Mutation::SetVersionstampedKey {
                key: guard.clone(),
                offset: u32::MAX,
                value: value(),
            }),
        ),
        (
            refused(ErrorCode::InvalidMutation),
            with(Mutation::SetVersionstampedValue {
                key: guard.clone(),
                value: value(),
                offset: 0,
            }),
        ),
        (
            refused(ErrorCode::KeyOutsideLegalRange),
            with(Mutation::Clear { key: Key::from(b"\xff/arguments") }),
        ),
        (refused(ErrorCode::InvertedRange), with(Mutation::ClearRange { range: inverted() })),
        (
            refused(ErrorCode::InvertedRange),
            CommitRequest { read_conflicts: vec![inverted()], ..with(change()) },
        ),
        (
            refused(ErrorCode::InvertedRange),
            CommitRequest { write_conflicts: vec![inverted()], ..with(change()) },
        ),
        (
            refused(ErrorCode::KeyOutsideLegalRange),
            CommitRequest {
                write_conflicts: vec![KeyRange::new(b"\xff\xff\xff", b"\xff\xff\xff\xff")],
                ..with(change())
            },
        ),
        (
            refused(ErrorCode::KeyOutsideLegalRange),
            CommitRequest { may_write_system_keys: true, ..with(shard_map.clone()) },
        ),
        (
            refused(ErrorCode::KeyOutsideLegalRange),
            CommitRequest { mutations: Vec::new(), ..changes_map(with(change())) },
        ),
        (
            refused(ErrorCode::KeyOutsideLegalRange),
            CommitRequest {
                mutations: vec![shard_map],
                write_conflicts: Vec::new(),
                ..changes_map(with(change()))
            },
        ),
        (
            refused(ErrorCode::VersionInvalid),
            CommitRequest { read_version: Version::MAX, ..with(change()) },
        ),
        (
            refused(ErrorCode::TransactionTooOld),
            CommitRequest {
                read_version: Version(1),
                read_conflicts: vec![KeyRange::single(guard)],
                ..with(change())
            },
        ),
    ];
    let named = PROXY.iter().zip(requests);
    named.map(|(name, (expected, request))| (*name, expected, request)).collect()
}

/// Sends commits to some proxy.
pub(super) async fn to_proxy(
    network: &Network,
    state: &ClusterState,
    commits: Vec<(&'static str, Expected, CommitRequest)>,
) -> Result<Vec<Sent>, Error> {
    let Some(coordinator) = &state.coordinator else { return Ok(Vec::new()) };
    let proxy = network.connect::<ProxyService>(pick(&coordinator.proxies)).await?;
    let mut sent = Vec::new();
    for (name, expected, request) in commits {
        let ended = call(LIMIT, Stage::Commit, |context| proxy.commit(context, request)).await;
        let ended = match ended.and_then(|answer| answer) {
            Ok(CommitOutcome::Committed(_)) => Ok(()),
            Ok(CommitOutcome::Conflict(_)) => {
                Err(Error::new(ErrorCode::NotCommitted, Stage::Resolve, ""))
            }
            // Silence is what a fault looks like from outside.
            Err(error) if error.code() == ErrorCode::TimedOut => {
                Err(error.with_code(ErrorCode::Unreachable))
            }
            Err(error) => Err(error),
        };
        sent.push((name, expected, ended));
    }
    Ok(sent)
}

/// The storage server that holds a key, and one that does not, if there is one.
fn servers_of<'a>(
    state: &'a ClusterState,
    key: &Key,
) -> (Option<&'a Endpoint>, Option<&'a Endpoint>) {
    let team = state.shards.of_key(key).map(|shard| shard.teams.all().collect::<Vec<Tag>>());
    let team = team.unwrap_or_default();
    let find = |holds: bool| {
        let mut servers = state.storage_servers.iter();
        servers.find(|server| team.contains(&server.tag) == holds).map(|server| &server.endpoint)
    };
    (find(true), find(false))
}

/// Reads that make no sense, from storage servers.
pub(super) async fn to_storage(
    network: &Network,
    state: &ClusterState,
    guard: &Key,
    read_version: Version,
) -> Result<Vec<Sent>, Error> {
    let (Some(holder), stranger) = servers_of(state, guard) else { return Ok(Vec::new()) };
    let server = network.connect::<StorageService>(holder).await?;
    let mut sent = Vec::new();
    let point = |key: &Key, read_version| PointRead { key: key.clone(), read_version };
    let long_key = Key::from([guard.as_slice(), &[b'k'; limits::KEY_BYTES_MAX]].concat());
    let too_many = vec![point(guard, read_version); limits::READS_PER_REQUEST_MAX + 1];
    for (name, expected, reads) in [
        ("get: nothing", Expected::Success, Vec::new()),
        ("get: too many keys", refused(ErrorCode::Protocol), too_many),
        (
            "get: version zero",
            refused(ErrorCode::TransactionTooOld),
            vec![point(guard, Version::ZERO)],
        ),
        (
            "get: the last version",
            refused(ErrorCode::FutureVersion),
            vec![point(guard, Version::MAX)],
        ),
        ("get: a key over the limit", Expected::Success, vec![point(&long_key, read_version)]),
    ] {
        let answers = call(LIMIT, Stage::Read, |context| server.get(context, reads)).await;
        let ended = answers.and_then(|answers| answers.into_iter().try_for_each(|a| a.map(drop)));
        sent.push((name, expected, ended));
    }
    let read = |range: KeyRange, read_version, rows_max, bytes_max, reverse| RangeRead {
        range,
        read_version,
        rows_max,
        bytes_max,
        reverse,
    };
    let single = || KeyRange::single(guard);
    let inverted = KeyRange { begin: guard.successor(), end: guard.clone() };
    let ok = Expected::Success;
    let mut ranges = vec![
        (
            "get_range: inverted",
            refused(ErrorCode::InvertedRange),
            read(inverted, read_version, 1, 1, false),
        ),
        ("get_range: no rows, no bytes", ok, read(single(), read_version, 0, 0, false)),
        ("get_range: all there is", ok, read(single(), read_version, u32::MAX, u32::MAX, true)),
        (
            "get_range: version zero",
            refused(ErrorCode::TransactionTooOld),
            read(single(), Version::ZERO, 1, 1, true),
        ),
        (
            "get_range: the last version",
            refused(ErrorCode::FutureVersion),
            read(single(), Version::MAX, 1_000, 1_000, false),
        ),
    ];
    let everything = KeyRange { begin: Key::MIN, end: Key::from(b"\xff\xff\xff\xff") };
    if state.shards.shards().len() > 1 && stranger.is_some() {
        let request = read(everything, read_version, 10, 10, false);
        ranges.push(("get_range: all keys", refused(ErrorCode::WrongShard), request));
    }
    for (name, expected, request) in ranges {
        let answer = call(LIMIT, Stage::Read, |context| server.get_range(context, request)).await;
        sent.push((name, expected, answer.and_then(|answer| answer).map(drop)));
    }
    if let Some(stranger) = stranger {
        let server = network.connect::<StorageService>(stranger).await?;
        let reads = vec![point(guard, read_version)];
        let answers = call(LIMIT, Stage::Read, |context| server.get(context, reads)).await;
        let ended = answers.and_then(|answers| answers.into_iter().try_for_each(|a| a.map(drop)));
        sent.push(("get: somebody else's key", refused(ErrorCode::WrongShard), ended));
    }
    Ok(sent)
}

/// Pushes that would change the guard, and other requests that only roles of the cluster send.
pub(super) async fn to_logs(
    network: &Network,
    state: &ClusterState,
    guard: &Key,
    read_version: Version,
) -> Result<Vec<Sent>, Error> {
    let Some(set) = state.log_sets.last().filter(|_| state.coordinator.is_some()) else {
        return Ok(Vec::new());
    };
    let log = network.connect::<LogService>(&pick(&set.logs).endpoint).await?;
    let mut encoder = Encoder::default();
    encoder.push(&Mutation::Set { key: guard.clone(), value: "changed".into() });
    let changes = encoder.finish();
    let tags: Vec<Tag> = state.storage_servers.iter().map(|server| server.tag).collect();
    let messages = |tags: &[Tag]| -> Vec<(Tag, Bytes)> {
        tags.iter().map(|&tag| (tag, changes.clone())).collect()
    };
    let push = |generation, previous_version, commit_version| PushRequest {
        generation,
        previous_version,
        commit_version,
        known_committed_version: Version::ZERO,
        messages: messages(&tags),
    };
    let (ours, next) = (set.generation, read_version.saturating_add(1_000_000_000));
    let tag = tags.first().copied().unwrap_or(Tag(0));
    let twice = PushRequest { messages: messages(&[tag, tag]), ..push(ours, next, next.next()) };
    let mut sent = Vec::new();
    for (name, code, request) in [
        ("push: no generation", ErrorCode::GenerationEnded, push(Generation(0), next, next.next())),
        (
            "push: the last generation",
            ErrorCode::GenerationEnded,
            push(Generation(u64::MAX), next, next.next()),
        ),
        ("push: back in time", ErrorCode::Protocol, push(ours, next.next(), next)),
        ("push: nowhere", ErrorCode::Protocol, push(ours, next, next)),
        ("push: off the chain", ErrorCode::Protocol, push(ours, Version::ZERO, Version(1))),
        ("push: a tag twice", ErrorCode::Protocol, twice),
    ] {
        let answer = call(LIMIT, Stage::Log, |context| log.push(context, request)).await;
        sent.push((name, refused(code), answer.and_then(|answer| answer).map(drop)));
    }
    let peek =
        PeekRequest { tag: Tag(1_000_000), after_version: Version::MAX, bytes_max: 0, wait_ms: 0 };
    let answer = call(LIMIT, Stage::Log, |context| log.peek(context, peek)).await;
    sent.push(("peek: the end", Expected::Success, answer.and_then(|answer| answer).map(drop)));
    let from_zero = PeekRequest { after_version: Version::ZERO, ..peek };
    let answer = call(LIMIT, Stage::Log, |context| log.peek(context, from_zero)).await;
    sent.push(("peek: nobody's", Expected::Success, answer.and_then(|answer| answer).map(drop)));
    let answer =
        call(LIMIT, Stage::Log, |context| log.pop(context, Tag(1_000_000), Version::MAX)).await;
    sent.push(("pop: nobody's", Expected::Success, answer.and_then(|answer| answer)));
    let lock = LockRequest { generation: Generation(0), metadata_after: Version::MAX };
    let answer = call(LIMIT, Stage::Log, |context| log.lock(context, lock)).await;
    let answer = answer.and_then(|answer| answer).map(drop);
    sent.push(("lock: no generation", refused(ErrorCode::GenerationEnded), answer));
    let answer = call(LIMIT, Stage::Log, |context| log.confirm(context, Generation(0))).await;
    let answer = answer.and_then(|answer| answer);
    sent.push(("confirm: no generation", refused(ErrorCode::GenerationEnded), answer));
    let copy = CopyRequest {
        after_version: Version::ZERO,
        through_version: Version::MAX,
        bytes_max: u32::MAX,
    };
    let answer = call(LIMIT, Stage::Log, |context| log.copy(context, copy)).await;
    let answer = answer.and_then(|answer| answer).map(drop);
    sent.push(("copy: of a log in use", refused(ErrorCode::InvalidArgument), answer));
    Ok(sent)
}

/// Requests to sequencer and resolvers that do not come from a proxy of theirs.
pub(super) async fn to_coordinator(
    network: &Network,
    state: &ClusterState,
) -> Result<Vec<Sent>, Error> {
    let Some(coordinator) = &state.coordinator else { return Ok(Vec::new()) };
    let mut sent = Vec::new();
    let ended = refused(ErrorCode::GenerationEnded);
    let sequencer = network.connect::<SequencerService>(&coordinator.sequencer).await?;
    for generation in [Generation(0), Generation(u64::MAX)] {
        let asked = |context| sequencer.begin_batch(context, generation, 0);
        let answer = call(LIMIT, Stage::Sequence, asked);
        let answer = answer.await.and_then(|answer| answer).map(drop);
        sent.push(("begin_batch: another generation", ended, answer));
        let answer = call(LIMIT, Stage::Sequence, |context| {
            sequencer.report_committed(context, generation, Version::MAX)
        });
        let answer = answer.await.and_then(|answer| answer);
        sent.push(("report_committed: another generation", ended, answer));
    }
    let resolver = pick(&coordinator.resolvers);
    let resolver = network.connect::<ResolverService>(&resolver.1).await?;
    let request = |generation, proxy, previous_version, commit_version| ResolveRequest {
        generation,
        proxy,
        previous_version,
        commit_version,
        transactions: Vec::new(),
        metadata: Vec::new(),
    };
    let (ours, late) = (state.generation, Version(u64::MAX - 1));
    for (name, code, request) in [
        (
            "resolve: another generation",
            ErrorCode::GenerationEnded,
            request(Generation(0), 0, late, Version::MAX),
        ),
        ("resolve: no such proxy", ErrorCode::Protocol, request(ours, 999, late, Version::MAX)),
        ("resolve: back in time", ErrorCode::Protocol, request(ours, 0, Version::MAX, late)),
        ("resolve: off the chain", ErrorCode::Protocol, request(ours, 0, Version(1), Version::MAX)),
    ] {
        let answer = call(LIMIT, Stage::Resolve, |context| resolver.resolve(context, request));
        let answer = answer.await.and_then(|answer| answer).map(drop);
        sent.push((name, refused(code), answer));
    }
    Ok(sent)
}
