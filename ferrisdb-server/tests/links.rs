//! One link is cut, between a client and a server or between two servers, and each client goes on.
//!
//! ```text
//! scripts/links              every kind of link, both ways and each way alone, ten rounds, two seconds at most
//! cargo test -p ferrisdb-server --test links -- --nocapture         the links of clients, once
//! ```
//!
//! What counts is the longest time that any one client is without a commit from the cut on, with the settings that clients have
//! by default, one transaction after the other: that others are served is no help to it. `FERRISDB_LINKS_OF="a proxy"` leaves it
//! at the links that are called so.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ferrisdb_client::Database;
use ferrisdb_core::runtime;
use parking_lot::Mutex;
use support::{
    availability::Times,
    cluster::{Cluster, Shape},
    scene::{Cast, LIMIT, cast, redundant},
};

/// How long a link stays cut.
const OUTAGE: Duration = Duration::from_secs(4);
/// How long it may take until everybody is back in use.
const SETTLING_MAX: Duration = Duration::from_secs(60);
/// The client whose links are cut, and one that keeps all of its own.
const CLIENTS: [&str; 2] = ["client-cut", "client-whole"];

/// Which way nothing flows.
#[derive(Clone, Copy, Debug)]
enum Way {
    Both,
    There,
    Back,
}

/// A link, and what else happens while it is cut.
struct Link {
    what: &'static str,
    ends: [String; 2],
    /// A process that is killed a moment later, and back in the end.
    killed: Option<String>,
}

/// The links, with what they are between.
fn links(cast: &Cast, all: bool) -> Vec<Link> {
    let link = |what, one: &str, other: &str| Link {
        what,
        ends: [one.to_owned(), other.to_owned()],
        killed: None,
    };
    let [client, _] = CLIENTS;
    let mut links = vec![
        Link {
            killed: Some(cast.proxy.clone()),
            ..link("a client and the leader, and a proxy dies", client, &cast.leader)
        },
        link("a client and a proxy", client, &cast.proxy),
        link("a client and the sequencer's process", client, &cast.sequencer),
        link("a client and a storage server", client, "storage-0"),
    ];
    if all {
        links.extend([
            link("the leader and a controller", &cast.leader, &cast.follower),
            link("the leader and a log", &cast.leader, &cast.logs[0]),
            link("the leader and the sequencer's process", &cast.leader, &cast.sequencer),
            link("the leader and a proxy", &cast.leader, &cast.proxy),
            link("the leader and a storage server", &cast.leader, "storage-1"),
            link("the sequencer's process and a proxy", &cast.sequencer, &cast.proxy),
            link("the sequencer's process and a log", &cast.sequencer, &cast.logs[1]),
            link("a proxy and a log", &cast.proxy, &cast.logs[0]),
            link("two logs", &cast.logs[0], &cast.logs[1]),
            link("a log and a storage server", &cast.logs[2], "storage-2"),
            link("two storage servers", "storage-0", "storage-1"),
        ]);
    }
    links
}

fn cut(cluster: &Cluster, [one, other]: &[String; 2], way: Way) {
    match way {
        Way::Both => cluster.relays().cut(one, other),
        Way::There => cluster.relays().cut_one_way(one, other),
        Way::Back => cluster.relays().cut_one_way(other, one),
    }
}

/// A client that commits one transaction after the other.
struct Client {
    name: &'static str,
    /// When its commits ended.
    commits: Arc<Mutex<Vec<Instant>>>,
    errors: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Client {
    async fn begin(cluster: &Cluster, name: &'static str, stopped: &Arc<AtomicBool>) -> Client {
        let database = cluster.connect_as(name).await;
        let client = Client { name, commits: Arc::default(), errors: Arc::default() };
        let (commits, errors) = (Arc::clone(&client.commits), Arc::clone(&client.errors));
        let stopped = Arc::clone(stopped);
        tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                match commit(&database, name).await {
                    Ok(()) => commits.lock().push(runtime::now()),
                    Err(error) => *errors.lock().entry(error.to_string()).or_default() += 1,
                }
                runtime::sleep(Duration::from_millis(5)).await;
            }
        });
        client
    }

    /// The longest time without a commit since then, that which lasts still included.
    fn longest_gap(&self, since: Instant) -> Duration {
        let commits = self.commits.lock();
        let mut last = since;
        let mut longest = Duration::ZERO;
        for commit in commits.iter().filter(|commit| **commit > since) {
            longest = longest.max(commit.duration_since(last));
            last = *commit;
        }
        longest.max(runtime::now().duration_since(last))
    }
}

async fn commit(database: &Database, name: &str) -> ferrisdb_client::Result<()> {
    let transaction = database.transaction();
    transaction.get(name).await?;
    transaction.set(name, "1")?;
    transaction.commit().await?;
    Ok(())
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_goes_on_whichever_link_is_cut() {
    let all = std::env::var_os("FERRISDB_LINKS_ALL").is_some();
    let rounds = setting("FERRISDB_LINKS_ROUNDS", 1);
    // A machine that is busy with other tests is slow; what is looked for are clients that hang.
    let bound = Duration::from_millis(setting("FERRISDB_LINKS_BOUND_MS", 8_000));
    let only = std::env::var("FERRISDB_LINKS_OF").unwrap_or_default();
    let ways: &[Way] = if all { &[Way::Both, Way::There, Way::Back] } else { &[Way::Both] };

    let shape = Shape { coordinators: 3, proxies: 2, ..redundant() };
    let mut cluster = Cluster::start(&shape);
    cluster.wait_available(LIMIT).await;
    let stopped = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for name in CLIENTS {
        clients.push(Client::begin(&cluster, name, &stopped).await);
    }
    let mut table: BTreeMap<(usize, String), Times> = BTreeMap::new();
    let mut late = Vec::new();
    for round in 0..rounds {
        let count = links(&settled(&cluster).await, all).len();
        for index in 0..count {
            for way in ways {
                let link = links(&settled(&cluster).await, all).swap_remove(index);
                if !link.what.contains(&only) {
                    continue;
                }
                let fault = runtime::now();
                cut(&cluster, &link.ends, *way);
                link.killed.iter().for_each(|name| cluster.kill(name));
                runtime::sleep(OUTAGE).await;
                let what = format!("{} ({way:?})", link.what);
                for client in &clients {
                    let gap = client.longest_gap(fault);
                    println!("{round} {what}: {} {} ms", client.name, gap.as_millis());
                    if gap > bound {
                        let errors = client.errors.lock().clone();
                        late.push(format!("{what}: {} after {gap:?}: {errors:#?}", client.name));
                    }
                    table.entry((index, what.clone())).or_default().push(gap);
                    client.errors.lock().clear();
                }
                cluster.relays().heal();
                link.killed.iter().for_each(|name| cluster.restart(name));
            }
        }
    }
    stopped.store(true, Ordering::SeqCst);
    println!("link | median ms | worst ms | measured");
    println!("---|---|---|---");
    for ((_, what), gaps) in &table {
        let ms = |time: Duration| time.as_millis();
        println!("{what} | {} | {} | {}", ms(gaps.median()), ms(gaps.worst()), gaps.count());
    }
    assert!(late.is_empty(), "longer than {bound:?}: {late:#?}\n{}", cluster.report());
    cluster.shut_down();
}

/// Who hosts what, once everybody is back.
async fn settled(cluster: &Cluster) -> Cast {
    let everybody = ["coordinator", "log", "storage"];
    let everybody: usize = everybody.into_iter().map(|role| cluster.names(role).len()).sum();
    let began = runtime::now();
    let database = cluster.connect().await;
    loop {
        if let Ok(status) = database.status().await
            && status.processes.iter().filter(|process| process.alive).count() == everybody
            && status.silent_controllers.is_empty()
            && status.cluster.log_sets.last().is_some_and(|set| set.logs.len() == 3)
            && status.cluster.coordinator.as_ref().is_some_and(|coordinator| {
                let first = &coordinator.proxies[0];
                coordinator.proxies.iter().any(|proxy| proxy.address != first.address)
            })
        {
            cluster.wait_available(LIMIT).await;
            return cast(cluster).await;
        }
        assert!(
            runtime::now().duration_since(began) < SETTLING_MAX,
            "not settled after {SETTLING_MAX:?}\n{}",
            cluster.report()
        );
        runtime::sleep(Duration::from_millis(20)).await;
    }
}
