//! What a controller remembers across restarts.
//!
//! ```text
//!   "FDBCREC1"   8 bytes, the format and its version
//!   u32          crc32c of the rest, big-endian
//!   record       in the wire encoding
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use ferrisdb_core::{
    ClusterId, Error, ErrorCode, Generation, ProcessId, Result, Stage, Tag, Version,
    service::controller::{CoordinatorMembers, LogSet, Shard, StorageServer},
    transport,
};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"FDBCREC1";

/// The durable state of a cluster's control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// How often a controller has started with this record; keeps published revisions ascending.
    pub starts: u32,
    /// The newest generation that was begun. Beginning the next one is what fences all before it.
    pub generation: Generation,
    /// The newest generation that was activated, if it is not over.
    pub active: Option<ActiveGeneration>,
    /// The log sets that still matter, oldest first; the last one is the newest that was activated.
    pub log_sets: Vec<LogSet>,
    /// All storage servers. Empty until the cluster has its storage.
    pub storage_servers: Vec<StorageServer>,
    /// Who holds which keys.
    pub shards: Vec<Shard>,
}

/// The members of a live generation, to recognise them by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveGeneration {
    /// Where its roles are reached.
    pub coordinator: CoordinatorMembers,
    /// The processes that host them, each with the incarnation that was recruited.
    pub processes: Vec<(ProcessId, u64)>,
}

impl ClusterRecord {
    /// The record of a cluster that has nothing yet.
    pub fn new(cluster_id: ClusterId) -> Self {
        ClusterRecord {
            cluster_id,
            starts: 0,
            generation: Generation(0),
            active: None,
            log_sets: Vec::new(),
            storage_servers: Vec::new(),
            shards: Vec::new(),
        }
    }

    /// The tag of a storage server's process, if it has one.
    pub fn tag_of(&self, process: ProcessId) -> Option<Tag> {
        self.storage_servers.iter().find(|s| s.process == process).map(|server| server.tag)
    }

    /// Drops the log sets that no storage server needs any more: all of them have `durable_version` on disk.
    ///
    /// Returns whether there were any.
    pub fn drop_drained(&mut self, durable_version: Version) -> bool {
        let before = self.log_sets.len();
        self.log_sets.retain(|set| set.end_version.is_none_or(|end| end > durable_version));
        self.log_sets.len() != before
    }

    /// The file's contents.
    pub fn to_bytes(&self) -> Bytes {
        let encoded =
            transport::encode(self).expect("a record is far smaller than the greatest frame");
        let mut file = BytesMut::with_capacity(encoded.len() + 12);
        file.put_slice(MAGIC);
        file.put_u32(crc32c::crc32c(&encoded));
        file.put_slice(&encoded);
        file.freeze()
    }

    /// The inverse of [`ClusterRecord::to_bytes`].
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Corrupt`] if the file is damaged, [`ErrorCode::WrongDirectory`] if it is of another kind.
    pub fn from_bytes(file: &[u8]) -> Result<Self> {
        let error = |code, detail: &str| Error::new(code, Stage::Control, detail);
        let Some((magic, rest)) = file.split_first_chunk::<8>() else {
            return Err(error(ErrorCode::Corrupt, "the cluster record is cut short"));
        };
        if magic != MAGIC {
            return Err(error(ErrorCode::WrongDirectory, "not a cluster record of this version"));
        }
        let Some((checksum, encoded)) = rest.split_first_chunk::<4>() else {
            return Err(error(ErrorCode::Corrupt, "the cluster record is cut short"));
        };
        if u32::from_be_bytes(*checksum) != crc32c::crc32c(encoded) {
            return Err(error(ErrorCode::Corrupt, "the cluster record's checksum is wrong"));
        }
        transport::decode(encoded)
            .map_err(|cause| error(ErrorCode::Corrupt, &format!("the cluster record: {cause}")))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ferrisdb_core::{Endpoint, id::Address, service::controller::LogMember};

    use super::*;

    pub(in crate::controller) fn log_set(generation: u64, end: Option<u64>) -> LogSet {
        let endpoint = Endpoint { address: Address::new("log:1"), instance: generation };
        LogSet {
            generation: Generation(generation),
            logs: vec![LogMember { process: ProcessId(7), endpoint }],
            replication: 1,
            begin_version: Version(generation * 100),
            end_version: end.map(Version),
        }
    }

    #[test]
    fn round_trip_and_every_flipped_bit_is_noticed() {
        let mut record = ClusterRecord::new(ClusterId(5));
        record.log_sets = vec![log_set(1, Some(200)), log_set(2, None)];
        let file = record.to_bytes();
        assert_eq!(ClusterRecord::from_bytes(&file).unwrap(), record);
        for bit in 0..file.len() * 8 {
            let mut damaged = file.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ClusterRecord::from_bytes(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..file.len() {
            assert!(ClusterRecord::from_bytes(&file[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn golden_bytes() {
        let record =
            ClusterRecord { generation: Generation(3), ..ClusterRecord::new(ClusterId(5)) };
        let encoded = [5, 0, 3, 0, 0, 0, 0];
        let mut file = b"FDBCREC1".to_vec();
        file.extend_from_slice(&crc32c::crc32c(&encoded).to_be_bytes());
        file.extend_from_slice(&encoded);
        assert_eq!(record.to_bytes(), file);
    }

    #[test]
    fn a_drained_set_is_dropped_and_the_live_one_is_not() {
        let mut record = ClusterRecord::new(ClusterId(5));
        record.log_sets = vec![log_set(1, Some(200)), log_set(2, Some(300)), log_set(3, None)];
        assert!(!record.drop_drained(Version(199)));
        assert!(record.drop_drained(Version(200)));
        assert!(record.drop_drained(Version::MAX));
        assert_eq!(record.log_sets, [log_set(3, None)]);
    }
}
