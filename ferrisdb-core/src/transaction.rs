//! What a transaction sends to commit, and what comes back.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorCode, Result, Stage},
    id::ProcessId,
    key::Key,
    limits,
    mutation::Mutation,
    range::KeyRange,
    shard,
    version::{Version, Versionstamp},
};

/// Tells the attempts of one transaction from all others, so that a retry can find out its fate (I-6).
pub type IdempotencyId = u128;

/// A transaction, ready to be committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The version all reads were made at. The resolver compares it with later writes.
    pub read_version: Version,
    /// What was read: a later write to any of it is a conflict (I-15).
    pub read_conflicts: Vec<KeyRange>,
    /// What counts as written, for the read conflicts of later transactions.
    pub write_conflicts: Vec<KeyRange>,
    /// The changes, in the order in which they were made.
    pub mutations: Vec<Mutation>,
    /// Set when the client wants to find out later whether this commit took effect.
    pub idempotency_id: Option<IdempotencyId>,
    /// Whether a conflict is answered with all the ranges that conflicted, however many.
    pub report_conflicts: bool,
    /// Whether the transaction may write to the system keyspace.
    pub may_write_system_keys: bool,
    /// Whether the transaction changes the shard map, see [`crate::shard`]. It does nothing else, and all its
    /// conflict ranges are in the system keyspace. Sent by controllers.
    pub changes_shard_map: bool,
}

/// A commit that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The transaction's place in the total order; holds its commit version.
    pub versionstamp: Versionstamp,
}

/// Why a transaction was not committed although it was well-formed and its cluster was well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// What it read that was written later: all of it if the request asked for that, or else some of it.
    pub reads: Vec<ConflictingRead>,
}

/// A read that was overtaken by a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConflictingRead {
    /// Index into the request's read conflicts.
    pub index: u32,
    /// When some key of that range was last written.
    pub written_at: Version,
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitOutcome {
    /// It took effect.
    Committed(Committed),
    /// It conflicts with a transaction that committed after its read version.
    Conflict(Conflict),
}

/// Which client or proxy something came from; for logs and diagnosis only.
pub type Origin = ProcessId;

impl CommitRequest {
    /// The bytes that count against [`limits::TRANSACTION_BYTES_MAX`].
    pub fn size(&self) -> usize {
        let mutations: usize = self.mutations.iter().map(Mutation::size).sum();
        let ranges = self.read_conflicts.iter().chain(&self.write_conflicts);
        mutations + ranges.map(|range| range.begin.len() + range.end.len()).sum::<usize>()
    }

    /// Checks every limit. The client does so before it sends anything, the proxy when it arrives.
    ///
    /// # Errors
    ///
    /// The first limit that is passed, with the figure and the bound.
    pub fn check(&self, stage: Stage) -> Result<()> {
        let key_end = if self.may_write_system_keys { Key::SYSTEM_END } else { Key::USER_END };
        let items = self.mutations.len() + self.read_conflicts.len() + self.write_conflicts.len();
        // The client adds to the transaction what it needs itself, once it has checked the user's part.
        let (more_items, more_bytes) = match stage {
            Stage::Client => (0, 0),
            _ => (limits::TRANSACTION_OVERHEAD_ITEMS_MAX, limits::TRANSACTION_OVERHEAD_BYTES_MAX),
        };
        if items > limits::TRANSACTION_ITEMS_MAX + more_items {
            let detail = format!("{items} items, {} are allowed", limits::TRANSACTION_ITEMS_MAX);
            return Err(Error::new(ErrorCode::TransactionTooLarge, stage, detail));
        }
        let size = self.size();
        if size > limits::TRANSACTION_BYTES_MAX + more_bytes {
            let detail = format!("{size} bytes, {} are allowed", limits::TRANSACTION_BYTES_MAX);
            return Err(Error::new(ErrorCode::TransactionTooLarge, stage, detail));
        }
        for mutation in &self.mutations {
            check_mutation(mutation, &key_end, stage)?;
            self.check_shard_map(mutation, stage)?;
        }
        if self.changes_shard_map {
            let ranges = self.read_conflicts.iter().chain(&self.write_conflicts);
            if let Some(range) = ranges.into_iter().find(|range| range.begin < Key::USER_END) {
                let detail = format!("a change of the shard map conflicts by {range}");
                return Err(Error::new(ErrorCode::KeyOutsideLegalRange, stage, detail));
            }
        }
        for range in self.write_conflicts.iter().chain(&self.read_conflicts) {
            check_range(range, &Key::SYSTEM_END, stage)?;
        }
        Ok(())
    }

    /// A transaction changes the shard map and nothing else, or leaves it alone.
    fn check_shard_map(&self, mutation: &Mutation, stage: Stage) -> Result<()> {
        let touches = match mutation {
            Mutation::ClearRange { range } => {
                range.intersection(&shard::key_servers_range()).is_some()
            }
            Mutation::Set { key, .. }
            | Mutation::Clear { key }
            | Mutation::Atomic { key, .. }
            | Mutation::SetVersionstampedKey { key, .. }
            | Mutation::SetVersionstampedValue { key, .. } => key.starts_with(shard::KEY_SERVERS),
        };
        let is_change = matches!(mutation, Mutation::Set { value, .. }
            if touches && shard::Teams::from_value(value).is_some());
        if touches == self.changes_shard_map && (!touches || is_change) {
            return Ok(());
        }
        let detail = "only the cluster itself writes the shard map, and nothing beside it";
        Err(Error::new(ErrorCode::KeyOutsideLegalRange, stage, detail))
    }
}

/// Checks the length of a key, and that it sorts before `end`.
///
/// # Errors
///
/// [`ErrorCode::KeyTooLarge`] or [`ErrorCode::KeyOutsideLegalRange`].
pub fn check_key(key: &[u8], end: &Key, stage: Stage) -> Result<()> {
    if key.len() > limits::KEY_BYTES_MAX {
        let detail = format!("{} bytes, {} are allowed", key.len(), limits::KEY_BYTES_MAX);
        return Err(Error::new(ErrorCode::KeyTooLarge, stage, detail));
    }
    if key >= end.as_slice() {
        let detail = format!("{} is not before {end}", crate::key::escape(key));
        return Err(Error::new(ErrorCode::KeyOutsideLegalRange, stage, detail));
    }
    Ok(())
}

/// Checks the length of a value.
///
/// # Errors
///
/// [`ErrorCode::ValueTooLarge`].
pub fn check_value(value: &[u8], stage: Stage) -> Result<()> {
    if value.len() > limits::VALUE_BYTES_MAX {
        let detail = format!("{} bytes, {} are allowed", value.len(), limits::VALUE_BYTES_MAX);
        return Err(Error::new(ErrorCode::ValueTooLarge, stage, detail));
    }
    Ok(())
}

/// Checks both ends of a range and their order. An empty range is legal.
///
/// # Errors
///
/// [`ErrorCode::InvertedRange`], [`ErrorCode::KeyTooLarge`] or [`ErrorCode::KeyOutsideLegalRange`].
pub fn check_range(range: &KeyRange, end: &Key, stage: Stage) -> Result<()> {
    if range.begin > range.end {
        return Err(Error::new(ErrorCode::InvertedRange, stage, format!("{range}")));
    }
    // The end is not inside, so it may be the end of the keyspace, or the successor of the longest key.
    for bound in [&range.begin, &range.end] {
        if bound.len() > limits::KEY_BYTES_MAX + 1 {
            let detail = format!("{} bytes, {} are allowed", bound.len(), limits::KEY_BYTES_MAX);
            return Err(Error::new(ErrorCode::KeyTooLarge, stage, detail));
        }
        if bound > end {
            let detail = format!("{bound} is not before {end}");
            return Err(Error::new(ErrorCode::KeyOutsideLegalRange, stage, detail));
        }
    }
    Ok(())
}

/// Checks the keys and the value of a mutation, and that a versionstamp fits where it is meant to go.
///
/// # Errors
///
/// Those of the other checks, or [`ErrorCode::InvalidMutation`].
pub fn check_mutation(mutation: &Mutation, end: &Key, stage: Stage) -> Result<()> {
    match mutation {
        Mutation::Set { key, value } | Mutation::Atomic { key, operand: value, .. } => {
            check_key(key, end, stage)?;
            check_value(value, stage)
        }
        Mutation::Clear { key } => check_key(key, end, stage),
        Mutation::ClearRange { range } => check_range(range, end, stage),
        Mutation::SetVersionstampedKey { key, offset, value } => {
            check_key(key, end, stage)?;
            check_value(value, stage)?;
            check_gap(key.len(), *offset, stage)
        }
        Mutation::SetVersionstampedValue { key, value, offset } => {
            // Anybody may set the version of his metadata, to nothing but the version.
            if !(is_metadata_version(key) && *offset == 0 && **value == [0; Versionstamp::LEN]) {
                check_key(key, end, stage)?;
            }
            check_value(value, stage)?;
            check_gap(value.len(), *offset, stage)
        }
    }
}

/// The key with the version of the application's metadata: set to its own versionstamp by each transaction that changes what
/// others keep in memory, and read by all of them. It may be read, and set so, without access to system keys.
pub const METADATA_VERSION_KEY: &[u8] = b"\xff/metadataVersion";

/// Whether a key is [`METADATA_VERSION_KEY`].
pub fn is_metadata_version(key: &[u8]) -> bool {
    key == METADATA_VERSION_KEY
}

fn check_gap(length: usize, offset: u32, stage: Stage) -> Result<()> {
    if offset as usize + Versionstamp::LEN > length {
        let detail = format!("a versionstamp at {offset} does not fit into {length} bytes");
        return Err(Error::new(ErrorCode::InvalidMutation, stage, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Value;

    fn code(request: &CommitRequest) -> Option<ErrorCode> {
        request.check(Stage::Client).err().map(|error| error.code())
    }

    fn request(mutation: Mutation) -> CommitRequest {
        CommitRequest { mutations: vec![mutation], ..CommitRequest::default() }
    }

    #[test]
    fn every_limit_at_its_edge() {
        let key = |length| Key::from(vec![b'k'; length]);
        let value = |length| Value::from(vec![b'v'; length]);
        let set = |key, value| request(Mutation::Set { key, value });
        assert_eq!(code(&set(key(limits::KEY_BYTES_MAX), value(limits::VALUE_BYTES_MAX))), None);
        let long_key = set(key(limits::KEY_BYTES_MAX + 1), value(0));
        assert_eq!(code(&long_key), Some(ErrorCode::KeyTooLarge));
        let long_value = set(key(1), value(limits::VALUE_BYTES_MAX + 1));
        assert_eq!(code(&long_value), Some(ErrorCode::ValueTooLarge));
        let system = set(Key::USER_END, value(0));
        assert_eq!(code(&system), Some(ErrorCode::KeyOutsideLegalRange));
        assert_eq!(code(&CommitRequest { may_write_system_keys: true, ..system }), None);
        let inverted = request(Mutation::ClearRange { range: KeyRange::new("b", "a") });
        assert_eq!(code(&inverted), Some(ErrorCode::InvertedRange));
        let all = request(Mutation::ClearRange { range: KeyRange::all_user_keys() });
        assert_eq!(code(&all), None);
        let read_everything = CommitRequest {
            read_conflicts: vec![KeyRange::single(&key(limits::KEY_BYTES_MAX))],
            ..CommitRequest::default()
        };
        assert_eq!(code(&read_everything), None);
        let stamp = |offset| {
            request(Mutation::SetVersionstampedValue { key: key(1), value: value(12), offset })
        };
        assert_eq!(code(&stamp(2)), None);
        assert_eq!(code(&stamp(3)), Some(ErrorCode::InvalidMutation));
        assert_eq!(code(&stamp(u32::MAX)), Some(ErrorCode::InvalidMutation));
    }

    #[test]
    fn the_whole_transaction_has_a_limit() {
        let one = Mutation::Set { key: "k".into(), value: vec![0; 99_999].into() };
        let mut large = CommitRequest { mutations: vec![one; 100], ..CommitRequest::default() };
        assert_eq!(large.size(), limits::TRANSACTION_BYTES_MAX);
        assert_eq!(code(&large), None);
        large.mutations.push(Mutation::Clear { key: "k".into() });
        assert_eq!(code(&large), Some(ErrorCode::TransactionTooLarge));
    }
}
