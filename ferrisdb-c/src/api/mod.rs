//! The functions that C calls: conversions between its types and this library's, and nothing else.
//!
//! They are those of FoundationDB's C API documentation, in its order. None of them lets a panic pass. What a pointer must be is said
//! there: one that this library has given out and the program has not destroyed, or memory of the length beside it, or null where
//! nothing is meant.

#![allow(clippy::missing_safety_doc, reason = "the contract of all of them is above")]
#![allow(clippy::too_many_arguments, reason = "the interface is given")]

use std::{
    ffi::{CStr, c_char, c_int},
    sync::Arc,
};

use crate::{
    api_version,
    errors::{self, Code, Predicate},
    future::{self, Future},
    handle::{guarded, guarded_or},
};

mod database;
mod futures;
mod network;
mod transaction;
mod unsupported;

pub use self::{database::*, futures::*, network::*, transaction::*, unsupported::*};

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
