//! Taking over from the logs of the generation before: whole batches, out of locked logs, into a new one.
//!
//! ```text
//!   old set       log 0: 30 a   40 a b            log 1: 30 a   40 a c         log 2: gone
//!   known committed 20, recovery version 40: (20, 40] may be missing on log 2, so it is copied
//!   new log 1     20 -> 30 a    30 -> 40 a c      its part of what both have together
//! ```
//!
//! What is known to be committed is on every log of the old set and stays there; what came after it is on those that
//! answered the recovery, perhaps on one of them alone for some tag. Copied, it is on as many logs as everything else.
//! One source of each copy group has all of it, so a source that this log does not reach is done without. A source may not
//! have got its lock yet; it is asked again for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Result, Stage, Tag, Version,
    limits::PEEK_BYTES_MAX,
    runtime::{self, Disk, disk::OpenMode},
    service::{
        controller::log_indexes,
        log::{CopiedBatch, CopyReply, CopyRequest, LogService, PushRequest},
        worker::RecruitLog,
    },
    transport::{Network, call},
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;

use super::{
    envelope::Damage,
    layout::Extent,
    record::{self, Place},
    segment,
};

/// How long a log may take to answer with some batches: a single one can be as long as a frame.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(8);
/// For how long a source is asked again that is not locked yet, and how often: its lock was sent before this log was asked for.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Bytes read at once; more if a single record needs them.
const CHUNK_BYTES: usize = 256 * 1024;

/// What a log says that is asked for a copy before it is locked: it may be soon.
pub(super) const NOT_LOCKED: ErrorCode = ErrorCode::Unavailable;

/// Where the batches asked for are, in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    /// The number of the log's instance, which its records name.
    pub instance: u64,
    /// Where to begin, and how far it is safe to go.
    pub extent: Extent,
}

/// Reads batches from the segment of a plan.
///
/// # Errors
///
/// [`ErrorCode::Disk`], [`ErrorCode::Corrupt`].
pub(super) async fn read(
    disk: &dyn Disk,
    directory: &Path,
    plan: &CopyPlan,
    request: &CopyRequest,
) -> Result<CopyReply> {
    let path = directory.join(segment::file_name(plan.extent.segment));
    let file = disk.open(&path, OpenMode::Existing).await?;
    let Extent { segment, offset, end } = plan.extent;
    let mut place = Place { instance: plan.instance, segment, offset };
    let bytes_max = (request.bytes_max as usize).min(PEEK_BYTES_MAX);
    let mut reply = CopyReply { batches: Vec::new(), through_version: request.after_version };
    let (mut bytes, mut chunk_bytes) = (0, CHUNK_BYTES);
    while place.offset < end && bytes < bytes_max && reply.through_version < request.through_version
    {
        let rest = end - place.offset;
        let length = chunk_bytes.min(usize::try_from(rest).unwrap_or(usize::MAX));
        let mut chunk = file.read_at(place.offset, length).await?;
        chunk_bytes = CHUNK_BYTES;
        loop {
            let decoded = match record::decode(&chunk, &place) {
                Ok(decoded) => decoded,
                // The rest of the chunk is the beginning of a record, or one record is longer than the chunk.
                Err(Damage::Short { need, .. }) if length as u64 != rest => {
                    chunk_bytes = chunk_bytes.max(need);
                    break;
                }
                Err(damage) => {
                    let detail = format!("{} at byte {}: {damage}", path.display(), place.offset);
                    return Err(Error::new(ErrorCode::Corrupt, Stage::Log, detail));
                }
            };
            chunk.advance(decoded.bytes as usize);
            place.offset += decoded.bytes;
            let record = decoded.record;
            if record.commit_version > request.through_version {
                return Ok(reply);
            }
            if record.commit_version > reply.through_version {
                // A batch can be as long as a frame, and goes alone then.
                let more: usize = record.messages.iter().map(|(_, message)| message.len()).sum();
                if !reply.batches.is_empty() && bytes + more > bytes_max {
                    return Ok(reply);
                }
                let copied =
                    |(tag, message): &(Tag, Bytes)| (*tag, Bytes::copy_from_slice(message));
                let messages: Vec<_> = record.messages.iter().map(copied).collect();
                bytes += messages.iter().map(|(_, message)| message.len()).sum::<usize>();
                reply.through_version = record.commit_version;
                reply.batches.push(CopiedBatch {
                    previous_version: record.previous_version,
                    commit_version: record.commit_version,
                    messages,
                });
            }
            if chunk.is_empty() || bytes >= bytes_max {
                break;
            }
        }
    }
    Ok(reply)
}

/// How far it is, for whoever asks meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    copied_bytes: AtomicU64,
    /// Sources of a copy group of which none has answered.
    waits_for: Mutex<Vec<Endpoint>>,
}

impl Gathering {
    /// The bytes that have come.
    pub(crate) fn copied_bytes(&self) -> u64 {
        self.copied_bytes.load(Ordering::Relaxed)
    }

    /// The sources that it waits for, one of which would do; none if it has all that it needs.
    pub(crate) fn waits_for(&self) -> Vec<Endpoint> {
        self.waits_for.lock().clone()
    }
}

/// Gets what a new log has to take over, as pushes in chain order.
///
/// # Errors
///
/// If a source does not answer, or if the sources do not have all batches up to the recovery version.
pub(crate) async fn gather(
    network: &Network,
    request: &RecruitLog,
    gathering: &Gathering,
) -> Result<Vec<PushRequest>> {
    let recovery_version = request.recruitment.recovery_version;
    if request.begin_version >= recovery_version {
        return Ok(Vec::new());
    }
    mark(Mark::TakenOver);
    let mut batches: BTreeMap<Version, (Version, BTreeMap<Tag, Bytes>)> = BTreeMap::new();
    for batch in gather_from_all(network, request, gathering).await? {
        let entry = batches.entry(batch.commit_version);
        let (previous, messages) =
            entry.or_insert_with(|| (batch.previous_version, BTreeMap::new()));
        if *previous != batch.previous_version {
            let detail = format!(
                "batch {} follows {previous} on one log and {} on another",
                batch.commit_version, batch.previous_version
            );
            return Err(Error::new(ErrorCode::Corrupt, Stage::Log, detail));
        }
        let keeps = |tag: Tag| {
            log_indexes(request.logs as usize, request.replication, tag)
                .any(|index| index == request.index as usize)
        };
        messages.extend(batch.messages.into_iter().filter(|(tag, _)| keeps(*tag)));
    }
    let mut reached = request.begin_version;
    let mut pushes = Vec::with_capacity(batches.len());
    for (commit_version, (previous_version, messages)) in batches {
        if previous_version != reached {
            return Err(missing(reached, previous_version));
        }
        reached = commit_version;
        pushes.push(PushRequest {
            generation: request.recruitment.generation,
            previous_version,
            commit_version,
            known_committed_version: request.begin_version,
            messages: messages.into_iter().collect(),
        });
    }
    if reached == recovery_version { Ok(pushes) } else { Err(missing(reached, recovery_version)) }
}

fn missing(after: Version, version: Version) -> Error {
    let detail = format!("the logs of the generation before do not have ({after}, {version}]");
    Error::new(ErrorCode::Corrupt, Stage::Log, detail)
}

/// What the sources have together: one of each copy group is enough, whoever is slow or out of reach.
async fn gather_from_all(
    network: &Network,
    request: &RecruitLog,
    gathering: &Gathering,
) -> Result<Vec<CopiedBatch>> {
    let copied_bytes = &gathering.copied_bytes;
    let groups = request.sources.copy_groups();
    let sources = request.sources.logs.iter().map(|(index, source)| async move {
        (*index as usize, gather_from(network, source, request, copied_bytes).await)
    });
    let mut answers: FuturesUnordered<_> = sources.collect();
    let (mut from, mut batches, mut failure) = (BTreeSet::new(), Vec::new(), None);
    let mut failed = BTreeSet::new();
    loop {
        let lacking = groups.without_member(|index| from.contains(&index));
        let members: BTreeSet<usize> =
            lacking.into_iter().flat_map(|group| groups.members(group)).collect();
        let waits_for = request.sources.logs.iter().filter(|(index, _)| {
            members.contains(&(*index as usize)) && !failed.contains(&(*index as usize))
        });
        *gathering.waits_for.lock() = waits_for.map(|(_, source)| source.clone()).collect();
        let is_enough = groups.has_member_of_each(|index| from.contains(&index))
            || planted(Plant::SkipCopy) && !from.is_empty();
        if is_enough {
            return Ok(batches);
        }
        match answers.next().await {
            Some((index, Ok(gathered))) => {
                from.insert(index);
                batches.extend(gathered);
            }
            Some((index, Err(error))) => {
                failed.insert(index);
                failure = Some(error);
            }
            None => {
                let (after, through) =
                    (request.begin_version, request.recruitment.recovery_version);
                return Err(failure.unwrap_or_else(|| missing(after, through)));
            }
        }
    }
}

async fn gather_from(
    network: &Network,
    source: &Endpoint,
    request: &RecruitLog,
    copied_bytes: &AtomicU64,
) -> Result<Vec<CopiedBatch>> {
    let through_version = request.recruitment.recovery_version;
    let locked_by = runtime::now() + LOCK_LIMIT;
    let gathered = async {
        let connected = network.connect::<LogService>(source);
        let client = runtime::timeout(CALL_LIMIT, Stage::Connect, connected).await??;
        let mut batches = Vec::new();
        let mut after_version = request.begin_version;
        while after_version < through_version {
            let bytes_max = PEEK_BYTES_MAX as u32;
            let request = CopyRequest { after_version, through_version, bytes_max };
            let reply = loop {
                let copied = call(CALL_LIMIT, Stage::Log, |context| client.copy(context, request));
                match copied.await? {
                    Err(error) if error.code() == NOT_LOCKED && runtime::now() < locked_by => {
                        runtime::sleep(LOCK_PAUSE).await;
                    }
                    reply => break reply?,
                }
            };
            if reply.through_version <= after_version {
                return Err(missing(after_version, through_version));
            }
            after_version = reply.through_version;
            let messages = reply.batches.iter().flat_map(|batch| &batch.messages);
            let bytes: usize = messages.map(|(_, message)| message.len() + 1).sum();
            copied_bytes.fetch_add(bytes as u64 + 1, Ordering::Relaxed);
            batches.extend(reply.batches);
        }
        Ok(batches)
    };
    gathered.await.map_err(|error: Error| error.at(source))
}
