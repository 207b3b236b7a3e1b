//! The status as FoundationDB's tools read it: `\xff\xff/status/json`, by the schema that FoundationDB documents.
//!
//! ```text
//!   each controller    who leads?              -> client.coordinators: who can be reached, whether that is a majority
//!   the leader         status                  -> cluster.processes, data, recovery_state, configuration
//!   each process       its metrics             -> uptime, busy, memory, roles; cluster.workload
//!   the database       a read version, a read, a commit of nothing   -> database_available, latency_probe
//!   the cluster file   what it says now        -> client.cluster_file.up_to_date
//! ```
//!
//! All of them are asked at once, each with a limit of a few seconds, so the text comes soon even if nobody answers. What is
//! measured is said, what cannot be known is left out: a field with a made-up value is worse than none. All that FerrisDB knows
//! itself is under `ferrisdb`.
//!
//! This file asks; [`document::document`] is a pure function of the answers, `processes.rs` and `data.rs` are parts of it.

mod data;
mod document;
mod processes;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::atomic::AtomicBool,
    time::Duration,
};

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Stage,
    id::Address,
    metrics::RoleMetrics,
    runtime,
    service::controller::{ControllerMember, Leader, Phase, Status},
    simulation::{Plant, planted},
    transaction::CommitRequest,
};
use futures::future::join_all;
use parking_lot::Mutex;

use crate::{
    cluster_file::Connection, database::Database, metrics::ProcessMetrics, options::Priority,
};
use document::document;

/// How long the leading controller may take, and looking for it.
const STATUS_LIMIT: Duration = Duration::from_secs(3);
/// How long each step of the probe may take: a database that takes longer is of no use.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Counts as read and written by the probe. Nobody keeps anything there.
const PROBE_KEY: &[u8] = b"\xff/status/probe";

/// All that the document is made of.
struct Findings {
    /// Seconds since 1970.
    timestamp: u64,
    file: ClusterFile,
    connection: Connection,
    /// Each controller, with what it said.
    coordinators: Vec<(Address, Result<Leader>)>,
    status: Result<Status>,
    probe: Probe,
    /// Each process, with what has happened since it was asked before.
    metrics: Vec<Reading>,
}

/// The cluster file as it is now.
struct ClusterFile {
    path: Option<PathBuf>,
    is_up_to_date: bool,
}

/// How long a transaction took; a step that failed, and all after it, have no time.
#[derive(Clone, Debug, Default, PartialEq)]
struct Probe {
    start: Option<Duration>,
    read: Option<Duration>,
    commit: Option<Duration>,
    failure: Option<Error>,
}

impl Findings {
    /// Whether transactions can be made: one was.
    fn is_available(&self) -> bool {
        if planted(Plant::StatusGuessesAvailability) {
            return self.status.as_ref().is_ok_and(|s| s.cluster.phase == Phase::Active);
        }
        self.probe.commit.is_some()
    }
}

/// What one process has said.
struct Reading {
    address: Address,
    roles: Result<Vec<RoleReading>>,
}

/// The numbers of a role.
struct RoleReading {
    /// Since it began.
    all: RoleMetrics,
    /// Since it was asked before by this handle; since it began if it was not.
    recent: RoleMetrics,
}

impl RoleReading {
    /// How often something happened in a second lately.
    fn hz(&self, counter: &str) -> f64 {
        let count = self.recent.counter(counter).unwrap_or_default() as f64;
        let seconds = self.recent.age_us as f64 / 1e6;
        if seconds > 0.0 { count / seconds } else { 0.0 }
    }
}

/// What each process said when it was asked last, so that the next time rates are those of the time between.
#[derive(Debug, Default)]
pub(crate) struct Readings(Mutex<BTreeMap<Address, Vec<RoleMetrics>>>);

impl Readings {
    /// Compares with what was said before, and remembers what is said now.
    fn compare(&self, now: Vec<ProcessMetrics>) -> Vec<Reading> {
        let mut before = self.0.lock();
        let readings = now.iter().map(|process| {
            let earlier = before.get(&process.address).map_or(&[][..], Vec::as_slice);
            let since = |role: &RoleMetrics| {
                let same = |then: &&RoleMetrics| {
                    (&then.role, then.registration) == (&role.role, role.registration)
                        && then.labels == role.labels
                        // Or else the process has started anew.
                        && then.age_us < role.age_us
                };
                let then = earlier.iter().find(same);
                let recent = then.map_or_else(|| role.clone(), |then| role.since(then));
                RoleReading { all: role.clone(), recent }
            };
            let roles = process.roles.as_ref().map(|roles| roles.iter().map(since).collect());
            Reading { address: process.address.clone(), roles: roles.map_err(Error::clone) }
        });
        let readings = readings.collect();
        // Processes that are gone are forgotten along with it.
        *before = now
            .into_iter()
            .filter_map(|process| Some((process.address, process.roles.ok()?)))
            .collect();
        readings
    }
}

/// The status as JSON. Always comes, after a few seconds at most.
pub(crate) async fn text(database: &Database) -> String {
    let findings = find(database).await;
    let everything = findings.status.as_ref().ok().map(|status| {
        // Ids are numbers of 128 bits, for which there is text in JSON but no value in memory.
        serde_json::to_string(status).unwrap_or_else(|_| "null".to_owned())
    });
    let mut text = document(&findings).to_string();
    if let Some(everything) = everything {
        text.pop();
        text += &format!(",\"ferrisdb\":{everything}}}");
    }
    text
}

async fn find(database: &Database) -> Findings {
    let asked = database.cluster().controllers().addresses();
    let status = runtime::timeout(STATUS_LIMIT, Stage::Client, database.status());
    let (mut coordinators, status, probe) =
        tokio::join!(ask(database, asked), status, probe(database));
    let status = status.and_then(|status| status);
    // Whoever is no member any more does not count; whoever has become one in the meantime does.
    if let Some(members) = members(&status, &coordinators) {
        let is_member = |address: &Address| members.contains(address);
        coordinators.retain(|(address, _)| is_member(address));
        let known: BTreeSet<_> = coordinators.iter().map(|(address, _)| address.clone()).collect();
        let new = members.into_iter().filter(|address| !known.contains(address)).collect();
        coordinators.extend(ask(database, new).await);
    }
    let metrics = match &status {
        Ok(status) => database.metrics_at(&living(status)).await,
        Err(_) => Vec::new(),
    };
    let connection = database.connection().clone();
    Findings {
        timestamp: runtime::unix_time().as_secs(),
        file: read_file(&connection, &status, &coordinators).await,
        connection,
        coordinators,
        status,
        probe,
        metrics: database.readings().compare(metrics),
    }
}

async fn ask(database: &Database, addresses: Vec<Address>) -> Vec<(Address, Result<Leader>)> {
    let controllers = database.cluster().controllers();
    let asked = addresses.into_iter().map(|address| async move {
        let answer = controllers.ask_one(&address).await;
        (address, answer)
    });
    join_all(asked).await
}

/// Who the controllers are: the leader knows best, then whoever answers.
fn members(
    status: &Result<Status>,
    coordinators: &[(Address, Result<Leader>)],
) -> Option<BTreeSet<Address>> {
    let of = |members: &[ControllerMember]| -> BTreeSet<Address> {
        members.iter().map(|member| member.address.clone()).collect()
    };
    let answers = coordinators.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let said = answers.map(|leader| &leader.controllers[..]);
    let known = status.iter().map(|status| &status.cluster.controllers[..]).chain(said);
    known.map(of).find(|members| !members.is_empty())
}

/// Where the processes are reached that the controllers count on.
fn living(status: &Status) -> Vec<Address> {
    let living = status.processes.iter().filter(|process| process.alive);
    let addresses = living.map(|process| process.heartbeat.worker.address.clone());
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Makes a transaction that changes nothing. What it waits for is what every transaction waits for.
async fn probe(database: &Database) -> Probe {
    let limit = match planted(Plant::StatusWithoutLimit) {
        true => Duration::from_secs(60),
        false => PROBE_LIMIT,
    };
    let cluster = database.cluster();
    let mut probe = Probe::default();
    let begun = runtime::now();
    let since = |then| runtime::now().saturating_duration_since(then);
    let limited = |result: Result<Result<_>>| result.and_then(|result| result);
    let version = cluster.read_version(Priority::Immediate);
    let version = runtime::timeout(limit, Stage::ReadVersion, version).await;
    let read_version = match limited(version) {
        Ok(version) => version,
        Err(error) => return Probe { failure: Some(error), ..probe },
    };
    probe.start = Some(since(begun));

    let (begun, key) = (runtime::now(), Key::from(PROBE_KEY));
    let read = runtime::timeout(limit, Stage::Read, cluster.get(&key, read_version)).await;
    if let Err(error) = read.and_then(|result| result) {
        return Probe { failure: Some(error), ..probe };
    }
    probe.read = Some(since(begun));

    let begun = runtime::now();
    let write_conflicts = vec![KeyRange::single(&key)];
    let request = CommitRequest { read_version, write_conflicts, ..CommitRequest::default() };
    let sent = AtomicBool::new(false);
    let commit = cluster.commit(request, &sent);
    match runtime::timeout(limit, Stage::Commit, commit).await.and_then(|result| result) {
        Ok(_) => probe.commit = Some(since(begun)),
        Err(error) => probe.failure = Some(error),
    }
    probe
}

/// Reads the cluster file again, and compares it with who the controllers are; if nobody says that, with what the handle was
/// made with.
async fn read_file(
    connection: &Connection,
    status: &Result<Status>,
    coordinators: &[(Address, Result<Leader>)],
) -> ClusterFile {
    let Some(path) = connection.path.clone() else {
        // There is nothing that could be out of date.
        return ClusterFile { path: None, is_up_to_date: true };
    };
    let of_file = path.clone();
    let found = runtime::blocking(move || Connection::read(of_file)).await;
    let is_up_to_date = match (found, members(status, coordinators)) {
        (Err(_), _) => false,
        (Ok(found), None) => found == *connection,
        (Ok(found), Some(members)) => {
            let cluster_id = status.as_ref().ok().map(|status| status.cluster.cluster_id);
            let is_id_wrong = found.cluster_id().is_some() && found.cluster_id() != cluster_id;
            let is_id_known = cluster_id.is_some();
            !(is_id_known && is_id_wrong) && are_same(found.addresses, members).await
        }
    };
    ClusterFile { path: Some(path), is_up_to_date }
}

/// Whether two lists mean the same places: a file may have names where the controllers give numbers.
async fn are_same(file: Vec<Address>, members: BTreeSet<Address>) -> bool {
    if file.iter().cloned().collect::<BTreeSet<_>>() == members {
        return true;
    }
    // A simulation has no names.
    #[cfg(madsim)]
    let is_same = false;
    #[cfg(not(madsim))]
    let is_same = runtime::blocking(move || {
        let file: BTreeSet<String> = file.iter().map(place_of).collect();
        let members: BTreeSet<String> = members.iter().map(place_of).collect();
        file == members
    })
    .await;
    is_same
}

/// The first place that a name stands for; the text itself if it stands for none.
#[cfg(not(madsim))]
fn place_of(address: &Address) -> String {
    use std::net::ToSocketAddrs as _;
    let first = address.0.to_socket_addrs().ok().and_then(|mut places| places.next());
    first.map_or_else(|| address.0.clone(), |place| place.to_string())
}

/// Whether the error says that time was over.
fn is_late(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::TimedOut | ErrorCode::Unreachable | ErrorCode::Unavailable)
}
