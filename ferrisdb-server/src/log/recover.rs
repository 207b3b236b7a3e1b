//! What a restart makes of an instance's directory: what is cut, and what is refused.
//!
//! A crash can leave, and only at the end of the last segment, a write that never became durable. It was never
//! acknowledged, so it is cut: overwritten with zeros, so that none of its records can come back behind a new one.
//! Everything else that does not read as it was written is damage, and ends the restart with the file, the offset
//! and what was expected there. Nothing is ever skipped.
//!
//! ```text
//!   | header | 10->20 | 20->30 | ##### | 40->50 |        ##### does not decode. Is it torn, or damaged?
//!                              ^
//!                             200
//!
//!   40->50 says synced_before = 200 or less: one write with #####, and its sync was not reported. Cut both.
//!   40->50 says synced_before = 300:         ##### had been on disk. Refuse.
//! ```
//!
//! Damage in the very last write cannot be told from a torn one; the other logs of the set have it, too.
//!
//! What is valid need not be durable either: a process that dies leaves its writes in the cache of a kernel that lives
//! on, and after a sync that failed the cache may hold what the disk does not. So everything after the last
//! record's `synced_before` is written once more, and synced, before the log counts it as durable.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use ferrisdb_core::simulation::{Mark, mark};
use ferrisdb_core::{
    Error, ErrorCode, Result, Stage,
    runtime::{Disk, File, disk::OpenMode},
};

use super::{
    envelope::Damage,
    layout::Layout,
    machine::{Log, Recovered},
    segment::{self, HEADER_BYTES, Records, SegmentHeader},
    settings::LogSettings,
    state::{self, State},
};

/// The active segment: where the writer goes on.
pub(super) struct Tail {
    /// The file.
    pub(super) file: Box<dyn File>,
    /// Where the last record ends. All before is on disk.
    pub(super) end: u64,
    /// The length of the file, zeros included.
    pub(super) file_bytes: u64,
}

/// An instance, ready for work.
pub(super) struct Opened {
    /// The machine.
    pub(super) log: Log,
    /// Where it writes.
    pub(super) tail: Tail,
}

/// Makes the directory of a new instance. The state file comes last: a directory without one was not finished.
pub(super) async fn create(
    disk: &dyn Disk,
    directory: &Path,
    state: State,
    settings: &LogSettings,
) -> Result<Opened> {
    disk.remove_directory(directory).await?;
    disk.create_directory(directory).await?;
    let header = SegmentHeader {
        instance: state.instance,
        segment: state.first_segment,
        generation: state.generation,
        sealed_bytes: 0,
        previous_version: state.begin_version,
    };
    let file =
        disk.open(&directory.join(segment::file_name(header.segment)), OpenMode::New).await?;
    let mut encoded = BytesMut::new();
    header.encode(&mut encoded);
    file.write_and_sync(0, encoded.freeze()).await?;
    disk.replace(&directory.join(state::FILE_NAME), state.encode()).await?;
    let mut layout = Layout::new(settings);
    layout.push_segment(header.segment, header.previous_version);
    let recovered = Recovered {
        layout,
        history: VecDeque::new(),
        durable_version: state.begin_version,
        known_committed_version: state.begin_version,
        metadata: BTreeMap::new(),
        state,
    };
    let tail = Tail { file, end: HEADER_BYTES, file_bytes: HEADER_BYTES };
    Ok(Opened { log: Log::new(recovered, settings.clone()), tail })
}

/// Opens the directory of an instance. `None` if the instance was never finished, or retired: then the
/// directory is gone.
///
/// # Errors
///
/// [`ErrorCode::Corrupt`] for damage, [`ErrorCode::WrongDirectory`] for files of another release.
pub(super) async fn open(
    disk: &dyn Disk,
    directory: &Path,
    settings: &LogSettings,
) -> Result<Option<Opened>> {
    // Whoever wrote here may have been killed before the names were durable.
    disk.sync_directory(directory).await?;
    let segments: Vec<u64> =
        disk.list(directory).await?.iter().filter_map(|name| segment::number_of(name)).collect();
    let state_path = directory.join(state::FILE_NAME);
    let Some(encoded) = disk.read(&state_path).await? else {
        check_unfinished(disk, directory, &segments).await?;
        disk.remove_directory(directory).await?;
        return Ok(None);
    };
    let state = State::decode(&encoded).map_err(|damage| refuse(&state_path, 0, &damage))?;
    if state.locked_generation > state.generation {
        mark(Mark::LockFoundAtRestart);
    }
    if state.retired {
        remove_retired(disk, directory, segments).await?;
        return Ok(None);
    }
    let last_segment = check_files(disk, directory, &state, &segments).await?;
    recover(disk, directory, state, last_segment, settings).await.map(Some)
}

/// Removes the directory of an instance whose state says that it is retired. The state goes last.
pub(super) async fn remove_retired(
    disk: &dyn Disk,
    directory: &Path,
    segments: Vec<u64>,
) -> Result<()> {
    for segment in segments {
        disk.remove(&directory.join(segment::file_name(segment))).await?;
    }
    disk.remove_directory(directory).await
}

fn refuse(path: &Path, offset: u64, damage: &Damage) -> Error {
    let code = match damage {
        Damage::Format { .. } => ErrorCode::WrongDirectory,
        _ => ErrorCode::Corrupt,
    };
    let detail = format!("{} at byte {offset}: {damage}", path.display());
    Error::new(code, Stage::Process, detail)
}

async fn read_all(file: &dyn File) -> Result<Bytes> {
    let length = usize::try_from(file.len().await?).unwrap_or(usize::MAX);
    file.read_at(0, length).await
}

/// A directory without a state was never finished, if it has nothing but the beginning of segment 0.
async fn check_unfinished(disk: &dyn Disk, directory: &Path, segments: &[u64]) -> Result<()> {
    let has_records = match segments {
        [] => false,
        [0] => {
            let path = directory.join(segment::file_name(0));
            disk.open(&path, OpenMode::Existing).await?.len().await? > HEADER_BYTES
        }
        _ => true,
    };
    if has_records {
        let damage = Damage::Nonsense("expected a state beside the segments, found none".into());
        return Err(refuse(&directory.join(state::FILE_NAME), 0, &damage));
    }
    Ok(())
}

/// Checks that all segments are there, removes files that the state has given up and a last one whose header
/// never became durable. Returns the number of the last segment.
async fn check_files(
    disk: &dyn Disk,
    directory: &Path,
    state: &State,
    segments: &[u64],
) -> Result<u64> {
    let first = state.first_segment;
    for given_up in segments.iter().filter(|segment| **segment < first) {
        disk.remove(&directory.join(segment::file_name(*given_up))).await?;
    }
    let kept = segments.iter().filter(|segment| **segment >= first);
    let mut expected = first;
    for found in kept {
        if *found != expected {
            break;
        }
        expected += 1;
    }
    let last = segments.last().copied().unwrap_or(0);
    if expected != last + 1 {
        let damage = Damage::Nonsense("expected a segment, found no file".to_owned());
        return Err(refuse(&directory.join(segment::file_name(expected)), 0, &damage));
    }
    if last == first {
        return Ok(last);
    }
    let path = directory.join(segment::file_name(last));
    let file = read_all(&*disk.open(&path, OpenMode::Existing).await?).await?;
    match SegmentHeader::decode(&file) {
        Err(damage) if damage.may_be_torn() => {
            if let Some((at, synced)) = segment::find_proof_of_loss(&file, state.instance, last, 0)
            {
                return Err(refuse(&path, 0, &lost(&damage, at, synced)));
            }
            tracing::warn!(path = %path.display(), %damage, "removing a segment that was never begun");
            disk.remove(&path).await?;
            Ok(last - 1)
        }
        _ => Ok(last),
    }
}

fn lost(damage: &Damage, at: u64, synced: u64) -> Damage {
    Damage::Nonsense(format!(
        "{damage}; the record at byte {at} says that the first {synced} bytes were on disk"
    ))
}

/// Reads all segments, in order.
async fn recover(
    disk: &dyn Disk,
    directory: &Path,
    state: State,
    last_segment: u64,
    settings: &LogSettings,
) -> Result<Opened> {
    let mut recovered = Recovered {
        layout: Layout::new(settings),
        history: VecDeque::new(),
        durable_version: state.begin_version,
        known_committed_version: state.begin_version,
        metadata: BTreeMap::new(),
        state,
    };
    let mut before: Option<ReadThrough> = None;
    for number in recovered.state.first_segment..last_segment {
        let (_, read_through) =
            read_segment(disk, directory, number, &mut recovered, before).await?;
        before = Some(read_through);
    }
    let (file, read_through) =
        read_segment(disk, directory, last_segment, &mut recovered, before).await?;
    let tail = cut_tail(file, &read_through, &recovered.state).await?;
    Ok(Opened { log: Log::new(recovered, settings.clone()), tail })
}

/// A segment, read as far as its records go.
struct ReadThrough {
    path: PathBuf,
    number: u64,
    bytes: Bytes,
    /// Where the records end, and why there.
    end: u64,
    damage: Damage,
    /// How much of it was surely on disk.
    synced_before: u64,
}

async fn read_segment(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
    recovered: &mut Recovered,
    before: Option<ReadThrough>,
) -> Result<(Box<dyn File>, ReadThrough)> {
    let path = directory.join(segment::file_name(number));
    let file = disk.open(&path, OpenMode::Existing).await?;
    let bytes = read_all(&*file).await?;
    let header = SegmentHeader::decode(&bytes).map_err(|damage| refuse(&path, 0, &damage))?;
    check_header(&header, &path, number, recovered, before.as_ref())?;
    // The memory of the segment before is free for this one.
    drop(before);
    recovered.durable_version = header.previous_version;
    recovered.layout.push_segment(number, header.previous_version);
    let mut records = Records::new(&bytes, &header);
    for (_, decoded) in &mut records {
        recovered.note(&decoded.record, decoded.bytes);
    }
    let (end, synced_before) = (records.end(), records.synced_before());
    let damage = records.into_damage();
    Ok((file, ReadThrough { path, number, bytes, end, damage, synced_before }))
}

/// Checks that a header is of this place, and that the segment before ends where the header says.
fn check_header(
    header: &SegmentHeader,
    path: &Path,
    number: u64,
    recovered: &Recovered,
    before: Option<&ReadThrough>,
) -> Result<()> {
    let state = &recovered.state;
    let expected = (state.instance, number, state.generation);
    let found = (header.instance, header.segment, header.generation);
    if found != expected {
        let reason = format!(
            "expected the header of instance, segment and generation {expected:?}, found {found:?}"
        );
        return Err(refuse(path, 0, &Damage::Nonsense(reason)));
    }
    if let Some(before) = before
        && (before.end, recovered.durable_version) != (header.sealed_bytes, header.previous_version)
    {
        let reason = format!(
            "expected records up to byte {} and version {}, found them up to version {}: {}",
            header.sealed_bytes, header.previous_version, recovered.durable_version, before.damage
        );
        return Err(refuse(&before.path, before.end, &Damage::Nonsense(reason)));
    }
    Ok(())
}

/// Cuts what follows the valid records of the last segment, if a crash can have left it there, and makes sure
/// that the rest is on disk.
async fn cut_tail(file: Box<dyn File>, read: &ReadThrough, state: &State) -> Result<Tail> {
    let ReadThrough { path, number, bytes, end, damage, synced_before } = read;
    if !damage.may_be_torn() {
        return Err(refuse(path, *end, damage));
    }
    if let Some((at, synced)) = segment::find_proof_of_loss(bytes, state.instance, *number, *end) {
        return Err(refuse(path, *end, &lost(damage, at, synced)));
    }
    let (end_at, begin_at) = (*end as usize, *synced_before as usize);
    let garbage_end =
        bytes.iter().rposition(|byte| *byte != 0).map_or(end_at, |last| end_at.max(last + 1));
    if garbage_end > end_at {
        let cut_bytes = garbage_end - end_at;
        mark(Mark::TornTailCut);
        tracing::warn!(path = %path.display(), offset = end, cut_bytes, %damage, "cutting a torn tail");
    }
    let mut rewritten = BytesMut::from(&bytes[begin_at..end_at]);
    rewritten.put_bytes(0, garbage_end - end_at);
    file.write_and_sync(*synced_before, rewritten.freeze()).await?;
    Ok(Tail { file, end: *end, file_bytes: bytes.len() as u64 })
}

#[cfg(test)]
mod tests;
