//! The report over clusters in good and bad shape.

use ferrisdb_client::{
    Address, ClusterId, Configuration, ControllerMember, Generation, Key, KeyRange, Redundancy,
    Status, Version,
};
use ferrisdb_core::{
    Shard, ShardMap, Teams,
    id::{Endpoint, ProcessId, Tag},
    service::controller::{
        ClusterState, CoordinatorMembers, DISK_IS_FULL, Heartbeat, LogMember, LogSet, Phase,
        ProcessClass, ProcessSelector, ProcessStatus, Progress, RecoveryReport, StorageReport,
        StorageServer,
    },
};

use super::{
    facts::{Facts, spoken},
    findings::{Finding, Severity, findings},
    json, text,
    tolerance::{Tolerance, tolerance},
};

/// Processes 1 to 9, three in each of the zones a, b and c: coordinators 1 to 3, logs 4 to 6, storage 7 to 9.
const ZONES: [&str; 3] = ["a", "b", "c"];

fn address(id: u128) -> Address {
    Address::new(format!("host-{id}:4500"))
}

fn process(id: u128, class: ProcessClass, zone: &str) -> ProcessStatus {
    let worker = Endpoint::of_process(address(id));
    let version = Version(9_000_000);
    let progress = Progress { version, durable_version: version, ..Progress::default() };
    let tag = (class == ProcessClass::Storage).then(|| Tag(id as u32 - 7));
    let heartbeat = Heartbeat {
        process: ProcessId(id),
        incarnation: 1,
        class,
        zone: zone.to_owned(),
        worker,
        hosted_generations: vec![Generation(3)],
        kept_generations: vec![Generation(3)],
        trouble: None,
        accused: Vec::new(),
        progress,
        storage: tag.map(|tag| StorageReport { tag: Some(tag), ..StorageReport::default() }),
    };
    ProcessStatus { heartbeat, silent_ms: 100, alive: true, failure: None }
}

fn shard(begin: impl Into<Key>, end: impl Into<Key>, team: [u32; 2]) -> Shard {
    Shard { range: KeyRange::new(begin, end), teams: Teams::of(team.map(Tag)) }
}

/// Three zones, two copies, three controllers, two shards.
fn healthy() -> Status {
    let classes = [ProcessClass::Coordinator, ProcessClass::Log, ProcessClass::Storage];
    let class = |class: usize| {
        let id = move |zone: usize| (class * 3 + zone + 1) as u128;
        (0..3).map(move |zone| process(id(zone), classes[class], ZONES[zone]))
    };
    let server = |tag: u32| StorageServer {
        tag: Tag(tag),
        process: ProcessId(u128::from(tag) + 7),
        endpoint: Endpoint::of_process(address(u128::from(tag) + 7)),
        zone: ZONES[tag as usize].to_owned(),
        begin_version: Version::ZERO,
    };
    let log = |id| LogMember {
        process: ProcessId(id),
        endpoint: Endpoint { address: address(id), instance: 5 },
    };
    let at = |id| Endpoint { address: address(id), instance: 9 };
    let controller = |node| ControllerMember { node, address: address(u128::from(node) + 1) };
    Status {
        cluster: ClusterState {
            cluster_id: ClusterId(7),
            revision: 12,
            generation: Generation(3),
            phase: Phase::Active,
            coordinator: Some(CoordinatorMembers {
                sequencer: at(1),
                proxies: vec![at(2)],
                resolvers: vec![(KeyRange::new(Key::MIN, Key::SYSTEM_END), at(2))],
            }),
            log_sets: vec![LogSet {
                generation: Generation(3),
                logs: vec![log(4), log(5), log(6)],
                replication: 2,
                begin_version: Version(1),
                recovery_version: Version(1),
                end_version: None,
            }],
            storage_servers: vec![server(0), server(1), server(2)],
            next_tag: Tag(3),
            shards: ShardMap::new(vec![
                shard("", "m\x00", [0, 1]),
                shard("m\x00", Key::SYSTEM_END, [1, 2]),
            ]),
            controllers: vec![controller(0), controller(1), controller(2)],
            configuration: Some(Configuration {
                redundancy: Redundancy::Double,
                logs: 3,
                proxies: 1,
                resolvers: 1,
                storage_replace_after_ms: 60_000,
            }),
            excluded: Vec::new(),
        },
        processes: (0..3).flat_map(class).collect(),
        leads_for_ms: 60_000,
        failure_timeout_ms: 1_000,
        recoveries: 2,
        last_recovery: Some(RecoveryReport {
            generation: Generation(3),
            reason: "lost log at host-4:4500: restarted".to_owned(),
            duration_ms: 412,
            attempts: 1,
        }),
        controller: address(1),
        silent_controllers: Vec::new(),
        repairs: Vec::new(),
        stuck: Vec::new(),
        metadata_version: Version(8_000_000),
        unreached: Vec::new(),
    }
}

fn kill(status: &mut Status, id: u128) {
    let process = &mut status.processes[id as usize - 1];
    process.alive = false;
    process.silent_ms = 61_000;
    process.failure = Some("silent for 61.0 s".to_owned());
}

fn found(status: &Status) -> Vec<Finding> {
    findings(&Facts::new(status))
}

fn report(status: &Status) -> String {
    let facts = Facts::new(status);
    text::report(&facts, &findings(&facts))
}

fn object(status: &Status) -> serde_json::Value {
    let facts = Facts::new(status);
    json::object(&facts, &findings(&facts))
}

fn lost(status: &Status) -> (Option<usize>, Option<usize>) {
    let Tolerance { data, availability } = tolerance(&Facts::new(status));
    (data.zones, availability.zones)
}

#[track_caller]
fn shows(text: &str, all: &[&str]) {
    for shown in all {
        assert!(text.contains(shown), "{shown} is missing in:\n{text}");
    }
}

#[test]
fn nothing_is_wrong_with_a_healthy_cluster() {
    let status = healthy();
    assert_eq!(found(&status), []);
    assert_eq!(lost(&status), (Some(1), Some(1)));
    let report = report(&status);
    assert!(report.starts_with("OK: "), "{report}");
    shows(
        &report,
        &[
            "generation    3, active",
            "host-1:4500 (leads), host-2:4500, host-3:4500; 1 may be lost",
            "double (2 copies of everything, in 2 of 3 zones: a, b, c)",
            "1 zone without losing data\n",
            "to 3, took 412 ms (1 attempt): lost log at host-4:4500: restarted",
            r"'m\x00'",
            "2 of 2",
        ],
    );
    for absent in ["Repairs", "Excluded"] {
        assert!(!report.contains(absent), "{report}");
    }
    let object = object(&status);
    assert_eq!(object["health"], "ok");
    assert_eq!(object["available"]["reads"], "all");
    assert_eq!(object["can_be_lost"]["data"]["zones"], 1);
    assert_eq!(object["storage_servers"][1]["shards"], 2);
}

#[test]
fn a_dead_server_weakens_and_two_take_shards_away() {
    let mut status = healthy();
    kill(&mut status, 7);
    let weak = found(&status);
    assert!(weak.iter().all(|finding| finding.severity == Severity::Weak));
    shows(&weak[0].what, &["1 of 2 shards have fewer living copies"]);
    shows(&weak[0].todo, &["stay away for 60 s are replaced"]);
    shows(
        &weak[1].what,
        &["storage process at host-7:4500 (zone a) has failed: silent for 61.0 s", "61 s ago"],
    );
    assert!(report(&status).starts_with("DEGRADED"));
    assert_eq!(lost(&status), (Some(0), Some(0)));
    shows(
        &report(&status),
        &["no zone without losing data (1 shard with living copies in 1 zone)"],
    );

    kill(&mut status, 8);
    let down = found(&status);
    assert_eq!(down[0].severity, Severity::Down);
    shows(&down[0].what, &["1 of 2 shards cannot be read"]);
    shows(&down[0].todo, &["host-7:4500", "host-8:4500"]);
    shows(&report(&status), &["DOWN: writes work, and reads but for those of 1 of 2 shards."]);
    assert_eq!(lost(&status), (None, None));
    let object = object(&status);
    assert_eq!(object["available"]["reads"], "some");
    assert_eq!(object["available"]["writes"], true);
}

#[test]
fn what_the_cluster_waits_for_comes_first() {
    let mut status = healthy();
    kill(&mut status, 4);
    kill(&mut status, 5);
    status.cluster.phase = Phase::Waiting { reason: "needs 2 logs, 1 is alive".to_owned() };
    let found = found(&status);
    shows(&found[0].what, &["needs 2 logs, 1 is alive"]);
    // Storage 0 has its messages on logs 0 and 1 only: processes 4 and 5.
    shows(&found[1].what, &["newest data of storage 0 (generation 3)"]);
    shows(&found[1].todo, &["host-4:4500", "host-5:4500"]);
    assert_eq!(found[1].severity, Severity::Down);
    assert!(report(&status).starts_with("DOWN: neither reads nor writes work."));
    let object = object(&status);
    assert_eq!(object["health"], "down");
    assert_eq!(object["available"]["reads"], "none");
    assert_eq!(object["waits_for"], "needs 2 logs, 1 is alive");
    assert_eq!(object["shards"][1]["range"]["begin"], r"m\x00");
}

/// Zones a and b with two logs each in use; `third` says whether one waits in zone c.
fn four_logs_in_two_zones(third: bool) -> Status {
    let mut status = healthy();
    status.processes.push(process(10, ProcessClass::Log, "a"));
    status.processes.push(process(11, ProcessClass::Log, "b"));
    let set = &mut status.cluster.log_sets[0];
    let template = set.logs[0].clone();
    let member = |id| LogMember { process: ProcessId(id), ..template.clone() };
    set.logs = [4, 5, 10, 11].map(member).into();
    if !third {
        status.processes.retain(|process| process.heartbeat.process.0 != 6);
    }
    status
}

#[test]
fn zones_count_and_not_the_logs_in_them() {
    assert_eq!(lost(&four_logs_in_two_zones(true)), (Some(1), Some(1)));
    let status = four_logs_in_two_zones(false);
    assert_eq!(lost(&status), (Some(1), Some(0)));
    shows(&report(&status), &["log processes live in 2 zones, a recovery needs 2"]);
    // A zone is gone, and the recovery has what it needs: nothing that it waits for is said to be lost.
    let mut status = four_logs_in_two_zones(true);
    kill(&mut status, 4);
    kill(&mut status, 10);
    status.cluster.phase = Phase::Recovering { step: "locking".to_owned() };
    assert!(found(&status).iter().all(|finding| !finding.what.contains("no log that is alive")));
    assert_eq!(lost(&status).0, Some(0));
    // A copy group without a tag is needed all the same.
    let mut status = four_logs_in_two_zones(true);
    kill(&mut status, 11);
    kill(&mut status, 4);
    status.cluster.phase = Phase::Waiting { reason: "locks".to_owned() };
    let found = found(&status);
    let needed =
        found.iter().find(|finding| finding.what.contains("a recovery needs a log out of"));
    shows(&needed.unwrap().what, &["host-4:4500", "host-11:4500", "none is alive"]);
}

#[test]
fn two_that_do_not_reach_each_other_are_named_and_so_is_a_full_disk() {
    let mut status = healthy();
    status.unreached = vec![(address(1), address(5))];
    shows(&found(&status)[0].what, &["host-5:4500 is alive, but did not answer host-1:4500"]);
    assert_eq!(object(&status)["unreached"][0]["to"], "host-5:4500");
    let mut status = healthy();
    let full = format!("{DISK_IS_FULL}: 3 MiB are free in /data, and 5 MiB are needed");
    let process = &mut status.processes[3];
    process.alive = false;
    process.failure = Some(full.clone());
    process.heartbeat.trouble = Some(full);
    let found = found(&status);
    shows(&found[0].what, &["host-4:4500", "its disk is full: 3 MiB are free"]);
    shows(&found[0].todo, &["free space on its disk", "goes on by itself", "host-4:4500"]);
}

#[test]
fn a_log_set_that_everybody_has_on_disk_does_not_matter() {
    let mut status = healthy();
    let mut old = status.cluster.log_sets[0].clone();
    old.generation = Generation(2);
    old.end_version = Some(Version(9_000_000));
    let gone = LogMember { process: ProcessId(99), ..old.logs[0].clone() };
    old.logs = vec![gone.clone(), gone.clone(), gone];
    status.cluster.log_sets.insert(0, old);
    assert_eq!(found(&status), []);
    status.processes[8].heartbeat.progress.durable_version = Version(8_900_000);
    let weak = found(&status);
    shows(&weak[0].what, &["storage 2 (generation 2)"]);
    assert_eq!(lost(&status).0, None);
}

#[test]
fn who_was_never_heard_of_is_named_all_the_same() {
    let mut status = healthy();
    // A new leader of the controllers, after log 4 and storage server 7 have died.
    status.processes.retain(|process| ![4, 7].contains(&process.heartbeat.process.0));
    let weak = found(&status);
    let named = |what: &str| weak.iter().any(|finding| finding.what.contains(what));
    assert!(named("log process at host-4:4500 was not heard of since this controller leads"));
    assert!(named("storage process at host-7:4500 (zone a) was not heard of"), "{weak:?}");
    assert!(report(&status).starts_with("DEGRADED"));
}

#[test]
fn a_server_behind_the_window_is_a_finding() {
    let mut status = healthy();
    status.processes[8].heartbeat.progress.version = Version(8_500_000);
    let facts = Facts::new(&status);
    assert_eq!(facts.lag(&status.processes[8]), Some(500_000));
    assert_eq!(facts.lag(&status.processes[0]), None);
    shows(&report(&status), &["0.5 s"]);
    status.processes[8].heartbeat.progress.version = Version(1_000_000);
    shows(&found(&status)[0].what, &["host-9:4500 (zone c) is 8.0 s behind"]);
}

#[test]
fn silent_controllers_are_counted() {
    let mut status = healthy();
    status.silent_controllers = vec![(address(3), "connection refused".to_owned())];
    let weak = found(&status);
    shows(&weak[0].what, &["controller at host-3:4500 is silent, one of 3", "no other controller"]);
    shows(&weak[0].todo, &["controllers remove host-3:4500, then controllers add host-3:4500"]);
    shows(&report(&status), &["host-3:4500 (SILENT); 0 may be lost"]);
    assert_eq!(lost(&status), (Some(1), Some(0)));
}

#[test]
fn a_controller_shares_the_zone_of_its_host() {
    let mut status = healthy();
    // All controllers on the hosts of zone a.
    for (member, id) in status.cluster.controllers.iter_mut().zip([1, 4, 7]) {
        member.address = Address::new(format!("host-{id}:4600"));
    }
    assert_eq!(lost(&status), (Some(1), Some(0)));
    let advice = found(&status);
    assert_eq!(advice[0].severity, Severity::Advice);
    shows(&advice[0].what, &["survives the loss of 1 zone,", "1 of 3 controllers can be lost"]);
    assert!(report(&status).starts_with("OK: "));
    assert_eq!(object(&status)["health"], "ok");
}

#[test]
fn a_recovery_needs_logs_in_as_many_zones_as_copies() {
    let mut status = healthy();
    status.cluster.excluded = vec![ProcessSelector::Process(ProcessId(4))];
    let tolerance = tolerance(&Facts::new(&status));
    assert_eq!((tolerance.data.zones, tolerance.availability.zones), (Some(1), Some(0)));
    shows(&tolerance.availability.limited_by[0], &["log processes live in 2 zones"]);
}

#[test]
fn trouble_and_accusations_are_told() {
    let mut status = healthy();
    let log = &mut status.processes[3];
    (log.alive, log.failure) = (false, Some("fsync failed".to_owned()));
    log.heartbeat.trouble = log.failure.clone();
    status.processes[0].heartbeat.accused = vec![address(5), address(4)];
    let weak = found(&status);
    shows(&weak[0].what, &["log process at host-4:4500 (zone a) has failed: fsync failed"]);
    shows(&weak[0].todo, &["exclude 00000000000000000000000000000004"]);
    shows(&weak[1].what, &["host-5:4500 is alive, but did not answer host-1:4500"]);
    assert_eq!(weak.iter().filter(|finding| finding.what.contains("did not answer")).count(), 1);
}

#[test]
fn stuck_repairs_are_findings_and_repairs_are_not() {
    let mut status = healthy();
    status.repairs = vec!["..m: storage 2 is copying it".to_owned()];
    status.processes[8].heartbeat.storage.as_mut().unwrap().copying = vec![KeyRange::new("", "m")];
    assert_eq!(found(&status), []);
    shows(&report(&status), &["Repairs\n  ..m: storage 2 is copying it"]);
    assert_eq!(object(&status)["storage_servers"][2]["copying"][0]["end"], "m");
    status.stuck = (0..5).map(|n| format!("{n} has 1 of 2 copies")).collect();
    let weak = found(&status);
    shows(&weak[0].what, &["0 has 1 of 2 copies; 1 has", "and 2 more"]);
    shows(&weak[0].todo, &["2 zones are needed", "configure --redundancy"]);
}

#[test]
fn what_is_not_known_yet_is_not_down() {
    let mut status = healthy();
    status.leads_for_ms = 300;
    // Nobody has been heard but one log.
    status.processes.retain(|process| process.heartbeat.process == ProcessId(4));
    let unknown = found(&status);
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    assert_eq!(unknown[0].severity, Severity::Unknown);
    shows(&unknown[0].what, &["leads since 0.3 s", "has not heard of 5 processes yet"]);
    assert!(report(&status).starts_with("NOT KNOWN YET: "));
    assert_eq!(object(&status)["health"], "unknown");
    // One that was heard and has failed since is known to be dead; its shards may be alive elsewhere.
    let mut status = healthy();
    status.leads_for_ms = 300;
    kill(&mut status, 7);
    assert!(found(&status).iter().any(|finding| finding.severity == Severity::Weak));
    // A moment later whoever is not heard of is gone.
    status.leads_for_ms = 1_000;
    status.processes.retain(|process| process.heartbeat.process == ProcessId(4));
    assert!(report(&status).starts_with("DOWN: "));
    assert_eq!(object(&status)["health"], "down");
}

#[test]
fn logs_do_not_lag() {
    // An idle database takes one large step in a while, of which a log is told first and heard later.
    let mut status = healthy();
    status.processes[0].heartbeat.progress.version = Version(50_000_000);
    let facts = Facts::new(&status);
    let lag = |class| {
        let of_class = status.processes.iter().filter(|p| p.heartbeat.class == class);
        of_class.map(|process| facts.lag(process).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(lag(ProcessClass::Log), [false; 3]);
    assert_eq!(lag(ProcessClass::Storage), [true; 3]);
}

#[test]
fn an_address_stays_excluded_whoever_comes_there() {
    let mut status = healthy();
    status.cluster.excluded = vec![ProcessSelector::Address(address(3))];
    shows(
        &report(&status),
        &["coordinator process at host-3:4500 (zone c) (host-3:4500): drained"],
    );
    status.processes[2].heartbeat.process = ProcessId(99);
    assert!(Facts::new(&status).is_excluded(ProcessId(99)));
    assert_eq!(object(&status)["excluded"][0]["excluded"], "host-3:4500");
    status.processes.remove(2);
    shows(&report(&status), &["nobody at present (host-3:4500)"]);
}

#[test]
fn excluded_processes_are_drained_when_nothing_names_them() {
    let mut status = healthy();
    let excluded = [9, 3, 6, 2].map(|id| ProcessSelector::Process(ProcessId(id)));
    status.cluster.excluded = excluded.into();
    shows(
        &report(&status),
        &[
            "storage process at host-9:4500 (zone c) (00000000000000000000000000000009): still has 1 shard",
            "coordinator process at host-3:4500 (zone c) (00000000000000000000000000000003): drained",
            "still has a log of generation 3",
            "still has 1 proxy, 1 resolver",
        ],
    );
    let facts = Facts::new(&status);
    let undrained = facts
        .undrained(&[ProcessSelector::Address(address(9)), ProcessSelector::Process(ProcessId(3))]);
    assert_eq!(undrained.len(), 1, "{undrained:?}");
    status.cluster.shards.set(&"m\x00".into(), Teams::of([Tag(0), Tag(1)]));
    let facts = Facts::new(&status);
    assert_eq!(facts.undrained(&[ProcessSelector::Address(address(9))]), Vec::<String>::new());
    assert_eq!(object(&status)["excluded"][0]["drained"], true);
    // Once it is drained, its end is no news.
    kill(&mut status, 9);
    let news = found(&status).into_iter().find(|finding| finding.what.contains("host-9"));
    assert_eq!(news, None);
}

#[test]
fn a_cluster_is_settled_when_it_is_what_was_asked_for() {
    let mut status = healthy();
    let left = |status: &Status| Facts::new(status).unsettled();
    assert_eq!(left(&status), Vec::<String>::new());
    let configuration = status.cluster.configuration.as_mut().unwrap();
    configuration.redundancy = Redundancy::Triple;
    configuration.proxies = 2;
    assert_eq!(
        left(&status),
        [
            "the generation has 2 of 3 copies in its logs",
            "the generation has 1 of 2 proxies",
            "2 of 2 shards on their way to 3 copies"
        ]
    );
    status.cluster.phase = Phase::Recovering { step: "locking".to_owned() };
    assert_eq!(left(&status)[0], "a recovery: locking");
    // More logs than there are processes are not waited for.
    let mut status = healthy();
    status.cluster.configuration.as_mut().unwrap().logs = 7;
    assert_eq!(left(&status), Vec::<String>::new());
}

#[test]
fn many_shards_are_summed_up() {
    let mut status = healthy();
    let border = |byte: u8| if byte == 0 { Key::MIN } else { Key::from(&[b'a', byte]) };
    let end = |byte: u8| if byte == 30 { Key::SYSTEM_END } else { border(byte + 1) };
    let shards = (0..=30).map(|byte| shard(border(byte), end(byte), [0, 1]));
    status.cluster.shards = ShardMap::new(shards.collect());
    shows(&report(&status), &["31 shards, all with their whole teams"]);
    kill(&mut status, 7);
    shows(&report(&status), &["and 11 more"]);
}

#[test]
fn durations_are_said_in_one_unit() {
    let all = [400, 61_000, 720_000, 18_000_000].map(spoken);
    assert_eq!(all, ["0.4 s", "61 s", "12 min", "5 h"]);
}
