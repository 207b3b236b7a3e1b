//! Which version of the interface the program was written for: chosen once, before everything else.

use std::sync::atomic::{AtomicI32, Ordering};

use crate::errors::{self, Code};

/// The newest version that this library knows.
pub const MAX: i32 = 800;
/// The oldest one: before it versionstamps were laid out otherwise.
pub const MIN: i32 = 520;

static SELECTED: AtomicI32 = AtomicI32::new(0);

/// Chooses the version for this process.
///
/// # Errors
///
/// `api_version_already_set`, `api_version_invalid` for one that is newer than the program's header, or
/// `api_version_not_supported`.
pub fn select(runtime: i32, header: i32) -> Result<(), Code> {
    if SELECTED.load(Ordering::Acquire) != 0 {
        return Err(errors::API_VERSION_ALREADY_SET);
    }
    if runtime > header {
        return Err(errors::API_VERSION_INVALID);
    }
    if header > MAX || runtime < MIN {
        return Err(errors::API_VERSION_NOT_SUPPORTED);
    }
    let selected = SELECTED.compare_exchange(0, runtime, Ordering::AcqRel, Ordering::Acquire);
    selected.map(drop).map_err(|_| errors::API_VERSION_ALREADY_SET)
}

/// The version that was chosen.
///
/// # Errors
///
/// `api_version_unset`.
pub fn selected() -> Result<i32, Code> {
    match SELECTED.load(Ordering::Acquire) {
        0 => Err(errors::API_VERSION_UNSET),
        version => Ok(version),
    }
}

/// Whether the program was written for `version` or a later one.
pub fn is_at_least(version: i32) -> bool {
    SELECTED.load(Ordering::Acquire) >= version
}
