//! Each condition of the network and of clocks does what it says.
//!
//! A server that repeats what it is told, a caller on another machine, and the real transport between them.

#![cfg(madsim)]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    future::{Future, pending},
    net::IpAddr,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use ferrisdb_core::{
    Endpoint, ErrorCode, Result, Stage, handler,
    id::Address,
    limits,
    runtime::{self, Instant},
    service::{
        Client,
        raft::{Raft, RaftIdentity, RaftMessage, RaftMessageKind, RaftService},
    },
    transport::{
        self, Listener, Network, Router,
        simulated::{Latency, LinkConditions},
    },
};
use ferrisdb_sim::{clock::Clocks, network::SimulatedNetwork, trace::Trace, world};
use madsim::runtime::{Handle, NodeHandle};
use tarpc::context::Context;

const SERVER: u8 = 1;
const CALLER: u8 = 2;
const SOON: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(1);

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 9, 0, number])
}

fn address(number: u8) -> Address {
    Address::new(format!("{}:4500", ip(number)))
}

/// Repeats what it is told, and notes when it was.
#[derive(Clone, Default)]
struct Echo {
    told: Arc<Mutex<Vec<Instant>>>,
}

impl Raft for Echo {
    async fn deliver(self, _: Context, message: RaftMessage) -> Result<Bytes> {
        self.told.lock().unwrap().push(runtime::true_now());
        Ok(message.body)
    }

    async fn identity(self, _: Context) -> Result<RaftIdentity> {
        let address = Address::new("nowhere");
        Ok(RaftIdentity { node: 1, is_initialized: true, address, newest: (0, 0) })
    }

    async fn introduce(self, context: Context, _: u64, _: Address) -> Result<RaftIdentity> {
        self.identity(context).await
    }
}

impl Echo {
    fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }
}

/// A machine that runs an echo whenever it is started.
fn serve(number: u8) -> (Echo, NodeHandle) {
    let echo = Echo::default();
    let served = echo.clone();
    let init = move || {
        let (echo, router) = (served.clone(), Router::new());
        router.add::<RaftService>(0, handler!(Raft, echo));
        async move {
            let _listener = Listener::bind(&address(number), router, Network::new()).await.unwrap();
            pending::<()>().await;
        }
    };
    let name = format!("server-{number}");
    (echo, Handle::current().create_node().name(name).ip(ip(number)).init(init).build())
}

fn machine(number: u8) -> NodeHandle {
    Handle::current().create_node().name(format!("caller-{number}")).ip(ip(number)).build()
}

async fn connect() -> Result<Client<RaftService>> {
    Network::new().connect::<RaftService>(&Endpoint::of_process(address(SERVER))).await
}

/// Says something and gets it back.
async fn say(client: &Client<RaftService>, length: usize) -> Result<()> {
    let seed = runtime::random_u64();
    let body: Bytes = (0..length as u64).map(|index| (seed ^ (index * 31)) as u8).collect();
    let said = body.clone();
    let message = RaftMessage { to: 1, from: 2, kind: RaftMessageKind::Append, body };
    let heard = transport::call(LIMIT, Stage::Control, |context| client.deliver(context, message));
    let heard = heard.await??;
    assert!(heard == said, "another answer came back than was sent");
    Ok(())
}

/// Runs a test with a server and a caller, over links with some conditions.
fn with_conditions<F, Fut>(conditions: LinkConditions, test: F)
where
    F: FnOnce(SimulatedNetwork, Echo, NodeHandle, NodeHandle) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    world::run(7, || async move {
        let network = SimulatedNetwork::install(conditions, Trace::new());
        let (echo, server) = serve(SERVER);
        runtime::sleep(SOON).await;
        let caller = machine(CALLER);
        let node = caller.clone();
        caller.spawn(test(network, echo, server, node)).await.unwrap();
    });
}

fn took(began: Instant) -> Duration {
    runtime::true_now() - began
}

#[test]
fn a_clog_one_way_holds_answers_back_and_nothing_else() {
    with_conditions(LinkConditions::default(), |network, echo, _, _| async move {
        let client = connect().await.unwrap();
        say(&client, 10).await.unwrap();
        network.clog(ip(SERVER), ip(CALLER));
        let error = say(&client, 10).await.unwrap_err();
        assert_eq!((error.code(), echo.count()), (ErrorCode::TimedOut, 2), "{error}");
        // Who connects gets no answer either, for as long as it is willing to wait.
        let began = runtime::true_now();
        let error = connect().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unreachable);
        assert!(took(began) >= limits::CONNECT_TIMEOUT, "{error} after {:?}", took(began));
        network.unclog(ip(SERVER), ip(CALLER));
        // The connection has lived on. It is silent for a while, until what was lost is sent again.
        runtime::sleep(Duration::from_secs(5)).await;
        say(&client, 10).await.unwrap();
        assert!(network.counts().held > 0);
    });
}

#[test]
fn a_clogged_request_arrives_when_the_clog_ends() {
    with_conditions(LinkConditions::default(), |network, echo, _, _| async move {
        let client = connect().await.unwrap();
        say(&client, 10).await.unwrap();
        network.partition_one_way(&[ip(CALLER)], &[ip(SERVER)]);
        say(&client, 10).await.unwrap_err();
        assert_eq!(echo.count(), 1);
        network.heal_all();
        runtime::sleep(Duration::from_secs(3)).await;
        // tarpc drops it there, as its deadline is over; what comes later is served.
        say(&client, 10).await.unwrap();
        assert!(echo.count() >= 2);
    });
}

#[test]
fn a_machine_that_is_cut_off_is_so_for_who_comes_later_too() {
    with_conditions(LinkConditions::default(), |network, _, _, _| async move {
        network.isolate(ip(SERVER));
        let late = machine(9);
        let connected = late.spawn(connect()).await.unwrap();
        assert_eq!(connected.unwrap_err().code(), ErrorCode::Unreachable);
        network.rejoin(ip(SERVER));
        assert!(late.spawn(connect()).await.unwrap().is_ok());
    });
}

#[test]
fn a_death_within_an_answer_is_an_error_and_no_wrong_answer() {
    let conditions =
        LinkConditions { deaths: 0.5, death_bytes_max: 300_000, ..LinkConditions::default() };
    with_conditions(conditions, |network, _, _, _| async move {
        let (mut answered, mut broken) = (0, 0);
        for _ in 0..60 {
            let Ok(client) = connect().await else { continue };
            for _ in 0..5 {
                match say(&client, 50_000).await {
                    Ok(()) => answered += 1,
                    Err(error) => {
                        assert_eq!(error.code(), ErrorCode::Unreachable, "{error}");
                        broken += 1;
                        break;
                    }
                }
            }
        }
        let deaths = network.counts().deaths;
        assert!(answered > 60 && broken > 15 && deaths > 15, "{answered} {broken} {deaths}");
    });
}

#[test]
fn latency_has_a_tail() {
    let latency = Latency::LAN.with_tail(0.05, 0.01);
    let conditions = LinkConditions { latency, ..LinkConditions::default() };
    with_conditions(conditions, |network, _, _, _| async move {
        let client = connect().await.unwrap();
        let mut times = Vec::new();
        for _ in 0..1_000 {
            let began = runtime::true_now();
            say(&client, 10).await.unwrap();
            times.push(took(began));
        }
        times.sort();
        let ms = |share: f64| times[(999.0 * share) as usize].as_secs_f64() * 1e3;
        let (low, median, p99, most) = (ms(0.0), ms(0.5), ms(0.99), ms(1.0));
        println!("{low:.2} {median:.2} {p99:.2} {most:.2} ms");
        assert!((0.2..0.6).contains(&low) && (0.8..2.0).contains(&median), "{low} {median}");
        assert!(p99 > 10.0 && (40.0..210.0).contains(&most), "{p99} {most}");
        assert!(network.counts().slow_messages > 50, "{:?}", network.counts());
    });
}

#[test]
fn a_link_can_be_slow_one_way() {
    with_conditions(LinkConditions::default(), |network, echo, _, _| async move {
        let client = connect().await.unwrap();
        network.slow(&[ip(CALLER)], &[ip(SERVER)], 300.0);
        let began = runtime::true_now();
        say(&client, 10).await.unwrap();
        let told = *echo.told.lock().unwrap().last().unwrap();
        assert!(told - began >= Duration::from_millis(30), "{:?}", told - began);
        assert!(took(told) < Duration::from_millis(2), "{:?}", took(told));
    });
}

#[test]
fn a_narrow_link_takes_its_time() {
    let conditions =
        LinkConditions { bytes_per_second: Some(1 << 20), ..LinkConditions::default() };
    with_conditions(conditions, |_, _, _, _| async move {
        let client = connect().await.unwrap();
        let began = runtime::true_now();
        say(&client, 1 << 18).await.unwrap();
        let took = took(began).as_secs_f64();
        assert!((0.5..0.6).contains(&took), "{took}");
    });
}

#[test]
fn a_writer_waits_for_a_full_window() {
    let conditions = LinkConditions { window_bytes: 10_000, ..LinkConditions::default() };
    with_conditions(conditions, |network, _, _, _| async move {
        let client = connect().await.unwrap();
        let all = (0..50).map(|_| say(&client, 20_000));
        let answers = futures::future::join_all(all).await;
        answers.into_iter().for_each(|answer| answer.unwrap());
        assert!(network.counts().full_windows > 0, "{:?}", network.counts());
    });
}

#[test]
fn connections_are_reset_at_a_rate() {
    with_conditions(LinkConditions::default(), |network, _, _, _| async move {
        network.flaky(&[ip(SERVER)], &[ip(CALLER)], 2.0);
        let (began, mut broken) = (runtime::true_now(), 0);
        while took(began) < Duration::from_secs(20) {
            let Ok(client) = connect().await else { continue };
            while say(&client, 100).await.is_ok() {}
            broken += 1;
        }
        let resets = network.counts().resets;
        assert!((20..80).contains(&broken) && (20..80).contains(&resets), "{broken} {resets}");
        network.calm_down();
        let client = connect().await.unwrap();
        for _ in 0..1_000 {
            say(&client, 100).await.unwrap();
        }
    });
}

#[test]
fn an_attempt_to_connect_can_get_no_answer() {
    let conditions = LinkConditions { silent_connects: 0.5, ..LinkConditions::default() };
    with_conditions(conditions, |network, _, _, _| async move {
        // The first tells where the caller is.
        connect().await.unwrap();
        let (mut silent, mut answered) = (0, 0);
        for _ in 0..20 {
            let began = runtime::true_now();
            match connect().await {
                Ok(_) => answered += 1,
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::Unreachable);
                    assert!(took(began) >= limits::CONNECT_TIMEOUT);
                    silent += 1;
                }
            }
        }
        assert!(silent > 3 && answered > 3, "{silent} {answered}");
        assert_eq!(network.counts().silent_connects, silent);
    });
}

#[test]
fn ghosts_harm_nobody() {
    let conditions = LinkConditions { ghosts: 1.0, ..LinkConditions::default() };
    with_conditions(conditions, |network, _, _, _| async move {
        for _ in 0..20 {
            let client = connect().await.unwrap();
            say(&client, 100).await.unwrap();
        }
        runtime::sleep(Duration::from_secs(12)).await;
        assert_eq!(network.counts().ghosts, 20);
        assert_eq!(network.counts().connections, 40);
    });
}

#[test]
fn a_machine_without_power_says_nothing() {
    with_conditions(LinkConditions::default(), |network, _, server, _| async move {
        let client = connect().await.unwrap();
        say(&client, 10).await.unwrap();
        network.cut_power(ip(SERVER));
        Handle::current().kill(server.id());
        assert_eq!(say(&client, 10).await.unwrap_err().code(), ErrorCode::TimedOut);
        let began = runtime::true_now();
        connect().await.unwrap_err();
        assert!(took(began) >= limits::CONNECT_TIMEOUT, "refused after {:?}", took(began));
        // The system asks at last whether the peer is still there.
        runtime::sleep(limits::UNACKNOWLEDGED_MAX).await;
        assert_eq!(say(&client, 10).await.unwrap_err().code(), ErrorCode::Unreachable);
        network.restore_power(ip(SERVER));
        Handle::current().restart(server.id());
        runtime::sleep(SOON).await;
        say(&connect().await.unwrap(), 10).await.unwrap();
    });
}

#[test]
fn a_killed_process_is_noticed_at_once() {
    with_conditions(LinkConditions::default(), |_, _, server, _| async move {
        let client = connect().await.unwrap();
        Handle::current().kill(server.id());
        let began = runtime::true_now();
        assert_eq!(say(&client, 10).await.unwrap_err().code(), ErrorCode::Unreachable);
        assert_eq!(connect().await.unwrap_err().code(), ErrorCode::Unreachable);
        assert!(took(began) < SOON, "{:?}", took(began));
    });
}

#[test]
fn all_is_open_after_a_swizzle() {
    with_conditions(LinkConditions::default(), |network, _, _, _| async move {
        let machines = [ip(SERVER), ip(CALLER), ip(3), ip(4)];
        for _ in 0..5 {
            network.swizzle(&machines, Duration::from_secs(4)).await;
            say(&connect().await.unwrap(), 10).await.unwrap();
        }
        // Both ways between groups, and nothing else.
        network.partition(&[vec![ip(SERVER), ip(3)], vec![ip(CALLER)]]);
        assert_eq!(connect().await.unwrap_err().code(), ErrorCode::Unreachable);
        let inside = machine(3).spawn(connect()).await.unwrap();
        assert!(inside.is_ok());
    });
}

#[test]
fn clocks_go_at_their_own_rates() {
    with_conditions(LinkConditions::default(), |_, _, _, node| async move {
        let clocks = Clocks::new(Trace::new());
        clocks.set_rate(node.id(), 2.0);
        let (truly, own) = (runtime::true_now(), runtime::now());
        runtime::sleep(Duration::from_secs(10)).await;
        let (truly, own) = (took(truly).as_secs_f64(), (runtime::now() - own).as_secs_f64());
        assert!((4.99..5.1).contains(&truly) && (9.99..10.1).contains(&own), "{truly} {own}");
        clocks.set_rate(node.id(), 0.5);
        let began = runtime::true_now();
        let limit = Duration::from_secs(1);
        let late = runtime::timeout(limit, Stage::Control, pending::<()>()).await;
        assert_eq!(late.unwrap_err().code(), ErrorCode::TimedOut);
        assert!((1.99..2.1).contains(&took(began).as_secs_f64()), "{:?}", took(began));
        // Others have their own.
        let other = machine(5);
        let slept = other.spawn(async {
            let began = runtime::true_now();
            runtime::sleep(Duration::from_secs(1)).await;
            took(began)
        });
        assert!(slept.await.unwrap() < Duration::from_millis(1_010));
    });
}

#[test]
fn clocks_jump_and_never_back() {
    const HOUR: Duration = Duration::from_secs(3_600);
    with_conditions(LinkConditions::default(), |_, _, _, node| async move {
        let clocks = Clocks::new(Trace::new());
        let client = connect().await.unwrap();
        clocks.jump_calendar(node.id(), -7_200);
        let (calendar, own, truly) = (runtime::unix_time(), runtime::now(), runtime::true_now());
        let sleeper = clocks.clone();
        let id = node.id();
        let jumping = async move {
            runtime::sleep(Duration::from_secs(1)).await;
            sleeper.jump_forward(id, HOUR);
        };
        futures::join!(jumping, runtime::sleep(HOUR));
        assert!(took(truly) < Duration::from_millis(1_200), "{:?}", took(truly));
        assert!(runtime::now() - own >= HOUR);
        let calendar_passed = runtime::unix_time().saturating_sub(calendar);
        assert!(calendar_passed < Duration::from_secs(2), "{calendar_passed:?}");
        clocks.jump_calendar(node.id(), 10_800);
        assert!(runtime::unix_time() - calendar > 2 * HOUR);
        // What travels has no part in it.
        say(&client, 10).await.unwrap();
        let mut last = runtime::now();
        for rate in [3.0, 0.1, 1.0, 0.0, 1.0] {
            clocks.set_rate(node.id(), rate);
            runtime::timeout(SOON, Stage::Control, say(&client, 10)).await.ok();
            assert!(runtime::now() >= last);
            last = runtime::now();
        }
    });
}

#[test]
fn a_node_that_does_not_run_keeps_its_connections() {
    with_conditions(LinkConditions::default(), |_, echo, server, _| async move {
        let clocks = Clocks::new(Trace::new());
        let client = connect().await.unwrap();
        say(&client, 10).await.unwrap();
        clocks.freeze(server.id());
        let frozen = ferrisdb_core::runtime::node_clocks::read(server.id());
        assert_eq!(say(&client, 10).await.unwrap_err().code(), ErrorCode::TimedOut);
        assert_eq!(echo.count(), 1);
        clocks.thaw(server.id());
        let stood = ferrisdb_core::runtime::node_clocks::read(server.id()) - frozen;
        assert!(stood < Duration::from_millis(1), "{stood:?}");
        say(&client, 10).await.unwrap();
    });
}

/// Runs a bit of everything and says what happened.
fn a_bit_of_everything(seed: u64) -> String {
    world::run(seed, || async {
        let trace = Trace::new();
        let conditions = LinkConditions {
            latency: Latency::LAN.with_tail(0.05, 0.01),
            deaths: 0.2,
            resets_per_second: 0.1,
            silent_connects: 0.05,
            ghosts: 0.2,
            ..LinkConditions::default()
        };
        let network = SimulatedNetwork::install(conditions, trace.clone());
        let clocks = Clocks::new(trace.clone());
        let (_, server) = serve(SERVER);
        clocks.set_rate(server.id(), 1.05);
        let callers = (2..6).map(|number| {
            let trace = trace.clone();
            machine(number).spawn(async move {
                for _ in 0..20 {
                    match connect().await {
                        Ok(client) => {
                            for _ in 0..20 {
                                let answer =
                                    say(&client, 5_000).await.map_err(|error| error.code());
                                trace.note(format_args!("{number} {answer:?}"));
                            }
                        }
                        Err(error) => trace.note(format_args!("{number} {}", error.code())),
                    }
                }
            })
        });
        let calling = futures::future::join_all(callers);
        let machines: Vec<IpAddr> = (1..6).map(ip).collect();
        let swizzling = async {
            for _ in 0..3 {
                network.swizzle(&machines, Duration::from_secs(2)).await;
            }
        };
        futures::join!(calling, swizzling);
        trace.note(format_args!("{:?}", network.counts()));
        trace.events().join("\n")
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    const CHILD: &str = "NETWORK_MODEL_SEED";
    if let Ok(seed) = std::env::var(CHILD) {
        println!("{}", a_bit_of_everything(seed.parse().unwrap()));
        return;
    }
    // Each run in a process of its own.
    let run = |seed: u64| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_same_seed_gives_the_same_run", "--nocapture"])
            .env(CHILD, seed.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let events = text.lines().filter(|line| !line.starts_with("test ")).map(str::to_owned);
        events.filter(|line| !line.contains("finished in")).collect::<Vec<_>>()
    };
    let (first, second, other) = (run(3), run(3), run(4));
    let differs = first.iter().zip(&second).find(|(a, b)| a != b);
    assert_eq!(differs, None);
    assert_eq!(first.len(), second.len());
    assert_ne!(first, other);
    assert!(first.len() > 500, "hardly anything happened: {first:#?}");
}
