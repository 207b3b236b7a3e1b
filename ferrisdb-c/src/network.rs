//! The network thread: the one on which the program calls `fdb_run_network`. Everything that waits, waits there.
//!
//! ```text
//!   fresh --setup--> set up --run--> running --stop--> stopped
//!                    work may be started already; it begins when the thread comes
//! ```
//!
//! There is no other thread, and none at all before the setup: programs load the library, fork, and let each child have a
//! network of its own. A child that is forked after the setup has none: threads are not forked. It is told so at once
//! (`network_not_setup`), whatever it asks for, because nobody would ever answer.

use std::{
    cell::Cell,
    ffi::c_void,
    future::Future,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    runtime::{EnterGuard, Handle, Runtime},
    sync::Notify,
    task::AbortHandle,
};

use crate::{
    api_version,
    errors::{self, Code},
    options::{self, NetworkSettings},
};

/// What the program wants to be called when the network has stopped, on its thread.
pub type Hook = unsafe extern "C" fn(*mut c_void);

enum Phase {
    Fresh,
    SetUp(Runtime),
    Running,
    Stopped,
}

struct RegisteredHook(Hook, *mut c_void);

// SAFETY: the interface says that the parameter is handed to the hook on the network thread, whoever registers it.
unsafe impl Send for RegisteredHook {}

struct Network {
    phase: Mutex<Phase>,
    settings: Mutex<NetworkSettings>,
    handle: OnceLock<Handle>,
    stop: Notify,
    is_stopped: AtomicBool,
    /// The process that has set it up.
    process: AtomicU32,
    hooks: Mutex<Vec<RegisteredHook>>,
}

static NETWORK: Network = Network {
    phase: Mutex::new(Phase::Fresh),
    settings: Mutex::new(NetworkSettings::new()),
    handle: OnceLock::new(),
    stop: Notify::const_new(),
    is_stopped: AtomicBool::new(false),
    process: AtomicU32::new(0),
    hooks: Mutex::new(Vec::new()),
};

thread_local! {
    static IS_NETWORK_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Sets an option of the network.
///
/// # Errors
///
/// `invalid_option`, `invalid_option_value`, or that of the environment's options, which are set first.
pub fn set_option(option: i32, value: Option<&[u8]>) -> Result<(), Code> {
    api_version::selected()?;
    let mut settings = NETWORK.settings.lock();
    settings.read_environment()?;
    settings.set(option, value)
}

/// Prepares the network.
///
/// # Errors
///
/// `network_already_setup`; `api_version_unset`; that of an option in the environment.
pub fn set_up() -> Result<(), Code> {
    api_version::selected()?;
    let mut phase = NETWORK.phase.lock();
    if !matches!(*phase, Phase::Fresh) {
        return Err(errors::NETWORK_ALREADY_SETUP);
    }
    let mut settings = NETWORK.settings.lock();
    settings.read_environment()?;
    options::start_trace(&settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        tracing::error!(%error, "the runtime of the network cannot be made");
        errors::INTERNAL_ERROR
    })?;
    NETWORK.process.store(std::process::id(), Ordering::Release);
    // It is the first one: the phase says so.
    let _ = NETWORK.handle.set(runtime.handle().clone());
    *phase = Phase::SetUp(runtime);
    Ok(())
}

/// Runs the network on this thread until it is stopped.
///
/// # Errors
///
/// `network_not_setup`, `network_cannot_be_restarted`.
pub fn run() -> Result<(), Code> {
    let runtime = {
        let mut phase = NETWORK.phase.lock();
        match std::mem::replace(&mut *phase, Phase::Running) {
            Phase::SetUp(runtime) => runtime,
            Phase::Fresh => {
                *phase = Phase::Fresh;
                return Err(errors::NETWORK_NOT_SETUP);
            }
            ran @ (Phase::Running | Phase::Stopped) => {
                *phase = ran;
                return Err(errors::NETWORK_CANNOT_BE_RESTARTED);
            }
        }
    };
    if is_of_parent() {
        // Its loop would wait for what only the parent hears.
        std::mem::forget(runtime);
        return Err(errors::NETWORK_NOT_SETUP);
    }
    IS_NETWORK_THREAD.set(true);
    runtime.block_on(NETWORK.stop.notified());
    NETWORK.is_stopped.store(true, Ordering::Release);
    // Whatever is pending is dropped here, and its futures become complete, with an error.
    runtime.shutdown_background();
    *NETWORK.phase.lock() = Phase::Stopped;
    for RegisteredHook(hook, parameter) in std::mem::take(&mut *NETWORK.hooks.lock()) {
        // SAFETY: who registered it vouches for both until it was called.
        unsafe { hook(parameter) };
    }
    IS_NETWORK_THREAD.set(false);
    Ok(())
}

/// Ends the network, also one that does not run yet.
///
/// # Errors
///
/// `network_not_setup`.
pub fn stop() -> Result<(), Code> {
    api_version::selected()?;
    if matches!(*NETWORK.phase.lock(), Phase::Fresh) {
        return Err(errors::NETWORK_NOT_SETUP);
    }
    NETWORK.stop.notify_one();
    Ok(())
}

/// Has `hook` called on the network thread when the network has stopped.
///
/// # Errors
///
/// `network_not_setup`.
pub fn add_completion_hook(hook: Hook, parameter: *mut c_void) -> Result<(), Code> {
    let _entered = entered()?;
    NETWORK.hooks.lock().push(RegisteredHook(hook, parameter));
    Ok(())
}

/// Whether this is the thread that runs the network.
pub fn is_network_thread() -> bool {
    IS_NETWORK_THREAD.get()
}

/// Makes the network the one that this thread starts tasks on, as long as the guard lives.
///
/// # Errors
///
/// `network_not_setup`; `operation_cancelled` once it has stopped.
pub fn entered() -> Result<EnterGuard<'static>, Code> {
    let handle = NETWORK.handle.get().ok_or(errors::NETWORK_NOT_SETUP)?;
    if is_of_parent() {
        return Err(errors::NETWORK_NOT_SETUP);
    }
    if NETWORK.is_stopped.load(Ordering::Acquire) {
        return Err(errors::OPERATION_CANCELLED);
    }
    Ok(handle.enter())
}

/// Whether the network is another process's, from which this one was forked.
pub fn is_of_parent() -> bool {
    let process = NETWORK.process.load(Ordering::Acquire);
    process != 0 && process != std::process::id()
}

/// Starts a task on the network; `None` if there is none. If it has stopped, the task is dropped unrun.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
    if is_of_parent() {
        return None;
    }
    Some(NETWORK.handle.get()?.spawn(task).abort_handle())
}
