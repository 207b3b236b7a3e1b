//! The functions of databases.

use std::{
    ffi::{c_char, c_double, c_int},
    path::PathBuf,
};

use super::future_of;
use crate::{
    database::{Database, Source},
    errors::{self, Code},
    future::Future,
    handle::{borrow, guarded, guarded_or, lend, option_value, put, take_back, text},
    transaction::Transaction,
};

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
        let transaction = unsafe { borrow(database) }?.transaction();
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
