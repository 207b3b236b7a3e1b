//! What the document says of clusters that are not well.

use ferrisdb_core::{
    Endpoint, Generation, Key, KeyRange, Shard, ShardMap, Tag, Teams, Version,
    id::{ClusterId, ProcessId},
    service::controller::{
        ClusterState, Configuration, CoordinatorMembers, Heartbeat, LogMember, LogSet, Phase,
        ProcessClass, ProcessStatus, Progress, Redundancy, StorageServer,
    },
};
use serde_json::{Value, json};

use super::*;

fn address(host: u128) -> Address {
    Address::new(format!("10.0.0.{host}:4500"))
}

/// A process of a class at a host, in the zone of the host.
fn process(id: u128, class: ProcessClass, host: u128) -> ProcessStatus {
    let heartbeat = Heartbeat {
        process: ProcessId(id),
        incarnation: 1,
        class,
        zone: format!("zone-{host}"),
        worker: Endpoint::of_process(address(host)),
        hosted_generations: vec![Generation(3)],
        kept_generations: vec![Generation(3)],
        trouble: None,
        accused: Vec::new(),
        progress: Progress::default(),
        storage: None,
    };
    ProcessStatus { heartbeat, silent_ms: 10, alive: true, failure: None }
}

/// Three hosts, on each a server with everything: processes 11, 12 and 13 on the first, and so on. Two copies.
fn healthy() -> Status {
    let hosts = || 1..=3u128;
    let of_host = |host: u128| {
        [ProcessClass::Coordinator, ProcessClass::Log, ProcessClass::Storage]
            .into_iter()
            .zip(1..)
            .map(move |(class, number)| process(host * 10 + number, class, host))
    };
    let at = |host: u128, instance| Endpoint { address: address(host), instance };
    let server = |host: u128| StorageServer {
        tag: Tag(host as u32),
        process: ProcessId(host * 10 + 3),
        endpoint: at(host, 7),
        zone: format!("zone-{host}"),
        begin_version: Version::ZERO,
    };
    let log = |host: u128| LogMember { process: ProcessId(host * 10 + 2), endpoint: at(host, 5) };
    let shard = |begin: Key, end: Key, team: [u32; 2]| Shard {
        range: KeyRange { begin, end },
        teams: Teams::of(team.map(Tag)),
    };
    let middle = Key::from("m");
    Status {
        cluster: ClusterState {
            cluster_id: ClusterId(7),
            revision: 1,
            generation: Generation(3),
            phase: Phase::Active,
            coordinator: Some(CoordinatorMembers {
                sequencer: at(1, 8),
                proxies: vec![at(1, 9), at(2, 9)],
                resolvers: vec![(KeyRange { begin: Key::MIN, end: Key::SYSTEM_END }, at(2, 10))],
            }),
            log_sets: vec![LogSet {
                generation: Generation(3),
                logs: hosts().map(log).collect(),
                replication: 2,
                begin_version: Version(1),
                recovery_version: Version(1),
                end_version: None,
            }],
            storage_servers: hosts().map(server).collect(),
            next_tag: Tag(4),
            shards: ShardMap::new(vec![
                shard(Key::MIN, middle.clone(), [1, 2]),
                shard(middle, Key::SYSTEM_END, [2, 3]),
            ]),
            controllers: hosts()
                .map(|host| ControllerMember { node: host as u64, address: address(host) })
                .collect(),
            configuration: Some(Configuration {
                redundancy: Redundancy::Double,
                logs: 3,
                proxies: 2,
                resolvers: 1,
                storage_replace_after_ms: 60_000,
            }),
            excluded: Vec::new(),
        },
        processes: hosts().flat_map(of_host).collect(),
        recoveries: 1,
        last_recovery: None,
        controller: address(1),
        silent_controllers: Vec::new(),
        repairs: Vec::new(),
        stuck: Vec::new(),
        metadata_version: Version(1),
        leads_for_ms: 60_000,
        failure_timeout_ms: 1_000,
        unreached: Vec::new(),
    }
}

fn findings(status: Result<Status>) -> Findings {
    let hosts = || 1..=3u128;
    let leader = Leader {
        address: Some(address(1)),
        controllers: hosts()
            .map(|host| ControllerMember { node: host as u64, address: address(host) })
            .collect(),
    };
    let time = Some(Duration::from_millis(2));
    Findings {
        timestamp: 1_700_000_000,
        file: ClusterFile { path: None, is_up_to_date: true },
        connection: Connection::to(hosts().map(address).collect()),
        coordinators: hosts().map(|host| (address(host), Ok(leader.clone()))).collect(),
        status,
        probe: Probe { start: time, read: time, commit: time, failure: None },
        metrics: Vec::new(),
    }
}

fn error(code: ErrorCode) -> Error {
    Error::new(code, Stage::Control, "for a test")
}

fn names(messages: &Value) -> Vec<&str> {
    messages.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect()
}

/// Everything on a host is lost; the controllers have noticed.
fn lose(status: &mut Status, host: u128) {
    for process in &mut status.processes {
        if process.heartbeat.worker.address == address(host) {
            process.alive = false;
            process.failure = Some("silent".into());
        }
    }
}

#[test]
fn a_server_is_one_process_with_all_that_it_hosts() {
    let said = document(&findings(Ok(healthy())));
    assert_eq!(said["client"]["database_status"], json!({ "available": true, "healthy": true }));
    let processes = said["cluster"]["processes"].as_object().unwrap();
    assert_eq!(processes.len(), 3);
    let first = &processes[&ProcessId(11).to_string()];
    assert_eq!(
        (&first["address"], &first["class_type"]),
        (&json!("10.0.0.1:4500"), &json!("unset"))
    );
    let roles = |process: &Value| -> Vec<String> {
        let roles = process["roles"].as_array().unwrap().iter();
        roles.map(|role| role["role"].as_str().unwrap().to_owned()).collect()
    };
    let expected = [
        "coordinator",
        "cluster_controller",
        "data_distributor",
        "master",
        "commit_proxy",
        "grv_proxy",
        "log",
        "storage",
    ];
    assert_eq!(roles(first), expected);
    let third = &processes[&ProcessId(31).to_string()];
    assert_eq!(roles(third), ["coordinator", "log", "storage"]);
    let tolerance = &said["cluster"]["fault_tolerance"];
    assert_eq!(tolerance["max_zone_failures_without_losing_data"], 1);
    assert_eq!(tolerance["max_zone_failures_without_losing_availability"], 1);
    // Some readers take such numbers for integers.
    assert!(said["cluster"]["datacenter_lag"]["seconds"].is_i64());
    assert!(said["cluster"]["latency_probe"]["commit_seconds"].is_f64());
}

#[test]
fn a_process_of_one_class_has_it() {
    let mut status = healthy();
    status.processes.retain(|process| process.heartbeat.process.0 % 10 == 2);
    let said = document(&findings(Ok(status)));
    let classes = said["cluster"]["processes"].as_object().unwrap().values();
    assert!(classes.into_iter().all(|process| process["class_type"] == "log"));
}

#[test]
fn whoever_is_lost_is_named_and_not_counted() {
    let mut status = healthy();
    lose(&mut status, 3);
    let said = document(&findings(Ok(status)));
    let cluster = &said["cluster"];
    assert_eq!(said["client"]["database_status"], json!({ "available": true, "healthy": false }));
    assert_eq!(cluster["processes"].as_object().unwrap().len(), 2);
    assert_eq!(names(&cluster["messages"]), ["unreachable_processes"]);
    let lost = &cluster["messages"][0]["unreachable_processes"];
    assert_eq!(*lost, json!([{ "address": "10.0.0.3:4500", "description": "silent" }]));
    let state = &cluster["data"]["state"];
    assert_eq!((&state["name"], &state["min_replicas_remaining"]), (&json!("healing"), &json!(1)));
    assert_eq!(cluster["data"]["team_trackers"][0]["unhealthy_servers"], 1);
    assert_eq!(cluster["full_replication"], false);
    assert_eq!(cluster["fault_tolerance"]["max_zone_failures_without_losing_data"], 0);
    assert_eq!(cluster["logs"][0]["log_fault_tolerance"], 0);

    let mut status = healthy();
    lose(&mut status, 2);
    lose(&mut status, 3);
    let said = document(&findings(Ok(status)));
    assert_eq!(said["cluster"]["data"]["state"]["name"], "missing_data");
}

#[test]
fn available_is_what_a_transaction_found_out() {
    let mut found = findings(Ok(healthy()));
    // The controllers have not noticed yet that the logs are gone.
    found.probe = Probe {
        start: Some(Duration::from_millis(2)),
        read: None,
        commit: None,
        failure: Some(error(ErrorCode::TimedOut)),
    };
    let said = document(&found);
    assert_eq!(said["client"]["database_status"], json!({ "available": false, "healthy": false }));
    assert_eq!(said["cluster"]["database_available"], false);
    assert_eq!(names(&said["cluster"]["messages"]), ["read_probe_timeout"]);
    assert_eq!(said["cluster"]["latency_probe"]["commit_seconds"], Value::Null);
}

#[test]
fn the_quorum_is_counted() {
    let mut found = findings(Ok(healthy()));
    found.coordinators[2].1 = Err(error(ErrorCode::Unreachable));
    let said = document(&found);
    let coordinators = &said["client"]["coordinators"];
    assert_eq!(coordinators["quorum_reachable"], true);
    assert_eq!(coordinators["coordinators"][2]["reachable"], false);
    let tolerance = &said["cluster"]["fault_tolerance"];
    assert_eq!(tolerance["max_zone_failures_without_losing_availability"], 0);

    // Two of three are gone, so nobody leads; transactions go on.
    let mut found = findings(Err(error(ErrorCode::NotLeader)));
    found.coordinators[1].1 = Err(error(ErrorCode::Unreachable));
    found.coordinators[2].1 = Err(error(ErrorCode::Unreachable));
    if let Ok(leader) = &mut found.coordinators[0].1 {
        leader.address = None;
    }
    let said = document(&found);
    assert_eq!(said["client"]["coordinators"]["quorum_reachable"], false);
    assert_eq!(said["client"]["database_status"], json!({ "available": true, "healthy": false }));
    let expected = ["quorum_not_reachable", "no_cluster_controller", "status_incomplete_cluster"];
    assert_eq!(names(&said["client"]["messages"]), expected);
    assert_eq!(said["cluster"]["layers"]["_valid"], false);
}

#[test]
fn a_recovery_has_the_names_of_its_steps() {
    let name = |phase: Phase, configuration: Option<()>| {
        let mut status = healthy();
        status.cluster.phase = phase;
        if configuration.is_none() {
            status.cluster.configuration = None;
        }
        document(&findings(Ok(status)))["cluster"]["recovery_state"]["name"].clone()
    };
    let recovering = |step: &str| Phase::Recovering { step: step.to_owned() };
    let waiting = || Phase::Waiting { reason: "for a log".to_owned() };
    let some = Some(());
    assert_eq!(name(Phase::Active, some), "fully_recovered");
    assert_eq!(name(waiting(), some), "recruiting_transaction_servers");
    assert_eq!(name(waiting(), None), "configuration_never_created");
    assert_eq!(name(recovering("beginning the generation"), some), "locking_coordinated_state");
    assert_eq!(
        name(recovering("locking the logs of the generation before: 1 locked"), some),
        "locking_old_transaction_servers"
    );
    assert_eq!(
        name(recovering("recruiting proxies: 0 of 1"), some),
        "initializing_transaction_servers"
    );
    assert_eq!(name(recovering("whatever else"), some), "recruiting_transaction_servers");
}

#[test]
fn rates_are_those_since_the_reading_before() {
    let role = |age_us: u64, committed: u64| {
        use ferrisdb_core::metrics::{MetricSample, MetricValue, Unit};
        let (name, help) = ("committed".to_owned(), String::new());
        let value = MetricValue::Counter(committed);
        let samples = vec![MetricSample { name, help, unit: Unit::Count, value }];
        let role = "proxy".to_owned();
        RoleMetrics { role, labels: Vec::new(), registration: 4, age_us, samples }
    };
    let process = |role| vec![ProcessMetrics { address: address(1), roles: Ok(vec![role]) }];
    let rate = |readings: &[Reading]| readings[0].roles.as_ref().unwrap()[0].hz("committed");
    let readings = Readings::default();
    assert_eq!(rate(&readings.compare(process(role(10_000_000, 100)))), 10.0);
    assert_eq!(rate(&readings.compare(process(role(12_000_000, 160)))), 30.0);
    // It has started anew.
    assert_eq!(rate(&readings.compare(process(role(1_000_000, 5)))), 5.0);
}
