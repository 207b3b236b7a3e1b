//! The report over clusters in good and bad shape.

use ferrisdb_client::{Address, ClusterId, Generation, Key, Status, Version};
use ferrisdb_core::{
    id::{Endpoint, ProcessId, Tag},
    service::controller::{
        ClusterState, Heartbeat, Phase, ProcessClass, ProcessStatus, Progress, Shard, StorageServer,
    },
};

use super::{
    findings::{Severity, findings, lag},
    json, text,
};

fn process(id: u128, class: ProcessClass, version: u64) -> ProcessStatus {
    let worker = Endpoint::of_process(Address::new(format!("host-{id}:4500")));
    let progress = Progress { version: Version(version), ..Progress::default() };
    let heartbeat = Heartbeat {
        process: ProcessId(id),
        incarnation: 1,
        class,
        worker,
        hosted_generations: vec![Generation(3)],
        progress,
    };
    ProcessStatus { heartbeat, silent_ms: 100, alive: true }
}

/// A coordinator, a log and two storage servers, which hold two shards on both of them.
fn healthy() -> Status {
    let server = |tag, process| StorageServer {
        tag: Tag(tag),
        process: ProcessId(process),
        endpoint: Endpoint::of_process(Address::new(format!("host-{process}:4500"))),
    };
    Status {
        cluster: ClusterState {
            cluster_id: ClusterId(7),
            revision: 12,
            generation: Generation(3),
            phase: Phase::Active,
            coordinator: None,
            log_sets: Vec::new(),
            storage_servers: vec![server(0, 3), server(1, 4)],
            shards: Shard::spread(&[Key::from("m\x00")], 2, 2),
        },
        processes: vec![
            process(1, ProcessClass::Coordinator, 9_000_000),
            process(2, ProcessClass::Log, 9_000_000),
            process(3, ProcessClass::Storage, 9_000_000),
            process(4, ProcessClass::Storage, 8_500_000),
        ],
        recoveries: 2,
        controller: Address::new("host-0:4500"),
    }
}

fn report(status: &Status) -> String {
    text::report(status, &findings(status))
}

#[test]
fn nothing_is_wrong_with_a_healthy_cluster() {
    let status = healthy();
    assert_eq!(findings(&status), []);
    let report = report(&status);
    assert!(report.starts_with("OK: "), "{report}");
    for shown in ["generation  3, active", "host-3:4500", "0.5 s", r"'m\x00'", "2 of 2"] {
        assert!(report.contains(shown), "{shown} is missing in:\n{report}");
    }
}

#[test]
fn a_dead_server_weakens_and_two_take_shards_away() {
    let mut status = healthy();
    status.processes[2].alive = false;
    status.processes[2].silent_ms = 61_000;
    let weak = findings(&status);
    assert!(weak.iter().all(|finding| finding.severity == Severity::Weak));
    assert!(weak[0].what.contains("2 of 2 shards"), "{weak:?}");
    assert!(weak[1].what.contains("storage process at host-3:4500 has been silent for 61 s"));
    assert!(report(&status).starts_with("DEGRADED"));

    status.processes[3].alive = false;
    let down = findings(&status);
    assert_eq!(down[0].severity, Severity::Down);
    assert!(down[0].what.contains("cannot be read"), "{down:?}");
    assert!(report(&status).starts_with("DOWN"));
}

#[test]
fn what_the_cluster_waits_for_comes_first() {
    let mut status = healthy();
    status.processes[1].alive = false;
    status.cluster.phase = Phase::Waiting { reason: "needs 1 log, 0 are alive".to_owned() };
    assert!(findings(&status)[0].what.contains("needs 1 log, 0 are alive"));
    let object = json::object(&status, &findings(&status));
    assert_eq!(object["health"], "down");
    assert_eq!(object["waits_for"], "needs 1 log, 0 are alive");
    assert_eq!(object["shards"][1]["range"]["begin"], r"m\x00");
}

#[test]
fn a_server_behind_the_window_is_a_finding() {
    let mut status = healthy();
    assert_eq!(lag(&status, &status.processes[3]), Some(500_000));
    assert_eq!(lag(&status, &status.processes[0]), None);
    status.processes[3].heartbeat.progress.version = Version(1_000_000);
    let found = findings(&status);
    assert!(found[0].what.contains("host-4:4500 is 8.0 s behind"), "{found:?}");
}

#[test]
fn many_shards_are_summed_up() {
    let mut status = healthy();
    let boundaries: Vec<Key> = (0..30u8).map(|byte| Key::from(&[b'a', byte])).collect();
    status.cluster.shards = Shard::spread(&boundaries, 2, 2);
    assert!(report(&status).contains("31 shards, all with their whole teams"));
    status.processes[2].alive = false;
    assert!(report(&status).contains("and 11 more"));
}
