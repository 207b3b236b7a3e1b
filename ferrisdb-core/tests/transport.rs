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

    async fn begin_batch(self, _: Context, _: Generation, _: u64) -> Result<BatchVersions> {
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
    transport::call(NEVER, Stage::Sequence, |context| client.begin_batch(context, Generation(1), 0))
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
    let inside = Endpoint { address: Address::new("inside"), instance: INSTANCE };
    server.network.add_local(inside.address.clone(), server.router.clone());
    let client = server.network.connect::<SequencerService>(&inside).await.unwrap();
    assert_answers(&client).await;
    let absent = Endpoint { instance: INSTANCE + 1, ..inside.clone() };
    let error = server.network.connect::<SequencerService>(&absent).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoSuchEndpoint);
    assert_eq!(error.server(), Some("inside#8"));
    server.network.clear_local();
    let error = server.network.connect::<SequencerService>(&inside).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable);
}

#[tokio::test]
async fn another_protocol_version_is_refused() {
    let server = Server::start(patient()).await;
    let mut stream = server.raw().await;
    let newer = Hello { protocol_version: PROTOCOL_VERSION + 1, ..hello() };
    stream.write_all(&newer.to_bytes()).await.unwrap();
    assert_eq!(read_refusal(&mut stream).await, 1);
    assert_hung_up(&mut stream).await;
    assert_eq!(server.router.connections(), 0);

    // The same from the other side: a server that speaks version 0x0102.
    let answer = *b"FERRISDB\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    let error = connect_to_peer_that_says(&answer, patient()).await;
    assert_eq!(error.code(), ErrorCode::IncompatibleProtocol);
    let versions = format!("the server speaks version 258, this side {PROTOCOL_VERSION}");
    assert_eq!(error.detail(), versions);
}

#[tokio::test]
async fn another_cluster_is_refused_and_ones_own_is_learnt() {
    let server = Server::start(patient()).await;
    server.network.join(OURS).unwrap();
    let stranger = Network::with_bounds(patient());
    stranger.join(THEIRS).unwrap();
    let refused = in_time(stranger.connect::<SequencerService>(&server.endpoint())).await;
    let error = refused.unwrap_err();
    assert_eq!(error.code(), ErrorCode::WrongCluster);
    assert!(error.detail().contains(&OURS.to_string()), "{error}");
    assert!(error.detail().contains(&THEIRS.to_string()), "{error}");

    let newcomer = Network::new();
    let client = in_time(newcomer.connect::<SequencerService>(&server.endpoint())).await.unwrap();
    assert_eq!(newcomer.cluster_id(), Some(OURS));
    assert_answers(&client).await;
    assert_eq!(newcomer.join(THEIRS).unwrap_err().code(), ErrorCode::WrongCluster);
}

#[tokio::test]
async fn an_unknown_endpoint_is_refused() {
    let server = Server::start(patient()).await;
    let other_service = ServiceKind::Proxy as u8;
    let unknown = [
        Hello { instance: INSTANCE + 1, ..hello() },
        Hello { service: other_service, ..hello() },
        Hello { service: 0, ..hello() },
        Hello { service: 255, ..hello() },
    ];
    for hello in unknown {
        let mut stream = server.raw().await;
        stream.write_all(&hello.to_bytes()).await.unwrap();
        assert_eq!(read_refusal(&mut stream).await, 3, "{hello:?}");
        assert_hung_up(&mut stream).await;
    }
    let absent = Endpoint { instance: INSTANCE + 1, ..server.endpoint() };
    let refused = in_time(Network::new().connect::<SequencerService>(&absent)).await;
    let error = refused.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoSuchEndpoint);
    assert_eq!(error.server(), Some(absent.to_string().as_str()));
}

/// Connects to a peer that reads the hello, says `words` and then keeps the connection open in silence.
async fn connect_to_peer_that_says(words: &[u8], bounds: Bounds) -> ferrisdb_core::Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(listener.local_addr().unwrap().to_string());
    let words = words.to_vec();
    let _peer = runtime::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 36]).await.unwrap();
        stream.write_all(&words).await.unwrap();
        pending().await
    });
    let endpoint = Endpoint { address, instance: INSTANCE };
    let network = Network::with_bounds(bounds);
    let error = in_time(network.connect::<SequencerService>(&endpoint)).await.unwrap_err();
    assert_eq!(error.server(), Some(endpoint.to_string().as_str()));
    error
}

#[tokio::test]
async fn a_server_that_is_not_ours_is_noticed() {
    // Shorter than an answer of ours would be: known by its first words, without waiting for the rest.
    let error = connect_to_peer_that_says(b"HTTP/1.1 400\r\n", patient()).await;
    assert_eq!(error.code(), ErrorCode::IncompatibleProtocol);
    let error = connect_to_peer_that_says(&[0xff; 1_000], patient()).await;
    assert_eq!(error.code(), ErrorCode::IncompatibleProtocol);

    for silent in [&b""[..], b"FERR", b"FERRISDB\0\x01"] {
        let error = connect_to_peer_that_says(silent, impatient()).await;
        assert_eq!(error.code(), ErrorCode::Unreachable, "{silent:?}");
    }
    let unknown_refusal = *b"FERRISDB\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x63";
    let error = connect_to_peer_that_says(&unknown_refusal, patient()).await;
    assert_eq!(error.code(), ErrorCode::Protocol);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(listener.local_addr().unwrap().to_string());
    drop(listener);
    let nobody = Endpoint::of_process(address);
    let refused = in_time(Network::new().connect::<SequencerService>(&nobody)).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::Unreachable);
}

#[tokio::test]
async fn a_caller_that_is_not_ours_is_sent_away() {
    let server = Server::start(patient()).await;
    let bystander = server.client().await;
    // Shorter than a hello: known by its first words, without waiting for the rest.
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 8], &[0xff; 100]] {
        let mut stream = server.raw().await;
        stream.write_all(words).await.unwrap();
        assert_hung_up(&mut stream).await;
        assert_answers(&bystander).await;
    }
    assert_eq!(server.router.connections(), 1);
}

#[tokio::test]
async fn half_a_hello_does_not_hold_a_connection() {
    let server = Server::start(impatient()).await;
    let bystander = server.client().await;
    for length in [0, 4, 8, 34] {
        let mut stream = server.raw().await;
        stream.write_all(&hello().to_bytes()[..length]).await.unwrap();
        assert_answers(&bystander).await;
        assert_hung_up(&mut stream).await;
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

/// tarpc's message, with a deadline that is not bound to what a clock can hold.
#[derive(Serialize)]
enum Message {
    Request(Request),
}

#[derive(Serialize)]
struct Request {
    context: WireContext,
    id: u64,
    message: SequencerRequest,
}

#[derive(Serialize)]
struct WireContext {
    deadline: Duration,
    trace_context: tarpc::trace::Context,
}

fn frame(contents: &[u8]) -> Vec<u8> {
    let mut frame = (contents.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(contents);
    frame
}

fn request(id: u64, deadline: Duration, message: SequencerRequest) -> Vec<u8> {
    let context = WireContext { deadline, trace_context: tarpc::trace::Context::default() };
    let message = Message::Request(Request { context, id, message });
    frame(&transport::encode(&message).unwrap())
}

fn question(deadline: Duration) -> Vec<u8> {
    request(1, deadline, SequencerRequest::CommittedVersion { generation: Generation(41) })
}

async fn read_response(stream: &mut TcpStream) -> tarpc::Response<SequencerResponse> {
    let length = in_time(stream.read_u32()).await.unwrap();
    let mut contents = vec![0; length as usize];
    in_time(stream.read_exact(&mut contents)).await.unwrap();
    transport::decode(&contents).unwrap()
}

#[tokio::test]
async fn malformed_frames_end_their_connection_and_nothing_else() {
    let server = Server::start(Bounds::default()).await;
    let bystander = server.client().await;
    let mut trailing = transport::encode(&3u64).unwrap().to_vec();
    trailing.extend_from_slice(&[0; 40]);
    let malformed = [
        frame(b""),
        frame(b"GET / HTTP/1.1"),
        frame(&trailing),
        frame(&[0xff; 64]),
        u32::MAX.to_be_bytes().to_vec(),
        (limits::FRAME_BYTES_MAX as u32 + 1).to_be_bytes().to_vec(),
        // The decoder panics on this one, inside tarpc, and catches it.
        question(Duration::MAX),
    ];
    for bytes in malformed {
        let mut stream = server.raw_after_handshake().await;
        stream.write_all(&bytes).await.unwrap();
        assert_hung_up(&mut stream).await;
        assert_answers(&bystander).await;
    }
    until(|| server.router.connections() == 1).await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn deadlines_beyond_what_timers_hold_are_moved() {
    let server = Server::start(Bounds::default()).await;
    let year = 365 * 24 * 3_600;
    // Some of these fit into an Instant but not into a SystemTime, others into both but not into a timer.
    for seconds in [0, 1, year, 3 * year, 300 * year, 1 << 60, i64::MAX as u64 - (1 << 30)] {
        let mut stream = server.raw_after_handshake().await;
        stream.write_all(&question(Duration::from_secs(seconds))).await.unwrap();
        if seconds == 0 {
            continue; // the deadline has passed: an answer may come or not
        }
        let response = read_response(&mut stream).await;
        assert_eq!(response.request_id, 1);
        let answered = matches!(
            response.message,
            Ok(SequencerResponse::CommittedVersion(Ok(version))) if version == Version(42)
        );
        assert!(answered, "a deadline in {seconds} s was not answered");
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn half_a_frame_holds_up_nobody_else() {
    let server = Server::start(Bounds::default()).await;
    let bystander = server.client().await;
    let whole = question(NEVER);
    let mut stuck = Vec::new();
    for length in [1, 4, whole.len() - 1] {
        let mut stream = server.raw_after_handshake().await;
        stream.write_all(&whole[..length]).await.unwrap();
        assert_answers(&bystander).await;
        stuck.push(stream);
    }
    assert_eq!(server.router.connections(), 4);
    drop(stuck);
    until(|| server.router.connections() == 1).await;
    assert_answers(&bystander).await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_caller_with_too_many_requests_in_flight_is_refused_and_not_stuck() {
    let server = Server::start(Bounds::default()).await;
    let bystander = server.client().await;
    let mut stream = server.raw_after_handshake().await;
    let most = limits::REQUESTS_IN_FLIGHT_MAX as u64;
    let unanswered = || SequencerRequest::BeginBatch { generation: Generation(1), batch: 0 };
    let requests: Vec<u8> = (0..most + 2).flat_map(|id| request(id, NEVER, unanswered())).collect();
    in_time(stream.write_all(&requests)).await.unwrap();
    for refused in [most, most + 1] {
        let response = read_response(&mut stream).await;
        assert_eq!(response.request_id, refused);
        let error = tarpc::client::RpcError::from(response.message.unwrap_err());
        assert_eq!(transport::rpc_error(&error, Stage::Sequence).code(), ErrorCode::TooBusy);
    }
    assert_answers(&bystander).await;
}

#[tokio::test]
async fn connections_have_a_bound() {
    let server = Server::start(Bounds { connections_max: 2, ..patient() }).await;
    let first = server.client().await;
    let second = server.client().await;
    let refused = in_time(Network::new().connect::<SequencerService>(&server.endpoint())).await;
    let error = refused.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooBusy);
    assert!(error.is_retryable());
    assert_answers(&first).await;
    drop(second);
    until(|| server.router.connections() == 1).await;
    assert_answers(&server.client().await).await;
}

#[tokio::test]
async fn clients_leave_connections_to_servers() {
    let server = Server::start(Bounds { connections_max: 8, ..patient() }).await;
    let mut clients = Vec::new();
    for _ in 0..7 {
        clients.push(server.client().await);
    }
    let refused = in_time(Network::new().connect::<SequencerService>(&server.endpoint())).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::TooBusy);
    let member = Network::new();
    member.set_origin(&Address::new("member:1"));
    let kept = in_time(member.connect::<SequencerService>(&server.endpoint())).await.unwrap();
    assert_answers(&kept).await;
    let refused = in_time(member.connect::<SequencerService>(&server.endpoint())).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::TooBusy, "these have a bound, too");
}

#[tokio::test]
async fn clients_that_come_at_once_leave_connections_to_servers() {
    let bounds = Bounds { connections_max: 8, handshakes_max: 64, ..patient() };
    let server = Server::start(bounds).await;
    let endpoint = server.endpoint();
    let connects = (0..20).map(|_| {
        let endpoint = endpoint.clone();
        async move { Network::new().connect::<SequencerService>(&endpoint).await }
    });
    let clients = in_time(futures::future::join_all(connects)).await;
    let refused = clients.iter().filter_map(|client| client.as_ref().err());
    assert!(refused.clone().all(|error| error.code() == ErrorCode::TooBusy));
    assert_eq!(refused.count(), 13);
    let member = Network::new();
    member.set_origin(&Address::new("member:1"));
    let kept = in_time(member.connect::<SequencerService>(&endpoint)).await.unwrap();
    assert_answers(&kept).await;
}

#[tokio::test]
async fn silent_peers_make_room_for_others() {
    let bounds = Bounds { handshakes_max: 4, connections_max: 8, handshake_timeout: NEVER };
    let server = Server::start(bounds).await;
    let bystander = server.client().await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(server.endpoint().address.0.as_str()).await.unwrap());
    }
    // Whoever says what he wants gets it, however many say nothing.
    let another = server.client().await;
    assert_answers(&another).await;
    assert_answers(&bystander).await;
    for stream in &mut silent[..40] {
        let closed = in_time(stream.read(&mut [0; 1])).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "the oldest were closed");
    }
    // They do not count as connections.
    assert_eq!(server.router.connections(), 2);
}

#[tokio::test]
async fn removing_an_endpoint_ends_its_connections() {
    let server = Server::start(Bounds::default()).await;
    let inside = Endpoint { address: Address::new("inside"), instance: INSTANCE };
    server.network.add_local(inside.address.clone(), server.router.clone());
    for endpoint in [server.endpoint(), inside] {
        server.router.add::<SequencerService>(INSTANCE, handler!(Sequencer, Scripted));
        let client = server.network.connect::<SequencerService>(&endpoint).await.unwrap();
        let mut waiting = Box::pin(wait_for_ever(&client));
        // One answered question later, the other call has arrived as well.
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        assert_answers(&client).await;
        server.router.remove(ServiceKind::Sequencer, INSTANCE);
        assert!(!server.router.offers(ServiceKind::Sequencer, INSTANCE));
        assert_eq!(server.router.connections(), 0);
        let interrupted = in_time(waiting).await.unwrap_err();
        assert_eq!(interrupted.code(), ErrorCode::Unreachable, "{interrupted}");
        assert_eq!(ask(&client).await.unwrap_err().code(), ErrorCode::Unreachable);
        let again = in_time(server.network.connect::<SequencerService>(&endpoint)).await;
        assert_eq!(again.unwrap_err().code(), ErrorCode::NoSuchEndpoint);
    }
}

#[tokio::test]
async fn what_a_router_drops_may_use_the_router() {
    struct LastWords(Router);
    impl Drop for LastWords {
        fn drop(&mut self) {
            self.0.remove(ServiceKind::Sequencer, 0);
        }
    }
    #[derive(Clone)]
    struct Role {
        _last_words: std::sync::Arc<LastWords>,
    }
    impl Sequencer for Role {
        async fn committed_version(self, _: Context, _: Generation) -> Result<Version> {
            Ok(Version::ZERO)
        }
        async fn begin_batch(self, _: Context, _: Generation, _: u64) -> Result<BatchVersions> {
            pending().await
        }
        async fn report_committed(self, _: Context, _: Generation, _: Version) -> Result<()> {
            Ok(())
        }
    }
    let router = Router::new();
    let add = || {
        let role = Role { _last_words: std::sync::Arc::new(LastWords(router.clone())) };
        router.add::<SequencerService>(1, handler!(Sequencer, role));
    };
    add();
    add();
    router.remove(ServiceKind::Sequencer, 1);
    add();
    router.clear();
    assert!(!router.offers(ServiceKind::Sequencer, 1));
}

#[tokio::test]
async fn the_last_clone_of_a_client_ends_the_connection() {
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
