//! The functions that C calls: conversions between its types and this library's, and nothing else.
//!
//! They are those of FoundationDB's C API documentation, in its order. None of them lets a panic pass. What a pointer must be is said
//! there: one that this library has given out and the program has not destroyed, or memory of the length beside it, or null where
//! nothing is meant.

#![allow(clippy::missing_safety_doc, reason = "the contract of all of them is above")]
#![allow(clippy::too_many_arguments, reason = "the interface is given")]

use std::{
    ffi::{CStr, c_char, c_double, c_int, c_void},
    path::PathBuf,
    sync::Arc,
};

use ferrisdb_client::{Key, KeySelector};

use crate::{
    api_version,
    database::{Database, Source},
    errors::{self, Code, Predicate},
    future::{self, Callback, Ended, Future, Output},
    handle::{borrow, bytes, guarded, guarded_or, lend, option_value, put, take_back, text},
    layout::{FdbKey, FdbKeyValue, FdbMappedKeyValue},
    network::{self, Hook},
    transaction::{ConflictRangeType, RangeRequest, Transaction},
};

/// `fdb_bool_t`.
pub type Bool = c_int;

/// What `fdb_get_client_version` says: the release whose interface this is, what it is built from, the protocol.
const CLIENT_VERSION: &CStr = c"8.0.0,ferrisdb,fdb00b073000000";

/// Runs what gives a future; there always is one.
fn future_of(call: impl FnOnce() -> Result<Arc<Future>, Code>) -> *mut Future {
    let future = guarded_or(Err(errors::INTERNAL_ERROR), call);
    future::lend(future.unwrap_or_else(|code| Future::ready(Err(code))))
}

/// Selects the version of the interface, once per process.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_select_api_version_impl(
    runtime_version: c_int,
    header_version: c_int,
) -> Code {
    guarded(|| api_version::select(runtime_version, header_version))
}

/// The newest version of the interface that this library knows.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_get_max_api_version() -> c_int {
    api_version::MAX
}

/// Which library this is.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_get_client_version() -> *const c_char {
    CLIENT_VERSION.as_ptr()
}

/// A sentence on an error, which lives as long as the process.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_get_error(code: Code) -> *const c_char {
    guarded_or(c"unknown error".as_ptr(), || errors::sentence(code).as_ptr())
}

/// Whether a predicate holds for an error.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_error_predicate(predicate: c_int, code: Code) -> Bool {
    guarded_or(0, || {
        Bool::from(Predicate::of(predicate).is_some_and(|predicate| predicate.holds(code)))
    })
}

// The network.

/// Sets an option of the network.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_network_set_option(
    option: c_int,
    value: *const u8,
    value_length: c_int,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let value = unsafe { option_value(value, value_length) }?;
        network::set_option(option, value)
    })
}

/// Prepares the network.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_setup_network() -> Code {
    guarded(network::set_up)
}

/// Runs the network on the calling thread until it is stopped.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_run_network() -> Code {
    guarded(network::run)
}

/// Stops the network.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_stop_network() -> Code {
    guarded(network::stop)
}

/// Has a function called on the network thread once the network has stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_add_network_thread_completion_hook(
    hook: Option<Hook>,
    parameter: *mut c_void,
) -> Code {
    guarded(|| {
        let hook = hook.ok_or(errors::CLIENT_INVALID_OPERATION)?;
        network::add_completion_hook(hook, parameter)
    })
}

// Futures.

/// Gives up what the future waits for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_cancel(future: *mut Future) {
    guarded_or((), || {
        // SAFETY: the contract of the interface, see the module.
        if let Ok(future) = unsafe { borrow(future) } {
            future.cancel();
        }
    });
}

/// Gives the memory of the result back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_release_memory(future: *mut Future) {
    guarded_or((), || {
        // SAFETY: the contract of the interface, see the module.
        if let Ok(future) = unsafe { borrow(future) } {
            future.release_memory();
        }
    });
}

/// Ends the use of a future; what it waits for is given up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_destroy(future: *mut Future) {
    guarded_or((), || {
        // SAFETY: the contract of the interface, see the module.
        if let Some(future) = unsafe { take_back(future) } {
            future.cancel();
        }
    });
}

/// Waits until the future is complete.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_block_until_ready(future: *mut Future) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        unsafe { borrow(future) }?.block_until_ready()
    })
}

/// Whether the future is complete.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_is_ready(future: *mut Future) -> Bool {
    guarded_or(0, || {
        // SAFETY: the contract of the interface, see the module.
        Bool::from(unsafe { borrow(future) }.is_ok_and(|future| future.is_ready()))
    })
}

/// Has a function called once the future is complete.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_set_callback(
    future: *mut Future,
    callback: Option<Callback>,
    parameter: *mut c_void,
) -> Code {
    guarded(|| {
        let callback = callback.ok_or(errors::CLIENT_INVALID_OPERATION)?;
        // SAFETY: the contract of the interface, see the module.
        unsafe { borrow(future) }?.set_callback(callback, parameter);
        Ok(())
    })
}

/// The error that the future is complete with, if it is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_error(future: *mut Future) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        unsafe { borrow(future) }?.error()
    })
}

/// The number that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_int64(future: *mut Future, out: *mut i64) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let found = unsafe { borrow(future) }?.int64()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe { put(out, found) };
        Ok(())
    })
}

/// The number that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_uint64(future: *mut Future, out: *mut u64) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let found = unsafe { borrow(future) }?.uint64()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe { put(out, found) };
        Ok(())
    })
}

/// The number that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_double(future: *mut Future, out: *mut c_double) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let found = unsafe { borrow(future) }?.double()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe { put(out, found) };
        Ok(())
    })
}

/// The answer that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_bool(future: *mut Future, out: *mut Bool) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let found = unsafe { borrow(future) }?.boolean()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe { put(out, Bool::from(found)) };
        Ok(())
    })
}

/// The key that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_key(
    future: *mut Future,
    out_key: *mut *const u8,
    out_length: *mut c_int,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let (key, length) = unsafe { borrow(future) }?.key()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe {
            put(out_key, key);
            put(out_length, length);
        }
        Ok(())
    })
}

/// The value that the future is complete with, if there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_value(
    future: *mut Future,
    out_present: *mut Bool,
    out_value: *mut *const u8,
    out_length: *mut c_int,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let value = unsafe { borrow(future) }?.value()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe {
            put(out_present, Bool::from(value.is_some()));
            if let Some((value, length)) = value {
                put(out_value, value);
                put(out_length, length);
            }
        }
        Ok(())
    })
}

/// The rows that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_keyvalue_array(
    future: *mut Future,
    out_rows: *mut *const FdbKeyValue,
    out_count: *mut c_int,
    out_more: *mut Bool,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let (rows, count, more) = unsafe { borrow(future) }?.rows()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe {
            put(out_rows, rows);
            put(out_count, count);
            put(out_more, Bool::from(more));
        }
        Ok(())
    })
}

/// The rows of a mapped range that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_mappedkeyvalue_array(
    future: *mut Future,
    out_rows: *mut *const FdbMappedKeyValue,
    out_count: *mut c_int,
    out_more: *mut Bool,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let (rows, count, more) = unsafe { borrow(future) }?.mapped_rows()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe {
            put(out_rows, rows);
            put(out_count, count);
            put(out_more, Bool::from(more));
        }
        Ok(())
    })
}

/// The keys that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_key_array(
    future: *mut Future,
    out_keys: *mut *const FdbKey,
    out_count: *mut c_int,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let (keys, count) = unsafe { borrow(future) }?.keys()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe {
            put(out_keys, keys);
            put(out_count, count);
        }
        Ok(())
    })
}

/// The texts that the future is complete with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_future_get_string_array(
    future: *mut Future,
    out_strings: *mut *const *const c_char,
    out_count: *mut c_int,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let (strings, count) = unsafe { borrow(future) }?.strings()?;
        // SAFETY: the contract of the interface, see the module.
        unsafe {
            put(out_strings, strings);
            put(out_count, count);
        }
        Ok(())
    })
}

// Databases.

/// A handle of the database that a cluster file names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_create_database(path: *const c_char, out: *mut *mut Database) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let path = unsafe { text(path) }.filter(|path| !path.is_empty());
        let path = path.map(|path| PathBuf::from(path.to_string_lossy().into_owned()));
        let database = Database::new(Source::File(path))?;
        // SAFETY: the contract of the interface, see the module.
        unsafe { put(out, lend(database)) };
        Ok(())
    })
}

/// A handle of the database that the line of a cluster file names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_create_database_from_connection_string(
    line: *const c_char,
    out: *mut *mut Database,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let line = unsafe { text(line) }.ok_or(errors::CONNECTION_STRING_INVALID)?;
        let database = Database::new(Source::Line(line.to_string_lossy().into_owned()))?;
        // SAFETY: the contract of the interface, see the module.
        unsafe { put(out, lend(database)) };
        Ok(())
    })
}

/// Ends the use of a handle. Transactions made by it live on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_database_destroy(database: *mut Database) {
    guarded_or((), || {
        // SAFETY: the contract of the interface, see the module.
        drop(unsafe { take_back(database) });
    });
}

/// Sets an option of a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_database_set_option(
    database: *mut Database,
    option: c_int,
    value: *const u8,
    value_length: c_int,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let (database, value) = unsafe { (borrow(database)?, option_value(value, value_length)?) };
        database.set_option(option, value)
    })
}

/// A new transaction.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_database_create_transaction(
    database: *mut Database,
    out: *mut *mut Transaction,
) -> Code {
    guarded(|| {
        // SAFETY: the contract of the interface, see the module.
        let transaction = Transaction::new(unsafe { borrow(database) }?);
        // SAFETY: the contract of the interface, see the module.
        unsafe { put(out, lend(transaction)) };
        Ok(())
    })
}

/// What the client knows of the cluster, as JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_database_get_client_status(database: *mut Database) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        Ok(unsafe { borrow(database) }?.client_status())
    })
}

/// How busy the network thread is, from 0 to 1: not measured, so it never seems too busy.
#[unsafe(no_mangle)]
pub extern "C" fn fdb_database_get_main_thread_busyness(_database: *mut Database) -> c_double {
    0.0
}

/// The version of the servers' protocol, once one has answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdb_database_get_server_protocol(
    database: *mut Database,
    _expected: u64,
) -> *mut Future {
    future_of(|| {
        // SAFETY: the contract of the interface, see the module.
        Ok(unsafe { borrow(database) }?.server_protocol())
    })
}

// Transactions.

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

// What FerrisDB does not have: the functions are there, because programs are linked with them, and say so. They look at none of their
// arguments, which the calling convention of C allows to be left out here.

/// Functions that give a future.
macro_rules! unsupported_futures {
    ($($name:ident),* $(,)?) => {$(
        /// Not supported: the future is complete with `unsupported_operation`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> *mut Future {
            future::lend(unsupported())
        }
    )*};
}

/// Functions that give an error.
macro_rules! unsupported_codes {
    ($($name:ident),* $(,)?) => {$(
        /// Not supported: `unsupported_operation`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> Code {
            errors::UNSUPPORTED_OPERATION
        }
    )*};
}

/// Functions that end the use of what nobody can have.
macro_rules! unsupported_ends {
    ($($name:ident),* $(,)?) => {$(
        /// Nothing: there is no such object to end the use of.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() {}
    )*};
}

/// Functions that give an object whose only use is to say that it is not there.
macro_rules! unsupported_results {
    ($($name:ident),* $(,)?) => {$(
        /// Not supported: whatever is read from the result is `unsupported_operation`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> *mut c_void {
            std::ptr::from_ref(&NO_RESULT).cast_mut().cast()
        }
    )*};
}

/// Where results point that are none.
static NO_RESULT: u64 = 0;

fn unsupported() -> Arc<Future> {
    let result: Ended = Err::<Output, Code>(errors::UNSUPPORTED_OPERATION);
    Future::ready(result)
}

unsupported_futures! {
    fdb_database_blobbify_range,
    fdb_database_blobbify_range_blocking,
    fdb_database_create_snapshot,
    fdb_database_flush_blob_range,
    fdb_database_force_recovery_with_data_loss,
    fdb_database_list_blobbified_ranges,
    fdb_database_purge_blob_granules,
    fdb_database_reboot_worker,
    fdb_database_unblobbify_range,
    fdb_database_verify_blob_range,
    fdb_database_wait_purge_granules_complete,
    fdb_tenant_blobbify_range,
    fdb_tenant_blobbify_range_blocking,
    fdb_tenant_flush_blob_range,
    fdb_tenant_get_id,
    fdb_tenant_list_blobbified_ranges,
    fdb_tenant_purge_blob_granules,
    fdb_tenant_unblobbify_range,
    fdb_tenant_verify_blob_range,
    fdb_tenant_wait_purge_granules_complete,
    fdb_transaction_get_blob_granule_ranges,
    fdb_transaction_get_range_and_flat_map,
    fdb_transaction_read_blob_granules_description,
    fdb_transaction_read_blob_granules_start,
    fdb_transaction_summarize_blob_granules,
}

unsupported_codes! {
    fdb_database_open_tenant,
    fdb_future_get_granule_summary_array,
    fdb_future_get_keyrange_array,
    fdb_future_readbg_get_descriptions,
    fdb_result_get_bg_mutations_array,
    fdb_result_get_keyvalue_array,
    fdb_tenant_create_transaction,
}

unsupported_ends! {
    fdb_result_destroy,
    fdb_tenant_destroy,
}

unsupported_results! {
    fdb_readbg_parse_delta_file,
    fdb_readbg_parse_snapshot_file,
    fdb_transaction_read_blob_granules,
    fdb_transaction_read_blob_granules_finish,
}
