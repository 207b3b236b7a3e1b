//! What the controllers remember together: the one value that their group agrees on.
//!
//! ```text
//!   "FDBCREC3"   8 bytes, the format and its version
//!   u32          crc32c of the rest, big-endian
//!   record       in the wire encoding
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use ferrisdb_core::{
    ClusterId, Endpoint, Error, ErrorCode, Generation, ProcessId, Result, ShardMap, Stage, Tag,
    Version,
    id::Address,
    service::controller::{
        Configuration, CoordinatorMembers, LogSet, ProcessSelector, StorageServer, is_selected,
    },
    transport,
};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"FDBCREC3";

/// The durable state of a cluster's control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// How often a controller has begun to lead with this record.
    pub reigns: u32,
    /// The shape of the cluster.
    pub configuration: Configuration,
    /// The newest generation that was begun. Beginning the next one is what fences all before it.
    pub generation: Generation,
    /// The newest generation that was activated, if it is not over.
    pub active: Option<ActiveGeneration>,
    /// The log sets that still matter, oldest first; the last one is the newest that was activated.
    pub log_sets: Vec<LogSet>,
    /// All storage servers, by tag. Empty until the cluster has its storage.
    pub storage_servers: Vec<StorageServer>,
    /// The tag that the next storage server gets.
    pub next_tag: Tag,
    /// Who holds which keys, at `metadata_version`.
    pub shards: ShardMap,
    /// Up to where the changes of the shard map were followed; never less than where the newest log set's
    /// generation began.
    pub metadata_version: Version,
    /// When the map was changed last: what servers say of their copies counts once they have this on disk.
    pub shards_version: Version,
    /// Processes that shall keep no data and no roles, as an operator has named them.
    pub excluded: Vec<ProcessSelector>,
    /// The newest generation that was known when the controllers lost their majority for good, until the first one after that is
    /// activated: see [`super::force`].
    pub forced_after: Option<Generation>,
}

/// How far the generation goes ahead when a controller is made to go on alone.
const FORCED_GENERATIONS: u64 = 1 << 20;
/// The same for reigns, and with them for the revisions that clients compare.
const FORCED_REIGNS: u32 = 1 << 16;

/// The members of a live generation, to recognise them by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveGeneration {
    /// Where its roles are reached.
    pub coordinator: CoordinatorMembers,
    /// The processes that host them and its logs.
    pub members: Vec<Member>,
}

/// A process that hosts roles of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub process: ProcessId,
    /// In which of its lives it was recruited.
    pub incarnation: u64,
    /// Its worker service.
    pub worker: Endpoint,
}

impl ClusterRecord {
    /// The record of a cluster that has nothing yet.
    pub fn new(cluster_id: ClusterId, configuration: Configuration) -> Self {
        ClusterRecord {
            cluster_id,
            reigns: 0,
            configuration,
            generation: Generation(0),
            active: None,
            log_sets: Vec::new(),
            storage_servers: Vec::new(),
            next_tag: Tag(0),
            shards: ShardMap::default(),
            metadata_version: Version::ZERO,
            shards_version: Version::ZERO,
            excluded: Vec::new(),
            forced_after: None,
        }
    }

    /// Takes the record over from a group that is lost: nothing that its members may still decide counts any more.
    pub fn force(&mut self) {
        // If this is asked for twice, what was not known the first time still is not.
        self.forced_after = Some(self.told_generation());
        self.generation = Generation(self.generation.0 + FORCED_GENERATIONS);
        self.reigns += FORCED_REIGNS;
        self.active = None;
    }

    /// The generation that everybody is told. Members of older ones retire, and logs of older ones that are not listed are
    /// deleted; as long as the record may turn out to be an old one, that is not to happen to what it does not know.
    pub fn told_generation(&self) -> Generation {
        self.forced_after.unwrap_or(self.generation)
    }

    /// Whether a generation is one that the lost group has begun without this record's knowledge: what was committed in it
    /// would be forgotten by a recovery.
    pub fn is_unknown(&self, generation: Generation) -> bool {
        let Some(known) = self.forced_after else { return false };
        let forced = Generation(known.0 + FORCED_GENERATIONS);
        known < generation && generation <= forced
    }

    /// Whether a process is excluded, by its address or by its identity.
    pub fn is_excluded(&self, process: ProcessId, at: &Address) -> bool {
        is_selected(&self.excluded, process, at)
    }

    /// The storage server of a process, if it has one.
    pub fn storage_server(&self, process: ProcessId) -> Option<&StorageServer> {
        self.storage_servers.iter().find(|server| server.process == process)
    }

    /// Whether there is a first generation, or could have been: the keyspace has been given to somebody.
    pub fn is_created(&self) -> bool {
        !self.shards.is_empty()
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
    use ferrisdb_core::{
        id::Address,
        service::controller::{LogMember, Redundancy},
    };

    use super::*;

    pub(in crate::controller) fn log_set(generation: u64, end: Option<u64>) -> LogSet {
        let endpoint = Endpoint { address: Address::new("log:1"), instance: generation };
        LogSet {
            generation: Generation(generation),
            logs: vec![LogMember { process: ProcessId(7), endpoint }],
            replication: 1,
            begin_version: Version(generation * 100),
            recovery_version: Version(generation * 100),
            end_version: end.map(Version),
        }
    }

    pub(in crate::controller) fn configuration() -> Configuration {
        Configuration {
            redundancy: Redundancy::Double,
            logs: 3,
            proxies: 1,
            resolvers: 1,
            storage_replace_after_ms: 10_000,
        }
    }

    #[test]
    fn round_trip_and_every_flipped_bit_is_noticed() {
        let mut record = ClusterRecord::new(ClusterId(5), configuration());
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
        let record = ClusterRecord {
            generation: Generation(3),
            ..ClusterRecord::new(ClusterId(5), configuration())
        };
        let encoded = [5, 0, 1, 3, 1, 1, 251, 16, 39, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut file = b"FDBCREC3".to_vec();
        file.extend_from_slice(&crc32c::crc32c(&encoded).to_be_bytes());
        file.extend_from_slice(&encoded);
        assert_eq!(record.to_bytes(), file);
    }

    #[test]
    fn a_forced_record_knows_what_it_does_not_know() {
        let mut record = ClusterRecord::new(ClusterId(5), configuration());
        record.generation = Generation(7);
        assert!(!record.is_unknown(Generation(8)));
        record.force();
        assert!(record.generation > Generation(1_000_000) && record.active.is_none());
        let next = record.generation.next();
        for (generation, is_unknown) in [(6, false), (7, false), (8, true), (9_999, true)] {
            assert_eq!(record.is_unknown(Generation(generation)), is_unknown, "{generation}");
        }
        assert!(!record.is_unknown(next));
        // Until it is known that there is nothing newer, nobody is told to retire what is.
        assert_eq!(record.told_generation(), Generation(7));
        record.log_sets = vec![log_set(6, None)];
        assert_eq!(record.told_generation(), Generation(7));
        record.generation = next;
        assert_eq!(record.told_generation(), Generation(7));
        // Asked for again, it knows no more than the first time; what it has tried itself since is not unknown.
        record.force();
        assert_eq!(record.told_generation(), Generation(7));
        assert!(record.is_unknown(Generation(8)) && !record.is_unknown(next));
        assert_eq!(ClusterRecord::from_bytes(&record.to_bytes()).unwrap(), record);
    }

    #[test]
    fn a_drained_set_is_dropped_and_the_live_one_is_not() {
        let mut record = ClusterRecord::new(ClusterId(5), configuration());
        record.log_sets = vec![log_set(1, Some(200)), log_set(2, Some(300)), log_set(3, None)];
        assert!(!record.drop_drained(Version(199)));
        assert!(record.drop_drained(Version(200)));
        assert!(record.drop_drained(Version::MAX));
        assert_eq!(record.log_sets, [log_set(3, None)]);
    }
}
