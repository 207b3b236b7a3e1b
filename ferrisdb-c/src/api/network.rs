//! The functions of the network.

use std::ffi::{c_int, c_void};

use crate::{
    errors::{self, Code},
    handle::{guarded, option_value},
    network::{self, Hook},
};

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
