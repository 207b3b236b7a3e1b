//! A process around its roles: settings, logging, threads, signals, panics and the exit code.
//!
//! ```text
//!   main --> settings --> logging, panic hook --> runtime --> the binary's own future --> exit code
//!               |                                                  |
//!               |  help, version, --print-config: exit 0           |  SIGINT or SIGTERM: shut down, exit 0
//!               +- bad settings: exit 2                            |  a second signal: exit at once, 128 + its number
//!                                                                  |  an error: say it with its hint, exit 1
//!                                                                  +- a panic anywhere: say it, abort
//! ```
//!
//! A panic is a broken invariant. Tokio would catch it and let the other tasks go on with a state that can be
//! wrong, so the process ends instead, at once and without unwinding: from its disk it comes back, and the
//! cluster recovers from its absence, as from a power failure. The one exception is a panic while decoding
//! what a peer sent, which is the peer's fault and is caught there.
//!
//! Not part of a simulation, which has its own processes: none of this exists with `--cfg madsim`.
//! Start with [`main`].

use std::{
    backtrace::Backtrace,
    fmt,
    future::Future,
    io::{self, Write as _},
    panic::{self, PanicHookInfo},
    pin::pin,
    process::ExitCode,
};

use ferrisdb_core::{Error, ErrorCode, Result, Stage, runtime, transport::is_decoding};
use futures::future::{self, Either};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Load, LogFormat, Role, SettingsError, load},
    descriptors,
};

/// Runs a binary: reads its settings, prepares the process, and runs `body` to its end.
///
/// `body` is the whole life of the process: it starts the role, waits for the [`Shutdown`], and stops it.
pub fn main<R: Role, F>(body: impl FnOnce(R, Shutdown) -> F) -> ExitCode
where
    F: Future<Output = Result<()>>,
{
    let loaded = match load::<R>(std::env::args_os()) {
        Ok(Load::Run(loaded)) => *loaded,
        Ok(Load::Print(text)) => {
            say(text.trim_end());
            return ExitCode::SUCCESS;
        }
        // Printed by clap itself: with colours, and with the hint at --help.
        Err(SettingsError::CommandLine(error)) => {
            let _ = error.print();
            return ExitCode::from(2);
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::from(2);
        }
    };
    init_logging(&loaded.runtime.log, loaded.runtime.log_format);
    install_panic_hook();
    if let Err(error) = descriptors::prepare() {
        let _ = writeln!(io::stderr(), "{}", explain(&error));
        return ExitCode::from(1);
    }
    run(usize::from(loaded.runtime.worker_threads), async {
        let shutdown = shutdown_signal()?;
        tracing::info!(binary = R::BINARY, version = env!("CARGO_PKG_VERSION"), "starting");
        body(loaded.role, shutdown).await?;
        tracing::info!("stopped");
        Ok(())
    })
}

/// Runs a future on a runtime of its own, and turns its end into an exit code.
///
/// An error goes to stderr with its hint: the code is 2 if an argument was wrong, and 1 otherwise.
pub fn run(worker_threads: usize, main: impl Future<Output = Result<()>>) -> ExitCode {
    match build_runtime(worker_threads).and_then(|runtime| runtime.block_on(main)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", explain(&error));
            ExitCode::from(if error.code() == ErrorCode::InvalidArgument { 2 } else { 1 })
        }
    }
}

/// An error for somebody at a terminal: what happened, the particulars, and what to try, each on a line.
fn explain(error: &Error) -> String {
    let mut text = format!("error: {} ({})", error.code().sentence(), error.code());
    if let Some(server) = error.server() {
        text += &format!(", on {server}");
    }
    if !error.detail().is_empty() {
        text += &format!("\n  {}", error.detail());
    }
    text + &format!("\n  hint: {}", error.hint())
}

/// Prints a line for whoever started the process.
///
/// Not `println!`, which panics when nobody reads the other end of a pipe: that is no broken invariant.
pub fn say(line: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// How to call a binary that lies beside this one: by its path, or by its name if it is not there.
pub fn sibling(name: &str) -> String {
    let beside = std::env::current_exe().ok().map(|here| here.with_file_name(name));
    let found = beside.filter(|path| path.is_file()).map(|path| path.display().to_string());
    found.unwrap_or_else(|| name.to_string())
}

/// A runtime with so many threads for tasks; disk operations have threads of their own.
///
/// # Errors
///
/// If the operating system grants no threads or descriptors.
pub fn build_runtime(worker_threads: usize) -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads)
        .thread_name("ferrisdb")
        .enable_all()
        .build()
        .map_err(|error| internal("cannot start the runtime", &error))
}

fn internal(what: &str, error: &io::Error) -> Error {
    Error::new(ErrorCode::Internal, Stage::Process, format!("{what}: {error}"))
}

/// Sends log lines to stderr. To be called once.
///
/// `filter` has been checked by the settings. Unless it names tarpc, that is off: a subscriber that takes its spans costs more
/// than most requests do, and its only error is that a time limit has passed, which is no news to whoever has set it and says
/// by itself what that means. Unless it names openraft, that is off, too: it reports each message to a member that is gone as
/// an error, many times a second.
pub fn init_logging(filter: &str, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(with_quiet_libraries(filter)))
        .with_writer(io::stderr)
        // A disk that is full may be the one that the log goes to: no reason to end.
        .log_internal_errors(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
    // A subscriber that somebody has installed before, such as a test, stays.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

fn with_quiet_libraries(filter: &str) -> String {
    let targets = filter.split(',').map(|directive| directive.trim().trim_start_matches('['));
    let named: Vec<&str> = targets.collect();
    let mut filter = filter.to_owned();
    for (library, level) in [("tarpc", "off"), ("openraft", "off")] {
        if !named.iter().any(|target| target.starts_with(library)) {
            filter.push_str(&format!(",{library}={level}"));
        }
    }
    filter
}

/// Makes a panic anywhere end the process, except while a peer's message is being decoded.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        if !is_decoding() {
            die_of_panic(info);
        }
    }));
}

fn die_of_panic(info: &PanicHookInfo<'_>) -> ! {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let message = text.unwrap_or("(a panic without a message)");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::force_capture();
    // The message must get out, even where the filter is off or logging has not begun.
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(
            message, location, thread, %backtrace,
            "a broken invariant: the process aborts"
        );
    } else {
        let _ = writeln!(
            io::stderr(),
            "a broken invariant: the process aborts\n{message}\nat {location}, thread {thread}\n{backtrace}"
        );
    }
    let _ = io::stderr().flush();
    std::process::abort()
}

/// The request to stop: resolves once.
#[derive(Debug)]
pub struct Shutdown(oneshot::Receiver<()>);

impl Shutdown {
    /// Waits for the request.
    pub async fn requested(&mut self) {
        // The sender cannot go away unsent: its task waits for signals for as long as the runtime runs.
        // If the runtime is on its way out, stopping is right as well.
        let _ = (&mut self.0).await;
    }

    /// Waits for a future, such as a start that waits for other servers, but not past the request: `None`
    /// then, and the future is dropped.
    pub async fn or<T>(&mut self, future: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        match future::select(pin!(self.requested()), pin!(future)).await {
            Either::Left(((), _)) => Ok(None),
            Either::Right((result, _)) => result.map(Some),
        }
    }
}

/// Listens for SIGINT and SIGTERM from now on. The first one resolves the [`Shutdown`]; a second one ends
/// the process at once, for whoever is tired of waiting.
///
/// # Errors
///
/// If the operating system refuses.
pub fn shutdown_signal() -> Result<Shutdown> {
    let refused = |error: io::Error| internal("cannot listen for signals", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let (request, requested) = oneshot::channel();
    let listening = async move {
        let mut request = Some(request);
        loop {
            let (name, number) = tokio::select! {
                biased;
                _ = interrupt.recv() => ("SIGINT", 2),
                _ = terminate.recv() => ("SIGTERM", 15),
            };
            match request.take() {
                Some(request) => {
                    tracing::info!("{name}: shutting down; once more to exit at once");
                    // Nobody waits when the process is stopping for another reason already.
                    let _ = request.send(());
                }
                None => {
                    tracing::warn!("{name} again: exiting at once");
                    std::process::exit(128 + number);
                }
            }
        }
    };
    runtime::spawn(listening).detach();
    Ok(Shutdown(requested))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tarpc_is_quiet_unless_it_is_named() {
        let quiet = with_quiet_libraries;
        assert_eq!(quiet("debug"), "debug,tarpc=off,openraft=off");
        assert_eq!(quiet("info,my_tarpc=debug"), "info,my_tarpc=debug,tarpc=off,openraft=off");
        assert_eq!(quiet("info, tarpc=trace"), "info, tarpc=trace,openraft=off");
        assert_eq!(quiet("tarpc::client=debug,info"), "tarpc::client=debug,info,openraft=off");
        assert_eq!(quiet("info,openraft=info"), "info,openraft=info,tarpc=off");
    }

    #[test]
    fn an_error_is_explained_with_its_hint() {
        let error = Error::new(ErrorCode::DirectoryLocked, Stage::Process, "./data is locked");
        assert_eq!(
            explain(&error),
            "error: the data directory is in use by another process (directory_locked)\n  \
             ./data is locked\n  hint: stop the other process, or use another directory"
        );
    }
}
