//! What a careless program asks of the client library, and how each call must end.

use ferrisdb_client::{
    AtomicOp, Error, ErrorCode, Key, KeyRange, KeySelector, RangeQuery, Transaction,
    TransactionOption, Value, Version,
};
use ferrisdb_core::limits;

use super::Expected;

/// One thing to try. Each is done in a transaction of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    KeyAtLimit,
    KeyOverLimit,
    ValueAtLimit,
    ValueOverLimit,
    OperandOverLimit,
    EmptyKey,
    EmptyValue,
    TransactionAtLimit,
    TransactionOverLimit,
    SizeLimit,
    SizeLimitTooSmall,
    SizeLimitTooLarge,
    ClearOfEmptyRange,
    ClearOfInvertedRange,
    ClearOfLongestEnd,
    ClearOfTooLongEnd,
    ReadOfInvertedRange,
    ReadOfEmptyRange,
    ReadOfNoRows,
    ReadWithHugeLimits,
    ReadWithoutBytes,
    SystemRead,
    SystemReadWithOption,
    SystemWrite,
    SystemWriteToRead,
    ShardMapWrite,
    SpecialRead,
    ClearIntoSystem,
    ConflictRangeInverted,
    ConflictRangeInSystem,
    StampAtEdgeOfValue,
    StampPastValue,
    StampAtEdgeOfKey,
    StampPastKey,
    StampFarAway,
    ReadVersionZero,
    ReadVersionTwice,
    ReadVersionAfterMeasures,
    OptionAfterReadVersion,
    ReadUpToTheEnd,
    ReadOfFarPast,
    ReadOfFuture,
    ReadOfEndOfTime,
    RangeReadOfFarPast,
    RangeReadOfEndOfTime,
    CommitOfFarPast,
    CommitOfFuture,
    CommitOfEndOfTime,
    OptionTooLate,
    UseAfterCommit,
    UseAfterCancel,
}

use Call::*;

impl Call {
    /// All of them, with how they must end.
    pub(super) const ALL: &[(Call, Expected)] = &[
        (KeyAtLimit, Expected::Success),
        (KeyOverLimit, Expected::Refused(ErrorCode::KeyTooLarge)),
        (ValueAtLimit, Expected::Success),
        (ValueOverLimit, Expected::Refused(ErrorCode::ValueTooLarge)),
        (OperandOverLimit, Expected::Refused(ErrorCode::ValueTooLarge)),
        (EmptyKey, Expected::Success),
        (EmptyValue, Expected::Success),
        (TransactionAtLimit, Expected::Success),
        (TransactionOverLimit, Expected::Refused(ErrorCode::TransactionTooLarge)),
        (SizeLimit, Expected::Refused(ErrorCode::TransactionTooLarge)),
        (SizeLimitTooSmall, Expected::Refused(ErrorCode::InvalidArgument)),
        (SizeLimitTooLarge, Expected::Refused(ErrorCode::InvalidArgument)),
        (ClearOfEmptyRange, Expected::Success),
        (ClearOfInvertedRange, Expected::Refused(ErrorCode::InvertedRange)),
        (ClearOfLongestEnd, Expected::Success),
        (ClearOfTooLongEnd, Expected::Refused(ErrorCode::KeyTooLarge)),
        (ReadOfInvertedRange, Expected::Refused(ErrorCode::InvertedRange)),
        (ReadOfEmptyRange, Expected::Success),
        (ReadOfNoRows, Expected::Refused(ErrorCode::RangeLimitsInvalid)),
        (ReadWithHugeLimits, Expected::Success),
        (ReadWithoutBytes, Expected::Success),
        (SystemRead, Expected::Refused(ErrorCode::KeyOutsideLegalRange)),
        (SystemReadWithOption, Expected::Success),
        (SystemWrite, Expected::Refused(ErrorCode::KeyOutsideLegalRange)),
        (SystemWriteToRead, Expected::Refused(ErrorCode::KeyOutsideLegalRange)),
        (ShardMapWrite, Expected::Refused(ErrorCode::KeyOutsideLegalRange)),
        (SpecialRead, Expected::Refused(ErrorCode::SpecialKeysNoModuleFound)),
        (ClearIntoSystem, Expected::Refused(ErrorCode::KeyOutsideLegalRange)),
        (ConflictRangeInverted, Expected::Refused(ErrorCode::InvertedRange)),
        (ConflictRangeInSystem, Expected::Refused(ErrorCode::KeyOutsideLegalRange)),
        (StampAtEdgeOfValue, Expected::Success),
        (StampPastValue, Expected::Refused(ErrorCode::InvalidMutation)),
        (StampAtEdgeOfKey, Expected::Success),
        (StampPastKey, Expected::Refused(ErrorCode::InvalidMutation)),
        (StampFarAway, Expected::Refused(ErrorCode::InvalidMutation)),
        (ReadVersionZero, Expected::Refused(ErrorCode::VersionInvalid)),
        (ReadVersionTwice, Expected::Refused(ErrorCode::ReadVersionAlreadySet)),
        (ReadVersionAfterMeasures, Expected::Success),
        (OptionAfterReadVersion, Expected::Success),
        (ReadUpToTheEnd, Expected::Success),
        (ReadOfFarPast, Expected::Refused(ErrorCode::TransactionTooOld)),
        (ReadOfFuture, Expected::Refused(ErrorCode::FutureVersion)),
        (ReadOfEndOfTime, Expected::Refused(ErrorCode::FutureVersion)),
        (RangeReadOfFarPast, Expected::Refused(ErrorCode::TransactionTooOld)),
        (RangeReadOfEndOfTime, Expected::Refused(ErrorCode::FutureVersion)),
        (CommitOfFarPast, Expected::Refused(ErrorCode::TransactionTooOld)),
        (CommitOfFuture, Expected::Refused(ErrorCode::VersionInvalid)),
        (CommitOfEndOfTime, Expected::Refused(ErrorCode::VersionInvalid)),
        (OptionTooLate, Expected::Refused(ErrorCode::InvalidArgument)),
        (UseAfterCommit, Expected::Refused(ErrorCode::UsedDuringCommit)),
        (UseAfterCancel, Expected::Refused(ErrorCode::TransactionCancelled)),
    ];

    /// Whether it moves megabytes.
    pub(super) fn is_heavy(self) -> bool {
        matches!(self, TransactionAtLimit | TransactionOverLimit)
    }

    /// Does it. What may be written lies below `scratch`; what must be refused aims at `guard`.
    pub(super) async fn perform(
        self,
        transaction: &Transaction,
        scratch: &str,
        guard: &Key,
    ) -> Result<(), Error> {
        let long_key = |length: usize| {
            let mut key = scratch.as_bytes().to_vec();
            key.resize(length, b'k');
            Key::from(key)
        };
        let long_value = |length: usize| Value::from(vec![b'v'; length]);
        let here = || Key::from(scratch);
        let inverted = || KeyRange { begin: guard.successor(), end: guard.clone() };
        let system = || Key::from(b"\xff/arguments");
        match self {
            KeyAtLimit => {
                let key = long_key(limits::KEY_BYTES_MAX);
                transaction.set(&key, "")?;
                transaction.commit().await?;
                transaction.reset();
                transaction.get(&key).await?;
            }
            KeyOverLimit => transaction.set(long_key(limits::KEY_BYTES_MAX + 1), "")?,
            ValueAtLimit => {
                transaction.set(here(), long_value(limits::VALUE_BYTES_MAX))?;
                transaction.commit().await?;
                transaction.reset();
                transaction.get(here()).await?;
            }
            ValueOverLimit => transaction.set(guard, long_value(limits::VALUE_BYTES_MAX + 1))?,
            OperandOverLimit => {
                let operand = long_value(limits::VALUE_BYTES_MAX + 1);
                transaction.atomic(AtomicOp::ByteMax, guard, operand)?;
            }
            EmptyKey => {
                transaction.get("").await?;
                transaction.get_range(RangeQuery::from("".."").rows(1)).await?;
            }
            EmptyValue => {
                transaction.set(here(), "")?;
                transaction.commit().await?;
            }
            TransactionAtLimit => {
                fill(transaction, &here())?;
                transaction.commit().await?;
            }
            TransactionOverLimit => {
                fill(transaction, &here())?;
                transaction.set(guard, "")?;
            }
            SizeLimit => {
                transaction.set_option(TransactionOption::SizeLimit(200))?;
                transaction.set(here(), "")?;
                transaction.set(guard, long_value(200))?;
            }
            SizeLimitTooSmall => transaction.set_option(TransactionOption::SizeLimit(31))?,
            SizeLimitTooLarge => {
                let limit = limits::TRANSACTION_BYTES_MAX + 1;
                transaction.set_option(TransactionOption::SizeLimit(limit))?;
            }
            ClearOfEmptyRange => {
                transaction.clear_range(KeyRange::new(guard, guard))?;
                transaction.commit().await?;
            }
            ClearOfInvertedRange => transaction.clear_range(inverted())?,
            ClearOfLongestEnd => {
                let longest = long_key(limits::KEY_BYTES_MAX);
                transaction.clear_range(KeyRange::single(&longest))?;
                transaction.commit().await?;
            }
            ClearOfTooLongEnd => {
                let end = long_key(limits::KEY_BYTES_MAX + 2);
                transaction.clear_range(KeyRange { begin: here(), end })?;
            }
            ReadOfInvertedRange => drop(transaction.get_range(inverted()).await?),
            ReadOfEmptyRange => drop(transaction.get_range(KeyRange::new(guard, guard)).await?),
            ReadOfNoRows => {
                let none = RangeQuery::from(KeyRange::single(guard)).rows(0);
                transaction.get_range(none).await?;
            }
            ReadWithHugeLimits => {
                let huge = RangeQuery::from(KeyRange::prefix(guard)).rows(usize::MAX);
                transaction.get_range(huge.bytes(usize::MAX)).await?;
            }
            ReadWithoutBytes => {
                let query = RangeQuery::from(KeyRange::prefix(guard)).bytes(0);
                transaction.get_range(query).await?;
            }
            SystemRead => drop(transaction.get(system()).await?),
            SystemReadWithOption => {
                transaction.set_option(TransactionOption::ReadSystemKeys)?;
                transaction.get(system()).await?;
            }
            SystemWrite => transaction.set(system(), "")?,
            SystemWriteToRead => {
                transaction.set_option(TransactionOption::ReadSystemKeys)?;
                transaction.set(system(), "")?;
            }
            ShardMapWrite => {
                transaction.set_option(TransactionOption::AccessSystemKeys)?;
                transaction.set(guard, "changed")?;
                transaction.set(b"\xff/keyServers/", "")?;
                transaction.commit().await?;
            }
            SpecialRead => {
                transaction.set_option(TransactionOption::AccessSystemKeys)?;
                transaction.get(b"\xff\xff/status").await?;
            }
            ClearIntoSystem => {
                transaction.clear_range(KeyRange { begin: guard.clone(), end: system() })?;
            }
            ConflictRangeInverted => transaction.add_write_conflict_range(inverted())?,
            ConflictRangeInSystem => {
                transaction.add_read_conflict_range(KeyRange::single(&system()))?;
            }
            StampAtEdgeOfValue => {
                transaction.set_versionstamped_value(here(), vec![0; 12], 2)?;
                transaction.commit().await?;
            }
            StampPastValue => transaction.set_versionstamped_value(guard, vec![0; 12], 3)?,
            StampAtEdgeOfKey => {
                let key = [scratch.as_bytes(), b"/stamp/", &[0; 10]].concat();
                let offset = key.len() as u32 - 10;
                transaction.set_versionstamped_key(key, offset, "")?;
                transaction.commit().await?;
            }
            StampPastKey => {
                let offset = guard.len() as u32 - 9;
                transaction.set_versionstamped_key(guard, offset, "")?;
            }
            StampFarAway => transaction.set_versionstamped_key(guard, u32::MAX, "")?,
            ReadVersionZero => transaction.set_read_version(Version::ZERO)?,
            ReadVersionTwice => {
                let version = transaction.read_version().await?;
                transaction.set_read_version(version)?;
            }
            ReadVersionAfterMeasures => {
                let version = transaction.read_version().await?;
                transaction.reset();
                let range = KeyRange::prefix(guard);
                transaction.estimated_range_size(&range).await?;
                transaction.range_split_points(&range, 1_000, None).await?;
                transaction.set_read_version(version)?;
            }
            OptionAfterReadVersion => {
                transaction.read_version().await?;
                transaction.set_option(TransactionOption::ReadYourWritesDisabled)?;
            }
            ReadUpToTheEnd => {
                let end = KeySelector::first_greater_than(b"\xff");
                transaction.get_range(RangeQuery::between(guard.clone(), end).rows(1)).await?;
            }
            ReadOfFarPast => {
                transaction.set_read_version(Version(1))?;
                transaction.get(guard).await?;
            }
            ReadOfFuture => {
                let version = transaction.read_version().await?;
                transaction.reset();
                let hour = 3_600 * limits::VERSIONS_PER_SECOND;
                transaction.set_read_version(version.saturating_add(hour))?;
                transaction.get(guard).await?;
            }
            ReadOfEndOfTime => {
                transaction.set_read_version(Version::MAX)?;
                transaction.get(guard).await?;
            }
            RangeReadOfFarPast => {
                transaction.set_read_version(Version(1))?;
                transaction.get_range(KeyRange::single(guard)).await?;
            }
            RangeReadOfEndOfTime => {
                transaction.set_read_version(Version::MAX)?;
                transaction.get_range(KeyRange::single(guard)).await?;
            }
            CommitOfFarPast => commit_at(transaction, Version(1), guard).await?,
            CommitOfFuture => {
                let version = transaction.read_version().await?;
                transaction.reset();
                let hour = 3_600 * limits::VERSIONS_PER_SECOND;
                commit_at(transaction, version.saturating_add(hour), guard).await?;
            }
            CommitOfEndOfTime => commit_at(transaction, Version::MAX, guard).await?,
            OptionTooLate => {
                transaction.set(here(), "")?;
                transaction.set_option(TransactionOption::ReadYourWritesDisabled)?;
            }
            UseAfterCommit => {
                transaction.commit().await?;
                transaction.set(guard, "")?;
            }
            UseAfterCancel => {
                transaction.cancel();
                transaction.set(guard, "")?;
            }
        }
        Ok(())
    }
}

/// Commits a change that depends on what was read at a version.
async fn commit_at(transaction: &Transaction, version: Version, key: &Key) -> Result<(), Error> {
    transaction.set_read_version(version)?;
    transaction.add_read_conflict_range(KeyRange::single(key))?;
    transaction.set(key, "changed")?;
    transaction.commit().await?;
    Ok(())
}

/// Writes one key again and again, until not a byte more fits.
fn fill(transaction: &Transaction, key: &Key) -> Result<(), Error> {
    for part in 0..u16::MAX {
        // Another key each time: of the writes of one, only the last counts.
        let key = Key::from([key.as_slice(), &part.to_be_bytes()].concat());
        // The key itself, and the two ends of its conflict range.
        let overhead = 3 * key.len() + 1;
        let left = limits::TRANSACTION_BYTES_MAX - transaction.approximate_size();
        if left == 0 {
            break;
        }
        let length = (left - overhead).min(limits::VALUE_BYTES_MAX);
        // What is left after this one must be nothing, or enough for another key.
        let rest = left - overhead - length;
        let length = if rest > 0 && rest < overhead { length - overhead } else { length };
        transaction.set(key, vec![b'v'; length])?;
    }
    Ok(())
}
