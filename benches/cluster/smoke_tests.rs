//! Every workload for a moment against a database in memory: what must hold, holds. Nothing about time is asserted.

use std::{sync::Arc, time::Duration};

use clap::ValueEnum;

use crate::{
    clients::ExactlyOnce,
    distribution::Distribution,
    intervals::{self, Every},
    report::Report,
    rows::Rows,
    run::{Plan, run},
    target::Target,
    workload::{Kind, Sizes},
};

fn sizes() -> Sizes {
    Sizes {
        keys: 500,
        accounts: 10,
        scan_rows: 100,
        watchers: 20,
        distribution: None,
        may_load: true,
        is_quiet: true,
    }
}

fn plan() -> Plan {
    Plan {
        clients: 8,
        warm_up: Duration::from_millis(50),
        duration: Duration::from_millis(300),
        rate: None,
        exactly_once: ExactlyOnce::ById,
        seed: 1,
        every: None,
    }
}

async fn memory() -> Target {
    let arguments = <crate::Cli as clap::Parser>::parse_from(["bench", "--memory", "scan"]).target;
    Target::open(&arguments, 1).await.unwrap()
}

async fn measured(target: &Target, kind: Kind, sizes: &Sizes, plan: &Plan) -> serde_json::Value {
    let rows = Arc::new(Rows::new("bench/", 16, 64, 10_000).unwrap());
    let report: Report = run(kind, sizes, &rows, target, plan).await.unwrap();
    let report = serde_json::to_value(report).unwrap();
    assert_eq!(report["failed"], 0, "{report}");
    assert!(report["errors"].as_object().unwrap().is_empty(), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_workload_keeps_what_must_hold() {
    let target = memory().await;
    for kind in Kind::value_variants() {
        // Checks of sums and counts are part of the run, and so are rows that must be there.
        let report = measured(&target, *kind, &sizes(), &plan()).await;
        let checked = matches!(
            kind,
            Kind::ReadModifyWrite | Kind::NineReadsOneUpdate | Kind::Transfer | Kind::QueueInsert
        );
        assert_eq!(report["check"].is_string(), checked, "{report}");
        // A conflict is followed by another attempt, and nothing else is.
        assert_eq!(report["conflicts"], report["retries"], "{report}");
    }
    target.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_of_a_transaction_are_all_there() {
    let target = memory().await;
    let report = measured(&target, Kind::Latency, &sizes(), &plan()).await;
    let stages: Vec<&String> = report["stages"].as_object().unwrap().keys().collect();
    let expected = [
        "blind commit",
        "commit after a read",
        "read at a known version",
        "read version",
        "read version and read",
        "read-modify-write",
    ];
    assert_eq!(stages, expected);
    target.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intervals_know_what_each_role_keeps() {
    let target = memory().await;
    let every = Some(Every { length: Duration::from_millis(100), is_json: true });
    let report = measured(&target, Kind::Mix502525, &sizes(), &Plan { every, ..plan() }).await;
    assert_eq!(report["stages"].as_object().unwrap().len(), 3, "{report}");
    let kept = intervals::kept(target.database(0)).await;
    for name in ["storage.window", "resolver.conflict_set", "log.disk", "log.memory"] {
        assert!(kept.contains_key(name), "{name} is not in {kept:?}");
    }
    assert!(kept["storage.window"] > 0, "{kept:?}");
    target.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_commit_and_to_draw_keeps_the_sum() {
    let target = memory().await;
    for exactly_once in ExactlyOnce::value_variants() {
        for distribution in [Distribution::Uniform, Distribution::Zipf] {
            let sizes = Sizes { distribution: Some(distribution), ..sizes() };
            let plan = Plan { exactly_once: *exactly_once, ..plan() };
            for kind in [Kind::Transfer, Kind::NineReadsOneUpdate, Kind::YcsbA] {
                measured(&target, kind, &sizes, &plan).await;
            }
        }
    }
    target.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_does_what_is_due() {
    let target = memory().await;
    let plan = Plan { rate: Some(200.0), ..plan() };
    let report = measured(&target, Kind::PointRead, &sizes(), &plan).await;
    let due = 70;
    let begun = due - report["never_begun"].as_u64().unwrap();
    assert!(report["operations"].as_u64().unwrap() <= begun, "{report}");
    target.close().await.unwrap();
}
