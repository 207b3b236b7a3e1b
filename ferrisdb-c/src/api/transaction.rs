//! The functions of transactions.

use std::ffi::c_int;

use ferrisdb_client::{Key, KeySelector};

use super::{Bool, future_of};
use crate::{
    errors::{self, Code},
    future::Future,
    handle::{borrow, bytes, guarded, guarded_or, option_value, put, take_back},
    transaction::{ConflictRangeType, RangeRequest, Transaction},
};

/// Ends the use of a transaction; what it has pending fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_destroy(transaction: *mut Transaction) {
    guarded_or((), || {
        // SAFETY: the contract of the interface, see the module.
        if let Some(transaction) = unsafe { take_back(transaction) } {
            transaction.destroy();
        }
    });
}

/// Lets everything fail until a reset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_cancel(transaction: *mut Transaction) {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        transaction.cancel();
        Ok(())
    });
}

/// Forgets everything.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_reset(transaction: *mut Transaction) {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        transaction.reset();
        Ok(())
    });
}

/// Sets an option of a transaction.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_set_option(
    transaction: *mut Transaction,
    option: c_int,
    value: *const u8,
    value_length: c_int,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let (transaction, value) =
            unsafe { (borrow(transaction)?, option_value(value, value_length)?) };
        transaction.set_option(option, value)
    })
}

/// Reads at this version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_set_read_version(
    transaction: *mut Transaction,
    version: i64,
) {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        transaction.set_read_version(version);
        Ok(())
    });
}

/// The version that is read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_read_version(
    transaction: *mut Transaction,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        Ok(transaction.read_version())
    })
}

/// Reads a key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
    snapshot: Bool,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let key = unsafe { bytes(key, key_length) }?;
        Ok(transaction.get(key, snapshot != 0))
    })
}

/// The key that a selector names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_key(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
    or_equal: Bool,
    offset: c_int,
    snapshot: Bool,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let key = unsafe { bytes(key, key_length) }?;
        Ok(transaction.get_key(selector(key, or_equal, offset), snapshot != 0))
    })
}

/// Who holds a key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_addresses_for_key(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let key = unsafe { bytes(key, key_length) }?;
        Ok(transaction.addresses_for_key(key))
    })
}

/// Reads a part of a range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_range(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    begin_or_equal: Bool,
    begin_offset: c_int,
    end: *const u8,
    end_length: c_int,
    end_or_equal: Bool,
    end_offset: c_int,
    limit: c_int,
    target_bytes: c_int,
    mode: c_int,
    iteration: c_int,
    snapshot: Bool,
    reverse: Bool,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (begin, end) = unsafe { (bytes(begin, begin_length)?, bytes(end, end_length)?) };
        let request = RangeRequest {
            begin: selector(begin, begin_or_equal, begin_offset),
            end: selector(end, end_or_equal, end_offset),
            limit,
            target_bytes,
            mode,
            iteration,
            snapshot: snapshot != 0,
            reverse: reverse != 0,
        };
        Ok(transaction.get_range(request))
    })
}

/// Reads a part of a range, and for every row of it the range that a mapper makes of the row.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_mapped_range(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    begin_or_equal: Bool,
    begin_offset: c_int,
    end: *const u8,
    end_length: c_int,
    end_or_equal: Bool,
    end_offset: c_int,
    mapper: *const u8,
    mapper_length: c_int,
    limit: c_int,
    target_bytes: c_int,
    mode: c_int,
    iteration: c_int,
    snapshot: Bool,
    reverse: Bool,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (begin, end) = unsafe { (bytes(begin, begin_length)?, bytes(end, end_length)?) };
        // SAFETY: the contract of the interface, see the module.
        let mapper = unsafe { bytes(mapper, mapper_length) }?;
        let request = RangeRequest {
            begin: selector(begin, begin_or_equal, begin_offset),
            end: selector(end, end_or_equal, end_offset),
            limit,
            target_bytes,
            mode,
            iteration,
            snapshot: snapshot != 0,
            reverse: reverse != 0,
        };
        Ok(transaction.get_mapped_range(request, mapper))
    })
}

/// Sets a key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_set(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
    value: *const u8,
    value_length: c_int,
) {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (key, value) = unsafe { (bytes(key, key_length)?, bytes(value, value_length)?) };
        transaction.set(key, value);
        Ok(())
    });
}

/// An atomic operation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_atomic_op(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
    parameter: *const u8,
    parameter_length: c_int,
    operation: c_int,
) {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (key, parameter) =
            unsafe { (bytes(key, key_length)?, bytes(parameter, parameter_length)?) };
        transaction.atomic_op(key, parameter, operation);
        Ok(())
    });
}

/// Clears a key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_clear(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
) {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let key = unsafe { bytes(key, key_length) }?;
        transaction.clear(key);
        Ok(())
    });
}

/// Clears a range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_clear_range(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
) {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (begin, end) = unsafe { (bytes(begin, begin_length)?, bytes(end, end_length)?) };
        transaction.clear_range(begin, end);
        Ok(())
    });
}

/// Watches a key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_watch(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let key = unsafe { bytes(key, key_length) }?;
        Ok(transaction.watch(key))
    })
}

/// Commits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_commit(transaction: *mut Transaction) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        Ok(transaction.commit())
    })
}

/// The version of the commit; -1 if there was none, or nothing was written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_committed_version(
    transaction: *mut Transaction,
    out: *mut i64,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let version = unsafe { borrow(transaction) }?.committed_version();
        // SAFETY: the contract of the interface, see the module.
        unsafe { put(out, version) };
        Ok(())
    })
}

/// How long the transaction waited because of its tags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_tag_throttled_duration(
    transaction: *mut Transaction,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        Ok(transaction.tag_throttled_duration())
    })
}

/// What the transaction costs so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_total_cost(
    transaction: *mut Transaction,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        Ok(transaction.total_cost())
    })
}

/// Bytes of mutations and conflict ranges so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_approximate_size(
    transaction: *mut Transaction,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        Ok(transaction.approximate_size())
    })
}

/// The versionstamp of the commit that will be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_versionstamp(
    transaction: *mut Transaction,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        Ok(transaction.versionstamp())
    })
}

/// Makes the transaction ready to be tried again, if that may help.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_on_error(
    transaction: *mut Transaction,
    error: Code,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        Ok(transaction.on_error(error))
    })
}

/// Adds a conflict range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_add_conflict_range(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
    kind: c_int,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (begin, end) = unsafe { (bytes(begin, begin_length)?, bytes(end, end_length)?) };
        let kind = match kind {
            0 => ConflictRangeType::Read,
            1 => ConflictRangeType::Write,
            _ => return Err(errors::CLIENT_INVALID_OPERATION),
        };
        transaction.add_conflict_range(begin, end, kind)
    })
}

/// About how many bytes a range has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_estimated_range_size_bytes(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (begin, end) = unsafe { (bytes(begin, begin_length)?, bytes(end, end_length)?) };
        Ok(transaction.estimated_range_size(begin, end))
    })
}

/// Keys that divide a range into parts of about so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_range_split_points(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
    chunk_size: i64,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (begin, end) = unsafe { (bytes(begin, begin_length)?, bytes(end, end_length)?) };
        Ok(transaction.range_split_points(begin, end, chunk_size, 0))
    })
}

/// The same, with so many keys at most between its ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_transaction_get_range_split_points_with_limit(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
    chunk_size: i64,
    limit: c_int,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = unsafe { borrow(transaction) }?;
        // SAFETY: the contract of the interface, see the module.
        let (begin, end) = unsafe { (bytes(begin, begin_length)?, bytes(end, end_length)?) };
        Ok(transaction.range_split_points(begin, end, chunk_size, limit))
    })
}

fn selector(key: &[u8], or_equal: Bool, offset: c_int) -> KeySelector {
    KeySelector { key: Key::copy_from(key), or_equal: or_equal != 0, offset }
}
