//! The metrics of a running database move, and the reference page names all of them.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use ferrisdb_client::{Database, KeyRange, RangeQuery};
use ferrisdb_core::{id::Address, metrics::RoleMetrics};
use ferrisdb_server::host::{Media, ServerHost, ServerSettings, Site};

fn role<'a>(roles: &'a [RoleMetrics], role: &str) -> &'a RoleMetrics {
    roles.iter().find(|metrics| metrics.role == role).unwrap()
}

fn count(metrics: &RoleMetrics, histogram: &str) -> u64 {
    metrics.histogram(histogram).unwrap().count()
}

#[tokio::test]
async fn a_few_transactions_move_the_metrics_of_every_role() {
    let directory = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::listen(&Address::new("127.0.0.1:0"), None).await.unwrap());
    let (media, settings) = (Media::files(), ServerSettings::default());
    let host = ServerHost::start(site, &media, directory.path(), settings).await.unwrap();
    let database = Database::connect(&host.address().to_string()).await.unwrap();
    // The first transaction waits until there is a generation, whose metrics these are.
    database.transaction().get("k").await.unwrap();
    let before = database.metrics_of(host.address()).await.unwrap();

    for number in 0..10 {
        let transaction = database.transaction();
        transaction.set(format!("k{number}"), "value").unwrap();
        transaction.commit().await.unwrap();
    }
    let (one, other) = (database.transaction(), database.transaction());
    for transaction in [&one, &other] {
        assert!(transaction.get("k1").await.unwrap().is_some());
        transaction.set("k1", "changed").unwrap();
    }
    one.commit().await.unwrap();
    other.commit().await.unwrap_err();
    let all = KeyRange::all_user_keys();
    let rows = database.transaction().get_range(RangeQuery::new(all)).await.unwrap();
    assert_eq!(rows.len(), 10);

    let processes = database.metrics().await.unwrap();
    assert_eq!(processes.len(), 1, "four roles of one process are one process");
    assert_eq!(processes[0].address, *host.address());
    let roles = processes[0].roles.as_ref().unwrap();
    let then = |metrics: &RoleMetrics| {
        let mut before = before.iter();
        before.find(|earlier| earlier.registration == metrics.registration).unwrap().clone()
    };
    let since = |name| role(roles, name).since(&then(role(roles, name)));

    let proxy = since("proxy");
    assert!(proxy.counter("committed") >= Some(11), "{proxy:?}");
    assert_eq!(proxy.counter("conflicts"), Some(1));
    assert!(proxy.counter("read_versions") >= Some(3));
    for stage in ["commit", "queue"] {
        assert!(count(&proxy, stage) >= 12, "{stage}");
    }
    for stage in ["batch", "sequence", "resolve", "tag", "push", "report", "batch_size"] {
        assert!((1..=count(&proxy, "commit")).contains(&count(&proxy, stage)), "{stage}");
    }
    let sum = |stage: &str| proxy.histogram(stage).unwrap().sum;
    assert!(sum("batch") >= sum("push") && sum("push") > 0);
    assert!(sum("commit") >= sum("push"));
    assert_eq!(proxy.labels[0].0, "generation");

    let resolver = since("resolver");
    assert!(resolver.counter("accepted") >= Some(11));
    assert_eq!(resolver.counter("conflicts"), Some(1));
    assert!(resolver.gauge("conflict_set") > Some(0));
    assert!(since("sequencer").counter("batches") >= Some(1));
    let log = since("log");
    assert!(log.counter("pushes") >= Some(1) && log.counter("written") > Some(0));
    assert!(log.gauge("disk") > Some(0));
    assert_eq!(log.histogram("group_size").unwrap().sum, log.counter("pushes").unwrap());
    let storage = since("storage");
    assert!(storage.counter("mutations") >= Some(11));
    assert!(storage.counter("point_reads") >= Some(2));
    assert!(storage.counter("rows") >= Some(10) && count(&storage, "range_read") >= 1);
    assert!(storage.gauge("window") > Some(0));
    let controller = role(roles, "controller");
    assert_eq!((controller.counter("elections"), controller.gauge("leads")), (Some(1), Some(1)));
    assert_eq!(count(controller, "recovery"), 1);
    assert!(controller.counter("heartbeats") > Some(0));
    assert!(role(roles, "process").gauge("connections") > Some(0));

    documented(roles);
    host.shut_down().await;
}

/// Every metric has a row in the reference, under its role, with its kind and unit.
fn documented(roles: &[RoleMetrics]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    for metrics in roles {
        let heading = format!("\n## `{}`", metrics.role);
        let section = page.split_once(&heading).unwrap_or_else(|| panic!("{heading} is missing")).1;
        let section = section.split("\n## ").next().unwrap();
        for sample in &metrics.samples {
            let row = format!("\n`{}` | ", sample.name);
            assert!(section.contains(&row), "`{}` is missing in {heading}", sample.name);
        }
        let rows = section.matches("\n`").count();
        assert_eq!(rows, metrics.samples.len(), "{heading} has a row too many");
    }
}
