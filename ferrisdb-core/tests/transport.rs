//! The transport over real sockets and within a process: what good peers get, what bad peers cannot do.
//!
//! Every test has a server with one endpoint, and most have a *bystander*: a client that did nothing wrong
//! and has to be answered while another peer misbehaves. Nothing here waits for time to pass: where a
//! bound ends a wait the test makes it short, where something has to happen at once it makes it an hour.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{
    future::{Future, pending},
    panic,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrisdb_core::{
    ClusterId, Endpoint, ErrorCode, Generation, Result, Stage, Version, handler,
    id::Address,
    limits, runtime,
    service::{
        Client, PROTOCOL_VERSION, ServiceKind,
        sequencer::{
            BatchVersions, Sequencer, SequencerRequest, SequencerResponse, SequencerService,
        },
    },
    transport::{self, Bounds, Hello, Listener, Network, Router},
};
use serde::Serialize;
use tarpc::context::Context;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const INSTANCE: u64 = 7;
const OURS: ClusterId = ClusterId(0xa);
const THEIRS: ClusterId = ClusterId(0xb);
/// Longer than any test: whoever waits for this has not noticed.
const NEVER: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_millis(20);

/// Answers one method, never answers another, and panics in the third.
#[derive(Clone)]
struct Scripted;

const ON_PURPOSE: &str = "a handler panics on purpose";

impl Sequencer for Scripted {
    async fn committed_version(self, _: Context, generation: Generation) -> Result<Version> {
        Ok(Version(generation.0 + 1))
    }

    async fn begin_batch(self, _: Context, _: Generation) -> Result<BatchVersions> {
        pending().await
    }

    async fn report_committed(self, _: Context, _: Generation, _: Version) -> Result<()> {
        panic!("{ON_PURPOSE}")
    }
}

struct Server {
    router: Router,
    network: Network,
    listener: Listener,
}

impl Server {
    async fn start(bounds: Bounds) -> Server {
        count_panics();
        let router = Router::new();
        router.add::<SequencerService>(INSTANCE, handler!(Sequencer, Scripted));
        let network = Network::with_bounds(bounds);
        let address = Address::new("127.0.0.1:0");
        let listener = Listener::bind(&address, router.clone(), network.clone()).await.unwrap();
        Server { router, network, listener }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.listener.address().clone(), instance: INSTANCE }
    }

    async fn client(&self) -> Client<SequencerService> {
        in_time(Network::new().connect::<SequencerService>(&self.endpoint())).await.unwrap()
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.listener.address().0.as_str()).await.unwrap()
    }

    /// A connection that has passed the handshake, for frames of the test's own making.
    async fn raw_after_handshake(&self) -> TcpStream {
        let mut stream = self.raw().await;
        stream.write_all(&hello().to_bytes()).await.unwrap();
        assert_eq!(read_refusal(&mut stream).await, 0);
        stream
    }
}

fn hello() -> Hello {
    Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: None,
        service: ServiceKind::Sequencer as u8,
        instance: INSTANCE,
        origin: String::new(),
    }
}

fn patient() -> Bounds {
    Bounds { handshake_timeout: NEVER, ..Bounds::default() }
}

fn impatient() -> Bounds {
    Bounds { handshake_timeout: SOON, ..Bounds::default() }
}

/// Fails instead of hanging.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    runtime::timeout(limit, Stage::Client, future).await.expect("something hangs")
}

async fn until(condition: impl Fn() -> bool) {
    in_time(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn ask(client: &Client<SequencerService>) -> Result<Version> {
    let answer = transport::call(NEVER, Stage::Sequence, |context| {
        client.committed_version(context, Generation(41))
    });
    in_time(answer).await?
}

async fn assert_answers(client: &Client<SequencerService>) {
    assert_eq!(ask(client).await.unwrap(), Version(42));
}

/// A call that the server never answers.
async fn wait_for_ever(client: &Client<SequencerService>) -> Result<BatchVersions> {
    transport::call(NEVER, Stage::Sequence, |context| client.begin_batch(context, Generation(1)))
        .await?
}

async fn read_refusal(stream: &mut TcpStream) -> u8 {
    let mut answer = [0; 27];
    in_time(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer[..8], b"FERRISDB");
    assert_eq!(u16::from_be_bytes([answer[8], answer[9]]), PROTOCOL_VERSION);
    answer[26]
}

/// Waits until the peer has hung up. It may do so with a reset, when it has not read everything.
async fn assert_hung_up(stream: &mut TcpStream) {
    let mut left = Vec::new();
    let ended = in_time(stream.read_to_end(&mut left)).await;
    assert!(left.is_empty(), "{left:?} after the end ({ended:?})");
}

/// Panics outside of the decoder, which catches its own, and not asked for by a test.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let on_purpose = info.to_string().contains(ON_PURPOSE);
            if !transport::is_decoding() && !on_purpose {
                PANICS.fetch_add(1, Ordering::Relaxed);
                usual(info);
            }
        }));
    });
}

#[tokio::test]
async fn round_trip_over_a_socket() {
    let server = Server::start(Bounds::default()).await;
    let client = server.client().await;
    assert_answers(&client).await;
    assert_eq!(server.router.connections(), 1);
}

#[tokio::test]
async fn round_trip_within_a_process() {
    let server = Server::start(Bounds::default()).await;
    let client = server.network.connect::<SequencerService>(&server.endpoint()).await.unwrap();
    let clone = client.clone();
    drop(client);
    assert_answers(&clone).await;
    assert_eq!(server.router.connections(), 1);
    drop(clone);
    until(|| server.router.connections() == 0).await;
}

#[tokio::test]
async fn a_call_within_the_process_needs_no_connection_and_ends_with_its_handler() {
    let server = Server::start(Bounds::default()).await;
    let inside = Endpoint { address: Address::new("inside"), instance: INSTANCE };
    server.network.add_local(inside.address.clone(), server.router.clone());
    let client = server.network.connect::<SequencerService>(&inside).await.unwrap();
    assert_answers(&client).await;
    assert_eq!(server.router.connections(), 0);
    let waiting = wait_for_ever(&client);
    let removed = async {
        runtime::sleep(Duration::from_millis(10)).await;
        server.router.remove(ServiceKind::Sequencer, INSTANCE);
    };
    let (ended, ()) = tokio::join!(waiting, removed);
    assert_eq!(ended.unwrap_err().code(), ErrorCode::Unreachable);
    assert_eq!(ask(&client).await.unwrap_err().code(), ErrorCode::Unreachable);
}

#[tokio::test]
async fn a_panic_of_a_handler_ends_its_connection_and_nothing_else() {
    let server = Server::start(Bounds::default()).await;
    let bystander = server.client().await;
    let victim = server.client().await;
    let unlucky = transport::call(NEVER, Stage::Sequence, |context| {
        victim.report_committed(context, Generation(1), Version(1))
    });
    let error = in_time(unlucky).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable, "{error}");
    until(|| server.router.connections() == 1).await;
    assert_answers(&bystander).await;
    assert_answers(&server.client().await).await;
}
