//! The functions of futures.

use std::ffi::{c_char, c_double, c_int, c_void};

use super::Bool;
use crate::{
    errors::{self, Code},
    future::{Callback, Future},
    handle::{borrow, guarded, guarded_or, put, take_back},
    layout::{FdbKey, FdbKeyValue, FdbMappedKeyValue},
};

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
