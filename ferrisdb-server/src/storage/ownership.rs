//! Which keys a storage server answers for: the shards that have its tag in their team (I-3).
//!
//! ```text
//!   shards      ''..'g' on 0,1     'g'..'p' on 1,2     'p'..'\xff\xff' on 2,0
//!   of tag 1    ''..'g'            'g'..'p'            .
//! ```
//!
//! Neighbouring shards stay apart here: a range read has to lie within one.

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage, Tag, service::controller::ClusterState,
};

/// The shards of one storage server, as one cluster state has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// No state of the cluster was learnt yet.
    Unknown,
    /// The shards, in key order.
    Shards(Vec<KeyRange>),
}

impl Ownership {
    /// The shards of `tag`; none without a tag.
    pub fn new(cluster: &ClusterState, tag: Option<Tag>) -> Ownership {
        let owned =
            cluster.shards.iter().filter(|shard| tag.is_some_and(|tag| shard.team.contains(&tag)));
        Ownership::Shards(owned.map(|shard| shard.range.clone()).collect())
    }

    /// Whether the server answers for a key.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::WrongShard`], or [`ErrorCode::Unavailable`] as long as nobody has said.
    pub fn check_key(&self, key: &[u8]) -> Result<()> {
        match self.shard_of(key)? {
            Some(_) => Ok(()),
            None => {
                Err(wrong_shard(format!("{:?} is in no shard of this server", Key::copy_from(key))))
            }
        }
    }

    /// Whether the server answers for a range: it lies within one of its shards.
    ///
    /// # Errors
    ///
    /// As [`Ownership::check_key`], and [`ErrorCode::InvertedRange`].
    pub fn check_range(&self, range: &KeyRange) -> Result<()> {
        if range.begin > range.end {
            return Err(Error::new(ErrorCode::InvertedRange, Stage::Read, format!("{range:?}")));
        }
        match self.shard_of(&range.begin)? {
            Some(shard) if range.end <= shard.end => Ok(()),
            Some(shard) => Err(wrong_shard(format!("{range:?} leaves the shard {shard:?}"))),
            None => Err(wrong_shard(format!("{range:?} is in no shard of this server"))),
        }
    }

    fn shard_of(&self, key: &[u8]) -> Result<Option<&KeyRange>> {
        match self {
            Ownership::Unknown => {
                let detail = "the server has not learnt its shards yet";
                Err(Error::new(ErrorCode::Unavailable, Stage::Read, detail))
            }
            Ownership::Shards(shards) => {
                let index = shards.partition_point(|shard| shard.end.as_slice() <= key);
                Ok(shards.get(index).filter(|shard| shard.contains(key)))
            }
        }
    }
}

fn wrong_shard(detail: String) -> Error {
    Error::new(ErrorCode::WrongShard, Stage::Read, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<()>) -> Option<ErrorCode> {
        result.err().map(|error| error.code())
    }

    #[test]
    fn keys_and_ranges_lie_within_one_shard() {
        let shards = Ownership::Shards(vec![
            KeyRange::new("b", "d"),
            KeyRange::new("d", "f"),
            KeyRange::new("x", "z"),
        ]);
        for key in ["b", "cc", "d", "x"] {
            assert_eq!(code(shards.check_key(key.as_bytes())), None, "{key}");
        }
        for key in ["", "a", "f", "w", "z"] {
            assert_eq!(
                code(shards.check_key(key.as_bytes())),
                Some(ErrorCode::WrongShard),
                "{key}"
            );
        }
        let check = |begin: &str, end: &str| code(shards.check_range(&KeyRange::new(begin, end)));
        assert_eq!(check("b", "d"), None);
        assert_eq!(check("e", "f"), None);
        assert_eq!(check("c", "e"), Some(ErrorCode::WrongShard), "two shards");
        assert_eq!(check("a", "c"), Some(ErrorCode::WrongShard));
        assert_eq!(check("c", "b"), Some(ErrorCode::InvertedRange));
        assert_eq!(code(Ownership::Unknown.check_key(b"b")), Some(ErrorCode::Unavailable));
    }
}
