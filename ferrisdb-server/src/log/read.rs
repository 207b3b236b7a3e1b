//! Serving a lagging reader from the segments, in bounded steps.
//!
//! A plan names a part of one segment that begins with a record at or before the first one wanted. It is read in
//! chunks until the reader has enough, or has been taken far enough on: the next peek goes on from there.

use std::path::Path;

use bytes::{Buf as _, Bytes};
use ferrisdb_core::{
    Error, ErrorCode, Result, Stage, Version,
    limits::PEEK_BYTES_MAX,
    runtime::{Disk, disk::OpenMode},
    service::log::PeekReply,
};

use super::{
    envelope::Damage,
    machine::ReadPlan,
    record::{self, Place},
    segment,
};

/// Bytes read at once; more if a single record needs them.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes after which a reader is answered, even if nothing was for it.
const SCAN_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Carries out a plan.
///
/// # Errors
///
/// [`ErrorCode::Disk`], also if the segment has been removed since; [`ErrorCode::Corrupt`].
pub(super) async fn read(disk: &dyn Disk, directory: &Path, plan: &ReadPlan) -> Result<PeekReply> {
    let path = directory.join(segment::file_name(plan.extent.segment));
    let file = disk.open(&path, OpenMode::Existing).await?;
    let mut collector = Collector::new(plan);
    let mut chunk_bytes = CHUNK_BYTES;
    while collector.wants_more() {
        let rest = plan.extent.end - collector.place.offset;
        let length = chunk_bytes.min(usize::try_from(rest).unwrap_or(usize::MAX));
        let chunk = file.read_at(collector.place.offset, length).await?;
        chunk_bytes = match collector.collect(chunk) {
            Ok(()) => CHUNK_BYTES,
            // One record is longer than the chunk.
            Err(Damage::Short { need, .. }) if length < need && need as u64 <= rest => need,
            Err(damage) => {
                let offset = collector.place.offset;
                let detail = format!("{} at byte {offset}: {damage}", path.display());
                tracing::error!(detail, "the log is damaged");
                return Err(Error::new(ErrorCode::Corrupt, Stage::Log, detail));
            }
        };
    }
    Ok(collector.finish())
}

struct Collector<'a> {
    plan: &'a ReadPlan,
    /// Where the next record begins.
    place: Place,
    messages: Vec<(Version, Bytes)>,
    message_bytes: usize,
    /// All records up to here were looked at.
    complete_through: Version,
}

impl<'a> Collector<'a> {
    fn new(plan: &'a ReadPlan) -> Collector<'a> {
        let place = Place {
            instance: plan.instance,
            segment: plan.extent.segment,
            offset: plan.extent.offset,
        };
        let complete_through = plan.request.after_version;
        Collector { plan, place, messages: Vec::new(), message_bytes: 0, complete_through }
    }

    fn is_full(&self) -> bool {
        let bytes_max = (self.plan.request.bytes_max as usize).min(PEEK_BYTES_MAX);
        !self.messages.is_empty() && self.message_bytes >= bytes_max
    }

    fn wants_more(&self) -> bool {
        let scanned = self.place.offset - self.plan.extent.offset;
        let has_moved = self.complete_through > self.plan.request.after_version;
        self.place.offset < self.plan.extent.end
            && !self.is_full()
            && !(has_moved && scanned >= SCAN_BYTES_MAX)
    }

    /// Takes the whole records at the beginning of a chunk. There must be one.
    fn collect(&mut self, mut chunk: Bytes) -> Result<(), Damage> {
        let mut count = 0;
        while !self.is_full() && !chunk.is_empty() {
            let decoded = match record::decode(&chunk, &self.place) {
                Err(Damage::Short { .. }) if count > 0 => break,
                decoded => decoded?,
            };
            count += 1;
            chunk.advance(decoded.bytes as usize);
            self.place.offset += decoded.bytes;
            let version = decoded.record.commit_version;
            if version <= self.complete_through {
                continue;
            }
            self.complete_through = version;
            let messages = decoded.record.messages;
            let tag = self.plan.request.tag;
            if let Ok(index) = messages.binary_search_by_key(&tag, |(tag, _)| *tag) {
                // A copy: a slice would keep the whole chunk in memory until the answer is sent.
                let message = Bytes::copy_from_slice(&messages[index].1);
                self.message_bytes += message.len();
                self.messages.push((version, message));
            }
        }
        // An empty chunk: the file is shorter than the log has written it.
        if count == 0 { Err(Damage::Short { need: 1, have: 0 }) } else { Ok(()) }
    }

    fn finish(self) -> PeekReply {
        let through_version = self.complete_through;
        let durable_version = self.plan.reply.through_version;
        assert!(
            through_version <= durable_version,
            "read through {through_version}, durable {durable_version} (I-5)"
        );
        PeekReply { messages: self.messages, through_version, ..self.plan.reply.clone() }
    }
}
