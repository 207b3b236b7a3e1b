//! Reads at a version.

use serde::{Deserialize, Serialize};

use super::{controller::Progress, declare_service};
use crate::{
    digest::ValueDigest,
    error::Result,
    key::{Key, Value},
    range::KeyRange,
    version::Version,
};

/// A storage server.
#[tarpc::service]
pub trait Storage {
    /// Point reads, each at a version of its own; answers come in the order of the reads.
    async fn get(reads: Vec<PointRead>) -> Vec<Result<Option<VersionedValue>>>;
    /// The rows of a range, at a version, up to a limit, or as far as the server looks for one request (I-16).
    async fn get_range(request: RangeRead) -> Result<RangeReply>;
    /// How many bytes a range has at a version, or its lower end as far as one call goes.
    async fn measure(request: Measure) -> Result<Measured>;
    /// How far the server is.
    async fn progress() -> Result<Progress>;
    /// Begins and ends watches of a session.
    async fn change_watches(changes: WatchChanges) -> Result<()>;
    /// What happened to the watches of a session since it was asked last; waits for so many milliseconds if there is
    /// nothing to say.
    async fn watch_news(session: WatchSessionId, wait_ms: u32) -> Result<WatchNews>;
}

declare_service! {
    /// [`Storage`] as a service.
    StorageService, Storage, StorageRequest, StorageResponse, StorageClient
}

/// A read of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointRead {
    /// The key.
    pub key: Key,
    /// The version to read at (I-2).
    pub read_version: Version,
}

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionedValue {
    /// The value.
    pub value: Value,
    /// The version of the commit that wrote it.
    pub commit_version: Version,
}

/// A read of a range, which lies within one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRead {
    /// The keys.
    pub range: KeyRange,
    /// The version to read at (I-2).
    pub read_version: Version,
    /// Most rows to return; at least 1.
    pub rows_max: u32,
    /// Most bytes of keys and values to return; the first row comes in any case.
    pub bytes_max: u32,
    /// Whether to begin at the end of the range and go down.
    pub reverse: bool,
}

/// A row of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The version of the commit that wrote it.
    pub commit_version: Version,
}

/// Rows, in the direction of the read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeReply {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where to go on: a limit of the request, or the server's own, has ended the read. Upwards the rest of the range
    /// begins with this key, downwards it ends before it. All rows on the way there are in the reply, which may be none:
    /// deleted keys take time and yield nothing. `None` if nothing is left.
    pub continue_at: Option<Key>,
}

impl RangeReply {
    /// The part of `range` whose rows these are, all of them; `None` if the reply makes no sense. A reply comes from
    /// another process: its rows have to be in order and inside of what was asked for, and it has to get somewhere.
    pub fn covered(&self, range: &KeyRange, reverse: bool) -> Option<KeyRange> {
        let mut covered = range.clone();
        if let Some(key) = &self.continue_at {
            if reverse {
                covered.begin = key.clone();
            } else {
                covered.end = key.clone();
            }
            let is_inside = range.begin <= *key && *key <= range.end;
            if !is_inside || covered.is_empty() {
                return None;
            }
        }
        let in_order = self.rows.windows(2).all(|pair| {
            if reverse { pair[1].key < pair[0].key } else { pair[0].key < pair[1].key }
        });
        let are_inside = match (self.rows.first(), self.rows.last()) {
            (Some(first), Some(last)) => {
                covered.contains(&first.key) && covered.contains(&last.key)
            }
            _ => true,
        };
        (in_order && are_inside).then_some(covered)
    }
}

/// A question about the size of a range, which lies within one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// The keys.
    pub range: KeyRange,
    /// The version to measure at (I-2).
    pub read_version: Version,
    /// A split point is wanted for each so many bytes; zero for none.
    pub chunk_bytes: u64,
    /// Bytes before the range that belong to its first chunk.
    pub has_passed: u64,
}

/// The size of a range: counted, or estimated if it is large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The bytes of keys and values below `through`.
    pub bytes: u64,
    /// How far that is: the range's end, if one call was enough.
    pub through: Key,
    /// Where chunks end, in order.
    pub split_points: Vec<Key>,
    /// Bytes since the last split point.
    pub has_passed: u64,
}

/// One client's watches on one server. Drawn at random by the client, which gives it up with the first call that
/// fails, and begins all its watches again in another session: so no answer that was lost needs to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WatchSessionId(pub u64);

/// Changes of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchChanges {
    /// The session.
    pub session: WatchSessionId,
    /// Whether these are its first ones. If they are not, a server that does not know it has forgotten its watches.
    pub begins_session: bool,
    /// Watches to begin.
    pub begin: Vec<Watched>,
    /// Watches to end, by number.
    pub end: Vec<u64>,
}

/// A key that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// By what its client calls it.
    pub number: u64,
    /// The key.
    pub key: Key,
    /// The value that the client knows: there is news when the key has another one. A digest, because both sides
    /// keep it for as long as the watch lasts, and values can be long.
    pub known: Option<ValueDigest>,
    /// A committed version at which the key had this value. What the server has of earlier versions is no news.
    pub known_version: Version,
}

/// News of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchNews {
    /// How far the server was: a change up to here that has happened to a watch is in these news, or was in earlier
    /// ones, unless there are more than fit in.
    pub applied_version: Version,
    /// The watches that have ended, by number.
    pub ended: Vec<(u64, WatchEnd)>,
}

/// How a watch has ended on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchEnd {
    /// The key has had another value at this version, which may not be committed and be rolled back.
    Changed(Version),
    /// The server does not hold the key.
    WrongShard,
    /// The server has too many watches.
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(rows: &[&str], continue_at: Option<&str>, reverse: bool) -> Option<String> {
        let row = |key: &&str| Row {
            key: Key::from(*key),
            value: "v".into(),
            commit_version: Version(1),
        };
        let rows = rows.iter().map(row).collect();
        let reply = RangeReply { rows, continue_at: continue_at.map(Key::from) };
        reply.covered(&KeyRange::new("b", "k"), reverse).map(|range| range.to_string())
    }

    #[test]
    fn a_reply_covers_what_lies_before_the_place_to_go_on_at() {
        let some = |begin: &str, end: &str| Some(KeyRange::new(begin, end).to_string());
        assert_eq!(covered(&["b", "d"], None, false), some("b", "k"));
        assert_eq!(covered(&["b", "d"], Some("e"), false), some("b", "e"));
        assert_eq!(covered(&["d", "b"], Some("b"), true), some("b", "k"));
        assert_eq!(covered(&["h"], Some("f"), true), some("f", "k"));
        assert_eq!(covered(&[], Some("d"), false), some("b", "d"), "nothing but deleted keys");
        assert_eq!(covered(&[], None, true), some("b", "k"));
    }

    #[test]
    fn a_reply_that_makes_no_sense_is_noticed() {
        assert_eq!(covered(&[], Some("b"), false), None, "it gets nowhere");
        assert_eq!(covered(&[], Some("k"), true), None, "it gets nowhere");
        assert_eq!(covered(&[], Some("l"), false), None, "outside");
        assert_eq!(covered(&[], Some("a"), true), None, "outside");
        assert_eq!(covered(&["d", "c"], None, false), None, "no order");
        assert_eq!(covered(&["c", "d"], None, true), None, "no order");
        assert_eq!(covered(&["d", "d"], None, false), None, "twice");
        assert_eq!(covered(&["a"], None, false), None, "outside");
        assert_eq!(covered(&["k"], None, false), None, "outside");
        assert_eq!(covered(&["b", "e"], Some("e"), false), None, "behind the place to go on at");
        assert_eq!(covered(&["d"], Some("e"), true), None, "behind the place to go on at");
    }
}
