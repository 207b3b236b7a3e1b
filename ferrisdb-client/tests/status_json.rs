//! `\xff\xff/status/json`, as a typed reader of FoundationDB's status takes it: what it requires is there, everything has the
//! type that FoundationDB documents, and nothing has a name that it does not.

#![recursion_limit = "512"]
#![cfg(all(feature = "embedded", not(madsim)))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use ferrisdb_client::{Connection, Database, Settings};
use ferrisdb_core::{Stage, runtime};
use serde_json::{Value, json};

const STATUS: &[u8] = b"\xff\xff/status/json";

/// A value of each type stands for all of them: 0 is an integer, 0.5 any number, "" a text. A name that ends with a question
/// mark may be missing. `$map` is an object with any names, `$one_of` a text of a list.
fn schema() -> Value {
    let message_of = |names: &[&str]| json!({ "name": { "$one_of": names }, "description": "" });
    let frequency = json!({ "counter": 0, "hz": 0.5, "roughness": 0.5 });
    let rate = json!({ "hz": 0.5 });
    let lag = json!({ "seconds": 0.5, "versions": 0 });
    let times = json!({
        "count": 0, "min": 0.5, "max": 0.5, "median": 0.5, "mean": 0.5,
        "p25": 0.5, "p90": 0.5, "p95": 0.5, "p99": 0.5, "p99.9": 0.5,
    });
    let role = json!({
        "id": "",
        "role": { "$one_of": [
            "coordinator", "cluster_controller", "data_distributor", "master", "commit_proxy", "grv_proxy", "resolver", "log",
            "storage",
        ] },
        "commit_latency_statistics?": times,
        "grv_latency_statistics?": { "default": times },
        "read_latency_statistics?": times,
        "data_version?": 0, "durable_version?": 0, "data_lag?": lag, "durability_lag?": lag,
        "input_bytes?": frequency, "durable_bytes?": frequency, "queue_disk_used_bytes?": 0,
        "kvstore_used_bytes?": 0, "query_queue_max?": 0, "mutations?": frequency, "keys_queried?": frequency,
        "total_queries?": frequency, "finished_queries?": frequency,
    });
    let process = json!({
        "address": "", "machine_id": "", "fault_domain": "", "version": "", "excluded": true, "degraded": true,
        "under_maintenance": true,
        "class_source": { "$one_of": ["command_line", "configure_auto", "set_class"] },
        "class_type": { "$one_of": ["unset", "storage", "stateless", "log"] },
        "cpu": { "usage_cores": 0.5 },
        "locality": { "$map": "" },
        "memory": {
            "available_bytes": 0, "limit_bytes": 0, "rss_bytes": 0, "unused_allocated_memory": 0, "used_bytes": 0,
        },
        "messages": [{ "name": "", "description": "", "time": 0.5, "type": "", "raw_log_message": "" }],
        "roles": [role],
        "run_loop_busy": 0.5, "uptime_seconds": 0.5,
    });
    let machine = json!({
        "address": "", "machine_id": "", "excluded": true, "contributing_workers": 0, "locality": { "$map": "" },
        "cpu": { "logical_core_utilization": 0.5 },
        "memory": { "committed_bytes": 0, "free_bytes": 0, "total_bytes": 0 },
        "network": { "megabits_received": rate, "megabits_sent": rate, "tcp_segments_retransmitted": rate },
    });
    let data_state = json!({
        "description": "", "healthy": true, "min_replicas_remaining": 0,
        "name": { "$one_of": [
            "initializing", "missing_data", "healing", "healthy_removing_server", "healthy_rebalancing", "healthy",
        ] },
    });
    let limit = json!({ "name": "", "description": "", "reason_id": 0 });
    let log = json!({
        "begin_version": 0, "end_version?": 0, "current": true, "epoch": 0, "log_fault_tolerance": 0,
        "log_replication_factor": 0, "log_write_anti_quorum": 0, "possibly_losing_data": true,
        "log_interfaces": [{ "address": "", "healthy": true, "id": "" }],
    });
    let cluster_message = json!({
        "name": { "$one_of": [
            "unreachable_processes", "status_incomplete", "full_replication_timeout", "transaction_start_probe_timeout",
            "read_probe_timeout", "commit_probe_timeout",
        ] },
        "description": "", "unreachable_processes?": [{ "address": "", "description": "" }],
        "reasons?": [{ "description": "" }],
    });
    json!({
        "client": {
            "cluster_file": { "path": "", "up_to_date": true },
            "coordinators": {
                "coordinators": [{ "address": "", "protocol": "", "reachable": true }],
                "quorum_reachable": true,
            },
            "database_status": { "available": true, "healthy": true },
            "messages": [message_of(&[
                "inconsistent_cluster_file", "no_cluster_controller", "quorum_not_reachable", "status_incomplete_cluster",
                "status_incomplete_coordinators", "status_incomplete_error", "unreachable_cluster_controller",
            ])],
            "timestamp": 0,
        },
        "cluster": {
            "active_primary_dc": "", "cluster_controller_timestamp": 0, "connection_string": "", "protocol_version": "",
            "configuration": {
                "commit_proxies": 0, "coordinators_count": 0, "excluded_servers": [{ "address": "" }], "grv_proxies": 0,
                "log_anti_quorum": 0, "log_replicas": 0, "log_replication_policy": "", "logs": 0, "proxies": 0,
                "redundancy_mode": { "$one_of": ["single", "double", "triple"] }, "resolvers": 0, "storage_engine": "",
                "storage_replicas": 0, "storage_replication_policy": "", "tenant_mode": "", "usable_regions": 0,
            },
            "data": {
                "moving_data": {
                    "highest_priority": 0, "in_flight_bytes": 0, "in_queue_bytes": 0, "total_written_bytes": 0,
                },
                "partitions_count": 0, "total_disk_used_bytes": 0, "state": data_state,
                "team_trackers": [{
                    "in_flight_bytes": 0, "primary": true, "state": data_state, "unhealthy_servers": 0,
                }],
            },
            "database_available": true, "database_locked": true, "database_lock_state": { "locked": true },
            "datacenter_lag": lag, "degraded_processes": 0, "full_replication": true, "generation": 0,
            "fault_tolerance": {
                "max_zone_failures_without_losing_availability": 0, "max_zone_failures_without_losing_data": 0,
            },
            "incompatible_connections": [""],
            "latency_probe": {
                "transaction_start_seconds?": 0.5, "immediate_priority_transaction_start_seconds?": 0.5,
                "read_seconds?": 0.5, "commit_seconds?": 0.5,
            },
            "layers": { "_valid": true },
            "logs": [log], "machines": { "$map": machine }, "processes": { "$map": process },
            "messages": [cluster_message],
            "qos": {
                "batch_performance_limited_by": limit, "performance_limited_by": limit,
                "batch_released_transactions_per_second": 0.5, "released_transactions_per_second": 0.5,
                "batch_transactions_per_second_limit": 0.5, "transactions_per_second_limit": 0.5,
                "limiting_data_lag_storage_server": lag, "limiting_durability_lag_storage_server": lag,
                "worst_data_lag_storage_server": lag, "worst_durability_lag_storage_server": lag,
                "limiting_queue_bytes_storage_server": 0, "worst_queue_bytes_log_server": 0,
                "worst_queue_bytes_storage_server": 0,
            },
            "recovery_state": {
                "active_generations": 0, "description": "",
                "name": { "$one_of": [
                    "configuration_never_created", "locking_coordinated_state", "locking_old_transaction_servers",
                    "recruiting_transaction_servers", "initializing_transaction_servers", "writing_coordinated_state",
                    "all_logs_recruited", "fully_recovered",
                ] },
                "required_logs?": 0, "required_commit_proxies?": 0, "required_grv_proxies?": 0, "required_resolvers?": 0,
            },
            "workload": {
                "bytes": { "written": frequency }, "keys": { "read": frequency },
                "operations": { "read_requests": frequency, "reads": frequency, "writes": frequency },
                "transactions": { "committed": frequency, "conflicted": frequency, "started": frequency },
            },
        },
    })
}

/// The part of the schema that is left when nobody says anything of the cluster.
fn schema_without_cluster() -> Value {
    let mut schema = schema();
    let all = schema["cluster"].take();
    schema["cluster"] = json!({
        "connection_string": "", "database_available": true, "layers": { "_valid": true, "_error": "" },
        "messages": all["messages"], "latency_probe?": all["latency_probe"],
    });
    schema
}

/// Collects what is not as the schema says.
fn compare(at: &str, schema: &Value, value: &Value, wrong: &mut Vec<String>) {
    let mut fail = |what: &str| wrong.push(format!("{at} {what}: {value}"));
    match (schema, value) {
        (Value::Object(fields), value) => {
            if let Some(texts) = fields.get("$one_of") {
                if !texts.as_array().unwrap().contains(value) {
                    fail("has an unknown name");
                }
                return;
            }
            let Some(values) = value.as_object() else { return fail("is no object") };
            if let Some(inner) = fields.get("$map") {
                for (name, value) in values {
                    compare(&format!("{at}.{name}"), inner, value, wrong);
                }
                return;
            }
            for (field, inner) in fields {
                let (name, is_required) =
                    field.strip_suffix('?').map_or((field.as_str(), true), |name| (name, false));
                match values.get(name) {
                    Some(value) => compare(&format!("{at}.{name}"), inner, value, wrong),
                    None if is_required => wrong.push(format!("{at}.{name} is missing")),
                    None => {}
                }
            }
            let is_known =
                |name: &str| fields.contains_key(name) || fields.contains_key(&format!("{name}?"));
            let unknown = values.keys().filter(|name| !is_known(name));
            wrong.extend(unknown.map(|name| format!("{at}.{name} is not in the schema")));
        }
        (Value::Array(inner), Value::Array(values)) => {
            for (index, value) in values.iter().enumerate() {
                compare(&format!("{at}[{index}]"), &inner[0], value, wrong);
            }
        }
        (Value::Number(number), Value::Number(value)) if number.is_f64() || value.is_i64() => {}
        (Value::Number(_), Value::Number(value)) if value.is_u64() => {}
        (Value::Bool(_), Value::Bool(_)) | (Value::String(_), Value::String(_)) => {}
        _ => fail("has another type"),
    }
}

fn check(schema: &Value, status: &Value) {
    let mut wrong = Vec::new();
    let mut status = status.clone();
    status.as_object_mut().unwrap().remove("ferrisdb");
    compare("status", schema, &status, &mut wrong);
    assert!(wrong.is_empty(), "{}\n{status:#}", wrong.join("\n"));
}

async fn read(database: &Database) -> Value {
    let text = database.transaction().get(STATUS).await.unwrap().unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn roles(process: &Value) -> Vec<&str> {
    process["roles"].as_array().unwrap().iter().map(|role| role["role"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typed_reader_understands_it() {
    let database = Database::memory().await.unwrap();
    for round in 0..20u8 {
        let write = database.run_transaction(|transaction| async move {
            transaction.get("k").await?;
            transaction.set("k", vec![round])
        });
        write.await.unwrap();
    }
    let status = read(&database).await;
    check(&schema(), &status);
    assert_eq!(status["client"]["database_status"]["available"], true);
    assert_eq!(status["client"]["database_status"]["healthy"], true, "{status:#}");
    assert_eq!(status["client"]["messages"], json!([]));
    let cluster = &status["cluster"];
    assert_eq!(cluster["recovery_state"]["name"], "fully_recovered");
    assert_eq!(cluster["data"]["state"]["name"], "healthy");
    assert!(cluster["workload"]["transactions"]["committed"]["counter"].as_u64() >= Some(20));
    assert!(cluster["latency_probe"]["commit_seconds"].as_f64() > Some(0.0));

    // One process, whatever it hosts, with everything that it hosts.
    let processes: Vec<&Value> = cluster["processes"].as_object().unwrap().values().collect();
    let [process] = processes[..] else { panic!("{} processes", processes.len()) };
    let all = [
        "coordinator",
        "cluster_controller",
        "data_distributor",
        "master",
        "commit_proxy",
        "grv_proxy",
        "resolver",
        "log",
        "storage",
    ];
    assert_eq!(roles(process), all);
    assert_eq!(process["version"], env!("CARGO_PKG_VERSION"));
    assert!(process["uptime_seconds"].as_f64() > Some(0.0));
    let busy = process["run_loop_busy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&busy), "{busy}");
    assert_eq!(cluster["machines"].as_object().unwrap().len(), 1);
    #[cfg(target_os = "linux")]
    assert!(process["memory"]["rss_bytes"].as_u64() > Some(1 << 20));

    // The next reading has the rates of the time between.
    let again = read(&database).await;
    check(&schema(), &again);
    let counter =
        |status: &Value| status["cluster"]["workload"]["transactions"]["committed"].clone();
    assert!(counter(&again)["counter"].as_u64() > counter(&status)["counter"].as_u64());
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_so_soon_if_nobody_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fdb.cluster");
    std::fs::write(&path, "mine:1@127.0.63.1:1,127.0.63.1:2,127.0.63.1:3").unwrap();
    // As the C library has it: whatever is asked for waits for ever.
    let patience = Duration::from_secs(1 << 30);
    let settings = Settings {
        connect_limit: patience,
        read_version_limit: patience,
        read_limit: patience,
        ..Settings::default()
    };
    let connection = Connection::read(&path).unwrap();
    let database = Database::connect_lazily(connection, settings).unwrap();
    let soon = Duration::from_secs(8);
    let status = runtime::timeout(soon, Stage::Client, read(&database)).await.unwrap();
    check(&schema_without_cluster(), &status);
    let client = &status["client"];
    assert_eq!(client["database_status"], json!({ "available": false, "healthy": false }));
    let coordinators = client["coordinators"]["coordinators"].as_array().unwrap();
    assert_eq!(coordinators.len(), 3);
    assert!(coordinators.iter().all(|coordinator| coordinator["reachable"] == false));
    assert_eq!(client["coordinators"]["quorum_reachable"], false);
    assert_eq!(client["messages"][0]["name"], "quorum_not_reachable");
    assert_eq!(status["cluster"]["layers"]["_valid"], false);
    assert_eq!(client["cluster_file"]["path"], path.to_str().unwrap());
    // The file is as it was when the handle was made, and then it is not.
    assert_eq!(client["cluster_file"]["up_to_date"], true);
    std::fs::write(&path, "mine:1@127.0.63.1:9").unwrap();
    let status = read(&database).await;
    assert_eq!(status["client"]["cluster_file"]["up_to_date"], false);
    assert_eq!(status["client"]["messages"][0]["name"], "inconsistent_cluster_file");
}
