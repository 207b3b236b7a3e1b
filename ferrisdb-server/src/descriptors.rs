//! File descriptors: how many the process may have, and what for.
//!
//! ```text
//!   limit 1,024      64 threads and the like     240 the engine's tables     120 other files     120 connections to others
//!                    480 connections of others, of which so many may be silent: see [`Bounds`]
//! ```
//!
//! A process without descriptors cannot open the next segment of its log, and RocksDB takes that for a disk that is broken. So
//! the limit is divided when a process starts: files first, then its own connections, and others get what is left; whoever
//! comes when that is used up is told so, and comes again. Before, the process asks for as many as it may have: many systems
//! give 1,024 to whoever does not.

use std::sync::OnceLock;

use ferrisdb_core::{Error, ErrorCode, Result, Stage, limits, transport::Bounds};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than this are of no use to a process.
const DESCRIPTORS_MAX: u64 = 65_536;
/// With fewer than this a process does not start.
const DESCRIPTORS_MIN: u64 = 128;
/// Standard streams, threads with a runtime of their own, the runtime itself.
const FIXED: u64 = 64;

/// A limit of descriptors, divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// The limit.
    pub limit: u64,
    /// For tables of the engine.
    pub engine: u64,
    /// For other files: segments of logs, the controllers' group, what is written anew.
    pub files: u64,
    /// For connections to others.
    pub outgoing: u64,
    /// For connections that have said what they want.
    pub incoming: u64,
    /// For connections that have not said anything yet.
    pub handshakes: u64,
}

impl Descriptors {
    /// What a process with this limit does with it.
    pub fn of(limit: u64) -> Descriptors {
        let rest = limit.min(DESCRIPTORS_MAX).saturating_sub(FIXED);
        let engine = (rest / 4).clamp(16, 1_000);
        let files = (rest / 8).clamp(16, 512);
        let outgoing = (rest / 8).clamp(8, 4_096);
        let others = rest.saturating_sub(engine + files + outgoing);
        let handshakes = (others / 4).clamp(4, limits::HANDSHAKES_MAX as u64);
        let most = limits::CONNECTIONS_MAX as u64;
        let incoming = others.saturating_sub(handshakes).clamp(8, most);
        Descriptors { limit, engine, files, outgoing, incoming, handshakes }
    }

    /// Those of this process. What it may have is looked up once.
    pub fn of_process() -> Descriptors {
        static OF_PROCESS: OnceLock<Descriptors> = OnceLock::new();
        *OF_PROCESS.get_or_init(|| {
            let limit = getrlimit(Resource::Nofile).current;
            Descriptors::of(limit.unwrap_or(DESCRIPTORS_MAX))
        })
    }

    /// The bounds of the process' connections.
    pub fn bounds(&self) -> Bounds {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Bounds {
            connections_max: count(self.incoming),
            handshakes_max: count(self.handshakes),
            ..Bounds::default()
        }
    }
}

/// Asks for as many descriptors as the process may have, and says what it does with them. To be called at the start, before
/// anything is opened.
///
/// # Errors
///
/// If they are too few to work with.
pub fn prepare() -> Result<Descriptors> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(%error, wanted, "the limit of file descriptors could not be raised");
    }
    let descriptors = Descriptors::of_process();
    if descriptors.limit < DESCRIPTORS_MIN {
        let detail = format!(
            "the process may open {} files and connections, it needs {DESCRIPTORS_MIN} at least (ulimit -n)",
            descriptors.limit
        );
        return Err(Error::new(ErrorCode::InvalidArgument, Stage::Process, detail));
    }
    tracing::debug!(?descriptors, "file descriptors");
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_and_nothing_is_given_away_twice() {
        for limit in [DESCRIPTORS_MIN, 200, 256, 1_024, 4_096, 65_536, 1 << 20] {
            let parts = Descriptors::of(limit);
            let Descriptors { engine, files, outgoing, incoming, handshakes, .. } = parts;
            let sum = FIXED + engine + files + outgoing + incoming + handshakes;
            assert!(sum <= limit, "{sum} of {limit}: {parts:?}");
            assert!(engine >= 16 && files >= 16 && incoming >= 8 && handshakes >= 2, "{parts:?}");
        }
        assert_eq!(Descriptors::of(65_536).incoming, limits::CONNECTIONS_MAX as u64);
        let small = Descriptors::of(256);
        assert!((40..100).contains(&small.incoming), "{small:?}");
    }
}
